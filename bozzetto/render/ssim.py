# SPDX-License-Identifier: Apache-2.0
"""How alike pictures are: structural similarity, with gradients, a part of the loss of Gaussian splatting; and PSNR.

Wang et al. 2004, Image Quality Assessment. Gaussian window 11, sigma 1.5, C_1 = 0.01^2, C_2 = 0.03^2 for values in [0, 1].
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean similarity of pictures (V, H, W, C) in [0, 1]; borders see zeros outside, as in the code of Gaussian splatting."""
    return similarity(a, b, border="zeros").mean()


def similarity(a: Tensor, b: Tensor, *, border: Literal["zeros", "replicate"]) -> Tensor:
    """(V, H, W, C): similarity of the windows round each pixel of pictures (V, H, W, C) in [0, 1], and what these see outside."""
    channels, around = a.shape[-1], WINDOW // 2
    x = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - around
    kernel = torch.exp(-x * x / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(5 * channels, 1, -1)
    p, q = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)
    maps = torch.cat([p, q, p * p, q * q, p * q], 1)
    if border == "replicate":
        maps, around = F.pad(maps, (around,) * 4, mode="replicate"), 0
    rows = F.conv2d(maps, kernel[:, :, None], padding=(0, around), groups=5 * channels)
    both = F.conv2d(rows, kernel[:, :, :, None], padding=(around, 0), groups=5 * channels)
    m, n, mm, nn, mn = both.split(channels, 1)
    value = (2 * m * n + C1) * (2 * (mn - m * n) + C2) / ((m * m + n * n + C1) * (mm - m * m + nn - n * n + C2))
    return value.permute(0, 2, 3, 1)


def psnr(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """(...), dB, of pictures (..., H, W, C) in [0, 1], over the pixels `where` (..., H, W) is true, or all; 100 for equal ones."""
    square = (a - b).square().mean(-1)
    mean = square.mean((-2, -1)) if where is None else (square * where).sum((-2, -1)) / where.sum((-2, -1)).clamp(min=1)
    return -10 * mean.clamp(min=1e-10).log10()
