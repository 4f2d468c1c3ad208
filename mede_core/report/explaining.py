"""Tables of what learners use: effects of background and motion, and which maps may be believed. Torch-free."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .intervals import accuracy_interval, paired_difference, t_interval
from .tables import method_label
from .write import format_difference


def effects_table(effects: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a method, of ``attention.causal_effects``: mean effects on the class margin, beside what the same clips
    lose in accuracy when their background is swapped and when their frames are shuffled; with intervals over clips."""
    rows = []
    for method, one in effects.items():
        rows.append({
            "Method": method_label(method), "Clips": len(one["motion"]),
            "Background swapped (logits)": _mean(one["background"], 2),
            "Motion reversed (logits)": _mean(one["motion"], 2),
            "Background counts more (%)": str(accuracy_interval(np.abs(one["background"]) > np.abs(one["motion"]))),
            "Static gap (points)": str(paired_difference(one["whole"], one["swapped"])),
            "Order gap (points)": str(paired_difference(one["whole"], one["shuffled"])),
            "Single frame (%)": str(accuracy_interval(one["single"])),
        })  # fmt: skip
    return pd.DataFrame(rows)


def typical(effects: Mapping[str, Mapping[str, np.ndarray]], clip: int) -> str:
    """Sentences on where one clip stands among all, a method each, by ``attention.causal_effects``."""
    said = []
    for method, one in effects.items():
        shares, parts = [], []
        for name, words in (("background", "background swapped"), ("motion", "motion reversed")):
            values = np.round(one[name], 3)  # rounding errors rank nothing
            shares.append(100 * (np.mean(values < values[clip]) + np.mean(values == values[clip]) / 2))
            parts.append(f"{words}, the margin falls by {values[clip]:.2f} logits (percentile {shares[-1]:.0f})")
        is_typical = min(shares) >= 10 and max(shares) <= 90
        said.append(f"* {method_label(method)}: {'; '.join(parts)}: **{'' if is_typical else 'not '}typical**.")
    return "\n".join([*said, "", f"Typical: between percentiles 10 and 90 of {len(values)} clips, in both."])


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
