"""Lists of labeled videos: a ``path,label`` CSV, class names, and a check of every file named in it.

Problems are collected and reported together; nothing is skipped silently.
"""

from __future__ import annotations

import csv
import difflib
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..files import available_cpus, progress
from .decode import VideoError, VideoInfo, probe

log = logging.getLogger(__name__)

_SHOWN = 20  # problems spelled out in an error; all of them are in its `problems`
_PATH_COLUMNS = ("path", "video", "file", "filename")
_LABEL_COLUMNS = ("label", "class")


class ManifestError(ValueError):
    """What is wrong with a list of videos, all of it at once.

    Args:
        source: the CSV.
        problems: one line each.
        advice: what to do about it.
    """

    def __init__(self, source, problems: Sequence[str], advice: str = ""):
        self.source, self.problems, self.advice = source, list(problems), advice
        count, lines = len(self.problems), self.problems[:_SHOWN]
        if count > _SHOWN:
            lines.append(f"and {count - _SHOWN} more")
        head = f"{os.fspath(source)}: {count} problem{'' if count == 1 else 's'}{advice and f' ({advice})'}"
        super().__init__("\n  ".join([head, *lines]))

    def __reduce__(self):
        return type(self), (self.source, self.problems, self.advice)


@dataclass(frozen=True)
class Manifest:
    """A list of labeled videos.

    Attributes:
        paths: the files; some may be missing (see :func:`check_manifest`).
        labels: of each file, an index into ``class_names``.
        class_names: all classes, also those without a file.
        source: the CSV it came from.
        lengths: (frames, seconds) of each file, where a prepared manifest brings them; seconds are 0.0 where
            the file has no frame rate.
    """

    paths: list[Path]
    labels: list[int]
    class_names: list[str]
    source: Path
    lengths: list[tuple[int, float]] | None = None

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ManifestReport:
    """What :func:`check_manifest` found.

    Attributes:
        problems: {position in the manifest: why the file cannot be used}.
        infos: {position: what the file holds} of the usable ones.
    """

    problems: dict[int, str] = field(default_factory=dict)
    infos: dict[int, VideoInfo] = field(default_factory=dict)

    def lines(self, manifest: Manifest) -> list[str]:
        """One line for each bad file."""
        return [f"{manifest.paths[i]}: {reason}" for i, reason in sorted(self.problems.items())]


