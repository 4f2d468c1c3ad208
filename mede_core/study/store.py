"""The study's results on disk: one JSON line a unit, committed, and read back as ordinary result records. Torch-free.

A line says what was measured, on which runs, and what made it: commit, kernel, versions, machine. The per-clip bits
of every accuracy are kept, so intervals of any difference can be formed later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

from ..files import ASSETS, atomic_write, available_cpus
from ..provenance import git_state
from .units import SECTIONS, Unit, units_of

FOLDER = ASSETS / "study"  # apart from code: a new result retrains nothing
FIELDS = ("metric", "set", "split", "part", "context", "average")  # of a number's key, joined by "/"
FACTS = ("variant", "method", "seed", "world_seed", "home_seed", "rho", "run", "weights", "commit", "kernel")
KERNEL = ("meta.py", "gwa.py")
UNITS = {  # of all other metrics: percent
    "support_loss": "nats", "query_loss": "nats", "change_measured": "nats", "change_predicted": "nats",
    "step_seconds": "seconds", "grad_inner_product": "squared norm", "cosine": "cosine",
}  # fmt: skip


def kernel_hash() -> str:
    """8 hex digits over the kernel's sources: results that another kernel made are marked."""
    package = Path(__file__).resolve().parents[1]
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in KERNEL)).hexdigest()[:8]


def provenance() -> dict:
    """What makes a result here: commit ("+": with changed code), kernel, torch's version and the machine's kind."""
    state = git_state("mede_core", f":(exclude)mede_core/{FOLDER.name}")  # results change while the study runs
    commit = (state["commit"] or "unknown")[:10] + ("+" if state["dirty"] else "")
    machine = f"{platform.machine()}, {available_cpus()} cores"
    return {"commit": commit, "kernel": kernel_hash(), "torch": metadata.version("torch"), "machine": machine}


def line_of(unit: Unit, numbers: Mapping[str, list], weights: str, seconds: float | None) -> dict:
    """The line of a measured unit.

    Args:
        unit: what was measured.
        numbers: key -> [value, n] or [value, n, per-clip bits].
        weights: the CLIP's ``weights_id``.
        seconds: of its training, None for frozen CLIP; comparable within a line's section and machine only.
    """
    config = unit.config
    facts = {"section": unit.section, "variant": unit.variant, "method": config.method, "seed": config.seed}
    facts |= {"world_seed": config.world_seed, "home_seed": config.home_seed, "rho": config.rho}
    facts |= {"config": config.hash(), "run": config.run_name(), "weights": weights, "seconds": seconds}
    return {**facts, **provenance(), "numbers": dict(numbers), "tests": list(unit.tests)}


def read_section(section: str, folder: str | os.PathLike = FOLDER) -> list[dict]:
    """The lines of a section; an empty list where it has not run yet.

    Raises:
        ValueError: a line that is no JSON, or bits that are no base64, with its number.
    """
    path, lines = Path(folder) / f"{section}.jsonl", []
    if not path.is_file():
        return lines
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(_recoded(json.loads(text), lambda bits: base64.b64decode(bits, validate=True).hex()))
        except ValueError as error:
            raise ValueError(f"{path.name} line {number} cannot be read ({error}); run the section again") from None
    return lines


def add_line(line: Mapping, folder: str | os.PathLike = FOLDER) -> None:
    """Add a unit's line to its section, in the section's own order; the file is replaced in one step.

    A line of the same configuration and kernel keeps the numbers of the tests that the new one does not have; any
    other is replaced.
    """
    section = line["section"]
    kept = {(one["variant"], one["seed"]): one for one in read_section(section, folder)}
    name = line["variant"], line["seed"]
    before = kept.get(name)
    kept[name] = _merged(before, line) if before and _same_making(before, line) else dict(line)
    seeds = sorted({seed for _, seed in kept})
    order = {(u.variant, u.config.seed): i for i, u in enumerate(units_of(section, seeds))}
    ranked = sorted(kept.items(), key=lambda item: (order.get(item[0], len(order)), item[0][1]))
    Path(folder).mkdir(parents=True, exist_ok=True)
    stored = (_recoded(one, lambda bits: base64.b64encode(bytes.fromhex(bits)).decode()) for _, one in ranked)
    text = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in stored)
    atomic_write(Path(folder) / f"{section}.jsonl", text)


