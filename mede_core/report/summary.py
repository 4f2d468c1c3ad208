"""The report of a run: summary.html and summary.md from how its steps went, the tables and the figures. Torch-free."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..files import atomic_write
from .gallery import fill_template, page_name


def write_summary(folder: Path, steps: Mapping[str, Mapping], facts: Mapping[str, str]) -> str:
    """Write summary.html and summary.md into a report folder (named after its profile); gives their headline."""
    unfinished = {step_id: step for step_id, step in steps.items() if step["status"] != "done"}
    stale = {name: step_id for step_id, step in unfinished.items() for name in step.get("provides", ())}  # old files
    rows = [_row(folder, step_id, step) for step_id, step in steps.items()]
    said = headline([step["status"] for step in steps.values()], outside_tolerance(folder))
    total = duration(sum(step.get("seconds") or 0 for step in steps.values()))
    about = {
        "headline": said, "profile": folder.name, "total_time": total, "rows": rows, "facts": [*facts.items()],
        "tables": _tables(folder, stale), "figures": _figures(folder, stale),
    }  # fmt: skip
    for name in ("summary.html", "summary.md"):
        atomic_write(folder / name, fill_template(f"{name}.j2", **about))
    return said


def outside_tolerance(folder: Path) -> list[str]:
    """The tables of a report folder with a number that is comparable with the paper's and too far from it."""
    facts = {file.stem: json.loads(file.read_bytes()) for file in sorted((folder / "tables").glob("[!.]*.json"))}
    return [name for name, said in facts.items() if said["comparable"] and said["outside_tolerance"]]


def headline(states: list[str], outside: list[str]) -> str:
    """How a run went, in one line, from its steps' states and the tables that are outside their tolerance."""
    good, absent = states.count("done"), states.count("missing data")
    if absent and good + absent == len(states):
        text = f"All {good} steps that have their data are up to date, {absent} without data not run"
    elif good == len(states):
        text = f"All {good} steps are up to date"
    else:
        counts = [f"{states.count(name)} {name}" for name in dict.fromkeys(states) if name != "done"]
        text = f"{good} of {len(states)} steps are up to date, {', '.join(counts)}"
    return text + (f"; outside tolerance: {', '.join(outside)}" if outside else "")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _row(folder: Path, step_id: str, step: Mapping) -> dict:
    page, time = f"gallery/{page_name(step_id)}", duration(step["seconds"]) if step.get("seconds") else ""
    links = {"log": f"logs/{step_id}.log", "failed notebook": f"executed/{step_id}.failed.ipynb"}
    there = [(name, link) for name, link in links.items() if (folder / link).is_file()]
    return {**step, "id": step_id, "time": time, "page": page if (folder / page).is_file() else "", "links": there}


def _tables(folder: Path, stale: Mapping[str, str]) -> list[dict]:
    found = []
    for file in sorted((folder / "tables").glob("[!.]*.html")):
        texts = {kind: file.with_suffix(f".{kind}").read_text(encoding="utf-8").strip() for kind in ("html", "md")}
        about = {"name": file.stem, "title": _title(file.stem), "stale": stale.get(f"tables/{file.name}", "")}
        found.append({**about, **texts})
    return found


def _figures(folder: Path, stale: Mapping[str, str]) -> list[dict]:
    names = [file.name.removesuffix(".dark.svg") for file in sorted((folder / "figures").glob("[!.]*.dark.svg"))]
    return [{"name": name, "title": _title(name), "stale": stale.get(f"figures/{name}.svg", "")} for name in names]


def _title(stem: str) -> str:
    """A file's name as words; a leading number only orders the files."""
    return re.sub(r"^\d+_", "", stem).replace("_", " ").capitalize()
