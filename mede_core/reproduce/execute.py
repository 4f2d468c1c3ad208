"""One notebook in one process: start it, watch it, end it, and decide whether it succeeded.

papermill runs in a child of its own session; the kernel, which papermill puts into yet another session, and
its data-loading workers are found through the process table when they must be killed. If the runner itself
dies, Linux kills papermill and the kernel then ends by itself.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mede_core.files import atomic_write, available_cpus, sha256_file
from mede_core.reproduce.plan import Plan, PlanError, Step, code_cells, read_notebook

START_TIMEOUT_S = "180"
_PR_SET_PDEATHSIG = 1
_NO_START = re.compile(r"Kernel didn't respond in|Kernel died before replying to kernel_info|Address already in use")
_KERNEL_DIED = re.compile(r"DeadKernelError|Kernel died")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Folders:
    """Where a profile's run reads and writes."""

    notebooks: Path
    out: Path  # reports/<profile>
    runs: Path  # runs/<profile>
    out_dir: str  # the two as the notebooks get them: relative to their folder wherever possible
    runs_dir: str

    def executed(self, step_id: str) -> Path:
        return self.out / "executed" / f"{step_id}.ipynb"

    def failed(self, step_id: str) -> Path:
        return self.out / "executed" / f"{step_id}.failed.ipynb"

    def log(self, step_id: str) -> Path:
        return self.out / "logs" / f"{step_id}.log"


@dataclass
class Running:
    """A notebook under way."""

    step: Step
    process: subprocess.Popen
    partial: Path
    started: float  # monotonic seconds
    marker_ns: int  # the file system's time at the start; outputs must not be older
    attempt: int


@dataclass(frozen=True)
class Outcome:
    """How a notebook ended."""

    ok: bool
    reason: str  # empty when ok
    seconds: float
    peak_memory_mb: float | None  # the largest of papermill and its kernel; unknown after a kill
    outputs: dict[str, str]  # {declared path: sha256}
    retry: bool = False  # the kernel did not start: worth one more try


def start(plan: Plan, step: Step, folders: Folders, attempt: int = 1) -> Running:
    """Start papermill on a step's notebook."""
    work = folders.out / ".work"
    for folder in (work, folders.out / "executed", folders.out / "logs", folders.runs):
        folder.mkdir(parents=True, exist_ok=True)
    partial = folders.executed(step.id).with_suffix(".partial.ipynb")
    partial.unlink(missing_ok=True)
    values = {
        **step.parameters,
        "profile": plan.profile,
        "out_dir": folders.out_dir,
        "runs_dir": folders.runs_dir,
    }
    parameters = atomic_write(work / f"{step.id}.yaml", json.dumps(values))  # JSON is YAML
    marker = atomic_write(work / f"{step.id}.start", str(os.getpid()))
    seconds = str(int(step.timeout_minutes * 60) + 60)  # after the wall-clock guard, which says more
    here = folders.notebooks
    command = [
        sys.executable, "-m", "papermill", step.notebook, os.path.relpath(partial, here),
        "--kernel", "python3", "--cwd", ".", "--parameters_file", os.path.relpath(parameters, here),
        "--no-progress-bar", "--log-output",
        "--execution-timeout", seconds, "--start-timeout", START_TIMEOUT_S,
    ]  # fmt: skip
    with open(folders.log(step.id), "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=here,
            env=environment(plan.threads, work),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent() if sys.platform == "linux" else None,
        )
    return Running(step, process, partial, time.monotonic(), marker.stat().st_mtime_ns, attempt)


