"""A Gaussian is chosen by the caller's criterion alone, and ties go to the published ratios."""

import math

import pytest

from mede_core import gaussian_weights, select_gwa


def test_the_choice_is_the_candidate_with_the_highest_score():
    target = gaussian_weights(8, 8.0, 0.8)
    seen = []

    def score(shares):
        seen.append(shares)
        return -float((shares - target).abs().sum())

    assert select_gwa(8, score) == (8.0, 0.8)
    assert len(seen) == 20


def test_equal_scores_keep_the_published_ratios():
    assert select_gwa(22, lambda shares: 1.0) == pytest.approx((0.68 * 22, 0.45 * 22))


def test_candidates_are_the_callers():
    found = select_gwa(10, lambda shares: float(shares[0]), mu_ratios=(0.1, 0.9), sigma_ratios=(0.2,))
    assert found == (1.0, 2.0)


@pytest.mark.parametrize(("value", "ratios"), [(1.0, ()), (math.nan, (0.5,))])
def test_no_usable_score_is_an_error(value, ratios):
    with pytest.raises(ValueError, match="finite scores"):
        select_gwa(8, lambda shares: value, mu_ratios=ratios)
