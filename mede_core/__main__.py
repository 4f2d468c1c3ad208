"""The command `mede`: its verbs, and what is shown of their answers. Also `python -m mede_core`, and under torchrun.

    mede train --profile paper --method open_mede --data k400.csv --data-split train
    torchrun --nproc_per_node=8 -m mede_core train ...       # several nodes: torchrun's own flags

A verb is a function whose parameters are the flags and whose docstring is their help. What a person typed wrong ends
with exit code 2 and one line, before torch is loaded wherever that can be told without it.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from json import dumps
from shutil import get_terminal_size

import typer

from .batch.command import command


# ------------------------------------------------------------------------------------ what a verb shows
def _show(answer) -> int:
    """A number is the exit code; anything else is printed, by one process of several, and 1 where it has problems."""
    if isinstance(answer, int):
        return answer
    if answer is not None and os.environ.get("RANK", "0") == "0":
        print(answer.report() if hasattr(answer, "report") else answer)
    return 1 if getattr(answer, "problems", None) else 0


def _show_ranking(answers: Sequence[Mapping], *, json: bool = False) -> int:
    """Exit code 1 says that some of several videos could not be read; the answers name them."""
    from .video.predicted import as_text

    width = get_terminal_size().columns if sys.stdout.isatty() else 0
    _show(dumps(answers if answers[1:] else answers[0], indent=1) if json else as_text(answers, width))
    return 1 if any("error" in one for one in answers) else 0


def _show_findings(findings) -> int:
    lines = [f"{'!!' if one.fault else '  '} {one.topic:20} {one.text}" for one in findings]
    faults = sum(one.fault for one in findings)
    _show("\n".join([*lines, f"{faults} to mend (marked !!)" if faults else "all well"]))
    return 1 if faults else 0


# ------------------------------------------------------------------------------------ the command
VERBS: dict = {  # verb: (what it does, where its function is, how its answer is shown)
    "train": ("train a method, or go on with its run", "mede_core.batch.verbs:train", _show),
    "evaluate": ("test a method", "mede_core.batch.verbs:evaluate", _show),
    "predict": ("name the action in a video", "mede_core.video.predict:answer", _show_ranking),
    "bias": ("say how static a video model is", "mede_core.video.bias:bias", _show),
    "prepare": ("make a list of a dataset's videos", "mede_core.video.prepare:prepare", _show),
    "scuba": ("build out-of-context clips", "mede_core.video.scuba.build:build_scuba", _show),
    "study": ("measure what the study lacks", "mede_core.batch.verbs:study", _show),
    "world": {
        "pretrain": ("pretrain a small CLIP", "mede_core.batch.verbs:pretrain", _show),
        "card": ("measure the small CLIP that ships", "mede_core.batch.verbs:card", _show),
        "checks": ("measure whether the world is a fair experiment", "mede_core.batch.verbs:checks", _show),
    },
    "cost": ("time training and testing", "mede_core.batch.verbs:cost", _show),
    "reproduce": ("run the notebooks", "mede_core.batch.reproduce:reproduce", _show),
    "ship": ("make what ships with the package", "mede_core.batch.verbs:ship_or_restamp", _show),
    "clean": ("list runs that no question finds, and remove them", "mede_core.batch.verbs:clean", _show),
    "doctor": ("say what is here: versions, weights, devices", "mede_core.batch.doctor:examine", _show_findings),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code is 0, 2 where a person typed something wrong, or what the verb says."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--offline" in arguments:  # of every verb, and inherited by the processes that it starts
        arguments.remove("--offline")
        os.environ["HF_HUB_OFFLINE"] = "1"
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")  # file names need not be valid text
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter("mede_core"))  # other packages' remarks would drown the line that counts
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING  # of several processes one speaks
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    try:
        return command(VERBS, arguments)
    except typer.TyperException as error:
        said = error.format_message()
    except Exception as error:
        if not isinstance(error, ValueError | OSError) and not type(error).__module__.startswith("mede_core"):
            raise  # a fault of ours: its traceback says where
        said = str(error)
    print("error: " + " ".join(said.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
