"""The run picker: the training curves of any run of a workspace, also of one that is being trained."""

import json
from pathlib import Path

import pandas as pd

from ..files import read_lines
from ..report.figures.style import Picture, styled
from ..report.figures.training import training_curves
from ..workspace import SHIPPED, Workspace
from .explorers import LONG, choice, explorer
from .scenes import Redrawn


@styled
def curves(metrics: pd.DataFrame, title: str):
    """``training_curves``, as far as a run has come."""
    if len(metrics):
        return training_curves(metrics, title=title)
    figure = Picture(4.5, title)
    figure.text(0.5, 0.5, "no step is written yet", ha="center")
    return figure


def _label(folder: Path) -> str:
    facts = folder / "config.json"
    settings = json.loads(facts.read_text(encoding="utf-8")).get("settings", {}) if facts.is_file() else {}
    about = [f"{name} {settings[name]:g}" for name in ("rho", "seed") if name in settings]
    return ", ".join([folder.name.partition("-")[0], *about]) + f" ({folder.name})"


def run_picker(workspace: Workspace):
    """Choose a run of the workspace, newest first, or a shipped one; its curves grow while it trains: a widget."""
    own = sorted(workspace.folder.glob("*/metrics.jsonl"), key=lambda file: -file.stat().st_mtime)
    shipped = sorted(SHIPPED.glob("*/metrics.jsonl")) if workspace.shipped else []
    runs = {_label(file.parent): file.parent for file in own}
    runs |= {f"{_label(file.parent)}, shipped with the package": file.parent for file in shipped}
    if not runs:
        raise ValueError(f"no run is in {workspace.folder}: run the cell above that trains one")

    def values(folder: Path) -> tuple[dict, str]:
        steps, done = read_lines(folder / "metrics.jsonl"), (folder / "done.json").is_file()
        at = f"epoch {steps[-1]['epoch']}, step {steps[-1]['step']}" if steps else "before its first epoch"
        state = "finished" if done else "being trained, or stopped: ask for it again and it goes on"
        shown = {"metrics": pd.DataFrame(steps), "title": folder.name}
        return shown, f"<b>{state}</b> &nbsp;·&nbsp; {at} &nbsp;·&nbsp; drawn anew as lines are written"

    def watch(folder: Path) -> tuple:
        return (folder / "metrics.jsonl").stat().st_size, (folder / "done.json").is_file()

    return explorer(Redrawn(curves), {"folder": choice("run", runs, **LONG)}, values, "mede-runs", watch=watch)
