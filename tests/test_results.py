"""The paper's tables, our numbers beside them, and the files of a table."""

import json
import math
import re

import pandas as pd
import pytest

from mede_core.report.metrics import harmonic_mean
from mede_core.report.paper import PAPER_TABLES, compare_with_paper, paper_table
from mede_core.report.write import format_interval, format_mean_std, format_signed, latex_escape, render_table


def cell(value=80.0, method="open_mede", column="UCF (in-ctx)", **more):
    return {"method": method, "column": column, "value": value, **more}


# ------------------------------------------------------------------------------------ the paper's tables
@pytest.mark.parametrize(
    ("table", "rows", "columns"),
    [
        ("base_to_novel", [282.9, 271.2, 269.4, 226.4], [241.4, 264.3, 203.3, 296.2, 44.7]),
        ("cross_dataset", [212.0, 210.1, 207.4, 189.8], [323.7, 209.7, 285.9]),
        ("out_of_context", [169.9, 163.9, 165.1, 179.5, 186.0], [406.2, 195.8, 262.4]),
    ],
)
def test_rows_and_columns_have_the_sums_of_what_the_note_prints(table, rows, columns):
    wide = paper_table(table, wide=True)
    assert wide.sum(axis=1).tolist() == pytest.approx(rows) and wide.sum().tolist() == pytest.approx(columns)


def test_spreads_are_those_printed():
    spreads = paper_table("cross_dataset").set_index(["row", "column"])["std"]
    assert (spreads["Open-MeDe", "UCF"], spreads["Frozen CLIP", "K600"]) == (1.3, 1.1)
    assert spreads.sum() == pytest.approx(11.8) and len(spreads.dropna()) == 12
    assert paper_table("out_of_context")["std"].isna().all()


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
    findings, gain = paper_table("findings").set_index("metric")["value"], wide["Open-MeDe (full)"]
    assert findings["gain"] == 2.9 == pytest.approx(gain - wide["Open-MeDe (w/o GWA)"]) and len(findings.dropna()) == 3


def test_implied_base_accuracies_in_remarks_recompute():
    frame = paper_table("base_to_novel").set_index(["column", "row"])
    for row in ("Open-MeDe", "Open-VCLIP", "FROSTER", "Frozen CLIP"):
        base = float(re.search(r"imply Base ([\d.]+)", frame.loc[("K400 (HM)", row), "remark"])[1])
        novel, hm = frame.loc[("K400 (Novel)", row), "value"], frame.loc[("K400 (HM)", row), "value"]
        assert harmonic_mean(base, novel) == pytest.approx(hm, abs=0.06)


# ------------------------------------------------------------------------------------ comparison
OUT_OF_CONTEXT = ("UCF (in-ctx)", "UCF-SCUBA (out-ctx)", "HM")


def lines(comparison):
    return comparison.frame.set_index(["column", "row"])


def real(table, cells):
    return compare_with_paper(table, cells, comparable=True)


def ucf(**values):
    """A comparison of UCF's column, where the paper has 73.8 (frozen), 83.3 (open_vclip) and 83.7 (open_mede)."""
    return real("cross_dataset", [cell(value, method, "UCF") for method, value in values.items()])


def test_the_papers_own_numbers_are_within_tolerance_everywhere():
    for table in PAPER_TABLES[:3]:
        comparison = real(table, paper_table(table))
        hm = comparison.frame["column"] == "HM"
        assert comparison.frame.loc[~hm, "difference"].abs().max() < 1e-9
        assert set(comparison.frame["mark"]) == {"within"}
        assert not comparison.outside_tolerance


def test_a_null_model_is_outside_tolerance_for_every_cell_of_the_papers_method():
    """Frozen CLIP's numbers handed in as Open-MeDe's must never pass."""
    for table in PAPER_TABLES[:3]:
        frozen = paper_table(table).query("row == 'Frozen CLIP'").drop(columns="std")
        comparison = real(table, pd.concat([frozen, frozen.assign(row="Open-MeDe")]))
        assert set(lines(comparison).xs("Open-MeDe", level="row")["mark"]) == {"outside"}
        assert comparison.outside_tolerance


