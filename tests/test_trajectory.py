"""Averages of a trajectory, its geometry, its accuracies, and the trajectory that ships with the package."""

import json

import numpy as np
import pytest
import torch

from mede_core.checkpoints import trajectory
from mede_core.config import Config, load_config
from mede_core.demo import demo_run, make_demo, trajectory_source
from mede_core.experiment import evaluate_method, learner_for
from mede_core.files import sha256_file
from mede_core.gwa import average_trajectory
from mede_core.trajectory import (
    RULES,
    against_last,
    compare_rules,
    effective_epochs,
    epoch_shares,
    flatten,
    in_and_out,
    largest_difference,
    movement,
    plane,
    resolution,
    run_config,
    score_trajectory,
)


def walk(points, seed=0):
    """Checkpoints whose weights are the given points, turned into a space of seven dimensions."""
    turned, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((7, len(points[0]))))
    vectors = torch.tensor(np.asarray(points) @ turned.T)
    return [{"w": vector[:4].view(2, 2), "b": vector[4:]} for vector in vectors]


# ------------------------------------------------------------------------------------ shares
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_the_shares_of_every_rule_sum_to_one(rule, epochs):
    shares = epoch_shares(rule, epochs, mu=3.0, sigma=2.0)
    assert shares.dtype == torch.float64
    assert shares.shape == (epochs,)
    assert shares.sum().item() == pytest.approx(1, abs=1e-12)
    assert (shares >= 0).all()


def test_ema_shares_are_those_of_the_recursion_begun_at_the_first_epoch():
    values = np.random.default_rng(0).standard_normal(7)
    average = values[0]
    for value in values[1:]:
        average = 0.8 * average + 0.2 * value
    assert float(epoch_shares("ema", 7, decay=0.8) @ torch.tensor(values)) == pytest.approx(average, rel=1e-12)


def test_swa_counts_alike_and_last_counts_alone():
    assert epoch_shares("swa", 4).tolist() == [0.25] * 4
    assert epoch_shares("last", 4).tolist() == [0, 0, 0, 1]


def test_effective_epochs_count_what_an_average_spreads_over():
    assert effective_epochs([1, 1, 1, 1, 1]) == pytest.approx(5)
    assert effective_epochs([0, 0, 3, 0]) == pytest.approx(1)
    assert effective_epochs([1, 1, 0, 0]) == pytest.approx(2)


def test_the_published_gaussian_is_nearly_uniform():
    weights = np.exp(-((np.arange(1, 23) - 15) ** 2) / 200)
    expected = weights.sum() ** 2 / (weights**2).sum()
    rows = {row["rule"]: row for row in compare_rules(22, mu=15.0, sigma=10.0)}
    assert rows["gwa"]["effective_epochs"] == pytest.approx(expected, rel=1e-12)
    assert 20 < expected < 22 == pytest.approx(rows["swa"]["effective_epochs"])
    assert rows["gwa"]["heaviest_epoch"] == 15
    assert rows["ema"]["first"] == pytest.approx(100 * 0.9**21)


# ------------------------------------------------------------------------------------ geometry
def test_movement_is_the_distance_walked_and_from_the_start():
    rows = movement(walk([(0.0, 0.0), (3.0, 4.0), (3.0, 0.0)]))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert np.isnan(rows[0]["moved"])
    assert [row["moved"] for row in rows[1:]] == pytest.approx([5, 4])
    assert [row["from_first"] for row in rows] == pytest.approx([0, 5, 3])


def test_the_plane_keeps_distances_of_what_lies_in_it():
    points = np.random.default_rng(1).standard_normal((6, 2))
    found, shown = plane(walk(points))
    assert shown == pytest.approx(1)
    for one in range(6):
        expected = np.linalg.norm(points - points[one], axis=1)
        np.testing.assert_allclose(np.linalg.norm(found - found[one], axis=1), expected, atol=1e-12)


def test_an_average_lies_where_the_averaged_coordinates_lie():
    checkpoints = walk(np.random.default_rng(2).standard_normal((5, 4)))
    shares = epoch_shares("gwa", 5, mu=3.0, sigma=1.0)
    found, shown = plane(checkpoints)
    assert 0 < shown < 1
    full = torch.stack([flatten(checkpoint) for checkpoint in checkpoints])
    axes = torch.linalg.lstsq(full - full.mean(0), torch.tensor(found)).solution  # the projection, recovered
    average = flatten(average_trajectory(checkpoints, shares))
    np.testing.assert_allclose(((average - full.mean(0)) @ axes).numpy(), shares.numpy() @ found, atol=1e-10)


def test_largest_difference_finds_the_one_entry():
    one = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    other = {"a": torch.tensor([0.0, -0.5, 0.0]), "b": torch.ones(2, 2)}
    assert largest_difference(one, other) == 0.5


def test_resolution_is_the_binomial_one():
    assert resolution(400) == pytest.approx(4.9)


# ------------------------------------------------------------------------------------ accuracies
def rows(split, table):
    return [
        {"rule": rule, "split": split, "context": context, "value": value} | ({} if epoch is None else {"epoch": epoch})
        for (rule, epoch), contexts in table.items()
        for context, value in contexts.items()
    ]


