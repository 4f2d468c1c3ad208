"""data.yaml: where this machine keeps weights and real videos, read and checked whole before anything starts.

A step of the plan names what it needs from it as `${ucf101}` or `${weights}`. All problems are reported at once, each
with its key, value and what is allowed. Relative paths start from data.yaml's folder.
"""

import difflib
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mede_core.config import Config, load_config
from mede_core.files import sha256_file
from mede_core.reproduce import PlanError
from mede_core.reproduce.manifests import ManifestFacts, look_at
from mede_core.reproduce.matrix import map_strings

DATASETS = ("kinetics400", "kinetics600", "ucf101", "hmdb51", "ssv2")
SCUBA_SETS = ("ucf101", "hmdb51", "kinetics400")
SCALARS = ("model", "weights", "random_weights", "device", "processes")
_KEYS = (*SCALARS, "settings", "datasets", "scuba")
_ELSEWHERE = {  # fields of Config that are no settings
    **{name: f"give it as {name}: at the top" for name in ("model", "weights", "random_weights")},
    **dict.fromkeys(("method", "data", "data_split", "half"), "the plan's steps say it"),
}
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_SCUBA_NAME = re.compile(rf"scuba\.({'|'.join(SCUBA_SETS)})(?:\.([\w-]+)\.(list|root))?")
_WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True)
class Sources:
    """What data.yaml says; all paths are absolute and were there when it was read."""

    path: Path
    model: str
    weights: str  # an open_clip tag, or a path; "" with random weights
    random_weights: bool
    device: str
    processes: int  # of torchrun on this machine
    settings: dict = field(default_factory=dict)  # Config fields that differ from the profile
    datasets: dict[str, Path] = field(default_factory=dict)
    scuba: dict[str, dict[str, dict[str, Path]]] = field(default_factory=dict)  # {set: {background: {list, root}}}
    facts: dict[str, ManifestFacts] = field(default_factory=dict)
    _hashes: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def weights_path(self) -> Path | None:
        """The local file or folder of weights; None for an open_clip tag or random weights."""
        path = Path(self.weights)
        return path if self.weights and path.is_absolute() else None

    def get(self, name: str):
        """Return the value of a placeholder as notebooks get it (paths as text), or None where data.yaml lacks it."""
        if name in SCALARS:
            return getattr(self, name)
        if name == "data_yaml":
            return str(self.path)
        if name in DATASETS:
            return str(self.datasets[name]) if name in self.datasets else None
        which, background, part = scuba_parts(name)
        found = self.scuba.get(which, {})
        if background:
            return str(found[background][part]) if background in found else None
        return {name: {part: str(path) for part, path in one.items()} for name, one in found.items()} or None

    def files(self, name: str) -> list[Path]:
        """Return the files whose content a placeholder stands for; none for a setting, a tag or a folder of frames."""
        if name == "weights" and self.weights_path:
            path = self.weights_path
            return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
        if name in self.datasets:
            return [file for file in (self.datasets[name], self.datasets[name].with_suffix(".json")) if file.is_file()]
        if name.startswith("scuba."):
            which, background, part = scuba_parts(name)
            found = self.scuba.get(which, {})
            lists = {name: one["list"] for name, one in found.items() if background in (None, name)}
            return [] if part == "root" else [lists[name] for name in sorted(lists)]
        if name == "data_yaml":
            named = [*self.datasets, *(f"scuba.{which}" for which in self.scuba), "weights"]
            return [self.path, *(file for each in named for file in self.files(each))]
        return []

    def content_hash(self, name: str) -> str | None:
        """Return a hash of what a placeholder's files hold; None where it stands for no file."""
        if name not in self._hashes:
            hashes = [sha256_file(file) for file in self.files(name)]
            self._hashes[name] = hashlib.sha256(" ".join(hashes).encode()).hexdigest() if hashes else None
        return self._hashes[name]

    def overrides(self) -> dict:
        """Return the Config fields that it sets: model and weights where given, and the settings."""
        named = {"model": self.model, "weights": self.weights, "random_weights": self.random_weights}
        return {**{name: value for name, value in named.items() if value != ""}, **self.settings}


