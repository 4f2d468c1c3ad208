"""Reading video files by decord, where it can be trusted (see timeline.py), and by PyAV, which gives the same bits."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from .timeline import Timeline, VideoError, list_packets, timeline, to_the_end, video_stream

log = logging.getLogger(__name__)

_PYAV_ERRORS = (av.error.FFmpegError, VideoError, UnicodeError, OSError)
_FAR = 60  # frames: PyAV decodes shorter ways through, longer ones it seeks


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds: when its frames are shown and who reads them, its size as displayed, its codec."""

    timeline: Timeline
    width: int = 0
    height: int = 0
    rotation: int = 0  # degrees clockwise by which the stored picture is turned for display
    codec: str = ""
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
        info = _probed(name, full, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except _PYAV_ERRORS as error:
        raise VideoError(path, f"PyAV: {_short(error)}") from error
    if info.truncated:
        log.warning("video %s is truncated: it holds %d of %d frames", path, info.frames, info.announced)
    if info.damaged:
        log.warning("video %s is damaged in %d of its %d frames", path, info.damaged, info.frames)
    return info


def read_clip(
    path: str | os.PathLike, indices: Sequence[int], *, size: int | None = None, info: VideoInfo | None = None
) -> np.ndarray:
    """Chosen frames of a video, upright, uint8 [T, H, W, 3]; with ``size``, a longer short side is shrunk to it."""
    info, name = info or probe(path), _existing(path)
    wanted, order = np.unique(indices, return_inverse=True)
    reason = ""
    if info.backend == "decord":
        try:
            reader = _open_decord(name)
            if len(reader) == info.frames:
                return np.stack([_shrunk(one, size) for one in reader.get_batch(wanted.tolist()).asnumpy()])[order]
            reason = f"decord: it holds {len(reader)} frames, not {info.frames}"
        except Exception as error:  # decord's own have no common base; it may be missing or lack a library
            reason = f"decord: {_short(error)}"
        _say_once(os.fspath(path), reason)
    try:
        frames = _read_pyav(name, info.timeline, wanted.tolist(), size)
    except _PYAV_ERRORS as error:
        raise VideoError(path, reason, f"PyAV: {_short(error)}") from error
    return np.stack([frames[index] for index in wanted.tolist()])[order]


@lru_cache(maxsize=4096)
def _say_once(path: str, reason: str) -> None:
    log.warning("video %s is read with PyAV instead of decord: %s", path, reason)


def _existing(path: str | os.PathLike) -> str:
    """The absolute name of a regular, non-empty file: absolute, so that no part of it reads as a protocol."""
    file = Path(path)
    if not file.exists():
        raise VideoError(path, "no such file")
    if not file.is_file():
        raise VideoError(path, "it is a folder, not a file" if file.is_dir() else "it is not a regular file")
    if file.stat().st_size == 0:
        raise VideoError(path, "the file is empty")
    if not os.access(file, os.R_OK):
        raise VideoError(path, "no permission to read it")
    return os.path.abspath(file)


def _short(error: BaseException) -> str:
    """One line of an error; decord's come with a time and a source position before, a stack trace behind."""
    if isinstance(error, VideoError):
        return "; ".join(error.reasons)
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\[[\d:]+\] \S+?:\d+: (Check failed: )?", "", text.splitlines()[0])[:200]


# ------------------------------------------------------------------------------------ PyAV
@lru_cache(maxsize=4096)
def _probed(name: str, full: bool, _changed: tuple) -> VideoInfo:
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
            why = "interlaced, and decord mixes the colors of its fields" if first.interlaced_frame else ""
            try:
                _open_decord(name)
            except Exception as error:  # as above
                why = f"decord: {_short(error)}"
            found = replace(found, reader="seek", why=why) if why else found
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        codec, announced = stream.codec_context.codec.canonical_name, packets.announced or found.frames
        return VideoInfo(found, width, height, -90 * turns % 360, codec, announced, damaged if full else 0)


def _turns(frame: av.VideoFrame) -> int:
    """Counterclockwise quarter turns that display a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def upright(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """A decoded frame as it is displayed, uint8 [H, W, 3]; the width and height are those before it is turned."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", width=width, height=height), _turns(frame)))


def _read_pyav(name: str, line: Timeline, wanted: list[int], size: int | None) -> dict[int, np.ndarray]:
    """{index: picture} of the wanted frames, which ascend."""
    pictures: dict[int, np.ndarray] = {}
    with av.open(name) as container:
        stream, shape = video_stream(container, name), None
        for index, frame in _walk(container, stream, line, wanted):
            shape = shape or (frame.width, frame.height)  # a stream may change its size midway
            pictures[index] = _shrunk(upright(frame, *shape), size)
    lost = [index for index in wanted if index not in pictures]
    if lost and line.reader == "order":
        raise VideoError(name, f"frame {lost[0]} of {line.frames} cannot be decoded")
    return _read_pyav(name, replace(line, reader="order"), wanted, size) if lost else pictures


def _walk(container, stream, line: Timeline, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames in order; where the times allow it, far ones are sought."""
    if line.reader == "order":
        targets = set(wanted)
        for index, frame in enumerate(to_the_end(container.decode(stream))):
            if index in targets:
                yield index, frame
            if index >= wanted[-1]:
                return
    times, position, frames = line.times, -1, to_the_end(container.decode(stream))
    half, base = np.diff(times).min(initial=1.0) / 2, float(stream.time_base)
    for target in wanted:
        if target - position > _FAR:
            container.seek(int(times[target] / base), stream=stream)
            frames = to_the_end(container.decode(stream))
        for frame in frames:
            position = int(times.searchsorted((frame.pts or 0) * base + half)) - 1
            if position >= target:
                break
        if position != target:
            return
        yield target, frame


def _shrunk(picture: np.ndarray, size: int | None) -> np.ndarray:
    height, width = picture.shape[:2]
    if size is None or min(height, width) <= size:
        return picture
    scale = size / min(height, width)
    to = {"width": max(size, round(width * scale)), "height": max(size, round(height * scale))}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return frame.reformat(format="rgb24", interpolation="AREA", **to).to_ndarray()


# ------------------------------------------------------------------------------------ decord
def _open_decord(name: str):
    """A reader, never carried across a fork (it hangs); lost frames are errors instead of repetitions."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg would write to stderr
    return decord.VideoReader(name, num_threads=1, fault_tol=1e-9)
