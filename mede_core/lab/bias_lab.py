"""The static-bias lab: one clip as one likes it, and what two learners make of it, side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from matplotlib.artist import Artist

from ..attention import MAPS, frame_orders
from ..learner import VideoLearner
from ..report.figures.explaining import overlay
from ..report.figures.style import Look, Picture, look_of, styled
from ..world.render import NOISE, SCENES, STRIPES, render
from ..world.synthetic import ACTORS, MOTIONS, SOURCE_ACTORS, World, action_text, draw_spec
from .explorers import choice, explorer, player, slider
from .map_tests import places
from .scenes import Scene, frame_row, titled_row

ORDERS = ("forward", "reversed", "shuffled", "one frame")
BACKGROUNDS = {**{name: index for index, name in enumerate(SCENES)}, "noise": NOISE, "stripes": STRIPES}
TOP, SHOWN_FRAMES = 5, 8


def random_map(learner: VideoLearner, video: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A map that knows nothing, to compare with: the same for every clip."""
    return torch.rand(1, video.shape[1], 8, 8, generator=torch.Generator().manual_seed(0)).to(learner.logit_scale)


# Occlusion takes a thousand passes: too slow here
SHOWN = {name: MAPS[name] for name in ("attention", "rollout", "relevance")} | {"random": random_map}


def draw_clip(
    world: World, actor: int, motion: int, background: int, *, num_frames: int = 8, size: int = 32
) -> torch.Tensor:
    """One clip [T, 3, H, W] uint8 of an action before a background."""
    spec, _ = draw_spec(world, [(actor, motion)], 1, 1.0, np.random.default_rng([world.seed, actor, motion]))
    return render(replace(spec, scene=np.array([background])), num_frames=num_frames, size=size)[0][0]


def reordered(clip: torch.Tensor, order: str) -> torch.Tensor:
    return clip if order == "forward" else clip[frame_orders(len(clip))[order]]


@torch.no_grad()
def opinion(learner: VideoLearner, clip: torch.Tensor, shown: str = "none", covered: float = 0.0) -> dict:
    """A learner's ``top`` five (name, probability) for a clip, and the frames under the map of what it says; with a
    share ``covered``, after what the map ranks highest is hidden under the weights' mean color."""
    video = clip[None].to(learner.logit_scale.device)
    logits, frames = learner(video), clip.numpy()
    if shown != "none":
        maps = SHOWN[shown](learner, video, logits.argmax(1))
        hidden, color = places(maps, video.shape[-1]) < covered, (255 * learner.normalize.mean).round().byte()
        frames = np.where(hidden[0].cpu(), color.cpu(), overlay(frames, maps[0].cpu().numpy()))
        logits = learner(torch.where(hidden, color, video)) if covered else logits
    chance, index = logits.softmax(1)[0].topk(min(TOP, logits.shape[1]))
    return {"top": [(learner.class_names[k], p) for k, p in zip(index.tolist(), chance.tolist())], "frames": frames}


def answers_panel(axes) -> tuple[list[Artist], Callable[..., None]]:
    """Bars of the likeliest answers: what moves, and what sets them to a look, a title and (name, probability)."""
    bars = axes.barh(range(TOP), [0.5] * TOP, height=0.78, alpha=0.4)
    names = [axes.text(0.01, row, "", va="center", fontsize=8.5) for row in range(TOP)]
    heading = axes.set_title("M", pad=3)
    axes.set(xlim=(0, 1), ylim=(TOP - 0.5, -0.5), yticks=[], xlabel="probability among all actions")
    color = axes.figure.theme.text

    def update(look: Look, title: str, top: Sequence[tuple[str, float]], true: str) -> None:
        heading.set_text(title)
        for row, (bar, text) in enumerate(zip(bars, names, strict=True)):
            name, chance = top[row] if row < len(top) else ("", 0.0)
            bar.set_width(chance)
            bar.set_color(look.color)
            text.set_text(f"{100 * chance:.0f} %  {name}{'  ✓' if name == true else ''}" if name else "")
            text.set(fontweight="bold" if name == true else "normal", color=color)

    return [*bars, *names, heading], update


