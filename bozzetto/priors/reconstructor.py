# SPDX-License-Identifier: Apache-2.0
"""Posed pictures to a solid and its colours in one pass: One-2-3-45's reconstruction (arXiv:2306.16928, Sec. 3.3), which is SparseNeuS's
(arXiv:2206.05737), in small.

A 2D network makes features of each picture; their mean and variance at the cells of a cube are a cost volume, of which a 3D U-Net makes
features E; the signed distance of a point is an MLP of where it is and of E there. Colours are blended from the pictures (IBRNet). Any
number of views, in any order.

Differs. The distance begins as that of the visual hull, which is known in closed form, where SparseNeuS begins as a sphere: the network
says by how much the hull is wrong. The MLP also reads mean and variance at the point itself, since 32 cells a side are coarse, where
96 are not. The volume is dense. It was taught distances and colours, not pictures (`training.reconstructor`). A point's colour is
asked for along its normal, so that a texture can be made of it; geometry says who sees it, and the network weighs those.

Letters: B objects, V views, S pixels a side, N points; F features of a picture, D cells of the cube a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.priors import small
from bozzetto.priors.cost_volume import (
    blend,
    hull_distance,
    lattice,
    mean_and_variance,
    outline_distance,
    pixel_width,
    read_volume,
    unproject,
)

HALF = 0.56  # the cube runs over [-HALF, HALF]^3; the longest side of what is reconstructed is about 1
RAW = 5  # colours over grey, coverage, distance from the outline
SEEN = 64  # pixels a side of what the 2D network sees
REACH = 0.12  # beyond which distances from the hull are not told apart
OCTAVES = 4


@dataclass(frozen=True)
class ReconstructorConfig:
    """The network's shape; written beside the weights, from which it is built again."""

    features: int = 8
    """F"""
    cells: int = 20
    """D, a multiple of 4"""
    widths: tuple[int, int, int] = (8, 24, 40)
    """channels of the 3D network at D, D/2 and D/4"""
    neurons: int = 64
    """of the MLP's three layers"""


@brief
@dataclass(frozen=True)
class Posed:
    """Pictures of one object, in the frame of the cube.

    rgba     (V, 4, S, S) premultiplied sRGB and coverage
    cameras  V of them, of that size
    doubt    how many of them may be wrong where they show background, as a prior's drawings are (`cost_volume.hull_distance`)
    """

    rgba: Tensor
    cameras: Camera
    doubt: int = 0


@brief
@dataclass(frozen=True)
class Field:
    """What the networks found in some pictures, to be asked at points.

    maps      (V, F, h, w) features; raw (V, RAW, S, S) what they were made of, in pixels
    volume    (C, D, D, D)
    """

    maps: Tensor
    raw: Tensor
    cameras: Camera
    volume: Tensor
    doubt: int = 0

    @property
    def rgba(self) -> Tensor:
        """(V, 4, S, S), the pictures, premultiplied."""
        alpha = (self.raw[:, 3:4] + 1) / 2
        return torch.cat([(self.raw[:, :3] + 1) / 2 - 0.5 * (1 - alpha), alpha], 1)


def around(azimuth: float, elevation: float) -> tuple[list[float], list[float]]:
    """Azimuths and elevations (radians) of the eight views that One-2-3-45 draws of a picture from there: four at its height, the picture's
    own first, and between them four that are 30 degrees lower, or higher where the picture was taken from less than 15 degrees."""
    step = math.radians(30)
    other = elevation - step if elevation >= step / 2 else elevation + step
    turns = [k * math.pi / 2 for k in range(4)]
    return [azimuth + t for t in turns] + [azimuth + step + t for t in turns], [elevation] * 4 + [other] * 4


class Residual3d(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, width), nn.Conv3d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(4, width), nn.Conv3d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return x + made


