"""What keeps a number on real videos from being comparable with the paper's. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import METHODS, Config, diff, load_config
from .datasets import read_sidecar

IN_CONTEXT_CLIPS = "in_context"  # an entry of scuba in data.yaml: the same clips before their own background
_LIKE_THE_PAPER = (  # fields whose change does not make a number another number
    "data", "data_split", "half", "shots", "seed", "weights", "random_weights", "world_seed", "rho", "train_clips",
    "test_clips", "micro_batch", "inner_sync",
)  # fmt: skip
_OF_TESTING = ("model", "num_frames", "sampling", "views", "compat", "prompts")  # what matters where nothing is trained


def departures(config: Config, test_data: str | os.PathLike = "") -> str:
    """What keeps a number on real videos from being comparable with the paper's, as text; empty where nothing does.

    Args:
        config: what was trained and how it is tested.
        test_data: the CSV of test videos; its sidecar says whether its classes are the published ones.

    Returns:
        reasons, joined by "; ".
    """
    reference = load_config("paper", method=config.method, shots=config.shots)
    changed = {name: new for name, (_, new) in diff(config, reference).items() if name not in _LIKE_THE_PAPER}
    if METHODS[config.method].trainer == "none":
        changed = {name: new for name, new in changed.items() if name in _OF_TESTING}
    said = ["random weights"] if config.random_weights else []
    said += [f"{name}={Path(value).name if isinstance(value, str) else value}" for name, value in changed.items()]
    if test_data:
        sidecar = read_sidecar(test_data)
        if sidecar is None:
            said.append("the list of videos was not prepared, so its classes and counts are unknown")
        elif config.half != "all" and sidecar.get("comparable") is False:
            said.append("base and novel classes are not the published ones")
    return "; ".join(said)
