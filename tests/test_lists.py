"""Folders and lists as people really have them: read right, or one line that says what is odd; no class vanishes."""

import json
import time

import layouts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import rows_of

from mede_core.video.classes import plain, read_class_names, read_classes
from mede_core.video.lists import read_list
from mede_core.video.manifest import ManifestError, read_manifest
from mede_core.video.prepare import prepare

APPLE_DOUBLE = bytes.fromhex("00051607000200004d6163204f532058") + b"\xb0" * 48  # the head of macOS's ._ files
CAFE = ("cafe\u0301", "caf\u00e9")
NUMBERED = "0 jump\n1 wave\n"


def lay_out(root, clip, videos, texts=()):
    layouts.links(clip, root, videos)
    for name, content in dict(texts).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def prepared(root, dataset="folder", **options):
    """(videos of each class, problems, the report)."""
    made = prepare(dataset, root, root.parent / f"{root.name}.csv", check="open", **options)
    rows, found = rows_of(made.csv), {}
    for row in rows:
        found.setdefault(row["label"], []).append(row["path"].rpartition("/")[2])
    return found, made.sidecar["problems"], made.report()


def test_hidden_files_and_folders_are_never_data(tmp_path, clip):
    hidden = [".ipynb_checkpoints/a-checkpoint.avi", ".hidden/old.avi", "jump/._a.avi", "__MACOSX/wave/b.avi",
              "@eaDir/jump/a.avi", "wave/@eaDir/b.avi/S.avi", "$RECYCLE.BIN/x.avi", "lost+found/y.avi"]  # fmt: skip
    lay_out(tmp_path / "v", clip, ["jump/a.avi", "wave/b.avi", *hidden])
    assert prepared(tmp_path / "v")[:2] == ({"jump": ["a.avi"], "wave": ["b.avi"]}, [])
    twin = "UCF-101/Archery/.AppleDouble/v_Archery_g01_c01.avi"
    lists = {"ucfTrainTestlist/classInd.txt": "1 Archery\n", twin: APPLE_DOUBLE,
             "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g01_c01.avi 1\n"}  # fmt: skip
    lay_out(tmp_path / "ucf", clip, ["UCF-101/Archery/v_Archery_g01_c01.avi"], lists)
    found, problems, _ = prepared(tmp_path / "ucf", "ucf101")
    assert found == {"Archery": ["v_Archery_g01_c01.avi"]} and not any("AppleDouble" in line for line in problems)
    rows = "label,youtube_id,time_start,time_end,split\njumping,abc,1,11,val\n"
    lay_out(tmp_path / "k", clip, ["videos/abc_000001_000011.avi"], {"val.csv": rows, "._val.csv": APPLE_DOUBLE})
    found, problems, _ = prepared(tmp_path / "k", "kinetics400")
    assert found == {"jumping": ["abc_000001_000011.avi"]} and not any("._val" in line for line in problems)


def test_folders_of_splits_are_no_classes_whatever_lies_beside_them(tmp_path, clip):
    videos = ["training/jump/a.avi", "training/wave/b.avi", "testing/jump/c.avi"]
    lay_out(tmp_path / "v", clip, videos, {"docs/readme.md": "x", "annotations/old/l.csv": "x"})
    found, problems, _ = prepared(tmp_path / "v")
    assert (found, problems) == ({"jump": ["c.avi", "a.avi"], "wave": ["b.avi"]}, [])
    assert {row["split"] for row in rows_of(tmp_path / "v.csv")} == {"train", "test"}


def test_what_the_decoder_reads_counts_whatever_its_ending(tmp_path, clip):
    videos = ["jump/00001.MTS", "jump/00002.ts", "wave/a.m2ts", "wave/b.mpeg", "run/c.avi", "run/d", "run/e.weird"]
    texts = {"wave/notes.txt": "no video\n", "wave/main.ts": "let a = 1", "swim/only.txt": "x", "run/cover": "text"}
    lay_out(tmp_path / "v", clip, videos, texts)
    found, problems, report = prepared(tmp_path / "v")
    assert {name: len(files) for name, files in found.items()} == {"jump": 2, "run": 3, "wave": 2}
    assert problems == ["bad annotations: class 'swim': no video in its folder"]
    for line in ("wave/notes.txt: .txt is no video", "wave/main.ts: the decoder finds no video in it",
                 "read 7, left out 3:", "jump: 2 read, 0 left out", "wave: 2 read, 2 left out"):  # fmt: skip
        assert line in report


