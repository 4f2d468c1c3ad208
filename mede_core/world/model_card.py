"""What the small CLIP knows from a still, measured: ``python -m mede_core.world.model_card`` rewrites MODEL_CARD.md."""

from __future__ import annotations

import json

import numpy as np
import torch

from ..files import atomic_write, set_threads
from ..learner import SMALL_CLIP, VideoLearner, build_learner
from .pretrain import CAPTION_RHO, TEXTURED
from .render import PAIRS, SCENES
from .synthetic import ACTORS, CONTEXTS, MOTIONS, World, make_set

TEXT = """# Model card: the synthetic world's small CLIP

open_clip's own CLIP class with a custom configuration: {parameters:,} parameters, 32-pixel images in 8-pixel patches,
a vocabulary of {words} tokens. Pretrained by `python -m mede_core.world.pretrain` in {steps:,} steps of {batch}
captioned stills (seed {seed}, home scenes {home_seed}); weights `{weights}`.

**What it was shown.** Single frames of all {actors} actors and {motions} motions, with captions such as "a photo of a
red star rising in the desert". {caption_rho:.0%} of the stills with a nameable background show the home scene of their
motion; {textured:.0%} show blobs, checks or a plain color and captions that name no scene. Noise and stripes, the
textures of the out-of-context tests, were held out. It never saw two frames of one clip.

**What it knows from one still**, top-1 in percent over {count:,} stills a row (chance: actor {chance_actor:.0f}, scene
{chance_scene:.0f}, pair {chance_pair:.0f}, direction 50):

| background | actor | scene | motion pair | direction, given the pair |
|---|---|---|---|---|
{rows}

The last column is the static bias: before the scenes of an in-context set the direction is read off the background;
before an unnamed texture it is a coin toss, and before a scene of other motions no still can tell it.

**Not for** anything but this synthetic world. Measured by `python -m mede_core.world.model_card`.
"""


@torch.no_grad()
def knowledge(learner: VideoLearner, count: int = 2160) -> list[dict]:
    """Accuracy of naming actor, scene, motion pair and direction from one random frame.

    Args:
        learner: the fresh learner (its adapters are the identity, so a still is what CLIP sees).
        count: stills a background.

    Returns:
        a row for each background, in percent; ``scene`` is None where the background has no name.
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
        rows.append(
            {
                "background": context,
                "actor": 100 * actor.mean(),
                "scene": scene,
                "pair": 100 * pair.mean(),
                "direction": 100 * direction.mean(),
            }
        )
    return rows


def main() -> None:
    """Measure the shipped weights and rewrite their card."""
    set_threads()
    learner, count = build_learner(), 2160
    facts = json.loads((SMALL_CLIP / "training.json").read_text(encoding="utf-8"))
    config = json.loads((SMALL_CLIP / "open_clip_config.json").read_text(encoding="utf-8"))
    rows = []
    for row in knowledge(learner, count):
        scene = "no name" if row["scene"] is None else f"{row['scene']:.1f}"
        rows.append(
            f"| {row['background']} | {row['actor']:.1f} | {scene} | {row['pair']:.1f} | {row['direction']:.1f} |"
        )
    atomic_write(
        SMALL_CLIP / "MODEL_CARD.md",
        TEXT.format(
            **facts | {"caption_rho": CAPTION_RHO, "textured": TEXTURED},
            words=config["model_cfg"]["text_cfg"]["vocab_size"],
            weights=learner.weights_id,
            actors=len(ACTORS),
            motions=len(MOTIONS),
            count=count,
            rows="\n".join(rows),
            chance_actor=100 / len(ACTORS),
            chance_scene=100 / len(SCENES),
            chance_pair=100 / len(PAIRS),
        ),
    )


if __name__ == "__main__":
    main()
