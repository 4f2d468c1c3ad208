"""The results browser: any number of any set, a row a method, with its interval."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..config import OUT_OF_CONTEXT, SPLITS
from ..report.figures.style import Picture, backing, beside, errors, look_of, methods_in, styled
from ..report.intervals import Interval, accuracy_interval, harmonic_interval, paired_difference, t_interval
from ..report.tables import clip_scores, methods_of
from .explorers import choice, explorer
from .scenes import Redrawn

IN, OUT = ("in",), OUT_OF_CONTEXT
QUANTITIES = {  # what is shown -> how it is formed, from which backgrounds, of which halves of the classes
    "accuracy in context": ("one", [IN], [None]),
    **{f"accuracy, {name}": ("one", [(at,)], [None]) for at, name in zip(OUT, ("other scene", "noise", "stripes"))},
    "accuracy out of context": ("one", [OUT], [None]),
    "harmonic mean of in and out of context": ("paired", [IN, OUT], [None, None]),
    "static gap (in minus out, points)": ("gap", [IN, OUT], [None, None]),
    "base classes, in context": ("one", [IN], [("base",)]),
    "novel classes, in context": ("one", [IN], [("novel",)]),
    "harmonic mean of base and novel": ("apart", [IN, IN], [("base",), ("novel",)]),
}


NOTHING = pd.DataFrame(columns=["method", "value", "low", "high"])


def quantities(records: Iterable[Mapping], test_set: str) -> list[str]:
    """What the records of a set allow to form; a metric that is no accuracy is named with its background."""
    own = [record for record in records if record["set"] == test_set]
    there = {(record["split"], record["context"]) for record in own if record["metric"] == "top1"}
    formed = [
        name
        for name, (_, contexts, halves) in QUANTITIES.items()
        if all(
            (half, context) in there
            for each, wanted in zip(contexts, halves)
            for half in wanted or _halves(own)
            for context in each
        )
    ]
    others = {f"{r['metric'].replace('_', ' ')}, {r['context']}": None for r in own if r["metric"] != "top1"}
    return [*formed, *others]


def _halves(records: Iterable[Mapping]) -> tuple[str, ...]:
    return SPLITS if {record["split"] for record in records} >= set(SPLITS) else ("all",)


def numbers(records: Sequence[Mapping], test_set: str, quantity: str) -> pd.DataFrame:
    """A row a method: value, low, high, seeds, clips; over seeds t-intervals, with one seed over its clips."""
    own = [record for record in records if record["set"] == test_set and str(record.get("part", 1)) == "1"]
    rows = []
    for method in methods_of(own):
        if quantity in QUANTITIES:
            kind, contexts, halves = QUANTITIES[quantity]
            scores = [
                [*clip_scores(own, method, test_set, half or _halves(own), each).values()]
                for each, half in zip(contexts, halves)
            ]
            interval = {
                "one": accuracy_interval, "gap": paired_difference,
                "paired": lambda a, b: harmonic_interval(a, b, paired_clips=True),
                "apart": lambda a, b: harmonic_interval(a, b, paired_clips=False),
            }[kind](*scores)  # fmt: skip
        else:
            metric, _, context = quantity.replace(" ", "_").rpartition(",_")
            found = [r for r in own if (r["method"], r["metric"], r["context"]) == (method, metric, context)]
            interval = Interval(*t_interval([r["value"] for r in found]), len(found), min(r["n"] for r in found))
        rows.append({"method": method, **vars(interval)})
    return pd.DataFrame(rows)


@styled
def method_rows(frame: pd.DataFrame, title: str):
    """One number a method, with its interval."""
    methods = methods_in(frame)
    figure = Picture(1.0 + 0.36 * max(len(methods), 6), title, width=8.2)
    axes = figure.subplots()
    if not methods:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
    for place, method in enumerate(methods):
        look, row = look_of(method), frame[frame["method"] == method]
        axes.errorbar(row["value"], [place], xerr=errors(row), fmt=look.marker, color=look.color, ms=7, elinewidth=2)
        beside(axes, f"{row['value'].item():.1f}", (row["value"].item(), place), (0, 8), ha="center", bbox=backing())
    axes.set_yticks(range(len(methods)), [look_of(method).label for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.7)
    axes.margins(x=0.1)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("percent, or points for a gap, with 95 % interval")
    axes.grid(axis="x")
    return figure


def by_rho(name: str, records: Iterable[Mapping]) -> dict[str, list[Mapping]]:
    """Records of learners that were trained at several settings of the dial, apart: what ``browser`` takes."""
    found: dict[str, list[Mapping]] = {}
    for record in sorted(records, key=lambda record: record["rho"]):
        found.setdefault(f"{name}, trained at ρ = {record['rho']:g}", []).append(record)
    return found


def browse(results: Mapping[str, Sequence[Mapping]], of: str, test_set: str, quantity: str) -> tuple[dict, str]:
    """The picture's values (of ``method_rows``) and the readout."""
    there = quantities(results[of], test_set)
    title = f"{of}: {quantity}, {test_set}"
    if quantity not in there:
        told = f"it has: {'; '.join(there)}" if there else "this set was not tested; 11_evaluate tests every set"
        return {"frame": NOTHING, "title": title}, f"<b>not measured</b> &nbsp;·&nbsp; {told}"
    frame = numbers(results[of], test_set, quantity)
    seeds, clips = sorted(set(frame["seeds"])), sorted(set(frame["clips"]))
    over = "training seeds" if seeds[-1] > 1 else "this seed's test clips"
    text = (
        f"95 % intervals over {over} &nbsp;·&nbsp; seeds: {', '.join(map(str, seeds))} &nbsp;·&nbsp; clips of a seed: "
        f"{', '.join(f'{count:,}' for count in clips)}"
    )
    return {"frame": frame, "title": title}, text


def browser(results: Mapping[str, Sequence[Mapping]]):
    """Any quantity of any set and source (what is shown -> result records, a method once a seed): a widget."""
    sets = list(dict.fromkeys(record["set"] for records in results.values() for record in records))
    offered = dict.fromkeys(one for records in results.values() for name in sets for one in quantities(records, name))
    controls = {
        "of": choice("results of", list(results)),
        "test_set": choice("test set", sets),
        "quantity": choice("number", list(offered)),
    }
    drawn, _ = browse(results, next(iter(results)), sets[0], next(iter(offered)))
    return explorer(Redrawn(method_rows, **drawn), controls, lambda **chosen: browse(results, **chosen), "mede-browser")
