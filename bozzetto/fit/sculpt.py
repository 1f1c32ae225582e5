# SPDX-License-Identifier: Apache-2.0
"""What methods that sculpt first and paint afterwards have in common: a field that begins as the guessed solid, and what follows it.

The published methods begin with a ball of fog and need thousands of steps to find the object in it. Here the field's number begins as
the solid's own signed distance, to which the networks add, and the colour's network is taught the guess's colours, so that hundreds of
steps do. The field then becomes a DMTet with a grid of colours, and that a mesh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.fit.recipe import Job
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.kernels.hashgrid import Levels
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.density import Density
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.field import Field, HashGrid
from bozzetto.shapes.neus import SignedDistance
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course as TetsCourse
from bozzetto.shapes.tets import Tets
from bozzetto.shapes.volume import Course, Medium, Volume, imitate

SHOWN = 512  # pixels a side at which priors are shown the picture
LATTICE = 80  # cells a side of the first distances
MARGIN = 0.1  # of the solid's longest side, around it
SHARPNESS = 40.0  # of the signed distance at first, over half the box's side


@dataclass(frozen=True)
class OnHashGrid:
    """A field on a hash grid, however it begins."""

    table_lr: Annotated[float, Within(0, 1)] = 1e-2
    """Adam's step for the grid's entries"""
    net_lr: Annotated[float, Within(0, 1)] = 1e-3
    """Adam's step for the networks"""
    levels: Annotated[int, Within(1, 32)] = 10
    """of the hash grid"""
    sections: Annotated[int, Within(4, 256)] = 16
    """of a ray, where the field is asked with gradients"""


@dataclass(frozen=True)
class Coarse(OnHashGrid):
    """A field on a hash grid that begins as the guess."""

    steps: Annotated[int, Within(1, 100_000)] = 200
    """optimisation steps"""
    picture: Annotated[int, Within(16, 1024)] = 96
    """pixels a side of the picture's own view"""
    around: Annotated[int, Within(16, 1024)] = 64
    """pixels a side of the views that priors are shown; they resize them to their own"""


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


class Rough(Protocol):
    """What a field can begin as: a `Solid`, or anything with logits above 0 inside and with colours, both at points (N, 3)."""

    def logits(self, points: Tensor) -> Tensor:
        """(N,)"""
        ...

    def colours(self, points: Tensor, normals: Tensor) -> Tensor:
        """sRGB (N, 3)"""
        ...


def rough_surface(job: Job[Any], solid: Solid) -> tuple[Tensor, Tensor]:
    """Of the guessed solid; raises InputError where nothing is solid."""
    if (rough := solid.surface()) is None:
        raise InputError(f"{job.source.name}: the first guess has nothing solid here; use --recipe guess")
    return rough


def field_of(solid: Solid, rough: tuple[Tensor, Tensor], settings: Coarse, *, is_density: bool = False, seed: int) -> Volume:
    """A field that begins as a solid and its colours: a signed distance (NeuS), or a density."""
    middle, half = cube(rough[0].amin(0), rough[0].amax(0))
    medium = Density(unit=half) if is_density else SignedDistance(sharpness=SHARPNESS / half)
    course = Course(table_lr=settings.table_lr, net_lr=settings.net_lr)
    return field_in(middle, half, solid, medium, Levels(count=settings.levels), course, settings.sections, seed)


def cube(low: Tensor, high: Tensor) -> tuple[Tensor, float]:
    """Middle and half a side of the cube round a box, with a margin."""
    return (low + high) / 2, float((high - low).max()) * (0.5 + MARGIN)


def field_in(middle: Tensor, half: float, rough: Rough, medium: Medium, levels: Levels, course: Course, sections: int, seed: int) -> Volume:
    """A field on a hash grid in a cube, that begins as something rough and its colours."""
    generator = torch.Generator().manual_seed(seed)
    encoding = HashGrid(levels, generator=generator)
    made = Field(encoding, (middle - half).tolist(), (middle + half).tolist(), generator=generator)
    volume = Volume(made, medium, course, sections=sections, lattice=LATTICE)
    imitate(volume, distances(rough, middle, half), rough.colours, generator=generator)
    return volume


def distances(solid: Rough, middle: Tensor, half: float) -> Callable[[Tensor], Tensor]:
    """A function from points (N, 3) to a signed distance to a solid's surface (N,), in a cube `half` to each side of its middle; that
    of a lattice's cells, smoothed by one of them."""
    at = (torch.arange(LATTICE) + 0.5) / LATTICE * 2 - 1
    u = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).view(-1, 3)
    inside = (torch.cat([solid.logits(middle + half * p) for p in u.split(1 << 18)]) > 0).view([LATTICE] * 3).numpy()
    away = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    grid = torch.from_numpy(ndimage.gaussian_filter(away, 1.0)).float()[None, None] * 2 * half / LATTICE

    def found(points: Tensor) -> Tensor:
        u = ((points - middle) / half).flip(1)[None, :, None, None]
        return F.grid_sample(grid, u, align_corners=False, padding_mode="border").view(-1)

    return found


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
