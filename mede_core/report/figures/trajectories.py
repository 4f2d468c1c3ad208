"""Plots of a trajectory and its averages: how far it moves, what each epoch weighs, accuracy by epoch, GWA's sweep."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from .style import CONTEXT_STYLE, DASHED, Look, Picture, backing, beside, count_epochs, label_right, styled

AVERAGE_STYLE = {
    "GWA": Look("GWA", "#bd2a10", "P", "solid"),
    "SWA": Look("SWA", "#1f5ae0", "s", (0, (4, 1.5))),
    "EMA": Look("EMA", "#1eb26b", "^", (0, (4, 1.5, 1, 1.5))),
    "last": Look("last", "#66696d", "o", (0, (1, 1.2))),
}


def average_looks(names: Sequence[str]) -> dict[str, Look]:
    """The looks of ways to average weights."""
    return {name: AVERAGE_STYLE.get(name) or Look(name, "#c37ccf", "D", (0, (2, 1))) for name in names}


@styled
def trajectory_steps(rows: Sequence[Mapping[str, float]]):
    """How far the weights moved in each epoch, and how far they are from epoch 1: rows of epoch, moved, from_first."""
    epochs = [row["epoch"] for row in rows]
    figure = Picture(2.7)
    theme, (left, right) = figure.theme, figure.subplots(1, 2)
    left.bar(epochs[1:], [row["moved"] for row in rows[1:]], color=theme.muted, width=0.7)
    left.set(title="Moved since the epoch before", ylabel="L2 distance of the weights")
    right.plot(epochs, [row["from_first"] for row in rows], color=theme.text, marker="o", ms=4)
    right.set(title="Distance from epoch 1")
    for axes in (left, right):
        axes.set(xlim=(epochs[0] - 0.6, epochs[-1] + 0.6), ylim=(0, None))
        count_epochs(axes)
        axes.grid(axis="y")
    return figure


@styled
def weight_curves(curves: Mapping[str, np.ndarray], mu: float, sigma: float):
    """Weights over epochs 1..E of several averages: name -> [E] shares >= 0 that sum to 1; mu and sigma in epochs. A
    curve that is one epoch alone is cut off with a note, since it would flatten the others."""
    looks = average_looks(list(curves))
    epochs = np.arange(1, len(next(iter(curves.values()))) + 1)
    figure = Picture(2.9)
    theme, axes = figure.theme, figure.subplots()
    peaks = [100 * weights.max() for weights in curves.values()]
    top = 1.18 * max([peak for peak in peaks if peak <= 90] or peaks)
    axes.set(xlim=(0.5, len(epochs) + 0.5), ylim=(0, top))
    axes.axvline(mu, color=theme.muted, lw=1.0, ls=DASHED)
    axes.axvspan(mu - sigma, mu + sigma, color=theme.muted, alpha=0.13, lw=0)
    inside = np.clip(mu, *axes.get_xlim())
    side, shift = ("left", 4) if inside < 0.75 * len(epochs) else ("right", -4)
    beside(axes, rf"$\mu$ = {mu:g}, $\sigma$ = {sigma:g}", (inside, 1.0), (shift, -3),
           xycoords=("data", "axes fraction"), va="top", ha=side, fontsize=8, bbox=backing())  # fmt: skip
    labels = []
    for name, weights in curves.items():
        look, percent = looks[name], 100 * weights
        axes.plot(epochs, percent, color=look.color, ls=look.linestyle, marker=look.marker, ms=4.5, label=name)
        text = f"{name}: {percent.max():.0f} %\non epoch {epochs[percent.argmax()]}" if percent.max() > top else name
        labels.append((min(percent[-1], top), text, look))
    label_right(axes, labels)
    count_epochs(axes)
    axes.set(ylabel="weight (%)", title="What each epoch weighs in the average")
    axes.grid(axis="y")
    return figure


@styled
def trajectory_accuracy(epochs, accuracy: Mapping, averages: Mapping[str, Mapping[str, float]], *, title: str):
    """Accuracy of each epoch's weights, a panel a context (-> [E] percent), with averages of the weights (name ->
    {context: percent}) as level lines."""
    figure, looks = Picture(2.9, title), average_looks(list(averages))
    panels = figure.subplots(1, len(accuracy), squeeze=False)[0]
    for axes, (name, values) in zip(panels, accuracy.items(), strict=True):
        axes.plot(epochs, values, color=figure.theme.muted, marker="o", ms=4, label="each epoch")
        for average, found in averages.items():
            axes.axhline(found[name], color=looks[average].color, ls=looks[average].linestyle, lw=1.5)
        axes.margins(y=0.12)
        axes.set_ylim(axes.get_ylim())
        labels = [(found[name], f"{one} {found[name]:.1f}", looks[one]) for one, found in averages.items()]
        label_right(axes, labels, gap=0.085)
        axes.set_title(CONTEXT_STYLE[name].label, fontweight="normal")
        count_epochs(axes)
        axes.grid(axis="y")
    panels[0].set_ylabel("top-1 accuracy (%)")
    return figure


@styled
def gwa_heatmap(
    mu, sigma, accuracy, *, published: tuple[float, float], references: Mapping[str, float] | None = None,
    label="top-1 accuracy (%)", title="Accuracy of the Gaussian average for each center and width",
):  # fmt: skip
    """Accuracy [S, M] over a grid of GWA's sigma [S] and mu [M], in epochs, increasing; the first best cell is framed,
    ``published`` (mu, sigma) are marked, ``references`` (name -> percent) stand below the title."""
    values = np.asarray(accuracy, float)
    figure = Picture(min(6.0, 1.2 + 0.36 * len(sigma)), title)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", origin="lower", aspect="auto")
    if values.size <= 150:
        for (row, column), value in np.ndenumerate(values):
            color = "#000000" if image.norm(value) > 0.55 else "#ffffff"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=color)
    best = np.unravel_index(values.argmax(), values.shape)
    axes.add_patch(Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, ec="#bd2a10", lw=2.2))
    axes.set_xticks(range(len(mu)), [f"{value:g}" for value in mu])
    axes.set_yticks(range(len(sigma)), [f"{value:g}" for value in sigma])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel=r"center $\mu$ (epoch)", ylabel=r"width $\sigma$ (epochs)")
    at = np.interp(published[0], mu, range(len(mu))), np.interp(published[1], sigma, range(len(sigma)))
    mark = {"color": figure.theme.text, "ms": 6, "clip_on": False, "ls": ""}
    axes.plot(at[0], 1.03, marker="v", transform=axes.get_xaxis_transform(), **mark)
    axes.plot(1.015, at[1], marker="<", transform=axes.get_yaxis_transform(), **mark)
    notes = [f"framed: best, {values.max():.1f}", "triangles: published ratios"]
    notes += [f"{name} {value:.1f}" for name, value in (references or {}).items()]
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
    bar.set_label(label)
    bar.outline.set_visible(False)
    axes.set_title("; ".join(notes), fontweight="normal", fontsize=8.5, pad=12)
    return figure
