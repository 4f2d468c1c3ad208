"""What each process of tests/test_distributed.py does under torchrun; one process alone does the same, without it."""

import json
import sys
from pathlib import Path

import torch

from mede_core.config import load_config
from mede_core.distributed import process_group, rank, world_size
from mede_core.gwa import GaussianWeightAverage
from mede_core.learner import build_learner
from mede_core.meta import cross_batch_pairs
from mede_core.methods import build_method
from mede_core.scoring import evaluate
from mede_core.train import EpochBatches, fit
from mede_core.world.synthetic import World, make_set

STEPS = 3


def meta_steps(inner_sync: bool):
    """Three meta-steps of SGD in float64; returns weights and their Gaussian average, one update a step."""
    config = load_config(batch_size=8, inner_lr=0.5, inner_sync=inner_sync, max_grad_norm=1e9)
    clips = make_set(World(1), train=True, count=41)
    learner = build_learner().double().set_classes(clips.class_names)
    for block in learner.temporal:
        torch.nn.init.normal_(block.adapter.up.weight, std=0.05, generator=torch.Generator().manual_seed(3))
    method = build_method(config, learner)
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    average = GaussianWeightAverage(learner, 2.0, 1.0)
    batches = EpochBatches(clips, config, 1, STEPS, "next", 0, torch.device("cpu"))
    as_double = ((learner.normalize(video), labels) for video, labels in batches)
    for number, pair in enumerate(cross_batch_pairs(as_double), 1):
        method.step(pair, optimizer, None)
        average.update(learner, number)
    return {name: tensor.clone() for name, tensor in learner.trainable_state().items()}, average.averaged()


def everything(folder: Path) -> None:
    """Meta-steps with either synchronization, a refused training, and an evaluation; rank 0 writes the results."""
    synced, unsynced = meta_steps(True), meta_steps(False)
    clips = make_set(World(1), count=37)  # not a multiple of the ranks or the batch
    if world_size() > 1:
        try:
            fit(build_learner(), clips, load_config(batch_size=16), folder, facts={"code": str(rank())})
        except ValueError as error:
            (folder / f"refused_{rank()}.txt").write_text(str(error))
    result = evaluate(build_learner(), clips, batch_size=4)
    if rank() == 0:
        torch.save({"synced": synced, "unsynced": unsynced}, folder / "weights.pt")
        (folder / "evaluation.json").write_text(json.dumps([result.logits.tolist(), result.labels.tolist()]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group():
        everything(Path(sys.argv[1]))
