"""Lists as people write them, in any usual encoding, separator and order of columns, with or without a header."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".mpe", ".flv", ".f4v", ".wmv",
                  ".asf", ".3gp", ".3g2", ".mts", ".m2ts", ".ts", ".vob", ".ogv", ".mxf", ".gif")  # fmt: skip
SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "blanks"}
_PATHS = ("path", "video", "file", "filename", "video_path", "file_path", "filepath", "video_name", "clip")
_LABELS = ("label", "class", "class_name", "classname", "label_name", "category", "action", "class_id", "label_id")
_SPLITS = ("split", "subset", "set", "partition")
_ENDING = "|".join(re.escape(suffix) for suffix in VIDEO_SUFFIXES)
_LONGEST = 10_000  # characters of a row; longer lines are of another kind of file, and would take minutes
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_PART = re.compile(r"train|val|valid|validate|validation|test", re.IGNORECASE)
_QUOTED = r'"(?:[^"]|"")*"'
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")  # joiners, which some scripts need, are none
_SYSTEMS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")


def _forms(separator: str) -> tuple[re.Pattern, ...]:
    """A path that ends as videos do, with blanks and separators in it, then the rest; the rest first; any two parts."""
    apart = r"\s+" if separator == " " else rf"\s*{re.escape(separator)}\s*"
    video, other = rf"\S.*(?:{_ENDING})[\"']?", r"\S" if separator == " " else rf"[^{separator}]"
    forms = (
        rf"(?P<path>{video}){apart}(?P<rest>\S.*)",
        rf"(?P<rest>{_QUOTED}|[^/\\]*?\S){apart}(?P<path>{video})",
        rf"(?P<path>\S.*?|\S){apart}(?P<rest>(\d+{apart})?({_QUOTED}|{other}+))",
    )
    return tuple(re.compile(form, re.IGNORECASE) for form in forms)


_FORMS = {separator: _forms(separator) for separator in SEPARATORS}


def read_text(path: str | os.PathLike, what: str) -> str:
    """A text file's content: UTF-8 or UTF-16, with or without a byte order mark; bytes that are neither stay marked."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{what} {os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if wide or data[:200].count(0) * 3 > len(data[:200]):
        encoding = "utf-16" if wide else "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
        return data.decode(encoding, "replace").replace("\0", "\ufffd")
    return data.decode("utf-8-sig", "surrogateescape")


def read_json(path: str | os.PathLike, what: str):
    text = read_text(path, what)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} {os.fspath(path)!r} is not JSON: {error}") from error


def _unique(pairs: list[tuple]) -> dict:
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} is there twice")
    return dict(pairs)


def read_lines(path: Path, what: str, problems: list[str] | None = None) -> list[tuple[int, str]]:
    """(number, text) of each line that is neither blank nor a comment; a line of unreadable bytes is a problem."""
    found = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path, what)), 1):
        line = line.strip().strip("\ufeff")
        if not line or (number == 1 and re.fullmatch("sep=.", line)):  # spreadsheets tell their separator so
            continue
        # A line that begins with # and names a video is no comment: HMDB51 has such names.
        if line[0] == "#" and not re.search(rf"(?:{_ENDING})\b", line, re.IGNORECASE):
            continue
        if re.search("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffd]", line):
            if problems is None:
                raise ValueError(f"{what} {os.fspath(path)!r}, line {number}: not UTF-8 text")
            problems.append(f"{path.name}:{number}: not UTF-8 text")
        else:
            found.append((number, line))
    return found


def cells(line: str, separator: str) -> list[str] | None:
    """A line's fields without surrounding blanks and without empty ones at its end; None for an unbalanced quote."""
    try:
        found = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True), [])
    except csv.Error:
        return None
    fields = [cell.strip() for cell in found]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def tidy(name: str) -> str:
    """A name with each accent spelled in one way, single blanks, and nothing that cannot be seen."""
    return " ".join(normalize("NFC", _INVISIBLE.sub("", name)).split())


def header_of(line: str, *wanted: Sequence[str], needed: int = 2) -> tuple[str, list[int | None]]:
    """The separator under which a line names columns, of which the first ones must be there, and their places."""
    for separator in SEPARATORS:
        names = [name.lower() for name in cells(line, separator) or []]
        places = [next((names.index(name) for name in column if name in names), None) for column in wanted]
        if len(names) > 1 and None not in places[: 2 if separator == " " else needed] and places[0] != places[1]:
            return separator, places
    return "", []


