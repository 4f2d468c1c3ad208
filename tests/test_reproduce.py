"""`make reproduce` as its users meet it: real toy notebooks, real processes, real kills."""

import argparse
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_notebooks import PARAMETERS, notebook, project

from mede_core.files import run_lock
from mede_core.reproduce import cli, execute, runner
from mede_core.reproduce.execute import Folders, Outcome
from mede_core.reproduce.plan import load_plan

WRITE = "from mede_core.files import Workspace, atomic_write\nw = Workspace(out_dir, runs_dir)\n"
MAKE = f"""{WRITE}
atomic_write(w.results / "make.txt", f"{{word}} {{seed}}\\n")
atomic_write(w.runs / "r1" / "a.bin", "x")"""
USE = f"""{WRITE}
text = (w.results / "make.txt").read_text()
atomic_write(w.tables / "use.html", f"<table><td>{{text}}</td></table>")"""
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
PLAN = """
profiles: {toy: {jobs: 3, threads: 1}}
steps:
  - {id: make, notebook: make.ipynb, provides: [results/make.txt, "runs:r*/a.bin"],
     parameters: {toy: {word: hi}}}
  - {id: use, notebook: use.ipynb, needs: [make], provides: [tables/use.html]}
  - {id: bad, notebook: bad.ipynb}
  - {id: after_bad, notebook: idle.ipynb, needs: [bad]}
  - {id: after_that, notebook: idle.ipynb, needs: [after_bad, make]}
  - {id: stale, notebook: idle.ipynb, provides: [tables/old.html]}
  - {id: killed, notebook: killed.ipynb}
  - {id: slow, notebook: slow.ipynb, timeout_minutes: 0.05}
"""
NOTEBOOKS = {
    "make.ipynb": notebook(MAKE),
    "use.ipynb": notebook(USE),
    "bad.ipynb": notebook("raise ValueError('no luck')"),
    "idle.ipynb": notebook("x = 1"),
    "killed.ipynb": notebook(KILLED),
    "slow.ipynb": notebook("import time\ntime.sleep(600)"),
}


