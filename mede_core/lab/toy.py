"""Cross-batch meta-optimization one can see: two parameters, and batches that agree on only one of them.

Every batch b has the loss L_b(theta) = (h_1 (theta_1 - s_b)^2 + h_2 (theta_2 - 1)^2) / 2. The first parameter
stands for a static shortcut: steep (h_1 is large), and each batch wants another value s_b. The second stands
for motion: flatter, and all batches want the same. The steps are `meta_step`'s own, as on a real model.

What to expect, exactly: over an epoch each batch is support once and query once. So at a fixed theta, on
average over the epoch and along a direction of curvature h, the merged gradient is

    h (1 + delta (1 - alpha h)) (theta - mean of the minima)       and with (1 - alpha h)^2 in second order.

While alpha h <= 1, steep directions are damped more than flat ones. Where the pull leads to stays the same:
on parabolas, a shortcut that is right on average stays attractive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np
import torch
from torch import Tensor, nn

from ..meta import cross_batch_pairs, meta_step


@dataclass(frozen=True)
class ToyProblem:
    """Parabolas over the plane: a common shape and a minimum for each batch."""

    curvature: np.ndarray  # [2] h_1 (static), h_2 (motion)
    minima: np.ndarray  # [N, 2] (s_b, m) of each batch; their mean is where the mean loss is least


@dataclass(frozen=True)
class ToyPath:
    """What T meta-steps visited; row t belongs to step t, which goes from theta[t] to theta[t + 1]."""

    theta: np.ndarray  # [T + 1, 2]
    theta_fast: np.ndarray  # [T, 2] theta' = theta - alpha g_S
    support_grad: np.ndarray  # [T, 2] g_S at theta
    query_grad: np.ndarray  # [T, 2] g_Q at theta'
    merged_grad: np.ndarray  # [T, 2] what the optimizer stepped along
    support: np.ndarray  # [T] number of the support batch
    query: np.ndarray  # [T] number of the query batch
    support_loss: np.ndarray  # [T] at theta
    query_loss: np.ndarray  # [T] at theta'


def make_toy_problem(
    num_batches: int = 8,
    *,
    curvature: Sequence[float] = (4.0, 1.0),
    spread: float = 1.0,
    shortcut: float = 0.0,
    seed: int = 0,
) -> ToyProblem:
    """Batches whose s_b have exactly this mean (``shortcut``: what it is worth on average) and ``spread``.

    ``num_batches`` >= 2 make an epoch; ``curvature`` is (h_1, h_2), both above 0.
    """
    drawn = np.random.default_rng(seed).standard_normal(num_batches)
    drawn = (drawn - drawn.mean()) / drawn.std()
    minima = np.stack([shortcut + spread * drawn, np.ones(num_batches)], axis=1)
    return ToyProblem(np.array(curvature, dtype=float), minima)


def loss_surface(problem: ToyProblem, x: np.ndarray, y: np.ndarray, batch: int | None = None) -> np.ndarray:
    """[len(y), len(x)] losses at (x, y), of one batch or, for None, the mean over all batches."""
    minima = problem.minima if batch is None else problem.minima[[batch]]
    static = problem.curvature[0] * (np.asarray(x)[None, :, None] - minima[:, 0]) ** 2
    motion = problem.curvature[1] * (np.asarray(y)[:, None, None] - minima[:, 1]) ** 2
    return (static + motion).mean(axis=-1) / 2


def run_toy(
    problem: ToyProblem,
    *,
    steps: int = 32,
    outer_lr: float = 0.05,
    inner_lr: float = 0.2,
    query_weight: float = 1.0,
    first_order: bool = True,
    start: Sequence[float] = (2.0, -1.0),
    seed: int = 0,
) -> ToyPath:
    """T = ``steps`` meta-steps with plain SGD, which is the paper's outer loop, from ``start``, in float64.

    ``outer_lr`` is beta, ``inner_lr`` alpha (0: joint training), ``query_weight`` delta (0: plain training). Epochs
    follow each other, each in another random order of the batches.
    """
    curvature, minima = torch.tensor(problem.curvature), torch.tensor(problem.minima)
    model = nn.Module()
    model.theta = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), lr=outer_lr)
    rng = np.random.default_rng(seed)
    visited: list[Tensor] = []  # where a step's losses were taken: theta, theta'
    gradients: list[Tensor] = []  # a step's g_S, g_Q and, in second order, H g_Q

    def loss_fn(module: nn.Module, batch: int) -> Tensor:
        visited.append(module.theta.detach().clone())
        return (curvature * (module.theta - minima[batch]) ** 2).sum() / 2

    def look(grads: dict[str, Tensor]) -> None:
        gradients.append(grads["theta"].clone())

    settings = {"inner_lr": inner_lr, "query_weight": query_weight, "first_order": first_order}
    rows: list[tuple] = []
    epochs = (cross_batch_pairs(rng.permutation(len(minima)).tolist()) for _ in count())
    for support, query in islice(chain.from_iterable(epochs), steps):
        visited.clear(), gradients.clear()
        found = meta_step(model, loss_fn, support, query, optimizer, **settings, reduce_grads=look)
        points = [tensor.numpy() for tensor in (*visited, *gradients[:2], found.grads["theta"])]
        rows.append((*points, support, query, found.support_loss, found.query_loss))
    theta, *others = (np.array(column) for column in zip(*rows, strict=True))
    return ToyPath(np.vstack([theta, model.theta.detach().numpy()]), *others)


def compare_trainings(problems: Mapping[str, ToyProblem], *, inner_lr: float, query_weight: float, **one) -> list[dict]:
    """Joint training and meta-steps on several problems: one update, and a whole training's second half.

    A row each: ``problem``, ``training``, the ``update`` [2] of a step (``one``: start, seed), its ``angle`` in
    degrees to the axis of motion, where theta_1 ``settles`` and how far it ``swings`` there (standard deviation).
    """
    rows = []
    for name, problem in problems.items():
        for training, alpha in (("joint", 0.0), ("meta-step", inner_lr)):
            update = -run_toy(problem, steps=1, inner_lr=alpha, query_weight=query_weight, **one).merged_grad[0]
            late = run_toy(problem, steps=800, inner_lr=alpha, query_weight=query_weight).theta[400:, 0]
            angle = float(np.degrees(np.arctan2(abs(update[0]), update[1])))
            about = {"problem": name, "training": training, "update": update, "angle": angle}
            rows.append({**about, "settles": float(late.mean()), "swings": float(late.std())})
    return rows
