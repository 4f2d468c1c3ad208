"""Cross-batch meta-optimization (Open-MeDe, ICCV 2025), for any `nn.Module` and any loss callable.

One step (alpha is `inner_lr`, delta is `query_weight`, beta is the optimizer's learning rate):

    g_S    = grad L_S(theta)                    support: the current batch
    theta' = theta - alpha g_S                  inner loop: the fast weights
    g_Q    = grad L_Q(theta') at theta'         query: the next batch of the ordinary sampler
    theta <- theta - beta (g_S + delta g_Q)     outer loop, first order (FOMAML)

The paper sums over i = 1..N tasks and writes the outer loop as plain SGD. Here a step takes one task (one
pair of batches) and the optimizer is the caller's: AdamW in this project, as in the fork that the authors
published. Paper does not say: alpha, beta and delta; they are arguments.

theta never moves before the optimizer steps: the fast weights live beside it, and `functional_call` lends
them to the model for the query pass only. So an exception leaves every parameter as it was, bit for bit.
Nor does a step wait for the device before that: all its numbers are read back at once.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Tensors = dict[str, Tensor]  # by parameter name, as in model.named_parameters()
LossFn = Callable[[nn.Module, Any], Tensor]
ReduceGrads = Callable[[Tensors], Tensors | None]
# By name, since importing them takes seconds: their hooks and shards never see gradients that are taken by hand.
REFUSED = ("DistributedDataParallel", "DDP", "FullyShardedDataParallel", "FSDPModule", "DTensor")


@dataclass(frozen=True)
class MetaGradients:
    """What one meta-step found: norms and product after `reduce_grads`, losses of this process alone."""

    grads: Tensors  # the merged gradient: as large as the trainable tensors, keep it no longer than needed
    support_loss: float
    query_loss: float
    support_grad_norm: float  # |g_S|
    query_grad_norm: float  # |g_Q|
    grad_inner_product: float  # <g_S, g_Q>: positive where a support step also helps the query batch


def cross_batch_pairs(loader: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Pair each batch of an epoch (support) with the next one (query), and the last with the first.

    Args:
        loader: any iterable of batches, read lazily with one batch of lookahead. The first batch is kept to
            the end, so the loader must not overwrite batches that it has handed out.

    Returns:
        An iterator of (support, query), as many as there are batches.

    Raises:
        ValueError: on the first `next`, if there are fewer than two batches.

    Source: paper, Key Designs 1. Paper does not say what an epoch's last batch meets: we close the circle, so
    that every batch serves once as support and once as query.
    """
    batches, end = iter(loader), object()
    first, query = next(batches, end), next(batches, end)
    if query is end:
        count = 0 if first is end else 1
        raise ValueError(f"loader gave {count} batch(es); an epoch needs at least 2, a support and a query")
    support = first
    while query is not end:
        yield support, query
        support, query = query, next(batches, end)
    yield support, first


