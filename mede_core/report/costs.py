"""What a method costs, as ratios within a run: time of a step and of a test, peak memory. Torch-free at import.
Clips are noise of the right size: reading videos is not in the figures."""

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from ..config import METHODS, Config
from .tables import in_order, method_label
from .write import MISSING


# ------------------------------------------------------------------------------------ measured
def allocation_peak(step: Callable[[], Any]) -> int:
    """The most bytes that `step` held at once on the CPU, beyond what was allocated before it."""
    from torch.profiler import ProfilerActivity, profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # or the profiler writes of each start and stop
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = (one for one in found.profiler.kineto_results.events() if one.name() == "[memory]")
    changes = (one.nbytes() for one in sorted(events, key=lambda one: one.start_ns()))
    return max(itertools.accumulate(changes, initial=0))


@dataclass(frozen=True)
class Cost:
    seconds_per_step: float  # median over the rounds; 0 for a method that does not train
    clips_per_step: int  # that a step sees: of a meta-step those of two batches
    clips_per_second_eval: float  # at test time, one view, median over the rounds
    peak_bytes: int  # the most tensor memory that a training step held beyond what was there before it
    trainable_bytes: int  # of the trained tensors, which is what an epoch's checkpoint takes on disk
    steps: int  # rounds that were timed


def measure_costs(
    configs: Mapping[str, Config], *, steps: int = 20, seconds: float = math.inf, classes: int = 400, device="cpu"
) -> dict[str, Cost]:
    """Time the training step and the evaluation of several configurations, by name, in turns; no data are read. One
    round warms up; at most ``steps`` follow, none begun after ``seconds``; a slow device times the one of memory."""
    works = {name: _work(config, classes, device) for name, config in configs.items()}
    started = time.perf_counter()
    for train, test, _, _ in works.values():
        train()
        test()
    slow = time.perf_counter() - started > seconds
    peaks, times = {}, {name: [] for name in works}
    for name, (train, test, _, _) in works.items():
        begun = time.perf_counter()
        peaks[name] = _peak(train, device)  # waits for the device
        if slow:
            times[name].append((time.perf_counter() - begun, _timed(test, device)))
    started, done = time.perf_counter(), next(iter(times.values()))  # of each as many
    while not done or (not slow and len(done) < steps and time.perf_counter() - started < seconds):
        for name, (train, test, _, _) in works.items():
            times[name].append((_timed(train, device), _timed(test, device)))
    medians = (map(statistics.median, zip(*rows)) for rows in times.values())
    return {
        name: Cost(step if clips else 0.0, clips, configs[name].batch_size / test, peaks[name], size, len(done))
        for (name, (_, _, clips, size)), (step, test) in zip(works.items(), medians)
    }


def _work(config: Config, classes: int, device: str) -> tuple[Callable, Callable, int, int]:
    """A training step (of a method that does not train: nothing) and a test, clips a step, and trainable bytes."""
    import torch

    from ..methods import build_method, build_optimizer
    from ..runs import learner_for, teacher_for

    learner = learner_for(config, device).set_classes(["class"])
    size = (config.batch_size, config.num_frames, 3, learner.image_size, learner.image_size)
    generator = torch.Generator().manual_seed(0)
    # To encode texts would take longer than a step
    texts = torch.randn(classes, learner.text_features.shape[1], generator=generator)
    learner.text_features = torch.nn.functional.normalize(texts).to(device)
    video = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)
    batch = video, torch.randint(0, classes, size[:1], generator=generator).to(device)

    @torch.no_grad()
    def test() -> None:
        learner.eval()(video)

    trainer = METHODS[config.method].trainer
    if trainer == "none":
        return lambda: None, test, 0, 0
    method = build_method(config, learner, teacher_for(config, device))
    optimizer, draws = build_optimizer(learner, config, method), torch.Generator().manual_seed(0)
    batches = (batch, batch) if trainer == "meta" else batch

    def train() -> None:
        learner.train()
        method.step(batches, optimizer, draws)

    state = learner.trainable_state().values()
    clips = config.batch_size * (2 if trainer == "meta" else 1)
    return train, test, clips, sum(tensor.numel() * tensor.element_size() for tensor in state)


