"""Top-1: against a sort, with ties, and with numbers that are none."""

import numpy as np
import pytest
import torch

from mede_core.learner import build_learner
from mede_core.scoring import evaluate, top1_correct
from mede_core.speed import compile_encoder
from mede_core.world.synthetic import World, make_set


def test_top1_equals_a_sort_where_nothing_ties():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 11)), rng.integers(0, 11, 200)
    assert (top1_correct(logits, labels) == (np.argsort(-logits, axis=1)[:, 0] == labels)).all()


def test_top1_does_not_depend_on_the_order_of_classes_even_with_ties():
    rng = np.random.default_rng(1)
    logits, labels = rng.integers(0, 3, size=(100, 6)).astype(float), rng.integers(0, 6, 100)
    shuffle = rng.permutation(6)
    renamed = top1_correct(logits[:, shuffle], np.argsort(shuffle)[labels])
    assert (renamed == top1_correct(logits, labels)).all()


def test_a_collapsed_model_with_equal_logits_scores_zero():
    assert not top1_correct(np.zeros((30, 10)), np.arange(30) % 10).any()


def test_logits_that_are_no_numbers_are_named():
    with pytest.raises(ValueError, match="clip 1 are not finite"):
        top1_correct(np.array([[0.0, 1], [np.nan, 1]]), np.array([0, 1]))


def test_a_last_batch_that_is_filled_up_compiles_nothing_and_changes_no_answer(monkeypatch):
    learner, clips = build_learner(), make_set(World(1), count=38)
    expected = evaluate(learner, clips, batch_size=8)
    monkeypatch.setattr("mede_core.scoring.FILLED", ("cpu",))
    compile_encoder(learner, backend="eager", fullgraph=True)
    evaluate(learner, make_set(World(1), count=40), batch_size=8)  # whole batches alone
    with torch.compiler.set_stance("fail_on_recompile"):
        found = evaluate(learner, clips, batch_size=8)
    assert found.logits.shape == expected.logits.shape
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
