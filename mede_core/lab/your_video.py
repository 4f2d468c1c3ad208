"""A video of one's own: what a learner answers, in whatever order the frames come, and what speaks for the answer."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np

from ..files import ASSETS
from ..learner import VideoLearner
from ..report.figures.style import Picture, look_of, styled
from ..video.classes import check_class_names
from ..video.clips import read_views
from ..video.decode import probe
from ..world.synthetic import MOTIONS, World
from .bias_lab import ORDERS, SHOWN, answers_panel, by_label, draw_clip, opinion, reordered
from .explorers import choice, explorer, field, slider, upload
from .scenes import Scene, frame_row, titled_row

EXAMPLE = ASSETS / "example.mp4"  # by write_example
FRAMES, VIEWS, ROW = (1, 4, 8, 16), 5, 8  # to read; places to read from; frames that are shown


def write_example(path: str | os.PathLike, *, frames: int = 32, size: int = 128) -> Path:
    """A clip of the world as H.264, 8 frames a second: a red star moves left where it is at home to move right."""
    world, left, right = World(1), MOTIONS.index("moving left"), MOTIONS.index("moving right")
    clip = draw_clip(world, 0, left, int(world.home[right]), num_frames=frames, size=size)
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "22"})
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for frame in clip.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return Path(path)


@styled
def video_scene() -> Scene:
    """Frames of a video, the same under a map, the likeliest answers, and the answer to each order of the frames."""
    figure = Picture(4.4, width=8.2)
    grid = figure.add_gridspec(4, 2, height_ratios=[1, 1, 0.02, 2.1])
    rows = [titled_row(figure.add_subplot(grid[row, :]), ROW) for row in range(2)]
    (said, answers), (tried, orders) = (answers_panel(figure.add_subplot(grid[3, column])) for column in range(2))

    def update(method, strips, top, order_test) -> None:
        for (image, text), (title, strip) in zip(rows, strips.items(), strict=True):
            image.set_data(_row(strip))
            text.set_text(title)
        answers(look_of(method), f"{look_of(method).label} answers", top)
        test = [(f"{order}: {name}", chance) for order, name, chance in order_test]
        orders(look_of(method), "and with the frames in another order", test)

    return Scene(figure, update, [*sum(rows, ()), *said, *tried])


def _row(strip: np.ndarray) -> np.ndarray:
    """At most eight of the frames [T, 3, S, S] side by side; room is left where there are fewer."""
    fine = max(1, strip.shape[-1] // 96)  # large frames are drawn with fewer pixels
    chosen = np.arange(min(ROW, len(strip))) * len(strip) // min(ROW, len(strip))
    row = frame_row(strip[chosen, :, ::fine, ::fine].transpose(0, 2, 3, 1), np.zeros(len(chosen), bool))
    return np.pad(row, ((0, 0), (0, row.shape[1] // len(chosen) * (ROW - len(chosen))), (0, 0)))


def video_values(
    learners: Mapping[str, VideoLearner], path: str | os.PathLike, *, method: str = "open_mede", frames: int = 8,
    sampling: str = "uniform", view: int = 1, shown: str = "relevance", classes: Sequence[str] = (),
) -> dict:  # fmt: skip
    """The scene's values for a video file; without ``classes`` those of the world."""
    learner = learners[method].set_classes(classes or World(1).class_names(half="all"))
    reading = {"num_frames": frames, "views": VIEWS, "sampling": sampling, "image_size": learner.image_size}
    clip = read_views(path, probe(path), **reading)[view - 1]
    says = opinion(learner, clip, shown)
    test = {order: opinion(learner, reordered(clip, order))["top"][0] for order in ORDERS}
    title = f"{Path(path).name}: {frames} frames, {sampling}, view {view} of {VIEWS}"
    return {
        "method": method, "strips": {title: clip.numpy(), f"map: {shown}": says["frames"]}, "top": says["top"],
        "order_test": [(order, *first) for order, first in test.items()],
    }  # fmt: skip


def video_explorer(learners: Mapping[str, VideoLearner], path: str | os.PathLike = EXAMPLE, classes: str = ""):
    """Choose or upload a video, turn frames, view and classes, and see what a learner answers and why: a widget.

    ``classes`` are names between commas; ``learners`` are by their methods' names, as ``workspace.learner`` gives them.
    """
    folder, last = tempfile.TemporaryDirectory(), {}  # of uploaded files; what was drawn last

    def take(name: str, content: bytes) -> None:
        file = Path(tempfile.mkdtemp(dir=folder.name), Path(name).name)  # same name, another video: another file
        file.write_bytes(content)
        controls["path"].value = str(file)

    def values(upload, classes: str, view: float, **chosen) -> tuple[dict, str]:
        try:
            names = check_class_names(classes.split(",")) if classes.strip() else ()
            last["drawn"] = video_values(learners, classes=names, view=int(view), **chosen)
        except (ValueError, OSError) as error:  # what a person typed or chose
            if not last:
                raise
            return last["drawn"], f"<b>{error}</b> &nbsp;·&nbsp; below stands what was asked before"
        told = [name for _, name, _ in last["drawn"]["order_test"]]
        turned = "the answer stays" if told[0] == told[1] else f"the answer becomes <b>{told[1]}</b>"
        return last["drawn"], f"answer: <b>{told[0]}</b> &nbsp;·&nbsp; frames reversed: {turned}"

    controls = {
        "upload": upload("video/*", take),
        "path": field("video file", os.fspath(path), "a path on this machine", "mede-path"),
        "classes": field("classes", classes, "names between commas; empty: the world's", "mede-classes"),
        "method": choice("learner", by_label(learners)),
        "frames": choice("frames", FRAMES, 8),
        "sampling": choice("sampling", ("uniform", "dense")),
        "view": slider("view", 1, 1, VIEWS, 1, "mede-view", shown=".0f"),
        "shown": choice("map", ("none", *SHOWN), "relevance"),
    }
    return explorer(video_scene(), controls, values, "mede-video")
