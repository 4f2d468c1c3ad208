"""Videos written anew at a smaller size: the same frames at the same times, once, and what fails is named."""

import shutil

import av
import layouts
import numpy as np
import pytest
from clips import cut_clip, make_clip, turn
from layouts import rows_of
from PIL import Image, ImageOps

from mede_core.video.decode import probe, read_clip, reencode
from mede_core.video.manifest import select
from mede_core.video.prepare import prepare

UNEVEN = [0.0, 0.04, 0.11, 0.3, 0.32, 0.35, 0.6, 0.61, 0.9, 1.3]
LARGE = {"sizes": ((160, 96),)}
KINDS = {
    "even": lambda path: make_clip(path / "a.mp4", 20, **LARGE),
    "uneven": lambda path: make_clip(path / "a.mkv", seconds=UNEVEN, **LARGE),
    "no times in the file": lambda path: make_clip(path / "a.avi", 12, "mpeg4", **LARGE),
    "ten bits": lambda path: make_clip(path / "a.mp4", 8, pixels="yuv420p10le", **LARGE),
    "turned": lambda path: turn(make_clip(path / "a.mp4", 6, **LARGE), 90) or path / "a.mp4",
    "starts late": lambda path: cut_clip(make_clip(path / "b.mp4", 20, **LARGE), path / "a.mp4", 0.6, start=0.37),
}


def brightness(file, frames):
    """float64 [T, H, W]: these tests' pictures lose much of their colors to h264, which halves their resolution."""
    read = map(Image.fromarray, read_clip(file, frames))
    return np.stack([ImageOps.cover(frame, (48, 48), Image.Resampling.BOX) for frame in read]) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_times_stay(kind, tmp_path):
    source, made = KINDS[kind](tmp_path), tmp_path / "made.mp4"
    reencode(source, made, 48)
    old, new = probe(source, full=True), probe(made, full=True)
    assert new.frames == old.frames and (new.width, new.height) == ((48, 80) if kind == "turned" else (80, 48))
    assert np.abs(new.timeline.times - old.timeline.times).max() < 1e-9
    every = range(old.frames)
    before, after = (brightness(file, every) for file in (source, made))
    away = np.abs(before[:, None] - after[None]).mean((2, 3))  # of each old frame from each new one
    assert (away.argmin(1) == every).all() and away.diagonal().mean() < 5


def test_prepare_lists_what_it_made_keeps_what_is_small_and_goes_on_where_it_was(tmp_path):
    root = tmp_path / "videos"
    (large := root / "run" / "large.avi").parent.mkdir(parents=True)
    make_clip(tmp_path / "large.mp4", 12, **LARGE).rename(large)
    layouts.links(make_clip(tmp_path / "small.mp4", 12, sizes=((48, 32),)), root, ["swim/small.mp4"])
    shutil.copy(large, root / "run" / "large.mp4")
    (root / "swim" / "bad.mp4").write_bytes(b"no video")
    whole = make_clip(tmp_path / "long.mkv", 40, **LARGE).read_bytes()
    (root / "swim" / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    asked = {"dataset": "folder", "root": root, "out": root / "f.csv", "short_side": 48, "jobs": 2}
    prepared = prepare(**asked)
    paths = [row["path"] for row in rows_of(root / "f.csv")]
    assert paths == ["run/large.avi.48.mp4", "run/large.mp4.48.mp4", str(root / "swim" / "small.mp4")]
    assert f"2 videos are read from {root / 'f_48'}; 1 stay where they are" in prepared.report()
    assert ["swim/bad.mp4: PyAV" in line for line in prepared.problems["files that cannot be written anew"]] == [True]
    assert [f"{root}/swim/cut.mkv: truncated" in line for line in prepared.problems["undecodable files"]] == [True]
    manifest = select(root / "f.csv")
    assert [min(read_clip(path, [0]).shape[1:3]) for path in manifest.paths] == [48, 48, 32]
    assert [line.frames for line in manifest.timelines] == [12, 12, 12]
    first, second = (root / "f_48" / name for name in paths[:2])
    kept, listed = first.stat().st_mtime_ns, (root / "f.csv").read_bytes()
    second.rename(second.with_name(f".tmp-1-{second.name}"))  # as a killed call leaves it
    prepare(**asked)
    assert first.stat().st_mtime_ns == kept and second.is_file() and (root / "f.csv").read_bytes() == listed
    assert not list((root / "f_48").rglob(".tmp*"))
    with av.open(str(first)) as container:
        assert not container.streams.audio
