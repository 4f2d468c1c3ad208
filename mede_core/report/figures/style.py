"""How figures look and how they are saved: light and dark, the same bytes each time. See ``figures.py``."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from ...files import atomic_write

COLUMN_WIDTH, PAGE_WIDTH = 3.25, 6.75  # inches: one column, a whole page


@dataclass(frozen=True)
class Theme:
    """Colors that depend on the page: text, secondary text and axes, grid lines, the page itself."""

    name: str
    text: str
    muted: str
    grid: str
    page: str


LIGHT = Theme("light", text="#1f2328", muted="#656d76", grid="#d8dee4", page="#ffffff")
DARK = Theme("dark", text="#e6edf3", muted="#9aa4af", grid="#30363d", page="#0d1117")


@dataclass(frozen=True)
class Look:
    """One method's label, color and what tells it apart without color."""

    label: str
    color: str
    marker: str
    linestyle: str | tuple
    hatch: str


# Chosen so that any two stay apart (CIELAB distance > 20) in normal, deuteranope and protanope vision, each
# with a contrast above 2.7 to the white and the dark page; marker, line and hatch say the same without color.
METHOD_STYLE = {
    "frozen": Look("Frozen CLIP", "#66696d", "o", (0, (1, 1.2)), ""),
    "finetune": Look("Fine-tuning", "#d68e05", "s", (0, (4, 1.5)), "///"),
    "open_vclip": Look("Open-VCLIP", "#1f5ae0", "^", (0, (4, 1.5, 1, 1.5)), "---"),
    "froster": Look("FROSTER", "#1eb26b", "D", (0, (2, 1)), "xxx"),
    "open_mede_no_gwa": Look("Open-MeDe w/o GWA", "#c37ccf", "v", (0, (6, 2)), "\\\\\\"),
    "open_mede": Look("Open-MeDe", "#bd2a10", "P", "solid", ""),
}
METHOD_ORDER = tuple(METHOD_STYLE)
CONTEXT_STYLE = {  # a test background each; "out" is the mean over the swapped ones
    "in": Look("in context", "#1f5ae0", "o", "solid", ""),
    "scene": Look("other scene", "#bd2a10", "s", (0, (4, 1.5)), ""),
    "noise": Look("noise", "#d68e05", "^", (0, (1, 1.2)), ""),
    "stripes": Look("stripes", "#c37ccf", "D", (0, (4, 1.5, 1, 1.5)), ""),
    "out": Look("out of context", "#bd2a10", "s", (0, (4, 1.5)), ""),
}
_theme: ContextVar[Theme | None] = ContextVar("mede_theme", default=None)


def _rc(theme: Theme) -> dict:
    return {
        "font.family": ["DejaVu Sans"], "font.size": 8.5, "text.color": theme.text,
        "axes.titlesize": 9.0, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 6.0,
        "axes.labelsize": 8.5, "axes.labelcolor": theme.text, "axes.edgecolor": theme.muted,
        "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "axes.facecolor": "none", "axes.grid": False, "grid.color": theme.grid, "grid.linewidth": 0.7,
        "xtick.color": theme.muted, "ytick.color": theme.muted, "xtick.labelcolor": theme.text,
        "ytick.labelcolor": theme.text, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
        "legend.frameon": False, "legend.fontsize": 8.0, "legend.handlelength": 2.4,
        "lines.linewidth": 1.8, "lines.markersize": 5.0, "hatch.linewidth": 0.6,
        "figure.facecolor": "none", "figure.titlesize": 10.0, "figure.titleweight": "bold",
        "figure.dpi": 100.0, "savefig.facecolor": "auto", "savefig.dpi": 200.0, "savefig.bbox": None,
        "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "mede_core",
        "image.interpolation": "nearest", "mathtext.fontset": "dejavusans", "axes.unicode_minus": True,
    }  # fmt: skip


# ------------------------------------------------------------------------------------ themes
@contextlib.contextmanager
def style(dark: bool = False):
    """Draw everything inside the block for light (default) or dark pages.

    Args:
        dark: light lines and text for a dark page; backgrounds stay transparent.

    Returns:
        A context manager; afterwards matplotlib's settings are as they were.
    """
    theme = DARK if dark else LIGHT
    token = _theme.set(theme)
    try:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # a reader's own matplotlibrc must not change the bytes
            matplotlib.rcParams.update(_rc(theme))
            yield theme
    finally:
        _theme.reset(token)


