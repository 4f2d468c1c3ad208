"""SCUBA: published lists are read or refused by name; built clips are exact, reproducible and survive a kill."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from clips import decoded, make_clip, write_csv
from mask_files import FRAMES, HEIGHT, WIDTH, alpha, put
from PIL import Image

from mede_core.video.clips import FrameFolderDataset
from mede_core.video.manifest import ManifestError
from mede_core.video.scuba.build import build_scuba, composite

CLASSES = ["archery", "brush hair", "cut in kitchen", "diving"]
VIDEOS = {"diving/v_Diving g01.mp4": "diving", "brush_hair/april [1].mp4": "brush hair"}


# ------------------------------------------------------------------------------------ sources of a build
@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A manifest of two lossless videos, masks as npz, and two pictures."""
    root = tmp_path_factory.mktemp("sources")
    for name in VIDEOS:
        (root / name).parent.mkdir(exist_ok=True)
        make_clip(root / name, FRAMES, sizes=((WIDTH, HEIGHT),), options={"crf": "20"}.items())
    write_csv(root / "videos.csv", VIDEOS.items())
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for name in VIDEOS:
        file = (root / "masks" / name).with_suffix(".npz")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, masks=alpha())
    for number in range(4):
        file = root / "pictures" / "sub" / f"p {number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(file)
    return root


def make(videos, out, **options):
    chosen = {"manifest": videos / "videos.csv", "classes": videos / "classes.txt", "masks": videos / "masks",
              "mask_format": "npz", "backgrounds": "stripes", "seed": 0, "image_format": "png", "area_rule": False,
              **options}  # fmt: skip
    return build_scuba(out=out, **chosen)


