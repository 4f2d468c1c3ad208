"""The gallery as a reader opens it: from a file, without a network, by keyboard, light and dark."""

import base64
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from drawings import DRAW

from mede_core.files import repo_root
from mede_core.report.gallery import build_gallery
from mede_core.report.page import Page
from mede_core.report.summary import write_summary

pytestmark = pytest.mark.ui
SEEN = """() => ({
  ground: getComputedStyle(document.body).backgroundColor,
  tooWide: document.documentElement.scrollWidth > innerWidth,
  broken: [...document.images].filter(one => !one.naturalWidth || !one.alt).map(one => one.outerHTML.slice(0, 200)),
  shades: [...document.images].map(one => one.currentSrc).filter(one => one.startsWith('file:')),
  formulas: [...document.querySelectorAll('main math')].filter(one => one.getBoundingClientRect().height > 5).length,
  ids: [...document.querySelectorAll('[id]')].map(one => one.id),
  links: [...document.links].map(one => one.href),
})"""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """The teaching notebooks as pages, the first with a figure that it has saved and with one that it only shows."""
    folder, steps = tmp_path_factory.mktemp("reports"), {}
    (folder / "executed").mkdir()
    png, about = Page(folder).figure("drawn", DRAW["weight_curves"])._repr_png_()
    data, shown = {"image/png": base64.b64encode(png).decode()}, [{"image/png": about}, {}]
    for path in sorted((repo_root() / "notebooks").glob("0*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        outputs = [nbformat.v4.new_output("display_data", data, metadata=one) for one in (shown if not steps else ())]
        notebook.cells.append(nbformat.v4.new_code_cell("draw()", outputs=outputs))
        nbformat.write(notebook, folder / "executed" / path.name)
        steps[path.stem] = {"notebook": path.name, "status": "done", "provides": []}
    next(iter(steps.values()))["provides"] = ["figures/drawn.svg", "figures/drawn.dark.svg"]
    build_gallery(folder, steps, repo_root() / "notebooks")
    write_summary(folder, steps, {})
    (folder / "manifest.json").write_text("{}")
    return folder / "gallery"


def access_key(page, letter: str) -> None:
    """Alt and a letter, as a keyboard sends it; `page.keyboard` leaves out the letter, which the browser looks at."""
    number = ord(letter.upper())
    key = {"key": letter, "unmodifiedText": letter, "windowsVirtualKeyCode": number, "modifiers": 1}
    with page.expect_navigation():
        page.context.new_cdp_session(page).send("Input.dispatchKeyEvent", {"type": "keyDown", **key})


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")])
def test_every_page_is_whole_and_is_reached_by_keyboard_with_the_network_off(gallery, browser, scheme, ground):
    context = browser.new_context(color_scheme=scheme, offline=True, viewport={"width": 1280, "height": 800})
    page, said, asked, seen = context.new_page(), [], [], {}
    page.set_default_timeout(120_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((gallery / "index.html").as_uri())
    while True:
        file = Path(unquote(urlsplit(page.url).path))
        assert file not in seen, "a circle"
        seen[file] = page.evaluate(SEEN)
        if file.name == "api.html":
            break
        access_key(page, "n")
    assert {file.name for file in seen} == {file.name for file in gallery.glob("*.html")}
    for file, found in seen.items():
        assert found["ground"] == ground and not found["tooWide"] and not found["broken"], (file, found)
        assert all(shade.endswith(".dark.svg") == (scheme == "dark") for shade in found["shades"])
        for link in map(urlsplit, found["links"]):
            target = Path(unquote(link.path))
            assert link.scheme == "https" or target.is_file(), (file, link)
            assert not link.fragment or target not in seen or link.fragment in seen[target]["ids"], (file, link)
    assert any(found["shades"] for found in seen.values()), "the figure that was saved"
    assert sum(found["formulas"] for found in seen.values()) > 10
    assert not said and all(address.startswith(("file:", "data:")) for address in asked)
    access_key(page, "p")
    assert Path(page.url).name == list(seen)[-2].name
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null"), "past the navigation"
    context.close()
