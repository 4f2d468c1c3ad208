"""Small video files for the tests, made with PyAV; every frame shows its own number."""

import csv
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mede_core.files import repo_root

RATE = 10  # frames per second


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def picture(index, width=96, height=64, seed=0):
    """uint8 [H, W, 3]: blocks that move, so that no two frames are alike; lopsided, so that turns show."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    frame = np.roll(blocks.repeat(8, 0).repeat(8, 1), 3 * index, axis=1)
    frame[: height // 4, : width // 4] = 12 * index % 256
    return frame


def make_clip(
    path, frames=20, codec="libx264", *,
    sizes=((96, 64),), audio=False, pixels="yuv420p", gop=6, options=(), seconds=None,
):  # fmt: skip
    """Write a video: one stream for each size, with or without sound, frames in even steps or at the given seconds.

    The frames are a number of them, or uint8 [T, H, W, 3].
    """
    rate, given = Fraction(RATE), None if isinstance(frames, int) else frames
    if given is not None:
        frames, sizes = len(given), (given.shape[2:0:-1],)
    with av.open(os.fspath(path), "w") as container:
        streams = []
        for width, height in sizes:
            stream = container.add_stream(codec, rate=rate, options=dict(options))
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.codec_context.gop_size = gop
            if seconds is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            streams.append(stream)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for index in range(frames if seconds is None else len(seconds)):
            for seed, stream in enumerate(streams):
                image = picture(index, stream.width, stream.height, seed) if given is None else given[index]
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, 1 / rate
                if seconds is not None:
                    frame.pts, frame.time_base = round(1000 * seconds[index]), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            if sound:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 16000, index * 1600
                container.mux(sound.encode(silence))
        for stream in [*streams, *([sound] if sound else [])]:
            container.mux(stream.encode())
    return Path(path)


def frame_folder(folder, frames=10, size=(20, 16), kind="png"):
    """A folder of frames; each one has its own gray value, 10 times its number."""
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        Image.new("RGB", size, (10 * number,) * 3).save(folder / f"img_{number:05d}.{kind}")


def cut_clip(source, target, seconds, *, at_key=True, start=0.0):
    """Copy packets from a moment on, as phones and `-c copy` do; the moment becomes `start`."""
    with av.open(os.fspath(source)) as container, av.open(os.fspath(target), "w") as copy:
        stream = container.streams.video[0]
        new, begun = copy.add_stream_from_template(stream), False
        shift = round((start - seconds) / stream.time_base)
        for packet in container.demux(stream):
            late = packet.size and packet.pts * stream.time_base >= seconds
            begun = begun or (late and (packet.is_keyframe or not at_key))
            if packet.size and begun:
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, new
                copy.mux(packet)
    return Path(target)


def turn(path, degrees):
    """Write a display rotation (clockwise) into the track header of an mp4 file."""
    data = bytearray(Path(path).read_bytes())
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    values = [cos, sin, 0, -sin, cos, 0, 0, 0, 1]
    scales = [1 << 16, 1 << 16, 1 << 30] * 3
    start = data.index(b"tkhd") + 4 + 40  # after version, times, id, duration, layer and volume
    for position, (value, scale) in enumerate(zip(values, scales, strict=True)):
        data[start + 4 * position : start + 4 * position + 4] = (value * scale).to_bytes(4, "big", signed=True)
    Path(path).write_bytes(data)


def shown(path):
    """(uint8 [N, H, W, 3], seconds or None of each): what a sequential decode gives, by PyAV alone."""
    with av.open(os.fspath(path)) as container:
        stream = container.streams.best("video")
        frames = list(container.decode(stream))
        times = [frame.pts if frame.pts is None else float(frame.pts * stream.time_base) for frame in frames]
    return np.stack([np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90) % 4) for f in frames]), times


def decoded(path):
    """uint8 [N, H, W, 3]: every frame of the best video stream in order."""
    return shown(path)[0]


def real_clips():
    """The folder of real clips, or the test is skipped."""
    folder = Path(os.environ.get("MEDE_REAL_CLIPS") or repo_root().parent / "shared" / "real_clips")
    if not folder.is_dir():
        pytest.skip(f"no real clips: {folder} is absent (set MEDE_REAL_CLIPS to their folder)")
    return folder
