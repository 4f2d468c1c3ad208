"""Preparing and selecting: faults are reported by name, odd names survive, nothing is decoded twice."""

import itertools
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import layouts
import pytest
from clips import make_clip, write_csv
from layouts import lines, rows_of

from mede_core.__main__ import main
from mede_core.video import manifest as manifest_module
from mede_core.video.clips import VideoDataset
from mede_core.video.manifest import ManifestError, check_manifest, select
from mede_core.video.prepare import DATASETS, prepare


def test_zero_shot_splits_hold_validation_videos_alone(tmp_path, clip):
    rows = [(c, f"{c[:3]}{s:0>8}", 0, 10, s) for c in ("abseiling", "zumba") for s in ("train", "val", "test")]
    small_kinetics(tmp_path / "k", clip, rows)
    (tmp_path / "one.txt").write_text("Zumba\n")
    prepare("kinetics600", tmp_path / "k", tmp_path / "k.csv", zero_shot=[tmp_path / "one.txt"], check="open")
    assert [path.parts[-3:-1] for path in select(tmp_path / "k.csv", split="test1").paths] == [("val", "zumba")]
    assert len(select(tmp_path / "k.csv", split="test")) == 2  # the whole word


def small_kinetics(root, clip, rows):
    layouts.write_kinetics(root / "annotations" / "all.csv", rows)
    layouts.links(clip, root, [f"{split}/{label}/{video}.mp4" for label, video, _start, _end, split in rows])


def test_faults_in_kinetics_are_reported_by_name(tmp_path, clip):
    root = tmp_path / "k"
    rows = [(label, f"{label[:3]}{i:08d}", 0, 10, "train") for label in ("abseiling", "zumba") for i in range(12)]
    small_kinetics(root, clip, rows)
    typo = ("abseilng", "abs00000099", 0, 10, "train")
    wrong = ("zumba", rows[-1][1], 0, 10, "val")
    layouts.write_kinetics(root / "annotations" / "all.csv", [*rows[:-1], typo, wrong])
    layouts.links(clip, root, ["train/abseiling/abs00000099.mp4"])
    (root / "train" / "zumba" / f"{rows[-2][1]}.mp4").unlink()
    prepared = prepare("kinetics400", root, tmp_path / "k.csv", check="open")
    said = lines(prepared)
    for part in (
        "class 'abseilng' has 1 of usually 12 videos: unknown label 'abseilng'; did you mean 'abseiling'?",
        "train/abseiling/abs00000099.mp4: lies in the folder 'abseiling', but is labeled 'abseilng'",
        f"train/zumba/{rows[-1][1]}.mp4: lies in the folder 'train', but is in val",
        f"{rows[-2][1]}_000000_000010.mp4: no such file (all.csv:24)",
        "3 classes, expected 400",
    ):
        assert part in said


def test_a_label_file_that_does_not_match_is_named_once(tmp_path, clip):
    novel = ["abseiling", "dancing", "zumba"]
    rows = [(f"{name}/{name} {i}, [a]#&.mp4", label) for label, name in enumerate(novel) for i in range(8)]
    layouts.links(clip, tmp_path / "videos", [name for name, _ in rows])
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "test.csv").write_text("".join(f"{name},{label}\n" for name, label in rows))
    made = {}
    for kind, names in (("good", novel), ("swapped", novel[::-1])):
        (tmp_path / f"{kind}.json").write_text(json.dumps(dict(enumerate(names))))
        how = {"annotations": tmp_path / "lists", "classes": tmp_path / f"{kind}.json", "check": "open"}
        made[kind] = prepare("list", tmp_path / "videos", tmp_path / f"{kind}.csv", **how)
    assert made["good"].problems == {}
    said = made["swapped"].sidecar["problems"]
    assert len(said) == 1
    assert "test.csv: 16 of 24 videos lie in a folder of another class or split, is it the right label file?" in said[0]


ODD = ["a b.mp4", "com,ma.mp4", "h#sh&.mp4", "[x].mp4", "it's.mp4", 'q"q.mp4', " lead.mp4", "été.mp4", "*?.mp4"]


def test_odd_names_survive_prepare_and_select(tmp_path, clip):
    labels = ("arm_wrestling", "it's, [quoted]")
    layouts.links(clip, tmp_path / "videos", [f"train/{label}/{name}" for label in labels for name in ODD])
    prepared = prepare("folder", tmp_path / "videos", tmp_path / "f.csv", check="open")
    assert prepared.problems == {}
    manifest = select(tmp_path / "f.csv", split="train")
    assert sorted(path.name for path in manifest.paths) == sorted(ODD * 2)
    assert manifest.class_names == ["arm wrestling", "it's, [quoted]"]
    dataset = VideoDataset(manifest, 2, 32)
    assert {dataset[i][0].shape for i in range(len(ODD))} == {(2, 3, 32, 32)}


@pytest.fixture
def folder(tmp_path, clip):
    parts = itertools.product(("train", "val"), ("run", "jump", "swim"), range(3))
    layouts.links(clip, tmp_path / "videos", [f"{split}/{label}/{i}.mp4" for split, label, i in parts])
    return tmp_path / "videos"


