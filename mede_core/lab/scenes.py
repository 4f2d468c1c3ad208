"""The pictures of the explorers: drawn once, then only what moves is drawn anew, so that a slider feels direct."""

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imsave
from matplotlib.patches import FancyArrowPatch

from ..averages import epoch_shares
from ..config import Average
from ..report.figures.results import dial_curves
from ..report.figures.style import DASHED, METHOD_STYLE, QUERY, SUPPORT, Picture, backing, count_epochs, style, styled
from ..report.figures.trajectories import AVERAGE_STYLE, average_looks
from .gwa_accuracy import PLACES, GwaAccuracy, average_of, shares_of
from .toy import ToyProblem, loss_surface, run_toy

SCREEN_DPI = 160  # sharp where the screen has more pixels than the page
STEP = {"start": (0.3, -1.2), "seed": 46}  # the single meta-step that is shown; its two batches disagree
STEP_GRID = (np.linspace(-2.4, 3.0, 109), np.linspace(-1.9, 2.3, 85))  # of theta_1 and theta_2
CRISP = 3  # a frame of 32 pixels is enlarged by repetition, so that no browser blurs it
HOME = (213, 94, 0)  # frames a clip before its motion's home scene


class Scene:
    """A figure with still parts, drawn once, and moving parts that ``update`` puts where some values say."""

    def __init__(self, figure: Picture, update: Callable[..., None], moving: Sequence[Artist]):
        self.figure, self._update, self._moving = figure, update, list(moving)
        self._still = None

    def still(self, **values) -> Picture:
        """The figure at some values: the static twin of an explorer."""
        self._update(**values)
        return self.figure

    def png(self, **values) -> bytes:
        """The picture at some values, as PNG bytes; about 10 ms after the first."""
        self._update(**values)
        if self._still is None:
            with style():
                self._canvas = _drawn(self.figure)
                self.figure.set_layout_engine("none")
                for artist in self._moving:
                    artist.set_animated(True)
                self._canvas.draw()
                self._still = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._still)
        for artist in self._moving:
            self.figure.draw_artist(artist)
        return _png(self._canvas)


class Redrawn:
    """A picture that a plot function draws anew for each choice: where the axes themselves change."""

    def __init__(self, draw: Callable[..., Picture]):
        self._draw = draw

    def png(self, **values) -> bytes:
        with style():
            self.figure = self._draw(**values)
            return _png(_drawn(self.figure))


def _drawn(figure: Picture) -> FigureCanvasAgg:
    figure.set_dpi(SCREEN_DPI)
    figure.set_facecolor(figure.theme.page)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout is found with everything in its place
    return canvas


def _png(canvas: FigureCanvasAgg) -> bytes:
    buffer, pixels = io.BytesIO(), np.asarray(canvas.buffer_rgba())
    imsave(buffer, pixels, format="png", pil_kwargs={"compress_level": 1}, metadata={"Software": None})
    return buffer.getvalue()


