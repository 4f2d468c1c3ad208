"""How figures look and how they are saved: light and dark, the same bytes each time."""

import contextlib
import functools
import io
import json
import logging
import math
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from ...files import atomic_write

PAGE_WIDTH = 6.75  # inches
DASHED, DOTTED = (0, (4, 3)), (0, (1, 1))


@dataclass(frozen=True)
class Theme:
    text: str
    muted: str  # secondary text and axes
    grid: str
    page: str


LIGHT = Theme(text="#1f2328", muted="#656d76", grid="#d8dee4", page="#ffffff")
DARK = Theme(text="#e6edf3", muted="#9aa4af", grid="#30363d", page="#0d1117")


@dataclass(frozen=True)
class Look:
    """A label, a color, and what tells the thing apart without color."""

    label: str
    color: str
    marker: str
    linestyle: str | tuple
    hatch: str = ""


# Chosen so that any two stay apart (CIELAB distance > 20) in normal, deuteranope and protanope vision, each
# with a contrast above 2.7 to the white and the dark page; marker, line and hatch say the same without color.
METHOD_STYLE = {
    "frozen": Look("Frozen CLIP", "#66696d", "o", (0, (1, 1.2))),
    "finetune": Look("Fine-tuning", "#d68e05", "s", (0, (4, 1.5)), "///"),
    "open_vclip": Look("Open-VCLIP", "#1f5ae0", "^", (0, (4, 1.5, 1, 1.5)), "---"),
    "froster": Look("FROSTER", "#1eb26b", "D", (0, (2, 1)), "xxx"),
    "open_mede_no_gwa": Look("Open-MeDe w/o GWA", "#c37ccf", "v", (0, (6, 2)), "\\\\\\"),
    "open_mede": Look("Open-MeDe", "#bd2a10", "P", "solid"),
}
TRAINER_OF = {"plain": "finetune", "interpolated": "open_vclip", "distilled": "froster", "meta": "open_mede_no_gwa"}
CONTEXT_STYLE = {  # a test background each; "out" is the mean over the swapped ones
    "in": Look("in context", "#1f5ae0", "o", "solid"),
    "scene": Look("other scene", "#bd2a10", "s", (0, (4, 1.5))),
    "noise": Look("noise", "#d68e05", "^", (0, (1, 1.2))),
    "stripes": Look("stripes", "#c37ccf", "D", (0, (4, 1.5, 1, 1.5))),
    "out": Look("out of context", "#bd2a10", "s", (0, (4, 1.5))),
}
SUPPORT = Look("support", "#1f5ae0", "o", "solid")  # the two batches of a meta-step, in every figure of it
QUERY = Look("query", "#d68e05", "s", (0, (4, 1.5)))
_theme: ContextVar[Theme | None] = ContextVar("mede_theme", default=None)
_drawing = threading.RLock()  # matplotlib's settings are the process's: a run's curves are drawn beside a cell


# ------------------------------------------------------------------------------------ themes
@functools.cache
def _shared() -> matplotlib.RcParams:
    return matplotlib.rc_params_from_file(Path(__file__).with_name("mede.mplstyle"), use_default_template=False)


@contextlib.contextmanager
def style(dark: bool = False):
    """Draw everything inside the block for light (default) or dark pages; backgrounds stay transparent."""
    theme = DARK if dark else LIGHT
    token = _theme.set(theme)
    colors = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), theme.text)
    colors |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), theme.muted)
    try:
        with _drawing, matplotlib.rc_context():
            matplotlib.rcdefaults()  # a reader's own matplotlibrc must not change the bytes
            matplotlib.rcParams.update({**_shared(), **colors, "grid.color": theme.grid})
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
        with contextlib.nullcontext() if _theme.get() else style():
            return function(*args, **kwargs)

    return wrapper


class Picture(Figure):
    """A figure outside pyplot that a notebook shows by itself, sharp and on the page color of its theme."""

    def __init__(self, height: float, title: str = "", *, width: float = PAGE_WIDTH):
        super().__init__(figsize=(width, height), layout="constrained")
        self.theme = current_theme()
        if title:
            self.suptitle(title, x=0.01, ha="left")

    def _repr_png_(self):
        buffer = io.BytesIO()
        with style(self.theme is DARK):
            self.savefig(buffer, format="png", facecolor=self.theme.page, metadata={"Software": None})
        width, height = (round(inches * 100) for inches in self.get_size_inches())
        about = {"width": width, "height": height, "alt": self.words(), "figure": self.get_label()}
        return buffer.getvalue(), about

    def words(self) -> str:
        """What the titles and axes say, for those who do not see the picture."""
        said = [self.get_suptitle()]
        for axes in self.axes:
            said += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        plain = (" ".join(text.replace("$", "").replace("\\", "").split()) for text in said if text)
        return "; ".join(dict.fromkeys(plain))


