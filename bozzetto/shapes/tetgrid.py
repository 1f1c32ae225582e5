# SPDX-License-Identifier: Apache-2.0
"""Tetrahedral grids: a Kuhn lattice of any size in any box, and its refinement round the surface.

Shen et al. 2021 (arXiv:2111.04276), Sec. 3.1.2: tets with a sign change and their neighbours are cut into eight each, with
the SDF averaged at the midpoints; all others are dropped. Differs from the released code: grids are made, not read from a
file; the octahedron in a tet is cut along the diagonal between the midpoints of edges 02 and 13 (Bey 1995), so that a
refined Kuhn lattice is Kuhn again and tets never grow thin; and the refined grid knows on which `side` of the surface
its cut boundary must stay, without which the surface opens there.

Letters: N vertices, T tets (v0, v1, v2, v3) with det(v1 - v0, v2 - v0, v3 - v0) > 0, E edges (a, b) with a < b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bozzetto.kernels import tets as tables
from bozzetto.kernels.tets import CHILDREN, KUHN

Cells = int | tuple[int, int, int]
Corner = Sequence[float] | float
HOLD = 1e-3  # how far from 0 the SDF of boundary vertices is held, in edge lengths


@dataclass(frozen=True)
class TetGrid:
    """Vertices at rest and how they are joined. Lists of a Kuhn lattice are made when asked for; marching needs none.

    vertices  (N, 3) float32 or float64, object units
    side      (N,) int8: +1 a vertex that must stay outside the surface, -1 inside, 0 free; ±1 only on the grid's boundary
    cells     cells along x, y, z of a Kuhn lattice (vertex (i, j, k) is number (i (ny + 1) + j) (nz + 1) + k), or None
    listed    (T, 4) int64, the tets of any other grid, or None
    """

    vertices: Tensor
    side: Tensor
    cells: tuple[int, int, int] | None = None
    listed: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.cells is None) == (self.listed is None):
            raise ValueError("tet grid: give either the cells of a lattice or a list of tets")
        n = math.prod(c + 1 for c in self.cells) if self.cells else len(self.vertices)
        if self.vertices.shape != (n, 3) or self.side.shape != (n,):
            raise ValueError(f"tet grid: expected {n} vertices and sides, got {tuple(self.vertices.shape)} and {tuple(self.side.shape)}")

    def __len__(self) -> int:
        """N."""
        return len(self.vertices)

    @classmethod
    def kuhn(
        cls,
        cells: Cells,
        lower: Corner = -0.55,
        upper: Corner = 0.55,
        dtype: torch.dtype = torch.float32,
    ) -> TetGrid:
        """A box cut into cells and each cell into six tets; its boundary is outside.

        cells         along x, y, z; or one number along the longest side, and others so that cells are nearly cubes
        lower, upper  corners of the box, object units, (3,) or one number; the default holds an object of longest side 1
        """
        lo, hi = ((x, x, x) if isinstance(x, (int, float)) else tuple(x) for x in (lower, upper))
        sides = [b - a for a, b in zip(lo, hi, strict=True)]
        if isinstance(cells, int):
            counts = [max(round(cells * side / max(*sides, 1e-300)), 1) for side in sides]
            cells = (counts[0], counts[1], counts[2])
        n = cells
        if min(n) < 1 or not all(a < b for a, b in zip(lo, hi, strict=True)):
            raise ValueError(f"kuhn: expected at least one cell a side and lower < upper, got {n}, {lo}, {hi}")
        axes = [torch.arange(c + 1, dtype=torch.float64) * ((b - a) / c) + a for c, a, b in zip(n, lo, hi, strict=True)]
        vertices = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).to(dtype)
        side = torch.ones([c + 1 for c in n], dtype=torch.int8)
        side[1:-1, 1:-1, 1:-1] = 0
        return cls(vertices, side.reshape(-1), cells=n)

    @cached_property
    def tets(self) -> Tensor:
        """(T, 4) int64, all of positive determinant."""
        if self.listed is not None:
            return self.listed
        nx, ny, nz = self.cells or (0, 0, 0)
        i, j, k = torch.meshgrid(torch.arange(nx), torch.arange(ny), torch.arange(nz), indexing="ij")
        base = ((i * (ny + 1) + j) * (nz + 1) + k).reshape(-1, 1, 1)
        corner = torch.from_numpy(KUHN)
        return (base + ((corner >> 2) * (ny + 1) + (corner >> 1 & 1)) * (nz + 1) + (corner & 1)).reshape(-1, 4)

    @cached_property
    def _edge_lists(self) -> tuple[Tensor, Tensor]:
        return find_edges(self.tets, len(self.vertices))

    @property
    def edges(self) -> Tensor:
        """(E, 2) int64, a < b, sorted."""
        return self._edge_lists[0]

    @property
    def tet_edges(self) -> Tensor:
        """(T, 6) int64, the numbers of each tet's edges 01, 02, 03, 12, 13, 23."""
        return self._edge_lists[1]

    @cached_property
    def _lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.tets.int().numpy(), self.edges.int().numpy(), self.tet_edges.int().numpy()

    def lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tets, edges and tet edges as int32 arrays, for the kernel."""
        return self._lists

    @cached_property
    def spacing(self) -> float:
        """h of the lattice of cubes whose tets have this mean volume (h^3 / 6): the cube root of the mean determinant."""
        if self.cells is not None:
            extent = (self.vertices[-1] - self.vertices[0]).double() / torch.tensor(self.cells)
            return float(extent.prod() ** (1 / 3))
        return float(determinants(self.vertices, self.tets).mean() ** (1 / 3))

    @cached_property
    def reach(self) -> Tensor:
        """(N,) how far each vertex may move, in any direction and whatever the others do, with no tet folding: a little less than
        half the least width of its tets (a tet can only become flat along a direction in which two vertices moved by its width).
        For a lattice of cubes, 0.99 h / (2 sqrt(3))."""
        if self.cells is not None:
            ny, nz = self.cells[1:]
            corner = [((c >> 2) * (ny + 1) + (c >> 1 & 1)) * (nz + 1) + (c & 1) for c in range(8)]
            width = np.full(8, np.inf)
            tables.least_width(self.vertices[corner].double().numpy(), KUHN, width)
            return torch.full((len(self.vertices),), 0.495 * float(width.min()), dtype=self.vertices.dtype)
        width = np.full(len(self.vertices), np.inf)
        tables.least_width(self.vertices.double().numpy(), self.tets.numpy(), width)
        return torch.from_numpy(0.495 * width).to(self.vertices)

    def hold(self, sdf: Tensor) -> Tensor:
        """The SDF (N,) with boundary vertices kept on their side: no gradient where it had to be changed."""
        side, least = self.side.to(sdf.device), HOLD * self.spacing
        return torch.where(side > 0, sdf.clamp(min=least), torch.where(side < 0, sdf.clamp(max=-least), sdf))


class Refined(NamedTuple):
    """A refined grid; `parents` (N', 2): each vertex is the midpoint of two old ones (twice the same for one that was kept)."""

    grid: TetGrid
    sdf: Tensor
    parents: Tensor


def subdivide_surface(grid: TetGrid, sdf: Tensor, rings: int = 1) -> Refined:
    """Eight tets for each that the surface crosses, and for all within `rings` of them (sharing a vertex); others go.

    grid, sdf  sdf (N,), negative inside; boundary vertices are held on their side first
    rings      at least 1: without neighbours the surface would end at the new boundary; as many as there are for a full
               subdivision (children 8 t to 8 t + 7 of tet t)
    returns    `Refined`; the zero set is the same surface, and all children have an eighth of their parent's volume
    raises     ValueError without any sign change
    """
    if rings < 1:
        raise ValueError(f"subdivide: expected at least 1 ring, got {rings}")
    sdf, n = grid.hold(sdf.detach()), len(grid.vertices)
    positive = (sdf > 0).cpu()
    inside = positive[grid.tets].sum(1)
    selected = (inside > 0) & (inside < 4)
    if not selected.any():
        raise ValueError("subdivide: no tet has a sign change, so there is no surface to refine")
    for _ in range(rings):
        touched = torch.zeros(n, dtype=torch.bool)
        touched[grid.tets[selected].reshape(-1)] = True
        grown = touched[grid.tets].any(1)
        if bool((grown == selected).all()):
            break
        selected = grown
    tets = grid.tets[selected]
    kept, tets = torch.unique(tets, return_inverse=True)
    edges, tet_edges = find_edges(tets, len(kept))
    parents = torch.cat([torch.stack([kept, kept], 1), kept[edges]])
    # vertices 0..3 of the tet, then midpoints 01 02 03 12 13 23 as 4..9
    ten = torch.cat([tets, tet_edges + len(kept)], 1)
    children = ten[:, torch.from_numpy(CHILDREN)].reshape(-1, 4)
    p = parents.to(sdf.device)
    new_sdf = (sdf[p[:, 0]] + sdf[p[:, 1]]) / 2
    vertices = (grid.vertices[parents[:, 0]] + grid.vertices[parents[:, 1]]) / 2
    border = torch.zeros(len(parents), dtype=torch.bool)
    faces = _open_faces(tets)
    border[faces.reshape(-1)] = True
    pairs = faces[:, [[0, 1], [0, 2], [1, 2]]].reshape(-1, 2).sort(1).values
    code = edges[:, 0] * len(kept) + edges[:, 1]
    border[len(kept) + torch.searchsorted(code, pairs[:, 0] * len(kept) + pairs[:, 1])] = True
    side = torch.where(border, torch.where(new_sdf.cpu() > 0, 1, -1), 0).to(torch.int8)
    return Refined(TetGrid(vertices, side, listed=children), new_sdf, parents)


def determinants(vertices: Tensor, tets: Tensor) -> Tensor:
    """(T,) float64, six times the signed volumes."""
    v = vertices.detach().double()[tets]
    d = v[:, 1:] - v[:, :1]
    return (torch.linalg.cross(d[:, 0], d[:, 1]) * d[:, 2]).sum(1)


def find_edges(tets: Tensor, num_vertices: int) -> tuple[Tensor, Tensor]:
    """All edges (E, 2) int64, a < b, sorted; and the numbers (T, 6) of each tet's, in the order 01, 02, 03, 12, 13, 23."""
    t = np.ascontiguousarray(tets.cpu().numpy())
    edges, number = tables.edges_of(t, num_vertices)
    return torch.from_numpy(edges), torch.from_numpy(number)


def _open_faces(tets: Tensor) -> Tensor:
    """(B, 3) the triangles that only one tet has: the grid's boundary."""
    faces = tets[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3).sort(1).values
    _, index = torch.unique(faces[:, 0] * (int(tets.max()) + 1) + faces[:, 1], return_inverse=True)  # two numbers make one
    order = torch.argsort(index * (int(tets.max()) + 1) + faces[:, 2])
    f = faces[order]
    same = (f[1:] == f[:-1]).all(1)
    single = torch.ones(len(f), dtype=torch.bool)
    single[1:] &= ~same
    single[:-1] &= ~same
    return f[single]
