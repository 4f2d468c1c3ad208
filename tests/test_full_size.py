"""Datasets of full size are prepared and evaluated, with the counts of their official lists."""

import json
import shutil
from collections import Counter

import layouts
import numpy as np
import pytest
from layouts import FRAMES, lines, rows_of

from mede_core.learner import build_learner
from mede_core.scoring import evaluate
from mede_core.video import decode
from mede_core.video.clips import VideoDataset
from mede_core.video.manifest import Manifest, select
from mede_core.video.prepare import prepare


@pytest.fixture(scope="module")
def learner():
    return build_learner("mede-small", "shipped")


def evaluated(learner, manifest, count=6):
    """The class names a sample of a selection is scored in, after checks that it was scored."""
    some = range(0, len(manifest), max(1, len(manifest) // count))
    paths, labels, timelines = (
        [values[i] for i in some] for values in (manifest.paths, manifest.labels, manifest.timelines)
    )
    sample = Manifest(paths, labels, manifest.class_names, manifest.source, timelines)
    result = evaluate(learner, VideoDataset(sample, 2, learner.image_size, views=3))
    assert result.labels.tolist() == labels
    assert result.logits.shape == (len(labels), len(manifest.class_names))
    assert np.isfinite(result.logits).all() and result.logits.std() > 0
    return result.class_names


@pytest.fixture(scope="module")
def ucf(tmp_path_factory, tiny):
    root = tmp_path_factory.mktemp("ucf")
    layouts.ucf101(root, shutil.copy(tiny, root / "tiny.clip"))
    yield root
    shutil.rmtree(root)


def test_ucf101_of_full_size_has_the_official_counts_and_is_evaluated(ucf, tmp_path, monkeypatch, learner):
    looked, list_packets = [], decode.list_packets
    monkeypatch.setattr(decode, "list_packets", lambda name: looked.append(name) or list_packets(name))
    prepared = prepare("ucf101", ucf, tmp_path / "ucf.csv", check="full", workers=1)
    assert len(looked) == 1  # 13,320 hard links to one file
    assert prepared.problems == {}
    counts = {name: (count["videos"], count["classes"]) for name, count in prepared.sidecar["counts"].items()}
    assert counts.pop("all") == (13320, 101)
    assert counts == {
        "train1": (9537, 101), "test1": (3783, 101), "train2": (9586, 101),
        "test2": (3734, 101), "train3": (9624, 101), "test3": (3696, 101),
    }  # fmt: skip
    rows = rows_of(tmp_path / "ucf.csv")
    assert list(rows[0]) == ["path", "label", "split", "frames", "duration", "timeline"]
    assert {(row["frames"], row["duration"]) for row in rows} == {(str(FRAMES), "0.6")}
    assert all((ucf / row["path"]).is_file() for row in rows)
    assert {"Handstand Pushups", "Yoyo", "Tai Chi"} <= set(prepared.sidecar["classes"])
    assert len(prepared.sidecar["base"]) == 51 and len(prepared.sidecar["novel"]) == 50
    parts = [select(tmp_path / "ucf.csv", split="test2", half=half) for half in ("base", "novel")]
    assert sum(map(len, parts)) == 3734
    assert [part.class_names for part in parts] == [prepared.sidecar["base"], prepared.sidecar["novel"]]
    assert min(parts[1].labels) == 0
    shots = select(tmp_path / "ucf.csv", split="train1", half="base", shots=16, seed=1)
    assert Counter(shots.labels) == dict.fromkeys(range(51), 16)
    assert "Handstand Pushups" in evaluated(learner, select(tmp_path / "ucf.csv", split="test3"))


def test_hmdb51_of_full_size_has_the_official_counts(tmp_path, clip, learner):
    root = tmp_path / "hmdb"
    layouts.hmdb51(root, clip)
    prepared = prepare("hmdb51", root, tmp_path / "hmdb.csv", check="open")
    assert prepared.problems == {}
    assert prepared.sidecar["counts"]["all"] == {"videos": 6766, "classes": 51, "expected": 6766}
    counted = Counter(split for row in rows_of(tmp_path / "hmdb.csv") for split in row["split"].split())
    assert counted == {f"{kind}{n}": count for kind, count in (("train", 3570), ("test", 1530)) for n in (1, 2, 3)}
    assert len(prepared.sidecar["base"]) == 26
    assert prepared.sidecar["base"] == prepared.sidecar["classes"][:26]  # all counts are equal: by name
    assert prepared.sidecar["comparable"] is False
    assert "not comparable" in prepared.report()
    assert len(select(tmp_path / "hmdb.csv", split="train1", half="base", shots=16)) == 416
    assert len(evaluated(learner, select(tmp_path / "hmdb.csv", split="test1", half="novel"))) == 25


def test_ssv2_of_full_size_is_prepared_from_its_validation_videos_alone(tmp_path, clip, learner):
    root = tmp_path / "ssv2"
    classes = layouts.ssv2(root, clip)
    prepared = prepare("ssv2", root, tmp_path / "s.csv", check="open")
    assert prepared.problems == {"missing files": ["split train: none of its 168913 videos is there"]}
    assert prepared.sidecar["classes"] == classes
    assert prepared.sidecar["counts"]["validation"] == {"videos": 24777, "classes": 174, "expected": 24777}
    assert len(prepared.sidecar["base"]) == len(prepared.sidecar["novel"]) == 87
    names = evaluated(learner, select(tmp_path / "s.csv", split="validation", half="novel"))
    assert names == prepared.sidecar["novel"]


def test_kinetics600_zero_shot_splits_have_160_classes_each(tmp_path, clip, learner):
    root = tmp_path / "k600"
    layouts.kinetics600(root, clip)
    lists = [root / f"zero_shot_{n}.json" for n in (1, 2, 3)]
    prepared = prepare("kinetics600", root, tmp_path / "k.csv", zero_shot=lists, check="open")
    assert prepared.problems == {}
    counts = prepared.sidecar["counts"]
    assert [counts[f"test{n}"]["videos"] for n in (1, 2, 3)] == [7276, 7226, 7261]
    for n in (1, 2, 3):
        part = select(tmp_path / "k.csv", split=f"test{n}")
        assert len(part.class_names) == len(set(part.labels)) == 160
        listed = json.loads(lists[n - 1].read_text()).values()
        assert set(part.class_names) == {name.lower() for name in listed}
    assert evaluated(learner, part) == part.class_names
    chosen = list(json.loads(lists[0].read_text()).values())
    lists[0].write_text(json.dumps(chosen[1:-1]))
    said = lines(prepare("kinetics600", root, tmp_path / "k.csv", zero_shot=lists, check="none"))
    assert f"{lists[0]}: 158 classes of the dataset, expected 160" in said
    assert "counts: test1: 7185 usable videos, expected 7276" in said
