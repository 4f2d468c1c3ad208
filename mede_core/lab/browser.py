"""The results browser: any number of any set, a row a method, with its interval."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ..config import OUT_OF_CONTEXT, SPLITS
from ..report.figures.style import Picture, backing, beside, errors, look_of, name_rows, styled
from ..report.intervals import t_interval
from ..report.tables import LONG, accuracies, base_novel, column_label, in_and_out, in_order
from .explorers import choice, explorer
from .scenes import Redrawn

Results = Mapping[str, Mapping[str, pd.DataFrame]]  # what is shown -> test set -> its `numbers`
BOTH = {"hm": "HM of base and novel"}


def numbers(records: Sequence[Mapping], test_set: str) -> pd.DataFrame:
    """Everything a set's records hold, as a long frame (``tables.LONG``) whose column is in words; over seeds
    t-intervals, with one seed over its clips."""
    own = [one for one in records if one["set"] == test_set and str(one.get("part", 1)) == "1"]
    top1 = [one for one in own if one["metric"] == "top1"]
    halves = SPLITS if {one["split"] for one in top1} >= set(SPLITS) else ("all",)
    contexts = [name for name in ("in", *OUT_OF_CONTEXT) if name in {one["context"] for one in top1}]
    frames = [pd.DataFrame(columns=LONG)]
    if len(contexts) == 1 + len(OUT_OF_CONTEXT):
        frames.append(in_and_out(top1, test_set, halves))
    elif contexts:
        frame = accuracies(top1, [test_set], contexts, halves)
        frames.append(frame.assign(column=frame["column"].str.rpartition("/")[2]))
    frames = [frame.assign(column=frame["column"].map(column_label)) for frame in frames]
    if halves == SPLITS and contexts:
        frame = base_novel(top1, test_set)
        frames.append(
            frame.assign(column=[BOTH.get(name) or f"{column_label(name)} classes" for name in frame["column"]])
        )
    keys = ["method", "metric", "context"]
    others = pd.DataFrame([one for one in own if one["metric"] != "top1"], columns=[*keys, "value", "n"])
    for (method, metric, context), found in others.groupby(keys, sort=False):
        name = f"{metric.replace('_', ' ')}, {column_label(context).lower()}"
        row = (method, name, *t_interval(found["value"]), len(found), found["n"].min())
        frames.append(pd.DataFrame([row], columns=["method", "column", "value", "low", "high", "seeds", "clips"]))
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


def tabulated(shown: Mapping[str, Sequence[Mapping]]) -> Results:
    """The numbers of what is shown, by name: records, one for each method, test and seed."""
    sets = dict.fromkeys(one["set"] for records in shown.values() for one in records)
    return {of: {test_set: numbers(records, test_set) for test_set in sets} for of, records in shown.items()}


@styled
def method_rows(frame: pd.DataFrame, title: str):
    """One number a method, with its interval."""
    methods = in_order(frame["method"])
    figure = Picture(1.0 + 0.36 * max(len(methods), 6), title, width=8.2)
    axes = figure.subplots()
    for place, method in enumerate(methods):
        look, row = look_of(method), frame[frame["method"] == method]
        axes.errorbar(row["value"], [place], xerr=errors(row), fmt=look.marker, color=look.color, ms=7, elinewidth=2)
        beside(axes, f"{row['value'].item():.1f}", (row["value"].item(), place), (0, 8), ha="center", bbox=backing())
    if not methods:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
    name_rows(axes, [look_of(method).label for method in methods])
    axes.set(ylim=(len(methods) - 0.4, -0.7), xlabel="percent, or points for a gap, with 95 % interval")
    axes.margins(x=0.1)
    return figure


def browse(results: Results, of: str, test_set: str, column: str) -> tuple[dict, str]:
    """The values of ``method_rows`` and the readout."""
    frame = results[of][test_set]
    picked, title = frame[frame["column"] == column], f"{of}: {column}, {test_set}"
    if picked.empty:
        told = f"it has: {'; '.join(dict.fromkeys(frame['column']))}" if len(frame) else "11_evaluate tests every set"
        return {"frame": picked, "title": title}, f"<b>not measured</b> &nbsp;·&nbsp; {told}"
    seeds, clips = (", ".join(f"{one:,}" for one in sorted(set(picked[name]))) for name in ("seeds", "clips"))
    over = "this seed's test clips" if seeds == "1" else "training seeds"
    text = f"95 % intervals over {over} &nbsp;·&nbsp; seeds: {seeds} &nbsp;·&nbsp; clips of a seed: {clips}"
    return {"frame": picked, "title": title}, text


def browser(results: Results):
    """Any number of any test set and source: a widget."""
    columns = dict.fromkeys(name for own in results.values() for frame in own.values() for name in frame["column"])
    controls = {
        "of": choice("results of", list(results)),
        "test_set": choice("test set", list(next(iter(results.values())))),
        "column": choice("number", list(columns)),
    }
    return explorer(Redrawn(method_rows), controls, lambda **chosen: browse(results, **chosen), "mede-browser")
