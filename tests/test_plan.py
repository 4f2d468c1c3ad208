"""The plan is checked whole before anything starts, and a step's key covers what can change its result."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from toy_notebooks import PARAMETERS, notebook, project

import mede_core
from mede_core.reproduce import stepkey
from mede_core.reproduce.plan import PlanError, check_parameters, load_plan

PLAN = """
profiles: {smoke: {jobs: 2}, cpu: {}}
steps:
  - {id: one, notebook: a.ipynb, provides: [results/one.jsonl],
     parameters: {common: {word: x}, smoke: {seed: 1}}}
  - {id: two, notebook: a.ipynb, needs: [one], minutes: {smoke: 0.5, cpu: 3}}
"""


@pytest.fixture
def plan_file(tmp_path):
    return project(tmp_path, {"a.ipynb": notebook("x = 1")}, PLAN)


def test_a_plan_is_read_for_its_profile(plan_file):
    plan = load_plan(plan_file, "smoke")
    assert [step.id for step in plan.steps] == ["one", "two"]
    assert plan.jobs == 2 and plan.threads == 1
    assert plan.step("one").parameters == {"word": "x", "seed": 1}
    assert plan.step("two").minutes == 0.5
    assert load_plan(plan_file, "cpu").step("one").parameters == {"word": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("needs: [one]", "needs: [three]"), "step two: needs='three': no such step"),
        (("id: two", "id: one"), "used twice: one"),
        (("provides: [results/one.jsonl]", "needs: [two]"), "circle"),
        (("results/one.jsonl", "../one.jsonl"), "provides='../one.jsonl'"),
        (("results/one.jsonl", "/one.jsonl"), "provides='/one.jsonl'"),
        (("minutes:", "minuets:"), "unknown minuets"),
        (("{smoke: 0.5", "{smoke: -1"), "minutes=-1"),
        (("jobs: 2", "jobs: 0"), "jobs=0"),
        (("jobs: 2", "jobs: two"), "jobs='two'"),
        (("word: x", "out_dir: x"), "the runner itself passes out_dir"),
        (("smoke: {seed", "full: {seed"), "unknown full"),
        (("notebook: a.ipynb, needs", "notebook: b.ipynb, needs"), "no such file"),
        (("id: one", "id: o/ne"), "letters, digits"),
        (("steps:", "steps: ["), "no valid YAML"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_step_and_the_value(plan_file, change, message):
    plan_file.write_text(PLAN.replace(*change))
    assert plan_file.read_text() != PLAN
    with pytest.raises(PlanError, match=message):
        load_plan(plan_file, "smoke")


def test_an_unknown_profile_and_a_pattern_without_match_are_refused(plan_file):
    with pytest.raises(PlanError, match="profile='huge': expected one of smoke, cpu"):
        load_plan(plan_file, "huge")
    with pytest.raises(PlanError, match="only='z\\*' matches no step"):
        load_plan(plan_file, "smoke").select("z*")


def test_two_steps_must_not_provide_the_same_file(plan_file):
    plan_file.write_text(PLAN.replace("needs: [one]", "needs: [one], provides: [results/one.jsonl]"))
    with pytest.raises(PlanError, match="provided by both one and two"):
        load_plan(plan_file, "smoke")


def test_publishing_a_file_that_no_step_provides_is_refused(plan_file):
    plan_file.write_text(PLAN + "publish: [figures/x.svg]\n")
    with pytest.raises(PlanError, match="publish='figures/x.svg'"):
        load_plan(plan_file, "smoke")


def test_choosing_a_step_brings_what_it_needs(plan_file):
    plan = load_plan(plan_file, "smoke")
    assert plan.with_needs(plan.select("two")) == {"one", "two"}
    assert plan.with_needs(plan.select("on*")) == {"one"}
    assert plan.select("a") == plan.select("a.ipynb") == {"one", "two"}


def test_a_step_can_be_kept_to_some_profiles(plan_file):
    plan_file.write_text(PLAN.replace("needs: [one]", "needs: [one], profiles: [cpu]"))
    assert [step.id for step in load_plan(plan_file, "smoke").steps] == ["one"]
    assert [step.id for step in load_plan(plan_file, "cpu").steps] == ["one", "two"]


def test_effective_parameters_are_defaults_overridden_by_the_step(plan_file):
    plan = load_plan(plan_file, "smoke")
    effective = check_parameters(plan, {"one", "two"})
    assert effective["one"] == {"profile": "smoke", "word": "x", "seed": 1}
    assert effective["two"] == {"profile": "smoke", "word": "hello", "seed": 7}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (PARAMETERS.replace("seed", "sede"), "a.ipynb has no parameter seed; it has .*sede"),
        (PARAMETERS.replace("runs_dir", "run_dir"), "lacks the parameter runs_dir"),
        (PARAMETERS + "\nk: int | None = 1", "does not see the parameter k"),
        (PARAMETERS + '\nk = "a=b"', "does not see the parameter k"),
        (PARAMETERS + "\nk = 1  # as in k=2", "does not see the parameter k"),
        (PARAMETERS + "\nk = len('abc')", "parameter k: expected a literal"),
        (PARAMETERS + "\nk, j = 1, 2", "expected `name = literal`"),
        (PARAMETERS + "\nprint(seed)", "expected `name = literal`"),
    ],
)
def test_a_parameters_cell_that_would_be_misread_is_refused(tmp_path, cell, message):
    plan = load_plan(project(tmp_path, {"a.ipynb": notebook("x = 1", parameters=cell)}, PLAN), "smoke")
    with pytest.raises(PlanError, match=message):
        check_parameters(plan, {"one", "two"})


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_cell_is_tagged_parameters(tmp_path, count):
    toy = notebook("x = 1", tags={0: "parameters"} if count == 2 else None)
    if count == 0:
        toy["cells"][1]["metadata"] = {}
    plan = load_plan(project(tmp_path, {"a.ipynb": toy}, PLAN), "smoke")
    with pytest.raises(PlanError, match=f"{count} cells tagged parameters"):
        check_parameters(plan, {"one"})


# --- keys -------------------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path):
    """Return a function that computes the key of a one-step plan over a copy of a toy package."""
    package = tmp_path / "package"
    (package / "data").mkdir(parents=True)
    (package / "weights").mkdir()
    sources = {
        "__init__.py": "",
        "train.py": "from .learner import build\nfrom mede_core.files import seed",
        "learner.py": "import os\nWEIGHTS = 'weights/model.bin'",
        "runs.py": "",
        "figures.py": "from mede_core import palette",
        "palette.py": "",
        "alone.py": "",
        "data/__init__.py": "",
        "data/world.py": "def f():\n    from . import sampling\n    from ..gwa import weights",
        "data/sampling.py": "",
        "gwa.py": "",
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    (package / "weights" / "model.bin").write_bytes(b"123")

    def compute(code="from mede_core import fit, figures\nimport mede_core.data.world as w", prose="# A", **change):
        plan = load_plan(project(tmp_path, {"a.ipynb": notebook(code, prose=prose)}, PLAN), "smoke")
        plan = dataclasses.replace(plan, threads=change.pop("threads", 1))
        step = dataclasses.replace(plan.step("one"), ignore_sources=change.pop("ignore", ()))
        arguments = {"parameters": {"seed": 1}, "inputs": {}, **change}
        return stepkey.key_parts(plan, step, package=package, **arguments)

    compute.package = package
    return compute


def test_a_key_changes_with_code_parameters_inputs_and_threads_but_not_with_prose(key):
    base = stepkey.digest(key())
    assert stepkey.digest(key(prose="# Other words")) == base
    for change in ({"code": "x = 2"}, {"parameters": {"seed": 2}}, {"inputs": {"r": "0"}}, {"threads": 2}):
        assert stepkey.digest(key(**change)) != base, change


def test_a_key_covers_the_sources_and_data_that_imports_reach_and_no_others(key):
    assert set(key()["sources"]) == {
        "train", "learner", "runs", "figures", "palette", "weights/", "data", "data.world", "data.sampling",
        "gwa",
    }  # fmt: skip
    assert set(key("import mede_core\nmede_core.fit()")["sources"]) == {
        "train",
        "learner",
        "runs",
        "weights/",
    }
    assert set(key("%matplotlib inline\n!ls\nimport numpy")["sources"]) == set()


@pytest.mark.parametrize("name", ["train.py", "learner.py", "data/sampling.py", "weights/model.bin"])
def test_a_key_changes_when_a_source_or_data_file_it_reaches_changes(key, name):
    before = key()
    with open(key.package / name, "a") as file:
        file.write("\nx = 1")
    after = key()
    assert stepkey.digest(after) != stepkey.digest(before)
    assert stepkey.what_changed(before, after).startswith("sources ")


def test_a_key_ignores_comments_and_modules_not_reached_or_ignored(key):
    before = key(ignore=("figures",))
    for name, text in {"alone.py": "x = 1", "figures.py": "x = 2", "palette.py": "x = 3"}.items():
        (key.package / name).write_text(text)
    with open(key.package / "train.py", "a") as file:
        file.write("\n# only a comment")
    assert key(ignore=("figures",)) == before


def test_the_reason_for_a_rerun_names_what_changed(key):
    before, after = key(), key(parameters={"seed": 2}, inputs={"results/a.jsonl": "1"})
    assert stepkey.what_changed(before, after) == "parameters; inputs results/a.jsonl"
    assert stepkey.what_changed(before, before) == ""


def test_every_public_name_leads_to_the_module_that_defines_it(tmp_path):
    package = Path(mede_core.__file__).parent
    for name, module in mede_core._HOME.items():
        plan = load_plan(project(tmp_path, {"a.ipynb": notebook(f"from mede_core import {name}")}, PLAN), "smoke")
        assert module in stepkey.key_parts(plan, plan.step("one"), {}, {}, package=package)["sources"]


def test_a_cell_that_is_no_python_is_refused(key):
    with pytest.raises(PlanError, match=r"a\.ipynb, cell 2: "):
        key("x = (")


def test_a_damaged_notebook_is_refused(tmp_path):
    plan_file = project(tmp_path, {"a.ipynb": notebook("x = 1")}, PLAN)
    text = json.dumps(notebook("x = 1"))
    (tmp_path / "notebooks" / "a.ipynb").write_text(text[: len(text) // 2])
    with pytest.raises(PlanError, match="a.ipynb is no valid notebook"):
        check_parameters(load_plan(plan_file, "smoke"), {"one"})
    shutil.copy(plan_file, tmp_path / "notebooks" / "a.ipynb")
    with pytest.raises(PlanError, match="a.ipynb is no valid notebook"):
        check_parameters(load_plan(plan_file, "smoke"), {"one"})
