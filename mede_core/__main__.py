"""The command `mede`, also `python -m mede_core`, and under `torchrun -m mede_core`.
What a person typed wrong ends with exit code 2 and one line, before torch is loaded where it can be told by then."""

import logging
import os
import sys
from collections.abc import Sequence

import typer

from .batch.command import VERBS, command


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
