"""Lists of frame folders, SCUBA's form: read or refused by name, and clips of them as evaluations take videos."""

from pathlib import Path

import pytest
import torch
from clips import frame_folder
from PIL import Image

from mede_core.video.clips import FrameFolderDataset
from mede_core.video.manifest import ManifestError

CLASSES = ["archery", "brush hair", "cut in kitchen", "diving"]


@pytest.fixture
def listed(tmp_path):
    for name in ("v_Diving_g01__0", "two words__1"):
        frame_folder(tmp_path / "frames" / name)
    (tmp_path / "scuba.txt").write_text("v_Diving_g01__0 10 3\n\ntwo words__1 9 0\n")
    return tmp_path / "scuba.txt"


def clips_of(path, *size, **options):
    size = size or (4, 16)
    return FrameFolderDataset(path, path.parent / "frames", CLASSES, *size, template="img_{:05d}.png", **options)


def test_a_list_is_split_from_the_right_and_keeps_the_full_label_space(listed):
    clips = clips_of(listed)
    assert [(path.name, frames) for path, frames, _ in clips.rows] == [("v_Diving_g01__0", 10), ("two words__1", 9)]
    assert (clips.labels, clips.class_names) == ([3, 0], CLASSES)


def test_what_is_wrong_with_a_list_is_named_all_at_once(listed):
    root = listed.parent / "frames"
    frame_folder(root / "hole")
    (root / "hole" / "img_00004.png").unlink()
    frame_folder(root / "empty")
    (root / "empty" / "img_00002.png").write_bytes(b"")
    bad = ["gone__0 10 1", "hole 10 1", "empty 10 1", "v_Diving_g01__0 11 3", "two words__1 9 4", "x 10", "y z 1",
           "two words__1 9 1", "v_Diving_g01__0 0 3"]  # fmt: skip
    listed.write_text(listed.read_text() + "\n".join(bad))
    with pytest.raises(ManifestError) as caught:
        clips_of(listed)
    expected = {
        4: "gone__0: no such folder", 5: "hole: 9 of 10 frames; img_00004.png is missing",
        6: "empty: 9 of 10 frames; img_00002.png", 7: "10 of 11 frames; img_00011.png",
        8: "two words__1: label 4 is out of range 0 to 3", 9: "'x 10' is not", 10: "'y z 1' is not",
        11: "two words__1: label 1, but 0 on line 3", 12: "of 1 frame at least",
    }  # fmt: skip
    assert len(caught.value.problems) == len(expected)
    for (number, words), line in zip(expected.items(), caught.value.problems):
        assert line.startswith(f"line {number}: ") and words in line
    clips = clips_of(listed, skip_bad=True)
    assert (len(clips), len(clips.bad)) == (2, len(expected))


def test_a_wrong_root_and_a_wrong_template_are_said(listed):
    with pytest.raises(ManifestError, match="right root"):
        FrameFolderDataset(listed, listed.parent, CLASSES, 4, 16)
    with pytest.raises(ManifestError, match="img_00001.jpg is missing"):
        FrameFolderDataset(listed, listed.parent / "frames", CLASSES, 4, 16)
    with pytest.raises(ValueError, match="duplicates"):
        FrameFolderDataset(listed, listed.parent / "frames", ["a", "a"], 4, 16)


def values(clip):
    """The gray value of each frame, as numbers of the frames."""
    assert (clip == clip.flatten(-3)[..., 0][..., None, None, None]).all()
    return (clip[..., 0, 0, 0] // 10).tolist()


def test_frames_are_sampled_uniformly_and_in_views(listed):
    clip, label = clips_of(listed, 5, 16)[0]
    assert (clip.shape, clip.dtype, label) == ((5, 3, 16, 16), torch.uint8, 3)
    assert values(clip) == [1, 3, 5, 8, 10]  # centers 0.5, 2.5 .. counted from 0, halves toward the nearer end
    views, _ = clips_of(listed, 2, 16, views=2)[0]
    assert views.shape == (2, 2, 3, 16, 16)
    assert sorted(values(views)[0] + values(views)[1]) == values(clips_of(listed, 4, 16)[0][0])


def test_scufo_repeats_the_middle_frame_of_each_view(listed):
    moving = clips_of(listed, 4, 16, views=2)[0][0]
    still = clips_of(listed, 4, 16, views=2, scufo=True)[0][0]
    assert still.shape == moving.shape
    assert (still == still[:, :1]).all()
    assert torch.equal(still[:, 0], moving[:, 2])
    assert len(set(values(moving)[0])) == 4


def test_unreadable_frames_are_listed_before_anything_is_evaluated(listed):
    root = listed.parent / "frames"
    (root / "two words__1" / "img_00005.png").write_bytes(b"no picture")
    with pytest.raises(ManifestError, match=r"two words__1: img_00005.png cannot be read"):
        clips_of(listed, 9, 16)
    left = clips_of(listed, 9, 16, skip_bad=True)
    assert (len(left), left.labels, [Path(name).name for name in left.bad]) == (1, [3], ["two words__1"])
    Image.new("RGB", (9, 9)).save(root / "v_Diving_g01__0" / "img_00001.png")
    with pytest.raises(ManifestError, match="different sizes"):
        clips_of(listed, 10, 16)
