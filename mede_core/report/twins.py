"""The cells of the paper's tables: which of our sets stands for which of its data sets, and what a cell is made of."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..config import SPLITS
from ..video.protocol import IN_CONTEXT_CLIPS
from .intervals import Interval
from .metrics import harmonic_mean, mean_std, unpack_correct
from .paper import IN_OUT_COLUMNS, paper_table, same_sign
from .tables import LONG, NOT_RUN, base_novel, column_label, in_order, long_frame, method_label, methods_of, wide
from .write import MISSING, format_mean_std, format_signed

TWINS = {"K400": "source", "UCF": "transfer_a", "HMDB": "transfer_b", "SSv2": "direction", "K600": "superset"}
REAL = {"K400": "kinetics400", "UCF": "ucf101", "HMDB": "hmdb51", "SSv2": "ssv2", "K600": "kinetics600"}
TWIN_REASON = "a synthetic world and a very small CLIP stand in for real videos and CLIP ViT-B/16"


def sets_of(profile: str) -> dict[str, str]:
    """Paper's data set -> the ``set`` of our records: the real one in the profile ``paper``, elsewhere its twin."""
    return REAL if profile == "paper" else TWINS


def standing(records: Iterable[Mapping], profile: str) -> dict:
    """How a table of these records stands beside the paper's, as arguments of ``compare_with_paper``."""
    if profile != "paper":
        return {"comparable": False, "reason": TWIN_REASON, "twin": True}
    found = dict.fromkeys(record.get("departs", "its protocol is unknown") for record in records)
    reason = "; ".join(dict.fromkeys(part for text in found if text for part in text.split("; ")))
    return {"comparable": not reason, "reason": reason}


def facts_note(records: Sequence[Mapping]) -> str:
    """CLIP weights, prompts and numbers of classes of records: a number depends on them, so they stand below it."""
    from ..world.synthetic import World  # which loads torch

    weights, prompts = (", ".join(sorted({r.get(key, "name") for r in records})) for key in ("weights", "prompts"))
    where = {(r["set"], r["split"]): r["world_seed"] for r in records if r["set"] in TWINS.values()}
    counts = {(name, len(World(seed).class_names(name, half))): None for (name, half), seed in where.items()}
    classes = ", ".join(f"{count} ({name})" for name, count in counts) or "as in its list"
    return f"CLIP weights: {weights or MISSING}; prompts: {prompts or MISSING}; classes to choose from: {classes}."


def paper_remarks(table: str, rows: Sequence[str]) -> list[str]:
    """What is to be said of the numbers that the paper prints in these rows, a line a row."""
    found, said = paper_table(table), []
    for row in rows:
        own = found[(found["row"] == row) & (found["remark"] != "")]
        remarks = "; ".join(f"{column}: {text}" for column, text in zip(own["column"], own["remark"], strict=True))
        said += [f"The paper's row {row}. {remarks}."] if remarks else []
    return said


def paper_cells(long: pd.DataFrame, test_set: str, columns: Mapping[str, str]) -> list[dict]:
    """The rows of a long frame as ``compare_with_paper`` takes them; columns: the frame's key -> the paper's column."""
    rows = long[long["column"].isin(list(columns))].to_dict("records")
    return [{**row, "column": columns[row["column"]], "where": test_set} for row in rows]


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


def halves_cells(long: pd.DataFrame, sets: Mapping[str, str]) -> list[dict]:
    """The rows of :func:`halves` that the paper's table has a column for, as ``compare_with_paper`` takes them."""
    printed, cells = set(paper_table("base_to_novel")["column"]), []
    for dataset, own in long.groupby("dataset", sort=False):
        columns = {name: f"{dataset} ({column_label(name)})" for name in ("base", "novel", "hm")}
        cells += paper_cells(own, sets[dataset], {n: column for n, column in columns.items() if column in printed})
    return cells


def halves_table(long: pd.DataFrame, sets: Mapping[str, str], methods: Sequence[str]) -> pd.DataFrame:
    """:func:`halves` as text, a row a data set and method, run or not."""
    frames = {f"{name} ({dataset})": wide(long[long["dataset"] == dataset], methods=methods)
              for dataset, name in sets.items()}  # fmt: skip
    return pd.concat(frames, names=["Set"]).reset_index("Set").reset_index(drop=True).fillna(MISSING)


