"""Notebooks in git are clean, runnable by parameters, and readable before they were run."""

import ast
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from toy_notebooks import PARAMETERS, notebook

from mede_core.config import PROFILES, Config, load_config
from mede_core.files import repo_root
from mede_core.notebook import overrides
from mede_core.reproduce.plan import (
    COMMON_PARAMETERS,
    PlanError,
    check_parameters,
    code_cells,
    load_plan,
    notebook_parameters,
    read_notebook,
    source_of,
)
from mede_core.reproduce.stepkey import without_magics

ROOT = repo_root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLAN = ROOT / "notebooks" / "reproduce.yaml"
TAGS = {"parameters", "widget", "hide-input", "remove-in-html"}
LONGEST_DEF = 8  # lines; what is longer belongs to the core, where it is tested
FORBIDDEN = (r"^\s*[!%]\s*pip\b", r"^\s*%cd\b", r"\bsys\.exit\(|(?<![.\w])exit\(", r"\brich\.traceback\b")
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|(?:src|href|srcset)\s*=\s*["']([^"']+)["']""")


def problems(path: Path) -> list[str]:
    """Return what is wrong with a committed notebook, one sentence each."""
    content = read_notebook(path)
    found = []
    metadata = content["metadata"]
    found += [f"metadata.{name} is left in it" for name in ("widgets", "papermill", "jupytext") if name in metadata]
    if metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernelspec is not python3")
    try:
        if missing := set(COMMON_PARAMETERS) - set(notebook_parameters(path)):
            found.append(f"it lacks the parameters {sorted(missing)}")
    except (PlanError, SyntaxError) as error:
        found.append(str(error))
    first = content["cells"][0]
    text = source_of(first)
    if first["cell_type"] != "markdown" or not text.startswith("# "):
        found.append("its first cell is no title")
    if "**You will learn**" not in text.replace(":**", "**"):
        found.append("its first cell does not say what you will learn")
    if not re.search(r"^.*\bcost\b.*\bmin", text, re.IGNORECASE | re.MULTILINE):
        found.append("its first cell has no line with the cost in minutes")
    for number, cell in enumerate(content["cells"]):
        unknown = set(cell["metadata"].get("tags", [])) - TAGS
        found += [f"cell {number}: unknown tag {tag}" for tag in sorted(unknown)]
        if cell["cell_type"] == "markdown":
            found += [f"cell {number}: {link} does not exist" for link in dead_links(source_of(cell), path.parent)]
    for number, cell in enumerate(code_cells(content)):
        found += [f"code cell {number}: {problem}" for problem in code_problems(cell)]
    return found


def code_problems(cell: dict) -> list[str]:
    """Return what is wrong with one code cell."""
    source = source_of(cell)
    found = ["it holds outputs"] if cell["outputs"] else []
    if cell["execution_count"] is not None:
        found.append("it holds an execution count")
    found += [f"forbidden: {m[0].strip()}" for rule in FORBIDDEN if (m := re.search(rule, source, re.MULTILINE))]
    try:
        tree = ast.parse(without_magics(source))
    except SyntaxError as error:
        return [*found, f"line {error.lineno}: {error.msg}"]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            length = node.end_lineno - node.lineno + 1
            if length > LONGEST_DEF:
                found.append(f"{node.name} has {length} lines: move it to mede_core")
    return found


def dead_links(text: str, folder: Path) -> list[str]:
    """Return the local links and pictures of a markdown text that lead nowhere."""
    prose = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", text, flags=re.DOTALL)
    targets = ((a or b).partition("#")[0] for a, b in LINK.findall(prose))
    local = (target for target in targets if target and not re.match(r"[a-z]+:|//", target))
    return [target for target in local if not (folder / target).exists()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    assert problems(path) == []


@pytest.mark.skipif(not PLAN.exists(), reason="no plan yet")
def test_the_plan_fits_the_notebooks_in_every_profile():
    for profile in yaml.safe_load(PLAN.read_text())["profiles"]:
        plan = load_plan(PLAN, profile)
        ids = {step.id for step in plan.steps}
        assert check_parameters(plan, ids).keys() == ids
        for step in plan.steps:
            for module in step.ignore_sources:
                assert find_spec(f"mede_core.{module}"), f"step {step.id}: ignore_sources: no module {module}"


@pytest.mark.skipif(not PLAN.exists(), reason="no plan yet")
def test_every_notebook_is_run_by_the_plan():
    planned = {step["notebook"] for step in yaml.safe_load(PLAN.read_text())["steps"]}
    assert {path.name for path in NOTEBOOKS} == planned


@pytest.mark.parametrize("name", ["10_train", "11_evaluate"])
@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_notebooks_own_parameters_leave_the_profiles_configuration_as_it_is(name, profile):
    given = notebook_parameters(ROOT / "notebooks" / f"{name}.ipynb")
    fields = set(Config.model_fields) - {"method"}
    left = overrides(**{field: given[field] for field in fields & given.keys()})
    assert load_config(profile, **left) == load_config(profile)


def test_committed_figures_are_small():
    for path in (ROOT / "figures").glob("*"):
        assert path.stat().st_size <= 100_000, f"{path.name} has {path.stat().st_size} bytes"


# --- the checker itself -----------------------------------------------------------------------------------

GOOD = "# A title\n**You will learn**\n- this\n\n**Cost**: CPU, 1 min; ![p](picture.svg) [x](other.md#part)"


@pytest.fixture
def check(tmp_path):
    """Return a function that applies a change to a good notebook and returns the checker's findings."""
    for name in ("picture.svg", "other.md"):
        (tmp_path / name).touch()

    def run(change=lambda content: None, **arguments):
        content = notebook(*arguments.pop("code", ["%matplotlib inline\nx = 1"]), **{"prose": GOOD, **arguments})
        change(content)
        (tmp_path / "toy.ipynb").write_text(json.dumps(content))
        return problems(tmp_path / "toy.ipynb")

    return run


