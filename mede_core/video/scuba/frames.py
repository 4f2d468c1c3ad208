"""Clips that lie on disk as folders of numbered frames, listed as ``path frames label``: the form of SCUBA's lists.

The published lists (for example ``v_WalkingWithDog_g02_c04__0 240 97``) give each label as an index among all classes
of the data set (101 for UCF101), although SCUBA covers fewer (24). Accuracy on them is therefore 101-way on 24
classes: it compares with in-context accuracy on the same clips, not with the UCF101 test accuracy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...files import available_cpus, progress
from ..clips import center_views, view_indices
from ..decode import VideoInfo
from ..manifest import ManifestError, check_class_names
from ..packets import VideoError
from ..sampling import SAMPLINGS
from .backgrounds import IMAGE_ERRORS

log = logging.getLogger(__name__)

TEMPLATE = "img_{:05d}.jpg"


@dataclass(frozen=True)
class FrameList:
    """A list of frame folders.

    Attributes:
        paths: the folders.
        frames: how many frames each one has.
        labels: of each folder, an index into ``class_names``.
        class_names: all classes of the data set, also those without a clip.
        template: name of frame number n, counted from 1.
        source: the list it came from.
        problems: {folder or line: why it was left out}; empty unless bad ones were allowed.
    """

    paths: list[Path]
    frames: list[int]
    labels: list[int]
    class_names: list[str]
    template: str
    source: Path
    problems: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)


def read_frame_list(
    path: str | os.PathLike,
    root: str | os.PathLike | None,
    class_names: Sequence[str],
    template: str = TEMPLATE,
    *,
    skip_bad: bool = False,
) -> FrameList:
    """Read a list of frame folders, one ``path frames label`` a line, separated by blanks.

    A path may hold blanks: the line is split from the right. Frames are numbered from 1.

    Args:
        path: the list, UTF-8.
        root: folder that relative paths start from; None: the list's folder.
        class_names: all K classes of the data set, in the order of its label numbers.
        template: how frames are named.
        skip_bad: leave bad lines and folders out (they are logged and kept in ``problems``) instead of refusing.

    Returns:
        the list.

    Raises:
        ManifestError: malformed lines, labels outside 0 .. K-1, missing folders, missing frames, one folder with two
            labels, or no clip at all; all problems are listed by name.
        ValueError: no such list or root, duplicate class names, or a template without a number.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    names = check_class_names(class_names)
    if not path.is_file():
        raise ValueError(f"frame list {os.fspath(path)!r}: no such file")
    if not root.is_dir():
        raise ValueError(f"root {os.fspath(root)!r}: no such folder")
    try:
        distinct = template.format(1) != template.format(2)
    except (KeyError, IndexError, ValueError):
        distinct = False
    if not distinct:
        raise ValueError(f"template is {template!r}; it needs one number, as in {TEMPLATE}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"frame list {os.fspath(path)!r} is not UTF-8: {error}") from error

    rows: list[tuple[Path, int, int]] = []
    problems: dict[str, str] = {}
    first_seen: dict[Path, tuple[int, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(maxsplit=2)
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts[1:]):
            problems[f"line {number}"] = f"{line.strip()[:80]!r} is not `path frames label`"
            continue
        folder, count, label = root / parts[0], int(parts[1]), int(parts[2])
        seen, label_seen = first_seen.setdefault(folder, (number, label))
        if label >= len(names):
            problems[f"line {number}"] = (
                f"{parts[0]}: label {label} is out of range 0 to {len(names) - 1} (labels count all classes)"
            )
        elif label != label_seen:
            problems[f"line {number}"] = f"{parts[0]}: label {label}, but {label_seen} on line {seen}"
        elif reason := _missing(folder, count, template):
            problems[f"line {number}"] = f"{parts[0]}: {reason}"
        else:
            rows.append((folder, count, label))
    shown = [f"{where}: {what}" for where, what in problems.items()]
    if not rows or (problems and not skip_bad):
        lost = bool(problems) and all(what.endswith(": no such folder") for what in problems.values())
        advice = f"is {os.fspath(root)!r} the right root?" if lost and not rows else ""
        raise ManifestError(path, shown or ["it lists no clip"], advice)
    if problems:
        log.warning("%s: going on without %d of %d lines:\n  %s",
                    path, len(problems), len(problems) + len(rows), "\n  ".join(shown))  # fmt: skip
    folders, counts, labels = (list(column) for column in zip(*rows))
    return FrameList(folders, counts, labels, names, template, path, problems)


def _missing(folder: Path, count: int, template: str) -> str:
    """What a folder lacks; empty where all frames are there."""
    if count < 1:
        return f"{count} frames; at least 1 is needed"
    if not folder.is_dir():
        return "no such folder"
    present = {entry.name for entry in os.scandir(folder) if entry.is_file() and entry.stat().st_size}
    lost = [name for name in map(template.format, range(1, count + 1)) if name not in present]
    if lost:
        return f"{count - len(lost)} of {count} frames; {lost[0]} is missing or empty"
    return ""


class FrameFolderDataset(Dataset):
    """Frame folders as clips for an evaluation, in the form that ``VideoDataset`` gives videos.

    Args:
        clips: from :func:`read_frame_list`.
        num_frames: frames of a view, T.
        image_size: pixels, S.
        views: V; several give items [V, T, 3, S, S].
        sampling: ``uniform``: the whole clip in equal segments. Paper does not say how SCUBA's frames are read; the
            authors' leftovers do so. ``dense``: windows of 8 x 16 frames at 30 fps, with ``fps``.
        fps: frames per second of the clips, which folders do not tell; needed by ``dense``.
        scufo: SCUFO: one frame of each view repeated T times, so that nothing moves. Paper does not say which frame:
            we take the middle one of those chosen, number T // 2 counted from 0.
        check: ``full`` reads every chosen frame once before anything is evaluated, ``open`` does not.
        skip_bad: leave clips with unreadable frames out instead of refusing.
        workers: threads of the check; default: one for each CPU, at most 8.

    Attributes:
        class_names: all classes of the list.
        paths: the folder of each item.
        labels: the label of each item.
        bad: {folder: reason} of the clips left out.

    Raises:
        ManifestError: unreadable frames; all are listed.
        ValueError: a value out of range.
    """

    def __init__(
        self,
        clips: FrameList,
        num_frames: int,
        image_size: int,
        views: int = 1,
        *,
        sampling: str = "uniform",
        fps: float | None = None,
        scufo: bool = False,
        check: str = "full",
        skip_bad: bool = False,
        workers: int | None = None,
    ):
        for name, value in (("num_frames", num_frames), ("image_size", image_size), ("views", views)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling is {sampling!r}; allowed: {', '.join(SAMPLINGS)}")
        if sampling == "dense" and not (fps and fps > 0):
            raise ValueError(f"fps is {fps!r}; dense sampling of frame folders needs it, above 0")
        if check not in ("full", "open"):
            raise ValueError(f"check is {check!r}; allowed: full, open")
        self.num_frames, self.image_size, self.views, self.scufo = num_frames, image_size, views, scufo
        self.sampling, self.fps, self.template = sampling, float(fps or 0), clips.template
        self.class_names = list(clips.class_names)
        self.paths, self.frames, self.labels = list(clips.paths), list(clips.frames), list(clips.labels)
        self.bad: dict[Path, str] = {}
        if check == "full":
            self._check(clips.source, skip_bad, workers or min(8, available_cpus()))

    def _check(self, source: Path, skip_bad: bool, workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            results = progress(pool.map(self._reason, range(len(self))), "checking frame folders", len(self))
            self.bad = {self.paths[i]: reason for i, reason in enumerate(results) if reason}
        if not self.bad:
            return
        lines = [f"{path}: {reason}" for path, reason in self.bad.items()]
        kept = [i for i, path in enumerate(self.paths) if path not in self.bad]
        if not skip_bad or not kept:
            raise ManifestError(source, lines, "bad frames; skip_bad=True evaluates the other clips")
        log.warning("%s: going on without %d clips:\n  %s", source, len(lines), "\n  ".join(lines))
        self.paths, self.frames, self.labels = (
            [column[i] for i in kept] for column in (self.paths, self.frames, self.labels)
        )

    def _reason(self, index: int) -> str:
        try:
            self._read(index)
        except VideoError as error:
            return "; ".join(error.reasons)
        return ""

    def indices(self, index: int) -> list[np.ndarray]:
        """The 0-based frames of each view of a clip: V arrays of T numbers."""
        info = VideoInfo(self.frames[index], self.fps, 0, 0, 0, "folder")
        views = view_indices(info, self.num_frames, self.sampling, self.views)
        return [np.repeat(view[len(view) // 2], len(view)) for view in views] if self.scufo else views

    def _read(self, index: int) -> np.ndarray:
        """The chosen frames, uint8 [V * T, H, W, 3]."""
        folder, chosen = self.paths[index], np.concatenate(self.indices(index))
        pictures: dict[int, np.ndarray] = {}
        for number in np.unique(chosen).tolist():
            name = self.template.format(number + 1)
            try:
                with Image.open(folder / name) as image:
                    pictures[number] = np.asarray(image.convert("RGB"))
            except IMAGE_ERRORS as error:
                raise VideoError(folder, f"{name} cannot be read: {error}") from error
        shapes = {picture.shape for picture in pictures.values()}
        if len(shapes) > 1:
            raise VideoError(folder, f"its frames have different sizes: {sorted(shape[:2] for shape in shapes)}")
        return np.stack([pictures[number] for number in chosen.tolist()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One clip: uint8 [T, 3, S, S], or [V, T, 3, S, S] with several views; and its label."""
        frames = torch.from_numpy(self._read(index)).permute(0, 3, 1, 2)
        clip = center_views(frames, self.image_size)
        clip = clip.view(self.views, self.num_frames, 3, self.image_size, self.image_size)
        return (clip if self.views > 1 else clip[0]), self.labels[index]
