# SPDX-License-Identifier: Apache-2.0
"""Vertex attributes at pixel centres, perspective-correct, with gradients to the attributes and to the vertices.

Laine et al. 2020 (arXiv:2011.03277), Sec. 3.3. Letters as in `rasterize.py`, and g = dL/dA of a pixel, A = sum(b_i A_i),
s = sum(a): dL/da_i = (g_i - sum(b_j g_j)) / s with g_i = g . A_i, and each a_i is a cross product of two p'. z has no gradient.

Differs from the paper's code: `rasterize` carries no gradient, so this function takes the vertices themselves and works the
barycentrics out again, in float64. Sums run in a fixed order: bands of rows add up their faces apart, then every vertex
belongs to one thread, which adds its faces up band by band.
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


def interpolate(attributes: Tensor, rast: Tensor, clip: Tensor, faces: Tensor, attribute_faces: Tensor | None = None) -> Tensor:
    """Attributes of the vertices, at each pixel.

    attributes       (N, C) for all pictures, or (B, N, C); float32 or float64
    rast             (B, H, W, 4) of `rasterize`
    clip, faces      (B, N, 4) and (F, 3), the ones that were rasterised
    attribute_faces  (F, 3), where attributes are numbered otherwise than positions, as uv with seams; `faces` otherwise
    returns          (B, H, W, C) in the dtype of the attributes, 0 where nothing is seen. Gradients go to `attributes` and
                     to x, y, w of `clip`; none says that a silhouette moves: that is `antialias`
    raises           ValueError for wrong shapes, or a face index out of range
    """
    if clip.ndim != 3 or clip.shape[2] != 4 or rast.ndim != 4 or rast.shape[::3] != (len(clip), 4):
        raise ValueError(f"interpolate: expected clip (B, N, 4) and rast (B, H, W, 4), got {tuple(clip.shape)} and {tuple(rast.shape)}")
    if attributes.ndim not in (2, 3) or (attributes.ndim == 3 and len(attributes) != len(clip)):
        raise ValueError(f"interpolate: expected attributes (N, C) or ({len(clip)}, N, C), got {tuple(attributes.shape)}")
    tri = as_faces(faces, clip.shape[1], "interpolate")
    own = tri if attribute_faces is None else as_faces(attribute_faces, attributes.shape[-2], "interpolate")
    if attribute_faces is None and attributes.shape[-2] != clip.shape[1]:
        raise ValueError(f"interpolate: {attributes.shape[-2]} attributes for {clip.shape[1]} vertices; pass attribute_faces")
    if nvdiffrast.is_usable(clip):
        return nvdiffrast.interpolate(attributes, rast, clip, faces if attribute_faces is None else attribute_faces)
    out: Tensor = _Interpolate.apply(attributes, clip, rast, tri, own)
    return out


def _same(attributes: Tensor, clip: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """As arrays (1 or B, N, C) and (B, N, 4) of one dtype: float64 unless both are float32."""
    dtype = np.float32 if attributes.dtype == clip.dtype == torch.float32 else np.float64
    att = as_array(attributes, dtype)
    return (att[None] if att.ndim == 2 else att), as_array(clip, dtype)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, clip: Tensor, rast: Tensor, tri: np.ndarray, own: np.ndarray) -> Tensor:
        ctx.save_for_backward(attributes, clip, rast)
        ctx.tri, ctx.own = tri, own
        att, pos = _same(attributes, clip)
        b, h, w = rast.shape[:3]
        out = np.zeros((b, h, w, att.shape[2]), att.dtype)
        pool.run(_forward, b * h, att, as_array(rast, np.float32), pos, tri, own, out, grain=4 * BAND)
        return torch.from_numpy(out).to(attributes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        attributes, clip, rast = ctx.saved_tensors
        tri, own = ctx.tri, ctx.own
        att, pos = _same(attributes, clip)
        g, ras = as_array(grad, att.dtype), as_array(rast, np.float32)
        b, h = ras.shape[:2]
        channels, per_picture = att.shape[2], -(-h // BAND)
        start = np.zeros(b * per_picture + 1, np.int64)  # each band's faces are slots start[k]:start[k + 1]
        pool.run(_count, b * per_picture, ras, len(tri), start[1:])
        np.cumsum(start, out=start)
        face = np.empty(start[-1], np.int32)
        to_att = np.zeros((start[-1] if ctx.needs_input_grad[0] else 0, 3, channels))
        to_pos = np.zeros((start[-1] if ctx.needs_input_grad[1] else 0, 3, 3))
        pool.run(_backward, b * per_picture, att, ras, pos, tri, own, g, start, face, to_att, to_pos)
        d_att = d_pos = None
        if ctx.needs_input_grad[0]:
            total = np.zeros((*att.shape[:2], channels))
            pictures = start[::per_picture].copy() if len(att) == b else start[[0, -1]]
            pool.run(_gather, len(att) * att.shape[1], pictures, face, own, to_att, total, grain=4096)
            d_att = torch.from_numpy(total).to(attributes).view_as(attributes)
        if ctx.needs_input_grad[1]:
            total = np.zeros((b, clip.shape[1], 4))
            pool.run(_gather, b * clip.shape[1], start[::per_picture].copy(), face, tri, to_pos, total, grain=4096)
            d_pos = torch.from_numpy(total).to(clip)
        return d_att, d_pos, None, None, None


@njit
def _cross(clip, f, faces, X, Y):
    """p_k' = (x_k - X w_k, y_k - Y w_k), k = 0, 1, 2."""
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    wi, wj, wk = np.float64(clip[i, 3]), np.float64(clip[j, 3]), np.float64(clip[k, 3])
    return (
        clip[i, 0] - X * wi,
        clip[i, 1] - Y * wi,
        clip[j, 0] - X * wj,
        clip[j, 1] - Y * wj,
        clip[k, 0] - X * wk,
        clip[k, 1] - Y * wk,
    )


