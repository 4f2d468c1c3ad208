"""Runs sections of the study: trains what is missing, tests it, and adds a line for every unit as soon as it is there.

Units that share a training run go to the same process; each process computes on one thread, so a unit's bits do not
depend on how many run beside it. Stopped at any moment, the next call goes on: finished runs are loaded, unfinished
ones continue after their last epoch, tests that have been taken are skipped.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from ..config import METHODS
from ..files import repo_root
from .store import FOLDER, add_line, line_of, missing_tests, records_of
from .units import PRETRAINED, Unit, units_of

log = logging.getLogger(__name__)


def run_section(
    section: str,
    seeds: Sequence[int] = (),
    *,
    runs: str | os.PathLike = "runs/full",
    folder: str | os.PathLike = FOLDER,
    jobs: int = 2,
    variants: Sequence[str] = (),
) -> int:
    """Train and test what a section lacks.

    Args:
        section: one of ``units.SECTIONS``.
        seeds: default: the section's own.
        runs: the folder of training runs.
        folder: where the section's lines are kept.
        jobs: processes at a time.
        variants: these alone; default: all.

    Returns:
        the number of units measured.

    Raises:
        ValueError: an unknown section or variant.
    """
    units = units_of(section, seeds)
    unknown = sorted(set(variants) - {unit.variant for unit in units})
    if unknown:
        raise ValueError(f"variants are {unknown}; allowed: {', '.join(dict.fromkeys(u.variant for u in units))}")
    wanted = [unit for unit in units if not variants or unit.variant in variants]
    lacking = [replace(unit, tests=missing_tests(unit, folder)) for unit in wanted]
    groups = _by_run([unit for unit in lacking if unit.tests])
    log.info("%s: %d of %d units to do, in %d runs", section, sum(map(len, groups)), len(wanted), len(groups))
    count = 0
    for line in _lines(groups, os.path.abspath(runs), min(jobs, len(groups))):
        add_line(line, folder)
        count += 1
        log.info("%s, %s, seed %d: done (%d)", section, line["variant"], line["seed"], count)
    return count


def _by_run(units: Sequence[Unit]) -> list[list[Unit]]:
    groups: dict[tuple, list[Unit]] = {}
    for unit in units:
        run = unit.config.run_name() if METHODS[unit.config.method].trainer != "none" else f"frozen {unit.key}"
        groups.setdefault((unit.config.seed, run), []).append(unit)
    return list(groups.values())


def _lines(groups: Sequence[Sequence[Unit]], runs: str, jobs: int) -> Iterator[dict]:
    if not groups:
        return
    # spawn: a fork would inherit torch's threads and the parent's locks
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
        futures = [pool.submit(_do, group, runs) for group in groups]
        for future in as_completed(futures):
            yield from future.result()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed; by itself it would work through its queue unseen."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _do(group: Sequence[Unit], runs: str) -> list[dict]:
    from ..experiment import train_method
    from ..files import set_threads
    from .measure import measure, training_seconds

    set_threads(1)
    os.chdir(repo_root())  # this process is the pool's own; CLIPs that do not ship are named relative to the root
    lines = []
    for unit in group:
        if METHODS[unit.config.method].trainer != "none":
            train_method(unit.config, runs)
        lines.append(line_of(unit, *measure(unit, runs), training_seconds(unit, runs)))
    return lines


def measure_here(units: Sequence[Unit], runs: str | os.PathLike, profile: str, *, by: str = "method") -> list[dict]:
    """Test units in this process, training what is not there yet: a notebook's fresh run beside the committed study.

    Args:
        units: of any configuration.
        runs: the folder of training runs.
        profile: written into each record.
        by: see :func:`store.records_of`.

    Returns:
        flat result records.
    """
    from ..experiment import train_method
    from .measure import measure

    lines = []
    for unit in units:
        if METHODS[unit.config.method].trainer != "none":
            train_method(unit.config, runs)
        lines.append(line_of(unit, *measure(unit, runs), None))
    return records_of(lines, by=by, profile=profile)


def pretrain_clips(steps: int = 2000) -> list[Path]:
    """Pretrain the CLIPs of the sections ``encoders`` and ``second_world``, as far as they are not there."""
    from ..world.pretrain import pretrain

    made = []
    for folder, settings in PRETRAINED.items():
        out = repo_root() / folder
        if not (out / "training.json").is_file():  # written last
            pretrain(out, steps=steps, **settings)
            made.append(out)
    return made
