# SPDX-License-Identifier: Apache-2.0
"""A small edit of a picture carried to the picture itself: what a 128-pixel prior changes, without what its codec loses.

In windows of the small picture each channel of the edit is a line over the picture's luminance, o = a y + b, fitted where the object is
(the guided filter, He & Sun 2015, arXiv:1505.00996); a and b vary slowly, so that they are what is enlarged, and the picture's own y
brings its edges and its grain. Where the prior drew something outside the object, that is enlarged as it is. Elsewhere the picture stays
as it was, bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.2126, 0.7152, 0.0722)
RADIUS, RIDGE = 3, 1e-3  # cells of a window to each side; of the variance of y, below which windows are flat
KEPT, CHANGED = 0.05, 0.12  # of a colour's change in a window: what is less is the codec's and the sampler's, what is more is meant
STEEP = 1.5  # the most that grain is made stronger by where a window is flat
NEW, PART = 0.25, 5  # how much a colour changes where something new is outside the object, and pixels a side that it has at the least


def retouched(rgb: Tensor, alpha: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The picture (H, W, 3), sRGB in [0, 1], edited as `before` (h, w, 3) became `after`, both of the same frame.

    alpha  (H, W) of the object in [0, 1]
    before what the prior's codec makes of the picture, so that what the codec loses is not taken for an edit
    """
    size, small = (rgb.shape[0], rgb.shape[1]), (after.shape[0], after.shape[1])
    object_ = _sized(alpha[..., None], small)
    away = F.max_pool2d(object_.movedim(-1, 0)[None], 3, 1, 1) < 0.01  # an outline's own change is none beside it
    fresh = ((after - before).abs().amax(-1)[None, None] > NEW) & away
    fresh = -F.max_pool2d(-fresh.float(), PART, 1, PART // 2)  # opened: specks are no parts
    fresh = F.max_pool2d(fresh, PART + 2, 1, PART // 2 + 1)[0].movedim(0, -1)  # and up to the object again
    weight = object_ + 1e-6
    y = (_sized(rgb, small) @ rgb.new_tensor(GREY))[..., None]

    def mean(x: Tensor) -> Tensor:
        return _box(x * weight) / _box(weight)

    y_mean, o_mean = mean(y), mean(after)
    plain = (o_mean / y_mean.clamp(min=1e-3)).clamp(max=STEEP)  # of paint, which multiplies: what flat windows are taken to be
    a = (mean(y * after) - y_mean * o_mean + RIDGE * plain) / (mean(y * y) - y_mean**2 + RIDGE)
    a, b = mean(a), mean(o_mean - a * y_mean)
    made = _sized(a, size) * (rgb @ rgb.new_tensor(GREY))[..., None] + _sized(b, size)
    change = mean((after - before).abs().amax(-1, keepdim=True))
    meant = _sized(((change - KEPT) / (CHANGED - KEPT)).clamp(0, 1), size)
    new = _sized(fresh, size) * (1 - alpha[..., None])
    inside = torch.maximum(alpha[..., None] * meant, new)
    made = torch.where(alpha[..., None] > new, made, _sized(after, size)).clamp(0, 1)
    return torch.where(inside > 0, inside * made + (1 - inside) * rgb, rgb)


def _box(x: Tensor) -> Tensor:
    return F.avg_pool2d(x.movedim(-1, 0)[None], 2 * RADIUS + 1, 1, RADIUS)[0].movedim(0, -1)


def _sized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, C) at another size, bilinear and antialiased."""
    if x.shape[:2] == size:
        return x
    return F.interpolate(x.movedim(-1, 0)[None], size, mode="bilinear", antialias=True)[0].movedim(0, -1)