def scuba_parts(name: str) -> tuple[str, str | None, str | None]:
    """Split `scuba.ucf101.places.list` into set, background and part; the last two are None in `scuba.ucf101`."""
    return _SCUBA_NAME.fullmatch(name).groups()


def placeholders(value) -> list[str]:
    """Return the names that the strings of a value hold as `${name}`, in order, each once."""
    found: dict[str, None] = {}

    def note(text: str) -> str:
        found.update(dict.fromkeys(_PLACEHOLDER.findall(text)))
        return text

    map_strings(value, note)
    return list(found)


def filled(value, sources: Sources):
    """Return a value with its placeholders filled in; one that is the whole text keeps its type."""

    def fill(text: str):
        if whole := _PLACEHOLDER.fullmatch(text):
            return sources.get(whole[1])
        return _PLACEHOLDER.sub(lambda match: str(sources.get(match[1])), text)

    return map_strings(value, fill)


def check_names(where: str, value) -> None:
    """Raise PlanError unless every placeholder in a value is one that data.yaml can hold."""
    known = (*SCALARS, "data_yaml", *DATASETS)
    for name in placeholders(value):
        if name not in known and not _SCUBA_NAME.fullmatch(name):
            raise PlanError(f"{where}: unknown placeholder ${{{name}}}; known: {', '.join(known)}, scuba.SET, "
                            f"scuba.SET.BACKGROUND.list and .root with SET one of {', '.join(SCUBA_SETS)}")  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 5e-6 as a number."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key) for key, _ in node.value]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def read_sources(path, profile: str = "paper") -> Sources:
    """Read data.yaml and check all of it.

    Args:
        path: the file.
        profile: the profile of `mede_core.config` that its settings change.

    Raises:
        PlanError: with every problem on a line of its own.
    """
    path = Path(path)
    if not path.is_file():
        raise PlanError(f"no {path}: copy data.yaml.example to data.yaml and fill in what this machine has, or name "
                        "another file with --data FILE (make: DATA=FILE)")  # fmt: skip
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise PlanError(f"{path}: expected a mapping with the keys {', '.join(_KEYS)}")
    reader = _Reader(path.resolve(), raw)
    sources = reader.read(profile)
    if reader.problems:
        count = len(reader.problems)
        raise PlanError("\n  ".join([f"{path}: {count} problem{'s' * (count > 1)}", *reader.problems]))
    return sources


