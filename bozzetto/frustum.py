# SPDX-License-Identifier: Apache-2.0
"""Frustum coordinates: where things are behind a picture, when neither focal length nor distance are known.

A point behind a square picture is (u, v, t): u right and v down in [0, 1] across the picture, t away from the eye, in
units of S, the world width of the picture at the depth of the object's centre, where t = 0. One number says how strong
the perspective is: p = S / depth of the centre; p = 0 is an orthographic camera. The point is
((u - 1/2)(1 + p t), (v - 1/2)(1 + p t), t) S along the picture's right, down and forward axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit

DEPTH_RANGE = 0.9  # frustum grids run over t in [-0.9, 0.9]: an object may be a little deeper than its crop is wide


@dataclass(frozen=True)
class Frustum:
    """What lies behind a square picture: its camera, at whose origin's depth the object's centre is.

    camera  one, square, whose axis passes through the origin
    """

    camera: Camera

    @classmethod
    def of(cls, azimuth: float, elevation: float, p: float, size: int = 512) -> Frustum:
        """That of a crop with S = 1; radians, p > 0."""
        return cls(orbit([azimuth], [elevation], 1 / p, size=size, fov=2 * math.atan(p / 2)))

    @property
    def p(self) -> float:
        """Strength of the perspective."""
        return float(self.camera.size[1] / self.camera.K[0, 0, 0])

    def resized(self, size: int) -> Frustum:
        """The same with pictures of `size` pixels a side."""
        return Frustum(self.camera.resized(size))

    def coordinates(self, points: Tensor) -> Tensor:
        """World points (N, 3) to (u, v, t), (N, 3)."""
        c2w, p = self.camera.c2w[0].to(points), self.p
        centre = c2w[:, 3] @ c2w[:, 2]
        x, y, z = (((points - c2w[:, 3]) @ c2w[:, :3]) / (p * centre)).unbind(-1)
        t = -z - 1 / p
        m = 1 + p * t
        return torch.stack([0.5 + x / m, 0.5 - y / m, t], -1)

    def points(self, coordinates: Tensor) -> Tensor:
        """The inverse of `coordinates`."""
        c2w, p = self.camera.c2w[0].to(coordinates), self.p
        S = p * (c2w[:, 3] @ c2w[:, 2])
        u, v, t = coordinates.unbind(-1)
        m = 1 + p * t
        local = torch.stack([(u - 0.5) * m, (0.5 - v) * m, -t - 1 / p], -1) * S
        return local @ c2w[:, :3].mT + c2w[:, 3]


def cell_centres(depths: int, height: int, width: int) -> Tensor:
    """Frustum coordinates (D, h, w, 3) of the centres of a grid's cells: t over DEPTH_RANGE, v down, u right."""
    k, j, i = torch.meshgrid(torch.arange(depths), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(i + 0.5) / width, (j + 0.5) / height, ((k + 0.5) / depths * 2 - 1) * DEPTH_RANGE], -1)
