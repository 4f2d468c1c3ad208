"""The study's results on disk: one JSON line a unit, committed, and read back as ordinary result records. Torch-free.
A seed's accuracies are kept, not its clips: intervals are over seeds, and lines stay below a megabyte together."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..config import Config, diff
from ..files import ASSETS, PACKAGE, atomic_write, made_by, run_lock
from ..names import code_files, digest
from .units import SECTIONS, Unit, units_of

FOLDER = ASSETS / "study"  # apart from code: a new result retrains nothing
FIELDS = ("metric", "set", "split", "part", "context", "average")  # of a number's key, joined by "/"
NAMED = ("method", "seed", "world_seed", "home_seed", "rho")  # settings with a place of their own in a line
FACTS = ("variant", *NAMED, "run", "weights", "commit", "kernel")


def kernel_hash() -> str:
    return digest(code_files(("meta", "gwa", "adapters")))[:16]


def named(unit: Unit) -> dict:
    """A unit's settings in words: those with a place of their own, and what else differs from the defaults."""
    changed = {name: value for name, (_, value) in diff(unit.config).items() if name not in NAMED}
    settings = {name: Path(value).name if name == "weights" else value for name, value in changed.items()}
    return {"variant": unit.variant, **{name: getattr(unit.config, name) for name in NAMED}, "settings": settings}


def line_of(unit: Unit, numbers: dict, *, run: str, weights: str, seconds: float | None, device: str = "cpu") -> dict:
    """The line of a measured unit: numbers by key as [value, n]; seconds of training; results change meanwhile."""
    made = made_by(PACKAGE.name, f":(exclude){FOLDER.relative_to(PACKAGE.parent)}", device=device)
    about = {"section": unit.section, **named(unit), "run": run, "weights": weights, "seconds": seconds, **made}
    return {**about, "kernel": kernel_hash(), "numbers": numbers, "tests": list(unit.tests)}


def read_section(section: str, folder: str | os.PathLike = FOLDER) -> list[dict]:
    """The lines of a section; an empty list where it has not run yet."""
    path, lines = Path(folder) / f"{section}.jsonl", []
    texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path.name} line {number} cannot be read ({error}); run the section again") from None
    return lines


def add_line(line: Mapping, folder: str | os.PathLike = FOLDER) -> None:
    """Add a unit's line to its section, or put it in the place of its older one, so that a line never mixes codes."""
    section = line["section"]
    with run_lock(folder):
        kept = {(one["variant"], one["seed"]): one for one in [*read_section(section, folder), line]}
        order = {(u.variant, u.config.seed): i for i, u in enumerate(units_of(section, sorted({s for _, s in kept})))}
        ranked = sorted(kept.items(), key=lambda item: (order.get(item[0], len(order)), item[0][1]))
        text = "".join(json.dumps(one, separators=(",", ":")) + "\n" for _, one in ranked)
        atomic_write(Path(folder) / f"{section}.jsonl", text)


def is_missing(unit: Unit, folder: str | os.PathLike = FOLDER, *, retrain: bool = False) -> bool:
    """Whether no line has a unit's settings and all its tests; with ``retrain`` one of today's code."""
    wanted = named(unit)
    for line in read_section(unit.section, folder):
        if wanted.items() <= line.items():
            older = line["kernel"] != kernel_hash()
            return not set(unit.tests) <= set(line["tests"]) or (older and retrain)
    return True


def records_of(lines: Iterable[Mapping], *, by: str = "method") -> list[dict]:
    """Lines as flat result records with all settings; ``by`` is what counts as method: ``method`` or ``variant``."""
    records, usual = [], Config().model_dump()
    for line in lines:
        settings = {**usual, **line["settings"], **{name: line[name] for name in NAMED}}
        facts = {name: line[name] for name in FACTS} | {"settings": settings, "method": line[by]}
        for key, (value, n, *bits) in line["numbers"].items():
            where = dict(zip(FIELDS, key.split("/"), strict=True))
            where["part"] = int(where["part"]) if where["part"].isdigit() else where["part"]
            records.append({**facts, **where, "value": value, "n": n, **({"correct": bits[0]} if bits else {})})
    return records


def study_records(section: str, *, by: str = "method", folder: str | os.PathLike = FOLDER) -> list[dict]:
    """The committed records of a section (one of ``units.SECTIONS``); ``by``: what counts as their method."""
    if section not in SECTIONS:
        raise ValueError(f"section is {section!r}; allowed: {', '.join(SECTIONS)}")
    return records_of(read_section(section, folder), by=by)


def whole_seeds(section: str, folder: str | os.PathLike = FOLDER) -> list[dict]:
    """The records, by variant, of a section's seeds that have all their units, so that every comparison has the same
    seeds; none of a seed alone, since an interval is over seeds."""
    units = units_of(section) if section in SECTIONS else ()
    lacking = {unit.config.seed for unit in units if is_missing(unit, folder)}
    whole = {unit.config.seed for unit in units} - lacking
    lines = [line for line in read_section(section, folder) if line["seed"] in whole]
    return records_of(lines, by="variant") if len(whole) > 1 else []


def origin(sections: Iterable[str], folder: str | os.PathLike = FOLDER) -> str:
    """One sentence on what made the committed results, and how many of them older code made."""
    lines = [line for section in sections for line in read_section(section, folder)]
    if not lines:
        return "No committed results yet."
    seeds = sorted({line["seed"] for line in lines})
    commits = sorted({commit for line in lines for commit in line["commit"].split(" and ")})
    machines = sorted({f"{line['machine']}, torch {line['torch']}" for line in lines})
    says = f"Committed results: {len(lines)} learners, seeds {', '.join(map(str, seeds))}; commit "
    says += f"{', '.join(commits)}; {'; '.join(machines)}."
    older = sum(line["kernel"] != kernel_hash() for line in lines)
    return says + (f" Older code made {older} of them." if older else "")
