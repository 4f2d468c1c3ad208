"""Any video model as logits of clips, and a model that finds people; what is named wrongly ends before torch loads."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import numpy as np

from ..config import METHODS, Config
from ..files import sha256_file
from ..weights import WAIT_S
from .classes import check_class_names, load_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from ..learner import VideoLearner

log = logging.getLogger(__name__)

FORMS = "a run's folder or epoch file, NAME/TAG of open_clip, torchvision:NAME, hf:NAME, python:MODULE:FACTORY"
OWN_CLASSES = ("torchvision:", "hf:", "python:")
_FRAMES = 16  # of torchvision's video models, which were trained on so many
_SURE = 0.5  # a detection's score, and a pixel's, from which they count


@dataclass(frozen=True)
class VideoModel:
    """``score`` gives logits [B, K] of clips uint8 [B, T, 3, S, S], T frames of S pixels; ``weights`` in words."""

    class_names: Sequence[str]
    num_frames: int
    image_size: int
    score: Callable[[Tensor], Tensor]
    weights: str


def usable(device: str) -> str:
    """A device that torch can use here; where none is named, cuda or the CPU."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def load_model(spec: str, classes: Sequence[str], *, random_weights: bool, device: str) -> VideoModel:
    """The model that a name stands for; ``classes`` are for one that takes any."""
    kind, _, name = spec.partition(":")
    if random_weights and kind in ("hf", "python"):
        raise ValueError(f"--random-weights does not go with {spec}, which brings its own")
    if kind == "python":
        return _own(spec)
    if kind == "hf":
        return _transformers(name, device)
    if kind == "torchvision":
        return _torchvision(name, random_weights, device)
    model, _, tag = ("", "", "") if Path(spec).exists() else spec.partition("/")
    if model and not tag:
        raise ValueError(f"--model is {spec!r}; allowed: {FORMS}")
    learner, _, config = load_learner(model, tag, "" if model else spec, random_weights, device)
    learner.set_classes(classes, texts=load_prompts(config.prompts).texts(classes))
    to = learner.logit_scale.device
    return VideoModel(classes, config.num_frames, learner.image_size, lambda clips: learner(clips.to(to)),
                      learner.weights_id)  # fmt: skip


def _own(spec: str) -> VideoModel:
    _, module, name = f"{spec}::".split(":")[:3]
    if os.getcwd() not in sys.path:  # a console script does not look where it is called
        sys.path.insert(0, os.getcwd())
    try:
        model = getattr(import_module(module), name)()
        names, shape = check_class_names(model.class_names), (model.num_frames, model.image_size)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        wanted = "python:MODULE:FACTORY, whose object has class_names, num_frames, image_size and __call__"
        raise ValueError(f"--model {spec!r}: {type(error).__name__}: {error}; expected {wanted}") from error
    source = Path(sys.modules[module].__file__)
    return VideoModel(names, *shape, model, f"{source.name}, {sha256_file(source)[:12]}")


# ------------------------------------------------------------------------------------ CLIP and its checkpoints
def load_learner(
    model: str, weights: str, checkpoint: str, random_weights: bool, device: str
) -> tuple[VideoLearner, dict, Config]:
    """The learner, the checkpoint's metadata, and the recipe: flags first, then what the checkpoint says."""
    from safetensors import SafetensorError

    from ..averages import averaged
    from ..checkpoints import load_checkpoint
    from ..runs import Run, learner_for

    if checkpoint:
        facts, config = _read_facts(Path(checkpoint))
    else:  # fresh adapters would be the identity: the same answer is had without any
        facts, config = {}, Config(method="frozen", adapter_width=0, trainable="visual")
    small = weights == "shipped" and not model
    if not checkpoint or model or small:
        config = config.replace(model=model or ("mede-small" if small else "ViT-B-16-quickgelu"))
    if not checkpoint or weights:
        given = weights or ("shipped" if config.model == "mede-small" else "openai")
        config = config.replace(weights=given, random_weights=False)
    config = config.replace(random_weights=random_weights or config.random_weights)
    try:
        learner = learner_for(config, usable(device))
    except (RuntimeError, LookupError, EOFError, UnpicklingError, SafetensorError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"weights {config.weights!r} do not load into {config.model} ({what})") from error
    if checkpoint:
        _check_base(facts.get("weights", ""), learner.weights_id)
        path = Path(checkpoint)
        if path.is_dir():
            fresh = learner.trainable_state()
            learner.load_trainable(averaged(config.average(), Run(path, config).epoch, fresh, config.epochs))
        else:
            learner.load_trainable(load_checkpoint(path)[0])
    return learner, facts, config


def _read_facts(path: Path) -> tuple[dict, Config]:
    """Metadata and configuration of a checkpoint; a run's folder stands for its method's weights."""
    from ..checkpoints import checkpoint_path, load_checkpoint

    whole = path.is_dir()
    epochs = json.loads((path / "done.json").read_text(encoding="utf-8"))["epochs"] if whole else 0
    facts = load_checkpoint(checkpoint_path(path, epochs) if whole else path)[1]
    values = facts.get("config", {})
    unknown = sorted(values.keys() - Config.model_fields.keys())
    if unknown:
        raise ValueError(f"checkpoint {path} names unknown configuration fields {unknown}; is it of a newer version?")
    config, averaged = Config(**values), facts.get("epochs") or []
    if whole:
        mixed = f", mixed with CLIP ({config.patch_ratio:g})" if METHODS[config.method].patched else ""
        trained = f"{config.method}, {METHODS[config.method].average} of {epochs} epochs{mixed}"
    else:
        shown = f"epoch {averaged[0]}" if len(averaged) == 1 else f"{len(averaged)} epochs"
        trained = f"{(facts.get('averaged') or {}).get('name', '')} {shown}".strip() if averaged else "not said"
    return {**facts, "trained": trained}, config


