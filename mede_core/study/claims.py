"""The paper's claims, what would support each, and the verdicts: drawn by rule from per-seed differences. Torch-free.

Three parts: the full method, against others and against ``joint, GWA``: as many clips an update, averaged alike, no
inner step (until five long seeds were seen it was ``joint``, and the average alone could decide); the trainer apart,
without averages; the average apart, of one trajectory. Fewer than four seeds are never a verdict.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtr

from ..report.intervals import VERDICT_FROM, t_interval
from ..report.tables import method_label, verdict_counts
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


# A comparison: the first method minus the second, on the source set, over base and novel classes unless the quantity
# says otherwise; of times the logarithm of the first over the second, all methods in turns in one process
COMPARED = ("first", "second", "quantity", "expected")  # expected: above, below, not below; of times less or no more


def _against(others: Sequence[str], quantity: str, expected: str = "above", *, method: str = "open_mede"):
    return tuple((method, other, quantity, expected) for other in others)


_REGULARIZED = ("open_vclip", "froster")
_FULL = {"novel": "recognizes novel classes best", "hm": "balances base and novel classes best",
         "cross": "transfers best to other sets", "out": "does best out of context"}  # fmt: skip
_META = "open_mede_no_gwa"
CLAIMS: dict[str, tuple[tuple[str, str, str, str], ...]] = {  # with the comparisons that would support them
    **{f"Open-MeDe {says}": _against(("frozen", "finetune", *_REGULARIZED), quantity)
       for quantity, says in _FULL.items()},
    **{f"Open-MeDe {says}: also against as many clips an update, averaged alike, without an inner step":
           _against(("joint, GWA",), quantity) for quantity, says in _FULL.items()},
    "Trainer: meta-optimization alone is no worse out of context than frozen CLIP":
        _against(("frozen",), "out", "not below", method=_META),
    "Trainer: meta-optimization alone does better out of context than fine-tuning":
        _against(("finetune",), "out", method=_META),
    "Trainer: meta-optimization alone does better out of context than as many clips without an inner step":
        _against(("joint",), "out", method=_META),
    "Average: GWA adds to accuracy in context": _against((_META,), "in"),
    "Average: GWA adds to accuracy out of context": _against((_META,), "out"),
    # Not against fine-tuning: regularization is tested averaged, fine-tuning is not, so that two things would differ
    "Regularization towards CLIP, averaged, raises accuracy in context, against frozen CLIP":
        tuple((method, "frozen", "in", "above") for method in _REGULARIZED),
    "Regularization towards CLIP, averaged, lowers accuracy out of context, against frozen CLIP":
        tuple((method, "frozen", "out", "below") for method in _REGULARIZED),
    "The gain over regularization is largest on the temporal set": _against(_REGULARIZED, "temporal"),
    "No additional overhead: training takes no longer than fine-tuning": _against(("finetune",), "time", "no more"),
    "Less overhead than regularization": _against(_REGULARIZED, "time", "less"),
}  # fmt: skip


# ------------------------------------------------------------------------------------ what was measured
def claim_records() -> list[dict]:
    """The committed records that claims are judged by: the section ``main``, and ``joint`` of the controls."""
    controls = study_records("meta", by="variant")
    return [*study_records("main"), *(r for r in controls if r["method"] == "joint")]


def measured(records: Sequence[Mapping], times: Sequence[Mapping] = ()) -> pd.DataFrame:
    """A row a comparison of each claim, with its :func:`t_test` over the seeds that both methods have."""
    found = {name: own.unstack("method") for name, own in per_seed(records).set_index(["seed", "method"]).items()}
    if times:
        seconds = pd.DataFrame([r for r in times if r["metric"] == "step_seconds"])
        found["time"] = np.log(seconds.pivot(index="seed", columns="average", values="value"))
    rows = []
    for claim, comparison in ((claim, one) for claim, comparisons in CLAIMS.items() for one in comparisons):
        first, second, quantity, expected = comparison
        own = found.get(quantity, pd.DataFrame())
        values = own[first] - own[second] if {first, second} <= {*own} else pd.Series(dtype=float)
        rows.append({"claim": claim, **dict(zip(COMPARED, comparison)), **t_test(values.dropna(), expected)})
    return pd.DataFrame(rows)


def t_test(values: Sequence[float], expected: str) -> dict:
    """Mean and t-interval of per-seed differences, the two-sided p-value of their limit, and on which side they lie."""
    if not len(values):
        return {**dict.fromkeys(("value", "low", "high", "p"), np.nan), "seeds": 0, "agrees": False}
    limit = {"not below": -MARGIN, "no more": np.log(TIME_MARGIN)}.get(expected, 0.0)
    value, low, high = t_interval(values)
    distance, p = value - limit, 1.0
    if len(values) > 1 and distance:
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        p = float(2 * stdtr(len(values) - 1, -abs(distance) / error)) if error else 0.0
    agrees = (distance > 0) == (expected in ("above", "not below"))
    return {"value": value, "low": low, "high": high, "p": p, "seeds": len(values), "agrees": agrees}


# ------------------------------------------------------------------------------------ verdicts
def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p-values: read at a level, the chance of any false verdict among all of them stays below it."""
    order = np.argsort(p_values)
    stepped = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    return np.minimum(1, np.maximum.accumulate(stepped))[np.argsort(order)]


