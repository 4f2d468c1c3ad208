"""A video of one's own: the example is a clip of the world, and the explorer says what the learner answers."""

import re
import types

import numpy as np
import pytest
import torch

from mede_core.lab.bias_lab import draw_clip, opinion, random_map
from mede_core.lab.your_video import EXAMPLE, by_order, read, video_explorer
from mede_core.learner import build_learner
from mede_core.video.decode import probe, read_clip
from mede_core.world.synthetic import World

NAMES = World(1).class_names(half="all")


@pytest.fixture(scope="module")
def learners():
    return {"frozen": build_learner()}


def test_the_example_shows_a_clip_of_the_world():
    shown = draw_clip(World(1), 0, 2, int(World(1).home[3]), num_frames=32, size=128).permute(0, 2, 3, 1).numpy()
    info = probe(EXAMPLE)
    assert (info.frames, info.fps, info.width) == (32, 8, 128) and EXAMPLE.stat().st_size < 40_000
    read = read_clip(EXAMPLE, np.arange(32), info=info)
    assert np.abs(read.astype(int) - shown).mean() < 6, "what is lost by compression"


def test_the_order_test_asks_about_the_same_frames_in_another_order(learners):
    learner = learners["frozen"].set_classes(NAMES)
    clip = read(learner, EXAMPLE)
    found = by_order(learner, clip)
    name, chance = found["forward"]
    assert found["reversed"] == (name, pytest.approx(chance, rel=1e-3))  # a mean over frames
    assert found["one frame"][0] == NAMES[int(learner(clip[None, 4:5]).argmax())]
    assert not torch.equal(clip, read(learner, EXAMPLE, view=5)) and len(read(learner, EXAMPLE, frames=4)) == 4


def test_the_explorer_turns_its_knobs_takes_a_file_and_says_what_is_wrong(learners):
    panel, readout, image = video_explorer(learners).children
    knobs = {knob.description: knob for knob in panel.children}
    first, path, classes = image.value, knobs["video file"], knobs["classes"]
    turned = {"view": 5, "frames": 4, "map": "none", "order": "shuffled", "classes": "a red star, a blue ball"}
    start = {name: knobs[name].value for name in turned}
    for name, value in turned.items():
        before, knobs[name].value = image.value, value
        assert image.value != before, name
    assert "left: a red star (" in re.sub("</?b>", "", readout.value) and "of 2 names" in readout.value
    classes.value, before = "ball, Ball", image.value
    assert "duplicates: 'Ball', 'ball'" in readout.value and image.value == before
    for name, value in start.items():
        knobs[name].value = value
    assert image.value == first
    paths = set()
    for _ in range(2):
        file = types.SimpleNamespace(name="a.mp4", content=memoryview(EXAMPLE.read_bytes()))
        change = {"name": "value", "new": (file,), "old": (), "owner": knobs["upload"], "type": "change"}
        knobs["upload"].notify_change(change)
        paths.add(path.value)
        assert path.value.endswith("a.mp4") and "left: " in readout.value
    assert len(paths) == 2, "another file of the same name is another video"
    path.value = "gone.mp4"
    assert "no such file" in readout.value


def test_what_a_map_ranks_highest_is_covered_in_the_picture_and_for_the_learner(learners):
    learner, clip = learners["frozen"].set_classes(NAMES), draw_clip(World(1), 0, 0, 0)
    plain, half, whole = (opinion(learner, clip, "random", share) for share in (0.0, 0.5, 1.0))
    gray = (255 * learner.normalize.mean).round().byte().numpy()
    assert ((half["frames"] == gray).all(1).mean() - 0.5) < 0.05 and (whole["frames"] == gray).all()
    assert plain["top"] == opinion(learner, clip)["top"] != half["top"]
    assert random_map(learner, clip[None], None).shape == (1, 8, 8, 8)
