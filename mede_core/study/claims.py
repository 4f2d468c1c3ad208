"""The paper's claims, what would support each, and the verdicts: drawn by rule from intervals. Torch-free.

The rules were committed before the first run of the profile ``full``. A comparison is a paired difference over seeds
and clips with its 95 % interval, on the source set, base and novel classes together:

* "above": supported where the whole interval lies above zero; not supported where it lies below ``MARGIN`` points, so
  that even its upper end would not matter; else undecided. "below" is the mirror image.
* "not below": supported where the interval lies above ``-MARGIN``; not supported where it lies below; else undecided.
* a ratio of times is supported where it is at most ``TIME_MARGIN`` (or, "less", below 1) in every repetition, not
  supported where in none, else undecided. Times are of one training step, all methods in turns in one process.

A claim with several comparisons is supported where all are, and not supported where one is not. One seed decides
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..report.intervals import Interval, difference_of_differences
from ..report.tables import SPLITS, clip_scores, differences, method_label
from ..report.write import format_signed

MARGIN = 1.0  # points that would matter: about the standard error of one seed's accuracy
TIME_MARGIN = 1.1
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
TEMPORAL_SET = "direction"  # SSv2's part: classes that differ by direction alone


@dataclass(frozen=True)
class Comparison:
    """One measured comparison: the first method minus the second; of times the first over the second.

    ``quantity`` is ``in``, ``out`` (mean over swapped backgrounds), ``temporal`` (how much larger the difference in
    context is on the temporal set than on the source set) or ``time`` (of a training step).
    """

    first: str
    second: str
    quantity: str
    expected: str  # above, below or not below; of times no more or less


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with the comparisons that would support it."""

    text: str
    comparisons: tuple[Comparison, ...]


def _both(quantity: str, expected: str, *, than: str) -> tuple[Comparison, ...]:
    return tuple(Comparison(method, than, quantity, expected) for method in ("open_vclip", "froster"))


CLAIMS = (
    Claim("Regularization towards CLIP raises accuracy in context, against frozen CLIP",
          _both("in", "above", than="frozen")),
    Claim("Regularization towards CLIP lowers accuracy out of context, against frozen CLIP",
          _both("out", "below", than="frozen")),
    Claim("Regularization towards CLIP raises accuracy in context, against fine-tuning",
          _both("in", "above", than="finetune")),
    Claim("Regularization towards CLIP lowers accuracy out of context, against fine-tuning",
          _both("out", "below", than="finetune")),
    Claim("Meta-optimization alone restores accuracy out of context: no worse than frozen CLIP, better than "
          "regularization",
          (Comparison("open_mede_no_gwa", "frozen", "out", "not below"),
           Comparison("open_mede_no_gwa", "open_vclip", "out", "above"),
           Comparison("open_mede_no_gwa", "froster", "out", "above"))),
    Claim("Meta-optimization does better than fine-tuning out of context",
          (Comparison("open_mede_no_gwa", "finetune", "out", "above"),)),
    Claim("GWA adds to accuracy in context", (Comparison("open_mede", "open_mede_no_gwa", "in", "above"),)),
    Claim("GWA adds to accuracy out of context", (Comparison("open_mede", "open_mede_no_gwa", "out", "above"),)),
    Claim("The gain over regularization is largest on the temporal set",
          (Comparison("open_mede", "open_vclip", "temporal", "above"),
           Comparison("open_mede", "froster", "temporal", "above"))),
    Claim("No additional overhead: training takes no longer than fine-tuning",
          (Comparison("open_mede", "finetune", "time", "no more"),)),
    Claim("Less overhead than regularization",
          (Comparison("open_mede", "open_vclip", "time", "less"),
           Comparison("open_mede", "froster", "time", "less"))),
)  # fmt: skip


def verdict(interval: Interval, expected: str) -> str:
    """What an interval of a difference, in points, says of an expectation, by the rules above."""
    if expected == "below":
        mirrored = replace(interval, value=-interval.value, low=-interval.high, high=-interval.low)
        return verdict(mirrored, "above")
    if interval.seeds < 2:
        return UNDECIDED
    floor, ceiling = (0.0, MARGIN) if expected == "above" else (-MARGIN, -MARGIN)
    if interval.low > floor:
        return SUPPORTED
    return NOT_SUPPORTED if interval.high < ceiling else UNDECIDED


def time_verdict(ratios: Sequence[float], expected: str) -> str:
    """What time ratios of several repetitions say: ``no more`` (than ``TIME_MARGIN``) or ``less`` (than one)."""
    if len(ratios) < 2:
        return UNDECIDED
    limit = {"no more": TIME_MARGIN, "less": 1.0}[expected]
    within = [ratio <= limit if expected == "no more" else ratio < limit for ratio in ratios]
    return SUPPORTED if all(within) else UNDECIDED if any(within) else NOT_SUPPORTED


