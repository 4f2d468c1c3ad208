"""How sure one can be: over seeds a 95 % t-interval, with one seed a percentile bootstrap over its clips. Torch-free.
What was right: bool or share of backgrounds, [N] for one seed, or [S, N], or a list of S arrays."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from .metrics import harmonic_mean, mean_std
from .write import format_difference, format_interval

LEVEL = 0.95
RESAMPLES = 2000
VERDICT_FROM = 4  # seeds


@dataclass(frozen=True)
class Interval:
    """A number in percent or points, its interval, the training seeds behind it, and the (fewest) clips of a seed."""

    value: float
    low: float
    high: float
    seeds: int
    clips: int
    std: float = math.nan  # over seeds, ddof=1; NaN for one

    def __str__(self) -> str:
        return format_interval(self.value, self.low, self.high)

    def signed(self) -> str:
        return format_difference(self.value, self.low, self.high)

    def verdict(self) -> str:
        """Read a difference (first minus second): higher | lower | undecided, "hint" or "this seed"."""
        if self.seeds < VERDICT_FROM:
            return "this seed" if self.seeds == 1 else "hint"
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "undecided"


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of per-seed numbers and the ends of its t-interval; NaN ends with one seed."""
    values = np.asarray(values, float)
    count, mean = len(values), values.mean()
    half = stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return float(mean), float(mean - half), float(mean + half)


def accuracy_interval(correct) -> Interval:
    return _interval([[_rows(correct)]], lambda percent: percent, limits=(0, 100))


def paired_difference(first, second) -> Interval:
    """One accuracy minus another on the same seeds and clips (or on their twins), in points."""
    return _interval([_pair(first, second)], lambda a, b: a - b)


def harmonic_interval(ours: Sequence, theirs: Sequence = (), *, paired_clips: bool) -> Interval:
    """A pair's harmonic mean, or its gain over that of ``theirs``; ``paired_clips``: clip j is the same in a pair."""
    blocks = [_pair(*both) for both in zip(ours, theirs)] if theirs else [[_rows(one)] for one in ours]
    blocks = [[group for block in blocks for group in block]] if paired_clips else blocks
    if theirs:
        return _interval(blocks, lambda a, b, c, d: harmonic_mean(a, c) - harmonic_mean(b, d))
    return _interval(blocks, harmonic_mean, limits=(0, 100))


def _rows(correct) -> list[np.ndarray]:
    return [np.asarray(row, float) for row in (correct if np.ndim(correct[0]) else [correct])]


def _pair(first, second) -> list[list[np.ndarray]]:
    a, b = _rows(first), _rows(second)
    if [len(row) for row in a] != [len(row) for row in b]:
        raise ValueError(
            f"first has {len(a)} seeds with {[len(row) for row in a]} clips, second {len(b)} seeds with "
            f"{[len(row) for row in b]}: a paired difference needs the same seeds and clips in both"
        )
    return [a, b]


def _interval(blocks: Sequence[Sequence], formula: Callable, limits=(-np.inf, np.inf)) -> Interval:
    """Of a formula of percentages: blocks of groups that were measured on the same clips, a group one row a seed."""
    groups = [group for block in blocks for group in block]
    if len({len(group) for group in groups}) > 1:
        raise ValueError(f"the groups have {[len(group) for group in groups]} seeds; allowed: the same seeds in all")
    numbers = [formula(*(100 * row.mean() for row in rows)) for rows in zip(*groups)]
    value, low, high = t_interval(numbers)
    if len(numbers) == 1:
        drawn = []
        for stream, block in enumerate(blocks):  # blocks draw clips of their own
            rng = np.random.default_rng([0, 1 + stream])
            drawn += [*(100 * _resampled_means(np.stack([rows[0] for rows in block]), rng))]
        low, high = np.quantile(formula(*drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = (float(np.clip(end, *limits)) for end in (low, high))
    return Interval(value, low, high, len(numbers), min(len(row) for row in groups[0]), mean_std(numbers)[1])


def _resampled_means(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row means [rows, resamples] of a table [rows, clips] whose columns are drawn with replacement."""
    clips = table.shape[1]  # how often each distinct column comes up is multinomial: the same as clip by clip, faster
    columns, counts = np.unique(table, axis=1, return_counts=True)
    return (rng.multinomial(clips, counts / clips, size=RESAMPLES) @ columns.T).T / clips