def test_out_of_context_is_the_mean_over_the_swapped_backgrounds():
    table = {
        ("epoch", 0): {"in": 90, "scene": 10, "noise": 20, "stripes": 30},
        ("epoch", 1): {"in": 80, "scene": 40, "noise": 50, "stripes": 60},
        ("gwa", None): {"in": 85, "scene": 0, "noise": 0, "stripes": 3},
    }
    records = rows("base", table) + rows("novel", {("epoch", 0): {"in": 1, "scene": 1}})
    epochs, accuracy, averages = in_and_out(records)
    assert epochs == [0, 1]
    assert accuracy == {"in": [90, 80], "out": [20, 50]}
    assert averages == {"GWA": {"in": 85, "out": 1}}
    assert against_last(rows("base", table)) == [{"rule": "GWA", "split": "base", "in": 5, "out": -49}]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A tiny trained run, made by the command that makes the shipped one."""
    folder = tmp_path_factory.mktemp("demo")
    settings = {"epochs": 2, "warmup_epochs": 1, "train_clips": 72, "batch_size": 36, "num_frames": 4}
    return make_demo(folder / "runs", folder / "made", profile="smoke", count=36, **settings)


def test_a_made_demo_holds_what_is_needed_and_nothing_else(small_run):
    assert sorted(path.name for path in small_run.iterdir()) == [
        "accuracy.json", "config.json", "done.json", "epoch_001.safetensors", "epoch_002.safetensors", "metrics.jsonl",
    ]  # fmt: skip
    trained = next((small_run.parent / "runs").glob("meta-*"))
    for epoch in ("epoch_001.safetensors", "epoch_002.safetensors"):
        assert sha256_file(small_run / epoch) == sha256_file(trained / epoch)


def test_a_runs_configuration_is_read_back(small_run):
    config = run_config(small_run, test_clips=50, gwa_mu=1.5)
    assert (config.method, config.epochs, config.train_clips, config.num_frames) == ("open_mede", 2, 72, 4)
    assert (config.test_clips, config.mu) == (50, 1.5)
    assert next((small_run.parent / "runs").glob("meta-*")).name == config.run_name()


def test_scores_are_those_of_the_methods_own_evaluation(small_run):
    records = json.loads((small_run / "accuracy.json").read_text())
    config = run_config(small_run, test_clips=36)
    runs = small_run.parent / "runs"
    for method, chosen in (
        ("frozen", {"rule": "epoch", "epoch": 0}), ("open_mede_no_gwa", {"rule": "epoch", "epoch": 2}),
        ("open_mede", {"rule": "gwa"}),
    ):  # fmt: skip
        expected = evaluate_method(config.replace(method=method), runs)
        found = {
            (r["split"], r["context"]): r["value"]
            for r in records
            if r["rule"] == chosen["rule"] and r.get("epoch") == chosen.get("epoch")
        }
        assert found == {(r["split"], r["context"]): pytest.approx(r["value"], abs=1e-3) for r in expected}
    assert {row["rule"] for row in records} == {"epoch", "gwa", "swa", "ema"}
    assert not any("correct" in row for row in records)


def test_a_run_of_ones_own_is_a_source_with_the_wanted_average(small_run):
    source = trajectory_source(str(small_run), gwa_mu=2.0, gwa_sigma=0.01, count=36)
    assert (source.config.mu, source.config.sigma) == (2.0, 0.01)
    scores = {(r["rule"], r.get("epoch"), r["split"], r["context"]): r["value"] for r in source.records}
    for half in ("base", "novel"):
        assert scores["gwa", None, half, "in"] == scores["epoch", 2, half, "in"]  # so narrow: epoch 2 alone


def test_a_run_on_other_clip_weights_is_refused(small_run, tmp_path):
    for path in small_run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, "weights": "shipped:000000000000"}))
    with pytest.raises(ValueError, match=r"trained on CLIP shipped:000000000000; here is shipped:"):
        score_trajectory(tmp_path, run_config(tmp_path, test_clips=36))


def test_what_is_no_finished_run_is_refused(small_run, tmp_path):
    with pytest.raises(ValueError, match=r"lacks config.json, done.json"):
        run_config(tmp_path)
    facts = json.loads((small_run / "config.json").read_text())
    (tmp_path / "done.json").touch()
    (tmp_path / "config.json").write_text(json.dumps({"config": {**facts["config"], "speed": 3}}))
    with pytest.raises(ValueError, match=r"unknown fields \['speed'\]"):
        run_config(tmp_path)
    with pytest.raises(ValueError, match=r"trained on clips.csv"):
        score_trajectory(small_run, run_config(small_run).replace(data="clips.csv"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: epoch_shares("lawa", 3), "rule is 'lawa'; allowed: gwa, swa, ema, last"),
        (lambda: epoch_shares("swa", 0), "num_epochs is 0"),
        (lambda: epoch_shares("ema", 3, decay=1.0), "decay is 1.0"),
        (lambda: epoch_shares("gwa", 3, mu=1.0, sigma=0.0), "sigma is 0.0"),
        (lambda: effective_epochs([0.0, 0.0]), "shares is"),
        (lambda: effective_epochs([1.0, -1.0]), "shares is"),
        (lambda: plane(walk([(0.0, 1.0)])), "checkpoints holds 1"),
        (lambda: in_and_out(rows("base", {("gwa", None): {"in": 1}}), split="all"), "split is 'all'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------ the shipped trajectory
def test_the_shipped_trajectory_was_trained_on_the_shipped_clip():
    weights = json.loads((demo_run() / "config.json").read_text())["weights"]
    assert weights == learner_for(Config()).weights_id


def test_the_shipped_trajectory_is_the_cpu_profiles_and_small():
    config = run_config(demo_run())
    assert config.training_hash() == load_config("cpu").training_hash()
    assert max(path.stat().st_size for path in demo_run().iterdir()) < 250_000
    assert len(list(trajectory(demo_run(), config.epochs))) == config.epochs


def test_the_shipped_accuracies_are_complete():
    source = trajectory_source()
    for split in ("base", "novel"):
        epochs, accuracy, averages = in_and_out(source.records, split=split)
        assert epochs == list(range(source.config.epochs + 1))
        assert averages.keys() == {"GWA", "SWA", "EMA"}
        assert all(0 <= value <= 100 for values in accuracy.values() for value in values)
