# SPDX-License-Identifier: Apache-2.0
"""Two and three wheels: bicycle, tricycle, scooter, penny-farthing, motorcycle. They travel towards +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    beam,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    hollow,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def bicycle(rng: Rng) -> Sketch:
    """Bicycle, tricycle, scooter, penny-farthing, motorcycle: thin tubes and spoked wheels."""
    kind = pick(rng, ("bicycle", "tricycle", "scooter", "penny-farthing", "motorcycle"), (3, 2, 1.5, 1, 3))
    s = Sketch(kind)
    paint, trim, grip, seat = mat.finish(rng), mat.metal(rng), mat.DARK, mat.leather(rng)
    t = rng.uniform(0.018, 0.03)

    def rim(x: float, y: float, r: float, thick: float, spokes: int) -> None:
        s.add(torus(r - thick, thick, 32, 8).turn("x", np.pi / 2).move(x, y, r), mat.DARK)
        s.add(torus(r - 1.9 * thick, 0.5 * thick, 28, 6).turn("x", np.pi / 2).move(x, y, r), trim)
        s.add(
            [
                rod((0, 0, 0), (0, 0, r - 1.8 * thick), 0.008, sides=5).turn("y", 2 * np.pi * k / spokes).move(x, y, r)
                for k in range(spokes)
            ],
            trim,
        )
        s.add(cylinder(0.05, 0.12, n=12).turn("x", np.pi / 2).move(x, y, r), trim)

    def bars(x: float, z: float, wide: float, back: float, rise: float) -> None:
        path = spline(
            [(x - back, wide, z + rise), (x, 0.7 * wide, z + rise), (x, 0, z), (x, -0.7 * wide, z + rise), (x - back, -wide, z + rise)], 20
        )
        s.add(sweep(path, 0.8 * t, 8), trim)
        s.add([sweep([path[0], path[2]], 1.5 * t, 8), sweep([path[-1], path[-3]], 1.5 * t, 8)], grip)

    if kind in ("bicycle", "tricycle"):
        r = rng.uniform(0.3, 0.38) if kind == "bicycle" else rng.uniform(0.22, 0.3)
        base = rng.uniform(0.95, 1.1) if kind == "bicycle" else rng.uniform(0.7, 0.85)
        r2 = r if kind == "bicycle" else rng.uniform(0.13, 0.2)
        back, front, crank = (
            np.array([-base / 2, 0, r2]),
            np.array([base / 2, 0, r]),
            np.array([-0.08 if kind == "bicycle" else base / 2, 0, 0.9 * r]),
        )
        head, top = np.array([base / 2 - 0.18, 0, r + rng.uniform(0.36, 0.46)]), np.array([-0.22, 0, r + rng.uniform(0.3, 0.42)])
        n = int(rng.integers(6, 14))
        rim(base / 2, 0, r, rng.uniform(0.02, 0.045), n)
        if kind == "bicycle":
            rim(-base / 2, 0, r, rng.uniform(0.02, 0.045), n)
            low_bar = chance(rng, 0.3)
            frame = [(crank, head), (crank, top), (back, top), (back, crank)] + (
                [] if low_bar else [(top * [1, 1, 0.96], head * [1, 1, 0.98])]
            )
        else:
            for y in (-0.24, 0.24):
                rim(-base / 2, y, r2, 0.03, 5)
            s.add(rod(back - [0, 0.26, 0], back + np.array([0, 0.26, 0]), t), trim)
            frame = [(back, head), (back, top), (top, head * [1, 1, 0.9])]
        s.add([rod(a, b, t) for a, b in frame], paint)
        s.add([p for y in (0.055,) for p in both(rod(front + np.array([0, y, 0]), head + np.array([0, 0.6 * y, -0.02]), 0.8 * t))], paint)
        stem = head + np.array([-0.04, 0, rng.uniform(0.1, 0.2)])
        s.add(rod(head - [0, 0, 0.05], stem, 1.1 * t), trim)
        bars(stem[0], stem[2], rng.uniform(0.2, 0.3), rng.uniform(-0.05, 0.16), rng.uniform(-0.06, 0.08))
        post = top + np.array([-0.03, 0, rng.uniform(0.06, 0.16)])
        s.add(rod(top, post, 0.8 * t), trim)
        s.add(
            sweep(
                [post + np.array([0.14, 0, 0.01]), post, post + np.array([-0.12, 0, 0.03])],
                np.array([[0.025, 0.025], [0.05, 0.03], [0.1, 0.035]]),
                circle(10, 3),
                ends="round",
                up=(0, 0, 1),
            ),
            seat,
        )
        s.add(cylinder(0.09, 0.02, n=18).turn("x", np.pi / 2).move(*crank).move(y=0.05), trim)
        for k in (-1, 1):
            foot = crank + np.array([k * 0.11, k * 0.09, k * 0.1])
            s.add(beam(crank + np.array([0, k * 0.07, 0]), foot, 0.025, 0.02, up=(0, 1, 0)), trim)
            s.add(box(0.1, 0.1, 0.025).move(*(foot + np.array([0, k * 0.05, 0]))), grip)
        if chance(rng, 0.3):
            s.add(
                revolve(hollow(np.array([(0.09, 0), (0.1, 0.05), (0.13, 0.16)]), 0.012), 16, 4.0).move(*(head + np.array([0.2, 0, -0.05]))),
                mat.wood(rng),
            )
        if kind == "bicycle" and chance(rng, 0.4):
            a = np.linspace(0.3, 2.6, 14)
            for q in (-1, 1):
                path = np.stack([q * base / 2 - (r + 0.03) * np.cos(a) * (1 if q > 0 else -1), 0 * a, r + (r + 0.03) * np.sin(a)], 1)
                s.add(sweep(path, 0.028, 6), paint)
    elif kind == "scooter":
        r, base = rng.uniform(0.1, 0.15), 0.7
        for x in (-base / 2, base / 2):
            s.add(cylinder(r, 0.06, n=24, radius=0.02).turn("x", np.pi / 2).move(x, 0, r), mat.DARK)
            s.add(cylinder(0.55 * r, 0.075, n=18).turn("x", np.pi / 2).move(x, 0, r), trim)
        s.add(box(base - 0.15, 0.17, 0.04, 0.015).move(-0.05, 0, r), paint)
        high = rng.uniform(0.75, 1.0)
        s.add(
            [
                rod((base / 2 - 0.09, 0, r), (base / 2 - 0.12, 0, 2.3 * r), t * 1.3),
                rod((base / 2, 0, r), (base / 2 - 0.15, 0, high), 1.2 * t),
            ],
            paint,
        )
        bars(base / 2 - 0.15, high, 0.22, 0.0, 0.0)
    elif kind == "penny-farthing":
        r, q = rng.uniform(0.5, 0.65), rng.uniform(0.13, 0.18)
        rim(0.2, 0, r, 0.022, 16)
        rim(-0.55, 0, q, 0.018, 8)
        s.add(sweep(spline([(-0.55, 0, q), (-0.42, 0, 0.8 * r), (-0.1, 0, 1.85 * r), (0.2, 0, 2 * r + 0.06)], 14), 1.2 * t, 8), paint)
        s.add(both(rod((0.2, 0.06, r), (0.2, 0.03, 2 * r + 0.08), 0.8 * t)), paint)
        bars(0.2, 2 * r + 0.1, 0.28, 0.1, -0.04)
        s.add(ellipsoid(0.16, 0.08, 0.035, 14).move(-0.05, 0, 2 * r + 0.08), seat)
        s.add([box(0.1, 0.1, 0.03).move(0.2 + k * 0.12, k * 0.12, r) for k in (-1, 1)], grip)
    else:
        r, base = rng.uniform(0.27, 0.34), rng.uniform(1.0, 1.3)
        for x in (-base / 2, base / 2):
            rim(x, 0, r, rng.uniform(0.06, 0.085), int(rng.integers(5, 9)))
        lean = rng.uniform(0.15, 0.4)
        head = np.array([base / 2 - lean, 0, 2 * r + rng.uniform(0.2, 0.3)])
        s.add(both(rod((base / 2, 0.08, r), head + np.array([0, 0.07, 0]), 1.3 * t)), trim)
        s.add(
            sweep(spline([head - [0.02, 0, 0.1], (0.1, 0, 1.9 * r), (-0.3, 0, 1.8 * r), (-base / 2 - 0.1, 0, 2.2 * r)], 12), 0.035, 8),
            paint,
        )
        s.add(both(rod((-0.1, 0.09, 0.9 * r), (-base / 2, 0.09, r), 0.03)), trim)
        s.add(ellipsoid(0.26, 0.15, 0.14, 18, 2.5, 2.5).turn("y", 0.12).move(0.14, 0, 2 * r + 0.16), paint)
        s.add(
            sweep(
                spline([(0.0, 0, 2 * r + 0.1), (-0.3, 0, 2 * r + 0.02), (-0.55, 0, 2 * r + 0.1)], 9),
                np.array([[0.09, 0.05]] * 9),
                circle(10, 3),
                ends="round",
                up=(0, 0, 1),
            ),
            seat,
        )
        s.add(
            [
                box(0.3, 0.2, 0.2, 0.04).move(0.02, 0, 0.95 * r + 0.05),
                *(cylinder(0.09, 0.22, n=14).turn("y", k * 0.4).move(0.02 + k * 0.1, 0, 1.5 * r) for k in (-1, 1)),
            ],
            trim,
        )
        s.add(
            both(
                sweep(
                    spline([(0.15, 0.12, 1.1 * r), (0.1, 0.15, 0.7 * r), (-0.3, 0.16, 0.6 * r), (-base / 2 - 0.1, 0.17, 0.8 * r)], 12),
                    np.linspace(0.025, 0.05, 12),
                    10,
                )
            ),
            trim,
        )
        bars(head[0] - 0.03, head[2] + 0.06, rng.uniform(0.28, 0.36), rng.uniform(0.05, 0.2), rng.uniform(0, 0.2))
        s.add(ellipsoid(0.08, 0.1, 0.1, 14).move(head[0] + 0.12, 0, head[2] - 0.02), mat.plain(mat.rgb("fff3c4"), "cream"))
        s.add(box(0.06, 0.12, 0.06, 0.02).move(-base / 2 - 0.14, 0, 2.2 * r), mat.plain(mat.rgb("c4161c"), "red"))
    return s
