"""The study's questions 5 and 6, answered from result records: averages of a trajectory, and how to choose one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..averages import LABELS
from ..report.metrics import mean_std
from ..report.write import MISSING, format_mean_std, format_signed
from ..selection import best_gaussian
from .analysis import paired

CRITERIA = {"leave classes out": ("pseudo_novel", False), "order": ("base", True)}  # classes; minus shuffled frames?
COLUMNS = {"in": "In context", "out": "Out of context", "novel_out": "Novel, out of context"}


def averaged_accuracy(records: Iterable[Mapping]) -> pd.DataFrame:
    """Accuracy of each average, over halves and backgrounds: columns average, seed, in, out, novel_out in percent."""
    rows = [
        {key: r[key] for key in ("average", "seed", "split", "context", "value")}
        for r in records
        if r["average"] and r["metric"] == "top1" and r["set"] == "source" and r["part"] == 1
    ]
    frame = pd.DataFrame(rows, columns=["average", "seed", "split", "context", "value"])
    inside, novel = frame["context"] == "in", frame["split"] == "novel"
    keys = ["average", "seed"]
    parts = {"in": frame[inside], "out": frame[~inside], "novel_out": frame[~inside & novel]}
    joined = {name: part.groupby(keys, sort=False)["value"].mean() for name, part in parts.items()}
    return pd.DataFrame(joined).reset_index()


def average_label(name: str) -> str:
    """What a reader sees for an average's name: "gwa+0" is GWA with epoch 0 included."""
    rule, _, zero = name.partition("+")
    return LABELS.get(rule, rule) + (", epoch 0 included" if zero else "")


def rule_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The averaging rules as a reader sees them: mean and standard deviation (ddof=1) over seeds."""
    own = [r for r in records if r.get("correct")]
    frame, rows = averaged_accuracy(own), []
    for name in frame["average"].unique():
        row = {"Average": average_label(name)}
        for column, title in COLUMNS.items():
            mean = mean_std(list(frame[frame["average"] == name][column]))
            row[title] = format_mean_std(mean.mean, mean.std)
        rows.append({**row, "Seeds": mean.n})
    return pd.DataFrame(rows)


def rule_differences(records: Sequence[Mapping], reference: str = "last") -> pd.DataFrame:
    """Each averaging rule against another one, paired over seeds and clips, under the names that a reader sees."""
    own = [{**r, "method": average_label(r["average"])} for r in records if r.get("correct") and r["average"]]
    second = average_label(reference)
    names = [name for name in dict.fromkeys(r["method"] for r in own) if name != second]
    return paired(own, [(name, second) for name in names])


def grid_means(records: Iterable[Mapping], where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid of Gaussians, mean over seeds, as ``figures.gwa_heatmap`` takes it.

    Args:
        records: of the section ``gwa``.
        where: in, out or novel_out.

    Returns:
        (mu ratios [M], sigma ratios [S], percent [S, M]).
    """
    frame = averaged_accuracy(records)
    frame = frame[frame["average"].str.startswith("grid:")]
    at = frame["average"].str.split(":", expand=True)
    table = frame.assign(mu=at[1].astype(float), sigma=at[2].astype(float)).pivot_table(where, "sigma", "mu")
    return table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()


def _criterion(records: Sequence[Mapping], seed: int, *, split: str, order: bool) -> dict[tuple[float, float], float]:
    scores: dict[tuple[float, float], float] = {}
    for r in records:
        if r["seed"] == seed and r["part"] == 2 and r["split"].startswith(split) and r["average"].startswith("grid:"):
            at = tuple(float(x) for x in r["average"].split(":")[1:])
            if r["metric"] == "top1":
                scores[at] = scores.get(at, 0.0) + r["value"]
            elif order and r["metric"] == "shuffled":
                scores[at] = scores.get(at, 0.0) - r["value"]
    return scores


def criterion_means(records: Sequence[Mapping], criterion: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a criterion says of each Gaussian, mean over seeds, as ``figures.gwa_heatmap`` takes it.

    Args:
        records: of the section ``gwa``.
        criterion: one of ``CRITERIA``.

    Returns:
        (mu ratios [M], sigma ratios [S], score in percent or points [S, M]).
    """
    split, order = CRITERIA[criterion]
    rows = [
        {"mu": mu, "sigma": sigma, "score": score}
        for seed in sorted({r["seed"] for r in records})
        for (mu, sigma), score in _criterion(records, seed, split=split, order=order).items()
    ]
    table = pd.DataFrame(rows).pivot_table("score", "sigma", "mu")
    return table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()


def selections(records: Sequence[Mapping]) -> pd.DataFrame:
    """What each way to choose mu and sigma reaches on the reported clips, seed by seed.

    ``fixed`` keeps the published ratios; ``leave classes out`` takes the best on classes that a run of its own left
    out; ``order`` the largest loss under shuffled frames on base classes; ``best epoch on base`` one epoch, the best
    on base classes; ``oracle`` looks at the reported clips out of context.

    Args:
        records: of the section ``gwa``.

    Returns:
        Columns criterion, seed, mu, sigma (ratios, NaN for single epochs), in, out, novel_out.
    """
    accuracy = averaged_accuracy(records).set_index(["average", "seed"])
    rows = []
    for seed in sorted({r["seed"] for r in records}):
        own = accuracy.xs(seed, level="seed")
        grid = {tuple(float(x) for x in name.split(":")[1:]): row for name, row in own.iterrows() if "grid:" in name}
        chosen: dict[str, tuple[float, float]] = {"fixed": (0.68, 0.45)}
        for name, (split, order) in CRITERIA.items():
            if scores := _criterion(records, seed, split=split, order=order):
                chosen[name] = best_gaussian(scores, 1)  # in ratios: a trajectory of length one
        chosen["oracle"] = max(grid, key=lambda at: grid[at]["out"])
        rows += [{"criterion": c, "seed": seed, "mu": at[0], "sigma": at[1], **grid[at]} for c, at in chosen.items()]
        on_base = {
            r["average"]: r["value"]
            for r in records
            if r["seed"] == seed and r["part"] == 2 and r["split"] == "base" and r["average"].startswith("epoch ")
        }
        singles = {"best epoch on base": max(on_base, key=on_base.get), "last epoch": max(on_base, key=_epoch)}
        none = {"seed": seed, "mu": np.nan, "sigma": np.nan}
        rows += [{"criterion": criterion, **none, **own.loc[name]} for criterion, name in singles.items()]
    return pd.DataFrame(rows)


def _epoch(name: str) -> int:
    return int(name.split()[1])


def selection_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`selections` as a reader sees them, with the gain over the fixed choice, seed by seed."""
    fixed = frame[frame["criterion"] == "fixed"].set_index("seed")["out"]
    rows = []
    for criterion, own in frame.groupby("criterion", sort=False):
        gain = mean_std(list(own.set_index("seed")["out"] - fixed))
        chosen = sorted({f"{mu:g}, {sigma:g}" for mu, sigma in zip(own["mu"], own["sigma"]) if mu == mu})
        row = {"Criterion": criterion, "Chosen μ/E, σ/E": "; ".join(chosen) or MISSING}
        for column, title in COLUMNS.items():
            mean = mean_std(list(own[column]))
            row[title] = format_mean_std(mean.mean, mean.std)
        spread = f" ± {gain.std:.1f}" if gain.n > 1 else ""
        row |= {"Gain out of context": format_signed(gain.mean) + spread, "Seeds": gain.n}
        rows.append(row)
    return pd.DataFrame(rows)
