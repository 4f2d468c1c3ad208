"""What the small CLIP knows from a still, measured: ``mede world card`` rewrites MODEL_CARD.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from ..files import ASSETS, atomic_write
from ..learner import VideoLearner, build_learner
from .pretrain import CAPTION_RHO, TEXTURED
from .render import PAIRS, SCENES
from .synthetic import ACTORS, CONTEXTS, MOTIONS, World, make_set

SMALL_CLIP = ASSETS / "small_clip"


@torch.no_grad()
def knowledge(learner: VideoLearner, count: int = 2160) -> list[dict]:
    """Accuracy in percent of naming actor, scene, motion pair and direction from one random frame, a row a background.

    The learner is a fresh one: its adapters are the identity, so a still is what CLIP sees.
    """
    rows, world = [], World(0)
    for context in CONTEXTS:
        clips = make_set(world, half="all", context=context, count=count)
        frames = torch.from_numpy(np.random.default_rng(0).integers(0, clips.videos.shape[1], count))
        stills = clips.videos[torch.arange(count), frames][:, None]
        features = torch.cat([learner.encode(part)[:, 0] for part in stills.split(256)])

        def score(names):
            return (features @ learner.set_classes(names).text_features.T).numpy()  # noqa: B023 - used at once

        spec = clips.spec
        # The other words of the text are the true ones: this asks for one word at a time.
        actor = score([f"a {name}" for name in ACTORS]).argmax(1) == spec.actor
        texts = np.stack([score([f"a {name} {motion}" for motion in MOTIONS]) for name in ACTORS], 1)
        motions = texts[np.arange(count), spec.actor]  # [N, motions], with the clip's own actor in the text
        pair = motions.reshape(count, len(PAIRS), 2).max(-1).argmax(1) == spec.motion // 2
        direction = motions[np.arange(count), spec.motion] > motions[np.arange(count), spec.motion ^ 1]
        scene = None
        if context in ("in", "scene"):
            scene = 100 * float((score([f"in the {name}" for name in SCENES]).argmax(1) == spec.scene).mean())
        shares = {"actor": actor.mean(), "pair": pair.mean(), "direction": direction.mean()}
        rows.append({"background": context, "scene": scene, **{name: 100 * value for name, value in shares.items()}})
    return rows


def write_card(out: str | Path = SMALL_CLIP / "MODEL_CARD.md", count: int = 2160) -> Path:
    """Measure the shipped weights on so many stills a background, and write their card."""
    learner, lines = build_learner(), []
    facts = json.loads((SMALL_CLIP / "training.json").read_text(encoding="utf-8"))
    config = json.loads((SMALL_CLIP / "open_clip_config.json").read_text(encoding="utf-8"))
    for row in knowledge(learner, count):
        scene = "no name" if row["scene"] is None else f"{row['scene']:.1f}"
        lines.append(
            f"| {row['background']} | {row['actor']:.1f} | {scene} | {row['pair']:.1f} | {row['direction']:.1f} |"
        )
    text = (SMALL_CLIP / "card.template.md").read_text(encoding="utf-8").format(
        **facts | {"caption_rho": CAPTION_RHO, "textured": TEXTURED},
        words=config["model_cfg"]["text_cfg"]["vocab_size"],
        weights=learner.weights_id,
        actors=len(ACTORS),
        motions=len(MOTIONS),
        count=count,
        rows="\n".join(lines),
        chance_actor=100 / len(ACTORS),
        chance_scene=100 / len(SCENES),
        chance_pair=100 / len(PAIRS),
    )
    return atomic_write(out, text)
