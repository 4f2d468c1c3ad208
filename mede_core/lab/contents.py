"""The contents page: what each notebook teaches and costs, read from its own first cell."""

import json
import re
from pathlib import Path

import pandas as pd


def contents(folder) -> pd.DataFrame:
    """One row for each notebook of a folder, by name: notebook (file name), title, learn and cost."""
    rows = []
    for path in sorted(Path(folder).glob("*.ipynb")):
        prose = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        cost = re.search(r"\*\*Cost:?\*\*:?\s*(.*?)\s*(?:\*\*|\n\s*\n|$)", prose, re.DOTALL)
        rows.append({
            "notebook": path.name,
            "title": re.sub(r"[*_`]", "", prose.partition("\n")[0].lstrip("# ")),
            "learn": "; ".join(_bullets(prose.partition("You will learn")[2])),
            "cost": " ".join(cost[1].rstrip(". ").split()) if cost else "",
        })  # fmt: skip
    return pd.DataFrame(rows)


def contents_markdown(frame: pd.DataFrame) -> str:
    lines = ["| Notebook | You will learn | Cost |", "|---|---|---|"]
    for row in frame.to_dict("records"):
        learn, cost = (row[name].replace("|", "\\|") for name in ("learn", "cost"))
        lines.append(f"| [{row['title']}]({row['notebook']}) | {learn} | {cost} |")
    return "\n".join(lines)


def _bullets(markdown: str) -> list[str]:
    """The items of the list that a text begins with, each on one line."""
    listed = re.match(r"[^\n]*\n((?:\s*[-*] .*\n?|[ \t]+\S.*\n?)*)", markdown)
    items = re.split(r"^\s*[-*] ", listed[1] if listed else "", flags=re.MULTILINE)
    return [" ".join(item.split()).rstrip(".;") for item in items if item.strip()]