def test_a_good_notebook_has_no_problems(check):
    assert check() == []
    assert check(code=["def f():\n" + "    x = 1\n" * 7]) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda c: c["cells"][2].update(outputs=[{"output_type": "stream"}]), "holds outputs"),
        (lambda c: c["cells"][2].update(execution_count=3), "execution count"),
        (lambda c: c["metadata"].update(widgets={}), "metadata.widgets"),
        (lambda c: c["metadata"].update(papermill={}), "metadata.papermill"),
        (lambda c: c["metadata"]["kernelspec"].update(name="conda-env"), "kernelspec"),
        (lambda c: c["cells"][1].update(metadata={}), "0 cells tagged parameters"),
        (lambda c: c["cells"][2].update(metadata={"tags": ["parameters"]}), "2 cells tagged parameters"),
        (lambda c: c["cells"][2].update(metadata={"tags": ["wigdet"]}), "unknown tag wigdet"),
        (lambda c: c["cells"].reverse(), "no title"),
    ],
)
def test_a_dirty_notebook_is_found_out(check, change, finding):
    assert any(finding in problem for problem in check(change)), check(change)


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        ({"prose": GOOD.replace("# A", "A")}, "no title"),
        ({"prose": GOOD.replace("learn", "see")}, "what you will learn"),
        ({"prose": GOOD.replace("Cost", "Size")}, "cost in minutes"),
        ({"prose": GOOD.replace("picture.svg", "gone.svg")}, "gone.svg does not exist"),
        ({"prose": GOOD + '<img src="../figures/gone.svg">'}, "../figures/gone.svg does not exist"),
        ({"prose": GOOD.replace("other.md", "gone.md")}, "gone.md does not exist"),
        ({"parameters": PARAMETERS + "\nk: int | None = 1"}, "does not see the parameter k"),
        ({"parameters": PARAMETERS.replace("runs_dir", "runs")}, "lacks the parameters ['runs_dir']"),
        ({"code": ["def f():\n" + "    x = 1\n" * 8]}, "f has 9 lines"),
        ({"code": ["class C:\n" + "    x = 1\n" * 8]}, "C has 9 lines"),
        ({"code": ["x = ("]}, "code cell 1: line 1"),
        ({"code": ["!pip install x"]}, "forbidden: !pip"),
        ({"code": ["%pip install x"]}, "forbidden: %pip"),
        ({"code": ["%cd .."]}, "forbidden: %cd"),
        ({"code": ["import sys\nsys.exit(0)"]}, "forbidden: sys.exit("),
    ],
)
def test_a_notebook_against_the_rules_is_found_out(check, arguments, finding):
    assert any(finding in problem for problem in check(**arguments)), check(**arguments)
