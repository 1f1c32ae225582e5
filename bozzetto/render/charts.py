# SPDX-License-Identifier: Apache-2.0
"""Charts of an atlas: projected along six axes, kept from overlapping, packed under a skyline. Linear in the faces.

`project` flattens surfaces that are too large for xatlas: a face goes to the axis nearest its normal, its neighbours
having a say, so stretch is bounded by 1 / LEAST. `lay_out` makes an atlas of any flattening: a chart grows over
neighbours until a face would cover a sample that the chart covers already, so that no chart overlaps itself (projected
spirals do, and now and then a chart of xatlas), and lands where the skyline lets it sink deepest.

Letters: s texels per unit; a sample is a texel centre, or one of 3 x 3 in a texel.
"""

from __future__ import annotations

import numpy as np

from bozzetto.kernels.pool import njit

GAP = 3  # texels between two charts, and MARGIN at the border: bilinear lookup reaches one texel out on either side
MARGIN = 2
LEAST = 0.3  # smallest cosine between a face and its chart's axis
NEIGHBOUR = 0.35  # what a neighbour's vote is worth, in cosines
ROUNDS = 12  # of voting
GRID = 6144  # samples along one side of the occupancy picture, at most

# (6, 2, 3): rows u and v of each projection, with u x v = the axis it looks along
_FRAMES = np.array([[np.roll([1.0, 0, 0], k + 1), np.roll([s, 0, 0], k + 2)] for k in range(3) for s in (1.0, -1.0)])
_AXES = np.cross(_FRAMES[:, 0], _FRAMES[:, 1])


def project(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat corners (F, 3, 2) in object units and the axis of each face (F,), 0 to 5."""
    p = vertices.astype(np.float64)
    normal = np.cross(p[faces[:, 1]] - p[faces[:, 0]], p[faces[:, 2]] - p[faces[:, 0]])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    cosine = np.where(length > 0, normal / np.where(length > 0, length, 1), 1.0) @ _AXES.T
    neighbour = _neighbours(faces, len(p))
    label = cosine.argmax(1)
    for _ in range(ROUNDS):
        voters = np.where(neighbour >= 0, label[neighbour], -1)
        score = np.where(cosine > LEAST, cosine, cosine - 9)  # never an axis that the face turns away from
        for k in range(3):
            score += NEIGHBOUR * (voters[:, k, None] == np.arange(6))
        label = score.argmax(1)
    return np.einsum("fij,fkj->fki", _FRAMES[label], p[faces]), label


def lay_out(flat: np.ndarray, faces: np.ndarray, label: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Charts of connected faces with one label, free of overlap, in one square.

    flat     (F, 3, 2) corners in a plane of each label's own, object units
    faces    (F, 3) which corners are one vertex: charts part where they do not share two
    returns  the old vertex of each new one (M,), new faces (F, 3) int64, uv (M, 2) float32, and whether GAP was kept
    """
    neighbour = _neighbours(faces, int(faces.max()) + 1)
    order = np.argsort(label, kind="stable")
    low = np.full((int(label.max()) + 1, 2), np.inf)
    np.minimum.at(low, label, flat.min(1))
    flat = flat - low[label][:, None]  # from 0: texel lines of all charts of a label coincide
    u, v = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    extent = max(float(flat.max()), 1e-12)
    area = max(float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum()) / 2, 1e-9 * extent**2)
    ideal = min(np.sqrt(0.8 * resolution**2 / area), GRID / extent)
    side, s = resolution, ideal
    while True:
        fine = 3 if 3 * s * extent + 3 <= GRID else 1
        size = int(np.ceil(fine * s * extent)) + 2
        chart = np.full(len(faces), -1, np.int64)
        count = _grow(flat * (fine * s), neighbour, label, order, np.full((size, size), -1, np.int32), chart)
        lo, hi = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        np.minimum.at(lo, chart, flat.min(1) * s)
        np.maximum.at(hi, chart, flat.max(1) * s)
        lo = np.floor(lo)
        box = (np.floor(hi) - lo).astype(np.int64) + 1
        tall_first = np.lexsort((np.arange(count), -box[:, 0], -box[:, 1]))
        placed = flat * s - lo[chart][:, None]
        room = side - 2 * MARGIN + GAP  # the last column of gaps may lie in the margin
        corner, height = _pack(placed, chart, box, tall_first, room)
        if 0 <= height <= room:
            break
        s *= 0.8 if height < 0 else max(0.7, 0.99 * np.sqrt(room / height))
        if s < 0.3 * ideal * side / resolution:  # dust: thousands of charts, nearly all gap; a third of it must do
            side, s = 3 * side, 1.5 * ideal * side / resolution
    uv = (placed + corner[chart][:, None] + MARGIN) / side
    key, first, index = np.unique(faces.ravel() * count + np.repeat(chart, 3), return_index=True, return_inverse=True)
    return key // count, index.reshape(-1, 3), uv.reshape(-1, 2)[first].astype(np.float32), side == resolution


