"""The synthetic world: exact reversals, exact dial, exact masks, deterministic, fast."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mede_core.config import EvalSet, load_config
from mede_core.world import synthetic
from mede_core.world.render import SCENES, render
from mede_core.world.synthetic import CONTEXTS, MOTIONS, SETS, SOURCE_ACTORS, World, draw_spec, home_scenes, make_set

OTHER_DRAWS = ({"split": 2}, {"train": True})


@pytest.fixture(scope="module")
def world():
    return World(5)


@pytest.mark.parametrize("seed", range(5))
def test_no_pair_shares_a_home_scene_and_each_scene_is_home_to_three_motions(seed):
    home = home_scenes(seed)
    assert (home[0::2] != home[1::2]).all()
    assert np.bincount(home).tolist() == [3, 3, 3, 3]


def test_halves_hold_whole_pairs_are_disjoint_and_balanced(world):
    base, novel = (set(world.actions(half=half)) for half in ("base", "novel"))
    assert len(base) == len(novel) == 36 and not base & novel
    assert all((actor, motion ^ 1) in base for actor, motion in base)
    assert {m for _, m in base} == {m for _, m in novel} == set(range(len(MOTIONS)))


def test_folds_split_the_base_classes_and_leave_every_motion_in_training(world):
    base = set(world.actions(half="base"))
    held = [set(world.actions(half=f"pseudo_novel_{fold}")) for fold in (1, 2, 3)]
    assert set().union(*held) == base and sum(map(len, held)) == len(base)
    for fold, pseudo_novel in enumerate(held, start=1):
        kept = set(world.actions(half=f"kept_{fold}"))
        assert kept == base - pseudo_novel
        assert {(actor, motion ^ 1) for actor, motion in pseudo_novel} == pseudo_novel, "a fold holds whole pairs"
        trained = [motion for _, motion in kept]
        assert all(trained.count(motion) == SOURCE_ACTORS // 2 - 1 for _, motion in base)


@pytest.mark.parametrize("rho", [0.0, 0.25, 0.5, 0.8, 0.95, 1.0])
def test_the_share_of_home_scenes_is_exactly_rho_in_total_and_even_over_classes(world, rho):
    actions = world.actions(half="base")
    spec, labels = draw_spec(world, actions, 3600, rho, np.random.default_rng(0))
    home = spec.scene == world.home[spec.motion]
    assert home.sum() == round(rho * 3600)
    shares = np.array([home[labels == k].mean() for k in range(len(actions))])
    assert np.abs(shares - rho).max() <= 0.08
    assert (spec.scene >= 0).all() and np.bincount(labels).tolist() == [100] * 36


def test_away_scenes_are_home_to_neither_motion_of_the_pair(world):
    clips = make_set(world, context="scene", count=144)
    for motion, scene in zip(clips.spec.motion, clips.spec.scene):
        assert scene not in (world.home[motion], world.home[motion ^ 1])


@pytest.mark.parametrize("pair", range(6))
def test_the_two_motions_of_a_pair_are_exact_time_reversals(world, pair):
    clips = make_set(world, half="all", count=144)
    spec = clips.spec[np.flatnonzero(clips.spec.motion // 2 == pair)]
    forward, masks = render(spec)
    backward, reversed_masks = render(replace(spec, motion=spec.motion ^ 1))
    assert torch.equal(forward.flip(1), backward) and torch.equal(masks.flip(1), reversed_masks)
    assert not torch.equal(forward, backward)


@pytest.mark.parametrize("context", CONTEXTS[1:])
def test_twins_share_actors_and_motions_and_differ_only_in_the_background(world, context):
    clips, twin = make_set(world, count=72), make_set(world, count=72, context=context)
    assert torch.equal(clips.labels, twin.labels) and torch.equal(clips.masks, twin.masks)
    inside = clips.masks.unsqueeze(2).expand_as(clips.videos)
    visible = torch.from_numpy(~np.isin(clips.spec.motion, (8, 9)))  # appearing actors are translucent
    change = (clips.videos.int() - twin.videos.int()).abs().float()
    # Anti-aliased edges mix a little of the background into the actor's outermost pixels.
    assert change[visible][inside[visible]].mean() < 0.15 * change[visible][~inside[visible]].mean()
    assert change[visible][inside[visible]].median() == 0
    assert change[~inside].mean() > 5


def test_masks_are_the_actors_pixels(world):
    clips = make_set(world, count=360, context="noise")
    share = clips.masks.float().mean()
    assert 0.02 < share < 0.2
    still = (clips.videos[:, 1:].int() - clips.videos[:, :-1].int()).abs().amax(2) == 0
    touched = clips.masks[:, 1:] | clips.masks[:, :-1]
    grown = torch.nn.functional.max_pool2d(touched.float(), 5, 1, 2) > 0  # anti-aliased edges reach a pixel further
    assert still[~grown].all(), "something other than the actor moves"


def test_the_same_arguments_give_the_same_bits_and_another_seed_other_ones(world):
    first = make_set(world, count=72).videos
    assert torch.equal(first, make_set(World(5), count=72).videos)
    for other in (make_set(World(6), count=72), *(make_set(world, count=72, **one) for one in OTHER_DRAWS)):
        assert not torch.equal(first, other.videos)


def test_clip_bits_do_not_depend_on_how_many_are_rendered_at_once(world):
    spec, _ = draw_spec(world, world.actions(), 96, 0.5, np.random.default_rng(0))
    parts = torch.cat([render(spec[np.arange(i, i + 24)])[0] for i in range(0, 96, 24)])
    assert torch.equal(render(spec)[0], parts)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("half", ["base", "novel"])
def test_every_set_renders_with_its_own_classes(world, name, half):
    clips = make_set(world, name, half=half, count=48)
    assert clips.videos.shape == (48, 8, 3, 32, 32) and clips.videos.dtype == torch.uint8
    assert len(set(clips.class_names)) == len(clips.class_names) >= 12
    assert int(clips.labels.max()) < len(clips.class_names)


def test_the_superset_has_new_actors_and_the_transfer_sets_other_looks(world):
    assert not set(world.class_names("superset")) & set(world.class_names("source"))
    assert min(a for a, _ in world.actions("superset")) >= SOURCE_ACTORS
    source, transfer = (
        make_set(world, name, count=72).videos.float().mean((0, 1, 3, 4)) for name in ("source", "transfer_a")
    )
    assert (source - transfer).abs().max() > 3


def test_the_transfer_sets_have_coarser_and_finer_textures(world):
    def detail(name):
        """Mean step between neighboring pixels of the background, in units of its own contrast, for each scene."""
        clips = make_set(world, name, half="all", count=240)
        gray = clips.videos[:, 0].float().mean(1)
        gray[clips.masks[:, 0]] = torch.nan
        steps = sum(gray.diff(dim=dim).abs().nanmean((1, 2)) for dim in (1, 2)).numpy()
        contrast = np.nanstd(gray.flatten(1).numpy(), axis=1)
        return np.array([(steps / contrast)[clips.spec.scene == scene].mean() for scene in range(len(SCENES))])

    source, coarse, fine = (detail(name) for name in ("source", "transfer_a", "transfer_b"))
    assert (coarse < 0.9 * source).all() and (fine > 1.1 * source).all()


def test_the_direction_set_says_nothing_by_its_scene(world):
    clips = make_set(world, "direction", half="all", count=720)
    assert (clips.spec.scene == world.home[clips.spec.motion]).mean() == 0.25
    assert set(clips.spec.motion) == set(range(6))


def test_rendering_is_faster_than_500_clips_a_second(world):
    make_set(world, count=256)
    started = time.perf_counter()
    make_set(world, count=1024)
    assert 1024 / (time.perf_counter() - started) > 500


@pytest.fixture(scope="module")
def config():
    return load_config("smoke", world_seed=5, train_clips=360, num_frames=4)


def test_a_configuration_trains_on_its_base_classes_before_home_scenes_as_often_as_it_says(world, config):
    clips = synthetic.training_clips(config, 32)
    assert torch.equal(clips.videos, make_set(world, train=True, count=360, rho=config.rho, num_frames=4).videos)


def test_held_out_classes_are_not_trained_on(world, config):
    clips = synthetic.training_clips(config.replace(held_out=2), 32)
    assert clips.class_names == world.class_names(half="kept_2")
    assert len(np.unique(clips.labels)) == 24


def test_shuffled_labels_keep_their_counts_and_lose_their_clips(config):
    one, other = (synthetic.training_clips(config.replace(shuffle_labels=yes), 32) for yes in (False, True))
    assert torch.equal(one.videos, other.videos)
    assert torch.equal(one.labels.bincount(), other.labels.bincount())
    assert (one.labels == other.labels).float().mean() < 0.15


def test_a_test_of_the_world_is_drawn_as_it_says(world, config):
    test = EvalSet(set="transfer_a", half="novel", part=2, context="noise", clips=48)
    clips = synthetic.test_clips(config, test, 32)
    settings = {"half": "novel", "context": "noise", "split": 2, "count": 48, "num_frames": 4}
    assert torch.equal(clips.videos, make_set(world, "transfer_a", **settings).videos)
    assert synthetic.test_clips(config, test, 32) is clips, "every method is tested on the same clips"


def test_a_reversed_test_has_the_reversed_actions_as_its_labels(config):
    forward, backward = (synthetic.test_clips(config, EvalSet(clips=48, order=o), 32) for o in ("forward", "reversed"))
    assert torch.equal(backward.videos, forward.videos.flip(1)) and torch.equal(backward.masks, forward.masks.flip(1))
    for label, reverse in zip(forward.labels, backward.labels):
        one, other = forward.class_names[label].split(), backward.class_names[reverse].split()
        assert one[:3] == other[:3] and one != other


def test_a_clip_of_other_home_scenes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="home_seed is 1; the CLIP 'shipped' was pretrained with 0"):
        synthetic.check_home(load_config("smoke", home_seed=1))
    (tmp_path / "training.json").write_text('{"home_seed": 3}')
    synthetic.check_home(load_config("smoke", home_seed=3, weights=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "kinetics"}, "set is 'kinetics'; allowed: source"),
        ({"half": "old"}, "half is 'old'"),
        ({"half": "kept_4"}, "half is '4'; allowed: 1, 2, 3"),
        ({"name": "superset", "half": "kept_1"}, "set of folds is 'superset'"),
        ({"context": "blue"}, "context is 'blue'"),
        ({"rho": 1.2}, "rho is 1.2; allowed: 0 to 1"),
        ({"count": 3}, "3 clips for 36 classes"),
    ],
)
def test_bad_arguments_are_named(world, settings, message):
    with pytest.raises(ValueError, match=message):
        make_set(world, **settings)
