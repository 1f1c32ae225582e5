# SPDX-License-Identifier: Apache-2.0
"""Triangles to test with: balls, polygons, half planes, and what breaks rasterisers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bozzetto.camera import orbit

# float64: 1e4 roundings of numbers whose cancellation costs three digits. float32: kernels work in float64 and round what they
# read and write, and a colour passes through up to four blends
TOLERANCE = {torch.float64: {"rtol": 1e-9, "atol": 1e-10}, torch.float32: {"rtol": 2e-6, "atol": 2e-6}}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grads(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of the sum of squares, weighted at random."""
    if not out.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    loss = ((out - 0.3) ** 2 * random(*out.shape, seed=9).to(out)).sum()
    return [
        g if g is not None else torch.zeros_like(x)
        for g, x in zip(torch.autograd.grad(loss, inputs, allow_unused=True), inputs, strict=True)
    ]


def half_plane(angle: float, offset: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Everything on one side of a line, `offset` pixels from the picture's centre: two triangles at various w."""
    h, w = size
    n = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    t = torch.tensor([-n[1], n[0]], dtype=torch.float64)
    corners = torch.stack([n * offset + t * 300, n * offset - t * 300, n * -400 - t * 300, n * -400 + t * 300])
    xy = corners * torch.tensor([2 / w, 2 / h], dtype=torch.float64)
    q = torch.tensor([1.0, 2.0, 1.5, 0.7], dtype=torch.float64)
    clip = torch.cat([xy * q[:, None], torch.zeros(4, 1, dtype=torch.float64), q[:, None]], 1)
    return clip[None], torch.tensor([[0, 1, 2], [0, 2, 3]])


def polygon(xy: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Corners (n, 2) in pixels, and a fan from the first."""
    n = len(xy)
    flat = xy * torch.tensor([2 / size[1], 2 / size[0]], dtype=torch.float64) - 1
    clip = torch.cat([flat, torch.zeros(n, 1, dtype=torch.float64), torch.ones(n, 1, dtype=torch.float64)], 1)[None]
    i = torch.arange(1, n - 1)
    return clip, torch.stack([torch.zeros_like(i), i, i + 1], -1)


def regular(n: int, radius: float, centre: tuple[float, float]) -> Tensor:
    a = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n + 0.3
    return radius * torch.stack([a.cos(), a.sin()], -1) + torch.tensor(centre, dtype=torch.float64)


def ball(level: int) -> tuple[Tensor, Tensor]:
    """A unit octahedron, its faces split in four `level` times, on the sphere; counter-clockwise seen from outside."""
    v = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    f = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(level):
        pairs = torch.stack([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]], 1).sort(-1).values
        unique, index = torch.unique(pairs.reshape(-1, 2), dim=0, return_inverse=True)
        mid = v[unique].mean(1)
        m = index.view(-1, 3) + len(v)
        v = torch.cat([v, mid / mid.norm(dim=-1, keepdim=True)])
        corner = [torch.stack([f[:, k], m[:, k], m[:, k - 1]], -1) for k in range(3)]
        f = torch.cat([*corner, m])
    return v, f


def scenes() -> dict[str, tuple[Tensor, Tensor, tuple[int, int]]]:
    """Clip-space vertices (B, N, 4) float64, faces and sizes: what breaks rasterisers."""
    g = torch.Generator().manual_seed(0)

    def points(b: int, n: int) -> Tensor:
        p = torch.randn(b, n, 4, generator=g, dtype=torch.float64)
        p[..., 2] *= 0.4
        p[..., 3] = 1 + torch.rand(b, n, generator=g, dtype=torch.float64)
        return p

    soup, tri = points(2, 12), torch.stack([torch.randperm(12, generator=g)[:3] for _ in range(8)])
    crossing = points(2, 12)
    crossing[:, ::2, 3] *= -0.5
    broken = points(1, 12)
    broken[0, 0, 0], broken[0, 1, 3], broken[0, 2, 1], broken[0, 3] = math.nan, math.nan, math.inf, 0
    flat = points(1, 6)
    flat[0, 2] = 0.5 * flat[0, 0] + 0.5 * flat[0, 1]  # a face without area
    v, f = ball(1)
    near = orbit([0.3, 2.0], [0.4, -1.1], 1.9, fov=0.9, size=(11, 14)).clip(v * 0.7)
    inside_out = torch.where(torch.rand(len(f), 1, generator=g) < 0.5, f, f.flip(1))
    pieces = torch.cat([f[:20], f[10:26] + len(v)])  # open, in two pieces
    return {
        "soup": (soup, tri, (9, 7)),
        "one pixel": (soup * torch.tensor([0.3, 0.3, 1, 1], dtype=torch.float64), tri, (1, 1)),
        "one row": (soup, tri, (1, 19)),
        "no faces": (soup, tri[:0], (5, 4)),
        "all behind": (soup * torch.tensor([1, 1, 1, -1], dtype=torch.float64), tri, (6, 5)),
        "across the eye plane": (crossing, tri, (13, 11)),
        "no numbers": (broken, tri, (8, 9)),
        "degenerate": (flat, torch.tensor([[0, 1, 2], [3, 3, 4], [0, 4, 5], [4, 0, 3], [1, 1, 1]]), (11, 6)),
        "ball": (near, f, (11, 14)),
        "wound at random": (near, inside_out, (11, 14)),
        "open pieces": (torch.cat([near, near * torch.tensor([1, 1, 0.9, 1], dtype=torch.float64) + 0.1], 1), pieces, (10, 13)),
        "three at an edge": (points(1, 5), torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]), (9, 11)),
    }
