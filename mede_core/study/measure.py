"""Measures the study's units: trains what is missing, takes the tests, adds each unit's line as soon as it is there."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ..attention import causal_effects, static_bias
from ..config import Config, EvalSet
from ..lab.cues import scene_share, votes
from ..lab.diagnostics import inner_step_losses
from ..meta import meta_gradients
from ..methods import cross_entropy
from ..report.costs import measure_costs
from ..report.metrics import pack_correct
from ..runs import trains
from ..scoring import evaluate
from ..weights import weights_hash
from ..workspace import Workspace
from ..world.pretrain import pretrain
from ..world.synthetic import World, before, test_clips, training_clips
from .store import FIELDS, FOLDER, add_line, is_missing, line_of, records_of
from .units import PRETRAINED, TRAINED, Unit, averages, each_average, eval_sets

log = logging.getLogger(__name__)

LOOK_CLIPS, LEAST_CLIPS = 576, 72  # of all classes together, of which there are 72
COST_ROUNDS = 20
PREDICTION_PAIRS, PREDICTION_ALPHAS = 16, (0.05, 0.5, 5.0)
TRAINING = {"set": "train", "split": "base", "part": 1, "context": "in", "digits": 6}  # of what training clips give


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
    return records_of([line_of_unit(unit, workspace, fresh=True) for unit in units], by=by)


def line_of_unit(unit: Unit, workspace: Workspace, *, fresh: bool = False) -> dict:
    """A unit's tests as a line of the store; a ``fresh`` one is a single seed, whose intervals need the clips' bits."""
    config, numbers = unit.config, {}
    for test in unit.tests:
        if sets := eval_sets(test, config):
            numbers |= _numbers(workspace.scores(config, sets), bits=fresh)
        for average, sets in averages(test, config):
            numbers |= _numbers(workspace.scores(config, sets, average), bits=fresh)
        if test in MEASURED:
            numbers |= _numbers(MEASURED[test](config, workspace), bits=fresh)
    run, weights = workspace.run_name(config), weights_hash(config.model, config.weights, config.random_weights)
    seconds = workspace.run(config).facts["seconds"] if trains(config) and not fresh else None
    return line_of(unit, numbers, run=run, weights=weights, seconds=seconds, device=workspace.device)


def _numbers(records: Iterable[Mapping], *, bits: bool) -> dict[str, list]:
    """Records as the store keeps them: a number under its key, where what is not given of that is empty."""
    found = {}
    for one in records:
        where = one if one.get("order", "forward") == "forward" else {**one, "metric": one["order"]}
        kept = [one["correct"]] if bits and "correct" in one else []
        value = round(float(one["value"]), one.get("digits", 4))
        found["/".join(str(where.get(name, "")) for name in FIELDS)] = [value, one["n"], *kept]
    return found


# ------------------------------------------------------------------------------------ on the learner itself
def _looked_at(config: Config, context: str, size: int):
    """Clips of all classes, and where their numbers stand."""
    count = max(LEAST_CLIPS, min(LOOK_CLIPS, config.test_clips))
    clips = test_clips(config, EvalSet(half="all", context=context, clips=count), size)
    return clips, {"split": "all", "part": 1, "context": context, "n": len(clips)}


def _reversal(config: Config, workspace: Workspace) -> list[dict]:
    """Clips and their exact reversals before the same background: a learner blind to order has at most half right."""
    learner = workspace.learner(config)
    clips, where = _looked_at(config, "scene", learner.image_size)
    right = [evaluate(learner, one).correct for one in (clips, clips.reversed())]
    halves = {**where, "set": "reversal", "metric": "top1", "value": np.mean(right) * 100, "n": 2 * len(clips)}
    both = np.mean(right[0] & right[1]) * 100
    return [halves, {**where, "set": "reversal", "metric": "both_of_a_pair", "value": both}]


def _training_fit(config: Config, workspace: Workspace) -> list[dict]:
    learner = workspace.learner(config)
    result = evaluate(learner, training_clips(config, learner.image_size))
    numbers = {"value": result.top1, "n": len(result.labels), "correct": pack_correct(result.correct)}
    return [{**TRAINING, "metric": "top1", **numbers}]


def _look(config: Config, workspace: Workspace) -> list[dict]:
    learner, found = workspace.learner(config), []
    for context in ("in", "scene"):
        clips, where = _looked_at(config, context, learner.image_size)
        measures = asdict(static_bias(learner, clips)).items()
        found += [{**where, "set": "look", "metric": metric, "value": value} for metric, value in measures]
    return found


def _cues(config: Config, workspace: Workspace) -> list[dict]:
    """Of each average: what its answers follow where motion and scene disagree, and what moves them, in logits."""
    world, found = World(config.world_seed, config.home_seed), []
    motions = np.array(world.actions(half="all"))[:, 1]
    learners = {average.name: workspace.learner(config, average) for average in each_average(config)}
    size = next(iter(learners.values())).image_size
    (clips, where), (swapped, _) = (_looked_at(config, at, size) for at in ("in", "scene"))
    conflict = before(clips, world.home[clips.spec.motion ^ 1])
    for average, learner in learners.items():
        named = motions[evaluate(learner, conflict).logits.argmax(1)]
        effects = {name: values.mean() for name, values in causal_effects(learner, clips, swapped).items()}
        values = {"scene_share": scene_share(votes(world, conflict.spec, named)).value,
                  "order_gap": 100 * (effects["whole"] - effects["shuffled"]),
                  **{name: effects[name] for name in ("background", "motion")}}  # fmt: skip
        about = {**where, "set": "look", "average": average}
        found += [{**about, "metric": metric, "value": value} for metric, value in values.items()]
    return found


def _prediction(config: Config, workspace: Workspace) -> list[dict]:
    """By how much an inner step changes the query loss, along the trajectory: measured, and to first order in alpha."""
    # To first order L_Q(theta - alpha g_S) - L_Q(theta) = -alpha <g_S, g_Q>: what cross-batch training lowers beyond
    # joint training is, in expectation, this product (half of what MAML's second-order term rewards).
    learner, found = workspace.learner(config), []
    clips = training_clips(config, learner.image_size)
    learner.set_classes(clips.class_names)
    draws = np.random.default_rng([config.seed, 99]).permutation(len(clips))
    batches = [torch.from_numpy(draws[i : i + config.batch_size]) for i in range(0, len(draws), config.batch_size)]
    pairs = list(zip(batches[0::2], batches[1::2]))[:PREDICTION_PAIRS]
    for epoch, tensors in enumerate(workspace.run(config).trajectory(), start=1):
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
        where = {**TRAINING, "part": epoch, "n": len(pairs)}
        found += [{**where, "metric": m, "average": f"{alpha:g}", "value": v} for (m, alpha), v in sums.items()]
    return found


def _cost(config: Config, workspace: Workspace) -> list[dict]:
    """Median time of a training step of each method, in turns in one process, so that other load hits all alike."""
    classes = len(World(config.world_seed, config.home_seed).class_names(half="base"))
    configs = {method: config.replace(method=method) for method in TRAINED}
    timed = measure_costs(configs, steps=COST_ROUNDS, classes=classes)
    where = {**TRAINING, "metric": "step_seconds"}
    return [{**where, "average": name, "value": one.seconds_per_step, "n": one.steps} for name, one in timed.items()]


MEASURED: dict[str, Callable[[Config, Workspace], list[dict]]] = {
    "reversal": _reversal, "training_fit": _training_fit, "look": _look, "cues": _cues, "prediction": _prediction,
    "cost": _cost,
}  # fmt: skip
