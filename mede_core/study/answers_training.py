"""The study's answers about parts of the training: meta-step, averages, how to choose one. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..averages import RULE_LABELS, best_gaussian
from ..report.averaging import Grid, as_grid
from ..report.metrics import mean_std
from ..report.tables import differences
from ..report.write import MISSING, format_signed
from .answers import REACHED, per_seed, spread_table
from .units import CONTROLS, FEW, VALIDATION

CONTROL_PAIRS = (  # each against what shares everything with it but the part in question
    ("meta-step", "fine-tuning"), ("joint", "fine-tuning"), ("meta-step", "joint"),
    ("meta-step", "fine-tuning, twice the epochs"), ("meta-step", "fine-tuning, batch 64"),
    ("same batch", "fine-tuning"), ("meta-step", "same batch"), ("disjoint classes", "disjoint classes, joint"),
    ("disjoint classes", "meta-step"), ("alpha 5", "joint"), ("alpha 50", "joint"), ("delta 0.25", "meta-step"),
    ("delta 4", "meta-step"), ("second order", "meta-step"), ("batch 16", "batch 16, joint"),
    ("fewer classes", "fewer classes, joint"), ("rho 0.95", "rho 0.95, joint"), ("long", "long, joint"),
    ("long, GWA", "long"), ("long, GWA", "fine-tuning, twice the epochs"),
)  # fmt: skip


# ------------------------------------------------------------------------------------ the meta-step
def control_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The variants of the meta-step with what they cost and reach: mean and standard deviation over seeds."""
    # Seeds that every variant is run on: those that single ones have beyond them count in paired differences alone
    frame = per_seed(record for record in records if record["seed"] in FEW)
    ran = {variant: how for variant, how in CONTROLS.items() if variant in set(frame["method"])}
    table = spread_table(frame, "method", {**REACHED, "gap": "Static gap"}, ran, head="Variant")
    passes = [1 if method == "finetune" else 2 for method, _ in ran.values()]
    clips = [count * changes.get("batch_size", 32) for count, (_, changes) in zip(passes, ran.values())]
    table.insert(1, "Clips an update", clips)
    table.insert(2, "Updates", [56 * changes.get("epochs", 8) for _, changes in ran.values()])
    return table


def predictions(records: Iterable[Mapping]) -> pd.DataFrame:
    """What an inner step does to the query loss in nats, mean over seeds: ``measured``, and to first order in alpha."""
    own = [(r["method"], r["part"], float(r["average"]), r["metric"].removeprefix("change_"), r["value"])
           for r in records if r["metric"].startswith("change_")]  # fmt: skip
    frame = pd.DataFrame(own, columns=["method", "epoch", "alpha", "kind", "value"])
    return frame.pivot_table("value", ["method", "epoch", "alpha"], "kind", sort=False).reset_index()


