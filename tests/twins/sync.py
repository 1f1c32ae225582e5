# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer, small and with random weights, on tensors under the released code's names, in float64 where geometry is: what its
checkpoint holds, and what one joint step of it computes, in the order in which the released code computes it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

VIEWS = 16


def poses() -> np.ndarray:
    """(16, 3, 4) world to camera, x right, y down, z forward, as the released table has it: 30 degrees up, 1.5 away, first on +x."""
    e, made = math.radians(30), []
    for k in range(VIEWS):
        a = 2 * math.pi * k / VIEWS
        right = [-math.sin(a), math.cos(a), 0]
        down = [math.sin(e) * math.cos(a), math.sin(e) * math.sin(a), -math.cos(e)]
        ahead = [-math.cos(e) * math.cos(a), -math.cos(e) * math.sin(a), -math.sin(e)]
        made.append(np.concatenate([np.array([right, down, ahead]), [[0], [0], [1.5]]], 1))
    return np.stack(made)


def intrinsics(side: int) -> np.ndarray:
    """(3, 3) of pictures `side` pixels wide."""
    s = side / 256
    return np.array([[280 * s, 0, 128 * s], [0, 280 * s, 128 * s], [0, 0, 1]])


def bilinear(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """(C,) of (C, H, W) at index (x, y), zeros outside."""
    total, (height, width) = np.zeros(len(picture)), picture.shape[1:]
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < width and 0 <= j < height:
                total = total + (1 - abs(x - i)) * (1 - abs(y - j)) * picture[:, j, i]
    return total


def unprojected(features: Tensor, cells: int, shift: float = 0.0) -> Tensor:
    """(B, V F, N, N, N) of (B, V, F, h, w): vertex by vertex, looked up `shift` of a cell before where the intrinsics say."""
    b, v, f, side, _ = features.shape
    line, K, P = np.linspace(-0.5, 0.5, cells), intrinsics(side), poses()
    made = torch.zeros(b, v, f, cells, cells, cells, dtype=torch.float64)
    for iz, iy, ix in np.ndindex(cells, cells, cells):
        point = np.array([line[ix], line[iy], line[iz], 1.0])
        for n in range(v):
            u = K @ (P[n] @ point)
            for s in range(b):
                found = bilinear(features[s, n].double().numpy(), u[0] / u[2] - shift, u[1] / u[2] - shift)
                made[s, n, :, iz, iy, ix] = torch.from_numpy(found)
    return made.flatten(1, 2)


def trilinear(volume: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(C,) of (C, N, N, N), axes z, y, x over [-1/2, 1/2], at a point (x, y, z); zeros outside."""
    n, total = volume.shape[-1], np.zeros(len(volume))
    x, y, z = (point + 0.5) * (n - 1)
    for k in (math.floor(z), math.floor(z) + 1):
        for j in (math.floor(y), math.floor(y) + 1):
            for i in (math.floor(x), math.floor(x) + 1):
                if min(i, j, k) >= 0 and max(i, j, k) < n:
                    total = total + (1 - abs(x - i)) * (1 - abs(y - j)) * (1 - abs(z - k)) * volume[:, k, j, i]
    return total


def looked_through(volume: Tensor, view: int, side: int, depths: int) -> Tensor:
    """(C, D, h, w) of one volume (C, N, N, N), cell by cell."""
    K, P = intrinsics(side), poses()[view]
    back = np.linalg.inv(np.concatenate([K @ P, [[0, 0, 0, 1]]]))
    made = torch.zeros(len(volume), depths, side, side, dtype=torch.float64)
    for d, depth in enumerate(np.linspace(1.5 - 0.86603, 1.5 + 0.86603, depths)):
        for j, i in np.ndindex(side, side):
            point = (back @ np.array([i * depth, j * depth, depth, 1.0]))[:3]
            made[:, d, j, i] = torch.from_numpy(trilinear(volume.double().numpy(), point))
    return made