# ------------------------------------------------------------------------------------ several parts of a test
def _parts(records: Iterable[Mapping], by: str) -> dict[str, dict]:
    """{method: {part: bits}} of records of one seed, of which each part may be there once."""
    found: dict[str, dict] = {}
    for r in (r for r in records if r["metric"] == "top1"):
        own = found.setdefault(r["method"], {})
        if r[by] in own:
            raise ValueError(f"{r['method']} on {r['set']}: {by} {r[by]} is there twice; each may be there once")
        own[r[by]] = unpack_correct(r["correct"], r["n"]).astype(float)
    return {method: found[method] for method in in_order(found)}


def _mean_over(parts: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Scores of all clips, whose mean is the mean over the parts whatever their sizes, as of one seed."""
    count = sum(map(len, parts.values()))
    return {0: np.concatenate([bits * count / len(parts) / len(bits) for bits in parts.values()])}


def split_means(records: Sequence[Mapping], sets: Mapping[str, str]) -> list[dict]:
    """Mean and standard deviation (ddof=1) over the test splits of each data set, not over training seeds, as
    ``compare_with_paper`` takes them, with ``splits``: {split: percent}."""
    cells = []
    for dataset, name in sets.items():
        found = _parts([r for r in records if r["set"] == name], "part")
        long = long_frame({method: {dataset: _mean_over(parts)} for method, parts in found.items()})
        for row in long.to_dict("records"):
            splits = {part: 100 * bits.mean() for part, bits in found[row["method"]].items()}
            cells.append({**row, "std": mean_std([*splits.values()])[1], "splits": splits, "where": name})
    return cells


def splits_table(cells: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`split_means` as text, each test split by itself and their mean."""
    rows = []
    for cell in cells:
        splits = {f"Split {i}": f"{value:.1f}" for i, (_, value) in enumerate(sorted(cell["splits"].items()), start=1)}
        mean = format_mean_std(cell["value"], cell["std"])
        rows.append({"Dataset": cell["column"], "Method": method_label(cell["method"]), **splits, "Mean ± std": mean})
    return pd.DataFrame(rows).fillna(MISSING)


def scuba(inside: Sequence[Mapping], outside: Sequence[Mapping]) -> pd.DataFrame:
    """Long frame of real videos: "in", the mean over test splits; each background by itself; "out", their mean, and
    "hm". The background ``in_context``, the same clips before their own, is shown, not averaged."""
    splits, backgrounds = _parts(inside, "part"), _parts(outside, "context")
    scores = {}
    for method in methods_of([*inside, *outside]):
        own = {"in": _mean_over(splits[method])} if method in splits else {}
        alone = backgrounds.get(method, {})
        own |= {name: {0: bits} for name, bits in alone.items()}
        swapped = {name: bits for name, bits in alone.items() if name != IN_CONTEXT_CLIPS}
        scores[method] = own | ({"out": _mean_over(swapped)} if swapped else {})
    return long_frame(scores, ("in", "out"))


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
    paper = paper_table("out_of_context", wide=True)[[*IN_OUT_COLUMNS.values()]]
    paper = paper.set_axis(["In context", "Out of context", "HM as stated"], axis=1).rename_axis("Method").reset_index()
    stated, ours = paper["HM as stated"], harmonic_mean(paper["In context"], paper["Out of context"])
    return paper.assign(**{
        "HM recomputed": [f"{mean:.2f}" for mean in ours],
        "Stated minus recomputed": [format_signed(difference, 2) for difference in stated - ours],
        "Equal, rounded": np.where(ours.round(1) == stated, "yes", "no"),
    })  # fmt: skip


# ------------------------------------------------------------------------------------ the gain of GWA
def gwa_gain_table(gains: Mapping[str, Interval]) -> pd.DataFrame:
    """The paper's gains of GWA beside ours ("in" and "out" -> interval in points), as text: Open-MeDe minus Open-MeDe
    without GWA."""
    paper, rows = paper_table("out_of_context", wide=True), []
    for where, title in (("in", "in context"), ("out", "out of context")):
        column, ours = paper[IN_OUT_COLUMNS[where]], gains.get(where)
        claimed = column["Open-MeDe (full)"] - column["Open-MeDe (w/o GWA)"]
        sign = same_sign(claimed, ours.value, ours.low, ours.high) if ours else ""
        here = {"Here": ours.signed() if ours else NOT_RUN, "Same sign": sign}
        rows.append({"Quantity": f"Gain of GWA {title}", "Paper": format_signed(claimed), **here})
    return pd.DataFrame(rows)
