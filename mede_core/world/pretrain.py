"""Pretrain the synthetic world's small CLIP on captioned stills: ``mede world pretrain``.

It learns to name actors and scenes, and of a motion what a still betrays: CLIP's static bias, in the small.
"""

from __future__ import annotations

import collections
import gzip
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ..files import atomic_path, atomic_write, progress
from .render import BLOBS, CHECKER, PLAIN, SCENES, render
from .synthetic import ACTORS, HOME_SEED, MOTIONS, World, draw_spec

BATCH, LR = 256, 2e-3  # stills a step; peak learning rate
CAPTION_RHO = 0.5  # share of stills with a nameable background at home: captions and scenes correlate, as in web data
TEXTURED = 1 / 3  # share of stills whose background has no name, so that the actor can be seen on any background
TEXTURES = (BLOBS, CHECKER, PLAIN)  # noise and stripes, the test's textures, are held out
PREFIXES = ("", "", "a photo of ", "a picture of ")
MODEL_CFG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 96, "layers": 4, "head_width": 24},
    "text_cfg": {"context_length": 16, "vocab_size": 0, "width": 64, "heads": 4, "layers": 2},
}
PREPROCESS_CFG = {"size": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}


def byte_pair_merges() -> list[tuple[str, str]]:
    """Merges, most frequent pair first, until each word of the captions is one token, in open_clip's order."""
    words = sorted(set(" ".join([*ACTORS, *MOTIONS, *SCENES, *PREFIXES, "a something in the"]).split()))
    symbols = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while True:
        counts = collections.Counter(pair for parts in symbols.values() for pair in itertools.pairwise(parts))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for parts in symbols.values():
            for i in range(len(parts)):
                if tuple(parts[i : i + 2]) == best:
                    parts[i : i + 2] = ["".join(best)]


def draw_stills(world: World, count: int, rng: np.random.Generator) -> tuple[Tensor, list[str]]:
    """Images uint8 [N, 3, H, W] of all actors and motions, and their captions."""
    actions = [(actor, motion) for actor in range(len(ACTORS)) for motion in range(len(MOTIONS))]
    spec, _ = draw_spec(world, actions, max(count, len(actions)), CAPTION_RHO, rng)
    spec = spec[np.arange(count)]
    textured = rng.random(count) < TEXTURED
    look = spec.look.copy()
    look[:, 4] = np.where(rng.random(count) < 0.3, rng.integers(1, 3, count), 0)
    scene = np.where(textured, rng.choice(TEXTURES, count), spec.scene)
    spec = replace(spec, scene=scene, look=look, speed=np.full(count, 1.0))
    videos, _ = render(spec, num_frames=8, size=MODEL_CFG["vision_cfg"]["image_size"], still=rng.integers(0, 8, count))
    captions = []
    for actor, motion, scene in zip(spec.actor, spec.motion, spec.scene):
        text = f"a {ACTORS[actor]}" if rng.random() < 0.9 else "something"
        text += f" {MOTIONS[motion]}" if rng.random() < 0.85 else ""
        if scene >= 0 and rng.random() < 0.5:
            text += f" in the {SCENES[scene]}"
        captions.append(PREFIXES[rng.integers(len(PREFIXES))] + text)
    return videos[:, 0], captions


def clip_loss(image_features: Tensor, text_features: Tensor, scale: Tensor, captions: list[str]) -> Tensor:
    """CLIP's symmetric contrastive loss in which stills of equal captions are positives of one another."""
    ids = torch.from_numpy(np.unique(captions, return_inverse=True)[1])
    target = (ids[:, None] == ids).float()
    target /= target.sum(1, keepdim=True)
    logits = scale * image_features @ text_features.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pretrain(
    out: str | Path,
    *,
    steps: int = 1500,
    seed: int = 0,
    home_seed: int = HOME_SEED,
    width: int = MODEL_CFG["vision_cfg"]["width"],
    layers: int = MODEL_CFG["vision_cfg"]["layers"],
) -> dict:
    """Train the small CLIP and write a folder that ``build_learner(weights=FOLDER)`` loads; returns facts about it."""
    cfg = json.loads(json.dumps(MODEL_CFG))
    cfg["vision_cfg"] |= {"width": width, "layers": layers}
    out = Path(out)
    merges = byte_pair_merges()
    lines = ["#version: mede small vocabulary", *(" ".join(pair) for pair in merges)]
    atomic_write(out / "bpe.txt.gz", gzip.compress("\n".join(lines).encode(), mtime=0))
    cfg["text_cfg"]["vocab_size"] = 512 + len(merges) + 2  # bytes, bytes at a word's end, merges, start and end
    config = {"model_cfg": cfg, "preprocess_cfg": PREPROCESS_CFG}
    atomic_write(out / "open_clip_config.json", json.dumps(config, indent=1))
    tokenizer = open_clip.SimpleTokenizer(str(out / "bpe.txt.gz"), context_length=cfg["text_cfg"]["context_length"])

    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 77])
    world = World(seed=seed, home_seed=home_seed)
    clip = open_clip.CLIP(**cfg).train()
    optimizer, schedule = _optimizer(clip, steps)
    mean, std = (torch.tensor(PREPROCESS_CFG[key]).view(3, 1, 1) for key in ("mean", "std"))
    losses = []
    for _ in progress(range(steps), "pretrain", steps):
        images, captions = draw_stills(world, BATCH, rng)
        image_features = clip.encode_image((images / 255 - mean) / std, normalize=True)
        text_features = clip.encode_text(tokenizer(captions), normalize=True)
        loss = clip_loss(image_features, text_features, clip.logit_scale.exp(), captions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=4.6052)  # 100, as CLIP
        losses.append(loss.item())
    with atomic_path(out / "open_clip_model.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, temporary)
    facts = {
        "steps": steps, "batch": BATCH, "lr": LR, "seed": seed, "home_seed": home_seed,
        "caption_rho": CAPTION_RHO, "textured": TEXTURED,
        "final_loss": float(np.mean(losses[-50:])),
        "logit_scale": clip.logit_scale.exp().item(),
        "parameters": sum(p.numel() for p in clip.parameters()),
    }  # fmt: skip
    atomic_write(out / "training.json", json.dumps(facts, indent=1) + "\n")
    return facts


def _optimizer(clip: torch.nn.Module, steps: int):
    """AdamW; warm-up over 100 steps, then a cosine to zero."""
    groups = [
        {"params": [p for p in clip.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in clip.parameters() if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=100)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - 100)
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[100])
