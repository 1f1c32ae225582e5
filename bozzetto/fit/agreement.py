# SPDX-License-Identifier: Apache-2.0
"""How a shape is compared with views that a prior has drawn, none of which is quite right: Wonder3D's loss (Long et al. 2023,
arXiv:2310.15008, Sec. 4.3 and its released code).

Of a pixel with view direction v and drawn normal g, whose rendering has the normal n, the error is e = 1 - cos(n, g), its weight

    w = 0 where cos(v, g) > EDGE, a normal that looks away and cannot be right; else exp|cos(v, g)| / sum over all pixels of exp|cos|

(cos is 0 in that sum where nothing is drawn or the normal looks away: the loss grows with the object's share of the picture). Of all
errors only the smallest are kept, a share of each kind, so that what one view has against all others does not count; what is kept is
weighted by how far its view is to be trusted, colours excepted, and averaged, or for normals summed.

Differs from the released code: its ranking sorts the errors, and then takes from the sorted ones those at the unsorted ones' places, which
are any; here the largest are dropped, as the paper says. Its paper weighs larger angles more; formula and code the smaller ones.

Letters: V views of H x W; n pixels of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.fit.loop import Loss
from bozzetto.fit.rays import Rays, covered
from bozzetto.fit.settings import Within
from bozzetto.shapes.shape import Shape, Step
from bozzetto.views import Views

EDGE = -0.1  # cosine between a ray and a drawn normal above which the pixel has none


@brief
@dataclass(frozen=True)
class Drawn:
    """A set of views that a prior drew of one object.

    views        V of them, cameras in the crop's frame; depth is not read. Drawn normals are unit vectors of the world, zeros where
                 nothing is, or everywhere if there are none
    weight       (V,) >= 0, how far each is to be trusted in outline and normals
    has_normals  whether normals were drawn
    raises       ValueError for other than V weights, or none above 0
    """

    views: Views
    weight: Tensor
    has_normals: bool

    def __post_init__(self) -> None:
        if self.weight.shape != (len(self.views.cameras),) or not (self.weight >= 0).all() or not (self.weight > 0).any():
            raise ValueError(f"drawn: expected weights of {len(self.views.cameras)} views, not all of them 0, got {self.weight}")

    def resized(self, size: int) -> Drawn:
        """The same views with fewer pixels, `size` a side; as they are where they have no more."""
        v = self.views
        if max(v.cameras.size) <= size:
            return self
        rgb, alpha, depth, normal = (
            F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1) for x in (v.rgb, v.alpha, v.depth, v.normal)
        )
        return replace(self, views=Views(rgb, alpha, depth, F.normalize(normal, dim=-1), v.cameras.resized(size)))


@dataclass(frozen=True)
class Agreement:
    """What drawn views are held to, and how much of them is believed."""

    rgb_weight: Annotated[float, Within(0, 1e6)] = 0.5
    """drawn colours, squared difference summed over the three channels"""
    normal_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """drawn normals, 1 - cosine, weighted by how squarely they are seen"""
    mask_weight: Annotated[float, Within(0, 1e6)] = 1.0
    """drawn outlines"""
    kept_rgb: Annotated[float, Within(0.01, 1)] = 0.8
    """share of the object's pixels whose colours count, those that agree best"""
    kept_normal: Annotated[float, Within(0.01, 1)] = 0.8
    """the same of normals"""
    kept_mask: Annotated[float, Within(0.01, 1)] = 0.9
    """the same of outlines, of all pixels; how much of the views' trust a point must have to be solid at first"""


class Seen(NamedTuple):
    """What pixels show: rgb (n, 3) premultiplied, alpha (n,), normal (n, 3) of any length."""

    rgb: Tensor
    alpha: Tensor
    normal: Tensor


@dataclass(frozen=True)
class Wanted:
    """What they ought to show, with unit rays (n, 3) of the world and the trust (n,) in their views."""

    rgb: Tensor
    alpha: Tensor
    normal: Tensor
    direction: Tensor
    trust: Tensor

    @classmethod
    def of(cls, drawn: Drawn) -> Wanted:
        """All pixels of all views in a row."""
        views, direction = drawn.views, drawn.views.cameras.rays()[1].float()
        trust = drawn.weight.float()[:, None, None].expand(direction.shape[:3]).reshape(-1)
        told = views.normal if drawn.has_normals else torch.zeros_like(views.normal)
        rgb, normal, direction = (x.reshape(-1, 3) for x in (views.rgb, told, direction))
        return cls(rgb, views.alpha.reshape(-1), normal, direction, trust)

    def at(self, some: Tensor) -> Wanted:
        """Of some pixels, by their numbers."""
        return Wanted(self.rgb[some], self.alpha[some], self.normal[some], self.direction[some], self.trust[some])