def current_theme() -> Theme:
    """The theme of the innermost :func:`style` block; light outside of any."""
    return _theme.get() or LIGHT


def styled(function):
    """Make a plot function draw in the light style where it is called outside a :func:`style` block."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if _theme.get() is not None:
            return function(*args, **kwargs)
        with style():
            return function(*args, **kwargs)

    return wrapper


class Picture(Figure):
    """A figure outside pyplot that a notebook shows by itself, sharp and on the page color of its theme."""

    def __init__(self, width: float, height: float):
        super().__init__(figsize=(width, height), layout="constrained")
        self.theme = current_theme()

    def _repr_png_(self):
        buffer = io.BytesIO()
        with style(self.theme is DARK):
            self.savefig(buffer, format="png", facecolor=self.theme.page, metadata={"Software": None})
        width, height = (round(inches * 100) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}


# ------------------------------------------------------------------------------------ saving
def save_figure(
    draw: Callable[[], Figure], path_stem, data=None, *, run: str | None = None
) -> dict[str, Path]:
    """Draw a figure for light and dark pages; write ``<stem>.svg .dark.svg .pdf .png`` and ``<stem>.json``.

    Args:
        draw: makes a new figure from nothing but its own data, e.g. ``lambda: rho_dial(frame)``; called once
            for each theme, inside :func:`style`.
        path_stem: path without ending.
        data: what is plotted, for the JSON sidecar: frames, arrays, dicts, lists, numbers, text.
        run: run id, written into the sidecar and the files' metadata.

    Returns:
        Kind ("svg", "dark.svg", "pdf", "png", "json") -> path; "json" only where ``data`` or ``run`` is
        given. The SVG and PDF have a transparent background, the PNG a white one. The same data gives the
        same bytes.

    Raises:
        ValueError: ``draw`` gives no new figure each time, the stem has no name, or data has another type.
    """
    if not callable(draw):
        raise ValueError(
            f"draw is a {type(draw).__name__}; allowed: a function that draws and returns a new figure"
        )
    stem = Path(path_stem)
    if not stem.name:
        raise ValueError(f"path_stem is {str(path_stem)!r}; allowed: a path that ends in a file name")
    sidecar = {"figure": stem.name, "run": run, "data": _jsonable(data, "data")}
    contents, drawn = {}, []
    for dark, kinds in ((False, ("svg", "pdf", "png")), (True, ("dark.svg",))):
        with style(dark):
            figure = draw()
            if not isinstance(figure, Figure) or any(figure is other for other in drawn):
                raise ValueError(
                    f"draw returned {type(figure).__name__}; allowed: a new matplotlib Figure each time"
                )
            drawn.append(figure)
            for kind in kinds:
                contents[kind] = _render(figure, kind.rpartition(".")[2], stem.name, run)
    if "matplotlib.pyplot" in sys.modules:  # a draw function of the reader's own may have used it
        for figure in drawn:
            sys.modules["matplotlib.pyplot"].close(figure)
    if data is not None or run is not None:
        contents["json"] = json.dumps(sidecar, indent=1, allow_nan=False) + "\n"
    return {
        kind: atomic_write(stem.with_name(f"{stem.name}.{kind}"), content)
        for kind, content in contents.items()
    }


def _render(figure: Figure, kind: str, title: str, run: str | None) -> bytes:
    about = f"mede_core figure{'' if run is None else f', run {run}'}"
    metadata = {
        "svg": {"Date": None, "Creator": None, "Title": title, "Description": about},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": title, "Subject": about},
        "png": {"Software": None, "Title": title, "Description": about},
    }[kind]
    buffer = io.BytesIO()
    facecolor = current_theme().page if kind == "png" else "none"
    fonts = logging.getLogger("fontTools")  # it warns of the font's own dates each time it embeds it in a PDF
    level = fonts.level
    fonts.setLevel(logging.ERROR)
    try:
        figure.savefig(buffer, format=kind, metadata=metadata, facecolor=facecolor)
    finally:
        fonts.setLevel(level)
    return buffer.getvalue()


def _jsonable(value, name: str):
    """Plain JSON types; numbers to six significant digits, numbers that are not finite as null."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (np.bool_, np.integer, int)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, pd.DataFrame):
        return {str(key): _jsonable(value[key].tolist(), f"{name}.{key}") for key in value.columns}
    if isinstance(value, (np.ndarray, pd.Series)):
        return _jsonable(value.tolist(), name)
    if isinstance(value, dict):
        return {str(key): _jsonable(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item, name) for item in value]
    raise ValueError(
        f"{name} is a {type(value).__name__}; allowed: frames, arrays, dicts, lists, numbers, text"
    )


