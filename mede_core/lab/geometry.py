"""A trajectory of checkpoints as points in weight space: how far it moved, in which plane it lies, what averages do."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """All tensors as one float64 vector, in the order of their names."""
    return torch.cat([tensors[name].detach().double().flatten() for name in sorted(tensors)])


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in {*one, *other})


def movement(checkpoints: Iterable[Mapping[str, Tensor]]) -> list[dict[str, float]]:
    """How far the weights of epochs 1..E moved since the epoch before (NaN for the first) and from epoch 1, in L2."""
    points = torch.stack([flatten(checkpoint) for checkpoint in checkpoints])
    moved = [float("nan"), *(points[1:] - points[:-1]).norm(dim=1).tolist()]
    far = enumerate((points - points[0]).norm(dim=1).tolist())
    return [{"epoch": at + 1, "moved": moved[at], "from_first": distance} for at, distance in far]


def plane(checkpoints: Iterable[Mapping[str, Tensor]]) -> tuple[np.ndarray, float]:
    """The trajectory of E >= 2 epochs in the plane that shows most of it: its first two principal components.

    Returns [E, 2] coordinates in weight units around their mean, and the share of the spread that the plane shows,
    0..1. An average's place is the same average of the coordinates, since the projection is linear.
    """
    stacked = torch.stack([flatten(checkpoint) for checkpoint in checkpoints])
    left, scale, _ = torch.linalg.svd(stacked - stacked.mean(0), full_matrices=False)
    coordinates = (left * scale)[:, :2].numpy()
    if len(stacked) == 2:
        coordinates[:, 1] = 0.0
    signs = np.where(coordinates[-1] < coordinates[0], -1.0, 1.0)  # an SVD leaves signs open: run left to right, up
    spread = float(scale.square().sum())
    return coordinates * signs, float(scale[:2].square().sum()) / spread if spread else 1.0