def test_a_prepared_manifest_is_not_decoded_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("clips.RATE", Fraction(30000, 1001))  # no whole number of seconds
    make_clip(folder / "train" / "run" / "ntsc.mp4", 7, sizes=((32, 32),))
    prepare("folder", folder, tmp_path / "f.csv")
    checked = check_manifest(select(tmp_path / "f.csv"))
    monkeypatch.setattr(manifest_module, "probe", lambda *_, **__: pytest.fail("decoded again"))
    trusted = VideoDataset(select(tmp_path / "f.csv"), 2, 32, sampling="dense")
    assert [(i.frames, i.fps) for i in trusted.infos] == [(i.frames, i.fps) for i in checked]
    (folder / "val" / "run" / "1.mp4").unlink()
    with pytest.raises(ManifestError, match=r"val/run/1\.mp4: no such file"):
        VideoDataset(select(tmp_path / "f.csv"), 2, 32)


def test_the_class_without_training_videos_is_novel(folder, tmp_path):
    (folder / "train" / "run" / "2.mp4").unlink()
    side = prepare("folder", folder, tmp_path / "f.csv", check="none").sidecar
    assert (side["base"], side["novel"], side["comparable"]) == (["jump", "swim"], ["run"], True)
    for name, text in (("base", "jump\nrun\n"), ("novel", "swmi\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    given = {"base": tmp_path / "base.txt", "novel": tmp_path / "novel.txt"}
    prepared = prepare("folder", folder, tmp_path / "f.csv", check="none", **given)
    assert "unknown label 'swmi'; did you mean" in lines(prepared) and prepared.sidecar["comparable"] is False


def test_the_command_says_what_is_wrong_and_how_it_ends(folder, tmp_path, capsys):
    command = ["prepare", "--dataset", "folder", "--root", str(folder), "--out", str(tmp_path / "f.csv")]
    assert main([*command, "--check", "open", "--splits", "val"]) == 0
    assert "9 usable videos of 3 classes" in capsys.readouterr().out
    assert main([*command, "--check", "open"]) == 0
    assert "18 usable videos of 3 classes" in capsys.readouterr().out
    (folder / "val" / "run" / "1.mp4").unlink()
    (folder / "val" / "run" / "1.mp4").write_text("no video")
    assert main([*command, "--workers", "1"]) == 1
    assert "val/run/1.mp4: PyAV" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "f.csv")) == 17
    (tmp_path / "b.txt").write_text("run\n")
    listed = str(tmp_path / "b.txt")
    for wrong, said in (
        (["--base", listed], "give both lists or none"),
        (["--splits", "dev"], "splits hold ['dev']; allowed: train, val"),
        (["--classes", listed], "only the dataset 'list'"),
        (["--zero-shot", listed], "kinetics600"),
    ):
        assert main([*command, *wrong]) == 2
        assert said in capsys.readouterr().err
    for name in set(DATASETS) - {"folder"}:
        assert main(["prepare", "--dataset", name, "--root", str(folder), "--out", str(tmp_path / "x.csv")]) == 2
        assert "annotations" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()
    for file in folder.rglob("*.mp4"):
        file.unlink()
        file.touch()
    assert main([*command]) == 2
    assert "no usable video" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "f.csv")) == 17  # what was there is left alone


def test_preparing_runs_without_torch(folder, tmp_path):
    code = "import sys; from mede_core.__main__ import main; code = main(sys.argv[1:]); "
    code += "sys.exit('torch' in sys.modules or code)"
    command = ["prepare", "--dataset", "folder", "--root", str(folder), "--out", str(tmp_path / "f.csv")]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_select_refuses_what_is_not_there(folder, tmp_path, caplog):
    prepare("folder", folder, tmp_path / "f.csv", check="open")
    for options, said in (
        ({"split": "test"}, "split is 'test'; allowed for f.csv: all, train, val"),
        ({"half": "old"}, "half is 'old', but f.json holds no"),
    ):
        with pytest.raises(ValueError, match=said):
            select(tmp_path / "f.csv", **options)
    with caplog.at_level(logging.WARNING):
        assert len(select(tmp_path / "f.csv", split="train", shots=5)) == 9
    assert "only 3 of 5 shots" in caplog.text
    side = json.loads((tmp_path / "f.json").read_text())
    (tmp_path / "f.json").write_text(json.dumps({**side, "base": [], "novel": []}))
    with pytest.raises(ValueError, match="no base/novel split"):
        select(tmp_path / "f.csv", half="novel")
    (tmp_path / "f.json").write_text(json.dumps(side))
    with open(tmp_path / "f.csv", "a") as stream:
        stream.write("x.mp4,run,val,6,0.6\n")
    with pytest.raises(ValueError, match=r"another version of f\.csv; run prepare again"):
        select(tmp_path / "f.csv")
    side["csv_sha256"] = ""
    (tmp_path / "f.json").write_text(json.dumps({**side, "classes": ["jump", "rum", "swim"]}))
    with pytest.raises(ManifestError, match="unknown label 'run'; did you mean 'rum'"):
        select(tmp_path / "f.csv")


def test_a_plain_csv_stays_usable(folder, tmp_path):
    rows = [(f"train/{label}/{i}.mp4", label) for label in ("run", "jump") for i in range(3)]
    assert len(select(write_csv(folder / "plain.csv", rows))) == 6
    assert Counter(select(folder / "plain.csv", shots=2).labels) == {0: 2, 1: 2}
    for options in ({"split": "val"}, {"half": "base"}):
        with pytest.raises(ValueError, match="was not prepared"):
            select(folder / "plain.csv", **options)


def test_a_root_may_be_relative_to_the_csv(folder, tmp_path):
    prepare("folder", folder, tmp_path / "f.csv", check="open")
    side = json.loads((tmp_path / "f.json").read_text())
    (tmp_path / "f.json").write_text(json.dumps({**side, "root": "videos"}))
    assert all(path.is_file() for path in select(tmp_path / "f.csv").paths)
    os.rename(folder, tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="the right root"):
        select(tmp_path / "f.csv")
