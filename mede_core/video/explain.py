"""A prediction's explanation: the frames that were read, above where the class token looked in each."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import atomic_write
from .decode import VideoInfo, probe

if TYPE_CHECKING:
    from ..learner import VideoLearner

PICTURES = (".png", ".svg", ".pdf")
_TITLE = 90  # characters that fit over the strip


def save_explanation(
    file: str | os.PathLike,
    learner: VideoLearner,
    video: str | os.PathLike,
    title: str,
    *,
    num_frames: int = 8,
    sampling: str = "uniform",
    info: VideoInfo | None = None,
) -> Path:
    """Save the film strip of one view with the attention of the last block's class token (mean over heads).

    Args:
        file: where to; its ending decides the format: .png, .svg or .pdf.
        learner: any learner; its mode is restored.
        video: a video file.
        title: above the strip.
        num_frames: frames, T.
        sampling: ``uniform`` or ``dense``; of several views the strip shows the one in the middle of the video.
        info: what ``probe`` said of the video, to save a second look.

    Returns:
        the file written.

    Raises:
        ValueError: another ending, or a value out of range.
        VideoError: the video cannot be read.
    """
    file = Path(file)
    if file.suffix.lower() not in PICTURES:
        raise ValueError(f"file is {os.fspath(file)!r}; it must end in {', '.join(PICTURES)}")
    from ..attention import attention_maps
    from ..report.figures.clips import film_strip_attention
    from ..report.figures.style import _render, style  # matplotlib, only where a picture is wanted
    from .clips import read_views

    clip = read_views(
        video, info or probe(video), num_frames=num_frames, image_size=learner.image_size, sampling=sampling, views=1
    )
    training = learner.training
    learner.eval()
    try:
        maps = attention_maps(learner, clip.to(learner.logit_scale.device))
    finally:
        learner.train(training)
    title = textwrap.shorten(title, _TITLE).replace("$", r"\$")  # a class name is no formula
    with style():
        figure = film_strip_attention(clip[0].numpy(), maps[0].float().cpu().numpy(), title=title)
        return atomic_write(file, _render(figure, file.suffix[1:].lower(), file.stem, None))
