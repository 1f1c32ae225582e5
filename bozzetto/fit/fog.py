# SPDX-License-Identifier: Apache-2.0
"""What a lift from a text alone begins with: a ball of fog, dense in its middle, on a hash grid (DreamFusion, arXiv:2209.14988).

Of a recipe that starts from either, `begun` is the guess where there is a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from bozzetto.fit.framed import Framed
from bozzetto.fit.recipe import Job
from bozzetto.fit.sculpt import LATTICE, SHOWN, Coarse, OnHashGrid, field_of, rough_surface
from bozzetto.fit.settings import Within
from bozzetto.fit.solid import Solid
from bozzetto.kernels.hashgrid import Levels
from bozzetto.priors.hint import FRAME
from bozzetto.shapes.density import Blob, Density
from bozzetto.shapes.field import Field, HashGrid
from bozzetto.shapes.volume import Course, Volume

DISTANCE = 2.0  # of the cameras that see it, in sides of the object
HALF = 0.55  # of the box, object units: priors were trained on objects within half a unit of the origin


@dataclass(frozen=True)
class Fog(OnHashGrid):
    """A density on a hash grid that begins as a ball."""

    steps: Annotated[int, Within(1, 100_000)] = 600
    """optimisation steps"""
    size: Annotated[int, Within(16, 1024)] = 64
    """pixels a side of the views that the prior is shown; it resizes them to its own"""
    radius: Annotated[float, Within(0.05, 1)] = 0.5
    """of the ball at first, of half the box's side"""

    def volume(self, seed: int) -> Volume:
        """The ball, round the origin."""
        generator = torch.Generator().manual_seed(seed)
        encoding = HashGrid(Levels(count=self.levels), generator=generator)
        field = Field(encoding, [-HALF] * 3, [HALF] * 3, base=Blob(radius=self.radius), generator=generator)
        course = Course(table_lr=self.table_lr, net_lr=self.net_lr)
        return Volume(field, Density(unit=HALF), course, sections=self.sections, lattice=LATTICE)


def begun(job: Job[Any], solid: Solid | None, settings: Coarse) -> tuple[Volume, Tensor, Framed]:
    """A density that a lift begins with, of the guessed solid, or fog without one; vertices of what it shows, or corners of what it shall
    show (N, 3); and how cameras see it.

    raises  InputError where a guess has nothing solid
    """
    if solid is None:
        fog = Fog(levels=settings.levels, sections=settings.sections, table_lr=settings.table_lr, net_lr=settings.net_lr)
        corners = torch.tensor([[-0.5] * 3, [0.5] * 3])
        return fog.volume(job.seed), corners, unseen(corners)
    rough = rough_surface(job, solid)
    framed = Framed.of(job.source, solid.frustum.camera, *rough, SHOWN)
    return field_of(solid, rough, settings, is_density=True, seed=job.seed), rough[0], framed


def unseen(vertices: Tensor) -> Framed:
    """Cameras round a shape (N, 3) that has no picture, as `Framed` has them: they look at the centre of its box from the front."""
    low, high = vertices.amin(0).double(), vertices.amax(0).double()
    centre, side, nothing = (low + high) / 2, float((high - low).max()), torch.zeros(1, 1, 3)
    moved, no_faces = (vertices.double() - centre).float(), torch.zeros(0, 3, dtype=torch.long)
    return Framed(centre, moved, no_faces, 0.0, 0.0, DISTANCE * side, FRAME * side, nothing, nothing[..., 0])
