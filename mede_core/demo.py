"""The demo trajectory that ships with the package, so that weight averaging can be explored before any training.

``python -m mede_core.demo --make`` trains Open-MeDe on the synthetic world with the ``cpu`` profile (or loads that
run if it is finished), keeps the trajectory, and measures every epoch in and out of context.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
from pathlib import Path

from .config import load_config
from .experiment import train_method
from .learner import load_checkpoint
from .runs import atomic_write, set_threads
from .train import checkpoint_path
from .trajectory import run_config, score_trajectory

log = logging.getLogger(__name__)

DEMO = Path(__file__).parent / "weights" / "demo"
KEPT = ("config.json", "metrics.jsonl", "done.json")
ACCURACY = "accuracy.json"


def demo_run() -> Path:
    """The shipped run folder: config.json, metrics.jsonl, done.json, epoch_001 ... safetensors and accuracy.json.

    Returns:
        the folder.

    Raises:
        ValueError: a file is missing; the message names it and the command that makes it.
    """
    missing = [name for name in (*KEPT, ACCURACY) if not (DEMO / name).is_file()]
    if not missing:
        epochs = range(1, run_config(DEMO).epochs + 1)
        missing = [path.name for path in (checkpoint_path(DEMO, t) for t in epochs) if not path.is_file()]
    if missing:
        raise ValueError(f"the demo run lacks {', '.join(missing)}; make it with: python -m mede_core.demo --make")
    return DEMO


def demo_accuracy() -> list[dict]:
    """The shipped records of :func:`mede_core.trajectory.score_trajectory` for the demo run."""
    return json.loads((demo_run() / ACCURACY).read_text(encoding="utf-8"))


def make_demo(runs_dir: str | os.PathLike, target: str | os.PathLike = DEMO, *, profile: str = "cpu",
              count: int = 480) -> Path:
    """Train the demo run and replace the shipped folder by it.

    Args:
        runs_dir: where it is trained; a finished run of the same configuration is loaded.
        target: the folder to make.
        profile: of the training.
        count: test clips for each half and context.

    Returns:
        the folder.
    """
    config = load_config(profile, method="open_mede")
    run, target = train_method(config, runs_dir), Path(target)
    records = score_trajectory(run, count=count)
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("epoch_*.safetensors"):
        old.unlink()
    for epoch in range(1, config.epochs + 1):
        source = checkpoint_path(run, epoch)
        load_checkpoint(source)  # a damaged file must not ship
        shutil.copyfile(source, target / source.name)
    for name in KEPT:
        shutil.copyfile(run / name, target / name)
    rows = [{**row, "value": round(row["value"], 3), "run": run.name} for row in records]
    atomic_write(target / ACCURACY, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    return target


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m mede_core.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--make", action="store_true", required=True, help="train and replace the shipped demo run")
    parser.add_argument("--profile", default="cpu", help="of the training (default: cpu)")
    parser.add_argument("--runs", default="runs/cpu", help="folder of the training runs (default: runs/cpu)")
    parser.add_argument("--to", default=str(DEMO), help="folder to make (default: inside the package)")
    parser.add_argument("--count", type=int, default=480, help="test clips for each half and context")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_threads()
    folder = make_demo(args.runs, args.to, profile=args.profile, count=args.count)
    log.info("%s: %.0f kB", folder, sum(f.stat().st_size for f in folder.iterdir()) / 1000)


if __name__ == "__main__":
    main()
