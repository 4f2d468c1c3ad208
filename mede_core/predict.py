"""Name the action in a video: ``python -m mede_core.predict --video FILE --classes "a" "b" ...``.

:func:`predict` does the same as a library call. The classes are free text: nothing is trained for them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .data.manifest import check_class_names, read_class_names
from .data.sampling import SAMPLINGS
from .data.video import VideoInfo, probe

if TYPE_CHECKING:
    from .learner import VideoLearner

log = logging.getLogger("mede_core.predict")  # also where this module is __main__

RANDOM = "RANDOM WEIGHTS: this is a smoke run, its ranking means nothing"
_DEFAULT_MODEL = "ViT-B-16-quickgelu"


def predict(
    learner: VideoLearner,
    path: str | os.PathLike,
    classes: Sequence[str],
    *,
    num_frames: int = 8,
    views: int = 1,
    sampling: str = "uniform",
    templates: Sequence[str] = ("{}",),
    info: VideoInfo | None = None,
) -> list[tuple[str, float]]:
    """Rank classes for one video, as an evaluation would score it.

    Args:
        learner: its classes are set to ``classes``; its mode is restored.
        path: a video file.
        classes: K class names.
        num_frames: frames of a view, T.
        views: V; logits are averaged over frames, then views.
        sampling: ``uniform`` (the whole video) or ``dense`` (windows of 8 x 16 frames at 30 fps).
        templates: prompts with one ``{}`` each.
        info: what ``probe`` said of the video, to save a second look.

    Returns:
        K pairs (class name, probability), most probable first. The probabilities are the softmax of the
        logits: they compare the given classes and do not say whether any of them is right.

    Raises:
        ValueError: no or duplicate classes, a bad template, a value out of range.
        VideoError: the video cannot be read.
    """
    import torch

    from .data.datasets import read_views

    names = check_class_names(classes)
    _check_templates(templates)
    clip = read_views(
        path,
        info or probe(path),
        num_frames=num_frames,
        image_size=learner.image_size,
        sampling=sampling,
        views=views,
    )
    learner.set_classes(names, tuple(templates))
    training = learner.training
    learner.eval()
    try:
        with torch.inference_mode():
            logits = learner(clip.to(learner.logit_scale.device)).float().mean(0)
    finally:
        learner.train(training)
    probabilities = logits.softmax(-1).tolist()
    return sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])


def _check_templates(templates: Sequence[str]) -> None:
    for template in templates:
        try:
            good = template.format("x") != template.format("y")
        except (KeyError, IndexError, ValueError):
            good = False
        if not good:
            raise ValueError(
                f"prompts hold {template!r}; each needs one {{}} for the class name and no other braces"
            )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):  # one line, without the usage that would push it off the screen
        self.exit(2, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mede_core.predict",
        description="Rank actions for a video, by CLIP or by a trained checkpoint.",
        epilog="exit codes: 0 done, 2 bad input (one line on stderr says what)",
    )
    parser.add_argument("--video", required=True, metavar="FILE")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="class names; quote those with blanks")
    parser.add_argument("--classes-file", metavar="FILE", help="class names, one on each line")
    parser.add_argument("--model", help=f"open_clip model or mede-small (default: {_DEFAULT_MODEL})")
    parser.add_argument(
        "--weights",
        metavar="TAG|FILE",
        help="open_clip tag, local file, or shipped (mede-small) (default: openai)",
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="a training run's epoch_NNN or gwa .safetensors")
    parser.add_argument("--random-weights", action="store_true", help="smoke run without pretrained weights")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="how many to print (default: 5)")
    parser.add_argument(
        "--frames", type=int, metavar="T", help="frames of a view (default: 8, or the checkpoint's)"
    )
    parser.add_argument("--views", type=int, default=1, metavar="V", help="views of the video (default: 1)")
    parser.add_argument("--sampling", choices=SAMPLINGS, default="uniform")
    parser.add_argument(
        "--prompts", nargs="+", metavar="TEXT", default=["{}"], help="templates with a {} each"
    )
    parser.add_argument("--device", help="default: cuda where there is one, otherwise cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Args:
        arguments: default: those of the process.

    Returns:
        the exit code: 0, or 2 for bad input, which one line on stderr explains.
    """
    args = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    handler = logging.StreamHandler()
    handler.addFilter(
        logging.Filter("mede_core")
    )  # other packages' remarks would drown the one line that counts
    logging.basicConfig(level=logging.WARNING, format="note: %(message)s", handlers=[handler])
    try:
        answer = _answer(args)
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    print(json.dumps(answer, indent=1) if args.json else _text(answer))
    return 0


