"""Reading video files by decord, where it can be trusted (see timeline.py), and by PyAV, which gives the same bits.
And writing them smaller, once, since decoding full-size video is what keeps a GPU waiting: frames and times stay."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache, partial
from math import lcm
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import av
import numpy as np

from ..files import atomic_path, available_cpus, progress, run_lock
from .timeline import Timeline, VideoError, list_packets, timeline, to_the_end, video_stream

log = logging.getLogger(__name__)

_PYAV_ERRORS = (av.error.FFmpegError, VideoError, UnicodeError, OSError)
_FAR = 60  # frames: PyAV decodes shorter ways through, longer ones it seeks
# Frames refer back alone and over few others, so that a reader that jumps decodes little; crf 18 is close to lossless.
H264 = {"crf": "18", "preset": "veryfast", "bf": "0", "g": "15", "sc_threshold": "0"}
_FINEST = 2**31 - 1  # ticks of a second that a file can count


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds: when its frames are shown and who reads them, its size as displayed, its codec."""

    timeline: Timeline
    width: int = 0
    height: int = 0
    announced: int = 0  # frames that the header promises
    damaged: int = 0  # frames decoded with concealed errors, where all were decoded

    frames = property(lambda self: self.timeline.frames)  # that a player shows
    fps = property(lambda self: self.timeline.fps)  # by their times
    timed = property(lambda self: self.fps > 0 or self.frames == 1)
    backend = property(lambda self: "decord" if self.timeline.reader == "decord" else "pyav")
    truncated = property(lambda self: self.announced > self.frames)  # it ends well before what its header says


def probe(path: str | os.PathLike, *, full: bool = False) -> VideoInfo:
    """What a video file holds, by its packets; where these leave a doubt, or with ``full``, by decoding all frames."""
    name = _existing(path)
    stat = os.stat(name)
    try:
        info = _probed(_File(name, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)), full)
    except _PYAV_ERRORS as error:
        raise VideoError(path, f"PyAV: {_short(error)}") from error
    if info.truncated:
        log.warning("video %s is truncated: it holds %d of %d frames", path, info.frames, info.announced)
    if info.damaged:
        log.warning("video %s is damaged in %d of its %d frames", path, info.damaged, info.frames)
    return info


def read_clip(path: str | os.PathLike, indices: Sequence[int], *, info: VideoInfo | None = None) -> np.ndarray:
    """Chosen frames of a video, upright, uint8 [T, H, W, 3]."""
    info, name = info or probe(path), _existing(path)
    wanted, order = np.unique(indices, return_inverse=True)
    reason = ""
    if info.backend == "decord":
        try:
            reader = _open_decord(name)
            if len(reader) == info.frames:
                return reader.get_batch(wanted.tolist()).asnumpy()[order]
            reason = f"decord: it holds {len(reader)} frames, not {info.frames}"
        except Exception as error:  # decord's own have no common base; it may be missing or lack a library
            reason = f"decord: {_short(error)}"
        _say_once(os.fspath(path), reason)
    try:
        frames = _read_pyav(name, info.timeline, wanted.tolist())
    except _PYAV_ERRORS as error:
        raise VideoError(path, reason, f"PyAV: {_short(error)}") from error
    return np.stack([frames[index] for index in wanted.tolist()])[order]


@lru_cache(maxsize=4096)
def _say_once(path: str, reason: str) -> None:
    log.warning("video %s is read with PyAV instead of decord: %s", path, reason)


def _existing(path: str | os.PathLike) -> str:
    """The absolute name of a regular, non-empty file: absolute, so that no part of it reads as a protocol."""
    file = Path(path)
    if not file.is_file():
        raise VideoError(path, "it is a folder or device, not a file" if file.exists() else "no such file")
    if file.stat().st_size == 0:
        raise VideoError(path, "the file is empty")
    return os.path.abspath(file)


def _short(error: BaseException) -> str:
    """One line of an error; decord's come with a time and a source position before, a stack trace behind."""
    if isinstance(error, VideoError):
        return "; ".join(error.reasons)
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\[[\d:]+\] \S+?:\d+: (Check failed: )?", "", text.splitlines()[0])[:200]


