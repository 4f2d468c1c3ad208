"""The video learner: open_clip's image encoder + temporal adapters + a class-text head, and its checkpoints.

A clip's logits are the mean over frames of each frame's similarity to the class texts (protocol: per-frame feature,
L2 norm, logit scale, mean of logits over frames). The text encoder is frozen and runs once per class set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .adapters import insert_adapters
from .runs import atomic_path

log = logging.getLogger(__name__)

SMALL_CLIP = Path(__file__).parent / "weights" / "small_clip"  # the synthetic world's CLIP, shipped with the package
TRAINABLE_SETS = ("adapters", "visual")


class VideoLearner(nn.Module):
    """CLIP's visual encoder over the frames of a clip, with temporal adapters and a frozen class-text head.

    Args:
        clip: an open_clip model; its visual tower is used, its text tower only by :meth:`set_classes`.
        tokenizer: turns texts into the token ids of ``clip``.
        adapter_width: channels inside each ST-Adapter; 0 inserts none.
        trainable: ``"adapters"`` (the paper's text) or ``"visual"`` (the whole encoder, as the authors' scripts
            suggest). The logit scale and the text encoder are always frozen.
        weights_id: what the CLIP weights are, written beside every number.
    """

    def __init__(self, clip: nn.Module, tokenizer, *, adapter_width: int, trainable: str, weights_id: str):
        super().__init__()
        if trainable not in TRAINABLE_SETS:
            raise ValueError(f"trainable is {trainable!r}; allowed: {', '.join(TRAINABLE_SETS)}")
        if trainable == "adapters" and adapter_width == 0:
            raise ValueError("adapter_width is 0, so trainable='adapters' would train nothing; use trainable='visual'")
        self.visual = clip.visual
        self.requires_grad_(trainable == "visual")
        self.blocks = insert_adapters(self.visual, adapter_width) if adapter_width else []  # trainable: made after
        self.weights_id = weights_id
        self.image_size = int(clip.visual.image_size[0])
        self.register_buffer("mean", torch.tensor(clip.visual.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(clip.visual.image_std).view(3, 1, 1), persistent=False)
        # Frozen: trainable, it receives weight decay in the peers' recipes and has been "destroyed in training".
        self.register_buffer("logit_scale", clip.logit_scale.detach().exp(), persistent=False)
        self.register_buffer("text_features", None, persistent=False)
        self.class_names: list[str] = []
        self._text = [
            clip,
            tokenizer,
        ]  # in a list: the text tower is no submodule, so it is never trained or saved
        self._feature_cache: dict[tuple, Tensor] = {}

    def set_classes(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> VideoLearner:
        """Switch the class set; each text is encoded once and remembered.

        Args:
            names: K class names, non-empty and unique.
            templates: prompts with one ``{}`` each; their normalized embeddings are averaged and normalized again.

        Returns:
            the learner itself.
        """
        names = [str(name) for name in names]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if not names or duplicates or any(not name.strip() for name in names):
            raise ValueError(
                f"class names must be non-empty and unique; got {len(names)} names, duplicates {duplicates}"
            )
        if not templates or any("{}" not in template for template in templates):
            raise ValueError(f"templates must each hold '{{}}'; got {list(templates)}")
        missing = [name for name in names if (name, *templates) not in self._feature_cache]
        for start in range(0, len(missing), 64):
            chunk = missing[start : start + 64]
            self._feature_cache.update(
                zip([(name, *templates) for name in chunk], self._encode_texts(chunk, templates))
            )
        device = self.logit_scale.device
        self.text_features = torch.stack([self._feature_cache[(name, *templates)] for name in names]).to(device)
        self.class_names = names
        return self

    @torch.no_grad()
    def _encode_texts(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        clip, tokenizer = self._text
        device = next(clip.parameters()).device
        tokens = tokenizer([template.format(name) for name in names for template in templates]).to(device)
        features = F.normalize(clip.encode_text(tokens).float(), dim=-1)
        return F.normalize(features.view(len(names), len(templates), -1).mean(1), dim=-1).cpu()

    def encode(self, video: Tensor) -> Tensor:
        """Encode the frames of each clip.

        Args:
            video: [B, T, 3, H, W], uint8 RGB (normalized here with the weights' mean and std) or floating point,
                normalized already; H and W equal ``image_size``.

        Returns:
            [B, T, D] L2-normalized frame features.
        """
        if video.ndim != 5 or video.shape[2] != 3 or video.shape[-1] != self.image_size:
            raise ValueError(
                f"video has shape {tuple(video.shape)}; expected [B, T, 3, {self.image_size}, {self.image_size}]"
            )
        clips, num_frames = video.shape[:2]
        frames = video.flatten(0, 1)
        if not frames.is_floating_point():
            frames = (frames.to(self.mean.dtype) / 255 - self.mean) / self.std
        for block in self.blocks:
            block.num_frames = num_frames
        return F.normalize(self.visual(frames), dim=-1).view(clips, num_frames, -1)

    def forward(self, video: Tensor) -> Tensor:
        """Class logits of each clip: the mean over frames of the scaled similarities.

        Args:
            video: as in :meth:`encode`.

        Returns:
            [B, K] logits over ``class_names``.
        """
        if self.text_features is None:
            raise RuntimeError("no classes are set; call learner.set_classes(names) first")
        # The mean over frames commutes with the linear head, so it is taken on the features: T times fewer products.
        return self.logit_scale * self.encode(video).mean(1) @ self.text_features.to(video.device).T

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors that training moves, by parameter name, detached but not copied."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_trainable(self, tensors: Mapping[str, Tensor]) -> VideoLearner:
        """Load exactly the trainable tensors; anything missing, unknown or misshapen is an error that lists it.

        Args:
            tensors: {name: tensor}, as :meth:`trainable_state` gives it.

        Returns:
            the learner itself.
        """
        own = {name: p for name, p in self.named_parameters() if p.requires_grad}
        problems = [f"missing {name}" for name in sorted(own.keys() - tensors.keys())]
        problems += [f"unknown {name}" for name in sorted(tensors.keys() - own.keys())]
        problems += [
            f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
            for name in sorted(own.keys() & tensors.keys())
            if tensors[name].shape != own[name].shape
        ]
        if problems:
            shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
            raise ValueError(f"checkpoint does not fit this learner: {shown}")
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
        return self


def build_learner(
    model: str = "mede-small",
    weights: str = "shipped",
    *,
    adapter_width: int = 24,
    trainable: str = "adapters",
    random_weights: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> VideoLearner:
    """Build a video learner on CLIP weights that are really there.

    Args:
        model: ``"mede-small"`` (the synthetic world's CLIP) or an open_clip ViT name.
        weights: ``"shipped"`` (mede-small only), an open_clip tag (``openai``, ``laion2b_s34b_b88k``, ...) or a
            local file or, for mede-small, a folder made by ``python -m mede_core.data.pretrain``.
        adapter_width: channels inside each ST-Adapter.
        trainable: ``"adapters"`` or ``"visual"``.
        random_weights: build without pretrained weights, for smoke runs; it is written on every output.
        seed: of the adapters' (and random weights') initialization.
        device: where the learner lives.

    Returns:
        the learner, equal to frozen CLIP until it is trained.

    Raises:
        ValueError: unknown model or tag, OpenAI weights without QuickGELU, or weights that are not on this machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model == "mede-small":
            clip, tokenizer, weights_id = _build_small(weights, random_weights)
        else:
            clip, tokenizer, weights_id = _build_open_clip(model, weights, random_weights)
        clip.requires_grad_(False)
        learner = VideoLearner(clip, tokenizer, adapter_width=adapter_width, trainable=trainable, weights_id=weights_id)
    return learner.to(device).eval()


def _build_small(weights: str, random_weights: bool):
    folder = SMALL_CLIP if weights == "shipped" else Path(weights)
    config, file = folder / "open_clip_config.json", folder / "open_clip_model.safetensors"
    for path in (config,) if random_weights else (config, file):
        if not path.is_file():
            raise ValueError(f"weights {weights!r}: {path.name} is missing in {folder}")
    cfg = json.loads(config.read_text())
    clip = open_clip.CLIP(**cfg["model_cfg"])
    open_clip.model.set_model_preprocess_cfg(clip, cfg["preprocess_cfg"])
    context = cfg["model_cfg"]["text_cfg"]["context_length"]
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(folder / "bpe.txt.gz"), context_length=context)
    if random_weights:
        return clip, tokenizer, "random"
    open_clip.load_checkpoint(clip, str(file), strict=True)
    return clip, tokenizer, f"{'shipped' if weights == 'shipped' else 'file'}:{file_hash(file)}"


