"""The plan of `make reproduce` (notebooks/reproduce.yaml) and its validation, before anything starts.

A step is one notebook with one set of parameters; several steps may share a notebook, and one entry with a `matrix`
stands for several steps. Parameters may hold `${name}`, which `fill` takes from data.yaml.
"""

import ast
import fnmatch
import graphlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mede_core.reproduce import PlanError
from mede_core.reproduce.matrix import expand, expand_published, resolve_needs
from mede_core.reproduce.sources import check_names, placeholders

COMMON_PARAMETERS = ("profile", "out_dir", "runs_dir")  # given to every notebook by the runner
_STEP_FIELDS = {
    "id",
    "notebook",
    "needs",
    "provides",
    "minutes",
    "timeout_minutes",
    "parameters",
    "ignore_sources",
    "profiles",
}
DATA_TIMEOUT_MINUTES = 60.0 * 24 * 30  # default where data.yaml is read: how fast its device is, the plan cannot know


@dataclass(frozen=True)
class Step:
    """One notebook with one set of parameters, as one profile runs it."""

    id: str
    notebook: str  # file name, relative to the plan's folder
    needs: tuple[str, ...]  # ids of the steps that go before
    provides: tuple[str, ...]  # relative to reports/<profile>/; "runs:x" relative to runs/<profile>/, may be a glob
    parameters: dict  # without the three of COMMON_PARAMETERS
    minutes: float  # estimate on 2 CPU cores
    timeout_minutes: float  # wall-clock guard
    ignore_sources: tuple[str, ...]  # modules of mede_core that do not count for the key
    # From data.yaml, by `fill`:
    missing: tuple[str, ...] = ()  # placeholders it has nothing for: the step is not run
    data: dict[str, str] = field(default_factory=dict)  # {placeholder: hash of the files it stands for}
    written: dict = field(default_factory=dict)  # parameters that name such files, as the plan has them: no paths


@dataclass(frozen=True)
class Plan:
    """The steps of one profile in the plan's order."""

    folder: Path  # where the notebooks are
    profile: str
    jobs: int
    threads: int
    steps: tuple[Step, ...]
    publish: tuple[str, ...]  # report figures of these steps that `make figures` copies to the committed figures/
    data: bool = False  # whether data.yaml is read

    def step(self, step_id: str) -> Step:
        return next(step for step in self.steps if step.id == step_id)

    def with_needs(self, ids) -> set[str]:
        """Return the given step ids and all that they need, directly or not."""
        found, todo = set(), list(ids)
        while todo:
            step_id = todo.pop()
            if step_id not in found:
                found.add(step_id)
                todo.extend(self.step(step_id).needs)
        return found

    def select(self, pattern: str | None) -> set[str]:
        """Return the ids of the steps whose id or notebook name matches a glob; all of them without one."""
        if not pattern:
            return {step.id for step in self.steps}
        chosen = {
            step.id
            for step in self.steps
            if any(fnmatch.fnmatch(name, pattern) for name in (step.id, step.notebook, Path(step.notebook).stem))
        }
        if not chosen:
            raise PlanError(f"only={pattern!r} matches no step; steps: {', '.join(s.id for s in self.steps)}")
        return chosen