def read_manifest(
    path: str | os.PathLike,
    root: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
) -> Manifest:
    """Read a plain ``path,label`` CSV of videos.

    A first row that names the columns (``path`` or ``video``, ``label`` or ``class``) is a header; further
    columns are then ignored. Names with commas or quotes are quoted as CSV does it. Videos may be missing:
    they are logged here, and :func:`check_manifest` lists them.

    Args:
        path: the CSV, UTF-8.
        root: folder that relative paths start from; default: the CSV's folder.
        class_names: all classes; a label is then one of them, or its 0-based index. Default: the labels
            themselves in alphabetical order (Kinetics' own numbering).

    Returns:
        the manifest.

    Raises:
        ManifestError: malformed rows, unknown labels, one file with two labels, integer labels without
            ``class_names``, or no video at all; all problems are listed, with their lines.
        ValueError: no such CSV, no such root, or duplicate class names.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"manifest {os.fspath(path)!r}: no such file")
    root = path.parent if root is None else Path(root)
    if not root.is_dir():
        raise ValueError(f"root {os.fspath(root)!r}: no such folder")
    names = None if class_names is None else check_class_names(class_names)
    try:
        rows, problems = _read_rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"manifest {os.fspath(path)!r} is not a UTF-8 CSV: {error}") from error
    if names is None:
        numbers = sorted({label for _, _, label in rows if _is_index(label)})
        if numbers:
            problems.append(f"labels are integers ({', '.join(numbers[:5])}): pass class_names, in their order")
        names = sorted({label for _, _, label in rows})
    index = {name: i for i, name in enumerate(names)}
    files: list[Path] = []
    labels: list[int] = []
    first_seen: dict[Path, tuple[int, int]] = {}
    for line, name, label in rows:
        number = index.get(label, int(label) if _is_index(label) and int(label) < len(names) else None)
        if number is None:
            problems.append(f"line {line}: {unknown_label(label, names)}")
            continue
        file = root / name
        seen_line, seen_label = first_seen.setdefault(file, (line, number))
        if seen_label != number:
            both = f"{names[number]!r}, but {names[seen_label]!r} on line {seen_line}"
            problems.append(f"line {line}: {name!r} is labeled {both}")
        files.append(file)
        labels.append(number)
    manifest = Manifest(files, labels, list(names), path)
    check_present(manifest, root, problems)
    return manifest


def check_present(manifest: Manifest, root: str | os.PathLike, problems: Sequence[str] = ()) -> None:
    """Refuse a manifest with problems, without a video, or with none of its files there; log missing files.

    Args:
        manifest: what was read.
        root: the folder its relative paths start from, for the message.
        problems: what was wrong with its rows.

    Raises:
        ManifestError: all problems and all missing files.
    """
    files, problems = manifest.paths, list(problems)
    missing = [file for file in files if not file.is_file()]
    all_missing = bool(files) and len(missing) == len(files)
    if problems or all_missing or not files:
        problems += [f"missing file {os.fspath(file)!r}" for file in missing]
        advice = f"every file is missing: is {os.fspath(root)!r} the right root?" if all_missing else ""
        raise ManifestError(manifest.source, problems or ["it lists no video"], advice)
    if missing:
        shown = ", ".join(repr(os.fspath(file)) for file in missing[:_SHOWN])
        log.warning("%s: %d of %d files are missing: %s", manifest.source, len(missing), len(files), shown)


def _read_rows(path: Path) -> tuple[list[tuple[int, str, str]], list[str]]:
    """(line, path, label) of each row, and what is wrong with the others."""
    rows, problems, columns, first = [], [], (0, 1), True
    width: int | None = 2  # without a header, anything but two fields is a comma that should have been quoted
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, skipinitialspace=True)
        for row in reader:
            cells, line = [cell.strip() for cell in row], reader.line_num
            if not any(cells):
                continue
            lowered = [cell.lower() for cell in cells]
            named = [next((i for i, c in enumerate(lowered) if c in n), None) for n in (_PATH_COLUMNS, _LABEL_COLUMNS)]
            if first and None not in named:
                columns, width = tuple(named), None
            elif width is not None and len(cells) != width:
                problems.append(f"line {line}: {len(cells)} fields, expected path,label (quote names with commas)")
            elif len(cells) <= max(columns) or not cells[columns[0]] or not cells[columns[1]]:
                problems.append(f"line {line}: path or label is empty")
            else:
                rows.append((line, cells[columns[0]], cells[columns[1]]))
            first = False
    return rows, problems


def _is_index(label: str) -> bool:
    return label.isascii() and label.isdigit()


def plain(name: str) -> str:
    """A class name without case, blanks and signs, as names are compared."""
    return re.sub(r"[\W_]", "", name).casefold()


def unknown_label(label: str, names: Sequence[str]) -> str:
    """Say that a label is no class name, and which one may be meant."""
    if _is_index(label):
        return f"label {label} is out of range 0 to {len(names) - 1}"
    spelled = {plain(name): name for name in names}
    close = difflib.get_close_matches(plain(label), spelled, n=1)
    return f"unknown label {label!r}" + (f"; did you mean {spelled[close[0]]!r}?" if close else "")


def check_class_names(names: Sequence[str]) -> list[str]:
    """The names without surrounding blanks.

    Args:
        names: class names.

    Returns:
        the stripped names, in order.

    Raises:
        ValueError: none at all, an empty one, or duplicates (compared without case); it names them.
    """
    stripped = [str(name).strip() for name in names]
    folded = [name.casefold() for name in stripped]
    duplicates = sorted({name for name, key in zip(stripped, folded, strict=True) if folded.count(key) > 1})
    if not stripped or not all(stripped):
        raise ValueError(f"classes: {len(stripped)} names, {stripped.count('')} of them empty; expected at least one")
    if duplicates:
        raise ValueError(f"classes hold duplicates: {', '.join(map(repr, duplicates))}")
    return stripped


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Class names from a text file, one on each line; blank lines are skipped.

    Args:
        path: UTF-8 text.

    Returns:
        the names, in order.

    Raises:
        ValueError: no such file, not UTF-8, no names, or duplicates.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"classes file {os.fspath(path)!r} cannot be read: {error}") from error
    return check_class_names([line for line in lines if line.strip()])


def check_manifest(manifest: Manifest, check: str = "full", *, workers: int | None = None) -> ManifestReport:
    """Try every file of a manifest: missing, empty, audio-only, undecodable and truncated ones are listed.

    Hard links to one file are tried once.

    Args:
        manifest: from :func:`read_manifest`.
        check: ``full`` decodes every frame (about 0.1 s for a 10-second clip); ``open`` looks at the packets and
            the first frame (about 0.01 s), which misses damage further on; ``known`` takes the manifest's own
            lengths and looks only whether the file is there.
        workers: threads; default: one for each CPU, at most 8.

    Returns:
        the bad files with the reason, and what the others hold.

    Raises:
        ValueError: an unknown check, or ``known`` for a manifest without lengths.
    """
    if check not in ("full", "open", "known"):
        raise ValueError(f"check is {check!r}; allowed: full, open, known")
    report = ManifestReport()
    if check == "known":
        if manifest.lengths is None:
            raise ValueError(f"check is 'known', but {manifest.source} does not say how long its videos are")
        for position, (path, (frames, seconds)) in enumerate(zip(manifest.paths, manifest.lengths, strict=True)):
            if path.is_file():
                rate = frames / seconds if seconds else 0.0
                report.infos[position] = VideoInfo(frames, rate, width=0, height=0, rotation=0, backend="")
            else:
                report.problems[position] = "no such file"
        return report
    copies: dict[object, list[int]] = {}
    for position, path in enumerate(manifest.paths):
        copies.setdefault(_identity(path), []).append(position)
    with ThreadPoolExecutor(workers or min(8, available_cpus())) as pool:
        firsts = [manifest.paths[positions[0]] for positions in copies.values()]
        results = pool.map(lambda path: _check_file(path, check == "full"), firsts)
        found = zip(copies.values(), results, strict=True)
        for positions, result in progress(found, "checking videos", len(firsts)):
            target = report.infos if isinstance(result, VideoInfo) else report.problems
            target.update(dict.fromkeys(positions, result))
    return report


def _identity(path: Path) -> object:
    """The same for two names of one file with the same content; the path itself where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return path
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check_file(path: Path, full: bool) -> VideoInfo | str:
    try:
        info = probe(path, full=full)
    except VideoError as error:
        return "; ".join(error.reasons)
    return f"truncated: {info.frames} of {info.announced} frames" if info.truncated else info
