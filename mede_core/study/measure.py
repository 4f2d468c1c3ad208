"""Measures the study's units: trains what is missing, takes the tests, adds each unit's line as soon as it is there.

Each test gives numbers under a key, see ``store.FIELDS``.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..attention import static_bias
from ..config import EvalSet
from ..lab.diagnostics import inner_step_losses
from ..learner import VideoLearner
from ..meta import meta_gradients
from ..methods import cross_entropy
from ..report.costs import measure_costs
from ..report.metrics import pack_correct
from ..runs import Run, trains
from ..scoring import evaluate
from ..weights import weights_hash
from ..workspace import Workspace
from ..world.pretrain import pretrain
from ..world.synthetic import ClipSet, World, test_clips, training_clips
from .store import FIELDS, FOLDER, add_line, is_missing, line_of, records_of
from .units import PRETRAINED, TRAINED, Unit, averages, eval_sets

log = logging.getLogger(__name__)

LOOK_CLIPS, LEAST_CLIPS = 576, 72  # of all classes together, of which there are 72
COST_ROUNDS = 20
PREDICTION_PAIRS, PREDICTION_ALPHAS = 16, (0.05, 0.5, 5.0)
TRAINING = {"set": "train", "split": "base", "part": 1, "context": "in"}  # of numbers that training clips give

Numbers = dict[str, list]


def pretrain_clips() -> None:
    """Pretrain the CLIPs of the sections ``encoders`` and ``second_world``, as far as they are not there."""
    for folder, settings in PRETRAINED.items():
        if not (Path(folder) / "training.json").is_file():  # written last
            pretrain(folder, steps=2000, **settings)


def run_unit(unit: Unit, workspace: Workspace, folder: str | os.PathLike = FOLDER, *, retrain: bool = False) -> bool:
    if not is_missing(unit, folder, retrain=retrain):
        return False
    add_line(line_of_unit(unit, workspace), folder)
    log.info("%s, %s, seed %d: %s", unit.section, unit.variant, unit.config.seed, ", ".join(unit.tests))
    return True


def measure_here(units: Sequence[Unit], workspace: Workspace, *, by: str = "method") -> list[dict]:
    """Flat result records of units of any configuration: a notebook's fresh run, of which the study keeps nothing."""
    return records_of([line_of_unit(unit, workspace, timed=False) for unit in units], by=by)


@dataclass(frozen=True)
class Trained:
    unit: Unit
    workspace: Workspace

    @cached_property
    def learner(self) -> VideoLearner:
        return self.workspace.learner(self.unit.config)

    @cached_property
    def run(self) -> Run | None:
        return self.workspace.run(self.unit.config) if trains(self.unit.config) else None

    @property
    def training_clips(self) -> ClipSet:
        return training_clips(self.unit.config, self.learner.image_size)

    def looked_at(self, context: str) -> ClipSet:
        count = max(LEAST_CLIPS, min(LOOK_CLIPS, self.unit.config.test_clips))
        return test_clips(self.unit.config, EvalSet(half="all", context=context, clips=count), self.learner.image_size)


def line_of_unit(unit: Unit, workspace: Workspace, *, timed: bool = True) -> dict:
    """Take a unit's tests: its line for the study's store. ``timed`` asks for its run, whose seconds the line keeps."""
    trained, numbers = Trained(unit, workspace), {}
    for test in unit.tests:
        if sets := eval_sets(test, unit.config):
            numbers |= _numbers(workspace.scores(unit.config, sets))
        for average, sets in averages(test, unit.config):
            single = average.rule == "epoch" or average.name.startswith("grid:")
            numbers |= _numbers(workspace.scores(unit.config, sets, average), bits=not single)
        if test in MEASURED:
            numbers |= MEASURED[test](trained)
    config, run = unit.config, trained.run if timed else None
    weights = weights_hash(config.model, config.weights, config.random_weights)
    seconds = run.facts["seconds"] if run else None
    return line_of(unit, numbers, run=workspace.run_name(config), weights=weights, seconds=seconds)


def _number(value: float, n: int, *bits: str, digits: int = 4, **where) -> Numbers:
    """A number under its key; what is not given of that is empty."""
    return {"/".join(str(where.get(name, "")) for name in FIELDS): [round(float(value), digits), n, *bits]}


def _numbers(records: Iterable[Mapping], *, bits: bool = True) -> Numbers:
    found = {}
    for one in records:
        metric = one["metric"] if one["order"] == "forward" else one["order"]
        where = {name: one[name] for name in FIELDS} | {"metric": metric}
        found |= _number(one["value"], one["n"], *([one["correct"]] if bits else []), **where)
    return found


