"""Masks of small videos for the tests of SCUBA: a box that moves to the right."""

import numpy as np
from PIL import Image

FRAMES, WIDTH, HEIGHT = 12, 64, 32


def block(frame):
    """The foreground of a frame: a box of 20x12 pixels that moves to the right."""
    return 4 + frame, 8, 20, 12  # x, y, w, h


def alpha(frames=FRAMES, height=HEIGHT, width=WIDTH):
    masks = np.zeros((frames, height, width), np.uint8)
    for frame in range(frames):
        x, y, w, h = block(frame)
        masks[frame, y : y + h, x : x + w] = 255
    return masks


def put(folder, frames, first=1):
    folder.mkdir(parents=True)
    for frame in frames:
        Image.fromarray(alpha()[frame]).save(folder / f"mask_{frame + first:03d}.png")