def prediction_lines(records: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`predictions` as ``figures.epoch_lines`` takes it, a panel for each alpha; without the joint control."""
    frame = predictions(r for r in records if r["method"] != "joint")
    frame = frame.melt(["method", "epoch", "alpha"], ["measured", "predicted"])
    frame["series"], frame["panel"] = frame["kind"] + ", " + frame["method"], frame["alpha"].map("α = {:g}".format)
    return frame[["series", "panel", "epoch", "value"]]


def prediction_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`predictions` at the last epoch: Training, alpha, Measured, Predicted, in nats."""
    frame = predictions(records)
    last = frame[frame["epoch"] == frame.groupby("method")["epoch"].transform("max")].reset_index()
    told = {title: last[kind].map(lambda value: format_signed(value, 4))
            for kind, title in (("measured", "Measured"), ("predicted", "Predicted, first order"))}  # fmt: skip
    return pd.DataFrame({"Training": last["method"], "α": last["alpha"].map("{:g}".format), **told})


def gradient_products(records: Iterable[Mapping]) -> pd.DataFrame:
    """The product of support and query gradient, both at the same weights, along each training; mean over seeds."""
    frame = predictions(records)  # whose first-order part is -alpha times that product
    frame = frame[frame["alpha"] == frame["alpha"].max()]
    values = -frame["predicted"] / frame["alpha"]
    return pd.DataFrame({"series": frame["method"], "epoch": frame["epoch"], "value": values})


def expansion_fails(records: Iterable[Mapping], alpha: float) -> str:
    """In which epochs of each training the inner step does the opposite of what its first-order term predicts."""
    parts = []
    for method, own in predictions(records).query("alpha == @alpha").groupby("method", sort=False):
        epochs = own["epoch"][own["measured"] * own["predicted"] < 0]
        parts.append(f"{method}: {', '.join(map(str, epochs)) or 'none'}")
    return f"epochs in which measured and predicted change differ in sign at α = {alpha:g}: {'; '.join(parts)}."


# ------------------------------------------------------------------------------------ averages of a trajectory
def rule_table(records: Sequence[Mapping]) -> pd.DataFrame:
    frame = per_seed((r for r in records if r["average"] in RULE_LABELS), "average")
    return spread_table(frame, "average", REACHED, head="Average", label=RULE_LABELS.get)


def rule_differences(records: Sequence[Mapping]) -> pd.DataFrame:
    """Each averaging rule against the last epoch, paired over seeds and clips, under the names that a reader sees."""
    own = [{**r, "method": RULE_LABELS[r["average"]]} for r in records if r["average"] in RULE_LABELS]
    second = RULE_LABELS["last"]
    names = [name for name in dict.fromkeys(r["method"] for r in own) if name != second]
    return differences(own, [(name, second) for name in names])


def grid_means(records: Iterable[Mapping], where: str) -> Grid:
    """The grid of Gaussians in ratios of the epochs, in percent, mean over seeds: in, out or novel_out."""
    return as_grid(_with_ratios(per_seed(records, "average")), where)


def _with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """With the columns mu and sigma: NaN where an average is none of the grid."""
    return frame.join(frame["average"].str.extract(r"^grid:(?P<mu>.+):(?P<sigma>.+)").astype(float))


# ------------------------------------------------------------------------------------ choosing mu and sigma
CRITERIA = {"leave classes out": ("pseudo_novel", False), "order": ("base", True)}  # classes; minus shuffled frames?
PUBLISHED_RATIOS = (0.68, 0.45)


def criterion_means(records: Sequence[Mapping], criterion: str) -> Grid:
    """What one of ``CRITERIA`` says of each Gaussian, mean over seeds: as :func:`grid_means`, in percent or points."""
    return as_grid(_criterion(records, criterion).reset_index(), "score")


def _criterion(records: Iterable[Mapping], criterion: str) -> pd.DataFrame:
    split, order = CRITERIA[criterion]
    frame = _with_ratios(_on_validation(records, split))
    sign = frame["metric"].map({"top1": 1, "shuffled": -1 if order else 0})
    return frame.assign(score=sign * frame["value"]).groupby(["seed", "mu", "sigma"], sort=False)["score"].sum()


def _on_validation(records: Iterable[Mapping], split: str) -> pd.DataFrame:
    own = [r for r in records if r["part"] == VALIDATION and r["split"].startswith(split)]
    return pd.DataFrame(own, columns=["seed", "average", "metric", "value"])


def selections(records: Sequence[Mapping]) -> pd.DataFrame:
    """What each way to choose mu and sigma (notebook 43 tells them) reaches on the reported clips, seed by seed."""
    accuracy, rows = _with_ratios(per_seed(records, "average")), []
    criteria, on_base = {name: _criterion(records, name) for name in CRITERIA}, _on_validation(records, "base")
    for seed, own in accuracy.groupby("seed"):
        grid = own.dropna(subset="mu").set_index(["mu", "sigma"])[[*REACHED]]
        chosen = {"fixed": PUBLISHED_RATIOS}
        known = {name: scores[seed].to_dict() for name, scores in criteria.items() if seed in scores.index}
        chosen |= {name: best_gaussian(scores, 1) for name, scores in known.items()}  # in ratios: of length one
        chosen["oracle"] = grid["out"].idxmax()
        ratios = ({"criterion": name, "seed": seed, "mu": mu, "sigma": sigma} for name, (mu, sigma) in chosen.items())
        rows += [{**one, **grid.loc[one["mu"], one["sigma"]]} for one in ratios]
        epochs = on_base[(on_base["seed"] == seed) & on_base["average"].str.startswith("epoch ")]
        epochs = epochs.set_index(epochs["average"].str.removeprefix("epoch ").astype(int))["value"]
        for name, epoch in (("best epoch on base", epochs.idxmax()), ("last epoch", epochs.index.max())):
            reached = own.set_index("average").loc[f"epoch {epoch}", [*REACHED]]
            rows.append({"criterion": name, "seed": seed, "mu": np.nan, "sigma": np.nan, **reached})
    return pd.DataFrame(rows)


def selection_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`selections` as a reader sees them, with the gain over the fixed choice, seed by seed."""
    fixed = frame[frame["criterion"] == "fixed"].set_index("seed")["out"]
    chosen, gains = [], []
    for _, own in frame.groupby("criterion", sort=False):
        gain, std = mean_std(own.set_index("seed")["out"] - fixed)
        gains.append(format_signed(gain) + ("" if std != std else f" ± {std:.1f}"))
        ratios = sorted({f"{mu:g}, {sigma:g}" for mu, sigma in zip(own["mu"], own["sigma"]) if mu == mu})
        chosen.append("; ".join(ratios) or MISSING)
    table = spread_table(frame, "criterion", REACHED, head="Criterion")
    table.insert(1, "Chosen μ/E, σ/E", chosen)
    table.insert(len(table.columns) - 1, "Gain out of context", gains)
    return table
