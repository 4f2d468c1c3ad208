"""Training: ``fit`` runs a method's steps and keeps the trajectory, one checkpoint an epoch.

A run folder holds config.json, metrics.jsonl (a line a step), epoch_NNN.safetensors (the trajectory), gwa.safetensors
(the online average), state.pt (what a resume needs) and done.json. state.pt is replaced last in each epoch, so a run
killed at any moment goes on from the last finished epoch and ends with the same bits.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, default_collate

from .checkpoints import checkpoint_path, load_checkpoint, save_checkpoint
from .config import METHODS, Config
from .distributed import RankShare, rank, wait_for_all, world_size
from .files import atomic_path, atomic_write, progress, run_lock
from .gwa import GaussianWeightAverage
from .learner import VideoLearner
from .meta import cross_batch_pairs
from .objectives import ResidualDistillation, cross_entropy, in_precision, smaller_pieces
from .steps import build_optimizer, learning_rate, method_step
from .video.prompts import load_prompts

log = logging.getLogger(__name__)


def fit(
    learner: VideoLearner,
    dataset: Dataset,
    config: Config,
    run_dir: str | os.PathLike,
    *,
    teacher: VideoLearner | None = None,
    num_workers: int = 0,
) -> Path:
    """Train a learner, or load what an earlier call with the same configuration has done.

    Under torchrun every process calls it; together they do what one process does, and rank 0 writes.

    Args:
        learner: fresh learner; its classes are set to the dataset's. It ends with the last epoch's weights.
        dataset: items (video [T, 3, H, W], label), with ``class_names``.
        config: the experiment; ``config.method`` decides on the step and the objective.
        run_dir: the run folder; a finished run is loaded, an unfinished one goes on, another run's is an error.
        teacher: frozen CLIP without a temporal module, for methods that distill.
        num_workers: of the data loader.

    Returns:
        the run folder.

    Raises:
        ValueError: too few clips for the batch size, the method does not train, or the folder holds another run.
        FloatingPointError: a loss that is not finite, with the epoch and step; the last checkpoint is kept.
    """
    method = METHODS[config.method]
    if method.trainer == "none":
        raise ValueError(f"method {config.method!r} does not train")
    if method.objective == "distilled" and teacher is None:
        raise ValueError(f"method {config.method!r} distills: it needs a teacher, frozen CLIP")
    if config.batch_size % world_size():
        raise ValueError(f"batch_size is {config.batch_size}; it must be a multiple of the {world_size()} processes")
    batches = len(dataset) // config.batch_size
    steps = min(batches, config.steps_per_epoch or batches)
    least = 2 if method.trainer == "meta" else 1
    if steps < least:
        raise ValueError(
            f"{len(dataset)} clips in batches of {config.batch_size} (batch_size), steps_per_epoch="
            f"{config.steps_per_epoch}, give {steps} full batches an epoch; {config.method} needs at least {least}"
        )
    learner.set_classes(dataset.class_names, texts=load_prompts(config.prompts).texts(dataset.class_names))
    run_dir = Path(run_dir)
    with run_lock(run_dir) if rank() == 0 else nullcontext():
        if rank() == 0:
            _claim(run_dir, learner, dataset, config)
        wait_for_all()
        if (run_dir / "done.json").is_file():
            learner.load_trainable(load_checkpoint(checkpoint_path(run_dir, config.epochs))[0])
        else:
            _train(learner, dataset, config, run_dir, steps, teacher, num_workers)
        wait_for_all()
    return run_dir


def method_loss(learner: VideoLearner, config: Config, teacher: VideoLearner | None) -> nn.Module | None:
    """The module that a method trains beside the learner: FROSTER's projector; None for the others."""
    if METHODS[config.method].objective != "distilled":
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        loss = ResidualDistillation(teacher, learner.embed_dim, config.distill_weight)
    return loss.to(learner.logit_scale.device)


