"""Plots of averages along a trajectory: weight curves, accuracy by epoch, GWA's sweep. See ``figures.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from .style import (
    CONTEXT_STYLE,
    PAGE_WIDTH,
    Look,
    Picture,
    backing,
    current_theme,
    finite,
    label_right,
    styled,
)

AVERAGE_STYLE = {
    "GWA": Look("GWA", "#bd2a10", "P", "solid", ""),
    "SWA": Look("SWA", "#1f5ae0", "s", (0, (4, 1.5)), ""),
    "EMA": Look("EMA", "#1eb26b", "^", (0, (4, 1.5, 1, 1.5)), ""),
    "last": Look("last", "#66696d", "o", (0, (1, 1.2)), ""),
}
_OTHER = ("#c37ccf", "#d68e05")


def average_look(name: str, names: Sequence[str]) -> Look:
    """The look of a way to average weights; names beyond ``AVERAGE_STYLE`` take turns in two more colors."""
    if name in AVERAGE_STYLE:
        return AVERAGE_STYLE[name]
    others = [other for other in names if other not in AVERAGE_STYLE]
    turn = others.index(name)
    return Look(name, _OTHER[turn % 2], "Dv"[turn % 2], (0, (2 + turn // 2, 1)), "")


@styled
def weight_curves(
    curves: Mapping[str, Sequence[float]],
    mu: float | None = None,
    sigma: float | None = None,
    *,
    title: str = "What each epoch weighs in the average",
    width: float = PAGE_WIDTH,
):
    """Weights over epochs 1..E of several ways to average a trajectory.

    Args:
        curves: name ("GWA", "SWA", "EMA", "last" or other) -> [E] weights >= 0 that sum to 1.
        mu: center of the Gaussian, in epochs: a line.
        sigma: its width: a band from mu - sigma to mu + sigma; needs mu.
        title: above the plot.
        width: inches.

    Returns:
        Figure. A curve that is one epoch alone is cut off with a note, since it would flatten the others.

    Raises:
        ValueError: lengths that differ, weights that are no weights, sigma without mu or not above 0.
    """
    arrays = {name: np.asarray(weights, float) for name, weights in curves.items()}
    if not arrays or len({array.shape for array in arrays.values()}) > 1:
        raise ValueError(
            f"curves have {[len(array) for array in arrays.values()]} epochs; allowed: the same, at least 1"
        )
    for name, array in arrays.items():
        if (
            array.ndim != 1
            or not np.isfinite(array).all()
            or (array < 0).any()
            or abs(array.sum() - 1) > 1e-4
        ):
            raise ValueError(
                f"weights of {name} must be finite, >= 0 and sum to 1; they sum to {array.sum():.6g}"
            )
    if sigma is not None and (mu is None or not sigma > 0):
        raise ValueError(f"sigma is {sigma} with mu {mu}; allowed: above 0, together with mu")
    theme, epochs = current_theme(), np.arange(1, len(next(iter(arrays.values()))) + 1)
    figure = Picture(width, 2.9)
    axes = figure.subplots()
    peaks = [100 * array.max() for array in arrays.values()]
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.set_ylim(
        0, 1.18 * max([peak for peak in peaks if peak <= 90] or peaks)
    )  # one epoch alone is cut off
    if mu is not None:
        axes.axvline(mu, color=theme.muted, lw=1.0, ls=(0, (4, 3)))
        text = rf"$\mu$ = {mu:g}"
        if sigma is not None:
            axes.axvspan(mu - sigma, mu + sigma, color=theme.muted, alpha=0.13, lw=0)
            text += rf", $\sigma$ = {sigma:g}"
        inside = min(max(mu, axes.get_xlim()[0]), axes.get_xlim()[1])
        side, shift = ("left", 4) if inside < 0.75 * len(epochs) else ("right", -4)
        axes.annotate(text, (inside, 1.0), (shift, -3), xycoords=("data", "axes fraction"),
                      textcoords="offset points", va="top", ha=side, fontsize=8, bbox=backing())  # fmt: skip
    labels = []
    for name, array in arrays.items():
        look = average_look(name, list(arrays))
        axes.plot(
            epochs, 100 * array, color=look.color, ls=look.linestyle, marker=look.marker, ms=4.5, label=name
        )
        text = name
        if 100 * array.max() > axes.get_ylim()[1]:
            text = f"{name}: {100 * array.max():.0f} %\non epoch {epochs[array.argmax()]}"
        labels.append((min(100 * array[-1], axes.get_ylim()[1]), text, look))
    label_right(axes, labels)
    axes.set_xlabel("epoch")
    axes.set_ylabel("weight (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.set_title(title)
    return figure


@styled
def trajectory_accuracy(
    epochs,
    accuracy: Mapping[str, object],
    averages: Mapping[str, Mapping[str, float]] | None = None,
    *,
    title: str = "Accuracy along the trajectory, and of its averages",
    width: float = PAGE_WIDTH,
):
    """Accuracy of each epoch's weights, one panel per context, with averages of the weights as level lines.

    Args:
        epochs: [E] increasing, counted from 1.
        accuracy: context (or any panel name) -> [E] percent.
        averages: name ("GWA", "SWA", ...) -> {context: percent}.
        title: above the plot.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: lengths that do not fit, values that are not finite, an average of an unknown panel.
    """
    epochs = np.asarray(epochs, float)
    if epochs.ndim != 1 or len(epochs) == 0 or (np.diff(epochs) <= 0).any() or not accuracy:
        raise ValueError("epochs must be [E] increasing, with accuracy for at least one context")
    for name, values in accuracy.items():
        values = np.asarray(values, float)
        if values.shape != epochs.shape or not np.isfinite(values).all():
            raise ValueError(f"accuracy[{name!r}] is {values.shape}; allowed: {epochs.shape} finite numbers")
    averages = dict(averages or {})
    for name, levels in averages.items():
        unknown = sorted(set(levels) - set(accuracy))
        if unknown:
            raise ValueError(f"averages[{name!r}] names {unknown[0]!r}; allowed: {', '.join(accuracy)}")
    figure, theme = Picture(width, 2.9), current_theme()
    for axes, (name, values) in zip(
        figure.subplots(1, len(accuracy), squeeze=False)[0], accuracy.items(), strict=True
    ):
        axes.plot(epochs, values, color=theme.muted, marker="o", ms=4, label="each epoch")
        labels = []
        for average, levels in averages.items():
            if name in levels:
                look = average_look(average, list(averages))
                axes.axhline(levels[name], color=look.color, ls=look.linestyle, lw=1.5)
                labels.append((levels[name], f"{average} {levels[name]:.1f}", look))
        axes.margins(y=0.12)
        axes.set_ylim(axes.get_ylim())
        label_right(axes, labels, gap=0.085)
        axes.set_title(CONTEXT_STYLE[name].label if name in CONTEXT_STYLE else name, fontweight="normal")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
    figure.axes[0].set_ylabel("top-1 accuracy (%)")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


@styled
def gwa_heatmap(
    mu,
    sigma,
    accuracy,
    *,
    published: tuple[float, float] | None = None,
    references: Mapping[str, float] | None = None,
    label: str = "top-1 accuracy (%)",
    title: str = "Accuracy of the Gaussian average for each center and width",
    width: float = PAGE_WIDTH,
):
    """Accuracy over a grid of GWA's two parameters.

    Args:
        mu: [M] centers in epochs, increasing.
        sigma: [S] widths in epochs, increasing.
        accuracy: [S, M] percent.
        published: (mu, sigma) of the published ratios, marked.
        references: name -> percent, for the line below the title, e.g. the last epoch or SWA.
        label: of the color bar.
        title: above the plot.
        width: inches.

    Returns:
        Figure; the best cell (the first where several tie) is framed.

    Raises:
        ValueError: shapes that do not fit or values that are not finite.
    """
    mu, sigma, values = finite("mu", mu, 1), finite("sigma", sigma, 1), finite("accuracy", accuracy, 2)
    if values.shape != (len(sigma), len(mu)):
        raise ValueError(
            f"accuracy is {values.shape}; allowed: [len(sigma), len(mu)] = {(len(sigma), len(mu))}"
        )
    for name, axis in (("mu", mu), ("sigma", sigma)):
        if (np.diff(axis) <= 0).any():
            raise ValueError(f"{name} is {axis}; allowed: increasing numbers")
    theme = current_theme()
    figure = Picture(width, min(6.0, 1.2 + 0.36 * len(sigma)))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", origin="lower", aspect="auto")
    if values.size <= 150:
        for (row, column), value in np.ndenumerate(values):
            shade = image.norm(value)
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7,
                      color="#000000" if shade > 0.55 else "#ffffff")  # fmt: skip
    best = np.unravel_index(values.argmax(), values.shape)
    axes.add_patch(Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, ec="#bd2a10", lw=2.2))
    axes.set_xticks(range(len(mu)), [f"{value:g}" for value in mu])
    axes.set_yticks(range(len(sigma)), [f"{value:g}" for value in sigma])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(r"center $\mu$ (epoch)")
    axes.set_ylabel(r"width $\sigma$ (epochs)")
    notes = [f"framed: best, {values.max():.1f}"]
    if published is not None:
        at = np.interp(published[0], mu, range(len(mu))), np.interp(published[1], sigma, range(len(sigma)))
        mark = {"color": theme.text, "ms": 6, "clip_on": False, "ls": ""}
        axes.plot(at[0], 1.03, marker="v", transform=axes.get_xaxis_transform(), **mark)
        axes.plot(1.015, at[1], marker="<", transform=axes.get_yaxis_transform(), **mark)
        notes.append("triangles: published ratios")
    notes += [f"{name} {value:.1f}" for name, value in (references or {}).items()]
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
    bar.set_label(label)
    bar.outline.set_visible(False)
    axes.set_title("; ".join(notes), fontweight="normal", fontsize=8.5, pad=12)
    figure.suptitle(title, x=0.01, ha="left")
    return figure
