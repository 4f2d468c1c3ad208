"""What the parts cost beside their peers, on this machine: `make bench`, or `python benchmarks/bench_cpu.py`.

Every row times two functions that do the same, in turns, so that what else the machine does hits both; a ratio is the
median over rounds of ours over theirs, so below 1 ours is faster. Memory is counted from tensor allocations. Peers
(`pip install higher torchopt ema-pytorch graphviz`) are compared where they are installed, after the same numbers came
out of both.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from mede_core.config import METHODS, load_config
from mede_core.gwa import GaussianWeightAverage, average_trajectory, gaussian_weights
from mede_core.learner import build_learner
from mede_core.meta import meta_gradients
from mede_core.methods import build_method, build_optimizer, cross_entropy
from mede_core.report.costs import allocation_peak
from mede_core.runs import learner_for, teacher_for, trains

PRODUCTS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_convolution", "aten::convolution_backward")
ALPHA, CLASSES, EPOCHS = 0.5, [f"class {number}" for number in range(36)], 22


def peer(name: str):
    """A module that need not be installed, or None."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f"({name} is not installed: its rows are left out)")
        return None


class Bench:
    def __init__(self, rounds: int, batch: int):
        self.rounds, self.batch = rounds, batch
        generator = torch.Generator().manual_seed(0)
        videos = torch.randint(0, 256, (2, batch, 8, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.support, self.query = ((video, torch.arange(batch) % len(CLASSES)) for video in videos)
        print(f"\n{'ours':34}{'beside':34}{'ours ms':>9}{'ratio':>7}{'MiB':>7}{'beside':>7}")

    def row(self, ours: str, run, beside: str, reference, rounds: int = 0) -> None:
        pairs, memory = [], [allocation_peak(one) / 2**20 for one in (run, reference)]
        for _ in range(rounds or self.rounds):
            times = []
            for function in (run, reference):
                started = time.perf_counter()
                function()
                times.append(time.perf_counter() - started)
            pairs.append(times)
        ratio, taken = statistics.median(a / b for a, b in pairs), statistics.median(a for a, _ in pairs)
        print(f"{ours:34}{beside:34}{1e3 * taken:9.1f}{ratio:7.2f}{memory[0]:7.0f}{memory[1]:7.0f}", flush=True)

    def step(self, method: str, **changes):
        """One training step of a method, the learner and its optimizer as training has them."""
        config = load_config("cpu", method=method, batch_size=self.batch, **changes)
        learner = learner_for(config).set_classes(CLASSES).train()
        built = build_method(config, learner, teacher_for(config))
        optimizer, generator = build_optimizer(learner, config, built), torch.Generator().manual_seed(0)
        given = (self.support, self.query) if built.passes == 2 else self.support
        return lambda: built.step(given, optimizer, generator)


# ------------------------------------------------------------------------------------ the meta-step
def methods(bench: Bench) -> None:
    for name in METHODS:
        if name != "finetune" and trains(load_config("cpu", method=name)):
            bench.row(f"a step of {name}", bench.step(name), "a step of finetune", bench.step("finetune"))
    bench.row("second-order meta-step", bench.step("open_mede", first_order=False),
              "first-order meta-step", bench.step("open_mede"))  # fmt: skip


def peers_of_the_meta_step(bench: Bench) -> None:
    learner = build_learner().set_classes(CLASSES).train()
    names = [name for name, p in learner.named_parameters() if p.requires_grad]
    higher, torchopt = peer("higher"), peer("torchopt")

    def ours():
        return meta_gradients(learner, cross_entropy, bench.support, bench.query, inner_lr=ALPHA).grads

    def by_higher():
        inner, kept = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], ALPHA), []
        with higher.innerloop_ctx(learner, inner, copy_initial_weights=False, track_higher_grads=False) as (net, step):
            step.step(cross_entropy(net, bench.support), grad_callback=lambda grads: kept.extend(grads) or grads)
            fast = dict(net.named_parameters())
            query = torch.autograd.grad(cross_entropy(net, bench.query), [fast[name] for name in names])
        support = [grad for grad in kept if grad is not None]
        return dict(zip(names, map(torch.add, support, query)))

    def by_torchopt():
        def loss(tensors, batch):
            return F.cross_entropy(functional_call(learner, tensors, (batch[0],)), batch[1])

        theta = {name: p.detach().requires_grad_() for name, p in learner.named_parameters() if p.requires_grad}
        inner = torchopt.sgd(lr=ALPHA)
        grads = dict(zip(theta, torch.autograd.grad(loss(theta, bench.support), list(theta.values()))))
        updates, _ = inner.update(dict(grads), inner.init(theta), inplace=False)
        fast = torchopt.apply_updates(theta, updates, inplace=False)
        query = torch.autograd.grad(loss(fast, bench.query), list(fast.values()))
        return dict(zip(names, map(torch.add, grads.values(), query)))

    for package, module, theirs in (("higher", higher, by_higher), ("torchopt", torchopt, by_torchopt)):
        if module is not None:
            expected = ours()
            for name, grad in theirs().items():
                torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-7)
            bench.row("meta-gradient, first order", ours, f"the same by {package}", theirs)


