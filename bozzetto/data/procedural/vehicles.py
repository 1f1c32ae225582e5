# SPDX-License-Identifier: Apache-2.0
"""What drives on land: car, truck, bus, train, bicycle, tractor. They travel towards +x."""

from __future__ import annotations

import numpy as np

from bozzetto.data.procedural import materials as mat
from bozzetto.data.procedural.materials import Material
from bozzetto.data.procedural.outlines import arc, extrude
from bozzetto.data.procedural.sketch import Sketch, chance, pick
from bozzetto.data.procedural.solids import (
    Array, Part, around, beam, both, box, cylinder, ellipsoid, fillet, hollow, loft, rectangle, revolve, rod, spline, sweep, torus,
)

Rng = np.random.Generator
LIGHT, REAR = mat.plain(mat.rgb("fff3c4"), "cream"), mat.plain(mat.rgb("c4161c"), "red")


def wheel(rng: Rng, r: float, w: float) -> Sketch:
    """A wheel about the origin that rolls along x; its outer side is at +y."""
    s = Sketch("wheel")
    tyre, rim = pick(rng, (mat.DARK, mat.BLACK, mat.painted(rng)), (5, 3, 1)), pick(rng, (mat.metal, mat.painted))(rng)
    q = rng.uniform(0.5, 0.78) * r
    soft = min(0.3 * w, 0.2 * r)
    profile = [(0, -w / 2), (r - soft, -w / 2), (r, soft - w / 2), (r, w / 2 - soft), (r - soft, w / 2), (q, w / 2), (0.96 * q, 0.3 * w), (0, 0.3 * w)]
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


def _house(x0: float, x1: float, top0: float, top1: float, z0: float, z1: float, w0: float, w1: float, round_: float = 0.25) -> Part:
    """A cabin from z0 to z1 whose plan shrinks from [x0, x1] x w0 to [top0, top1] x w1."""
    rings = []
    for t in (0.0, 0.14, 0.86, 1.0, 1.03):
        q = min(t, 1.0)
        a, b, w = x0 + (top0 - x0) * q, x1 + (top1 - x1) * q, (w0 + (w1 - w0) * q) / 2
        shrink = 0.04 * w * (t > 1)
        xy = rectangle((b - a) / 2 - shrink, w - shrink, round_ * w, 3) + np.array([(a + b) / 2, 0])
        rings.append(np.column_stack([xy, np.full(len(xy), z0 + (z1 - z0) * t)]))
    return loft(np.stack(rings))


