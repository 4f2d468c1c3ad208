"""The key that says when a step of the plan is stale: a hash of all that can change what it computes.

Code cells, effective parameters, the `mede_core` sources and package data reached through imports, the
content of the inputs and of the video lists and weights that data.yaml names, library versions and the
thread count count; prose does not, nor do sources that the notebook never imports, nor where the lists
lie. Imports are read from the syntax trees, nothing is executed: a module name built at run time is not
seen (the package's own lazy public names are).
"""

import ast
import functools
import hashlib
import json
import re
from importlib import metadata
from pathlib import Path

import mede_core
from mede_core.files import sha256_file
from mede_core.reproduce.plan import Plan, PlanError, Step, code_cells, read_notebook, source_of

KEY_PACKAGES = ("torch", "numpy", "open_clip_torch")


def key_parts(plan: Plan, step: Step, parameters: dict, inputs: dict[str, str], package: Path | None = None) -> dict:
    """Return what a step's result depends on, part by part, so that a rerun can say why.

    Args:
        plan: the plan, for the notebook's folder and the thread count.
        step: the step.
        parameters: its effective parameters.
        inputs: {path: sha256} of what the steps it needs have provided.
        package: folder of the `mede_core` sources; default: the imported ones.

    Returns:
        A dict that JSON can hold; `digest` of it is the key.
    """
    notebook = read_notebook(plan.folder / step.notebook)
    environment = {name: metadata.version(name) for name in KEY_PACKAGES}
    return {
        "code": digest([source_of(cell) for cell in code_cells(notebook)]),
        "parameters": digest({**parameters, **step.written}),
        "sources": source_hashes(notebook, step, package or Path(mede_core.__file__).parent),
        "inputs": inputs,
        **({"data": step.data} if step.data else {}),
        "environment": {**environment, "threads": plan.threads},
    }


def digest(value) -> str:
    """Return the SHA-256 of a value that JSON can hold; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def what_changed(old: dict | None, new: dict) -> str:
    """Say in which parts two results of `key_parts` differ, such as "sources train"; "" where in none."""
    if not old:
        return "never finished"
    changed = []
    for part, value in new.items():
        before = old.get(part)
        if before != value:
            named = isinstance(value, dict) and isinstance(before, dict)
            keys = sorted(k for k in value.keys() | before.keys() if value.get(k) != before.get(k)) if named else []
            changed.append(" ".join([part, ", ".join(keys)]).strip())
    return "; ".join(changed)


def source_hashes(notebook: dict, step: Step, package: Path) -> dict[str, str]:
    """Return {module or data folder of mede_core: sha256} for all that a notebook's imports reach.

    Args:
        notebook: the notebook's JSON.
        step: names the notebook in errors; modules in its `ignore_sources` (with their submodules) are left
        out.
        package: folder of the `mede_core` sources.

    Raises:
        PlanError: if a code cell is no valid Python.
    """
    todo: set[str] = set()
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            try:
                tree = ast.parse(without_magics(source_of(cell)))
            except SyntaxError as error:
                raise PlanError(f"{step.notebook}, cell {number}: {error.msg} (line {error.lineno})") from error
            todo |= _imported(tree, package, ())
    hashes: dict[str, str] = {}
    while todo:
        module = todo.pop()
        ignored = any(module == name or module.startswith(name + ".") for name in step.ignore_sources)
        if module not in hashes and not ignored:
            file = _module_file(package, module)
            hashes[module], imported, folders = _read_module(package, module, sha256_file(file))
            hashes.update({folder + "/": _folder_hash(package / folder) for folder in folders})
            todo |= imported
    return hashes


def without_magics(source: str) -> str:
    """Return a cell's text with IPython's `%magic` and `!shell` lines replaced by `pass`."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


@functools.cache
def _read_module(package: Path, module: str, file_hash: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """Return (hash of the code without comments, modules it imports, data folders it names)."""
    tree = ast.parse(_module_file(package, module).read_text(encoding="utf-8"))
    path = tuple(module.split("."))
    parents = path if (package.joinpath(*path) / "__init__.py").is_file() else path[:-1]
    data = {f.name for f in package.iterdir() if f.is_dir() and f.name[0] not in "._" and not list(f.glob("*.py"))}
    words = {
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in re.split(r"[/\\.]", node.value)
    }
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return code, frozenset(_imported(tree, package, parents)), frozenset(data & words)


def _imported(tree: ast.AST, package: Path, parents: tuple[str, ...]) -> set[str]:
    """Return the modules of the package (without `mede_core.`) that a tree's import statements reach."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mede_core."):
                    found |= _with_parents(package, alias.name.split(".")[1:])
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, parents)
            if base is not None:
                found |= _with_parents(package, base)
                for alias in node.names:
                    home = mede_core._HOME.get(alias.name) if not base else None
                    found |= _with_parents(package, [*base, alias.name] if home is None else home.split("."))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mede_core":
            found |= _with_parents(package, mede_core._HOME.get(node.attr, node.attr).split("."))
    return found


def _base(node: ast.ImportFrom, parents: tuple[str, ...]) -> list[str] | None:
    """Return the path inside the package that `from ... import` names, or None for other packages."""
    names = node.module.split(".") if node.module else []
    if node.level:
        return [*parents[: len(parents) - node.level + 1], *names]
    return names[1:] if names[:1] == ["mede_core"] else None


def _with_parents(package: Path, path) -> set[str]:
    """Return the dotted names of a module and the packages above it, as far as such files exist."""
    names = (".".join(path[: i + 1]) for i in range(len(path)))
    return {name for name in names if _module_file(package, name) is not None}


def _module_file(package: Path, module: str) -> Path | None:
    base = package.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _folder_hash(folder: Path) -> str:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return digest({f.relative_to(folder).as_posix(): sha256_file(f) for f in files})
