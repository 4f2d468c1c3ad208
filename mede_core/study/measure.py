"""The tests of the study's units: each gives numbers under a key, see ``store.FIELDS``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..attention import shuffled_frames, static_bias
from ..averages import Average, grid, rules, score
from ..checkpoints import trajectory
from ..config import METHODS, Config
from ..experiment import trained_learner, training_clips
from ..lab.probe import inner_step_losses
from ..learner import VideoLearner
from ..meta import meta_gradients
from ..notebook import read_metrics
from ..objectives import cross_entropy
from ..report import costs as cost
from ..scoring import evaluate, evaluate_world, record
from ..selection import MU_RATIOS, SIGMA_RATIOS
from ..world.synthetic import CONTEXTS, ClipSet, World, make_set
from .store import FIELDS
from .units import TRAINED, Unit

RULE_CLIPS = 1000  # a half and background, for the averaging rules, or fewer where the configuration has fewer
GRID_CLIPS = 400  # the same for each point of a grid; sets other than the source have as many
LOOK_CLIPS, LEAST_CLIPS = 576, 72  # of all classes together, of which there are 72
VALIDATION = 2  # the draw of base clips that settings are chosen on; the reported one is 1
COST_ROUNDS = 20
PREDICTION_PAIRS, PREDICTION_ALPHAS = 16, (0.05, 0.5, 5.0)

Numbers = dict[str, list]


@dataclass(frozen=True)
class Trained:
    """A unit's learner and where its run lies."""

    unit: Unit
    learner: VideoLearner
    runs: Path

    @property
    def run_dir(self) -> Path:
        return self.runs / self.unit.config.run_name()

    @property
    def world(self) -> World:
        return World(self.unit.config.world_seed, self.unit.config.home_seed)

    def with_clips(self, most: int) -> Config:
        """The unit's configuration with at most so many test clips."""
        return replace(self.unit.config, test_clips=min(most, self.unit.config.test_clips))

    def looked_at(self, context: str) -> ClipSet:
        """Clips of all classes of the source set before a background."""
        count = max(LEAST_CLIPS, self.with_clips(LOOK_CLIPS).test_clips)
        return make_set(self.world, half="all", context=context, count=count, size=self.learner.image_size)


def number_key(**where) -> str:
    """The key of a number; what is not given is empty."""
    return "/".join(str(where.get(name, "")) for name in FIELDS)


def measure(unit: Unit, runs: str | Path) -> tuple[Numbers, str]:
    """Take a unit's tests.

    Args:
        unit: its run is finished.
        runs: the folder of runs.

    Returns:
        (numbers, the CLIP's ``weights_id``).
    """
    trained = Trained(unit, trained_learner(unit.config, runs), Path(runs))
    numbers: Numbers = {}
    for test in unit.tests:
        numbers |= TESTS[test](trained)
    return numbers, trained.learner.weights_id


def _numbers(records: Iterable[Mapping], *, bits: bool = True) -> Numbers:
    found = {}
    for one in records:
        value = [round(one["value"], 4), one["n"]]
        found[number_key(**{name: one.get(name, "") for name in FIELDS})] = [*value, one["correct"]] if bits else value
    return found


# ------------------------------------------------------------------------------------ accuracy
def _source(t: Trained, halves=("base", "novel")) -> Numbers:
    return _numbers(evaluate_world(t.learner, t.unit.config, halves=halves))


def _transfer(t: Trained) -> Numbers:
    """Sets with another look: all backgrounds of the first test split, in context of the others."""
    sets = ("transfer_a", "transfer_b")
    return _smaller(t, (sets, ("all",), CONTEXTS, (1,)), (sets, ("all",), ("in",), (2, 3)))


def _parts(t: Trained) -> Numbers:
    """K600's part (new actors) and SSv2's part (direction alone)."""
    new_actors = (("superset",), ("all",), ("in",), (1, 2, 3))
    return _smaller(t, new_actors, (("direction",), ("base", "novel"), ("in",), (1,)))


def _smaller(t: Trained, *asked) -> Numbers:
    smaller, found = t.with_clips(GRID_CLIPS), {}
    for sets, halves, contexts, parts in asked:
        where = {"sets": sets, "halves": halves, "contexts": contexts, "parts": parts}
        found |= _numbers(evaluate_world(t.learner, smaller, **where))
    return found


