"""Properties of the result store, the paper's tables, the comparison and the table files."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mede_core import results
from mede_core.report.intervals import bootstrap_accuracy, bootstrap_harmonic_mean
from mede_core.report.metrics import harmonic_mean
from mede_core.report.paper import compare_with_paper, paper_table
from mede_core.report.records import ResultStore, pack_correct, unpack_correct
from mede_core.report.write import format_interval, format_mean_std, format_signed, latex_escape, render_table

COLUMNS = {
    "UCF (in-ctx)": {"set": "transfer_a", "context": "in", "metric": "top1"},
    "UCF-SCUBA (out-ctx)": {"set": "transfer_a", "context": ["scene", "noise"], "metric": "top1"},
}


def record(**changes):
    base = {
        "table": "22", "method": "open_mede", "set": "transfer_a", "split": "all", "context": "in",
        "metric": "top1", "value": 75.0, "n": 8, "seed": 0, "profile": "cpu", "weights": "shipped:abc",
        "run": "meta-0123",
    }  # fmt: skip
    return base | changes


def study(methods=("frozen", "open_mede"), seeds=(0, 1), n=40, bits=True):
    """Records of an out-of-context study; the accuracy is 80 in context, 50 on scenes, 30 on noise."""
    rng = np.random.default_rng(0)
    found = []
    for method in methods:
        for seed in seeds:
            for context, rate in (("in", 0.8), ("scene", 0.5), ("noise", 0.3)):
                correct = rng.permutation(np.arange(n) < rate * n)
                extra = {"correct": pack_correct(correct)} if bits else {}
                found.append(
                    record(
                        method=method, seed=seed, context=context, n=n, value=100 * correct.mean(), **extra
                    )
                )
    return found


# ------------------------------------------------------------------------------------ per-clip bits
@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_bits_survive_packing(bits):
    assert unpack_correct(pack_correct(np.array(bits)), len(bits)).tolist() == bits


def test_packing_is_the_documented_layout():
    assert pack_correct(np.array([1, 0, 0, 0, 0, 0, 0, 1, 1], bool)) == "8180"


@pytest.mark.parametrize(
    ("text", "n", "message"),
    [
        ("8180", 8, "4 hex characters; 8 clips need 2"),
        ("8G", 8, "lower-case hex"),
        ("818", 9, "whole bytes"),
        ("8181", 9, "beyond its 9 clips"),
        ("", 0, "lower-case hex"),
        (None, 8, "'None'"),
    ],
)
def test_bits_that_do_not_fit_are_refused(text, n, message):
    with pytest.raises(ValueError, match=message):
        unpack_correct(text, n)


@pytest.mark.parametrize("bad", [np.array([0, 1]), np.zeros((2, 2), bool), np.zeros(0, bool)])
def test_only_boolean_clips_are_packed(bad):
    with pytest.raises(ValueError, match=r"\[N\] bool"):
        pack_correct(bad)


# ------------------------------------------------------------------------------------ records
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": 101.0}, "value of top1 is 101.0; allowed: 0 to 100"),
        ({"value": -1.0}, "allowed: 0 to 100"),
        ({"value": float("nan")}, "value is nan"),
        ({"value": "75"}, "value is '75'"),
        ({"value": True}, "value is True"),
        ({"metric": "static_gap", "value": -101.0}, "-100 to 100"),
        ({"method": ""}, "method is ''"),
        ({"set": 3}, "set is 3"),
        ({"n": 0}, "n is 0; allowed: whole numbers from 1"),
        ({"n": 8.0}, "n is 8.0"),
        ({"seed": None}, "seed is None"),
        ({"seed": True}, "seed is True"),
        ({"mu": [1, 2]}, "mu is a list"),
        ({"correct": "fc"}, None),
        ({"correct": "ff"}, "value is 75.0, but 100.0000 %"),
        ({"correct": "fc00"}, "8 clips need 2"),
        ({"rho": float("inf")}, "rho is inf"),
    ],
)
def test_bad_records_name_the_field_and_what_is_allowed(changes, message, tmp_path):
    store = ResultStore(tmp_path)
    if message is None:
        store.replace("a", [record(**changes)])
    else:
        with pytest.raises(ValueError, match=f"a, record 1: .*{re.escape(message)}"):
            store.replace("a", [record(method="frozen"), record(**changes)])
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", results.REQUIRED)
def test_each_required_key_is_required(key, tmp_path):
    lacking = record()
    del lacking[key]
    with pytest.raises(ValueError, match=f"record lacks {key}"):
        ResultStore(tmp_path).replace("a", [lacking])


def test_gaps_may_be_negative_and_other_units_have_no_range(tmp_path):
    records = [record(metric="order_gap", value=-3.0), record(metric="step_time", value=612.0, unit="ms")]
    ResultStore(tmp_path).replace("a", records)
    assert sorted(ResultStore(tmp_path).frame()["value"]) == [-3.0, 612.0]


# ------------------------------------------------------------------------------------ store
def test_the_same_records_give_the_same_bytes_in_any_order_and_number_type(tmp_path):
    records = study()
    first = ResultStore(tmp_path / "a").replace("s", records).read_bytes()
    shuffled = [dict(reversed(list(one.items()))) for one in reversed(records)]
    for one in shuffled:
        one["value"], one["seed"], one["n"] = (
            np.float64(one["value"]),
            np.int64(one["seed"]),
            np.int32(one["n"]),
        )
    assert ResultStore(tmp_path / "b").replace("s", shuffled).read_bytes() == first


def test_float_noise_in_the_last_digits_does_not_change_the_bytes(tmp_path):
    store = ResultStore(tmp_path)
    first = store.replace("s", [record(value=0.1 + 0.2)]).read_bytes()
    assert store.replace("s", [record(value=0.3)]).read_bytes() == first
    assert b'"value": 0.3,' in first


def test_replace_is_idempotent_and_drops_what_the_source_no_longer_reports(tmp_path):
    store = ResultStore(tmp_path)
    store.replace("other", [record(method="froster")])
    store.replace("s", study())
    store.replace("s", [record()])
    assert {(one["method"], one["source"]) for one in store.records()} == {
        ("froster", "other"),
        ("open_mede", "s"),
    }
    store.replace("s", [])
    assert len(store.records()) == 1


def test_a_failed_replace_leaves_the_old_file(tmp_path):
    store = ResultStore(tmp_path)
    before = store.replace("s", [record()]).read_bytes()
    with pytest.raises(ValueError, match="value"):
        store.replace("s", [record(value=200)])
    assert (tmp_path / "s.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_records_round_trip_and_filter(tmp_path):
    store = ResultStore(tmp_path)
    store.replace("s", study())
    assert len(store.records()) == 12
    assert len(store.records(method="frozen", context=["scene", "noise"])) == 4
    assert store.records(method="nobody") == []
    one = store.records(method="frozen", context="in", seed=1)[0]
    assert unpack_correct(one["correct"], one["n"]).mean() * 100 == one["value"] == 80.0
    frame = store.frame(context="in")
    assert list(frame.columns) == [*results.REQUIRED, "correct", "source"]
    assert len(frame) == 4


def test_an_unknown_key_in_a_filter_is_an_error_not_an_empty_answer(tmp_path):
    store = ResultStore(tmp_path)
    assert store.records(methd="x") == []  # nothing stored yet: nothing is known
    store.replace("s", [record()])
    with pytest.raises(ValueError, match="no record has the key methd"):
        store.records(methd="open_mede")


def test_an_empty_store_gives_an_empty_frame_with_its_columns(tmp_path):
    frame = ResultStore(tmp_path / "none").frame()
    assert frame.empty
    assert "method" in frame


def test_a_half_written_line_is_an_error_that_names_file_and_line(tmp_path):
    store = ResultStore(tmp_path)
    path = store.replace("s", study())
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"s\.jsonl line 12 is half-written"):
        store.records()
    path.write_bytes(whole.rstrip(b"\n"))  # even where the text before the cut parses
    with pytest.raises(ValueError, match=r"s\.jsonl line 12 is half-written"):
        store.records()


@pytest.mark.parametrize("line", ["{", "3", '{"table": "22"}', json.dumps(record(value=400.0)), ""])
def test_a_damaged_line_is_an_error_that_names_file_and_line(line, tmp_path):
    store = ResultStore(tmp_path)
    path = store.replace("s", [record()])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"s\.jsonl line 2 is no valid record"):
        store.records()


def test_one_quantity_with_two_values_is_an_error_within_and_across_sources(tmp_path):
    store = ResultStore(tmp_path)
    with pytest.raises(ValueError, match="records 0 and 1 give two values of table=22, method=open_mede"):
        store.replace("s", [record(), record(value=76.0)])
    store.replace("s", [record(), record(seed=1), record(rho=0.5)])
    store.replace("t", [record()])
    with pytest.raises(ValueError, match=r"t\.jsonl line 1 measures again what .*s\.jsonl line 2"):
        store.records()


def test_temporary_files_of_a_killed_writer_are_not_read(tmp_path):
    store = ResultStore(tmp_path)
    store.replace("s", [record()])
    (tmp_path / ".tmp-1-00000000-s.jsonl").write_text('{"half')
    assert len(store.records()) == 1


@pytest.mark.parametrize("source", ["", "../x", "a/b", ".hidden", None])
def test_bad_source_names_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="source is"):
        ResultStore(tmp_path).replace(source, [])


# ------------------------------------------------------------------------------------ the paper's tables
def test_every_number_of_the_note_is_there():
    counts = {name: len(paper_table(name)) for name in results.PAPER_TABLES}
    assert counts == {"base_to_novel": 20, "cross_dataset": 12, "out_of_context": 15, "findings": 3}
    assert not any(paper_table(name)["value"].isna().any() for name in results.PAPER_TABLES)
    assert paper_table("cross_dataset")["std"].notna().all()
    assert paper_table("out_of_context")["std"].isna().all()


@pytest.mark.parametrize(
    ("table", "row", "column", "value"),
    [
        ("base_to_novel", "Open-MeDe", "K400 (Novel)", 63.8),
        ("base_to_novel", "Open-VCLIP", "K400 (HM)", 68.6),
        ("base_to_novel", "FROSTER", "HMDB (Novel)", 49.9),
        ("base_to_novel", "Frozen CLIP", "UCF (Novel)", 63.6),
        ("base_to_novel", "Frozen CLIP", "SSv2 (HM)", 5.1),
        ("cross_dataset", "Open-MeDe", "K600", 73.7),
        ("cross_dataset", "Open-VCLIP", "HMDB", 53.8),
        ("cross_dataset", "Frozen CLIP", "UCF", 73.8),
        ("out_of_context", "Open-VCLIP", "UCF-SCUBA (out-ctx)", 33.2),
        ("out_of_context", "FROSTER", "HM", 48.1),
        ("out_of_context", "Open-MeDe (full)", "UCF-SCUBA (out-ctx)", 44.7),
    ],
)
def test_values_are_those_printed(table, row, column, value):
    assert paper_table(table, wide=True).loc[row, column] == value


def test_the_metric_follows_the_column():
    for name in results.PAPER_TABLES[:3]:
        frame = paper_table(name)
        is_hm = frame["column"].str.fullmatch(r"HM|.*\(HM\)")
        assert (frame["metric"] == np.where(is_hm, "hm", "top1")).all()


def test_spreads_are_those_printed():
    frame = paper_table("cross_dataset").set_index(["row", "column"])["std"]
    assert frame["Open-MeDe", "UCF"] == 1.3
    assert frame["FROSTER", "UCF"] == 0.6
    assert frame["Frozen CLIP", "K600"] == 1.1


def test_the_papers_harmonic_means_are_kept_as_stated_with_our_recomputation_in_the_remark():
    wide = paper_table("out_of_context", wide=True)
    remarks = paper_table("out_of_context").query("column == 'HM'").set_index("row")["remark"]
    stated = {"Frozen CLIP": 54.1, "Open-VCLIP": 47.4, "FROSTER": 48.1,
              "Open-MeDe (w/o GWA)": 55.2, "Open-MeDe (full)": 57.6}  # fmt: skip
    assert wide["HM"].to_dict() == stated
    for row, printed in stated.items():
        inside, outside = wide.loc[row, "UCF (in-ctx)"], wide.loc[row, "UCF-SCUBA (out-ctx)"]
        value = harmonic_mean(inside, outside)
        assert f"give {value:.2f} (stated minus recomputed {printed - value:+.2f})" in remarks[row]
        low = harmonic_mean(inside - 0.05, outside - 0.05) - 0.05
        high = harmonic_mean(inside + 0.05, outside + 0.05) + 0.05
        assert ("contradicts" in remarks[row]) == (not low <= printed <= high)
    assert remarks.str.contains("contradicts").sum() == 4


def test_the_gain_of_gwa_agrees_with_the_ablation_table():
    wide = paper_table("out_of_context", wide=True)["UCF-SCUBA (out-ctx)"]
    gain = paper_table("findings").set_index("metric")["value"]["gain"]
    assert gain == 2.9 == pytest.approx(wide["Open-MeDe (full)"] - wide["Open-MeDe (w/o GWA)"])


def test_implied_base_accuracies_in_remarks_recompute():
    frame = paper_table("base_to_novel").set_index(["column", "row"])
    for row in ("Open-MeDe", "Open-VCLIP", "FROSTER", "Frozen CLIP"):
        base = float(re.search(r"imply Base ([\d.]+)", frame.loc[("K400 (HM)", row), "remark"])[1])
        novel, hm = frame.loc[("K400 (Novel)", row), "value"], frame.loc[("K400 (HM)", row), "value"]
        assert harmonic_mean(base, novel) == pytest.approx(hm, abs=0.06)


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match="table is 'ablation'; allowed: base_to_novel"):
        paper_table("ablation")


# ------------------------------------------------------------------------------------ comparison
def cells(comparison):
    return comparison.frame.set_index(["column", "row"])


def test_the_papers_own_numbers_are_within_tolerance_everywhere():
    for table in results.PAPER_TABLES[:3]:
        comparison = compare_with_paper(table, paper_table(table), comparable=True)
        hm = comparison.frame["column"] == "HM"
        assert (comparison.frame.loc[~hm, "difference"] == 0).all()
        assert comparison.counts()["within"] == len(comparison.frame)
        assert not comparison.outside_tolerance


def test_a_null_model_is_outside_tolerance_for_every_cell_of_the_papers_method():
    """Frozen CLIP's numbers handed in as Open-MeDe's must never pass."""
    for table in results.PAPER_TABLES[:3]:
        paper = paper_table(table)
        frozen = paper[paper["row"] == "Frozen CLIP"].assign(row="Open-MeDe")
        comparison = compare_with_paper(table, frozen.drop(columns="std"), comparable=True)
        ours = comparison.frame[comparison.frame["row"].isin(["Open-MeDe", "Open-MeDe (full)"])]
        assert set(ours["mark"]) == {"outside"}
        assert comparison.outside_tolerance


def test_tolerance_is_the_larger_of_half_the_effect_and_two_standard_deviations():
    comparison = cells(compare_with_paper("cross_dataset", [], comparable=True))
    ucf = comparison.loc[("UCF", "Open-MeDe")]
    assert ucf["effect"] == pytest.approx(9.9)
    assert ucf["tolerance"] == pytest.approx(4.95)
    k600 = comparison.loc[("K600", "FROSTER")]
    assert k600["effect"] == pytest.approx(3.0)
    assert k600["tolerance"] == pytest.approx(1.6)  # two standard deviations of 0.8
    assert comparison.loc[("UCF", "Frozen CLIP"), "reference"] == "Open-MeDe"


def test_without_a_printed_spread_ours_over_seeds_counts():
    records = [
        {"row": "Open-MeDe", "column": "UCF (Novel)", "value": v, "seed": s} for s, v in enumerate((70, 90))
    ]
    cell = cells(compare_with_paper("base_to_novel", records, comparable=True)).loc[
        ("UCF (Novel)", "Open-MeDe")
    ]
    assert cell["reproduced"] == 80
    assert cell["reproduced_std"] == pytest.approx(200**0.5)
    assert cell["tolerance"] == pytest.approx(2 * 200**0.5)


def test_the_reference_of_meta_optimization_alone_out_of_context_is_open_vclip():
    frame = cells(compare_with_paper("out_of_context", [], comparable=True))
    assert frame.loc[("UCF-SCUBA (out-ctx)", "Open-MeDe (w/o GWA)"), "effect"] == pytest.approx(8.6)
    assert frame.loc[("UCF (in-ctx)", "Open-MeDe (w/o GWA)"), "effect"] == pytest.approx(8.7)
    assert frame.loc[("UCF-SCUBA (out-ctx)", "Frozen CLIP"), "effect"] == pytest.approx(-2.7)


@pytest.mark.parametrize(("value", "mark"), [(78.75, "within"), (78.74, "outside"), (88.65, "within")])
def test_the_mark_turns_at_the_tolerance(value, mark):
    records = [{"method": "open_mede", "column": "UCF", "value": value}]
    comparison = compare_with_paper("cross_dataset", records, comparable=True)
    assert cells(comparison).loc[("UCF", "Open-MeDe"), "mark"] == mark
    assert comparison.outside_tolerance == (mark == "outside")


def test_what_is_not_comparable_or_not_run_is_never_outside():
    comparison = compare_with_paper(
        "out_of_context", study(), columns=COLUMNS, comparable=False, reason="synthetic world"
    )
    assert not comparison.outside_tolerance
    assert comparison.counts() == {"within": 0, "outside": 0, "not comparable": 6, "not run": 9}
    assert (comparison.frame["reason"] == "synthetic world").all()
    assert comparison.notes()[0] == "Not comparable with the paper: synthetic world."
    empty = compare_with_paper("out_of_context", [], comparable=True)
    assert empty.counts()["not run"] == 15


def test_records_are_averaged_over_contexts_then_seeds():
    records = [
        record(seed=seed, context=context, value=value, n=10)
        for seed, values in enumerate([(80, 60, 20), (90, 70, 50)])
        for context, value in zip(("in", "scene", "noise"), values, strict=True)
    ]
    frame = cells(compare_with_paper("out_of_context", records, columns=COLUMNS, comparable=True))
    outside = frame.loc[("UCF-SCUBA (out-ctx)", "Open-MeDe (full)")]
    assert outside["reproduced"] == 50.0  # seeds 40 and 60
    assert outside["reproduced_std"] == pytest.approx(200**0.5)
    assert outside["seeds"] == 2
    assert math.isnan(outside["low"])  # no bits, no interval
    hm = frame.loc[("HM", "Open-MeDe (full)")]
    assert hm["reproduced"] == pytest.approx(harmonic_mean(85, 50))
    expected = np.std([harmonic_mean(80, 40), harmonic_mean(90, 60)], ddof=1)
    assert hm["reproduced_std"] == pytest.approx(expected)
    assert hm["paper"] == pytest.approx(harmonic_mean(83.7, 44.7))
    assert hm["stated"] == 57.6


def test_intervals_come_from_the_bits():
    records = study()
    frame = cells(compare_with_paper("out_of_context", records, columns=COLUMNS, comparable=True))

    def bits(context):
        found = [r for r in records if r["method"] == "frozen" and r["context"] == context]
        return np.array([unpack_correct(one["correct"], one["n"]) for one in found])

    inside, outside = bits("in"), (bits("scene") + bits("noise").astype(float)) / 2
    expected = {
        "UCF (in-ctx)": bootstrap_accuracy(inside),
        "UCF-SCUBA (out-ctx)": bootstrap_accuracy(outside),
        "HM": bootstrap_harmonic_mean(inside, outside, paired_clips=True),
    }
    for column, interval in expected.items():
        cell = frame.loc[(column, "Frozen CLIP")]
        assert (cell["low"], cell["high"]) == (interval.low, interval.high)
        assert cell["reproduced"] == pytest.approx(interval.value)


def test_seeds_of_different_worlds_do_not_share_clips():
    records = [one | {"world_seed": one["seed"]} for one in study(("frozen",))]
    frame = cells(compare_with_paper("out_of_context", records, columns=COLUMNS, comparable=True))
    bits = np.array([unpack_correct(r["correct"], r["n"]) for r in records if r["context"] == "in"])
    assert (
        frame.loc[("UCF (in-ctx)", "Frozen CLIP"), "low"] == bootstrap_accuracy(bits, shared_clips=False).low
    )


def test_base_and_novel_are_joined_by_their_harmonic_mean():
    records = [record(split=split, context="in", value=v) for split, v in (("base", 77.3), ("novel", 63.8))]
    pair = ({"split": "base"}, {"split": "novel"})
    columns = {"K400 (Novel)": pair[1], "K400 (HM)": pair}
    frame = cells(compare_with_paper("base_to_novel", records, columns=columns, comparable=True))
    assert frame.loc[("K400 (HM)", "Open-MeDe"), "reproduced"] == pytest.approx(harmonic_mean(77.3, 63.8))
    assert frame.loc[("K400 (HM)", "Open-MeDe"), "mark"] == "within"
    assert frame.loc[("K400 (Novel)", "Open-MeDe"), "difference"] == pytest.approx(0)


@pytest.mark.parametrize(("pair", "paired"), [("context", True), ("split", False)])
def test_a_joined_interval_pairs_clips_only_across_backgrounds(pair, paired):
    rng = np.random.default_rng(1)
    first, second = rng.permutation(np.arange(40) < 30), rng.permutation(np.arange(40) < 20)
    records = [
        record(**{pair: key}, n=40, value=100 * bits.mean(), correct=pack_correct(bits))
        for key, bits in (("a", first), ("b", second))
    ]
    columns = {"HM": ({pair: "a"}, {pair: "b"})}
    frame = cells(compare_with_paper("out_of_context", records, columns=columns, comparable=True))
    expected = bootstrap_harmonic_mean(first, second, paired_clips=paired)
    cell = frame.loc[("HM", "Open-MeDe (full)")]
    assert (cell["low"], cell["high"]) == (expected.low, expected.high)


def test_a_method_that_the_paper_lacks_keeps_its_line():
    comparison = compare_with_paper("out_of_context", study(("finetune",)), columns=COLUMNS, comparable=True)
    line = cells(comparison).loc[("UCF (in-ctx)", "Fine-tuning")]
    assert line["reproduced"] == 80.0
    assert line["mark"] == "not comparable"
    assert line["reason"] == "the paper has no such row"
    assert "the paper has no such row" in set(comparison.display()["Reason"])


@pytest.mark.parametrize(
    ("table", "records", "options", "message"),
    [
        ("table_2", [], {}, "table is 'table_2'"),
        ("findings", [], {}, "table is 'findings'"),
        ("cross", [], {"comparable": False}, "reason is empty"),
        ("context", [record(weights="random")], {"columns": COLUMNS}, "weights='random'"),
        ("cross", study(), {"columns": {"UCF-101": {}}}, "not in the paper's table; allowed: UCF"),
        ("cross", study(), {"columns": {"UCF": {"spli": 1}}}, "asks for 'spli', which no record has"),
        ("cross", study(), {"columns": {"UCF": {"n": 40}}}, "more than one record; they differ in context"),
        ("cross", study(), {"columns": {"UCF": ({}, {}, {})}}, "has 3 filters"),
        ("context", study()[:-1], {"columns": COLUMNS}, "Open-MeDe (full), seed 1: no record for {'set':"),
        ("context", study()[:4], {"columns": COLUMNS}, "joins seeds ['0', '1'] and ['0']"),
        ("cross", study(), {}, "lacks column"),
        ("cross", [{"column": "UCF", "value": 1}], {}, "lacks method"),
        ("cross", [{"row": "a", "column": "UCF", "value": 101}], {}, "value is 101; allowed: 0 to 100"),
        ("cross", [{"row": "a", "column": "UCF", "value": 1}] * 2, {}, "more than one record"),
    ],
)  # fmt: skip
def test_bad_comparisons_are_named(table, records, options, message):
    name = {"cross": "cross_dataset", "context": "out_of_context"}.get(table, table)
    with pytest.raises(ValueError, match=re.escape(message)):
        compare_with_paper(name, records, **{"comparable": True, **options})


def test_the_display_shows_the_stated_harmonic_mean_beside_the_recomputed_one():
    shown = (
        compare_with_paper("out_of_context", [], comparable=True).display().set_index(["Column", "Method"])
    )
    assert shown.loc[("HM", "Frozen CLIP"), "Paper"] == "53.5 (stated 54.1)"
    assert shown.loc[("HM", "Open-MeDe (full)"), "Paper"] == "58.3 (stated 57.6)"
    assert shown.loc[("UCF (in-ctx)", "Frozen CLIP"), "Paper"] == "73.8"
    assert list(shown.loc["HM"].index) == [
        "Frozen CLIP", "Open-VCLIP", "FROSTER", "Open-MeDe (w/o GWA)", "Open-MeDe (full)"
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ numbers as text
def test_number_formats():
    assert format_mean_std(83.74, 1.26, 3) == "83.7 ± 1.3 (3 seeds)"
    assert format_mean_std(63.2, math.nan, 1) == "63.2 (1 seed)"
    assert format_mean_std(83.7, 1.3) == "83.7 ± 1.3"
    assert format_mean_std(math.nan) == "–"
    assert format_interval(44.7, 43.12, 46.2) == "44.7 [43.1, 46.2]"
    assert format_interval(44.7, math.nan, math.nan) == "44.7"
    assert [format_signed(v) for v in (2.9, -0.61, -0.04, 0.0, math.nan)] == [
        "+2.9",
        "-0.6",
        "0.0",
        "0.0",
        "–",
    ]


def test_latex_special_characters_are_escaped():
    assert latex_escape(r"50 % & more_so #1 {a} $x ~ ^ \end") == (
        r"50 \% \& more\_so \#1 \{a\} \$x \textasciitilde{} \textasciicircum{} \textbackslash{}end"
    )
    assert (
        latex_escape("83.7 ± 1.3, -0.6, Open-MeDe, UCF-101") == r"83.7 $\pm$ 1.3, $-$0.6, Open-MeDe, UCF-101"
    )


# ------------------------------------------------------------------------------------ files
@pytest.fixture
def comparison():
    return compare_with_paper(
        "out_of_context",
        study(("frozen", "finetune")),
        columns=COLUMNS,
        comparable=False,
        reason="synthetic <world>",
    )


def test_a_table_has_five_files_with_the_same_numbers(comparison, tmp_path):
    paths = render_table(comparison, tmp_path / "22.out_of_context", caption="A & B", notes=["50 % | more"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"22.out_of_context.{ending}" for ending in ("csv", "html", "json", "md", "tex")
    ]
    for ending in ("html", "md", "tex"):
        text = paths[ending].read_text()
        for cell in ("Frozen CLIP", "Fine-tuning", "53.5 (stated 54.1)", "not comparable", "not run"):
            assert cell in text, (ending, cell)
    frame = pd.read_csv(paths["csv"])
    assert len(frame) == len(comparison.frame)
    assert frame["paper"].max() == 83.7


def test_markup_in_text_is_escaped_in_every_form(comparison, tmp_path):
    paths = render_table(comparison, tmp_path / "t", caption="A & B_c", notes=["50 % | more"])
    page = paths["html"].read_text()
    assert "A &amp; B_c" in page
    assert "synthetic &lt;world&gt;" in page
    assert page.isascii()  # reads right under any declared encoding
    markdown = paths["md"].read_text()
    assert r"50 % \| more" in markdown
    assert r"synthetic \<world>" in markdown
    latex = paths["tex"].read_text()
    assert r"\caption{A \& B\_c}" in latex
    assert "synthetic $<$world$>$" in latex
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:t}"):
        assert rule in latex
    for line in latex.splitlines()[1:]:
        assert not re.search(r"(?<!\\)[%#]", line)
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}")


def test_markdown_and_latex_rows_have_as_many_cells_as_the_header(comparison, tmp_path):
    paths = render_table(comparison, tmp_path / "t", caption="c", notes=[])
    rows = [line for line in paths["md"].read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    rows = [line for line in paths["tex"].read_text().splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1
    assert len(rows) == 1 + len(comparison.frame)


def test_the_same_table_gives_the_same_bytes(comparison, tmp_path):
    first = render_table(comparison, tmp_path / "a" / "t", caption="c")
    second = render_table(comparison, tmp_path / "b" / "t", caption="c")
    for ending in first:
        assert first[ending].read_bytes() == second[ending].read_bytes()


def test_the_sidecar_says_whether_a_comparable_number_is_off(tmp_path, comparison):
    facts = json.loads(render_table(comparison, tmp_path / "a", caption="c")["json"].read_text())
    assert (facts["comparable"], facts["outside_tolerance"]) == (False, False)
    off = compare_with_paper(
        "cross_dataset", [{"row": "Open-MeDe", "column": "UCF", "value": 50}], comparable=True
    )
    facts = json.loads(render_table(off, tmp_path / "b", caption="c")["json"].read_text())
    assert (facts["comparable"], facts["outside_tolerance"]) == (True, True)
    assert facts["marks"]["outside"] == 1
    facts = json.loads(
        render_table(pd.DataFrame({"a": [1]}), tmp_path / "c", caption="c")["json"].read_text()
    )
    assert (facts["comparable"], facts["outside_tolerance"]) == (False, False)


def test_plain_frames_and_stylers_are_written_too(tmp_path):
    frame = pd.DataFrame({("top-1", "in"): [71.234, math.nan], ("top-1", "out"): [40.0, 41.0]},
                         index=pd.Index(["a_b", "c"], name="method"))  # fmt: skip
    paths = render_table(frame, tmp_path / "t", caption="Plain")
    assert paths["md"].read_text().splitlines()[2:] == [
        "| method | top-1 / in | top-1 / out |", "| :--- | ---: | ---: |",
        "| a_b | 71.2 | 40.0 |", "| c | – | 41.0 |",
    ]  # fmt: skip
    assert paths["csv"].read_text() == "method,top-1 / in,top-1 / out\na_b,71.234,40\nc,,41\n"
    cells_too = pd.DataFrame({"a_b": ["50 % & more"]})
    assert (
        "a\\_b \\\\\n\\midrule\n50 \\% \\& more"
        in render_table(cells_too, tmp_path / "l", caption="c")["tex"].read_text()
    )
    styler = pd.DataFrame({"x": [1.0, 2.0]}).style.highlight_max(color="#abcdef")
    assert "#abcdef" in render_table(styler, tmp_path / "s", caption="Styled")["html"].read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], "t", "c"), "table is a list"),
        ((pd.DataFrame(), "t", "c"), "no columns"),
        ((pd.DataFrame({"a": [1]}), "t", ""), "caption is ''"),
        ((pd.DataFrame({"a": [1]}), "", "c"), "path_stem is"),
        ((pd.DataFrame([[1, 2]], columns=["a", "a"]), "t", "c"), "a column twice"),
    ],
)
def test_bad_tables_are_named(arguments, message, tmp_path):
    table, name, caption = arguments
    with pytest.raises(ValueError, match=message):
        render_table(table, tmp_path / name if name else "", caption=caption)
    assert not list(tmp_path.iterdir())


def test_results_load_neither_torch_nor_matplotlib():
    code = "import sys, mede_core.report.records; print({'torch', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
