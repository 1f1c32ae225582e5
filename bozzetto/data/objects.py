# SPDX-License-Identifier: Apache-2.0
"""`Object`: one thing to learn from, as numpy arrays: triangles, materials, tiling textures, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Object:
    """World frame: z up, front +x, bounding box centred at the origin, longest side 1.

    vertices    (N, 3) float32
    faces       (F, 3) int32, counter-clockwise from outside where the source can tell; rendered from both sides
    normals     (F, 3, 3) float32, a unit normal for each corner (creases stay sharp)
    material    (F,) int16, below M
    colours     (M, 3) float32, sRGB in [0, 1]: the base colour where a material has no texture
    uv          (F, 3, 2) float32, v = 0 at the texture's top row, wraps outside [0, 1); zeros without textures
    textures    M entries: uint8 (h, w, 3) sRGB, or None
    name        what it is, in English, lower case ("rocking chair")
    source      where it is from: "Scopia/armchair2", "procedural/mug/17", "folder/path.glb"
    credit      what its licence asks to be said, or ""
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    colours: np.ndarray
    uv: np.ndarray
    textures: tuple[np.ndarray | None, ...]
    name: str
    source: str
    credit: str = ""
