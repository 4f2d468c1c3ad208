"""Zero-shot evaluation: class-text similarity over clips, and the synthetic world's sets as result records."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from .config import Config
from .distributed import gather_rows, rank, world_size
from .learner import VideoLearner
from .report.metrics import topk_accuracy, topk_correct
from .report.records import pack_correct
from .video.prompts import Prompts, load_prompts
from .world.synthetic import CONTEXTS, SETS, ClipSet, World, make_set


@dataclass(frozen=True)
class Evaluation:
    """Logits of a dataset's clips.

    Attributes:
        logits: [N, K] float32, mean over views.
        labels: [N] int64.
        class_names: K texts.
    """

    logits: np.ndarray
    labels: np.ndarray
    class_names: list[str]

    @cached_property
    def correct(self) -> np.ndarray:
        """[N] bool, top-1; a tie counts against the label."""
        return topk_correct(self.logits, self.labels)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * float(self.correct.mean())

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent."""
        return topk_accuracy(self.logits, self.labels, min(5, self.logits.shape[1]))


@torch.no_grad()  # not inference_mode: the class-text features made in here are used in training later
def evaluate(
    learner: VideoLearner,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    prompts: Prompts | None = None,
) -> Evaluation:
    """Score every clip against the dataset's classes; under torchrun each process scores its share.

    Args:
        learner: its classes are set to the dataset's; its mode is restored.
        dataset: items (video [T, 3, H, W] or [V, T, 3, H, W], label), with ``class_names``.
        batch_size: clips at once; it does not change a result beyond rounding.
        num_workers: of the data loader.
        prompts: the texts of a class; default: its bare name.

    Returns:
        logits (averaged over frames, then views: protocols of Open-VCLIP) and labels.

    Raises:
        ValueError: the dataset is empty.
    """
    if len(dataset) == 0:
        raise ValueError("dataset has 0 clips; nothing to evaluate")
    prompts = prompts or load_prompts("name")
    learner.set_classes(dataset.class_names, texts=prompts.texts(dataset.class_names))
    device, training = learner.logit_scale.device, learner.training
    learner.eval()
    logits, labels = [], []
    # No padding to equal shares, as DistributedSampler does it: a clip that counts twice would change the accuracy.
    share = Subset(dataset, range(rank(), len(dataset), world_size())) if world_size() > 1 else dataset
    for video, label in DataLoader(share, batch_size, num_workers=num_workers):
        views = video.shape[1] if video.ndim == 6 else 1
        output = learner(video.flatten(0, 1).to(device) if video.ndim == 6 else video.to(device))
        logits.append(output.view(len(label), views, -1).mean(1).float().cpu())
        labels.append(label)
    learner.train(training)
    whole = gather_rows(torch.cat(logits), len(dataset)), gather_rows(torch.cat(labels), len(dataset))
    return Evaluation(whole[0].numpy(), whole[1].numpy(), list(dataset.class_names))


def record(result: Evaluation, **facts) -> dict:
    """One result record: top-1 in percent, the clip count and each clip's correctness, beside the given facts."""
    return {
        **facts,
        "metric": "top1",
        "value": result.top1,
        "n": len(result.labels),
        "correct": pack_correct(result.correct),
    }


def evaluate_world(
    learner: VideoLearner,
    config: Config,
    *,
    sets: tuple[str, ...] = ("source",),
    contexts: tuple[str, ...] = CONTEXTS,
    halves: tuple[str, ...] = ("base", "novel"),
    parts: tuple[int, ...] = (1,),
    **facts,
) -> list[dict]:
    """Evaluate on sets of the synthetic world, in and out of context.

    Args:
        learner: with the method's weights loaded.
        config: world seed, clips a set, frames.
        sets: names of the world's sets.
        contexts: ``in`` and the out-of-context backgrounds; the twins share actors and motions clip by clip.
        halves: ``base`` and ``novel``, each scored among its own classes, or ``all`` of a set's classes together, or
            a fold, see :meth:`World.actions`.
        parts: independent draws of clips: 1, 2 and 3 stand for a data set's three test splits.
        facts: written into each record (method, run, profile, ...).

    Returns:
        records with set, split (the half), part, context, value and per-clip correctness.
    """
    unknown = sorted(set(sets) - set(SETS))
    if unknown:
        raise ValueError(f"sets are {unknown}; allowed: {', '.join(SETS)}")
    about = {"seed": config.seed, "world_seed": config.world_seed, "rho": config.rho, "weights": learner.weights_id}
    records = []
    for name, half, context, part in itertools.product(sets, halves, contexts, parts):
        drawn = (name, half, context, part, config.test_clips, config.num_frames, learner.image_size)
        result = evaluate(learner, _rendered(World(config.world_seed, config.home_seed), *drawn))
        records.append(record(result, set=name, split=half, context=context, part=part, **about, **facts))
    return records


# Every method is tested on the same clips, so they are rendered once. The cache must hold all sets of a notebook (11
# has 37): methods take turns over them, and a smaller one would forget each set before it is asked for again.
@lru_cache(maxsize=64)  # 80 MB for a set of 2,500 clips, 13 MB for one of 400
def _rendered(
    world: World, name: str, half: str, context: str, part: int, count: int, num_frames: int, size: int
) -> ClipSet:
    return make_set(world, name, half=half, context=context, split=part, count=count, num_frames=num_frames, size=size)
