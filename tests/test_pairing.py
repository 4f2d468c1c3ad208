"""The study's controls differ from the paper's pairing in what they say they do, and in nothing else."""

import pytest
import torch

from mede_core.config import load_config
from mede_core.experiment import learner_for
from mede_core.train import DisjointClasses, query_pairs


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


def test_a_clip_of_other_home_scenes_is_refused():
    with pytest.raises(ValueError, match="home_seed is 1; the CLIP 'shipped' was pretrained with 0"):
        learner_for(load_config("smoke", home_seed=1))