@dataclass(frozen=True)
class Row:
    """A line of a list: a video, under one or several spellings of its path, its label and splits as they stand."""

    file: str
    line: int
    paths: tuple[str, ...]
    label: str
    split: str

    where = property(lambda self: f"{self.file}:{self.line}")


def read_list(path: Path) -> tuple[list[Row], list[str], str]:
    """A list of videos: its rows, its odd lines, what it was taken for. The files know their frames better."""
    rows, problems = [], []
    lines = read_lines(path, "list", problems)
    separator, places = header_of(lines[0][1], _PATHS, _LABELS, _SPLITS) if lines else ("", [])
    body = [one for one in lines if one[1] != lines[0][1]] if separator else lines  # files put together repeat it
    columns = "path and label"
    if separator and separator != " ":
        width = len(cells(lines[0][1], separator))
        read = {line: _by_columns(text, separator, places, width) for line, text in body}
        columns = ", ".join(name for name, place in zip(("path", "label", "split"), places) if place is not None)
    else:  # endings of videos tell where a path ends; of equal readings the first separator counts
        tried = [(one, {line: _by_endings(text, one) for line, text in body}) for one in SEPARATORS]
        separator, read = max(tried, key=lambda one: [sum(map(of, one[1].values())) for of in (_is_video, bool)])
        if not places and _is_header(*read.values()):
            del read[lines[0][0]]
        if any(fields and _NUMBER.fullmatch(fields[1]) for fields in read.values()):
            columns += " (the last of several numbers)"
    texts = dict(lines)
    for line, fields in read.items():
        if label := tidy(bare(fields[1])) if fields else "":
            rows.append(Row(path.name, line, spellings(fields[0]), label, fields[2]))
        else:
            problems.append(f"{path.name}:{line}: {texts[line][:80]!r} is no path and label")
    head = f" (under the header {lines[0][1][:40]!r})" if len(read) < len(lines) else ""
    taken_for = f"{path.name}: {len(rows)} rows of {columns}, separated by {SEPARATORS[separator]}{head}"
    return rows, problems, taken_for


def _is_header(first: tuple | None = None, *others: tuple | None) -> bool:
    """Whether a first line, of names that nobody knows, is none of the videos that all others are."""
    words = bool(first) and not any(re.search(r"[./\\\d]", field) for field in first)
    return words and any(others) and all(map(_is_video, filter(None, others)))


def _is_video(row: tuple[str, str, str] | None) -> bool:
    return bool(row) and row[0].lower().strip("\"'").endswith(VIDEO_SUFFIXES)


def _by_columns(line: str, separator: str, places: Sequence[int | None], width: int) -> tuple[str, str, str] | None:
    """(path, label, split) by a header's columns; None where they are not there."""
    fields = cells(line, separator) or []
    path, label, split = (fields[i] if i is not None and i < len(fields) else "" for i in places)
    return (path, label, split) if path and label and len(fields) <= width else None


def _by_endings(line: str, separator: str) -> tuple[str, str, str] | None:
    """(path, label, split) where no header says which is which; None where a line has no such parts."""
    line = line.rstrip(separator + " ")
    forms = _FORMS[separator] if len(line) <= _LONGEST else ()
    match = next(filter(None, (form.fullmatch(line) for form in forms)), None)
    fields = cells(match["rest"], separator) if match else None
    if not fields or not all(fields):
        return None
    numbers = [field for field in fields if _NUMBER.fullmatch(field)]
    parts = [field for field in fields if _PART.fullmatch(field)] if len(fields) > 1 else []
    words = [field for field in fields if field not in parts and field not in numbers]
    if separator == " " and words:  # a name of several words
        words = [" ".join(words)]
    if len(words) > 1 or len(parts) > 1 or not (words or numbers):
        return None
    return match["path"], (words or numbers)[-1], "".join(parts)


def some(lines: Sequence[str], most: int, where: str = "") -> list[str]:
    """The first of many lines, and how many more there are, and where."""
    return [*lines[:most], *[f"and {len(lines) - most} more{where}"] * (len(lines) > most)]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is what a system or a tool left behind."""
    return name.startswith(".") or name in _SYSTEMS


def is_there(file: Path) -> bool:
    """Whether a path is a file's; one that is no possible name is not."""
    try:
        return file.is_file()
    except (OSError, ValueError):
        return False


def spellings(name: str) -> tuple[str, ...]:
    """A path as it is written, without quotes around it, and with / for Windows' backslashes."""
    return tuple(dict.fromkeys((name, bare(name), bare(name).replace("\\", "/"))))


def bare(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].replace('""', '"') if quoted else text
