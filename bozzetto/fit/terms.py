# SPDX-License-Identifier: Apache-2.0
"""Terms of the loss: the picture (`Shown`), known views (`Like`), score distillation by a prior (`Pull`). Regularisers: `loop.own`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.denoiser import Denoiser
from bozzetto.diffusion.guidance import classifier_free, perp_neg
from bozzetto.distill.sds import Levels, noise_variance, sds
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import Loss
from bozzetto.fit.prompts import Prompts
from bozzetto.fit.solid import Colours
from bozzetto.fit.source import Source
from bozzetto.image import Crop
from bozzetto.priors.prior import Condition, Prior
from bozzetto.shapes.shape import Shape, Step
from bozzetto.views import Views

Sides = Literal["none", "told", "perp-neg"]
Shows = Literal["colour", "normal"]
SEED_STRIDE = 1_000_003  # one order of pictures an epoch


def squared_inside(views: Views, crop: Crop) -> Tensor:
    """Mean squared difference of colours, where the picture shows the object."""
    return ((views.rgb[0] - crop.rgb).square() * crop.alpha[..., None]).mean()


def absolute(views: Views, crop: Crop) -> Tensor:
    """Mean absolute difference of premultiplied colours, so that no background is chosen."""
    return (views.rgb[0] - crop.rgb).abs().mean()


@dataclass(frozen=True)
class Shown:
    """The picture's own view compared with the picture: losses `rgb` and `mask` (mean squared difference of coverage).

    camera  of the crop
    size    pixels a side of the view that is compared
    rgb, mask  weights; where rgb is 0, only coverage is rendered
    colours    how loss `rgb` is computed
    coarse     share of the steps, from the first, in which the view has half the size
    """

    source: Source
    camera: Camera
    size: int
    mask: float
    rgb: float = 0.0
    colours: Callable[[Views, Crop], Tensor] = squared_inside
    coarse: float = 0.0

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        is_coarse = step.number < int(self.coarse * step.of)
        crop, size = self.source.crop(self.size), self.size // 2 if is_coarse else self.size
        wanted = F.adaptive_avg_pool2d(crop.alpha[None, None], size)[0, 0] if is_coarse else crop.alpha
        views = shape.render(self.camera.resized(size), "colour" if self.rgb else "alpha")
        mask = Loss(self.mask, (views.alpha[0, ..., 0] - wanted).square().mean())
        if not self.rgb:
            return {"mask": mask}
        if is_coarse:
            crop = self.source.crop(size)
        return {"rgb": Loss(self.rgb, self.colours(views, crop)), "mask": mask}


@dataclass(frozen=True)
class Like:
    """One known view a step, in a new random order each epoch: losses `guess_rgb`, `guess_mask`, `guess_depth` (mean absolute
    difference in object units, where both views show the object).

    targets  V views
    weights  of the three losses, by name
    seed     of the order
    """

    targets: Views
    weights: Mapping[str, float]
    seed: int

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        t, n = self.targets, len(self.targets.cameras)
        k = order_of(n, step.number // n, self.seed % 2**31)[step.number % n]
        drawn = shape.render(t.cameras[k])
        both = (t.alpha[k] > 0.99) & (drawn.alpha[0].detach() > 0.5)
        losses = {
            "guess_rgb": (drawn.rgb[0] - t.rgb[k]).abs().mean(),
            "guess_mask": (drawn.alpha[0] - t.alpha[k]).square().mean(),
            "guess_depth": torch.where(both, (drawn.depth[0] - t.depth[k]).abs(), 0).mean(),
        }
        return {name: Loss(self.weights[name], value) for name, value in losses.items()}


def order_of(n: int, epoch: int, seed: int) -> list[int]:
    """The order of n pictures in an epoch: a function of seed and epoch only."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * SEED_STRIDE + epoch)).tolist()


class Asked(NamedTuple):
    """One step of a `Pull`: B renderings as the prior encodes them, with gradients; their levels; the cameras; the condition.

    A joint prior's x0 holds V views: there are B V cameras then.

    negatives  conditions to keep away from, and how much (B,)
    share      (B,) of each sample's weight, or None for all of it
    null       what guidance leads away from, where that is not the prior's null
    """

    x0: Tensor
    sigma: Tensor
    cameras: Camera
    cond: Condition
    negatives: Sequence[tuple[Condition, Tensor]] = ()
    share: Tensor | None = None
    null: Condition | None = None

    def weight(self, sigma: Tensor) -> Tensor:
        """`distill.sds.noise_variance`, of which each sample has its share."""
        w = noise_variance(sigma)
        return w if self.share is None else w * self.share.to(w)


