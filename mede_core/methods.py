"""The methods: each is one object whose `step` takes the next batch and moves the learner.

What a method trains or keeps beside the learner (FROSTER's projector, the weights that Open-VCLIP interpolates with)
belongs to the object, so that optimizer, state and resume go through it. Which configuration means which class stands
in `CLASSES`; `smaller_pieces` and `in_precision` change memory and arithmetic, never what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from .config import METHODS, Config
from .distributed import average_grads, world_size
from .meta import LossFn, Objective, Tensors, meta_gradients, meta_step, read_back


def cross_entropy(learner: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The paper's base loss L_CE of a batch (video [B, T, 3, H, W], labels [B]), mean over clips."""
    video, labels = batch
    return F.cross_entropy(learner(video), labels)


class TrainingMethod(nn.Module):
    """Fine-tuning, and the base of the other methods, which replace its loss or its step.

    Its own parameters are trained beside the learner, which is no submodule: its state is what a resume needs of it.
    """

    passes = 1  # batches of a step: (video, labels), or with 2 a (support, query) pair of those

    def __init__(self, learner: nn.Module, config: Config, teacher: nn.Module | None = None):
        super().__init__()
        self.config = config
        self._others = {"learner": learner, "teacher": teacher}  # in a dict: no submodules, so not in the state
        self.loss_fn = in_precision(smaller_pieces(self.loss, config.micro_batch), config.precision)

    @property
    def learner(self) -> nn.Module:
        return self._others["learner"]

    def loss(self, learner: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(learner, batch)

    def step(self, batch, optimizer: torch.optim.Optimizer, generator: torch.Generator | None) -> dict:
        """Move the learner once, unless a number is not finite; `generator` draws what all processes draw alike."""
        optimizer.zero_grad()
        loss = self.loss_fn(self.learner, batch)
        loss.backward()
        held = (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        theta = {str(number): p for number, p in enumerate(held)}
        return self.move(theta, {name: p.grad for name, p in theta.items()}, optimizer, support_loss=loss)

    def move(self, theta: Tensors, grads: Tensors, optimizer: torch.optim.Optimizer, **losses: Tensor) -> dict:
        """Average the gradients over the processes, clip them, step; returns losses and the norm before clipping."""
        for name, grad in average_grads(grads).items():
            theta[name].grad = grad
        norm = nn.utils.clip_grad_norm_(list(theta.values()), self.config.max_grad_norm)
        numbers = read_back({name: [number] for name, number in (*losses.items(), ("support_grad_norm", norm))})
        optimizer.step()
        optimizer.zero_grad()
        return numbers


class MetaOptimization(TrainingMethod):
    """The paper's cross-batch meta-step on cross-entropy."""

    passes = 2
    metrics = ("support_loss", "query_loss", "support_grad_norm", "query_grad_norm", "grad_inner_product")

    def step(self, batch, optimizer: torch.optim.Optimizer, generator: torch.Generator | None) -> dict:
        config = self.config
        how = {name: getattr(config, name) for name in ("inner_lr", "query_weight", "first_order")}
        if config.inner_sync or world_size() == 1:
            reduce_grads = average_grads if world_size() > 1 else None
            how |= {"max_grad_norm": config.max_grad_norm, "reduce_grads": reduce_grads}
            found = meta_step(self.learner, self.loss_fn, *batch, optimizer, **how)
        else:  # each process takes an inner step of its own, the paper's sum over tasks; averaged is what they merge
            found = meta_gradients(self.learner, self.loss_fn, *batch, **how)
            self.move(_trainable(self.learner), found.grads, optimizer)
        return {name: getattr(found, name) for name in self.metrics}


class InterpolatedWeights(TrainingMethod):
    """Open-VCLIP: the loss counts at the weights and once more between them and CLIP's, drawn anew in every step."""

    def __init__(self, learner: nn.Module, config: Config, teacher: nn.Module | None = None):
        super().__init__(learner, config)
        # theta_CLIP, or of adapters their identity at the start: so it is made before anything is trained or resumed.
        self.anchor = {name: p.detach().clone() for name, p in _trainable(learner).items()}

    def step(self, batch, optimizer: torch.optim.Optimizer, generator: torch.Generator | None) -> dict:
        ratio = self.config.iwr_max * torch.rand(1, generator=generator).tolist()[0]
        how = {"ratio": ratio, "weight": self.config.iwr_weight}
        grads, loss, between = interpolated_gradients(self.learner, self.loss_fn, batch, self.anchor, **how)
        theta, losses = _trainable(self.learner), {"support_loss": loss, "interpolated_loss": between}
        return {"ratio": ratio, **self.move(theta, grads, optimizer, **losses)}


def interpolated_gradients(
    model: nn.Module, loss_fn: LossFn, batch, anchor: Mapping[str, Tensor], *, ratio: float, weight: float
) -> tuple[Tensors, Tensor, Tensor]:
    """The gradient of Open-VCLIP's code (Weng et al., ICML 2023), and the losses at the weights and between."""
    # With theta_r = r theta_CLIP + (1 - r) theta it is grad L(theta) + C grad L at theta_r: the second is *not*
    # multiplied by (1 - r), as the chain rule would have it. `ratio` is r, `weight` is C.
    theta, objective = _trainable(model), Objective(model, loss_fn)
    loss, grads = objective("support_loss", batch, theta)
    between = {name: torch.lerp(p.detach(), anchor[name], ratio).requires_grad_() for name, p in theta.items()}
    lent = {f"model.{name}": tensor for name, tensor in between.items()}
    between_loss, between_grads = functional_call(objective, lent, ("interpolated_loss", batch, between))
    merged = {name: torch.add(grads[name], between_grads[name], alpha=weight) for name in theta}
    return merged, loss, between_loss


class ResidualDistillation(TrainingMethod):
    """Cross-entropy plus FROSTER's residual feature distillation of the video features from frozen CLIP.

    The student's normalized frame features z pass through z + 0.1 P(z), where P is two bias-free linear maps with a
    GELU between and starts at zero; the loss is 1 - cosine to the teacher's, mean over frames. Cross-entropy sees z
    itself, and P is dropped at test time. FROSTER also distills its text features; our text encoder is frozen, so
    that term would be constant and is left out. Whether its paper prints a cosine or an L2 loss is not known to us:
    its code computes the cosine.

    Source: FROSTER (Huang et al., ICLR 2024), its published code.
    """

    residual = 0.1

    def __init__(self, learner: nn.Module, config: Config, teacher: nn.Module | None = None):
        if teacher is None:
            raise ValueError(f"method {config.method!r} distills: it needs a teacher, frozen CLIP")
        super().__init__(learner, config, teacher.eval().requires_grad_(False))
        width = learner.embed_dim
        first, second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.kaiming_normal_(first.weight)
        nn.init.zeros_(second.weight)
        self.projector = nn.Sequential(first, nn.GELU(), second)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean of 1 - cosine between projected student and teacher features, both [..., D] and normalized."""
        projected = student + self.residual * self.projector(student)
        return 1 - F.cosine_similarity(projected, teacher, dim=-1).mean()

    def loss(self, learner: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        video, labels = batch
        features = learner.encode(video)  # [B, T, D]
        with torch.no_grad():
            target = self._others["teacher"].encode(video)
        loss = F.cross_entropy(learner.classify(features), labels)
        return loss + self.config.distill_weight * self.distance(features, target)


CLASSES = {  # (trainer, objective) of a recipe in config.METHODS
    ("plain", "cross_entropy"): TrainingMethod,
    ("plain", "interpolated"): InterpolatedWeights,
    ("plain", "distilled"): ResidualDistillation,
    ("meta", "cross_entropy"): MetaOptimization,
}


def build_method(
    config: Config, learner: nn.Module, teacher: nn.Module | None = None, method: Callable | None = None
) -> TrainingMethod:
    """The configuration's method, on the learner's device, or what the caller's `method(learner, config)` gives."""
    recipe = METHODS[config.method]
    if method is None and recipe.trainer == "none":
        raise ValueError(f"method {config.method!r} does not train")
    with torch.random.fork_rng(devices=[]):  # what it draws for its own weights depends on the seed alone
        torch.manual_seed(config.seed)
        if method is not None:
            return method(learner, config)
        built = CLASSES[recipe.trainer, recipe.objective](learner, config, teacher)
    return built.to(next(learner.parameters()).device)


def build_optimizer(learner: nn.Module, config: Config, method: object = None) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and 1-d tensors get no weight decay (the peers' rule)."""
    beside = method.parameters() if hasattr(method, "parameters") else ()
    trained = {id(p): p for p in (*learner.parameters(), *beside) if p.requires_grad}.values()
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = True if next(learner.parameters()).is_cuda else None  # else the host waits for each tensor's step counter
    return torch.optim.AdamW(groups, lr=config.outer_lr, fused=fused)


def smaller_pieces(loss_fn: LossFn, size: int) -> LossFn:
    """The same loss and gradient with the activations of `size` clips in memory; 0 leaves the loss as it is."""
    if size == 0:
        return loss_fn

    # The batch's loss must be a mean over clips that do not see each other: all losses here, not batch normalization.
    def pieces(model, batch):
        video, labels = batch
        total = 0.0
        for clips, targets in zip(video.split(size), labels.split(size)):
            loss = checkpoint(lambda v, y: loss_fn(model, (v, y)), clips, targets, use_reentrant=False)
            total = total + loss * (len(targets) / len(labels))
        return total

    return pieces


def in_precision(loss_fn: LossFn, precision: str) -> LossFn:
    """The loss under `bf16` autocast, or as it is; weights, gradients and the class-text head stay in float32."""
    if precision == "float32":
        return loss_fn

    def mixed(model, batch):
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
            return loss_fn(model, batch)

    return mixed


def _trainable(model: nn.Module) -> Tensors:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
