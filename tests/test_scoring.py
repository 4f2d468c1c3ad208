"""Top-k: against a sort, with ties, and with numbers that are none."""

import numpy as np
import pytest

from mede_core.scoring import topk_correct


def test_topk_equals_a_sort_based_count_where_nothing_ties():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 11)), rng.integers(0, 11, 200)
    order = np.argsort(-logits, axis=1)
    for k in (1, 5, 11):
        assert (topk_correct(logits, labels, k) == (order[:, :k] == labels[:, None]).any(1)).all()


def test_topk_does_not_depend_on_the_order_of_classes_even_with_ties():
    rng = np.random.default_rng(1)
    logits, labels = rng.integers(0, 3, size=(100, 6)).astype(float), rng.integers(0, 6, 100)
    shuffle = rng.permutation(6)
    for k in (1, 3):
        renamed = topk_correct(logits[:, shuffle], np.argsort(shuffle)[labels], k)
        assert (renamed == topk_correct(logits, labels, k)).all()


def test_a_collapsed_model_with_equal_logits_scores_zero():
    assert not topk_correct(np.zeros((30, 10)), np.arange(30) % 10).any()


def test_logits_that_are_no_numbers_are_named():
    with pytest.raises(ValueError, match="clip 1 are not finite"):
        topk_correct(np.array([[0.0, 1], [np.nan, 1]]), np.array([0, 1]))
