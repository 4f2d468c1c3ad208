"""Each notebook stands by itself: run in a workspace where nothing was made before, in whatever order."""

import json
import random
import re
from pathlib import Path

import papermill
import pytest

from mede_core.batch.plan import load_plan
from mede_core.files import repo_root

HOME = repo_root() / "notebooks"
NOTEBOOKS = sorted(path.stem for path in HOME.glob("*.ipynb"))


def run(name: str, folder: Path, **parameters) -> None:
    """Execute a notebook as JupyterLab would, with the working directory notebooks/."""
    given = {"out_dir": str(folder / "out"), "runs_dir": str(folder / "runs"), **parameters}
    papermill.execute_notebook(
        HOME / f"{name}.ipynb", folder / f"{name}.ipynb", given, kernel_name="python3", cwd=HOME, progress_bar=False,
        start_timeout=180, execution_timeout=1200, shutdown_kernel="immediate",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def batch(monkeypatch):
    monkeypatch.setenv("MEDE_BATCH", "1")  # no progress bars


def test_all_run_in_one_empty_workspace_in_any_order(tmp_path):
    seed = random.randrange(10**6)
    order = random.Random(seed).sample(NOTEBOOKS, len(NOTEBOOKS))
    print(f"seed {seed}: {' '.join(order)}")
    sizes = {job.notebook: job.parameters for job in load_plan("smoke").jobs.values() if job.notebook != "10_train"}
    for name in order:
        run(name, tmp_path, profile="smoke", **sizes.get(name, {}))
    bears_no_mark(tmp_path / "out" / "tables")


def bears_no_mark(tables: Path) -> None:
    """Twins of the paper's tables hold all methods and are not compared with its numbers."""
    for name in ("20_base_to_novel", "21_cross_dataset", "22_out_of_context"):
        sidecar = json.loads((tables / f"{name}.json").read_text())
        assert sidecar["comparable"] is sidecar["outside_tolerance"] is False, name
        shown = (tables / f"{name}.md").read_text()
        assert "In place of" in shown and not re.search("Difference|Tolerance|Mark", shown), name
    assert "not run" not in (tables / "22_backgrounds.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_runs_alone(tmp_path, name):
    run(name, tmp_path, profile="smoke")
