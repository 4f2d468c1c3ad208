"""The notebooks themselves, through the runner that users call: the whole smoke profile, a second time, and killed.

The smoke profile trains for seconds, so nothing here asks which method wins; it asks that every step runs, leaves what
it declares, and says the same when it was killed and continued.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mede_core.config import METHODS
from mede_core.files import repo_root
from mede_core.report.records import ResultStore
from mede_core.reproduce.plan import load_plan

PLAN = load_plan(repo_root() / "notebooks" / "reproduce.yaml", "smoke")
TEXTS = (".html", ".md", ".tex", ".csv", ".json", ".jsonl", ".svg")
SAME_AFTER_A_KILL = ("tables/*", "results/*.jsonl")


@dataclass
class Run:
    """A report folder and a folder of runs, and the runner's last call on them."""

    folder: Path
    code: int = -1
    said: str = ""
    seconds: float = 0.0

    @property
    def out(self) -> Path:
        return self.folder / "reports" / "smoke"

    @property
    def runs(self) -> Path:
        return self.folder / "runs" / "smoke"

    def command(self, *arguments: str) -> list[str]:
        folders = ["--reports", str(self.folder / "reports"), "--runs", str(self.folder / "runs")]
        return [sys.executable, "-m", "mede_core.reproduce", "--profile", "smoke", *folders, *arguments]

    def call(self, *arguments: str) -> "Run":
        start = time.monotonic()
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=1500)
        self.code, self.said = done.returncode, done.stdout + done.stderr
        self.seconds = time.monotonic() - start
        return self


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Run:
    """One uninterrupted run of the whole profile."""
    return Run(tmp_path_factory.mktemp("smoke")).call()


def test_every_step_runs_and_leaves_what_it_declares(smoke):
    assert smoke.code == 0, smoke.said
    entries = json.loads((smoke.out / "manifest.json").read_text())["steps"]
    assert {entry["status"] for entry in entries.values()} == {"done"}
    assert entries.keys() == {step.id for step in PLAN.steps}
    for step in PLAN.steps:
        for name in step.provides:
            root = smoke.runs if name.startswith("runs:") else smoke.out
            files = list(root.glob(name.removeprefix("runs:")))
            assert files, f"{step.id} left no {name}"
            assert all(file.stat().st_size > 0 for file in files), name
        assert (smoke.out / "gallery" / f"notebook_{step.id}.html").stat().st_size > 0
    assert (smoke.out / "summary.html").is_file()


def test_the_numbers_are_finite_in_range_and_complete(smoke):
    records = ResultStore(smoke.out / "results").records()  # reading checks each record's form, range and bits
    assert all(math.isfinite(record["value"]) for record in records)
    evaluated = [r for r in records if r["table"] == "evaluate"]
    assert {r["method"] for r in evaluated} == set(METHODS)
    source = {(r["method"], r["split"], r["context"]) for r in evaluated if r["set"] == "source"}
    assert len(source) == len(METHODS) * 2 * 4
    assert {r["set"] for r in evaluated} == {"source", "transfer_a", "transfer_b", "superset", "direction"}
    assert all(r["weights"].startswith("shipped:") for r in records)
    top1 = [r["value"] for r in evaluated if r["set"] == "source" and r["context"] == "in"]
    assert min(top1) > 100 / 36, "in context even a hardly trained learner is above chance"
    blind = [r["value"] for r in records if r["metric"] == "order_gap" and r["method"] == "frozen"]
    assert blind == [pytest.approx(0, abs=2)] * 2, "frozen CLIP cannot see the order of frames"


def test_methods_of_one_trajectory_share_a_run(smoke):
    runs = {r["method"]: r["run"] for r in ResultStore(smoke.out / "results").records(table="evaluate")}
    assert runs["open_mede"] == runs["open_mede_no_gwa"] != runs["finetune"]
    assert (smoke.runs / "open_mede").resolve().name == runs["open_mede"]


def test_the_papers_tables_are_marked_not_comparable_and_hold_all_methods(smoke):
    sidecar = json.loads((smoke.out / "tables" / "22_out_of_context.json").read_text())
    assert sidecar["comparable"] is False
    assert sidecar["marks"]["within"] == sidecar["marks"]["outside"] == 0
    for name in ("20_base_to_novel", "21_cross_dataset"):
        marks = json.loads((smoke.out / "tables" / f"{name}.json").read_text())["marks"]
        assert marks["not comparable"] and not marks["within"] and not marks["outside"] and not marks["not run"], name
    assert "not run" not in (smoke.out / "tables" / "22_backgrounds.csv").read_text()
    assert set(
        re.findall(r"undecided across seeds|higher|lower", (smoke.out / "tables" / "22_verdict.csv").read_text())
    ) == {"undecided across seeds"}


def test_no_output_names_a_folder_of_this_machine(smoke):
    for kind in ("tables", "results", "figures"):
        for path in (smoke.out / kind).iterdir():
            if path.suffix in TEXTS:
                text = path.read_text()
                assert str(smoke.folder) not in text, path.name
                assert str(repo_root()) + "/" not in text, path.name


def test_no_notebook_wrote_a_warning(smoke):
    for path in (smoke.out / "executed").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", ()):
                text = "".join(output.get("text", "")) if output.get("name") == "stderr" else ""
                assert "Warning" not in text, f"{path.name}: {text[:400]}"


def test_a_second_call_runs_nothing(smoke):
    before = {path: path.stat().st_mtime_ns for path in smoke.out.rglob("*.jsonl")}
    again = Run(smoke.folder).call()
    assert again.code == 0, again.said
    assert again.said.count("up to date") >= len(PLAN.steps)
    assert ": started" not in again.said
    assert again.seconds < 60  # a few seconds on a machine that does nothing else
    assert {path: path.stat().st_mtime_ns for path in smoke.out.rglob("*.jsonl")} == before


def test_a_run_killed_while_training_goes_on_and_ends_with_the_same_bytes(smoke, tmp_path):
    """kill -9 of the runner after the first checkpoint; training, evaluation and the table then agree byte for byte."""
    killed = Run(tmp_path)
    process = subprocess.Popen(
        killed.command("--only", "out_of_context"), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        unfinished = wait_for_a_checkpoint(killed.runs, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (unfinished / "done.json").exists(), "killed too late to show anything"
    assert not (killed.out / "results" / "evaluate.jsonl").exists()
    killed.call("--only", "out_of_context")
    assert killed.code == 0, killed.said
    compared = [path for pattern in SAME_AFTER_A_KILL for path in sorted(killed.out.glob(pattern))]
    assert {"22_out_of_context.csv", "11_base_to_novel.html", "evaluate.jsonl"} <= {path.name for path in compared}
    for path in compared:
        assert path.read_bytes() == (smoke.out / path.relative_to(killed.out)).read_bytes(), path.name
    for path in unfinished.glob("*.safetensors"):
        assert path.read_bytes() == (smoke.runs / path.relative_to(killed.runs)).read_bytes(), path.name
    steps = [
        len((runs / unfinished.name / "metrics.jsonl").read_text().splitlines()) for runs in (smoke.runs, killed.runs)
    ]
    assert steps[0] == steps[1]


def wait_for_a_checkpoint(runs: Path, process: subprocess.Popen) -> Path:
    """Return the first run folder that can be resumed and is not finished."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        for state in runs.glob("*-*/state.pt"):
            if not (state.parent / "done.json").exists():
                return state.parent
        time.sleep(0.002)
    raise AssertionError("no training left a checkpoint")
