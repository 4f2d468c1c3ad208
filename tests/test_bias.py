"""`mede bias`: its numbers are an evaluation's, it tells place from motion, goes on after a kill, and says no more."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from clips import make_clip, real_clips
from huggingface_hub import constants
from PIL import Image
from torch.utils.data import TensorDataset

from mede_core.__main__ import main
from mede_core.config import METHODS, load_config
from mede_core.report import bias_page
from mede_core.scoring import Reordered, evaluate
from mede_core.video.bias import FILMED, ORDERS, bias
from mede_core.video.decode import probe, read_clip
from mede_core.video.scuba.masks import Backgrounds
from mede_core.workspace import Workspace
from mede_core.world.synthetic import World, make_set

LOSSLESS, LOSSY = ("ffv1", "bgr0", "mkv"), ("libx264", "yuv420p", "mp4")  # codec, pixels, ending


def read(folder):
    found = json.loads((folder / "bias.json").read_text())
    return found, {way: accuracy.value for way, (accuracy, _) in bias_page.measures(found).items()}


# ------------------------------------------------------------------------------------ the numbers of the world
def write_world(folder, count, codec, pixels, ending):
    """Novel clips of the world as videos, a list of them, and masks of their actors; gives the clips."""
    folder.mkdir()
    clips = make_set(World(1), half="novel", count=count)
    for index, video in enumerate(clips.videos):
        make_clip(folder / f"{index:04d}.{ending}", video.permute(0, 2, 3, 1).numpy(), codec, pixels=pixels)
        (folder / "masks" / f"{index:04d}").mkdir(parents=True)
        for number, mask in enumerate(clips.masks[index].numpy(), 1):
            Image.fromarray(mask).save(folder / "masks" / f"{index:04d}" / f"{number}.png")
    labels = [clips.class_names[label] for label in clips.labels]
    (folder / "list.csv").write_text("".join(f"{i:04d}.{ending},{label}\n" for i, label in enumerate(labels)))
    return clips


def reported(folder, method):
    """What the command finds of a shipped method, and the accuracies that it reports."""
    run = Workspace().run(load_config("cpu", method=method)).folder if method != "frozen" else "mede-small/shipped"
    last = run / "epoch_008.safetensors" if method == "open_mede_no_gwa" else run  # of the run that two methods share
    how = {"masks": str(folder / "masks"), "backgrounds": ["noise"], "out": str(folder / "out")}
    bias(str(folder / "list.csv"), model=str(last), **how)
    return read(folder / "out")


def evaluated(clips, method):
    """{how clips are shown: [N] bool, right or not} by an evaluation, with the background swapped here."""
    noise = [Backgrounds("noise").draw(np.random.default_rng([0, i, 0]), 32, 32).pixels for i in range(len(clips))]
    noise = torch.from_numpy(np.stack(noise)).permute(0, 3, 1, 2)[:, None]
    other = {"reversed": clips.videos.flip(1), "before noise": clips.videos.where(clips.masks[:, :, None], noise)}
    sets = {FILMED: clips, "shuffled": Reordered(clips, "shuffled"), "one frame": Reordered(clips, "single")}
    for way, videos in other.items():
        sets[way] = TensorDataset(videos, clips.labels)
        sets[way].class_names = clips.class_names
    learner = Workspace().learner(load_config("cpu", method=method))
    return {way: evaluate(learner, one).correct for way, one in sets.items()}


def check_equal(found, made, right):
    for way, of_clips in right.items():
        answers = [clip["answers"][way.removeprefix("before ")] == clip["label"] for clip in found["clips"]]
        assert answers == of_clips.tolist() and made[way] == pytest.approx(100 * of_clips.mean()), way


def test_the_reports_numbers_are_the_evaluations_on_videos_without_loss(tmp_path):
    clips = write_world(tmp_path / "world", 36, *LOSSLESS)
    for index, video in enumerate(clips.videos):
        file = tmp_path / "world" / f"{index:04d}.mkv"
        assert np.array_equal(read_clip(file, range(8), info=probe(file)), video.permute(0, 2, 3, 1))
    found, made = reported(tmp_path / "world", "open_mede")
    check_equal(found, made, evaluated(clips, "open_mede"))
    assert made[bias_page.MEAN] == made["before noise"]


@pytest.mark.slow
def test_for_all_methods_and_what_a_lossy_file_changes(tmp_path, capsys):
    clips = write_world(tmp_path / "lossless", 360, *LOSSLESS)
    write_world(tmp_path / "lossy", 360, *LOSSY)
    for method in METHODS:
        (found, exact), (_, lossy) = (reported(tmp_path / name, method) for name in ("lossless", "lossy"))
        check_equal(found, exact, evaluated(clips, method))
        with capsys.disabled():
            print(f"\n{method}: by H.264, points:", {way: round(lossy[way] - exact[way], 1) for way in exact})
        assert lossy != exact


# ------------------------------------------------------------------------------------ place or motion
MODELS = """
import os, signal
import torch
CALLS = []
class Place:  # the color of the corner, which the foreground never covers
    class_names, num_frames, image_size = ["red", "green", "blue"], 4, 32
    def __call__(self, clips):
        CALLS.append(len(clips))
        if len(CALLS) > int(os.environ.get("KILL_AFTER", 10**6)):
            os.kill(os.getpid(), signal.SIGKILL)
        return clips[:, :, :, :4, :4].float().mean((1, 3, 4))
