"""The study's plots show the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from mede_core.report.figures.study import difference_forest, drop_scatter, epoch_lines
from mede_core.report.figures.style import METHOD_STYLE

FOREST = pd.DataFrame({
    "label": ["a", "a", "b"], "quantity": ["in", "out", "out"], "value": [1.0, -2.0, 3.0], "low": [0.5, -3.0, 1.0],
    "high": [1.5, -1.0, 5.0],
})  # fmt: skip
LINES = pd.DataFrame({"series": ["x", "x", "y", "y"], "epoch": [1, 2, 1, 2], "value": [0.1, 0.2, -0.1, -0.3]})
LOOKS = pd.DataFrame({"method": ["frozen", "finetune"], "drop": [40.0, 20.0], "order_gap": [0.0, 12.0]})


def test_a_forest_has_a_line_a_label_in_the_order_given():
    axes = difference_forest(FOREST, margin=1.0).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    points = sorted((x, round(y)) for line in axes.containers for x, y in zip(*line.lines[0].get_data()))
    assert points == [(-2.0, 0), (1.0, 0), (3.0, 1)]


def test_a_forest_of_another_quantity_is_refused():
    with pytest.raises(ValueError, match="allowed: in, out"):
        difference_forest(FOREST.assign(quantity="gap"))


def test_epoch_lines_have_one_line_a_series_and_one_panel_a_value():
    axes = epoch_lines(LINES, label="v", zero=True).axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines[:2]]
    assert drawn == [[0.1, 0.2], [-0.1, -0.3]]
    assert len(epoch_lines(LINES.assign(panel=["p", "p", "q", "q"]), label="v").axes) == 2
    with pytest.raises(ValueError, match="at most 6"):
        epoch_lines(pd.DataFrame({"series": list("abcdefg"), "epoch": 1, "value": 0.0}), label="v")


def test_a_scatter_marks_every_learner_in_its_methods_color():
    axes = drop_scatter(LOOKS, {"order_gap": "order gap (points)"}).axes[0]
    marks = {line.get_color(): line.get_xydata().tolist() for line in axes.lines}
    assert marks == {
        METHOD_STYLE["frozen"].color: [[0.0, 40.0]],
        METHOD_STYLE["finetune"].color: [[12.0, 20.0]],
    }
    with pytest.raises(ValueError, match="measures is empty"):
        drop_scatter(LOOKS, {})
    with pytest.raises(ValueError, match="not finite"):
        drop_scatter(LOOKS.assign(drop=np.nan), {"order_gap": "x"})
