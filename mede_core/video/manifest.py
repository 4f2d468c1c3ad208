"""Lists of labeled videos, plain ones and those that ``prepare`` wrote; a check of every file in one. Torch-free."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from ..files import available_cpus, progress
from .classes import check_class_names, class_of, unknown_label
from .decode import VideoError, VideoInfo, probe
from .lists import is_there, read_list
from .splits import few_shot
from .timeline import Timeline, parse

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split", "frames", "duration", "timeline")  # of a prepared list
_SHOWN = 20  # problems spelled out in an error; all of them are in its `problems`


class ManifestError(ValueError):
    """What is wrong with a list of videos, all of it at once."""

    def __init__(self, source, problems: Sequence[str], advice: str = ""):
        self.problems = list(problems)
        count, lines = len(self.problems), self.problems[:_SHOWN]
        if count > _SHOWN:
            lines.append(f"and {count - _SHOWN} more")
        head = f"{os.fspath(source)}: {count} problem{'' if count == 1 else 's'}{advice and f' ({advice})'}"
        super().__init__("\n  ".join([head, *lines]))


@dataclass(frozen=True)
class Manifest:
    """A list of labeled videos, some of which may be missing (see :func:`check_manifest`)."""

    paths: list[Path]
    labels: list[int]  # into class_names
    class_names: list[str]  # all classes, also those without a file
    source: Path
    timelines: list[Timeline] | None = None  # that a prepared manifest brings

    def __len__(self) -> int:
        return len(self.paths)


# ------------------------------------------------------------------------------------ reading
def read_manifest(
    path: str | os.PathLike, root: str | os.PathLike | None = None, class_names: Sequence[str] | None = None
) -> Manifest:
    """Read a plain list of videos and labels; relative paths start from the root, or else from the list's folder."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"manifest {os.fspath(path)!r}: no such file")
    root = path.parent if root is None else Path(root)
    if not root.is_dir():
        raise ValueError(f"root {os.fspath(root)!r}: no such folder")
    listed = read_list(path)
    rows, problems = listed.rows, listed.problems
    if class_names is None:
        numbers = sorted({row.label for row in rows if row.label.isdecimal()})
        if numbers:
            problems.append(f"labels are integers ({', '.join(numbers[:5])}): pass class_names, in their order")
        classes = dict(enumerate(sorted({row.label for row in rows})))  # Kinetics' own numbering
        try:
            check_class_names([*classes.values()] or ["none"])
        except ValueError as error:  # two spellings of one
            problems.append(str(error))
    else:
        classes = dict(enumerate(check_class_names(class_names)))
    names = [*classes.values()]
    index = {name: i for i, name in enumerate(names)}
    files: list[Path] = []
    labels: list[int] = []
    first_seen: dict[Path, tuple[int, int]] = {}
    again: list[str] = []
    for row in rows:
        name = class_of(row.label, classes)
        if name is None:
            problems.append(f"{path.name}:{row.line}: {unknown_label(row.label, names)}")
            continue
        file, number = _existing(root, row.paths), index[name]
        seen_line, seen = first_seen.setdefault(file, (row.line, number))
        if seen != number:
            both = f"{name!r}, but {names[seen]!r} on line {seen_line}"
            problems.append(f"{path.name}:{row.line}: {row.paths[-1]!r} is labeled {both}")
        elif seen_line != row.line:
            again.append(f"{row.line} (as {seen_line})")
        files.append(file)
        labels.append(number)
    manifest = Manifest(files, labels, names, path)
    _check_present(manifest, root, problems, f"taken for {listed.taken_for}")
    if again:
        shown = ", ".join(again[:_SHOWN])
        log.warning("%s: %d lines name a video again, which counts each time: lines %s", path, len(again), shown)
    return manifest


def _existing(root: Path, paths: Sequence[str]) -> Path:
    """The first spelling of a path that is there, with accents in one or two characters; the last where none is."""
    spelled = [root / normalize(form, path) for path in paths for form in ("NFC", "NFD")]
    return next((file for file in [*(root / path for path in paths), *spelled] if is_there(file)), root / paths[-1])


def _check_present(manifest: Manifest, root: Path, problems: Sequence[str] = (), advice: str = "") -> None:
    """Refuse a manifest with problems, without a video, or with none of its files there; log missing files."""
    files, problems = manifest.paths, list(problems)
    missing = [file for file in files if not is_there(file)]
    all_missing = bool(files) and len(missing) == len(files)
    if problems or all_missing or not files:
        problems += [f"missing file {os.fspath(file)!r}" for file in missing]
        if all_missing:
            advice = f"every file is missing: is {os.fspath(root)!r} the right root?{advice and f' {advice}'}"
        raise ManifestError(manifest.source, problems or ["it lists no video"], advice)
    if missing:
        shown = ", ".join(repr(os.fspath(file)) for file in missing[:_SHOWN])
        log.warning("%s: %d of %d files are missing: %s", manifest.source, len(missing), len(files), shown)


