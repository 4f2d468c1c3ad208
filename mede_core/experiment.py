"""From a configuration to the things it names: the learner, its training clips, a trained method.

The notebooks and command lines call these, so that the same configuration means the same run everywhere.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from .checkpoints import interpolate, method_weights
from .config import METHODS, Config
from .distributed import rank
from .files import pack_correct, run_lock
from .learner import VideoLearner, build_learner
from .scoring import Evaluation, evaluate
from .train import fit
from .video.clips import VideoDataset
from .video.manifest import read_sidecar, select
from .video.prompts import load_prompts
from .weights import SMALL_CLIP
from .world.synthetic import CONTEXTS, SETS, ClipSet, World, make_set


def learner_for(config: Config, device: str = "cpu") -> VideoLearner:
    """The fresh learner that a configuration names; it equals frozen CLIP.

    Args:
        config: the experiment.
        device: where it lives.

    Returns:
        the learner, in evaluation mode.
    """
    _check_home(config)
    # Frozen CLIP sees each frame by itself: expanded attention, which has no identity, must not be in it.
    plain = METHODS[config.method].trainer == "none" and config.temporal_module == "expanded"
    return build_learner(
        config.model,
        config.weights,
        trainable=config.trainable,
        temporal_module=config.temporal_module,
        adapter_width=0 if plain else config.adapter_width,
        adapter_form=config.adapter_form,
        num_frames=config.num_frames,
        border=config.border,
        random_weights=config.random_weights,
        seed=config.seed,
        device=device,
    )


def _check_home(config: Config) -> None:
    """Refuse a small CLIP of other home scenes: its bias would point elsewhere than the clips'."""
    if config.data != "synthetic" or config.model != "mede-small" or config.random_weights:
        return
    facts = (SMALL_CLIP if config.weights == "shipped" else Path(config.weights)) / "training.json"
    theirs = json.loads(facts.read_text(encoding="utf-8"))["home_seed"] if facts.is_file() else config.home_seed
    if theirs != config.home_seed:
        raise ValueError(f"home_seed is {config.home_seed}; the CLIP {config.weights!r} was pretrained with {theirs}")


def teacher_for(config: Config, device: str = "cpu") -> VideoLearner | None:
    """Frozen CLIP for a method that distills, frame by frame; None for the others.

    Args:
        config: the experiment.
        device: where it lives.

    Returns:
        a learner without a temporal module, with the same CLIP weights as :func:`learner_for`.
    """
    if METHODS[config.method].objective != "distilled":
        return None
    return build_learner(
        config.model,
        config.weights,
        trainable="visual",
        adapter_width=0,
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
        clips = make_set(
            World(config.world_seed, config.home_seed),
            half=f"kept_{config.held_out}" if config.held_out else "base",
            train=True,
            rho=config.rho,
            count=config.train_clips,
            num_frames=config.num_frames,
            size=learner.image_size,
        )
        if config.shuffle_labels:
            order = np.random.default_rng([config.seed, config.world_seed]).permutation(len(clips))
            clips.labels = clips.labels[torch.from_numpy(order)]
        return clips
    manifest = select(config.data, split=config.data_split, half=config.half, shots=config.shots, seed=config.seed)
    return VideoDataset(
        manifest,
        num_frames=config.num_frames,
        image_size=learner.image_size,
        sampling=config.sampling,
        train=True,
        seed=config.seed,
        flip_directions=config.flip_directions,
    )


def train_method(
    config: Config, runs_dir: str | os.PathLike, device: str = "cpu", *, processes: int = 1, num_workers: int = 0
) -> Path:
    """Train a configuration in its own folder below ``runs_dir``; a finished run is not trained again.

    Args:
        config: the experiment; its method must train.
        runs_dir: the folder of runs.
        device: where to train.
        processes: more than one starts torchrun on this machine and waits for it.
        num_workers: of each process's data loader.

    Returns:
        the run folder.

    Raises:
        RuntimeError: torchrun failed; its own messages went to stderr.
    """
    run_dir = Path(runs_dir) / config.run_name()
    if processes > 1:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.json"
            file.write_text(config.model_dump_json(), encoding="utf-8")
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
                       "-m", "mede_core", "train", "--config", str(file), "--runs", os.fspath(runs_dir),
                       "--device", device, "--num-workers", str(num_workers)]  # fmt: skip
            code = subprocess.run(command, check=False).returncode
        if code:
            raise RuntimeError(f"torchrun ended with exit code {code}; what failed is said above")
        return run_dir
    learner, teacher = learner_for(config, device), teacher_for(config, device)
    learner.text_cache = Path(runs_dir) / "text_features"
    clips = training_clips(config, learner)
    texts = load_prompts(config.prompts).texts(clips.class_names)
    with run_lock(run_dir) if rank() == 0 else nullcontext():
        return fit(learner, clips, config, run_dir, texts=texts, teacher=teacher, num_workers=num_workers)


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
    learner, method = learner_for(config, device), METHODS[config.method]
    learner.text_cache = Path(runs_dir) / "text_features"
    if method.trainer != "none":
        weights = method_weights(Path(runs_dir) / config.run_name(), config)
        if method.patched:  # between CLIP and what was learned; of adapters: between their identity and that
            weights = interpolate(weights, learner.trainable_state(), config.patch_ratio)
        learner.load_trainable(weights)
    return learner