def _peak(step: Callable[[], None], device: str) -> int:
    """Peak bytes of a step: the allocator's own figure on a GPU, counted allocations elsewhere."""
    if not device.startswith("cuda"):
        return allocation_peak(step)
    from torch import cuda

    cuda.reset_peak_memory_stats(device)
    before = cuda.memory_allocated(device)
    step()
    cuda.synchronize(device)
    return cuda.max_memory_allocated(device) - before


def _timed(work: Callable[[], None], device: str) -> float:
    from torch import cuda

    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        cuda.synchronize(device)
    return time.perf_counter() - started


def seconds_of_a_pass(learner, clips, config: Config) -> float:
    """How long a forward and backward pass of one training batch takes here; the learner is left as it was."""
    import torch
    from torch.nn.functional import cross_entropy

    learner.set_classes(clips.class_names)
    size = min(config.micro_batch or config.batch_size, len(clips))  # more at once may not fit into memory
    videos, labels = zip(*(clips[index] for index in range(size)))
    device = learner.logit_scale.device
    video, label = torch.stack(videos).to(device), torch.as_tensor(labels).to(device)
    weights = [parameter for parameter in learner.parameters() if parameter.requires_grad]

    def work(count: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = cross_entropy(learner(video[:count]), label[:count])
        torch.autograd.grad(loss, weights)

    # The first pass is slower than the others will be: of one clip
    seconds = [_timed(partial(work, count), str(device)) for count in (1, size)][-1]
    return seconds * config.batch_size / size


# ------------------------------------------------------------------------------------ as tables
def cost_ratio(costs: Mapping[str, Cost], reference: str = "finetune") -> pd.DataFrame:
    """Ratios to the reference, a row a method; NaN in what a method that does not train lacks."""
    measured = pd.DataFrame({name: vars(cost) for name, cost in costs.items()}).T
    one = measured.where(measured != 0) / measured.loc[reference]
    return pd.DataFrame({
        "Time of a step": one["seconds_per_step"], "Clips in a step": one["clips_per_step"],
        "Time a clip, training": one["seconds_per_step"] / one["clips_per_step"],
        "Peak memory of a step": one["peak_bytes"], "Time a clip, testing": 1 / one["clips_per_second_eval"],
    }).loc[in_order(costs)]  # fmt: skip


def cost_table(costs: Mapping[str, Cost]) -> pd.DataFrame:
    """:func:`cost_ratio` as text, a row a method; seconds are left out on purpose."""
    shown = cost_ratio(costs).map(lambda ratio: MISSING if math.isnan(ratio) else f"{ratio:.2f}")
    sizes = [costs[method].trainable_bytes for method in shown.index]
    shown["On disk, an epoch"] = [f"{size / 1e6:.2f} MB" if size else MISSING for size in sizes]
    shown.insert(0, "Method", [method_label(method) for method in shown.index])
    return shown.reset_index(drop=True)


def cost_claims(costs: Mapping[str, Cost]) -> pd.DataFrame:
    """What the note says of costs beside what was measured, as text; ``finetune`` and ``open_mede`` are needed."""
    step, clips, per_clip, memory, test = cost_ratio(costs).loc["open_mede"]
    lines = [
        ("no additional overhead", "time of a step, to fine-tuning", step),
        ("no additional overhead", "time of a step for each clip in it, to fine-tuning", per_clip),
        ("twice the batch data", "clips in a step, to fine-tuning", clips),
        ("memory grows in practice", "peak memory of a step, to fine-tuning", memory),
        ("(of GWA: one model)", "time a clip at test time, to fine-tuning", test),
    ]
    if "froster" in costs:
        ratio = cost_ratio(costs, "froster").loc["open_mede", "Time of a step"]
        lines.append(("CLIP regularization costs extra forward passes", "time of a step, to FROSTER", ratio))
    titles = ("The note says", "Measured as", "Ratio here")
    return pd.DataFrame([(says, what, f"{ratio:.2f}") for says, what, ratio in lines], columns=titles)