def in_a_process(plan, *arguments):
    """Run the command line as make does."""
    command = [
        sys.executable,
        "-m",
        "mede_core.reproduce",
        "--plan",
        str(plan),
        "--profile",
        "toy",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def reproduce(capsys, caplog, monkeypatch):
    """Return a function that runs the command line in this process: (exit code, what it said)."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own handlers

    def run(plan, *arguments, profile="toy"):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="mede_core"):
            code = cli.main(["--plan", str(plan), "--profile", profile, *arguments])
        return code, "\n".join(caplog.messages) + capsys.readouterr().err

    return run


def read_manifest(folder):
    return json.loads((folder / "reports" / "toy" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """One run over everything that can happen: (folder, plan, the finished process)."""
    folder = tmp_path_factory.mktemp("first")
    plan = project(folder, NOTEBOOKS, PLAN)
    old = folder / "reports" / "toy" / "tables" / "old.html"
    old.parent.mkdir(parents=True)
    old.write_text("from last year")
    return folder, plan, in_a_process(plan)


@pytest.fixture
def steps(first):
    return read_manifest(first[0])["steps"]


def test_a_failed_notebook_makes_the_exit_code_1(first):
    assert first[2].returncode == 1, first[2].stdout + first[2].stderr
    assert read_manifest(first[0])["exit_code"] == 1


def test_independent_steps_go_on_after_a_failure_and_dependents_are_blocked(steps):
    states = {name: entry["status"] for name, entry in steps.items()}
    assert states.pop("make") == states.pop("use") == "done"
    assert states.pop("after_bad") == states.pop("after_that") == "blocked"
    assert set(states.values()) == {"failed"}
    assert steps["after_that"]["reason"] == "needs after_bad"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("bad", "In [3]: ValueError: no luck"),
        ("stale", "declared output tables/old.html is from an earlier run, this one did not write it"),
        ("killed", "the kernel was killed (memory?)"),
        ("slow", "killed: ran longer than 0.05 minutes"),
    ],
)
def test_a_failure_says_its_reason(steps, step, reason):
    assert steps[step]["reason"] == reason
    assert steps[step]["key"] is None


def test_notebooks_are_executed_with_the_plans_parameters_and_relative_paths(first):
    out = first[0] / "reports" / "toy"
    assert (out / "results" / "make.txt").read_text() == "hi 7\n"
    assert (first[0] / "runs" / "toy" / "r1" / "a.bin").read_text() == "x"
    executed = (out / "executed" / "make.ipynb").read_text()
    assert 'out_dir = \\"../reports/toy\\"' in executed
    assert str(first[0]) not in executed


def test_only_successes_have_an_executed_notebook_and_no_partial_one_remains(first):
    names = {path.name for path in (first[0] / "reports" / "toy" / "executed").iterdir()}
    assert {"make.ipynb", "use.ipynb", "bad.failed.ipynb"} <= names
    assert "bad.ipynb" not in names and "stale.ipynb" not in names
    assert not any("partial" in name or name.startswith(".tmp") for name in names)


def test_the_manifest_tells_what_was_run_with_what(first, steps):
    manifest = read_manifest(first[0])
    assert manifest["versions"]["torch"].startswith("2.")
    assert set(manifest["git"]) == {"commit", "dirty"}
    assert steps["make"]["parameters"] == {"profile": "toy", "word": "hi", "seed": 7}
    assert set(steps["make"]["outputs"]) == {"results/make.txt", "runs:r1/a.bin"}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in steps["make"]["outputs"].values())
    assert 0 < steps["make"]["seconds"] < 120
    assert 20 < steps["make"]["peak_memory_mb"] < 2000


def test_the_report_is_written_and_holds_no_absolute_path(first):
    out = first[0] / "reports" / "toy"
    for name in ("summary.html", "summary.md", "manifest.json", "gallery/index.html", "gallery/notebook_use.html"):
        assert str(first[0]) not in (out / name).read_text(), name
    assert "<td>hi 7" in (out / "summary.html").read_text()
    assert "no luck" in (out / "summary.md").read_text()


def test_nothing_of_the_run_is_left_running(first):
    assert not processes_with(str(first[0]))


def test_a_second_call_skips_what_is_unchanged_and_rebuilds_no_page(first, reproduce):
    page = first[0] / "reports" / "toy" / "gallery" / "notebook_use.html"
    before = page.stat().st_mtime_ns
    code, said = reproduce(first[1], "--only", "use")
    assert code == 0, said
    assert "make: up to date" in said and "use: up to date" in said and "started" not in said
    assert page.stat().st_mtime_ns == before


@pytest.fixture
def dry_run(first, reproduce):
    """Return a function that gives {step: what a run would do with it}."""

    def run(*arguments):
        lines = reproduce(first[1], "--dry-run", *arguments)[1].splitlines()
        return {line.split()[0]: line.split(" min  ")[1] for line in lines if " min  " in line}

    return run


def test_code_changes_rerun_a_step_and_what_depends_on_it_but_prose_does_not(first, dry_run):
    path = first[0] / "notebooks" / "make.ipynb"
    original = path.read_text()
    try:
        path.write_text(json.dumps(notebook(MAKE, prose="# Other words")))
        assert dry_run("--only", "use") == {"make": "up to date", "use": "up to date"}
        path.write_text(json.dumps(notebook(MAKE + "\nx = 1")))
        assert dry_run("--only", "use") == {"make": "changed: code", "use": "perhaps, after make"}
        path.write_text(json.dumps(notebook(MAKE, parameters=PARAMETERS.replace("7", "8"))))
        assert dry_run("--only", "make") == {"make": "changed: code; parameters"}
    finally:
        path.write_text(original)
    assert dry_run("--only", "use", "--force") == {"make": "up to date", "use": "forced"}


@pytest.mark.parametrize("name", ["reports/toy/results/make.txt", "runs/toy/r1/a.bin"])
def test_an_output_that_was_altered_or_removed_makes_its_step_run_again(first, dry_run, name):
    path = first[0] / name
    original = path.read_bytes()
    try:
        path.write_text("altered")
        assert dry_run("--only", "make") == {"make": "an output is missing or was altered"}
        path.unlink()
        assert dry_run("--only", "make") == {"make": "an output is missing or was altered"}
    finally:
        path.write_bytes(original)
    assert dry_run("--only", "make") == {"make": "up to date"}


@pytest.mark.parametrize(
    ("sidecar", "code"),
    [
        ({"outside_tolerance": True, "comparable": True}, 3),
        ({"outside_tolerance": True, "comparable": False}, 0),
        ({"outside_tolerance": False, "comparable": True}, 0),
        ([{"table": "rows"}], 0),
    ],
)
def test_a_comparable_number_outside_its_tolerance_is_exit_code_3(first, reproduce, sidecar, code):
    path = first[0] / "reports" / "toy" / "tables" / "check.json"
    path.write_text(json.dumps(sidecar))
    try:
        found, said = reproduce(first[1], "--only", "use")
    finally:
        path.unlink()
    assert found == code
    assert ("outside tolerance: check" in said) == (code == 3)


def test_the_report_can_be_rebuilt_alone(first, reproduce):
    summary = first[0] / "reports" / "toy" / "summary.html"
    summary.unlink()
    before = read_manifest(first[0])
    reproduce(first[1], "--report-only")
    assert "<td>hi 7" in summary.read_text()
    assert read_manifest(first[0]) == before


# --- refused before anything starts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "arguments", "message"),
    [
        (PLAN.replace("word: hi", "wrod: hi"), [], "step make: make.ipynb has no parameter wrod"),
        (PLAN, ["--jobs", "0"], "jobs=0"),
        (PLAN, ["--only", "nothing*"], "only='nothing*' matches no step"),
        (PLAN.replace("needs: [bad]", "needs: [sad]"), [], "needs='sad'"),
    ],
)
def test_a_wrong_plan_or_argument_is_exit_code_2_before_anything_starts(tmp_path, reproduce, plan, arguments, message):
    code, said = reproduce(project(tmp_path, NOTEBOOKS, plan), *arguments)
    assert code == 2
    assert message in said
    assert not (tmp_path / "reports").exists()


def test_an_unknown_profile_is_exit_code_2(tmp_path, reproduce):
    code, said = reproduce(project(tmp_path, NOTEBOOKS, PLAN), profile="paper")
    assert code == 2 and "profile='paper'" in said


def test_a_second_runner_in_the_same_folder_is_refused(tmp_path, reproduce):
    plan = project(tmp_path, NOTEBOOKS, PLAN)
    with run_lock(tmp_path / "reports" / "toy"):
        code, said = reproduce(plan, "--only", "make")
    assert code == 2 and f"pid {os.getpid()} " in said
    assert not (tmp_path / "reports" / "toy" / "manifest.json").exists()


# --- kills --------------------------------------------------------------------------------------------------

SLOW_USE = f"""{USE}
import os, pathlib, time
atomic_write(w.results / "pid", str(os.getpid()))
while (pathlib.Path(out_dir) / "wait").exists():
    time.sleep(0.05)
atomic_write(w.tables / "end.html", "end")"""
SHORT_PLAN = """
profiles: {toy: {jobs: 2}}
steps:
  - {id: make, notebook: make.ipynb, provides: [results/make.txt]}
  - {id: use, notebook: use.ipynb, needs: [make], provides: [tables/use.html, tables/end.html]}
"""
STOPPED_PLAN = "profiles: {toy: {}}\nsteps: [{id: use, notebook: use.ipynb}]"


def processes_with(text):
    """Return the ids of the processes whose command line or working directory holds a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode("utf-8", "replace") + os.readlink(entry / "cwd")
        except OSError:
            continue
        if text in line and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def begin(tmp_path, plan):
    """Start a run and wait until its last notebook is in the middle of its work; return the runner's process."""
    out = tmp_path / "reports" / "toy"
    out.mkdir(parents=True)
    (out / "wait").touch()
    command = [sys.executable, "-m", "mede_core.reproduce", "--plan", str(plan), "--profile", "toy"]
    # Ctrl-C as in a terminal: a shell's background jobs start with SIGINT ignored, and children inherit that.
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for((out / "results" / "pid").exists)
    return process


def test_after_kill_9_no_process_is_left_and_the_same_command_ends_with_the_same_tables(tmp_path):
    plan = project(tmp_path, {"make.ipynb": notebook(MAKE), "use.ipynb": notebook(SLOW_USE)}, SHORT_PLAN)
    out = tmp_path / "reports" / "toy"
    process = begin(tmp_path, plan)
    process.kill()
    assert process.wait(180) == -signal.SIGKILL
    wait_for(lambda: not processes_with(str(tmp_path)))
    assert not (out / "executed" / "use.ipynb").exists()
    assert not (out / "tables" / "end.html").exists()

    (out / "wait").unlink()
    (out / f".tmp-{process.pid}-01234567-half").write_text("half")
    answer = in_a_process(plan)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "make: up to date" in answer.stdout
    assert (out / "tables" / "use.html").read_text() == "<table><td>hello 7\n</td></table>"
    assert (out / "tables" / "end.html").read_text() == "end"
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_takes_its_notebooks_with_it_and_says_so(tmp_path, how):
    plan = project(tmp_path, {"use.ipynb": notebook(SLOW_USE.replace(USE, WRITE))}, STOPPED_PLAN)
    process = begin(tmp_path, plan)
    process.send_signal(how)
    assert process.wait(180) == 1
    assert not processes_with(str(tmp_path))
    entry = read_manifest(tmp_path)["steps"]["use"]
    assert (entry["status"], entry["key"]) == ("interrupted", None)


# --- without processes --------------------------------------------------------------------------------------


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Return a function that runs a plan with faked outcomes, and the list of (step, attempt) it started."""
    plan_file = project(tmp_path, {"make.ipynb": notebook("x = 1"), "use.ipynb": notebook("x = 2")}, SHORT_PLAN)
    started = []
    monkeypatch.setattr(runner, "STAGGER_S", 0)
    monkeypatch.setattr(runner, "POLL_S", 0)

    def start(plan, step, folders, attempt):
        started.append((step.id, attempt))
        folders.executed(step.id).parent.mkdir(parents=True, exist_ok=True)
        folders.executed(step.id).touch()
        return argparse.Namespace(step=step)

    def run(*outcomes):
        queue = list(outcomes)
        monkeypatch.setattr(execute, "start", start)
        monkeypatch.setattr(execute, "poll", lambda running, folders: queue.pop(0))
        plan = load_plan(plan_file, "toy")
        folders = Folders(plan.folder, tmp_path / "out", tmp_path / "runs", "../out", "../runs")
        parameters = {step.id: {"profile": "toy"} for step in plan.steps}
        return runner.Runner(plan, folders, parameters, jobs=2, forced=set()).run()

    return run, started


GOOD = Outcome(True, "", 1.0, 100.0, {})
NO_START = Outcome(False, "the kernel did not start", 1.0, 100.0, {}, retry=True)


def test_a_kernel_that_did_not_start_gets_one_more_try(quick):
    run, started = quick
    assert run(NO_START, GOOD, None, GOOD) == 0
    assert started == [("make", 1), ("make", 2), ("use", 1)]


def test_other_failures_get_no_second_try(quick):
    run, started = quick
    assert run(Outcome(False, "bad", 1.0, None, {})) == 1
    assert started == [("make", 1)]


def test_a_result_that_comes_out_the_same_does_not_rerun_what_depends_on_it(quick, tmp_path):
    run, started = quick
    assert run(GOOD, GOOD) == 0
    path = tmp_path / "notebooks" / "make.ipynb"
    path.write_text(json.dumps(notebook("x = 3")))
    assert run(GOOD) == 0
    assert started == [("make", 1), ("use", 1), ("make", 1)]


def test_outputs_of_a_training_may_be_older_than_the_step_that_loads_them(tmp_path):
    plan = load_plan(project(tmp_path, {"make.ipynb": notebook("x"), "use.ipynb": notebook("x")}, SHORT_PLAN), "toy")
    folders = Folders(tmp_path, tmp_path / "out", tmp_path / "runs", "", "")
    step = plan.step("make")
    for root, provides in ((folders.runs, "runs:a/*.bin"), (folders.out, "a/*.bin")):
        (root / "a").mkdir(parents=True)
        (root / "a" / "x.bin").write_text("x")
        step = execute.Step(**{**vars(step), "provides": (provides,)})
        later = time.time_ns() + 10**9
        outputs, wrong = execute.collect_outputs(step, folders, later)
        assert (list(outputs), bool(wrong)) == ((["runs:a/x.bin"], False) if root == folders.runs else ([], True))


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "declared output a.html is missing"), ("", "declared output a.html is empty"), ("x", "")],
)
def test_a_declared_output_must_exist_and_hold_something(tmp_path, content, problem):
    plan = load_plan(project(tmp_path, {"make.ipynb": notebook("x"), "use.ipynb": notebook("x")}, SHORT_PLAN), "toy")
    step = execute.Step(**{**vars(plan.step("make")), "provides": ("a.html",)})
    if content is not None:
        (tmp_path / "a.html").write_text(content)
    outputs, wrong = execute.collect_outputs(step, Folders(tmp_path, tmp_path, tmp_path, "", ""), 0)
    assert wrong == problem
    assert bool(outputs) == (not problem)


def test_published_figures_are_copied_beside_the_notebooks(tmp_path):
    plan_file = project(
        tmp_path,
        {"make.ipynb": notebook("x"), "use.ipynb": notebook("x")},
        SHORT_PLAN.replace("results/make.txt", "figures/a.svg") + "publish: [figures/a.svg]\n",
    )
    out = tmp_path / "reports" / "toy"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "a.svg").write_text("<svg/>")
    cli.publish(load_plan(plan_file, "toy"), out)
    assert (tmp_path / "figures" / "a.svg").read_text() == "<svg/>"


@pytest.mark.parametrize(("cpus", "threads"), [(8, "3"), (2, "2")])
def test_every_process_of_a_notebook_uses_the_plans_thread_count_but_no_more_than_cpus(
    cpus, threads, tmp_path, monkeypatch
):
    monkeypatch.setattr(execute, "available_cpus", lambda: cpus)
    environment = execute.environment(3, tmp_path)
    names = ("MEDE_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert {environment[name] for name in names} == {threads}
    assert environment["MEDE_BATCH"] == "1"