@styled
def gwa_scene(
    num_epochs: int, plane: tuple[np.ndarray, float] | None = None, accuracy: GwaAccuracy | None = None
) -> Scene:
    """What ``gwa_explorer`` shows; ``gwa_scene(22).still(mu=15, sigma=10)``, in epochs, is its static twin.

    ``plane`` has epochs 0 to E. With ``accuracy``, that of the average is one more value, ``reached``.
    """
    curves = {name: epoch_shares(Average(name.lower()), num_epochs).numpy() for name in ("SWA", "EMA")}
    gwa, epochs = AVERAGE_STYLE["GWA"], np.arange(num_epochs + 1)
    ratios = [1.25, *([1] if plane else []), *([1] if accuracy else [])]
    figure = Picture(3.3, width=max(8.2, 3.2 * len(ratios)))
    theme = figure.theme
    grid = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    axes = grid[0]
    top = 100 * min(1.0, max(1.15 * max(weights.max() for weights in curves.values()), 4.0 / num_epochs))
    axes.set(xlim=(-0.6, num_epochs + 0.6), ylim=(0, top))
    band = axes.axvspan(0, 1, color=theme.muted, alpha=0.13, lw=0)
    center = axes.axvline(0, color=theme.muted, lw=1.0, ls=DASHED)
    for name, weights in curves.items():
        look = AVERAGE_STYLE[name]
        mark = {"color": look.color, "ls": look.linestyle, "marker": look.marker, "ms": 4, "lw": 1.4}
        axes.plot(epochs[1:], 100 * weights[1:], **mark, label=name)
    (line,) = axes.plot(epochs, 0 * epochs, color=gwa.color, marker=gwa.marker, ms=6, lw=2.2, label="your average")
    cut = axes.text(1, top, "", color=gwa.color, ha="center", va="top", fontsize=8)
    count_epochs(axes)
    axes.set_xlabel("epoch (0: before training, CLIP;\n" + r"line: $\mu$, band: $\mu \pm \sigma$)")
    axes.set(ylabel="weight in the average (%)", title="What each epoch weighs")
    axes.grid(axis="y")
    moving: list[Artist] = [band, center, line, cut]
    if plane:
        sizes, star = _plane(grid[1], *plane, curves)
        moving += [sizes, star]
    if accuracy:
        here, spread, told = _accuracy(grid[-1], accuracy.others)
        moving += [spread, here, told]
    named = {name: handle for panel in grid[::-1] for handle, name in zip(*panel.get_legend_handles_labels())}
    figure.legend(named.values(), named.keys(), loc="outside lower left", ncols=len(named))

    def update(reached: Mapping | None = None, **chosen) -> None:
        average = average_of(**chosen)
        weights = shares_of(average, num_epochs)
        line.set_ydata(np.where((epochs == 0) & (weights == 0), np.nan, 100 * weights))
        for artist in (center, band):
            artist.set_visible(average.rule == "gwa")
        center.set_xdata([average.mu, average.mu])
        low, high = np.clip([average.mu - average.sigma, average.mu + average.sigma], *axes.get_xlim())
        band.set_bounds(low, 0, high - low, 1)
        peak = int(weights.argmax())
        cut.set_x(np.clip(epochs[peak], 1.6, num_epochs - 0.6))
        cut.set_text(f"{100 * weights[peak]:.0f} % on epoch {epochs[peak]}" if 100 * weights[peak] > top else "")
        if plane:
            sizes.set_sizes(18 + 900 * weights)
            star.set_data(*(weights @ plane[0])[:, None])
        if accuracy:
            values, lows, highs = np.array([reached[place] for place in PLACES] if reached else [[np.nan] * 3] * 2).T
            here.set_data(values, [0, 1])
            spread.set_data([lows[0], highs[0], np.nan, lows[1], highs[1]], [0, 0, np.nan, 1, 1])
            kind = "read off a grid" if np.isnan(lows).any() else "measured, 95 % intervals"
            numbers = f"{values[0]:.1f} in, {values[1]:.1f} out of context"
            told.set_text(f"your average: {numbers}\n({kind})" if reached else "your average: not measured yet")

    return Scene(figure, update, moving)


def _accuracy(axes, accuracy: Mapping[str, Mapping[str, float]]):
    """Averages' accuracy, in and out of context; returns marks, intervals and text of the one that moves."""
    for name, look in average_looks(list(accuracy)).items():
        found = [accuracy[name][where] for where in PLACES]
        axes.plot(found, [0, 1], color=look.color, ls=look.linestyle, marker=look.marker, ms=6, lw=1.0, label=name)
    look, values = AVERAGE_STYLE["GWA"], [value for one in accuracy.values() for value in one.values()]
    (here,) = axes.plot([0, 0], [0, 1], color=look.color, marker=look.marker, ms=10, lw=1.6)
    (spread,) = axes.plot([0, 0], [0, 1], color=look.color, lw=5, alpha=0.3, solid_capstyle="butt")
    room = max(4.0, 0.3 * (max(values) - min(values)))
    axes.set(xlim=(min(values) - room, max(values) + room), ylim=(2.0, -0.6))
    axes.set_yticks([0, 1], ["in\ncontext", "out of\ncontext"])
    axes.set(xlabel="top-1 accuracy (%)", title="What the average is worth")
    axes.grid(axis="x")
    told = axes.text(0.5, 0.02, "", transform=axes.transAxes, ha="center", fontsize=8, bbox=backing())
    return here, spread, told


