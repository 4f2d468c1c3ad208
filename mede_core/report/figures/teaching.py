"""Plots of the teaching notebooks: how far a trajectory moves, what an inner step does to two batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .style import PAGE_WIDTH, Picture, current_theme, styled

_SUPPORT, _QUERY = "#1f5ae0", "#d68e05"  # as in figures.meta_step_2d


@styled
def trajectory_steps(rows: Sequence[Mapping[str, float]]) -> Figure:
    """How far the weights moved in each epoch, and how far they are from epoch 1.

    Args:
        rows: of ``mede_core.trajectory.movement``: ``epoch``, ``moved``, ``from_first``.

    Returns:
        Figure.

    Raises:
        ValueError: fewer than two epochs.
    """
    if len(rows) < 2:
        raise ValueError(f"rows holds {len(rows)} epochs; allowed: at least 2")
    epochs = [row["epoch"] for row in rows]
    theme, figure = current_theme(), Picture(PAGE_WIDTH, 2.7)
    left, right = figure.subplots(1, 2)
    left.bar(epochs[1:], [row["moved"] for row in rows[1:]], color=theme.muted, width=0.7)
    left.set(title="Moved since the epoch before", ylabel="L2 distance of the weights")
    right.plot(epochs, [row["from_first"] for row in rows], color=theme.text, marker="o", ms=4)
    right.set(title="Distance from epoch 1")
    for axes in (left, right):
        axes.set(xlabel="epoch", xlim=(epochs[0] - 0.6, epochs[-1] + 0.6))
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
    return figure


@styled
def inner_step_curves(rows: Sequence[Mapping[str, float]], chosen: float) -> Figure:
    """Losses of support and query batch after inner steps of several lengths.

    Args:
        rows: of ``lab.probe.inner_step_losses``: ``inner_lr`` (rising from 0), ``support_loss``, ``query_loss``.
        chosen: the inner_lr in use, a line.

    Returns:
        Figure.

    Raises:
        ValueError: no row for 0, which the others are compared with.
    """
    if not rows or rows[0]["inner_lr"] != 0:
        raise ValueError("rows must begin with inner_lr 0: the losses before the step")
    theme, figure = current_theme(), Picture(PAGE_WIDTH, 2.9)
    axes = figure.subplots()
    at = [row["inner_lr"] for row in rows]
    axes.axhline(0, color=theme.muted, lw=0.9)
    axes.axvline(chosen, color=theme.muted, lw=1.0, ls=(0, (4, 3)))
    axes.annotate(
        rf"$\alpha$ = {chosen:g}", (chosen, 1), (4, -3),
        xycoords=("data", "axes fraction"), textcoords="offset points", va="top", fontsize=8,
    )  # fmt: skip
    for name, color, line, marker in (
        ("support", _SUPPORT, "solid", "o"),
        ("query", _QUERY, (0, (4, 1.5)), "s"),
    ):
        change = [row[f"{name}_loss"] - rows[0][f"{name}_loss"] for row in rows]
        axes.plot(at, change, color=color, ls=line, marker=marker, ms=4, label=f"{name} batch")
    axes.set_xscale("symlog", linthresh=min(value for value in at if value > 0), linscale=0.5)
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.set(
        xlabel=r"length of the inner step, $\alpha$",
        ylabel="change of the loss\n(below zero: better)",
        title="What an inner step on the support batch does to both batches",
    )
    axes.grid(axis="y")
    axes.legend()
    return figure