# ------------------------------------------------------------------------------------ averages, texts
def averages(bench: Bench) -> None:
    learner = build_learner()
    ours, theirs = GaussianWeightAverage(learner, 15.0, 10.0), AveragedModel(learner, use_buffers=False)
    epochs = iter(range(1, 10**6))
    bench.row("GWA, one epoch", lambda: ours.update(learner, next(epochs)), "AveragedModel, of all tensors",
              lambda: theirs.update_parameters(learner))  # fmt: skip
    if (ema := peer("ema_pytorch")) is not None:
        average = ema.EMA(learner, beta=0.9, update_after_step=0, update_every=1)
        bench.row("GWA, one epoch", lambda: ours.update(learner, next(epochs)), "ema-pytorch, of all tensors",
                  average.update)  # fmt: skip
    trajectory = [{name: p + epoch for name, p in learner.trainable_state().items()} for epoch in range(EPOCHS)]
    shares = gaussian_weights(EPOCHS, 15.0, 10.0)

    def by_torch():
        average = AveragedModel(learner, use_buffers=False)
        for tensors in trajectory:
            average.update_parameters(learner.load_trainable(tensors))

    bench.row(f"average of {EPOCHS} epochs afterwards", lambda: average_trajectory(trajectory, shares),
              "AveragedModel fed with them", by_torch)  # fmt: skip


def texts(bench: Bench) -> None:
    learner, templates = build_learner(), ["{}", "a video of {}", "a photo of {}", "someone does {}"]
    clip, tokenizer = learner._text

    @torch.no_grad()
    def one_by_one():
        for name in CLASSES:
            encoded = [clip.encode_text(tokenizer([template.format(name)])) for template in templates]
            F.normalize(torch.cat(encoded), dim=-1).mean(0)

    def ours():
        learner._feature_cache.clear()
        learner.set_classes(CLASSES, templates)

    bench.row("features of 36 x 4 class texts", ours, "one text at a time", one_by_one)
    bench.row("switching back to known classes", lambda: learner.set_classes(CLASSES, templates),
              "encoding them", ours)  # fmt: skip


# ------------------------------------------------------------------------------------ input, matrix rate
class Videos(Dataset):
    """The same file again and again, 8 frames of it."""

    def __init__(self, path: Path, backend: str, count: int = 8):
        from mede_core.video.decode import probe

        self.path, self.count, self.info = path, count, probe(path)
        if backend == "pyav":
            self.info = replace(self.info, timeline=replace(self.info.timeline, reader="seek"))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        from mede_core.video.decode import read_clip

        return torch.from_numpy(read_clip(self.path, range(0, 240, 30), info=self.info))


def write_video(path: Path, size: tuple[int, int], frames: int = 240) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (size[1] // 16, size[0] // 16, 3), np.uint8)
        for number in range(frames):
            picture = np.roll(noise, number, 1).repeat(16, 0).repeat(16, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def decoding() -> None:
    print("\nclips/s of 8 of 240 frames, by decoder and workers of the data loader (0: in the process itself)")
    with tempfile.TemporaryDirectory() as folder:
        for size in ((1280, 720), (456, 256)):
            path = write_video(Path(folder) / f"{size[1]}.mp4", size)
            for backend in ("pyav", "decord"):
                if backend == "decord" and peer("decord") is None:
                    continue
                rates = []
                for workers in (0, 1, 2):
                    loader = iter(DataLoader(Videos(path, backend), 2, num_workers=workers))
                    next(loader)  # workers have started
                    started, count = time.perf_counter(), sum(map(len, loader))
                    rates.append(f"{workers}: {count / (time.perf_counter() - started):.1f}")
                print(f"  {size[0]} x {size[1]}, {backend:8}{'  '.join(rates)}", flush=True)


def matrix_rate(bench: Bench) -> None:
    learner, size = build_learner().set_classes(CLASSES), 1024
    a, b = torch.randn(2, size, size)
    video, labels = bench.support
    tokens, widths = torch.randn(video.shape[0] * video.shape[1] * 17, 96), torch.randn(96, 384)  # of the MLP
    with FlopCounterMode(display=False) as counter:
        loss = cross_entropy(learner, (video, labels))
        forward = counter.get_total_flops()
        loss.backward()
    both, times = counter.get_total_flops(), []

    @torch.no_grad()
    def test():
        learner(video)

    step = bench.step("finetune")
    for _ in range(bench.rounds):
        spent = []
        for run in (lambda: a @ b, test, step, lambda: tokens @ widths):
            started = time.perf_counter()
            run()
            spent.append(time.perf_counter() - started)
        rate = 2 * size**3 / spent[0]
        product = 2 * tokens.numel() * widths.shape[1] / spent[3]
        times.append((forward / spent[1] / rate, both / spent[2] / rate, product / rate))
    tested, trained, product = (statistics.median(column) for column in zip(*times))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    needed = sum(taken for name, taken in spent.items() if name in PRODUCTS or "scaled_dot_product" in name)
    share = needed / sum(spent.values())
    print(f"\nof the matrix rate ({rate / 1e9:.0f} GFLOP/s, {size} x {size}): evaluation {tested:.2f}, a training step "
          f"{trained:.2f}, the MLP's own product {product:.2f}; products and attention are {share:.2f} of a training "
          f"step's time, so with all else free it would reach {trained / share:.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.rounds} rounds, small CLIP, "
          f"batches of {options.batch_size} clips of 8 frames")  # fmt: skip
    bench = Bench(options.rounds, options.batch_size)
    for part in (methods, peers_of_the_meta_step, averages, texts, matrix_rate):
        part(bench)
    decoding()


if __name__ == "__main__":
    main()
