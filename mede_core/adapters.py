"""Temporal modules that turn open_clip's image transformer into a video learner.

Only the ST-Adapter lives here so far: a bottleneck with a depthwise convolution over time, inserted in front of
the attention of every block. It starts as the identity, so a fresh learner equals frozen CLIP exactly.
"""

from __future__ import annotations

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn


class STAdapter(nn.Module):
    """Spatio-temporal bottleneck adapter on patch tokens: norm, down, temporal convolution, GELU, up, residual.

    Source: ST-Adapter (Pan et al., NeurIPS 2022) as the authors' fork places it: before attention, patch tokens
    only, up-projection zero at the start. Paper does not say which norm or activation: the published adapter has
    neither; ours has a LayerNorm before the down-projection and a GELU after the convolution, because at small
    width the plain form learned motion several times slower (change it with ``norm`` and ``activation``).

    Args:
        width: channels of the transformer.
        bottleneck: channels inside the adapter.
        kernel_size: temporal extent of the depthwise convolution, odd, in frames.
        norm: LayerNorm before the down-projection.
        activation: GELU after the temporal convolution.
    """

    def __init__(
        self, width: int, bottleneck: int, *, kernel_size: int = 3, norm: bool = True, activation: bool = True
    ):
        super().__init__()
        if bottleneck < 1:
            raise ValueError(f"adapter_width is {bottleneck}; it must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it must be a positive odd number of frames")
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.down = nn.Linear(width, bottleneck)
        self.conv = nn.Conv1d(bottleneck, bottleneck, kernel_size, padding=kernel_size // 2, groups=bottleneck)
        self.activation = nn.GELU() if activation else nn.Identity()
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)  # identity at the start: the fresh learner is frozen CLIP
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Add temporal context to the patch tokens of each clip.

        Args:
            tokens: [B*T, 1+P, D], class token first, the T frames of a clip adjacent.
            num_frames: T.

        Returns:
            tokens of the same shape; the class token is passed through untouched.
        """
        cls, patches = tokens[:, :1], tokens[:, 1:]
        frames, count, _ = patches.shape
        clips = frames // num_frames
        hidden = self.down(self.norm(patches))  # [B*T, P, d]
        hidden = hidden.view(clips, num_frames, count, -1).permute(0, 2, 3, 1)  # [B, P, d, T]
        hidden = self.conv(hidden.reshape(clips * count, -1, num_frames))  # [B*P, d, T]
        hidden = hidden.view(clips, count, -1, num_frames).permute(0, 3, 1, 2)  # [B, T, P, d]
        update = self.up(self.activation(hidden)).reshape(frames, count, -1)
        return torch.cat([cls, patches + update], dim=1)


class STAdapterBlock(ResidualAttentionBlock):
    """open_clip's residual attention block with an adapter in front of its attention.

    Instances are made by :func:`insert_adapters`, which changes the class of an existing block: its weights and
    their checkpoint names stay as they are, and ``copy.deepcopy`` works (hooks would break under it).
    """

    adapter: STAdapter
    num_frames: int

    def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
        return super().forward(self.adapter(q_x, self.num_frames), k_x, v_x, attn_mask)


def insert_adapters(visual: nn.Module, bottleneck: int, **adapter_options) -> list[STAdapterBlock]:
    """Give every block of an open_clip ``VisionTransformer`` its own ST-Adapter, in place.

    Args:
        visual: open_clip's visual tower, a ViT built of ``ResidualAttentionBlock``.
        bottleneck: channels inside each adapter.
        adapter_options: passed to :class:`STAdapter`.

    Returns:
        the blocks, whose ``num_frames`` the learner sets before each forward pass.

    Raises:
        ValueError: the tower is not a ViT of plain residual attention blocks.
    """
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or any(type(block) is not ResidualAttentionBlock for block in blocks):
        raise ValueError(
            f"model has a visual tower of type {type(visual).__name__}; adapters need an open_clip ViT of "
            "ResidualAttentionBlock (ViT-B-32, ViT-B-16, ViT-L-14, ...)"
        )
    for block in blocks:
        block.__class__ = STAdapterBlock
        block.adapter = STAdapter(block.ln_1.normalized_shape[0], bottleneck, **adapter_options)
        block.num_frames = 1
    return list(blocks)
