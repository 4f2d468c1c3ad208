"""GWA against other averages of one trajectory, with and without CLIP's own weights, post hoc: nothing is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from .checkpoints import trajectory
from .config import Config
from .files import progress
from .gwa import average_trajectory, gaussian_weights
from .learner import VideoLearner
from .report.intervals import Interval, paired_difference
from .report.metrics import harmonic_mean
from .report.records import unpack_correct
from .report.write import MISSING, format_signed
from .trajectory import effective_epochs, epoch_shares, fresh_learner

LABELS = {"gwa": "GWA", "swa": "SWA", "ema": "EMA", "last": "Last epoch"}


@dataclass(frozen=True)
class Average:
    """What each epoch counts in an average.

    Attributes:
        name: its name in records.
        label: what a reader sees.
        shares: of epochs 0 (CLIP's own weights) to E; they sum to 1.
        mu, sigma: of a Gaussian, in epochs; 0 for the others.
    """

    name: str
    label: str
    shares: tuple[float, ...]
    mu: float = 0.0
    sigma: float = 0.0


def gaussian_from_zero(num_epochs: int, mu: float, sigma: float) -> Tensor:
    """The Gaussian's shares where the average begins at epoch 0, as a file name of the authors' scripts says.

    Args:
        num_epochs: E; mu and sigma: in epochs.

    Returns:
        float64 tensor [E + 1], epoch 0 first.
    """
    return gaussian_weights(num_epochs + 1, mu + 1, sigma)  # epochs 0..E counted from 1


def rules(config: Config) -> list[Average]:
    """GWA, SWA, EMA without and with CLIP's own weights (epoch 0), and the last epoch.

    Args:
        config: its epochs, and center and width of GWA.
    """
    count, schedule = config.epochs, {"mu": config.mu, "sigma": config.sigma}
    found = []
    for rule in ("gwa", "swa", "ema", "last"):
        own = schedule if rule == "gwa" else {}
        shares = (0.0, *epoch_shares(rule, count, **schedule).tolist())
        found.append(Average(rule, LABELS[rule], shares, **own))
        if rule != "last":
            zero = gaussian_from_zero(count, **schedule) if rule == "gwa" else epoch_shares(rule, count + 1)
            label = f"{LABELS[rule]}, epoch 0 included"
            found.append(Average(f"{rule}+0", label, tuple(zero.tolist()), **own))
    return found


def grid(config: Config, mu_ratios: Sequence[float], sigma_ratios: Sequence[float]) -> list[Average]:
    """Gaussians of several centers and widths, given as shares of the number of epochs."""
    found = []
    for sigma in sigma_ratios:
        for mu in mu_ratios:
            at = {"mu": mu * config.epochs, "sigma": sigma * config.epochs}
            shares = (0.0, *gaussian_weights(config.epochs, **at).tolist())
            found.append(Average(f"grid:{mu:g}:{sigma:g}", f"GWA {mu:g}, {sigma:g}", shares, **at))
    return found


def schedule_table(num_epochs: int = 22, mu: float = 15.0, sigma: float = 10.0) -> pd.DataFrame:
    """A Gaussian read in the three ways that the paper and the authors' scripts leave open, in numbers.

    Args:
        num_epochs: E; mu and sigma in epochs. Defaults: the values in the authors' earlier public scripts.

    Returns:
        Text: from which epoch the average begins, effective number of epochs, the lightest and the heaviest epoch's
        share, and what CLIP's own weights (epoch 0) count.
    """
    readings = {
        f"epochs 1 to {num_epochs} (the paper: CLIP's weights excluded)": gaussian_weights(num_epochs, mu, sigma),
        f"epochs 2 to {num_epochs} (default of the authors' script)": gaussian_weights(num_epochs, mu, sigma, start=2),
        f"epochs 0 to {num_epochs} (their file name gwa_0_{num_epochs})": gaussian_from_zero(num_epochs, mu, sigma),
    }
    rows = []
    for name, shares in readings.items():
        used = shares[shares > 0]
        zero = shares[0].item() if len(shares) > num_epochs else 0.0
        rows.append({
            "Average over": name, "Epochs": len(used), "Effective epochs": f"{effective_epochs(shares):.1f}",
            "Lightest epoch": f"{100 * used.min().item():.1f} %", "Heaviest epoch": f"{100 * used.max().item():.1f} %",
            "Equal shares": f"{100 / len(used):.1f} %", "Epoch 0 counts": f"{100 * zero:.1f} %",
        })  # fmt: skip
    return pd.DataFrame(rows)


def score(
    run_dir: str | os.PathLike,
    config: Config,
    averages: Sequence[Average],
    test: Callable[[VideoLearner], Sequence[Mapping]],
    device: str = "cpu",
) -> list[dict]:
    """Form each average from the epochs on disk and test it.

    Args:
        run_dir: a finished run.
        config: its configuration, see ``trajectory.run_config``.
        averages: what to test.
        test: gives result records for a learner.
        device: where to test.

    Returns:
        the records, each with ``average`` (name), ``mu`` and ``sigma``.

    Raises:
        ValueError: the run was trained on other CLIP weights than those at hand.
    """
    learner = fresh_learner(run_dir, config, device)
    start = {name: tensor.detach().cpu().clone() for name, tensor in learner.trainable_state().items()}
    records = []
    for average in progress(averages, "scoring averages", len(averages)):
        learner.load_trainable(average_trajectory(_from_zero(start, run_dir, config.epochs), average.shares))
        facts = {"average": average.name, "mu": average.mu, "sigma": average.sigma}
        records += [{**record, **facts} for record in test(learner)]
    return records


def _from_zero(start: Mapping[str, Tensor], run_dir: str | os.PathLike, epochs: int) -> Iterator[Mapping[str, Tensor]]:
    yield start
    yield from trajectory(run_dir, epochs)


# ------------------------------------------------------------------------------------ reading the records
def clip_scores(records: Sequence[Mapping], average: str) -> dict[str, np.ndarray]:
    """Each test clip's score under an average, in context and outside.

    Args:
        records: of :func:`score`; ``context`` "in", and any others, which are out of context.
        average: its name.

    Returns:
        {"in": [N], "out": [M]} from 0 to 1; a context without records is missing. Out of context it is the mean over
        backgrounds clip by clip; where their numbers of clips differ, all clips one after the other.

    Raises:
        ValueError: no record of that average.
    """
    rows = sorted((r for r in records if r["average"] == average), key=lambda r: r["context"])
    if not rows:
        raise ValueError(f"no record of the average {average!r}")
    found = {"in": [], "out": []}
    for row in rows:
        bits = unpack_correct(row["correct"], row["n"]).astype(float)
        found["in" if row["context"] == "in" else "out"].append(bits)
    joined = {
        where: np.mean(parts, axis=0) if len({len(part) for part in parts}) == 1 else np.concatenate(parts)
        for where, parts in found.items()
        if parts
    }
    return joined


def gain(records: Sequence[Mapping], first: str, second: str) -> dict[str, Interval]:
    """What one average gains over another, in points, in context and outside, with paired intervals over clips."""
    a, b = clip_scores(records, first), clip_scores(records, second)
    return {where: paired_difference(a[where], b[where]) for where in a if where in b}


def rules_table(records: Sequence[Mapping], averages: Sequence[Average], reference: str = "last") -> pd.DataFrame:
    """The averages side by side as a reader sees them.

    Args:
        records: of :func:`score`.
        averages: those to list.
        reference: the average that gains are measured against.

    Returns:
        Text: Average, what CLIP's own weights (epoch 0) count, effective number of epochs, accuracy in and out of
        context, their harmonic mean, and the gains over the reference with 95 % intervals.
    """
    rows = []
    for average in averages:
        numbers = {where: 100 * bits.mean() for where, bits in clip_scores(records, average.name).items()}
        row = {
            "Average": average.label, "Epoch 0 counts": f"{100 * average.shares[0]:.1f} %",
            "Effective epochs": f"{effective_epochs(average.shares):.1f}",
        }  # fmt: skip
        for where, title in (("in", "In context"), ("out", "Out of context")):
            row[title] = f"{numbers[where]:.1f}" if where in numbers else MISSING
        row["HM"] = f"{harmonic_mean(numbers['in'], numbers['out']):.1f}" if len(numbers) == 2 else MISSING
        gains = gain(records, average.name, reference) if average.name != reference else {}
        for where, title in (("in", "Gain in context"), ("out", "Gain out of context")):
            row[title] = MISSING
            if where in gains:
                one = gains[where]
                ends = f"{format_signed(one.low)} to {format_signed(one.high)}"
                row[title] = f"{format_signed(one.value)} [{ends}]"
        rows.append(row)
    return pd.DataFrame(rows)


def grid_values(records: Sequence[Mapping], where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid of Gaussians as ``figures.gwa_heatmap`` takes it.

    Args:
        records: of :func:`score`.
        where: "in" or "out".

    Returns:
        (mu [M], sigma [S], percent [S, M]).

    Raises:
        ValueError: no grid was scored, or not all of it.
    """
    names = {r["average"]: (r["mu"], r["sigma"]) for r in records if r["average"].startswith("grid:")}
    mus, sigmas = (sorted({at[i] for at in names.values()}) for i in (0, 1))
    if not names or len(names) != len(mus) * len(sigmas):
        raise ValueError(f"{len(names)} Gaussians were scored; allowed: a whole grid of centers and widths")
    values = np.full((len(sigmas), len(mus)), np.nan)
    for name, (mu, sigma) in names.items():
        values[sigmas.index(sigma), mus.index(mu)] = 100 * clip_scores(records, name)[where].mean()
    return np.array(mus), np.array(sigmas), values


def grid_facts(records: Sequence[Mapping], averages: Sequence[Average], where: str) -> dict[str, float]:
    """Accuracy of the named rules, for the line above a heat map: {label: percent}, epoch 0 left out."""
    return {a.label: 100 * clip_scores(records, a.name)[where].mean() for a in averages if not a.shares[0]}
