# SPDX-License-Identifier: Apache-2.0
"""First SDFs on a Kuhn lattice, from what one may have: an ellipsoid, occupancy logits, silhouettes, a mesh.

All are in object units, negative inside, (N,) in the order and dtype of the grid's vertices, and have a zero set: a shape that is
empty on this grid raises `EmptySurface`. Values are cut off at two grid spacings: no crossed edge of a distance field reaches that
far, so the surface is unchanged, and an optimiser that wears the surface away layer by layer finds no deep values to fill first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bozzetto.camera import Camera
from bozzetto.kernels.marching import crossed_edges
from bozzetto.kernels.winding import unsigned_distance, winding_number
from bozzetto.mesh import Mesh
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


def visual_hull(grid: TetGrid, masks: Tensor, cameras: Camera) -> Tensor:
    """The largest distance from any silhouette, in the plane of the point: at most the distance from the hull.

    masks  (V, H, W) or (V, H, W, 1), coverage in [0, 1]; outside its picture a point is outside the object, behind a camera unjudged
    """
    alpha = masks.detach().double().cpu().reshape(len(cameras), *cameras.size)
    pixels, depth = cameras.to("cpu").project(grid.vertices.double())
    unit = torch.ones_like(depth) if cameras.is_orthographic else depth
    sdf = torch.full((len(grid.vertices),), -torch.inf, dtype=torch.float64)
    for a, uv, d, z, K in zip(alpha, pixels, depth, unit, cameras.K.cpu(), strict=True):
        sdf = torch.where(d > 0, torch.maximum(sdf, _silhouette_distance(a, uv) * z / K[0, 0]), sdf)
    return _finish(grid, sdf, "no grid vertex lies inside all silhouettes; do masks and cameras belong together")


def mesh(grid: TetGrid, surface: Mesh) -> Tensor:
    """The distance from a mesh, exact beside it, inside where the generalised winding number exceeds 1/2, so holes are bridged."""
    v = grid.vertices.double()
    number = winding_number(v, surface.vertices, surface.faces)
    sign = _finish(grid, 0.5 - number, "no grid vertex lies inside the mesh; are its faces clockwise, or are there too few cells")
    near = torch.unique(crossed_edges(sign, grid))
    sdf = torch.full_like(sign, BAND * grid.spacing)
    sdf[near] = unsigned_distance(v[near], surface.vertices, surface.faces).to(sign).clamp(max=BAND * grid.spacing)
    return torch.where(sign > 0, sdf, -sdf)


def _finish(grid: TetGrid, sdf: Tensor, why: str) -> Tensor:
    held = grid.hold(sdf.to(grid.vertices.dtype).clamp(-BAND * grid.spacing, BAND * grid.spacing))
    if not (held <= 0).any():
        raise EmptySurface(f"dmtet: {why}")
    return held


def _silhouette_distance(alpha: Tensor, uv: Tensor) -> Tensor:
    """Distance in pixels (N,) from a silhouette (H, W), negative inside, at uv (N, 2) as (column, row); coverage decides beside it."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(alpha.numpy(), 1)  # all round the picture is outside
    inside = padded > 0.5
    if not inside.any():
        return torch.full((len(uv),), torch.inf, dtype=torch.float64)
    to_in, to_out = distance_transform_edt(~inside), distance_transform_edt(inside)
    d = np.where(to_in + to_out > 1, np.where(inside, 0.5 - to_out, to_in - 0.5), 0.5 - padded)
    size = torch.tensor([d.shape[1], d.shape[0]], dtype=torch.float64)
    x = (uv.double() + 1) / size * 2 - 1
    value = functional.grid_sample(torch.from_numpy(d)[None, None], x.view(1, 1, -1, 2), padding_mode="border", align_corners=False)
    outside = ((x.abs() - 1).clamp(min=0) * size / 2).nan_to_num(nan=0, posinf=1e6)  # beyond the padding, distances grow on
    return value.reshape(-1) + outside.norm(dim=1)
