"""Film strips: clips as rows of frames, with the actor's outline and with attention. See ``figures.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from .style import PAGE_WIDTH, Picture, current_theme, styled

_OUTLINE = "#00c8ff"  # apart from every color of the heat map and from most scenes
_GAP = 0.08  # between frames, in frame widths
_CRISP = 96  # pixels: smaller frames are enlarged by repetition, so that no viewer blurs them


@styled
def film_strip(
    videos, titles: Sequence[str], masks=None, *, title: str | None = None, width: float = PAGE_WIDTH
):
    """Clips as rows of frames, time running to the right.

    Args:
        videos: [N, T, 3, H, W] uint8, or a list of N such clips of equal T.
        titles: N row titles.
        masks: [N, T, H, W] bool, the actor's pixels, drawn as an outline; None for none.
        title: above all rows.
        width: inches.

    Returns:
        Figure.

    Raises:
        ValueError: shapes or types that do not fit.
    """
    clips = [_video(video, f"videos[{index}]") for index, video in enumerate(videos)]
    if not clips or len(titles) != len(clips):
        raise ValueError(
            f"{len(titles)} titles for {len(clips)} videos; allowed: one title a video, one or more videos"
        )
    if len({len(clip) for clip in clips}) > 1:
        raise ValueError(
            f"videos have {[len(clip) for clip in clips]} frames; allowed: the same number in all"
        )
    if masks is not None and len(masks) != len(clips):
        raise ValueError(f"{len(masks)} masks for {len(clips)} videos; allowed: one mask a video, or None")
    outlines = [None] * len(clips) if masks is None else list(map(_mask, masks, clips))
    frame = width * 0.97 / (clips[0].shape[0] * (1 + _GAP))
    heights = [frame * clip.shape[1] / clip.shape[2] for clip in clips]
    figure = Picture(width, sum(heights) + 0.27 * len(clips) + 0.45 + (0.25 if title else 0))
    rows = figure.subplots(len(clips), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, clip, mask, name in zip(rows, clips, outlines, titles, strict=True):
        _strip(axes, clip)
        if mask is not None:
            _outline(axes, mask)
        axes.set_title(name, fontweight="normal", pad=3)
        axes.set_xticks([])
    _number_frames(rows[-1], clips[-1])
    rows[-1].set_xlabel("frame" if masks is None else "frame (blue line: the actor's exact outline)")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


@styled
def film_strip_attention(
    video, attention, mask=None, title: str = "Where the class token looks", *, width: float = PAGE_WIDTH
):
    """A clip's frames above its attention maps, with the actor's outline on both.

    Args:
        video: [T, 3, H, W] uint8.
        attention: [T, h, w] weights >= 0 on the patch grid; each frame is scaled to sum to 1.
        mask: [T, H, W] bool, the actor's pixels; with it each frame says what share of the attention the
            actor gets.
        title: above the strips.
        width: inches.

    Returns:
        Figure. The heat is in multiples of even attention: 1 is what a patch gets from a model that looks
        everywhere alike.

    Raises:
        ValueError: shapes or types that do not fit, negative weights, a frame without attention.
    """
    clip = _video(video, "video")
    weights = np.asarray(attention, float)
    if weights.ndim != 3 or len(weights) != len(clip):
        raise ValueError(
            f"attention is {weights.shape}; allowed: [T, h, w] with T = {len(clip)}, as the video"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or (weights.sum((1, 2)) <= 0).any():
        raise ValueError("attention must be finite and >= 0, with a sum above 0 in each frame")
    weights = weights / weights.sum((1, 2), keepdims=True)
    outline = None if mask is None else _mask(mask, clip)
    frame = width * 0.90 / (len(clip) * (1 + _GAP))
    figure = Picture(width, 2 * frame * clip.shape[1] / clip.shape[2] + 1.15)
    top, bottom = figure.subplots(2, 1)
    _strip(top, clip)
    top.set_title("frames", fontweight="normal", pad=3)
    relative = weights * weights[0].size
    repeat = max(1, math.ceil(_CRISP / relative.shape[1]))
    big = relative.repeat(repeat, 1).repeat(repeat, 2)
    tiles = np.ma.masked_invalid(_tile(big, np.nan))
    height, breadth = clip.shape[1:3]
    extent = (0, (len(clip) * (1 + _GAP) - _GAP) * breadth, height, 0)
    heat = bottom.imshow(tiles, cmap="inferno", vmin=0, extent=extent, aspect="equal")
    _bare(bottom)
    bottom.set_title("attention of the class token", fontweight="normal", pad=3)
    bar = figure.colorbar(heat, ax=[top, bottom], fraction=0.03, pad=0.015, aspect=25)
    bar.set_label("times even attention")
    bar.outline.set_visible(False)
    top.set_xticks([])
    labels = [f"{index + 1}" for index in range(len(clip))]
    if outline is not None:
        _outline(top, outline)
        _outline(bottom, outline)
        shares = attention_share(weights, outline)
        labels = [f"{label}\n{100 * share:.0f} %" for label, share in zip(labels, shares, strict=True)]
        bottom.set_xlabel(
            "frame, and share of the attention on the actor (outlined): "
            f"{100 * shares.mean():.0f} % on average; "
            f"it covers {100 * outline.mean():.0f} % of the area", fontsize=8,
        )  # fmt: skip
    else:
        bottom.set_xlabel("frame")
    bottom.set_xticks(_centers(clip), labels)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def attention_share(attention: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of each frame's attention on a mask; a patch counts by the part of its area that the mask covers.

    Args:
        attention: [T, h, w], each frame summing to 1.
        mask: [T, H, W] bool; H and W are whole multiples of h and w.

    Returns:
        [T], 0 to 1.

    Raises:
        ValueError: pixels that do not divide into the patches.
    """
    frames, rows, columns = attention.shape
    if mask.shape[1] % rows or mask.shape[2] % columns:
        raise ValueError(f"mask of {mask.shape[1:]} pixels does not divide into {rows} x {columns} patches")
    patches = mask.reshape(frames, rows, mask.shape[1] // rows, columns, mask.shape[2] // columns).mean(
        (2, 4)
    )
    return (attention * patches).sum((1, 2))