def _plane(axes, points: np.ndarray, shown: float, curves: Mapping[str, np.ndarray]):
    """The trajectory in its plane; returns the dots that grow with their weight, and the mark of the average."""
    theme = axes.figure.theme
    axes.plot(*points.T, color=theme.muted, lw=1.0, zorder=1)
    dots = axes.scatter(*points.T, s=18, color=theme.muted, alpha=0.45, lw=0, zorder=2)
    for epoch, point in enumerate(points):
        others = np.concatenate([points[:epoch], points[-1:]])  # whose labels it must not cover
        if epoch in (0, len(points) - 1) or np.linalg.norm(point - others, axis=1).min() > 0.06 * np.ptp(points):
            axes.annotate(str(epoch), point, (5, 4), textcoords="offset points", fontsize=8, color=theme.muted)
    for name, weights in curves.items():
        look = AVERAGE_STYLE[name]
        axes.plot(*(weights @ points)[:, None], ls="", marker=look.marker, ms=8, color=look.color, zorder=3)
    look = AVERAGE_STYLE["GWA"]
    (star,) = axes.plot([0], [0], ls="", marker=look.marker, ms=11, color=look.color, mec=theme.page, zorder=4)
    axes.margins(0.14)
    axes.set(
        xlabel=f"weight space, in the plane that holds\n{100 * shown:.0f} % of the trajectory's spread",
        title="Where the averages lie",
    )
    axes.grid()
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    axes.set_aspect("equal", adjustable="datalim")
    return dots, star


@styled
def world_scene(frames: int, thumbnails: int, dial: pd.DataFrame | None = None, bound: Mapping | None = None) -> Scene:
    """Two motions of a reversal pair: one film strip each, and one frame each of several clips, each row titled; or the
    latter alone, below the dose-response curves of ``tables.dial``."""
    if dial is None:
        counts, figure = [frames, thumbnails] * 2, Picture(4.75, width=8.2)
        grid, marks = figure.subplots(4, 1, height_ratios=[1 / count for count in counts]), []
    else:
        counts, figure = [thumbnails] * 2, Picture(5.2, width=8.2)
        above, below = figure.subfigures(2, 1, height_ratios=[2.9, 2.3])
        panels, grid = dial_curves(above, dial, bound=bound), below.subplots(2, 1)
        marks = [axes.axvline(1, color=figure.theme.text, lw=1.2) for axes in panels]
    places = [titled_row(axes, count) for axes, count in zip(grid, counts, strict=True)]

    def update(rows, rho) -> None:
        for mark in marks:
            mark.set_xdata([rho, rho])
        for (image, text), (frames, framed, title) in zip(places, rows, strict=True):
            image.set_data(frame_row(frames, framed))
            text.set_text(title)

    return Scene(figure, update, [*sum(places, ()), *marks])


def titled_row(axes, count: int) -> tuple[Artist, Artist]:
    blank = frame_row(np.zeros((count, 32, 32, 3), np.uint8), np.zeros(count, bool))
    axes.set_axis_off()
    return axes.imshow(blank, interpolation="nearest"), axes.set_title("M", fontweight="normal", pad=3)


def frame_row(frames: np.ndarray, framed: np.ndarray) -> np.ndarray:
    """Frames [N, S, S, 3] side by side as RGBA, some with a colored frame; the gaps are transparent."""
    big = np.pad(frames, [(0, 0)] * 3 + [(0, 1)], constant_values=255).repeat(CRISP, 1).repeat(CRISP, 2)
    gap = big.shape[1] // 12
    tiles = np.pad(big, [(0, 0), (gap, gap), (gap, gap), (0, 0)])
    edge = (tiles[..., 3] == 0) & framed[:, None, None]
    edge[:, :, [0, -1]] = False
    tiles[edge] = (*HOME, 255)
    return np.concatenate(tiles, axis=1)