def test_tolerance_is_the_larger_of_half_the_claimed_gain_and_two_standard_deviations():
    tolerance = lines(real("cross_dataset", []))["tolerance"]
    assert tolerance["UCF", "Open-MeDe"] == pytest.approx(9.9 / 2)
    assert tolerance["HMDB", "Open-VCLIP"] == pytest.approx(6.7 / 2), "the paper's own method gains more"
    assert tolerance["K600", "FROSTER"] == pytest.approx(5.6 / 2)
    assert lines(real("out_of_context", []))["tolerance"][OUT_OF_CONTEXT[1], "Open-VCLIP"] == pytest.approx(8.8 / 2)


@pytest.mark.parametrize(("value", "mark"), [(78.75, "within"), (78.74, "outside"), (88.65, "within")])
def test_the_mark_turns_at_the_tolerance(value, mark):
    comparison = ucf(frozen=73.8, open_mede=value)
    assert lines(comparison).loc[("UCF", "Open-MeDe"), "mark"] == mark
    assert comparison.outside_tolerance == (mark == "outside")


def test_differences_to_frozen_clip_are_judged_and_a_reversed_order_is_never_within():
    shifted = lines(ucf(frozen=71.0, open_mede=80.9)).loc["UCF"]
    assert shifted.loc["Open-MeDe", "difference"] == pytest.approx(0)
    assert shifted.loc["Frozen CLIP", "difference"] == pytest.approx(-2.8)
    turned = lines(ucf(frozen=74, open_vclip=84, open_mede=80)).loc["UCF"]
    assert turned.loc["Open-VCLIP", ["mark", "difference"]].tolist() == ["outside", pytest.approx(0.5)]
    alone = lines(ucf(open_mede=83.7)).loc[("UCF", "Open-MeDe"), "mark"]
    assert alone == "not comparable", "no frozen CLIP to compare with"


def test_what_is_not_comparable_not_run_or_of_a_twin_is_never_outside():
    ours = [cell(1.0, method, column) for method in ("frozen", "open_mede") for column in OUT_OF_CONTEXT]
    about = {"comparable": False, "reason": "synthetic world"}
    comparison = compare_with_paper("out_of_context", ours, **about)
    assert not comparison.outside_tolerance
    assert comparison.frame["mark"].value_counts().to_dict() == {"not comparable": 6, "not run": 9}
    assert comparison.notes[0] == "Not comparable with the paper: synthetic world."
    twin = compare_with_paper("out_of_context", ours, twin=True, **about)
    assert not twin.outside_tolerance
    assert not {"Difference", "Tolerance", "Mark"} & {*twin.display()}
    assert set(real("out_of_context", []).frame["mark"]) == {"not run"}


def test_a_twin_shows_whether_differences_to_frozen_clip_have_the_papers_sign():
    gains = {"open_vclip": (2.0, 1.0, 3.0), "froster": (-2.0, -3.0, -1.0), "open_mede": (2.5, -1.0, 5.0)}
    cells = [cell(70.0, "frozen", "UCF", where="transfer_a"), cell(75.0, "finetune", "UCF", where="transfer_a")]
    cells += [cell(70 + g, method, "UCF", gain=g, gain_low=low, gain_high=high, low=60, high=80, seeds=1)
              for method, (g, low, high) in gains.items()]  # fmt: skip
    twin = compare_with_paper("cross_dataset", cells, comparable=False, reason="a twin", twin=True)
    shown = twin.display().query("`In place of` == 'UCF'").set_index("Method")
    assert shown["Same sign"].to_dict() == {
        "Frozen CLIP": "–", "Fine-tuning": "–", "Open-VCLIP": "yes", "FROSTER": "no", "Open-MeDe": "undecided",
    }  # fmt: skip
    assert shown.loc["Open-VCLIP", "To frozen CLIP, paper":"To frozen CLIP, here"].tolist() == [
        "+9.5", "+2.0 [+1.0, +3.0]"
    ]  # fmt: skip
    assert shown.loc["Open-VCLIP", "This world"] == "72.0 [60.0, 80.0]" and {*shown["Measured on"]} == {"transfer_a"}
    assert any("yes 1, no 1, undecided 1" in note and "in 1 of 1" in note for note in twin.notes)


