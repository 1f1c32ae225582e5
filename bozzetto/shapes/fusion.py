# SPDX-License-Identifier: Apache-2.0
"""Depth maps to one closed surface: truncated signed distances, averaged on a lattice, and marching tetrahedra.

Curless & Levoy 1996, A volumetric method for building complex models from range images, with equal weights. Differs: what no view
has seen empty is solid, so that the surface is closed and has no back side of its own: where the cameras never were, it is the hull of
what they saw. A pixel without anything in it says that its whole ray is empty.

Letters: N lattice points; d a depth map's value at a point's pixel, z the point's own depth, s = d - z: negative behind the surface.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.shapes.tetgrid import TetGrid

BAND = 3.0  # lattice spacings: where distances are cut off. Sheets thinner than this are thinned from behind; noise needs as much


def fuse(grid: TetGrid, depth: Tensor, alpha: Tensor, cameras: Camera) -> Tensor:
    """Signed distances (N,), negative inside, in units of length, within ±BAND spacings.

    depth    (V, H, W), along the optical axis, of what is there where alpha (V, H, W) exceeds one half
    returns  the mean over the views that see a point before or a little behind a surface; the highest where the lattice ends or where no
             picture has the point in it, the lowest where all views find something in front of it
    raises   ValueError for maps of another size than the cameras'
    """
    if depth.shape != (len(cameras), *cameras.size) or alpha.shape != depth.shape:
        raise ValueError(f"fuse: expected depth and alpha {(len(cameras), *cameras.size)}, got {tuple(depth.shape)}, {tuple(alpha.shape)}")
    band, n = BAND * grid.spacing, len(grid)
    total, count = torch.zeros(n), torch.zeros(n)
    in_view = torch.zeros(n, dtype=torch.bool)
    for v in range(len(cameras)):
        for part in torch.arange(n).split(1 << 18):  # stays in the cache
            pixels, z = (x[0] for x in cameras[v].project(grid.vertices[part].float()))
            d, inside = _looked_up(depth[v], alpha[v] > 0.5, pixels, band)
            inside &= z > 0
            s = (d - z).clamp(max=band)
            told = inside & (s > -band)
            total[part] += torch.where(told, s, 0)
            count[part] += told
            in_view[part] |= inside
    unseen = torch.where(in_view, -band, band)
    return grid.hold(torch.where(count > 0, total / count.clamp(min=1), unseen))


def _looked_up(depth: Tensor, full: Tensor, pixels: Tensor, band: float) -> tuple[Tensor, Tensor]:
    """Depth (P,) at pixels (P, 2): linear where the four round a point belong to one surface, else the nearest's; infinite where
    nothing is. And is the point in the picture."""
    h, w = depth.shape
    u, v = pixels.nan_to_num(nan=-1.0, posinf=-1.0, neginf=-1.0).unbind(-1)
    inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)
    flat = torch.where(full, depth, torch.inf).reshape(-1)
    at = v.clamp(0, h - 1).long() * w + u.clamp(0, w - 1).long()
    x, y = (u - 0.5).clamp(0, w - 1), (v - 0.5).clamp(0, h - 1)
    i, j = x.long().clamp(max=max(w - 2, 0)), y.long().clamp(max=max(h - 2, 0))
    a, b = x - i, y - j
    corner = j * w + i
    right, down = min(1, w - 1), min(1, h - 1) * w
    four = torch.stack([flat[corner], flat[corner + right], flat[corner + down], flat[corner + right + down]])
    share = torch.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])
    one = four.amax(0) - four.amin(0) < band  # False for inf - inf, too
    return torch.where(one, (share * torch.where(one, four, 0)).sum(0), flat[at]), inside
