"""Time: the frames that a player shows, when it shows them, whatever a file's header, steps, cuts or codec say."""

import random
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from clips import cut_clip, make_clip, shown

from mede_core.video import decode
from mede_core.video.clips import clip_indices
from mede_core.video.decode import probe, read_clip
from mede_core.video.timeline import parse

DATA = Path(__file__).parent / "data"
OPEN = {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}
UNEVEN = [0.0, *accumulate(random.Random(1).choices((0.017, 0.023, 0.033, 0.034, 0.051, 0.09), k=69))]
NTSC = Fraction(30000, 1001)
FILES = {  # name: codec, options, keyframe every, frames a second (0: uneven), packets copied from 1.1 s on
    "h264.mp4": ("libx264", {}, 12, 30, ""), "h264_15.mp4": ("libx264", {"bf": "0"}, 6, 15, ""),
    "h264_120.mp4": ("libx264", {"bf": "3"}, 250, 120, ""), "h264_1.mov": ("libx264", {}, 4, 1, ""),
    "h264_ntsc.mp4": ("libx264", {}, 12, NTSC, ""), "h264_uneven.mp4": ("libx264", {}, 12, 0, ""),
    "h264_uneven.mkv": ("libx264", {"bf": "0"}, 12, 0, ""), "h264_keycut.mp4": ("libx264", {}, 12, 30, "key"),
    "h264_rawcut.mp4": ("libx264", {}, 12, 30, "raw"), "h264_hidden.mp4": ("libx264", {}, 12, 30, "hidden"),
    "h264_uneven_hidden.mp4": ("libx264", {}, 12, 0, "hidden"), "h264_late.mp4": ("libx264", {}, 12, 30, "late"),
    "h264_late.mkv": ("libx264", {"bf": "0"}, 12, 25, "late"), "h264_rawcut.mkv": ("libx264", {}, 30, 30, "raw"),
    "open.mp4": ("libx264", OPEN, 12, 30, ""), "open.mkv": ("libx264", OPEN, 12, 25, ""),
    "open_keycut.mp4": ("libx264", OPEN, 12, 30, "key"), "open_rawcut.mkv": ("libx264", OPEN, 12, 30, "raw"),
    "open_hidden.mp4": ("libx264", OPEN, 12, 30, "hidden"), "open_uneven.mkv": ("libx264", OPEN, 12, 0, ""),
    "refresh.mp4": ("libx264", {"bf": "0", "x264-params": "intra-refresh=1"}, 12, 30, ""),
    "h265.mp4": ("libx265", {"x265-params": "log-level=none"}, 12, 30, ""),
    "h265_keycut.mkv": ("libx265", {"x265-params": "log-level=none"}, 12, 50, "key"),
    "h265_rawcut.mp4": ("libx265", {"x265-params": "log-level=none"}, 12, 30, "raw"),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}, 12, 30, ""), "mpeg4.avi": ("mpeg4", {}, 12, 25, ""),
    "mpeg4_b.avi": ("mpeg4", {"bf": "2"}, 12, 25, ""), "mpeg4_late.avi": ("mpeg4", {}, 12, 25, "late"),
    "mpeg4_rawcut.avi": ("mpeg4", {}, 12, 25, "raw"), "h264.avi": ("libx264", {}, 12, 30, ""),
    "h264_uneven.avi": ("libx264", {}, 12, 0, ""), "mjpeg.avi": ("mjpeg", {}, 1, 30, ""),
    "vp8.webm": ("libvpx", {"deadline": "realtime"}, 30, 30, ""), "vp8_uneven.webm": ("libvpx", {}, 30, 0, ""),
    "vp8_hidden.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}, 60, 30, ""),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime"}, 30, 12, ""),
    "vp9_late.webm": ("libvpx-vp9", {"deadline": "realtime"}, 30, 30, "late"),
    "h264.ts": ("libx264", {}, 12, 30, ""), "h264_uneven.ts": ("libx264", {}, 12, 0, ""),
    "interlaced.mp4": ("libx264", {"flags": "+ilme+ildct"}, 12, 30, ""),
    "h264_wrap.ts": ("libx264", {}, 12, 30, "wrap"),
    "h264_rawcut.ts": ("libx264", {}, 12, 30, "raw"), "mpeg2.ts": ("mpeg2video", {"bf": "2"}, 12, 30, ""),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}, 12, 25, ""), "mpeg1.mpg": ("mpeg1video", {}, 12, 30, ""),
    "h264.flv": ("libx264", {}, 12, 30, ""), "flv.flv": ("flv", {}, 12, 15, ""), "wmv2.asf": ("wmv2", {}, 12, 30, ""),
    "ani mated.gif": ("gif", {}, 12, 10, ""), "ffv1.nut": ("ffv1", {}, 1, 0, ""),
    "raw.h264": ("libx264", {}, 12, 25, ""),
}  # fmt: skip
# Wrapped: where mpegts begins to count anew
CUTS = {"key": {}, "raw": {"at_key": False}, "hidden": {"at_key": True, "start": -0.4}, "late": {"start": 1.5},
        "wrap": {"start": 2**33 / 90_000 - 0.9}}  # fmt: skip


