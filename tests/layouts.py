"""Stand-ins of the datasets: annotation files of full size in the official formats, every video a hard link.

The names are invented, the numbers of classes and of videos in each split are the datasets' own.
"""

import csv
import json
import os
import random
from collections import Counter

from clips import write_csv

FRAMES = 6  # of the tiny video that all links lead to
WORDS = ("ride", "hold", "turn", "push", "clean", "throw", "open", "climb", "paint", "jump", "cut")


def words(count):
    """Invented actions of two words, no two alike: at most 110."""
    pairs = [(a, b) for a in WORDS for b in WORDS if a != b]
    return sorted(" ".join(pair) for pair in random.Random(0).sample(pairs, count))


def links(source, root, names):
    """A hard link for each name."""
    for folder in {name.rpartition("/")[0] for name in names}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        os.link(source, f"{root}/{name}")


def ucf101(root, source):
    """13,320 videos of 101 classes; test lists of 3783, 3734, 3696."""
    classes = sorted(["HandstandPushups", "YoYo", "TaiChi", *(w.title().replace(" ", "") for w in words(98))])
    sizes = [131 + 50 - k + (k < 89) for k in range(101)]
    random.Random(1).shuffle(sizes)
    names = []
    for name, size in zip(classes, sizes):
        inside = name.replace("HandstandPushups", "HandStandPushups")
        names += [f"{name}/v_{inside}_g{i // 7 + 1:02d}_c{i % 7 + 1:02d}.avi" for i in range(size)]
    links(source, root / "UCF-101", names)
    order = random.Random(2).sample(names, len(names))
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(classes, 1)))
    start = 0
    for n, count in ((1, 3783), (2, 3734), (3, 3696)):
        test = set(order[start : start + count])
        start += count
        (lists / f"testlist0{n}.txt").write_text("".join(f"{name}\n" for name in names if name in test))
        rows = [f"{name} {classes.index(name.split('/')[0]) + 1}\n" for name in names if name not in test]
        (lists / f"trainlist0{n}.txt").write_text("".join(rows))
    return classes


def hmdb51(root, source):
    """6,766 videos of 51 classes; in each split 70 to train, 30 to test, the rest unused."""
    classes = sorted(w.replace(" ", "_") for w in words(51))
    lists = root / "splits"
    lists.mkdir(parents=True)
    for k, name in enumerate(classes):
        files = [f"!{i}_[{name}]#_&(a)+;@_{i % 9}.avi" for i in range(132 + (k < 34))]
        links(source, root, [f"{name}/{file}" for file in files])
        for n in (1, 2, 3):
            codes = [1] * 70 + [2] * 30 + [0] * (len(files) - 100)
            random.Random(k * 3 + n).shuffle(codes)
            rows = [f"{file} {code} \n" for file, code in zip(files, codes)]
            (lists / f"{name}_test_split{n}.txt").write_text("".join(rows))
    return classes


def ssv2(root, source):
    """174 classes, 24,777 validation videos, 168,913 training rows without videos."""
    plain = [f"{a} something {b}" for a in words(87) for b in ("from left to right", "onto something")]
    labels = root / "labels"
    labels.mkdir(parents=True)
    (labels / "labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(plain)}))
    for split, first, count in (("validation", 0, 24777), ("train", 30000, 168913)):
        rows = []
        for i in range(count):
            template = plain[i % 174].replace("something", "[something]")
            rows.append({"id": str(first + i), "label": "x", "template": template, "placeholders": ["a, b"]})
        (labels / f"{split}.json").write_text(json.dumps(rows))
    links(source, root / "20bn-something-something-v2", [f"{i}.webm" for i in range(24777)])
    return plain


def kinetics_rows(classes, sizes, split):
    """Rows of an official CSV; ids are 11 characters as YouTube's."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    draw = random.Random(split)
    for name, size in zip(classes, sizes):
        for _ in range(size):
            start = draw.randrange(300)
            yield name, "".join(draw.choices(letters, k=11)), start, start + 10, split


def write_kinetics(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, [["label", "youtube_id", "time_start", "time_end", "split"], *rows])


def kinetics_classes(count):
    odd = ["passing American football (not in game)", "tying knot (not on a tie)", 'saying "hi", loudly']
    numbers = [f"{a} thing {b}" for a in words(100) for b in range(1, 8)]
    return sorted([*odd, *random.Random(4).sample(numbers, count - len(odd))])


def kinetics600(root, source):
    """600 classes and three lists of 160 for the zero-shot test: 7276, 7226 and 7261 validation videos."""
    classes = kinetics_classes(600)
    sets = [classes[start::4][:160] for start in range(3)]
    sets = [chosen + [c for c in classes[3::4] if c not in chosen][: 160 - len(chosen)] for chosen in sets]
    shared = Counter(name for chosen in sets for name in chosen)
    sizes = dict.fromkeys(classes, 45)
    for chosen, extra in zip(sets, (76, 26, 61)):
        for name in [name for name in chosen if shared[name] == 1][:extra]:
            sizes[name] += 1
    rows = list(kinetics_rows(classes, sizes.values(), "val"))
    write_kinetics(root / "annotations" / "val.csv", rows)
    links(source, root, [f"val/{a}/{b}_{c:06d}_{d:06d}.mp4" for a, b, c, d, _ in rows])
    for n, chosen in enumerate(sets, 1):
        (root / f"zero_shot_{n}.json").write_text(json.dumps(dict(enumerate(chosen))))
    return classes


def rows_of(path):
    """The rows of a prepared manifest."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def lines(prepared):
    """All problems as one text."""
    return "\n".join(prepared.sidecar["problems"])
