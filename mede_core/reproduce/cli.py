"""Command line of `make reproduce`: run the plan's notebooks, skip what is up to date, write the report."""

import argparse
import logging
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

from mede_core.files import LockedError, remove_stale_temps, repo_root, run_lock
from mede_core.reproduce import PlanError, execute, preflight
from mede_core.reproduce.estimate import COST_COMMAND, Timings, plan_work
from mede_core.reproduce.execute import Folders
from mede_core.reproduce.fill import fill
from mede_core.reproduce.plan import Plan, check_parameters, load_plan
from mede_core.reproduce.runner import FAILED, OK, OUTSIDE, WRONG, Runner, read_manifest, staleness
from mede_core.reproduce.sources import read_sources

logger = logging.getLogger(__name__)


def what_would_run(plan: Plan, parameters: dict[str, dict], folders: Folders, forced: set[str]) -> dict[str, str]:
    """Return {chosen step: why it would run, "" where it is up to date}; steps without data are left out."""
    entries = {step.id: {"key": None, "outputs": {}} for step in plan.steps}
    entries.update(read_manifest(folders.out).get("steps", {}))
    reasons: dict[str, str] = {}
    for step in (step for step in plan.steps if step.id in parameters and not step.missing):
        after = sorted(need for need in step.needs if reasons.get(need))
        reason = staleness(plan, step, parameters[step.id], entries, folders)[1]
        if not reason and step.id in forced:
            reason = "forced"
        elif not reason and after:
            reason = f"perhaps, after {', '.join(after)}"
        reasons[step.id] = reason
    return reasons


def show_plan(plan: Plan, reasons: dict[str, str], jobs: int) -> None:
    """Print what a run would do and about how long it would take, without starting anything."""
    for step in (step for step in plan.steps if step.id in reasons):
        reason = reasons[step.id] or "up to date"
        logger.info("  %-28s %-36s %5.1f min  %s", step.id, step.notebook, step.minutes, reason)
    minutes = sum(step.minutes for step in plan.steps if reasons.get(step.id))
    count = sum(map(bool, reasons.values()))
    logger.info("%d to run, about %.1f min with %d at a time", count, minutes / jobs, jobs)


def publish(plan: Plan, out: Path) -> None:
    """Copy the plan's published figures from a report to the committed `figures/`."""
    for name in plan.publish:
        target = plan.folder.parent / "figures" / Path(name).name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(out / name, target)
        logger.info("  figures/%s", target.name)


def make_folders(plan: Plan, reports: str | None, runs: str | None) -> Folders:
    """Return where a run reads and writes; the notebooks get relative paths for the default folders."""
    root = plan.folder.parent
    out = (Path(reports).resolve() if reports else root / "reports") / plan.profile
    run_folder = (Path(runs).resolve() if runs else root / "runs") / plan.profile
    if "{" in f"{out}{run_folder}":
        raise PlanError(f"{out}: papermill cannot write to a path with braces")
    return Folders(
        notebooks=plan.folder,
        out=out,
        runs=run_folder,
        out_dir=str(out) if reports else f"../reports/{plan.profile}",
        runs_dir=str(run_folder) if runs else f"../runs/{plan.profile}",
    )


