"""Training: exact resume after a kill, shared trajectories, online = post-hoc averaging, clear refusals."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from mede_core.checkpoints import checkpoint_path, load_checkpoint, method_weights, trajectory
from mede_core.config import load_config
from mede_core.experiment import trained_learner
from mede_core.gwa import average_trajectory, gaussian_weights
from mede_core.learner import build_learner
from mede_core.objectives import cross_entropy
from mede_core.steps import build_optimizer, learning_rate, plain_step
from mede_core.train import fit
from mede_core.world.synthetic import World, make_set

TINY = {"epochs": 3, "warmup_epochs": 1, "train_clips": 96, "batch_size": 16}


def clips(config):
    return make_set(World(config.world_seed), train=True, rho=config.rho, count=config.train_clips)


def run(config, folder, learner=None):
    return fit(learner or build_learner(seed=config.seed), clips(config), config, folder / config.run_name())


def same_bits(one, other):
    names = sorted(p.name for p in one.glob("*.safetensors"))
    assert names == sorted(p.name for p in other.glob("*.safetensors")) and names
    for name in names:
        a, b = load_checkpoint(one / name)[0], load_checkpoint(other / name)[0]
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    return (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def meta_run(tmp_path_factory):
    torch.set_num_threads(1)
    return run(load_config(**TINY), tmp_path_factory.mktemp("meta"))


def test_the_loss_falls(tmp_path):
    folder = run(load_config(method="finetune", **{**TINY, "epochs": 6, "train_clips": 144}), tmp_path)
    losses = [json.loads(line)["support_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-9:]) < 0.9 * sum(losses[:9])


def test_every_epoch_is_kept_and_every_step_is_recorded(meta_run):
    assert [p.name for p in sorted(meta_run.glob("epoch_*"))] == [f"epoch_00{i}.safetensors" for i in (1, 2, 3)]
    lines = [json.loads(line) for line in (meta_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(18))
    assert {"support_loss", "query_loss", "grad_inner_product", "lr"} <= lines[0].keys()
    assert json.loads((meta_run / "done.json").read_text())["batches_seen"] == 36


def test_online_and_post_hoc_gwa_are_bit_identical(meta_run):
    config = load_config(**TINY)
    online, facts = load_checkpoint(meta_run / "gwa.safetensors")
    post_hoc = average_trajectory(trajectory(meta_run, 3), gaussian_weights(3, config.mu, config.sigma))
    assert all(torch.equal(online[name], post_hoc[name]) for name in online)
    assert facts["averaged"] == {"name": "gwa", "mu": config.mu, "sigma": config.sigma} and facts["epochs"] == [1, 2, 3]


def test_methods_that_differ_in_averaging_read_one_trajectory(meta_run):
    last = method_weights(meta_run, load_config(method="open_mede_no_gwa", **TINY))
    mean = method_weights(meta_run, load_config(method="open_mede", **TINY))
    assert all(torch.equal(last[k], v) for k, v in load_checkpoint(checkpoint_path(meta_run, 3))[0].items())
    assert any(not torch.equal(last[k], mean[k]) for k in last)
    learner = trained_learner(load_config(method="open_mede", **TINY), meta_run.parent)
    assert all(torch.equal(learner.trainable_state()[k], mean[k]) for k in mean)


def test_a_finished_run_is_loaded_not_trained_again(meta_run):
    before = {p.name: p.stat().st_mtime_ns for p in meta_run.glob("*.safetensors")}
    learner = build_learner()
    fit(learner, clips(load_config(**TINY)), load_config(**TINY), meta_run)
    assert {p.name: p.stat().st_mtime_ns for p in meta_run.glob("*.safetensors")} == before
    last = load_checkpoint(checkpoint_path(meta_run, 3))[0]
    assert all(torch.equal(learner.trainable_state()[k], last[k]) for k in last)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(meta_run, tmp_path):
    assert same_bits(meta_run, run(load_config(**TINY), tmp_path))
    other = run(load_config(**TINY, seed=1), tmp_path)
    assert not torch.equal(
        *(next(trajectory(r, 1))["visual.transformer.resblocks.0.adapter.up.weight"] for r in (meta_run, other))
    )


SCRIPT = """
    import sys, torch
    from pathlib import Path
    from mede_core.config import load_config
    from mede_core.experiment import train_method
    torch.set_num_threads(1)
    train_method(load_config(**{tiny!r}), Path(sys.argv[1]))
