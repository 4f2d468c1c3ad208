"""Reading video files: what a file holds, and chosen frames of it as RGB arrays.

decord decodes where it can be trusted (see packets.py) and PyAV everything else; where both can, they give
the same bits. Which file is read with PyAV, and why, is logged.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from .packets import Packets, VideoError, list_packets, video_stream

log = logging.getLogger(__name__)

_PYAV_ERRORS = (av.error.FFmpegError, VideoError, UnicodeError, OSError)
_logged: set[tuple[str, ...]] = set()  # a fallback is logged once per file, not once per epoch


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        frames: frames that can be read.
        fps: average frames per second; 0.0 where the file does not say.
        width, height: pixels, after rotation.
        rotation: degrees clockwise by which the stored picture is turned for display: 0, 90, 180 or 270.
        backend: ``decord`` or ``pyav``, whichever reads it.
        announced: frames that the header promises; more than ``frames`` where the file was cut off.
        damaged: frames decoded with concealed errors; counted with ``full=True`` only.
    """

    frames: int
    fps: float
    width: int
    height: int
    rotation: int
    backend: str
    codec: str = ""
    announced: int = 0
    damaged: int = 0

    @property
    def truncated(self) -> bool:
        """Whether the file ends well before what its header says."""
        return self.announced > self.frames


def probe(path: str | os.PathLike, *, full: bool = False) -> VideoInfo:
    """Say what a video file holds; the header's frame count is taken only where the packets agree with it.

    ``full`` decodes every frame, which finds damage anywhere in the file (as slow as reading a clip of it). A
    truncated file is logged, with both counts; one that no backend can read is a VideoError.
    """
    name = _existing(path)
    try:
        packets = list_packets(name)
        info = _probe_pyav(name, packets, full)
    except _PYAV_ERRORS as error:
        raise VideoError(path, f"PyAV: {_short(error)}", _decord_reason(name)) from error
    distrust = packets.distrust or _decord_reason(name)
    if distrust:
        _log_fallback(path, distrust)
    if info.truncated:
        log.warning("video %s is truncated: it holds %d of %d frames", path, info.frames, info.announced)
    if info.damaged:
        log.warning("video %s is damaged in %d of its %d frames", path, info.damaged, info.frames)
    return VideoInfo(**{**vars(info), "backend": "pyav" if distrust else "decord"})


def read_clip(path: str | os.PathLike, frame_indices: Sequence[int], *, size: int | None = None) -> np.ndarray:
    """Read chosen frames of a video (0-based, in any order, repetitions allowed): uint8 [T, H, W, 3], RGB.

    They are turned as the file's rotation says, and come in the order asked for. With ``size``, frames whose short
    side is larger are shrunk to that many pixels after decoding.

    Raises:
        ValueError: no indices, or an index out of range.
        VideoError: no backend can read those frames.
    """
    indices = np.asarray(frame_indices)
    if indices.ndim != 1 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"frame_indices is {frame_indices!r}; expected one or more integers")
    name = _existing(path)
    wanted, order = np.unique(indices, return_inverse=True)
    try:
        packets = list_packets(name)
    except _PYAV_ERRORS as error:
        raise VideoError(path, f"PyAV: {_short(error)}", _decord_reason(name)) from error
    _check_range(path, wanted, packets.count, packets)
    reason = packets.distrust
    if not reason:
        try:
            reader = _open_decord(name)
            frames = list(reader.get_batch(wanted.tolist()).asnumpy())
            return np.stack(_shrunk(frames, size))[order]
        except _decord_errors() as error:
            reason = f"decord: {_short(error)}"
    _log_fallback(path, reason)
    try:
        frames, found = _read_pyav(name, wanted, size)
    except _PYAV_ERRORS as error:
        raise VideoError(path, reason, f"PyAV: {_short(error)}{packets.shortfall()}") from error
    if found <= wanted[-1]:
        lost = f"PyAV: frame {wanted[-1]} is wanted, but {found} of {packets.count} frames can be decoded"
        raise VideoError(path, reason, lost + packets.shortfall())
    return np.stack(frames)[order]


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


