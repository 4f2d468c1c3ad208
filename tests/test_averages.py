"""What each epoch counts in an average, what averages gain, and choosing center and width by a criterion."""

import math

import numpy as np
import pytest
import torch

from mede_core import gaussian_weights, select_gwa
from mede_core.averages import effective_epochs, epoch_shares
from mede_core.config import Average
from mede_core.report.averaging import against_last, along_trajectory, resolution


# ------------------------------------------------------------------------------------ shares
@pytest.mark.parametrize("with_zero", [False, True])
@pytest.mark.parametrize("rule", ["last", "gwa", "swa", "ema", "epoch"])
@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_the_shares_of_every_rule_sum_to_one_and_epoch_0_counts_only_where_asked(rule, epochs, with_zero):
    average = Average(rule, mu=3.0, sigma=2.0, epoch=1, with_zero=with_zero)
    shares = epoch_shares(average, epochs)
    assert shares.dtype == torch.float64 and shares.shape == (epochs + 1,)
    assert shares.sum().item() == pytest.approx(1, abs=1e-12)
    assert (shares >= 0).all()
    assert (shares[0] > 0) == (with_zero and rule in ("gwa", "swa", "ema"))


def test_a_gaussian_may_leave_out_the_first_epochs():
    whole, later = (epoch_shares(Average("gwa", mu=3.0, sigma=2.0, start=start), 6) for start in (1, 3))
    assert later[:3].tolist() == [0, 0, 0]
    torch.testing.assert_close(later[3:], whole[3:] / whole[3:].sum())


@pytest.mark.parametrize("with_zero", [False, True])
def test_ema_shares_are_those_of_the_recursion_begun_at_its_first_epoch(with_zero):
    values = np.random.default_rng(0).standard_normal(8)
    first = 0 if with_zero else 1
    average = values[first]
    for value in values[first + 1 :]:
        average = 0.8 * average + 0.2 * value
    shares = epoch_shares(Average("ema", decay=0.8, with_zero=with_zero), 7)
    assert float(shares @ torch.tensor(values)) == pytest.approx(average, rel=1e-12)


def test_swa_counts_alike_from_its_start_and_last_or_one_epoch_alone():
    assert epoch_shares(Average("swa"), 4).tolist() == [0] + [0.25] * 4
    assert epoch_shares(Average("swa", start=3), 4).tolist() == [0, 0, 0, 0.5, 0.5]
    assert epoch_shares(Average("last"), 4).tolist() == [0, 0, 0, 0, 1]
    assert epoch_shares(Average("epoch", epoch=0), 4).tolist() == [1, 0, 0, 0, 0]


def test_effective_epochs_count_what_an_average_spreads_over():
    assert effective_epochs([1, 1, 1, 1, 1]) == pytest.approx(5)
    assert effective_epochs([0, 0, 3, 0]) == pytest.approx(1)
    assert effective_epochs([1, 1, 0, 0]) == pytest.approx(2)


# ------------------------------------------------------------------------------------ accuracies along a trajectory
def rows(split, table):
    return [
        {"average": average, "split": split, "context": context, "value": value}
        for average, contexts in table.items()
        for context, value in contexts.items()
    ]


def test_out_of_context_is_the_mean_over_the_swapped_backgrounds():
    table = {
        "epoch 1": {"in": 80, "scene": 40, "noise": 50, "stripes": 60},
        "epoch 0": {"in": 90, "scene": 10, "noise": 20, "stripes": 30},
        "gwa": {"in": 85, "scene": 0, "noise": 0, "stripes": 3},
    }
    records = rows("base", table) + rows("novel", {"epoch 0": {"in": 1, "scene": 1}})
    epochs, accuracy, averages = along_trajectory(records)
    assert epochs == [0, 1]
    assert accuracy == {"in": [90, 80], "out": [20, 50]}
    assert averages == {"GWA": {"in": 85, "out": 1}}
    assert against_last(rows("base", table)) == [{"rule": "GWA", "split": "base", "in": 5, "out": -49}]


def test_resolution_is_the_binomial_one():
    assert resolution(400) == pytest.approx(4.9)


# ------------------------------------------------------------------------------------ choosing mu and sigma
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
