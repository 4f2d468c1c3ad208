"""Name the action in videos, by CLIP or a trained checkpoint: over time, in other orders, and where the model looks."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..config import is_random
from ..files import atomic_write
from ..flags import Count, Device, File, NewFile
from ..weights import check_tokenizer
from .classes import given_classes, load_prompts
from .decode import VideoError, probe, read_clip
from .locate import Files
from .models import load_learner

if TYPE_CHECKING:
    from torch import Tensor

    from ..learner import VideoLearner

RANDOM = "RANDOM WEIGHTS: this is a smoke run, its ranking means nothing"
PICTURES = (".png", ".svg", ".pdf")
_TITLE = 90  # characters that fit over the strip
Optional = Annotated[int, Field(ge=0, le=1000)]  # 0: the checkpoint's


def _ranked(learner: VideoLearner, clip: Tensor, classes: Sequence[str]) -> list[tuple[str, float]]:
    """(class, probability) of a clip, as an evaluation would score it, most probable first; the classes are set."""
    import torch

    with torch.inference_mode():
        logits = learner(clip).float().mean(0)
    # They compare the given classes, and do not say whether any of them is right.
    probabilities = logits.softmax(-1).tolist()
    return sorted(zip(classes, probabilities, strict=True), key=lambda pair: -pair[1])


def _clip(learner: VideoLearner, path, **reading) -> Tensor:
    from .clips import read_views

    return read_views(path, image_size=learner.image_size, **reading).to(learner.logit_scale.device)


def over_time(learner: VideoLearner, path, classes: Sequence[str], windows: int, num_frames: int) -> list[dict]:
    """The most probable class in each of some equal parts of a video, whose classes are set, and its seconds."""
    from .clips import center_views, uniform_indices

    info = probe(path)
    if info.frames < windows:
        raise VideoError(path, f"--windows is {windows}, and it has {info.frames} frames")
    times = [*info.timeline.times.tolist(), info.timeline.times[-1] + 1 / (info.fps or 1)]
    edges = [round(info.frames * k / windows) for k in range(windows + 1)]
    found = []
    for k, chosen in enumerate(uniform_indices(info.frames, windows * num_frames).reshape(windows, num_frames)):
        clip = center_views(read_clip(path, chosen, info=info), learner.image_size, 1)
        name, value = _ranked(learner, clip.to(learner.logit_scale.device), classes)[0]
        start, end = (times[edge] if info.timed else None for edge in edges[k : k + 2])
        found.append({"start": start, "end": end, "class": name, "probability": value})
    return found


def order_test(learner: VideoLearner, clip: Tensor, classes: Sequence[str]) -> list[dict]:
    """What a clip [V, T, 3, S, S] is taken for when its frames are reversed, shuffled, or all the middle one."""
    from ..attention import frame_orders

    first, found = _ranked(learner, clip, classes)[0][0], []
    for order, frames in frame_orders(clip.shape[1]).items():
        ranked = _ranked(learner, clip[:, frames], classes)
        (name, value), kept = ranked[0], dict(ranked)[first]
        found.append({"order": order, "class": name, "probability": value, "changed": name != first, "before": kept})
    return found


def save_explanation(file: str | os.PathLike, learner: VideoLearner, video, title: str, **reading) -> Path:
    """Save the film strip of the middle view above the attention of the last block's class token (mean over heads)."""
    from ..attention import attention_maps
    from ..report.figures.film import film_strip_attention
    from ..report.figures.style import figure_bytes, style  # matplotlib, only where a picture is wanted

    file, clip = Path(file), _clip(learner, video, **reading)
    maps = attention_maps(learner, clip)
    title = textwrap.shorten(title, _TITLE).replace("$", r"\$")  # a class name is no formula
    with style():
        figure = film_strip_attention(clip[0].cpu().numpy(), maps[0].float().cpu().numpy(), title=title)
        return atomic_write(file, figure_bytes(figure, file.suffix[1:].lower(), file.stem))