def _answer(args: argparse.Namespace) -> dict:
    # Cheap checks first: torch and open_clip take seconds to import.
    if args.classes and args.classes_file:
        raise ValueError("--classes and --classes-file are both given; one is enough")
    if not (args.classes or args.classes_file or args.checkpoint):
        raise ValueError("no classes; give --classes NAME ... or --classes-file FILE")
    names = read_class_names(args.classes_file) if args.classes_file else args.classes
    if names is not None:
        names = check_class_names(names)
    for name in ("top_k", "frames", "views"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    _check_templates(args.prompts)
    info = probe(args.video)

    learner, facts, recipe = _build(args)
    num_frames = args.frames or recipe.get("num_frames", 8)
    ranked = predict(
        learner,
        args.video,
        names or facts["classes"],
        num_frames=num_frames,
        views=args.views,
        sampling=args.sampling,
        templates=args.prompts,
        info=info,
    )
    random = learner.weights_id == "random"
    return {
        **({"warning": RANDOM} if random else {}),
        "video": os.fspath(args.video),
        "frames_in_file": info.frames,
        "fps": info.fps,
        "size": [info.width, info.height],
        "backend": info.backend,
        "model": recipe["model"],
        "weights": learner.weights_id,
        "random_weights": random,
        "checkpoint": args.checkpoint,
        "frames": num_frames,
        "views": args.views,
        "sampling": args.sampling,
        "prompts": list(args.prompts),
        "predictions": [{"class": name, "probability": value} for name, value in ranked[: args.top_k]],
    }


def _build(args: argparse.Namespace) -> tuple[VideoLearner, dict, dict]:
    """The learner, the checkpoint's metadata, and the recipe: flags first, then what the checkpoint says."""
    import torch
    from safetensors import SafetensorError

    from .learner import build_learner, load_checkpoint

    tensors, facts = load_checkpoint(args.checkpoint) if args.checkpoint else (None, {})
    # Without a checkpoint the adapters would be the identity: the same answer is had without any.
    recipe = {"adapter_width": 0, "trainable": "visual", "random_weights": False, "seed": 0}
    recipe.update(facts.get("config", {}))
    small = args.weights == "shipped" and args.model is None
    if args.checkpoint is None or args.model or small:
        recipe["model"] = args.model or ("mede-small" if small else _DEFAULT_MODEL)
    if args.checkpoint is None or args.weights:
        recipe["weights"] = args.weights or ("shipped" if recipe["model"] == "mede-small" else "openai")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    try:
        learner = build_learner(
            recipe["model"],
            recipe["weights"],
            adapter_width=recipe["adapter_width"],
            trainable=recipe["trainable"],
            random_weights=args.random_weights or (recipe["random_weights"] and args.weights is None),
            seed=recipe["seed"],
            device=device,
        )
    except (RuntimeError, LookupError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"weights {recipe['weights']!r} do not load into {recipe['model']} ({what})"
        ) from error
    if tensors is not None:
        _check_base(facts.get("weights", ""), learner.weights_id)
        learner.load_trainable(tensors)
    return learner, facts, recipe


def _check_base(trained_on: str, given: str) -> None:
    """Refuse CLIP weights that a checkpoint was not trained on, as far as their names can tell."""
    hashes = [name.partition(":")[2] for name in (trained_on, given)]
    if trained_on == given or (all(hashes) and hashes[0] == hashes[1]):
        return
    if all(hashes) or not any(hashes) or "random" in (trained_on, given):
        raise ValueError(f"the checkpoint was trained on CLIP weights {trained_on}, but these are {given}")
    message = (
        "the checkpoint was trained on CLIP weights %s, these are %s: nobody can tell if they are the same"
    )
    log.warning(message, trained_on, given)


def _text(answer: dict) -> str:
    width, height = answer["size"]
    mark = [f"*** {RANDOM} ***"] if answer["random_weights"] else []
    file = (
        f"{answer['frames_in_file']} frames, {answer['fps']:.4g} fps, {width}x{height}, {answer['backend']}"
    )
    views = f", {answer['views']} views" if answer["views"] > 1 else ""
    facts = {
        "video": f"{answer['video']} ({file})",
        "model": answer["model"],
        "weights": answer["weights"],
        "checkpoint": answer["checkpoint"],
        "read": f"{answer['frames']} frames, {answer['sampling']}{views}",
        "prompts": ", ".join(answer["prompts"]),
    }
    lines = [f"{name:10s}  {value}" for name, value in facts.items() if value is not None]
    ranking = [
        f"{rank:3d}. {100 * item['probability']:6.2f} %  {item['class']}"
        for rank, item in enumerate(answer["predictions"], 1)
    ]
    return "\n".join([*mark, *lines, "", *ranking, *(["", *mark] if mark else [])])


if __name__ == "__main__":
    sys.exit(main())
