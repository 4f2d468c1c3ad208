"""From a configuration to the things it names: the learner, its training clips, a trained method.

The notebooks and command lines call these, so that the same configuration means the same run everywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch.utils.data import Dataset

from .config import METHODS, Config
from .data.datasets import VideoDataset, read_manifest
from .data.synthetic import World, make_set
from .evaluate import evaluate, evaluate_world, record
from .learner import VideoLearner, build_learner
from .train import fit, method_weights


def learner_for(config: Config, device: str = "cpu") -> VideoLearner:
    """The fresh learner that a configuration names; it equals frozen CLIP.

    Args:
        config: the experiment.
        device: where it lives.

    Returns:
        the learner, in evaluation mode.
    """
    return build_learner(
        config.model,
        config.weights,
        adapter_width=config.adapter_width,
        trainable=config.trainable,
        random_weights=config.random_weights,
        seed=config.seed,
        device=device,
    )


def training_clips(config: Config, learner: VideoLearner) -> Dataset:
    """The training clips that a configuration names: base classes of the synthetic world, or a CSV of real videos.

    Args:
        config: the experiment.
        learner: gives the image size.

    Returns:
        a dataset with ``class_names``.
    """
    if config.data == "synthetic":
        return make_set(
            World(config.world_seed),
            train=True,
            rho=config.rho,
            count=config.train_clips,
            num_frames=config.num_frames,
            size=learner.image_size,
        )
    return VideoDataset(
        read_manifest(config.data),
        num_frames=config.num_frames,
        image_size=learner.image_size,
        train=True,
        seed=config.seed,
    )


def train_method(config: Config, runs_dir: str | os.PathLike, device: str = "cpu") -> Path:
    """Train a configuration in its own folder below ``runs_dir``; a finished run is not trained again.

    Args:
        config: the experiment; its method must train.
        runs_dir: the folder of runs.
        device: where to train.

    Returns:
        the run folder.
    """
    learner = learner_for(config, device)
    return fit(learner, training_clips(config, learner), config, Path(runs_dir) / config.run_name())


def trained_learner(config: Config, runs_dir: str | os.PathLike, device: str = "cpu") -> VideoLearner:
    """The learner with the weights that a method is evaluated with.

    Args:
        config: the experiment; for ``frozen`` nothing is loaded.
        runs_dir: the folder of runs.
        device: where it lives.

    Returns:
        the learner, in evaluation mode.

    Raises:
        ValueError: the run is not there or not finished.
    """
    learner = learner_for(config, device)
    if METHODS[config.method].trainer != "none":
        learner.load_trainable(method_weights(Path(runs_dir) / config.run_name(), config))
    return learner


def evaluate_method(
    config: Config,
    runs_dir: str | os.PathLike,
    *,
    sets: tuple[str, ...] = ("source",),
    device: str = "cpu",
    **facts,
) -> list[dict]:
    """Evaluate one method on the data that its configuration names.

    Args:
        config: the experiment.
        runs_dir: the folder of runs.
        sets: sets of the synthetic world; ignored for a CSV.
        device: where to evaluate.
        facts: written into each record.

    Returns:
        result records.
    """
    learner = trained_learner(config, runs_dir, device)
    facts = {"method": config.method, "run": config.run_name(), **facts}
    if config.data == "synthetic":
        return evaluate_world(learner, config, sets=sets, **facts)
    clips = VideoDataset(read_manifest(config.data), num_frames=config.num_frames, image_size=learner.image_size)
    result = evaluate(learner, clips, batch_size=min(config.batch_size, 8))
    return [
        record(
            result,
            set=Path(config.data).stem,
            split="all",
            context="in",
            seed=config.seed,
            weights=learner.weights_id,
            **facts,
        )
    ]
