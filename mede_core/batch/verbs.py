"""The verbs of `mede` that no room has: train and evaluate, the study, the world, what ships. Torch-free at import."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..config import METHODS, Config, EvalSet, Seed, load_config
from ..files import append_line, atomic_write, repo_root, set_threads
from ..flags import Count, Device, File, Folder, Given, Half, NewFile, Older, Profile, Runs, Workers
from ..runs import default_folder, stale_runs
from ..study.units import SECTIONS, units_of, world_sets
from ..weights import check_tokenizer, support

Seconds = Annotated[float, Field(gt=0.0, le=1e6)]


# ------------------------------------------------------------------------------------ train and evaluate
def train(
    *,
    profile: Profile = "cpu",
    config: Given = "",
    runs: Runs = "",
    device: Device = "cpu",
    num_workers: Workers = 0,
    older: Older = "ask",
    again: bool = False,
    **settings,
) -> str:
    """Train a method, or go on with its run, and print the run's folder.

    Args:
        older: where older code made this run and a new one takes long: ask, use it, or retrain
        again: train once more; the old run stays until the new one is finished
    """
    wanted = _checked(effective(profile, config, settings))
    if METHODS[wanted.method].trainer == "none":
        raise ValueError(f"method is {wanted.method!r}, which does not train; mede evaluate tests it")
    with workspace_on(device, runs, num_workers=num_workers, older=older) as workspace:
        return str(workspace.run(wanted, again=again).folder)


def evaluate(
    *,
    profile: Profile = "cpu",
    config: Given = "",
    runs: Runs = "",
    device: Device = "cpu",
    num_workers: Workers = 0,
    older: Older = "ask",
    test_data: File = "",
    test_split: str = "",
    test_half: Half = "",
    skip_bad: bool = False,
    out: NewFile = "",
    **settings,
) -> str:
    """Test a method, in and out of context on the synthetic world, or on a list of videos; it is trained if need be.

    Args:
        older: where older code made the run and a new one takes long: ask, use it, or retrain
        test_data: list of test videos (default: the list that trains)
        test_split: rows that test, by the list's split column (default: those that train)
        test_half: classes that test (default: those that train)
        skip_bad: go on without videos that cannot be read; they are counted
        out: write the records there, one JSON object a line
    """
    wanted = _checked(effective(profile, config, settings))
    if wanted.data == "synthetic":
        if test_data or test_split or test_half:
            raise ValueError("data is 'synthetic', which has tests of its own; test_* flags go with a list of videos")
        sets = world_sets(wanted.test_clips)
    else:
        about = {"data": test_data or wanted.data, "part": test_split or wanted.data_split}
        about |= {"half": test_half or wanted.half, "views": wanted.views, "prompts": wanted.prompts}
        sets = (EvalSet(set=_videos(about["data"], about["part"], about["half"]), **about),)
    with workspace_on(device, runs, num_workers=num_workers, older=older, skip_bad=skip_bad) as workspace:
        records = workspace.scores(wanted, sets)
    if out:
        atomic_write(out, "".join(json.dumps(record) + "\n" for record in records))
    row = "{set:16s} {split:8s} {context:12s} {value:>8} {n:>8}"
    lines = [row.format(set="set", split="classes", context="background", value="top-1 %", n="clips")]
    lines += [row.format(**{**record, "value": f"{record['value']:.2f}"}) for record in records]
    lines += [f"departs from the published protocol: {said}" for said in {r.get("departs") for r in records} if said]
    return "\n".join(lines)


def _checked(config: Config) -> Config:
    """The configuration, once the files that it names can be read."""
    if config.data != "synthetic":
        _videos(config.data, config.data_split, config.half, config.shots)
    if config.prompts != "name":
        from ..video.classes import load_prompts

        load_prompts(config.prompts)
    return config


def _videos(data: str, split: str, half: str, shots: int = 0) -> str:
    """The name of a list of videos, which has such rows."""
    from ..video.manifest import read_sidecar, select

    if not Path(data).is_file():
        raise ValueError(f"data is {data!r}: no such file; allowed: synthetic, or a CSV of videos")
    select(data, split=split, half=half, shots=shots)
    return (read_sidecar(data) or {}).get("dataset") or Path(data).stem


@contextmanager
def workspace_on(device: str, runs: str = "", **options) -> Iterator:
    """A workspace for this process, which may be one of several that torchrun started."""
    from ..distributed import process_group
    from ..video.models import usable
    from ..workspace import Workspace

    set_threads()
    try:
        with process_group(usable(device)) as own:
            yield Workspace(runs or None, device=str(own), **options)
    except RuntimeError as error:
        if not re.search("gloo/transport|remote process", str(error)):  # gloo's word, and NCCL's
            raise
        lost = "another process of this run ended, which says why; the same command goes on from the last whole epoch"
        raise ConnectionError(lost) from error


def effective(profile: str, file: str, flags: Mapping) -> Config:
    """The configuration that a command line names: flags win over the file, the file over the profile."""
    said = {}
    if file:
        try:
            said = json.loads(Path(file).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"--config {file!r} cannot be read: {error}") from error
        if not isinstance(said, dict):
            raise ValueError(f"--config {file!r} holds a {type(said).__name__}; allowed: an object with settings")
    config = load_config(profile, **{**said, **{name: value for name, value in flags.items() if value is not None}})
    check_tokenizer(config.model)
    if METHODS[config.method].trainer != "none" and not (fits := support(config.model)).adapters:
        raise ValueError(fits.said)
    return config


# ------------------------------------------------------------------------------------ study, world and upkeep
def study(
    sections: Sequence[Literal["clips", *SECTIONS]],
    /,
    *,
    seeds: Sequence[Seed] = (),
    variants: Sequence[str] = (),
    runs: Runs = "",
    device: Device = "cpu",
    to: Folder = "",
    retrain: bool = False,
) -> None:
    """Measure what sections of the study lack; `clips` pretrains the CLIPs that some of them need.

    Args:
        sections: of the study, in this order
        seeds: these alone (default: the section's own)
        variants: these alone
        device: the same for all units of a seed, since rounding alone leads long trainings elsewhere
        to: folder of the results (default: inside the package)
        retrain: measure also what older code made
    """
    units = [unit for section in sections if section != "clips" for unit in units_of(section, seeds)]
    known = {unit.variant for unit in units}
    if unknown := sorted(set(variants) - known):
        raise ValueError(f"variants are {unknown}; allowed: {', '.join(sorted(known))}")
    from ..study.measure import pretrain_clips, run_unit
    from ..workspace import Workspace

    set_threads(1)  # as the whole study was measured
    if "clips" in sections:
        pretrain_clips()
    workspace, where = Workspace(runs or None, device=device), {"folder": to} if to else {}
    for unit in units:
        if not variants or unit.variant in variants:
            run_unit(unit, workspace, retrain=retrain, **where)


def cost(
    *,
    profile: Profile = "cpu",
    config: Given = "",
    steps: Count = 20,
    seconds: Seconds = 30.0,
    classes: Count = 400,
    device: Device = "cpu",
    **settings,
) -> str:
    """Time the training step and the test of a configuration, as one line of JSON; its data are not read.

    Args:
        steps: rounds, after one that warms up
        seconds: no further round begins after that long
        classes: of the class-text head
    """
    wanted = effective(profile, config, settings)
    from ..report.costs import measure_costs

    set_threads()
    found = measure_costs({"it": wanted}, steps=steps, seconds=seconds, classes=classes, device=device)["it"]
    return json.dumps({**vars(found), "device": device})


def pretrain(
    *, out: Folder, steps: Count = 1500, seed: Seed = 0, home_seed: Seed = 0, width: Count = 96, layers: Count = 4
) -> str:
    """Pretrain a small CLIP for the synthetic world on captioned stills; `--weights FOLDER` takes it.

    Args:
        out: the folder to write
        steps: updates, above 100
        seed: of stills and initialization
        home_seed: of the home scenes
        width: of the image encoder, a multiple of 24
        layers: of the image encoder
    """
    if steps <= 100 or width % 24:
        raise ValueError(f"steps is {steps}, width is {width}; allowed: above 100 steps, and multiples of 24")
    from ..world.pretrain import pretrain

    set_threads()
    return json.dumps(pretrain(out, steps=steps, seed=seed, home_seed=home_seed, width=width, layers=layers))


def card() -> str:
    """Measure the small CLIP that ships and write its card."""
    from ..world.model_card import write_card

    set_threads()
    return str(write_card())


def checks(
    *,
    seeds: Sequence[Seed] = (4, 5, 6),
    weights: str = "shipped",
    runs: Runs = "",
    count: Count = 1440,
    out: NewFile = "",
) -> str:
    """Measure on some seeds what makes the synthetic world a fair experiment, and print it.

    Args:
        seeds: of the world; 0 is the design seed
        weights: the small CLIP: shipped, or a folder
        count: clips of each test
        out: append a record a seed there, one JSON object a line
    """
    if weights != "shipped" and not (Path(weights) / "training.json").is_file():
        raise ValueError(f"weights is {weights!r}; allowed: shipped, or a folder that mede world pretrain made")
    from ..study.world_checks import check, properties
    from ..workspace import Workspace

    set_threads()
    lines = []
    for seed in seeds:
        record = check(seed, Workspace(runs or None), weights=weights, count=count)
        for one in properties(record["figures"]).itertuples():
            holds = f"{'ok  ' if one.holds else 'FAIL'} {one.value:8.3f} in [{one.low:g}, {one.high:g}]"
            lines.append(f"seed {seed}  {holds}  {one.name}")
        if out:
            append_line(Path(out), record)
    return "\n".join(lines)


def ship_or_restamp(*, runs: Runs = "", restamp: str = "") -> str:
    """Make the runs and scores that ship with the package, from `cpu`.

    Args:
        restamp: a commit: give what ships the names of today's code, if no bit moved since then
    """
    look = ["git", "rev-parse", "--verify", "--quiet", f"{restamp}^{{commit}}"]
    if restamp and subprocess.run(look, cwd=repo_root(), capture_output=True).returncode:
        raise ValueError(f"--restamp {restamp!r} is no commit of this repository")
    from ..workspace import Workspace
    from . import ship

    set_threads()
    return ship.restamp(restamp) if restamp else str(ship.ship(Workspace(runs or None, shipped=False)))


def clean(*, runs: Runs = "", yes: bool = False) -> str:
    """List the runs that no question of today finds: of older code, half done, or of an earlier naming.

    Args:
        yes: remove them
    """
    folder = Path(runs) if runs else default_folder()
    stale = stale_runs(folder) if folder.is_dir() else {}
    lines = [f"{size / 1e6:10.1f} MB  {run.name}: {why}" for run, (size, why) in stale.items()]
    if yes:
        for run in stale:
            shutil.rmtree(run)
    said = "removed" if yes else "`mede clean --yes` removes them" if stale else "nothing to remove"
    return "\n".join([*lines, f"{folder}: {len(stale)} old runs; {said}"])
