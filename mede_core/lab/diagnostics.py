"""Looking into a meta-step on a real model: what the inner step does, whether batches agree, what the limits are.
Any module and loss callable, as in ``meta.py``. Everything but :func:`meta_trace` leaves the model as it was."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..meta import meta_gradients, meta_step

LossFn = Callable[[nn.Module, Any], Tensor]


class _Loss(nn.Module):
    """Model and loss as one module, so that other weights can be lent to both."""

    def __init__(self, model: nn.Module, loss_fn: LossFn):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, batch) -> Tensor:
        return self.loss_fn(self.model, batch)


def inner_step_losses(model: nn.Module, loss_fn: LossFn, support, query, inner_lrs: Sequence[float]) -> list[dict]:
    """Losses of both batches after inner steps of several lengths (0: before it) along the support batch's gradient."""
    gradient = meta_gradients(model, loss_fn, support, query, inner_lr=0.0, query_weight=0.0).grads
    theta = {name: p.detach() for name, p in model.named_parameters() if name in gradient}
    objective, rows = _Loss(model, loss_fn), []
    with torch.no_grad():
        for inner_lr in inner_lrs:
            fast = {f"model.{name}": p - inner_lr * gradient[name] for name, p in theta.items()}
            losses = [functional_call(objective, fast, (batch,)).item() for batch in (support, query)]
            rows.append({"inner_lr": float(inner_lr), "support_loss": losses[0], "query_loss": losses[1]})
    return rows


def meta_trace(
    model: nn.Module,
    loss_fn: LossFn,
    pairs: Iterable[tuple],
    optimizer: torch.optim.Optimizer,
    *,
    inner_lr: float,
    query_weight: float = 1.0,
    max_grad_norm: float | None = None,
) -> list[dict]:
    """Take real meta-steps over (support, query) pairs, which train the model, and note what each one found:
    ``support_loss`` and ``query_before`` at theta, ``support_after`` and ``query_loss`` at the fast weights."""
    rows = []
    for step, (support, query) in enumerate(pairs):
        before, after = inner_step_losses(model, loss_fn, support, query, (0.0, inner_lr))
        found = meta_step(
            model, loss_fn, support, query, optimizer,
            inner_lr=inner_lr, query_weight=query_weight, max_grad_norm=max_grad_norm,
        )  # fmt: skip
        rows.append({
            "step": step, "epoch": 1, "support_loss": found.support_loss, "support_after": after["support_loss"],
            "query_before": before["query_loss"], "query_loss": found.query_loss,
            "support_grad_norm": found.support_grad_norm, "query_grad_norm": found.query_grad_norm,
            "grad_inner_product": found.grad_inner_product,
        })  # fmt: skip
    return rows


def quadratic_pull(curvature: float, inner_lr: float, query_weight: float = 1.0, first_order: bool = True) -> float:
    """How strongly the merged gradient pulls along a direction of curvature h, on average over an epoch of parabolas.

    h (1 + delta (1 - alpha h)), in second order with the square of (1 - alpha h); ``toy.py`` says why.
    """
    return curvature * (1 + query_weight * (1 - inner_lr * curvature) ** (1 if first_order else 2))


def compare_gradients(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """How alike two gradients are; ``difference`` is |one - other| / |other|."""
    a, b = (torch.cat([grads[name].detach().double().flatten() for name in one]) for grads in (one, other))
    length, norm = a.norm().item(), b.norm().item()
    cosine = (a @ b).item() / (length * norm) if length else 0.0
    return {"cosine": cosine, "norm_ratio": length / norm, "difference": (a - b).norm().item() / norm}


def order_comparison(
    model: nn.Module, loss_fn: LossFn, support, query, inner_lrs: Sequence[float], *, query_weight: float = 1.0
) -> list[dict]:
    """How far the first-order meta-gradient is from the exact one: ``compare_gradients``, a row a value of alpha."""
    rows = []
    for inner_lr in inner_lrs:
        settings = {"inner_lr": float(inner_lr), "query_weight": query_weight}
        first = meta_gradients(model, loss_fn, support, query, **settings).grads
        second = meta_gradients(model, loss_fn, support, query, **settings, first_order=False).grads
        rows.append({"inner_lr": float(inner_lr), **compare_gradients(first, second)})
    return rows


def limits(
    model: nn.Module, loss_fn: LossFn, support, query, *, inner_lr: float, query_weight: float = 1.0
) -> list[dict]:
    """What the meta-gradient becomes without an inner step (alpha = 0) and without a query (delta = 0), compared with
    the gradients of L_S + delta L_Q (``joint``) and of L_S (``plain``) at theta."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def plain(weight: float) -> dict[str, Tensor]:
        loss = loss_fn(model, support)
        loss = loss + weight * loss_fn(model, query) if weight else loss
        found = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(params, found, strict=True))

    joint, alone = plain(query_weight), plain(0.0)
    rows = []
    for alpha, delta, name in (
        (0.0, query_weight, "joint"), (inner_lr, query_weight, "joint"),
        (inner_lr, 0.0, "plain"), (inner_lr, query_weight, "plain"),
    ):  # fmt: skip
        found = meta_gradients(model, loss_fn, support, query, inner_lr=alpha, query_weight=delta).grads
        about = {"inner_lr": alpha, "query_weight": delta, "compared_with": name}
        rows.append({**about, **compare_gradients(found, joint if name == "joint" else alone)})
    return rows
