# SPDX-License-Identifier: Apache-2.0
"""What is gathered: fruit, vegetables, mushrooms."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.materials import Material
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    Part,
    around,
    blob,
    box,
    circle,
    cylinder,
    ellipsoid,
    loft,
    revolve,
    rod,
    spline,
    sweep,
)


def leaf_blade(long: float, wide: float, bend: float = 0.4, n: int = 8, thick: float = 0.012) -> Part:
    """A pointed leaf that lies along +x from the origin, rises and bends over by `bend` of its length."""
    t = np.linspace(0, 1, n)
    path = np.stack([long * t, 0 * t, bend * long * (t - 1.6 * t**2)], 1)
    half = wide / 2 * np.sin(np.pi * t**0.8) + 0.03 * wide
    return sweep(path, np.stack([half, np.full(n, thick)], 1), circle(6), ends="point", up=(0, 0, 1))


def ribbed(part: Part, ribs: int, depth: float) -> Part:
    """Lobes round z, as on a pumpkin."""

    def f(v: Array) -> Array:
        k = 1 - depth + depth * np.abs(np.cos(ribs / 2 * np.arctan2(v[:, 1], v[:, 0])))
        return np.column_stack([v[:, 0] * k, v[:, 1] * k, v[:, 2]])

    return part.warp(f)


def peel(rng: Rng, codes: tuple[str, ...]) -> Material:
    """Fruit colours: flat, mottled, or blushing from below."""
    c = mat.choose(rng, [mat.rgb(x) for x in codes])
    d = mat.choose(rng, [mat.rgb(x) for x in codes])
    f = pick(rng, (None, patterns.mottle, patterns.fade, patterns.speckle))
    if f is None:
        return mat.plain(c)
    return mat.textured(f(rng, c, 0.5 * c + 0.5 * d), mat.word_for(c), None if f is patterns.fade else 2.0)


def fruit(rng: Rng) -> Sketch:
    """Apple, pear, banana bunch, pineapple, pumpkin, cherries, grapes, strawberry, lemon, melon slice."""
    kind = pick(rng, ("apple", "pear", "bananas", "pineapple", "pumpkin", "cherries", "grapes", "strawberry", "lemon", "melon slice"))
    s = Sketch(kind)
    stem, green = mat.bark(rng), mat.leaf(rng)
    lean = rng.normal(0, 0.12)
    if kind in ("apple", "pear", "lemon"):
        w, h = rng.uniform(0.42, 0.52), rng.uniform(0.8, 1.0)
        if kind == "apple":
            profile = [
                (0, 0.1),
                (0.12, 0.03),
                (0.28, 0.0),
                (0.9 * w, 0.28 * h),
                (w, 0.58 * h),
                (0.75 * w, 0.86 * h),
                (0.3 * w, 0.92 * h),
                (0.06, 0.8 * h),
                (0, 0.76 * h),
            ]
            top, skin = 0.78 * h, peel(rng, ("c81d25", "7fb03a", "e0b53c", "a8182a", "d8554a"))
        elif kind == "pear":
            h *= rng.uniform(1.3, 1.6)
            profile = [
                (0, 0.04),
                (0.2, 0),
                (0.95 * w, 0.2 * h),
                (0.9 * w, 0.42 * h),
                (0.5 * w, 0.68 * h),
                (0.38 * w, 0.88 * h),
                (0.2 * w, 0.97 * h),
                (0, 0.97 * h),
            ]
            top, skin = 0.95 * h, peel(rng, ("b5c04a", "d9c04a", "9a8b3a", "c87d4a"))
        else:
            h, profile = (
                1.2,
                [
                    (0, 0),
                    (0.06, 0.03),
                    (0.12, 0.1),
                    (0.8 * w, 0.35),
                    (0.85 * w, 0.65),
                    (0.5 * w, 1.0),
                    (0.12, 1.12),
                    (0.08, 1.18),
                    (0, 1.2),
                ],
            )
            top, skin = 1.18, peel(rng, ("f4d22e", "8fb93a", "f39c1f"))
        body = revolve(spline(profile, 24), 28)
        s.add(ribbed(body, 5, 0.03).turn("y", lean), skin)
        tip = (0.05 * rng.normal(), 0.05 * rng.normal(), top + rng.uniform(0.15, 0.3))
        if kind == "lemon":
            s.add(cylinder(0.06, 0.06, 0.04, n=8).move(z=top), green)
            return s
        s.add(
            sweep(spline([(0, 0, top - 0.05), (0.01, 0, top + 0.08), tip], 6), [0.02, 0.02, 0.02, 0.022, 0.026, 0.03], 8).turn("y", lean),
            stem,
        )
        for k in range(int(rng.integers(0, 3))):
            s.add(leaf_blade(0.4, 0.2, 0.3).turn("z", rng.uniform(0, 6)).move(z=top + 0.08 + 0.03 * k), green)
    elif kind == "bananas":
        skin, count, bow = peel(rng, ("f2cf3a", "e8c22e", "a9b83a")), int(rng.integers(1, 6)), rng.uniform(0.35, 0.6)
        t = np.linspace(0, 1, 16)
        r = 0.13 * np.minimum(1, np.minimum(0.3 + 3 * t, 0.35 + 3 * (1 - t)))
        path = np.stack([0.1 + 1.1 * np.sin(1.9 * t) / 1.9 * 1.4, 0 * t, -bow * np.sin(np.pi * 0.9 * t)], 1)
        for k in range(count):
            one = sweep(path, r, pick(rng, (6, 12)), ends="point")
            s.add(one.turn("z", (k - (count - 1) / 2) * 0.26).move(z=rng.normal(0, 0.02)), skin)
        s.add(sweep(spline([(0.2, 0, -0.03), (0.05, 0, 0.04), (-0.05, 0, 0.2)], 6), np.linspace(0.1, 0.06, 6), 8), stem)
    elif kind == "pineapple":
        skin = mat.textured(
            patterns.shingles(rng, mat.choose(rng, [mat.rgb("c98f2e"), mat.rgb("b5772a"), mat.rgb("d9a441")])), "yellow", 2.5
        )
        h = rng.uniform(1.0, 1.4)
        s.add(ellipsoid(0.42, 0.42, h / 2, 24, 2, 3).move(z=h / 2), skin)
        for level in range(4):
            n, long = int(rng.integers(5, 8)), rng.uniform(0.5, 0.75)
            blade = leaf_blade(long, 0.16, 0.5, 6).turn("y", -0.35 - 0.3 * level)
            s.add([b.move(z=h - 0.06 + 0.05 * level) for b in around(blade, n, level * 0.5)], green)
    elif kind == "pumpkin":
        h = rng.uniform(0.5, 0.9)
        body = ellipsoid(0.6, 0.6, h / 2, 64, 2, 2.3)
        s.add(
            ribbed(body, int(rng.integers(8, 15)), rng.uniform(0.08, 0.2)).move(z=h / 2),
            peel(rng, ("e57a1a", "d9642a", "f0a030", "e8dcc0", "5a7a3a")),
        )
        s.add(sweep(spline([(0, 0, 0.9 * h), (0.02, 0, h + 0.1), (0.15, 0.05, h + 0.25)], 7), np.linspace(0.1, 0.05, 7), 6), stem)
        if chance(rng, 0.3):
            s.noun = "carved pumpkin"
            for y in (-0.2, 0.2):
                s.add(cylinder(0.1, 0.1, n=3).turn("y", np.pi / 2).move(0.52, y, 0.62 * h), mat.DARK)
            s.add(box(0.12, 0.34, 0.1, 0.02).move(0.52, 0, 0.32 * h), mat.DARK)
    elif kind in ("cherries", "grapes"):
        skin = peel(rng, ("a8182a", "6d1524", "d8334a") if kind == "cherries" else ("5b2a6d", "8fb04a", "3a2a5e", "7a2038"))
        if kind == "cherries":
            for y in (-0.28, 0.3)[: int(rng.integers(1, 3)) + (0 if chance(rng, 0.2) else 1)]:
                z = rng.uniform(0, 0.2)
                s.add(ellipsoid(0.24, 0.24, 0.22, 18).move(0, y, z), skin)
                s.add(sweep(spline([(0, y, z + 0.2), (0, 0.7 * y, 0.6), (0, 0, 1.0)], 10), 0.02, 6), stem)
            s.add([leaf_blade(0.5, 0.25, 0.3).turn("z", a).move(z=0.98) for a in (1.2, 1.2 + rng.uniform(1, 4))], green)
        else:
            q = rng.uniform(0.11, 0.14)
            count = int(rng.integers(26, 40))
            for k in range(count):
                z = -0.95 * (k + 0.5) / count
                a, out = 2.4 * k, 0.3 * (1 + z) ** 0.7 * min(1, 0.5 - 4 * z)
                s.add(ellipsoid(q, q, 1.12 * q, 10).move(out * np.cos(a), out * np.sin(a), z), skin)
            s.add(rod((0, 0, -0.2), (0.05, 0, 0.3), 0.03, 0.035, 8), stem)
            s.add(leaf_blade(0.6, 0.45, 0.2).turn("z", rng.uniform(0, 6)).move(z=0.15), green)
    elif kind == "strawberry":
        skin = mat.textured(patterns.dots(rng, mat.rgb("d7263d"), mat.rgb("f4d77a")), "red", 6.0)
        h = rng.uniform(1.0, 1.3)
        s.add(revolve(spline([(0, 0), (0.15, 0.06), (0.45, 0.6 * h), (0.42, 0.85 * h), (0.2, 0.98 * h), (0, h)], 18), 24), skin)
        s.add([b.move(z=0.97 * h) for b in around(leaf_blade(0.42, 0.2, 0.15, 6, 0.02), int(rng.integers(5, 8)))], green)
        s.add(rod((0, 0, h - 0.05), (0.03, 0, h + 0.2), 0.03), green)
    else:
        n, a = 16, rng.uniform(0.6, 1.0)
        flesh = mat.painted(rng, [mat.rgb("e8404a"), mat.rgb("f5a05a"), mat.rgb("f2dc6a")])
        t = np.linspace(-np.pi / 2, np.pi / 2, n)[1:-1]
        rim = np.stack([0 * t, np.sin(t), -np.cos(t)], 1)

        def wedge(k: float, thick: float) -> Part:
            section = np.stack([[x, y] for x, y in ((-1, -1), (1, -1), (0.12, 1), (-0.12, 1))])
            rings = [
                np.stack([section[:, 0] * thick * a, np.full(4, p[1] * k), np.where(section[:, 1] < 0, p[2] * k, 0.0)], 1) for p in rim
            ]
            return loft(np.stack(rings)[:, ::-1], crease=0.5)

        s.add(wedge(1.0, 0.24), mat.painted(rng, [mat.rgb("2f6d34"), mat.rgb("7fae45")]))
        s.add(wedge(0.94, 0.245).move(z=0.004), mat.plain(mat.rgb("e9efc4")))
        s.add(wedge(0.87, 0.25).move(z=0.01), flesh)
        for _ in range(8):
            y, z = rng.uniform(-0.6, 0.6), rng.uniform(-0.55, -0.12)
            s.add(
                [
                    ellipsoid(0.02, 0.03, 0.05, 8).move(k * 0.25 * a * (0.12 - 0.88 * z / np.sqrt(1 - (y / 0.9) ** 2) * 0.95), y, z)
                    for k in (-1, 1)
                ],
                mat.DARK,
            )
    return s


def vegetable(rng: Rng) -> Sketch:
    """Carrot, radish or beet, aubergine, maize, pepper, pea pod, broccoli."""
    kind = pick(rng, ("carrot", "beet", "aubergine", "maize", "pepper", "peas", "broccoli"))
    s = Sketch(kind)
    green = mat.leaf(rng)
    if kind in ("carrot", "beet"):
        h = rng.uniform(1.0, 1.6) if kind == "carrot" else rng.uniform(0.5, 0.8)
        r = rng.uniform(0.18, 0.3) if kind == "carrot" else rng.uniform(0.32, 0.45)
        skin = peel(rng, ("ee7b1f", "f09a3a", "7a2f6d") if kind == "carrot" else ("c2335a", "7a1f45", "f0ece0"))
        t = np.linspace(0, 1, 18)
        radii = r * (t**0.55) * (1 + 0.04 * rng.normal(size=18)) if kind == "carrot" else r * np.sin(np.pi * np.clip(t, 0.06, 0.93)) ** 0.7
        s.add(revolve([(0, 0), *zip(np.maximum(radii, 0.015), h * t + 0.02, strict=True), (0, h + 0.07)], 20), skin)
        if kind == "beet":
            s.add(rod((0, 0, 0.05), (0.03, 0, -0.35), 0.06, 0.008), skin)
        for k in range(int(rng.integers(4, 9))):
            a, long = 2.4 * k, rng.uniform(0.4, 0.8)
            tip = (0.3 * long * np.cos(a), 0.3 * long * np.sin(a), h + long)
            s.add(sweep(spline([(0, 0, h), (0.1 * tip[0], 0.1 * tip[1], h + 0.5 * long), tip], 6), 0.02, 6), green)
            s.add(
                ellipsoid(0.14, 0.14, 0.2, 10).move(*tip)
                if kind == "carrot"
                else leaf_blade(0.6 * long, 0.3, 0.2).turn("y", -0.9).turn("z", a).move(*tip).move(z=-0.3 * long),
                green,
            )
    elif kind == "aubergine":
        path = spline([(0, 0, 0), (0.05, 0, 0.5), (-0.05, 0, 1.0), (-0.2, 0, 1.3)], 16)
        r = np.interp(np.linspace(0, 1, 16), [0, 0.3, 0.7, 1], [0.3, 0.36, 0.24, 0.15])
        s.add(sweep(path, r * rng.uniform(0.8, 1.15), 20, ends="round"), peel(rng, ("3a1f45", "4a2458", "2a1a35", "e8e0f0")))
        s.add([b.move(-0.24, 0, 1.38) for b in around(leaf_blade(0.32, 0.16, -0.4, 6, 0.02), 5)], green)
        s.add(rod((-0.2, 0, 1.32), (-0.35, 0, 1.65), 0.05, 0.06), green)
    elif kind == "maize":
        grain = mat.textured(patterns.dots(rng, mat.rgb("d9a020"), mat.rgb("f6d04a")), "yellow", 7.0)
        s.add(revolve(spline([(0, 1.6), (0.1, 1.55), (0.24, 1.0), (0.28, 0.4), (0.2, 0.0), (0, -0.02)][::-1], 16), 20), grain)
        husk = sweep(
            spline([(0.1, 0, -0.1), (0.32, 0, 0.3), (0.34, 0, 0.8), (0.5, 0, 1.25)], 8),
            np.array([[0.1, 0.02], [0.26, 0.02], [0.3, 0.02], [0.26, 0.02], [0.22, 0.02], [0.16, 0.02], [0.1, 0.02], [0.03, 0.02]]),
            8,
            up=(1, 0, 0.01),
        )
        s.add(around(husk, int(rng.integers(2, 5))), green)
        s.add(rod((0, 0, 0.05), (0, 0, -0.3), 0.09, 0.07), green)
    elif kind == "pepper":
        h = rng.uniform(0.7, 1.1)
        body = revolve(spline([(0, 0.08), (0.2, 0), (0.38, 0.25 * h), (0.48, 0.75 * h), (0.3, h), (0.1, 0.92 * h), (0, 0.9 * h)], 22), 36)
        s.add(ribbed(body, pick(rng, (3, 4)), 0.12), peel(rng, ("d7263d", "f4b82e", "3f9142", "ee7b1f")))
        s.add(sweep(spline([(0, 0, 0.88 * h), (0, 0, h + 0.1), (0.1, 0, h + 0.28)], 6), 0.05, 8), green)
    elif kind == "peas":
        path = spline([(0, -0.9, 0.12), (0, -0.4, 0), (0, 0.4, 0), (0, 0.9, 0.12)], 14)
        r = 0.17 * np.sin(np.pi * np.linspace(0.1, 0.9, 14)) ** 0.5
        s.add(sweep(path, np.stack([r, 0.8 * r], 1), 12, ends="point", up=(0, 0, 1)), green)
        s.add(
            [ellipsoid(0.15, 0.15, 0.15, 12).move(0, y, 0.14) for y in np.linspace(-0.6, 0.6, int(rng.integers(4, 6)))],
            mat.painted(rng, mat.PLANTS),
        )
        s.add(rod((0, -0.95, 0.12), (0, -1.15, 0.3), 0.03), green)
    else:
        s.add(rod((0, 0, 0), (0, 0, 0.6), 0.16, 0.2), mat.painted(rng, [mat.rgb("8fb06a"), mat.rgb("a9c47a")]))
        for k in range(int(rng.integers(7, 13))):
            a, out = 2.4 * k, 0.42 * np.sqrt(k / 12)
            at = np.array([out * np.cos(a), out * np.sin(a), 0.85 - 0.7 * out**2])
            s.add(rod((0, 0, 0.4), at, 0.08, 0.1, 8), s.materials[0])
            s.add(blob(rng, rng.uniform(0.2, 0.27), 0.08, 14).move(*at), green)
    return s


def mushroom(rng: Rng) -> Sketch:
    """Cap on a stalk: domed, flat, conical, funnel; spotted, with a ring, alone or in a group."""
    s = Sketch("mushroom")
    cap, pale = (
        peel(rng, ("c8242b", "a8713f", "e3c08f", "f0ece4", "d98e3f", "7a5a8a", "5a3a22")),
        mat.painted(rng, [mat.rgb("f2ead8"), mat.rgb("e3d3b0"), mat.rgb("fffaf0")]),
    )
    spots = pick(rng, (None, mat.WHITE, mat.painted(rng)))
    kind = pick(rng, ("dome", "flat", "cone", "round", "funnel"))
    for k in range(pick(rng, (1, 1, 2, 3, 5))):
        size = 1.0 if k == 0 else rng.uniform(0.35, 0.75)
        h, r, t = rng.uniform(0.5, 1.1), rng.uniform(0.4, 0.75), rng.uniform(0.09, 0.2)
        rise = (
            r
            * {"dome": rng.uniform(0.6, 0.9), "flat": rng.uniform(0.2, 0.4), "cone": rng.uniform(1, 1.6), "round": 1.0, "funnel": 0.12}[
                kind
            ]
        )
        one = Sketch("")
        lean = rng.normal(0, 0.08, 2)
        path = spline([(0, 0, 0), (*(lean * 0.6), 0.5 * h), (*lean, h)], 10)
        one.add(sweep(path, np.interp(np.linspace(0, 1, 10), [0, 0.2, 1], [1.35 * t, 1.1 * t, 0.85 * t]), 14), pale)
        a = np.linspace(0, np.pi / 2, 9)
        if kind == "cone":
            top = np.stack([r * np.cos(a), rise * (1 - np.cos(a) ** 0.8)], 1)
        elif kind == "funnel":
            top = np.stack([r * np.cos(a), rise - 0.25 * r * np.sin(a)], 1)
        else:
            top = np.stack([r * np.cos(a), rise * np.sin(a)], 1)
        curl = 0.18 * r
        under = (
            [(0, -0.02), (0.5 * r, -0.3 * curl), (0.92 * r, -curl), (1.0 * r, -0.8 * curl)]
            if kind != "funnel"
            else [(0, -0.6 * r), (0.3 * r, -0.5 * r), (0.92 * r, -0.08 * r)]
        )
        profile = np.concatenate([under, top[:-1], [[0, top[-1, 1]]]])
        hat = revolve(profile, 28).move(*path[-1]).move(z=0.25 * r if kind == "funnel" else 0.0)
        one.add(hat, cap, (lambda p: p.outward[:, 2] < -0.15, pale))
        if spots is not None and kind in ("dome", "round", "flat"):
            for j in range(int(rng.integers(5, 14))):
                up, ang, q = rng.uniform(0.25, 1.4), 2.4 * j, rng.uniform(0.05, 0.11) * r * 1.4
                n = np.array([np.cos(up) * np.cos(ang), np.cos(up) * np.sin(ang), np.sin(up) * rise / r])
                one.add(ellipsoid(q, q, 0.4 * q, 10).aim(n / np.array([1, 1, (rise / r) ** 2])).move(*(path[-1] + r * n)), spots)
        if chance(rng, 0.4):
            z = 0.7 * h
            one.add(
                revolve([(0.6 * t, z), (1.9 * t, z - 0.1), (2.0 * t, z - 0.06), (0.9 * t, z + 0.06), (0, z + 0.06)], 18).move(
                    0.7 * lean[0], 0.7 * lean[1]
                ),
                pale,
            )
        a0, out = rng.uniform(0, 6.3), 0.0 if k == 0 else rng.uniform(0.4, 0.8)
        s.merge(one, lambda p, q=size, a=a0, o=out: p.scale(q).turn("x", 0.25 * o).turn("z", a).move(o * np.sin(a), -o * np.cos(a), 0))
    if chance(rng, 0.35):
        s.add(ellipsoid(0.8, 0.8, 0.14, 20).move(z=-0.02), mat.leaf(rng))
    return s
