"""The explorers: their pictures follow the sliders, say the truth, and are drawn fast enough to feel direct."""

import io
import itertools
import json
import re
import time

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from mede_core.gwa import gaussian_weights
from mede_core.lab.bias_lab import bias_explorer, bias_values
from mede_core.lab.browser import browse, browser, tabulated
from mede_core.lab.explorers import gwa_explorer, meta_step_explorer, meta_step_values, rho_explorer
from mede_core.lab.gwa_accuracy import GwaAccuracy
from mede_core.lab.live import run_picker
from mede_core.lab.scenes import gwa_scene, meta_step_scene
from mede_core.lab.steps import real_step, steps_explorer
from mede_core.lab.toy import make_toy_problem, run_toy
from mede_core.learner import build_learner
from mede_core.names import read_sources
from mede_core.report.figures.style import save_figure
from mede_core.report.figures.training import inner_step_curves
from mede_core.report.figures.trajectories import trajectory_steps
from mede_core.report.metrics import pack_correct
from mede_core.workspace import Workspace
from mede_core.world.synthetic import World

BUDGET_S = 0.1  # of processor time for one redraw
THINKING_S = 0.2  # more, where learners look at the clip first, clips are rendered, or axes are drawn anew
PLANE = (np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 2.5], [4.0, 2.0]]), 0.9)


class Explorer:
    """A widget's controls by their CSS class or label, its readout and its picture."""

    def __init__(self, widget):
        panel, self.readout, self.image = widget.children
        self.controls = panel.children

    def __getitem__(self, name):
        return next(c for c in self.controls if name in (*c._dom_classes, c.description))

    @property
    def text(self):
        return re.sub(r"<[^>]*>|&nbsp;", "", self.readout.value)


def answers(average, share, **about):
    """Records of two backgrounds, ten clips each, of which a share is right."""
    bits = {"in": np.arange(10) < round(10 * share), "scene": np.arange(1, 11) < round(10 * share)}
    facts = {"average": average, "n": 10, "mu": 1.0, "sigma": 1.0, **about}
    return [{**facts, "context": context, "correct": pack_correct(right)} for context, right in bits.items()]


def worth(measure=None):
    grid = [
        row for mu in (1.0, 3.0) for sigma in (1.0, 2.0)
        for row in answers(f"grid:{mu / 4}:{sigma / 4}", mu / 5 + sigma / 10, mu=mu, sigma=sigma)
    ]  # fmt: skip
    zero = [{**row, "average": row["average"].replace("grid", "grid+0")} for row in grid]
    rules = [*answers("swa", 0.5), *answers("last", 0.3), *answers("gwa", 0.4, mu=0.68 * 4, sigma=0.45 * 4)]
    return GwaAccuracy([*grid, *zero, *rules], measure)


