"""The paper's tables, and our numbers beside them with a tolerance and a mark. Torch-free."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from ..files import ASSETS
from .metrics import harmonic_mean
from .write import MISSING, format_mean_std, format_signed

PAPER_TABLES = ("base_to_novel", "cross_dataset", "out_of_context", "findings")
MARKS = ("within", "outside", "not comparable", "not run")
PAPER_ROWS = {  # method -> its row in the paper; the paper has no plain fine-tuning
    "frozen": "Frozen CLIP",
    "finetune": "Fine-tuning",
    "open_vclip": "Open-VCLIP",
    "froster": "FROSTER",
    "open_mede_no_gwa": "Open-MeDe (w/o GWA)",
    "open_mede": "Open-MeDe",
}
IN_OUT_COLUMNS = {"in": "UCF (in-ctx)", "out": "UCF-SCUBA (out-ctx)", "hm": "HM"}  # of the out-of-context table
_FULL = "Open-MeDe (full)"  # what that table calls Open-MeDe
_NOTHING = {"reproduced": math.nan, "reproduced_std": math.nan, "seeds": 0, "low": math.nan, "high": math.nan}


# ------------------------------------------------------------------------------------ the paper
def paper_table(name: str, *, wide: bool = False) -> pd.DataFrame:
    """One of ``PAPER_TABLES``, exactly as printed, contradictions included; ``wide``: values alone, a row a method."""
    numbers = {"value": float, "std": lambda cell: float(cell or "nan")}
    frame = pd.read_csv(ASSETS / "reference" / "paper_tables.csv", converters=numbers, keep_default_na=False)
    frame = frame[frame["table"] == name].drop(columns="table").reset_index(drop=True)
    if not wide:
        return frame
    order = {"index": frame["row"].unique(), "columns": frame["column"].unique()}
    return frame.pivot(index="row", columns="column", values="value").reindex(**order)


def claim_reference(table: str, row: str, column: str) -> str:
    """The row against which the paper's claim for a cell is measured: our choice, the paper states none."""
    # Frozen CLIP, which every method starts from; itself against the paper's own method. Out of context the claim for
    # meta-optimization without GWA is that it keeps what CLIP regularization loses: against Open-VCLIP (the paper says
    # it only "approaches" Frozen CLIP there).
    if row == "Frozen CLIP":
        return _FULL if table == "out_of_context" else "Open-MeDe"
    return "Open-VCLIP" if row == "Open-MeDe (w/o GWA)" and column != IN_OUT_COLUMNS["in"] else "Frozen CLIP"


# ------------------------------------------------------------------------------------ the comparison
@dataclass(frozen=True)
class PaperComparison:
    table: str
    frame: pd.DataFrame  # a row a cell, see `_line`; NaN or "" where there is nothing
    comparable: bool
    reason: str  # why the two may not be compared at all, "" where they may
    origin: dict[str, str]  # what the records say of themselves

    @property
    def outside_tolerance(self) -> bool:
        return bool((self.frame["mark"] == "outside").any())

    def counts(self) -> dict[str, int]:
        return self.frame["mark"].value_counts().reindex(MARKS, fill_value=0).to_dict()

    def display(self) -> pd.DataFrame:
        """The table as text; the reason that holds for all lines stands in the notes."""
        rows = []
        for cell in self.frame.to_dict("records"):
            paper = format_mean_std(cell["paper"], cell["paper_std"])
            if abs(cell["stated"] - cell["paper"]) > 0.05:
                paper += f" (stated {cell['stated']:.1f})"
            interval = MISSING if math.isnan(cell["low"]) else f"{cell['low']:.1f} to {cell['high']:.1f}"
            rows.append({
                "Column": cell["column"], "Method": cell["row"], "Paper": paper,
                "Reproduced": format_mean_std(cell["reproduced"], cell["reproduced_std"]),
                "Seeds": str(cell["seeds"]) if cell["seeds"] else MISSING,
                "95 % interval": interval, "Difference": format_signed(cell["difference"]),
                "Tolerance": MISSING if math.isnan(cell["tolerance"]) else f"± {cell['tolerance']:.1f}",
                "Mark": cell["mark"],
                "Reason": MISSING if cell["reason"] in ("", self.reason) else cell["reason"],
            })  # fmt: skip
        shown = pd.DataFrame(rows)
        return shown.drop(columns="Reason") if (shown["Reason"] == MISSING).all() else shown

    def notes(self) -> list[str]:
        """What a reader must know: why not comparable, how tolerance is set, the paper's contradictions."""
        notes = [] if self.comparable else [f"Not comparable with the paper: {self.reason}."]
        notes += [f"{name}: {said}." for name, said in self.origin.items()]
        notes.append(
            "Reproduced: mean over the test splits ± standard deviation (ddof=1) over the splits, as the paper; it "
            "says nothing about other training seeds."
            if self.table == "cross_dataset"
            else "Reproduced: mean over seeds ± standard deviation (ddof=1); the 95 % interval is a t-interval over "
            "seeds; with one seed it covers the choice of clips only."
        )
        notes.append(
            "Tolerance: the larger of half the claimed effect and two standard deviations (the paper's where printed, "
            "otherwise ours over seeds). The claimed effect is the paper's difference to Frozen CLIP; of Frozen CLIP "
            "itself, to the paper's own method; of Open-MeDe without GWA out of context, to Open-VCLIP."
        )
        if (self.frame["stated"] - self.frame["paper"]).abs().max() > 0.05:
            notes.append(
                "The paper's HM column is not the harmonic mean of the two columns it prints; rounding can explain the "
                "row of Open-VCLIP only. We compare with the recomputed value and show the stated one beside it."
            )
        return notes


