"""Table files: HTML, Markdown, LaTeX and CSV of one table, byte for byte the same for the same numbers. Torch-free."""

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

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
    {"selector": "caption", "props": "caption-side:top;text-align:left;font-weight:bold;padding-bottom:0.5em"},
    {"selector": "th", "props": "border-bottom:2px solid #7f7f7f;padding:0.25em 0.7em;text-align:left"},
    {"selector": "td", "props": "border-bottom:1px solid #7f7f7f55;padding:0.25em 0.7em;text-align:left"},
    {"selector": "td.right", "props": "text-align:right;white-space:nowrap"},
]
_LONG = 40  # characters from which a LaTeX column wraps
_WIDE = 6  # columns from which a LaTeX table is set in small type


# ------------------------------------------------------------------------------------ numbers as text
def format_mean_std(mean: float, std: float = math.nan) -> str:
    """Write a mean with its spread: "83.7 ± 1.3", "63.2" where the spread is NaN, as of one seed, "–" for NaN."""
    if math.isnan(mean):
        return MISSING
    return f"{mean:z.1f}" if math.isnan(std) else f"{mean:z.1f} ± {std:.1f}"


def format_interval(value: float, low: float, high: float) -> str:
    """Write a number with its interval: "44.7 [43.1, 46.2]"; without where NaN; "–" where the number is NaN."""
    if math.isnan(value):
        return MISSING
    return f"{value:z.1f}" if math.isnan(low) else f"{value:z.1f} [{low:z.1f}, {high:z.1f}]"


def format_signed(value: float, decimals: int = 1) -> str:
    """Write a difference with its sign: "+2.9", "-0.6", "0.0" (never "-0.0"), "–" where NaN."""
    if math.isnan(value):
        return MISSING
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def format_difference(value: float, low: float, high: float, decimals: int = 1) -> str:
    """Write a difference with its interval: "+2.9 [-0.1, +5.9]"; without where NaN."""
    text = format_signed(value, decimals)
    return text if math.isnan(low) else f"{text} [{format_signed(low, decimals)}, {format_signed(high, decimals)}]"


def latex_escape(text: str) -> str:
    """Escape text for LaTeX; the mathematical signs of our tables become math, a minus before a digit too."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    return "".join(_LATEX.get(character, character) for character in text)


# ------------------------------------------------------------------------------------ files
def render_table(table, path_stem, *, caption: str, notes: Sequence[str] = ()) -> dict[str, Path]:
    """Write ``<stem>.html .md .tex``, ``.csv`` (unrounded) and ``.json`` of a frame or a comparison: ending -> path."""
    notes, stem = list(notes), Path(path_stem)
    facts = {"comparable": False, "outside_tolerance": False}
    if isinstance(table, pd.DataFrame):
        raw = shown = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
    else:
        facts = {"comparable": table.comparable, "outside_tolerance": table.outside_tolerance}
        notes, raw, shown = [*table.notes, *notes], table.frame, table.display()
    right = [pd.api.types.is_numeric_dtype(shown[name]) or _looks_numeric(shown[name]) for name in shown.columns]
    text = shown.map(_text)
    name = re.sub(r"[^A-Za-z0-9]+", "-", stem.name).strip("-")
    contents = {
        "html": _html(text, right, name, caption, notes),
        "md": _markdown(text, right, caption, notes),
        "tex": _latex(text, right, name, caption, notes),
        "csv": raw.to_csv(index=False, lineterminator="\n", float_format="%.10g"),
        "json": json.dumps({**facts, "caption": caption, "notes": notes}, indent=1, sort_keys=True) + "\n",
    }
    return {ending: atomic_write(stem.with_name(f"{stem.name}.{ending}"), data) for ending, data in contents.items()}


def _text(value) -> str:
    if pd.isna(value):
        return MISSING
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _looks_numeric(column: pd.Series) -> bool:
    """Whether each cell of text starts with a number (or is missing)."""
    return len(column) > 0 and all(re.match(rf"({MISSING}$|[±+-]? ?\d)", str(cell)) for cell in column)


def _html(text: pd.DataFrame, right: list[bool], name: str, caption: str, notes: list[str]) -> str:
    from pandas.io.formats.style import Styler

    classes = pd.DataFrame("", index=text.index, columns=text.columns)
    classes.loc[:, right] = "right"
    styler = Styler(text, cell_ids=False).hide(axis="index").set_caption(html.escape(caption))
    styler = styler.format(escape="html").format_index(escape="html", axis=1)
    styler = styler.set_td_classes(classes).set_table_styles(_TABLE_CSS)
    if any(right):
        align = [{"selector": "th", "props": "text-align:right"}]
        styler = styler.set_table_styles(dict.fromkeys(text.columns[right], align), overwrite=False)
    if "Mark" in text.columns:
        styler = styler.map(lambda mark: _MARK_CSS.get(mark, ""), subset=["Mark"])
    lines = "".join(f"<li>{html.escape(note)}</li>\n" for note in notes)
    lines = f'<ul style="font-size:smaller">\n{lines}</ul>\n' if notes else ""
    page = f'<div class="mede-table" style="overflow-x:auto">\n{styler.to_html(table_uuid=name)}{lines}</div>\n'
    return page.encode("ascii", "xmlcharrefreplace").decode()  # reads right whatever encoding the page around declares


def _markdown(text: pd.DataFrame, right: list[bool], caption: str, notes: list[str]) -> str:
    def escape(cell: str) -> str:
        return re.sub(r"([\\|<*`])", r"\\\1", cell).replace("\n", " ")

    rows = [map(escape, row) for row in [text.columns, *text.to_numpy()]]
    rows.insert(1, ["---:" if r else ":---" for r in right])
    lines = [f"**{escape(caption)}**", "", *("| " + " | ".join(row) + " |" for row in rows)]
    lines += ["", *(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _latex(text: pd.DataFrame, right: list[bool], name: str, caption: str, notes: list[str]) -> str:
    widths = [text[column].str.len().max() if len(text) else 0 for column in text.columns]
    wrapped = r">{\raggedright\arraybackslash}p{5cm}"
    kinds = [wrapped if width > _LONG else "lr"[r] for width, r in zip(widths, right, strict=True)]
    escaped = text.map(latex_escape).rename(columns=latex_escape)
    body = escaped.style.hide(axis="index").to_latex(
        hrules=True, column_format="".join(kinds), caption=latex_escape(caption), label=f"tab:{name}",
        position="t", position_float="centering",
    )  # fmt: skip
    lines = "".join(f"\\par\\smallskip{{\\footnotesize {latex_escape(note)}}}\n" for note in notes)
    if len(text.columns) > _WIDE:
        small = "\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
        body = body.replace("\\begin{tabular}", small + "\\begin{tabular}")
    return "% needs \\usepackage{booktabs,array}\n" + body.replace("\\end{table}", lines + "\\end{table}")
