"""Plot functions on arrays and frames, and how their figures are saved. Torch-free; nothing here uses pyplot.

Each function returns a new matplotlib Figure, which a notebook shows by itself. To save one for light and for
dark pages hand over a function that draws it::

    save_figure(lambda: rho_dial(frame, chance=1.4), figures / "rho_dial", data=frame, run=run_id)

Every method has one color, marker and line in all figures (``METHOD_STYLE``). Where the parts live:
``_style.py`` (themes, saving), ``_plots_averages.py``, ``_plots_clips.py``, ``_plots_costs.py``, ``_plots_results.py``,
``_plots_study.py``, ``_plots_training.py``.
"""

from ._plots_averages import AVERAGE_STYLE, gwa_heatmap, trajectory_accuracy, weight_curves
from ._plots_clips import attention_share, film_strip, film_strip_attention
from ._plots_costs import cost_ratios
from ._plots_results import actor_mass, bar_in_out, base_novel, rho_dial
from ._plots_study import difference_forest, drop_scatter, epoch_lines
from ._plots_training import meta_step_2d, training_curves
from ._style import (
    COLUMN_WIDTH,
    CONTEXT_STYLE,
    METHOD_ORDER,
    METHOD_STYLE,
    PAGE_WIDTH,
    Look,
    save_figure,
    style,
)

__all__ = [
    "AVERAGE_STYLE", "COLUMN_WIDTH", "CONTEXT_STYLE", "METHOD_ORDER", "METHOD_STYLE", "PAGE_WIDTH", "Look",
    "actor_mass", "attention_share", "bar_in_out", "base_novel", "cost_ratios", "difference_forest", "drop_scatter",
    "epoch_lines", "film_strip", "film_strip_attention", "gwa_heatmap",
    "meta_step_2d", "rho_dial", "save_figure", "style", "training_curves", "trajectory_accuracy", "weight_curves",
]  # fmt: skip
