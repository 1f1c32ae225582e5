# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting written slowly and plainly, in torch: every Gaussian at every pixel, from the equations of the paper."""

from __future__ import annotations

import torch
from torch import Tensor


def rotations(quats: Tensor) -> Tensor:
    """(N, 3, 3), by turning the axes: v + 2 w (u x v) + 2 u x (u x v), u the vector part."""
    q = quats / quats.norm(dim=-1, keepdim=True)
    w, u = q[:, :1, None], q[:, None, 1:].expand(-1, 3, -1)
    axes = torch.eye(3, dtype=q.dtype).expand(len(q), 3, 3)
    cross = torch.linalg.cross(u, axes)
    return (axes + 2 * w * cross + 2 * torch.linalg.cross(u, cross)).mT


def ellipses(means: Tensor, quats: Tensor, scales: Tensor, w2c: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """One view: xy (N, 2), cov before the filter (N, 2, 2), cov (N, 2, 2), depth (N,)."""
    (h, w), (W, T) = size, (w2c[:, :3], w2c[:, 3])
    t = means @ W.mT + T
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x, y, z = t.unbind(-1)
    u = (x / z).clamp((-0.15 * w - cx) / fx, (1.15 * w - cx) / fx)
    v = (y / z).clamp((-0.15 * h - cy) / fy, (1.15 * h - cy) / fy)
    J = torch.stack([torch.stack([fx / z, 0 * z, -fx * u / z], -1), torch.stack([0 * z, fy / z, -fy * v / z], -1)], 1)
    M = rotations(quats) * scales[:, None]
    cov = J @ W @ M @ M.mT @ W.mT @ J.mT
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), cov, cov + 0.3 * torch.eye(2, dtype=cov.dtype), z


def splat(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    w2c: Tensor,
    K: Tensor,
    size: tuple[int, int],
    *,
    antialiased: bool = False,
    min_alpha: float = 1 / 255,
    min_transmittance: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor]:
    """sum of w_i f_i (V, H, W, C), T_N (V, H, W), and the Gaussian that brings T to one half (V, H, W); `features` (V, N, C)."""
    h, w = size
    row, column = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    centre = torch.stack([column, row], -1).to(means)
    pictures = []
    for view in range(len(w2c)):
        xy, raw, cov, z = ellipses(means, quats, scales, w2c[view], K[view], size)
        o = opacities * (torch.linalg.det(raw).clamp(min=0) / torch.linalg.det(cov)).sqrt() if antialiased else opacities
        T = torch.ones(h, w).to(means)
        rgb, alive, half = T.new_zeros(h, w, features.shape[2]), T > 0, torch.full((h, w), -1)
        for i in torch.sort(z, stable=True).indices.tolist():
            if z[i] <= 0.01:
                continue
            d = centre - xy[i]
            alpha = (o[i] * torch.exp(-0.5 * torch.einsum("hwi,ij,hwj->hw", d, torch.linalg.inv(cov[i]), d))).clamp(max=0.99)
            alpha = torch.where(alpha < min_alpha, 0, alpha)
            alive = alive & (T * (1 - alpha) >= min_transmittance)
            alpha = torch.where(alive, alpha, 0)
            rgb = rgb + (alpha * T)[..., None] * features[view, i]
            half = torch.where((T > 0.5) & (T * (1 - alpha) <= 0.5), i, half)
            T = T * (1 - alpha)
        pictures.append((rgb, T, half))
    rgb, T, half = zip(*pictures, strict=True)
    return torch.stack(rgb), torch.stack(T), torch.stack(half)
