"""The datasets people have on disk, in one form: ``python -m mede_core.video.datasets prepare ...``, then ``select``.

``prepare`` writes a manifest (CSV: path, label, split, frames, duration) and beside it a JSON file with the classes,
the base/novel split, counts against the expected ones, and all problems. ``select`` reads a part of it. No torch.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .manifest import Manifest, ManifestError, check_present, read_manifest, unknown_label
from .prepare import CHECKS, COLUMNS, DATASETS, Prepared, prepare
from .splits import few_shot

__all__ = ["DATASETS", "HALVES", "Prepared", "prepare", "read_sidecar", "select"]

log = logging.getLogger("mede_core.video.datasets")  # also where this module is __main__

HALVES = ("all", "base", "novel")


def read_sidecar(path: str | os.PathLike) -> dict | None:
    """The JSON file beside a prepared manifest.

    Args:
        path: the CSV.

    Returns:
        its content, or None where there is no such file.

    Raises:
        ValueError: it cannot be read, lacks a key, or belongs to another version of the CSV.
    """
    csv_path = Path(path)
    file = csv_path.with_suffix(".json")
    if not file.is_file():
        return None
    try:
        sidecar = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(file)!r} is not JSON: {error}; run prepare again") from error
    lacking = [key for key in ("root", "classes") if not isinstance(sidecar, dict) or key not in sidecar]
    if lacking:
        raise ValueError(f"{os.fspath(file)!r} lacks {', '.join(lacking)}; it must be what prepare wrote")
    stamp = sidecar.get("csv_sha256")
    if stamp and stamp != hashlib.sha256(csv_path.read_bytes()).hexdigest():
        raise ValueError(f"{os.fspath(file)!r} belongs to another version of {csv_path.name}; run prepare again")
    return sidecar


def select(csv: str | os.PathLike, *, split: str = "all", half: str = "all", shots: int = 0, seed: int = 0) -> Manifest:
    """A part of a prepared manifest, or of a plain ``path,label`` CSV (one split, ``all``, and no halves).

    Args:
        csv: the manifest.
        split: a name in its split column, or ``all``.
        half: ``all``, ``base`` or ``novel`` classes; class ids restart at 0 within a half.
        shots: videos of each class, drawn by the seed; 0 takes all.
        seed: of the draw.

    Returns:
        the manifest, with the lengths where ``prepare`` wrote them.

    Raises:
        ManifestError: labels that are no class, no video, or none of the files there.
        ValueError: an argument out of range, no such CSV, or a sidecar that does not belong to it.
    """
    path = Path(csv)
    if half not in HALVES:
        raise ValueError(f"half is {half!r}; allowed: {', '.join(HALVES)}")
    if shots < 0:
        raise ValueError(f"shots is {shots}; it must be at least 0")
    if not path.is_file():
        raise ValueError(f"manifest {os.fspath(path)!r}: no such file")
    sidecar = read_sidecar(path)
    if sidecar is None:
        if split != "all" or half != "all":
            what = f"split {split!r}" if split != "all" else f"half {half!r}"
            raise ValueError(f"{os.fspath(path)!r} was not prepared (no {path.stem}.json), so it has no {what}")
        manifest, names = read_manifest(path), None
    else:
        manifest, names = _select_rows(path, sidecar, split, half)
    if shots:
        texts = names or [os.fspath(file) for file in manifest.paths]
        chosen = few_shot(texts, [manifest.class_names[label] for label in manifest.labels], shots, seed)
        fewest = min(Counter(manifest.labels[i] for i in chosen).values())
        if fewest < shots:
            log.warning("%s: a class has only %d of %d shots", path, fewest, shots)
        manifest = Manifest(
            [manifest.paths[i] for i in chosen], [manifest.labels[i] for i in chosen], manifest.class_names, path,
            manifest.lengths and [manifest.lengths[i] for i in chosen],
        )  # fmt: skip
    return manifest


def _select_rows(path: Path, sidecar: dict, split: str, half: str) -> tuple[Manifest, list[str]]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    if not {"path", "label", "split"} <= set(reader.fieldnames or ()):
        raise ValueError(f"manifest {os.fspath(path)!r} lacks columns; expected {','.join(COLUMNS)}")
    known = sorted({name for row in rows for name in row["split"].split()})
    if split not in ("all", *known):
        raise ValueError(f"split is {split!r}; allowed for {path.name}: all, {', '.join(known)}")
    classes = list(sidecar["classes"])
    unknown = sorted({row["label"] for row in rows} - set(classes))
    if unknown:
        raise ManifestError(path, [unknown_label(label, classes) for label in unknown])
    names = sidecar.get("splits", {}).get(split, {}).get("classes", classes)
    if half != "all":
        if not sidecar.get(half):
            raise ValueError(f"half is {half!r}, but {path.stem}.json holds no base/novel split; see its source line")
        names = [name for name in names if name in set(sidecar[half])]
    index = {name: i for i, name in enumerate(names)}
    rows = [r for r in rows if r["label"] in index and (split == "all" or split in r["split"].split())]
    root = path.parent / sidecar["root"]
    known_lengths = bool(rows) and all(row.get("frames") for row in rows)
    lengths = [(int(r["frames"]), float(r["duration"] or 0)) for r in rows] if known_lengths else None
    files, labels = [root / row["path"] for row in rows], [index[row["label"]] for row in rows]
    manifest = Manifest(files, labels, names, path, lengths)
    check_present(manifest, root)
    if problems := sidecar.get("problems"):
        log.warning("%s: prepared with %d problems, listed in %s.json", path, len(problems), path.stem)
    return manifest, [row["path"] for row in rows]


# ------------------------------------------------------------------------------------ the command line
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mede_core.video.datasets", description=__doc__.splitlines()[0])
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "prepare",
        help="make a manifest of a dataset on disk",
        description="Make a manifest (CSV and JSON) of a dataset on disk; a bad file never stops it.",
        epilog="exit codes: 0 every video that the annotations name is usable and all counts are as expected; "
        "1 there are problems (missing, undecodable or contradictory files, bad annotation lines, unexpected counts, "
        "base/novel lists that do not fit): the manifest of the usable videos is written all the same, unless not "
        "one video is usable; 2 wrong arguments or no annotations",
    )
    command.add_argument("--dataset", required=True, choices=DATASETS)
    command.add_argument("--root", required=True, metavar="DIR", help="folder of the videos")
    command.add_argument("--annotations", metavar="DIR", help="annotation files (default: searched below the root)")
    command.add_argument("--out", required=True, metavar="FILE.csv")
    command.add_argument("--classes", metavar="FILE", help="index->class file, for --dataset list")
    command.add_argument("--splits", nargs="+", default=(), metavar="NAME", help="these alone, for example: val")
    command.add_argument("--base", metavar="FILE", help="published list of the base classes")
    command.add_argument("--novel", metavar="FILE", help="published list of the novel classes")
    command.add_argument(
        "--zero-shot", nargs="+", default=(), metavar="FILE", help="class lists of kinetics600's splits test1, ..."
    )
    command.add_argument(
        "--check", choices=CHECKS, default="full",
        help="full: decode every file (0.1 s a clip and thread); open: its beginning; none: only look if it is there",
    )  # fmt: skip
    command.add_argument("--workers", type=int, metavar="N", help="threads (default: one for each CPU, at most 8)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Args:
        arguments: default: those of the process.

    Returns:
        the exit code: 0 all usable, 1 problems, 2 wrong arguments.
    """
    args = vars(_parser().parse_args(arguments))
    args.pop("command")
    decoder = logging.getLogger("mede_core.video.decode")
    level = decoder.level
    decoder.setLevel(logging.ERROR)  # its remarks are in the report
    try:
        prepared = prepare(args.pop("dataset"), args.pop("root"), args.pop("out"), **args)
    except ManifestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    finally:
        decoder.setLevel(level)
    print(prepared.report())
    return 1 if prepared.problems else 0


if __name__ == "__main__":
    sys.exit(main())
