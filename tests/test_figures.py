"""Properties of the figures: the data on the artists, the same bytes each time, both themes, clear errors."""

import io
import json
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from test_figures_study import FOREST, LINES, LOOKS

from mede_core import figures
from mede_core.report.figures.style import DARK, LIGHT, METHOD_ORDER, METHOD_STYLE, _render, save_figure, spread, style

T, H = 4, 16
EPOCHS = np.arange(1, 9)


def methods_frame(methods=METHOD_ORDER, contexts=("in", "scene", "noise", "stripes")):
    rows = [
        {"method": method, "context": context, "value": 40.0 + 5 * i + j}
        for i, method in enumerate(methods)
        for j, context in enumerate(contexts)
    ]
    return pd.DataFrame(rows).assign(low=lambda f: f["value"] - 2, high=lambda f: f["value"] + 3)


def clip():
    rng = np.random.default_rng(0)
    mask = np.zeros((T, H, H), bool)
    mask[:, 4:8, 4:12] = True
    return rng.integers(0, 256, (T, 3, H, H), dtype=np.uint8), mask


def curves():
    gwa = np.exp(-((EPOCHS - 5.0) ** 2) / 8)
    last = (EPOCHS == 8).astype(float)
    return {"GWA": gwa / gwa.sum(), "SWA": np.full(8, 1 / 8), "last": last}


def metrics_frame():
    step = np.arange(40)
    return pd.DataFrame(
        {
            "step": step, "epoch": step // 10 + 1, "support_loss": 3 - step / 20,
            "query_loss": 3.2 - step / 20, "grad_inner_product": np.cos(step), "lr": np.full(40, 1e-3),
        }
    )  # fmt: skip


def meta_arguments():
    x, y = np.linspace(-2, 2, 21), np.linspace(-1, 2, 16)
    grid_x, grid_y = np.meshgrid(x, y)
    return {
        "x": x, "y": y, "support_loss": (grid_x - 1) ** 2, "query_loss": (grid_y - 1) ** 2, "theta": [-1, 0],
        "theta_fast": [-0.2, 0], "support_grad": [-4, 0], "query_grad": [0, -2],
        "paths": {"plain": [[-1, 0], [0, 0]]}, "minimum": [1, 1],
    }  # fmt: skip


def base_novel_frame():
    rows = [
        {"method": m, "split": s, "value": v, "set": "source"}
        for m, values in (("frozen", (62.3, 53.4, 57.5)), ("open_mede", (77.3, 63.8, 69.9)))
        for s, v in zip(("base", "novel", "hm"), values, strict=True)
    ]
    return pd.DataFrame(rows)


def rho_frame():
    rows = [
        {
            "rho": rho,
            "method": m,
            "value": 90 - 50 * rho * (m == "finetune"),
            "context": c,
            "low": 20,
            "high": 95,
        }
        for rho in (0.95, 0.25, 0.75)
        for m in ("finetune", "open_mede")
        for c in ("in", "out")
    ]
    return pd.DataFrame(rows)


DRAW = {
    "film_strip": lambda: figures.film_strip([clip()[0]] * 2, ["one", "two"], [clip()[1]] * 2, title="clips"),
    "film_strip_attention": lambda: figures.film_strip_attention(clip()[0], np.ones((T, 4, 4)), clip()[1]),
    "weight_curves": lambda: figures.weight_curves(curves(), 5, 2),
    "bar_in_out": lambda: figures.bar_in_out(methods_frame(), chance=1.4, bound={"scene": 50, "noise": 50}),
    "base_novel": lambda: figures.base_novel(base_novel_frame()),
    "cost_ratios": lambda: figures.cost_ratios({"Time": {"finetune": 1.0, "open_mede": 2.0}}),
    "training_curves": lambda: figures.training_curves(metrics_frame(), warmup_epochs=1),
    "meta_step_2d": lambda: figures.meta_step_2d(**meta_arguments()),
    "rho_dial": lambda: figures.rho_dial(rho_frame(), chance=1.4, bound=50),
    "actor_mass": lambda: figures.actor_mass(methods_frame(contexts=("in", "scene")), area=12),
    "difference_forest": lambda: figures.difference_forest(FOREST, margin=1.0),
    "epoch_lines": lambda: figures.epoch_lines(LINES, label="cosine", zero=True),
    "drop_scatter": lambda: figures.drop_scatter(LOOKS, {"order_gap": "order gap (points)"}),
    "gwa_heatmap": lambda: figures.gwa_heatmap(
        [1, 2, 3], [1, 4], [[60, 61, 62], [63, 66, 64]], published=(2.5, 2.5), references={"SWA": 61.0}
    ),
    "trajectory_accuracy": lambda: figures.trajectory_accuracy(
        EPOCHS, {"in": 80 + EPOCHS, "out": 60 - EPOCHS}, {"GWA": {"in": 88.0, "out": 59.0}}
    ),
}


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def lines_of_color(axes, color):
    return [line for line in axes.lines if line.get_color() == color and line.get_transform() is not None]


