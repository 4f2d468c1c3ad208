"""What each notebook needs trained and tested, said once: one function a notebook, named like its file. Torch-free."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..averages import SIGMA_RATIOS, grid, rules
from ..config import METHODS, PATCHED, Average, Config, EvalSet, load_config
from ..files import repo_root
from ..study import units
from ..study.units import CHANCE_RHO, LEARNERS, world_sets
from ..workspace import Workspace
from .data_yaml import DataYaml, read_data_yaml

Tests = list[dict] | None  # fields of EvalSet, on real videos
# In all functions: `settings` are fields of Config, of every learner; other arguments are the notebook's parameters,
# which says their defaults


@dataclass(frozen=True)
class Ask:
    """One question: a training (none for frozen CLIP), and the tests that its average takes (none: the run alone)."""

    config: Config
    sets: tuple[EvalSet, ...] = ()
    average: Average | None = None  # None: the method's own


def answers(asked: Iterable[Ask], workspace: Workspace) -> list[dict]:
    return [record for ask in asked for record in workspace.scores(ask.config, ask.sets, ask.average)]


# ------------------------------------------------------------------------------------ method notebooks
def static_bias(profile: str, settings: Mapping, clips: int) -> list[Ask]:
    own = ({"method": "finetune", "rho": rho} if rho else {"method": "frozen"} for rho in LEARNERS.values())
    return [Ask(load_config(profile, **{**settings, **one}), world_sets(clips)) for one in own]


def cross_batch_meta_optimization(profile: str, settings: Mapping) -> list[Ask]:
    return [Ask(load_config(profile, **{**settings, "method": "open_mede"}))]


def trajectory(profile: str, settings: Mapping) -> Config:
    """The run whose averages are looked at. In `cpu` it is that of the profile `full`, the one run there whose epochs
    are as many as the published center and width are for."""
    return load_config("full" if profile == "cpu" else profile, **{"method": "open_mede", **settings})


def gaussian_weight_averaging(profile: str, settings: Mapping, clips: int, grid_clips: int) -> list[Ask]:
    config = trajectory(profile, settings)
    epochs = [Average("epoch", epoch=epoch, name=f"epoch {epoch}") for epoch in range(config.epochs + 1)]
    averages = [one for one in rules(config) if one.name in ("gwa", "swa", "ema")]
    along = [Ask(config, world_sets(clips), average) for average in (*epochs, *averages)]
    return along + gwa_lab(config, grid_clips)


def gwa_lab(config: Config, clips: int) -> list[Ask]:
    """What the lab of averages reads: the rules, patching, and a grid of Gaussians without and with epoch 0."""
    narrow = grid(config, sigma_ratios=SIGMA_RATIOS[:3])  # the widest are SWA with epoch 0, a rule
    zero = [one.replace(with_zero=True, name=one.name.replace("grid", "grid+0")) for one in narrow]
    averages = (*rules(config), PATCHED, *grid(config), *zero) if clips else ()
    return [Ask(config, world_sets(clips), average) for average in averages]


# ------------------------------------------------------------------------------------ train, evaluate, look
def train(profile: str, settings: Mapping, method: str) -> list[Ask]:
    return [Ask(load_config(profile, **{"method": method, **settings}))]


def evaluate(
    profile: str, settings: Mapping, methods: str = " ".join(METHODS), other_clips: int = 400, tests: Tests = None
) -> list[Ask]:
    """All sets of the synthetic world, the source set with `test_clips`; or `tests` on real videos: of `EvalSet`."""
    configs = [load_config(profile, **{**settings, "method": method}) for method in str(methods).split()]
    return [Ask(one, real_tests(one, tests) or world_tests(one.test_clips, other_clips)) for one in configs]


def real_tests(config: Config, tests: Tests) -> tuple[EvalSet, ...]:
    usual = {"views": config.views, "prompts": config.prompts}
    return tuple(EvalSet(**{**usual, **test}) for test in tests or ())


def world_tests(clips: int, other_clips: int) -> tuple[EvalSet, ...]:
    """Every set before some background, base and novel classes apart; then three test splits, classes together."""
    splits = {"halves": ("all",), "contexts": ("in",), "parts": (1, 2, 3)}
    return (
        *world_sets(clips),
        *world_sets(other_clips, ("transfer_a",)),
        *world_sets(other_clips, ("transfer_b", "superset", "direction"), contexts=("in", "scene")),
        *world_sets(other_clips, ("transfer_a", "transfer_b", "superset"), **splits),
    )


def where_it_looks(profile: str, settings: Mapping) -> list[Ask]:
    return your_video(profile, settings, " ".join([*METHODS, "oracle"]))


def your_video(profile: str, settings: Mapping, learners: str) -> list[Ask]:
    """Methods by name, and the oracle of 01: fine-tuned at chance."""
    own = {"oracle": {"method": "finetune", "rho": CHANCE_RHO}}
    configs = [{**settings, **own.get(name, {"method": name})} for name in learners.split()]
    return [Ask(load_config(profile, **one)) for one in configs]


# ------------------------------------------------------------------------------------ the paper's tables
# As in report.twins, whose code the notebooks of trainings do not import: they would run again where it changes
TWINS = {"K400": "source", "UCF": "transfer_a", "HMDB": "transfer_b", "K600": "superset", "SSv2": "direction"}
REAL = {"K400": "kinetics400", "UCF": "ucf101", "HMDB": "hmdb51", "K600": "kinetics600", "SSv2": "ssv2"}


def table_base_to_novel(profile: str, settings: Mapping, datasets: str, other_clips: int, data: str) -> list[Ask]:
    if profile == "paper":
        return _real(data, _sets(datasets, REAL), few_shot, halves, settings)
    sets = _sets(datasets, TWINS)
    return _kept(evaluate(profile, settings, other_clips=other_clips),
                 lambda one: one.set in sets and one.context == "in" and one.half in units.SPLITS)  # fmt: skip


def table_cross_dataset(profile: str, settings: Mapping, datasets: str, other_clips: int, data: str) -> list[Ask]:
    if profile == "paper":
        return _real(data, _sets(datasets, REAL), elsewhere, splits, settings)
    sets = _sets(datasets, TWINS)
    return _kept(evaluate(profile, settings, other_clips=other_clips),
                 lambda one: one.set in sets and one.half == "all")  # fmt: skip


def table_out_of_context(profile: str, settings: Mapping, test_set: str, other_clips: int, data: str) -> list[Ask]:
    if profile == "paper":
        return [ask for tests in (splits, scuba) for ask in _real(data, ["ucf101"], elsewhere, tests, settings)]
    return _kept(evaluate(profile, settings, other_clips=other_clips),
                 lambda one: one.set == test_set and one.half in units.SPLITS)  # fmt: skip


def table_gwa(
    profile: str, settings: Mapping, test_set: str, clips: int, mu_ratios: str, sigma_ratios: str, tests: Tests
) -> list[Ask]:
    """Averages of one trajectory; `tests` as in `evaluate`."""
    config = trajectory(profile, settings)
    sets = real_tests(config, tests) or world_sets(clips, (test_set,), halves=("all",))
    ratios = ([float(text) for text in str(numbers).split()] for numbers in (mu_ratios, sigma_ratios))
    return [Ask(config, sets, average) for average in (*rules(config), *grid(config, *ratios))]


def figures(profile: str, settings: Mapping, clips: int) -> list[Ask]:
    return [*source(profile, settings), *static_bias(profile, settings, clips)]


def source(profile: str, settings: Mapping) -> list[Ask]:
    return _kept(evaluate(profile, settings), lambda one: one.set == "source")


def _sets(datasets: str, named: Mapping[str, str]) -> list[str]:
    return [named[name] for name in str(datasets).split()]


def _kept(asked: list[Ask], wanted) -> list[Ask]:
    return [Ask(ask.config, tuple(one for one in ask.sets if wanted(one))) for ask in asked]


# ------------------------------------------------------------------------------------ the study
SECTIONS = {  # of the study, that its notebooks read; in the profile `full` they ask for nothing of their own
    "study_claims": ("search", "main", "meta", "floors", "dial", "cost", "regime", "trials", "trainers"),
    "study_dial": ("main", "dial", "long_dial"),
    "study_meta_step": ("meta", "trainers", "rates", "bite", "long_dial"),
    "study_averages": ("gwa", "trainers", "rates"),
    "study_where_it_looks": ("main", "encoders", "second_world", "adapters"),
}


def study_claims(profile: str, settings: Mapping) -> list[Ask]:
    return [] if profile == "full" else source(profile, settings)


def study_dial(profile: str, settings: Mapping, rhos: str, clips: int, other_clips: int) -> list[Ask]:
    """Fresh points of the dial, then the profile's own, on every set."""
    points = itertools.product(map(float, str(rhos).split()), units.TRAINED)
    own = ({**settings, "method": method, "rho": rho} for rho, method in points if profile != "full")
    fresh = [Ask(load_config(profile, **one), world_sets(clips)) for one in own]
    return fresh if profile == "full" else fresh + evaluate(profile, settings, other_clips=other_clips)


