# SPDX-License-Identifier: Apache-2.0
"""Cameras as COLMAP writes them."""

from __future__ import annotations

import torch
from torch import Tensor

from bozzetto.camera import Camera, to_opencv


def to_colmap(camera: Camera) -> tuple[Tensor, Tensor]:
    """COLMAP's world-to-camera: unit quaternions (V, 4) as (w, x, y, z) and translations (V, 3), OpenCV axes."""
    c2w = to_opencv(camera.c2w.double())
    R = c2w[:, :, :3].mT
    t = -(R @ c2w[:, :, 3:])[..., 0]
    # The largest of the four components is found first: no division by a small number.
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in R.unbind(1))
    q = torch.stack(
        [
            torch.stack([1 + a + e + i, h - f, c - g, d - b], -1),
            torch.stack([h - f, 1 + a - e - i, b + d, c + g], -1),
            torch.stack([c - g, b + d, 1 + e - a - i, f + h], -1),
            torch.stack([d - b, c + g, f + h, 1 + i - a - e], -1),
        ],
        dim=1,
    )
    best = q.norm(dim=-1).argmax(dim=1)
    q = q[torch.arange(len(q)), best]
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[:, :1] < 0, -q, q), t
