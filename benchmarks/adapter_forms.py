"""Our ST-Adapter beside the published forms and AIM: `python benchmarks/adapter_forms.py`.

Each form is fine-tuned with the same data, steps, width and seed at two learning rates, on the synthetic world at the
default correlation, and tested on base and novel classes, in context and before swapped backgrounds. What comes out is
written to mede_core/reference/adapter_forms.jsonl. Nothing is chosen by it: the default was set by the trial that the
module's docstring tells of.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mede_core.config import load_config
from mede_core.evaluate import evaluate_world
from mede_core.experiment import train_method, trained_learner
from mede_core.runs import atomic_write, repo_root, set_threads

FORMS = {
    "ours": {"adapter_form": "ours"},
    "published, zero up-projection": {"adapter_form": "published"},
    "published, zero convolution": {"adapter_form": "published_conv"},
    "AIM": {"temporal_module": "aim"},
}
RATES = (5e-3, 1.5e-3)  # ours was tuned at the first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs/adapter_forms")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--clips", type=int, default=720, help="test clips of each half and background")
    parser.add_argument("--out", default=str(repo_root() / "mede_core" / "reference" / "adapter_forms.jsonl"))
    options = parser.parse_args()
    set_threads()
    rows = []
    for name, chosen in FORMS.items():
        for rate in RATES:
            config = load_config(
                "cpu", method="finetune", epochs=options.epochs, outer_lr=rate, test_clips=options.clips, **chosen
            )
            train_method(config, options.runs)
            learner = trained_learner(config, options.runs)
            records = evaluate_world(learner, config)

            def mean(half: str, inside: bool, records=records) -> float:
                found = [r["value"] for r in records if r["split"] == half and (r["context"] == "in") == inside]
                return round(float(np.mean(found)), 1)

            rows.append(
                {
                    "form": name, "outer_lr": rate, "epochs": options.epochs, "world_seed": config.world_seed,
                    "seed": config.seed, "rho": config.rho, "clips": options.clips,
                    "trainable": sum(tensor.numel() for tensor in learner.trainable_state().values()),
                    **{f"{half}_{where}": mean(half, where == "in") for half in ("base", "novel")
                       for where in ("in", "out")},
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    atomic_write(Path(options.out), "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
