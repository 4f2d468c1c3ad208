"""Tables from result records: accuracies with intervals, gaps and verdicts, as long frames and as a reader sees them.

A long frame has a row a number: method, column, value in percent (a gap: in points), std over seeds (ddof=1; NaN for
one), low, high, seeds, clips. A number that is a mean over backgrounds is formed clip by clip, so that its interval
knows which twins belong together. Torch-free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..config import OUT_OF_CONTEXT, SPLITS
from ..files import unpack_correct
from .intervals import Interval, accuracy_interval, harmonic_interval, paired_difference
from .metrics import harmonic_mean, mean_std, static_gap
from .paper import PAPER_ROWS
from .write import MISSING, format_interval, format_signed

LONG = ("method", "column", "value", "std", "low", "high", "seeds", "clips")
NOT_RUN = "not run"
COLUMN_LABELS = {  # keys of the long frames -> what a reader sees
    "base": "Base", "novel": "Novel", "hm": "HM", "in": "In context", "scene": "Other scene",
    "noise": "Noise", "stripes": "Stripes", "out": "Out of context", "gap": "Static gap",
}  # fmt: skip


def methods_of(records: Iterable[Mapping]) -> list[str]:
    """The methods that have records, in the fixed order of all tables and figures."""
    found = {record["method"] for record in records}
    return [*(method for method in PAPER_ROWS if method in found), *sorted(found - PAPER_ROWS.keys())]


def clip_scores(
    records: Iterable[Mapping], method: str, *, test_set: str, splits: Sequence[str], contexts: Sequence[str]
) -> dict[int, np.ndarray]:
    """{seed: [N] floats from 0 to 1}: the share of the contexts before which each clip was right; splits end to end.

    The twins of a clip have the same place in each context. Raises a ValueError where a seed's record is missing, is
    there twice or has no bits, or where twins differ in number.
    """
    found: dict[tuple, np.ndarray] = {}
    for record in records:
        key = record["seed"], record["split"], record["context"]
        if (record["method"], record["set"], record["metric"]) != (method, test_set, "top1"):
            continue
        if key[1] in splits and key[2] in contexts:
            where = f"{method} on {test_set}, seed {key[0]}, {key[1]}, {key[2]}"
            if key in found:
                raise ValueError(f"{where}: more than one record; narrow the records (run, average, rho)")
            if record.get("correct") is None:
                raise ValueError(f"{where}: the record has no per-clip bits")
            found[key] = unpack_correct(record["correct"], record["n"]).astype(float)
    if not found:
        raise ValueError(f"no record of {method} on {test_set} ({', '.join(splits)}; {', '.join(contexts)})")
    scores = {}
    for seed in sorted({seed for seed, _, _ in found}):
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
    """Long frame of "base", "novel" and "hm", their harmonic mean."""
    rows = []
    for method in methods_of(records):
        base, novel = (
            clip_scores(records, method, test_set=test_set, splits=(split,), contexts=(context,)) for split in SPLITS
        )
        _same_seeds(base, novel, method)
        rows += [_accuracy(method, "base", base), _accuracy(method, "novel", novel)]
        joined = harmonic_interval(_stack(base), _stack(novel), paired_clips=False)
        rows.append(_row(method, "hm", joined, harmonic_mean(_percent(base), _percent(novel))))
    return pd.DataFrame(rows, columns=list(LONG))


def in_and_out(
    records: Sequence[Mapping],
    test_set: str = "source",
    splits: Sequence[str] = SPLITS,
    contexts: Sequence[str] = OUT_OF_CONTEXT,
) -> pd.DataFrame:
    """Long frame of "in", each swapped background, "out" (mean over them), "hm" (of in and out) and "gap" (in minus
    out, in points: how much leans on the background); the clips of the splits together."""
    rows = []
    for method in methods_of(records):
        where = {"test_set": test_set, "splits": splits}
        inside = clip_scores(records, method, **where, contexts=("in",))
        rows.append(_accuracy(method, "in", inside))
        for context in contexts:
            rows.append(_accuracy(method, context, clip_scores(records, method, **where, contexts=(context,))))
        outside = clip_scores(records, method, **where, contexts=contexts)
        _same_seeds(inside, outside, method)
        rows.append(_accuracy(method, "out", outside))
        both, per_seed = (_stack(inside), _stack(outside)), (_percent(inside), _percent(outside))
        rows.append(_row(method, "hm", harmonic_interval(*both, paired_clips=True), harmonic_mean(*per_seed)))
        rows.append(_row(method, "gap", paired_difference(*both), static_gap(*per_seed)))
    return pd.DataFrame(rows, columns=list(LONG))


def accuracies(
    records: Sequence[Mapping], sets: Sequence[str], contexts: Sequence[str], splits: Sequence[str] = SPLITS
) -> pd.DataFrame:
    """Long frame of several test sets, all splits together; the column is "<set>/<context>"."""
    rows = []
    for method, name, context in itertools.product(methods_of(records), sets, contexts):
        scores = clip_scores(records, method, test_set=name, splits=splits, contexts=(context,))
        rows.append(_accuracy(method, f"{name}/{context}", scores))
    return pd.DataFrame(rows, columns=list(LONG))


def paper_cells(long: pd.DataFrame, columns: Mapping[str, str], **facts) -> list[dict]:
    """The rows of a long frame as ``compare_with_paper`` takes them; columns: the frame's key -> the paper's column."""
    rows = long[long["column"].isin(list(columns))].to_dict("records")
    return [{**row, "column": columns[row["column"]], **facts} for row in rows]


def dial(records: Sequence[Mapping], test_set: str = "source") -> pd.DataFrame:
    """Accuracy against the rho that a learner was trained with: rho, method, context ("in", "out"), value, low, high.

    Records of ``frozen``, which was not trained, are repeated at every rho.
    """
    frozen = [record for record in records if record["method"] == "frozen"]
    trained = [record for record in records if record["method"] != "frozen"]
    frames = []
    for rho in sorted({record["rho"] for record in trained}):
        frame = in_and_out([*frozen, *(r for r in trained if r["rho"] == rho)], test_set)
        frames.append(frame[frame["column"].isin(["in", "out"])].assign(rho=rho))
    joined = pd.concat(frames, ignore_index=True).rename(columns={"column": "context"})
    return joined[["rho", "method", "context", "value", "low", "high"]]


def differences(
    records: Sequence[Mapping],
    pairs: Sequence[tuple[str, str]],
    test_set: str = "source",
    splits: Sequence[str] = SPLITS,
) -> pd.DataFrame:
    """First minus second method of each pair in points, paired over seeds and clips, with a verdict each.

    Columns first, second, quantity ("in", "out", "gap"), value, low, high, seeds, clips, verdict.
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
        found = {where: paired_difference(table[first, where], table[second, where]) for where in ("in", "out")}
        gaps = [[i - o for i, o in zip(table[one, "in"], table[one, "out"], strict=True)] for one in (first, second)]
        found["gap"] = paired_difference(*gaps)
        for quantity, interval in found.items():
            numbers = {**vars(interval), "verdict": interval.verdict()}
            rows.append({"first": first, "second": second, "quantity": quantity, **numbers})
    return pd.DataFrame(rows)


