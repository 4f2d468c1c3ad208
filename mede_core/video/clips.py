"""Real videos as datasets: a manifest's clips as tensors, augmented for training, in views for evaluation."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from .classes import check_class_names
from .decode import VideoInfo, probe, read_clip
from .lists import read_lines
from .manifest import Manifest, check_manifest, in_threads, leave_out
from .scuba.masks import IMAGE_ERRORS
from .timeline import VideoError

_JITTER = 8 / 7  # training scales the short side to 1 .. 8/7 of the crop (224-256 for 224: Open-VCLIP's recipe)
_UNTIMED = "no times of its frames, which dense sampling needs"
_RATE, _TARGET_FPS = 16, 30  # a dense clip takes every 16th frame of a video at 30 fps
TEMPLATE = "img_{:05d}.jpg"  # of frame n, counted from 1
_DIRECTION = re.compile(r"(?<![a-z])(left|right)|Left|Right")  # also camel case: TurnLeft


# ------------------------------------------------------------------------------------ which frames make a clip
def uniform_indices(
    total: int, num_frames: int, *, view: int = 0, views: int = 1, generator: np.random.Generator | None = None
) -> np.ndarray:
    """One frame of each of T equal segments of the video (TSN's rule): its center, or drawn; int64 [T], ascending."""
    if generator is not None:
        position = (np.arange(num_frames) + generator.random(num_frames)) * total / num_frames
        return np.minimum(position.astype(np.int64), total - 1)
    # View k takes the centers of part k of each segment: all views together are the T * V uniform frames.
    # Center of segment i, counted in frames: ((2i + 1) total / parts - 1) / 2; rounded in integers, halves
    # toward the nearer end of the video, because any one-sided rounding would break the symmetry in time: the reversed
    # video gives the same pictures, but for one of the two middle frames of an even number.
    parts = num_frames * views
    twice = (2 * np.arange(parts) + 1) * total - parts  # 2 * parts times the center
    down = -((parts - twice) // (2 * parts))  # ceil(center - 1/2)
    up = total - 1 - down[::-1]
    first_half = twice <= (total - 1) * parts
    return np.where(first_half, down, up)[view::views].astype(np.int64)


def dense_indices(
    times: np.ndarray,  # seconds at which the video's frames appear
    fps: float,
    num_frames: int = 8,
    *,
    view: int = 0,
    views: int = 1,
    compat: str = "",
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """The frames shown at T moments, evenly over T * 16/30 s (Open-VCLIP's test protocol): int64 [T], ascending."""
    total = len(times)
    if total == 1:
        return np.zeros(num_frames, np.int64)
    if compat:
        return _peers_indices(total, fps, num_frames, view, views, compat)
    window = num_frames * _RATE / _TARGET_FPS
    free = max(times[-1] - times[0] + 1 / fps - window, 0.0)
    place = np.linspace(0.0, 1.0, views)[view] if views > 1 else 0.5  # the middle for one view
    begin = times[0] + free * (place if generator is None else generator.random())
    moments = begin + np.linspace(0, window - 1 / _TARGET_FPS, num_frames)
    # Moments that miss a frame's beginning by a rounding error must not lose it.
    return np.maximum(np.searchsorted(times, moments + 1e-6 / fps, side="right") - 1, 0)


def _peers_indices(total: int, fps: float, num_frames: int, view: int, views: int, compat: str) -> np.ndarray:
    """As the decoders of Open-VCLIP's scripts count: ``pyav`` for UCF101 and Kinetics, ``torchvision`` for HMDB51."""
    # Of 300 frames at 30 fps, pyav begins at 0, 62, 125 and ends 112 frames later, torchvision at 0, 86, 172 and 127.
    window, last = num_frames * _RATE / _TARGET_FPS * fps, total - 1
    if compat == "pyav":
        read = max(1.0, math.ceil((num_frames - 1) * _RATE / _TARGET_FPS * fps))
        begin = math.floor(max(total - read, 0.0) * view / views)
        last = min(last, begin + int(read))  # the decoder hands on one frame after its window, and no more
    else:
        free = max(total - window, 0.0)
        begin = math.floor(view * (free // (views - 1)) if views > 1 else free // 2)
    position = np.linspace(begin, begin + max(window - 1, 0.0), num_frames)
    # Whole numbers that linspace misses by a rounding error must not lose a frame.
    return np.clip(np.floor(position + 1e-6).astype(np.int64), 0, last)


def clip_indices(info: VideoInfo, num_frames: int, sampling: str, compat: str = "", **which) -> np.ndarray:
    """The T frame numbers of a clip: of one view of several, or drawn by a generator."""
    if sampling == "uniform":
        return uniform_indices(info.frames, num_frames, **which)
    return dense_indices(info.timeline.times, info.fps, num_frames, compat=compat, **which)


# ------------------------------------------------------------------------------------ clips
def center_views(frames: np.ndarray, image_size: int, views: int) -> Tensor:
    """uint8 [V * T, H, W, 3] -> [V, T, 3, S, S]: the short side scaled to S pixels, the center cut out."""
    clips = v2.functional.center_crop(_short_side(frames, image_size), [image_size, image_size])
    return clips.unflatten(0, (views, -1))


def read_views(
    path, info: VideoInfo | None = None, *, num_frames=8, image_size: int, sampling="uniform", views=1, compat=""
) -> Tensor:
    """Read a video as evaluation sees it, every view scaled and cropped: uint8 [V, T, 3, S, S]."""
    info = info or probe(path)
    if sampling == "dense" and not info.timed:
        raise VideoError(path, _UNTIMED)
    chosen = [clip_indices(info, num_frames, sampling, compat, view=k, views=views) for k in range(views)]
    return center_views(read_clip(path, np.concatenate(chosen), info=info), image_size, views)


class VideoDataset(Dataset):
    """Clips of a manifest of real videos: uint8 [T, 3, S, S], or [V, T, 3, S, S] with several views, and the label."""

    def __init__(
        self,
        manifest: Manifest,
        num_frames: int,
        image_size: int,
        sampling: str = "uniform",
        views: int = 1,
        train: bool = False,
        seed: int = 0,
        *,
        compat: str = "",
        flip_directions: bool = False,  # the peers flip clips of a class whose name says left or right, too
        skip_bad: bool = False,
    ):
        self.reading = {"num_frames": num_frames, "image_size": image_size, "sampling": sampling, "views": views}
        self.reading["compat"] = compat
        self.train, self.seed, self.class_names = train, seed, list(manifest.class_names)
        self.flip = [flip_directions or not _DIRECTION.search(name) for name in self.class_names]
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that outlive an epoch
        # Every file is decoded once before the first clip, unless the manifest brings the timelines.
        found = check_manifest(manifest, "known" if manifest.timelines else "full")
        if sampling == "dense":
            found = [one if isinstance(one, str) or one.timed else _UNTIMED for one in found]
        self.rows = [i for i, one in enumerate(found) if not isinstance(one, str)]  # of the manifest
        self.bad = {path: one for path, one in zip(manifest.paths, found) if isinstance(one, str)}
        leave_out(manifest.source, self.bad, len(self.rows), train or skip_bad)
        read = manifest.paths, manifest.labels, found
        self.paths, self.labels, self.infos = ([values[i] for i in self.rows] for values in read)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, info, label = self.paths[index], self.infos[index], self.labels[index]
        if self.train:
            return self._training_clip(path, info, self.rows[index], self.flip[label]), label
        clip = read_views(path, info, **self.reading)
        return (clip if len(clip) > 1 else clip[0]), label

    def _training_clip(self, path, info: VideoInfo, row: int, flip: bool) -> Tensor:
        # Of seed, epoch and row alone: a resumed run sees the same bits, whatever the number of workers.
        generator = np.random.default_rng([self.seed, int(self._epoch), row])
        size = self.reading["image_size"]
        indices = clip_indices(info, self.reading["num_frames"], self.reading["sampling"], generator=generator)
        short = int(generator.integers(size, round(size * _JITTER) + 1))
        clip = _short_side(read_clip(path, indices, info=info), short)
        top = int(generator.integers(0, clip.shape[-2] - size + 1))
        left = int(generator.integers(0, clip.shape[-1] - size + 1))
        clip = v2.functional.crop(clip, top, left, size, size)
        if flip and generator.random() < 0.5:
            clip = v2.functional.horizontal_flip(clip)
        return clip.contiguous()


def _short_side(frames: np.ndarray, size: int) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, h, w]."""
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    to = [max(size, round(height * scale)), max(size, round(width * scale))]
    # Paper does not say how frames are scaled: we choose bilinear with antialiasing.
    return v2.functional.resize(torch.from_numpy(frames).permute(0, 3, 1, 2), to, antialias=True)


# ------------------------------------------------------------------------------------ folders of frames
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
    """Clips of a list ``path frames label`` of frame folders, SCUBA's form. Labels count all classes of the data set,
    though SCUBA covers fewer (24 of UCF101's): accuracy compares with the same clips' in context, not with UCF101's."""

    def __init__(
        self,
        path: str | os.PathLike,
        root: str | os.PathLike | None,
        class_names: Sequence[str],
        num_frames: int,
        image_size: int,
        views: int = 1,
        *,
        template: str = TEMPLATE,
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