def metrics(steps=6):
    """Of a run by meta-steps whose two gradients turn from one way to opposite ways."""
    turn = np.linspace(1, -1, steps)
    norms = {"support_grad_norm": 0.5, "query_grad_norm": 0.4, "grad_inner_product": 0.2 * turn}
    at = np.arange(steps)
    return pd.DataFrame({"epoch": 1 + at // 3, "step": at, "support_loss": 2 - 0.1 * at, "query_loss": 1.0, **norms})


def study():
    """Two methods and seeds on a set of halves and one without, and a measure that is no accuracy."""
    rows = []
    for (seed, method), share in zip(itertools.product((4, 5), ("frozen", "finetune")), (0.4, 0.6, 0.5, 0.9)):
        about = {"method": method, "seed": seed, "rho": 0.8, "part": 1, "metric": "top1", "value": 100 * share}
        for split, context in itertools.product(("base", "novel"), ("in", "scene", "noise", "stripes")):
            bits = pack_correct(np.arange(20) < round(20 * share) - 2 * (context != "in"))
            rows.append({**about, "set": "source", "split": split, "context": context, "n": 20, "correct": bits})
        new = {**about, "set": "superset", "split": "all", "context": "in", "n": 20}
        rows += [{**new, "correct": pack_correct(np.arange(20) < 20 * share)}, {**new, "metric": "single_frame"}]
    return rows


def curves_of_a_dial():
    places = itertools.product((0.25, 1.0), ("frozen", "finetune"), ("in", "out"))
    return pd.DataFrame(places, columns=["rho", "method", "context"]).assign(value=40.0, low=39.0, high=41.0, seeds=5)


def biased():
    learners = {"frozen": build_learner(), "open_mede": build_learner()}
    generator = torch.Generator().manual_seed(0)
    state = learners["open_mede"].trainable_state()
    moved = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}
    learners["open_mede"].load_trainable(moved)
    return bias_explorer(learners)


NUMBERS = ("Out of context", "Static gap", "Base classes")
EXPLORERS = {
    "gwa": (lambda: gwa_explorer(22), "mede-sigma", (3.0, 5.0, 7.0, 9.0)),
    "gwa with a map": (lambda: gwa_explorer(3, plane=PLANE), "mede-mu", (1.0, 1.4, 2.5, 3.0)),
    "meta-step": (meta_step_explorer, "mede-inner_lr", (0.05, 0.3, 0.4, 0.5)),
    "gwa with accuracy": (lambda: gwa_explorer(4, accuracy=worth()), "mede-mu", (1.0, 2.0, 3.0, 4.0)),
    "bias": (biased, "background", (0, 1, 2, -1)),
    "rho": (rho_explorer, "mede-rho", (0.3, 0.5, 0.7, 0.9)),
    "dial": (lambda: rho_explorer(dial=curves_of_a_dial()), "mede-rho", (0.3, 0.5, 0.7, 0.9)),
    "steps": (lambda: steps_explorer({"a run": metrics()}), "mede-row", (1, 2, 4, 5)),
    "browser": (lambda: browser(tabulated({"the study": study()})), "number", NUMBERS),
}
REDRAWN = ("bias", "dial", "steps", "browser")


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_slider_changes_the_picture_within_its_budget_and_its_return_brings_it_back(name):
    make, slider, settings = EXPLORERS[name]
    widget, spent = Explorer(make()), []
    first, start = widget.image.value, widget[slider].value
    seen = {first}
    for setting in settings:
        begun = time.process_time()
        widget[slider].value = setting
        spent.append(time.process_time() - begun)
        seen.add(widget.image.value)
    assert len(seen) == 1 + len(settings) and min(spent) < BUDGET_S + THINKING_S * (name in REDRAWN)
    ((height, width, _),) = {imread(io.BytesIO(one)).shape for one in seen}
    page = [int(side.removesuffix("px")) for side in (widget.image.layout.height, widget.image.layout.width)]
    assert height / page[0] == pytest.approx(width / page[1], abs=0.01)
    widget[slider].value = start
    assert widget.image.value == first


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
    figure = gwa_scene(3, PLANE).still(mu=2.5, sigma=1.2)
    shares = gaussian_weights(3, 2.5, 1.2).numpy()
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "your average")
    np.testing.assert_allclose(line.get_ydata(), [np.nan, *(100 * shares)])
    mark = figure.axes[1].lines[-1]
    np.testing.assert_allclose(mark.get_xydata()[0], shares @ PLANE[0][1:])


def test_the_presets_and_the_first_epoch_change_what_is_counted():
    widget = Explorer(gwa_explorer(4, accuracy=worth()))
    assert "40.0 %" in widget.text and "measured" in widget.text
    widget["average"].value = "swa"
    assert "spreads over 4.0 of 4" in widget.text and "50.0 %" in widget.text
    widget["first epoch"].value = 0
    assert "spreads over 5.0" in widget.text and "not measured" in widget.text
    widget["average"].value = "patched"
    assert "heaviest: epoch 0 with 50.0 %" in widget.text
    widget["mede-mu"].value = 3.0  # whoever moves a slider means the Gaussian
    assert widget["average"].value == "gwa" and "between points of a grid" in widget.text


def test_accuracy_is_read_between_points_of_the_grid_and_says_so():
    accuracy = worth()
    found, said = accuracy.at(3.0, 2.0)
    assert [found[where][0] for where in ("in", "out")] == pytest.approx([80, 70]) and "of 20 clips" in said
    assert accuracy.at(2.0, 1.5)[0]["in"][0] == pytest.approx(55)
    assert "outside the grid" in accuracy.at(9.0, 1.0)[1]
    assert accuracy.others == {"SWA": {"in": 50, "out": 40}, "last": {"in": 30, "out": 20}}


def test_a_press_on_the_button_measures_at_the_very_center_and_width():
    asked = []

    def measure(average):
        asked.append(average)
        return answers(average.name, 0.9)

    widget = Explorer(gwa_explorer(4, accuracy=worth(measure)))
    readout, image, mu = widget.readout, widget.image, widget["mede-mu"]
    mu.value, before = 2.0, image.value
    assert "between points of a grid" in readout.value
    button = widget["measure here"]
    button.click()
    assert [(one.mu, one.rule, one.with_zero) for one in asked] == [(2.0, "gwa", False)] and not button.disabled
    assert "measured" in readout.value and "90.0 % [" in readout.value and image.value != before
    mu.value += 1
    assert "between points of a grid" in readout.value


