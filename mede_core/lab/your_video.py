"""A video of one's own: what two learners answer, in whatever order the frames come, and what speaks for it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..files import ASSETS
from ..learner import VideoLearner
from ..video.classes import check_class_names
from ..video.clips import read_views
from ..world.synthetic import World
from .bias_lab import ORDERS, SHOWN, bias_scene, by_label, opinion, reordered, side_by_side
from .explorers import choice, explorer, field, slider, upload

# A clip of World(1) at 8 frames a second: a red star moves left where it is at home to move right
EXAMPLE = ASSETS / "example.mp4"
FRAMES, VIEWS = (1, 4, 8, 16), 5  # to read, and places to read from


def class_list(classes: str) -> list[str]:
    """Names between commas; without any those of the world."""
    return check_class_names(classes.split(",")) if classes.strip() else World(1).class_names(half="all")


def read(
    learner: VideoLearner, path: str | Path, *, frames: int = 8, sampling: str = "uniform", view: int = 1
) -> Tensor:
    """One view of a video file, as a learner takes it: uint8 [T, 3, S, S]."""
    reading = {"num_frames": frames, "views": VIEWS, "sampling": sampling}
    return read_views(path, image_size=learner.image_size, **reading)[view - 1]


def by_order(learner: VideoLearner, clip: Tensor) -> dict[str, tuple[str, float]]:
    """{order of the frames: the likeliest answer and its probability}; the learner's classes are set."""
    return {order: opinion(learner, reordered(clip, order))["top"][0] for order in ORDERS}


def video_values(
    learners: Mapping[str, VideoLearner], path: str | Path, first: str, second: str, *, order: str = "forward",
    shown: str = "relevance", **reading,
) -> dict:  # fmt: skip
    """The values of ``bias_scene`` for a video file and two of the learners, their classes set."""
    clips = {name: reordered(read(learners[name], path, **reading), order) for name in {first: 0, second: 0}}
    says = side_by_side({name: opinion(learners[name], clip, shown) for name, clip in clips.items()})
    title = ", ".join([Path(path).name, f"{len(clips[first])} frames", order])
    return {"clip": clips[first].numpy(), "says": says, "true": "", "title": title}


def video_explorer(learners: Mapping[str, VideoLearner], path: str = "", classes: str = ""):
    """Choose or upload a video, turn frames, order, view and classes, and see what two learners answer: a widget.

    ``classes`` are names between commas; ``learners`` are by their methods' names, as ``workspace.learner`` gives them.
    """
    folder, last = tempfile.TemporaryDirectory(), {}  # of uploaded files; what was drawn last

    def take(name: str, content: bytes) -> None:
        file = Path(tempfile.mkdtemp(dir=folder.name), Path(name).name)  # same name, another video: another file
        file.write_bytes(content)
        controls["path"].value = str(file)

    def values(upload, path: str, classes: str, **chosen) -> tuple[dict, str]:
        try:
            names = class_list(classes)
            for name in (chosen["first"], chosen["second"]):
                learners[name].set_classes(names)
            last["drawn"] = video_values(learners, path or EXAMPLE, **chosen)
        except (ValueError, OSError) as error:  # what a person typed or chose
            if not last:
                raise
            return last["drawn"], f"<b>{error}</b> &nbsp;·&nbsp; below stands what was asked before"
        first, second = (one["top"][0] for one in last["drawn"]["says"].values())
        return last["drawn"], (
            f"left: <b>{first[0]}</b> ({100 * first[1]:.0f} %) &nbsp;·&nbsp; right: <b>{second[0]}</b> "
            f"({100 * second[1]:.0f} %), of {len(names)} names, at view {chosen['view']} of {VIEWS}"
        )

    two = [*learners, *learners][:2]
    controls = {
        "upload": upload("video/*", take),
        "path": field("video file", path, "a path on this machine; empty: the example"),
        "classes": field("classes", classes, "names between commas; empty: the world's"),
        "first": choice("left", by_label(learners), value=two[0]),
        "second": choice("right", by_label(learners), value=two[1]),
        "order": choice("order", ORDERS),
        "frames": choice("frames", FRAMES, value=8),
        "sampling": choice("sampling", ("uniform", "dense")),
        "view": slider("view", 1, 1, VIEWS),
        "shown": choice("map", ("none", *SHOWN), value="relevance"),
    }
    return explorer(bias_scene(), controls, values, "mede-video")
