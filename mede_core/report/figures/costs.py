"""Plot of what methods cost, as ratios. See ``figures.py``."""

from __future__ import annotations

from collections.abc import Mapping

from .style import METHOD_ORDER, PAGE_WIDTH, Picture, backing, current_theme, look_of, styled


@styled
def cost_ratios(
    panels: Mapping[str, Mapping[str, float]],
    *,
    title: str = "What a training step costs",
    width: float = PAGE_WIDTH,
):
    """Horizontal bars of ratios to a reference method, one panel a quantity.

    Args:
        panels: quantity -> {method: ratio}; a line marks 1.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: no panel, an unknown method, or a ratio that is not above 0.
    """
    methods = [method for method in METHOD_ORDER if any(method in panel for panel in panels.values())]
    unknown = sorted({method for panel in panels.values() for method in panel} - set(METHOD_ORDER))
    if not methods or unknown:
        raise ValueError(f"methods are {unknown or methods}; allowed: {', '.join(METHOD_ORDER)}")
    if any(not ratio > 0 for panel in panels.values() for ratio in panel.values()):
        raise ValueError(f"ratios are {panels}; allowed: numbers above 0")
    theme, figure = current_theme(), Picture(width, 0.9 + 0.26 * len(methods))
    for axes, (name, panel) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()):
        for at, method in enumerate(methods):
            if method in panel:
                look = look_of(method)
                axes.barh(
                    at, panel[method], 0.68, color=look.color, hatch=look.hatch, edgecolor=theme.page, linewidth=0
                )
                axes.annotate(f"{panel[method]:.2f}", (panel[method], at), (3, 0), textcoords="offset points",
                              va="center", fontsize=7.5, bbox=backing(), zorder=5)  # fmt: skip
        axes.axvline(1, color=theme.text, lw=0.9, ls=(0, (4, 3)))
        axes.set_xlim(0, 1.22 * max([1.0, *panel.values()]))
        axes.set_title(name, fontweight="normal", fontsize=8.5)
        axes.set_yticks(range(len(methods)), [look_of(method).label for method in methods])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    figure.axes[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left")
    return figure
