"""Gallery and summary read well with the network cut: nothing is loaded from elsewhere."""

import base64
import html
import json
import re

import pytest
from toy_notebooks import notebook

from mede_core.report.gallery import build_gallery, mathml, title_of
from mede_core.report.summary import duration, outside_tolerance, write_summary

PNG = base64.b64encode(b"\x89PNG not really").decode()
PROSE = r"""# Weights $w_t$ and **bias**
Inline $\theta' = \theta - \alpha g_S$.

$$w_t = \exp\left(-\frac{(t-\mu)^2}{2\sigma^2}\right)$$

[![Open](https://example.org/badge.svg)](https://example.org/open)
[next](other.ipynb#part) [readme](../README.md)
![plot](../figures/plot.svg) <script src="https://cdn.example.org/x.js"></script>
<iframe src="//cdn.example.org/x"></iframe>
<picture><source srcset="../figures/dark.svg"><img src="../figures/plot.svg"></picture>
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
    (tmp_path / "figures" / "dark.svg").write_text("<svg>dark</svg>")
    out = tmp_path / "reports" / "toy"
    content = notebook("plot()", "slider()", "table()", "hidden = 1", prose=PROSE, tags={1: "widget", 3: "hide-input"})
    cells = content["cells"]
    content["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    cells[2]["outputs"] = [output(image_png=PNG), output(**{WIDGET: {}})]
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
    "one": {"notebook": "this.ipynb", "chosen": {"method": "a"}, "status": "done", "seconds": 75, "peak_memory_mb": 12},
    "two": {
        "notebook": "other.ipynb", "status": "failed", "reason": "no | luck <b>", "seconds": None,
        "provides": ["tables/main_table.html"],
    },
}  # fmt: skip


def build(folder, steps=STEPS):
    return build_gallery(folder / "reports" / "toy", steps, folder / "notebooks")


def read_page(folder, name):
    return (folder / "reports" / "toy" / "gallery" / name).read_text()


def test_a_page_loads_nothing_from_the_network(folder):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    loads = re.findall(r"<(?:script|link|img|source|iframe)\b[^>]*(?:src|href|srcset)=[\"']([^\"']*)", text)
    assert loads and all(address.startswith("data:") for address in loads)
    assert "cdn.example.org" not in text and "x.org" not in text and "badge.svg" not in text
    assert text.count("data:image/svg+xml;base64,") == 3
    assert '<a href="https://example.org/open">Open</a>' in text


def test_formulas_become_mathml(folder):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    assert text.count("<math") == 4 and "<mfrac>" in text
    assert not re.search(r"\\(theta|alpha|frac)", text)


@pytest.mark.parametrize("tex", [r"\left( a", r"\nosuchname x", r"a_b_c", r"x \& y & z"])
def test_a_formula_that_cannot_be_converted_stays_readable(tex, caplog):
    assert mathml(tex) == f"<code>{html.escape(tex)}</code>"
    assert "formula shown as TeX" in caplog.text


@pytest.mark.parametrize("tex", [r"\begin{aligned} a &= b \\ c &< d \end{aligned}", r"a < b", r"\lVert g_Q \rVert_2"])
def test_common_formulas_are_converted(tex, caplog):
    assert mathml(tex, block=True).startswith('<math display="block">')
    assert not caplog.text


def test_widget_cells_are_dropped_and_hidden_inputs_hidden(folder):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    assert "SLIDER" not in text and "slider" not in text and "widget-state" not in text and WIDGET not in text
    assert "hidden" not in text.split("</style>")[-1]
    assert "TABLE" in text and f"data:image/png;base64,{PNG}" in text


def test_links_between_notebooks_lead_to_their_pages_and_others_become_text(folder):
    build(folder)
    text = read_page(folder, "notebook_one.html")
    assert '<a href="notebook_two.html#part">next</a>' in text
    assert "README.md" not in text and "readme" in text


def test_unchanged_pages_are_not_rebuilt_and_changed_ones_are(folder):
    assert build(folder) == ["one", "two"]
    assert build(folder) == []
    path = folder / "reports" / "toy" / "executed" / "two.ipynb"
    path.write_text(json.dumps(notebook("1", prose="# New title")))
    assert build(folder) == ["two"]
    assert "New title" in read_page(folder, "notebook_two.html") and "New title" in read_page(folder, "index.html")


def test_the_index_lists_the_pages_and_forgets_those_without_a_notebook(folder):
    build(folder)
    index = read_page(folder, "index.html")
    assert 'href="notebook_one.html"' in index and 'href="notebook_two.html"' in index
    assert 'src="notebook_one.png"' in index and "this.ipynb (method=a)" in index
    assert "Profile <code>toy</code>" in index
    (folder / "reports" / "toy" / "executed" / "two.ipynb").unlink()
    build(folder)
    assert "notebook_two.html" not in read_page(folder, "index.html")
    assert not (folder / "reports" / "toy" / "gallery" / "notebook_two.html").exists()


def test_a_step_called_index_does_not_take_the_gallerys_own_page(folder):
    out = folder / "reports" / "toy"
    (out / "executed" / "index.ipynb").write_text(json.dumps(notebook("1", prose="# Contents")))
    build(folder, {"index": STEPS["one"]})
    assert "Executed notebooks" in read_page(folder, "index.html")
    assert '<h1 id="Contents">Contents' in read_page(folder, "notebook_index.html")


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
    assert outside_tolerance(out) == []  # the table with a number far off is not comparable
    absent = {**STEPS["two"], "status": "missing data"}
    said = write_summary(out, {**done, "two": absent}, {})
    assert said == "All 1 steps that have their data are up to date, 1 without data not run"
    (out / "tables" / "off.json").write_text('{"comparable": true, "outside_tolerance": true}')
    assert write_summary(out, done, {}) == "All 1 steps are up to date; outside tolerance: off"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.26, "0.3 s"), (59.9, "59.9 s"), (75, "1 min 15 s"), (7300, "2 h 1 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_title_is_plain_text():
    assert title_of(notebook(prose="intro\n\n## The `gap` of [CLIP](x.md), **bold**")) == "The gap of CLIP, bold"
    assert title_of(notebook(prose="no heading")) == "Untitled"