def study_meta_step(profile: str, settings: Mapping) -> list[Ask]:
    own = {**settings, "method": "open_mede_no_gwa"}
    return [] if profile == "full" else [Ask(load_config(profile, **own))]


def averages_units(profile: str, settings: Mapping, clips: int) -> list[units.Unit]:
    """The study's section gwa for a run of one's own, with fewer clips; in `cpu` also its averages of the long run."""
    own, found = {"method": "open_mede", **settings, "test_clips": clips}, []
    for variant, (_, changes, tests) in units.SECTIONS["gwa"][1].items():
        config = load_config(profile, **{**own, "held_out": 0, **changes})
        found.append(units.Unit("gwa", variant, config, tests))
    if profile == "cpu":
        found.append(units.Unit("gwa", "averages", trajectory(profile, own), found[0].tests))
    return [] if profile == "full" else found


def study_averages(profile: str, settings: Mapping, clips: int) -> list[Ask]:
    return [
        Ask(unit.config, tuple(sets), average)
        for unit in averages_units(profile, settings, clips)
        for test in unit.tests
        for average, sets in units.averages(test, unit.config)
    ]


study_where_it_looks = study_claims


# ------------------------------------------------------------------------------------ real videos
# The lists' names of splits: rows that train, rows that are tested.
SPLITS = {"ucf101": ("train1", "test1"), "hmdb51": ("train1", "test1"), "kinetics400": ("train", "val"),
          "ssv2": ("train", "validation")}  # fmt: skip