class _Reader:
    """Collects what is wrong while it reads."""

    def __init__(self, path: Path, raw: dict):
        self.path, self.raw, self.problems = path, raw, []

    def wrong(self, key: str, value, expected: str) -> None:
        self.problems.append(f"{key}={str(value) if isinstance(value, Path) else value!r}: {expected}")

    def known(self, where: str, mapping: dict, names) -> Iterator[tuple[str, object]]:
        """Yield the entries whose key is known and that are not left empty; report the other keys."""
        for key, value in mapping.items():
            if key in names:
                if value is not None:
                    yield key, value
                continue
            close = difflib.get_close_matches(str(key), names, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            self.wrong(f"{where}{key}", value, f"unknown key; {hint}allowed: {', '.join(names)}")

    def mapping(self, key: str, value) -> dict:
        if isinstance(value, dict):
            return value
        self.wrong(key, value, "expected a mapping")
        return {}

    def existing(self, key: str, value, kind: str) -> Path | None:
        """Return the absolute path that a value names, or report it."""
        if not isinstance(value, str) or not value:
            return self.wrong(key, value, f"expected the path of a {kind}")
        path = self.path.parent / Path(value).expanduser()
        if not (path.is_dir() if kind == "folder" else path.is_file()):
            return self.wrong(key, value, f"no such {kind}" + ("" if Path(value).is_absolute() else f" ({path})"))
        return path.absolute()

    def read(self, profile: str) -> Sources:
        given = dict(self.known("", self.raw, _KEYS))
        random = given.get("random_weights", False)
        if not isinstance(random, bool):
            self.wrong("random_weights", random, "expected true or false")
        model = self._model(given.get("model"))
        settings = self.mapping("settings", given.get("settings", {}))
        weights = self._weights(given.get("weights"), model, random is True)
        self._settings(settings, profile)
        datasets, facts = self._datasets(self.mapping("datasets", given.get("datasets", {})))
        scuba = self._scuba(self.mapping("scuba", given.get("scuba", {})))
        device, processes = given.get("device"), given.get("processes", 1)
        if not isinstance(device, str) or not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
            self.wrong("device", device, "expected cpu, cuda, cuda:N or mps")
        if type(processes) is not int or not 1 <= processes <= 1024:
            self.wrong("processes", processes, "expected a whole number, 1 to 1024")
        return Sources(self.path, model, weights, random, device, processes, settings, datasets, scuba, facts)

    def _model(self, model) -> str:
        names = model_names()
        if not isinstance(model, str) or model not in names:
            close = difflib.get_close_matches(str(model), names, 3)
            hint = ", ".join(close) if close else "ViT-B-16-quickgelu, ViT-L-14-quickgelu"
            self.wrong("model", model, f"expected mede-small or a model of open_clip such as {hint}")
        return model

    def _weights(self, weights, model, random: bool) -> str:
        if weights is None and random:
            return ""
        if not isinstance(weights, str) or not weights:
            self.wrong("weights", weights, "expected an open_clip tag such as openai, or the path of a file of weights")
            return ""
        path = (self.path.parent / Path(weights).expanduser()).absolute()
        if path.is_file() or (path.is_dir() and model == "mede-small"):
            return str(path)
        if "/" in weights or path.suffix in _WEIGHT_SUFFIXES:
            self.wrong("weights", weights, f"no such file ({path})")
        elif weights == "openai" and not random and not str(model).endswith("-quickgelu"):
            self.wrong("weights", weights, f"OpenAI's weights need QuickGELU; with them model is {model}-quickgelu")
        return weights

    def _settings(self, settings: dict, profile: str) -> None:
        """Check the settings as the configuration does, one after the other until no problem is left."""
        names = [name for name in Config.model_fields if name not in _ELSEWHERE]
        for name in sorted(settings.keys() & _ELSEWHERE.keys()):
            self.wrong(f"settings.{name}", settings[name], f"does not belong here: {_ELSEWHERE[name]}")
        left = dict(self.known("settings.", {k: v for k, v in settings.items() if k not in _ELSEWHERE}, names))
        while True:
            try:
                load_config(profile, **left)
                return
            except ValueError as error:
                self.problems.append(f"settings: {error}")
                named = str(error).split()[0]
                if named not in left:
                    return
                del left[named]

    def _datasets(self, given: dict) -> tuple[dict[str, Path], dict[str, ManifestFacts]]:
        found, facts = {}, {}
        for name, value in self.known("datasets.", given, DATASETS):
            path = self.existing(f"datasets.{name}", value, "file")
            if path is None:
                continue
            try:
                facts[name] = look_at(path)
            except ValueError as error:
                self.wrong(f"datasets.{name}", value, str(error))
                continue
            says = facts[name].sidecar.get("dataset")
            if says in DATASETS and says != name:
                self.wrong(f"datasets.{name}", value, f"its sidecar says that it lists {says}")
            found[name] = path
        return found, facts

    def _scuba(self, given: dict) -> dict[str, dict[str, dict[str, Path]]]:
        found: dict = {}
        for which, backgrounds in self.known("scuba.", given, SCUBA_SETS):
            for name, entry in self.mapping(f"scuba.{which}", backgrounds).items():
                key = f"scuba.{which}.{name}"
                if not re.fullmatch(r"[\w-]+", str(name)):
                    self.wrong(key, entry, "a background's name holds letters, digits, _ and - only")
                    continue
                parts = dict(self.known(f"{key}.", self.mapping(key, entry), ("list", "root")))
                paths = {
                    part: self.existing(f"{key}.{part}", parts.get(part), kind)
                    for part, kind in (("list", "file"), ("root", "folder"))
                }
                if all(paths.values()):
                    found.setdefault(which, {})[str(name)] = paths
        return found


def model_names() -> list[str]:
    """Return mede-small and the names of open_clip's models, without importing it (and torch with it)."""
    found = importlib.util.find_spec("open_clip")
    folders = found.submodule_search_locations if found else ()
    files = [file for folder in folders for file in Path(folder).glob("model_configs/*.json")]
    return ["mede-small", *sorted(file.stem for file in files)]
