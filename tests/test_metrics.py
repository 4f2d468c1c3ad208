"""Properties of the metrics; scipy's bootstrap and published tables are the references."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mede_core.report.intervals import accuracy_interval, harmonic_interval, paired_difference, t_interval
from mede_core.report.metrics import harmonic_mean, mean_std, pack_correct, unpack_correct

# Base / Novel / HM as published in FROSTER's README: K400, HMDB, UCF, SSv2 of each method.
PUBLISHED_HM = """
Frozen CLIP  62.3/53.4/57.5 53.3/46.8/49.8 78.5/63.6/70.3 4.9/5.3/5.1
Open-VCLIP   76.5/62.6/68.9 70.3/50.4/58.7 94.8/77.5/85.3 16.0/11.0/13.0
FROSTER      77.8/64.3/70.4 74.1/58.0/65.1 95.3/80.0/87.0 18.3/12.2/14.6
"""
TRIPLES = [tuple(map(float, cell.split("/"))) for cell in PUBLISHED_HM.split() if cell.count("/") == 2]
percent = st.floats(0, 100)


# ------------------------------------------------------------------------------------- harmonic mean
@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_harmonic_mean_recomputes_each_published_row(triple):
    """All three numbers were rounded to 0.1, so the published one may come from anywhere in that box."""
    base, novel, published = triple
    lowest, highest = harmonic_mean(base - 0.05, novel - 0.05), harmonic_mean(base + 0.05, novel + 0.05)
    assert lowest - 0.05 <= published <= highest + 0.05


def test_harmonic_mean_is_zero_where_either_is_zero_and_works_elementwise():
    assert harmonic_mean(0, 80) == harmonic_mean(0, 0) == 0
    assert harmonic_mean([60.0, 0.0], [30.0, 5.0]) == pytest.approx([40.0, 0.0])


@given(percent, percent)
@settings(deadline=None, max_examples=100)
def test_harmonic_mean_is_symmetric_and_between_the_smaller_and_twice_the_smaller(a, b):
    value = harmonic_mean(a, b)
    low, high = min(a, b), max(a, b)
    assert value == harmonic_mean(b, a)
    assert low * (1 - 1e-12) <= value <= min(high, 2 * low) * (1 + 1e-12)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_harmonic_mean_refuses_values_without_meaning(bad):
    with pytest.raises(ValueError, match=r"second is .*allowed: finite numbers >= 0"):
        harmonic_mean(50.0, bad)


# ------------------------------------------------------------------------------------- spread and gaps
def test_mean_std_is_the_sample_standard_deviation_and_one_seed_has_no_spread_rather_than_zero():
    assert mean_std([82.0, 84.0, 86.0]) == (84.0, 2.0)
    assert np.isnan(mean_std([63.2])[1])


# ------------------------------------------------------------------------------------- one seed: over its clips
def test_one_seeds_interval_agrees_with_scipy():
    correct = np.random.default_rng(2).random(300) < 0.7
    ours = accuracy_interval(correct)
    reference = scipy.stats.bootstrap(
        (correct.astype(float),), np.mean, n_resamples=20_000, method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    assert ours.value == pytest.approx(100 * correct.mean())
    assert (ours.low, ours.high) == pytest.approx((100 * reference.low, 100 * reference.high), abs=0.4)
    assert ours == accuracy_interval(correct), "the same clips, the same interval"


def test_one_seeds_paired_difference_agrees_with_scipy_and_is_tighter_than_unpaired():
    rng = np.random.default_rng(4)
    hard = rng.random(400)
    first, second = hard < 0.75, hard < 0.70  # strongly correlated: the same clips are hard for both
    ours = paired_difference(first, second)
    reference = scipy.stats.bootstrap(
        (first, second), lambda a, b, axis=-1: a.mean(axis) - b.mean(axis), n_resamples=20_000, paired=True,
        vectorized=True, method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((100 * reference.low, 100 * reference.high), abs=0.4)
    unpaired_std = 100 * np.sqrt(first.var() / 400 + second.var() / 400)
    assert ours.high - ours.low < 2 * unpaired_std


def test_harmonic_mean_interval_knows_whether_the_clips_are_paired():
    """Twins that fail together vary together: the harmonic mean varies more than with clips drawn apart."""
    clips = np.random.default_rng(9).random(300) < 0.6
    twins = harmonic_interval((clips, clips), paired_clips=True)
    apart = harmonic_interval((clips, clips), paired_clips=False)
    alone = accuracy_interval(clips)
    assert twins.value == apart.value == pytest.approx(alone.value)
    assert (twins.low, twins.high) == pytest.approx((alone.low, alone.high))  # HM(a, a) = a in each resample
    assert (apart.high - apart.low) / (twins.high - twins.low) == pytest.approx(1 / np.sqrt(2), abs=0.08)


# ------------------------------------------------------------------------------------- several seeds: over them
def test_several_seeds_have_the_t_interval_of_their_paired_differences():
    rng = np.random.default_rng(6)
    first, second = (rng.random((5, 400)) < share for share in (0.7, 0.6))
    ours, per_seed = paired_difference(first, second), 100 * (first.mean(1) - second.mean(1))
    reference = scipy.stats.ttest_1samp(per_seed, 0).confidence_interval()
    assert (ours.value, ours.low, ours.high) == pytest.approx((per_seed.mean(), reference.low, reference.high))
    assert ours.seeds == 5


@pytest.mark.parametrize("seeds", [4, 5, 6, 8])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds):
    """Within 2 points of nominal; a percentile bootstrap over five seeds would cover 84 %."""
    rng = np.random.default_rng(seeds)
    ends = np.array([t_interval(draw) for draw in rng.normal(3.0, 2.0, (20_000, seeds))])
    assert np.mean((ends[:, 1] <= 3.0) & (ends[:, 2] >= 3.0)) == pytest.approx(0.95, abs=0.005)


def test_a_harmonic_mean_over_seeds_is_the_mean_of_theirs_and_its_ends_are_percentages():
    good, bad = np.ones(50, bool), np.arange(50) < 10
    interval = harmonic_interval(([good, bad], [good, bad]), paired_clips=False)
    assert interval.value == pytest.approx(60.0)
    assert (interval.low, interval.high, interval.seeds) == (0, 100, 2)
    assert accuracy_interval([good, np.zeros(1000, bool)]).value == 50.0, "seeds weigh the same, whatever their clips"


def test_a_verdict_rests_on_the_paired_interval_and_needs_four_seeds():
    better, worse = np.arange(400) < 300, np.arange(400) < 200
    assert paired_difference(better, worse).verdict() == "this seed"
    assert {paired_difference([better] * n, [worse] * n).verdict() for n in (2, 3)} == {"hint"}
    assert paired_difference([better] * 4, [worse] * 4).verdict() == "higher"
    assert paired_difference([worse] * 4, [better] * 4).verdict() == "lower"
    assert paired_difference([better, worse] * 2, [worse, better] * 2).verdict() == "undecided"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: harmonic_interval(([[True]] * 2, [True]), paired_clips=False), "the same seeds in all"),
        (lambda: paired_difference(np.ones(5, bool), np.ones(6, bool)), "same seeds and clips"),
        (lambda: paired_difference(np.ones((2, 5), bool), np.ones(5, bool)), "same seeds and clips"),
    ],
)
def test_what_does_not_pair_is_never_compared(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("clips", [1, 8, 13])
def test_per_clip_bits_come_back_and_a_wrong_count_is_found_out(clips):
    correct = np.random.default_rng(clips).random(clips) < 0.5
    assert unpack_correct(pack_correct(correct), clips).tolist() == correct.tolist()
    with pytest.raises(ValueError, match=f"{clips + 9} clips need"):
        unpack_correct(pack_correct(correct), clips + 9)
