"""Checkpoints of trainable tensors, one safetensors file each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import atomic_path


def save_checkpoint(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping) -> None:
    """Write trainable tensors and JSON metadata (what was averaged, from which epochs, ...) as one file, atomically."""
    with atomic_path(path) as temporary:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, {"mede": json.dumps(dict(metadata), sort_keys=True)})


def load_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """({name: tensor}, metadata) of a checkpoint; ValueError where it is missing, truncated, or not of this package."""
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from error
    if "mede" not in header:
        raise ValueError(f"checkpoint {path} has no mede_core metadata; was it written by save_checkpoint?")
    return tensors, json.loads(header["mede"])


def checkpoint_path(run_dir: str | os.PathLike, epoch: int) -> Path:
    """File of an epoch's trainable tensors."""
    return Path(run_dir) / f"epoch_{epoch:03d}.safetensors"
