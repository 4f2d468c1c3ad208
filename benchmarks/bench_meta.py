"""Time and memory of a meta-step beside a plain training step: `python benchmarks/bench_meta.py`.

All variants run in one process, interleaved round by round, so that what else the machine does hits them
alike; a ratio is the median over the rounds of the ratio within a round. Memory is counted from tensor
allocations, not from the process. Nothing is asserted here: the target for the first-order step is a time
ratio of at most 2.1, where a plain step sees one batch and a meta-step sees two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mede_core.meta import meta_step
from mede_core.report.costs import allocation_peak

TARGET = 2.1  # first-order meta-step over plain step, in time
Batch = tuple[Tensor, Tensor]


class SmallTransformer(nn.Module):
    """A pre-norm transformer encoder over continuous tokens, mean-pooled into class logits.

    Args:
        width, depth, heads: size of the encoder. tokens: positions per sample. classes: number of logits.
    """

    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4, tokens: int = 49, classes: int = 20):
        super().__init__()
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, N, D] -> [B, classes]
        tokens = tokens + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(dim=1))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # [B, N, 3, h, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, h, N, d] each
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of every variant."""
    tokens, label = batch
    return F.cross_entropy(model(tokens), label)


def plain_step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    """One ordinary training step on one batch."""
    optimizer.zero_grad(set_to_none=True)
    cross_entropy(model, batch).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = SmallTransformer(args.width, args.depth).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randn(2, args.batch_size, *model.position.shape, device=args.device)
    support, query = ((t, torch.randint(20, (args.batch_size,), device=args.device)) for t in tokens)
    steps: dict[str, Callable[[], Any]] = {
        "plain step": lambda: plain_step(model, support, optimizer),
        "first-order meta-step": lambda: meta_step(
            model, cross_entropy, support, query, optimizer, inner_lr=1e-3
        ),
        "second-order meta-step": lambda: meta_step(
            model, cross_entropy, support, query, optimizer, inner_lr=1e-3, first_order=False
        ),
    }

    def timed(step: Callable[[], Any]) -> float:
        if args.device != "cpu":
            torch.accelerator.synchronize()
        begin = time.perf_counter()
        step()
        if args.device != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - begin

    for step in steps.values():
        for _ in range(3):
            step()
    rounds = [[timed(step) for step in steps.values()] for _ in range(args.rounds)]
    peaks = [allocation_peak(step) for step in steps.values()]
    trainable = sum(p.numel() * p.element_size() for p in model.parameters())

    mib = 2**20
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, {args.rounds} rounds")
    print(f"batches of {args.batch_size} x {tokens.shape[2]} tokens; one copy: {trainable / mib:.1f} MiB\n")
    print(f"{'':24}{'batches':>8}{'time ms':>9}{'ratio':>7}{'peak MiB':>10}{'over plain, in copies':>23}")
    for i, name in enumerate(steps):
        middle = statistics.median(r[i] for r in rounds) * 1e3
        ratio = statistics.median(r[i] / r[0] for r in rounds)
        copies = (peaks[i] - peaks[0]) / trainable
        print(f"{name:24}{2 if i else 1:>8}{middle:>9.1f}{ratio:>7.2f}{peaks[i] / mib:>10.1f}{copies:>23.2f}")
    print(f"\nTarget for the first-order step: a time ratio of at most {TARGET}.")


if __name__ == "__main__":
    main()
