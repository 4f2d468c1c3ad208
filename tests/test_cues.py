"""Where motion and scene point to different actions: readers of one cue alone get all of its votes."""

import numpy as np
import pytest
import torch

from mede_core.lab.cues import before, gaps_beyond, scene_reader, scene_share, votes, votes_table
from mede_core.report.tables import order_blind_bounds
from mede_core.world.render import PLAIN
from mede_core.world.synthetic import World, draw_spec, make_set, swap_background

WORLD = World(5)
CLIPS = make_set(WORLD, half="all", count=72)


def test_a_reader_of_one_cue_gets_all_votes_of_that_cue():
    spec = before(CLIPS, WORLD.home[CLIPS.spec.motion ^ 1]).spec
    here = WORLD.home == spec.scene[:, None]  # [N, motions]
    here[range(len(spec)), spec.motion ^ 1] = False
    named = {"motion": spec.motion, "reversal": scene_reader(WORLD, spec), "resident": here.argmax(1)}
    found = {kind: votes(WORLD, spec, one) for kind, one in named.items()}
    assert all(one[key].all() == (key == kind) for kind, one in found.items() for key in one)
    assert [scene_share(one).value for one in found.values()] == [0, 100, 100]
    away = votes(WORLD, spec, np.where(WORLD.home[spec.motion - 2] == spec.scene, spec.motion, spec.motion - 2))
    assert not (away["reversal"] | away["resident"]).any() and away["other"].any() and scene_share(away).value == 0
    cells = votes_table({"frozen": found["motion"]}).iloc[0].tolist()
    assert cells[1:] == ["100.0 [100.0, 100.0]", *4 * ["0.0 [0.0, 0.0]"]]


def test_a_reader_of_scenes_scores_what_the_formula_says():
    spec, _ = draw_spec(WORLD, WORLD.actions(half="all"), 14400, 0.8, np.random.default_rng(0))
    swapped = swap_background(WORLD, spec, "scene", np.random.default_rng(1))
    scores = [100 * (scene_reader(WORLD, one) == one.motion).mean() for one in (spec, swapped)]
    assert scores == pytest.approx([order_blind_bounds(0.8, 4)[where] for where in ("in", "out")], abs=1.2)


def test_only_the_background_is_another_one_and_gaps_are_told_beyond_the_reference():
    empty = before(CLIPS, PLAIN)
    assert torch.equal(empty.masks, CLIPS.masks) and torch.equal(empty.labels, CLIPS.labels)
    assert empty.videos[0, :, :, 0, 0].unique(dim=0).shape[0] == 1 and not torch.equal(empty.videos, CLIPS.videos)
    ones, half = np.ones(40), np.arange(40) % 2
    gaps = gaps_beyond({"a": {"in": ones, "x": half}, "b": {"in": ones, "x": 0 * half}}, "a")
    assert [gaps[name]["x"].value for name in gaps] == [50, 50] and gaps["a"]["x"].low < 50
