"""What names a result: hashes of settings, of data, and of the code that this process runs. Torch-free."""

import ast
import hashlib
import inspect
import json
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path

from .files import PACKAGE, sha256_file

NOT_DECIDING = ("config", "files", "names", "workspace")  # settings count by their values; the others change no result


def digest(value) -> str:
    """SHA-256 of a value that JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def tree_hash(source: str | bytes) -> str:
    """16 hex digits over what Python code does: its syntax tree without docstrings; comments are no part of it."""
    return hashlib.sha256(_dump(ast.parse(source)).encode()).hexdigest()[:16]


def _dump(node) -> str:  # ast.dump changes between Python versions, which add empty fields: they are skipped here
    if isinstance(node, list):
        return "[" + ",".join(map(_dump, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            value = value[1:] if _is_text(value[0] if value else None) else value
        if name == "values" and isinstance(node, ast.JoinedStr):  # 3.12 ends some format specs with an empty text
            value = [part for part in value if getattr(part, "value", None) != ""]
        if value is not None and value != []:
            fields.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_text(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def read_sources(package: Path = PACKAGE) -> dict[str, bytes]:
    """{module below the package, such as "world.render": its source}."""
    files = sorted(package.rglob("*.py"))
    names = (".".join(file.relative_to(package).with_suffix("").parts) for file in files)
    return {name: file.read_bytes() for name, file in zip(names, files)}


def import_closure(entries: Iterable[str], sources: dict[str, bytes], leave_out: Iterable[str] = ()) -> list[str]:
    """The modules that entries reach by imports, at any level of their code; `leave_out` is not entered."""
    found, queue, ours = set(), list(entries), f"{PACKAGE.name}."
    while queue:
        module = queue.pop()
        if module in found or module in leave_out or module not in sources:
            continue
        found.add(module)
        home = (ours + module).rpartition(".")[0]
        for node in ast.walk(ast.parse(sources[module])):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            if isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), home)
                names = [base, *(f"{base}.{name}" for name in names)]
            queue += [name.removeprefix(ours) for name in names if name.startswith(ours)]
    return sorted(found)


_AS_IMPORTED = read_sources()  # a kernel goes on with the code it imported, whatever the disk holds later


@lru_cache(maxsize=64)
def code_files(entries: tuple[str, ...]) -> dict[str, str]:
    """{module: tree hash} of the code that entries reach, as this process imported it."""
    return {module: as_imported(module) for module in import_closure(entries, _AS_IMPORTED, NOT_DECIDING)}


def as_imported(module: str) -> str | None:
    """Tree hash of a module of the package as this process imported it; None where there is none of that name."""
    return tree_hash(_AS_IMPORTED[module]) if module in _AS_IMPORTED else None


def check_disk(files: Mapping[str, str]) -> None:
    """Stop where the disk holds other code than this process runs: a result would be named by what did not make it."""
    changed = []
    for module, tree in files.items():
        path = (PACKAGE / module.replace(".", "/")).with_suffix(".py")
        on_disk = path.read_bytes() if path.is_file() else b""
        if on_disk != _AS_IMPORTED[module] and tree_hash(on_disk) != tree:
            changed.append(module)
    if changed:
        which = ", ".join(changed)
        raise RuntimeError(f"mede_core changed on disk since it was imported ({which}): restart the kernel")


def source_hash(method: Callable) -> str:
    """What a function does, or a class with those it is built on, such as one defined in a notebook cell."""
    if not isinstance(method, type):
        return tree_hash(textwrap.dedent(inspect.getsource(method)))
    parts = []  # by its functions: of a class in a cell Python finds no source
    for one in (base for base in method.__mro__ if base.__module__ == method.__module__):
        for name, value in vars(one).items():
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if inspect.isfunction(function):
                parts.append([name, source_hash(function)])
            elif not name.startswith("__"):
                parts.append([name, repr(value)])
    return digest(parts)[:16]


@lru_cache(maxsize=4096)
def _content(path: str, _changed_ns: int, _size: int) -> str:
    return sha256_file(path)[:16]


def content_hash(path: str | os.PathLike) -> str:
    """Hash of what a list of videos says, with the sidecar that ``mede prepare`` writes beside it."""
    files = [file for file in (Path(path), Path(path).with_suffix(".json")) if file.is_file()]
    stats = [file.stat() for file in files]
    return digest([_content(str(file), stat.st_mtime_ns, stat.st_size) for file, stat in zip(files, stats)])[:16]