TEST_SPLITS = ("test1", "test2", "test3")


def kinetics(found: DataYaml, method: str) -> dict:
    return {**found.fields(), "method": method, "data": found.path("kinetics400"), "data_split": "train"}


def elsewhere(found: DataYaml, name: str, method: str) -> dict:
    """Settings of a learner that is tested on another data set than it was trained on."""
    frozen = {**found.fields(), "method": method, "data": found.path(name)}
    return kinetics(found, method) if METHODS[method].trainer != "none" else frozen


def few_shot(found: DataYaml, name: str, method: str) -> dict:
    """Settings of a training on 16 videos of each base class; the profile then takes 12 epochs."""
    settings = {**found.fields(), "method": method, "data": found.path(name), "half": "base", "shots": 16}
    return settings | ({"data_split": SPLITS[name][0]} if METHODS[method].trainer != "none" else {})


def splits(found: DataYaml, name: str) -> list[dict]:
    return [{"set": name, "half": "all", "part": part, "data": found.path(name)} for part in TEST_SPLITS]


def halves(found: DataYaml, name: str) -> list[dict]:
    part = SPLITS[name][1]
    return [{"set": name, "half": half, "part": part, "data": found.path(name)} for half in units.SPLITS]


def scuba(found: DataYaml, name: str, orders=("forward", "single")) -> list[dict]:
    """Tests: out-of-context clips, as they are and with one frame repeated (for the contrasted accuracy)."""
    return [
        {"set": name, "half": "all", "part": "scuba", "context": background, "order": order, "data": one.list,
         "root": one.root, "classes_of": found.path(name)}
        for background, one in found.scuba.get(name, {}).items()
        for order in orders
    ]  # fmt: skip


def _real(data: str, names: list[str], learner, tests, settings: Mapping) -> list[Ask]:
    """Every method on the lists that data.yaml (default: the repository's) has."""
    found = read_data_yaml(str(data) if data else (repo_root() or Path()) / "data.yaml")
    asked = []
    for name, method in itertools.product(names, METHODS):
        own, sets = learner(found, name, method), tests(found, name)
        if sets and own["data"] and all(one["data"] for one in sets):
            asked += evaluate("paper", {**own, **settings}, methods=method, tests=sets)
    return asked
