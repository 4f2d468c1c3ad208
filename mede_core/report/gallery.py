"""The offline HTML gallery: executed notebooks and the public names as pages that need no network and no script.
Formulas become MathML; widgets are dropped (each has a static twin); a figure that one step alone has saved is shown
light or dark as the reader's screen, any other picture is embedded as it is. Torch-free."""

import ast
import base64
import functools
import hashlib
import html
import logging
import mimetypes
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from .. import _HOME
from ..files import atomic_write
from ..names import read_sources

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).with_name("templates")
DARK = "screen and (prefers-color-scheme: dark)"  # paper is white
_SCRIPTED = {"application/vnd.jupyter.widget-view+json", "application/javascript"}


def build_gallery(folder: Path, steps: Mapping[str, Mapping], notebooks: Path) -> None:
    """Bring `gallery/` of a report folder up to date: contents, a page for each `executed/ID.ipynb`, and the API."""
    import nbformat

    pages, sources, links, own = [], {}, {}, {}
    saved = Counter(file for step in steps.values() for file in step.get("provides", ()))
    for step_id, step in sorted(steps.items(), key=lambda item: item[1]["notebook"]):
        if (path := folder / "executed" / f"{step_id}.ipynb").is_file():
            name, chosen = page_name(step_id), ", ".join(f"{k}={v}" for k, v in step.get("chosen", {}).items())
            sources[name] = nbformat.read(path, as_version=4)
            links.setdefault(step["notebook"], name)  # where several steps share one, the first of them
            own[name] = [file for file in step.get("provides", ()) if saved[file] == 1]
            about = step["notebook"] + (f" ({chosen})" if chosen else "")
            pages.append({"page": name, "title": title_of(sources[name]), "about": about})
    sources["api.html"] = nbformat.from_dict(api_notebook())
    pages.append({"page": "api.html", "title": "The public names", "about": "API"})
    recipe = [file.read_text(encoding="utf-8") for file in (Path(__file__), *sorted(TEMPLATES.iterdir()))]
    cards = []
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None]):
        name, file = page["page"], folder / "gallery" / page["page"]
        depends = (recipe, links, before, page, after, own.get(name), sources[name])
        key = hashlib.sha256(repr(depends).encode()).hexdigest()
        if not file.is_file() or key not in file.read_text(encoding="utf-8")[:400]:
            body = notebook_body(sources[name], notebooks, links, own.get(name, ()))
            values = {**page, "before": before, "after": after, "key": key, "css": _code_css(), "body": body}
            atomic_write(file, fill_template("page.html.j2", **values))
        first = re.search(r"<picture>.*?</picture>|<img [^>]*>", file.read_text(encoding="utf-8"), re.DOTALL)
        cards.append({**page, "picture": first[0] if first else ""})
    for file in (folder / "gallery").glob("notebook_*"):
        if file.name not in sources:
            file.unlink()
    index = fill_template("index.html.j2", pages=cards, profile=folder.name)
    atomic_write(folder / "gallery" / "index.html", index)


def page_name(step_id: str) -> str:
    """The file name of a step's page; the prefix keeps a step called "index" off the gallery's own page."""
    return f"notebook_{step_id}.html"


def fill_template(name: str, **values) -> str:
    """Fill a template; in a page, what it does not call safe is escaped."""
    import jinja2

    loader, escaped = jinja2.FileSystemLoader(TEMPLATES), jinja2.select_autoescape(["html.j2"])
    environment = jinja2.Environment(loader=loader, autoescape=escaped, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name).render(**values)


