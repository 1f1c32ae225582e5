# SPDX-License-Identifier: Apache-2.0
"""Silhouettes blended over pixel borders: where gradients of visibility come from.

Laine et al. 2020 (arXiv:2011.03277), Sec. 3.6. Two neighbouring pixels see different faces. The surface seen by the nearer
one ends at a silhouette edge, which is open or has both its faces on one side. Where that edge crosses the segment between
the two centres, at t in [0, 1] from the first (left or upper) one, it leaves m = 1/2 - t of the first pixel to the colour
of the second, or if m < 0 -m of the second to the first. Rows take steep edges, columns the others, so no edge counts twice.

Letters: p_i, p_j the edge's ends, p' = (x - X w, y - Y w, w) seen from the first centre (X, Y); the edge's line is
e(u, v) = C + A u + B v with C = x_i' y_j' - y_i' x_j', A = y_i' w_j - w_i y_j', B = w_i x_j' - x_i' w_j; t = -C / (A step).

Differs from the paper's code: the paper looks at the edges of the nearer face only. Here the way to the second centre is
followed over the mesh, face by face, until the surface ends or the other pixel is reached, because the outermost faces of a
fine mesh are too narrow to be any pixel's. Nothing happens where two surfaces meet without an edge, as in the paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bozzetto.kernels import nvdiffrast, pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import BAND, as_array, as_faces

STEPS = 64  # faces between two pixel centres before the search gives up
EDGE_ON = 1e-6  # half pictures: a face no wider than 16 roundings of float32 is seen edge-on, and a surface ends before it


def antialias(colour: Tensor, rast: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor | None = None) -> Tensor:
    """Blend neighbouring pixels where a silhouette passes between them.

    colour       (B, H, W, C) float32 or float64: the *final* colour, composed and masked; never ids, normals or uv
    rast         (B, H, W, 4) of `rasterize`
    clip, faces  (B, N, 4) and (F, 3), the ones that were rasterised. Faces that touch must share vertices: a seam, where
                 they do not, is an open edge
    neighbours   `edges(faces)`, if the same faces are used often; worked out otherwise
    returns      (B, H, W, C). Gradients go to `colour` and to x, y, w of `clip`
    raises       ValueError for wrong shapes, or a face index out of range
    """
    if clip.ndim != 3 or clip.shape[2] != 4 or colour.ndim != 4 or rast.shape != (*colour.shape[:3], 4) or len(colour) != len(clip):
        shapes = ", ".join(str(tuple(t.shape)) for t in (colour, rast, clip))
        raise ValueError(f"antialias: expected colour (B, H, W, C), rast (B, H, W, 4) and clip (B, N, 4), got {shapes}")
    tri = as_faces(faces, clip.shape[1], "antialias")
    if nvdiffrast.is_usable(clip):
        return nvdiffrast.antialias(colour, rast, clip, faces)
    beside = edges(faces) if neighbours is None else neighbours
    if beside.shape != faces.shape:
        raise ValueError(f"antialias: expected neighbours {tuple(faces.shape)} from edges(faces), got {tuple(beside.shape)}")
    out: Tensor = _Antialias.apply(colour, clip, rast, tri, as_array(beside, np.int32))
    return out


def edges(faces: Tensor) -> Tensor:
    """What lies across each edge of each face.

    faces    (F, 3)
    returns  (F, 3) int32: for the edge opposite corner k of face f, the corner 3 f' + k' opposite it in the other face, -1
             where the edge is open. Where three faces or more share an edge, each looks at the next and the last at the
             first. Faces that hold a vertex twice have no edges: the faces beside them meet
    """
    tri = as_array(faces, np.int32)
    beside = np.full(tri.shape, -1, np.int32)
    if len(tri):
        _edges(tri, int(tri.max()) + 1, beside)
    return torch.from_numpy(beside).to(faces.device)


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, colour: Tensor, clip: Tensor, rast: Tensor, tri: np.ndarray, beside: np.ndarray) -> Tensor:
        col, pos, ras = as_array(colour), as_array(clip), as_array(rast, np.float32)
        b, h = ras.shape[:2]
        start = np.zeros(b * h + 1, np.int64)
        pool.run(_differ, b * h, ras, start[1:], grain=8 * BAND)
        np.cumsum(start, out=start)
        n = int(start[-1])
        stop, facing = np.empty(b * h, np.int64), np.empty((b, len(tri)), np.int8)  # row r's pairs are start[r]:stop[r]
        where, ends, m = np.empty(n, np.int32), np.empty((n, 2), np.int32), np.empty(n)
        pool.run(_face, b * len(tri), pos, tri, facing, grain=4096)
        pool.run(_find, b * h, ras, pos, tri, beside, facing, start, stop, where, ends, m, grain=BAND)
        out = col.copy()
        pool.run(_blend, b * h, col, start, stop, where, m, out, grain=16 * BAND)
        ctx.save_for_backward(colour, clip)
        ctx.pairs = start, stop, where, ends, m
        return torch.from_numpy(out).to(colour.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        colour, clip = ctx.saved_tensors
        start, stop, where, ends, m = ctx.pairs
        col, pos = as_array(colour), as_array(clip)
        g = as_array(grad, col.dtype)
        b, h, d_col, d_pos = *col.shape[:2], None, None
        if ctx.needs_input_grad[0]:
            total = g.copy()
            pool.run(_blend_back, b * h, g, start, stop, where, m, total, grain=16 * BAND)
            d_col = torch.from_numpy(total).to(colour.device)
        if ctx.needs_input_grad[1]:
            to_ends = np.empty((len(m), 2, 3))
            pool.run(_ends_back, b * h, col, g, pos, start, stop, where, ends, m, to_ends, grain=16 * BAND)
            to_clip = np.zeros(pos.shape)
            pool.run(_gather, b, h, start, stop, ends, to_ends, to_clip)
            d_pos = torch.from_numpy(to_clip).to(clip)
        return d_col, d_pos, None, None, None


@njit
def _edges(faces, num_vertices, beside):
    """Sort the 3 F edges by their higher, then by their lower vertex, counting; equal ones then stand together."""
    n = 3 * len(faces)
    order, low, high = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    count = 0
    for c in range(n):
        i, j, k = faces[c // 3, (c + 1) % 3], faces[c // 3, (c + 2) % 3], faces[c // 3, c % 3]
        low[c], high[c] = min(i, j), max(i, j)
        if i != j and j != k and k != i:
            order[count] = c
            count += 1
    for key in (high, low):
        place = np.zeros(num_vertices + 1, np.int64)
        for s in range(count):
            place[key[order[s]] + 1] += 1
        for v in range(num_vertices):
            place[v + 1] += place[v]
        new = np.empty(count, np.int32)
        for s in range(count):
            v = key[order[s]]
            new[place[v]] = order[s]
            place[v] += 1
        order = new
    flat = beside.reshape(-1)
    s = 0
    while s < count:
        c = order[s]
        e = s + 1
        while e < count and low[order[e]] == low[c] and high[order[e]] == high[c]:
            e += 1
        if e - s > 1:
            for k in range(s, e):
                flat[order[k]] = order[k + 1 if k + 1 < e else s]
        s = e


@njit
def _differ(lo, hi, rast, count):
    """How many neighbours to the right and below see another face, in each row."""
    _, h, w, _ = rast.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        k = 0
        for c in range(w - 1):
            k += rast[b, r, c, 3] != rast[b, r, c + 1, 3]
        if r + 1 < h:
            for c in range(w):
                k += rast[b, r, c, 3] != rast[b, r + 1, c, 3]
        count[n] = k


@njit
def _find(lo, hi, rast, clip, faces, beside, facing, start, stop, where, ends, m):
    """The pairs of each row that a silhouette parts: where = 2 c + (0 right, 1 below), the edge's ends, and m."""
    _, h, w, _ = rast.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        points, sides, free = clip[b], facing[b], start[n]
        for c in range(w):
            for down in range(2):
                r2, c2 = r + down, c + 1 - down
                if r2 >= h or c2 >= w or rast[b, r, c, 3] == rast[b, r2, c2, 3]:
                    continue
                f, f2 = int(rast[b, r, c, 3]) - 1, int(rast[b, r2, c2, 3]) - 1
                if f >= len(faces) or f2 >= len(faces):
                    continue
                is_first = f2 < 0 or (f >= 0 and rast[b, r, c, 2] <= rast[b, r2, c2, 2])
                near, far = (f, f2) if is_first else (f2, f)
                joined = False  # by an edge that both lie beside, as most pairs of a fine mesh are
                for k in range(3):
                    joined |= far >= 0 and 3 * far <= beside[near, k] < 3 * far + 3 and not _is_end(faces, beside, sides, near, k)
                if joined:
                    continue
                i, j, t = _silhouette(points, faces, beside, sides, near, far, c, r, down, is_first, h, w)
                if i >= 0:
                    where[free] = 2 * c + down
                    ends[free, 0], ends[free, 1] = i, j
                    m[free] = 0.5 - t
                    free += 1
        stop[n] = free


