"""The notebooks themselves through `make reproduce`: a table of the smoke profile, killed once on its way, and again.

The smoke profile trains for seconds, so nothing here asks which method wins. Slow: the whole profile, not one table.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_notebooks import processes_in, wait_for

from mede_core.batch.plan import load_plan
from mede_core.config import METHODS
from mede_core.files import read_lines, repo_root
from mede_core.workspace import Workspace

TEXTS = (".html", ".md", ".tex", ".csv", ".json", ".jsonl", ".svg")


class Smoke:
    """A report folder, a folder of runs, and what the last call on them said."""

    def __init__(self, folder: Path, only: str):
        self.plan, self.whole = load_plan("smoke", only=only), not only
        self.folder, self.out, self.runs = folder, folder / "reports" / "smoke", folder / "runs"
        where = ["--reports", str(folder / "reports"), "--runs", str(self.runs)]
        self.command = [sys.executable, "-m", "mede_core", "reproduce", "--profile", "smoke", "--only", only, *where]

    def call(self) -> None:
        start = time.monotonic()
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=1500)
        self.code, self.said, self.seconds = done.returncode, done.stdout + done.stderr, time.monotonic() - start

    def steps(self) -> dict:
        return json.loads((self.out / "manifest.json").read_text())["steps"]


@pytest.fixture(scope="module", params=["out_of_context", pytest.param("", marks=pytest.mark.slow)])
def smoke(tmp_path_factory, request) -> Smoke:
    """A run that was killed with signal 9 in the middle of a training and went on."""
    run = Smoke(tmp_path_factory.mktemp("smoke"), request.param)
    process = subprocess.Popen(run.command, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: unfinished(run.runs) or process.poll() is not None, seconds=600)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert unfinished(run.runs)
    wait_for(lambda: not processes_in(run.folder), seconds=10)
    run.call()
    return run


def unfinished(runs: Path) -> list[str]:
    """Trainings that can be resumed and are not finished."""
    return [state.parent.name for state in runs.glob("*/state.pt") if not (state.parent / "done.json").exists()]


def test_every_job_runs(smoke):
    assert smoke.code == 0, smoke.said
    steps, plan = smoke.steps(), smoke.plan
    assert steps.keys() == {*plan.jobs, *plan.trainings, *plan.scorings}
    assert {step["status"] for name, step in steps.items() if name not in plan.jobs or name in plan.chosen} == {"done"}
    assert (len(plan.chosen), len(plan.trainings)) == ((31, 14) if smoke.whole else (1, 4))
    for name in plan.chosen:
        assert (smoke.out / "gallery" / f"notebook_{name}.html").stat().st_size > 0
        assert steps[name]["provides"] or name == "index"
        assert all((smoke.out / file).stat().st_size > 0 for file in steps[name]["provides"]), name
    assert (smoke.out / "summary.html").is_file()
    if smoke.whole:
        published = [f"figures/{stem}.dark.svg" for stems in plan.settings.publish.values() for stem in stems]
        assert {*published} <= {file for step in steps.values() for file in step["provides"]}


def test_the_numbers_are_in_range_and_complete(smoke):
    records = [one for file in (smoke.runs / "scores").glob("*.jsonl") for one in read_lines(file)]
    space = Workspace(smoke.runs, shipped=False, make=False)
    assert all(0 <= one["value"] <= 100 and one["n"] > 0 for one in records)
    assert all(one["weights"].startswith("shipped:") for one in records)
    asked = smoke.plan.asked["evaluate" if smoke.whole else "out_of_context"]
    sets = {"source", "transfer_a", "transfer_b", "superset", "direction"} if smoke.whole else {"transfer_a"}
    for ask in asked:
        found = space.scores(ask.config, ask.sets)
        assert {one["set"] for one in found} == sets
        inside = [one["value"] for one in found if one["set"] in ("source", "transfer_a") and one["context"] == "in"]
        assert min(inside) > 100 / 36, "in context even a hardly trained learner is above chance"
    assert [ask.config.method for ask in asked] == list(METHODS)


def test_no_text_names_a_folder_of_this_machine(smoke):
    for path in smoke.out.rglob("*"):
        inside = {".stamps", "logs", ".work"} & set(path.relative_to(smoke.out).parts)
        if path.suffix in (*TEXTS, ".ipynb") and not inside:
            text = path.read_text(encoding="utf-8")
            assert str(repo_root()) + "/" not in text, path.name


def test_no_notebook_wrote_a_warning(smoke):
    for path in (smoke.out / "executed").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", ()):
                text = "".join(output.get("text", "")) if output.get("name") == "stderr" else ""
                assert not re.search(r"Warning", text), f"{path.name}: {text[:400]}"


def test_a_second_call_runs_nothing(smoke):
    before = {path: path.stat().st_mtime_ns for path in smoke.runs.rglob("*.jsonl")}
    smoke.call()
    assert smoke.code == 0 and ": started" not in smoke.said, smoke.said
    assert smoke.seconds < 60  # at most 30 on a machine that does nothing else
    assert {path: path.stat().st_mtime_ns for path in smoke.runs.rglob("*.jsonl")} == before
