# SPDX-License-Identifier: Apache-2.0
"""A head with one face, coloured by distillation: the object of the claims about two-faced shapes.

The shape is given, a sphere; only its colours are found, all round, from views of 32 pixels at one elevation. The prior is exact
(`priors.exact`), its bank is this head alone: what goes wrong is the doing of the loss, or of what the prior is not told. On one side
the head has an ear, so that it is not its own mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.distill.sds import Levels, Ramp
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import optimise
from bozzetto.fit.run import Run
from bozzetto.fit.terms import Pull
from bozzetto.priors.prior import Prior
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course, Tets
from bozzetto.views import Views

RADIUS, DISTANCE, WIDTH, ELEVATION, SIZE = 0.4, 2.0, 1.2, 0.1, 32
SKIN, FACE, EYE, EAR = (torch.tensor(c) for c in ([0.75, 0.75, 0.7], [0.9, 0.2, 0.15], [0.05, 0.05, 0.1], [0.1, 0.5, 0.25]))
Around = Callable[[Step], tuple[Tensor, Tensor]]


def colours(points: Tensor, normals: Tensor | None = None) -> Tensor:
    """sRGB (P, 3) of the head at points (P, 3): the face within 40 degrees of +x, the ear at azimuth 100 degrees."""
    u = F.normalize(points, dim=-1)
    azimuth, elevation = torch.atan2(u[:, 1], u[:, 0]), torch.asin(u[:, 2].clamp(-1, 1))
    rgb = SKIN.expand(len(points), 3).clone()
    rgb[(azimuth.abs() < math.radians(40)) & (elevation.abs() < math.radians(40))] = FACE
    rgb[((azimuth - math.radians(100)).abs() < math.radians(15)) & (elevation.abs() < math.radians(25))] = EAR
    for side in (-1, 1):
        rgb[((azimuth - 0.3 * side).square() + (elevation - 0.2).square()) < 0.12**2] = EYE
    return rgb


def ball(cells: int) -> DMTet:
    return DMTet.from_ellipsoid([RADIUS] * 3, (cells,) * 3, [-0.5] * 3, [0.5] * 3, [0.0] * 3)


def ring(azimuth: Sequence[float] | Tensor, size: int = SIZE) -> Camera:
    """Cameras at azimuths (V,), radians."""
    return orbit(azimuth, ELEVATION, DISTANCE, size=size, fov=2 * math.atan(WIDTH / DISTANCE / 2))


def all_round(count: int) -> Tensor:
    """(count,) even azimuths."""
    return 2 * math.pi * torch.arange(count, dtype=torch.float64) / count


def from_the_front(count: int, spread_deg: float) -> Tensor:
    """(count,) azimuths at the quantiles of a normal law about the front: how photographs are taken."""
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return math.radians(spread_deg) * math.sqrt(2) * torch.erfinv(2 * u - 1)


def head() -> Callable[[Camera], Views]:
    """The head as a bank's object."""
    vertices, faces = (x.detach() for x in ball(28).surface())
    normals = F.normalize(vertices, dim=-1)
    return lambda cameras: render_surface(vertices, faces, normals, cameras, colours)


def apart(count: int) -> Around:
    """A step's views: each azimuth drawn by itself."""
    return lambda step: _at(2 * math.pi * torch.rand(count, generator=step.generator, dtype=torch.float64))


def together() -> Around:
    """A step's views: four a quarter turn apart, counter-clockwise from a drawn azimuth on."""
    quarters = math.pi / 2 * torch.arange(4, dtype=torch.float64)
    return lambda step: _at(2 * math.pi * torch.rand(1, generator=step.generator, dtype=torch.float64) + quarters)


def _at(azimuth: Tensor) -> tuple[Tensor, Tensor]:
    return azimuth, torch.full_like(azimuth, ELEVATION)


def falling(steps: int) -> Levels:
    """Large levels first, small ones last: from .7 to .98 of all, to .02 to .3."""
    return Levels(Ramp(0.7, 0.02, 0, steps), Ramp(0.98, 0.3, 0, steps))


def coloured(pulls: Sequence[tuple[Prior, float, Around]], seed: int, steps: int) -> Tets:
    """The sphere after score distillation of its colours, from noise, by priors with weights, each in views of its own."""
    terms = [pull(prior, weight, around, falling(steps), f"prior {i}") for i, (prior, weight, around) in enumerate(pulls) if weight]
    shape = noise(seed)
    optimise(shape, terms, Run(None, {}), "colours", steps=steps, seed=seed)
    return shape


def noise(seed: int) -> Tets:
    """The sphere as it begins: grey, with noise on its colours."""
    generator = torch.Generator().manual_seed(seed)
    grid = ColourGrid.grey(-0.5, 0.5, 24)
    grid.logits.data += 0.3 * torch.randn(grid.logits.shape, generator=generator)
    return Tets(ball(20), Course(0.1, smooth=1, still=0.0, colour_lr=0.05), grid)


def pull(prior: Prior, weight: float, around: Around, levels: Levels, name: str) -> Pull:
    """Score distillation of it by a prior, without guidance."""
    nothing, no_faces = torch.zeros(SIZE, SIZE, 3), torch.zeros(0, 3, dtype=torch.long)
    framed = Framed(torch.zeros(3), torch.zeros(0, 3), no_faces, 0.0, ELEVATION, DISTANCE, WIDTH, nothing, nothing[..., 0])
    return Pull(prior, framed, around, levels, 0.1 * weight, 1.0, SIZE, text="", name=name)


def faces_of(shape: Tets) -> float:
    """How many faces' worth of red there is round the equator: 1 of the head, whatever runs together."""
    angle = all_round(360)
    points = RADIUS * torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1).float()
    with torch.no_grad():
        made, truth = (rgb[:, 0] - rgb[:, 1:].mean(1) > 0.35 for rgb in (_grid(shape)(points), colours(points)))  # half of the face's
    return float(made.sum() / truth.sum())


def off(shape: Tets, views: int = 48, is_turned: bool = False) -> float:
    """Root mean squared difference of colours from the head's own, over views all round it; of the best turn about the axis, where the
    prior did not know which way the head looks."""
    made, truth = _seen(shape, views)
    turns = range(views) if is_turned else (0,)
    return min(float((made.roll(k, 0) - truth).square().mean().sqrt()) for k in turns)


def sharpness(shape: Tets, views: int = 24) -> float:
    """Squared differences of neighbouring pixels in those views, as a share of the head's."""
    made, truth = (x.diff(dim=2).square().sum() for x in _seen(shape, views))
    return float(made / truth)


def _seen(shape: Tets, views: int) -> tuple[Tensor, Tensor]:
    cameras = ring(all_round(views), 48)
    with torch.no_grad():
        return shape.render(cameras, "colour").over(1.0), head()(cameras).over(1.0)


def _grid(shape: Tets) -> ColourGrid:
    assert shape.colours is not None
    return shape.colours
