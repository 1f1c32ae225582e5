# SPDX-License-Identifier: Apache-2.0
"""The simplest shape: one picture, the same from every camera, moved by plain gradient descent; and what a term needs beside it."""

from __future__ import annotations

import math

import torch
from torch import nn

from bozzetto.fit.framed import Framed
from bozzetto.views import Views


class Canvas(nn.Module):
    """rgb (S, S, 3) without a background, whose step is `rate` times the gradient by x0 = 2 rgb - 1."""

    def __init__(self, rgb, rate=0.5):
        super().__init__()
        self.rgb, self.rate = nn.Parameter(rgb.clone()), rate

    def begin(self, step):
        self.zero_grad()

    def render(self, cameras, only=None):
        n = len(cameras)
        rgb = self.rgb.expand(n, *self.rgb.shape)
        return Views(rgb, torch.ones_like(rgb[..., :1]), torch.zeros_like(rgb[..., :1]), torch.zeros_like(rgb), cameras)

    def losses(self, step):
        return {}

    def move(self, step):
        if self.rgb.grad is not None:
            self.rgb.data -= self.rate / 4 * self.rgb.grad  # d x0 / d rgb is 2, twice

    def state(self):
        return {"rgb": self.rgb.detach().clone()}

    def restore(self, state):
        self.rgb.data.copy_(state["rgb"])


def framed(size=16):
    """An object of no shape at the origin, seen from azimuth 0: `Pull` takes cameras from it."""
    nothing, none = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)
    width = 4 * math.tan(0.35)  # cameras of the bank's twin
    return Framed(torch.zeros(3), nothing, none, 0.0, 0.3, 2.0, width, torch.zeros(size, size, 3), torch.zeros(size, size))
