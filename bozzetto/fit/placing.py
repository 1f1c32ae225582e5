# SPDX-License-Identifier: Apache-2.0
"""A solid that knows neither camera nor scale, put behind the picture that it was made from.

A feed-forward reconstructor (TripoSR) answers with a field in a frame of its own: where the picture's camera stands in it, how far
away, with which lens, and how large the object is, it does not say. These are found here by the picture: of the field's surface,
drawn from a camera, outline and colours should be the picture's. A coarse search over directions and lenses, each with the scale and
place that give the outline's box, then Nelder and Mead's simplex from the best of them. What is found makes the field a `Solid`,
which any recipe goes on from.

Letters: N = CELLS, of a frustum's grid along each axis; M vertices, F faces of the field's surface.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage, optimize
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.errors import InputError
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.frustum import Frustum, cell_centres
from bozzetto.kernels.antialias import antialias
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize
from bozzetto.priors.solid import EMPTY, agree_with_silhouette
from bozzetto.priors.triplane import Field, Surface

CELLS = 128  # of the frustum's grid: the fit's own grid has 112 across the picture
COLOURS = 64  # cells of the grid of colours
SEARCH, REFINE = (40, 64), (72, 128)  # vertices of the field's lattice along a side, and pixels a side of the picture
ELEVATIONS = [math.radians(x) for x in range(-20, 76, 12)]
TURNS = [math.radians(x) for x in (-24, -8, 8, 24)]
LENSES = (0.25, 0.7)  # strengths of the perspective
STARTS, STEPS, LAST_STEPS = 3, 120, 150  # of the search, and how often each of them, and the best, is drawn
COLOUR_WEIGHT = 1.0  # of the mean difference of colours beside the outlines' 1 - IoU
TURN, LENS = 0.02, 0.01  # losses of a radian squared off the field's own front, and of an e-fold squared off the usual lens
USUAL_LENS = 0.6  # the released preview's, about


class Pose(NamedTuple):
    """How a field stands behind a picture.

    turn       azimuth in the field's frame from which the picture was taken, radians; 0 is +x
    elevation  radians
    p          strength of the perspective (`frustum`)
    size       crop widths in a unit of the field
    right, up  where the middle of the field's surface lies in the picture, crop widths from its centre
    """

    turn: float
    elevation: float
    p: float
    size: float
    right: float
    up: float

    def frustum(self, azimuth: float, pixels: int = 512) -> Frustum:
        """That of the crop, in the frame in which the picture's azimuth is `azimuth`."""
        return Frustum.of(azimuth, self.elevation, self.p, pixels)

    def to_crop(self, points: Tensor, middle: Tensor, azimuth: float) -> Tensor:
        """Points (..., 3) of the field's frame in the crop's."""
        turn, shift = self._motion(azimuth)
        return self.size * (points - middle.to(points)) @ turn.mT.to(points) + shift.to(points)

    def to_field(self, points: Tensor, middle: Tensor, azimuth: float) -> Tensor:
        """The inverse."""
        turn, shift = self._motion(azimuth)
        return (points - shift.to(points)) @ turn.to(points) / self.size + middle.to(points)

    def _motion(self, azimuth: float) -> tuple[Tensor, Tensor]:
        c, s = math.cos(azimuth - self.turn), math.sin(azimuth - self.turn)
        turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        axes = self.frustum(azimuth).camera.c2w[0, :, :2].double()
        return turn, axes @ torch.tensor([self.right, self.up], dtype=torch.float64)


@dataclass(frozen=True)
class Placed:
    """Where a field stands, and how well it fits.

    middle  (3,) in the field's frame: of its surface's bounding box
    iou     of the field's outline and the picture's, in [0, 1]
    """

    pose: Pose
    middle: Tensor
    iou: float


def place(field: Field, source: Source, azimuth: float = 0.0, elevation: float | None = None) -> Solid:
    """The solid behind a picture, of a field that was made from it (`triplane.Field`).

    azimuth    of the picture's camera in the frame of the solid, radians
    elevation  of it in the field's frame, where that is known; else found
    raises     InputError where the field is nowhere dense enough to have a surface
    """
    return resampled(field, find(field, source, elevation), source, azimuth)


