"""The paper's tables beside their twins and beside real videos: cells, spreads, what is comparable, averages, costs."""

import json

import numpy as np
import pytest

from mede_core.averages import epoch_shares, grid, rules
from mede_core.config import METHODS, Config, load_config
from mede_core.report import twins
from mede_core.report.averaging import gain, grid_values, rules_table, schedule_table, scores_of_average
from mede_core.report.costs import Cost, cost_claims, cost_ratio, cost_table, measure_costs
from mede_core.report.figures.results import cost_ratios, lines_base_novel
from mede_core.report.intervals import Interval
from mede_core.report.metrics import harmonic_mean, pack_correct
from mede_core.report.paper import IN_OUT_COLUMNS, compare_with_paper
from mede_core.video.protocol import departures


def record(method="open_mede", test_set="source", split="base", context="in", right=3, n=4, **facts):
    bits = np.arange(n) < right
    return {
        "method": method, "set": test_set, "split": split, "context": context, "metric": "top1", "seed": 0,
        "value": 100 * right / n, "n": n, "correct": pack_correct(bits), "weights": "shipped:1", **facts,
    }  # fmt: skip


# ------------------------------------------------------------------------------------ base to novel
def test_a_method_tested_on_one_half_only_is_left_out_and_shown_as_not_run():
    records = [record(split=split, right=right) for split, right in (("base", 3), ("novel", 1))]
    records += [record("froster"), record("froster", split="all"), record("froster", split="novel", context="scene")]
    sets = {"K400": "source", "UCF": "transfer_a"}
    long = twins.halves(records, sets)
    assert set(long["method"]) == {"open_mede"} and set(long["dataset"]) == {"K400"}
    numbers = dict(zip(long["column"], long["value"], strict=True))
    assert numbers == {"base": 75, "novel": 25, "hm": pytest.approx(37.5)}
    table = twins.halves_table(long, sets, ("froster", "open_mede")).set_index(["Set", "Method"])
    assert (
        table.loc[("source (K400)", "FROSTER"), "Novel"] == "not run" and ("transfer_a (UCF)", "FROSTER") in table.index
    )
    assert table.loc[("source (K400)", "Open-MeDe"), "Novel"].startswith("25.0 [")


def test_only_columns_that_the_paper_prints_become_cells():
    sets = {"K400": "source", "SSv2": "direction"}
    records = [record(test_set=name, split=split) for name in sets.values() for split in ("base", "novel")]
    cells = twins.halves_cells(twins.halves(records, sets), sets)
    assert {(cell["column"], cell["where"]) for cell in cells} == {
        ("K400 (Novel)", "source"), ("K400 (HM)", "source"), ("SSv2 (HM)", "direction"),
    }  # fmt: skip
    twin = compare_with_paper("base_to_novel", cells, **twins.standing(records, "cpu"))
    assert twin.twin and twin.frame["value"].notna().sum() == 3


def test_no_records_give_empty_tables_not_an_error():
    none = twins.halves([], twins.REAL)
    assert twins.halves_cells(none, twins.REAL) == twins.split_means([], twins.REAL) == []
    assert len(twins.splits_table([])) == len(twins.scuba([], [])) == len(twins.halves_table(none, twins.REAL, ())) == 0
    comparison = compare_with_paper("base_to_novel", [], **twins.standing([], "paper"))
    assert set(comparison.frame["mark"]) == {"not run"}


# ------------------------------------------------------------------------------------ several parts of a test
def test_means_and_spread_are_over_test_splits_and_gains_are_paired():
    numbers = {"open_mede": (40, 41, 42), "frozen": (30, 35, 34)}
    records = [record(method, test_set="ucf101", split="all", part=f"test{i}", right=right, n=50)
               for method, rights in numbers.items() for i, right in enumerate(rights)]  # fmt: skip
    frozen, cell = twins.split_means(records, twins.REAL)
    assert (cell["column"], cell["value"], [*cell["splits"]]) == ("UCF", pytest.approx(82), ["test0", "test1", "test2"])
    assert cell["std"] == pytest.approx(2)  # ddof=0 would give 1.63
    assert cell["gain"] == pytest.approx(16) and cell["gain_low"] < 16 < cell["gain_high"] and np.isnan(frozen["gain"])
    comparison = compare_with_paper("cross_dataset", [frozen, cell], comparable=True)
    line = comparison.frame.set_index(["column", "row"]).loc[("UCF", "Open-MeDe")]
    assert (line["difference"], line["std"]) == (pytest.approx(16 - 9.9), pytest.approx(2))
    row = twins.splits_table([cell]).iloc[0]
    assert (row["Split 2"], row["Mean ± std"]) == ("82.0", "82.0 ± 2.0")


