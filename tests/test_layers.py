"""The layout: data runs one way, files are short, the kernel stands alone, reading results loads no torch."""

import ast
import functools
import subprocess
import sys

import pytest

import mede_core
from mede_core.files import PACKAGE, repo_root
from mede_core.names import read_sources

# Low to high; a name stands for the module, or for all modules of a room. Modules of one line may import each other
# as long as there is no cycle.
LAYERS = (
    ("meta", "gwa", "adapters"),
    ("files",),
    ("config", "names", "checkpoints", "distributed"),
    ("averages", "weights", "flags", "schedule"),
    ("learner",),
    ("methods",),
    ("train",),
    ("scoring",),
    ("attention",),
    ("speed",),
    ("runs",),
    ("workspace",),
    ("world", "video"),
    ("report",),
    ("lab",),
    ("study",),
    ("batch",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# A ratchet: what the package has today may shrink, not grow; the design asks for less of it.
CORE_LINES, KERNEL_LINES, PACKAGE_LINES, LONGEST = 3731, 839, 16038, 350


@functools.cache
def sources():
    return {name: source for name, source in read_sources().items() if not name.endswith("__init__")}


def statements_at_import(body):
    """The statements that run when a module is imported: not those inside functions, nor those for type checkers."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
                yield from statements_at_import(node.body)
            yield from statements_at_import(getattr(node, "orelse", []))


@functools.cache
def imports(name):
    """The modules of the package that a module imports when it is imported."""
    package, found = name.split(".")[:-1], set()
    for node in statements_at_import(ast.parse(sources()[name]).body):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("mede_core")):
            base = package[: len(package) - node.level + 1] if node.level else []
            inside = (node.module or "").split(".") if node.module else []
            target = [*base, *(inside if node.level else inside[1:])]
            for alias in node.names:
                paths = (".".join([*target, alias.name]), ".".join(target))
                found |= set([path for path in paths if path in sources()][:1])
    return found


def rank(name):
    return RANK[name if name in RANK else name.split(".")[0]]


def test_every_module_has_its_layer():
    assert [name for name in sources() if name not in RANK and name.split(".")[0] not in RANK] == []


@pytest.mark.parametrize("name", sorted(sources()))
def test_no_module_imports_from_a_higher_layer(name):
    assert sorted(one for one in imports(name) if rank(one) > rank(name)) == []


def test_no_imports_run_in_a_circle():
    graph = {name: imports(name) for name in sources()}
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    assert graph == {}


def test_files_are_short_and_the_core_is_compact():
    lines = {name: source.count(b"\n") for name, source in read_sources().items()}
    assert [name for name, count in lines.items() if count > LONGEST] == []
    assert sum(count for name, count in lines.items() if "." not in name) <= CORE_LINES
    assert sum(lines[name] for name in LAYERS[0]) <= KERNEL_LINES
    assert sum(lines.values()) <= PACKAGE_LINES
    assert (repo_root() / "notebooks" / "Snakefile").read_text().count("\n") <= 300


def test_modules_have_names_of_their_own_and_no_underscore():
    assert [name for name in sources() if name.rpartition(".")[2].startswith("_") and name != "__main__"] == []


@pytest.mark.parametrize(
    ("light", "heavy"),
    [
        ("config files names averages runs workspace weights schedule batch.asks study.units video.bias", {"torch"}),
        ("video.predict", {"torch", "matplotlib"}),
        (" ".join(name for name in sources() if name.startswith("report.")), {"torch", "matplotlib.pyplot"}),
        ("report.tables report.twins report.costs report.averaging report.summary", {"matplotlib"}),
        ("report.metrics", {"pandas"}),
        ("batch.reproduce batch.plan batch.doctor", {"papermill", "nbconvert", "torch"}),
    ],
)
def test_reading_results_and_planning_load_nothing_heavy(light, heavy):
    code = f"import importlib, sys\nfor name in {light.split()!r}: importlib.import_module('mede_core.' + name)\n"
    command = [sys.executable, "-W", "error", "-c", code + f"print({heavy} & set(sys.modules))"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert answer.stdout.strip() == "set()", answer


@pytest.mark.parametrize("name", mede_core.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(mede_core, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(mede_core)
