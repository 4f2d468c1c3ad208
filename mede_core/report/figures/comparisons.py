"""Plots of comparisons: paired differences, quantities over the epochs, what a learner looks at against its drop."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..intervals import VERDICT_FROM
from ..tables import in_order
from .style import CONTEXT_STYLE, METHOD_STYLE, Picture, errors, label_right, look_of, name_rows, panels_in, styled


@styled
def difference_forest(frame: pd.DataFrame, *, margin: float, title: str = "Paired differences"):
    """Paired differences (label, quantity "in" or "out", value, low, high in points, seeds), a row a label; too few
    seeds for a verdict are hollow. The margin, the points that would matter, is shaded around zero."""
    labels = list(dict.fromkeys(frame["label"]))
    figure = Picture(1.1 + 0.3 * len(labels), title)
    axes = figure.subplots()
    axes.axvspan(-margin, margin, color=figure.theme.grid, alpha=0.5, lw=0)
    axes.axvline(0, color=figure.theme.text, lw=0.9)
    few = frame["seeds"] < VERDICT_FROM
    for (quantity, hint), own in frame.groupby([frame["quantity"], few]):
        look, shift = CONTEXT_STYLE[quantity], {"in": -0.14, "out": 0.14}[quantity]
        heights = [labels.index(label) + shift for label in own["label"]]
        named = look.label + (f", fewer than {VERDICT_FROM} seeds" if hint else "")
        drawn = {"fmt": look.marker, "color": look.color, "ms": 4.5, "elinewidth": 1.6, "label": named}
        hollow = {"mfc": figure.theme.page} if hint else {}
        axes.errorbar(own["value"], heights, xerr=errors(own), **drawn, **hollow)
    name_rows(axes, labels)
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlabel="difference in points, with 95 % interval")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


@styled
def epoch_lines(frame: pd.DataFrame, *, label: str, zero: bool = False, title: str = "Over the epochs of training"):
    """A quantity (series, epoch, value) over the epochs, a line a series, at most six; a panel a ``panel`` where given.
    ``label`` names the vertical axis."""
    names, spare = list(dict.fromkeys(frame["series"])), list(METHOD_STYLE.values())
    looks = {name: METHOD_STYLE.get(name) or replace(spare[i], label=name) for i, name in enumerate(names)}
    panels = panels_in(frame, "panel")
    figure = Picture(2.8, title)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (panel, part) in zip(grid, panels, strict=True):
        ends = []
        for name in (n for n in names if (part["series"] == n).any()):
            look, own = looks[name], part[part["series"] == name].sort_values("epoch")
            axes.plot(own["epoch"], own["value"], color=look.color, ls=look.linestyle, marker=look.marker, ms=3.5)
            ends.append((own["value"].iloc[-1], look.label, look))
        if zero:
            axes.axhline(0, color=figure.theme.text, lw=0.9)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_title(panel, fontweight="normal")
        if axes is grid[-1]:
            label_right(axes, ends)
    grid[0].set_ylabel(label)
    return figure


@styled
def drop_scatter(frame: pd.DataFrame, measures: Mapping[str, str]):
    """The out-of-context ``drop`` in points against measures (column -> label of its axis), a mark a learner."""
    figure = Picture(3.1, "What is lost out of context, by what a learner looks at")
    methods = in_order(frame["method"])
    grid = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, (column, label) in zip(grid, measures.items(), strict=True):
        for method in methods:
            look, own = look_of(method), frame[frame["method"] == method]
            axes.plot(own[column], own["drop"], ls="", marker=look.marker, color=look.color, ms=5, alpha=0.85)
        span = np.ptp(frame[column]) or 1.0
        axes.set_xlim(frame[column].min() - 0.08 * span, frame[column].max() + 0.08 * span)
        axes.set_xlabel(label.replace(" (", "\n("))
        axes.grid()
    grid[0].set_ylabel("lost out of context\n(points)")
    looks = [look_of(method) for method in methods]
    marks = [Line2D([], [], ls="", marker=look.marker, color=look.color, label=look.label) for look in looks]
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), 3))
    return figure
