"""Killed at twenty random moments, on a full disk, with a damaged checkpoint: nothing is lost, nothing is half."""

import hashlib
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mede_core.config import EvalSet, load_config
from mede_core.workspace import Workspace

pytestmark = pytest.mark.slow
TINY = {"epochs": 3, "warmup_epochs": 1, "train_clips": 144, "test_clips": 144, "batch_size": 16}
ENVIRONMENT = {**os.environ, "MEDE_SHIPPED": "0"}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


def command(verb, folder):
    return [sys.executable, "-m", "mede_core", verb, "--profile", "smoke", "--runs", str(folder), *FLAGS]


def mede(verb, folder):
    """(exit code, what is said) of a verb that nobody stops."""
    done = subprocess.run(command(verb, folder), capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return done.returncode, done.stderr


def bits(folder):
    """What a training and its scores left: tensors, metrics, and the scores without the commit that stands in them."""
    found = {}
    for file in sorted(Path(folder).rglob("*")):
        if file.suffix in (".safetensors", ".jsonl") and "text_features" not in file.parts:
            content = re.sub(rb'"commit": "[^"]*"', b"", file.read_bytes())
            found[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{verb: (how long it takes, what it leaves)} where nothing goes wrong."""
    made = {}
    for verb in ("train", "evaluate"):
        folder, started = tmp_path_factory.mktemp(verb), time.monotonic()
        assert mede(verb, folder)[0] == 0
        made[verb] = time.monotonic() - started, bits(folder)
    return made


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(verb, whole, tmp_path):
    seconds, expected = whole[verb]
    moments = random.Random(0)
    for _ in range(20):
        process = subprocess.Popen(command(verb, tmp_path), env=ENVIRONMENT, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        try:
            process.wait(moments.uniform(0.2, 0.9) * seconds)
            break  # it got through between two kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert mede(verb, tmp_path)[0] == 0
    assert bits(tmp_path) == expected


def test_a_full_disk_is_one_line_and_what_is_there_goes_on_when_there_is_room(whole, tmp_path):
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
        assert bits(small) == whole["train"][1]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_damaged_checkpoint_is_named_and_no_number_comes_of_it(tmp_path):
    assert mede("train", tmp_path)[0] == 0
    last = max(tmp_path.glob("meta-*/epoch_*.safetensors"))
    last.write_bytes(last.read_bytes()[:-100])
    workspace = Workspace(tmp_path, shipped=False)
    config = load_config("smoke", method="open_mede", **TINY)
    with pytest.raises(Exception, match=last.name):
        workspace.scores(config, [EvalSet(clips=24)])
    assert not list(tmp_path.glob("scores/*"))
