# SPDX-License-Identifier: Apache-2.0
"""gsplat behind our splatting, where tensors are on CUDA and it is installed (Apache-2.0). Not run here: no GPU.

Without it, CUDA tensors are copied to the CPU kernels and back. Spherical harmonics stay ours (gsplat cuts the gradient through
the direction), and so do depths and normals: gsplat blends channels. Its pixel centres, low-pass filter and clamp of J are ours too.

Differs from our kernels: alpha is held down at 0.999 (ours and the paper's: 0.99); ellipses are cut at 3.33 sigma; its
sums run in no fixed order; there is no median depth.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor


def is_usable(tensor: Tensor) -> bool:
    """Is this tensor on CUDA, and gsplat installed?"""
    return tensor.is_cuda and importlib.util.find_spec("gsplat") is not None


def blend(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    w2c: Tensor,
    K: Tensor,
    size: tuple[int, int],
    antialiased: bool,
    near: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of w_i f_i (V, H, W, C), T_N (V, H, W), xy (V, N, 2) in pixels, and which are in the picture (V, N); `features` (V, N, C)."""
    from gsplat import rasterization

    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], device=w2c.device).expand(len(w2c), 1, 4)
    picture, alpha, meta = rasterization(
        means.float(),
        quats.float(),
        scales.float(),
        opacities.float(),
        features.float(),
        torch.cat([w2c.float(), bottom], 1),
        K.float(),
        size[1],
        size[0],
        near_plane=near,
        packed=False,
        rasterize_mode="antialiased" if antialiased else "classic",
    )
    radii = meta["radii"]
    drawn = (radii > 0).all(-1) if radii.ndim == 3 else radii > 0
    return picture, 1 - alpha[..., 0], meta["means2d"], drawn
