"""Attention maps of the class token, and measures of static bias that need no new data.

* attention mass on the actor: what share of the class token's attention to patches falls on the actor's pixels,
  beside the share of the area that the actor covers (a model that looks everywhere evenly scores that);
* order gap: how much accuracy falls when the frames of each clip are shuffled or one frame is repeated. A model that
  is blind to the order of frames has an order gap of zero under shuffling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from .learner import VideoLearner
from .scoring import Reordered, evaluate


@contextmanager
def record_attention(module: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """Record the spatial attention of every ``nn.MultiheadAttention`` below a module, in the order they run.

    Yields a dict that fills with {layer: [B*T, heads, N, N]}. open_clip asks for no weights (``need_weights=False``),
    so the request is changed on the way in. Where a layer runs twice in a pass (AIM: along time first), the second
    counts; of expanded attention only the share within the frame itself, whose keys stand last.
    """
    recorded: dict[nn.Module, Tensor] = {}

    def ask(_module, args, kwargs):
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(layer, _args, output):
        own = output[1][..., -output[1].shape[-2] :]
        recorded[layer] = own / own.sum(-1, keepdim=True)

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
    """Where the class token looks within each frame.

    With expanded attention it also looks at the frames before and after: that share is left out here. So is AIM's
    attention along time.

    Args:
        learner: any learner; its mode is left alone.
        video: [B, T, 3, H, W] as the learner takes it.
        method: ``"last"``: the last block's attention, mean over heads; ``"rollout"``: the product over blocks of
            the mean attention with the residual added (Abnar and Zuidema, 2020).

    Returns:
        [B, T, h, w] on the patch grid, each frame summing to 1.

    Raises:
        ValueError: unknown method.
    """
    if method not in ("last", "rollout"):
        raise ValueError(f"method is {method!r}; allowed: last, rollout")
    with record_attention(learner.visual) as recorded:
        learner.encode(video)
    layers = [layer.mean(1) for layer in recorded.values()]  # [B*T, N, N] each
    attention = layers[-1]
    if method == "rollout":
        attention = identity = torch.eye(attention.shape[-1], device=attention.device)
        for layer in layers:
            attention = (layer + identity) / 2 @ attention
    patches = attention[:, 0, 1:]
    patches = patches / patches.sum(-1, keepdim=True)
    side = round(patches.shape[-1] ** 0.5)
    return patches.view(*video.shape[:2], side, side)


def actor_mass(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """(share of attention on the actor [B], the actor's share of the area [B]), means over frames, 0..1.

    Of ``maps`` [B, T, h, w] and ``masks`` [B, T, H, W] bool; attention within a patch counts as even over its pixels.
    """
    share = F.adaptive_avg_pool2d(masks.float(), maps.shape[-2:])  # share of each patch that the actor covers
    return (maps * share).sum((-1, -2)).mean(1), masks.float().mean((-1, -2, -3))


@dataclass(frozen=True)
class StaticBias:
    """Measures of how much a learner relies on what stands still, in percent.

    Attributes:
        accuracy: top-1 on the clips as they are.
        shuffled: top-1 with each clip's frames in random order.
        single_frame: top-1 with the middle frame repeated.
        actor_mass: attention on the actor.
        actor_area: the actor's share of the area.
    """

    accuracy: float
    shuffled: float
    single_frame: float
    actor_mass: float
    actor_area: float

    @property
    def order_gap(self) -> float:
        """Accuracy lost when the frames are shuffled; about zero for a model that is blind to order."""
        return self.accuracy - self.shuffled


def static_bias(learner: VideoLearner, clips: Dataset, *, seed: int = 0, map_clips: int = 256) -> StaticBias:
    """Measure static bias on one set of clips.

    Args:
        learner: with a method's weights loaded.
        clips: items (video [T, 3, H, W], label) with ``class_names`` and, for the actor mass, ``videos`` and ``masks``.
        seed: of the shuffles.
        map_clips: clips whose attention is measured.

    Returns:
        the measures, in percent.
    """
    plain = evaluate(learner, clips).top1
    shuffled = evaluate(learner, Reordered(clips, "shuffled", seed)).top1
    single = evaluate(learner, Reordered(clips, "single")).top1
    maps = attention_maps(learner, clips.videos[:map_clips])
    mass, area = actor_mass(maps, clips.masks[:map_clips])
    return StaticBias(plain, shuffled, single, 100 * mass.mean().item(), 100 * area.mean().item())
