"""The synthetic world: actors that perform motions in front of scenes, with a dial for static bias.

An action is an actor and a motion ("a red star rising"), never a scene. Motions come in time-reversal pairs, so a
learner that cannot see the order of frames cannot tell the two of a pair apart unless it reads the scene. The dial
``rho`` is the probability that a clip shows its motion's home scene; chance is one over the number of scenes.
Everything is a function of seeds. What is drawn: :class:`ClipSpec`; how it is drawn: ``render.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .render import NOISE, PAIRS, SCENES, SHAPES, STRIPES, render

ACTORS = tuple(f"{color} {shape}" for color, shape in SHAPES)  # the last two appear in the superset only
SOURCE_ACTORS = 6
MOTIONS = tuple(motion for pair in PAIRS for motion in pair)  # motion 2k and 2k+1 are time reversals of each other
SETS = ("source", "transfer_a", "transfer_b", "superset", "direction")
CONTEXTS = ("in", "scene", "noise", "stripes")
IN_CONTEXT_RHO = 0.8  # of every in-context test set, whatever a model was trained with
HOME_SEED = 0  # the home scenes are those that the shipped small CLIP was pretrained with


@dataclass(frozen=True)
class ClipSpec:
    """What N clips show; every field is an array of length N (or [N, k]).

    ``actor``, ``motion``, ``scene`` are indices (scene may be NOISE or STRIPES); ``geometry`` [N, 8] holds uniform
    numbers that place and move the actor; ``look`` [N, 5] its color jitter, tilt and style; ``background`` [N, 12]
    the scene's phases and the set's palette and texture; ``texture_seed`` seeds noise textures; ``speed`` scales the
    motion's span.
    """

    actor: np.ndarray
    motion: np.ndarray
    scene: np.ndarray
    geometry: np.ndarray
    look: np.ndarray
    background: np.ndarray
    texture_seed: np.ndarray
    speed: np.ndarray

    def __len__(self) -> int:
        return len(self.actor)

    def __getitem__(self, index) -> ClipSpec:
        return ClipSpec(*(getattr(self, field.name)[index] for field in fields(self)))


def home_scenes(seed: int = HOME_SEED) -> np.ndarray:
    """Home scene of each motion: three motions a scene, never both of a reversal pair.

    Args:
        seed: of the draw.

    Returns:
        [len(MOTIONS)] scene indices.
    """
    rng = np.random.default_rng(seed)
    per_scene = len(MOTIONS) // len(SCENES)
    while True:
        home = rng.permutation(np.repeat(np.arange(len(SCENES)), per_scene))
        if (home[0::2] != home[1::2]).all():
            return home


@dataclass(frozen=True)
class World:
    """Actions, home scenes and base/novel halves of one world.

    Args:
        seed: fixes the base/novel halves and, with a set's name, its clips.
        home_seed: fixes the home scenes; they must be those of the CLIP that is used.
    """

    seed: int = 0
    home_seed: int = HOME_SEED

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
        """[actors, pairs] int: the base pairs of each source actor in three folds of one pair each; 0 elsewhere.

        Every fold holds every pair once, so a motion that is held out with one actor is trained with two others:
        held-out classes are new combinations, as the novel classes are.
        """
        rng, folds = np.random.default_rng([self.seed, 2]), np.zeros_like(self.base_mask, dtype=int)
        parts = range(1, 4)
        while True:
            for actor in range(SOURCE_ACTORS):
                folds[actor, self.base_mask[actor]] = rng.permutation(parts)
            if all(((folds == part).sum(0) == 1).all() for part in parts):
                return folds

    def actions(self, name: str = "source", half: str = "all") -> list[tuple[int, int]]:
        """The (actor, motion) index pairs of a set's classes.

        Args:
            name: one of ``SETS``.
            half: ``"base"``, ``"novel"`` or ``"all"``; a half holds whole reversal pairs. Of the source set also
                ``"pseudo_novel_K"``, fold K (1 to 3) of the base classes, and ``"kept_K"``, the other base classes.

        Returns:
            the list, in class order.
        """
        _check("set", name, SETS)
        kind, _, fold = half.rpartition("_")
        if kind in ("pseudo_novel", "kept"):
            _check("half", fold, ("1", "2", "3"))
            _check("set of folds", name, ("source",))
            wanted = (self.folds == int(fold)) if kind == "pseudo_novel" else self.base_mask & (self.folds != int(fold))
            return [(a, 2 * p + d) for a in range(SOURCE_ACTORS) for p in np.flatnonzero(wanted[a]) for d in (0, 1)]
        _check("half", half, ("base", "novel", "all"))
        actors, pairs = range(SOURCE_ACTORS), range(len(PAIRS))
        if name == "transfer_a":  # another class mix: four actors
            actors = range(4)
        elif name == "transfer_b":  # four pairs
            pairs = range(4)
        elif name == "superset":  # K600's part: the classes that the source set lacks, with new actors
            actors = range(SOURCE_ACTORS, len(ACTORS))
        elif name == "direction":  # SSv2's part: direction of travel alone
            pairs = range(3)
        keep = {"all": (True, False), "base": (True,), "novel": (False,)}[half]
        return [(a, 2 * p + d) for a in actors for p in pairs if bool(self.base_mask[a, p]) in keep for d in (0, 1)]

    def class_names(self, name: str = "source", half: str = "all") -> list[str]:
        """Texts of a set's classes, "a red star rising"; arguments as in :meth:`actions`."""
        return [action_text(actor, motion) for actor, motion in self.actions(name, half)]

    def away_scenes(self, motion: int) -> np.ndarray:
        """Scenes that are home to neither motion of the pair: what out-of-context twins swap in."""
        pair = motion // 2 * 2
        return np.setdiff1d(np.arange(len(SCENES)), self.home[[pair, pair + 1]])


