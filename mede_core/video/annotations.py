"""Readers of the annotation files people really have.

A reader says which videos there are, of which class and in which splits; it never stops at a bad line but lists it.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .classes import read_class_map, read_json, read_text, unknown_label
from .locate import SPLIT_FOLDER, Files


@dataclass
class Entry:
    """One video as the annotations name it: where it may lie below the root, most likely first; its class and splits.

    No split means that the annotations leave it unused; ``where`` is the file and line that name it.
    """

    names: tuple[str, ...]
    label: str
    splits: list[str]
    where: str


@dataclass
class Annotations:
    """What a reader found.

    Attributes:
        classes: all classes in label order, as the dataset spells them.
        problems: bad lines, one line each.
        anywhere: file names are unique in this dataset, so a video counts wherever it lies below the root.
        fold: so are they without upper and lower case.
    """

    classes: list[str]
    problems: list[str] = field(default_factory=list)
    anywhere: bool = False
    fold: bool = False
    entries: list[Entry] = field(default_factory=list)
    _seen: dict[str, Entry] = field(default_factory=dict)

    def add(self, names: Sequence[str], label: str, split: str, where: str, key: str = "") -> None:
        """Add a video, or a split to one with the same key (default: name); contradictions become problems."""
        key = key or names[0]
        entry = self._seen.get(key)
        if entry is None:
            entry = self._seen[key] = Entry(tuple(names), label, [split] if split else [], where)
            self.entries.append(entry)
        elif entry.label != label:
            self.problems.append(f"{where}: {names[0]!r} is labeled {label!r}, but {entry.label!r} in {entry.where}")
        elif split and split not in entry.splits:
            clash = [other for other in entry.splits if _exclude(split, other)]
            if clash:
                self.problems.append(f"{where}: {names[0]!r} is in {split}, but in {clash[0]} in {entry.where}")
            entry.splits.append(split)


def _exclude(one: str, two: str) -> bool:
    """Whether two splits must be disjoint: train and test of the same number."""
    (kind, number), (other, same) = (re.fullmatch(r"(.*?)[_-]?(\d*)", name).groups() for name in (one, two))
    return kind != other and "train" in (kind, other) and (number == same or not (number and same))


# ------------------------------------------------------------------------------------ finding and reading the files
def _located(folder: Path, fits: Callable[[str], bool], what: str) -> list[Path]:
    """The fitting files of the first folder that holds any: the given one, then those one and two below it."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ValueError(f"annotations {os.fspath(folder)!r}: no such file or folder")
    level = [folder]
    for _ in range(3):
        below: list[Path] = []
        for place in level:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            files = [Path(entry.path) for entry in entries if entry.is_file() and fits(entry.name)]
            if files:
                return files
            below += [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        level = below
    raise ValueError(f"annotations {os.fspath(folder)!r}: no {what} there or up to two folders below")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, text) of each line that is not blank."""
    for number, line in enumerate(read_text(path, "annotations").splitlines(), 1):
        if line.strip():
            yield f"{path.name}:{number}", line.strip()


# ------------------------------------------------------------------------------------ the datasets
def read_kinetics(annotations: Path) -> Annotations:
    """Kinetics-400/600: official CSVs with ``label,youtube_id,time_start,time_end,split`` in any order.

    Videos are named ``{id}_{start:06d}_{end:06d}`` or, in compressed copies, ``{id}``. Without a split column the
    CSV's name gives the split. Classes are numbered in alphabetical order. A class with hardly any video that is
    spelled almost like another one is reported.
    """
    found = Annotations([], anywhere=True)
    labels: Counter[str] = Counter()
    for path in _located(annotations, lambda name: name.lower().endswith(".csv"), "CSV"):
        rows = csv.DictReader(read_text(path, "annotations").splitlines(), skipinitialspace=True)
        if not {"label", "youtube_id"} <= set(rows.fieldnames or ()):
            found.problems.append(f"{path.name}: no Kinetics CSV, it lacks the columns label and youtube_id")
            continue
        from_name = re.search(r"(train|val|test)", path.stem.lower())
        for row in rows:
            where = f"{path.name}:{rows.line_num}"
            label, video = ((row[key] or "").strip() for key in ("label", "youtube_id"))
            text = (row.get("split") or (from_name[1] if from_name else "")).strip().lower()
            split = "val" if text in ("val", "validate", "validation") else text
            try:
                times = [int(float(row.get(key) or "nan")) for key in ("time_start", "time_end")]
            except ValueError:
                times = []
            if not label or not video:
                found.problems.append(f"{where}: label or youtube_id is empty")
            elif split not in ("train", "val", "test"):
                found.problems.append(f"{where}: split is {text!r}; allowed: train, val, validate, test")
            else:
                folder = f"{split}/{label.replace('/', '_')}"
                full = [f"{folder}/{video}_{times[0]:06d}_{times[1]:06d}.mp4"] if times else []
                found.add([*full, f"{folder}/{video}.mp4"], label, split, where, f"{video} {times}")
                labels[label] += 1
    found.classes = sorted(labels)
    usual = median(labels.values()) if labels else 0
    for label in found.classes:
        others = [name for name in found.classes if name != label]
        if labels[label] * 10 <= usual and "did you mean" in (said := unknown_label(label, others)):
            found.problems.append(f"class {label!r} has {labels[label]} of usually {usual:g} videos: {said}")
    return found


def read_ucf101(annotations: Path) -> Annotations:
    """UCF101: ``classInd.txt``, ``trainlist0N.txt`` ("Class/file.avi 1"), ``testlist0N.txt`` (path only).

    The class is the folder's name; upper and lower case do not count, because the official lists say
    HandstandPushups for the folder and HandStandPushups in the file names.
    """
    files = _located(annotations, lambda name: name == "classInd.txt", "classInd.txt")
    folder = files[0].parent
    classes = read_class_map(folder / "classInd.txt")
    found = Annotations(classes, anywhere=True, fold=True)
    spelled = {name.casefold(): (number, name) for number, name in enumerate(classes, 1)}
    for kind, n in ((kind, n) for n in (1, 2, 3) for kind in ("train", "test")):
        path = folder / f"{kind}list0{n}.txt"
        if not path.is_file():
            found.problems.append(f"{path.name}: no such file")
            continue
        for where, line in _lines(path):
            name, _, code = line.rpartition(" ") if re.search(r" \d+$", line) else (line, "", "")
            number, label = spelled.get(name.partition("/")[0].casefold(), (0, ""))
            if "/" not in name or not label:
                said = unknown_label(name.partition("/")[0], classes)
                found.problems.append(f"{where}: {said}" if "/" in name else f"{where}: {name!r} has no class folder")
                continue
            if code and int(code) != number:
                found.problems.append(f"{where}: {name!r} has the label {code}, but classInd.txt says {number}")
            found.add([name], label, f"{kind}{n}", where)
    return found


def read_hmdb51(annotations: Path) -> Annotations:
    """HMDB51: ``<class>_test_split{1,2,3}.txt`` with lines "file.avi code"; 1 = train, 2 = test, 0 = unused.

    A video with code 0 is in neither: training on those instead of code 1, as one peer's lists do, is a bug.
    """
    pattern = re.compile(r"(.+)_test_split([123])\.txt")
    files = _located(annotations, lambda name: bool(pattern.fullmatch(name)), "<class>_test_split1.txt")
    matches = {path: pattern.fullmatch(path.name) for path in files}
    found = Annotations(sorted({match[1] for match in matches.values()}), anywhere=True)
    for label, n in ((label, n) for label in found.classes for n in "123"):
        if not any(match.groups() == (label, n) for match in matches.values()):
            found.problems.append(f"{label}_test_split{n}.txt: no such file")
    for path, match in matches.items():
        for where, line in _lines(path):
            name, _, code = line.rpartition(" ")
            if not name or code not in ("0", "1", "2"):
                found.problems.append(f"{where}: {line!r}; expected a file name and the code 0, 1 or 2")
                continue
            split = {"0": "", "1": f"train{match[2]}", "2": f"test{match[2]}"}[code]
            found.add([f"{match[1]}/{name.strip()}"], match[1], split, where)
    return found


def read_ssv2(annotations: Path) -> Annotations:
    """Something-Something v2: the JSON files ``labels``, ``train`` and ``validation``, with or without the prefix."""
    pattern = re.compile(r"(?:something-something-v2-)?(labels|train|validation)\.json")
    files = _located(annotations, lambda name: bool(pattern.fullmatch(name)), "labels.json")
    paths = {pattern.fullmatch(path.name)[1]: path for path in files if pattern.fullmatch(path.name)}
    if "labels" not in paths:
        raise ValueError(f"annotations {os.fspath(annotations)!r}: no labels.json beside {files[0].name}")
    found = Annotations(read_class_map(paths["labels"]), anywhere=True)
    classes = set(found.classes)
    for split in ("train", "validation"):
        if split not in paths:
            found.problems.append(f"{split}.json: no such file")
            continue
        rows = read_json(paths[split], "annotations")
        for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
            where = f"{paths[split].name}, entry {number}"
            label = re.sub(r"[\[\]]", "", str(row.get("template", ""))) if isinstance(row, dict) else ""
            if not label or "id" not in row:
                found.problems.append(f"{where}: it lacks id or template")
            elif label not in classes:
                found.problems.append(f"{where}: {unknown_label(label, found.classes)}")
            else:
                found.add([f"{row['id']}.webm"], label, split, where)
    return found


def read_lists(annotations: Path, classes: Path | None = None) -> Annotations:
    """The peers' lists, ``path,label`` or ``path label``, one file for each split and named like it.

    Integer labels need the classes: given, or the one ``*index2cls*.json`` or ``id,name`` CSV beside the lists.
    Blanks and commas in a path are kept: the label is what follows the last separator.
    """
    fits = re.compile(r".*\.(csv|txt|list)", re.IGNORECASE).fullmatch
    files = _located(annotations, lambda name: bool(fits(name)), "list (.csv, .txt)")
    header = re.compile(r"\s*id\s*,\s*name\s*(\n|$)", re.IGNORECASE)
    maps = {path for path in files if header.match(read_text(path, "annotations"))}
    beside = sorted(files[0].parent.iterdir())
    maps |= {path for path in beside if "index2cls" in path.name and path.suffix == ".json"}
    if classes is None and maps:
        different = {tuple(read_class_map(path)) for path in maps}
        if len(different) > 1:
            names = ", ".join(sorted(path.name for path in maps))
            raise ValueError(f"annotations {os.fspath(annotations)!r}: several class files ({names}); choose one")
        classes = min(maps)
    names = read_class_map(classes) if classes else []
    lists = [path for path in files if path not in maps and (classes is None or path.resolve() != classes.resolve())]
    rows = [(path.stem.replace(" ", "_"), *row) for path in lists for row in _list_rows(path)]
    if not classes:
        if any(isinstance(label, int) for *_, label in rows):
            raise ValueError(f"annotations {os.fspath(annotations)!r}: labels are integers; give the classes file")
        names = sorted({label for *_, label in rows if label})
    found = Annotations(names)
    for split, where, paths, label in rows:
        if isinstance(label, int) and label < len(names):
            label = names[label]
        if not label or label not in names:
            found.problems.append(f"{where}: {unknown_label(str(label), names) if paths else 'no path and label'}")
        else:
            found.add(paths, label, split, where)
    return found


def _list_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...], str | int]]:
    """(file:line, names, label) of a list; the names are as written and, where quoted, without quotes."""
    lines = list(_lines(path))
    numbered = re.compile(r"(.*\S)\s*[,\s]\s*(\d+)")
    if lines and all(numbered.fullmatch(line) for _, line in lines):
        for where, line in lines:
            name, label = numbered.fullmatch(line).groups()
            bare = name[1:-1].replace('""', '"') if len(name) > 1 and name[0] == name[-1] == '"' else name
            yield where, tuple(dict.fromkeys((name, bare))), int(label)
        return
    for where, line in lines:
        cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        if [cell.lower() for cell in cells[:2]] == ["path", "label"]:
            continue
        good = len(cells) == 2 and all(cells)
        label = cells[1] if good else ""
        yield where, (cells[0],) if good else (), int(label) if label.isdigit() else label


def read_folders(files: Files) -> Annotations:
    """A folder for each class, or folders train, val(idation) and test that hold those."""
    parts = [name.split("/") for name in files.names]
    tops = {part[0] for part in parts if len(part) > 1}
    nested = bool(tops) and all(SPLIT_FOLDER.fullmatch(top) for top in tops) and any(len(part) > 2 for part in parts)
    level = 1 if nested else 0
    found = Annotations(sorted({part[level] for part in parts if len(part) > level + 1}))
    for name, part in zip(files.names, parts):
        if len(part) <= level + 1:
            found.problems.append(f"{name!r} lies in no class folder")
        else:
            found.add([name], part[level], SPLIT_FOLDER.fullmatch(part[0])[1].lower() if nested else "", name)
    return found
