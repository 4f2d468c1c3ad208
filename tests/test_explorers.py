"""The explorers: their pictures follow the sliders, say the truth, and are drawn fast enough to feel direct."""

import ast
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import mede_core
from mede_core.files import pack_correct
from mede_core.gwa import gaussian_weights
from mede_core.lab.bias_lab import bias_explorer, bias_values
from mede_core.lab.explorers import gwa_explorer, meta_step_explorer, meta_step_values, rho_explorer
from mede_core.lab.gwa_accuracy import gwa_accuracy
from mede_core.lab.scenes import gwa_scene, meta_step_scene
from mede_core.lab.toy import make_toy_problem, run_toy
from mede_core.learner import build_learner
from mede_core.report.figures.style import save_figure
from mede_core.report.figures.training import inner_step_curves
from mede_core.report.figures.trajectories import trajectory_steps
from mede_core.world.synthetic import World

BUDGET_S = 0.1  # of processor time for one redraw
THINKING_S = 0.2  # more, where two learners look at the clip first
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


def answers(average, share, **about):
    """Records of two backgrounds, ten clips each, of which a share is right."""
    bits = {"in": np.arange(10) < round(10 * share), "scene": np.arange(1, 11) < round(10 * share)}
    facts = {"average": average, "n": 10, **about}
    return [{**facts, "context": context, "correct": pack_correct(right)} for context, right in bits.items()]


def worth(measure=None):
    grid = [
        row for mu in (1.0, 3.0) for sigma in (1.0, 2.0)
        for row in answers(f"grid:{mu / 4}:{sigma / 4}", mu / 5 + sigma / 10, mu=mu, sigma=sigma)
    ]  # fmt: skip
    return gwa_accuracy([*grid, *answers("swa", 0.5), *answers("last", 0.3), *answers("gwa", 0.4)], measure)


def biased():
    learners = {"frozen": build_learner(), "open_mede": build_learner()}
    generator = torch.Generator().manual_seed(0)
    state = learners["open_mede"].trainable_state()
    moved = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}
    learners["open_mede"].load_trainable(moved)
    return bias_explorer(learners)


EXPLORERS = {
    "gwa": (lambda: gwa_explorer(22), "mede-sigma", (3.0, 5.0, 7.0, 9.0)),
    "gwa with a map": (lambda: gwa_explorer(4, plane=PLANE), "mede-mu", (1.0, 2.0, 3.0, 4.0)),
    "meta-step": (meta_step_explorer, "mede-alpha", (0.05, 0.3, 0.4, 0.5)),
    "gwa with accuracy": (lambda: gwa_explorer(4, accuracy=worth()), "mede-mu", (1.0, 2.0, 3.0, 4.0)),
    "bias": (biased, "background", (0, 1, 2, -1)),
    "rho": (rho_explorer, "mede-rho", (0.3, 0.5, 0.7, 0.9)),
}


@pytest.fixture(params=EXPLORERS, scope="module")
def explorer(request):
    make, slider, settings = EXPLORERS[request.param]
    return Explorer(make()), slider, settings, BUDGET_S + THINKING_S * (request.param == "bias")


def test_a_slider_changes_the_picture_and_its_return_brings_it_back(explorer):
    widget, slider, settings, _ = explorer
    first, start = widget.image.value, widget[slider].value
    seen = {first}
    for setting in settings:
        widget[slider].value = setting
        seen.add(widget.image.value)
    assert len(seen) == 1 + len(settings)
    widget[slider].value = start
    assert widget.image.value == first


def test_a_redraw_stays_within_its_budget_and_keeps_the_pictures_size(explorer):
    widget, slider, settings, budget = explorer
    spent, shapes = [], set()
    for setting in settings:
        begun = time.process_time()
        widget[slider].value = setting
        spent.append(time.process_time() - begun)
        shapes.add(imread(io.BytesIO(widget.image.value)).shape)
    assert min(spent) < budget
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


def test_accuracy_is_read_between_points_of_the_grid_and_says_so():
    accuracy = worth()
    found, said = accuracy.at(3.0, 2.0)
    assert found == {"in": pytest.approx(80), "out": pytest.approx(70)} and "of 20 clips" in said
    assert accuracy.at(2.0, 1.5)[0]["in"] == pytest.approx(55)
    assert "outside the grid" in accuracy.at(9.0, 1.0)[1]
    assert accuracy.others == {"SWA": {"in": 50, "out": 40}, "last": {"in": 30, "out": 20}}


def test_a_press_on_the_button_measures_at_the_very_center_and_width():
    asked = []

    def measure(mu, sigma):
        asked.append((mu, sigma))
        return answers("measured here", 0.9)

    widget = gwa_explorer(4, accuracy=worth(measure))
    *_, button, readout, image = widget.children
    before = image.value
    assert "between points of a grid" in readout.value
    button.click()
    assert len(asked) == 1 and not button.disabled
    assert "measured here" in readout.value and "90.0 %" in readout.value and image.value != before
    widget.children[0].value += 1
    assert "between points of a grid" in readout.value


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


def test_the_bias_lab_says_what_two_learners_answer_for_the_clip_that_is_shown():
    learners, world = {"frozen": build_learner()}, World(1)
    learners["frozen"].set_classes(world.class_names(half="all"))
    chosen = {"motion": 2, "background": 1, "shown": "none", "first": "frozen", "second": "frozen"}
    values = {o: bias_values(learners, world, order=o, **chosen) for o in ("forward", "reversed", "one frame")}
    clip = values["forward"]["clip"]
    assert np.array_equal(values["reversed"]["clip"], clip[::-1])
    assert (values["one frame"]["clip"] == clip[4]).all()
    assert values["forward"]["true"] == "a red star moving left"
    assert values["reversed"]["true"] == "a red star moving right"
    told = values["forward"]["says"]["frozen"]["top"]
    logits = learners["frozen"](torch.from_numpy(clip)[None])
    assert told[0][0] == learners["frozen"].class_names[int(logits.argmax())]
    assert told[0][1] == pytest.approx(logits.softmax(1).max().item())
    assert values["reversed"]["says"]["frozen"]["top"][0][1] == pytest.approx(told[0][1], rel=1e-4)  # blind to order


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
