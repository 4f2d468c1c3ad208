"""The study's questions 1, 3 and 4, its search and its checks, answered from result records. Torch-free.

Records are those of the committed study (``store.study_records``) or of a fresh run; nothing is measured here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..report.layout import NOT_RUN, column_label, method_label
from ..report.metrics import mean_std
from ..report.tables import OUT_OF_CONTEXT, SPLITS, base_novel, dial, differences, in_and_out
from ..report.write import MISSING, format_interval, format_mean_std, format_signed
from .units import CONTROLS, FEW, FORM_RATES, FORMS, SEARCH, form_name, trial_name

CONTROL_PAIRS = (  # each against what shares everything with it but the part in question
    ("meta-step", "fine-tuning"), ("joint", "fine-tuning"), ("meta-step", "joint"),
    ("meta-step", "fine-tuning, twice the epochs"), ("meta-step", "fine-tuning, batch 64"),
    ("same batch", "fine-tuning"), ("meta-step", "same batch"), ("disjoint classes", "disjoint classes, joint"),
    ("disjoint classes", "meta-step"), ("alpha 5", "joint"), ("alpha 50", "joint"), ("delta 0.25", "meta-step"),
    ("delta 4", "meta-step"), ("second order", "meta-step"), ("batch 16", "batch 16, joint"),
    ("fewer classes", "fewer classes, joint"), ("rho 0.95", "rho 0.95, joint"), ("long", "long, joint"),
    ("long, GWA", "long"), ("long, GWA", "fine-tuning, twice the epochs"),
)  # fmt: skip


ANSWER_PAIRS = (("open_mede", "finetune"), ("open_mede", "open_mede_no_gwa"), ("open_mede_no_gwa", "finetune"))
ANSWER_CONTROLS = (("meta-step", "joint"), ("long, GWA", "long"), ("long, GWA", "fine-tuning, twice the epochs"))


def answer(main: Sequence[Mapping], controls: Sequence[Mapping]) -> pd.DataFrame:
    """The study's question in six differences out of context.

    The method and its two parts; then the inner step alone, and what averaging is worth after twice as many epochs.

    Args:
        main: records of the section ``main``.
        controls: of the section ``meta``, by variant; what it lacks is left out.

    Returns:
        the rows of :func:`tables.differences` for ``out``.
    """
    rows = [paired(main, ANSWER_PAIRS), paired(controls, ANSWER_CONTROLS)]
    frame = pd.concat(rows, ignore_index=True)
    return frame[frame["quantity"] == "out"].reset_index(drop=True)


# ------------------------------------------------------------------------------------ the search
def search_scores(records: Sequence[Mapping]) -> dict[tuple[str, str], float]:
    """Score of every trial: harmonic mean of accuracy in and out of context on base classes of the design seed.

    Args:
        records: of the section ``search``, by variant.

    Returns:
        {(method, trial): percent}, as far as they were run.
    """
    trials = {trial_name(method, changes): method for method, of in SEARCH.items() for changes in of}
    rows = in_and_out(records, splits=("base",)) if records else pd.DataFrame(columns=["column", "method", "value"])
    means = rows[rows["column"] == "hm"].set_index("method")["value"]
    return {(method, trial): float(means[trial]) for trial, method in trials.items() if trial in means}


def chosen_trials(records: Sequence[Mapping]) -> dict[str, dict]:
    """The settings of each recipe's best trial; of equal ones the first."""
    scores = search_scores(records)
    found = {}
    for method, trials in SEARCH.items():
        ran = [changes for changes in trials if (method, trial_name(method, changes)) in scores]
        if len(ran) == len(trials):
            found[method] = max(ran, key=lambda changes: scores[method, trial_name(method, changes)])
    return found


