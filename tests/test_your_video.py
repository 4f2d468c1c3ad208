"""A video of one's own: the example is a clip of the world, and the explorer says what the learner answers."""

import types

import numpy as np
import pytest
import torch

from mede_core.lab.bias_lab import draw_clip, opinion, random_map
from mede_core.lab.your_video import EXAMPLE, video_explorer, video_values, write_example
from mede_core.learner import build_learner
from mede_core.video.decode import probe, read_clip
from mede_core.world.synthetic import World

NAMES = World(1).class_names(half="all")


@pytest.fixture(scope="module")
def learners():
    return {"frozen": build_learner()}


def test_the_example_shows_a_clip_of_the_world(tmp_path):
    shown = draw_clip(World(1), 0, 2, int(World(1).home[3]), num_frames=32, size=128).permute(0, 2, 3, 1).numpy()
    for file in (EXAMPLE, write_example(tmp_path / "again.mp4")):
        info = probe(file)
        assert (info.frames, info.fps, info.width) == (32, 8, 128) and file.stat().st_size < 40_000
        read = read_clip(file, np.arange(32), info=info)
        assert np.abs(read.astype(int) - shown).mean() < 6, "what is lost by compression"


def test_the_order_test_asks_the_same_learner_about_the_same_frames(learners):
    values = video_values(learners, EXAMPLE, method="frozen", shown="none")
    forward, backward, *_, single = values["order_test"]
    assert forward[1:] == values["top"][0] and [one[0] for one in values["order_test"]][1] == "reversed"
    assert backward[1] == forward[1] and backward[2] == pytest.approx(forward[2], rel=1e-3)  # a mean over frames
    clip = torch.from_numpy(next(iter(values["strips"].values())))
    assert len(clip) == 8 and single[1] == NAMES[int(learners["frozen"](clip[None, 4:5]).argmax())]


def test_the_explorer_turns_its_knobs_takes_a_file_and_says_what_is_wrong(learners):
    upload, path, classes, _, frames, _, view, shown, readout, image = video_explorer(learners).children
    first = image.value
    for knob, value in ((view, 5), (frames, 4), (shown, "none"), (classes, "a red star, a blue ball")):
        before, knob.value = image.value, value
        assert image.value != before
    assert "answer: <b>a red star</b>" in readout.value
    classes.value, before = "ball, Ball", image.value
    assert "duplicates: 'Ball', 'ball'" in readout.value and image.value == before
    classes.value, view.value, frames.value, shown.value = "", 1, 8, "relevance"
    assert image.value == first
    for name in ("a.mp4", "a.mp4"):
        content = types.SimpleNamespace(name=name, content=memoryview(EXAMPLE.read_bytes()))
        upload.notify_change({"name": "value", "new": (content,), "old": (), "owner": upload, "type": "change"})
        assert path.value.endswith("a.mp4") and path.value != str(EXAMPLE) and "answer" in readout.value
    path.value = "gone.mp4"
    assert "no such file" in readout.value


def test_what_a_map_ranks_highest_is_covered_in_the_picture_and_for_the_learner(learners):
    learner, clip = learners["frozen"].set_classes(NAMES), draw_clip(World(1), 0, 0, 0)
    plain, half, whole = (opinion(learner, clip, "random", share) for share in (0.0, 0.5, 1.0))
    gray = (255 * learner.mean).round().byte().numpy()
    assert ((half["frames"] == gray).all(1).mean() - 0.5) < 0.05 and (whole["frames"] == gray).all()
    assert plain["top"] == opinion(learner, clip)["top"] != half["top"]
    assert random_map(learner, clip[None], None).shape == (1, 8, 8, 8)
