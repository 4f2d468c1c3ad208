"""What averages of one trajectory are worth: measured ones as they are, between them read off a grid of Gaussians."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..averages import RULE_LABELS, epoch_shares
from ..config import PATCHED, Average
from ..report.averaging import grid_values, scores_of_average
from ..report.intervals import Interval, accuracy_interval

PLACES = ("in", "out")  # of context
MEASURED = "measured here"
GRIDS = {False: "grid:", True: "grid+0:"}  # with epoch 0?


def average_of(rule: str = "gwa", mu: float = 0.0, sigma: float = 1.0, start: int = 1) -> Average:
    """The average behind the controls; the first epoch that counts may be 0, CLIP's own weights."""
    if rule in ("last", "patched"):
        return PATCHED if rule == "patched" else Average("last", name=rule)
    gaussian = {"mu": mu, "sigma": sigma} if rule == "gwa" else {}
    first = max(start, 1) if rule != "ema" else 1
    return Average(rule, **gaussian, start=first, with_zero=start == 0, name=rule)


def shares_of(average: Average, num_epochs: int) -> np.ndarray:
    """[E + 1] what epochs 0 to E count, CLIP's own weights first, which patching mixes in."""
    shares = (1 - average.patch) * epoch_shares(average, num_epochs).numpy()
    shares[0] += average.patch
    return shares


class GwaAccuracy:
    """Accuracy in and out of context, in percent, of really averaged learners: from records of grids and rules
    (``asks.gwa_lab``) on one set of clips. ``measure`` gives such records of one more."""

    def __init__(self, records: Sequence[Mapping], measure: Callable[[Average], Sequence[Mapping]] | None = None):
        names = {row["average"] for row in records}
        self.grids = {
            zero: {where: grid_values(records, where, prefix) for where in PLACES}
            for zero, prefix in GRIDS.items()
            if any(name.startswith(prefix) for name in names)
        }
        self.clips = sum(row["n"] for row in records if row["average"] == records[0]["average"])
        self.measure = measure
        self.measured: dict[Average, dict[str, Interval]] = {}
        for name in names & {*RULE_LABELS, PATCHED.name}:
            row = next(row for row in records if row["average"] == name)
            rule, _, zero = name.partition("+")
            self._add(average_of(rule, row["mu"], row["sigma"], int(not zero)), records, name)

    def _add(self, average: Average, records: Sequence[Mapping], name: str) -> None:
        scores = scores_of_average(records, name)
        self.measured[average] = {where: accuracy_interval([scores[where]]) for where in PLACES}

    @property
    def others(self) -> dict[str, dict[str, float]]:
        """The averages that stand beside a Gaussian: name -> {"in", "out"}."""
        found = {name: self.measured.get(average_of(name.lower())) for name in ("SWA", "EMA", "last", "patched")}
        return {name: {where: one[where].value for where in PLACES} for name, one in found.items() if one}

    def at(self, mu: float = 0.0, sigma: float = 1.0, rule: str = "gwa", start: int = 1) -> tuple[dict, str]:
        """{"in", "out"} -> (value, low, high), the ends NaN unless measured; and in words where it comes from."""
        average = average_of(rule, mu, sigma, start)
        if found := self.measured.get(average):
            said = ", ".join(f"{one.value:.1f} % [{one.low:.1f} to {one.high:.1f}]" for one in found.values())
            told = f"<b>measured</b>: {said} in and out of context, 95 % intervals, {self.clips:,} clips"
            return {where: (one.value, one.low, one.high) for where, one in found.items()}, told
        grid = self.grids.get(average.with_zero) if rule == "gwa" and start < 2 else None
        if not grid:
            return {}, "not measured yet" + (": press the button" if self.measure else "")
        values = {}
        for where, (mus, sigmas, found) in grid.items():
            columns = [np.interp(mu, mus, row) for row in found]
            values[where] = (float(np.interp(sigma, sigmas, columns)), np.nan, np.nan)
        inside = round(mus[0], 6) <= mu <= round(mus[-1], 6) and round(sigmas[0], 6) <= sigma <= round(sigmas[-1], 6)
        edge = "" if inside else " (outside the grid: its nearest edge)"
        said = f"{values['in'][0]:.1f} % in context, {values['out'][0]:.1f} % out of it, between points of a grid"
        return values, f"{said}{edge} of {self.clips:,} clips each"

    def measure_at(self, **chosen) -> None:
        """Average and score at these very controls; from then on that is shown there."""
        average = average_of(**chosen)
        records = self.measure(average.replace(name=MEASURED))
        self._add(average, records, MEASURED)
