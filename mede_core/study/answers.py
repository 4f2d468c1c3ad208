"""The study's answers about methods, worlds and encoders, from records of it or of a fresh run. Torch-free."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..config import OUT_OF_CONTEXT, SPLITS
from ..report.intervals import t_interval
from ..report.metrics import mean_std
from ..report.tables import NOT_RUN, column_label, dial, differences, method_label, methods_of, wide
from ..report.write import MISSING, format_mean_std, format_signed
from .units import FORM_RATES, FORMS, form_name

ANSWER_PAIRS = (("open_mede", "finetune"), ("open_mede", "open_mede_no_gwa"), ("open_mede_no_gwa", "finetune"),
                ("open_mede_no_gwa", "joint"))  # fmt: skip


def answer(regimes: Mapping[str, Sequence[Mapping]]) -> pd.DataFrame:
    """The study's question in four differences out of context, for the records of each ``regime`` that was run: the
    method, its two parts, and the meta-step against as many clips an update without an inner step."""
    found = [differences(own, ANSWER_PAIRS).assign(regime=name) for name, own in regimes.items() if own]
    return pd.concat(found).query("quantity == 'out'").reset_index(drop=True)


def paired_groups(groups: Mapping[str, Sequence[Mapping]], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """``tables.differences`` in and out of context in several groups of records, with a label for the figure's rows."""
    found = []
    for pair, (name, records) in itertools.product(pairs, groups.items()):
        found.append(differences(records, [pair]).assign(label=f"{method_label(pair[0])}, {name}"))
    frame = pd.concat([one for one in found if len(one)], ignore_index=True)
    return frame[frame["quantity"].isin(["in", "out"])].reset_index(drop=True)


# ------------------------------------------------------------------------------------ numbers of a seed
OTHER_SETS = ("transfer_a", "transfer_b", "superset")  # in the place of UCF101, HMDB51, Kinetics-600
TEMPORAL_SET = "direction"  # SSv2's part: classes that differ by direction alone
COLUMNS = {
    "base": "Base", "novel": "Novel", "hm": "HM of base, novel", "in": "In context", "scene": "Other scene",
    "noise": "Noise", "stripes": "Stripes", "out": "Out of context", "hm_out": "HM of in, out", "gap": "Static gap",
}  # fmt: skip
REACHED = {"in": "In context", "out": "Out of context", "novel_out": "Novel, out of context"}


def per_seed(records: Iterable[Mapping], by: str = "method") -> pd.DataFrame:
    """Accuracies in percent, a row a seed of each method or average; what was not measured is NaN."""
    kept = [r for r in records if r["metric"] == "top1" and bool(r.get("average")) == (by == "average")]
    frame = pd.DataFrame(kept, columns=[by, "seed", "set", "split", "context", "part", "value"])
    # Of the source set's reported clips, halves together; of other sets in context
    source = frame[(frame["set"] == "source") & (frame["part"] == 1)]
    inside, outside = source[source["context"] == "in"], source[source["context"] != "in"]
    others = frame[(frame["context"] == "in") & (frame["set"] != "source")]
    taken = {
        **{half: inside[inside["split"] == half] for half in SPLITS}, "in": inside, "out": outside,
        **{context: outside[outside["context"] == context] for context in OUT_OF_CONTEXT},
        "novel_out": outside[outside["split"] == "novel"], "cross": others[others["set"].isin(OTHER_SETS)],
        "temporal": others[others["set"] == TEMPORAL_SET],
    }  # fmt: skip
    found = pd.DataFrame({name: rows.groupby([by, "seed"])["value"].mean() for name, rows in taken.items()})
    for name, (first, second) in {"hm": SPLITS, "hm_out": ("in", "out")}.items():
        found[name] = 2 * found[first] * found[second] / (found[first] + found[second])
    found = found.assign(gap=found["in"] - found["out"], temporal=found["temporal"] - found["in"])
    return found.reindex(pd.MultiIndex.from_frame(frame[[by, "seed"]].drop_duplicates())).reset_index()


def spread_table(
    frame: pd.DataFrame, by: str, titles: Mapping, names: Iterable = (), *, head: str = "Method", label=method_label
) -> pd.DataFrame:
    """A row for each of ``names`` (default: those that are there): mean and deviation of columns over its seeds."""
    rows = []
    for name in names or dict.fromkeys(frame[by]):
        own = frame[frame[by] == name]
        spreads = {title: format_mean_std(*mean_std(own[column])) for column, title in titles.items() if len(own)}
        rows.append({head: label(name), **dict.fromkeys(titles.values(), NOT_RUN), **spreads, "Seeds": len(own)})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ all methods
