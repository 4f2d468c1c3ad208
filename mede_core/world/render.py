"""Renders clips of the synthetic world, with exact actor masks; time runs over [-1, 1], so that reversals are exact."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Each actor's color and shape; colors are saturated, scenes are muted, so a small CLIP can name both.
SHAPES = (
    ("red", "star"), ("blue", "ball"), ("yellow", "box"), ("green", "ring"),
    ("purple", "cross"), ("white", "triangle"), ("orange", "moon"), ("cyan", "heart"),
)  # fmt: skip
COLORS = torch.tensor([
    [0.90, 0.12, 0.12], [0.15, 0.25, 0.95], [0.98, 0.90, 0.10], [0.10, 0.85, 0.20],
    [0.62, 0.12, 0.80], [0.97, 0.97, 0.97], [1.00, 0.55, 0.05], [0.10, 0.90, 0.92],
])  # fmt: skip
PAIRS = (
    ("rising", "falling"),
    ("moving left", "moving right"),
    ("orbiting clockwise", "orbiting counterclockwise"),
    ("growing", "shrinking"),
    ("appearing", "vanishing"),
    ("arriving", "leaving"),
)
SCENES = ("desert", "forest", "sea", "city")
NOISE, STRIPES, BLOBS, CHECKER, PLAIN = -1, -2, -3, -4, -5  # backgrounds without a name; the last three: pretraining
PALETTE = torch.tensor([  # [scene, light/dark, rgb]
    [[0.80, 0.68, 0.48], [0.62, 0.48, 0.32]],
    [[0.36, 0.48, 0.30], [0.16, 0.28, 0.18]],
    [[0.50, 0.66, 0.76], [0.26, 0.42, 0.56]],
    [[0.62, 0.60, 0.62], [0.36, 0.35, 0.40]],
])  # fmt: skip
TEXTURE_ZOOM = torch.tensor([1.0, 0.65, 1.5])  # of the source set, and of the two transfer sets: coarser and finer
CHUNK = 256  # clips rendered at once: small enough for the cache of a laptop


def render(spec, *, num_frames: int = 8, size: int = 32, still: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Videos uint8 [N, T, 3, H, W] of a ``ClipSpec`` and masks bool [N, T, H, W]; ``still`` [N]: only this frame."""
    drawn = num_frames if still is None else 1
    videos = torch.empty(len(spec), drawn, 3, size, size, dtype=torch.uint8)
    masks = torch.empty(len(spec), drawn, size, size, dtype=torch.bool)
    for start in range(0, len(spec), CHUNK):
        part = spec[slice(start, start + CHUNK)]
        path = trajectories(part, num_frames)
        if still is not None:
            chosen = torch.from_numpy(still[start : start + CHUNK])[:, None]
            path = tuple(values.gather(1, chosen) for values in path)
        x, y, scale, opacity = path
        coverage, color = _actors(part, x, y, scale, size)  # [n, T, H, W], [n, T, 3, H, W] or broadcastable
        alpha = (coverage * opacity[:, :, None, None]).unsqueeze(2)
        frames = torch.lerp(_backgrounds(part, size).unsqueeze(1), color, alpha)
        videos[start : start + CHUNK] = frames.mul_(255).round_().clamp_(0, 255).byte()
        masks[start : start + CHUNK] = coverage > 0.5
    return videos, masks