def search_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The trials as a reader sees them: Recipe, Trial, In context, Out of context, HM, Chosen."""
    rows, numbers = [], in_and_out(records, splits=("base",))
    at = numbers.set_index(["method", "column"])["value"]
    chosen = {trial_name(method, changes) for method, changes in chosen_trials(records).items()}
    for method, trials in SEARCH.items():
        for changes in trials:
            trial = trial_name(method, changes)
            if (trial, "hm") in at.index:
                row = {"Recipe": method_label(method), "Trial": trial.removeprefix(method).strip()}
                row |= {column_label(column): f"{at[trial, column]:.1f}" for column in ("in", "out", "hm")}
                rows.append({**row, "Chosen": "yes" if trial in chosen else ""})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ question 1
def accuracy_table(records: Sequence[Mapping], test_set: str = "source") -> pd.DataFrame:
    """Base, novel, HM; in and out of context, HM, static gap: mean and standard deviation (ddof=1) over seeds."""
    frames = [base_novel(records, test_set), in_and_out(records, test_set)]
    rows = []
    for method in frames[0]["method"].unique():
        row = {"Method": method_label(method)}
        for frame, columns in zip(frames, (("base", "novel", "hm"), ("in", *OUT_OF_CONTEXT, "out", "hm", "gap"))):
            own = frame[frame["method"] == method].set_index("column")
            for column in columns:
                title = {"hm": "HM of base, novel" if columns[0] == "base" else "HM of in, out"}.get(column)
                one = own.loc[column]
                row[title or column_label(column)] = format_mean_std(one["value"], one["std"])
        rows.append({**row, "Seeds": int(one["seeds"])})
    return pd.DataFrame(rows)


def set_table(records: Sequence[Mapping], sets: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Accuracy on other sets: mean over splits, then mean and standard deviation (ddof=1) over seeds.

    Args:
        records: of the store, with ``part``, the test split.
        sets: name -> contexts.
    """
    rows = []
    frame = pd.DataFrame([{key: r[key] for key in ("method", "set", "context", "seed", "value")} for r in records])
    for method in dict.fromkeys(r["method"] for r in records):
        row = {"Method": method_label(method)}
        for name, contexts in sets.items():
            for context in contexts:
                own = frame[(frame["method"] == method) & (frame["set"] == name) & (frame["context"] == context)]
                seeds = own.groupby("seed")["value"].mean()
                mean = mean_std(list(seeds)) if len(seeds) else None
                text = MISSING if mean is None else format_mean_std(mean.mean, mean.std)
                row[column_label(f"{name}/{context}")] = text
        rows.append({**row, "Seeds": frame[frame["method"] == method]["seed"].nunique()})
    return pd.DataFrame(rows)


def paired(records: Sequence[Mapping], pairs: Sequence[tuple[str, str]], **where) -> pd.DataFrame:
    """Paired differences of those pairs whose records are there, each on the seeds that both have.

    Args:
        records: of the store.
        pairs: (first, second) methods or variants.
        where: ``test_set``, ``splits`` of :func:`tables.differences`.

    Returns:
        the rows of :func:`tables.differences`.
    """
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
    """Paired differences in and out of context in several groups of records, as ``figures.difference_forest`` takes it.

    Args:
        groups: name -> records, e.g. of several encoders; empty groups are left out.
        pairs: (first, second) methods; rows of one pair stand together.

    Returns:
        the rows of :func:`paired` with ``label``: the first method and the group.
    """
    found = []
    for pair in pairs:
        for name, records in groups.items():
            own = paired(records, [pair])
            if len(own):
                own = own[own["quantity"].isin(["in", "out"])]
                found.append(own.assign(label=f"{method_label(pair[0])}, {name}"))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def floors_table(main: Sequence[Mapping], floors: Sequence[Mapping], dialed: Sequence[Mapping]) -> pd.DataFrame:
    """Checks that the finished results must pass: Check, Measured, Allowed, Holds ("not run" where records lack).

    Args:
        main: records of the main section.
        floors: of the section ``floors``, by variant.
        dialed: of the section ``dial``, by variant.
    """

    def values(records, **where):
        rows = [r for r in records if all(r[key] == value for key, value in where.items())]
        return {(r["method"], r["seed"]): r["value"] for r in rows}

    pairs = values(main, metric="both_of_a_pair")
    halves = values(main, set="reversal", metric="top1")
    oracle = values(dialed, method="finetune rho=0.25", set="source", split="base", context="scene")
    others = values(main, set="source", split="base", context="scene", metric="top1")
    leads = [
        value - max(v for (_, other), v in others.items() if other == seed)
        for (_, seed), value in oracle.items()
        if any(other == seed for _, other in others)
    ]
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


