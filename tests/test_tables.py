"""Tables from records: every number agrees with the bits it was made of, and every sentence with its number."""

import numpy as np
import pandas as pd
import pytest

from mede_core.report import tables
from mede_core.report.metrics import harmonic_mean, pack_correct

CONTEXTS = ("in", "scene", "noise", "stripes")
CLIPS = 200


def bits(share: float, seed: int) -> np.ndarray:
    """Exactly ``share`` of the clips right, at places that the seed chooses."""
    return np.random.default_rng(seed).permutation(CLIPS) < round(share * CLIPS)


def record(method, context, correct, split="base", seed=0, **more):
    return {
        "method": method, "set": "source", "split": split, "context": context, "metric": "top1",
        "value": 100 * correct.mean(), "n": len(correct), "seed": seed, "weights": "shipped:0",
        "run": f"run-{method}-{seed}", "correct": pack_correct(correct), "world_seed": 1, "rho": 0.8, **more,
    }  # fmt: skip


def study(shares: dict[str, dict[str, float]], seeds=(0,), **more) -> list[dict]:
    """Records of methods with the given accuracy in each context, base and novel alike."""
    return [
        record(method, context, bits(share, index + 10 * seed + 100 * CONTEXTS.index(context)), split, seed, **more)
        for method, by_context in shares.items()
        for context, share in by_context.items()
        for index, split in enumerate(("base", "novel"))
        for seed in seeds
    ]


SHARES = {
    "frozen": {"in": 0.8, "scene": 0.3, "noise": 0.4, "stripes": 0.5},
    "open_mede": {"in": 0.9, "scene": 0.6, "noise": 0.7, "stripes": 0.8},
}


def cell(frame: pd.DataFrame, method: str, column: str, key="column") -> pd.Series:
    rows = frame[(frame["method"] == method) & (frame[key] == column)]
    assert len(rows) == 1
    return rows.iloc[0]


# --- numbers ----------------------------------------------------------------------------------------------------
def test_accuracies_are_those_of_the_records():
    frame = tables.in_and_out(study(SHARES))
    for method, by_context in SHARES.items():
        for context, share in by_context.items():
            assert cell(frame, method, context)["value"] == pytest.approx(100 * share)
        outside = 100 * np.mean([by_context[context] for context in CONTEXTS[1:]])
        assert cell(frame, method, "out")["value"] == pytest.approx(outside)
        assert cell(frame, method, "gap")["value"] == pytest.approx(100 * by_context["in"] - outside)
        assert cell(frame, method, "hm")["value"] == pytest.approx(harmonic_mean(100 * by_context["in"], outside))
    assert (frame["low"] <= frame["value"]).all()
    assert (frame["value"] <= frame["high"]).all()


def test_over_seeds_an_interval_needs_accuracies_alone_and_one_seed_its_clips():
    later = {method: {context: share - 0.1 for context, share in own.items()} for method, own in SHARES.items()}
    records = study(SHARES, (1,)) + study(later, (2,))
    bare = [{**one, "correct": ""} for one in records]
    pd.testing.assert_frame_equal(tables.in_and_out(bare), tables.in_and_out(records))
    with pytest.raises(ValueError, match="frozen on source: one seed without its clips' bits"):
        tables.in_and_out([one for one in bare if one["seed"] == 1])


def test_the_difference_to_frozen_clip_needs_the_same_clips_and_that_of_the_same_bits_is_zero():
    few, many = bits(0.9, 1), np.concatenate([bits(0.6, 2)] * 2)
    for frozen, known in ((many, False), (many[: len(few)], True)):
        records = [record(name, context, one, split) for name, one in (("frozen", frozen), ("finetune", few))
                   for context in CONTEXTS for split in ("base", "novel")]  # fmt: skip
        frame = tables.in_and_out(records)
        assert cell(frame, "finetune", "in").notna()["gain"] == known
        assert (cell(frame, "frozen", "gap")[["value", "low", "high"]] == 0).all()


def test_base_and_novel_are_kept_apart():
    records = [record("frozen", "in", bits(0.9, 1), "base"), record("frozen", "in", bits(0.3, 2), "novel")]
    frame = tables.base_novel(records)
    assert [cell(frame, "frozen", column)["value"] for column in ("base", "novel")] == pytest.approx([90, 30])
    assert cell(frame, "frozen", "hm")["value"] == pytest.approx(45)


def test_twins_are_averaged_clip_by_clip():
    """Two contexts that are right on opposite clips give every clip one half, and no spread at all."""
    one = bits(0.5, 3)
    records = [record("frozen", "noise", one), record("frozen", "stripes", ~one)]
    scores = tables.clip_scores(records, "frozen", "source", ("base",), ("noise", "stripes"))
    assert (scores[0] == 0.5).all()


