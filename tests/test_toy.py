"""The two-parameter problem: its steps are the equations', and it shows what its docstring says."""

import numpy as np
import pytest

from mede_core.lab.toy import compare_trainings, loss_surface, make_toy_problem, run_toy


@pytest.mark.parametrize("first_order", [True, False])
def test_every_step_follows_the_equations(first_order):
    problem = make_toy_problem(5, shortcut=0.5, seed=3)
    settings = {"outer_lr": 0.03, "inner_lr": 0.2, "query_weight": 0.7, "first_order": first_order}
    path = run_toy(problem, steps=12, seed=1, **settings)
    h = problem.curvature
    for t in range(12):
        support, query = problem.minima[path.support[t]], problem.minima[path.query[t]]
        g_s = h * (path.theta[t] - support)
        fast = path.theta[t] - 0.2 * g_s
        g_q = h * (fast - query)
        merged = g_s + 0.7 * (g_q if first_order else (1 - 0.2 * h) * g_q)
        found = path.support_grad[t], path.theta_fast[t], path.query_grad[t], path.merged_grad[t], path.theta[t + 1]
        expected = g_s, fast, g_q, merged, path.theta[t] - 0.03 * merged
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        assert path.support_loss[t] == pytest.approx((h * (path.theta[t] - support) ** 2).sum() / 2)
        assert path.query_loss[t] == pytest.approx((h * (fast - query) ** 2).sum() / 2)


def test_an_epoch_uses_each_batch_once_as_support_and_once_as_query():
    path = run_toy(make_toy_problem(6), steps=18)
    for epoch in range(3):
        rows = slice(6 * epoch, 6 * epoch + 6)
        assert sorted(path.support[rows]) == sorted(path.query[rows]) == list(range(6))
        assert path.support[rows][1:].tolist() == path.query[rows][:-1].tolist()
    assert path.support[:6].tolist() != path.support[6:12].tolist()


def test_batches_differ_in_the_shortcut_alone_by_exactly_the_spread_asked_for():
    problem = make_toy_problem(9, spread=1.5, shortcut=-0.3)
    assert problem.minima[:, 0].mean() == pytest.approx(-0.3)
    assert problem.minima[:, 0].std() == pytest.approx(1.5)
    assert (problem.minima[:, 1] == 1).all()


def test_surface_is_least_at_the_minimum_and_rows_are_the_second_parameter():
    problem = make_toy_problem(4, shortcut=0.5)
    x, y = np.linspace(-2, 3, 51), np.linspace(0, 2, 21)
    for batch, minimum in [(2, problem.minima[2]), (None, problem.minima.mean(0))]:
        surface = loss_surface(problem, x, y, batch)
        assert surface.shape == (21, 51)
        row, column = np.unravel_index(surface.argmin(), surface.shape)
        assert abs(x[column] - minimum[0]) <= 0.05 + 1e-9
        assert y[row] == pytest.approx(minimum[1])
    path = run_toy(problem, steps=3)
    for t in range(3):
        here = loss_surface(problem, path.theta[t, :1], path.theta[t, 1:], path.support[t])
        assert here.item() == pytest.approx(path.support_loss[t])


def test_equal_seeds_give_equal_bits():
    a, b = (run_toy(make_toy_problem(seed=4), seed=4) for _ in range(2))
    assert a.theta.tobytes() == b.theta.tobytes()


def test_trainings_are_compared_by_their_updates_and_by_where_they_settle():
    problems = {"varied": make_toy_problem(), "common": make_toy_problem(spread=0.0, shortcut=-1.0)}
    start = np.array([0.3, -1.2])
    joint, meta, common, both = compare_trainings(problems, inner_lr=0.15, query_weight=1.0, start=start, seed=46)
    h, (s, q) = problems["varied"].curvature, problems["varied"].minima[[6, 4]]
    np.testing.assert_allclose(joint["update"], -h * (2 * start - s - q))
    np.testing.assert_allclose(meta["update"], -h * ((2 - 0.15 * h) * start - (1 - 0.15 * h) * s - q))
    assert joint["angle"] == pytest.approx(np.degrees(np.arctan(abs(joint["update"][0] / joint["update"][1]))))
    assert meta["swings"] < joint["swings"] and abs(meta["settles"]) < 0.05  # the steep direction is damped
    assert common["settles"] == pytest.approx(-1) == both["settles"]  # a shortcut of all batches stays what it was