@njit
def _face(lo, hi, clip, faces, facing):
    """Which side of each face is seen: the sign of its area, 2 or -2; 1 or -1 where it is seen edge-on, 0 without area."""
    b, f = lo // len(faces), lo % len(faces) - 1
    for _ in range(lo, hi):
        f += 1
        if f == len(faces):
            b, f = b + 1, 0
        v0, v1, v2 = faces[f, 0], faces[f, 1], faces[f, 2]
        w0, w1, w2 = np.float64(clip[b, v0, 3]), np.float64(clip[b, v1, 3]), np.float64(clip[b, v2, 3])
        x0, x1, x2 = np.float64(clip[b, v0, 0]), np.float64(clip[b, v1, 0]), np.float64(clip[b, v2, 0])
        y0, y1, y2 = np.float64(clip[b, v0, 1]), np.float64(clip[b, v1, 1]), np.float64(clip[b, v2, 1])
        A0, A1, A2 = y1 * w2 - w1 * y2, y2 * w0 - w2 * y0, y0 * w1 - w0 * y1
        B0, B1, B2 = w1 * x2 - x1 * w2, w2 * x0 - x2 * w0, w0 * x1 - x0 * w1
        det = A0 * x0 + B0 * y0 + (x1 * y2 - y1 * x2) * w0
        widest = max(max((abs(A0) + abs(B0)) * abs(w0), (abs(A1) + abs(B1)) * abs(w1)), (abs(A2) + abs(B2)) * abs(w2))
        facing[b, f] = np.sign(det) * (2 if abs(det) > EDGE_ON * widest else 1) if det == det else 0


