# SPDX-License-Identifier: Apache-2.0
"""What DMTet's networks know of points or coarse voxels: features F_vol at any place, and a first signed distance there.

Shen et al. 2021 (arXiv:2111.04276), Sec. 3.1.1, encode points with Liu et al.'s point-voxel convolution (PVCNN, arXiv:1907.03739): points
make a volume, a 3D network sees it, and a branch that stays at the points keeps what cells blur. So it is here, in small. The point branch
says of each point which side is out and how far noise has moved it along its normal; the distance begins as the moving least squares of
those planes (Kolluri 2005). Voxels begin as the linear interpolation of what is full. Both volumes also hold closed forms that a small
network cannot reach far enough to find: from how many sides a cell is shut in, and whether air leads to it.

Letters: P points that are asked for, N points that are given, K neighbours; C channels, X Y Z cells (volumes lie Z, Y, X).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, label
from scipy.spatial import cKDTree
from torch import Tensor, nn

from bozzetto.brief import brief
from bozzetto.priors.cost_volume import read_volume
from bozzetto.priors.reconstructor import Volume

UNIT = 1 / 16  # of length, in which networks count: a voxel's side, a sixteenth of the points' box
HALF = 0.5625  # the points' cube runs over [-HALF, HALF]^3; the longest side of their box is 1
CELLS = 28  # of that cube a side, a multiple of 4
RIM = 2  # empty cells round voxels, at least
K, PLANE = 6, 10  # neighbours of a place; of a point, for its plane
SPOKEN = 8  # numbers that the point branch says of each point, besides
RAW = 9  # channels of `shut_in`, with what is full
REACH = 4.0  # beyond which distances are not told apart, units


@brief
@dataclass(frozen=True)
class Field:
    """What was found in some points or voxels, to be asked at places (P, 3) of their frame.

    volume  (C, Z, Y, X) over [-half, half], half (3,)
    near    of places: what is close to them (P, L), and a first signed distance (P,), negative inside
    """

    volume: Tensor
    half: Tensor
    near: Callable[[Tensor], tuple[Tensor, Tensor]]

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F_vol (P, C + L), and the first distance (P,)."""
        local, distance = self.near(x)
        return torch.cat([read_volume(self.volume, self.half, x), local], 1), distance


