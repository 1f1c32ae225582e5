# SPDX-License-Identifier: Apache-2.0
"""`Mesh`: triangles that travel between rooms and leave as a GLB (`gltf.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bozzetto.brief import brief


@brief
@dataclass(frozen=True)
class Mesh:
    """Triangles in the world frame (z up, front +x), with what is known of their look.

    vertices    (N, 3) float32, object units
    faces       (F, 3) int64, counter-clockwise seen from outside
    normals     (N, 3) float32, unit, or None
    uv          (N, 2) float32 in [0, 1], v = 0 at the texture's *top* row (as glTF), or None; vertices on a seam stand
                there once for each side
    texture     (H, W, 3) float32, sRGB-encoded base colour in [0, 1], or None
    confidence  (H, W) float32 in [0, 1], texel by texel: 1 seen in the picture, 0 invented; or None
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor | None = None
    uv: Tensor | None = None
    texture: Tensor | None = None
    confidence: Tensor | None = None


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(N, 3) unit normals, each the mean of its faces' weighted by their angle there, so that the triangulation of a flat
    piece does not matter (Thuermer & Wuethrich 1998). (0, 0, 1) where there is no face or they cancel.

    vertices (N, 3), faces (F, 3); computed in float64, in faces' order, returned in vertices' dtype. No gradient.
    """
    p = vertices.detach().double()
    corner = p[faces]  # (F, 3, 3)
    forth = corner.roll(-1, dims=1) - corner
    back = corner.roll(1, dims=1) - corner
    cross = torch.linalg.cross(forth, back)
    angle = torch.atan2(cross.norm(dim=-1), (forth * back).sum(-1))  # finite for a face without area
    normal = cross[:, 0] / cross[:, 0].norm(dim=-1, keepdim=True).clamp(min=1e-300)
    weighted = (angle[..., None] * normal[:, None]).reshape(-1, 3).cpu().numpy()
    index = faces.reshape(-1).cpu().numpy()
    total = np.stack([np.bincount(index, weighted[:, k], minlength=len(p)) for k in range(3)], axis=1)  # one order, same bits
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    return torch.from_numpy(unit).to(vertices)