def test_one_accent_in_two_spellings_is_one_class_and_other_marks_stay(tmp_path, clip):
    lay_out(tmp_path / "v", clip, [f"{CAFE[0]}/a.avi", f"{CAFE[1]}/b.avi", "\u0915\u0940/c.avi", "\u0915\u093e/d.avi"])
    found, problems, _ = prepared(tmp_path / "v")
    assert (found[CAFE[1]], len(found), problems) == (["a.avi", "b.avi"], 3, [])
    assert plain(CAFE[0]) == plain(CAFE[1]) and plain("\u0915\u0940") != plain("\u0915\u093e")
    (tmp_path / "l.csv").write_text(f"v/{CAFE[1]}/a.avi,run\nv/{CAFE[0]}/b.avi,run\n", encoding="utf-8")
    assert all(path.is_file() for path in read_manifest(tmp_path / "l.csv").paths)


LISTS = {  # a list of v/a.avi and v/b c.avi as people write it; with labels as numbers or as names
    "comment": "# my clips\nv/a.avi 0\nv/b c.avi 1\n", "header": "path label\nv/a.avi 0\nv/b c.avi 1\n",
    "names": "v/a.avi jump\nv/b c.avi wave\n", "trailing_commas": "v/a.avi,jump,,\nv/b c.avi,wave,,\n",
    "swapped": "label,path\njump,v/a.avi\nwave,v/b c.avi\n", "backslashes": "v\\a.avi 0\nv\\b c.avi 1\n",
    "frames": "v/a.avi 60 0\nv/b c.avi 60 1\n", "frames_by_commas": "v/a.avi,60,0\nv/b c.avi,60,1\n",
    "tabs": "v/a.avi\tjump\nv/b c.avi\twave\n", "semicolons": "video;frames;class\nv/a.avi;6;jump\nv/b c.avi;6;wave\n",
    "swapped_bare": "jump,v/a.avi\nwave,v/b c.avi\n", "numbers_first": "0 v/a.avi\n1 v/b c.avi\n",
    "quoted": '"v/a.avi","jump"\n"v/b c.avi","wave"\n', "id_and_name": "v/a.avi,0,jump\nv/b c.avi,1,wave\n",
    "windows": "v\\a.avi,jump\r\nv\\b c.avi,wave\r\n", "bom": "\ufeffv/a.avi,jump\nv/b c.avi,wave\n",
    "bars": "path|label\nv/a.avi|jump\nv/b c.avi|wave\n", "spreadsheet": "sep=;\nv/a.avi;jump\nv/b c.avi;wave\n",
    "odd_header": "Clip_Name,Tag\nv/a.avi,jump\nv/b c.avi,wave\n", "put_together": "path,label\nv/a.avi,jump\n"
    "path,label\nv/b c.avi,wave\n", "apostrophes": "'v/a.avi','jump'\n'v/b c.avi','wave'\n",
    "unseen": "v/a.avi,ju\u00admp\u200b\nv/b c.avi,wave\u200e\n",
    "pandas": ",path,label\n0,v/a.avi,jump\n1,v/b c.avi,wave\n",
    "utf16": "v/a.avi,jump\nv/b c.avi,wave\n".encode("utf-16"),
    "utf16_bare": "v/a.avi,jump\nv/b c.avi,wave\n".encode("utf-16-le"),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_read_whatever_its_form(tmp_path, clip, name):
    lay_out(tmp_path / "t", clip, ["v/a.avi", "v/b c.avi"], {"l.txt": LISTS[name], "classes/c.txt": NUMBERED})
    numbers = {} if "wave" in str(LISTS[name]).replace("\\x00", "") else {"classes": tmp_path / "t/classes/c.txt"}
    found, problems, report = prepared(tmp_path / "t", "list", annotations=tmp_path / "t/l.txt", **numbers)
    assert (found, problems) == ({"jump": ["a.avi"], "wave": ["b c.avi"]}, [])
    assert "note: taken for l.txt: 2 rows of" in report
    names = ["jump", "wave"] if numbers else None
    manifest = read_manifest(tmp_path / "t/l.txt", class_names=names)
    assert [path.name for path in manifest.paths] == ["a.avi", "b c.avi"] and manifest.labels == [0, 1]


def test_a_split_column_gives_the_splits(tmp_path, clip):
    text = "path,label,split\nv/a.avi,jump,train\nv/b c.avi,wave,test\n"
    lay_out(tmp_path / "t", clip, ["v/a.avi", "v/b c.avi"], {"l.txt": text})
    prepared(tmp_path / "t", "list", annotations=tmp_path / "t/l.txt")
    assert [row["split"] for row in rows_of(tmp_path / "t.csv")] == ["train", "test"]


@pytest.mark.parametrize("text", ["v/no 60 0\nv/b.odd 60 1\n", "v/no,60,0\nv/b.odd,60,1\n"])
def test_a_frames_column_is_passed_over_where_names_have_no_ending_too(tmp_path, clip, text):
    lay_out(tmp_path / "t", clip, ["v/no", "v/b.odd"], {"l.txt": text, "classes/c.txt": NUMBERED})
    about = {"annotations": tmp_path / "t/l.txt", "classes": tmp_path / "t/classes/c.txt"}
    found, problems, report = prepared(tmp_path / "t", "list", **about)
    assert (found, problems) == ({"jump": ["no"], "wave": ["b.odd"]}, [])
    assert "rows of path and label (the last of several numbers), separated by" in report


def test_a_line_that_stands_twice_is_said_and_so_are_labels_that_differ_in_case_alone(tmp_path, clip, caplog):
    text = "v/a.avi,jump\nv/b.avi,wave\nv/a.avi,jump\n"
    lay_out(tmp_path / "t", clip, ["v/a.avi", "v/b.avi"], {"l.txt": text, "m.txt": text.replace("wave", "Jump")})
    found, problems, _ = prepared(tmp_path / "t", "list", annotations=tmp_path / "t/l.txt")
    assert len(found) == 2 and problems == ["bad annotations: l.txt:3: 'v/a.avi' is there again, after l.txt:1"]
    assert len(read_manifest(tmp_path / "t/l.txt")) == 3
    assert "l.txt: 1 lines name a video again, which counts each time: lines 3 (as 1)" in caplog.text
    with pytest.raises(ManifestError, match="duplicates: 'Jump', 'jump'"):
        read_manifest(tmp_path / "t/m.txt")


def test_a_list_whose_files_are_all_missing_says_what_it_was_taken_for(tmp_path, clip):
    lay_out(tmp_path / "t", clip, ["v/a.avi"], {"l.txt": "0,v/a.avi,jump\n"})
    for read in (read_manifest, read_as_dataset):
        with pytest.raises(ManifestError, match="taken for l.txt: 1 rows of path and label, separated by commas"):
            read(tmp_path / "t/l.txt")


def test_each_odd_line_is_a_problem_of_its_own_and_the_others_are_read(tmp_path, clip):
    text = b'v/a.avi 0\nv/b c.avi -1\nv/c.avi 9\nnothing\nv/caf\xe9.avi 1\n\n# note\nv/d.avi "1\n'
    lay_out(tmp_path / "t", clip, ["v/a.avi", "v/b c.avi"], {"l.txt": text, "classes/c.txt": NUMBERED})
    options = {"annotations": tmp_path / "t/l.txt", "classes": tmp_path / "t/classes/c.txt"}
    found, problems, report = prepared(tmp_path / "t", "list", **options)
    assert found == {"jump": ["a.avi"]}
    told = ("5: not UTF-8", "4: 'nothing' is no", "8: 'v/d.avi \"1' is no", "2: label -1 is out", "3: label 9 is out")
    assert len(problems) == len(told) and all(f"l.txt:{said}" in line for said, line in zip(told, problems))
    assert "note: 1 classes have no video in the annotations: 'wave'" in report
    with pytest.raises(ManifestError, match="taken for l.txt: 3 rows of path and label .*separated by blanks"):
        read_manifest(tmp_path / "t/l.txt", class_names=["jump", "wave"])


def test_a_file_of_one_endless_line_is_refused_at_once(tmp_path):
    (tmp_path / "l.txt").write_text(json.dumps([{"path": "a.avi", "label": "jump"}] * 50_000))
    began = time.perf_counter()
    with pytest.raises(ManifestError, match="is no path and label"):
        read_manifest(tmp_path / "l.txt")
    assert time.perf_counter() - began < 5


def test_labels_count_as_their_classes_do(tmp_path, clip):
    texts = {"l.txt": "v/a.avi 1\nv/b.avi 2\n", "c/one.txt": "1 jump\n2 wave\n", "c/zero.txt": NUMBERED}
    lay_out(tmp_path / "t", clip, ["v/a.avi", "v/b.avi"], texts)
    about = {"annotations": tmp_path / "t/l.txt", "classes": tmp_path / "t/c/one.txt"}
    assert prepared(tmp_path / "t", "list", **about)[:2] == ({"jump": ["a.avi"], "wave": ["b.avi"]}, [])
    found, problems, _ = prepared(tmp_path / "t", "list", **{**about, "classes": tmp_path / "t/c/zero.txt"})
    assert found == {"wave": ["a.avi"]} and "l.txt:2: label 2 is out of range 0 to 1" in problems[0]


def test_a_kinetics_file_with_odd_lines_is_read_but_for_them(tmp_path, clip):
    rows = [f"jumping,vid{i:08d},{i},{i + 10},val" for i in range(3000)]
    rows[7], rows[9] = '"jumping,vid00000007,7,17,val', "jumping,vid00000009,9,inf,val"
    texts = {"val.csv": "\n".join(["label,youtube_id,time_start,time_end,split", *rows])}
    lay_out(tmp_path / "k", clip, ["val/jumping/vid00000000_000000_000010.avi", "val/jumping/vid00000009.avi"], texts)
    found, problems, _ = prepared(tmp_path / "k", "kinetics400")
    assert found == {"jumping": ["vid00000000_000000_000010.avi", "vid00000009.avi"]}
    assert [line.split("bad annotations: ")[1] for line in problems[:2]] == [
        "val.csv:9: a quote is not closed: '\"jumping,vid00000007,7,17,val'",
        "val.csv:11: times are '9' and 'inf'; expected seconds",
    ]


CLASSES = {  # slicing onion and archery, as published lists have them
    "a.txt": ["0 slicing onion\n1 archery\n", "1 slicing onion\n2 archery\n", "# comment\nslicing onion\narchery\n",
              "slicing onion,0\narchery,1\n", "name\nslicing onion\narchery\n",
              "index name\n0 slicing onion\n1 archery\n",
              "0. slicing onion\n1. archery\n", "(1) slicing onion\n(2) archery\n", "slicing onion|0\narchery|1\n",
              "slicing onion, 0\narchery, 1\n", "slicing onion:0\narchery:1\n", '"0","slicing onion"\n"1","archery"\n',
              "- slicing onion\n- archery\n", "'slicing onion'\n'archery'\n", "sep=;\n0;slicing onion\n1;archery\n",
              "slicing onion\u200b\n\u200earchery\n",
              "slicing onion,\r\narchery,\r\n", "\ufeffslicing onion\n\n  archery \n", '"slicing onion"\n"archery"\n'],
    "a.csv": ["id,name\n0,slicing onion\n1,archery\n", "name;id\narchery;1\nslicing onion;0\n",
              ",name\n0,slicing onion\n1,archery\n", "label,count\nslicing onion,9\narchery,2\n",
              "label,class_name\n1,archery\n0,slicing onion\n", "name,about\nslicing onion,cut\narchery,bow\n"],
    "a.json": ['{"slicing onion":"0","archery":"1"}', '{"0": "slicing onion", "1": "archery"}',
               '["slicing onion", "archery"]'],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in CLASSES.items() for text in texts])
