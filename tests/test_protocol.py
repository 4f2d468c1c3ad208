"""What the core gets of real videos: training clips, tests in and out of context, and what departs from the paper."""

import json
from pathlib import Path

import pytest
import torch
from clips import frame_folder, make_clip

from mede_core.config import EvalSet, load_config
from mede_core.video import protocol
from mede_core.video.manifest import ManifestError
from mede_core.video.prepare import prepare

CLASSES = ["archery", "bowling", "curling", "diving"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, name in ((split, name) for split in ("train", "test") for name in CLASSES):
        (root / "v" / split / name).mkdir(parents=True)
        make_clip(root / "v" / split / name / "a.mp4", 16, sizes=((48, 32),))
    make_clip(root / "v" / "train" / "archery" / "b.mp4", 20, sizes=((48, 32),))
    return str(prepare("folder", root / "v", root / "videos.csv").csv)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A list of two folders of frames, in which the gray value counts them."""
    root = tmp_path_factory.mktemp("frames")
    for name in ("one", "two"):
        frame_folder(root / name, 8, (40, 40), "jpg")
    (root / "scuba.txt").write_text("one 8 0\ntwo 8 3\n")
    return root / "scuba.txt"


def config(data, **changes):
    return load_config("paper", method="finetune", data=data, num_frames=4, data_split="train", **changes)


def test_training_clips_are_those_of_the_split_and_half(data):
    clips = protocol.training_clips(config(data, half="base"), 32)
    assert clips.class_names == ["archery", "bowling"] and clips.labels == [0, 0, 1]
    assert clips[0][0].shape == (4, 3, 32, 32) and clips.train
    assert len(protocol.training_clips(config(data, shots=1), 32)) == 4


def test_test_clips_are_those_of_the_test_in_its_views(data):
    test = EvalSet(set="mine", data=data, half="novel", part="test", views=3, prompts="templates")
    clips = protocol.test_clips(config(data), test, 32)
    assert clips.class_names == ["curling", "diving"] and len(clips) == 2
    assert clips[0][0].shape == (3, 4, 3, 32, 32)
    facts = protocol.facts(config(data), test, clips)
    assert (facts["views"], facts["prompts"], facts["skipped"]) == (3, "28 templates", 0)
    assert "num_frames=4" in facts["departs"] and "views" not in facts["departs"]
    one = EvalSet(set="mine", data=data, part="test", half="all", views=1)
    assert "views=1" in protocol.facts(config(data), one, clips)["departs"]


def test_frame_folders_count_the_labels_of_the_list_of_videos(data, frames):
    where = {"data": str(frames), "root": str(frames.parent), "classes_of": data}
    test = EvalSet(set="ucf101", context="places", part="scuba", **where)
    clips = protocol.test_clips(config(data), test, 32)
    assert (clips.class_names, clips.labels) == (CLASSES, [0, 3])
    moving, still = clips[0][0], protocol.test_clips(config(data), test.replace(order="single"), 32)[0][0]
    assert torch.equal(still, moving[[2] * 4]) and not torch.equal(still, moving)
    assert protocol.BUILT not in protocol.facts(config(data), test, clips)["departs"]
    (frames.parent / "scuba.json").write_text(json.dumps({"template": "img_{:05d}.jpg"}))
    assert protocol.BUILT in protocol.facts(config(data), test, clips)["departs"]
    twin = test.replace(context=protocol.IN_CONTEXT_CLIPS)
    assert protocol.BUILT not in protocol.facts(config(data), twin, clips)["departs"]


def test_what_cannot_be_read_is_refused_or_counted(data, frames):
    frames.write_text(frames.read_text() + "gone 8 1\n")
    test = EvalSet(set="ucf101", data=str(frames), classes_of=data)
    with pytest.raises(ManifestError, match="gone: no such folder"):
        protocol.test_clips(config(data), test, 32)
    clips = protocol.test_clips(config(data), test, 32, skip_bad=True)
    assert len(clips) == 2 and protocol.facts(config(data), test, clips)["skipped"] == 1


@pytest.mark.parametrize("order", ["shuffled", "reversed", "single"])
def test_an_order_of_frames_that_videos_are_not_shown_in_is_refused(data, order):
    with pytest.raises(ValueError, match=f"order is '{order}'; of mine's frames allowed: forward"):
        protocol.test_clips(config(data), EvalSet(set="mine", data=data, part="test", half="all", order=order), 32)


def test_a_list_of_one_class_is_no_test(data, tmp_path):
    (tmp_path / "one.csv").write_text(f"path,label\n{Path(data).parent}/v/test/bowling/a.mp4,bowling\n")
    one = EvalSet(set="mine", data=str(tmp_path / "one.csv"), half="all", part="all")
    with pytest.raises(ValueError, match="tests one class, 'bowling': any answer would be right"):
        protocol.test_clips(config(data), one, 32)
