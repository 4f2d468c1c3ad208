"""Tables of a study, built from result records: accuracies with intervals, gaps, and verdicts. Torch-free.

Every function here reads records of the store (``results.py``) that carry per-clip bits, and returns a long
frame, one row a number, which plots and ``layout.py`` both take. Nothing is measured here. A number that is a
mean over backgrounds is formed clip by clip, so that its interval knows which twins belong together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from .intervals import Interval, bootstrap_accuracy, bootstrap_harmonic_mean, paired_difference
from .metrics import harmonic_mean, mean_std, static_gap
from .paper import PAPER_ROWS
from .records import unpack_correct

OUT_OF_CONTEXT = ("scene", "noise", "stripes")
SPLITS = ("base", "novel")
_LONG = ("method", "column", "value", "std", "low", "high", "seeds", "clips")


def methods_of(records: Iterable[Mapping]) -> list[str]:
    """The methods that have records, in the fixed order of all tables and figures."""
    found = {record["method"] for record in records}
    return [*(m for m in PAPER_ROWS if m in found), *sorted(found - PAPER_ROWS.keys())]


def clip_scores(
    records: Iterable[Mapping], method: str, *, test_set: str, splits: Sequence[str], contexts: Sequence[str]
) -> dict[int, np.ndarray]:
    """How well each test clip was recognized: the share of the contexts before which it was right.

    Args:
        records: of the store; each needs ``correct``.
        method: whose.
        test_set: its name.
        splits: their clips are joined end to end.
        contexts: averaged clip by clip: the twins of a clip have the same place in each context.

    Returns:
        {seed: [N] floats from 0 to 1}, seeds in order.

    Raises:
        ValueError: a record is missing for a seed, is there twice, has no bits, or twins differ in number.
    """
    found: dict[tuple, np.ndarray] = {}
    for record in records:
        key = record["seed"], record["split"], record["context"]
        if record["method"] != method or record["set"] != test_set or record["metric"] != "top1":
            continue
        if key[1] not in splits or key[2] not in contexts:
            continue
        where = f"{method} on {test_set}, seed {key[0]}, {key[1]}, {key[2]}"
        if key in found:
            raise ValueError(f"{where}: more than one record; narrow the records (table, profile, rho)")
        if record.get("correct") is None:
            raise ValueError(f"{where}: the record has no per-clip bits")
        found[key] = unpack_correct(record["correct"], record["n"]).astype(float)
    seeds = sorted({seed for seed, _, _ in found})
    if not seeds:
        raise ValueError(f"no record of {method} on {test_set} ({', '.join(splits)}; {', '.join(contexts)})")
    scores = {}
    for seed in seeds:
        wanted = [(seed, split, context) for split in splits for context in contexts]
        missing = [f"{split}, {context}" for _, split, context in wanted if (seed, split, context) not in found]
        if missing:
            raise ValueError(f"{method} on {test_set}, seed {seed}: no record for {'; '.join(missing)}")
        parts = []
        for split in splits:
            twins = [found[seed, split, context] for context in contexts]
            if len({len(twin) for twin in twins}) > 1:
                raise ValueError(f"{method} on {test_set}, seed {seed}, {split}: the contexts differ in clips")
            parts.append(np.mean(twins, axis=0))
        scores[seed] = np.concatenate(parts)
    return scores


# ------------------------------------------------------------------------------------ long frames
def base_novel(records: Sequence[Mapping], test_set: str = "source", context: str = "in") -> pd.DataFrame:
    """Base and novel accuracy and their harmonic mean, with 95 % intervals.

    Args:
        records: of the store.
        test_set: its name.
        context: the background.

    Returns:
        Columns method, column ("base", "novel", "hm"), value in percent, std over seeds (ddof=1; NaN for one), low,
        high, seeds, clips.
    """
    rows = []
    for method in methods_of(records):
        base, novel = (
            clip_scores(records, method, test_set=test_set, splits=(split,), contexts=(context,)) for split in SPLITS
        )
        _same_seeds(base, novel, method)
        rows += [_accuracy(method, "base", base, records), _accuracy(method, "novel", novel, records)]
        shared = _shared(records)
        joined = bootstrap_harmonic_mean(_stack(base), _stack(novel), paired_clips=False, shared_clips=shared)
        rows.append(_row(method, "hm", joined, harmonic_mean(_percent(base), _percent(novel))))
    return pd.DataFrame(rows, columns=list(_LONG))


def in_and_out(
    records: Sequence[Mapping],
    test_set: str = "source",
    splits: Sequence[str] = SPLITS,
    contexts: Sequence[str] = OUT_OF_CONTEXT,
) -> pd.DataFrame:
    """Accuracy in context and before swapped backgrounds, their harmonic mean, and the static gap.

    Args:
        records: of the store.
        test_set: its name.
        splits: halves whose clips are joined.
        contexts: the swapped backgrounds.

    Returns:
        Columns as :func:`base_novel`; column is "in", each context, "out" (mean over them), "hm" (of in
        and out) or "gap" (in minus out, in points: how much leans on the background).
    """
    rows = []
    for method in methods_of(records):
        inside = clip_scores(records, method, test_set=test_set, splits=splits, contexts=("in",))
        rows.append(_accuracy(method, "in", inside, records))
        for context in contexts:
            one = clip_scores(records, method, test_set=test_set, splits=splits, contexts=(context,))
            rows.append(_accuracy(method, context, one, records))
        outside = clip_scores(records, method, test_set=test_set, splits=splits, contexts=contexts)
        _same_seeds(inside, outside, method)
        rows.append(_accuracy(method, "out", outside, records))
        pair, shared = (_stack(inside), _stack(outside)), _shared(records)
        per_seed = _percent(inside), _percent(outside)
        joined = bootstrap_harmonic_mean(*pair, paired_clips=True, shared_clips=shared)
        rows.append(_row(method, "hm", joined, harmonic_mean(*per_seed)))
        gap = paired_difference(*pair, shared_clips=shared)
        rows.append(_row(method, "gap", gap, static_gap(*per_seed)))
    return pd.DataFrame(rows, columns=list(_LONG))


def accuracies(
    records: Sequence[Mapping], sets: Sequence[str], contexts: Sequence[str], splits: Sequence[str] = SPLITS
) -> pd.DataFrame:
    """Accuracy on several test sets, all splits together.

    Args:
        records: of the store.
        sets: names of test sets.
        contexts: backgrounds.
        splits: their clips are joined.

    Returns:
        Columns as :func:`base_novel`, with ``column`` "<set>/<context>".
    """
    rows = []
    for method, name, context in itertools.product(methods_of(records), sets, contexts):
        scores = clip_scores(records, method, test_set=name, splits=splits, contexts=(context,))
        rows.append(_accuracy(method, f"{name}/{context}", scores, records))
    return pd.DataFrame(rows, columns=list(_LONG))


def paper_cells(long: pd.DataFrame, columns: Mapping[str, str], **facts) -> list[dict]:
    """The rows of a long frame as the cells that ``results.compare_with_paper`` takes.

    Args:
        long: from :func:`in_and_out` or :func:`base_novel`.
        columns: key of the long frame -> column of the paper.
        facts: written into each cell, e.g. weights and profile.

    Returns:
        mappings with method, column, value, std, low, high, seeds.
    """
    rows = long[long["column"].isin(list(columns))].to_dict("records")
    return [{**row, "column": columns[row["column"]], **facts} for row in rows]


def dial(records: Sequence[Mapping], test_set: str = "source") -> pd.DataFrame:
    """Accuracy in and out of context against the rho that a learner was trained with.

    Args:
        records: of the store, of learners trained with different rho; those of ``frozen``, which was not
            trained, are repeated at every rho.
        test_set: its name.

    Returns:
        Columns rho, method, context ("in", "out"), value, low, high, as ``figures.rho_dial`` takes them.
    """
    frozen = [record for record in records if record["method"] == "frozen"]
    trained = [record for record in records if record["method"] != "frozen"]
    frames = []
    for rho in sorted({record["rho"] for record in trained}):
        frame = in_and_out([*frozen, *(r for r in trained if r["rho"] == rho)], test_set)
        frames.append(frame[frame["column"].isin(["in", "out"])].assign(rho=rho))
    if not frames:
        raise ValueError("no record of a trained learner; the dial needs at least one rho")
    joined = pd.concat(frames, ignore_index=True).rename(columns={"column": "context"})
    return joined[["rho", "method", "context", "value", "low", "high"]]


def differences(
    records: Sequence[Mapping],
    pairs: Sequence[tuple[str, str]],
    test_set: str = "source",
    splits: Sequence[str] = SPLITS,
) -> pd.DataFrame:
    """Paired differences between methods, in and out of context and of the static gap, with a verdict each.

    Args:
        records: of the store.
        pairs: (first, second) methods; the difference is first minus second, on the same seeds and clips.
        test_set: its name.
        splits: halves whose clips are joined.

    Returns:
        Columns first, second, quantity ("in", "out", "gap"), value, low, high (points), seeds, clips and
        verdict (:meth:`intervals.Interval.verdict`).
    """
    rows = []
    for first, second in pairs:
        scores = {
            (method, where): clip_scores(records, method, test_set=test_set, splits=splits, contexts=contexts)
            for method in (first, second)
            for where, contexts in (("in", ("in",)), ("out", OUT_OF_CONTEXT))
        }
        for seeds in scores.values():
            _same_seeds(scores[first, "in"], seeds, f"{first} and {second}")
        table = {key: _stack(value) for key, value in scores.items()}
        shared = _shared(records)
        for where in ("in", "out"):
            interval = paired_difference(table[first, where], table[second, where], shared_clips=shared)
            rows.append(_difference(first, second, where, interval))
        # Each clip's (in minus out) lies in -1..1; the bootstrap takes 0..1, so it sees half of it, shifted.
        gaps = [
            [(i - o + 1) / 2 for i, o in zip(table[method, "in"], table[method, "out"], strict=True)]
            for method in (first, second)
        ]
        half = paired_difference(*gaps, shared_clips=shared)
        doubled = Interval(2 * half.value, 2 * half.low, 2 * half.high, half.level, half.seeds, half.clips)
        rows.append(_difference(first, second, "gap", doubled))
    return pd.DataFrame(rows)


def order_blind_bounds(rho: float, scenes: int) -> dict[str, float]:
    """The best accuracy that a learner blind to the order of frames can expect, for each background.

    It knows all but which motion of a reversal pair it sees. Before a swapped background nothing tells: one
    half. In context the scene does: it is the motion's home with probability rho and each other scene with
    (1 - rho) / (scenes - 1), and the two of a pair have different homes. Guessing the likelier motion in each
    scene is right with probability max(home, other) + (scenes - 2) / 2 * other.

    Args:
        rho: share of clips at home in the in-context test set, 0..1.
        scenes: number of scenes, 2 or more.

    Returns:
        {context: percent}.
    """
    if not 0 <= rho <= 1 or scenes < 2:
        raise ValueError(f"rho is {rho}, scenes is {scenes}; allowed: rho 0 to 1, scenes from 2")
    other = (1 - rho) / (scenes - 1)
    inside = max(rho, other) + (scenes - 2) / 2 * other
    return {"in": 100 * inside, **dict.fromkeys((*OUT_OF_CONTEXT, "out"), 50.0)}


def _difference(first: str, second: str, quantity: str, interval: Interval) -> dict:
    numbers = {name: getattr(interval, name) for name in ("value", "low", "high", "seeds", "clips")}
    return {"first": first, "second": second, "quantity": quantity, **numbers, "verdict": interval.verdict()}


def _row(method: str, column: str, interval: Interval, per_seed: np.ndarray) -> dict:
    values = (interval.value, mean_std(per_seed).std, interval.low, interval.high, interval.seeds, interval.clips)
    return dict(zip(_LONG, (method, column, *values), strict=True))


def _accuracy(method: str, column: str, scores: Mapping[int, np.ndarray], records: Sequence[Mapping]) -> dict:
    interval = bootstrap_accuracy(_stack(scores), shared_clips=_shared(records))
    return _row(method, column, interval, _percent(scores))


def _stack(scores: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    return list(scores.values())


def _percent(scores: Mapping[int, np.ndarray]) -> np.ndarray:
    return np.array([100 * row.mean() for row in scores.values()])


def _shared(records: Sequence[Mapping]) -> bool:
    """Whether all seeds were scored on the same clips: those of one world."""
    return len({record.get("world_seed") for record in records}) == 1


def _same_seeds(first: Mapping, second: Mapping, what: str) -> None:
    if first.keys() != second.keys():
        raise ValueError(f"{what}: seeds {sorted(first)} and {sorted(second)} differ; allowed: the same seeds in both")
