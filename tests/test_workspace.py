"""Ask and it is there: a result is named by all that decides it, made once, and never shown under other code."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch.nn.functional as F
from toy_notebooks import wait_for

from mede_core import schedule, train, workspace
from mede_core.config import Average, EvalSet, load_config
from mede_core.files import PACKAGE, sha256_file
from mede_core.report.costs import seconds_of_a_pass
from mede_core.runs import learner_for, room_of
from mede_core.workspace import NotMadeError, Workspace

TINY = {"train_clips": 72, "batch_size": 16, "epochs": 2, "warmup_epochs": 1}
CONFIG = load_config("smoke", method="open_mede", **TINY)
SETS = [EvalSet(half="base", clips=36), EvalSet(half="novel", context="scene", clips=36)]
ASK = """
import hashlib, json, sys
import mede_core.scoring, mede_core.train
from mede_core import EvalSet, Workspace, load_config
did = {"trained": 0, "scored": 0}
def counted(real, what):
    def call(*args, **named):
        did[what] += 1
        return real(*args, **named)
    return call
mede_core.train._train = counted(mede_core.train._train, "trained")
mede_core.scoring.evaluate = counted(mede_core.scoring.evaluate, "scored")
config = load_config("smoke", method="open_mede", **json.loads(sys.argv[2]))
sets = [EvalSet(half="base", clips=36), EvalSet(half="novel", context="scene", clips=36)]
def ask(**options):
    workspace = Workspace(sys.argv[1], shipped=False, **options)
    did.update(trained=0, scored=0)
    records = workspace.scores(config, sets)
    tensors = workspace.run(config).weights(config)
    bits = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
    each = {name: [record[name] for record in records] for name in ("correct", "older")}
    return {**did, **each, "run": records[0]["run"], "weights": hashlib.sha256(bits).hexdigest()}
"""
CHANGED_STEP = """
_as_published = meta_gradients
def meta_gradients(*args, inner_lr, **others):
    return _as_published(*args, inner_lr=50 * inner_lr, **others)
"""
CHANGED_EVALUATION = """
def top1_correct(logits, labels):
    return labels >= 0
