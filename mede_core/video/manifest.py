"""Lists of labeled videos, plain or as ``prepare`` wrote them, and their parts; a check of every file. Torch-free."""

import functools
import hashlib
import logging
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd

from ..files import available_cpus, progress
from .classes import check_class_names, plain, read_class_names, resolve, unknown_label
from .decode import VideoError, VideoInfo, probe
from .lists import is_there, read_json, read_list, some
from .timeline import Timeline, parse

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split", "frames", "duration", "timeline")  # of a prepared list
_SHOWN = 20  # problems spelled out in an error; all of them are in its `problems`
_warn_once = functools.cache(log.warning)  # a run asks for many parts of a list


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
    root, (listed, problems, taken_for) = Path(root or path.parent), read_list(path)
    advice = f"taken for {taken_for}"
    try:
        given = dict(enumerate(check_class_names(class_names))) if class_names is not None else None
        names, rows = resolve(listed, given, problems)
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
        _warn_once("%s: prepared with %d problems, listed in %s.json", path, len(problems), path.stem)
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


# ------------------------------------------------------------------------------------ who is in which part
@dataclass
class Halves:
    """The base and the novel classes of a dataset, each in label order, and where they come from."""

    base: list[str]
    novel: list[str]
    source: str
    comparable: bool  # with published numbers
    problems: list[str] = field(default_factory=list)


def rule_halves(classes: Sequence[str], counts: Mapping[str, int]) -> Halves:
    """Base = the more frequent half of the classes by training videos: ViFi-CLIP's base-to-novel protocol."""
    if not counts:
        return Halves([], [], "none: no list is given and there is no training split to count", False)
    # How the published lists break ties is documented nowhere: ours go by name.
    order = sorted(classes, key=lambda name: (-counts.get(name, 0), name))
    cut = (len(order) + 1) // 2
    base = set(order[:cut])
    # The rule alone does not decide where the cut falls between equally frequent classes, as in HMDB51.
    comparable = cut < len(order) and counts.get(order[cut - 1], 0) > counts.get(order[cut], 0)
    source = "rule: base = the more frequent half by training videos, ties by name"
    if not comparable:
        source += "; equally frequent classes lie at the cut, so the published lists may differ"
    return Halves([c for c in classes if c in base], [c for c in classes if c not in base], source, comparable)


def listed_halves(
    base: str | os.PathLike, novel: str | os.PathLike, classes: Sequence[str], counts: Mapping[str, int]
) -> Halves:
    """The halves of published lists, as far as they can be used: swapped, mixed and foreign lists become problems."""
    problems: list[str] = []
    files = [os.fspath(base), os.fspath(novel)]
    halves = [listed_classes(file, classes, problems) for file in files]
    if both := [name for name in halves[1] if name in set(halves[0])]:
        problems.append(f"{files[0]} and {files[1]} share {len(both)} classes: {_few(both)}")
    if lacking := [name for name in classes if name not in {*halves[0], *halves[1]}]:
        problems.append(f"{files[0]} and {files[1]} lack {len(lacking)} classes: {_few(lacking)}")
    sizes = [len(half) for half in halves]
    means = [float(np.mean([counts.get(name, 0) for name in half])) if half else 0.0 for half in halves]
    asked = f"are {files[0]} (base) and {files[1]} (novel) swapped?"
    if sizes[0] < sizes[1]:
        problems.append(f"{asked} base has {sizes[0]} classes and novel {sizes[1]}")
    elif means[0] < means[1]:
        said = f"base classes have {means[0]:.1f} training videos on average and novel ones {means[1]:.1f}"
        problems.append(f"{asked} {said}")
    source = f"published list {os.path.basename(files[0])} (base), {os.path.basename(files[1])} (novel)"
    return Halves(halves[0], [c for c in halves[1] if c not in set(both)], source, not problems, problems)


def listed_classes(path: str | os.PathLike, classes: Sequence[str], problems: list[str]) -> list[str]:
    """The dataset's classes that a file lists, in label order; names the dataset lacks become problems."""
    known = {plain(name): name for name in classes}
    chosen = set()
    for name in read_class_names(path):
        if plain(name) in known:
            chosen.add(known[plain(name)])
        else:
            problems.append(f"{os.fspath(path)}: {unknown_label(name, classes)}")
    return [name for name in classes if name in chosen]


def zero_shot_halves(paths: Sequence[str | os.PathLike], classes: Sequence[str]) -> tuple[dict, list[str]]:
    """({"test1": its classes in label order, ...} of one list each, problems): Open-VCLIP's splits of Kinetics-600."""
    problems: list[str] = []
    sets = {f"test{n}": listed_classes(path, classes, problems) for n, path in enumerate(paths, 1)}
    sizes = [(path, len(chosen)) for path, chosen in zip(paths, sets.values()) if len(chosen) != 160]
    return sets, problems + [f"{os.fspath(path)}: {size} classes of the dataset, expected 160" for path, size in sizes]


def few_shot(names: Sequence[str], labels: Sequence[str], shots: int, seed: int) -> list[int]:
    """Positions of k videos of each class, drawn without replacement; a class with fewer gives all it has."""
    classes = defaultdict(list)
    for position, label in enumerate(labels):
        classes[label].append(position)
    chosen = []
    for label, positions in classes.items():
        # By the seed and names alone: neither the order of the list nor other classes change a draw.
        positions.sort(key=lambda position: names[position])
        generator = np.random.default_rng([seed, zlib.crc32(label.encode())])
        chosen += [positions[i] for i in generator.permutation(len(positions))[:shots]]
    return sorted(chosen)


def _few(names: Sequence[str]) -> str:
    return ", ".join(some([*map(repr, names)], 5))
