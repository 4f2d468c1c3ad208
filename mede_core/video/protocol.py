"""Real videos for the core: training clips, tests in and out of context, what departs from the paper. Torch-free."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import METHODS, Config, EvalSet, diff, is_random, load_config
from .classes import load_prompts
from .manifest import read_sidecar, select

if TYPE_CHECKING:
    from torch.utils.data import Dataset

IN_CONTEXT_CLIPS = "in_context"  # an entry of scuba in data.yaml: the same clips before their own background
BUILT = "out-of-context clips were built here and are not the published ones"
_LIKE_THE_PAPER = (  # fields whose change does not make a number another number
    "data", "data_split", "half", "shots", "seed", "random_weights", "world_seed", "rho", "train_clips",
    "test_clips", "micro_batch", "precision", "inner_sync",
)  # fmt: skip
_OF_TESTING = ("model", "weights", "num_frames", "sampling", "views", "compat", "prompts")  # where nothing is trained


def training_clips(config: Config, image_size: int) -> "Dataset":
    from .clips import VideoDataset

    manifest = select(config.data, split=config.data_split, half=config.half, shots=config.shots, seed=config.seed)
    how = {"sampling": config.sampling, "flip_directions": config.flip_directions}
    return VideoDataset(manifest, config.num_frames, image_size, train=True, seed=config.seed, **how)


def test_clips(config: Config, eval_set: EvalSet, image_size: int, *, skip_bad: bool = False) -> "Dataset":  # noqa: PT028
    """The clips of one test: videos of a list, or with ``classes_of`` the frame folders of out-of-context clips."""
    from .clips import TEMPLATE, FrameFolderDataset, VideoDataset

    allowed = ("forward", "single") if eval_set.classes_of else ("forward",)
    if eval_set.order not in allowed:
        raise ValueError(f"order is {eval_set.order!r}; of {eval_set.set}'s frames allowed: {', '.join(allowed)}")
    size = {"num_frames": config.num_frames, "image_size": image_size, "views": eval_set.views, "skip_bad": skip_bad}
    if not eval_set.classes_of:
        manifest = select(eval_set.data, split=str(eval_set.part), half=eval_set.half)
        if len(manifest.class_names) < 2:
            only = manifest.class_names[0]
            raise ValueError(f"{manifest.source} tests one class, {only!r}: any answer would be right")
        return VideoDataset(manifest, sampling=config.sampling, compat=config.compat, **size)
    about = _built(eval_set.data)
    template = json.loads(about.read_text(encoding="utf-8"))["template"] if about.is_file() else TEMPLATE
    # SCUBA's labels count the full label space, also where few classes occur.
    sidecar = read_sidecar(eval_set.classes_of)
    classes = sidecar["classes"] if sidecar else select(eval_set.classes_of).class_names
    how = {"template": template, "scufo": eval_set.order == "single"}
    return FrameFolderDataset(eval_set.data, eval_set.root or None, classes, **how, **size)


def facts(config: Config, eval_set: EvalSet, clips: "Dataset") -> dict:
    """What a record of a test says beside its number: clips left out, prompts, views, and what ``departs``."""
    tested = config.replace(views=eval_set.views, prompts=eval_set.prompts)
    said = [departures(tested, eval_set.classes_of or eval_set.data)]
    if eval_set.classes_of and _built(eval_set.data).is_file() and eval_set.context != IN_CONTEXT_CLIPS:
        said.append(BUILT)
    about = {"prompts": load_prompts(eval_set.prompts).id, "views": eval_set.views, "skipped": len(clips.bad)}
    return {**about, "departs": "; ".join(filter(None, said))}


def _built(list_path: str | os.PathLike) -> Path:
    return Path(list_path).with_name("scuba.json")


def departures(config: Config, test_data: str | os.PathLike = "") -> str:
    """What keeps a number on real videos from being comparable with the paper's, as text; empty where nothing does."""
    reference = load_config("paper", method=config.method, shots=config.shots)
    changed = {name: new for name, (_, new) in diff(config, reference).items() if name not in _LIKE_THE_PAPER}
    if METHODS[config.method].trainer == "none":
        changed = {name: new for name, new in changed.items() if name in _OF_TESTING}
    named = ":" in config.weights or not Path(config.weights).suffix
    if not named:  # a file may hold the published ones
        changed.pop("weights", None)
    said = ["random weights"] if config.random_weights or (named and is_random(config.weights)) else []
    said += [f"{name}={Path(value).name if isinstance(value, str) else value}" for name, value in changed.items()]
    if test_data:
        sidecar = read_sidecar(test_data)
        if sidecar is None:
            said.append("the list of videos was not prepared, so its classes and counts are unknown")
        else:
            counted = (line.removeprefix("counts: ") for line in sidecar.get("problems", ()))
            said += [f"{sidecar['dataset']} has {line}" for line in counted if re.match(r"\d+ classes, expected", line)]
            if config.half != "all" and sidecar.get("comparable") is False:
                said.append("base and novel classes are not the published ones")
    return "; ".join(said)
