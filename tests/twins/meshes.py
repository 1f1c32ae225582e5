# SPDX-License-Identifier: Apache-2.0
"""Meshes for tests: seams closed again, textures of fields, OBJ files, and what covers a texel twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bozzetto.camera import to_gltf
from bozzetto.mesh import Mesh
from bozzetto.render.bake import scatter, texels


def weld(mesh: Mesh) -> Mesh:
    """Vertices that agree to the bit become one (the first); what differs across a seam (uv, normals, texture) is dropped."""
    bits = np.ascontiguousarray(mesh.vertices.detach().cpu().numpy()).view(np.dtype((np.void, 3 * mesh.vertices.element_size()))).ravel()
    _, first, index = np.unique(bits, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # keep the order of first appearance
    vertices = mesh.vertices[torch.from_numpy(np.sort(first)).to(mesh.vertices.device)]
    return Mesh(vertices, torch.from_numpy(rank[index]).to(mesh.faces.device)[mesh.faces])


def bake(mesh: Mesh, resolution: int, colour: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(R, R, C) of a field over the surface: `colour` takes positions (T, 3) and unit normals (T, 3), gives (T, C).

    Every texel has a value: what lies between charts is the nearest chart's. raises ValueError for a mesh without uv.
    """
    t = texels(mesh, resolution)
    return scatter(t, colour(t.position, t.normal))


def write_obj(mesh: Mesh, path: Path) -> None:
    """An OBJ of a mesh with normals, uv and texture, its MTL and PNG beside it; up is +Y, v runs upwards."""
    lines = [f"mtllib {path.with_suffix('.mtl').name}"]
    lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in to_gltf(mesh.vertices).tolist()]  # nine digits hold a float32
    lines += [f"vt {u:.9g} {1 - v:.9g}" for u, v in mesh.uv.double().tolist()]
    lines += [f"vn {x:.9g} {y:.9g} {z:.9g}" for x, y, z in to_gltf(mesh.normals).tolist()]
    lines += ["usemtl look", *("f " + " ".join(f"{i}/{i}/{i}" for i in face) for face in (mesh.faces + 1).tolist())]
    Image.fromarray((mesh.texture * 255 + 0.5).to(torch.uint8).numpy()).save(path.with_suffix(".png"))
    path.with_suffix(".mtl").write_text(f"newmtl look\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {path.with_suffix('.png').name}\n")
    path.write_text("\n".join(lines) + "\n")


def overlaps(uv: np.ndarray, faces: np.ndarray, resolution: int) -> int:
    """How many texel centres lie inside more than one face, farther than 1e-3 of a texel from its edges; uv (N, 2), faces (F, 3)."""
    count = np.zeros((resolution, resolution), np.int64)
    for q in np.asarray(uv, np.float64)[faces] * resolution:
        low, high = np.ceil(q.min(0) - 0.5).astype(int).clip(0), np.floor(q.max(0) - 0.5).astype(int).clip(max=resolution - 1)
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1) + 0.5, np.arange(low[1], high[1] + 1) + 0.5)
        d = np.roll(q, -1, axis=0) - q
        side = [(e[0] * (y - p[1]) - e[1] * (x - p[0])) / max(np.abs(e).sum(), 1e-300) for p, e in zip(q, d, strict=True)]
        sign = np.sign(d[0, 0] * d[1, 1] - d[0, 1] * d[1, 0])
        count[low[1] : high[1] + 1, low[0] : high[0] + 1] += (sign * np.array(side) > 1e-3).all(0)
    return int((count > 1).sum())
