# SPDX-License-Identifier: Apache-2.0
"""The loops of `hashgrid` on the CPU, and how their gradients come from one another. Letters and formulas are there.

E is `Encode`; its gradient by the points `Slope`, by the table `Write`; theirs are the three kernels again, so that a second order is
the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import as_array

PRIMES = (1, 2654435761, 805459861)
PY, PZ = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
GRAIN = 1024


class Sizes(NamedTuple):
    """Of the levels that are read: scales (A,) float64, resolutions (A,) int64; and offsets (L + 1,) int64 of all."""

    scales: np.ndarray
    resolutions: np.ndarray
    offsets: np.ndarray


class Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, sizes: Sizes) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.sizes = sizes
        return _read(points, table, None, sizes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        points, table = ctx.saved_tensors
        by_points = Slope.apply(points, table, grad, ctx.sizes) if ctx.needs_input_grad[0] else None
        by_table = Write.apply(points, grad, ctx.sizes) if ctx.needs_input_grad[1] else None
        return by_points, by_table, None


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
        ctx.save_for_backward(points, table, weights)
        ctx.sizes = sizes
        return _sloped(points, table, weights, None, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        points, table, weights = ctx.saved_tensors
        by_points = _sloped(points, table, weights, along, ctx.sizes) if ctx.needs_input_grad[0] else None
        by_table = _written(points, weights, along, ctx.sizes) if ctx.needs_input_grad[1] else None
        by_weights = _read(points, table, along, ctx.sizes) if ctx.needs_input_grad[2] else None
        return by_points, by_table, by_weights, None


class Write(torch.autograd.Function):
    """The gradient by the table, as a function of points and features' gradient."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, grad: Tensor, sizes: Sizes) -> Tensor:
        ctx.save_for_backward(points, grad)
        ctx.sizes = sizes
        return _written(points, grad, None, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_table: Tensor) -> tuple[Tensor | None, ...]:
        points, grad = ctx.saved_tensors
        by_points = _sloped(points, by_table, grad, None, ctx.sizes) if ctx.needs_input_grad[0] else None
        by_grad = _read(points, by_table, None, ctx.sizes) if ctx.needs_input_grad[1] else None
        return by_points, by_grad, None


def _read(points: Tensor, table: Tensor, along: Tensor | None, sizes: Sizes) -> Tensor:
    x, free = _inside(points)
    out = np.empty((2 * (len(sizes.offsets) - 1), len(x)), x.dtype)
    out[2 * len(sizes.scales) :] = 0
    pool.run(_read_kernel, len(x), x, _vectors(along, free, x), as_array(table), *_typed(sizes, x), out, grain=GRAIN)
    return torch.from_numpy(out).to(points.device)


def _written(points: Tensor, grad: Tensor, along: Tensor | None, sizes: Sizes) -> Tensor:
    x, free = _inside(points)
    out = np.zeros((sizes.offsets[-1], 2), x.dtype)
    pool.run(_write_kernel, len(sizes.scales), x, _vectors(along, free, x), as_array(grad), *_typed(sizes, x), out)
    return torch.from_numpy(out).to(points.device)


def _sloped(points: Tensor, table: Tensor, weights: Tensor, along: Tensor | None, sizes: Sizes) -> Tensor:
    """The slope; or with vectors `along` (N, 3), the gradient of slope . along by the points."""
    x, free = _inside(points)
    out, read = np.zeros(x.shape, x.dtype), (as_array(table), as_array(weights))
    pool.run(_slope_kernel, len(x), x, _vectors(along, free, x), *read, *_typed(sizes, x), out, grain=GRAIN)
    return torch.from_numpy(out * free).to(points.device)


