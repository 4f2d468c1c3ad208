"""Accuracies and their combinations. Torch-free.

Every accuracy is a percentage (0 to 100). Spread over seeds or splits is a sample standard deviation (``ddof=1``).
How sure one can be of an accuracy or a difference: see ``intervals.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


# ------------------------------------------------------------------------------------ accuracy
def topk_correct(logits, labels, k: int = 1) -> np.ndarray:
    """Say for each clip whether its label is among the k classes with the highest logits.

    Args:
        logits: [N, K] similarities; any array-like of finite numbers.
        labels: [N] class indices, 0..K-1.
        k: 1..K.

    Returns:
        [N] bool. A class that ties with the label counts as ahead of it, so that a collapsed model with equal
        logits scores zero and the result does not depend on the order of the classes.

    Raises:
        ValueError: shapes that do not fit, a label or k out of range, logits that are not finite, no clips.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[0] == 0 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be [N, K], labels [N], N >= 1; not {logits.shape} and {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    classes = logits.shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"k is {k}; allowed: 1 to {classes} (the number of classes)")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; allowed: 0 to {classes - 1}")
    if not np.isfinite(logits).all():
        raise ValueError(f"logits of clip {np.argmin(np.isfinite(logits).all(1))} are not finite")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return (logits >= own).sum(1) <= k  # the label itself is one of them


def topk_accuracy(logits, labels, k: int = 1) -> float:
    """Percentage of clips whose label is among the k highest logits; arguments as in :func:`topk_correct`."""
    return 100.0 * float(topk_correct(logits, labels, k).mean())


def harmonic_mean(first, second):
    """Harmonic mean 2ab / (a + b), elementwise: how base and novel, or in and out of context, are joined.

    Args:
        first: an accuracy >= 0 or an array of them.
        second: the same.

    Returns:
        A float, or an array where an argument is one. Zero where either is zero (the limit).

    Raises:
        ValueError: a value that is negative or not finite.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    for name, values in (("first", a), ("second", b)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"harmonic_mean: {name} is {values}; allowed: finite numbers >= 0")
    # 2 / (1/a + 1/b) by the ratio of the two, which neither overflows nor underflows as a * b would
    low, high = np.minimum(a, b), np.maximum(a, b)
    ratio = np.divide(low, high, out=np.zeros(np.broadcast(a, b).shape), where=high > 0)
    result = 2 * low / (1 + ratio)
    return float(result) if result.ndim == 0 else result


class MeanStd(NamedTuple):
    """A mean over ``n`` runs with its standard deviation, NaN where ``n <= ddof`` (one seed: no spread)."""

    mean: float
    std: float
    n: int
    ddof: int


def mean_std(values: Sequence[float], ddof: int = 1) -> MeanStd:
    """Mean and standard deviation over seeds or splits.

    Args:
        values: one number per seed or split.
        ddof: 1 (default) is the sample standard deviation; 0 that of the values themselves.

    Returns:
        :class:`MeanStd`. The std of a single value with ``ddof=1`` is NaN, never 0: one seed shows no spread,
        and tables print it as "63.2 (1 seed)".

    Raises:
        ValueError: no values, a value that is not finite, a ddof other than 0 or 1.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"mean_std: values must be a list of one or more finite numbers, not {values}")
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof}; allowed: 0 or 1")
    std = float(values.std(ddof=ddof)) if values.size > ddof else math.nan
    return MeanStd(float(values.mean()), std, int(values.size), ddof)


def static_gap(in_context, out_of_context):
    """In-context minus out-of-context accuracy, in points: what is lost without the background's help."""
    return _percent("in_context", in_context) - _percent("out_of_context", out_of_context)


def order_gap(ordered, shuffled):
    """Accuracy on clips minus that on the same clips with frames shuffled, in points; 0: order unused."""
    return _percent("ordered", ordered) - _percent("shuffled", shuffled)


def contrasted_accuracy(correct_scuba, correct_scufo) -> float:
    """Share of videos that are right with motion and wrong without it: right on SCUBA and wrong on its SCUFO twin.

    Args:
        correct_scuba: [N] bool, per-video correctness on out-of-context clips.
        correct_scufo: [N] bool, on the same clips in the same order with one frame repeated.

    Returns:
        percent, 0 to 100; at most the SCUBA accuracy.

    Raises:
        ValueError: another type or shape, no videos, or lists that do not pair up.

    Source: SCUBA's contrasted accuracy (StillMix).
    """
    moving, still = np.asarray(correct_scuba), np.asarray(correct_scufo)
    for name, correct in (("correct_scuba", moving), ("correct_scufo", still)):
        if correct.dtype != np.bool_ or correct.ndim != 1 or correct.size == 0:
            raise ValueError(f"{name} is {correct.dtype} {correct.shape}; allowed: bool [N], N >= 1")
    if len(moving) != len(still):
        raise ValueError(f"correct_scuba has {len(moving)} videos, correct_scufo {len(still)}; they must be the same")
    return 100.0 * float((moving & ~still).mean())


def _percent(name: str, value):
    array = np.asarray(value, float)
    if not (np.isfinite(array) & (array >= 0) & (array <= 100)).all():
        raise ValueError(f"{name} is {value}; allowed: 0 to 100 (percent)")
    return float(array) if array.ndim == 0 else array
