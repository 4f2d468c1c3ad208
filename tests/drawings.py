"""One figure of each plot function, with the frames that it shows."""

import numpy as np
import pandas as pd

from mede_core.report.figures import diagram, film, results, training, trajectories
from mede_core.report.figures.style import METHOD_STYLE

T, H = 4, 16
EPOCHS = np.arange(1, 9)
FOREST = pd.DataFrame({
    "label": ["a", "a", "b"], "quantity": ["in", "out", "out"], "value": [1.0, -2.0, 3.0], "low": [0.5, -3.0, 1.0],
    "high": [1.5, -1.0, 5.0], "seeds": [5, 5, 2],
})  # fmt: skip
LINES = pd.DataFrame({"series": ["x", "x", "y", "y"], "epoch": [1, 2, 1, 2], "value": [0.1, 0.2, -0.1, -0.3]})
LOOKS = pd.DataFrame({"method": ["frozen", "finetune"], "drop": [40.0, 20.0], "order_gap": [0.0, 12.0]})
BOUND = {"in": 90, "out": 50, "scene": 50, "noise": 50, "stripes": 50}
STEPS = [{"epoch": epoch, "moved": epoch / 3, "from_first": epoch**0.5} for epoch in range(1, 7)]
LENGTHS = [{"inner_lr": a, "support_loss": 3 - a, "query_loss": 3 - a / 2 + a * a} for a in (0, 0.05, 0.5, 2)]


def methods_frame(methods=METHOD_STYLE, contexts=("in", "scene", "noise", "stripes")):
    rows = [
        {"method": method, "context": context, "value": 40.0 + 5 * i + j}
        for i, method in enumerate(methods)
        for j, context in enumerate(contexts)
    ]
    return pd.DataFrame(rows).assign(low=lambda f: f["value"] - 2, high=lambda f: f["value"] + 3)


def clip():
    rng = np.random.default_rng(0)
    mask = np.zeros((T, H, H), bool)
    mask[:, 4:8, 4:12] = True
    return rng.integers(0, 256, (T, 3, H, H), dtype=np.uint8), mask


def curves():
    gwa = np.exp(-((EPOCHS - 5.0) ** 2) / 8)
    last = (EPOCHS == 8).astype(float)
    return {"GWA": gwa / gwa.sum(), "SWA": np.full(8, 1 / 8), "last": last}


def metrics_frame():
    step = np.arange(40)
    return pd.DataFrame(
        {
            "step": step, "epoch": step // 10 + 1, "support_loss": 3 - step / 20,
            "query_loss": 3.2 - step / 20, "grad_inner_product": np.cos(step), "lr": np.full(40, 1e-3),
        }
    )  # fmt: skip


def meta_arguments():
    x, y = np.linspace(-2, 2, 21), np.linspace(-1, 2, 16)
    grid_x, grid_y = np.meshgrid(x, y)
    return {
        "x": x, "y": y, "support_loss": (grid_x - 1) ** 2, "query_loss": (grid_y - 1) ** 2,
        "theta": np.array([-1, 0]), "theta_fast": np.array([-0.2, 0]), "support_grad": np.array([-4, 0]),
        "query_grad": np.array([0, -2]), "joint_grad": np.array([-4, -1]),
    }  # fmt: skip


def base_novel_frame():
    rows = [
        {"method": m, "split": s, "value": v, "set": "source"}
        for m, values in (("frozen", (62.3, 53.4, 57.5)), ("open_mede", (77.3, 63.8, 69.9)))
        for s, v in zip(("base", "novel", "hm"), values, strict=True)
    ]
    return pd.DataFrame(rows).assign(low=lambda f: f["value"] - 2, high=lambda f: f["value"] + 3)


def rho_frame():
    rows = [
        {"rho": rho, "method": m, "value": 90 - 50 * rho * (m == "finetune"), "context": c, "low": 20, "high": 95}
        for rho in (0.95, 0.25, 0.75)
        for m in ("finetune", "open_mede")
        for c in ("in", "out")
    ]
    return pd.DataFrame(rows).assign(seeds=lambda frame: np.where(frame["rho"] == 0.95, 2, 5))


DRAW = {
    "pipeline": diagram.pipeline,
    "film_strip": lambda: film.film_strip([clip()[0]] * 2, ["one", "two"]),
    "film_strip_attention": lambda: film.film_strip_attention(clip()[0], np.ones((T, 4, 4)), clip()[1]),
    "trajectory_steps": lambda: trajectories.trajectory_steps(STEPS),
    "weight_curves": lambda: trajectories.weight_curves(curves(), 5, 2),
    "bar_in_out": lambda: results.bar_in_out(methods_frame(), bound=BOUND, chance=1.4, title="t"),
    "lines_base_novel": lambda: results.lines_base_novel(base_novel_frame()),
    "cost_ratios": lambda: results.cost_ratios(pd.DataFrame({"Time": {"finetune": 1.0, "open_mede": 2.0}})),
    "training_curves": lambda: training.training_curves(metrics_frame(), warmup_epochs=1),
    "inner_step_curves": lambda: training.inner_step_curves(LENGTHS, 0.5),
    "meta_step_2d": lambda: training.meta_step_2d(**meta_arguments(), query_weight=1.0),
    "rho_dial": lambda: results.rho_dial(rho_frame(), title="t", chance=1.4, bound=BOUND),
    "difference_forest": lambda: results.difference_forest(FOREST, margin=1.0),
    "epoch_lines": lambda: results.epoch_lines(LINES, label="cosine", zero=True),
    "drop_scatter": lambda: results.drop_scatter(LOOKS, {"order_gap": "order gap (points)"}),
    "gwa_heatmap": lambda: trajectories.gwa_heatmap(
        [1, 2, 3], [1, 4], [[60, 61, 62], [63, 66, 64]], published=(2.5, 2.5), references={"SWA": 61.0}
    ),
    "trajectory_accuracy": lambda: trajectories.trajectory_accuracy(
        EPOCHS, {"in": 80 + EPOCHS, "out": 60 - EPOCHS}, {"GWA": {"in": 88.0, "out": 59.0}}, title="t"
    ),
}
