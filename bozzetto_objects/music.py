# SPDX-License-Identifier: Apache-2.0
"""Instruments: guitar and its kin, drum and other things to strike or blow."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.outlines import extrude, smooth
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    around,
    beam,
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


def guitar(rng: Rng) -> Sketch:
    """Acoustic, electric, violin, ukulele, banjo: body, neck, frets, strings, pegs; its face to the front."""
    kind = pick(rng, ("guitar", "electric guitar", "violin", "ukulele", "banjo"), (3, 2, 2, 1.5, 1))
    s = Sketch(kind)
    top, side, neck = mat.wood(rng) if kind != "electric guitar" else mat.finish(rng), mat.wood(rng), mat.wood(rng)
    dark, trim = mat.painted(rng, [mat.rgb("2a1a12"), mat.rgb("1c1c1e"), mat.rgb("4a2e1d")]), mat.metal(rng)
    w, h = rng.uniform(0.3, 0.38), rng.uniform(0.42, 0.52)
    waist, up = rng.uniform(0.6, 0.75), rng.uniform(0.72, 0.9)
    depth = {"electric guitar": 0.08, "violin": 0.12}.get(kind, rng.uniform(0.16, 0.22))
    if kind == "banjo":
        outline, h = circle(36) * w, w
    elif kind == "electric guitar":
        horn = rng.uniform(0.02, 0.16)
        outline = smooth(
            [
                (0.07, h * 0.45),
                (0.22 * w / 0.3, h * 0.72 + horn),
                (0.8 * w, h * 0.55),
                (waist * w, 0.05),
                (w, -0.55 * h),
                (0, -h),
                (-w, -0.55 * h),
                (-waist * w, 0.05),
                (-0.85 * w, h * 0.65),
                (-0.25, h * 0.8 + 1.3 * horn),
                (-0.07, h * 0.45),
            ],
            48,
        )
    else:
        outline = smooth(
            [
                (0, 0.95 * h),
                (up * w * 0.8, 0.85 * h),
                (up * w, 0.55 * h),
                (waist * w, 0.12 * h),
                (0.95 * w, -0.35 * h),
                (0.85 * w, -0.8 * h),
                (0, -h),
                (-0.85 * w, -0.8 * h),
                (-0.95 * w, -0.35 * h),
                (-waist * w, 0.12 * h),
                (-up * w, 0.55 * h),
                (-up * w * 0.8, 0.85 * h),
            ],
            44,
        )
    s.add(extrude(outline, depth, bevel=0.02).facing(), side if kind != "electric guitar" else top)
    s.add(extrude(outline * 0.97, 0.02, bevel=0.005).facing().move(depth / 2), top if kind != "banjo" else mat.WHITE)
    x, long = depth / 2 + 0.012, rng.uniform(0.6, 0.95) * (0.8 if kind in ("violin", "ukulele") else 1.1)
    t = rng.uniform(0.035, 0.05)
    z0, z1 = 0.5 * h if kind not in ("guitar", "ukulele") else 0.42 * h, h + long
    s.add(box(0.05, 2 * t, z1 - z0, 0.012).move(x + 0.01, 0, (z0 + z1) / 2), neck)
    s.add(box(0.02, 2 * t, z1 - z0).move(x + 0.04, 0, (z0 + z1) / 2), dark)
    if kind != "violin":
        s.add([box(0.01, 2 * t, 0.008).move(x + 0.052, 0, z1 - (z1 - z0) * (1 - 0.87**k)) for k in range(1, 12)], trim)
    if kind in ("guitar", "ukulele"):
        q = rng.uniform(0.075, 0.1)
        s.add(cylinder(q, 0.02, n=28).turn("y", np.pi / 2).move(x - 0.005, 0, 0.28 * h), mat.BLACK)
        s.add(torus(1.08 * q, 0.012, 28, 6).turn("y", np.pi / 2).move(x, 0, 0.28 * h), dark)
    elif kind == "violin":
        s.add(
            both(sweep(spline([(x, 0.1, 0.1), (x, 0.075, 0.08), (x, 0.1, 0), (x, 0.12, -0.1), (x, 0.095, -0.12)], 12), 0.008, 6)), mat.BLACK
        )
    elif kind == "electric guitar":
        s.add([box(0.03, 0.16, 0.06, 0.01).move(x, 0, z) for z in (0.2 * h, -0.15 * h)], mat.DARK)
        s.add(
            extrude(smooth([(0.02, 0.3), (0.6, 0.1), (0.5, -0.6), (0.2, -0.7), (0.12, 0.0)], 18) * w, 0.012).facing().move(x - 0.003),
            mat.WHITE if chance(rng, 0.5) else dark,
        )
        s.add([cylinder(0.025, 0.04, n=12).turn("y", np.pi / 2).move(x + 0.01, 0.45 * w, -0.3 * h - 0.09 * k) for k in range(3)], trim)
    else:
        s.add(
            [
                torus(w, 0.022, 40, 8).turn("y", np.pi / 2).move(depth / 2),
                *(
                    rod((depth / 2, w * np.cos(a), w * np.sin(a)), (-depth / 2, w * np.cos(a), w * np.sin(a)), 0.015, sides=6)
                    for a in np.linspace(0, 2 * np.pi, 13)[:-1]
                ),
            ],
            trim,
        )
    zb = -0.45 * h
    s.add(box(0.035, 0.2 if kind != "violin" else 0.12, 0.035, 0.008).move(x + 0.01, 0, zb), dark)
    strings = 6 if "guitar" in kind else 4
    s.add(
        [rod((x + 0.035, y, zb), (x + 0.062, y * 0.9, z1 + 0.03), 0.0035, sides=4) for y in np.linspace(-0.75, 0.75, strings) * t],
        mat.plain(mat.rgb("d8d4c8"), "grey"),
    )
    if kind == "violin":
        a = np.linspace(0, 7.5, 22)
        q = 0.07 * np.exp(-0.22 * a)
        s.add(
            sweep(
                np.stack([x + 0.0 + q * np.sin(a), 0 * a, z1 + 0.06 + q * np.cos(a)], 1),
                np.stack([0.5 * q + 0.004, np.full(22, 0.035)], 1),
                8,
            ),
            neck,
        )
        s.add([p for z in (0.0, 0.05) for p in both(rod((x, 0.02, z1 + z), (x, 0.12, z1 + z), 0.012, 0.02))], dark)
        s.add(box(0.06, 0.12, 0.18, 0.03).move(x, 0, zb - 0.13), dark)
    else:
        head = [(-1.0 * t, 0), (1.0 * t, 0), (1.6 * t, 0.08), (1.4 * t, 0.24), (-1.4 * t, 0.24), (-1.6 * t, 0.08)]
        s.add(extrude(head, 0.04, bevel=0.008).facing().turn("y", -0.15).move(x + 0.01, 0, z1 - 0.01), neck)
        s.add(
            [
                p
                for z in np.linspace(0.07, 0.21, strings // 2)
                for p in both(rod((x, 1.3 * t, z1 + z), (x, 1.3 * t + 0.06, z1 + z), 0.012, 0.022, 8))
            ],
            trim,
        )
    if chance(rng, 0.3):
        tilt = rng.normal(0, 0.25)
        out = Sketch(kind)
        out.merge(s, lambda p: p.turn("x", tilt))
        return out
    return s


def drum(rng: Rng) -> Sketch:
    """Snare or toy drum with lacing and sticks, bongo, conga, tambourine, bass drum, or a trumpet, bell, xylophone."""
    kind = pick(rng, ("drum", "drum", "conga", "tambourine", "trumpet", "bell", "xylophone"))
    s = Sketch(kind)
    shell, rim, skin, stick = mat.finish(rng), mat.metal(rng), mat.plain(mat.rgb(pick(rng, ("f5efe0", "ead9b8", "ffffff")))), mat.wood(rng)
    trim = mat.plastic(rng)
    if kind == "drum":
        r, h = 0.45, rng.uniform(0.35, 0.9)
        s.add(cylinder(r, h, n=36).move(z=h / 2), shell)
        s.add([cylinder(0.97 * r, 0.03, n=36).move(z=z) for z in (h, 0)], skin)
        s.add([torus(r, 0.035, 36, 8).scale(1, 1, 1.3).move(z=z) for z in (0.03, h - 0.03)], rim if chance(rng, 0.5) else trim)
        n = int(rng.integers(5, 11))
        if chance(rng, 0.6):
            a = np.linspace(0, 2 * np.pi, 2 * n + 1)
            s.add(
                [
                    rod(
                        ((r + 0.015) * np.cos(a[k]), (r + 0.015) * np.sin(a[k]), 0.06 if k % 2 else h - 0.06),
                        ((r + 0.015) * np.cos(a[k + 1]), (r + 0.015) * np.sin(a[k + 1]), h - 0.06 if k % 2 else 0.06),
                        0.013,
                        sides=6,
                    )
                    for k in range(2 * n)
                ],
                skin,
            )
        else:
            s.add(around(rod((r + 0.02, 0, 0.05), (r + 0.02, 0, h - 0.05), 0.018, sides=8), n), rim)
        if chance(rng, 0.7):
            for k in (-1, 1):
                tip = np.array([0.15, 0.1 * k, h + 0.06])
                end = tip + np.array([0.35, 0.35 * k, 0.25]) * rng.uniform(0.8, 1.3)
                s.add([rod(tip, end, 0.018), ellipsoid(0.04, 0.04, 0.04, 10).move(*tip)], stick)
        if chance(rng, 0.3):
            s.add(around(rod((0.8 * r, 0, 0), (1.1 * r, 0, -0.5), 0.02), 3, 0.5), rim)
    elif kind == "conga":
        count = int(rng.integers(1, 3))
        for k in range(count):
            r, h = rng.uniform(0.24, 0.32), rng.uniform(0.5, 1.1)
            y = (k - (count - 1) / 2) * 0.68
            s.add(revolve([(0, 0), *spline([(0.6 * r, 0), (1.1 * r, 0.55 * h), (r, h)], 12), (0, h)], 28).move(0, y), shell)
            s.add(cylinder(1.03 * r, 0.06, n=28, radius=0.02).move(0, y, h), skin)
            s.add([torus(1.05 * r, 0.02, 28, 6).move(0, y, h - 0.05), torus(0.95 * r, 0.02, 28, 6).move(0, y, 0.3 * h)], rim)
            s.add([p.move(0, y) for p in around(rod((1.12 * r, 0, 0.7 * h), (1.06 * r, 0, h), 0.016, sides=6), 6)], rim)
        if count == 2:
            s.add(box(0.12, 0.3, 0.12, 0.02).move(z=0.3), rim)
    elif kind == "tambourine":
        r = 0.45
        s.add(revolve(hollow(np.array([(r - 0.05, 0), (r, 0.01), (r, 0.16)]), 0.03, 0.14), 36), shell)
        s.add(cylinder(r - 0.02, 0.02, n=36).move(z=0.16), skin)
        s.add(
            [
                p.turn("z", k * np.pi / 4)
                for k in range(8)
                for p in (cylinder(0.07, 0.012, n=16).move(r + 0.0, 0, 0.06), cylinder(0.07, 0.012, n=16).move(r + 0.0, 0, 0.09))
            ],
            rim,
        )
        out, tilt = Sketch(kind), rng.uniform(0, 1.4)
        out.merge(s, lambda p: p.turn("y", tilt))
        return out
    elif kind == "trumpet":
        brass = mat.plain(mat.rgb(pick(rng, ("d4af37", "c9a227", "c0c4c8", "b5652e"))), "brass")
        tube = fillet([(-0.75, 0, 0.22), (0.55, 0, 0.22), (0.55, 0, 0), (-0.45, 0, 0), (-0.45, 0, 0.12), (0.2, 0, 0.12)], 0.1, 5)
        s.add(sweep(tube, 0.024, 10), brass)
        t = np.linspace(0, 1, 14)
        s.add(
            revolve(hollow(np.column_stack([0.025 + 0.2 * t**4, 0.5 * t]), 0.012, 0.3), 28).turn("y", np.pi / 2).move(0.5, 0, 0.22), brass
        )
        s.add(revolve([(0, 0), (0.05, 0), (0.03, 0.06), (0.02, 0.12), (0, 0.12)], 14).turn("y", np.pi / 2).move(-0.84, 0, 0.22), rim)
        for x in (-0.1, 0.0, 0.1):
            s.add(
                [
                    rod((x, 0, -0.1), (x, 0, 0.32), 0.036, sides=12),
                    rod((x, 0, 0.3), (x, 0, 0.42), 0.012, sides=6),
                    cylinder(0.035, 0.02, n=12).move(x, 0, 0.42),
                ],
                brass if x else trim,
            )
    elif kind == "bell":
        brass = mat.plain(mat.rgb(pick(rng, ("d4af37", "b08d4c", "c8ccd0"))), "brass") if chance(rng, 0.6) else shell
        t = np.linspace(0, 1, 14)
        outer = np.column_stack([0.42 - 0.24 * t**0.5 + 0.0 * t, 0.6 * t])
        outer[-3:, 0] = [0.16, 0.1, 0.04]
        s.add(revolve(np.concatenate([[[0, 0.55]], (outer - [0.03, 0.0])[:11][::-1], outer, [[0, 0.6]]]), 32), brass)
        s.add([torus(0.41, 0.025, 32, 8), torus(0.26, 0.015, 28, 6).move(z=0.25)], trim if chance(rng, 0.4) else brass)
        s.add([rod((0, 0, 0.5), (0.05, 0, 0.02), 0.018, sides=8), ellipsoid(0.07, 0.07, 0.07, 12).move(0.05, 0, 0.0)], mat.DARK)
        if chance(rng, 0.5):
            s.add(rod((0, 0, 0.58), (0, 0, 1.05), 0.05, 0.06, 12, ends="round"), stick)
        else:
            s.add(torus(0.09, 0.028, 20, 8).turn("y", np.pi / 2).move(z=0.68), rim)
    else:
        n, w = int(rng.integers(5, 10)), 0.12
        hue = rng.permutation(12)
        for k in range(n):
            long = 0.75 - 0.4 * k / n
            s.add(box(long, 0.85 * w, 0.04, 0.01).move(0, (k - (n - 1) / 2) * w, 0.1), mat.plain(mat.TOY[int(hue[k])]))
            s.add(both(ellipsoid(0.018, 0.018, 0.012, 8).move(0.38 * long, (k - (n - 1) / 2) * w, 0.12), "x"), rim)
        s.add(both(beam((0.3, -n * w / 2, 0.05), (0.14, n * w / 2, 0.05), 0.05, 0.08), "x"), stick)
        s.add(
            [
                p
                for k in (-1, 1)
                for p in (
                    rod((0.1 * k, 0.1, 0.17), (0.5 + 0.1 * k, -0.2, 0.3), 0.014),
                    ellipsoid(0.045, 0.045, 0.045, 12).move(0.1 * k, 0.1, 0.17),
                )
            ],
            trim,
        )
    return s
