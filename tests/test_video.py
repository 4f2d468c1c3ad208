"""Reading video files: the right frames whichever backend, honest counts, one clear error."""

import contextlib
import logging
import pickle
import shutil
import sys

import numpy as np
import pytest
from clips import decoded, make_clip, real_clips, turn

from mede_core.video import decode as video
from mede_core.video.decode import VideoError, probe, read_clip


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_decord_and_pyav_give_the_same_bits(tmp_path, monkeypatch, codec):
    pytest.importorskip("decord")
    path = make_clip(tmp_path / "clip.mp4", codec=codec, options={"bf": "0"})
    assert probe(path).backend == "decord"
    by_decord = read_clip(path, range(20))
    monkeypatch.setitem(sys.modules, "decord", None)
    video._probed.cache_clear()
    assert probe(path).backend == "pyav"
    assert np.array_equal(read_clip(path, range(20)), by_decord)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_rotation_is_applied(tmp_path, monkeypatch, degrees, backend):
    if backend == "pyav":
        monkeypatch.setitem(sys.modules, "decord", None)
    else:
        pytest.importorskip("decord")
    video._probed.cache_clear()
    path = make_clip(tmp_path / "clip.mp4", 5)
    upright = read_clip(path, [0, 4])
    turn(path, degrees)
    info = probe(path)
    assert info.backend == backend
    clip = read_clip(path, [0, 4])
    assert np.array_equal(clip, np.rot90(upright, -degrees // 90, axes=(1, 2)))
    assert clip.shape[1:3] == (info.height, info.width)


@pytest.mark.parametrize(
    "name", ["a b.mp4", "h#sh.mp4", "[x].mp4", "a&b.mp4", "it's.mp4", 'q"q.mp4', "%03d.mp4", "co:lon.mp4", "動画", "no"]
)
def test_odd_names_are_read(tmp_path, monkeypatch, name):
    shutil.copy(make_clip(tmp_path / "clip.mp4", 3), tmp_path / name)
    assert probe(tmp_path / name).frames == 3
    monkeypatch.chdir(tmp_path)
    assert read_clip(name, [2]).shape == (1, 64, 96, 3)


def test_a_decord_failure_falls_back_and_gives_decords_reason_once(tmp_path, monkeypatch, caplog):
    path = make_clip(tmp_path / "clip.mp4")
    info = probe(path)

    def fail(name):
        raise RuntimeError("no luck today")

    monkeypatch.setattr(video, "_open_decord", fail)
    for _ in range(2):
        assert np.array_equal(read_clip(path, [3, 9], info=info), decoded(path)[[3, 9]])
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "clip.mp4" in line and "no luck today" in line


def test_ten_bit_color_does_not_depend_on_the_backend(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", pixels="yuv420p10le")
    assert probe(path).backend == "pyav"
    assert np.array_equal(read_clip(path, [3, 9]), decoded(path)[[3, 9]])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_several_streams_one_is_read_throughout(tmp_path, suffix):
    path = make_clip(tmp_path / f"two.{suffix}", sizes=((96, 64), (192, 128)), audio=True)
    info = probe(path)
    clip = read_clip(path, [0, 19])
    assert clip.shape[1:3] == (info.height, info.width)
    assert np.array_equal(clip, decoded(path)[[0, 19]])


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "mpeg4"), ("mkv", "libx264")])
def test_a_truncated_file_is_told_with_both_counts(tmp_path, caplog, suffix, codec):
    path = make_clip(tmp_path / f"cut.{suffix}", 60, codec, sizes=((192, 128),), options={"bf": "0"})
    assert not probe(path).truncated
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    caplog.clear()
    info = probe(path)
    assert info.truncated
    assert 10 < info.frames < 50
    assert abs(info.announced - 60) <= 2
    assert f"{info.frames} of {info.announced}" in caplog.text
    assert len(read_clip(path, [0, info.frames - 1])) == 2  # what is there can be read


def test_damage_in_the_middle_is_found_by_a_full_probe(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 60, sizes=((192, 128),), gop=60)
    assert probe(path, full=True).damaged == 0
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + 800] = bytes(b ^ 0xFF for b in data[start : start + 800])
    path.write_bytes(data)
    assert probe(path).frames == 60  # a quick look cannot see it
    with contextlib.suppress(VideoError):  # or it is refused
        assert probe(path, full=True).damaged


BAD = {"missing.mp4": "no such file", "empty.mp4": "empty", "text.mp4": "PyAV", "noise.mp4": "PyAV",
       "dir.mp4": "folder", "sound.mp4": "no video stream"}  # fmt: skip


def test_an_unreadable_file_raises_one_error_that_names_it(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video here\n" * 200)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (tmp_path / "dir.mp4").mkdir()
    make_clip(tmp_path / "sound.mp4", sizes=(), audio=True)
    for name, reason in BAD.items():
        for read in (probe, lambda path: read_clip(path, [0])):
            with pytest.raises(VideoError, match=reason) as caught:
                read(tmp_path / name)
            assert name in str(caught.value) and "\n" not in str(caught.value)


def test_video_errors_survive_the_way_back_from_a_worker():
    sent = VideoError("a.mp4", "one", "two")
    error = pickle.loads(pickle.dumps(sent))
    assert (error.path, error.reasons, str(error)) == ("a.mp4", ("one", "two"), str(sent))


REAL = {  # frames, displayed size
    "arm_wrestling.mp4": (280, 340, 256),
    "cleaning_pool.mp4": (300, 340, 256),
    "apply_eye_makeup.avi": (164, 320, 240),
    "archery.avi": (131, 320, 240),
    "weightlifting.mp4": (355, 320, 240),
    "edge_cases/rotation_0.mov": (3, 568, 320),
    "edge_cases/rotation_90.mov": (3, 320, 568),
    "edge_cases/rotation_180.mov": (3, 568, 320),
    "edge_cases/tc_av1_video.mkv": (125, 640, 360),
    "edge_cases/tc_h264_10bits.mp4": (30, 200, 200),
    "edge_cases/tc_h265_video.mp4": (10, 128, 128),
    "edge_cases/unordered_timestamps.mov": (4, 50, 50),
}


@pytest.mark.parametrize("name", REAL)
def test_real_clips_are_read_frame_by_frame(name):
    path = real_clips() / name
    info = probe(path)
    assert (info.frames, info.width, info.height) == REAL[name]
    everything = decoded(path)
    indices = np.random.default_rng(0).integers(0, info.frames, 6)
    assert np.array_equal(read_clip(path, indices), everything[indices])


def test_the_real_corrupted_clip_is_refused():
    with pytest.raises(VideoError, match=r"corrupted\.mp4.*decord.*PyAV"):
        read_clip(real_clips() / "edge_cases" / "corrupted.mp4", [0, 25, 49])
    with pytest.raises(VideoError, match="of 50"):
        probe(real_clips() / "edge_cases" / "corrupted.mp4", full=True)
