"""CLIP weights: found, identified without building a model, refused where they are not there.

Neither torch nor open_clip is loaded before a model is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from .files import ASSETS, sha256_file

SMALL_CLIP = ASSETS / "small_clip"  # the synthetic world's CLIP, shipped with the package
VITS = "ViT-B-16-quickgelu, ViT-B-32, ViT-L-14"
CUSTOM_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")


def weights_hash(model: str, weights: str, random_weights: bool = False) -> str:
    """What the CLIP weights of a learner are: "shipped:HASH", "file:HASH", an open_clip tag, or "random"."""
    if random_weights:
        return "random"
    if model == "mede-small":
        return f"{'shipped' if weights == 'shipped' else 'file'}:{_file_hash(_small_file(weights))}"
    path = Path(weights).expanduser()
    return f"file:{_file_hash(path)}" if path.is_file() else weights


def build_clip(model: str, weights: str, random_weights: bool = False) -> tuple:
    """(open_clip model, its tokenizer, `weights_hash`), with weights that are on this machine, else ValueError."""
    build = _build_small if model == "mede-small" else _build_open_clip
    return *build(model, weights, random_weights), weights_hash(model, weights, random_weights)


@dataclass(frozen=True)
class Support:
    """What a model can do here, as its configuration says."""

    adapters: bool  # a temporal module fits its image tower; if not, it can be scored as frozen CLIP, frame by frame
    tokenizer: str  # what the package transformers must find on this machine; "" where open_clip brings its own
    said: str  # in one line


def model_files() -> dict[str, Path]:
    """{name of an open_clip model: its configuration}; open_clip (and torch with it) is not loaded."""
    found = find_spec("open_clip")
    folders = found.submodule_search_locations if found else ()
    return {file.stem: file for folder in folders for file in sorted(Path(folder).glob("model_configs/*.json"))}


def support(model: str) -> Support:
    """What a model can do, before anything is built; an unknown name is a ValueError that says what is close to it."""
    if model == "mede-small":
        return Support(True, "", "mede-small: adapters and frozen")
    files = model_files()
    if model not in files:
        names = {name.lower(): name for name in files}
        close = ", ".join(names[one] for one in get_close_matches(model.lower(), names)) or VITS
        raise ValueError(f"model {model!r} is unknown to open_clip; for example: {close}")
    config = json.loads(files[model].read_text(encoding="utf-8"))
    vision, text = config["vision_cfg"], config["text_cfg"]
    tower = vision.get("timm_model_name") or ("a ResNet" if isinstance(vision["layers"], list) else "")
    if not tower and (vision.get("block_type") == "custom" or any(vision.get(name) for name in CUSTOM_BLOCKS)):
        tower = "a ViT of custom blocks"
    tokenizer = text.get("hf_tokenizer_name") or text.get("hf_model_name") or ""
    said = f"{model}: adapters and frozen"
    if tower:
        said = f"{model}: frozen only, since its image tower is {tower}; temporal modules and training need a ViT of "
        said += f"open_clip's own blocks, such as {VITS}"
    return Support(not tower, tokenizer, said + (f"; texts are read by {tokenizer} of a hub" if tokenizer else ""))


def check_tokenizer(model: str) -> None:
    """Refuse a model whose tokenizer is not on this machine: a hub that cannot be reached costs a minute of retries."""
    if not (name := support(model).tokenizer):
        return
    needs = f"model {model!r} reads texts with {name} of a hub, by the package transformers"
    if find_spec("transformers") is None:
        raise ValueError(f"{needs}, which is not installed")
    from huggingface_hub import try_to_load_from_cache

    files = ("tokenizer_config.json", "tokenizer.json", "config.json", "spiece.model")
    if not any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
        fetch = f"python -c \"import open_clip; open_clip.get_tokenizer('{model}')\""
        raise ValueError(f"{needs}; it is not in the cache here: fetch it once where there is a network, by {fetch}")


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

    check_tokenizer(model)
    import open_clip
    from safetensors import SafetensorError

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
