# SPDX-License-Identifier: Apache-2.0
"""A surface of Gaussians: their depths from many cameras, fused into one closed surface (`fusion`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera, looked_at, orbit
from bozzetto.errors import InputError
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.shapes.fusion import fuse
from bozzetto.shapes.gaussians import Gaussians
from bozzetto.shapes.tetgrid import TetGrid

TAIL = 5e-4  # share of the points on each side that may be stray and do not stretch the box


@brief
@dataclass(frozen=True)
class Looks:
    """V pictures of Gaussians. rgb (V, H, W, 3) premultiplied sRGB, alpha and depth (V, H, W)."""

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    cameras: Camera


def sphere(g: Gaussians, views: int, size: int) -> Camera:
    """Cameras all round the Gaussians that are not faint, which they see whole; pictures of `size` pixels a side."""
    solid = g.means.detach()[g.opacities.detach() > 0.5].double()
    if not len(solid):
        raise InputError("no Gaussian is opaque enough for a surface; fit the scene for longer")
    centre = solid.median(0).values
    radius = 1.2 * float((solid - centre).norm(dim=1).quantile(0.99)) + 1e-6
    k = torch.arange(views, dtype=torch.float64) + 0.5
    elevation = torch.asin(1 - 2 * k / views)  # Fibonacci sphere
    cameras = orbit(math.pi * (1 + 5**0.5) * k, elevation, radius / math.sin(0.3), size=size, fov=0.6)
    return replace(cameras, c2w=torch.cat([cameras.c2w[:, :, :3], cameras.c2w[:, :, 3:] + centre[:, None]], 2))


def look(g: Gaussians, cameras: Camera, progress: Callable[[float], None] = lambda share: None, *, median: bool = True) -> Looks:
    """Render the cameras one by one, since a batch would need the memory of all of them at once. `median` as in `Gaussians.render`."""
    parts = []
    with torch.no_grad():
        for v in range(len(cameras)):
            views = g.render(cameras[v], median=median)
            parts.append((views.rgb, views.alpha[..., 0], views.depth[..., 0]))
            progress((v + 1) / len(cameras))
    rgb, alpha, depth = (torch.cat(x) for x in zip(*parts, strict=True))
    return Looks(rgb, alpha, depth, cameras)


def surface(looks: Looks, cells: int, *, is_object: bool = True) -> tuple[Tensor, Tensor]:
    """Vertices and faces of the fused depths, in the world; `cells` of the lattice along the box's longest side.

    is_object  what the Gaussians show is all there is, with nothing round it
    raises     InputError where the cameras see nothing
    """
    low, high = box(looks) if is_object else looked_into(looks.cameras)
    grid = TetGrid.kuhn(cells, low.tolist(), high.tolist())
    sdf = fuse(grid, looks.depth, looks.alpha, looks.cameras)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, sdf, grid)
    if not len(faces):
        raise InputError("the Gaussians have no surface that these cameras see; fit the scene for longer, or give other cameras")
    return vertices, faces


def box(looks: Looks) -> tuple[Tensor, Tensor]:
    """Corners (3,) of a box round what the views see, with room for the lattice to close."""
    points = [
        looks.cameras[v].unproject(looks.cameras.pixel_centres()[None], looks.depth[v : v + 1].double())[0][looks.alpha[v] > 0.5]
        for v in range(len(looks.cameras))
    ]
    found = torch.cat(points)
    if not len(found):
        raise InputError("the Gaussians have no surface that these cameras see; fit the scene for longer, or give other cameras")
    order = found.sort(0).values
    skip = int(TAIL * len(found))
    low, high = order[skip], order[-1 - skip]
    spare = 0.04 * (high - low).max().clamp(min=1e-6)
    return low - spare, high + spare


def looked_into(cameras: Camera) -> tuple[Tensor, Tensor]:
    """Corners of the cube that cameras in a room look into: all of a room would leave nothing of the lattice to what is in it."""
    centre, radius = looked_at(cameras.c2w)
    return centre - 0.5 * radius, centre + 0.5 * radius