def meta_gradients(
    model: nn.Module, loss_fn: LossFn, support: Any, query: Any, *,
    inner_lr: float, query_weight: float = 1.0, first_order: bool = True,
    params: Iterable[str] | None = None, inner_params: Iterable[str] | None = None,
    reduce_grads: ReduceGrads | None = None,
) -> MetaGradients:  # fmt: skip
    """Return the meta-gradient of one (support, query) pair; parameters and their `.grad` stay untouched.

    First order keeps one batch's graph at a time and two more copies of the trainable tensors. Second order
    is the exact gradient of L_S(theta) + delta L_Q(theta'): g_S + delta (I - alpha H) g_Q, with H the Hessian
    of L_S with respect to what the inner step moves. It keeps the support graph, made with the MATH attention
    kernel, since the others have no second derivative. Buffers and the random state advance as by two plain
    forward passes. `inner_lr=0` is joint training on both batches, `query_weight=0` is plain training.

    Gradient hooks of parameters act on g_Q as on g_S. Where the query pass reads a parameter past the module that
    holds it, from a list or through a wrapper, g_Q would be taken at theta: that is noticed in its graph and refused.

    Args:
        model: any module, unwrapped: the hooks of data-parallel wrappers never see these gradients.
        loss_fn: `loss_fn(model, batch)` returns a scalar tensor, computed with the module that it is handed; it is
            the loss itself: a GradScaler's factor in it would scale the inner step (bfloat16 needs none).
        support: the current batch; opaque, only `loss_fn` looks into it.
        query: the next batch; likewise.
        inner_lr: alpha, finite and >= 0.
        query_weight: delta, finite and >= 0.
        first_order: FOMAML as in the paper, or the exact gradient.
        params: names of the trainable tensors to differentiate; default: all that require grad.
        inner_params: those of them that the inner step moves; default: all.
        reduce_grads: averages {name: tensor} over ranks, in place or by returning new tensors. Called on g_S
            before the inner step and on g_Q after it; in second order also on H g_Q.

    Returns:
        The merged gradient (zeros for a tensor that a loss does not reach), both losses, three diagnostics.

    Raises:
        ValueError: a value out of range, an unknown or frozen name, a loss that is no differentiable scalar or reaches
            no parameter, a wrapped or sharded model, sparse or complex gradients, a query pass past the fast weights.
        FloatingPointError: a loss or a gradient norm is not finite; the message says which.

    Source: paper, inner loop and outer loop (Key Designs 1) and the update rule (Loss & Training).
    """
    inner_lr, query_weight = _number("inner_lr", inner_lr), _number("query_weight", query_weight)
    _check_plain(model)
    theta = _trainable(model, params)
    moved = set(theta) if inner_params is None else set(inner_params)
    if not moved <= set(theta):
        raise ValueError(f"inner_params holds {sorted(moved - set(theta))}; allowed is a subset of params")
    objective = Objective(model, loss_fn)

    # g_S. In first order the support graph is freed in here, before the query's forward.
    with nullcontext() if first_order else sdpa_kernel(SDPBackend.MATH):
        support_loss, graph = objective("support_loss", support, theta, create_graph=not first_order)
    g_s = _reduced(graph, reduce_grads)
    if first_order:
        del graph
    found = {"support_loss": [support_loss], "support_grad_norm": _products(g_s, g_s)}

    # theta' = theta - alpha g_S: new leaves; a tensor that the inner step leaves alone shares theta's memory.
    fast = {
        name: torch.sub(p.detach(), g_s[name], alpha=inner_lr) if name in moved else p.detach()
        for name, p in theta.items()
    }
    for name, tensor in fast.items():
        tensor.requires_grad_()
        for hook in (theta[name]._backward_hooks or {}).values():
            tensor.register_hook(hook)

    # g_Q, with theta' lent to the model.
    lent = {f"model.{name}": tensor for name, tensor in fast.items()}
    try:
        query_loss, g_q = functional_call(objective, lent, ("query_loss", query, fast, False, theta))
    except Exception:
        read_back(found)  # fast weights that are not finite may be why: that is said instead
        raise
    del fast, lent
    g_q = _reduced(g_q, reduce_grads)
    found |= {"query_loss": [query_loss], "query_grad_norm": _products(g_q, g_q)}
    numbers = read_back(found | {"grad_inner_product": _products(g_s, g_q)})
    numbers |= {name: math.sqrt(numbers[name]) for name in ("support_grad_norm", "query_grad_norm")}

    # g_S + delta g_Q, in second order g_S + delta (g_Q - alpha H g_Q); each tensor is freed as it is merged.
    if not first_order:
        with sdpa_kernel(SDPBackend.MATH):
            h_q = _reduced(_hessian_product(graph, g_q, theta, moved), reduce_grads)
        g_q = {name: torch.sub(g, h_q.pop(name), alpha=inner_lr) for name, g in g_q.items()}
    merged = {name: torch.add(g_s.pop(name), g_q.pop(name), alpha=query_weight) for name in theta}
    return MetaGradients(merged, **numbers)


