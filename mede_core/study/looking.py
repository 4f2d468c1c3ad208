"""The study's question 8, answered from result records: where a learner looks, and what it loses. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..report.layout import method_label
from ..report.metrics import mean_std
from ..report.write import MISSING, format_mean_std, format_signed

MEASURES = {  # of where a learner looks -> label; order gap and share of the actor are formed here
    "actor_mass": "attention on the actor (%)", "order_gap": "order gap (points)",
    "shuffled": "accuracy, shuffled (%)", "single_frame": "accuracy, one frame (%)",
}  # fmt: skip


def looks(records: Sequence[Mapping]) -> pd.DataFrame:
    """Static-bias measures of each learner beside what it loses out of context.

    Args:
        records: with the set ``look`` (measured in context) and the source set's accuracies.

    Returns:
        Columns method, seed, the keys of ``MEASURES``, accuracy, actor_area, drop (in minus out on the source set).
    """
    rows: dict[tuple, dict] = {}
    for r in records:
        key = r["method"], r["seed"]
        row = rows.setdefault(key, {"method": key[0], "seed": key[1], "_in": [], "_out": []})
        if r["set"] == "look" and r["context"] == "in":
            row[r["metric"]] = r["value"]
        elif r["set"] == "source" and r["metric"] == "top1" and not r.get("average"):
            row["_in" if r["context"] == "in" else "_out"].append(r["value"])
    found = []
    for row in rows.values():
        inside, outside = row.pop("_in"), row.pop("_out")
        if "accuracy" in row and inside and outside:
            gaps = {"order_gap": row["accuracy"] - row["shuffled"], "drop": np.mean(inside) - np.mean(outside)}
            found.append({**row, **gaps})
    return pd.DataFrame(found)


def correlations(frame: pd.DataFrame, resamples: int = 2000) -> pd.DataFrame:
    """Pearson correlation of each measure with the out-of-context drop over learners, with a bootstrap over seeds.

    Args:
        frame: of :func:`looks`.
        resamples: of the seeds.

    Returns:
        Columns measure, value, low, high (95 %; NaN with one seed), learners.
    """
    rng, seeds, rows = np.random.default_rng(0), sorted(frame["seed"].unique()), []
    by_seed = {seed: frame[frame["seed"] == seed] for seed in seeds}
    draws = [rng.choice(seeds, len(seeds)) for _ in range(resamples)] if len(seeds) > 1 else []
    for measure in MEASURES:
        pairs = [[np.concatenate([by_seed[s][name] for s in drawn]) for name in (measure, "drop")] for drawn in draws]
        values = [_pearson(*pair) for pair in pairs]
        low, high = np.nanquantile(values, (0.025, 0.975)) if values else (np.nan, np.nan)
        value = _pearson(frame[measure].to_numpy(float), frame["drop"].to_numpy(float))
        rows.append({"measure": measure, "value": value, "low": low, "high": high, "learners": len(frame)})
    return pd.DataFrame(rows)


def look_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`looks` as a reader sees them: mean and standard deviation (ddof=1) over seeds."""
    rows = []
    titles = {"accuracy": "Accuracy, in context", **MEASURES}
    titles |= {"actor_area": "actor's share of the area (%)", "drop": "lost out of context (points)"}
    for method in frame["method"].unique():
        own, row = frame[frame["method"] == method], {"Method": method_label(method)}
        for column, title in titles.items():
            mean = mean_std(list(own[column]))
            row[title[:1].upper() + title[1:]] = format_mean_std(mean.mean, mean.std)
        rows.append({**row, "Seeds": mean.n})
    return pd.DataFrame(rows)


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`correlations` as a reader sees them."""
    rows = []
    for row in frame.to_dict("records"):
        label = MEASURES[row["measure"]]
        known, value = row["low"] == row["low"], row["value"]
        text = {"Measure": label[:1].upper() + label[1:]}
        text["Correlation"] = format_signed(value, 2) if value == value else MISSING
        ends = f"{format_signed(row['low'], 2)} to {format_signed(row['high'], 2)}" if known else MISSING
        rows.append({**text, "95 % interval": ends, "Learners": row["learners"]})
    return pd.DataFrame(rows)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Not a number where one of the two is constant."""
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else np.nan
