"""The cells of the paper's tables: which of our sets stands for which of its data sets, and what a cell is made of."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..files import unpack_correct
from ..video.protocol import IN_CONTEXT_CLIPS
from .intervals import Interval
from .metrics import harmonic_mean, mean_std
from .paper import IN_OUT_COLUMNS, PAPER_ROWS, paper_table
from .tables import LONG, NOT_RUN, SPLITS, base_novel, column_label, method_label, methods_of
from .write import MISSING, format_interval, format_mean_std, format_signed

TWINS = {"K400": "source", "UCF": "transfer_a", "HMDB": "transfer_b", "SSv2": "direction", "K600": "superset"}
REAL = {"K400": "kinetics400", "UCF": "ucf101", "HMDB": "hmdb51", "SSv2": "ssv2", "K600": "kinetics600"}
TWIN_REASON = "a synthetic world and a very small CLIP stand in for real videos and CLIP ViT-B/16"


def sets_of(profile: str) -> dict[str, str]:
    """Paper's data set -> the ``set`` of our records: the real one in the profile ``paper``, elsewhere its twin."""
    return REAL if profile == "paper" else TWINS


def not_comparable(records: Iterable[Mapping], profile: str) -> str:
    """Why a table of these records is not comparable with the paper's, in one line; "" where it is."""
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
    """Long frame of base, novel and harmonic mean in context, with the column ``dataset``: each data set's (the paper's
    name -> the records' set) of the methods that were tested on both halves of it."""
    frames = [pd.DataFrame(columns=[*LONG, "dataset"])]
    for dataset, name in sets.items():
        of_set = [r for r in records if (r["set"], r["context"], r["metric"]) == (name, "in", "top1")]
        both = {m for m in methods_of(of_set) if {*SPLITS} <= {r["split"] for r in of_set if r["method"] == m}}
        kept = [r for r in of_set if r["method"] in both and r["split"] in SPLITS]
        if kept:
            frames.append(base_novel(kept, name).assign(dataset=dataset))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def halves_cells(long: pd.DataFrame, **facts) -> list[dict]:
    """The rows of :func:`halves` that the paper's table has a column for, as ``compare_with_paper`` takes them."""
    printed = set(paper_table("base_to_novel")["column"])
    named = long.assign(column=long["dataset"] + " (" + long["column"].map(column_label) + ")")
    return [{**row, **facts} for row in named.to_dict("records") if row["column"] in printed]


def paper_halves() -> dict[tuple[str, str], dict[str, float]]:
    """(data set, row) -> base, as the other two imply it, novel and hm of the paper's table; NaN where not printed."""
    wide, found = paper_table("base_to_novel", wide=True), {}
    for row in wide.index:
        for dataset in dict.fromkeys(column.split()[0] for column in wide.columns):
            novel, hm = (float(wide.loc[row].get(f"{dataset} ({name})", math.nan)) for name in ("Novel", "HM"))
            implied = hm * novel / (2 * novel - hm)  # solves HM = 2 base novel / (base + novel)
            found[dataset, row] = {"base": implied, "novel": novel, "hm": hm}
    return found


