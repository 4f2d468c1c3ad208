"""What a GPU is given: TF32, compiled encoders without needless copies, and as many clips at once as it holds."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .adapters import SelfAttention
from .config import Config
from .learner import VideoLearner


def speed_up(learner: VideoLearner, config: Config) -> VideoLearner:
    """On a GPU: TF32 where float32 remains, no needless copies, and of a model of full size the encoder compiled."""
    if learner.logit_scale.is_cuda:
        torch.set_float32_matmul_precision("high")
        without_copies(learner)
        if config.data != "synthetic":  # compiling takes half a minute, longer than the small CLIP needs for an epoch
            learner.visual.compile(options={"coordinate_descent_tuning": True})
    return learner


def without_copies(learner: VideoLearner) -> VideoLearner:
    """Patches embedded by a matrix product, and attention without transposes also in tests: the same up to rounding."""
    for module in learner.visual.modules():
        if isinstance(module, SelfAttention):
            module.plain = False
    patches = getattr(learner.visual, "conv1", None)
    if type(patches) is nn.Conv2d and patches.kernel_size == patches.stride:
        patches.__class__ = PatchProduct
    return learner


class PatchProduct(nn.Conv2d):
    """The convolution of patches that do not overlap: [N, 3, H, W] to [N, D, H/p, W/p].

    cuDNN's kernel for it took 7 % of an evaluation of ViT-B/16 on an H200, many times a matrix product of its size.
    """

    def forward(self, images: Tensor) -> Tensor:
        high, wide = self.kernel_size
        patches = images.unflatten(3, (-1, wide)).unflatten(2, (-1, high)).permute(0, 2, 4, 1, 3, 5)
        return linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def clips_at_once(learner: VideoLearner, config: Config) -> int:
    """How many videos a test takes at once: 8; on a GPU, as many as fill half of the memory that is free."""
    if not learner.logit_scale.is_cuda:
        return min(config.batch_size, 8)
    torch.cuda.reset_peak_memory_stats()
    before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
    size = (config.views, config.num_frames, 3, learner.image_size, learner.image_size)
    with torch.no_grad():
        learner.encode(torch.zeros(size, device=learner.logit_scale.device))
    return max(1, min(256, free // 2 // (torch.cuda.max_memory_allocated() - before)))
