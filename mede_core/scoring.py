"""Zero-shot evaluation: the similarity of clips and class texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from .distributed import gather_rows, rank, world_size
from .learner import VideoLearner

FILLED = ("cuda",)  # where the last batch is filled up: for one of another size the encoder would be compiled anew


def top1_correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N] bool: is the label's logit the highest? A tie counts against it: a collapsed model scores zero."""
    if not np.isfinite(logits).all():
        raise ValueError(f"logits of clip {np.argmin(np.isfinite(logits).all(1))} are not finite")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return (logits >= own).sum(1) == 1  # the label's own


@dataclass(frozen=True)
class Evaluation:
    """Logits [N, K] float32 of a dataset's clips (mean over views), labels [N] int64, and the K class texts."""

    logits: np.ndarray
    labels: np.ndarray
    class_names: list[str]

    @cached_property
    def correct(self) -> np.ndarray:
        """[N] bool, top-1; a tie counts against the label."""
        return top1_correct(self.logits, self.labels)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * float(self.correct.mean())


@torch.no_grad()  # not inference_mode: the class-text features made in here are used in training later
def evaluate(
    learner: VideoLearner, dataset: Dataset, *, batch_size: int = 64, num_workers: int = 0, precision: str = "float32",
    texts: Sequence[Sequence[str]] | None = None,
) -> Evaluation:  # fmt: skip
    """Score every clip against the dataset's classes; under torchrun each process scores its share.

    Args:
        learner: its classes are set to the dataset's; its mode is restored.
        dataset: items (video [T, 3, H, W] or [V, T, 3, H, W], label), with ``class_names``.
        batch_size: clips at once; it does not change a result beyond rounding.
        num_workers: of the data loader.
        precision: ``float32`` or ``bf16`` (autocast of the image encoder).
        texts: prompts of each class; default: its bare name.

    Returns:
        logits (averaged over frames, then views: protocols of Open-VCLIP) and labels.

    Raises:
        ValueError: the dataset is empty, or logits are not finite.
    """
    if len(dataset) == 0:
        raise ValueError("dataset has 0 clips; nothing to evaluate")
    learner.set_classes(dataset.class_names, texts=texts)
    device, training = learner.logit_scale.device, learner.training
    learner.eval()
    logits, labels = [], []
    # No padding to equal shares, as DistributedSampler does it: a clip that counts twice would change the accuracy.
    share = Subset(dataset, range(rank(), len(dataset), world_size())) if world_size() > 1 else dataset
    for video, label in DataLoader(share, batch_size, num_workers=num_workers, pin_memory=device.type == "cuda"):
        views = video.shape[1] if video.ndim == 6 else 1
        clips = video.flatten(0, video.ndim - 5).to(device, non_blocking=True)
        if device.type in FILLED:
            clips = F.pad(clips, (0,) * 9 + (batch_size * views - len(clips),))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = learner(clips)[: len(label) * views]
        logits.append(output.view(len(label), views, -1).mean(1).float().cpu())
        labels.append(label)
    learner.train(training)
    whole = gather_rows(torch.cat(logits), len(dataset)), gather_rows(torch.cat(labels), len(dataset))
    return Evaluation(whole[0].numpy(), whole[1].numpy(), list(dataset.class_names))


class Reordered(Dataset):
    """A dataset whose clips have their frames reordered: ``shuffled`` by the seed, or ``single``: the middle one."""

    def __init__(self, dataset: Dataset, order: str, seed: int = 0):
        self.dataset, self.order, self.seed, self.class_names = dataset, order, seed, dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        video, label = self.dataset[index]
        count = len(video)
        if self.order == "shuffled":
            return video[list(np.random.default_rng([self.seed, index]).permutation(count))], label
        return video[[count // 2] * count], label
