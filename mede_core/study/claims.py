"""The paper's claims, what would support each, and the verdicts: drawn by rule from per-seed differences. Torch-free.

A comparison is a paired difference, seed by seed, on the source set and over base and novel classes unless it says
otherwise; its interval is the 95 % t-interval over seeds, its p-value that of the two-sided t-test of its limit: zero,
or, for "not below", ``MARGIN`` points under it. Times are ratios of one training step, all methods in turns in one
process, tested by their logarithms; "no more" has the limit ``TIME_MARGIN``.

A claim with several comparisons speaks for the paper where all of them lie on the expected side: its p-value is the
largest of theirs. It speaks against the paper where one lies on the other side: the smallest of those, times the number
of comparisons. By Holm's correction over all claims it is then *supported*, *contradicted* or *undecided*. Fewer than
four seeds are a hint, never a verdict.

The claims stand in three parts: the full method, as the paper has it, then against the control that takes as many clips
an update without an inner step (``joint``); the trainer apart, without averages; the average apart, of one trajectory.
Regularization is not judged against fine-tuning: it is tested averaged, fine-tuning is not, so that two things differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr

from ..report.intervals import VERDICT_FROM, t_interval
from ..report.tables import method_label
from ..report.write import MISSING, format_signed
from .answers import per_seed
from .store import study_records

MARGIN = 1.0  # points that would matter: about the standard error of one seed's accuracy
TIME_MARGIN = 1.1
ALPHA = 0.05
SUPPORTED, CONTRADICTED, UNDECIDED, HINT, NOT_RUN = "supported", "contradicted", "undecided", "hint", "not run"
QUANTITIES = {
    "novel": "novel classes", "hm": "harmonic mean of base and novel", "cross": "mean of three other sets",
    "in": "in context", "out": "out of context", "temporal": "gain on the temporal set minus gain on the source",
    "time": "time of a training step",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The first method minus the second; of times the first over the second."""

    first: str
    second: str
    quantity: str  # of QUANTITIES
    expected: str  # above, below or not below; of times less or no more


def _against(others: Sequence[str], quantity: str, expected: str = "above", *, method: str = "open_mede"):
    return tuple(Comparison(method, other, quantity, expected) for other in others)


_REGULARIZED = ("open_vclip", "froster")
_FULL = {"novel": "recognizes novel classes best", "hm": "balances base and novel classes best",
         "cross": "transfers best to other sets", "out": "does best out of context"}  # fmt: skip
_META = "open_mede_no_gwa"
CLAIMS: dict[str, tuple[Comparison, ...]] = {  # with the comparisons that would support them
    **{f"Open-MeDe {says}": _against(("frozen", "finetune", *_REGULARIZED), quantity)
       for quantity, says in _FULL.items()},
    **{f"Open-MeDe {says}: also against as many clips an update without an inner step": _against(("joint",), quantity)
       for quantity, says in _FULL.items()},
    "Trainer: meta-optimization alone is no worse out of context than frozen CLIP":
        _against(("frozen",), "out", "not below", method=_META),
    "Trainer: meta-optimization alone does better out of context than fine-tuning":
        _against(("finetune",), "out", method=_META),
    "Trainer: meta-optimization alone does better out of context than as many clips without an inner step":
        _against(("joint",), "out", method=_META),
    "Average: GWA adds to accuracy in context": _against((_META,), "in"),
    "Average: GWA adds to accuracy out of context": _against((_META,), "out"),
    "Regularization towards CLIP, averaged, raises accuracy in context, against frozen CLIP":
        tuple(Comparison(method, "frozen", "in", "above") for method in _REGULARIZED),
    "Regularization towards CLIP, averaged, lowers accuracy out of context, against frozen CLIP":
        tuple(Comparison(method, "frozen", "out", "below") for method in _REGULARIZED),
    "The gain over regularization is largest on the temporal set": _against(_REGULARIZED, "temporal"),
    "No additional overhead: training takes no longer than fine-tuning": _against(("finetune",), "time", "no more"),
    "Less overhead than regularization": _against(_REGULARIZED, "time", "less"),
}  # fmt: skip


# ------------------------------------------------------------------------------------ what was measured
def claim_records() -> list[dict]:
    """The committed records that claims are judged by: the section ``main``, and ``joint`` of the controls."""
    controls = study_records("meta", by="variant")
    return [*study_records("main"), *(r for r in controls if r["method"] == "joint")]


def measured_numbers(records: Sequence[Mapping], times: Sequence[Mapping] = ()) -> dict[tuple[str, str], dict]:
    """{(method, quantity): {seed: percent}} of what claims compare, NaN where not measured; of times logarithms."""
    learners = per_seed(records).set_index("seed").groupby("method")
    found = {(method, name): own[name].to_dict() for method, own in learners for name in QUANTITIES if name in own}
    for r in times:
        if r["metric"] == "step_seconds":
            found.setdefault((r["average"], "time"), {})[r["seed"]] = float(np.log(r["value"]))
    return found


