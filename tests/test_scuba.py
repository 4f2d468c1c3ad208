"""SCUBA: published lists are read or refused by name; built clips are exact, reproducible and survive a kill."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from clips import decoded, make_clip
from PIL import Image
from scipy.io import savemat

from mede_core.scoring import evaluate
from mede_core.video.manifest import ManifestError, read_manifest
from mede_core.video.scuba.backgrounds import Backgrounds, noise, stripes
from mede_core.video.scuba.build import FrameFolderDataset, build, composite, main, read_frame_list
from mede_core.video.scuba.masks import MaskError, Masks, read_boxes

CLASSES = ["archery", "brush hair", "cut in kitchen", "diving"]
FRAMES, WIDTH, HEIGHT = 12, 64, 32
VIDEOS = {"diving/v_Diving g01.mp4": "diving", "brush_hair/april [1].mp4": "brush hair"}


# ------------------------------------------------------------------------------------ lists of frame folders
def frame_folder(folder, frames=10, size=(20, 16), kind="png"):
    """A folder of frames; each one has its own gray value, 10 times its number."""
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        Image.new("RGB", size, (10 * number,) * 3).save(folder / f"img_{number:05d}.{kind}")


@pytest.fixture
def listed(tmp_path):
    for name in ("v_Diving_g01__0", "two words__1"):
        frame_folder(tmp_path / "frames" / name)
    (tmp_path / "scuba.txt").write_text("v_Diving_g01__0 10 3\n\ntwo words__1 9 0\n")
    return tmp_path / "scuba.txt"


def read(path, **options):
    return read_frame_list(path, path.parent / "frames", CLASSES, "img_{:05d}.png", **options)


def test_a_list_is_split_from_the_right_and_keeps_the_full_label_space(listed):
    clips = read(listed)
    assert [path.name for path in clips.paths] == ["v_Diving_g01__0", "two words__1"]
    assert (clips.frames, clips.labels, clips.class_names) == ([10, 9], [3, 0], CLASSES)


def test_what_is_wrong_with_a_list_is_named_all_at_once(listed):
    root = listed.parent / "frames"
    frame_folder(root / "hole")
    (root / "hole" / "img_00004.png").unlink()
    frame_folder(root / "empty")
    (root / "empty" / "img_00002.png").write_bytes(b"")
    bad = ["gone__0 10 1", "hole 10 1", "empty 10 1", "v_Diving_g01__0 11 3", "two words__1 9 4", "x 10", "y z 1",
           "two words__1 9 1", "v_Diving_g01__0 0 3"]  # fmt: skip
    listed.write_text(listed.read_text() + "\n".join(bad))
    with pytest.raises(ManifestError) as caught:
        read(listed)
    expected = {
        4: "gone__0: no such folder", 5: "hole: 9 of 10 frames; img_00004.png is missing",
        6: "empty: 9 of 10 frames; img_00002.png", 7: "10 of 11 frames; img_00011.png",
        8: "two words__1: label 4 is out of range 0 to 3", 9: "'x 10' is not", 10: "'y z 1' is not",
        11: "two words__1: label 1, but 0 on line 3", 12: "0 frames",
    }  # fmt: skip
    assert len(caught.value.problems) == len(expected)
    for (number, words), line in zip(expected.items(), caught.value.problems):
        assert line.startswith(f"line {number}: ") and words in line
    clips = read(listed, skip_bad=True)
    assert (len(clips), len(clips.problems)) == (2, len(expected))


def test_a_wrong_root_and_a_wrong_template_are_said(listed):
    with pytest.raises(ManifestError, match="right root"):
        read_frame_list(listed, listed.parent, CLASSES)
    with pytest.raises(ValueError, match="template"):
        read_frame_list(listed, listed.parent, CLASSES, "img.jpg")
    with pytest.raises(ManifestError, match="img_00001.jpg is missing"):
        read_frame_list(listed, listed.parent / "frames", CLASSES)
    with pytest.raises(ValueError, match="duplicates"):
        read_frame_list(listed, listed.parent / "frames", ["a", "a"])


def values(clip):
    """The gray value of each frame, as numbers of the frames."""
    assert (clip == clip.flatten(-3)[..., 0][..., None, None, None]).all()
    return (clip[..., 0, 0, 0] // 10).tolist()


def test_frames_are_sampled_uniformly_and_in_views(listed):
    clip, label = FrameFolderDataset(read(listed), 5, 16)[0]
    assert (clip.shape, clip.dtype, label) == ((5, 3, 16, 16), torch.uint8, 3)
    assert values(clip) == [1, 3, 5, 8, 10]  # centers 0.5, 2.5 .. counted from 0, halves toward the nearer end
    views, _ = FrameFolderDataset(read(listed), 2, 16, views=2)[0]
    assert views.shape == (2, 2, 3, 16, 16)
    assert sorted(values(views)[0] + values(views)[1]) == values(FrameFolderDataset(read(listed), 4, 16)[0][0])


def test_scufo_repeats_the_middle_frame_of_each_view(listed):
    moving = FrameFolderDataset(read(listed), 4, 16, views=2)[0][0]
    still = FrameFolderDataset(read(listed), 4, 16, views=2, scufo=True)[0][0]
    assert still.shape == moving.shape
    assert (still == still[:, :1]).all()
    assert torch.equal(still[:, 0], moving[:, 2])
    assert len(set(values(moving)[0])) == 4


def test_dense_sampling_needs_a_frame_rate(listed):
    with pytest.raises(ValueError, match="fps"):
        FrameFolderDataset(read(listed), 4, 16, sampling="dense")
    assert len(FrameFolderDataset(read(listed), 4, 16, sampling="dense", fps=2)[0][0]) == 4


def test_unreadable_frames_are_listed_before_anything_is_evaluated(listed):
    root = listed.parent / "frames"
    (root / "two words__1" / "img_00005.png").write_bytes(b"no picture")
    with pytest.raises(ManifestError, match=r"two words__1: img_00005.png cannot be read"):
        FrameFolderDataset(read(listed), 9, 16)
    left = FrameFolderDataset(read(listed), 9, 16, skip_bad=True)
    assert (len(left), left.labels, [path.name for path in left.bad]) == (1, [3], ["two words__1"])
    Image.new("RGB", (9, 9)).save(root / "v_Diving_g01__0" / "img_00001.png")
    with pytest.raises(ManifestError, match="different sizes"):
        FrameFolderDataset(read(listed), 10, 16)


def test_an_evaluation_takes_frame_folders_as_it_takes_videos(listed):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.ones(())

        def set_classes(self, names, **_texts):
            self.names = names

        def forward(self, video):
            return torch.nn.functional.one_hot(video.flatten(1)[:, 0].long() % 4, len(self.names)).float()

    clips = FrameFolderDataset(read(listed), 4, 16, views=3)
    result = evaluate(Counting(), clips, batch_size=2)
    assert result.class_names == CLASSES
    assert result.logits.shape == (2, 4)
    assert result.labels.tolist() == [3, 0]


# ------------------------------------------------------------------------------------ sources of a build
def block(frame):
    """The foreground of a frame: a box of 20x12 pixels that moves to the right."""
    return 4 + frame, 8, 20, 12  # x, y, w, h


def alpha(frames=FRAMES, height=HEIGHT, width=WIDTH):
    masks = np.zeros((frames, height, width), np.uint8)
    for frame in range(frames):
        x, y, w, h = block(frame)
        masks[frame, y : y + h, x : x + w] = 255
    return masks


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A manifest of two lossless videos, masks as npz, and two pictures."""
    root = tmp_path_factory.mktemp("sources")
    for name in VIDEOS:
        (root / name).parent.mkdir(exist_ok=True)
        make_clip(root / name, FRAMES, sizes=((WIDTH, HEIGHT),), options={"crf": "20"}.items())
    with open(root / "videos.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(VIDEOS.items())
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


def make(videos, out, *, masks=None, backgrounds="stripes", seed=0, manifest=None, **options):
    manifest = manifest or read_manifest(videos / "videos.csv", class_names=CLASSES)
    masks = masks or Masks(videos / "masks", "npz")
    return build(manifest, masks, Backgrounds(backgrounds), out, seed=seed, **{"image_format": "png", **options})


def content(folder):
    """{name: bytes} of all files of a build."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pictures(folder):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("img_*"))])


# ------------------------------------------------------------------------------------ building
@pytest.mark.parametrize("kind", ["noise", "stripes", "pictures"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(videos, tmp_path, kind):
    backgrounds = videos / "pictures" if kind == "pictures" else kind
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make(videos, tmp_path / name, backgrounds=backgrounds, seed=seed, per_video=3, image_format="jpg")
    a, b, c = (content(tmp_path / name) for name in "abc")
    a.pop(".lock"), b.pop(".lock")
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
    assert (report.clips, report.videos, report.problems) == (4, 2, {})
    lines = (tmp_path / "out" / "scuba.txt").read_text().splitlines()
    assert lines[0] == f"scuba/v_Diving g01__0 {FRAMES} 3"
    assert lines[3] == f"scuba/april [1]__1 {FRAMES} 1"
    read = {}
    for name in ("scuba", "in_context"):
        classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
        read[name] = read_frame_list(tmp_path / "out" / f"{name}.txt", None, classes, "img_{:05d}.png")
    assert read["scuba"].labels == read["in_context"].labels == [3, 3, 1, 1]
    assert [path.name for path in read["in_context"].paths] == ["v_Diving g01"] * 2 + ["april [1]"] * 2
    facts = json.loads((tmp_path / "out" / "scuba.json").read_text())
    assert facts["finished"] and facts["settings"]["seed"] == 0 and facts["settings"]["classes"] == CLASSES
    assert facts["counts"]["clips"] == 4 and facts["clips_per_class"] == {"brush hair": 2, "diving": 2}
    assert len(facts["sources"]["april [1]"]["video_sha256"]) == 64
    clips = FrameFolderDataset(read["scuba"], 4, 16)
    assert clips[0][0].shape == (4, 3, 16, 16)


def test_another_row_does_not_change_a_clip(videos, tmp_path):
    make(videos, tmp_path / "two")
    (tmp_path / "one.csv").write_text('"brush_hair/april [1].mp4",brush hair\n')
    make(videos, tmp_path / "one", manifest=read_manifest(tmp_path / "one.csv", videos, CLASSES))
    two, one = (
        content(tmp_path / "two" / "scuba" / "april [1]__0"),
        content(tmp_path / "one" / "scuba" / "april [1]__0"),
    )
    assert {n: v for n, v in one.items() if n != "clip.json"} == {n: v for n, v in two.items() if n != "clip.json"}


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
        assert report.clips == 8
        assert {key for key in report.problems if not key.startswith("background")} == {"broken", "gone", "badmask"}
        assert "no such file" in report.problems["gone"]
        assert "no mask: none of diving/nomask.npz" in report.left_out["nomask"]
        assert "badmask.npz cannot be read" in report.problems["badmask"]
        assert any(key.startswith("background sub/p ") for key in report.problems)


def test_no_clip_at_all_is_an_error_that_lists_the_reasons(videos, tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(ManifestError, match=r"no clip could be made") as caught:
        make(videos, tmp_path / "out", masks=Masks(tmp_path / "masks", "npz"))
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
    manifest = read_manifest(tmp_path / "v.csv", class_names=CLASSES)
    report = make(videos, tmp_path / "out", masks=Masks(tmp_path / "masks", "npz"), manifest=manifest)
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
    masks = Masks(tmp_path / "masks", "npz")
    report = make(videos, tmp_path / "rule", masks=masks, area_rule=True)
    assert list(report.left_out) == ["april [1]"]  # 8 of 9 frames; 9 of 10 are 90 %
    assert "89 %" in report.left_out["april [1]"]
    assert make(videos, tmp_path / "all", masks=masks).clips == 2


# ------------------------------------------------------------------------------------ killed, changed, refused
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(videos, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    make(videos, whole, per_video=6)
    code = (
        "import sys; from mede_core.video.scuba.build import Backgrounds, Masks, build, read_manifest; "
        "videos = read_manifest(sys.argv[1] + '/videos.csv', class_names=sys.argv[3:]); "
        "build(videos, Masks(sys.argv[1] + '/masks', 'npz'), "
        "Backgrounds('stripes'), sys.argv[2], seed=0, per_video=6, image_format='png')"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(videos), str(out), *CLASSES])
    deadline = time.monotonic() + 60
    while not list(out.glob(".tmp-*/img_*")) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = list(out.glob(".tmp-*/img_*"))
    assert left, "it was not killed in the middle"
    assert not (out / "scuba.txt").exists()
    assert json.loads((out / "scuba.json").read_text())["finished"] is False
    make(videos, out, per_video=6)
    assert {n: b for n, b in content(out).items() if n != ".lock"} == {
        n: b for n, b in content(whole).items() if n != ".lock"
    }


def test_only_whole_clips_of_the_same_sources_are_taken_over(videos, tmp_path):
    out = tmp_path / "out"
    make(videos, out)
    first, second = out / "scuba" / "april [1]__0", out / "scuba" / "v_Diving g01__0"
    before, kept = content(out), first.stat().st_ino
    (second / "img_00003.png").unlink()
    make(videos, out)
    assert content(out).keys() == before.keys()
    assert first.stat().st_ino == kept
    (second / "img_00003.png").write_bytes(b"")
    (out / "in_context" / "april [1]" / "clip.json").write_text("{")
    make(videos, out)
    assert {n: b for n, b in content(out).items() if n != ".lock"} == {n: b for n, b in before.items() if n != ".lock"}
    masks = tmp_path / "masks"
    shutil.copytree(videos / "masks", masks)
    np.savez(masks / "diving" / "v_Diving g01.npz", masks=255 - alpha())
    make(videos, out, masks=Masks(masks, "npz"))
    assert content(second) != {
        n.removeprefix(f"scuba/{second.name}/"): b for n, b in before.items() if second.name in n
    }
    assert first.stat().st_ino == kept


def test_a_folder_of_other_settings_is_refused(videos, tmp_path):
    make(videos, tmp_path / "out")
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        make(videos, tmp_path / "out", seed=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed is -1"), ({"per_video": 0}, "per_video is 0"), ({"image_format": "gif"}, "png, jpg"),
        ({"smooth": 1.5}, "smooth is 1.5"), ({"backgrounds": "fog"}, "noise, stripes"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(videos, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make(videos, tmp_path / "out", **options)


# ------------------------------------------------------------------------------------ masks
def load(masks, frames=FRAMES):
    return masks.load(["diving/clip", "clip"], frames, HEIGHT, WIDTH)


def put(folder, frames, first=1):
    folder.mkdir(parents=True)
    for frame in frames:
        Image.fromarray(alpha()[frame]).save(folder / f"mask_{frame + first:03d}.png")


def test_frames_outside_the_span_are_dropped_and_gaps_inside_are_background(tmp_path):
    put(tmp_path / "diving" / "clip", [2, 3, 6])
    masks = load(Masks(tmp_path, "png"))
    assert (masks.first, len(masks.alpha)) == (2, 5)
    expected = alpha()[2:7].copy()
    expected[[2, 3]] = 0
    assert np.array_equal(masks.alpha, expected)
    assert masks.area()[2] == 0


def test_the_span_rule_holds_for_a_built_clip(videos, tmp_path):
    put(tmp_path / "masks" / "diving" / "v_Diving g01", [2, 3, 6])
    put(tmp_path / "masks" / "april [1]", range(FRAMES))
    make(videos, tmp_path / "out", masks=Masks(tmp_path / "masks", "png"))
    own = decoded(videos / "diving" / "v_Diving g01.mp4")[2:7]
    assert np.array_equal(pictures(tmp_path / "out" / "in_context" / "v_Diving g01"), own)
    made = pictures(tmp_path / "out" / "scuba" / "v_Diving g01__0")
    assert np.array_equal(made[2], made[3])
    assert np.array_equal(made[0][alpha()[2] == 0], made[2][alpha()[2] == 0])
    assert (made[0] != made[2]).any()


def test_numbering_from_zero_has_to_be_said(tmp_path):
    put(tmp_path / "clip", range(3), first=0)
    with pytest.raises(MaskError, match="counted from 1"):
        load(Masks(tmp_path, "png"))
    assert load(Masks(tmp_path, "png", first_number=0)).first == 0


def test_one_picture_serves_all_frames_and_smaller_masks_are_enlarged(tmp_path):
    small = alpha()[0][::2, ::2]
    Image.fromarray((small > 0).astype(np.uint8)).save(tmp_path / "clip.png")  # values 0 and 1
    masks = load(Masks(tmp_path, "png"))
    assert masks.alpha.shape == (FRAMES, HEIGHT, WIDTH)
    assert np.array_equal(masks.alpha[5], alpha()[0])
    palette = Image.fromarray((small > 0).astype(np.uint8) * 7)
    palette.putpalette([*range(256)] * 3)
    assert palette.mode == "P"
    palette.save(tmp_path / "clip.png")
    assert np.array_equal(load(Masks(tmp_path, "png")).alpha[5], alpha()[0])


@pytest.mark.parametrize("form", [bool, np.uint8, np.float32, np.int64])
def test_arrays_of_every_usual_type_mean_the_same(tmp_path, form):
    np.savez(tmp_path / "clip.npz", (alpha() > 0).astype(form))
    assert np.array_equal(load(Masks(tmp_path, "npz")).alpha, alpha())


def test_jhmdb_puppets_are_read(tmp_path):
    (tmp_path / "diving" / "clip").mkdir(parents=True)
    part = np.moveaxis(alpha()[:7] // 255 * 3, 0, 2)  # parts of a body are numbered
    savemat(tmp_path / "diving" / "clip" / "puppet_mask.mat", {"part_mask": part})
    masks = load(Masks(tmp_path, "puppet"))
    assert np.array_equal(masks.alpha, alpha()[:7])


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (np.zeros((FRAMES, HEIGHT, WIDTH)), "no foreground"),
        (np.ones((FRAMES, HEIGHT, WIDTH)), "cover every pixel"),
        (np.ones((FRAMES, HEIGHT, HEIGHT), bool), "other proportions"),
        (np.ones((FRAMES + 3, HEIGHT, WIDTH), bool), "up to frame 15, the video has 12"),
        (np.full((FRAMES, HEIGHT, WIDTH), 300), "run from 300 to 300"),
        (np.full((FRAMES, HEIGHT, WIDTH), np.nan), "finite"),
        (np.ones((2, FRAMES, HEIGHT, WIDTH), bool), "expected [T, H, W]"),
        (np.array([None]), "cannot be read"),
    ],
)
def test_masks_that_cannot_be_right_are_refused(tmp_path, masks, words):
    np.save(tmp_path / "clip.npy", masks)
    with pytest.raises(MaskError) as caught:
        load(Masks(tmp_path, "npz"))
    assert words in str(caught.value)


def test_a_decoder_may_lack_a_last_frame(tmp_path):
    np.save(tmp_path / "clip.npy", alpha(FRAMES + 1) > 0)
    masks = load(Masks(tmp_path, "npz"))
    assert len(masks.alpha) == FRAMES
    assert "1 frames behind the video's end" in masks.note


def tubes(*spans):
    return [
        {"label": 3, "sf": a, "ef": b, "boxes": np.array([block(f) for f in range(a, b)], np.int16)} for a, b in spans
    ]


def write_boxes(folder, form):
    """Boxes of one video in frames 2, 3 and 6 (from 0), in one of the forms that people have."""
    file, chosen = folder / f"boxes.{form.rpartition(' ')[2]}", (2, 3, 6)
    rows = [(f + 1, *block(f)) for f in chosen]
    if form == "csv":
        with open(file, "w", newline="") as stream:
            csv.writer(stream).writerows([("video", "frame", "x", "y", "w", "h"), *(("diving/clip", *r) for r in rows)])
    elif form == "rows json":
        file.write_text(json.dumps({"clip": rows}))
    elif form == "annotations json":
        plain = [{**tube, "boxes": tube["boxes"].tolist()} for tube in tubes((2, 4), (6, 7))]
        file.write_text(json.dumps({"diving/clip": {"numf": FRAMES, "annotations": plain}}))
    elif form == "annotations pkl":
        file.write_bytes(pickle.dumps({"diving/clip": {"numf": FRAMES, "annotations": tubes((2, 4), (6, 7))}}, 2))
    else:  # corners, as in UCF101v2-GT.pkl
        corners = np.array([(f, x, y, x + w, y + h) for f, x, y, w, h in rows], np.float32)
        content = {"labels": ["Diving"], "gttubes": {"diving/clip": {0: [corners[:2], corners[2:]]}}}
        file.write_bytes(pickle.dumps(content, 5))
    return file


@pytest.mark.parametrize("form", ["csv", "rows json", "annotations json", "annotations pkl", "corners pkl"])
def test_every_form_of_boxes_means_the_same(tmp_path, form):
    masks = load(Masks(write_boxes(tmp_path, form), "boxes"))
    expected = alpha()[2:7].copy()
    expected[[2, 3]] = 0
    assert masks.first == 2
    assert np.array_equal(masks.alpha, expected)


def test_two_actors_in_one_frame_are_both_foreground(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"clip": [[1, 0, 0, 4, 4], [1, 40, 20, 100, 100]]}))
    masks = load(Masks(tmp_path / "b.json", "boxes"))
    assert masks.alpha[0, 3, 3] == 255 and masks.alpha[0, -1, -1] == 255
    assert (masks.alpha > 0).sum() == 4 * 4 + (WIDTH - 40) * (HEIGHT - 20)


class Evil:
    def __reduce__(self):
        return os.system, ("touch planted",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.pkl").write_bytes(pickle.dumps({"clip": Evil()}))
    with pytest.raises(ValueError, match=r"names (posix|nt)\.system; only plain values and numpy arrays"):
        read_boxes(tmp_path / "boxes.pkl")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("b.json", "{", "cannot be read"), ("b.json", "[]", "hold a list"), ("b.pkl", "junk", "cannot be read"),
        ("b.csv", "video,frame,x,y,w\n", "no column h"), ("gone.csv", None, "no such file"),
    ],
)  # fmt: skip
def test_a_box_file_that_cannot_be_read_is_named(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        Masks(tmp_path / name, "boxes")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([], "no boxes"), ([[1, 2, 3]], "expected rows"), ([[0, 1, 1, 5, 5]], "out of range"),
        ([[1, 1, 1, -5, 5]], "out of range"), ("text", "cannot be read"), ([[1, 500, 0, 5, 5]], "another video size"),
        ({"annotations": [{"sf": 0, "ef": 9, "boxes": [[1, 1, 5, 5]]}]}, "1 boxes for frames sf=0 to ef=9"),
        ({"numf": 3}, "annotations"),
    ],
)  # fmt: skip
def test_bad_boxes_of_one_video_leave_the_others_alone(tmp_path, entry, words):
    (tmp_path / "b.json").write_text(json.dumps({"clip": entry, "other": [[1, 0, 0, 5, 5]]}))
    masks = Masks(tmp_path / "b.json", "boxes")
    with pytest.raises(MaskError, match=words):
        load(masks)
    assert masks.load(["other"], FRAMES, HEIGHT, WIDTH).alpha.any()


# ------------------------------------------------------------------------------------ backgrounds
def test_stripes_are_a_color_and_its_complement():
    picture = stripes(np.random.default_rng(3), 60, 90)
    colors = np.unique(picture.reshape(-1, 3), axis=0).astype(int)
    assert len(colors) == 2
    assert (colors.sum(0) == 255).all()


def test_noise_is_a_texture_without_large_flat_parts():
    picture = noise(np.random.default_rng(3), 60, 90)
    assert picture.shape == (60, 90, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000
    assert picture.std((0, 1)).min() > 10


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        Backgrounds(tmp_path)


# ------------------------------------------------------------------------------------ the command
def command(videos, out, *more):
    manifest = ["--manifest", videos / "videos.csv", "--classes", videos / "classes.txt"]
    masks = ["--masks", videos / "masks", "--mask-format", "npz", "--backgrounds", "stripes"]
    return ["build", *manifest, *masks, "--out", out, "--seed", 3, *more]


def run(capsys, arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_builds_and_says_what_it_left_out(videos, tmp_path, capsys):
    code, out, err = run(capsys, command(videos, tmp_path / "out"))
    assert (code, err) == (0, "")
    assert "2 clips of 2 videos" in out
    assert (tmp_path / "out" / "scuba" / "april [1]__0" / "img_00001.jpg").is_file()
    for name in VIDEOS:
        target = (tmp_path / "masks" / name).with_suffix(".npz")
        target.parent.mkdir(parents=True)
        np.savez(target, alpha())
    tiny = alpha()
    tiny[:, :, 8:] = 0
    np.savez(tmp_path / "masks" / "brush_hair" / "april [1].npz", tiny)
    code, out, _ = run(capsys, [*command(videos, tmp_path / "ruled"), "--masks", tmp_path / "masks"])
    assert code == 0
    assert "left out: april [1]: only 0 %" in out
    (tmp_path / "masks" / "brush_hair" / "april [1].npz").write_bytes(b"damaged")
    code, out, _ = run(capsys, [*command(videos, tmp_path / "part"), "--masks", tmp_path / "masks"])
    assert code == 1
    assert "problem: april [1]: april [1].npz cannot be read" in out


def test_the_command_refuses_bad_input_with_code_2(videos, tmp_path, capsys):
    make(videos, tmp_path / "other")
    for more, words in (
        (["--masks", tmp_path / "gone"], "gone"), (["--backgrounds", "fog"], "fog"), (["--per-video", 0], "per_video"),
        (["--out", tmp_path / "other"], "other settings"), (["--split", "test1"], "--split"),
        (["--manifest", tmp_path / "gone.csv"], "gone.csv"),
    ):  # fmt: skip
        code, out, err = run(capsys, [*command(videos, tmp_path / "out"), *more])
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and words in err
