"""What the study trains and tests: sections, their variants, seeds and tests. Torch-free. A seed is that of the world
(halves, clips), of the initialization and of the order of clips; none of them designed the world or chose settings."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..averages import grid, rules
from ..config import METHODS, OUT_OF_CONTEXT, PROFILES, SPLITS, Average, Config, EvalSet, load_config
from ..files import repo_root

SEEDS = (4, 5, 6, 7, 8)  # of the main questions
FEW = (4, 5)  # of the others
DESIGN_SEED = 0
TRAINED = ("finetune", "open_vclip", "froster", "open_mede_no_gwa", "open_mede")
CHANCE_RHO = 0.25  # of the world's four scenes
FEW_RHO = 0.95  # the point of the dial that has the few seeds alone
RHO_POINTS = (CHANCE_RHO, FEW_RHO, 1.0)  # of the dial, beside the 0.8 of the main section
LEARNERS = {"frozen": None, "oracle": CHANCE_RHO, "finetune": 0.8, "shortcut": 0.95}  # of the world's checks: rho
CLIPS = (repo_root() or Path()) / "runs" / "clips"  # the CLIPs that do not ship: `mede study clips` pretrains them
HOME1, WIDE = str(CLIPS / "home1"), str(CLIPS / "wide")
PRETRAINED = {HOME1: {"seed": 1, "home_seed": 1}, WIDE: {"seed": 0, "width": 120, "layers": 6}}


@dataclass(frozen=True)
class Unit:
    """One trained (or frozen) learner and the tests that it takes; several units may share one training."""

    section: str
    variant: str  # unique within section and seed
    config: Config
    tests: tuple[str, ...]


# ------------------------------------------------------------------------------------ tests
CONTEXTS = ("in", *OUT_OF_CONTEXT)
RULE_CLIPS = 1000  # a half and background, for the averaging rules, or fewer where the configuration has fewer
GRID_CLIPS = 400  # the same for each point of a grid; sets other than the source have as many
VALIDATION = 2  # the draw of base clips that settings are chosen on; the reported one is 1
DRAWS, DRAW_CLIPS = (2, 3, 4), 1000  # draws of base clips that the regime and its trials are chosen on


def eval_sets(test: str, config: Config) -> tuple[EvalSet, ...]:
    """What a unit's own average is scored on in a test; nothing where the test is measured on the learner itself."""
    few = min(GRID_CLIPS, config.test_clips)
    looks = {"sets": ("transfer_a", "transfer_b"), "halves": ("all",)}
    new_actors = {"sets": ("superset",), "halves": ("all",), "contexts": ("in",), "parts": (1, 2, 3)}
    return {
        "source": world_sets(config.test_clips),
        "base": world_sets(config.test_clips, halves=("base",)),
        # Another look: all backgrounds of the first test split, in context of the others
        "transfer": world_sets(few, **looks) + world_sets(few, **looks, contexts=("in",), parts=(2, 3)),
        # K600's part (new actors) and SSv2's part (direction alone)
        "parts": world_sets(few, **new_actors) + world_sets(few, sets=("direction",), contexts=("in",)),
    }.get(test, ())


def averages(test: str, config: Config) -> list[tuple[Average, tuple[EvalSet, ...]]]:
    """The averages of a unit's trajectory that a test scores, and on what."""
    few = min(GRID_CLIPS, config.test_clips)
    chosen_on = {"contexts": ("in",), "parts": (VALIDATION,)}
    base = world_sets(few, halves=("base",), **chosen_on)
    if test == "averages":  # the rules on the reported clips
        larger = world_sets(min(RULE_CLIPS, config.test_clips))
        return [*((rule, larger) for rule in rules(config)), *averages("epochs", config)]
    if test == "epochs":  # also on the clips that the best one is chosen by
        epochs = [Average(rule="epoch", epoch=epoch, name=f"epoch {epoch}") for epoch in range(config.epochs + 1)]
        return [(epoch, base + world_sets(few)) for epoch in epochs]
    if test == "draws":  # the last epoch, whatever average a recipe takes: trainers are chosen apart from averages
        return [(Average(), world_sets(DRAW_CLIPS, halves=("base",), parts=DRAWS))]
    if test in ("each average", "last and gwa"):
        small, larger = {"halves": ("all",), "contexts": ("in",)}, world_sets(min(RULE_CLIPS, config.test_clips))
        others = world_sets(few, sets=("transfer_a", "transfer_b", "superset", "direction"), **small)
        formed = [one for one in each_average(config) if test == "each average" or one.name in ("last", "gwa")]
        return [(one, larger + (others if test == "each average" else ())) for one in formed]
    sets = {
        "grid": world_sets(few),
        # The order criterion: base clips that are not reported, as they are and shuffled
        "grid_order": (*base, *(one.replace(order="shuffled") for one in base)),
        # The leave-classes-out criterion: classes that were left out of this run
        "grid_pseudo_novel": world_sets(few, halves=(f"pseudo_novel_{config.held_out}",), **chosen_on),
    }.get(test)
    return [(average, sets) for average in grid(config)] if sets else []


