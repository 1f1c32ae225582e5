# SPDX-License-Identifier: Apache-2.0
"""Marching tetrahedra, one tet at a time in float64: no tables, orientation from the SDF's gradient in the tet."""

from __future__ import annotations

import itertools
from collections import Counter

import torch
from torch import Tensor

from bozzetto.shapes.tetgrid import TetGrid


def marching_tetrahedra(vertices: Tensor, sdf: Tensor, tets: Tensor) -> tuple[Tensor, list[list[int]], list[tuple[int, int]]]:
    """Vertices (M, 3) by plain torch, with autograd; polygons (triangles and quads), counter-clockwise seen from larger SDF; the edge
    of each vertex, sorted."""
    crossed, polygons = set(), []
    for tet in tets.tolist():
        edges = [(min(a, b), max(a, b)) for a, b in itertools.combinations(tet, 2) if (sdf[a] > 0) != (sdf[b] > 0)]
        crossed.update(edges)
        if not edges:
            continue
        # neighbours in the polygon lie in one face of the tet, so their edges share a vertex
        cycle = [edges.pop(0)]
        while edges:
            cycle.append(edges.pop(next(i for i, e in enumerate(edges) if set(e) & set(cycle[-1]))))
        x = torch.stack([_cross_point(vertices, sdf, e) for e in cycle]).detach()
        normal = torch.linalg.cross(x[1] - x[0], x[2] - x[0])
        if float(normal @ gradient(vertices, sdf, tet)) < 0:
            cycle = cycle[::-1]
        polygons.append(cycle)
    order = sorted(crossed)
    points = torch.stack([_cross_point(vertices, sdf, e) for e in order]) if order else vertices.new_zeros(0, 3)
    return points, [[order.index(e) for e in p] for p in polygons], order


def _cross_point(vertices: Tensor, sdf: Tensor, edge: tuple[int, int]) -> Tensor:
    a, b = edge
    return (vertices[a] * sdf[b] - vertices[b] * sdf[a]) / (sdf[b] - sdf[a])


def gradient(vertices: Tensor, sdf: Tensor, tet: list[int]) -> Tensor:
    """The gradient (3,) of the linear function with these values at a tet's corners."""
    v, s = vertices[tet].detach(), sdf[tet].detach()
    return torch.linalg.solve(v[1:] - v[0], s[1:] - s[0])


def signed_volume(vertices: Tensor, faces: Tensor) -> Tensor:
    """Of the solid inside a closed surface, by the divergence theorem."""
    a, b, c = vertices[faces].unbind(1)
    return (torch.linalg.cross(a, b) * c).sum() / 6


def area(vertices: Tensor, faces: Tensor) -> Tensor:
    """Of all triangles."""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2


def euler(vertices: Tensor, faces: Tensor) -> int:
    """V - E + F, over vertices that have faces."""
    pairs = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(1).values
    return len(torch.unique(faces)) - len(torch.unique(pairs, dim=0)) + len(faces)


def is_closed(faces: Tensor) -> bool:
    """Each directed edge occurs once, and so does its reverse: a closed, oriented 2-manifold but for touching vertices."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = int(faces.max()) + 1
    code = (pairs[:, 0] * n + pairs[:, 1]).sort().values
    back = (pairs[:, 1] * n + pairs[:, 0]).sort().values
    return bool((code[1:] > code[:-1]).all()) and torch.equal(code, back)


def vertex_fans(faces: Tensor) -> int:
    """How many vertices have more than one fan of faces (0 for a manifold), by walking round each."""
    bad, around = 0, {}
    for a, b, c in faces.tolist():
        for i, j, k in ((a, b, c), (b, c, a), (c, a, b)):
            around.setdefault(i, {})[j] = k
    for ring in around.values():
        start = here = next(iter(ring))
        steps = 0
        while True:
            here, steps = ring[here], steps + 1
            if here == start:
                break
        bad += steps != len(ring)
    return bad


def grid_of(vertices: Tensor, tets: Tensor) -> TetGrid:
    """Any tets as a grid; vertices of faces that one tet alone has are held outside."""
    faces = Counter(tuple(sorted(f)) for tet in tets.tolist() for f in itertools.combinations(tet, 3))
    side = torch.zeros(len(vertices), dtype=torch.int8)
    side[sorted({i for f, count in faces.items() if count == 1 for i in f})] = 1
    return TetGrid(vertices, side, listed=tets)


def interpolated(points: Tensor, vertices: Tensor, tets: Tensor, values: Tensor) -> Tensor:
    """The function (P,) at points (P, 3), linear in each tet and with these values (N,) at vertices; every tet is asked."""
    inverse = torch.linalg.inv((vertices[tets[:, 1:]] - vertices[tets[:, :1]]).mT)  # (T, 3, 3): offsets to weights
    out = []
    for p in points:
        w = (inverse @ (p - vertices[tets[:, 0]])[..., None])[..., 0]
        least = torch.minimum(w.amin(1), 1 - w.sum(1))
        t = int(least.argmax())
        assert least[t] > -1e-9, f"{p.tolist()} is in no tet"
        out.append(values[tets[t, 0]] + w[t] @ (values[tets[t, 1:]] - values[tets[t, 0]]))
    return torch.stack(out)
