"""Several processes give what one process gives on the union of their batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from toy_notebooks import wait_for
from two_ranks import everything

from mede_core.checkpoints import load_checkpoint
from mede_core.config import load_config
from mede_core.distributed import RankShare, average_grads, gather_rows, process_group, rank, world_size
from mede_core.learner import build_learner
from mede_core.train import fit
from mede_core.workspace import Workspace
from mede_core.world.synthetic import World, make_set


def start(nodes, *words):
    """Two processes under torchrun, on one node, or one on each of two nodes that meet on the loopback: launchers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = ["--nnodes=2", f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"]
    each = [["--standalone", "--nproc_per_node=2"]] if nodes == 1 else [[*meet, f"--node-rank={n}"] for n in (0, 1)]
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    how["env"] = {**os.environ, "OMP_NUM_THREADS": "1", "MEDE_THREADS": "1"}
    return [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *one, *words], **how) for one in each]


def ended(launchers, seconds=300):
    """(exit code of each launcher, what each says)."""
    said = [launcher.communicate(timeout=seconds)[1] for launcher in launchers]
    return [launcher.returncode for launcher in launchers], said


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    everything(folder := tmp_path_factory.mktemp("one"))
    return folder


@pytest.fixture(scope="module", params=[1, 2], ids=["one node", "two nodes"])
def results(one, tmp_path_factory, request):
    two = tmp_path_factory.mktemp("two")
    codes, said = ended(start(request.param, Path(__file__).with_name("two_ranks.py"), two))
    assert not any(codes), said[0][-3000:]
    return one, two


def vector(tensors):
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def apart(one, other):
    return ((vector(one) - vector(other)).norm() / vector(one).norm()).item()


def test_two_ranks_take_the_meta_steps_of_one_process_on_the_union_batch(results):
    one, two = (torch.load(folder / "weights.pt") for folder in results)
    assert apart(one["synced"][0], two["synced"][0]) <= 1e-10  # the weights
    assert apart(one["synced"][1], two["synced"][1]) <= 1e-10  # their Gaussian average
    start = build_learner().trainable_state()
    assert apart(start, one["synced"][0]) > 1e-3  # and they moved


def test_without_inner_sync_each_rank_takes_its_own_inner_step(results):
    one, two = (torch.load(folder / "weights.pt") for folder in results)
    assert apart(one["synced"][0], one["unsynced"][0]) <= 1e-12  # one process: the same thing
    assert apart(two["synced"][0], two["unsynced"][0]) > 1e-6


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_rank_that_dies_ends_the_others_and_asked_again_training_ends_where_one_process_ends(nodes, tmp_path):
    tiny = {"epochs": 5, "warmup_epochs": 1, "train_clips": 48, "batch_size": 16}
    words = ["-m", "mede_core", "train", "--profile=smoke", f"--runs={tmp_path / 'two'}"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in tiny.items()]
    launchers = start(nodes, *words)
    wait_for(lambda: [*tmp_path.glob("two/*/state.pt")])
    psutil.Process(launchers[-1].pid).children()[-1].kill()
    codes, said = ended(launchers, seconds=60)
    assert all(codes) and not [*tmp_path.glob("two/*/done.json")]
    assert "SIGKILL" in said[-1] and (nodes == 1 or "error: another process of this run ended" in said[0])
    codes, said = ended(start(nodes, *words))
    assert not any(codes) and "resuming" in said[0], said
    whole = Workspace(tmp_path / "one", shipped=False).run(load_config("smoke", **tiny)).folder
    two = tmp_path / "two" / whole.name
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in two.iterdir())
    tensors = [load_checkpoint(folder / "gwa.safetensors")[0] for folder in (whole, two)]
    assert apart(*tensors) < 1e-4  # AdamW in float32
    assert len((two / "metrics.jsonl").read_text().splitlines()) == 15


def test_ranks_of_different_code_refuse_to_train_together(results):
    _, two = results
    for number in (0, 1):
        assert "the processes run different code (['0', '1'], by rank)" in (two / f"refused_{number}.txt").read_text()


def test_evaluation_under_torchrun_counts_every_clip_once(results):
    one, two = (json.loads((folder / "evaluation.json").read_text()) for folder in results)
    assert one[1] == two[1] and len(one[1]) == 37
    assert torch.allclose(torch.tensor(one[0]), torch.tensor(two[0]), atol=1e-4)


def test_without_torchrun_there_is_one_process_and_nothing_changes():
    grads = {"a": torch.ones(2)}
    with process_group() as device:
        assert device.type == "cpu" and (rank(), world_size()) == (0, 1)
        assert average_grads(grads) is grads and torch.equal(gather_rows(torch.arange(3), 3), torch.arange(3))
        assert list(RankShare(range(5))) == [0, 1, 2, 3, 4] and len(RankShare(range(5))) == 5


def test_a_batch_size_that_the_ranks_cannot_share_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("mede_core.train.world_size", lambda: 3)
    clips = make_set(World(1), train=True, count=64)
    with pytest.raises(ValueError, match="batch_size is 32; it must be a multiple of the 3 processes"):
        fit(build_learner(), clips, load_config(), tmp_path)
