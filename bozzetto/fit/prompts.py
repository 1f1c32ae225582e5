# SPDX-License-Identifier: Apache-2.0
"""A text for each side that an object is seen from, and what it must not look like there: view-dependent prompts with Perp-Neg.

A text-to-image model does not know where the camera stands, and draws the front of most things. It is told by words: "a red chair,
back view" (DreamFusion, arXiv:2209.14988, Sec. 3.2). Between two sides their conditions are mixed, and the sides that the view must not
show are negatives, of which only the part that is perpendicular to the condition counts (Perp-Neg, arXiv:2304.04968).

With a the azimuth from the front, r = 1 - |a| / 90 degrees in the front half and 2 - |a| / 90 in the back half:

    front half   r front + (1 - r) side    negatives  front, with f_fs(r);  side, with f_sf(1 - r)
    back half    r side + (1 - r) back     negatives  side, with f_sb(r);   front, with f_fsb(r)

where f(r) = a exp(-b r) + c, its constants those of threestudio (`DECAYS`). There the weights are minus f, as a negative is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bozzetto.priors.prior import Condition, Prior

SIDES = ("front", "side", "back", "overhead")
DECAYS = {"fs": (4.0, 0.5, -2.426), "sf": (4.0, 0.5, -2.426), "sb": (1.0, 0.5, -0.606), "fsb": (1.0, 0.5, 0.967)}
"""a, b, c by what is kept apart from what: front from side, side from front, side from back, front from side and back"""
OVERHEAD = math.radians(60)  # elevation above which a view is from above
NARROW = math.radians(45)  # of front and back, either side, where sides are not mixed


@dataclass(frozen=True)
class Told:
    """What a text prior is asked under, a row a view.

    cond       the condition
    negatives  conditions and weights (V,); none where sides are not kept apart
    """

    cond: Condition
    negatives: tuple[tuple[Condition, Tensor], ...] = ()


class Prompts:
    """A text's conditions by side.

    prior     reads texts
    text      what the object is
    perp_neg  mix the sides and keep them apart; otherwise each view has the condition of one side
    """

    def __init__(self, prior: Prior, text: str, perp_neg: bool = True) -> None:
        self.perp_neg = perp_neg
        self.sides = {side: prior.condition(text=f"{text}, {side} view") for side in SIDES}

    def __call__(self, azimuth: Tensor, elevation: Tensor) -> Told:
        """For views at azimuths (V,) from the object's front, and elevations (V,), radians."""
        a, above = _from_front(azimuth), elevation > OVERHEAD
        if not self.perp_neg:
            return Told(self._picked(side_of(azimuth, elevation)))
        in_front, r = a < math.pi / 2, torch.where(a < math.pi / 2, 1 - 2 * a / math.pi, 2 - 2 * a / math.pi)
        first, second = torch.where(in_front, 0, 1), torch.where(in_front, 1, 2)
        cond = _mixed(self._picked(first), self._picked(second), r)
        one = torch.where(in_front, decay("fs", r), decay("sb", r))
        other = torch.where(in_front, decay("sf", 1 - r), decay("fsb", r))
        negatives = ((self._picked(first), one), (self._picked(torch.where(in_front, 1, 0)), other))
        overhead = _mixed(self._picked(torch.full_like(first, 3)), cond, above.to(r))
        return Told(overhead, tuple((c, torch.where(above, 0.0, w)) for c, w in negatives))

    def _picked(self, side: Tensor) -> Condition:
        """One side's rows for each view; side (V,) indexes SIDES."""
        return {k: torch.cat([self.sides[SIDES[i]][k] for i in side.tolist()]) for k in self.sides["front"]}


def side_of(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """(V,) indices into SIDES of views at azimuths (V,) from the object's front, and elevations (V,), radians."""
    a = _from_front(azimuth)
    return torch.where(elevation > OVERHEAD, 3, torch.where(a < NARROW, 0, torch.where(a > math.pi - NARROW, 2, 1)))


def _from_front(azimuth: Tensor) -> Tensor:
    """(V,) in [0, pi], to either side."""
    return (torch.remainder(azimuth + math.pi, 2 * math.pi) - math.pi).abs()


def decay(kind: str, r: Tensor) -> Tensor:
    """How much a side is kept away, of the share r of the mix in [0, 1]."""
    a, b, c = DECAYS[kind]
    return a * torch.exp(-b * r) + c


def _mixed(one: Condition, other: Condition, share: Tensor) -> Condition:
    """share (V,) of `one`, the rest of `other`."""
    rows = {k: share.to(v).view(-1, *[1] * (v.ndim - 1)) for k, v in one.items()}
    return {k: rows[k] * v + (1 - rows[k]) * other[k] for k, v in one.items()}
