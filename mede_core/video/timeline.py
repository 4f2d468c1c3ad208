"""When a video's frames are shown, told by one pass over its packets (headers lie), and who reads them rightly.

In doubt a sequential decode decides. decord returns neighboring or broken frames in silence where frames reach across
keyframes (open GOP: most h265, some h264 and mpeg4) or a keyframe is no fresh start (intra refresh).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

_INDEXED = ("mp4", "matroska", "flv", "avi")  # formats in which seeking finds a keyframe
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
class Timeline:
    """The times of a video's frames: a ladder from ``start`` (seconds) at ``rate``, or where that is 0, ``ticks``."""

    reader: str  # decord by index; seek: PyAV, by time; order: PyAV, the k-th frame of a sequential decode
    frames: int
    rate: Fraction = Fraction(0)
    start: Fraction = Fraction(0)
    ticks: tuple[int, ...] = ()  # one a frame, in units of ``base`` seconds
    base: Fraction = Fraction(0)

    @property
    def fps(self) -> float:
        """Frames a second, from the first to the last; 0.0 where a video has no times or a single frame."""
        span = (self.ticks[-1] - self.ticks[0]) * self.base if self.ticks else 0
        return float((self.frames - 1) / span if span else self.rate)

    @property
    def times(self) -> np.ndarray:
        """float64 [N] seconds."""
        if self.ticks:
            return np.array(self.ticks, dtype=np.float64) * float(self.base)
        return float(self.start) + np.arange(self.frames) / float(self.rate or 1)

    def __str__(self) -> str:
        uneven = (self.base, *np.diff(self.ticks, prepend=0).tolist()) if self.ticks else ()
        return " ".join(map(str, (self.reader, self.frames, self.rate, self.start, *uneven)))


def parse(text: str) -> Timeline:
    reader, frames, rate, start, *rest = text.split()
    ticks = tuple(np.cumsum([int(step) for step in rest[1:]]).tolist())
    return Timeline(reader, int(frames), Fraction(rate), Fraction(start), ticks, Fraction(*rest[:1]))


@dataclass(frozen=True)
class Packets:
    pts: list  # ticks of the packets that are shown, in their order; None where one has no time
    base: Fraction
    rates: list[Fraction]  # that the header gives
    announced: int  # frames that the header promises, where the packets end too early; otherwise 0
    doubt: bool  # whether only a decode can tell the frames
    untimed: bool  # whether not even that tells when they are shown
    seekable: bool  # whether decoding can begin at any keyframe
    common: bool  # whether decord's colors and streams are the same


def video_stream(container, path: str):
    """The best video stream that is no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise VideoError(path, f"no video stream (streams: {kinds})")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(path, "the codec of its video stream is unknown")
    stream.codec_context.thread_count = 1  # data loader workers read in parallel, not threads within a file
    return stream


def to_the_end(items: Iterable) -> Iterator:
    """Packets or frames; behind the last one PyAV fails where a stream, such as sound, began midway."""
    try:
        yield from items
    except IndexError:
        return


def list_packets(name: str) -> Packets:
    """List the packets of a file's best video stream, without decoding; the name is absolute."""
    with av.open(name) as container:
        stream = video_stream(container, name)
        times, keys, hidden, ends, fresh = [], [], [], {}, True
        for packet in to_the_end(container.demux()):
            index = packet.stream_index
            if not packet.size:  # the flush packet at the end, and avi's empty chunks
                continue
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[index] = max(ends.get(index, end), end)
            if index == stream.index:
                times.append((packet.pts, packet.dts))
                keys.append(packet.is_keyframe)
                # vp8's header says whether a picture is shown, or only referred to.
                invisible = stream.codec_context.name == "vp8" and not bytes(packet)[0] & 16
                hidden.append(packet.is_discard or invisible)
                fresh = fresh and (not packet.is_keyframe or _is_fresh_start(packet, stream))
        if not times:
            raise VideoError(name, "its video stream holds no data")
        name, reordered = container.format.name, any(pts != dts for pts, dts in times)
        if name == "avi":  # a chunk is a moment of display; avi stores no other times
            times = [(dts, dts) for _, dts in times]
        pts = [pts for (pts, _), gone in zip(times, hidden) if not gone]
        rates = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        announced = _announced(container, stream, ends, len(times))
        untimed = name == "avi" and reordered
        # Hidden packets are of an edit list, or invisible pictures.
        doubt = untimed or any(hidden) or announced or stream.frames not in (0, len(times)) or _in_doubt(times, keys)
        indexed = any(part in _INDEXED for part in name.split(","))
        seekable = not doubt and fresh and indexed and _closed(np.array([pts for pts, _ in times]), keys)
        bits = [component.bits for component in getattr(stream.codec_context.format, "components", ())]
        common = max(bits, default=0) <= 8 and sum(s.type == "video" for s in container.streams) == 1
        return Packets(pts, stream.time_base, rates, announced, bool(doubt), untimed, seekable, common)


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
    """Frames that the header promises, if the packets end too early; 0 if they do not, or it promises none."""
    # The end of the packets decides, not their number: avi counts empty chunks as frames. The end of any stream will
    # do, since audio may outlast the video.
    if container.format.name == "avi":
        promised, end = float(stream.frames * stream.time_base), ends.get(stream.index, 0.0)
    else:
        promised = (container.duration or 0) / av.time_base
        end = max(ends.values(), default=0.0) - min(0.0, (container.start_time or 0) / av.time_base)
    if end <= 0 or promised - end <= max(_MISSING * promised, 2 / float(stream.average_rate or 25)):
        return 0
    return stream.frames if stream.frames > count else round(count * promised / end)


