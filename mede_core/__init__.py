"""Open-MeDe for open-vocabulary action recognition: the importable core of the notebook suite.

The names below are resolved on first use, so that `import mede_core` costs milliseconds and what only reads results
(`report`, `config`) never loads torch.
"""

import importlib

__version__ = "0.1.0"

_HOME = {  # public name -> the module that defines it
    "VideoLearner": "learner",
    "build_learner": "learner",
    "STAdapter": "adapters",
    "cross_batch_pairs": "meta",
    "meta_gradients": "meta",
    "meta_step": "meta",
    "gaussian_weights": "gwa",
    "GaussianWeightAverage": "gwa",
    "average_trajectory": "gwa",
    "fit": "train",
    "evaluate": "scoring",
    "harmonic_mean": "report.metrics",
    "attention_maps": "attention",
    "static_bias": "attention",
    "compare_with_paper": "report.paper",
    "load_config": "config",
    "EvalSet": "config",
    "Workspace": "workspace",
    "select_gwa": "averages",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
