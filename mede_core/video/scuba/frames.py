"""Clips that lie on disk as folders of numbered frames, listed as ``path frames label``: the form of SCUBA's lists.

The published lists (for example ``v_WalkingWithDog_g02_c04__0 240 97``) give each label as an index among all classes
of the data set (101 for UCF101), although SCUBA covers fewer (24). Accuracy on them is therefore 101-way on 24
classes: it compares with in-context accuracy on the same clips, not with the UCF101 test accuracy.
"""

from __future__ import annotations

import logging
import os
import re
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
from ..classes import check_class_names
from ..clips import center_views
from ..lists import read_lines
from ..manifest import ManifestError
from ..sampling import uniform_indices
from ..timeline import VideoError
from .backgrounds import IMAGE_ERRORS

log = logging.getLogger(__name__)

TEMPLATE = "img_{:05d}.jpg"


@dataclass(frozen=True)
class FrameList:
    """A list of frame folders with the frames and the label of each; the template names frame n, counted from 1.

    ``class_names`` are all classes of the data set, also those without a clip; ``problems`` is {folder or line: why it
    was left out}, empty unless bad ones were allowed.
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
    """Read a list of frame folders, one ``path frames label`` a line, separated by blanks; a path may hold blanks.

    Relative paths start from the root, or else from the list's folder; labels count the class names. With ``skip_bad``
    bad lines and folders are left out (logged, and kept in ``problems``) instead of refused.

    Raises:
        ManifestError: malformed lines, labels outside 0 .. K-1, missing folders, missing frames, one folder with two
            labels, or no clip at all; all problems are listed by name.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    names = check_class_names(class_names)
    if not path.is_file():
        raise ValueError(f"frame list {os.fspath(path)!r}: no such file")
    if not root.is_dir():
        raise ValueError(f"root {os.fspath(root)!r}: no such folder")
    rows: list[tuple[Path, int, int]] = []
    problems: dict[str, str] = {}
    first_seen: dict[Path, tuple[int, int]] = {}
    for number, line in read_lines(path, "frame list"):
        parts = line.rsplit(maxsplit=2)
        if len(parts) != 3 or not all(re.fullmatch(r"\d{1,9}", part) for part in parts[1:]):
            problems[f"line {number}"] = f"{line[:80]!r} is not `path frames label`"
            continue
        folder, count, label = root / parts[0].replace("\\", "/"), int(parts[1]), int(parts[2])
        seen, label_seen = first_seen.setdefault(folder, (number, label))
        if label >= len(names):
            reason = f"label {label} is out of range 0 to {len(names) - 1} (labels count all classes)"
        elif label != label_seen:
            reason = f"label {label}, but {label_seen} on line {seen}"
        else:
            reason = _missing(folder, count, template)
        if reason:
            problems[f"line {number}"] = f"{parts[0]}: {reason}"
        else:
            rows.append((folder, count, label))
    shown = [f"{where}: {what}" for where, what in problems.items()]
    if not rows or (problems and not skip_bad):
        lost = bool(problems) and all(what.endswith(": no such folder") for what in problems.values())
        advice = f"is {os.fspath(root)!r} the right root?" if lost and not rows else ""
        raise ManifestError(path, shown or ["it lists no clip"], advice)
    if problems:
        left, listed = f"{len(problems)} of {len(problems) + len(rows)} lines", "\n  ".join(shown)
        log.warning("%s: going on without %s:\n  %s", path, left, listed)
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

    The whole clip is sampled in equal segments: paper does not say how SCUBA's frames are read, the authors' leftovers
    do so. With ``scufo`` one frame of each view is repeated T times, so that nothing moves: paper does not say which;
    we take the middle one of those chosen, number T // 2 counted from 0. Every chosen frame is read once before
    anything is evaluated: clips that cannot be read are refused with a ManifestError that lists all, or left out with
    ``skip_bad``; they are in ``bad``, {folder: reason}, beside what the list left out.
    """

    def __init__(
        self,
        clips: FrameList,
        num_frames: int,
        image_size: int,
        views: int = 1,
        *,
        scufo: bool = False,
        skip_bad: bool = False,
    ):
        self.num_frames, self.image_size, self.views, self.scufo = num_frames, image_size, views, scufo
        self.template, self.class_names = clips.template, list(clips.class_names)
        self.paths, self.frames, self.labels = list(clips.paths), list(clips.frames), list(clips.labels)
        with ThreadPoolExecutor(min(8, available_cpus())) as pool:
            reasons = [*progress(pool.map(self._reason, range(len(self))), "checking frame folders", len(self))]
        bad = {path: reason for path, reason in zip(self.paths, reasons) if reason}
        lines = [f"{path}: {reason}" for path, reason in bad.items()]
        kept = [i for i, reason in enumerate(reasons) if not reason]
        if bad and (not skip_bad or not kept):
            raise ManifestError(clips.source, lines, "bad frames; skip_bad=True evaluates the other clips")
        if bad:
            log.warning("%s: going on without %d clips:\n  %s", clips.source, len(lines), "\n  ".join(lines))
        columns = (self.paths, self.frames, self.labels)
        self.paths, self.frames, self.labels = ([column[i] for i in kept] for column in columns)
        self.bad = {**clips.problems, **bad}

    def _reason(self, index: int) -> str:
        try:
            self._read(index)
        except VideoError as error:
            return "; ".join(error.reasons)
        return ""

    def indices(self, index: int) -> list[np.ndarray]:
        """The 0-based frames of each view of a clip: V arrays of T numbers."""
        total, views = self.frames[index], range(self.views)
        chosen = [uniform_indices(total, self.num_frames, view=k, views=self.views) for k in views]
        return [np.repeat(view[len(view) // 2], len(view)) for view in chosen] if self.scufo else chosen

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
