"""What methods cost, as ratios and beside what the note on the paper says of it. Torch-free; ``cost.py`` measures."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .layout import method_label
from .tables import methods_of
from .write import MISSING

_RATIOS = (
    "Time of a step",
    "Clips in a step",
    "Time a clip, training",
    "Peak memory of a step",
    "Time a clip, testing",
)


def cost_ratio(costs: Mapping, reference: str = "finetune") -> dict[str, dict[str, float]]:
    """What each method costs, as ratios to one of them.

    Args:
        costs: method -> ``cost.Cost``, measured side by side.
        reference: the method that counts as 1.

    Returns:
        {quantity: {method: ratio}}; a method that does not train has a ratio at test time only. A ratio holds for this
        model, batch and machine.
    """
    one = costs[reference]
    found: dict[str, dict[str, float]] = {name: {} for name in _RATIOS}
    for method in methods_of([{"method": name} for name in costs]):
        cost = costs[method]
        if cost.clips_per_step:
            step, clips = cost.seconds_per_step / one.seconds_per_step, cost.clips_per_step / one.clips_per_step
            for name, ratio in zip(_RATIOS, (step, clips, step / clips, cost.peak_bytes / one.peak_bytes)):
                found[name][method] = ratio
        found[_RATIOS[-1]][method] = one.clips_per_second_eval / cost.clips_per_second_eval
    return found


def cost_table(costs: Mapping, reference: str = "finetune") -> pd.DataFrame:
    """:func:`cost_ratio` as a reader sees it, a row a method; seconds are left out on purpose."""
    ratios, rows = cost_ratio(costs, reference), []
    for method in ratios[_RATIOS[-1]]:
        shown = {name: f"{found[method]:.2f}" if method in found else MISSING for name, found in ratios.items()}
        size = costs[method].trainable_bytes
        rows.append(
            {"Method": method_label(method), **shown, "On disk, an epoch": f"{size / 1e6:.2f} MB" if size else MISSING}
        )
    return pd.DataFrame(rows)


def cost_claims(costs: Mapping) -> pd.DataFrame:
    """What the note says of costs, beside what was measured here.

    Args:
        costs: method -> ``cost.Cost``; ``finetune`` and ``open_mede`` are needed.

    Returns:
        Text: The note says, Measured as, Ratio here.
    """
    ratios = {name: found["open_mede"] for name, found in cost_ratio(costs).items()}
    step, clips, per_clip, memory, test = (ratios[name] for name in _RATIOS)
    lines = [
        ("no additional overhead", "time of a step, to fine-tuning", step),
        ("no additional overhead", "time of a step for each clip in it, to fine-tuning", per_clip),
        ("twice the batch data", "clips in a step, to fine-tuning", clips),
        ("memory grows in practice", "peak memory of a step, to fine-tuning", memory),
        ("(of GWA: one model)", "time a clip at test time, to fine-tuning", test),
    ]
    if "froster" in costs:
        ratio = cost_ratio(costs, "froster")[_RATIOS[0]]["open_mede"]
        lines.append(("CLIP regularization costs extra forward passes", "time of a step, to FROSTER", ratio))
    titles = ("The note says", "Measured as", "Ratio here")
    return pd.DataFrame([dict(zip(titles, (a, b, f"{c:.2f}"), strict=True)) for a, b, c in lines])
