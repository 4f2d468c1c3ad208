"""Clips that lie on disk as folders of numbered frames, listed as ``path frames label``: the form of SCUBA's lists.

Labels count all classes of the data set (UCF101's 101), though SCUBA covers fewer (24): accuracy is 101-way on 24
classes and compares with in-context accuracy on the same clips, not with the UCF101 test accuracy.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...files import available_cpus, progress
from ..classes import check_class_names
from ..clips import center_views, uniform_indices
from ..lists import read_lines
from ..manifest import ManifestError
from ..timeline import VideoError
from .backgrounds import IMAGE_ERRORS

log = logging.getLogger(__name__)

TEMPLATE = "img_{:05d}.jpg"


def _read_list(path: Path, root: Path, num_classes: int, template: str) -> tuple[list, dict[str, str]]:
    """(folder, frames, label) of each line ``path frames label``, and {line: what is wrong with it} of the others."""
    rows, problems = [], {}
    first_seen: dict[Path, tuple[int, int]] = {}
    for number, line in read_lines(path, "frame list"):
        parts = line.rsplit(maxsplit=2)  # a path may hold blanks
        if len(parts) != 3 or not all(re.fullmatch(r"\d{1,9}", part) for part in parts[1:]):
            problems[f"line {number}"] = f"{line[:80]!r} is not `path frames label`"
            continue
        folder, count, label = root / parts[0].replace("\\", "/"), int(parts[1]), int(parts[2])
        seen, label_seen = first_seen.setdefault(folder, (number, label))
        if label >= num_classes:
            reason = f"label {label} is out of range 0 to {num_classes - 1} (labels count all classes)"
        elif label != label_seen:
            reason = f"label {label}, but {label_seen} on line {seen}"
        else:
            reason = _missing(folder, count, template)
        if reason:
            problems[f"line {number}"] = f"{parts[0]}: {reason}"
        else:
            rows.append((folder, count, label))
    return rows, problems


def _missing(folder: Path, count: int, template: str) -> str:
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
    """Clips of a list of frame folders for an evaluation, in the form that ``VideoDataset`` gives videos."""

    def __init__(
        self,
        path: str | os.PathLike,
        root: str | os.PathLike | None,
        class_names: Sequence[str],
        num_frames: int,
        image_size: int,
        views: int = 1,
        *,
        template: str = TEMPLATE,  # of frame n, counted from 1
        scufo: bool = False,
        skip_bad: bool = False,
    ):
        path = Path(path)
        root = path.parent if root is None else Path(root)
        if not path.is_file():
            raise ValueError(f"frame list {os.fspath(path)!r}: no such file")
        if not root.is_dir():
            raise ValueError(f"root {os.fspath(root)!r}: no such folder")
        self.num_frames, self.image_size, self.views, self.scufo = num_frames, image_size, views, scufo
        self.template, self.class_names = template, check_class_names(class_names)
        self.rows, self.bad = _read_list(path, root, len(self.class_names), template)
        with ThreadPoolExecutor(min(8, available_cpus())) as pool:  # every chosen frame is read before an evaluation
            reasons = [*progress(pool.map(self._reason, range(len(self))), "checking frame folders", len(self))]
        self.bad |= {str(row[0]): reason for row, reason in zip(self.rows, reasons) if reason}
        self.rows = [row for row, reason in zip(self.rows, reasons) if not reason]
        self.labels = [label for *_, label in self.rows]
        lines = [f"{where}: {what}" for where, what in self.bad.items()]
        if not self.rows or (lines and not skip_bad):
            lost = bool(lines) and all(line.endswith(": no such folder") for line in lines)
            advice = f"is {os.fspath(root)!r} the right root?" if lost else "skip_bad=True evaluates the others"
            raise ManifestError(path, lines or ["it lists no clip"], advice)
        if lines:
            log.warning("%s: going on without %d clips:\n  %s", path, len(lines), "\n  ".join(lines))

    def _reason(self, index: int) -> str:
        try:
            self._read(index)
        except VideoError as error:
            return "; ".join(error.reasons)
        return ""

    def _read(self, index: int) -> np.ndarray:
        """The chosen frames, uint8 [V * T, H, W, 3]."""
        folder, total, _ = self.rows[index]
        # Paper does not say how SCUBA's frames are read: we take equal segments, as the authors' leftovers do.
        views = [uniform_indices(total, self.num_frames, view=k, views=self.views) for k in range(self.views)]
        if self.scufo:  # nor which frame is repeated, so that nothing moves: we take the middle one of those chosen
            views = [np.repeat(view[len(view) // 2], len(view)) for view in views]
        chosen = np.concatenate(views)
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
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clip = center_views(self._read(index), self.image_size, self.views)
        return (clip if self.views > 1 else clip[0]), self.labels[index]
