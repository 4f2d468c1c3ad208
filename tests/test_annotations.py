"""Annotation files in the forms that exist, odd names, and bad lines: each is listed, none stops the reader."""

import json
import os
import re

import pytest

from mede_core.video.annotations import read_folders, read_hmdb51, read_kinetics, read_lists, read_ssv2, read_ucf101
from mede_core.video.locate import Files, folder_problem


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return Files(root)


def table(found):
    return {entry.names[0]: (entry.label, entry.splits) for entry in found.entries}


KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
"passing American football (not in game)",-0abcdEFGH_,5,15,train,0
abseiling,0wR5jVB-WPk,12.0,22.0,validate,1
,0wR5jVB-WPx,12,22,val,0
abseiling,0wR5jVB-WPz,12,22,holdout,0
abseiling,0wR5jVB-WPk,12,22,train,0
"""


def test_kinetics_rows_become_the_names_on_disk(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "k400.csv").write_text(KINETICS)
    found = read_kinetics(tmp_path)
    assert found.classes == ["abseiling", "passing American football (not in game)"]
    assert found.entries[0].names[0].endswith("/-0abcdEFGH__000005_000015.mp4")
    assert found.entries[1].names == ("val/abseiling/0wR5jVB-WPk_000012_000022.mp4", "val/abseiling/0wR5jVB-WPk.mp4")
    assert [entry.splits for entry in found.entries] == [["train"], ["val", "train"]]
    assert found.problems == [
        "k400.csv:4: label or youtube_id is empty",
        "k400.csv:5: split is 'holdout'; allowed: train, val, validate, test",
        "k400.csv:6: 'train/abseiling/0wR5jVB-WPk_000012_000022.mp4' is in train, but in val in k400.csv:3",
    ]


def test_the_split_of_kinetics_may_stand_in_the_file_name(tmp_path):
    for name in ("kinetics_train.csv", "kinetics_validate.csv", "test.csv"):
        (tmp_path / name).write_text(f"label,youtube_id,time_start,time_end\nrun,{name[-9:-4]}000000,1,2\n")
    assert [entry.splits for entry in read_kinetics(tmp_path).entries] == [["train"], ["val"], ["test"]]


def test_a_kinetics_video_is_found_under_each_name(tmp_path):
    rows = "label,youtube_id,time_start,time_end,split\nriding a bike,abcDEF-_123,5,15,train\n"
    (tmp_path / "a.csv").write_text(rows)
    found = read_kinetics(tmp_path / "a.csv")
    names = ("train/riding a bike/abcDEF-_123_000005_000015.mp4", "train_256/riding_a_bike/abcDEF-_123.mp4",
             "abcDEF-_123_000005_000015.mkv", "any/where/abcDEF-_123.mp4.mkv", "train/abcDEF-_123.webm")  # fmt: skip
    for i, name in enumerate(names):
        files = touch(tmp_path / f"{i}", name, "train/riding a bike/ABCdef-_123.mp4", "abcDEF-_1234.mp4")
        assert files.find(found.entries[0].names, anywhere=found.anywhere) == (name, "")


def test_ucf101_lists_with_the_handstand_quirk_and_bad_lines(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 HandstandPushups\n2 YoYo\n")
    for n in (1, 2, 3):
        (lists / f"trainlist0{n}.txt").write_text("HandstandPushups/v_HandStandPushups_g01_c01.avi 1\n")
        (lists / f"testlist0{n}.txt").write_text("YoYo/v_YoYo_g01_c01.avi\n")
    rows = ("YoYo/v_YoYo_g01_c01.avi 2", "HandStandPushups/x.avi 2", "Yoyoo/x.avi 2", "x.avi 1")
    (lists / "trainlist02.txt").write_text("\n".join(rows))
    (lists / "testlist03.txt").unlink()
    found = read_ucf101(tmp_path)
    assert table(found)["YoYo/v_YoYo_g01_c01.avi"] == ("YoYo", ["test1", "train2", "test2"])
    assert table(found)["HandStandPushups/x.avi"][0] == "HandstandPushups"
    assert found.problems == [
        "trainlist02.txt:2: 'HandStandPushups/x.avi' has the label 2, but classInd.txt says 1",
        "trainlist02.txt:3: unknown label 'Yoyoo'; did you mean 'YoYo'?",
        "trainlist02.txt:4: 'x.avi' has no class folder",
        "testlist02.txt:1: 'YoYo/v_YoYo_g01_c01.avi' is in test2, but in train2 in testlist01.txt:1",
        "testlist03.txt: no such file",
    ]
    name = "videos/HandStandPushups/v_HandstandPushups_g01_c01.avi"  # some copies spell both the other way
    files = touch(tmp_path, name)
    entry = found.entries[0]
    assert files.find(entry.names, anywhere=found.anywhere, fold=found.fold) == (name, "")
    assert folder_problem(name, entry.label, entry.splits, {"handstandpushups", "yoyo"}) == ""


def test_hmdb51_codes_are_1_train_2_test_0_unused(tmp_path):
    for n, codes in ((1, "120"), (2, "012"), (3, "22x")):
        text = "".join(f"a[b] !#&_{i}.avi {code} \n" for i, code in enumerate(codes))
        (tmp_path / f"brush_hair_test_split{n}.txt").write_text(text)
    (tmp_path / "run_test_split1.txt").write_text("r.avi 1 \n")
    found = read_hmdb51(tmp_path)
    assert found.classes == ["brush_hair", "run"]
    assert table(found) == {
        "brush_hair/a[b] !#&_0.avi": ("brush_hair", ["train1", "test3"]),
        "brush_hair/a[b] !#&_1.avi": ("brush_hair", ["test1", "train2", "test3"]),
        "brush_hair/a[b] !#&_2.avi": ("brush_hair", ["test2"]),
        "run/r.avi": ("run", ["train1"]),
    }
    assert found.problems == [
        "run_test_split2.txt: no such file",
        "run_test_split3.txt: no such file",
        "brush_hair_test_split3.txt:3: 'a[b] !#&_2.avi x'; expected a file name and the code 0, 1 or 2",
    ]


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_ssv2_templates_lose_their_brackets(tmp_path, prefix):
    labels = {"Moving something down": "1", "Holding something": "0"}
    row = {"id": "7", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]}
    rows = [row, {"id": "8", "template": "Holdin [something]"}, {"id": "9"}]
    (tmp_path / f"{prefix}labels.json").write_text(json.dumps(labels))
    (tmp_path / f"{prefix}train.json").write_text(json.dumps(rows))
    found = read_ssv2(tmp_path)
    assert found.classes == ["Holding something", "Moving something down"]
    assert table(found) == {"7.webm": ("Holding something", ["train"])}
    assert found.problems == [
        f"{prefix}train.json, entry 2: unknown label 'Holdin something'; did you mean 'Holding something'?",
        f"{prefix}train.json, entry 3: it lacks id or template",
        "validation.json: no such file",
    ]


ODD = ["a b.mp4", "c,d.mp4", "e#f&g.mp4", "[h] 1.mp4", "it's.mp4", 'q"r.mp4', "m 3, 4.mp4"]


@pytest.mark.parametrize("separator", [",", " "])
def test_peers_lists_keep_odd_names(tmp_path, separator):
    (tmp_path / "k-index2cls.json").write_text(json.dumps({"0": "run", "1": "it's, a jump"}))
    (tmp_path / "train_1.csv").write_text("".join(f"x/{name}{separator}{i % 2}\n" for i, name in enumerate(ODD)))
    (tmp_path / "val.csv").write_text(f'"x/y,z.mp4"{separator}1\nx/w.mp4{separator}9\n')
    found = read_lists(tmp_path)
    assert found.classes == ["run", "it's, a jump"]
    for i, name in enumerate(ODD):
        assert table(found)[f"x/{name}"] == (found.classes[i % 2], ["train_1"])
    assert found.entries[-1].names == ('"x/y,z.mp4"', "x/y,z.mp4")
    assert found.problems == ["val.csv:2: label 9 is out of range 0 to 1"]
    files = touch(tmp_path / "videos", *(f"x/{name}" for name in ODD), "x/y,z.mp4")
    assert all(files.find(entry.names)[0] for entry in found.entries)


def test_lists_with_an_id_name_csv_beside_them(tmp_path):
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "labels.csv").write_text('id,name\n0,jump\n1,"run, fast"\n')
    (tmp_path / "n" / "val.txt").write_text("c.mp4 0\nd.mp4 1\n")
    found = read_lists(tmp_path / "n")
    assert table(found) == {"c.mp4": ("jump", ["val"]), "d.mp4": ("run, fast", ["val"])}
    (tmp_path / "n" / "labels.csv").unlink()
    with pytest.raises(ValueError, match=r"val.txt:1: labels are integers \(0, 1\); give the classes file"):
        read_lists(tmp_path / "n")
    for name, classes in (("a", ["x", "y"]), ("b", ["y", "x"])):
        (tmp_path / "n" / f"{name}-index2cls.json").write_text(json.dumps(dict(enumerate(classes))))
    with pytest.raises(ValueError, match=r"several class files \(a-index2cls.json, b-index2cls.json\)"):
        read_lists(tmp_path / "n")
    assert read_lists(tmp_path / "n", tmp_path / "n" / "b-index2cls.json").classes == ["y", "x"]


def test_folders_are_classes_with_or_without_splits(tmp_path):
    names = ("run/1.mp4", "run/deep/2.avi", "ju mp/[1].webm", "loose.mp4", "run/x.txt")
    found = read_folders(touch(tmp_path / "a", *names))
    assert (found.classes, len(found.entries)) == (["ju mp", "run"], 3)
    assert found.problems == ["'loose.mp4' lies in no class folder"]
    found = read_folders(touch(tmp_path / "b", "train/run/1.mp4", "validation/run/1.mp4"))
    assert table(found) == {"train/run/1.mp4": ("run", ["train"]), "validation/run/1.mp4": ("run", ["val"])}
    assert read_folders(touch(tmp_path / "c", "test/1.mp4", "train/1.mp4")).classes == ["test", "train"]


def test_a_file_of_another_folder_is_never_taken_for_a_missing_one(tmp_path):
    files = touch(tmp_path, "a/run/1.mp4", "a/jump/1.mp4", "a/jump/2.mp4")
    assert files.find(["jump/1.mp4"]) == ("a/jump/1.mp4", "")
    assert files.find(["/old/disk/a/jump/1.avi"]) == ("a/jump/1.mp4", "")
    assert files.find(["run/2.mp4"]) == (None, "no such file")
    assert files.find(["2.mp4"]) == ("a/jump/2.mp4", "")
    assert files.find(["1.mp4"]) == (None, "several files fit: 'a/jump/1.mp4', 'a/run/1.mp4'")


def test_folders_speak_against_annotations():
    classes = {"run", "jump"}
    assert folder_problem("val/run/1.mp4", "run", ["val"], classes, splits=True) == ""
    assert "'jump'" in folder_problem("val/jump/1.mp4", "run", ["val"], classes)
    assert "is in val" in folder_problem("train_256/run/1.mp4", "run", ["val"], classes, splits=True)
    assert folder_problem("train_256/run/1.mp4", "run", ["val"], classes) == ""
    assert folder_problem("train/1.mp4", "run", ["val"], classes | {"train"}, splits=True)


def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "real", "run/1.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    assert Files(tmp_path / "root").names == ["link/run/1.mp4"]


def test_a_file_name_that_is_no_text_is_reported(tmp_path):
    try:
        open(os.fsencode(tmp_path) + b"/\xff.mp4", "w").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    files = touch(tmp_path, "a.mp4")
    assert files.names == ["a.mp4"]
    assert files.problems == [r"b'\xff.mp4': the file name is not UTF-8; rename it"]


@pytest.mark.parametrize("read", [read_kinetics, read_ucf101, read_hmdb51, read_ssv2, read_lists])
def test_no_annotations_is_an_error_that_says_where_it_looked(tmp_path, read):
    with pytest.raises(ValueError, match=re.escape(repr(str(tmp_path)))):
        read(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder"):
        read(tmp_path / "none")


def test_a_file_that_is_no_list_of_hmdb51_holds_no_class(tmp_path):
    (tmp_path / "splits.txt").write_text("a.avi 1\n")
    assert read_hmdb51(tmp_path / "splits.txt").classes == []  # prepare says: no usable annotations
