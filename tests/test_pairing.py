"""The study's controls differ from the paper's pairing in what they say they do, and in nothing else."""

import numpy as np
import pytest
import torch

from mede_core.config import load_config
from mede_core.experiment import learner_for, training_clips
from mede_core.train import DisjointClasses, query_pairs
from mede_core.world.synthetic import SOURCE_ACTORS, World

WORLD = World(4)


def batches(labels, pairs=5, size=6, seed=0):
    return list(DisjointClasses(labels, size, pairs, torch.Generator().manual_seed(seed)))


def test_disjoint_batches_share_no_class_and_fill_up():
    labels = torch.arange(48) % 8
    drawn = batches(labels)
    assert len(drawn) == 10 and all(len(set(batch)) == 6 for batch in drawn)
    for support, query in zip(drawn[0::2], drawn[1::2], strict=True):
        assert not set(labels[support].tolist()) & set(labels[query].tolist())
    assert drawn == batches(labels) and drawn != batches(labels, seed=1)


def test_disjoint_batches_need_enough_clips_of_half_of_the_classes():
    with pytest.raises(ValueError, match="fewer than batch_size"):
        batches(torch.arange(8) % 4)


def test_pairings_hand_out_the_batches_they_name():
    assert list(query_pairs([1, 2, 3], "next")) == [(1, 2), (2, 3), (3, 1)]
    assert list(query_pairs([1, 2, 3], "same")) == [(1, 1), (2, 2), (3, 3)]
    assert list(query_pairs([1, 2, 3, 4], "disjoint")) == [(1, 2), (3, 4)]


def test_folds_split_the_base_classes_and_leave_every_motion_in_training():
    base = set(WORLD.actions(half="base"))
    held = [set(WORLD.actions(half=f"pseudo_novel_{fold}")) for fold in (1, 2, 3)]
    assert set().union(*held) == base and sum(map(len, held)) == len(base)
    for fold, pseudo_novel in enumerate(held, start=1):
        kept = set(WORLD.actions(half=f"kept_{fold}"))
        assert kept == base - pseudo_novel
        assert {(actor, motion ^ 1) for actor, motion in pseudo_novel} == pseudo_novel, "a fold holds whole pairs"
        trained = [motion for _, motion in kept]
        assert all(trained.count(motion) == SOURCE_ACTORS // 2 - 1 for _, motion in base)


def test_a_fold_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="allowed: 1, 2, 3"):
        WORLD.actions(half="kept_4")
    with pytest.raises(ValueError, match="set of folds"):
        WORLD.actions("superset", half="kept_1")


def test_shuffled_labels_keep_their_counts_and_lose_their_clips():
    settings = {"method": "finetune", "train_clips": 360, "world_seed": 4}
    plain, shuffled = (load_config("smoke", **settings, shuffle_labels=yes) for yes in (False, True))
    learner = learner_for(plain)
    one, other = training_clips(plain, learner), training_clips(shuffled, learner)
    assert torch.equal(one.videos, other.videos)
    assert torch.equal(one.labels.bincount(), other.labels.bincount())
    assert (one.labels == other.labels).float().mean() < 0.15
    assert plain.training_hash() != shuffled.training_hash()


def test_held_out_classes_are_not_trained_on():
    config = load_config("smoke", method="finetune", world_seed=4, held_out=2)
    clips = training_clips(config, learner_for(config))
    assert clips.class_names == WORLD.class_names(half="kept_2")
    assert len(np.unique(clips.labels)) == 24


def test_a_clip_of_other_home_scenes_is_refused():
    with pytest.raises(ValueError, match="home_seed is 1; the CLIP 'shipped' was pretrained with 0"):
        learner_for(load_config("smoke", home_seed=1))
