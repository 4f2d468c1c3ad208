"""The report of a run: summary.html and summary.md from how its steps went, the tables and the figures. Torch-free."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..files import atomic_write
from .gallery import check_offline, fill_template, page_name, template

_STATUS_MARK = {
    "done": "✓ done",
    "failed": "✗ failed",
    "blocked": "– blocked",
    "interrupted": "– interrupted",
    "missing data": "–",  # its reason says it all
}


def write_summary(folder: Path, steps: Mapping[str, Mapping], facts: Mapping[str, str]) -> str:
    """Write summary.html and summary.md into a report folder, which is named after its profile; gives their headline.

    steps: {id: {"notebook": name, "status": "done" or "failed" ..., "reason": why, "seconds" and "peak_memory_mb": None
    where unknown, "provides": the files below the folder that it writes, marked as old where it is not done}}.
    facts: {label: text}, what everything was made with. Tables, figures, pages and logs are those in the folder.
    """
    unfinished = {step_id: step for step_id, step in steps.items() if step["status"] != "done"}
    stale = {name: step_id for step_id, step in unfinished.items() for name in step.get("provides", ())}
    rows = [_row(folder, step_id, step) for step_id, step in steps.items()]
    said = headline([step["status"] for step in steps.values()], outside_tolerance(folder))
    total = duration(sum(step.get("seconds") or 0 for step in steps.values()))
    tables, figures = _tables(folder, stale), _figures(folder, stale)
    about = {"headline": said, "profile": folder.name, "total_time": total, "rows": rows, "facts": [*facts.items()]}
    page = fill_template("summary.html.j2", **about, tables=tables, figures=figures, css=template("style.css"))
    check_offline(page, "summary.html")
    atomic_write(folder / "summary.html", page)
    atomic_write(folder / "summary.md", _markdown(**about, tables=tables))
    return said


def outside_tolerance(folder: Path) -> list[str]:
    """The tables of a report folder with a number that is comparable with the paper's and too far from it."""
    files = sorted((folder / "tables").glob("[!.]*.json"))
    facts = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
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
    """A time span for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _row(folder: Path, step_id: str, step: Mapping) -> dict:
    page = f"gallery/{page_name(step_id)}"
    links = {"log": f"logs/{step_id}.log", "failed notebook": f"executed/{step_id}.failed.ipynb"}
    memory = step.get("peak_memory_mb")
    return {
        "id": step_id,
        "notebook": step["notebook"],
        "status": step["status"],
        "reason": step.get("reason", ""),
        "time": duration(step["seconds"]) if step.get("seconds") else "",
        "memory": f"{memory:.0f} MB" if memory else "",
        "page": page if (folder / page).is_file() else "",
        "links": [(name, link) for name, link in links.items() if (folder / link).is_file()],
    }


def _tables(folder: Path, stale: Mapping[str, str]) -> list[dict]:
    tables = []
    for file in sorted((folder / "tables").glob("[!.]*.html")):
        tables.append({
            "name": file.stem,
            "title": _title(file.stem),
            "stale": stale.get(f"tables/{file.name}", ""),
            "html": file.read_text(encoding="utf-8"),
            "md": file.with_suffix(".md").read_text(encoding="utf-8").strip(),
        })  # fmt: skip
    return tables


def _figures(folder: Path, stale: Mapping[str, str]) -> list[dict]:
    figures = []
    for file in sorted((folder / "figures").glob("[!.]*.svg")):
        if not file.name.endswith(".dark.svg"):
            dark = file.with_suffix(".dark.svg")
            figures.append({
                "title": _title(file.stem),
                "light": f"figures/{file.name}",
                "dark": f"figures/{dark.name}" if dark.is_file() else "",
                "stale": stale.get(f"figures/{file.name}", ""),
            })  # fmt: skip
    return figures


def _title(stem: str) -> str:
    """A file's name as words; a leading number only orders the files."""
    return re.sub(r"^\d+_", "", stem).replace("_", " ").capitalize()


def _markdown(headline: str, profile: str, total_time: str, rows: list[dict], facts: list, tables: list[dict]) -> str:
    lines = [f"# {headline}", "", f"Profile `{profile}`, {total_time} of computing.", ""]
    lines += ["| Step | Notebook | Status | Time | Memory |", "|---|---|---|---:|---:|"]
    for row in rows:
        name = f"[{row['id']}]({row['page']})" if row["page"] else row["id"]
        status = _STATUS_MARK.get(row["status"], row["status"])
        if row["reason"]:
            status += (" " if row["status"] == "missing data" else ": ") + row["reason"]
        status = status.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {name} | {row['notebook']} | {status} | {row['time']} | {row['memory']} |")
    for table in tables:
        lines += ["", f"## {table['title']}", ""]
        if table["stale"]:
            lines += [f"*From an earlier run: {table['stale']} did not finish this time.*", ""]
        lines.append(table["md"])
    lines += ["", "## Made with", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    return "\n".join(lines) + "\n"