def test_rankings_count_the_pairs_in_the_papers_order():
    (row,) = ucf(frozen=70, open_vclip=80, open_mede=75, finetune=90).rankings().to_dict("records")
    assert (row["Paper"], row["Here"]) == (
        "Open-MeDe, Open-VCLIP, Frozen CLIP", "Open-VCLIP, Open-MeDe, Frozen CLIP"
    )  # fmt: skip
    assert row["Pairs in the same order"] == "2 of 3"


def test_the_numbers_given_stand_in_the_table():
    ours = [cell(50.0, column=OUT_OF_CONTEXT[1], std=1.5, low=48.0, high=53.0, seeds=4), cell(90.0, "finetune")]
    frame = lines(real("out_of_context", ours))
    line = frame.loc[(OUT_OF_CONTEXT[1], "Open-MeDe")]
    assert line[["value", "std", "low", "high", "seeds"]].tolist() == [50, 1.5, 48, 53, 4]
    assert frame.loc[("HM", "Open-MeDe"), "paper"] == pytest.approx(harmonic_mean(83.7, 44.7))
    assert frame.loc[(OUT_OF_CONTEXT[0], "Fine-tuning"), ["value", "mark"]].tolist() == [90.0, "not comparable"]


@pytest.mark.parametrize(
    ("table", "cells", "options", "message"),
    [
        ("table_2", [], {}, "table is 'table_2'"),
        ("findings", [], {}, "table is 'findings'"),
        ("cross_dataset", [], {"comparable": False}, "reason is empty"),
        ("out_of_context", [cell(weights="random")], {}, "random weights"),
        ("cross_dataset", [cell(column="UCF-101")], {}, "not in the paper's table; allowed: UCF"),
        ("cross_dataset", [{"method": "frozen", "value": 1}], {}, "lacks column"),
        ("cross_dataset", [{"column": "UCF", "value": 1}], {}, "lacks method"),
        ("cross_dataset", [cell(101, column="UCF")], {}, "value is 101; allowed: 0 to 100"),
        ("cross_dataset", [cell(math.nan, column="UCF")], {}, "value is nan"),
        ("cross_dataset", [cell(1, column="UCF", seed=s) for s in (0, 1)], {}, "UCF of open_mede is there more than"),
    ],
)
def test_bad_comparisons_are_named(table, cells, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compare_with_paper(table, cells, **{"comparable": True, **options})


def test_the_display_shows_the_stated_harmonic_mean_beside_the_recomputed_one():
    shown = real("out_of_context", []).display().set_index(["Column", "Method"])
    assert shown.loc[("HM", "Frozen CLIP"), "Paper"] == "53.5 (stated 54.1)"
    assert shown.loc[("HM", "Open-MeDe"), "Paper"] == "58.3 (stated 57.6)"
    assert shown.loc[("UCF (in-ctx)", "Frozen CLIP"), "Paper"] == "73.8"
    assert list(shown.loc["HM"].index) == ["Frozen CLIP", "Open-VCLIP", "FROSTER", "Open-MeDe (w/o GWA)", "Open-MeDe"]


# ------------------------------------------------------------------------------------ numbers as text
def test_number_formats():
    assert format_mean_std(83.74, 1.26) == "83.7 ± 1.3"
    assert format_mean_std(63.2, math.nan) == "63.2"
    assert format_mean_std(math.nan) == "–"
    assert format_mean_std(-0.01, 0.02) == "0.0 ± 0.0"
    assert format_interval(44.7, 43.12, 46.2) == "44.7 [43.1, 46.2]"
    assert format_interval(44.7, math.nan, math.nan) == "44.7"
    assert [format_signed(v) for v in (2.9, -0.61, -0.04, 0.0, math.nan)] == ["+2.9", "-0.6", "0.0", "0.0", "–"]


def test_latex_special_characters_are_escaped():
    assert latex_escape(r"50 % & more_so #1 {a} $x ~ ^ \end") == (
        r"50 \% \& more\_so \#1 \{a\} \$x \textasciitilde{} \textasciicircum{} \textbackslash{}end"
    )
    assert latex_escape("83.7 ± 1.3, -0.6, Open-MeDe, UCF-101") == r"83.7 $\pm$ 1.3, $-$0.6, Open-MeDe, UCF-101"


# ------------------------------------------------------------------------------------ files
@pytest.fixture
def comparison():
    ours = [cell(80.0, method, column) for method in ("frozen", "finetune") for column in OUT_OF_CONTEXT[:2]]
    return compare_with_paper("out_of_context", ours, comparable=False, reason="synthetic <world>")


def test_a_table_has_five_files_with_the_same_numbers_and_the_same_bytes_each_time(comparison, tmp_path):
    paths, again = (render_table(comparison, tmp_path / x / "22.t", caption="A & B", notes=["a | b"]) for x in "ab")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        f"22.t.{ending}" for ending in ("csv", "html", "json", "md", "tex")
    ]
    assert all(paths[ending].read_bytes() == again[ending].read_bytes() for ending in paths)
    for ending in ("html", "md", "tex"):
        text = paths[ending].read_text()
        for cell in ("Frozen CLIP", "Fine-tuning", "53.5 (stated 54.1)", "not comparable", "not run"):
            assert cell in text, (ending, cell)
    frame = pd.read_csv(paths["csv"])
    assert len(frame) == len(comparison.frame) and frame["paper"].max() == 83.7