def joint_verdict(verdicts: Iterable[str]) -> str:
    """The verdict of a claim from those of its comparisons."""
    found = list(verdicts)
    if NOT_SUPPORTED in found:
        return NOT_SUPPORTED
    return SUPPORTED if all(one == SUPPORTED for one in found) else UNDECIDED


def measured(records: Sequence[Mapping], comparison: Comparison) -> Interval:
    """The paired difference of a comparison of accuracies, in points, over the seeds that both methods have."""
    pair = comparison.first, comparison.second
    seeds = set.intersection(*({r["seed"] for r in records if r["method"] == method} for method in pair))
    records = [r for r in records if r["method"] in pair and r["seed"] in seeds]
    if comparison.quantity == "temporal":
        sets = []
        for name in (TEMPORAL_SET, "source"):
            scores = [clip_scores(records, m, test_set=name, splits=SPLITS, contexts=("in",)) for m in pair]
            sets.append(tuple(list(one.values()) for one in scores))
        shared = len({record["world_seed"] for record in records}) == 1
        return difference_of_differences(*sets, shared_clips=shared)
    rows = differences(records, [pair])
    row = rows[rows["quantity"] == comparison.quantity].iloc[0]
    return Interval(row["value"], row["low"], row["high"], int(row["seeds"]), int(row["clips"]))


def time_ratios(times: Iterable[Mapping], comparison: Comparison) -> list[float]:
    """Time of a step of the first method over that of the second, one ratio a repetition (``seed``)."""
    seconds = {(r["average"], r["seed"]): r["value"] for r in times if r["metric"] == "step_seconds"}
    seeds = sorted({seed for method, seed in seconds if method == comparison.first})
    return [seconds[comparison.first, seed] / seconds[comparison.second, seed] for seed in seeds]


def claims_table(records: Sequence[Mapping], times: Sequence[Mapping]) -> pd.DataFrame:
    """Every claim with its comparisons and verdicts: a row a comparison, the claim and its verdict in its first row.

    Of the records of the study's section ``main``, and the times of ``cost``; without these, claims of times are
    undecided.
    """
    rows = []
    for claim in CLAIMS:
        found = [_judged(records, times, comparison) for comparison in claim.comparisons]
        joint = joint_verdict(one for _, _, one in found)
        for index, (needed, says, one) in enumerate(found):
            head = (claim.text, joint) if index == 0 else ("", "")
            rows.append(dict(zip(("Claim", "Verdict", "Would be supported by", "Measured", "Comparison"),
                                 (*head, needed, says, one), strict=True)))  # fmt: skip
    return pd.DataFrame(rows)


def claims_frame(records: Sequence[Mapping]) -> pd.DataFrame:
    """The claims' comparisons in and out of context, in points, as ``figures.difference_forest`` takes them.

    A comparison that two claims share comes once.
    """
    asked = {(c.first, c.second, c.quantity): c for claim in CLAIMS for c in claim.comparisons}
    rows = []
    for comparison in asked.values():
        if comparison.quantity in ("in", "out"):
            interval = measured(records, comparison)
            label = f"{method_label(comparison.first)} − {method_label(comparison.second)}"
            ends = {"value": interval.value, "low": interval.low, "high": interval.high}
            rows.append({"label": label, "quantity": comparison.quantity, **ends})
    return pd.DataFrame(rows)


_WHERE = {"in": "in context", "out": "out of context", "temporal": "gain on the temporal set minus gain on the source"}


def _judged(records, times, comparison: Comparison) -> tuple[str, str, str]:
    first, second = method_label(comparison.first), method_label(comparison.second)
    if comparison.quantity == "time":
        ratios = time_ratios(times, comparison)
        limit = f"at most {TIME_MARGIN}" if comparison.expected == "no more" else "below 1"
        says = "not measured"
        if ratios:
            says = f"{np.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} repetitions)"
        return f"time of {first} / {second} {limit}", says, time_verdict(ratios, comparison.expected)
    interval = measured(records, comparison)
    ends = f"{format_signed(interval.low)} to {format_signed(interval.high)}"
    sign = {"above": "> 0", "below": "< 0", "not below": f"> −{MARGIN:g}"}[comparison.expected]
    needed = f"{first} − {second}, {_WHERE[comparison.quantity]} {sign}"
    says = f"{format_signed(interval.value)} [{ends}], {interval.seeds} seeds"
    return needed, says, verdict(interval, comparison.expected)
