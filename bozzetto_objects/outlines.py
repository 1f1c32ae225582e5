# SPDX-License-Identifier: Apache-2.0
"""Flat drawings and what is cut from a board: outlines in the plane, triangulated by ears, pulled to a solid.

Ear clipping with bridges to the holes is Meisters' theorem (1975) and Held's bridge trick, for the few dozen points a toy needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from bozzetto_objects.solids import CREASE, Array, Part, Vector, spline


def extrude(
    outline: Sequence[Vector] | Array, depth: float, holes: Sequence[Array] = (), bevel: float = 0.0, crease: float = CREASE
) -> Part:
    """A board of this outline, from z = -depth/2 to depth/2, with holes right through it and its edges bevelled."""
    loops = [_wound(np.asarray(outline, float), 1), *(_wound(np.asarray(h, float), -1) for h in holes)]
    flat = np.concatenate(loops)
    count = len(flat)
    bevel = min(bevel, 0.45 * depth)
    inner = [_inset(loop, bevel) for loop in loops] if bevel > 0 else loops
    triangles, small = triangulate(inner), np.concatenate(inner)
    levels = [(flat, -depth / 2), (flat, depth / 2)]
    if bevel > 0:
        levels = [(small, -depth / 2), (flat, bevel - depth / 2), (flat, depth / 2 - bevel), (small, depth / 2)]
    vertices = np.concatenate([np.column_stack([p, np.full(count, z)]) for p, z in levels])
    size = max(np.ptp(flat, axis=0).max(), depth)
    heights = np.cumsum([0.0, *(np.hypot(bevel * (a is not b), zb - za) for (a, za), (b, zb) in itertools.pairwise(levels))])
    last = (len(levels) - 1) * count
    cap = flat[triangles] / size
    faces, uvs = [triangles[:, ::-1], triangles + last], [cap[:, ::-1], cap]
    offset = 0
    for loop in loops:
        n = len(loop)
        j = np.arange(n)
        run = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.roll(loop, -1, 0) - loop, axis=1))]) / size
        for k in range(len(levels) - 1):
            a, b = k * count + offset + j, k * count + offset + (j + 1) % n
            c, d = b + count, a + count
            low, high = np.full(n, heights[k] / size), np.full(n, heights[k + 1] / size)
            pa, pb, pc, pd = (np.stack(q, 1) for q in ((run[:-1], low), (run[1:], low), (run[1:], high), (run[:-1], high)))
            faces += [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
            uvs += [np.stack([pa, pb, pc], 1), np.stack([pa, pc, pd], 1)]
        offset += n
    return Part(vertices, np.concatenate(faces), np.concatenate(uvs), crease)


def triangulate(loops: Sequence[Array]) -> Array:
    """Triangles (F, 3) into the loops laid end to end: the first is the outline, counter-clockwise; holes run the other way."""
    points = np.concatenate(loops)
    starts = np.cumsum([0, *(len(loop) for loop in loops)])
    ring = list(range(len(loops[0])))
    for k in sorted(range(1, len(loops)), key=lambda k: -float(loops[k][:, 0].max())):
        hole = np.arange(starts[k], starts[k + 1])
        hole = np.roll(hole, -int(np.argmax(points[hole, 0])))
        at = _bridge(points, ring, hole, loops)
        ring = [*ring[: at + 1], *hole.tolist(), int(hole[0]), *ring[at:]]
    return np.array(_ears(points.tolist(), ring), np.int64)


def _bridge(points: Array, ring: list[int], hole: Array, loops: Sequence[Array]) -> int:
    """The place in the ring that sees the hole's first point: the nearest one whose line of sight crosses no edge."""
    h = points[hole[0]]
    edges = np.concatenate([np.stack([loop, np.roll(loop, -1, 0)], 1) for loop in loops])
    for at in np.argsort(np.linalg.norm(points[ring] - h, axis=1), kind="stable"):
        if ring.count(ring[at]) > 1:  # already a bridge: two places, of which one is the wrong side
            continue
        q = points[ring[at]]
        a, b = edges[:, 0], edges[:, 1]
        crosses = (_side(h, q, a) * _side(h, q, b) < -1e-12) & (_side(a, b, h) * _side(a, b, q) < -1e-12)
        if not crosses.any():
            return int(at)
    raise AssertionError("triangulate: the loops cross")  # a point between loops that do not cross sees one of them