@njit
def _is_end(faces, beside, facing, f, k):
    """Does the surface end at edge k of face f: is it open, or do both faces lie on one side of it."""
    across = beside[f, k]
    if across < 0:
        return True
    f2, k2 = across // 3, across % 3
    same_way = faces[f, (k + 1) % 3] == faces[f2, (k2 + 1) % 3]  # both run along it the same way: one is wound the other way
    return abs(facing[f2]) < 2 or (facing[f] * facing[f2] < 0) != same_way


@njit
def _silhouette(clip, faces, beside, facing, f, target, column, row, down, is_first, h, w):
    """The edge where the surface of face f ends before the other pixel centre, and t; (-1, -1, 0) where it does not."""
    X, Y, entry = (2 * column + 1) / w - 1, (2 * row + 1) / h - 1, -1
    for step in range(STEPS):
        v0, v1, v2 = faces[f, 0], faces[f, 1], faces[f, 2]
        w0, w1, w2 = np.float64(clip[v0, 3]), np.float64(clip[v1, 3]), np.float64(clip[v2, 3])
        x0, x1, x2 = clip[v0, 0] - X * w0, clip[v1, 0] - X * w1, clip[v2, 0] - X * w2
        y0, y1, y2 = clip[v0, 1] - Y * w0, clip[v1, 1] - Y * w1, clip[v2, 1] - Y * w2
        C0, C1, C2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
        A0, A1, A2 = (y1 * w2 - w1 * y2) * (2 / w), (y2 * w0 - w2 * y0) * (2 / w), (y0 * w1 - w0 * y1) * (2 / w)
        B0, B1, B2 = (w1 * x2 - x1 * w2) * (2 / h), (w2 * x0 - x2 * w0) * (2 / h), (w0 * x1 - x0 * w1) * (2 / h)
        D0, D1, D2 = (B0, B1, B2) if down else (A0, A1, A2)
        s = 1.0 if facing[f] > 0 else -1.0
        k, t = -1, np.inf
        if entry != 0:
            k, t = _leave(0, k, t, s * C0, s * D0, is_first, step)
        if entry != 1:
            k, t = _leave(1, k, t, s * C1, s * D1, is_first, step)
        if entry != 2:
            k, t = _leave(2, k, t, s * C2, s * D2, is_first, step)
        if k < 0:
            break
        if _is_end(faces, beside, facing, f, k):
            a, b = (A0, B0) if k == 0 else ((A1, B1) if k == 1 else (A2, B2))
            if (abs(a) >= abs(b)) == down:
                break
            return faces[f, (k + 1) % 3], faces[f, (k + 2) % 3], t if is_first else 1 - t
        f, entry = beside[f, k] // 3, beside[f, k] % 3
        if f == target:
            break
    return -1, -1, 0.0


