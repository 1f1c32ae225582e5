# SPDX-License-Identifier: Apache-2.0
"""Savoury things: burger, sandwich, hot dog, pizza, sushi, fries, pie."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import arc, extrude
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    around,
    box,
    circle,
    cylinder,
    ellipsoid,
    hollow,
    rectangle,
    revolve,
    rod,
    sweep,
    torus,
)
from bozzetto_objects.treats import dough, scatter, sweet, swirl


def snack(rng: Rng) -> Sketch:
    """Burger, sandwich, hot dog, pizza slice, sushi, fries, tart or pie."""
    kind = pick(rng, ("burger", "burger", "sandwich", "hot dog", "pizza", "sushi", "fries", "pie"))
    s = Sketch({"pizza": "slice of pizza"}.get(kind, kind))
    bread, green, red = dough(rng), mat.leaf(rng), mat.plain(mat.rgb("d8382e"))
    meat, cheese = (
        mat.painted(rng, [mat.rgb("6b3a22"), mat.rgb("8a4a2a"), mat.rgb("d98a7a")]),
        mat.plain(mat.rgb(pick(rng, ("f6b92e", "f8dc7a")))),
    )

    def ruffle(r: float, z: float, m: Material, wave: float = 0.04, square: bool = False) -> None:
        sheet = revolve([(0, -0.015), (0.6 * r, -0.015), (r, -0.015), (r, 0.015), (0.6 * r, 0.015), (0, 0.015)], 36, 6.0 if square else 2.0)
        n = int(rng.integers(6, 10))
        s.add(
            sheet.warp(
                lambda v: (
                    v
                    + np.column_stack(
                        [0 * v[:, :2], wave * np.sin(n * np.arctan2(v[:, 1], v[:, 0])) * (np.hypot(v[:, 0], v[:, 1]) / r) ** 2]
                    )
                )
            ).move(z=z),
            m,
        )

    if kind == "burger":
        r, z = 0.5, 0.0
        s.add(revolve([(0, 0), (0.85 * r, 0), (r, 0.06), (r, 0.14), (0.95 * r, 0.16), (0, 0.16)], 32), bread)
        z = 0.18
        for _ in range(int(rng.integers(2, 6))):
            what = pick(rng, ("patty", "leaf", "cheese", "tomato"))
            if what == "patty":
                s.add(cylinder(1.02 * r, 0.14, n=32, radius=0.06).move(z=z + 0.06), meat)
                z += 0.14
            elif what == "leaf":
                ruffle(1.14 * r, z, green)
                z += 0.04
            elif what == "cheese":
                slab = box(1.7 * r, 1.7 * r, 0.025, 0.005)
                s.add(slab.turn("z", rng.uniform(0, 1)).move(z=z + 0.01), cheese)
                z += 0.03
            else:
                s.add(
                    [
                        cylinder(0.5 * r, 0.06, n=20, radius=0.02).move(0.42 * r * np.cos(a), 0.42 * r * np.sin(a), z + 0.02)
                        for a in (0.3, 2.4, 4.5)
                    ],
                    red,
                )
                z += 0.06
        t = np.linspace(0.1, np.pi / 2, 9)
        top = rng.uniform(0.28, 0.42)
        s.add(
            revolve([(0, z), (0.9 * r, z), *np.stack([1.02 * r * np.cos(t), z + 0.03 + top * np.sin(t)], 1), (0, z + 0.03 + top)], 32),
            bread,
        )
        for k in range(pick(rng, (0, 24))):
            a, up = 2.4 * k, 0.5 + 1.0 * k / 24
            s.add(
                ellipsoid(0.028, 0.018, 0.015, 6)
                .turn("z", a)
                .move(np.cos(up) * r * np.cos(a), np.cos(up) * r * np.sin(a), z + 0.04 + top * np.sin(up)),
                mat.WHITE,
            )
        if chance(rng, 0.25):
            s.add(
                [rod((0, 0, z), (0, 0, z + top + 0.35), 0.012, sides=6), box(0.01, 0.2, 0.14).move(0, 0.1, z + top + 0.28)],
                mat.plastic(rng),
            )
    elif kind == "sandwich":
        tri, z = np.array([(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5)]), 0.0
        tri = tri if chance(rng, 0.6) else rectangle(0.5, 0.45, 0.1)
        crumb = mat.plain(mat.rgb("f3e3c0"))
        s.add([extrude(tri, 0.1, bevel=0.02).move(z=q) for q in (0.05, 0.32)], crumb, (lambda p: np.abs(p.outward[:, 2]) < 0.3, bread))
        for z, m in zip((0.13, 0.17, 0.22, 0.26), (green, meat, cheese, red), strict=True):
            s.add(extrude(tri * rng.uniform(0.9, 1.06), 0.035).move(0.01, 0.01, z), m)
        if chance(rng, 0.4):
            s.add([rod((-0.15, -0.15, 0.1), (-0.15, -0.15, 0.65), 0.012, sides=6)], mat.wood(rng))
            s.add(ellipsoid(0.06, 0.06, 0.05, 10).move(-0.15, -0.15, 0.42), green)
    elif kind == "hot dog":
        bend = rng.uniform(0, 0.15)
        y = np.linspace(-0.5, 0.5, 12)
        path = np.stack([0 * y, y, bend * y**2 * 4], 1)
        s.add(
            [
                sweep(path + np.array([k * 0.11, 0, 0]), np.array([[0.13, 0.17]] * 12), circle(14), ends="round", up=(0, 0, 1))
                for k in (-1, 1)
            ],
            bread,
        )
        s.add(
            sweep(path * [1, 1.2, 1] + [0, 0, 0.14], 0.1, 14, ends="round"), mat.plain(mat.rgb(pick(rng, ("b5452e", "c8603a", "8a3a28"))))
        )
        w = np.linspace(-0.5, 0.5, 40)
        s.add(sweep(np.stack([0.05 * np.sin(30 * w), w, 0.24 + bend * w**2 * 4], 1), 0.022, 6, ends="round"), pick(rng, (cheese, red)))
        if chance(rng, 0.4):
            s.add(box(0.5, 1.1, 0.03, 0.01).move(z=-0.17), mat.ceramic(rng))
    elif kind == "pizza":
        a = rng.uniform(0.35, 0.5)
        wedge = np.concatenate([[[0.0, 0.0]], arc(1.0, -a, a, 9)])
        s.add(extrude(wedge, 0.05, bevel=0.01), bread)
        s.add(extrude(wedge * 0.95 + [0.02, 0], 0.05).move(z=0.015), pick(rng, (cheese, red)))
        rim = np.column_stack([arc(0.98, -a, a, 12), np.full(12, 0.03)])
        s.add(sweep(rim, 0.065, 10, ends="round"), bread)
        for k in range(int(rng.integers(3, 8))):
            x = rng.uniform(0.3, 0.85)
            y = rng.uniform(-0.8, 0.8) * a * (x - 0.1)
            what = pick(
                rng,
                (
                    cylinder(0.085, 0.03, n=16).move(x, y, 0.05),
                    ellipsoid(0.07, 0.035, 0.02, 8).turn("z", k).move(x, y, 0.05),
                    torus(0.05, 0.018, 14, 6).move(x, y, 0.05),
                ),
            )
            s.add(what, pick(rng, (red, green, mat.DARK, meat)))
        out, turn = Sketch(s.noun), rng.uniform(-3, 3)
        out.merge(s, lambda p: p.turn("z", turn))
        return out
    elif kind == "sushi":
        rice, nori, fishy = (
            mat.WHITE,
            mat.plain(mat.rgb("1f2d24")),
            mat.painted(rng, [mat.rgb("f58a5a"), mat.rgb("e8504a"), mat.rgb("f6c84a")]),
        )
        n = int(rng.integers(1, 4))
        for k in range(n):
            y = (k - (n - 1) / 2) * 0.5
            if chance(rng, 0.5):
                s.add(cylinder(0.2, 0.26, n=24, radius=0.02).move(0, y, 0.13), nori)
                s.add(cylinder(0.18, 0.27, n=24).move(0, y, 0.135), rice)
                s.add(cylinder(0.08, 0.28, n=14).move(0, y, 0.14), fishy)
            else:
                s.add(ellipsoid(0.32, 0.17, 0.14, 18, 2.5, 3).move(0, y, 0.14), rice)
                bow = np.linspace(-0.42, 0.42, 10)
                s.add(
                    sweep(
                        np.stack([bow, 0 * bow + y, 0.3 - 0.9 * bow**2], 1),
                        np.array([[0.17, 0.035]] * 10),
                        circle(10, 3),
                        ends="round",
                        up=(0, 0, 1),
                    ),
                    fishy,
                )
                if chance(rng, 0.5):
                    s.add(box(0.1, 0.38, 0.33, 0.03).move(0, y, 0.15), nori)
        s.add(box(0.95, 0.5 * n + 0.25, 0.06, 0.02).move(z=-0.03), mat.wood(rng))
    elif kind == "fries":
        h, fry = 0.6, mat.plain(mat.rgb(pick(rng, ("f5c542", "e8b04a"))))
        pack = revolve(hollow(np.array([(0.26, 0), (0.32, 0.3), (0.38, h)]), 0.03), 32, 5.0).scale(0.6, 1, 1)
        s.add(pack, mat.printed(rng) if chance(rng, 0.5) else mat.plastic(rng))
        for _ in range(int(rng.integers(14, 26))):
            x, y = rng.uniform(-0.14, 0.14), rng.uniform(-0.28, 0.28)
            s.add(
                box(0.055, 0.055, rng.uniform(0.45, 0.7), 0.008).turn("x", -0.6 * y).turn("y", x + rng.normal(0, 0.08)).move(x, y, 0.62),
                fry,
            )
    else:
        r = 0.5
        s.add(revolve([(0, 0), (0.8 * r, 0), (1.05 * r, 0.2), (1.0 * r, 0.24), (0, 0.2)], 32), bread)
        s.add(around(ellipsoid(0.08, 0.09, 0.05, 10).move(1.0 * r, 0, 0.22), 18), bread)
        filling = mat.painted(rng, [mat.rgb(c) for c in ("8a1a2e", "e8a03a", "6b3e26", "4a2a6a", "f4d24a")])
        s.add(ellipsoid(0.93 * r, 0.93 * r, 0.1, 28).move(z=0.2), filling)
        if chance(rng, 0.6):
            for y in np.linspace(-0.32, 0.32, 4):
                w = np.sqrt(0.24 - y * y)
                s.add(
                    sweep(
                        np.stack([np.linspace(-w, w, 7), np.full(7, y), 0.29 - 0.1 * (np.linspace(-w, w, 7) ** 2 + y * y) * 3], 1),
                        np.array([[0.045, 0.02]] * 7),
                        8,
                        up=(0, 0, 1),
                    ),
                    bread,
                )
                s.add(
                    sweep(
                        np.stack([np.full(7, y), np.linspace(-w, w, 7), 0.3 - 0.1 * (np.linspace(-w, w, 7) ** 2 + y * y) * 3], 1),
                        np.array([[0.045, 0.02]] * 7),
                        8,
                        up=(0, 0, 1),
                    ),
                    bread,
                )
        else:
            scatter(rng, s, 0.42, 0.28, 9)
            s.add(swirl(0.14, 0.18).move(z=0.28), sweet(rng))
        s.add(cylinder(0.62, 0.03, n=32).move(z=-0.01), mat.ceramic(rng))
    return s
