"""Training: `fit` runs a method's steps and keeps the trajectory, one checkpoint an epoch.

A run folder holds config.json, metrics.jsonl (a line a step), epoch_NNN.safetensors (the trajectory), gwa.safetensors
(the online average), state.pt (what a resume needs) and done.json. state.pt is replaced last in each epoch, so a run
killed at any moment goes on from the last finished epoch and ends with the same bits.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, default_collate

from .checkpoints import checkpoint_path, load_checkpoint, save_checkpoint
from .config import Config
from .distributed import RankShare, gather, rank, wait_for_all, world_size
from .files import atomic_path, atomic_write, progress
from .gwa import GaussianWeightAverage
from .learner import VideoLearner
from .meta import cross_batch_pairs
from .methods import build_method, build_optimizer
from .schedule import learning_rate, steps_of

log = logging.getLogger(__name__)


def fit(
    learner: VideoLearner, dataset: Dataset, config: Config, run_dir: str | os.PathLike, *,
    texts: Sequence[Sequence[str]] | None = None, teacher: VideoLearner | None = None, method: Callable | None = None,
    num_workers: int = 0, facts: Mapping | None = None,
) -> Path:  # fmt: skip
    """Train a fresh learner; a finished run folder is loaded, an unfinished one goes on, another run's is an error.

    Under torchrun every process calls it; together they do what one process does, and rank 0 writes. The learner ends
    with the last epoch's weights. Items of the dataset are (video [T, 3, H, W], label), its classes `class_names`.

    Args:
        texts: for each class its texts; default: the bare names.
        teacher: frozen CLIP without a temporal module, for methods that distill.
        method: one of your own in place of the configuration's: called with (learner, config), it returns an object
            with `step(batch, optimizer, generator) -> {name: number}` that gets one batch (video, labels), or with
            `passes = 2` a (support, query) pair; its `parameters()` are trained too and its `state_dict()` is kept.
        facts: what else config.json says about the run; a folder whose "code" differs is another run's.

    Raises:
        ValueError: too few clips for the batch size, the method does not train, or the folder holds another run.
        FloatingPointError: a loss that is not finite, with the epoch and step; the last checkpoint is kept.
    """
    if config.batch_size % world_size():
        raise ValueError(f"batch_size is {config.batch_size}; it must be a multiple of the {world_size()} processes")
    learner.set_classes(dataset.class_names, texts=texts)
    method = build_method(config, learner, teacher, method)
    steps, passes = steps_of(config, len(dataset)), getattr(method, "passes", 1)
    if steps < passes:
        held = f"{len(dataset)} clips in batches of {config.batch_size} (batch_size)"
        given = f"steps_per_epoch={config.steps_per_epoch}, give {steps} full batches an epoch"
        raise ValueError(f"{held}, {given}; {config.method} needs at least {passes}")
    run_dir, facts = Path(run_dir), dict(facts or {})
    codes = gather(facts.get("code"))
    if len(set(codes)) > 1:
        raise ValueError(f"the processes run different code ({codes}, by rank); start them all on the same")
    if rank() == 0:
        _claim(run_dir, learner, dataset, config, facts)
    wait_for_all()
    if (run_dir / "done.json").is_file():
        learner.load_trainable(load_checkpoint(checkpoint_path(run_dir, config.epochs))[0])
    else:
        _train(learner, dataset, config, run_dir, steps, passes, method, num_workers)
    wait_for_all()
    return run_dir


def _train(learner, dataset, config: Config, run_dir: Path, steps: int, passes: int, method, num_workers) -> None:
    optimizer = build_optimizer(learner, config, method)
    average = GaussianWeightAverage(learner, config.mu, config.sigma)
    first, seconds = _resume(learner, method, optimizer, average, run_dir)
    lines = run_dir / "metrics.jsonl" if rank() == 0 else os.devnull  # the losses of rank 0's share of the batches
    total, warmup = steps * config.epochs, steps * config.warmup_epochs
    learner.train()
    for epoch in range(first, config.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(_epoch_seed(config.seed, epoch))  # a resumed epoch draws what an uninterrupted one would
        draws = torch.Generator().manual_seed(_epoch_seed(config.seed, epoch))
        pairing = config.pairing if passes == 2 else None
        batches = EpochBatches(dataset, config, epoch, steps, pairing, num_workers, learner.logit_scale.device)
        batches = query_pairs(batches, pairing) if pairing else batches
        with open(lines, "a", encoding="utf-8") as metrics:
            for index, batch in enumerate(progress(batches, f"epoch {epoch}/{config.epochs}", steps)):
                step = (epoch - 1) * steps + index
                rate = learning_rate(step, total, warmup, config.outer_lr)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                try:
                    found = method.step(batch, optimizer, draws)
                except FloatingPointError as error:
                    told = f"epoch {epoch}, step {step}: {error}; epochs before it are kept"
                    raise FloatingPointError(told) from error
                record = {"epoch": epoch, "step": step, "lr": rate}
                record |= {name: float(value) for name, value in found.items()}
                metrics.write(json.dumps(record) + "\n")
            if rank() == 0:
                metrics.flush()
                os.fsync(metrics.fileno())
        average.update(learner, epoch)
        seconds += time.perf_counter() - started
        if rank() == 0:
            _save_epoch(run_dir, epoch, learner, config, method, optimizer, average, seconds)
    learner.eval()
    if rank() == 0:
        averaged = {"name": "gwa", "mu": config.mu, "sigma": config.sigma}
        about = _about(learner, config, list(range(1, config.epochs + 1)), averaged)
        save_checkpoint(run_dir / "gwa.safetensors", average.averaged(), about)
        done = {"epochs": config.epochs, "steps": total, "batches_seen": total * passes}
        done |= {"seconds": round(seconds, 2), "weights": learner.weights_id}
        atomic_write(run_dir / "done.json", json.dumps(done, indent=1) + "\n")


def _save_epoch(run_dir, epoch, learner, config, method, optimizer, average, seconds: float) -> None:
    about = _about(learner, config, [epoch], None)
    save_checkpoint(checkpoint_path(run_dir, epoch), learner.trainable_state(), about)
    with atomic_path(run_dir / "state.pt") as temporary, open(temporary, "wb") as file:
        torch.save(
            {
                "epoch": epoch,
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "method": method.state_dict() if hasattr(method, "state_dict") else {},
                "metrics_bytes": (run_dir / "metrics.jsonl").stat().st_size,
                "seconds": seconds,
            },
            file,
        )


def _resume(learner, method, optimizer, average, run_dir: Path) -> tuple[int, float]:
    """Load the last finished epoch, if any; returns (the next epoch, seconds spent so far)."""
    state_path, metrics = run_dir / "state.pt", run_dir / "metrics.jsonl"
    if not state_path.is_file():
        if rank() == 0:
            metrics.unlink(missing_ok=True)
        return 1, 0.0
    state = torch.load(state_path, weights_only=True, map_location=learner.logit_scale.device)
    learner.load_trainable(load_checkpoint(checkpoint_path(run_dir, state["epoch"]))[0])
    optimizer.load_state_dict(state["optimizer"])
    average.load_state_dict(state["average"])
    if hasattr(method, "load_state_dict"):
        method.load_state_dict(state["method"])
    if rank() == 0:
        os.truncate(metrics, state["metrics_bytes"])  # lines of an epoch that was cut off
    log.info("resuming %s after epoch %d", run_dir.name, state["epoch"])
    return state["epoch"] + 1, state["seconds"]


def _about(learner: VideoLearner, config: Config, epochs: list[int], averaged: dict | None) -> dict:
    """What a checkpoint says of itself."""
    return {
        "averaged": averaged,
        "epochs": epochs,
        "weights": learner.weights_id,
        "classes": learner.class_names,
        "config": dict(config),
    }


def _claim(run_dir: Path, learner: VideoLearner, dataset, config: Config, facts: dict) -> None:
    """Write config.json, or refuse a folder that another configuration, CLIP, class set or code has made."""
    mine = {
        **facts,
        "config": config.run_settings(),
        "weights": learner.weights_id,
        "classes": list(dataset.class_names),
        "clips": len(dataset),
    }
    path = run_dir / "config.json"
    if not path.is_file():
        atomic_write(path, json.dumps(mine, indent=1) + "\n")
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    named = ["weights", "classes", "clips", *(["code"] if "code" in facts else [])]
    before, after = ({**one["config"], **{name: one.get(name) for name in named}} for one in (theirs, mine))
    changed = [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if changed:
        raise ValueError(f"run folder {run_dir} holds another run ({'; '.join(changed)}); choose another folder")


def query_pairs(batches: Iterable, pairing: str) -> Iterator[tuple]:
    """The (support, query) pairs of an epoch: the paper's `next` batch, or one of the study's controls."""
    if pairing == "next":
        return cross_batch_pairs(batches)
    if pairing == "same":
        return ((batch, batch) for batch in batches)
    turns = iter(batches)
    return zip(turns, turns, strict=True)


def disjoint_classes(dataset, batch_size: int, pairs: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches in turns for support and query, without a class in common: "known to open" made strict."""
    labels = torch.as_tensor(dataset.labels)
    classes = int(labels.max()) + 1
    if (fewest := torch.bincount(labels, minlength=classes).sort()[0][: classes // 2].sum()) < batch_size:
        raise ValueError(
            f"pairing is 'disjoint': half of the {classes} classes may have {fewest} clips only, fewer than "
            f"batch_size ({batch_size})"
        )
    for _ in range(pairs):
        support = torch.randperm(classes, generator=generator)[: classes // 2]
        inside = torch.isin(labels, support)
        for side in (inside, ~inside):
            clips = side.nonzero()[:, 0]
            yield clips[torch.randperm(len(clips), generator=generator)[:batch_size]].tolist()


def other_scenes(dataset, batch_size: int, pairs: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches in turns: support as it is, query with scenes assigned to motions otherwise, all of a batch alike."""
    assignments = getattr(dataset, "assignments", 1)
    if assignments == 1 or (clips := len(dataset) // assignments) < 2 * batch_size:
        raise ValueError("pairing is 'scenes': allowed on the synthetic world, with clips for two batches or more")
    for _ in range(pairs):
        support, query = torch.randperm(clips, generator=generator)[: 2 * batch_size].split(batch_size)
        other = torch.randint(1, assignments, (), generator=generator)
        yield from (support.tolist(), (query + other * clips).tolist())


class EpochBatches:
    """This process's share of the batches of one epoch, a function of (seed, epoch) alone, on the learner's device."""

    def __init__(self, dataset, config: Config, epoch: int, steps: int, pairing: str | None, num_workers: int, device):
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        generator = torch.Generator().manual_seed(_epoch_seed(config.seed, epoch))
        self.steps, self.device = steps, device
        common = {"generator": generator, "num_workers": num_workers, "collate_fn": default_collate}
        # Workers start anew in each epoch, 0.03 s for each: those that live on would not see a dataset's next epoch.
        common |= {"pin_memory": device.type == "cuda", "prefetch_factor": 4 if num_workers else None}
        if pairing in ("disjoint", "scenes"):
            if world_size() > 1:
                raise ValueError(f"pairing is {pairing!r}: allowed in one process only")
            self.steps, drawn = 2 * steps, disjoint_classes if pairing == "disjoint" else other_scenes
            batches = [*drawn(dataset, config.batch_size, steps, generator)]
            self.loader = DataLoader(dataset, batch_sampler=batches, **common)
            return
        order = RankShare(RandomSampler(dataset, generator=generator))
        self.loader = DataLoader(dataset, config.batch_size // world_size(), sampler=order, drop_last=True, **common)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, (video, labels) in zip(range(self.steps), self.loader):
            yield tuple(part.to(self.device, non_blocking=True) for part in (video, labels))


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch
