# SPDX-License-Identifier: Apache-2.0
"""Pots and their kin: mug, teapot, bottle, vase, bowl. Spouts point to +x, handles mostly to -x or ±y."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.materials import Material
from bozzetto_objects.sketch import Paint, Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    Part,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    fillet,
    hollow,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def curve(points: list[tuple[float, float]], n: int = 16) -> Array:
    """A smooth outer profile (radius, height) through a few points, never nearer to the axis than a hair."""
    p = spline(points, n)
    return np.column_stack([np.maximum(p[:, 0], 1e-3), p[:, 1]])


def inside(material: Material) -> Paint:
    """Paints the inner wall and the floor of an open vessel: what looks to its axis, or up."""

    def test(part: Part) -> Array:
        n, c = part.outward, part.centres
        inwards = (n[:, :2] * c[:, :2]).sum(1) / np.maximum(np.hypot(c[:, 0], c[:, 1]), 1e-9)
        return (inwards < -0.02) | (n[:, 2] > 0.98)

    return test, material


def ear(a: tuple[float, float], b: tuple[float, float], out: float, n: int = 16, square: bool = False) -> Array:
    """A handle's path in the plane y = 0 from (x, z) to (x, z), bulging to larger x."""
    (x0, z0), (x1, z1) = a, b
    if square:
        x = max(x0, x1) + out
        return fillet([(x0, 0, z0), (x, 0, z0), (x, 0, z1), (x1, 0, z1)], 0.5 * abs(z0 - z1), 4)
    return spline(
        [
            (x0, 0, z0),
            (x0 + 0.75 * out, 0, z0 + 0.06 * (z0 - z1)),
            (max(x0, x1) + out, 0, 0.62 * z0 + 0.38 * z1),
            (x1 + 0.7 * out, 0, 0.25 * z0 + 0.75 * z1),
            (x1, 0, z1),
        ],
        n,
    )


def mug(rng: Rng) -> Sketch:
    """Straight, tapered, bellied or flared; one handle to the right or left, or none; empty or filled; a saucer or spoon at times."""
    s = Sketch("mug")
    r, h, wall = 0.4, rng.uniform(0.6, 1.25), rng.uniform(0.025, 0.06)
    kind = pick(rng, ("straight", "taper", "belly", "flare", "waist"), (4, 2, 2, 2, 1))
    mid, top = {"straight": (1, 1), "taper": (0.93, 0.85), "belly": (1.15, 0.9), "flare": (1.0, 1.3), "waist": (0.85, 1.05)}[kind]
    base = {"flare": rng.uniform(0.5, 0.75)}.get(kind, rng.uniform(0.85, 1.0))
    if kind in ("straight", "taper"):
        outer = np.array(
            [
                (0.9 * base * r, 0),
                (base * r, 0.04),
                *((r * (base + (top - base) * t), 0.04 + t * (h - 0.04)) for t in np.linspace(0.1, 1, 8)),
            ]
        )
    else:
        outer = curve([(0.8 * base * r, 0), (base * r, 0.05), (mid * r, 0.45 * h), (top * r, h)], 14)
    glaze, other = mat.ceramic(rng) if chance(rng, 0.85) else mat.metal(rng), pick(rng, (mat.WHITE, mat.painted(rng)))
    sides, power = pick(rng, ((32, 2.0), (32, 2.0), (32, 2.0), (8, 2.0), (32, 4.0)))
    body = revolve(hollow(outer, wall), sides, power)
    s.add(body, glaze, *([inside(other)] if chance(rng, 0.5) else []))
    s.add(torus(0.86 * float(outer[0, 0]), 0.025, 28, 6), glaze if glaze.tiles is not None else other)
    side = pick(rng, (1, -1))
    if chance(rng, 0.9):
        z0, z1 = rng.uniform(0.72, 0.88) * h, rng.uniform(0.15, 0.35) * h
        x0, x1 = np.interp([z0, z1], outer[:, 1], outer[:, 0]) - wall / 2
        path = ear((x0, z0), (x1, z1), rng.uniform(0.2, 0.42), square=chance(rng, 0.3))
        t = rng.uniform(0.035, 0.07)
        handle = sweep(path, np.array([[t, t * rng.uniform(0.8, 1.8)]] * len(path)), circle(10, pick(rng, (2, 4))))
        s.add(
            handle.turn("z", side * np.pi / 2 + rng.normal(0, 0.25)),
            glaze if glaze.tiles is not None and chance(rng, 0.7) else mat.plain(glaze.colour),
        )
    if chance(rng, 0.45):
        fill, level = mat.plain(mat.rgb(pick(rng, ("4a2c1a", "2c1a10", "b5722e", "7fa05a", "f1e6d0")))), rng.uniform(0.6, 0.88) * h
        q = float(np.interp(level, outer[:, 1], outer[:, 0])) - 0.7 * wall
        s.add(revolve([(0, level - 0.04), (q, level - 0.04), (q, level), (0, level)], sides, power), fill)
    if chance(rng, 0.18):
        s.noun = "cup and saucer"
        w = rng.uniform(0.65, 0.85)
        s.add(
            revolve(hollow([(0.3, -0.1), (0.4, -0.08), (0.6 * w + 0.1, -0.04), (w, 0.03)], 0.04), 36),
            glaze if glaze.tiles is not None else other,
        )
    elif chance(rng, 0.1):
        s.add(rod((0.1, 0.1, 0.1), (0.3, 0.25, h + 0.3), 0.025, ends="round"), mat.metal(rng))
    return s


