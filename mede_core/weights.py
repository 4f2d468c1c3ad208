"""CLIP weights: found or fetched from the hub, identified without building a model (or loading torch), or refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from .files import ASSETS, say, sha256_file

SMALL_CLIP = ASSETS / "small_clip"  # the synthetic world's CLIP, shipped with the package
VITS = "ViT-B-16-quickgelu, ViT-B-32, ViT-L-14"
CUSTOM_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
HUB, CONFIG = "hf-hub:", "open_clip_config.json"
OTHERWISE = "pass a local file with --weights FILE, or use --random-weights for a smoke run"
WAIT_S = 10.0  # for the hub's first answer: a route that drops packets would cost minutes


def weights_hash(model: str, weights: str, random_weights: bool = False) -> str:
    """What the CLIP weights of a learner are: "shipped:HASH", "file:HASH", an open_clip tag, or "random"."""
    if random_weights:
        return "random"
    if model == "mede-small":
        return f"{'shipped' if weights == 'shipped' else 'file'}:{_file_hash(_small_file(weights))}"
    path = Path(weights).expanduser()
    return f"file:{_file_hash(path)}" if path.is_file() else weights


def build_clip(model: str, weights: str, random_weights: bool = False) -> tuple:
    """(open_clip model, its tokenizer, `weights_hash`); weights that are not here come from the hub."""
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
    """Refuse a model whose tokenizer cannot be read here, before anything is built."""
    if (name := support(model).tokenizer) and find_spec("transformers") is None:
        needs = f"model {model!r} reads texts with {name} of a hub, by the package transformers"
        raise ValueError(f"{needs}, which is not installed")


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
    path, about = Path(weights).expanduser(), _about(model, weights)
    if not path.is_file() and not about:
        told = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"weights {weights!r} is neither a local file nor a tag of {model} (tags: {told}) nor "
                         "hf-hub:OWNER/NAME")  # fmt: skip
    if about and not path.is_file():
        if weights.startswith(HUB):  # what the table says of a tag, its repository says
            config = [(_stored(about)[0][0], CONFIG)]
            said = json.loads((_cached(config) or _from_hub(weights, config)).read_text(encoding="utf-8"))
            about |= said.get("preprocess_cfg", {})
            about["quick_gelu"] = said.get("model_cfg", {}).get("quick_gelu", False)
        quick, plain = about.get("quick_gelu", False), model.removesuffix("-quickgelu")
        differs = quick != open_clip.get_model_config(model).get("quick_gelu", False)
        if differs and (quick or weights.startswith(HUB)):  # the table leaves it out for a model that has it anyway
            fits = f"{plain}-quickgelu" if quick else plain
            raise ValueError(f"weights {weights!r} were trained {'with' if quick else 'without'} QuickGELU: use model "
                             f"{fits} ({model} is refused)")  # fmt: skip
        path = cached_weights(model, weights) or _from_hub(weights, _stored(about))
    trusted = _check_archive(path)
    try:
        clip = open_clip.create_model(
            model, pretrained=str(path), force_preprocess_cfg=about, require_pretrained=True, weights_only=not trusted
        )
        return clip, open_clip.get_tokenizer(model)
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError, UnpicklingError) as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"weights {weights!r} do not load into {model} ({what}); {OTHERWISE}") from error


def _check_archive(path: Path) -> bool:
    """Whether a file is an archive that runs code, as OpenAI's are; ValueError where open_clip's table lacks it."""
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else ()
    if not any(name.endswith("/constants.pkl") for name in names):
        return False
    import open_clip

    urls = (open_clip.get_pretrained_cfg(*one).get("url", "") for one in open_clip.list_pretrained())
    if sha256_file(path) not in {url.split("/")[-2] for url in urls if "openaipublic" in url}:
        raise ValueError(f"weights {str(path)!r} are a TorchScript archive, which runs code; allowed are OpenAI's by "
                         "their SHA-256 in open_clip's table, and files without code, as .safetensors")  # fmt: skip
    return True


# ------------------------------------------------------------------------------------ the cache and the hub
def _about(model: str, weights: str) -> dict:
    """What open_clip's table says of weights: where they are, and how their pictures are prepared; {} for others."""
    import open_clip

    if weights.startswith(HUB):
        name = weights.removeprefix(HUB)
        return {"hf_hub": f"{name}/"} if name.count("/") == 1 else {}
    return dict(open_clip.get_pretrained_cfg(model, weights))


def _stored(about: dict) -> list[tuple[str, str]]:
    """The (repository, file) pairs under which the hub may hold weights, the first best."""
    repository, _, named = about.get("hf_hub", "").rpartition("/")
    names = [named] if named else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return [(repository, name) for name in names if repository]


def cached_weights(model: str, weights: str) -> Path | None:
    """Where the local caches hold the weights that an open_clip tag or a hf-hub: name means."""
    about = _about(model, weights)
    old = Path("~/.cache/clip").expanduser() / Path(about.get("url") or "none").name
    return _cached(_stored(about)) or (old if old.is_file() else None)


def _cached(stored: Sequence[tuple[str, str]]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(*one) for one in stored)
    return next((Path(one) for one in found if isinstance(one, str)), None)


def _from_hub(weights: str, stored: Sequence[tuple[str, str]]) -> Path:
    """The first file that its repository has, fetched into the cache and compared with the hash that the hub states."""
    from multiprocessing.pool import ThreadPool

    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    why = "this is offline (--offline, or HF_HUB_OFFLINE)"
    for repository, name in () if constants.HF_HUB_OFFLINE else stored:
        try:
            with ThreadPool(1) as pool:  # looking up a host, and trying its addresses, have no limit in common
                stated = pool.apply_async(get_hf_file_metadata, [hf_hub_url(repository, name)]).get(WAIT_S)
            say(f"fetching {repository}/{name}, {(stated.size or 0) / 1e6:,.1f} MB, into {constants.HF_HUB_CACHE}")
            path = Path(hf_hub_download(repository, name))
        except RemoteEntryNotFoundError:
            why = f"{repository} has no {' or '.join(one for _, one in stored)}"
            continue
        except Exception as error:  # those of the hub's client have no common base
            said = " ".join(str(error).split())[:200] or f"no answer within {WAIT_S:g} s"
            why = f"{constants.ENDPOINT} did not give them ({type(error).__name__}: {said}); run it again, or"
            raise ValueError(f"weights {weights!r} are not on this machine, and {why} {OTHERWISE}") from error
        if name != CONFIG and (found := sha256_file(path)) != stated.etag:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise ValueError(f"weights {weights!r}: {repository}/{name} has the SHA-256 {found}, but the hub states "
                             f"{stated.etag}; it was removed: run it again, or {OTHERWISE}")  # fmt: skip
        return path
    raise ValueError(f"weights {weights!r} are not on this machine, and {why}; run it once where there is a network, "
                     f"{OTHERWISE}")  # fmt: skip