def _train(learner, dataset, config: Config, run_dir: Path, steps: int, teacher, num_workers: int) -> None:
    beside = method_loss(learner, config, teacher)
    loss_fn = in_precision(smaller_pieces(beside or cross_entropy, config.micro_batch), config.precision)
    anchor = {name: tensor.clone() for name, tensor in learner.trainable_state().items()}  # theta_0: CLIP
    optimizer = build_optimizer(learner, config, *([beside] if beside else []))
    average = GaussianWeightAverage(learner, config.mu, config.sigma)
    first, seconds = _resume(learner, optimizer, average, beside, run_dir)
    meta = METHODS[config.method].trainer == "meta"
    total, warmup = steps * config.epochs, steps * config.warmup_epochs
    learner.train()
    for epoch in range(first, config.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(_epoch_seed(config.seed, epoch))  # a resumed epoch draws what an uninterrupted one would
        draws = torch.Generator().manual_seed(_epoch_seed(config.seed, epoch))
        loader = _Epoch(dataset, config, epoch, steps, num_workers, learner.logit_scale.device)
        batches = query_pairs(loader, config.pairing) if meta else iter(loader)
        with _metrics(run_dir) as metrics:
            for index, batch in enumerate(progress(batches, f"epoch {epoch}/{config.epochs}", steps)):
                step = (epoch - 1) * steps + index
                rate = learning_rate(step, total, warmup, config.outer_lr)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                try:
                    record = method_step(learner, loss_fn, batch, optimizer, config, anchor=anchor, generator=draws)
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"epoch {epoch}, step {step}: {error}; epochs before it are kept"
                    ) from error
                metrics.write(json.dumps({"epoch": epoch, "step": step, "lr": rate, **record}) + "\n")
            if rank() == 0:
                metrics.flush()
                os.fsync(metrics.fileno())
        average.update(learner, epoch)
        seconds += time.perf_counter() - started
        if rank() == 0:
            _save_epoch(run_dir, epoch, learner, config, optimizer, average, beside, seconds)
    learner.eval()
    if rank() == 0:
        _finish(run_dir, learner, config, average, total, seconds)


def _metrics(run_dir: Path):
    """Rank 0 writes the metrics: the losses of its share of the batches."""
    return open(run_dir / "metrics.jsonl" if rank() == 0 else os.devnull, "a", encoding="utf-8")


def _save_epoch(run_dir, epoch, learner, config, optimizer, average, beside, seconds: float) -> None:
    facts = _facts(learner, config, [epoch], None)
    save_checkpoint(checkpoint_path(run_dir, epoch), learner.trainable_state(), facts)
    with atomic_path(run_dir / "state.pt") as temporary:
        torch.save(
            {
                "epoch": epoch,
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "beside": beside.state_dict() if beside else {},
                "metrics_bytes": (run_dir / "metrics.jsonl").stat().st_size,
                "seconds": seconds,
            },
            temporary,
        )


def _finish(run_dir: Path, learner, config: Config, average, total: int, seconds: float) -> None:
    epochs = list(range(1, config.epochs + 1))
    facts = _facts(learner, config, epochs, {"name": "gwa", "mu": config.mu, "sigma": config.sigma})
    save_checkpoint(run_dir / "gwa.safetensors", average.averaged(), facts)
    passes = 2 if METHODS[config.method].trainer == "meta" else 1
    done = {
        "epochs": config.epochs,
        "steps": total,
        "batches_seen": total * passes,
        "seconds": round(seconds, 2),
        "weights": learner.weights_id,
    }
    atomic_write(run_dir / "done.json", json.dumps(done, indent=1) + "\n")


def query_pairs(batches: Iterable, pairing: str) -> Iterator[tuple]:
    """The (support, query) pairs of an epoch: the paper's next batch, or one of the study's controls.

    Args:
        batches: of an epoch; for ``disjoint`` support and query in turns, see :class:`DisjointClasses`.
        pairing: ``next``, ``same`` (the support batch is its own query) or ``disjoint``.

    Returns:
        an iterator of pairs.
    """
    if pairing == "next":
        return cross_batch_pairs(batches)
    if pairing == "same":
        return ((batch, batch) for batch in batches)
    turns = iter(batches)
    return zip(turns, turns, strict=True)