class Order:  # whether what is white moves down or up, and nothing else
    class_names, num_frames, image_size = ["falling", "rising"], 4, 32
    def __call__(self, clips):
        white = (clips.float().amin(2) > 250).float()
        height = (white * torch.arange(32.0)[:, None]).sum((2, 3)) / white.sum((2, 3)).clamp(min=1)
        down = height[:, -1] - height[:, 0]
        return torch.stack([down, -down], 1)
class Narrow(Place):
    def __call__(self, clips):
        return super().__call__(clips)[:, :2]
"""


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """36 clips: a white square falls or rises before one of three colors; boxes of it; the models above."""
    folder = tmp_path_factory.mktemp("moving")
    boxes, colors, ways = ["video,frame,x,y,w,h"], [], []
    for index in range(36):
        frames = np.zeros((4, 32, 32, 3), np.uint8)
        frames[..., index % 3] = 150
        for time, frame in enumerate(frames):
            top = 6 + 5 * (time if index // 3 % 2 else 3 - time)
            frame[top : top + 6, 12:18] = 255
            boxes.append(f"{index:02d},{time + 1},12,{top},6,6")
        make_clip(folder / f"{index:02d}.mkv", frames, "ffv1", pixels="bgr0")
        colors.append(f"{index:02d}.mkv,{['red', 'green', 'blue'][index % 3]}")
        ways.append(f"{index:02d}.mkv,{['rising', 'falling'][index // 3 % 2]}")
    for name, lines in {"boxes": boxes, "color": colors, "way": ways}.items():
        (folder / f"{name}.csv").write_text("\n".join(lines))
    (folder / "tiny_models.py").write_text(MODELS)
    return folder


@pytest.fixture
def at(moving, monkeypatch):
    monkeypatch.chdir(moving)
    monkeypatch.syspath_prepend(moving)
    import tiny_models

    tiny_models.CALLS.clear()
    return tiny_models


def test_place_and_motion_come_out_as_such(at, tmp_path, capsys):
    masks = ["--masks", "boxes.csv"]
    assert main(["bias", "color.csv", "--model", "python:tiny_models:Place", *masks, "--out", str(tmp_path / "a")]) == 0
    place, (found, shown) = capsys.readouterr().out, read(tmp_path / "a")
    assert [shown[way] for way in (FILMED, *ORDERS)] == [100] * 4
    assert shown["before clips"] == 0 and bias_page.followed(found).value == 100
    assert "shows no sign of reading the order" in place and "It leans on the background" in place
    assert main(["bias", "way.csv", "--model", "python:tiny_models:Order", *masks, "--out", str(tmp_path / "b")]) == 0
    order, (found, shown) = capsys.readouterr().out, read(tmp_path / "b")
    assert shown[FILMED] == shown["before clips"] == 100 and shown["reversed"] == shown["one frame"] == 0
    assert bias_page.followed(found).value == 0
    assert "It reads the order" in order and "shows no sign of leaning on the background" in order
    page = (tmp_path / "b" / "bias.html").read_text()
    assert order.splitlines()[0] in page.replace("&#39;", "'") and page.count('class="strip"') == 12
    assert len([*(tmp_path / "b" / "figures").glob("*.png")]) == 12


def test_a_killed_run_goes_on_and_ends_with_the_same_answers(at, tmp_path):
    words = ["bias", "color.csv", "--model", "python:tiny_models:Place", "--out", str(tmp_path / "cut")]
    killed = subprocess.run([sys.executable, "-m", "mede_core", *words], env={**os.environ, "KILL_AFTER": "9"})
    (lines,) = (tmp_path / "cut").glob("answers-*.jsonl")
    assert killed.returncode == -9 and not (tmp_path / "cut" / "bias.json").exists()
    assert lines.read_text().count("\n") == 8  # the first call is of noise
    with open(lines, "a") as file:
        file.write('{"clip": 8, "ans')  # torn
    for out, calls in (("cut", 29), ("whole", 37), ("whole", 1)):
        at.CALLS.clear()
        bias("color.csv", model="python:tiny_models:Place", out=str(tmp_path / out))
        assert len(at.CALLS) == calls
    assert read(tmp_path / "cut")[0]["clips"] == read(tmp_path / "whole")[0]["clips"]


# ------------------------------------------------------------------------------------ masks that are found, and doubts
class Finder(torch.nn.Module):
    """Stands for Mask R-CNN: what is white is a person; a person it is unsure of and a bicycle are everywhere."""

    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.ones(()))  # above all, unless weights are loaded

    def forward(self, frames):
        white = (frames[0].amin(0) > self.threshold).float()[None, None]
        masks = torch.cat([white, torch.ones_like(white), torch.ones_like(white)])
        return [{"labels": torch.tensor([1, 1, 2]), "scores": torch.tensor([0.9, 0.3, 0.9]), "masks": masks}]


def test_people_are_found_with_weights_that_come_once_and_are_compared(at, server, tmp_path, monkeypatch, capsys):
    torch.save({"threshold": torch.tensor(0.9)}, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    good = f"finder-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    server.files = {good: data, "finder-00000000.pth": data}
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **options: Finder())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    told = ["bias", "color.csv", "--model", "python:tiny_models:Place", "--masks"]

    def run(masks, out, name=good, offline="0"):
        monkeypatch.setenv("MEDE_URL_MASKRCNN_RESNET50_FPN_V2", f"{server.url}/{name}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline == "1")
        return main([*told, masks, "--out", str(tmp_path / out)])

    for name, offline, said in ((good, "1", "HF_HUB_OFFLINE is set"), ("finder-00000000.pth", "0", "invalid hash")):
        assert run("auto", "wrong", name, offline) == 2
        error = capsys.readouterr().err
        assert said in error.splitlines()[-1] and error.splitlines()[-1].startswith("error: weights of maskrcnn")
        assert not [*(tmp_path / "cache").rglob("*.p*")]
    for masks, out in (("auto", "found"), ("auto", "again"), ("boxes.csv", "given")):
        assert run(masks, out) == 0
    assert server.gets.count((good, 0)) == 1
    assert len([*(tmp_path / "found" / "masks").glob("*.npz")]) == 36
    assert read(tmp_path / "found")[0]["clips"] == read(tmp_path / "given")[0]["clips"]


def test_random_weights_few_clips_and_what_is_left_out_are_said(at, moving, tmp_path, capsys):
    few, other = tmp_path / "few", tmp_path / "other"
    for folder, name in ((few, "00.mkv"), (few, "01.mkv"), (other, "02.mkv")):
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(moving / name)
    (few / "broken.mp4").write_bytes(b"no video")
    told = ["--model", "mede-small/shipped", "--random-weights", "--out", str(tmp_path / "out")]
    assert main(["bias", str(few), *told, "--classes", "up", "down"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("*** THESE NUMBERS MEAN NOTHING: the weights are random; 2 clips are too few")
    page = (tmp_path / "out" / "bias.html").read_text()
    assert "These numbers mean nothing" in page and "no sign" not in page and "Answer stays" in page
    assert "broken.mp4" in page
    assert main(["bias", str(tmp_path), *told]) == 0  # by class folders; out holds no video
    found, _ = read(tmp_path / "out")
    assert found["labeled"] and found["model"]["classes"] == ["few", "other"]
    for model, why in (("Narrow", "expected (2, 3)"), ("Order", "'red' is no class of the model")):
        assert main(["bias", "color.csv", "--model", f"python:tiny_models:{model}", "--out", str(tmp_path / "no")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and why in error


@pytest.mark.slow
def test_on_real_clips_a_random_network_of_torchvision_says_that_it_means_nothing(tmp_path, capsys):
    told = ["--model", "torchvision:r3d_18", "--random-weights", "--out", str(tmp_path)]
    assert main(["bias", str(real_clips()), *told]) == 0
    assert "THESE NUMBERS MEAN NOTHING: the weights are random; 8 clips" in capsys.readouterr().out
    assert read(tmp_path)[0]["model"]["num_frames"] == 16
