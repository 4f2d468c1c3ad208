"""The offline HTML gallery: executed notebooks as pages that need no network, no script and no widget.

Formulas become MathML, pictures are embedded, cells tagged `widget` or `remove-in-html` are dropped (each
widget has a static twin). A page is rebuilt only when its notebook, this file or the templates change.
"""

import base64
import functools
import hashlib
import html
import logging
import mimetypes
import re
from importlib import resources
from pathlib import Path

from mede_core.files import atomic_write, sha256_file
from mede_core.reproduce.plan import read_notebook, source_of

logger = logging.getLogger(__name__)

DROPPED_TAGS = {"widget", "remove-in-html"}
_REMOTE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
_REMOTE_CSS = re.compile(r"(@import\s+[^;]*;)|url\(\s*['\"]?(https?:)?//[^)]*\)", re.IGNORECASE)
_LOADS = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|href|srcset|data)\s*=\s*"
    r"[\"']?\s*(?:https?:)?//[^>]*>",
    re.IGNORECASE,
)
_WIDGET = "application/vnd.jupyter.widget-view+json"


def build_gallery(steps: dict[str, dict], out: Path, notebooks: Path, profile: str) -> list[str]:
    """Bring the gallery up to date with the executed notebooks.

    Args:
        steps: {step id: its manifest entry}; a page is made for each that has an executed notebook.
        out: the report folder; the gallery is `gallery/` in it.
        notebooks: the notebooks' folder, against which their pictures and links are resolved.
        profile: named on the index page.

    Returns:
        The ids of the pages that were (re)built.

    Raises:
        RuntimeError: if a page would load something from the network.
    """
    folder = out / "gallery"
    executed = {step_id: out / "executed" / f"{step_id}.ipynb" for step_id in steps}
    executed = {step_id: path for step_id, path in executed.items() if path.is_file()}
    links: dict[str, str] = {}  # notebook -> its page; where several steps share one, the first in the plan
    for step_id in executed:
        links.setdefault(steps[step_id]["notebook"], page_name(step_id))
    recipe = hashlib.sha256(Path(__file__).read_bytes() + "".join(map(template, TEMPLATES)).encode())
    recipe.update(repr(sorted(links.items())).encode())
    built, pages = [], []
    for step_id, path in executed.items():
        page = folder / page_name(step_id)
        key = hashlib.sha256((recipe.hexdigest() + sha256_file(path)).encode()).hexdigest()
        notebook = read_notebook(path)
        subtitle = _subtitle(steps[step_id])
        if not page.is_file() or key not in page.read_text(encoding="utf-8")[:400]:
            values = {"key": key, "title": title_of(notebook), "subtitle": subtitle, "css": _page_css()}
            text = render("page.html.j2", **values, body=notebook_body(path, notebooks, links))
            check_offline(text, page.name)
            atomic_write(page, text)
            _write_thumbnail(notebook, page.with_suffix(".png"))
            built.append(step_id)
        picture = page.with_suffix(".png").name if page.with_suffix(".png").is_file() else ""
        pages.append({"page": page.name, "title": title_of(notebook), "subtitle": subtitle, "picture": picture})
    current = {Path(page_name(step_id)).stem for step_id in executed}
    for file in folder.glob("notebook_*"):
        if file.stem not in current:
            file.unlink()
    atomic_write(folder / "index.html", render("index.html.j2", pages=pages, profile=profile, css=style()))
    return built


def page_name(step_id: str) -> str:
    """Return the file name of a step's page; the prefix keeps a step called "index" off the gallery's own page."""
    return f"notebook_{step_id}.html"


TEMPLATES = ("style.css", "page.html.j2", "index.html.j2")


@functools.cache
def template(name: str) -> str:
    """Return a template's text."""
    return resources.files("mede_core.report").joinpath("templates", name).read_text(encoding="utf-8")


def style() -> str:
    """Return the style sheet shared by gallery and summary."""
    return template("style.css")


def render(name: str, **values) -> str:
    """Fill a template; `css`, `body` and a table's `html` go in as they are, all else is escaped."""
    import jinja2
    import markupsafe

    def marked(value):
        if isinstance(value, dict):
            return {k: markupsafe.Markup(v) if k == "html" else v for k, v in value.items()}
        return value

    for key, value in values.items():
        if key in ("css", "body"):
            values[key] = markupsafe.Markup(value)
        elif isinstance(value, list):
            values[key] = [marked(item) for item in value]
    loaded = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template(name))
    return loaded.render(**values)


def check_offline(text: str, name: str) -> None:
    """Raise RuntimeError if a page would load anything from the network; links may lead out."""
    styles = "\n".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL | re.IGNORECASE))
    if found := _LOADS.search(text) or _REMOTE_CSS.search(styles):
        raise RuntimeError(f"{name} would need the network: {found.group(0)[:200]}")


def title_of(notebook: dict) -> str:
    """Return a notebook's first heading as plain text."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and (match := re.search(r"^#+\s+(.+)$", source_of(cell), re.MULTILINE)):
            return re.sub(r"[*`$]|\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).strip()
    return "Untitled"


def _subtitle(entry: dict) -> str:
    chosen = ", ".join(f"{k}={v}" for k, v in entry.get("chosen", {}).items())
    return f"{entry['notebook']}" + (f" ({chosen})" if chosen else "")


def _write_thumbnail(notebook: dict, path: Path) -> None:
    """Save the notebook's first picture, for its card."""
    path.unlink(missing_ok=True)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                atomic_write(path, base64.b64decode("".join(output["data"]["image/png"])))
                return


def notebook_body(path: Path, notebooks: Path, links: dict[str, str]) -> str:
    """Return an executed notebook as a fragment of HTML that refers to nothing outside itself.

    Args:
        path: the executed notebook.
        notebooks: the folder its relative pictures and links are meant from.
        links: {notebook name: gallery page}.
    """
    import bs4
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if not DROPPED_TAGS & set(cell.metadata.get("tags", []))]
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.metadata.setdefault("alt", f"Picture made by cell {number}")
            cell.outputs = [_static(output) for output in cell.outputs if not _needs_script(output)]
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


def _needs_script(output) -> bool:
    data = output.get("data", {})
    return _WIDGET in data or "application/javascript" in data


def _static(output):
    """Turn a LaTeX output into MathML; other outputs stay."""
    data = output.get("data", {})
    if "text/latex" in data and "text/html" not in data:
        data["text/html"] = mathml(data["text/latex"].strip().strip("$"), block=True)
    return output


@functools.cache
def _exporter():
    """Return the notebook-to-fragment converter; nbconvert is slow to import and often not needed at all."""
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
            yield (
                "markdown2html",
                lambda source: MarkdownWithMath(MathMLRenderer(escape=False)).render(source),
            )

    hidden = Config()
    hidden.TagRemovePreprocessor.enabled = True
    hidden.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
    exporter = OfflineExporter(template_name="basic", config=hidden, log=logger)
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
    return exporter


def mathml(tex: str, block: bool = False) -> str:
    """Return TeX as MathML, which browsers draw without a script; what has no MathML stays TeX."""
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
    return f"{style()}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{plain}"
