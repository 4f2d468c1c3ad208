"""How sure one can be of an accuracy or of a difference between two: bootstrap intervals. Torch-free.

Intervals are 95 % percentile bootstrap intervals of two levels: training seeds are drawn with replacement, then test
clips. With few seeds such an interval is narrow (the spread over S seeds is too small by sqrt((S-1)/S)), and with one
seed it says nothing about seeds at all: see :meth:`Interval.verdict`.

What was right comes as bool [N] for one seed, or [S, N], or a list of S such arrays; or as floats from 0 to 1, the
share of backgrounds before which a clip was right. ``shared_clips``: all seeds were scored on the same clips (column j
is one clip), so one draw of clips serves them all; otherwise each seed has its own. ``seed``: of the resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import harmonic_mean

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number in percent or points, its interval, the training seeds behind it, and the (fewest) clips of a seed."""

    value: float
    low: float
    high: float
    seeds: int
    clips: int

    def verdict(self) -> str:
        """Read a difference (first minus second): higher | lower | undecided | undecided across seeds.

        One seed alone is always "undecided across seeds": its interval only covers the choice of clips.
        """
        if self.seeds < 2:
            return "undecided across seeds"
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "undecided"


def bootstrap_accuracy(correct, *, resamples: int = 2000, seed: int = 0, shared_clips: bool = True) -> Interval:
    """One method's accuracy in percent."""
    rows = _rows(correct)
    value, (means,) = _resample([rows], resamples, seed, shared_clips)
    return _interval(value[0], means, rows)


def paired_difference(first, second, *, resamples: int = 2000, seed: int = 0, shared_clips: bool = True) -> Interval:
    """The accuracy of one method minus another's on the same seeds and clips, in points.

    Entry [s, j] is the same seed and clip in both, so what is hard for both cancels. The in-context and the
    background-swapped twin of a clip are such a pair too: the static gap has its interval from here.
    """
    pair = _pair(first, second)
    value, means = _resample(pair, resamples, seed, shared_clips)
    return _interval(value[0] - value[1], means[0] - means[1], pair[0])


def bootstrap_harmonic_mean(
    first, second, *, paired_clips: bool, resamples: int = 2000, seed: int = 0, shared_clips: bool = True
) -> Interval:
    """The harmonic mean of two accuracies of the same training seeds, in percent.

    ``paired_clips``: clip j is the same in both (in context and background-swapped), not other clips (base and novel).
    """
    if paired_clips:
        a, b = _pair(first, second)
        value, means = _resample([a, b], resamples, seed, shared_clips)
    else:
        a, b = _rows(first), _rows(second)
        _same_seeds(a, b)
        # The same draws of training seeds for both, but clips of their own from a stream of their own.
        results = [_resample([group], resamples, seed, shared_clips, i) for i, group in enumerate((a, b))]
        value, means = [values[0] for values, _ in results], [draws[0] for _, draws in results]
    return _interval(harmonic_mean(value[0], value[1]), harmonic_mean(means[0], means[1]), a)


def difference_of_differences(
    first: tuple, second: tuple, *, resamples: int = 2000, seed: int = 0, shared_clips: bool = True
) -> Interval:
    """How much larger a paired difference is on one test set than on another, in points: two (a, b) as there, of the
    same methods and training seeds."""
    pairs = [_pair(*first), _pair(*second)]
    _same_seeds(pairs[0][0], pairs[1][0])
    # The same draws of training seeds for both, but clips of their own from a stream of their own.
    results = [_resample(pair, resamples, seed, shared_clips, i) for i, pair in enumerate(pairs)]
    value, drawn = ([numbers[0] - numbers[1] for numbers in both] for both in zip(*results, strict=True))
    return _interval(value[0] - value[1], drawn[0] - drawn[1], pairs[0][0])


def _rows(correct) -> list[np.ndarray]:
    """What was right as one array of numbers from 0 to 1 per seed."""
    arrays = [np.asarray(row) for row in correct]
    return [row.astype(float) for row in ([np.asarray(correct)] if arrays[0].ndim == 0 else arrays)]


def _pair(first, second) -> list[list[np.ndarray]]:
    a, b = _rows(first), _rows(second)
    if [len(row) for row in a] != [len(row) for row in b]:
        raise ValueError(
            f"first has {len(a)} seeds with {[len(row) for row in a]} clips, second {len(b)} seeds with "
            f"{[len(row) for row in b]}: a paired bootstrap needs the same seeds and clips in both"
        )
    return [a, b]


def _same_seeds(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    if len(first) != len(second):
        raise ValueError(f"first has {len(first)} seeds, second {len(second)}; allowed: the same seeds in both")


def _interval(value: float, resampled: np.ndarray, rows: list[np.ndarray]) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high), len(rows), min(len(row) for row in rows))


def _resample(groups, resamples, seed, shared_clips, clip_stream=0) -> tuple[list[float], np.ndarray]:
    """Percentages of each group (a list of rows, one a seed) and their resampled values [groups, resamples].

    All groups see the same draws of seeds and clips. Every seed weighs the same, however many clips it has.
    """
    lengths = [len(row) for row in groups[0]]
    values = [100 * sum(row.sum() / len(row) for row in rows) / len(rows) for rows in groups]
    drawn_seeds = np.random.default_rng(seed).integers(len(lengths), size=(resamples, len(lengths)))
    rng = np.random.default_rng([seed, 1 + clip_stream])
    if shared_clips:  # a crossed design: one draw of clips for all the drawn seeds
        times = (drawn_seeds[:, :, None] == np.arange(len(lengths))).mean(1)  # [R, S] shares
        drawn = _resampled_means(np.concatenate(groups), resamples, rng).reshape(len(groups), len(lengths), resamples)
        return values, 100 * np.einsum("gsr,rs->gr", drawn, times)
    per_slot = np.empty((len(groups), drawn_seeds.size))
    for index in range(len(lengths)):  # each drawn seed draws clips of its own
        slots = np.flatnonzero(drawn_seeds == index)
        per_slot[:, slots] = _resampled_means(np.stack([rows[index] for rows in groups]), len(slots), rng)
    return values, 100 * per_slot.reshape(len(groups), resamples, len(lengths)).mean(2)


def _resampled_means(table: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Row means [rows, resamples] of a table [rows, clips] whose columns are drawn with replacement.

    Only how often each distinct column comes up matters, and that count is multinomial: the same distribution as
    drawing clip by clip, at a small part of the work, since a column of rights and wrongs has few distinct values.
    """
    clips = table.shape[1]
    columns, counts = np.unique(table, axis=1, return_counts=True)
    return (rng.multinomial(clips, counts / clips, size=resamples) @ columns.T).T / clips
