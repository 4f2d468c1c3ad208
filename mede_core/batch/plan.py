"""The plan of `make reproduce`: a profile's notebooks, by the Snakefile's head, and what they ask for. Torch-free."""

import ast
import fnmatch
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path

import mede_core

from ..config import Average, Config, EvalSet, load_config
from ..files import ASSETS, PACKAGE, available_cpus, repo_root, sha256_file
from ..names import digest, import_closure, read_sources
from ..runs import trains
from ..study import units
from ..study.store import is_missing
from ..workspace import NotMadeError, Workspace
from . import PlanError, asks
from .data_yaml import DataYaml, read_data_yaml

RULES = "# ---- rules"  # where the Snakefile's head of plain Python ends
VERSIONS = ("torch", "numpy", "open_clip_torch", "matplotlib")  # whose change runs every notebook again


@dataclass(frozen=True)
class Job:
    id: str
    notebook: str  # its file's name without suffix
    parameters: dict = field(default_factory=dict)  # without the folders, which the runner passes
    needs: tuple[str, ...] = ()  # entries of data.yaml: a job that one is missing for is listed and not run

    @property
    def asks(self) -> str:
        """The name of its function in the module `asks`."""
        return self.notebook.partition("_")[2]


@dataclass(frozen=True)
class Settings:
    jobs: int = 2  # at a time
    threads: int = 1  # of each
    data: bool = False  # reads data.yaml
    minutes: float = 60.0  # a job that runs longer is ended
    mem_mb: int = 3000
    publish: dict = field(default_factory=dict)  # {job: its figures that `make figures` copies to figures/}


