"""From a dataset's folder and annotation files to a manifest: what is there, what is missing, what contradicts what."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from ..files import atomic_write
from ..flags import File, NewFile, Workers
from . import annotations as forms
from .annotations import Annotations, Entry
from .classes import check_class_names, clean_name, plain
from .decode import VideoInfo, reencode_all
from .lists import some, tidy
from .locate import Files, folder_problem, folders
from .manifest import COLUMNS, Manifest, ManifestError, check_manifest, listed_halves, rule_halves, zero_shot_halves

Pixels = Annotated[int, Field(ge=32, le=4096)]
_SHOWN, _CLASSES = 5, 20  # problems of a kind, and classes, that the report spells out; the JSON file holds all


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset: its reader, classes, expected videos of splits and of ``all``, and a note on them."""

    read: Callable[[Path, Files, Path | None], Annotations]
    classes: int | None = None
    videos: Mapping[str, int] = field(default_factory=dict)
    train: str = "train"  # the split whose counts decide base and novel
    note: str = ""
    split_folders: bool = False  # folders named train, val or test speak for the split


_KINETICS = "Copies of Kinetics differ: peers evaluated on 19,740 to 19,877 validation videos of Kinetics-400."
_HMDB = {f"{kind}{n}": count for n in (1, 2, 3) for kind, count in (("train", 3570), ("test", 1530))}
_UCF = {"train1": 9537, "test1": 3783, "train2": 9586, "test2": 3734, "train3": 9624, "test3": 3696}
DATASETS = {
    "kinetics400": Dataset(lambda a, f, c: forms.read_kinetics(a), 400, note=_KINETICS, split_folders=True),
    "kinetics600": Dataset(
        lambda a, f, c: forms.read_kinetics(a), 600, {"test1": 7276, "test2": 7226, "test3": 7261}, split_folders=True,
        note="Zero-shot: validation videos only, as Open-VCLIP; ViFi-CLIP's test mixes in training and test videos.",
    ),
    "ucf101": Dataset(lambda a, f, c: forms.read_ucf101(a), 101, {"all": 13320, **_UCF}, "train1"),
    "hmdb51": Dataset(lambda a, f, c: forms.read_hmdb51(a), 51, {"all": 6766, **_HMDB}, "train1"),
    "ssv2": Dataset(lambda a, f, c: forms.read_ssv2(a), 174, {"validation": 24777}),
    "list": Dataset(lambda a, f, c: forms.read_lists(a, c)),
    "folder": Dataset(lambda a, f, c: forms.read_folders(f)),
}  # fmt: skip


@dataclass
class Prepared:
    """What :func:`prepare` wrote (the manifest, and the JSON file beside it) and found: {kind: problems}, and notes."""

    csv: Path
    sidecar: dict
    problems: dict[str, list[str]]
    notes: list[str]

    def report(self) -> str:
        side, rest = self.sidecar, f", see {self.csv.stem}.json"
        usable = f"{side['counts']['all']['videos']:,}"
        lines = [f"{side['dataset']}: {usable} usable videos of {len(side['classes'])} classes"]
        lines += [f"  {'split':12s} {'videos':>9s} {'expected':>9s} {'classes':>8s}"]
        for name, count in side["counts"].items():
            expected = "" if count["expected"] is None else f"{count['expected']:,}"
            lines.append(f"  {name:12s} {count['videos']:>9,} {expected:>9s} {count['classes']:>8d}")
        lines.append(f"base {len(side['base'])}, novel {len(side['novel'])} classes; {side['base_novel_source']}")
        lines += [f"  {half}: {', '.join(some(side[half], _SHOWN))}" for half in ("base", "novel") if side[half]]
        if side["base"] and not side["comparable"]:
            lines.append("  not comparable with the published base-to-novel numbers")
        lines += [f"note: {note}" for note in self.notes]
        for kind, found in {**self.problems, "files that are no videos": side["no_videos"]}.items():
            lines += [f"{kind}: {len(found)}", *(f"  {line}" for line in some(found, _SHOWN, rest))] if found else []
        counted = sorted(side["per_class"].items(), key=lambda item: -item[1][1])  # most left out first
        lines.append(f"read {usable}, left out {sum(out for _, (_, out) in counted):,}:")
        classes = [f"{name}: {read:,} read, {out:,} left out" for name, (read, out) in counted]
        lines += [f"  {line}" for line in some(classes, _CLASSES, rest)]
        lines.append(f"{sum(map(len, self.problems.values()))} problems; written: {self.csv}, {self.csv.stem}.json")
        return "\n".join(lines)