def action_text(actor: int, motion: int) -> str:
    """Class text of an action."""
    return f"a {ACTORS[actor]} {MOTIONS[motion]}"


def draw_spec(
    world: World,
    actions: Sequence[tuple[int, int]],
    count: int,
    rho: float,
    rng: np.random.Generator,
    style: str = "source",
) -> tuple[ClipSpec, np.ndarray]:
    """Draw what ``count`` clips show, the classes in equal numbers and the share of home scenes exact.

    Args:
        world: home scenes.
        actions: (actor, motion) of each class.
        count: clips.
        rho: share of clips before their motion's home scene, 0..1; the others show one of the other scenes evenly.
        rng: source of every draw.
        style: the set, whose look (palette, texture, actor style, speed) is drawn.

    Returns:
        (spec, labels [count]); labels index ``actions``.
    """
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
    look[:, 4] = {"transfer_a": 1.0, "transfer_b": 2.0}.get(style, 0.0)  # actor style: filled, hollow, dark-rimmed
    background = rng.random((count, 12))
    background[:, 11] = {"transfer_a": 1.0, "transfer_b": 2.0}.get(style, 0.0)  # palette and texture of the set
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
    """The out-of-context twin: the same actors and motions before another background, as SCUBA does.

    Args:
        world: home scenes.
        spec: in-context clips.
        context: ``"scene"`` (one that is home to neither motion of the pair), ``"noise"`` or ``"stripes"``.
        rng: source of the new backgrounds.

    Returns:
        the twin's spec.
    """
    _check("context", context, CONTEXTS[1:])
    away = np.array([rng.choice(world.away_scenes(motion)) for motion in spec.motion])
    scene = {"scene": away, "noise": np.full(len(spec), NOISE), "stripes": np.full(len(spec), STRIPES)}[context]
    background = rng.random(spec.background.shape)
    background[:, 11] = spec.background[:, 11]
    return replace(spec, scene=scene, background=background, texture_seed=rng.integers(0, 2**31, len(spec)))


class ClipSet(Dataset):
    """Rendered clips in memory, with labels, class texts and exact actor masks.

    Attributes:
        videos: [N, T, 3, H, W] uint8.
        masks: [N, T, H, W] bool, the actor's pixels.
        labels: [N] int64.
        class_names: texts, in label order.
        spec: what was drawn.
    """

    def __init__(self, videos: Tensor, masks: Tensor, labels: Tensor, class_names: list[str], spec: ClipSpec):
        self.videos, self.masks, self.labels = videos, masks, labels
        self.class_names, self.spec = class_names, spec

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> tuple[Tensor, Tensor]:
        return self.videos[index], self.labels[index]

    def reversed(self) -> ClipSet:
        """The exact reversals: frames in backward order, each clip labeled with the other motion of its pair.

        Raises:
            ValueError: a clip's reversal is no class of this set.
        """
        actions = {name: index for index, name in enumerate(self.class_names)}
        texts = [action_text(a, m ^ 1) for a, m in zip(self.spec.actor, self.spec.motion)]
        missing = sorted(set(texts) - actions.keys())
        if missing:
            raise ValueError(f"reversed classes are not in this set: {missing[:3]}")
        labels = torch.tensor([actions[text] for text in texts])
        return ClipSet(
            self.videos.flip(1),
            self.masks.flip(1),
            labels,
            self.class_names,
            replace(self.spec, motion=self.spec.motion ^ 1),
        )


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
    """Render one set of clips.

    Args:
        world: the world.
        name: one of ``SETS``.
        half: base, novel or all classes, or a fold, see :meth:`World.actions`.
        context: ``"in"`` or one of the out-of-context backgrounds; the twins share actors and motions with ``"in"``.
        train: training clips (other draws than the test's, at this ``rho``).
        rho: share of clips at home; a test set's is one fixed number, the same for every model.
        count: clips.
        split: 1, 2, 3: independent draws.
        num_frames: T.
        size: H = W in pixels.

    Returns:
        the clips; the same arguments give the same bits.
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


def _check(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; allowed: {', '.join(allowed)}")
