# SPDX-License-Identifier: Apache-2.0
"""`Mesh`: triangles that travel between rooms and leave as GLB or OBJ."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
