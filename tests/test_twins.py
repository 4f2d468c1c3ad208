"""The paper's tables beside their twins and beside real videos: cells, spreads, what is comparable, averages, costs."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from mede_core import averages, figures, trajectory
from mede_core.averages import Average
from mede_core.checkpoints import checkpoint_path, save_checkpoint
from mede_core.config import Config, load_config
from mede_core.experiment import learner_for
from mede_core.report.cost_tables import cost_claims, cost_ratio, cost_table
from mede_core.report.intervals import Interval
from mede_core.report.metrics import harmonic_mean
from mede_core.report.paper import compare_with_paper
from mede_core.report.records import pack_correct
from mede_core.report.twins import (
    gwa_gain_table,
    halves,
    halves_cells,
    halves_table,
    not_comparable,
    paper_halves,
    scuba_cells,
    sets_of,
    split_means,
    splits_table,
    stated_means,
)
from mede_core.scoring import evaluate_world
from mede_core.trajectory import effective_epochs, run_config
from mede_core.video import testing as out_of_context
from mede_core.video.protocol import departures
from mede_core.world.synthetic import World

TINY = Config(test_clips=48)


def record(method="open_mede", test_set="source", split="base", context="in", right=3, n=4, **facts):
    bits = np.arange(n) < right
    return {
        "method": method, "set": test_set, "split": split, "context": context, "metric": "top1", "seed": 0,
        "value": 100 * right / n, "n": n, "correct": pack_correct(bits), "weights": "shipped:1", **facts,
    }  # fmt: skip


# ------------------------------------------------------------------------------------ base to novel
def test_implied_bases_give_back_the_printed_harmonic_means():
    implied = {row: numbers for (dataset, row), numbers in paper_halves().items() if dataset == "K400"}
    assert {row: round(n["base"], 1) for row, n in implied.items()} == {
        "Open-MeDe": 77.3, "Open-VCLIP": 76.3, "FROSTER": 76.2, "Frozen CLIP": 62.3,
    }  # fmt: skip
    for numbers in implied.values():
        assert harmonic_mean(numbers["base"], numbers["novel"]) == pytest.approx(numbers["hm"])
    assert math.isnan(paper_halves()["SSv2", "FROSTER"]["base"])  # the note prints its HM alone


def test_a_method_tested_on_one_half_only_is_left_out_and_shown_as_not_run():
    records = [record(split=split, right=right) for split, right in (("base", 3), ("novel", 1))]
    records += [record("froster"), record("froster", split="all"), record("froster", split="novel", context="scene")]
    long = halves(records, {"K400": "source", "UCF": "transfer_a"})
    assert set(long["method"]) == {"open_mede"} and set(long["dataset"]) == {"K400"}
    numbers = dict(zip(long["column"], long["value"], strict=True))
    assert numbers == {"base": 75, "novel": 25, "hm": pytest.approx(37.5)}
    table = halves_table(long, ["K400", "UCF"]).set_index(["Dataset", "Method"])
    assert table.loc[("K400", "FROSTER"), "Novel"] == table.loc[("UCF", "Open-MeDe"), "HM"] == "not run"
    assert table.loc[("K400", "FROSTER"), "Paper: Base"] == "76.2 (implied)"
    assert table.loc[("K400", "Open-MeDe"), "Novel"].startswith("25.0 [")


def test_only_columns_that_the_paper_prints_become_cells():
    records = [record(test_set=name, split=split) for name in ("source", "direction") for split in ("base", "novel")]
    cells = halves_cells(halves(records, {"K400": "source", "SSv2": "direction"}), profile="cpu")
    assert {cell["column"] for cell in cells} == {"K400 (Novel)", "K400 (HM)", "SSv2 (HM)"}
    comparison = compare_with_paper("base_to_novel", cells, comparable=False, reason="a twin")
    assert comparison.counts()["not comparable"] == 3 and comparison.counts()["within"] == 0


def test_no_records_give_empty_tables_not_an_error():
    assert len(halves([], sets_of("paper"))) == 0 and halves_cells(halves([], sets_of("paper"))) == []
    assert len(splits_table([], sets_of("paper"))) == 0
    assert scuba_cells([], [])[0] == []
    comparison = compare_with_paper("base_to_novel", [], comparable=False, reason="no data")
    assert set(comparison.frame["mark"]) == {"not run"}


# ------------------------------------------------------------------------------------ cross-dataset
def test_the_spread_is_the_sample_deviation_over_test_splits():
    rights = {"test1": 40, "test2": 41, "test3": 42}
    records = [record(test_set="ucf101", split="all", part=p, right=r, n=50) for p, r in rights.items()]
    (cell,) = split_means(records, sets_of("paper"), weights="openai")
    assert (cell["column"], cell["value"], cell["splits"]) == ("UCF", pytest.approx(82), 3)
    assert cell["std"] == pytest.approx(2)  # ddof=0 would give 1.63
    comparison = compare_with_paper("cross_dataset", [cell], comparable=True)
    line = comparison.frame.set_index(["column", "row"]).loc[("UCF", "Open-MeDe")]
    assert (line["mark"], line["reproduced_std"]) == ("within", pytest.approx(2))
    assert any("over the splits" in note for note in comparison.notes())
    row = splits_table(records, sets_of("paper")).iloc[0]
    assert (row["Split 2"], row["Mean ± std"]) == ("82.0", "82.0 ± 2.0")


def test_a_split_measured_twice_is_refused():
    records = [record(test_set="ucf101", split="all", part="test1", seed=seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match="open_mede on ucf101: splits"):
        split_means(records, sets_of("paper"))


def test_the_worlds_parts_are_other_clips_and_all_classes_are_scored_together():
    learner = learner_for(TINY)
    records = evaluate_world(
        learner, TINY, sets=("transfer_b",), contexts=("in",), halves=("all",), parts=(1, 2), table="splits"
    )
    assert [(r["part"], r["split"], r["n"]) for r in records] == [(1, "all", 48), (2, "all", 48)]
    assert records[0]["correct"] != records[1]["correct"]
    assert learner.class_names == World(TINY.world_seed).class_names("transfer_b", "all")


# ------------------------------------------------------------------------------------ out of context
def test_clips_in_their_own_context_are_shown_and_not_averaged():
    inside = [record(test_set="ucf101", split="all", part=f"test{i}", right=r, n=50) for i, r in ((1, 40), (2, 42))]
    outside = [
        record(test_set="ucf101", split="all", context=name, right=right, n=50)
        for name, right in (("places", 20), ("stripes", 10), ("in_context", 45))
    ]
    outside.append({**outside[0], "metric": "contrasted", "value": 3.0})
    cells, long = scuba_cells(inside, outside, weights="openai")
    assert {cell["column"]: cell["value"] for cell in cells} == {"UCF (in-ctx)": 82, "UCF-SCUBA (out-ctx)": 30}
    numbers = dict(zip(long["column"], long["value"], strict=True))
    assert numbers["in_context"] == 90 and numbers["hm"] == pytest.approx(harmonic_mean(82, 30))
    comparison = compare_with_paper("out_of_context", cells, comparable=False, reason="built clips")
    line = comparison.frame.set_index(["column", "row"]).loc[("HM", "Open-MeDe (full)")]
    assert line["reproduced"] == pytest.approx(harmonic_mean(82, 30))


def test_none_of_the_stated_harmonic_means_is_that_of_the_printed_columns():
    table = stated_means().set_index("Method")
    assert set(table["Equal, rounded"]) == {"no"} and len(table) == 5
    assert table.loc["Frozen CLIP", "HM recomputed"] == "53.53"
    assert table.loc["Open-MeDe (full)", "Stated minus recomputed"] == "-0.68"


@pytest.fixture
def frames(tmp_path):
    """Two folders of nine frames and their list."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(1, 10):
            picture = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"img_{number:05d}.jpg")
    (tmp_path / "list.txt").write_text("a 9 0\nb 9 2\n")
    return {"list": str(tmp_path / "list.txt"), "root": str(tmp_path)}


