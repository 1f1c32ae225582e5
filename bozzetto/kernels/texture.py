# SPDX-License-Identifier: Apache-2.0
"""Texture lookup, bilinear or trilinear over a mip pyramid, with gradients to the texture and to uv.

Laine et al. 2020 (arXiv:2011.03277), Sec. 3.4; mip levels as Williams 1983. Letters: a texture of H x W texels, texel (i, j)
centred at u = (i + 1/2) / W, v = (j + 1/2) / H, v = 0 at the top row; x = u W - 1/2, y = v H - 1/2; with s, t their fractional
parts, T = (1-t) ((1-s) T_00 + s T_10) + t ((1-s) T_01 + s T_11), dT/du = W ((1-t) (T_10 - T_00) + t (T_11 - T_01)), dT/dv likewise.

Differs from the paper's code: the mip level carries no gradient. A texel's gradient is summed by the one thread that owns
its row, over the pixels that read that row, in order of pixels, in float64.
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


def texture(image: Tensor, uv: Tensor, footprint: Tensor | None = None, *, mode: Literal["wrap", "clamp"] = "wrap") -> Tensor:
    """The texture's colour at each pixel.

    image      (1 or B, H, W, C) float32 or float64, row 0 at v = 0
    uv         (B, h, w, 2); not a number gives 0
    footprint  (B, h, w, 2, 2) of `footprint(uv, ...)`, d(u, v) by pixel: reads the two mip levels between whose texels lies
               the longer axis of the pixel's image. None: the full texture alone, as for magnification
    mode       beyond [0, 1]: "wrap" repeats, "clamp" holds the border
    returns    (B, h, w, C) in the image's dtype. Gradients go to `image` and `uv`. Pixels that see nothing have uv 0 and
               get a texel's colour: mask them
    raises     ValueError for wrong shapes or mode
    """
    if image.ndim != 4 or uv.ndim != 4 or uv.shape[3] != 2 or len(image) not in (1, len(uv)) or 0 in image.shape[1:3]:
        raise ValueError(f"texture: expected image (1 or B, H, W, C) and uv (B, h, w, 2), got {tuple(image.shape)} and {tuple(uv.shape)}")
    if footprint is not None and footprint.shape != (*uv.shape, 2):
        raise ValueError(f"texture: expected footprint {(*uv.shape, 2)}, got {tuple(footprint.shape)}")
    if mode not in ("wrap", "clamp"):
        raise ValueError(f"texture: mode is 'wrap' or 'clamp', got {mode!r}")
    if nvdiffrast.is_usable(image):
        return nvdiffrast.texture(image, uv, footprint, mode)
    levels = [image] if footprint is None else mipmaps(image)
    sizes = np.array([level.shape[1:3] for level in levels], np.int64)
    texels = levels[0].flatten(1, 2) if len(levels) == 1 else torch.cat([level.flatten(1, 2) for level in levels], dim=1)
    level = np.zeros(uv.shape[:3])
    if footprint is not None:
        pool.run(_level, level.size, as_array(footprint, np.float64).reshape(-1, 4), sizes, level.reshape(-1), grain=4096)
    out: Tensor = _Texture.apply(texels, uv, level, sizes, mode == "wrap")
    return out


def mipmaps(image: Tensor) -> list[Tensor]:
    """(B, H, W, C) and its halves, down to 1 x 1, each texel the mean of those that it covers; differentiable."""
    levels = [image]
    while max(levels[-1].shape[1:3]) > 1:
        h, w = levels[-1].shape[1:3]
        half = torch.nn.functional.adaptive_avg_pool2d(levels[-1].permute(0, 3, 1, 2), (max(h // 2, 1), max(w // 2, 1)))
        levels.append(half.permute(0, 2, 3, 1))
    return levels


class _Texture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, texels: Tensor, uv: Tensor, level: np.ndarray, sizes: np.ndarray, wrap: bool) -> Tensor:
        ctx.save_for_backward(texels, uv)
        ctx.rest = level, sizes, wrap
        tex = as_array(texels)
        at = as_array(uv, tex.dtype)
        out = np.zeros((*at.shape[:3], tex.shape[2]), tex.dtype)
        pool.run(_forward, at.shape[0] * at.shape[1], tex, sizes, at, level, wrap, out, grain=BAND)
        return torch.from_numpy(out).to(texels.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        texels, uv = ctx.saved_tensors
        level, sizes, wrap = ctx.rest
        tex = as_array(texels)
        at, g = as_array(uv, tex.dtype), as_array(grad, tex.dtype)
        d_tex = d_uv = None
        if ctx.needs_input_grad[0]:
            start, order = _readers(at, level, sizes, wrap, len(tex))
            total = np.zeros(tex.shape)
            pool.run(_texels_back, len(start) - 1, sizes, at, level, wrap, g, start, order, total, grain=BAND)
            d_tex = torch.from_numpy(total).to(texels)
        if ctx.needs_input_grad[1]:
            to_uv = np.zeros(at.shape, at.dtype)
            pool.run(_uv_back, at.shape[0] * at.shape[1], tex, sizes, at, level, wrap, g, to_uv, grain=BAND)
            d_uv = torch.from_numpy(to_uv).to(uv)
        return d_tex, d_uv, None, None, None


@njit
def _level(lo, hi, footprint, sizes, level):
    """log2 of the longer axis of the pixel's image, an ellipse: the larger singular value of J in texels, in [0, L - 1]."""
    H, W = sizes[0]
    for n in range(lo, hi):
        a, b, c, d = footprint[n, 0] * W, footprint[n, 1] * W, footprint[n, 2] * H, footprint[n, 3] * H
        u, v = a * a + b * b, c * c + d * d
        square = 0.5 * (u + v + np.hypot(u - v, 2 * (a * c + b * d)))
        level[n] = min(0.5 * np.log2(square), len(sizes) - 1.0) if square > 1 else 0.0  # also when not a number


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
def _offset(sizes, level):
    """Where a level begins: texels before it, and rows before it."""
    texels, rows = 0, 0
    for n in range(level):
        texels += sizes[n, 0] * sizes[n, 1]
        rows += sizes[n, 0]
    return texels, rows


