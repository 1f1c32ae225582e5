# SPDX-License-Identifier: Apache-2.0
"""Which ellipses touch which tiles of the picture, from near to far.

Kerbl et al. 2023 (arXiv:2308.04079), Sec. 6. Differs from the released code: the N depths are sorted once and tiles are filled in that
order, instead of sorting all (tile, Gaussian) pairs; boxes are exact for the least alpha that is drawn, where 3 sigma cut visible rims.
"""

from __future__ import annotations

import numpy as np

from bozzetto.kernels.pool import njit

TILE = 16  # pixels on a side


def depth_order(depth: np.ndarray) -> np.ndarray:
    """Indices (N,) int32 from near to far, the lower first among equals; depth (N,) >= 0."""
    if depth.dtype == np.float32:
        return _radix(depth.view(np.uint32))
    return np.argsort(depth, kind="stable").astype(np.int32)


@njit
def _radix(key):
    """Stable, 11 bits at a time: bits of a float that is not negative sort as the float does."""
    n = len(key)
    order, other = np.arange(n).astype(np.int32), np.empty(n, np.int32)
    for shift in (0, 11, 22):
        count = np.zeros(2049, np.int64)
        for i in range(n):
            count[((key[i] >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
        for b in range(2048):
            count[b + 1] += count[b]
        for i in range(n):
            g = order[i]
            b = (key[g] >> np.uint32(shift)) & np.uint32(2047)
            other[count[b]] = g
            count[b] += 1
        order, other = other, order
    return order


@njit
def boxes(lo, hi, xy, conic, opacity, min_alpha, h, w, ellipse, box):
    """What the lanes read of each Gaussian: p, a, b, c, o, the power at which alpha is min_alpha, b / a; and its box in pixels.

    The half-widths sqrt(2 ln(o / min_alpha) cov) are exact; one pixel more costs little and forgives rounding.
    """
    for i in range(lo, hi):
        box[i, 0], box[i, 1], box[i, 2], box[i, 3] = 0, 0, 0, 0
        a, b, c, o = np.float64(conic[i, 0]), np.float64(conic[i, 1]), np.float64(conic[i, 2]), np.float64(opacity[i])
        det = a * c - b * b
        if not (a > 0 and det > 0 and o >= min_alpha and o > 0):
            continue
        x, y = np.float64(xy[i, 0]), np.float64(xy[i, 1])
        cut = np.log(min_alpha / o) if min_alpha > 0 else -np.inf
        rx, ry = np.sqrt(-2 * cut * c / det), np.sqrt(-2 * cut * a / det)
        x_lo, x_hi, y_lo, y_hi = max(x - rx - 0.5, 0.0), min(x + rx + 0.5, w), max(y - ry - 0.5, 0.0), min(y + ry + 0.5, h)
        if not (x_lo < x_hi and y_lo < y_hi):  # also when not a number
            continue
        box[i, 0], box[i, 1], box[i, 2], box[i, 3] = int(x_lo), int(np.ceil(x_hi)), int(y_lo), int(np.ceil(y_hi))
        ellipse[i, 0], ellipse[i, 1], ellipse[i, 2], ellipse[i, 3] = x, y, a, b
        ellipse[i, 4], ellipse[i, 5], ellipse[i, 6], ellipse[i, 7] = c, o, cut, b / a


@njit
def fill_tiles(box, order, across, down):
    """Each tile's Gaussians from near to far, items[start[t]:start[t + 1]], and the slots of their sums; those of Gaussian g
    are owned[g]:owned[g + 1]."""
    n = len(box)
    start, owned = np.zeros(across * down + 1, np.int64), np.zeros(n + 1, np.int64)
    for g in range(n):
        if box[g, 1] > box[g, 0]:
            for ty in range(box[g, 2] // TILE, (box[g, 3] - 1) // TILE + 1):
                for tx in range(box[g, 0] // TILE, (box[g, 1] - 1) // TILE + 1):
                    start[ty * across + tx + 1] += 1
                    owned[g + 1] += 1
    for g in range(n):
        owned[g + 1] += owned[g]
    for t in range(across * down):
        start[t + 1] += start[t]
    fill = start[:-1].copy()
    items, slots = np.empty(start[-1], np.int32), np.empty(start[-1], np.int32)
    for k in range(n):
        g = order[k]
        if box[g, 1] > box[g, 0]:
            slot = owned[g]
            for ty in range(box[g, 2] // TILE, (box[g, 3] - 1) // TILE + 1):
                for tx in range(box[g, 0] // TILE, (box[g, 1] - 1) // TILE + 1):
                    t = ty * across + tx
                    items[fill[t]], slots[fill[t]] = g, slot
                    fill[t] += 1
                    slot += 1
    return start, items, slots, owned