def test_several_seeds_are_averaged():
    records = [
        record("frozen", "in", bits(share, seed), split, seed)
        for seed, share in enumerate((0.2, 0.4))
        for split in ("base", "novel")
    ]
    row = cell(tables.base_novel(records), "frozen", "base")
    assert (row["value"], row["seeds"]) == (pytest.approx(30), 2)
    assert row["std"] == pytest.approx(np.std([20, 40], ddof=1))
    assert np.isnan(cell(tables.base_novel(study(SHARES)), "frozen", "base")["std"]), "one seed has no spread"
    with pytest.raises(ValueError, match=r"frozen: the seeds of its columns differ: .*'novel': \[0\]"):
        tables.base_novel(records[:-1])


def test_gains_over_frozen_clip_are_paired_and_a_harmonic_mean_has_one_too():
    frame = tables.in_and_out(study(SHARES, seeds=(0, 1)))
    for column in ("in", "scene", "out", "hm"):
        ours, frozen = cell(frame, "open_mede", column), cell(frame, "frozen", column)
        assert ours["gain"] == pytest.approx(ours["value"] - frozen["value"]) and np.isnan(frozen["gain"])
        assert ours["gain_low"] <= ours["gain"] <= ours["gain_high"]
    same = [{**r, "method": "froster"} for r in study({"frozen": SHARES["frozen"]})]
    twin = tables.base_novel([*study({"frozen": SHARES["frozen"]}), *same])
    assert (twin.set_index("method").loc["froster", ["gain", "gain_low", "gain_high"]] == 0).all(axis=None)
    one_seed_more = [*study({"frozen": SHARES["frozen"]}), *study({"open_mede": SHARES["open_mede"]}, seeds=(0, 1))]
    frame = tables.in_and_out(one_seed_more)
    assert cell(frame, "open_mede", "in")["gain"] == pytest.approx(10), "of the seed that both have"


def test_accuracies_on_several_sets_have_a_column_each():
    records = [*study(SHARES), *study(SHARES, set="transfer_a")]
    frame = tables.accuracies(records, ("source", "transfer_a"), ("in", "scene"))
    assert cell(frame, "frozen", "transfer_a/scene")["value"] == pytest.approx(30)
    assert list(tables.wide(frame).columns[1:]) == [
        "source, in context", "source, other scene", "transfer_a, in context", "transfer_a, other scene",
    ]  # fmt: skip


def test_the_dial_repeats_frozen_clip_at_every_rho():
    records = study({"frozen": SHARES["frozen"]})
    for rho, share in ((0.25, 0.7), (0.95, 0.4)):
        trained = {"finetune": dict.fromkeys(CONTEXTS, share)}
        records += study(trained, rho=rho, run=f"run-{rho}")
    frame = tables.dial(records)
    assert sorted(frame["rho"].unique()) == [0.25, 0.95]
    part = frame[frame["context"] == "out"].set_index(["method", "rho"])["value"]
    assert part["frozen", 0.25] == part["frozen", 0.95] == pytest.approx(40)
    assert (part["finetune", 0.25], part["finetune", 0.95]) == (pytest.approx(70), pytest.approx(40))


def test_the_order_blind_bound_is_what_the_best_blind_guess_scores():
    """Counted over many draws: home scene with probability rho, otherwise another scene; guess the likelier motion."""
    rng = np.random.default_rng(0)
    for rho in (0.25, 0.5, 0.8, 1.0):
        forward = rng.random(200_000) < 0.5
        home = rng.random(200_000) < rho
        away = rng.integers(1, 4, 200_000)  # 1 is the home of the pair's other motion
        evidence = np.where(home, 1, np.where(away == 1, -1, 0)) * np.where(forward, 1, -1)
        guess = np.where(evidence == 0, rng.random(200_000) < 0.5, evidence > 0)
        assert tables.order_blind_bounds(rho, 4)["in"] == pytest.approx(100 * (guess == forward).mean(), abs=0.4)
    assert tables.order_blind_bounds(0.8, 4)["noise"] == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop(0), "no record for base, in"),
        (lambda r: r.append(dict(r[0], run="again")), "more than one record"),
        (lambda r: r.clear(), "no record of frozen"),
    ],
)
def test_records_that_do_not_fit_are_an_error(change, message):
    records = [record("frozen", context, bits(0.5, 5)) for context in ("in", "scene")]
    change(records)
    with pytest.raises(ValueError, match=message):
        tables.clip_scores(records, "frozen", "source", ("base",), ("in", "scene"))


