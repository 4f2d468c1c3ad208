"""Plots of what a learner uses: maps over film strips, and the effects of background and motion clip by clip."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from .film import film_strip, frame_centers
from .style import DOTTED, METHOD_STYLE, PAGE_WIDTH, Picture, look_of, styled


def overlay(frames: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Frames [T, 3, H, W] uint8 under maps [T, h, w] as heat, also uint8: zero is dark, the highest value bright."""
    rows, columns = (np.arange(size) * cells // size for size, cells in zip(frames.shape[2:], maps.shape[1:]))
    maps = np.clip(maps, 0, None)[:, rows][:, :, columns]
    heat = matplotlib.colormaps["inferno"](maps / max(maps.max(), 1e-12))[..., :3]
    gray = frames.mean(1, keepdims=True) / 255
    return (255 * (0.35 * gray + 0.65 * heat.transpose(0, 3, 1, 2))).round().astype(np.uint8)


@styled
def map_strips(video, maps: Mapping[str, np.ndarray]):
    """A clip (uint8 [T, 3, H, W]) above maps of it ([T, h, w] each), each scaled to its own highest value; below each
    frame stands its share of what the map finds in all frames."""
    frames, found = np.asarray(video), {name: np.clip(one, 0, None) for name, one in maps.items()}
    figure = film_strip([frames, *(overlay(frames, one) for one in found.values())], ["frames", *found])
    figure.set_figheight(figure.get_figheight() + 0.18 * len(found))
    for axes, one in zip(figure.axes[1:], found.values(), strict=True):
        shares = one.sum((1, 2)) / max(one.sum(), 1e-12)
        axes.set_xticks(frame_centers(frames.transpose(0, 2, 3, 1)), [f"{100 * share:.0f} %" for share in shares])
    figure.axes[-1].set_xlabel("share of the map in each frame, in order of time")
    return figure


@styled
def map_curves(tested: Mapping[str, Mapping]):
    """The probability of a class while places of its clips are covered (left) or shown (right), those that each map
    ranks highest first: of ``lab.map_tests.compare_maps``. Random order is dotted."""
    figure = Picture(2.7)
    panels = figure.subplots(1, 2, sharey=True)
    looks = dict(zip(tested, (METHOD_STYLE[name] for name in ("finetune", "open_vclip", "froster", "open_mede"))))
    for axes, kind, verb in zip(panels, ("deletion", "insertion"), ("covered", "shown")):
        for name, look in looks.items():
            curve, chance = tested[name]["curves"][kind]
            share = np.linspace(0, 100, len(curve))
            mark = {"marker": look.marker, "ms": 4, "markevery": 2, "lw": 1.4}
            axes.plot(share, curve, color=look.color, ls=look.linestyle, label=name, **mark)
        axes.plot(share, chance, color=figure.theme.muted, ls=DOTTED, lw=1.8, label="random order")
        axes.set(xlabel=f"places {verb} (%)", title=f"{kind.capitalize()}: the highest are {verb} first")
        axes.grid(axis="y")
    panels[0].set_ylabel("probability of the class (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@styled
def effect_plane(effects: Mapping[str, Mapping[str, Sequence[float]]]):
    """One panel a method, one dot a clip: how far its margin falls when only the background is swapped, and when only
    the motion is reversed (``attention.causal_effects``). The cross is the mean; where both count alike is dotted; a
    hundredth of the clips lie outside."""
    columns = min(3, len(effects))
    rows = -(-len(effects) // columns)
    title = "What moves the class margin: the background, or the motion"
    figure = Picture(0.6 + rows * (0.35 + 0.93 * PAGE_WIDTH / columns), title)
    theme = figure.theme
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    pairs = {name: np.stack([one["background"], one["motion"]]) for name, one in effects.items()}
    low, high = np.quantile(np.concatenate(list(pairs.values()), 1), [0.005, 0.995])
    for axes, (method, points) in zip(grid, pairs.items()):
        look = look_of(method)
        axes.axhline(0, color=theme.muted, lw=0.8)
        axes.axvline(0, color=theme.muted, lw=0.8)
        for sign in (1, -1):
            axes.plot([low, high], [sign * low, sign * high], color=theme.muted, lw=0.8, ls=(0, (1, 2)))
        axes.scatter(*points, s=7, color=look.color, alpha=0.35, lw=0, rasterized=True)
        axes.plot(*points.mean(1), "+", color=theme.text, ms=13, mew=2)
        more = 100 * (np.abs(points[0]) > np.abs(points[1])).mean()
        axes.set_title(f"{look.label}\nbackground counts more: {more:.0f} %", fontweight="normal")
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axes in grid[len(pairs) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(pairs) - columns) : len(pairs)]:
        axes.tick_params(labelbottom=True)  # the lowest of its column
    figure.supxlabel("swapped background: fall of the margin (logits)", fontsize=8.5)
    figure.supylabel("reversed motion: fall of the margin (logits)", fontsize=8.5)
    return figure
