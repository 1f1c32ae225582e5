# SPDX-License-Identifier: Apache-2.0
"""What several posed pictures agree on: features carried along their rays to points in space, their mean and their variance there.

SparseNeuS (arXiv:2206.05737, Sec. 3.1), as One-2-3-45 uses it (arXiv:2306.16928, Sec. 3.3): where a point is on the surface all
pictures show the same thing at it, and the variance is small; where it is in the air or inside, each shows something else. Mean and
variance know neither order nor number of the pictures. A view counts where the point is before it and inside its picture.

Colours are blended from the pictures as in IBRNet (arXiv:2102.13090): a softmax over those views that see the point.

Letters: V views, C channels, h w cells of a map, N points. Distances in object units, negative inside.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from bozzetto.camera import NEAR, Camera

CAP = 24.0  # pixels beyond which distances from an outline are not told apart


def unproject(maps: Tensor, cameras: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (V, C, h, w) where each view shows points (N, 3): values (V, N, C), bilinear, and whether they count, (V, N) bool.

    Maps may be coarser than the cameras' pictures. What does not count has the value of the border.
    """
    pixels, depth = cameras.project(points)
    height, width = cameras.size
    where = pixels / pixels.new_tensor([width, height]) * 2 - 1
    counts = (depth > NEAR) & (where.abs() <= 1).all(-1)
    where = where.nan_to_num(0.0, 2.0, -2.0).clamp(-2, 2)
    read = F.grid_sample(maps, where[:, :, None].to(maps), align_corners=False, padding_mode="border")
    return read[..., 0].mT, counts


def mean_and_variance(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Of values (V, N, C) over the views that count, (V, N): both (N, C), 0 where none does."""
    weight = counts.to(values)[..., None]
    total = weight.sum(0).clamp(min=1)
    mean = (weight * values).sum(0) / total
    return mean, (weight * (values - mean).square()).sum(0) / total


def lattice(cells: int, half: float, like: Tensor | None = None) -> Tensor:
    """Centres of a cube's cells, (cells^3, 3), z first and x last in the order of a volume (D, H, W): x runs fastest."""
    at = ((torch.arange(cells, dtype=torch.float32) + 0.5) / cells * 2 - 1) * half
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    made = torch.stack([x, y, z], -1).reshape(-1, 3)
    return made if like is None else made.to(like)


def read_volume(volume: Tensor, half: float | Tensor, points: Tensor) -> Tensor:
    """A volume (C, D, H, W) over [-half, half]^3, laid out as `lattice`, at points (N, 3): (N, C), trilinear; outside, the border.

    half  one number, or (3,) along x, y, z
    """
    where = (points / half).to(volume)[None, None, None]
    return F.grid_sample(volume[None], where, align_corners=False, padding_mode="border")[0, :, 0, 0].mT


def outline_distance(alpha: Tensor) -> Tensor:
    """Signed distances (V, h, w) in pixels from the outlines of coverages (V, h, w): negative inside, within CAP.

    On the outline, where a pixel is covered in part, the coverage says where in the pixel it runs.
    """
    made = np.empty(alpha.shape, np.float32)
    for v, covered in enumerate(alpha.detach().cpu().numpy()):
        inside = covered > 0.5
        if inside.all() or not inside.any():
            made[v] = -CAP if inside.any() else CAP
            continue
        off = distance_transform_edt(~inside) - distance_transform_edt(inside)
        made[v] = off - 0.5 * np.sign(off)
        edge = np.abs(made[v]) <= 0.5
        made[v][edge] = 0.5 - covered[edge]
    return torch.from_numpy(made.clip(-CAP, CAP)).to(alpha)


def hull_distance(outlines: Tensor, cameras: Camera, points: Tensor, doubt: int = 0) -> Tensor:
    """How far points (N, 3) are from the visual hull of outlines (V, h, w) as `outline_distance` makes them: (N,), the largest over the
    views that count. Outside it is never more than the true distance; a point that no view shows is CAP pixels away.

    doubt  so many views may be wrong: the largest but so many is taken, so that what one more of them shows past is outside
    """
    away, counts = unproject(outlines[:, None], cameras, points)
    per_pixel = pixel_width(cameras, points) * (cameras.size[1] / outlines.shape[-1])
    found = torch.where(counts, away[..., 0] * per_pixel, -torch.inf)
    found = found.topk(min(doubt + 1, len(found)), 0).values[-1] if doubt else found.amax(0)
    return torch.where(found.isfinite(), found, CAP * per_pixel.abs().amax(0))


def pixel_width(cameras: Camera, points: Tensor) -> Tensor:
    """(V, N): how wide a pixel is at the depth of points (N, 3)."""
    _, depth = cameras.project(points)
    f = cameras.K[:, 0, 0, None].to(depth)
    return (torch.ones_like(depth) if cameras.is_orthographic else depth) / f


def blend(colours: Tensor, scores: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (V, N, 3) of the views to one (N, 3), by weights (V, N) that sum to 1: seen exp(score) over its sum.

    seen     (V, N) in [0, 1], how well a view sees the point: 0 gives it no weight
    returns  black and weights 0 where no view sees the point
    """
    scores = torch.where(seen > 0, scores, -torch.inf).nan_to_num(neginf=-1e30)
    weights = seen * (scores - scores.amax(0, keepdim=True)).exp()
    weights = weights / weights.sum(0, keepdim=True).clamp(min=1e-12)
    return (weights[..., None] * colours).sum(0), weights


def sparseness(distance: Tensor, tau: float = 100.0) -> Tensor:
    """SparseNeuS's regulariser, the mean of exp(-tau |s|): over a volume it is about 2 area / (tau volume), so that less surface is
    better where nothing is known."""
    return torch.exp(-tau * distance.abs()).mean()
