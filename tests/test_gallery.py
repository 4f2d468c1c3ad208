"""Gallery and summary read well with the network cut: nothing is loaded from elsewhere."""

import base64
import html
import inspect
import json
import re

import bs4
import pytest
from toy_notebooks import notebook

import mede_core
from mede_core.report.gallery import build_gallery, mathml
from mede_core.report.summary import duration, outside_tolerance, write_summary

PNG = base64.b64encode(b"\x89PNG not really").decode()
PROSE = r"""# Weights $w_t$ and **bias**
Inline $\theta' = \theta - \alpha g_S$.

$$w_t = \exp\left(-\frac{(t-\mu)^2}{2\sigma^2}\right)$$

[![Open](https://example.org/badge.svg)](https://example.org/open)
[next](other.ipynb#part) [readme](../README.md)
![a plot](../figures/plot.svg) ![gone](../figures/gone.svg) <script src="https://cdn.example.org/x.js"></script>
<iframe src="//cdn.example.org/x"></iframe>
"""
WIDGET = "application/vnd.jupyter.widget-view+json"


def output(**data):
    data = {kind.replace("_", "/", 1): value for kind, value in data.items()}
    return {"output_type": "display_data", "metadata": {}, "data": data}


@pytest.fixture
def folder(tmp_path):
    """A report folder with two executed notebooks, tables and figures, as a run leaves it."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "plot.svg").write_text("<svg>light</svg>")
    (tmp_path / "figures" / "plot.dark.svg").write_text("<svg>dark</svg>")
    out = tmp_path / "reports" / "toy"
    content = notebook("plot()", "slider()", "table()", "hidden = 1", prose=PROSE, tags={1: "widget"})
    cells = content["cells"]
    cells[5]["metadata"] = {"jupyter": {"source_hidden": True}}
    content["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    saved = {"figure": "curve", "alt": 'a "curve"; step', "width": 675, "height": 300}
    cells[2]["outputs"] = [output(image_png=PNG), output(**{WIDGET: {}})]
    cells[2]["outputs"].append(output(image_png=PNG) | {"metadata": {"image/png": saved}})
    cells[3]["outputs"] = [output(text_plain="SLIDER")]
    fragment = '<style>@import url("https://x.org/a.css");</style><link href="https://x.org/b.css"><b>TABLE</b>'
    cells[4]["outputs"] = [output(text_html=fragment), output(text_latex=r"$\alpha$")]
    for name, each in {"one": content, "two": notebook("1", prose="# Other")}.items():
        path = out / "executed" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(each))
    (out / "tables").mkdir()
    (out / "tables" / "main_table.html").write_text("<table><td>42.0</td></table>")
    (out / "tables" / "main_table.md").write_text("| 42.0 |")
    (out / "tables" / "main_table.json").write_text('{"comparable": false, "outside_tolerance": true}')
    (out / "figures").mkdir()
    for name in ("curve.svg", "curve.dark.svg"):
        (out / "figures" / name).write_text("<svg/>")
    return tmp_path


STEPS = {
    "one": {
        "notebook": "this.ipynb", "chosen": {"method": "a"}, "status": "done", "seconds": 75, "peak_memory_mb": 12,
        "provides": ["figures/curve.svg", "figures/curve.dark.svg"],
    },
    "two": {
        "notebook": "other.ipynb", "status": "failed", "reason": "no | luck <b>", "seconds": None,
        "provides": ["tables/main_table.html"],
    },
}  # fmt: skip


def build(folder, steps=STEPS):
    build_gallery(folder / "reports" / "toy", steps, folder / "notebooks")


def read_page(folder, name):
    return (folder / "reports" / "toy" / "gallery" / name).read_text()


def pictures(folder, name):
    """The addresses, light and dark, and the words of a page's pictures."""
    page = bs4.BeautifulSoup(read_page(folder, name), "html.parser")
    addresses = [tag.get("src") or tag["srcset"] for tag in page.select("img, source")]
    return addresses, [tag.get("alt") for tag in page.select("img")]


