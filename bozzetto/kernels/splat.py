# SPDX-License-Identifier: Apache-2.0
"""Gaussians to pictures, with gradients to everything: 3D Gaussian splatting.

Kerbl et al. 2023 (arXiv:2308.04079). Three kernels: `project` (ellipses), `harmonics` (colours), `blend` (pictures); gsplat takes
the place of the first and the last where tensors are on CUDA and it is installed.

Depths: with weights w_i of `blend` and z_i along the axis, the expected depth is sum w_i z_i / sum w_i, and the median depth is z_i
of the Gaussian that brings the transmittance to one half. A Gaussian's normal is its shortest axis, turned to the camera.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import rotations
from bozzetto.kernels import gsplat, harmonics
from bozzetto.kernels.blend import MIN_ALPHA, MIN_TRANSMITTANCE, blend
from bozzetto.kernels.project import NEAR, in_picture, project


class Splats(NamedTuple):
    """V pictures of N Gaussians.

    rgb     (V, H, W, 3), over the background, or premultiplied by alpha where none was given
    alpha   (V, H, W, 1) in [0, 1)
    depth, median, normal  (V, H, W, 1), (V, H, W, 1), (V, H, W, 3), with `geometry` only: distances along the axis, 0 where alpha (or
            half of it) is not reached; unit vectors in the world, 0 where alpha is 0
    xy      (V, N, 2), pixels: keep its gradient (`retain_grad`) to see which Gaussians want to be denser
    drawn   (V, N), is it in front of the camera and, three standard deviations round its middle, in the picture; others may hide it
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor | None
    median: Tensor | None
    normal: Tensor | None
    xy: Tensor
    drawn: Tensor


def splat(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colours: Tensor,
    w2c: Tensor,
    K: Tensor,
    size: tuple[int, int],
    *,
    background: Tensor | None = None,
    degree: int | None = None,
    antialiased: bool = False,
    geometry: bool = False,
    near: float = NEAR,
    min_alpha: float = MIN_ALPHA,
    min_transmittance: float = MIN_TRANSMITTANCE,
) -> Splats:
    """Draw Gaussians; gradients flow to the first six arguments and to `background`.

    means       (N, 3), world; float32 or float64, one for all Gaussians' tensors
    quats       (N, 4), as (w, x, y, z), of any length but 0
    scales      (N, 3), standard deviations along the axes, > 0, units of the world
    opacities   (N,) in [0, 1]
    colours     (N, 3), or harmonics (N, K, 3) with K = 1, 4, 9, 16, of which `degree` limits those that are used
    w2c, K      (V, 3, 4) world to camera in *OpenCV* axes, (V, 3, 3) in pixels
    background  (3,) or (V, H, W, 3)
    antialiased opacities make up for the low-pass filter of thin Gaussians
    raises      ValueError for wrong shapes
    """
    n, v = len(means), len(w2c)
    shapes = [tuple(t.shape) for t in (means, quats, scales, opacities, w2c, K)]
    if shapes != [(n, 3), (n, 4), (n, 3), (n,), (v, 3, 4), (v, 3, 3)]:
        raise ValueError(f"splat: expected (N, 3), (N, 4), (N, 3), (N,), (V, 3, 4), (V, 3, 3), got {shapes}")
    if colours.shape != (n, 3) and (colours.ndim != 3 or colours.shape != (n, colours.shape[1], 3)):
        raise ValueError(f"splat: expected colours ({n}, 3) or ({n}, K, 3), got {tuple(colours.shape)}")
    position = -(w2c[:, :, :3].mT @ w2c[:, :, 3:])[..., 0]
    features = colours.expand(v, -1, -1) if colours.ndim == 2 else harmonics.colours(colours, means, position, degree)
    z = means @ w2c[:, 2, :3].mT.to(means) + w2c[:, 2, 3].to(means)  # (N, V)
    if geometry:
        features = torch.cat([features, z.mT[..., None], facing(means, quats, scales, position)], -1)
    half = None
    if gsplat.is_usable(means):
        picture, left, xy, drawn = gsplat.blend(means, quats, scales, opacities, features, w2c, K, size, antialiased, near)
    else:
        xy, conic, depth, factor = project(means, quats, scales, w2c, K, size, antialiased=antialiased, near=near)
        drawn = in_picture(xy, conic, size)
        cuts = {"min_alpha": min_alpha, "min_transmittance": min_transmittance}
        picture, left, half = blend(xy, conic, depth, opacities * factor, features, size, **cuts)
    rgb, alpha = picture[..., :3], 1 - left[..., None]
    if background is not None:
        rgb = rgb + left[..., None] * background.to(rgb)
    if not geometry:
        return Splats(rgb, alpha, None, None, None, xy, drawn)
    expected = picture[..., 3:4] / torch.where(alpha > 0, alpha, 1)
    median = None
    if half is not None:
        index = (half.clamp(min=0) + n * torch.arange(v, device=half.device)[:, None, None]).flatten()
        median = torch.where(half < 0, 0, z.mT.flatten().index_select(0, index).view(half.shape) if n else left)[..., None]
    return Splats(rgb, alpha, expected, median, F.normalize(picture[..., 4:7], dim=-1), xy, drawn)


def facing(means: Tensor, quats: Tensor, scales: Tensor, position: Tensor) -> Tensor:
    """Normals (V, N, 3): each Gaussian's shortest axis, on the side of the cameras at `position` (V, 3)."""
    axis = rotations(quats).gather(2, scales.argmin(-1)[:, None, None].expand(-1, 3, 1))[..., 0]
    away = ((position[:, None].to(means) - means) * axis).sum(-1, keepdim=True) < 0
    return torch.where(away, -axis, axis)
