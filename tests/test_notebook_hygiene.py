"""Notebooks in git are clean, runnable by parameters, and readable before they were run."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest
from toy_notebooks import notebook

from mede_core.batch import PlanError, asks
from mede_core.batch.plan import load_plan, notebook_parameters
from mede_core.config import Config
from mede_core.files import repo_root

ROOT = repo_root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAGS = {"parameters", "widget", "solution", "hide-input", "remove-in-html"}
COMMON_PARAMETERS = ("profile", "settings", "out_dir", "runs_dir")
MOST_PARAMETERS = 12  # lines
NOT_SETTINGS = {"method", "data"}  # names of parameters that fields of the configuration have too; data: data.yaml
LONGEST_DEF = 8  # lines; what is longer belongs to the core, where it is tested
FORBIDDEN = (r"^\s*[!%]\s*pip\b", r"^\s*%cd\b", r"\bsys\.exit\(|(?<![.\w])exit\(", r"\brich\.traceback\b")
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|(?:src|href|srcset)\s*=\s*["']([^"']+)["']""")
RESULT = re.compile(r"\d\.\d+ ?(?:%|points?\b)|\b\d\d\.\d\b")


def problems(path: Path) -> list[str]:
    """Return what is wrong with a committed notebook, one sentence each."""
    content = json.loads(path.read_text(encoding="utf-8"))
    found = []
    metadata = content["metadata"]
    found += [f"metadata.{name} is left in it" for name in ("widgets", "papermill", "jupytext") if name in metadata]
    if metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernelspec is not python3")
    try:
        found += parameter_problems(notebook_parameters(path))
    except PlanError as error:
        found.append(str(error))
    first = content["cells"][0]
    text = "".join(first["source"])
    if first["cell_type"] != "markdown" or not text.startswith("# "):
        found.append("its first cell is no title")
    if "**You will learn**" not in text.replace(":**", "**"):
        found.append("its first cell does not say what you will learn")
    if not re.search(r"^.*\bcost\b.*\bmin", text, re.IGNORECASE | re.MULTILINE):
        found.append("its first cell has no line with the cost in minutes")
    for number, cell in enumerate(content["cells"]):
        unknown = set(cell["metadata"].get("tags", [])) - TAGS
        found += [f"cell {number}: unknown tag {tag}" for tag in sorted(unknown)]
        before = content["cells"][number - 1]["source"]
        if "solution" in cell["metadata"].get("tags", []) and "### Exercise" not in "".join(before):
            found.append(f"cell {number}: a solution without an exercise above it")
        check = prose_problems if cell["cell_type"] == "markdown" else code_problems
        found += [f"cell {number}: {problem}" for problem in check(cell, path.parent)]
    return found


def parameter_problems(given: dict) -> list[str]:
    """Everybody has four parameters, few have more, and what the configuration knows goes into `settings`."""
    found = [f"it lacks the parameter {name}" for name in COMMON_PARAMETERS if name not in given]
    settings = given.keys() & Config.model_fields.keys() - NOT_SETTINGS
    found += [f"{name} belongs into settings" for name in sorted(settings)]
    found += [f"{name} is -1: a parameter says what it means" for name, value in given.items() if value == -1]
    return found + ([f"{len(given)} parameters"] if len(given) > MOST_PARAMETERS else [])


def prose_problems(cell: dict, folder: Path) -> list[str]:
    """Links and pictures lead somewhere, and results are printed by code: a typed number says whose it is."""
    text = "".join(cell["source"])
    typed = [part for part in text.split("\n\n") if RESULT.search(part) and not re.search("paper|FROSTER", part)]
    return [*(f"{link} does not exist" for link in dead_links(text, folder)),
            *(f"a result is typed by hand: {RESULT.search(part)[0]}" for part in typed)]  # fmt: skip


def code_problems(cell: dict, _folder: Path) -> list[str]:
    """Return what is wrong with one code cell."""
    source = "".join(cell["source"])
    found = ["it holds outputs"] if cell["outputs"] else []
    if cell["execution_count"] is not None:
        found.append("it holds an execution count")
    found += [f"forbidden: {m[0].strip()}" for rule in FORBIDDEN if (m := re.search(rule, source, re.MULTILINE))]
    if "parameters" in cell["metadata"].get("tags", []) and len(source.splitlines()) > MOST_PARAMETERS:
        found.append(f"it has {len(source.splitlines())} lines")
    try:
        tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
    except SyntaxError as error:
        return [*found, f"line {error.lineno}: {error.msg}"]
    hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
    if not hidden and ("solution" in cell["metadata"].get("tags", []) or is_plumbing(tree)):
        found.append("it only sets up or saves, or is a solution: fold it (jupyter.source_hidden)")
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            length = node.end_lineno - node.lineno + 1
            if length > LONGEST_DEF:
                found.append(f"{node.name} has {length} lines: move it to mede_core")
        elif isinstance(node, ast.Attribute) and node.attr in ("backward", "step"):
            found.append(f"{ast.unparse(node)}: a training belongs to mede_core")
    return found


