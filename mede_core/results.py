"""Numbers on disk, the paper's numbers, and tables of both. Loads neither torch nor matplotlib.

One record is one measured number with everything needed to say what it is. A notebook writes all its records
at once under its own source name; writing again replaces them. Tables and figures read records and nothing
else::

    store = ResultStore(folder)
    store.replace("11_evaluate", records)
    comparison = compare_with_paper("out_of_context", store.records(table="22"), columns=...,
                                    comparable=False, reason="synthetic world")
    render_table(comparison, tables / "22_out_of_context", caption="...")

Where the parts live: ``_store.py`` (records on disk), ``_paper.py`` (the paper's tables and the comparison),
``_tables.py`` (formatting and table files).
"""

from ._paper import MARKS, PAPER_ROWS, PAPER_TABLES, Comparison, compare_with_paper, paper_table
from ._store import REQUIRED, ResultStore, pack_correct, unpack_correct, validate_record
from ._tables import format_interval, format_mean_std, format_signed, latex_escape, render_table

__all__ = [
    "MARKS", "PAPER_ROWS", "PAPER_TABLES", "REQUIRED", "Comparison", "ResultStore", "compare_with_paper",
    "format_interval", "format_mean_std", "format_signed", "latex_escape", "pack_correct", "paper_table",
    "render_table", "unpack_correct", "validate_record",
]  # fmt: skip
