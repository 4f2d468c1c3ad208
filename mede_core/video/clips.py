"""Real videos as datasets: a manifest's clips as tensors, augmented for training, in views for evaluation."""

from __future__ import annotations

import logging
import re

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from .decode import VideoInfo, read_clip
from .manifest import Manifest, ManifestError, check_manifest
from .sampling import dense_indices, uniform_indices
from .timeline import VideoError

log = logging.getLogger(__name__)

_JITTER = 8 / 7  # training scales the short side to 1 .. 8/7 of the crop (224-256 for 224: Open-VCLIP's recipe)
_DIRECTION = re.compile(r"(?<![a-z])(left|right)|Left|Right")  # also camel case: TurnLeft


def view_indices(info: VideoInfo, num_frames: int, sampling: str, views: int, compat: str = "") -> list[np.ndarray]:
    """The frames of each view of a video for evaluation: V arrays of T frame numbers."""
    if sampling == "uniform":
        return [uniform_indices(info.frames, num_frames, view=k, views=views) for k in range(views)]
    how = {"views": views, "compat": compat}
    return [dense_indices(info.timeline.times, info.fps, num_frames, view=k, **how) for k in range(views)]


def _without_times(info: VideoInfo) -> str:
    return "" if info.fps > 0 or info.frames == 1 else "no times of its frames, which dense sampling needs"


def center_views(frames: np.ndarray, image_size: int, views: int) -> Tensor:
    """uint8 [V * T, H, W, 3] -> [V, T, 3, S, S]: the short side scaled to S pixels, the center cut out."""
    clips = v2.functional.center_crop(_short_side(frames, image_size), [image_size, image_size])
    return clips.unflatten(0, (views, -1))


def read_views(
    path, info: VideoInfo, *, num_frames: int, image_size: int, sampling: str, views: int, compat: str = ""
) -> Tensor:
    """Read a video as evaluation sees it, every view scaled and cropped: uint8 [V, T, 3, S, S]."""
    if sampling == "dense" and _without_times(info):
        raise VideoError(path, _without_times(info))
    indices = np.concatenate(view_indices(info, num_frames, sampling, views, compat))
    return center_views(read_clip(path, indices, info=info), image_size, views)


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
        self.num_frames, self.image_size, self.sampling, self.views = num_frames, image_size, sampling, views
        self.train, self.seed, self.compat, self.class_names = train, seed, compat, list(manifest.class_names)
        self.flip = [flip_directions or not _DIRECTION.search(name) for name in self.class_names]
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that outlive an epoch
        # Every file is decoded once before the first clip, unless the manifest brings the timelines.
        infos, problems = check_manifest(manifest, "known" if manifest.timelines else "full")
        if sampling == "dense":
            problems |= {i: _without_times(info) for i, info in infos.items() if _without_times(info)}
        problems = dict(sorted(problems.items()))
        lines = [f"{manifest.paths[i]}: {reason}" for i, reason in problems.items()]
        if lines and not (train or skip_bad):
            raise ManifestError(manifest.source, lines, "bad files; skip_bad=True evaluates the others")
        self.rows = sorted(infos.keys() - problems.keys())  # of the manifest
        if not self.rows:
            raise ManifestError(manifest.source, lines or ["it lists no video"], "no usable video is left")
        if lines:
            left, listed = f"{len(lines)} of {len(manifest)} files", "\n  ".join(lines)
            log.warning("%s: going on without %s:\n  %s", manifest.source, left, listed)
        self.bad = {manifest.paths[i]: reason for i, reason in problems.items()}
        self.paths = [manifest.paths[i] for i in self.rows]
        self.labels = [manifest.labels[i] for i in self.rows]
        self.infos = [infos[i] for i in self.rows]

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, info, label = self.paths[index], self.infos[index], self.labels[index]
        if self.train:
            return self._training_clip(path, info, self.rows[index], self.flip[label]), label
        how = {"sampling": self.sampling, "views": self.views, "compat": self.compat}
        clip = read_views(path, info, num_frames=self.num_frames, image_size=self.image_size, **how)
        return (clip if self.views > 1 else clip[0]), label

    def _training_clip(self, path, info: VideoInfo, row: int, flip: bool) -> Tensor:
        # Of seed, epoch and row alone: a resumed run sees the same bits, whatever the number of workers.
        generator = np.random.default_rng([self.seed, int(self._epoch), row])
        if self.sampling == "uniform":
            indices = uniform_indices(info.frames, self.num_frames, generator=generator)
        else:
            indices = dense_indices(info.timeline.times, info.fps, self.num_frames, generator=generator)
        size = self.image_size
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
