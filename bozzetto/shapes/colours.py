# SPDX-License-Identifier: Apache-2.0
"""Colours over a box as a dense grid: the simplest colour field; each cell has a gradient from the pixels that show it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ColourGrid(nn.Module):
    """sRGB colours over a box, trilinear: `grid(points)`.

    logits        (3, n, n, n), z first; the sigmoid keeps colours in (0, 1)
    lower, upper  (3,), the box; points outside take the border's colour
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, logits: Tensor, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    @classmethod
    def of(cls, colours: Callable[[Tensor, Tensor], Tensor], lower: Tensor, upper: Tensor, n: int) -> ColourGrid:
        """The grid that agrees with a function of points and normals (N, 3) at its cells' centres."""
        centres = (torch.arange(n) + 0.5) / n
        z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
        at = lower + (upper - lower) * torch.stack([x, y, z], -1).reshape(-1, 3).to(lower)
        made = colours(at, torch.zeros_like(at)).clamp(0.01, 0.99)
        return cls(torch.logit(made).T.reshape(3, n, n, n).float(), lower.float(), upper.float())

    @classmethod
    def grey(cls, lower: float, upper: float, n: int) -> ColourGrid:
        """Mid grey throughout a cube."""
        return cls(torch.zeros(3, n, n, n), torch.full((3,), lower), torch.full((3,), upper))

    def forward(self, points: Tensor, normals: Tensor | None = None) -> Tensor:
        """Points (N, 3) to sRGB (N, 3); from every side alike."""
        where = 2 * (points - self.lower) / (self.upper - self.lower) - 1
        found = F.grid_sample(self.logits[None], where[None, :, None, None].to(self.logits), align_corners=False, padding_mode="border")
        return torch.sigmoid(found[0, :, :, 0, 0].T)
