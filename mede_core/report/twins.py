"""The paper's tables beside our numbers: which set stands for which, what a cell is made of, what is comparable.

Each data set of the paper has a twin among the sets of the synthetic world. Torch-free; nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..video.protocol import IN_CONTEXT_CLIPS
from .intervals import Interval
from .layout import method_label
from .metrics import harmonic_mean, mean_std
from .paper import PAPER_ROWS, paper_table
from .tables import base_novel, methods_of
from .write import MISSING, format_interval, format_mean_std, format_signed

TWINS = {"K400": "source", "UCF": "transfer_a", "HMDB": "transfer_b", "SSv2": "direction", "K600": "superset"}
REAL = {"K400": "kinetics400", "UCF": "ucf101", "HMDB": "hmdb51", "SSv2": "ssv2", "K600": "kinetics600"}
TWIN_REASON = "a synthetic world and a very small CLIP stand in for real videos and CLIP ViT-B/16"
_HALF_COLUMNS = {"base": "Base", "novel": "Novel", "hm": "HM"}


def sets_of(profile: str) -> dict[str, str]:
    """Paper's data set -> the ``set`` of our records: the real one in the profile ``paper``, elsewhere its twin."""
    return REAL if profile == "paper" else TWINS


# ------------------------------------------------------------------------------------ comparable or not
def not_comparable(records: Iterable[Mapping], profile: str) -> str:
    """Why a table of these records is not comparable with the paper's; empty where it is.

    Args:
        records: of the store; on real videos each says in ``departs`` what ``protocol.departures`` gave.
        profile: the profile that they were made in.

    Returns:
        one line of text.
    """
    if profile != "paper":
        return TWIN_REASON
    found = dict.fromkeys(record.get("departs", "its protocol is unknown") for record in records)
    return "; ".join(dict.fromkeys(part for text in found if text for part in text.split("; ")))


def shared_facts(records: Iterable[Mapping], profile: str) -> dict[str, str]:
    """What stands beside each number of a table: weights, profile and prompts of its records."""
    found = [*records]
    weights = dict.fromkeys(record["weights"] for record in found)
    prompts = dict.fromkeys(record.get("prompts", "name") for record in found)
    none = {"none measured": None}
    return {"weights": ", ".join(weights or none), "profile": profile, "prompts": ", ".join(prompts or none)}


def paper_remarks(table: str, row: str) -> list[str]:
    """What is to be said of the numbers that the paper prints in a row: one line of text, none where nothing is."""
    found = paper_table(table)
    found = found[(found["row"] == row) & (found["remark"] != "")]
    said = "; ".join(f"{column}: {remark}" for column, remark in zip(found["column"], found["remark"], strict=True))
    return [f"The paper's row {row}. {said}."] if said else []