def _panes(part: Part, z0: float, z1: float, pane: Material) -> tuple:
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
        top = [(-half, clear), (-half - 0.02, 0.6 * clear + 0.4 * belt), (-half + 0.04, deck), (-0.1 * half, belt), (0.35 * half, belt - 0.02),
               (half - nose, hood - 0.04), (half, 0.5 * (clear + hood)), (half - 0.02, clear)]
    body = _arched(top, clear, [front, back], 1.15 * r, w, rng.uniform(0.012, 0.03))
    bulge = rng.uniform(0.0, 0.12)
    s.add(body.warp(lambda v: v * np.column_stack([np.ones(len(v)), 1 - bulge * (v[:, 0] / half) ** 4, np.ones(len(v))])), paint)
    rise, w1 = rng.uniform(0.3, 0.45), rng.uniform(0.74, 0.9) * w
    x0, x1, t0, t1 = {
        "saloon": (-0.62, 0.36, -0.42, 0.1), "hatchback": (-0.94, 0.4, -0.78, 0.12), "estate": (-0.96, 0.34, -0.88, 0.1), "beetle": (-0.75, 0.42, -0.4, 0.2),
        "coupe": (-0.8, 0.22, -0.35, -0.05), "van": (-0.98, 0.9, -0.96, 0.62), "pick-up": (-0.2, 0.4, -0.16, 0.16), "jeep": (-0.92, 0.28, -0.9, 0.22),
    }[kind]
    if kind == "van":
        rise *= 1.6
    house = _house(x0 * half, x1 * half, t0 * half, t1 * half, belt - 0.05, belt + rise, 0.96 * w, w1, 0.5 if kind == "beetle" else rng.uniform(0.12, 0.35))
    open_top = kind in ("coupe", "jeep") and chance(rng, 0.35)
    if open_top:
        s.add(box(0.03, 0.8 * w, 0.7 * rise, 0.01).turn("y", -0.4).move(x1 * half - 0.1, 0, belt + 0.3 * rise), pane)
        for x in (-0.45, 0.0):
            s.add(both(box(0.1, 0.3 * w, 0.32, 0.04).move(x * half, 0.22 * w, belt + 0.1)), mat.leather(rng) if x else trim)
        s.add(torus(0.1, 0.02, 16, 6).turn("y", -1.0).move(0.12 * half, 0.22 * w, belt + 0.1), mat.DARK)
        if kind == "jeep":
            s.add(sweep(fillet([(-0.5 * half, -0.4 * w, belt), (-0.5 * half, -0.4 * w, belt + rise), (-0.5 * half, 0.4 * w, belt + rise), (-0.5 * half, 0.4 * w, belt)], 0.1), 0.025, 8), trim)
    else:
        s.add(house, paint if chance(rng, 0.75) else mat.painted(rng), _panes(house, belt - 0.05, belt + rise, pane))
        posts = (0.45,) if kind not in ("van", "estate") else (0.3, 0.65) if kind == "estate" else (0.72,)
        for q in posts:
            x, x_top = (x0 + (x1 - x0) * q) * half, (t0 + (t1 - t0) * q) * half
            s.add(both(beam((x, 0.48 * w, belt), (x_top, w1 / 2, belt + 0.95 * rise), 0.04, 0.02, up=(0, 1, 0))), paint)
        if kind == "van":
            s.add(both(box(1.15 * half, 0.02, 0.62 * rise).turn("x", np.arctan2((w - w1) / 2, rise)).move(-0.36 * half, (0.96 * w + w1) / 4, belt + 0.48 * rise)), paint)
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
        s.add([box(0.09, 0.92 * w, 0.08, 0.03).move(k * (half + 0.01), 0, clear + 0.07) for k in (-1, 1)], trim if chance(rng, 0.6) else mat.DARK)
    if chance(rng, 0.6):
        s.add(box(0.04, rng.uniform(0.25, 0.45) * w, 0.1, 0.01).move(half - 0.005, 0, z - 0.01), mat.DARK)
    if chance(rng, 0.6):
        s.add(both(box(0.06, 0.1, 0.07, 0.02).move(x1 * half * 0.75, 0.54 * w, belt + 0.05)), paint)
    if chance(rng, 0.12):
        s.add(box(0.2, 0.4, 0.09, 0.02).move((t0 + t1) / 2 * half, 0, belt + rise + 0.06), pick(rng, (LIGHT, mat.plain(mat.rgb("1b78d0")))))
    elif kind in ("estate", "jeep", "van") and not open_top and chance(rng, 0.4):
        s.add(both(rod((t0 * half + 0.1, 0.3 * w, belt + rise + 0.05), (t1 * half, 0.3 * w, belt + rise + 0.05), 0.02)), mat.DARK)
        s.add([rod((x * half, -0.34 * w, belt + rise + 0.05), (x * half, 0.34 * w, belt + rise + 0.05), 0.018) for x in (t0 * 0.7, t1 * 0.3)], mat.DARK)
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