# ------------------------------------------------------------------------------------ saving
def save_figure(draw: Callable[[], Figure], path_stem, data=None, *, run: str | None = None) -> dict[str, Path]:
    """Write what ``draw`` makes: ``<stem>.svg .dark.svg .pdf .png``, and ``.json`` with data and run where given."""
    stem = Path(path_stem)
    contents = {}
    if data is not None or run is not None:
        sidecar = {"figure": stem.name, "run": run, "data": _plain(data)}
        contents["json"] = json.dumps(sidecar, indent=1, allow_nan=False) + "\n"
    for dark, kinds in ((False, ("svg", "pdf", "png")), (True, ("dark.svg",))):
        with style(dark):
            figure = draw()
            for kind in kinds:
                contents[kind] = figure_bytes(figure, kind.rpartition(".")[2], stem.name, run)
    return {kind: atomic_write(stem.with_name(f"{stem.name}.{kind}"), content) for kind, content in contents.items()}


def figure_bytes(figure: Figure, kind: str, title: str, run: str | None = None) -> bytes:
    """A figure as "svg", "pdf" or "png", without dates."""
    about = f"mede_core figure{'' if run is None else f', run {run}'}"
    metadata = {
        "svg": {"Date": None, "Creator": None, "Title": title, "Description": about},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": title, "Subject": about},
        "png": {"Software": None, "Title": title, "Description": about},
    }[kind]
    buffer = io.BytesIO()
    facecolor = current_theme().page if kind == "png" else "none"
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of a font's own dates when a PDF embeds it
    figure.savefig(buffer, format=kind, metadata=metadata, facecolor=facecolor)
    return buffer.getvalue()


def _plain(value):
    """Plain JSON types; numbers to six significant digits, numbers that are not finite as null."""
    if isinstance(value, pd.DataFrame):
        return {str(key): _plain(value[key].tolist()) for key in value.columns}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# ------------------------------------------------------------------------------------ help for plot functions
def look_of(method: str) -> Look:
    """The fixed look of a method, also of a trainer by itself; any other is drawn in the color of the text."""
    look = METHOD_STYLE.get(TRAINER_OF.get(method, method))
    if method in TRAINER_OF:
        return replace(look, label=method)
    return look or Look(method, current_theme().text, "X", DOTTED, "...")


def contexts_in(frame: pd.DataFrame) -> list[str]:
    return [context for context in CONTEXT_STYLE if (frame["context"] == context).any()]


def panels_in(frame: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) of each panel in the order they come; one without a title where the frame lacks the column."""
    return [*frame.groupby(column, sort=False)] if column in frame else [("", frame)]


def errors(frame: pd.DataFrame) -> np.ndarray:
    """[2, N] distances down and up to the interval's ends."""
    value, low, high = (frame[name].to_numpy(float) for name in ("value", "low", "high"))
    return np.nan_to_num(np.clip(np.stack([value - low, high - value]), 0, None))


def spread_apart(positions: Sequence[float], gap: float) -> np.ndarray:
    """Move positions as little as possible (least squares) so that neighbors are at least ``gap`` apart."""
    from scipy.optimize import isotonic_regression  # slow to import

    order, steps, result = np.argsort(positions, kind="stable"), gap * np.arange(len(positions)), np.array(positions)
    result[order] = isotonic_regression(result[order] - steps).x + steps
    return result


def label_right(axes: Axes, labels: Sequence[tuple[float, str, Look]], gap: float = 0.07) -> None:
    """Write labels (y, text, look) with a sample of their line right of the axes, ``gap`` of its height apart."""
    low, high = axes.get_ylim()  # final from here on
    heights = spread_apart([(y - low) / (high - low) for y, _, _ in labels], gap)
    for height, (_, text, look) in zip(heights, labels, strict=True):
        edge = axes.figure.dpi_scale_trans + ScaledTranslation(1, height, axes.transAxes)  # inches from the right edge
        axes.plot([0.06, 0.34], [0, 0], transform=edge, clip_on=False, color=look.color, linestyle=look.linestyle)
        axes.annotate(
            text, (1, height), (28, 0), xycoords="axes fraction", textcoords="offset points", va="center", fontsize=8
        )


def beside(axes: Axes, text: str, point, shift, **kwargs) -> None:
    """Write a small text at a point, moved by a shift in points."""
    axes.annotate(text, point, shift, textcoords="offset points", **{"fontsize": 7.5, **kwargs})


def backing() -> dict:
    """A box behind text, in the color of the page, that keeps it readable where lines cross it."""
    return {"boxstyle": "square,pad=0.08", "fc": current_theme().page, "ec": "none", "alpha": 0.8}


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def count_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