@torch.no_grad()
def find(field: Field, source: Source, elevation: float | None = None) -> Placed:
    """The pose under which a field's surface looks most like the picture; raises as `place`."""
    whole = field.mesh(REFINE[0])
    if not len(whole.faces):
        raise InputError(f"{source.name}: the network sees nothing solid here; use the embedded first guess (leave --guess out)")
    middle = ((whole.vertices.amin(0) + whole.vertices.amax(0)) / 2).cpu()
    fine, coarse = (_centred(s, middle) for s in (whole, field.mesh(SEARCH[0])))
    if not len(coarse.faces):
        coarse = fine  # thinner than the coarse lattice sees

    def of(surface: Surface, size: int) -> Callable[[np.ndarray], float]:
        return lambda x: _loss(_pose(x, elevation), surface, source, size)

    rough, exact = of(coarse, SEARCH[1]), of(fine, REFINE[1])
    directions = [(turn, e) for e in (ELEVATIONS if elevation is None else [elevation]) for turn in TURNS]
    starts = [_values(_boxed(Pose(*direction, p, 1.0, 0.0, 0.0), coarse, source)) for direction in directions for p in LENSES]
    best = min((_simplex(rough, x, STEPS) for x in sorted(starts, key=rough)[:STARTS]), key=lambda x: x[0])
    _, values = _simplex(exact, best[1], LAST_STEPS, 0.4)
    pose = _pose(values, elevation)
    return Placed(pose, middle, 1 - _outline(drawn(fine, pose, REFINE[1])[1], source.crop(REFINE[1]).alpha))


