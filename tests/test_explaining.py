"""What explains a learner is drawn and tabled as it is: maps over strips, effects by clip, which map to believe."""

import numpy as np
import pytest

from mede_core.attention import MAPS
from mede_core.lab.map_tests import compare_maps
from mede_core.learner import build_learner
from mede_core.report.figures.explaining import effect_plane, map_curves, map_strips, overlay
from mede_core.report.tables import effects_table, maps_table, typical
from mede_core.world.synthetic import World, make_set

NUMBERS = ("deletion", "insertion", "shuffled")
EFFECTS = {
    "frozen": {"background": np.array([1.0, 3.0, -2.0, 2.0]), "motion": np.zeros(4)},
    "open_mede": {"background": np.array([0.5, 1.0, 0.0, 0.1]), "motion": np.array([2.0, -0.5, 1.0, 1.5])},
}
RIGHT = {
    "whole": np.array([1, 1, 1, 0], bool), "swapped": np.array([1, 0, 0, 0], bool),
    "shuffled": np.array([1, 1, 0, 0], bool), "single": np.array([0, 0, 0, 1], bool),
}  # fmt: skip


def test_every_clip_is_a_dot_and_the_title_counts_where_the_background_counts_more():
    panels = effect_plane(EFFECTS).axes
    for axes, effects in zip(panels, EFFECTS.values(), strict=True):
        np.testing.assert_allclose(axes.collections[0].get_offsets().T, [effects["background"], effects["motion"]])
        means = [effects[x].mean() for x in ("background", "motion")]
        np.testing.assert_allclose(axes.lines[-1].get_xydata()[0], means)
    assert [axes.get_title("left").splitlines()[1] for axes in panels] == [
        "background counts more: 100 %", "background counts more: 25 %",
    ]  # fmt: skip
    assert panels[0].get_xlim() == panels[1].get_ylim()


def test_effects_are_tabled_with_intervals_over_clips():
    rows = effects_table({name: one | RIGHT for name, one in EFFECTS.items()}).set_index("Method")
    gaps = [rows.loc["Open-MeDe", f"{gap} gap (points)"].split()[0] for gap in ("Static", "Order")]
    assert gaps == ["50.0", "25.0"] and rows.loc["Frozen CLIP", "Single frame (%)"].startswith("25.0 [")
    assert rows.loc["Open-MeDe", "Motion reversed (logits)"].startswith("+1.00 [")
    assert rows.loc["Frozen CLIP", "Motion reversed (logits)"] == "0.00 [0.00, 0.00]"
    assert rows.loc["Open-MeDe", "Background counts more (%)"].startswith("25.0 [")


def test_a_clip_is_typical_where_it_is_no_exception_in_either_effect():
    many = {"frozen": {"background": np.arange(21.0), "motion": 1e-6 * np.arange(21.0)}}
    for clip, percentile in ((10, 50), (20, 98)):
        said = typical(many, clip)
        assert f"{clip}.00 logits (percentile {percentile})" in said and "0.00 logits (percentile 50)" in said
        assert ("**not typical**" in said) == (clip == 20) and "of 21 clips" in said


def test_heat_is_brightest_where_a_map_is_highest_and_fits_maps_of_any_size():
    frames = np.full((2, 3, 32, 32), 100, np.uint8)
    for cells in (4, 13):
        maps = np.zeros((2, cells, cells))
        maps[1, 2, 1] = 1
        drawn = overlay(frames, maps)
        assert drawn.shape == frames.shape and drawn.dtype == np.uint8
        bright = drawn[1].sum(0) > drawn[0].sum(0).max()
        assert bright.any() and bright.sum() == (drawn[1].sum(0) == drawn[1].sum(0).max()).sum()
    figure = map_strips(frames, {"attention": np.ones((2, 4, 4)), "occlusion": -np.ones((2, 13, 13))})
    assert [axes.get_title("left") for axes in figure.axes] == ["frames", "attention", "occlusion"]
    labels = [[text.get_text() for text in axes.get_xticklabels()] for axes in figure.axes[1:]]
    assert labels == [["50 %", "50 %"], ["0 %", "0 %"]]


def test_curves_are_drawn_beside_those_of_a_random_order():
    curves = {kind: (np.array([80.0, low, 10.0]), np.array([80.0, 50.0, 10.0])) for kind, low in
              (("deletion", 20.0), ("insertion", 70.0))}  # fmt: skip
    panels = map_curves({"relevance": {"curves": curves}}).axes
    for axes, middle in zip(panels, (20.0, 70.0), strict=True):
        drawn = {line.get_label(): line.get_xydata()[1].tolist() for line in axes.lines}
        assert drawn == {"relevance": [50.0, middle], "random order": [50.0, 50.0]}


def test_a_map_is_believed_where_both_gains_are_sure_and_it_changes_with_the_weights():
    sure, unsure = np.linspace(4, 6, 20), np.linspace(-6, 7, 20)
    rows = maps_table({
        "true": {"deletion": sure, "insertion": sure, "shuffled": 0 * sure},
        "by chance": {"deletion": sure, "insertion": unsure, "shuffled": 0 * sure},
        "an edge detector": {"deletion": sure, "insertion": sure, "shuffled": 0 * sure + 0.9},
    })  # fmt: skip
    assert rows["May be believed"].tolist() == ["yes", "no", "no"]


def test_maps_are_compared_with_chance_and_with_other_weights():
    clips = make_set(World(1), half="all", count=72, context="noise")
    learner = build_learner().set_classes(clips.class_names)
    video, labels = clips.videos[:6], clips.labels[:6]
    maps = {"rollout": MAPS["rollout"], "the clip itself": lambda _, video, labels: video.float().mean(2)}
    found = compare_maps(learner, video, labels, maps, orders=2)
    assert {key: found["rollout"][key].shape for key in NUMBERS} == dict.fromkeys(NUMBERS, (6,))
    curve, chance = found["rollout"]["curves"]["deletion"]
    assert (chance - curve).mean() == pytest.approx(found["rollout"]["deletion"].mean(), abs=1e-4)
    assert found["the clip itself"]["shuffled"] == pytest.approx(np.ones(6))
    assert (np.abs(found["rollout"]["shuffled"]) < 0.9).all() and found["rollout"]["deletion"].mean() > 0
    again = compare_maps(learner, video, labels, maps, orders=2)
    assert all(np.array_equal(again["rollout"][key], found["rollout"][key]) for key in NUMBERS)