def least(errors: Tensor, share: float, trust: Tensor | None = None) -> Tensor:
    """The floor(share n) smallest of errors (n,), each times its trust (n,)."""
    order = errors.detach().argsort()[: math.floor(share * len(errors) + 1e-9)]
    return errors[order] if trust is None else errors[order] * trust[order]


def squarely(direction: Tensor, normal: Tensor, is_object: Tensor) -> Tensor:
    """The weights (n,) of drawn normals (n, 3), of any length, along rays (n, 3); is_object (n,) bool."""
    cosine = F.cosine_similarity(direction, normal, dim=1)
    is_facing = is_object & (cosine < EDGE)
    grown = torch.where(is_facing, cosine.abs(), 0).exp()
    return torch.where(is_facing, grown / grown.sum(), 0)


def compared(seen: Seen, wanted: Wanted, s: Agreement, outline: Tensor) -> dict[str, Loss]:
    """Losses `rgb`, `mask` and, where normals were drawn, `normal`; outline (n,) are the errors of coverage that are kept already."""
    is_object = wanted.alpha > 0.5
    colours = (seen.rgb - wanted.rgb).square().sum(1)[is_object]
    losses = {"rgb": Loss(s.rgb_weight, _mean(least(colours, s.kept_rgb))), "mask": Loss(s.mask_weight, _mean(outline))}
    weights = squarely(wanted.direction, wanted.normal, is_object)
    if s.normal_weight and (told := weights > 0).any():
        errors = weights * (1 - F.cosine_similarity(seen.normal, wanted.normal, dim=1))
        losses["normal"] = Loss(s.normal_weight, least(errors[told], s.kept_normal, wanted.trust[told]).sum())
    return losses


def _mean(errors: Tensor) -> Tensor:
    """0 of none."""
    return errors.sum() / max(len(errors), 1)


@dataclass
class DrawnRays:
    """A term for a `Volume`: rays at random through the pixels of drawn views, `count` a step."""

    drawn: Drawn
    settings: Agreement
    count: int
    _rays: Rays = field(init=False, repr=False)
    _wanted: Wanted = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rays, self._wanted = Rays(self.drawn.views, {}, self.count), Wanted.of(self.drawn)

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        s = self.settings
        some, seen = self._rays.cast(shape, step, None if self.drawn.has_normals and s.normal_weight else "colour")
        wanted = self._wanted.at(some)
        outline = least(covered(seen.alpha, wanted.alpha), s.kept_mask, wanted.trust)
        return compared(Seen(seen.rgb, seen.alpha, seen.normal), wanted, s, outline)


@dataclass
class DrawnPictures:
    """A term for a shape that is rasterised: drawn views, `count` a step, others each time if there are more.

    Coverage has a gradient in the outline's pixels alone, which are few: dropping the largest errors would drop them all. So all are
    kept, and squared; what one view has against the others shows in `rgb` and `normal`.
    """

    drawn: Drawn
    settings: Agreement
    count: int

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        some, has_normals = self._drawn(step), self.drawn.has_normals and self.settings.normal_weight > 0
        views, wanted = shape.render(some.views.cameras, None if has_normals else "colour"), Wanted.of(some)
        seen = Seen(views.rgb.reshape(-1, 3), views.alpha.reshape(-1), views.normal.reshape(-1, 3))
        return compared(seen, wanted, self.settings, (seen.alpha - wanted.alpha).square() * wanted.trust)

    def _drawn(self, step: Step) -> Drawn:
        """A step's views."""
        if self.count >= (n := len(self.drawn.weight)):
            return self.drawn
        k = torch.randperm(n, generator=step.generator)[: self.count].tolist()
        return Drawn(self.drawn.views[k], self.drawn.weight[k], self.drawn.has_normals)
