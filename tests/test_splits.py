"""Base and novel halves, k-shot draws and zero-shot class lists: deterministic, and guarded against mix-ups."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mede_core.video.manifest import few_shot, listed_halves, rule_halves, zero_shot_halves

CLASSES = ["archery", "Bowling", "curling", "diving", "eating"]
COUNTS = {"archery": 3, "Bowling": 9, "curling": 5, "diving": 2, "eating": 7}


def test_base_is_the_more_frequent_half_and_an_odd_class_goes_to_base():
    halves = rule_halves(CLASSES, COUNTS)
    assert (halves.base, halves.novel) == (["Bowling", "curling", "eating"], ["archery", "diving"])
    assert halves.comparable
    assert halves.source.startswith("rule:")


def test_ties_go_by_name_and_a_tie_at_the_cut_is_not_comparable():
    names = random.Random(0).sample([f"c{i:02d}" for i in range(51)], 51)
    halves = rule_halves(names, dict.fromkeys(names, 70))  # HMDB51
    assert sorted(halves.base) == [f"c{i:02d}" for i in range(26)]
    assert halves.base == [name for name in names if name in set(halves.base)]  # in label order
    assert not halves.comparable
    assert rule_halves(["a", "b", "c", "d"], {"a": 9, "b": 9, "c": 1, "d": 1}).comparable  # ties beside the cut


@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(0, 3), min_size=2))
def test_the_rule_depends_on_names_and_counts_alone(counts):
    names = sorted(counts)
    one, two = rule_halves(names, counts), rule_halves(names[::-1], dict(reversed(counts.items())))
    assert one.base == two.base[::-1] and one.novel == two.novel[::-1]
    assert sorted([*one.base, *one.novel]) == names
    assert min(counts[name] for name in one.base) >= max(counts[name] for name in one.novel)


def write(folder, name, names):
    path = folder / name
    path.write_text(json.dumps(dict(enumerate(names))) if name.endswith("json") else "\n".join(names) + "\n")
    return path


def test_published_lists_are_read_whatever_their_spelling(tmp_path):
    base = write(tmp_path, "base-index2cls.json", ["EATING", "bowling", "Curling"])
    novel = write(tmp_path, "novel.txt", ["diving", "arch_ery"])
    halves = listed_halves(base, novel, CLASSES, COUNTS)
    assert (halves.base, halves.novel) == (["Bowling", "curling", "eating"], ["archery", "diving"])
    assert halves.problems == [] and halves.comparable
    assert halves.source == "published list base-index2cls.json (base), novel.txt (novel)"


@pytest.mark.parametrize(
    ("base", "novel", "said"),
    [
        (["archery", "diving"], ["bowling", "curling", "eating"], "swapped? base has 2 classes and novel 3"),
        (["archery", "diving", "curling"], ["bowling", "eating"], "swapped? base classes have 3.3 training videos"),
        (["eating", "bowling", "curlin"], ["archery", "diving"], "base.txt: unknown label 'curlin'; did you mean"),
        (["eating", "bowling", "curling"], ["archery", "eating"], "share 1 classes: 'eating'"),
        (["eating", "bowling", "curling"], ["archery"], "lack 1 classes: 'diving'"),
        (["k1", "k2", "k3"], ["archery", "diving"], "base.txt: unknown label 'k2'"),
    ],
)
def test_swapped_mixed_and_foreign_lists_are_named(tmp_path, base, novel, said):
    halves = listed_halves(write(tmp_path, "base.txt", base), write(tmp_path, "novel.txt", novel), CLASSES, COUNTS)
    assert any(said in problem for problem in halves.problems)
    assert all("base.txt" in problem or "novel.txt" in problem for problem in halves.problems)
    assert not halves.comparable
    assert not set(halves.base) & set(halves.novel)


LABELS = ["run"] * 30 + ["jump"] * 20 + ["rare"] * 3
NAMES = [f"{label}/{i}.mp4" for i, label in enumerate(LABELS)]


def test_k_shots_of_each_class_repeat_with_the_seed():
    chosen = few_shot(NAMES, LABELS, 16, 1)
    assert chosen == sorted(chosen) == few_shot(NAMES, LABELS, 16, 1)
    assert [sum(LABELS[i] == label for i in chosen) for label in ("run", "jump", "rare")] == [16, 16, 3]
    draws = {tuple(few_shot(NAMES, LABELS, 16, seed)) for seed in range(10)}
    assert len(draws) == 10


@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_a_draw_depends_neither_on_the_order_nor_on_other_classes(rng, seed):
    order = rng.sample(range(len(NAMES)), len(NAMES))
    names, labels = [NAMES[i] for i in order], [LABELS[i] for i in order]
    drawn = {NAMES[i] for i in few_shot(NAMES, LABELS, 16, seed)}
    assert {names[i] for i in few_shot(names, labels, 16, seed)} == drawn
    assert {NAMES[i] for i in few_shot(NAMES[:30], LABELS[:30], 16, seed)} == {n for n in drawn if "run" in n}


def test_classes_are_drawn_independently():
    names, labels = [f"{label}/{i:02d}" for label in "ab" for i in range(20)], ["a"] * 20 + ["b"] * 20
    chosen = few_shot(names, labels, 9, 0)
    assert [i for i in chosen if i < 20] != [i - 20 for i in chosen if i >= 20]


def test_zero_shot_lists_of_other_sizes_are_named(tmp_path):
    classes = [f"class {i}" for i in range(600)]
    good = write(tmp_path, "one.txt", classes[:160])
    short = write(tmp_path, "two.json", [*classes[200:358], "clas 7", "tap dance"])
    sets, problems = zero_shot_halves([good, short], classes)
    assert sets == {"test1": classes[:160], "test2": classes[200:358]}
    assert [problem.partition(": ")[2][:24] for problem in problems] == [
        "unknown label 'clas 7'; ", "unknown label 'tap dance", "158 classes of the datas",
    ]  # fmt: skip
    assert all(str(short) in problem for problem in problems)