def trajectories(spec, num_frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the actor is, in units of the frame (0..1), its scale and its opacity, each [N, T]."""
    t = torch.linspace(-1, 1, num_frames)
    sign = torch.from_numpy(1.0 - 2.0 * (spec.motion % 2)).float()  # the odd motion of a pair: time negated
    s = sign[:, None] * t * torch.from_numpy(spec.speed).float()[:, None]  # [N, T]
    u = torch.from_numpy(spec.geometry).float()  # [N, 8]
    pair = torch.from_numpy(spec.motion // 2)
    x = (0.5 + 0.36 * (u[:, 0] - 0.5))[:, None].expand_as(s).clone()
    y = (0.5 + 0.36 * (u[:, 1] - 0.5))[:, None].expand_as(s).clone()
    scale = (0.9 + 0.2 * u[:, 2])[:, None].expand_as(s).clone()
    opacity = torch.ones_like(s)
    reach = (0.30 + 0.08 * u[:, 3])[:, None]

    def on(index):
        return (pair == index)[:, None].expand_as(s)

    y = torch.where(on(0), 0.5 + 0.08 * (u[:, 4:5] - 0.5) - reach * s, y)
    x = torch.where(on(1), 0.5 + 0.08 * (u[:, 4:5] - 0.5) - reach * s, x)
    start = 2 * math.pi * u[:, 5:6]
    angle = start + math.pi * (0.75 + 0.2 * u[:, 6:7]) * s  # y points down, so a growing angle turns clockwise
    radius = 0.24 + 0.05 * u[:, 3:4]
    x = torch.where(on(2), 0.5 + radius * angle.cos(), x)
    y = torch.where(on(2), 0.5 + radius * angle.sin(), y)
    scale = torch.where(on(3), scale * (1.0 + 0.55 * s), scale)
    opacity = torch.where(on(4), (0.55 + 0.45 * s).clamp(0.06, 1), opacity)
    # Arriving: from beyond a corner towards the middle.
    corner_x, corner_y = (u[:, 5:6] > 0.5) * 2.0 - 1, (u[:, 6:7] > 0.5) * 2.0 - 1
    away = 0.27 - (0.24 + 0.03 * u[:, 3:4]) * s
    x = torch.where(on(5), 0.5 + corner_x * away + 0.06 * (u[:, 0:1] - 0.5), x)
    y = torch.where(on(5), 0.5 + corner_y * away + 0.06 * (u[:, 1:2] - 0.5), y)
    return x, y, scale, opacity


def _actors(spec, x: Tensor, y: Tensor, scale: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Anti-aliased coverage [N, T, H, W] and color [N, 1, 3, 1, 1] (or with a rim [N, T, 3, H, W]) of the actors."""
    n, frames = x.shape
    grid = (torch.arange(size) + 0.5) / size
    look = torch.from_numpy(spec.look).float()
    radius = 0.155 * scale[:, :, None, None]
    u = (grid - x[:, :, None, None]) / radius  # [N, T, 1, W]
    v = (grid[:, None] - y[:, :, None, None]) / radius  # [N, T, H, 1]
    tilt = ((look[:, 3] - 0.5) * 0.7)[:, None, None, None]
    u, v = u * tilt.cos() - v * tilt.sin(), u * tilt.sin() + v * tilt.cos()  # [N, T, H, W]
    inside = torch.empty(n, frames, size, size)
    for actor in np.unique(spec.actor):
        rows = torch.from_numpy(np.flatnonzero(spec.actor == actor))
        inside[rows] = _shape(SHAPES[actor][1], u[rows], v[rows])
    depth = inside * radius * size  # signed distance to the outline, in pixels, positive inside
    coverage = (depth + 0.5).clamp(0, 1)
    jitter = (look[:, :3] - 0.5) * 0.16
    color = (COLORS[torch.from_numpy(spec.actor)] + jitter).clamp(0, 1)[:, None, :, None, None]
    style = look[:, 4].round()[:, None, None, None]
    if (style == 1).any():  # hollow actors: the middle is darker
        shade = torch.where(style == 1, 1 - 0.6 * (depth - 2.0).clamp(0, 1), torch.ones(())).unsqueeze(2)
        color = color * shade
    if (style == 2).any():  # dark-rimmed actors
        shade = torch.where(style == 2, 0.25 + 0.75 * (depth - 0.7).clamp(0, 1), torch.ones(())).unsqueeze(2)
        color = color * shade
    return coverage, color


def _shape(name: str, u: Tensor, v: Tensor) -> Tensor:
    """Approximate signed distance to a shape's outline in units of the actor's radius, positive inside."""
    r = (u.square() + v.square()).sqrt()
    if name == "ball":
        return 0.92 - r
    if name == "box":
        return 0.80 - torch.maximum(u.abs(), v.abs())
    if name == "ring":
        return 0.24 - (r - 0.72).abs()
    if name == "cross":
        arm, length = torch.minimum(u.abs(), v.abs()), torch.maximum(u.abs(), v.abs())
        return torch.minimum(0.34 - arm, 1.0 - length)
    if name == "triangle":
        return torch.minimum(0.62 - v, (1.0 + v - 1.6 * u.abs()) * 0.53)
    if name == "moon":
        return torch.minimum(1.0 - r, ((u - 0.55).square() + (v + 0.2).square()).sqrt() - 0.75)
    if name == "heart":
        lobes = 0.52 - ((u.abs() - 0.42).square() + (v + 0.3).square()).sqrt()
        return torch.maximum(lobes, torch.minimum((0.95 - v - 1.25 * u.abs()) * 0.62, v + 0.35))
    # star: five points, by the polar equation of its edges
    sector = torch.atan2(v, u) + math.pi / 2
    phase = (sector / (2 * math.pi / 5)).remainder(1) - 0.5  # a point of the star at phase 0 after the shift
    edge = 0.48 + 0.62 * (2 * phase).abs()
    return (edge - r) * 0.7


def _backgrounds(spec, size: int) -> Tensor:
    """Still backgrounds [N, 3, H, W] in 0..1."""
    grid = (torch.arange(size) + 0.5) / size
    yy, xx = grid[:, None], grid[None, :]
    b = torch.from_numpy(spec.background).float()
    p = b[:, :, None, None]
    out = torch.empty(len(spec), 3, size, size)
    for kind in np.unique(spec.scene):
        rows = torch.from_numpy(np.flatnonzero(spec.scene == kind))
        if kind >= 0:
            zoom = TEXTURE_ZOOM[b[rows, 11].round().long()][:, None, None]
            # clamped: finer textures reach beyond the unit square, where a ramp leaves 0..1
            wave = _scene_pattern(SCENES[kind], zoom * xx, zoom * yy, p[rows]).clamp(0, 1)  # [n, H, W]
            dark, light = _palette(int(kind), b[rows])
            out[rows] = torch.lerp(dark[:, :, None, None], light[:, :, None, None], wave.unsqueeze(1))
        else:
            out[rows] = _texture(int(kind), xx, yy, p[rows], spec.texture_seed[rows.numpy()], size)
    return out.clamp_(0, 1)


def _palette(scene: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """Dark and light color [N, 3] of a scene, jittered; the transfer sets have their own tint."""
    tint = torch.tensor([[0.0, 0.0, 0.0], [0.06, -0.02, -0.08], [-0.07, 0.0, 0.07]])[b[:, 11].round().long()]
    jitter = (b[:, 6:9] - 0.5) * 0.12
    return PALETTE[scene, 1] + jitter + tint, PALETTE[scene, 0] + jitter + tint


def _scene_pattern(name: str, xx: Tensor, yy: Tensor, p: Tensor) -> Tensor:
    tau = 2 * math.pi
    p0, p1, p2, p3 = (p[:, i] for i in range(4))  # [n, 1, 1]
    if name == "desert":  # long dunes
        wave = (tau * ((1.3 + p0) * yy + 0.22 * (tau * ((0.6 + 0.6 * p1) * xx + p2)).sin() + p3)).sin()
        return 0.5 + 0.5 * wave
    if name == "forest":  # trunks
        wave = (tau * ((3.2 + 1.6 * p0) * xx + 0.08 * (tau * (yy + p1)).sin() + p2)).sin()
        return 0.5 + 0.4 * wave + 0.1 * (tau * (7 * xx + p3)).sin()
    if name == "sea":  # ripples, finer towards the horizon
        wave = (tau * ((5.5 + 1.5 * p0) * yy.sqrt() + 0.06 * (tau * (2 * xx + p1)).sin() + p2)).sin()
        return 0.35 + 0.3 * yy + 0.3 * wave
    column = ((3.0 + p0) * xx + p1).remainder(1)  # city: lit windows
    row = ((4.0 + p2) * yy + p3).remainder(1)
    return 0.25 + 0.6 * ((column - 0.5).abs() < 0.28) * ((row - 0.5).abs() < 0.26)


def _texture(kind: int, xx: Tensor, yy: Tensor, p: Tensor, seeds: np.ndarray, size: int) -> Tensor:
    """Backgrounds that name no scene: noise and stripes for the tests, blobs, checks and plain for pretraining."""
    n, tau = len(p), 2 * math.pi
    light, dark = 0.15 + 0.6 * p[:, 0:3, :, 0:1], 0.15 + 0.6 * p[:, 3:6, :, 0:1]  # [n, 3, 1, 1]
    if kind == PLAIN:
        return light.expand(n, 3, size, size)
    if kind == STRIPES:  # SCUBA's sinusoids: a random color and its complement, period, amplitude, rotation
        angle, period = math.pi * p[:, 6], 0.16 + 0.34 * p[:, 7]
        wave = (tau * ((angle.cos() * xx + angle.sin() * yy) / period + p[:, 8])).sin()
        return 0.45 + (0.15 + 0.2 * p[:, 9:10]) * wave.unsqueeze(1) * (2 * p[:, 0:3] - 1)
    if kind == CHECKER:
        cells = (((2 + 4 * p[:, 6]) * xx + p[:, 7]).floor() + ((2 + 4 * p[:, 8]) * yy + p[:, 9]).floor()).remainder(2)
        return torch.lerp(dark, light, cells.unsqueeze(1))
    coarse = 4 if kind == BLOBS else 16
    grids = torch.stack([torch.rand(3, coarse, coarse, generator=torch.Generator().manual_seed(int(s))) for s in seeds])
    field = F.interpolate(grids, size=(size, size), mode="bilinear", align_corners=False)
    if kind == BLOBS:
        return 0.15 + 0.6 * field
    return (light + (0.2 + 0.3 * p[:, 6:7]) * (field - 0.5)).clamp(0, 1)
