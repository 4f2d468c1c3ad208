"""What out-of-context clips are made of: masks of videos in the forms people have, and still backgrounds.

The published rule for UCF101-24 holds for all: frames outside the annotated span are dropped, gaps in it are empty.
"""

import hashlib
import math
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from ..lists import is_hidden, read_json

KINDS = ("noise", "stripes")
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises on bad files
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_TRIES = 50  # unreadable pictures in a row before a folder is given up
FORMATS = ("png", "npz", "boxes", "puppet")
_SLACK = 2  # annotated frames that a decoder may lack at a video's end; more is another video, or other numbering
_COLUMNS = ["video", "frame", "x", "y", "w", "h"]  # of a csv: pixels, frames from 1
_PROPORTIONS = 0.02  # how far a mask's proportions may be from the video's
_SAFE = {  # what numpy itself needs to rebuild arrays and numbers, under its old and its new module names
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
}  # fmt: skip


class MaskError(ValueError):
    """Why the mask of a video cannot be used."""


class NoMaskError(MaskError):
    """A video has no mask, or too little of one: it is left out (UCF101-24 annotates 24 of 101 classes)."""


@dataclass(frozen=True)
class ClipMasks:
    """Masks uint8 [T, H, W] (255 = foreground) of the frames that a clip keeps, from ``first`` (counted from 0) on."""

    first: int
    alpha: np.ndarray
    note: str = ""  # what was done beside the rules


