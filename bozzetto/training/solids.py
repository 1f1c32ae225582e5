# SPDX-License-Identifier: Apache-2.0
"""Points with noise, or coarse voxels, of an object; its solid and its surface: what DMTet's networks are trained on.

Objects are those of the other trainings (`training.stream`), turned, stretched, mirrored, with any axis up: a scanner's file does not say
which is. Points are drawn from what is visible, as a scan has them, 1,000 to 3,500 of them, with noise of up to .01 of the longest side.
A voxel is full where anything of the solid reaches into it, as `binvox` and its kin have it.

A carved solid (`data.renders.carve_object`) is half a cell too thick, but for sheets, which have one cell. The truth here is put right by
the triangles: near a surface with a solid on one side of it alone, the distance is that to the nearest triangle's plane.

Coarse voxels do not say where in them a thin part lies: any place is more likely beside it than in it, and a network that is told the truth
lets it vanish. Where voxels are given, what is thinner than half of one is therefore told as 2 THICK thick.

Letters: N points given, P places asked for, Q points of the surface.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.data import Dataset

from bozzetto.data.objects import Object
from bozzetto.data.renders import EXTENT, drawable
from bozzetto.kernels import pool
from bozzetto.kernels.carve import sample_grid
from bozzetto.priors.point_voxel import HALF, RIM, UNIT, framed, padded
from bozzetto.training.first_guess import carved_files
from bozzetto.training.scenes import STEP, Known, Placed
from bozzetto.training.stream import Stream

NEAR, BOX, CUBE = 900, 600, 200  # places a sample: near the surface, in the object's box, in the cube
SPREAD = 0.03  # of those near the surface
FEWEST, MOST, NOISE = 1000, 3500, 0.01  # points, and their noise at most, longest sides
SIDE, FINE = 16, 4  # voxels along the longest side; places along each side of one by which it is told whether anything reaches into it
THIN, THICK = 0.035, 0.025  # longest sides: below it a part is thin; how far from its surface it is then told to reach, to either side
Reads = Literal["points", "voxels"]


class Solids(Dataset[dict[str, Tensor]]):
    """Sample i of the training stream, a function of i (`solid_sample`).

    from_sample  from which on the surface itself is judged, too: `surface` is 1
    """

    def __init__(self, objects: Path, reads: Reads, *, seed: int, batch: int, procedural: float, from_sample: int) -> None:
        carved = carved_files(objects)

        def prepared(obj: Object) -> Known:
            d = drawable(obj)
            return Known.of(d, carved(d))

        self.objects = Stream(objects, procedural, prepared)
        self.reads, self.seed, self.batch, self.from_sample = reads, seed, batch, from_sample

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng, shared = np.random.default_rng([self.seed, i]), np.random.default_rng([self.seed, 1, i // self.batch])
        count = int(np.exp(shared.uniform(np.log(FEWEST), np.log(MOST))))
        made = solid_sample(self.objects.draw(i, rng), self.reads, rng, count=count, noise=rng.uniform(0, NOISE))
        return made | {"surface": torch.tensor(float(i >= self.from_sample)), "seed": torch.tensor(i)}

    def __len__(self) -> int:
        return 1 << 40


def solid_sample(
    known: Known, reads: Reads, rng: np.random.Generator, *, count: int = 3000, noise: float = 0.005, augment: bool = True
) -> dict[str, Tensor]:
    """What is given and what is true, in the networks' frame; everything that is drawn comes from `rng`.

    count, noise  of the points; the noise's standard deviation in longest sides
    returns       given (N, 3) float32, or (X, Y, Z) bool; places (P, 3) and distance (P,) to the surface, negative inside;
                  on (Q, 3) of the surface, normals (Q, 3) outwards, thick (Q,) whether one side alone is solid there, so that
                  they are known
    """
    d = known.drawable
    placed = Placed.drawn(d.vertices, rng, augment=augment)
    on, own, thick = surface(known)
    thin = ~thick | ~full(known, on - THIN * own)
    if reads == "points":
        cloud = placed(on[rng.permutation(len(on))[:count]])
        cloud = cloud + rng.normal(0, noise * np.ptp(cloud, axis=0).max(), cloud.shape)
        middle, size = framed(cloud)
        given: np.ndarray = (cloud - middle) * size
    else:
        there = placed(d.vertices)
        middle, size = (
            (there.min(0) + there.max(0)) / 2,
            SIDE * UNIT * (1.0 if not augment else rng.uniform(0.85, 1)) / np.ptp(there, 0).max(),
        )
        if augment:
            middle = middle + rng.uniform(-0.5, 0.5, 3) * (SIDE * UNIT / size - np.ptp(there, 0)).clip(0)
    placed = replace(placed, stretch=placed.stretch * size, shift=(placed.shift - middle) * size)
    if reads == "voxels":
        given = padded(torch.from_numpy(voxelised(known, placed)))[0].numpy()
    on = placed(on)
    normals = (own / placed.stretch) @ placed.turn.T
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    half = HALF if reads == "points" else (SIDE / 2 + RIM) * UNIT
    low, high = on.min(0) - 0.05, on.max(0) + 0.05
    pick = rng.integers(0, len(on), NEAR)
    near = on[pick] + rng.normal(0, SPREAD, (NEAR, 3))
    places = np.concatenate([near, rng.uniform(low, high, (BOX, 3)), rng.uniform(-half, half, (CUBE, 3))])
    away = distance(known, placed, places, on, normals, thick)
    if reads == "voxels":
        far, i = cKDTree(on).query(places)
        away = np.where(thin[i], np.minimum(away, far - THICK), away)
    order = rng.permutation(3) if augment else np.arange(3)
    sign = rng.choice((-1, 1), 3) if augment else np.ones(3)

    def turned(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x[:, order] * sign, np.float32))

    return {
        "given": turned(given) if reads == "points" else torch.from_numpy(np.ascontiguousarray(flipped(given, order, sign))),
        "places": turned(places),
        "distance": torch.from_numpy(away.astype(np.float32)),
        "on": turned(on),
        "normals": turned(normals),
        "thick": torch.from_numpy(thick),
    }


def flipped(voxels: np.ndarray, order: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """The volume (X, Y, Z) that places x[order] * sign see where places x saw this one."""
    made = voxels.transpose(order)
    return np.flip(made, tuple(k for k in range(3) if sign[k] < 0))


def surface(known: Known) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (Q, 3) of the object's surface in its own frame, unit normals (Q, 3) away from its solid, and whether one side alone is solid
    (Q,): elsewhere, on sheets, the normal may look to either side."""
    d = known.drawable
    corner = d.vertices[d.faces[known.face]].astype(np.float64)
    weights = np.concatenate([known.bary, 1 - known.bary.sum(1, keepdims=True)], 1)
    on = (corner * weights[:, :, None]).sum(1)
    n = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-30)
    before, behind = full(known, on + 2 * STEP * n), full(known, on - 2 * STEP * n)
    return on, np.where(before & ~behind, -1.0, 1.0)[:, None] * n, before != behind


