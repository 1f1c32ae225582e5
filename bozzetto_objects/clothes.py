# SPDX-License-Identifier: Apache-2.0
"""Things to wear: hat, shoe. Toes and peaks point to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.outlines import extrude, smooth, star
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    around,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    hollow,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def hat(rng: Rng) -> Sketch:
    """Top hat, bowler, straw hat, cap, cowboy hat, witch's or party hat, beanie, helmet, sombrero; hollow below."""
    kind = pick(rng, ("top hat", "bowler", "sun hat", "cap", "cowboy hat", "pointed hat", "beanie", "helmet", "sombrero"))
    s = Sketch(kind)
    felt = (
        mat.fabric(rng, 0.3)
        if kind not in ("sun hat", "sombrero")
        else mat.textured(patterns.weave(rng, mat.choose(rng, [mat.rgb("e3c887"), mat.rgb("c9a45a"), mat.rgb("f0dca8")])), "straw", 7.0)
    )
    if kind == "helmet":
        felt = mat.plastic(rng)
    band = mat.printed(rng) if chance(rng, 0.3) else mat.painted(rng)
    r, t = 0.3, 0.025
    h = rng.uniform(0.8, 1.3)
    brim, crown = {
        "top hat": (0.48, [(0.3, 0.05), (0.285, 0.3 * h), (0.31, 0.5 * h), (0.3, 0.51 * h)]),
        "bowler": (0.42, [(0.3, 0.06), (0.29, 0.18), (0.2, 0.3), (0.05, 0.34)]),
        "sun hat": (0.6, [(0.31, 0.04), (0.29, 0.2), (0.22, 0.27), (0.04, 0.29)]),
        "cowboy hat": (0.55, [(0.29, 0.06), (0.26, 0.22), (0.2, 0.32), (0.04, 0.3)]),
        "pointed hat": (0.55, [(0.3, 0.05), (0.2, 0.35), (0.09, 0.7 * h), (0.015, 0.95 * h)]),
        "sombrero": (0.75, [(0.27, 0.04), (0.24, 0.2), (0.16, 0.42), (0.03, 0.46)]),
    }.get(kind, (0.0, [(0.33, 0.0), (0.32, 0.14), (0.22, 0.3), (0.03, 0.36)]))
    curve = spline(crown, 16)
    curve = np.column_stack([np.maximum(curve[:, 0], 0.012), curve[:, 1]])
    brim *= rng.uniform(0.85, 1.15)
    outer = np.concatenate([[(brim, 0.0), (brim, t), (0.5 * brim + 0.16, t * 1.2)], curve]) if brim else curve
    inner = np.maximum(curve - [0.03, 0.02], [0.008, 0.0])[::-1]
    profile = np.concatenate([outer, [[0, curve[-1, 1]]]])
    under = np.concatenate([[[0, inner[0, 1]]], inner, [[max(r - 0.02, 0.1), 0.0]]])
    body = revolve(np.concatenate([under, profile]), 36)
    curl = rng.uniform(0.1, 0.35) * {"cowboy hat": 1.0, "bowler": 0.35, "sombrero": 0.3, "sun hat": 0.2}.get(kind, 0.0)
    dent = 0.12 if kind == "cowboy hat" else 0.0
    lean = rng.uniform(-0.25, 0.25) if kind == "pointed hat" else 0.0

    def bend(v: Array) -> Array:
        out = np.clip(np.hypot(v[:, 0], v[:, 1]) - r, 0, None)
        side = np.sin(np.arctan2(v[:, 1], v[:, 0])) ** 2 if kind != "sombrero" else 1.0
        lift = 3 * curl * out * side - dent * np.exp(-((v[:, 1] / 0.07) ** 2)) * (v[:, 2] > 0.2)
        return v + np.column_stack([lean * np.clip(v[:, 2] - 0.2, 0, None) ** 2 * 2, 0 * v[:, 0], lift])

    stretch = 1.0 if kind in ("helmet", "beanie") else rng.uniform(1.0, 1.18)
    zones = [(lambda p: np.floor(p.centres[:, 2] / 0.06) % 2 == 1, band)] if kind in ("beanie", "pointed hat") and chance(rng, 0.5) else []
    s.add(body.warp(bend).scale(stretch, 1, 1), felt, *zones)
    z = float(curve[2, 1])
    if brim:
        ring = revolve(
            [
                (0, z - 0.02),
                (float(curve[1, 0]) + 0.012, z - 0.02),
                (float(np.interp(z + 0.05, curve[:, 1], curve[:, 0])) + 0.012, z + 0.05),
                (0, z + 0.05),
            ],
            36,
        )
        s.add(ring.warp(bend if kind == "pointed hat" else lambda v: v).scale(stretch, 1, 1), band)
        deco = pick(rng, ("feather", "flower", "buckle", "bow", "none"))
        y = float(curve[1, 0])
        if deco == "feather":
            s.add(ellipsoid(0.03, 0.012, 0.18, 12).turn("x", -0.4).move(0, y + 0.06, z + 0.18), mat.plastic(rng))
        elif deco == "flower":
            s.add(
                [
                    p.turn("y", np.pi / 2).move(stretch * y + 0.03, 0, z + 0.02)
                    for p in around(ellipsoid(0.06, 0.035, 0.012, 10).move(0.06), 6)
                ],
                mat.plastic(rng),
            )
        elif deco == "buckle":
            s.add(
                sweep(np.array([(0, -0.06, -0.05), (0, 0.06, -0.05), (0, 0.06, 0.05), (0, -0.06, 0.05)]), 0.012, 6, closed=True).move(
                    stretch * y + 0.02, 0, z + 0.02
                ),
                mat.metal(rng),
            )
        elif deco == "bow":
            s.add([p.move(0.05, y + 0.02, z + 0.02) for p in both(ellipsoid(0.08, 0.02, 0.05, 12).move(0.08), "x")], band)
    elif kind == "cap":
        a = np.linspace(-1.0, 1.0, 13)
        out = 0.14 * np.cos(0.75 * a) ** 0.5
        path = np.stack([(0.28 + out) * np.cos(a), 0.98 * (0.28 + out) * np.sin(a), 0.02 - 0.09 * np.sin(a) ** 2], 1)
        peak = sweep(path, np.stack([out, np.full(13, 0.012)], 1), rectangle(1, 1, 0.15), up=(0, 0, 1))
        s.add(peak, band if chance(rng, 0.6) else felt)
        s.add(ellipsoid(0.03, 0.03, 0.015, 10).move(z=0.365), band)
        if chance(rng, 0.5):
            s.add(
                extrude(star(5, 0.08, 0.035) if chance(rng, 0.5) else circle(18) * 0.07, 0.02)
                .facing()
                .turn("y", -0.35)
                .move(0.31, 0, 0.17),
                band,
            )
    elif kind == "beanie":
        s.add(torus(0.325, 0.045, 36, 8).scale(1, 1, 1.4).move(z=0.03), band)
        if chance(rng, 0.7):
            s.add(ellipsoid(0.09, 0.09, 0.09, 14).move(z=0.41), band)
    else:
        crest = sweep(
            np.column_stack([0.34 * np.cos(a := np.linspace(0.5, 2.6, 12)), 0 * a, 0.02 + 0.36 * np.sin(a)]),
            np.array([[0.04, 0.02]] * 12),
            rectangle(1, 1, 0.3),
            up=(0, 0.01, 1),
        )
        s.add([torus(0.33, 0.025, 36, 8).move(z=0.02), crest], band)
        if chance(rng, 0.6):
            s.add(ellipsoid(0.2, 0.25, 0.02, 16).move(0.28, 0, 0.0), felt)
        if chance(rng, 0.4):
            s.add(
                [cylinder(0.07, 0.08, n=18).turn("y", np.pi / 2).move(0.32, 0, 0.2), ellipsoid(0.02, 0.06, 0.06, 12).move(0.365, 0, 0.2)],
                mat.plain(mat.rgb("fff3c4"), "cream"),
            )
    return s


