"""What the methods cost on one GPU: `python benchmarks/gpu.py [--device cpu --small]`; after 5 minutes it ends.

Checks come first, then times: each row is printed and appended to benchmarks/gpu.md when it is measured, the most
telling first, and what was not reached is listed. Video and weights are random; a step is what training does, with its
optimizer. MFU counts the multiply-adds that torch's flop counter sees, against the matrix rate measured here.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from mede_core.config import load_config
from mede_core.files import available_cpus
from mede_core.meta import cross_batch_pairs, meta_gradients
from mede_core.methods import build_method, build_optimizer, cross_entropy
from mede_core.runs import learner_for, teacher_for
from mede_core.speed import compile_encoder, without_copies
from mede_core.train import EpochBatches

MODELS = {"ViT-B/16": "ViT-B-16-quickgelu", "ViT-L/14": "ViT-L-14-quickgelu"}
STEPS = ("open_mede", "finetune", "evaluation", "open_vclip", "froster")


class Syncs(TorchDispatchMode):
    """Counts the numbers that are read back from the device: each makes the host wait for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


class Decoded(Dataset):
    """Clips whose decoding takes a given time and none of the device's."""

    def __init__(self, count: int, size: int, seconds: float):
        self.count, self.size, self.seconds = count, size, seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        time.sleep(self.seconds)
        return torch.full((8, 3, self.size, self.size), index % 256, dtype=torch.uint8), index % 9


