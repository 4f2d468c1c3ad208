"""Lists of labeled videos, plain ones and those that ``prepare`` wrote; a check of every file in one. Torch-free."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from ..files import available_cpus, progress
from .classes import check_class_names, resolve, unknown_label
from .decode import VideoError, VideoInfo, probe
from .lists import is_there, read_json, read_list, some
from .splits import few_shot
from .timeline import Timeline, parse

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split", "frames", "duration", "timeline")  # of a prepared list
_SHOWN = 20  # problems spelled out in an error; all of them are in its `problems`


class ManifestError(ValueError):
    """What is wrong with a list of videos, all of it at once."""

    def __init__(self, source, problems: Sequence[str], advice: str = ""):
        self.problems = list(problems)
        count, lines = len(self.problems), some(self.problems, _SHOWN)
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
    root, listed = Path(root or path.parent), read_list(path)
    problems, advice = listed.problems, f"taken for {listed.taken_for}"
    try:
        given = dict(enumerate(check_class_names(class_names))) if class_names is not None else None
        names, rows = resolve(listed.rows, given, problems)
        check_class_names(names or ["none"])
    except ValueError as error:  # numbers without names, or two spellings of one
        raise ManifestError(path, [*problems, str(error)], advice) from error
    index, first_seen, again = {name: i for i, name in enumerate(names)}, {}, []
    manifest = Manifest([], [], names, path)
    for row, name in rows:
        file = _existing(root, row.paths)
        seen, label = first_seen.setdefault(file, (row, name))
        if label != name:
            both = f"{name!r}, but {label!r} on line {seen.line}"
            problems.append(f"{row.where}: {row.paths[-1]!r} is labeled {both}")
        elif seen is not row:
            again.append(f"{row.line} (as {seen.line})")
        manifest.paths.append(file)
        manifest.labels.append(index[name])
    _check_present(manifest, root, problems, advice)
    if again:
        shown = ", ".join(some(again, _SHOWN))
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
        shown = ", ".join(some([repr(os.fspath(file)) for file in missing], _SHOWN))
        log.warning("%s: %d of %d files are missing: %s", manifest.source, len(missing), len(files), shown)


def read_sidecar(path: str | os.PathLike) -> dict | None:
    """The JSON file that ``prepare`` wrote beside a CSV; None where there is none, an error where it is of another."""
    csv_path = Path(path)
    file = csv_path.with_suffix(".json")
    if not file.is_file():
        return None
    sidecar = read_json(file, "what prepare wrote,")
    if lacking := [key for key in ("root", "classes") if not isinstance(sidecar, dict) or key not in sidecar]:
        raise ValueError(f"{os.fspath(file)!r} lacks {', '.join(lacking)}; it must be what prepare wrote")
    stamp = sidecar.get("csv_sha256")
    if stamp and stamp != hashlib.sha256(csv_path.read_bytes()).hexdigest():
        raise ValueError(f"{os.fspath(file)!r} belongs to another version of {csv_path.name}; run prepare again")
    return sidecar


def select(csv: str | os.PathLike, *, split: str = "all", half: str = "all", shots: int = 0, seed: int = 0) -> Manifest:
    """A part of a prepared manifest, or of a plain list, which has no splits and no halves; 0 shots are all videos."""
    path = Path(csv)
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
        columns = {name: getattr(manifest, name) for name in ("paths", "labels", "timelines")}
        manifest = replace(manifest, **{name: of and [of[i] for i in chosen] for name, of in columns.items()})
    return manifest


def _select_rows(path: Path, sidecar: dict, split: str, half: str) -> Manifest:
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("").to_dict("records")
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
def check_manifest(manifest: Manifest, check: str = "full", *, workers: int = 0) -> list[VideoInfo | str]:
    """What each file of a manifest holds, or why it cannot be used."""
    if check == "known":  # by the manifest's own timelines
        pairs = zip(manifest.paths, manifest.timelines)
        return [VideoInfo(line) if is_there(path) else "no such file" for path, line in pairs]

    def look(path: Path) -> VideoInfo:
        info = probe(path, full=check == "full")
        if info.truncated:
            raise VideoError(path, f"truncated: {info.frames} of {info.announced} frames")
        return info

    return in_threads(look, manifest.paths, "checking videos", workers)


def in_threads(look: Callable, items: Sequence, what: str, workers: int = 0) -> list:
    """What a function gives for each item, or as text, why it cannot be read."""

    def one(item):
        try:
            return look(item)
        except VideoError as error:
            return "; ".join(error.reasons)

    with ThreadPoolExecutor(workers or min(8, available_cpus())) as pool:
        return [*progress(pool.map(one, items), what, len(items))]


def leave_out(source, bad: Mapping, left: int, allowed: bool, advice: str = "") -> None:
    """Say what of a list is left out, or refuse the list: where that is not allowed, or nothing is left."""
    lines = [f"{where}: {reason}" for where, reason in bad.items()]
    if not left or (lines and not allowed):
        usual = "bad files; skip_bad=True evaluates the others" if left else "no usable video is left"
        raise ManifestError(source, lines or ["it lists no video"], advice or usual)
    if lines:
        count, listed = f"{len(lines)} of {len(lines) + left} files", "\n  ".join(lines)
        log.warning("%s: going on without %s:\n  %s", source, count, listed)
