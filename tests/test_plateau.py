"""Trained to the plateau: cells are told apart by trainer and average, and the paper's methods are some of them."""

import pytest

from mede_core.config import OUT_OF_CONTEXT
from mede_core.study import answers_plateau as plateau
from mede_core.study import claims
from mede_core.study.units import PAIRINGS, TRAINERS

TRAINER = {name: 10.0 + index for index, name in enumerate((*TRAINERS, "plain with equal passes"))}
AVERAGE = {name: 3.0 * index for index, name in enumerate(plateau.AVERAGES)}


def records(trainers=TRAINER, seeds=(4, 5, 6, 7), **more):
    """Cells whose accuracy out of context is that of the trainer plus that of the average; in context 20 more."""
    found = []
    for seed in seeds:
        own = ((name, average, TRAINER.get(name, 30.0) + AVERAGE[average]) for name in trainers for average in AVERAGE)
        for trainer, average, value in (("frozen", "last", 0.0), *own):
            about = {"method": trainer, "average": average, "seed": seed, "part": 1, "n": 400, "rho": 0.8, **more}
            tests = [("source", half, at) for half in ("base", "novel") for at in ("in", *OUT_OF_CONTEXT)]
            tests += [(name, "all", "in") for name in ("transfer_a", "transfer_b", "superset", "direction")]
            for name, half, at in tests:
                reached = value + 20 * (at == "in") + 0.1 * seed
                found.append({**about, "metric": "top1", "set": name, "split": half, "context": at, "value": reached})
            look = {**about, "set": "look", "split": "all", "context": "in"}
            found += [{**look, "metric": metric, "value": value}
                      for metric in ("scene_share", "order_gap", "background", "motion")]  # fmt: skip
    return found


def test_a_cell_differs_from_its_neighbor_in_one_thing():
    frame = plateau.neighbors(records())
    out = frame[frame["quantity"] == "out"].set_index(["first", "second"])
    assert out.loc[("meta, GWA", "joint, GWA"), ["value", "of"]].tolist() == [pytest.approx(1.0), "trainer"]
    assert out.loc[("plain, SWA, half CLIP", "plain, SWA"), ["value", "of"]].tolist() == [pytest.approx(3.0), "average"]
    assert len(out) == 2 * len(plateau.TRAINER_PAIRS) + len(TRAINER) * len(plateau.AVERAGE_PAIRS)
    assert (frame[frame["quantity"] == "gap"]["value"].abs() < 1e-9).all() and set(frame["seeds"]) == {4}


def test_every_cell_has_a_row_and_frozen_clip_has_one():
    table = plateau.cell_table(records()).set_index("Trainer, average")
    assert len(table) == 1 + len(TRAINER) * len(AVERAGE)
    assert table.loc["meta, GWA", "Out of context"].startswith("15.5") and set(table["Seeds"]) == {4}
    assert table.loc["meta, GWA", "Scene votes (%)"] == table.loc["meta, GWA", "Order gap"]
    assert "not run" not in table.to_numpy().ravel()


def test_the_papers_methods_are_cells_and_their_claims_are_judged_by_the_same_rules():
    found = plateau.paper_records(records())
    assert {r["method"] for r in found} == {*plateau.PAPER_CELLS.values()}
    judged = claims.measured(found).set_index(["first", "second", "quantity"])
    assert judged.loc[("open_mede", "open_mede_no_gwa", "out"), "value"].item() == pytest.approx(3.0)
    assert judged.loc[("open_mede_no_gwa", "joint", "out"), "value"].item() == pytest.approx(1.0)


def test_where_the_step_could_bite_it_is_compared_on_the_same_batches():
    names = [f"{name}, {how}" for how in PAIRINGS.values() for name in ("meta", "joint")]
    frame = plateau.trainer_differences(records(names), plateau.BITE_PAIRS)
    assert len(frame) == 2 * 2 * 3 and (frame["value"].abs() < 1e-9).all()


def test_the_dial_has_every_trainer_at_three_points_and_frozen_clip_at_each():
    names = {rho: [f"{name} rho={rho:g}" for name in TRAINERS] for rho in (0.25, 0.8, 1.0)}
    trained = [r for rho, own in names.items() for r in records(own, rho=rho) if r["method"] != "frozen"]
    frame = plateau.dialed([*trained, *(r for r in records() if r["method"] == "frozen")], "gwa")
    assert set(frame["rho"]) == {*names} and set(frame["method"]) == {"frozen", *TRAINERS}
    middle = frame.query("rho == 0.8 and method == 'meta' and context == 'out'")["value"].item()
    assert middle == pytest.approx(33.55)


def test_rounding_is_told_apart_from_seeds_and_a_machines_advantage():
    first = records([*TRAINERS], seeds=(4, 5, 6))
    moved = {"plain": 2, "joint": 2, "meta": -2, "interpolated": -2, "distilled": 0, "frozen": 0}  # points
    second = [{**r, "method": f"{r['method']} rho=0.8", "value": r["value"] + moved[r["method"]]}
              for r in first if r["seed"] < 6]  # fmt: skip
    table = plateau.roundings(first, second)
    assert len(table) == 4 and set(table["Trainings"]) == {10}
    assert all(shown.startswith("0.0 [-1.3") for shown in table["Second − first"])
    assert {*table["By rounding"]} == {f"{(2 * 2 * 0.8 / 2) ** 0.5:.1f}"} and {*table["By seeds"]} == {"0.1"}


def test_trainers_and_what_an_average_adds_to_them_are_compared_at_one_rate():
    added = {"plain": 1, "meta at plain's rate": 2, "joint at plain's rate": 3}  # by GWA, beside the 3 of all
    added |= {"plain at meta's rate": 5, "meta": 3, "joint at meta's rate": 7, "joint": 11}
    moved = [{**r, "value": r["value"] + added[r["method"]] * (r["average"] == "gwa")}
             for r in records(added) if r["method"] != "frozen"]  # fmt: skip
    table = plateau.rate_table(moved).set_index(["Tested", "Rate"])
    out = table.loc["Out of context"].apply(lambda column: column.str.partition(" ")[0])
    assert [*out.index] == ["0.02, plain's", "0.04, meta's", "the first − the second"]
    assert out.to_numpy().tolist() == [["+5.0", "+6.0", "+4.0", "+1.0"], ["+6.0", "+10.0", "+8.0", "-2.0"],
                                       ["-1.0", "-4.0", "-4.0", "+3.0"]]  # fmt: skip
    # The made up accuracies: 10 of plain, 12 of meta, 30 of any at another's rate; joint at its own is not among them
    frame = plateau.trainer_differences(plateau.at_rates(moved), plateau.RATE_PAIRS)
    frame = frame[frame["quantity"] == "out"].set_index("label")["value"].round(9)
    expected = {"meta at 0.02, last epoch − joint at 0.02": 0, "meta at 0.02, last epoch − plain at 0.02": 20,
                "meta at 0.04, last epoch − joint at 0.04": -18, "meta at 0.04, GWA − joint at 0.04": -22,
                "joint at 0.04, GWA − plain at 0.04": 2, "joint at 0.02, last epoch − plain at 0.02": 20}  # fmt: skip
    assert len(frame) == 12 and expected.items() <= frame.to_dict().items()