def load_plan(path, profile: str) -> Plan:
    """Read a plan file for one profile and check it whole.

    Args:
        path: the YAML file; its folder holds the notebooks.
        profile: one of the plan's profiles.

    Raises:
        PlanError: naming the step, the field and the value that are wrong.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise PlanError(f"no plan file {path}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PlanError(f"{path.name} is no valid YAML: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("profiles"), dict) or not isinstance(raw.get("steps"), list):
        raise PlanError(f"{path.name}: expected the keys profiles (a mapping) and steps (a list)")
    _only_known("the plan", raw, {"profiles", "steps", "publish"})
    profiles = raw["profiles"]
    if profile not in profiles:
        raise PlanError(f"profile={profile!r}: expected one of {', '.join(profiles)}")
    settings = profiles[profile] or {}
    _only_known(f"profile {profile}", settings, {"jobs", "threads", "data"})
    if not isinstance(data := settings.get("data", False), bool):
        raise PlanError(f"profile {profile}: data={data!r}: expected true or false")
    entries, templates = expand(raw["steps"])
    parsed = [_parse_step(entry, profile, profiles, data) for entry in entries]
    steps = [step for step in parsed if step is not None]
    ids = [step.id for step in steps]
    steps = tuple(replace(step, needs=resolve_needs(step.needs, step.id, ids)) for step in steps)
    published = expand_published(raw.get("publish") or (), templates)
    anywhere = {name for entry in entries for name in entry.get("provides") or ()}  # in any profile
    for name in published:
        if name not in anywhere:
            raise PlanError(f"publish={name!r}: no step provides it")
    here = {name for step in steps for name in step.provides}
    plan = Plan(
        folder=path.resolve().parent,
        profile=profile,
        jobs=_positive(f"profile {profile}", "jobs", settings.get("jobs", 1)),
        threads=_positive(f"profile {profile}", "threads", settings.get("threads", 1)),
        steps=steps,
        publish=tuple(name for name in published if name in here),
        data=data,
    )
    _check_plan(plan)
    return plan


def _parse_step(entry, profile: str, profiles, data: bool) -> Step | None:
    if not isinstance(entry, dict) or not re.fullmatch(r"[A-Za-z0-9_]+", str(entry.get("id", ""))):
        raise PlanError(f"step {entry!r}: expected a mapping with an id of letters, digits and underscores")
    where = f"step {entry['id']}"
    _only_known(where, entry, _STEP_FIELDS)
    only_in = entry.get("profiles") or list(profiles)
    _only_known(f"{where}: profiles", dict.fromkeys(only_in), set(profiles))
    if profile not in only_in:
        return None
    if not re.fullmatch(r"[\w.-]+\.ipynb", str(entry.get("notebook", ""))):
        raise PlanError(f"{where}: notebook={entry.get('notebook')!r}: expected an .ipynb file beside the plan")
    sets = entry.get("parameters") or {}
    _only_known(f"{where}: parameters", sets, {"common", *profiles})
    parameters = {**(sets.get("common") or {}), **(sets.get(profile) or {})}
    if reserved := set(COMMON_PARAMETERS) & set(parameters):
        raise PlanError(f"{where}: the runner itself passes {', '.join(sorted(reserved))}")
    minutes = entry.get("minutes", 1)
    minutes = _positive(where, "minutes", minutes.get(profile, 1) if isinstance(minutes, dict) else minutes, float)
    usual = DATA_TIMEOUT_MINUTES if data else max(15, 10 * minutes)
    limit = _positive(where, "timeout_minutes", entry.get("timeout_minutes", usual), float)
    check_names(where, parameters)
    if not data and (names := placeholders(parameters)):
        raise PlanError(f"{where}: ${{{names[0]}}} comes from data.yaml; profile {profile} reads none (no data: true)")
    for name in entry.get("provides") or ():
        inner = PurePosixPath(name.removeprefix("runs:"))
        if inner.is_absolute() or ".." in inner.parts or not inner.parts:
            raise PlanError(f"{where}: provides={name!r}: expected a path inside the report or runs: folder")
    return Step(
        id=entry["id"],
        notebook=entry["notebook"],
        needs=tuple(entry.get("needs") or ()),
        provides=tuple(entry.get("provides") or ()),
        parameters=parameters,
        minutes=minutes,
        timeout_minutes=limit,
        ignore_sources=tuple(entry.get("ignore_sources") or ()),
    )


def _only_known(where: str, mapping, known) -> None:
    if not isinstance(mapping, dict):
        raise PlanError(f"{where}: expected a mapping, not {mapping!r}")
    if unknown := set(mapping) - set(known):
        raise PlanError(f"{where}: unknown {', '.join(map(str, sorted(unknown)))}; known: {', '.join(sorted(known))}")


def _positive(where: str, name: str, value, kind=int):
    numeric = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not numeric or value <= 0:
        raise PlanError(f"{where}: {name}={value!r}: expected a number > 0")
    return kind(value)


def _check_plan(plan: Plan) -> None:
    ids = [step.id for step in plan.steps]
    if twice := {step_id for step_id in ids if ids.count(step_id) > 1}:
        raise PlanError(f"step ids used twice: {', '.join(sorted(twice))}")
    owner: dict[str, str] = {}
    for step in plan.steps:
        for need in step.needs:
            if need not in ids:
                raise PlanError(f"step {step.id}: needs={need!r}: no such step in profile {plan.profile}")
        for name in step.provides:
            if name in owner:
                raise PlanError(f"{name} is provided by both {owner[name]} and {step.id}")
            owner[name] = step.id
        if not (plan.folder / step.notebook).is_file():
            raise PlanError(f"step {step.id}: notebook={step.notebook!r}: no such file")
    try:
        graphlib.TopologicalSorter({step.id: step.needs for step in plan.steps}).prepare()
    except graphlib.CycleError as error:
        raise PlanError(f"steps need each other in a circle: {' -> '.join(error.args[1])}") from error


def read_notebook(path) -> dict:
    """Return a notebook's JSON.

    Raises:
        PlanError: if it is no notebook of format 4.
    """
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PlanError(f"{Path(path).name} is no valid notebook: {error}") from error
    if notebook.get("nbformat") != 4:
        raise PlanError(f"{Path(path).name}: nbformat={notebook.get('nbformat')!r}: expected 4")
    return notebook


def source_of(cell: dict) -> str:
    """Return a cell's text (stored as one string or a list of lines)."""
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    """Return a notebook's code cells in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def notebook_parameters(path) -> dict[str, object]:
    """Return the names in a notebook's parameters cell with their defaults, as papermill sees them.

    Raises:
        PlanError: unless there is exactly one cell tagged `parameters` and papermill sees every assignment
            in it (it overlooks `x: int | None = 1`, and any line with a second "=", also in a string or
            comment).
    """
    name = Path(path).name
    tagged = [c for c in read_notebook(path)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1 or tagged[0]["cell_type"] != "code":
        raise PlanError(f"{name}: {len(tagged)} cells tagged parameters: expected exactly one, a code cell")
    import papermill  # slow to import; the runner alone needs it

    defaults = {}
    for statement in ast.parse(source_of(tagged[0])).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise PlanError(f"{name}: parameters cell, line {statement.lineno}: expected `name = literal`")
        try:
            defaults[targets[0].id] = ast.literal_eval(statement.value)
        except ValueError:
            raise PlanError(f"{name}: parameter {targets[0].id}: expected a literal as default") from None
    if hidden := set(defaults) - set(papermill.inspect_notebook(str(path))):
        raise PlanError(f"{name}: papermill does not see the parameter {', '.join(sorted(hidden))} "
                        "(no second '=' on the line, no '|' in an annotation)")  # fmt: skip
    return defaults


def check_parameters(plan: Plan, ids) -> dict[str, dict]:
    """Check the parameters of steps against their notebooks' parameter cells.

    Returns:
        {step id: effective parameters, notebook defaults included, without the paths the runner passes}.

    Raises:
        PlanError: naming the parameter that a notebook does not have, or the common one that it lacks.
    """
    effective, seen = {}, {}
    for step in (step for step in plan.steps if step.id in ids):
        if step.notebook not in seen:
            seen[step.notebook] = notebook_parameters(plan.folder / step.notebook)
        defaults = seen[step.notebook]
        if unknown := set(step.parameters) - set(defaults):
            raise PlanError(f"step {step.id}: {step.notebook} has no parameter {', '.join(sorted(unknown))}; "
                            f"it has {', '.join(defaults)}")  # fmt: skip
        if missing := set(COMMON_PARAMETERS) - set(defaults):
            raise PlanError(f"step {step.id}: {step.notebook} lacks the parameter {', '.join(sorted(missing))}")
        chosen = {**defaults, **step.parameters, "profile": plan.profile}
        effective[step.id] = {name: chosen[name] for name in chosen if name not in ("out_dir", "runs_dir")}
    return effective