class Bench:
    """One learner and what its steps cost."""

    def __init__(self, device: str, small: bool, minutes: float):
        self.device, self.small, self.ends = device, small, time.monotonic() + 60 * minutes
        self.rate, self.counted = self.matrix_rate(), {}

    def left(self) -> float:
        return self.ends - time.monotonic()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run, rounds: int = 7) -> float:
        """Median of `rounds` after two that warm up (compile, allocate, choose kernels)."""
        times = []
        for _ in range(rounds + 2):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times[2:])

    def matrix_rate(self) -> float:
        """Measured multiply-adds times two a second, bfloat16 on a GPU."""
        size, dtype = (512, torch.float32) if self.small else (8192, torch.bfloat16)
        a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * size**3 / self.seconds(lambda: a @ b)

    def compile(self, learner) -> None:
        torch._dynamo.reset()  # or what is left of the rows before would count towards torch's limit of recompilations
        compile_encoder(learner, backend="eager" if self.small else "inductor")

    def config(self, model: str, method: str, **changes):
        sizes = {"batch_size": 32, "adapter_width": 384, "adapter_form": "published"}
        if self.small:
            return load_config("smoke", method=method, **changes)
        common = {"model": model, "random_weights": True, "temporal_module": "st_adapter", "trainable": "adapters"}
        return load_config("paper", **{**common, **sizes, "method": method, **changes})

    def step_of(self, model: str, step: str, batch: int, *, compiled: bool, precision: str = "bf16"):
        """(a function that does one step, the learner)."""
        config = self.config(model, "finetune" if step == "evaluation" else step, precision=precision)
        learner = without_copies(learner_for(config, self.device))
        learner.set_classes([f"class {number}" for number in range(400 if not self.small else 9)])
        size = (batch, config.num_frames, 3, learner.image_size, learner.image_size)
        videos = [torch.randint(0, 256, size, dtype=torch.uint8, device=self.device) for _ in range(2)]
        batches = [(video, torch.arange(batch, device=self.device) % 9) for video in videos]
        if compiled:
            self.compile(learner)
        if step == "evaluation":

            @torch.no_grad()
            def run():
                with torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16"):
                    learner.eval()(videos[0])

            return run, learner
        teacher = teacher_for(config, self.device)
        if compiled and teacher is not None:
            self.compile(without_copies(teacher))
        method = build_method(config, learner.train(), teacher)
        optimizer, generator = build_optimizer(learner, config, method), torch.Generator().manual_seed(0)
        given = tuple(batches) if method.passes == 2 else batches[0]
        return lambda: method.step(given, optimizer, generator), learner

    def flops(self, name: str, step: str, batch: int) -> float:
        """Of a step, from those of a forward pass and of a forward and backward pass, counted once a model."""
        if name not in self.counted:
            learner = self.step_of(MODELS[name], "finetune", 1, compiled=False)[1]
            video = torch.zeros(1, 8, 3, learner.image_size, learner.image_size, dtype=torch.uint8, device=self.device)
            with FlopCounterMode(display=False) as both:
                loss = learner(video).sum()
                forward = both.get_total_flops()
                loss.backward()
            self.counted[name] = forward, both.get_total_flops()
        forward, both = self.counted[name]
        of = {"open_mede": 2 * both, "finetune": both, "evaluation": forward, "open_vclip": 2 * both}
        return batch * of.get(step, both + forward)  # FROSTER's teacher is one more forward pass

    def row(self, name: str, step: str, batch: int, compiled: bool) -> str:
        run, _ = self.step_of(MODELS[name], step, batch, compiled=compiled)
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken = self.seconds(run)
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if self.device == "cuda" else ""
        syncs = ""
        if not compiled:
            with Syncs() as counter:
                run()
            syncs = str(counter.count)
        clips = batch * (2 if step == "open_mede" else 1) / taken
        mfu = 100 * self.flops(name, step, batch) / taken / self.rate
        mode = "compiled" if compiled else "eager"
        cells = (name, step, batch, mode, f"{1e3 * taken:.1f}", f"{clips:.0f}", f"{mfu:.0f}", memory, syncs)
        return f"| {' | '.join(map(str, cells))} |"

    def checks(self):
        """Worst relative differences: float32 on the device against float64 on the CPU, compiled, bfloat16."""
        config = load_config("smoke", method="open_mede")
        video = torch.randint(0, 256, (2, 4, 8, 3, 32, 32), dtype=torch.uint8)
        labels = torch.arange(4) % 3

        def grads(device, dtype, *, compiled=False, autocast=False):
            learner = learner_for(config).to(dtype).to(device)
            learner = learner if dtype is torch.float64 else without_copies(learner)
            learner.set_classes(["a", "b", "c"])
            if compiled:
                self.compile(learner)
            (s, q), own = video.to(device), labels.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                found = meta_gradients(learner, cross_entropy, (s, own), (q, own), inner_lr=0.5).grads
            return torch.cat([grad.flatten().double().cpu() for grad in found.values()])

        exact = grads("cpu", torch.float64)
        eager = grads(self.device, torch.float32)
        for name, found, reference in (
            ("meta-gradient, float32 here against float64 on the CPU", eager, exact),
            ("the same, compiled against eager", grads(self.device, torch.float32, compiled=True), eager),
            ("the same, bfloat16 against float64", grads(self.device, torch.float32, autocast=True), exact),
        ):
            yield f"* {name}: {((found - reference).norm() / reference.norm()).item():.1e}"

    def waiting(self, seconds_a_clip: float) -> str:
        """The share of a training's time that waits for clips, where decoding one takes so long in a worker."""
        config, workers = self.config(MODELS["ViT-B/16"], "open_mede", precision="bf16"), available_cpus()
        run, learner = self.step_of(MODELS["ViT-B/16"], "open_mede", config.batch_size, compiled=True)
        self.seconds(run, 1)
        ahead = 4 * workers  # batches that training fetches ahead: counted is what comes after those
        clips = Decoded(2 * ahead * config.batch_size, learner.image_size, seconds_a_clip)
        batches = EpochBatches(clips, config, 1, 2 * ahead, "next", workers, learner.logit_scale.device)
        method = build_method(config, learner)
        optimizer, pairs, waited = build_optimizer(learner, config, method), cross_batch_pairs(batches), 0.0
        for number in range(2 * ahead):
            asked = time.perf_counter()
            pair = next(pairs)
            if number == ahead:
                started, waited = asked, 0.0
            waited += time.perf_counter() - asked
            method.step(pair, optimizer, None)
            self.wait()
        share = 100 * waited / (time.perf_counter() - started)
        said = f"{1e3 * seconds_a_clip:.0f} ms a clip, {workers} workers, batch {config.batch_size}"
        return f"* waiting for input in the meta-step, compiled, decoding {said}: {share:.0f} % of the time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the small CLIP, to see that it runs on a CPU")
    parser.add_argument("--minutes", type=float, default=5, help="what is not measured by then is listed")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".md")))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("not run: there is no GPU here")
        return
    torch.set_float32_matmul_precision("high")  # TF32 where float32 remains
    bench = Bench(options.device, options.small, options.minutes)
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, small sizes"
    with open(options.out, "w", encoding="utf-8") as file:

        def say(line: str) -> None:
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()

        say(f"# {card}, torch {torch.__version__}: matrix rate {bench.rate / 1e12:.3g} TFLOP/s")
        say("\nRandom weights and clips of 8 frames, ST-Adapters of width 384, bfloat16, AdamW, 400 classes. A clip")
        say("counts each time that it is seen. Relative L2 differences of the small CLIP's meta-gradient:\n")
        for line in bench.checks():
            say(line)
        say("\n| model | step | batch | mode | ms | clips/s | MFU % | GiB | syncs |")
        say("|---" * 9 + "|")
        first, other = MODELS
        rows = [(first, step, 64, True) for step in STEPS[:3]]
        rows += [(first, "evaluation", size, True) for size in (128, 256)]
        rows += [(first, step, 32, False) for step in STEPS]
        rows += [(other, step, 32, True) for step in ("open_mede", "evaluation")]
        rows += [(first, step, 32, True) for step in reversed(STEPS)]
        rows += [(other, step, 32, False) for step in STEPS]
        if options.small:
            rows = [(first, step, 4, compiled) for compiled, step in itertools.product((True, False), STEPS)]
        waits = [0.093, 0.02]  # 8 of 280 frames as they come, and of videos re-encoded small: see `make bench`
        while rows and bench.left() > 60:
            try:
                say(bench.row(*rows[0]))
            except Exception as error:  # whatever a compiler or a card says: it is written, the other rows are measured
                said = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
                say(f"| {' | '.join(map(str, rows[0]))} | {said} |||||")
            rows.pop(0)
        say("")
        while waits and bench.left() > 0:
            say(bench.waiting(waits.pop(0)))
        say(f"\nNot reached: {', '.join(map(str, rows + waits)) or 'nothing'}.")


if __name__ == "__main__":
    main()