def truck(rng: Rng) -> Sketch:
    """Box van, flat bed with a load, tanker, tipper, fire engine, crane, mixer; cab over or behind the engine."""
    kind = pick(rng, ("box", "load", "tanker", "tipper", "fire", "crane", "mixer"))
    s = Sketch({"fire": "fire engine", "crane": "crane truck", "mixer": "concrete mixer", "tanker": "tanker", "tipper": "tipper truck"}.get(kind, "truck"))
    paint = mat.plain(mat.rgb("c8242b")) if kind == "fire" else mat.finish(rng)
    load, trim, pane = mat.painted(rng) if chance(rng, 0.7) else mat.metal(rng), mat.metal(rng), mat.glass(rng)
    r, w = rng.uniform(0.17, 0.24), rng.uniform(0.7, 0.9)
    cab, bed, floor = rng.uniform(0.5, 0.7), rng.uniform(1.0, 1.9), 0
    floor = 2 * r + rng.uniform(0.0, 0.08)
    nose = pick(rng, (0.0, rng.uniform(0.3, 0.45)))
    front = bed / 2 + cab + nose
    high = rng.uniform(0.55, 0.8)
    s.add(box(bed + cab + nose - 0.1, 0.55 * w, 0.12, 0.02).move((cab + nose) / 2, 0, floor - 0.07), mat.DARK)
    x0 = bed / 2 + 0.04
    s.add(box(cab + 0.02, w, 0.45 * high, 0.05).move(x0 + cab / 2, 0, floor + 0.12 * high), paint)
    house = _house(x0, x0 + cab, x0 + 0.02, x0 + cab - rng.uniform(0.02, 0.2), floor + 0.3 * high, floor + high, 0.98 * w, 0.92 * w, 0.12)
    s.add(house, paint, _panes(house, floor + 0.3 * high, floor + high, pane))
    s.add(box(0.02, 0.9 * w, 0.6 * high).move(x0 - 0.005, 0, floor + 0.6 * high), paint)
    if nose:
        s.add(box(nose + 0.1, 0.8 * w, 0.5 * high, 0.08, 3).move(x0 + cab + nose / 2 - 0.05, 0, floor + 0.08 * high), paint)
        s.add(both(box(1.9 * r, 0.12, 0.08, 0.03).move(front - r, w / 2 - 0.04, 2.1 * r)), paint)
    s.add(both(cylinder(0.055, 0.05, n=14).turn("y", np.pi / 2).move(front + 0.04, 0.33 * w, floor + 0.06)), LIGHT)
    s.add(box(0.04, 0.4 * w, 0.2 * high, 0.01).move(front + 0.045, 0, floor + 0.1 * high), trim)
    s.add(box(0.08, w, 0.1, 0.03).move(front + 0.05, 0, floor - 0.12), trim)
    _bed(rng, s, kind, bed, w, floor, paint, load, trim)
    if chance(rng, 0.3):
        s.add(rod((x0 - 0.02, w / 2 - 0.05, floor), (x0 - 0.02, w / 2 - 0.05, floor + 1.2 * high), 0.03), trim)
    rear = [-bed / 2 + 1.3 * r] + ([-bed / 2 + 3.5 * r] if bed > 1.2 and chance(rng, 0.7) else [])
    axles(s, wheel(rng, r, rng.uniform(0.13, 0.2)), [*rear, front - (1.1 * r if nose else cab / 2)], w / 2 - 0.06, r)
    return s


