"""A configuration's learner and clips, and a finished training read from its folder. Torch-free at import."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .config import METHODS, Average, Config
from .files import read_lines, repo_root, say_once
from .names import as_imported
from .weights import support

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
    fits = support(config.model)
    if trains(config) and not fits.adapters:
        raise ValueError(fits.said)
    # Frozen CLIP sees each frame by itself: expanded attention, which has no identity, must not be in it.
    plain = not trains(config) and (config.temporal_module == "expanded" or not fits.adapters)
    names = ("model", "weights", "trainable", "temporal_module", "adapter_form", "num_frames", "border",
             "random_weights", "seed")  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    settings |= {"trainable": "visual", "adapter_width": 0} if plain else {"adapter_width": config.adapter_width}
    return build_learner(**settings, device=device)


def teacher_for(config: Config, device: str = "cpu") -> VideoLearner | None:
    """Frozen CLIP, frame by frame, for a method that distills; None for the others."""
    from .learner import build_learner

    if METHODS[config.method].objective != "distilled":
        return None
    settings = {name: getattr(config, name) for name in ("model", "weights", "random_weights", "seed")}
    return build_learner(**settings, trainable="visual", adapter_width=0, device=device)


def speed_up(learner: VideoLearner, config: Config) -> VideoLearner:
    """On a GPU: TF32 where float32 remains, no needless copies, and of a model of full size the encoder compiled."""
    if learner.logit_scale.is_cuda:
        import torch

        from .speed import compile_encoder, without_copies

        torch.set_float32_matmul_precision("high")
        without_copies(learner)
        if config.data != "synthetic":  # compiling takes half a minute, longer than the small CLIP needs for an epoch
            compile_encoder(learner)
    return learner


def clips_at_once(learner: VideoLearner, config: Config) -> int:
    """How many videos a test takes at once: 8; on a GPU, as many as fill half of the memory that is free."""
    import torch

    if not learner.logit_scale.is_cuda:
        return min(config.batch_size, 8)
    torch.cuda.reset_peak_memory_stats()
    before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
    size = (config.views, config.num_frames, 3, learner.image_size, learner.image_size)
    with torch.no_grad():
        learner.encode(torch.zeros(size, device=learner.logit_scale.device))
    return max(1, min(256, free // 2 // (torch.cuda.max_memory_allocated() - before)))


@dataclass(frozen=True)
class Run:
    """A finished training: its folder, the configuration that was asked for, and how it came to be."""

    folder: Path
    config: Config
    shipped: bool = False
    older: bool = False  # made by other code than this

    name = property(lambda self: self.folder.name)

    @cached_property
    def facts(self) -> dict:
        """Settings in words, CLIP weights, code, commit, machine, steps and seconds of the run; does it ship?"""
        found = [json.loads((self.folder / name).read_text(encoding="utf-8")) for name in ("config.json", "done.json")]
        return {**found[0], **found[1], "shipped": self.shipped, "older": self.older}

    def metrics(self) -> pd.DataFrame:
        """One row a step: epoch, step, lr, support_loss, support_grad_norm and what else the method writes."""
        import pandas as pd

        return pd.DataFrame(read_lines(self.folder / "metrics.jsonl"))

    def epoch(self, number: int) -> dict[str, Tensor]:
        """{name: tensor} of the trained tensors after an epoch, 1 to E."""
        from .checkpoints import checkpoint_path, load_checkpoint

        return load_checkpoint(checkpoint_path(self.folder, number))[0]

    def trajectory(self) -> Iterator[dict[str, Tensor]]:
        """The trained tensors of epochs 1 to E, read one at a time; of shipped runs, open_mede's has them all."""
        return map(self.epoch, range(1, self.config.epochs + 1))

    def weights(self, config: Config | Average | None = None) -> dict[str, Tensor]:
        """{name: tensor} that are tested: the average of a configuration's method (default: the run's own), or any."""
        from .averages import averaged

        average = config if isinstance(config, Average) else (config or self.config).average()
        return averaged(average, self.epoch, learner_for(self.config).trainable_state(), self.config.epochs)


# ------------------------------------------------------------------------------------ the folder of runs
def stale_runs(folder: Path) -> dict[Path, tuple[int, str]]:
    """{run folder: (bytes, why no question of today finds it)}: by other code, half done, or of an earlier naming."""
    found = {}
    no_runs = ("scores", "text_features", ".locks")
    for run in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in no_runs):
        facts = run / "config.json"
        files = json.loads(facts.read_text(encoding="utf-8")).get("files") if facts.is_file() else None
        if run.name.endswith(".new") or run.name.startswith(".replaced"):
            found[run] = "left by a run that was stopped"
        elif files is None:
            found[run] = "of an earlier naming, not read"
        elif changed := [module for module, tree in files.items() if as_imported(module) != tree]:
            found[run] = f"older code: {', '.join(changed)}"
    sizes = {run: sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) for run in found}
    return {run: (sizes[run], why) for run, why in found.items()}


def default_folder() -> Path:
    """MEDE_RUNS, else `runs/` of the repository, else `mede_runs` here, said once."""
    given, root = os.environ.get("MEDE_RUNS"), repo_root()
    folder = Path(given) if given else root / "runs" if root else Path("mede_runs").absolute()
    if not given and not root:
        say_once(f"runs and scores are kept in {folder}")
    return folder