class Masks:
    """A source of masks: a folder of ``png``, ``npz`` or ``puppet`` masks, or a file of ``boxes``."""

    def __init__(self, source: str | os.PathLike, kind: str, *, first_number: int = 1):
        self.source, self.kind, self.first_number = Path(source), kind, first_number
        if kind == "boxes":
            self.boxes = read_boxes(self.source)
        elif not self.source.is_dir():
            raise ValueError(f"masks {os.fspath(source)!r}: no such folder")

    def load(self, keys: Sequence[str], frames: int, height: int, width: int) -> ClipMasks:
        """The masks of one video at its size; ``keys`` are names under which it may be listed, best first."""
        readers = {"png": self._png, "npz": self._array, "puppet": self._puppet, "boxes": self._boxes}
        by_frame = readers[self.kind](keys, frames, height, width)
        late = [number for number in by_frame if number >= frames]
        if late and max(late) - frames >= _SLACK:
            raise MaskError(f"masks go up to frame {max(late) + 1}, the video has {frames} frames")
        note = f"masks of {len(late)} frames behind the video's end were dropped" if late else ""
        kept = [number for number in by_frame if number < frames]
        if not kept or not any(by_frame[number].any() for number in kept):
            raise MaskError("no foreground in any frame")
        first, last = min(kept), max(kept)
        alpha = np.zeros((last - first + 1, height, width), np.uint8)
        for number in kept:
            rows, columns = by_frame[number].shape
            if abs(columns / rows * height / width - 1) > _PROPORTIONS:
                raise MaskError(f"masks are {columns}x{rows}, the video {width}x{height}: other proportions")
            alpha[number - first] = nearest(by_frame[number], height, width)
        if alpha.min() == 255:
            raise MaskError("the masks cover every pixel: no background would show")
        return ClipMasks(first, alpha, note)

    def _find(self, names: Sequence[str]) -> Path:
        for name in names:
            if (self.source / name).exists():
                return self.source / name
        raise NoMaskError(f"no mask: none of {', '.join(names)} in {self.source.name}/")

    def _png(self, keys: Sequence[str], frames: int, *_size: int) -> dict[int, np.ndarray]:
        """A folder of numbered pictures for each video, or one picture for all frames."""
        found = self._find([*keys, *(f"{key}.png" for key in keys)])
        if found.is_file():
            return dict.fromkeys(range(frames), _stretched([_picture(found)])[0])
        numbered: dict[int, Path] = {}
        for file in sorted(file for file in found.glob("*.png") if not is_hidden(file.name)):
            match = re.search(r"(\d+)$", file.stem)
            if not match:
                raise MaskError(f"{file.name}: a mask's name must end in its frame's number")
            number = int(match[1]) - self.first_number
            if number < 0:
                raise MaskError(f"{file.name}: frames are counted from 1 (--first-mask 0 counts from 0)")
            if number in numbered:
                raise MaskError(f"{file.name} and {numbered[number].name} are masks of the same frame")
            numbered[number] = file
        if not numbered:
            raise MaskError(f"{found.name}/ holds no png")
        return dict(zip(numbered, _stretched([_picture(file) for file in numbered.values()])))

    def _array(self, keys: Sequence[str], frames: int, *_size: int) -> dict[int, np.ndarray]:
        found = self._find([f"{key}{suffix}" for key in keys for suffix in (".npz", ".npy")])
        try:
            with open(found, "rb") as stream:
                content = np.load(stream, allow_pickle=False)
                if not isinstance(content, np.ndarray):  # npz: an archive of arrays
                    only = content.files[0] if len(content.files) == 1 else "masks"
                    content = content["masks" if "masks" in content.files else only]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise MaskError(f"{found.name} cannot be read (one array, or `masks`): {error}") from error
        if content.ndim == 2:
            return dict.fromkeys(range(frames), _stretched([content])[0])
        if content.ndim != 3:
            raise MaskError(f"{found.name} is {content.shape}; expected [T, H, W] or [H, W]")
        return dict(enumerate(_stretched(list(content))))

    def _puppet(self, keys: Sequence[str], *_size: int) -> dict[int, np.ndarray]:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        found = self._find([f"{key}{suffix}" for key in keys for suffix in ("/puppet_mask.mat", ".mat")])
        try:
            content = loadmat(found, variable_names=["part_mask"])
        except (OSError, EOFError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
            raise MaskError(f"{found.name} cannot be read: {error}") from error
        part = content.get("part_mask")
        if part is None or part.ndim not in (2, 3):
            raise MaskError(f"{found.name}: no part_mask [H, W, T] in it")
        part = part if part.ndim == 3 else part[..., None]  # MATLAB drops the last axis of a one-frame clip
        return dict(enumerate(np.moveaxis(np.where(part > 0, np.uint8(255), np.uint8(0)), 2, 0)))

    def _boxes(self, keys: Sequence[str], _frames: int, height: int, width: int) -> dict[int, np.ndarray]:
        key = next((key for key in keys if key in self.boxes), None)
        if key is None:
            raise NoMaskError(f"no boxes: none of {', '.join(keys)} in {self.source.name}")
        said = f"{key} in {self.source.name}"
        try:
            rows = np.asarray(_rows(self.boxes[key]), dtype=float)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise MaskError(f"{said}: boxes cannot be read: {type(error).__name__}: {error}") from error
        if rows.size == 0:
            raise MaskError(f"{said}: no boxes")
        if rows.ndim != 2 or rows.shape[1] != 5:
            raise MaskError(f"{said}: boxes are {rows.shape}; expected rows of frame, x, y, w, h")
        bad = ~np.isfinite(rows).all(1) | (rows[:, 0] < 0) | (rows[:, 3:] <= 0).any(1)
        if bad.any():
            box = f"box {rows[bad][0].tolist()} (frame from 0, x, y, w, h)"
            raise MaskError(f"{said}: {box}: frame, width or height out of range")
        by_frame: dict[int, np.ndarray] = {}
        for number, x, y, w, h in rows:
            alpha = by_frame.setdefault(int(number), np.zeros((height, width), np.uint8))
            top, left = max(0, round(float(y))), max(0, round(float(x)))
            alpha[top : max(0, round(float(y + h))), left : max(0, round(float(x + w)))] = 255
        if not any(alpha.any() for alpha in by_frame.values()):
            raise MaskError(f"no box of {key} touches the {width}x{height} picture: boxes of another video size?")
        return by_frame


def _picture(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            image.load()
    except IMAGE_ERRORS as error:
        raise MaskError(f"{file.name} cannot be read: {error}") from error
    if image.mode not in ("P", "1", "L", "RGB"):
        raise MaskError(f"{file.name} has mode {image.mode}; expected gray, black and white, or a palette")
    if image.mode == "P":  # a palette: number 0 is the background
        return np.asarray(image) > 0
    return np.asarray(image.convert("L") if image.mode == "RGB" else image)


def _stretched(masks: list[np.ndarray]) -> list[np.ndarray]:
    """uint8 0..255 from bool, 0..1 or 0..255; which of them is decided over all frames of a video."""
    if not masks:
        raise MaskError("no mask of any frame")
    kind = masks[0].dtype.kind
    if kind == "b":
        return [mask * np.uint8(255) for mask in masks]
    if kind not in "uif" or not all(np.isfinite(mask).all() for mask in masks):
        raise MaskError(f"masks are {masks[0].dtype}; expected bool, 0 to 1, or 0 to 255, all finite")
    low, high = min(mask.min() for mask in masks), max(mask.max() for mask in masks)
    if low < 0 or high > (1 if kind == "f" else 255):
        raise MaskError(f"masks run from {low} to {high}; allowed: bool, floats 0 to 1, or integers 0 to 255")
    scale = 255 if high <= 1 else 1
    return [np.rint(mask.astype(np.float64) * scale).astype(np.uint8) for mask in masks]


def nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask uint8 [h, w] at another size, by its nearest pixels, so that no new values come up."""
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


# ------------------------------------------------------------------------------------ boxes
def read_boxes(path: Path) -> dict:
    """{video: its boxes, in one of the forms that :func:`_rows` reads}."""
    damaged = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError)  # of a pickle
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, skipinitialspace=True, keep_default_na=False)
            if lacking := [name for name in _COLUMNS if name not in table]:
                raise ValueError(f"no column {', '.join(lacking)}; expected {','.join(_COLUMNS)}")
            content = {video: rows[_COLUMNS[1:]] for video, rows in table.groupby("video")}
        elif path.suffix == ".json":
            content = read_json(path, "boxes")
        else:
            with open(path, "rb") as stream:  # latin1: UCF101-24's file was pickled by Python 2
                content = _ArraysOnly(stream, encoding="latin1").load()
    except (OSError, ValueError, *damaged) as error:
        raise ValueError(f"boxes {os.fspath(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"boxes {os.fspath(path)!r} hold a {type(content).__name__}; expected {{video: boxes}}")
    tubes = content.get("gttubes")
    entries = content if tubes is None else {video: {"corners": entry} for video, entry in tubes.items()}
    return {str(video): entry for video, entry in entries.items()}


class _ArraysOnly(pickle.Unpickler):
    """Unpickling runs whatever code a file names: anything but plain values and numpy arrays is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only plain values and numpy arrays are allowed")
        return super().find_class(module, name)


def _rows(entry) -> np.ndarray:
    """Rows (frame from 0, x, y, w, h) from either UCF101-24 annotation in use or plain [frame from 1, x, y, w, h]."""
    if isinstance(entry, dict) and "corners" in entry:  # {label: [array [n, 5]: frame from 1, x1, y1, x2, y2]}
        rows = np.concatenate([np.asarray(tube, float) for many in entry["corners"].values() for tube in many])
        return np.column_stack([rows[:, 0] - 1, rows[:, 1:3], rows[:, 3:5] - rows[:, 1:3]])
    if not isinstance(entry, dict):
        rows = np.asarray(entry).astype(float)
        return rows - np.eye(1, 5) if rows.ndim == 2 and rows.shape[1] == 5 else rows
    parts = []
    for tube in entry["annotations"]:  # sf counts from 0, ef is the frame behind the last
        boxes, first, end = np.asarray(tube["boxes"], float).reshape(-1, 4), int(tube["sf"]), int(tube["ef"])
        if len(boxes) not in (end - first, end - first + 1):
            raise ValueError(f"{len(boxes)} boxes for frames sf={first} to ef={end}")
        parts.append(np.column_stack([np.arange(first, first + len(boxes)), boxes]))
    return np.concatenate(parts)


# ------------------------------------------------------------------------------------ backgrounds
class Background(NamedTuple):
    """A drawn background, uint8 [H, W, 3]; the picture's path in its folder, or what was drawn; unreadable pictures."""

    pixels: np.ndarray
    name: str
    skipped: dict[str, str]


class Backgrounds:
    """A source of backgrounds: ``noise``, ``stripes``, or a folder of pictures, searched with its subfolders."""

    def __init__(self, source: str | os.PathLike):
        self.folder, self.id = Path(source), str(source)
        if self.id in KINDS:
            return
        if not self.folder.is_dir():
            raise ValueError(f"backgrounds is {os.fspath(source)!r}; allowed: a folder, {', '.join(KINDS)}")
        found = (path for path in self.folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        names = sorted(path.relative_to(self.folder).as_posix() for path in found)
        self.pictures = [name for name in names if not any(map(is_hidden, name.split("/")))]
        if not self.pictures:
            raise ValueError(f"backgrounds {os.fspath(source)!r} holds no picture ({', '.join(sorted(_SUFFIXES))})")
        names = "\n".join(self.pictures).encode("utf-8", "surrogateescape")
        self.id = f"pictures:{len(self.pictures)}:{hashlib.sha256(names).hexdigest()[:12]}"

    def draw(self, generator: np.random.Generator, height: int, width: int) -> Background:
        """Draw one background; a picture is stretched to the size. Paper does not say the filter: we chose bicubic."""
        if self.id in KINDS:
            return Background({"noise": noise, "stripes": stripes}[self.id](generator, height, width), self.id, {})
        skipped: dict[str, str] = {}
        for _ in range(_TRIES):
            name = self.pictures[int(generator.integers(len(self.pictures)))]
            try:
                with Image.open(self.folder / name) as image:
                    upright = ImageOps.exif_transpose(image).convert("RGB")
                    pixels = np.array(upright.resize((width, height), Image.Resampling.BICUBIC))
            except IMAGE_ERRORS as error:
                skipped[name] = f"cannot be read: {type(error).__name__}"
                continue
            return Background(pixels, name, skipped)
        raise ValueError(f"backgrounds: {_TRIES} pictures in a row cannot be read: {', '.join(sorted(skipped)[:5])}")


def noise(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Our own texture, uint8 [H, W, 3]: random colors on a coarse and a fine grid, interpolated and mixed."""
    # No replica of the published VQGAN-CLIP pictures, which cannot be rebuilt.
    layers = []
    for low, high in ((1 / 16, 1 / 4), (1 / 64, 1 / 16)):
        grain = max(1.0, min(height, width) * generator.uniform(low, high))
        rows, columns = max(2, math.ceil(height / grain)), max(2, math.ceil(width / grain))
        grid = Image.fromarray(generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8))
        layers.append(np.asarray(grid.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float64))
    share = generator.uniform(0.3, 0.7)
    return np.rint(share * layers[0] + (1 - share) * layers[1]).astype(np.uint8)


def stripes(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wavy stripes in a random color and its complement, uint8 [H, W, 3]: SCUBA's procedural backgrounds."""
    color = generator.integers(0, 256, 3, dtype=np.uint8)
    line, amplitude = generator.uniform(5, 20), generator.uniform(10, 110)
    # The length of a wave is not in our source: we draw 1/4 to 1 of the longer side.
    wave, phase = max(height, width) * generator.uniform(0.25, 1), generator.uniform(0, 2 * math.pi)
    angle = generator.uniform(0, math.pi)
    y, x = np.mgrid[:height, :width]
    along = math.cos(angle) * x + math.sin(angle) * y
    across = math.cos(angle) * y - math.sin(angle) * x
    band = np.floor((across + amplitude * np.sin(2 * math.pi * along / wave + phase)) / line)
    return np.where((band % 2 == 0)[..., None], color, 255 - color).astype(np.uint8)