@njit
def _leave(k, exit, best, C, D, is_first, step):
    """Edge k, if the way to the other centre crosses it from inside before it crosses the best one so far."""
    inner, outer = (C, C + D) if is_first else (C + D, C)
    if outer < 0 and (inner >= 0 or step == 0):  # the first face holds its centre, whatever rounding says
        inner = max(inner, 0.0)
        t = inner / (inner - outer)
        if t < best:
            return k, t
    return exit, best


@njit
def _blend(lo, hi, colour, start, stop, where, m, out):
    """Each row is written by one thread, which also looks at the row above for what reaches down from there."""
    _, h, _, channels = colour.shape
    for n in range(lo - 1 if lo % h else lo, hi):
        b, r = n // h, n % h
        for p in range(start[n], stop[n]):
            c, down = where[p] // 2, where[p] % 2
            r1, c1, r2, c2 = r, c, r + down, c + 1 - down
            if m[p] < 0:
                r1, c1, r2, c2 = r2, c2, r1, c1
            if lo <= b * h + r1 < hi:
                for k in range(channels):
                    out[b, r1, c1, k] += abs(m[p]) * (colour[b, r2, c2, k] - colour[b, r1, c1, k])


@njit
def _blend_back(lo, hi, grad, start, stop, where, m, total):
    _, h, _, channels = grad.shape
    for n in range(lo - 1 if lo % h else lo, hi):
        b, r = n // h, n % h
        for p in range(start[n], stop[n]):
            c, down = where[p] // 2, where[p] % 2
            r1, c1, r2, c2 = r, c, r + down, c + 1 - down
            if m[p] < 0:
                r1, c1, r2, c2 = r2, c2, r1, c1
            for k in range(channels):
                g = abs(m[p]) * grad[b, r1, c1, k]
                if lo <= b * h + r1 < hi:
                    total[b, r1, c1, k] -= g
                if lo <= b * h + r2 < hi:
                    total[b, r2, c2, k] += g


@njit
def _ends_back(lo, hi, colour, grad, clip, start, stop, where, ends, m, to_ends):
    """dL/d(x, y, w) of each pair's edge: dm = (dC + t step dA) / (A step)."""
    _, h, w, channels = colour.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        for p in range(start[n], stop[n]):
            c, down = where[p] // 2, where[p] % 2
            r2, c2 = r + down, c + 1 - down
            g = 0.0
            for k in range(channels):
                at = grad[b, r, c, k] if m[p] > 0 else grad[b, r2, c2, k]
                if m[p] == 0:  # neither side of the kink: their mean, so that mirrored pictures have mirrored gradients
                    at = 0.5 * (at + grad[b, r, c, k])
                g += at * (np.float64(colour[b, r2, c2, k]) - colour[b, r, c, k])
            X, Y = (2 * c + 1) / w - 1, (2 * r + 1) / h - 1
            i, j = ends[p, 0], ends[p, 1]
            qi, qj = np.float64(clip[b, i, 3]), np.float64(clip[b, j, 3])
            xi, yi, xj, yj = clip[b, i, 0] - X * qi, clip[b, i, 1] - Y * qi, clip[b, j, 0] - X * qj, clip[b, j, 1] - Y * qj
            t = 0.5 - m[p]
            if down:
                step = 2 / h
                g /= (qi * xj - xi * qj) * step
                dxi, dyi, dwi = g * yj - g * t * step * qj, -g * xj, g * t * step * xj
                dxj, dyj, dwj = -g * yi + g * t * step * qi, g * xi, -g * t * step * xi
            else:
                step = 2 / w
                g /= (yi * qj - qi * yj) * step
                dxi, dyi, dwi = g * yj, -g * xj + g * t * step * qj, -g * t * step * yj
                dxj, dyj, dwj = -g * yi, g * xi - g * t * step * qi, g * t * step * yi
            to_ends[p, 0, 0], to_ends[p, 0, 1], to_ends[p, 0, 2] = dxi, dyi, dwi - X * dxi - Y * dyi
            to_ends[p, 1, 0], to_ends[p, 1, 1], to_ends[p, 1, 2] = dxj, dyj, dwj - X * dxj - Y * dyj


@njit
def _gather(lo, hi, h, start, stop, ends, to_ends, to_clip):
    """Pairs are few: one thread a picture adds them up, in order."""
    for b in range(lo, hi):
        for n in range(b * h, (b + 1) * h):
            for p in range(start[n], stop[n]):
                for k in range(2):
                    to_clip[b, ends[p, k], 0] += to_ends[p, k, 0]
                    to_clip[b, ends[p, k], 1] += to_ends[p, k, 1]
                    to_clip[b, ends[p, k], 3] += to_ends[p, k, 2]