def _neighbours(faces: np.ndarray, n: int) -> np.ndarray:
    """(F, 3) face across edge (k, k + 1), or -1."""
    a, b = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel().astype(np.int64)
    there = a * n + b
    order = np.argsort(there, kind="stable")
    at = np.searchsorted(there[order], b * n + a).clip(max=len(order) - 1)
    found = there[order[at]] == b * n + a
    return np.where(found, order[at] // 3, -1).reshape(-1, 3)


@njit
def _grow(flat, neighbour, label, order, taken, chart):
    """Fills `chart` (F,), breadth first from the first face in `order` that is free; `flat` (F, 3, 2) in samples. Returns
    the number of charts."""
    count = 0
    refused = np.full(len(chart), -1, np.int64)
    queue = np.empty(len(chart), np.int64)
    for seed in order:
        if chart[seed] >= 0:
            continue
        queue[0] = seed
        chart[seed] = count
        _claim(flat, seed, taken, count)
        first, last = 0, 1
        while first < last:
            f = queue[first]
            first += 1
            for k in range(3):
                g = neighbour[f, k]
                if g < 0 or chart[g] >= 0 or label[g] != label[f] or refused[g] == count:
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
    """Mark the samples inside face f; False, and nothing marked, if one is the owner's already."""
    lo_r, hi_r = _span(flat[f, 0, 1], flat[f, 1, 1], flat[f, 2, 1], len(taken))
    lo_c, hi_c = _span(flat[f, 0, 0], flat[f, 1, 0], flat[f, 2, 0], len(taken))
    for mark in range(2):
        for r in range(lo_r, hi_r):
            for c in range(lo_c, hi_c):
                if _inside(flat, f, c + 0.5, r + 0.5):
                    if mark == 1:
                        taken[r, c] = owner
                    elif taken[r, c] == owner:
                        return False
    return True


@njit
def _span(a, b, c, size):
    """Samples between the least and the greatest of three coordinates."""
    return max(0, int(np.ceil(min(a, min(b, c)) - 0.5))), min(size - 1, int(np.floor(max(a, max(b, c)) - 0.5))) + 1


@njit
def _inside(flat, f, x, y):
    """Strictly: float32 coordinates over thousands of samples carry 1e-3 of one; nearer an edge than that is on it."""
    x0, y0, x1, y1, x2, y2 = flat[f, 0, 0], flat[f, 0, 1], flat[f, 1, 0], flat[f, 1, 1], flat[f, 2, 0], flat[f, 2, 1]
    sign = 1.0 if (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0) > 0 else -1.0
    return (
        sign * ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) > 1e-3 * (abs(x1 - x0) + abs(y1 - y0))
        and sign * ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) > 1e-3 * (abs(x2 - x1) + abs(y2 - y1))
        and sign * ((x0 - x2) * (y - y2) - (x - x2) * (y0 - y2)) > 1e-3 * (abs(x0 - x2) + abs(y0 - y2))
    )


@njit
def _profile(flat, chart, start, bottom, top):
    """First row of each chart's columns, and the one past the last: columns of chart c at start[c]."""
    for f in range(len(flat)):
        base = start[chart[f]]
        for k in range(3):
            xa, ya, xb, yb = flat[f, k, 0], flat[f, k, 1], flat[f, (k + 1) % 3, 0], flat[f, (k + 1) % 3, 1]
            if xa > xb:
                xa, ya, xb, yb = xb, yb, xa, ya
            slope = (yb - ya) / (xb - xa) if xb > xa else 0.0
            for c in range(int(np.floor(xa)), int(np.floor(xb)) + 1):
                y0 = ya + slope * (max(xa, float(c)) - xa)
                y1 = ya + slope * (min(xb, c + 1.0) - xa) if xb > xa else yb
                bottom[base + c] = min(bottom[base + c], int(np.floor(min(y0, y1))))
                top[base + c] = max(top[base + c], int(np.floor(max(y0, y1))) + 1)


@njit
def _pack(flat, chart, box, order, width):
    """Corners (C, 2) of charts inside boxes (C, 2) = (columns, rows), each in turn as low as the skyline lets it, leftmost
    among equals, with GAP to its right and above; and the height reached, -1 if one is too wide."""
    count = len(box)
    start = np.zeros(count + 1, np.int64)
    for c in range(count):
        start[c + 1] = start[c] + box[c, 0]
    bottom, top = np.full(start[count], 1 << 30), np.zeros(start[count], np.int64)
    _profile(flat, chart, start, bottom, top)
    sky = np.zeros(width, np.int64)
    corner = np.zeros((count, 2), np.int64)
    low, high = np.empty(width, np.int64), np.empty(width, np.int64)
    height = 0
    for n in order:
        w = box[n, 0] + GAP
        if w > width:
            return corner, -1
        for i in range(w):
            low[i], high[i] = 1 << 30, 0
            for j in range(max(0, i - GAP), min(i, box[n, 0] - 1) + 1):
                low[i], high[i] = min(low[i], bottom[start[n] + j]), max(high[i], top[start[n] + j])
        best, at = 1 << 30, 0
        for x in range(width - w + 1):
            y = 0
            for i in range(w):
                y = max(y, sky[x + i] - low[i])
                if y >= best:
                    break
            if y < best:
                best, at = y, x
        corner[n, 0], corner[n, 1] = at, best
        for i in range(w):
            sky[at + i] = best + high[i] + GAP
            height = max(height, sky[at + i])
    return corner, height
