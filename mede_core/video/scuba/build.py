"""SCUBA: out-of-context clips of own videos and masks, and their twins in context, the same bytes from the same seed.

Line k of ``scuba.txt`` is the twin of line k of ``in_context.txt``; each names a folder of frames.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from ...files import atomic_write, progress, run_lock, sha256_file, versions
from ...flags import Count, File, Folder
from ..classes import read_class_names
from ..decode import VideoError, VideoInfo, probe, read_clip
from ..manifest import Manifest, ManifestError, read_manifest, select
from .backgrounds import Background, Backgrounds
from .masks import FORMATS, ClipMasks, MaskError, Masks, NoMaskError, nearest

SAVE = {"png": {}, "jpg": {"quality": 95, "subsampling": 0}}  # image format -> what Pillow is told
_CHUNK = 64  # frames decoded at once
_RECORD = "clip.json"
_SHOWN = 20  # lines of each kind that a report prints
MIN_AREA, MIN_SHARE = 0.10, 0.90  # the published rule for K400's segmentation masks
_NOTE = (
    "built from the user's own masks and backgrounds: not the published SCUBA files, and accuracy on it is not "
    "comparable with published numbers"
)


def clip_names(manifest: Manifest) -> list[str]:
    """A name for each video that no other has: its file name without ending, with its folder's where that is needed."""
    stems = Counter(path.stem for path in manifest.paths)
    names = [path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in manifest.paths]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    problems = [f"several videos would make clip {name!r}" for name in twice]
    problems += [f"{name!r}: line breaks in a file name" for name in names if len(name.splitlines()) != 1]
    if problems:
        raise ManifestError(manifest.source, problems)
    return names


def mask_keys(path: Path, name: str, action: str) -> list[str]:
    """Under which a video's masks may be listed, best first; ``name`` as ``clip_names`` gives it."""
    folders = dict.fromkeys((path.parent.name, action, action.replace(" ", "_")))
    keys = [f"{folder}/{path.stem}" for folder in folders]
    # Without its folder a name could be another video's.
    return [*keys, path.stem] if name == path.stem else keys


