"""Tables of what learners use: effects of background and motion, and which maps may be believed. Torch-free."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .intervals import accuracy_interval, t_interval
from .tables import method_label
from .write import format_difference, format_interval


def effects_table(effects: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a method: mean effects on the class margin (``attention.causal_effects``), with intervals over clips."""
    rows = []
    for method, one in effects.items():
        more = accuracy_interval(np.abs(one["background"]) > np.abs(one["motion"]))
        rows.append({
            "Method": method_label(method), "Clips": len(one["motion"]),
            "Background swapped (logits)": _mean(one["background"], 2),
            "Motion reversed (logits)": _mean(one["motion"], 2),
            "Background counts more (%)": format_interval(more.value, more.low, more.high),
        })  # fmt: skip
    return pd.DataFrame(rows)


def maps_table(tested: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a map method, from ``lab.map_tests.compare_maps``. A map may be believed where both gains are above zero
    with their intervals, and where it changes with shuffled weights: else it shows the clip, not the learner."""
    rows = []
    for name, one in tested.items():
        ends = [t_interval(one[key])[1] for key in ("deletion", "insertion")]
        changed = float(np.mean(one["shuffled"])) < 0.5
        rows.append({
            "Map": name, "Clips": len(one["deletion"]), "Deletion": _mean(one["deletion"], 1),
            "Insertion": _mean(one["insertion"], 1), "Correlation with shuffled weights": _mean(one["shuffled"], 2),
            "May be believed": "yes" if min(ends) > 0 and changed else "no",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: np.ndarray, decimals: int) -> str:
    return format_difference(*t_interval(values), decimals)
