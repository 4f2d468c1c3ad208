"""A Gaussian is chosen by the caller's criterion alone, and ties go to the published ratios."""

import math

import pytest

from mede_core import gaussian_weights, select_gwa
from mede_core.selection import best_gaussian


def test_the_choice_is_the_candidate_with_the_highest_score():
    target = gaussian_weights(8, 8.0, 0.8)
    found = select_gwa(8, lambda shares: -float((shares - target).abs().sum()))
    assert (found.mu, found.sigma) == (8.0, 0.8)
    assert found.score == 0.0 == max(found.scores.values())
    assert len(found.scores) == 20


def test_equal_scores_keep_the_published_ratios():
    found = select_gwa(22, lambda shares: 1.0)
    assert (found.mu, found.sigma) == pytest.approx((0.68 * 22, 0.45 * 22))


def test_candidates_are_the_callers():
    found = select_gwa(10, lambda shares: float(shares[0]), mu_ratios=(0.1, 0.9), sigma_ratios=(0.2,))
    assert (found.mu, found.sigma) == (1.0, 2.0)


@pytest.mark.parametrize("scores", [{}, {(1.0, 1.0): math.nan}])
def test_no_usable_score_is_an_error(scores):
    with pytest.raises(ValueError, match="finite scores"):
        best_gaussian(scores, 8)
