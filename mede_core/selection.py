"""Choosing GWA's center and width without looking at the test set, post hoc: the paper lists this as open.

Every epoch's weights are on disk, so a candidate costs an average and one evaluation of whatever criterion the caller
scores it by: accuracy on classes that were left out of the training, the loss of accuracy under shuffled frames, ...
The study compares such criteria with the fixed choice and the oracle (``notebooks/43_study_averages.ipynb``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .gwa import gaussian_weights, published_schedule

MU_RATIOS, SIGMA_RATIOS = (0.25, 0.5, 0.68, 0.85, 1.0), (0.1, 0.2, 0.45, 1.0)  # of the number of epochs


@dataclass(frozen=True)
class Selection:
    """A chosen Gaussian.

    Attributes:
        mu, sigma: in epochs.
        score: of the criterion.
        scores: {(mu, sigma): score} of all candidates.
    """

    mu: float
    sigma: float
    score: float
    scores: Mapping[tuple[float, float], float]


def best_gaussian(scores: Mapping[tuple[float, float], float], num_epochs: int) -> tuple[float, float]:
    """The candidate with the highest score; of equal ones the nearest to the published ratios.

    Args:
        scores: {(mu, sigma) in epochs: score}, higher is better.
        num_epochs: E.

    Returns:
        (mu, sigma).

    Raises:
        ValueError: no candidate, or a score that is not finite.
    """
    if not scores or not all(math.isfinite(score) for score in scores.values()):
        raise ValueError(f"scores is {dict(scores)}; allowed: one or more candidates with finite scores")
    mu, sigma = published_schedule(num_epochs)

    def distance(at: tuple[float, float]) -> float:
        return abs(at[0] - mu) / num_epochs + abs(math.log(at[1] / sigma))

    return max(scores, key=lambda at: (scores[at], -distance(at)))


def select_gwa(
    num_epochs: int,
    score: Callable[[Tensor], float],
    *,
    mu_ratios: Sequence[float] = MU_RATIOS,
    sigma_ratios: Sequence[float] = SIGMA_RATIOS,
) -> Selection:
    """Choose the center and width of GWA by a criterion, without training.

    Args:
        num_epochs: E of the trajectory.
        score: given the epochs' shares (float64 [E], see ``gaussian_weights``), how good that average is by the
            caller's criterion; higher is better. Never the test set's accuracy.
        mu_ratios, sigma_ratios: candidates, as shares of E.

    Returns:
        the choice, with the scores of all candidates.

    Raises:
        ValueError: no candidate, a width of 0, or a score that is not finite.
    """
    candidates = [(mu * num_epochs, sigma * num_epochs) for mu, sigma in itertools.product(mu_ratios, sigma_ratios)]
    scores = {at: float(score(gaussian_weights(num_epochs, *at))) for at in candidates}
    mu, sigma = best_gaussian(scores, num_epochs)
    return Selection(mu, sigma, scores[mu, sigma], scores)