# ------------------------------------------------------------------------------------ the command
def answer(
    videos: Sequence[str],
    /,
    *,
    classes: Sequence[str] = (),
    classes_file: File = "",
    model: str = "",
    weights: str = "",
    checkpoint: str = "",
    random_weights: bool = False,
    top_k: Count = 5,
    frames: Optional = 0,
    views: Optional = 0,
    sampling: Literal["", "uniform", "dense"] = "",
    prompts: Sequence[str] = (),
    windows: Optional = 0,
    order_test: bool = False,
    explain: NewFile = "",
    device: Device = "",
) -> list[dict]:
    """Rank actions for videos, by CLIP or by a trained checkpoint. Weights that are not here are fetched, once.

    Args:
        videos: files, folders of them, or patterns such as "clips/*.mp4"
        classes: class names, quoting those with blanks; or kinetics400
        classes_file: class names, one on each line
        model: open_clip model or mede-small (default: ViT-B-16-quickgelu)
        weights: open_clip tag, hf-hub:OWNER/NAME, local file, or shipped, which is mede-small (default: openai)
        checkpoint: a finished training run's folder (its method's weights), an epoch_NNN.safetensors of it, or a folder
            of either: one answer each
        random_weights: smoke run without pretrained weights
        top_k: how many to give
        frames: frames of a view (default: 8, or the checkpoint's)
        views: views of the video (default: 1, or the checkpoint's)
        sampling: default: uniform, or the checkpoint's
        prompts: templates with a {} each; or: name, templates (28 of them), a JSON file of rephrased names (default:
            name, or the checkpoint's)
        windows: also the best class of each of so many equal parts of the video
        order_test: also what is named when the frames are reversed, shuffled, or one alone
        explain: save where the model looks, as .png, .svg or .pdf
        device: default: cuda where there is one, otherwise cpu
    """
    # Cheap checks first: torch and open_clip take seconds to import.
    if not (classes or classes_file or checkpoint):
        raise ValueError("no classes; give --classes NAME ... or --classes-file FILE")
    if taken := [name for name in classes if Path(name).is_file()]:
        raise ValueError(f"classes hold {taken[0]!r}, a file; videos go before --classes, a list to --classes-file")
    if explain and Path(explain).suffix.lower() not in PICTURES:
        raise ValueError(f"--explain is {explain!r}; it must end in {', '.join(PICTURES)}")
    texts = load_prompts(*prompts) if prompts else None
    if model:
        check_tokenizer(model)
    files, sources = _files(videos), _checkpoints(checkpoint)
    if explain and (len(files) > 1 or len(sources) > 1):
        raise ValueError(f"--explain is one picture; given are {len(files)} videos and {len(sources)} checkpoints")
    if len(files) == 1:
        probe(files[0])
    given = given_classes(classes, classes_file)
    if len(given) == 1:
        several = 'give several, each in its own quotes: "archery" "bowling"'
        raise ValueError(f"classes hold one class, {given[0]!r}, which would get 100 %; {several}")

    answers = []
    for source in sources:
        learner, facts, config = load_learner(model, weights, source, random_weights, device)
        names, asked = given or facts["classes"], texts or load_prompts(config.prompts)
        learner.set_classes(names, texts=asked.texts(names))
        about = {
            "model": config.model, "weights": learner.weights_id, "random_weights": is_random(learner.weights_id),
            "checkpoint": source or None, "trained": facts.get("trained"), "frames": frames or config.num_frames,
            "views": views or config.views, "sampling": sampling or config.sampling, "prompts": asked.id,
        }  # fmt: skip
        extra = {"windows": windows, "order": order_test, "explain": explain, "top_k": top_k}
        for video in files:
            try:
                answers.append(_one(learner, video, names, about, **extra))
            except VideoError as error:
                if len(files) == 1:
                    raise
                answers.append({"video": video, "error": "; ".join(error.reasons)})
    return answers


def _one(learner, video: str, names, about: Mapping, *, windows, order, explain, top_k) -> dict:
    reading = {"num_frames": about["frames"], "sampling": about["sampling"]}
    info, clip = probe(video), _clip(learner, video, views=about["views"], **reading)
    ranked = _ranked(learner, clip, names)
    found = {
        **({"warning": RANDOM} if about["random_weights"] else {}),
        "video": video, "frames_in_file": info.frames, "fps": info.fps, "size": [info.width, info.height],
        "backend": info.backend, **about, **({"explanation": explain} if explain else {}),
        "predictions": [{"class": name, "probability": value} for name, value in ranked[:top_k]],
    }  # fmt: skip
    if windows:
        found["windows"] = over_time(learner, video, names, windows, about["frames"])
    if order:
        found["order_test"] = order_test(learner, clip, names)
    if explain:
        name, value = ranked[0]
        mark = f"{RANDOM.partition(':')[0]} - " if about["random_weights"] else ""
        title = f"{mark}{name} ({100 * value:.1f} %): where the class token looks"
        save_explanation(explain, learner, video, title, **reading)
    return found


