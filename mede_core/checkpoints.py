"""Checkpoints of trainable tensors: one file, a trajectory of epochs, and the weights that a method ends with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import METHODS, Config
from .files import atomic_path
from .gwa import average_trajectory, gaussian_weights


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


def trajectory(run_dir: str | os.PathLike, epochs: int) -> Iterator[dict[str, Tensor]]:
    """Yield the trainable tensors of epochs 1..epochs, one at a time, from disk."""
    for epoch in range(1, epochs + 1):
        yield load_checkpoint(checkpoint_path(run_dir, epoch))[0]


def method_weights(run_dir: str | os.PathLike, config: Config) -> dict[str, Tensor]:
    """The trainable tensors that a method is evaluated with, before any interpolation with CLIP.

    Args:
        run_dir: a finished run.
        config: names the method and its average, which is formed post hoc from the trajectory.

    Returns:
        {name: tensor}.

    Raises:
        ValueError: the run is not finished.
    """
    if not (Path(run_dir) / "done.json").is_file():
        raise ValueError(f"run {run_dir} is not finished; train it first (10_train, or fit)")
    average = METHODS[config.method].average
    if average == "last":
        return load_checkpoint(checkpoint_path(run_dir, config.epochs))[0]
    if average == "gwa":
        weights = gaussian_weights(config.epochs, config.mu, config.sigma)
    else:  # the uniform mean of epochs swa_start..E
        weights = (torch.arange(1, config.epochs + 1) >= config.swa_start).double()
        weights /= weights.sum()
    return average_trajectory(trajectory(run_dir, config.epochs), weights)


def interpolate(tensors: Mapping[str, Tensor], clip: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Weights between a trained method's and CLIP's: ratio * CLIP + (1 - ratio) * trained.

    Args:
        tensors: {name: tensor}, trained.
        clip: the same tensors of the fresh learner: CLIP's own, or the adapters' identity at the start.
        ratio: share of CLIP, 0 to 1; 1 is frozen CLIP.

    Returns:
        {name: tensor}.

    Source: Open-VCLIP's test-time patching (WiSE-FT, Wortsman et al., CVPR 2022).
    """
    if tensors.keys() != clip.keys():
        raise ValueError(f"the two differ in {sorted(tensors.keys() ^ clip.keys())[:6]}")
    return {name: torch.lerp(tensor, clip[name].to(tensor), ratio) for name, tensor in tensors.items()}