def full(known: Known, x: np.ndarray) -> np.ndarray:
    """(P,) whether the carved solid has places (P, 3) of the object's frame."""
    share = np.empty(len(x))
    pool.run(sample_grid, len(x), np.ascontiguousarray(x, np.float64), known.inside, EXTENT, share, grain=4096)
    return share > 0.5


def distance(known: Known, placed: Placed, x: np.ndarray, on: np.ndarray, normals: np.ndarray, thick: np.ndarray) -> np.ndarray:
    """(P,) at places (P, 3) of the frame; see above."""
    away = known.distance(x, placed)
    step = STEP * float(np.prod(np.abs(placed.stretch)) ** (1 / 3))
    far, i = cKDTree(on).query(x)
    plain = away + np.where(thick[i], step / 2, 0)
    plane = ((x - on[i]) * normals[i]).sum(1)
    made: np.ndarray = np.where(thick[i] & (far < 4 * step), plane.clip(plain - step, plain + step), plain)
    return made


def voxelised(known: Known, placed: Placed) -> np.ndarray:
    """(SIDE, SIDE, SIDE) bool round the middle of the frame: which voxels the solid reaches into."""
    n = SIDE * FINE
    at = ((np.arange(n) + 0.5) / n - 0.5) * SIDE * UNIT
    x = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1).reshape(-1, 3)
    solid = full(known, placed.back(x)).reshape(SIDE, FINE, SIDE, FINE, SIDE, FINE)
    return np.asarray(solid.any((1, 3, 5)))
