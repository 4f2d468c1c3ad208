"""The study's answers about parts of the training: meta-step, averages, how to choose one. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..averages import RULE_LABELS, best_gaussian
from ..report.averaging import as_grid
from ..report.metrics import mean_std
from ..report.tables import differences
from ..report.write import MISSING, format_signed
from .answers import per_seed, spread_table
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
REACHED = {"in": "In context", "out": "Out of context", "novel_out": "Novel, out of context"}


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
    keys = ["method", "epoch", "alpha", "kind", "value"]
    own = (r for r in records if r["metric"].startswith("change_"))
    rows = [(r["method"], r["part"], float(r["average"]), r["metric"].removeprefix("change_"), r["value"]) for r in own]
    return pd.DataFrame(rows, columns=keys).groupby(keys[:-1], sort=False, as_index=False)["value"].mean()


def prediction_lines(records: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`predictions` as ``figures.epoch_lines`` takes it, a panel for each alpha; without the joint control."""
    frame = predictions(r for r in records if r["method"] != "joint").sort_values("kind", kind="stable")
    frame["series"], frame["panel"] = frame["kind"] + ", " + frame["method"], frame["alpha"].map("α = {:g}".format)
    return frame[["series", "panel", "epoch", "value"]].reset_index(drop=True)


def prediction_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`predictions` at the last epoch: Training, alpha, Measured, Predicted, in nats."""
    frame = predictions(records)
    last = frame[frame["epoch"] == frame.groupby("method")["epoch"].transform("max")]
    wide = last.pivot_table("value", ["method", "alpha"], "kind", sort=False).reset_index()
    return pd.DataFrame({
        "Training": wide["method"], "α": [f"{alpha:g}" for alpha in wide["alpha"]],
        "Measured": [format_signed(value, 4) for value in wide["measured"]],
        "Predicted, first order": [format_signed(value, 4) for value in wide["predicted"]],
    })  # fmt: skip


def gradient_products(records: Iterable[Mapping]) -> pd.DataFrame:
    """The product of support and query gradient, both at the same weights, along each training; mean over seeds."""
    frame = predictions(records)  # whose first-order part is -alpha times that product
    frame = frame[(frame["kind"] == "predicted") & (frame["alpha"] == frame["alpha"].max())]
    return frame.assign(series=frame["method"], value=-frame["value"] / frame["alpha"])[["series", "epoch", "value"]]


def expansion_fails(records: Iterable[Mapping], alpha: float) -> str:
    """In which epochs of each training the inner step does the opposite of what its first-order term predicts."""
    frame = predictions(records)
    wide = frame[frame["alpha"] == alpha].pivot_table("value", ["method", "epoch"], "kind", sort=False)
    parts = []
    for method, own in wide.groupby("method", sort=False):
        epochs = own.index.get_level_values("epoch")[(own["measured"] * own["predicted"] < 0).to_numpy()]
        parts.append(f"{method}: {', '.join(map(str, epochs)) or 'none'}")
    return f"epochs in which measured and predicted change differ in sign at α = {alpha:g}: {'; '.join(parts)}."


# ------------------------------------------------------------------------------------ averages of a trajectory
def rule_table(records: Sequence[Mapping]) -> pd.DataFrame:
    frame = per_seed((r for r in records if r.get("correct")), "average")
    return spread_table(frame, "average", REACHED, head="Average", label=RULE_LABELS.get)


def rule_differences(records: Sequence[Mapping]) -> pd.DataFrame:
    """Each averaging rule against the last epoch, paired over seeds and clips, under the names that a reader sees."""
    own = [{**r, "method": RULE_LABELS[r["average"]]} for r in records if r.get("correct") and r["average"]]
    second = RULE_LABELS["last"]
    names = [name for name in dict.fromkeys(r["method"] for r in own) if name != second]
    return differences(own, [(name, second) for name in names])


def grid_means(records: Iterable[Mapping], where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid of Gaussians, mean over seeds: mu ratios [M], sigma ratios [S], percent [S, M]; in, out or novel_out."""
    frame = per_seed(records, "average")
    frame = frame[frame["average"].str.startswith("grid:")]
    at = frame["average"].str.split(":", expand=True)
    return as_grid(frame.assign(mu=at[1].astype(float), sigma=at[2].astype(float)), where)


# ------------------------------------------------------------------------------------ choosing mu and sigma
CRITERIA = {"leave classes out": ("pseudo_novel", False), "order": ("base", True)}  # classes; minus shuffled frames?
PUBLISHED_RATIOS = (0.68, 0.45)


def criterion_means(records: Sequence[Mapping], criterion: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What one of ``CRITERIA`` says of each Gaussian, mean over seeds: as :func:`grid_means`, in percent or points."""
    return as_grid(_criterion(records, criterion), "score")


def _criterion(records: Iterable[Mapping], criterion: str) -> pd.DataFrame:
    split, order = CRITERIA[criterion]
    sign = {"top1": 1, "shuffled": -1 if order else 0}
    own = (r for r in _on_validation(records, split) if r["average"].startswith("grid:"))
    rows = [(r["seed"], *_ratios(r["average"]), sign[r["metric"]] * r["value"]) for r in own]
    frame = pd.DataFrame(rows, columns=["seed", "mu", "sigma", "score"])
    return frame.groupby(["seed", "mu", "sigma"], sort=False, as_index=False)["score"].sum()


def _on_validation(records: Iterable[Mapping], split: str) -> list[Mapping]:
    return [r for r in records if r["part"] == VALIDATION and r["split"].startswith(split)]


def _ratios(name: str) -> tuple[float, float]:
    _, mu, sigma = name.split(":")
    return float(mu), float(sigma)


def selections(records: Sequence[Mapping]) -> pd.DataFrame:
    """What each way to choose mu and sigma reaches on the reported clips, seed by seed.

    ``fixed`` keeps the published ratios; ``leave classes out`` takes the best on classes that a run of its own left
    out; ``order`` the largest loss under shuffled frames on base classes; ``best epoch on base`` one epoch, the best
    on base classes; ``oracle`` looks at the reported clips out of context.
    """
    accuracy = per_seed(records, "average").set_index(["average", "seed"])[[*REACHED]]
    criteria, rows = {name: _criterion(records, name).groupby("seed") for name in CRITERIA}, []
    for seed in sorted({r["seed"] for r in records}):
        own = accuracy.xs(seed, level="seed")
        grid = {_ratios(name): row for name, row in own.iterrows() if name.startswith("grid:")}
        chosen = {"fixed": PUBLISHED_RATIOS}
        for name, by_seed in criteria.items():
            if seed in by_seed.groups:  # in ratios: a trajectory of length one
                scores = by_seed.get_group(seed).set_index(["mu", "sigma"])["score"]
                chosen[name] = best_gaussian(scores.to_dict(), 1)
        chosen["oracle"] = max(grid, key=lambda at: grid[at]["out"])
        rows += [{"criterion": c, "seed": seed, "mu": at[0], "sigma": at[1], **grid[at]} for c, at in chosen.items()]
        base = (r for r in _on_validation(records, "base") if r["seed"] == seed)
        on_base = {r["average"]: r["value"] for r in base if r["average"].startswith("epoch ")}
        last = max(on_base, key=lambda name: int(name.split()[1]))
        none = {"seed": seed, "mu": np.nan, "sigma": np.nan}
        rows.append({"criterion": "best epoch on base", **none, **own.loc[max(on_base, key=on_base.get)]})
        rows.append({"criterion": "last epoch", **none, **own.loc[last]})
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