def check_kernel() -> None:
    """Raise PlanError unless the kernel `python3` of this environment can be found."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel as error:
        raise PlanError("no Jupyter kernel named python3 here: install ipykernel") from error


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m mede_core.reproduce", description=__doc__.split("\n\n")[0])
    parser.add_argument("--profile", default="cpu", help="a profile of the plan (default: cpu)")
    parser.add_argument("--only", metavar="GLOB", help="these steps (by id or notebook name) and what they need")
    parser.add_argument("--force", action="store_true", help="run the chosen steps even where they are up to date")
    parser.add_argument("--jobs", type=int, metavar="N", help="notebooks at a time (default: the profile's)")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and why, and stop")
    parser.add_argument("--report-only", action="store_true", help="rebuild gallery and summary of the last run")
    parser.add_argument("--publish", action="store_true", help="run what the plan publishes, then copy it to figures/")
    parser.add_argument("--data", metavar="FILE", help="weights and real videos (default: data.yaml beside notebooks/)")
    parser.add_argument("--cost-command", metavar="COMMAND", help="what times a few steps, such as "
                        "'srun python -m mede_core.report.costs' (default: the latter part)")  # fmt: skip
    parser.add_argument("--plan", help="default: notebooks/reproduce.yaml")
    parser.add_argument("--reports", metavar="DIR", help="default: reports/; the profile's name is appended")
    parser.add_argument("--runs", metavar="DIR", help="default: runs/; the profile's name is appended")
    return parser.parse_args(arguments)


def reproduce(options: argparse.Namespace) -> int:
    """Do what the command line asks.

    Returns:
        The exit code: 0 all good, 1 a notebook failed, 3 a number is outside its tolerance.

    Raises:
        PlanError, LockedError: before anything was started (exit code 2).
    """
    plan = load_plan(options.plan or repo_root() / "notebooks" / "reproduce.yaml", options.profile)
    folders = make_folders(plan, options.reports, options.runs)
    if options.jobs is not None and options.jobs < 1:
        raise PlanError(f"jobs={options.jobs}: expected a number >= 1")
    if options.data and not plan.data:
        raise PlanError(f"data={options.data!r}: profile {plan.profile} reads no data.yaml")
    if options.report_only:
        return report_again(plan, folders)
    jobs = options.jobs or plan.jobs
    chosen = plan.select(options.only)
    if options.publish:
        chosen = {step.id for step in plan.steps if set(step.provides) & set(plan.publish)}
        if not chosen:
            raise PlanError(f"profile {plan.profile} publishes no figure")
    ids = plan.with_needs(chosen)
    sources = read_sources(options.data or plan.folder.parent / "data.yaml", plan.profile) if plan.data else None
    if sources:
        plan = fill(plan, sources, ids)
    forced = chosen if options.force else set()
    parameters = check_parameters(plan, ids)
    if options.dry_run or sources:  # hashes all earlier outputs
        reasons = what_would_run(plan, parameters, folders, forced)
    if sources:
        works = plan_work(plan, sources, parameters, reasons.keys())  # checks also what is up to date
        works = [work for work in works if reasons[work.step_id]]
        command = shlex.split(options.cost_command) if options.cost_command else COST_COMMAND
        environment = execute.environment(plan.threads, folders.out / ".work")
        timings = Timings(folders.out / "timing.json", sources.device, command, environment)
        preflight.report(plan, sources, ids)
    if options.dry_run:
        if sources:
            preflight.report_cost(works, timings, sources, folders.runs, measure=False)
        show_plan(plan, reasons, jobs)
        return OK
    check_kernel()
    with run_lock(folders.out):
        remove_stale_temps(folders.out)
        if sources:
            preflight.report_cost(works, timings, sources, folders.runs, measure=True)
        minutes = sum(step.minutes for step in plan.steps if step.id in parameters) / jobs
        logger.info(
            "profile %s: %d steps, %d at a time, about %.1f min from scratch",
            plan.profile, len(parameters), jobs, minutes,
        )  # fmt: skip
        runner = Runner(plan, folders, parameters, jobs, forced)
        code = runner.run()
        report(plan, runner.manifest, folders)
    if options.publish and code in (OK, OUTSIDE):
        publish(plan, folders.out)
    return code


def report_again(plan: Plan, folders: Folders) -> int:
    """Rebuild the report of the last run and return that run's exit code."""
    with run_lock(folders.out):
        manifest = read_manifest(folders.out)
        if not manifest:
            raise PlanError(f"no run of profile {plan.profile} to report on")
        report(plan, manifest, folders)
    return manifest["exit_code"] or OK


def report(plan: Plan, manifest: dict, folders: Folders) -> None:
    """Bring gallery and summary up to date and say where they are."""
    from mede_core.report.gallery import build_gallery
    from mede_core.report.summary import write_summary

    build_gallery(folders.out, manifest["steps"], plan.folder)
    facts = {"Commit": manifest["git"]["commit"], "Threads per notebook": manifest["threads"], **manifest["versions"]}
    headline = write_summary(folders.out, manifest["steps"], facts)
    logger.info("%s: %s", headline, os.path.relpath(folders.out / "summary.html"))


def main(arguments: list[str] | None = None) -> int:
    """Command line of the runner.

    Returns:
        The exit code.
    """
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("mede_core").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # as an exception: children are killed on the way out
    try:
        return reproduce(options)
    except (PlanError, LockedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return WRONG
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues\n")
        return FAILED
