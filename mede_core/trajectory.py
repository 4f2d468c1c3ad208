"""A training run seen after the fact: what each epoch counts in an average, how far it moved, how well it does.

Every epoch's trainable tensors are on disk, so any average of them (GWA, SWA, EMA) is formed without retraining.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoints import trajectory
from .config import METHODS, Config
from .experiment import learner_for
from .files import progress
from .gwa import average_trajectory, gaussian_weights
from .learner import VideoLearner
from .notebook import run_weights
from .scoring import evaluate_world

RULES = ("gwa", "swa", "ema", "last")
EMA_DECAY = 0.9  # an epoch's; the value in the first author's earlier public script


def epoch_shares(
    rule: str, num_epochs: int, *, mu: float = 0.0, sigma: float = 0.0, decay: float = EMA_DECAY
) -> Tensor:
    """What each epoch counts in an average of the trajectory.

    Args:
        rule: ``gwa`` (Gaussian), ``swa`` (all alike), ``ema`` (exponential, begun at the first epoch's weights) or
            ``last``.
        num_epochs: E >= 1; epochs count from 1.
        mu, sigma: of ``gwa`` alone, in epochs.
        decay: of ``ema`` alone: what is kept of the average at each epoch, 0 <= decay < 1.

    Returns:
        float64 tensor [num_epochs] that sums to 1.

    Raises:
        ValueError: unknown rule, or a value out of range.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; allowed: {', '.join(RULES)}")
    if rule == "gwa":
        return gaussian_weights(num_epochs, mu, sigma)
    if isinstance(num_epochs, bool) or not isinstance(num_epochs, int) or num_epochs < 1:
        raise ValueError(f"num_epochs is {num_epochs!r}; allowed: an integer >= 1")
    if rule == "ema":
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay!r}; allowed: 0 <= decay < 1")
        kept = decay ** torch.arange(num_epochs - 1, -1, -1, dtype=torch.float64)
        kept[1:] *= 1 - decay
        return kept
    shares = torch.zeros(num_epochs, dtype=torch.float64)
    if rule == "last":
        shares[-1] = 1.0
    else:
        shares += 1 / num_epochs
    return shares


def effective_epochs(shares: Sequence[float] | Tensor) -> float:
    """How many epochs an average spreads over: 1 / sum of squared shares; E where all count alike, 1 for one epoch.

    Args:
        shares: non-negative numbers with a positive sum.

    Returns:
        1 .. len(shares).

    Raises:
        ValueError: a negative share, or none above 0.
    """
    values = np.asarray(shares, dtype=float)
    if values.size == 0 or not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise ValueError(f"shares is {values.tolist()}; allowed: finite numbers >= 0 with a sum > 0")
    values = values / values.sum()
    return float(1 / (values**2).sum())