def title_of(notebook: Mapping, default: str = "Untitled") -> str:
    for cell in notebook["cells"]:
        match = re.search(r"^#+\s+(.+)$", cell["source"], re.MULTILINE)
        if cell["cell_type"] == "markdown" and match:
            return re.sub(r"[*`$]|\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).strip()
    return default


def notebook_body(notebook, notebooks: Path, links: Mapping[str, str], own: Collection[str]) -> str:
    """An executed notebook as a fragment of HTML that loads nothing but the step's ``own`` figures."""
    section = ""
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if "widget" not in cell.metadata.get("tags", ())]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            section = title_of({"cells": [cell]}, section)
            continue
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        cell.metadata |= {"alt": f"Picture in the section: {section}", "tags": ["folded"] if folded else []}
        cell.outputs = [one for one in cell.outputs if not _SCRIPTED & one.get("data", {}).keys()]
        for output in cell.outputs:
            data, about = output.get("data", {}), output.get("metadata", {}).get("image/png", {})
            if "text/latex" in data:
                data["text/markdown"] = data.pop("text/latex")
            if f"figures/{about.get('figure')}.dark.svg" in own:
                data["text/html"] = fill_template("figure.html.j2", **about, dark=DARK)
    body, _ = _exporter().from_notebook_node(notebook)
    return _offline(body, notebooks, links)


@functools.cache
def _exporter():
    """The notebook-to-fragment converter; nbconvert is slow to import and often not needed at all."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class MathMLRenderer(IPythonRenderer):
        inline_math = staticmethod(mathml)
        block_math = staticmethod(functools.partial(mathml, block=True))

        def latex_environment(self, name, body):
            return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    exporter = HTMLExporter(template_name="basic", log=logger)
    exporter.register_filter("markdown2html", lambda text: MarkdownWithMath(MathMLRenderer(escape=False)).render(text))
    return exporter


def mathml(tex: str, block: bool = False) -> str:
    """TeX as MathML, which browsers draw without a script; what has no MathML stays TeX."""
    from latex2mathml.converter import convert

    known = tex.replace("{aligned}", "{split}")  # the converter knows the twin only
    try:
        formula = convert(known, display="block" if block else "inline")
    except Exception as error:  # the converter's errors have no common base class
        problem = type(error).__name__
    else:
        # Inside HTML the namespace is implied, and nbconvert's heading parser turns it into prefixed tags.
        formula = formula.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
        unknown = re.search(r"<mi>(\\\w+|&)</mi>", formula)
        if not unknown:
            return formula
        problem = f"unknown {unknown[1]}"
    logger.warning("formula shown as TeX (%s): %s", problem, tex)
    return f"<code>{html.escape(tex)}</code>"


def _offline(body: str, base: Path, links: Mapping[str, str]) -> str:
    """Embed what lies on this machine, with its dark twin; of what would have to be fetched, the text stays."""
    import bs4

    soup = bs4.BeautifulSoup(body, "html.parser")
    for tag in soup.select("script, link, iframe, embed, object, source[srcset]:not(.own)"):
        tag.decompose()
    for tag in soup.select(":is(img, video, audio)[src]:not(.own, [src^='data:'])"):
        file = base / tag["src"]
        if not file.is_file():
            logger.warning("picture %s is not on this machine", tag["src"])
            tag.replace_with(tag.get("alt", ""))
            continue
        tag["src"] = _data_uri(file)
        if (twin := file.with_suffix(".dark.svg")).is_file():
            tag.wrap(soup.new_tag("picture")).insert(0, soup.new_tag("source", srcset=_data_uri(twin), media=DARK))
    for code in soup.select(".celltag_folded .input_area"):
        code.wrap(soup.new_tag("details")).insert(0, soup.new_tag("summary", string="Code"))
    for anchor in soup.find_all("a", href=True):
        target, _, fragment = anchor["href"].partition("#")
        if target in links:
            anchor["href"] = links[target] + (f"#{fragment}" if fragment else "")
        elif target and not re.match(r"[a-z]+:", target):
            anchor.unwrap()  # a file of the repository: not beside this page
    return str(soup)


def _data_uri(file: Path) -> str:
    return f"data:{mimetypes.guess_type(file.name)[0]};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _code_css() -> str:
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    return f"{light}\n@media {DARK} {{\n{dark}\n}}"


# ------------------------------------------------------------------------------------ the public names
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