def resampled(field: Field, found: Placed, source: Source, azimuth: float) -> Solid:
    """A placed field in the cells of the picture's frustum: logits are log(density / threshold), 0 at its surface."""
    pose, middle = found.pose, found.middle
    frustum = pose.frustum(azimuth)
    coverage = F.avg_pool2d(source.crop(2 * CELLS).alpha[None, None], 2)[0]

    def ask(cells: int, wanted: Tensor, what: Callable[[Tensor], Tensor], empty: Tensor) -> Tensor:
        at = pose.to_field(frustum.points(cell_centres(cells, cells, cells).double()), middle, azimuth).float()
        low, high = field.box.to(at)
        wanted = wanted & (at > low).all(-1) & (at < high).all(-1)
        out = empty.expand(*wanted.shape, *empty.shape).clone()
        out[wanted] = what(at[wanted]).to(out)
        return out

    columns = F.max_pool2d(coverage, 3, stride=1, padding=1) > 0  # and a cell around: the surface lies between cells
    logits = ask(
        CELLS, columns.expand(CELLS, -1, -1), lambda x: (field.density(x).clamp(min=1e-30) / field.threshold).log(), torch.tensor(EMPTY)
    )
    occupancy = agree_with_silhouette(logits.clamp(EMPTY, -EMPTY), coverage)
    near = F.max_pool3d((logits > EMPTY).float()[None], CELLS // COLOURS)[0] > 0
    near &= F.max_pool3d((logits < 2 * -EMPTY).float()[None], CELLS // COLOURS)[0] > 0
    colour = ask(COLOURS, near, field.colour, torch.full((3,), 0.5))
    _, nearest = ndimage.distance_transform_edt(~near.numpy(), return_indices=True)
    colour = colour[tuple(torch.from_numpy(nearest).long())] if bool(near.any()) else colour
    return Solid(
        occupancy, colour.movedim(-1, 0).contiguous(), coverage, azimuth, pose.elevation, pose.p, is_drawn=True, fit=round(found.iou, 4)
    )


def _centred(surface: Surface, middle: Tensor) -> Surface:
    return Surface((surface.vertices.cpu() - middle).float(), surface.faces.cpu(), surface.colours.cpu().float())


def drawn(centred: Surface, pose: Pose, size: int) -> tuple[Tensor, Tensor]:
    """Premultiplied sRGB (S, S, 3) and coverage (S, S) of a surface whose middle is the origin, as the picture would show it."""
    vertices = pose.to_crop(centred.vertices, torch.zeros(3), 0.0)
    camera: Camera = pose.frustum(0.0, size).camera
    clip = camera.clip(vertices)
    rast = rasterize(clip, centred.faces, camera.size)
    inside = interpolate(centred.colours.to(vertices), rast, clip, centred.faces)
    mask = (rast[..., 3:] > 0).to(vertices)
    pixels = antialias(torch.cat([inside * mask, mask], -1), rast, clip, centred.faces)[0]
    return pixels[..., :3], pixels[..., 3]


def _loss(pose: Pose, centred: Surface, source: Source, size: int) -> float:
    if not (0.02 < pose.p < 1.5 and 0.01 < pose.size < 100 and abs(pose.elevation) < 1.5):
        return 10.0
    crop = source.crop(size)
    rgb, alpha = drawn(centred, pose, size)
    both, either = torch.minimum(alpha, crop.alpha).clamp(min=0), torch.maximum(alpha, crop.alpha)
    colours = ((rgb - crop.rgb).abs().mean(-1) * both).sum() / either.sum()  # of all: to look at less is no gain
    usual = TURN * pose.turn**2 + LENS * math.log(pose.p / USUAL_LENS) ** 2
    return _outline(alpha, crop.alpha) + COLOUR_WEIGHT * float(colours) + usual


def _outline(alpha: Tensor, wanted: Tensor) -> float:
    """1 - IoU of two coverages."""
    return 1 - float(torch.minimum(alpha, wanted).clamp(min=0).sum() / torch.maximum(alpha, wanted).sum())


def _boxed(pose: Pose, centred: Surface, source: Source) -> Pose:
    """The same direction and lens, with the size and place that give the box of the picture's outline."""
    rows, columns = (torch.nonzero((source.crop(512).alpha > 0.5).any(axis))[:, 0].double() for axis in (1, 0))
    want = torch.stack([torch.stack([c[0], c[-1] + 1]) / 512 for c in (columns, rows)])  # (2, 2): u and v, from and to
    for _ in range(4):  # perspective makes it not quite linear
        u = pose.frustum(0.0).coordinates(pose.to_crop(centred.vertices.double(), torch.zeros(3), 0.0))[:, :2]
        have = torch.stack([u.amin(0), u.amax(0)], 1)
        size = pose.size * float((want[:, 1] - want[:, 0]).max() / (have[:, 1] - have[:, 0]).max())
        right, down = ((want.mean(1) - have.mean(1)) * size / pose.size).tolist()
        pose = pose._replace(size=size, right=pose.right + right, up=pose.up - down)
    return pose


def _values(pose: Pose) -> np.ndarray:
    """A pose as numbers whose steps weigh alike in the picture."""
    return np.array([pose.turn, pose.elevation, math.log(pose.p), 3 * math.log(pose.size), 6 * pose.right, 6 * pose.up])


def _pose(x: np.ndarray, elevation: float | None) -> Pose:
    return Pose(
        float(x[0]),
        float(x[1]) if elevation is None else elevation,
        math.exp(min(max(float(x[2]), -9.0), 9.0)),
        math.exp(min(max(float(x[3]) / 3, -9.0), 9.0)),
        float(x[4]) / 6,
        float(x[5]) / 6,
    )


def _simplex(loss: Callable[[np.ndarray], float], start: np.ndarray, evaluations: int, scale: float = 1.0) -> tuple[float, np.ndarray]:
    """Nelder and Mead 1965: the least loss found, and where."""
    corners = np.concatenate([start[None], start + np.eye(6) * np.array([0.12, 0.12, 0.3, 0.12, 0.12, 0.12]) * scale])
    options = {"initial_simplex": corners, "maxfev": evaluations, "xatol": 1e-4, "fatol": 1e-6, "adaptive": True}
    found = optimize.minimize(loss, start, method="Nelder-Mead", options=options)
    return float(found.fun), found.x
