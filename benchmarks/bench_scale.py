"""Lists of a million videos, and two processes beside one: `python benchmarks/bench_scale.py [--rows 1000000]`.

The list is a prepared one (`path,label,split,frames,duration,timeline` and its JSON), its videos are links to one file.
Each line says how long a step took and the most memory that the process has held so far.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
import time
from itertools import islice
from pathlib import Path

from torch.utils.data import RandomSampler

from mede_core.distributed import RankShare


def write_list(folder: Path, rows: int, classes: int = 400) -> Path:
    """A prepared list whose videos all exist."""
    video = folder / "one.mp4"
    video.write_bytes(b"never read here")
    names = [f"class {number:03d}" for number in range(classes)]
    for name in names:
        (folder / name).mkdir()
    with open(folder / "list.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "frames", "duration", "timeline"])
        for row in range(rows):
            name = names[row % classes]
            path = folder / name / f"{row}.mp4"
            path.symlink_to(video)
            split = "val" if row % 20 == 0 else "train"
            writer.writerow([f"{name}/{row}.mp4", name, split, 300, 10.0, "decord 300 30 0"])
    about = {"dataset": "scale", "root": str(folder), "classes": names, "base": names[::2], "novel": names[1::2]}
    (folder / "list.json").write_text(json.dumps(about), encoding="utf-8")
    return folder / "list.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    from mede_core.video.clips import VideoDataset
    from mede_core.video.manifest import select

    def told(what: str, work):
        started = time.perf_counter()
        made = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{what:52}{time.perf_counter() - started:8.1f} s{peak:9.0f} MiB", flush=True)
        return made

    with tempfile.TemporaryDirectory() as folder:
        path = told(f"write a list of {options.rows:,} videos", lambda: write_list(Path(folder), options.rows))
        chosen = told("read and select its training rows", lambda: select(path, split="train"))
        told("16 videos of each base class", lambda: select(path, split="train", half="base", shots=16))
        clips = told("a dataset of them", lambda: VideoDataset(chosen, 8, 224, train=True))
        told("an epoch's order", lambda: list(RandomSampler(clips)))
        share = RankShare(RandomSampler(clips))
        told("... and go on in the middle of it", lambda: next(islice(iter(share), len(clips) // 2, None)))


if __name__ == "__main__":
    main()
