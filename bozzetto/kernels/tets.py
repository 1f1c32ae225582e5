# SPDX-License-Identifier: Apache-2.0
"""Tables and small loops over tetrahedra, for `marching.py` and for grids: arrays in, arrays out, no gradients.

Cases: for a tet (p, q, r, s) in an even permutation of a positively oriented one, p alone negative gives the triangle
(pq, pr, ps); p alone positive (pr, pq, ps); p and q positive the planar quad pr, qr, qs, ps. Normals then point to larger SDF.
A lattice cell has corners 0..7 = 4 dx + 2 dy + dz; each vertex owns the edges in the directions 1..7 towards its cell's others.
"""

from __future__ import annotations

import itertools

import numpy as np

from bozzetto.kernels.pool import njit

EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))  # a tet's edges in the order in which their numbers are kept


def _cases() -> tuple[np.ndarray, np.ndarray]:
    """By pattern sum_i 2^i [s_i > 0]: how many triangles, and their corners as numbers of edges in EDGES, (16, 2, 3)."""
    number = {frozenset(e): i for i, e in enumerate(EDGES)}
    count, corners = np.zeros(16, np.int64), np.zeros((16, 2, 3), np.uint8)
    for pattern in range(1, 15):
        above = [i for i in range(4) if pattern >> i & 1]
        below = [i for i in range(4) if i not in above]
        first, rest = (below, above) if len(below) == 1 else (above, below)
        p, q, r, s = first + rest
        if sum(x > y for x, y in itertools.combinations((p, q, r, s), 2)) % 2:
            r, s = s, r
        polygons = {1: [(p, q), (p, r), (p, s)], 3: [(p, r), (p, q), (p, s)], 2: [(p, r), (q, r), (q, s), (p, s)]}
        polygon = polygons[len(below)]
        e = [number[frozenset(x)] for x in polygon]
        count[pattern] = len(e) - 2
        corners[pattern, : len(e) - 2] = [[e[0], e[i + 1], e[i + 2]] for i in range(len(e) - 2)]
    return count, corners


def _kuhn() -> np.ndarray:
    """The six tets (6, 4) of a cell as corners, positively oriented: paths from corner 0 to corner 7 along the axes, with
    first and third swapped where the order of axes is odd. Opposite edges 02 and 13 keep their places under that swap
    (red refinement along the diagonal between their midpoints gives Kuhn tets again)."""
    tets = []
    for axes in itertools.permutations((4, 2, 1)):
        path = [0, axes[0], axes[0] + axes[1], 7]
        if sum(x < y for x, y in itertools.combinations(axes, 2)) % 2:
            path[0], path[2] = path[2], path[0]
        tets.append(path)
    return np.array(tets, np.int64)


def _cell_cases() -> tuple[np.ndarray, np.ndarray]:
    """By the cell's pattern sum_c 2^c [s_c > 0]: how many triangles, and their corners as 8 * owner + direction."""
    count, corners = np.zeros(256, np.int64), np.zeros((256, 12, 3), np.uint8)
    for pattern in range(256):
        for tet in KUHN:
            case = sum((pattern >> int(c) & 1) << i for i, c in enumerate(tet))
            for triangle in CORNERS[case, : COUNT[case]]:
                for k, e in enumerate(triangle):
                    low, high = sorted(int(tet[i]) for i in EDGES[e])
                    corners[pattern, count[pattern], k] = 8 * low + (high - low)
                count[pattern] += 1
    return count, corners


COUNT, CORNERS = _cases()
KUHN = _kuhn()
CELL_COUNT, CELL_CORNERS = _cell_cases()
BITS = np.array([i.bit_count() for i in range(256)], np.uint8)


def _children() -> np.ndarray:
    """Bey's eight children, with vertices 0 and 2 swapped where that makes the determinant positive (and keeps pairs 02, 13)."""
    mid = {e: 4 + i for i, e in enumerate(EDGES)}
    a, b, c, d, e, f = (mid[x] for x in EDGES)  # 01 02 03 12 13 23
    children = [[0, a, b, c], [a, 1, d, e], [b, d, 2, f], [c, e, f, 3], [a, b, c, e], [a, b, d, e], [b, c, e, f], [b, d, e, f]]
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    points = np.concatenate([corners, [(corners[i] + corners[j]) / 2 for i, j in EDGES]])
    for child in children:
        if np.linalg.det(points[child[1:]] - points[child[0]]) < 0:
            child[0], child[2] = child[2], child[0]
    return np.array(children, np.int64)


CHILDREN = _children()


@njit
def edges_of(tets, num_vertices):
    start = np.zeros(num_vertices + 1, np.int64)
    for t in range(len(tets)):
        for e in range(6):
            i, j = EDGES[e]
            start[min(tets[t, i], tets[t, j]) + 1] += 1
    for v in range(num_vertices):
        start[v + 1] += start[v]
    fill = start[:-1].copy()
    other, slot = np.empty(start[-1], np.int64), np.empty(start[-1], np.int64)
    for t in range(len(tets)):
        for e in range(6):
            i, j = EDGES[e]
            a = min(tets[t, i], tets[t, j])
            other[fill[a]] = max(tets[t, i], tets[t, j])
            slot[fill[a]] = 6 * t + e
            fill[a] += 1
    edges, number = np.empty((start[-1], 2), np.int64), np.empty((len(tets), 6), np.int64)
    flat = number.reshape(-1)
    n = 0
    for a in range(num_vertices):
        for x in range(start[a] + 1, start[a + 1]):  # a few dozen: insertion sort
            o, s, y = other[x], slot[x], x - 1
            while y >= start[a] and other[y] > o:
                other[y + 1], slot[y + 1] = other[y], slot[y]
                y -= 1
            other[y + 1], slot[y + 1] = o, s
        for x in range(start[a], start[a + 1]):
            if x == start[a] or other[x] != other[x - 1]:
                edges[n, 0], edges[n, 1] = a, other[x]
                n += 1
            flat[slot[x]] = n - 1
    return edges[:n].copy(), number


@njit
def least_width(vertices, tets, out):
    """out[v] = least width of the tets at v, the least of four altitudes and three distances of opposite edges: |det| / |cross|."""
    for t in range(len(tets)):
        a, b, c, d = vertices[tets[t, 0]], vertices[tets[t, 1]], vertices[tets[t, 2]], vertices[tets[t, 3]]
        ab, ac, ad, bc, bd, cd = _sub(b, a), _sub(c, a), _sub(d, a), _sub(c, b), _sub(d, b), _sub(d, c)
        largest = max(max(_square(_cross(ab, ac)), _square(_cross(ab, ad))), max(_square(_cross(ac, ad)), _square(_cross(bc, bd))))
        largest = max(max(largest, _square(_cross(ab, cd))), max(_square(_cross(ac, bd)), _square(_cross(ad, bc))))
        width = abs(_dot(_cross(ab, ac), ad)) / np.sqrt(largest)
        for i in range(4):
            out[tets[t, i]] = min(out[tets[t, i]], width)


@njit
def _sub(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@njit
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit
def _square(a):
    return _dot(a, a)
