"""Evaluation on real videos, in context and out of context: the parts and halves of a data set, and SCUBA's clips."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config import Config
from ..experiment import evaluate_videos, record, trained_learner
from ..learner import VideoLearner
from ..report.metrics import contrasted_accuracy
from ..scoring import evaluate
from .prompts import load_prompts
from .protocol import BUILT, IN_CONTEXT_CLIPS, _built, _template, departures, full_class_names
from .scuba.frames import FrameFolderDataset, read_frame_list


def evaluate_real(
    config: Config,
    runs_dir: str | os.PathLike,
    data: str | os.PathLike,
    *,
    name: str = "",
    splits: Sequence[str] = ("all",),
    halves: Sequence[str] = ("all",),
    scuba: Mapping[str, Mapping[str, str]] | None = None,
    scufo: bool = False,
    device: str = "cpu",
    skip_bad: bool = False,
    num_workers: int = 0,
    **facts,
) -> list[dict]:
    """Evaluate a trained method on real videos.

    Args:
        config: the experiment, as it was trained.
        runs_dir: the folder of runs.
        data: the CSV of test videos.
        name: ``set`` of the records; default: the name of the CSV.
        splits: memberships of the CSV's split column, each tested by itself.
        halves: ``all``, ``base``, ``novel``, each tested by itself among its own classes.
        scuba: background -> list and root, see :func:`evaluate_scuba`; where given, the videos themselves are not
            tested and ``data`` only names the classes.
        scufo: with ``scuba``: also the contrasted accuracy.
        device: where to evaluate.
        skip_bad: go on without what cannot be read, instead of refusing it.
        num_workers: of the data loader.
        facts: written into each record.

    Returns:
        result records; ``departs`` says what keeps them from being comparable with the paper's.
    """
    learner, name = trained_learner(config, runs_dir, device), name or Path(data).stem
    loading = {"skip_bad": skip_bad, "num_workers": num_workers}
    facts = {"method": config.method, "run": config.run_name(), "departs": departures(config, data), **facts}
    if scuba:
        names = full_class_names(data)
        return evaluate_scuba(learner, config, name, scuba, names, scufo=scufo, **loading, **facts)
    return [
        {**evaluate_videos(learner, config, data, split=split, half=half, **loading, **facts), "set": name}
        for half in halves
        for split in splits
    ]


def evaluate_scuba(
    learner: VideoLearner,
    config: Config,
    which: str,
    backgrounds: Mapping[str, Mapping[str, str]],
    class_names: list[str],
    *,
    scufo: bool = False,
    skip_bad: bool = False,
    num_workers: int = 0,
    **facts,
) -> list[dict]:
    """Evaluate a learner on the out-of-context clips of a data set, background by background.

    Frames are sampled uniformly. Paper does not say how it reads them: the authors' leftovers do so.

    Args:
        learner: with a method's weights loaded.
        config: views, prompts, batch size.
        which: name of the data set, such as ``ucf101``.
        backgrounds: name -> ``list`` (frame list) and ``root`` (folder of its frames), as in data.yaml.
        class_names: all classes of the data set, in label order.
        scufo: also test each clip with one frame repeated, for the contrasted accuracy: right with motion and wrong
            without.
        skip_bad: go on without clips that cannot be read, instead of refusing them.
        num_workers: of the data loader.
        facts: written into each record.

    Returns:
        a record for each background, which is its ``context``; with ``scufo`` a second of the metric ``contrasted``.
    """
    prompts, records = load_prompts(config.prompts), []
    about = {"set": which, "split": "all", "part": "scuba", "seed": config.seed, "weights": learner.weights_id}
    about |= {"prompts": prompts.id, "views": config.views}
    for background, entry in backgrounds.items():
        frames = read_frame_list(entry["list"], entry["root"], class_names, _template(entry["list"]), skip_bad=skip_bad)
        results = []
        for still in (False, True)[: 1 + scufo]:
            clips = FrameFolderDataset(
                frames, config.num_frames, learner.image_size, config.views, scufo=still, skip_bad=skip_bad
            )
            size = min(config.batch_size, 8)
            texts = prompts.texts(clips.class_names)
            results.append(evaluate(learner, clips, batch_size=size, num_workers=num_workers, texts=texts))
            skipped = len(clips.bad)
        here = {**about, "context": background, "skipped": skipped, **facts}
        if _built(entry["list"]).is_file() and background != IN_CONTEXT_CLIPS:
            here["departs"] = "; ".join(filter(None, [here.get("departs", ""), BUILT]))
        records.append(record(results[0], **here))
        if scufo:
            value = contrasted_accuracy(results[0].correct, results[1].correct)
            records.append({**here, "metric": "contrasted", "value": value, "n": len(results[0].labels)})
    return records
