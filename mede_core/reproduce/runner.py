"""The runner: which steps are up to date, which run next, and the manifest that remembers it.

The manifest is replaced whole after every change, so that a run killed anywhere is continued by the same
command.
"""

import json
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from mede_core.files import atomic_write, repo_root, sha256_file
from mede_core.provenance import git_state, gpu_names, versions
from mede_core.reproduce import execute, stepkey
from mede_core.reproduce.execute import Folders, Outcome, Running
from mede_core.reproduce.plan import Plan, PlanError, Step

logger = logging.getLogger(__name__)

OK, FAILED, WRONG, OUTSIDE = 0, 1, 2, 3  # exit codes
MISSING = "missing data"  # the status of a step that data.yaml has nothing for
STAGGER_S = 1.0  # between two starts: kernels that start together race for the same ports
POLL_S = 0.05


class Runner:
    """Runs the selected steps of a plan, several at a time, and keeps the manifest."""

    def __init__(self, plan: Plan, folders: Folders, parameters: dict[str, dict], jobs: int, forced: set[str]):
        self.plan, self.folders, self.jobs, self.forced = plan, folders, jobs, forced
        self.parameters = parameters  # effective ones of the selected steps; its keys are the selection
        self.manifest = self._resumed()
        self.entries = self.manifest["steps"]
        self.running: list[Running] = []
        self.last_start = 0.0

    def _resumed(self) -> dict:
        """Return a new manifest that remembers what the last one knew about the plan's steps."""
        old = read_manifest(self.folders.out)
        blank = {"status": "not run", "key": None, "outputs": {}}
        steps = {}
        for step in self.plan.steps:
            entry = {**blank, **old.get("steps", {}).get(step.id, {})}
            if entry["status"] == "running":  # the last runner was killed
                entry.update(status="interrupted", reason="the run was stopped")
            chosen = {**step.parameters, **step.written}
            entry.update(notebook=step.notebook, chosen=chosen, provides=list(step.provides))
            steps[step.id] = entry
        return {
            "format": 1,
            "profile": self.plan.profile,
            "started": _now(),
            "finished": None,
            "exit_code": None,
            "jobs": self.jobs,
            "threads": self.plan.threads,
            "versions": versions(),
            "gpus": gpu_names(),
            "git": git_state(),
            "steps": steps,
        }

    def run(self) -> int:
        """Run to the end and return the exit code."""
        waiting = [step for step in self.plan.steps if step.id in self.parameters]
        finished: set[str] = set()  # in this call, whatever came out
        try:
            self._save()
            while waiting or self.running:
                ready = next((step for step in waiting if finished.issuperset(step.needs)), None)
                started_just_now = time.monotonic() - self.last_start < STAGGER_S
                if ready and len(self.running) < self.jobs and not started_just_now:
                    waiting.remove(ready)
                    self._begin(ready, finished)
                    continue
                for running in list(self.running):
                    self._watch(running, finished)
                time.sleep(POLL_S)
        except BaseException:
            self._stop()
            raise
        states = [self.entries[step_id]["status"] for step_id in self.parameters]
        self.manifest["outside_tolerance"] = outside_tolerance(self.folders.out)
        good = set(states) <= {"done", MISSING}
        code = FAILED if not good else OUTSIDE if self.manifest["outside_tolerance"] else OK
        self.manifest.update(finished=_now(), exit_code=code)
        self._save()
        return code

    def _begin(self, step: Step, finished: set[str]) -> None:
        """Start a step whose needs are settled, or settle it: without data, blocked, or up to date."""
        entry = self.entries[step.id]
        if step.missing:  # its key stays, too: with the data back it may be up to date
            entry.update(status=MISSING, reason=f"not run: needs {', '.join(step.missing)}")
            logger.info("  %s: %s", step.id, entry["reason"])
        elif broken := [need for need in step.needs if self.entries[need]["status"] not in ("done", MISSING)]:
            entry.update(status="blocked", reason=f"needs {', '.join(broken)}")  # its key stays: it may yet be good
            logger.info("  %s: blocked, %s", step.id, entry["reason"])
        else:
            parts, reason = staleness(self.plan, step, self.parameters[step.id], self.entries, self.folders)
            reason = reason or ("forced" if step.id in self.forced else "")
            if reason:
                entry.update(key=None, parts=parts, outputs={}, status="running", reason="", started=_now())
                entry.update(parameters={**self.parameters[step.id], **step.written})
                self._save()
                logger.info("  %s: started (%s; about %g min)", step.id, reason, step.minutes)
                self._launch(step, attempt=1)
                return
            entry.update(status="done", reason="")
            logger.info("  %s: up to date", step.id)
        finished.add(step.id)
        self._save()

    def _launch(self, step: Step, attempt: int) -> None:
        self.last_start = time.monotonic()
        self.running.append(execute.start(self.plan, step, self.folders, attempt))

    def _watch(self, running: Running, finished: set[str]) -> None:
        outcome = execute.poll(running, self.folders)
        if outcome is None:
            return
        self.running.remove(running)
        step = running.step
        if outcome.retry:
            logger.info("  %s: %s, trying once more", step.id, outcome.reason)
            self._launch(step, attempt=2)
            return
        self._record(step, outcome)
        finished.add(step.id)

    def _record(self, step: Step, outcome: Outcome) -> None:
        entry = self.entries[step.id]
        reason = outcome.reason.replace(str(repo_root()), ".").replace(str(Path.home()), "~")
        entry.update(
            status="done" if outcome.ok else "failed",
            reason=reason,
            key=stepkey.digest(entry["parts"]) if outcome.ok else None,
            outputs=outcome.outputs,
            seconds=round(outcome.seconds, 1),
            peak_memory_mb=outcome.peak_memory_mb and round(outcome.peak_memory_mb),
        )
        if outcome.ok:
            entry["executed_sha256"] = sha256_file(self.folders.executed(step.id))
        self._save()
        logger.info("  %s: %s in %.1f s%s", step.id, entry["status"], outcome.seconds, f": {reason}" if reason else "")
        if not outcome.ok:
            logger.info("    log: %s", os.path.relpath(self.folders.log(step.id)))

    def _stop(self) -> None:
        """Kill what runs, so that nothing writes after this process has gone."""
        for running in self.running:
            execute.kill(running)
            self.entries[running.step.id].update(status="interrupted", reason="the run was stopped")
        self.manifest["finished"] = _now()
        self._save()

    def _save(self) -> None:
        atomic_write(self.folders.out / "manifest.json", json.dumps(self.manifest, indent=1) + "\n")


