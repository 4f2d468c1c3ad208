"""Whether maps find what a learner uses: deletion and insertion against a random order, and against other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..attention import MAPS, faithfulness, shuffled_weights
from ..learner import VideoLearner


def compare_maps(
    learner: VideoLearner,
    video: Tensor,
    labels: Tensor,
    maps: Mapping[str, Callable[[VideoLearner, Tensor, Tensor], Tensor]] = MAPS,
    *,
    orders: int = 4,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """What each map tells of clips [N, T, 3, H, W] and their classes [N]: the gain over random orders, in points of
    probability, and the rank correlation with the map of a learner with shuffled weights."""
    generator, found = torch.Generator().manual_seed(seed), {}
    noise = [torch.rand(*video.shape[:2], 8, 8, generator=generator).to(learner.logit_scale) for _ in range(orders)]
    chance = [faithfulness(learner, video, labels, one) for one in noise]
    chance = {key: torch.stack([one[key].mean(1) for one in chance]).mean(0) for key in chance[0]}
    other = shuffled_weights(learner, seed)
    for name, make in maps.items():
        own, elsewhere = make(learner, video, labels), make(other, video, labels)
        curves = faithfulness(learner, video, labels, own)
        found[name] = {
            "deletion": 100 * (chance["deletion"] - curves["deletion"].mean(1)).cpu().numpy(),
            "insertion": 100 * (curves["insertion"].mean(1) - chance["insertion"]).cpu().numpy(),
            "shuffled": _rank_correlation(own, elsewhere).cpu().numpy(),
        }
    return found


def _rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """[N] Spearman's, over all places of a clip's map."""
    ranks = [maps.flatten(1).argsort(1).argsort(1).double() for maps in (one, other)]
    a, b = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