def order_blind_bounds(rho: float, scenes: int) -> dict[str, float]:
    """{context: percent}: the best accuracy that a learner blind to the order of frames can expect.

    It knows all but which motion of a reversal pair it sees. Before a swapped background nothing tells: one
    half. In context the scene does: it is the motion's home with probability rho and each other scene with
    (1 - rho) / (scenes - 1), and the two of a pair have different homes. Guessing the likelier motion in each
    scene is right with probability max(home, other) + (scenes - 2) / 2 * other.
    """
    other = (1 - rho) / (scenes - 1)
    inside = max(rho, other) + (scenes - 2) / 2 * other
    return {"in": 100 * inside, **dict.fromkeys((*OUT_OF_CONTEXT, "out"), 50.0)}


def _row(method: str, column: str, interval: Interval, per_seed: np.ndarray) -> dict:
    values = (interval.value, mean_std(per_seed).std, interval.low, interval.high, interval.seeds, interval.clips)
    return dict(zip(LONG, (method, column, *values), strict=True))


def _accuracy(method: str, column: str, scores: Mapping[int, np.ndarray]) -> dict:
    return _row(method, column, accuracy_interval(_stack(scores)), _percent(scores))


def _stack(scores: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    return list(scores.values())


def _percent(scores: Mapping[int, np.ndarray]) -> np.ndarray:
    return np.array([100 * row.mean() for row in scores.values()])


def _same_seeds(first: Mapping, second: Mapping, what: str) -> None:
    if first.keys() != second.keys():
        raise ValueError(f"{what}: seeds {sorted(first)} and {sorted(second)} differ; allowed: the same seeds in both")


# ------------------------------------------------------------------------------------ what a reader sees
def method_label(method: str) -> str:
    """The name of a method as tables print it; an unknown one stays as it is."""
    return PAPER_ROWS.get(method, method)


def column_label(column: str) -> str:
    """What a reader sees for a key of a long frame; "transfer_a/in" becomes "transfer_a, in context"."""
    test_set, _, context = column.rpartition("/")
    label = COLUMN_LABELS.get(context, context)
    return f"{test_set}, {label.lower()}" if test_set else label


def pick(long: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    """Some columns of a long frame as plots take them, which call the column "context" or "split": ``name``."""
    return long[long["column"].isin(columns)].rename(columns={"column": name}).reset_index(drop=True)


def wide(long: pd.DataFrame, *, methods: Sequence[str] = (), intervals: bool = True) -> pd.DataFrame:
    """A long frame as text, "63.2 [61.0, 65.1]": a row a method, a column a quantity.

    ``methods``: rows that must be there; those without numbers say "not run".
    """
    numbers = {(row["method"], row["column"]): row for row in long.to_dict("records")}
    rows, measured = [], frozenset(long["method"])
    for method in methods_of([{"method": name} for name in (*methods, *measured)]):
        row = {"Method": method_label(method)}
        for column in dict.fromkeys(long["column"]):
            cell = numbers.get((method, column))
            if cell is None:
                row[column_label(column)] = MISSING if method in measured else NOT_RUN
            else:
                ends = (cell["low"], cell["high"]) if intervals else (math.nan, math.nan)
                row[column_label(column)] = format_interval(cell["value"], *ends)
        rows.append(row)
    return pd.DataFrame(rows)


def records_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Records as text, one line a number: on what, with which prompts and views, with its interval."""
    rows = []
    for record in records:
        low = high = math.nan
        if record.get("correct"):
            interval = accuracy_interval(unpack_correct(record["correct"], record["n"]))
            low, high = interval.low, interval.high
        rows.append({
            "Method": method_label(record["method"]), "Set": record["set"], "Split": str(record.get("part", MISSING)),
            "Classes": record["split"], "Context": record["context"], "Metric": record["metric"],
            "Percent": format_interval(record["value"], low, high), "Clips": record["n"],
            "Prompts": record.get("prompts", MISSING), "Views": str(record.get("views", MISSING)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def verdict_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`differences` as text."""
    rows = []
    for row in frame.to_dict("records"):
        rows.append({
            "Comparison": f"{method_label(row['first'])} minus {method_label(row['second'])}",
            "Quantity": column_label(row["quantity"]),
            "Difference": format_signed(row["value"]),
            "95 % interval": f"{format_signed(row['low'])} to {format_signed(row['high'])}",
            "Seeds": row["seeds"],
            "Verdict": row["verdict"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def verdict_sentence(row: Mapping) -> str:
    """One row of :func:`differences` in plain words, which follow from the numbers alone.

    "Open-MeDe is 2.3 points above Fine-tuning out of context (95 % interval +0.5 to +4.1 over this seed's clips, which
    excludes zero; other seeds may differ)."
    """
    way = "level with"
    if round(abs(row["value"]), 1) > 0:
        way = f"{abs(row['value']):.1f} points {'above' if row['value'] > 0 else 'below'}"
    over = f"over {row['seeds']} seeds: {'a hint, no verdict' if row['verdict'] == 'hint' else row['verdict']}"
    if row["seeds"] < 2:
        zero = "excludes" if row["low"] > 0 or row["high"] < 0 else "includes"
        over = f"over this seed's clips, which {zero} zero; other seeds may differ"
    ends = f"{format_signed(row['low'])} to {format_signed(row['high'])}"
    where = {"in": "in context", "out": "out of context", "gap": "in its static gap"}[row["quantity"]]
    first, second = method_label(row["first"]), method_label(row["second"])
    return f"{first} is {way} {second} {where} (95 % interval {ends} {over})."


def verdict_markdown(frame: pd.DataFrame) -> str:
    """The sentences of all rows of :func:`differences` as a Markdown list."""
    return "\n".join(f"* {verdict_sentence(row)}" for row in frame.to_dict("records"))


def property_table(measured: Sequence, reported: Mapping[str, Sequence]) -> pd.DataFrame:
    """The world's properties as text: measured here and, by column name, elsewhere, the same ones in the same order.

    A property has name, value, low, high, holds; a value outside its range says so.
    """
    rows = []
    for one, *others in zip(measured, *reported.values(), strict=True):
        row = {"Property": one.name, "Allowed": f"{one.low:g} to {one.high:g}", "Here": _held(one)}
        rows.append({**row, **dict(zip(reported, map(_held, others), strict=True))})
    return pd.DataFrame(rows)


def _held(one) -> str:
    value = f"{one.value:.1f}" if abs(one.value) >= 0.05 or one.value == 0 else f"{one.value:.0e}"
    return value if one.holds else f"{value} (outside)"
