# SPDX-License-Identifier: Apache-2.0
"""Insects and shelled animals: ladybird, bee, butterfly, ant, spider, snail, turtle, caterpillar, crab. They look to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.creatures import eyes
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import extrude, smooth
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    both,
    box,
    cylinder,
    ellipsoid,
    limb,
    revolve,
    rod,
    spline,
    sweep,
)


def bug(rng: Rng) -> Sketch:
    """Ladybird, bee, butterfly, ant, spider, snail, turtle, caterpillar, crab."""
    kind = pick(rng, ("ladybird", "bee", "butterfly", "ant", "spider", "snail", "turtle", "caterpillar", "crab"))
    s = Sketch(kind)
    c = mat.any_colour(rng)
    dark, bright = mat.BLACK if chance(rng, 0.6) else mat.painted(rng, mat.FURS), mat.plain(c)
    a, b = rng.uniform(0.42, 0.55), rng.uniform(0.3, 0.45)

    def legs(count: int, out: float, z: float, spread: float, t: float, x0: float = 0.0) -> None:
        for x in np.linspace(-spread, spread, count):
            s.add(
                both(
                    sweep(
                        spline([(x0 + 0.5 * x, 0.08, z), (x0 + x, 0.55 * out, z + 0.35 * out), (x0 + 1.3 * x, out, 0.01)], 8),
                        t,
                        6,
                        ends="round",
                    )
                ),
                dark,
            )

    def feelers(x: float, z: float, m: Material, long: float = 0.25) -> None:
        s.add(both(sweep(spline([(x, 0.05, z), (x + 0.4 * long, 0.12, z + 0.8 * long), (x + long, 0.18, z + long)], 8), 0.013, 6)), m)
        s.add(both(ellipsoid(0.03, 0.03, 0.03, 8).move(x + long, 0.18, z + long)), m)

    if kind in ("ladybird", "turtle"):
        h = rng.uniform(0.25, 0.42)
        tortoise = mat.textured(pick(rng, (patterns.shingles, patterns.tiles, patterns.dots))(rng, c, 0.5 * c), mat.word_for(c), 3.0)
        dome = revolve([(0, 0), (0.97, 0), *np.stack([np.cos(t := np.linspace(0.05, 1.5, 9)), np.sin(t)], 1), (0, 1)], 26).scale(a, b, h)
        s.add(dome.move(z=0.1), tortoise if kind == "turtle" else mat.plain(mat.rgb("d7263d")) if chance(rng, 0.6) else bright)
        if kind == "ladybird":
            s.add(box(1.8 * a, 0.025, 0.05).move(z=h + 0.1), dark)
            for k in range(int(rng.integers(2, 5))):
                lon, lat = 0.6 + 0.75 * k, rng.uniform(0.3, 1.1)
                n = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * abs(np.sin(lon)), np.sin(lat)])
                s.add(both(ellipsoid(0.085, 0.085, 0.03, 12).aim(n / [a, b, h]).move(*(n * [a, b, h])).move(z=0.1)), dark)
            s.add(ellipsoid(0.17, 0.2, 0.15, 16).move(a, 0, 0.18), dark)
            eyes(rng, s, np.array([a + 0.1, 0.12, 0.25]), 0.05, 0.4, "white")
            feelers(a + 0.1, 0.28, dark, 0.16)
            legs(3, b + 0.12, 0.12, 0.6 * a, 0.022)
        else:
            skin = mat.painted(rng, mat.PLANTS) if chance(rng, 0.7) else mat.painted(rng)
            s.add(
                revolve([(0, 0), (1.05, 0), (1.08, 0.12), (0.9, 0.2), (0, 0.2)], 26).scale(a, b, 0.4).move(z=0.06),
                skin if chance(rng, 0.5) else mat.plain(0.6 * c),
            )
            s.add(limb([(0.7 * a, 0, 0.14), (a + 0.12, 0, 0.2), (a + 0.22, 0, 0.3)], [0.12, 0.09, 0.1], 8), skin)
            s.add(ellipsoid(0.15, 0.12, 0.12, 16).move(a + 0.27, 0, 0.33), skin)
            eyes(rng, s, np.array([a + 0.33, 0.09, 0.38]), 0.03, 0.6)
            s.add(
                [
                    p
                    for x in (0.6 * a, -0.65 * a)
                    for p in both(limb([(x, 0.6 * b, 0.12), (x * 1.25, b + 0.08, 0.07), (x * 1.4, b + 0.14, 0.04)], [0.1, 0.09, 0.06], 6))
                ],
                skin,
            )
            s.add(cylinder(0.05, 0.2, 0.005, n=8).turn("y", -np.pi / 2).move(-a - 0.08, 0, 0.1), skin)
    elif kind in ("bee", "ant", "spider"):
        z = rng.uniform(0.22, 0.35)
        coat = mat.textured(patterns.bands(rng, mat.rgb("f4c92b"), mat.rgb("1c1c1e")), "striped", None) if kind == "bee" else dark
        abdomen = ellipsoid(0.26, 0.26, 0.38 if kind != "spider" else 0.3, 20).turn("y", np.pi / 2 + 0.15).move(-0.38, 0, z + 0.03)
        stripes = [(lambda p: np.floor((p.centres[:, 0] + 2) / 0.13) % 2 == 0, mat.BLACK)] if kind == "bee" else []
        s.add(abdomen, mat.plain(mat.rgb("f2c12e")) if kind == "bee" else coat if chance(rng, 0.5) else bright, *stripes)
        s.add(ellipsoid(0.2, 0.18, 0.18, 16).move(0.05, 0, z), coat if kind != "bee" else mat.plain(mat.rgb("5a3a22")))
        s.add(ellipsoid(0.16, 0.17, 0.16, 16).move(0.33, 0, z + 0.04), dark if kind != "bee" else mat.plain(mat.rgb("f2c12e")))
        eyes(rng, s, np.array([0.42, 0.1, z + 0.1]), 0.05, 0.4)
        feelers(0.4, z + 0.16, dark, 0.2)
        legs(3 if kind != "spider" else 4, rng.uniform(0.45, 0.75) if kind == "spider" else 0.35, z - 0.03, 0.3, 0.022, 0.05)
        if kind == "bee":
            s.add(
                both(ellipsoid(0.16, 0.36, 0.012, 14).move(0, 0.32, 0).turn("x", 0.4).turn("z", 0.35).move(0, 0.05, z + 0.16)),
                mat.plain(mat.rgb("dcebf2")),
            )
            s.add(cylinder(0.04, 0.14, 0.003, n=8).turn("y", -np.pi / 2).move(-0.8, 0, z - 0.03), dark)
    elif kind == "butterfly":
        lift, wing = (
            rng.uniform(0.15, 1.1),
            mat.textured(patterns.dots(rng, c, mat.any_colour(rng)), mat.word_for(c), 3.0) if chance(rng, 0.5) else bright,
        )
        s.add(limb([(0.3, 0, 0), (0, 0, 0.01), (-0.4, 0, 0)], [0.06, 0.07, 0.035], 10), dark)
        s.add(ellipsoid(0.08, 0.08, 0.08, 12).move(0.38, 0, 0.02), dark)
        feelers(0.4, 0.06, dark, 0.25)
        big = smooth([(0.12, 0), (0.5, 0.45), (0.55, 0.8), (0.25, 0.85), (-0.05, 0.5), (-0.05, 0)], 28)
        small = smooth([(0.0, 0), (0.02, 0.4), (-0.2, 0.62), (-0.5, 0.5), (-0.45, 0.15), (-0.15, 0)], 26)
        for shape, m in ((big, wing), (small, wing if chance(rng, 0.5) else mat.painted(rng))):
            s.add(both(extrude(shape, 0.02, bevel=0.005).turn("x", lift)), m)
            inner = (shape - shape.mean(0)) * 0.6 + shape.mean(0)
            s.add(both(extrude(inner, 0.028, bevel=0.004).turn("x", lift)), dark if m is bright else mat.painted(rng))
    elif kind == "snail":
        n, turns = 64, rng.uniform(2.0, 3.0)
        ang = np.linspace(0, 2 * np.pi * turns, n)
        rad = 0.34 * np.exp(-0.2 * ang)
        coil = np.stack([-0.1 - rad * np.cos(ang + 1.2), 0.02 * ang, 0.42 + rad * np.sin(ang + 1.2)], 1)
        shell = mat.textured(patterns.stripes(rng, c, 0.55 * c), mat.word_for(c), 4.0) if chance(rng, 0.5) else bright
        s.add(sweep(coil, 0.62 * rad, 12, ends="round").move(y=-0.1), shell)
        flesh = mat.painted(rng, mat.SKINS + mat.FURS)
        s.add(
            limb(
                [(-0.7, 0, 0.02), (-0.3, 0, 0.07), (0.3, 0, 0.1), (0.55, 0, 0.2), (0.65, 0, 0.42)], [0.03, 0.11, 0.13, 0.12, 0.11], 16, 12
            ),
            flesh,
        )
        s.add(both(limb([(0.66, 0.05, 0.48), (0.72, 0.09, 0.62), (0.78, 0.12, 0.74)], [0.025, 0.02, 0.02], 6, 8)), flesh)
        eyes(rng, s, np.array([0.79, 0.12, 0.77]), 0.045, 0.2)
    elif kind == "caterpillar":
        count, wave = int(rng.integers(5, 10)), rng.uniform(0.0, 0.2)
        other = bright if chance(rng, 0.4) else mat.painted(rng)
        for k in range(count):
            x, z = (k - count / 2) * 0.22, 0.2 + wave * np.sin(1.1 * k) ** 2
            s.add(ellipsoid(0.15, 0.17, 0.18, 16).move(x, 0, z), bright if k % 2 else other)
            s.add(both(rod((x, 0.1, z - 0.05), (x, 0.17, max(z - 0.22, 0)), 0.03, 0.035, 8, ends="round")), dark)
        x = count / 2 * 0.22
        s.add(ellipsoid(0.21, 0.22, 0.22, 18).move(x, 0, 0.32), bright if chance(rng, 0.5) else mat.painted(rng))
        eyes(rng, s, np.array([x + 0.16, 0.1, 0.38]), 0.055, 0.3)
        feelers(x, 0.5, dark, 0.18)
    else:
        s.add(ellipsoid(0.3, 0.45, 0.17, 22, 2.3).move(z=0.26), bright)
        s.add(
            [
                p
                for x in (-0.15, -0.02, 0.11)
                for p in both(sweep(spline([(x, 0.35, 0.24), (1.5 * x, 0.6, 0.4), (2 * x, 0.75, 0.02)], 8), np.linspace(0.04, 0.02, 8), 6))
            ],
            bright,
        )
        s.add(both(limb([(0.2, 0.36, 0.26), (0.35, 0.62, 0.32), (0.5, 0.55, 0.36)], [0.05, 0.055, 0.06], 8)), bright)
        for k in (-1, 1):
            s.add(
                both(limb([(0.5, 0.55, 0.36), (0.62, 0.53 + 0.1 * k, 0.4), (0.78, 0.5 + 0.03 * k, 0.42)], [0.09, 0.085, 0.02], 8)), bright
            )
        s.add(both(rod((0.22, 0.12, 0.36), (0.25, 0.13, 0.5), 0.02)), bright)
        eyes(rng, s, np.array([0.25, 0.13, 0.52]), 0.055, 0.1)
    return s
