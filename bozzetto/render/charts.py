# SPDX-License-Identifier: Apache-2.0
"""Charts by projection along six axes, packed under a skyline: an unwrap whose time is linear in the faces.

The fallback of `unwrap` for surfaces too large for xatlas. A face goes to the axis nearest its normal, its neighbours
having a say, so stretch is bounded by 1 / LEAST; a chart grows over neighbours with the same axis until a face would
cover a sample that the chart covers already, so that no chart overlaps itself, spirals and folds included.

Letters: s texels per unit; a sample is a texel centre, or one of 3 x 3 in a texel.
"""

from __future__ import annotations

import numpy as np

from bozzetto.kernels.pool import njit

GAP = 3  # texels between the boxes of two charts, and MARGIN at the border: bilinear lookup reaches one texel out
MARGIN = 2
LEAST = 0.3  # smallest cosine between a face and its chart's axis
NEIGHBOUR = 0.35  # what a neighbour's vote is worth, in cosines; found by counting charts on a noisy surface
ROUNDS = 12  # of voting
GRID = 6144  # samples along one side of the occupancy picture, at most

# (6, 2, 3): rows u and v of each projection, with u x v = the axis it looks along
_FRAMES = np.array([[np.roll([1.0, 0, 0], k + 1), np.roll([s, 0, 0], k + 2)] for k in range(3) for s in (1.0, -1.0)])
_AXES = np.cross(_FRAMES[:, 0], _FRAMES[:, 1])


