"""The explorers: their pictures follow the sliders, say the truth, and are drawn fast enough to feel direct."""

import ast
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import mede_core
from mede_core.gwa import gaussian_weights
from mede_core.lab.explorers import (
    gwa_explorer,
    gwa_scene,
    meta_step_explorer,
    meta_step_scene,
    meta_step_values,
    rho_explorer,
)
from mede_core.lab.toy import make_toy_problem, run_toy
from mede_core.report.figures.style import save_figure
from mede_core.report.figures.training import inner_step_curves
from mede_core.report.figures.trajectories import trajectory_steps

BUDGET_S = 0.1  # of processor time for one redraw
PLANE = (np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 2.5], [4.0, 2.0]]), 0.9)


class Explorer:
    """A widget's controls by their CSS class or label, its readout and its picture."""

    def __init__(self, widget):
        *self.controls, self.readout, self.image = widget.children

    def __getitem__(self, name):
        return next(c for c in self.controls if name in (*c._dom_classes, c.description))

    @property
    def text(self):
        return re.sub(r"<[^>]*>|&nbsp;", "", self.readout.value)


EXPLORERS = {
    "gwa": (lambda: gwa_explorer(22), "mede-sigma", (3.0, 5.0, 7.0, 9.0)),
    "gwa with a map": (lambda: gwa_explorer(4, plane=PLANE), "mede-mu", (1.0, 2.0, 3.0, 4.0)),
    "meta-step": (meta_step_explorer, "mede-alpha", (0.05, 0.3, 0.4, 0.5)),
    "rho": (rho_explorer, "mede-rho", (0.3, 0.5, 0.7, 0.9)),
}


@pytest.fixture(params=EXPLORERS, scope="module")
def explorer(request):
    make, slider, settings = EXPLORERS[request.param]
    return Explorer(make()), slider, settings


def test_a_slider_changes_the_picture_and_its_return_brings_it_back(explorer):
    widget, slider, settings = explorer
    first, start = widget.image.value, widget[slider].value
    seen = {first}
    for setting in settings:
        widget[slider].value = setting
        seen.add(widget.image.value)
    assert len(seen) == 1 + len(settings)
    widget[slider].value = start
    assert widget.image.value == first


def test_a_redraw_stays_within_its_budget_and_keeps_the_pictures_size(explorer):
    widget, slider, settings = explorer
    spent, shapes = [], set()
    for setting in settings:
        begun = time.process_time()
        widget[slider].value = setting
        spent.append(time.process_time() - begun)
        shapes.add(imread(io.BytesIO(widget.image.value)).shape)
    assert min(spent) < BUDGET_S
    assert len(shapes) == 1
    assert widget.image.layout.height.endswith("px")


def test_the_gwa_readout_counts_effective_epochs_beginning_at_the_published_ratios():
    widget = Explorer(gwa_explorer(22))
    assert (widget["mede-mu"].value, widget["mede-sigma"].value) == (15.0, 9.9)
    widget["mede-sigma"].value = 10.0
    shares = gaussian_weights(22, 15.0, 10.0)
    assert f"spreads over {1 / (shares**2).sum():.1f} of 22 epochs" in widget.text
    widget["mede-sigma"].value = 0.1
    assert "spreads over 1.0 of 22" in widget.text
    assert "heaviest: epoch 15 with 100.0 %" in widget.text


def test_the_gwa_scene_draws_the_weights_and_the_center_of_gravity():
    figure = gwa_scene(4, PLANE).still(mu=2.5, sigma=1.2)
    shares = gaussian_weights(4, 2.5, 1.2).numpy()
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "GWA")
    np.testing.assert_allclose(line.get_ydata(), 100 * shares)
    mark = figure.axes[1].lines[-1]
    np.testing.assert_allclose(mark.get_xydata()[0], shares @ PLANE[0])


def test_a_weight_beyond_the_axis_is_told_in_words():
    figure = gwa_scene(22).still(mu=15, sigma=0.1)
    assert any(text.get_text() == "100 % on epoch 15" for text in figure.axes[0].texts)
    assert not any(text.get_text() for text in gwa_scene(22).still(mu=15, sigma=10).axes[0].texts)


def test_the_meta_scene_shows_real_meta_steps():
    problem = make_toy_problem()
    values = meta_step_values(problem, 0.3, 0.5)
    np.testing.assert_allclose(values["fast"], values["theta"] - 0.3 * values["support_grad"])
    np.testing.assert_allclose(values["merged"], values["support_grad"] + 0.5 * values["query_grad"])
    assert values["support_grad"][0] * values["query_grad"][0] < 0  # the two batches disagree on the static parameter
    assert values["support_grad"][1] * values["query_grad"][1] > 0
    figure = meta_step_scene(problem).still(**values)
    (path,) = (line for line in figure.axes[1].lines if line.get_label() == "these settings")
    np.testing.assert_allclose(path.get_xydata(), run_toy(problem, inner_lr=0.3, query_weight=0.5).theta)


@pytest.mark.parametrize(("knobs", "label"), [((0.3, 0.0), "plain"), ((0.0, 1.0), "joint")])
def test_the_paths_for_comparison_are_the_limits(knobs, label):
    problem = make_toy_problem()
    figure = meta_step_scene(problem).still(**meta_step_values(problem, *knobs))
    lines = {line.get_label().split()[0]: line.get_xydata() for line in figure.axes[1].lines}
    np.testing.assert_allclose(lines["these"], lines[label])


def test_the_order_of_the_gradient_can_be_chosen():
    widget = Explorer(meta_step_explorer(inner_lr=0.3))
    first = widget.text
    widget["gradient"].value = False
    assert widget.text != first


def test_the_rho_dial_counts_home_scenes_exactly():
    widget = Explorer(rho_explorer())
    for rho, count in ((1.0, 20), (0.8, 16), (0.5, 10), (0.25, 5)):
        widget["mede-rho"].value = rho
        assert f"{count} of 20 clips" in widget.text


def test_a_swapped_background_says_that_the_dial_is_out_of_play():
    widget = Explorer(rho_explorer())
    pictures = set()
    for background in widget["background"].options.values():
        widget["background"].value = background
        pictures.add(widget.image.value)
        assert ("swapped" in widget.text) == (background != "in")
    assert len(pictures) == 4


def test_a_scene_can_be_saved_as_the_static_twin_for_light_and_dark_pages(tmp_path):
    files = save_figure(lambda: gwa_scene(4, PLANE).still(mu=2, sigma=1), tmp_path / "twin")
    assert files["svg"].read_text() != files["dark.svg"].read_text()


def test_movement_and_inner_steps_are_drawn_as_they_are():
    steps = [{"epoch": t, "moved": 1.0 / t if t > 1 else float("nan"), "from_first": float(t - 1)} for t in (1, 2, 3)]
    left, right = trajectory_steps(steps).axes
    assert [bar.get_height() for bar in left.patches] == [1 / 2, 1 / 3]
    assert right.lines[0].get_ydata().tolist() == [0, 1, 2]
    tried = [{"inner_lr": a, "support_loss": 1 - a, "query_loss": 2 + a} for a in (0.0, 0.1, 1.0)]
    changes = {line.get_label(): line.get_ydata() for line in inner_step_curves(tried, 0.5).axes[0].lines}
    np.testing.assert_allclose(changes["support batch"], [0, -0.1, -1])
    np.testing.assert_allclose(changes["query batch"], [0, 0.1, 1])


def test_only_this_module_imports_ipywidgets():
    importers = set()
    for path in Path(mede_core.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "ipywidgets" for name in names):
                importers.add(path.name)
    assert importers == {"explorers.py"}