def each_average(config: Config) -> list[Average]:
    """The averages that a long trajectory is judged by; a neighbor differs in one thing. Frozen CLIP has itself."""
    if METHODS[config.method].trainer == "none":
        return [Average(name="last")]
    named = {average.name: average for average in rules(config)}
    uniform = named["swa"].replace(start=config.swa_start)  # of Open-VCLIP and FROSTER
    patched = uniform.replace(patch=config.patch_ratio, name="swa patched")  # half CLIP, as Open-VCLIP is tested
    return [named["last"], named["gwa"], named["ema"], uniform, patched]


def world_sets(clips: int, sets=("source",), halves=SPLITS, contexts=CONTEXTS, parts=(1,)) -> tuple[EvalSet, ...]:
    where = itertools.product(sets, halves, contexts, parts)
    return tuple(EvalSet(set=name, half=half, part=part, context=at, clips=clips) for name, half, at, part in where)


# ------------------------------------------------------------------------------------ sections
# Five trials for every recipe: four rates (the fourth was added when all had chosen the third, the largest), and one
# other value of its most telling setting. Open-MeDe takes the choice of its run without GWA, which has published ratios
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


_META, _PLAIN = "open_mede_no_gwa", "finetune"
_LONG = {"epochs": 16, "warmup_epochs": 4}
# Q4: variant -> (method, changes). The first two stand in the main section too: the same runs.
CONTROLS: dict[str, tuple[str, dict]] = {
    "fine-tuning": (_PLAIN, {}),
    "meta-step": (_META, {}),
    "joint": (_META, {"inner_lr": 0.0}),  # the same two batches an update, no inner step
    "fine-tuning, twice the epochs": (_PLAIN, _LONG),
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
    "long": (_META, _LONG),
    "long, joint": (_META, {**_LONG, "inner_lr": 0.0}),
    "long, GWA": ("open_mede", _LONG),
}


# ------------------------------------------------------------------------------------ trained to the plateau
# Written before the first run. The regime: 22 epochs, 2 of them warm-up, mu 15 and sigma 10 (the authors' leftovers),
# and 56 steps an epoch; 112 if those move accuracy on base classes of the design seed, in or out of context, by
# PLATEAU points or more, for plain or for meta (mean of three draws of clips; rates of the earlier search).
LONG = {name: value for name, value in PROFILES["full"].items() if name != "steps_per_epoch"}
STEPS, PLATEAU = (56, 112), 1.0
TRAINERS: dict[str, tuple[str, dict]] = {
    "plain": (_PLAIN, {}), "joint": (_META, {"inner_lr": 0.0}), "meta": (_META, {}),
    "interpolated": ("open_vclip", {}), "distilled": ("froster", {}),
}  # fmt: skip
# The search: six trials for every trainer, scored by the harmonic mean of in and out of context on the same draws.
# Rates first, a factor of 2 apart, until the best has a tried neighbor on both sides; what is left of the six goes to
# the trainer's own settings at its best rate, in this order (searches.search; a test holds TRIALS to it).
BUDGET = 6
RATES = ({"outer_lr": 1e-2}, {"outer_lr": 2e-2}, {"outer_lr": 4e-2})
OWN: dict[str, tuple[dict, ...]] = {
    "plain": ({"weight_decay": 0.1}, {"weight_decay": 1e-3}, {"weight_decay": 1.0}),
    "joint": ({"query_weight": 4.0}, {"query_weight": 0.25}, {"weight_decay": 0.1}),
    "meta": ({"inner_lr": 5.0}, {"query_weight": 4.0}, {"inner_lr": 0.05}),
    "interpolated": ({"iwr_weight": 0.25}, {"iwr_max": 0.3}, {"iwr_weight": 1.0}),
    "distilled": ({"distill_weight": 0.5}, {"distill_weight": 8.0}, {"distill_weight": 0.125}),
}