# ------------------------------------------------------------------------------------ PyAV
@dataclass(frozen=True)
class _File:
    name: str = field(compare=False)
    content: tuple  # tells one state of a file from another: hard links and repeated rows are tried once


@lru_cache(maxsize=4096)
def _probed(file: _File, full: bool) -> VideoInfo:
    name = file.name
    packets = list_packets(name)
    whole = full or bool(packets.doubt)
    first, ticks, damaged = None, [], 0
    with av.open(name) as container:
        stream = video_stream(container, name)
        try:
            for frame in to_the_end(container.decode(stream)):
                first = first or frame
                ticks.append(frame.pts)
                damaged += frame.is_corrupt
                if not whole:
                    break
        except av.error.FFmpegError as error:
            if first is None or (full and not packets.announced):
                raise VideoError(name, f"frame {len(ticks)} of {len(packets.pts)}: {_short(error)}") from error
        if first is None:
            raise VideoError(name, f"0 of {len(packets.pts)} frames can be decoded")
        found, turns = timeline(packets, ticks if whole else None), _turns(first)
        if found.reader == "decord":
            try:
                _open_decord(name)
                trusted = not first.interlaced_frame  # whose fields' colors decord mixes
            except Exception:  # as above
                trusted = False
            found = found if trusted else replace(found, reader="seek")
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        return VideoInfo(found, width, height, packets.announced or found.frames, damaged if full else 0)


def _turns(frame: av.VideoFrame) -> int:
    """Counterclockwise quarter turns that display a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def upright(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """A decoded frame as it is displayed, uint8 [H, W, 3]; the width and height are those before it is turned."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", width=width, height=height), _turns(frame)))


def _read_pyav(name: str, line: Timeline, wanted: list[int]) -> dict[int, np.ndarray]:
    """{index: picture} of the wanted frames, which ascend."""
    pictures: dict[int, np.ndarray] = {}
    with av.open(name) as container:
        stream, shape = video_stream(container, name), None
        for index, frame in _walk(container, stream, line, wanted):
            shape = shape or (frame.width, frame.height)  # a stream may change its size midway
            pictures[index] = upright(frame, *shape)
    lost = [index for index in wanted if index not in pictures]
    if lost and line.reader == "order":
        raise VideoError(name, f"frame {lost[0]} of {line.frames} cannot be decoded")
    return _read_pyav(name, replace(line, reader="order"), wanted) if lost else pictures


def _walk(container, stream, line: Timeline, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames in order; where the times allow it, far ones are sought."""
    times, base, position = line.times, float(stream.time_base), -1
    half, by_time = np.diff(times).min(initial=1.0) / 2, line.reader != "order"
    frames = enumerate(to_the_end(container.decode(stream)))
    for target in wanted:
        if by_time and target - position > _FAR:
            container.seek(int(times[target] / base), stream=stream)
            frames = enumerate(to_the_end(container.decode(stream)))
        for count, frame in frames:
            position = int(times.searchsorted((frame.pts or 0) * base + half)) - 1 if by_time else count
            if position >= target:
                break
        if position != target:
            return
        yield target, frame


# ------------------------------------------------------------------------------------ decord
def _open_decord(name: str):
    """A reader, never carried across a fork (it hangs); lost frames are errors instead of repetitions."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg would write to stderr
    return decord.VideoReader(name, num_threads=1, fault_tol=1e-9)


# ------------------------------------------------------------------------------------ a smaller size, written once
def reencode_all(
    root: Path, names: Sequence[str], folder: Path, short_side: int, jobs: int = 0
) -> tuple[list[str], dict[str, str]]:
    """The path, absolute or from `folder`, that now stands for each file below a root; and {file: what is wrong}."""
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
        if not (made.is_file() and made.stat().st_mtime >= source.stat().st_mtime):  # of a former call
            info = probe(source)
            if info.truncated or not info.timed or min(info.width, info.height) <= short_side:
                return str(source), ""  # what is small stays, as does what the check of files will refuse
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
