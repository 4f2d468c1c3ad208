"""How static is a video model? What it answers to clips as filmed, in other orders, and before other backgrounds.

Answers are lines of a file named by what decides them: a killed run goes on. Torch-free at import.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from ..files import append_line, atomic_path, atomic_write, made_by, progress, read_lines, run_lock, set_threads
from ..flags import Device, File, Folder
from ..names import code_files, digest
from .annotations import read_folders
from .classes import check_class_names, clean_name, given_classes, plain
from .decode import VideoError, probe, read_clip
from .locate import Files
from .manifest import Manifest, ManifestError, select
from .models import OWN_CLASSES, VideoModel, load_model, person_masks
from .scuba.build import clip_names, composite, mask_keys
from .scuba.masks import Backgrounds, MaskError, Masks

log = logging.getLogger(__name__)

FILMED, OTHERS = "as filmed", "clips"  # a clip as it is; the backgrounds of the other clips
ORDERS = ("shuffled", "reversed", "one frame")
STATIC = 6  # clips that are shown
_TIE = -1  # of the answer to two best classes: none, as an evaluation counts it
_FRAMES = 8  # at most, of a film strip


def read_videos(videos: str, split: str = "all") -> Manifest:
    """The clips of a list, or of a folder: labeled by the class folders in it, or, where videos lie in it, without."""
    path = Path(videos)
    if not path.is_dir():
        return select(path, split=split)
    if split != "all":
        raise ValueError(f"--split goes with a prepared list; {videos} is a folder")
    files = Files(path)
    if flat := [name for name in files.names if "/" not in name]:
        if below := len(files.names) - len(flat):
            log.warning("%s: %d videos in folders below it are not taken", videos, below)
        return Manifest([path / name for name in flat], [], [], path)
    found = read_folders(files)
    if not found.entries:
        raise ManifestError(path, files.problems or ["it holds no video"])
    names = check_class_names([clean_name("folder", name) for name in found.classes])
    labels = [found.classes.index(entry.label) for entry in found.entries]
    return Manifest([path / entry.names[0] for entry in found.entries], labels, names, path)


# ------------------------------------------------------------------------------------ what a model is shown
@dataclass
class Variants:
    """What is made of each clip of a list for a model; ``labels`` count the model's classes, None is none of them."""

    listed: Manifest
    labels: list[int | None]  # without labels each clip has its own
    model: VideoModel
    masks: Masks | Callable[[np.ndarray], np.ndarray] | None
    backgrounds: dict[str, Backgrounds | None]
    found: Path  # the folder of masks that were not given

    names = cached_property(lambda self: clip_names(self.listed))

    def make(self, index: int) -> tuple[dict, dict]:
        """{what is shown: uint8 [T, 3, S, S]} of a clip, and facts about them."""
        from ..attention import frame_orders
        from .clips import center_views

        if self.labels[index] is None:
            action = self.listed.class_names[self.listed.labels[index]]
            raise VideoError(self.listed.paths[index], f"{action!r} is no class of the model")
        frames, alpha, why = self._read(index)
        size, facts = self.model.image_size, {"no mask": why} if why else {}
        clip = center_views(frames, size, 1)[0]
        orders = frame_orders(len(frames), [0, index])  # shuffled as scoring.Reordered does
        made = {FILMED: clip, **{order: clip[orders[order]] for order in ORDERS}}
        for number, kind in enumerate(self.backgrounds if alpha is not None else ()):
            rng = np.random.default_rng([0, index, number])
            if kind == OTHERS:
                still, facts["background of"] = self._of_another(index, rng, *frames.shape[1:3])
            else:
                still = self.backgrounds[kind].draw(rng, *frames.shape[1:3]).pixels
            if still is not None:
                made[kind] = center_views(composite(frames, alpha, still), size, 1)[0]
        return made, facts

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, str]:
        """T frames of a clip, evenly over the span that has masks, with their masks, or None and why."""
        from .clips import uniform_indices

        path, alpha = self.listed.paths[index], None
        info, count = probe(path), self.model.num_frames
        chosen = uniform_indices(info.frames, count)
        try:
            if isinstance(self.masks, Masks):
                action = self.listed.class_names[self.listed.labels[index]] if self.listed.labels else ""
                keys = mask_keys(path, self.names[index], action)
                given = self.masks.load(keys, info.frames, info.height, info.width)
                inside = uniform_indices(len(given.alpha), count)
                chosen, alpha = given.first + inside, given.alpha[inside]
            frames = read_clip(path, chosen, info=info)
            if callable(self.masks):
                alpha = self._find(path, frames)
            if alpha is not None and (not alpha.any() or alpha.min() == 255):
                raise MaskError("no foreground, or no background, in the frames that are shown")
            return frames, alpha, ""
        except MaskError as error:
            return read_clip(path, chosen, info=info), None, str(error)

    def _find(self, path: Path, frames: np.ndarray) -> np.ndarray:
        file = self.found / f"{digest([_state(path), len(frames)])[:16]}.npz"
        if not file.is_file():
            with atomic_path(file) as temporary, open(temporary, "wb") as stream:
                np.savez_compressed(stream, masks=self.masks(frames))
        with np.load(file) as content:
            return content["masks"]

    def _of_another(self, index: int, rng, height: int, width: int) -> tuple[np.ndarray | None, int | None]:
        """The background of a clip of another class, uint8 [H, W, 3], and which clip; None where there is none."""
        for other in rng.permutation(len(self.labels)).tolist():
            if self.labels[other] in (None, self.labels[index]):
                continue
            try:
                frames, alpha, _ = self._read(other)
            except VideoError:  # it is left out, and said so, in its own turn
                continue
            if alpha is not None:
                still = Image.fromarray(plate(frames, alpha)).resize((width, height), Image.Resampling.BICUBIC)
                return np.asarray(still), other
        return None, None


