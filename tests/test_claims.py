"""Verdicts follow from intervals by the committed rules; a claim can come out either way."""

import numpy as np
import pytest

from mede_core.files import pack_correct
from mede_core.report.intervals import Interval, difference_of_differences, paired_difference
from mede_core.study.claims import (
    CLAIMS,
    MARGIN,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    claims_table,
    joint_verdict,
    time_verdict,
    verdict,
)

METHODS = ("frozen", "finetune", "open_vclip", "froster", "open_mede_no_gwa", "open_mede")


def interval(low, high, seeds=5):
    return Interval((low + high) / 2, low, high, seeds, 100)


@pytest.mark.parametrize(
    ("low", "high", "expected", "says"),
    [
        (0.1, 3, "above", SUPPORTED), (-1, 3, "above", UNDECIDED), (-3, 0.9, "above", NOT_SUPPORTED),
        (-3, -0.1, "below", SUPPORTED), (-3, 1, "below", UNDECIDED), (-0.9, 3, "below", NOT_SUPPORTED),
        (-0.9, 2, "not below", SUPPORTED), (-1.1, 2, "not below", UNDECIDED), (-3, -1.1, "not below", NOT_SUPPORTED),
    ],
)  # fmt: skip
def test_a_verdict_follows_from_the_interval_and_the_margin(low, high, expected, says):
    assert MARGIN == 1.0
    assert verdict(interval(low, high), expected) == says


def test_one_seed_decides_nothing():
    assert verdict(interval(5, 6, seeds=1), "above") == UNDECIDED
    assert time_verdict([1.0], "no more") == UNDECIDED


def test_a_time_claim_needs_every_seed():
    assert time_verdict([1.0, 1.1], "no more") == SUPPORTED
    assert time_verdict([1.0, 1.2], "no more") == UNDECIDED
    assert time_verdict([1.9, 2.1], "no more") == NOT_SUPPORTED
    assert time_verdict([0.9, 1.0], "less") == UNDECIDED


def test_a_claim_fails_with_one_of_its_comparisons():
    assert joint_verdict([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert joint_verdict([SUPPORTED, UNDECIDED]) == UNDECIDED
    assert joint_verdict([UNDECIDED, NOT_SUPPORTED]) == NOT_SUPPORTED


def study(accuracy, clips=400, seeds=(4, 5, 6)):
    """Records and times in which a method is right on the first ``accuracy[method, set, context]`` of all clips."""
    records, times = [], []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(clips)
        for method in METHODS:
            seconds = 2.0 if method == "open_mede" else 1.0
            times.append({"average": method, "seed": seed, "metric": "step_seconds", "value": seconds})
            for name, contexts in (("source", ("in", "scene", "noise", "stripes")), ("direction", ("in",))):
                for split in ("base", "novel"):
                    for context in contexts:
                        share = accuracy(method, name, "in" if context == "in" else "out")
                        right = order < share * clips
                        records.append({
                            "method": method, "set": name, "split": split, "context": context, "metric": "top1",
                            "seed": seed, "world_seed": seed, "value": 100 * right.mean(), "n": clips,
                            "correct": pack_correct(right),
                        })  # fmt: skip
    return records, times


def verdicts(accuracy):
    table = claims_table(*study(accuracy))
    heads = table[table["Claim"] != ""]
    return dict(zip(heads["Claim"], heads["Verdict"], strict=True))


def test_the_papers_own_order_supports_every_claim_but_the_equal_time():
    paper = {
        ("frozen", "in"): 0.5, ("frozen", "out"): 0.45, ("finetune", "in"): 0.6, ("finetune", "out"): 0.4,
        ("open_vclip", "in"): 0.7, ("open_vclip", "out"): 0.3, ("froster", "in"): 0.7, ("froster", "out"): 0.3,
        ("open_mede_no_gwa", "in"): 0.7, ("open_mede_no_gwa", "out"): 0.46, ("open_mede", "in"): 0.75,
        ("open_mede", "out"): 0.6,
    }  # fmt: skip

    def accuracy(method, name, context):
        return 0.95 if (name, method) == ("direction", "open_mede") else paper[method, context]

    found = verdicts(accuracy)
    assert len(found) == len(CLAIMS)
    assert {says for claim, says in found.items() if "overhead" not in claim.lower()} == {SUPPORTED}
    assert found["No additional overhead: training takes no longer than fine-tuning"] == NOT_SUPPORTED


def test_methods_that_are_all_alike_support_no_claim_of_a_gain():
    found = verdicts(lambda method, name, context: 0.5)
    assert SUPPORTED not in {says for claim, says in found.items() if "GWA adds" in claim or "largest" in claim}
    assert found["Meta-optimization does better than fine-tuning out of context"] == NOT_SUPPORTED


def test_a_difference_of_differences_is_their_difference_and_wider_than_each():
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.random((4, 300)) < share for share in (0.8, 0.6, 0.7, 0.65))
    one, other = paired_difference(a, b), paired_difference(c, d)
    both = difference_of_differences((a, b), (c, d))
    assert both.value == pytest.approx(one.value - other.value)
    assert both.high - both.low > max(one.high - one.low, other.high - other.low)
    with pytest.raises(ValueError, match="the same seeds"):
        difference_of_differences((a, b), (c[:2], d[:2]))


def test_a_study_that_is_not_finished_is_judged_on_the_seeds_that_both_methods_have():
    records, times = study(lambda method, name, context: 0.6 if method == "open_mede" else 0.5)
    partial = [r for r in records if not (r["method"] == "open_mede" and r["seed"] == 6)]
    table = claims_table(partial, times)
    row = table[table["Claim"] == "GWA adds to accuracy out of context"].iloc[0]
    assert "2 seeds" in row["Measured"]
