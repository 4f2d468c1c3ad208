"""The command `mede`: what its verbs do that no room does. Also `python -m mede_core`, and under torchrun.

    mede train --profile paper --method open_mede --data k400.csv --data-split train
    torchrun --nproc_per_node=8 -m mede_core train ...       # several nodes: torchrun's own flags

A verb is a function whose parameters are the flags and whose docstring is their help. What a person typed wrong ends
with exit code 2 and one line, before torch is loaded wherever that can be told without it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path

import typer

from .config import METHODS, Config, EvalSet
from .flags import Device, File, Folder, Half, NewFile, Older, Profile, Workers, command, effective


# ------------------------------------------------------------------------------------ train and evaluate
def train(
    *,
    profile: Profile = "cpu",
    config: File = "",
    runs: Folder = "",
    device: Device = "cpu",
    num_workers: Workers = 0,
    older: Older = "ask",
    again: bool = False,
    **settings,
) -> str:
    """Train a method, or go on with its run, and print the run's folder.

    Args:
        profile: what applies where neither a flag nor the file says something
        config: JSON file with settings; flags win
        runs: folder of runs and scores (default: runs/ of the repository, else ./mede_runs)
        device: cpu, cuda or cuda:NUMBER
        num_workers: of each process's data loader
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
    config: File = "",
    runs: Folder = "",
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
        profile: what applies where neither a flag nor the file says something
        config: JSON file with settings; flags win
        runs: folder of runs and scores (default: runs/ of the repository, else ./mede_runs)
        device: cpu, cuda or cuda:NUMBER
        num_workers: of each process's data loader
        older: where older code made the run and a new one takes long: ask, use it, or retrain
        test_data: list of test videos (default: the list that trains)
        test_split: rows that test, by the list's split column (default: those that train)
        test_half: classes that test (default: those that train)
        skip_bad: go on without videos that cannot be read; they are counted
        out: write the records there, one JSON object a line
    """
    wanted = _checked(effective(profile, config, settings))
    if wanted.data == "synthetic":
        from .study.units import world_sets

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
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text("".join(dumps(record) + "\n" for record in records), encoding="utf-8")
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
        from .video.prompts import load_prompts

        load_prompts(config.prompts)
    return config


def _videos(data: str, split: str, half: str, shots: int = 0) -> str:
    """The name of a list of videos, which has such rows."""
    from .video.manifest import read_sidecar, select

    if not Path(data).is_file():
        raise ValueError(f"data is {data!r}: no such file; allowed: synthetic, or a CSV of videos")
    select(data, split=split, half=half, shots=shots)
    return (read_sidecar(data) or {}).get("dataset") or Path(data).stem


@contextmanager
def workspace_on(device: str, runs: str = "", **options) -> Iterator:
    """A workspace for this process, which may be one of several that torchrun started."""
    import torch

    from .distributed import process_group
    from .files import set_threads
    from .workspace import Workspace

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    set_threads()
    with process_group(device) as own:
        yield Workspace(runs or None, device=str(own), **options)


# ------------------------------------------------------------------------------------ what a verb shows
def _show(answer) -> int:
    """A number is the exit code; anything else is printed, by one process of several."""
    if isinstance(answer, int):
        return answer
    if answer is not None and os.environ.get("RANK", "0") == "0":
        print(answer)
    return 0


def _show_ranking(answer: Mapping, *, json: bool = False) -> int:
    from .video.predict import as_text

    return _show(dumps(answer, indent=1) if json else as_text(answer))


def _show_report(made) -> int:
    """Exit code 1 says that some files could not be used; the report names them."""
    _show(made.report())
    return 1 if made.problems else 0


def _show_findings(findings) -> int:
    lines = [f"{'!!' if one.fault else '  '} {one.topic:20} {one.text}" for one in findings]
    faults = sum(one.fault for one in findings)
    _show("\n".join([*lines, f"{faults} to mend (marked !!)" if faults else "all well"]))
    return 1 if faults else 0


# ------------------------------------------------------------------------------------ the command
VERBS: dict = {  # verb: (what it does, its function or where that is, how its answer is shown)
    "train": ("train a method, or go on with its run", train, _show),
    "evaluate": ("test a method", evaluate, _show),
    "predict": ("name the action in a video", "video.predict:answer", _show_ranking),
    "prepare": ("make a list of a dataset's videos", "video.prepare:prepare", _show_report),
    "scuba": ("build out-of-context clips", "video.scuba.build:build_scuba", _show_report),
    "study": ("measure what the study lacks", "batch.upkeep:study", _show),
    "world": {
        "pretrain": ("pretrain a small CLIP", "batch.upkeep:pretrain", _show),
        "card": ("measure the small CLIP that ships", "batch.upkeep:card", _show),
        "checks": ("measure whether the world is a fair experiment", "batch.upkeep:checks", _show),
    },
    "cost": ("time training and testing", "batch.upkeep:cost", _show),
    "reproduce": ("run the notebooks", "batch.reproduce:reproduce", _show),
    "ship": ("make what ships with the package", "batch.upkeep:ship_or_restamp", _show),
    "clean": ("list runs that no question finds, and remove them", "batch.upkeep:clean", _show),
    "doctor": ("say what is here: versions, weights, devices", "batch.doctor:examine", _show_findings),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code is 0, 2 where a person typed something wrong, or what the verb says."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")  # file names need not be valid text
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter("mede_core"))  # other packages' remarks would drown the line that counts
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING  # of several processes one speaks
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    try:
        return command(VERBS, arguments)
    except typer.TyperException as error:
        said = error.format_message()
    except Exception as error:
        if not isinstance(error, ValueError | OSError) and not type(error).__module__.startswith("mede_core"):
            raise  # a fault of ours: its traceback says where
        said = str(error)
    print("error: " + " ".join(said.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
