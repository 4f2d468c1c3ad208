"""Command line of training and evaluation; under torchrun on several devices.

python -m mede_core train --profile paper --method open_mede --data k400.csv --data-split train --runs runs/paper
torchrun --nproc_per_node=8 -m mede_core train ...       # several nodes: torchrun's own flags
python -m mede_core evaluate --config run.json --runs runs/paper --out results.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from .config import METHODS, PROFILES, Config, load_config


def parser() -> argparse.ArgumentParser:
    """The command line: every field of the configuration is a flag."""
    main = argparse.ArgumentParser(
        prog="python -m mede_core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = main.add_subparsers(dest="command", required=True)
    for name, help_text in (("train", "train a method, or go on with its run"), ("evaluate", "evaluate a method")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--profile", default="cpu", choices=list(PROFILES))
        command.add_argument("--config", metavar="FILE", help="JSON with fields of the configuration; flags win")
        command.add_argument("--runs", default="runs/cli", help="folder of runs (default: runs/cli)")
        command.add_argument("--device", default="cpu", help="cpu or cuda")
        command.add_argument("--num-workers", type=int, default=0, help="of each process's data loader")
        for field, of in Config.model_fields.items():
            flag = "--" + field.replace("_", "-")
            if isinstance(of.default, bool):
                command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
            else:
                choices = list(METHODS) if field == "method" else None
                command.add_argument(flag, type=type(of.default), choices=choices, default=None)
    commands.choices["evaluate"].add_argument("--out", metavar="FILE", help="write the records there (JSON lines)")
    commands.choices["evaluate"].add_argument("--skip-bad", action="store_true", help="leave out unreadable videos")
    return main


def config_from(options: argparse.Namespace) -> Config:
    """The configuration that a command line names.

    Raises:
        ValueError: a field or value that is not allowed, or a config file that cannot be read.
    """
    chosen = {}
    if options.config:
        try:
            chosen = json.loads(Path(options.config).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"--config {options.config!r} cannot be read: {error}") from error
    flags = {name: getattr(options, name) for name in Config.model_fields}
    chosen |= {name: value for name, value in flags.items() if value is not None}
    return load_config(options.profile, **chosen)


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: default: of the process.

    Returns:
        the exit code: 0, or 2 for bad input, which one line on stderr explains.
    """
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = config_from(options)
        return _run(options, config)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, config: Config) -> int:
    from .distributed import process_group, rank
    from .experiment import evaluate_method, train_method
    from .files import set_threads
    from .report.records import ResultStore

    set_threads()
    with process_group(options.device) as device:
        common = {"device": str(device), "num_workers": options.num_workers}
        if options.command == "train":
            run_dir = train_method(config, options.runs, **common)
            if rank() == 0:
                print(run_dir)
            return 0
        facts = {"table": "evaluate", "profile": options.profile}
        records = evaluate_method(config, options.runs, skip_bad=options.skip_bad, **common, **facts)
        if rank() == 0:
            for record in records:
                facts = {key: value for key, value in record.items() if key != "correct"}
                print(json.dumps(facts))
            if options.out:
                ResultStore(Path(options.out).parent).replace(Path(options.out).stem, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
