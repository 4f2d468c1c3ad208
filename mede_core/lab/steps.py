"""The meta-steps of a real training, one by one: what the two gradients of a step do, and what its losses were."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..report.figures.diagram import arrow
from ..report.figures.style import QUERY, SUPPORT, Picture, backing, beside, styled
from .explorers import choice, explorer, slider
from .scenes import Redrawn


def with_cosine(metrics: pd.DataFrame) -> pd.DataFrame:
    norms = metrics["support_grad_norm"] * metrics["query_grad_norm"]
    return metrics.assign(cosine=(metrics["grad_inner_product"] / norms).fillna(0.0)).reset_index(drop=True)


@styled
def real_step(metrics: pd.DataFrame, row: int, query_weight: float = 1.0):
    """One step of a run among its others: its gradients in the plane that they span (their lengths and the angle
    between them are true), both losses, and the cosine. ``metrics`` are those of a run trained by meta-steps."""
    metrics = with_cosine(metrics)
    here, step = metrics.loc[row], metrics["step"].to_numpy(float)
    figure = Picture(3.5, width=9.0)
    theme, grid = figure.theme, figure.add_gridspec(2, 2, width_ratios=[1, 1.25])
    plane, losses = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    agree = figure.add_subplot(grid[1, 1], sharex=losses)
    angle, length = np.arccos(metrics["cosine"].clip(-1, 1)), query_weight * metrics["query_grad_norm"]
    supports = np.outer(metrics["support_grad_norm"], [0.0, -1.0])
    queries = np.column_stack([length * np.sin(angle), -length * np.cos(angle)])
    support, query = supports[row], queries[row]
    arrows = ((support + query, theme.muted, 3.6, "update", 5), (support, SUPPORT.color, 1.8, r"$-g_S$", -26),
              (query, QUERY.color, 1.8, r"$-\delta g_Q$", 5))  # fmt: skip
    for vector, color, width, name, shift in arrows:
        arrow(plane, (0, 0), vector, color=color, lw=width, mutation_scale=12)
        beside(plane, name, vector, (shift, -9), color=color, fontsize=9, bbox=backing())
    plane.plot(0, 0, "o", color=theme.text, ms=6)
    plane.update_datalim(np.concatenate([supports, queries, supports + queries]))  # the same frame at every step
    plane.set(aspect="equal", adjustable="datalim", xticks=[], yticks=[])
    plane.margins(0.25)
    plane.set_title(f"Step {here['step']:.0f}, epoch {here['epoch']:.0f}: both gradients")
    for look, side, other in ((SUPPORT, "before", "support_after"), (QUERY, "after", "query_before")):
        told, column = f"{look.label}, {side} the inner step", f"{look.label}_loss"
        losses.plot(step, metrics[column], color=look.color, ls=look.linestyle, lw=1.0, label=told)
        losses.plot(here["step"], here[column], look.marker, color=look.color, ms=7)
        if other in metrics:
            losses.plot(here["step"], here[other], look.marker, mec=look.color, mfc=theme.page, ms=7)
    losses.set_title("Loss")
    losses.legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=2)
    agree.plot(step, metrics["cosine"], color=theme.text, lw=1.0)
    agree.plot(here["step"], here["cosine"], "o", color=theme.text, ms=7)
    agree.axhline(0, color=theme.muted, lw=0.9)
    agree.set(xlabel="step", ylabel=r"cosine of $g_S$, $g_Q$", title="Do the batches agree?")
    for axes in (losses, agree):
        axes.axvline(here["step"], color=theme.muted, lw=0.9)
        axes.grid(axis="y")
    losses.tick_params(labelbottom=False)
    return figure


def steps_explorer(runs: Mapping[str, pd.DataFrame], query_weight: float = 1.0):
    """The meta-steps of real runs, one by one: a widget.

    ``runs``, by what is shown, are ``run.metrics()``, or rows of ``diagnostics.meta_trace``, which also know both
    batches' losses on the other side of the inner step.
    """

    def values(run: str, row: int) -> tuple[dict, str]:
        metrics = with_cosine(runs[run])
        here = metrics.iloc[: row + 1].iloc[-1]
        support, query = (
            " to ".join(f"{here[name]:.3f}" for name in names if name in here)
            for names in (("support_loss", "support_after"), ("query_before", "query_loss"))
        )
        text = (
            f"|g<sub>S</sub>| = <b>{here['support_grad_norm']:.3f}</b>, |g<sub>Q</sub>| = "
            f"<b>{here['query_grad_norm']:.3f}</b>, g<sub>S</sub>·g<sub>Q</sub> = {here['grad_inner_product']:+.4f} "
            f"(cosine {here['cosine']:+.2f}) &nbsp;·&nbsp; support loss {support} &nbsp;·&nbsp; query loss {query}"
        )
        return {"metrics": runs[run], "row": min(row, len(metrics) - 1), "query_weight": query_weight}, text

    longest = max(map(len, runs.values())) - 1
    controls = {"run": choice("steps of", [*runs]), "row": slider("step", 0, 0, longest)}
    return explorer(Redrawn(real_step), controls, values, "mede-steps")
