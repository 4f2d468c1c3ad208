"""`mede reproduce`: checks, cost, one line a job, summary and exit code around Snakemake, which schedules the jobs."""

import json
import logging
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..files import atomic_write, git_state, run_lock, versions
from ..flags import File, Folder, Older, Profile, Workers
from ..report.summary import outside_tolerance, write_summary
from . import PlanError, cost
from .doctor import gpu_names
from .job import end_with_parent, said
from .plan import Plan, load_plan

logger = logging.getLogger(__name__)

# Exit codes; 2 (the plan, a parameter, data.yaml, a folder that is in use: nothing was started) is `main`'s
OK, FAILED, OUTSIDE = 0, 1, 3
MISSING = "missing data"  # the status of a job that data.yaml has nothing for
POLL_S = 0.3
# Its command line, in a process that ends with the one that started it
SNAKEMAKE = "import os; from mede_core.batch.job import end_with_parent; end_with_parent(os.getppid()); "
SNAKEMAKE += "from snakemake.cli import main; main()"
LARGEST = 10**15  # bytes: content decides for files of any size


def reproduce(
    profile: Profile = "cpu",
    *,
    only: str = "",
    force: Literal["", "0", "1", "all"] = "",
    jobs: Workers = 0,
    dry_run: bool = False,
    data: File = "",
    executor: str = "local",
    older: Older = "ask",
    publish: bool = False,
    report_only: bool = False,
    notebooks: str = "",
    reports: Folder = "",
    runs: Folder = "",
) -> int:
    """Run a profile's notebooks and what they ask for; up to date is what would give the same.

    Args:
        profile: smoke, cpu, full, or paper, which reads real videos
        only: these notebooks, by name or glob, and what they need
        force: 1 runs the notebooks anew, all also trainings and scorings; the old are kept until the new are finished
        jobs: at a time (default: the profile's)
        dry_run: show what would run, what it costs, and stop
        data: weights and real videos (default: data.yaml beside notebooks/)
        executor: local, or a plugin of Snakemake's, such as slurm
        older: where older code made a run and a new one takes long: ask, use it, or retrain
        publish: run what goes into figures/, and copy it there
        report_only: rebuild gallery and summary of the last run
        notebooks: folder of notebooks and Snakefile (default: the repository's)
        reports: folder of the reports (default: reports/ of the repository); the profile's name is appended
        runs: folder of runs and scores (default: runs/ of the repository)
    """
    if sys.platform == "win32":
        raise PlanError("mede reproduce needs Linux, macOS or WSL; on native Windows the notebooks work in JupyterLab")
    plugin = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor != "local" and plugin not in {module.name for module in pkgutil.iter_modules()}:
        raise PlanError(f"executor={executor!r}: allowed: local, or what an installed snakemake-executor-plugin is for")
    where = {"runs": str(Path(runs).absolute()) if runs else "", "data": data, "older": older,
             "at_once": jobs if executor == "local" else 1}  # fmt: skip
    plan = load_plan(profile, notebooks, only=only, **where)
    if publish:
        if not plan.settings.publish:
            raise PlanError(f"profile {profile} publishes no figure")
        plan = load_plan(profile, notebooks, only=" ".join(plan.settings.publish), **where)
    out = (Path(reports).absolute() if reports else plan.folder.parent / "reports") / profile
    if report_only:
        file = out / "manifest.json"
        if not file.is_file():
            raise PlanError(f"no run of profile {plan.profile} to report on")
        with run_lock(out, wait=False):
            return report(plan, out, json.loads(file.read_text(encoding="utf-8")))
    plan.asked  # noqa: B018  every parameter is checked before anything starts
    runner = Snakemake(plan, out, jobs or plan.settings.jobs, executor, force)
    if dry_run:
        cost.report(plan, out, measure=False)
        runner.say_plan()
        return OK
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # as an exception: jobs are ended on the way out
    if "MAKELEVEL" in os.environ:  # started by make: the run ends with it, however it ends
        end_with_parent(os.getppid())
    with run_lock(out, wait=False):
        settle(plan, out)
        cost.report(plan, out, measure=True)
        try:
            runner.run()
        except KeyboardInterrupt:
            logger.info("stopped; the same command continues")
            return FAILED
        code = report(plan, out, conclude(plan, out, runner))
    if publish and code in (OK, OUTSIDE):
        copy_figures(plan, out)
    return code