def _files(given: Sequence[str]) -> list[str]:
    """The videos that files, folders and patterns mean, each once; one that is not there stays, to be named."""
    found = []
    for one in map(os.fspath, given):
        if Path(one).is_dir():
            inside = [os.path.join(one, name) for name in Files(one).names]
            if not inside:
                raise ValueError(f"{one!r} is a folder without videos")
        else:
            inside = [one] if Path(one).exists() else sorted(glob(one, recursive=True))
        found += inside or [one]
    return list(dict.fromkeys(found))


def _checkpoints(given: str) -> list[str]:
    """A checkpoint or a finished run as it is; of another folder, those inside."""
    folder = Path(given)
    if given and not folder.exists():
        raise ValueError(f"checkpoint {given!r}: no such file or folder")
    if not given or folder.is_file() or (folder / "done.json").is_file():
        return [given]
    inside = sorted(one for one in folder.iterdir() if one.suffix == ".safetensors" or (one / "done.json").is_file())
    if not inside:
        raise ValueError(f"checkpoint {given!r} is no finished run (no done.json), and holds neither one nor epochs")
    return [str(one) for one in inside]


# ------------------------------------------------------------------------------------ as text
def as_text(answers: Sequence[Mapping], width: int = 0) -> str:
    """The answers as lines, with bars where a terminal has so many columns; what does not change is said once."""
    lines, said = [], {}
    for one in answers:
        facts = _facts(one)
        lines += [f"{name:10s}  {value}" for name, value in facts.items() if value and said.get(name) != value]
        said = {**said, **facts}
        if "predictions" in one:
            lines += ["", *_ranking(one, width), ""]
    marks = [f"*** {RANDOM} ***"] if any("warning" in one for one in answers) else []
    return "\n".join([*marks, *lines, *marks]).rstrip("\n")


def _facts(answer: Mapping) -> dict:
    if "error" in answer:
        return {"video": f"{answer['video']} cannot be read: {answer['error']}"}
    width, height = answer["size"]
    file = f"{answer['frames_in_file']} frames, {answer['fps']:.4g} fps, {width}x{height}, {answer['backend']}"
    views = f", {answer['views']} views" if answer["views"] > 1 else ""
    return {
        "model": answer["model"],
        "weights": answer["weights"],
        "checkpoint": answer["checkpoint"] and f"{answer['checkpoint']} ({answer['trained']})",
        "read": f"{answer['frames']} frames, {answer['sampling']}{views}",
        "prompts": answer["prompts"],
        "explained": answer.get("explanation"),
        "video": f"{answer['video']} ({file})",
    }


def _ranking(answer: Mapping, width: int) -> Iterator[str]:
    ranked = [(f"{k:3d}.", one) for k, one in enumerate(answer["predictions"], 1)]
    timed = [("  no times " if one["start"] is None else f"{one['start']:7.2f} to {one['end']:7.2f} s", one)
             for one in answer.get("windows", ())]  # fmt: skip
    orders = [(f"{one['order']:9s}", one) for one in answer.get("order_test", ())]
    for title, rows in (("", ranked), ("over time", timed), ("in another order", orders)):
        yield from ["", title] if title and rows else []
        longest = max((len(one["class"]) for _, one in rows), default=0)
        for head, one in rows:
            line = f"{head} {100 * one['probability']:6.2f} %  {one['class']}"
            if "changed" in one:
                kept = f"another answer; the first keeps {100 * one['before']:.2f} %"
                line += f"  ({kept if one['changed'] else 'the same'})"
            elif room := max(0, width - longest - len(head) - 14):
                bar = "\u2588" * round(room * one["probability"])
                line = f"{line}{' ' * (longest - len(one['class']))}  {bar}".rstrip()
            yield line
