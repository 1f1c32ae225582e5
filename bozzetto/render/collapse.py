# SPDX-License-Identifier: Apache-2.0
"""Edge collapse by quadric error that cannot break a closed surface: the arithmetic behind `clean.decimate`.

Garland & Heckbert 1997 (quadrics), Trettner & Kobbelt 2020 (probabilistic quadrics: an uncertain normal makes every
quadric invertible and flat regions collapse evenly), Dey et al. 1999 (link condition: which collapses keep a
2-manifold). Written here because fast_simplification 0.2 tests no link condition: it left open or doubled edges on both
of our test surfaces. Order is by (cost, vertex, vertex), so the same input gives the same bits.

Letters: E(x) = x' A x - 2 b' x + c, summed over faces with weight area; a quadric is (A00 A01 A02 A11 A12 A22 b0 b1 b2 c).
A corner is 3 f + k; the corners of a vertex are a linked list, and collapsing joins two lists.
"""

from __future__ import annotations

import heapq

import numpy as np

from bozzetto.kernels.pool import njit

SIGMA = 0.01  # uncertainty of a face's normal, radians: small, so that creases stay sharp
TURN = 0.2  # no surviving face may turn by more than acos(TURN), until nothing else is left to do
SLIVER = 1e-3  # least 2 area / longest side squared of a new face (an equilateral has 0.87), likewise


