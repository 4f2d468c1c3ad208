"""Plots of the study: paired differences, quantities over the epochs, measures against the drop. See ``figures.py``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import (
    CONTEXT_STYLE,
    METHOD_STYLE,
    PAGE_WIDTH,
    Look,
    Picture,
    check_frame,
    current_theme,
    errors,
    label_right,
    look_of,
    methods_in,
    styled,
)

SERIES = tuple(METHOD_STYLE.values())  # looks for things that are no methods, in turn


@styled
def difference_forest(
    frame: pd.DataFrame,
    *,
    margin: float | None = None,
    title: str = "Paired differences",
    width: float = PAGE_WIDTH,
):
    """Paired differences with their intervals, a line each, in and out of context.

    Args:
        frame: label, quantity ("in" or "out"), value, low, high in points.
        margin: points that would matter, shaded around zero.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns or another quantity.
    """
    check_frame(frame, ["label", "quantity", "value", "low", "high"], ["value", "low", "high"])
    wrong = sorted(set(frame["quantity"]) - {"in", "out"})
    if wrong:
        raise ValueError(f"quantity is {wrong}; allowed: in, out")
    theme, labels = current_theme(), list(dict.fromkeys(frame["label"]))
    figure = Picture(width, 1.1 + 0.3 * len(labels))
    axes = figure.subplots()
    if margin is not None:
        axes.axvspan(-margin, margin, color=theme.grid, alpha=0.5, lw=0)
    axes.axvline(0, color=theme.text, lw=0.9)
    for shift, quantity in ((-0.14, "in"), (0.14, "out")):
        look, own = CONTEXT_STYLE[quantity], frame[frame["quantity"] == quantity]
        if len(own):
            heights = [labels.index(label) + shift for label in own["label"]]
            axes.errorbar(
                own["value"], heights, xerr=errors(own), fmt=look.marker, color=look.color, ms=4.5, elinewidth=1.6,
                label=look.label,
            )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("difference in points, with 95 % interval")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


@styled
def epoch_lines(
    frame: pd.DataFrame,
    *,
    label: str,
    zero: bool = False,
    title: str = "Over the epochs of training",
    width: float = PAGE_WIDTH,
):
    """A quantity over the epochs, one line a series; at most six series.

    Args:
        frame: series, epoch, value; an optional ``panel`` gives one panel for each of its values.
        label: of the vertical axis.
        zero: draw a line at zero.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, or more series than there are looks.
    """
    check_frame(frame, ["series", "epoch", "value"], ["epoch", "value"])
    names = list(dict.fromkeys(frame["series"]))
    if len(names) > len(SERIES):
        raise ValueError(f"series are {names}; allowed: at most {len(SERIES)}")
    looks = {name: METHOD_STYLE.get(name) or _look(name, i) for i, name in enumerate(names)}
    panels = list(dict.fromkeys(frame["panel"])) if "panel" in frame else [None]
    figure, theme = Picture(width, 2.8), current_theme()
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        part, ends = frame if panel is None else frame[frame["panel"] == panel], []
        for name in (n for n in names if (part["series"] == n).any()):
            look, own = looks[name], part[part["series"] == name].sort_values("epoch")
            axes.plot(own["epoch"], own["value"], color=look.color, ls=look.linestyle, marker=look.marker, ms=3.5)
            ends.append((own["value"].iloc[-1], look.label, look))
        if zero:
            axes.axhline(0, color=theme.text, lw=0.9)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        if panel is not None:
            axes.set_title(str(panel), fontweight="normal")
        if axes is grid[-1]:
            label_right(axes, ends)
    grid[0].set_ylabel(label)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _look(name: str, index: int) -> Look:
    style = SERIES[index]
    return Look(name, style.color, style.marker, style.linestyle, style.hatch)


@styled
def drop_scatter(
    frame: pd.DataFrame,
    measures: Mapping[str, str],
    *,
    title: str = "What is lost out of context, by what a learner looks at",
    width: float = PAGE_WIDTH,
):
    """The out-of-context drop against static-bias measures, one panel a measure, one mark a learner.

    Args:
        frame: method, drop (points), and a column for each measure.
        measures: column -> label of its axis.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, unknown methods, or no measure.
    """
    if not measures:
        raise ValueError("measures is empty; allowed: one or more columns")
    check_frame(frame, ["method", "drop", *measures], ["drop", *measures])
    figure = Picture(width, 3.1)
    grid = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, (column, label) in zip(grid, measures.items(), strict=True):
        for method in methods_in(frame):
            look, own = look_of(method), frame[frame["method"] == method]
            axes.plot(own[column], own["drop"], ls="", marker=look.marker, color=look.color, ms=5, alpha=0.85)
        span = np.ptp(frame[column]) or 1.0
        axes.set_xlim(frame[column].min() - 0.08 * span, frame[column].max() + 0.08 * span)
        axes.set_xlabel(label.replace(" (", "\n("))
        axes.grid()
    grid[0].set_ylabel("lost out of context\n(points)")
    marks = [
        Line2D([], [], ls="", marker=look_of(m).marker, color=look_of(m).color, label=look_of(m).label)
        for m in methods_in(frame)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), 3))
    figure.suptitle(title, x=0.01, ha="left")
    return figure
