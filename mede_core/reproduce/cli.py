"""Command line of `make reproduce`: run the plan's notebooks, skip what is up to date, write the report."""

import argparse
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

from mede_core.reproduce.execute import Folders
from mede_core.reproduce.plan import Plan, PlanError, check_parameters, load_plan
from mede_core.reproduce.runner import FAILED, OK, OUTSIDE, WRONG, Runner, read_manifest, staleness
from mede_core.runs import LockedError, remove_stale_temps, repo_root, run_lock

logger = logging.getLogger(__name__)


def show_plan(plan: Plan, runner_parameters: dict[str, dict], folders: Folders, forced: set[str], jobs: int) -> None:
    """Print what a run would do and about how long it would take, without starting anything."""
    entries = {step.id: {"key": None, "outputs": {}} for step in plan.steps}
    entries.update(read_manifest(folders.out).get("steps", {}))
    would_run: set[str] = set()
    minutes = 0.0
    for step in (step for step in plan.steps if step.id in runner_parameters):
        after = would_run & set(step.needs)
        reason = staleness(plan, step, runner_parameters[step.id], entries, folders)[1]
        if not reason and step.id in forced:
            reason = "forced"
        elif not reason and after:
            reason = f"perhaps, after {', '.join(sorted(after))}"
        if reason:
            would_run.add(step.id)
            minutes += step.minutes
        logger.info("  %-28s %-36s %5.1f min  %s", step.id, step.notebook, step.minutes, reason or "up to date")
    logger.info("%d to run, about %.1f min with %d at a time", len(would_run), minutes / jobs, jobs)


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
    jobs = options.jobs or plan.jobs
    chosen = plan.select(options.only)
    if options.publish:
        chosen = {step.id for step in plan.steps if set(step.provides) & set(plan.publish)}
    forced = chosen if options.force else set()
    parameters = check_parameters(plan, plan.with_needs(chosen))
    if options.dry_run:
        show_plan(plan, parameters, folders, forced, jobs)
        return OK
    check_kernel()
    with run_lock(folders.out):
        if options.report_only:
            manifest = read_manifest(folders.out)
            if not manifest:
                raise PlanError(f"no run of profile {plan.profile} to report on")
            code = manifest["exit_code"] or OK
        else:
            remove_stale_temps(folders.out)
            minutes = sum(step.minutes for step in plan.steps if step.id in parameters) / jobs
            logger.info(
                "profile %s: %d steps, %d at a time, about %.1f min from scratch",
                plan.profile, len(parameters), jobs, minutes,
            )  # fmt: skip
            runner = Runner(plan, folders, parameters, jobs, forced)
            code, manifest = runner.run(), runner.manifest
        report(plan, manifest, folders)
    if options.publish and code in (OK, OUTSIDE):
        publish(plan, folders.out)
    return code


def report(plan: Plan, manifest: dict, folders: Folders) -> None:
    """Bring gallery and summary up to date and say where they are."""
    from mede_core.reproduce.gallery import build_gallery
    from mede_core.reproduce.summary import build_summary, headline

    build_gallery(manifest["steps"], folders.out, plan.folder, plan.profile)
    build_summary(manifest, folders.out)
    logger.info("%s: %s", headline(manifest), os.path.relpath(folders.out / "summary.html"))


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
