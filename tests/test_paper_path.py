"""`make reproduce PROFILE=paper` with the project's own notebooks, on a tiny list of videos and the small CLIP."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import make_clip

STEP = "evaluate_16shot_ucf101_open_mede"  # it needs the training step of the same name
CLASSES = ["Archery", "Bowling", "Diving", "Fencing"]
SETTINGS = """{epochs: 3, warmup_epochs: 1, steps_per_epoch: 2, batch_size: 2, views: 1, num_frames: 4,
           sampling: uniform, prompts: name, adapter_width: 8}"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A prepared list: four videos a class, of which one training video was deleted since."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for label in CLASSES:
        for number in range(4):
            name = f"{label} {number} [a&b].mp4"
            make_clip(folder / name, 8, sizes=((48, 48),))
            rows.append([name, label, "test1" if number == 3 else "train1", 8, 0.8])
    (folder / rows[0][0]).unlink()
    with open(folder / "ucf101.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "split", "frames", "duration"], *rows])
    about = {"dataset": "ucf101", "root": ".", "classes": CLASSES, "splits": {}, "counts": {}, "problems": []}
    halves = {"base": CLASSES[:2], "novel": CLASSES[2:], "base_novel_source": "a test", "comparable": False}
    (folder / "ucf101.json").write_text(json.dumps({**about, **halves}))
    (folder / "data.yaml").write_text(
        f"model: mede-small\nweights: shipped\nrandom_weights: true\ndevice: cpu\n"
        f"datasets: {{ucf101: ucf101.csv}}\nsettings: {SETTINGS}\n"
    )
    return folder


def command(data: Path, folder: Path) -> list[str]:
    where = ["--reports", str(folder / "reports"), "--runs", str(folder / "runs"), "--data", str(data / "data.yaml")]
    return [sys.executable, "-m", "mede_core.reproduce", "--profile", "paper", "--only", STEP, *where,
            "--cost-command", "false"]  # fmt: skip


def call(data: Path, folder: Path) -> str:
    done = subprocess.run(command(data, folder), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, call(data, folder)


def result_lines(folder: Path) -> list[dict]:
    path = folder / "reports" / "paper" / "results" / "16shot_ucf101_open_mede.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_method_is_trained_and_tested_and_its_numbers_say_that_they_mean_nothing(whole):
    folder, said = whole
    assert "hmdb51" in said and "missing" in said  # what is not here is named before the start
    records = result_lines(folder)
    assert {record["split"] for record in records} == {"base", "novel"}
    assert all("random weights" in record["departs"] and record["weights"] == "random" for record in records)
    assert all(record["set"] == "ucf101" and record["prompts"] == "name" and record["n"] == 2 for record in records)
    page = (folder / "reports" / "paper" / "tables" / "11_16shot_ucf101_open_mede.html").read_text()
    assert "RANDOM WEIGHTS" in page


def test_a_missing_training_video_is_named_and_left_out(whole):
    folder, _ = whole
    page = (folder / "reports" / "paper" / "gallery" / "notebook_train_16shot_ucf101_open_mede.html").read_text()
    log = "".join(path.read_text() for path in (folder / "reports" / "paper" / "logs").glob("train_16shot*"))
    assert "Archery 0 [a&b].mp4" in log + page.replace("&amp;", "&")


def test_killed_with_signal_9_it_goes_on_and_ends_with_the_same_numbers_and_bits(data, whole, tmp_path):
    process = subprocess.Popen(command(data, tmp_path), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if list((tmp_path / "runs").glob("paper/meta-*/state.pt")):
                break
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "reports" / "paper" / "results" / "16shot_ucf101_open_mede.jsonl").exists()
    call(data, tmp_path)
    assert result_lines(tmp_path) == result_lines(whole[0])
    tensors = sorted((tmp_path / "runs").glob("paper/meta-*/*.safetensors"))
    assert len(tensors) == 4  # three epochs and their Gaussian average
    for path in tensors:
        assert path.read_bytes() == (whole[0] / path.relative_to(tmp_path)).read_bytes(), path.name
