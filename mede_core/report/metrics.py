"""Accuracies and their combinations, in percent; how sure one can be of them: ``intervals.py``. Torch-free."""

import math
from collections.abc import Sequence

import numpy as np


def harmonic_mean(first, second):
    """Harmonic mean 2ab / (a + b), elementwise: how base and novel, or in and out of context, are joined.

    Zero where either is zero (the limit). A ValueError names a value that is negative or not finite.
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


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds or splits, and sample standard deviation (ddof=1): of one value NaN, never 0."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan


def pack_correct(correct: np.ndarray) -> str:
    """Per-clip correctness [N] bool as hex text, eight clips to two characters, the first clip in the highest bit."""
    return np.packbits(correct).tobytes().hex()


def unpack_correct(text: str, n: int) -> np.ndarray:
    """The [n] bool that :func:`pack_correct` wrote."""
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"correct has {len(text)} hex characters; {n} clips need {2 * -(-n // 8)}")
    return np.unpackbits(packed).astype(bool)[:n]
