# SPDX-License-Identifier: Apache-2.0
"""A density, rendered as a volume: a NeRF on a hash grid, which NeuS is compared with.

Mildenhall et al. 2020 (arXiv:2003.08934), on the encoding of Müller et al. 2022 (arXiv:2201.05989); from every side the same colour. The
coarse stages of Magic123 (arXiv:2306.17843) and DreamCraft3D (arXiv:2310.16818) are such fields, begun with a blob in the middle, here
of Magic3D's form (Lin et al. 2023, arXiv:2211.10440); DreamFusion's is a Gaussian.

Letters: r the field's number, s the density in 1 / object unit; M points; R rays, n sections, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.render.volume import absorbed
from bozzetto.shapes.field import Field, Frequencies, HashGrid
from bozzetto.shapes.shape import Step
from bozzetto.shapes.volume import Course, Volume

HIGHEST = 15.0  # of r under exp: beyond, neither density nor gradient grow
FADE = 0.95  # of what is remembered of a cell, at each look
THIN = 0.01  # absorption on a way from a cell's middle to its corner below which it is empty
STEEP = 60.0  # growth of r into a solid, over `unit`


class Density(nn.Module):
    """A `Medium`: s = activation(r) / unit.

    activation  `softplus`, or `exp`, whose gradient is as large as the density
    level       density of the surface, in 1 / object unit
    unit        object units in which the number counts: half the box's side has the published sense, a sphere of radius 1
    """

    noise = 1.0

    def __init__(self, activation: Literal["softplus", "exp"] = "exp", level: float = 20.0, unit: float = 0.5) -> None:
        super().__init__()
        if activation not in ("softplus", "exp"):
            raise ValueError(f"density: activation is 'softplus' or 'exp', got {activation!r}")
        self.activation, self.level, self.unit = activation, level, unit

    def density(self, values: Tensor) -> Tensor:
        """s of r."""
        made = F.softplus(values) if self.activation == "softplus" else torch.exp(values.clamp(max=HIGHEST))
        return made / self.unit

    def begin(self, share: float) -> None:
        pass

    def seen(self, values: Tensor, before: Tensor) -> Tensor:
        now = self.density(values)
        return torch.where(before.isinf(), now, now.maximum(FADE * before))

    def occupied(self, kept: Tensor, reach: float) -> Tensor:
        return kept * reach > min(THIN, float(kept.mean()) * reach)

    def propose(self, values: Tensor, width: Tensor) -> Tensor:
        return absorbed(self.density(values), width)

    def places(self, ends: Tensor) -> Tensor:
        return (ends[:, 1:] + ends[:, :-1]) / 2

    def absorption(self, values: Tensor, ends: Tensor) -> Tensor:
        return absorbed(self.density(values), ends.diff(dim=1))

    def shared(self, weights: Tensor) -> Tensor:
        return weights

    def outward(self, gradient: Tensor) -> Tensor:
        return -gradient

    def signed(self, values: Tensor) -> Tensor:
        """Of r, which is nearer to linear than s."""
        return self._surface - values

    @property
    def _surface(self) -> float:
        """r on the surface."""
        level = self.level * self.unit
        return math.log(math.expm1(level)) if self.activation == "softplus" else math.log(level)

    def wanted(self, sdf: Tensor) -> Tensor:
        return self._surface - STEEP / self.unit * sdf

    def losses(self, field: Field, points: Tensor, step: Step) -> dict[str, Tensor]:
        """`sparse`: log(1 + 2 s^2), the Cauchy loss against fog (Hedman et al. 2021, arXiv:2103.14645)."""
        s = self.density(field.value(points)) * self.unit
        return {"sparse": torch.log1p(2 * s.square()).mean()}


class Blob:
    """A first density: r gets strength (1 - |u| / radius), u from -1 to 1 along the box.

    strength, radius  10 and 0.5 in threestudio, on which DreamCraft3D is built
    """

    def __init__(self, strength: float = 10.0, radius: float = 0.5) -> None:
        self.strength, self.radius = strength, radius

    def __call__(self, u: Tensor) -> Tensor:
        return self.strength * (1 - u.square().sum(1).clamp(min=1e-12).sqrt() / self.radius)


def density(
    lower: Sequence[float] = (-0.55, -0.55, -0.55),
    upper: Sequence[float] = (0.55, 0.55, 0.55),
    *,
    encoding: HashGrid | Frequencies | None = None,
    blob: Blob | None = Blob(),
    activation: Literal["softplus", "exp"] = "exp",
    level: float = 20.0,
    course: Course = Course(),
    generator: torch.Generator,
) -> Volume:
    """A blob, or fog without one, to be optimised; arguments as `neus` and `Density`."""
    encoding = encoding or HashGrid(generator=generator)
    field = Field(encoding, lower, upper, base=blob, generator=generator)
    return Volume(field, Density(activation, level, field.unit), course, sections=32)