def teapot(rng: Rng) -> Sketch:
    """Round, tall, squat or cast iron, with spout, lid, knob, and a handle behind or overhead; or a kettle or coffee pot."""
    s = Sketch(pick(rng, ("teapot", "teapot", "kettle", "coffee pot")))
    h = rng.uniform(0.55, 0.8) if s.noun != "coffee pot" else rng.uniform(0.9, 1.3)
    r, foot, neck = rng.uniform(0.42, 0.58), rng.uniform(0.25, 0.4), rng.uniform(0.18, 0.3)
    belly = rng.uniform(0.3, 0.6) if s.noun != "kettle" else rng.uniform(0.1, 0.3)
    outer = curve([(foot, 0), (foot * 1.05, 0.03), (r, belly * h), (0.75 * r + 0.25 * neck, 0.85 * h), (neck, h)], 18)
    body_m = mat.ceramic(rng) if s.noun == "teapot" else pick(rng, (mat.metal, mat.ceramic, mat.plastic))(rng)
    plain_m = body_m if body_m.texture is None else mat.plain(body_m.colour) if chance(rng, 0.6) else body_m
    trim = plain_m if chance(rng, 0.6) else pick(rng, (mat.metal, mat.painted))(rng)
    power = pick(rng, (2.0, 2.0, 2.0, 4.0))
    s.add(revolve(np.concatenate([[[0, 0]], outer, [[0, h]]]), 32, power), body_m)
    lid = curve(
        [(neck * 1.05, h - 0.01), (neck * 0.9, h + 0.05), (0.4 * neck, h + 0.5 * neck * rng.uniform(0.3, 1)), (0.02, h + 0.5 * neck)], 8
    )
    s.add(revolve(np.concatenate([[[0, h - 0.02]], lid, [[0, lid[-1, 1] + 0.005]]]), 24), plain_m if chance(rng, 0.7) else trim)
    k, top = rng.uniform(0.05, 0.085), float(lid[-1, 1])
    s.add(
        pick(rng, (ellipsoid(k, k, k, 12), cylinder(0.8 * k, 2 * k, n=12, radius=0.3 * k), ellipsoid(k, k, 0.6 * k, 12))).move(
            z=top + 0.7 * k
        ),
        trim,
    )
    z0 = rng.uniform(0.25, 0.5) * h
    x0, reach, lift = float(np.interp(z0, outer[:, 1], outer[:, 0])) - 0.05, rng.uniform(0.28, 0.45), rng.uniform(0.85, 1.1) * h
    style = pick(rng, ("s", "straight", "short"))
    if style == "s":
        path = spline(
            [(x0, 0, z0), (x0 + 0.5 * reach, 0, z0 + 0.1), (x0 + 0.7 * reach, 0, 0.6 * lift + 0.4 * z0), (x0 + 1.15 * reach, 0, lift)], 14
        )
    else:
        reach *= 1 if style == "straight" else 0.6
        path = spline([(x0, 0, z0), (x0 + reach / 2, 0, (z0 + lift) / 2), (x0 + reach, 0, lift)], 8)
    s.add(sweep(path, np.linspace(rng.uniform(0.11, 0.17), rng.uniform(0.04, 0.06), len(path)), 14), plain_m)
    tip = path[-1] - path[-2]
    s.add(cylinder(0.035, 0.02, n=12).aim(tip).move(*path[-1]), mat.DARK)
    t, handle_m = rng.uniform(0.028, 0.05), plain_m if chance(rng, 0.6) else trim
    if (s.noun == "kettle" and chance(rng, 0.8)) or chance(rng, 0.2):
        z1 = 0.8 * h
        x1 = float(np.interp(z1, outer[:, 1], outer[:, 0])) - 0.02
        arch = spline(
            [(-x1, 0, z1), (-1.05 * x1, 0, h + 0.15), (0, 0, h + rng.uniform(0.4, 0.6)), (1.05 * x1, 0, h + 0.15), (x1, 0, z1)], 20
        )
        s.add(sweep(arch, 0.8 * t, 8), handle_m)
        s.add(sweep(arch[6:14], 1.3 * t, 10, ends="round"), trim)
    else:
        z1, z2 = rng.uniform(0.72, 0.85) * h, rng.uniform(0.18, 0.32) * h
        x1, x2 = np.interp([z1, z2], outer[:, 1], outer[:, 0]) - 0.03
        path = ear((x1, z1), (x2, z2), rng.uniform(0.22, 0.36), square=chance(rng, 0.2))
        s.add(sweep(path, t, 10).turn("z", np.pi), handle_m)
    return s


def bottle(rng: Rng) -> Sketch:
    """Wine, beer, milk, spray, sauce, perfume, flask: body, shoulder, neck, cap and label."""
    s = Sketch("bottle")
    r, h = 0.3, rng.uniform(0.9, 1.9)
    power = pick(rng, (2.0, 2.0, 2.0, 5.0))
    neck, shoulder, start = rng.uniform(0.07, 0.15), rng.uniform(0.5, 0.75) * h, rng.uniform(0.0, 0.2)
    waist = pick(rng, (1.0, 1.0, rng.uniform(0.75, 1.2)))
    outer = np.concatenate(
        [
            [(0.88 * r, 0)],
            spline([(r, 0.04), (r * waist, 0.5 * shoulder), (r, shoulder)], 7),
            spline([(r, shoulder), (r * (0.85 - start), shoulder + 0.14 * h), (neck * 1.05, shoulder + 0.26 * h), (neck, h)], 12)[1:],
        ]
    )
    glass = (
        mat.plain(mat.choose(rng, [mat.rgb(c) for c in ("1f4d2b", "5a2f12", "cfe3e6", "2c4f7c", "e9efe8", "7a1f24")]))
        if chance(rng, 0.5)
        else mat.ceramic(rng)
    )
    s.add(revolve(np.concatenate([[[0, 0]], outer, [[0, h]]]), 28, power), glass)
    cap = pick(rng, (mat.metal, mat.plastic, mat.bark))(rng)
    kind = pick(rng, ("cap", "cork", "spray", "ball", "pump"), (4, 2, 1, 1, 1))
    if kind == "cap":
        s.add(cylinder(neck * 1.2, rng.uniform(0.08, 0.2), n=20, radius=0.01).move(z=h), cap)
    elif kind == "cork":
        s.add(cylinder(neck * 0.8, 0.16, neck, n=16).move(z=h + 0.02), mat.plain(mat.rgb("c69c6d"), "brown"))
        s.add(torus(neck, 0.02, 20, 8).move(z=h - 0.03), glass if glass.texture is None else mat.plain(glass.colour))
    elif kind == "ball":
        s.add(ellipsoid(0.2, 0.2, 0.2, 16, pick(rng, (2, 6)), pick(rng, (2, 6))).move(z=h + 0.14), cap)
    elif kind == "spray":
        s.add(cylinder(neck * 1.2, 0.1, n=18).move(z=h), cap)
        s.add(box(0.34, 0.14, 0.16, 0.04).move(0.06, 0, h + 0.16), cap)
        s.add(sweep(spline([(0.1, 0, h + 0.1), (0.2, 0, h), (0.18, 0, h - 0.16)], 8), 0.03, 6, ends="round"), mat.painted(rng))
        s.add(cylinder(0.04, 0.06, n=10).turn("y", np.pi / 2).move(0.25, 0, h + 0.18), mat.DARK)
    else:
        s.add(cylinder(neck * 1.2, 0.08, n=18).move(z=h), cap)
        s.add(rod((0, 0, h), (0, 0, h + 0.18), 0.03), cap)
        s.add(sweep([(-0.06, 0, h + 0.19), (0.1, 0, h + 0.19), (0.2, 0, h + 0.15)], [0.05, 0.04, 0.03], 8, ends="round"), cap)
    if chance(rng, 0.7):
        a, b = np.sort(rng.uniform(0.08, 0.92, 2)) * shoulder
        b = max(b, a + 0.2 * shoulder)
        z = np.linspace(a, b, 5)
        bulge = np.interp(z, outer[:, 1], outer[:, 0]) + 0.008
        paper = mat.printed(rng) if chance(rng, 0.5) else mat.painted(rng)
        s.add(revolve([(0, a), *zip(bulge, z, strict=True), (0, b)], 28, power), paper)
    if chance(rng, 0.12):
        s.noun = "flagon"
        path = ear((neck - 0.02, 0.93 * h), (0.8 * r, 0.8 * shoulder), 0.3)
        s.add(sweep(path, 0.035, 8).turn("z", np.pi / 2 * pick(rng, (-1, 1))), glass if glass.texture is None else mat.plain(glass.colour))
    return s


