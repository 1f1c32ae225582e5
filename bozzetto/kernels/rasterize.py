# SPDX-License-Identifier: Apache-2.0
"""Triangle rasterisation with gradients, in four operations: rasterize, interpolate, texture, antialias.

Laine et al. 2020, Modular Primitives for High-Performance Differentiable Rendering (arXiv:2011.03277). Visibility has no
gradient in the first three; all of it comes from `antialias`. Differs from the paper's code: clip space has y *down*
(row 0 is y = -1), so pictures are never flipped; a face is seen from both sides.

Letters: B pictures, N vertices, F faces, C channels; p = (x, y, z, w) clip-space vertex; for a pixel centre (f_x, f_y),
p_k' = (x_k - f_x w_k, y_k - f_y w_k), a_0 = p_1' x p_2' and cyclic, b_i = a_i / sum(a): perspective-correct barycentrics.
Each a_i is affine in (f_x, f_y), and so is z/w: three edge functions and a plane a triangle, no clipping needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bozzetto.kernels import nvdiffrast, pool
from bozzetto.kernels.pool import njit

BAND = 16  # rows a thread owns at a time


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """Which triangle each pixel centre sees, and where on it.

    clip     (B, N, 4) float32 or float64, clip space with y down; points with |z| > w are cut away
    faces    (F, 3) integers below N, any winding
    size     (height, width)
    returns  (B, H, W, 4) float32: b_0, b_1, z/w, face + 1; all 0 where nothing is seen. The nearer face wins, the lower
             index among equals. No gradient here: `interpolate` and `antialias` carry it.
    raises   ValueError for wrong shapes, or a face index out of range
    """
    if clip.ndim != 3 or clip.shape[2] != 4:
        raise ValueError(f"rasterize: expected clip (B, N, 4), got {tuple(clip.shape)}")
    tri = as_faces(faces, clip.shape[1], "rasterize")
    if nvdiffrast.is_usable(clip):
        return nvdiffrast.rasterize(clip, faces, size)
    rast = np.zeros((clip.shape[0], *size, 4), np.float32)
    pictures = as_array(clip)
    if len(rast) % pool.num_threads() == 0:  # a thread a picture: nothing waits. The bits are the same either way
        pool.run(_pictures, len(rast), pictures, tri, rast)
    else:
        for b, p in enumerate(pictures):
            rasterize_arrays(p, tri, rast[b])
    return torch.from_numpy(rast).to(clip.device)


def as_array(tensor: Tensor, dtype: npt.DTypeLike | None = None) -> np.ndarray:
    """A tensor's values as the contiguous array that kernels take; a copy only where it must be one."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype)


def as_faces(faces: Tensor, num_vertices: int, caller: str) -> np.ndarray:
    """Faces (F, 3) as int32, checked: compiled code trusts them."""
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise ValueError(f"{caller}: expected integer faces (F, 3), got {tuple(faces.shape)} {faces.dtype}")
    tri = as_array(faces)
    if len(tri) and (tri.min() < 0 or tri.max() >= num_vertices):
        raise ValueError(f"{caller}: faces hold indices outside [0, {num_vertices})")
    return tri.astype(np.int32, copy=False)


def rasterize_arrays(clip: np.ndarray, faces: np.ndarray, rast: np.ndarray) -> None:
    """One picture, arrays in, `rast` (H, W, 4) float32 zeros filled in place; `clip` (N, 4), `faces` (F, 3) int32."""
    _picture(clip, faces, rast, pool.run)


def _pictures(lo: int, hi: int, clip: np.ndarray, faces: np.ndarray, rast: np.ndarray) -> None:
    for b in range(lo, hi):
        _picture(clip[b], faces, rast[b], _here)


def _here(kernel: Callable[..., Any], count: int, *args: Any, grain: int = 1) -> None:
    """As `pool.run`, in this thread."""
    kernel(0, count, *args)