def plate(frames: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is behind the foreground, uint8 [H, W, 3]: a pixel's mean over the frames that show it, or all pixels'."""
    shown = (alpha == 0)[..., None]
    count = shown.sum(0)
    still = (frames * shown).sum(0) / np.maximum(count, 1)
    return np.rint(np.where(count > 0, still, still[count[..., 0] > 0].mean(0))).astype(np.uint8)


def _state(path: Path) -> list:
    """What tells whether a file, or what lies in a folder, is as it was."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


# ------------------------------------------------------------------------------------ what it answers
def score(model: VideoModel, clips):
    """Logits [B, K] of clips uint8 [B, T, 3, S, S], in float32 on the CPU."""
    logits, shape = model.score(clips), (len(clips), len(model.class_names))
    if tuple(logits.shape) != shape or not logits.isfinite().all():
        given = tuple(logits.shape), tuple(clips.shape)
        raise ValueError(f"the model's logits are {given[0]} for clips {given[1]}; expected {shape}, all finite")
    return logits.float().cpu()


def ask(variants: Variants, lines: Path) -> list[dict]:
    """The answers to each clip: a line of a file each, and those that are there are not asked for again."""
    import torch

    done = {line["clip"]: line for line in read_lines(lines)}
    todo = [index for index in range(len(variants.labels)) if index not in done]
    for index in progress(todo, "asking the model", len(todo)):
        line = {"clip": index, "video": str(variants.listed.paths[index])}
        try:
            made, facts = variants.make(index)
            best, top = score(variants.model, torch.stack([*made.values()])).topk(2)
            answers = top[:, 0].where(best[:, 0] > best[:, 1], _TIE).tolist()
            line |= {**facts, "answers": dict(zip(made, answers))}
        except VideoError as error:
            line["left out"] = "; ".join(error.reasons)
        append_line(lines, line)
        done[index] = line
    return [done[index] for index in sorted(done)]


def static_score(clip: dict) -> float:
    """-1 to 1: how far the answer survives the loss of the order, and not another background."""
    stays = {name: answer == clip["answers"][FILMED] for name, answer in clip["answers"].items()}
    backgrounds = [stays[name] for name in stays if name not in (FILMED, *ORDERS)]
    return float(np.mean([stays[name] for name in ORDERS]) - (np.mean(backgrounds) if backgrounds else 0))


def film_strips(variants: Variants, clip: dict, folder: Path) -> dict[str, str]:
    """Save a clip as filmed, and before the last of its backgrounds, as pictures: {how it is shown: file name}."""
    (made, _), files = variants.make(clip["clip"]), {}
    for number, way in enumerate((FILMED, *[*made][1 + len(ORDERS) :][-1:])):
        frames = made[way][:: max(1, len(made[way]) // _FRAMES)].permute(0, 2, 3, 1).numpy()
        files[way] = f"clip_{clip['clip']}_{number}.png"
        with atomic_path(folder / files[way]) as temporary:
            Image.fromarray(np.concatenate(frames, axis=1)).save(temporary)
    return files


# ------------------------------------------------------------------------------------ the command
def bias(
    videos: str,
    /,
    *,
    model: str,
    out: Folder = "bias",
    classes: Sequence[str] = (),
    classes_file: File = "",
    split: str = "all",
    masks: str = "",
    first_mask: Annotated[int, Field(ge=0, le=1)] = 1,
    backgrounds: Sequence[str] = ("noise", "stripes", OTHERS),
    random_weights: bool = False,
    device: Device = "",
) -> str:
    """Say how static a video model is: does it read the motion, or the place?

    The folder gets bias.html, bias.json, a table and film strips. A killed run goes on where it stopped.

    Args:
        videos: a list of videos (path,label, or what prepare wrote), or a folder: with a folder for each class, or
            with videos and no labels, where answers are compared with those to the clips as filmed
        model: a run's folder or epoch file, NAME/TAG of open_clip (ViT-B-32/openai), torchvision:NAME (r3d_18),
            hf:NAME (a video classifier of transformers), or python:MODULE:FACTORY, which gives an object with
            class_names, num_frames, image_size and __call__(uint8 [B, T, 3, H, W]) -> logits [B, K]
        out: the folder to write
        classes: names, or kinetics400, for a model that takes any (default: the list's)
        classes_file: the same, one on each line
        split: rows of a prepared list, e.g. test1
        masks: of what moves, for out-of-context clips: a folder of png masks, a file of boxes, or auto, which is
            people as torchvision's Mask R-CNN finds them; with masks a clip is the span that has them
        first_mask: number of the first png mask
        backgrounds: noise, stripes, clips (what is behind the foreground of clips of other classes), folders of
            pictures
        random_weights: smoke run without pretrained weights
        device: default: cuda where there is one, otherwise cpu
    """
    own, listed = given_classes(classes, classes_file), read_videos(videos, split)
    if own and model.startswith(OWN_CLASSES):
        raise ValueError(f"--classes goes with models of ours and of open_clip; {model} has its own")
    if not (own or listed.class_names or model.startswith(OWN_CLASSES)):
        raise ValueError(f"{videos} has no labels, so --model {model} needs --classes")
    how = None
    if masks and masks != "auto":
        how = Masks(masks, "boxes" if Path(masks).is_file() else "png", first_number=first_mask)
    sources = {Path(name).name: None if name == OTHERS else Backgrounds(name) for name in backgrounds}
    folder = Path(out)
    scorer = load_model(model, own or listed.class_names, random_weights=random_weights, device=device)
    if len(scorer.class_names) < 2:
        raise ValueError(f"--model {model} has one class, {scorer.class_names[0]!r}: any answer would be right")
    import torch

    from ..report.bias_page import write_page

    set_threads()
    with torch.no_grad(), run_lock(folder, wait=False):
        how = person_masks(device) if masks == "auto" else how
        known = {plain(name): index for index, name in enumerate(scorer.class_names)}
        labels = [known.get(plain(listed.class_names[label])) for label in listed.labels] or [*range(len(listed))]
        variants = Variants(listed, labels, scorer, how, sources, folder / "masks")
        about = {
            "model": {"name": model, "weights": scorer.weights, "num_frames": scorer.num_frames,
                      "image_size": scorer.image_size, "classes": [*scorer.class_names]},
            "videos": videos, "labeled": bool(listed.labels), "masks": masks and [masks, first_mask],
            "backgrounds": [source.id if source else name for name, source in sources.items()],
        }  # fmt: skip
        # What a model says of noise tells it from others, however it comes by its weights.
        shape = 2, scorer.num_frames, 3, scorer.image_size, scorer.image_size
        noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        decides = [about, [f"{value:.2g}" for value in score(scorer, noise).flatten().tolist()], labels]
        decides += [[*map(_state, listed.paths)], _state(Path(masks)) if masks else [], code_files(("video.bias",))]
        found = ask(variants, folder / f"answers-{digest(decides)[:12]}.jsonl")
        left_out = {clip["video"]: clip["left out"] for clip in found if "left out" in clip}
        clips = [clip for clip in found if "answers" in clip]
        if not clips:
            raise ManifestError(videos, [f"{video}: {why}" for video, why in left_out.items()], "no clip is left")
        for clip in clips:
            clip["label"] = labels[clip["clip"]] if listed.labels else clip["answers"][FILMED]
        most = sorted(clips, key=lambda clip: -static_score(clip))[:STATIC]
        strips = {clip["clip"]: film_strips(variants, clip, folder / "figures") for clip in most}
        whole = {**about, "left_out": left_out, "most_static": strips, "clips": clips}
        atomic_write(folder / "bias.json", json.dumps({**whole, **made_by()}, indent=1) + "\n")
        return write_page(folder)
