"""An image encoder without needless copies, and compiled, for GPUs."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .adapters import SelfAttention, STAdapter
from .learner import VideoLearner


def without_copies(learner: VideoLearner) -> VideoLearner:
    """Patches embedded by a matrix product, and attention and adapters without copies: the same up to rounding."""
    for module in learner.visual.modules():
        if isinstance(module, SelfAttention):
            module.plain = False
        elif type(module) is STAdapter:
            module.__class__ = WholeAdapter
    patches = getattr(learner.visual, "conv1", None)
    if type(patches) is nn.Conv2d and patches.kernel_size == patches.stride:
        patches.__class__ = PatchProduct
    return learner


def compile_encoder(learner: VideoLearner, **options) -> None:
    """Compile the encoder and the normalization of its frames."""
    for module in (learner.visual, learner.normalize):
        module.compile(**options)


class WholeAdapter(STAdapter):
    """Of all tokens, the class token's update left out: no copy of the patches (benchmarks/gpu.md)."""

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        hidden = self.down(self.norm(tokens)).unflatten(0, (-1, num_frames))
        update = self.up(self.activation(self._over_time(hidden))).flatten(0, 1)
        return tokens + update.where(torch.arange(tokens.shape[1], device=tokens.device)[:, None] > 0, 0)


class PatchProduct(nn.Conv2d):
    """The convolution of patches that do not overlap: 7 % of an evaluation of ViT-B/16 on an H200 by cuDNN's kernel."""

    def forward(self, images: Tensor) -> Tensor:
        high, wide = self.kernel_size
        patches = images.unflatten(3, (-1, wide)).unflatten(2, (-1, high)).permute(0, 2, 4, 1, 3, 5)
        return linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
