"""The report of a run: summary.html and summary.md from the manifest, the tables and the figures."""

import html
import json
import re
from pathlib import Path

from mede_core.files import atomic_write
from mede_core.report.gallery import check_offline, page_name, render, style

_STATUS_MARK = {
    "done": "✓ done",
    "failed": "✗ failed",
    "blocked": "– blocked",
    "interrupted": "– interrupted",
    "missing data": "–",  # its reason says it all
}


def build_summary(manifest: dict, out: Path) -> None:
    """Write summary.html and summary.md into a report folder.

    Args:
        manifest: what `reproduce` keeps: profile, steps with status, versions, git state.
        out: the report folder with its `tables/`, `figures/` and `gallery/`.
    """
    rows = [_row(step_id, entry, out) for step_id, entry in manifest["steps"].items()]
    values = {
        "profile": manifest["profile"],
        "headline": headline(manifest),
        "when": (manifest["finished"] or manifest["started"])[:16].replace("T", " ") + " UTC",
        "total_time": duration(sum(entry.get("seconds") or 0 for entry in manifest["steps"].values())),
    }
    facts = _facts(manifest, out)
    stale = _stale_files(manifest)
    page = render(
        "summary.html.j2",
        **values,
        rows=rows,
        facts=facts,
        tables=_tables(out, stale),
        figures=_figures(out, stale),
        css=style(),
    )
    check_offline(page, "summary.html")
    atomic_write(out / "summary.html", page)
    atomic_write(out / "summary.md", _markdown(values, rows, facts, out, stale))


def headline(manifest: dict) -> str:
    """Say in one line how a run went."""
    states = [entry["status"] for entry in manifest["steps"].values()]
    good, absent = states.count("done"), states.count("missing data")
    if absent and good + absent == len(states):
        text = f"All {good} notebooks that have their data are up to date, {absent} without data not run"
    elif good == len(states):
        text = f"All {good} notebooks are up to date"
    else:
        counts = [f"{states.count(name)} {name}" for name in dict.fromkeys(states) if name != "done"]
        text = f"{good} of {len(states)} notebooks are up to date, {', '.join(counts)}"
    outside = manifest.get("outside_tolerance")
    return text + (f"; outside tolerance: {', '.join(outside)}" if outside else "")


def duration(seconds: float) -> str:
    """Return a time span for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _row(step_id: str, entry: dict, out: Path) -> dict:
    page = f"gallery/{page_name(step_id)}"
    links = [("log", f"logs/{step_id}.log"), ("failed notebook", f"executed/{step_id}.failed.ipynb")]
    memory = entry.get("peak_memory_mb")
    return {
        "id": step_id,
        "notebook": entry["notebook"],
        "status": entry["status"],
        "reason": entry.get("reason", ""),
        "time": duration(entry["seconds"]) if entry.get("seconds") else "",
        "memory": f"{memory:.0f} MB" if memory else "",
        "page": page if (out / page).is_file() else "",
        "links": [(name, link) for name, link in links if (out / link).is_file()],
    }


def _stale_files(manifest: dict) -> dict[str, str]:
    """Return {declared output: step} for the steps that are not up to date."""
    return {
        name: step_id
        for step_id, entry in manifest["steps"].items()
        if entry["status"] != "done"
        for name in entry["provides"]
    }


def _tables(out: Path, stale: dict[str, str]) -> list[dict]:
    tables = []
    for file in sorted((out / "tables").glob("[!.]*.html")):
        text = file.read_text(encoding="utf-8")
        body = re.search(r"<body[^>]*>(.*)</body>", text, re.DOTALL)
        styles = "".join(re.findall(r"<style[^>]*>.*?</style>", text.split("<body")[0], re.DOTALL)) if body else ""
        tables.append({
            "name": file.stem,
            "title": _title(file.stem),
            "stale": stale.get(f"tables/{file.name}", ""),
            "html": styles + (body[1] if body else text),
        })  # fmt: skip
    return tables


def _figures(out: Path, stale: dict[str, str]) -> list[dict]:
    figures = []
    for file in sorted((out / "figures").glob("[!.]*.svg")):
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
    """Turn a file's name into words; a leading number only orders the files."""
    return re.sub(r"^\d+_", "", stem).replace("_", " ").capitalize()


def _facts(manifest: dict, out: Path) -> list[tuple[str, str]]:
    seeds = ", ".join(f"{name} {value}" for name, value in sorted(_seeds(out)))
    git = manifest["git"]
    commit = git["commit"] or "no git checkout"
    facts = [
        ("Commit", commit + (" with uncommitted changes" if git["dirty"] else "")),
        ("Seeds", seeds or "no results yet"),
        ("Threads per notebook", str(manifest["threads"])),
        ("GPU", "; ".join(manifest["gpus"]) or "none"),
    ]
    return facts + [(name, str(version)) for name, version in manifest["versions"].items() if version]


def _seeds(out: Path) -> set[tuple[str, int]]:
    """Return the seeds that stand in the results themselves."""
    return {
        (name, value)
        for file in (out / "results").glob("[!.]*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
        for name, value in json.loads(line).items()
        if "seed" in name and isinstance(value, int)
    }


def _markdown(values: dict, rows: list[dict], facts, out: Path, stale: dict[str, str]) -> str:
    lines = [f"# {values['headline']}", ""]
    lines += [
        f"Profile `{values['profile']}`, {values['when']}, {values['total_time']} of notebook time.",
        "",
    ]
    lines += ["| Step | Notebook | Status | Time | Memory |", "|---|---|---|---:|---:|"]
    for row in rows:
        name = f"[{row['id']}]({row['page']})" if row["page"] else row["id"]
        status = _STATUS_MARK.get(row["status"], row["status"])
        if row["reason"]:
            status += (" " if row["status"] == "missing data" else ": ") + row["reason"]
        cells = [
            name,
            row["notebook"],
            status.replace("|", "\\|").replace("\n", " "),
            row["time"],
            row["memory"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for file in sorted((out / "tables").glob("[!.]*.html")):
        lines += ["", f"## {_title(file.stem)}", ""]
        if owner := stale.get(f"tables/{file.name}"):
            lines += [f"*From an earlier run: {owner} did not finish this time.*", ""]
        twin = file.with_suffix(".md")
        if twin.is_file():
            lines.append(twin.read_text(encoding="utf-8").strip())
        else:
            lines.append(f"[{html.escape(file.name)}](tables/{file.name})")
    lines += [
        "",
        "## Made with",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts),
    ]
    return "\n".join(lines) + "\n"
