# SPDX-License-Identifier: Apache-2.0
"""Cake and ice cream."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import arc, extrude
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Part,
    around,
    blob,
    box,
    circle,
    cylinder,
    ellipsoid,
    hollow,
    loft,
    revolve,
    rod,
    sweep,
    torus,
)

CREAMS = [
    mat.rgb(c)
    for c in ("fff4e0", "f6b8cc", "6b3e26", "b8e0c8", "f7d774", "c9a0dc", "e8505b", "a8d8ea", "4a2a1a", "f2c894", "ffffff", "9acd6a")
]


CRUSTS = [mat.rgb(c) for c in ("d99a4e", "c07f3a", "e8b872", "a8642e", "f0cf96")]


def sweet(rng: Rng) -> Material:
    """Icing, cream, ice: flat or with sprinkles."""
    c = mat.choose(rng, CREAMS)
    if chance(rng, 0.3):
        return mat.textured(patterns.speckle(rng, c, mat.any_colour(rng), mat.any_colour(rng)), mat.word_for(c), 3.0)
    return mat.plain(c)


def dough(rng: Rng) -> Material:
    """Baked: flat or browned in places."""
    c = mat.choose(rng, CRUSTS)
    return mat.textured(patterns.mottle(rng, c, 0.75 * c), "brown", 2.0) if chance(rng, 0.5) else mat.plain(c)


def swirl(r: float, h: float, ridges: int = 6, turns: float = 1.2) -> Part:
    """A piped heap of cream that twists up to a point."""
    t = np.linspace(0, 1, 14)
    section = circle(6 * ridges) * (0.86 + 0.14 * np.cos(2 * np.pi * np.arange(6 * ridges) / 6))[:, None]
    rings = []
    for q in t:
        c, s = np.cos(turns * 2 * q), np.sin(turns * 2 * q)
        rings.append(
            np.column_stack(
                [
                    section @ np.array([[c, s], [-s, c]]) * r * max((1 - q) ** 0.75 * (1 - 0.25 * np.exp(-9 * q)) * 1.2, 0.02),
                    np.full(len(section), h * q),
                ]
            )
        )
    return loft(np.stack(rings), None, (0, 0, 1.03 * h))


def scatter(rng: Rng, s: Sketch, r: float, z: float, count: int) -> None:
    """Sprinkles or berries on a flat top."""
    if chance(rng, 0.5):
        colours = [mat.plastic(rng) for _ in range(3)]
        for k in range(count * 2):
            a, at = 2.4 * k, r * 0.9 * np.sqrt((k + 0.5) / (2 * count))
            s.add(
                rod((-0.035, 0, 0), (0.035, 0, 0), 0.012, sides=5)
                .turn("z", rng.uniform(0, 3))
                .move(at * np.cos(a), at * np.sin(a), z + 0.01),
                colours[k % 3],
            )
    else:
        berry = mat.painted(rng, [mat.rgb(c) for c in ("c81d35", "2a2a6a", "e8404a", "5a1a3a")])
        q = rng.uniform(0.05, 0.085)
        s.add(around(ellipsoid(q, q, 1.1 * q, 10).move(0.78 * r, 0, z + 0.8 * q), count), berry)


def cake(rng: Rng) -> Sketch:
    """Layer cake, wedding cake, slice, cupcake, doughnut, ring cake; with icing, drips, candles, cherries, on a plate or stand."""
    kind = pick(rng, ("round", "round", "tiers", "slice", "cupcake", "doughnut", "ring"))
    s = Sketch(
        {"slice": "slice of cake", "tiers": "tiered cake", "ring": "ring cake"}.get(
            kind, kind if kind in ("cupcake", "doughnut") else "cake"
        )
    )
    sponge, icing, second = dough(rng), sweet(rng), sweet(rng)
    if kind == "doughnut":
        r, t = 0.5, rng.uniform(0.18, 0.26)
        s.add(torus(r, t, 32, 16), sponge)
        drip = torus(r, 1.06 * t, 36, 16)
        waves = int(rng.integers(5, 9))
        s.add(
            drip.warp(
                lambda v: np.column_stack([v[:, :2], np.maximum(v[:, 2], 0.02 + 0.12 * t * np.sin(waves * np.arctan2(v[:, 1], v[:, 0])))])
            ),
            icing,
        )
        for k in range(26):
            a, b = 2.4 * k, rng.uniform(-0.7, 0.7)
            at = np.array([(r + 1.06 * t * np.sin(b)) * np.cos(a), (r + 1.06 * t * np.sin(b)) * np.sin(a), 1.07 * t * np.cos(b)])
            s.add(
                rod((-0.035, 0, 0), (0.035, 0, 0), 0.013, sides=5).turn("z", rng.uniform(0, 3)).move(*at),
                second if k % 2 else s.materials[0],
            )
        return s
    if kind == "cupcake":
        r, h = 0.36, rng.uniform(0.32, 0.45)
        pleats = circle(48) * (1 + 0.035 * np.cos(np.pi * np.arange(48)))[:, None]
        rings = np.stack([np.column_stack([pleats * q, np.full(48, z)]) for q, z in ((0.72 * r, 0), (r, h))])
        s.add(loft(rings), mat.printed(rng) if chance(rng, 0.4) else mat.plastic(rng))
        s.add(ellipsoid(1.05 * r, 1.05 * r, 0.14, 24).move(z=h), sponge)
        s.add(swirl(1.05 * r, rng.uniform(0.35, 0.6), int(rng.integers(5, 9)), rng.uniform(0.3, 1.6)).move(z=h + 0.04), icing)
        top = s.bounds()[1, 2]
        s.add(
            ellipsoid(0.08, 0.08, 0.08, 12).move(z=top) if chance(rng, 0.6) else extrude(circle(5) * 0.12, 0.04).facing().move(z=top),
            mat.plain(mat.rgb("d7263d")),
        )
        return s
    r, h = 0.5, rng.uniform(0.25, 0.5)
    layers = int(rng.integers(1, 4))
    if kind == "slice":
        a = rng.uniform(0.5, 0.9)
        wedge = np.concatenate([[[0.0, 0.0]], arc(1.0, -a / 2, a / 2, 8)])
        for k in range(layers + 1):
            z = k * h / (layers + 1) + h / (2 * layers + 2)
            s.add(extrude(wedge, 0.8 * h / (layers + 1)).move(-0.5, 0, z), sponge)
            s.add(extrude(wedge * 1.01, 0.24 * h / (layers + 1)).move(-0.505, 0, (k + 1) * h / (layers + 1)), icing)
        back = np.concatenate([arc(1.05, -a / 2, a / 2, 8), arc(1.0, a / 2, -a / 2, 8)])
        s.add(extrude(back, h * 1.04).move(-0.5, 0, 0.54 * h), icing)
        s.add(
            ellipsoid(0.09, 0.09, 0.1, 12).move(0.25, 0, h + 0.14) if chance(rng, 0.5) else swirl(0.13, 0.2).move(0.3, 0, h + 0.04), second
        )
        s.add(cylinder(0.75, 0.04, n=36, radius=0.015).move(z=-0.03), mat.ceramic(rng))
        turn = rng.uniform(-2.5, 2.5)
        out = Sketch(s.noun)
        out.merge(s, lambda p: p.turn("z", turn))
        return out
    if kind == "ring":
        lobes = int(rng.integers(8, 15))
        part = torus(0.36, 0.22, 48, 16).scale(1, 1, rng.uniform(1.0, 1.4))
        s.add(part.warp(lambda v: v * (1 + 0.06 * np.cos(lobes * np.arctan2(v[:, 1], v[:, 0])))[:, None] * [1, 1, 1]).move(z=0.22), sponge)
        s.add(torus(0.36, 0.2, 36, 12).scale(1, 1, 0.5).move(z=0.4), icing)
        scatter(rng, s, 0.42, 0.5, 8)
    else:
        z, radius = 0.0, r
        for k in range(1 if kind == "round" else int(rng.integers(2, 5))):
            tall = h * (1 if k == 0 else rng.uniform(0.7, 1.0))
            body = sponge if kind == "round" and chance(rng, 0.5) else icing if k % 2 == 0 or chance(rng, 0.5) else second
            power = 2.0
            s.add(revolve([(0, z), (radius, z), (radius, z + tall - 0.03), (radius - 0.03, z + tall), (0, z + tall)], 36, power), body)
            if body is sponge:
                s.add([torus(radius, 0.03, 36, 8).move(z=z + tall * (j + 1) / (layers + 1)) for j in range(layers)], icing)
            if chance(rng, 0.6):
                drops = np.concatenate([[(np.cos(t), np.sin(t))] for t in np.linspace(0, 2 * np.pi, 25)[:-1]])
                long = rng.uniform(0.15, 0.55, 24) * tall
                s.add(
                    [
                        rod(
                            (x * radius, y * radius, z + tall - 0.02),
                            (x * radius, y * radius, z + tall - q),
                            0.05 * radius / 0.5,
                            sides=8,
                            ends="round",
                        )
                        for (x, y), q in zip(drops[::2], long[::2], strict=True)
                    ],
                    second,
                )
                s.add(cylinder(1.02 * radius, 0.05, n=36, radius=0.02).move(z=z + tall), second)
            elif chance(rng, 0.6):
                s.add(around(ellipsoid(0.06, 0.06, 0.05, 10).move(radius - 0.03, 0, z + tall + 0.02), int(rng.integers(10, 20))), second)
            if chance(rng, 0.5):
                s.add(around(ellipsoid(0.05, 0.05, 0.05, 10).move(radius + 0.01, 0, z + 0.03), 18), icing if body is not icing else second)
            z, radius = z + tall, radius * rng.uniform(0.62, 0.78)
        radius = radius / 0.7
        deco = pick(rng, ("candles", "berries", "swirls", "one"))
        if deco == "candles":
            wax, flame, n = mat.plastic(rng), mat.plain(mat.rgb("ffc93c")), int(rng.integers(1, 9))
            stick = [
                cylinder(0.025, 0.2, n=8).move(0.55 * radius * (n > 1), 0, z + 0.12),
                ellipsoid(0.02, 0.02, 0.05, 8).move(0.55 * radius * (n > 1), 0, z + 0.27),
            ]
            s.add(around(stick[0], n), wax)
            s.add(around(stick[1], n), flame)
        elif deco == "berries":
            scatter(rng, s, radius * 0.9, z, int(rng.integers(6, 12)))
        elif deco == "swirls":
            s.add(around(swirl(0.11, 0.14, 5).move(0.7 * radius, 0, z), int(rng.integers(5, 9))), second)
            s.add(ellipsoid(0.08, 0.08, 0.08, 12).move(z=z + 0.06), mat.plain(mat.rgb("c81d35")))
        else:
            s.add(
                [ellipsoid(0.1, 0.1, 0.11, 14).move(z=z + 0.08), rod((0, 0, z + 0.15), (0.04, 0.03, z + 0.3), 0.012, sides=6)],
                mat.plain(mat.rgb("c81d35")),
            )
    plate = mat.ceramic(rng)
    if chance(rng, 0.35):
        s.add(
            revolve([(0, -0.3), (0.3, -0.3), (0.28, -0.27), (0.07, -0.2), (0.06, -0.06), (0.65, -0.03), (0.65, 0.0), (0, 0.0)], 32), plate
        )
    else:
        s.add(cylinder(0.66, 0.04, n=36, radius=0.015).move(z=-0.02), plate)
    return s


def ice_cream(rng: Rng) -> Sketch:
    """Cone with scoops or a swirl, sundae in a glass, bar on a stick, sandwich."""
    kind = pick(rng, ("cone", "cone", "soft", "sundae", "bar"))
    s = Sketch("ice cream" if kind != "bar" else "ice lolly")
    waffle = mat.textured(pick(rng, (patterns.tiles, patterns.weave))(rng, mat.rgb("d9a05a"), mat.rgb("b5793a")), "brown", 4.0)
    if kind == "bar":
        w, h, t = rng.uniform(0.22, 0.3), rng.uniform(0.7, 1.0), rng.uniform(0.08, 0.13)
        outline = np.concatenate([[(-w, -h / 2), (w, -h / 2)], arc(w, 0, np.pi, 12, 0, h / 2 - w)])
        ice, dip = sweet(rng), sweet(rng)
        level = min(rng.uniform(-0.2, 0.3) * h, h / 2 - w - 0.03)
        s.add(extrude(outline, 2 * t, bevel=0.35 * t).facing(), ice)
        if chance(rng, 0.7):
            top = np.concatenate([[(-w * 1.04, level), (w * 1.04, level)], arc(w * 1.04, 0, np.pi, 12, 0, h / 2 - w)])
            s.add(extrude(top, 2.15 * t, bevel=0.35 * t).facing(), dip)
        if chance(rng, 0.5):
            s.add([box(0.04, 0.07, 0.55 * h, 0.02).move(t, y, -0.02) for y in (-0.4 * w, 0.4 * w)], dip)
        s.add(box(0.05, 0.13, 0.5, 0.02).move(z=-h / 2 - 0.2), mat.wood(rng))
        if chance(rng, 0.3):
            s.add(box(0.13, 0.3, 0.2, 0.02).move(0, 0, -h / 2 - 0.02), mat.painted(rng))
        return s
    r, z = rng.uniform(0.24, 0.3), 0.0
    if kind == "sundae":
        profile = hollow(np.array([(0.05, 0.2), (0.2, 0.3), (0.34, 0.6), (0.38, 0.9)]), 0.03)
        s.add(revolve(profile, 28), mat.plain(mat.rgb(pick(rng, ("cfe6ee", "f0d0dc", "e0efe0")))))
        s.add(revolve([(0, 0), (0.26, 0), (0.24, 0.03), (0.05, 0.06), (0.05, 0.22), (0, 0.22)], 24), s.materials[0])
        z = 0.85
        for k in range(3):
            s.add(blob(rng, 0.2, 0.04, 18).move(0.17 * np.cos(2.1 * k), 0.17 * np.sin(2.1 * k), z + 0.1), sweet(rng))
        s.add(blob(rng, 0.2, 0.04, 18).move(z=z + 0.3), sweet(rng))
        s.add(rod((0.15, -0.1, z), (0.3, -0.35, z + 0.75), 0.03), mat.printed(rng) if chance(rng, 0.5) else waffle)
        top = z + 0.5
    else:
        h = rng.uniform(0.7, 1.0) if chance(rng, 0.75) else 0.0
        if h:
            s.add(revolve([(0, 0), (0.02, 0), (r, h), (1.05 * r, h + 0.04), (0, h + 0.04)], 24), waffle)
        else:
            h = 0.5
            s.add(revolve([(0, 0), (0.55 * r, 0), (0.65 * r, 0.28), (0.95 * r, 0.32), (r, h), (0, h)], 24), waffle)
            s.add(torus(0.98 * r, 0.025, 24, 6).move(z=h), waffle)
        if kind == "soft":
            ice = sweet(rng)
            t = np.linspace(0, 1, 70)
            a = 2 * np.pi * rng.uniform(2.5, 3.6) * t
            out = 0.62 * r * (1 - t) ** 0.8
            path = np.stack([out * np.cos(a), out * np.sin(a), h + 0.05 + rng.uniform(0.5, 0.75) * t], 1)
            s.add(sweep(path, 0.62 * r * (1 - 0.75 * t) + 0.01, 10, ends="round"), ice)
            top = float(path[-1, 2]) + 0.05
        else:
            z = h + 0.5 * r
            for k in range(int(rng.integers(1, 4))):
                q = 1.12 * r * (1 - 0.07 * k)
                ice, lean = sweet(rng), rng.normal(0, 0.02, 2)
                s.add(blob(rng, q, 0.025, 22).move(lean[0], lean[1], z), ice)
                s.add(around(ellipsoid(0.09, 0.09, 0.07, 10).move(0.93 * q, 0, z - 0.42 * q), int(rng.integers(9, 13))), ice)
                z += 1.25 * q
            top = z - 0.25 * r
    if chance(rng, 0.45):
        s.add(
            [ellipsoid(0.075, 0.075, 0.075, 12).move(z=top + 0.03), rod((0, 0, top + 0.1), (0.04, 0.02, top + 0.22), 0.01, sides=6)],
            mat.plain(mat.rgb("c81d35")),
        )
    if chance(rng, 0.35):
        s.add(box(0.05, 0.16, 0.5, 0.01).turn("x", -0.45).move(0, 0.2, top), waffle)
    if chance(rng, 0.35):
        sauce = sweet(rng)
        s.add(ellipsoid(0.7 * r, 0.7 * r, 0.2 * r, 18).move(z=top - 0.16 * r), sauce)
    return s
