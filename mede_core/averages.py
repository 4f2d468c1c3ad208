"""Every average of a trajectory, formed after training: GWA, SWA, EMA, one epoch, patched with CLIP; and choosing one.

Torch is loaded where tensors are formed, not at import: a plan lists averages without it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .config import Average, Config

if TYPE_CHECKING:
    from torch import Tensor

MU_RATIOS, SIGMA_RATIOS = (0.25, 0.5, 0.68, 0.85, 1.0), (0.1, 0.2, 0.45, 1.0)  # of the number of epochs


def epoch_shares(average: Average, num_epochs: int) -> Tensor:
    """What each epoch counts in an average: float64 [E + 1], epoch 0 (the learner before training) first; sum 1.

    EMA begins at the first epoch's weights, or with ``with_zero`` at epoch 0's; the decay of 0.9 an epoch is that of
    the first author's earlier public script. A Gaussian with epoch 0 is what a file name of the authors' scripts says.
    """
    import torch

    from .gwa import gaussian_weights

    first, count = (0, num_epochs + 1) if average.with_zero else (1, num_epochs)
    epochs = torch.arange(first, num_epochs + 1)
    if average.rule == "gwa":
        start = 1 if average.with_zero else average.start
        shares = gaussian_weights(count, average.mu + 1 - first, average.sigma, start=start)
    elif average.rule == "swa":
        shares = (epochs >= max(average.start, 1) * (not average.with_zero)).double()
        shares = shares / shares.sum()
    elif average.rule == "ema":
        shares = average.decay ** torch.arange(count - 1, -1, -1, dtype=torch.float64)
        shares[1:] *= 1 - average.decay
    elif average.rule == "last":
        shares = (epochs == num_epochs).double()
    else:  # one epoch
        return (torch.arange(num_epochs + 1) == average.epoch).double()
    return torch.cat([torch.zeros(first, dtype=torch.float64), shares])


def averaged(
    average: Average, epoch_of: Callable[[int], Mapping[str, Tensor]], theta_0: Mapping[str, Tensor], num_epochs: int
) -> dict[str, Tensor]:
    """The tensors of an average; only the epochs that count are read, one at a time."""
    from .gwa import average_trajectory

    shares = epoch_shares(average, num_epochs)
    counted = shares.nonzero().flatten().tolist()
    tensors = average_trajectory((epoch_of(t) if t else theta_0 for t in counted), shares[counted])
    return interpolate(tensors, theta_0, average.patch) if average.patch else tensors


def interpolate(tensors: Mapping[str, Tensor], clip: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """ratio * CLIP (of adapters, the identity) + (1 - ratio) * trained: Open-VCLIP's patching, as in WiSE-FT."""
    return {name: tensor.lerp(clip[name].to(tensor), ratio) for name, tensor in tensors.items()}


def effective_epochs(shares: Sequence[float] | Tensor) -> float:
    """How many epochs an average spreads over: 1 / sum of squared shares; E where all count alike, 1 for one epoch."""
    values = np.asarray(shares, dtype=float)
    return float(1 / ((values / values.sum()) ** 2).sum())


# ------------------------------------------------------------------------------------ what notebooks ask for
RULE_LABELS = {
    "gwa": "GWA", "gwa+0": "GWA, epoch 0 included", "swa": "SWA", "swa+0": "SWA, epoch 0 included",
    "ema": "EMA", "ema+0": "EMA, epoch 0 included", "last": "Last epoch",
}  # fmt: skip


def rules(config: Config) -> list[Average]:
    """GWA, SWA, EMA without and with CLIP's own weights (epoch 0), and the last epoch; see ``RULE_LABELS``."""
    found = []
    for name in RULE_LABELS:
        rule, _, zero = name.partition("+")
        own = {"mu": config.mu, "sigma": config.sigma} if rule == "gwa" else {}
        found.append(Average(rule=rule, name=name, with_zero=bool(zero), **own))
    return found


def grid(
    config: Config, mu_ratios: Sequence[float] = MU_RATIOS, sigma_ratios: Sequence[float] = SIGMA_RATIOS
) -> list[Average]:
    """Gaussians of several centers and widths, given as shares of the number of epochs; named ``grid:MU:SIGMA``."""
    return [
        Average(rule="gwa", name=f"grid:{mu:g}:{sigma:g}", mu=mu * config.epochs, sigma=sigma * config.epochs)
        for sigma in sigma_ratios
        for mu in mu_ratios
    ]


# ------------------------------------------------------------------------------------ choosing mu and sigma
def best_gaussian(scores: Mapping[tuple[float, float], float], num_epochs: int) -> tuple[float, float]:
    """The (mu, sigma) in epochs with the highest score; of equal ones the nearest to the published ratios."""
    from .gwa import published_schedule

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
) -> tuple[float, float]:
    """Choose GWA's center and width (in epochs) by a criterion on data that is not tested on, without training.

    The paper leaves the choice open. Every epoch's weights are on disk, so a candidate costs an average and one
    evaluation; the study compares criteria with the fixed choice and the oracle (notebook 43).

    Args:
        num_epochs: E of the trajectory.
        score: given the epochs' shares (float64 [E], see ``gaussian_weights``), how good that average is; higher is
            better. Never the test set's accuracy.
        mu_ratios, sigma_ratios: candidates, as shares of E.

    Raises:
        ValueError: no candidate, a width of 0, or a score that is not finite.
    """
    from .gwa import gaussian_weights

    candidates = [(mu * num_epochs, sigma * num_epochs) for mu, sigma in itertools.product(mu_ratios, sigma_ratios)]
    scores = {at: float(score(gaussian_weights(num_epochs, *at))) for at in candidates}
    if not scores or not all(map(math.isfinite, scores.values())):
        raise ValueError(f"scores is {scores}; allowed: one or more candidates with finite scores")
    return best_gaussian(scores, num_epochs)