def evaluate_method(
    config: Config,
    runs_dir: str | os.PathLike,
    *,
    sets: tuple[str, ...] = ("source",),
    device: str = "cpu",
    skip_bad: bool = False,
    num_workers: int = 0,
    **facts,
) -> list[dict]:
    """Evaluate one method on the data that its configuration names.

    Args:
        config: the experiment.
        runs_dir: the folder of runs.
        sets: sets of the synthetic world; ignored for a CSV.
        device: where to evaluate.
        skip_bad: go on without videos that cannot be read, instead of refusing them.
        num_workers: of the data loader.
        facts: written into each record.

    Returns:
        result records.
    """
    learner = trained_learner(config, runs_dir, device)
    facts = {"method": config.method, "run": config.run_name(), **facts}
    if config.data == "synthetic":
        return evaluate_world(learner, config, sets=sets, **facts)
    return [
        evaluate_videos(
            learner, config, config.data, split=config.data_split, half=config.half,
            skip_bad=skip_bad, num_workers=num_workers, **facts,
        )
    ]  # fmt: skip


def evaluate_videos(
    learner: VideoLearner,
    config: Config,
    data: str | os.PathLike,
    *,
    split: str = "all",
    half: str = "all",
    skip_bad: bool = False,
    num_workers: int = 0,
    **facts,
) -> dict:
    """Evaluate a learner on videos of a CSV, in the views and with the prompts that the configuration names.

    Args:
        learner: with a method's weights loaded.
        config: views, sampling, prompts, batch size.
        data: the CSV.
        split: rows of that membership.
        half: all classes, or the base or the novel half, scored among themselves.
        skip_bad: go on without videos that cannot be read, instead of refusing them.
        num_workers: of the data loader.
        facts: written into the record.

    Returns:
        one result record; ``prompts``, ``views`` and ``skipped`` stand beside the number.
    """
    prompts = load_prompts(config.prompts)
    clips = VideoDataset(
        select(data, split=split, half=half),
        num_frames=config.num_frames,
        image_size=learner.image_size,
        sampling=config.sampling,
        views=config.views,
        compat=config.compat or None,
        skip_bad=skip_bad,
    )
    result = evaluate(learner, clips, batch_size=min(config.batch_size, 8), num_workers=num_workers, texts=prompts.texts(clips.class_names))
    name = (read_sidecar(data) or {}).get("dataset") or Path(data).stem
    about = {"set": name, "split": half, "part": split, "context": "in", "seed": config.seed}
    about |= {"weights": learner.weights_id, "prompts": prompts.id, "views": config.views, "skipped": len(clips.bad)}
    return record(result, **about, **facts)


def record(result: Evaluation, **facts) -> dict:
    """One result record: top-1 in percent, the clip count and each clip's correctness, beside the given facts."""
    return {
        **facts,
        "metric": "top1",
        "value": result.top1,
        "n": len(result.labels),
        "correct": pack_correct(result.correct),
    }


def evaluate_world(
    learner: VideoLearner,
    config: Config,
    *,
    sets: tuple[str, ...] = ("source",),
    contexts: tuple[str, ...] = CONTEXTS,
    halves: tuple[str, ...] = ("base", "novel"),
    parts: tuple[int, ...] = (1,),
    **facts,
) -> list[dict]:
    """Evaluate on sets of the synthetic world, in and out of context.

    Args:
        learner: with the method's weights loaded.
        config: world seed, clips a set, frames.
        sets: names of the world's sets.
        contexts: ``in`` and the out-of-context backgrounds; the twins share actors and motions clip by clip.
        halves: ``base`` and ``novel``, each scored among its own classes, or ``all`` of a set's classes together, or
            a fold, see :meth:`World.actions`.
        parts: independent draws of clips: 1, 2 and 3 stand for a data set's three test splits.
        facts: written into each record (method, run, profile, ...).

    Returns:
        records with set, split (the half), part, context, value and per-clip correctness.
    """
    unknown = sorted(set(sets) - set(SETS))
    if unknown:
        raise ValueError(f"sets are {unknown}; allowed: {', '.join(SETS)}")
    about = {"seed": config.seed, "world_seed": config.world_seed, "rho": config.rho, "weights": learner.weights_id}
    records = []
    for name, half, context, part in itertools.product(sets, halves, contexts, parts):
        drawn = (name, half, context, part, config.test_clips, config.num_frames, learner.image_size)
        result = evaluate(learner, _rendered(World(config.world_seed, config.home_seed), *drawn))
        records.append(record(result, set=name, split=half, context=context, part=part, **about, **facts))
    return records


# Every method is tested on the same clips, so they are rendered once. The cache must hold all sets of a notebook (11
# has 37): methods take turns over them, and a smaller one would forget each set before it is asked for again.
@lru_cache(maxsize=64)  # 80 MB for a set of 2,500 clips, 13 MB for one of 400
def _rendered(
    world: World, name: str, half: str, context: str, part: int, count: int, num_frames: int, size: int
) -> ClipSet:
    return make_set(world, name, half=half, context=context, split=part, count=count, num_frames=num_frames, size=size)
