"""The profile `paper` from end to end: data sets in their official layouts, weights from a hub, every table.

Tiny videos of four classes each: of three the novel half would be one class, which is refused as a test. The weights
are random, and their name says so.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from clips import make_clip
from hub import Hub
from layouts import write_kinetics
from mask_files import FRAMES, HEIGHT, WIDTH, alpha
from safetensors.torch import save

from mede_core.__main__ import main
from mede_core.files import available_cpus, read_lines

pytestmark = pytest.mark.slow

MODEL, REPOSITORY = "ViT-B-32", "rehearsal/random-ViT-B-32"
SETTINGS = {"epochs": 2, "warmup_epochs": 1, "batch_size": 4}
CLASSES = ["apply lipstick", "baby crawling", "cricket shot", "diving"]
TRAIN = (4, 4, 1, 1)  # videos of each class: the base half has those of a meta-step's two batches, and is larger
ONE = (1, 1, 1, 1)
COMPARED = {"20_base_to_novel", "21_cross_dataset", "22_out_of_context", "23_gain"}  # with the paper's numbers
OURS = {*COMPARED, "20_base_novel_hm", "20_rankings", "21_splits", "21_rankings", "22_rankings", "22_backgrounds",
        "22_scuba", "23_averages"}  # fmt: skip
NOT_OURS = {"00_notebooks", "22_paper_hm", "23_schedule", "24_cost", "24_claims"}  # no accuracy of these weights


# ------------------------------------------------------------------------------------ the official layouts
def videos(root, names, codec="libx264"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make_clip(root / name, FRAMES, codec, sizes=((WIDTH, HEIGHT),))


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def ucf101(root):
    """Test list n holds video n: list 1 of each class, the others of every second."""
    classes, lists = [name.title().replace(" ", "") for name in CLASSES], root / "ucfTrainTestlist"
    names = [f"{c}/v_{c}_g{n:02d}_c01.avi" for i, c in enumerate(classes) for n in range(1, 6 - i // 2)]
    videos(root / "UCF-101", names, "mpeg4")
    write(lists / "classInd.txt", (f"{i} {name}" for i, name in enumerate(classes, 1)))
    for n in (1, 2, 3):
        tests = [f"{c}/v_{c}_g{n:02d}_c01.avi" for c in (classes if n == 1 else classes[::2])]
        write(lists / f"testlist0{n}.txt", tests)
        rows = (f"{name} {classes.index(name.split('/')[0]) + 1}" for name in names if name not in tests)
        write(lists / f"trainlist0{n}.txt", rows)


def hmdb51(root):
    for i, name in enumerate(name.replace(" ", "_") for name in CLASSES):
        files = [f"clip_{name}_f_cm_np1_fr_med_{number}.avi" for number in range(1, 6)]
        videos(root / name, files, "mpeg4")
        for n in (1, 2, 3):
            tested = n if n == 1 or i % 2 else 0
            rows = (f"{file} {2 if number == tested else 1} " for number, file in enumerate(files, 1))
            write(root / "testTrainMulti_7030_splits" / f"{name}_test_split{n}.txt", rows)


def kinetics(root, **splits):
    for split, counts in splits.items():
        rows = [
            (name, f"{split:_<5}_{i}_{k:03d}", 10, 20, split)
            for i, (name, count) in enumerate(zip(CLASSES, counts))
            for k in range(count)
        ]
        videos(root, [f"{split}/{name}/{video}_000010_000020.mp4" for name, video, *_ in rows])
        write_kinetics(root / "annotations" / f"{split}.csv", rows)


def ssv2(root):
    plain, number = [f"{name} something" for name in CLASSES], 0
    write(root / "labels" / "labels.json", [json.dumps({name: str(i) for i, name in enumerate(plain)})])
    for split, counts in {"train": TRAIN, "validation": ONE}.items():
        names = [name.replace("something", "[something]") for name, count in zip(plain, counts) for _ in range(count)]
        rows = [{"id": str(number + i), "template": name, "placeholders": ["a cup"]} for i, name in enumerate(names)]
        write(root / "labels" / f"{split}.json", [json.dumps(rows)])
        videos(root / "20bn-something-something-v2", [f"{row['id']}.webm" for row in rows], "libvpx-vp9")
        number += len(rows)


# ------------------------------------------------------------------------------------ what a user does
@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of the prepared lists, of out-of-context clips and of data.yaml."""
    folder, lists = tmp_path_factory.mktemp("data"), ["datasets:"]
    sets = [write(folder / f"set_{n}.json", [json.dumps(dict(enumerate(CLASSES[n % 2 :: 2])))]) for n in (1, 2, 3)]
    zero_shot = [word for file in sets for word in ("--zero-shot", str(file))]
    for name, layout, more in (
        ("ucf101", ucf101, []),
        ("hmdb51", hmdb51, []),
        ("ssv2", ssv2, []),
        ("kinetics400", lambda root: kinetics(root, train=TRAIN, val=ONE), []),
        ("kinetics600", lambda root: kinetics(root, val=ONE), zero_shot),
    ):
        root, out = folder / "videos" / name, folder / f"{name}.csv"
        layout(root)
        assert main(["prepare", "--dataset", name, "--root", str(root), "--out", str(out), *more]) == 1  # too few
        lists.append(f"  {name}: {name}.csv")
    for file in (folder / "videos" / "ucf101").rglob("*_g02_*.avi"):
        (folder / "masks" / file.parent.name).mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / "masks" / file.parent.name / f"{file.stem}.npz", masks=alpha())
    scuba = ["--manifest", str(folder / "ucf101.csv"), "--split", "test2", "--masks", str(folder / "masks")]
    scuba += ["--mask-format", "npz", "--backgrounds", "stripes", "--seed", "0", "--out", str(folder / "stripes")]
    assert main(["scuba", *scuba]) == 0
    about = [f"model: {MODEL}", f"weights: hf-hub:{REPOSITORY}", "device: cpu", f"settings: {json.dumps(SETTINGS)}"]
    about += [*lists, "scuba: {ucf101: {stripes: {list: stripes/scuba.txt, root: stripes}}}"]
    write(folder / "data.yaml", about)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of the run, its exit code, what it said, what the hub gave; 20 GB of trajectories are removed."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    where = ["--reports", str(folder / "reports"), "--runs", str(folder / "runs")]
    command = [sys.executable, "-m", "mede_core", "reproduce", "--profile", "paper", "--data", str(data / "data.yaml")]
    command += ["--jobs", str(min(2, available_cpus()))]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    with Hub() as hub:
        about = {"model_cfg": open_clip.get_model_config(MODEL)}
        hub.files[f"{REPOSITORY}/open_clip_config.json"] = json.dumps(about).encode()
        hub.files[f"{REPOSITORY}/open_clip_model.safetensors"] = save(open_clip.create_model(MODEL).state_dict())
        environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([*command, *where], env=environment, capture_output=True, text=True)
        for run in (folder / "runs").glob("*-*"):
            shutil.rmtree(run)
        yield folder, done.returncode, done.stdout + done.stderr, [name for name, _ in hub.gets]