def _side(a: Array, b: Array, c: Array) -> Array:
    """Twice the signed area of a, b, c."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])


def _ears(p: list[list[float]], ring: list[int]) -> list[tuple[int, int, int]]:
    """Cut ears off until a triangle is left; plain floats, because numpy is slow on triples."""
    out, ring, i, idle = [], list(ring), 0, 0
    while len(ring) > 3:
        n = len(ring)
        i %= n
        a, b, c = ring[i - 1], ring[i], ring[(i + 1) % n]
        (ax, ay), (bx, by), (cx, cy) = p[a], p[b], p[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        is_ear = area > 1e-12 or idle > n
        if is_ear and idle <= n:
            for k in ring:
                x, y = p[k]
                if (x, y) in ((ax, ay), (bx, by), (cx, cy)):
                    continue
                if (
                    (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
                    and (cx - bx) * (y - by) - (cy - by) * (x - bx) >= 0
                    and (ax - cx) * (y - cy) - (ay - cy) * (x - cx) >= 0
                ):
                    is_ear = False
                    break
        if is_ear:
            out.append((a, b, c))
            ring.pop(i)
            idle = 0
            i += 1  # skip one: fans of slivers from one corner are avoided
        else:
            idle += 1
            i += 1
    return [*out, (ring[0], ring[1], ring[2])]


def _wound(loop: Array, sign: int) -> Array:
    """The loop without repeated points, counter-clockwise for sign 1, clockwise for -1."""
    loop = loop[np.abs(loop - np.roll(loop, 1, 0)).max(1) > 1e-7]
    x, y = loop.T
    area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return loop if area * sign > 0 else loop[::-1]


def _inset(loop: Array, d: float) -> Array:
    """The loop moved inwards by d at its edges; spikes are held back."""
    edge = np.roll(loop, -1, 0) - loop
    edge = edge / np.maximum(np.linalg.norm(edge, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-edge[:, 1], edge[:, 0]], 1)
    bisector = normal + np.roll(normal, 1, 0)
    scale = np.maximum((bisector**2).sum(1, keepdims=True), 0.6) / 2
    return loop + d * bisector / scale


# ---- drawings ----


def arc(r: float, start: float, stop: float, n: int = 10, x: float = 0.0, y: float = 0.0) -> Array:
    """(n, 2) points on a circle about (x, y), from angle to angle."""
    a = np.linspace(start, stop, n)
    return np.stack([x + r * np.cos(a), y + r * np.sin(a)], 1)


def star(points: int, outer: float, inner: float) -> Array:
    """A star with one point up."""
    a = np.pi / 2 + np.pi * np.arange(2 * points) / points
    r = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([r * np.cos(a), r * np.sin(a)], 1)


def heart(size: float, n: int = 28) -> Array:
    """A heart about the origin, `size` wide."""
    t = 2 * np.pi * np.arange(n) / n
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y], 1)[::-1] * size / 32


def smooth(points: Sequence[Vector] | Array, n: int = 32) -> Array:
    """A closed smooth outline through the given points."""
    return spline(points, n, closed=True)


def gear(teeth: int, outer: float, inner: float) -> Array:
    """A cog wheel."""
    a = 2 * np.pi * np.arange(4 * teeth) / (4 * teeth)
    r = np.where(np.isin(np.arange(4 * teeth) % 4, (0, 1)), outer, inner)
    return np.stack([r * np.cos(a), r * np.sin(a)], 1)
