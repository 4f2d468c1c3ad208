"""From records to the cells of a comparison table: one number per method and column, with its interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .intervals import Interval, bootstrap_accuracy, bootstrap_harmonic_mean
from .metrics import harmonic_mean, mean_std
from .records import unpack_correct


@dataclass(frozen=True)
class Cell:
    """One number of a table: mean over seeds, their std (NaN for one), interval (NaN where unknown)."""

    value: float
    std: float
    seeds: int
    low: float = math.nan
    high: float = math.nan


@dataclass
class Series:
    """One quantity over seeds.

    Attributes:
        values: seed -> percent; the seed is None where the number came without one.
        scores: seed -> [N] share of the averaged contexts in which each clip was right; None where bits lack.
        worlds: the worlds that the clips come from; seeds of one world share their clips.
        given: std, seeds, low, high of a number that came without seeds.
    """

    values: dict = field(default_factory=dict)
    scores: dict | None = field(default_factory=dict)
    worlds: set = field(default_factory=set)
    given: dict = field(default_factory=dict)

    @property
    def shared_clips(self) -> bool:
        return len(self.worlds) == 1 and len({len(row) for row in self.scores.values()}) == 1

    def cell(self) -> Cell:
        """The series as one number."""
        if None in self.values:
            given = {key: float(self.given.get(key, math.nan)) for key in ("std", "low", "high")}
            seeds = self.given.get("seeds", 1)
            return Cell(self.values[None], seeds=0 if _empty(seeds) else int(seeds), **given)
        mean = mean_std(list(self.values.values()))
        interval = None
        if self.scores:
            interval = bootstrap_accuracy(list(self.scores.values()), shared_clips=self.shared_clips)
        return _cell(mean.mean, mean.std, mean.n, interval)


def harmonic(first: Series, second: Series, paired_clips: bool, what: str) -> Cell:
    """The harmonic mean of two quantities: of their means over seeds; the std is that of the seeds' own."""
    if first.values.keys() != second.values.keys():
        seeds = [sorted(map(str, series.values)) for series in (first, second)]
        raise ValueError(f"{what} joins seeds {seeds[0]} and {seeds[1]}; allowed: the same seeds in both")
    value = harmonic_mean(np.mean(list(first.values.values())), np.mean(list(second.values.values())))
    per_seed = mean_std([harmonic_mean(first.values[seed], second.values[seed]) for seed in first.values])
    if None in first.values:
        return Cell(value, math.nan, first.cell().seeds)
    interval = None
    if first.scores and second.scores:
        shared = first.shared_clips and second.shared_clips
        rows = [[series.scores[seed] for seed in first.values] for series in (first, second)]
        paired_clips = paired_clips and [len(a) for a in rows[0]] == [len(b) for b in rows[1]]
        interval = bootstrap_harmonic_mean(*rows, paired_clips=paired_clips, shared_clips=shared)
    return _cell(value, per_seed.std, per_seed.n, interval)


def _cell(value: float, std: float, seeds: int, interval: Interval | None) -> Cell:
    return Cell(value, std, seeds, *((interval.low, interval.high) if interval else ()))


