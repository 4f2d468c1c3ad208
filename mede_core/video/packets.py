"""A video stream's packets, listed without decoding: how long the file is, and whether decord can be trusted.

decord seeks by keyframe. Where frames reach across keyframes (open GOP: most h265, some h264 and mpeg4),
where a keyframe is no fresh start (intra refresh) or where reordered frames carry no times of their own
(avi, ts), it silently returns neighboring or broken frames. The packet list shows all of these for the
price of reading the file once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import av
import numpy as np

_INDEXED_FORMATS = ("mp4", "matroska", "flv")  # they store the presentation times that decord relies on
_MISSING = 0.05  # truncated: the file ends this share of its announced duration, and two frames, too early
_H264_IDR = 5  # NAL unit type of a picture after which nothing refers to what came before


class VideoError(ValueError):
    """A video file that no backend can read, and what is wrong, or what each backend said."""

    def __init__(self, path: str | os.PathLike, *reasons: str):
        self.path, self.reasons = os.fspath(path), tuple(reason for reason in reasons if reason)
        super().__init__(f"video {self.path!r} cannot be read: {'; '.join(self.reasons)}")

    def __reduce__(self):  # data loader workers send exceptions through pickle
        return type(self), (self.path, *self.reasons)


@dataclass(frozen=True)
class Packets:
    """A video stream's packet list, read without decoding."""

    count: int
    header_count: int  # 0 where the header does not say
    starts_with_key: bool
    announced: int  # frames that the header promises, where the packets end too early; otherwise 0
    distrust: str  # why decord would return wrong frames; empty where it returns the right ones

    def shortfall(self) -> str:
        return f" (the file is truncated: its header announces {self.announced})" if self.announced else ""


def video_stream(container, path: str):
    """The best video stream that is no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise VideoError(path, f"no video stream (streams: {kinds})")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    stream.codec_context.thread_count = 1  # data loader workers read in parallel, not threads within a file
    return stream


def list_packets(name: str) -> Packets:
    """List the packets of a file's best video stream; the name is absolute."""
    with av.open(name) as container:
        stream = video_stream(container, name)
        times, keys, ends, fresh = [], [], {}, True
        for packet in container.demux():
            index = packet.stream_index
            if not packet.size:  # the flush packet at the end, and avi's empty chunks
                continue
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[index] = max(ends.get(index, end), end)
            if index == stream.index:
                times.append((packet.pts, packet.dts))
                keys.append(packet.is_keyframe)
                fresh = fresh and (not packet.is_keyframe or _is_fresh_start(packet, stream))
        if not times:
            raise VideoError(name, "its video stream holds no data")
        announced = _announced(container, stream, ends, len(times))
        distrust = _distrust(container, stream, times, keys, fresh)
        return Packets(len(times), stream.frames, keys[0], announced, distrust)


def _is_fresh_start(packet, stream) -> bool:
    """Whether decoding can begin at a keyframe; h264 also marks the points where a gradual refresh begins."""
    if stream.codec_context.name != "h264":
        return True
    data, header = bytes(packet), stream.codec_context.extradata or b""
    if header[:1] != b"\x01":  # byte stream: each unit follows a start code
        return any(unit[0] & 31 == _H264_IDR for unit in data.split(b"\0\0\1")[1:] if unit)
    width, position = (header[4] & 3) + 1, 0
    while position + width < len(data):  # mp4 and mkv: each unit follows its length
        if data[position + width] & 31 == _H264_IDR:
            return True
        position += width + int.from_bytes(data[position : position + width], "big")
    return False


def _announced(container, stream, ends: dict[int, float], count: int) -> int:
    """Frames that the header promises, if the packets end too early; 0 if they do not, or it promises none.

    The end of the packets decides, not their number: avi counts empty chunks as frames. Audio may outlast the
    video, so the end of any stream will do; avi's reader replaces the duration by what it found, but not the
    chunk count. A cut can go unnoticed in a file that starts late, but no whole file is suspected.
    """
    if container.format.name == "avi":
        promised, end = float(stream.frames * stream.time_base), ends.get(stream.index, 0.0)
    else:
        promised = (container.duration or 0) / av.time_base
        end = max(ends.values(), default=0.0)
    if end <= 0 or promised - end <= max(_MISSING * promised, 2 / float(stream.average_rate or 25)):
        return 0
    return stream.frames if stream.frames > count else round(count * promised / end)


def _distrust(container, stream, times: list[tuple], keys: list[bool], fresh: bool) -> str:
    """Why decord would return other frames or colors than PyAV; empty where it would not."""
    pixels = stream.codec_context.format
    if sum(s.type == "video" for s in container.streams) > 1:
        return "several video streams"
    if pixels is not None and any(component.bits > 8 for component in pixels.components):
        return f"more than 8 bits a color ({pixels.name})"
    if any(pts is None for pts, _ in times):
        return "frames without timestamps"
    shown = np.array([pts for pts, _ in times])
    if len(np.unique(shown)) < len(shown):
        return "frames share timestamps"
    if not keys[0]:
        return "it does not start with a keyframe"
    if not fresh:
        return "its keyframes are no fresh starts (intra refresh)"
    latest, earliest = np.maximum.accumulate(shown), np.minimum.accumulate(shown[::-1])[::-1]
    for index in np.flatnonzero(keys):
        if earliest[index] < shown[index] or (index and latest[index - 1] > shown[index]):
            return "frames reach across keyframes (open GOP)"
    stored = any(part in _INDEXED_FORMATS for part in container.format.name.split(","))
    if not stored and any(pts != dts for pts, dts in times):
        return f"its frames are reordered, and {container.format.name} stores no presentation times"
    return ""
