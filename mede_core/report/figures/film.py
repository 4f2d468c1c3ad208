"""Film strips: clips as rows of frames, with the actor's outline and with attention."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from .style import PAGE_WIDTH, Picture, current_theme, styled

_OUTLINE = "#00c8ff"  # apart from every color of the heat map and from most scenes
_GAP = 0.08  # between frames, in frame widths
_CRISP = 96  # pixels: smaller frames are enlarged by repetition, so that no viewer blurs them


@styled
def film_strip(videos, titles: Sequence[str]):
    """Clips (uint8 [N, T, 3, H, W], or a list of N of equal T) as rows of frames, time running to the right."""
    clips = [np.asarray(video).transpose(0, 2, 3, 1) for video in videos]
    frame = PAGE_WIDTH * 0.97 / (len(clips[0]) * (1 + _GAP))
    heights = [frame * clip.shape[1] / clip.shape[2] for clip in clips]
    figure = Picture(sum(heights) + 0.27 * len(clips) + 0.45)
    rows = figure.subplots(len(clips), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, clip, title in zip(rows, clips, titles, strict=True):
        _show(axes, clip, _opaque(clip), title)
    rows[-1].set_xticks(frame_centers(clips[-1]), [str(index + 1) for index in range(len(clips[-1]))])
    rows[-1].set_xlabel("frame")
    return figure


@styled
def film_strip_attention(video, attention, mask=None, title: str = "Where the class token looks"):
    """A clip's frames (uint8 [T, 3, H, W]) above its attention maps ([T, h, w] weights >= 0 on the patch grid), in
    multiples of even attention. ``mask``: bool [T, H, W], the actor's pixels, outlined on both; each frame then says
    the actor's share of the attention."""
    clip, weights = np.asarray(video).transpose(0, 2, 3, 1), np.asarray(attention, float)
    weights = weights / weights.sum((1, 2), keepdims=True)
    frame = PAGE_WIDTH * 0.90 / (len(clip) * (1 + _GAP))
    figure = Picture(2 * frame * clip.shape[1] / clip.shape[2] + 1.15, title)
    top, bottom = figure.subplots(2, 1)
    _show(top, clip, _opaque(clip), "frames")
    tiles = np.ma.masked_invalid(_tile(weights * weights[0].size, np.nan))
    heat = _show(bottom, clip, tiles, "attention of the class token", cmap="inferno", vmin=0)
    bar = figure.colorbar(heat, ax=[top, bottom], fraction=0.03, pad=0.015, aspect=25)
    bar.set_label("times even attention")
    bar.outline.set_visible(False)
    labels = [f"{index + 1}" for index in range(len(clip))]
    if mask is None:
        bottom.set_xlabel("frame")
    else:
        import torch

        from ...attention import actor_mass  # which loads torch

        mask = np.asarray(mask)
        for axes in (top, bottom):
            _outline(axes, mask)
        shares, _ = actor_mass(torch.as_tensor(weights)[:, None], torch.as_tensor(mask)[:, None])  # frame by frame
        labels = [f"{label}\n{100 * share:.0f} %" for label, share in zip(labels, shares, strict=True)]
        told = f"{100 * shares.mean():.0f} % on average; it covers {100 * mask.mean():.0f} % of the area"
        bottom.set_xlabel(f"frame, and share of the attention on the actor (outlined): {told}", fontsize=8)
    bottom.set_xticks(frame_centers(clip), labels)
    return figure


def _opaque(clip: np.ndarray) -> np.ndarray:
    """The frames of a clip side by side, with gaps that show the page."""
    return _tile(np.concatenate([clip, np.full((*clip.shape[:3], 1), 255, np.uint8)], axis=3), 0)


def _tile(frames: np.ndarray, fill) -> np.ndarray:
    """Frames [T, H, W, ...], small ones enlarged, side by side with gaps of ``fill``."""
    repeat = max(1, math.ceil(_CRISP / frames.shape[1]))
    frames = frames.repeat(repeat, 1).repeat(repeat, 2)
    gap = np.full((frames.shape[1], round(frames.shape[2] * _GAP), *frames.shape[3:]), fill, frames.dtype)
    return np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)


def _show(axes: Axes, clip: np.ndarray, tiles: np.ndarray, title: str, **options) -> AxesImage:
    extent = 0, (len(clip) * (1 + _GAP) - _GAP) * clip.shape[2], clip.shape[1], 0
    image = axes.imshow(tiles, extent=extent, aspect="equal", **options)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontweight="normal", pad=3)
    return image


def frame_centers(clip: np.ndarray) -> np.ndarray:
    return (np.arange(len(clip)) * (1 + _GAP) + 0.5) * clip.shape[2]


def _outline(axes: Axes, mask: np.ndarray) -> None:
    """The mask's border in each frame; a frame without the actor has none."""
    rows, columns = (np.arange(-1, size + 1) for size in mask.shape[1:])
    for index, frame in enumerate(mask):
        if frame.any():
            padded = np.pad(frame.astype(float), 1)  # so that the outline closes at the frame's edge
            x = index * (1 + _GAP) * mask.shape[2] + columns + 0.5
            for color, line, alpha in ((current_theme().page, 2.0, 0.6), (_OUTLINE, 1.0, None)):
                axes.contour(x, rows + 0.5, padded, levels=[0.5], colors=[color], linewidths=[line], alpha=alpha)
