"""What a run on real videos will cost: clips and steps counted, hours from timing a few steps, disk from their answer.

The timing is a command of its own (`python -m mede_core.report.costs`), since nothing here imports torch; its
answers are kept in reports/<profile>/timing.json.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mede_core.config import METHODS, Config, load_config
from mede_core.files import atomic_write
from mede_core.notebook import overrides
from mede_core.reproduce import PlanError, execute
from mede_core.reproduce.plan import Plan, Step
from mede_core.reproduce.sources import DATASETS, Sources, placeholders

logger = logging.getLogger(__name__)

COST_COMMAND = (sys.executable, "-m", "mede_core.report.costs")
TIMED_STEPS = 20
TIMEOUT_S = 3600.0  # of one timing
_ANSWERS = ("seconds_per_step", "clips_per_second_eval", "peak_bytes", "trainable_bytes")
_COST_FIELDS = (  # of Config: what the time of a step depends on
    "model", "num_frames", "batch_size", "micro_batch", "precision", "trainable", "temporal_module", "adapter_width",
    "adapter_form", "first_order",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What one step of the plan computes.

    Attributes:
        step_id: the step.
        config: what it trains or evaluates.
        steps: optimizer steps; 0 for an evaluation.
        clips: clips read, views counted one by one.
        shares: the earlier step that trains the same run; "" where there is none.
    """

    step_id: str
    config: Config
    steps: int
    clips: int
    shares: str = ""

    @property
    def trains(self) -> bool:
        return self.steps > 0


def plan_work(plan: Plan, sources: Sources, parameters: dict[str, dict], ids) -> list[Work]:
    """Count what the steps that use real videos will do.

    A step that provides files under `runs:` trains on the list in its parameter `data`. Another one evaluates the list
    in `test_data` (rows of `test_split` and `test_half`, where it has such parameters) and the SCUBA lists it names;
    where it names neither, the list in `data`.

    Args:
        plan: the plan, filled.
        sources: data.yaml.
        parameters: {step id: effective parameters} of the chosen steps.
        ids: the steps to count; those without data or real videos are left out.

    Raises:
        PlanError: parameters that are no valid configuration, or a list without the videos a step asks for.
    """
    found: list[Work] = []
    trained: dict[str, str] = {}  # {training hash: step}
    problems: list[str] = []
    for step in plan.steps:
        if step.id in ids and any(name in DATASETS or name.startswith("scuba.") for name in step.data):
            try:
                found.append(_work(step, sources, parameters[step.id], step_config(plan, parameters[step.id]), trained))
            except ValueError as error:
                problems.append(f"step {step.id}: {error}")
    if problems:
        raise PlanError("\n  ".join([f"{len(problems)} steps cannot do what the plan and data.yaml say", *problems]))
    return found


def step_config(plan: Plan, parameters: dict) -> Config:
    """Return the configuration that a step's effective parameters make; ValueError where they make none."""
    known = Config.model_fields.keys()
    return load_config(plan.profile, **overrides(**{k: v for k, v in parameters.items() if k in known}))


