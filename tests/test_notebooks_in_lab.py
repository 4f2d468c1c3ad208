"""Each notebook stands by itself: run in a workspace where nothing was made before, in whatever order."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mede_core.batch.plan import load_plan
from mede_core.files import repo_root

HOME = repo_root() / "notebooks"
NOTEBOOKS = sorted(path.stem for path in HOME.glob("*.ipynb"))


def run(name: str, folder: Path, **parameters) -> None:
    """Execute a notebook as JupyterLab would, with the working directory notebooks/."""
    given = {"out_dir": folder / "out", "runs_dir": folder / "runs", **parameters}
    command = [sys.executable, "-m", "papermill", f"{name}.ipynb", str(folder / f"{name}.ipynb"), "-k", "python3"]
    command += ["-y", json.dumps(given, default=str)]
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1", "MEDE_BATCH": "1"}
    quiet = {"capture_output": True, "text": True, "timeout": 1200}
    done = subprocess.run([*command, "--no-progress-bar"], cwd=HOME, env=environment, **quiet)
    assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"


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
