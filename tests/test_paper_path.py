"""`make reproduce PROFILE=paper` with the project's own notebooks, on a tiny list of videos and the small CLIP."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from clips import make_clip, write_csv

from mede_core.files import read_lines

JOB = "evaluate_16shot_ucf101_open_mede"
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
    write_csv(folder / "ucf101.csv", [["path", "label", "split", "frames", "duration"], *rows])
    about = {"dataset": "ucf101", "root": ".", "classes": CLASSES, "splits": {}, "counts": {}, "problems": []}
    halves = {"base": CLASSES[:2], "novel": CLASSES[2:], "base_novel_source": "a test", "comparable": False}
    (folder / "ucf101.json").write_text(json.dumps({**about, **halves}))
    (folder / "data.yaml").write_text(
        f"model: mede-small\nweights: shipped\nrandom_weights: true\ndevice: cpu\n"
        f"datasets: {{ucf101: ucf101.csv}}\nsettings: {SETTINGS}\n"
    )
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of a run, without the timing of steps before it, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    where = ["--reports", str(folder / "reports"), "--runs", str(folder / "runs"), "--data", str(data / "data.yaml")]
    code = "import sys; from mede_core.batch import cost; cost.COMMAND = ['false']; "
    code += "from mede_core.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "reproduce", "--profile", "paper", "--only", JOB, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_a_method_is_trained_and_tested_and_its_numbers_say_that_they_mean_nothing(whole):
    folder, said = whole
    assert "hmdb51" in said and "missing" in said and "no estimate" in said  # said before the start
    records = [one for file in (folder / "runs" / "scores").glob("*.jsonl") for one in read_lines(file)]
    assert {record["split"] for record in records} == {"base", "novel"}
    assert all("random weights" in one["departs"] and one["weights"] == "random" for one in records)
    assert all(one["set"] == "ucf101" and one["n"] == 2 for one in records)
    page = (folder / "reports" / "paper" / "tables" / "11_16shot_ucf101_open_mede.html").read_text()
    assert "RANDOM WEIGHTS" in page


def test_a_missing_training_video_is_named_and_left_out(whole):
    logs = "".join(path.read_text() for path in (whole[0] / "reports" / "paper" / "logs").glob("meta-*.log"))
    assert "Archery 0 [a&b].mp4" in logs
