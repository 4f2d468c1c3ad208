"""Command line of the study: ``python -m mede_core.study main`` trains, tests and stores what the section lacks."""

from __future__ import annotations

import argparse
import logging
import sys

from .run import pretrain_clips, run_section
from .store import FOLDER
from .units import SECTIONS


def main(arguments: list[str] | None = None) -> int:
    """Run sections one after the other.

    Args:
        arguments: default: of the process.

    Returns:
        the exit code: 0, or 2 for bad input, which one line on stderr explains.
    """
    parser = argparse.ArgumentParser(prog="python -m mede_core.study", description=__doc__)
    parser.add_argument("sections", nargs="+", choices=[*SECTIONS, "clips"], metavar="SECTION",
                        help=f"{', '.join(SECTIONS)}; or clips, which pretrains the CLIPs that some need")  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="default: the section's own")
    parser.add_argument("--variants", nargs="+", default=[], help="these alone")
    parser.add_argument("--runs", default="runs/full", help="folder of training runs (default: runs/full)")
    parser.add_argument("--to", default=str(FOLDER), help="folder of the results (default: inside the package)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each (default: 2)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        for section in options.sections:
            if section == "clips":
                pretrain_clips()
            else:
                given = {"runs": options.runs, "folder": options.to, "jobs": options.jobs}
                run_section(section, options.seeds, variants=options.variants, **given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
