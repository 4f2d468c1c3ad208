"""Tables from result records, as long frames and as a reader sees them. Torch-free. A long frame has a row a
number (``LONG``): value in percent, a gap in points; std over seeds (ddof=1; NaN for one); gain: the paired difference
to frozen CLIP in points, NaN where that was not measured."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..config import OUT_OF_CONTEXT, SPLITS
from .intervals import Interval, accuracy_interval, harmonic_interval, paired_difference, t_interval
from .metrics import unpack_correct
from .paper import PAPER_ROWS
from .write import MISSING, format_difference, format_interval, format_signed

LONG = ("method", "column", "value", "std", "low", "high", "seeds", "clips", "gain", "gain_low", "gain_high")
NOT_RUN = "not run"
COLUMN_LABELS = {  # keys of the long frames -> what a reader sees
    "base": "Base", "novel": "Novel", "hm": "HM", "in": "In context", "scene": "Other scene",
    "noise": "Noise", "stripes": "Stripes", "out": "Out of context", "gap": "Static gap",
}  # fmt: skip


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods, each once, in the fixed order of all tables and figures; a reader's own ones last."""
    found = set(methods)
    return [*(method for method in PAPER_ROWS if method in found), *sorted(found - PAPER_ROWS.keys())]


def methods_of(records: Iterable[Mapping]) -> list[str]:
    return in_order(record["method"] for record in records)


def clip_scores(
    records: Iterable[Mapping], method: str, test_set: str, splits: Sequence[str], contexts: Sequence[str]
) -> dict[int, np.ndarray]:
    """{seed: [N] floats from 0 to 1}: the share of the contexts before which each clip was right; splits end to end.
    Of several seeds the accuracies alone will do, as the study keeps them: a clip then counts its set's mean."""
    # Formed clip by clip (twins have the same place in each context), so that an interval knows what belongs together.
    found: dict[tuple, np.ndarray] = {}
    without_bits = False
    for record in records:
        key = record["seed"], record["split"], record["context"]
        ours = (record["method"], record["set"], record["metric"]) == (method, test_set, "top1")
        if ours and key[1] in splits and key[2] in contexts:
            if key in found:
                where = f"{method} on {test_set}, seed {key[0]}, {key[1]}, {key[2]}"
                raise ValueError(f"{where}: more than one record; narrow the records (run, average, rho)")
            bits = record.get("correct")
            right = unpack_correct(bits, record["n"]) if bits else np.full(record["n"], record["value"] / 100)
            found[key] = right.astype(float)
            without_bits |= not bits
    if not found:
        raise ValueError(f"no record of {method} on {test_set} ({', '.join(splits)}; {', '.join(contexts)})")
    scores, seeds = {}, sorted({seed for seed, _, _ in found})
    if without_bits and len(seeds) == 1:
        raise ValueError(f"{method} on {test_set}: one seed without its clips' bits (correct) has no interval")
    for seed in seeds:
        wanted = itertools.product(splits, contexts)
        if missing := [", ".join(each) for each in wanted if (seed, *each) not in found]:
            raise ValueError(f"{method} on {test_set}, seed {seed}: no record for {'; '.join(missing)}")
        twins = [[found[seed, split, context] for context in contexts] for split in splits]
        scores[seed] = np.concatenate([np.mean(clips, axis=0) for clips in twins])
    return scores


# ------------------------------------------------------------------------------------ long frames
def long_frame(
    scores: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]], joined: Sequence[str] = (), *, paired_clips=False
) -> pd.DataFrame:
    """Long frame of {method: {column: {seed: scores of clips}}}, with "hm" of the two ``joined`` columns."""
    rows, frozen = [], scores.get("frozen", {})
    for method, own in scores.items():
        if len({tuple(one) for one in own.values()}) > 1:
            seeds = {name: [*one] for name, one in own.items()}
            raise ValueError(f"{method}: the seeds of its columns differ: {seeds}; allowed: the same in all")
        numbers = {name: [*one.values()] for name, one in own.items()}
        known = own.keys() <= frozen.keys() and method != "frozen"
        common = [seed for seed in next(iter(own.values())) if known and _same_clips(own, frozen, seed)]
        ours, theirs = ({name: [one[seed] for seed in common] for name, one in each.items()} for each in (own, frozen))
        for name in own:
            gain = paired_difference(ours[name], theirs[name]) if common else None
            rows.append(_row(method, name, accuracy_interval(numbers[name]), gain))
        if joined and {*joined} <= own.keys():
            mean, *pairs = ([each[name] for name in joined] for each in (numbers, *((ours, theirs) if common else ())))
            gain = harmonic_interval(*pairs, paired_clips=paired_clips) if common else None
            rows.append(_row(method, "hm", harmonic_interval(mean, paired_clips=paired_clips), gain))
    return pd.DataFrame(rows, columns=list(LONG))


