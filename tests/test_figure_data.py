"""The figures show the numbers they are given: what stands on the artists."""

import drawings as d
import numpy as np
import pytest
from matplotlib.text import Text

from mede_core.report.figures import film, results, training, trajectories
from mede_core.report.figures.style import METHOD_STYLE


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_bars_have_the_values_and_intervals_given():
    frame = d.methods_frame()
    axes = results.bar_in_out(frame, bound=d.BOUND, chance=1.4, title="t").axes[0]
    bars = {one.get_label(): one for one in axes.containers if hasattr(one, "patches")}
    for method, look in METHOD_STYLE.items():
        own = frame[frame["method"] == method]
        heights = [bar.get_height() for bar in bars[look.label]]
        assert heights == own["value"].tolist()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["in context", "other scene", "noise", "stripes"]
    centers = [bars["Open-MeDe"][index].get_center()[0] for index in range(4)]
    assert np.diff(centers) == pytest.approx([1, 1, 1])
    segments = [c for c in axes.collections if hasattr(c, "get_segments")]
    ends = sorted(round(s[:, 1].max(), 6) for c in segments for s in c.get_segments() if np.ptp(s[:, 1]) > 0)
    assert ends == sorted(frame["high"])
    assert any(line.get_ydata()[0] == 1.4 for line in axes.lines)
    mine = results.bar_in_out(d.methods_frame(methods=("mine", "open_mede", "frozen")), bound=d.BOUND, title="t")
    assert [text.get_text() for text in mine.legends[0].get_texts()][:3] == ["Frozen CLIP", "Open-MeDe", "mine"]


def test_base_novel_places_base_novel_and_harmonic_mean():
    axes = results.lines_base_novel(d.base_novel_frame()).axes[0]
    points = {(line.get_ydata()[0], round(float(line.get_xdata()[0]), 1)) for line in axes.lines
              if len(line.get_xdata()) == 1}  # fmt: skip
    assert points == {(0, 62.3), (0, 53.4), (0, 57.5), (1, 77.3), (1, 63.8), (1, 69.9)}


def test_rho_dial_sorts_by_rho_and_splits_by_context():
    figure = results.rho_dial(d.rho_frame(), title="t")
    assert len(figure.axes) == 2
    line = next(one for one in figure.axes[1].lines if one.get_color() == METHOD_STYLE["finetune"].color)
    assert line.get_xdata().tolist() == [0.25, 0.75, 0.95]
    assert line.get_ydata().tolist() == [77.5, 52.5, 42.5]


def test_a_point_of_the_dial_with_two_seeds_is_hollow_and_has_no_band():
    axes = results.rho_dial(d.rho_frame(), title="t").axes[0]
    hollow = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [line.get_xdata().tolist() for line in hollow] == [[0.95]] * 2
    assert {line.get_markerfacecolor() for line in hollow} != {line.get_color() for line in hollow}
    assert all(band.get_paths()[0].vertices[:, 0].max() == 0.75 for band in axes.collections)


def test_weight_curves_plot_percent_and_cut_off_the_single_epoch():
    axes = trajectories.weight_curves(d.curves(), 5, 2).axes[0]
    plotted = {line.get_label(): line.get_ydata() for line in axes.lines}
    for name, weights in d.curves().items():
        assert np.allclose(plotted[name], 100 * weights)
    assert axes.get_ylim()[1] < 30
    assert "last: 100 %\non epoch 8" in texts(axes.figure)
    assert trajectories.weight_curves({"last": d.curves()["last"]}, 5, 2).axes[0].get_ylim()[1] > 100


def test_training_curves_leave_out_what_plain_training_lacks():
    metrics = d.metrics_frame()
    assert len(training.training_curves(metrics).axes) == 3
    plain = metrics.assign(query_loss=np.nan).drop(columns="grad_inner_product")
    figure = training.training_curves(plain)
    assert len(figure.axes) == 2
    assert not any("query" in text for text in texts(figure))
    raw = figure.axes[0].lines
    assert any(np.array_equal(line.get_ydata(), metrics["support_loss"]) for line in raw)


