"""Several processes, started by torchrun, that together do what one process would do on all their clips.

Each reads its share of every batch; gradients of the trainable tensors are averaged by hand, because the meta-step
needs them before its inner step, where data-parallel wrappers have none. Rank 0 writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler


@contextmanager
def process_group(device: str = "cpu") -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did, and yield this one's device."""
    if "LOCAL_RANK" not in os.environ:
        yield torch.device(device)
        return
    local = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if local.type == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if local.type == "cuda" else "gloo")
    try:
        yield local
    finally:
        dist.destroy_process_group()


def torchrun(config: Mapping, processes: int, flags: Sequence[str]) -> None:
    """Train a configuration in several processes on this machine: `mede train FLAGS` under torchrun, waited for."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(dict(config)), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += ["-m", "mede_core", "train", "--config", str(file), *flags]
        code = subprocess.run(command, check=False).returncode
    if code:
        raise RuntimeError(f"torchrun ended with exit code {code}; what failed is said above")


def rank() -> int:
    """This process's number, 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are, 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Return when every process has come this far."""
    if dist.is_initialized():
        dist.barrier()


def average_grads(grads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average {name: tensor}, of one data type, over the processes with one all-reduce; alone: the given ones."""
    if world_size() == 1:
        return grads
    flat = torch.cat([grad.flatten() for grad in grads.values()])
    dist.all_reduce(flat)
    parts = (flat / world_size()).split([grad.numel() for grad in grads.values()])
    return {name: part.view_as(grad) for (name, grad), part in zip(grads.items(), parts, strict=True)}


def gather(value: Any) -> list:
    """Everybody's value, by rank, in every process."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor, total: int) -> Tensor:
    """Put the rows of all processes back in order, where process r holds rows r, r + N, r + 2N, ... of `total`."""
    if world_size() == 1:
        return rows
    whole = rows.new_empty((total, *rows.shape[1:]))
    for number, share in enumerate(gather(rows)):
        whole[number :: world_size()] = share
    return whole


class RankShare(Sampler):
    """Every N-th index of a sampler's order, so that the union of the processes' batches is one process's batch."""

    def __init__(self, base: Sampler):
        self.base = base  # gives the same order in every process

    def __iter__(self) -> Iterator[int]:
        return islice(self.base, rank(), None, world_size())

    def __len__(self) -> int:
        return len(range(rank(), len(self.base), world_size()))