def environment(threads: int, work: Path) -> dict[str, str]:
    """Return a notebook's environment: one thread count everywhere, quiet bars, this env's kernel.

    Never more threads than CPUs: four threads on two cores made a forward pass of ViT-B/16 36 times slower.
    """
    threads = min(threads, available_cpus())
    fixed = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str((work / "ipython").resolve()),  # no start-up files of the user, no shared history
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TQDM_MININTERVAL": "30",
        "MEDE_BATCH": "1",
        "MEDE_THREADS": str(threads),
    }
    fixed |= {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    return {**os.environ, **fixed}


def die_with_parent():
    """Return a function for the child that asks Linux to kill it when the runner dies (also by kill -9)."""
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def poll(running: Running, folders: Folders) -> Outcome | None:
    """Return how a notebook ended, or None while it runs; past its time limit it is killed.

    A success leaves `executed/<id>.ipynb`, a failure `executed/<id>.failed.ipynb`.
    """
    pid, status, usage = os.wait4(running.process.pid, os.WNOHANG)
    seconds = time.monotonic() - running.started
    if pid == 0:
        if seconds < running.step.timeout_minutes * 60:
            return None
        kill(running)
        reason, peak = f"killed: ran longer than {running.step.timeout_minutes:g} minutes", None
    else:
        running.process.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
        reason = _failure(running, folders)
    outputs: dict[str, str] = {}
    retry = running.attempt == 1 and reason == "the kernel did not start"
    if not reason:
        outputs, reason = collect_outputs(running.step, folders, running.marker_ns)
    if not reason:
        _keep(running, folders)
    elif running.partial.is_file():
        os.replace(running.partial, folders.failed(running.step.id))
        folders.executed(running.step.id).unlink(missing_ok=True)  # of an earlier run: no longer what the step gives
    return Outcome(not reason, reason, seconds, peak, outputs, retry)


def _failure(running: Running, folders: Folders) -> str:
    """Return why papermill's run is no success, or nothing."""
    code = running.process.returncode
    if code < 0:
        return f"killed by signal {-code} (memory?)"
    log = folders.log(running.step.id).read_text(encoding="utf-8", errors="replace")
    try:
        notebook = read_notebook(running.partial) if running.partial.is_file() else None
    except PlanError:
        notebook = None
    errors = [
        f"In [{cell['execution_count']}]: {output['ename']}: {_ANSI.sub('', output['evalue']).strip()[:300]}"
        for cell in (code_cells(notebook) if notebook else ())
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]
    ran = notebook is not None and any(cell["execution_count"] for cell in code_cells(notebook))
    if errors:
        return errors[0]
    if code and not ran and _NO_START.search(log):
        return "the kernel did not start"
    if code and _KERNEL_DIED.search(log):
        return "the kernel was killed (memory?)"
    if code:
        return f"papermill ended with exit code {code}: {(log.strip().splitlines() or ['no output'])[-1][:300]}"
    noted = notebook["metadata"].get("papermill", {}) if notebook else {}
    if noted.get("exception") or not noted.get("end_time"):
        return "papermill ended well but left no whole executed notebook"
    return ""


def collect_outputs(step: Step, folders: Folders, newer_than_ns: int) -> tuple[dict[str, str], str]:
    """Check that a step's declared outputs exist, are not empty, and are of this run.

    Args:
        step: the step.
        folders: where to look.
        newer_than_ns: the start's time; outputs under `runs:` may be older, a finished training is loaded.

    Returns:
        {path as declared, globs resolved: sha256}, and what is wrong or "".
    """
    found: dict[str, str] = {}
    for name in step.provides:
        prefix, root = ("runs:", folders.runs) if name.startswith("runs:") else ("", folders.out)
        files = sorted(f for f in root.glob(name.removeprefix("runs:")) if f.is_file())
        fresh = [f for f in files if prefix or f.stat().st_mtime_ns >= newer_than_ns]
        if not files:
            return {}, f"declared output {name} is missing"
        if not fresh:
            return {}, f"declared output {name} is from an earlier run, this one did not write it"
        for file in fresh:
            if file.stat().st_size == 0:
                return {}, f"declared output {name} is empty"
            found[prefix + file.relative_to(root).as_posix()] = sha256_file(file)
    return found, ""


def outputs_intact(outputs: dict[str, str], folders: Folders) -> bool:
    """Return whether recorded outputs are all present with their recorded content."""
    files = {
        (folders.runs if name.startswith("runs:") else folders.out) / name.removeprefix("runs:"): value
        for name, value in outputs.items()
    }
    return all(file.is_file() and sha256_file(file) == value for file, value in files.items())


def _keep(running: Running, folders: Folders) -> None:
    """Move the executed notebook to its final name, without the paths papermill noted in it."""
    step_id = running.step.id
    notebook = read_notebook(running.partial)
    notebook["metadata"]["papermill"].update(input_path=running.step.notebook, output_path=f"{step_id}.ipynb")
    atomic_write(folders.executed(step_id), json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    running.partial.unlink()
    folders.failed(step_id).unlink(missing_ok=True)


def kill(running: Running) -> None:
    """Kill a notebook's process and all that descend from it, and collect it."""
    for pid in [running.process.pid, *descendants(running.process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(running.process.pid, 0)
    running.process.returncode = -signal.SIGKILL


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes below one, read from Linux's /proc or from `ps`."""
    children: dict[int, list[int]] = {}
    for child, parent in _process_table():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, ()))
    for each in found:  # grows while it is read
        found.extend(children.get(each, ()))
    return found


def _process_table():
    if sys.platform == "linux":
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # ended meanwhile
                yield int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])
    else:
        answer = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True)
        for line in answer.stdout.splitlines():
            child, parent = line.split()
            yield int(child), int(parent)