# ------------------------------------------------------------------------------------ every figure
def test_every_public_plot_function_is_covered():
    plots = {name for name in figures.__all__ if callable(getattr(figures, name)) and name.islower()}
    assert set(DRAW) == plots - {"attention_share", "save_figure", "style"}


@pytest.mark.parametrize("name", ["film_strip", "bar_in_out", "meta_step_2d"])  # images, hatches, contours
def test_all_saved_files_are_the_same_bytes_each_time(name, tmp_path):
    first = save_figure(DRAW[name], tmp_path / "a" / name, data={"x": [1, 2]}, run="meta-0123")
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
            drawn.append(_render(DRAW[name](), "svg", name, None).decode())
    assert drawn[0] == drawn[1]
    assert LIGHT.text in drawn[0]
    assert LIGHT.text not in drawn[2]
    assert DARK.text in drawn[2]
    assert len(drawn[0]) < 250_000


@pytest.mark.parametrize("name", DRAW)
def test_text_keeps_clear_of_other_text_and_of_the_figure_edge(name):
    figure = DRAW[name]()
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
            assert box.x0 >= -1, text.get_text()
            assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert box.y0 >= -1, text.get_text()
            assert box.y1 <= figure.bbox.y1 + 1, text.get_text()
    for index, (one, a) in enumerate(boxes):
        for other, b in boxes[index + 1 :]:
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (wide > 1 and high > 1 and one != other), (one, other)


@pytest.mark.parametrize("name", DRAW)
def test_every_panel_shows_something(name):
    for axes in DRAW[name]().axes:
        assert axes.has_data()


def test_figures_do_not_register_with_pyplot_nor_change_settings():
    before = dict(matplotlib.rcParams)
    for draw in DRAW.values():
        assert isinstance(draw(), Figure)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_readers_own_settings_do_not_change_the_bytes(tmp_path):
    first = save_figure(DRAW["bar_in_out"], tmp_path / "a")["svg"].read_bytes()
    with matplotlib.rc_context({"xtick.direction": "in", "axes.labelpad": 20, "font.size": 20}):
        assert save_figure(DRAW["bar_in_out"], tmp_path / "a")["svg"].read_bytes() == first


def test_a_figure_shows_itself_in_a_notebook_on_the_page_of_its_theme():
    with style(dark=True):
        figure = DRAW["gwa_heatmap"]()
    data, size = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] == 675
    pixels = imread(io.BytesIO(data))
    assert pixels.shape[1] == 2 * 675  # sharp on screens of twice the density
    assert np.allclose(pixels[0, 0, :3], to_rgb(DARK.page), atol=0.01)


# ------------------------------------------------------------------------------------ saving
SAME = Figure()


def test_pdf_fonts_are_embedded_as_truetype_and_nothing_is_dated(tmp_path):
    paths = save_figure(DRAW["weight_curves"], tmp_path / "f")
    assert sorted(paths) == ["dark.svg", "pdf", "png", "svg"]  # no data, no sidecar
    assert b"/Type3" not in paths["pdf"].read_bytes()
    assert b"CreationDate" not in paths["pdf"].read_bytes()
    assert "<dc:date>" not in paths["svg"].read_text()


def test_svg_is_transparent_and_png_is_not(tmp_path):
    paths = save_figure(DRAW["weight_curves"], tmp_path / "f")
    patch = re.search(r'<g id="patch_1">.*?</g>', paths["svg"].read_text(), re.DOTALL)[0]
    assert "fill: none" in patch or "opacity: 0" in patch
    pixels = imread(paths["png"])
    assert (pixels[0, 0, :3] == 1).all()
    if pixels.shape[2] == 4:
        assert (pixels[..., 3] == 1).all()


def test_the_sidecar_holds_the_plotted_data_and_the_run(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.1 + 0.2, np.nan]})
    data = {"frame": frame, "array": np.arange(3), "flag": np.bool_(True), "text": "x"}
    path = save_figure(DRAW["weight_curves"], tmp_path / "f", data=data, run="plain-9")["json"]
    assert json.loads(path.read_text()) == {
        "figure": "f",
        "run": "plain-9",
        "data": {"frame": {"a": [1, 2], "b": [0.3, None]}, "array": [0, 1, 2], "flag": True, "text": "x"},
    }


