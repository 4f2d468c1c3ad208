"""Clips that lie on disk as folders of numbered frames, listed as ``path frames label``: the form of SCUBA's lists.

Labels count all classes of the data set (UCF101's 101), though SCUBA covers fewer (24): accuracy is 101-way on 24
classes and compares with in-context accuracy on the same clips, not with the UCF101 test accuracy.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..classes import check_class_names
from ..clips import center_views, uniform_indices
from ..lists import read_lines
from ..manifest import in_threads, leave_out
from ..timeline import VideoError
from .backgrounds import IMAGE_ERRORS

TEMPLATE = "img_{:05d}.jpg"


def _read_list(path: Path, root: Path, num_classes: int, template: str) -> tuple[list, dict[str, str]]:
    """(folder, frames, label) of each line ``path frames label``, and {line: what is wrong with it} of the others."""
    rows, problems, first_seen = [], {}, {}
    for number, line in read_lines(path, "frame list"):
        match = re.fullmatch(r"(.+)\s+([1-9]\d{0,8})\s+(\d{1,9})", line)  # a path may hold blanks
        if not match:
            problems[f"line {number}"] = f"{line[:80]!r} is not `path frames label`, of 1 frame at least"
            continue
        folder, count, label = root / match[1].replace("\\", "/"), int(match[2]), int(match[3])
        seen, label_seen = first_seen.setdefault(folder, (number, label))
        reason = _missing(folder, count, template)
        if label >= num_classes:
            reason = f"label {label} is out of range 0 to {num_classes - 1} (labels count all classes)"
        elif label != label_seen:
            reason = f"label {label}, but {label_seen} on line {seen}"
        if reason:
            problems[f"line {number}"] = f"{match[1]}: {reason}"
        else:
            rows.append((folder, count, label))
    return rows, problems


def _missing(folder: Path, count: int, template: str) -> str:
    if not folder.is_dir():
        return "no such folder"
    present = {entry.name for entry in os.scandir(folder) if entry.is_file() and entry.stat().st_size}
    lost = [name for name in map(template.format, range(1, count + 1)) if name not in present]
    return f"{count - len(lost)} of {count} frames; {lost[0]} is missing or empty" if lost else ""


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
        root = Path(root or path.parent)
        self.num_frames, self.image_size, self.views, self.scufo = num_frames, image_size, views, scufo
        self.template, self.class_names = template, check_class_names(class_names)
        rows, self.bad = _read_list(path, root, len(self.class_names), template)
        looked = in_threads(lambda row: self._read(row).shape, rows, "checking frame folders")
        self.bad |= {str(row[0]): one for row, one in zip(rows, looked) if isinstance(one, str)}
        self.rows = [row for row, one in zip(rows, looked) if not isinstance(one, str)]
        self.labels = [label for *_, label in self.rows]
        lost = bool(self.bad) and all(reason.endswith(": no such folder") for reason in self.bad.values())
        leave_out(path, self.bad, len(self.rows), skip_bad, f"is {os.fspath(root)!r} the right root?" if lost else "")

    def _read(self, row: tuple[Path, int, int]) -> np.ndarray:
        """The chosen frames, uint8 [V * T, H, W, 3]."""
        folder, total, _ = row
        # Paper does not say how SCUBA's frames are read: we take equal segments, as the authors' leftovers do.
        views = [uniform_indices(total, self.num_frames, view=k, views=self.views) for k in range(self.views)]
        if self.scufo:  # nor which frame is repeated, so that nothing moves: we take the middle one of those chosen
            views = [np.repeat(view[len(view) // 2], len(view)) for view in views]
        wanted, order = np.unique(np.concatenate(views), return_inverse=True)
        pictures = []
        for name in (self.template.format(number + 1) for number in wanted.tolist()):
            try:
                with Image.open(folder / name) as image:
                    pictures.append(np.asarray(image.convert("RGB")))
            except IMAGE_ERRORS as error:
                raise VideoError(folder, f"{name} cannot be read: {error}") from error
        if len(sizes := {picture.shape[:2] for picture in pictures}) > 1:
            raise VideoError(folder, f"its frames have different sizes: {sorted(sizes)}")
        return np.stack(pictures)[order]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clip = center_views(self._read(self.rows[index]), self.image_size, self.views)
        return (clip if self.views > 1 else clip[0]), self.labels[index]
