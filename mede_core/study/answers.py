"""The study's answers about methods, worlds and encoders, read from result records. Torch-free.

Records are those of the committed study (``store.study_records``) or of a fresh run; nothing is measured here. What
single parts of the training do stands in ``answers_training.py``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..report.metrics import mean_std
from ..report.tables import (
    NOT_RUN,
    OUT_OF_CONTEXT,
    SPLITS,
    base_novel,
    column_label,
    dial,
    differences,
    in_and_out,
    method_label,
)
from ..report.write import MISSING, format_interval, format_mean_std, format_signed
from .units import FORM_RATES, FORMS, SEARCH, form_name, trial_name

ANSWER_PAIRS = (("open_mede", "finetune"), ("open_mede", "open_mede_no_gwa"), ("open_mede_no_gwa", "finetune"))
ANSWER_CONTROLS = (("meta-step", "joint"), ("long, GWA", "long"), ("long, GWA", "fine-tuning, twice the epochs"))


def answer(main: Sequence[Mapping], controls: Sequence[Mapping]) -> pd.DataFrame:
    """The study's question in six differences out of context, as :func:`paired` gives them.

    The method and its two parts; then, from the section ``meta`` by variant as far as it was run, the inner step alone
    and what averaging is worth after twice as many epochs.
    """
    frame = pd.concat([paired(main, ANSWER_PAIRS), paired(controls, ANSWER_CONTROLS)], ignore_index=True)
    return frame[frame["quantity"] == "out"].reset_index(drop=True)


def paired(records: Sequence[Mapping], pairs: Sequence[tuple[str, str]], **where) -> pd.DataFrame:
    """Rows of ``tables.differences`` for those pairs whose records are there, each on the seeds that both have."""
    seeds = {}
    for record in records:
        seeds.setdefault(record["method"], set()).add(record["seed"])
    frames = []
    for first, second in pairs:
        both = seeds.get(first, set()) & seeds.get(second, set())
        if both:
            own = [r for r in records if r["method"] in (first, second) and r["seed"] in both]
            frames.append(differences(own, [(first, second)], **where))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def paired_groups(groups: Mapping[str, Sequence[Mapping]], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """:func:`paired`, in and out of context, in several groups of records (name -> records), e.g. of several encoders.

    Rows of one pair stand together; ``label``, for ``figures.difference_forest``, is the first method and the group.
    """
    found = []
    for pair in pairs:
        for name, records in groups.items():
            own = paired(records, [pair])
            if len(own):
                own = own[own["quantity"].isin(["in", "out"])]
                found.append(own.assign(label=f"{method_label(pair[0])}, {name}"))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation (ddof=1) over seeds; missing where there are none."""
    return format_mean_std(*mean_std(list(values))[:2]) if len(values) else MISSING


