"""Where a learner looks, maps that explain a class, and measures of static bias: by attention and by intervention."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from .learner import VideoLearner
from .scoring import Reordered, evaluate


@dataclass(frozen=True)
class LayerAttention:
    """What one attention layer did within each frame: N tokens, M = B*T frames."""

    weights: Tensor  # [M, heads, N, N]
    value: Tensor  # [M, N, D], the layer's input
    output: Tensor  # [M, N, D]


@contextmanager
def record_attention(module: nn.Module) -> Iterator[dict[nn.Module, LayerAttention]]:
    """Record every ``nn.MultiheadAttention`` below a module, in the order they run, in a dict that fills meanwhile."""
    recorded: dict[nn.Module, LayerAttention] = {}

    def ask(_module, args, kwargs):  # open_clip asks for no weights
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(layer, args, output):
        # AIM's layers run along time first: the second pass counts. Expanded attention has the frame's own keys last.
        recorded[layer] = LayerAttention(output[1][..., -output[1].shape[-2] :], args[-1], output[0])

    layers = [layer for layer in module.modules() if isinstance(layer, nn.MultiheadAttention)]
    handles = [layer.register_forward_pre_hook(ask, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()  # not inference_mode: the class-text features made in here are used in training later
def attention_maps(learner: VideoLearner, video: Tensor, *, method: str = "last") -> Tensor:
    """Where the class token looks within each frame: [B, T, h, w] on the patch grid, each frame summing to 1.

    With expanded attention it also looks at the frames before and after: that share is left out here. So is AIM's
    attention along time. ``method``: ``last``, the last block's attention, mean over heads; ``rollout``, the product
    over blocks of the mean attention with the residual added (Abnar and Zuidema, 2020); else a ValueError.
    """
    if method not in ("last", "rollout"):
        raise ValueError(f"method is {method!r}; allowed: last, rollout")
    with record_attention(learner.visual) as recorded:
        learner.encode(video)
    layers = [(one.weights / one.weights.sum(-1, keepdim=True)).mean(1) for one in recorded.values()]  # [B*T, N, N]
    attention = layers[-1]
    if method == "rollout":
        attention = identity = torch.eye(attention.shape[-1], device=attention.device)
        for layer in layers:
            attention = (layer + identity) / 2 @ attention
    patches = attention[:, 0, 1:]
    return _on_grid(patches / patches.sum(-1, keepdim=True), video)


def _on_grid(patches: Tensor, video: Tensor) -> Tensor:
    side = round(patches.shape[-1] ** 0.5)
    return patches.view(*video.shape[:2], side, side)


# ------------------------------------------------------------------------------------ maps that explain a class
def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] of the classes in labels [B], among all of logits [B, K]: what relevance and occlusion explain."""
    return logits.log_softmax(1).gather(1, labels[:, None])[:, 0]


def relevance_maps(learner: VideoLearner, video: Tensor, labels: Tensor) -> Tensor:
    """[B, T, h, w] >= 0, what patches contribute to a class's log-probability: frames compare, clips do not."""
    # Gradient-weighted attention relevance (Chefer, Gur and Wolf, ICCV 2021): positive parts of attention times its
    # gradient, mean over heads, are followed from block to block along the residual stream within each frame.
    frames = learner.normalize(video.to(learner.logit_scale.device)).requires_grad_()  # parameters may be frozen
    with torch.enable_grad(), record_attention(learner.visual) as recorded:
        score = log_probability(learner(frames), labels).sum()
        gradients = torch.autograd.grad(score, [layer.output for layer in recorded.values()])
    relevance = torch.eye(next(iter(recorded.values())).weights.shape[-1], device=frames.device)
    for (module, layer), gradient in zip(recorded.items(), gradients, strict=True):
        step = (weight_gradient(module, layer, gradient) * layer.weights).clamp(min=0).mean(1).detach()
        relevance = relevance + step @ relevance
    return _on_grid(relevance[:, 0, 1:], video)


def weight_gradient(module: nn.MultiheadAttention, layer: LayerAttention, gradient: Tensor) -> Tensor:
    """[M, heads, N, N] gradient by the attention weights, from that by the layer's output [M, N, D]."""
    start = 2 * module.embed_dim  # the values are the last third of what is projected
    values = F.linear(layer.value, module.in_proj_weight[start:], module.in_proj_bias[start:])
    attended = gradient @ module.out_proj.weight
    attended, values = (one.unflatten(-1, (module.num_heads, -1)) for one in (attended, values))  # [M, N, heads, d]
    return torch.einsum("mqhd,mkhd->mhqk", attended, values)


