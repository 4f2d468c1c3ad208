"""What every notebook does before and after its own work: parameters, the effective settings, names of runs.

Torch-free. Nothing here computes a result.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from .config import Config, diff
from .files import sha256_file

RANDOM = "random"  # the weights_id of a learner without pretrained weights
_FILES = (  # of a run folder, in the order in which they are explained
    ("config.json", "what was trained: configuration, CLIP weights, classes, clips"),
    ("metrics.jsonl", "one line a step: losses, gradient norms, learning rate"),
    ("epoch_*.safetensors", "the trajectory: each epoch's trainable tensors"),
    ("gwa.safetensors", "the Gaussian average of the trajectory, formed while training"),
    ("state.pt", "optimizer and running average after the last whole epoch: what a resume needs"),
    ("done.json", "written last: the run is finished"),
)


def overrides(**parameters) -> dict:
    """The parameters that a notebook's reader has set, for ``load_config(profile, **overrides(...))``.

    A parameters cell holds literals only, so "take the profile's value" is written as ``""`` for text and as
    ``-1`` for numbers, or as ``0`` where zero makes no sense (``epochs``, ``batch_size``).

    Args:
        parameters: fields of :class:`mede_core.config.Config` with the values of the parameters cell.

    Returns:
        those that are set.
    """
    lowest = {
        name: one.ge for name, of in Config.model_fields.items() for one in of.metadata if getattr(one, "ge", None)
    }

    def is_unset(name, value) -> bool:
        if isinstance(value, bool):
            return False
        return value in ("", -1) or (value == 0 and lowest.get(name, 0) > 0)

    return {name: value for name, value in parameters.items() if not is_unset(name, value)}


def settings_table(config: Config, *names: str) -> pd.DataFrame:
    """The effective configuration: the fields that differ from the defaults, and those that are asked for.

    Args:
        config: the experiment.
        names: fields to list in any case, first and in this order.

    Returns:
        Columns Setting, Value, Default, Changed ("yes" or "").

    Raises:
        ValueError: an unknown field.
    """
    values, default, changed = config.model_dump(), Config().model_dump(), diff(config)
    unknown = [name for name in names if name not in values]
    if unknown:
        raise ValueError(f"unknown configuration fields {unknown}; known: {', '.join(values)}")
    rows = [
        {
            "Setting": name, "Value": _text(values[name]), "Default": _text(default[name]),
            "Changed": "yes" if name in changed else "",
        }
        for name in dict.fromkeys((*names, *changed))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["Setting", "Value", "Default", "Changed"])


def _text(value) -> str:
    """A setting as text that says nothing about this machine's folders."""
    if isinstance(value, float):
        return f"{value:g}"
    return Path(value).name if isinstance(value, str) and os.sep in value else str(value)


def weights_mark(weights: str) -> str:
    """The mark that every output of a learner without pretrained weights carries; empty for pretrained ones.

    Args:
        weights: ``learner.weights_id``, or the ``weights`` of a record.
    """
    return "RANDOM WEIGHTS: these numbers mean nothing" if weights == RANDOM else ""


def marked(title: str, weights: str) -> str:
    """A title with the mark of random weights where it is due."""
    mark = weights_mark(weights)
    return f"{title}. {mark}" if mark else title


# ------------------------------------------------------------------------------------ runs
def read_metrics(run_dir: str | os.PathLike) -> pd.DataFrame:
    """A run's metrics, one row a step.

    Args:
        run_dir: the run folder.

    Returns:
        Columns epoch, step, lr, support_loss, support_grad_norm and, of meta runs, query_loss,
        query_grad_norm and grad_inner_product.
    """
    lines = (Path(run_dir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


def run_weights(run_dir: str | os.PathLike) -> str:
    """What CLIP weights a run started from: the ``weights_id`` of its learner."""
    return json.loads((Path(run_dir) / "config.json").read_text(encoding="utf-8"))["weights"]


def run_files(run_dir: str | os.PathLike) -> pd.DataFrame:
    """What a run folder holds.

    Args:
        run_dir: the run folder.

    Returns:
        Columns File, Number, Size (of all of them), Content.
    """
    rows = []
    for pattern, meaning in _FILES:
        files = sorted(Path(run_dir).glob(pattern))
        size = sum(file.stat().st_size for file in files)
        rows.append({"File": pattern, "Number": len(files), "Size": _size(size), "Content": meaning})
    return pd.DataFrame(rows)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def name_run(run_dir: str | os.PathLike, name: str) -> Path:
    """Give a run a readable name: a relative link beside its folder, replaced in one step.

    Args:
        run_dir: the run folder.
        name: letters, digits, ``_`` and ``-``.

    Returns:
        the link.

    Raises:
        ValueError: a bad name, or one that something else than a link has.
    """
    run_dir = Path(run_dir)
    link = run_dir.parent / name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise ValueError(f"name is {name!r}; allowed: letters, digits, '_' and '-'")
    if link.exists() and not link.is_symlink():
        raise ValueError(f"name is {name!r}, but {link} is a folder or file; allowed: a free name")
    temporary = link.with_name(f".tmp-{os.getpid()}-{name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run_dir.name)
    os.replace(temporary, link)
    return link


def training_record(run_dir: str | os.PathLike, **facts) -> dict:
    """One result record of a finished training: the mean loss of its last epoch, and its last weights.

    Args:
        run_dir: a finished run.
        facts: method, set, seed, profile, weights, ... of the record.

    Returns:
        the record; ``checkpoint`` is the hash of the last epoch's file, ``n`` the number of steps averaged.
    """
    metrics = read_metrics(run_dir)
    last = metrics[metrics["epoch"] == metrics["epoch"].max()]
    newest = sorted(Path(run_dir).glob("epoch_*.safetensors"))[-1]
    numbers: Mapping = {"metric": "support_loss", "unit": "nats", "value": float(last["support_loss"].mean())}
    return {
        **facts,
        **numbers,
        "n": len(last),
        "run": Path(run_dir).resolve().name,
        "checkpoint": sha256_file(newest)[:12],
    }
