"""Training: exact resume after a kill, online = post-hoc averaging, the study's pairings, clear refusals."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest
import torch

from mede_core.averages import averaged
from mede_core.checkpoints import checkpoint_path, load_checkpoint
from mede_core.config import load_config
from mede_core.learner import build_learner
from mede_core.train import EpochBatches, disjoint_classes, fit, other_scenes, query_pairs
from mede_core.world.synthetic import World, make_set, training_clips

TINY = {"epochs": 3, "warmup_epochs": 1, "train_clips": 48, "batch_size": 8}


def clips(config):
    return make_set(World(config.world_seed), train=True, rho=config.rho, count=config.train_clips)


def run(config, folder, learner=None, **how):
    return fit(learner or build_learner(seed=config.seed), clips(config), config, folder, **how)


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
    facts = {"code": "0123", "settings": {"made": "up"}}
    return run(load_config(**TINY), tmp_path_factory.mktemp("meta"), facts=facts)


def test_every_epoch_is_kept_and_every_step_is_recorded(meta_run):
    assert [p.name for p in sorted(meta_run.glob("epoch_*"))] == [f"epoch_00{i}.safetensors" for i in (1, 2, 3)]
    lines = [json.loads(line) for line in (meta_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(18))
    assert {"support_loss", "query_loss", "grad_inner_product", "lr"} <= lines[0].keys()
    assert json.loads((meta_run / "done.json").read_text())["batches_seen"] == 36
    facts = json.loads((meta_run / "config.json").read_text())
    assert facts["settings"] == {"made": "up"} and facts["clips"] == 48 and facts["config"]["inner_lr"] == 0.5


def test_online_and_post_hoc_gwa_are_bit_identical(meta_run):
    config = load_config(**TINY)
    online, facts = load_checkpoint(meta_run / "gwa.safetensors")
    post_hoc = averaged(config.average(), lambda t: load_checkpoint(checkpoint_path(meta_run, t))[0], {}, 3)
    assert all(torch.equal(online[name], post_hoc[name]) for name in online)
    assert facts["averaged"] == {"name": "gwa", "mu": config.mu, "sigma": config.sigma} and facts["epochs"] == [1, 2, 3]


def test_a_finished_run_is_loaded_not_trained_again(meta_run):
    before = {p.name: p.stat().st_mtime_ns for p in meta_run.iterdir()}
    learner, texts = build_learner(), [[f"a video of {name}"] for name in clips(load_config(**TINY)).class_names]
    run(load_config(**TINY), meta_run, learner, texts=texts)
    assert {p.name: p.stat().st_mtime_ns for p in meta_run.iterdir()} == before
    last = load_checkpoint(checkpoint_path(meta_run, 3))[0]
    assert all(torch.equal(learner.trainable_state()[k], last[k]) for k in last)
    expected = build_learner().set_classes(learner.class_names, ("a video of {}",)).text_features
    assert torch.equal(learner.text_features, expected)


def test_another_seed_gives_another_start_and_other_batches_and_each_epoch_its_own():
    name, data = "visual.transformer.resblocks.0.adapter.down.weight", clips(load_config(**TINY))
    starts = [build_learner(seed=seed).trainable_state()[name] for seed in (0, 0, 1)]
    assert torch.equal(*starts[:2]) and not torch.equal(*starts[1:])
    how = {"steps": 6, "pairing": "next", "num_workers": 0, "device": torch.device("cpu")}
    epochs = [EpochBatches(data, load_config(**TINY, seed=s), e, **how) for s, e in ((0, 1), (0, 1), (1, 1), (0, 2))]
    orders = [torch.cat([labels for _, labels in batches]).tolist() for batches in epochs]
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3


SCRIPT = """
    import sys, torch
    from mede_core.config import load_config
    from mede_core.learner import build_learner
    from mede_core.train import fit
    from mede_core.world.synthetic import World, make_set
    torch.set_num_threads(1)
    config = load_config(**{tiny!r})
    fit(build_learner(), make_set(World(1), train=True, rho=config.rho, count=48), config, sys.argv[1])
