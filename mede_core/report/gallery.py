"""The offline HTML gallery: executed notebooks as pages that need no network, no script and no widget. Torch-free.
Formulas become MathML, pictures are embedded, widgets are dropped (each has a static twin)."""

import base64
import functools
import hashlib
import html
import json
import logging
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path

from ..files import atomic_write, sha256_file

logger = logging.getLogger(__name__)

TEMPLATES = ("style.css", "page.html.j2", "index.html.j2")
DROPPED_TAGS = {"widget", "remove-in-html"}
_REMOTE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
_REMOTE_CSS = re.compile(r"(@import\s+[^;]*;)|url\(\s*['\"]?(https?:)?//[^)]*\)", re.IGNORECASE)
_SCRIPTED = {"application/vnd.jupyter.widget-view+json", "application/javascript"}


def build_gallery(folder: Path, steps: Mapping[str, Mapping], notebooks: Path) -> list[str]:
    """Bring `gallery/` of a report folder up to date, a page for each `executed/ID.ipynb`; gives the rebuilt steps."""
    gallery = folder / "gallery"
    paths = {step_id: folder / "executed" / f"{step_id}.ipynb" for step_id in steps}
    executed = {step_id: path for step_id, path in paths.items() if path.is_file()}
    links: dict[str, str] = {}  # notebook -> its page; where several steps share one, the first of them
    for step_id in executed:
        links.setdefault(steps[step_id]["notebook"], page_name(step_id))
    recipe = [Path(__file__).read_text(encoding="utf-8"), *map(template, TEMPLATES), repr(sorted(links.items()))]
    built, cards = [], []
    for step_id, path in executed.items():
        page = gallery / page_name(step_id)
        key = hashlib.sha256("".join([*recipe, sha256_file(path)]).encode()).hexdigest()
        notebook = json.loads(path.read_text(encoding="utf-8"))
        chosen = ", ".join(f"{name}={value}" for name, value in steps[step_id].get("chosen", {}).items())
        about = {
            "title": title_of(notebook),
            "subtitle": steps[step_id]["notebook"] + (f" ({chosen})" if chosen else ""),
        }
        if not page.is_file() or key not in page.read_text(encoding="utf-8")[:400]:
            body = notebook_body(path, notebooks, links)
            atomic_write(page, fill_template("page.html.j2", **about, key=key, css=_page_css(), body=body))
            _write_thumbnail(notebook, page.with_suffix(".png"))
            built.append(step_id)
        picture = page.with_suffix(".png").name if page.with_suffix(".png").is_file() else ""
        cards.append({**about, "page": page.name, "picture": picture})
    current = {Path(page_name(step_id)).stem for step_id in executed}
    for file in gallery.glob("notebook_*"):
        if file.stem not in current:
            file.unlink()
    index = fill_template("index.html.j2", pages=cards, profile=folder.name, css=template("style.css"))
    atomic_write(gallery / "index.html", index)
    return built


def page_name(step_id: str) -> str:
    """The file name of a step's page; the prefix keeps a step called "index" off the gallery's own page."""
    return f"notebook_{step_id}.html"


@functools.cache
def template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def fill_template(name: str, **values) -> str:
    """Fill a template; in a page, what it does not call safe is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=".html." in name, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template(name)).render(**values)


def title_of(notebook: dict) -> str:
    for cell in notebook["cells"]:
        match = re.search(r"^#+\s+(.+)$", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "markdown" and match:
            return re.sub(r"[*`$]|\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).strip()
    return "Untitled"


def _write_thumbnail(notebook: dict, path: Path) -> None:
    path.unlink(missing_ok=True)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                atomic_write(path, base64.b64decode("".join(output["data"]["image/png"])))
                return


def notebook_body(path: Path, notebooks: Path, links: dict[str, str]) -> str:
    """An executed notebook as a fragment of HTML that refers to nothing outside itself but pages of other notebooks."""
    import bs4
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if not DROPPED_TAGS & set(cell.metadata.get("tags", []))]
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.metadata.setdefault("alt", f"Picture made by cell {number}")
            cell.outputs = [one for one in cell.outputs if not _SCRIPTED & one.get("data", {}).keys()]
            for data in (output.get("data", {}) for output in cell.outputs):
                if "text/latex" in data and "text/html" not in data:
                    data["text/html"] = mathml(data["text/latex"].strip().strip("$"), block=True)
    body, _ = _exporter().from_notebook_node(notebook)
    soup = bs4.BeautifulSoup(body, "html.parser")
    _take_offline(soup, notebooks)
    for anchor in soup.find_all("a", href=True):
        target, _, fragment = anchor["href"].partition("#")
        if target in links:
            anchor["href"] = links[target] + (f"#{fragment}" if fragment else "")
        elif target and not re.match(r"[a-z]+:", target):
            anchor.unwrap()  # a file of the repository: not beside this page
    return str(soup)


@functools.cache
def _exporter():
    """The notebook-to-fragment converter; nbconvert is slow to import and often not needed at all."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from traitlets.config import Config

    class MathMLRenderer(IPythonRenderer):
        def inline_math(self, body):
            return mathml(body)

        def block_math(self, body):
            return mathml(body, block=True)

        def multiline_math(self, text):
            return mathml(text.strip().strip("$"), block=True)

        def latex_environment(self, name, body):
            return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    class OfflineExporter(HTMLExporter):
        def default_filters(self):
            yield from super().default_filters()
            yield "markdown2html", lambda source: MarkdownWithMath(MathMLRenderer(escape=False)).render(source)

    hidden = Config()
    hidden.TagRemovePreprocessor.enabled = True
    hidden.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
    exporter = OfflineExporter(template_name="basic", config=hidden, log=logger)
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
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


def _take_offline(soup, base: Path) -> None:
    """Embed local pictures; replace what would be fetched from the network by its text."""
    for tag in soup.find_all(["script", "link", "iframe", "embed", "object"]):
        if any(_REMOTE.match(tag.get(name) or "") for name in ("src", "href", "data")):
            tag.decompose()
    for tag in soup.find_all(["img", "source", "video", "audio"]):
        for name in ("src", "srcset"):
            address = tag.get(name)
            if not address or address.startswith("data:"):
                continue
            file = base / address
            if not _REMOTE.match(address) and file.is_file():
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                tag[name] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
            else:
                if not _REMOTE.match(address):
                    logger.warning("picture %s is missing", address)
                tag.replace_with(tag.get("alt", ""))
                break
    for tag in soup.find_all("style"):
        tag.string = _REMOTE_CSS.sub("", tag.get_text())


@functools.cache
def _page_css() -> str:
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    plain = ".highlight { background: none !important; }"
    return f"{template('style.css')}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{plain}"