def _tried(trainer: str, best: float, *beyond: float) -> tuple[dict, ...]:
    """The rates, those beyond an edge of them, and settings of the trainer's own at the best."""
    rates = (*RATES, *({"outer_lr": rate} for rate in beyond))
    return (*rates, *({"outer_lr": best, **own} for own in OWN[trainer]))[:BUDGET]


TRIALS: dict[str, tuple[dict, ...]] = {
    "plain": _tried("plain", 2e-2),
    "joint": _tried("joint", 1e-2, 5e-3),
    "meta": _tried("meta", 4e-2, 8e-2),
    "interpolated": _tried("interpolated", 2e-2),
    "distilled": _tried("distilled", 2e-2),
}
# What they chose, trainer by trainer, and how many steps an epoch has; until all have chosen, nothing below is run.
CHOSEN: dict[str, dict] = {name: dict(METHODS[method].long) for name, (method, _) in TRAINERS.items()}
CHOSEN["joint"] = {"outer_lr": 1e-2}  # a control, no method of its own
CHOSEN_STEPS = PROFILES["full"]["steps_per_epoch"]
# A meta-step takes two batches; 112 steps are all batches of an epoch, so equal passes are epochs, and what counts them
TWICE = {name: 2 * LONG[name] for name in ("epochs", "warmup_epochs", "gwa_mu", "gwa_sigma")}
RATED = {name if name == by else f"{name} at {by}'s rate": (name, by)  # variant -> trainer, and who chose its rate
         for by in ("plain", "meta") for name in ("meta", "joint", "plain")}  # fmt: skip
PAIRINGS = {"scenes": "other scenes", "disjoint": "disjoint classes"}  # of the query batch -> how variants say it
SIX, FOUR = tuple(range(4, 10)), tuple(range(4, 8))  # seeds


def plateau(trainer: str, **changes) -> tuple[str, dict]:
    method, own = TRAINERS[trainer]
    return method, {**LONG, "steps_per_epoch": CHOSEN_STEPS, **own, **CHOSEN[trainer], **changes}


def long_sections() -> dict:
    """Trainers and their averages; where the inner step could bite; the dial. All tests of a run at once."""
    if CHOSEN.keys() != TRAINERS.keys():
        return {}
    every, both = ("each average", "cues"), ("last and gwa",)
    trainers = {
        "frozen": ("frozen", {}, every), **{name: (*plateau(name), every) for name in TRAINERS},
        "plain with equal passes": (*plateau("plain", **TWICE), every),
    }  # fmt: skip
    trainers["meta"] = (*plateau("meta"), (*every, "epochs", "grid", "grid_order"))  # mu and sigma, without test data
    return {
        "trainers": (SIX, trainers),
        # Query batches whose scenes are assigned to motions otherwise, or that have other classes: on the same batches
        "bite": (FOUR, {f"{name}, {how}": (*plateau(name, pairing=pairing), both)
                        for pairing, how in PAIRINGS.items() for name in ("meta", "joint")}),
        # The chosen rates differ, so that an average, or meta against joint, may differ by them alone: at one rate
        "rates": (SIX, {one: (*plateau(name, **CHOSEN[by]), both) for one, (name, by) in RATED.items() if name != by}),
        # Its middle is run again: a line over rho stays on one machine. Two seeds, hints: above 12 hours with 112 steps
        "long_dial": (FEW, {"frozen": ("frozen", {}, both)} | {f"{name} rho={rho:g}": (*plateau(name, rho=rho), both)
                            for rho in (CHANCE_RHO, 0.8, 1.0) for name in TRAINERS}),
    }  # fmt: skip


