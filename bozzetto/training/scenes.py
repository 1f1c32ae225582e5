# SPDX-License-Identifier: Apache-2.0
"""Posed pictures of an object, and what is true at points in space: what a reconstructor is trained on.

The object stands upright in the cube of `priors.reconstructor`, turned, stretched, not quite centred and not quite of size 1, since a
user's box is not exact either. The cameras are the paper's eight (`priors.reconstructor.around`), some of them, or any all round. Views
that a prior draws agree less well than a renderer's: in a share of the samples cameras are told a little wrong, and pictures are blurred,
moved, scaled and discoloured, each view by itself.

Letters: V views, S pixels a side, P points in space, Q points on the surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.data import Dataset

from bozzetto.camera import Camera, look_at, orbit
from bozzetto.data.objects import Object
from bozzetto.data.renders import EXTENT, GRID, Carved, Drawable, drawable, random_lights, recoloured, render
from bozzetto.kernels import pool
from bozzetto.kernels.carve import sample_grid
from bozzetto.kernels.deferred import albedos
from bozzetto.priors.hint import FRAME
from bozzetto.priors.reconstructor import HALF, around
from bozzetto.render.bake import seen
from bozzetto.training.first_guess import carved_files
from bozzetto.training.stream import Stream

NEAR, BOX, CUBE, COLOURED = 800, 960, 288, 192  # points a sample: near the surface, in the object's box, in the cube, on the surface
SPREAD = 0.025  # of the points near the surface
STEP = 2 * EXTENT / GRID
FEWEST, MOST = 4, 10  # views
SIZES = (64, 128)  # of the pictures, changing from round to round
ROUND, USES = 64, 3  # scenes at a time, and how often each is shown, with other views and points
BY_VIEW, BY_SET = ("rgba", "c2w", "K", "seen"), ("points", "distance")


@dataclass(frozen=True)
class Known:
    """An object with what is true of it.

    inside  (GRID, GRID, GRID) uint8, the carved solid over [-EXTENT, EXTENT]^3
    rims    (N, 3) and (M, 3) float32: centres of the solid's outermost cells, and of the air's next to it
    face    (P,) int32 and bary (P, 2) float32: points on the surface, as `data.renders.Carved` has them
    """

    drawable: Drawable
    inside: np.ndarray
    rims: tuple[np.ndarray, np.ndarray]
    face: np.ndarray
    bary: np.ndarray

    @classmethod
    def of(cls, d: Drawable, carved: Carved) -> Known:
        full = np.pad(carved.inside > 0, 1)
        return cls(d, carved.inside, (rim(full), rim(~full)), carved.face, carved.bary)

    def distance(self, points: np.ndarray, placed: Placed) -> np.ndarray:
        """(N,) float32, negative inside, at points (N, 3) of the cube: to the nearest cell across the surface, less half a cell."""
        full = np.empty(len(points))
        pool.run(sample_grid, len(points), np.ascontiguousarray(placed.back(points)), self.inside, EXTENT, full, grain=4096)
        half = STEP / 2 * float(np.prod(np.abs(placed.stretch)) ** (1 / 3))
        to_solid, to_air = (cKDTree(placed(x)).query(points)[0] - half if len(x) else np.full(len(points), np.inf) for x in self.rims)
        return np.where(full > 0.5, -np.maximum(to_air, 0), np.maximum(to_solid, 0)).clip(-2, 2).astype(np.float32)


def rim(full: np.ndarray) -> np.ndarray:
    """Centres (N, 3) float32 of the cells of a grid, padded by one, that are full and have a neighbour that is not."""
    inner = np.ones_like(full)
    for axis in range(3):
        for step in (-1, 1):
            inner &= np.roll(full, step, axis)
    return ((np.argwhere(full & ~inner) - 0.5) * STEP - EXTENT).astype(np.float32)


@dataclass(frozen=True)
class Placed:
    """Where an object stands in the cube: x = turn (stretch x') + shift, x' in the object's own frame."""

    stretch: np.ndarray
    turn: np.ndarray
    shift: np.ndarray

    @classmethod
    def drawn(cls, vertices: np.ndarray, rng: np.random.Generator, *, augment: bool = True) -> Placed:
        stretch, angle = np.ones(3), 0.0
        if augment:
            stretch = np.exp(rng.uniform(-0.12, 0.12, 3))
            stretch[1] *= rng.choice((-1, 1))
            angle = rng.uniform(-math.pi, math.pi) if rng.random() < 0.7 else 0.0
        c, s = math.cos(angle), math.sin(angle)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        there = (vertices * stretch) @ turn.T
        low, high = there.min(0), there.max(0)
        size = (rng.uniform(0.82, 1.02) if augment else 1.0) / float((high - low).max())
        off = rng.uniform(-0.03, 0.03, 3) if augment else np.zeros(3)
        return cls(stretch * size, turn, off - size * (low + high) / 2)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (x * self.stretch) @ self.turn.T + self.shift
        return moved

    def back(self, x: np.ndarray) -> np.ndarray:
        moved: np.ndarray = ((x - self.shift) @ self.turn) / self.stretch
        return moved


class Scenes(Dataset[dict[str, Tensor]]):
    """Sample i of the training stream: some views and points of a scene (`scene`), each of which is drawn once and used a few times. The
    samples of a batch have one number of views."""

    def __init__(self, objects: Path, *, seed: int, batch: int, procedural: float) -> None:
        self.carved = carved_files(objects)
        self.objects = Stream(objects, procedural, self._prepared)
        self.seed, self.batch = seed, batch
        self.drawn: dict[int, dict[str, Tensor]] = {}

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        turn, which = divmod(i, ROUND)
        k = turn // USES * ROUND + which
        if k not in self.drawn:
            self.drawn = {n: x for n, x in self.drawn.items() if n > k - ROUND}
            rng = np.random.default_rng([self.seed, k])
            size = SIZES[k // ROUND % len(SIZES)]
            self.drawn[k] = scene(self.objects.draw(USES * k, rng), rng, views=MOST, size=size, sets=USES)
        shared = np.random.default_rng([self.seed, 1, i // self.batch])
        views = 8 if shared.random() < 0.4 else int(shared.integers(FEWEST, MOST + 1))
        shown = torch.from_numpy(np.random.default_rng([self.seed, 2, i]).permutation(MOST)[:views])
        return {name: x[shown] if name in BY_VIEW else x[turn % USES] if name in BY_SET else x for name, x in self.drawn[k].items()}

    def _prepared(self, obj: Object) -> Known:
        d = drawable(obj)
        return Known.of(d, self.carved(d))

    def __len__(self) -> int:
        return 1 << 40


def scene(
    known: Known, rng: np.random.Generator, *, views: int, size: int = SIZES[0], sets: int = 1, augment: bool = True
) -> dict[str, Tensor]:
    """Pictures and truth; everything that is drawn comes from `rng`. Without `augment` nothing is spoilt, and V is at most 8.

    returns  rgba (V, 4, S, S), c2w (V, 3, 4), K (V, 3, 3); points (sets, P, 3) of the cube and distance (sets, P) to the surface; on
             (Q, 3) of the surface, colour (Q, 3) there under even light, seen (V, Q) how squarely each view sees it
    """
    d = known.drawable
    placed = Placed.drawn(d.vertices, rng, augment=augment)
    d = recoloured(d, rng) if augment and rng.random() < 0.7 else d
    normals = (d.normals / placed.stretch) @ placed.turn.T
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    vertices = placed(d.vertices)
    there = Drawable(vertices.astype(np.float32), d.faces, normals.astype(np.float32), *d.surface())
    true, told = cameras(rng, views, size, augment=augment)
    lights, level = random_lights(rng, true[[0]])
    made = render(there, true, lights)
    rgba = torch.cat([made.rgb, made.alpha], -1).movedim(-1, 1)
    is_spoilt = augment and rng.random() < 0.35
    pick = rng.integers(0, max(len(known.face), 1), sets * NEAR + COLOURED)
    face, bary = known.face[pick], known.bary[pick]
    corner, weights = vertices[d.faces[face]], np.concatenate([bary, 1 - bary.sum(1, keepdims=True)], 1)
    surface = (corner * weights[:, :, None]).sum(1)
    low, high = vertices.min(0) - 0.05, vertices.max(0) + 0.05
    points = np.concatenate(
        [
            surface[COLOURED:].reshape(sets, NEAR, 3) + rng.normal(0, SPREAD, (sets, NEAR, 3)),
            rng.uniform(low, high, (sets, BOX, 3)),
            rng.uniform(-HALF, HALF, (sets, CUBE, 3)),
        ],
        1,
    )
    c = corner[:COLOURED]
    on, outward = surface[:COLOURED], np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0])
    return {
        "rgba": spoilt(rgba, rng) if is_spoilt else rgba,
        "c2w": told.c2w,
        "K": told.K,
        "points": torch.from_numpy(points.astype(np.float32)),
        "distance": torch.from_numpy(known.distance(points.reshape(-1, 3), placed)).view(sets, -1),
        "on": torch.from_numpy(on.astype(np.float32)),
        "colour": torch.from_numpy(lit(d, face[:COLOURED], bary[:COLOURED], level)),
        "seen": looks(torch.from_numpy(on).float(), torch.from_numpy(outward).float(), made.depth[..., 0], made.alpha[..., 0], true),
    }


def cameras(rng: np.random.Generator, views: int, size: int, *, augment: bool = True) -> tuple[Camera, Camera]:
    """V cameras round the cube, and what is said of them."""
    a, e = rng.uniform(-math.pi, math.pi), math.radians(rng.triangular(-10, 15, 50))
    if augment and rng.random() < 0.4:
        azimuth = a + 2 * math.pi * (np.arange(views) + rng.uniform(-0.3, 0.3, views)) / views
        elevation = np.radians(rng.uniform(-15, 55, views)) if rng.random() < 0.5 else np.full(views, e)
    else:
        azimuth, elevation = (np.array(x) for x in around(a, e))
        order = rng.permutation(np.arange(1, 8))[: views - 1]
        azimuth, elevation = azimuth[[0, *order]], elevation[[0, *order]]
        more = rng.integers(0, 8, max(views - 8, 0))  # neighbours, ten degrees beside
        azimuth = np.append(azimuth, azimuth[more] + np.radians(10) * rng.choice((-1, 1), len(more)))
        elevation = np.append(elevation, elevation[more])
    fov = math.radians(rng.uniform(18, 50))
    width = FRAME * (rng.uniform(0.78, 1.1) if augment else 1.0)
    distance = width / 2 / math.tan(fov / 2)
    aim = torch.from_numpy(rng.normal(0, 0.02, (views, 3)) if augment else np.zeros((views, 3)))

    def placed(azimuth: np.ndarray, elevation: np.ndarray) -> Camera:
        flat = orbit(torch.from_numpy(azimuth), torch.from_numpy(elevation), distance, size=size, fov=fov)
        return Camera(look_at(flat.position, aim), flat.K, flat.size)

    off = math.radians(rng.uniform(0, 1.5)) if augment and rng.random() < 0.4 else 0.0
    return placed(azimuth, elevation), placed(azimuth + rng.normal(0, 1, views) * off, elevation + rng.normal(0, 1, views) * off)


def spoilt(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures (V, 4, S, S), about half of them moved, scaled, blurred and discoloured, each in its own way."""
    made, size = rgba.clone(), rgba.shape[-1]
    for v in np.flatnonzero(rng.random(len(rgba)) < 0.6):
        zoom, shift = rng.normal(1, 0.03), rng.normal(0, 2 / size, 2)
        affine = torch.tensor([[[zoom, 0, shift[0]], [0, zoom, shift[1]]]], dtype=torch.float32)
        x = F.grid_sample(rgba[v : v + 1], F.affine_grid(affine, [1, 4, size, size], align_corners=False), align_corners=False)[0]
        x = torch.from_numpy(gaussian_filter(x.numpy(), (0, *[rng.uniform(0, 1.4) * size / 64] * 2)))
        gain = torch.from_numpy(rng.normal(1, 0.12, 3).astype(np.float32))[:, None, None]
        made[v] = torch.cat([torch.minimum((x[:3] * gain).clamp(min=0), x[3:]), x[3:]])
    return made


def looks(points: Tensor, normals: Tensor, depth: Tensor, alpha: Tensor, cameras: Camera) -> Tensor:
    """(V, N): how squarely each view sees points (N, 3), by depth and alpha (V, S, S); normals of any length and either side."""
    normals = F.normalize(normals, dim=1)
    rgb, weights = torch.zeros(*alpha.shape[1:], 3), []
    for v in range(len(cameras)):
        to_camera = cameras.position[v].to(points) - points
        facing = torch.where((normals * to_camera).sum(1, keepdim=True) < 0, -normals, normals)
        weights.append(seen(points, facing, cameras[[v]], depth[v], rgb, alpha[v], margin=0.0, tolerance=0.02)[1])
    return torch.stack(weights)


def lit(d: Drawable, face: np.ndarray, bary: np.ndarray, level: float) -> np.ndarray:
    """sRGB (N, 3) float32 of points on triangles, under even light."""
    base = np.empty((len(face), 3))
    pool.run(albedos, len(face), face, bary, *d.surface(), base, grain=4096)
    linear = np.where(base <= 0.04045, base / 12.92, ((base + 0.055) / 1.055) ** 2.4) * level
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.minimum(linear, 1) ** (1 / 2.4) - 0.055).astype(np.float32)
