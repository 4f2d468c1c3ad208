"""Still backgrounds for out-of-context clips: pictures of a folder (such as Places365), noise, sinusoidal stripes."""

import hashlib
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ..lists import is_hidden

KINDS = ("noise", "stripes")
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises on bad files
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_TRIES = 50  # unreadable pictures in a row before a folder is given up


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
