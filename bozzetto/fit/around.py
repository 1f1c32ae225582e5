# SPDX-License-Identifier: Apache-2.0
"""Random cameras for score distillation: new ones at each step, near the picture's at first, later all round the object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from bozzetto.fit.settings import Within
from bozzetto.shapes.shape import Step


@dataclass(frozen=True)
class Around:
    """Views uniform in azimuth and in the sine of elevation, at the picture's distance: a pose code's change of distance is 0."""

    views: Annotated[int, Within(1, 64)] = 2
    """distilled a step"""
    lowest_deg: Annotated[float, Within(-90, 90)] = -10.0
    """least elevation of the distilled views"""
    highest_deg: Annotated[float, Within(-90, 90)] = 60.0
    """greatest elevation of the distilled views"""
    near_deg: Annotated[float, Within(0, 180)] = 60.0
    """azimuth of the first views, either side of the picture's; after two fifths of the steps they come from all round"""

    def __call__(self, azimuth: float, step: Step) -> tuple[Tensor, Tensor]:
        """Azimuths and elevations (V,) float64 at a step, radians; azimuth is the picture's."""
        u = torch.rand(2, self.views, generator=step.generator, dtype=torch.float64)
        reach = math.radians(self.near_deg + (180 - self.near_deg) * min(step.share / 0.4, 1.0))
        low, high = (math.sin(math.radians(x)) for x in (self.lowest_deg, self.highest_deg))
        return azimuth + reach * (2 * u[0] - 1), torch.asin(low + (high - low) * u[1])
