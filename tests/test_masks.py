"""Masks and backgrounds of SCUBA: every form that people have means the same, and what cannot be right is refused."""

import json
import os
import pickle

import numpy as np
import pytest
from clips import write_csv
from mask_files import FRAMES, HEIGHT, WIDTH, alpha, block, put
from PIL import Image
from scipy.io import savemat

from mede_core.video.scuba.masks import Backgrounds, MaskError, Masks, noise, read_boxes, stripes


def load(masks, frames=FRAMES):
    return masks.load(["diving/clip", "clip"], frames, HEIGHT, WIDTH)


def test_frames_outside_the_span_are_dropped_and_gaps_inside_are_background(tmp_path):
    put(tmp_path / "diving" / "clip", [2, 3, 6])
    masks = load(Masks(tmp_path, "png"))
    assert (masks.first, len(masks.alpha)) == (2, 5)
    expected = alpha()[2:7].copy()
    expected[[2, 3]] = 0
    assert np.array_equal(masks.alpha, expected)
    assert not masks.alpha[2].any()


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
        write_csv(file, [("video", "frame", "x", "y", "w", "h"), *(("diving/clip", *row) for row in rows)])
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
        ("b.csv", "video,frame,x,y,w\n", "no column h"), ("gone.csv", None, "No such file"),
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