def shut_in(full: np.ndarray) -> np.ndarray:
    """(RAW - 1, Z, Y, X) float32 of a volume of truths: whether something full lies to either side along each axis (6); whether no air
    leads there from the border, of blocks of two cells, so that small holes are shut (1); the distance to what is full, in REACHes (1)."""
    either = [np.maximum.accumulate(x, axis) for axis in range(3) for x in (full, np.flip(full, axis))]
    either = [np.flip(x, k // 2) if k % 2 else x for k, x in enumerate(either)]
    size = [n + n % 2 for n in full.shape]
    even = np.pad(full, [(0, s - n) for s, n in zip(size, full.shape, strict=True)])
    block = even.reshape(size[0] // 2, 2, size[1] // 2, 2, size[2] // 2, 2).any((1, 3, 5))
    air = label(np.pad(~block, 1, constant_values=True))[0]
    shut = (air != air[0, 0, 0])[1:-1, 1:-1, 1:-1].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    shut = shut[: full.shape[0], : full.shape[1], : full.shape[2]]
    away = distance_transform_edt(~full) if full.any() else np.full(full.shape, np.inf)
    return np.stack([*either, shut, np.minimum(away / REACH, 1)]).astype(np.float32)


class PointEncoder(nn.Module):
    """Points (N, 3) of the cube, at least PLANE, to a `Field`."""

    def __init__(self, widths: tuple[int, int, int], spread: int = 16) -> None:
        super().__init__()
        self.read = widths[0] + 8 + SPOKEN  # numbers of F_vol
        self.point = nn.Sequential(nn.Linear(13, spread), nn.SiLU(), nn.Linear(spread, spread), nn.SiLU())
        self.volume = Volume(spread + RAW, widths)
        self.branch = nn.Sequential(
            nn.Linear(spread + widths[0], 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 3 + 2 + SPOKEN)
        )

    def forward(self, points: Tensor) -> Field:
        told, normals, height = planes(points)
        at = ((points / HALF + 1) / 2 * CELLS).long().clamp(0, CELLS - 1)
        index = (at[:, 2] * CELLS + at[:, 1]) * CELLS + at[:, 0]
        count = torch.bincount(index, minlength=CELLS**3)
        made = self.point(told)
        total = torch.zeros(CELLS**3, made.shape[1], dtype=made.dtype, device=made.device).index_add(0, index, made)
        mean = total / count.clamp(min=1)[:, None]
        full = (count > 0).view(CELLS, CELLS, CELLS)
        raw = torch.from_numpy(shut_in(full.cpu().numpy())).to(points)
        volume = torch.cat([mean.mT.view(-1, CELLS, CELLS, CELLS), full[None].to(points), raw])
        seen = self.volume(volume[None])[0]
        half = points.new_full((3,), HALF)
        says = self.branch(torch.cat([made, read_volume(seen, half, points)], 1))
        # A plane has no sign of its own: the product with what is said of the outside is the same for both of its normals.
        outward = F.normalize(normals * (normals * says[:, :3]).sum(1, keepdim=True) + 0.1 * says[:, :3], dim=1)
        moved = points - normals * height * says[:, 4:5].sigmoid() + outward * (UNIT / 4) * says[:, 3:4].tanh()
        tree = cKDTree(points.detach().cpu().numpy())

        def near(x: Tensor) -> tuple[Tensor, Tensor]:
            found, index = tree.query(x.detach().cpu().numpy(), k=K)
            i = torch.from_numpy(index).to(x.device)
            d = torch.from_numpy(found).to(x)
            w = 1 / (d.square() + (d[:, :1] / 2).square() + (UNIT / 4) ** 2)
            w = w / w.sum(1, keepdim=True)
            off = (x[:, None] - moved[i]) / UNIT
            along = (off * outward[i]).sum(-1)
            mean, base = (w[..., None] * off).sum(1), (w * along).sum(1)
            spread = (w * (along - base[:, None]).square()).sum(1)
            apart = (w[..., None] * outward[i]).sum(1).norm(dim=1)
            rest = torch.stack([d[:, 0] / UNIT, base.abs(), base, spread.clamp(min=1e-12).sqrt(), apart], 1)
            local = torch.cat([(mean / 2).tanh(), (rest / 2).tanh(), (w[..., None] * says[:, 5:][i]).sum(1)], 1)
            return local, base * UNIT

        return Field(seen, half, near)


class VoxelEncoder(nn.Module):
    """Voxels (X, Y, Z) of truths, padded by `padded`, to a `Field` whose frame has them in its middle, UNIT a side."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.read = widths[0] + 10
        self.volume = Volume(1 + RAW, widths)

    def forward(self, voxels: Tensor) -> Field:
        full = voxels.permute(2, 1, 0).bool()
        half = torch.tensor(voxels.shape, device=voxels.device) * (UNIT / 2)
        x = full.cpu().numpy()
        deep = np.minimum(distance_transform_edt(x) / REACH, 1).astype(np.float32)
        raw = torch.from_numpy(np.concatenate([x[None].astype(np.float32), deep[None], shut_in(x)])).to(voxels.device)
        volume = self.volume(raw[None])[0]
        signed = (raw[-1] - raw[1])[None] * REACH

        def near(x: Tensor) -> tuple[Tensor, Tensor]:
            share, away = read_volume(raw[:1], half, x)[:, 0], read_volume(signed, half, x)[:, 0]
            angle = 2 * torch.pi * (x + half) / UNIT
            own = F.grid_sample(raw[None, :1], (x / half)[None, None, None], mode="nearest", align_corners=False)[0, 0, 0, 0]
            local = torch.cat([angle.sin(), angle.cos(), torch.stack([share, own, away / REACH, (away / 2).tanh()], 1)], 1)
            # within a cell of the border of what is full; further off, the distance to it, less half a cell
            base = torch.where((share > 0) & (share < 1), 0.5 - share, away - 0.5 * away.sign())
            return local, base * UNIT

        return Field(volume, half, near)


def framed(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle (3,) and scale that bring points (N, 3) into the networks' cube: their box centred, its longest side 1."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float(1 / (high - low).max())


def padded(voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Voxels with RIM empty cells or more on all sides, a multiple of four along each axis; and how many (3,) were put before the first."""
    before = torch.full((3,), RIM)
    size = (torch.tensor(voxels.shape) + 2 * RIM + 3) // 4 * 4
    made = torch.zeros(size.tolist(), dtype=torch.bool)
    made[tuple(slice(RIM, RIM + n) for n in voxels.shape)] = voxels.bool()
    return made, before


def planes(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the neighbours of each point (N, 3) say of it (N, 13): place in its cell, n n^T, height above their plane, how flat and how long
    they lie, how far apart; the normals n (N, 3) of their planes, of either sign; the height (N, 1) along n."""
    x = points.detach().cpu().double().numpy()
    found, index = cKDTree(x).query(x, k=PLANE)
    near = x[index]
    middle = near.mean(1)
    off = near - middle[:, None]
    values, axes = np.linalg.eigh(off.transpose(0, 2, 1) @ off)
    n = axes[:, :, 0]
    values = values / np.maximum(values[:, 2:], 1e-30)
    height = ((x - middle) * n).sum(1, keepdims=True)
    outer = (n[:, :, None] * n[:, None, :])[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    place = (x / HALF + 1) / 2 * CELLS % 1 - 0.5
    apart = found[:, 1:].mean(1, keepdims=True) / UNIT
    # the height's sign is the normal's, which means nothing: its length alone is told
    told = np.concatenate([place, outer, np.abs(height) / UNIT, values[:, :2], apart], 1)
    told, n, height = (torch.from_numpy(made).to(points) for made in (told, n, height))
    return told, n, height