@njit
def _forward(lo, hi, texels, sizes, uv, level, wrap, out):
    _, h, w, channels = out.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        T = texels[b if len(texels) > 1 else 0]
        for c in range(w):
            u, v = np.float64(uv[b, r, c, 0]), np.float64(uv[b, r, c, 1])
            if not _is_readable(u, v):
                continue
            base = int(level[b, r, c])
            blend = level[b, r, c] - base
            for k in range(base, min(base + 2, len(sizes))):
                share = blend if k > base else 1 - blend
                if share == 0:
                    continue
                H, W = sizes[k]
                at = _offset(sizes, k)[0]
                i0, i1, s = _place(u * W - 0.5, W, wrap)
                j0, j1, t = _place(v * H - 0.5, H, wrap)
                for m in range(channels):
                    top = (1 - s) * T[at + j0 * W + i0, m] + s * T[at + j0 * W + i1, m]
                    bottom = (1 - s) * T[at + j1 * W + i0, m] + s * T[at + j1 * W + i1, m]
                    out[b, r, c, m] += share * ((1 - t) * top + t * bottom)


@njit
def _uv_back(lo, hi, texels, sizes, uv, level, wrap, grad, to_uv):
    _, h, w, channels = grad.shape
    for n in range(lo, hi):
        b, r = n // h, n % h
        T = texels[b if len(texels) > 1 else 0]
        for c in range(w):
            u, v = np.float64(uv[b, r, c, 0]), np.float64(uv[b, r, c, 1])
            if not _is_readable(u, v):
                continue
            base = int(level[b, r, c])
            blend = level[b, r, c] - base
            du, dv = 0.0, 0.0
            for k in range(base, min(base + 2, len(sizes))):
                share = blend if k > base else 1 - blend
                if share == 0:
                    continue
                H, W = sizes[k]
                at = _offset(sizes, k)[0]
                i0, i1, s = _place(u * W - 0.5, W, wrap)
                j0, j1, t = _place(v * H - 0.5, H, wrap)
                for m in range(channels):
                    g = share * grad[b, r, c, m]
                    T00, T10 = np.float64(T[at + j0 * W + i0, m]), np.float64(T[at + j0 * W + i1, m])
                    T01, T11 = np.float64(T[at + j1 * W + i0, m]), np.float64(T[at + j1 * W + i1, m])
                    du += g * W * ((1 - t) * (T10 - T00) + t * (T11 - T01))
                    dv += g * H * ((1 - s) * (T01 - T00) + s * (T11 - T10))
            to_uv[b, r, c, 0], to_uv[b, r, c, 1] = du, dv