def halves_table(long: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """:func:`halves` as text, the paper's numbers beside ours, a row a data set and method, run or not."""
    ours = {(row["dataset"], row["method"], row["column"]): row for row in long.to_dict("records")}
    paper, rows = paper_halves(), []
    for dataset in datasets:
        for method, label in PAPER_ROWS.items():
            row = {"Dataset": dataset, "Method": label}
            printed = paper.get((dataset, label), {})
            for column in ("base", "novel", "hm"):
                cell, title = ours.get((dataset, method, column)), column_label(column)
                row[title] = NOT_RUN if cell is None else format_interval(cell["value"], cell["low"], cell["high"])
                value = printed.get(column, math.nan)
                mark = " (implied)" if column == "base" and not math.isnan(value) else ""
                row[f"Paper: {title}"] = MISSING if math.isnan(value) else f"{value:.1f}{mark}"
            rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ cross-dataset
def split_means(records: Sequence[Mapping], sets: Mapping[str, str], **facts) -> list[dict]:
    """Mean and standard deviation (ddof=1) over the test splits of each data set, not over training seeds, as
    ``compare_with_paper`` takes them, with ``splits``, the number of splits."""
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
    """Each test split by itself and their mean, as text."""
    rows = []
    for cell in split_means(records, sets):
        own = (cell["method"], sets[cell["column"]])
        parts = {r["part"]: r["value"] for r in records if (r["method"], r["set"]) == own}
        numbers = {f"Split {i}": f"{parts[part]:.1f}" for i, part in enumerate(sorted(parts, key=str), start=1)}
        mean = format_mean_std(cell["value"], cell["std"])
        rows.append({"Dataset": cell["column"], "Method": method_label(cell["method"]), **numbers, "Mean ± std": mean})
    return pd.DataFrame(rows).fillna(MISSING)


# ------------------------------------------------------------------------------------ out of context, real videos
def scuba_cells(inside: Sequence[Mapping], outside: Sequence[Mapping], **facts) -> tuple[list[dict], pd.DataFrame]:
    """The out-of-context table's cells, and a frame as ``tables.wide`` takes it with each background by itself; the
    background ``in_context``, the same clips before their own, is shown, not averaged."""
    cells, rows = [], []
    means = {cell["method"]: cell for cell in split_means(inside, {"UCF": REAL["UCF"]})}
    for method in methods_of([*inside, *outside]):
        numbers = {r["context"]: r["value"] for r in outside if r["method"] == method and r["metric"] == "top1"}
        swapped = [value for name, value in numbers.items() if name != IN_CONTEXT_CLIPS]
        if method in means:
            numbers["in"] = means[method]["value"]
            cells.append({**means[method], "column": IN_OUT_COLUMNS["in"], **facts})
        if swapped:
            numbers["out"] = mean_std(swapped).mean
            cell = {"method": method, "column": IN_OUT_COLUMNS["out"], "value": numbers["out"], "seeds": 1}
            cells.append({**cell, "std": math.nan, **facts})
        if method in means and swapped:
            numbers["hm"] = harmonic_mean(numbers["in"], numbers["out"])
        rows += [(method, name, value, math.nan, math.nan) for name, value in numbers.items()]
    return cells, pd.DataFrame(rows, columns=["method", "column", "value", "low", "high"])


def contrasted(records: Sequence[Mapping]) -> list[Mapping]:
    """Records in which each test with one frame repeated is the contrasted accuracy of the same clips in motion."""
    where = ("method", "run", "set", "split", "part", "context")
    moving = {tuple(r[name] for name in where): r for r in records if r["order"] == "forward"}
    found = []
    for still in records:
        if still["order"] == "single":
            pair = moving[tuple(still[name] for name in where)], still
            right, also_still = (unpack_correct(record["correct"], record["n"]) for record in pair)
            value = 100 * float((right & ~also_still).mean())  # SCUBA's contrasted accuracy (StillMix)
            still = {**still, "metric": "contrasted", "value": value, "correct": ""}
        found.append(still)
    return found


def stated_means() -> pd.DataFrame:
    """The harmonic means that the paper's out-of-context table prints, beside those of its own two columns."""
    rows = []
    for name, row in paper_table("out_of_context", wide=True).iterrows():
        inside, outside, stated = (row[column] for column in IN_OUT_COLUMNS.values())
        ours = harmonic_mean(inside, outside)
        rows.append({
            "Method": name, "In context": inside, "Out of context": outside, "HM as stated": stated,
            "HM recomputed": f"{ours:.2f}", "Stated minus recomputed": format_signed(stated - ours, 2),
            "Equal, rounded": "yes" if round(ours, 1) == stated else "no",
        })  # fmt: skip
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ the gain of GWA
def gwa_gain_table(gains: Mapping[str, Interval], comparable: bool) -> pd.DataFrame:
    """The paper's findings on GWA beside ours ("in" and "out" -> interval in points), as text: Open-MeDe minus
    Open-MeDe without GWA."""
    wide, rows = paper_table("out_of_context", wide=True), []
    for where, title in (("in", "in context"), ("out", "out of context")):
        column = wide[IN_OUT_COLUMNS[where]]
        claimed = column["Open-MeDe (full)"] - column["Open-MeDe (w/o GWA)"]
        ours = gains.get(where, Interval(math.nan, math.nan, math.nan, 0, 0))
        difference, tolerance = ours.value - claimed, abs(claimed) / 2  # the paper prints no spread
        mark = "within" if abs(difference) <= tolerance + 1e-9 else "outside"
        ends = f"{format_signed(ours.low)} to {format_signed(ours.high)}"
        rows.append({
            "Quantity": f"Gain of GWA {title}", "Paper": format_signed(claimed),
            "Reproduced": format_signed(ours.value), "95 % interval": ends if ours.seeds else MISSING,
            "Seeds": ours.seeds, "Difference": format_signed(difference), "Tolerance": f"± {tolerance:.1f}",
            "Mark": NOT_RUN if not ours.seeds else mark if comparable else "not comparable",
        })  # fmt: skip
    return pd.DataFrame(rows)
