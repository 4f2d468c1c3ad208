"""The study: its plan is fair, its store forgets nothing, and its committed results pass their own checks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mede_core.batch import asks
from mede_core.config import METHODS, load_config
from mede_core.report.tables import base_novel, in_and_out
from mede_core.study import answers, claims, measure, searches, store, units
from mede_core.study import answers_training as training
from mede_core.study.units import FEW, SEARCH, SECTIONS, Unit, eval_sets, units_of
from mede_core.workspace import Workspace

TINY = {"epochs": 2, "warmup_epochs": 1, "train_clips": 96, "batch_size": 16, "test_clips": 48}


def unit(variant="a", tests=("source",), **changes):
    return Unit("meta", variant, load_config("smoke", **{"seed": 4, "world_seed": 4, **changes}), tests)


def line(of=None, **numbers):
    return store.line_of(of or unit(), numbers, run="plain-0-0", weights="shipped:0", seconds=1.0)


# ------------------------------------------------------------------------------------ the plan
def test_variants_are_unique_and_no_reported_seed_designed_the_world():
    for section, (seeds, _) in SECTIONS.items():
        keys = [(one.variant, one.config.seed) for one in units_of(section)]
        assert len(set(keys)) == len(keys), section
        if section not in ("search", "regime", "trials"):
            assert not {units.DESIGN_SEED, 1, 2, 3} & set(seeds), section


def test_every_recipe_has_the_same_tuning_budget_on_base_classes_alone():
    assert len({len(trials) for trials in SEARCH.values()}) == 1
    assert all(len({json.dumps(t) for t in trials}) == len(trials) for trials in SEARCH.values())
    assert {one.tests for one in units_of("search")} == {("base",)}
    assert {asked.half for one in units_of("search") for asked in eval_sets("base", one.config)} == {"base"}


def test_the_long_regime_and_its_trials_are_chosen_on_base_classes_by_the_last_epoch():
    assert all(0 < len(trials) <= units.BUDGET for trials in units.TRIALS.values())
    for one in (*units_of("regime"), *units_of("trials")):
        ((average, sets),) = units.averages("draws", one.config)
        assert average.rule == "last" and average.patch == 0
        assert {(asked.half, asked.part) for asked in sets} == {("base", 2), ("base", 3), ("base", 4)}
        assert (one.config.epochs, one.config.warmup_epochs, one.config.mu, one.config.sigma) == (22, 2, 15.0, 10.0)


@pytest.mark.parametrize(("gained", "steps"), [(0.9, 56), (1.0, 112), (-1.0, 112)])
def test_an_epoch_is_doubled_where_twice_the_steps_still_move_accuracy(gained, steps):
    def records(variant, value):
        about = {"metric": "top1", "method": variant, "seed": 0, "set": "source", "split": "base"}
        return [{**about, "context": context, "part": part, "value": value + part}
                for context in ("in", "scene") for part in (1, *units.DRAWS)]  # fmt: skip

    reached = {f"{trainer}, {count} steps": 80.0 for trainer in ("plain", "meta") for count in units.STEPS}
    reached["meta, 112 steps"] += gained
    found = [one for variant, value in reached.items() for one in records(variant, value)]
    assert searches.steps_chosen(found) == steps and f": {steps} are taken" in searches.regime_sentence(found)
    assert searches.doubled(found).loc["plain"].tolist() == [0, 0]


def test_a_rate_is_tried_on_both_sides_of_the_best_before_settings_of_ones_own():
    def scored(score):
        reached: dict[str, float] = {}
        while len(reached) < len(found := searches.search("joint", reached)):
            reached |= {units.trial_name("joint", one): score(one["outer_lr"]) for one in found}
        return found

    climbing, falling, peaked = (scored(score) for score in (abs, lambda rate: -rate, lambda rate: -abs(rate - 0.02)))
    assert [one["outer_lr"] for one in climbing] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
    assert [one["outer_lr"] for one in falling] == [0.01, 0.02, 0.04, 0.005, 0.0025, 0.00125]
    assert peaked == [*units.RATES, *({"outer_lr": 0.02, **own} for own in units.OWN["joint"])]


def test_the_long_trials_are_those_of_the_rule_and_the_best_is_chosen():
    reached = dict(searches.reached(searches.on_draws(store.study_records("trials", by="variant")))["hm_out"])
    for trainer, trials in units.TRIALS.items():
        assert [*trials] == searches.search(trainer, reached)[: len(trials)], trainer
        if trainer in units.CHOSEN:
            assert len(trials) == units.BUDGET
            best = max(trials, key=lambda one: reached[units.trial_name(trainer, one)])
            assert units.CHOSEN[trainer] == best, trainer
            assert trainer == "joint" or METHODS[units.TRAINERS[trainer][0]].long == best, trainer
    regime = store.study_records("regime", by="variant")
    assert (searches.steps_chosen(regime) if regime else units.STEPS[0]) == units.CHOSEN_STEPS


def test_nothing_long_runs_before_every_trainer_has_chosen(monkeypatch):
    monkeypatch.setattr(units, "CHOSEN", {"plain": {"outer_lr": 0.01}})
    assert units.long_sections() == {}
    monkeypatch.setattr(units, "CHOSEN", {trainer: {"outer_lr": 0.03} for trainer in units.TRAINERS})
    sections = units.long_sections()
    counted = {name: len(seeds) for name, (seeds, _) in sections.items()}
    assert counted == {"trainers": 6, "bite": 4, "rates": 6, "long_dial": 2}
    steps = {}
    variants = {name: one for _, section in sections.values() for name, one in section.items()}
    for variant, (method, changes, _) in variants.items():
        config = load_config("full", method=method, **changes)
        steps[variant] = config.epochs * min(config.steps_per_epoch, config.train_clips // config.batch_size)
        epochs = 44 if variant == "plain with equal passes" else 22
        assert method == "frozen" or (config.outer_lr, config.epochs) == (0.03, epochs)
    assert steps["plain with equal passes"] == 2 * steps["plain"] == 2 * steps["meta"]  # a meta-step takes two batches
    meta, joint = (sections["bite"][1][f"{name}, other scenes"][1] for name in ("meta", "joint"))
    assert joint == {**meta, "inner_lr": 0.0}


def test_each_average_of_a_run_is_asked_for_once_and_differs_from_its_neighbor():
    config = load_config("full", **units.LONG)
    formed = {one.name: one for one in units.each_average(config)}
    assert [*formed] == ["last", "gwa", "ema", "swa", "swa patched"]
    assert formed["swa patched"].replace(patch=0.0, name="swa") == formed["swa"]
    assert (formed["gwa"].mu, formed["gwa"].sigma) == (15.0, 10.0)
    assert [one.name for one, _ in units.averages("last and gwa", config)] == ["last", "gwa"]


def test_frozen_clip_follows_the_scene_alone_where_cues_disagree(tmp_path):
    workspace = Workspace(tmp_path, shipped=False)
    found = {one["metric"]: one["value"] for one in measure._cues(load_config("smoke", method="frozen"), workspace)}
    assert found["scene_share"] == 100 and abs(found["motion"]) < 1e-3 < found["background"]
    assert abs(found["order_gap"]) < 3


def test_recipes_take_what_the_committed_search_chose():
    found = searches.trials(store.study_records("search", by="variant"), SEARCH, budget=5)
    chosen = dict(zip(found["recipe"][found["chosen"]], found["changes"][found["chosen"]], strict=True))
    assert [*chosen] == [*SEARCH]
    for method, settings in chosen.items():
        assert dict(METHODS[method].tuned) == settings, method
    full, bare = METHODS["open_mede"], METHODS["open_mede_no_gwa"]
    assert (full.tuned, full.long) == (bare.tuned, bare.long)
    rates = {settings["outer_lr"] for settings in chosen.values()}
    at_edge = sum(settings["outer_lr"] == max(rates) for settings in chosen.values())
    said = searches.edge_sentence(found)
    assert f"{at_edge} of {len(SEARCH)} recipes chose a rate at the edge" in said
    assert said.count(f" {max(rates):g}") == at_edge
    waiting = searches.trials(store.study_records("search", by="variant"), SEARCH, budget=6)
    assert not waiting["chosen"].any() and f"{len(SEARCH)} more have trials left" in searches.edge_sentence(waiting)
    assert "left" not in said


def test_every_control_is_compared_with_one_that_exists():
    assert {variant for pair in training.CONTROL_PAIRS for variant in pair} == set(units.CONTROLS)


def test_every_test_of_a_unit_is_scored_by_the_workspace_or_measured_on_the_learner():
    for test, config in {(test, one.config) for section in SECTIONS for one in units_of(section) for test in one.tests}:
        scored = bool(eval_sets(test, config)) + bool(units.averages(test, config))
        assert scored + (test in measure.MEASURED) == 1, test


# ------------------------------------------------------------------------------------ the store
def test_a_line_is_replaced_by_its_newer_one_and_the_others_stay(tmp_path):
    meta, joint = unit("meta-step"), unit("joint")
    for one in (line(meta, x=[1.0, 2]), line(joint, x=[2.0, 2]), line(meta, x=[3.0, 2])):
        store.add_line(one, tmp_path)
    found = store.read_section("meta", tmp_path)
    assert [(one["variant"], one["numbers"]["x"][0]) for one in found] == [("meta-step", 3.0), ("joint", 2.0)]


def test_records_say_what_was_measured(tmp_path):
    keys = {"top1/source/base/1/in/": [75.0, 4], "cosine/train/base/2/in/": [-0.5, 10]}
    store.add_line(line(unit("joint"), **keys), tmp_path)
    accuracy, cosine = store.study_records("meta", by="variant", folder=tmp_path)
    assert (accuracy["method"], accuracy["set"], accuracy["part"], accuracy["n"]) == ("joint", "source", 1, 4)
    assert (cosine["metric"], cosine["part"], cosine["value"]) == ("cosine", 2, -0.5)


def test_a_damaged_line_is_named(tmp_path):
    store.add_line(line(**{"top1/source/base/1/in/": [75.0, 4]}), tmp_path)
    path = tmp_path / "meta.jsonl"
    path.write_text(path.read_text().replace('"seconds":1.0', '"seconds":'))
    with pytest.raises(ValueError, match=r"meta.jsonl line 1 cannot be read"):
        store.read_section("meta", tmp_path)


def test_what_older_code_made_is_marked_and_counts_until_it_is_asked_for_again(tmp_path, monkeypatch):
    store.add_line(line(), tmp_path)
    assert not store.is_missing(unit(), tmp_path) and not store.is_missing(unit(), tmp_path, retrain=True)
    assert "lder code" not in store.origin(["meta"], tmp_path)
    assert store.is_missing(unit(rho=0.5), tmp_path) and store.is_missing(unit(inner_lr=0.1), tmp_path)
    assert store.is_missing(unit(tests=("source", "look")), tmp_path) and store.is_missing(unit("b"), tmp_path)
    monkeypatch.setattr(store, "kernel_hash", lambda: "other")
    assert not store.is_missing(unit(), tmp_path) and store.is_missing(unit(), tmp_path, retrain=True)
    assert "Older code made 1 of them" in store.origin(["meta"], tmp_path)


def test_a_section_trains_each_run_once_and_a_second_call_does_nothing(tmp_path):
    methods = ("open_mede_no_gwa", "open_mede")
    section = [Unit("floors", m, load_config("smoke", method=m, **TINY), ("base", "training_fit")) for m in methods]
    workspace, folder = Workspace(tmp_path / "runs", shipped=False, make=True), tmp_path / "results"
    assert measure.run_unit(section[1], workspace, folder)
    assert [measure.run_unit(unit, workspace, folder) for unit in section] == [True, False]
    assert len(list((tmp_path / "runs").glob("meta-*/done.json"))) == 1, "both methods share one training run"
    before = (folder / "floors.jsonl").read_bytes()
    assert not any(measure.run_unit(unit, workspace, folder) for unit in section)
    assert (folder / "floors.jsonl").read_bytes() == before
    records = store.study_records("floors", folder=folder)
    assert {r["method"] for r in records} == {"open_mede_no_gwa", "open_mede"}
    assert not any("correct" in r for r in records), "a seed's accuracy is kept; a fresh run alone keeps its clips"
    fresh = measure.measure_here(section[:1], workspace)
    assert all("correct" in r for r in fresh if r["metric"] == "top1")


# ------------------------------------------------------------------------------------ the answers
def test_the_numbers_of_a_seed_are_those_of_its_clips():
    main = [r for r in store.study_records("main") if r["method"] in ("frozen", "open_mede")]
    ours = answers.per_seed(main).groupby("method").mean()
    for frame, names in ((base_novel(main), {}), (in_and_out(main), {"hm": "hm_out"})):
        for row in frame.itertuples():
            assert ours.loc[row.method, names.get(row.column, row.column)] == pytest.approx(row.value, abs=1e-3)


def test_the_answer_sets_the_method_its_parts_and_the_inner_step_beside_their_controls():
    main = store.study_records("main")
    told = answers.answer({"short": claims.claim_records(), "long": [], "without joint": main})
    pairs = list(zip(told["regime"], told["first"], told["second"], strict=True))
    assert pairs == [(name, *pair) for name, most in (("short", 4), ("without joint", 3))
                     for pair in answers.ANSWER_PAIRS[:most]]  # fmt: skip
    out = in_and_out(main).query("column == 'out'").set_index("method")["value"]
    for row in told[told["second"] != "joint"].itertuples():
        assert row.value == pytest.approx(out[row.first] - out[row.second])


def test_a_criterions_map_is_what_it_chooses_by():
    one = [r for r in store.study_records("gwa") if r["seed"] == FEW[0]]
    chosen = training.selections(one).set_index("criterion")
    for criterion in training.CRITERIA:
        mu, sigma, score = training.criterion_means(one, criterion)
        best = np.argwhere(score == score.max())
        assert (chosen.loc[criterion, "mu"], chosen.loc[criterion, "sigma"]) in [(mu[j], sigma[i]) for i, j in best]


def test_the_table_of_controls_takes_the_same_seeds_for_every_row():
    records = store.study_records("meta", by="variant")
    more = [{**r, "seed": 9, "value": 0.0} for r in records if r["method"] == "joint" and r["seed"] == FEW[0]]
    assert training.control_table([*records, *more]).equals(training.control_table(records))
    assert set(training.control_table(records).set_index("Variant").loc[["meta-step", "joint"], "Seeds"]) == {len(FEW)}


def test_predictions_are_means_over_seeds_and_say_where_they_fail():
    where = {"set": "train", "split": "base", "context": "in", "part": 1}
    changes = [
        {**where, "method": "m", "metric": f"change_{kind}", "average": "0.5", "value": v}
        for kind, v in (("measured", -1.0), ("measured", -3.0), ("predicted", -2.5), ("predicted", -2.5))
    ]
    assert training.predictions(changes)[["measured", "predicted"]].to_numpy().tolist() == [[-2.0, -2.5]]
    assert training.gradient_products(changes)["value"].tolist() == [5.0], "minus the prediction over alpha"
    assert training.expansion_fails(changes, 0.5).endswith("m: none.")
    later = [{**r, "part": 2, "value": -0.5} for r in changes]
    turned = [{**r, "value": abs(r["value"])} if r["metric"] == "change_measured" else r for r in later]
    assert training.expansion_fails([*changes, *turned], 0.5).endswith("m: 2.")
    table = training.prediction_table([*changes, *later])
    assert list(table.index) == [0] and table["Measured"][0] == "-0.5000", "the last epoch alone, numbered from 0"


# ------------------------------------------------------------------------------------ what is committed
def test_the_committed_results_are_small_and_say_what_made_them():
    files = list(store.FOLDER.glob("*.jsonl"))
    assert sum(file.stat().st_size for file in files) <= 1_000_000
    assert {"search", "main"} <= {file.stem for file in files} <= set(SECTIONS)
    for one in (one for file in files for one in store.read_section(file.stem)):
        assert len(one["commit"]) >= 10 and one["machine"] and one["torch"] and one["kernel"]
        assert {"seed", "method", "settings"} <= one.keys()


def test_the_committed_results_pass_the_sanity_floors():
    others = [store.study_records(section, by="variant") for section in ("floors", "dial")]
    checks = answers.floors_table(store.study_records("main"), *others).set_index("Check")["Holds"]
    assert "NO" not in set(checks), checks
    assert (checks == "yes").sum() >= 2, "frozen CLIP's two checks come with the main section"
    row = {"set": "reversal", "split": "all", "context": "scene", "seed": 4, "method": "frozen"}
    seeing = [{**row, "metric": "top1", "value": 80.0}, {**row, "metric": "both_of_a_pair", "value": 60.0}]
    assert (answers.floors_table(seeing, [], [])["Holds"] == "NO").sum() == 2, "a frozen CLIP that saw order fails"


def test_what_a_notebook_reads_of_the_study_is_made_with_it_in_the_profile_full():
    for path in (Path(__file__).parents[1] / "notebooks").glob("4?_study_*.ipynb"):
        read = set(re.findall(r'(?:study_records|whole_seeds)\(\\"(\w+)', path.read_text(encoding="utf-8")))
        assert read and read <= {*asks.SECTIONS[path.stem.partition("_")[2]]} <= SECTIONS.keys(), path.name
