"""Manifests and clips of real videos: all problems at once, nothing swapped, the same bits after a resume."""

import numpy as np
import pytest
import torch
from clips import decoded, make_clip, write_csv
from torch.utils.data import DataLoader

from mede_core.video.clips import VideoDataset, dense_indices, uniform_indices
from mede_core.video.manifest import ManifestError, read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six readable clips of three classes and one of each kind of bad file."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(6):
        make_clip(folder / f"clip{index}.mp4", 12 + index, sizes=((96, 64),) if index % 2 else ((64, 96),))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 100)
    make_clip(folder / "sound.mp4", sizes=(), audio=True)
    cut = make_clip(folder / "cut.mkv", 60, sizes=((192, 128),))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return folder


@pytest.fixture(scope="module")
def good(folder):
    rows = [(f"clip{index}.mp4", ("run", "jump", "swim")[index % 3]) for index in range(6)]
    return read_manifest(write_csv(folder / "good.csv", rows))


BAD = {"empty.mp4": "empty", "text.mp4": "PyAV", "sound.mp4": "no video stream", "gone.mp4": "no such file",
       "cut.mkv": "truncated"}  # fmt: skip


@pytest.fixture(scope="module")
def mixed(folder):
    rows = [("clip0.mp4", "run"), ("empty.mp4", "run"), ("text.mp4", "jump"), ("clip1.mp4", "jump")]
    rows += [("sound.mp4", "swim"), ("gone.mp4", "swim"), ("cut.mkv", "run"), ("clip2.mp4", "swim")]
    return read_manifest(write_csv(folder / "mixed.csv", rows))


def test_all_problems_are_reported_together(tmp_path):
    (tmp_path / "a.mp4").touch()
    text = "a.mp4,arm_wrestling\ngone.mp4,archery\na,b,c\n,archery\na.mp4,7\na.mp4,flying\n"
    text += "a.mp4,archery\na.mp4,arm wrestling\n"
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "l.csv", class_names=["archery", "arm wrestling"])
    for expected in (
        "taken for l.csv: 7 rows of path and label (the last of several numbers), separated by commas",
        "l.csv:1: unknown label 'arm_wrestling'; did you mean 'arm wrestling'?",
        "l.csv:3: unknown label 'c'",
        "l.csv:4: ',archery' is no path and label",
        "l.csv:5: label 7 is out of range 0 to 1",
        "l.csv:6: unknown label 'flying'",
        "l.csv:8: 'a.mp4' is labeled 'arm wrestling', but 'archery' on line 7",
        "gone.mp4",
    ):
        assert expected in str(caught.value)
    assert len(caught.value.problems) == 7


def test_missing_files_alone_are_no_error_but_logged(mixed, folder, caplog):
    read_manifest(folder / "mixed.csv")
    assert "1 of 8 files are missing" in caplog.text
    assert "gone.mp4" in caplog.text


def test_training_goes_on_without_bad_files_and_says_which(mixed, caplog):
    dataset = VideoDataset(mixed, 4, 32, train=True)
    assert [path.name for path in dataset.paths] == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]
    assert [dataset.class_names[label] for label in dataset.labels] == ["run", "jump", "swim"]
    assert {path.name for path in dataset.bad} == BAD.keys()
    message = next(r.getMessage() for r in caplog.records if "going on without 5 of 8" in r.getMessage())
    assert all(name in message for name in BAD)


def test_evaluation_refuses_bad_files_unless_told_otherwise(mixed):
    with pytest.raises(ManifestError) as caught:
        VideoDataset(mixed, 4, 32)
    reasons = dict(line.split(": ", 1) for line in caught.value.problems)
    assert [reason for name, reason in BAD.items() if reason not in reasons[str(mixed.source.parent / name)]] == []
    assert len(reasons) == len(BAD) and "skip_bad" in str(caught.value)
    assert len(VideoDataset(mixed, 4, 32, skip_bad=True)) == 3


def test_no_usable_file_is_an_error(folder):
    rows = [("empty.mp4", "run"), ("text.mp4", "run")]
    with pytest.raises(ManifestError, match="no usable video"):
        VideoDataset(read_manifest(write_csv(folder / "none.csv", rows)), 4, 32, train=True)


def test_evaluation_clips_are_the_center_of_the_uniform_frames(good):
    dataset = VideoDataset(good, 4, 64)
    video, label = dataset[1]
    assert video.dtype == torch.uint8
    assert video.shape == (4, 3, 64, 64)
    assert dataset.class_names[label] == "jump"
    frames = decoded(good.paths[1])[uniform_indices(13, 4)]
    assert np.array_equal(video.permute(0, 2, 3, 1), frames[:, :, 16:80])  # 96x64: scaled by 1, cut in the center


def test_items_of_several_views_have_a_views_axis(good):
    for sampling in ("uniform", "dense"):
        dataset = VideoDataset(good, 4, 32, sampling=sampling, views=3)
        assert dataset[0][0].shape == (3, 4, 3, 32, 32)
    one = VideoDataset(good, 12, 32)[0][0]
    assert torch.equal(VideoDataset(good, 4, 32, views=3)[0][0].transpose(0, 1).flatten(0, 1), one)