# ------------------------------------------------------------------------------------ help for plot functions
def look_of(method: str) -> Look:
    """The fixed look of a method; an unknown one is a ValueError."""
    return look_at(METHOD_STYLE, method, "method")


def check_frame(
    frame: pd.DataFrame, columns: Sequence[str], numbers: Sequence[str] = ("value",)
) -> pd.DataFrame:
    """A frame with all ``columns``, at least one row, and finite numbers where numbers are plotted.

    Raises:
        ValueError: otherwise, naming the column.
    """
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"frame lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise ValueError("frame has no rows; nothing to plot")
    for column in numbers:
        values = pd.to_numeric(frame[column], errors="coerce")
        if not np.isfinite(values).all():
            raise ValueError(
                f"{column} has values that are not finite: {list(frame[column][~np.isfinite(values)][:3])}"
            )
    if "method" in columns:
        for method in frame["method"].unique():
            look_of(method)
    return frame


def methods_in(frame: pd.DataFrame) -> list[str]:
    """The frame's methods in the fixed order."""
    return [method for method in METHOD_ORDER if (frame["method"] == method).any()]


def spread(positions: Sequence[float], gap: float) -> np.ndarray:
    """Move positions as little as possible (least squares) so that neighbors are at least ``gap`` apart."""
    order = np.argsort(positions, kind="stable")
    blocks: list[list[float]] = []  # pooled: [sum of shifted positions, count]
    for rank, index in enumerate(order):
        blocks.append([positions[index] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    shifted = np.repeat([total / count for total, count in blocks], [int(count) for _, count in blocks])
    result = np.empty(len(order))
    result[order] = shifted + gap * np.arange(len(order))
    return result


def label_right(axes: Axes, labels: Sequence[tuple[float, str, Look]], gap: float = 0.07) -> None:
    """Write labels beside the right edge, each with a sample of its line, spread so that none overlap.

    Args:
        axes: with its final y limits.
        labels: (y in data units, text, look).
        gap: least distance in axes heights.
    """
    low, high = axes.get_ylim()
    heights = spread([(y - low) / (high - low) for y, _, _ in labels], gap)
    inches = axes.figure.dpi_scale_trans
    for height, (_, text, look) in zip(heights, labels, strict=True):
        edge = inches + ScaledTranslation(
            1, height, axes.transAxes
        )  # inches from the right edge at this height
        axes.plot(
            [0.06, 0.34], [0, 0], transform=edge, clip_on=False, color=look.color, linestyle=look.linestyle
        )
        axes.annotate(text, (1, height), (28, 0), xycoords="axes fraction", textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip


def backing() -> dict:
    """A box behind text, in the color of the page, that keeps it readable where lines cross it."""
    return {"boxstyle": "square,pad=0.08", "fc": current_theme().page, "ec": "none", "alpha": 0.8}


def look_at(table: dict[str, Look], key: str, what: str) -> Look:
    """The look of a key of a style table.

    Raises:
        ValueError: an unknown key; ``what`` names it.
    """
    if key not in table:
        raise ValueError(f"{what} is {key!r}; allowed: {', '.join(table)}")
    return table[key]


def errors(frame: pd.DataFrame) -> np.ndarray | None:
    """[2, N] distances down and up to the interval's ends; None without the columns ``low`` and ``high``."""
    if "low" not in frame or "high" not in frame:
        return None
    values = frame["value"].to_numpy(float)
    low, high = frame["low"].to_numpy(float), frame["high"].to_numpy(float)
    if (low > values + 1e-9).any() or (high < values - 1e-9).any():
        raise ValueError("low and high must enclose value in every row")
    return np.nan_to_num(np.clip(np.stack([values - low, high - values]), 0, None))


def finite(name: str, value, dimensions: int) -> np.ndarray:
    """The value as a float array of so many dimensions, not empty and finite; otherwise a ValueError."""
    array = np.asarray(value, float)
    if array.ndim != dimensions or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} is {array.shape}; allowed: {dimensions} dimensions of finite numbers")
    return array