class DisjointClasses(Sampler):
    """Batches in turns for support and query, without a class in common: "known to open" made strict.

    Each pair splits the classes anew at random, in halves; clips are drawn without replacement within a batch.

    Args:
        labels: [N] of the dataset.
        batch_size: clips of a batch.
        pairs: support batches of an epoch.
        generator: of the draws.

    Raises:
        ValueError: half of the classes may have too few clips to fill a batch.
    """

    def __init__(self, labels: Tensor, batch_size: int, pairs: int, generator: torch.Generator):
        self.labels, self.batch_size, self.pairs, self.generator = labels, batch_size, pairs, generator
        self.classes = int(labels.max()) + 1
        fewest = torch.bincount(labels, minlength=self.classes).sort()[0][: self.classes // 2].sum()
        if fewest < batch_size:
            raise ValueError(
                f"pairing is 'disjoint': half of the {self.classes} classes may have {fewest} clips only, fewer than "
                f"batch_size ({batch_size})"
            )

    def __len__(self) -> int:
        return 2 * self.pairs

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.pairs):
            support = torch.randperm(self.classes, generator=self.generator)[: self.classes // 2]
            inside = torch.isin(self.labels, support)
            for side in (inside, ~inside):
                clips = side.nonzero()[:, 0]
                yield clips[torch.randperm(len(clips), generator=self.generator)[: self.batch_size]].tolist()


class _Epoch:
    """This process's share of the batches of one epoch, a function of (seed, epoch) alone, on the learner's device."""

    def __init__(self, dataset, config: Config, epoch: int, steps: int, num_workers: int, device: torch.device):
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        generator = torch.Generator().manual_seed(_epoch_seed(config.seed, epoch))
        self.steps, self.device = steps, device
        common = {"generator": generator, "num_workers": num_workers, "collate_fn": default_collate}
        if METHODS[config.method].trainer == "meta" and config.pairing == "disjoint":
            if world_size() > 1:
                raise ValueError("pairing is 'disjoint': allowed in one process only")
            self.steps = 2 * steps
            batches = DisjointClasses(torch.as_tensor(dataset.labels), config.batch_size, steps, generator)
            self.loader = DataLoader(dataset, batch_sampler=batches, **common)
            return
        order = RankShare(RandomSampler(dataset, generator=generator))
        self.loader = DataLoader(dataset, config.batch_size // world_size(), sampler=order, drop_last=True, **common)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, (video, labels) in zip(range(self.steps), self.loader):
            yield video.to(self.device), labels.to(self.device)


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch


def _claim(run_dir: Path, learner: VideoLearner, dataset, config: Config) -> None:
    """Write config.json, or refuse a folder that another configuration, CLIP or class set has made."""
    mine = {
        "config": config.training_fields(),
        "weights": learner.weights_id,
        "classes": list(dataset.class_names),
        "clips": len(dataset),
    }
    path = run_dir / "config.json"
    if not path.is_file():
        atomic_write(path, json.dumps(mine, indent=1) + "\n")
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{key}: {theirs.get(key)!r} -> {mine[key]!r}"
        for key in ("weights", "classes", "clips")
        if theirs.get(key) != mine[key]
    ]
    before, after = theirs.get("config", {}), mine["config"]
    changed += [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise ValueError(f"run folder {run_dir} holds another run ({'; '.join(changed)}); choose another folder")


def _resume(learner, optimizer, average, beside: nn.Module | None, run_dir: Path) -> tuple[int, float]:
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
    if beside:
        beside.load_state_dict(state["beside"])
    if rank() == 0:
        os.truncate(metrics, state["metrics_bytes"])  # lines of an epoch that was cut off
    log.info("resuming %s after epoch %d", run_dir.name, state["epoch"])
    return state["epoch"] + 1, state["seconds"]


def _facts(learner: VideoLearner, config: Config, epochs: list[int], averaged: dict | None) -> dict:
    return {
        "averaged": averaged,
        "epochs": epochs,
        "training_hash": config.training_hash(),
        "weights": learner.weights_id,
        "classes": learner.class_names,
        "config": {k: v for k, v in config if k != "test_clips"},
    }
