# SPDX-License-Identifier: Apache-2.0
"""Ellipses blended front to back, with gradients: the inner loop of Gaussian splatting.

Kerbl et al. 2023 (arXiv:2308.04079), Sec. 6. A pixel at x sees the Gaussian i, at p_i, with
alpha_i = min(TOP, o_i exp(-1/2 (x - p_i)^T conic_i (x - p_i))), nothing below `min_alpha`; front to back w_i = T_i alpha_i and
T_{i+1} = T_i (1 - alpha_i). A pixel is finished *before* the Gaussian that would bring T below `min_transmittance`.

Gradients: with v = dL/d(sum of w_i f_i), s = dL/dT_N, and R_i = sum over j > i of w_j f_j v + T_N s,
dL/d alpha_i = T_i f_i v - R_i / (1 - alpha_i). R is a running difference from the picture itself, so that backward walks front
to back too and keeps no list. Differs from the released code: where TOP holds alpha down, its slope is 0, as its value says.

How: tiles of 16 x 16 pixels; a tile's Gaussians are walked in order, each over the rows of the box outside which alpha is
below `min_alpha`, a row at a time as 16 lanes. All that a row needs lies in one array at constant distances, so that the
compiler can see that lanes do not touch, and uses vector instructions. Along a row, y is constant: three sums over lanes of
g, g y and g y^2 (g = alpha dL/d alpha) hold the gradients to p, conic and o. Sums of one (tile, Gaussian) have a slot of
their own, and are added up by Gaussian afterwards: the same bits for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor
from torch.autograd.function import once_differentiable

from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import as_array
from bozzetto.kernels.tiles import TILE, boxes, depth_order, fill_tiles

LANES, L1, L2, L3, L4, L5, L6 = (np.uint64(16 * max(k, 1)) for k in range(7))  # an index that may be negative is not a lane
TOP = 0.99  # no Gaussian hides all that lies behind it
MIN_ALPHA, MIN_TRANSMITTANCE = 1 / 255, 1e-4
GRAIN = 1024


def blend(
    xy: Tensor,
    conic: Tensor,
    depth: Tensor,
    opacities: Tensor,
    features: Tensor,
    size: tuple[int, int],
    *,
    min_alpha: float = MIN_ALPHA,
    min_transmittance: float = MIN_TRANSMITTANCE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of ellipses.

    xy, conic, depth  (V, N, 2), (V, N, 3), (V, N) of `project`; nearer ones are in front, the lower index among equals
    opacities  (V, N) in [0, 1]
    features   (V, N, C), whatever is to be blended
    returns    sum of w_i f_i (V, H, W, C); the transmittance T_N that is left (V, H, W); and which Gaussian brings T to one half
               or below, (V, H, W) int64, -1 where none does (no gradient). Gradients go to xy, conic, opacities and features
    """
    out: tuple[Tensor, Tensor, Tensor] = _Blend.apply(xy, conic, opacities, features, depth, size, min_alpha, min_transmittance)
    return out


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, xy: Tensor, conic: Tensor, opacities: Tensor, features: Tensor, depth: Tensor, size: tuple[int, int], *cuts: float
    ):
        p = as_array(xy)
        q, o, f, z = (as_array(a, p.dtype) for a in (conic, opacities, features, depth))
        f = np.pad(f, ((0, 0), (0, 0), (0, max(0, 3 - f.shape[2]))))  # three channels share a loop
        v, n, channels = f.shape
        h, w = size
        across, down = -(-w // TILE), -(-h // TILE)
        picture, left = np.zeros((v, h, w, channels), p.dtype), np.ones((v, h, w), p.dtype)
        half = np.full((v, h, w), -1, np.int64)
        lists = []
        for i in range(v):
            ellipse, box = np.empty((n, 8), p.dtype), np.empty((n, 4), np.int32)
            pool.run(boxes, n, p[i], q[i], o[i], cuts[0], h, w, ellipse, box, grain=GRAIN)
            start, items, slots, owned = fill_tiles(box, depth_order(z[i]), across, down)
            lists.append((ellipse, box, start, items, slots, owned))
            pool.run(_forward, across * down, across, start, items, ellipse, box, f[i], *cuts, picture[i], left[i], half[i])
        ctx.save_for_backward(xy, conic, opacities, features)
        ctx.rest = lists, f, picture, left, cuts
        ctx.set_materialize_grads(True)
        to = [torch.from_numpy(a).to(xy.device) for a in (picture[..., : features.shape[2]], left, half)]
        ctx.mark_non_differentiable(to[2])
        return tuple(to)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_picture: Tensor, g_left: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        xy, conic, opacities, features = ctx.saved_tensors
        lists, f, picture, left, cuts = ctx.rest
        o, g, s = (as_array(a, picture.dtype) for a in (opacities, g_picture, g_left))
        g = np.pad(g, ((0, 0), (0, 0), (0, 0), (0, max(0, 3 - g.shape[3]))))
        out = [np.empty(shape, picture.dtype) for shape in (xy.shape, conic.shape, opacities.shape, f.shape)]
        across = -(-left.shape[2] // TILE)
        for i, (ellipse, box, start, items, slots, owned) in enumerate(lists):
            sums = np.empty((len(items), 6 + f.shape[2]), picture.dtype)
            pool.run(
                _backward, len(start) - 1, across, start, items, slots, ellipse, box, f[i], *cuts, picture[i], left[i], g[i], s[i], sums
            )
            pool.run(_gather, len(box), owned, ellipse, o[i], sums, *(a[i] for a in out), grain=GRAIN)
        to = [torch.from_numpy(a).to(xy.device) for a in out]
        return to[0], to[1].to(conic), to[2].to(opacities), to[3][..., : features.shape[2]].to(features), None, None, None, None


@intrinsic
def _times_two_to_the(typing, x, shifted):
    """x 2^k, where `shifted` is k + 1.5 * 2^23 in float32, whose low bits are k's."""

    def code(context, builder, signature, args):
        i32, f32 = context.get_value_type(types.int32), context.get_value_type(types.float32)
        bits = builder.shl(builder.bitcast(args[1], i32), context.get_constant(types.int32, 23))
        return builder.bitcast(builder.add(builder.bitcast(args[0], i32), bits), f32)

    return types.float32(types.float32, types.float32), code


def _exp(x):  # compiled only; see below
    raise NotImplementedError


@overload(_exp, inline="always", fastmath={"contract", "nsz"})
def _exp_of(x):
    """exp(x), x <= 0. In float32 a polynomial: there is no vector exponential to call, and a call keeps the loop scalar.

    2^t = 2^k 2^f with k = round(t); |f| <= 1/2, degree 6 (Taylor with the tail economised: relative error 2e-8), k into the exponent.
    """
    if x != types.float32:
        return lambda x: np.exp(x)

    def in_float32(x):
        t = max(x, np.float32(-80)) * np.float32(1.4426950408889634)
        shifted = t + np.float32(12582912)
        f = t - (shifted - np.float32(12582912))
        y = np.float32(1.5403530393381609e-4) * f + np.float32(1.3333558146428443e-3)
        y = y * f + np.float32(9.6181291076284772e-3)
        y = y * f + np.float32(5.5504108664821580e-2)
        y = y * f + np.float32(2.4022650695910072e-1)
        y = y * f + np.float32(6.9314718055994531e-1)
        y = y * f + np.float32(1)
        return _times_two_to_the(y, shifted)

    return in_float32


@njit
def _lines(n, like):
    """n numbers that start at a cache line, 64 bytes."""
    raw = np.empty(n + 16, like.dtype)
    skip = (-raw.ctypes.data % 64) // raw.itemsize
    return raw[skip : skip + n]


@njit
def _reaches(a, b, c, ratio, cut, left, right, dy):
    """Can alpha reach min_alpha between dx = left and right: is the power at its highest point there above `cut`."""
    dx = min(max(-ratio * dy, left), right)
    return -(a * dx * dx + c * dy * dy) - (b + b) * dx * dy >= cut + cut


@njit
def _forward(lo, hi, across, start, items, ellipse, box, feature, min_alpha, min_left, picture, left, half):
    """Row state, 16 lanes each: T (0 once finished), T of finished pixels, weight, place in the list of the one that halves T, channels."""
    h, w, channels = picture.shape
    real = picture.dtype.type
    width = TILE * (4 + channels)
    s, lane = _lines(TILE * width, picture), _lines(TILE, picture)
    cut_alpha, cut_left, top, zero = real(min_alpha), real(min_left), real(TOP), real(0)
    minus_half, one, middle = real(-0.5), real(1), real(0.5)
    is_live = np.empty(TILE, np.bool_)
    for j in range(LANES):
        lane[j] = j + 0.5
    for tile in range(lo, hi):
        x0, y0 = (tile % across) * TILE, (tile // across) * TILE
        s[:] = 0
        for r in range(TILE):
            is_live[r] = y0 + r < h
            for j in range(LANES):
                s[np.uint64(r * width) + j] = 1 if y0 + r < h and x0 + j < w else 0
        for n in range(start[tile], start[tile + 1]):
            if (n - start[tile]) % 32 == 31:
                any_live = False
                for r in range(TILE):
                    if is_live[r]:
                        most = zero
                        for j in range(LANES):
                            most = max(most, s[np.uint64(r * width) + j])
                        is_live[r] = most > 0
                        any_live |= most > 0
                if not any_live:
                    break
            g = items[n]
            place = real(n - start[tile] + 1)
            f0, f1, f2 = feature[g, 0], feature[g, 1], feature[g, 2]
            mx, my = ellipse[g, 0] - real(x0), ellipse[g, 1] - real(y0)
            a, b, c, o, cut, ratio = ellipse[g, 2], ellipse[g, 3], ellipse[g, 4], ellipse[g, 5], ellipse[g, 6], ellipse[g, 7]
            for r in range(max(box[g, 2] - y0, 0), min(box[g, 3] - y0, TILE)):
                dy = lane[r] - my
                if not is_live[r] or not _reaches(a, b, c, ratio, cut, middle - mx, lane[TILE - 1] - mx, dy):
                    continue
                base = np.uint64(r * width)
                k2, k1, k0 = minus_half * a, -b * dy, minus_half * c * dy * dy
                for j in range(LANES):
                    dx = lane[j] - mx
                    alpha = min(o * _exp((k2 * dx + k1) * dx + k0), top)
                    alpha = alpha if alpha >= cut_alpha else zero
                    t = s[base + j]
                    after = t * (one - alpha)
                    goes_on = after >= cut_left
                    weight = alpha * t if goes_on else zero
                    s[base + L1 + j] += zero if goes_on else t
                    s[base + j] = after if goes_on else zero
                    s[base + L2 + j] = weight
                    s[base + L3 + j] = place if (t > middle) & (after <= middle) & goes_on else s[base + L3 + j]
                    s[base + L4 + j] += f0 * weight
                    s[base + L5 + j] += f1 * weight
                    s[base + L6 + j] += f2 * weight
                for k in range(3, channels):
                    f, to = feature[g, k], base + np.uint64((4 + k) * TILE)
                    for j in range(LANES):
                        s[to + j] += f * s[base + L2 + j]
        for r in range(min(TILE, h - y0)):
            for j in range(min(TILE, w - x0)):
                at = r * width + j
                left[y0 + r, x0 + j] = s[at] + s[at + TILE]
                n = int(s[at + 3 * TILE])
                half[y0 + r, x0 + j] = items[start[tile] + n - 1] if n else -1
                for k in range(channels):
                    picture[y0 + r, x0 + j, k] = s[at + (4 + k) * TILE]


@njit
def _backward(lo, hi, across, start, items, slots, ellipse, box, feature, min_alpha, min_left, picture, left, g_picture, g_left, sums):
    """Row state, 16 lanes each: T, R, weight, f v of channels beyond three, then v by channel.

    sums (P, 6 + C): of g, g dx, g dy, g dx^2, g dx dy, g dy^2 and of w v, for each (tile, Gaussian).
    """
    h, w, channels = picture.shape
    real = picture.dtype.type
    width = TILE * (4 + channels)
    s, acc, lane = _lines(TILE * width, picture), _lines(TILE * (3 + channels), picture), _lines(TILE, picture)
    cut_alpha, cut_left, top, zero = real(min_alpha), real(min_left), real(TOP), real(0)
    minus_half, one, middle = real(-0.5), real(1), real(0.5)
    is_live = np.empty(TILE, np.bool_)
    for j in range(LANES):
        lane[j] = j + 0.5
    for tile in range(lo, hi):
        x0, y0 = (tile % across) * TILE, (tile // across) * TILE
        s[:] = 0
        for r in range(TILE):
            is_live[r] = y0 + r < h
            for j in range(LANES):
                if y0 + r < h and x0 + j < w:
                    s[np.uint64(r * width) + j] = 1
                    rest = left[y0 + r, x0 + j] * g_left[y0 + r, x0 + j]
                    for k in range(channels):
                        v = g_picture[y0 + r, x0 + j, k]
                        s[np.uint64(r * width + (4 + k) * TILE) + j] = v
                        rest += v * picture[y0 + r, x0 + j, k]
                    s[np.uint64(r * width) + L1 + j] = rest
        for n in range(start[tile], start[tile + 1]):
            if (n - start[tile]) % 32 == 31:
                for r in range(TILE):
                    if is_live[r]:
                        most = zero
                        for j in range(LANES):
                            most = max(most, s[np.uint64(r * width) + j])
                        is_live[r] = most > 0
            g = items[n]
            mx, my = ellipse[g, 0] - real(x0), ellipse[g, 1] - real(y0)
            a, b, c, o, cut, ratio = ellipse[g, 2], ellipse[g, 3], ellipse[g, 4], ellipse[g, 5], ellipse[g, 6], ellipse[g, 7]
            f0, f1, f2 = feature[g, 0], feature[g, 1], feature[g, 2]
            acc[:] = 0
            for r in range(max(box[g, 2] - y0, 0), min(box[g, 3] - y0, TILE)):
                dy = lane[r] - my
                if not is_live[r] or not _reaches(a, b, c, ratio, cut, middle - mx, lane[TILE - 1] - mx, dy):
                    continue
                base = np.uint64(r * width)
                k2, k1, k0 = minus_half * a, -b * dy, minus_half * c * dy * dy
                for j in range(LANES):
                    s[base + L3 + j] = zero
                for k in range(3, channels):
                    f, at = feature[g, k], base + np.uint64((4 + k) * TILE)
                    for j in range(LANES):
                        s[base + L3 + j] += f * s[at + j]
                for j in range(LANES):
                    dx = lane[j] - mx
                    raw = o * _exp((k2 * dx + k1) * dx + k0)
                    alpha = min(raw, top)
                    alpha = alpha if alpha >= cut_alpha else zero
                    t = s[base + j]
                    after = t * (one - alpha)
                    goes_on = after >= cut_left
                    alpha = alpha if goes_on else zero
                    weight = alpha * t
                    v0, v1, v2 = s[base + L4 + j], s[base + L5 + j], s[base + L6 + j]
                    fv = s[base + L3 + j] + f0 * v0 + f1 * v1 + f2 * v2
                    rest = s[base + L1 + j] - weight * fv
                    slope = (alpha if raw <= top else zero) * (t * fv - rest / (one - alpha))
                    s[base + j] = after if goes_on else zero
                    s[base + L1 + j] = rest
                    s[base + L2 + j] = weight
                    acc[j] += slope
                    acc[L1 + j] += slope * dy
                    acc[L2 + j] += slope * dy * dy
                    acc[L3 + j] += weight * v0
                    acc[L4 + j] += weight * v1
                    acc[L5 + j] += weight * v2
                for k in range(3, channels):
                    at, to = base + np.uint64((4 + k) * TILE), np.uint64((3 + k) * TILE)
                    for j in range(LANES):
                        acc[to + j] += s[base + L2 + j] * s[at + j]
            to = slots[n]
            g00, g10, g01, g20, g11, g02, c0, c1, c2 = zero, zero, zero, zero, zero, zero, zero, zero, zero
            for j in range(LANES):
                dx = lane[j] - mx
                g0, g1 = acc[j], acc[L1 + j]
                g00 += g0
                g10 += g0 * dx
                g20 += g0 * dx * dx
                g01 += g1
                g11 += g1 * dx
                g02 += acc[L2 + j]
                c0 += acc[L3 + j]
                c1 += acc[L4 + j]
                c2 += acc[L5 + j]
            sums[to, 0], sums[to, 1], sums[to, 2], sums[to, 3], sums[to, 4], sums[to, 5] = g00, g10, g01, g20, g11, g02
            sums[to, 6], sums[to, 7], sums[to, 8] = c0, c1, c2
            for k in range(3, channels):
                total = zero
                for j in range(LANES):
                    total += acc[np.uint64((3 + k) * TILE) + j]
                sums[to, 6 + k] = total


@njit
def _gather(lo, hi, owned, ellipse, opacity, sums, d_xy, d_conic, d_opacity, d_feature):
    channels = d_feature.shape[1]
    total = np.empty(6 + channels)
    for g in range(lo, hi):
        total[:] = 0
        for n in range(owned[g], owned[g + 1]):
            for k in range(6 + channels):
                total[k] += sums[n, k]
        if owned[g] == owned[g + 1]:  # its ellipse was never written
            d_xy[g, 0], d_xy[g, 1], d_opacity[g] = 0, 0, 0
            d_conic[g, 0], d_conic[g, 1], d_conic[g, 2] = 0, 0, 0
        else:
            a, b, c = ellipse[g, 2], ellipse[g, 3], ellipse[g, 4]
            d_xy[g, 0], d_xy[g, 1] = a * total[1] + b * total[2], b * total[1] + c * total[2]
            d_conic[g, 0], d_conic[g, 1], d_conic[g, 2] = -0.5 * total[3], -total[4], -0.5 * total[5]
            d_opacity[g] = total[0] / opacity[g]
        for k in range(channels):
            d_feature[g, k] = total[6 + k]
