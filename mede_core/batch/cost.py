"""What a run on real videos finds, lacks and will cost, said before it starts: hours from timing a few steps here."""

import json
import logging
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ..config import METHODS, Config
from ..files import atomic_write, available_cpus
from ..names import content_hash, digest
from ..report.summary import duration
from ..schedule import steps_of
from ..video.decode import probe, read_clip
from ..video.manifest import read_sidecar, select
from ..weights import cached_weights
from . import PlanError
from .data_yaml import DATASETS
from .doctor import gpu_names
from .plan import Plan

logger = logging.getLogger(__name__)

# With --config FILE --steps N --device DEVICE: one JSON line. On a slow device ten seconds are steps enough.
COMMAND = [sys.executable, "-m", "mede_core", "cost", "--seconds", "10"]
TIMED_STEPS, TIMED_VIDEOS, TIMEOUT_S = 20, 8, 3600.0
TIMED_BY = (  # fields of Config that the time of a step depends on
    "model", "num_frames", "batch_size", "micro_batch", "precision", "trainable", "temporal_module", "adapter_width",
    "adapter_form", "first_order",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    stamp: str
    words: str
    config: Config
    steps: int  # of the optimizer; 0 for a scoring
    clips: int  # read, views counted one by one
    data: str = ""  # the list of videos that is read; frame folders are not timed

    read = property(lambda self: f"read-{content_hash(self.data)}" if self.data else "")

    def timed_steps(self) -> int:
        return max(1, min(TIMED_STEPS, self.steps or self.clips // self.config.batch_size))

    def kind(self, device: str) -> str:
        method = METHODS[self.config.method]
        fields = {name: getattr(self.config, name) for name in TIMED_BY}
        return digest({**fields, "trainer": method.trainer, "objective": method.objective, "device": device})[:16]


@lru_cache(maxsize=256)
def count(data: str, split: str, half: str, shots: int = 0) -> int:
    return len(select(data, split=split, half=half, shots=shots).paths)


def works(plan: Plan) -> list[Work]:
    """What the trainings and scorings of a plan on real videos will do; lists that lack the videos are an error."""
    scuba = {one.list: one.clips for found in plan.data.scuba.values() for one in found.values()}
    asked = [("train", name, config, []) for name, config in plan.trainings.items()]
    asked += [("score", name, asks[0].config, [one for ask in asks for one in ask.sets])
              for name, asks in plan.scorings.items()]  # fmt: skip
    found, problems = [], {}
    for kind, name, config, sets in asked:
        steps, clips = 0, 0
        data = next((one.data for one in sets if not one.root), "" if sets else config.data)
        try:
            if kind == "train":
                videos = count(config.data, config.data_split, config.half, config.shots)
                batches = steps_of(config, videos)
                if batches < (least := 2 if METHODS[config.method].trainer == "meta" else 1):
                    given = f"{videos} videos give {batches or 'no'} full batch of {config.batch_size} (batch_size)"
                    raise ValueError(f"{given}; {config.method} takes at least {least} an epoch")
                steps, clips = batches * config.epochs, batches * config.epochs * config.batch_size
            for one in sets:
                clips += one.views * (scuba[one.data] if one.root else count(one.data, one.part, one.half))
        except ValueError as error:
            problems[str(error)] = None
        found.append(Work(f"{kind}/{name}", f"{kind} {plan.words(config)}", config, steps, clips, data))
    if problems:
        raise PlanError("\n  ".join(["the plan and data.yaml do not fit together", *problems]))
    return found


def report(plan: Plan, out: Path, *, measure: bool) -> None:
    """Say what is there, what is missing and what it will cost; a dry run only looks up what was timed before."""
    counts = f"{len(plan.trainings)} trainings, {len(plan.scorings)} scorings, {len(plan.runnable)} notebooks"
    logger.info("profile %s: %s", plan.profile, counts)
    if not plan.data:
        return
    todo = [work for work in works(plan) if not (out / ".stamps" / work.stamp).is_file()]
    for line in what_is_there(plan):
        logger.info("  %s", line)
    for needs in sorted({tuple(names) for names in plan.missing.values()}):
        lacking = (name for name, names in plan.missing.items() if tuple(names) == needs)
        logger.info("  not run for lack of %s: %s", ", ".join(needs), ", ".join(lacking))
    if todo:
        report_cost(todo, timings(plan, todo, out / "timing.json", measure), plan)


def report_cost(todo: list[Work], answers: dict, plan: Plan) -> None:
    device, processes, total, disk, unknown, slow = plan.data.device, plan.data.processes, 0.0, 0.0, 0, 0
    readers = min(available_cpus(), processes * plan.workers)
    logger.info("cost, on %s, shared by %d processes; %d workers read meanwhile", device, processes, readers)
    for work in todo:
        answer = answers.get(work.kind(device))
        what = f"{work.steps:,} steps of {work.config.batch_size} clips" if work.steps else f"{work.clips:,} clips"
        if not answer:
            unknown += 1
            logger.info("  %-40s %s: not timed", work.words, what)
            continue
        steps, clips = work.steps * answer["seconds_per_step"], work.clips / answer["clips_per_second_eval"]
        computing = (steps if work.steps else clips) / processes  # evenly, and nothing is lost between them
        reads = work.clips * answers.get(work.read, 0.0) / readers
        # Videos are read while the device computes
        seconds, binds = max(computing, reads), f", of which {duration(computing)} compute: reading binds"
        slow += reads > computing
        size = answer.get("trainable_bytes", 0) * work.config.epochs if work.steps else 0
        total, disk = total + seconds, disk + size
        told = f", {size / 1e9:.2g} GB on disk" if size else ""
        told += binds if reads > computing else "" if work.read in answers else "; reading not timed"
        logger.info("  %-40s %s: about %s%s", work.words, what, duration(seconds), told)
    rest = f" without the {unknown} not timed" if unknown else ""
    logger.info("  in all about %s%s; the trajectories take %.2g GB on disk", duration(total), rest, disk / 1e9)
    if slow:
        advice = "videos written anew by `mede prepare --short-side 256`, or more workers, shorten that"
        logger.info("  reading binds %d of %d: %s", slow, len(todo), advice)
    free = shutil.disk_usage(next(place for place in plan.workspace.folder.absolute().parents if place.is_dir())).free
    if disk > free:
        logger.warning("  only %.2g GB are FREE there", free / 1e9)


def timings(plan: Plan, todo: list[Work], kept: Path, measure: bool) -> dict:
    """{kind of step: its timing, a list's key: seconds of a worker for a clip}; each is timed once, and kept."""
    answers, failed = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}, set()

    def keep(key: str, time: Callable, failing: str) -> None:
        try:
            answers[key] = time()
            atomic_write(kept, json.dumps(answers, indent=1) + "\n")
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failed.add(key)
            logger.warning("  %s: %s", failing, error)

    for work in sorted(todo, key=Work.timed_steps, reverse=True) if measure else ():
        kind, steps = work.kind(plan.data.device), work.timed_steps()
        if answers.get(kind, {}).get("steps", 0) < steps and kind not in failed:
            logger.info("timing %d steps of %s on %s", steps, work.words, plan.data.device)
            keep(kind, partial(timed, work, plan.data.device, kept.parent), "no estimate")
        if work.data and work.read not in answers.keys() | failed:
            keep(work.read, partial(seconds_to_read, work.data), f"reading {work.data} is not timed")
    return answers


def seconds_to_read(data: str) -> float:
    """What 8 frames of a video take, the median of a few of a list."""
    paths, times = select(data).paths, []
    for path in paths[:: max(1, len(paths) // TIMED_VIDEOS)][:TIMED_VIDEOS]:
        info, started = probe(path), time.perf_counter()
        read_clip(path, np.linspace(0, info.frames - 1, 8).astype(int), info=info)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def timed(work: Work, device: str, folder: Path) -> dict:
    """Time a few steps, in a process of its own, whose memory ends with it."""
    file = atomic_write(folder / ".work" / "timing.json", json.dumps(work.config.model_dump()))
    command = [*COMMAND, "--config", str(file), "--steps", str(work.timed_steps()), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"exit code {done.returncode}: {last_line[:300]}")
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "steps": work.timed_steps()}


# ------------------------------------------------------------------------------------ what is there
def what_is_there(plan: Plan) -> list[str]:
    """Weights, device and each list of videos, with what is not comparable."""
    data, gpus = plan.data, gpu_names()
    device = f"device {data.device}, {data.processes} process{'es' * (data.processes > 1)}"
    if data.device.startswith("cuda"):
        device += f"; GPUs: {', '.join(gpus)}" if gpus else "; nvidia-smi shows NO GPU here"
        device += f"; MORE processes than GPUs ({len(gpus)})" if gpus and data.processes > len(gpus) else ""
    lines = [f"model {data.model}, {find_weights(plan)}", device]
    if data.settings:
        lines.append("settings: " + ", ".join(f"{name}={value!r}" for name, value in data.settings.items()))
    for name in DATASETS:
        if name not in data.datasets:
            lines.append(f"{name:<12} missing")
            continue
        sidecar = read_sidecar(data.datasets[name]) or {}
        manifest = select(data.datasets[name])
        line = f"{name:<12} {len(manifest.paths):,} videos, {len(manifest.class_names)} classes"
        if problems := sidecar.get("problems"):
            line += f"; {len(problems)} problems when it was prepared, such as {problems[0]}"
        if sidecar.get("comparable") is False:
            line += "; base and novel classes are not the published ones"
        lines.append(line)
    for which, found in data.scuba.items():
        lines += [f"scuba.{which}.{background}: {one.clips:,} clips" for background, one in found.items()]
    return lines


def find_weights(plan: Plan) -> str:
    """Whether the weights that data.yaml names are on this machine."""
    data = plan.data
    if data.random_weights:
        return "RANDOM WEIGHTS: the numbers will mean nothing"
    if Path(data.weights).is_absolute():
        return f"weights {Path(data.weights).name}: a file of this machine"
    if data.model == "mede-small":
        return "weights shipped with the package"
    absent = "NOT on this machine: fetched at first use"
    return f"weights {data.weights}: {'found in the cache' if cached_weights(data.model, data.weights) else absent}"
