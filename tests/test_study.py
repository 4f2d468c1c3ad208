"""The study: its plan is fair, its store forgets nothing, and its committed results pass their own checks."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mede_core.config import METHODS, load_config
from mede_core.report.tables import in_and_out
from mede_core.study import run, store
from mede_core.study.analysis import (
    ANSWER_CONTROLS,
    ANSWER_PAIRS,
    CONTROL_PAIRS,
    answer,
    chosen_trials,
    control_table,
    floors_table,
    over_epochs,
    paired,
    prediction_table,
    predictions,
)
from mede_core.study.averaging import CRITERIA, criterion_means, selections
from mede_core.study.claims import NOT_SUPPORTED, SUPPORTED, UNDECIDED, claims_frame, claims_table
from mede_core.study.units import CONTROLS, DESIGN_SEED, FEW, SEARCH, SECTIONS, Unit, units_of

TINY = {"epochs": 2, "warmup_epochs": 1, "train_clips": 96, "batch_size": 16, "test_clips": 48}


def line(variant="a", seed=4, **numbers):
    unit = Unit("meta", variant, load_config("smoke", seed=seed, world_seed=seed), ("source",))
    return store.line_of(unit, numbers, "shipped:0", 1.0)


# ------------------------------------------------------------------------------------ the plan
def test_variants_are_unique_and_no_reported_seed_designed_the_world():
    for section, (seeds, _) in SECTIONS.items():
        keys = [unit.key for unit in units_of(section)]
        assert len(set(keys)) == len(keys), section
        if section != "search":
            assert not {DESIGN_SEED, 1, 2, 3} & set(seeds), section


def test_every_recipe_has_the_same_tuning_budget_on_base_classes_alone():
    assert len({len(trials) for trials in SEARCH.values()}) == 1
    assert all(len({json.dumps(t) for t in trials}) == len(trials) for trials in SEARCH.values())
    assert {unit.tests for unit in units_of("search")} == {("base",)}


def test_recipes_take_what_the_committed_search_chose():
    chosen = chosen_trials(store.study_records("search", by="variant"))
    assert chosen.keys() == SEARCH.keys()
    for method, settings in chosen.items():
        assert dict(METHODS[method].tuned) == settings, method
    assert METHODS["open_mede"].tuned == METHODS["open_mede_no_gwa"].tuned


def test_every_control_is_compared_with_one_that_exists():
    assert {variant for pair in CONTROL_PAIRS for variant in pair} == set(CONTROLS)


# ------------------------------------------------------------------------------------ the store
def test_a_line_is_replaced_by_its_newer_one_and_the_others_stay(tmp_path):
    for one in (line("meta-step", x=[1.0, 2]), line("joint", x=[2.0, 2]), line("meta-step", x=[3.0, 2])):
        store.add_line(one, tmp_path)
    found = store.read_section("meta", tmp_path)
    assert [(one["variant"], one["numbers"]["x"][0]) for one in found] == [("meta-step", 3.0), ("joint", 2.0)]


def test_a_test_that_is_added_later_keeps_the_numbers_of_the_others(tmp_path):
    for one in (line(x=[1.0, 2], y=[5.0, 2]), {**line(y=[7.0, 2]), "tests": ["look"], "commit": "later"}):
        store.add_line(one, tmp_path)
    (found,) = store.read_section("meta", tmp_path)
    assert found["numbers"] == {"x": [1.0, 2], "y": [7.0, 2]} and found["tests"] == ["source", "look"]
    assert found["commit"].endswith(" and later")
    store.add_line({**line(x=[3.0, 2]), "kernel": "another"}, tmp_path)
    assert store.read_section("meta", tmp_path)[0]["numbers"] == {"x": [3.0, 2]}


def test_records_say_what_was_measured(tmp_path):
    keys = {"top1/source/base/1/in/": [75.0, 4, "e0"], "cosine/train/base/2/in/": [-0.5, 10]}
    store.add_line(line("joint", **keys), tmp_path)
    accuracy, cosine = store.study_records("meta", by="variant", folder=tmp_path)
    assert (accuracy["method"], accuracy["set"], accuracy["part"], accuracy["correct"]) == ("joint", "source", 1, "e0")
    assert '"4A=="' in (tmp_path / "meta.jsonl").read_text(), "bits are base64 on disk: the study may take one megabyte"
    assert (cosine["metric"], cosine["part"], cosine["value"], cosine["unit"]) == ("cosine", 2, -0.5, "cosine")


def test_bits_that_are_no_base64_are_named_by_their_line(tmp_path):
    store.add_line(line(**{"top1/source/base/1/in/": [75.0, 4, "e0"]}), tmp_path)
    path = tmp_path / "meta.jsonl"
    path.write_text(path.read_text().replace("4A==", "4A="))
    with pytest.raises(ValueError, match=r"meta.jsonl line 1 cannot be read .*padding"):
        store.read_section("meta", tmp_path)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "meta.jsonl").write_text(json.dumps(line()) + "\n{half\n")
    with pytest.raises(ValueError, match=r"meta.jsonl line 2 cannot be read"):
        store.read_section("meta", tmp_path)
    with pytest.raises(ValueError, match="section is 'mian'"):
        store.study_records("mian", folder=tmp_path)


def test_results_of_another_kernel_are_marked_and_measured_again(tmp_path, monkeypatch):
    unit = Unit("meta", "a", load_config("smoke", seed=4, world_seed=4), ("source",))
    store.add_line(line(), tmp_path)
    assert store.missing_tests(unit, tmp_path) == ()
    assert "older" not in store.origin(["meta"], tmp_path)
    assert store.missing_tests(replace(unit, config=unit.config.replace(rho=0.5)), tmp_path) == ("source",)
    assert store.missing_tests(replace(unit, tests=("source", "look")), tmp_path) == ("look",)
    monkeypatch.setattr(store, "kernel_hash", lambda: "other")
    assert store.missing_tests(unit, tmp_path) == ("source",)
    assert "older than the kernel" in store.origin(["meta"], tmp_path)


def test_a_section_trains_each_run_once_and_a_second_call_does_nothing(tmp_path, monkeypatch):
    def units(section, seeds=()):
        configs = {m: load_config("smoke", method=m, **TINY) for m in ("open_mede_no_gwa", "open_mede")}
        return [Unit("floors", method, config, ("base", "steps")) for method, config in configs.items()]

    for module in (run, store):
        monkeypatch.setattr(module, "units_of", units)
    given = {"runs": tmp_path / "runs", "folder": tmp_path / "results", "jobs": 1}
    assert run.run_section("floors", **given) == 2
    assert len(list((tmp_path / "runs").glob("meta-*/done.json"))) == 1, "both methods share one training run"
    before = (tmp_path / "results" / "floors.jsonl").read_bytes()
    assert run.run_section("floors", **given) == 0
    assert (tmp_path / "results" / "floors.jsonl").read_bytes() == before
    records = store.study_records("floors", folder=tmp_path / "results")
    assert {r["method"] for r in records} == {"open_mede_no_gwa", "open_mede"}
    assert all("correct" in r for r in records if r["metric"] == "top1")
    with pytest.raises(ValueError, match="variants are"):
        run.run_section("floors", variants=["gone"], **given)


WORKERS = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from mede_core.study.run import _end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.is_file() and "State:\tZ" in status.read_text())  # ended, but not yet collected


def test_the_processes_of_a_killed_study_end_with_it(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert runs(worker)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(worker)


# ------------------------------------------------------------------------------------ the answers
def test_pairs_are_compared_on_the_seeds_that_both_have():
    def records(method, seeds, bits):
        where = {"set": "source", "metric": "top1", "split": "base", "n": 4, "correct": bits}
        contexts = ("in", "scene", "noise", "stripes")
        return [{**where, "method": method, "seed": s, "world_seed": s, "context": c} for s in seeds for c in contexts]

    both = records("a", (4, 5, 6), "f0") + records("b", (5, 6, 7), "00")
    rows = paired(both, [("a", "b"), ("a", "gone")], splits=("base",))
    assert set(rows["seeds"]) == {2} and set(rows[rows["quantity"] == "out"]["value"]) == {100.0}


def test_the_answer_sets_the_method_its_parts_and_the_inner_step_beside_their_controls():
    main, controls = store.study_records("main"), store.study_records("meta", by="variant")
    told = answer(main, controls).set_index(["first", "second"])
    assert list(told.index) == [*ANSWER_PAIRS, *ANSWER_CONTROLS]
    out = in_and_out(main).query("column == 'out'").set_index("method")["value"]
    for first, second in ANSWER_PAIRS:
        assert told["value"][first, second] == pytest.approx(out[first] - out[second])
    assert list(answer(main, []).index) == [0, 1, 2]


def test_the_claims_figure_shows_what_their_table_says():
    main = store.study_records("main")
    shown, table = claims_frame(main), claims_table(main, [])
    texts = set(table["Measured"])
    assert set(shown["quantity"]) == {"in", "out"} and not shown.duplicated(["label", "quantity"]).any()
    for row in shown.itertuples():
        assert any(text.startswith(f"{row.value:+.1f} [{row.low:+.1f} to {row.high:+.1f}]") for text in texts), row


def test_a_criterions_map_is_what_it_chooses_by():
    one = [r for r in store.study_records("gwa") if r["seed"] == FEW[0]]
    chosen = selections(one).set_index("criterion")
    for criterion in CRITERIA:
        mu, sigma, score = criterion_means(one, criterion)
        best = np.argwhere(score == score.max())
        assert (chosen.loc[criterion, "mu"], chosen.loc[criterion, "sigma"]) in [(mu[j], sigma[i]) for i, j in best]


def test_the_table_of_controls_takes_the_same_seeds_for_every_row():
    records = store.study_records("meta", by="variant")
    more = [{**r, "seed": 9, "value": 0.0} for r in records if r["method"] == "joint" and r["seed"] == FEW[0]]
    assert control_table([*records, *more]).equals(control_table(records))
    assert set(control_table(records).set_index("Variant").loc[["meta-step", "joint"], "Seeds"]) == {len(FEW)}


def test_training_curves_and_predictions_are_means_over_seeds():
    where = {"set": "train", "split": "base", "context": "in", "part": 1}
    values = [{**where, "method": "m", "metric": "cosine", "average": "", "value": v} for v in (0.2, 0.4)]
    assert over_epochs(values, "cosine")["value"].tolist() == pytest.approx([0.3])
    changes = [
        {**where, "method": "m", "metric": f"change_{kind}", "average": "0.5", "value": v}
        for kind, v in (("measured", -1.0), ("measured", -3.0), ("predicted", -2.5), ("predicted", -2.5))
    ]
    row = predictions(changes).iloc[0]
    assert (row["alpha"], row["measured"], row["predicted"]) == (0.5, -2.0, -2.5)
    later = [{**r, "part": 2, "value": -0.5} for r in changes]
    table = prediction_table([*changes, *later])
    assert list(table.index) == [0] and table["Measured"][0] == "-0.5000", "the last epoch alone, numbered from 0"


# ------------------------------------------------------------------------------------ what is committed
def test_the_committed_results_are_small_and_say_what_made_them():
    files = list(store.FOLDER.glob("*.jsonl"))
    assert sum(file.stat().st_size for file in files) <= 1_000_000
    assert {"search", "main"} <= {file.stem for file in files} <= set(SECTIONS)
    for file in files:
        for one in store.read_section(file.stem):
            assert len(one["commit"]) >= 10 and one["machine"] and one["torch"] and one["kernel"]


def test_the_committed_results_pass_the_sanity_floors():
    main = store.study_records("main")
    others = [store.study_records(section, by="variant") for section in ("floors", "dial")]
    checks = floors_table(main, *others).set_index("Check")["Holds"]
    assert "NO" not in set(checks), checks
    ran = checks[checks == "yes"]
    assert len(ran) >= 2, "frozen CLIP's two checks come with the main section"


def test_a_frozen_clip_that_saw_order_would_fail_its_floor():
    row = {"set": "reversal", "split": "all", "context": "scene", "seed": 4, "method": "frozen"}
    seeing = [{**row, "metric": "top1", "value": 80.0}, {**row, "metric": "both_of_a_pair", "value": 60.0}]
    assert (floors_table(seeing, [], [])["Holds"] == "NO").sum() == 2


def test_the_claims_table_is_made_from_the_committed_results():
    table = claims_table(store.study_records("main"), store.study_records("cost"))
    assert set(table["Comparison"]) <= {SUPPORTED, NOT_SUPPORTED, UNDECIDED}
    assert (table["Measured"].str.contains("seeds|repetitions|not measured")).all()
