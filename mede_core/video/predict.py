"""Name the action in a video: ``python -m mede_core.video.predict --video FILE --classes "a" "b" ...``.

``--checkpoint`` takes a training run's folder or one of its files, ``--explain FILE`` saves where the model looks.
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
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import METHODS, Config
from .decode import VideoInfo, probe
from .explain import PICTURES
from .manifest import check_class_names, read_class_names
from .prompts import Prompts, load_prompts
from .sampling import SAMPLINGS

if TYPE_CHECKING:
    from ..learner import VideoLearner

log = logging.getLogger("mede_core.video.predict")  # also where this module is __main__

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
    prompts: Prompts | None = None,
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
        prompts: a prompt set in place of the templates, from ``data.prompts.load_prompts``.
        info: what ``probe`` said of the video, to save a second look.

    Returns:
        K pairs (class name, probability), most probable first. The probabilities are the softmax of the
        logits: they compare the given classes and do not say whether any of them is right.

    Raises:
        ValueError: no or duplicate classes, a bad template, a value out of range.
        VideoError: the video cannot be read.
    """
    import torch

    from .clips import read_views

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
    learner.set_classes(names, tuple(templates), texts=prompts and prompts.texts(names))
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
            raise ValueError(f"prompts hold {template!r}; each needs one {{}} for the class name and no other braces")


def _prompt_set(given: Sequence[str]) -> Prompts:
    """The prompt set that ``--prompts`` or a checkpoint names: templates with a {}, or one of ``load_prompts``."""
    if len(given) == 1 and "{" not in given[0]:
        try:
            return load_prompts(given[0])
        except ValueError as error:
            raise ValueError(f"{error}; or templates with a {{}} for the class name") from error
    _check_templates(given)
    shown = "name" if list(given) == ["{}"] else ", ".join(given)
    return Prompts(shown, lambda names: [[template.format(name) for template in given] for name in names])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):  # one line, without the usage that would push it off the screen
        self.exit(2, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mede_core.video.predict",
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
    parser.add_argument(
        "--checkpoint",
        metavar="DIR|FILE",
        help="a finished training run's folder (its method's weights), or its epoch_NNN or gwa .safetensors",
    )
    parser.add_argument("--random-weights", action="store_true", help="smoke run without pretrained weights")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="how many to print (default: 5)")
    parser.add_argument("--frames", type=int, metavar="T", help="frames of a view (default: 8, or the checkpoint's)")
    parser.add_argument("--views", type=int, metavar="V", help="views of the video (default: 1, or the checkpoint's)")
    parser.add_argument("--sampling", choices=SAMPLINGS, help="default: uniform, or the checkpoint's")
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="TEXT",
        help="templates with a {} each, or: name, templates (28 of them), a JSON file of rephrased names "
        "(default: name, or the checkpoint's)",
    )
    parser.add_argument("--explain", metavar="FILE", help="save where the model looks, as .png, .svg or .pdf")
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
    handler.addFilter(logging.Filter("mede_core"))  # other packages' remarks would drown the one line that counts
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
    if args.explain and Path(args.explain).suffix.lower() not in PICTURES:
        raise ValueError(f"--explain is {args.explain!r}; it must end in {', '.join(PICTURES)}")
    prompts = _prompt_set(args.prompts) if args.prompts else None
    info = probe(args.video)

    learner, facts, config = _build(args)
    prompts = prompts or _prompt_set([config.prompts])
    reading = {"num_frames": args.frames or config.num_frames, "sampling": args.sampling or config.sampling}
    views = args.views or config.views
    ranked = predict(learner, args.video, names or facts["classes"], views=views, prompts=prompts, info=info, **reading)
    random = learner.weights_id == "random"
    if args.explain:
        from .explain import save_explanation

        name, value = ranked[0]
        mark = f"{RANDOM.partition(':')[0]} - " if random else ""
        title = f"{mark}{name} ({100 * value:.1f} %): where the class token looks"
        save_explanation(args.explain, learner, args.video, title, info=info, **reading)
    return {
        **({"warning": RANDOM} if random else {}),
        "video": os.fspath(args.video),
        "frames_in_file": info.frames,
        "fps": info.fps,
        "size": [info.width, info.height],
        "backend": info.backend,
        "model": config.model,
        "weights": learner.weights_id,
        "random_weights": random,
        "checkpoint": args.checkpoint,
        "trained": facts.get("trained"),
        "frames": reading["num_frames"],
        "views": views,
        "sampling": reading["sampling"],
        "prompts": prompts.id,
        **({"explanation": args.explain} if args.explain else {}),
        "predictions": [{"class": name, "probability": value} for name, value in ranked[: args.top_k]],
    }


