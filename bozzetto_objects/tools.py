# SPDX-License-Identifier: Apache-2.0
"""Tools, upright, their flat side to the front."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import arc, extrude, smooth
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    beam,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    fillet,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
)


def _handle(rng: Rng, s: Sketch, long: float, r: float, m: Material) -> None:
    """A grip from the origin down to z = -long."""
    kind = pick(rng, ("straight", "waist", "ridged"))
    t = np.linspace(0, 1, 14)
    width = r * {"straight": 0 * t + 1, "waist": 1.15 - 0.35 * np.sin(np.pi * t), "ridged": 1 + 0.1 * (np.arange(14) % 2)}[kind]
    s.add(sweep(np.stack([0 * t, 0 * t, -long * t], 1), width, circle(12, pick(rng, (2.0, 3.0))), ends="round"), m)


def tool(rng: Rng) -> Sketch:
    """Hammer, screwdriver, spanner, brush, saw, spade, rake, axe, pliers, broom; upright, flat side to the front."""
    kind = pick(rng, ("hammer", "mallet", "screwdriver", "spanner", "paint brush", "saw", "spade", "rake", "axe", "pliers", "broom"))
    s = Sketch(kind)
    steel = mat.plain(mat.choose(rng, [mat.rgb(c) for c in ("b8bcc2", "8f949b", "5d6168", "d4d7da")], 0.02), "metal")
    grip = mat.plastic(rng) if chance(rng, 0.5) else mat.wood(rng)
    long, r = rng.uniform(0.5, 0.9), rng.uniform(0.035, 0.055)
    if kind in ("hammer", "mallet", "axe"):
        _handle(rng, s, long, r, grip)
        if kind == "hammer":
            s.add(box(0.11, 0.16, 0.12, 0.02).move(z=0.03), steel)
            s.add(
                revolve([(0, 0), (0.05, 0), (0.05, 0.1), (0.075, 0.12), (0.075, 0.17), (0, 0.18)], 18)
                .turn("x", -np.pi / 2)
                .move(0, 0.06, 0.03),
                steel,
            )
            claw = spline([(0, -0.06, 0.04), (0, -0.18, 0.05), (0, -0.28, -0.04)], 8)
            s.add(
                [
                    sweep(
                        claw + np.array([k, 0, 0]),
                        np.stack([np.full(8, 0.022), np.linspace(0.045, 0.012, 8)], 1),
                        rectangle(1, 1, 0.2),
                        up=(0, 0, 1),
                    )
                    for k in (-0.028, 0.028)
                ]
                if chance(rng, 0.7)
                else [cylinder(0.06, 0.2, 0.01, n=4).turn("x", np.pi / 2).move(0, -0.17, 0.03)],
                steel,
            )
        elif kind == "mallet":
            s.add(
                (box(0.2, 0.42, 0.22, 0.03) if chance(rng, 0.5) else cylinder(0.13, 0.42, n=24, radius=0.03).turn("x", np.pi / 2)).move(
                    z=0.05
                ),
                mat.wood(rng) if chance(rng, 0.5) else mat.DARK,
            )
        else:
            blade = smooth([(0.03, 0.1), (0.3, 0.2), (0.33, 0.0), (0.28, -0.2), (0.03, -0.08), (-0.07, -0.06), (-0.07, 0.08)], 28)
            s.add(extrude(blade, 0.06, bevel=0.025).facing().move(z=0.02), steel)
            s.add(ellipsoid(r * 1.1, r * 1.1, 0.1, 10).move(z=0.06), grip)
    elif kind == "screwdriver":
        _handle(rng, s, 0.45, 1.9 * r, mat.plastic(rng))
        s.add([cylinder(1.4 * r, 0.06, n=14).move(z=0.02), rod((0, 0, 0), (0, 0, long), 0.5 * r)], steel)
        s.add(box(0.012, 1.7 * r, 0.1).taper(1, 0.7).move(z=long + 0.02), steel)
    elif kind == "spanner":
        w, q = 0.06, rng.uniform(0.14, 0.18)
        jaw = np.concatenate([arc(q, np.radians(60), np.radians(390), 18), [(0.3 * q, 0.1 * q), (0.0, -0.1 * q), (-0.15 * q, 0.25 * q)]])
        ang = rng.uniform(-0.3, 0.3)
        s.add(extrude(jaw, 0.07, bevel=0.012).turn("z", np.radians(45) + ang).facing().move(z=long / 2 + q), steel)
        s.add(box(0.05, 2 * w, long, 0.015).move(z=0.05), steel)
        if chance(rng, 0.5):
            s.add(extrude(arc(0.13, 0, 2 * np.pi, 25)[:-1], 0.07, holes=[circle(6) * 0.07], bevel=0.012).facing().move(z=-long / 2), steel)
        else:
            s.add(extrude(jaw * 0.9, 0.07, bevel=0.012).turn("z", np.radians(225)).facing().move(z=-long / 2 - 0.8 * q), steel)
        if chance(rng, 0.4):
            s.add(box(0.065, 2.2 * w, 0.6 * long, 0.02).move(), mat.plastic(rng))
    elif kind in ("paint brush", "broom"):
        scale = 1.0 if kind == "paint brush" else 1.5
        w = rng.uniform(0.08, 0.2) * scale
        if kind == "broom":
            s.add(rod((0, 0, 0), (0, 0, -1.3), 0.03), grip)
        else:
            t = np.linspace(0, 1, 12)
            s.add(
                sweep(
                    np.stack([0 * t, 0 * t, -long * t], 1),
                    np.stack([0.028 + 0.01 * np.sin(6 * t), np.maximum(w * (1 - t) ** 3, 0) + 0.035 + 0.015 * np.sin(np.pi * t)], 1),
                    circle(14, 3),
                    ends="round",
                    up=(0, 1, 0),
                ),
                grip,
            )
        s.add(box(0.09, 2 * w, 0.12, 0.01).move(z=0.06), steel if kind == "paint brush" else grip)
        bristle, hair = mat.painted(rng, [mat.rgb("e8d8b0"), mat.rgb("3a2a20"), mat.rgb("c99a4a")]), rng.uniform(0.18, 0.3)
        n = int(rng.integers(5, 9))
        s.add(
            [
                rod((q, y, 0.1), (1.3 * q, 1.08 * y, 0.12 + hair + rng.uniform(-0.02, 0.03)), 0.024, 0.016, 6)
                for y in np.linspace(-0.85, 0.85, n) * w
                for q in (-0.02, 0.02)
            ]
            + [box(0.07, 1.85 * w, hair, 0.01).move(z=0.12 + hair / 2)],
            bristle,
            *([(lambda p: p.centres[:, 2] > 0.12 + 0.6 * hair, mat.plastic(rng))] if kind == "paint brush" else []),
        )
    elif kind == "saw":
        teeth = int(rng.integers(10, 18))
        y = np.linspace(0, 0.9, 2 * teeth + 1)
        edge = np.column_stack([y, -0.14 + 0.03 * (np.arange(2 * teeth + 1) % 2)])
        s.add(extrude(np.concatenate([edge, [(0.9, -0.04), (0, 0.12)]]), 0.012).facing(), steel)
        s.add(
            extrude(
                smooth([(0.08, 0.16), (-0.05, 0.2), (-0.28, 0.14), (-0.3, -0.02), (-0.22, -0.2), (0.05, -0.17)], 26),
                0.07,
                holes=[smooth([(-0.04, 0.08), (-0.18, 0.06), (-0.16, -0.08), (-0.05, -0.07)], 14)],
                bevel=0.015,
            ).facing(),
            grip,
        )
    elif kind in ("spade", "rake"):
        s.add(rod((0, 0, 0), (0, 0, 1.2), 0.028), mat.wood(rng) if chance(rng, 0.7) else grip)
        if chance(rng, 0.6):
            s.add(sweep(fillet([(0, -0.1, 1.33), (0, 0.1, 1.33), (0, 0, 1.18)], 0.04, 3, closed=True), 0.024, 8, closed=True), grip)
        if kind == "spade":
            z = np.linspace(0.05, -0.38, 8)
            half = np.interp(z, [-0.38, -0.28, 0.0, 0.05], [0.02 if chance(rng, 0.6) else 0.13, 0.13, 0.15, 0.06])
            path = np.stack([0.05 * np.sin((z - 0.05) * 6), 0 * z, z], 1)
            s.add(sweep(path, np.stack([half, np.full(8, 0.012)], 1), rectangle(1, 1, 0.3), up=(1, 0, 0)), steel)
        else:
            w = rng.uniform(0.2, 0.3)
            s.add(beam((0, -w, 0), (0, w, 0), 0.04, 0.05), steel)
            s.add(
                [
                    sweep([(0, y, 0), (0.08, y, -0.03), (0.1, y, -0.14)], [0.016, 0.014, 0.006], 6)
                    for y in np.linspace(-w, w, int(rng.integers(5, 11)))
                ],
                steel,
            )
    else:
        a = rng.uniform(0.1, 0.3)
        for k in (-1, 1):
            arm = spline([(0, 0, 0), (0, k * 0.09, -0.12), (0, k * 0.12, -0.35), (0, k * 0.07, -0.62)], 12)
            s.add(sweep(arm, 0.042, 10, ends="round").turn("x", -k * a * 0.5), grip)
        jaw = extrude([(0.005, -0.05), (0.09, -0.05), (0.08, 0.08), (0.03, 0.3), (0.005, 0.3)], 0.07, bevel=0.012).facing()
        s.add(both(jaw.turn("x", -a * 0.5)), steel)
        s.add(cylinder(0.06, 0.1, n=18).turn("y", np.pi / 2), steel)
    return s