def content(folder):
    """{name: bytes} of all files of a build."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def pictures(folder):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("img_*"))])


# ------------------------------------------------------------------------------------ building
@pytest.mark.parametrize("kind", ["noise", "stripes", "pictures"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(videos, tmp_path, kind):
    backgrounds = videos / "pictures" if kind == "pictures" else kind
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make(videos, tmp_path / name, backgrounds=backgrounds, seed=seed, per_video=3, image_format="jpg")
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert sum(name.endswith(".jpg") for name in a) == 2 * (3 + 1) * FRAMES
    assert [name for name in a if name.startswith("scuba/") and "img_" in name and a[name] != c[name]]
    assert all(a[name] == c[name] for name in a if name.startswith("in_context/") and "img_" in name)


def test_the_foreground_survives_under_the_mask_and_the_background_outside(videos, tmp_path):
    make(videos, tmp_path / "out", backgrounds=videos / "pictures", per_video=2)
    name, file = "v_Diving g01", videos / "diving" / "v_Diving g01.mp4"
    own, inside = decoded(file), alpha() == 255
    assert np.array_equal(pictures(tmp_path / "out" / "in_context" / name), own)
    used = json.loads((tmp_path / "out" / "scuba.json").read_text())["sources"][name]["backgrounds"]
    for k in range(2):
        made = pictures(tmp_path / "out" / "scuba" / f"{name}__{k}")
        assert np.array_equal(made[inside], own[inside])
        picture = Image.open(videos / "pictures" / used[k]["background"])
        background = np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        assert np.array_equal(made[~inside], np.broadcast_to(background, made.shape)[~inside])


def test_soft_masks_mix_the_two():
    fg, bg = np.full((1, 1, 3, 3), 200, np.uint8), np.full((1, 3, 3), 100, np.uint8)
    mixed = composite(fg, np.array([[[0, 51, 255]]], np.uint8), bg)
    assert mixed[0, 0, :, 0].tolist() == [100, 120, 200]


def test_the_lists_are_twins_in_the_published_form_and_the_full_label_space(videos, tmp_path):
    report = make(videos, tmp_path / "out", per_video=2)
    assert "4 clips of 2 videos" in report.report() and report.problems == {}
    lines = (tmp_path / "out" / "scuba.txt").read_text().splitlines()
    assert lines[0] == f"scuba/v_Diving g01__0 {FRAMES} 3"
    assert lines[3] == f"scuba/april [1]__1 {FRAMES} 1"
    read = {}
    for name in ("scuba", "in_context"):
        classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
        how = {"template": "img_{:05d}.png"}
        read[name] = FrameFolderDataset(tmp_path / "out" / f"{name}.txt", None, classes, 4, 16, **how)
    assert read["scuba"].labels == read["in_context"].labels == [3, 3, 1, 1]
    assert [path.name for path, *_ in read["in_context"].rows] == ["v_Diving g01"] * 2 + ["april [1]"] * 2
    facts = json.loads((tmp_path / "out" / "scuba.json").read_text())
    assert facts["finished"] and facts["settings"]["seed"] == 0 and facts["settings"]["classes"] == CLASSES
    assert facts["counts"]["clips"] == 4 and facts["clips_per_class"] == {"brush hair": 2, "diving": 2}
    assert len(facts["sources"]["april [1]"]["video_sha256"]) == 64
    assert read["scuba"][0][0].shape == (4, 3, 16, 16)


def test_another_row_does_not_change_a_clip(videos, tmp_path):
    make(videos, tmp_path / "two")
    (tmp_path / "one.csv").write_text('"brush_hair/april [1].mp4",brush hair\n')
    make(videos, tmp_path / "one", manifest=tmp_path / "one.csv", root=videos)
    two, one = (content(tmp_path / name / "scuba" / "april [1]__0") for name in ("two", "one"))
    assert {n: v for n, v in one.items() if n != "clip.json"} == {n: v for n, v in two.items() if n != "clip.json"}


def test_the_span_rule_holds_for_a_built_clip(videos, tmp_path):
    put(tmp_path / "masks" / "diving" / "v_Diving g01", [2, 3, 6])
    put(tmp_path / "masks" / "april [1]", range(FRAMES))
    make(videos, tmp_path / "out", masks=tmp_path / "masks", mask_format="png")
    own = decoded(videos / "diving" / "v_Diving g01.mp4")[2:7]
    assert np.array_equal(pictures(tmp_path / "out" / "in_context" / "v_Diving g01"), own)
    made = pictures(tmp_path / "out" / "scuba" / "v_Diving g01__0")
    assert np.array_equal(made[2], made[3])
    assert np.array_equal(made[0][alpha()[2] == 0], made[2][alpha()[2] == 0])
    assert (made[0] != made[2]).any()


def test_smoothing_averages_neighbors_and_short_side_reduces(videos, tmp_path):
    make(videos, tmp_path / "out", smooth=1, short_side=16)
    made = pictures(tmp_path / "out" / "scuba" / "v_Diving g01__0")
    assert made.shape == (FRAMES, 16, 32, 3)
    make(videos, tmp_path / "plain", short_side=16)
    assert not np.array_equal(made, pictures(tmp_path / "plain" / "scuba" / "v_Diving g01__0"))


def test_bad_files_are_reported_and_never_stop_the_rest(videos, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(videos, root)
    (root / "diving" / "broken.mp4").write_bytes(b"nothing" * 50)
    shutil.copy(root / "diving" / "v_Diving g01.mp4", root / "diving" / "nomask.mp4")
    shutil.copy(root / "diving" / "v_Diving g01.mp4", root / "diving" / "badmask.mp4")
    (root / "masks" / "diving" / "badmask.npz").write_bytes(b"PK\x03\x04 broken")
    for name in ("broken", "gone", "nomask", "badmask"):
        with open(root / "videos.csv", "a") as stream:
            stream.write(f"diving/{name}.mp4,diving\n")
    for file in (root / "pictures" / "sub").glob("p [012].png"):
        file.write_bytes(b"no picture")
    for _ in range(2):  # a second run has nothing to do and says the same
        report = make(root, tmp_path / "out", backgrounds=root / "pictures", per_video=4)
        assert "8 clips of" in report.report()
        assert {key for key in report.problems if not key.startswith("background")} == {"broken", "gone", "badmask"}
        assert "no such file" in report.problems["gone"]
        assert "no mask: none of diving/nomask.npz" in report.left_out["nomask"]
        assert "problem: badmask: badmask.npz cannot be read" in report.report()
        assert any(key.startswith("background sub/p ") for key in report.problems)


def test_no_clip_at_all_is_an_error_that_lists_the_reasons(videos, tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(ManifestError, match=r"no clip could be made") as caught:
        make(videos, tmp_path / "out", masks=tmp_path / "masks")
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out" / "scuba.txt").exists()


def test_videos_of_one_name_keep_their_folders(videos, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(videos / "diving" / "v_Diving g01.mp4", tmp_path / folder / "clip.mp4")
    (tmp_path / "v.csv").write_text("a/clip.mp4,diving\nb/clip.mp4,archery\n")
    (tmp_path / "masks" / "a").mkdir(parents=True)
    np.save(tmp_path / "masks" / "a" / "clip.npy", alpha() > 0)
    np.save(tmp_path / "masks" / "clip.npy", alpha() > 0)  # whose mask is it?
    report = make(videos, tmp_path / "out", masks=tmp_path / "masks", manifest=tmp_path / "v.csv")
    assert (tmp_path / "out" / "scuba.txt").read_text() == f"scuba/a/clip__0 {FRAMES} 3\n"
    assert list(report.left_out) == ["b/clip"]


def test_the_area_rule_keeps_videos_with_a_tenth_in_nine_of_ten_frames(videos, tmp_path):
    size = WIDTH * HEIGHT
    for name, frames in (("diving/v_Diving g01", 10), ("brush_hair/april [1]", 9)):
        masks = np.zeros((frames, size), bool)
        masks[:, : -(-size // 10)] = True
        masks[0, -(-size // 10) - 1] = False  # one pixel less than a tenth, in one frame
        file = tmp_path / "masks" / f"{name}.npy"
        file.parent.mkdir(parents=True)
        np.save(file, masks.reshape(frames, HEIGHT, WIDTH))
    masks = tmp_path / "masks"
    report = make(videos, tmp_path / "rule", masks=masks, area_rule=None)  # for npz the rule is the default
    assert list(report.left_out) == ["april [1]"]  # 8 of 9 frames; 9 of 10 are 90 %
    assert "left out: april [1]: only 89 %" in report.report()
    assert len(make(videos, tmp_path / "all", masks=masks).sources) == 2


# ------------------------------------------------------------------------------------ killed, changed, refused
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(videos, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    make(videos, whole, per_video=6)
    code = (
        "import sys; from mede_core.video.scuba.build import build_scuba; root = sys.argv[1]; "
        "build_scuba(root + '/videos.csv', root + '/masks', 'npz', 'stripes', sys.argv[2], seed=0, per_video=6, "
        "image_format='png', area_rule=False, classes=root + '/classes.txt')"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(videos), str(out)])
    deadline = time.monotonic() + 60
    while not list(out.glob(".tmp-*/**/img_*")) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = list(out.glob(".tmp-*/**/img_*"))
    assert left, "it was not killed in the middle"
    assert not (out / "scuba.txt").exists()
    assert json.loads((out / "scuba.json").read_text())["finished"] is False
    make(videos, out, per_video=6)
    assert content(out) == content(whole)


def test_only_whole_clips_of_the_same_sources_are_taken_over(videos, tmp_path):
    out = tmp_path / "out"
    make(videos, out)
    first, second = out / "scuba" / "april [1]__0", out / "scuba" / "v_Diving g01__0"
    before, kept, made = content(out), first.stat().st_ino, pictures(second)
    (second / "img_00003.png").unlink()
    make(videos, out)
    assert content(out).keys() == before.keys()
    assert first.stat().st_ino == kept
    (second / "img_00003.png").write_bytes(b"")
    make(videos, out)
    assert content(out) == before
    (out / "in_context" / "v_Diving g01" / "clip.json").write_text("{")
    make(videos, out)
    assert content(out) == before
    masks = tmp_path / "masks"
    shutil.copytree(videos / "masks", masks)
    np.savez(masks / "diving" / "v_Diving g01.npz", masks=255 - alpha())
    make(videos, out, masks=masks)
    assert pictures(second).tobytes() != made.tobytes()
    assert first.stat().st_ino == kept


def test_a_folder_of_other_settings_is_refused(videos, tmp_path):
    make(videos, tmp_path / "out")
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        make(videos, tmp_path / "out", seed=1)
