"""The paper's tables, and ours beside them: on real data judged by a tolerance and a mark, on the synthetic twins by
the signs of differences and by rankings. Torch-free."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..config import is_random
from ..files import ASSETS
from .metrics import harmonic_mean
from .write import MISSING, format_difference, format_interval, format_mean_std, format_signed

PAPER_TABLES = ("base_to_novel", "cross_dataset", "out_of_context", "findings")
PAPER_ROWS = {  # method -> its row in the paper; the paper has no plain fine-tuning
    "frozen": "Frozen CLIP",
    "finetune": "Fine-tuning",
    "open_vclip": "Open-VCLIP",
    "froster": "FROSTER",
    "open_mede_no_gwa": "Open-MeDe (w/o GWA)",
    "open_mede": "Open-MeDe",
}
_METHODS = {row: method for method, row in PAPER_ROWS.items()} | {"Open-MeDe (full)": "open_mede"}
IN_OUT_COLUMNS = {"in": "UCF (in-ctx)", "out": "UCF-SCUBA (out-ctx)", "hm": "HM"}  # of the out-of-context table
_NUMBERS = ("value", "std", "low", "high", "seeds", "gain", "gain_low", "gain_high")  # of ours


def paper_table(name: str, *, wide: bool = False) -> pd.DataFrame:
    """One of ``PAPER_TABLES``, exactly as printed, contradictions included; ``wide``: values alone, a row a method."""
    numbers = {"value": float, "std": lambda cell: float(cell or "nan")}
    frame = pd.read_csv(ASSETS / "reference" / "paper_tables.csv", converters=numbers, keep_default_na=False)
    frame = frame[frame["table"] == name].drop(columns="table").reset_index(drop=True)
    if not wide:
        return frame
    order = {"index": frame["row"].unique(), "columns": frame["column"].unique()}
    return frame.pivot(index="row", columns="column", values="value").reindex(**order)


@dataclass(frozen=True)
class PaperComparison:
    frame: pd.DataFrame  # a row a column and method: the paper's numbers and ours; NaN where there is nothing
    comparable: bool
    twin: bool  # ours are of the synthetic world: no difference, tolerance or mark
    notes: tuple[str, ...]  # what a reader must know

    @property
    def outside_tolerance(self) -> bool:
        return not self.twin and bool((self.frame["mark"] == "outside").any())

    def display(self) -> pd.DataFrame:
        """The table as text."""
        rows = []
        for cell in self.frame.to_dict("records"):
            paper = format_mean_std(cell["paper"], cell["paper_std"])
            paper += f" (stated {cell['stated']:.1f})" if abs(cell["stated"] - cell["paper"]) > 0.05 else ""
            ours = format_mean_std(cell["value"], cell["std"])
            if math.isnan(cell["std"]):
                ours = format_interval(cell["value"], cell["low"], cell["high"])
            gain = format_difference(cell["gain"], cell["gain_low"], cell["gain_high"])
            gains = {"To frozen CLIP, paper": format_signed(cell["paper_gain"]), "To frozen CLIP, here": gain}
            if self.twin:
                where = {"Measured on": cell["where"], "In place of": cell["column"]}
                found, judged = {"This world": ours}, {"Same sign": cell["same sign"]}
            else:
                where, found = {"Column": cell["column"]}, {"Reproduced": ours}
                tolerance = MISSING if math.isnan(cell["tolerance"]) else f"± {cell['tolerance']:.1f}"
                judged = {"Difference": format_signed(cell["difference"]), "Tolerance": tolerance, "Mark": cell["mark"]}
            rows.append({**where, "Method": cell["row"], "Paper": paper, **found, **gains, **judged})
        return pd.DataFrame(rows)

    def rankings(self) -> pd.DataFrame:
        """The order of the methods that both have, best first, in the paper and here, column by column, as text."""
        rows, titles = [], ("Paper's column", "Paper", "Here", "Pairs in the same order")
        for column, own in self.frame.dropna(subset=["paper", "value"]).groupby("column", sort=False):
            orders = (own.sort_values(by, ascending=False, kind="stable")["row"] for by in ("paper", "value"))
            pairs = [*itertools.combinations(own.to_dict("records"), 2)]
            same = sum((a["paper"] - b["paper"]) * (a["value"] - b["value"]) > 0 for a, b in pairs)
            rows.append((column, *(", ".join(order) for order in orders), f"{same} of {len(pairs)}"))
        return pd.DataFrame(rows, columns=titles)


def same_sign(papers: float, ours: float, low: float, high: float) -> str:
    if math.isnan(papers * ours):
        return MISSING
    if low <= 0 <= high:
        return "undecided"
    return "yes" if papers * ours > 0 else "no"


def compare_with_paper(
    table: str, reproduced: pd.DataFrame | Iterable[Mapping], *, comparable: bool, reason: str = "", twin: bool = False
) -> PaperComparison:
    """Put our numbers beside a table of the paper: "base_to_novel", "cross_dataset" or "out_of_context".

    ``reproduced``: a frame or mappings, one a cell: ``method`` (ours, or the paper's label as ``row``), ``column`` of
    the paper, ``value`` in percent; optional ``std``, ``seeds``, the ends ``low`` and ``high`` of a 95 % interval,
    ``gain`` over frozen CLIP in points with ``gain_low`` and ``gain_high``, else formed of the values, and ``where`` it
    was measured. It may be empty ("not run"), and a method that the paper lacks has its line. ``comparable``: whether
    data, weights and protocol are the paper's, never with random weights; else ``reason`` says why not. ``twin``: ours
    are of the synthetic world, which is held to no tolerance. A ValueError names what is unknown, missing, there twice
    or no percentage.
    """
    if table not in PAPER_TABLES[:3]:
        raise ValueError(f"table is {table!r}; allowed: {', '.join(PAPER_TABLES[:3])}")
    if not comparable and not reason.strip():
        raise ValueError("reason is empty; say why the numbers are not comparable with the paper's")
    reason = "" if comparable else reason.strip().rstrip(".")
    records = reproduced.to_dict("records") if isinstance(reproduced, pd.DataFrame) else [*map(dict, reproduced)]
    if comparable and any(is_random(record.get("weights", "")) for record in records):
        raise ValueError("comparable is True, but there are records with random weights; allowed: trained weights")
    paper = _printed(table)
    columns = list(paper["column"].unique())
    frame = paper.merge(_ours(records, columns), how="outer", on=["column", "method"])
    order = {name: at for at, name in enumerate((*columns, *PAPER_ROWS))}
    frame = frame.sort_values(["column", "method"], key=lambda names: names.map(order), ignore_index=True)
    trained = frame["method"] != "frozen"
    frame["gain"] = frame["gain"].fillna((frame["value"] - _of("frozen", frame, "value")).where(trained))
    frame["row"] = frame["method"].map(lambda method: PAPER_ROWS.get(method, method))
    frame["where"] = frame["where"].fillna(frame["column"].map(frame.groupby("column")["where"].first())).fillna("")
    if twin:
        gains = frame[["paper_gain", "gain", "gain_low", "gain_high"]]
        frame["same sign"] = [same_sign(*row) for row in gains.itertuples(index=False)]
    else:
        absolute = frame["value"] - frame["paper"]
        frame["difference"] = (frame["gain"] - frame["paper_gain"]).where(trained, absolute)
        claimed, ahead = (_of("open_mede", frame, key) - frame[key] for key in ("paper", "value"))
        reverse = (ahead < -np.fmax(claimed / 2, 2 * frame["paper_std"])) & trained
        near = (frame["difference"].abs() <= frame["tolerance"] + 1e-9) & ~reverse
        absent = (reason != "") | frame["difference"].isna()
        told = np.where(absent, "not comparable", np.where(near, "within", "outside"))
        frame["mark"] = np.where(frame["value"].isna(), "not run", told)
    return PaperComparison(frame, comparable, twin, tuple(_notes(frame, table, reason, twin)))


def _of(method: str, frame: pd.DataFrame, key: str) -> pd.Series:
    """The number that one method has in the column of each row."""
    return frame["column"].map(frame[frame["method"] == method].set_index("column")[key])


def _printed(table: str) -> pd.DataFrame:
    """The paper's numbers, with their differences to frozen CLIP and what they tolerate."""
    frame = paper_table(table).rename(columns={"value": "stated", "std": "paper_std"})
    frame["method"], frame["paper"] = frame["row"].map(_METHODS), frame["stated"]
    if table == "out_of_context":  # its HM is not that of the columns beside it: we compare with the recomputed one
        inside, outside, joined = (frame[frame["column"] == name] for name in IN_OUT_COLUMNS.values())
        frame.loc[joined.index, "paper"] = harmonic_mean(inside["paper"], outside["paper"])
    frozen, best = (_of(method, frame, "paper") for method in ("frozen", "open_mede"))
    frame["paper_gain"] = (frame["paper"] - frozen).where(frame["method"] != "frozen")
    claimed = np.fmax(frame["paper_gain"].abs(), best - frozen)
    frame["tolerance"] = np.fmax(claimed / 2, 2 * frame["paper_std"])
    return frame.drop(columns=["row", "source"])


def _ours(records: Iterable[Mapping], columns: list[str]) -> pd.DataFrame:
    cells: dict[tuple[str, str], dict] = {}
    for record in records:
        lacking = [key for key in ("value", "method" if "row" not in record else "row", "column") if key not in record]
        if lacking:
            raise ValueError(f"a record lacks {', '.join(lacking)}: {record}")
        if not (isinstance(record["value"], (int, float)) and 0 <= record["value"] <= 100):
            raise ValueError(f"value is {record['value']}; allowed: 0 to 100 (percent): {record}")
        if record["column"] not in columns:
            raise ValueError(f"column {record['column']!r} is not in the paper's table; allowed: {', '.join(columns)}")
        label = record.get("row", record.get("method"))
        key = record["column"], _METHODS.get(label, label)
        if key in cells:
            raise ValueError(f"{key[0]} of {label} is there more than once; average over seeds first")
        numbers = {name: float(record.get(name, math.nan)) for name in _NUMBERS}
        cells[key] = {"column": key[0], "method": key[1], "where": record.get("where"), **numbers}
    frame = pd.DataFrame([*cells.values()], columns=["column", "method", "where", *_NUMBERS])
    return frame.astype(dict.fromkeys(_NUMBERS, float))


def _notes(frame: pd.DataFrame, table: str, reason: str, twin: bool) -> list[str]:
    notes = [f"Not comparable with the paper: {reason}."] if reason else []
    seeds = int(frame["seeds"].max()) if frame["seeds"].notna().any() else 0
    if seeds:
        over = f"t-intervals over {seeds} seeds" if seeds > 1 else "over the test clips of one training seed"
        notes.append(f"Brackets: 95 % intervals, {over}; differences to frozen CLIP are paired, clip by clip.")
    if table == "cross_dataset":
        notes.append("±: standard deviation (ddof=1) over the test splits, as in the paper; not over training seeds.")
    if twin:
        count, orders = frame["same sign"].value_counts(), frame.dropna(subset=["paper", "value"]).groupby("column")
        first = [own.loc[own["value"].idxmax(), "method"] == "open_mede" for _, own in orders]
        told = ", ".join(f"{said} {count.get(said, 0)}" for said in ("yes", "no", "undecided"))
        notes.append(
            "Same sign: of the two differences to frozen CLIP; undecided where our interval holds zero. Here: "
            f"{told}. Open-MeDe, the best of the paper in every column, is the best of its methods here in "
            f"{sum(first)} of {len(first)}."
        )
    else:
        notes.append(
            "Difference: our difference to frozen CLIP minus the paper's; of frozen CLIP itself, reproduced minus "
            "paper. Tolerance: the larger of half of what this method, or the paper's own, gains over frozen CLIP in "
            "the paper, and two standard deviations of the paper's. Outside is also what lies above Open-MeDe by more "
            "than half of what the paper has it below, or those deviations. Not comparable is also a row that the "
            "paper lacks, and any where frozen CLIP was not tested."
        )
    if (frame["stated"] - frame["paper"]).abs().max() > 0.05:
        notes.append(
            "The paper's HM column is not the harmonic mean of the two columns it prints; rounding can explain the "
            "row of Open-VCLIP only. We compare with the recomputed value and show the stated one beside it."
        )
    return notes
