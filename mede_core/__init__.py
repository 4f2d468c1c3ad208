"""Open-MeDe for open-vocabulary action recognition: the importable core of the notebook suite.

The names below are resolved on first use, so that `import mede_core` costs milliseconds and the parts that
only read results (`results`, `figures`, `metrics`, `config`, `reproduce`) never load torch.
"""

import importlib
import sys
import types

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
    "evaluate": "evaluate",
    "harmonic_mean": "metrics",
    "attention_maps": "attention",
    "static_bias": "attention",
    "ResultStore": "results",
    "compare_with_paper": "results",
    "load_config": "config",
    "select_gwa": "selection",
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


class _Package(types.ModuleType):
    """A package whose public names win over submodules of the same name.

    Importing the submodule `mede_core.evaluate` binds it to the attribute `evaluate`; without this, the
    meaning of `from mede_core import evaluate` (the function) would depend on what was imported before.
    """

    def __setattr__(self, name, value):
        if name in _HOME and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