def _video(video, name: str) -> np.ndarray:
    """[T, H, W, 3] uint8 from [T, 3, H, W]."""
    array = np.asarray(video)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] != 3 or 0 in array.shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; allowed: uint8 [T, 3, H, W] (RGB)")
    return array.transpose(0, 2, 3, 1)


def _mask(mask, clip: np.ndarray) -> np.ndarray:
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != clip.shape[:3]:
        raise ValueError(f"mask is {array.dtype} {array.shape}; allowed: bool {clip.shape[:3]}, as the video")
    return array


def _tile(frames: np.ndarray, fill) -> np.ndarray:
    """Frames [T, H, W, ...] side by side with gaps of ``fill``."""
    gap = np.full((frames.shape[1], round(frames.shape[2] * _GAP), *frames.shape[3:]), fill, frames.dtype)
    return np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)


def _strip(axes: Axes, clip: np.ndarray) -> None:
    repeat = max(1, math.ceil(_CRISP / clip.shape[1]))
    opaque = np.concatenate(
        [clip, np.full((*clip.shape[:3], 1), 255, np.uint8)], axis=3
    )  # gaps show the page
    tiles = _tile(opaque.repeat(repeat, 1).repeat(repeat, 2), 0)
    extent = (0, (len(clip) * (1 + _GAP) - _GAP) * clip.shape[2], clip.shape[1], 0)
    axes.imshow(tiles, extent=extent, aspect="equal")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)


def _centers(clip: np.ndarray) -> np.ndarray:
    return (np.arange(len(clip)) * (1 + _GAP) + 0.5) * clip.shape[2]


def _number_frames(axes: Axes, clip: np.ndarray) -> None:
    axes.set_xticks(_centers(clip), [str(index + 1) for index in range(len(clip))])


def _outline(axes: Axes, mask: np.ndarray) -> None:
    """The mask's border in each frame; a frame without the actor has none."""
    for index, frame in enumerate(mask):
        if frame.any():
            padded = np.pad(frame.astype(float), 1)  # so that the outline closes at the frame's edge
            x = index * (1 + _GAP) * mask.shape[2] + np.arange(-1, mask.shape[2] + 1) + 0.5
            y = np.arange(-1, mask.shape[1] + 1) + 0.5
            axes.contour(
                x, y, padded, levels=[0.5], colors=[current_theme().page], linewidths=[2.0], alpha=0.6
            )
            axes.contour(x, y, padded, levels=[0.5], colors=[_OUTLINE], linewidths=[1.0])