@dataclass(frozen=True)
class Measured:
    """A comparison as it came out: mean and t-interval of per-seed differences, and its two-sided p-value."""

    value: float
    low: float
    high: float
    seeds: int
    p: float
    expected: bool  # the mean lies on the expected side of the limit


def measure_comparison(found: Mapping, comparison: Comparison) -> Measured | None:
    """Over the seeds that both methods have, from :func:`measured_numbers`; None where there is none."""
    first, second = (found.get((m, comparison.quantity), {}) for m in (comparison.first, comparison.second))
    values = np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    limit = {"not below": -MARGIN, "no more": np.log(TIME_MARGIN)}.get(comparison.expected, 0.0)
    value, low, high = t_interval(values)
    distance, p = value - limit, 1.0
    if len(values) > 1 and distance:
        error = values.std(ddof=1) / np.sqrt(len(values))
        p = float(2 * stdtr(len(values) - 1, -abs(distance) / error)) if error else 0.0
    upwards = comparison.expected in ("above", "not below")
    return Measured(value, low, high, len(values), p, (distance > 0) == upwards)


# ------------------------------------------------------------------------------------ verdicts
def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: read at a level, the chance of any false verdict among all of them stays below it."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def verdicts(claims: Sequence[Sequence[Measured | None]]) -> list[str]:
    """The verdict of each claim, from its comparisons, see the top."""
    said, judged = [""] * len(claims), {}
    for index, parts in enumerate(claims):
        if None in parts:
            said[index] = NOT_RUN
        elif min(one.seeds for one in parts) < VERDICT_FROM:
            said[index] = HINT
        elif against := [one.p for one in parts if not one.expected]:
            judged[index] = (CONTRADICTED, min(1.0, min(against) * len(parts)))
        else:
            judged[index] = (SUPPORTED, max(one.p for one in parts))
    for index, p in zip(judged, holm([p for _, p in judged.values()])):
        said[index] = judged[index][0] if p <= ALPHA else UNDECIDED
    return said


def claims_table(records: Sequence[Mapping], times: Sequence[Mapping]) -> pd.DataFrame:
    """Every claim with its verdict and its comparisons, a row each, from :func:`claim_records` and section ``cost``."""
    found, rows = measured_numbers(records, times), []
    measured = [[measure_comparison(found, one) for one in comparisons] for comparisons in CLAIMS.values()]
    for (text, comparisons), verdict, parts in zip(CLAIMS.items(), verdicts(measured), measured):
        heads = [(text, verdict), *[("", "")] * (len(parts) - 1)]
        for head, comparison, one in zip(heads, comparisons, parts):
            told = _told(comparison, one) if one else (NOT_RUN, MISSING)
            titles = ("Claim", "Verdict", "Would be supported by", "Measured", "p")
            rows.append(dict(zip(titles, (*head, _needed(comparison), *told))))
    return pd.DataFrame(rows)


def claims_summary(table: pd.DataFrame) -> str:
    heads = table[table["Claim"] != ""]
    parts = []
    for verdict in (SUPPORTED, CONTRADICTED, UNDECIDED, HINT, NOT_RUN):
        own = heads[heads["Verdict"] == verdict]["Claim"]
        named = f" ({'; '.join(own)})" if verdict in (SUPPORTED, CONTRADICTED) else ""
        parts += [f"{len(own)} {verdict}{named}"] if len(own) else []
    return f"of {len(heads)} claims {', '.join(parts)}."


def claims_frame(records: Sequence[Mapping]) -> pd.DataFrame:
    """The claims' comparisons in and out of context, in points, as ``figures.difference_forest`` takes them."""
    found, rows = measured_numbers(records), {}
    for comparison in (one for claim in CLAIMS.values() for one in claim if one.quantity in ("in", "out")):
        if one := measure_comparison(found, comparison):
            label = f"{method_label(comparison.first)} − {method_label(comparison.second)}"
            ends = {"value": one.value, "low": one.low, "high": one.high, "seeds": one.seeds}
            rows[label, comparison.quantity] = {"label": label, "quantity": comparison.quantity, **ends}
    return pd.DataFrame([*rows.values()])


def _needed(comparison: Comparison) -> str:
    first, second = method_label(comparison.first), method_label(comparison.second)
    if comparison.quantity == "time":
        return f"time of {first} / {second} below {1 if comparison.expected == 'less' else TIME_MARGIN}"
    sign = {"above": "> 0", "below": "< 0", "not below": f"> −{MARGIN:g}"}[comparison.expected]
    return f"{first} − {second}, {QUANTITIES[comparison.quantity]} {sign}"


def _told(comparison: Comparison, one: Measured) -> tuple[str, str]:
    timed = comparison.quantity == "time"
    value, low, high = (f"{np.exp(x):.2f}" if timed else format_signed(x) for x in (one.value, one.low, one.high))
    p = f"{one.p:.1g}" if one.p >= 1e-4 else "< 0.0001"
    count = f"{one.seeds} {'repetitions' if timed else 'seeds'}"
    return f"{value} [{low} to {high}], {count}", p if one.seeds > 1 else MISSING
