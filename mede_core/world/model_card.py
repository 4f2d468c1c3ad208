"""What the small CLIP knows from a still, measured: ``mede world card`` rewrites MODEL_CARD.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from ..files import atomic_write
from ..learner import VideoLearner, build_learner
from ..weights import SMALL_CLIP
from .render import PAIRS, SCENES
from .synthetic import ACTORS, CONTEXTS, MOTIONS, World, make_set

COUNT = 2160  # stills a background


@torch.no_grad()
def knowledge(learner: VideoLearner) -> list[dict]:
    """Percent right of actor, scene, motion pair and direction, named from one random frame; a row a background."""
    rows, world = [], World(0)
    for context in CONTEXTS:
        clips = make_set(world, half="all", context=context, count=COUNT)
        frames = torch.from_numpy(np.random.default_rng(0).integers(0, clips.videos.shape[1], COUNT))
        stills = clips.videos[torch.arange(COUNT), frames][:, None]
        features = torch.cat([learner.encode(part)[:, 0] for part in stills.split(256)])

        def score(names):
            return (features @ learner.set_classes(names).text_features.T).numpy()  # noqa: B023 - used at once

        spec = clips.spec
        # The other words of the text are the true ones: this asks for one word at a time.
        actor = score([f"a {name}" for name in ACTORS]).argmax(1) == spec.actor
        texts = np.stack([score([f"a {name} {motion}" for motion in MOTIONS]) for name in ACTORS], 1)
        each = np.arange(COUNT)
        motions = texts[each, spec.actor]  # [N, motions], with the clip's own actor in the text
        pair = motions.reshape(COUNT, len(PAIRS), 2).max(-1).argmax(1) == spec.motion // 2
        direction = motions[each, spec.motion] > motions[each, spec.motion ^ 1]
        right = {"actor": actor, "pair": pair, "direction": direction}
        if context in ("in", "scene"):
            right["scene"] = score([f"in the {name}" for name in SCENES]).argmax(1) == spec.scene
        rows.append({"background": context, **{name: 100 * values.mean() for name, values in right.items()}})
    return rows


def write_card() -> Path:
    learner, lines = build_learner(), []
    facts = json.loads((SMALL_CLIP / "training.json").read_text(encoding="utf-8"))
    config = json.loads((SMALL_CLIP / "open_clip_config.json").read_text(encoding="utf-8"))
    for row in knowledge(learner):
        values = [row.get(name) for name in ("actor", "scene", "pair", "direction")]
        cells = ["no name" if value is None else f"{value:.1f}" for value in values]
        lines.append(f"| {' | '.join([row['background'], *cells])} |")
    words = config["model_cfg"]["text_cfg"]["vocab_size"]
    facts |= {
        "words": words, "weights": learner.weights_id, "actors": len(ACTORS), "motions": len(MOTIONS), "count": COUNT,
        "rows": "\n".join(lines),
        "chance_actor": 100 / len(ACTORS), "chance_scene": 100 / len(SCENES), "chance_pair": 100 / len(PAIRS),
    }  # fmt: skip
    template = (SMALL_CLIP / "card.template.md").read_text(encoding="utf-8")
    return atomic_write(SMALL_CLIP / "MODEL_CARD.md", template.format(**facts))
