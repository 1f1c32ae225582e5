# SPDX-License-Identifier: Apache-2.0
"""Score distillation by a prior that draws several views of an object together: cameras in groups (`Groups`), and the term (`Together`).

MVDream (arXiv:2308.16512), Sec. 3.4: with x0 the V renderings of a group, and D what the prior makes of them under a text,

    loss = |x0 - D|**2 / 2,    D = phi D_g std(D_c) / std(D_g) + (1 - phi) D_g

with D_g guided and D_c not, standard deviations over the whole group. Its gradient x0 - D is that of SDS weighted by sigma / alpha
where phi is 0 (`sds.residual`); the spread that strong guidance has blown up is brought back where it is not. As in the released code a
step has one level for all of its groups, and the null knows the cameras, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, residual, sds
from bozzetto.fit.loop import Loss
from bozzetto.fit.settings import Within
from bozzetto.priors.prior import Prior
from bozzetto.shapes.shape import Shape, Step


@dataclass(frozen=True)
class Groups:
    """Random cameras round the origin, in groups of evenly spaced views, which share their elevation, field of view and distance.

    The views' first azimuth is drawn from all. Half of the steps draw elevations evenly in the angle, half in its sine.
    """

    count: Annotated[int, Within(1, 64)] = 1
    """groups of views a step"""
    lowest_deg: Annotated[float, Within(-90, 90)] = 0.0
    """least elevation of the views"""
    highest_deg: Annotated[float, Within(-90, 90)] = 30.0
    """greatest elevation of the views"""
    narrowest_deg: Annotated[float, Within(1, 120)] = 15.0
    """least field of view"""
    widest_deg: Annotated[float, Within(1, 120)] = 60.0
    """greatest field of view"""
    closest: Annotated[float, Within(0.1, 10)] = 0.8
    """least width of the pictures, at the object's centre, object units"""
    farthest: Annotated[float, Within(0.1, 10)] = 1.0
    """greatest width of the pictures, at the object's centre, object units"""

    def __call__(self, together: int, size: int, step: Step) -> Camera:
        """`together` cameras a group, group by group, counter-clockwise, of `size` pixels a side."""
        u = torch.rand(4, self.count, generator=step.generator, dtype=torch.float64)
        is_even = bool(torch.rand((), generator=step.generator) < 0.5)
        low, high = math.radians(self.lowest_deg), math.radians(self.highest_deg)
        elevation = torch.asin(math.sin(low) + (math.sin(high) - math.sin(low)) * u[1]) if is_even else low + (high - low) * u[1]
        fov = torch.deg2rad(self.narrowest_deg + (self.widest_deg - self.narrowest_deg) * u[2])
        distance = (self.closest + (self.farthest - self.closest) * u[3]) / (2 * torch.tan(fov / 2))
        azimuth = 2 * math.pi * (u[0, :, None] + torch.arange(together) / together)
        elevation, fov, distance = (x.repeat_interleave(together) for x in (elevation, fov, distance))
        return orbit(azimuth.flatten(), elevation, distance, size=size, fov=fov)


@dataclass
class Together:
    """Score distillation by a joint prior: loss `name`, whose value does not measure progress.

    prior      of V views, which its condition is told the cameras of
    groups     cameras of a step
    levels     noise levels to draw from, one for a step
    weight     of the loss, which is a sum over latents
    guidance   scale of classifier-free guidance; 1 is none
    rescale    phi
    size       pixels a side of the renderings; the prior resizes them to its own
    text       what the object is
    negative   what guidance leads away from; empty: the learnt null
    stray      how far the background of a group strays from the prior's own grey, to either side, sRGB
    """

    prior: Prior
    groups: Groups
    levels: Levels
    weight: float
    guidance: float
    rescale: float
    size: int
    text: str
    negative: str = ""
    stray: float = 0.0
    name: str = "sds"

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        x0, cameras = self.seen(shape, step)
        sigma = self.levels.draw(self.prior.denoiser, 1, step.number, generator=step.generator).expand(len(x0))
        with torch.no_grad():
            cond, null = (self.prior.condition(cameras=cameras, text=text) for text in (self.text, self.negative or None))
        guided = classifier_free(self.prior.denoiser, null, self.guidance, rescale=self.rescale, rescales="x0")
        loss = sds(guided, x0, sigma, cond, generator=step.generator, weight=residual)
        return {self.name: Loss(self.weight, loss)}

    def seen(self, shape: Shape, step: Step) -> tuple[Tensor, Camera]:
        """A step's x0 (B, V, ...), with gradients, and its B V cameras: each group over one grey."""
        together = self.prior.shape[0]
        cameras = self.groups(together, self.size, step)
        u = torch.rand(self.groups.count, generator=step.generator)
        grey = (self.prior.background + self.stray * (2 * u - 1)).clamp(0, 1).repeat_interleave(together).view(-1, 1, 1, 1)
        return self.prior.encode_pictures(shape.render(cameras, "colour").over(grey)), cameras
