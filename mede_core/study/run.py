"""Measures the study's units: trains what is missing, takes the tests, adds each unit's line as soon as it is there.

Stopped at any moment, the next call goes on: finished runs and scores are loaded, unfinished trainings continue after
their last epoch. Units that share a training wait for each other at the workspace's lock.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .store import FOLDER, add_line, is_missing, records_of
from .units import PRETRAINED, Unit, units_of

if TYPE_CHECKING:
    from ..workspace import Workspace

log = logging.getLogger(__name__)


def run_section(
    section: str,
    workspace: Workspace,
    *,
    seeds: Sequence[int] = (),
    variants: Sequence[str] = (),
    folder: str | os.PathLike = FOLDER,
    retrain: bool = False,
) -> int:
    """Measure what a section lacks, unit by unit, and return how many were measured.

    Args:
        section: one of ``units.SECTIONS``.
        workspace: trains and scores.
        seeds, variants: these alone; default: the section's own.
        folder: where the section's lines are kept.
        retrain: also what older code made.

    Raises:
        ValueError: an unknown section or variant.
    """
    units = units_of(section, seeds)
    known = dict.fromkeys(unit.variant for unit in units)
    if unknown := sorted(set(variants) - set(known)):
        raise ValueError(f"variants are {unknown}; allowed: {', '.join(known)}")
    wanted = [unit for unit in units if not variants or unit.variant in variants]
    return sum(_run(unit, workspace, folder, retrain) for unit in wanted)


def run_unit(
    section: str,
    variant: str,
    seed: int,
    workspace: Workspace,
    *,
    folder: str | os.PathLike = FOLDER,
    retrain: bool = False,
) -> int:
    """Measure one unit, see :func:`run_section`."""
    return run_section(section, workspace, seeds=(seed,), variants=(variant,), folder=folder, retrain=retrain)


def _run(unit: Unit, workspace: Workspace, folder, retrain: bool) -> bool:
    from .measure import line_of_unit

    if not is_missing(unit, folder, retrain=retrain):
        return False
    add_line(line_of_unit(unit, workspace), folder)
    log.info("%s, %s, seed %d: %s", unit.section, unit.variant, unit.config.seed, ", ".join(unit.tests))
    return True


def measure_here(units: Sequence[Unit], workspace: Workspace, *, by: str = "method") -> list[dict]:
    """Flat result records of units of any configuration: a notebook's fresh run beside the committed study.

    Nothing is added to the study; ``by`` as in :func:`store.records_of`.
    """
    from .measure import line_of_unit

    return records_of([line_of_unit(unit, workspace) for unit in units], by=by)


def pretrain_clips(steps: int = 2000) -> list[str]:
    """Pretrain the CLIPs of the sections ``encoders`` and ``second_world``, as far as they are not there."""
    from ..world.pretrain import pretrain

    made = []
    for folder, settings in PRETRAINED.items():
        if not (Path(folder) / "training.json").is_file():  # written last
            pretrain(folder, steps=steps, **settings)
            made.append(folder)
    return made
