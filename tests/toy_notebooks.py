"""Tiny notebooks and plans for the runner's tests; they import no torch, so that a run takes seconds."""

import json
from pathlib import Path

PARAMETERS = """profile = "cpu"
out_dir = "../reports/lab"
runs_dir = "../runs/lab"
word = "hello"
seed = 7"""


def notebook(
    *code: str, prose: str = "# A toy", parameters: str = PARAMETERS, tags: dict | None = None
) -> dict:
    """Return a notebook: prose, a parameters cell, then the code cells; `tags` maps a code cell's index to
    a tag."""
    cells = [_cell("markdown", prose, 0), _cell("code", parameters, 1, "parameters")]
    cells += [_cell("code", source, i + 2, (tags or {}).get(i)) for i, source in enumerate(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def _cell(kind: str, source: str, number: int, tag: str | None = None) -> dict:
    cell = {
        "id": f"cell{number}",
        "cell_type": kind,
        "metadata": {"tags": [tag]} if tag else {},
        "source": source,
    }
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def project(folder: Path, notebooks: dict[str, dict], plan: str) -> Path:
    """Write notebooks and a plan as `folder/notebooks/`; return the plan's path."""
    home = folder / "notebooks"
    home.mkdir(parents=True, exist_ok=True)
    for name, content in notebooks.items():
        (home / name).write_text(json.dumps(content))
    path = home / "reproduce.yaml"
    path.write_text(plan)
    return path
