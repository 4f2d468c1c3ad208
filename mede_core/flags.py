"""What the flags of `mede` may hold, as types of the parameters of the functions behind its verbs. Torch-free."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .config import PROFILES


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise ValueError("no such file")
    return path


def _to_write(path: str, folder: bool) -> str:
    whole = Path(path).absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if there.is_dir() != (folder or there != whole):
        raise ValueError(f"{there} is {'a' if there.is_dir() else 'no'} folder")
    return path


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError("allowed: cpu, cuda, cuda:NUMBER")
    return name


File = Annotated[str, AfterValidator(_file), "FILE"]
NewFile = Annotated[str, AfterValidator(partial(_to_write, folder=False)), "FILE"]
Folder = Annotated[str, AfterValidator(partial(_to_write, folder=True)), "FOLDER"]
Older = Literal["ask", "use", "retrain"]
Half = Literal["", "all", "base", "novel"]
Count = Annotated[int, Field(ge=1, le=10**9)]
# With the help that a flag has where its function says nothing else
Device = Annotated[str, AfterValidator(_device), "DEVICE", Field(description="cpu, cuda or cuda:NUMBER")]
Workers = Annotated[int, Field(ge=0, le=256, description="of each process's data loader")]
Runs = Annotated[
    Folder, Field(description="folder of runs and scores (default: runs/ of the repository, else ./mede_runs)")
]
Given = Annotated[File, Field(description="JSON file with settings; flags win")]
Profile = Annotated[
    Literal[tuple(PROFILES)], Field(description="what applies where neither a flag nor the file says something")
]