# ------------------------------------------------------------------------------------ on the learner itself
def _reversal(t: Trained) -> Numbers:
    """Clips and their exact reversals before the same background: a learner blind to order has at most half right."""
    clips = t.looked_at("scene")
    right = [evaluate(t.learner, one).correct for one in (clips, clips.reversed())]
    where = {"set": "reversal", "split": "all", "part": 1, "context": "scene"}
    halves = _number(np.mean(right) * 100, 2 * len(clips), metric="top1", **where)
    return halves | _number(np.mean(right[0] & right[1]) * 100, len(clips), metric="both_of_a_pair", **where)


def _training_fit(t: Trained) -> Numbers:
    result = evaluate(t.learner, t.training_clips)
    return _number(result.top1, len(result.labels), pack_correct(result.correct), metric="top1", **TRAINING)


def _look(t: Trained) -> Numbers:
    found = {}
    for context in ("in", "scene"):
        clips, where = t.looked_at(context), {"set": "look", "split": "all", "part": 1, "context": context}
        for metric, value in asdict(static_bias(t.learner, clips)).items():
            found |= _number(value, len(clips), metric=metric, **where)
    return found


def _steps(t: Trained) -> Numbers:
    """Means over each epoch of a meta run: losses, and the product of its two gradients as a cosine."""
    frame, found = t.run.metrics(), {}
    frame["cosine"] = frame["grad_inner_product"] / (frame["support_grad_norm"] * frame["query_grad_norm"])
    for epoch, rows in frame.groupby("epoch"):
        for metric in ("support_loss", "query_loss", "grad_inner_product", "cosine"):
            where = {**TRAINING, "metric": metric, "part": epoch}
            found |= _number(rows[metric].mean(), len(rows), digits=6, **where)
    return found


def _prediction(t: Trained) -> Numbers:
    """By how much an inner step changes the query loss, along the trajectory: measured, and to first order in alpha."""
    # To first order L_Q(theta - alpha g_S) - L_Q(theta) = -alpha <g_S, g_Q>: what cross-batch training lowers beyond
    # joint training is, in expectation, this product (half of what MAML's second-order term rewards).
    config, clips, learner, found = t.unit.config, t.training_clips, t.workspace.learner(t.unit.config), {}
    learner.set_classes(clips.class_names)
    draws = np.random.default_rng([config.seed, 99]).permutation(len(clips))
    batches = [torch.from_numpy(draws[i : i + config.batch_size]) for i in range(0, len(draws), config.batch_size)]
    pairs = list(zip(batches[0::2], batches[1::2]))[:PREDICTION_PAIRS]
    for epoch, tensors in enumerate(t.run.trajectory(), start=1):
        learner.load_trainable(tensors)
        sums: dict[tuple[str, float], float] = {}
        for support, query in pairs:
            s, q = ((clips.videos[index], clips.labels[index]) for index in (support, query))
            product = meta_gradients(learner, cross_entropy, s, q, inner_lr=0.0).grad_inner_product
            before, *after = inner_step_losses(learner, cross_entropy, s, q, (0.0, *PREDICTION_ALPHAS))
            for row in after:
                alpha, change = row["inner_lr"], row["query_loss"] - before["query_loss"]
                for metric, value in (("change_measured", change), ("change_predicted", -alpha * product)):
                    sums[metric, alpha] = sums.get((metric, alpha), 0.0) + value / len(pairs)
        for (metric, alpha), value in sums.items():
            where = {**TRAINING, "metric": metric, "part": epoch, "average": f"{alpha:g}"}
            found |= _number(value, len(pairs), digits=6, **where)
    return found


def _cost(t: Trained) -> Numbers:
    """Median time of a training step of each method, in turns in one process, so that other load hits all alike."""
    config = t.unit.config
    classes = len(World(config.world_seed, config.home_seed).class_names(half="base"))
    configs = {method: config.replace(method=method) for method in TRAINED}
    timed = measure_costs(configs, steps=COST_ROUNDS, classes=classes)
    where, found = {"metric": "step_seconds", **TRAINING}, {}
    for name, one in timed.items():
        found |= _number(one.seconds_per_step, one.steps, digits=6, **where, average=name)
    return found


MEASURED: dict[str, Callable[[Trained], Numbers]] = {
    "reversal": _reversal, "training_fit": _training_fit, "look": _look, "steps": _steps, "prediction": _prediction,
    "cost": _cost,
}  # fmt: skip