"""


def test_a_run_killed_with_signal_9_resumes_to_the_same_bits(meta_run, tmp_path):
    code, folder = textwrap.dedent(SCRIPT.format(tiny=TINY)), tmp_path
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True)
    deadline = time.time() + 120
    while not (folder / "state.pt").is_file() and time.time() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (folder / "state.pt").is_file() and not (folder / "done.json").is_file(), "not killed in the middle"
    with (folder / "metrics.jsonl").open("a") as metrics:  # what a cut-off epoch may leave
        metrics.write('{"epoch": 9, "half a li')
    (folder / "epoch_003.safetensors").write_bytes(b"half a file")
    assert same_bits(meta_run, run(load_config(**TINY), folder)), "metrics differ"


def test_a_folder_of_another_run_is_refused_and_the_difference_named(meta_run):
    with pytest.raises(ValueError, match="inner_lr: 0.5 -> 0.25"):
        run(load_config(**TINY, inner_lr=0.25), meta_run)
    with pytest.raises(ValueError, match="code: '0123' -> '4567'"):
        run(load_config(**TINY), meta_run, facts={"code": "4567"})


def test_one_batch_an_epoch_is_refused_for_the_meta_step_only(tmp_path, capsys, caplog):
    small = {**TINY, "train_clips": 40, "batch_size": 32}
    with pytest.raises(ValueError, match="batch_size.*needs at least 2"):
        run(load_config(**small), tmp_path)
    caplog.set_level("INFO")
    run(load_config(method="finetune", steps_per_epoch=9, **small), tmp_path)
    said = capsys.readouterr().err + caplog.text
    assert "steps_per_epoch is 9; 40 clips in batches of 32 give 1, no more" in said


def test_a_loss_that_is_not_finite_stops_with_epoch_and_step(tmp_path):
    for method in ("open_mede", "finetune", "open_vclip"):
        learner = build_learner()
        with torch.no_grad():
            learner.temporal[0].adapter.up.bias.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match=r"epoch 1, step 0: support_loss is nan"):
            run(load_config(method=method, **TINY), tmp_path / method, learner)


# --- the study's controls differ from the paper's pairing in what they say they do


def batches(labels, pairs=5, size=6, seed=0):
    return list(disjoint_classes(SimpleNamespace(labels=labels), size, pairs, torch.Generator().manual_seed(seed)))


def test_disjoint_batches_share_no_class_and_fill_up():
    labels = torch.arange(48) % 8
    drawn = batches(labels)
    assert len(drawn) == 10 and all(len(set(batch)) == 6 for batch in drawn)
    for support, query in zip(drawn[0::2], drawn[1::2], strict=True):
        assert not set(labels[support].tolist()) & set(labels[query].tolist())
    assert drawn == batches(labels) and drawn != batches(labels, seed=1)


def test_disjoint_batches_need_enough_clips_of_half_of_the_classes():
    with pytest.raises(ValueError, match="fewer than batch_size"):
        batches(torch.arange(8) % 4)


def test_query_batches_before_other_scenes_share_one_assignment_that_is_not_the_supports():
    config = load_config(**TINY, method="open_mede", pairing="scenes")
    data, plain = training_clips(config, 32), training_clips(config.replace(pairing="next"), 32)
    assert data.assignments == 4 and len(data) == 4 * len(plain)
    assert torch.equal(data.videos[: len(plain)], plain.videos)  # the support's are the clips as they were
    assert training_clips(config.replace(method="finetune"), 32).assignments == 1  # it has no query batch
    scenes, drawn = torch.from_numpy(data.spec.scene), other_scenes(data, 6, 5, torch.Generator().manual_seed(0))
    shifts = set()
    for support, query in zip(drawn, drawn, strict=True):
        assert max(support) < len(plain) and not set(support) & {index % len(plain) for index in query}
        as_they_were = [index % len(plain) for index in query]
        (shift,) = set(((scenes[query] - scenes[as_they_were]) % 4).tolist())
        assert torch.equal(data.labels[query], plain.labels[as_they_were])
        shifts.add(shift)
    assert shifts <= {1, 2, 3} and len(shifts) > 1
    with pytest.raises(ValueError, match="pairing is 'scenes'"):
        next(other_scenes(plain, 6, 5, torch.Generator()))


def test_pairings_hand_out_the_batches_they_name():
    assert list(query_pairs([1, 2, 3], "next")) == [(1, 2), (2, 3), (3, 1)]
    assert list(query_pairs([1, 2, 3], "same")) == [(1, 1), (2, 2), (3, 3)]
    assert list(query_pairs([1, 2, 3, 4], "disjoint")) == [(1, 2), (3, 4)]
    assert list(query_pairs([1, 2, 3, 4], "scenes")) == [(1, 2), (3, 4)]
