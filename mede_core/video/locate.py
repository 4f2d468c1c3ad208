"""The search for the videos that annotations name: file names are compared as they are, never as patterns."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import filterfalse
from unicodedata import normalize

import av

from .classes import plain
from .lists import VIDEO_SUFFIXES, is_hidden
from .timeline import VideoError, video_stream

SPLIT_FOLDER = re.compile(r"(train|val|test)(id|ing|idate|idation)?([_-].*|\d*)", re.IGNORECASE)
_NO_VIDEO = (".txt", ".csv", ".json", ".xml", ".md", ".srt", ".jpg", ".jpeg", ".png", ".npz", ".npy")  # never opened
_PICTURES = re.compile(r"image2|.*_pipe|tty|lrc|aqtitle")  # formats that ffmpeg reads and nobody calls a video


class Files:
    """The videos below a folder, found by their ``names``, relative to it; links are followed, hidden files no data."""

    def __init__(self, root: str | os.PathLike, without: str | os.PathLike = os.devnull):
        self.problems, self.left_out, self.folders, found, visited = [], {}, [], [], {os.path.realpath(without)}
        for folder, inside, files in os.walk(root, followlinks=True):
            if (real := os.path.realpath(folder)) in visited:
                inside.clear()
                continue
            visited.add(real)
            inside[:] = filterfalse(is_hidden, inside)
            below = os.path.relpath(folder, root).replace(os.sep, "/").removeprefix(".")
            self.folders.append(below)
            for file in filterfalse(is_hidden, files):
                name = f"{below}/{file}".removeprefix("/")
                if name.encode("utf-8", "replace").decode() != name:
                    self.problems.append(f"{os.fsencode(name)!r}: the file name is not UTF-8; rename it")
                elif why := _no_video(os.path.join(folder, file)):
                    self.left_out[name] = why
                else:
                    found.append(name)
        self.names = sorted(found)
        self._all, self._stems = set(found), defaultdict(list)
        for name in self.names:
            self._stems[_stem(name).casefold()].append(name)

    def find(self, names: Sequence[str], *, anywhere: bool = False, fold: bool = False) -> tuple[str | None, str]:
        """The file that an annotation means, whatever its suffix, relative to the root, and ""; or None and why not."""
        for name in names:
            if name in self._all:
                return name, ""
        for name in names:
            stem, wanted = _stem(name), folders(name)
            alike = self._stems.get(stem.casefold(), [])
            choice = [found for found in alike if _stem(found) == stem] or alike * fold
            if not anywhere:  # the folders must agree as far as both sides name them
                ends = [(found, zip(reversed(folders(found)), reversed(wanted))) for found in choice]
                choice = [found for found, pairs in ends if all(one == two for one, two in pairs)]
            if len(choice) == 1:
                return choice[0], ""
            if not choice:
                continue
            known = {plain(part) for part in wanted}
            scores = [sum(plain(part) in known for part in folders(found)) for found in choice]
            best = [found for found, score in zip(choice, scores) if score == max(scores)]
            if len(best) > 1 and not anywhere:
                return None, f"several files fit: {', '.join(map(repr, best[:3]))}"
            return best[0], ""
        return None, "no such file"


def _no_video(path: str) -> str:
    """Why a file is no video; empty where it is, by its ending or because the decoder reads it."""
    ending = os.path.splitext(path)[1].lower()
    if ending in VIDEO_SUFFIXES and ending != ".ts":  # TypeScript, too
        return ""
    if ending in _NO_VIDEO:
        return f"{ending} is no video"
    try:
        with av.open(os.path.abspath(path)) as container:
            video_stream(container, path)
            return "a picture or text" if _PICTURES.fullmatch(container.format.name) else ""
    except (VideoError, av.error.FFmpegError, OSError, UnicodeError, ValueError):
        return "the decoder finds no video in it"


def _stem(name: str) -> str:
    """A file's name without folders and without video suffixes (there are files named x.mp4.mkv)."""
    stem = normalize("NFC", name.rpartition("/")[2])
    while stem.lower().endswith(VIDEO_SUFFIXES):
        stem = stem.rpartition(".")[0]
    return stem


def folders(name: str) -> list[str]:
    """The folders of a name with ``/``, without the empty one of an absolute path."""
    return [part for part in normalize("NFC", name).split("/")[:-1] if part not in ("", ".")]


def folder_problem(name: str, label: str, members: Sequence[str], classes: set[str], *, splits: bool = False) -> str:
    """What a file's folders say against its class and splits; empty where nothing; ``classes`` are ``plain`` names."""
    for part in folders(name):
        if plain(part) in classes:
            if plain(part) != plain(label):
                return f"lies in the folder {part!r}, but is labeled {label!r}"
        elif splits and (match := SPLIT_FOLDER.fullmatch(part)):
            kind = match[1].lower()
            if members and kind not in members:
                return f"lies in the folder {part!r}, but is in {' '.join(members)}"
    return ""