def _check_base(trained_on: str, given: str) -> None:
    """Refuse CLIP weights that a checkpoint was not trained on, as far as their names can tell."""
    hashes = [name.partition(":")[2] for name in (trained_on, given)]
    if trained_on == given or (all(hashes) and hashes[0] == hashes[1]):
        return
    if all(hashes) or not any(hashes) or "random" in (trained_on, given):
        raise ValueError(f"the checkpoint was trained on CLIP weights {trained_on}, but these are {given}")
    message = "the checkpoint was trained on CLIP weights %s, these are %s: nobody can tell if they are the same"
    log.warning(message, trained_on, given)


# ------------------------------------------------------------------------------------ transformers and torchvision
def _transformers(name: str, device: str) -> VideoModel:
    if find_spec("transformers") is None:
        raise ValueError(f"--model hf:{name} needs the package transformers: pip install 'mede_core[hf]'")
    from transformers import AutoImageProcessor, AutoModelForVideoClassification

    try:
        network, loaded = AutoModelForVideoClassification.from_pretrained(name, output_loading_info=True)
        if loaded["missing_keys"]:  # drawn at random, with a remark in a log
            raise ValueError(f"its weights lack {', '.join(sorted(loaded['missing_keys'])[:3])}")
        processor, config = AutoImageProcessor.from_pretrained(name), network.config
        shape = config.num_frames, config.image_size
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"--model hf:{name} cannot be used: {str(error).splitlines()[0]}") from error
    names = check_class_names([config.id2label[index] for index in range(config.num_labels)])
    network, normalized = _ready(network, processor.image_mean, processor.image_std, device)
    return VideoModel(names, *shape, lambda clips: network(normalized(clips)).logits, name)


def _torchvision(name: str, random_weights: bool, device: str) -> VideoModel:
    from torchvision import models

    known = models.list_models(module=models.video)
    if name not in known:
        close = ", ".join(get_close_matches(name, known) or known)
        raise ValueError(f"--model torchvision:{name} is no video model of torchvision; for example: {close}")
    network, about = _network(name, random_weights)
    preset = about.transforms()
    network, normalized = _ready(network, preset.mean, preset.std, device)
    return VideoModel(about.meta["categories"], _FRAMES, preset.crop_size[0],
                      lambda clips: network(normalized(clips).transpose(1, 2)),
                      "random" if random_weights else str(about))  # fmt: skip


def person_masks(device: str) -> Callable[[np.ndarray], np.ndarray]:
    """What finds people by torchvision's Mask R-CNN: uint8 [T, H, W, 3] -> uint8 [T, H, W], 255 where somebody is."""
    import torch

    network, about = _network("maskrcnn_resnet50_fpn_v2", False, weights_backbone=None)
    network, scaled = _ready(network, (0.0,) * 3, (1.0,) * 3, device)  # it normalizes by itself
    person = about.meta["categories"].index("person")

    def find(frames: np.ndarray) -> np.ndarray:
        alpha = np.zeros(frames.shape[:3], np.uint8)
        for mask, frame in zip(alpha, torch.from_numpy(frames).permute(0, 3, 1, 2)):
            (found,) = network([scaled(frame)])
            people = (found["labels"] == person) & (found["scores"] > _SURE)
            mask[(found["masks"][people, 0] > _SURE).any(0).cpu().numpy()] = 255
        return alpha

    return find


def _network(name: str, random_weights: bool, **options) -> tuple:
    """(network, what torchvision says of its weights); random ones are drawn from seed 0."""
    import torch
    from torchvision import models

    about = models.get_model_weights(name).DEFAULT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.get_model(name, weights=None, **options)
    if not random_weights:
        network.load_state_dict(_downloaded(name, about.url))
    return network, about


def _ready(network, mean: Sequence[float], std: Sequence[float], device: str) -> tuple:
    """A network on its device, and what normalizes clips for it."""
    import torch

    device = usable(device)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    return network.eval().requires_grad_(False).to(device), lambda clips: (clips.to(device) / 255 - mean) / std


def _downloaded(name: str, url: str) -> dict:
    """Weights from torch's cache, else downloaded there; the hash in the file's name is compared."""
    import torch
    from huggingface_hub import constants

    url = os.environ.get(mirror := f"MEDE_URL_{name.upper()}", url)  # its file name holds the hash, too
    file, before = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2], socket.getdefaulttimeout()
    socket.setdefaulttimeout(WAIT_S)
    try:
        if constants.HF_HUB_OFFLINE and not file.is_file():
            raise OSError("HF_HUB_OFFLINE is set")
        with redirect_stdout(sys.stderr):
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        advice = f"where there is a network, download {url} as {file}, or set {mirror} to another address of that file"
        raise ValueError(f"weights of {name} cannot be had ({type(error).__name__}: {error}); {advice}") from error
    finally:
        socket.setdefaulttimeout(before)