def test_scuba_is_scored_among_all_classes_with_the_contrasted_accuracy_beside_it(frames, tmp_path):
    learner, names = learner_for(TINY), ["a red star rising", "a blue ring falling", "a green disc growing"]
    about = {"profile": "paper", "run": "none", "method": "frozen", "table": "evaluate", "departs": "views=1"}
    records = out_of_context.evaluate_scuba(learner, TINY, "ucf101", {"places": frames}, names, scufo=True, **about)
    assert [(r["context"], r["metric"], r["n"], r["part"]) for r in records] == [
        ("places", "top1", 2, "scuba"), ("places", "contrasted", 2, "scuba"),
    ]  # fmt: skip
    assert learner.class_names == names and records[0]["departs"] == "views=1"
    assert records[1]["value"] <= records[0]["value"]
    (tmp_path / "scuba.json").write_text(json.dumps({"template": "img_{:05d}.jpg"}))
    (built,) = out_of_context.evaluate_scuba(learner, TINY, "ucf101", {"places": frames}, names, **about)
    assert built["departs"] == f"views=1; {out_of_context.BUILT}"


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
    assert not_comparable([{"departs": ""}], "paper") == ""


@pytest.mark.parametrize(
    ("changes", "sidecar", "said"),
    [
        ({"random_weights": True}, {}, "random weights"),
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
    assert not_comparable(records, "paper") == "random weights; views=1"
    assert "unknown" in not_comparable([{}], "paper")
    assert "synthetic" in not_comparable([{"departs": ""}], "cpu")


# ------------------------------------------------------------------------------------ averages
def test_the_published_gaussian_is_nearly_uniform_in_each_reading():
    table = averages.schedule_table()
    assert table["Epochs"].tolist() == [22, 21, 23]
    assert table["Effective epochs"].tolist() == ["20.8", "20.1", "21.4"]
    assert table["Epoch 0 counts"].tolist() == ["0.0 %", "0.0 %", "1.8 %"]


def test_rules_come_without_and_with_epoch_0_and_sum_to_one():
    found = {average.name: average for average in averages.rules(Config(epochs=8))}
    assert found.keys() == {"gwa", "gwa+0", "swa", "swa+0", "ema", "ema+0", "last"}
    for name, average in found.items():
        assert len(average.shares) == 9 and sum(average.shares) == pytest.approx(1)
        assert (average.shares[0] > 0) == name.endswith("+0")
    without, included = (np.array(found[name].shares) for name in ("gwa", "gwa+0"))
    assert included[1:] / included[1:].sum() == pytest.approx(without[1:])  # the same bell, one epoch more
    assert effective_epochs(found["last"].shares) == 1


class Stub:
    """A learner of one number, the mean of its epochs' numbers."""

    weights_id = "shipped:1"

    def __init__(self):
        self.state = {"w": torch.zeros(1)}

    def trainable_state(self):
        return self.state

    def load_trainable(self, tensors):
        self.state = {"w": tensors["w"].clone()}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two epochs whose weights are 1 and 2, begun at 0."""
    for epoch in (1, 2):
        save_checkpoint(checkpoint_path(tmp_path, epoch), {"w": torch.tensor([float(epoch)])}, {})
    (tmp_path / "config.json").write_text(json.dumps({"weights": "shipped:1"}))
    monkeypatch.setattr(trajectory, "learner_for", lambda config, device: Stub())
    return tmp_path


def test_each_average_is_formed_from_the_start_and_the_epochs_on_disk(run):
    config = Config(epochs=2, warmup_epochs=1)
    found = averages.score(run, config, averages.rules(config), lambda one: [{"value": one.state["w"].item()}])
    value = {row["average"]: row["value"] for row in found}
    assert value["last"] == 2 and value["swa"] == 1.5 and value["swa+0"] == pytest.approx(1)
    gwa = np.array(averages.rules(config)[0].shares)
    assert value["gwa"] == pytest.approx(gwa @ [0, 1, 2]) and value["gwa+0"] < value["gwa"]
    assert next(row for row in found if row["average"] == "gwa")["mu"] == config.mu


def test_other_clip_weights_than_the_runs_are_refused(run):
    (run / "config.json").write_text(json.dumps({"weights": "shipped:2"}))
    with pytest.raises(ValueError, match="trained on CLIP shipped:2; here is shipped:1"):
        averages.score(run, Config(epochs=2, warmup_epochs=1), [], lambda one: [])


def graded(average, context, bits, **facts):
    bits = np.array(bits, dtype=bool)
    return {"average": average, "context": context, "correct": pack_correct(bits), "n": len(bits), **facts}


def test_gains_are_paired_and_backgrounds_are_averaged_clip_by_clip():
    records = [
        graded("gwa", "in", [1, 1, 1, 0]), graded("last", "in", [1, 1, 0, 0]),
        graded("gwa", "scene", [1, 1, 0, 0]), graded("gwa", "noise", [1, 0, 0, 0]),
        graded("last", "scene", [0, 0, 0, 0]), graded("last", "noise", [1, 0, 0, 0]),
    ]  # fmt: skip
    assert averages.clip_scores(records, "gwa")["out"].tolist() == [1, 0.5, 0, 0]
    gains = averages.gain(records, "gwa", "last")
    assert (gains["in"].value, gains["out"].value) == (25, 25)
    rules = [Average("gwa", "GWA", (0, 0.5, 0.5)), Average("last", "Last epoch", (0, 0, 1))]
    table = averages.rules_table(records, rules).set_index("Average")
    assert table.loc["GWA", "Gain in context"].startswith("+25.0 [") and table.loc["GWA", "Out of context"] == "37.5"
    assert table.loc["Last epoch", "Gain in context"] == "–"


def test_a_grid_is_a_map_of_widths_by_centers_and_must_be_whole():
    config = Config(epochs=10)
    grid = averages.grid(config, [0.5, 1.0], [0.2])
    assert [(a.mu, a.sigma) for a in grid] == [(5, 2), (10, 2)]
    records = [graded(a.name, "in", [1, i, 0, 0], mu=a.mu, sigma=a.sigma) for i, a in enumerate(grid)]
    mus, sigmas, values = averages.grid_values(records, "in")
    assert mus.tolist() == [5, 10] and sigmas.tolist() == [2] and values.tolist() == [[25, 50]]
    with pytest.raises(ValueError, match="3 Gaussians were scored; allowed: a whole grid"):
        averages.grid_values([*records, graded("grid:x", "in", [1], mu=1.0, sigma=3.0)], "in")


def test_the_gain_of_gwa_stands_beside_the_papers_two_numbers():
    ours = {"in": Interval(1.0, 0.1, 1.9, 0.95, 1, 400), "out": Interval(0.0, -1.0, 1.0, 0.95, 1, 400)}
    table = gwa_gain_table(ours, comparable=True)
    assert table["Paper"].tolist() == ["+1.2", "+2.9"]
    assert table["Mark"].tolist() == ["within", "outside"]
    assert set(gwa_gain_table(ours, comparable=False)["Mark"]) == {"not comparable"}
    assert gwa_gain_table({}, comparable=True)["Mark"].tolist() == ["not run", "not run"]


@pytest.mark.parametrize("method", ["finetune", "open_vclip", "froster", "open_mede"])
def test_the_configuration_of_a_run_is_read_back_with_its_objective(tmp_path, method):
    config = Config(method=method, epochs=3)
    (tmp_path / "config.json").write_text(json.dumps({"config": config.training_fields()}))
    (tmp_path / "done.json").write_text("{}")
    assert run_config(tmp_path).method == method
    assert run_config(tmp_path).training_hash() == config.training_hash()


# ------------------------------------------------------------------------------------ cost
class Measured:
    def __init__(self, seconds, clips, speed, peak, size):
        self.seconds_per_step, self.clips_per_step, self.clips_per_second_eval = seconds, clips, speed
        self.peak_bytes, self.trainable_bytes, self.steps = peak, size, 5


COSTS = {
    "frozen": Measured(0.0, 0, 200.0, 0, 0),
    "finetune": Measured(1.0, 32, 100.0, 1000, 4_000_000),
    "froster": Measured(1.5, 32, 100.0, 1500, 4_000_000),
    "open_mede": Measured(2.1, 64, 100.0, 1100, 4_000_000),
}


def test_costs_are_ratios_to_fine_tuning_and_an_untrained_method_has_none():
    ratios = cost_ratio(COSTS)
    assert ratios["Time of a step"] == {"finetune": 1, "froster": 1.5, "open_mede": 2.1}
    assert ratios["Time a clip, training"]["open_mede"] == pytest.approx(1.05)
    assert ratios["Time a clip, testing"]["frozen"] == 0.5
    table = cost_table(COSTS).set_index("Method")
    assert table.loc["Frozen CLIP", "Time of a step"] == "–" and table.loc["Open-MeDe", "Clips in a step"] == "2.00"
    claims = cost_claims(COSTS)
    assert claims["Ratio here"].tolist() == ["2.10", "1.05", "2.00", "1.10", "1.00", "1.40"]


def test_the_cost_plot_has_a_panel_a_quantity_and_refuses_what_is_no_ratio():
    figure = figures.cost_ratios(cost_ratio(COSTS))
    assert len(figure.axes) == 5
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "1.50", "2.10"]
    with pytest.raises(ValueError, match="ratios are"):
        figures.cost_ratios({"Time": {"finetune": 0.0}})
    with pytest.raises(ValueError, match="methods are"):
        figures.cost_ratios({"Time": {"mine": 1.0}})


def test_base_novel_panels_stand_two_in_a_row_and_a_method_may_be_missing_in_one():
    records = [
        record(test_set=name, split=s) for name in ("source", "transfer_a", "direction") for s in ("base", "novel")
    ]
    records += [record("frozen", split=split) for split in ("base", "novel")]
    frame = halves(records, {"K400": "source", "UCF": "transfer_a", "SSv2": "direction"})
    figure = figures.base_novel(frame.rename(columns={"column": "split", "dataset": "set"}))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["K400", "UCF", "SSv2"]
    assert len({round(axes.get_subplotspec().rowspan.start) for axes in shown}) == 2