def compare_with_paper(
    table: str, reproduced: pd.DataFrame | Iterable[Mapping], *, comparable: bool, reason: str = ""
) -> PaperComparison:
    """Put our numbers beside a table of the paper: "base_to_novel", "cross_dataset" or "out_of_context".

    ``reproduced``: a frame or mappings, one a cell: ``method`` (ours, or the paper's label as ``row``), ``column`` of
    the paper, ``value`` in percent; optional ``std`` and ``seeds``, and ``low`` and ``high``, the ends of a 95 %
    interval. It may be empty ("not run"), and a method that the paper lacks has its line. The out-of-context table's HM
    is made from its other two columns unless given. ``comparable``: whether data, weights and protocol are the paper's,
    never with random weights; else ``reason`` says why not. A ValueError names what is unknown, missing, there twice or
    no percentage.
    """
    if table not in PAPER_TABLES[:3]:
        raise ValueError(f"table is {table!r}; allowed: {', '.join(PAPER_TABLES[:3])}")
    if not comparable and not reason.strip():
        raise ValueError("reason is empty; say why the numbers are not comparable with the paper's")
    reason = "" if comparable else reason.strip().rstrip(".")
    records = reproduced.to_dict("records") if isinstance(reproduced, pd.DataFrame) else [*map(dict, reproduced)]
    if comparable and any(record.get("weights") == "random" for record in records):
        raise ValueError("comparable is True, but there are records with weights='random'; allowed: trained weights")
    paper = paper_table(table)
    printed = {(cell["row"], cell["column"]): cell for cell in paper.to_dict("records")}
    columns = list(paper["column"].unique())
    cells = _cells(table, records, columns)
    values = {key: cell["value"] for key, cell in printed.items()}
    if table == "out_of_context":
        inside, outside, joined = IN_OUT_COLUMNS.values()
        for row in paper["row"].unique():  # we compare with the recomputed mean
            values[row, joined] = harmonic_mean(values[row, inside], values[row, outside])
        if all(column != joined for _, column in cells):
            for row in [row for row, column in cells if column == inside and (row, outside) in cells]:
                mean = harmonic_mean(cells[row, inside]["reproduced"], cells[row, outside]["reproduced"])
                cells[row, joined] = _NOTHING | {"reproduced": mean, "seeds": cells[row, inside]["seeds"]}
    order = [*PAPER_ROWS.values(), _FULL]
    rows = dict.fromkeys([*paper["row"], *(row for row, _ in cells)])
    rows = sorted(rows, key=lambda row: order.index(row) if row in order else len(order))
    lines = [
        _line(table, row, column, printed, values, cells.get((row, column)), reason)
        for column, row in itertools.product(columns, rows)
        if (row, column) in printed or (row, column) in cells
    ]
    origin = {}
    for key in ("weights", "profile", "prompts"):
        if said := sorted({str(record[key]) for record in records if record.get(key) is not None}):
            origin[key.capitalize()] = ", ".join(said)
    return PaperComparison(table, pd.DataFrame(lines), comparable, reason, origin)


def _cells(table: str, records: Iterable[Mapping], columns: list[str]) -> dict[tuple[str, str], dict]:
    cells = {}
    for record in records:
        lacking = [key for key in ("value", "method" if "row" not in record else "row", "column") if key not in record]
        if lacking:
            raise ValueError(f"a record lacks {', '.join(lacking)}: {record}")
        if not (isinstance(record["value"], (int, float)) and 0 <= record["value"] <= 100):
            raise ValueError(f"value is {record['value']}; allowed: 0 to 100 (percent): {record}")
        if record["column"] not in columns:
            raise ValueError(f"column {record['column']!r} is not in the paper's table; allowed: {', '.join(columns)}")
        label = record.get("row", record.get("method"))
        label = PAPER_ROWS.get(label, label)
        label = _FULL if table == "out_of_context" and label == "Open-MeDe" else label
        if (label, record["column"]) in cells:
            raise ValueError(f"{record['column']} of {label} is there more than once; average over seeds first")
        value, std, low, high = (float(record.get(key, math.nan)) for key in ("value", "std", "low", "high"))
        seeds = 0 if pd.isna(seeds := record.get("seeds", 1)) else int(seeds)
        ours = {"reproduced": value, "reproduced_std": std, "seeds": seeds, "low": low, "high": high}
        cells[label, record["column"]] = ours
    return cells


def _line(table, row, column, printed, values, cell: dict | None, reason) -> dict:
    """One line of the comparison; ``paper`` is what we compare with, ``stated`` what is printed."""
    nan = math.nan
    line = {
        "column": column, "row": row, "metric": "", "paper": nan, "stated": nan, "paper_std": nan,
        **(cell or _NOTHING), "difference": nan, "reference": "", "effect": nan, "tolerance": nan,
        "mark": "not run", "reason": reason, "remark": "",
    }  # fmt: skip
    if (row, column) not in printed:
        return line | {"mark": "not comparable", "reason": "the paper has no such row"}
    stated, reference = printed[row, column], claim_reference(table, row, column)
    effect = values[row, column] - values[reference, column]
    # The paper's spread where printed: a noisy reproduction must not widen what it is held to.
    std = line["reproduced_std"] if math.isnan(stated["std"]) else stated["std"]
    line |= {
        "metric": stated["metric"], "paper": values[row, column], "stated": stated["value"],
        "paper_std": stated["std"], "reference": reference, "effect": effect, "remark": stated["remark"],
        "tolerance": max(abs(effect) / 2, 0.0 if math.isnan(std) else 2 * std),
    }  # fmt: skip
    if cell is not None:
        line["difference"] = cell["reproduced"] - line["paper"]
        mark = "within" if abs(line["difference"]) <= line["tolerance"] + 1e-9 else "outside"
        line["mark"] = "not comparable" if reason else mark
    return line
