"""Temporal modules that turn open_clip's image transformer into a video learner.

* ``st_adapter``: a bottleneck with a depthwise convolution over time in front of each block's attention;
* ``aim``: bottlenecks around each block's frozen attention, which is used a second time, along time;
* ``expanded``: no parameters; each frame's tokens also attend to those of the frames before and after it.

The first two start as the identity, so a fresh learner equals frozen CLIP exactly. Expanded attention does not:
its zero keys at a clip's borders take attention away, and neighbors bring theirs.

Modules are installed by changing the class of an existing one (``module.__class__ = ...``): weights and checkpoint
names stay as they are, and ``copy.deepcopy`` works, which forward hooks would break.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNorm, ResidualAttentionBlock
from torch import Tensor, nn

TEMPORAL_MODULES = ("st_adapter", "aim", "expanded")
# Of the ST-Adapter: (LayerNorm before the down-projection and GELU after the convolution, which part starts at zero).
ADAPTER_FORMS = {
    "ours": (True, "up"),
    "published": (False, "up"),  # as the authors' fork of Open-VCLIP has it (stadapt_zeroinit)
    "published_conv": (False, "conv"),  # as ST-Adapter itself has it
}
BORDERS = ("zero", "mask")


class STAdapter(nn.Module):
    """Spatio-temporal bottleneck adapter on patch tokens: norm, down, temporal convolution, GELU, up, residual.

    Source: ST-Adapter (Pan et al., NeurIPS 2022) as the authors' fork places it: before attention, patch tokens
    only, up-projection zero at the start. Paper does not say which norm or activation: the published adapter has
    neither; ours has a LayerNorm before the down-projection and a GELU after the convolution, because at small
    width the plain form learned motion several times slower (change it with ``norm`` and ``activation``; the
    study's section ``adapters`` measures the difference).

    Args:
        width, bottleneck: channels of the transformer, and inside the adapter.
        kernel_size: temporal extent of the depthwise convolution, odd, in frames.
        zero: which part is zero at the start and makes the adapter the identity: ``up`` (the fork), or ``conv``
            with all biases (ST-Adapter's own initialization).
    """

    def __init__(self, width: int, bottleneck: int, *, kernel_size: int = 3, norm: bool = True,
                 activation: bool = True, zero: str = "up"):  # fmt: skip
        super().__init__()
        if bottleneck < 1:
            raise ValueError(f"bottleneck is {bottleneck}; it must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it must be a positive odd number of frames")
        if zero not in ("up", "conv"):
            raise ValueError(f"zero is {zero!r}; allowed: up, conv")
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.down = nn.Linear(width, bottleneck)
        self.conv = nn.Conv1d(bottleneck, bottleneck, kernel_size, padding=kernel_size // 2, groups=bottleneck)
        self.activation = nn.GELU() if activation else nn.Identity()
        self.up = nn.Linear(bottleneck, width)
        for layer in (self.up,) if zero == "up" else (self.conv, self.down, self.up):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.up.weight if zero == "up" else self.conv.weight)

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Add temporal context to the patch tokens of [B*T, 1+P, D] (class token first, a clip's frames adjacent)."""
        cls, patches = tokens[:, :1], tokens[:, 1:]
        hidden = self.down(self.norm(patches)).unflatten(0, (-1, num_frames))  # [B, T, P, d]
        update = self.up(self.activation(self._over_time(hidden))).flatten(0, 1)
        return torch.cat([cls, patches + update], dim=1)

    def _over_time(self, hidden: Tensor) -> Tensor:
        """``conv`` of [B, T, P, d] along T as a sum of shifted frames: no transposed copies, a compiler fuses it."""
        # Depthwise kernels made a training step of ViT-B/16 on an H100 1.34 times slower (benchmarks/gpu.md), and one
        # of the small CLIP on a CPU 1.05 times.
        taps, bias = self.conv.weight[:, 0].to(hidden.dtype).unbind(1), self.conv.bias.to(hidden.dtype)
        frames, reach = hidden.shape[1], len(taps) // 2
        padded = F.pad(hidden, (0, 0, 0, 0, reach, reach))
        return sum((padded[:, shift : shift + frames] * tap for shift, tap in enumerate(taps)), bias)


class STAdapterBlock(ResidualAttentionBlock):
    """open_clip's residual attention block with an ST-Adapter in front of its attention."""

    adapter: STAdapter
    num_frames: int

    def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
        return super().forward(self.adapter(q_x, self.num_frames), k_x, v_x, attn_mask)


class Bottleneck(nn.Module):
    """AIM's adapter on [..., D], without a residual: down, GELU, up; zero at the start, since its up-projection is."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(tokens)))


class AIMBlock(ResidualAttentionBlock):
    """open_clip's block with AIM's three adapters.

    Source: AIM (Yang et al., ICLR 2023): the frozen attention runs along time first and passes through an adapter
    of its own; the spatial attention and the MLP get one each, the latter in parallel and halved. Its drop path is
    left out: it is a regularizer of long Kinetics trainings and would make the steps random.
    """

    temporal_adapter: Bottleneck
    spatial_adapter: Bottleneck
    mlp_adapter: Bottleneck
    num_frames: int

    def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
        frames, count, width = q_x.shape
        over_time = q_x.view(-1, self.num_frames, count, width).transpose(1, 2).reshape(-1, self.num_frames, width)
        over_time = self.attention(q_x=self.ln_1(over_time)).view(-1, count, self.num_frames, width)
        x = q_x + self.temporal_adapter(over_time.transpose(1, 2).reshape(frames, count, width))
        attended = self.attention(q_x=self.ln_1(x), attn_mask=attn_mask)
        x = x + self.ls_1(attended + self.spatial_adapter(attended))
        normed = self.ln_2(x)
        return x + self.ls_2(self.mlp(normed)) + 0.5 * self.mlp_adapter(normed)


class TemporalLayerNorm(LayerNorm):
    """The LayerNorm before the first block, with AIM's temporal embedding (zero at the start) added to its input."""

    temporal_embedding: nn.Parameter  # [T, D]
    num_frames: int

    def forward(self, x: Tensor) -> Tensor:
        expected = len(self.temporal_embedding)
        if self.num_frames != expected:
            raise ValueError(f"video has {self.num_frames} frames; this AIM learner was built for {expected}")
        embedding = self.temporal_embedding.repeat(len(x) // expected, 1)  # [B*T, D]
        return super().forward(x + embedding[:, None])


class SelfAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose query, key and value are one, without its transposes where gradients are taken.

    It computes [N, M, D] inside: a training step of the small CLIP takes 1.11 times as long with it. Without gradients
    it runs as it is, so that a fresh learner equals frozen CLIP bit for bit.
    """

    plain = True  # attends to its own frame alone

    def forward(self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
                average_attn_weights=True, is_causal=False):  # fmt: skip
        if key is not query or value is not query or attn_mask is not None or key_padding_mask is not None:
            raise ValueError(f"{type(self).__name__} is self-attention without a mask")
        if self.plain and not torch.is_grad_enabled():
            return super().forward(query, key, value, None, need_weights, None, average_attn_weights)
        return self.attend(query, need_weights, average_attn_weights)

    def attend(self, query: Tensor, need_weights: bool, average_attn_weights: bool) -> tuple[Tensor, Tensor | None]:
        """[M, N, D], and the weights [M, heads, N, keys] or their mean over heads."""
        frames, count, width = query.shape
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.view(frames, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # [M, heads, N, d]
        k, v, seen = self.keys(k, v)
        if not need_weights:
            attended, weights = F.scaled_dot_product_attention(q, k, v, attn_mask=seen), None
        else:
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            weights = (logits if seen is None else logits.masked_fill(~seen, -torch.inf)).softmax(-1)
            attended = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        return self.out_proj(attended.transpose(1, 2).reshape(frames, count, width)), weights

    def keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values, and which of them are seen (None: all)."""
        return k, v, None


class NeighborAttention(SelfAttention):
    """Self-attention whose keys and values also come from the frames before and after, without new parameters.

    Keys and values are projected once per frame and then concatenated: after, before, itself. A clip's first frame has
    none before it and its last none after: as published, zero keys and values stand there, which still take their share
    of the softmax (exp(0) for each token); ``border="mask"`` leaves them out.

    The frames before and after enter the softmax alike: a learner with this attention and the mean over frames gives
    a clip and its exact reversal the same logits, however it is trained. It sees change, but not its direction.

    Source: Open-VCLIP (Weng et al., ICML 2023), its expanded temporal view.
    """

    plain = False
    num_frames: int
    border: str

    def keys(self, k, v):
        seen = self._inside(len(k), k.shape[-2], k.device) if self.border == "mask" else None
        return self._with_neighbors(k), self._with_neighbors(v), seen  # [B*T, heads, 3N, d]

    def _with_neighbors(self, x: Tensor) -> Tensor:
        clips = x.unflatten(0, (-1, self.num_frames))
        none = torch.zeros_like(clips[:, :1])
        after, before = torch.cat([clips[:, 1:], none], 1), torch.cat([none, clips[:, :-1]], 1)
        return torch.cat([after, before, clips], dim=-2).flatten(0, 1)

    def _inside(self, frames: int, count: int, device) -> Tensor:
        """[B*T, 1, 1, 3N] bool: which keys are frames of the clip."""
        frame = torch.arange(frames, device=device) % self.num_frames
        seen = torch.stack([frame < self.num_frames - 1, frame > 0, torch.ones_like(frame, dtype=torch.bool)], 1)
        return seen.repeat_interleave(count, 1)[:, None, None]


def insert_temporal(visual: nn.Module, temporal_module: str = "st_adapter", *, bottleneck: int = 24,
                    form: str = "ours", num_frames: int = 8, border: str = "zero") -> list[nn.Module]:  # fmt: skip
    """Give every block of an open_clip ViT its temporal module, in place; returns the modules that must be told T."""
    allowed = (("temporal_module", temporal_module, TEMPORAL_MODULES), ("adapter_form", form, ADAPTER_FORMS),
               ("border", border, BORDERS))  # fmt: skip
    for name, value, values in allowed:
        if value not in values:
            raise ValueError(f"{name} is {value!r}; allowed: {', '.join(values)}")
    if bottleneck < 1:
        raise ValueError(f"adapter_width is {bottleneck}; it must be at least 1")
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or any(type(block) is not ResidualAttentionBlock for block in blocks):
        raise ValueError(
            f"model has a visual tower of type {type(visual).__name__}; adapters need an open_clip ViT of "
            "ResidualAttentionBlock (ViT-B-32, ViT-B-16, ViT-L-14, ...)"
        )
    width = blocks[0].ln_1.normalized_shape[0]
    aware = list(blocks)
    for block in blocks:
        block.attn.__class__ = NeighborAttention if temporal_module == "expanded" else SelfAttention
        if temporal_module == "st_adapter":
            plus, zero = ADAPTER_FORMS[form]
            block.__class__ = STAdapterBlock
            block.adapter = STAdapter(width, bottleneck, norm=plus, activation=plus, zero=zero)
        elif temporal_module == "aim":
            block.__class__ = AIMBlock
            for name in ("temporal_adapter", "spatial_adapter", "mlp_adapter"):
                setattr(block, name, Bottleneck(width, bottleneck))
    if temporal_module == "aim":
        if type(visual.ln_pre) is not LayerNorm:
            raise ValueError(f"ln_pre is of type {type(visual.ln_pre).__name__}; AIM needs open_clip's LayerNorm")
        visual.ln_pre.__class__ = TemporalLayerNorm
        visual.ln_pre.temporal_embedding = nn.Parameter(torch.zeros(num_frames, width))
        aware.append(visual.ln_pre)
    elif temporal_module == "expanded":
        aware = [block.attn for block in blocks]
        for attention in aware:
            attention.border = border
    for module in aware:
        module.num_frames = 1
    return aware