def _bed(rng: Rng, s: Sketch, kind: str, bed: float, w: float, floor: float, paint: Material, load: Material, trim: Material) -> None:
    """What a truck carries, over x in ±bed/2 above the floor."""
    if kind == "box":
        h = rng.uniform(0.6, 1.0)
        s.add(box(bed, w + 0.04, h, rng.uniform(0.01, 0.06)).rest(floor), load if chance(rng, 0.6) else mat.printed(rng))
        s.add(both(box(0.7 * bed, 0.01, 0.3 * h).move(0, w / 2 + 0.02, floor + h / 2)), paint)
        s.add(both(box(0.02, 0.44 * w, 0.9 * h).move(-bed / 2 - 0.005, 0.23 * w, floor + h / 2)), trim)
    elif kind in ("load", "tipper"):
        h = rng.uniform(0.12, 0.3) if kind == "load" else rng.uniform(0.3, 0.45)
        tip = Sketch("")
        tip.add(box(bed, w + 0.02, 0.05).move(z=0.025), load)
        tip.add(both(box(bed, 0.04, h).move(0, w / 2, h / 2)), load)
        tip.add([box(0.04, w, h).move(k * bed / 2, 0, h / 2) for k in (-1, 1)], load)
        what = pick(rng, ("logs", "heap", "crates", "none")) if kind == "load" else pick(rng, ("heap", "none"))
        if what == "logs":
            wood = mat.bark(rng)
            tip.add([cylinder(0.11, 0.95 * bed, n=12).turn("y", np.pi / 2).move(0, (k - 1.5 + 0.5 * row) * 0.22, 0.16 + 0.19 * row) for row in range(3) for k in range(4 - row)], wood)
        elif what == "heap":
            tip.add(ellipsoid(0.47 * bed, 0.46 * w, rng.uniform(0.15, 0.35), 18).move(z=h - 0.05), mat.stone(rng) if chance(rng, 0.5) else mat.terracotta(rng))
        elif what == "crates":
            tip.add([box(q, q, q, 0.02).move((k - 1) * 0.32 * bed, rng.uniform(-0.15, 0.15), 0.05 + q / 2) for k in range(3) for q in (rng.uniform(0.22, 0.4),)], mat.wood(rng))
        angle = rng.uniform(0.3, 0.7) if kind == "tipper" and chance(rng, 0.5) else 0.0
        s.merge(tip, lambda p: p.move(bed / 2).turn("y", -angle).move(-bed / 2, 0, floor))
        if angle:
            s.add(rod((0.1, 0, floor - 0.05), (0.05, 0, floor + np.tan(angle) * bed * 0.52), 0.05), trim)
    elif kind == "tanker":
        q = rng.uniform(0.34, 0.44)
        s.add(cylinder(q, bed, n=28, radius=0.12).turn("y", np.pi / 2).scale(1, w / q / 2, 1).move(0, 0, floor + q), load)
        s.add([torus(1.01 * q, 0.025, 28, 6).turn("y", np.pi / 2).scale(1, w / q / 2, 1).move(x * bed, 0, floor + q) for x in (-0.25, 0.25)], trim)
        s.add([cylinder(0.09, 0.08, n=14).move(x * bed, 0, floor + 2 * q) for x in (-0.3, 0, 0.3)], trim)
    elif kind == "fire":
        s.add(box(bed, w, 0.5, 0.04).rest(floor), paint)
        s.add([q for x in (-0.3, 0, 0.3) for q in both(box(0.24 * bed, 0.02, 0.3, 0.005).move(x * bed, w / 2, floor + 0.26))], trim)
        a, long = rng.uniform(0.0, 0.35), bed * rng.uniform(1.0, 1.4)
        ladder = [beam((0, y, 0), (long, y, 0), 0.03, 0.05) for y in (-0.14, 0.14)] + [rod((x, -0.14, 0), (x, 0.14, 0), 0.015, sides=6) for x in np.linspace(0.1, long - 0.1, 8)]
        s.add([p.turn("y", -a).move(-bed / 2, 0, floor + 0.6) for p in ladder], mat.plain(mat.rgb("d8dade"), "grey"))
        s.add(cylinder(0.12, 0.12, n=16).move(-bed / 2 + 0.2, 0, floor + 0.54), trim)
        s.add(both(box(0.1, 0.16, 0.08, 0.02).move(bed / 2 + 0.35, 0.2, floor + 0.8)), mat.plain(mat.rgb("1b78d0")))
    elif kind == "crane":
        s.add(box(bed, w, 0.12, 0.02).rest(floor), load)
        s.add(cylinder(0.25, 0.1, n=20).move(-0.1, 0, floor + 0.16), mat.DARK)
        s.add(box(0.5, 0.5, 0.4, 0.05).move(-0.1, 0, floor + 0.4), paint)
        a, long = rng.uniform(0.3, 1.0), rng.uniform(1.0, 1.6)
        tip = np.array([long * np.cos(a) - 0.1, 0, floor + 0.5 + long * np.sin(a)])
        s.add(beam((-0.1, 0, floor + 0.5), tip, 0.14, 0.16, up=(-1, 0, 1), taper=0.6), load)
        s.add(rod(tip, tip - [0, 0, 0.5 * long * np.sin(a) + 0.1], 0.012, sides=6), mat.DARK)
        s.add(torus(0.06, 0.02, 12, 6).turn("x", np.pi / 2).move(*(tip - [0, 0, 0.5 * long * np.sin(a) + 0.15])), mat.DARK)
    else:
        drum = spline([(0.0, -0.55 * bed), (0.2, -0.54 * bed), (0.42, 0.0), (0.36, 0.35 * bed), (0.1, 0.48 * bed), (0.0, 0.49 * bed)], 22)
        s.add(revolve(np.column_stack([np.maximum(drum[:, 0], 0), drum[:, 1]]), 24).turn("y", np.pi / 2 + 0.22).move(0, 0, floor + 0.55), load)
        s.add([box(0.1, 0.7 * w, h).rest(floor - 0.02).move(x * bed) for x, h in ((-0.42, 0.5), (0.4, 0.3))], trim)
        s.add(beam((-0.5 * bed, 0, floor + 0.6), (-0.62 * bed, 0, floor + 0.1), 0.2, 0.05, up=(1, 0, 0)), mat.DARK)


