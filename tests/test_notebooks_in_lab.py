"""Each notebook stands by itself: run in a workspace where nothing was made before, in whatever order."""

import random
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


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_runs_alone(tmp_path, name):
    run(name, tmp_path, profile="smoke")
