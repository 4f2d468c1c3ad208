"""SCUBA: out-of-context clips of own videos and masks, and their twins in context, the same bytes from the same seed.

Line k of ``scuba.txt`` is the twin of line k of ``in_context.txt``; each names a folder of frames.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from ...files import atomic_write, progress, run_lock, sha256_file, versions
from ...flags import Count, File, Folder
from ..classes import read_class_names
from ..decode import VideoError, VideoInfo, probe, read_clip
from ..lists import some
from ..manifest import Manifest, ManifestError, read_manifest, select
from .masks import FORMATS, Background, Backgrounds, ClipMasks, MaskError, Masks, NoMaskError, nearest

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
    near = (alpha[max(0, t - reach) : t + reach + 1] for t in range(len(alpha)))
    return np.stack([np.rint(frames.mean(0)).astype(np.uint8) for frames in near])


def shrunk(frames: np.ndarray, short: int) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] whose shorter side has at most so many pixels; 0 leaves them alone."""
    if not short or min(frames.shape[1:3]) <= short:
        return frames
    pictures = [ImageOps.cover(Image.fromarray(one), (short, short), Image.Resampling.BOX) for one in frames]
    return np.stack([np.asarray(picture) for picture in pictures])


# ------------------------------------------------------------------------------------ all clips
class Build:
    """A build: what was made of its sources, and why videos or backgrounds could not be used, or have no fit mask."""

    def __init__(self, manifest: Manifest, masks: Masks, backgrounds: Backgrounds, out: Path, settings: dict):
        self.manifest, self.names, self.out, self.settings = manifest, clip_names(manifest), out, settings
        self.masks, self.backgrounds = masks, backgrounds
        self.sources, self.problems, self.left_out, self.notes = {}, {}, {}, {}  # {name: what is recorded, or why}

    def video(self, path: Path, name: str, action: str) -> None:
        try:
            info = probe(path)
            masks = self.masks.load(mask_keys(path, name, action), info.frames, info.height, info.width)
            alpha = smoothed(masks.alpha, self.settings["smooth"]) if self.settings["smooth"] else masks.alpha
            share = float(((alpha > 127).mean((1, 2)) >= MIN_AREA).mean())
            if self.settings["area_rule"] and share < MIN_SHARE:
                rule = f"only {100 * share:.0f} % of its frames have a mask of {100 * MIN_AREA:.0f} % of the area"
                raise NoMaskError(f"{rule}; {100 * MIN_SHARE:.0f} % are needed")
            made = self._clips(path, info, name, replace(masks, alpha=alpha))
            self.problems |= {f"background {key}": why for key, why in made.pop("skipped").items()}
            self.sources[name] = {key: value for key, value in made.items() if key != "bytes"}
            self.notes |= {name: masks.note} if masks.note else {}
        except NoMaskError as error:
            self.left_out[name] = str(error)
        except (VideoError, MaskError) as error:
            self.problems[name] = str(error)

    def _clips(self, path: Path, info: VideoInfo, name: str, masks: ClipMasks) -> dict:
        """What is recorded of a video's clips, which are made unless they are whole and of the same sources."""
        facts = {
            "video_sha256": sha256_file(path),
            "mask_sha256": hashlib.sha256(masks.alpha.tobytes()).hexdigest(),
            "frames": len(masks.alpha),
            "first_frame": masks.first + 1,
        }
        folders = [f"in_context/{name}", *(f"scuba/{name}__{k}" for k in range(self.settings["per_video"]))]
        try:
            record = json.loads((self.out / folders[0] / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or damaged: they are made again
            record = {}
        sizes = {folder: sum(file.stat().st_size for file in (self.out / folder).glob("img_*")) for folder in folders}
        if all(record.get(key) == value for key, value in {**facts, "bytes": sizes}.items()):
            return record
        # The video is decoded once; its clips have another name until they are whole.
        sizes, kind, drawn = dict.fromkeys(folders, 0), self.settings["image_format"], []
        with TemporaryDirectory(prefix=".tmp-", dir=self.out) as temporary:
            new = {folder: Path(temporary, folder) for folder in folders}
            for folder in new.values():
                folder.mkdir(parents=True)
            for start in range(0, facts["frames"], _CHUNK):
                alpha = masks.alpha[start : start + _CHUNK]
                frames = read_clip(path, np.arange(len(alpha)) + masks.first + start, info=info)
                frames = shrunk(frames, self.settings["short_side"])
                height, width = frames.shape[1:3]
                alpha = np.stack([nearest(mask, height, width) for mask in alpha])
                drawn = drawn or [self._draw(folder, height, width) for folder in folders[1:]]
                for folder, background in zip(folders, [None, *drawn]):
                    pictures = composite(frames, alpha, background.pixels) if background else frames
                    for number, picture in enumerate(pictures, start + 1):
                        file = new[folder] / f"img_{number:05d}.{kind}"
                        Image.fromarray(picture).save(file, **SAVE[kind])
                        sizes[folder] += file.stat().st_size
            hashes = [hashlib.sha256(one.pixels.tobytes()).hexdigest() for one in drawn]
            backgrounds = [{"background": one.name, "background_sha256": sha} for one, sha in zip(drawn, hashes)]
            skipped = {name: why for one in drawn for name, why in one.skipped.items()}
            record = {**facts, "bytes": sizes, "backgrounds": backgrounds, "skipped": skipped}
            atomic_write(new[folders[0]] / _RECORD, json.dumps(record, indent=1) + "\n")
            for folder in reversed(folders):  # the record comes last
                (self.out / folder).parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(self.out / folder, ignore_errors=True)  # of an older video or mask, or not whole
                os.replace(new[folder], self.out / folder)
        return record

    def _draw(self, folder: str, height: int, width: int) -> Background:
        digest = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).digest()
        generator = np.random.default_rng([self.settings["seed"], *np.frombuffer(digest[:16], "<u4").tolist()])
        return self.backgrounds.draw(generator, height, width)

    def finish(self) -> None:
        if not self.sources:
            lines = [f"{name}: {why}" for name, why in {**self.problems, **self.left_out}.items()]
            raise ManifestError(self.manifest.source, lines or ["it lists no video"], "no clip could be made")
        used = [(name, label) for name, label in zip(self.names, self.manifest.labels) if name in self.sources]
        twins = [(name, label, k) for name, label in used for k in range(self.settings["per_video"])]
        for kind, ending in (("scuba", "__{}"), ("in_context", "")):
            rows = (f"{kind}/{n}{ending.format(k)} {self.sources[n]['frames']} {label}\n" for n, label, k in twins)
            atomic_write(self.out / f"{kind}.txt", "".join(rows))
        atomic_write(self.out / "classes.txt", "\n".join(self.manifest.class_names) + "\n")
        counted = Counter(label for _, label, _ in twins)
        found = versions()
        facts = {
            "finished": True, "note": _NOTE, "settings": self.settings,
            "template": f"img_{{:05d}}.{self.settings['image_format']}",
            "manifest_sha256": sha256_file(self.manifest.source),
            "counts": {"clips": len(twins), "videos": len(used), "listed": len(self.manifest),
                       "classes": len(counted), "left_out": len(self.left_out), "problems": len(self.problems)},
            "clips_per_class": {self.manifest.class_names[label]: counted[label] for label in sorted(counted)},
            "left_out": self.left_out, "problems": self.problems, "notes": self.notes, "sources": self.sources,
            "versions": {name: found[name] for name in ("python", "numpy", "av", "decord")},
        }  # fmt: skip
        atomic_write(self.out / "scuba.json", json.dumps(facts, indent=1) + "\n")

    def report(self) -> str:
        lines = []
        for title, found in (("problem", self.problems), ("left out", self.left_out), ("note", self.notes)):
            shown = some([f"{name}: {why}" for name, why in found.items()], _SHOWN, ", in scuba.json")
            lines += [f"{title}: {line}" for line in shown]
        made = f"{self.settings['per_video'] * len(self.sources)} clips of {len(self.sources)} videos in {self.out}"
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
    folder = Path(out)
    build = Build(videos, *sources, folder, settings)
    with run_lock(folder, wait=False):
        claim(folder / "scuba.json", settings)
        for stale in folder.glob(".tmp-*"):  # of a killed build: nobody else writes here while the lock is held
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        rows = zip(videos.paths, build.names, [videos.class_names[label] for label in videos.labels])
        for row in progress(rows, "building clips", len(videos)):
            build.video(*row)
        build.finish()
        return build