@dataclass
class Pull:
    """Score distillation (`distill.sds`) by one prior, in views round the object: loss `name`, whose value does not measure progress.

    around    a step's azimuths and elevations (V,), radians, round the object's centre as `framed` has it; of a joint prior those of
              its views, sample by sample
    levels    noise levels to draw from
    weight    of the loss, which is a sum over latents; or of a step's number, such as a `Ramp`
    guidance  scale of classifier-free guidance; 1 is none
    size      pixels a side of the renderings; the prior resizes them to its own
    guessed   the colours of the rough shape, for a prior that uses hints
    text      the condition of a text prior; without it the prior is conditioned on the picture
    sides     of a text: told from where each view is (`fit.prompts`), and with Perp-Neg kept from looking like another side
    shows     a step's choice of what the prior sees: colours, or normals of the world as colours in [0, 1]
    by_angle  weigh each view by its angle to the picture's, as a share of half a turn (Magic123's code)
    """

    prior: Prior
    framed: Framed
    around: Callable[[Step], tuple[Tensor, Tensor]]
    levels: Levels
    weight: float | Callable[[int], float]
    guidance: float
    size: int
    guessed: Colours | None = None
    text: str | None = None
    name: str = "distill"
    sides: Sides = "none"
    shows: Callable[[Step], Shows] = lambda step: "colour"
    by_angle: bool = False
    _base: Denoiser = field(init=False, repr=False)
    _null: Condition = field(init=False, repr=False)
    _seen: Any = field(init=False, repr=False, default=None)
    _prompts: Prompts | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self._base, self._null = self.prior.denoiser, self.prior.condition()
        if self.text is None:
            self._seen = self.prior.encode_reference(self.framed.reference(self.prior.background))
        elif self.sides != "none":
            self._prompts = Prompts(self.prior, self.text, self.sides == "perp-neg")

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        asked = self.ask(shape, step)
        loss = sds(self._guided(asked), asked.x0, asked.sigma, asked.cond, generator=step.generator, weight=asked.weight)
        return {self.name: Loss(self._weight(step), loss)}

    def ask(self, shape: Shape, step: Step) -> Asked:
        """A step's views, rendered and encoded, and what the prior is asked about them."""
        azimuth, elevation = self.around(step)
        cameras = self.framed.cameras(azimuth, elevation).resized(self.size)
        views = shape.render(self.framed.placed(cameras), None if self.shows(step) == "normal" else "colour")
        if self.shows(step) == "normal":
            views = replace(views, rgb=(0.5 * views.normal + 0.5) * views.alpha)
        x0 = self.prior.encode(views)
        sigma = self.levels.draw(self._base, len(x0), step.number, generator=step.generator)
        share = _angle(cameras, self.framed.azimuth, self.framed.elevation) / math.pi if self.by_angle else None
        if self._prompts is not None:
            told = self._prompts(torch.as_tensor(azimuth), torch.as_tensor(elevation))
            return Asked(x0, sigma, cameras, told.cond, told.negatives, share)
        hint = None if self.guessed is None else self.framed.hinting(self.guessed)
        return Asked(x0, sigma, cameras, self.prior.condition(self._seen, cameras, self.text, hint), share=share)

    def _guided(self, asked: Asked) -> Denoiser:
        if asked.negatives:
            return perp_neg(self._base, self._null, asked.negatives, self.guidance)
        return classifier_free(self._base, self._null if asked.null is None else asked.null, self.guidance)

    def _weight(self, step: Step) -> float:
        return self.weight(step.number) if callable(self.weight) else self.weight


def _angle(cameras: Camera, azimuth: float, elevation: float) -> Tensor:
    """(V,) radians between the directions in which cameras stand and another's."""
    to = torch.tensor([math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)])
    away = F.normalize(cameras.position.double(), dim=-1)
    return torch.acos((away @ to.double()).clamp(-1, 1))