def collapse(vertices: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `target` faces where the surface allows it; else as few as it does.

    vertices  (N, 3) float; faces (F, 3) integers; vertices on an edge without exactly two faces are never touched
    returns   (M, 3) float32 and (G, 3) int64, unused vertices dropped, order kept
    """
    p = vertices.astype(np.float32).astype(np.float64)
    f = faces.astype(np.int64)
    if len(f) > target:
        locked = _locked(len(p), f)
        f = f.copy()
        edges = np.unique(np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1), axis=0)
        left = _collapse(p, f, edges, locked, target, TURN, SLIVER)
        while left > target:  # then geometry yields, topology never
            f = f[f[:, 0] >= 0].copy()
            edges = np.unique(np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1), axis=0)
            before = left
            left = _collapse(p, f, edges, locked, target, -2.0, 0.0)
            if left == before:
                break
        f = f[f[:, 0] >= 0]
    used = np.zeros(len(p), bool)
    used[f] = True
    return p[used].astype(np.float32), (np.cumsum(used) - 1)[f]


def _locked(n: int, faces: np.ndarray) -> np.ndarray:
    """(N,) bool: ends of edges that do not run once each way."""
    a = faces.ravel()
    b = np.roll(faces, -1, axis=1).ravel()
    there, back = a * n + b, b * n + a
    unique, count = np.unique(there, return_counts=True)
    at = np.searchsorted(unique, back).clip(max=len(unique) - 1)
    ours = count[np.searchsorted(unique, there)]
    bad = (ours != 1) | (unique[at] != back) | (count[at] != 1) | (a == b)
    locked = np.zeros(n, bool)
    locked[a[bad]] = locked[b[bad]] = True
    return locked


@njit
def _collapse(p, faces, edges, locked, target, turn, sliver):
    """Moves `p`, edits `faces` (a dead one gets -1); returns how many live."""
    n, m = len(p), len(faces)
    head = np.full(n, -1, np.int64)
    link = np.full(3 * m, -1, np.int64)
    degree = np.zeros(n, np.int64)  # faces round a vertex
    Q = np.zeros((n, 10))
    for c in range(3 * m - 1, -1, -1):
        v = faces[c // 3, c % 3]
        link[c] = head[v]
        head[v] = c
        degree[v] += 1
    for f in range(m):
        _add_face(Q, p, faces[f, 0], faces[f, 1], faces[f, 2])
    version = np.zeros(n, np.int64)
    x = np.zeros(3)
    heap = [(0.0, 0, 0, 0, 0)]
    heap.pop()
    for e in range(len(edges)):
        a, b = edges[e, 0], edges[e, 1]
        if not locked[a] and not locked[b]:
            heap.append((_cost(Q, p, a, b, x), a, b, 0, 0))
    heapq.heapify(heap)
    mark = np.full(n, -1, np.int64)
    stamp = 0
    left = m
    while left > target and len(heap) > 0:
        _cheapest, a, b, va, vb = heapq.heappop(heap)
        if version[a] != va or version[b] != vb:
            continue
        _cost(Q, p, a, b, x)
        stamp += 1
        if not _keeps_manifold(faces, head, link, degree, a, b, mark, stamp):
            continue
        if not (_keeps_shape(p, faces, head, link, a, b, x, turn, sliver) and _keeps_shape(p, faces, head, link, b, a, x, turn, sliver)):
            continue
        # b becomes a; the two faces on the edge die
        tail = -1
        c = head[a]
        while c >= 0:
            f = c // 3
            if faces[f, 0] == b or faces[f, 1] == b or faces[f, 2] == b:
                for k in range(3):
                    degree[faces[f, k]] -= 1
            tail = c
            c = link[c]
        link[tail] = head[b]
        c = head[a]
        previous = -1
        while c >= 0:
            f = c // 3
            ends = 0
            for k in range(3):
                if faces[f, k] == a or faces[f, k] == b or faces[f, k] < 0:
                    ends += 1
            following = link[c]
            if ends > 1:
                if faces[f, 0] >= 0:
                    _forget(faces, head, link, f, a, b)
                    faces[f, 0] = faces[f, 1] = faces[f, 2] = -1
                    left -= 1
                if previous < 0:
                    head[a] = following
                else:
                    link[previous] = following
            else:
                faces[f, c % 3] = a
                previous = c
            c = following
        degree[a] += degree[b]
        degree[b] = 0
        head[b] = -1
        for k in range(3):
            p[a, k] = x[k]
        for k in range(10):
            Q[a, k] += Q[b, k]
        version[b] += 1
        version[a] += 1
        stamp += 1
        c = head[a]
        while c >= 0:
            for k in range(3):
                v = faces[c // 3, k]
                if v != a and mark[v] != stamp:
                    mark[v] = stamp
                    if not locked[v]:
                        lo, hi = min(a, v), max(a, v)
                        heapq.heappush(heap, (_cost(Q, p, lo, hi, x), lo, hi, version[lo], version[hi]))
            c = link[c]
    return left


@njit
def _forget(faces, head, link, f, a, b):
    """Take face f out of the list of its third vertex."""
    for k in range(3):
        v = faces[f, k]
        if v != a and v != b:
            c, previous = head[v], -1
            while c >= 0:
                if c // 3 == f:
                    if previous < 0:
                        head[v] = link[c]
                    else:
                        link[previous] = link[c]
                    break
                previous = c
                c = link[c]


@njit
def _add_face(Q, p, i, j, k):
    ux, uy, uz = p[j, 0] - p[i, 0], p[j, 1] - p[i, 1], p[j, 2] - p[i, 2]
    vx, vy, vz = p[k, 0] - p[i, 0], p[k, 1] - p[i, 1], p[k, 2] - p[i, 2]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    twice = np.sqrt(nx * nx + ny * ny + nz * nz)
    if not twice > 0:
        return
    nx, ny, nz = nx / twice, ny / twice, nz / twice
    mx, my, mz = (p[i, 0] + p[j, 0] + p[k, 0]) / 3, (p[i, 1] + p[j, 1] + p[k, 1]) / 3, (p[i, 2] + p[j, 2] + p[k, 2]) / 3
    d = nx * mx + ny * my + nz * mz
    s = SIGMA * SIGMA
    for v in (i, j, k):
        Q[v, 0] += twice * (nx * nx + s)
        Q[v, 1] += twice * nx * ny
        Q[v, 2] += twice * nx * nz
        Q[v, 3] += twice * (ny * ny + s)
        Q[v, 4] += twice * ny * nz
        Q[v, 5] += twice * (nz * nz + s)
        Q[v, 6] += twice * (nx * d + s * mx)
        Q[v, 7] += twice * (ny * d + s * my)
        Q[v, 8] += twice * (nz * d + s * mz)
        Q[v, 9] += twice * (d * d + s * (mx * mx + my * my + mz * mz))


@njit
def _cost(Q, p, a, b, x):
    """Least error of the joined quadric and, in x, where (rounded to float32, so that what is tested is what is returned)."""
    A00, A01, A02 = Q[a, 0] + Q[b, 0], Q[a, 1] + Q[b, 1], Q[a, 2] + Q[b, 2]
    A11, A12, A22 = Q[a, 3] + Q[b, 3], Q[a, 4] + Q[b, 4], Q[a, 5] + Q[b, 5]
    b0, b1, b2, c = Q[a, 6] + Q[b, 6], Q[a, 7] + Q[b, 7], Q[a, 8] + Q[b, 8], Q[a, 9] + Q[b, 9]
    C00, C01, C02 = A11 * A22 - A12 * A12, A02 * A12 - A01 * A22, A01 * A12 - A02 * A11
    det = A00 * C00 + A01 * C01 + A02 * C02
    trace = A00 + A11 + A22
    if det > 1e-12 * trace * trace * trace:
        x[0] = (C00 * b0 + C01 * b1 + C02 * b2) / det
        x[1] = (C01 * b0 + (A00 * A22 - A02 * A02) * b1 + (A01 * A02 - A00 * A12) * b2) / det
        x[2] = (C02 * b0 + (A01 * A02 - A00 * A12) * b1 + (A00 * A11 - A01 * A01) * b2) / det
    else:  # only degenerate faces round the edge
        for k in range(3):
            x[k] = 0.5 * (p[a, k] + p[b, k])
    for k in range(3):
        x[k] = np.float64(np.float32(x[k]))
    quadratic = A00 * x[0] * x[0] + A11 * x[1] * x[1] + A22 * x[2] * x[2] + 2 * (A01 * x[0] * x[1] + A02 * x[0] * x[2] + A12 * x[1] * x[2])
    return max(0.0, quadratic - 2 * (b0 * x[0] + b1 * x[1] + b2 * x[2]) + c)


@njit
def _keeps_manifold(faces, head, link, degree, a, b, mark, stamp):
    """Link condition: a and b share two neighbours, those opposite their edge, and neither of these has only three faces."""
    c = head[a]
    while c >= 0:
        for k in range(3):
            mark[faces[c // 3, k]] = stamp
        c = link[c]
    common = 0
    c = head[b]
    while c >= 0:
        f, k = c // 3, c % 3
        v = faces[f, (k + 1) % 3]  # each neighbour once, on a closed fan
        if v != a and mark[v] == stamp:
            common += 1
            if degree[v] <= 3:
                return False
        c = link[c]
    return common == 2


@njit
def _keeps_shape(p, faces, head, link, a, b, x, turn, sliver):
    """No surviving face of a turns over, vanishes or becomes a sliver (unless it was one) when a moves to x."""
    c = head[a]
    while c >= 0:
        f, k = c // 3, c % 3
        i, j = faces[f, (k + 1) % 3], faces[f, (k + 2) % 3]
        if i != b and j != b:
            ex, ey, ez = p[j, 0] - p[i, 0], p[j, 1] - p[i, 1], p[j, 2] - p[i, 2]
            ux, uy, uz = x[0] - p[i, 0], x[1] - p[i, 1], x[2] - p[i, 2]
            nx, ny, nz = ey * uz - ez * uy, ez * ux - ex * uz, ex * uy - ey * ux
            new = nx * nx + ny * ny + nz * nz
            tx, ty, tz = p[a, 0] - p[i, 0], p[a, 1] - p[i, 1], p[a, 2] - p[i, 2]
            ox, oy, oz = ey * tz - ez * ty, ez * tx - ex * tz, ex * ty - ey * tx
            old = ox * ox + oy * oy + oz * oz
            wx, wy, wz = x[0] - p[j, 0], x[1] - p[j, 1], x[2] - p[j, 2]
            longest = max(ex * ex + ey * ey + ez * ez, max(ux * ux + uy * uy + uz * uz, wx * wx + wy * wy + wz * wz))
            if not new > 1e-14 * longest * longest:  # as flat as float32 can tell
                return False
            if new < sliver * sliver * longest * longest and new < old:
                return False
            if old > 0 and nx * ox + ny * oy + nz * oz < turn * np.sqrt(new * old):
                return False
        c = link[c]
    return True
