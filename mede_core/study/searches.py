"""How the study's settings were chosen, on base classes of the design seed: regime and trials. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..report.tables import method_label
from ..report.write import format_signed
from .answers import per_seed
from .units import BUDGET, DRAWS, OWN, PLATEAU, RATES, STEPS, trial_name

SCORES = {"in": "In context", "out": "Out of context", "hm_out": "HM"}


def on_draws(records: Iterable[Mapping]) -> list[dict]:
    """Records of the draws of base clips that are not reported, as if of reported ones: their mean is formed."""
    return [{**record, "part": 1} for record in records if record["part"] in DRAWS]


def reached(records: Iterable[Mapping]) -> pd.DataFrame:
    """In, out of context and their harmonic mean of each variant, in percent."""
    return per_seed(records).set_index("method")[[*SCORES]]


# ------------------------------------------------------------------------------------ the regime
def doubled(records: Iterable[Mapping]) -> pd.DataFrame:
    """What twice the steps add, in points: plain and meta, in and out of context."""
    found = reached(on_draws(records))[["in", "out"]]
    few, many = STEPS
    return pd.DataFrame({trainer: found.loc[f"{trainer}, {many} steps"] - found.loc[f"{trainer}, {few} steps"]
                         for trainer in ("plain", "meta")}).T  # fmt: skip


def steps_chosen(records: Iterable[Mapping]) -> int:
    return STEPS[int((doubled(records).abs() >= PLATEAU).any(axis=None))]


def regime_sentence(records: Sequence[Mapping]) -> str:
    """How many steps an epoch has, and by how much twice as many as the fewest change accuracy."""
    changes = [f"{trainer} by {format_signed(row['in'])} points in and {format_signed(row['out'])} out of context"
               for trainer, row in doubled(records).iterrows()]  # fmt: skip
    chosen = steps_chosen(records)
    return f"Here: {STEPS[1]} instead of {STEPS[0]} steps an epoch change {'; '.join(changes)}: {chosen} are taken."


# ------------------------------------------------------------------------------------ the trials
def search(trainer: str, scores: Mapping[str, float]) -> list[dict]:
    """The long trials of a trainer as the rule gives them, as far as the scores of those before are known."""
    found = [*RATES]
    while len(found) < BUDGET and all(trial_name(trainer, one) in scores for one in found):
        rates = {one["outer_lr"]: scores[trial_name(trainer, one)] for one in found if len(one) == 1}
        best = max(rates, key=rates.get)
        edges = {max(rates): best * 2, min(rates): best / 2}  # a rate is still to be tried beyond these
        own = [{}] if best in edges else OWN[trainer][: BUDGET - len(found)]
        found += [{"outer_lr": edges.get(best, best), **one} for one in own]
    return found


def trials(records: Iterable[Mapping], plan: Mapping[str, Sequence[Mapping]], budget: int) -> pd.DataFrame:
    """Trials of a plan (recipe -> settings) that were run, in its order, with their accuracies; of each recipe that
    has all of its budget, the one with the best harmonic mean of in and out of context is ``chosen``, of equals the
    first; ``edge``: its learning rate is the smallest or largest of those that the recipe tried."""
    rows = [(name, changes, trial_name(name, changes)) for name, own in plan.items() for changes in own]
    frame = pd.DataFrame(rows, columns=["recipe", "changes", "trial"])
    frame["rate"] = frame["changes"].str["outer_lr"]
    frame = frame.join(reached(records), on="trial", how="inner")
    by_recipe = frame.groupby("recipe")
    whole = by_recipe["trial"].transform("size") == budget
    edge = (frame["rate"] == by_recipe["rate"].transform("min")) | (frame["rate"] == by_recipe["rate"].transform("max"))
    return frame.assign(chosen=frame.index.isin(by_recipe["hm_out"].idxmax()) & whole, edge=edge)


def trial_table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`trials` as a reader sees them: Recipe, Trial, In context, Out of context, HM, Chosen."""
    return pd.DataFrame({
        "Recipe": found["recipe"].map(method_label),
        "Trial": [trial.removeprefix(recipe).strip() for trial, recipe in zip(found["trial"], found["recipe"])],
        **{title: found[column].map("{:.1f}".format) for column, title in SCORES.items()},
        "Chosen": np.where(found["chosen"], "yes", ""),
    }).reset_index(drop=True)  # fmt: skip


def edge_sentence(found: pd.DataFrame) -> str:
    """Which recipes chose a learning rate at an edge of what was tried, where their score may still climb."""
    chosen = found[found["chosen"]]
    named = [f"{method_label(row.recipe)} {row.rate:g}" for row in chosen[chosen["edge"]].itertuples()]
    told = f"Here: {len(named)} of {len(chosen)} recipes chose a rate at the edge of what was tried"
    told += f" ({', '.join(named)}): one beyond it may suit them better." if named else "."
    left = found["recipe"].nunique() - len(chosen)
    return told + (f" {left} more have trials left, and have not chosen." if left else "")
