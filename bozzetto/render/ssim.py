# SPDX-License-Identifier: Apache-2.0
"""Structural similarity of pictures, with gradients: a part of the loss of Gaussian splatting.

Wang et al. 2004, Image Quality Assessment. Gaussian window 11, sigma 1.5, C_1 = 0.01^2, C_2 = 0.03^2 for values in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean similarity of pictures (V, H, W, C) in [0, 1]; borders see zeros outside, as in the code of Gaussian splatting."""
    channels = a.shape[-1]
    x = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    kernel = torch.exp(-x * x / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(5 * channels, 1, -1)
    p, q = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)
    maps = torch.cat([p, q, p * p, q * q, p * q], 1)
    rows = F.conv2d(maps, kernel[:, :, None], padding=(0, WINDOW // 2), groups=5 * channels)
    both = F.conv2d(rows, kernel[:, :, :, None], padding=(WINDOW // 2, 0), groups=5 * channels)
    m, n, mm, nn, mn = both.split(channels, 1)
    value = (2 * m * n + C1) * (2 * (mn - m * n) + C2) / ((m * m + n * n + C1) * (mm - m * m + nn - n * n + C2))
    return value.mean()