def _check_range(path, wanted: np.ndarray, count: int, packets: Packets) -> None:
    if wanted[0] < 0 or wanted[-1] >= count:
        outside = wanted[0] if wanted[0] < 0 else wanted[-1]
        allowed = f"0 to {count - 1} for {os.fspath(path)!r}{packets.shortfall()}"
        raise ValueError(f"frame_indices holds {outside}; allowed: {allowed}")


def _short(error: BaseException) -> str:
    """One line of an error; decord's come with a time and a source position before, a stack trace behind."""
    if isinstance(error, VideoError):
        return "; ".join(error.reasons)
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\[[\d:]+\] \S+?:\d+: (Check failed: )?", "", text.splitlines()[0])[:200]


def _log_fallback(path, reason: str) -> None:
    key = (os.path.abspath(path), reason)
    if key not in _logged:
        _logged.add(key)
        log.warning("video %s is read with PyAV instead of decord: %s", os.fspath(path), reason)


def _turns(frame: av.VideoFrame) -> int:
    """Counterclockwise quarter turns that display a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def _probe_pyav(name: str, packets: Packets, full: bool) -> VideoInfo:
    counted = full or packets.count != packets.header_count or not packets.starts_with_key
    first, decoded, damaged = None, 0, 0
    with av.open(name) as container:
        stream = video_stream(container, name)
        try:
            for frame in container.decode(stream):
                first = first or frame
                decoded += 1
                damaged += full and frame.is_corrupt
                if not counted:
                    break
        except av.error.FFmpegError as error:
            if first is None or (full and not packets.announced):
                raise VideoError(name, f"frame {decoded} of {packets.count}: {_short(error)}") from error
        if first is None:
            raise VideoError(name, f"0 of {packets.count} frames can be decoded")
        turns = _turns(first)
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        frames = decoded if counted else packets.count
        return VideoInfo(
            frames=frames,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            width=width,
            height=height,
            rotation=-90 * turns % 360,
            backend="pyav",
            codec=stream.codec_context.codec.canonical_name,
            announced=packets.announced or frames,
            damaged=damaged,
        )


def _read_pyav(name: str, wanted: np.ndarray, size: int | None) -> tuple[list[np.ndarray], int]:
    """The wanted (sorted) frames, as far as the file goes, and how many frames were decoded on the way."""
    targets, frames, position = set(wanted.tolist()), [], 0
    with av.open(name) as container:
        stream = video_stream(container, name)
        shape = None
        for frame in container.decode(stream):
            if position in targets:
                shape = shape or (frame.width, frame.height)  # a stream may change its size midway
                picture = frame.to_ndarray(format="rgb24", width=shape[0], height=shape[1])
                frames += _shrunk([np.ascontiguousarray(np.rot90(picture, _turns(frame)))], size)
            position += 1
            if len(frames) == len(targets):
                break
    return frames, position


def _shrunk(frames: list[np.ndarray], size: int | None) -> list[np.ndarray]:
    height, width = frames[0].shape[:2]
    if size is None or min(height, width) <= size:
        return frames
    scale = size / min(height, width)
    to = {"width": max(size, round(width * scale)), "height": max(size, round(height * scale))}
    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
    return [p.reformat(format="rgb24", interpolation="AREA", **to).to_ndarray() for p in pictures]


def _decord_errors() -> tuple[type[BaseException], ...]:
    common = (RuntimeError, AssertionError, IndexError, UnicodeError, ImportError, OSError)
    try:
        import decord
    except (ImportError, OSError):  # no wheel for this platform, or a library it needs is missing
        return common
    return (*common, decord.DECORDError, decord.DECORDLimitReachedError)


def _open_decord(name: str):
    """A reader, never carried across a fork (it hangs); lost frames are errors instead of repetitions."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg would write to stderr
    return decord.VideoReader(name, num_threads=1, fault_tol=1e-9)


def _decord_reason(name: str) -> str:
    """Why decord does not open a file; empty where it does."""
    try:
        _open_decord(name)
    except _decord_errors() as error:
        return f"decord: {_short(error)}"
    return ""