# ------------------------------------------------------------------------------------ base to novel
def halves(records: Sequence[Mapping], sets: Mapping[str, str]) -> pd.DataFrame:
    """Base, novel and harmonic mean of each data set, of the methods that were tested on both halves of it.

    Args:
        records: of the store, in context.
        sets: data set of the paper -> the records' set, as :func:`sets_of`.

    Returns:
        the columns of :func:`tables.base_novel` and ``dataset``.
    """
    frames = []
    for dataset, name in sets.items():
        of_set = [r for r in records if r["set"] == name and r["context"] == "in" and r["metric"] == "top1"]
        both = {m for m in methods_of(of_set) if {"base", "novel"} <= {r["split"] for r in of_set if r["method"] == m}}
        kept = [r for r in of_set if r["method"] in both and r["split"] in ("base", "novel")]
        if kept:
            frames.append(base_novel(kept, name).assign(dataset=dataset))
    empty = pd.DataFrame(columns=["method", "column", "value", "std", "low", "high", "seeds", "clips", "dataset"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def halves_cells(long: pd.DataFrame, **facts) -> list[dict]:
    """The rows of :func:`halves` that the paper's table has a column for, as ``compare_with_paper`` takes them."""
    printed = set(paper_table("base_to_novel")["column"])
    named = [{**row, "column": f"{row['dataset']} ({_HALF_COLUMNS[row['column']]})"} for row in long.to_dict("records")]
    return [{**row, **facts} for row in named if row["column"] in printed]


def paper_halves() -> dict[tuple[str, str], dict[str, float]]:
    """What the paper's table says of base, novel and HM; a base that it does not print is what the other two imply.

    Returns:
        {(data set, row): {"base", "novel", "hm"}}, NaN where neither is printed.
    """
    wide, found = paper_table("base_to_novel", wide=True), {}
    for row in wide.index:
        for dataset in dict.fromkeys(column.split()[0] for column in wide.columns):
            novel, hm = (float(wide.loc[row].get(f"{dataset} ({name})", math.nan)) for name in ("Novel", "HM"))
            implied = hm * novel / (2 * novel - hm)  # solves HM = 2 base novel / (base + novel)
            found[dataset, row] = {"base": implied, "novel": novel, "hm": hm}
    return found


def halves_table(long: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """Base, novel and HM as a reader sees them, the paper's numbers beside ours.

    Args:
        long: from :func:`halves`.
        datasets: all data sets; a method without numbers on one says "not run".

    Returns:
        Text, a row a data set and method.
    """
    ours = {(row["dataset"], row["method"], row["column"]): row for row in long.to_dict("records")}
    paper, rows = paper_halves(), []
    for dataset in datasets:
        for method in PAPER_ROWS:
            row = {"Dataset": dataset, "Method": method_label(method)}
            printed = paper.get((dataset, method_label(method)), {})
            for column, title in _HALF_COLUMNS.items():
                cell = ours.get((dataset, method, column))
                row[title] = "not run" if cell is None else format_interval(cell["value"], cell["low"], cell["high"])
                value = printed.get(column, math.nan)
                mark = " (implied)" if column == "base" and not math.isnan(value) else ""
                row[f"Paper: {title}"] = MISSING if math.isnan(value) else f"{value:.1f}{mark}"
            rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ cross-dataset
def split_means(records: Sequence[Mapping], sets: Mapping[str, str], **facts) -> list[dict]:
    """Mean and standard deviation (ddof=1) over the test splits of each data set: not over training seeds.

    Args:
        records: of the store, one for each method, set and ``part``; those of one training seed.
        sets: data set of the paper -> the records' set.
        facts: written into each cell.

    Returns:
        cells as ``compare_with_paper`` takes them, with ``splits``, the number of splits.

    Raises:
        ValueError: a split twice: narrow the records.
    """
    cells = []
    for dataset, name in sets.items():
        for method in methods_of(records):
            found = [r for r in records if (r["method"], r["set"], r["metric"]) == (method, name, "top1")]
            parts = [record["part"] for record in found]
            if len(set(parts)) < len(parts):
                raise ValueError(f"{method} on {name}: splits {parts}; each may be there once, of one seed")
            if found:
                mean = mean_std([record["value"] for record in found])
                cell = {"method": method, "column": dataset, "value": mean.mean, "std": mean.std, "seeds": 1}
                cells.append({**cell, "splits": len(found), **facts})
    return cells


def splits_table(records: Sequence[Mapping], sets: Mapping[str, str]) -> pd.DataFrame:
    """Each test split by itself and their mean, as a reader sees them."""
    rows = []
    for cell in split_means(records, sets):
        parts = {
            record["part"]: record["value"]
            for record in records
            if (record["method"], record["set"]) == (cell["method"], sets[cell["column"]])
        }
        numbers = {f"Split {i}": f"{parts[part]:.1f}" for i, part in enumerate(sorted(parts, key=str), start=1)}
        mean = format_mean_std(cell["value"], cell["std"])
        rows.append({"Dataset": cell["column"], "Method": method_label(cell["method"]), **numbers, "Mean ± std": mean})
    return pd.DataFrame(rows).fillna(MISSING)


# ------------------------------------------------------------------------------------ out of context, real videos
def scuba_cells(inside: Sequence[Mapping], outside: Sequence[Mapping], **facts) -> tuple[list[dict], pd.DataFrame]:
    """The out-of-context table's cells from UCF101 and its out-of-context clips, and each background by itself.

    Args:
        inside: records on UCF101, one for each method and test split.
        outside: records on out-of-context clips, one for each method and background (``context``); the background
            ``in_context`` (the same clips before their own) is shown and not averaged.
        facts: written into each cell.

    Returns:
        (cells as ``compare_with_paper`` takes them; a long frame as ``layout.wide`` takes it, with "in", each
        background, "out", the mean over backgrounds, and "hm" of in and out).
    """
    cells, rows = [], []
    means = {cell["method"]: cell for cell in split_means(inside, {"UCF": REAL["UCF"]})}
    for method in methods_of([*inside, *outside]):
        of_method = {r["context"]: r["value"] for r in outside if r["method"] == method and r["metric"] == "top1"}
        swapped = [value for name, value in of_method.items() if name != IN_CONTEXT_CLIPS]
        numbers = dict(of_method)
        if method in means:
            numbers["in"] = means[method]["value"]
            cells.append({**means[method], "column": "UCF (in-ctx)", **facts})
        if swapped:
            numbers["out"] = mean_std(swapped).mean
            cell = {"method": method, "column": "UCF-SCUBA (out-ctx)", "value": numbers["out"], "seeds": 1}
            cells.append({**cell, "std": math.nan, **facts})
        if method in means and swapped:
            numbers["hm"] = harmonic_mean(numbers["in"], numbers["out"])
        order = [*(name for name in numbers if name not in ("in", "out", "hm")), "in", "out", "hm"]
        rows += [
            {"method": method, "column": name, "value": numbers[name], "low": math.nan, "high": math.nan}
            for name in order
            if name in numbers
        ]
    return cells, pd.DataFrame(rows, columns=["method", "column", "value", "low", "high"])


def stated_means() -> pd.DataFrame:
    """The harmonic means that the paper's out-of-context table prints, beside those of its own two columns."""
    wide, rows = paper_table("out_of_context", wide=True), []
    for name, row in wide.iterrows():
        inside, outside, stated = row["UCF (in-ctx)"], row["UCF-SCUBA (out-ctx)"], row["HM"]
        ours = harmonic_mean(inside, outside)
        rows.append({
            "Method": name, "In context": inside, "Out of context": outside, "HM as stated": stated,
            "HM recomputed": f"{ours:.2f}", "Stated minus recomputed": format_signed(stated - ours, 2),
            "Equal, rounded": "yes" if round(ours, 1) == stated else "no",
        })  # fmt: skip
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ the gain of GWA
def gwa_gain_table(gains: Mapping[str, Interval], comparable: bool) -> pd.DataFrame:
    """The paper's findings on GWA beside ours: Open-MeDe minus Open-MeDe without GWA.

    Args:
        gains: "in" and "out" -> :class:`intervals.Interval` in points; one may be missing.
        comparable: whether data, weights and protocol are the paper's.

    Returns:
        Text: Quantity, Paper, Reproduced, 95 % interval, Seeds, Difference, Tolerance, Mark. The tolerance is half of
        the claimed gain; the paper prints no spread.
    """
    wide, rows = paper_table("out_of_context", wide=True), []
    for where, column, title in (
        ("in", "UCF (in-ctx)", "in context"),
        ("out", "UCF-SCUBA (out-ctx)", "out of context"),
    ):
        claimed = wide.loc["Open-MeDe (full)", column] - wide.loc["Open-MeDe (w/o GWA)", column]
        ours, tolerance = gains.get(where), abs(claimed) / 2
        row = {"Quantity": f"Gain of GWA {title}", "Paper": format_signed(claimed)}
        if ours is None:
            row |= {"Reproduced": MISSING, "95 % interval": MISSING, "Seeds": 0, "Difference": MISSING}
            mark = "not run"
        else:
            difference = ours.value - claimed
            interval = f"{format_signed(ours.low)} to {format_signed(ours.high)}"
            row |= {"Reproduced": format_signed(ours.value), "95 % interval": interval, "Seeds": ours.seeds}
            row["Difference"] = format_signed(difference)
            mark = "within" if abs(difference) <= tolerance + 1e-9 else "outside"
            mark = mark if comparable else "not comparable"
        rows.append({**row, "Tolerance": f"± {tolerance:.1f}", "Mark": mark})
    return pd.DataFrame(rows)
