"""Clip folders of SCUBA: compositing, and writing them so that a half-written one is never taken for a clip."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...files import atomic_write
from ..decode import VideoInfo, read_clip
from .backgrounds import Background
from .masks import ClipMasks, nearest

SAVE = {"png": {}, "jpg": {"quality": 95, "subsampling": 0}}  # image format -> what Pillow is told
_CHUNK = 64  # frames decoded at once
_RECORD = "clip.json"


def claim(path: Path, settings: dict) -> None:
    """Write a build's settings, or refuse a folder that other settings have filled; each change is named."""
    if not path.is_file():
        atomic_write(path, json.dumps({"finished": False, "settings": settings}, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a build's: {error!r}; choose another folder") from error
    new = {key: value for key, value in settings.items() if before.get(key) != value}
    changed = [f"{key}: {before.get(key)!r} -> {value!r}" for key, value in new.items()]
    if changed:
        raise ValueError(f"{path} is of a build with other settings ({'; '.join(changed)}); choose another folder")


def composite(foreground: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
    """fg * mask + bg * (1 - mask), exact where the mask is 0 or 255; uint8 [T, H, W, 3], [T, H, W] and [H, W, 3]."""
    weight = alpha[..., None].astype(np.uint16)
    return ((foreground * weight + background * (255 - weight) + 127) // 255).astype(np.uint8)


def smoothed(alpha: np.ndarray, reach: int) -> np.ndarray:
    """Masks averaged over ``reach`` frames to each side; uint8 [T, H, W], as ``alpha``."""
    return np.stack([
        np.rint(alpha[max(0, t - reach) : t + reach + 1].mean(0)).astype(np.uint8) for t in range(len(alpha))
    ])  # fmt: skip


def finished_clip(folder: Path, facts: dict) -> dict | None:
    """What is recorded of a clip that is whole and made of the same sources; None where it has to be made."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or damaged: it is made again
        return None
    pictures = [file.stat().st_size for file in folder.glob("img_*")]
    whole = (len(pictures), sum(pictures)) == (record.get("frames"), record.get("bytes"))
    return record if whole and all(record.get(key) == value for key, value in facts.items()) else None


def write_clips(
    out: Path,
    folders: Sequence[str],
    video: Path,
    info: VideoInfo,
    masks: ClipMasks,
    facts: dict,
    draw: Callable[[str, int, int], Background | None],
    *,
    image_format: str,
    short_side: int,
) -> dict[str, dict]:
    """Decode a video once and write clips of it below ``out``, a folder each, which gets its name when it is whole."""
    temporary = {folder: out / f".tmp-{os.getpid()}-{number}" for number, folder in enumerate(folders)}
    backgrounds: dict[str, Background | None] = {}
    sizes = dict.fromkeys(folders, 0)
    try:
        for folder in temporary.values():
            folder.mkdir()
        for start in range(0, facts["frames"], _CHUNK):
            alpha = masks.alpha[start : start + _CHUNK]
            frames = read_clip(video, np.arange(len(alpha)) + masks.first + start, size=short_side or None, info=info)
            height, width = frames.shape[1:3]
            alpha = np.stack([nearest(mask, height, width) for mask in alpha])
            for folder in folders:
                if folder not in backgrounds:
                    backgrounds[folder] = draw(folder, height, width)
                background = backgrounds[folder]
                pictures = frames if background is None else composite(frames, alpha, background.pixels)
                for number, picture in enumerate(pictures, start + 1):
                    file = temporary[folder] / f"img_{number:05d}.{image_format}"
                    Image.fromarray(picture).save(file, **SAVE[image_format])
                    sizes[folder] += file.stat().st_size
        records = {}
        for folder in folders:
            records[folder] = {**facts, "bytes": sizes[folder]}
            if drawn := backgrounds[folder]:
                records[folder].update(background=drawn.name, background_sha256=drawn.sha256, skipped=drawn.skipped)
            atomic_write(temporary[folder] / _RECORD, json.dumps(records[folder], indent=1) + "\n")
            final = out / folder
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():  # of an older video or mask, or without its record
                shutil.rmtree(final)
            os.replace(temporary[folder], final)
        return records
    finally:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)
