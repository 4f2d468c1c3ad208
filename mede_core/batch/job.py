"""One job of `make reproduce` in a process of its own: a training, a scoring, a unit of the study, or a notebook."""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
from functools import partial
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


class JobError(RuntimeError):
    """A job did not succeed; the message is for the summary."""


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


# ------------------------------------------------------------------------------------ what a job tells
def said_file(out: Path, kind: str, name: str) -> Path:
    return out / ".stamps" / "said" / f"{kind}-{name}.json"


def said(out: Path, kind: str, name: str) -> dict:
    """What a job last told; empty where it never ran."""
    file = said_file(out, kind, name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def tell(out: Path, kind: str, name: str, started: float, status: str, reason: str = "", outputs=None) -> None:
    """How a job goes, for the process that waits for it, on whichever machine: a small file, replaced as a whole."""
    import resource

    from ..files import atomic_write, repo_root

    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak /= 1024 if sys.platform == "linux" else 1024**2
    if outputs is None:  # an earlier run's, until this one has its own
        outputs = said(out, kind, name).get("outputs", [])
    reason = reason.replace(str(repo_root()), ".").replace(str(Path.home()), "~")  # no folder of this machine
    content = {"session": os.environ.get("MEDE_SESSION", ""), "status": status, "reason": reason, "started": started,
               "seconds": time.time() - started, "peak_memory_mb": peak, "outputs": outputs}  # fmt: skip
    atomic_write(said_file(out, kind, name), json.dumps(content))


# ------------------------------------------------------------------------------------ what is done
def workspace_of(plan):
    """A workspace that makes things."""
    from ..workspace import Workspace

    where = {"shipped": False, "older": plan.workspace.older}
    if plan.data:  # synthetic clips are rendered once, videos are read while the device computes
        where |= {"device": plan.data.device, "processes": plan.data.processes, "num_workers": plan.workers}
    return Workspace(plan.workspace.folder, **where)


def train(plan, name: str, out: Path, again: bool) -> None:
    workspace_of(plan).run(plan.trainings[name], again=again)


def score(plan, name: str, out: Path, again: bool) -> None:
    where = workspace_of(plan)
    for ask in plan.scorings[name]:
        where.scores(ask.config, ask.sets, ask.average, again=again)


def unit(plan, name: str, out: Path, again: bool) -> None:
    from ..study.measure import pretrain_clips, run_unit
    from ..study.units import PRETRAINED

    one, where = plan.units[name], workspace_of(plan)
    if one.config.weights in PRETRAINED:
        pretrain_clips()
    run_unit(one, where, retrain=again or where.older == "retrain")


def notebook(plan, name: str, out: Path, again: bool) -> list[str]:
    """Execute a notebook; its files go to a folder of their own and, when all is well, to the report: their names."""
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema's check of IRIs: a second's import, for no notebook
    import papermill

    work, here = out / ".work" / name, plan.folder
    running, failed = work / "executed.ipynb", out / "executed" / f"{name}.failed.ipynb"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ.update(KERNEL_ENVIRONMENT, IPYTHONDIR=str(work / "ipython"), MEDE_OLDER=plan.workspace.older)
    values = {**plan.jobs[name].parameters, "profile": plan.profile, "out_dir": shown(work / "out", here),
              "runs_dir": shown(plan.workspace.folder, here)}  # fmt: skip
    values |= {"data": plan.data_path} if plan.data and "data" in plan.defaults(name) else {}
    os.chdir(here)
    for attempt in (1, 2):
        # A runtime folder of its own, and a short one: kernels that start together race for ports and files.
        with tempfile.TemporaryDirectory(prefix="mede-") as runtime:
            os.environ["JUPYTER_RUNTIME_DIR"] = runtime
            try:
                papermill.execute_notebook(
                    plan.file(name), running, values, kernel_name="python3", cwd=".", progress_bar=False,
                    log_output=True, start_timeout=180, shutdown_kernel="immediate",  # its own way out takes seconds
                )  # fmt: skip
                break
            except Exception as error:  # a cell's, or whatever Jupyter raises where a kernel ends or does not start
                if running.is_file():
                    failed.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(running, failed)
                    (out / "executed" / f"{name}.ipynb").unlink(missing_ok=True)  # no longer what the job gives
                if isinstance(error, papermill.PapermillExecutionError):
                    text = ANSI.sub("", error.evalue).strip()[:300]
                    raise JobError(f"In [{error.exec_count}]: {error.ename}: {text}") from error
                text = f"{type(error).__name__}: {error}"
                if not NO_START.search(text):
                    raise JobError("the kernel was killed (memory?)" if KERNEL_DIED.search(text) else text) from error
                if attempt == 2:
                    raise JobError("the kernel did not start") from error
                print(f"the kernel did not start, trying once more: {text}", flush=True)
    return publish(plan.jobs[name], work, out)


def shown(path: Path, start: Path) -> str:
    """Relative where that says nothing about this machine: below the repository."""
    relative = os.path.relpath(path, start)
    return relative if relative.count("..") <= 1 else str(path)


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


# ------------------------------------------------------------------------------------ the process
KINDS = {"train": train, "score": score, "unit": unit, "notebook": notebook}


def main(kind: str, name: str, stamp: str, parent: str, given: str) -> int:
    """A job; `given` is JSON: the arguments of `load_plan`, and where and how it runs."""
    where = json.loads(given)
    out, minutes, again = Path(where.pop("out")), where.pop("minutes"), where.pop("again")
    told, stamp = partial(tell, out, kind, name, time.time()), Path(stamp).absolute()
    late = f"killed: ran longer than {minutes:g} minutes"
    end_with_parent(int(parent), minutes, late=lambda: told("failed", late))
    log = out / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    told("running")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        from .plan import load_plan

        plan = load_plan(**where)
        if name not in plan.work[kind]:
            raise JobError(f"the plan has no {kind} {name} any more: the code changed since the start")
        told("done", outputs=KINDS[kind](plan, name, out, again))
    except BaseException as error:  # also an interruption: whatever it is, it is told
        traceback.print_exc()
        told("failed", (str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}")[:1000])
        return 1
    stamp.write_text(f"{name}\n", encoding="utf-8")  # last
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