def read_sidecar(path: str | os.PathLike) -> dict | None:
    """The JSON file that ``prepare`` wrote beside a CSV; None where there is none, an error where it is of another."""
    csv_path = Path(path)
    file = csv_path.with_suffix(".json")
    if not file.is_file():
        return None
    try:
        sidecar = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(file)!r} is not JSON: {error}; run prepare again") from error
    lacking = [key for key in ("root", "classes") if not isinstance(sidecar, dict) or key not in sidecar]
    if lacking:
        raise ValueError(f"{os.fspath(file)!r} lacks {', '.join(lacking)}; it must be what prepare wrote")
    stamp = sidecar.get("csv_sha256")
    if stamp and stamp != hashlib.sha256(csv_path.read_bytes()).hexdigest():
        raise ValueError(f"{os.fspath(file)!r} belongs to another version of {csv_path.name}; run prepare again")
    return sidecar


def select(csv: str | os.PathLike, *, split: str = "all", half: str = "all", shots: int = 0, seed: int = 0) -> Manifest:
    """A part of a prepared manifest, or of a plain list, which has no splits and no halves; 0 shots are all videos."""
    path = Path(csv)
    if half not in ("all", "base", "novel"):
        raise ValueError(f"half is {half!r}; allowed: all, base, novel")
    if not path.is_file():
        raise ValueError(f"manifest {os.fspath(path)!r}: no such file")
    sidecar = read_sidecar(path)
    if sidecar is None:
        if split != "all" or half != "all":
            what = f"split {split!r}" if split != "all" else f"half {half!r}"
            raise ValueError(f"{os.fspath(path)!r} was not prepared (no {path.stem}.json), so it has no {what}")
        manifest = read_manifest(path)
    else:
        manifest = _select_rows(path, sidecar, split, half)
    if shots:
        names = [file.as_posix() for file in manifest.paths]
        chosen = few_shot(names, [manifest.class_names[label] for label in manifest.labels], shots, seed)
        fewest = min(Counter(manifest.labels[i] for i in chosen).values())
        if fewest < shots:
            log.warning("%s: a class has only %d of %d shots", path, fewest, shots)
        columns = (manifest.paths, manifest.labels, manifest.timelines)
        paths, labels, timelines = (column and [column[i] for i in chosen] for column in columns)
        manifest = Manifest(paths, labels, manifest.class_names, path, timelines)
    return manifest


def _select_rows(path: Path, sidecar: dict, split: str, half: str) -> Manifest:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    if not {"path", "label", "split"} <= set(reader.fieldnames or ()):
        raise ValueError(f"manifest {os.fspath(path)!r} lacks columns; expected {','.join(COLUMNS)}")
    known = sorted({name for row in rows for name in row["split"].split()})
    if split not in ("all", *known):
        raise ValueError(f"split is {split!r}; allowed for {path.name}: all, {', '.join(known)}")
    classes = list(sidecar["classes"])
    unknown = sorted({row["label"] for row in rows} - set(classes))
    if unknown:
        raise ManifestError(path, [unknown_label(label, classes) for label in unknown])
    names = sidecar.get("splits", {}).get(split, {}).get("classes", classes)
    if half != "all":
        if not sidecar.get(half):
            raise ValueError(f"half is {half!r}, but {path.stem}.json holds no base/novel split; see its source line")
        names = [name for name in names if name in set(sidecar[half])]  # whose ids restart at 0
    index = {name: i for i, name in enumerate(names)}
    rows = [r for r in rows if r["label"] in index and (split == "all" or split in r["split"].split())]
    root = path.parent / sidecar["root"]
    known = bool(rows) and all(row.get("timeline") for row in rows)
    timelines = [parse(row["timeline"]) for row in rows] if known else None
    files, labels = [root / row["path"] for row in rows], [index[row["label"]] for row in rows]
    manifest = Manifest(files, labels, names, path, timelines)
    _check_present(manifest, root)
    if problems := sidecar.get("problems"):
        log.warning("%s: prepared with %d problems, listed in %s.json", path, len(problems), path.stem)
    return manifest


# ------------------------------------------------------------------------------------ looking at every file
def check_manifest(
    manifest: Manifest, check: str = "full", *, workers: int = 0
) -> tuple[dict[int, VideoInfo], dict[int, str]]:
    """What each file of a manifest holds, or why it cannot be used; both by the position in the manifest."""
    infos, problems = {}, {}
    if check == "known":  # by the manifest's own timelines
        infos = {i: VideoInfo(manifest.timelines[i]) for i, path in enumerate(manifest.paths) if is_there(path)}
        return infos, {i: "no such file" for i in range(len(manifest)) if i not in infos}
    copies: dict[object, list[int]] = {}  # hard links to one file are tried once
    for position, path in enumerate(manifest.paths):
        stat = path.stat() if is_there(path) else None
        one = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) if stat else path
        copies.setdefault(one, []).append(position)
    with ThreadPoolExecutor(workers or min(8, available_cpus())) as pool:
        firsts = [manifest.paths[positions[0]] for positions in copies.values()]
        results = pool.map(lambda path: _check_file(path, check == "full"), firsts)
        found = zip(copies.values(), results, strict=True)
        for positions, result in progress(found, "checking videos", len(firsts)):
            (infos if isinstance(result, VideoInfo) else problems).update(dict.fromkeys(positions, result))
    return infos, problems


def _check_file(path: Path, full: bool) -> VideoInfo | str:
    try:
        info = probe(path, full=full)
    except VideoError as error:
        return "; ".join(error.reasons)
    return f"truncated: {info.frames} of {info.announced} frames" if info.truncated else info
