"""Plots of results: accuracy by background, base and novel, rho dial, attention mass, cost.

Frames have a row a number: ``value`` in percent, ``method``, and optional ``low`` and ``high``, the ends of its 95 %
interval; a method has one number a place.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .style import (
    CONTEXT_STYLE,
    DASHED,
    DOTTED,
    PAGE_WIDTH,
    Picture,
    backing,
    beside,
    contexts_in,
    current_theme,
    errors,
    label_right,
    look_of,
    methods_in,
    part_of,
    styled,
)


@styled
def bar_in_out(
    frame: pd.DataFrame,
    *,
    chance: float | None = None,
    bound: float | Mapping[str, float] | None = None,
    title: str = "Accuracy in context and on swapped backgrounds",
    width: float = PAGE_WIDTH,
):
    """Bars of accuracy, a group a ``context``; lines mark chance and the best of a learner blind to frame order (one
    bound, or one a context), in percent."""
    contexts, methods, theme = contexts_in(frame), methods_in(frame), current_theme()
    figure = Picture(width, 3.3)
    axes = figure.subplots()
    bar = min(0.82 / len(methods), 0.25)
    for index, method in enumerate(methods):
        look, part = look_of(method), frame[frame["method"] == method]
        at = [contexts.index(context) + (index - (len(methods) - 1) / 2) * bar for context in part["context"]]
        bars = axes.bar(at, part["value"], bar * 0.9, color=look.color, hatch=look.hatch,
                        edgecolor=theme.page, linewidth=0, label=look.label)  # fmt: skip
        ends, tops = errors(part), part["value"].to_numpy(float)
        if ends is not None:
            axes.errorbar(at, part["value"], ends, fmt="none", ecolor=theme.text, elinewidth=0.9, capsize=1.5)
            tops = tops + ends[1]
        for rectangle, top, value in zip(bars, tops, part["value"], strict=True):
            x = rectangle.get_x() + rectangle.get_width() / 2
            beside(axes, f"{value:.0f}", (x, top), (0, 3), ha="center", fontsize=7, bbox=backing(), zorder=5)
    extra = []
    if chance is not None:
        line = {"color": theme.text, "lw": 0.9, "ls": DASHED}
        axes.axhline(chance, **line)
        extra.append(Line2D([], [], **line, label=f"chance ({chance:.1f} %)"))
    if bound is not None:
        line = {"color": theme.text, "lw": 1.4, "ls": DOTTED}
        bounds = bound if isinstance(bound, Mapping) else dict.fromkeys(contexts, bound)
        for at, context in enumerate(contexts):
            if context in bounds:
                axes.hlines(bounds[context], at - 0.45, at + 0.45, **line)
        extra.append(Line2D([], [], **line, label="order-blind bound"))
    axes.set_xticks(range(len(contexts)), [CONTEXT_STYLE[context].label for context in contexts])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(contexts) - 0.4)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("top-1 accuracy (%)")
    axes.grid(axis="y")
    handles = [*axes.get_legend_handles_labels()[0], *extra]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    axes.set_title(title)
    return figure


@styled
def lines_base_novel(frame: pd.DataFrame, *, title: str = "Base and novel classes", width: float = PAGE_WIDTH):
    """A line a method from its novel (hollow) to its base (filled) accuracy, the harmonic mean as a tick.

    frame: ``split`` is "base", "novel" or "hm"; an optional ``set`` gives a panel each, where a method may be missing.
    """
    panels = list(frame["set"].unique()) if "set" in frame else [None]
    methods, theme = methods_in(frame), current_theme()
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Picture(width, 0.6 + rows * (0.65 + 0.34 * len(methods)), title)
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid, panels):
        part = part_of(frame, "set", panel)
        for row, method in enumerate(methods):
            own = part[part["method"] == method].set_index("split")
            if len(own):
                _base_to_novel(axes, row, method, own)
        _name_rows(axes, methods)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.margins(x=0.22 if columns == 1 else 0.38)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("top-1 accuracy (%)")
        if panel is not None:
            axes.set_title(panel, fontweight="normal")
    dot = {"ls": "", "marker": "o", "ms": 6.5}
    handles = [
        Line2D([], [], color=theme.muted, **dot, label="base"),
        Line2D([], [], mec=theme.muted, mfc=theme.page, mew=1.5, **dot, label="novel"),
    ]
    if (frame["split"] == "hm").any():
        handles.append(Line2D([], [], ls="", marker="|", color=theme.text, ms=11, mew=1.6, label="harmonic mean"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _base_to_novel(axes: Axes, row: int, method: str, own: pd.DataFrame) -> None:
    look, theme = look_of(method), current_theme()
    base, novel = own.loc["base", "value"], own.loc["novel", "value"]
    axes.plot([novel, base], [row, row], color=look.color, lw=1.4, ls=look.linestyle, zorder=2)
    axes.plot(base, row, look.marker, color=look.color, ms=6.5, zorder=3)
    axes.plot(novel, row, look.marker, mec=look.color, mfc=theme.page, mew=1.5, ms=6.5, zorder=3)
    ends = own.loc[["base", "novel"]]
    reach = [ends["value"].min(), ends["value"].max()]
    if errors(ends) is not None:
        for low, high in ends[["low", "high"]].dropna().to_numpy(float):
            axes.plot([low, high], [row, row], color=look.color, lw=5, alpha=0.3, solid_capstyle="butt")
            reach = [min(reach[0], low), max(reach[1], high)]
    for value, at, side, shift in zip(sorted((base, novel)), reach, ("right", "left"), (-7, 7), strict=True):
        beside(axes, f"{value:.1f}", (at, row), (shift, 0), ha=side, va="center")
    if "hm" in own.index:
        axes.plot(own.loc["hm", "value"], row, "|", color=theme.text, ms=13, mew=1.6, zorder=4)


@styled
def rho_dial(
    frame: pd.DataFrame,
    *,
    chance: float | None = None,
    bound: float | Mapping[str, float] | None = None,
    title: str = "Accuracy by how often the scene gives the action away in training",
    width: float = PAGE_WIDTH,
):
    """Accuracy against ``rho`` (0 to 1) of the training clips, a line a method, a panel a ``context`` where given.

    chance and bound (of a learner blind to frame order; one, or one a context) are levels in percent.
    """
    panels, theme = contexts_in(frame), current_theme()
    figure = Picture(width, 3.0, title)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        part, ends = part_of(frame, "context", panel), []
        for method in methods_in(part):
            look, own = look_of(method), part[part["method"] == method].sort_values("rho")
            axes.plot(own["rho"], own["value"], color=look.color, ls=look.linestyle, marker=look.marker)
            if errors(own) is not None:
                axes.fill_between(own["rho"], own["low"], own["high"], color=look.color, alpha=0.15, lw=0)
            ends.append((own["value"].iloc[-1], look.label, look))
        axes.set_ylim(0, 103)
        blind = bound.get(panel) if isinstance(bound, Mapping) else bound
        for level, text, line in ((chance, "chance", DASHED), (blind, "order-blind bound", DOTTED)):
            if level is not None:
                axes.axhline(level, color=theme.muted, lw=1.0, ls=line)
                above = 2 if level <= 50 else -9  # towards the middle: curves crowd where accuracy is high
                beside(axes, text, (0.0, level), (2, above), xycoords=("axes fraction", "data"), color=theme.text)
        axes.grid(axis="y")
        axes.set_xlabel(r"$\rho$: share of training clips at home")
        if panel is not None:
            where = CONTEXT_STYLE[panel].label
            axes.set_title(f"tested {where if panel in ('in', 'out') else 'on ' + where}", fontweight="normal")
        if axes is grid[-1]:
            label_right(axes, ends)
    grid[0].set_ylabel("top-1 accuracy (%)")
    return figure


@styled
def mass_on_actor(frame: pd.DataFrame, *, area: float):
    """Percent of the attention on the actor, a line a method, a mark a ``context`` where given, beside the percent of
    the area that the actor covers: what a model that looks everywhere evenly scores."""
    contexts, methods, theme = contexts_in(frame), methods_in(frame), current_theme()
    several = contexts != [None]
    figure = Picture(PAGE_WIDTH, 1.05 + (0.18 + 0.16 * len(contexts)) * len(methods) + (0.25 if several else 0))
    axes = figure.subplots()
    step = 0.7 / len(contexts)
    for index, context in enumerate(contexts):
        part = part_of(frame, "context", context)
        part = part.set_index("method").reindex([m for m in methods if (part["method"] == m).any()])
        ends = errors(part)
        for place, (method, value) in enumerate(part["value"].items()):
            row = methods.index(method) + (index - (len(contexts) - 1) / 2) * step
            look = CONTEXT_STYLE[context] if several else look_of(method)
            axes.plot([area, value], [row, row], color=look.color, lw=1.2, alpha=0.6)
            axes.plot(value, row, look.marker, color=look.color, ms=6.5, zorder=4)
            right = value
            if ends is not None:
                end = {"xerr": ends[:, [place]], "ecolor": theme.text, "elinewidth": 0.9, "capsize": 2, "fmt": "none"}
                axes.errorbar(value, row, **end)
                right = value + ends[1, place]
            beside(axes, f"{value:.0f} %", (max(right, area), row), (6, 0), va="center")
    axes.axvline(area, color=theme.text, lw=1.0, ls=DASHED)
    told = f"even attention: {area:.0f} % (the actor's share of the area)"
    beside(axes, told, (area, 1.0), (3, 2), xycoords=("data", "axes fraction"))
    _name_rows(axes, methods)
    axes.set_ylim(len(methods) - 0.45, -0.55)
    axes.set_xlim(0, 1.13 * max(area, frame[["value", "high"] if "high" in frame else ["value"]].max().max()))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("attention mass on the actor (%)")
    if several:
        looks = [CONTEXT_STYLE[context] for context in contexts]
        handles = [Line2D([], [], ls="", marker=look.marker, color=look.color, label=look.label) for look in looks]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    axes.set_title("How much of the attention falls on the actor", pad=16)
    return figure


@styled
def cost_ratios(panels: Mapping[str, Mapping[str, float]], *, title: str = "What a training step costs"):
    """Horizontal bars of ratios to a reference method: quantity -> {method: ratio}, a panel each; a line marks 1."""
    methods = methods_in(pd.DataFrame({"method": [method for panel in panels.values() for method in panel]}))
    theme, figure = current_theme(), Picture(PAGE_WIDTH, 0.9 + 0.26 * len(methods), title)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, panel) in zip(grid, panels.items(), strict=True):
        for method, ratio in panel.items():
            look, at = look_of(method), methods.index(method)
            axes.barh(at, ratio, 0.68, color=look.color, hatch=look.hatch, edgecolor=theme.page, linewidth=0)
            beside(axes, f"{ratio:.2f}", (ratio, at), (3, 0), va="center", bbox=backing(), zorder=5)
        axes.axvline(1, color=theme.text, lw=0.9, ls=DASHED)
        axes.set_xlim(0, 1.22 * max([1.0, *panel.values()]))
        axes.set_title(name, fontweight="normal", fontsize=8.5)
        _name_rows(axes, methods)
    grid[0].invert_yaxis()
    return figure


def _name_rows(axes: Axes, methods: list[str]) -> None:
    axes.set_yticks(range(len(methods)), [look_of(method).label for method in methods])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
