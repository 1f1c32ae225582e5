# SPDX-License-Identifier: Apache-2.0
"""Frustum coordinates: where things are behind a picture, when neither focal length nor distance are known.

A point behind a square picture is (u, v, t): u right and v down in [0, 1] across the picture, t away from the eye, in
units of S, the world width of the picture at the depth of the object's centre, where t = 0. One number says how strong
the perspective is: p = S / depth of the centre; p = 0 is an orthographic camera. The point is
((u - 1/2)(1 + p t), (v - 1/2)(1 + p t), t) S along the picture's right, down and forward axes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit

DEPTH_RANGE = 0.9  # frustum grids run over t in [-0.9, 0.9]: an object may be a little deeper than its crop is wide


def frustum_camera(azimuth: float, elevation: float, p: float, size: int) -> Camera:
    """The camera of a crop with S = 1 whose axis passes through the origin, the object's centre; radians, p > 0."""
    return orbit([azimuth], [elevation], 1 / p, size=size, fov=2 * math.atan(p / 2))


def to_frustum(points: Tensor, camera: Camera, p: float) -> Tensor:
    """World points (N, 3) to frustum coordinates (N, 3) behind one camera, the depth of whose centre is that of the origin."""
    c2w = camera.c2w[0].to(points)
    centre = c2w[:, 3] @ c2w[:, 2]
    x, y, z = (((points - c2w[:, 3]) @ c2w[:, :3]) / (p * centre)).unbind(-1)
    t = -z - 1 / p
    m = 1 + p * t
    return torch.stack([0.5 + x / m, 0.5 - y / m, t], -1)


def from_frustum(coordinates: Tensor, camera: Camera, p: float) -> Tensor:
    """The inverse of `to_frustum`."""
    c2w = camera.c2w[0].to(coordinates)
    S = p * (c2w[:, 3] @ c2w[:, 2])
    u, v, t = coordinates.unbind(-1)
    m = 1 + p * t
    local = torch.stack([(u - 0.5) * m, (0.5 - v) * m, -t - 1 / p], -1) * S
    return local @ c2w[:, :3].mT + c2w[:, 3]
