"""One job of `make reproduce` in a process of its own: a training, a scoring, a unit of the study, or a notebook.

The Snakefile starts it as `python -m mede_core.batch.job KIND NAME ...`. What it says goes to logs/, how it went to
`.stamps/said/`, and its stamp is written last. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

WATCH_S = 0.5
NO_START = re.compile(r"Kernel didn't respond in|Kernel died before replying to kernel_info|Address already in use")
KERNEL_DIED = re.compile(r"DeadKernelError|Kernel died")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
KERNEL_ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "TQDM_MININTERVAL": "30",
    "MEDE_BATCH": "1",
    "MEDE_MAKE": "0",  # what no job prepared is an error that names it
    "MEDE_SHIPPED": "0",
}


def end_with_parent(parent: int, minutes: float = 0.0, late=lambda: None) -> None:
    """End this process and all below it when the one that started it is gone, or after some minutes."""
    import psutil

    def watch():
        end = time.monotonic() + minutes * 60
        while os.getppid() == parent and (not minutes or time.monotonic() < end):
            time.sleep(WATCH_S)
        if os.getppid() == parent:
            late()
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Told:
    """How a job goes, for the process that waits for it, on whichever machine: a small file, replaced as a whole."""

    def __init__(self, out: Path, kind: str, name: str):
        self.file = said_file(out, kind, name)
        self.started = time.time()
        self.outputs = said(out, kind, name).get("outputs", [])  # an earlier run's, until this one has its own

    def __call__(self, status: str, reason: str = "", outputs: list[str] | None = None) -> None:
        import resource

        from ..files import atomic_write

        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        peak /= 1024 if sys.platform == "linux" else 1024**2
        content = {"session": os.environ.get("MEDE_SESSION", ""), "status": status, "reason": without_paths(reason),
                   "started": self.started, "seconds": time.time() - self.started, "peak_memory_mb": peak,
                   "outputs": self.outputs if outputs is None else outputs}  # fmt: skip
        atomic_write(self.file, json.dumps(content))


def without_paths(text: str) -> str:
    """A text that says nothing about this machine's folders."""
    from ..files import repo_root

    return text.replace(str(repo_root()), ".").replace(str(Path.home()), "~")


# ------------------------------------------------------------------------------------ what is done
def train(plan, name: str, again: bool) -> None:
    from ..workspace import Workspace

    processes, device = (plan.data.processes, plan.data.device) if plan.data else (1, "cpu")
    where = Workspace(plan.workspace.folder, shipped=False, older=plan.workspace.older, device=device,
                      processes=processes, num_workers=workers(plan))  # fmt: skip
    where.run(plan.trainings[name], again=again)


def score(plan, name: str, again: bool) -> None:
    from ..workspace import Workspace

    where = Workspace(plan.workspace.folder, shipped=False, older=plan.workspace.older,
                      device=plan.data.device if plan.data else "cpu", num_workers=workers(plan))  # fmt: skip
    for ask in plan.scorings[name]:
        where.scores(ask.config, ask.sets, ask.average, again=again)


def unit(plan, name: str, again: bool) -> None:
    from ..study.run import pretrain_clips, run_unit
    from ..study.units import PRETRAINED
    from ..workspace import Workspace

    one = plan.units[name]
    if one.config.weights in PRETRAINED:
        pretrain_clips()
    where = Workspace(plan.workspace.folder, shipped=False, older=plan.workspace.older)
    run_unit(one, where, retrain=again or where.older == "retrain")


def workers(plan) -> int:
    """Of data loaders: synthetic clips are rendered once, videos are read while the device computes."""
    return max(1, plan.threads - 1) if plan.data else 0