def _bunch(rng: Rng, s: Sketch, r: float, z: float, tall: float) -> None:
    """Cut flowers that stand in a neck of radius r at height z."""
    stem, petals, heart = mat.leaf(rng), mat.painted(rng, mat.FLOWERS), mat.painted(rng, mat.FLOWERS)
    for _ in range(int(rng.integers(2, 8))):
        a, out, high = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7) * tall, rng.uniform(0.5, 1.0) * tall
        tip = np.array([out * np.cos(a), out * np.sin(a), z + high])
        s.add(
            sweep(spline([(0.4 * r * np.cos(a), 0.4 * r * np.sin(a), z - 0.25), (*(0.45 * tip[:2]), z + 0.5 * high), tip], 8), 0.014, 5),
            stem,
        )
        blossom(s, rng.uniform(0.09, 0.16), tip, (*(1.2 * tip[:2]), 0.6), petals, heart, int(rng.integers(5, 8)))


def blossom(s: Sketch, r: float, at: Array, towards: tuple[float, ...], petals: Material, heart: Material, count: int) -> None:
    """Petals round a heart, facing a direction."""
    petal = ellipsoid(0.55 * r, 0.36 * r, 0.1 * r, 8).move(0.62 * r).turn("y", -0.25)
    for k in range(count):
        s.add(petal.turn("z", 2 * np.pi * k / count).aim(towards).move(*at), petals)
    s.add(ellipsoid(0.3 * r, 0.3 * r, 0.2 * r, 8).aim(towards).move(*at), heart)