def _same_clips(own: Mapping, frozen: Mapping, seed: int) -> bool:
    """Whether both were tested on a seed's clips in every column: on the dial, frozen CLIP has more of them."""
    return all(len(own[name][seed]) == len(frozen[name].get(seed, ())) for name in own)


def _scores(records: Sequence[Mapping], tests: Mapping[str, tuple]) -> dict[str, dict[str, dict[int, np.ndarray]]]:
    """{method: {column: clip scores}} of tests, column -> (set, splits, contexts)."""
    return {method: {name: clip_scores(records, method, *test) for name, test in tests.items()}
            for method in methods_of(records)}  # fmt: skip


def base_novel(records: Sequence[Mapping], test_set: str = "source") -> pd.DataFrame:
    """Long frame of "base", "novel" and "hm", their harmonic mean, in context."""
    return long_frame(_scores(records, {split: (test_set, (split,), ("in",)) for split in SPLITS}), SPLITS)


def in_and_out(records: Sequence[Mapping], test_set: str = "source", halves: Sequence[str] = SPLITS) -> pd.DataFrame:
    """Long frame of "in", each swapped background, "out" (mean over them), "hm" (of in and out) and "gap" (in minus
    out, in points: how much leans on the background); the clips of all halves together."""
    contexts = {**{name: (name,) for name in ("in", *OUT_OF_CONTEXT)}, "out": OUT_OF_CONTEXT}
    scores = _scores(records, {name: (test_set, halves, found) for name, found in contexts.items()})
    long = long_frame(scores, ("in", "out"), paired_clips=True)
    for method, own in scores.items():
        gap = paired_difference(*([*own[where].values()] for where in ("in", "out")))
        long.loc[len(long)] = _row(method, "gap", gap)
    return long


def accuracies(
    records: Sequence[Mapping], sets: Sequence[str], contexts: Sequence[str], halves: Sequence[str] = SPLITS
) -> pd.DataFrame:
    """Long frame of several test sets, the clips of all halves together; the column is "<set>/<context>"."""
    tests = {f"{name}/{context}": (name, halves, (context,)) for name, context in itertools.product(sets, contexts)}
    return long_frame(_scores(records, tests))


def dial(records: Sequence[Mapping]) -> pd.DataFrame:
    """Accuracy in and out of context against the rho of training; ``frozen``, not trained, is the same at every rho."""
    frozen = [record for record in records if record["method"] == "frozen"]
    trained = [record for record in records if record["method"] != "frozen"]
    frames = []
    for rho in sorted({record["rho"] for record in trained}):
        frame = in_and_out([*frozen, *(r for r in trained if r["rho"] == rho)])
        frames.append(frame[frame["column"].isin(["in", "out"])].assign(rho=rho))
    joined = pd.concat(frames, ignore_index=True).rename(columns={"column": "context"})
    return joined[["rho", "method", "context", "value", "low", "high", "seeds"]]


