# SPDX-License-Identifier: Apache-2.0
"""Score distillation of a shape's coordinate maps by a prior that is aligned (SweetDreamer, arXiv:2310.02596, Sec. 3.2).

The maps are relative to the shape's box, each axis by its own side, and the box changes with the shape. It is looked at every so often,
as in the released code, and here it moreover goes only a share of the way: one point that stands out from a thin object widens its thin
side by much, and changes every coordinate along it (claim `coordinates-box`). Nothing flows back into it: a shape could else please the
prior by stretching its box.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.fit.packing import Tensors
from bozzetto.fit.prompts import SIDES, side_of
from bozzetto.fit.terms import Asked, Pull, Sides
from bozzetto.priors.coordinates import Box, MapPrior
from bozzetto.priors.hint import FRAME
from bozzetto.priors.prior import Condition
from bozzetto.shapes.shape import Shape, Step
from bozzetto.shapes.start import EmptySurface

FAR, FOV = (1.4, 1.6), (math.radians(35), math.radians(45))
"""of the released recipe's cameras: distances in sides of the object, and angles"""


class MovingBox:
    """The box of a shape that changes: a moving average of its corners, without gradients.

    vertices      (N, 3) of the shape as it begins
    share         in (0, 1] of the way to what is seen that a look goes; 1 is the released code's
    is_isotropic  relative to the longest side on all axes
    """

    def __init__(self, vertices: Tensor, share: float = 0.1, *, is_isotropic: bool = False) -> None:
        self.corners, self.share, self.is_isotropic = _corners(vertices), share, is_isotropic

    def look(self, vertices: Tensor) -> None:
        """At the shape as it is now."""
        self.corners = torch.lerp(self.corners, _corners(vertices), self.share)

    def now(self) -> Box:
        return Box.of(self.corners[0], self.corners[1], is_isotropic=self.is_isotropic)


def _corners(vertices: Tensor) -> Tensor:
    """(2, 3) float64: the least and the greatest."""
    return torch.stack([vertices.detach().amin(0), vertices.detach().amax(0)]).double().cpu()


@dataclass
class Aligned(Pull):
    """As `Pull`, of coordinate maps in the colours' place. Cameras stand where the prior's did; guidance has the same camera both ways.

    box    of the shape
    every  steps between two looks at its surface
    """

    prior: MapPrior
    name: str = "sds_align"
    sides: Sides = "told"
    box: MovingBox = field(kw_only=True)
    every: int = field(kw_only=True, default=10)

    def ask(self, shape: Shape, step: Step) -> Asked:
        azimuth, elevation = (torch.as_tensor(x) for x in self.around(step))
        u = torch.rand(2, len(azimuth), generator=step.generator, dtype=torch.float64)
        far, fov = (low + (high - low) * x for (low, high), x in zip((FAR, FOV), u, strict=True))
        told = orbit(azimuth, elevation, far, size=self.size, fov=fov)
        side = torch.tensor([1.0, 1.0, 1.0, self.framed.width / FRAME], dtype=torch.float64)
        views = shape.render(self.framed.placed(replace(told, c2w=told.c2w * side)), "depth")
        x0 = self.prior.encode(views, box=self.box.now())
        sigma = self.levels.draw(self._base, len(x0), step.number, generator=step.generator)
        which = side_of(azimuth, elevation).tolist() if self.sides != "none" else [None] * len(azimuth)
        texts = [self.text if k is None else f"{self.text}, {SIDES[k]} view" for k in which]
        rows = [self.prior.condition(cameras=told[k], text=text) for k, text in enumerate(texts)]
        cond: Condition = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return Asked(x0, sigma, told, cond, null=self.prior.condition(cameras=told))

    def update(self, shape: Shape, step: Step) -> None:
        if (step.number + 1) % self.every == 0:
            with torch.no_grad(), contextlib.suppress(EmptySurface):  # of a shape that is nowhere for a while, the last box
                self.box.look(shape.surface()[0])

    def state(self) -> Tensors:
        return {"corners": self.box.corners}

    def restore(self, state: Tensors) -> None:
        self.box.corners = state["corners"]
