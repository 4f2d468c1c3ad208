"""The synthetic world: an action is an actor and a motion ("a red star rising"), never a scene.

Motions come in time-reversal pairs, so who cannot see the order of frames tells the two of a pair apart by the scene
alone. The dial ``rho`` is the probability of a motion's home scene. Everything is a function of seeds.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..config import METHODS, Config, EvalSet
from ..files import ASSETS
from .render import NOISE, PAIRS, SCENES, SHAPES, STRIPES, render

ACTORS = tuple(f"{color} {shape}" for color, shape in SHAPES)  # the last two appear in the superset only
SOURCE_ACTORS = 6
MOTIONS = tuple(motion for pair in PAIRS for motion in pair)  # motion 2k and 2k+1 are time reversals of each other
SETS = {  # the actors and the pairs of each; a set's look is drawn too
    "source": (range(SOURCE_ACTORS), range(len(PAIRS))),
    "transfer_a": (range(4), range(len(PAIRS))),  # another class mix: four actors
    "transfer_b": (range(SOURCE_ACTORS), range(4)),  # four pairs
    "superset": (range(SOURCE_ACTORS, len(ACTORS)), range(len(PAIRS))),  # K600's part: classes the source set lacks
    "direction": (range(SOURCE_ACTORS), range(3)),  # SSv2's part: direction of travel alone
}
CONTEXTS = ("in", "scene", "noise", "stripes")
IN_CONTEXT_RHO = 0.8  # of every in-context test set, whatever a model was trained with
HOME_SEED = 0  # the home scenes are those that the shipped small CLIP was pretrained with


@dataclass(frozen=True)
class ClipSpec:
    """What N clips show; every field is an array of length N (or [N, k])."""

    actor: np.ndarray
    motion: np.ndarray
    scene: np.ndarray  # or NOISE, STRIPES, ...
    geometry: np.ndarray  # [N, 8] uniform numbers that place and move the actor
    look: np.ndarray  # [N, 5] its color jitter, tilt and style
    background: np.ndarray  # [N, 12] the scene's phases, the set's palette and texture
    texture_seed: np.ndarray
    speed: np.ndarray  # scales the motion's span

    def __len__(self) -> int:
        return len(self.actor)

    def __getitem__(self, index) -> ClipSpec:
        return ClipSpec(*(getattr(self, field.name)[index] for field in fields(self)))


def home_scenes(seed: int = HOME_SEED) -> np.ndarray:
    # Three motions a scene, never both of a reversal pair.
    rng = np.random.default_rng(seed)
    per_scene = len(MOTIONS) // len(SCENES)
    while True:
        home = rng.permutation(np.repeat(np.arange(len(SCENES)), per_scene))
        if (home[0::2] != home[1::2]).all():
            return home


@dataclass(frozen=True)
class World:
    """Actions, home scenes and base/novel halves of one world."""

    seed: int = 0  # fixes the base/novel halves and, with a set's name, its clips
    home_seed: int = HOME_SEED  # fixes the home scenes; they must be those of the CLIP that is used

    @cached_property
    def home(self) -> np.ndarray:
        return home_scenes(self.home_seed)

    @cached_property
    def base_mask(self) -> np.ndarray:
        """[actors, pairs] bool: the pairs that are base classes for an actor; half of each row and column."""
        rng = np.random.default_rng([self.seed, 1])
        half = len(PAIRS) // 2
        while True:  # balanced rows by construction, balanced columns over the source actors by rejection
            rows = np.stack([rng.permutation(len(PAIRS)) < half for _ in ACTORS])
            if (rows[:SOURCE_ACTORS].sum(0) == SOURCE_ACTORS // 2).all():
                return rows

    @cached_property
    def folds(self) -> np.ndarray:
        """[actors, pairs] int: the base pairs of each source actor in three folds of one pair each; 0 elsewhere."""
        # Every fold holds every pair once: what is held out with one actor is trained with two others, a new
        # combination, as novel classes are.
        rng, folds = np.random.default_rng([self.seed, 2]), np.zeros_like(self.base_mask, dtype=int)
        parts = range(1, 4)
        while True:
            for actor in range(SOURCE_ACTORS):
                folds[actor, self.base_mask[actor]] = rng.permutation(parts)
            if all(((folds == part).sum(0) == 1).all() for part in parts):
                return folds

    def actions(self, name: str = "source", half: str = "all") -> list[tuple[int, int]]:
        """(actor, motion) of each class; of ``pseudo_novel_K``, fold K (1 to 3) of base; of ``kept_K``, the others."""
        _check("set", name, SETS)
        kind, _, fold = half.rpartition("_")
        if kind in ("pseudo_novel", "kept"):
            _check("half", fold, ("1", "2", "3"))
            _check("set of folds", name, ("source",))
            chosen = (self.folds == int(fold)) if kind == "pseudo_novel" else self.base_mask & (self.folds != int(fold))
        else:
            _check("half", half, ("base", "novel", "all"))
            chosen = {"base": self.base_mask, "novel": ~self.base_mask, "all": np.ones_like(self.base_mask)}[half]
        actors, pairs = SETS[name]
        return [(a, 2 * p + d) for a in actors for p in pairs if chosen[a, p] for d in (0, 1)]

    def class_names(self, name: str = "source", half: str = "all") -> list[str]:
        return [action_text(actor, motion) for actor, motion in self.actions(name, half)]

    def away_scenes(self, motion: int) -> np.ndarray:
        # Home to neither motion of the pair: what out-of-context twins swap in.
        pair = motion // 2 * 2
        return np.setdiff1d(np.arange(len(SCENES)), self.home[[pair, pair + 1]])


def action_text(actor: int, motion: int) -> str:
    return f"a {ACTORS[actor]} {MOTIONS[motion]}"


def draw_spec(
    world: World,
    actions: Sequence[tuple[int, int]],
    count: int,
    rho: float,
    rng: np.random.Generator,
    style: str = "source",
) -> tuple[ClipSpec, np.ndarray]:
    """What ``count`` clips show, and their labels [count] into ``actions``; ``style``: the set whose look they have."""
    if not 0 <= rho <= 1:
        raise ValueError(f"rho is {rho}; allowed: 0 to 1 (chance is 1/{len(SCENES)})")
    if count < len(actions):
        raise ValueError(f"count is {count} clips for {len(actions)} classes; need at least one a class")
    labels = np.arange(count) % len(actions)
    actor, motion = np.array(actions)[labels].T
    home = world.home[motion]
    # Exactly round(rho * count) clips are at home, spread evenly over classes by going round the classes.
    order = np.arange(count) // len(actions) + rng.permutation(len(actions))[labels] / len(actions)
    rank = np.argsort(np.argsort(order * _GOLDEN % 1, kind="stable"))
    at_home = rank < round(rho * count)
    other = (home + rng.integers(1, len(SCENES), count)) % len(SCENES)
    look = rng.random((count, 5))
    background = rng.random((count, 12))
    # Actor style (filled, hollow, dark-rimmed); palette and texture of the set.
    look[:, 4] = background[:, 11] = {"transfer_a": 1.0, "transfer_b": 2.0}.get(style, 0.0)
    spec = ClipSpec(
        actor=actor,
        motion=motion,
        scene=np.where(at_home, home, other),
        geometry=rng.random((count, 8)),
        look=look,
        background=background,
        texture_seed=rng.integers(0, 2**31, count),
        speed=np.full(count, {"transfer_a": 0.85, "transfer_b": 1.1}.get(style, 1.0)),
    )
    shuffle = rng.permutation(count)
    return spec[shuffle], labels[shuffle]


_GOLDEN = (5**0.5 - 1) / 2


def swap_background(world: World, spec: ClipSpec, context: str, rng: np.random.Generator) -> ClipSpec:
    """The out-of-context twin: the same actors and motions before another background, as SCUBA does."""
    away = np.array([rng.choice(world.away_scenes(motion)) for motion in spec.motion])
    scene = {"scene": away, "noise": np.full(len(spec), NOISE), "stripes": np.full(len(spec), STRIPES)}[context]
    background = rng.random(spec.background.shape)
    background[:, 11] = spec.background[:, 11]
    return replace(spec, scene=scene, background=background, texture_seed=rng.integers(0, 2**31, len(spec)))


class ClipSet(Dataset):
    """Rendered clips in memory, with labels, class texts and exact actor masks."""

    assignments = 1  # of scenes to motions: with more, the clips stand here once for each, in the same order

    def __init__(self, videos: Tensor, masks: Tensor, labels: Tensor, class_names: list[str], spec: ClipSpec):
        self.videos = videos  # [N, T, 3, H, W] uint8
        self.masks = masks  # [N, T, H, W] bool, the actor's pixels
        self.labels = labels  # [N] int64, into class_names
        self.class_names, self.spec = class_names, spec

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> tuple[Tensor, Tensor]:
        return self.videos[index], self.labels[index]

    def reversed(self) -> ClipSet:
        """The exact reversals: frames in backward order, each clip labeled with the other motion of its pair."""
        actions = {name: index for index, name in enumerate(self.class_names)}
        spec = replace(self.spec, motion=self.spec.motion ^ 1)
        labels = torch.tensor([actions[action_text(a, m)] for a, m in zip(spec.actor, spec.motion)])
        return ClipSet(self.videos.flip(1), self.masks.flip(1), labels, self.class_names, spec)


def before(clips: ClipSet, scene) -> ClipSet:
    """The same actors and motions before other backgrounds: ``scene``, one for all or [N], as a ``ClipSpec`` has it."""
    spec = replace(clips.spec, scene=np.broadcast_to(scene, len(clips)))
    videos, masks = render(spec, num_frames=clips.videos.shape[1], size=clips.videos.shape[-1])
    return ClipSet(videos, masks, clips.labels, clips.class_names, spec)


def make_set(
    world: World,
    name: str = "source",
    *,
    half: str = "base",
    context: str = "in",
    train: bool = False,
    rho: float = IN_CONTEXT_RHO,
    count: int = 2500,
    split: int = 1,
    num_frames: int = 8,
    size: int = 32,
) -> ClipSet:
    """Render one set of clips; the same arguments give the same bits.

    ``name`` is one of ``SETS``, ``half`` as in :meth:`World.actions`. The twins of an out-of-context ``context``
    share actors and motions with ``in``, clip by clip. ``train`` and ``split`` give other draws. ``rho`` of a test
    set is one fixed number, the same for every model. ``size`` is H = W in pixels.
    """
    _check("context", context, CONTEXTS)
    if name == "direction":
        rho = 1 / len(SCENES)  # its classes differ by direction alone: the scene says nothing
    actions = world.actions(name, half)
    key = zlib.crc32(f"{name}/{half}/{'train' if train else 'test'}/{split}".encode())
    spec, labels = draw_spec(world, actions, count, rho, np.random.default_rng([world.seed, key]), name)
    if context != "in":
        context_key = CONTEXTS.index(context)
        spec = swap_background(world, spec, context, np.random.default_rng([world.seed, key, context_key]))
    videos, masks = render(spec, num_frames=num_frames, size=size)
    return ClipSet(videos, masks, torch.from_numpy(labels), world.class_names(name, half), spec)


# Every method is tested on the same clips, so they are rendered once. The cache must hold all sets of a notebook (11
# has 37): methods take turns over them, and a smaller one would forget each set before it is asked for again.
@lru_cache(maxsize=64)  # 80 MB for a set of 2,500 clips, 13 MB for one of 400
def _rendered(world: World, name: str, **about) -> ClipSet:
    return make_set(world, name, **about)


def test_clips(config: Config, test: EvalSet, image_size: int) -> ClipSet:
    # Other orders of frames than the reversed one are up to who scores.
    about = {"half": test.half, "context": test.context, "split": test.part, "count": test.clips}
    world, shape = World(config.world_seed, config.home_seed), {"num_frames": config.num_frames, "size": image_size}
    clips = _rendered(world, test.set, **about, **shape)
    return clips.reversed() if test.order == "reversed" else clips


def training_clips(config: Config, image_size: int) -> ClipSet:
    """The clips that a configuration trains on: base classes, before their home scene in a share of ``rho``."""
    world, half = World(config.world_seed, config.home_seed), f"kept_{config.held_out}" if config.held_out else "base"
    shape = {"count": config.train_clips, "num_frames": config.num_frames, "size": image_size}
    clips = make_set(world, half=half, train=True, rho=config.rho, **shape)
    if config.shuffle_labels:
        order = np.random.default_rng([config.seed, config.world_seed]).permutation(len(clips))
        clips.labels = clips.labels[torch.from_numpy(order)]
    if config.pairing == "scenes" and METHODS[config.method].trainer == "meta":
        return before_other_scenes(clips)
    return clips


def before_other_scenes(clips: ClipSet) -> ClipSet:
    """[4 N] clips: as they are, then with every scene replaced by the next one, by the one after it, ..."""
    shifted = (before(clips, (clips.spec.scene + shift) % len(SCENES)) for shift in range(1, len(SCENES)))
    sets = [clips, *shifted]
    spec = ClipSpec(*(np.concatenate([getattr(one.spec, field.name) for one in sets]) for field in fields(ClipSpec)))
    videos, masks, labels = (torch.cat([getattr(one, name) for one in sets]) for name in ("videos", "masks", "labels"))
    found = ClipSet(videos, masks, labels, clips.class_names, spec)
    found.assignments = len(SCENES)
    return found


def check_home(config: Config) -> None:
    """Refuse a small CLIP of other home scenes: its bias would point elsewhere than the clips'."""
    if config.data != "synthetic" or config.model != "mede-small" or config.random_weights:
        return
    facts = (ASSETS / "small_clip" if config.weights == "shipped" else Path(config.weights)) / "training.json"
    theirs = json.loads(facts.read_text(encoding="utf-8"))["home_seed"] if facts.is_file() else config.home_seed
    if theirs != config.home_seed:
        raise ValueError(f"home_seed is {config.home_seed}; the CLIP {config.weights!r} was pretrained with {theirs}")


def _check(field: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; allowed: {', '.join(allowed)}")