def shoe(rng: Rng) -> Sketch:
    """Trainer, boot, court shoe with a heel, clog, slipper; one or a pair."""
    kind = pick(rng, ("trainer", "boot", "heel", "slipper", "clog"))
    s = Sketch({"trainer": "trainer", "heel": "court shoe"}.get(kind, kind))
    upper, sole, trim = (
        mat.leather(rng) if chance(rng, 0.4) else mat.fabric(rng, 0.25),
        pick(rng, (mat.WHITE, mat.DARK, mat.wood(rng))),
        mat.painted(rng),
    )
    if kind == "clog":
        upper = mat.wood(rng) if chance(rng, 0.5) else mat.plastic(rng)
    lift = rng.uniform(0.16, 0.32) if kind == "heel" else 0.0
    wide, thick = rng.uniform(0.15, 0.19) * (0.8 if kind == "heel" else 1), rng.uniform(0.04, 0.09) if kind != "heel" else 0.02
    x = np.linspace(-0.45, 0.52, 16)
    u = (x + 0.45) / 0.97
    rise = lift * (1 - np.clip(u / 0.62, 0, 1)) ** 1.3
    half = wide * np.interp(u, [0, 0.06, 0.2, 0.45, 0.7, 0.9, 0.97, 1.0], [0.45, 0.7, 0.8, 0.74, 1.0, 0.82, 0.55, 0.2])
    s.add(
        sweep(
            np.stack([x, 0 * x, rise + thick / 2], 1),
            np.stack([half * 1.06, np.full(16, thick / 2)], 1),
            rectangle(1, 1, 0.3),
            up=(0, 0, 1),
        ),
        sole,
    )
    ankle = {"boot": 0.34, "trainer": 0.3, "heel": 0.2, "slipper": 0.12, "clog": 0.2}[kind]
    top = (
        np.interp(u, [0, 0.1, 0.3, 0.5, 0.75, 0.95, 1.0], [ankle, ankle, ankle * 0.95, 0.2, 0.15, 0.1, 0.06])
        if kind != "slipper"
        else np.interp(u, [0, 0.5, 0.6, 0.8, 1], [0.06, 0.06, 0.18, 0.15, 0.06])
    )
    s.add(
        sweep(
            np.stack([x, 0 * x, rise + thick + top / 2 - 0.01], 1),
            np.stack([half, top / 2], 1),
            circle(16, 3.0),
            ends="round",
            up=(0, 0, 1),
        ),
        upper,
    )
    z = thick + ankle
    if kind == "boot":
        h = rng.uniform(0.2, 0.65)
        s.add(
            revolve(hollow(np.array([(0.15, 0), (0.145, 0.4 * h), (rng.uniform(0.15, 0.2), h)]), 0.025), 24)
            .scale(1.15, 1, 1)
            .move(-0.27, 0, z - 0.16),
            upper,
            (lambda p: p.outward[:, 2] > 0.9, mat.DARK),
        )
        s.add(torus(0.165, 0.022, 24, 8).scale(1.15, 1, 1).move(-0.27, 0, z - 0.16 + h), trim)
        s.add(box(0.22, 1.5 * wide, 0.09, 0.01).move(-0.33, 0, -0.03), sole)
    else:
        s.add(
            torus(0.125, 0.03, 24, 8).scale(1.45, 0.85, 1).turn("y", 0.12).move(-0.25, 0, z + lift * 0.75 - 0.03),
            trim if kind != "clog" else upper,
        )
        s.add(ellipsoid(0.15, 0.085, 0.02, 16).turn("y", 0.12).move(-0.25, 0, z + lift * 0.75 - 0.015), mat.DARK)
    if kind == "heel":
        s.add(rod((-0.4, 0, lift + thick), (-0.38, 0, 0), 0.07, rng.uniform(0.015, 0.04), 12), sole)
        if chance(rng, 0.5):
            s.add(both(ellipsoid(0.04, 0.07, 0.04, 10).move(0.4, 0.06, 0.14)), trim)
    elif kind == "trainer":
        s.add(
            [
                sweep(
                    spline(
                        [
                            (q, -0.7 * wide, 0.19 + thick),
                            (q, 0, np.interp(q, [0, 0.3], [0.27, 0.17]) + thick),
                            (q, 0.7 * wide, 0.19 + thick),
                        ],
                        8,
                    ),
                    0.014,
                    6,
                )
                for q in np.linspace(0.03, 0.22, 4)
            ],
            mat.WHITE,
        )
        s.add(
            both(
                extrude(smooth([(-0.2, 0), (0.05, 0.08), (0.2, 0.02), (0.05, 0.03)], 16), 0.02)
                .upright()
                .move(0.0, wide * 0.78, thick + 0.06)
            ),
            trim,
        )
        s.add(ellipsoid(0.13, 0.9 * wide, 0.06, 16).move(0.42, 0, thick + 0.05), trim)
    elif kind == "slipper":
        s.add(ellipsoid(0.07, 0.07, 0.07, 12).move(0.2, 0, thick + 0.2), trim)
    turn = rng.normal(0, 0.15)
    if chance(rng, 0.35):
        left = Sketch(s.noun)
        gap = rng.uniform(0.22, 0.3)
        left.merge(s, lambda p: p.turn("z", turn).move(0, gap, 0))
        left.merge(s, lambda p: p.mirror("y").turn("z", -turn + rng.normal(0, 0.0)).move(0.05, -gap, 0))
        left.noun = f"pair of {s.noun}s"
        return left
    return s
