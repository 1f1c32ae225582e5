# SPDX-License-Identifier: Apache-2.0
"""Cars, and the wheels and cabins that other vehicles share. They travel towards +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import arc, extrude
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    Part,
    around,
    beam,
    both,
    box,
    cylinder,
    ellipsoid,
    fillet,
    loft,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)

LIGHT, REAR = mat.plain(mat.rgb("fff3c4"), "cream"), mat.plain(mat.rgb("c4161c"), "red")


def wheel(rng: Rng, r: float, w: float) -> Sketch:
    """A wheel about the origin that rolls along x; its outer side is at +y."""
    s = Sketch("wheel")
    tyre, rim = pick(rng, (mat.DARK, mat.BLACK, mat.painted(rng)), (5, 3, 1)), pick(rng, (mat.metal, mat.painted))(rng)
    q = rng.uniform(0.5, 0.78) * r
    soft = min(0.3 * w, 0.2 * r)
    profile = [
        (0, -w / 2),
        (r - soft, -w / 2),
        (r, soft - w / 2),
        (r, w / 2 - soft),
        (r - soft, w / 2),
        (q, w / 2),
        (0.96 * q, 0.3 * w),
        (0, 0.3 * w),
    ]
    s.add(revolve(profile, 24), tyre, (lambda p: (np.hypot(*p.centres[:, :2].T) < 0.9 * q) & (p.centres[:, 2] > 0), rim))
    kind = pick(rng, ("dish", "spokes", "flat"))
    if kind == "dish":
        s.add(revolve([(0, 0.3 * w), (0.9 * q, 0.3 * w), (0.5 * q, 0.5 * w), (0.3 * q, 0.46 * w), (0, 0.46 * w)], 16), rim)
    elif kind == "spokes":
        s.add(around(box(0.85 * q, 0.22 * q, 0.2 * w).move(0.45 * q, 0, 0.38 * w), int(rng.integers(4, 8))), rim)
        s.add(cylinder(0.28 * q, 0.26 * w, n=12).move(z=0.38 * w), rim)
    else:
        s.add(cylinder(0.35 * q, 0.25 * w, n=12, radius=0.05 * w).move(z=0.4 * w), rim)
    out = Sketch("wheel")
    out.merge(s, lambda p: p.turn("x", -np.pi / 2))
    return out


def axles(s: Sketch, one: Sketch, xs: list[float], y: float, z: float) -> None:
    """A pair of wheels at each x."""
    for x in xs:
        s.merge(one, lambda p, x=x: p.move(x, y, z))
        s.merge(one, lambda p, x=x: p.move(0, y, 0).mirror("y").move(x, 0, z))


def _arched(top: list[tuple[float, float]], low: float, xs: list[float], r: float, width: float, bevel: float) -> Part:
    """A body from its upper side line (back to front, (x, z)), with round cuts over the wheels at xs along its lower edge z = low."""
    edge = [np.array([[top[-1][0], low]])]
    for x in sorted(xs, reverse=True):
        edge.append(arc(r, 0, np.pi, 9, x, low))
    edge.append(np.array([[top[0][0], low]]))
    outline = np.concatenate([np.asarray(top), *edge])
    return extrude(outline[::-1], width, bevel=bevel).upright()


def cabin(x0: float, x1: float, top0: float, top1: float, z0: float, z1: float, w0: float, w1: float, round_: float = 0.25) -> Part:
    """A cabin from z0 to z1 whose plan shrinks from [x0, x1] x w0 to [top0, top1] x w1."""
    rings = []
    for t in (0.0, 0.14, 0.86, 1.0, 1.03):
        q = min(t, 1.0)
        a, b, w = x0 + (top0 - x0) * q, x1 + (top1 - x1) * q, (w0 + (w1 - w0) * q) / 2
        shrink = 0.04 * w * (t > 1)
        xy = rectangle((b - a) / 2 - shrink, w - shrink, round_ * w, 3) + np.array([(a + b) / 2, 0])
        rings.append(np.column_stack([xy, np.full(len(xy), z0 + (z1 - z0) * t)]))
    return loft(np.stack(rings))


def panes(part: Part, z0: float, z1: float, pane: Material) -> tuple:
    """Glass on the upright faces of a cabin between the heights, with body-coloured corners."""

    def test(p: Part) -> Array:
        z = p.vertices[p.faces][..., 2]
        tall = z1 - z0
        size = np.linalg.norm(p.vertices[p.faces[:, 1]] - p.vertices[p.faces[:, 0]], axis=1)
        flat = np.maximum(np.abs(p.outward[:, 0]), np.abs(p.outward[:, 1])) > 0.72 * np.hypot(p.outward[:, 0], p.outward[:, 1])
        aligned = np.minimum(np.abs(p.outward[:, 0]), np.abs(p.outward[:, 1])) < 0.12
        return (z.min(1) > z0 + 0.1 * tall) & (z.max(1) < z0 + 0.9 * tall) & flat & aligned & (size > 0)

    return test, pane


def car(rng: Rng) -> Sketch:
    """Saloon, hatchback, estate, beetle, coupe, van, pick-up, jeep, racing car; toy-like or long."""
    kind = pick(rng, ("saloon", "hatchback", "estate", "beetle", "coupe", "van", "pick-up", "jeep", "racing car"))
    s = Sketch("car" if kind in ("saloon", "hatchback", "estate", "beetle", "coupe") else kind)
    paint = pick(rng, (mat.plastic, mat.painted, mat.metal, mat.wood, mat.printed), (6, 3, 1, 0.5, 0.4))(rng)
    pane, trim = mat.glass(rng), mat.metal(rng)
    length, w = rng.uniform(1.7, 2.5), rng.uniform(0.8, 1.05)
    r = rng.uniform(0.19, 0.29)
    if kind == "racing car":
        return _racer(rng, s, length, w, r, paint)
    half, clear = length / 2, rng.uniform(0.55, 0.9) * r
    belt = r * 2 + rng.uniform(0.12, 0.25)
    front, back = half - rng.uniform(1.5, 1.9) * r, -half + rng.uniform(1.5, 1.9) * r
    hood, deck = belt - rng.uniform(0.0, 0.1), belt - rng.uniform(0.0, 0.06)
    nose = rng.uniform(0.02, 0.14)
    if kind == "van":
        hood = belt
    if kind == "beetle":
        t = np.linspace(0, 1, 9)
        top = [(-half + length * q, clear + (belt - clear) * np.sin(np.pi * np.clip(q, 0.1, 0.9)) ** 0.4) for q in t]
    else:
        top = [
            (-half, clear),
            (-half - 0.02, 0.6 * clear + 0.4 * belt),
            (-half + 0.04, deck),
            (-0.1 * half, belt),
            (0.35 * half, belt - 0.02),
            (half - nose, hood - 0.04),
            (half, 0.5 * (clear + hood)),
            (half - 0.02, clear),
        ]
    body = _arched(top, clear, [front, back], 1.15 * r, w, rng.uniform(0.012, 0.03))
    bulge = rng.uniform(0.0, 0.12)
    s.add(body.warp(lambda v: v * np.column_stack([np.ones(len(v)), 1 - bulge * (v[:, 0] / half) ** 4, np.ones(len(v))])), paint)
    rise, w1 = rng.uniform(0.3, 0.45), rng.uniform(0.74, 0.9) * w
    x0, x1, t0, t1 = {
        "saloon": (-0.62, 0.36, -0.42, 0.1),
        "hatchback": (-0.94, 0.4, -0.78, 0.12),
        "estate": (-0.96, 0.34, -0.88, 0.1),
        "beetle": (-0.75, 0.42, -0.4, 0.2),
        "coupe": (-0.8, 0.22, -0.35, -0.05),
        "van": (-0.98, 0.9, -0.96, 0.62),
        "pick-up": (-0.2, 0.4, -0.16, 0.16),
        "jeep": (-0.92, 0.28, -0.9, 0.22),
    }[kind]
    if kind == "van":
        rise *= 1.6
    house = cabin(
        x0 * half,
        x1 * half,
        t0 * half,
        t1 * half,
        belt - 0.05,
        belt + rise,
        0.96 * w,
        w1,
        0.5 if kind == "beetle" else rng.uniform(0.12, 0.35),
    )
    open_top = kind in ("coupe", "jeep") and chance(rng, 0.35)
    if open_top:
        s.add(box(0.03, 0.8 * w, 0.7 * rise, 0.01).turn("y", -0.4).move(x1 * half - 0.1, 0, belt + 0.3 * rise), pane)
        for x in (-0.45, 0.0):
            s.add(both(box(0.1, 0.3 * w, 0.32, 0.04).move(x * half, 0.22 * w, belt + 0.1)), mat.leather(rng) if x else trim)
        s.add(torus(0.1, 0.02, 16, 6).turn("y", -1.0).move(0.12 * half, 0.22 * w, belt + 0.1), mat.DARK)
        if kind == "jeep":
            s.add(
                sweep(
                    fillet(
                        [
                            (-0.5 * half, -0.4 * w, belt),
                            (-0.5 * half, -0.4 * w, belt + rise),
                            (-0.5 * half, 0.4 * w, belt + rise),
                            (-0.5 * half, 0.4 * w, belt),
                        ],
                        0.1,
                    ),
                    0.025,
                    8,
                ),
                trim,
            )
    else:
        s.add(house, paint if chance(rng, 0.75) else mat.painted(rng), panes(house, belt - 0.05, belt + rise, pane))
        posts = (0.45,) if kind not in ("van", "estate") else (0.3, 0.65) if kind == "estate" else (0.72,)
        for q in posts:
            x, x_top = (x0 + (x1 - x0) * q) * half, (t0 + (t1 - t0) * q) * half
            s.add(both(beam((x, 0.48 * w, belt), (x_top, w1 / 2, belt + 0.95 * rise), 0.04, 0.02, up=(0, 1, 0))), paint)
        if kind == "van":
            s.add(
                both(
                    box(1.15 * half, 0.02, 0.62 * rise)
                    .turn("x", np.arctan2((w - w1) / 2, rise))
                    .move(-0.36 * half, (0.96 * w + w1) / 4, belt + 0.48 * rise)
                ),
                paint,
            )
    if kind == "pick-up":
        s.add(box(0.72 * half, 0.8 * w, 0.04).move(-0.6 * half, 0, belt + 0.01), mat.DARK)
        s.add(both(box(0.78 * half, 0.05, 0.14, 0.01).move(-0.6 * half, w / 2 - 0.05, belt + 0.06)), paint)
        s.add(box(0.04, 0.9 * w, 0.14, 0.01).move(-half + 0.05, 0, belt + 0.06), paint)
    z = 0.45 * clear + 0.55 * hood
    round_light = chance(rng, 0.6)
    lamp = ellipsoid(0.05, rng.uniform(0.06, 0.09), 0.07, 12) if round_light else box(0.06, rng.uniform(0.12, 0.22), 0.08, 0.02)
    s.add(both(lamp.move(half - 0.03 - 0.5 * bulge * 0.1, rng.uniform(0.3, 0.36) * w, z)), LIGHT)
    s.add(both(box(0.05, 0.12, 0.09, 0.015).move(-half + 0.01, 0.35 * w, z)), REAR)
    if chance(rng, 0.8):
        s.add(
            [box(0.09, 0.92 * w, 0.08, 0.03).move(k * (half + 0.01), 0, clear + 0.07) for k in (-1, 1)],
            trim if chance(rng, 0.6) else mat.DARK,
        )
    if chance(rng, 0.6):
        s.add(box(0.04, rng.uniform(0.25, 0.45) * w, 0.1, 0.01).move(half - 0.005, 0, z - 0.01), mat.DARK)
    if chance(rng, 0.6):
        s.add(both(box(0.06, 0.1, 0.07, 0.02).move(x1 * half * 0.75, 0.54 * w, belt + 0.05)), paint)
    if chance(rng, 0.12):
        s.add(box(0.2, 0.4, 0.09, 0.02).move((t0 + t1) / 2 * half, 0, belt + rise + 0.06), pick(rng, (LIGHT, mat.plain(mat.rgb("1b78d0")))))
    elif kind in ("estate", "jeep", "van") and not open_top and chance(rng, 0.4):
        s.add(both(rod((t0 * half + 0.1, 0.3 * w, belt + rise + 0.05), (t1 * half, 0.3 * w, belt + rise + 0.05), 0.02)), mat.DARK)
        s.add(
            [rod((x * half, -0.34 * w, belt + rise + 0.05), (x * half, 0.34 * w, belt + rise + 0.05), 0.018) for x in (t0 * 0.7, t1 * 0.3)],
            mat.DARK,
        )
    if chance(rng, 0.15):
        s.add(both(box(0.8 * length, 0.02, 0.06).move(0, w / 2 - 0.005, 0.5 * (clear + belt) + 0.1)), mat.painted(rng))
    if kind == "jeep" and chance(rng, 0.7):
        s.merge(wheel(rng, 0.85 * r, 0.14), lambda p: p.turn("z", np.pi / 2).move(-half - 0.06, 0, belt))
    axles(s, wheel(rng, r, rng.uniform(0.14, 0.22)), [front, back], w / 2 - 0.06, r)
    return s


def _racer(rng: Rng, s: Sketch, length: float, w: float, r: float, paint: Material) -> Sketch:
    """An open-wheeled racing car: cigar body, wings, driver's head."""
    half, trim = length / 2, mat.painted(rng)
    x = np.array([-half, -0.6 * half, -0.1 * half, 0.3 * half, 0.8 * half, half])
    path = spline(np.stack([x, 0 * x, r * np.array([1.2, 1.25, 1.2, 1.1, 0.9, 0.75])], 1), 18)
    size = spline(np.stack([np.array([0.12, 0.24, 0.26, 0.2, 0.12, 0.06]) * w * 1.2, np.array([0.1, 0.2, 0.19, 0.15, 0.08, 0.05])], 1), 18)
    s.add(sweep(path, size, rectangle(1, 1, 0.6, 3), ends="round", up=(0, 0, 1)), paint)
    s.add(ellipsoid(0.25 * half, 0.14 * w, 0.08, 16).move(0.05 * half, 0, 1.2 * r + 0.17), mat.DARK)
    s.add(ellipsoid(0.1, 0.09, 0.11, 14).move(-0.02 * half, 0, 1.2 * r + 0.28), trim)
    s.add(box(0.3 * half, 0.12 * w, 0.3, 0.06).taper(0.5).move(-0.3 * half, 0, 1.2 * r + 0.2), paint)
    if chance(rng, 0.8):
        s.add(box(0.2, 0.8 * w, 0.03, 0.01).move(-0.95 * half, 0, 3 * r), trim)
        s.add(both(box(0.24, 0.03, 0.25, 0.01).move(-0.95 * half, 0.4 * w, 2.8 * r)), paint)
        s.add(rod((-0.9 * half, 0, r), (-0.95 * half, 0, 3 * r), 0.03), paint)
    if chance(rng, 0.8):
        s.add(box(0.16, 0.95 * w, 0.03, 0.01).move(0.98 * half, 0, 0.6 * r), trim)
    s.add([rod((x * half, -w / 2, 1.1 * r), (x * half, w / 2, 1.1 * r), 0.025) for x in (0.68, -0.62)], mat.DARK)
    axles(s, wheel(rng, 1.1 * r, 0.22), [-0.62 * half], w / 2, 1.1 * r)
    axles(s, wheel(rng, r, 0.17), [0.68 * half], w / 2, r)
    return s
