"""What the study trains and tests: sections, their variants and their seeds. Torch-free.

A seed is that of the world (base and novel halves, clips), of the initialization and of the order of the clips. The
seeds are not those that the world was designed on; hyper-parameters were searched on the design seed, see ``search``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..config import METHODS, Config, load_config

SEEDS = (4, 5, 6, 7, 8)  # of the main questions
FEW = (4, 5)  # of the others
DESIGN_SEED = 0
TRAINED = ("finetune", "open_vclip", "froster", "open_mede_no_gwa", "open_mede")
RHO_POINTS = (0.25, 0.95, 1.0)  # of the dial, beside the 0.8 of the main section; the first is chance
CLIPS = "runs/full/clips"  # the CLIPs that do not ship: `python -m mede_core.study clips` pretrains them
HOME1, WIDE = f"{CLIPS}/home1", f"{CLIPS}/wide"
PRETRAINED = {HOME1: {"seed": 1, "home_seed": 1}, WIDE: {"seed": 0, "width": 120, "layers": 6}}


@dataclass(frozen=True)
class Unit:
    """One trained (or frozen) learner and the tests that it takes.

    Attributes:
        section: of the study.
        variant: what it is, unique within section and seed.
        config: how it is trained; several units may share one training run.
        tests: names of tests in ``measure.py``.
    """

    section: str
    variant: str
    config: Config
    tests: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        """What names the unit."""
        return self.section, self.variant, self.config.seed


def config_of(method: str, seed: int, **changes) -> Config:
    """The study's configuration of a method: the profile ``full`` with one seed for everything."""
    return load_config("full", method=method, seed=seed, world_seed=seed, **changes)


# ------------------------------------------------------------------------------------ sections
# Five trials for every recipe: four learning rates (the fourth was added when all recipes had chosen the third, the
# largest), and one other value of its own most telling setting. Open-MeDe takes the choice of its run without GWA; GWA
# keeps the published ratios.
SEARCH: dict[str, tuple[dict, ...]] = {
    method: (*({"outer_lr": rate} for rate in (5e-3, 2.5e-3, 1e-2, 2e-2)), {"outer_lr": 5e-3, **other})
    for method, other in {
        "finetune": {"weight_decay": 0.1},
        "open_vclip": {"patch_ratio": 0.25},
        "froster": {"distill_weight": 0.5},
        "open_mede_no_gwa": {"inner_lr": 5.0},
    }.items()
}


def trial_name(method: str, changes: Mapping) -> str:
    """Variant of a trial of the search, such as ``froster outer_lr=0.005 distill_weight=0.5``."""
    return " ".join([method, *(f"{name}={value:g}" for name, value in changes.items())])


def _search(seed: int) -> list[Unit]:
    return [
        Unit("search", trial_name(method, changes), config_of(method, seed, **changes, test_clips=1000), ("base",))
        for method, trials in SEARCH.items()
        for changes in trials
    ]


def _main(seed: int) -> list[Unit]:
    tests = ("source", "transfer", "parts", "look")
    return [
        Unit("main", method, config_of(method, seed), (*tests, "reversal") if method == "frozen" else tests)
        for method in METHODS
    ]


def _dial(seed: int) -> list[Unit]:
    points = RHO_POINTS if seed in FEW else (RHO_POINTS[0], RHO_POINTS[-1])
    return [
        Unit("dial", f"{method} rho={rho:g}", config_of(method, seed, rho=rho), ("source",))
        for rho in points
        for method in TRAINED
    ]


_META, _PLAIN = "open_mede_no_gwa", "finetune"
# Q4: variant -> (method, changes). The first two stand in the main section too: the same runs.
CONTROLS: dict[str, tuple[str, dict]] = {
    "fine-tuning": (_PLAIN, {}),
    "meta-step": (_META, {}),
    "joint": (_META, {"inner_lr": 0.0}),  # the same two batches an update, no inner step
    "fine-tuning, twice the epochs": (_PLAIN, {"epochs": 16, "warmup_epochs": 4}),
    "fine-tuning, batch 64": (_PLAIN, {"batch_size": 64}),
    "same batch": (_META, {"pairing": "same"}),
    "disjoint classes": (_META, {"pairing": "disjoint"}),
    "disjoint classes, joint": (_META, {"pairing": "disjoint", "inner_lr": 0.0}),
    "alpha 5": (_META, {"inner_lr": 5.0}),
    "alpha 50": (_META, {"inner_lr": 50.0}),
    "delta 0.25": (_META, {"query_weight": 0.25}),
    "delta 4": (_META, {"query_weight": 4.0}),
    "second order": (_META, {"first_order": False}),
    "batch 16": (_META, {"batch_size": 16}),
    "batch 16, joint": (_META, {"batch_size": 16, "inner_lr": 0.0}),
    "fewer classes": (_META, {"held_out": 1}),
    "fewer classes, joint": (_META, {"held_out": 1, "inner_lr": 0.0}),
    "rho 0.95": (_META, {"rho": 0.95}),
    "rho 0.95, joint": (_META, {"rho": 0.95, "inner_lr": 0.0}),
    "long": (_META, {"epochs": 16, "warmup_epochs": 4}),
    "long, joint": (_META, {"epochs": 16, "warmup_epochs": 4, "inner_lr": 0.0}),
    "long, GWA": ("open_mede", {"epochs": 16, "warmup_epochs": 4}),
}