@pytest.mark.parametrize(
    ("draw", "stem", "data", "message"),
    [
        (Figure(), "f", None, "draw is a Figure; allowed: a function"),
        (lambda: None, "f", None, "draw returned NoneType"),
        (lambda: SAME, "f", None, "a new matplotlib Figure each time"),
        (DRAW["weight_curves"], "", None, "path_stem is"),
        (DRAW["weight_curves"], "f", {"x": object()}, "data.x is a object"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(draw, stem, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_figure(draw, tmp_path / stem if stem else "", data=data)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ looks
def luminance(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("page", [LIGHT.page, DARK.page])
def test_every_method_stands_out_from_both_pages(page):
    for look in METHOD_STYLE.values():
        low, high = sorted([luminance(look.color), luminance(page)])
        assert (high + 0.05) / (low + 0.05) > 2.7


# Linear-RGB simulations of full deuteranopia and protanopia (Machado, Oliveira and Fernandes, 2009).
VISION = {
    "normal": np.eye(3),
    "deuteranope": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protanope": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}  # fmt: skip


@pytest.mark.parametrize("vision", VISION)
def test_any_two_methods_can_be_told_apart_by_color(vision):
    rgb = np.array([to_rgb(look.color) for look in METHOD_STYLE.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
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
    assert METHOD_ORDER == ("frozen", "finetune", "open_vclip", "froster", "open_mede_no_gwa", "open_mede")


def test_labels_are_spread_as_little_as_possible_and_never_overlap():
    assert spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([], 0.1).size == 0
    random = np.random.default_rng(0).random(12)
    moved = spread(random, 0.07)
    assert np.diff(np.sort(moved)).min() > 0.07 - 1e-9
    assert (np.argsort(moved) == np.argsort(random)).all()
    assert moved.mean() == pytest.approx(random.mean())


# ------------------------------------------------------------------------------------ data on the artists
def test_bars_have_the_values_and_intervals_given():
    frame = methods_frame()
    axes = figures.bar_in_out(frame, chance=1.4, bound=50).axes[0]
    bars = {
        container.get_label(): container for container in axes.containers if hasattr(container, "patches")
    }
    for method, look in METHOD_STYLE.items():
        own = frame[frame["method"] == method]
        heights = [bar.get_height() for bar in bars[look.label]]
        assert heights == own["value"].tolist()
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "in context",
        "other scene",
        "noise",
        "stripes",
    ]
    centers = [bars["Open-MeDe"][index].get_center()[0] for index in range(4)]
    assert np.diff(centers) == pytest.approx([1, 1, 1])
    segments = [c for c in axes.collections if hasattr(c, "get_segments")]
    ends = sorted(round(s[:, 1].max(), 6) for c in segments for s in c.get_segments() if np.ptp(s[:, 1]) > 0)
    assert ends == sorted(frame["high"])
    assert any(line.get_ydata()[0] == 1.4 for line in axes.lines)


def test_base_novel_places_base_novel_and_harmonic_mean():
    axes = figures.base_novel(base_novel_frame()).axes[0]
    points = {(line.get_ydata()[0], round(float(line.get_xdata()[0]), 1)) for line in axes.lines
              if len(line.get_xdata()) == 1}  # fmt: skip
    assert points == {(0, 62.3), (0, 53.4), (0, 57.5), (1, 77.3), (1, 63.8), (1, 69.9)}


def test_rho_dial_sorts_by_rho_and_splits_by_context():
    figure = figures.rho_dial(rho_frame())
    assert len(figure.axes) == 2
    line = lines_of_color(figure.axes[1], METHOD_STYLE["finetune"].color)[0]
    assert line.get_xdata().tolist() == [0.25, 0.75, 0.95]
    assert line.get_ydata().tolist() == [77.5, 52.5, 42.5]


def test_weight_curves_plot_percent_and_cut_off_the_single_epoch():
    axes = figures.weight_curves(curves(), 5, 2).axes[0]
    plotted = {line.get_label(): line.get_ydata() for line in axes.lines}
    for name, weights in curves().items():
        assert np.allclose(plotted[name], 100 * weights)
    assert axes.get_ylim()[1] < 30
    assert "last: 100 %\non epoch 8" in texts(axes.figure)
    assert figures.weight_curves({"last": curves()["last"]}).axes[0].get_ylim()[1] > 100


def test_training_curves_leave_out_what_plain_training_lacks():
    metrics = metrics_frame()
    assert len(figures.training_curves(metrics).axes) == 3
    plain = metrics.assign(query_loss=np.nan).drop(columns="grad_inner_product")
    figure = figures.training_curves(plain)
    assert len(figure.axes) == 2
    assert not any("query" in text for text in texts(figure))
    raw = figure.axes[0].lines
    assert any(np.array_equal(line.get_ydata(), metrics["support_loss"]) for line in raw)


def test_meta_step_arrows_run_along_the_given_vectors():
    figure = figures.meta_step_2d(**meta_arguments(), query_weight=0.5)
    arrows = [
        [(a.xyann, a.xy) for a in axes.texts if getattr(a, "arrow_patch", None)] for axes in figure.axes
    ]
    assert [(tuple(start), tuple(end)) for start, end in arrows[0]] == [
        ((-1, 0), (-0.2, 0))
    ]  # its true length
    start, end = arrows[1][1]
    assert np.allclose(start, [-0.2, 0])
    assert np.subtract(end, start)[0] == pytest.approx(0)
    assert np.subtract(end, start)[1] > 0  # down the query loss
    update, support, query = (np.subtract(end, start) for start, end in arrows[2])
    assert np.allclose(support + query, update)
    assert np.allclose(support / support[0], [1, 0])
    assert np.allclose(np.linalg.norm(query) / np.linalg.norm(support), 0.5 * 2 / 4)  # delta |g_Q| / |g_S|


def test_film_strips_show_every_frame_of_every_clip():
    video, mask = clip()
    figure = figures.film_strip([video, video[::-1]], ["forward", "backward"], [mask, mask[::-1]])
    for axes, shown in zip(figure.axes, (video, video[::-1]), strict=True):
        image = axes.images[0].get_array()
        repeat = image.shape[0] // H
        step = H * repeat + round(H * repeat * 0.08)
        for index in range(T):
            tile = image[::repeat, index * step : index * step + H * repeat : repeat]
            assert (tile[..., :3] == shown[index].transpose(1, 2, 0)).all()
            assert (tile[..., 3] == 255).all()


def test_a_mask_without_actor_pixels_in_a_frame_draws_no_outline_there():
    video, mask = clip()
    mask[1] = False
    count = len(figures.film_strip([video], ["a"], [mask]).axes[0].collections)
    assert count == len(figures.film_strip([video], ["a"], [clip()[1]]).axes[0].collections) - 2


def test_attention_is_shown_in_multiples_of_even_attention_with_the_actors_share():
    video, mask = clip()  # the actor covers 4 x 8 of 16 x 16 pixels: two of the 4 x 4 patches
    attention = np.ones((T, 4, 4))
    assert figures.attention_share(attention / 16, mask) == pytest.approx([0.125] * T)
    attention[0, 1, 1:3] = 16.0
    figure = figures.film_strip_attention(video, attention, mask)
    heat = figure.axes[1].images[0].get_array()
    assert heat.max() == pytest.approx(16 * 16 / (14 + 32))
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels[0] == f"1\n{100 * 32 / 46:.0f} %"
    assert labels[1] == f"2\n{100 * 2 / 16:.0f} %"


def test_actor_mass_draws_the_even_attention_line_at_the_area():
    axes = figures.actor_mass(methods_frame(contexts=("in",)).drop(columns="context"), area=12.5).axes[0]
    vertical = [line for line in axes.lines if list(line.get_xdata()) == [12.5, 12.5]]
    assert len(vertical) == 1
    looks = {look.marker for look in METHOD_STYLE.values()}
    markers = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() in looks]
    assert markers == [40.0, 45.0, 50.0, 55.0, 60.0, 65.0]


def test_heatmap_frames_the_best_cell_and_marks_the_published_ratios():
    axes = DRAW["gwa_heatmap"]().axes[0]
    assert (axes.images[0].get_array() == [[60, 61, 62], [63, 66, 64]]).all()
    (frame,) = [patch for patch in axes.patches if patch.get_linewidth() > 2]
    assert frame.get_xy() == (0.5, 0.5)
    marks = [line for line in axes.lines if line.get_marker() in ("v", "<")]
    assert (marks[0].get_xdata()[0], marks[1].get_ydata()[0]) == (1.5, 0.5)
    assert "SWA 61.0" in axes.get_title(loc="left")


def test_trajectory_levels_stand_at_the_averages():
    figure = DRAW["trajectory_accuracy"]()
    for axes, level, first in zip(figure.axes, (88.0, 59.0), (81, 59), strict=True):
        assert any(list(line.get_ydata()) == [level, level] for line in axes.lines)
        assert axes.lines[0].get_ydata()[0] == first


# ------------------------------------------------------------------------------------ bad input
VIDEO, MASK = clip()
ROW = {"method": "frozen", "context": "in", "value": 50.0}


def bars(**changes):
    return figures.bar_in_out(pd.DataFrame([ROW | changes]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.bar_in_out(pd.DataFrame([{"method": "frozen"}])), "frame lacks context, value"),
        (lambda: figures.bar_in_out(pd.DataFrame([ROW]).iloc[:0]), "no rows"),
        (lambda: bars(method="mine"), "method is 'mine'; allowed: frozen"),
        (lambda: bars(context="sky"), "context is 'sky'; allowed: in"),
        (lambda: bars(value=np.nan), "value has values that are"),
        (lambda: figures.bar_in_out(pd.DataFrame([ROW, ROW])), "more than one value for method=frozen"),
        (lambda: bars(low=60.0, high=70.0), "must enclose value"),
        (lambda: figures.base_novel(pd.DataFrame([ROW | {"split": "test"}])), "split is 'test'"),
        (lambda: figures.base_novel(pd.DataFrame([ROW | {"split": "base"}])), "needed: base and novel"),
        (lambda: figures.rho_dial(pd.DataFrame([ROW | {"rho": 1.5}])), "rho runs from 1.5"),
        (lambda: figures.actor_mass(pd.DataFrame([ROW]), area=0), "area is 0"),
        (lambda: figures.weight_curves({"a": [0.5, 0.5], "b": [1.0]}), r"\[2, 1\] epochs"),
        (lambda: figures.weight_curves({"a": [0.5, 0.4]}), "sum to 0.9"),
        (lambda: figures.weight_curves({"a": [1.5, -0.5]}), "weights of a must be finite, >= 0"),
        (lambda: figures.weight_curves({"a": [1.0]}, 1, 0), "sigma is 0"),
        (lambda: figures.weight_curves({}), "allowed: the same, at least 1"),
        (lambda: figures.training_curves(metrics_frame().drop(columns="support_loss")), "lacks support"),
        (lambda: figures.training_curves(metrics_frame(), smooth=1), "smooth is 1"),
        (lambda: figures.film_strip([VIDEO], []), "0 titles for 1 videos"),
        (lambda: figures.film_strip([VIDEO.astype(float)], ["a"]), r"videos\[0\] is float64"),
        (lambda: figures.film_strip([VIDEO.transpose(0, 2, 3, 1)], ["a"]), r"uint8 \[T, 3, H, W\]"),
        (lambda: figures.film_strip([VIDEO, VIDEO[:2]], ["a", "b"]), r"\[4, 2\] frames"),
        (lambda: figures.film_strip([VIDEO], ["a"], [MASK.astype(int)]), "mask is int64"),
        (lambda: figures.film_strip([VIDEO], ["a"], []), "0 masks for 1 videos"),
        (lambda: figures.film_strip_attention(VIDEO, np.ones((3, 4, 4))), "T = 4"),
        (lambda: figures.film_strip_attention(VIDEO, -np.ones((4, 4, 4))), "must be finite and >= 0"),
        (lambda: figures.film_strip_attention(VIDEO, np.ones((4, 5, 5)), MASK), "does not divide into 5 x 5"),
        (lambda: figures.meta_step_2d(**meta_arguments() | {"x": [0, 1]}), r"\[len\(y\), len\(x\)\]"),
        (lambda: figures.meta_step_2d(**meta_arguments() | {"theta": [0, 1, 2]}), "allowed: 2 numbers"),
        (lambda: figures.meta_step_2d(**meta_arguments() | {"query_grad": [0, np.nan]}), "query_grad is"),
        (lambda: figures.gwa_heatmap([1, 2], [1], [[1], [2]]), r"len\(mu\)\] = \(1, 2\)"),
        (lambda: figures.gwa_heatmap([2, 1], [1], [[1, 2]]), "mu is .*increasing"),
        (lambda: figures.trajectory_accuracy([1, 2], {"in": [1.0]}), r"accuracy\['in'\] is \(1,\)"),
        (lambda: figures.trajectory_accuracy([2, 1], {"in": [1.0, 2.0]}), "epochs must be"),
        (lambda: figures.trajectory_accuracy([1], {"in": [1.0]}, {"x": {"out": 1}}), "names 'out'; allowed"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_figures_load_neither_torch_nor_pyplot():
    code = "import sys, mede_core.report.figures.results; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