def notebook(plan, name: str, again: bool) -> list[str]:
    """Execute a notebook; its files go to a folder of their own and, when all is well, to the report: their names."""
    import papermill

    job, out = plan.jobs[name], Path(os.environ["MEDE_OUT"])
    work = out / ".work" / name
    shutil.rmtree(work, ignore_errors=True)
    partial, here = work / "executed.ipynb", plan.folder
    work.mkdir(parents=True)
    os.environ.update(KERNEL_ENVIRONMENT, IPYTHONDIR=str(work / "ipython"), MEDE_OLDER=plan.workspace.older)
    values = {**job.parameters, "profile": plan.profile, "out_dir": shown(work / "out", here),
              "runs_dir": shown(plan.workspace.folder, here)}  # fmt: skip
    values |= {"data": plan.data_path} if plan.data and "data" in plan.defaults(name) else {}
    os.chdir(here)
    for attempt in (1, 2):
        # A runtime folder of its own, and a short one: kernels that start together race for ports and files.
        with tempfile.TemporaryDirectory(prefix="mede-") as runtime:
            os.environ["JUPYTER_RUNTIME_DIR"] = runtime
            try:
                papermill.execute_notebook(
                    plan.file(name), partial, values, kernel_name="python3", cwd=".", progress_bar=False,
                    log_output=True, start_timeout=180,
                )  # fmt: skip
                break
            except papermill.PapermillExecutionError as error:
                keep_failed(partial, out / "executed" / f"{name}.failed.ipynb")
                said = ANSI.sub("", error.evalue).strip()[:300]
                raise JobError(f"In [{error.exec_count}]: {error.ename}: {said}") from error
            except Exception as error:  # whatever Jupyter raises where a kernel ends or does not start
                keep_failed(partial, out / "executed" / f"{name}.failed.ipynb")
                text = f"{type(error).__name__}: {error}"
                if not NO_START.search(text):
                    raise JobError("the kernel was killed (memory?)" if KERNEL_DIED.search(text) else text) from error
                if attempt == 2:
                    raise JobError("the kernel did not start") from error
                print(f"the kernel did not start, trying once more: {text}", flush=True)
    return publish(job, work, out)


class JobError(RuntimeError):
    """A job did not succeed; the message is for the summary."""


def shown(path: Path, start: Path) -> str:
    """Relative where that says nothing about this machine: below the repository."""
    relative = os.path.relpath(path, start)
    return relative if relative.count("..") <= 1 else str(path)


def keep_failed(partial: Path, target: Path) -> None:
    if partial.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
        target.with_name(target.name.replace(".failed", "")).unlink(missing_ok=True)  # no longer what the job gives


def publish(job, work: Path, out: Path) -> list[str]:
    """Move a finished notebook and its files to the report, and remove those that an earlier run of it left."""
    from ..files import atomic_write

    executed = json.loads((work / "executed.ipynb").read_text(encoding="utf-8"))
    executed["metadata"]["papermill"].update(input_path=f"{job.notebook}.ipynb", output_path=f"{job.id}.ipynb")
    files = sorted(file.relative_to(work / "out") for file in (work / "out").rglob("*") if file.is_file())
    for name in set(said(out, "notebook", job.id).get("outputs", ())) - {file.as_posix() for file in files}:
        (out / name).unlink(missing_ok=True)
    for file in files:
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / "out" / file, out / file)
    text = json.dumps(executed, indent=1, ensure_ascii=False) + "\n"
    atomic_write(out / "executed" / f"{job.id}.ipynb", text)
    (out / "executed" / f"{job.id}.failed.ipynb").unlink(missing_ok=True)
    shutil.rmtree(work)
    return [file.as_posix() for file in files]


def said_file(out: Path, kind: str, name: str) -> Path:
    return out / ".stamps" / "said" / f"{kind}-{name}.json"


def said(out: Path, kind: str, name: str) -> dict:
    """What a job last told; empty where it never ran."""
    file = said_file(out, kind, name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


# ------------------------------------------------------------------------------------ the process
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mede_core.batch.job")
    parser.add_argument("kind", choices=("train", "score", "unit", "notebook"))
    parser.add_argument("name")
    for name in ("profile", "folder", "out", "runs", "data", "older", "jobs", "stamp"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    out, stamp = Path(options.out), Path(options.stamp).absolute()
    told = Told(out, options.kind, options.name)
    late = f"killed: ran longer than {options.minutes:g} minutes"
    end_with_parent(options.parent, options.minutes, late=lambda: told("failed", late))
    log = out / "logs" / f"{options.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    os.environ["MEDE_OUT"] = str(out)
    with open(log, "wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    told("running")
    try:
        told("done", outputs=do(options))
    except BaseException as error:  # also an interruption: whatever it is, it is told
        traceback.print_exc()
        told("failed", (str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}")[:1000])
        return 1
    stamp.write_text(f"{options.name}\n", encoding="utf-8")  # last
    return 0


def do(options) -> list[str] | None:
    import logging

    from .plan import load_plan

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    where = {name: getattr(options, name) for name in ("runs", "data", "older")}
    plan = load_plan(options.profile, options.folder, jobs=options.jobs.split(), **where)
    known = {"train": "trainings", "score": "scorings", "unit": "units", "notebook": "jobs"}[options.kind]
    if options.name not in getattr(plan, known):
        raise JobError(f"the plan has no {options.kind} {options.name} any more: the code changed since the start")
    return {"train": train, "score": score, "unit": unit, "notebook": notebook}[options.kind](
        plan, options.name, options.again
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