def _meta(seed: int) -> list[Unit]:
    units = []
    for variant, (method, changes) in CONTROLS.items():
        tests = ("source", "steps") if METHODS[method].trainer == "meta" else ("source",)
        tests += ("prediction",) if variant in ("meta-step", "joint") else ()
        units.append(Unit("meta", variant, config_of(method, seed, **changes), tests))
    return units


def _gwa(seed: int) -> list[Unit]:
    return [
        Unit("gwa", "averages", config_of("open_mede", seed), ("averages", "grid", "grid_order")),
        Unit("gwa", "leave classes out", config_of("open_mede", seed, held_out=1), ("grid_pseudo_novel",)),
    ]


def _encoders(seed: int) -> list[Unit]:
    wide = {"weights": WIDE}
    methods = ("frozen", "finetune", "open_mede_no_gwa", "open_mede")
    return [Unit("encoders", m, config_of(m, seed, **wide), ("source", "look")) for m in methods]


def _second_world(seed: int) -> list[Unit]:
    home = {"weights": HOME1, "home_seed": 1}
    return [Unit("second_world", m, config_of(m, seed, **home), ("source",)) for m in METHODS]


# Our ST-Adapter beside the published forms and AIM, each at two learning rates, plainly fine-tuned.
FORMS: dict[str, dict] = {
    "ours": {},
    "published, zero up-projection": {"adapter_form": "published"},
    "published, zero convolution": {"adapter_form": "published_conv"},
    "AIM": {"temporal_module": "aim"},
}
FORM_RATES = (1e-2, 2.5e-3)


def form_name(form: str, rate: float) -> str:
    """Variant of a form at a learning rate."""
    return f"{form}, beta {rate:g}"


def _adapters(seed: int) -> list[Unit]:
    return [
        Unit("adapters", form_name(form, rate), config_of("finetune", seed, outer_lr=rate, **changes), ("source",))
        for form, changes in FORMS.items()
        for rate in FORM_RATES
    ]


def _floors(seed: int) -> list[Unit]:
    # 288 clips whose labels are drawn anew clip by clip, 100 epochs of 9 steps: enough to learn them by heart
    noise = {"shuffle_labels": True, "train_clips": 288, "epochs": 100, "steps_per_epoch": 0}
    return [Unit("floors", "shuffled labels", config_of("finetune", seed, **noise), ("base", "training_fit"))]


def _cost(seed: int) -> list[Unit]:
    return [Unit("cost", "all methods in turns", config_of("frozen", seed), ("cost",))]  # a seed is a repetition


SECTIONS: dict[str, tuple[Sequence[int], Callable[[int], list[Unit]]]] = {
    "search": ((DESIGN_SEED,), _search),
    "main": (SEEDS, _main),
    "meta": (FEW, _meta),
    "gwa": (SEEDS, _gwa),
    "dial": (SEEDS, _dial),
    "encoders": (FEW, _encoders),
    "second_world": (FEW, _second_world),
    "adapters": (FEW, _adapters),
    "floors": (FEW, _floors),
    "cost": (SEEDS, _cost),
}


def units_of(section: str, seeds: Sequence[int] = ()) -> list[Unit]:
    """The units of a section.

    Args:
        section: one of ``SECTIONS``.
        seeds: default: the section's own.

    Returns:
        units, seed by seed.

    Raises:
        ValueError: an unknown section.
    """
    if section not in SECTIONS:
        raise ValueError(f"section is {section!r}; allowed: {', '.join(SECTIONS)}")
    own, build = SECTIONS[section]
    return [unit for seed in seeds or own for unit in build(seed)]