"""


def test_a_run_killed_with_signal_9_resumes_to_the_same_bits(meta_run, tmp_path):
    code = textwrap.dedent(SCRIPT.format(tiny=TINY))
    folder = tmp_path / load_config(**TINY).run_name()
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], start_new_session=True)
    deadline = time.time() + 120
    while not (folder / "state.pt").is_file() and time.time() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (folder / "state.pt").is_file() and not (folder / "done.json").is_file(), "not killed in the middle"
    with (folder / "metrics.jsonl").open("a") as metrics:  # what a cut-off epoch may leave
        metrics.write('{"epoch": 9, "half a li')
    (folder / "epoch_003.safetensors").write_bytes(b"half a file")
    assert same_bits(meta_run, run(load_config(**TINY), tmp_path)), "metrics differ"


def test_a_folder_of_another_run_is_refused_and_the_difference_named(meta_run):
    with pytest.raises(ValueError, match="inner_lr: 0.5 -> 0.25"):
        config = load_config(**TINY, inner_lr=0.25)
        fit(build_learner(), clips(config), config, meta_run)


def test_an_unfinished_run_has_no_method_weights(tmp_path):
    with pytest.raises(ValueError, match="not finished"):
        trained_learner(load_config(**TINY), tmp_path)


def test_one_batch_an_epoch_is_refused_for_the_meta_step_only(tmp_path):
    config = load_config(**{**TINY, "train_clips": 40, "batch_size": 32})
    with pytest.raises(ValueError, match="batch_size.*needs at least 2"):
        run(config, tmp_path)
    run(load_config(method="finetune", **{**TINY, "train_clips": 40, "batch_size": 32}), tmp_path)
    with pytest.raises(ValueError, match="does not train"):
        run(load_config(method="frozen"), tmp_path)


def test_a_loss_that_is_not_finite_stops_with_epoch_and_step_and_keeps_checkpoints(tmp_path):
    config = load_config(**TINY)
    learner = build_learner()
    with torch.no_grad():
        learner.temporal[0].adapter.up.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1, step 0.*support_loss"):
        run(config, tmp_path, learner)
    with pytest.raises(FloatingPointError, match="support_loss is nan"):
        fit(learner, clips(config), load_config(method="finetune", **TINY), tmp_path / "plain")


def test_the_schedule_warms_up_linearly_and_ends_at_one_percent():
    rates = [learning_rate(step, 100, 20, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.01) and rates[20] == pytest.approx(1.0) and max(rates) == rates[20]
    assert rates[10] == pytest.approx(0.505) and learning_rate(100, 100, 20, 1.0) == pytest.approx(0.01)
    assert learning_rate(60, 100, 20, 1.0) == pytest.approx(0.505)


def test_biases_and_norms_get_no_weight_decay():
    learner = build_learner()
    groups = build_optimizer(learner, load_config()).param_groups
    assert {p.ndim > 1 for p in groups[0]["params"]} == {True} and groups[0]["weight_decay"] == 0.01
    assert {p.ndim for p in groups[1]["params"]} == {1} and groups[1]["weight_decay"] == 0.0


def test_a_plain_step_equals_a_hand_written_one():
    config = load_config(**TINY)
    data = clips(config)
    batch = data.videos[:8], data.labels[:8]
    ours, theirs = (build_learner().set_classes(data.class_names) for _ in range(2))
    plain_step(ours, cross_entropy, batch, torch.optim.SGD(ours.parameters(), 0.1), 1e9)
    loss = torch.nn.functional.cross_entropy(theirs(batch[0]), batch[1])
    moved = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    for (name, p), g in zip(moved.items(), torch.autograd.grad(loss, list(moved.values()))):
        torch.testing.assert_close(ours.trainable_state()[name], (p - 0.1 * g).detach())