def meta_step(
    model: nn.Module, loss_fn: LossFn, support: Any, query: Any, optimizer: torch.optim.Optimizer, *,
    inner_lr: float, query_weight: float = 1.0, first_order: bool = True, max_grad_norm: float | None = None,
    params: Iterable[str] | None = None, inner_params: Iterable[str] | None = None,
    reduce_grads: ReduceGrads | None = None,
) -> MetaGradients:  # fmt: skip
    """Step the optimizer once along the meta-gradient of one (support, query) pair.

    Args:
        optimizer: any that holds all of `params` and steps without a closure; it finds the merged gradient in
            their `.grad`, which is cleared after the step. Where it raises, every `.grad` is what it was before.
        max_grad_norm: clip the merged gradient to this L2 norm, finite and > 0; None: do not clip.
        The rest: as in `meta_gradients`.

    Returns:
        The result of `meta_gradients`; its `grads` are what the optimizer saw, after clipping.

    Raises:
        ValueError, FloatingPointError: as `meta_gradients`; neither parameters nor optimizer were touched.
    """
    if max_grad_norm is not None and not 0 < max_grad_norm < math.inf:
        raise ValueError(f"max_grad_norm is {max_grad_norm!r}; allowed is None or a finite number > 0")
    theta = _trainable(model, params)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    known = {id(p) for p in held}
    if strangers := [name for name, p in theta.items() if id(p) not in known]:
        raise ValueError(f"optimizer does not hold {strangers}; add them to it, or leave them out of params")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(f"optimizer is {type(optimizer).__name__}, whose step needs a closure; allowed are others")

    result = meta_gradients(
        model, loss_fn, support, query, inner_lr=inner_lr, query_weight=query_weight, first_order=first_order,
        params=theta, inner_params=inner_params, reduce_grads=reduce_grads,
    )  # fmt: skip
    before = [p.grad for p in held]
    try:
        optimizer.zero_grad(set_to_none=True)
        for name, p in theta.items():
            p.grad = result.grads[name]
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(theta.values(), max_grad_norm)
        optimizer.step()
    except BaseException:
        for p, grad in zip(held, before, strict=True):
            p.grad = grad
        raise
    optimizer.zero_grad(set_to_none=True)
    return result