def compare_rules(num_epochs: int, *, mu: float, sigma: float, decay: float = EMA_DECAY) -> list[dict]:
    """The averaging rules side by side.

    Args:
        num_epochs: E.
        mu, sigma: of GWA, in epochs.
        decay: of EMA.

    Returns:
        a row a rule: ``rule``, ``effective_epochs``, and in percent the shares of the ``first``, the ``heaviest`` and
        the ``last`` epoch; ``heaviest_epoch`` says which one it is.
    """
    rows = []
    for rule in RULES:
        shares = epoch_shares(rule, num_epochs, mu=mu, sigma=sigma, decay=decay)
        rows.append({
            "rule": rule, "effective_epochs": effective_epochs(shares), "first": 100 * shares[0].item(),
            "heaviest": 100 * shares.max().item(), "last": 100 * shares[-1].item(),
            "heaviest_epoch": int(shares.argmax()) + 1,
        })  # fmt: skip
    return rows


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest absolute difference of an entry between two sets of equally named tensors."""
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in {*one, *other})


def resolution(clips: int) -> float:
    """What an accuracy over so many clips can tell apart, in points: half of its widest 95 % interval.

    Args:
        clips: independent test clips, >= 1.

    Returns:
        points; from the binomial spread at 50 %, so it leaves out what another training seed would change.
    """
    return 100 * 1.96 * (0.25 / clips) ** 0.5


def run_config(run_dir: str | os.PathLike, **overrides) -> Config:
    """The configuration that a run folder was trained with.

    Args:
        run_dir: a finished run, as ``fit`` leaves it.
        overrides: fields that do not change training: ``test_clips``, ``gwa_mu``, ``gwa_sigma``.

    Returns:
        its configuration; the method is ``open_mede`` for a meta run, otherwise the one that trains in this way.

    Raises:
        ValueError: the folder holds no finished run, or one of an unknown form.
    """
    run_dir = Path(run_dir)
    missing = [name for name in ("config.json", "done.json") if not (run_dir / name).is_file()]
    if missing:
        raise ValueError(f"run_dir is {run_dir}: it lacks {', '.join(missing)}; allowed: the folder of a finished run")
    values = dict(json.loads((run_dir / "config.json").read_text(encoding="utf-8")).get("config", {}))
    kind = values.pop("trainer", None), values.pop("objective", "cross_entropy")
    methods = {(method.trainer, method.objective): name for name, method in METHODS.items()}  # open_mede: its last
    unknown = sorted(values.keys() - {field.name for field in fields(Config)})
    if kind not in methods or unknown:
        raise ValueError(f"run_dir is {run_dir}: trainer {kind[0]!r}, unknown fields {unknown}; was it made by `fit`?")
    return Config(**{**values, "method": methods[kind], **overrides})


def fresh_learner(run_dir: str | os.PathLike, config: Config, device: str = "cpu") -> VideoLearner:
    """The learner that a run began with: theta_0, on which its checkpoints are loaded.

    Args:
        run_dir: a finished run.
        config: its configuration, see :func:`run_config`.
        device: where it lives.

    Returns:
        the learner, in evaluation mode.

    Raises:
        ValueError: the run was trained on other CLIP weights than those at hand.
    """
    learner, trained_on = learner_for(config, device), run_weights(run_dir)
    if learner.weights_id != trained_on:
        raise ValueError(f"run_dir is {run_dir}, trained on CLIP {trained_on}; here is {learner.weights_id}")
    return learner


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """All tensors as one float64 vector, in the order of their names."""
    return torch.cat([tensors[name].detach().double().flatten() for name in sorted(tensors)])


def movement(checkpoints: Iterable[Mapping[str, Tensor]]) -> list[dict[str, float]]:
    """How far the weights moved, epoch by epoch.

    Args:
        checkpoints: {name: tensor} of epochs 1..E, read one at a time.

    Returns:
        a row an epoch: ``epoch``, ``moved`` (L2 distance from the epoch before; not a number for the first) and
        ``from_first`` (L2 distance from epoch 1).
    """
    rows, first, before = [], None, None
    for epoch, checkpoint in enumerate(checkpoints, start=1):
        now = flatten(checkpoint)
        first = now if first is None else first
        moved = float("nan") if before is None else float((now - before).norm())
        rows.append({"epoch": epoch, "moved": moved, "from_first": float((now - first).norm())})
        before = now
    return rows


def plane(checkpoints: Iterable[Mapping[str, Tensor]]) -> tuple[np.ndarray, float]:
    """The trajectory seen in the plane that shows most of it (its first two principal components).

    Args:
        checkpoints: {name: tensor} of epochs 1..E, E >= 2.

    Returns:
        ([E, 2] coordinates in weight units around their mean, share of the spread that the plane shows, 0..1). An
        average's place is the same average of the coordinates, since the projection is linear.

    Raises:
        ValueError: fewer than two checkpoints.
    """
    points = [flatten(checkpoint) for checkpoint in checkpoints]
    if len(points) < 2:
        raise ValueError(f"checkpoints holds {len(points)}; allowed: at least 2")
    stacked = torch.stack(points)
    left, scale, _ = torch.linalg.svd(stacked - stacked.mean(0), full_matrices=False)
    coordinates = (left * scale)[:, :2].numpy()
    if coordinates.shape[1] < 2 or len(points) == 2:
        coordinates = np.stack([coordinates[:, 0], np.zeros(len(points))], axis=1)
    signs = np.where(coordinates[-1] < coordinates[0], -1.0, 1.0)  # an SVD leaves signs open: run left to right, up
    spread = float(scale.square().sum())
    return coordinates * signs, float(scale[:2].square().sum()) / spread if spread else 1.0


def score_trajectory(
    run_dir: str | os.PathLike,
    config: Config,
    *,
    rules: Sequence[str] = ("gwa", "swa", "ema"),
    every_epoch: bool = True,
) -> list[dict]:
    """Accuracy of every epoch of a run and of averages over it, on the synthetic world's source set.

    Args:
        run_dir: a finished run on the synthetic world.
        config: its configuration, see :func:`run_config`; ``test_clips`` is for each half and background, ``gwa_mu``
            and ``gwa_sigma`` are those of the average.
        rules: averages to test, see :func:`epoch_shares`.
        every_epoch: test the epochs too; epoch 0 is the learner before training: frozen CLIP.

    Returns:
        records of ``evaluate_world``, without the per-clip bits, with ``rule`` (``epoch``, or one of ``rules``) and,
        for epochs, ``epoch``.

    Raises:
        ValueError: a run on other data, or on other CLIP weights than those at hand.
    """
    if config.data != "synthetic":
        raise ValueError(f"run_dir is {run_dir}, trained on {config.data}; allowed: a run on the synthetic world")
    learner, records = fresh_learner(run_dir, config), []

    def score(**facts):
        for row in evaluate_world(learner, config, **facts):
            records.append({key: value for key, value in row.items() if key != "correct"})

    if every_epoch:
        score(rule="epoch", epoch=0)
        checkpoints = progress(trajectory(run_dir, config.epochs), "scoring epochs", config.epochs)
        for epoch, tensors in enumerate(checkpoints, start=1):
            learner.load_trainable(tensors)
            score(rule="epoch", epoch=epoch)
    for rule in rules:
        shares = epoch_shares(rule, config.epochs, mu=config.mu, sigma=config.sigma)
        learner.load_trainable(average_trajectory(trajectory(run_dir, config.epochs), shares))
        score(rule=rule)
    return records


def in_and_out(records: Sequence[Mapping], *, split: str = "base") -> tuple[list[int], dict, dict]:
    """Accuracy along the trajectory, in context and out of context (the mean over the swapped backgrounds).

    Args:
        records: of :func:`score_trajectory`.
        split: ``base`` or ``novel``.

    Returns:
        (epochs 0..E, {"in": [E + 1], "out": [E + 1]}, {"GWA", "SWA", "EMA": {"in", "out"}}), in percent: the
        arguments of ``figures.trajectory_accuracy``.

    Raises:
        ValueError: no record of that split.
    """
    groups: dict[tuple, dict[str, list[float]]] = {}
    for row in records:
        if row["split"] == split:
            group = groups.setdefault((row["rule"], row.get("epoch")), {"in": [], "out": []})
            group["in" if row["context"] == "in" else "out"].append(row["value"])
    if not groups:
        raise ValueError(f"split is {split!r}; the records hold {sorted({row['split'] for row in records})}")
    means = {key: {name: float(np.mean(values)) for name, values in group.items()} for key, group in groups.items()}
    epochs = sorted(epoch for rule, epoch in means if rule == "epoch")
    accuracy = {name: [means["epoch", epoch][name] for epoch in epochs] for name in ("in", "out")}
    return epochs, accuracy, {rule.upper(): mean for (rule, _), mean in means.items() if rule != "epoch"}


def against_last(records: Sequence[Mapping]) -> list[dict]:
    """What each average gains over the last epoch of its own training.

    Args:
        records: of :func:`score_trajectory`.

    Returns:
        a row a rule and split: ``rule``, ``split``, ``in`` and ``out``: points, below zero where the last epoch
        is better.
    """
    rows = []
    for split in dict.fromkeys(row["split"] for row in records):
        _, accuracy, averages = in_and_out(records, split=split)
        for rule, scores in averages.items():
            gains = {name: scores[name] - accuracy[name][-1] for name in ("in", "out")}
            rows.append({"rule": rule, "split": split, **gains})
    return rows
