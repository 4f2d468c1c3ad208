"""Plots of training: losses over steps, what an inner step does to two batches, the meta-step with two parameters."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .diagram import arrow
from .style import DASHED, PAGE_WIDTH, QUERY, SUPPORT, Picture, backing, beside, label_right, styled

_SMOOTH = 0.9  # factor of the running mean


@styled
def training_curves(metrics: pd.DataFrame, *, warmup_epochs: int = 0, title: str = "Training"):
    """Losses, agreement of support and query gradients, and learning rate over steps, raw and as running means."""
    steps = metrics["step"].to_numpy(float)
    by_meta_steps = "query_loss" in metrics and metrics["query_loss"].notna().any()
    ratios = [1.6, 1.0, 0.7] if by_meta_steps else [1.6, 1.0]
    figure = Picture(0.7 + 1.15 * sum(ratios), title)
    theme = figure.theme
    losses, *agreement, rate = grid = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    warm = metrics.loc[metrics["epoch"] <= warmup_epochs, "step"]
    for axes in grid:
        for step in metrics.groupby("epoch")["step"].min().iloc[1:]:
            axes.axvline(step, color=theme.grid, lw=0.7, zorder=0)
        if len(warm):
            axes.axvspan(warm.min(), warm.max() + 1, color=theme.muted, alpha=0.15, lw=0)
        axes.set_xlim(steps.min(), steps.max() + 1)
        axes.grid(axis="y")

    def curve(axes: Axes, column: str, color: str, line="solid") -> float:
        values = metrics[column].to_numpy(float)
        mean = pd.Series(values).ewm(alpha=1 - _SMOOTH).mean().to_numpy()
        axes.plot(steps, values, color=color, lw=0.7, alpha=0.35)
        axes.plot(steps, mean, color=color, ls=line)
        return mean[-1]

    looks = [("support_loss", "support", SUPPORT)]
    if by_meta_steps:
        looks.append(("query_loss", "query, after\nthe inner step", QUERY))
    ends = [(curve(losses, column, look.color, look.linestyle), text, look) for column, text, look in looks]
    losses.set(ylim=(0, None), ylabel="loss")
    label_right(losses, ends, gap=0.2)
    for axes in agreement:
        curve(axes, "grad_inner_product", theme.text)
        axes.axhline(0, color=theme.muted, lw=0.9)
        axes.set_ylabel(r"$g_S \cdot g_Q$")
        for height, text in ((0.9, "batches agree"), (0.1, "batches conflict")):
            axes.text(1.015, height, text, transform=axes.transAxes, va="center", fontsize=8)
        values = metrics["grad_inner_product"]  # the limits hold zero and all but the wildest hundredth
        low, high = np.clip(np.quantile(values, [0.005, 0.995]), [-np.inf, 0], [0, np.inf])
        room = 0.15 * max(high - low, 1e-12)
        axes.set_ylim(low - room, high + room)
    rate.plot(steps, metrics["lr"], color=theme.text)
    rate.set(ylabel="learning rate", ylim=(0, None))
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    rate.set_xlabel("step (vertical lines: epochs" + (", shaded: warm-up)" if warmup_epochs else ")"))
    figure.align_ylabels()
    return figure


@styled
def inner_step_curves(rows: Sequence[Mapping[str, float]], chosen: float):
    """Change of both batches' losses by inner steps of several lengths, rising from 0; a line marks the one in use."""
    figure = Picture(2.9)
    theme, axes = figure.theme, figure.subplots()
    at = [row["inner_lr"] for row in rows]
    axes.axhline(0, color=theme.muted, lw=0.9)
    axes.axvline(chosen, color=theme.muted, lw=1.0, ls=DASHED)
    where = {"xycoords": ("data", "axes fraction"), "va": "top", "fontsize": 8}
    beside(axes, rf"$\alpha$ = {chosen:g}", (chosen, 1), (4, -3), **where)
    for look in (SUPPORT, QUERY):
        key = f"{look.label}_loss"
        change = [row[key] - rows[0][key] for row in rows]
        line = {"color": look.color, "ls": look.linestyle, "marker": look.marker, "ms": 4}
        axes.plot(at, change, **line, label=f"{look.label} batch")
    axes.set_xscale("symlog", linthresh=min(value for value in at if value > 0), linscale=0.5)
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.set(xlabel=r"length of the inner step, $\alpha$", ylabel="change of the loss\n(below zero: better)")
    axes.set_title("What an inner step on the support batch does to both batches")
    axes.grid(axis="y")
    axes.legend()
    return figure