def _in_doubt(times: list[tuple], keys: list[bool]) -> bool:
    """Whether packets do not tell which frames are shown when."""
    shown, decoding = [pts for pts, _ in times], [dts for _, dts in times if dts is not None]
    if None in shown or len(set(shown)) < len(shown):
        return True
    return not keys[0] or min(shown) < shown[0] or decoding != sorted(decoding)


def _closed(shown: np.ndarray, keys: list[bool]) -> bool:
    """Whether no frame reaches across a keyframe (closed GOP)."""
    latest, earliest = np.maximum.accumulate(shown), np.minimum.accumulate(shown[::-1])[::-1]
    at = np.flatnonzero(keys)
    return bool((earliest[at] == shown[at]).all() and (latest[at] == shown[at]).all())


def timeline(packets: Packets, decoded: list | None = None) -> Timeline:
    """The timeline that packets tell, or in doubt, the times of all frames that a sequential decode gave."""
    told = None if packets.doubt or None in packets.pts else sorted(packets.pts)
    ticks = told if decoded is None else decoded
    if packets.untimed:
        ticks = sorted(packets.pts) if len(packets.pts) == len(decoded) else [None] * len(decoded)
    if None in ticks or not np.all(np.diff(ticks) > 0):  # the packets tell an average rate, or else the header does
        known = sorted({pts for pts in packets.pts if pts is not None})
        mean = (len(known) - 1) / ((known[-1] - known[0]) * packets.base) if len(known) > 1 else 0
        return Timeline("order", len(ticks), *([mean] if mean else packets.rates[:1]))
    reader = "seek" if packets.seekable and ticks == told else "order"
    rate, start = _ladder(np.array(ticks), packets), ticks[0] * packets.base
    if rate is None:
        return Timeline(reader, len(ticks), ticks=tuple(ticks), base=packets.base)
    plain = reader == "seek" and packets.common and start == 0
    return Timeline("decord" if plain else reader, len(ticks), rate, start)


def _ladder(ticks: np.ndarray, packets: Packets) -> Fraction | None:
    """The rate at which the times are a regular ladder, up to rounding to the time base; None where they are not."""
    count = len(ticks)
    if count == 1:
        return Fraction(0)
    mean = (count - 1) / (Fraction(int(ticks[-1] - ticks[0])) * packets.base)
    for rate in (*packets.rates, Fraction(round(mean)), Fraction(round(mean * 1001), 1001), mean):
        step = 1 / (rate * packets.base) if rate else 0
        if step and np.abs(ticks - ticks[0] - np.arange(count) * float(step)).max() <= min(1.0, float(step) / 4):
            return rate
    return None
