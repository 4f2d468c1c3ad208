"""The study's answers about trainers and averages, trained to the plateau: a cell is one trajectory and one average of
it, so that neighbors differ in one thing. Torch-free."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..report.intervals import t_interval
from ..report.tables import column_label, dial, differences
from ..report.write import format_difference
from .answers import per_seed, spread_table
from .units import CHOSEN, PAIRINGS, RATED

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
RATES = {name: CHOSEN[name]["outer_lr"] for name in ("plain", "meta")}
SAME_RATE = [[f"{name} at {rate:g}" for name in ("meta", "joint", "plain")] for rate in RATES.values()]
AT_RATE = {variant: f"{name} at {RATES[by]:g}" for variant, (name, by) in RATED.items()}
RATE_PAIRS = [pair for names in SAME_RATE for pair in itertools.combinations(names, 2)]
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


def trainer_differences(records: Sequence[Mapping], pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
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
    both = trainer_differences(records, TRAINER_PAIRS).assign(of="trainer"), own.assign(of="average")
    return pd.concat(both, ignore_index=True)


def dialed(records: Sequence[Mapping], average: str = "last") -> pd.DataFrame:
    """``tables.dial`` of trainers (records of ``long_dial`` by variant) for one average."""
    kept = (r for r in records if r["average"] == average or r["method"] == "frozen")
    return dial([{**r, "method": r["method"].split(" rho=")[0], "average": ""} for r in kept])


def roundings(records: Sequence[Mapping], again: Sequence[Mapping]) -> pd.DataFrame:
    """What rounding alone moves, in points: deviations of trainings made ``again`` on another machine; and by seeds."""
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


def at_rates(records: Iterable[Mapping]) -> list[dict]:
    """Records of long trainings (by variant) at plain's and at meta's rate, with trainer and rate as their method."""
    return [{**r, "method": AT_RATE[r["method"]]} for r in records if r["method"] in AT_RATE]


def rate_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """What GWA adds to each trainer's last epoch, in points, at the rates that plain and meta chose, and the change."""
    frame = per_seed(cells(at_rates(records))).pivot(index="seed", columns="method", values=["in", "out"]).dropna()
    labels, rows = [*(f"{rate:g}, {name}'s" for name, rate in RATES.items()), "the first − the second"], []
    for where in ("in", "out"):
        added = [[frame[where][cell(one, "gwa")] - frame[where][cell(one)] for one in names] for names in SAME_RATE]
        for label, own in zip(labels, (*added, [first - second for first, second in zip(*added)])):
            told = (format_difference(*t_interval(one)) for one in (*own, own[0] - own[-1]))
            rows.append((column_label(where), label, *told))
    heads = ["Tested", "Rate", "GWA adds to meta", "To joint", "To plain", "To meta − to plain"]
    return pd.DataFrame(rows, columns=heads)
