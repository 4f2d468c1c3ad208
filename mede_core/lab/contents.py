"""The contents page: what the notebooks teach and cost, read from the notebooks and their plan."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import yaml

from ..report.gallery import title_of
from ..reproduce.plan import load_plan, read_notebook, source_of


def contents(plan_path) -> pd.DataFrame:
    """One row for each notebook beside a plan, in the order of their names.

    Args:
        plan_path: ``notebooks/reproduce.yaml``.

    Returns:
        Columns notebook (file name), title, learn (the bullets below "You will learn", joined), steps (ids of
        the plan's steps that run it, joined), and minutes on two cores for each profile of the plan that needs
        no data of one's own (NaN where the profile does not run it).
    """
    folder = Path(plan_path).parent
    profiles = yaml.safe_load(Path(plan_path).read_text(encoding="utf-8"))["profiles"]
    local = [name for name, settings in profiles.items() if not (settings or {}).get("data")]
    plans = {profile: load_plan(plan_path, profile) for profile in local}
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        notebook = read_notebook(path)
        steps = {name: [s for s in plan.steps if s.notebook == path.name] for name, plan in plans.items()}
        ids = dict.fromkeys(step.id for some in steps.values() for step in some)
        minutes = {name: sum(s.minutes for s in some) if some else float("nan") for name, some in steps.items()}
        learn = "; ".join(bullet.rstrip(".;") for bullet in _bullets(source_of(notebook["cells"][0])))
        row = {"notebook": path.name, "title": title_of(notebook), "learn": learn, "steps": ", ".join(ids)}
        rows.append({**row, **minutes})
    return pd.DataFrame(rows)


def contents_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The contents as a table for files: notebook, title, steps, and minutes for each profile."""
    names = {"notebook": "Notebook", "title": "Title", "steps": "Steps"}
    minutes = {name: f"Minutes ({name})" for name in frame.columns[4:]}
    return frame.drop(columns="learn").rename(columns=names | minutes)


def contents_markdown(frame: pd.DataFrame) -> str:
    """The contents as a Markdown table whose titles link to the notebooks.

    Args:
        frame: from :func:`contents`.

    Returns:
        Markdown.
    """
    profiles = list(frame.columns[4:])
    lines = [
        "| Notebook | You will learn | " + " | ".join(f"min ({name})" for name in profiles) + " |",
        "|---|---|" + "---:|" * len(profiles),
    ]
    for row in frame.to_dict("records"):
        minutes = " | ".join("–" if row[name] != row[name] else f"{row[name]:.1f}" for name in profiles)
        learn = row["learn"].replace("|", "\\|")
        lines.append(f"| [{row['title']}]({row['notebook']}) | {learn} | {minutes} |")
    return "\n".join(lines)


def _bullets(markdown: str) -> list[str]:
    """The items of the list that follows "You will learn", each on one line."""
    after = markdown.partition("You will learn")[2]
    items: list[str] = []
    for line in after.splitlines()[1:]:
        if match := re.match(r"\s*[-*]\s+(.*)", line):
            items.append(match[1].strip())
        elif line.strip() and items and line.startswith(" "):
            items[-1] += " " + line.strip()
        elif line.strip():
            break
    return items
