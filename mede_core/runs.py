"""A configuration's learner and clips, and a finished training read from its folder. Torch-free at import."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .config import METHODS, Average, Config

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .learner import VideoLearner


def room_of(config: Config):
    """The room that gives a configuration's clips: its ``training_clips`` and ``test_clips``."""
    if config.data == "synthetic":
        from .world import synthetic as room
    else:
        from .video import protocol as room
    return room


def trains(config: Config) -> bool:
    """Whether the method trains: all but frozen CLIP."""
    return METHODS[config.method].trainer != "none"


def learner_for(config: Config, device: str = "cpu") -> VideoLearner:
    """The learner that a configuration names, before training: it equals frozen CLIP (expanded attention does not)."""
    from .learner import build_learner

    if config.data == "synthetic":
        room_of(config).check_home(config)
    # Frozen CLIP sees each frame by itself: expanded attention, which has no identity, must not be in it.
    plain = not trains(config) and config.temporal_module == "expanded"
    names = ("model", "weights", "trainable", "temporal_module", "adapter_form", "num_frames", "border",
             "random_weights", "seed")  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    return build_learner(**settings, adapter_width=0 if plain else config.adapter_width, device=device)


def teacher_for(config: Config, device: str = "cpu") -> VideoLearner | None:
    """Frozen CLIP, frame by frame, for a method that distills; None for the others."""
    from .learner import build_learner

    if METHODS[config.method].objective != "distilled":
        return None
    settings = {name: getattr(config, name) for name in ("model", "weights", "random_weights", "seed")}
    return build_learner(**settings, trainable="visual", adapter_width=0, device=device)


def seconds_of_a_pass(learner: VideoLearner, clips, config: Config) -> float:
    """How long a forward and backward pass of one training batch takes here; the learner is left as it was."""
    import torch
    import torch.nn.functional as F

    learner.set_classes(clips.class_names)
    videos, labels = zip(*(clips[index] for index in range(min(config.batch_size, len(clips)))))
    device = learner.logit_scale.device
    video, label = torch.stack(videos).to(device), torch.as_tensor(labels).to(device)
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    for _ in range(2):  # the first is slower than the others will be
        started = time.perf_counter()
        loss = F.cross_entropy(learner(video), label)
        torch.autograd.grad(loss, parameters)
        loss.item()
        seconds = time.perf_counter() - started
    return seconds


@dataclass(frozen=True)
class Run:
    """A finished training: its folder, the configuration that was asked for, and how it came to be."""

    folder: Path
    config: Config
    shipped: bool = False
    older: bool = False  # made by other code than this

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def facts(self) -> dict:
        """Settings in words, CLIP weights, code, commit and machine of the run, steps and seconds of its training."""
        files = (self.folder / name for name in ("config.json", "done.json"))
        return {key: value for file in files for key, value in json.loads(file.read_text(encoding="utf-8")).items()}

    def metrics(self) -> pd.DataFrame:
        """One row a step: epoch, step, lr, support_loss, support_grad_norm and what else the method writes."""
        import pandas as pd

        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return pd.DataFrame([json.loads(line) for line in lines])

    def trajectory(self) -> Iterator[dict[str, Tensor]]:
        """{name: tensor} of the trained tensors after epochs 1 to E, read one at a time."""
        from .checkpoints import trajectory

        return trajectory(self.folder, self.config.epochs)

    def weights(self, config: Config | Average | None = None) -> dict[str, Tensor]:
        """{name: tensor} that are tested: the average of a configuration's method (default: the run's own), or any."""
        from .averages import averaged

        average = config if isinstance(config, Average) else (config or self.config).average()
        theta_0 = learner_for(self.config).trainable_state()
        return averaged(average, self.trajectory(), theta_0, self.config.epochs)
