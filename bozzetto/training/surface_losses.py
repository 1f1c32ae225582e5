# SPDX-License-Identifier: Apache-2.0
"""DMTet's losses on surfaces (Shen et al. 2021, arXiv:2111.04276, Sec. 3.2): Chamfer, normals, and an adversary that sees patches of SDFs.

L_cd and L_n are means where the paper has sums, so that their weights do not hang on how many points there are. The adversary is LSGAN
(Mao et al. 2017, arXiv:1611.04076) on the SDF in a small cube round a point where the true surface bends, and on what the networks know of
that place. A surface's SDF there is the distance to the plane of its nearest sampled point: the gradient goes to the surface.

Letters: Q, R points of the two surfaces; B patches, S places along a patch's side; M vertices and F faces of a mesh.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

SIDE = 8  # S
STEP = 0.015  # between a patch's places
BEND = 8  # neighbours by which it is told how much a surface bends


def scattered(vertices: Tensor, faces: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (count, 3) of a mesh, even by area, and their unit normals; gradients flow to the vertices."""
    a, b, c = vertices[faces].unbind(1)
    cross = torch.linalg.cross(b - a, c - a)
    area = cross.detach().norm(dim=1).double().cumsum(0)
    at = torch.rand(count, generator=generator, dtype=torch.float64) * area[-1]
    i = torch.searchsorted(area, at).clamp(max=len(faces) - 1)
    s, t = torch.rand(2, count, 1, generator=generator, dtype=torch.float64).to(vertices)
    s = s.sqrt()
    return (1 - s) * a[i] + s * (1 - t) * b[i] + s * t * c[i], F.normalize(cross[i], dim=1, eps=1e-20)


def chamfer_and_normals(points: Tensor, normals: Tensor, on: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """L_cd: mean distance from points (Q, 3) to the nearest of `on` (R, 3), and back, added. L_n: mean 1 - |n_p . n_q|, q the nearest."""
    x, y = points.detach().cpu().numpy(), on.detach().cpu().numpy()
    there, back = torch.from_numpy(cKDTree(y).query(x)[1]), torch.from_numpy(cKDTree(x).query(y)[1])
    chamfer = _length(points - on[there]).mean() + _length(points[back] - on).mean()
    return chamfer, (1 - (normals * truth[there]).sum(1).abs()).mean()


def _length(x: Tensor) -> Tensor:
    """With a gradient of 0 at 0."""
    return x.square().sum(1).clamp(min=torch.finfo(x.dtype).tiny).sqrt()


def bent(on: Tensor, normals: Tensor, thick: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places (count, 3) on a surface, by preference where its normals differ from their neighbours'; sheets, which have no inside, are left
    out."""
    index = torch.from_numpy(cKDTree(on.numpy()).query(on.numpy(), k=BEND)[1])
    bend = (1 - normals[index].mean(1).norm(dim=1)).clamp(min=0) + 1e-3
    weight = bend * thick[index].all(1) + 1e-9
    return on[torch.multinomial(weight, count, replacement=True, generator=generator)]


def patches(middles: Tensor, points: Tensor, normals: Tensor) -> Tensor:
    """SDFs (B, 1, S, S, S), in steps, cut off smoothly at four, round middles (B, 3), of a surface's sampled points (Q, 3) with normals
    outwards (Q, 3)."""
    at = (torch.arange(SIDE, dtype=middles.dtype) - (SIDE - 1) / 2) * STEP
    x = middles[:, None] + torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).reshape(1, -1, 3)
    i = torch.from_numpy(cKDTree(points.detach().numpy()).query(x.reshape(-1, 3).numpy())[1])
    away = ((x.reshape(-1, 3) - points[i]) * normals[i]).sum(1)
    return (away / (4 * STEP)).tanh().view(-1, 1, SIDE, SIDE, SIDE)


class Critic(nn.Module):
    """How true a patch looks (B, 1, S, S, S), to one number each (B,), told what is known of its middle (B, C)."""

    def __init__(self, told: int, width: int = 12) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, width, 3, padding=1)
        self.told = nn.Linear(told, width)
        self.second = nn.Conv3d(width, 2 * width, 4, stride=2, padding=1)
        self.third = nn.Conv3d(2 * width, 2 * width, 4, stride=2, padding=1)
        self.head = nn.Linear(2 * width, 1)

    def forward(self, patch: Tensor, told: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(patch) + self.told(told)[:, :, None, None, None], 0.2)
        x = F.leaky_relu(self.third(F.leaky_relu(self.second(x), 0.2)), 0.2)
        made: Tensor = self.head(x.mean((2, 3, 4)))[:, 0]
        return made


def critic_loss(true: Tensor, made: Tensor) -> Tensor:
    """L_D = ((D(true) - 1)^2 + D(made)^2) / 2, means over patches."""
    return ((true - 1).square().mean() + made.square().mean()) / 2


def adversary_loss(made: Tensor) -> Tensor:
    """L_G = (D(made) - 1)^2 / 2."""
    return (made - 1).square().mean() / 2
