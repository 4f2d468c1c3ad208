"""Readers of the annotation files people really have: videos, classes, splits. Bad lines are listed, none stops one."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .classes import read_class_names, read_classes, resolve, unknown_label
from .lists import cells, header_of, is_hidden, read_json, read_lines, read_list, read_text, tidy
from .locate import SPLIT_FOLDER, Files


@dataclass
class Entry:
    names: tuple[str, ...]  # where it may lie below the root, most likely first
    label: str
    splits: list[str]  # none: the annotations leave it unused
    where: str  # the file and line that name it


@dataclass
class Annotations:
    """What a reader found: all classes in label order, as the dataset spells them, the videos, and bad lines."""

    classes: list[str]
    problems: list[str] = field(default_factory=list)
    anywhere: bool = False  # file names are unique in this dataset: a video counts wherever it lies below the root
    fold: bool = False  # so are they without upper and lower case
    notes: list[str] = field(default_factory=list)
    seen: dict[str, Entry] = field(default_factory=dict)  # by name, or the dataset's own key

    entries = property(lambda self: list(self.seen.values()))

    def add(self, names: Sequence[str], label: str, split: str, where: str, key: str = "") -> None:
        """Add a video, or a split to one with the same key (default: name); contradictions become problems."""
        key = key or names[0]
        entry = self.seen.get(key)
        if entry is None:
            self.seen[key] = Entry(tuple(names), label, [split] if split else [], where)
        elif entry.label != label:
            self.problems.append(f"{where}: {names[0]!r} is labeled {label!r}, but {entry.label!r} in {entry.where}")
        elif split in entry.splits and where.rpartition(":")[0] == entry.where.rpartition(":")[0]:
            self.problems.append(f"{where}: {names[0]!r} is there again, after {entry.where}")
        elif split and split not in entry.splits:
            if clash := [other for other in entry.splits if _exclude(split, other)]:
                self.problems.append(f"{where}: {names[0]!r} is in {split}, but in {clash[0]} in {entry.where}")
            entry.splits.append(split)


def _exclude(one: str, two: str) -> bool:
    """Whether two splits must be disjoint: train and test of the same number."""
    (kind, number), (other, same) = (re.fullmatch(r"(.*?)[_-]?(\d*)", name).groups() for name in (one, two))
    return kind != other and "train" in (kind, other) and (number == same or not (number and same))


# ------------------------------------------------------------------------------------ finding and reading the files
def _located(folder: Path, pattern: str, what: str) -> dict[Path, re.Match | None]:
    """The files of a name in the first folder that holds any: the given one, then those one and two below it."""
    fits = re.compile(pattern).fullmatch
    if folder.is_file():
        return {folder: fits(folder.name)}
    if not folder.is_dir():
        raise ValueError(f"annotations {os.fspath(folder)!r}: no such file or folder")
    for below in ("*", "*/*", "*/*/*"):
        files = sorted(path for path in folder.glob(below) if fits(path.name) and path.is_file())
        files = [path for path in files if not any(map(is_hidden, path.relative_to(folder).parts))]
        if files:
            return {path: fits(path.name) for path in files if path.parent == files[0].parent}
    raise ValueError(f"annotations {os.fspath(folder)!r}: no {what} there or up to two folders below")


# ------------------------------------------------------------------------------------ the datasets
_KINETICS = ("label", "youtube_id", "split", "time_start", "time_end")


def read_kinetics(annotations: Path) -> Annotations:
    """Kinetics-400/600: official CSVs with ``label,youtube_id,time_start,time_end,split`` in any order."""
    found = Annotations([], anywhere=True)
    labels: Counter[str] = Counter()
    for path in _located(annotations, r"(?i).*\.csv", "CSV"):
        lines = read_lines(path, "annotations", found.problems)
        separator, places = header_of(lines[0][1], *([name] for name in _KINETICS)) if lines else ("", [])
        if not separator:
            found.problems.append(f"{path.name}: no Kinetics CSV, it lacks the columns label and youtube_id")
            continue
        from_name = re.search(r"(train|val|test)", path.stem.lower())  # counts without a split column
        for number, line in lines[1:]:
            where, row = f"{path.name}:{number}", cells(line, separator)
            if row is None:
                found.problems.append(f"{where}: a quote is not closed: {line[:80]!r}")
                continue
            values = [row[i] if i is not None and i < len(row) else "" for i in places]
            label, video, split = tidy(values[0]), values[1], values[2] or (from_name[1] if from_name else "")
            split = "val" if split.lower() in ("val", "validate", "validation") else split.lower()
            times = [int(float(value)) for value in values[3:] if re.fullmatch(r"\d{1,9}(\.\d*)?", value)]
            if not label or not video:
                found.problems.append(f"{where}: label or youtube_id is empty")
            elif split not in ("train", "val", "test"):
                found.problems.append(f"{where}: split is {split!r}; allowed: train, val, validate, test")
            else:
                folder = f"{split}/{label.replace('/', '_')}"  # compressed copies leave the times out of the name
                full = [f"{folder}/{video}_{times[0]:06d}_{times[1]:06d}.mp4"] if len(times) == 2 else []
                if not full and any(values[3:]):
                    found.problems.append(f"{where}: times are {values[3]!r} and {values[4]!r}; expected seconds")
                found.add([*full, f"{folder}/{video}.mp4"], label, split, where, f"{video} {times}")
                labels[label] += 1
    found.classes = sorted(labels)
    usual = median(labels.values()) if labels else 0  # hardly any video, and almost another's name: a typing error
    for label in found.classes:
        others = [name for name in found.classes if name != label]
        if labels[label] * 10 <= usual and "did you mean" in (said := unknown_label(label, others)):
            found.problems.append(f"class {label!r} has {labels[label]} of usually {usual:g} videos: {said}")
    return found


def read_ucf101(annotations: Path) -> Annotations:
    """UCF101: ``classInd.txt``, ``trainlist0N.txt`` ("Class/file.avi 1"), ``testlist0N.txt`` (path only)."""
    folder = min(_located(annotations, r"classInd\.txt", "classInd.txt")).parent
    classes = read_class_names(folder / "classInd.txt")
    found = Annotations(classes, anywhere=True, fold=True)
    # The class is the folder, without case: the lists say HandstandPushups for it, HandStandPushups in file names.
    spelled = {name.casefold(): (number, name) for number, name in enumerate(classes, 1)}
    for kind, n in ((kind, n) for n in (1, 2, 3) for kind in ("train", "test")):
        path = folder / f"{kind}list0{n}.txt"
        if not path.is_file():
            found.problems.append(f"{path.name}: no such file")
            continue
        for row, line in read_lines(path, "annotations", found.problems):
            where, line = f"{path.name}:{row}", line.replace("\\", "/")
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
    """HMDB51: ``<class>_test_split{1,2,3}.txt`` with lines "file.avi code"; 1 = train, 2 = test, 0 = unused."""
    files = _located(annotations, r"(.+)_test_split([123])\.txt", "<class>_test_split1.txt")
    matches = {path: match for path, match in files.items() if match}
    found = Annotations(sorted({match[1] for match in matches.values()}), anywhere=True)
    for label, n in ((label, n) for label in found.classes for n in "123"):
        if not any(match.groups() == (label, n) for match in matches.values()):
            found.problems.append(f"{label}_test_split{n}.txt: no such file")
    for path, match in matches.items():
        for number, line in read_lines(path, "annotations", found.problems):
            where, (name, _, code) = f"{path.name}:{number}", line.rpartition(" ")
            if not name or code not in ("0", "1", "2"):
                found.problems.append(f"{where}: {line!r}; expected a file name and the code 0, 1 or 2")
                continue
            # Training on code 0 instead of 1, as one peer's lists do, is a bug.
            split = {"0": "", "1": f"train{match[2]}", "2": f"test{match[2]}"}[code]
            found.add([f"{match[1]}/{name.strip()}"], match[1], split, where)
    return found


def read_ssv2(annotations: Path) -> Annotations:
    """Something-Something v2: the JSON files ``labels``, ``train`` and ``validation``, with or without the prefix."""
    files = _located(annotations, r"(?:something-something-v2-)?(labels|train|validation)\.json", "labels.json")
    paths = {match[1]: path for path, match in files.items() if match}
    if "labels" not in paths:
        raise ValueError(f"annotations {os.fspath(annotations)!r}: no labels.json beside {min(files).name}")
    found = Annotations(read_class_names(paths["labels"]), anywhere=True)
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
    """Lists of videos and labels, one file for each split and named like it, unless a column says so."""
    files = [*_located(annotations, r"(?i).*\.(csv|tsv|txt|list|lst)", "list (.csv, .txt)")]
    # Integer labels need the classes: given, or the one `*index2cls*.json` or `id,name` CSV beside the lists.
    header = re.compile(r"\s*(id|index)\s*[,;\t]\s*name\s*([\r\n]|$)", re.IGNORECASE)
    maps = {path for path in files if header.match(read_text(path, "annotations"))}
    beside = sorted(path for path in files[0].parent.iterdir() if not is_hidden(path.name))
    maps |= {path for path in beside if "index2cls" in path.name and path.suffix == ".json"}
    if classes is None and maps:
        if len({tuple(read_classes(path).items()) for path in maps}) > 1:
            names = ", ".join(sorted(path.name for path in maps))
            raise ValueError(f"annotations {os.fspath(annotations)!r}: several class files ({names}); choose one")
        classes = min(maps)
    lists = [path for path in files if path not in maps and (classes is None or path.resolve() != classes.resolve())]
    read = [read_list(path) for path in lists]
    found = Annotations([], [problem for _, problems, _ in read for problem in problems])
    rows = [row for of_list, _, _ in read for row in of_list]
    found.classes, known = resolve(rows, read_classes(classes) if classes else None, found.problems)
    found.notes = [said for _, _, said in read]
    for row, label in known:
        stem = row.file.rpartition(".")[0]
        found.add(row.paths, label, (row.split.lower() or stem).replace(" ", "_"), row.where)
    return found


def read_folders(files: Files) -> Annotations:
    """A folder for each class, or folders train, val(idation) and test that hold those."""
    tops = {name.partition("/")[0] for name in files.names if "/" in name}
    split = {top: match[1].lower() for top in tops if (match := SPLIT_FOLDER.fullmatch(top))}
    nested = bool(tops) and len(split) == len(tops) and any(name.count("/") > 1 for name in files.names)
    found, seen = Annotations([]), set()
    for name in files.names:
        part = name.split("/")[nested:]
        if len(part) < 2:
            found.problems.append(f"{name!r} lies in no class folder")
        else:
            seen.add(tidy(part[0]))
            found.add([name], tidy(part[0]), split[name.partition("/")[0]] if nested else "", name)
    found.classes = sorted(seen)
    places = [folder.split("/") for folder in files.folders if folder]
    empty = {tidy(p[nested]) for p in places if len(p) == nested + 1 and (not nested or p[0] in split)}
    found.problems += [f"class {name!r}: no video in its folder" for name in sorted(empty - seen)]
    return found