def _build(args: argparse.Namespace) -> tuple[VideoLearner, dict, Config]:
    """The learner, the checkpoint's metadata, and the recipe: flags first, then what the checkpoint says."""
    import torch
    from safetensors import SafetensorError

    from ..checkpoints import interpolate
    from ..experiment import learner_for

    if args.checkpoint:
        tensors, facts, config = _read_checkpoint(Path(args.checkpoint))
    else:  # fresh adapters would be the identity: the same answer is had without any
        tensors, facts, config = None, {}, Config(method="frozen", adapter_width=0, trainable="visual")
    small = args.weights == "shipped" and args.model is None
    if args.checkpoint is None or args.model or small:
        config = config.replace(model=args.model or ("mede-small" if small else _DEFAULT_MODEL))
    if args.checkpoint is None or args.weights:
        given = args.weights or ("shipped" if config.model == "mede-small" else "openai")
        config = config.replace(weights=given, random_weights=False)
    config = config.replace(random_weights=args.random_weights or config.random_weights)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    try:
        learner = learner_for(config, device)
    except (RuntimeError, LookupError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"weights {config.weights!r} do not load into {config.model} ({what})") from error
    if tensors is not None:
        _check_base(facts.get("weights", ""), learner.weights_id)
        if "patched" in facts:
            tensors = interpolate(tensors, learner.trainable_state(), facts["patched"])
        learner.load_trainable(tensors)
    return learner, facts, config


def _read_checkpoint(path: Path) -> tuple[dict, dict, Config]:
    """Tensors, metadata and configuration of a checkpoint; a run's folder stands for its method's weights."""
    from ..checkpoints import checkpoint_path, load_checkpoint, method_weights

    if not path.is_dir():
        tensors, facts = load_checkpoint(path)
        return tensors, {**facts, "trained": _trained(facts)}, _recipe(facts, path)
    if not (path / "done.json").is_file():
        raise ValueError(f"checkpoint {path} is no finished run (no done.json); one of its epoch_NNN files will do")
    epochs = json.loads((path / "done.json").read_text(encoding="utf-8"))["epochs"]
    facts = load_checkpoint(checkpoint_path(path, epochs))[1]
    config = _recipe(facts, path)
    method = METHODS[config.method]
    if method.patched:
        facts["patched"] = config.patch_ratio
    mixed = f", mixed with CLIP ({config.patch_ratio:g})" if method.patched else ""
    facts["trained"] = f"{config.method}, {method.average} of {epochs} epochs{mixed}"
    return method_weights(path, config), facts, config


def _trained(facts: dict) -> str:
    average, epochs = facts.get("averaged"), facts.get("epochs") or []
    shown = f"epoch {epochs[0]}" if len(epochs) == 1 else f"{len(epochs)} epochs"
    return f"{(average or {}).get('name', '')} {shown}".strip() if epochs else "not said"


def _recipe(facts: dict, path: Path) -> Config:
    values = facts.get("config", {})
    unknown = sorted(values.keys() - Config.model_fields.keys())
    if unknown:
        raise ValueError(f"checkpoint {path} names unknown configuration fields {unknown}; is it of a newer version?")
    return Config(**values)


def _check_base(trained_on: str, given: str) -> None:
    """Refuse CLIP weights that a checkpoint was not trained on, as far as their names can tell."""
    hashes = [name.partition(":")[2] for name in (trained_on, given)]
    if trained_on == given or (all(hashes) and hashes[0] == hashes[1]):
        return
    if all(hashes) or not any(hashes) or "random" in (trained_on, given):
        raise ValueError(f"the checkpoint was trained on CLIP weights {trained_on}, but these are {given}")
    message = "the checkpoint was trained on CLIP weights %s, these are %s: nobody can tell if they are the same"
    log.warning(message, trained_on, given)


def _text(answer: dict) -> str:
    width, height = answer["size"]
    mark = [f"*** {RANDOM} ***"] if answer["random_weights"] else []
    file = f"{answer['frames_in_file']} frames, {answer['fps']:.4g} fps, {width}x{height}, {answer['backend']}"
    views = f", {answer['views']} views" if answer["views"] > 1 else ""
    facts = {
        "video": f"{answer['video']} ({file})",
        "model": answer["model"],
        "weights": answer["weights"],
        "checkpoint": answer["checkpoint"] and f"{answer['checkpoint']} ({answer['trained']})",
        "read": f"{answer['frames']} frames, {answer['sampling']}{views}",
        "prompts": answer["prompts"],
        "explained": answer.get("explanation"),
    }
    lines = [f"{name:10s}  {value}" for name, value in facts.items() if value is not None]
    ranking = [
        f"{rank:3d}. {100 * item['probability']:6.2f} %  {item['class']}"
        for rank, item in enumerate(answer["predictions"], 1)
    ]
    return "\n".join([*mark, *lines, "", *ranking, *(["", *mark] if mark else [])])


if __name__ == "__main__":
    sys.exit(main())
