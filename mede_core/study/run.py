"""Measures the study's units: trains what is missing, takes the tests, adds each unit's line as soon as it is there."""

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
    """Measure what a section lacks, of these seeds and variants alone; the answer is how many units were measured."""
    wanted = (unit for unit in units_of(section, seeds) if not variants or unit.variant in variants)
    return sum(run_unit(unit, workspace, folder, retrain=retrain) for unit in wanted)


def run_unit(
    unit: Unit, workspace: Workspace, folder: str | os.PathLike = FOLDER, *, retrain: bool = False
) -> bool:
    from .measure import line_of_unit

    if not is_missing(unit, folder, retrain=retrain):
        return False
    add_line(line_of_unit(unit, workspace), folder)
    log.info("%s, %s, seed %d: %s", unit.section, unit.variant, unit.config.seed, ", ".join(unit.tests))
    return True


def measure_here(units: Sequence[Unit], workspace: Workspace, *, by: str = "method") -> list[dict]:
    """Flat result records of units of any configuration: a notebook's fresh run, of which the study keeps nothing."""
    from .measure import line_of_unit

    return records_of([line_of_unit(unit, workspace, timed=False) for unit in units], by=by)


def pretrain_clips() -> None:
    """Pretrain the CLIPs of the sections ``encoders`` and ``second_world``, as far as they are not there."""
    from ..world.pretrain import pretrain

    for folder, settings in PRETRAINED.items():
        if not (Path(folder) / "training.json").is_file():  # written last
            pretrain(folder, steps=2000, **settings)
