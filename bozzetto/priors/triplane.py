# SPDX-License-Identifier: Apache-2.0
"""A field of density and colour in three planes of features and a small network: what a triplane reconstructor answers with.

As TripoSR has it (Tochilkin et al. 2024, arXiv:2403.02151), after LRM (Hong et al. 2023, arXiv:2311.04400, Sec. 3.2) and EG3D (Chan et
al. 2022): a point reads the planes (x, y), (x, z) and (y, z), its *first* coordinate along their columns; the features are concatenated
and decoded. density = exp(raw + bias), colour = sigmoid(raw); the surface is where the density passes `threshold`.

On a lattice much less is computed than by asking each vertex (`lattice`), and the same mesh comes out. Differs from the released code:
our marching tetrahedra stand for marching cubes, and rays that miss the box are white where the released renderer fails.

Letters: F features a plane, W H its columns and rows, N points, R lattice vertices along an axis, M vertices of a surface;
raw (d, r, g, b) the network's answer; level the raw d at which density is the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.shapes.tetgrid import TetGrid

HIGHEST = 80.0  # of d + bias: the density stays finite in float32, where published code would hand infinity on
MARGIN = 2.2  # of raw d: blocks whose corners come so near the level are looked into; of density, a ninth of the threshold
SPREAD = 0.5  # and one that would reach the level with so much of its neighbourhood's range beyond its corners
HIT = 0.01  # units: rays that have less of the box are said to miss it, as in the released renderer

Layer = tuple[Tensor, Tensor]


class Field(Protocol):
    """A solid as a density in space, with colours. In the frame of docs/conventions.md but for scale and place: z up, the picture taken
    from the side of +x, +y to the picture's right."""

    @property
    def box(self) -> Tensor:
        """(2, 3): the lowest and the highest corner of where it knows anything."""
        ...

    @property
    def threshold(self) -> float:
        """The density that the surface has; more is inside."""
        ...

    def density(self, points: Tensor) -> Tensor:
        """(N,) > 0, at points (N, 3)."""
        ...

    def colour(self, points: Tensor) -> Tensor:
        """(N, 3) sRGB in [0, 1], at points (N, 3)."""
        ...

    def mesh(self, resolution: int = 256) -> Surface:
        """Its surface, by a lattice of so many vertices along each side of the box."""
        ...


class Surface(NamedTuple):
    """Vertices (M, 3) in the field's frame, faces (F, 3) int64, counter-clockwise seen from outside, colours (M, 3) sRGB in [0, 1].
    All are empty where the field is nowhere dense enough, and open where the box cuts the solid."""

    vertices: Tensor
    faces: Tensor
    colours: Tensor