def vase(rng: Rng) -> Sketch:
    """A thrown or faceted pot of any profile, twisted or ribbed at times, with ears, a foot ring, or flowers in it."""
    s = Sketch("vase")
    h, n = rng.uniform(0.7, 1.8), int(rng.integers(4, 7))
    radii = rng.uniform(0.12, 0.5, n)
    radii[0], radii[-1] = rng.uniform(0.15, 0.32), rng.uniform(0.1, 0.36)
    outer = curve(list(zip(radii, np.linspace(0, h, n), strict=True)), 24)
    outer[:, 0] = np.maximum(outer[:, 0], 0.09)
    sides, power = pick(rng, ((32, 2.0), (32, 2.0), (32, 2.0), (6, 2.0), (8, 2.0), (32, 4.0)))
    wall = 0.035
    part = revolve(hollow(outer, wall), sides, power)
    ribs, twist = int(rng.integers(5, 14)), pick(rng, (0.0, 0.0, rng.uniform(-1.5, 1.5)))
    if sides == 32 and chance(rng, 0.3):
        depth = rng.uniform(0.03, 0.09)

        def flute(v: Array) -> Array:
            a = np.arctan2(v[:, 1], v[:, 0]) + twist * v[:, 2] / h
            k = 1 + depth * np.cos(min(ribs, 8) * a)
            return np.column_stack([v[:, 0] * k, v[:, 1] * k, v[:, 2]])

        part = part.warp(flute)
    elif sides < 32 and twist:
        part = part.warp(
            lambda v: np.column_stack(
                [
                    v[:, 0] * np.cos(twist * v[:, 2]) - v[:, 1] * np.sin(twist * v[:, 2]),
                    v[:, 0] * np.sin(twist * v[:, 2]) + v[:, 1] * np.cos(twist * v[:, 2]),
                    v[:, 2],
                ]
            )
        )
    glaze = pick(rng, (mat.ceramic, mat.terracotta, mat.stone, mat.metal), (6, 1.5, 1, 1))(rng)
    s.add(part, glaze, *([inside(mat.darker(glaze))] if chance(rng, 0.5) else []))
    accent = mat.painted(rng) if chance(rng, 0.5) else mat.plain(glaze.colour)
    s.add(cylinder(0.92 * float(outer[0, 0]), 0.05, n=sides, radius=0.01).move(z=-0.01), accent)
    if sides == 32 and power == 2.0:
        s.add(torus(float(outer[-1, 0]) - wall / 2, rng.uniform(0.02, 0.035), 32, 8).move(z=h), accent)
    if chance(rng, 0.3):
        z0, z1 = 0.9 * h, rng.uniform(0.45, 0.7) * h
        x0, x1 = np.interp([z0, z1], outer[:, 1], outer[:, 0]) - 0.02
        s.add(both(sweep(ear((x0, z0), (x1, z1), rng.uniform(0.12, 0.3)), 0.03, 8).turn("z", np.pi / 2)), accent)
    if chance(rng, 0.4):
        _bunch(rng, s, float(outer[-1, 0]), h, rng.uniform(0.4, 1.0))
    return s


