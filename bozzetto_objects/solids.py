# SPDX-License-Identifier: Apache-2.0
"""Closed solids to model with: nearly all are lofts, that is, rings of points joined side by side and shut at both ends.

Every solid is watertight by construction: each edge belongs to two faces that run through it in opposite directions, and
faces are counter-clockwise from outside. Texture coordinates are one unit round a ring and one along the loft; a `Sketch`
measures how long that unit is when it lays a pattern on. Normals are found there too, from the crease angle of each part,
so that parts can be bent and stretched freely here.

Letters: M rings, N points a ring or vertices, F faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

CREASE = np.radians(50.0)  # a cylinder of 8 sides (45 degrees) is smooth, one of 6 is a prism
Array = np.ndarray
Vector = Sequence[float] | Array


@dataclass(frozen=True)
class Part:
    """One closed solid.

    vertices  (N, 3) float64
    faces     (F, 3) int64, counter-clockwise from outside
    uv        (F, 3, 2) float64
    crease    edges that turn by more than this many radians stay sharp
    """

    vertices: Array
    faces: Array
    uv: Array
    crease: float = CREASE

    def move(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        """Shifted."""
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def scale(self, x: float, y: float | None = None, z: float | None = None) -> Part:
        """Stretched about the origin by positive factors; one number stretches all axes."""
        factors = np.array([x, x if y is None else y, x if z is None else z])
        return replace(self, vertices=self.vertices * factors)

    def turn(self, axis: str, angle: float) -> Part:
        """Turned about the x, y or z axis, counter-clockwise seen from its tip."""
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        c, s = np.cos(angle), np.sin(angle)
        v = self.vertices.copy()
        v[:, i] = c * self.vertices[:, i] - s * self.vertices[:, j]
        v[:, j] = s * self.vertices[:, i] + c * self.vertices[:, j]
        return replace(self, vertices=v)

    def aim(self, direction: Vector) -> Part:
        """Turned the short way so that its own z axis points along `direction`."""
        x, y, z = np.asarray(direction, float) / np.linalg.norm(direction)
        return self.turn("y", np.arccos(np.clip(z, -1, 1))).turn("z", np.arctan2(y, x)) if abs(x) + abs(y) > 1e-9 or z < 0 else self

    def aim_x(self, direction: Vector) -> Part:
        """Turned the short way so that its own x axis points along `direction`."""
        x, y, z = np.asarray(direction, float) / np.linalg.norm(direction)
        return self.turn("y", -np.arcsin(np.clip(z, -1, 1))).turn("z", np.arctan2(y, x))

    def mirror(self, axis: str = "y") -> Part:
        """Reflected, with its faces turned the right way out again."""
        v = self.vertices.copy()
        v[:, "xyz".index(axis)] *= -1
        return replace(self, vertices=v, faces=self.faces[:, ::-1], uv=self.uv[:, ::-1])

    def warp(self, f: Callable[..., Array]) -> Part:
        """Each vertex moved by `f`, (N, 3) to (N, 3)."""
        return replace(self, vertices=f(self.vertices))

    def taper(self, top: float, top_y: float | None = None) -> Part:
        """Cross-sections scaled linearly from 1 at the bottom to `top` (and `top_y` along y) at the top."""
        v = self.vertices
        t = (v[:, 2] - v[:, 2].min()) / max(np.ptp(v[:, 2]), 1e-9)
        y = top if top_y is None else top_y
        return replace(self, vertices=np.stack([v[:, 0] * (1 + (top - 1) * t), v[:, 1] * (1 + (y - 1) * t), v[:, 2]], 1))

    def rest(self, z: float = 0.0) -> Part:
        """Shifted up or down so that its lowest point is at z."""
        return self.move(z=z - float(self.vertices[:, 2].min()))

    def facing(self) -> Part:
        """A drawing in (x, y) with depth z, stood up to face +x: seen from the front, x is to the right and y up."""
        return replace(self, vertices=self.vertices[:, [2, 0, 1]])

    def upright(self) -> Part:
        """A side view in (x, y) with depth z, stood up: x stays, y becomes up, depth runs along the world's y."""
        return self.turn("x", np.pi / 2)

    def faceted(self) -> Part:
        """All edges sharp."""
        return replace(self, crease=0.01)

    @property
    def centres(self) -> Array:
        """(F, 3), middle of each face's longest edge: the same for both halves of a quad, so that paint ends along the mesh."""
        v = self.vertices[self.faces]
        ends = np.roll(v, -1, 1)
        longest = np.argmax(((ends - v) ** 2).sum(2), 1)
        i = np.arange(len(v))
        return (v[i, longest] + ends[i, longest]) / 2

    @property
    def outward(self) -> Array:
        """(F, 3), unit normals of the faces."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        n = np.cross(b - a, c - a)
        return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-20)

    @property
    def top(self) -> float:
        """Highest z."""
        return float(self.vertices[:, 2].max())


# ---- curves and sections ----


def spline(points: Sequence[Vector] | Array, n: int = 16, closed: bool = False) -> Array:
    """n points along a smooth curve (Catmull-Rom) through the given (M, D) points."""
    p = np.asarray(points, float)
    m = len(p)
    t = np.linspace(0, m if closed else m - 1, n, endpoint=not closed)
    i = np.minimum(t.astype(int), m - 1 if closed else max(m - 2, 0))
    f = (t - i)[:, None]
    if closed:
        a, b, c, d = (p[(i + k) % m] for k in (-1, 0, 1, 2))
    else:
        q = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        a, b, c, d = (q[i + k] for k in range(4))
    return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))


def fillet(points: Sequence[Vector] | Array, radius: float, steps: int = 4, closed: bool = False) -> Array:
    """A polyline with its corners rounded off, as a bent wire is."""
    p = np.asarray(points, float)
    m, out = len(p), []
    for i in range(m):
        if not closed and i in (0, m - 1):
            out.append(p[i : i + 1])
            continue
        back, ahead = p[i - 1] - p[i], p[(i + 1) % m] - p[i]
        a, b = float(np.linalg.norm(back)), float(np.linalg.norm(ahead))
        r = min(radius, 0.45 * a, 0.45 * b)
        t = np.linspace(0, 1, steps + 1)[:, None]
        start, stop = p[i] + back * (r / a), p[i] + ahead * (r / b)
        out.append((1 - t) ** 2 * start + 2 * t * (1 - t) * p[i] + t**2 * stop)
    return np.concatenate(out)


def circle(n: int = 16, power: float = 2.0, phase: float = 0.0) -> Array:
    """(n, 2) section of radius 1, counter-clockwise; with power above 2 it nears a square, below 2 a diamond."""
    a = 2 * np.pi * np.arange(n) / n + phase
    c, s = np.cos(a), np.sin(a)
    r = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    return np.stack([r * c, r * s], 1)


def rectangle(a: float = 1.0, b: float = 1.0, radius: float = 0.0, steps: int = 2) -> Array:
    """(N, 2) section with half sides a and b, its corners rounded in so many steps; sharp corners have one point each."""
    steps = steps if radius > 0 else 0
    t = np.linspace(0, np.pi / 2, steps + 1) if steps else np.array([np.pi / 4])
    arcs = [np.stack([np.cos(t + k * np.pi / 2), np.sin(t + k * np.pi / 2)], 1) * radius for k in range(4)]
    signs = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    return np.concatenate([arc + np.array([sx * (a - radius), sy * (b - radius)]) for arc, (sx, sy) in zip(arcs, signs, strict=True)])


# ---- lofts ----


def loft(rings: Array, start: Vector | None = None, end: Vector | None = None, closed: bool = False, crease: float = CREASE) -> Part:
    """Rings (M, N, 3) joined into a solid.

    rings       each counter-clockwise seen from where the loft goes to
    start, end  the apex that closes the first and last ring; None lays a flat lid on it
    closed      the last ring meets the first and there are no ends
    """
    rings = np.asarray(rings, float)
    m, n = rings.shape[:2]
    i, j = np.arange(m if closed else m - 1)[:, None], np.arange(n)[None]
    i2, j2 = (i + 1) % m, (j + 1) % n
    a, b, c, d = (x.ravel() for x in np.broadcast_arrays(i * n + j, i * n + j2, i2 * n + j2, i2 * n + j))
    around = np.linalg.norm(np.roll(rings, -1, 1) - rings, axis=2).mean(0)
    along = np.linalg.norm(np.roll(rings, -1, 0) - rings, axis=2).mean(1)[: len(i)]
    perimeter, length = max(around.sum(), 1e-9), max(along.sum(), 1e-9)
    u = np.concatenate([[0.0], np.cumsum(around)]) / perimeter
    v = np.concatenate([[0.0], np.cumsum(along)]) / length
    ua, va = (x.ravel() for x in np.broadcast_arrays(u[j], v[i]))
    ub, vd = (x.ravel() for x in np.broadcast_arrays(u[j + 1], v[i + 1]))
    pa, pb, pc, pd = np.stack([ua, va], 1), np.stack([ub, va], 1), np.stack([ub, vd], 1), np.stack([ua, vd], 1)
    faces = [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    uvs = [np.stack([pa, pb, pc], 1), np.stack([pa, pc, pd], 1)]
    vertices = [rings.reshape(-1, 3)]
    for apex, ring, first, v0, sign in () if closed else ((start, rings[0], 0, 0.0, -1), (end, rings[-1], (m - 1) * n, 1.0, 1)):
        tip = ring.mean(0) if apex is None else np.asarray(apex, float)
        one, two = first + j.ravel(), first + j2.ravel()
        centre = np.full(n, m * n + len(vertices) - 1)
        vertices.append(tip[None])
        if apex is None:
            flat = _plane(ring) / np.array([perimeter, length])
            p1, p2, p0 = flat, np.roll(flat, -1, 0), np.zeros((n, 2))
        else:
            reach = sign * np.linalg.norm(ring - tip, axis=1).mean() / length
            p1, p2 = np.stack([u[:-1], np.full(n, v0)], 1), np.stack([u[1:], np.full(n, v0)], 1)
            p0 = np.stack([(u[:-1] + u[1:]) / 2, np.full(n, v0 + reach)], 1)
        faces.append(np.stack([centre, one, two] if sign > 0 else [centre, two, one], 1))
        uvs.append(np.stack([p0, p1, p2] if sign > 0 else [p0, p2, p1], 1))
    return Part(np.concatenate(vertices), np.concatenate(faces), np.concatenate(uvs), crease)


def _plane(ring: Array) -> Array:
    """Coordinates (N, 2) of a flat ring about its middle, along its longer side first."""
    p = ring - ring.mean(0)
    spans = np.ptp(p, axis=0)
    keep = [k for k in np.argsort(-spans, kind="stable")[:2]]
    return p[:, sorted(keep)]


def box(x: float, y: float, z: float, radius: float = 0.0, steps: int = 2) -> Part:
    """A block about the origin, its edges rounded; the grain of its texture runs along its longest side."""
    axis = int(np.argmax([x, y, z]))
    a, b, h = (np.array([x, y, z])[[(axis + 1) % 3, (axis + 2) % 3, axis]]) / 2
    radius = min(radius, 0.499 * 2 * min(a, b, h))
    t = np.linspace(0.06, np.pi / 2, steps + 1) if radius > 0 else np.array([np.pi / 2])
    inset, rise = radius * (1 - np.sin(t)), h - radius + radius * np.cos(t)
    half = [
        np.column_stack([rectangle(a - k, b - k, max(radius - k, 0.02 * radius), steps), np.full(4 * (steps + 1 if radius > 0 else 1), w)])
        for k, w in zip(inset, rise, strict=True)
    ]
    rings = np.stack([np.column_stack([r[:, :2], -r[:, 2]]) for r in half] + half[::-1])
    part = loft(rings, crease=CREASE)
    order = [2, 0, 1] if axis == 0 else [1, 2, 0] if axis == 1 else [0, 1, 2]  # loft axes (y, z, x), (z, x, y) or (x, y, z)
    return replace(part, vertices=part.vertices[:, order])


def ellipsoid(x: float, y: float, z: float, n: int = 20, power: float = 2.0, power_z: float = 2.0) -> Part:
    """A superellipsoid with these half axes: power 2 is round, 4 a cushion, 8 nearly a block, 1.3 a soft diamond."""
    m = max(n // 2, 4)
    lat = np.linspace(-np.pi / 2, np.pi / 2, m + 1)[1:-1]
    c, s = np.cos(lat), np.sin(lat)
    r = (np.abs(c) ** power_z + np.abs(s) ** power_z) ** (-1 / power_z)
    section = circle(n, power)
    xy = section[None] * (r * c)[:, None, None] * np.array([x, y])
    rings = np.concatenate([xy, np.broadcast_to((z * r * s)[:, None, None], (len(lat), n, 1))], 2)
    return loft(rings, (0, 0, -z), (0, 0, z))


def revolve(profile: Sequence[Vector] | Array, n: int = 24, power: float = 2.0, crease: float = CREASE) -> Part:
    """A profile of (radius, height) points turned about z, from the bottom outwards and up; the ends close on the axis."""
    p = np.asarray(profile, float)
    start = end = None
    if p[0, 0] < 1e-6:
        start = None if abs(p[0, 1] - p[1, 1]) < 1e-6 else (0, 0, p[0, 1])
        p = p[1:]
    if p[-1, 0] < 1e-6:
        end = None if abs(p[-1, 1] - p[-2, 1]) < 1e-6 else (0, 0, p[-1, 1])
        p = p[:-1]
    xy = circle(n, power)[None] * p[:, None, :1]
    return loft(np.concatenate([xy, np.broadcast_to(p[:, None, 1:], (len(p), n, 1))], 2), start, end, crease=crease)


def hollow(outer: Sequence[Vector] | Array, wall: float, floor: float | None = None) -> Array:
    """The profile of an open vessel: `outer` (radius, height) from the foot to the rim, then its inside, `wall` away."""
    p = np.asarray(outer, float)
    t = np.gradient(p, axis=0)
    normal = np.stack([t[:, 1], -t[:, 0]], 1) / np.maximum(np.linalg.norm(t, axis=1), 1e-9)[:, None]
    inner = p - wall * normal
    low = p[0, 1] + (wall if floor is None else floor)
    first = np.interp(low, inner[:, 1], inner[:, 0])
    inner = inner[(inner[:, 1] > low + 1e-6) & (inner[:, 0] > 1e-3)]
    lip = (p[-1] + inner[-1]) / 2 + 0.4 * wall * np.array([0, 1])
    inner[:, 0] = np.maximum(inner[:, 0], 2e-3)
    base = [] if p[0, 0] < 1e-6 else [[0.0, p[0, 1]]]
    return np.concatenate([np.reshape(base, (-1, 2)), p, [lip], inner[::-1], [[0.92 * first, low], [0.0, low]]])


def cylinder(r: float, h: float, r_top: float | None = None, n: int = 20, radius: float = 0.0) -> Part:
    """A can or cone from z = -h/2 to h/2, its rims rounded by `radius`; `r_top` 0 makes a tip."""
    top = r if r_top is None else r_top
    if radius > 0:
        radius = min(radius, 0.49 * h, 0.9 * r, 0.9 * top)
        t = np.linspace(0, np.pi / 2, 4)
        low = np.stack([r - radius + radius * np.sin(t), -h / 2 + radius - radius * np.cos(t)], 1)
        high = np.stack([top - radius + radius * np.cos(t), h / 2 - radius + radius * np.sin(t)], 1)
        return revolve(np.concatenate([[[0, -h / 2]], low, high, [[0, h / 2]]]), n)
    ends = [[top, h / 2], [0, h / 2]] if top > 1e-6 else [[0.0, h / 2]]
    return revolve([[0, -h / 2], [r, -h / 2], *ends], n)


def torus(r: float, tube: float, n: int = 24, sides: int = 10) -> Part:
    """A ring round z."""
    a = 2 * np.pi * np.arange(n) / n
    return sweep(np.stack([r * np.cos(a), r * np.sin(a), 0 * a], 1), tube, circle(sides), closed=True)


def sweep(
    path: Sequence[Vector] | Array,
    radius: float | Vector,
    section: Array | int = 10,
    closed: bool = False,
    ends: str = "flat",
    up: Vector | None = None,
) -> Part:
    """A section carried along a path.

    path     (M, 3), at least two points
    radius   one number, (M,), or (M, 2): the section's scale, across and along `up`
    section  (N, 2) about the origin, counter-clockwise, or the number of sides of a circle
    ends     flat, round or point
    up       where the section's second axis points; without it the section is carried along with least twist
    """
    p = np.asarray(path, float)
    r = np.asarray(radius, float)
    r = np.broadcast_to(r if r.ndim == 2 else r.reshape(-1, 1), (len(p), 2))
    s = circle(section) if isinstance(section, int) else section
    start = end = None
    if closed:
        t = np.roll(p, -1, 0) - np.roll(p, 1, 0)
    else:
        if ends != "flat":
            p, r, start, end = _shut(p, r, ends)
        t = np.gradient(p, axis=0)
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    e2 = np.empty_like(t)
    if up is not None:
        e2[:] = np.asarray(up, float) - (t @ np.asarray(up, float))[:, None] * t
    else:
        axis = np.eye(3)[np.argmin(np.abs(t).max(0))]
        for k, d in enumerate(t):
            axis = axis - (axis @ d) * d
            axis = axis / np.linalg.norm(axis)
            e2[k] = axis
    e2 /= np.maximum(np.linalg.norm(e2, axis=1, keepdims=True), 1e-9)
    e1 = np.cross(e2, t)
    rings = p[:, None] + (s[None, :, :1] * r[:, None, :1]) * e1[:, None] + (s[None, :, 1:] * r[:, None, 1:]) * e2[:, None]
    return loft(rings, start, end, closed)


def _shut(p: Array, r: Array, ends: str) -> tuple[Array, Array, Array, Array]:
    """Path and radii with half a ball, or a blunt tip, added at both ends, and the two apexes."""
    t0, t1 = p[0] - p[1], p[-1] - p[-2]
    t0, t1 = t0 / np.linalg.norm(t0), t1 / np.linalg.norm(t1)
    a = np.radians([30.0, 60.0]) if ends == "round" else np.radians([20.0])
    r0, r1 = float(r[0].min()), float(r[-1].min())
    head = p[0] + t0 * (r0 * np.sin(a[::-1]))[:, None]
    tail = p[-1] + t1 * (r1 * np.sin(a))[:, None]
    path = np.concatenate([head, p, tail])
    radii = np.concatenate([r[0] * np.cos(a[::-1])[:, None], r, r[-1] * np.cos(a)[:, None]])
    return path, radii, p[0] + t0 * r0, p[-1] + t1 * r1


def rod(a: Vector, b: Vector, r: float, r_end: float | None = None, sides: int = 10, ends: str = "flat") -> Part:
    """A round bar from a to b."""
    return sweep([a, b], [r, r if r_end is None else r_end], sides, ends=ends)


def limb(points: Sequence[Vector], radii: Sequence[float], n: int = 10, sides: int = 10) -> Part:
    """A smooth round limb through points with these radii."""
    curve = spline(np.column_stack([np.asarray(points, float), radii]), n)
    return sweep(curve[:, :3], np.maximum(curve[:, 3], 0.004), sides, ends="round")


def beam(a: Vector, b: Vector, width: float, height: float, up: Vector = (0, 0, 1), radius: float = 0.0, taper: float = 1.0) -> Part:
    """A squared bar from a to b: `height` along `up`, `width` across; `radius` is a share of the half side."""
    r = np.array([[width / 2, height / 2]]) * np.array([[1.0], [taper]])
    return sweep([a, b], r, rectangle(1, 1, radius), up=up)


def blob(rng: np.random.Generator, r: float, rough: float = 0.2, n: int = 20, waves: int = 5) -> Part:
    """A ball with smooth bumps: `rough` is their height as a share of the radius."""
    part = ellipsoid(r, r, r, n)
    d = part.vertices / r
    k = rng.normal(size=(waves, 3)) * 2.2
    bump = np.sin(d @ k.T + rng.uniform(0, 2 * np.pi, waves)).sum(1) / np.sqrt(waves)
    return replace(part, vertices=part.vertices * (1 + rough * bump)[:, None])


def both(part: Part, axis: str = "y") -> list[Part]:
    """The part and its mirror image."""
    return [part, part.mirror(axis)]


def four(part: Part) -> list[Part]:
    """The part and its images in the other three quarters of the plan."""
    return [q for p in both(part, "y") for q in both(p, "x")]


def around(part: Part, count: int, phase: float = 0.0) -> list[Part]:
    """Copies turned evenly about z."""
    return [part.turn("z", phase + 2 * np.pi * k / count) for k in range(count)]
