"""Averages of one trajectory side by side, as tables and as what heat maps take. Torch-free at import."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..averages import RULE_LABELS, effective_epochs, epoch_shares, rules
from ..config import Average, Config
from .intervals import Interval, paired_difference
from .metrics import harmonic_mean, unpack_correct
from .write import MISSING, format_mean_std


def scores_of_average(records: Sequence[Mapping], average: str) -> dict[str, np.ndarray]:
    """{"in": [N], "out": [M]}, as far as there are records: each test clip's score (0 to 1) under an average."""
    found: dict[str, list] = {}
    for row in sorted((r for r in records if r["average"] == average), key=lambda r: r["context"]):
        bits = unpack_correct(row["correct"], row["n"]).astype(float)
        found.setdefault("in" if row["context"] == "in" else "out", []).append(bits)
    return {  # the mean over backgrounds clip by clip, unless their numbers of clips differ
        where: np.mean(parts, axis=0) if len({len(part) for part in parts}) == 1 else np.concatenate(parts)
        for where, parts in found.items()
    }


def gain(records: Sequence[Mapping], first: str, second: str) -> dict[str, Interval]:
    """What one average gains over another, in points, in context and outside, with paired intervals over clips."""
    a, b = scores_of_average(records, first), scores_of_average(records, second)
    return {where: paired_difference(a[where], b[where]) for where in a if where in b}


def rules_table(records: Sequence[Mapping], config: Config) -> pd.DataFrame:
    """The averages of ``averages.rules`` as text, with the gains over the last epoch in points."""
    rows = []
    for average in rules(config):
        shares, scores = epoch_shares(average, config.epochs), scores_of_average(records, average.name)
        numbers = {where: 100 * scores[where].mean() if where in scores else math.nan for where in ("in", "out")}
        numbers["hm"] = harmonic_mean(*numbers.values()) if len(scores) == 2 else math.nan
        told = {where: format_mean_std(value) for where, value in numbers.items()}
        gains = gain(records, average.name, "last") if average.name != "last" else {}
        gained = [gains[where].signed() if where in gains else MISSING for where in ("in", "out")]
        about = (RULE_LABELS[average.name], f"{100 * shares[0]:.1f} %", f"{effective_epochs(shares):.1f}")
        rows.append((*about, *told.values(), *gained))
    titles = ("Average", "Epoch 0 counts", "Effective epochs", "In context", "Out of context", "HM")
    return pd.DataFrame(rows, columns=[*titles, "Gain in context", "Gain out of context"])


def schedule_table() -> pd.DataFrame:
    """The Gaussian of the authors' earlier public scripts, read in the three ways that the texts leave open."""
    rows, published = [], {"rule": "gwa", "mu": 15.0, "sigma": 10.0}
    for name, changes in {
        "epochs 1 to 22 (the paper: CLIP's weights excluded)": {},
        "epochs 2 to 22 (default of the authors' script)": {"start": 2},
        "epochs 0 to 22 (their file name gwa_0_22)": {"with_zero": True},
    }.items():
        shares = epoch_shares(Average(**published, **changes), 22)
        used = shares[shares > 0]
        percent = (f"{100 * share:.1f} %" for share in (used.min(), used.max(), 1 / len(used), shares[0]))
        rows.append((name, len(used), f"{effective_epochs(shares):.1f}", *percent))
    titles = ("Average over", "Epochs", "Effective epochs", "Lightest epoch", "Heaviest epoch", "Equal shares")
    return pd.DataFrame(rows, columns=[*titles, "Epoch 0 counts"])


Grid = tuple[np.ndarray, np.ndarray, np.ndarray]  # mu [M], sigma [S] and percent [S, M], as the heat map takes it


def grid_values(records: Sequence[Mapping], where: str, prefix: str = "grid:") -> Grid:
    """A grid of Gaussians (``averages.grid``), "in" or "out" of context."""
    names = {r["average"]: (r["mu"], r["sigma"]) for r in records if r["average"].startswith(prefix)}
    rows = [(*at, 100 * scores_of_average(records, name)[where].mean()) for name, at in names.items()]
    return as_grid(pd.DataFrame(rows, columns=["mu", "sigma", "value"]), "value")


def as_grid(frame: pd.DataFrame, value: str) -> Grid:
    """A column of a frame by its mu and sigma: the mean of each place."""
    table = frame.pivot_table(value, "sigma", "mu")
    return table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()


def grid_facts(records: Sequence[Mapping], where: str) -> dict[str, float]:
    """{label: percent} of the named rules, for the line above a heat map; those with epoch 0 are left out."""
    labels = {name: label for name, label in RULE_LABELS.items() if not name.endswith("+0")}
    return {label: 100 * scores_of_average(records, name)[where].mean() for name, label in labels.items()}


# ------------------------------------------------------------------------------------ along the trajectory
def resolution(clips: int) -> float:
    """What an accuracy over so many clips can tell apart, in points: half of the binomial 95 % interval at 50 %."""
    return 100 * 1.96 * (0.25 / clips) ** 0.5


def along_trajectory(records: Sequence[Mapping], *, split: str = "base") -> tuple[list[int], dict, dict]:
    """Accuracy in and out of context (mean over the swapped backgrounds) of every epoch (``epoch 0`` ...) and of other
    averages, as ``trajectory_accuracy`` takes them."""
    own = pd.DataFrame([row for row in records if row["split"] == split])
    where = own["context"].where(own["context"] == "in", "out")
    means = own.groupby(["average", where], sort=False)["value"].mean().unstack().to_dict("index")
    epochs = sorted(int(name.removeprefix("epoch ")) for name in means if name.startswith("epoch "))
    accuracy = {name: [means[f"epoch {epoch}"][name] for epoch in epochs] for name in ("in", "out")}
    return epochs, accuracy, {name.upper(): mean for name, mean in means.items() if not name.startswith("epoch ")}


def against_last(records: Sequence[Mapping]) -> list[dict]:
    """What each average gains over the last epoch of its own training: rule, split, points ``in`` and ``out``."""
    rows = []
    for split in dict.fromkeys(row["split"] for row in records):
        _, accuracy, averages = along_trajectory(records, split=split)
        for rule, scores in averages.items():
            gains = {name: scores[name] - accuracy[name][-1] for name in ("in", "out")}
            rows.append({"rule": rule, "split": split, **gains})
    return rows