def _reversal(t: Trained) -> Numbers:
    """Clips and their exact reversals before the same background: a learner blind to order has at most half right."""
    clips = t.looked_at("scene")
    right = [evaluate(t.learner, one).correct for one in (clips, clips.reversed())]
    both = float(np.mean(right[0] & right[1]) * 100)
    row = {"set": "reversal", "split": "all", "part": 1, "context": "scene"}
    joined = {"value": float(np.mean(right) * 100), "n": 2 * len(clips)}
    return {
        number_key(metric="top1", **row): [round(joined["value"], 4), joined["n"]],
        number_key(metric="both_of_a_pair", **row): [round(both, 4), len(clips)],
    }


def _training_fit(t: Trained) -> Numbers:
    """Accuracy on the training clips, as labeled."""
    result = evaluate(t.learner, training_clips(t.unit.config, t.learner))
    return _numbers([record(result, set="train", split="base", part=1, context="in")])


# ------------------------------------------------------------------------------------ where it looks
def _look(t: Trained) -> Numbers:
    found = {}
    for context in ("in", "scene"):
        clips = t.looked_at(context)
        for metric, value in asdict(static_bias(t.learner, clips)).items():
            key = number_key(metric=metric, set="look", split="all", part=1, context=context)
            found[key] = [round(value, 4), len(clips)]
    return found


# ------------------------------------------------------------------------------------ the meta-step
def _steps(t: Trained) -> Numbers:
    """Means over each epoch of a meta run: losses, and the product of its two gradients as a cosine."""
    frame, found = read_metrics(t.run_dir), {}
    frame["cosine"] = frame["grad_inner_product"] / (frame["support_grad_norm"] * frame["query_grad_norm"])
    for epoch, rows in frame.groupby("epoch"):
        for metric in ("support_loss", "query_loss", "grad_inner_product", "cosine"):
            key = number_key(metric=metric, set="train", split="base", part=epoch, context="in")
            found[key] = [round(float(rows[metric].mean()), 6), len(rows)]
    return found


def _prediction(t: Trained) -> Numbers:
    """By how much an inner step changes the query loss, along the trajectory: measured, and to first order in alpha.

    To first order L_Q(theta - alpha g_S) - L_Q(theta) = -alpha <g_S, g_Q>: what cross-batch training lowers beyond
    joint training is, in expectation, this product (half of what MAML's second-order term rewards).
    """
    config, found = t.unit.config, {}
    clips = training_clips(config, t.learner)
    t.learner.set_classes(clips.class_names)
    draws = np.random.default_rng([config.seed, 99]).permutation(len(clips))
    batches = [torch.from_numpy(draws[i : i + config.batch_size]) for i in range(0, len(draws), config.batch_size)]
    pairs = list(zip(batches[0::2], batches[1::2]))[:PREDICTION_PAIRS]
    at_end = t.learner.trainable_state()
    at_end = {name: tensor.clone() for name, tensor in at_end.items()}
    for epoch, tensors in enumerate(trajectory(t.run_dir, config.epochs), start=1):
        t.learner.load_trainable(tensors)
        sums: dict[tuple[str, float], float] = {}
        for support, query in pairs:
            s, q = ((clips.videos[index], clips.labels[index]) for index in (support, query))
            product = meta_gradients(t.learner, cross_entropy, s, q, inner_lr=0.0).grad_inner_product
            rows = inner_step_losses(t.learner, cross_entropy, s, q, (0.0, *PREDICTION_ALPHAS))
            for row in rows[1:]:
                alpha = row["inner_lr"]
                change = row["query_loss"] - rows[0]["query_loss"]
                for name, value in (("change_measured", change), ("change_predicted", -alpha * product)):
                    sums[name, alpha] = sums.get((name, alpha), 0.0) + value / len(pairs)
        for (metric, alpha), value in sums.items():
            where = {"set": "train", "split": "base", "part": epoch, "context": "in", "average": f"{alpha:g}"}
            found[number_key(metric=metric, **where)] = [round(value, 6), len(pairs)]
    t.learner.load_trainable(at_end)
    return found