def verdicts(frame: pd.DataFrame) -> dict[str, str]:
    """The verdict of each claim of :func:`measured`, by Holm's correction over all. For the paper it speaks where all
    its comparisons agree: the largest p. Against it where one does not: the smallest of those, times their number."""
    said, judged = {}, {}
    for claim, own in frame.groupby("claim", sort=False):
        against = own.loc[~own["agrees"], "p"]
        if own["seeds"].min() < VERDICT_FROM:
            said[claim] = HINT if own["seeds"].min() else NOT_RUN
        else:
            p = min(1.0, against.min() * len(own)) if len(against) else own["p"].max()
            judged[claim] = CONTRADICTED if len(against) else SUPPORTED, p
    adjusted = holm([p for _, p in judged.values()])
    return said | {claim: judged[claim][0] if p <= ALPHA else UNDECIDED for claim, p in zip(judged, adjusted)}


def claims_table(records: Sequence[Mapping], times: Sequence[Mapping]) -> pd.DataFrame:
    """Every claim with its verdict and its comparisons, a row each, from :func:`claim_records` and section ``cost``."""
    frame = measured(records, times)
    rows, first = frame.to_dict("records"), ~frame["claim"].duplicated()
    told = pd.DataFrame([_told(row) for row in rows], columns=["Would be supported by", "Measured", "p"])
    heads = {"Claim": frame["claim"], "Verdict": frame["claim"].map(verdicts(frame))}
    return pd.DataFrame({title: column.where(first, "") for title, column in heads.items()}).join(told)


def claims_summary(table: pd.DataFrame) -> str:
    heads = table[table["Claim"] != ""].rename(columns={"Claim": "label", "Verdict": "verdict"})
    return f"of {len(heads)} claims {verdict_counts(heads)}."


def claims_frame(records: Sequence[Mapping]) -> pd.DataFrame:
    """The claims' comparisons in and out of context, in points, as ``figures.difference_forest`` takes them."""
    frame = measured(records).query("quantity in ('in', 'out') and seeds > 0")
    frame = frame.assign(label=frame["first"].map(method_label) + " − " + frame["second"].map(method_label))
    shown = frame[["label", "quantity", "value", "low", "high", "seeds"]]
    return shown.drop_duplicates(["label", "quantity"]).reset_index(drop=True)


def _told(row: Mapping) -> tuple[str, str, str]:
    """What would support a comparison, what was measured, and its p-value."""
    first, second, timed = method_label(row["first"]), method_label(row["second"]), row["quantity"] == "time"
    sign = {"above": "> 0", "below": "< 0", "not below": f"> −{MARGIN:g}"}.get(row["expected"])
    needed = f"{first} − {second}, {QUANTITIES[row['quantity']]} {sign}"
    if timed:
        needed = f"time of {first} / {second} below {1 if row['expected'] == 'less' else TIME_MARGIN}"
    if not row["seeds"]:
        return needed, NOT_RUN, MISSING
    ends = [f"{np.exp(row[x]):.2f}" if timed else format_signed(row[x]) for x in ("value", "low", "high")]
    p = f"{row['p']:.1g}" if row["p"] >= 1e-4 else "< 0.0001"
    count = f"{row['seeds']} {'repetitions' if timed else 'seeds'}"
    return needed, "{} [{} to {}], {}".format(*ends, count), p if row["seeds"] > 1 else MISSING