"""
SLOW = """
import json, sys, time
from mede_core import Workspace, load_config, train
saved = train._save_epoch
train._save_epoch = lambda *args: (saved(*args), time.sleep(float(sys.argv[3])))
Workspace(sys.argv[1], shipped=False).run(load_config("smoke", method="open_mede", **json.loads(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A workspace's folder in which CONFIG is trained and scored."""
    path = tmp_path_factory.mktemp("workspace")
    Workspace(path, shipped=False).scores(CONFIG, SETS)
    return path


@pytest.fixture
def made(folder, tmp_path):
    """A copy of it, to do harm to."""
    return shutil.copytree(folder, tmp_path / "runs")


def nothing(*_arguments, **_named):
    raise AssertionError("this was made already")


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def start(code, *arguments, package=PACKAGE.parent):
    how = {"env": {**os.environ, "PYTHONPATH": str(package)}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    how["cwd"] = package  # it comes first on the path
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **how)


# ------------------------------------------------------------------------------------ names
def test_frozen_clip_has_no_run_and_one_name_whatever_would_be_trained():
    asked, frozen = Workspace(), CONFIG.replace(method="frozen")
    assert asked.run_name(frozen) == asked.run_name(frozen.replace(rho=0.5, seed=3, outer_lr=0.1))
    with pytest.raises(ValueError, match="method is 'frozen', which does not train"):
        asked.run(frozen)
    with pytest.raises(ValueError, match="older is 'never'; allowed: ask, use, retrain"):
        Workspace(older="never")


# ------------------------------------------------------------------------------------ loaded, shipped, made
def test_what_is_there_is_loaded_and_says_all_about_itself(folder, monkeypatch):
    monkeypatch.setattr(train, "_train", nothing)
    monkeypatch.setattr("mede_core.scoring.evaluate", nothing)
    asked = Workspace(folder, shipped=False)
    run, (base, novel) = asked.run(CONFIG), asked.scores(CONFIG, SETS)
    assert len(run.metrics()) == 8 and len(list(run.trajectory())) == 2
    assert run.facts["settings"] == base["settings"] == CONFIG.run_settings()
    assert (base["split"], novel["split"], novel["context"]) == ("base", "novel", "scene")
    assert base["run"] == run.name and not base["shipped"] and not base["older"] and base["n"] == 36
    assert {"commit", "code", "weights", "machine", "torch", "threads"} <= base.keys()


def test_the_weights_of_a_run_are_its_methods_average_or_any(folder):
    asked = Workspace(folder, shipped=False)
    run = asked.run(CONFIG)
    last = list(run.trajectory())[-1]
    assert same(run.weights(Average("last")), last)
    assert same(run.weights(CONFIG.replace(method="open_mede_no_gwa")), last)
    assert not same(run.weights(), last)
    tested = asked.learner(CONFIG).trainable_state()
    assert same({name: tensor.cpu() for name, tensor in tested.items()}, run.weights(CONFIG))


def test_where_nothing_may_be_made_an_ask_names_what_is_not_there(folder, monkeypatch):
    monkeypatch.setenv("MEDE_MAKE", "0")
    asked = Workspace(folder, shipped=False)
    with pytest.raises(NotMadeError, match=rf"run meta-\w+-\w+ \(open_mede \(rho 0.8, seed 7\)\) is not in {folder}"):
        asked.run(CONFIG.replace(seed=7))
    with pytest.raises(NotMadeError, match="scores of open_mede .* average swa"):
        asked.scores(CONFIG, SETS, Average("swa"))
    assert len(asked.scores(CONFIG, SETS)) == 2


def test_what_ships_is_taken_and_marked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "SHIPPED", folder)
    asked = Workspace(tmp_path / "empty", make=False)
    assert asked.run(CONFIG).shipped and asked.run(CONFIG).facts["shipped"]
    assert [record["shipped"] for record in asked.scores(CONFIG, SETS)] == [True, True]
    monkeypatch.setenv("MEDE_SHIPPED", "0")
    with pytest.raises(NotMadeError):
        Workspace(tmp_path / "empty", make=False).run(CONFIG)


def test_averages_of_a_run_are_scored_on_one_learner_with_the_numbers_of_learners_of_their_own(made, monkeypatch):
    asked = [(CONFIG, Average(rule)) for rule in ("swa", "last", "ema")]
    asked += [(load_config("smoke", method="frozen", **TINY), None), (CONFIG, Average("epoch", epoch=1))]
    alone = [Workspace(made, shipped=False).scores(config, SETS, average, again=True) for config, average in asked]
    workspace, built = Workspace(made, shipped=False), []
    fresh = workspace.fresh_learner
    monkeypatch.setattr(workspace, "fresh_learner", lambda config: built.append(config.method) or fresh(config))
    found = [workspace.scores(config, SETS, average, again=True) for config, average in asked]
    assert [[one["correct"] for one in each] for each in found] == [[one["correct"] for one in each] for each in alone]
    assert built == ["open_mede", "frozen", "open_mede"]


def test_a_torn_last_line_of_scores_costs_that_score_alone(made, monkeypatch):
    (file,) = (made / "scores").glob("meta-*.jsonl")
    text = file.read_text()
    file.write_text(text[:-40])
    measured = []
    real = workspace.append_line
    monkeypatch.setattr(workspace, "append_line", lambda path, line: (measured.append(line["split"]), real(path, line)))
    asked = Workspace(made, shipped=False)
    again = [record["correct"] for record in asked.scores(CONFIG, SETS)]
    assert again == [json.loads(line)["correct"] for line in text.splitlines()]
    assert measured == ["novel"] and len(file.read_text().splitlines()) == 2


def test_once_more_keeps_the_old_until_the_new_is_finished(made, monkeypatch):
    asked, saved = Workspace(made, shipped=False), train._save_epoch
    old = asked.run(CONFIG)
    before = {file.name: (sha256_file(file), file.stat().st_mtime_ns) for file in old.folder.iterdir()}
    monkeypatch.setattr(train, "_save_epoch", lambda *args: (saved(*args), nothing()))
    with pytest.raises(AssertionError):
        asked.run(CONFIG, again=True)
    assert {file.name: (sha256_file(file), file.stat().st_mtime_ns) for file in old.folder.iterdir()} == before
    monkeypatch.undo()
    new = asked.run(CONFIG, again=True)
    for file in new.folder.glob("epoch_*"):
        assert sha256_file(file) == before[file.name][0] and file.stat().st_mtime_ns != before[file.name][1]
    assert not list(made.glob("*.new")) and not list(made.glob(".replaced-*"))


def test_interrupting_keeps_the_last_epoch_and_says_how_to_go_on(tmp_path, monkeypatch, caplog):
    saved, asked = train._save_epoch, Workspace(tmp_path, shipped=False)

    def then_stop(run_dir, epoch, *others):
        saved(run_dir, epoch, *others)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save_epoch", then_stop)
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        asked.run(CONFIG)
    assert "keeps its last whole epoch; ask for it again" in caplog.text
    assert len(list(tmp_path.glob("meta-*/epoch_*"))) == 1


# ------------------------------------------------------------------------------------ other processes
def test_a_second_asker_waits_for_the_first_and_says_for_whom(tmp_path, monkeypatch, caplog):
    first = start(SLOW, tmp_path, json.dumps(TINY), 1.5)
    try:
        wait_for(lambda: first.poll() is not None or list(tmp_path.glob("meta-*/state.pt")))
        monkeypatch.setattr(train, "_train", nothing)
        with caplog.at_level("INFO"):
            run = Workspace(tmp_path, shipped=False).run(CONFIG)
        assert f"process {first.pid} on " in caplog.text
        assert len(run.metrics()) == 8
    finally:
        first.kill()
        first.communicate()


# ------------------------------------------------------------------------------------ code
@pytest.fixture(scope="module")
def under(tmp_path_factory):
    """Ask in a process of its own under a copy of the package, where files end with more code or begin otherwise."""
    base = tmp_path_factory.mktemp("code")
    (base / "runs").mkdir()

    def run(name, code, *, end=None, reworded=()):
        package = shutil.copytree(PACKAGE, base / name / "mede_core", ignore=shutil.ignore_patterns("__pycache__"))
        for file, more in (end or {}).items():
            with open(package / file, "a", encoding="utf-8") as stream:
                stream.write(more)
        for file in reworded:
            text = (package / file).read_text(encoding="utf-8")
            (package / file).write_text(text.replace('"""', '"""In other words. ', 1) + "\n# a comment\n", "utf-8")
        process = start(ASK + code, base / "runs", json.dumps(TINY), package=base / name)
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def first(under):
    return under("first", "print(json.dumps(ask()))")


def test_a_changed_method_shows_no_old_number_and_the_old_one_comes_back_with_it(under, first):
    assert (first["trained"], first["scored"]) == (1, 2)
    told = under("changed", """
from mede_core import workspace
from mede_core.workspace import OlderCodeError
workspace.ASK_FROM_S = 0.0
told = {}
try:
    ask()
except OlderCodeError as error:
    told["asked"] = str(error)
told["used"] = ask(older="use")
told["retrained"] = ask(older="retrain")
frame = Workspace(sys.argv[1]).history(config)
told["history"] = [sorted(set(frame["run"])), sorted(set(frame["changed since"]))]
print(json.dumps(told))
""", end={"meta.py": CHANGED_STEP})  # fmt: skip
    changed, used = told["retrained"], told["used"]
    assert "changed since: meta. Training it again takes about" in told["asked"]
    assert used["older"] == [True, True] and used["trained"] == 0 and used["run"] == first["run"]
    assert used["weights"] == first["weights"]
    assert changed["run"] != first["run"] and changed["weights"] != first["weights"]
    assert (changed["trained"], changed["scored"], changed["older"]) == (1, 2, [False, False])
    assert told["history"] == [sorted([first["run"], changed["run"]]), ["", "meta"]]
    back = under("back", """
from pathlib import Path
found = ask()
with open(Path(mede_core.train.__file__).with_name("gwa.py"), "a") as stream:
    stream.write("FACTOR = 2\\n")
try:
    ask()
except RuntimeError as error:
    found["refused"] = str(error)
print(json.dumps(found))
""", reworded=("meta.py", "train.py", "scoring.py"))  # fmt: skip
    assert "(gwa): restart the kernel" in back.pop("refused"), "the disk holds other code than this process runs"
    assert back == {**first, "trained": 0, "scored": 0}, "words and comments change nothing"


def test_a_changed_evaluation_is_measured_again_and_trains_nothing(under, first):
    again = under("evaluation", "print(json.dumps(ask()))", end={"scoring.py": CHANGED_EVALUATION})
    assert (again["trained"], again["scored"]) == (0, 2)
    assert again["weights"] == first["weights"] and again["correct"] != first["correct"]


class Plain:
    """A method of one's own, as a notebook cell defines it."""

    def __init__(self, learner, config):
        self.learner = learner

    def step(self, batch, optimizer, generator):
        loss = F.cross_entropy(self.learner(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"support_loss": loss.item()}


class Other(Plain):
    passes = 1


def test_a_method_from_a_cell_counts_by_its_source(tmp_path, monkeypatch):
    asked = Workspace(tmp_path, shipped=False)
    names = {asked.run_name(CONFIG), asked.run_name(CONFIG, Plain), asked.run_name(CONFIG, Other)}
    assert len(names) == 3
    run = asked.run(CONFIG, method=Plain)
    assert run.name.startswith("own-") and list(run.metrics()["support_loss"]) and "query_loss" not in run.metrics()
    monkeypatch.setattr(train, "_train", nothing)
    assert asked.run(CONFIG, method=Plain).name == run.name


def test_an_estimate_holds_no_more_clips_at_once_than_training_does():
    config, sizes = CONFIG.replace(micro_batch=4, precision="bf16"), []
    learner = learner_for(config)
    learner.visual.register_forward_hook(lambda _, frames, out: sizes.append((len(frames[0]) // 8, out.dtype)))
    assert seconds_of_a_pass(learner, room_of(config).training_clips(config, learner.image_size), config) > 0
    assert [size for size, _ in sizes] == [1, 4] and {str(kind) for _, kind in sizes} == {"torch.bfloat16"}


def test_more_steps_than_the_clips_hold_are_not_cut_in_silence(capsys, caplog):
    caplog.set_level("INFO")
    asked = {most: schedule.steps_of(CONFIG.replace(steps_per_epoch=most, batch_size=4), 10) for most in (0, 1, 2, 3)}
    assert asked == {0: 2, 1: 1, 2: 2, 3: 2}
    said = capsys.readouterr().err + caplog.text
    assert "steps_per_epoch is 3; 10 clips in batches of 4 give 2" in said and said.count("steps_per_epoch") == 1