def project(vertices: np.ndarray, faces: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Cut, project and pack.

    vertices  (N, 3), faces (F, 3), closed or not
    returns   which vertex each new one is (M,), the new faces (F, 3) int64, uv (M, 2) float32, and whether GAP was kept
    """
    p = vertices.astype(np.float64)
    label = _label(p, faces)
    neighbour = _neighbours(faces, len(p))
    flat = np.einsum("fij,fkj->fki", _FRAMES[label], p[faces])  # (F, 3 corners, 2)
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(7))
    low = np.stack([flat[label == d].reshape(-1, 2).min(0) if (label == d).any() else np.zeros(2) for d in range(6)])
    flat -= low[label][:, None]  # from 0: texel lines of all charts of an axis coincide
    u, v = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    extent = max(float(flat.max()), 1e-12)
    ideal = np.sqrt(0.75 * resolution**2 / max(float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum()) / 2, 1e-9 * extent**2))
    ideal = min(ideal, (resolution - 2 * MARGIN - 1) / extent * 4, GRID / extent)
    side, s = resolution, ideal
    while True:
        fine = 3 if 3 * s * extent + 3 <= GRID else 1
        size = int(np.ceil(fine * s * extent)) + 2
        chart = np.full(len(faces), -1, np.int64)
        count = _grow(flat * (fine * s), neighbour, label, order, starts, np.full((size, size), -1, np.int32), chart)
        lo, hi = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        np.minimum.at(lo, chart, flat.min(1) * s)
        np.maximum.at(hi, chart, flat.max(1) * s)
        lo = np.floor(lo)
        box = (np.ceil(hi) - lo).astype(np.int64) + GAP
        corner, height = _pack(box, np.lexsort((np.arange(count), -box[:, 0], -box[:, 1])), side - 2 * MARGIN + GAP)
        if 0 <= height <= side - 2 * MARGIN + GAP:
            break
        s *= 0.8 if height < 0 else max(0.5, 0.985 * np.sqrt(side / height))
        if s < 0.3 * ideal * side / resolution:  # dust: thousands of charts, all gap
            side, s = 2 * side, 0.6 * ideal * 2 * side / resolution
    uv = (flat * s - lo[chart][:, None] + corner[chart][:, None] + MARGIN) / side
    key, first, index = np.unique(faces.ravel() * count + np.repeat(chart, 3), return_index=True, return_inverse=True)
    return key // count, index.reshape(-1, 3), uv.reshape(-1, 2)[first].astype(np.float32), side == resolution


def _label(p: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) axis of each face: by its normal, then by votes of its neighbours; never one it turns away from."""
    normal = np.cross(p[faces[:, 1]] - p[faces[:, 0]], p[faces[:, 2]] - p[faces[:, 0]])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    cosine = np.where(length > 0, normal / np.where(length > 0, length, 1), 1.0) @ _AXES.T
    neighbour = _neighbours(faces, len(p))
    label = cosine.argmax(1)
    for _ in range(ROUNDS):
        voters = np.where(neighbour >= 0, label[neighbour], -1)
        votes = (voters[:, :, None] == np.arange(6)).sum(1)
        label = np.where(cosine > LEAST, cosine + NEIGHBOUR * votes, cosine - 9).argmax(1)
    return label


def _neighbours(faces: np.ndarray, n: int) -> np.ndarray:
    """(F, 3) face across edge (k, k + 1), or -1."""
    a, b = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel().astype(np.int64)
    there = a * n + b
    order = np.argsort(there, kind="stable")
    at = np.searchsorted(there[order], b * n + a).clip(max=len(order) - 1)
    found = there[order[at]] == b * n + a
    return np.where(found, order[at] // 3, -1).reshape(-1, 3)


@njit
def _grow(flat, neighbour, label, order, starts, taken, chart):
    """Fills `chart` (F,), breadth first from the lowest face; `flat` (F, 3, 2) in samples. Returns the number of charts."""
    count = 0
    refused = np.full(len(chart), -1, np.int64)
    queue = np.empty(len(chart), np.int64)
    for d in range(6):
        for o in range(starts[d], starts[d + 1]):
            if chart[order[o]] >= 0:
                continue
            queue[0] = order[o]
            chart[order[o]] = count
            _claim(flat, order[o], taken, count)
            first, last = 0, 1
            while first < last:
                f = queue[first]
                first += 1
                for k in range(3):
                    g = neighbour[f, k]
                    if g < 0 or chart[g] >= 0 or label[g] != d or refused[g] == count:
                        continue
                    if _claim(flat, g, taken, count):
                        chart[g] = count
                        queue[last] = g
                        last += 1
                    else:
                        refused[g] = count
            count += 1
    return count


@njit
def _claim(flat, f, taken, owner):
    """Mark the samples strictly inside face f; False, and nothing marked, if one is the owner's already."""
    x0, y0, x1, y1, x2, y2 = flat[f, 0, 0], flat[f, 0, 1], flat[f, 1, 0], flat[f, 1, 1], flat[f, 2, 0], flat[f, 2, 1]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    sign = 1.0 if area > 0 else -1.0
    eps = 1e-9 * len(taken)  # a sample on a shared edge belongs to neither side
    rows = range(max(0, int(np.ceil(min(y0, y1, y2) - 0.5))), min(len(taken) - 1, int(np.floor(max(y0, y1, y2) - 0.5))) + 1)
    columns = range(max(0, int(np.ceil(min(x0, x1, x2) - 0.5))), min(len(taken) - 1, int(np.floor(max(x0, x1, x2) - 0.5))) + 1)
    for mark in range(2):
        for r in rows:
            y = r + 0.5
            for c in columns:
                x = c + 0.5
                if (
                    sign * ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) > eps
                    and sign * ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) > eps
                    and sign * ((x0 - x2) * (y - y2) - (x - x2) * (y0 - y2)) > eps
                ):
                    if mark == 1:
                        taken[r, c] = owner
                    elif taken[r, c] == owner:
                        return False
    return True


@njit
def _pack(box, order, width):
    """Corners (C, 2) of boxes (C, 2) = (width, height), each in turn where the skyline is lowest, leftmost among equals;
    and the height reached, -1 if a box is too wide."""
    sky = np.zeros(width, np.int64)
    corner = np.zeros(box.shape, np.int64)
    top = 0
    for n in order:
        w, h = box[n, 0], box[n, 1]
        if w > width:
            return corner, -1
        best, at = -1, 0
        x = 0
        while x + w <= width:
            y, wall = 0, 0
            for i in range(x, x + w):
                if sky[i] >= y:
                    y, wall = sky[i], i
            if best < 0 or y < best:
                best, at = y, x
            # no start up to the highest column can be lower, unless that column is the first
            x = max(x + 1, wall + 1) if y >= best else x + 1
        corner[n, 0], corner[n, 1] = at, best
        sky[at : at + w] = best + h
        top = max(top, best + h)
    return corner, top