def bus(rng: Rng) -> Sketch:
    """Single or double decker, school bus, camper, tram."""
    s = Sketch(pick(rng, ("bus", "bus", "bus", "camper", "tram")))
    paint, second = mat.plastic(rng) if chance(rng, 0.7) else mat.painted(rng), mat.painted(rng)
    pane, trim = mat.glass(rng), mat.metal(rng)
    decks = 2 if s.noun == "bus" and chance(rng, 0.35) else 1
    length, w = rng.uniform(1.3, 1.7) if s.noun == "camper" else rng.uniform(1.8, 3.2), rng.uniform(0.65, 0.8)
    h, r = rng.uniform(0.65, 0.8) * (1 + 0.75 * (decks - 1)), rng.uniform(0.13, 0.18)
    z0 = 0.8 * r
    half, soft = length / 2, rng.uniform(0.03, 0.14)
    is_two_tone = chance(rng, 0.4)
    body = box(length, w, h, soft, 3).rest(z0)
    s.add(body, paint)
    if is_two_tone:
        s.add(box(length + 0.01, w + 0.01, 0.33 * h / decks, soft, 3).rest(z0 - 0.002), second)
    count = max(3, int(length / rng.uniform(0.25, 0.4)))
    pitch, gap = (length - 0.2) / count, rng.uniform(0.015, 0.05)
    for deck in range(decks):
        z, tall = z0 + (deck + 0.64) * h / decks, rng.uniform(0.36, 0.42) * h / decks
        doors = (count - 1, count // 2) if deck == 0 else ()
        for k in range(count):
            x = -half + 0.1 + (k + 0.5) * pitch
            for side in (-1, 1):
                if k in doors and side < 0:
                    s.add(box(0.85 * pitch, 0.03, 0.78 * h / decks, 0.005).move(x, -w / 2, z0 + 0.47 * h / decks), second)
                    s.add(box(0.6 * pitch, 0.04, 0.55 * h / decks, 0.005).move(x, -w / 2, z0 + 0.52 * h / decks), pane)
                else:
                    s.add(box(pitch - gap, 0.03, tall, 0.02).move(x, side * w / 2, z), pane)
        s.add([box(0.03, 0.84 * w, tall * q, 0.02).move(k * half, 0, z - (0.04 if k > 0 else 0)) for k, q in ((1, 1.3), (-1, 0.8))], pane)
    s.add(both(ellipsoid(0.04, 0.06, 0.06, 12).move(half, 0.36 * w, z0 + 0.16)), LIGHT)
    s.add(both(box(0.03, 0.06, 0.1, 0.01).move(-half, 0.4 * w, z0 + 0.2)), REAR)
    s.add([box(0.06, 0.96 * w, 0.07, 0.02).move(k * half, 0, z0 + 0.04) for k in (-1, 1)], trim)
    if chance(rng, 0.6):
        s.add(box(0.02, 0.5 * w, 0.09, 0.005).move(half + 0.005, 0, z0 + h - 0.09), mat.DARK)
    if chance(rng, 0.5):
        s.add(both(sweep(fillet([(half - 0.05, 0.45 * w, z0 + 0.75 * h / decks), (half + 0.1, 0.52 * w, z0 + 0.8 * h / decks), (half + 0.1, 0.52 * w, z0 + 0.6 * h / decks)], 0.04), 0.018, 6)), mat.DARK)
    if s.noun == "tram":
        s.add([sweep([(-0.15 + x, 0, z0 + h), (0.1 + x, 0, z0 + h + 0.2), (-0.1 + x, 0, z0 + h + 0.4)], 0.015, 6) for x in (-0.1, 0.1)], mat.DARK)
        s.add(box(0.06, 0.6, 0.03).move(-0.1, 0, z0 + h + 0.4), mat.DARK)
    elif chance(rng, 0.5):
        s.add(box(rng.uniform(0.2, 0.7) * length, 0.6 * w, 0.08, 0.02).rest(z0 + h - 0.01), second if chance(rng, 0.5) else trim)
    front, rear = half - rng.uniform(1.6, 3.2) * r, -half + rng.uniform(1.6, 3) * r
    axles(s, wheel(rng, r, 0.13), [front, rear], w / 2 - 0.045, r)
    return s


def train(rng: Rng) -> Sketch:
    """Steam engine with boiler, chimney and cab, or a diesel; a tender or a wagon behind at times."""
    s = Sketch("steam engine" if chance(rng, 0.75) else "locomotive")
    paint, second, trim = mat.plastic(rng) if chance(rng, 0.7) else mat.painted(rng), mat.painted(rng), mat.metal(rng)
    w, r, long = rng.uniform(0.55, 0.7), rng.uniform(0.14, 0.22), rng.uniform(1.1, 1.6)
    floor, half = 2 * r + 0.02, long / 2
    s.add(box(long + 0.1, w, 0.12, 0.02).move(z=floor), pick(rng, (mat.DARK, second)))
    big = wheel(rng, 1.1 * r, 0.08)
    if s.noun == "steam engine":
        q, cab = rng.uniform(0.2, 0.27), rng.uniform(0.35, 0.5)
        z = floor + q + 0.04
        s.add(cylinder(q, long - cab + 0.06, n=28, radius=0.03).turn("y", np.pi / 2).move(cab / 2, 0, z), paint)
        s.add([torus(1.01 * q, 0.018, 28, 6).turn("y", np.pi / 2).move(x, 0, z) for x in np.linspace(cab - half + 0.1, half - 0.12, 3)], trim)
        s.add(cylinder(0.85 * q, 0.05, n=24, radius=0.02).turn("y", np.pi / 2).move(half + 0.03, 0, z), mat.DARK)
        flue, tall = rng.uniform(0.06, 0.1), rng.uniform(0.25, 0.45)
        stack = [(0, 0), (flue, 0), (flue, 0.75 * tall), (flue * rng.uniform(1.2, 2.2), 0.85 * tall), (flue * rng.uniform(1.1, 1.9), tall), (0.6 * flue, tall), (0.6 * flue, 0.8 * tall), (0, 0.8 * tall)]
        s.add(revolve(stack, 18).move(half - 0.2, 0, z + 0.9 * q), mat.DARK if chance(rng, 0.6) else second)
        for x in np.linspace(half - 0.5, cab - half + 0.15, int(rng.integers(1, 3))):
            s.add(revolve([(0, 0), (0.1, 0), (0.1, 0.1), (0.06, 0.17), (0, 0.19)], 16).move(x, 0, z + 0.9 * q), trim)
        x, high = -half + cab / 2, rng.uniform(0.65, 0.85)
        s.add([box(cab, 0.04, 0.45 * high).move(x, y, floor + 0.22 * high) for y in (-w / 2 + 0.02, w / 2 - 0.02)], paint)
        s.add([box(0.04, w, high).move(x + cab / 2, 0, floor + high / 2)] + [beam((x + k * cab / 2, y, floor), (x + k * cab / 2, y, floor + high), 0.05, 0.05, up=(1, 0, 0)) for k in (-1, 1) for y in (-w / 2 + 0.03, w / 2 - 0.03)], paint)
        s.add(both(box(0.02, 0.16, 0.18, 0.02).move(x + cab / 2 + 0.015, 0.17, floor + 0.78 * high)), mat.glass(rng))
        y = np.linspace(-1, 1, 9)
        roof = np.stack([0 * y + x, y * (w / 2 + 0.06), floor + high + 0.1 * (1 - y**2)], 1)
        s.add(sweep(roof, np.array([[0.025, cab / 2 + 0.08]] * 9), rectangle(1, 1, 0.1), up=(1, 0, 0)), second)
        s.add(ellipsoid(0.04, 0.06, 0.06, 12).move(half + 0.03, 0, z + q + 0.02), LIGHT)
        small = wheel(rng, 0.7 * r, 0.08)
        axles(s, small, [half - 0.12], w / 2 - 0.02, 0.7 * r)
        xs = list(np.linspace(-half + 1.2 * r, half - 0.3 - 1.1 * r, int(rng.integers(2, 4))))
        axles(s, big, xs, w / 2, 1.1 * r)
        s.add(both(beam((xs[0], w / 2 + 0.06, 0.9 * r), (xs[-1], w / 2 + 0.06, 0.9 * r), 0.03, 0.05)), trim)
    else:
        high = rng.uniform(0.55, 0.7)
        house = _house(-half, half, -half + 0.03, half - rng.uniform(0.05, 0.35), floor + 0.04, floor + high, w, 0.92 * w, 0.3)
        s.add(house, paint)
        s.add(both(box(0.9 * long, 0.02, 0.1).move(0, w / 2 - 0.02, floor + 0.2)), second)
        s.add([q for x in np.linspace(-0.7, 0.6, 5) * half for q in both(box(0.15, 0.03, 0.16, 0.02).move(x, 0.47 * w, floor + 0.68 * high))], mat.glass(rng))
        s.add(box(0.05, 0.7 * w, 0.2, 0.02).turn("y", -0.3).move(half - 0.12, 0, floor + 0.72 * high), mat.glass(rng))
        s.add(both(ellipsoid(0.04, 0.05, 0.05, 10).move(half - 0.02, 0.3 * w, floor + 0.18)), LIGHT)
        axles(s, big, [-0.75 * half, -0.45 * half, 0.45 * half, 0.75 * half], w / 2 - 0.04, 1.1 * r)
    guard = extrude([(-w / 2, 0), (w / 2, 0), (0.35 * w, 0.16), (-0.35 * w, 0.16)], 0.06).facing().turn("y", 0.35)
    s.add(guard.move(half + 0.1, 0, 0.06), second if chance(rng, 0.5) else mat.DARK)
    s.add(both(cylinder(0.05, 0.08, n=12).turn("y", np.pi / 2).move(half + 0.08, 0.3 * w, floor)), trim)
    if chance(rng, 0.45):
        x, wide = -half - 0.55, rng.uniform(0.6, 0.9)
        s.add(rod((-half, 0, floor), (x, 0, floor), 0.03), mat.DARK)
        s.add(revolve(hollow([(0.47, 0), (0.5, 0.35)], 0.06), 4).turn("z", np.pi / 4).scale(wide * 1.41, w * 1.41, 1).move(x - 0.05, 0, floor - 0.04).faceted(), paint)
        s.add(ellipsoid(0.42 * wide, 0.42 * w, 0.16, 16).move(x - 0.05, 0, floor + 0.24), mat.DARK if chance(rng, 0.5) else mat.wood(rng))
        axles(s, wheel(rng, 0.8 * r, 0.08), [x - 0.25, x + 0.2], w / 2 - 0.04, 0.8 * r)
    return s