@njit
def _forward(lo, hi, attributes, rast, clip, faces, own, out):
    _, h, w, channels = out.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        A, points = attributes[b if len(attributes) > 1 else 0], clip[b]
        Y = (2 * r + 1) / h - 1
        for c in range(w):
            f = int(rast[b, r, c, 3]) - 1
            if not 0 <= f < len(faces):
                continue
            x0, y0, x1, y1, x2, y2 = _cross(points, f, faces, (2 * c + 1) / w - 1, Y)
            a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
            s = 1 / (a0 + a1 + a2)
            b0, b1, b2 = a0 * s, a1 * s, a2 * s
            i, j, k = own[f, 0], own[f, 1], own[f, 2]
            for m in range(channels):
                out[b, r, c, m] = b0 * A[i, m] + b1 * A[j, m] + b2 * A[k, m]


@njit
def _count(lo, hi, rast, num_faces, count):
    """How many faces each band of each picture sees."""
    h, w = rast.shape[1], rast.shape[2]
    bands = -(-h // BAND)
    seen = np.full(num_faces, -1, np.int32)
    for n in range(lo, hi):
        b, top = n // bands, n % bands * BAND
        k = 0
        for r in range(top, min(top + BAND, h)):
            for c in range(w):
                f = int(rast[b, r, c, 3]) - 1
                if 0 <= f < num_faces and seen[f] != n:
                    seen[f] = n
                    k += 1
        count[n] = k


@njit
def _backward(lo, hi, attributes, rast, clip, faces, own, grad, start, face, to_att, to_pos):
    """Each band's sums for each corner of the faces that it sees: dL/dA in `to_att`, dL/d(x, y, w) in `to_pos`."""
    _, h, w, channels = grad.shape
    bands = -(-h // BAND)
    slot_of = np.full(len(faces), -1, np.int64)
    g = np.empty(channels, np.float64)
    for n in range(lo, hi):
        b, top, free = n // bands, n % bands * BAND, start[n]
        A, points = attributes[b if len(attributes) > 1 else 0], clip[b]
        for r in range(top, min(top + BAND, h)):
            Y = (2 * r + 1) / h - 1
            for c in range(w):
                f = int(rast[b, r, c, 3]) - 1
                if not 0 <= f < len(faces):
                    continue
                slot = slot_of[f]
                if slot < start[n]:  # of an earlier band, or none
                    slot_of[f] = slot = free
                    face[slot] = f
                    free += 1
                X = (2 * c + 1) / w - 1
                x0, y0, x1, y1, x2, y2 = _cross(points, f, faces, X, Y)
                a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
                s = 1 / (a0 + a1 + a2)
                b0, b1, b2 = a0 * s, a1 * s, a2 * s
                for m in range(channels):
                    g[m] = grad[b, r, c, m]
                if len(to_att):
                    for m in range(channels):
                        to_att[slot, 0, m] += b0 * g[m]
                        to_att[slot, 1, m] += b1 * g[m]
                        to_att[slot, 2, m] += b2 * g[m]
                if len(to_pos):
                    i, j, k = own[f, 0], own[f, 1], own[f, 2]
                    g0, g1, g2 = 0.0, 0.0, 0.0
                    for m in range(channels):
                        g0 += g[m] * A[i, m]
                        g1 += g[m] * A[j, m]
                        g2 += g[m] * A[k, m]
                    mean = b0 * g0 + b1 * g1 + b2 * g2
                    h0, h1, h2 = (g0 - mean) * s, (g1 - mean) * s, (g2 - mean) * s
                    dx, dy = h2 * y1 - h1 * y2, h1 * x2 - h2 * x1
                    to_pos[slot, 0, 0] += dx
                    to_pos[slot, 0, 1] += dy
                    to_pos[slot, 0, 2] -= X * dx + Y * dy
                    dx, dy = h0 * y2 - h2 * y0, h2 * x0 - h0 * x2
                    to_pos[slot, 1, 0] += dx
                    to_pos[slot, 1, 1] += dy
                    to_pos[slot, 1, 2] -= X * dx + Y * dy
                    dx, dy = h1 * y0 - h0 * y1, h0 * x1 - h1 * x0
                    to_pos[slot, 2, 0] += dx
                    to_pos[slot, 2, 1] += dy
                    to_pos[slot, 2, 2] -= X * dx + Y * dy


@njit
def _gather(lo, hi, pictures, face, faces, value, total):
    """Add corner sums up at the vertices lo:hi of all pictures' vertices, in the order of the slots. Three values a corner go
    to x, y, w where `total` has one column more."""
    num_vertices, channels = total.shape[1], value.shape[2]
    skip = total.shape[2] > channels
    for b in range(lo // num_vertices, (hi - 1) // num_vertices + 1):
        first, last = lo - b * num_vertices, hi - b * num_vertices
        for slot in range(pictures[b], pictures[b + 1]):
            for k in range(3):
                v = faces[face[slot], k]
                if first <= v < last:
                    for m in range(channels):
                        total[b, v, m + 1 if skip and m == 2 else m] += value[slot, k, m]