def _inside(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The points, or those of the border nearest to them (0 for what is not a number); and where they move with their coordinates."""
    x = as_array(points)
    u = x.clip(0, 1)
    u[u != u] = 0
    return u, u == x


def _vectors(along: Tensor | None, free: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.zeros((0, 3), like.dtype) if along is None else as_array(along) * free


def _typed(sizes: Sizes, like: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return sizes.scales.astype(like.dtype), sizes.resolutions, sizes.offsets


# ---- kernels ----


@njit
def _place(x, scale):
    """Of a coordinate in [0, 1]: the vertex below, and the fraction beyond it."""
    p = x * scale + type(x)(0.5)
    i = np.int32(p)
    return np.uint32(i), p - type(x)(i)


@njit
def _corners(i, j, k, resolution, size, is_whole):
    """Entries of the vertices 000, 100, 010, 110, 001, 101, 011, 111 (x first)."""
    one = np.uint32(1)
    if is_whole:
        r, last = np.uint32(resolution), np.uint32(resolution - 1)
        rr = np.uint32(r * r)
        x0, x1 = i, min(np.uint32(i + one), last)
        y0, y1 = np.uint32(j * r), np.uint32(min(np.uint32(j + one), last) * r)
        z0, z1 = np.uint32(k * rr), np.uint32(min(np.uint32(k + one), last) * rr)
        return x0 + y0 + z0, x1 + y0 + z0, x0 + y1 + z0, x1 + y1 + z0, x0 + y0 + z1, x1 + y0 + z1, x0 + y1 + z1, x1 + y1 + z1
    mask = np.uint32(size - 1)
    x0, x1 = i, np.uint32(i + one)
    y0 = np.uint32(j * PY)
    y1 = np.uint32(y0 + PY)
    z0 = np.uint32(k * PZ)
    z1 = np.uint32(z0 + PZ)
    return (
        (x0 ^ y0 ^ z0) & mask,
        (x1 ^ y0 ^ z0) & mask,
        (x0 ^ y1 ^ z0) & mask,
        (x1 ^ y1 ^ z0) & mask,
        (x0 ^ y0 ^ z1) & mask,
        (x1 ^ y0 ^ z1) & mask,
        (x0 ^ y1 ^ z1) & mask,
        (x1 ^ y1 ^ z1) & mask,
    )


@njit
def _weights(fx, fy, fz):
    gx, gy, gz = type(fx)(1) - fx, type(fx)(1) - fy, type(fx)(1) - fz
    a, b, c, d = gy * gz, fy * gz, gy * fz, fy * fz
    return gx * a, fx * a, gx * b, fx * b, gx * c, fx * c, gx * d, fx * d


@njit
def _weights_along(fx, fy, fz, dx, dy, dz):
    """How fast the weights grow where the fractions grow by dx, dy, dz."""
    gx, gy, gz = type(fx)(1) - fx, type(fx)(1) - fy, type(fx)(1) - fz
    a, b, c, d = gy * gz, fy * gz, gy * fz, fy * fz
    p, q, r, s = -dy * gz - gy * dz, dy * gz - fy * dz, gy * dz - dy * fz, dy * fz + fy * dz
    return (
        gx * p - dx * a,
        fx * p + dx * a,
        gx * q - dx * b,
        fx * q + dx * b,
        gx * r - dx * c,
        fx * r + dx * c,
        gx * s - dx * d,
        fx * s + dx * d,
    )


@njit
def _read_kernel(lo, hi, x, along, table, scales, resolutions, offsets, out):
    is_along = len(along) > 0
    for level in range(len(scales)):
        scale, resolution, size = scales[level], resolutions[level], offsets[level + 1] - offsets[level]
        is_whole = resolution**3 <= size
        t = table[offsets[level] : offsets[level + 1]]
        out0, out1 = out[2 * level], out[2 * level + 1]
        for n in range(lo, hi):
            i, fx = _place(x[n, 0], scale)
            j, fy = _place(x[n, 1], scale)
            k, fz = _place(x[n, 2], scale)
            if is_along:
                w = _weights_along(fx, fy, fz, scale * along[n, 0], scale * along[n, 1], scale * along[n, 2])
            else:
                w = _weights(fx, fy, fz)
            c = _corners(i, j, k, resolution, size, is_whole)
            out0[n] = (w[0] * t[c[0], 0] + w[1] * t[c[1], 0] + w[2] * t[c[2], 0] + w[3] * t[c[3], 0]) + (
                w[4] * t[c[4], 0] + w[5] * t[c[5], 0] + w[6] * t[c[6], 0] + w[7] * t[c[7], 0]
            )
            out1[n] = (w[0] * t[c[0], 1] + w[1] * t[c[1], 1] + w[2] * t[c[2], 1] + w[3] * t[c[3], 1]) + (
                w[4] * t[c[4], 1] + w[5] * t[c[5], 1] + w[6] * t[c[6], 1] + w[7] * t[c[7], 1]
            )


@njit
def _write_kernel(lo, hi, x, along, grad, scales, resolutions, offsets, out):
    """Levels lo:hi; nobody else writes them."""
    is_along = len(along) > 0
    for level in range(lo, hi):
        scale, resolution, size = scales[level], resolutions[level], offsets[level + 1] - offsets[level]
        is_whole = resolution**3 <= size
        t = out[offsets[level] : offsets[level + 1]]
        g0, g1 = grad[2 * level], grad[2 * level + 1]
        for n in range(len(x)):
            i, fx = _place(x[n, 0], scale)
            j, fy = _place(x[n, 1], scale)
            k, fz = _place(x[n, 2], scale)
            if is_along:
                w = _weights_along(fx, fy, fz, scale * along[n, 0], scale * along[n, 1], scale * along[n, 2])
            else:
                w = _weights(fx, fy, fz)
            c = _corners(i, j, k, resolution, size, is_whole)
            u, v = g0[n], g1[n]
            _add(t, c[0], w[0], u, v)
            _add(t, c[1], w[1], u, v)
            _add(t, c[2], w[2], u, v)
            _add(t, c[3], w[3], u, v)
            _add(t, c[4], w[4], u, v)
            _add(t, c[5], w[5], u, v)
            _add(t, c[6], w[6], u, v)
            _add(t, c[7], w[7], u, v)


@njit
def _add(t, entry, weight, u, v):
    t[entry, 0] += weight * u
    t[entry, 1] += weight * v


@njit
def _slope_kernel(lo, hi, x, along, table, weights, scales, resolutions, offsets, out):
    is_along = len(along) > 0
    for level in range(len(scales)):
        scale, resolution, size = scales[level], resolutions[level], offsets[level + 1] - offsets[level]
        is_whole = resolution**3 <= size
        t = table[offsets[level] : offsets[level + 1]]
        w0, w1 = weights[2 * level], weights[2 * level + 1]
        for n in range(lo, hi):
            i, fx = _place(x[n, 0], scale)
            j, fy = _place(x[n, 1], scale)
            k, fz = _place(x[n, 2], scale)
            c = _corners(i, j, k, resolution, size, is_whole)
            u, v = w0[n], w1[n]
            v000, v100 = u * t[c[0], 0] + v * t[c[0], 1], u * t[c[1], 0] + v * t[c[1], 1]
            v010, v110 = u * t[c[2], 0] + v * t[c[2], 1], u * t[c[3], 0] + v * t[c[3], 1]
            v001, v101 = u * t[c[4], 0] + v * t[c[4], 1], u * t[c[5], 0] + v * t[c[5], 1]
            v011, v111 = u * t[c[6], 0] + v * t[c[6], 1], u * t[c[7], 0] + v * t[c[7], 1]
            gx, gy, gz = type(fx)(1) - fx, type(fx)(1) - fy, type(fx)(1) - fz
            x00, x10, x01, x11 = v100 - v000, v110 - v010, v101 - v001, v111 - v011  # along the four edges in x, by (y, z)
            if is_along:
                xy, xz = gz * (x10 - x00) + fz * (x11 - x01), gy * (x01 - x00) + fy * (x11 - x10)
                yz = gx * ((v011 - v001) - (v010 - v000)) + fx * ((v111 - v101) - (v110 - v100))
                dx, dy, dz = scale * along[n, 0], scale * along[n, 1], scale * along[n, 2]
                out[n, 0] += scale * (xy * dy + xz * dz)
                out[n, 1] += scale * (xy * dx + yz * dz)
                out[n, 2] += scale * (xz * dx + yz * dy)
            else:
                low, high = gx * v000 + fx * v100, gx * v001 + fx * v101  # at y = 0, by z; the others beside them
                low1, high1 = gx * v010 + fx * v110, gx * v011 + fx * v111
                out[n, 0] += scale * (gz * (gy * x00 + fy * x10) + fz * (gy * x01 + fy * x11))
                out[n, 1] += scale * (gz * (low1 - low) + fz * (high1 - high))
                out[n, 2] += scale * (gy * (high - low) + fy * (high1 - low1))
