"""The paper's tables, and our numbers beside them with a tolerance and a mark."""

from __future__ import annotations

import csv
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ..files import ASSETS
from .cells import Cell, collect
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
_FULL = {"out_of_context": {"Open-MeDe": "Open-MeDe (full)"}}
_HM_OF = {("out_of_context", "HM"): ("UCF (in-ctx)", "UCF-SCUBA (out-ctx)")}


# ------------------------------------------------------------------------------------ the paper
def paper_table(name: str, *, wide: bool = False) -> pd.DataFrame:
    """One of the paper's tables, exactly as printed, contradictions included (see the remarks).

    Args:
        name: one of ``PAPER_TABLES``.
        wide: one row per method and one column per paper column, values only.

    Returns:
        Columns row, column, metric, value, std (NaN where none is printed), source, remark; or the wide form.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PAPER_TABLES:
        raise ValueError(f"table is {name!r}; allowed: {', '.join(PAPER_TABLES)}")
    text = (ASSETS / "reference" / "paper_tables.csv").read_text(encoding="utf-8")
    frame = pd.DataFrame([row for row in csv.DictReader(text.splitlines()) if row["table"] == name])
    frame = frame.drop(columns="table")
    frame["value"] = frame["value"].map(float)
    frame["std"] = frame["std"].map(lambda cell: float(cell or "nan"))
    if not wide:
        return frame
    order = {"index": frame["row"].unique(), "columns": frame["column"].unique()}
    return frame.pivot(index="row", columns="column", values="value").reindex(**order)


def claim_reference(table: str, row: str, column: str) -> str:
    """The row against which the paper's claim for a cell is measured: our choice, the paper states none.

    Frozen CLIP, which every method starts from. Two exceptions: Frozen CLIP itself is measured against the
    paper's own method, and out of context the claim for meta-optimization without GWA is that it keeps what
    CLIP regularization loses, so its reference is Open-VCLIP (the paper says it only "approaches" Frozen CLIP
    there).
    """
    if row == "Frozen CLIP":
        return _FULL.get(table, {}).get("Open-MeDe", "Open-MeDe")
    return "Open-VCLIP" if row == "Open-MeDe (w/o GWA)" and column != "UCF (in-ctx)" else "Frozen CLIP"


# ------------------------------------------------------------------------------------ the comparison
@dataclass(frozen=True)
class Comparison:
    """A paper table beside our numbers.

    Attributes:
        table: name of the paper table.
        frame: one row per cell: column, row, metric, paper (what we compare with), stated (what is printed),
            paper_std, reproduced, reproduced_std (ddof=1), seeds, low, high (95 % interval), difference,
            reference, effect, tolerance, mark, reason, remark. NaN or "" where there is nothing.
        comparable: whether the two may be compared at all (same data, weights and protocol).
        reason: why not; "" where comparable.
        origin: what the records say of themselves: weights, profiles, prompts.
    """

    table: str
    frame: pd.DataFrame
    comparable: bool
    reason: str
    origin: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def outside_tolerance(self) -> bool:
        """Whether a comparable number is outside its tolerance."""
        return bool((self.frame["mark"] == "outside").any())

    def counts(self) -> dict[str, int]:
        """How often each mark occurs."""
        found = Counter(self.frame["mark"])
        return {mark: found[mark] for mark in MARKS}

    def display(self) -> pd.DataFrame:
        """The table a reader sees, as text; the reason that holds for all lines stands in the notes."""
        rows = []
        for cell in self.frame.to_dict("records"):
            paper = format_mean_std(cell["paper"], cell["paper_std"])
            if abs(cell["stated"] - cell["paper"]) > 0.05:
                paper += f" (stated {cell['stated']:.1f})"
            known = not math.isnan(cell["low"])
            tolerance = cell["tolerance"]
            rows.append({
                "Column": cell["column"], "Method": cell["row"], "Paper": paper,
                "Reproduced": format_mean_std(cell["reproduced"], cell["reproduced_std"]),
                "Seeds": str(cell["seeds"]) if cell["seeds"] else MISSING,
                "95 % interval": f"{cell['low']:.1f} to {cell['high']:.1f}" if known else MISSING,
                "Difference": format_signed(cell["difference"]),
                "Tolerance": MISSING if math.isnan(tolerance) else f"± {tolerance:.1f}",
                "Mark": cell["mark"],
                "Reason": MISSING if cell["reason"] in ("", self.reason) else cell["reason"],
            })  # fmt: skip
        shown = pd.DataFrame(rows)
        return shown.drop(columns="Reason") if (shown["Reason"] == MISSING).all() else shown

    def notes(self) -> list[str]:
        """What a reader must know: why not comparable, how tolerance is set, the paper's contradictions."""
        notes = [] if self.comparable else [f"Not comparable with the paper: {self.reason}."]
        notes += [f"{name}: {', '.join(values)}." for name, values in self.origin.items()]
        if self.table == "cross_dataset":
            notes.append(
                "Reproduced: mean over the test splits ± standard deviation (ddof=1) over the splits, as the "
                "paper; it says nothing about other training seeds."
            )
        else:
            notes.append(
                "Reproduced: mean over seeds ± standard deviation (ddof=1); the 95 % interval is a two-level "
                "bootstrap over seeds and clips; with one seed it covers the choice of clips only."
            )
        notes.append(
            "Tolerance: the larger of half the claimed effect and two standard deviations (the paper's where "
            "printed, otherwise ours over seeds). The claimed effect is the paper's difference to Frozen "
            "CLIP; of Frozen CLIP itself, to the paper's own method; of Open-MeDe without GWA out of "
            "context, to Open-VCLIP."
        )
        if (self.frame["stated"] - self.frame["paper"]).abs().max() > 0.05:
            notes.append(
                "The paper's HM column is not the harmonic mean of the two columns it prints; rounding can "
                "explain the row of Open-VCLIP only. We compare with the recomputed value and show the "
                "stated one beside it."
            )
        return notes


