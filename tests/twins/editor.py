# SPDX-License-Identifier: Apache-2.0
"""An exact InstructPix2Pix: Bayes' rule over pairs of pictures, before and after the one edit that it knows, behind a codec that blurs.

A picture that it is shown says which pair it is of; the instruction says the one after, no instruction the one before; without a picture
it is any of those before. Each is a Gaussian window of width h round what the codec keeps of it, and round what is wrong with every
drawing of this prior, `bias`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.denoiser import Adapted, noise_like, sigma_of
from bozzetto.diffusion.guidance import dual
from bozzetto.priors.sampling import Sampler, descend
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.scores import parzen

CELL = 2  # pixels of the codec's cell


class Recolours:
    """before, after  (K, S, S, 3), sRGB in [0, 1]; an empty text is no instruction, any other the one that it knows."""

    background = 1.0
    sampler = Sampler(10, 1.0, 0.0)

    def __init__(self, before: Tensor, after: Tensor, *, width: float = 0.02, bias: float = 0.0) -> None:
        self.size, self.width, self.before = before.shape[1], width, before
        ramp = bias * torch.linspace(0, 2, self.size // CELL)  # another in each column, so that no mean hides it
        self.known, self.wanted = (self.encode(x) + ramp for x in (before, after))
        self.base = Adapted(self._denoised, sigma_of(NoiseSchedule().alpha_bar()))

    def encode(self, rgb: Tensor) -> Tensor:
        return 2 * F.avg_pool2d(rgb.movedim(-1, 1), CELL) - 1

    def decode(self, x0: Tensor) -> Tensor:
        big = F.interpolate(x0.float(), (self.size, self.size), mode="bilinear")
        return (big / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def edited(self, rgb: Tensor, text: str, *, image_scale: float, sampler: Any, generator: Any, watch: Any = None) -> Tensor:
        off = (rgb[:, None] - self.before).double().square().flatten(2).sum(-1)
        which, any_of = -off / (2 * 0.05**2), torch.zeros(len(rgb), len(self.before), dtype=torch.float64)
        told, null = (self.wanted if text else self.known), self.known
        conds = [{"windows": windows, "logs": logs} for windows, logs in ((null, any_of), (null, which), (told, which))]
        guided = dual(self.base, conds[0], conds[1], image_scale, sampler.guidance)
        noise = noise_like(torch.zeros(len(rgb), 3, self.size // CELL, self.size // CELL), generator)
        return self.decode(descend(self.base.sigmas, guided, noise, conds[2], sampler, generator, watch))

    def _denoised(self, x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        windows = cond["windows"].double().flatten(1)
        level = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1)
        return parzen.denoised(x.double().flatten(1), windows, level, self.width, cond["logs"]).view_as(x).to(x)