def test_a_weight_beyond_the_axis_is_told_in_words():
    figure = gwa_scene(22).still(mu=15, sigma=0.1)
    assert any(text.get_text() == "100 % on epoch 15" for text in figure.axes[0].texts)
    assert not any(text.get_text() for text in gwa_scene(22).still(mu=15, sigma=10).axes[0].texts)


def test_the_meta_scene_shows_real_meta_steps():
    problem = make_toy_problem()
    values = meta_step_values(problem, 0.3, 0.5)
    np.testing.assert_allclose(values["theta_fast"], values["theta"] - 0.3 * values["support_grad"])
    np.testing.assert_allclose(values["merged_grad"], values["support_grad"] + 0.5 * values["query_grad"])
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
    first, widget["gradient"].value = widget.text, False
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


def test_the_readout_of_a_dial_over_curves_says_whether_somebody_trained_there():
    widget = Explorer(rho_explorer(dial=curves_of_a_dial().assign(value=lambda rows: 80 * rows["rho"])))
    widget["mede-rho"].value = 0.5
    assert "Fine-tuning 40.0 %" in widget.text and "between measured points" in widget.text
    widget["mede-rho"].value = 1.0
    assert "Fine-tuning 80.0 %" in widget.text and "(measured)" in widget.text


def test_real_steps_show_the_true_lengths_and_angle_of_both_gradients():
    for row, angle in ((0, 0), (5, 180)):
        figure = real_step(metrics(), row, query_weight=0.5)
        update, support, query = (np.array(text.xy) for text in figure.axes[0].texts if not text.get_text())
        assert [np.linalg.norm(support), np.linalg.norm(query)] == pytest.approx([0.5, 0.2])
        assert np.dot(support, query) == pytest.approx(0.1 * np.cos(np.radians(angle)))
        np.testing.assert_allclose(update, support + query)
        low, high = figure.axes[0].viewLim.get_points()
        assert all((low < tip).all() and (tip < high).all() for tip in (update, support, query)), "outside, not drawn"
    widget = Explorer(steps_explorer({"a run": metrics(), "shorter": metrics(3).assign(support_after=1.25)}))
    widget["mede-row"].value = 5
    assert "cosine -1.00" in widget.text and "support loss 1.500" in widget.text
    widget["steps of"].value = "shorter"
    assert "support loss 1.800 to 1.250" in widget.text


def test_the_browser_forms_every_number_that_the_records_allow():
    def value(test_set, column):
        frame = browse(tabulated({"all": study()}), "all", test_set, column)[0]["frame"]
        return dict(zip(frame["method"], frame["value"]))

    assert value("source", "In context") == pytest.approx({"frozen": 45, "finetune": 75})
    assert value("source", "Static gap") == pytest.approx({"frozen": 10, "finetune": 10})
    assert value("source", "HM of base and novel") == pytest.approx({"frozen": 45, "finetune": 75})
    assert value("superset", "single frame, in context") == pytest.approx({"frozen": 45, "finetune": 75})
    kept = [{name: one for name, one in record.items() if name != "correct"} for record in study()]  # as the study does
    frame = browse(tabulated({"all": kept}), "all", "source", "Out of context")[0]["frame"]
    assert dict(zip(frame["method"], frame["value"])) == pytest.approx({"frozen": 45, "finetune": 75})
    widget = Explorer(browser(tabulated({"all": study()})))
    widget["test set"].value = "superset"
    widget["number"].value = "Static gap"
    assert "not measured" in widget.text and "it has: In context" in widget.text


def test_the_run_picker_draws_a_run_anew_as_its_metrics_grow(tmp_path):
    run, lines = tmp_path / "meta-1-2", metrics().assign(lr=0.1).to_json(orient="records", lines=True).splitlines(True)
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"settings": {"rho": 0.8, "seed": 3}}))
    (run / "metrics.jsonl").write_text("")
    box = run_picker(Workspace(tmp_path, shipped=False))
    widget = Explorer(box)
    assert widget["run"].label.startswith("meta, rho 0.8, seed 3 (") and "before its first epoch" in widget.text
    before = widget.image.value
    (run / "metrics.jsonl").write_text("".join(lines))
    deadline = time.monotonic() + 30
    while "epoch 2, step 5" not in widget.text and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "epoch 2, step 5" in widget.text and widget.image.value != before
    box.close()


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
    files = save_figure(lambda: gwa_scene(3, PLANE).still(mu=2, sigma=1), tmp_path / "twin")
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
    importing = re.compile(rb"^\s*(import|from) ipywidgets\b", re.MULTILINE)
    assert [name for name, source in read_sources().items() if importing.search(source)] == ["lab.explorers"]
