"""Properties of the figures: the same bytes each time, both themes, no text over another, colors apart."""

import io
import json
import re
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from drawings import DRAW
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from mede_core.report.figures import diagram, film, results, training, trajectories
from mede_core.report.figures.style import (
    DARK,
    LIGHT,
    METHOD_STYLE,
    figure_bytes,
    look_of,
    save_figure,
    spread_apart,
    style,
)
from mede_core.study.units import TRAINERS


# ------------------------------------------------------------------------------------ every figure
def test_every_public_plot_function_is_covered():
    modules = (diagram, film, results, training, trajectories)
    plots = {name for module in modules for name, one in vars(module).items() if hasattr(one, "__wrapped__")}
    assert set(DRAW) == plots


@pytest.mark.parametrize("name", ["film_strip", "bar_in_out", "meta_step_2d"])  # images, hatches, contours
def test_all_saved_files_are_the_same_bytes_each_time(name, tmp_path):
    first = save_figure(DRAW[name], tmp_path / "a" / name, data={"x": [1, 2]}, run="meta-0123")
    with matplotlib.rc_context({"xtick.direction": "in", "axes.labelpad": 20, "font.size": 20}):  # a reader's own
        second = save_figure(DRAW[name], tmp_path / "b" / name, data={"x": [1, 2]}, run="meta-0123")
    assert sorted(first) == ["dark.svg", "json", "pdf", "png", "svg"]
    for kind in first:
        assert first[kind].name == f"{name}.{kind}"
        assert first[kind].read_bytes() == second[kind].read_bytes()
    assert "meta-0123" in first["svg"].read_text()


@pytest.mark.parametrize("name", DRAW)
def test_every_figure_follows_the_theme_and_gives_the_same_svg_each_time(name):
    drawn = []
    for dark in (False, False, True):
        with style(dark):
            drawn.append(figure_bytes(DRAW[name](), "svg", name).decode())
    assert drawn[0] == drawn[1]
    assert LIGHT.text in drawn[0]
    assert LIGHT.text not in drawn[2]
    assert DARK.text in drawn[2]
    assert len(drawn[0]) < 250_000


@pytest.mark.parametrize("name", DRAW)
def test_every_panel_shows_something_and_text_keeps_clear_of_other_text_and_of_the_figure_edge(name):
    figure = DRAW[name]()
    assert all(axes.has_data() for axes in figure.axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # lays everything out
    renderer = canvas.get_renderer()
    hidden = {  # labels of ticks beyond the limits exist, but are not drawn
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    boxes = []
    for text in set(figure.findobj(Text)) - hidden:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            boxes.append((text.get_text(), box))
            inside = box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1
            assert inside, text.get_text()
    for index, (one, a) in enumerate(boxes):
        for other, b in boxes[index + 1 :]:
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (wide > 1 and high > 1 and one != other), (one, other)


def test_the_bound_strikes_no_number_through():
    values = np.array([45.0, 48.0, 60.0])
    about = {"method": ["frozen", "finetune", "open_mede"], "context": "in"}
    frame = pd.DataFrame({**about, "value": values, "low": values - 1, "high": values + 1})
    figure = results.bar_in_out(frame, bound={"in": 50.0}, title="t")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    line = axes.transData.transform((0, 50))[1]
    numbers = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert {"45", "48", "60"} <= set(numbers)
    assert all(box.y0 > line for box in numbers.values())


def test_figures_do_not_register_with_pyplot_nor_change_settings():
    before = dict(matplotlib.rcParams)
    for draw in DRAW.values():
        assert isinstance(draw(), Figure)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_figure_shows_itself_in_a_notebook_on_the_page_of_its_theme():
    with style(dark=True):
        figure = DRAW["gwa_heatmap"]()
    data, size = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] == 675
    assert size["alt"].endswith("center mu (epoch); width sigma (epochs); top-1 accuracy (%)")
    pixels = imread(io.BytesIO(data))
    assert pixels.shape[1] == 2 * 675  # sharp on screens of twice the density
    assert np.allclose(pixels[0, 0, :3], to_rgb(DARK.page), atol=0.01)


# ------------------------------------------------------------------------------------ saving
def test_pdf_fonts_are_embedded_nothing_is_dated_and_svg_is_transparent_but_png_is_not(tmp_path):
    paths = save_figure(DRAW["weight_curves"], tmp_path / "f")
    assert sorted(paths) == ["dark.svg", "pdf", "png", "svg"]  # no data, no sidecar
    assert b"/Type3" not in paths["pdf"].read_bytes()
    assert b"CreationDate" not in paths["pdf"].read_bytes()
    svg = paths["svg"].read_text()
    assert "<dc:date>" not in svg
    patch = re.search(r'<g id="patch_1">.*?</g>', svg, re.DOTALL)[0]
    assert "fill: none" in patch or "opacity: 0" in patch
    assert (imread(paths["png"])[0, 0] == 1).all()


def test_the_sidecar_holds_the_plotted_data_and_the_run(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.1 + 0.2, np.nan]})
    data = {"frame": frame, "array": np.arange(3), "flag": np.bool_(True), "text": "x"}
    path = save_figure(DRAW["weight_curves"], tmp_path / "f", data=data, run="plain-9")["json"]
    told = {"frame": {"a": [1, 2], "b": [0.3, None]}, "array": [0, 1, 2], "flag": True, "text": "x"}
    assert json.loads(path.read_text()) == {"figure": "f", "run": "plain-9", "data": told}


def test_data_that_cannot_be_kept_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="object is not JSON serializable"):
        save_figure(DRAW["weight_curves"], tmp_path / "f", data={"x": object()})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ looks
def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("page", [LIGHT.page, DARK.page])
def test_every_method_stands_out_from_both_pages(page):
    for look in METHOD_STYLE.values():
        low, high = sorted(linear(color) @ [0.2126, 0.7152, 0.0722] for color in (look.color, page))
        assert (high + 0.05) / (low + 0.05) > 2.7


# Linear-RGB simulations of full deuteranopia and protanopia (Machado, Oliveira and Fernandes, 2009).
VISION = {
    "normal": np.eye(3),
    "deuteranope": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protanope": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}  # fmt: skip


@pytest.mark.parametrize("vision", VISION)
def test_any_two_methods_can_be_told_apart_by_color(vision):
    colors = np.array([linear(look.color) for look in METHOD_STYLE.values()])
    seen = np.clip(colors @ np.transpose(VISION[vision]), 0, 1)
    xyz = seen @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    ratio = xyz / [0.9505, 1, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distance[np.triu_indices(len(lab), 1)].min() > 20


def test_color_is_never_the_only_difference():
    for attribute in ("marker", "linestyle", "color", "label"):
        values = [str(getattr(look, attribute)) for look in METHOD_STYLE.values()]
        assert len(set(values)) == len(values), attribute
    assert tuple(METHOD_STYLE) == ("frozen", "finetune", "open_vclip", "froster", "open_mede_no_gwa", "open_mede")
    with style():
        trainers = [look_of(name) for name in TRAINERS]  # drawn as the methods that they make
    assert [look.label for look in trainers] == [*TRAINERS] and len({look.color for look in trainers}) == len(TRAINERS)


def test_labels_are_spread_as_little_as_possible_and_never_overlap():
    assert spread_apart([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread_apart([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread_apart([], 0.1).size == 0
    random = np.random.default_rng(0).random(12)
    moved = spread_apart(random, 0.07)
    assert np.diff(np.sort(moved)).min() > 0.07 - 1e-9
    assert (np.argsort(moved) == np.argsort(random)).all()
    assert moved.mean() == pytest.approx(random.mean())