def staleness(plan: Plan, step: Step, parameters: dict, entries: dict, folders: Folders) -> tuple[dict, str]:
    """Return a step's key parts and why it must run, "" where it is up to date.

    What a needed step has left in an earlier run, when there was data for it, is no input.
    """
    settled = [entries[need] for need in step.needs if not plan.step(need).missing]
    inputs = {name: value for entry in settled for name, value in entry["outputs"].items()}
    parts = stepkey.key_parts(plan, step, parameters, inputs)
    entry = entries[step.id]
    if not entry["key"]:
        return parts, "never finished"
    if entry["key"] != stepkey.digest(parts):
        return parts, "changed: " + stepkey.what_changed(entry.get("parts"), parts)
    if not execute.outputs_intact(entry["outputs"], folders) or not folders.executed(step.id).is_file():
        return parts, "an output is missing or was altered"
    return parts, ""


def read_manifest(out: Path) -> dict:
    """Return the manifest of the last run in a report folder; empty where there is none to go by."""
    path = out / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PlanError(f"{path} is damaged ({error}); remove it to run everything again") from error
    return manifest if manifest.get("format") == 1 else {}


def outside_tolerance(out: Path) -> list[str]:
    """Return the names of the tables whose sidecar says that a number comparable with the paper's is off."""
    found = []
    for path in sorted((out / "tables").glob("[!.]*.json")):
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(sidecar, dict) and sidecar.get("comparable") is True and sidecar.get("outside_tolerance") is True:
            found.append(path.stem)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
