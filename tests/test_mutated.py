"""Damaged videos: whatever happened to the bytes of a real clip, reading gives frames or an error of ours, in time."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clips import real_clips

DATA = Path(__file__).parent / "data"
SECONDS = 60  # for one file, far more than any takes


def mutated(data, draw):
    """Bytes with a few faults of the kinds that disks, downloads and bad muxers make."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = int(len(data) * (draw.random() ** draw.choice((1, 6))))  # headers stand at the beginning
        length = min(draw.choice((1, 4, 16, 200, 5000)), len(data) - place)
        kind = draw.choice(("noise", "zeros", "cut", "drop", "double", "ones", "swap"))
        if kind == "cut":
            del data[max(place, 1) :]
        elif kind == "drop":
            del data[place : place + length]
        elif kind == "double":
            data[place:place] = data[place : place + length]
        elif kind == "swap":
            other = draw.randrange(len(data) - length + 1)
            data[place : place + length], data[other : other + length] = (
                data[other : other + length], data[place : place + length])  # fmt: skip
        else:
            filler = {"noise": draw.randbytes(length), "zeros": bytes(length), "ones": b"\xff" * length}
            data[place : place + length] = filler[kind]
    return bytes(data)


def read_mutated(folder, sources, seeds):
    """Mutate and read, as a child process: a crash or a hang of a library must not take the tests with it."""
    import faulthandler

    from mede_core.video.clips import clip_indices
    from mede_core.video.decode import VideoError, probe, read_clip

    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    sources, counts = [Path(source) for source in sources], {"read": 0, "refused": 0}
    for seed in seeds:
        draw = random.Random(seed)
        source = draw.choice(sources)
        path = Path(folder) / f"{seed}{source.suffix}"
        path.write_bytes(mutated(source.read_bytes(), draw))
        print(f"seed {seed} of {source.name}", file=sys.stderr)  # the last line names what crashed
        signal.alarm(SECONDS)
        try:
            info = probe(path, full=draw.random() < 0.5)
            sampling = "uniform" if info.fps <= 0 else draw.choice(("uniform", "dense"))
            for view in range(2):
                frames = read_clip(path, clip_indices(info, 4, sampling, view=view, views=2), info=info)
                assert frames.shape == (4, info.height, info.width, 3), (seed, frames.shape, info)
            counts["read"] += 1
        except VideoError as error:
            said = str(error)
            counts["refused" if path.name in said and "\n" not in said else said] = counts["refused"] + 1
        signal.alarm(0)
        path.unlink()
    print(json.dumps(counts))


def run(tmp_path, seeds):
    try:
        sources = sorted(path for path in real_clips().rglob("*.*") if path.suffix != ".md")
    except pytest.skip.Exception:
        sources = []
    sources = [*sources, DATA / "trimmed_without_reencoding.mp4", DATA / "browser_recording.webm"]
    code = "from test_mutated import read_mutated; "
    code += f"read_mutated({str(tmp_path)!r}, {list(map(str, sources))!r}, {seeds!r})"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DATA.parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert len(counts) == 2 and min(counts.values()) > len(seeds) / 20, counts  # or nothing would be proved


def test_200_mutated_clips_are_read_or_refused(tmp_path):
    run(tmp_path, range(200))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_thousands_of_mutated_clips_are_read_or_refused(tmp_path, part):
    run(tmp_path, range(1000 * part + 1000, 1000 * part + 1500))
