"""What ships with the package: the runs and scores of profile `cpu` that notebooks in Lab ask for. An edit of their
code makes them anew (`ship`) or proves that no bit moved (`restamp`)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..averages import epoch_shares
from ..checkpoints import load_checkpoint
from ..config import METHODS, EvalSet, load_config
from ..files import atomic_write, read_lines, replace_folder, repo_root, say
from ..runs import trains
from ..workspace import SHIPPED, Workspace
from . import asks
from .asks import Ask
from .plan import asked_by

KEPT = ("key", "set", "split", "part", "context", "order", "metric", "value", "n", "correct", "weights", "code",
        "commit")  # fmt: skip
IN_LAB = "01 02 03 11 04 20 21 22 23 30 40 41 42 43 44"  # in this order: `restamp` pairs what two commits ask for
EVERY = 8  # of the metrics, each 8th step ships


def in_lab() -> Iterator[Ask]:
    """What the notebooks ask for with their own parameters, every method's and 01's learners, the long trajectory."""
    for number in IN_LAB.split():
        (notebook,) = (repo_root() / "notebooks").glob(f"{number}_*.ipynb")
        yield from asked_by(notebook)
    yield from (Ask(load_config("cpu", method=method)) for method in METHODS if method != "frozen")
    yield Ask(asks.trajectory("cpu", {}))
    yield from (Ask(ask.config) for ask in asks.static_bias("cpu", {}, clips=1) if trains(ask.config))


def ship(workspace: Workspace) -> Path:
    """Make what ships and put it in the place of the package's copy; the size is said."""
    scores: dict[str, dict[str, dict]] = {}
    with tempfile.TemporaryDirectory(dir=SHIPPED.parent) as temporary:
        folder = Path(temporary) / SHIPPED.name
        for ask in in_lab():
            for record in workspace.scores(ask.config, ask.sets, ask.average) if ask.sets else ():
                kept = {name: record[name] for name in KEPT}
                scores.setdefault(record["run"], {})[record["key"]] = kept
            if trains(ask.config) and not ask.sets:  # the notebook wants the run itself
                run = workspace.run(ask.config)
                _copy(run.folder, folder / run.name, ask)
        for name, records in scores.items():
            lines = "".join(json.dumps(record) + "\n" for record in records.values())
            atomic_write(folder / "scores" / f"{name}.jsonl", lines)
        replace_folder(folder, SHIPPED)
    say(f"shipped: {sum(file.stat().st_size for file in SHIPPED.rglob('*') if file.is_file()) / 1e6:.1f} MB")
    return SHIPPED


def _copy(run: Path, target: Path, ask: Ask) -> None:
    """The epochs that the method's average counts (of open_mede: all), and the metrics thinned."""
    shares = epoch_shares(ask.average or ask.config.average(), ask.config.epochs)
    target.mkdir(parents=True, exist_ok=True)
    epochs = (f"epoch_{epoch:03d}.safetensors" for epoch in shares.nonzero().flatten().tolist())
    for name in ("config.json", "done.json", *epochs):
        shutil.copy(run / name, target)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    atomic_write(target / "metrics.jsonl", "".join(lines[::EVERY]))


# ------------------------------------------------------------------------------------ restamp
def probe(folder: str) -> dict:
    """Train and test all methods at `smoke`: {method: [run name, [[value, bits], ...]]}."""
    workspace, found = Workspace(folder, shipped=False), {}
    for method in METHODS:
        config = load_config("smoke", method=method)
        sets = [EvalSet(half=half, context=at, clips=96) for half in ("base", "novel") for at in ("in", "scene")]
        records = workspace.scores(config, sets)
        found[method] = [workspace.run_name(config), [[one["value"], one["correct"]] for one in records]]
    return found


def names() -> list:
    """[run name, [score key, ...]] of each question in Lab, in order: what `restamp` renames."""
    workspace = Workspace(shipped=False)
    return [
        [workspace.run_name(ask.config), workspace.score_keys(ask.config, ask.sets, ask.average)] for ask in in_lab()
    ]


def restamp(old_commit: str) -> str:
    """Give what ships the names of today's code, if all methods at `smoke` come out the same under both commits."""
    root = repo_root()
    with tempfile.TemporaryDirectory() as temporary:
        before, folders = Path(temporary) / "before", [Path(temporary) / name for name in ("old", "new")]
        subprocess.run(["git", "worktree", "add", "--detach", str(before), old_commit], cwd=root, check=True)
        try:
            trees = (before, root)
            old, new = (_under(tree, "probe", str(folder)) for tree, folder in zip(trees, folders))
            for method in METHODS:
                (old_run, old_scores), (new_run, new_scores) = old[method], new[method]
                files = sorted((folders[1] / new_run).glob("epoch_*.safetensors"))
                moved = [file.name for file in files if not _equal(file, folders[0] / old_run / file.name)]
                if moved or old_scores != new_scores:
                    what = ", ".join(moved) or "a score"
                    raise ValueError(f"{method}: {what} differs from {old_commit}; make what ships anew: mede ship")
            pairs = list(zip(_under(before, "names"), _under(root, "names"), strict=True))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=root, check=True)
    _rename(pairs)
    return f"all {len(METHODS)} methods at smoke: equal to {old_commit}, tensors and scores; names are today's"


def _equal(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit; their metadata may differ."""
    (a, _), (b, _) = load_checkpoint(one), load_checkpoint(other)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def _under(tree: Path, function: str, *arguments: str):
    """Call a function of this module under another checkout, on one thread, and return what it gives."""
    code = f"import json, sys; from mede_core.batch import ship; print(json.dumps(ship.{function}(*sys.argv[1:])))"
    environment = {**os.environ, "PYTHONPATH": str(tree), "MEDE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    answer = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def _rename(pairs: list) -> None:
    runs = {old[0]: new[0] for old, new in pairs}
    keys = {before: now for old, new in pairs for before, now in zip(old[1], new[1], strict=True)}
    for old, new in runs.items():
        if (SHIPPED / old).is_dir():
            os.replace(SHIPPED / old, SHIPPED / new)
        lines = SHIPPED / "scores" / f"{old}.jsonl"
        if lines.is_file():
            records = [{**record, "key": keys[record["key"]]} for record in read_lines(lines)]
            lines.unlink()
            atomic_write(lines.with_name(f"{new}.jsonl"), "".join(json.dumps(record) + "\n" for record in records))
