# SPDX-License-Identifier: Apache-2.0
"""Canonical coordinate maps (SweetDreamer, arXiv:2310.02596, Sec. 3.1): of each pixel, where on the object the point behind it lies.

    map(u) = (alpha(u) T (p(u) - c) / r,  2 alpha(u) - 1)

p is the point that depth says, in the mean along the ray, so that the first three channels are the mean of normalised positions weighted
by what is seen of them: 0 where nothing is, and less where the object is half transparent. c and r are centre and half sides of a box
round the object, each axis by its own side, or all three by the longest. T turns our frame into the published network's:
(x, y, z) -> (y, -x, z), in which an object's front, +x here, is at -y. The cameras that the network is told of are turned alike.

The released code widens the box by a tenth about the world's origin, here it is about the box's centre: the same for centred objects.

Letters: V views of H x W pixels, S pixels a side of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.priors.prior import Prior
from bozzetto.views import Views

CHANNELS = 4
ROOM = 1.1  # sides of the box in sides of the object's: coordinates end at 1 / 1.1
FLATTEST = 0.01  # of the longest side, the least that a side counts as: a sheet's gradients would have no bound
TURN = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
"""T, for cameras and points"""


@brief
@dataclass(frozen=True)
class Box:
    """What positions are relative to, in the frame of the views: centre and half sides (3,), float64."""

    centre: Tensor
    half: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor, *, is_isotropic: bool = False) -> Box:
        """With room round an object that reaches from `lower` to `upper` (3,), each axis by its own side, or all by the longest."""
        low, high = lower.detach().double().cpu(), upper.detach().double().cpu()
        side = high - low
        longest = side.max()
        side = longest.expand(3) if is_isotropic else side.maximum(FLATTEST * longest)
        return cls((low + high) / 2, side * ROOM / 2)


class MapPrior(Prior, Protocol):
    """A prior whose x0 are maps (4, S, S)."""

    def encode(self, views: Views, *, generator: torch.Generator | None = None, box: Box = ...) -> Tensor:
        """As `Prior.encode`, of depth and coverage; `box` is the object's, in the frame of the views; by default `UNIT`."""
        ...


UNIT = Box.of(torch.full((3,), -0.5), torch.full((3,), 0.5))
"""of an object as our frame has it: centred, its longest side 1"""


def coordinate_map(views: Views, box: Box, size: int) -> Tensor:
    """(V, 4, S, S) float32 of views that have depth: coordinates in [-1, 1], and coverage as -1 to 1; differentiable.

    Pixels without a depth, as just beyond an antialiased outline, have coordinates 0. Views of another size are averaged or stretched.
    """
    depth = views.depth[..., 0].float()
    pixels = views.cameras.pixel_centres().expand(*depth.shape, 2).to(depth)
    at = (views.cameras.unproject(pixels, depth) - box.centre.to(depth)) / box.half.to(depth)
    alpha = views.alpha.float()
    xyz = torch.where(depth[..., None] > 0, alpha * at @ TURN.mT.to(depth), 0.0)
    made = torch.cat([xyz, 2 * alpha - 1], -1).movedim(-1, 1)
    if made.shape[2:] == (size, size):
        return made
    return F.interpolate(made, (size, size), mode="bilinear", antialias=True)


def camera_label(cameras: Camera) -> Tensor:
    """(V, 12) float32: camera-to-world matrices (3, 4), turned, row by row. Positions are in sides of the object: the paper's network has
    seen distances of .9 to 1.1, the released recipe asks at 1.4 to 1.6."""
    return (TURN.to(cameras.c2w.device) @ cameras.c2w.double()).flatten(1).float()


def picture(maps: Tensor) -> Tensor:
    """(B, S, S, 3) in [0, 1] of maps (B, 4, S, S), to look at: coordinates as colours, over grey."""
    return (maps[:, :3].float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)