def _picture(clip: np.ndarray, faces: np.ndarray, rast: np.ndarray, run: Callable[..., None]) -> None:
    h, w = rast.shape[:2]
    n = len(faces)
    if n == 0:
        return
    edge = np.empty((n, 12), np.float64)
    box = np.empty((n, 4), np.int32)
    run(_setup, n, clip, faces, h, w, edge, box, grain=4096)
    bands = -(-h // BAND)
    start, order = _bin(box, bands)
    run(_fill, bands, start, order, edge, box, rast)


@njit
def _setup(lo, hi, clip, faces, h, w, edge, box):
    """Edge functions a_i = A_i X + B_i Y + C_i over pixel coordinates (X, Y), scaled to be positive inside; z/w likewise."""
    for f in range(lo, hi):
        box[f, 0] = 0
        box[f, 1] = 0
        box[f, 2] = 0
        box[f, 3] = 0
        i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0, w0 = np.float64(clip[i0, 0]), np.float64(clip[i0, 1]), np.float64(clip[i0, 2]), np.float64(clip[i0, 3])
        x1, y1, z1, w1 = np.float64(clip[i1, 0]), np.float64(clip[i1, 1]), np.float64(clip[i1, 2]), np.float64(clip[i1, 3])
        x2, y2, z2, w2 = np.float64(clip[i2, 0]), np.float64(clip[i2, 1]), np.float64(clip[i2, 2]), np.float64(clip[i2, 3])
        # clip to pixels, still homogeneous: X = (x + w) W / 2
        x0, y0 = (x0 + w0) * (0.5 * w), (y0 + w0) * (0.5 * h)
        x1, y1 = (x1 + w1) * (0.5 * w), (y1 + w1) * (0.5 * h)
        x2, y2 = (x2 + w2) * (0.5 * w), (y2 + w2) * (0.5 * h)
        if w0 <= 0 and w1 <= 0 and w2 <= 0:
            continue
        if w0 > 0 and w1 > 0 and w2 > 0:
            u0, v0, u1, v1, u2, v2 = x0 / w0, y0 / w0, x1 / w1, y1 / w1, x2 / w2, y2 / w2
            lo_x, hi_x = min(u0, min(u1, u2)), max(u0, max(u1, u2))
            lo_y, hi_y = min(v0, min(v1, v2)), max(v0, max(v1, v2))
            if not (lo_x < w and hi_x > 0 and lo_y < h and hi_y > 0):  # also when not a number
                continue
            c_lo, c_hi = int(np.ceil(max(lo_x, 0.0) - 0.5)), int(np.floor(min(hi_x, w) - 0.5))
            r_lo, r_hi = int(np.ceil(max(lo_y, 0.0) - 0.5)), int(np.floor(min(hi_y, h) - 0.5))
            c_lo, r_lo, c_hi, r_hi = max(c_lo, 0), max(r_lo, 0), min(c_hi, w - 1), min(r_hi, h - 1)
            if c_lo > c_hi or r_lo > r_hi:
                continue
        else:  # crosses the eye plane: the edge functions hold, its box does not
            c_lo, c_hi, r_lo, r_hi = 0, w - 1, 0, h - 1
        A0, B0, C0 = y1 * w2 - w1 * y2, w1 * x2 - x1 * w2, x1 * y2 - y1 * x2
        A1, B1, C1 = y2 * w0 - w2 * y0, w2 * x0 - x2 * w0, x2 * y0 - y2 * x0
        A2, B2, C2 = y0 * w1 - w0 * y1, w0 * x1 - x0 * w1, x0 * y1 - y0 * x1
        det = C0 * w0 + C1 * w1 + C2 * w2
        if not 0 < abs(det) < np.inf:
            continue
        s = 1.0 if det > 0 else -1.0
        edge[f, 0], edge[f, 1], edge[f, 2] = s * A0, s * B0, s * C0
        edge[f, 3], edge[f, 4], edge[f, 5] = s * A1, s * B1, s * C1
        edge[f, 6], edge[f, 7], edge[f, 8] = s * A2, s * B2, s * C2
        edge[f, 9] = (A0 * z0 + A1 * z1 + A2 * z2) / det
        edge[f, 10] = (B0 * z0 + B1 * z1 + B2 * z2) / det
        edge[f, 11] = (C0 * z0 + C1 * z1 + C2 * z2) / det
        box[f, 0], box[f, 1], box[f, 2], box[f, 3] = c_lo, c_hi + 1, r_lo, r_hi + 1


@njit
def _bin(box, bands):
    """Faces of each band of rows, the last first: `order[start[k]:start[k + 1]]`."""
    start = np.zeros(bands + 1, np.int64)
    for f in range(len(box)):
        if box[f, 1] > box[f, 0]:
            for k in range(box[f, 2] // BAND, (box[f, 3] - 1) // BAND + 1):
                start[k + 1] += 1
    for k in range(bands):
        start[k + 1] += start[k]
    fill = start[:-1].copy()
    order = np.empty(start[bands], np.int32)
    for f in range(len(box) - 1, -1, -1):
        if box[f, 1] > box[f, 0]:
            for k in range(box[f, 2] // BAND, (box[f, 3] - 1) // BAND + 1):
                order[fill[k]] = f
                fill[k] += 1
    return start, order


@njit
def _fill(lo, hi, start, order, edge, box, rast):
    """z first; barycentrics afterwards, for the winners only.

    Written for speed: `min` joins the tests without a branch (a mispredicted one costs more than a face's row), z <= 1 is the
    depth to beat at the start, and with the last face first, "not behind" makes the lower index win among equals.
    """
    h, w = rast.shape[0], rast.shape[1]
    depth = np.empty((BAND, w), np.float64)
    winner = np.empty((BAND, w), np.int32)
    for k in range(lo, hi):
        depth[:] = 1.0
        winner[:] = -1
        top = k * BAND
        for n in range(start[k], start[k + 1]):
            f = order[n]
            A0, A1, A2, Az = edge[f, 0], edge[f, 3], edge[f, 6], edge[f, 9]
            left, right = np.uint64(box[f, 0]), np.uint64(box[f, 1])
            for r in range(max(box[f, 2], top), min(box[f, 3], top + BAND)):
                y = r + 0.5
                R0 = edge[f, 1] * y + edge[f, 2]
                R1 = edge[f, 4] * y + edge[f, 5]
                R2 = edge[f, 7] * y + edge[f, 8]
                Rz = edge[f, 10] * y + edge[f, 11]
                d, win = depth[np.uint64(r - top)], winner[np.uint64(r - top)]
                for c in range(left, right):
                    x = c + 0.5
                    z = Az * x + Rz
                    if min(min(A0 * x + R0, A1 * x + R1), min(A2 * x + R2, d[c] - z)) >= 0 and z >= -1:
                        d[c] = z
                        win[c] = f
        for r in range(top, min(top + BAND, h)):
            for c in range(w):
                f = winner[r - top, c]
                if f >= 0:
                    x, y = c + 0.5, r + 0.5
                    a0 = edge[f, 0] * x + edge[f, 1] * y + edge[f, 2]
                    a1 = edge[f, 3] * x + edge[f, 4] * y + edge[f, 5]
                    a2 = edge[f, 6] * x + edge[f, 7] * y + edge[f, 8]
                    s = a0 + a1 + a2
                    rast[r, c, 0] = a0 / s
                    rast[r, c, 1] = a1 / s
                    rast[r, c, 2] = depth[r - top, c]
                    rast[r, c, 3] = f + 1