@dataclass
class Plan:
    folder: Path  # of the notebooks
    profile: str
    settings: Settings
    workspace: Workspace  # makes nothing
    data: DataYaml | None
    data_path: str
    jobs: dict[str, Job]  # of the profile, those without data too
    chosen: list[str]  # those that this call runs
    at_once: int  # jobs that share this machine's CPUs

    @property
    def threads(self) -> int:
        # Never more than CPUs: four threads on two cores made a forward pass of ViT-B/16 36 times slower, and two
        # trainings of two threads each on two cores took four times as long as one alone
        return min(self.settings.threads, max(1, available_cpus() // self.at_once))

    @property
    def workers(self) -> int:
        return max(1, self.threads - 1)  # of data loaders: what the device leaves

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        lacking = {name: self.data.lacks(*self.jobs[name].needs) for name in self.chosen} if self.data else {}
        return {name: names for name, names in lacking.items() if names}

    @property
    def runnable(self) -> list[Job]:
        return [self.jobs[name] for name in self.chosen if name not in self.missing]

    @cached_property
    def asked(self) -> dict[str, list[asks.Ask]]:
        """{job: its questions}, with the notebooks' own defaults."""
        found = {}
        for job in self.runnable:
            given = {**job.parameters, "profile": self.profile, **({"data": self.data_path} if self.data else {})}
            try:
                found[job.id] = asked_by(self.file(job.id), **given)
            except ValueError as error:
                raise PlanError(f"job {job.id}: {error}") from error
        return found

    # -------------------------------------------------------------------------------- trainings and scorings
    @cached_property
    def trainings(self) -> dict[str, Config]:
        """{stamp: what is trained}; the stamp is the run's name."""
        configs = [ask.config for asked in self.asked.values() for ask in asked]
        configs += [unit.config for unit in self.units.values()]
        return {self.run_stamp(config): config for config in configs if trains(config)}

    @cached_property
    def scorings(self) -> dict[str, list[asks.Ask]]:
        """{stamp: all questions about one run that ask for numbers}; named by the run and the code of testing."""
        found: dict[str, list[asks.Ask]] = {}
        for ask in dict.fromkeys(ask for asked in self.asked.values() for ask in asked if ask.sets):
            found.setdefault(self.score_stamp(ask.config), []).append(ask)
        return found

    @cached_property
    def units(self) -> dict[str, units.Unit]:
        """{stamp: a unit of the study}, of the sections that the notebooks of the profile `full` read."""
        if self.profile != "full":
            return {}
        sections = dict.fromkeys(name for job in self.runnable for name in asks.SECTIONS.get(job.asks, ()))
        found = (unit for section in sections for unit in units.units_of(section))
        return {f"{one.section}-{digest([one.variant, one.config.model_dump()])[:10]}": one for one in found}

    def run_stamp(self, config: Config) -> str:
        """The run's name; where its CLIP may not be pretrained yet, one without the CLIP's hash."""
        if config.weights in units.PRETRAINED:
            return f"{Path(config.weights).name}-{digest(config.run_settings())[:10]}"
        return self.workspace.run_name(config)

    def score_stamp(self, config: Config) -> str:
        """Beside the run's name that of one test, which changes with the code of testing."""
        return f"{self.run_stamp(config)}-{self.workspace.score_keys(config, [EvalSet()], Average())[0][:8]}"

    @cached_property
    def work(self) -> dict[str, dict]:
        """{kind of job: {name: what it is}}."""
        return {"train": self.trainings, "score": self.scorings, "unit": self.units, "notebook": self.jobs}

    def needs(self, name: str) -> list[str]:
        """The stamps that have to be there before a job: of the trainings, and a notebook's scorings and units."""
        if name in self.trainings:
            return []
        asked = self.asked[name] if name in self.jobs else self.scorings.get(name) or [self.units[name]]
        found = {f"train/{self.run_stamp(one.config)}" for one in asked if trains(one.config)}
        if name in self.jobs:
            sections = asks.SECTIONS.get(self.jobs[name].asks, ())
            found |= {f"score/{self.score_stamp(ask.config)}" for ask in asked if ask.sets}
            found |= {f"unit/{stamp}" for stamp, one in self.units.items() if one.section in sections}
        return sorted(found)

    def is_there(self, kind: str, name: str) -> bool:
        """Whether the workspace has a run, or scores and the run they are of; or the study a unit's line."""
        if kind == "unit":
            return not is_missing(self.units[name], retrain=self.workspace.older == "retrain")
        try:
            asked = self.scorings[name] if kind == "score" else [asks.Ask(self.trainings[name])]
            if trains(asked[0].config):  # the others are of the same run
                self.workspace.run(asked[0].config)
            for ask in asked:
                self.workspace.scores(ask.config, ask.sets, ask.average)
        except (NotMadeError, FileNotFoundError):
            return False
        return True

    def label(self, kind: str, name: str) -> str:
        if kind == "train":
            return f"train {self.words(self.trainings[name])}"
        if kind == "score":
            return f"score {', '.join(dict.fromkeys(self.words(ask.config) for ask in self.scorings[name]))}"
        if kind == "unit":
            one = self.units[name]
            return f"study {one.section}, {one.variant}, seed {one.config.seed}"
        return name

    def words(self, config: Config) -> str:
        names = () if config.data == "synthetic" else ("data", "shots", "data_split", "half")
        given = {**(self.data.fields() if self.data else {}), **{name: getattr(config, name) for name in names}}
        usual = load_config(self.profile, method=config.method, **given).run_settings()
        changed = {name: value for name, value in config.run_settings().items() if usual.get(name) != value}
        data = [Path(config.data).stem, *([f"{config.shots} shots"] if config.shots else [])] if names else []
        return " ".join([config.method, *data, *(f"{name}={value}" for name, value in changed.items())])

    # -------------------------------------------------------------------------------- notebooks
    def file(self, name: str) -> Path:
        return self.folder / f"{self.jobs[name].notebook}.ipynb"

    def defaults(self, name: str) -> dict:
        return notebook_parameters(self.file(name))

    @cached_property
    def modules(self) -> dict[str, list[str]]:
        """{notebook: the modules that it imports}: many jobs share one, and Snakemake asks for each."""
        jobs = {job.notebook: job.id for job in self.runnable}
        return {notebook: notebook_modules(self.file(name)) for notebook, name in jobs.items()}

    def files(self, name: str) -> list[Path]:
        """A notebook, the files of mede_core that it imports, and the package data that they read."""
        modules = self.modules[self.jobs[name].notebook]
        found = [self.file(name), *(PACKAGE.joinpath(*module.split(".")).with_suffix(".py") for module in modules)]
        for module, folder in (("study.store", "study"), ("report.paper", "reference")):
            found += sorted((ASSETS / folder).iterdir()) if module in modules else ()
        return found

    def content(self, name: str) -> str:
        """A hash of all that a notebook's outputs depend on, its stamps apart; no file's time counts."""
        installed = {package: metadata.version(package) for package in VERSIONS}
        files = [sha256_file(file) for file in self.files(name)]
        return digest([self.jobs[name].parameters, files, installed, self.threads])


def load_plan(profile: str, folder: str | Path = "", *, runs="", data="", older="ask", only="", at_once=0) -> Plan:
    """The plan of a folder's Snakefile (default: the repository's), checked whole before anything starts."""
    root = repo_root()
    if not folder and root is None:
        raise PlanError("no notebooks/ at or above the working directory: call it in a checkout of the repository")
    folder, head = Path(folder or root / "notebooks").absolute(), {"__name__": "plan"}
    text = (folder / "Snakefile").read_text(encoding="utf-8").partition(RULES)[0]
    exec(compile(text, str(folder / "Snakefile"), "exec"), head)
    if profile not in head["SETTINGS"]:
        raise PlanError(f"profile={profile!r}: expected one of {', '.join(head['SETTINGS'])}")
    settings = head["SETTINGS"][profile]
    if data and not settings.data:
        raise PlanError(f"data={data!r}: profile {profile} reads no data.yaml")
    path = str(Path(data or folder.parent / "data.yaml").absolute()) if settings.data else ""
    found = read_data_yaml(path) if path else None
    known = {job.id: job for job in head["notebooks"](profile, found)}
    names = {name: [name, job.notebook, f"{job.notebook}.ipynb"] for name, job in known.items()}
    wanted = only.split() or ["*"]
    chosen = [name for name, called in names.items() if any(fnmatch.filter(called, one) for one in wanted)]
    if not chosen:
        raise PlanError(f"only={only!r} matches no job; jobs: {', '.join(known)}")
    workspace = Workspace(runs or None, shipped=False, make=False, older=older)
    at_once = int(at_once or settings.jobs)
    plan = Plan(folder, profile, settings, workspace, found, path, known, chosen, at_once)
    for name in chosen:
        if unknown := sorted(set(known[name].parameters) - set(has := plan.defaults(name))):
            unknown, notebook = ", ".join(unknown), known[name].notebook
            raise PlanError(f"job {name}: {notebook} has no parameter {unknown}; it has {', '.join(has)}")
    if not plan.runnable:
        lines = [f"{name}: needs {', '.join(needs)}" for name, needs in plan.missing.items()]
        raise PlanError("\n  ".join([f"nothing can run: {path} has the data of no chosen job", *lines]))
    return plan


# ------------------------------------------------------------------------------------ reading notebooks
def code_of(path: Path) -> Iterator[tuple[list[str], str]]:
    """(tags, code) of each code cell, with IPython's magics replaced by pass."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except FileNotFoundError:
        raise PlanError(f"no notebook {path}") from None
    except (ValueError, KeyError) as error:
        raise PlanError(f"{path.name} is no valid notebook: {error}") from error
    for cell in cells:
        if cell["cell_type"] == "code":
            source = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(cell["source"]), flags=re.MULTILINE)
            yield cell["metadata"].get("tags", []), source


def notebook_parameters(path: Path) -> dict:
    tagged = [code for tags, code in code_of(path) if "parameters" in tags]
    if len(tagged) != 1:
        raise PlanError(f"{path.name}: {len(tagged)} cells tagged parameters: expected exactly one")
    try:
        return {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(tagged[0]).body}
    except (SyntaxError, AttributeError, ValueError) as error:
        raise PlanError(f"{path.name}, parameters cell: expected lines `name = literal` ({error})") from error


def asked_by(path: Path, **given) -> list[asks.Ask]:
    """What a notebook asks for with its own parameters, but those that are given."""
    ask, given = getattr(asks, path.stem.partition("_")[2], list), {**notebook_parameters(path), **given}
    return ask(**{name: given[name] for name in inspect.signature(ask).parameters if name in given})


def notebook_modules(path: Path) -> list[str]:
    """The modules of mede_core that a notebook reaches by imports. What trains and scores counts by its results."""
    code = "\n".join(code for _, code in code_of(path))
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise PlanError(f"{path.name}: {error.msg}: {error.text!r}") from error
    public = (name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "mede_core"
              for name in node.names)  # fmt: skip
    homes = "\n".join(f"import mede_core.{mede_core._HOME[name]}" for name in public if name in mede_core._HOME)
    sources = {**read_sources(), "": f"{code}\n{homes}".encode()}
    return [module for module in import_closure([""], sources, ("workspace", "__init__")) if module]