def differences(records: Sequence[Mapping], pairs: Sequence[tuple[str, str]], test_set: str = "source") -> pd.DataFrame:
    """First minus second method of each pair in points ("in", "out", "gap"), paired over clips and the seeds that both
    have, with a verdict each; a pair without such seeds has no row."""
    seeds, rows = {}, []
    for record in records:
        seeds.setdefault(record["method"], set()).add(record["seed"])
    for pair in pairs:
        both = set.intersection(*(seeds.get(method, set()) for method in pair))
        if not both:
            continue
        own = [r for r in records if r["method"] in pair and r["seed"] in both]
        inside, outside = (
            [[*clip_scores(own, method, test_set, SPLITS, contexts).values()] for method in pair]
            for contexts in (("in",), OUT_OF_CONTEXT)
        )
        gaps = [[i - o for i, o in zip(*each)] for each in zip(inside, outside)]
        for quantity, compared in {"in": inside, "out": outside, "gap": gaps}.items():
            interval = paired_difference(*compared)
            numbers = {**vars(interval), "verdict": interval.verdict()}
            rows.append({"first": pair[0], "second": pair[1], "quantity": quantity, **numbers})
    return pd.DataFrame(rows).drop(columns="std", errors="ignore")


def order_blind_bounds(rho: float, scenes: int) -> dict[str, float]:
    """{context: percent}: the best accuracy that a learner blind to the order of frames can expect."""
    # It knows all but which motion of a reversal pair it sees. Before a swapped background nothing tells: one half. In
    # context it guesses the likelier motion in each scene: the two of a pair have different homes.
    other = (1 - rho) / (scenes - 1)
    inside = max(rho, other) + (scenes - 2) / 2 * other
    return {"in": 100 * inside, **dict.fromkeys((*OUT_OF_CONTEXT, "out"), 50.0)}


def _row(method: str, column: str, interval: Interval, gain: Interval | None = None) -> dict:
    gained = (gain.value, gain.low, gain.high) if gain else [math.nan] * 3
    return {"method": method, "column": column, **vars(interval), **dict(zip(LONG[-3:], gained))}


# ------------------------------------------------------------------------------------ what a reader sees
def method_label(method: str) -> str:
    """The name of a method as tables print it; an unknown one stays as it is."""
    return PAPER_ROWS.get(method, method)


def column_label(column: str) -> str:
    """What a reader sees for a key of a long frame; "transfer_a/in" becomes "transfer_a, in context"."""
    test_set, _, context = column.rpartition("/")
    label = COLUMN_LABELS.get(context, context)
    return f"{test_set}, {label.lower()}" if test_set else label


