"""Class names: as lists give them, as they are compared, and as a prompt says them."""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path


def plain(name: str) -> str:
    """A class name without case, blanks and signs, as names are compared."""
    return re.sub(r"[\W_]", "", name).casefold()


def unknown_label(label: str, names: Sequence[str]) -> str:
    """Say that a label is no class name, and which one may be meant."""
    if is_index(label):
        return f"label {label} is out of range 0 to {len(names) - 1}"
    spelled = {plain(name): name for name in names}
    close = difflib.get_close_matches(plain(label), spelled, n=1)
    return f"unknown label {label!r}" + (f"; did you mean {spelled[close[0]]!r}?" if close else "")


def is_index(label: str) -> bool:
    """Whether a label is a number."""
    return label.isascii() and label.isdigit()


def clean_name(dataset: str, name: str) -> str:
    """A class name of a dataset's files as a prompt says it, without surrounding and double blanks.

    Kinetics: lower case. UCF101: camel case split, "YoYo" becomes "Yoyo". HMDB51 and folders: blanks for underscores.
    SSv2: without brackets. Lists: as it is.
    """
    if dataset in ("kinetics400", "kinetics600"):
        name = name.lower()
    elif dataset == "ucf101":
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("YoYo", "Yoyo"))
    elif dataset in ("hmdb51", "folder"):
        name = name.replace("_", " ")
    elif dataset == "ssv2":
        name = re.sub(r"[\[\]]", "", name)
    return " ".join(name.split())


def check_class_names(names: Sequence[str]) -> list[str]:
    """The names without surrounding blanks; none, an empty one or duplicates (without case) are refused."""
    stripped = [str(name).strip() for name in names]
    folded = [name.casefold() for name in stripped]
    duplicates = sorted({name for name, key in zip(stripped, folded, strict=True) if folded.count(key) > 1})
    if not stripped or not all(stripped):
        raise ValueError(f"classes: {len(stripped)} names, {stripped.count('')} of them empty; expected at least one")
    if duplicates:
        raise ValueError(f"classes hold duplicates: {', '.join(map(repr, duplicates))}")
    return stripped


def read_text(path: Path, what: str) -> str:
    """A text file's content, whatever mark of its encoding stands first; ``what`` names it in an error."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {os.fspath(path)!r} cannot be read: {error}") from error


def read_json(path: Path, what: str):
    """What a JSON file holds."""
    try:
        return json.loads(read_text(path, what))
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} {os.fspath(path)!r} is not JSON: {error}") from error


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Class names from a text file, one on each line; blank lines are skipped."""
    return check_class_names([line for line in read_text(Path(path), "classes file").splitlines() if line.strip()])


def read_class_map(path: str | os.PathLike) -> list[str]:
    """Class names in label order from a file of any form that is about.

    JSON {"0": name}, {name: 0} or [name, ...] (the peers' ``*-index2cls.json``), a CSV with the header ``id,name``, or
    text with one name on each line, or with "index name" on each. Indices must be 0 .. n - 1 or 1 .. n.
    """
    path = Path(path)
    lines = read_text(path, "classes file").splitlines()
    if path.suffix.lower() == ".json":
        content = read_json(path, "classes file")
        if not content or not isinstance(content, (dict, list)):
            raise ValueError(f"classes file {os.fspath(path)!r}: expected indices and names")
        pairs = list(content.items()) if isinstance(content, dict) else list(enumerate(content))
        pairs = [pair if str(pair[0]).isdigit() else pair[::-1] for pair in pairs]
    elif lines and [cell.strip().lower() for cell in lines[0].split(",")][:2] == ["id", "name"]:
        pairs = [tuple(row[:2]) for row in list(csv.reader(lines, skipinitialspace=True))[1:] if len(row) > 1]
    else:
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        if not all(len(pair) == 2 and pair[0].isdigit() for pair in pairs):
            return read_class_names(path)
    if not pairs or not all(str(index).isdigit() and isinstance(name, str) for index, name in pairs):
        raise ValueError(f"classes file {os.fspath(path)!r}: expected indices and names")
    pairs = sorted((int(index), name) for index, name in pairs)
    if [index - pairs[0][0] for index, _ in pairs] != list(range(len(pairs))) or pairs[0][0] not in (0, 1):
        raise ValueError(f"classes file {os.fspath(path)!r}: indices are not 0 to {len(pairs) - 1}, each once")
    try:
        return check_class_names([name for _, name in pairs])
    except ValueError as error:
        raise ValueError(f"classes file {os.fspath(path)!r}: {error}") from error
