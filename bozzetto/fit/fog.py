# SPDX-License-Identifier: Apache-2.0
"""What a lift from a text alone begins with: a ball of fog, dense in its middle, on a hash grid (DreamFusion, arXiv:2209.14988)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from bozzetto.fit.sculpt import LATTICE
from bozzetto.fit.settings import Within
from bozzetto.kernels.hashgrid import Levels
from bozzetto.shapes.density import Blob, Density
from bozzetto.shapes.field import Field, HashGrid
from bozzetto.shapes.volume import Course, Volume

HALF = 0.55  # of the box, object units: priors were trained on objects within half a unit of the origin


@dataclass(frozen=True)
class Fog:
    """A density on a hash grid."""

    steps: Annotated[int, Within(1, 100_000)] = 600
    """optimisation steps"""
    size: Annotated[int, Within(16, 1024)] = 64
    """pixels a side of the views that the prior is shown; it resizes them to its own"""
    radius: Annotated[float, Within(0.05, 1)] = 0.5
    """of the ball at first, of half the box's side"""
    table_lr: Annotated[float, Within(0, 1)] = 1e-2
    """Adam's step for the grid's entries"""
    net_lr: Annotated[float, Within(0, 1)] = 1e-3
    """Adam's step for the networks"""
    levels: Annotated[int, Within(1, 32)] = 10
    """of the hash grid"""
    sections: Annotated[int, Within(4, 256)] = 16
    """of a ray, where the field is asked with gradients"""

    def volume(self, seed: int) -> Volume:
        """The ball, round the origin."""
        generator = torch.Generator().manual_seed(seed)
        encoding = HashGrid(Levels(count=self.levels), generator=generator)
        field = Field(encoding, [-HALF] * 3, [HALF] * 3, base=Blob(radius=self.radius), generator=generator)
        course = Course(table_lr=self.table_lr, net_lr=self.net_lr)
        return Volume(field, Density(unit=HALF), course, sections=self.sections, lattice=LATTICE)
