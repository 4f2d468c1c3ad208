"""The video learner: open_clip's image encoder + a temporal module + a class-text head.

A clip's logits are the mean over frames of each frame's similarity to the class texts (protocol: per-frame feature,
L2 norm, logit scale, mean of logits over frames). The text encoder is frozen and runs once per class set.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import insert_temporal
from .checkpoints import load_checkpoint, save_checkpoint
from .weights import build_clip, support

log = logging.getLogger(__name__)

TRAINABLE_SETS = ("adapters", "visual")


class Normalize(nn.Module):
    """uint8 RGB [..., 3, H, W] as the weights were trained on it; what is floating point is normalized already."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        return frames if frames.is_floating_point() else (frames.to(self.mean.dtype) / 255 - self.mean) / self.std


class VideoLearner(nn.Module):
    """CLIP's visual encoder over the frames of a clip, with a temporal module and a frozen class-text head.

    `clip` is an open_clip model and `tokenizer` its own; the text tower serves `set_classes` alone. Options and what is
    trainable: see `build_learner`. The logit scale and the text encoder are always frozen.
    """

    def __init__(self, clip: nn.Module, tokenizer, *, weights_id: str, trainable: str, adapter_width: int,
                 temporal_module: str = "st_adapter", **temporal_options):  # fmt: skip
        super().__init__()
        if trainable not in TRAINABLE_SETS:
            raise ValueError(f"trainable is {trainable!r}; allowed: {', '.join(TRAINABLE_SETS)}")
        if trainable == "adapters" and (adapter_width == 0 or temporal_module == "expanded"):
            cause = "temporal_module is 'expanded'" if adapter_width else "adapter_width is 0"
            raise ValueError(f"{cause}, so trainable='adapters' would train nothing; use trainable='visual'")
        self.visual = clip.visual
        self.requires_grad_(trainable == "visual")
        self.temporal: list[nn.Module] = []  # what must know T; its parameters are made here, so they are trainable
        if adapter_width:
            temporal_options |= {"bottleneck": adapter_width}
            self.temporal = insert_temporal(self.visual, temporal_module, **temporal_options)
        self.weights_id = weights_id
        self.text_cache: Path | None = None  # a folder: class-text features are kept there too
        size = clip.visual.image_size
        self.image_size = size if isinstance(size, int) else int(size[0])
        self.embed_dim = getattr(clip.visual, "output_dim", 0)  # timm's towers, which do not train, do not say
        self.normalize = Normalize(clip.visual.image_mean, clip.visual.image_std)
        # Frozen: trainable, it receives weight decay in the peers' recipes and has been "destroyed in training".
        self.register_buffer("logit_scale", clip.logit_scale.detach().exp(), persistent=False)
        self.register_buffer("text_features", None, persistent=False)
        self.class_names: list[str] = []
        self._text = [clip, tokenizer]  # in a list: the text tower is no submodule, so it is never trained or saved
        self._feature_cache: dict[tuple, Tensor] = {}
        self._token_ids: dict[tuple, bytes] = {}

    def set_classes(self, names: Sequence[str], templates: Sequence[str] = ("{}",), *,
                    texts: Sequence[Sequence[str]] | None = None) -> VideoLearner:  # fmt: skip
        """Switch the class set and return the learner; each text is encoded once, and kept on disk in a `text_cache`.

        A class is the mean of the normalized embeddings of its `texts`, by default its name in each of the
        `templates` ("{}" stands for it), normalized again. Names must be unique.
        """
        names = [str(name) for name in names]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if not names or duplicates or any(not name.strip() for name in names):
            raise ValueError(
                f"class names must be non-empty and unique; got {len(names)} names, duplicates {duplicates}"
            )
        if not templates or any("{}" not in template for template in templates):
            raise ValueError(f"templates must each hold '{{}}'; got {list(templates)}")
        if texts is None:
            texts = [[template.replace("{}", name) for template in templates] for name in names]
        keys = [tuple(group) for group in texts]
        if len(keys) != len(names) or not all(keys):
            raise ValueError(f"texts has {len(keys)} groups for {len(names)} classes; each class needs one or more")
        self._check_tokens(names, keys)
        if missing := [key for key in dict.fromkeys(keys) if key not in self._feature_cache]:
            self._feature_cache.update(zip(missing, self._text_features(missing)))
        self.text_features = torch.stack([self._feature_cache[key] for key in keys]).to(self.logit_scale.device)
        self.class_names = names
        return self

    def _check_tokens(self, names: Sequence[str], keys: Sequence[tuple[str, ...]]) -> None:
        """Warn of texts that the text tower cuts off; refuse two classes that are the same to it."""
        tokenizer, first, cut = self._text[1], {}, []
        empty = tokenizer([""])
        pad, limit = int(empty[0, -1]), empty.shape[1]
        for name, key in zip(names, keys):
            if key not in self._token_ids:
                ids = tokenizer(list(key))
                full = [text for text, row in zip(key, ids) if int(row[-1]) != pad]
                long = tokenizer(full, context_length=8 * limit).ne(pad).sum(1).max() if full else 0
                cut += [f"{name!r} has {long} tokens"] * int(long > limit)
                self._token_ids[key] = ids.numpy().tobytes()
            twin = first.setdefault(self._token_ids[key], name)
            if twin != name:
                said = f"have the same tokens (at most {limit} are read), so nothing could tell them apart"
                raise ValueError(f"classes {twin!r} and {name!r} {said}")
        if cut:
            more = f" and {len(cut) - 5} more" if len(cut) > 5 else ""
            log.warning("texts are cut off after %d tokens: %s%s", limit, ", ".join(cut[:5]), more)

    def _text_features(self, groups: Sequence[tuple[str, ...]]) -> Tensor:
        """[K, D], from the disk where they are there."""
        if self.text_cache is None:
            return self._encode_texts(groups)
        # A small tensor that was trained with the text tower stands for its weights: names of weights can lie.
        tower = getattr(self._text[0], "text", self._text[0])
        tensor = getattr(tower, "positional_embedding", None)
        tensor = next(reversed([*tower.parameters()])) if tensor is None else tensor
        tower = tensor.detach().cpu().numpy().tobytes()
        name = hashlib.sha256(tower + json.dumps(groups).encode()).hexdigest()[:16]
        path = self.text_cache / f"{name}.safetensors"
        if not path.is_file():
            save_checkpoint(path, {"features": self._encode_texts(groups)}, {"weights": self.weights_id})
        return load_checkpoint(path)[0]["features"]

    @torch.no_grad()
    def _encode_texts(self, groups: Sequence[tuple[str, ...]]) -> Tensor:
        clip, tokenizer = self._text
        device = next(clip.parameters()).device
        flat = [text for group in groups for text in group]
        parts = [clip.encode_text(tokenizer(flat[i : i + 256]).to(device)) for i in range(0, len(flat), 256)]
        encoded = F.normalize(torch.cat(parts).float(), dim=-1).split([len(group) for group in groups])
        return F.normalize(torch.stack([part.mean(0) for part in encoded]), dim=-1).cpu()

    def encode(self, video: Tensor) -> Tensor:
        """L2-normalized frame features [B, T, D] of clips [B, T, 3, H, W], H = W = `image_size`.

        Clips are uint8 RGB, normalized here with the weights' mean and std, or floating point and normalized already.
        """
        if video.ndim != 5 or video.shape[2] != 3 or video.shape[-1] != self.image_size:
            raise ValueError(
                f"video has shape {tuple(video.shape)}; expected [B, T, 3, {self.image_size}, {self.image_size}]"
            )
        clips, num_frames = video.shape[:2]
        for module in self.temporal:
            module.num_frames = num_frames
        features = self.visual(self.normalize(video.flatten(0, 1)))
        features = features[0] if isinstance(features, tuple) else features  # CoCa gives its tokens, too
        features = features.float() if features.dtype.itemsize < 4 else features  # mixed precision ends here
        return F.normalize(features, dim=-1).view(clips, num_frames, -1)

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, K] over `class_names`: the mean over frames of the scaled similarities."""
        return self.classify(self.encode(video))

    def classify(self, features: Tensor) -> Tensor:
        """Logits of features from `encode`, in float32 also under mixed precision: the logit scale magnifies errors."""
        if self.text_features is None:
            raise RuntimeError("no classes are set; call learner.set_classes(names) first")
        with torch.autocast(features.device.type, enabled=False):
            # The mean over frames commutes with the linear head, so it is taken first: T times fewer products.
            return self.logit_scale * features.mean(1) @ self.text_features.to(features).T

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors that training moves, by parameter name, detached but not copied."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_trainable(self, tensors: Mapping[str, Tensor]) -> VideoLearner:
        """Load what `trainable_state` gave; anything missing, unknown or misshapen is an error that lists it."""
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
    model: str = "mede-small", weights: str = "shipped", *, trainable: str = "adapters",
    temporal_module: str = "st_adapter", adapter_width: int = 24, adapter_form: str = "ours", num_frames: int = 8,
    border: str = "zero", random_weights: bool = False, seed: int = 0, device: str | torch.device = "cpu",
) -> VideoLearner:  # fmt: skip
    """Build a video learner on CLIP weights that are really there; until trained it equals frozen CLIP.

    (With expanded attention not even then.) Whatever needs a seed is drawn from `seed` alone.

    Args:
        model: "mede-small" (the synthetic world's CLIP) or an open_clip ViT name.
        weights: "shipped" (mede-small only), an open_clip tag (openai, laion2b_s34b_b88k, ...), a local file or, for
            mede-small, a folder made by its pretraining.
        trainable: "adapters" (the paper's text), or "visual": the whole encoder, as the authors' scripts suggest.
        temporal_module: st_adapter, aim or expanded, which has no parameters of its own.
        adapter_width: channels inside each adapter; 0: no temporal module, each frame by itself.
        adapter_form: of the ST-Adapter: ours, published or published_conv.
        num_frames: T; only AIM's learner is tied to it.
        border: of expanded attention: zero keys at a clip's ends, or mask.
        random_weights: build without pretrained weights, for smoke runs; it is written on every output.

    Raises:
        ValueError: unknown model or tag, OpenAI weights without QuickGELU, or weights that are not on this machine.
    """
    fits = support(model)
    if adapter_width and not fits.adapters:
        raise ValueError(fits.said)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip, tokenizer, weights_id = build_clip(model, weights, random_weights)
        clip.requires_grad_(False)
        learner = VideoLearner(
            clip, tokenizer, weights_id=weights_id, trainable=trainable, adapter_width=adapter_width,
            temporal_module=temporal_module, form=adapter_form, num_frames=num_frames, border=border,
        )  # fmt: skip
    return learner.to(device).eval()
