"""What averages of one trajectory are worth: read off a grid of Gaussians, or measured at the very center and width."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..config import Average, Config, EvalSet
from ..report.averaging import grid_values, scores_of_average
from ..report.intervals import accuracy_interval
from ..workspace import Workspace

PLACES = ("in", "out")  # of context
MEASURED = "measured here"
OTHERS = {"swa": "SWA", "ema": "EMA", "last": "last", "gwa+0": "GWA with epoch 0"}  # rules that stand beside


class GwaAccuracy:
    """Accuracy in and out of context, in percent, of the really averaged learner."""

    def __init__(self, records: Sequence[Mapping], measure: Callable | None = None):
        (self.mus, self.sigmas, inside), (_, _, outside) = (grid_values(records, where) for where in PLACES)
        self.grid = {"in": inside, "out": outside}  # [S, M]
        self.others = {}  # other averages: name -> {"in", "out"}
        for name, label in OTHERS.items():
            if scores := scores_of_average(records, name):
                self.others[label] = {where: 100 * scores[where].mean() for where in PLACES}
        self.clips = sum(row["n"] for row in records if row["average"] == records[0]["average"])
        self.measure = measure  # (mu, sigma) -> result records
        self.measured = {}  # (mu, sigma) -> ({"in", "out"}, what is said)

    def at(self, mu: float, sigma: float) -> tuple[dict[str, float], str]:
        """Accuracy at a center and a width, and in words where it comes from."""
        if (mu, sigma) in self.measured:
            return self.measured[mu, sigma]
        found = {}
        for where in PLACES:
            columns = [np.interp(mu, self.mus, row) for row in self.grid[where]]
            found[where] = float(np.interp(sigma, self.sigmas, columns))
        inside = self.mus[0] <= mu <= self.mus[-1] and self.sigmas[0] <= sigma <= self.sigmas[-1]
        edge = "" if inside else " (outside the grid: its nearest edge)"
        said = f"{found['in']:.1f} % in context, {found['out']:.1f} % out of it, between points of a grid"
        return found, f"{said}{edge} of {self.clips:,} clips each"

    def measure_at(self, mu: float, sigma: float) -> None:
        """Average and score at this very center and width; from then on that is shown there."""
        records = self.measure(mu, sigma)
        scores = scores_of_average(records, MEASURED)
        found = {where: accuracy_interval([scores[where]]) for where in PLACES}
        said = ", ".join(f"{one.value:.1f} % [{one.low:.1f} to {one.high:.1f}]" for one in found.values())
        count = sum(row["n"] for row in records)
        self.measured[mu, sigma] = (
            {where: one.value for where, one in found.items()},
            f"<b>measured here</b>: {said} in and out of context, {count:,} clips",
        )


def gwa_accuracy(records: Sequence[Mapping], measure: Callable | None = None) -> GwaAccuracy:
    """From the records of a grid (``averages.grid``) and of the rules (``averages.rules``) on one set of clips."""
    return GwaAccuracy(records, measure)


def measuring(workspace: Workspace, config: Config, sets: Sequence[EvalSet]) -> Callable:
    """Scores of a run's Gaussian averages, made where they are not there: ``measure`` of :class:`GwaAccuracy`."""

    def measure(mu: float, sigma: float) -> Sequence[Mapping]:
        return workspace.scores(config, sets, Average("gwa", mu=mu, sigma=sigma, name=MEASURED))

    return measure
