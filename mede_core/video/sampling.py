"""Which frames of a video make a clip; videos shorter than needed repeat frames."""

from __future__ import annotations

import math

import numpy as np

_RATE, _TARGET_FPS = 16, 30  # a dense clip takes every 16th frame of a video at 30 fps


def uniform_indices(
    total: int, num_frames: int, *, view: int = 0, views: int = 1, generator: np.random.Generator | None = None
) -> np.ndarray:
    """One frame of each of T equal segments of the video (TSN's rule): its center, or drawn; int64 [T], ascending."""
    if generator is not None:
        position = (np.arange(num_frames) + generator.random(num_frames)) * total / num_frames
        return np.minimum(position.astype(np.int64), total - 1)
    # View k takes the centers of part k of each segment: all views together are the T * V uniform frames.
    # Center of segment i, counted in frames: ((2i + 1) total / parts - 1) / 2; rounded in integers, halves
    # toward the nearer end of the video, because any one-sided rounding would break the symmetry in time: the reversed
    # video gives the same pictures, but for one of the two middle frames of an even number.
    parts = num_frames * views
    twice = (2 * np.arange(parts) + 1) * total - parts  # 2 * parts times the center
    down = -((parts - twice) // (2 * parts))  # ceil(center - 1/2)
    up = total - 1 - down[::-1]
    first_half = twice <= (total - 1) * parts
    return np.where(first_half, down, up)[view::views].astype(np.int64)


def dense_indices(
    times: np.ndarray,
    fps: float,
    num_frames: int = 8,
    *,
    view: int = 0,
    views: int = 1,
    compat: str = "",
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """The frames shown at T moments, evenly over a window of T * 16/30 seconds: int64 [T], ascending.

    Source: Open-VCLIP's test protocol (8 frames, rate 16, 30 fps), whatever the video's own rate: ``times`` are the
        moments (seconds) at which its frames appear, ``fps`` is its average rate.
    """
    total = len(times)
    if total == 1:
        return np.zeros(num_frames, np.int64)
    if compat:
        return _peers_indices(total, fps, num_frames, view, views, compat)
    window = num_frames * _RATE / _TARGET_FPS
    free = max(times[-1] - times[0] + 1 / fps - window, 0.0)
    place = np.linspace(0.0, 1.0, views)[view] if views > 1 else 0.5  # the middle for one view
    begin = times[0] + free * (place if generator is None else generator.random())
    moments = begin + np.linspace(0, window - 1 / _TARGET_FPS, num_frames)
    # Moments that miss a frame's beginning by a rounding error must not lose it.
    return np.maximum(np.searchsorted(times, moments + 1e-6 / fps, side="right") - 1, 0)


def _peers_indices(total: int, fps: float, num_frames: int, view: int, views: int, compat: str) -> np.ndarray:
    """As the decoders of Open-VCLIP's scripts count: ``pyav`` for UCF101 and Kinetics, ``torchvision`` for HMDB51."""
    # Of 300 frames at 30 fps, pyav begins at 0, 62, 125 and ends 112 frames later, torchvision at 0, 86, 172 and 127.
    window = num_frames * _RATE / _TARGET_FPS * fps
    read = max(1.0, math.ceil((num_frames - 1) * _RATE / _TARGET_FPS * fps)) if compat == "pyav" else window
    free = max(total - read, 0.0)
    if compat == "pyav":
        begin = free * view / views
    else:
        begin = view * (free // (views - 1)) if views > 1 else free // 2
    begin, last = math.floor(begin), total - 1
    if compat == "pyav":
        last = min(last, begin + int(read))  # the decoder hands on one frame after its window, and no more
    position = np.linspace(begin, begin + max(window - 1, 0.0), num_frames)
    # Whole numbers that linspace misses by a rounding error must not lose a frame.
    return np.clip(np.floor(position + 1e-6).astype(np.int64), 0, last)