def bowl(rng: Rng) -> Sketch:
    """Soup bowl, salad bowl, plate, goblet bowl; empty, or with fruit, eggs, or soup."""
    s = Sketch("bowl")
    r, h, foot = 0.5, rng.uniform(0.12, 0.55), rng.uniform(0.15, 0.3)
    steep = rng.uniform(0.4, 1.1)
    t = np.linspace(0, 1, 12)
    outer = np.column_stack([foot + (r - foot) * t**steep, 0.05 + h * t ** (1 / steep) ** rng.uniform(0.8, 1.6)])
    outer = np.concatenate([[(0.9 * foot, 0.0), (foot, 0.01)], outer])
    if chance(rng, 0.15):  # on a stem
        s.noun, lift = "goblet", rng.uniform(0.2, 0.5)
        outer[:2] = (0.05, 0), (0.05, 0.01)
        s.add(revolve([(0, -lift), (0.28, -lift), (0.2, -lift + 0.04), (0.05, -0.6 * lift), (0.05, 0.02), (0, 0.02)], 24), mat.metal(rng))
    elif h < 0.2:
        s.noun = "plate" if h < 0.16 else "bowl"
    m = pick(rng, (mat.ceramic, mat.wood, mat.plastic, mat.metal), (6, 2, 2, 1))(rng)
    wall = rng.uniform(0.025, 0.05)
    sides, power = pick(rng, ((36, 2.0), (36, 2.0), (36, 2.0), (8, 2.0), (32, 4.0)))
    part, is_wavy = revolve(hollow(outer, wall, 0.05), sides, power), chance(rng, 0.2)
    if is_wavy:
        waves, swing = int(rng.integers(4, 9)), rng.uniform(0.02, 0.06)
        part = part.warp(
            lambda v: v + np.column_stack([0 * v[:, :2], swing * np.cos(waves * np.arctan2(v[:, 1], v[:, 0])) * (v[:, 2] / h)])
        )
    s.add(part, m, *([inside(mat.painted(rng))] if chance(rng, 0.5) else []))
    if s.noun != "goblet":
        s.add(torus(0.85 * float(outer[0, 0]), 0.02, 28, 6), mat.plain(m.colour * 0.9))
    if sides == 36 and not is_wavy and chance(rng, 0.35):
        s.add(torus(r - wall / 2, 0.022, 36, 8).move(z=float(outer[-1, 1])), mat.painted(rng))
    kind = pick(rng, ("empty", "balls", "soup", "egg"), (4, 4, 3, 1))
    if kind == "balls":
        m, a = mat.painted(rng), rng.uniform(0.09, 0.17)
        other = mat.painted(rng)
        for _ in range(int(rng.integers(3, 10))):
            at, ang = rng.uniform(0, 0.28), rng.uniform(0, 2 * np.pi)
            s.add(
                ellipsoid(a, a, a * rng.uniform(0.85, 1.2), 12).move(
                    at * np.cos(ang), at * np.sin(ang), max(h - 0.02, 0.1) + rng.uniform(0, 0.1)
                ),
                pick(rng, (m, m, other)),
            )
    elif kind == "soup":
        z = 0.8 * float(outer[-1, 1])
        q = float(np.interp(z, outer[:, 1], outer[:, 0])) - 0.6 * wall
        s.add(revolve([(0, z - 0.03), (q, z - 0.03), (q, z), (0, z)], sides, power), mat.painted(rng))
        if chance(rng, 0.5):
            spoon = sweep(
                spline([(0, 0, z - 0.05), (0.35, 0.2, z + 0.12), (0.75, 0.45, z + 0.22)], 10),
                np.column_stack([np.linspace(0.03, 0.04, 10), np.full(10, 0.015)]),
                8,
            )
            s.add(spoon, mat.metal(rng))
    elif kind == "egg":
        s.add(ellipsoid(0.12, 0.12, 0.16, 16).move(z=h + 0.08), mat.painted(rng, mat.SKINS))
    if chance(rng, 0.12):
        z = 0.9 * float(outer[-1, 1])
        s.add(both(sweep(fillet([(0.1, 0.46, z), (0.1, 0.62, z), (-0.1, 0.62, z), (-0.1, 0.46, z)], 0.06, 4), 0.022, 8)), mat.metal(rng))
    return s
