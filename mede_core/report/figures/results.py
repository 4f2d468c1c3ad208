"""Plots of results. Frames have a row a number: ``method``, ``value`` in percent, ``low`` and ``high``, the ends of
its 95 % interval; a method has one number a place. Bounds: percent a context, for a learner blind to frame order."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..intervals import VERDICT_FROM
from ..tables import in_order
from .style import (
    CONTEXT_STYLE,
    DASHED,
    DOTTED,
    METHOD_STYLE,
    PAGE_WIDTH,
    Picture,
    backing,
    beside,
    contexts_in,
    current_theme,
    errors,
    label_right,
    look_of,
    name_rows,
    panels_in,
    styled,
)


@styled
def bar_in_out(
    frame: pd.DataFrame, *, bound: Mapping[str, float], title: str, chance: float | None = None, width=PAGE_WIDTH
):
    """Bars of accuracy, a group a ``context``; lines mark chance and the bounds."""
    contexts, methods, figure = contexts_in(frame), in_order(frame["method"]), Picture(3.3, width=width)
    theme, axes = figure.theme, figure.subplots()
    bar = min(0.82 / len(methods), 0.25)
    for index, method in enumerate(methods):
        look, part = look_of(method), frame[frame["method"] == method]
        at = [contexts.index(context) + (index - (len(methods) - 1) / 2) * bar for context in part["context"]]
        axes.bar(at, part["value"], bar * 0.9, color=look.color, hatch=look.hatch,
                 edgecolor=theme.page, linewidth=0, label=look.label)  # fmt: skip
        ends = errors(part)
        axes.errorbar(at, part["value"], ends, fmt="none", ecolor=theme.text, elinewidth=0.9, capsize=1.5)
        for x, value, up, context in zip(at, part["value"], ends[1], part["context"], strict=True):
            top, line = value + up, bound[context]
            top = line if 0 <= line - top < 8 else top  # a number is 7 % high: it would be struck through
            beside(axes, f"{value:.0f}", (x, top), (0, 3), ha="center", fontsize=7, bbox=backing(), zorder=5)
    handles, _ = axes.get_legend_handles_labels()
    if chance is not None:
        line = {"color": theme.text, "lw": 0.9, "ls": DASHED}
        axes.axhline(chance, **line)
        handles.append(Line2D([], [], **line, label=f"chance ({chance:.1f} %)"))
    line = {"color": theme.text, "lw": 1.4, "ls": DOTTED}
    for at, context in enumerate(contexts):
        axes.hlines(bound[context], at - 0.45, at + 0.45, **line)
    handles.append(Line2D([], [], **line, label="order-blind bound"))
    axes.set_xticks(range(len(contexts)), [CONTEXT_STYLE[context].label for context in contexts])
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-0.6, len(contexts) - 0.4), ylim=(0, 108), ylabel="top-1 accuracy (%)", title=title)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y")
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


@styled
def lines_base_novel(frame: pd.DataFrame, *, title: str = "Base and novel classes", width: float = PAGE_WIDTH):
    """A line a method from its novel (hollow) to its base (filled) accuracy, the harmonic mean as a tick: ``split`` is
    "base", "novel" or "hm"; an optional ``set`` gives a panel each, where a method may be missing."""
    panels = panels_in(frame, "set")
    methods, columns = in_order(frame["method"]), min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Picture(0.6 + rows * (0.65 + 0.34 * len(methods)), title, width=width)
    theme = figure.theme
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (panel, part) in zip(grid, panels):
        for method, own in part.groupby("method"):
            row, look, own = methods.index(method), look_of(method), own.set_index("split")
            base, novel = own.loc["base", "value"], own.loc["novel", "value"]
            axes.plot([novel, base], [row, row], color=look.color, lw=1.4, ls=look.linestyle, zorder=2)
            axes.plot(base, row, look.marker, color=look.color, ms=6.5, zorder=3)
            axes.plot(novel, row, look.marker, mec=look.color, mfc=theme.page, mew=1.5, ms=6.5, zorder=3)
            numbers = own.loc[["base", "novel"], ["value", "low", "high"]].to_numpy(float)
            for _, low, high in numbers:
                axes.plot([low, high], [row, row], color=look.color, lw=5, alpha=0.3, solid_capstyle="butt")
            beside(axes, f"{min(base, novel):.1f}", (numbers.min(), row), (-7, 0), ha="right", va="center")
            beside(axes, f"{max(base, novel):.1f}", (numbers.max(), row), (7, 0), ha="left", va="center")
            axes.plot(own.loc["hm", "value"], row, "|", color=theme.text, ms=13, mew=1.6, zorder=4)
        name_rows(axes, [look_of(method).label for method in methods])
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.margins(x=0.22 if columns == 1 else 0.38)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("top-1 accuracy (%)")
        axes.set_title(panel, fontweight="normal")
    dot = {"ls": "", "marker": "o", "ms": 6.5}
    handles = [
        Line2D([], [], color=theme.muted, **dot, label="base"),
        Line2D([], [], mec=theme.muted, mfc=theme.page, mew=1.5, **dot, label="novel"),
        Line2D([], [], ls="", marker="|", color=theme.text, ms=11, mew=1.6, label="harmonic mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def rho_dial(frame: pd.DataFrame, *, title: str, width: float = PAGE_WIDTH, **levels):
    """Accuracy against rho, a line a method, a panel a context; ``levels``: chance, bound, for :func:`dial_curves`."""
    figure = Picture(3.0, title, width=width)
    dial_curves(figure, frame, **levels)
    return figure


def dial_curves(figure, frame: pd.DataFrame, *, chance: float | None = None, bound: Mapping[str, float] | None = None):
    """The panels of :func:`rho_dial` on a figure or a part of one; returns their axes, in the order of contexts."""
    panels, theme = contexts_in(frame), current_theme()
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        part, ends = frame[frame["context"] == panel], []
        for method in in_order(part["method"]):
            look, own = look_of(method), part[part["method"] == method].sort_values("rho")
            axes.plot(own["rho"], own["value"], color=look.color, ls=look.linestyle, marker=look.marker)
            few = own["seeds"].between(2, VERDICT_FROM - 1)  # hollow and without a band, whose width would be all luck
            for point in own[few].itertuples():
                axes.plot(point.rho, point.value, color=look.color, ls="", marker=look.marker, mfc=theme.page)
            axes.fill_between(own["rho"], own["low"], own["high"], where=~few, color=look.color, alpha=0.15, lw=0)
            ends.append((own["value"].iloc[-1], look.label, look))
        axes.set_ylim(0, 103)
        blind = None if bound is None else bound[panel]
        for level, text, line in ((chance, "chance", DASHED), (blind, "order-blind bound", DOTTED)):
            if level is not None:
                axes.axhline(level, color=theme.muted, lw=1.0, ls=line)
                above = 2 if level <= 50 else -9  # towards the middle: curves crowd where accuracy is high
                beside(axes, text, (0.0, level), (2, above), xycoords=("axes fraction", "data"), color=theme.text)
        axes.grid(axis="y")
        axes.set_xlabel(r"$\rho$: share of training clips at home")
        axes.set_title(f"tested {CONTEXT_STYLE[panel].label}", fontweight="normal")
    label_right(axes, ends)  # the last panel's
    grid[0].set_ylabel("top-1 accuracy (%)")
    return grid


@styled
def cost_ratios(ratios: pd.DataFrame, *, title: str = "What a training step costs"):
    """Horizontal bars of ratios to a reference method, a row a method, a panel a column; a line marks 1."""
    ratios = ratios.dropna()
    figure = Picture(0.9 + 0.26 * len(ratios), title)
    grid = figure.subplots(1, len(ratios.columns), sharey=True, squeeze=False)[0]
    for axes, (name, panel) in zip(grid, ratios.items(), strict=True):
        for at, (method, ratio) in enumerate(panel.items()):
            look = look_of(method)
            axes.barh(at, ratio, 0.68, color=look.color, hatch=look.hatch, edgecolor=figure.theme.page, linewidth=0)
            beside(axes, f"{ratio:.2f}", (ratio, at), (3, 0), va="center", bbox=backing(), zorder=5)
        axes.axvline(1, color=figure.theme.text, lw=0.9, ls=DASHED)
        axes.set_xlim(0, 1.22 * max(1.0, panel.max()))
        axes.set_title(name, fontweight="normal", fontsize=8.5)
        name_rows(axes, [look_of(method).label for method in ratios.index])
    grid[0].invert_yaxis()
    return figure


# ------------------------------------------------------------------------------------ comparisons
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
