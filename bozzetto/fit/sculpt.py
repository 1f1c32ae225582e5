# SPDX-License-Identifier: Apache-2.0
"""What methods that sculpt first and paint afterwards have in common: a field that begins as the guessed solid, and what follows it.

The published methods begin with a ball of fog and need thousands of steps to find the object in it. Here the field's number begins as
the solid's own signed distance, to which the networks add, and the colour's network is taught the guess's colours, so that hundreds of
steps do. The field then becomes a DMTet with a grid of colours, and that a mesh.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.fit.recipe import Job
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Colours, Solid
from bozzetto.kernels.hashgrid import Levels
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.density import Density
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.field import Field, HashGrid
from bozzetto.shapes.neus import SignedDistance
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course as TetsCourse
from bozzetto.shapes.tets import Tets
from bozzetto.shapes.volume import Course, Volume

SHOWN = 512  # pixels a side at which priors are shown the picture
LATTICE = 80  # cells a side of the first distances
MARGIN = 0.1  # of the solid's longest side, around it
FALL = 60.0  # of the logarithm of a density that begins as a solid, over half the box's side
SHARPNESS = 40.0  # of the signed distance at first, over half the box's side
LESSONS, POINTS = 100, 4096  # steps, and points of each, in which the colours are taught


@dataclass(frozen=True)
class Coarse:
    """A field on a hash grid."""

    steps: Annotated[int, Within(1, 100_000)] = 200
    """optimisation steps"""
    picture: Annotated[int, Within(16, 1024)] = 96
    """pixels a side of the picture's own view"""
    around: Annotated[int, Within(16, 1024)] = 64
    """pixels a side of the views that priors are shown; they resize them to their own"""
    table_lr: Annotated[float, Within(0, 1)] = 1e-2
    """Adam's step for the grid's entries"""
    net_lr: Annotated[float, Within(0, 1)] = 1e-3
    """Adam's step for the networks"""
    levels: Annotated[int, Within(1, 32)] = 10
    """of the hash grid"""
    sections: Annotated[int, Within(4, 256)] = 16
    """of a ray, where the field is asked with gradients"""


@dataclass(frozen=True)
class Sculpture:
    """What a stage hands on: a surface (N, 3), (F, 3) of the crop's frame, its DMTet by name, its colours as `ColourGrid` has them, the
    last losses, and the step at which something that later stages ask for was found."""

    vertices: Tensor
    faces: Tensor
    dmtet: dict[str, Tensor]
    colours: dict[str, Tensor]
    losses: dict[str, float] = field(default_factory=dict)
    reached: float | None = None


def rough_surface(job: Job[Any], solid: Solid) -> tuple[Tensor, Tensor]:
    """Of the guessed solid; raises InputError where nothing is solid."""
    if (rough := solid.surface()) is None:
        raise InputError(f"{job.source.name}: the first guess has nothing solid here; use --recipe guess")
    return rough


def field_of(solid: Solid, rough: tuple[Tensor, Tensor], settings: Coarse, *, is_density: bool = False, seed: int) -> Volume:
    """A field that begins as a solid and its colours: a signed distance (NeuS), or a density."""
    generator = torch.Generator().manual_seed(seed)
    low, high = rough[0].amin(0), rough[0].amax(0)
    middle, half = (low + high) / 2, float((high - low).max()) * (0.5 + MARGIN)
    lower, upper = (middle - half).tolist(), (middle + half).tolist()
    distance = distances(solid, middle, half)
    medium = Density(level=20.0, unit=half) if is_density else SignedDistance(sharpness=SHARPNESS / half)
    level = math.log(20.0 * half)
    base: Callable[[Tensor], Tensor] = (lambda u: level - FALL * distance(u)) if is_density else (lambda u: half * distance(u))
    made = Field(HashGrid(Levels(count=settings.levels), generator=generator), lower, upper, base=base, generator=generator)
    with torch.no_grad():
        made.number.weights[-1].zero_()  # the networks begin by adding nothing
    teach(made, rough, solid.colours, generator)
    course = Course(table_lr=settings.table_lr, net_lr=settings.net_lr)
    return Volume(made, medium, course, sections=settings.sections, lattice=LATTICE)


def distances(solid: Solid, middle: Tensor, half: float) -> Callable[[Tensor], Tensor]:
    """A function from u (N, 3), a cube's coordinates in [-1, 1], to a signed distance to a solid's surface (N,), in the unit of u; that
    of a lattice's cells, smoothed by one of them."""
    at = (torch.arange(LATTICE) + 0.5) / LATTICE * 2 - 1
    u = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).view(-1, 3)
    inside = (torch.cat([solid.logits(middle + half * p) for p in u.split(1 << 18)]) > 0).view([LATTICE] * 3).numpy()
    away = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    grid = torch.from_numpy(ndimage.gaussian_filter(away, 1.0)).float()[None, None] * 2 / LATTICE

    def found(u: Tensor) -> Tensor:
        return F.grid_sample(grid, u.flip(1)[None, :, None, None], align_corners=False, padding_mode="border").view(-1)

    return found


def teach(made: Field, rough: tuple[Tensor, Tensor], colours: Colours, generator: torch.Generator) -> None:
    """The colour's network learns a solid's colours near its surface; the grid's entries stay, as the number reads them, too."""
    vertices, _ = rough
    optimiser = torch.optim.Adam(made.tint.parameters(), lr=1e-2)
    for _ in range(LESSONS):
        some = torch.randint(len(vertices), (POINTS,), generator=generator)
        points = vertices[some] + 0.02 * torch.randn(POINTS, 3, generator=generator)
        with torch.no_grad():
            inputs, wanted = made.inputs(points)[1], colours(points, torch.zeros_like(points))
        optimiser.zero_grad()
        (made.colour_of(inputs) - wanted).square().mean().backward()
        optimiser.step()


def tets_of(volume: Volume, cells: int, course: TetsCourse, colours: int) -> Tets:
    """A DMTet and a grid of colours from a field: `cells` and `colours` of each side of its box."""
    box = volume.field
    lower, upper = box.lower.tolist(), box.upper.tolist()
    dmtet = DMTet.from_occupancy(lambda points: -volume.signed(points), (cells, cells, cells), lower, upper)
    with torch.no_grad():
        grid = ColourGrid.of(box.colour, box.lower, box.upper, colours)
    return Tets(dmtet, course, grid)


def resumed(made: Sculpture, course: TetsCourse) -> Tets:
    """The DMTet and its colours that a stage has left."""
    return Tets(DMTet.from_state(made.dmtet), course, ColourGrid(**made.colours))


def even(step: Step) -> bool:
    """Whether a step is one of the picture's, where the priors have the others."""
    return step.number % 2 == 0


def odd(step: Step) -> bool:
    """The others."""
    return not even(step)


def handed_on(tets: Tets, losses: dict[str, float], reached: float | None = None) -> Sculpture:
    """What is kept of a stage that ends with a DMTet."""
    with torch.no_grad():
        vertices, faces = tets.surface()
    assert tets.colours is not None
    state = {k: v.detach() for k, v in tets.dmtet.state_dict().items()}
    return Sculpture(vertices.float(), faces, state, dict(tets.colours.state_dict()), losses, reached)
