"""The method as a diagram: a step on two batches, an average over the epochs, a test in and out of context."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from .style import CONTEXT_STYLE, METHOD_STYLE, PAGE_WIDTH, QUERY, SUPPORT, Picture, styled

_ROUND = "round,pad=0,rounding_size=0.07"
_EPOCHS = 8


@styled
def pipeline():
    """Support batch, fast weights, query batch, update; the Gaussian average of the epochs; the two tests."""
    figure = Picture(3.5, "Open-MeDe: train across batches, average the epochs, test on other backgrounds")
    theme, axes = figure.theme, figure.subplots()
    axes.set(xlim=(0, PAGE_WIDTH), ylim=(0, 3.2), aspect="equal")  # inches, nearly
    axes.axis("off")
    ours = METHOD_STYLE["open_mede"].color
    then = partial(arrow, axes, color=theme.muted, lw=1.1, mutation_scale=8.5, zorder=3)
    # ---- a step
    _frame(axes, 0.05, 1.72, 6.65, 1.43, "1  Train: each step must also help on the next batch")
    steps = (
        ("support batch", r"$g_S = \nabla L_S(\theta)$", SUPPORT.color),
        ("fast weights", r"$\theta' = \theta - \alpha\, g_S$", theme.muted),
        ("query batch: the next", r"$g_Q = \nabla L_Q(\theta')$", QUERY.color),
        (r"one update of $\theta$", r"along $g_S + \delta\, g_Q$", ours),
    )
    for index, (name, formula, color) in enumerate(steps):
        x = 0.2 + 1.64 * index
        _box(axes, x, 2.24, 1.4, 0.56, f"{name}\n{formula}", color)
        if index:
            then((x - 0.24, 2.52), (x, 2.52))
    axes.plot([5.82, 5.82, 0.9], [2.24, 2.02, 2.02], color=theme.muted, lw=1.1)
    then((0.9, 2.02), (0.9, 2.24))
    axes.text(3.36, 1.97, "the next pair of batches", fontsize=7.5, ha="center", va="top", color=theme.muted)
    # ---- the average
    _frame(axes, 0.05, 0.05, 4.0, 1.32, "2  Average: Gaussian weights over the epochs")
    epochs = np.arange(1, _EPOCHS + 1)
    weights = np.exp(-0.5 * ((epochs - 0.68 * _EPOCHS) / (0.45 * _EPOCHS)) ** 2)
    axes.bar(0.1 + 0.27 * epochs, 0.5 * weights, 0.18, bottom=0.42, color=ours)
    axes.text(0.28, 0.36, r"epoch 1   …", fontsize=7.5, va="top", color=theme.muted)
    axes.text(0.1 + 0.27 * _EPOCHS, 0.36, "E", fontsize=7.5, ha="center", va="top", color=theme.muted)
    then((2.42, 0.62), (2.66, 0.62))
    _box(axes, 2.66, 0.34, 1.26, 0.56, "averaged weights\n" + r"$\Sigma_t\, w_t\, \theta_t$", ours)
    then((1.2, 1.72), (1.2, 1.37))
    axes.text(1.3, 1.545, r"the weights $\theta_t$ after each epoch", fontsize=7.5, va="center", color=theme.muted)
    # ---- the tests
    _frame(axes, 4.35, 0.05, 2.35, 1.32, "3  Test: base and novel actions")
    then((4.05, 0.62), (4.35, 0.62))
    _box(axes, 4.5, 0.59, 2.05, 0.4, "in context: home scene", CONTEXT_STYLE["in"].color)
    _box(axes, 4.5, 0.13, 2.05, 0.4, "out of context: other scene", CONTEXT_STYLE["out"].color)
    return figure


def _frame(axes: Axes, x: float, y: float, width: float, height: float, title: str) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, _ROUND, fc="none", ec=axes.figure.theme.grid, lw=1.2))
    axes.text(x + 0.12, y + height - 0.09, title, fontsize=8.5, fontweight="bold", va="top")


def _box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    for face, alpha in ((color, 0.14), ("none", None)):
        axes.add_patch(FancyBboxPatch((x, y), width, height, _ROUND, fc=face, ec=color, lw=1.4, alpha=alpha))
    axes.text(x + width / 2, y + height / 2, text, fontsize=8, ha="center", va="center", linespacing=1.35)


def arrow(axes: Axes, start, end, *, zorder: int = 5, **look) -> None:
    """From a point of the data to another; ``look`` is that of a ``FancyArrowPatch``."""
    look = {"arrowstyle": "-|>", "lw": 1.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10, **look}
    axes.annotate("", end, start, zorder=zorder, annotation_clip=False, arrowprops=look)