class Features(nn.Module):
    """(V, RAW, S, S) to (V, F, SEEN/2, SEEN/2): what is round each pixel, at two scales."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(RAW, 16, 4, stride=2, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU())
        self.coarse = nn.Sequential(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1), nn.SiLU())
        self.join = nn.Sequential(nn.Conv2d(48, 24, 1), nn.SiLU(), nn.Conv2d(24, features, 3, padding=1))

    def forward(self, raw: Tensor) -> Tensor:
        shrink = raw.shape[-1] / SEEN  # one size for the network, whatever the pictures'; distances are in its pixels
        small = F.interpolate(raw, (SEEN, SEEN), mode="area") if shrink != 1 else raw
        x = self.fine(torch.cat([small[:, :-1], small[:, -1:] / shrink], 1))
        up = F.interpolate(self.coarse(x), x.shape[-2:], mode="bilinear")
        made: Tensor = self.join(torch.cat([x, up], 1))
        return made


class Volume(nn.Module):
    """(B, C, D, D, D) to (B, widths[0], D, D, D): a U-Net of three levels."""

    def __init__(self, inner: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.stem = nn.Sequential(nn.Conv3d(inner, a, 1), nn.SiLU())  # few layers where there are most cells
        self.down1, self.second = nn.Conv3d(a, b, 2, stride=2), Residual3d(b)
        self.down2, self.middle = nn.Conv3d(b, c, 2, stride=2), nn.Sequential(Residual3d(c), Residual3d(c))
        self.up2, self.join2 = nn.Conv3d(c, b, 1), Residual3d(b)
        self.up1, self.join1 = nn.Conv3d(b, a, 1), Residual3d(a)

    def forward(self, x: Tensor) -> Tensor:
        x0 = self.stem(x)
        x1 = self.second(self.down1(x0))
        x2 = self.middle(self.down2(x1))
        y1 = self.join2(x1 + F.interpolate(self.up2(x2), scale_factor=2.0))
        made: Tensor = self.join1(x0 + F.interpolate(self.up1(y1), scale_factor=2.0))
        return made


class Reconstructor(nn.Module):
    """`fields(posed)`, then `distance` and `colour` of each at points."""

    def __init__(self, config: ReconstructorConfig = ReconstructorConfig()) -> None:
        super().__init__()
        self.config = config
        both = config.features + RAW
        self.features = Features(config.features)
        self.volume = Volume(2 * both + 2, config.widths)
        n = config.neurons
        inner = 3 + 6 * OCTAVES + config.widths[0] + 2 * both + 2
        self.mlp = nn.Sequential(nn.Linear(inner, n), nn.SiLU(), nn.Linear(n, n), nn.SiLU(), nn.Linear(n, n), nn.SiLU(), nn.Linear(n, 1))
        self.weigh = nn.Sequential(nn.Linear(2 * both + 1, 24), nn.SiLU(), nn.Linear(24, 1))
        for last in (self.mlp[-1], self.weigh[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def fields(self, posed: list[Posed], *, variance: bool = True) -> list[Field]:
        """What several objects' pictures say; without `variance` the volume holds the mean alone, which it was taught to do with."""
        raws = [raw_of(p.rgba) for p in posed]
        cells = lattice(self.config.cells, HALF, posed[0].rgba)
        maps = self.features(torch.cat(raws)).split([len(r) for r in raws])
        found = [self._statistics(m, r, p.cameras, cells, variance, p.doubt) for m, r, p in zip(maps, raws, posed, strict=True)]
        shape = (self.config.cells,) * 3
        volumes = self.volume(torch.stack([f.mT.unflatten(1, shape) for f in found]))
        return [Field(m, r, p.cameras, v, p.doubt) for m, r, p, v in zip(maps, raws, posed, volumes, strict=True)]

    def field(self, posed: Posed) -> Field:
        """Of one object."""
        return self.fields([posed])[0]

    def distance(self, field: Field, points: Tensor, *, variance: bool = True) -> Tensor:
        """Signed distances (N,) at points (N, 3) of the cube, negative inside."""
        local = self._statistics(field.maps, field.raw, field.cameras, points, variance, field.doubt)
        told = torch.cat([encoded(points), read_volume(field.volume, HALF, points), local], -1)
        made: Tensor = self.mlp(told)[:, 0]
        return local[:, -1] * REACH + 0.1 * made

    def colour(self, field: Field, points: Tensor, seen: Tensor, pictures: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """sRGB (N, 3) of surface points (N, 3) and the views' weights (V, N).

        seen      (V, N) in [0, 1], how squarely each view sees the point, 0 where it does not (`render.bake.seen`)
        pictures  (V, 4, H, W), the same with more pixels, from which to take the colours
        """
        rgba, _ = unproject(field.rgba if pictures is None else pictures, field.cameras, points)
        own = rgba[..., :3] / rgba[..., 3:].clamp(min=1e-3)
        raw, _ = unproject(field.raw, field.cameras, points)
        read, _ = unproject(field.maps, field.cameras, points)
        values = torch.cat([read, raw], -1)
        mean, variance = mean_and_variance(values, seen > 0)
        told = torch.cat([values - mean, variance.expand_as(values), seen[..., None]], -1)
        return blend(own.clamp(0, 1), self.weigh(told)[..., 0], seen)

    def _statistics(self, maps: Tensor, raw: Tensor, cameras: Camera, points: Tensor, variance: bool, doubt: int) -> Tensor:
        """(N, 2 (F + RAW) + 2): mean, variance, share of the views that count, distance from the hull in units of REACH."""
        read, counts = unproject(maps, cameras, points)
        with torch.no_grad():  # nothing is learnt there
            sharp, _ = unproject(raw, cameras, points)
            pixel = pixel_width(cameras, points)[..., None] / REACH
            hull = (hull_distance(raw[:, -1], cameras, points, doubt) / REACH).clamp(-1, 1)
        values = torch.cat([read, sharp[..., :-1], (sharp[..., -1:] * pixel).clamp(-1, 1)], -1)
        mean, spread = mean_and_variance(values, counts)
        share = counts.to(mean).mean(0)
        return torch.cat([mean, spread if variance else torch.zeros_like(spread), share[:, None], hull[:, None]], -1)


def raw_of(rgba: Tensor) -> Tensor:
    """(V, RAW, S, S) of premultiplied pictures (V, 4, S, S)."""
    grey = rgba[:, :3] + 0.5 * (1 - rgba[:, 3:])
    return torch.cat([2 * grey - 1, 2 * rgba[:, 3:] - 1, outline_distance(rgba[:, 3])[:, None]], 1)


def encoded(points: Tensor) -> Tensor:
    """(N, 3 + 6 OCTAVES): points (N, 3) of the cube, sines and cosines of their octaves (NeRF, arXiv:2003.08934, Eq. 4)."""
    angles = (points / HALF)[..., None] * (math.pi / 2 * 2 ** torch.arange(OCTAVES)).to(points)
    return torch.cat([points / HALF, angles.sin().flatten(-2), angles.cos().flatten(-2)], -1)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Reconstructor:
    """The network in a folder (`config.json`, `model.safetensors`), in float32, ready to ask.

    raises InputError, one sentence, for a missing, truncated, pickled or mis-shaped file
    """
    return small.load(folder, lambda settings: Reconstructor(ReconstructorConfig(**settings)), device, "give")


def save(network: Reconstructor, folder: str | Path) -> None:
    """Write the folder that `load` reads, float16, each file by rename."""
    small.save(network, network.config, folder)