@styled
def bias_scene() -> Scene:
    """A clip, and for each of two learners the clip under its map and the five answers it gives most."""
    figure = Picture(5.3, width=8.2)
    grid = figure.add_gridspec(5, 2, height_ratios=[1, 1, 1, 0.02, 2.1])
    rows = [titled_row(figure.add_subplot(grid[row, :]), SHOWN_FRAMES) for row in range(3)]
    moving, panels = [*sum(rows, ())], []
    for column in range(2):
        artists, panel = answers_panel(figure.add_subplot(grid[4, column]))
        panels.append(panel)
        moving += artists

    def update(clip, says, true, title, frame=-1) -> None:
        strips = [clip, *(one["frames"] for one in says.values())]
        labels = [title, *(look_of(method).label for method in says)]
        for (image, text), strip, label in zip(rows, strips, labels, strict=True):
            image.set_data(_row(strip, frame))
            text.set_text(label)
        for panel, (method, one) in zip(panels, says.items(), strict=True):
            verdict = "" if not true else ": right" if one["top"][0][0] == true else ": wrong"
            panel(look_of(method), look_of(method).label + verdict, one["top"], true)

    return Scene(figure, update, moving)


def _row(strip: np.ndarray, frame: int) -> np.ndarray:
    """At most eight of the frames [T, 3, S, S] side by side, one marked; room is left where there are fewer."""
    fine, count = max(1, strip.shape[-1] // 96), min(SHOWN_FRAMES, len(strip))  # large frames lose pixels
    chosen = strip[np.arange(count) * len(strip) // count, :, ::fine, ::fine].transpose(0, 2, 3, 1)
    row = frame_row(chosen, np.arange(count) == frame)
    return np.pad(row, ((0, 0), (0, row.shape[1] // count * (SHOWN_FRAMES - count)), (0, 0)))


def bias_values(
    learners: Mapping[str, VideoLearner],
    world: World,
    *,
    actor: int = 0,
    motion: int = 0,
    background: int = 0,
    order: str = "forward",
    shown: str = "relevance",
    covered: float = 0.0,
    first: str = "finetune",
    second: str = "open_mede",
) -> dict:
    """The scene's values for two of the learners (their classes set); the indices are those of the world."""
    clip, true = reordered(draw_clip(world, actor, motion, background), order), action_text(actor, motion)
    if order == "reversed":
        true = action_text(actor, motion ^ 1)
    where = {index: name for name, index in BACKGROUNDS.items()}[background]
    home = "its home scene" if background == world.home[motion] else "not its home scene"
    order = "" if order == "forward" else f", {order}"
    says = side_by_side({name: opinion(learners[name], clip, shown, covered) for name in {first: 0, second: 0}})
    title = f"{action_text(actor, motion)}, before: {where} ({home}){order}"
    return {"clip": clip.numpy(), "says": says, "true": true, "title": title}


def side_by_side(says: dict[str, dict]) -> dict[str, dict]:
    """What two learners say; one that was chosen twice stands there twice."""
    return says if len(says) == 2 else {**says, **{f"{name} again": one for name, one in says.items()}}


def by_label(methods: Iterable[str]) -> dict[str, str]:
    return {look_of(method).label: method for method in methods}


def bias_explorer(learners: Mapping[str, VideoLearner], world: World | None = None):
    """Pick actor, motion, background and order of frames, cover what the map ranks highest, and see what two learners
    say and where they look: a widget.

    ``learners`` are two or more by their methods' names, as ``workspace.learner`` gives them.
    """
    world = world or World(1)
    names = world.class_names(half="all")
    learners = {name: learner.set_classes(names) for name, learner in learners.items()}
    compute = lru_cache(maxsize=64)(lambda **chosen: bias_values(learners, world, **chosen))  # playing draws alone

    def values(frame: int, **chosen) -> tuple[dict, str]:
        drawn = {**compute(**chosen), "frame": frame - 1}
        first, second = (one["top"][0] for one in drawn["says"].values())
        truth = "" if chosen["order"] in ("forward", "reversed") else " (as filmed; this order hides it)"
        return drawn, (
            f"true: <b>{drawn['true']}</b>{truth} &nbsp;·&nbsp; left: {first[0]} ({100 * first[1]:.0f} %) "
            f"&nbsp;·&nbsp; right: {second[0]} ({100 * second[1]:.0f} %)"
        )

    two = list(learners)[:2]
    controls = {
        "actor": choice("actor", {ACTORS[index]: index for index in range(SOURCE_ACTORS)}),
        "motion": choice("motion", {name: index for index, name in enumerate(MOTIONS)}),
        "background": choice("background", BACKGROUNDS, value=int(world.home[0])),
        "order": choice("frames", ORDERS),
        "shown": choice("map", ("none", *SHOWN), value="relevance"),
        "covered": slider("covered share", 0.0, 0.0, 1.0, 0.05),
        "first": choice("left", by_label(learners), value=two[0]),
        "second": choice("right", by_label(learners), value=two[1]),
        "frame": player(),
    }
    return explorer(bias_scene(), controls, values, "mede-bias")