@brief
@dataclass(frozen=True)
class Triplane:
    """A `Field`.

    planes     (3, F, H, W), of (x, y), (x, z), (y, z): rows run along the second coordinate, columns along the first
    layers     of the decoder, weight (out, in) and bias (out,), SiLU between them; the first reads 3 F features, plane by plane,
               the last writes raw (d, r, g, b). float32 or float64, as the planes are
    radius     half the side of the box, whose centre is the origin; the planes' outermost pixels end there, and beyond are zeros
    bias       added to d
    threshold  density of the surface
    """

    planes: Tensor
    layers: Sequence[Layer]
    radius: float = 0.87
    bias: float = -1.0
    threshold: float = 25.0

    @property
    def box(self) -> Tensor:
        """(2, 3), as `Field` has it."""
        return torch.tensor([[-self.radius] * 3, [self.radius] * 3]).to(self.planes)

    @property
    def level(self) -> float:
        """Raw d of the surface: 4.2189 as published."""
        return math.log(self.threshold) - self.bias

    def features(self, points: Tensor) -> Tensor:
        """(N, 3 F) at points (N, 3), bilinear between pixels' centres (at one half), zeros outside; plane by plane."""
        u = points.to(self.planes) / self.radius
        at = torch.stack([u[:, [0, 1]], u[:, [0, 2]], u[:, [1, 2]]])[:, None]
        read = F.grid_sample(self.planes, at, mode="bilinear", padding_mode="zeros", align_corners=False)  # (3, F, 1, N)
        return read[:, :, 0].permute(2, 0, 1).flatten(1)

    def raw(self, points: Tensor, chunk: int = 65536) -> Tensor:
        """(N, 4) at points (N, 3): d, r, g, b before their activations."""
        first = self.layers[0]
        parts = [self._decode(F.linear(self.features(p), *first), self.layers[-1]) for p in points.split(chunk) if len(p)]
        return torch.cat(parts) if parts else self.planes.new_zeros(0, 4)

    def density(self, points: Tensor) -> Tensor:
        """(N,), as `Field` has it."""
        return self.activated(self.raw(points)[:, 0])

    def colour(self, points: Tensor) -> Tensor:
        """(N, 3), as `Field` has it."""
        return torch.sigmoid(self.raw(points)[:, 1:])

    def activated(self, d: Tensor) -> Tensor:
        """Density of raw d, of any shape."""
        return torch.exp((d + self.bias).clamp(max=HIGHEST))

    def axis(self, resolution: int) -> Tensor:
        """(R,) from -radius to radius, both included: the lattice's vertices along each axis."""
        return torch.linspace(-self.radius, self.radius, resolution, dtype=torch.float64).to(self.planes)

    @torch.no_grad()
    def lattice(self, resolution: int = 256, stride: int | None = None) -> Tensor:
        """Raw d (R, R, R) at a lattice over the box, x slowest; the same to rounding as `raw` at each vertex, where it matters.

        The features are linear in each plane and so is the first layer: three tables of R x R hold what each plane adds to it, and a
        vertex is a sum of three rows (the planes are read 3 R^2 times instead of 3 R^3).

        stride  blocks of so many cells a side are decided by their corners: those that cross the level, come near it or may reach it
                (MARGIN, SPREAD) are computed, then all that the surface enters from them, until it enters no more. Elsewhere a
                corner's value stands for the block's, on the same side of the level. What can be missed is a part that lies within
                one block and of which no corner shows a trace. None: a block is a pixel of the planes, about, finer than which they
                hold nothing; 1: every vertex is computed
        """
        n = resolution
        stride = max(round((n - 1) / self.planes.shape[-1]), 1) if stride is None else stride
        if n < 2 or stride < 1:
            raise ValueError(f"lattice: expected at least 2 vertices and 1 cell a block, got {resolution} and {stride}")
        tables = self._tables(self.axis(n))
        at = torch.tensor(sorted({*range(0, n, stride), n - 1}), device=self.planes.device)
        every = torch.arange(n, device=at.device)
        coarse = self._at(tables, _numbers(at, n)).view([len(at)] * 3)
        if len(at) == n:
            return coarse
        low = torch.searchsorted(at, every, right=True).sub(1).clamp(max=len(at) - 2)  # the block that a vertex is in, and
        lower = torch.searchsorted(at, every).sub(1).clamp(min=0)  # the one before, for vertices on its face
        d = _take(coarse, low)
        done = torch.zeros_like(d, dtype=torch.bool)
        done[at[:, None, None], at[:, None], at] = True
        d[done] = coarse.flatten()
        extent = (at[:-1, None] + torch.arange(stride + 1, device=at.device)).minimum(at[1:, None])
        active = self._promising(coarse)
        computed = torch.zeros_like(active)
        while bool(active.any()):
            vertices = _spread(active, low, lower) & ~done
            todo = vertices.flatten().nonzero()[:, 0]
            d.view(-1)[todo] = self._at(tables, todo)
            done |= vertices
            computed |= active
            inside = d >= self.level
            active = _any_in(done & inside, extent) & _any_in(done & ~inside, extent) & ~computed
        return d

    def _promising(self, coarse: Tensor) -> Tensor:
        """Blocks (K - 1)^3 that may hold some of the surface, by their corners (K, K, K)."""
        high, low = (s * F.max_pool3d(s * coarse[None], 2, stride=1) for s in (1, -1))
        wide_high, wide_low = (s * F.max_pool3d(s * x, 3, stride=1, padding=1) for s, x in ((1, high), (-1, low)))
        spread = SPREAD * (wide_high - wide_low)
        may = (wide_high + spread > self.level) & (wide_low - spread < self.level)
        near = (high > self.level - MARGIN) & (low < self.level + MARGIN)
        return (may | near)[0]

    def _tables(self, axis: Tensor) -> list[Tensor]:
        """Three (R * R, neurons): what the planes (x, y), (x, z), (y, z) add to the first layer, by first and second coordinate."""
        weight, bias = self.layers[0]
        at = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1) / self.radius  # (R, R, 2): [i, j] is (axis i, axis j)
        out = []
        for plane, part in zip(self.planes, weight.chunk(3, 1), strict=True):
            added = torch.einsum("nf,fhw->nhw", part, plane)
            out.append(F.grid_sample(added[None], at[None], align_corners=False)[0].flatten(1).mT.contiguous())
        out[0] += bias
        return out

    def _at(self, tables: list[Tensor], numbers: Tensor, chunk: int = 16384) -> Tensor:
        """Raw d of lattice vertices by their numbers (i R + j) R + k."""
        n = math.isqrt(len(tables[0]))
        weight, bias = self.layers[-1]
        last = weight[:1], bias[:1]
        d = self.planes.new_empty(len(numbers))
        for start in range(0, len(numbers), chunk):
            part = numbers[start : start + chunk]
            ij, i, jk, k = part // n, part // (n * n), part % (n * n), part % n
            h = tables[0][ij] + tables[1][i * n + k] + tables[2][jk]
            d[start : start + chunk] = self._decode(h, last)[:, 0]
        return d

    def _decode(self, h: Tensor, last: Layer) -> Tensor:
        """What follows the first layer."""
        for weight, bias in self.layers[1:-1]:
            h = F.linear(F.silu(h), weight, bias)
        return F.linear(F.silu(h), *last)

    def mesh(self, resolution: int = 256, stride: int | None = None, raw: bool = False) -> Surface:
        """The solid's surface by a `lattice`, of which `stride` says how it is computed; `raw` as `surface`."""
        return self.surface(self.lattice(resolution, stride), raw)

    @torch.no_grad()
    def surface(self, lattice: Tensor, raw: bool = False) -> Surface:
        """Where the density is `threshold`, of raw d (R, R, R) on the lattice, six tetrahedra a cell.

        raw  place vertices where d, not the density, would be linear between two lattice vertices: nearer to the surface, as the
             density is an exponential, but not as published; the triangles are the same
        """
        n, d = len(lattice), lattice.flatten()
        sdf = self.level - d if raw else self.threshold - self.activated(d)
        axis = self.axis(n)
        vertices = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
        side = torch.zeros(1, dtype=torch.int8).expand(len(vertices))
        found, faces, _ = marching_tetrahedra(vertices, sdf, TetGrid(vertices, side, cells=(n - 1, n - 1, n - 1)))
        return Surface(found, faces, self.colour(found))

    @torch.no_grad()
    def render(self, cameras: Camera, samples: int = 128) -> Tensor:
        """Pictures (V, H, W, 3) over white, as the released preview has them: a step's length is 1 / samples however long the ray.

        Midpoints of `samples` equal parts of the ray within the box (its side a thousandth less); NeRF's quadrature (arXiv:2003.08934,
        Eq. 3), white behind, and where a ray misses the box.
        """
        origin, ray = (x.flatten(0, -2).to(self.planes) for x in cameras.rays())
        side = (1 - 1e-3) * self.radius
        safe = torch.where(ray.abs() < 1e-6, torch.full_like(ray, 1e-6), ray)
        ends = torch.stack([(side - origin) / safe, (-side - origin) / safe])
        near, far = ends.amin(0).amax(-1).clamp(min=0), ends.amax(0).amin(-1)
        out = torch.ones_like(origin)
        middle = (torch.arange(samples).to(self.planes) + 0.5) / samples
        for some in (far - near > HIT).nonzero()[:, 0].split(4096):
            t = near[some, None] * (1 - middle) + far[some, None] * middle
            raw = self.raw((origin[some, None] + t[..., None] * ray[some, None]).flatten(0, 1)).unflatten(0, t.shape)
            depth = self.activated(raw[..., 0]) / samples
            passed = torch.exp(depth - depth.cumsum(1))
            weight = passed * -torch.expm1(-depth)
            out[some] = (weight[..., None] * torch.sigmoid(raw[..., 1:])).sum(1) + 1 - weight.sum(1, keepdim=True)
        return out.view(len(cameras), *cameras.size, 3)


# ---- blocks of a lattice; `along` tells, for each position of an axis, which row stands there ----


def _numbers(at: Tensor, n: int) -> Tensor:
    """Of all vertices whose three indices are in `at`."""
    return ((at[:, None, None] * n + at[:, None]) * n + at).flatten()


def _take(x: Tensor, along: Tensor) -> Tensor:
    """x (K, K, K) with its rows, columns and layers taken by `along` (R,): (R, R, R)."""
    for axis in range(3):
        x = x.index_select(axis, along)
    return x


def _spread(active: Tensor, low: Tensor, lower: Tensor) -> Tensor:
    """Vertices (R, R, R) of active blocks, faces included."""
    for axis in range(3):
        active = active.index_select(axis, low) | active.index_select(axis, lower)
    return active


def _any_in(marked: Tensor, extent: Tensor) -> Tensor:
    """Blocks (K, K, K) with a marked vertex; extent (K, stride + 1) are the vertices of each along an axis."""
    for axis in range(3):
        marked = marked.index_select(axis, extent.flatten()).unflatten(axis, extent.shape).any(axis + 1)
    return marked