# ------------------------------------------------------------------------------------ one clip
def composite(foreground: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
    """fg * mask + bg * (1 - mask), exact where the mask is 0 or 255; uint8 [T, H, W, 3], [T, H, W] and [H, W, 3]."""
    weight = alpha[..., None].astype(np.uint16)
    return ((foreground * weight + background * (255 - weight) + 127) // 255).astype(np.uint8)


def smoothed(alpha: np.ndarray, reach: int) -> np.ndarray:
    """Masks uint8 [T, H, W] averaged over ``reach`` frames to each side."""
    means = [alpha[max(0, t - reach) : t + reach + 1].mean(0) for t in range(len(alpha))]
    return np.rint(np.stack(means)).astype(np.uint8)


def finished_clip(folder: Path, facts: dict) -> dict | None:
    """What is recorded of a clip that is whole and made of the same sources; None where it has to be made."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or damaged: it is made again
        return None
    pictures = [file.stat().st_size for file in folder.glob("img_*")]
    whole = (len(pictures), sum(pictures)) == (record.get("frames"), record.get("bytes"))
    return record if whole and all(record.get(key) == value for key, value in facts.items()) else None


# ------------------------------------------------------------------------------------ all clips
@dataclass
class Build:
    """A build: its sources; what it made of them; why videos or backgrounds could not be used, or have no fit mask."""

    manifest: Manifest
    masks: Masks
    backgrounds: Backgrounds
    out: Path
    settings: dict
    lists: dict[str, list[str]] = field(default_factory=lambda: {"scuba": [], "in_context": []})
    sources: dict[str, dict] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def video(self, path: Path, name: str, label: int) -> None:
        try:
            info = probe(path)
            keys = mask_keys(path, name, self.manifest.class_names[label])
            masks = self.masks.load(keys, info.frames, info.height, info.width)
            if self.settings["smooth"]:
                masks = replace(masks, alpha=smoothed(masks.alpha, self.settings["smooth"]))
            share = float(((masks.alpha > 127).mean((1, 2)) >= MIN_AREA).mean())
            if self.settings["area_rule"] and share < MIN_SHARE:
                rule = f"only {100 * share:.0f} % of its frames have a mask of {100 * MIN_AREA:.0f} % of the area"
                self.left_out[name] = f"{rule}; {100 * MIN_SHARE:.0f} % are needed"
                return
            self._clips(path, info, name, label, masks)
            self.notes |= {name: masks.note} if masks.note else {}
        except NoMaskError as error:
            self.left_out[name] = str(error)
        except (VideoError, MaskError) as error:
            self.problems[name] = "; ".join(getattr(error, "reasons", None) or [str(error)])

    def _clips(self, path: Path, info: VideoInfo, name: str, label: int, masks: ClipMasks) -> None:
        facts = {
            "video_sha256": sha256_file(path),
            "mask_sha256": hashlib.sha256(masks.alpha.tobytes()).hexdigest(),
            "frames": len(masks.alpha),
            "first_frame": masks.first + 1,
            "settings": hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12],
        }
        twins = [f"scuba/{name}__{k}" for k in range(self.settings["per_video"])]
        folders = [f"in_context/{name}", *twins]
        records = {folder: finished_clip(self.out / folder, facts) for folder in folders}
        missing = [folder for folder, record in records.items() if record is None]
        if missing:
            records |= self._write(missing, path, info, masks, facts)
        for folder in twins:
            self.problems.update({f"background {key}": why for key, why in records[folder]["skipped"].items()})
            self.lists["scuba"].append(f"{folder} {facts['frames']} {label}")
            self.lists["in_context"].append(f"{folders[0]} {facts['frames']} {label}")
        chosen = [{key: records[folder][key] for key in ("background", "background_sha256")} for folder in twins]
        self.sources[name] = {**{key: facts[key] for key in facts if key != "settings"}, "backgrounds": chosen}

    def _write(self, folders: list[str], path: Path, info: VideoInfo, masks: ClipMasks, facts: dict) -> dict[str, dict]:
        """Decode a video once and write clips of it, each under another name until it is whole: {folder: record}."""
        temporary = {folder: self.out / f".tmp-{os.getpid()}-{number}" for number, folder in enumerate(folders)}
        backgrounds: dict[str, Background | None] = {}
        sizes, kind = dict.fromkeys(folders, 0), self.settings["image_format"]
        try:
            for folder in temporary.values():
                folder.mkdir()
            for start in range(0, facts["frames"], _CHUNK):
                alpha = masks.alpha[start : start + _CHUNK]
                chosen = np.arange(len(alpha)) + masks.first + start
                frames = read_clip(path, chosen, size=self.settings["short_side"] or None, info=info)
                height, width = frames.shape[1:3]
                alpha = np.stack([nearest(mask, height, width) for mask in alpha])
                backgrounds = backgrounds or {folder: self._draw(folder, height, width) for folder in folders}
                for folder, background in backgrounds.items():
                    pictures = frames if background is None else composite(frames, alpha, background.pixels)
                    for number, picture in enumerate(pictures, start + 1):
                        file = temporary[folder] / f"img_{number:05d}.{kind}"
                        Image.fromarray(picture).save(file, **SAVE[kind])
                        sizes[folder] += file.stat().st_size
            records = {folder: {**facts, "bytes": size} for folder, size in sizes.items()}
            for folder, record in records.items():
                if drawn := backgrounds[folder]:
                    record.update(background=drawn.name, background_sha256=drawn.sha256, skipped=drawn.skipped)
                atomic_write(temporary[folder] / _RECORD, json.dumps(record, indent=1) + "\n")
                final = self.out / folder
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.exists():  # of an older video or mask, or without its record
                    shutil.rmtree(final)
                os.replace(temporary[folder], final)
            return records
        finally:
            for folder in temporary.values():
                shutil.rmtree(folder, ignore_errors=True)

    def _draw(self, folder: str, height: int, width: int) -> Background | None:
        if not folder.startswith("scuba/"):
            return None
        digest = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).digest()
        generator = np.random.default_rng([self.settings["seed"], *np.frombuffer(digest[:16], "<u4").tolist()])
        return self.backgrounds.draw(generator, height, width)

    def finish(self) -> Build:
        if not self.lists["scuba"]:
            lines = [f"{name}: {why}" for name, why in {**self.problems, **self.left_out}.items()]
            raise ManifestError(self.manifest.source, lines or ["it lists no video"], "no clip could be made")
        for name, lines in self.lists.items():
            atomic_write(self.out / f"{name}.txt", "\n".join(lines) + "\n")
        atomic_write(self.out / "classes.txt", "\n".join(self.manifest.class_names) + "\n")
        counted = Counter(int(line.rsplit(maxsplit=1)[1]) for line in self.lists["scuba"])
        found = versions()
        facts = {
            "finished": True, "note": _NOTE, "settings": self.settings,
            "template": f"img_{{:05d}}.{self.settings['image_format']}",
            "manifest_sha256": sha256_file(self.manifest.source),
            "counts": {"clips": len(self.lists["scuba"]), "videos": len(self.sources), "listed": len(self.manifest),
                       "classes": len(counted), "left_out": len(self.left_out), "problems": len(self.problems)},
            "clips_per_class": {self.manifest.class_names[label]: counted[label] for label in sorted(counted)},
            "left_out": self.left_out, "problems": self.problems, "notes": self.notes, "sources": self.sources,
            "versions": {name: found[name] for name in ("python", "numpy", "av", "decord")},
        }  # fmt: skip
        atomic_write(self.out / "scuba.json", json.dumps(facts, indent=1) + "\n")
        return self

    def report(self) -> str:
        lines = []
        for title, found in (("problem", self.problems), ("left out", self.left_out), ("note", self.notes)):
            lines += [f"{title}: {name}: {why}" for name, why in [*found.items()][:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"{title}: and {len(found) - _SHOWN} more, in scuba.json")
        made = f"{len(self.lists['scuba'])} clips of {len(self.sources)} videos in {self.out}"
        return "\n".join([*lines, f"{made} (scuba.txt, in_context.txt, scuba.json)"])


# ------------------------------------------------------------------------------------ the command
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


def build_scuba(
    manifest: File,
    masks: str,
    mask_format: Literal[FORMATS],
    backgrounds: str,
    out: Folder,
    *,
    seed: Annotated[int, Field(ge=0, le=2**32)],
    split: str = "all",
    root: str = "",
    classes: File = "",
    first_mask: Annotated[int, Field(ge=0, le=1)] = 1,
    per_video: Count = 1,
    image_format: Literal[tuple(SAVE)] = "jpg",
    area_rule: bool | None = None,
    smooth: Annotated[int, Field(ge=0, le=1000)] = 0,
    short_side: Annotated[int, Field(ge=0, le=10_000)] = 0,
) -> Build:
    """Make out-of-context clips (SCUBA) of own videos, masks and backgrounds, and their twins in context.

    A killed build goes on where it stopped. A clip's background depends on the seed, its name and the backgrounds
    alone, so that a bad file changes no other clip; bad files are reported and never stop the rest.

    Args:
        manifest: list of videos, path,label; or one that prepare wrote
        masks: a file for boxes, otherwise a folder
        mask_format: what the masks are
        backgrounds: folder of pictures, noise or stripes
        out: the folder to write
        seed: of the backgrounds
        split: rows of a prepared manifest, e.g. test1
        root: where a plain manifest's paths start
        classes: file of all classes of the data set (default: the manifest's)
        first_mask: number of the first png mask
        per_video: clips of each video, each with a background of its own (published: UCF101 5, K400 1)
        image_format: png keeps every pixel; jpg (quality 95) is what published lists name
        area_rule: keep videos with masks of 10 % of the area in 90 % of the frames (default: for png and npz)
        smooth: average masks over so many frames to each side (K400 published: 1; how is not said: we take the mean)
        short_side: reduce frames to this many pixels; 0 keeps their size
    """
    if split != "all" and (root or classes):
        raise ValueError("--split goes with a prepared manifest, which has its own root and classes")
    if root or classes:
        videos = read_manifest(manifest, root or None, read_class_names(classes) if classes else None)
    else:
        videos = select(manifest, split=split)
    sources = Masks(masks, mask_format, first_number=first_mask), Backgrounds(backgrounds)
    settings = {
        "seed": seed, "per_video": per_video, "image_format": image_format,
        "area_rule": mask_format in ("png", "npz") if area_rule is None else area_rule, "smooth": smooth,
        "short_side": short_side, "masks": mask_format, "backgrounds": sources[1].id, "classes": videos.class_names,
    }  # fmt: skip
    names, folder = clip_names(videos), Path(out)
    with run_lock(folder, wait=False):
        claim(folder / "scuba.json", settings)
        for stale in folder.glob(".tmp-*"):  # of a killed build: nobody else writes here while the lock is held
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        build = Build(videos, *sources, folder, settings)
        rows = list(zip(videos.paths, names, videos.labels))
        for row in progress(rows, "building clips", len(rows)):
            build.video(*row)
        return build.finish()
