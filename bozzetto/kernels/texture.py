# SPDX-License-Identifier: Apache-2.0
"""Texture lookup, bilinear, with gradients to the texture and to uv.

Laine et al. 2020 (arXiv:2011.03277), Sec. 3.4. Letters: a texture of H x W texels, texel (i, j) centred at u = (i + 1/2) / W,
v = (j + 1/2) / H, v = 0 at the top row; x = u W - 1/2, y = v H - 1/2; with s, t their fractional parts,
T = (1-t) ((1-s) T_00 + s T_10) + t ((1-s) T_01 + s T_11), dT/du = W ((1-t) (T_10 - T_00) + t (T_11 - T_01)), dT/dv likewise.

Differs from the paper: there is no mip pyramid, so that a texture finer than its picture aliases; draw a larger picture and
average. A texel's gradient is summed by the one thread that owns its row, over the pixels that read that row, in order of
pixels, in float64.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bozzetto.kernels import nvdiffrast, pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import BAND, as_array


def texture(image: Tensor, uv: Tensor, *, mode: Literal["wrap", "clamp"] = "wrap") -> Tensor:
    """The texture's colour at each pixel.

    image    (1 or B, H, W, C) float32 or float64, row 0 at v = 0
    uv       (B, h, w, 2); not a number gives 0
    mode     beyond [0, 1]: "wrap" repeats, "clamp" holds the border
    returns  (B, h, w, C) in the image's dtype. Gradients go to `image` and `uv`. Pixels that see nothing have uv 0 and
             get a texel's colour: mask them
    raises   ValueError for wrong shapes or mode
    """
    if image.ndim != 4 or uv.ndim != 4 or uv.shape[3] != 2 or len(image) not in (1, len(uv)) or 0 in image.shape[1:3]:
        raise ValueError(f"texture: expected image (1 or B, H, W, C) and uv (B, h, w, 2), got {tuple(image.shape)} and {tuple(uv.shape)}")
    if mode not in ("wrap", "clamp"):
        raise ValueError(f"texture: mode is 'wrap' or 'clamp', got {mode!r}")
    if nvdiffrast.is_usable(image):
        return nvdiffrast.texture(image, uv, mode)
    out: Tensor = _Texture.apply(image, uv, mode == "wrap")
    return out


class _Texture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, uv: Tensor, wrap: bool) -> Tensor:
        ctx.save_for_backward(image, uv)
        ctx.wrap = wrap
        tex = as_array(image)
        at = as_array(uv, tex.dtype)
        out = np.zeros((*at.shape[:3], tex.shape[3]), tex.dtype)
        pool.run(_forward, at.shape[0] * at.shape[1], tex, at, wrap, out, grain=BAND)
        return torch.from_numpy(out).to(image.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, uv = ctx.saved_tensors
        tex = as_array(image)
        at, g = as_array(uv, tex.dtype), as_array(grad, tex.dtype)
        d_image = d_uv = None
        if ctx.needs_input_grad[0]:
            start, order = _readers(at, ctx.wrap, tex.shape[0], tex.shape[1])
            total = np.zeros(tex.shape)
            pool.run(_texels_back, len(start) - 1, at, ctx.wrap, g, start, order, total, grain=BAND)
            d_image = torch.from_numpy(total).to(image)
        if ctx.needs_input_grad[1]:
            to_uv = np.zeros(at.shape, at.dtype)
            pool.run(_uv_back, at.shape[0] * at.shape[1], tex, at, ctx.wrap, g, to_uv, grain=BAND)
            d_uv = torch.from_numpy(to_uv).to(uv)
        return d_image, d_uv, None


@njit
def _place(x, n, wrap):
    """The two texels about coordinate x in texels, of n, and the second one's weight."""
    low = np.floor(x)
    i = np.int64(low)
    if 0 <= i < n - 1:  # dividing is slow
        return i, i + 1, x - low
    if wrap:
        return i % n, (i + 1) % n, x - low
    return min(max(i, 0), n - 1), min(max(i + 1, 0), n - 1), x - low


@njit
def _is_readable(u, v):
    return abs(u) < 1e9 and abs(v) < 1e9  # false also when not a number


