"""What a method costs: seconds a step, clips a second at test time, and peak memory, measured side by side.

    python -m mede_core.report.costs --config run.json --steps 20

Clips are noise of the right size, so that reading videos is not in the figures. Methods are timed in turns, round by
round, so that what else the machine does hits them alike; compare them by ratios within a run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..config import METHODS, Config
from ..experiment import learner_for, teacher_for
from ..objectives import cross_entropy, in_precision, smaller_pieces
from ..steps import build_optimizer, method_step
from ..train import method_loss


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensor memory that was allocated inside the context and is still alive.

    Every operator of the forward, the backward and the optimizer passes through here. Memory is counted once,
    when the first tensor on it appears, however many views follow, and no longer once its last owner is gone.
    Memory that existed before (an operator's input that was never counted) is not counted. Scratch space
    inside an operator is invisible.

    Attributes:
        live: bytes now. peak: the most there ever were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        for value in tree_iter((args, kwargs)):
            self._meet(value, counted=False)
        result = func(*args, **kwargs)
        for value in tree_iter(result):
            self._meet(value, counted=True)
        self.peak = max(self.peak, self.live)
        return result

    def _meet(self, value: Any, counted: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.live += size

    def _forget(self, key: int, size: int) -> None:
        del self._known[key]
        self.live -= size


def allocation_peak(step: Callable[[], Any]) -> int:
    """The most bytes that `step` held at once, beyond what was allocated before it, on any device."""
    with LiveBytes() as memory:
        step()
    return memory.peak


@dataclass(frozen=True)
class Cost:
    """What one method costs on this machine.

    Attributes:
        seconds_per_step: median over the rounds; 0 for a method that does not train.
        clips_per_step: clips that a step sees: of a meta-step those of two batches.
        clips_per_second_eval: at test time, one view, median over the rounds.
        peak_bytes: the most tensor memory that a training step held beyond what was there before it.
        trainable_bytes: of the trained tensors, which is what an epoch's checkpoint takes on disk.
        steps: rounds that were timed.
        device: where.
    """

    seconds_per_step: float
    clips_per_step: int
    clips_per_second_eval: float
    peak_bytes: int
    trainable_bytes: int
    steps: int
    device: str


def measure(
    configs: Mapping[str, Config],
    *,
    steps: int = 20,
    seconds: float = math.inf,
    classes: int = 400,
    device: str = "cpu",
) -> dict[str, Cost]:
    """Time the training step and the evaluation of several configurations in turns.

    Args:
        configs: name -> configuration; its data are not read.
        steps: rounds, after one that warms up and is not counted.
        seconds: no further round begins after that long; one is always made.
        classes: of the class-text head; K400 has 400.
        device: where to measure.

    Returns:
        name -> cost.

    Raises:
        ValueError: steps below 1, or a configuration without its CLIP weights.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    works = {name: _Work(config, classes, device) for name, config in configs.items()}
    for work in works.values():
        work.train_step(), work.test_step()
    peaks = {name: work.peak() for name, work in works.items()}
    train, test = ({name: [] for name in works} for _ in range(2))
    started, rounds = time.perf_counter(), 0
    while rounds < steps and (rounds == 0 or time.perf_counter() - started < seconds):
        rounds += 1
        for name, work in works.items():
            train[name].append(_timed(work.train_step, device))
            test[name].append(_timed(work.test_step, device))
    return {
        name: Cost(
            seconds_per_step=statistics.median(train[name]) if work.trains else 0.0,
            clips_per_step=work.clips_per_step,
            clips_per_second_eval=work.config.batch_size / statistics.median(test[name]),
            peak_bytes=peaks[name],
            trainable_bytes=work.trainable_bytes,
            steps=rounds,
            device=device,
        )
        for name, work in works.items()
    }


class _Work:
    """A configuration's learner with everything that a step needs."""

    def __init__(self, config: Config, classes: int, device: str):
        method = METHODS[config.method]
        self.config, self.trains, self.device = config, method.trainer != "none", device
        self.learner = learner_for(config, device).set_classes([f"class {number}" for number in range(classes)])
        size = (config.batch_size, config.num_frames, 3, self.learner.image_size, self.learner.image_size)
        generator = torch.Generator().manual_seed(0)
        batch = (
            torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device),
            torch.randint(0, classes, size[:1], generator=generator).to(device),
        )
        self.video, self.batch = batch[0], (batch, batch) if method.trainer == "meta" else batch
        self.clips_per_step = self.trains * config.batch_size * (2 if method.trainer == "meta" else 1)
        state = self.learner.trainable_state()
        self.trainable_bytes = self.trains * sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        if self.trains:
            beside = method_loss(self.learner, config, teacher_for(config, device))
            pieces = smaller_pieces(beside or cross_entropy, config.micro_batch)
            self.loss_fn = in_precision(pieces, config.precision)
            self.anchor = {name: tensor.clone() for name, tensor in state.items()}
            self.optimizer = build_optimizer(self.learner, config, *([beside] if beside else []))
            self.draws = torch.Generator().manual_seed(0)

    def train_step(self) -> None:
        if self.trains:
            self.learner.train()
            method_step(
                self.learner, self.loss_fn, self.batch, self.optimizer, self.config,
                anchor=self.anchor, generator=self.draws,
            )  # fmt: skip

    @torch.no_grad()
    def test_step(self) -> None:
        self.learner.eval()
        self.learner(self.video)

    def peak(self) -> int:
        """Peak bytes of a training step: the allocator's own figure on a GPU, counted allocations elsewhere."""
        if not self.device.startswith("cuda"):
            return allocation_peak(self.train_step)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.train_step()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


def _timed(work: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> int:
    """Print the cost of one configuration as a JSON line.

    Args:
        arguments: default: of the process.

    Returns:
        the exit code: 0, or 2 for bad input.
    """
    parser = argparse.ArgumentParser(prog="python -m mede_core.report.costs", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, metavar="FILE", help="JSON with the fields of a configuration")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30, help="stop timing after that long (default: 30)")
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    try:
        with open(options.config, encoding="utf-8") as file:
            config = Config(**json.load(file))
        limits = {"steps": options.steps, "seconds": options.seconds}
        cost = measure({"it": config}, **limits, classes=options.classes, device=options.device)["it"]
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(vars(cost)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
