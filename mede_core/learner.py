"""The video learner: open_clip's image encoder + a temporal module + a class-text head.

A clip's logits are the mean over frames of each frame's similarity to the class texts (protocol: per-frame feature,
L2 norm, logit scale, mean of logits over frames). The text encoder is frozen and runs once per class set.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from .adapters import insert_temporal
from .checkpoints import file_hash, load_checkpoint, save_checkpoint
from .files import ASSETS

log = logging.getLogger(__name__)

SMALL_CLIP = ASSETS / "small_clip"  # the synthetic world's CLIP, shipped with the package
TRAINABLE_SETS = ("adapters", "visual")


class VideoLearner(nn.Module):
    """CLIP's visual encoder over the frames of a clip, with temporal adapters and a frozen class-text head.

    Args:
        clip: an open_clip model; its visual tower is used, its text tower only by :meth:`set_classes`.
        tokenizer: turns texts into the token ids of ``clip``.
        weights_id: what the CLIP weights are, written beside every number.
        trainable: ``"adapters"`` (the paper's text) or ``"visual"`` (the whole encoder, as the authors' scripts
            suggest). The logit scale and the text encoder are always frozen.
        temporal_module: ``st_adapter``, ``aim`` or ``expanded``.
        adapter_width: channels inside each adapter; 0: no temporal module, each frame by itself.
        temporal_options: passed to :func:`~mede_core.adapters.insert_temporal`.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenizer,
        *,
        weights_id: str,
        trainable: str,
        temporal_module: str = "st_adapter",
        adapter_width: int,
        **temporal_options,
    ):
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
        self.image_size = int(clip.visual.image_size[0])
        self.embed_dim = int(clip.visual.output_dim)
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

    def set_classes(
        self,
        names: Sequence[str],
        templates: Sequence[str] = ("{}",),
        *,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> VideoLearner:
        """Switch the class set; each text is encoded once and remembered, on disk where ``text_cache`` is a folder.

        Args:
            names: K class names, non-empty and unique.
            templates: prompts with one ``{}`` each; their normalized embeddings are averaged and normalized again.
            texts: for each class its own texts, in place of the templates.

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
        if texts is None:
            texts = [[template.replace("{}", name) for template in templates] for name in names]
        keys = [tuple(group) for group in texts]
        if len(keys) != len(names) or not all(keys):
            raise ValueError(f"texts has {len(keys)} groups for {len(names)} classes; each class needs one or more")
        if missing := [key for key in dict.fromkeys(keys) if key not in self._feature_cache]:
            self._feature_cache.update(zip(missing, self._text_features(missing)))
        self.text_features = torch.stack([self._feature_cache[key] for key in keys]).to(self.logit_scale.device)
        self.class_names = names
        return self

    def _text_features(self, groups: Sequence[tuple[str, ...]]) -> Tensor:
        """[K, D], from the disk where they are there."""
        if self.text_cache is None:
            return self._encode_texts(groups)
        # A small tensor that was trained with the text tower stands for its weights: names of weights can lie.
        tower = self._text[0].positional_embedding.detach().cpu().numpy().tobytes()
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
        for module in self.temporal:
            module.num_frames = num_frames
        features = self.visual(frames)
        features = features.float() if features.dtype.itemsize < 4 else features  # mixed precision ends here
        return F.normalize(features, dim=-1).view(clips, num_frames, -1)

    def forward(self, video: Tensor) -> Tensor:
        """Class logits of each clip: the mean over frames of the scaled similarities.

        Args:
            video: as in :meth:`encode`.

        Returns:
            [B, K] logits over ``class_names``.
        """
        return self.classify(self.encode(video))

    def classify(self, features: Tensor) -> Tensor:
        """Class logits of encoded clips, in float32 also under mixed precision: the logit scale magnifies errors.

        Args:
            features: [B, T, D] from :meth:`encode`.

        Returns:
            [B, K] logits over ``class_names``.
        """
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
    trainable: str = "adapters",
    temporal_module: str = "st_adapter",
    adapter_width: int = 24,
    adapter_form: str = "ours",
    num_frames: int = 8,
    border: str = "zero",
    random_weights: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> VideoLearner:
    """Build a video learner on CLIP weights that are really there.

    Args:
        model: ``"mede-small"`` (the synthetic world's CLIP) or an open_clip ViT name.
        weights: ``"shipped"`` (mede-small only), an open_clip tag (``openai``, ``laion2b_s34b_b88k``, ...) or a
            local file or, for mede-small, a folder made by ``python -m mede_core.world.pretrain``.
        trainable: ``"adapters"`` or ``"visual"``.
        temporal_module: ``st_adapter``, ``aim`` or ``expanded``, which has no parameters of its own.
        adapter_width: channels inside each adapter; 0: no temporal module.
        adapter_form: of the ST-Adapter: ``ours``, ``published`` or ``published_conv``.
        num_frames: T; only AIM's learner is tied to it.
        border: of expanded attention: ``zero`` or ``mask``.
        random_weights: build without pretrained weights, for smoke runs; it is written on every output.
        seed: of the adapters' (and random weights') initialization.
        device: where the learner lives.

    Returns:
        the learner, equal to frozen CLIP until it is trained (with expanded attention: not even then).

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
        learner = VideoLearner(
            clip,
            tokenizer,
            weights_id=weights_id,
            trainable=trainable,
            temporal_module=temporal_module,
            adapter_width=adapter_width,
            form=adapter_form,
            num_frames=num_frames,
            border=border,
        )
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