@njit
def _forward(lo, hi, image, uv, wrap, out):
    _, h, w, channels = out.shape
    _, H, W, _ = image.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        T = image[b if len(image) > 1 else 0]
        for c in range(w):
            u, v = np.float64(uv[b, r, c, 0]), np.float64(uv[b, r, c, 1])
            if not _is_readable(u, v):
                continue
            i0, i1, s = _place(u * W - 0.5, W, wrap)
            j0, j1, t = _place(v * H - 0.5, H, wrap)
            for m in range(channels):
                top = (1 - s) * T[j0, i0, m] + s * T[j0, i1, m]
                bottom = (1 - s) * T[j1, i0, m] + s * T[j1, i1, m]
                out[b, r, c, m] = (1 - t) * top + t * bottom


@njit
def _uv_back(lo, hi, image, uv, wrap, grad, to_uv):
    _, h, w, channels = grad.shape
    _, H, W, _ = image.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        T = image[b if len(image) > 1 else 0]
        for c in range(w):
            u, v = np.float64(uv[b, r, c, 0]), np.float64(uv[b, r, c, 1])
            if not _is_readable(u, v):
                continue
            i0, i1, s = _place(u * W - 0.5, W, wrap)
            j0, j1, t = _place(v * H - 0.5, H, wrap)
            du, dv = 0.0, 0.0
            for m in range(channels):
                g = np.float64(grad[b, r, c, m])
                T00, T10 = np.float64(T[j0, i0, m]), np.float64(T[j0, i1, m])
                T01, T11 = np.float64(T[j1, i0, m]), np.float64(T[j1, i1, m])
                du += g * W * ((1 - t) * (T10 - T00) + t * (T11 - T01))
                dv += g * H * ((1 - s) * (T01 - T00) + s * (T11 - T10))
            to_uv[b, r, c, 0], to_uv[b, r, c, 1] = du, dv


@njit
def _readers(uv, wrap, num_images, rows):
    """For each row of each image, the pixels that read it, in order: `order[start[k]:start[k + 1]]`, as 2 pixel + (0 if it is
    their upper row, 1 if their lower one)."""
    batch, h, w, _ = uv.shape
    start = np.zeros(num_images * rows + 1, np.int64)
    order = np.empty(0, np.int64)
    for is_second in range(2):
        for n in range(batch * h):
            b, r = n // h, n % h
            for c in range(w):
                u, v = np.float64(uv[b, r, c, 0]), np.float64(uv[b, r, c, 1])
                if not _is_readable(u, v):
                    continue
                first = (b if num_images > 1 else 0) * rows
                j0, j1, _ = _place(v * rows - 0.5, rows, wrap)
                if is_second:
                    order[start[first + j0]] = 2 * (n * w + c)
                    start[first + j0] += 1
                    order[start[first + j1]] = 2 * (n * w + c) + 1
                    start[first + j1] += 1
                else:
                    start[first + j0 + 1] += 1
                    start[first + j1 + 1] += 1
        if is_second == 0:
            for k in range(len(start) - 1):
                start[k + 1] += start[k]
            order = np.empty(start[-1], np.int64)
    for k in range(len(start) - 1, 0, -1):  # the second round moved each start to its end
        start[k] = start[k - 1]
    start[0] = 0
    return start, order


@njit
def _texels_back(lo, hi, uv, wrap, grad, start, order, total):
    """Rows lo:hi of all images; nobody else writes them."""
    _, h, w, channels = grad.shape
    _, H, W, _ = total.shape
    for n in range(lo, hi):
        image, row = n // H, n % H
        for p in range(start[n], start[n + 1]):
            pixel, lower = order[p] // 2, order[p] % 2
            b, r, c = pixel // (h * w), pixel // w % h, pixel % w
            i0, i1, s = _place(np.float64(uv[b, r, c, 0]) * W - 0.5, W, wrap)
            t = _place(np.float64(uv[b, r, c, 1]) * H - 0.5, H, wrap)[2]
            share = t if lower else 1 - t
            for m in range(channels):
                total[image, row, i0, m] += share * (1 - s) * grad[b, r, c, m]
                total[image, row, i1, m] += share * s * grad[b, r, c, m]
