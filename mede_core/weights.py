"""CLIP weights: found, identified without building a model, refused where they are not there.

Neither torch nor open_clip is loaded before a model is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from .files import ASSETS, sha256_file

SMALL_CLIP = ASSETS / "small_clip"  # the synthetic world's CLIP, shipped with the package


def weights_hash(model: str, weights: str, random_weights: bool = False) -> str:
    """What the CLIP weights of a learner are: "shipped:HASH", "file:HASH", an open_clip tag, or "random"."""
    if random_weights:
        return "random"
    if model == "mede-small":
        return f"{'shipped' if weights == 'shipped' else 'file'}:{_file_hash(_small_file(weights))}"
    path = Path(weights).expanduser()
    return f"file:{_file_hash(path)}" if path.is_file() else weights


def build_clip(model: str, weights: str, random_weights: bool = False) -> tuple:
    """(open_clip model, its tokenizer, `weights_hash`), with weights that are really on this machine.

    Raises ValueError for an unknown model or tag, OpenAI weights without QuickGELU, and weights that are not here.
    """
    build = _build_small if model == "mede-small" else _build_open_clip
    return *build(model, weights, random_weights), weights_hash(model, weights, random_weights)


def _small_folder(weights: str) -> Path:
    return SMALL_CLIP if weights == "shipped" else Path(weights)


def _small_file(weights: str, name: str = "open_clip_model.safetensors") -> Path:
    path = _small_folder(weights) / name
    if not path.is_file():
        raise ValueError(f"weights {weights!r}: {name} is missing in {path.parent}")
    return path


def _file_hash(path: Path) -> str:
    stat = path.stat()
    return _hash_of_version(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _hash_of_version(path: Path, _changed_ns: int, _size: int) -> str:
    return sha256_file(path)[:12]


def _build_small(_model: str, weights: str, random_weights: bool) -> tuple:
    import open_clip

    cfg = json.loads(_small_file(weights, "open_clip_config.json").read_text(encoding="utf-8"))
    file = None if random_weights else _small_file(weights)
    clip = open_clip.CLIP(**cfg["model_cfg"])
    open_clip.model.set_model_preprocess_cfg(clip, cfg["preprocess_cfg"])
    bpe, context = _small_folder(weights) / "bpe.txt.gz", cfg["model_cfg"]["text_cfg"]["context_length"]
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(bpe), context_length=context)
    if file:
        open_clip.load_checkpoint(clip, str(file), strict=True)
    return clip, tokenizer


def _build_open_clip(model: str, weights: str, random_weights: bool) -> tuple:
    from pickle import UnpicklingError

    import open_clip
    from safetensors import SafetensorError

    if model not in open_clip.list_models():
        raise ValueError(f"model {model!r} is unknown to open_clip; for example ViT-B-16-quickgelu, ViT-B-32, ViT-L-14")
    if random_weights:
        return open_clip.create_model(model, pretrained=None), open_clip.get_tokenizer(model)
    if weights == "shipped":
        raise ValueError(f"no weights ship for {model}; pass --weights TAG, or --weights FILE for a local file")
    path, tags = Path(weights).expanduser(), open_clip.list_pretrained_tags_by_model(model)
    if not path.is_file() and weights not in tags:
        told = ", ".join(tags) or "none"
        raise ValueError(f"weights {weights!r} is neither a local file nor a tag of {model} (tags: {told})")
    if weights == "openai" and not model.endswith("-quickgelu"):
        raise ValueError(f"OpenAI's weights need QuickGELU: use model {model}-quickgelu (plain {model} is refused)")
    try:
        with _offline_hub():
            source = str(path) if path.is_file() else weights
            clip = open_clip.create_model(model, pretrained=source, require_pretrained=True)
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError, UnpicklingError) as error:
        raise ValueError(
            f"weights {weights!r} of {model} could not be loaded from this machine "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); pass a local file with --weights FILE, "
            'download the tag once where there is a network (python -c "import open_clip; '
            f"open_clip.create_model('{model}', pretrained='{weights}')\"), or use --random-weights for a smoke run"
        ) from error
    return clip, open_clip.get_tokenizer(model)


@contextmanager
def _offline_hub() -> Iterator[None]:
    """Look weights up in the local cache only: a hub that cannot be reached costs a minute of retries."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