def forms_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Plain fine-tuning with each form of the adapter at two learning rates: mean and standard deviation over seeds.

    Args:
        records: of the section ``adapters``, by variant.
    """
    rows = []
    for form, rate in itertools.product(FORMS, FORM_RATES):
        own = [r for r in records if r["method"] == form_name(form, rate)]
        row = {"Adapter": form, "β": f"{rate:g}"}
        columns = {"In context": ("in", SPLITS), "Out of context": ("out", SPLITS)}
        columns["Novel, out of context"] = ("out", ("novel",))
        for title, (column, splits) in columns.items():
            row[title] = NOT_RUN
            if own:
                one = in_and_out(own, splits=splits).set_index("column").loc[column]
                row[title] = format_mean_std(one["value"], one["std"])
        rows.append({**row, "Seeds": len({r["seed"] for r in own})})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ question 3
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


# ------------------------------------------------------------------------------------ question 4
def control_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The variants of the meta-step with what they cost and reach: mean and standard deviation over seeds.

    On the seeds that every variant is run on, so that its rows can be compared; the seeds that single variants have
    beyond them count in :func:`paired`.
    """
    records = [record for record in records if record["seed"] in FEW]
    numbers, rows = in_and_out(records).set_index(["method", "column"]), []
    novel = in_and_out(records, splits=("novel",)).set_index(["method", "column"])
    for variant, (method, changes) in CONTROLS.items():
        if (variant, "in") not in numbers.index:
            continue
        passes = 1 if method == "finetune" else 2
        batch, epochs = changes.get("batch_size", 32), changes.get("epochs", 8)
        row = {"Variant": variant, "Clips an update": passes * batch, "Updates": 56 * epochs}
        for title, frame, column in (
            ("In context", numbers, "in"), ("Out of context", numbers, "out"), ("Novel, out of context", novel, "out"),
            ("Static gap", numbers, "gap"),
        ):  # fmt: skip
            one = frame.loc[(variant, column)]
            row[title] = format_mean_std(one["value"], one["std"])
        rows.append({**row, "Seeds": int(one["seeds"])})
    return pd.DataFrame(rows)


def over_epochs(records: Iterable[Mapping], metric: str) -> pd.DataFrame:
    """A quantity of the training over its epochs, mean over seeds: columns series (the variant), epoch, value."""
    rows = [
        {"series": r["method"], "epoch": r["part"], "value": r["value"]}
        for r in records
        if r["metric"] == metric and r["set"] == "train" and not r["average"]
    ]
    frame = pd.DataFrame(rows, columns=["series", "epoch", "value"])
    return frame.groupby(["series", "epoch"], sort=False, as_index=False)["value"].mean()


def predictions(records: Iterable[Mapping]) -> pd.DataFrame:
    """What an inner step does to the query loss, measured and to first order in alpha, mean over seeds.

    Returns:
        Columns method, epoch, alpha, measured, predicted (both in nats).
    """
    rows = [
        {
            "method": r["method"], "epoch": r["part"], "alpha": float(r["average"]),
            "kind": r["metric"].removeprefix("change_"), "value": r["value"],
        }
        for r in records
        if r["metric"] in ("change_measured", "change_predicted")
    ]  # fmt: skip
    if not rows:
        return pd.DataFrame(columns=["method", "epoch", "alpha", "measured", "predicted"])
    frame = pd.DataFrame(rows).pivot_table("value", ["method", "epoch", "alpha"], "kind", sort=False)
    return frame.reset_index().rename_axis(columns=None)


def prediction_lines(records: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`predictions` as ``figures.epoch_lines`` takes it, a panel for each alpha; without the joint control."""
    frame = predictions(records)
    frame = frame[frame["method"] != "joint"]
    parts = [
        frame.assign(
            series=[f"{kind}, {method}" for method in frame["method"]], value=frame[kind],
            panel=[f"α = {alpha:g}" for alpha in frame["alpha"]],
        )
        for kind in ("measured", "predicted")
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[["series", "panel", "epoch", "value"]]


def prediction_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """:func:`predictions` at the last epoch: Training, alpha, Measured, Predicted, in nats."""
    frame = predictions(records)
    last = frame[frame["epoch"] == frame.groupby("method")["epoch"].transform("max")].reset_index(drop=True)
    return pd.DataFrame({
        "Training": last["method"], "α": [f"{alpha:g}" for alpha in last["alpha"]],
        "Measured": [format_signed(v, 4) for v in last["measured"]],
        "Predicted, first order": [format_signed(v, 4) for v in last["predicted"]],
    })  # fmt: skip