def test_meta_step_arrows_run_along_the_given_vectors():
    figure = training.meta_step_2d(**d.meta_arguments(), query_weight=0.5)
    arrows = [[(a.xyann, a.xy) for a in axes.texts if getattr(a, "arrow_patch", None)] for axes in figure.axes]
    assert [(tuple(start), tuple(end)) for start, end in arrows[0]] == [((-1, 0), (-0.2, 0))]  # its true length
    start, end = arrows[1][1]
    assert np.allclose(start, [-0.2, 0])
    assert np.subtract(end, start)[0] == pytest.approx(0)
    assert np.subtract(end, start)[1] > 0  # down the query loss
    update, support, query, joint = (np.subtract(end, start) for start, end in arrows[2])
    assert np.allclose(joint, np.array([4, 1]) * support[0] / 4)
    assert np.allclose(support + query, update)
    assert np.allclose(support / support[0], [1, 0])
    assert np.allclose(np.linalg.norm(query) / np.linalg.norm(support), 0.5 * 2 / 4)  # delta |g_Q| / |g_S|


def test_film_strips_show_every_frame_of_every_clip():
    video, _ = d.clip()
    figure = film.film_strip([video, video[::-1]], ["forward", "backward"])
    for axes, shown in zip(figure.axes, (video, video[::-1]), strict=True):
        image = axes.images[0].get_array()
        repeat = image.shape[0] // d.H
        step = d.H * repeat + round(d.H * repeat * 0.08)
        for index in range(d.T):
            tile = image[::repeat, index * step : index * step + d.H * repeat : repeat]
            assert (tile[..., :3] == shown[index].transpose(1, 2, 0)).all()
            assert (tile[..., 3] == 255).all()


def test_a_mask_without_actor_pixels_in_a_frame_draws_no_outline_there():
    video, mask = d.clip()

    def outlines():
        return len(film.film_strip_attention(video, np.ones((d.T, 4, 4)), mask).axes[0].collections)

    before = outlines()
    mask[1] = False
    assert outlines() == before - 2


def test_attention_is_shown_in_multiples_of_even_attention_with_the_actors_share():
    video, mask = d.clip()  # the actor covers 4 x 8 of 16 x 16 pixels: two of the 4 x 4 patches
    attention = np.ones((d.T, 4, 4))
    attention[0, 1, 1:3] = 16.0
    figure = film.film_strip_attention(video, attention, mask)
    heat = figure.axes[1].images[0].get_array()
    assert heat.max() == pytest.approx(16 * 16 / (14 + 32))
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels[0] == f"1\n{100 * 32 / 46:.0f} %"
    assert labels[1] == f"2\n{100 * 2 / 16:.0f} %"


def test_heatmap_frames_the_best_cell_and_marks_the_published_ratios():
    axes = d.DRAW["gwa_heatmap"]().axes[0]
    assert (axes.images[0].get_array() == [[60, 61, 62], [63, 66, 64]]).all()
    (frame,) = [patch for patch in axes.patches if patch.get_linewidth() > 2]
    assert frame.get_xy() == (0.5, 0.5)
    marks = [line for line in axes.lines if line.get_marker() in ("v", "<")]
    assert (marks[0].get_xdata()[0], marks[1].get_ydata()[0]) == (1.5, 0.5)
    assert "SWA 61.0" in axes.get_title(loc="left")


def test_trajectory_levels_stand_at_the_averages():
    figure = d.DRAW["trajectory_accuracy"]()
    for axes, level, first in zip(figure.axes, (88.0, 59.0), (81, 59), strict=True):
        assert any(list(line.get_ydata()) == [level, level] for line in axes.lines)
        assert axes.lines[0].get_ydata()[0] == first


def test_a_forest_has_a_line_a_label_in_the_order_given():
    axes = results.difference_forest(d.FOREST, margin=1.0).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    points = sorted((x, round(y)) for line in axes.containers for x, y in zip(*line.lines[0].get_data()))
    assert points == [(-2.0, 0), (1.0, 0), (3.0, 1)]
    hollow = {one.get_label(): one.lines[0].get_mfc() != one.lines[0].get_color() for one in axes.containers}
    assert hollow == {"in context": False, "out of context": False, "out of context, fewer than 4 seeds": True}


def test_epoch_lines_have_one_line_a_series_and_one_panel_a_value():
    axes = results.epoch_lines(d.LINES, label="v", zero=True).axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines[:2]]
    assert drawn == [[0.1, 0.2], [-0.1, -0.3]]
    assert len(results.epoch_lines(d.LINES.assign(panel=["p", "p", "q", "q"]), label="v").axes) == 2


def test_a_scatter_marks_every_learner_in_its_methods_color():
    axes = results.drop_scatter(d.LOOKS, {"order_gap": "order gap (points)"}).axes[0]
    marks = {line.get_color(): line.get_xydata().tolist() for line in axes.lines}
    assert marks == {METHOD_STYLE["frozen"].color: [[0.0, 40.0]], METHOD_STYLE["finetune"].color: [[12.0, 20.0]]}