def test_a_split_measured_twice_is_refused():
    records = [record(test_set="ucf101", split="all", part="test1", seed=seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match="open_mede on ucf101: part test1 is there twice"):
        twins.split_means(records, twins.REAL)


def test_clips_in_their_own_context_are_shown_and_not_averaged_and_parts_weigh_the_same():
    inside = [
        record(test_set="ucf101", split="all", part=f"test{i}", right=r, n=n) for i, r, n in ((1, 40, 50), (2, 84, 100))
    ]
    outside = [
        record(test_set="ucf101", split="all", context=name, right=right, n=50)
        for name, right in (("places", 20), ("stripes", 10), ("in_context", 45))
    ]
    outside.append({**outside[0], "metric": "contrasted", "value": 3.0})
    long = twins.scuba(inside, outside)
    numbers = dict(zip(long["column"], long["value"], strict=True))
    assert numbers == pytest.approx({"in": 82, "places": 40, "stripes": 20, "in_context": 90, "out": 30,
                                     "hm": harmonic_mean(82, 30)})  # fmt: skip
    cells = twins.paper_cells(long, "ucf101", IN_OUT_COLUMNS)
    assert [cell["column"] for cell in cells] == ["UCF (in-ctx)", "UCF-SCUBA (out-ctx)", "HM"]


def test_none_of_the_stated_harmonic_means_is_that_of_the_printed_columns():
    table = twins.stated_means().set_index("Method")
    assert set(table["Equal, rounded"]) == {"no"} and len(table) == 5
    assert table.loc["Open-MeDe (full)", ["HM recomputed", "Stated minus recomputed"]].tolist() == ["58.28", "-0.68"]


@pytest.mark.parametrize(
    ("moving", "still", "expected"), [("1111", "0000", 100), ("0000", "1111", 0), ("1100", "1010", 25)]
)
def test_contrasted_accuracy_counts_the_same_clips_right_in_motion_and_wrong_with_one_frame(moving, still, expected):
    about = {"run": "r", "part": 1, "test_set": "ucf101", "split": "all", "context": "places"}
    records = [
        {**record(order=order, **about), "correct": pack_correct(np.array([mark == "1" for mark in marks]))}
        for order, marks in (("forward", moving), ("single", still))
    ]
    assert [(r["metric"], r["value"]) for r in twins.contrasted(records)] == [("top1", 75), ("contrasted", expected)]


# ------------------------------------------------------------------------------------ comparable or not
def prepared(folder, **sidecar):
    """Write a CSV and its sidecar; return the CSV."""
    (folder / "ucf101.csv").write_text("path,label,split,frames,duration\n")
    content = {"root": ".", "classes": ["run"], "comparable": True, **sidecar}
    (folder / "ucf101.json").write_text(json.dumps(content))
    return folder / "ucf101.csv"


def test_the_papers_profile_departs_in_nothing(tmp_path):
    for method in ("frozen", "finetune", "open_vclip", "froster", "open_mede"):
        config = load_config("paper", method=method, data="x.csv", half="base", shots=16, weights="clip.pt", seed=3)
        assert departures(config, prepared(tmp_path)) == ""
    assert config.epochs == 12  # few shots
    assert twins.standing([{"departs": ""}], "paper") == {"comparable": True, "reason": ""}


@pytest.mark.parametrize(
    ("changes", "sidecar", "said"),
    [
        ({"random_weights": True}, {}, "random weights"),
        ({"weights": "hf-hub:me/tiny-random-clip"}, {}, "random weights; weights=tiny-random-clip"),
        ({"weights": "laion2b_s34b_b88k", "method": "frozen"}, {}, "weights=laion2b_s34b_b88k"),
        ({}, {"dataset": "ucf101", "problems": ["counts: 4 classes, expected 9"]}, "ucf101 has 4 classes, expected 9"),
        ({"views": 1, "method": "froster"}, {}, "views=1"),
        ({"epochs": 3, "inner_lr": 0.5}, {}, "epochs=3; inner_lr=0.5"),
        ({"prompts": "/some/where/labels.json"}, {}, "prompts=labels.json"),  # no folder of this machine
        ({"trainable": "visual"}, {}, "trainable=visual; outer_lr=3.33e-06"),
        ({"method": "frozen", "batch_size": 8, "epochs": 3}, {}, ""),  # nothing is trained
        ({"half": "base", "shots": 16}, {"comparable": False}, "base and novel classes are not the published ones"),
        ({}, {"comparable": False}, ""),  # all classes: no halves
    ],
)
def test_what_departs_from_the_papers_protocol_is_named(tmp_path, changes, sidecar, said):
    config = load_config("paper", data="x.csv", **changes)
    assert departures(config, prepared(tmp_path, **sidecar)) == said


def test_a_plain_list_is_not_comparable(tmp_path):
    (tmp_path / "mine.csv").write_text("path,label\n")
    assert "was not prepared" in departures(load_config("paper", data="x.csv"), tmp_path / "mine.csv")


def test_reasons_of_records_are_joined_without_repetition():
    records = [{"departs": "random weights; views=1"}, {"departs": "random weights"}, {"departs": ""}]
    assert twins.standing(records, "paper") == {"comparable": False, "reason": "random weights; views=1"}
    assert "unknown" in twins.standing([{}], "paper")["reason"]
    assert "synthetic" in twins.standing([{"departs": ""}], "cpu")["reason"]


# ------------------------------------------------------------------------------------ averages
def test_the_published_gaussian_is_nearly_uniform_in_each_reading():
    table = schedule_table()
    assert table["Epochs"].tolist() == [22, 21, 23]
    assert table["Effective epochs"].tolist() == ["20.8", "20.1", "21.4"]
    assert table["Epoch 0 counts"].tolist() == ["0.0 %", "0.0 %", "1.8 %"]


def test_rules_come_without_and_with_epoch_0_which_leaves_the_shares_of_the_others_as_they_were():
    shares = {average.name: epoch_shares(average, 8).numpy() for average in rules(Config(epochs=8))}
    assert [*shares] == ["gwa", "gwa+0", "swa", "swa+0", "ema", "ema+0", "last"]
    included = shares["gwa+0"][1:]
    assert included / included.sum() == pytest.approx(shares["gwa"][1:])


def graded(average, context, bits, **facts):
    bits = np.array(bits, dtype=bool)
    return {"average": average, "context": context, "correct": pack_correct(bits), "n": len(bits), **facts}


def test_gains_are_paired_and_backgrounds_are_averaged_clip_by_clip():
    records = [
        graded("gwa", "in", [1, 1, 1, 0]), graded("last", "in", [1, 1, 0, 0]),
        graded("gwa", "scene", [1, 1, 0, 0]), graded("gwa", "noise", [1, 0, 0, 0]),
        graded("last", "scene", [0, 0, 0, 0]), graded("last", "noise", [1, 0, 0, 0]),
    ]  # fmt: skip
    assert scores_of_average(records, "gwa")["out"].tolist() == [1, 0.5, 0, 0]
    gains = gain(records, "gwa", "last")
    assert (gains["in"].value, gains["out"].value) == (25, 25)
    table = rules_table(records, Config(epochs=2, warmup_epochs=1)).set_index("Average")
    assert table.loc["GWA", "Gain in context"].startswith("+25.0 [") and table.loc["GWA", "Out of context"] == "37.5"
    assert table.loc["Last epoch", "Gain in context"] == "–"


def test_a_grid_is_a_map_of_widths_by_centers():
    config = Config(epochs=10)
    gaussians = grid(config, [0.5, 1.0], [0.2])
    assert [(a.mu, a.sigma) for a in gaussians] == [(5, 2), (10, 2)]
    records = [graded(a.name, "in", [1, i, 0, 0], mu=a.mu, sigma=a.sigma) for i, a in enumerate(gaussians)]
    mus, sigmas, values = grid_values(records, "in")
    assert mus.tolist() == [5, 10] and sigmas.tolist() == [2] and values.tolist() == [[25, 50]]


def test_the_gain_of_gwa_stands_beside_the_papers_two_numbers():
    table = twins.gwa_gain_table({"in": Interval(1.0, 0.1, 1.9, 1, 9), "out": Interval(0.0, -1.0, 1.0, 1, 9)})
    assert table["Paper"].tolist() == ["+1.2", "+2.9"]
    assert table["Same sign"].tolist() == ["yes", "undecided"]
    assert twins.gwa_gain_table({})["Here"].tolist() == ["not run", "not run"]


# ------------------------------------------------------------------------------------ cost
COSTS = {
    "frozen": Cost(0.0, 0, 200.0, 0, 0, 5),
    "finetune": Cost(1.0, 32, 100.0, 1000, 4_000_000, 5),
    "froster": Cost(1.5, 32, 100.0, 1500, 4_000_000, 5),
    "open_mede": Cost(2.1, 64, 100.0, 1100, 4_000_000, 5),
}


def test_every_method_is_measured_and_a_meta_step_sees_two_batches():
    costs = measure_costs({name: load_config(method=name, batch_size=4) for name in METHODS}, steps=2, classes=5)
    assert costs["frozen"].seconds_per_step == costs["frozen"].trainable_bytes == 0
    assert costs["open_mede"].clips_per_step == 8 and costs["finetune"].clips_per_step == 4
    assert all(costs[name].seconds_per_step > 0 for name in METHODS if name != "frozen")
    assert all(cost.clips_per_second_eval > 0 for cost in costs.values())
    one_batch, two_copies = costs["finetune"].peak_bytes, 2 * costs["finetune"].trainable_bytes
    assert one_batch < costs["open_mede"].peak_bytes <= 1.1 * one_batch + two_copies
    assert {cost.steps for cost in costs.values()} == {2}


def test_a_slow_machine_is_not_held_up_by_its_own_estimate():
    hurried = measure_costs({"it": load_config(method="frozen", batch_size=4)}, steps=50, seconds=0.0, classes=5)
    assert hurried["it"].steps == 1
    trained = measure_costs({"it": load_config(method="finetune", batch_size=4)}, seconds=0.0, classes=5)["it"]
    assert trained.steps == 1 and min(trained.seconds_per_step, trained.clips_per_second_eval, trained.peak_bytes) > 0


def test_costs_are_ratios_to_fine_tuning_and_an_untrained_method_has_none():
    ratios = cost_ratio(COSTS)
    assert ratios["Time of a step"].dropna().to_dict() == {"finetune": 1, "froster": 1.5, "open_mede": 2.1}
    assert ratios["Time a clip, training"]["open_mede"] == pytest.approx(1.05)
    assert ratios["Time a clip, testing"]["frozen"] == 0.5
    table = cost_table(COSTS).set_index("Method")
    assert table.loc["Frozen CLIP", "Time of a step"] == "–" and table.loc["Open-MeDe", "Clips in a step"] == "2.00"
    claims = cost_claims(COSTS)
    assert claims["Ratio here"].tolist() == ["2.10", "1.05", "2.00", "1.10", "1.00", "1.40"]
    figure = cost_ratios(ratios)
    assert len(figure.axes) == 5, "frozen CLIP, which does not train, has no bar"
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "1.50", "2.10"]


def test_base_novel_panels_stand_two_in_a_row_and_a_method_may_be_missing_in_one():
    records = [
        record(test_set=name, split=s) for name in ("source", "transfer_a", "direction") for s in ("base", "novel")
    ]
    records += [record("frozen", split=split) for split in ("base", "novel")]
    frame = twins.halves(records, {"K400": "source", "UCF": "transfer_a", "SSv2": "direction"})
    figure = lines_base_novel(frame.rename(columns={"column": "split", "dataset": "set"}))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["K400", "UCF", "SSv2"]
    assert len({round(axes.get_subplotspec().rowspan.start) for axes in shown}) == 2
