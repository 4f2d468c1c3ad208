"""What an answer follows where motion and scene point to different actions, and what an unfamiliar background costs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..report.intervals import Interval, accuracy_interval, paired_difference
from ..report.tables import method_label
from ..world.synthetic import ClipSpec, World


def scene_reader(world: World, spec: ClipSpec, seed: int = 0) -> np.ndarray:
    """Motions [N] that a reader of stills names: of the pair that it sees the one at home in the scene, else either."""
    first = spec.motion // 2 * 2
    coin = np.random.default_rng(seed).integers(0, 2, len(spec))
    return first + np.select([world.home[first] == spec.scene, world.home[first + 1] == spec.scene], [0, 1], coin)


def votes(world: World, spec: ClipSpec, named: np.ndarray) -> dict[str, np.ndarray]:
    """What the motions ``named`` [N] follow before the home scene of each motion's reversal: [N] bool of ``motion``
    (the one shown) and, of the scene, ``reversal`` and ``resident`` (another motion at home there); else ``other``."""
    motion, reversal = named == spec.motion, named == spec.motion ^ 1
    resident = (world.home[named] == spec.scene) & ~reversal
    return {"motion": motion, "reversal": reversal, "resident": resident, "other": ~(motion | reversal | resident)}


def scene_share(one: Mapping[str, np.ndarray]) -> Interval:
    """The scene's share of the :func:`votes` for motion or scene, in percent."""
    return accuracy_interval((one["reversal"] | one["resident"])[~one["other"]])


def votes_table(found: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """A row a method of its :func:`votes`, in percent of the clips, with intervals over clips."""
    columns = {"motion": "Motion shown", "reversal": "Scene: the reversal",
               "resident": "Scene: another at home there", "other": "Any other"}  # fmt: skip
    rows = []
    for method, one in found.items():
        cells = {label: str(accuracy_interval(one[kind])) for kind, label in columns.items()}
        rows.append({"Method": method_label(method), **cells, "Scene's share of votes": str(scene_share(one))})
    return pd.DataFrame(rows)


def gaps_beyond(right: Mapping[str, Mapping[str, np.ndarray]], reference: str) -> dict[str, dict[str, Interval]]:
    """Static gaps of {learner: {"in" and other backgrounds: [N] right}} in points: the reference learner's own, and by
    how much those of the others are larger than its, clip by clip."""
    lost = {name: {where: 1.0 * one["in"] - one[where] for where in one if where != "in"}
            for name, one in right.items()}  # fmt: skip
    base = lost[reference]
    return {name: {where: paired_difference(gap, 0 * gap if name == reference else base[where])
                   for where, gap in one.items()} for name, one in lost.items()}  # fmt: skip