class Objective(nn.Module):
    """The caller's model and loss as one module, so that `functional_call` can lend weights to both.

    The backward pass is part of forward, so it meets the lent weights too: activation checkpointing runs the
    model's forward again during the backward, and would silently use theta otherwise.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, name: str, batch: Any, wrt: Tensors, create_graph: bool = False, behind: Tensors | None = None):
        """(loss, {name: gradient}); `behind` are the parameters that `wrt` stands for: the loss may not reach them."""
        loss = self.loss_fn(self.model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"{name} from loss_fn is of {got}; allowed is a scalar tensor")
        if not loss.requires_grad:
            raise ValueError(f"{name} from loss_fn depends on no tensor that requires grad")
        return loss.detach(), _grad(loss, wrt, create_graph, behind or {}, name)


def _grad(scalar: Tensor, wrt: Tensors, create_graph: bool, behind: Tensors, loss: str = "") -> Tensors:
    tensors = [*wrt.values(), *behind.values()]
    found = torch.autograd.grad(scalar, tensors, create_graph=create_graph, allow_unused=True)
    if loss and all(grad is None for grad in found):
        raise ValueError(
            f"{loss} reaches none of params; a copy of the model was used, or checkpointing with use_reentrant=True; "
            "allowed is a loss that depends on at least one of them"
        )
    if seen := [name for name, grad in zip(behind, found[len(wrt) :], strict=True) if grad is not None]:
        raise ValueError(
            f"the query pass read {seen} past the model, so it did not see the fast weights; forward and loss_fn must "
            "reach every parameter through the module that they are handed, as an attribute of it"
        )
    grads = {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(wrt.items(), found, strict=False)}
    if sparse := [name for name, grad in grads.items() if grad.layout != torch.strided]:
        raise ValueError(f"gradients of {sparse} are sparse; allowed are dense ones (nn.Embedding(sparse=False))")
    return grads


def _hessian_product(graph: Tensors, vector: Tensors, theta: Tensors, moved: set[str]) -> Tensors:
    """H v over the moved tensors, as the gradient of <g_S(theta), v>; `graph` is g_S with its graph."""
    terms = [(graph[name] * vector[name]).sum() for name in theta if name in moved and graph[name].requires_grad]
    if not terms:  # L_S is linear in what moved: H = 0
        return {name: torch.zeros_like(p) for name, p in theta.items()}
    return _grad(torch.stack(terms).sum(), theta, False, {})


def _reduced(grads: Tensors, reduce_grads: ReduceGrads | None) -> Tensors:
    """Detach, and average over ranks where asked."""
    grads = {name: grad.detach() for name, grad in grads.items()}
    if reduce_grads is None:
        return grads
    # Copies, since it may write in place: autograd can hand out a tensor twice, or one its graph still needs.
    own = {name: grad.clone() for name, grad in grads.items()}
    reduced = reduce_grads(own)
    reduced = own if reduced is None else dict(reduced)
    if {n: g.shape for n, g in reduced.items()} != {n: g.shape for n, g in grads.items()}:
        raise ValueError("reduce_grads changed names or shapes of the gradients; allowed is new values only")
    return reduced


def _products(a: Tensors, b: Tensors) -> list[Tensor]:
    """<a, b> of each tensor, half types in float32; left on the device."""
    half = (torch.float16, torch.bfloat16)
    flat = [[(t.float() if t.dtype in half else t).flatten() for t in (x, b[name])] for name, x in a.items()]
    return [torch.dot(x, y) for x, y in flat]


def read_back(values: dict[str, list[Tensor]]) -> dict[str, float]:
    """The sum of each list of scalars in float64, by one transfer; FloatingPointError names one that is not finite."""
    scalars = [scalar for some in values.values() for scalar in some]
    wide = torch.float64 if any(scalar.dtype == torch.float64 for scalar in scalars) else torch.float32
    flat = iter(torch.stack([s.detach().reshape(()).to(scalars[0].device, wide) for s in scalars]).tolist())
    numbers = {name: sum(next(flat) for _ in some) for name, some in values.items()}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise FloatingPointError(f"{name} is {number}; stopped before the optimizer, nothing was changed")
    return numbers


def _trainable(model: nn.Module, names: Iterable[str] | None) -> Tensors:
    """The model's trainable parameters of these names, in the model's order: the same order on every rank."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wanted = set(trainable) if names is None else set(names)
    if not wanted or not wanted <= set(trainable):
        wrong = sorted(wanted - set(trainable)) or "nothing"
        raise ValueError(f"params holds {wrong}; allowed are the model's {len(trainable)} trainable parameters")
    theta = {name: p for name, p in trainable.items() if name in wanted}
    for name, p in theta.items():
        if p.is_complex():
            raise ValueError(f"{name} is complex; allowed are real parameters (torch.view_as_real)")
        if p._post_accumulate_grad_hooks:
            raise ValueError(f"{name} has a post-accumulate-grad hook, which would not run; allowed is register_hook")
    return theta


def _check_plain(model: nn.Module) -> None:
    """Refuse what takes part in a training by ways that gradients taken by hand do not pass."""
    for where, part in (*model.named_modules(prefix="model"), *model.named_parameters()):
        if kind := _refused(type(part)):
            raise ValueError(
                f"{where} is a {kind}; pass the plain module, as it was before wrapping or sharding (model.module of a "
                "wrapped one; torch.compile is fine), and average over processes with reduce_grads"
            )


@cache
def _refused(kind: type) -> str | None:
    return next((base.__name__ for base in kind.__mro__ if base.__name__ in REFUSED), None)


def _number(name: str, value: Any) -> float:
    """A finite number >= 0 of any type: Python's, NumPy's, a tensor of one element."""
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {value!r}; allowed is a finite number >= 0")
    return number
