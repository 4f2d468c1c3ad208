"""Videos of a smaller size, made once: decoding full-size video is what keeps a GPU waiting. Frames and times stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from math import lcm
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import av

from ..files import atomic_path, available_cpus, progress, run_lock
from .decode import probe, upright
from .timeline import Timeline, VideoError, to_the_end, video_stream

# Frames refer back alone and over few others, so that a reader that jumps decodes little; crf 18 is close to lossless.
H264 = {"crf": "18", "preset": "veryfast", "bf": "0", "g": "15", "sc_threshold": "0"}
_FINEST = 2**31 - 1  # ticks of a second that a file can count


def reencode_all(
    root: Path, names: Sequence[str], folder: Path, short_side: int, jobs: int = 0
) -> tuple[list[str], dict[str, str]]:
    """The path, absolute or from `folder`, that now stands for each file below a root; and {file: what is wrong}.

    A file whose short side is no longer than that stays where it is, as does one that the check of files will refuse.
    What a former call has made is taken as it is.
    """
    one = partial(_reencoded, os.path.abspath(root), os.path.abspath(folder), short_side)
    # Spawned: a decoder's threads do not survive a fork.
    how = {"mp_context": get_context("spawn"), "initializer": _end_with_caller}
    with run_lock(folder, wait=False), ProcessPoolExecutor(jobs or available_cpus(), **how) as pool:
        for half in folder.rglob(".tmp-*"):  # of a killed call
            half.unlink(missing_ok=True)
        found = list(progress(pool.map(one, names), "re-encoding videos", len(names)))
    bad = {name: why for name, (_, why) in zip(names, found, strict=True) if why}
    return [path for path, _ in found], bad


def _end_with_caller() -> None:
    """End this process when its caller is killed: its queue of work stays open, and it would wait for ever."""
    Thread(target=lambda: os._exit(parent_process().join() or 1), daemon=True).start()


def _reencoded(root: str, folder: str, short_side: int, name: str) -> tuple[str, str]:
    source, made = Path(root, name), Path(folder, f"{name}.{short_side}.mp4")
    try:
        if not (made.is_file() and made.stat().st_mtime >= source.stat().st_mtime):
            info = probe(source)
            if info.truncated or not info.timed or min(info.width, info.height) <= short_side:
                return str(source), ""
            with atomic_path(made) as path:
                reencode(source, path, short_side)
    except (VideoError, av.error.FFmpegError, OSError) as error:
        return "", "; ".join(error.reasons) if isinstance(error, VideoError) else str(error)
    return made.relative_to(folder).as_posix(), ""


def reencode(source: str | os.PathLike, target: str | os.PathLike, short_side: int) -> None:
    """Write a video's frames, upright and shrunk to a short side, at their times, without sound, as h264 in mp4."""
    info, count = probe(source), 0
    ticks, base = _ticks(info.timeline)
    with av.open(os.path.abspath(source)) as old, av.open(os.path.abspath(target), "w") as new:
        stream = new.add_stream("libx264", rate=Fraction(info.fps or 1).limit_denominator(1001), options=H264)
        scale = short_side / min(info.width, info.height)
        stream.width, stream.height = (2 * round(side * scale / 2) for side in (info.width, info.height))
        stream.pix_fmt, stream.codec_context.time_base, stream.codec_context.thread_count = "yuv420p", base, 1
        to = {"width": stream.width, "height": stream.height, "format": "yuv420p", "interpolation": "AREA"}
        for frame, tick in zip(to_the_end(old.decode(video_stream(old, str(source)))), ticks, strict=False):
            # By way of RGB, as every reader here sees it: the colors are then those of the old file.
            picture = av.VideoFrame.from_ndarray(upright(frame, frame.width, frame.height), format="rgb24")
            picture = picture.reformat(**to)
            picture.pts, picture.time_base, count = tick, base, count + 1
            new.mux(stream.encode(picture))
        new.mux(stream.encode())
    if count != info.frames:
        raise VideoError(source, f"{count} of {info.frames} frames can be decoded")


def _ticks(line: Timeline) -> tuple[list[int], Fraction]:
    """A timeline as whole multiples of a fraction of a second that mp4 can count in."""
    if line.ticks:
        times = [tick * line.base for tick in line.ticks]
    else:
        times = [line.start + k / line.rate if line.rate else line.start for k in range(line.frames)]
    finest = min(lcm(*{time.denominator for time in times}), _FINEST)
    return [round(time * finest) for time in times], Fraction(1, finest)
