"""How sure one can be of an accuracy or of a difference between two: bootstrap intervals. Torch-free.

Intervals are percentile bootstrap intervals of two levels: training seeds are drawn with replacement, then test
clips. With few seeds such an interval is narrow (the spread over S seeds is too small by sqrt((S-1)/S)), and with one
seed it says nothing about seeds at all: see :meth:`Interval.verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import harmonic_mean


@dataclass(frozen=True)
class Interval:
    """A number in percent or points with its bootstrap interval.

    Attributes:
        value: the number itself, from all seeds and clips.
        low: lower end.
        high: upper end.
        level: coverage aimed at, e.g. 0.95.
        seeds: training seeds behind it.
        clips: test clips per seed (the smallest count where seeds differ).
    """

    value: float
    low: float
    high: float
    level: float
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


def bootstrap_accuracy(
    correct, *, level: float = 0.95, resamples: int = 2000, seed: int = 0, shared_clips: bool = True
) -> Interval:
    """Interval of one method's accuracy.

    Args:
        correct: per-clip correctness, bool: [N] for one seed, or [S, N], or a list of S such arrays.
            Or floats from 0 to 1: the share of backgrounds before which the clip was right.
        level: coverage, between 0 and 1.
        resamples: bootstrap samples.
        seed: of the resampling; the same arguments give the same interval.
        shared_clips: True where all seeds were scored on the same clips (column j is one clip): one draw of
            clips then serves all seeds. False where each seed has its own clips (then lengths may differ).

    Returns:
        :class:`Interval` in percent.

    Raises:
        ValueError: arrays of another type, empty or of unequal length; level or resamples out of range.
    """
    rows = _rows("correct", correct)
    value, (means,) = _resample([rows], level, resamples, seed, shared_clips)
    return _interval(value[0], means, level, rows)


def paired_difference(
    first, second, *, level: float = 0.95, resamples: int = 2000, seed: int = 0, shared_clips: bool = True
) -> Interval:
    """Interval of the accuracy of one method minus another's on the same seeds and clips.

    Clip j of seed s is the same for both, so what is hard for both cancels. Each bootstrap sample draws seeds
    with replacement, then clips.

    Args:
        first: per-clip correctness, as ``correct`` of :func:`bootstrap_accuracy`.
        second: the same shape; entry [s, j] is the same seed and clip as in ``first``. The in-context and the
            background-swapped twin of a clip are such a pair too: the static gap has its interval from here.
        level: as in :func:`bootstrap_accuracy`; so are ``resamples``, ``seed`` and ``shared_clips``.

    Returns:
        :class:`Interval` in points; read it with :meth:`Interval.verdict`.

    Raises:
        ValueError: as there, and where the two do not pair up.
    """
    a, b = _pair(first, second)
    value, means = _resample([a, b], level, resamples, seed, shared_clips)
    return _interval(value[0] - value[1], means[0] - means[1], level, a)


def bootstrap_harmonic_mean(
    first,
    second,
    *,
    paired_clips: bool,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    shared_clips: bool = True,
) -> Interval:
    """Interval of the harmonic mean of two accuracies of the same training seeds.

    Args:
        first: per-clip correctness, as ``correct`` of :func:`bootstrap_accuracy`.
        second: the same; the same seeds in the same order.
        paired_clips: True where clip j is the same in both (in-context and its background-swapped twin);
            False where the clips differ (base and novel classes).
        level: as in :func:`bootstrap_accuracy`; so are ``resamples``, ``seed`` and ``shared_clips``.

    Returns:
        :class:`Interval` in percent; the value is the harmonic mean of the two accuracies over all seeds.

    Raises:
        ValueError: as there, and where the two do not pair up.
    """
    if paired_clips:
        a, b = _pair(first, second)
        value, means = _resample([a, b], level, resamples, seed, shared_clips)
    else:
        a, b = _rows("first", first), _rows("second", second)
        if len(a) != len(b):
            raise ValueError(f"first has {len(a)} seeds, second {len(b)}; allowed: the same seeds in both")
        # The same draws of training seeds for both, but clips of their own from a stream of their own.
        results = [_resample([g], level, resamples, seed, shared_clips, i) for i, g in enumerate((a, b))]
        value, means = [values[0] for values, _ in results], [draws[0] for _, draws in results]
    return _interval(harmonic_mean(value[0], value[1]), harmonic_mean(means[0], means[1]), level, a)


def difference_of_differences(
    first: tuple, second: tuple, *, level: float = 0.95, resamples: int = 2000, seed: int = 0, shared_clips: bool = True
) -> Interval:
    """Interval of how much larger one paired difference is than another that was measured on other clips.

    Args:
        first: (a, b), per-clip correctness of two methods on one test set, as in :func:`paired_difference`.
        second: the same two methods and training seeds on another test set.
        level: as in :func:`bootstrap_accuracy`; so are ``resamples``, ``seed`` and ``shared_clips``.

    Returns:
        :class:`Interval` of (a - b on the first set) - (a - b on the second), in points.

    Raises:
        ValueError: as there, and where seeds or clips do not pair up.
    """
    pairs = [_pair(*first), _pair(*second)]
    if len(pairs[0][0]) != len(pairs[1][0]):
        raise ValueError(f"first has {len(pairs[0][0])} seeds, second {len(pairs[1][0])}; allowed: the same seeds")
    # The same draws of training seeds for both, but clips of their own from a stream of their own.
    results = [_resample(list(pair), level, resamples, seed, shared_clips, i) for i, pair in enumerate(pairs)]
    (one, other), (one_drawn, other_drawn) = (
        [values[0] - values[1] for values, _ in results],
        [drawn[0] - drawn[1] for _, drawn in results],
    )
    return _interval(one - other, one_drawn - other_drawn, level, pairs[0][0])


def _rows(name: str, correct) -> list[np.ndarray]:
    """Per-clip correctness as one array of numbers from 0 to 1 per seed."""
    arrays = [np.asarray(row) for row in correct] if len(correct) else []
    rows = [np.asarray(correct)] if arrays and arrays[0].ndim == 0 else arrays
    if not rows or any(row.ndim != 1 or row.size == 0 for row in rows):
        raise ValueError(f"{name} must hold one or more clips a seed: [N], [S, N] or a list of [N] arrays")
    for index, row in enumerate(rows):
        if not (row.dtype == np.bool_ or row.dtype.kind == "f"):
            raise ValueError(f"{name}[{index}] has type {row.dtype}; allowed: bool, or float from 0 to 1")
        if not ((row >= 0) & (row <= 1)).all():
            raise ValueError(f"{name}[{index}] runs from {row.min()} to {row.max()}; allowed: 0 to 1")
    return [row.astype(float) for row in rows]


def _pair(first, second) -> tuple[list[np.ndarray], list[np.ndarray]]:
    a, b = _rows("first", first), _rows("second", second)
    if [len(row) for row in a] != [len(row) for row in b]:
        raise ValueError(
            f"first has {len(a)} seeds with {[len(row) for row in a]} clips, second {len(b)} seeds with "
            f"{[len(row) for row in b]}: a paired bootstrap needs the same seeds and clips in both"
        )
    return a, b


def _interval(value: float, resampled: np.ndarray, level: float, rows) -> Interval:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), level, len(rows), min(len(row) for row in rows))


def _resample(groups, level, resamples, seed, shared_clips, clip_stream=0) -> tuple[list[float], np.ndarray]:
    """Percentages of each group (a list of rows, one a seed) and their resampled values [groups, resamples].

    All groups see the same draws of seeds and clips. Every seed weighs the same, however many clips it has.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed: between 0 and 1, e.g. 0.95")
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}; allowed: 100 or more")
    lengths = [len(row) for row in groups[0]]
    if shared_clips and len(set(lengths)) > 1:
        raise ValueError(f"shared_clips is True, but the seeds have {lengths} clips; allowed: equal numbers")
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