def test_markup_in_text_is_escaped_in_every_form(comparison, tmp_path):
    paths = render_table(comparison, tmp_path / "t", caption="A & B_c", notes=["50 % | more"])
    page = paths["html"].read_text()
    assert "A &amp; B_c" in page
    assert "synthetic &lt;world&gt;" in page
    assert page.isascii()  # reads right under any declared encoding
    markdown = paths["md"].read_text()
    assert r"50 % \| more" in markdown
    assert r"synthetic \<world>" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    latex = paths["tex"].read_text()
    assert r"\caption{A \& B\_c}" in latex
    assert "synthetic $<$world$>$" in latex
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:t}"):
        assert rule in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1 and len(rows) == 1 + len(comparison.frame)
    for line in latex.splitlines()[1:]:
        assert not re.search(r"(?<!\\)[%#]", line)
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}")


def test_the_sidecar_says_whether_a_comparable_number_is_off(tmp_path, comparison):
    off = ucf(frozen=73.8, open_mede=50.0)
    for table, said in ((comparison, False), (off, True), (pd.DataFrame({"a": [1]}), False)):
        facts = json.loads(render_table(table, tmp_path / "t", caption="c")["json"].read_text())
        assert (facts["comparable"], facts["outside_tolerance"]) == (said, said)


def test_plain_frames_are_written_too(tmp_path):
    frame = pd.DataFrame({"in": [71.234, math.nan], "out": [40.0, 41.0]}, index=pd.Index(["a_b", "c"], name="method"))
    paths = render_table(frame, tmp_path / "t", caption="Plain")
    assert paths["md"].read_text().splitlines()[2:] == [
        "| method | in | out |", "| :--- | ---: | ---: |", "| a_b | 71.2 | 40.0 |", "| c | – | 41.0 |",
    ]  # fmt: skip
    assert paths["csv"].read_text() == "method,in,out\na_b,71.234,40\nc,,41\n"
    cells_too = pd.DataFrame({"a_b": ["50 % & more"]})
    latex = render_table(cells_too, tmp_path / "l", caption="c")["tex"].read_text()
    assert "a\\_b \\\\\n\\midrule\n50 \\% \\& more" in latex
