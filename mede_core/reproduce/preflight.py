"""What a run on real videos finds, lacks and will cost, said before it starts."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mede_core.provenance import gpu_names
from mede_core.report.summary import duration
from mede_core.reproduce import estimate
from mede_core.reproduce.estimate import Timings, Work
from mede_core.reproduce.fill import unused
from mede_core.reproduce.plan import Plan
from mede_core.reproduce.sources import DATASETS, SCUBA_SETS, Sources

logger = logging.getLogger(__name__)

# In a process of its own, for it imports torch.
FIND_WEIGHTS = "import sys\n" "from mede_core.batch.doctor import cached_weights\nprint(cached_weights(*sys.argv[1:]) or '')"


def find_weights(sources: Sources) -> str:
    """Say whether the weights that data.yaml names are on this machine."""
    if sources.random_weights:
        return "RANDOM WEIGHTS: the numbers will mean nothing"
    if sources.weights_path:
        return f"a file of this machine, sha256 {sources.content_hash('weights')[:12]}"
    if sources.model == "mede-small":
        return "shipped with the package"
    command = [sys.executable, "-c", FIND_WEIGHTS, sources.model, sources.weights]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        return f"not looked for: {(answer.stderr.strip().splitlines() or ['no message'])[-1]}"
    lines = answer.stdout.split()
    return "found in the cache" if lines else "NOT on this machine: download the tag once, or name a file"


def what_is_there(sources: Sources, weights: str, gpus: Sequence[str]) -> list[str]:
    """Describe weights, device and each list of videos: rows of each split, classes, what is not comparable.

    Args:
        sources: data.yaml.
        weights: from `find_weights`.
        gpus: from `mede_core.provenance.gpu_names`.
    """
    device = f"device {sources.device}, {sources.processes} process{'es' * (sources.processes > 1)}"
    if sources.device.startswith("cuda"):
        device += f"; GPUs: {', '.join(gpus)}" if gpus else "; nvidia-smi shows NO GPU here"
        if gpus and sources.processes > len(gpus):
            device += f"; MORE processes than GPUs ({len(gpus)})"
    named = "" if sources.random_weights else f"weights {Path(sources.weights).name}: "
    lines = [f"model {sources.model}, {named}{weights}", device]
    if sources.settings:
        lines.append("settings: " + ", ".join(f"{name}={value!r}" for name, value in sources.settings.items()))
    for name in DATASETS:
        if name not in sources.facts:
            lines.append(f"{name:<12} missing")
            continue
        facts = sources.facts[name]
        splits = ", ".join(f"{split} {rows:,}" for split, rows in facts.splits.items())
        line = f"{name:<12} {facts.rows:,} videos ({splits or 'no splits'}), {facts.classes} classes"
        if facts.absent:
            line += f"; {facts.absent} of {facts.sampled} sampled videos are NOT there"
        if problems := facts.sidecar.get("problems"):
            line += f"; {len(problems)} problems when it was prepared, such as {problems[0]}"
        if facts.sidecar.get("comparable") is False:
            line += "; base and novel classes are not the published ones"
        lines.append(line)
    for which in SCUBA_SETS:
        for background, one in sources.scuba.get(which, {}).items():
            lines.append(f"scuba.{which}.{background}: {estimate.listed(one['list']):,} clips")
    return lines


def report(plan: Plan, sources: Sources, ids, weights: str | None = None) -> None:
    """Log what is there and what is missing for the chosen steps."""
    logger.info("%s", sources.path.name)
    for line in what_is_there(sources, find_weights(sources) if weights is None else weights, gpu_names()):
        logger.info("  %s", line)
    for line in unused(plan, sources, ids):
        logger.info("  not used: %s", line)
    if missing := [step for step in plan.steps if step.id in ids and step.missing]:
        logger.info("not run, for data.yaml has no")
        for step in missing:
            logger.info("  %-28s %s", step.id, ", ".join(step.missing))


def report_cost(works: Sequence[Work], timings: Timings, sources: Sources, folder: Path, measure: bool) -> None:
    """Log what the steps to run will cost, after timing what was not timed yet.

    Args:
        works: from `estimate.plan_work`.
        timings: the measurements.
        sources: data.yaml, for the number of processes.
        folder: where the trajectories go; need not exist.
        measure: False only looks up what was measured before, as a dry run does.
    """
    if not works:
        return
    if measure:
        _measure(works, timings)
    processes, total, disk, unknown = sources.processes, 0.0, 0.0, 0
    shared = f", shared evenly by {processes} processes" if processes > 1 else ""
    logger.info("cost, on %s%s; reading the videos comes on top", timings.device, shared)
    for work in works:
        answer = timings.get(work)
        what = f"{work.steps:,} steps of {work.config.batch_size} clips" if work.trains else "no training"
        what += f", {work.clips:,} clips read" if work.trains else f", {work.clips:,} clips evaluated, views counted"
        if work.shares:
            what, cost = f"the run of {work.shares}", "no cost of its own"
        elif answer is None:
            unknown, cost = unknown + 1, "not timed"
        else:
            needs, size = estimate.seconds(work, answer, processes), estimate.disk_bytes(work, answer)
            total, disk = total + needs, disk + size
            peak = answer.get("peak_bytes", 0)
            cost = f"about {duration(needs)}" + (f", {_bytes(peak)} of memory" if peak else "")
            if size:
                cost += f", {work.config.epochs} epochs of {_bytes(size / work.config.epochs)} on disk"
        logger.info("  %-28s %s: %s", work.step_id, what, cost)
    if unknown == sum(not work.shares for work in works):
        return
    rest = f" without the {unknown} not timed" if unknown else ""
    logger.info("  in all about %s%s; the trajectories take %s on disk", duration(total), rest, _bytes(disk))
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if disk > free:
        logger.warning("  only %s are FREE there", _bytes(free))


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e8 else f"{count / 1e6:.2g} MB"


def _measure(works: Sequence[Work], timings: Timings) -> None:
    """Time each kind of step once; a failure is said, and the steps are left to say it themselves."""
    failed: set[str] = set()
    for work in sorted(works, key=timings.wanted, reverse=True):
        key = timings.key(work.config)
        if work.shares or timings.get(work) or key in failed:
            continue
        config = work.config
        logger.info("timing %d steps of %s (%s, %d clips of %d frames, %s)", timings.wanted(work), config.method,
                    config.model, config.batch_size, config.num_frames, timings.device)  # fmt: skip
        if reason := timings.measure(work):
            failed.add(key)
            logger.warning("  no estimate: %s", reason)
