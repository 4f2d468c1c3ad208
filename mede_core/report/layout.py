"""Long frames of numbers (``tables.py``) as a reader sees them: tables by method, verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from .intervals import bootstrap_accuracy
from .paper import PAPER_ROWS
from .records import unpack_correct
from .tables import methods_of
from .write import MISSING, format_interval, format_signed

NOT_RUN = "not run"
COLUMN_LABELS = {  # keys of the long frames -> what a reader sees
    "base": "Base", "novel": "Novel", "hm": "HM", "in": "In context", "scene": "Other scene",
    "noise": "Noise", "stripes": "Stripes", "out": "Out of context", "gap": "Static gap",
}  # fmt: skip


def method_label(method: str) -> str:
    """The name of a method as tables print it; an unknown one stays as it is."""
    return PAPER_ROWS.get(method, method)


def column_label(column: str) -> str:
    """What a reader sees for a key of a long frame; "transfer_a/in" becomes "transfer_a, in context"."""
    test_set, _, context = column.rpartition("/")
    label = COLUMN_LABELS.get(context, context)
    return f"{test_set}, {label.lower()}" if test_set else label


def pick(long: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    """The rows of some columns in the form that the plot functions take.

    Args:
        long: from ``tables.py``.
        columns: values of ``column`` to keep.
        name: what the plot calls it: "context" or "split".

    Returns:
        The long frame's rows, ``column`` renamed.
    """
    return long[long["column"].isin(columns)].rename(columns={"column": name}).reset_index(drop=True)


def wide(long: pd.DataFrame, *, methods: Sequence[str] = (), intervals: bool = True) -> pd.DataFrame:
    """A long frame as a reader sees it: a row a method, a column a quantity.

    Args:
        long: from ``tables.py``.
        methods: rows that must be there; those without numbers say "not run".
        intervals: write "63.2 [61.0, 65.1]"; otherwise the number alone.

    Returns:
        Text, with the column Method first.
    """
    columns = list(dict.fromkeys(long["column"]))
    numbers = {(row["method"], row["column"]): row for row in long.to_dict("records")}
    order = methods_of([{"method": m} for m in (*methods, *long["method"])])
    rows, measured = [], frozenset(long["method"])
    for method in order:
        row = {"Method": method_label(method)}
        for column in columns:
            cell = numbers.get((method, column))
            if cell is None:
                text = MISSING if method in measured else NOT_RUN
            elif intervals:
                text = format_interval(cell["value"], cell["low"], cell["high"])
            else:
                text = format_interval(cell["value"], math.nan, math.nan)
            row[column_label(column)] = text
        rows.append(row)
    return pd.DataFrame(rows)


def verdict_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`differences` as a reader sees them."""
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


def records_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Records as a reader sees them, one line a number: on what, with which prompts and views, with its interval."""
    rows = []
    for record in records:
        low = high = math.nan
        if record.get("correct"):
            interval = bootstrap_accuracy(unpack_correct(record["correct"], record["n"]))
            low, high = interval.low, interval.high
        rows.append({
            "Method": method_label(record["method"]), "Set": record["set"], "Split": str(record.get("part", MISSING)),
            "Classes": record["split"], "Context": record["context"], "Metric": record["metric"],
            "Percent": format_interval(record["value"], low, high), "Clips": record["n"],
            "Prompts": record.get("prompts", MISSING), "Views": str(record.get("views", MISSING)),
        })  # fmt: skip
    return pd.DataFrame(rows)


_WHERE = {"in": "in context", "out": "out of context", "gap": "in its static gap"}


def verdict_sentence(row: Mapping) -> str:
    """One row of :func:`tables.differences` in plain words; the wording follows from the numbers alone.

    Args:
        row: mapping with the columns of that frame.

    Returns:
        one sentence, e.g. "Open-MeDe is 2.3 points above Fine-tuning out of context (95 % interval +0.5 to
        +4.1 over this seed's clips, which excludes zero; one seed: undecided across seeds)."
    """
    if round(abs(row["value"]), 1) == 0:
        way = "level with"
    else:
        way = f"{abs(row['value']):.1f} points {'above' if row['value'] > 0 else 'below'}"
    if row["seeds"] < 2:
        zero = "excludes" if row["low"] > 0 or row["high"] < 0 else "includes"
        over = f"over this seed's clips, which {zero} zero; one seed: undecided across seeds"
    else:
        over = f"over {row['seeds']} seeds and their clips: {row['verdict']}"
    ends = f"{format_signed(row['low'])} to {format_signed(row['high'])}"
    first, second = method_label(row["first"]), method_label(row["second"])
    return f"{first} is {way} {second} {_WHERE[row['quantity']]} (95 % interval {ends} {over})."


def verdict_markdown(frame: pd.DataFrame) -> str:
    """The sentences of all rows of :func:`tables.differences` as a Markdown list."""
    return "\n".join(f"* {verdict_sentence(row)}" for row in frame.to_dict("records"))


def property_table(measured: Sequence, reported: Mapping[str, Sequence]) -> pd.DataFrame:
    """The world's properties, measured here and on the reported seeds.

    Args:
        measured: ``data.properties.Property`` of this run.
        reported: column name -> the same properties elsewhere, in the same order.

    Returns:
        Text columns Property, Allowed, Here and one for each reported; a value outside its range says so.

    Raises:
        ValueError: the reported properties are others than the measured ones.
    """
    rows = []
    for index, one in enumerate(measured):
        row = {"Property": one.name, "Allowed": f"{one.low:g} to {one.high:g}", "Here": _held(one)}
        for name, others in reported.items():
            if len(others) != len(measured) or others[index].name != one.name:
                raise ValueError(f"{name} reports other properties than those measured here: measure it again")
            row[name] = _held(others[index])
        rows.append(row)
    return pd.DataFrame(rows, columns=["Property", "Allowed", "Here", *reported])


def _held(one) -> str:
    value = f"{one.value:.1f}" if abs(one.value) >= 0.05 or one.value == 0 else f"{one.value:.0e}"
    return value if one.holds else f"{value} (outside)"
