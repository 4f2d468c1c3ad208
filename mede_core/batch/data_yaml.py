"""data.yaml: the weights and real videos of this machine, checked whole before anything starts. Torch-free."""

import difflib
import functools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from ..config import Config, load_config
from ..video.manifest import read_sidecar
from ..weights import HUB, support
from . import PlanError

DATASETS = ("kinetics400", "kinetics600", "ucf101", "hmdb51", "ssv2")
SCUBA_SETS = ("ucf101", "hmdb51", "kinetics400")
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
ELSEWHERE = {  # fields of Config that are no settings
    **{name: f"does not belong here: give it as {name}: at the top" for name in ("model", "weights", "random_weights")},
    **dict.fromkeys(("method", "data", "data_split", "half"), "does not belong here: the plan's steps say it"),
}


# ------------------------------------------------------------------------------------ the file
def _existing(text: str, info: ValidationInfo, folder: bool = False) -> str:
    path, kind = (info.context / Path(text).expanduser()).absolute(), "folder" if folder else "file"
    if not (path.is_dir() if folder else path.is_file()):
        raise ValueError(f"no such {kind}" + ("" if Path(text).is_absolute() else f" ({path})"))
    return str(path)


def _list(text: str, info: ValidationInfo) -> str:
    path = _existing(text, info)
    read_sidecar(path)  # one that belongs to another list is refused
    return path


def _model(name: str) -> str:
    if not (fits := support(name)).adapters:
        raise ValueError(f"expected a model that trains; {fits.said}")
    return name


def _weights(name: str, info: ValidationInfo) -> str:
    model, random = info.data.get("model", ""), info.data.get("random_weights", False)
    path = (info.context / Path(name).expanduser()).absolute()
    if name and (path.is_file() or (path.is_dir() and model == "mede-small")):
        return str(path)
    if not name and not random:
        raise ValueError("expected an open_clip tag such as openai, or the path of a file of weights")
    if not name.startswith(HUB) and ("/" in name or path.suffix in WEIGHT_SUFFIXES):
        raise ValueError(f"no such file ({path})")
    if name == "openai" and not random and not model.endswith("-quickgelu"):
        raise ValueError(f"OpenAI's weights need QuickGELU; with them model is {model}-quickgelu")
    return name


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Frames(Entry):
    """Out-of-context clips before one background: a frame list and the folder of its frames."""

    list: Annotated[str, AfterValidator(_existing)]
    root: Annotated[str, AfterValidator(lambda text, info: _existing(text, info, folder=True))]

    @property
    def clips(self) -> int:
        return sum(1 for line in Path(self.list).read_text(encoding="utf-8").splitlines() if line.strip())


Background = Annotated[str, Field(pattern=r"^[\w-]+$")]


class DataYaml(Entry):
    """What data.yaml says; all paths are absolute and were there when it was read."""

    model: Annotated[str, AfterValidator(_model)]
    random_weights: bool = False
    weights: Annotated[str, AfterValidator(_weights), Field(validate_default=True)] = ""
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")]
    processes: Annotated[int, Field(ge=1, le=1024)] = 1  # of torchrun on one machine
    settings: dict[str, Any] = {}  # Config fields that differ from the profile
    datasets: dict[Literal[*DATASETS], Annotated[str, AfterValidator(_list)]] = {}  # lists of videos
    scuba: dict[Literal[*SCUBA_SETS], dict[Background, Frames]] = {}

    def fields(self) -> dict:
        named = {"model": self.model, "weights": self.weights, "random_weights": self.random_weights}
        named |= {"precision": "float32"} if self.device == "cpu" else {}  # most CPUs take twice as long in bfloat16
        return {**{name: value for name, value in named.items() if value != ""}, **self.settings}

    def path(self, name: str) -> str:
        return self.datasets.get(name, "")

    def lacks(self, *names: str) -> list[str]:
        """Those of `ucf101`, `scuba.ucf101`, ... that are not here."""
        here = {*self.datasets, *(f"scuba.{name}" for name, found in self.scuba.items() if found)}
        return [name for name in names if name not in here]


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 5e-6 as a number."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key) for key, _ in node.value]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_data_yaml(path) -> DataYaml:
    """What data.yaml says; a PlanError has every problem on a line of its own."""
    path = Path(path)
    if not path.is_file():
        raise PlanError(f"no {path}: copy data.yaml.example to data.yaml and fill in what this machine has, or name "
                        "another file with --data FILE (make: DATA=FILE)")  # fmt: skip
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise PlanError(f"{path}: expected a mapping with the keys {', '.join(DataYaml.model_fields)}")
    raw, problems = _without_empty(raw), []
    try:
        found = DataYaml.model_validate(raw, context=path.resolve().parent)
        for name, file in found.datasets.items():
            says = (read_sidecar(file) or {}).get("dataset", name)
            if says != name and says in DATASETS:
                problems.append(f"datasets.{name}={Path(file).name!r}: its sidecar says that it lists {says}")
    except ValidationError as error:
        problems += _lines(error.errors(), raw)
    if isinstance(raw.get("settings", {}), dict):
        problems += _settings_problems(raw.get("settings", {}))
    if problems:
        raise PlanError("\n  ".join([f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}", *problems]))
    return found


def _without_empty(value):
    """What is left empty is as good as left out."""
    if not isinstance(value, dict):
        return value
    return {name: _without_empty(one) for name, one in value.items() if one is not None}


def _lines(errors: list[dict], raw: dict) -> list[str]:
    """Each problem as key=value: what is allowed."""
    lines: dict[tuple, str] = {}
    for error in errors:
        where = tuple(str(part) for part in error["loc"] if part != "[key]")
        value = functools.reduce(lambda one, name: one.get(name) if isinstance(one, dict) else None, where, raw)
        says = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if error["type"] in ("extra_forbidden", "literal_error"):
            names = {(): [*DataYaml.model_fields], ("datasets",): DATASETS, ("scuba",): SCUBA_SETS}
            allowed = names.get(where[:-1], [*Frames.model_fields])
            says = _unknown(where[-1], allowed, ", ".join(allowed))
        elif error["type"] == "missing":
            says = "expected a value"
        elif where == ("device",):
            says = "expected cpu, cuda, cuda:N or mps"
        elif error["type"] == "string_pattern_mismatch":
            says = "a background's name holds letters, digits, _ and - only"
        if not any(where[: len(above)] == above for above in lines):  # of an unknown key, what is below does not matter
            lines[where] = f"{'.'.join(where)}={value!r}: {says}"
    return list(lines.values())


def _unknown(name: str, allowed, said: str) -> str:
    close = difflib.get_close_matches(name, allowed, 1)
    return f"unknown key; {f'did you mean {close[0]}? ' if close else ''}allowed: {said}"


def _settings_problems(settings: dict) -> list[str]:
    """What the configuration says against the settings, one after the other until no problem is left."""
    known = [name for name in Config.model_fields if name not in ELSEWHERE]
    problems, left = [], {}
    for name, value in settings.items():
        if name in known:
            left[name] = value
            continue
        hint = _unknown(str(name), known, "any other field of Config")
        problems.append(f"settings.{name}={value!r}: {ELSEWHERE.get(name, hint)}")
    while True:
        try:
            load_config("paper", **left)
            return problems
        except ValueError as error:
            problems.append(f"settings: {error}")
            named = str(error).split()[0]
            if named not in left:
                return problems
            del left[named]