# --- verdicts ---------------------------------------------------------------------------------------------------
def test_differences_are_paired_and_signed_and_one_seed_is_never_decided():
    frame = tables.differences(study(SHARES), [("open_mede", "frozen")])
    assert dict(zip(frame["quantity"], frame["value"])) == pytest.approx({"in": 10, "out": 30, "gap": -20})
    assert (frame["low"] <= frame["value"]).all() and (frame["value"] <= frame["high"]).all() and frame["low"][1] > 0
    assert set(frame["verdict"]) == {"this seed"}
    assert "other seeds may differ" in tables.verdict_markdown(frame)
    assert list(tables.verdict_table(frame)["Difference"]) == ["+10.0", "+30.0", "-20.0"]


def test_several_seeds_decide_a_clear_difference_and_no_equal_pair():
    records = study(SHARES, seeds=(0, 1, 2, 3))
    twin = [dict(r, method="finetune", run="x") for r in records if r["method"] == "open_mede"]
    frame = tables.differences([*records, *twin], [("open_mede", "frozen"), ("open_mede", "finetune")])
    verdicts = frame.set_index(["second", "quantity"])["verdict"]
    assert verdicts["frozen", "out"] == "higher"
    assert verdicts["frozen", "gap"] == "lower"
    assert verdicts["finetune", "out"] == "undecided"


def test_a_verdict_says_what_its_numbers_say():
    row = {"first": "open_mede", "second": "finetune", "quantity": "out", "seeds": 1, "verdict": ""}
    above = tables.verdict_sentence({**row, "value": 2.34, "low": 0.5, "high": 4.0})
    assert above.startswith("Open-MeDe is 2.3 points above Fine-tuning out of context (95 % interval +0.5 to +4.0")
    assert "excludes zero" in above
    below = tables.verdict_sentence({**row, "value": -2.34, "low": -5.0, "high": 0.4})
    assert "2.3 points below" in below
    assert "includes zero" in below
    assert "level with" in tables.verdict_sentence({**row, "value": 0.04, "low": -1.0, "high": 1.0})
    many = tables.verdict_sentence({**row, "value": 2.0, "low": 1.0, "high": 3.0, "seeds": 4, "verdict": "higher"})
    assert many.endswith("over 4 seeds: higher).")
    few = tables.verdict_sentence({**row, "value": 2.0, "low": 1.0, "high": 3.0, "seeds": 3, "verdict": "hint"})
    assert few.endswith("over 3 seeds: a hint, no verdict).")


def test_verdicts_are_counted_and_what_was_decided_is_named():
    found = pd.DataFrame({"label": [*"abcd"], "verdict": ["undecided", "higher", "lower", "higher"]})
    assert tables.verdict_counts(found) == "2 higher (b; d), 1 lower (c), 1 undecided"
    assert tables.verdict_counts(found.assign(verdict="hint")) == "4 hint"


def test_pairs_are_compared_on_the_seeds_that_both_have():
    records = study({"frozen": SHARES["frozen"]}, (4, 5, 6)) + study({"open_mede": SHARES["open_mede"]}, (5, 6, 7))
    rows = tables.differences(records, [("open_mede", "frozen"), ("open_mede", "gone")]).set_index("quantity")
    assert set(rows["seeds"]) == {2} and rows["value"]["out"] == pytest.approx(30) and len(rows) == 3


# --- what a reader sees -----------------------------------------------------------------------------------------
def test_methods_stand_in_the_fixed_order_and_missing_ones_say_so():
    long = tables.in_and_out(study(dict(reversed(SHARES.items()))))
    shown = tables.wide(long, methods=("open_vclip", "froster"))
    assert list(shown["Method"]) == ["Frozen CLIP", "Open-VCLIP", "FROSTER", "Open-MeDe"]
    assert (shown.iloc[1, 1:] == tables.NOT_RUN).all() and "Static gap" in shown
    assert shown.iloc[3]["Other scene"].startswith("60.0 [")
    frame = tables.pick(long, ("in", "scene"), "context")
    assert sorted(frame["context"].unique()) == ["in", "scene"] and {"method", "value", "low", "high"} <= {*frame}


def test_every_record_has_its_line_with_its_interval():
    records = [record("frozen", "in", bits(0.5, 6), prompts="name"), record("froster", "noise", bits(0.5, 7))]
    shown = tables.records_table([records[0], {**records[1], "correct": None}])
    assert list(shown["Method"]) == ["Frozen CLIP", "FROSTER"]
    assert shown.loc[0, "Percent"].startswith("50.0 [") and shown.loc[1, "Percent"] == "50.0"
    assert list(shown["Prompts"]) == ["name", "–"]