@pytest.fixture
def file(request, tmp_path, monkeypatch):
    name = request.param
    codec, options, gop, rate, cut = FILES[name]
    monkeypatch.setattr(clips, "RATE", rate or 30)
    pixels = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    path = tmp_path / (f"whole {name}" if cut else name)
    how = {"gop": gop, "options": options, "pixels": pixels, "sizes": ((64, 48),), "seconds": None if rate else UNEVEN}
    make_clip(path, min(70, int(4 * (rate or 30)) + 4), codec, **how)
    return cut_clip(path, tmp_path / name, 0 if cut == "late" else 1.1, **CUTS[cut]) if cut else path


@pytest.mark.parametrize("file", FILES, indirect=True)
def test_every_frame_is_the_one_that_a_player_shows(file, monkeypatch):
    monkeypatch.setattr(decode, "_FAR", 8)  # so that short files are sought, too
    frames, times = shown(file)
    info = probe(file)
    assert info.frames == len(frames) and not info.truncated
    chosen = [range(len(frames)), *(random.Random(seed).choices(range(len(frames)), k=5) for seed in range(4))]
    for indices in chosen:
        off = np.abs(read_clip(file, indices, info=info).astype(int) - frames[indices])
        assert off.max() <= 3  # decord's own decoder rounds mpeg4 otherwise
    assert min(np.abs(a.astype(int) - b).max() for a, b in pairwise(frames)) > 3  # or nothing would be proved
    assert probe(file, full=True).timeline == info.timeline == parse(str(info.timeline))
    if None not in times and times == sorted(times) and file.suffix != ".avi":  # avi's are guessed
        tick = 0.01 if file.suffix == ".gif" else 0.0011
        assert np.abs(info.timeline.times - times).max() <= tick


def test_a_cut_that_was_copied_shows_what_its_edit_list_leaves():
    path = DATA / "trimmed_without_reencoding.mp4"
    info, (frames, _) = probe(path), shown(path)
    assert (info.frames, info.fps, info.backend) == (120, 30.0, "pyav")
    assert info.timeline.times[[0, -1]].round(3).tolist() == [0, 3.967]
    for sampling in ("uniform", "dense"):
        chosen = clip_indices(info, 8, sampling)
        assert (np.diff(chosen) > 0).all()
        assert np.array_equal(read_clip(path, chosen, info=info), frames[chosen])


def test_a_browsers_recording_has_the_rate_of_its_times():
    info = probe(DATA / "browser_recording.webm")
    assert (info.frames, info.backend) == (60, "pyav")
    assert info.fps == pytest.approx(26.855, abs=1e-3)
    assert info.timeline.times[[0, -1]].tolist() == [0.053, 2.25]
    chosen = clip_indices(info, 8, "dense")
    assert (np.diff(chosen[:4]) > 0).all() and chosen[4:].tolist() == [59] * 4  # it is shorter than the window


def test_a_slide_show_has_the_rate_of_its_slides(tmp_path):
    path = make_clip(tmp_path / "slides.mp4", options={"bf": "0"}, seconds=[0, 5, 10, 15])
    info = probe(path)
    assert (info.frames, info.fps) == (4, 0.2)
    assert clip_indices(info, 8, "dense", view=1, views=3).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]  # from 7.87 s on


def test_a_picture_that_is_only_referred_to_is_no_frame(tmp_path):
    source = make_clip(tmp_path / "vp8.webm", 30, "libvpx", gop=30)
    with av.open(str(source)) as container, av.open(str(tmp_path / "hidden.webm"), "w") as copy:
        new = copy.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(packet for packet in container.demux() if packet.size):
            data = bytearray(bytes(packet))
            data[0] &= 0xFF if number != 7 else 0xEF  # vp8's bit that says: show this picture
            hidden = av.Packet(bytes(data))
            hidden.pts, hidden.dts, hidden.time_base, hidden.stream = packet.pts, packet.dts, packet.time_base, new
            hidden.is_keyframe = packet.is_keyframe
            copy.mux(hidden)
    info, (frames, times) = probe(tmp_path / "hidden.webm"), shown(tmp_path / "hidden.webm")
    assert len(frames) == info.frames == 29
    assert np.array_equal(read_clip(tmp_path / "hidden.webm", range(29), info=info), frames)
    assert np.abs(info.timeline.times - times).max() < 1e-3


def test_sound_that_begins_long_after_the_video_does_not_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "RATE", 1)
    path = make_clip(tmp_path / "late sound.flv", 120, "flv")  # longer than what is looked at for streams
    tag = b"\x08\0\1\x91" + (121_000).to_bytes(3, "big") + bytes(4) + b"\x3e" + bytes(400)  # 0.01 s of silence
    path.write_bytes(path.read_bytes() + tag + len(tag).to_bytes(4, "big"))
    info = probe(path, full=True)
    assert info.frames == 120 and info.timeline == probe(path).timeline
    order = replace(info, timeline=replace(info.timeline, reader="order"))
    assert np.array_equal(read_clip(path, range(120), info=order), read_clip(path, range(120), info=info))


def test_only_plain_files_are_decords(tmp_path):
    plain = make_clip(tmp_path / "plain.mp4", 40)
    assert probe(plain).timeline.reader == "decord"
    for start, reader in ((1.5, "seek"), (-1.0, "order")):
        assert probe(cut_clip(plain, tmp_path / f"{start}.mp4", 0, start=start)).timeline.reader == reader


def test_a_file_is_looked_at_once(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mkv", 30, seconds=UNEVEN[:30])
    info, seen = probe(path), []
    monkeypatch.setattr(decode, "list_packets", seen.append)
    assert probe(path) == info
    read_clip(path, [3, 20])
    assert seen == []
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(AttributeError):
        probe(path)
    assert len(seen) == 1
