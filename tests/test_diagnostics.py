"""What is said about a meta-step is true: closed forms on quadratics, and the model stays as it was."""

import copy

import numpy as np
import pytest
import torch
from kernel_problems import Point, cross_entropy, flat, make_net, make_quadratics, quadratic

from mede_core.lab.diagnostics import (
    compare_gradients,
    inner_step_losses,
    limits,
    meta_trace,
    order_comparison,
    quadratic_pull,
)
from mede_core.lab.toy import make_toy_problem, run_toy
from mede_core.meta import meta_gradients, meta_step


def value(batch, x):
    matrix, center = batch
    return ((x - center) @ matrix @ (x - center) / 2).item()


def test_inner_step_losses_are_those_at_the_fast_weights():
    support, query, x = make_quadratics()
    gradient = support[0] @ (x - support[1])
    rows = inner_step_losses(Point(x), quadratic, support, query, (0.0, 0.03, 0.2))
    for row, alpha in zip(rows, (0.0, 0.03, 0.2), strict=True):
        fast = x - alpha * gradient
        assert row["inner_lr"] == alpha
        assert row["support_loss"] == pytest.approx(value(support, fast), rel=1e-12)
        assert row["query_loss"] == pytest.approx(value(query, fast), rel=1e-12)


def test_looking_leaves_the_model_as_it_was():
    model, support, query = make_net()
    model.eval()
    before = copy.deepcopy(model.state_dict())
    inner_step_losses(model, cross_entropy, support, query, (0.0, 0.5))
    order_comparison(model, cross_entropy, support, query, (0.1,))
    limits(model, cross_entropy, support, query, inner_lr=0.1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_trace_trains_exactly_as_meta_steps_do_and_notes_the_losses_around_the_inner_step():
    model, *batches = make_net()
    twin = copy.deepcopy(model)
    pairs = [(batches[0], batches[1]), (batches[1], batches[0])]
    settings = {"inner_lr": 0.2, "query_weight": 0.7, "max_grad_norm": 1.0}
    model.eval(), twin.eval()
    rows = meta_trace(model, cross_entropy, pairs, torch.optim.SGD(model.parameters(), 0.1), **settings)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    for row, (support, query) in zip(rows, pairs, strict=True):
        assert row["query_before"] == pytest.approx(cross_entropy(twin, query).item(), rel=1e-12)
        found = meta_step(twin, cross_entropy, support, query, optimizer, **settings)
        assert (row["support_loss"], row["query_loss"]) == (found.support_loss, found.query_loss)
        assert row["grad_inner_product"] == found.grad_inner_product
        assert row["support_after"] < row["support_loss"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert [row["step"] for row in rows] == [0, 1]


def test_first_and_second_order_differ_by_alpha_delta_h_g():
    support, query, x = make_quadratics()
    model, (alpha, delta) = Point(x), (0.05, 0.8)
    g_s = support[0] @ (x - support[1])
    g_q = query[0] @ (x - alpha * g_s - query[1])
    exact = g_s + delta * (g_q - alpha * support[0] @ g_q)
    (row,) = order_comparison(model, quadratic, support, query, (alpha,), query_weight=delta)
    assert row["difference"] == pytest.approx(
        (alpha * delta * (support[0] @ g_q).norm() / exact.norm()).item(), rel=1e-9
    )
    assert order_comparison(model, quadratic, support, query, (0.0,))[0]["difference"] == pytest.approx(0, abs=1e-12)


def test_the_limits_are_joint_and_plain_training_and_nothing_else_is():
    model, support, query = make_net()
    model.eval()
    rows = limits(model, cross_entropy, support, query, inner_lr=0.3, query_weight=0.6)
    assert [(r["inner_lr"], r["query_weight"], r["compared_with"]) for r in rows] == [
        (0.0, 0.6, "joint"), (0.3, 0.6, "joint"), (0.3, 0.0, "plain"), (0.3, 0.6, "plain"),
    ]  # fmt: skip
    differences = [row["difference"] for row in rows]
    assert max(differences[0], differences[2]) < 1e-12
    assert min(differences[1], differences[3]) > 1e-3


def test_gradients_are_compared_by_angle_length_and_difference():
    a = {"u": torch.tensor([3.0, 0.0]), "w": torch.tensor([0.0])}
    b = {"w": torch.tensor([4.0]), "u": torch.tensor([0.0, 0.0])}
    found = compare_gradients(a, b)
    assert found == {"cosine": 0.0, "norm_ratio": pytest.approx(0.75), "difference": pytest.approx(1.25)}
    assert compare_gradients({"u": 2 * a["u"]}, {"u": a["u"]})["cosine"] == pytest.approx(1.0)


@pytest.mark.parametrize("first_order", [True, False])
def test_the_pull_is_that_of_an_epoch_on_the_toy_problem(first_order):
    problem = make_toy_problem(6, shortcut=0.4)
    path = run_toy(problem, steps=6, outer_lr=0.0, inner_lr=0.15, query_weight=0.9, first_order=first_order)
    expected = [quadratic_pull(h, 0.15, 0.9, first_order) for h in problem.curvature]
    distance = path.theta[0] - problem.minima.mean(0)
    np.testing.assert_allclose(path.merged_grad.mean(0) / distance, expected, rtol=1e-12)


def test_only_what_is_trained_moves_in_the_inner_step():
    support, query, x = make_quadratics()
    model = Point(x)
    model.u.requires_grad_(False)
    gradient = flat({"u": torch.zeros(2), "w": (support[0] @ (x - support[1]))[2:]})
    row = inner_step_losses(model, quadratic, support, query, (0.1,))[0]
    assert row["support_loss"] == pytest.approx(value(support, x - 0.1 * gradient), rel=1e-12)
    assert meta_gradients(model, quadratic, support, query, inner_lr=0.1).grads.keys() == {"w"}
