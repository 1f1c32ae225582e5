# SPDX-License-Identifier: Apache-2.0
"""Posed pictures of one object to a surface with colours, by the reconstructor (`priors.reconstructor`): One-2-3-45, arXiv:2306.16928.

The cube that the network knows is laid round the object: `Cube` goes from the pictures' own frame to it. The surface is where the
network's distance is 0 on a lattice, by marching tetrahedra; which view sees which point of it, its own depth maps say.

Letters: V views, S pixels a side, N points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from scipy.spatial import cKDTree
from torch import Tensor

from bozzetto import image
from bozzetto.brief import brief
from bozzetto.camera import Camera, looked_at
from bozzetto.errors import InputError
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.priors.cost_volume import hull_distance, lattice, outline_distance, unproject
from bozzetto.priors.reconstructor import HALF, Field, Posed, Reconstructor
from bozzetto.render.bake import seen
from bozzetto.render.extend import extend
from bozzetto.render.mesh import render_mesh
from bozzetto.shapes.tetgrid import TetGrid

ROOM = 1.04  # of the cube's unit, round the visual hull's longest side
COARSE, PASSES = 40, 3  # cells a side in which the hull is sought, and how often
CHUNK = 1 << 15  # points asked at a time


@brief
@dataclass(frozen=True)
class Cube:
    """x of the cube = turn (x' - centre) scale, x' of the pictures' own frame.

    centre (3,), turn (3, 3) float64, a rotation; scale of lengths
    """

    centre: Tensor
    turn: Tensor
    scale: float

    def cameras(self, cameras: Camera) -> Camera:
        """Of the pictures' frame in the cube's."""
        c2w = cameras.c2w.double()
        moved = (c2w[:, :, 3] - self.centre) @ self.turn.mT * self.scale
        return replace(cameras, c2w=torch.cat([self.turn @ c2w[:, :, :3], moved[..., None]], -1))

    def back(self, points: Tensor) -> Tensor:
        """Points (N, 3) of the cube in the pictures' frame."""
        return (points.double() / self.scale @ self.turn + self.centre).to(points)

    def there(self, points: Tensor) -> Tensor:
        """The inverse of `back`."""
        return ((points.double() - self.centre) @ self.turn.mT * self.scale).to(points)


def cropped(rgba: Tensor, camera: Camera, size: int, margin: float = 0.08) -> tuple[Tensor, Camera]:
    """A premultiplied picture (H, W, 4) cut to the square round its object, (4, size, size), and the camera that sees that.

    raises  ValueError for a picture without an object
    """
    rows, columns = (torch.nonzero(rgba[..., 3].amax(d) > 0.5)[:, 0] for d in (1, 0))
    if not len(rows):
        raise ValueError("cropped: nothing in the picture is opaque")
    top, bottom, left, right = (float(x) for x in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    side = max(bottom - top, right - left) / (1 - 2 * margin)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    K = camera.K.clone()
    K[:, 0, 2] -= x
    K[:, 1, 2] -= y
    K[:, :2] *= size / side
    return image.resample(rgba, (x, y, side), size).clamp(0, 1).permute(2, 0, 1).contiguous(), replace(camera, K=K, size=(size, size))


def cube_round(alpha: Tensor, cameras: Camera) -> Cube:
    """The cube round the visual hull of coverages (V, S, S): upright as the cameras are in the mean, its +x towards the first of them. What
    is beside a picture is outside, unless the object touches that picture's border.

    raises  InputError where no point is inside all outlines
    """
    c2w = cameras.c2w.double()
    up = F.normalize(c2w[:, :, 1].mean(0), dim=0)
    ahead = c2w[0, :, 2] - (c2w[0, :, 2] @ up) * up
    if float(ahead.norm()) < 1e-6:  # it looks straight down
        ahead = torch.linalg.cross(c2w[0, :, 0], up)
    ahead = F.normalize(ahead, dim=0)
    turn = torch.stack([ahead, torch.linalg.cross(up, ahead), up])
    centre, distance = looked_at(c2w)
    widths = cameras.size[1] / cameras.K[:, 0, 0].double()
    side = float((widths if cameras.is_orthographic else widths * distance).max())
    outlines, is_cut = outline_distance(alpha), torch.tensor([image.touches_border(a) for a in alpha])
    for k in range(PASSES):
        x = lattice(COARSE, HALF).double()
        cube = Cube(centre, turn, 1 / side)
        there = cube.cameras(cameras)
        _, shown = unproject(outlines[:, None], there, x)
        near = HALF / COARSE  # half a cell: thin parts are between the cells' centres
        inside = (hull_distance(outlines, there, x) < near) & (shown | is_cut[:, None]).all(0)
        if not inside.any():
            raise InputError("no point is inside the object's outline in all pictures; are these poses and pictures of one scene?")
        main = x[largest(inside)]
        low, high = main.amin(0), main.amax(0)
        centre = cube.back((low + high)[None] / 2)[0]
        side = side * float((high - low).max()) * (ROOM if k == PASSES - 1 else 1.2)
    return Cube(centre, turn, 1 / side)


def largest(inside: Tensor) -> Tensor:
    """The largest connected part of cells (COARSE^3,) bool: others are where outlines cross by chance."""
    parts, _ = label(inside.view(COARSE, COARSE, COARSE).numpy())
    return torch.from_numpy(parts == np.bincount(parts.ravel())[1:].argmax() + 1).view(-1)


@torch.no_grad()
def distances(
    network: Reconstructor, field: Field, points: Tensor, told: Callable[[float], None] = lambda share: None, *, variance: bool = True
) -> Tensor:
    """As `Reconstructor.distance`, of any number of points (N, 3), without gradients."""
    away = torch.empty(len(points))
    for part in torch.arange(len(points)).split(CHUNK):
        away[part] = network.distance(field, points[part], variance=variance)
        told((int(part[-1]) + 1) / len(points))
    return away


def surface(
    network: Reconstructor, field: Field, cells: int, told: Callable[[float], None] = lambda share: None, *, variance: bool = True
) -> tuple[Tensor, Tensor]:
    """Vertices (N, 3) and faces (F, 3) of the cube, on a lattice of so many cells a side; N is 0 where nothing is inside."""
    grid = TetGrid.kuhn(cells, -HALF, HALF)
    away = distances(network, field, grid.vertices, told, variance=variance)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, grid.hold(away), grid)
    return vertices, faces


@torch.no_grad()
def painter(
    network: Reconstructor, field: Field, vertices: Tensor, faces: Tensor, pictures: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Colours of a surface in the cube: a function of its points and unit normals, (N, 3) each, to sRGB (N, 3). What no view sees has the
    colour that the surface round it leads to.

    pictures  as `Reconstructor.colour`
    """
    normals = vertex_normals(vertices, faces)
    rgba = field.rgba if pictures is None else pictures
    cameras = field.cameras.resized((rgba.shape[-2], rgba.shape[-1]))
    depth = render_mesh(Mesh(vertices, faces, normals), cameras).depth[..., 0]

    def looked(points: Tensor, outward: Tensor) -> tuple[Tensor, Tensor]:
        found, weights = [], []
        for part in torch.arange(len(points)).split(CHUNK):
            sees = torch.stack(
                [
                    seen(points[part], outward[part], cameras[[v]], depth[v], rgba[v, :3].permute(1, 2, 0), rgba[v, 3], margin=1.0)[1]
                    for v in range(len(cameras))
                ]
            )
            found.append(network.colour(field, points[part], sees, pictures)[0])
            weights.append(sees.amax(0))
        return torch.cat(found), torch.cat(weights)

    known, weight = looked(vertices, normals)
    mean = (known * weight[:, None]).sum(0) / weight.sum().clamp(min=1e-9)
    whole = extend(faces, known - mean, weight) + mean
    tree = cKDTree(vertices.numpy())

    def colours(points: Tensor, outward: Tensor) -> Tensor:
        direct, weight = looked(points, outward)
        nearest = whole[torch.from_numpy(np.atleast_1d(tree.query(points.numpy())[1]))].to(direct)
        share = (4 * weight).clamp(max=1)[:, None]
        return (share * direct + (1 - share) * nearest).clamp(0, 1)

    return colours


def joined(pictures: Sequence[tuple[Tensor, Camera]]) -> Posed:
    """One set of several pictures (4, S, S) with a camera each."""
    return Posed(torch.stack([p for p, _ in pictures]), Camera.joined([c for _, c in pictures]))
