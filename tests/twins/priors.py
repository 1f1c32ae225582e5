# SPDX-License-Identifier: Apache-2.0
"""Priors whose answers are known: an exact joint prior of small pictures, as papers that draw several views together have them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bozzetto.camera import orbit
from bozzetto.denoiser import Adapted
from bozzetto.priors.sampling import Sampler


class Joint:
    """V views at once, x0 (V, 3, S, S) ~ N(mean, SPREAD**2 I); the mean is grey, or under a text 1 in view `len(text) % V`."""

    V, S, SPREAD = 4, 8, 0.5
    background, size, shape, sampler, uses_hint = 0.5, S, (V, 3, S, S), Sampler(5, 1.0, 0.0), False

    def __init__(self):
        self.denoiser = Adapted(self._denoised, torch.logspace(-1.5, 1.2, 50, dtype=torch.float64))

    def _denoised(self, x, sigma, cond):
        s2, mean = self.SPREAD**2, cond["mean"].to(x).view(-1, self.V, 1, 1, 1)
        sigma = torch.as_tensor(sigma, dtype=x.dtype).view(-1, 1, 1, 1, 1)
        return (s2 * x + sigma**2 * mean) / (s2 + sigma**2)

    def views(self, reference=None):
        return orbit([k * torch.pi / 2 for k in range(self.V)], 0.2, 2.0, size=self.S, fov=0.6)

    def encode(self, views, *, generator=None):
        return self.encode_pictures(views.over(self.background))

    def encode_pictures(self, rgb, *, generator=None):
        if rgb.ndim != 4 or rgb.shape[-1] != 3 or len(rgb) % self.V:
            raise ValueError(f"rgb: expected (B V, H, W, 3) with V = {self.V}, got {tuple(rgb.shape)}")
        small = F.interpolate(rgb.movedim(-1, 1), (self.S, self.S), mode="area")
        return (2 * small - 1).view(-1, *self.shape)

    def decode(self, x0):
        return (x0.flatten(0, 1) / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def encode_reference(self, reference):
        raise ValueError("reference: this prior reads text")

    def condition(self, reference=None, cameras=None, text=None, hint=None):
        if reference is not None:
            self.encode_reference(reference)
        if cameras is not None and len(cameras) != self.V:
            raise ValueError(f"cameras: expected {self.V}, got {len(cameras)}")
        mean = torch.zeros(1, self.V)
        if text is not None:
            mean[0, len(text) % self.V] = 1
        return {"mean": mean}