# ------------------------------------------------------------------------------------ stamps
def settle(plan: Plan, out: Path) -> None:
    """Make the stamps agree with the workspace and the report: what is there has one, what is gone has none."""
    for kind in ("train", "score", "unit"):
        for name in plan.work[kind]:
            stamp = out / ".stamps" / kind / name
            if not plan.is_there(kind, name):
                stamp.unlink(missing_ok=True)
            elif not stamp.is_file():
                atomic_write(stamp, f"{name}\n")
    for name in plan.chosen:
        left = [f"executed/{name}.ipynb", *said(out, "notebook", name).get("outputs", ())]
        if not all((out / file).is_file() for file in left):
            (out / ".stamps" / "notebook" / name).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------ Snakemake
class Snakemake:
    def __init__(self, plan: Plan, out: Path, jobs: int, executor: str, force: str):
        self.plan, self.out = plan, out
        self.session = f"{time.time():.3f}-{os.getpid()}"
        self.started = datetime.now(UTC)
        self.told: dict[str, str] = {}
        targets = [f"notebook/{job.id}" for job in plan.runnable]
        config = {
            "profile": plan.profile, "folder": plan.folder, "out": out, "runs": plan.workspace.folder,
            "data": plan.data_path, "older": plan.workspace.older, "again": "yes" if force == "all" else "no",
            "only": " ".join(plan.chosen), "at_once": plan.at_once,
        }  # fmt: skip
        self.command = [
            sys.executable, "-c", SNAKEMAKE, *targets, "--snakefile", str(plan.folder / "Snakefile"),
            "--directory", str(out / ".stamps"), "--nolock", "--rerun-incomplete", "--keep-going", "--nocolor",
            "--rerun-triggers", "mtime", "input", "params", "--max-checksum-file-size", str(LARGEST),
            "--scheduler", "greedy", "--config", *(f"{name}={json.dumps(str(one))}" for name, one in config.items()),
        ]  # fmt: skip
        if plan.scorings:  # the longest way through: what is asked most of, first
            most = max(plan.scorings, key=lambda name: sum(len(ask.sets) for ask in plan.scorings[name]))
            self.command += ["--prioritize", f"score/{most}"]
        if executor == "local":
            gpus = max(len(gpu_names()), plan.data.processes if plan.data else 1)
            self.command += ["--cores", str(jobs), "--resources", f"gpu={gpus}"]
        else:
            self.command += ["--executor", executor, "--jobs", str(jobs), "--latency-wait", "60"]
        if force == "all":
            self.command += ["--forceall"]
        elif force == "1":
            self.command += ["--forcerun", *targets]

    def say_plan(self) -> None:
        """What would run, and why; nothing is started."""
        answer = subprocess.run([*self.command, "--dry-run"], capture_output=True, text=True)
        if answer.returncode:
            raise PlanError(f"Snakemake refuses the plan: {answer.stdout[-2000:]}{answer.stderr[-2000:]}")
        found = re.findall(r"output: (\S+)/(\S+)\n(?:.*\n)*?\s+reason: (.*)", answer.stdout + answer.stderr)
        for kind, name, reason in found:
            logger.info("  %s: %s", self.plan.label(kind, name), reason.partition(";")[0][:100])
        logger.info("%d jobs would run", len(found))

    def run(self) -> None:
        """Run to the end; however this process ends, nothing of the run is left."""
        log = self.out / "logs" / "snakemake.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "MEDE_SESSION": self.session}
        with open(log, "wb") as stream:
            process = subprocess.Popen(
                self.command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(POLL_S)
                self.tell()
            self.tell()
        finally:
            process.kill()  # where it still runs; its jobs end with it, as after a kill -9
            process.wait()
        if process.returncode and not self.told:
            raise PlanError(f"Snakemake could not start: {log.read_text(encoding='utf-8', errors='replace')[-3000:]}")

    def tell(self) -> None:
        """One line for each job that began or ended since the last look."""
        files = (self.out / ".stamps" / "said").glob("[!.]*.json")
        for file in sorted(files, key=lambda file: file.stat().st_mtime_ns):
            content = json.loads(file.read_text(encoding="utf-8"))
            kind, _, name = file.stem.partition("-")
            status = content["status"]
            if content["session"] != self.session or self.told.get(file.stem) == status:
                continue
            self.told[file.stem] = status
            if status == "running":
                logger.info("  %s: started", self.plan.label(kind, name))
            else:
                why = f": {content['reason']}" if content["reason"] else ""
                logger.info("  %s: %s in %.1f s%s", self.plan.label(kind, name), status, content["seconds"], why)
            if status == "failed":
                logger.info("    log: %s", os.path.relpath(self.out / "logs" / f"{name}.log"))


# ------------------------------------------------------------------------------------ the report
def conclude(plan: Plan, out: Path, runner: Snakemake) -> dict:
    """The manifest of a run: what every job gave, and what everything was made with."""
    steps = {name: state(plan, out, kind, name, runner.session) for kind, names in plan.work.items() for name in names}
    states = {entry["status"] for name, entry in steps.items() if name not in plan.jobs or name in plan.chosen}
    good = states <= {"done", MISSING}
    manifest = {
        "format": 2, "profile": plan.profile, "started": runner.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "exit_code": FAILED if not good else OUTSIDE if outside_tolerance(out) else OK,
        "threads": plan.threads, "versions": versions(), "gpus": gpu_names(), "git": git_state(), "steps": steps,
    }  # fmt: skip
    atomic_write(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def state(plan: Plan, out: Path, kind: str, name: str, session: str) -> dict:
    """How one job stands: its status, and why; seconds, memory and files of its last run."""
    told = said(out, kind, name)
    entry = {"notebook": f"{plan.jobs[name].notebook}.ipynb" if kind == "notebook" else plan.label(kind, name),
             "chosen": settings_shown(plan, name) if kind == "notebook" else {}, "provides": told.get("outputs", []),
             "seconds": told.get("seconds"), "peak_memory_mb": told.get("peak_memory_mb")}  # fmt: skip
    status, reason, ours = told.get("status", "not run"), told.get("reason", ""), told.get("session") == session
    if name in plan.missing:
        return {**entry, "status": MISSING, "reason": f"not run: needs {', '.join(plan.missing[name])}"}
    if (out / ".stamps" / kind / name).is_file():
        return {**entry, "status": "done", "reason": ""}
    if ours and status == "running":
        return {**entry, "status": "failed", "reason": "killed (memory?)"}
    if ours or (kind == "notebook" and name not in plan.chosen):
        return {**entry, "status": "interrupted" if status == "running" else status, "reason": reason}
    needs = [need for need in plan.needs(name) if not (out / ".stamps" / need).is_file()]
    lacking = [plan.label(*need.split("/", 1)) for need in needs]
    return {**entry, "status": "blocked", "reason": f"needs {', '.join(lacking)}"}


def settings_shown(plan: Plan, name: str) -> dict:
    parameters = plan.jobs[name].parameters
    flat = {**{k: v for k, v in parameters.items() if k not in ("settings", "tests")}, **parameters.get("settings", {})}
    return {k: Path(v).name if isinstance(v, str) and os.sep in v else v for k, v in flat.items()}


def report(plan: Plan, out: Path, manifest: dict) -> int:
    """Bring gallery and summary up to date, say where they are, and return the run's exit code."""
    from ..report.gallery import build_gallery

    commit = manifest["git"]["commit"] or "no git checkout"
    facts = {
        "Commit": commit + (" with uncommitted changes" if manifest["git"]["dirty"] else ""),
        "Finished": manifest["finished"][:16].replace("T", " ") + " UTC",
        "Threads of a job": str(manifest["threads"]), "GPU": "; ".join(manifest["gpus"]) or "none",
        **{name: version for name, version in manifest["versions"].items() if version},
    }  # fmt: skip
    build_gallery(out, manifest["steps"], plan.folder)
    logger.info("%s: %s", write_summary(out, manifest["steps"], facts), os.path.relpath(out / "summary.html"))
    return manifest["exit_code"]


def copy_figures(plan: Plan, out: Path) -> None:
    target = plan.folder.parent / "figures"
    target.mkdir(exist_ok=True)
    for stem in (stem for stems in plan.settings.publish.values() for stem in stems):
        for shade in ("", ".dark"):
            shutil.copyfile(out / "figures" / f"{stem}{shade}.svg", target / f"{stem}{shade}.svg")
            logger.info("  figures/%s%s.svg", stem, shade)
