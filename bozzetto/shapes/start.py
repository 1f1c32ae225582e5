# SPDX-License-Identifier: Apache-2.0
"""First SDFs on a Kuhn lattice, from what one may have: an ellipsoid, occupancy logits, or another field.

All are in object units, negative inside, (N,) in the order and dtype of the grid's vertices, and have a zero set: a shape that is
empty on this grid raises `EmptySurface`. Values are cut off at two grid spacings: no crossed edge of a distance field reaches that
far, so the surface is unchanged, and an optimiser that wears the surface away layer by layer finds no deep values to fill first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bozzetto.kernels.marching import crossed_edges
from bozzetto.shapes.tetgrid import Corner, TetGrid

BAND = 2.0  # grid spacings; above sqrt(3), the longest edge of a cube's tets
Occupancy = Tensor | Callable[[Tensor], Tensor]


class EmptySurface(RuntimeError):
    """The SDF has one sign everywhere, so there is no surface; `DMTet.recover` plants a small one."""


def ellipsoid(grid: TetGrid, radii: Corner, centre: Corner = 0.0) -> Tensor:
    """Exact for a sphere; else right to first order near the surface."""
    r, c = (torch.as_tensor(x, dtype=torch.float64).expand(3) for x in (radii, centre))
    p = grid.vertices.double() - c
    k0, k1 = (p / r).norm(dim=1), (p / r**2).norm(dim=1)
    sdf = torch.where(k1 > 0, k0 * (k0 - 1) / k1.clamp(min=1e-30), -r.min())
    return _finish(grid, sdf, "no grid vertex lies in the ellipsoid; give more cells")


def occupancy(grid: TetGrid, logits: Occupancy) -> Tensor:
    """The same zero set as the logits', which are interpolated linearly if they are a volume (X, Y, Z) of cells that fill the box.

    Minus the logits divided by the median length of their gradient at the surface; ends of crossed edges are not cut off.
    """
    if isinstance(logits, Tensor):
        v, lo, hi = grid.vertices, grid.vertices[0], grid.vertices[-1]
        x = ((v - lo) / (hi - lo) * 2 - 1).flip(1).view(1, -1, 1, 1, 3)  # grid_sample counts axes from the last
        values = logits.detach().cpu().to(v)[None, None]
        field = -functional.grid_sample(values, x, mode="bilinear", padding_mode="border", align_corners=False).reshape(-1)
    else:
        with torch.no_grad():
            field = -torch.cat([logits(p).reshape(-1).cpu() for p in grid.vertices.split(65536)]).to(grid.vertices)
    ends = crossed_edges(grid.hold(field), grid)
    if not len(ends):
        raise EmptySurface("dmtet: the occupancy has one sign everywhere; move its threshold or fit the box to the object")
    assert grid.cells is not None
    step = ((grid.vertices[-1] - grid.vertices[0]) / torch.tensor(grid.cells).to(field)).tolist()
    slopes = torch.gradient(field.view([c + 1 for c in grid.cells]), spacing=step)
    slope = torch.stack(slopes).norm(dim=0).reshape(-1)[ends.reshape(-1)].median()
    sdf = field / slope.clamp(min=torch.finfo(field.dtype).tiny)
    cut = sdf.clamp(-BAND * grid.spacing, BAND * grid.spacing)
    cut[ends] = sdf[ends]
    return cut


def distance(grid: TetGrid, sdf: Callable[[Tensor], Tensor]) -> Tensor:
    """That of a field: a function from points (P, 3) float32 to values (P,) in units of length, asked for some 65536 points at a time.
    Ends of crossed edges are not cut off."""
    with torch.no_grad():
        field = grid.hold(torch.cat([sdf(p).reshape(-1).cpu() for p in grid.vertices.split(65536)]).to(grid.vertices))
    ends = crossed_edges(field, grid)
    if not len(ends):
        raise EmptySurface("dmtet: the SDF has one sign everywhere; fit the box to the object, or give more cells")
    cut = field.clamp(-BAND * grid.spacing, BAND * grid.spacing)
    cut[ends] = field[ends]
    return cut


def _finish(grid: TetGrid, sdf: Tensor, why: str) -> Tensor:
    held = grid.hold(sdf.to(grid.vertices.dtype).clamp(-BAND * grid.spacing, BAND * grid.spacing))
    if not (held <= 0).any():
        raise EmptySurface(f"dmtet: {why}")
    return held
