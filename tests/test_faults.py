"""Killed at twenty random moments, on a full disk, with a damaged checkpoint: nothing is lost, nothing is half."""

import contextlib
import functools
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from clips import make_clip, write_csv
from mask_files import alpha

from mede_core.config import EvalSet, load_config
from mede_core.workspace import Workspace

TINY = {"epochs": 3, "warmup_epochs": 1, "train_clips": 144, "test_clips": 144, "batch_size": 16}
FLAGS = " ".join(["--profile=smoke", *(f"--{name.replace('_', '-')}={value}" for name, value in TINY.items())])
VERBS = {
    "train": f"train {FLAGS} --runs=FOLDER",
    "evaluate": "evaluate --profile=smoke --method=frozen --test-clips=144 --runs=FOLDER",  # scoring alone
    "prepare": "prepare --dataset=folder --root=videos --short-side=96 --jobs=2 --out=FOLDER/list.csv",
    "scuba": "scuba --manifest=videos.csv --masks=masks --mask-format=npz --no-area-rule --backgrounds=stripes "
    "--per-video=4 --seed=0 --out=FOLDER",
    "reproduce": "reproduce --profile=smoke --only=out_of_context --reports=FOLDER/reports --runs=FOLDER/runs",
}


@pytest.fixture(scope="module", autouse=True)
def sources(tmp_path_factory):
    """The working directory: videos of two classes, larger than what is asked, and their masks."""
    with contextlib.chdir(tmp_path_factory.mktemp("sources")):
        for folder in ("videos/run", "videos/swim", "masks"):
            Path(folder).mkdir(parents=True)
        rows = [(f"videos/{name}/{name}{number}.mp4", name) for name in ("run", "swim") for number in range(8)]
        for file, _ in rows:
            make_clip(file, 60, sizes=((256, 192),))
            np.savez_compressed(f"masks/{Path(file).stem}.npz", alpha(60, 192, 256))
        write_csv("videos.csv", rows)
        yield


def command(verb, folder):
    words = VERBS[verb].replace("FOLDER", str(folder)).split()
    return {"args": [sys.executable, "-m", "mede_core", *words], "env": {**os.environ, "MEDE_SHIPPED": "0"}}


def mede(verb, folder):
    """(exit code, what is said) of a verb that nobody stops."""
    done = subprocess.run(**command(verb, folder), capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def bits(folder):
    """What a verb left that holds no time of day, without the commit that stands in scores."""
    found, kinds = {}, (".safetensors", ".jsonl", ".csv", ".mp4", ".jpg", ".txt")
    for file in sorted(Path(folder).rglob("[!.]*")):
        if file.suffix in kinds and "text_features" not in file.parts:
            bare = re.sub(rb'"commit": "[^"]*"', b"", file.read_bytes())
            found[str(file.relative_to(folder))] = hashlib.sha256(bare).hexdigest()
    return found


@functools.cache
def whole(verb):
    """How long a verb takes and what it leaves where nothing goes wrong."""
    started, folder = time.monotonic(), Path(f"whole-{verb}").absolute()
    code, said = mede(verb, folder)
    assert code == 0, said
    return time.monotonic() - started, bits(folder)


@pytest.mark.parametrize(
    ("verb", "times"),
    [("prepare", 1), ("evaluate", 1), *(pytest.param(verb, 20, marks=pytest.mark.slow) for verb in VERBS)],
)
def test_killed_at_random_moments_it_ends_with_the_same_bits(verb, times, tmp_path):
    (seconds, expected), moments, killed = whole(verb), random.Random(0), 0
    while killed < times:
        process = psutil.Popen(**command(verb, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.2, 0.9) * seconds)
        except psutil.TimeoutExpired:
            below, killed = process.children(recursive=True), killed + 1
            process.kill()
            assert psutil.wait_procs([process, *below], timeout=10)[1] == []  # nothing runs on
        else:  # it got through between two kills: once more from the start
            assert bits(tmp_path) == expected
            shutil.rmtree(tmp_path)
    assert (mede(verb, tmp_path)[0], bits(tmp_path)) == (0, expected)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_is_there_goes_on_when_there_is_room(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        code, said = mede("train", small)
        assert code == 2 and said.strip().splitlines()[-1].startswith("error: "), said
        assert "No space left on device" in said
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert mede("train", small)[0] == 0
        assert bits(small) == whole("train")[1]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_no_number_comes_of_it(tmp_path):
    assert mede("train", tmp_path)[0] == 0
    last = max(tmp_path.glob("meta-*/epoch_*.safetensors"))
    last.write_bytes(last.read_bytes()[:-100])
    workspace = Workspace(tmp_path, shipped=False)
    config = load_config("smoke", method="open_mede", **TINY)
    with pytest.raises(Exception, match=last.name):
        workspace.scores(config, [EvalSet(clips=24)])
    assert not list(tmp_path.glob("scores/*"))