def test_every_table_of_the_paper_comes_out_and_says_that_it_means_nothing(whole):
    folder, code, said, fetched = whole
    assert code == 0, said
    out = folder / "reports" / "paper"
    steps = json.loads((out / "manifest.json").read_text())["steps"]
    assert {step["status"] for step in steps.values()} == {"done"} and len(steps) == 120
    assert fetched == ["open_clip_config.json", "open_clip_model.safetensors"]
    tables = {file.stem: file.read_text() for file in (out / "tables").glob("*.md")}
    assert {name for name in tables if name[:2] != "11"} == OURS | NOT_OURS and len(tables) == 17 + 48
    for name, text in tables.items():
        assert name in NOT_OURS or "RANDOM WEIGHTS: these numbers mean nothing" in text, name
    for name in (name for name in tables if name in COMPARED or name[:2] == "11"):
        assert "Not comparable with the paper: random weights; model=ViT-B-32;" in tables[name], name


def test_every_clip_is_scored_and_every_score_says_what_departs(whole):
    records = [one for file in (whole[0] / "runs" / "scores").glob("*.jsonl") for one in read_lines(file)]
    assert {one["set"] for one in records} == {"ucf101", "hmdb51", "kinetics400", "kinetics600", "ssv2"}
    assert {one["skipped"] for one in records} == {0} and {one["views"] for one in records} == {3}
    assert all(one["departs"].startswith("random weights; model=ViT-B-32;") for one in records)
