"""Training objectives: cross-entropy, Open-VCLIP's interpolated weights, FROSTER's distillation, and how they run.

Each is a loss of the learner and a batch, or, where the published gradient is not that of a loss, the gradient
itself. :func:`smaller_pieces` and :func:`in_precision` change memory and arithmetic, never what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from .meta import LossFn, Objective, ReduceGrads, Tensors

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


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


def interpolated_gradients(
    model: nn.Module,
    loss_fn: LossFn,
    batch,
    anchor: Mapping[str, Tensor],
    *,
    ratio: float,
    weight: float = 0.5,
    reduce_grads: ReduceGrads | None = None,
) -> tuple[Tensors, float, float]:
    """The published gradient of interpolated-weight optimization, at the weights and between them and CLIP's.

    With theta_r = r theta_CLIP + (1 - r) theta it is grad L(theta) + C grad L at theta_r: the second is *not*
    multiplied by (1 - r), as the chain rule would have it, but handed straight through.

    Args:
        model: any module; its parameters and their ``.grad`` stay untouched.
        loss_fn: ``loss_fn(model, batch)`` returns a scalar.
        batch: opaque.
        anchor: {name: tensor}, theta_CLIP for every trainable parameter: of adapters, their identity at the start.
        ratio: r, 0 to 1; published: drawn from U(0, 0.6) in every step.
        weight: C >= 0; published: 0.5.
        reduce_grads: averages the gradients over ranks.

    Returns:
        (gradient {name: tensor}, L(theta), L(theta_r)).

    Raises:
        ValueError: a ratio or weight out of range, or an anchor that does not match the trainable parameters.
        FloatingPointError: a loss is not finite.

    Source: Open-VCLIP (Weng et al., ICML 2023) as published in its training code.
    """
    if not 0 <= ratio <= 1 or not weight >= 0:
        raise ValueError(f"ratio is {ratio!r}, weight is {weight!r}; allowed: 0 <= ratio <= 1 and weight >= 0")
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if theta.keys() != anchor.keys():
        raise ValueError(f"anchor and trainable parameters differ in {sorted(theta.keys() ^ anchor.keys())[:6]}")
    objective = Objective(model, loss_fn)
    loss, grads = objective("support_loss", batch, theta)
    between = {name: torch.lerp(p.detach(), anchor[name], ratio).requires_grad_() for name, p in theta.items()}
    lent = {f"model.{name}": tensor for name, tensor in between.items()}
    between_loss, between_grads = functional_call(objective, lent, ("interpolated_loss", batch, between))
    merged = {name: torch.add(grads[name], between_grads[name], alpha=weight) for name in theta}
    if reduce_grads is not None:
        merged = reduce_grads(merged) or merged
    return merged, loss, between_loss


class ResidualDistillation(nn.Module):
    """Cross-entropy plus FROSTER's residual feature distillation of the video features from frozen CLIP.

    The student's normalized frame features z pass through z + 0.1 P(z), where P is two bias-free linear maps with a
    GELU between and starts at zero; the loss is 1 - cosine to the teacher's, mean over frames. Cross-entropy sees z
    itself, and P is dropped at test time. FROSTER also distills its text features; our text encoder is frozen, so
    that term would be constant and is left out. Whether its paper prints a cosine or an L2 loss is not known to us:
    its code computes the cosine.

    Args:
        teacher: frozen CLIP, a :class:`~mede_core.learner.VideoLearner` without a temporal module.
        width: channels of the joint embedding, D.
        weight: of the distillation; published: 2.0.

    Source: FROSTER (Huang et al., ICLR 2024), its published code.
    """

    residual = 0.1

    def __init__(self, teacher: nn.Module, width: int, weight: float = 2.0):
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"distill_weight is {weight!r}; it must be at least 0")
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: no submodule, never trained or saved
        self.weight = weight
        first, second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.kaiming_normal_(first.weight)
        nn.init.zeros_(second.weight)
        self.projector = nn.Sequential(first, nn.GELU(), second)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean of 1 - cosine between projected student and teacher features, both [..., D] and normalized."""
        projected = student + self.residual * self.projector(student)
        return 1 - F.cosine_similarity(projected, teacher, dim=-1).mean()

    def forward(self, learner: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of a learner on a batch, a scalar."""
        video, labels = batch
        features = learner.encode(video)  # [B, T, D]
        with torch.no_grad():
            target = self._teacher[0].encode(video)
        return F.cross_entropy(learner.classify(features), labels) + self.weight * self.distance(features, target)


def smaller_pieces(loss_fn: LossFn, size: int) -> LossFn:
    """The same loss and gradient with the activations of ``size`` clips in memory instead of the whole batch.

    Each piece is computed again in the backward pass, which costs one more forward. The batch's loss must be a mean
    over its clips, of which no one sees another: true for all objectives here, not for batch normalization.

    Args:
        loss_fn: ``loss_fn(model, (video, labels))`` returns a mean over clips.
        size: clips in a piece; 0 leaves the loss as it is.

    Returns:
        a loss callable.
    """
    if size == 0:
        return loss_fn

    def pieces(model, batch):
        video, labels = batch
        total = 0.0
        for clips, targets in zip(video.split(size), labels.split(size)):
            loss = checkpoint(lambda v, y: loss_fn(model, (v, y)), clips, targets, use_reentrant=False)
            total = total + loss * (len(targets) / len(labels))
        return total

    return pieces


def in_precision(loss_fn: LossFn, precision: str) -> Callable:
    """The loss under automatic mixed precision; weights, gradients and the class-text head stay in float32.

    Args:
        loss_fn: a loss callable.
        precision: ``float32`` or ``bf16``, which needs no loss scaling.

    Returns:
        a loss callable.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; allowed: {', '.join(PRECISIONS)}")
    if PRECISIONS[precision] is None:
        return loss_fn

    def mixed(model, batch):
        with torch.autocast(next(model.parameters()).device.type, PRECISIONS[precision]):
            return loss_fn(model, batch)

    return mixed
