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
from dataclasses import dataclass
from pathlib import Path

from .checkpoints import checkpoint_path, load_checkpoint
from .config import Config, load_config
from .experiment import train_method
from .files import ASSETS, atomic_write, set_threads
from .notebook import run_weights
from .trajectory import run_config, score_trajectory

log = logging.getLogger(__name__)

DEMO = ASSETS / "demo"
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


@dataclass(frozen=True)
class Source:
    """A trajectory to look at, and what is known of it.

    Attributes:
        folder: the run folder.
        config: what was trained, with mu and sigma of the average.
        records: accuracies along it, of :func:`mede_core.trajectory.score_trajectory`.
        weights: the CLIP weights under it.
    """

    folder: Path
    config: Config
    records: list[dict]
    weights: str

    @property
    def name(self) -> str:
        """The run's name; the same configuration has the same name everywhere."""
        return self.config.run_name()


def trajectory_source(run_dir: str = "", *, gwa_mu: float = 0.0, gwa_sigma: float = 0.0, count: int = 240) -> Source:
    """A run of the reader's own, or the shipped one.

    Args:
        run_dir: the folder of a finished run on the synthetic world; empty: the shipped one.
        gwa_mu, gwa_sigma: of the average, in epochs; 0.0 keeps the published ratio.
        count: test clips for each half and background; the shipped accuracies have their own count.

    Returns:
        the source. Only what the shipped run has no figures for is measured here.

    Raises:
        ValueError: no finished run, or one on other data.
    """
    folder = Path(run_dir) if run_dir else demo_run()
    chosen = {"gwa_mu": gwa_mu, "gwa_sigma": gwa_sigma}
    config = run_config(folder, **chosen, test_clips=count)
    weights = run_weights(folder)
    if run_dir:
        return Source(folder, config, score_trajectory(folder, config), weights)
    records = json.loads((folder / ACCURACY).read_text(encoding="utf-8"))
    if gwa_mu or gwa_sigma:
        config = run_config(folder, **chosen, test_clips=records[0]["n"])
        records = [row for row in records if row["rule"] != "gwa"]
        records += score_trajectory(folder, config, rules=("gwa",), every_epoch=False)
    return Source(folder, config, records, weights)


def make_demo(
    runs_dir: str | os.PathLike,
    target: str | os.PathLike = DEMO,
    *,
    profile: str = "cpu",
    count: int = 480,
    **overrides,
) -> Path:
    """Train the demo run and replace the shipped folder by it.

    Args:
        runs_dir: where it is trained; a finished run of the same configuration is loaded.
        target: the folder to make.
        profile: of the training.
        count: test clips for each half and background.
        overrides: fields of :class:`mede_core.config.Config`.

    Returns:
        the folder.
    """
    config = load_config(profile, method="open_mede", test_clips=count, **overrides)
    run, target = train_method(config, runs_dir), Path(target)
    records = score_trajectory(run, config)
    for epoch in range(1, config.epochs + 1):
        load_checkpoint(checkpoint_path(run, epoch))  # a damaged file must not ship
    target.mkdir(parents=True, exist_ok=True)
    for old in (target / "done.json", *target.glob("epoch_*.safetensors")):
        old.unlink(missing_ok=True)
    for name in [checkpoint_path(run, epoch).name for epoch in range(1, config.epochs + 1)]:
        shutil.copyfile(run / name, target / name)
    rows = [{**row, "value": round(row["value"], 3), "run": run.name} for row in records]
    atomic_write(target / ACCURACY, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    for name in KEPT:  # done.json last: without it the folder is no finished run
        shutil.copyfile(run / name, target / name)
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
