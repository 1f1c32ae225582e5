# SPDX-License-Identifier: Apache-2.0
"""Terms of the loss: the picture (`Shown`), known views (`Like`), score distillation by a prior (`Pull`). Regularisers: `loop.own`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.denoiser import Denoiser
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, sds
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import Loss
from bozzetto.fit.solid import Colours
from bozzetto.fit.source import Source
from bozzetto.image import Crop
from bozzetto.priors.prior import Condition, Prior
from bozzetto.shapes.shape import Shape, Step
from bozzetto.views import Views

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
    """

    x0: Tensor
    sigma: Tensor
    cameras: Camera
    cond: Condition


@dataclass
class Pull:
    """Score distillation (`distill.sds`) by one prior, in views round the object: loss `name`, whose value does not measure progress.

    around    a step's azimuths and elevations (V,), radians, round the object's centre as `framed` has it; of a joint prior those of
              its views, sample by sample
    levels    noise levels to draw from
    weight    of the loss, which is a sum over latents
    guidance  scale of classifier-free guidance; 1 is none
    size      pixels a side of the renderings; the prior resizes them to its own
    guessed   the colours of the rough shape, for a prior that uses hints
    text      the condition of a text prior; without it the prior is conditioned on the picture
    """

    prior: Prior
    framed: Framed
    around: Callable[[Step], tuple[Tensor, Tensor]]
    levels: Levels
    weight: float
    guidance: float
    size: int
    guessed: Colours | None = None
    text: str | None = None
    name: str = "distill"
    _denoiser: Denoiser = field(init=False, repr=False)
    _seen: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self._denoiser = classifier_free(self.prior.denoiser, self.prior.condition(), self.guidance)
        if self.text is None:
            self._seen = self.prior.encode_reference(self.framed.reference(self.prior.background))

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        asked = self.ask(shape, step)
        return {self.name: Loss(self.weight, sds(self._denoiser, asked.x0, asked.sigma, asked.cond, generator=step.generator))}

    def ask(self, shape: Shape, step: Step) -> Asked:
        """A step's views, rendered and encoded, and what the prior is asked about them."""
        cameras = self.framed.cameras(*self.around(step)).resized(self.size)
        x0 = self.prior.encode(shape.render(self.framed.placed(cameras), "colour"))
        sigma = self.levels.draw(self._denoiser, len(x0), step.number, generator=step.generator)
        hint = None if self.guessed is None else self.framed.hinting(self.guessed)
        return Asked(x0, sigma, cameras, self.prior.condition(self._seen, cameras, self.text, hint))