@pytest.mark.parametrize("compat", ["pyav", "torchvision"])
def test_compat_moves_the_frames_that_are_read(tmp_path, compat):
    make_clip(tmp_path / "long.mp4", 120)  # 10 fps: a window of 43 frames
    write_csv(tmp_path / "l.csv", [("long.mp4", "run")])
    manifest = read_manifest(tmp_path / "l.csv")
    dataset = VideoDataset(manifest, 8, 64, sampling="dense", views=3, compat=compat)
    frames = decoded(tmp_path / "long.mp4")[:, :, 16:80]
    for view in range(3):
        expected = frames[dense_indices(np.arange(120) / 10, 10, view=view, views=3, compat=compat)]
        assert np.array_equal(dataset[0][0][view].permute(0, 2, 3, 1), expected)
    assert not torch.equal(dataset[0][0], VideoDataset(manifest, 8, 64, sampling="dense", views=3)[0][0])


def clips(dataset, epoch):
    dataset.set_epoch(epoch)
    return torch.cat([video for video, _ in DataLoader(dataset, batch_size=2)])


@pytest.mark.parametrize("sampling", ["uniform", "dense"])
def test_training_clips_are_a_function_of_seed_epoch_and_row(good, sampling):
    dataset = VideoDataset(good, 4, 32, sampling=sampling, train=True, seed=3)
    torch.manual_seed(0)
    first = clips(dataset, 1)
    torch.manual_seed(1)  # the global generator plays no part
    np.random.seed(5)  # noqa: NPY002
    second = clips(dataset, 2)
    assert not torch.equal(first, second)
    resumed = VideoDataset(good, 4, 32, sampling=sampling, train=True, seed=3)
    assert torch.equal(clips(resumed, 2), second)
    assert torch.equal(clips(dataset, 1), first)
    assert not torch.equal(clips(VideoDataset(good, 4, 32, sampling=sampling, train=True, seed=4), 1), first)


def test_workers_read_the_same_bits_and_see_the_next_epoch(good):
    dataset = VideoDataset(good, 4, 32, train=True)
    expected = clips(dataset, 1), clips(dataset, 2)  # decord has been used in this process before it forks
    loader = DataLoader(dataset, 2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        assert torch.equal(torch.cat([video for video, _ in loader]), expected[epoch - 1])


def test_a_row_gets_the_same_clip_with_and_without_its_bad_neighbors(mixed, folder):
    rows = [("clip0.mp4", "run"), *[("clip1.mp4", "jump")] * 3, ("clip2.mp4", "swim")]
    whole = VideoDataset(read_manifest(write_csv(folder / "whole.csv", rows)), 4, 32, train=True)
    left = VideoDataset(mixed, 4, 32, train=True)
    assert left.rows == [0, 3, 7]
    assert torch.equal(left[1][0], whole[3][0])  # both are row 3
    assert not torch.equal(whole[2][0], whole[3][0])


def test_all_frames_of_a_training_clip_are_cut_and_flipped_alike(tmp_path):
    make_clip(tmp_path / "still.mp4", 1)  # one picture: every frame of the clip must be the same
    (tmp_path / "l.csv").write_text("still.mp4,run\n")
    dataset = VideoDataset(read_manifest(tmp_path / "l.csv"), 4, 32, train=True)
    pictures = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        video = dataset[0][0]
        assert torch.equal(video, video[:1].expand_as(video))
        pictures.add(video[0].numpy().tobytes())
    assert len(pictures) > 9


@pytest.mark.parametrize(
    ("names", "flips"),
    [
        (["run", "jump"], True),
        (["moving left", "jump"], False),
        (["Pushing something from right to left", "a"], False),
        (["TurnRight", "TurnLeft"], False),
        (["a leftward step", "x"], False),
        (["climbing upright", "bright lights"], True),
    ],
)
def test_nothing_is_flipped_where_a_class_name_holds_left_or_right(tmp_path, names, flips):
    for name in "ab":
        make_clip(tmp_path / f"{name}.mp4", 1)
    write_csv(tmp_path / "l.csv", [("a.mp4", names[0]), ("b.mp4", "hop")])
    manifest = read_manifest(tmp_path / "l.csv", class_names=[*names, "hop"])
    assert flipped(manifest) == [flips, True]
    assert flipped(manifest, flip_directions=True) == [True, True]  # as the peers do


def flipped(manifest, **options):
    """Whether each clip of a one-frame manifest is flipped in any of 12 epochs."""
    dataset, straight = (VideoDataset(manifest, 1, 64, train=True, **options) for _ in range(2))
    straight.flip, mirrored = [False] * len(straight.class_names), [False] * len(dataset)
    for epoch in range(12):
        dataset.set_epoch(epoch)
        straight.set_epoch(epoch)
        for i in range(len(dataset)):
            mirrored[i] |= torch.equal(dataset[i][0], straight[i][0].flip(-1))
    return mirrored
