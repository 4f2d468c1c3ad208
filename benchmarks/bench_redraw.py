"""How long each explorer takes to draw anew, on two cores: `python benchmarks/bench_redraw.py`.

From a control's new value to the picture's bytes, on what ships with the package: the median and the 95th percentile
of wall-clock time. The first picture, which also lays out the page, is not counted. Nothing is asserted here: the
target for the lab of averages is 300 ms.
"""

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
import torch

from mede_core import Workspace, load_config
from mede_core.batch import asks
from mede_core.lab.bias_lab import bias_explorer
from mede_core.lab.browser import browser, tabulated
from mede_core.lab.explorers import gwa_explorer, meta_step_explorer, rho_explorer
from mede_core.lab.geometry import plane
from mede_core.lab.gwa_accuracy import GwaAccuracy
from mede_core.lab.live import run_picker
from mede_core.lab.steps import steps_explorer
from mede_core.report.tables import dial
from mede_core.study.store import study_records

CORES = 2


def explorers(workspace: Workspace) -> dict:
    """{name: (widget, place of the control that is moved, its values)}."""
    config = load_config("cpu", method="open_mede")
    run, study = workspace.run(config), study_records("main")
    points = plane([workspace.fresh_learner(config).trainable_state(), *run.trajectory()])
    worth = GwaAccuracy(asks.answers(asks.gwa_lab(config, 200), workspace))
    two = {name: workspace.learner(load_config("cpu", method=name)) for name in ("finetune", "open_mede")}
    curves = dial([record for record in study if record["set"] == "source"] + study_records("dial"))
    picker, browse = run_picker(workspace), browser(tabulated({"the study": study}))
    return {
        "run picker": (picker, 0, list(picker.children[0].children[0].options.values())),
        "weights of an average": (gwa_explorer(22), 1, np.linspace(1, 22, 20)),
        "lab of averages": (gwa_explorer(config.epochs, plane=points, accuracy=worth), 1, np.linspace(1, 8, 20)),
        "meta-step": (meta_step_explorer(), 0, np.linspace(0, 0.6, 13)),
        "meta-steps of a run": (steps_explorer({"run": run.metrics()}, config.query_weight), 1, range(1, 56, 3)),
        "static-bias lab": (bias_explorer(two), 2, [0, 1, 2, 3, -1, -2]),
        "world's dial": (rho_explorer(), 0, np.linspace(0.25, 1, 16)),
        "dial over curves": (rho_explorer(dial=curves), 0, np.linspace(0.25, 1, 16)),
        "results browser": (browse, 2, browse.children[0].children[2].options[:10]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    print(f"{'':24}{'redraws':>9}{'median ms':>11}{'95 % within ms':>16}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (widget, place, values) in explorers(Workspace(folder, shipped=True, make=False)).items():
            control, picture, spent = widget.children[0].children[place], widget.children[-1], []
            for value in [*values] * rounds:
                before, begin = picture.value, time.perf_counter()
                control.value = value
                if picture.value is not before:
                    spent.append(1e3 * (time.perf_counter() - begin))
            widget.close()  # the run picker's thread then ends
            print(f"{name:24}{len(spent):>9}{statistics.median(spent):>11.0f}{np.quantile(spent, 0.95):>16.0f}")


if __name__ == "__main__":
    main()