def test_a_page_loads_nothing_from_the_network(folder, caplog):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    addresses, _ = pictures(folder, "notebook_one.html")
    assert {address.partition(",")[0] for address in addresses} == {
        "data:image/svg+xml;base64", "data:image/png;base64", "../figures/curve.svg", "../figures/curve.dark.svg"
    }  # fmt: skip
    assert "cdn.example.org" not in text and "b.css" not in text and "badge.svg" not in text
    assert '<a href="https://example.org/open">Open</a>' in text
    assert "default-src 'none'" in text, "the browser holds what is left to it"
    assert "picture ../figures/gone.svg is not on this machine" in caplog.text


def test_every_picture_has_its_words_and_a_dark_twin_where_there_is_one(folder):
    build(folder)
    addresses, words = pictures(folder, "notebook_one.html")
    assert words == ["a plot", "Picture in the section: Weights w_t and bias", 'a "curve"; step']
    light, dark = (base64.b64encode(f"<svg>{shade}</svg>".encode()).decode() for shade in ("light", "dark"))
    assert addresses[:2] == [f"data:image/svg+xml;base64,{shade}" for shade in (dark, light)]


def test_a_figure_that_several_steps_save_is_shown_as_each_has_drawn_it(folder):
    two = {**STEPS["two"], "provides": ["figures/curve.dark.svg"]}
    build(folder, {**STEPS, "two": two})
    addresses, _ = pictures(folder, "notebook_one.html")
    assert not [address for address in addresses if "curve" in address]
    assert addresses.count(f"data:image/png;base64,{PNG}") == 2


def test_formulas_become_mathml(folder, caplog):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    assert text.count("<math") == 4 and "<mfrac>" in text
    assert not re.search(r"\\(theta|alpha|frac)", text)
    caplog.clear()
    for tex in (r"\begin{aligned} a &= b \\ c &< d \end{aligned}", r"a < b", r"\lVert g_Q \rVert_2"):
        assert mathml(tex, block=True).startswith('<math display="block">') and not caplog.text


@pytest.mark.parametrize("tex", [r"\left( a", r"\nosuchname x", r"a_b_c", r"x \& y & z"])
def test_a_formula_that_cannot_be_converted_stays_readable(tex, caplog):
    assert mathml(tex) == f"<code>{html.escape(tex)}</code>"
    assert "formula shown as TeX" in caplog.text


def test_widget_cells_are_dropped_and_hidden_inputs_folded(folder):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    assert "SLIDER" not in text and "slider" not in text and "widget-state" not in text and WIDGET not in text
    (fold,) = bs4.BeautifulSoup(text, "html.parser").select("main details")
    assert fold.summary.get_text() == "Code" and "hidden = 1" in fold.get_text() and not fold.has_attr("open")
    assert "TABLE" in text and f"data:image/png;base64,{PNG}" in text


def test_links_between_notebooks_lead_to_their_pages_and_others_become_text(folder):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    assert '<a href="notebook_two.html#part">next</a>' in text
    assert "README.md" not in text and "readme" in text


def test_unchanged_pages_are_not_rebuilt_and_changed_ones_are_with_their_neighbors(folder):
    def times():
        return {page.stem: page.stat().st_mtime_ns for page in (folder / "reports" / "toy" / "gallery").iterdir()}

    build(folder)
    first = times()
    build(folder)
    second = times()
    assert {name for name in first if first[name] != second[name]} == {"index"}
    path = folder / "reports" / "toy" / "executed" / "two.ipynb"
    path.write_text(json.dumps(notebook("1", prose="# New title")))
    build(folder)
    assert times().items() & second.items() == {("api", second["api"])}
    assert "New title" in read_page(folder, "notebook_two.html") and "New title" in read_page(folder, "index.html")


def test_the_index_lists_the_pages_and_forgets_those_without_a_notebook(folder):
    build(folder)
    index = read_page(folder, "index.html")
    assert 'href="notebook_one.html"' in index and 'href="notebook_two.html"' in index
    assert index.count("<picture>") == 1 and "this.ipynb (method=a)" in index
    assert "Profile <code>toy</code>" in index
    (folder / "reports" / "toy" / "executed" / "two.ipynb").unlink()
    build(folder)
    assert "notebook_two.html" not in read_page(folder, "index.html")
    assert not (folder / "reports" / "toy" / "gallery" / "notebook_two.html").exists()