def accuracy_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Base, novel, HM; in and out of context, HM, static gap: mean and standard deviation (ddof=1) over seeds."""
    return spread_table(per_seed(records), "method", COLUMNS, methods_of(records))


def set_table(records: Sequence[Mapping], sets: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Accuracy on other sets (name -> contexts): mean over test splits, then mean and deviation over seeds."""
    titles = {f"{name}/{context}": column_label(f"{name}/{context}") for name in sets for context in sets[name]}
    kept = [{**r, "column": f"{r['set']}/{r['context']}"} for r in records if r["metric"] == "top1"]
    frame = pd.DataFrame(kept).pivot_table("value", ["method", "seed"], "column").reset_index()
    return spread_table(frame, "method", titles, dict.fromkeys(r["method"] for r in records))


def dial_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """The dial as a reader sees it: Method, Tested, and a column for each rho of the training clips."""
    frame, tables = dial(records), []
    frame["column"] = frame["rho"].map("ρ = {:g}".format)
    for context, own in frame.groupby("context"):
        tables.append(wide(own))
        tables[-1].insert(1, "Tested", column_label(context))
    return pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)


def forms_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Plain fine-tuning with each form of the adapter (variants of ``adapters``) at two learning rates, over seeds."""
    forms = [*itertools.product(FORMS, FORM_RATES)]
    table = spread_table(per_seed(records), "method", REACHED, [form_name(*form) for form in forms], head="Adapter")
    table.insert(1, "β", [f"{rate:g}" for _, rate in forms])
    return table.assign(Adapter=[form for form, _ in forms])


# ------------------------------------------------------------------------------------ the checks
def floors_table(main: Sequence[Mapping], floors: Sequence[Mapping], dialed: Sequence[Mapping]) -> pd.DataFrame:
    """Checks that the finished results must pass; ``floors`` and ``dialed`` are sections' records by variant."""

    def values(records, **where) -> pd.Series:
        rows = [r for r in records if where.items() <= r.items()]
        return pd.Series([r["value"] for r in rows], [r["seed"] for r in rows], dtype=float)

    swapped = {"set": "source", "split": "base", "context": "scene"}
    best = values(main, **swapped, metric="top1").groupby(level=0).max()
    leads = (values(dialed, method="finetune rho=0.25", **swapped) - best).dropna()
    pairs, halves = values(main, metric="both_of_a_pair"), values(main, set="reversal", metric="top1")
    learned = values(floors, set="train", metric="top1")
    guessed = values(floors, set="source", split="base", context="in")
    chance = 100 / 36  # of the base classes
    checks = (
        ("Frozen CLIP right on both of a clip and its reversal (percent of pairs)", pairs, 0.0, 0.0),
        ("Frozen CLIP on clips and their reversals (percent)", halves, 25.0, 50.0),
        ("Trained at chance minus the best method, base classes, swapped scenes (points)", leads, 0.0, 100.0),
        ("Shuffled labels: accuracy on the training clips as labeled (percent)", learned, 95.0, 100.0),
        ("Shuffled labels: accuracy on new base clips (percent)", guessed, 0.0, 2 * chance),
    )
    rows = []
    for name, found, low, high in checks:
        measured, holds = NOT_RUN, NOT_RUN
        if len(found):
            measured = f"{min(found):.1f} to {max(found):.1f}, {len(found)} seeds"
            holds = "yes" if low <= min(found) and max(found) <= high else "NO"
        rows.append({"Check": name, "Measured": measured, "Allowed": f"{low:.1f} to {high:.1f}", "Holds": holds})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ where a learner looks
MEASURES = {  # of where a learner looks -> label; order gap and share of the actor are formed here
    "actor_mass": "attention on the actor (%)", "order_gap": "order gap (points)",
    "shuffled": "accuracy, shuffled (%)", "single_frame": "accuracy, one frame (%)",
}  # fmt: skip


def looks(records: Sequence[Mapping]) -> pd.DataFrame:
    """Measures of where each learner looks, in context, beside what it loses out of context (``drop``)."""
    seen = [r for r in records if r["set"] == "look" and r["context"] == "in"]
    frame = pd.DataFrame(seen).pivot_table("value", ["method", "seed"], "metric", sort=False)
    frame["order_gap"] = frame["accuracy"] - frame["shuffled"]
    lost = per_seed(records).set_index(["method", "seed"])["gap"].rename("drop")
    return frame.join(lost, how="inner").reset_index()


def look_table(frame: pd.DataFrame) -> pd.DataFrame:
    titles = {"accuracy": "accuracy, in context", **MEASURES}
    titles |= {"actor_area": "actor's share of the area (%)", "drop": "lost out of context (points)"}
    return spread_table(frame, "method", {column: titles[column].capitalize() for column in titles})


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Pearson correlation of each measure of :func:`looks` with the drop over learners; t-interval over seeds."""
    rows = []
    for measure, title in MEASURES.items():
        values = [own[measure].corr(own["drop"]) for _, own in frame.groupby("seed") if own[measure].nunique() > 1]
        value, low, high = t_interval(values) if values else (np.nan, np.nan, np.nan)
        interval = f"{format_signed(low, 2)} to {format_signed(high, 2)}" if low == low else MISSING
        rows.append((title.capitalize(), format_signed(value, 2), interval, len(frame)))
    return pd.DataFrame(rows, columns=["Measure", "Correlation", "95 % interval", "Learners"])
