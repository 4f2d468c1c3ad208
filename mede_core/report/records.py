"""The result store: records as JSON lines. See ``results.py``, which is the public face of this module."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import atomic_write

_TEXT = ("table", "method", "set", "split", "context", "metric", "profile", "weights", "run")
REQUIRED = ("table", "method", "set", "split", "context", "metric",
            "value", "n", "seed", "profile", "weights", "run")  # fmt: skip
_MEASURED = ("value", "n", "correct")  # everything else says what was measured
_DIGITS = 6  # decimals kept of a float: a millionth of a point


# ------------------------------------------------------------------------------------ per-clip bits
def pack_correct(correct) -> str:
    """Write per-clip correctness as hex text, eight clips to two characters.

    Args:
        correct: [N] bool, N >= 1.

    Returns:
        2 * ceil(N / 8) lower-case hex characters; the first clip is the highest bit of the first byte.

    Raises:
        ValueError: another type or shape.
    """
    correct = np.asarray(correct)
    if correct.dtype != np.bool_ or correct.ndim != 1 or correct.size == 0:
        raise ValueError(
            f"correct must be [N] bool with N >= 1, not {correct.dtype} of shape {correct.shape}"
        )
    return np.packbits(correct).tobytes().hex()


def unpack_correct(text: str, n: int) -> np.ndarray:
    """Read :func:`pack_correct`'s text back.

    Args:
        text: the hex text.
        n: number of clips, the record's ``n``.

    Returns:
        [n] bool.

    Raises:
        ValueError: not hex, a length that does not fit n, or bits set beyond n.
    """
    if not isinstance(text, str) or not re.fullmatch(r"([0-9a-f]{2})+", text):
        raise ValueError(f"correct is {str(text)[:40]!r}; allowed: lower-case hex text of whole bytes")
    if n < 1 or len(text) != 2 * math.ceil(n / 8):
        raise ValueError(f"correct has {len(text)} hex characters; {n} clips need {2 * math.ceil(n / 8)}")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)
    if bits[n:].any():
        raise ValueError(f"correct has bits set beyond its {n} clips")
    return bits[:n]


# ------------------------------------------------------------------------------------ records
def validate_record(record: Mapping) -> dict:
    """Check one record and give it its normal form.

    Args:
        record: flat mapping with the keys of ``REQUIRED``; others may follow (text, numbers, bools, None).
            ``value`` is a percentage unless ``unit`` says otherwise: 0 to 100, and for a metric named
            ``*_gap`` or ``*_difference`` points from -100 to 100. ``n`` counts clips. ``correct`` holds
            per-clip bits (:func:`pack_correct`); for a ``top*`` metric it must agree with ``value``.

    Returns:
        A new dict: required keys first in their order, then the others by name; plain Python types; floats
        rounded to six decimals.

    Raises:
        ValueError: a missing key, a value out of range or not finite, a nested value, bits that contradict
            the value.
    """
    missing = [key for key in REQUIRED if key not in record]
    if missing:
        raise ValueError(f"record lacks {', '.join(missing)}; required: {', '.join(REQUIRED)}")
    keys = [*REQUIRED, *sorted(key for key in record if key not in REQUIRED)]
    result = {key: _plain(key, record[key]) for key in keys}
    for key in _TEXT:
        if not isinstance(result[key], str) or not result[key]:
            raise ValueError(f"{key} is {result[key]!r}; allowed: non-empty text")
    for key, lowest in (("n", 1), ("seed", 0)):
        if type(result[key]) is not int or result[key] < lowest:
            raise ValueError(f"{key} is {result[key]!r}; allowed: whole numbers from {lowest}")
    value, metric = result["value"], result["metric"]
    if isinstance(value, (bool, str)) or value is None:
        raise ValueError(f"value is {value!r}; allowed: a finite number")
    result["value"] = float(value)
    if result.get("unit", "percent") == "percent":
        low = -100 if metric.endswith(("_gap", "_difference")) else 0
        if not low <= value <= 100:
            raise ValueError(
                f"value of {metric} is {value}; allowed: {low} to 100 (percent; else give a unit)"
            )
    if result.get("correct") is not None:
        right = 100 * unpack_correct(result["correct"], result["n"]).mean()
        if metric.startswith("top") and abs(right - value) > 0.01:
            raise ValueError(f"value is {value}, but {right:.4f} % of the bits in correct are set")
    return result


def _plain(key: str, value):
    """A JSON scalar of plain Python type, floats rounded."""
    if not isinstance(key, str):
        raise ValueError(f"record key {key!r} is not text")
    if value is None or isinstance(value, (str, bool, np.bool_)):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise ValueError(f"{key} is {value}; allowed: finite numbers")
        return round(float(value), _DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
    raise ValueError(f"{key} is a {type(value).__name__}; allowed: text, numbers, bools and None")


def _identity(record: dict) -> str:
    return json.dumps({key: record[key] for key in sorted(record) if key not in _MEASURED})


class ResultStore:
    """A folder of ``<source>.jsonl`` files, one per notebook or step; safe to rewrite and read at any time.

    Args:
        folder: made on the first write.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def replace(self, source: str, records: Iterable[Mapping]) -> Path:
        """Write all records of a source in one step, in place of those it wrote before.

        Args:
            source: name of the file without ending: letters, digits, ``_``, ``-``, ``.``.
            records: see :func:`validate_record`. Their order does not matter: the same records give the same
                bytes.

        Returns:
            The path written.

        Raises:
            ValueError: a bad source name or record (its number is given), or one quantity with two records.
                The old file then stays.
        """
        if not isinstance(source, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", source):
            raise ValueError(f"source is {source!r}; allowed: letters, digits, '_', '-' and '.', no folders")
        lines, seen = [], {}
        for number, record in enumerate(records):
            try:
                record = validate_record(record)
            except ValueError as error:
                raise ValueError(f"{source}, record {number}: {error}") from None
            first = seen.setdefault(_identity(record), number)
            if first != number:
                raise ValueError(
                    f"{source}: records {first} and {number} give two values of {_describe(record)}"
                )
            order = [record[key] for key in ("table", "set", "split", "context", "metric", "method")]
            lines.append((order, record["seed"], json.dumps(record, ensure_ascii=False, allow_nan=False)))
        text = "".join(line + "\n" for *_, line in sorted(lines))
        return atomic_write(self.folder / f"{source}.jsonl", text)

    def records(self, **equals) -> list[dict]:
        """Read the records of all sources.

        Args:
            **equals: keep records where each key has this value, e.g. ``method="open_mede", context="in"``; a
                list, tuple or set keeps any of its values.

        Returns:
            Dicts in the order of file names, then lines, each with its ``source``.

        Raises:
            ValueError: a line that is not a whole valid record (file and line are named), one quantity
                measured in two sources, or a key that no record has.
        """
        found, seen = [], {}
        paths = sorted(path for path in self.folder.glob("*.jsonl") if not path.name.startswith("."))
        for path in paths:
            for number, record in enumerate(_read(path), start=1):
                first = seen.setdefault(_identity(record), f"{path} line {number}")
                if first != f"{path} line {number}":
                    raise ValueError(
                        f"{path} line {number} measures again what {first} does: {_describe(record)}"
                    )
                found.append({**record, "source": path.stem})
        known = {key for record in found for key in record} | {*REQUIRED, "source"}
        unknown = sorted(equals.keys() - known)
        if unknown and found:
            raise ValueError(f"no record has the key {', '.join(unknown)}; keys: {', '.join(sorted(known))}")
        wanted = {k: v if isinstance(v, (list, tuple, set)) else (v,) for k, v in equals.items()}
        return [r for r in found if all(r.get(key) in values for key, values in wanted.items())]

    def frame(self, **equals) -> pd.DataFrame:
        """The records as a table, one row each (none without records); arguments as in :meth:`records`."""
        records = self.records(**equals)
        extra = sorted({key for record in records for key in record} - {*REQUIRED, "source"})
        return pd.DataFrame(records, columns=[*REQUIRED, *extra, "source"])


def _read(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        raise ValueError(
            f"{path} line {len(lines)} is half-written (no line end): run the step that writes it again"
        )
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not a record")
            records.append(validate_record(record))
        except ValueError as error:  # JSONDecodeError is one
            raise ValueError(f"{path} line {number} is no valid record: {error}") from None
    return records


def _describe(record: dict) -> str:
    return ", ".join(f"{key}={record[key]}" for key in REQUIRED if key not in _MEASURED)
