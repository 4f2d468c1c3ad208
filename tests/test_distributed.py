"""Several processes give what one process gives on the union of their batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_ranks import everything

from mede_core.checkpoints import load_checkpoint
from mede_core.config import load_config
from mede_core.distributed import RankShare, average_grads, gather_rows, process_group, rank, world_size
from mede_core.learner import build_learner
from mede_core.train import fit
from mede_core.world.synthetic import World, make_set


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(script), str(two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MEDE_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    everything(one)
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


def test_training_under_torchrun_ends_where_one_process_ends_and_rank_0_writes(results):
    one, two = (folder / "run" for folder in results)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for name in ("epoch_002.safetensors", "gwa.safetensors"):
        tensors = [load_checkpoint(folder / name)[0] for folder in (one, two)]
        assert apart(*tensors) < 1e-4  # AdamW in float32
    assert len((two / "metrics.jsonl").read_text().splitlines()) == 6


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
