"""Measures the study's units: trains what is missing, takes the tests, adds each unit's line as soon as it is there."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ..workspace import Workspace
from .store import FOLDER, add_line, is_missing, records_of
from .units import PRETRAINED, Unit

log = logging.getLogger(__name__)


def run_unit(unit: Unit, workspace: Workspace, folder: str | os.PathLike = FOLDER, *, retrain: bool = False) -> bool:
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
