"""Real videos as datasets: a manifest's clips as tensors, augmented for training, in views for evaluation.

No file is ever replaced by another: training goes on without bad files and says which, evaluation refuses
them unless told otherwise.

Decoded clips are not cached on disk: on one core, reading, cutting and scaling 8 frames of a 10-second clip at
340x256 takes 0.12 s, one forward pass of ViT-B/16 over them 4 s. On a GPU data loader workers hide the reading.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from .decode import VideoInfo, read_clip
from .manifest import Manifest, ManifestError, check_manifest
from .sampling import COMPATS, SAMPLINGS, dense_indices, uniform_indices

__all__ = ["VideoDataset", "center_views", "read_views", "view_indices"]

log = logging.getLogger(__name__)

_JITTER = 8 / 7  # training scales the short side to 1 .. 8/7 of the crop (224-256 for 224: Open-VCLIP's recipe)
_DIRECTION = re.compile(r"(?<![a-z])(left|right)|Left|Right")  # also camel case: TurnLeft


def view_indices(
    info: VideoInfo, num_frames: int, sampling: str, views: int, compat: str | None = None
) -> list[np.ndarray]:
    """The frames of each view of a video for evaluation.

    Args:
        info: of the video.
        num_frames: frames of a view, T.
        sampling: ``uniform`` (the whole video) or ``dense`` (8x16-style windows at 30 fps).
        views: V.
        compat: read dense windows as the peers' ``pyav`` or ``torchvision`` decoder did (see ``dense_indices``).

    Returns:
        V arrays of T frame numbers.

    Raises:
        ValueError: a value out of range, compat with uniform sampling, or dense sampling of a video without a
            frame rate.
    """
    _check_sampling(sampling, compat)
    if views < 1:
        raise ValueError(f"views is {views}; it must be at least 1")
    if sampling == "uniform":
        return [uniform_indices(info.frames, num_frames, view=k, views=views) for k in range(views)]
    return [dense_indices(info.frames, info.fps, num_frames, view=k, views=views, compat=compat) for k in range(views)]


def _check_sampling(sampling: str, compat: str | None) -> None:
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {sampling!r}; allowed: {', '.join(SAMPLINGS)}")
    if compat not in (None, *COMPATS):
        raise ValueError(f"compat is {compat!r}; allowed: None, {', '.join(COMPATS)}")
    if compat and sampling != "dense":
        raise ValueError(f"compat is {compat!r}, which moves dense windows only; sampling is {sampling!r}")


def center_views(frames: Tensor, image_size: int) -> Tensor:
    """Scale the short side to the image size and cut out the center.

    Paper does not say how frames are scaled: we choose bilinear with antialiasing.

    Args:
        frames: uint8 [..., 3, H, W].
        image_size: pixels, S.

    Returns:
        uint8 [..., 3, S, S].
    """
    return v2.functional.center_crop(_short_side(frames, image_size), [image_size, image_size])


def read_views(
    path, info: VideoInfo, *, num_frames: int, image_size: int, sampling: str, views: int, compat: str | None = None
) -> Tensor:
    """Read a video as evaluation sees it: every view, short side scaled, center cropped.

    Args:
        path: the video.
        info: of the video, from ``probe``.
        num_frames: frames of a view, T.
        image_size: pixels, S.
        sampling: ``uniform`` or ``dense``.
        views: V.
        compat: as in :func:`view_indices`.

    Returns:
        uint8 [V, T, 3, S, S].

    Raises:
        VideoError: the frames cannot be read.
    """
    indices = np.concatenate(view_indices(info, num_frames, sampling, views, compat))
    frames = center_views(_channels_first(read_clip(path, indices)), image_size)
    return frames.view(views, num_frames, 3, image_size, image_size)


class VideoDataset(Dataset):
    """Clips of a manifest of real videos.

    Training clips are a function of (seed, epoch, row of the manifest) alone, so that a resumed run sees
    the same bits whatever the number of workers: frames at random inside their segments (or a random
    window), short side scaled at random, random crop, horizontal flip; all frames of a clip alike. Clips of a
    class whose name says left or right are not flipped (the peers flip them: ``flip_directions``).

    Args:
        manifest: from ``datasets.select`` or ``read_manifest``.
        num_frames: frames of a clip, T.
        image_size: pixels, S.
        sampling: ``uniform`` (the whole video) or ``dense`` (8x16-style windows at 30 fps).
        views: V, for evaluation; several give items [V, T, 3, S, S].
        train: augment, and leave bad files out; otherwise bad files are an error.
        seed: of the augmentation.
        compat: read dense windows as the peers' ``pyav`` or ``torchvision`` decoder did.
        flip_directions: flip also clips of classes whose name says left or right.
        skip_bad: leave bad files out of an evaluation, too.
        check: ``full`` decodes every file once (about 0.1 s each), ``open`` reads packets and the first
            frame, ``known`` takes the manifest's own lengths and only looks whether the files are there.
            Default: ``known`` where a prepared manifest brings the lengths, otherwise ``full``.
        workers: threads of the check.

    Attributes:
        class_names: all classes of the manifest.
        bad: {file: reason} of the files left out.
        rows: of each item, its row in the manifest.

    Raises:
        ManifestError: bad files in an evaluation; all are listed.
        ValueError: a value out of range, or no file left.
    """

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
        compat: str | None = None,
        flip_directions: bool = False,
        skip_bad: bool = False,
        check: str | None = None,
        workers: int | None = None,
    ):
        for name, value in (("num_frames", num_frames), ("image_size", image_size), ("views", views)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        _check_sampling(sampling, compat)
        check = check or ("known" if manifest.lengths else "full")
        if train and views != 1:
            raise ValueError(f"views is {views}; training takes one")
        self.num_frames, self.image_size, self.sampling, self.views = num_frames, image_size, sampling, views
        self.train, self.seed, self.compat, self.class_names = train, seed, compat, list(manifest.class_names)
        self.flip = [flip_directions or not _DIRECTION.search(name) for name in self.class_names]
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that outlive an epoch
        report = check_manifest(manifest, check, workers=workers)
        for position, info in report.infos.copy().items():
            if sampling == "dense" and info.fps <= 0:
                report.problems[position] = "no frame rate, which dense sampling needs"
                del report.infos[position]
        lines = report.lines(manifest)
        if lines and not (train or skip_bad):
            raise ManifestError(manifest.source, lines, "bad files; skip_bad=True evaluates the others")
        self.rows = sorted(report.infos)
        if not self.rows:
            raise ManifestError(manifest.source, lines or ["it lists no video"], "no usable video is left")
        if lines:
            log.warning(
                "%s: going on without %d of %d files:\n  %s",
                manifest.source, len(lines), len(manifest), "\n  ".join(lines),
            )  # fmt: skip
        self.bad = {manifest.paths[i]: reason for i, reason in sorted(report.problems.items())}
        self.paths = [manifest.paths[i] for i in self.rows]
        self.labels = [manifest.labels[i] for i in self.rows]
        self.infos = [report.infos[i] for i in self.rows]

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's augmentation the next items get."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One clip: uint8 [T, 3, S, S], or [V, T, 3, S, S] with several views; and its label."""
        path, info, label = self.paths[index], self.infos[index], self.labels[index]
        if self.train:
            return self._training_clip(path, info, self.rows[index], self.flip[label]), label
        clip = read_views(
            path, info, num_frames=self.num_frames, image_size=self.image_size,
            sampling=self.sampling, views=self.views, compat=self.compat,
        )  # fmt: skip
        return (clip if self.views > 1 else clip[0]), label

    def _training_clip(self, path, info: VideoInfo, row: int, flip: bool) -> Tensor:
        generator = np.random.default_rng([self.seed, int(self._epoch), row])
        if self.sampling == "uniform":
            indices = uniform_indices(info.frames, self.num_frames, generator=generator)
        else:
            indices = dense_indices(info.frames, info.fps, self.num_frames, generator=generator, compat=self.compat)
        size = self.image_size
        short = int(generator.integers(size, round(size * _JITTER) + 1))
        clip = _short_side(_channels_first(read_clip(path, indices)), short)
        top = int(generator.integers(0, clip.shape[-2] - size + 1))
        left = int(generator.integers(0, clip.shape[-1] - size + 1))
        clip = v2.functional.crop(clip, top, left, size, size)
        if flip and generator.random() < 0.5:
            clip = v2.functional.horizontal_flip(clip)
        return clip.contiguous()


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _short_side(frames: Tensor, size: int) -> Tensor:
    """Scale so that the shorter side has ``size`` pixels; the longer one keeps the proportions."""
    height, width = frames.shape[-2:]
    scale = size / min(height, width)
    to: Sequence[int] = [max(size, round(height * scale)), max(size, round(width * scale))]
    return v2.functional.resize(frames, list(to), antialias=True)