def _recoded(line: Mapping, recode: Callable[[str], str]) -> dict:
    """A line with its per-clip bits rewritten: hex as in other records, base64 on disk, which takes a third less."""
    numbers = {key: [*number[:2], *map(recode, number[2:])] for key, number in line["numbers"].items()}
    return {**line, "numbers": numbers}


def _same_making(before: Mapping, line: Mapping) -> bool:
    return all(before[fact] == line[fact] for fact in ("config", "kernel", "weights"))


def _merged(before: Mapping, line: Mapping) -> dict:
    commits = dict.fromkeys([*before["commit"].split(" and "), line["commit"]])
    tests = dict.fromkeys([*before["tests"], *line["tests"]])
    numbers = {**before["numbers"], **line["numbers"]}
    return {**line, "commit": " and ".join(commits), "tests": list(tests), "numbers": numbers}


def missing_tests(unit: Unit, folder: str | os.PathLike = FOLDER) -> tuple[str, ...]:
    """The tests of a unit that no line of the same configuration, made by the present kernel, has."""
    wanted = unit.variant, unit.config.seed, unit.config.hash(), kernel_hash()
    facts = "variant", "seed", "config", "kernel"
    lines = (one for one in read_section(unit.section, folder) if tuple(one[fact] for fact in facts) == wanted)
    taken = next((one["tests"] for one in lines), ())  # a section has one line a variant and seed
    return tuple(test for test in unit.tests if test not in taken)


def records_of(lines: Iterable[Mapping], *, by: str = "method", profile: str = "full") -> list[dict]:
    """A section's lines as flat result records, as ``tables.py`` takes them.

    Args:
        lines: of :func:`read_section`.
        by: what becomes the record's ``method``: ``method`` or ``variant``.
        profile: written into each record.

    Returns:
        records with ``correct`` where the number is an accuracy over clips.
    """
    records = []
    for line in lines:
        facts = {name: line[name] for name in FACTS} | {"profile": profile, "table": f"study_{line['section']}"}
        facts["method"] = line[by]
        for key, (value, n, *bits) in line["numbers"].items():
            where = dict(zip(FIELDS, key.split("/"), strict=True))
            where["part"] = int(where["part"]) if where["part"].isdigit() else where["part"]
            unit = {"unit": UNITS[where["metric"]]} if where["metric"] in UNITS else {}
            records.append({**facts, **where, **unit, "value": value, "n": n, **({"correct": bits[0]} if bits else {})})
    return records


def study_records(section: str, *, by: str = "method", folder: str | os.PathLike = FOLDER) -> list[dict]:
    """The committed records of a section, see :func:`records_of`."""
    if section not in SECTIONS:
        raise ValueError(f"section is {section!r}; allowed: {', '.join(SECTIONS)}")
    return records_of(read_section(section, folder), by=by)


def origin(sections: Iterable[str], folder: str | os.PathLike = FOLDER) -> str:
    """One sentence on what made the committed results, with a mark where the kernel has changed since."""
    lines = [line for section in sections for line in read_section(section, folder)]
    if not lines:
        return "No committed results yet."
    seeds = sorted({line["seed"] for line in lines})
    commits = sorted({commit for line in lines for commit in line["commit"].split(" and ")})
    machines = sorted({f"{line['machine']}, torch {line['torch']}" for line in lines})
    says = f"Committed results: {len(lines)} learners, seeds {', '.join(map(str, seeds))}; commit "
    says += f"{', '.join(commits)}; {'; '.join(machines)}."
    old = sum(line["kernel"] != kernel_hash() for line in lines)
    return says + (f" **{old} of them are older than the kernel: run the section again.**" if old else "")