@styled
def meta_step_scene(problem: ToyProblem) -> Scene:
    """One meta-step, and the path of a whole training; ``.still(**meta_step_values(problem, ...))`` is the explorer's
    static twin."""
    x, y = STEP_GRID
    first = run_toy(problem, steps=1, **STEP)
    support_loss, query_loss = (loss_surface(problem, x, y, int(batch[0])) for batch in (first.support, first.query))
    mean_loss, scale = loss_surface(problem, x, y), 0.12  # an arrow's length for a gradient of length 1
    paths = {
        "plain training (δ = 0)": run_toy(problem, inner_lr=0.0, query_weight=0.0).theta,
        "joint training (α = 0)": run_toy(problem, inner_lr=0.0).theta,
    }
    figure = Picture(3.6, width=8.2)
    theme, theirs, blue, orange = figure.theme, METHOD_STYLE["open_mede"], SUPPORT.color, QUERY.color
    left, right = figure.subplots(1, 2, sharey=True)
    for loss, color in ((support_loss, blue), (query_loss, orange)):
        levels = np.quantile(loss, [0.04, 0.15, 0.35, 0.6])
        left.contour(x, y, loss, levels=levels, colors=[color], linewidths=0.7, alpha=0.75)
        lowest = np.unravel_index(loss.argmin(), loss.shape)
        left.plot(x[lowest[1]], y[lowest[0]], "x", color=color, ms=6)
    levels = np.quantile(mean_loss, np.linspace(0, 0.98, 11))
    right.contourf(x, y, mean_loss, levels=levels, cmap="Greys", alpha=0.25, extend="max")
    for (name, path), line in zip(paths.items(), [(0, (4, 1.5)), (0, (1, 1.2))], strict=False):
        right.plot(*path.T, color=theme.muted, ls=line, lw=1.3, label=name)
    (trail,) = right.plot([0], [0], color=theirs.color, lw=1.9, marker=".", ms=4, label="these settings")
    ends = right.plot([0], [0], "P", color=theirs.color, ms=8)
    right.legend(loc="lower left")
    left.set(title="One step on two batches that disagree", ylabel=r"$\theta_2$ (motion: all batches agree)")
    right.set(title=f"{len(next(iter(paths.values()))) - 1} steps, from elsewhere")
    for axes in (left, right):
        axes.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), aspect="equal")
        axes.set_xlabel(r"$\theta_1$ (static: batches disagree)")
    middle = {"ha": "center", "va": "center", "zorder": 7, "bbox": backing(), "fontsize": 9}
    arrows, texts = {}, {"theta": left.text(0, 0, r"$\theta$", color=theme.text, **middle)}
    for name, text, color, line in (
        ("inner", r"$\theta'$", blue, ":"), ("support", r"$-g_S$", blue, "-"), ("query", r"$-\delta g_Q$", orange, "-"),
        ("shifted", "", orange, ":"), ("update", "update", theme.text, "-"),
    ):  # fmt: skip
        look = {"color": color, "ls": line, "lw": 1.8, "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0, "zorder": 5}
        arrows[name] = left.add_patch(FancyArrowPatch((0, 0), (0, 0), arrowstyle="-|>", **look))
        texts[name] = left.text(0, 0, text, color=color, **middle)
    (start,) = left.plot([0], [0], "o", color=theme.text, ms=6, zorder=6)
    inside = [(x.min() + 0.25, y.min() + 0.2), (x.max() - 0.25, y.max() - 0.2)]

    def update(theta, theta_fast, support_grad, query_grad, merged_grad, query_weight, path) -> None:
        pull = {"support": support_grad, "query": query_weight * query_grad, "update": merged_grad}
        tips = {"inner": theta_fast} | {name: theta - scale * gradient for name, gradient in pull.items()}
        for name, tip in tips.items():
            arrows[name].set_positions(theta, tip)
            way = tip - theta
            beyond = tip + 0.22 * way / max(np.linalg.norm(way), 1e-9)
            texts[name].set_position(np.clip(beyond, *inside))  # at the edge where the arrow leaves the picture
        arrows["shifted"].set_positions(theta_fast, theta_fast - scale * pull["query"])
        texts["support"].set_position((theta + tips["support"]) / 2 + (0.1, -0.2))  # beyond its tip lies theta'
        texts["theta"].set_position(theta - (0.02, 0.22))
        start.set_data(*theta[:, None])
        trail.set_data(*path.T)
        ends[0].set_data(*path[-1][:, None])

    return Scene(figure, update, [*arrows.values(), start, *texts.values(), trail, *ends])
