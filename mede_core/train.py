"""Training: ``fit`` runs plain or cross-batch meta-optimization and keeps the trajectory, one checkpoint an epoch.

A run folder holds config.json, metrics.jsonl (a line a step), epoch_NNN.safetensors (the trajectory), gwa.safetensors
(the online average), state.pt (what a resume needs) and done.json. state.pt is replaced last in each epoch, so a run
killed at any moment goes on from the last finished epoch and ends with the same bits.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from .config import METHODS, Config
from .gwa import GaussianWeightAverage, average_trajectory, gaussian_weights
from .learner import VideoLearner, load_checkpoint, save_checkpoint
from .meta import cross_batch_pairs, meta_step
from .runs import atomic_path, atomic_write, progress, run_lock

log = logging.getLogger(__name__)


def cross_entropy(learner: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The paper's base loss L_CE: cross-entropy over the similarities of clips and class texts.

    Args:
        learner: gives logits [B, K].
        batch: (video [B, T, 3, H, W], labels [B]).

    Returns:
        scalar loss, mean over clips.
    """
    video, labels = batch
    return F.cross_entropy(learner(video), labels)


def plain_step(
    model: nn.Module, loss_fn: Callable, batch, optimizer: torch.optim.Optimizer, max_grad_norm: float
) -> dict:
    """One ordinary optimizer step: the baseline that the meta-step is compared with.

    Args:
        model: any module.
        loss_fn: loss_fn(model, batch) -> scalar tensor.
        batch: opaque.
        optimizer: over the model's trainable parameters.
        max_grad_norm: the gradient is clipped to this L2 norm.

    Returns:
        {"support_loss", "support_grad_norm"} as floats.

    Raises:
        FloatingPointError: the loss is not finite; the optimizer was not touched.
    """
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"support_loss is {value}; the weights were not changed")
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return {"support_loss": value, "support_grad_norm": norm.item()}


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up from 1 % of the peak, then cosine down to 1 % of it (Open-VCLIP's published schedule).

    Args:
        step: 0 .. total - 1.
        total: steps of the run.
        warmup: steps of warm-up.
        peak: learning rate at the end of the warm-up.

    Returns:
        the learning rate of that step.
    """
    floor = 0.01 * peak
    if step < warmup:
        return floor + (peak - floor) * step / warmup
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases and 1-d tensors get no weight decay (the peers' rule)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.outer_lr)


def fit(
    learner: VideoLearner,
    dataset: Dataset,
    config: Config,
    run_dir: str | os.PathLike,
    *,
    num_workers: int = 0,
) -> Path:
    """Train a learner, or load what an earlier call with the same configuration has done.

    Args:
        learner: fresh learner; its classes are set to the dataset's. It ends with the last epoch's weights.
        dataset: items (video [T, 3, H, W], label), with ``class_names``.
        config: the experiment; ``config.method`` decides between the plain and the meta-step.
        run_dir: the run folder; a finished run is loaded, an unfinished one goes on, another run's is an error.
        num_workers: of the data loader.

    Returns:
        the run folder.

    Raises:
        ValueError: too few clips for the batch size, the method does not train, or the folder holds another run.
        FloatingPointError: a loss that is not finite, with the epoch and step; the last checkpoint is kept.
    """
    trainer = METHODS[config.method].trainer
    if trainer == "none":
        raise ValueError(f"method {config.method!r} does not train")
    batches = len(dataset) // config.batch_size
    steps = min(batches, config.steps_per_epoch or batches)
    least = 2 if trainer == "meta" else 1
    if steps < least:
        raise ValueError(
            f"{len(dataset)} clips in batches of {config.batch_size} (batch_size), steps_per_epoch="
            f"{config.steps_per_epoch}, give {steps} full batches an epoch; {config.method} needs at least {least}"
        )
    learner.set_classes(dataset.class_names)
    run_dir = Path(run_dir)
    with run_lock(run_dir):
        _claim(run_dir, learner, dataset, config)
        if (run_dir / "done.json").is_file():
            learner.load_trainable(load_checkpoint(checkpoint_path(run_dir, config.epochs))[0])
            return run_dir
        return _train(learner, dataset, config, run_dir, trainer, steps, num_workers)


def _train(learner, dataset, config: Config, run_dir: Path, trainer: str, steps: int, num_workers: int) -> Path:
    optimizer = build_optimizer(learner, config)
    average = GaussianWeightAverage(learner, config.mu, config.sigma)
    first, seconds = _resume(learner, optimizer, average, run_dir)
    device = learner.logit_scale.device
    total, warmup = steps * config.epochs, steps * config.warmup_epochs
    learner.train()
    for epoch in range(first, config.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(_epoch_seed(config.seed, epoch))  # a resumed epoch draws what an uninterrupted one would
        loader = _Epoch(dataset, config, epoch, steps, num_workers, device)
        batches = cross_batch_pairs(loader) if trainer == "meta" else iter(loader)
        with open(run_dir / "metrics.jsonl", "a", encoding="utf-8") as metrics:
            for index, batch in enumerate(progress(batches, f"epoch {epoch}/{config.epochs}", steps)):
                step = (epoch - 1) * steps + index
                rate = learning_rate(step, total, warmup, config.outer_lr)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                try:
                    record = _step(learner, batch, optimizer, config, trainer)
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"epoch {epoch}, step {step}: {error}; epochs before it are kept"
                    ) from error
                metrics.write(json.dumps({"epoch": epoch, "step": step, "lr": rate, **record}) + "\n")
            metrics.flush()
            os.fsync(metrics.fileno())
        average.update(learner, epoch)
        save_checkpoint(
            checkpoint_path(run_dir, epoch), learner.trainable_state(), _facts(learner, config, [epoch], None)
        )
        seconds += time.perf_counter() - started
        with atomic_path(run_dir / "state.pt") as temporary:
            torch.save(
                {
                    "epoch": epoch,
                    "optimizer": optimizer.state_dict(),
                    "average": average.state_dict(),
                    "metrics_bytes": (run_dir / "metrics.jsonl").stat().st_size,
                    "seconds": seconds,
                },
                temporary,
            )
    epochs = list(range(1, config.epochs + 1))
    facts = _facts(learner, config, epochs, {"name": "gwa", "mu": config.mu, "sigma": config.sigma})
    save_checkpoint(run_dir / "gwa.safetensors", average.averaged(), facts)
    done = {
        "epochs": config.epochs,
        "steps": total,
        "batches_seen": total * (2 if trainer == "meta" else 1),
        "seconds": round(seconds, 2),
        "weights": learner.weights_id,
    }
    atomic_write(run_dir / "done.json", json.dumps(done, indent=1) + "\n")
    learner.eval()
    return run_dir


def _step(learner, batch, optimizer, config: Config, trainer: str) -> dict:
    if trainer == "plain":
        return plain_step(learner, cross_entropy, batch, optimizer, config.max_grad_norm)
    support, query = batch
    result = meta_step(
        learner,
        cross_entropy,
        support,
        query,
        optimizer,
        inner_lr=config.inner_lr,
        query_weight=config.query_weight,
        first_order=config.first_order,
        max_grad_norm=config.max_grad_norm,
    )
    names = ("support_loss", "query_loss", "support_grad_norm", "query_grad_norm", "grad_inner_product")
    return {name: float(getattr(result, name)) for name in names}


class _Epoch:
    """The batches of one epoch, a function of (seed, epoch) alone, on the learner's device."""

    def __init__(self, dataset, config: Config, epoch: int, steps: int, num_workers: int, device: torch.device):
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        generator = torch.Generator().manual_seed(_epoch_seed(config.seed, epoch))
        self.steps, self.device = steps, device
        self.loader = DataLoader(
            dataset,
            config.batch_size,
            shuffle=True,
            drop_last=True,
            generator=generator,
            num_workers=num_workers,
            collate_fn=default_collate,
        )

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


def _resume(learner, optimizer, average, run_dir: Path) -> tuple[int, float]:
    """Load the last finished epoch, if any; returns (the next epoch, seconds spent so far)."""
    state_path, metrics = run_dir / "state.pt", run_dir / "metrics.jsonl"
    if not state_path.is_file():
        metrics.unlink(missing_ok=True)
        return 1, 0.0
    state = torch.load(state_path, weights_only=True, map_location=learner.logit_scale.device)
    learner.load_trainable(load_checkpoint(checkpoint_path(run_dir, state["epoch"]))[0])
    optimizer.load_state_dict(state["optimizer"])
    average.load_state_dict(state["average"])
    os.truncate(metrics, state["metrics_bytes"])  # lines of an epoch that was cut off
    log.info("resuming %s after epoch %d", run_dir.name, state["epoch"])
    return state["epoch"] + 1, state["seconds"]


def checkpoint_path(run_dir: str | os.PathLike, epoch: int) -> Path:
    """File of an epoch's trainable tensors."""
    return Path(run_dir) / f"epoch_{epoch:03d}.safetensors"


def trajectory(run_dir: str | os.PathLike, epochs: int) -> Iterator[dict[str, Tensor]]:
    """Yield the trainable tensors of epochs 1..epochs, one at a time, from disk."""
    for epoch in range(1, epochs + 1):
        yield load_checkpoint(checkpoint_path(run_dir, epoch))[0]


def method_weights(run_dir: str | os.PathLike, config: Config) -> dict[str, Tensor]:
    """The trainable tensors that a method is evaluated with.

    Args:
        run_dir: a finished run.
        config: names the method, and mu and sigma of GWA, which is formed post hoc from the trajectory.

    Returns:
        {name: tensor}.

    Raises:
        ValueError: the run is not finished.
    """
    if not (Path(run_dir) / "done.json").is_file():
        raise ValueError(f"run {run_dir} is not finished; train it first (10_train, or fit)")
    if METHODS[config.method].average == "gwa":
        return average_trajectory(
            trajectory(run_dir, config.epochs), gaussian_weights(config.epochs, config.mu, config.sigma)
        )
    return load_checkpoint(checkpoint_path(run_dir, config.epochs))[0]


def _facts(learner: VideoLearner, config: Config, epochs: list[int], averaged: dict | None) -> dict:
    return {
        "averaged": averaged,
        "epochs": epochs,
        "training_hash": config.training_hash(),
        "weights": learner.weights_id,
        "classes": learner.class_names,
        "config": {k: v for k, v in asdict(config).items() if k != "test_clips"},
    }
