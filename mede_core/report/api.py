"""The public names as a notebook for the gallery: signatures and docstrings, read from the sources. Torch-free."""

import ast
import re
import textwrap

from .. import _HOME
from ..names import read_sources

INTRO = """# The public names

`from mede_core import ...` gives these. Each stands here with its signature and its docstring, as in the code.

| Name | Module | What it is |
|---|---|---|
"""


def api_notebook() -> dict:
    """A notebook, not executed: a table of the names, then a section each; of a class, its public methods too."""
    sources, rows, cells = read_sources(), [], []
    for name, module in sorted(_HOME.items()):
        text = sources[module].decode()
        node = next(one for one in ast.parse(text).body if getattr(one, "name", None) == name)
        rows.append(f"| [{name}](#{name}) | `{module}` | {_prose(node).splitlines()[0]} |")
        cells.append(_cell("markdown", f"## {name}"))
        for one in (node, *(node.body if isinstance(node, ast.ClassDef) else ())):
            if one is node or (isinstance(one, ast.FunctionDef) and not one.name.startswith("_")):
                cells += [_cell("code", _signature(one, text)), _cell("markdown", _prose(one))]
    cells.insert(0, _cell("markdown", INTRO + "\n".join(rows)))
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": {"language_info": {"name": "python"}}, "cells": cells}


def _signature(node: ast.stmt, text: str) -> str:
    """The lines of a definition down to its body; of a class also its fields and how it is made."""
    lines = text.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    for one in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(one, ast.AnnAssign):
            lines.append("    " + ast.get_source_segment(text, one))
        elif isinstance(one, ast.FunctionDef) and one.name == "__init__":
            lines += text.splitlines()[one.lineno - 1 : one.body[0].lineno - 1]
    return textwrap.dedent("\n".join(lines)).replace("  # fmt: skip", "")


def _prose(node: ast.stmt) -> str:
    """A docstring as Markdown: headings of sections in bold, their items as a list."""
    text = re.sub(r"^    (?=\S)", "- ", ast.get_docstring(node) or "", flags=re.MULTILINE)
    return re.sub(r"^(\w+):$", r"**\1**\n", re.sub(r":\w+:(?=`)", "", text), flags=re.MULTILINE)


def _cell(kind: str, source: str) -> dict:
    ran = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **ran}