def collect(
    records: Sequence[Mapping],
    columns: Mapping | None,
    allowed: Sequence[str],
    label,
    joins: Mapping[str, tuple[str, str]],
) -> dict[tuple[str, str], Cell]:
    """Arrange records into cells.

    Args:
        records: see ``compare_with_paper``.
        columns: column -> filter, or a pair of filters; None where the records name their ``column``.
        allowed: the paper's column names.
        label: method or row label -> the paper's row label.
        joins: column -> the two columns whose harmonic mean it is, used unless the column is given.

    Returns:
        (row, column) -> :class:`Cell`.

    Raises:
        ValueError: as ``compare_with_paper``.
    """
    for record in records:
        lacking = [key for key in ("value", "method" if "row" not in record else "row") if key not in record]
        if lacking or (columns is None and "column" not in record):
            raise ValueError(
                f"a record lacks {', '.join(lacking) or 'column (or pass columns=...)'}: {record}"
            )
        if not (isinstance(record["value"], (int, float)) and 0 <= record["value"] <= 100):
            raise ValueError(f"value is {record['value']}; allowed: 0 to 100 (percent): {record}")
    if columns is None:
        columns = {name: {"column": name} for name in dict.fromkeys(record["column"] for record in records)}
    unknown = [name for name in columns if name not in allowed]
    if unknown:
        raise ValueError(f"column {unknown[0]!r} is not in the paper's table; allowed: {', '.join(allowed)}")
    series, cells = {}, {}
    for name, spec in columns.items():
        specs = (spec,) if isinstance(spec, Mapping) else tuple(spec)
        if len(specs) > 2 or not specs:
            raise ValueError(f"columns[{name!r}] has {len(specs)} filters; allowed: one, or two to be joined")
        parts = [_select(records, one, name, label) for one in specs]
        if len(parts) == 1:
            series |= {(row, name): one for row, one in parts[0].items()}
        else:
            differ = {k for k in specs[0].keys() | specs[1].keys() if specs[0].get(k) != specs[1].get(k)}
            for row in parts[0].keys() & parts[1].keys():
                cells[row, name] = harmonic(
                    parts[0][row], parts[1][row], differ == {"context"}, f"{name} of {row}"
                )
    cells |= {key: one.cell() for key, one in series.items()}
    for name, (first, second) in joins.items():
        for row in {row for row, _ in series}:
            if name not in columns and (row, first) in series and (row, second) in series:
                cells[row, name] = harmonic(series[row, first], series[row, second], True, f"{name} of {row}")
    return cells


def _select(records, spec: Mapping, name: str, label) -> dict[str, Series]:
    """Row -> series of the records that match a filter; lists in the filter are averaged."""
    missing = [key for key in spec if records and not any(key in record for record in records)]
    if missing:
        raise ValueError(f"columns[{name!r}] asks for {missing[0]!r}, which no record has")
    options = {key: tuple(v) if isinstance(v, (list, tuple, set)) else (v,) for key, v in spec.items()}
    wanted = [dict(zip(options, choice, strict=True)) for choice in itertools.product(*options.values())]
    groups: dict[tuple, list] = {}
    for record in records:
        for index, choice in enumerate(wanted):
            if all(record.get(key) == value for key, value in choice.items()):
                key = label(record.get("row", record.get("method"))), record.get("seed")
                groups.setdefault(key, []).append((index, record))
    result: dict[str, Series] = {}
    for (row, seed), found in groups.items():
        seed = None if _empty(seed) else int(seed)
        indices = [index for index, _ in found]
        if len(set(indices)) < len(indices):
            twice = [record for index, record in found if indices.count(index) > 1]
            measured = ("value", "correct")
            keys = [k for k in twice[0] if k not in measured and twice[0][k] != twice[1].get(k)]
            raise ValueError(
                f"{name} of {row}, seed {seed}: more than one record; they differ in "
                f"{', '.join(keys) or 'value'}: narrow the filter"
            )
        if len(indices) < len(wanted):
            lacking = [choice for index, choice in enumerate(wanted) if index not in indices]
            raise ValueError(
                f"{name} of {row}, seed {seed}: no record for {lacking[0]}, which the mean needs"
            )
        one = result.setdefault(row, Series())
        if seed in one.values or (one.values and (None in one.values or seed is None)):
            raise ValueError(
                f"{name} of {row} has several numbers without a seed each; give every record its seed"
            )
        _add(one, seed, [record for _, record in found])
    return result


def _add(series: Series, seed, records: list[Mapping]) -> None:
    series.values[seed] = float(np.mean([record["value"] for record in records]))
    series.worlds |= {record.get("world_seed") for record in records}
    if seed is None:
        series.given = {key: records[0][key] for key in ("std", "low", "high", "seeds") if key in records[0]}
    sizes = {record.get("n") for record in records}
    if series.scores is None or len(sizes) > 1 or any(_empty(record.get("correct")) for record in records):
        series.scores = None  # no interval without the bits of every record
    else:
        bits = [unpack_correct(record["correct"], int(record["n"])) for record in records]
        series.scores[seed] = np.mean(bits, axis=0)


def _empty(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