def test_class_lists_are_read_in_all_their_forms(tmp_path, name, text):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert read_class_names(tmp_path / name) == ["slicing onion", "archery"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", 'id,name\n1,"jump, high"\n0,run\n', ["run", "jump, high"]),
        ("a.txt", "1 run\n2 jump high\n", ["run", "jump high"]),
        ("a.txt", "run\njump, high\n", ["run", "jump, high"]),
        ("a.txt", "level 1\nlevel 2\n", ["level 1", "level 2"]),
        ("a.txt", "2 fast\n3 slow\n", "taken for numbers and names, but the numbers"),
        ("a.csv", "id,name\nx,run\n", "'x' is no number"),
        ("a.txt", "a\nb\na\n", "duplicates: 'a'"),
        ("a.txt", "\n".join(CAFE), "duplicates: 'caf\u00e9'"),
        ("a.json", '{"0": "run", "2": "jump"}', "not 0 to 1 or 1 to 2"),
        ("a.json", '{"0": "run", "1": "Run"}', "duplicates"),
        ("a.json", '{"0": "run", "0": "jump"}', "the key '0' is there twice"),
        ("a.txt", "1.5 km\n2.5 km\n", ["1.5 km", "2.5 km"]),
        ("a.json", '{"run": "jump"}', "expected names, or numbers and names"),
        ("a.json", "[]", "expected names, or numbers and names"),
        ("a.json", "{", "not JSON"),
        ("a.txt", "\n", "0 names"),
    ],
)
def test_odd_class_lists_are_read_right_or_refused_in_one_line(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text, encoding="utf-8")
    if isinstance(expected, list):
        assert read_class_names(tmp_path / name) == expected
        return
    with pytest.raises(ValueError, match=expected) as caught:
        read_class_names(tmp_path / name)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------ anything at all
