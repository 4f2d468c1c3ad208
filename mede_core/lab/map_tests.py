"""Whether maps find what a learner uses: deletion and insertion against a random order, and against other weights."""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import MAPS, log_probability
from ..learner import VideoLearner


def compare_maps(
    learner: VideoLearner,
    video: Tensor,
    labels: Tensor,
    maps: Mapping[str, Callable[[VideoLearner, Tensor, Tensor], Tensor]] = MAPS,
    *,
    orders: int = 4,
) -> dict[str, dict[str, np.ndarray]]:
    """What each map tells of clips [N, T, 3, H, W] and their classes [N]: the gain over random orders, in points of
    probability, and the rank correlation with the map of a learner with shuffled weights.

    ``curves``: the mean probability, in percent, while places are covered (deletion) or shown, and in random order.
    """
    generator, found = torch.Generator().manual_seed(0), {}
    noise = [torch.rand(*video.shape[:2], 8, 8, generator=generator).to(learner.logit_scale) for _ in range(orders)]
    chance = [faithfulness(learner, video, labels, one) for one in noise]
    chance = {key: 100 * torch.stack([one[key] for one in chance]).mean(0) for key in chance[0]}
    other = shuffled_weights(learner)
    for name, make in maps.items():
        own, elsewhere = make(learner, video, labels), make(other, video, labels)
        curves = {key: 100 * curve for key, curve in faithfulness(learner, video, labels, own).items()}
        found[name] = {
            "deletion": (chance["deletion"] - curves["deletion"]).mean(1).cpu().numpy(),
            "insertion": (curves["insertion"] - chance["insertion"]).mean(1).cpu().numpy(),
            "shuffled": _rank_correlation(own, elsewhere).cpu().numpy(),
            "curves": {key: (curves[key].mean(0).cpu().numpy(), chance[key].mean(0).cpu().numpy()) for key in curves},
        }
    return found


def _rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """[N] Spearman's, over all places of a clip's map."""
    ranks = [maps.flatten(1).argsort(1).argsort(1).double() for maps in (one, other)]
    a, b = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


@torch.no_grad()
def faithfulness(
    learner: VideoLearner, video: Tensor, labels: Tensor, maps: Tensor, *, steps: int = 16
) -> dict[str, Tensor]:
    """Probability [B, steps + 1] of the class while a map's highest cells are covered (deletion), or shown."""
    frames, rank = learner.normalize(video.to(learner.logit_scale.device)), places(maps, video.shape[-1])
    curves: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    for step in range(steps + 1):
        first = rank < step / steps
        for name, covered in (("deletion", first), ("insertion", ~first)):
            curves[name].append(log_probability(learner(torch.where(covered, 0.0, frames)), labels).exp())
    return {name: torch.stack(points, 1) for name, points in curves.items()}


def places(maps: Tensor, size: int, cell: int = 4) -> Tensor:
    """[B, T, 1, size, size] the share of a clip's square cells that a map [B, T, h, w] ranks above that of a pixel."""
    side = size // cell
    cells = F.interpolate(maps.float(), size=(side, side), mode="bilinear", align_corners=False)
    rank = cells.flatten(1).argsort(1, descending=True).argsort(1) / cells[0].numel()
    return rank.view_as(cells).unsqueeze(2).repeat_interleave(cell, -1).repeat_interleave(cell, -2)


@torch.no_grad()
def shuffled_weights(learner: VideoLearner, seed: int = 0) -> VideoLearner:
    """A copy whose visual weights are shuffled within each tensor: a map that explains a learner changes with it."""
    generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(learner)
    for parameter in other.visual.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
