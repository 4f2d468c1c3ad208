"""The study's answers about trainers and averages, trained to the plateau: a cell is one trajectory and one average of
it, so that neighbors differ in one thing. Torch-free."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..report.intervals import t_interval
from ..report.tables import column_label, dial, differences
from ..report.write import format_difference
from .answers import per_seed, spread_table
from .units import CHOSEN, PAIRINGS

AVERAGES = {"last": "last epoch", "gwa": "GWA", "ema": "EMA", "swa": "SWA", "swa patched": "SWA, half CLIP"}
TITLES = {
    "in": "In context", "out": "Out of context", "novel": "Novel", "hm": "HM of base, novel", "cross": "Other sets",
    "temporal": "Direction − source", "scene_share": "Scene votes (%)", "order_gap": "Order gap",
    "background": "Background swapped (logits)", "motion": "Motion reversed (logits)",
}  # fmt: skip
TRAINER_PAIRS = (  # at the same average
    ("joint", "plain"), ("joint", "plain with equal passes"), ("meta", "joint"), ("meta", "plain"),
    ("meta", "plain with equal passes"), ("interpolated", "plain"), ("distilled", "plain"),
)  # fmt: skip
AVERAGE_PAIRS = (("gwa", "last"), ("ema", "last"), ("swa", "last"), ("swa patched", "swa"))  # of the same trainer
RATED = {"plain": ("plain", "meta at plain's rate"), "meta": ("plain at meta's rate", "meta")}  # whose rate it is
BITE_PAIRS = tuple((f"meta, {how}", f"joint, {how}") for how in PAIRINGS.values())
# The cells that the paper's methods are: each trainer with the average that its recipe takes
PAPER_CELLS = {
    ("frozen", "last"): "frozen", ("plain", "last"): "finetune", ("joint", "last"): "joint",
    ("interpolated", "swa patched"): "open_vclip", ("distilled", "swa"): "froster",
    ("meta", "last"): "open_mede_no_gwa", ("meta", "gwa"): "open_mede", ("joint", "gwa"): "joint, GWA",
}  # fmt: skip


def cell(trainer: str, average: str = "last") -> str:
    return trainer if trainer == "frozen" else f"{trainer}, {AVERAGES[average]}"


def cells(records: Iterable[Mapping]) -> list[dict]:
    """Records of long trainings (by variant) with trainer and average as their method."""
    kept = (r for r in records if r["average"] in AVERAGES)
    return [{**r, "method": cell(r["method"], r["average"]), "average": ""} for r in kept]


def paper_records(records: Iterable[Mapping]) -> list[dict]:
    """The same as records of the paper's methods, as claims are judged by."""
    named = ((r, PAPER_CELLS.get((r["method"], r["average"]))) for r in records)
    return [{**r, "method": method, "average": ""} for r, method in named if method]


def cell_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """A row a cell: accuracy on the source set and others, what answers follow where motion and scene disagree."""
    own = cells(records)
    seen = pd.DataFrame([r for r in own if r["set"] == "look"], columns=["method", "seed", "metric", "value"])
    frame = per_seed(own).set_index(["method", "seed"])
    frame = frame.join(seen.pivot_table("value", ["method", "seed"], "metric")).reset_index()
    return spread_table(frame, "method", TITLES, head="Trainer, average")


def _compared(records: Sequence[Mapping], pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """``tables.differences`` of pairs of trainers, at the last epoch and averaged by GWA, with a label for figures."""
    named = [tuple(cell(name, at) for name in pair) for at, pair in itertools.product(("last", "gwa"), pairs)]
    frame = differences(cells(records), named)
    return frame.assign(label=[f"{a} − {b.rpartition(', ')[0]}" for a, b in zip(frame["first"], frame["second"])])


def neighbors(records: Sequence[Mapping]) -> pd.DataFrame:
    """``tables.differences`` of cells that differ in one thing: the trainer, or (column ``of``) the average."""
    names = dict.fromkeys(r["method"] for r in records if r["method"] != "frozen")
    averages = [tuple(cell(name, average) for average in pair) for name in names for pair in AVERAGE_PAIRS]
    own = differences(cells(records), averages)
    own["label"] = [f"{a} − {b.split(', ', 1)[1]}" for a, b in zip(own["first"], own["second"])]
    found = {"trainer": _compared(records, TRAINER_PAIRS), "average": own}
    return pd.concat([frame.assign(of=of) for of, frame in found.items()], ignore_index=True)


def bites(records: Sequence[Mapping]) -> pd.DataFrame:
    """Meta-step against joint on the same batches."""
    return _compared(records, BITE_PAIRS)


def dialed(records: Sequence[Mapping], average: str = "last") -> pd.DataFrame:
    """``tables.dial`` of trainers (records of ``long_dial`` by variant) for one average."""
    kept = (r for r in records if r["average"] == average or r["method"] == "frozen")
    return dial([{**r, "method": r["method"].split(" rho=")[0], "average": ""} for r in kept])


def roundings(records: Sequence[Mapping], again: Sequence[Mapping]) -> pd.DataFrame:
    """What rounding alone moves, in points, beside what seeds do: trainings that another machine (``long_dial``) made
    once more at the same rho. Deviations are of one training about its own mean, and of a trainer's seeds."""
    rho, rows = {r["rho"] for r in records}, []
    named = [{**r, "method": r["method"].split(" rho=")[0]} for r in again if r["rho"] in rho]
    first, second = (per_seed(cells(one)).set_index(["method", "seed"]) for one in (records, named))
    for average, where in itertools.product(("last", "gwa"), ("in", "out")):
        own = first[where].filter(like=AVERAGES[average])
        moved = (second[where] - own).dropna()
        spread = (moved**2).mean() ** 0.5 / 2**0.5, own.groupby("method").var().mean() ** 0.5
        told = len(moved), format_difference(*t_interval(moved)), *map("{:.1f}".format, spread)
        rows.append((AVERAGES[average], column_label(where), *told, f"{100 * (spread[0] / spread[1]) ** 2:.0f}"))
    heads = ["Average", "Tested", "Trainings", "Second − first", "By rounding", "By seeds", "Rounding's share (%)"]
    return pd.DataFrame(rows, columns=heads)


def rate_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """At the rate that plain or meta chose, in points: what GWA adds to the last epoch of each, and meta − plain."""
    frame, rows = per_seed(cells(records)).set_index(["method", "seed"]), []
    for (chosen_by, pair), where in itertools.product(RATED.items(), ("in", "out")):
        rate = f"{CHOSEN[chosen_by]['outer_lr']:g}, {chosen_by}'s"
        plain, meta = ([frame.loc[cell(name, average), where] for average in ("last", "gwa")] for name in pair)
        added = [averaged - last for last, averaged in (plain, meta)]
        told = (*added, added[0] - added[1], *(one - other for one, other in zip(meta, plain)))
        rows.append((rate, column_label(where), *(format_difference(*t_interval(one.dropna())) for one in told)))
    heads = ["Rate", "Tested", "GWA adds to plain", "To meta", "To plain − to meta", "Meta − plain, last epoch",
             "Meta − plain, GWA"]  # fmt: skip
    return pd.DataFrame(rows, columns=heads)
