# SPDX-License-Identifier: Apache-2.0
"""`Mesh`: triangles that travel between rooms and leave as GLB or OBJ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
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


def weld(mesh: Mesh) -> Mesh:
    """Vertices that agree to the bit become one (the first); what differs across a seam (uv, normals, texture) is dropped."""
    bits = np.ascontiguousarray(mesh.vertices.detach().cpu().numpy()).view(np.dtype((np.void, 3 * mesh.vertices.element_size()))).ravel()
    _, first, index = np.unique(bits, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # keep the order of first appearance
    vertices = mesh.vertices[torch.from_numpy(np.sort(first)).to(mesh.vertices.device)]
    return Mesh(vertices, torch.from_numpy(rank[index]).to(mesh.faces.device)[mesh.faces])


def save_glb(mesh: Mesh, path: str | Path, *, extras: dict[str, Any] | None = None, name: str = "bozzetto") -> None:
    """One file with geometry, normals, material and texture: `bozzetto.gltf.save`. Up is +Y, the front +Z."""
    from bozzetto.formats.gltf import save

    save(mesh, path, extras=extras or {}, name=name)


def save_obj(mesh: Mesh, path: str | Path) -> None:
    """OBJ beside its MTL and PNG of the same stem; up is +Y, the front +Z, as in `save_glb`."""
    from bozzetto.formats.gltf import save_obj

    save_obj(mesh, path)


def load(path: str | Path) -> Mesh:
    """GLB, OBJ or PLY with +Y up and the front on +Z, back in our frame, its vertices as they stand (nothing is welded).

    raises  InputError where there is no such file, no triangle in it, or it cannot be read
    """
    from bozzetto.formats.gltf import load

    return load(path)