def compare_with_paper(
    table: str,
    reproduced: pd.DataFrame | Iterable[Mapping],
    *,
    comparable: bool,
    reason: str = "",
    columns: Mapping[str, Mapping | Sequence[Mapping]] | None = None,
) -> Comparison:
    """Put our numbers beside a table of the paper.

    Args:
        table: "base_to_novel", "cross_dataset" or "out_of_context".
        reproduced: records with ``method`` (ours, or the paper's row label) and ``value`` in percent: either
            the store's, one for each seed, with ``columns``; or with a ``column`` of the paper each, and then
            either ``seed``, or nothing but optional ``std``, ``seeds``, ``low``, ``high``. May be empty ("not
            run").
        comparable: whether data, weights and protocol are those of the paper. Never true with random weights.
        reason: why not; required where not comparable.
        columns: which records make up a column of the paper: column -> {key: value}; a list of values, e.g.
            of contexts, is averaged. Two such mappings in a tuple are joined by their harmonic mean (base,
            novel). The out-of-context table's HM is made from its other two columns unless given.

    Returns:
        :class:`Comparison`. A method that the paper lacks has its line, marked "not comparable". Intervals
        stand where every record carries its per-clip bits.

    Raises:
        ValueError: an unknown table or column, missing seeds or contexts, one quantity twice, a missing
            reason, random weights declared comparable.
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
    joins = {column: pair for (name, column), pair in _HM_OF.items() if name == table}
    cells = collect(records, columns, list(paper["column"].unique()), lambda method: _row(table, method), joins)
    printed = {(c["row"], c["column"]): c for c in paper.to_dict("records")}
    values = {key: c["value"] for key, c in printed.items()}
    for column, (first, second) in joins.items():
        for row in paper["row"].unique():
            values[row, column] = harmonic_mean(values[row, first], values[row, second])
    lines = []
    order = [*dict.fromkeys(paper["row"]), *dict.fromkeys(row for row, _ in cells)]
    order.sort(key=_row_order)
    for column, row in itertools.product(dict.fromkeys(paper["column"]), dict.fromkeys(order)):
        if (row, column) in printed or (row, column) in cells:
            lines.append(_line(table, row, column, printed, values, cells.get((row, column)), comparable, reason))
    origin = {
        title: tuple(sorted({str(record[key]) for record in records if record.get(key) is not None}))
        for title, key in (("Weights", "weights"), ("Profile", "profile"), ("Prompts", "prompts"))
    }
    return Comparison(table, pd.DataFrame(lines), comparable, reason, {k: v for k, v in origin.items() if v})


def _row(table: str, method: str) -> str:
    """The paper's row label of a method, or of a row label; any other name stays as it is."""
    label = PAPER_ROWS.get(method, method)
    return _FULL.get(table, {}).get(label, label)


def _row_order(row: str) -> int:
    labels = list(PAPER_ROWS.values())
    label = "Open-MeDe" if row == "Open-MeDe (full)" else row
    return labels.index(label) if label in labels else len(labels)


def _line(table, row, column, printed, values, cell: Cell | None, comparable, reason) -> dict:
    """One line of the comparison."""
    nan = math.nan
    line = {
        "column": column, "row": row, "metric": "", "paper": nan, "stated": nan, "paper_std": nan,
        "reproduced": nan, "reproduced_std": nan, "seeds": 0, "low": nan, "high": nan, "difference": nan,
        "reference": "", "effect": nan, "tolerance": nan, "mark": "not run",
        "reason": "" if comparable else reason, "remark": "",
    }  # fmt: skip
    if cell is not None:
        line |= {"reproduced": cell.value, "reproduced_std": cell.std, "seeds": cell.seeds}
        line |= {"low": cell.low, "high": cell.high}
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
    if cell is None:
        return line
    line["difference"] = cell.value - line["paper"]
    if comparable:
        line["mark"] = "within" if abs(line["difference"]) <= line["tolerance"] + 1e-9 else "outside"
    else:
        line["mark"] = "not comparable"
    return line