def _build_open_clip(model: str, weights: str, random_weights: bool):
    if model not in open_clip.list_models():
        raise ValueError(f"model {model!r} is unknown to open_clip; for example ViT-B-16-quickgelu, ViT-B-32, ViT-L-14")
    if random_weights:
        clip = open_clip.create_model(model, pretrained=None)
        return clip, open_clip.get_tokenizer(model), "random"
    if weights == "shipped":
        raise ValueError(f"no weights ship for {model}; pass --weights TAG, or --weights FILE for a local file")
    path = Path(weights).expanduser()
    if not path.is_file() and weights not in open_clip.list_pretrained_tags_by_model(model):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"weights {weights!r} is neither a local file nor a tag of {model} (tags: {tags})")
    if weights == "openai" and not model.endswith("-quickgelu"):
        raise ValueError(f"OpenAI's weights need QuickGELU: use model {model}-quickgelu (plain {model} is refused)")
    try:
        with _offline_hub():
            clip = open_clip.create_model(
                model, pretrained=str(path) if path.is_file() else weights, require_pretrained=True
            )
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError, UnpicklingError) as error:
        raise ValueError(
            f"weights {weights!r} of {model} could not be loaded from this machine "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); pass a local file with --weights FILE, "
            'download the tag once where there is a network (python -c "import open_clip; '
            f"open_clip.create_model('{model}', pretrained='{weights}')\"), or use --random-weights for a smoke run"
        ) from error
    return clip, open_clip.get_tokenizer(model), f"file:{file_hash(path)}" if path.is_file() else weights


@contextmanager
def _offline_hub() -> Iterator[None]:
    """Look weights up in the local cache only: a hub that cannot be reached costs a minute of retries."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def file_hash(path: str | os.PathLike) -> str:
    """First 12 hex digits of a file's SHA-256."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def save_checkpoint(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping) -> None:
    """Write trainable tensors and JSON metadata as one safetensors file, atomically.

    Args:
        path: the file.
        tensors: {name: tensor}.
        metadata: JSON-able facts: what was averaged, from which epochs, config hash, CLIP weights.
    """
    with atomic_path(path) as temporary:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, {"mede": json.dumps(dict(metadata), sort_keys=True)})


def load_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint of :func:`save_checkpoint`.

    Args:
        path: the file.

    Returns:
        ({name: tensor}, metadata).

    Raises:
        ValueError: the file is missing, truncated, or was not written by this package.
    """
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from error
    if "mede" not in header:
        raise ValueError(f"checkpoint {path} has no mede_core metadata; was it written by save_checkpoint?")
    return tensors, json.loads(header["mede"])