def prepare(
    dataset: Literal[tuple(DATASETS)],
    root: str,
    out: NewFile,
    *,
    annotations: str = "",
    classes: File = "",
    splits: Sequence[str] = (),
    base: File = "",
    novel: File = "",
    zero_shot: Sequence[File] = (),
    check: Literal["full", "open", "none"] = "full",
    workers: Workers = 0,
    short_side: Pixels = 0,
    jobs: Workers = 0,
) -> Prepared:
    """Make a manifest of a dataset on disk: a CSV, and beside it a JSON file with classes, splits, counts and problems.

    Problems are collected, never stopped at: files that are missing or cannot be decoded are left out of the CSV and
    listed in the JSON file.

    Below the root belong: ucf101: UCF101.rar of UCF's CRCV, and its ucfTrainTestlist. hmdb51: hmdb51_org.rar of Brown's
    Serre Lab, each rar in it unpacked, and its split files. kinetics400, kinetics600: the videos as the CVD Foundation
    (kinetics-dataset) keeps them, and DeepMind's train and validation csv. ssv2: Qualcomm's Something-Something V2,
    its parts joined and unpacked, and its json labels.

    Then name the CSV in data.yaml: `make reproduce PROFILE=paper DRY=1` times this machine as `mede cost` does, and
    says the hours and the disk; without DRY=1 it makes the tables.

    Args:
        dataset: what it is; list: of path,label; folder: one for each class
        root: folder of the videos, in whatever folders below it
        out: the CSV to write; the JSON file gets the same stem
        annotations: folder or file of the annotations (default: the root and two folders below it)
        classes: file of the class names, for the dataset list
        splits: take these splits alone, for example val
        base: published list of the base classes (default: the more frequent half)
        novel: published list of the novel classes
        zero_shot: class lists of kinetics600's zero-shot splits test1, test2, ...
        check: full decodes every file (0.1 s a clip), open its beginning (0.01 s), none only looks if it is there
        workers: threads of the check; 0: one for each CPU, at most 8
        short_side: first write larger videos anew with this short side (256 is usual), into a folder beside the CSV,
            which then lists them; after an interruption the same line goes on
        jobs: processes that do so; 0: one for each CPU
    """
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise ValueError(f"root {os.fspath(root)!r}: no such folder")
    if out.suffix != ".csv":
        raise ValueError(f"out is {os.fspath(out)!r}; it must end in .csv")
    if bool(base) != bool(novel):
        raise ValueError(f"base is {base!r} and novel is {novel!r}; give both lists or none")
    if classes and dataset != "list":
        raise ValueError(f"classes is {os.fspath(classes)!r}; only the dataset 'list' takes it, not {dataset!r}")
    if zero_shot and dataset != "kinetics600":
        raise ValueError(f"zero_shot lists are for kinetics600, not {dataset!r}")
    smaller = out.with_name(f"{out.stem}_{short_side}")
    spec, files = DATASETS[dataset], Files(root, smaller)
    found = spec.read(Path(annotations or root), files, Path(classes) if classes else None)
    if not found.classes:
        raise ManifestError(root, found.problems or ["no video is named"], "no usable annotations")
    try:
        names = check_class_names([clean_name(dataset, name) for name in found.classes])
    except ValueError as error:
        raise ValueError(f"annotations {os.fspath(annotations or root)!r}: {error}") from error
    clean = dict(zip(found.classes, names))
    for entry in found.entries:
        entry.label = clean[entry.label]
    known = sorted({split for entry in found.entries for split in entry.splits})
    if set(splits) - set(known):
        raise ValueError(f"splits hold {sorted(set(splits) - set(known))}; allowed: {', '.join(known)}")
    entries = [entry for entry in found.entries if not splits or set(entry.splits) & set(splits)]
    # Lists that cannot be read must end it before hours of decoding; counts are those of the annotations, so that a
    # missing file changes no half.
    train = Counter(entry.label for entry in found.entries if spec.train in entry.splits)
    halves = listed_halves(base, novel, names, train) if base else rule_halves(names, train)
    sets, zero_problems = zero_shot_halves(zero_shot, names)
    problems = {"bad annotations": [*files.problems, *found.problems]}
    problems["base/novel and zero-shot lists"] = halves.problems + zero_problems

    located, rows, home = _locate(entries, files, found, spec, problems), [], smaller if short_side else root
    notes = [*[spec.note] * bool(spec.note), *(f"taken for {said}" for said in found.notes)]
    if short_side:
        paths, bad = reencode_all(root, list(located), home, short_side, jobs)
        problems["files that cannot be written anew"] = [f"{name}: {why}" for name, why in bad.items()]
        located = {path: entry for path, (name, entry) in zip(paths, located.items(), strict=True) if name not in bad}
    infos: list[VideoInfo | str | None] = [None] * len(located)
    if check != "none":
        infos = check_manifest(Manifest([home / name for name in located], [], names, home), check, workers=workers)
    problems["undecodable files"] = [f"{name}: {one}" for name, one in zip(located, infos) if isinstance(one, str)]
    for (name, entry), info in zip(located.items(), infos):
        if isinstance(info, str):
            continue
        member = [split for split in entry.splits if not splits or split in splits]
        member += [split for split, chosen in sets.items() if entry.label in chosen and "val" in member]
        seconds = f"{info.frames / info.fps:.6g}" if info and info.fps else ""
        looked = (info.frames, seconds, str(info.timeline)) if info else ("", "", "")
        rows.append((name, entry.label, " ".join(member), *looked))
    if short_side:
        kept = sum(os.path.isabs(name) for name, *_ in rows)
        notes.append(f"{len(rows) - kept} videos are read from {home}; {kept} stay where they are")
    if not rows:
        advice = "; ".join(["no usable video", *(f"taken for {said}" for said in found.notes)])
        raise ManifestError(root, [line for lines in problems.values() for line in lines], advice)
    number = {name: i for i, name in enumerate(names)}
    rows.sort(key=lambda row: (number[row[1]], row[0]))
    counts = {}
    problems["counts"] = [f"{len(names)} classes, expected {spec.classes}"] * (spec.classes not in (None, len(names)))
    for split in ("all", *(splits or known), *sets):
        labels = [label for _, label, members, *_ in rows if split in ("all", *members.split())]
        expected = None if splits and split == "all" else spec.videos.get(split)
        counts[split] = {"videos": len(labels), "classes": len(set(labels)), "expected": expected}
        if expected not in (None, len(labels)):
            problems["counts"].append(f"{split}: {len(labels)} usable videos, expected {expected}")
    asked, read = Counter(entry.label for entry in entries), Counter(label for _, label, *_ in rows)
    problems["counts"] += [f"class {c!r}: none of its {n} videos is usable" for c, n in asked.items() if not read[c]]
    problems = {kind: lines for kind, lines in problems.items() if lines}
    odd = Counter(clean[tidy(part)] for name in files.left_out for part in folders(name) if tidy(part) in clean)
    if silent := [name for name in names if not asked[name]]:
        notes.append(f"{len(silent)} classes have no video in the annotations: {', '.join(map(repr, silent[:_SHOWN]))}")
    if extra := len(files.names) - len(rows):
        notes.append(f"{extra} more video files below the root are not in the manifest")
    text = pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n")
    sidecar = {
        "dataset": dataset, "root": os.path.abspath(home), "classes": names,
        "splits": {split: {"classes": chosen} for split, chosen in sets.items()},
        "base": halves.base, "novel": halves.novel, "base_novel_source": halves.source,
        "comparable": halves.comparable, "counts": counts, "check": check,
        "per_class": {name: [read[name], asked[name] - read[name] + odd[name]] for name in names},
        "no_videos": [f"{name}: {why}" for name, why in sorted(files.left_out.items())],
        "problems": [f"{kind}: {line}" for kind, lines in problems.items() for line in lines],
        "csv_sha256": hashlib.sha256(text.encode()).hexdigest(),  # tells a sidecar of another CSV
    }  # fmt: skip
    atomic_write(out, text)
    atomic_write(out.with_suffix(".json"), json.dumps(sidecar, indent=1, ensure_ascii=False) + "\n")
    return Prepared(out, sidecar, problems, notes)