def spreads(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """{(method, column): mean and standard deviation over seeds} of a frame of ``tables.py``."""
    return {(row.method, row.column): format_mean_std(row.value, row.std) for row in frame.itertuples()}


def spread_table(frame: pd.DataFrame, by: str, titles: Mapping[str, str]) -> pd.DataFrame:
    """Text: a row for each value of a column of a frame with a row a seed, its other columns under their titles."""
    rows = []
    for name, own in frame.groupby(by, sort=False):
        cells = {title: spread(own[column]) for column, title in titles.items()}
        rows.append({by: name, **cells, "Seeds": len(own)})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ the search
def _trials(records: Sequence[Mapping]) -> pd.DataFrame:
    """Trials that were run, in the order of the search, with their accuracy on base classes of the design seed."""
    frame = in_and_out(records, splits=("base",)).pivot(index="method", columns="column", values="value")
    rows = [
        {"method": method, "changes": changes, "trial": trial_name(method, changes)}
        for method, trials in SEARCH.items()
        for changes in trials
    ]
    return pd.DataFrame(rows).join(frame, on="trial", how="inner")


def chosen_trials(records: Sequence[Mapping]) -> dict[str, dict]:
    """The settings of each recipe's best trial by the harmonic mean of in and out of context; of equals the first."""
    found = {method: own for method, own in _trials(records).groupby("method") if len(own) == len(SEARCH[method])}
    return {method: found[method].loc[found[method]["hm"].idxmax(), "changes"] for method in SEARCH if method in found}


def search_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The trials as a reader sees them: Recipe, Trial, In context, Out of context, HM, Chosen."""
    rows, chosen = [], chosen_trials(records)
    for one in _trials(records).to_dict("records"):
        row = {"Recipe": method_label(one["method"]), "Trial": one["trial"].removeprefix(one["method"]).strip()}
        row |= {column_label(column): f"{one[column]:.1f}" for column in ("in", "out", "hm")}
        rows.append({**row, "Chosen": "yes" if one["changes"] == chosen.get(one["method"]) else ""})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ all methods
def accuracy_table(records: Sequence[Mapping], test_set: str = "source") -> pd.DataFrame:
    """Base, novel, HM; in and out of context, HM, static gap: mean and standard deviation (ddof=1) over seeds."""
    frame = base_novel(records, test_set)
    halves, contexts = spreads(frame), spreads(in_and_out(records, test_set))
    rows = []
    for method, seeds in dict(zip(frame["method"], frame["seeds"])).items():
        row = {"Method": method_label(method)}
        row |= {column_label(column): halves[method, column] for column in ("base", "novel")}
        row["HM of base, novel"] = halves[method, "hm"]
        row |= {column_label(column): contexts[method, column] for column in ("in", *OUT_OF_CONTEXT, "out")}
        row["HM of in, out"] = contexts[method, "hm"]
        rows.append({**row, column_label("gap"): contexts[method, "gap"], "Seeds": int(seeds)})
    return pd.DataFrame(rows)


def set_table(records: Sequence[Mapping], sets: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Accuracy on other sets (name -> contexts): mean over test splits, then mean and deviation over seeds."""
    rows = []
    frame = pd.DataFrame([{key: r[key] for key in ("method", "set", "context", "seed", "value")} for r in records])
    for method in dict.fromkeys(r["method"] for r in records):
        mine, row = frame[frame["method"] == method], {"Method": method_label(method)}
        for name, contexts in sets.items():
            for context in contexts:
                own = mine[(mine["set"] == name) & (mine["context"] == context)]
                row[column_label(f"{name}/{context}")] = spread(own.groupby("seed")["value"].mean())
        rows.append({**row, "Seeds": mine["seed"].nunique()})
    return pd.DataFrame(rows)


def dial_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The dial as a reader sees it: Method, Tested, and a column for each rho of the training clips."""
    frame = dial(records)
    rows = []
    for method in frame["method"].unique():
        for context in ("in", "out"):
            own = frame[(frame["method"] == method) & (frame["context"] == context)].sort_values("rho")
            cells = {f"ρ = {r['rho']:g}": format_interval(r["value"], r["low"], r["high"]) for _, r in own.iterrows()}
            rows.append({"Method": method_label(method), "Tested": column_label(context), **cells})
    return pd.DataFrame(rows).fillna(MISSING)


def forms_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Plain fine-tuning with each form of the adapter (variants of ``adapters``) at two learning rates, over seeds."""
    seeds = Counter(variant for variant, _ in {(r["method"], r["seed"]) for r in records})
    both, novel = (spreads(in_and_out(records, splits=splits)) for splits in (SPLITS, ("novel",)))
    rows = []
    for form, rate in itertools.product(FORMS, FORM_RATES):
        name = form_name(form, rate)
        rows.append({
            "Adapter": form, "β": f"{rate:g}", "In context": both.get((name, "in"), NOT_RUN),
            "Out of context": both.get((name, "out"), NOT_RUN),
            "Novel, out of context": novel.get((name, "out"), NOT_RUN), "Seeds": seeds[name],
        })  # fmt: skip
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ the checks
def floors_table(main: Sequence[Mapping], floors: Sequence[Mapping], dialed: Sequence[Mapping]) -> pd.DataFrame:
    """Checks that the finished results must pass: Check, Measured, Allowed, Holds ("not run" where records lack).

    ``floors`` and ``dialed`` (section ``dial``) are records by variant.
    """

    def values(records, **where):
        rows = [r for r in records if all(r[key] == value for key, value in where.items())]
        return {(r["method"], r["seed"]): r["value"] for r in rows}

    pairs = values(main, metric="both_of_a_pair")
    halves = values(main, set="reversal", metric="top1")
    swapped = {"set": "source", "split": "base", "context": "scene"}
    others = values(main, **swapped, metric="top1")
    best = {seed: max(v for (_, other), v in others.items() if other == seed) for _, seed in others}
    oracle = values(dialed, method="finetune rho=0.25", **swapped)
    leads = [value - best[seed] for (_, seed), value in oracle.items() if seed in best]
    learned = values(floors, set="train", metric="top1")
    guessed = values(floors, set="source", split="base", context="in")
    chance = 100 / 36  # of the base classes
    checks = (
        ("Frozen CLIP right on both of a clip and its reversal (percent of pairs)", [*pairs.values()], 0.0, 0.0),
        ("Frozen CLIP on clips and their reversals (percent)", [*halves.values()], 25.0, 50.0),
        ("Trained at chance minus the best method, base classes, swapped scenes (points)", leads, 0.0, 100.0),
        ("Shuffled labels: accuracy on the training clips as labeled (percent)", [*learned.values()], 95.0, 100.0),
        ("Shuffled labels: accuracy on new base clips (percent)", [*guessed.values()], 0.0, 2 * chance),
    )
    rows = []
    for name, found, low, high in checks:
        row = {"Check": name, "Measured": "not run", "Allowed": f"{low:.1f} to {high:.1f}", "Holds": "not run"}
        if found:
            row["Measured"] = f"{min(found):.1f} to {max(found):.1f}, {len(found)} seeds"
            row["Holds"] = "yes" if low <= min(found) and max(found) <= high else "NO"
        rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ where a learner looks
MEASURES = {  # of where a learner looks -> label; order gap and share of the actor are formed here
    "actor_mass": "attention on the actor (%)", "order_gap": "order gap (points)",
    "shuffled": "accuracy, shuffled (%)", "single_frame": "accuracy, one frame (%)",
}  # fmt: skip


def looks(records: Sequence[Mapping]) -> pd.DataFrame:
    """Measures of where each learner looks (set ``look``, in context) beside what it loses out of context.

    Columns method, seed, the keys of ``MEASURES``, accuracy, actor_area, drop (in minus out on the source set).
    """
    found = []
    for method, seed in dict.fromkeys((r["method"], r["seed"]) for r in records):
        own = [r for r in records if r["method"] == method and r["seed"] == seed]
        row = {r["metric"]: r["value"] for r in own if r["set"] == "look" and r["context"] == "in"}
        tested = [r for r in own if r["set"] == "source" and r["metric"] == "top1" and not r.get("average")]
        inside = [r["value"] for r in tested if r["context"] == "in"]
        outside = [r["value"] for r in tested if r["context"] != "in"]
        if row and inside and outside:
            gaps = {"order_gap": row["accuracy"] - row["shuffled"], "drop": np.mean(inside) - np.mean(outside)}
            found.append({"method": method, "seed": seed, **row, **gaps})
    return pd.DataFrame(found)


def correlations(frame: pd.DataFrame, resamples: int = 2000) -> pd.DataFrame:
    """Pearson correlation of each measure of :func:`looks` with the drop, over learners, with a bootstrap over seeds.

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
    titles = {"accuracy": "Accuracy, in context", **MEASURES}
    titles |= {"actor_area": "actor's share of the area (%)", "drop": "lost out of context (points)"}
    named = frame.assign(Method=frame["method"].map(method_label))
    return spread_table(named, "Method", {column: title[:1].upper() + title[1:] for column, title in titles.items()})


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`correlations` as a reader sees them."""
    rows = []
    for row in frame.to_dict("records"):
        label, known = MEASURES[row["measure"]], row["low"] == row["low"]
        rows.append({
            "Measure": label[:1].upper() + label[1:], "Correlation": format_signed(row["value"], 2),
            "95 % interval": f"{format_signed(row['low'], 2)} to {format_signed(row['high'], 2)}" if known else MISSING,
            "Learners": row["learners"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Not a number where one of the two is constant."""
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else np.nan
