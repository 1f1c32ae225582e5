# SPDX-License-Identifier: Apache-2.0
"""From a raw level set to a surface that prints: no floaters, no cavities, few faces, closed, everywhere a 2-manifold.

`is_watertight_manifold` is the yardstick of all of it and is meant to be hard to pass: closedness is counted on directed
edges, and a vertex where two cones meet in a point fails it, which edge counts alone do not see.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bozzetto.mesh import Mesh
from bozzetto.render.collapse import collapse

LAMBDA, MU = 0.5, -0.53  # Taubin 1995: pass band 1/LAMBDA + 1/MU = 0.113


def is_watertight_manifold(vertices: Tensor, faces: Tensor) -> bool:
    """Whether the faces bound a solid: every directed edge there once and its reverse once, round each vertex one closed
    fan, no vertex unused or not finite, the volume positive (so that faces look outwards). vertices (N, 3), faces (F, 3)."""
    p, f = _arrays(vertices, faces)
    if len(f) < 4 or f.min() < 0 or f.max() >= len(p) or not np.isfinite(p).all():
        return False
    mate = _mates(f, len(p))
    if mate is None:
        return False
    fans = _fans(mate)[0]
    return fans == len(p) and len(np.unique(f)) == len(p) and _volumes(p, f).sum() > 0


def remove_floaters(mesh: Mesh, fraction: float = 0.01) -> Mesh:
    """Without connected parts of fewer than `fraction` of the faces, without cavities and without what lies within them.

    A cavity is a part whose faces look inwards (negative volume), or one inside another part. The largest part stays
    whatever it is; other separate parts stay. Returns vertices and faces in their order, unused vertices dropped.
    """
    p, f = _arrays(mesh.vertices, mesh.faces)
    if len(f) == 0:
        return Mesh(mesh.vertices, mesh.faces)
    edges = (f[:, :2].ravel(), f[:, 1:].ravel())
    _, of_vertex = connected_components(sparse.coo_matrix((np.ones(2 * len(f)), edges), (len(p), len(p))), directed=False)
    part = np.unique(of_vertex[f[:, 0]], return_inverse=True)[1]
    count = np.bincount(part)
    volume = np.bincount(part, _volumes(p, f))
    keep = (count >= fraction * len(f)) & (volume > 0)
    keep[count.argmax()] = True
    low, high = np.full((len(count), 3), np.inf), np.full((len(count), 3), -np.inf)
    np.minimum.at(low, part, p[f].min(1))
    np.maximum.at(high, part, p[f].max(1))
    for inner in np.flatnonzero(keep):
        for outer in np.flatnonzero(keep & (volume > volume[inner]) & (low <= low[inner]).all(1) & (high >= high[inner]).all(1)):
            ours = p[np.unique(f[part == inner])]
            extremes = ours[np.concatenate([ours.argmin(0), ours.argmax(0)])]  # all six: parts that only touch stay
            if (np.abs(_winding(extremes, p[f[part == outer]])) > 0.5).all():
                keep[inner] = False
    return _subset(mesh, keep[part])


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """At most `faces` faces by quadric error (`collapse`), still closed and 2-manifold where the surface was.

    More than `faces` come back only where fewer cannot be had so: a torus needs 14, two tetrahedra 8.
    Open borders and edges of three faces are left alone. raises ValueError for fewer than 4 faces.
    """
    if faces < 4:
        raise ValueError(f"decimate: expected at least 4 faces, got {faces}; a closed surface has no fewer")
    before = mesh
    closed = is_watertight_manifold(mesh.vertices, mesh.faces)
    p, f = mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy()
    target = faces
    while target < len(f):
        v, g = collapse(p, f, target)
        after = Mesh(torch.from_numpy(v).to(before.vertices), torch.from_numpy(g).to(before.faces))
        if not closed or is_watertight_manifold(after.vertices, after.faces):
            return after
        target = 2 * target  # a sheet thinner than its faces turned inside out: only its volume can fail here
    return Mesh(mesh.vertices, mesh.faces)


def taubin(vertices: Tensor, faces: Tensor, iterations: int) -> Tensor:
    """Vertices (N, 3) smoothed without shrinking: one step towards the mean of the neighbours, one a little longer back.

    Taubin 1995, A signal processing approach to fair surface design. Each neighbour weighs the same.
    """
    p, f = _arrays(vertices, faces)
    n = len(p)
    i, j = f.ravel(), np.roll(f, -1, axis=1).ravel()
    joined = sparse.csr_matrix((np.ones(2 * len(i)), (np.concatenate([i, j]), np.concatenate([j, i]))), (n, n))
    joined.data[:] = 1.0
    degree = np.asarray(joined.sum(1))
    mean = sparse.diags_array((1.0 / np.maximum(degree, 1)).ravel()) @ joined
    alone = degree.ravel() == 0
    for _ in range(iterations):
        for step in (LAMBDA, MU):
            move = mean @ p - p
            move[alone] = 0
            p = p + step * move
    return torch.from_numpy(p).to(vertices)


def _arrays(vertices: Tensor, faces: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return vertices.detach().cpu().double().numpy(), faces.detach().cpu().numpy().astype(np.int64, copy=False).reshape(-1, 3)


def _mates(f: np.ndarray, n: int) -> np.ndarray | None:
    """For each corner 3 f + k, the corner at which the reverse of its edge (k, k + 1) starts; None unless all pair up."""
    a, b = f.ravel(), np.roll(f, -1, axis=1).ravel()
    there, back = a * n + b, b * n + a
    one, other = np.argsort(there, kind="stable"), np.argsort(back, kind="stable")
    if (a == b).any() or (np.diff(there[one]) == 0).any() or not np.array_equal(there[one], back[other]):
        return None
    mate = np.empty(len(a), np.int64)
    mate[other] = one
    return mate


def _fans(mate: np.ndarray) -> tuple[int, np.ndarray]:
    """How many closed fans, and which one each corner is in: next to a corner is the one across its edge, at that edge's
    other end, which is the same vertex."""
    corner = np.arange(len(mate))
    across = mate - mate % 3 + (mate + 1) % 3
    return connected_components(sparse.coo_matrix((np.ones(len(mate)), (corner, across)), (len(mate), len(mate))), directed=False)


def _volumes(p: np.ndarray, f: np.ndarray) -> np.ndarray:
    """(F,) signed volumes of the tetrahedra between faces and the middle; their sum is what the surface encloses."""
    q = p[f] - p.mean(0)
    return (q[:, 0] * np.cross(q[:, 1], q[:, 2])).sum(1) / 6


def _winding(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Winding numbers (P,) of a closed surface with corners (F, 3, 3): solid angles (van Oosterom & Strackee 1983) / 4 pi."""
    total = np.empty(len(points))
    for i, x in enumerate(points):
        q = corners - x
        a, b, c = np.linalg.norm(q, axis=2).T
        dots = (q[:, 0] * q[:, 1]).sum(1) * c + (q[:, 1] * q[:, 2]).sum(1) * a + (q[:, 2] * q[:, 0]).sum(1) * b
        total[i] = np.arctan2((q[:, 0] * np.cross(q[:, 1], q[:, 2])).sum(1), a * b * c + dots).sum() / (2 * np.pi)
    return total


def _subset(mesh: Mesh, keep: np.ndarray) -> Mesh:
    """The faces that `keep` (F,) names, and their vertices."""
    faces = mesh.faces[torch.from_numpy(keep).to(mesh.faces.device)]
    used = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.faces.device)
    used[faces.reshape(-1)] = True
    return Mesh(mesh.vertices[used.to(mesh.vertices.device)], (used.cumsum(0) - 1)[faces])