# ------------------------------------------------------------------------------------ averages
def _scored(t: Trained, averages, test: Callable, *, bits: bool) -> Numbers:
    return _numbers(score(t.run_dir, t.unit.config, averages, test), bits=bits)


def _averages(t: Trained) -> Numbers:
    """Every rule on the reported clips, and every epoch on those that the best one is chosen by."""
    config = t.unit.config
    small, larger = t.with_clips(GRID_CLIPS), t.with_clips(RULE_CLIPS)
    found = _scored(t, rules(config), lambda learner: evaluate_world(learner, larger), bits=True)
    epochs = [_one_epoch(config.epochs, epoch) for epoch in range(config.epochs + 1)]
    base = {"halves": ("base",), "contexts": ("in",), "parts": (VALIDATION,)}
    found |= _scored(t, epochs, lambda learner: evaluate_world(learner, small, **base), bits=False)
    return found | _scored(t, epochs, lambda learner: evaluate_world(learner, small), bits=False)


def _one_epoch(count: int, epoch: int) -> Average:
    shares = tuple(float(t == epoch) for t in range(count + 1))
    return Average(f"epoch {epoch}", f"Epoch {epoch}", shares)


def _grid(t: Trained) -> Numbers:
    small = t.with_clips(GRID_CLIPS)
    gaussians = grid(t.unit.config, MU_RATIOS, SIGMA_RATIOS)
    return _scored(t, gaussians, lambda learner: evaluate_world(learner, small), bits=False)


def _grid_order(t: Trained) -> Numbers:
    """Base clips that are not reported, as they are and with shuffled frames: the order-shuffle criterion."""
    config = t.unit.config
    count, size = t.with_clips(GRID_CLIPS).test_clips, t.learner.image_size
    drawn = {"half": "base", "split": VALIDATION, "count": count}
    clips = make_set(t.world, **drawn, num_frames=config.num_frames, size=size)

    def test(learner):
        where = {"set": "source", "split": "base", "part": VALIDATION, "context": "in", "n": len(clips)}
        shuffled = {**where, "metric": "shuffled", "value": evaluate(learner, shuffled_frames(clips)).top1}
        return [{**where, "metric": "top1", "value": evaluate(learner, clips).top1}, shuffled]

    return _scored(t, grid(config, MU_RATIOS, SIGMA_RATIOS), test, bits=False)


def _grid_pseudo_novel(t: Trained) -> Numbers:
    """The classes that were left out of this run, in context: the leave-classes-out criterion."""
    small = t.with_clips(GRID_CLIPS)
    asked = {"halves": (f"pseudo_novel_{small.held_out}",), "contexts": ("in",), "parts": (VALIDATION,)}
    gaussians = grid(t.unit.config, MU_RATIOS, SIGMA_RATIOS)
    return _scored(t, gaussians, lambda learner: evaluate_world(learner, small, **asked), bits=False)


# ------------------------------------------------------------------------------------ cost
def _cost(t: Trained) -> Numbers:
    """Median time of a training step of each method, in turns in one process, so that other load hits all alike."""
    classes = len(t.world.class_names(half="base"))
    configs = {method: replace(t.unit.config, method=method) for method in TRAINED}
    costs = cost.measure(configs, steps=COST_ROUNDS, classes=classes)
    where = {"metric": "step_seconds", "set": "train", "split": "base", "part": 1, "context": "in"}
    return {number_key(**where, average=name): [round(c.seconds_per_step, 6), c.steps] for name, c in costs.items()}


TESTS: dict[str, Callable[[Trained], Numbers]] = {
    "source": _source,
    "base": partial(_source, halves=("base",)),
    "transfer": _transfer,
    "parts": _parts,
    "reversal": _reversal,
    "training_fit": _training_fit,
    "look": _look,
    "steps": _steps,
    "prediction": _prediction,
    "averages": _averages,
    "grid": _grid,
    "grid_order": _grid_order,
    "grid_pseudo_novel": _grid_pseudo_novel,
    "cost": _cost,
}


def training_seconds(unit: Unit, runs: str | Path) -> float | None:
    """How long the unit's run was trained; None for frozen CLIP."""
    if METHODS[unit.config.method].trainer == "none":
        return None
    done = Path(runs) / unit.config.run_name() / "done.json"
    return json.loads(done.read_text(encoding="utf-8"))["seconds"]