words = ("v/a.avi", "b c.mp4", "jump", "wave", "0", "1", "-1", "9" * 30, "path", "label", "id", "name", "x" * 300, "..")
pieces = st.sampled_from([*words, *"#\"',;\t \\/\n\0{}[]:\ufeff\u2028", "\r\n", "e\u0301", "nan"])
texts = st.lists(pieces | st.text(max_size=4), max_size=30).map("".join)
files = st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | texts.map(
    lambda text: text.encode("utf-16", "surrogatepass")
)  # fmt: skip


def read_as_dataset(path):
    return prepare("list", path.parent, path.parent / "o.csv", annotations=path)


@given(files, st.sampled_from(["l.txt", "l.csv", "l.json"]))
@settings(max_examples=300)
def test_any_file_is_read_or_refused_by_a_message_of_ours(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("any") / name  # of its own: a list is looked up in its folder and below
    path.write_bytes(content)
    rows = read_list(path)[0]
    assert all(row.paths and row.label and row.line > 0 for row in rows)
    for read in (read_classes, read_manifest, read_as_dataset):
        try:
            assert read(path)
        except ValueError as error:
            said = str(error)
        else:
            said = path.name
        assert path.name in said or str(path.parent) in said


labels = st.sampled_from(["jump", "wave", "run, fast"])


@given(st.dictionaries(st.integers(0, 40), labels, min_size=1), st.sampled_from(",;\t"))
def test_what_is_written_is_read_again(tmp_path_factory, rows, separator):
    path = tmp_path_factory.getbasetemp() / "again.txt"
    path.write_text("".join(f'"v/{i} x.avi"{separator}"{label}"\n' for i, label in rows.items()))
    assert [(row.paths[1], row.label) for row in read_list(path)[0]] == [(f"v/{i} x.avi", v) for i, v in rows.items()]
    numbered = json.dumps({str(i): f"class {i}" for i in range(len(rows))})
    path.with_suffix(".json").write_text(numbered)
    assert read_class_names(path.with_suffix(".json")) == [f"class {i}" for i in range(len(rows))]
