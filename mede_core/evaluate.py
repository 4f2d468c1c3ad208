"""Zero-shot evaluation: class-text similarity over clips, and the synthetic world's sets as result records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .config import Config
from .data.synthetic import CONTEXTS, SETS, World, make_set
from .learner import VideoLearner
from .metrics import topk_accuracy, topk_correct
from .results import pack_correct


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
def evaluate(learner: VideoLearner, dataset: Dataset, *, batch_size: int = 64, num_workers: int = 0) -> Evaluation:
    """Score every clip against the dataset's classes.

    Args:
        learner: its classes are set to the dataset's; its mode is restored.
        dataset: items (video [T, 3, H, W] or [V, T, 3, H, W], label), with ``class_names``.
        batch_size: clips at once; it does not change a result beyond rounding.
        num_workers: of the data loader.

    Returns:
        logits (averaged over frames, then views: protocols of Open-VCLIP) and labels.

    Raises:
        ValueError: the dataset is empty.
    """
    if len(dataset) == 0:
        raise ValueError("dataset has 0 clips; nothing to evaluate")
    learner.set_classes(dataset.class_names)
    device, training = learner.logit_scale.device, learner.training
    learner.eval()
    logits, labels = [], []
    for video, label in DataLoader(dataset, batch_size, num_workers=num_workers):
        views = video.shape[1] if video.ndim == 6 else 1
        output = learner(video.flatten(0, 1).to(device) if video.ndim == 6 else video.to(device))
        logits.append(output.view(len(label), views, -1).mean(1).float().cpu())
        labels.append(label)
    learner.train(training)
    return Evaluation(torch.cat(logits).numpy(), torch.cat(labels).numpy(), list(dataset.class_names))


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
    **facts,
) -> list[dict]:
    """Evaluate on the synthetic world's base and novel halves, in and out of context.

    Args:
        learner: with the method's weights loaded.
        config: world seed, clips a set, frames.
        sets: names of the world's sets.
        contexts: ``in`` and the out-of-context backgrounds; the twins share actors and motions clip by clip.
        facts: written into each record (method, run, profile, ...).

    Returns:
        records with set, split, context, value and per-clip correctness.
    """
    unknown = sorted(set(sets) - set(SETS))
    if unknown:
        raise ValueError(f"sets are {unknown}; allowed: {', '.join(SETS)}")
    world = World(config.world_seed)
    records = []
    for name in sets:
        for half in ("base", "novel"):
            for context in contexts:
                clips = make_set(
                    world,
                    name,
                    half=half,
                    context=context,
                    count=config.test_clips,
                    num_frames=config.num_frames,
                    size=learner.image_size,
                )
                records.append(
                    record(
                        evaluate(learner, clips),
                        set=name,
                        split=half,
                        context=context,
                        seed=config.seed,
                        world_seed=config.world_seed,
                        rho=config.rho,
                        weights=learner.weights_id,
                        **facts,
                    )
                )
    return records