def is_plumbing(tree: ast.Module) -> bool:
    """Whether a cell teaches nothing: it imports, opens the page, or saves a table under a caption with notes."""
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    words = {"caption", "notes", "title"}

    def saves(one: ast.stmt) -> bool:
        if isinstance(one, ast.Assign):
            return {ast.unparse(target) for target in one.targets} <= words
        return isinstance(one, ast.Expr) and ast.unparse(one).removeprefix("display(").startswith("page.table(")

    imports = all(isinstance(one, (ast.Import, ast.ImportFrom)) for one in tree.body)
    return bool(tree.body) and (imports or "Page" in called or all(map(saves, tree.body)))


def dead_links(text: str, folder: Path) -> list[str]:
    """Return the local links and pictures of a markdown text that lead nowhere."""
    prose = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", text, flags=re.DOTALL)
    targets = ((a or b).partition("#")[0] for a, b in LINK.findall(prose))
    local = (target for target in targets if target and not re.match(r"[a-z]+:|//", target))
    return [target for target in local if not (folder / target).exists()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    assert problems(path) == []


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full"])
def test_the_plan_fits_the_notebooks(profile):
    plan = load_plan(profile)  # refuses a parameter that its notebook lacks
    jobs = {job.notebook for job in plan.jobs.values()}
    assert jobs <= {path.stem for path in NOTEBOOKS}
    assert profile == "full" or len(jobs) == len(NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_asked_for_a_notebook_takes_its_parameters(path):
    ask = getattr(asks, path.stem.partition("_")[2], list)
    assert ask is list or inspect.signature(ask).parameters.keys() <= notebook_parameters(path).keys()


# --- the checker itself -----------------------------------------------------------------------------------
GOOD = "# A title\n**You will learn**\n- this\n\n**Cost**: CPU, 1 min; ![p](picture.svg) [x](other.md#part)"
PARAMETERS = 'profile = "cpu"\nsettings = {}\nout_dir = ""\nruns_dir = ""\nclips = 3'


@pytest.fixture
def check(tmp_path):
    """Return a function that applies a change to a good notebook and returns the checker's findings."""
    for name in ("picture.svg", "other.md"):
        (tmp_path / name).touch()

    def run(change=lambda content: None, **arguments):
        arguments = {"prose": GOOD, "parameters": PARAMETERS, **arguments}
        content = notebook(*arguments.pop("code", ["%matplotlib inline\nx = 1"]), **arguments)
        change(content)
        (tmp_path / "toy.ipynb").write_text(json.dumps(content))
        return problems(tmp_path / "toy.ipynb")

    return run


def test_a_good_notebook_has_no_problems(check):
    assert check() == []
    assert check(code=["def f():\n" + "    x = 1\n" * 7]) == []


def dirty(content):
    content["metadata"].update(widgets={}, papermill={}, kernelspec={"name": "conda-env"})
    content["cells"][2].update(outputs=[{"output_type": "stream"}], execution_count=3, metadata={"tags": ["wigdet"]})


@pytest.mark.parametrize(
    ("arguments", "findings"),
    [
        ({"change": dirty}, ["metadata.widgets", "metadata.papermill", "kernelspec", "it holds outputs",
                             "execution count", "unknown tag wigdet"]),
        ({"change": lambda c: c["cells"][1].update(metadata={})}, ["0 cells tagged parameters"]),
        ({"tags": {0: "parameters"}}, ["2 cells tagged parameters"]),
        ({"change": lambda c: c["cells"].reverse()}, ["no title"]),
        ({"prose": """A title\n**You will see**\n**Size**: 1 min; ![p](gone.svg) <img src="../figures/gone.svg">
            [x](gone.md#part)\n\nIt gains 2.3 points."""},
         ["no title", "what you will learn", "cost in minutes", " gone.svg does not exist", "../figures/gone.svg",
          "gone.md does not exist", "typed by hand: 2.3 points"]),
        ({"parameters": PARAMETERS + "\nk: int | None = 1"}, ["parameters cell"]),
        ({"parameters": PARAMETERS.replace("runs_dir", "runs") + "\nseed = 7\nk = -1" + "\n# more" * 6},
         ["lacks the parameter runs_dir", "seed belongs into settings", "k is -1", "it has 13 lines"]),
        ({"code": ["def f():\n" + "    x = 1\n" * 8, "class C:\n" + "    x = 1\n" * 8,
                   "for batch in loader:\n    optimizer.step()", "import math", "page = Page(out_dir)\nx = 1",
                   'caption = "C"\npage.table("t", table, caption=caption)', "assert True", "x = (", "!pip install x",
                   "%cd ..", "import sys\nsys.exit(0)"], "tags": {6: "solution"}},
         ["f has 9 lines", "C has 9 lines", "optimizer.step: a training", "cell 5: it only sets up", "cell 6: it only",
          "cell 7: it only", "a solution without an exercise", "cell 9: line 1", "forbidden: !pip", "forbidden: %cd",
          "forbidden: sys.exit("]),
    ],
)  # fmt: skip
def test_a_notebook_against_the_rules_is_found_out(check, arguments, findings):
    found = check(**arguments)
    assert [finding for finding in findings if not any(finding in one for one in found)] == []
