# SPDX-License-Identifier: Apache-2.0
"""NeuS: a signed distance, rendered as a volume so that its surface is where most is seen.

Wang et al. 2021, NeuS (arXiv:2106.10689); on a hash grid whose levels open one after the other, with a term on curvature, as in Li et
al. 2023, Neuralangelo (arXiv:2306.03092), and in Wonder3D's fusion (arXiv:2310.15008). The rendering is `render.volume`'s: weights from
an s-density of sharpness k, which is learnt.

Normals are the exact gradient of the field, by a kernel that has gradients itself (`kernels.hashgrid.slope`). Finite differences, which
Neuralangelo and Wonder3D take, ask the field four to six times more a point, which on a CPU is most of the time; what they are taken
for, a step as wide as a cell, so that neighbours are smoothed together, is in the term `curvature`: it compares the exact gradients at two
points a cell of the finest open level apart. Differs, too: sections between ends instead of slopes at middles (`render.volume`);
k = exp(10 v) as published, in units of the object.

Letters: f the SDF, negative inside, object units; M points; R rays, n sections, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.render.volume import absorbed_by_sdf
from bozzetto.shapes.field import Field, Frequencies, HashGrid
from bozzetto.shapes.shape import Step
from bozzetto.shapes.volume import Course, Volume

VISIBLE = 5.0  # 1 / k: beyond, all but exp(-5) of the light has passed, or has been stopped
EVERY = 4  # of the points, one has its curvature measured
SLACK = 1.1  # by which f may grow faster than a distance


class SignedDistance(nn.Module):
    """A `Medium`: the number is f.

    sharpness  k to begin with, 1 / object unit
    anneal     share of a run over which sections seen from behind lose their gradients
    """

    noise = 0.0

    def __init__(self, sharpness: float = 20.0, anneal: float = 0.0) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(math.log(sharpness) / 10))
        self.anneal, self.done = anneal, 1.0

    @property
    def sharpness(self) -> Tensor:
        """k."""
        return torch.exp(10 * self.exponent).clamp(1e-6, 1e6)

    def begin(self, share: float) -> None:
        self.done = min(share / self.anneal, 1.0) if self.anneal > 0 else 1.0

    def seen(self, values: Tensor, before: Tensor) -> Tensor:
        return values

    def occupied(self, kept: Tensor, reach: float) -> Tensor:
        return kept.abs() < SLACK * reach + VISIBLE / self.sharpness

    def propose(self, values: Tensor, width: Tensor) -> Tensor:
        between = (values[:, 1:] + values[:, :-1]) / 2
        ends = torch.cat([values[:, :1], between, values[:, -1:]], 1)
        return absorbed_by_sdf(ends, width.expand(values.shape), self.sharpness)

    def places(self, ends: Tensor) -> Tensor:
        return ends

    def absorption(self, values: Tensor, ends: Tensor) -> Tensor:
        return absorbed_by_sdf(values, ends.diff(dim=1), self.sharpness, self.done)

    def shared(self, weights: Tensor) -> Tensor:
        return (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) / 2

    def outward(self, gradient: Tensor) -> Tensor:
        return gradient

    def signed(self, values: Tensor) -> Tensor:
        return values

    def wanted(self, sdf: Tensor) -> Tensor:
        return sdf

    def losses(self, field: Field, points: Tensor, step: Step) -> dict[str, Tensor]:
        """`eikonal`: (|grad f| - 1)^2; `curvature`: squared difference of unit normals at points a finest cell apart; `sparse`:
        exp(-100 |f|), against surfaces that nobody sees."""
        value, gradient = field.value_and_gradient(points)
        some = slice(None, None, EVERY)
        shift = F.normalize(torch.randn(points[some].shape, generator=step.generator), dim=1)
        beside = field.value_and_gradient(points[some] + field.encoding.finest * field.unit * shift)[1]
        bend = F.normalize(gradient[some], dim=1) - F.normalize(beside, dim=1)
        return {
            "eikonal": (gradient.norm(dim=1) - 1).square().mean(),
            "curvature": bend.square().sum(1).mean(),
            "sparse": torch.exp(-100 * value.abs()).mean(),
        }


def neus(
    lower: Sequence[float] = (-0.55, -0.55, -0.55),
    upper: Sequence[float] = (0.55, 0.55, 0.55),
    *,
    encoding: HashGrid | Frequencies | None = None,
    radius: float = 0.3,
    sharpness: float = 20.0,
    anneal: float = 0.1,
    course: Course = Course(),
    generator: torch.Generator,
) -> Volume:
    """A sphere, to be optimised.

    lower, upper  of the box, object units; the sphere is in its middle, with this radius
    encoding      a hash grid with one hidden layer unless given; frequencies have four, and softplus
    sharpness, anneal  as `SignedDistance`
    """
    encoding = encoding or HashGrid(generator=generator)
    is_smooth = isinstance(encoding, Frequencies)
    field = Field(encoding, lower, upper, depth=4 if is_smooth else 1, is_smooth=is_smooth, generator=generator)
    field.number.become_sphere(radius / field.unit, field.unit)
    return Volume(field, SignedDistance(sharpness, anneal), course)
