"""Where motion and scene point to different actions: readers of one cue alone get all of its votes."""

import numpy as np
import pytest

from mede_core.lab.cues import gaps_beyond, scene_reader, scene_share, votes, votes_table
from mede_core.report.tables import order_blind_bounds
from mede_core.world.render import PLAIN
from mede_core.world.synthetic import World, before, draw_spec, make_set, swap_background

WORLD, CLIPS = World(5), make_set(World(5), half="all", count=72)


def test_a_reader_of_one_cue_gets_all_votes_of_that_cue():
    spec = before(CLIPS, WORLD.home[CLIPS.spec.motion ^ 1]).spec
    here = (WORLD.home == spec.scene[:, None]) & (np.arange(12) != (spec.motion ^ 1)[:, None])  # [N, motions]
    named = {"motion": spec.motion, "reversal": scene_reader(WORLD, spec), "resident": here.argmax(1)}
    found = {kind: votes(WORLD, spec, one) for kind, one in named.items()}
    assert all(one[key].all() == (key == kind) for kind, one in found.items() for key in one)
    assert [scene_share(one).value for one in found.values()] == [0, 100, 100]
    away = votes(WORLD, spec, np.where(WORLD.home[spec.motion - 2] == spec.scene, spec.motion, spec.motion - 2))
    mixed = {key: np.r_[found["reversal"][key], away[key]] for key in away}
    assert scene_share(mixed).value == pytest.approx(100 * 72 / (72 + away["motion"].sum()))
    assert votes_table({"frozen": found["motion"]})["Motion shown"][0] == "100.0 [100.0, 100.0]"


def test_a_reader_of_scenes_scores_what_the_formula_says():
    spec, _ = draw_spec(WORLD, WORLD.actions(half="all"), 14400, 0.8, np.random.default_rng(0))
    swapped = swap_background(WORLD, spec, "scene", np.random.default_rng(1))
    scores = [100 * (scene_reader(WORLD, one) == one.motion).mean() for one in (spec, swapped)]
    assert scores == pytest.approx([order_blind_bounds(0.8, 4)[where] for where in ("in", "out")], abs=1.2)


def test_only_the_background_is_another_one_and_gaps_are_told_beyond_the_reference():
    empty = before(CLIPS, PLAIN)
    assert (empty.masks == CLIPS.masks).all() and (empty.labels == CLIPS.labels).all()
    assert (empty.videos[0, 0, :, 0] == empty.videos[0, 0, :, 0, :1]).all(), "the top row has one color"
    ones, half = np.ones(40), np.arange(40) % 2
    gaps = gaps_beyond({"a": {"in": ones, "x": half}, "b": {"in": ones, "x": 0 * half}}, "a")
    assert [gaps[name]["x"].value for name in gaps] == [50, 50] and gaps["a"]["x"].low < 50