def pick(long: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    """Some columns of a long frame as plots take them, which call the column "context" or "split": ``name``."""
    return long[long["column"].isin(columns)].rename(columns={"column": name}).reset_index(drop=True)


def wide(long: pd.DataFrame, *, methods: Sequence[str] = ()) -> pd.DataFrame:
    """A long frame as text, "63.2 [61.0, 65.1]", a row a method; ``methods`` without numbers say "not run"."""
    text = [format_interval(*ends) for ends in zip(long["value"], long["low"], long["high"])]
    table = long.assign(text=text).pivot(index="method", columns="column", values="text")
    table = table.reindex(index=in_order((*methods, *table.index)), columns=long["column"].unique())
    table[table.isna().all(axis=1)] = NOT_RUN
    table = table.fillna(MISSING).rename(index=method_label, columns=column_label)
    return table.rename_axis(index="Method", columns=None).reset_index()


def records_table(records: Sequence[Mapping]) -> pd.DataFrame:
    """Records as text, one line a number: on what, with which prompts and views, with its interval."""
    rows = []
    for record in records:
        told = f"{record['value']:.1f}"
        if record.get("correct"):
            told = str(accuracy_interval(unpack_correct(record["correct"], record["n"])))
        rows.append({
            "Method": method_label(record["method"]), "Set": record["set"], "Split": str(record.get("part", MISSING)),
            "Classes": record["split"], "Context": record["context"], "Metric": record["metric"],
            "Percent": told, "Clips": record["n"],
            "Prompts": record.get("prompts", MISSING), "Views": str(record.get("views", MISSING)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def verdict_table(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({
        "Comparison": f"{method_label(row['first'])} minus {method_label(row['second'])}",
        "Quantity": column_label(row["quantity"]),
        "Difference": format_signed(row["value"]),
        "95 % interval": f"{format_signed(row['low'])} to {format_signed(row['high'])}",
        "Seeds": row["seeds"],
        "Verdict": row["verdict"],
    } for row in frame.to_dict("records"))  # fmt: skip


def verdict_counts(frame: pd.DataFrame) -> str:
    """How many rows have which ``verdict``, and the ``label`` of what was decided: "1 higher (a), 3 undecided"."""
    told, decided = [], ("supported", "contradicted", "higher", "lower")
    for verdict in (*decided, "undecided", "hint", "this seed", NOT_RUN):
        own = frame["label"][frame["verdict"] == verdict]
        named = f" ({'; '.join(own)})" if verdict in decided else ""
        told += [f"{len(own)} {verdict}{named}"] if len(own) else []
    return ", ".join(told)


def verdict_sentence(row: Mapping) -> str:
    """One row of :func:`differences` in plain words, which follow from the numbers alone."""
    way = "level with"
    if round(abs(row["value"]), 1) > 0:
        way = f"{abs(row['value']):.1f} points {'above' if row['value'] > 0 else 'below'}"
    over = f"over {row['seeds']} seeds: {'a hint, no verdict' if row['verdict'] == 'hint' else row['verdict']}"
    if row["seeds"] < 2:
        zero = "excludes" if row["low"] > 0 or row["high"] < 0 else "includes"
        over = f"over this seed's clips, which {zero} zero; other seeds may differ"
    ends = f"{format_signed(row['low'])} to {format_signed(row['high'])}"
    where = {"in": "in context", "out": "out of context", "gap": "in its static gap"}[row["quantity"]]
    first, second = method_label(row["first"]), method_label(row["second"])
    return f"{first} is {way} {second} {where} (95 % interval {ends} {over})."


def verdict_markdown(frame: pd.DataFrame) -> str:
    return "\n".join(f"* {verdict_sentence(row)}" for row in frame.to_dict("records"))


# ------------------------------------------------------------------------------------ what learners use
def effects_table(effects: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a method, of ``attention.causal_effects``: mean effects on the class margin, beside what the same clips
    lose in accuracy when their background is swapped and when their frames are shuffled; with intervals over clips."""
    rows = []
    for method, one in effects.items():
        rows.append({
            "Method": method_label(method), "Clips": len(one["motion"]),
            "Background swapped (logits)": _mean(one["background"]),
            "Motion reversed (logits)": _mean(one["motion"]),
            "Background counts more (%)": str(accuracy_interval(np.abs(one["background"]) > np.abs(one["motion"]))),
            "Static gap (points)": str(paired_difference(one["whole"], one["swapped"])),
            "Order gap (points)": str(paired_difference(one["whole"], one["shuffled"])),
            "Single frame (%)": str(accuracy_interval(one["single"])),
        })  # fmt: skip
    return pd.DataFrame(rows)


def typical(effects: Mapping[str, Mapping[str, np.ndarray]], clip: int) -> str:
    """Sentences on where one clip stands among all, a method each, by ``attention.causal_effects``."""
    said = []
    for method, one in effects.items():
        shares, parts = [], []
        for name, words in (("background", "background swapped"), ("motion", "motion reversed")):
            values = np.round(one[name], 3)  # rounding errors rank nothing
            shares.append(100 * (np.mean(values < values[clip]) + np.mean(values == values[clip]) / 2))
            parts.append(f"{words}, the margin falls by {values[clip]:.2f} logits (percentile {shares[-1]:.0f})")
        is_typical = min(shares) >= 10 and max(shares) <= 90
        said.append(f"* {method_label(method)}: {'; '.join(parts)}: **{'' if is_typical else 'not '}typical**.")
    return "\n".join([*said, "", f"Typical: between percentiles 10 and 90 of {len(values)} clips, in both."])


def maps_table(tested: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a map method, from ``lab.map_tests.compare_maps``. A map may be believed where both gains are above zero
    with their intervals, and where it changes with shuffled weights: else it shows the clip, not the learner."""
    rows = []
    for name, one in tested.items():
        gains = {key.capitalize(): t_interval(one[key]) for key in ("deletion", "insertion")}
        believed = min(low for _, low, _ in gains.values()) > 0 and np.mean(one["shuffled"]) < 0.5
        rows.append({
            "Map": name, "Clips": len(one["deletion"]), **{key: format_difference(*own) for key, own in gains.items()},
            "Correlation with shuffled weights": _mean(one["shuffled"]), "May be believed": "yes" if believed else "no",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> str:
    return format_difference(*t_interval(values), 2)
