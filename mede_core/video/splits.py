"""Who is in which part: base and novel classes, k-shot samples, the zero-shot classes of Kinetics-600."""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .classes import plain, read_class_names, unknown_label
from .lists import some


@dataclass
class Halves:
    """The base and the novel classes of a dataset, each in label order, and where they come from."""

    base: list[str]
    novel: list[str]
    source: str
    comparable: bool  # with published numbers
    problems: list[str] = field(default_factory=list)


def rule_halves(classes: Sequence[str], counts: Mapping[str, int]) -> Halves:
    """Base = the more frequent half of the classes by training videos: ViFi-CLIP's base-to-novel protocol."""
    if not counts:
        return Halves([], [], "none: no list is given and there is no training split to count", False)
    # How the published lists break ties is documented nowhere: ours go by name.
    order = sorted(classes, key=lambda name: (-counts.get(name, 0), name))
    cut = (len(order) + 1) // 2
    base = set(order[:cut])
    # The rule alone does not decide where the cut falls between equally frequent classes, as in HMDB51.
    comparable = cut < len(order) and counts.get(order[cut - 1], 0) > counts.get(order[cut], 0)
    source = "rule: base = the more frequent half by training videos, ties by name"
    if not comparable:
        source += "; equally frequent classes lie at the cut, so the published lists may differ"
    return Halves([c for c in classes if c in base], [c for c in classes if c not in base], source, comparable)


def listed_halves(
    base: str | os.PathLike, novel: str | os.PathLike, classes: Sequence[str], counts: Mapping[str, int]
) -> Halves:
    """The halves of published lists, as far as they can be used: swapped, mixed and foreign lists become problems."""
    problems: list[str] = []
    files = [os.fspath(base), os.fspath(novel)]
    halves = [listed_classes(file, classes, problems) for file in files]
    if both := [name for name in halves[1] if name in set(halves[0])]:
        problems.append(f"{files[0]} and {files[1]} share {len(both)} classes: {_few(both)}")
    if lacking := [name for name in classes if name not in {*halves[0], *halves[1]}]:
        problems.append(f"{files[0]} and {files[1]} lack {len(lacking)} classes: {_few(lacking)}")
    sizes = [len(half) for half in halves]
    means = [float(np.mean([counts.get(name, 0) for name in half])) if half else 0.0 for half in halves]
    asked = f"are {files[0]} (base) and {files[1]} (novel) swapped?"
    if sizes[0] < sizes[1]:
        problems.append(f"{asked} base has {sizes[0]} classes and novel {sizes[1]}")
    elif means[0] < means[1]:
        said = f"base classes have {means[0]:.1f} training videos on average and novel ones {means[1]:.1f}"
        problems.append(f"{asked} {said}")
    source = f"published list {os.path.basename(files[0])} (base), {os.path.basename(files[1])} (novel)"
    return Halves(halves[0], [c for c in halves[1] if c not in set(both)], source, not problems, problems)


def listed_classes(path: str | os.PathLike, classes: Sequence[str], problems: list[str]) -> list[str]:
    """The dataset's classes that a file lists, in label order; names the dataset lacks become problems."""
    known = {plain(name): name for name in classes}
    chosen = set()
    for name in read_class_names(path):
        if plain(name) in known:
            chosen.add(known[plain(name)])
        else:
            problems.append(f"{os.fspath(path)}: {unknown_label(name, classes)}")
    return [name for name in classes if name in chosen]


def zero_shot_halves(paths: Sequence[str | os.PathLike], classes: Sequence[str]) -> tuple[dict, list[str]]:
    """({"test1": its classes in label order, ...} of one list each, problems): Open-VCLIP's splits of Kinetics-600."""
    problems: list[str] = []
    sets = {f"test{n}": listed_classes(path, classes, problems) for n, path in enumerate(paths, 1)}
    for path, chosen in zip(paths, sets.values()):
        if len(chosen) != 160:
            problems.append(f"{os.fspath(path)}: {len(chosen)} classes of the dataset, expected 160")
    return sets, problems


def few_shot(names: Sequence[str], labels: Sequence[str], shots: int, seed: int) -> list[int]:
    """Positions of k videos of each class, drawn without replacement; a class with fewer gives all it has."""
    classes: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        classes.setdefault(label, []).append(position)
    chosen = []
    for label, positions in classes.items():
        # By the seed and names alone: neither the order of the list nor other classes change a draw.
        positions.sort(key=lambda position: names[position])
        generator = np.random.default_rng([seed, zlib.crc32(label.encode())])
        chosen += [positions[i] for i in generator.permutation(len(positions))[:shots]]
    return sorted(chosen)


def _few(names: Sequence[str]) -> str:
    return ", ".join(some([*map(repr, names)], 5))
