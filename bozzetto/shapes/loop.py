# SPDX-License-Identifier: Apache-2.0
"""Loop subdivision of a triangle mesh with learnable positions and weights: DMTet's last step.

Shen et al. 2021 (arXiv:2111.04276), Sec. 3.1.4; rules of Loop 1987, boundary rules of Hoppe et al. 1994. Each old vertex moves to
(1 - alpha) v + alpha * mean of its k neighbours; plain Loop is alpha = 5/8 - (3/8 + cos(2 pi / k) / 4)^2, which is 3/8 for k = 6.
Each edge (a, b) with opposite corners c, d gets (3 a + 3 b + c + d) / 8. On a boundary, only boundary neighbours count, alpha is
1/4, and edges get their midpoint. The paper predicts positions and alpha with a network (`priors.dmtet`); in `LoopSurface` they are
parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bozzetto.mesh import Mesh


class _Edges(NamedTuple):
    """edges (E, 2) with a < b, sorted; `of` (F, 3) the edges 01, 12, 20 of each face; `inner` (E,) whether two faces share it."""

    edges: Tensor
    of: Tensor
    inner: Tensor


def loop_alpha(faces: Tensor, num_vertices: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weights (N,) of plain Loop subdivision: by valence, 1/4 on a boundary, 0 for a vertex without faces."""
    e = _edges(faces, num_vertices)
    k, ring = _valence(e, num_vertices, dtype)
    alpha = 0.625 - (0.375 + (2 * torch.pi / k.clamp(min=1)).cos() / 4) ** 2
    return torch.where(ring, 0.25, torch.where(k > 0, alpha, 0.0))


def loop_subdivide(vertices: Tensor, faces: Tensor, alpha: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Four faces for each; new vertices differentiable in old ones and in alpha.

    vertices  (N, 3); faces (F, 3), an edge in at most two of them
    alpha     (N,), how far each old vertex moves to the mean of its neighbours; plain Loop if not given
    returns   vertices (N + E, 3), the old ones first, then one for each edge in sorted order; faces (4 F, 3), three corners and
              the middle, wound as they were
    raises    ValueError for an edge in more than two faces
    """
    n = len(vertices)
    e = _edges(faces, n)
    if alpha is None:
        alpha = loop_alpha(faces, n, vertices.dtype).to(vertices.device)
    k, ring = _valence(e, n, vertices.dtype)
    a, b = vertices[e.edges[:, 0]], vertices[e.edges[:, 1]]
    total = torch.zeros_like(vertices)
    for i, j in ((0, 1), (1, 0)):
        to = e.edges[:, i]
        seen = ~ring[to] | ~e.inner  # boundary vertices follow the boundary only
        total = total.index_add(0, to[seen], vertices[e.edges[seen, j]])
    mean = total / k.clamp(min=1)[:, None]
    even = torch.where(k[:, None] > 0, vertices + alpha[:, None] * (mean - vertices), vertices)
    opposite = torch.zeros_like(a).index_add(0, e.of.reshape(-1), vertices[faces[:, [2, 0, 1]].reshape(-1)])
    odd = torch.where(e.inner[:, None], (3 * (a + b) + opposite) / 8, (a + b) / 2)
    m, v = e.of + n, faces
    corners = [torch.stack([v[:, i], m[:, i], m[:, (i + 2) % 3]], 1) for i in range(3)]
    return torch.cat([even, odd]), torch.stack([*corners, m], 1).reshape(-1, 3)


class LoopSurface(nn.Module):
    """Learnable `vertices` (N, 3) and `logit_alpha` (N,) of a coarse mesh, whose subdivision is the surface.

    levels  how often it is subdivided; alpha belongs to the first, later ones are plain
    """

    faces: Tensor

    def __init__(self, vertices: Tensor, faces: Tensor, levels: int = 1) -> None:
        super().__init__()
        self.levels = levels
        self.vertices = nn.Parameter(vertices.detach().clone())
        alpha = loop_alpha(faces, len(vertices), vertices.dtype).to(vertices.device)
        self.logit_alpha = nn.Parameter(torch.logit(alpha.clamp(1e-3, 1 - 1e-3)))
        self.register_buffer("faces", faces.clone())

    def surface(self) -> tuple[Tensor, Tensor]:
        """Vertices with gradients, and faces."""
        vertices, faces = self.vertices, self.faces
        for level in range(self.levels):
            vertices, faces = loop_subdivide(vertices, faces, self.logit_alpha.sigmoid() if level == 0 else None)
        return vertices, faces

    def mesh(self) -> Mesh:
        """The surface as it is, on the CPU."""
        with torch.no_grad():
            vertices, faces = self.surface()
        return Mesh(vertices.float().cpu(), faces.cpu())


def _edges(faces: Tensor, n: int) -> _Edges:
    pairs = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(1).values
    code, of, count = torch.unique(pairs[:, 0] * n + pairs[:, 1], return_inverse=True, return_counts=True)
    if len(count) and int(count.max()) > 2:
        raise ValueError("loop: an edge has more than two faces; split the mesh there")
    return _Edges(torch.stack([code // n, code % n], 1), of.view(-1, 3), count == 2)


def _valence(e: _Edges, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """How many neighbours count for each vertex, and whether it is on a boundary (where only boundary neighbours do)."""
    every = torch.zeros(n, dtype=dtype, device=e.edges.device)
    border = every.index_add(0, e.edges[~e.inner].reshape(-1), every.new_ones(2 * int((~e.inner).sum())))
    every = every.index_add(0, e.edges.reshape(-1), every.new_ones(2 * len(e.edges)))
    return torch.where(border > 0, border, every), border > 0