@styled
def meta_step_2d(
    x, y, support_loss, query_loss, *, theta, theta_fast, support_grad, query_grad, joint_grad, query_weight: float,
    width: float = PAGE_WIDTH,
):  # fmt: skip
    """The meta-step on two parameters (values x: [W], y: [H]; losses [H, W]): inner step, query gradient, update along
    -(g_S + delta g_Q), beside joint training's. Gradients are scaled to a readable length; the inner step is true."""
    total = support_grad + query_weight * query_grad
    longest = max(np.linalg.norm(v) for v in (support_grad, query_weight * query_grad, total, joint_grad))
    scale = 0.36 * min(np.ptp(x), np.ptp(y)) / longest
    shape = np.clip(np.ptp(y) / np.ptp(x), 0.4, 1.6)
    figure = Picture(0.285 * width * shape + 1.45, "One cross-batch meta-step, seen from above", width=width)
    theme = figure.theme
    panels = {
        "1  Inner step on\nthe support batch": support_loss,
        "2  Query gradient at\nthe fast weights": query_loss,
        "3  Both gradients move\nthe old weights": support_loss + query_weight * query_loss,
    }
    inner, query, both = grid = figure.subplots(1, 3, sharey=True)
    for axes, (text, loss) in zip(grid, panels.items(), strict=True):
        levels = np.quantile(loss, np.linspace(0.02, 0.98, 11))
        axes.contourf(x, y, loss, levels=levels, cmap="Greys", alpha=0.28, extend="both")
        axes.contour(x, y, loss, levels=levels, colors=[theme.muted], linewidths=0.5)
        axes.set_title(text, fontweight="normal", fontsize=8.5)
        axes.set(aspect="equal", xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), xlabel=r"$\theta_1$")
        axes.plot(*theta, "o", color=theme.text, ms=5, zorder=6)
    inner.set_ylabel(r"$\theta_2$")
    arrow(inner, theta, theta_fast, color=SUPPORT.color)
    _name(inner, theta, r"$\theta$", away_from=theta_fast)
    _name(inner, theta_fast, r"$\theta' = \theta - \alpha g_S$", away_from=theta)
    tip = theta_fast - scale * query_grad
    arrow(query, theta, theta_fast, color=SUPPORT.color, alpha=0.35)
    arrow(query, theta_fast, tip, color=QUERY.color)
    _name(query, theta_fast, r"$\theta'$", away_from=tip)
    _name(query, tip, r"$-g_Q$", away_from=theta_fast)
    turn, end = theta - scale * support_grad, theta - scale * total  # tip to tail, so that parallel ones stay apart
    thick = {"arrowstyle": "simple,head_length=0.9,head_width=1.1,tail_width=0.5", "fc": theme.text, "ec": "none"}
    arrow(both, theta, end, alpha=0.35, zorder=4, mutation_scale=12, **thick)
    arrow(both, theta, turn, color=SUPPORT.color)
    arrow(both, turn, end, color=QUERY.color)
    arrow(both, theta, theta - scale * joint_grad, color=theme.text, lw=1.1)
    handles = [
        Line2D([], [], color=SUPPORT.color, lw=1.8, label=r"$-g_S$"),
        Line2D([], [], color=QUERY.color, lw=1.8, label=r"$-\delta\, g_Q$"),
        Line2D([], [], color=theme.text, alpha=0.35, lw=5, label="the update"),
        Line2D([], [], color=theme.text, lw=1.1, label="joint training's (no inner step)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _name(axes: Axes, point: np.ndarray, text: str, *, away_from: np.ndarray) -> None:
    """Write beside a point, on the side that looks away from another; the panels keep their size."""
    length = np.linalg.norm(point - away_from)
    dx, dy = (point - away_from) / length if length > 0 else (0.0, 1.0)
    left, right = axes.get_xlim()
    across = (point[0] - left) / (right - left)
    if (dx > 0.4 and across > 0.9) or (dx < -0.4 and across < 0.1):  # no room beside it
        dx, dy = 0.0, 1.0
    at = {"ha": "left" if dx > 0.4 else "right" if dx < -0.4 else "center",
          "va": "bottom" if dy > 0.4 else "top" if dy < -0.4 else "center"}  # fmt: skip
    axes.annotate(text, point, (7 * dx, 7 * dy), textcoords="offset points", fontsize=9, zorder=7, bbox=backing(),
                  annotation_clip=False, **at).set_in_layout(False)  # fmt: skip
