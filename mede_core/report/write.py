"""Table files: HTML, Markdown, LaTeX and CSV of one table, byte for byte the same for the same numbers."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from ..files import atomic_write

MISSING = "–"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$",
    "–": "--", "×": r"$\times$", "−": "$-$", "≤": r"$\le$", "≥": r"$\ge$", "μ": r"$\mu$", "σ": r"$\sigma$",
    "ρ": r"$\rho$", "α": r"$\alpha$", "β": r"$\beta$", "δ": r"$\delta$", "θ": r"$\theta$",
}  # fmt: skip
_MARK_CSS = {  # readable on white and on black; the word itself carries the meaning
    "within": "color:#1f8a4c;font-weight:bold",
    "outside": "color:#d1495b;font-weight:bold",
    "not comparable": "color:#7f7f7f",
    "not run": "color:#7f7f7f;font-style:italic",
}
_TABLE_CSS = [
    {"selector": "", "props": "border-collapse:collapse;font-variant-numeric:tabular-nums"},
    {
        "selector": "caption",
        "props": "caption-side:top;text-align:left;font-weight:bold;padding-bottom:0.5em",
    },
    {"selector": "th", "props": "border-bottom:2px solid #7f7f7f;padding:0.25em 0.7em;text-align:left"},
    {"selector": "td", "props": "border-bottom:1px solid #7f7f7f55;padding:0.25em 0.7em;text-align:left"},
    {"selector": "td.right", "props": "text-align:right"},
]
_LONG = 40  # characters from which a LaTeX column wraps
_WIDE = 6  # columns from which a LaTeX table is set in small type


# ------------------------------------------------------------------------------------ numbers as text
def format_mean_std(mean: float, std: float = math.nan, seeds: int | None = None, decimals: int = 1) -> str:
    """Write a mean, its spread and seed count: "83.7 ± 1.3 (3 seeds)", "63.2 (1 seed)", "83.7 ± 1.3", "–".

    Args:
        mean: the number; NaN prints as missing.
        std: standard deviation over seeds or splits; NaN is left out, as one seed has none.
        seeds: how many; None leaves the count out (the paper's numbers).
        decimals: digits after the point.
    """
    if math.isnan(mean):
        return MISSING
    text = f"{mean:.{decimals}f}"
    if not math.isnan(std):
        text += f" ± {std:.{decimals}f}"
    return text if seeds is None else f"{text} ({seeds} seed{'' if seeds == 1 else 's'})"


def format_interval(value: float, low: float, high: float, decimals: int = 1) -> str:
    """Write a number with its interval: "44.7 [43.1, 46.2]"; without the bracket where the ends are NaN."""
    if math.isnan(value):
        return MISSING
    ends = "" if math.isnan(low) else f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{value:.{decimals}f}{ends}"


def format_signed(value: float, decimals: int = 1) -> str:
    """Write a difference with its sign: "+2.9", "-0.6", "0.0" (never "-0.0"), "–" where NaN."""
    if math.isnan(value):
        return MISSING
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def latex_escape(text: str) -> str:
    """Escape text for LaTeX; the mathematical signs of our tables become math, a minus before a digit too."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    return "".join(_LATEX.get(character, character) for character in text)


# ------------------------------------------------------------------------------------ files
def render_table(
    table, path_stem, *, caption: str, notes: Sequence[str] = (), decimals: int = 1
) -> dict[str, Path]:
    """Write ``<stem>.html .md .tex .csv`` and ``<stem>.json``, each in one step, the JSON last.

    Args:
        table: a Comparison; a DataFrame (a named index becomes its first columns); or a Styler, whose look
            the HTML keeps, while the other forms show its data.
        path_stem: path without ending; its last part also names the HTML table and the LaTeX label.
        caption: one line above the table.
        notes: lines below it; a Comparison's own notes come first.
        decimals: digits after the point of floats.

    Returns:
        Ending -> path. The CSV holds the numbers unrounded, the others what a reader sees. The JSON says
        ``comparable`` and ``outside_tolerance`` (both false for a table that compares nothing), caption,
        notes and how often each mark occurs. The HTML is a fragment that needs no other file, in ASCII; the
        LaTeX needs booktabs and array.

    Raises:
        ValueError: another kind of table, an empty caption, or a table without columns.
    """
    if not caption or "\n" in caption:
        raise ValueError(f"caption is {caption!r}; allowed: one line of text")
    notes = [notes] if isinstance(notes, str) else list(notes)
    facts, styler = {"comparable": False, "outside_tolerance": False, "marks": {}}, None
    if hasattr(table, "outside_tolerance"):
        facts = {
            "comparable": table.comparable,
            "outside_tolerance": table.outside_tolerance,
            "marks": table.counts(),
        }
        notes = [*table.notes(), *notes]
        raw, shown = table.frame, table.display()
    elif isinstance(table, (pd.DataFrame, Styler)):
        styler = table if isinstance(table, Styler) else None
        raw = _flat(table.data if styler else table)
        shown = raw
    else:
        raise ValueError(f"table is a {type(table).__name__}; allowed: Comparison, DataFrame, Styler")
    if not len(raw.columns):
        raise ValueError("table has no columns")
    right = [
        pd.api.types.is_numeric_dtype(shown[name]) or _looks_numeric(shown[name]) for name in shown.columns
    ]
    text = shown.map(lambda cell: _cell(cell, decimals))
    stem = Path(path_stem)
    name = re.sub(r"[^A-Za-z0-9]+", "-", stem.name).strip("-")
    if not name:
        raise ValueError(f"path_stem is {str(path_stem)!r}; allowed: a path that ends in a file name")
    json_text = json.dumps({**facts, "caption": caption, "notes": notes}, indent=1, sort_keys=True) + "\n"
    contents = {
        "html": _html(styler or _styled(text, right), name, caption, notes),
        "md": _markdown(text, right, caption, notes),
        "tex": _latex(text, right, name, caption, notes),
        "csv": raw.to_csv(index=False, lineterminator="\n", float_format="%.10g"),
        "json": json_text,
    }
    return {
        ending: atomic_write(stem.with_name(f"{stem.name}.{ending}"), data)
        for ending, data in contents.items()
    }


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.index.nlevels > 1 or frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    frame = frame.copy()
    frame.columns = [
        " / ".join(map(str, c)).strip(" /") if isinstance(c, tuple) else str(c) for c in frame.columns
    ]
    if frame.columns.has_duplicates:
        raise ValueError(f"table has a column twice: {list(frame.columns)}")
    return frame


def _cell(value, decimals: int) -> str:
    if pd.isna(value):
        return MISSING
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    return str(value)


def _looks_numeric(column: pd.Series) -> bool:
    """Whether each cell of text starts with a number (or is missing)."""
    return len(column) > 0 and all(re.match(rf"({MISSING}$|[±+-]? ?\d)", str(cell)) for cell in column)


def _styled(text: pd.DataFrame, right: list[bool]) -> Styler:
    styler = Styler(text, cell_ids=False).hide(axis="index")
    styler = styler.format(escape="html").format_index(escape="html", axis=1)
    classes = pd.DataFrame("", index=text.index, columns=text.columns)
    classes.loc[:, right] = "right"
    styler = styler.set_td_classes(classes).set_table_styles(_TABLE_CSS)
    align = {
        text.columns[i]: [{"selector": "th", "props": "text-align:right"}] for i, r in enumerate(right) if r
    }
    if align:
        styler = styler.set_table_styles(align, overwrite=False)
    if "Mark" in text.columns:
        styler = styler.map(lambda mark: _MARK_CSS.get(mark, ""), subset=["Mark"])
    return styler


def _html(styler: Styler, name: str, caption: str, notes: list[str]) -> str:
    body = styler.set_caption(html.escape(caption)).to_html(table_uuid=name)
    lines = "".join(f"<li>{html.escape(note)}</li>\n" for note in notes)
    if lines:
        lines = f'<ul style="font-size:smaller">\n{lines}</ul>\n'
    # ASCII: reads right whatever encoding the page around it declares
    page = f'<div class="mede-table" style="overflow-x:auto">\n{body}{lines}</div>\n'
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _markdown(text: pd.DataFrame, right: list[bool], caption: str, notes: list[str]) -> str:
    def escape(cell: str) -> str:
        return re.sub(r"([\\|<*`])", r"\\\1", cell).replace("\n", " ")

    rows = [list(text.columns), ["---:" if r else ":---" for r in right], *text.to_numpy().tolist()]
    lines = [
        "| " + " | ".join(escape(cell) if i != 1 else cell for cell in row) + " |"
        for i, row in enumerate(rows)
    ]
    parts = [f"**{escape(caption)}**", "\n".join(lines)]
    if notes:
        parts.append("\n".join(f"- {escape(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _latex(text: pd.DataFrame, right: list[bool], name: str, caption: str, notes: list[str]) -> str:
    widths = [text[column].str.len().max() if len(text) else 0 for column in text.columns]
    kinds = [
        r">{\raggedright\arraybackslash}p{5cm}" if w > _LONG else "lr"[r]
        for w, r in zip(widths, right, strict=True)
    ]
    escaped = text.map(latex_escape).rename(columns=latex_escape)
    body = escaped.style.hide(axis="index").to_latex(
        hrules=True, column_format="".join(kinds), caption=latex_escape(caption), label=f"tab:{name}",
        position="t", position_float="centering",
    )  # fmt: skip
    lines = "".join(f"\\par\\smallskip{{\\footnotesize {latex_escape(note)}}}\n" for note in notes)
    if len(text.columns) > _WIDE:
        body = body.replace(
            "\\begin{tabular}", "\\footnotesize\\setlength{\\tabcolsep}{3pt}\n\\begin{tabular}"
        )
    return "% needs \\usepackage{booktabs,array}\n" + body.replace("\\end{table}", lines + "\\end{table}")
