"""Verdicts follow from per-seed differences by the committed rules; a claim can come out either way."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mede_core.report.tables import verdict_sentence
from mede_core.study import claims
from mede_core.study.answers import answer
from mede_core.study.answers_plateau import paper_records
from mede_core.study.claims import CONTRADICTED, HINT, NOT_RUN, SUPPORTED, UNDECIDED
from mede_core.study.store import study_records, whole_seeds

METHODS = ("frozen", "finetune", "open_vclip", "froster", "open_mede_no_gwa", "open_mede", "joint", "joint, GWA")
SEEDS = (4, 5, 6, 7)


def judged(*given, seeds=(5, 5)):
    """The verdicts of claims, each given by the p-values of its comparisons, negative where one disagrees."""
    rows = [(index, abs(p), p > 0, n) for index, (parts, n) in enumerate(zip(given, seeds)) for p in parts]
    found = claims.verdicts(pd.DataFrame(rows, columns=["claim", "p", "agrees", "seeds"]))
    return [found[index] for index in range(len(given))]


# ------------------------------------------------------------------------------------ the rules
@pytest.mark.parametrize(
    ("expected", "shift", "right"),
    [("above", 1, True), ("above", -1, False), ("below", 1, False), ("below", -1, True), ("not below", -0.5, True),
     ("not below", -1.5, False), ("no more", 0.05, True), ("no more", 0.2, False)],
)  # fmt: skip
def test_a_comparison_is_the_t_test_of_its_limit(expected, shift, right):
    assert claims.MARGIN == 1.0
    values = shift + np.array([-0.02, 0.01, 0.03, -0.02])
    one = claims.t_test(values, expected)
    reference = scipy.stats.ttest_1samp(values, {"not below": -1.0, "no more": np.log(1.1)}.get(expected, 0.0))
    assert (one["value"], one["seeds"], one["agrees"]) == (pytest.approx(shift), 4, right)
    assert one["p"] == pytest.approx(reference.pvalue)


def test_holm_agrees_with_the_textbook_and_never_passes_one():
    assert claims.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert claims.holm([0.9, 0.8]).tolist() == [1.0, 1.0] and not len(claims.holm([]))


def test_a_claim_needs_all_its_comparisons_and_fails_with_one():
    assert judged([0.01, 0.04]) == judged([0.03]) == [SUPPORTED]
    assert judged([0.01, 0.06]) == [UNDECIDED]
    assert judged([0.01, -0.02]) == [CONTRADICTED]
    assert judged([0.01, -0.03]) == [UNDECIDED], "one of two: twice its p"


def test_many_claims_ask_for_more_than_one_does_and_few_seeds_cost_them_nothing():
    assert judged([0.03], [0.03]) == [UNDECIDED] * 2 and judged([0.03], [0.0001]) == [SUPPORTED] * 2
    assert judged([1e-9], [0.04], [0.01], seeds=(3, 5, 0)) == [HINT, SUPPORTED, NOT_RUN]


# ------------------------------------------------------------------------------------ from records
def study(accuracy, seeds=SEEDS):
    """Records and times of methods whose accuracy in percent is ``accuracy(method, set, half, "in" or "out")``."""
    records, times = [], []
    for seed in seeds:
        for method in METHODS:
            seconds = 2.0 if method == "open_mede" else 1.0
            times.append({"average": method, "seed": seed, "metric": "step_seconds", "value": seconds})
            tests = [("source", half, context) for half in ("base", "novel") for context in ("in", "scene", "noise")]
            tests += [(name, "all", "in") for name in ("transfer_a", "transfer_b", "superset")]
            tests += [("direction", half, "in") for half in ("base", "novel")]
            for name, half, context in tests:
                value = accuracy(method, name, half, "in" if context == "in" else "out") + 0.1 * seed
                where = {"set": name, "split": half, "context": context, "part": 1, "metric": "top1", "average": ""}
                records.append({**where, "method": method, "seed": seed, "value": value})
    return records, times


def said(*measured):
    table = claims.claims_table(*measured)
    heads = table[table["Claim"] != ""]
    assert len(heads) == len(claims.CLAIMS)
    return dict(zip(heads["Claim"], heads["Verdict"], strict=True))


def test_the_papers_own_order_supports_every_claim_but_the_equal_time():
    paper = {
        ("frozen", "in"): 50, ("frozen", "out"): 45, ("finetune", "in"): 60, ("finetune", "out"): 40,
        ("open_vclip", "in"): 70, ("open_vclip", "out"): 30, ("froster", "in"): 70, ("froster", "out"): 30,
        ("open_mede_no_gwa", "in"): 70, ("open_mede_no_gwa", "out"): 46, ("open_mede", "in"): 75,
        ("open_mede", "out"): 60, ("joint", "in"): 60, ("joint", "out"): 40, ("joint, GWA", "in"): 62,
        ("joint, GWA", "out"): 45,
    }  # fmt: skip

    def accuracy(method, name, half, context):
        return 95 if (name, method) == ("direction", "open_mede") else paper[method, context]

    found = said(*study(accuracy))
    assert {says for claim, says in found.items() if "overhead" not in claim.lower()} == {SUPPORTED}
    assert found["No additional overhead: training takes no longer than fine-tuning"] == CONTRADICTED


def test_methods_that_are_all_alike_support_no_claim_of_a_gain_and_contradict_none():
    found = said(*study(lambda *where: 50.0))
    assert {says for claim, says in found.items() if "overhead" not in claim and "no worse" not in claim} == {UNDECIDED}


def test_the_opposite_of_a_claim_contradicts_it():
    found = said(*study(lambda method, *where: 40.0 if method == "open_mede" else 50.0))
    assert found["Open-MeDe recognizes novel classes best"] == CONTRADICTED
    assert found["Average: GWA adds to accuracy out of context"] == CONTRADICTED


def test_a_study_that_is_not_finished_is_judged_on_the_seeds_that_both_methods_have():
    records, times = study(lambda method, *where: 60.0 if method == "open_mede" else 50.0)
    partial = [r for r in records if not (r["method"] == "open_mede" and r["seed"] == 6)]
    gone = [r for r in partial if r["method"] != "joint, GWA"]
    found = said(gone, times)
    assert found["Average: GWA adds to accuracy out of context"] == HINT
    assert [found[claim] for claim in claims.CLAIMS if "averaged alike" in claim] == [NOT_RUN] * 4


def test_an_average_alone_supports_no_claim_of_the_full_method_against_its_control():
    averaged = ("open_mede", "joint, GWA")
    found = said(*study(lambda method, *where: 60.0 if method in averaged else 50.0))
    assert {says for claim, says in found.items() if "averaged alike" in claim} == {UNDECIDED}


def test_the_claims_figure_shows_what_their_table_says():
    main = claims.claim_records()
    shown, table = claims.claims_frame(main), claims.claims_table(main, study_records("cost"))
    assert set(shown["quantity"]) == {"in", "out"} and not shown.duplicated(["label", "quantity"]).any()
    for row in shown.itertuples():
        told = f"{row.value:+.1f} [{row.low:+.1f} to {row.high:+.1f}]".replace("-0.0", "0.0").replace("+0.0", "0.0")
        assert table["Measured"].str.startswith(told).any(), row


def test_the_readme_says_what_the_rules_say():
    readme = " ".join((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split())
    for records in (claims.claim_records(), paper_records(whole_seeds("trainers"))):  # both regimes
        assert claims.claims_summary(claims.claims_table(records, study_records("cost"))) in readme
        assert verdict_sentence(answer({"it": records}).iloc[0]) in readme