# Our ST-Adapter beside the published forms and AIM, each at two learning rates, plainly fine-tuned.
FORMS: dict[str, dict] = {
    "ours": {},
    "published, zero up-projection": {"adapter_form": "published"},
    "published, zero convolution": {"adapter_form": "published_conv"},
    "AIM": {"temporal_module": "aim"},
}
FORM_RATES = (1e-2, 2.5e-3)


def form_name(form: str, rate: float) -> str:
    return f"{form}, beta {rate:g}"


# 288 clips whose labels are drawn anew clip by clip, 100 epochs of 9 steps: enough to learn them by heart
_NOISE = {"shuffle_labels": True, "train_clips": 288, "epochs": 100, "steps_per_epoch": 0}
_MAIN_TESTS = ("source", "transfer", "parts", "look")
_ENCODED = ("frozen", "finetune", "open_mede_no_gwa", "open_mede")

# section -> its seeds, and variant -> (method, changes, tests)
SECTIONS: dict[str, tuple[Sequence[int], dict[str, tuple[str, dict, tuple[str, ...]]]]] = {
    "search": ((DESIGN_SEED,), {
        trial_name(method, changes): (method, {**changes, "test_clips": 1000}, ("base",))
        for method, trials in SEARCH.items()
        for changes in trials
    }),
    "main": (SEEDS, {
        method: (method, {}, (*_MAIN_TESTS, "reversal") if method == "frozen" else _MAIN_TESTS) for method in METHODS
    }),
    "meta": (FEW, {
        variant: (method, changes, ("source", "prediction") if variant in ("meta-step", "joint") else ("source",))
        for variant, (method, changes) in CONTROLS.items()
    }),
    "gwa": (SEEDS, {
        "averages": ("open_mede", {}, ("averages", "grid", "grid_order")),
        "leave classes out": ("open_mede", {"held_out": 1}, ("grid_pseudo_novel",)),
    }),
    "dial": (SEEDS, {
        f"{method} rho={rho:g}": (method, {"rho": rho}, ("source",)) for rho in RHO_POINTS for method in TRAINED
    }),
    "encoders": (FEW, {method: (method, {"weights": WIDE}, ("source", "look")) for method in _ENCODED}),
    "second_world": (FEW, {method: (method, {"weights": HOME1, "home_seed": 1}, ("source",)) for method in METHODS}),
    "adapters": (FEW, {
        form_name(form, rate): (_PLAIN, {"outer_lr": rate, **changes}, ("source",))
        for form, changes in FORMS.items()
        for rate in FORM_RATES
    }),
    "regime": ((DESIGN_SEED,), {
        f"{trainer}, {steps} steps": (TRAINERS[trainer][0], {**LONG, "steps_per_epoch": steps}, ("draws",))
        for trainer in ("plain", "meta") for steps in STEPS
    }),
    "trials": ((DESIGN_SEED,), {
        trial_name(trainer, changes): (method, {**LONG, "steps_per_epoch": CHOSEN_STEPS, **own, **changes}, ("draws",))
        for trainer, (method, own) in TRAINERS.items() for changes in TRIALS[trainer]
    }),
    "floors": (FEW, {"shuffled labels": (_PLAIN, _NOISE, ("base", "training_fit"))}),
    "cost": (SEEDS, {"all methods in turns": ("frozen", {}, ("cost",))}),  # a seed is a repetition
    **long_sections(),
}  # fmt: skip


def units_of(section: str, seeds: Sequence[int] = ()) -> list[Unit]:
    """The units of a section, seed by seed; default: the section's own seeds. All have one seed for everything."""
    own, variants = SECTIONS[section]
    found = []
    for seed, (variant, (method, changes, tests)) in itertools.product(seeds or own, variants.items()):
        if section == "dial" and changes["rho"] == FEW_RHO and seed not in FEW:
            continue
        config = load_config("cpu", method=method, seed=seed, world_seed=seed, **changes)
        found.append(Unit(section, variant, config, tests))
    return found
