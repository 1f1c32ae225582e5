# SPDX-License-Identifier: Apache-2.0
"""Where to look along rays: steps through the occupied cells of a box, and finer ones where most is to be seen. No gradients.

Occupancy as in Müller et al. 2022 (arXiv:2201.05989), Sec. E; finer steps by inverting a distribution along the ray as in Mildenhall et
al. 2020 (arXiv:2003.08934), Sec. 5.2, which NeuS (arXiv:2106.10689) does, too. Letters: R rays o + t d, |d| = 1; S steps a ray at
most; n cells an axis.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import as_array

GRAIN = 64
NEARLY_ALL = 0.999


def march(
    origins: Tensor, directions: Tensor, occupied: Tensor, lower: Tensor, upper: Tensor, step: float, most: int, offset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Equal steps through a box, those whose middles are in occupied cells.

    origins, directions  (R, 3); unit directions
    occupied      (nx, ny, nz) bool, over the box from `lower` to `upper` (3,)
    step          length of a step; longer on a ray that would have more than `most` of them
    offset        (R,) in [0, 1): where in the first step of the box the lattice of middles begins
    returns       middles t (R, S) float32, ascending, 0 beyond their count; the steps' length on each ray (R,); and counts (R,) int64
    """
    o, d = as_array(origins, np.float64), as_array(directions, np.float64)
    low, high = as_array(lower, np.float64), as_array(upper, np.float64)
    t, width, count = np.zeros((len(o), most), np.float32), np.zeros(len(o), np.float32), np.zeros(len(o), np.int64)
    cells = as_array(occupied).view(np.uint8)
    pool.run(_march, len(o), o, d, cells, low, high, float(step), as_array(offset, np.float64), t, width, count, grain=GRAIN)
    made = (torch.from_numpy(x).to(origins.device) for x in (t, width, count))
    return next(made), next(made), next(made)


def resample(weights: Tensor, t: Tensor, width: Tensor, count: Tensor, shares: Tensor, spare: float) -> Tensor:
    """Ends of finer steps: the places along each ray before which given shares of its weight lie; and the one behind nearly all of it.

    Without the last one, a section might begin within a surface and end behind the object, and so take it for half transparent.

    weights  (R, S) >= 0, of steps with middles t (R, S), on each ray of length `width` (R,) and `count` (R,) many, at least one
    shares   (R, n), ascending in [0, 1]
    spare    of the weight, in [0, 1]: spread evenly over all steps; all of it where the weights are 0
    returns  (R, n + 1) float32, ascending
    """
    w = as_array(weights, np.float32)
    out = np.empty((len(w), shares.shape[1] + 1), np.float32)
    arrays = as_array(t), as_array(width), as_array(count), as_array(shares, np.float32)
    pool.run(_resample, len(w), w, *arrays, float(spare), out, grain=GRAIN)
    return torch.from_numpy(out).to(weights.device)


@njit
def _march(lo, hi, origins, directions, occupied, lower, upper, step, offset, t, width, count):
    most = t.shape[1]
    o, d, away, forth = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for r in range(lo, hi):
        near, far = 0.0, np.inf
        for a in range(3):  # in cells from here on
            size = (upper[a] - lower[a]) / occupied.shape[a]
            o[a], d[a] = (origins[r, a] - lower[a]) / size, directions[r, a] / size
            forth[a] = 1.0 if d[a] > 0 else 0.0
            if abs(directions[r, a]) < 1e-12:
                away[a] = np.inf
                if not 0 <= o[a] <= occupied.shape[a]:
                    far = -1.0
                continue
            away[a] = 1 / d[a]
            first, second = -o[a] * away[a], (occupied.shape[a] - o[a]) * away[a]
            near, far = max(near, min(first, second)), min(far, max(first, second))
        if not near < far < np.inf:
            continue
        h = step
        found = _walk(o, d, away, forth, occupied, near, far, h, offset[r], t[r])
        while found > most:
            h *= 1.01 * found / most
            found = _walk(o, d, away, forth, occupied, near, far, h, offset[r], t[r])
        width[r], count[r] = h, found


@njit
def _walk(o, d, away, forth, occupied, near, far, h, offset, t):
    """How many middles near + (k + offset) h before `far` are in occupied cells; those that t has room for are written there."""
    nx, ny, nz = occupied.shape
    k, found, most = 0.0, 0, len(t)
    while True:
        at = near + (k + offset) * h
        if not at < far:
            return found
        x, y, z = o[0] + at * d[0], o[1] + at * d[1], o[2] + at * d[2]
        i, j, m = min(max(int(x), 0), nx - 1), min(max(int(y), 0), ny - 1), min(max(int(z), 0), nz - 1)
        if occupied[i, j, m]:
            if found < most:
                t[found] = at
            found += 1
            k += 1
        else:
            leave = at + min((i + forth[0] - x) * away[0], (j + forth[1] - y) * away[1], (m + forth[2] - z) * away[2])
            k = max(k + 1, np.ceil((leave - near) / h - offset))


@njit
def _resample(lo, hi, weights, t, width, count, shares, spare, out):
    last = shares.shape[1]
    for r in range(lo, hi):
        n, h = count[r], width[r]
        half = np.float32(0.5) * h
        total = np.float32(0)
        for s in range(n):
            total += weights[r, s]
        even = np.float32((spare if total > 0 else 1.0) / n)
        scale = np.float32((1.0 - spare) / total) if total > 0 else np.float32(0)
        s, before = 0, np.float32(0)
        own = weights[r, 0] * scale + even
        for q in range(last):
            u = shares[r, q]
            while before + own < u and s < n - 1:
                before += own
                s += 1
                own = weights[r, s] * scale + even
            within = min((u - before) / own, np.float32(1)) if own > 0 else np.float32(0)
            out[r, q] = t[r, s] + h * within - half
        s, passed = 0, weights[r, 0]
        while passed < np.float32(NEARLY_ALL) * total and s < n - 1:
            s += 1
            passed += weights[r, s]
        q, at = last, t[r, s] + half
        while q > 0 and out[r, q - 1] > at:
            out[r, q] = out[r, q - 1]
            q -= 1
        out[r, q] = at
