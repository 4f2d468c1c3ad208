"""Plots of results: accuracy by background, base and novel, rho dial, attention mass. See ``figures.py``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from .style import (
    CONTEXT_STYLE,
    PAGE_WIDTH,
    Picture,
    backing,
    check_frame,
    current_theme,
    errors,
    label_right,
    look_at,
    look_of,
    methods_in,
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
    """Grouped bars: one group per background, one bar per method.

    Args:
        frame: method, context (keys of ``CONTEXT_STYLE``), value in percent; optional low, high (95 %
            interval).
        chance: accuracy of guessing, percent: a dashed line.
        bound: best accuracy of a learner that is blind to the order of frames, percent: a dotted line, or one
            per context.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, unknown methods or contexts, a method with two values in one context.
    """
    check_frame(frame, ["method", "context", "value"])
    for context in frame["context"].unique():
        look_at(CONTEXT_STYLE, context, "context")
    _once(frame, ["method", "context"])
    contexts = [context for context in CONTEXT_STYLE if (frame["context"] == context).any()]
    methods, theme = methods_in(frame), current_theme()
    figure = Picture(width, 3.3)
    axes = figure.subplots()
    bar = min(0.82 / len(methods), 0.25)
    for index, method in enumerate(methods):
        look, part = look_of(method), frame[frame["method"] == method].set_index("context")
        at = [contexts.index(context) + (index - (len(methods) - 1) / 2) * bar for context in part.index]
        bars = axes.bar(at, part["value"], bar * 0.9, color=look.color, hatch=look.hatch,
                        edgecolor=theme.page, linewidth=0, label=look.label)  # fmt: skip
        ends = errors(part)
        tops = part["value"].to_numpy(float)
        if ends is not None:
            axes.errorbar(at, part["value"], ends, fmt="none", ecolor=theme.text, elinewidth=0.9, capsize=1.5)
            tops = tops + ends[1]
        for rectangle, top, value in zip(bars, tops, part["value"], strict=True):
            x = rectangle.get_x() + rectangle.get_width() / 2
            axes.annotate(f"{value:.0f}", (x, top), (0, 3), textcoords="offset points", ha="center",
                          fontsize=7, bbox=backing(), zorder=5)  # fmt: skip
    extra = []
    if chance is not None:
        axes.axhline(chance, color=theme.text, lw=0.9, ls=(0, (4, 3)))
        extra.append(Line2D([], [], color=theme.text, lw=0.9, ls=(0, (4, 3)), label=f"chance ({chance:.1f} %)"))
    if bound is not None:
        bounds = bound if isinstance(bound, Mapping) else dict.fromkeys(contexts, bound)
        for context in contexts:
            if context in bounds:
                at = contexts.index(context)
                axes.hlines(bounds[context], at - 0.45, at + 0.45, color=theme.text, lw=1.4, ls=(0, (1, 1)))
        extra.append(Line2D([], [], color=theme.text, lw=1.4, ls=(0, (1, 1)), label="order-blind bound"))
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
def base_novel(frame: pd.DataFrame, *, title: str = "Base and novel classes", width: float = PAGE_WIDTH):
    """One line per method from its novel (hollow) to its base (filled) accuracy, the harmonic mean as a tick.

    Args:
        frame: method, split ("base", "novel", optionally "hm"), value in percent; optional low, high; an
            optional ``set`` gives one panel per set, in which a method may be missing.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, unknown methods or splits, a method without base and novel.
    """
    check_frame(frame, ["method", "split", "value"])
    unknown = sorted(set(frame["split"]) - {"base", "novel", "hm"})
    if unknown:
        raise ValueError(f"split is {unknown[0]!r}; allowed: base, novel, hm")
    keys = ["set"] if "set" in frame else []
    _once(frame, [*keys, "method", "split"])
    panels = list(frame["set"].unique()) if keys else [None]
    methods, theme = methods_in(frame), current_theme()
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Picture(width, 0.6 + rows * (0.65 + 0.34 * len(methods)))
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid, panels, strict=False):
        part = frame[frame["set"] == panel] if keys else frame
        for row, method in enumerate(methods):
            look, own = look_of(method), part[part["method"] == method].set_index("split")
            if own.empty and panel is not None:
                continue  # not tested on this set
            if not {"base", "novel"} <= set(own.index):
                raise ValueError(f"{method} has {', '.join(own.index) or 'nothing'}; needed: base and novel")
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
                axes.annotate(f"{value:.1f}", (at, row), (shift, 0), textcoords="offset points", ha=side,
                              va="center", fontsize=7.5)  # fmt: skip
            if "hm" in own.index:
                axes.plot(own.loc["hm", "value"], row, "|", color=theme.text, ms=13, mew=1.6, zorder=4)
        axes.set_yticks(range(len(methods)), [look_of(method).label for method in methods])
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.margins(x=0.22 if columns == 1 else 0.38)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("top-1 accuracy (%)")
        if panel is not None:
            axes.set_title(panel, fontweight="normal")
    handles = [
        Line2D([], [], ls="", marker="o", color=theme.muted, ms=6.5, label="base"),
        Line2D([], [], ls="", marker="o", mec=theme.muted, mfc=theme.page, mew=1.5, ms=6.5, label="novel"),
    ]
    if (frame["split"] == "hm").any():
        handles.append(Line2D([], [], ls="", marker="|", color=theme.text, ms=11, mew=1.6, label="harmonic mean"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


@styled
def rho_dial(
    frame: pd.DataFrame,
    *,
    chance: float | None = None,
    bound: float | Mapping[str, float] | None = None,
    title: str = "Accuracy by how often the scene gives the action away in training",
    width: float = PAGE_WIDTH,
):
    """Accuracy against the scene-action correlation rho of the training clips, one line per method.

    Args:
        frame: rho (0 to 1), method, value in percent; optional low, high; an optional ``context`` gives one
            panel per background.
        chance: accuracy of guessing, percent.
        bound: best accuracy of a learner that is blind to the order of frames, percent; or one for each ``context``.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, unknown methods, rho out of range, two values for one point.
    """
    check_frame(frame, ["rho", "method", "value"], ["rho", "value"])
    if not frame["rho"].between(0, 1).all():
        raise ValueError(f"rho runs from {frame['rho'].min()} to {frame['rho'].max()}; allowed: 0 to 1")
    keys = ["context"] if "context" in frame else []
    _once(frame, [*keys, "method", "rho"])
    panels = [c for c in CONTEXT_STYLE if (frame["context"] == c).any()] if keys else [None]
    if keys:
        for context in frame["context"].unique():
            look_at(CONTEXT_STYLE, context, "context")
    figure, theme = Picture(width, 3.0), current_theme()
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        part = frame[frame["context"] == panel] if keys else frame
        ends = []
        for method in methods_in(part):
            look, own = look_of(method), part[part["method"] == method].sort_values("rho")
            axes.plot(own["rho"], own["value"], color=look.color, ls=look.linestyle, marker=look.marker)
            if errors(own) is not None:
                x, low, high = (own[name].to_numpy(float) for name in ("rho", "low", "high"))
                axes.fill_between(x, low, high, color=look.color, alpha=0.15, lw=0)
            ends.append((own["value"].iloc[-1], look.label, look))
        axes.set_ylim(0, 103)
        blind = bound.get(panel) if isinstance(bound, Mapping) else bound
        for level, text, line in ((chance, "chance", (0, (4, 3))), (blind, "order-blind bound", (0, (1, 1)))):
            if level is not None:
                axes.axhline(level, color=theme.muted, lw=1.0, ls=line)
                above = 2 if level <= 50 else -9  # towards the middle: curves crowd where accuracy is high
                axes.annotate(text, (0.0, level), (2, above), xycoords=("axes fraction", "data"),
                              textcoords="offset points", fontsize=7.5, color=theme.text)  # fmt: skip
        axes.grid(axis="y")
        axes.set_xlabel(r"$\rho$: share of training clips at home")
        if panel is not None:
            where = CONTEXT_STYLE[panel].label
            axes.set_title(f"tested {where if panel in ('in', 'out') else 'on ' + where}", fontweight="normal")
        if axes is grid[-1]:
            label_right(axes, ends)
    grid[0].set_ylabel("top-1 accuracy (%)")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


@styled
def actor_mass(
    frame: pd.DataFrame,
    *,
    area: float,
    title: str = "How much of the attention falls on the actor",
    width: float = PAGE_WIDTH,
):
    """Attention mass on the actor, one line per method, beside the share of the area that the actor covers.

    Args:
        frame: method, value in percent of the attention; optional low, high; an optional ``context`` gives
            one marker per background in each line.
        area: the actor's share of the area in percent: what a model that looks everywhere evenly scores.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, unknown methods or contexts, an area out of range, two values for one
            point.
    """
    check_frame(frame, ["method", "value"])
    if not 0 < area < 100:
        raise ValueError(f"area is {area}; allowed: between 0 and 100 (percent)")
    keys = ["context"] if "context" in frame else []
    _once(frame, [*keys, "method"])
    contexts = [c for c in CONTEXT_STYLE if (frame["context"] == c).any()] if keys else [None]
    if keys:
        for context in frame["context"].unique():
            look_at(CONTEXT_STYLE, context, "context")
    methods, theme = methods_in(frame), current_theme()
    figure = Picture(width, 1.05 + (0.18 + 0.16 * len(contexts)) * len(methods) + (0.25 if keys else 0))
    axes = figure.subplots()
    step = 0.7 / len(contexts)
    for index, context in enumerate(contexts):
        part = frame[frame["context"] == context] if keys else frame
        part = part.set_index("method").reindex([m for m in methods if (part["method"] == m).any()])
        rows = np.array([methods.index(m) for m in part.index]) + (index - (len(contexts) - 1) / 2) * step
        ends = errors(part)
        if context is not None:
            looks = [CONTEXT_STYLE[context]] * len(part)
        else:
            looks = [look_of(method) for method in part.index]
        for place, (row, look, value) in enumerate(zip(rows, looks, part["value"], strict=True)):
            axes.plot([area, value], [row, row], color=look.color, lw=1.2, alpha=0.6)
            axes.plot(value, row, look.marker, color=look.color, ms=6.5, zorder=4)
            right = value
            if ends is not None:
                axes.errorbar(value, row, xerr=ends[:, place : place + 1], ecolor=theme.text, elinewidth=0.9,
                              capsize=2, fmt="none")  # fmt: skip
                right = value + ends[1, place]
            axes.annotate(f"{value:.0f} %", (max(right, area), row), (6, 0), textcoords="offset points",
                          va="center", fontsize=7.5)  # fmt: skip
    axes.axvline(area, color=theme.text, lw=1.0, ls=(0, (4, 3)))
    axes.annotate(f"even attention: {area:.0f} % (the actor's share of the area)", (area, 1.0), (3, 2),
                  xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7.5)  # fmt: skip
    axes.set_yticks(range(len(methods)), [look_of(method).label for method in methods])
    axes.set_ylim(len(methods) - 0.45, -0.55)
    axes.set_xlim(0, 1.13 * max(area, frame[["value", "high"] if "high" in frame else ["value"]].max().max()))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("attention mass on the actor (%)")
    if keys:
        handles = [Line2D([], [], ls="", marker=CONTEXT_STYLE[c].marker, color=CONTEXT_STYLE[c].color,
                          label=CONTEXT_STYLE[c].label) for c in contexts]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    axes.set_title(title, pad=16)
    return figure


def _once(frame: pd.DataFrame, keys: list[str]) -> None:
    twice = frame.duplicated(keys)
    if twice.any():
        what = ", ".join(f"{key}={frame.loc[twice, key].iloc[0]}" for key in keys)
        raise ValueError(f"frame has more than one value for {what}; average over seeds first")
