"""One optimizer step of each method, the optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .config import METHODS, Config
from .distributed import average_grads, world_size
from .meta import MetaGradients, ReduceGrads, meta_gradients, meta_step
from .objectives import interpolated_gradients


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


def build_optimizer(model: nn.Module, config: Config, *also: nn.Module) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases and 1-d tensors get no weight decay (the peers' rule).

    Args:
        model: the learner.
        config: gives the learning rate and the weight decay.
        also: modules that are trained beside it, such as FROSTER's projector.

    Returns:
        the optimizer.
    """
    trainable = [p for module in (model, *also) for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.outer_lr)


def plain_step(
    model: nn.Module,
    loss_fn: Callable,
    batch,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    *,
    reduce_grads: ReduceGrads | None = None,
) -> dict:
    """One ordinary optimizer step: the baseline that the meta-step is compared with.

    Args:
        model: any module.
        loss_fn: loss_fn(model, batch) -> scalar tensor.
        batch: opaque.
        optimizer: over all that is trained, in the model and in the loss.
        max_grad_norm: the gradient is clipped to this L2 norm.
        reduce_grads: averages the gradients over ranks.

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
    held = {str(i): p for i, p in enumerate(_parameters(optimizer)) if p.grad is not None}
    if reduce_grads is not None:
        grads = {name: p.grad for name, p in held.items()}
        _hand_over(held, reduce_grads(grads) or grads)
    norm = _clip_and_step(held, optimizer, max_grad_norm)
    return {"support_loss": value, "support_grad_norm": norm}


def interpolated_step(
    model: nn.Module,
    loss_fn: Callable,
    batch,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    *,
    anchor: Mapping[str, Tensor],
    ratio: float,
    weight: float,
    reduce_grads: ReduceGrads | None = None,
) -> dict:
    """One step of Open-VCLIP's interpolated-weight optimization.

    Args:
        anchor, ratio, weight: as in :func:`~mede_core.objectives.interpolated_gradients`.
        The rest: as in :func:`plain_step`.

    Returns:
        {"support_loss", "interpolated_loss", "ratio", "support_grad_norm"} as floats; the norm is of the sum.

    Raises:
        FloatingPointError: a loss is not finite; the optimizer was not touched.
    """
    grads, loss, between = interpolated_gradients(
        model, loss_fn, batch, anchor, ratio=ratio, weight=weight, reduce_grads=reduce_grads
    )
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _hand_over(theta, grads)
    norm = _clip_and_step(theta, optimizer, max_grad_norm)
    return {"support_loss": loss, "interpolated_loss": between, "ratio": ratio, "support_grad_norm": norm}


def method_step(
    learner: nn.Module,
    loss_fn: Callable,
    batch,
    optimizer: torch.optim.Optimizer,
    config: Config,
    *,
    anchor: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> dict:
    """One step of the configuration's method.

    Args:
        learner: the learner.
        loss_fn: the method's loss.
        batch: (video, labels), or a (support, query) pair of those for the meta-step.
        optimizer: over all that is trained.
        config: names the method and its settings.
        anchor: CLIP's weights, for interpolated-weight optimization.
        generator: draws its ratio; the same in every process.

    Returns:
        what is written to metrics.jsonl.
    """
    method = METHODS[config.method]
    reduce_grads = average_grads if world_size() > 1 else None
    if method.trainer == "meta":
        result = _meta(learner, loss_fn, *batch, optimizer, config, reduce_grads)
        names = ("support_loss", "query_loss", "support_grad_norm", "query_grad_norm", "grad_inner_product")
        return {name: float(getattr(result, name)) for name in names}
    common = {"max_grad_norm": config.max_grad_norm, "reduce_grads": reduce_grads}
    if method.objective == "interpolated":
        ratio = config.iwr_max * torch.rand((), generator=generator).item()
        chosen = {"anchor": anchor, "ratio": ratio, "weight": config.iwr_weight}
        return interpolated_step(learner, loss_fn, batch, optimizer, **chosen, **common)
    return plain_step(learner, loss_fn, batch, optimizer, **common)


def _meta(learner, loss_fn, support, query, optimizer, config: Config, reduce_grads) -> MetaGradients:
    given = config.model_dump()
    alpha = {name: given[name] for name in ("inner_lr", "query_weight", "first_order")}
    if config.inner_sync or reduce_grads is None:
        return meta_step(
            learner, loss_fn, support, query, optimizer,
            max_grad_norm=config.max_grad_norm, reduce_grads=reduce_grads, **alpha,
        )  # fmt: skip
    # Each process takes an inner step of its own, the paper's sum over tasks; only the merged gradient is averaged.
    result = meta_gradients(learner, loss_fn, support, query, **alpha)
    theta = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    _hand_over(theta, reduce_grads(result.grads))
    _clip_and_step(theta, optimizer, config.max_grad_norm)
    return result


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _hand_over(parameters: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.grad = grads[name]


def _clip_and_step(parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, max_grad_norm: float) -> float:
    norm = nn.utils.clip_grad_norm_(list(parameters.values()), max_grad_norm).item()
    optimizer.step()
    optimizer.zero_grad()
    return norm
