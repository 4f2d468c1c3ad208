"""Plots of training: losses over steps, and the meta-step with two parameters. See ``figures.py``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .style import PAGE_WIDTH, Look, Picture, backing, check_frame, current_theme, finite, label_right, styled

_SUPPORT, _QUERY = "#1f5ae0", "#d68e05"  # one color each in every figure of the meta-step
_PATHS = (("#c37ccf", (0, (4, 1.5))), ("#bd2a10", "solid"), ("#1eb26b", (0, (1, 1.2))))


@styled
def training_curves(
    metrics: pd.DataFrame,
    *,
    warmup_epochs: int = 0,
    smooth: float = 0.9,
    title: str = "Training",
    width: float = PAGE_WIDTH,
):
    """Losses, agreement of support and query gradients, and learning rate over steps.

    Args:
        metrics: step, epoch, support_loss; optional query_loss, grad_inner_product, lr. A column that is
            missing or empty (plain training has no query) has no curve.
        warmup_epochs: epochs shaded as warm-up.
        smooth: factor of the running mean drawn over the raw values, 0 (off) to below 1.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: missing columns, values that are not finite, a smoothing factor out of range.
    """
    check_frame(metrics, ["step", "epoch", "support_loss"], ["step", "epoch", "support_loss"])
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth is {smooth}; allowed: 0 to below 1")
    optional = [
        c for c in ("query_loss", "grad_inner_product", "lr") if c in metrics and metrics[c].notna().any()
    ]
    check_frame(metrics, ["step"], optional)
    theme, steps = current_theme(), metrics["step"].to_numpy(float)
    panels = ["losses", *(name for name in ("grad_inner_product", "lr") if name in optional)]
    ratios = [1.6, 1.0, 0.7][: len(panels)]
    figure = Picture(width, 0.7 + 1.15 * sum(ratios))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    _boundaries(grid, metrics, warmup_epochs)

    def curve(axes: Axes, column: str, color: str, line="solid") -> float:
        values = metrics[column].to_numpy(float)
        mean = pd.Series(values).ewm(alpha=1 - smooth).mean().to_numpy()
        axes.plot(steps, values, color=color, lw=0.7, alpha=0.35)
        axes.plot(steps, mean, color=color, ls=line)
        return mean[-1]

    losses = grid[0]
    looks = [("support_loss", "support", Look("", _SUPPORT, "o", "solid", ""))]
    if "query_loss" in optional:
        looks.append(("query_loss", "query, after\nthe inner step", Look("", _QUERY, "s", (0, (4, 1.5)), "")))
    ends = [(curve(losses, column, look.color, look.linestyle), text, look) for column, text, look in looks]
    losses.set_ylim(bottom=0)
    label_right(losses, ends, gap=0.2)
    losses.set_ylabel("loss")
    for axes, name in zip(grid[1:], panels[1:], strict=True):
        if name == "grad_inner_product":
            curve(axes, name, theme.text)
            axes.axhline(0, color=theme.muted, lw=0.9)
            axes.set_ylabel(r"$g_S \cdot g_Q$")
            for height, text in ((0.9, "batches agree"), (0.1, "batches conflict")):
                axes.text(1.015, height, text, transform=axes.transAxes, va="center", fontsize=8)
            axes.set_ylim(*_around_zero(metrics[name].to_numpy(float)))
        else:
            axes.plot(steps, metrics["lr"], color=theme.text)
            axes.set_ylabel("learning rate")
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for axes in grid:
        axes.grid(axis="y")
    grid[-1].set_xlabel("step (vertical lines: epochs" + (", shaded: warm-up)" if warmup_epochs else ")"))
    figure.align_ylabels()
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _boundaries(grid, metrics: pd.DataFrame, warmup_epochs: int) -> None:
    theme, first = current_theme(), metrics.groupby("epoch")["step"].min()
    for axes in grid:
        for step in first.iloc[1:]:
            axes.axvline(step, color=theme.grid, lw=0.7, zorder=0)
        warm = metrics.loc[metrics["epoch"] <= warmup_epochs, "step"]
        if len(warm):
            axes.axvspan(warm.min(), warm.max() + 1, color=theme.muted, alpha=0.15, lw=0)
        axes.set_xlim(metrics["step"].min(), metrics["step"].max() + 1)


def _around_zero(values: np.ndarray) -> tuple[float, float]:
    """Limits that hold zero and all but the wildest hundredth of the values."""
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.15 * max(high - low, 1e-12)
    return low - room, high + room


@styled
def meta_step_2d(
    x,
    y,
    support_loss,
    query_loss,
    *,
    theta,
    theta_fast,
    support_grad,
    query_grad,
    query_weight: float = 1.0,
    paths: Mapping[str, object] | None = None,
    minimum=None,
    title: str = "One cross-batch meta-step, seen from above",
    width: float = PAGE_WIDTH,
):
    """The meta-step on a problem with two parameters: inner step, query gradient, update.

    Args:
        x: [W] values of the first parameter.
        y: [H] values of the second.
        support_loss: [H, W] loss of the support batch at (x, y).
        query_loss: [H, W] loss of the query batch.
        theta: [2] where the step starts.
        theta_fast: [2] the fast weights theta' = theta - alpha g_S.
        support_grad: [2] g_S, the gradient of the support loss at theta.
        query_grad: [2] g_Q, the gradient of the query loss at theta'.
        query_weight: delta; the update is along -(g_S + delta g_Q).
        paths: name -> [P, 2] points visited by whole optimizations, on the third panel.
        minimum: [2] where the sum of both losses is least, marked on the third panel.
        title: above the plot.
        width: inches.

    Returns:
        Figure. Arrows of gradients are scaled to a common readable length; the inner step has its true
        length.

    Raises:
        ValueError: shapes that do not fit or values that are not finite.
    """
    x, y = finite("x", x, 1), finite("y", y, 1)
    grids = [
        finite(name, grid, 2) for name, grid in (("support_loss", support_loss), ("query_loss", query_loss))
    ]
    for grid in grids:
        if grid.shape != (len(y), len(x)):
            raise ValueError(f"losses are {grid.shape}; allowed: [len(y), len(x)] = {(len(y), len(x))}")
    named = {"theta": theta, "theta_fast": theta_fast, "support_grad": support_grad, "query_grad": query_grad}
    points = {name: finite(name, value, 1) for name, value in named.items()}
    for name, point in points.items():
        if point.shape != (2,):
            raise ValueError(f"{name} is {point.shape}; allowed: 2 numbers")
    theme = current_theme()
    start, fast, g_s, g_q = points.values()
    total = g_s + query_weight * g_q
    span = min(np.ptp(x), np.ptp(y))
    scale = 0.36 * span / max(np.linalg.norm(v) for v in (g_s, query_weight * g_q, total, [1e-12]))
    shape = min(max(np.ptp(y) / np.ptp(x), 0.4), 1.6)
    figure = Picture(width, 0.285 * width * shape + 1.45)
    grid = figure.subplots(1, 3, sharey=True)
    texts = (
        "1  Inner step on\nthe support batch", "2  Query gradient at\nthe fast weights",
        "3  Both gradients move\nthe old weights",
    )  # fmt: skip
    for axes, loss, text in zip(
        grid, (grids[0], grids[1], grids[0] + query_weight * grids[1]), texts, strict=True
    ):
        levels = np.quantile(loss, np.linspace(0.02, 0.98, 11))
        axes.contourf(x, y, loss, levels=_increasing(levels), cmap="Greys", alpha=0.28, extend="both")
        axes.contour(x, y, loss, levels=_increasing(levels), colors=[theme.muted], linewidths=0.5)
        axes.set_title(text, fontweight="normal", fontsize=8.5)
        axes.set_aspect("equal")
        axes.set_xlim(x.min(), x.max())
        axes.set_ylim(y.min(), y.max())
        axes.set_xlabel(r"$\theta_1$")
        axes.plot(*start, "o", color=theme.text, ms=5, zorder=6)
    grid[0].set_ylabel(r"$\theta_2$")
    _arrow(grid[0], start, fast, _SUPPORT)
    _name(grid[0], start, r"$\theta$", away_from=fast)
    _name(grid[0], fast, r"$\theta' = \theta - \alpha g_S$", away_from=start)
    _arrow(grid[1], start, fast, _SUPPORT, faint=True)
    _arrow(grid[1], fast, fast - scale * g_q, _QUERY)
    _name(grid[1], fast, r"$\theta'$", away_from=fast - scale * g_q)
    _name(grid[1], fast - scale * g_q, r"$-g_Q$", away_from=fast)
    turn, end = start - scale * g_s, start - scale * total  # tip to tail, so that parallel ones stay apart
    grid[2].annotate("", end, start, zorder=4, annotation_clip=False, arrowprops={
        "arrowstyle": "simple,head_length=0.9,head_width=1.1,tail_width=0.5", "fc": theme.text, "ec": "none",
        "alpha": 0.35, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 12,
    })  # fmt: skip
    _arrow(grid[2], start, turn, _SUPPORT)
    _arrow(grid[2], turn, end, _QUERY)
    handles = [
        Line2D([], [], color=_SUPPORT, lw=1.8, label=r"$-g_S$"),
        Line2D([], [], color=_QUERY, lw=1.8, label=r"$-\delta\, g_Q$"),
        Line2D([], [], color=theme.text, alpha=0.35, lw=5, label="the update"),
    ]
    for index, (name, path) in enumerate((paths or {}).items()):
        path = finite(f"paths[{name!r}]", path, 2)
        color, line = _PATHS[index % len(_PATHS)]
        handles += grid[2].plot(path[:, 0], path[:, 1], color=color, ls=line, lw=1.5, label=name, zorder=3)
    if minimum is not None:
        handles += grid[2].plot(*finite("minimum", minimum, 1), "*", color=theme.text, ms=9, zorder=6, ls="",
                                label="minimum of both losses")  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _increasing(levels: np.ndarray) -> np.ndarray:
    """Contour levels must rise: a flat loss has equal quantiles."""
    return levels + np.arange(len(levels)) * max(np.ptp(levels), 1e-9) * 1e-9


def _arrow(axes: Axes, start, end, color: str, faint: bool = False) -> None:
    axes.annotate("", end, start, zorder=5, annotation_clip=False, arrowprops={
        "arrowstyle": "-|>", "color": color, "lw": 1.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10,
        "alpha": 0.35 if faint else 1.0,
    })  # fmt: skip


def _name(axes: Axes, point, text: str, *, away_from) -> None:
    """Write beside a point, on the side that looks away from another; the panels keep their size."""
    direction = np.asarray(point, float) - np.asarray(away_from, float)
    length = np.linalg.norm(direction)
    dx, dy = direction / length if length > 0 else (0.0, 1.0)
    left, right = axes.get_xlim()
    across = (point[0] - left) / (right - left)
    if (dx > 0.4 and across > 0.9) or (dx < -0.4 and across < 0.1):  # no room beside it
        dx, dy = 0.0, 1.0
    axes.annotate(
        text, point, (7 * dx, 7 * dy), textcoords="offset points", fontsize=9, zorder=7,
        annotation_clip=False,
        ha="left" if dx > 0.4 else "right" if dx < -0.4 else "center",
        va="bottom" if dy > 0.4 else "top" if dy < -0.4 else "center",
        bbox=backing(),
    ).set_in_layout(False)  # fmt: skip