def _locate(entries, files: Files, found: Annotations, spec: Dataset, problems) -> dict[str, Entry]:
    """The entry of each file; what is missing, doubled or in a folder that contradicts it becomes a problem."""
    located, missing, classes = {}, [], {plain(name) for name in found.classes}
    against: dict[str, list[str]] = {}
    for entry in entries:
        name, reason = files.find(entry.names, anywhere=found.anywhere, fold=found.fold)
        if name is None:
            missing.append((entry, f"{entry.names[0]}: {reason} ({entry.where})"))
        elif name in located:
            twice = f"{located[name].where} and {entry.where} both name it"
            problems["bad annotations"].append(f"{name}: {twice}")
        else:
            located[name] = entry
            if said := folder_problem(name, entry.label, entry.splits, classes, splits=spec.split_folders):
                against.setdefault(entry.where.rpartition(":")[0], []).append(f"{name}: {said} ({entry.where})")
    there = Counter(split for entry in located.values() for split in entry.splits)
    absent = Counter(split for entry, _ in missing for split in entry.splits if not there[split])
    lines = [f"split {split}: none of its {n} videos is there" for split, n in absent.items()]
    lines += [line for entry, line in missing if not entry.splits or any(there[split] for split in entry.splits)]
    problems["missing files"] = lines
    sources = Counter(entry.where.rpartition(":")[0] for entry in located.values())
    problems["folders against the annotations"] = []
    for source, lines in against.items():
        if len(lines) > _SHOWN and 2 * len(lines) > sources[source]:
            many = f"{len(lines)} of {sources[source]} videos lie in a folder of another class or split"
            lines = [f"{source}: {many}, is it the right label file? {lines[0]}"]
        problems["folders against the annotations"] += lines
    return located