@torch.no_grad()
def occlusion_maps(learner: VideoLearner, video: Tensor, labels: Tensor, *, window: int = 8, stride: int = 2,
                   together: bool = False, batch_size: int = 256) -> Tensor:  # fmt: skip
    """How far a class's log-probability falls when a square is covered with the weights' mean color: [B, T, h, w] in
    nats, below zero where what is covered speaks against the class; many passes.

    The square, ``window`` pixels wide, slides in steps of ``stride``: h = w = (H - window) // stride + 1. ``together``
    covers the same place of all frames at once, in T times fewer passes, and gives each frame the same map.
    """
    frames, count = learner.normalize(video.to(learner.logit_scale.device)), video.shape[1]  # zero: the mean color
    starts = range(0, video.shape[-1] - window + 1, stride)
    squares = torch.zeros(len(starts) ** 2, video.shape[-2], video.shape[-1], dtype=torch.bool, device=frames.device)
    for square, (top, left) in zip(squares, ((y, x) for y in starts for x in starts), strict=True):
        square[top : top + window, left : left + window] = True
    shown = torch.eye(count, dtype=torch.bool, device=frames.device)  # one frame at a time
    shown = shown.any(0, keepdim=True) if together else shown
    covers = (shown[:, None, :, None, None, None] & squares[None, :, None, None]).flatten(0, 1)  # [places, T, 1, H, W]
    maps = []
    for clip, label in zip(frames, labels, strict=True):
        parts = (torch.zeros_like(covers[:1]), *covers.split(batch_size))  # nothing covered comes first
        scores = torch.cat([log_probability(learner(torch.where(part, 0.0, clip)), label.expand(len(part)))
                            for part in parts])  # fmt: skip
        maps.append((scores[0] - scores[1:]).view(-1, len(starts), len(starts)).expand(count, -1, -1))
    return torch.stack(maps)


MAPS: dict[str, Callable[[VideoLearner, Tensor, Tensor], Tensor]] = {  # of clips [B, T, 3, H, W] and classes [B]
    "attention": lambda learner, video, labels: attention_maps(learner, video),
    "rollout": lambda learner, video, labels: attention_maps(learner, video, method="rollout"),
    "relevance": relevance_maps,
    "occlusion": occlusion_maps,
}


# ------------------------------------------------------------------------------------ static bias
def frame_orders(count: int, seed=0) -> dict[str, np.ndarray]:
    """{order: frame numbers} of a clip of so many frames: shuffled by the seed, reversed, the middle one alone."""
    frames = np.arange(count)
    shuffled = np.random.default_rng(seed).permutation(count)
    return {"shuffled": shuffled, "reversed": frames[::-1].copy(), "one frame": 0 * frames + count // 2}


def class_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] by how much the logit of a class (labels [B]) is above the highest other one of [B, K]."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.gather(1, labels[:, None])[:, 0] - others.amax(1)


def actor_mass(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """(share of attention on the actor [B], the actor's share of the area [B]), of maps [B, T, h, w] and masks."""
    share = F.adaptive_avg_pool2d(masks.float(), maps.shape[-2:])  # share of each patch that the actor covers
    return (maps * share).sum((-1, -2)).mean(1), masks.float().mean((-1, -2, -3))


@dataclass(frozen=True)
class StaticBias:
    """Measures of how much a learner relies on what stands still, in percent."""

    accuracy: float  # top-1 on the clips as they are
    shuffled: float  # top-1 with each clip's frames in random order
    single_frame: float  # top-1 with the middle frame repeated
    actor_mass: float  # attention on the actor
    actor_area: float  # the actor's share of the area

    @property
    def order_gap(self) -> float:
        """Accuracy lost when the frames are shuffled; about zero for a model that is blind to order."""
        return self.accuracy - self.shuffled


def static_bias(learner: VideoLearner, clips: Dataset, *, seed: int = 0, map_clips: int = 256) -> StaticBias:
    """Measure static bias on one set of clips, in percent.

    ``clips``: items (video [T, 3, H, W], label) with ``class_names`` and, for the actor mass of the first
    ``map_clips``, ``videos`` and ``masks``; ``seed``: of the shuffles.
    """
    plain = evaluate(learner, clips).top1
    shuffled = evaluate(learner, Reordered(clips, "shuffled", seed)).top1
    single = evaluate(learner, Reordered(clips, "single")).top1
    maps = attention_maps(learner, clips.videos[:map_clips])
    mass, area = actor_mass(maps, clips.masks[:map_clips])
    return StaticBias(plain, shuffled, single, 100 * mass.mean().item(), 100 * area.mean().item())


@torch.no_grad()
def causal_effects(learner: VideoLearner, clips: Dataset, swapped: Dataset) -> dict[str, np.ndarray]:
    """By how much the margin of each clip's class falls when one thing is changed and all else is as before.

    ``swapped`` are the actors and motions of ``clips`` before other backgrounds, clip by clip. Gives [N] in logits of
    ``background`` (swapped: about zero without static bias) and ``motion`` (frames in reversed order: zero, up to
    rounding, for a learner that is blind to order). And [N] bool, whether the answer is right: of the clips as they
    are (``whole``), ``swapped``, ``shuffled`` (frames in random order) and ``single`` (the middle frame, repeated).
    """
    learner.set_classes(clips.class_names)

    def margins(videos: Tensor) -> np.ndarray:
        parts = zip(videos.split(64), clips.labels.split(64))
        device = learner.logit_scale.device
        return torch.cat([class_margin(learner(v.to(device)), y.to(device)) for v, y in parts]).cpu().numpy()

    videos, generator = clips.videos, torch.Generator().manual_seed(0)
    count, frames = videos.shape[:2]
    orders = torch.rand(count, frames, generator=generator).argsort(1)
    changed = {
        "whole": videos, "swapped": swapped.videos, "shuffled": videos[torch.arange(count)[:, None], orders],
        "single": videos[:, frames // 2, None].expand_as(videos), "reversed": videos.flip(1),
    }  # fmt: skip
    found = {name: margins(each) for name, each in changed.items()}
    effects = {"background": found["whole"] - found["swapped"], "motion": found["whole"] - found.pop("reversed")}
    return {**effects, **{name: margin > 0 for name, margin in found.items()}}
