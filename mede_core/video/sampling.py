"""Which frames of a video make a clip.

Two rules. *Uniform*: the whole video in equal segments, the center of each (TSN's rule; SCUBA was probably
read so). *Dense*: a window of ``num_frames * rate`` frames at ``target_fps``, evenly spaced inside (the
rule of Open-VCLIP and its descendants: 8 frames, rate 16, 30 fps). Videos shorter than needed repeat
frames.

The peers' code has quirks that move the frames of their views; ``compat`` repeats them (facts: the decoders
that Open-VCLIP's scripts choose, ``pyav`` for UCF101 and Kinetics, ``torchvision`` for HMDB51).
"""

from __future__ import annotations

import math

import numpy as np

SAMPLINGS = ("uniform", "dense")
COMPATS = ("pyav", "torchvision")


def uniform_indices(
    total: int,
    num_frames: int,
    *,
    view: int = 0,
    views: int = 1,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """Frames spread over the whole video, one from each of ``num_frames`` equal segments.

    Without a generator the choice is time-symmetric: the frames chosen from the reversed video are the same
    pictures in reverse order (with several views: those of view ``views - 1 - view``). The only exception is
    a middle frame of an even number of frames, where no symmetric choice exists: the earlier one is taken.

    Args:
        total: frames of the video, at least 1; fewer than ``num_frames`` means that frames repeat.
        num_frames: frames of the clip, T.
        view: which view, 0 .. views - 1.
        views: V; each segment is cut into V parts and view k takes the centers of part k, so that V views of
            T frames are together the T * V uniform frames.
        generator: draws a frame at random inside each segment (training) in place of its center.

    Returns:
        int64 [T], ascending, in 0 .. total - 1.

    Raises:
        ValueError: a count below 1, a view out of range, or a generator with several views.
    """
    _check_counts(total, num_frames, view, views)
    if generator is not None:
        if views != 1:
            raise ValueError(f"views is {views}; with a generator (training) it must be 1")
        position = (np.arange(num_frames) + generator.random(num_frames)) * total / num_frames
        return np.minimum(position.astype(np.int64), total - 1)
    # Center of segment i, counted in frames: ((2i + 1) total / parts - 1) / 2; rounded in integers, halves
    # toward the nearer end of the video, because any one-sided rounding would break the symmetry.
    parts = num_frames * views
    twice = (2 * np.arange(parts) + 1) * total - parts  # 2 * parts times the center
    down = -((parts - twice) // (2 * parts))  # ceil(center - 1/2)
    up = total - 1 - down[::-1]
    first_half = twice <= (total - 1) * parts
    return np.where(first_half, down, up)[view::views].astype(np.int64)


def dense_indices(
    total: int,
    fps: float,
    num_frames: int = 8,
    rate: int = 16,
    target_fps: float = 30,
    *,
    start: float | None = None,
    generator: np.random.Generator | None = None,
    view: int = 0,
    views: int = 1,
    compat: str | None = None,
) -> np.ndarray:
    """Evenly spaced frames of one window of ``num_frames * rate / target_fps`` seconds.

    The window holds ``L = num_frames * rate / target_fps * fps`` source frames and can begin anywhere in
    0 .. total - L; the clip is ``linspace(begin, begin + L - 1, num_frames)``, cut to whole frames and
    clamped to the video (Open-VCLIP's test protocol). A video shorter than the window repeats its last
    frame.

    Args:
        total: frames of the video, at least 1.
        fps: its frames per second, above 0.
        num_frames: frames of the clip, T.
        rate: frames at ``target_fps`` from one clip frame to the next.
        target_fps: frames per second that ``rate`` counts in.
        start: where the window begins, as a fraction (0 .. 1) of where it can.
        generator: draws that fraction at random (training).
        view: without either, the fraction is ``view_starts(views)[view]``.
        views: V.
        compat: None; ``pyav``: windows begin at k/V of where they can (0, 1/3, 2/3; one view: at 0) and are
            one clip step short, so that the last frame is clamped; ``torchvision``: as None, but the distance
            of the views is cut to whole frames. Both begin at a whole frame.

    Returns:
        int64 [T], ascending, in 0 .. total - 1.

    Raises:
        ValueError: a value out of range, or more than one way of choosing the start.

    Source: Open-VCLIP's test protocol and the two decoders its scripts choose (8 x 16 at 30 fps, 300 frames:
        pyav begins at 0, 62, 125 and ends 112 frames later, torchvision at 0, 86, 172 and 127 later).
    """
    _check_counts(total, num_frames, view, views)
    for name, value in (("fps", fps), ("rate", rate), ("target_fps", target_fps)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}; it must be above 0")
    if start is not None and generator is not None:
        raise ValueError("start and generator are both given; the window has one beginning")
    if start is not None and not 0 <= start <= 1:
        raise ValueError(f"start is {start!r}; allowed: 0 to 1")
    if compat not in (None, *COMPATS):
        raise ValueError(f"compat is {compat!r}; allowed: None, {', '.join(COMPATS)}")
    window = num_frames * rate / target_fps * fps
    read = max(1.0, math.ceil((num_frames - 1) * rate / target_fps * fps)) if compat == "pyav" else window
    free = max(total - read, 0.0)
    if generator is not None:
        begin = generator.random() * free
    elif start is not None:
        begin = start * free
    elif compat == "pyav":
        begin = free * view / views
    elif compat == "torchvision":
        begin = view * (free // (views - 1)) if views > 1 else free // 2
    else:
        begin = view_starts(views)[view] * free
    last = total - 1
    if compat:
        begin = math.floor(begin)
    if compat == "pyav":
        last = min(last, begin + int(read))  # the decoder hands on one frame after its window, and no more
    position = np.linspace(begin, begin + max(window - 1, 0.0), num_frames)
    # Whole numbers that linspace misses by a rounding error must not lose a frame.
    return np.clip(np.floor(position + 1e-6).astype(np.int64), 0, last)


def view_starts(views: int) -> np.ndarray:
    """Where the windows of V views begin, as fractions of where a window can begin.

    Args:
        views: V, at least 1.

    Returns:
        float64 [V]: the middle for one view, otherwise evenly from 0 to 1 (three views: 0, 1/2, 1).

    Raises:
        ValueError: V below 1.
    """
    if views < 1:
        raise ValueError(f"views is {views}; it must be at least 1")
    return np.linspace(0.0, 1.0, views) if views > 1 else np.array([0.5])


def _check_counts(total: int, num_frames: int, view: int, views: int) -> None:
    for name, value in (("total", total), ("num_frames", num_frames), ("views", views)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if not 0 <= view < views:
        raise ValueError(f"view is {view}; allowed: 0 to {views - 1}")