@njit
def _readers(uv, level, sizes, wrap, num_images):
    """For each row of each level of each image, the pixels that read it, in order: `order[start[k]:start[k + 1]]`, as
    2 pixel + (0 if it is their upper row, 1 if their lower one)."""
    batch, h, w, _ = uv.shape
    rows = _offset(sizes, len(sizes))[1]
    start = np.zeros(num_images * rows + 1, np.int64)
    order = np.empty(0, np.int64)
    for is_second in range(2):
        for n in range(batch * h):
            b, r = n // h, n % h
            for c in range(w):
                u, v = np.float64(uv[b, r, c, 0]), np.float64(uv[b, r, c, 1])
                if not _is_readable(u, v):
                    continue
                base = int(level[b, r, c])
                for k in range(base, min(base + 2, len(sizes))):
                    if k > base and level[b, r, c] == base:
                        continue
                    row = (b if num_images > 1 else 0) * rows + _offset(sizes, k)[1]
                    j0, j1, _ = _place(v * sizes[k, 0] - 0.5, sizes[k, 0], wrap)
                    if is_second:
                        order[start[row + j0]] = 2 * (n * w + c)
                        start[row + j0] += 1
                        order[start[row + j1]] = 2 * (n * w + c) + 1
                        start[row + j1] += 1
                    else:
                        start[row + j0 + 1] += 1
                        start[row + j1 + 1] += 1
        if is_second == 0:
            for k in range(len(start) - 1):
                start[k + 1] += start[k]
            order = np.empty(start[-1], np.int64)
    for k in range(len(start) - 1, 0, -1):  # the second round moved each start to its end
        start[k] = start[k - 1]
    start[0] = 0
    return start, order


@njit
def _texels_back(lo, hi, sizes, uv, level, wrap, grad, start, order, total):
    """Rows lo:hi of all levels of all images; nobody else writes them."""
    _, h, w, channels = grad.shape
    rows = _offset(sizes, len(sizes))[1]
    for n in range(lo, hi):
        image, k, row = n // rows, 0, n % rows
        while row >= sizes[k, 0]:
            row -= sizes[k, 0]
            k += 1
        H, W = sizes[k]
        at = _offset(sizes, k)[0] + row * W
        for p in range(start[n], start[n + 1]):
            pixel, lower = order[p] // 2, order[p] % 2
            b, r, c = pixel // (h * w), pixel // w % h, pixel % w
            base = int(level[b, r, c])
            share = level[b, r, c] - base if k > base else 1 - (level[b, r, c] - base)
            i0, i1, s = _place(np.float64(uv[b, r, c, 0]) * W - 0.5, W, wrap)
            t = _place(np.float64(uv[b, r, c, 1]) * H - 0.5, H, wrap)[2]
            share *= t if lower else 1 - t
            for m in range(channels):
                total[image, at + i0, m] += share * (1 - s) * grad[b, r, c, m]
                total[image, at + i1, m] += share * s * grad[b, r, c, m]