def test_each_page_leads_on_to_the_next_and_back_in_the_notebooks_order(folder):
    build(folder)
    order = ["index.html", "notebook_two.html", "notebook_one.html", "api.html"]  # other.ipynb, this.ipynb
    for before, name, after in zip(["", *order], order, [*order[1:], ""]):
        page = bs4.BeautifulSoup(read_page(folder, name), "html.parser")
        keys = {link["accesskey"][0]: link["href"] for link in page.select("a[accesskey]")}
        assert keys.get("n", "") == after, name
        assert keys.get("p", "") == (before if before != "index.html" else ""), name
        assert page.select_one("body > a.skip:first-child")["href"] == "#" + page.main["id"]


def test_the_api_page_has_every_public_name_with_its_signature_and_docstring(folder):
    build(folder)
    page = bs4.BeautifulSoup(read_page(folder, "api.html"), "html.parser")
    assert {heading["id"] for heading in page.select("h2")} == set(mede_core.__all__)
    text, bold = page.get_text(), {tag.get_text() for tag in page.select("strong")}
    for name in mede_core.__all__:
        value = getattr(mede_core, name)
        assert ("class " if inspect.isclass(value) else "def ") + name in text
        assert inspect.getdoc(value).split()[0] in text
        made = inspect.signature(value).parameters if value.__module__ != "mede_core.config" else ()
        assert all(parameter in text for parameter in made), name
    assert "def state_dict(self)" in text and "_private" not in text and {"Args", "Raises"} <= bold


def test_a_step_called_index_does_not_take_the_gallerys_own_page_and_a_title_is_plain_text(folder):
    prose = "intro\n\n## The `gap` of [CLIP](x.md), **bold**"
    (folder / "reports" / "toy" / "executed" / "index.ipynb").write_text(json.dumps(notebook("1", prose=prose)))
    build(folder, {"index": STEPS["one"]})
    assert "Executed notebooks" in read_page(folder, "index.html")
    assert "<title>The gap of CLIP, bold</title>" in read_page(folder, "notebook_index.html")


def test_the_summary_shows_every_status_table_and_figure_and_marks_what_is_old(folder):
    out = folder / "reports" / "toy"
    build(folder)
    said = write_summary(out, STEPS, {"Commit": "abc with uncommitted changes", "torch": "2.15.0"})
    assert said == "1 of 2 steps are up to date, 1 failed"
    page, text = (out / "summary.html").read_text(), (out / "summary.md").read_text()
    assert "<td>42.0</td>" in page and "| 42.0 |" in text
    assert "From an earlier run: two" in page and "From an earlier run: two" in text
    assert "no | luck &lt;b&gt;" in page and "no \\| luck" in text
    assert 'srcset="figures/curve.dark.svg"' in page and page.count("<figure>") == 1
    for each in (page, text):
        for words in (said, "1 min 15 s", "12 MB", "abc with uncommitted changes", "2.15.0"):
            assert words in each
        assert str(folder) not in each


def test_the_headline_says_what_is_outside_its_tolerance_and_what_has_no_data(folder):
    out, done = folder / "reports" / "toy", {"one": STEPS["one"]}
    assert [duration(s) for s in (0.26, 59.9, 75, 7300)] == ["0.3 s", "59.9 s", "1 min 15 s", "2 h 1 min"]
    assert outside_tolerance(out) == []  # the table with a number far off is not comparable
    absent = {**STEPS["two"], "status": "missing data"}
    said = write_summary(out, {**done, "two": absent}, {})
    assert said == "All 1 steps that have their data are up to date, 1 without data not run"
    (out / "tables" / "off.json").write_text('{"comparable": true, "outside_tolerance": true}')
    assert write_summary(out, done, {}) == "All 1 steps are up to date; outside tolerance: off"