def _work(step: Step, sources: Sources, parameters: dict, config: Config, trained: dict[str, str]) -> Work:
    if not any(name.startswith("runs:") for name in step.provides) or METHODS[config.method].trainer == "none":
        return Work(step.id, config, 0, _evaluated(step, sources, parameters, config) * config.views)
    clips = _clips(step, "data", sources, config.data_split, config.half, config.shots)
    steps = min(clips // config.batch_size, config.steps_per_epoch or clips) * config.epochs
    if not steps:
        raise ValueError(f"{clips} clips give no full batch of {config.batch_size} (batch_size)")
    first = trained.setdefault(str(config.run_settings()), step.id)
    return Work(step.id, config, steps, steps * config.batch_size, "" if first == step.id else first)


def _evaluated(step: Step, sources: Sources, parameters: dict, config: Config) -> int:
    lists = {file for name in step.data if name.startswith("scuba.") for file in sources.files(name)}
    scuba = sum(listed(file) for file in lists)
    if "test_data" in step.written:
        splits = str(parameters.get("test_split") or "all").replace(",", " ").split()
        halves = str(parameters.get("test_half") or "all").split()
        clips = (_clips(step, "test_data", sources, split, half, 0) for split in splits for half in halves)
        return scuba + sum(clips)
    if scuba or "data" not in step.written:
        return scuba
    return _clips(step, "data", sources, config.data_split, "all", 0)


def _clips(step: Step, parameter: str, sources: Sources, split: str, half: str, shots: int) -> int:
    """Return how many clips of a step's list are chosen; none is an error, for the step could only fail."""
    names = [name for name in placeholders(step.written.get(parameter, "")) if name in DATASETS]
    for name in names:
        facts = sources.facts[name]
        if half != "all" and not facts.sidecar.get(half):
            raise ValueError(f"half={half!r}: the list of {name} has no halves (its sidecar names none)")
        if not facts.clips(split, half):
            raise ValueError(f"split={split!r}, half={half!r}: no such videos in the list of {name}; "
                             f"its splits: {', '.join(facts.splits) or 'none, only all'}")  # fmt: skip
    return sum(sources.facts[name].clips(split, half, shots) for name in names)


class Timings:
    """Measured seconds a step and clips a second, one answer for each kind of step on each device.

    Args:
        path: the file that keeps them; a damaged one is measured anew.
        device: where the steps run.
        command: what measures: called with `--config FILE.json --steps N --device DEVICE`, it prints one JSON line.
        environment: of the command.
    """

    def __init__(self, path: Path, device: str, command: Sequence[str] = COST_COMMAND, environment: dict | None = None):
        self.path, self.device, self.command, self.environment = path, device, tuple(command), environment
        self.known: dict[str, dict] = {}
        if path.is_file():
            try:
                self.known = dict(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                logger.warning("%s is damaged (%s): timing again", path.name, error)

    def key(self, config: Config) -> str:
        """Return what the time depends on, readable: model, batch, frames, device, trained part, kind of step."""
        values = {name: value for name, value in config if name in _COST_FIELDS}
        kind = {name: config.run_settings()[name] for name in ("trainer", "objective")}
        return json.dumps({**values, **kind, "device": self.device}, sort_keys=True)

    def get(self, work: Work) -> dict | None:
        """Return the answer for a work's kind of step, or None where it was not measured long enough."""
        answer = self.known.get(self.key(work.config))
        return answer if answer and answer["steps"] >= self.wanted(work) else None

    def wanted(self, work: Work) -> int:
        """Return how many steps to time: no more than are planned."""
        return max(1, min(TIMED_STEPS, work.steps or work.clips // work.config.batch_size))

    def measure(self, work: Work) -> str:
        """Time a work's kind of step and keep the answer.

        Returns:
            why there is no answer, or "".
        """
        steps = self.wanted(work)
        file = atomic_write(self.path.parent / ".work" / "timing.json", json.dumps(work.config.model_dump()))
        command = [*self.command, "--config", str(file), "--steps", str(steps), "--device", self.device]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, env=self.environment,
                stdin=subprocess.DEVNULL, preexec_fn=execute.die_with_parent() if sys.platform == "linux" else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it took longer than {TIMEOUT_S / 3600:g} h"
        except OSError as error:
            return f"{command[0]} cannot be started: {error}"
        if done.returncode:
            return f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1][:300]}"
        try:
            answer = _answer(done.stdout, work.trains)
        except (ValueError, KeyError, TypeError) as error:
            return f"its answer {done.stdout.strip()[-200:]!r} is not understood: {error}"
        measured = datetime.now(UTC).isoformat(timespec="minutes")
        self.known[self.key(work.config)] = {**answer, "steps": steps, "measured": measured}
        atomic_write(self.path, json.dumps(self.known, indent=1) + "\n")
        return ""


def _answer(text: str, trains: bool) -> dict[str, float]:
    """Return the numbers of a timing's last line."""
    given = json.loads((text.strip().splitlines() or [""])[-1])
    answer = {name: float(given[name] or 0) for name in _ANSWERS if name in given}
    for name in ["clips_per_second_eval", *(["seconds_per_step"] if trains else [])]:
        if not answer[name] > 0:
            raise ValueError(f"{name} is {given[name]!r}; expected a number above 0")
    return answer


def seconds(work: Work, answer: dict, processes: int = 1) -> float:
    """Return how long a work takes on so many processes that share it evenly, without what they lose to each other."""
    alone = work.steps * answer["seconds_per_step"] if work.trains else work.clips / answer["clips_per_second_eval"]
    return 0.0 if work.shares else alone / processes


def disk_bytes(work: Work, answer: dict) -> float:
    """Return the size of a training's trajectory: the trainable tensors once an epoch (ViT-B whole: about 0.35 GB)."""
    return answer.get("trainable_bytes", 0.0) * work.config.epochs if work.trains and not work.shares else 0.0


def listed(path: Path) -> int:
    """Return how many clips a SCUBA list names."""
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
