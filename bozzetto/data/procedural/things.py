# SPDX-License-Identifier: Apache-2.0
"""Things to wear, use, play and give: hat, shoe, tool, guitar, drum, letter, gift, lantern, balloon, umbrella."""

from __future__ import annotations

import numpy as np

from bozzetto.data.procedural import materials as mat
from bozzetto.data.procedural import patterns
from bozzetto.data.procedural.materials import Material
from bozzetto.data.procedural.outlines import arc, extrude, heart, smooth, star
from bozzetto.data.procedural.sketch import Sketch, chance, pick
from bozzetto.data.procedural.solids import (
    Array, Part, around, beam, both, box, circle, cylinder, ellipsoid, fillet, hollow, loft, rectangle, revolve, rod, spline, sweep, torus,
)

Rng = np.random.Generator


def hat(rng: Rng) -> Sketch:
    """Top hat, bowler, straw hat, cap, cowboy hat, witch's or party hat, beanie, helmet, sombrero; hollow below."""
    kind = pick(rng, ("top hat", "bowler", "straw hat", "cap", "cowboy hat", "pointed hat", "beanie", "helmet", "sombrero"))
    s = Sketch(kind)
    felt = mat.fabric(rng, 0.3) if kind not in ("straw hat", "sombrero") else mat.textured(patterns.weave(rng, mat.choose(rng, [mat.rgb("e3c887"), mat.rgb("c9a45a"), mat.rgb("f0dca8")])), "straw", 7.0)
    if kind == "helmet":
        felt = mat.plastic(rng)
    band = mat.printed(rng) if chance(rng, 0.3) else mat.painted(rng)
    r, t = 0.3, 0.025
    h = rng.uniform(0.8, 1.3)
    brim, crown = {"top hat": (0.48, [(0.3, 0.05), (0.285, 0.3 * h), (0.31, 0.5 * h), (0.3, 0.51 * h)]), "bowler": (0.42, [(0.3, 0.06), (0.29, 0.18), (0.2, 0.3), (0.05, 0.34)]),
                   "straw hat": (0.6, [(0.31, 0.04), (0.29, 0.2), (0.22, 0.27), (0.04, 0.29)]), "cowboy hat": (0.55, [(0.29, 0.06), (0.26, 0.22), (0.2, 0.32), (0.04, 0.3)]),
                   "pointed hat": (0.55, [(0.3, 0.05), (0.2, 0.35), (0.09, 0.7 * h), (0.015, 0.95 * h)]), "sombrero": (0.75, [(0.27, 0.04), (0.24, 0.2), (0.16, 0.42), (0.03, 0.46)]),
                   }.get(kind, (0.0, [(0.33, 0.0), (0.32, 0.14), (0.22, 0.3), (0.03, 0.36)]))
    curve = spline(crown, 16)
    curve = np.column_stack([np.maximum(curve[:, 0], 0.012), curve[:, 1]])
    brim *= rng.uniform(0.85, 1.15)
    outer = np.concatenate([[(brim, 0.0), (brim, t), (0.5 * brim + 0.16, t * 1.2)], curve]) if brim else curve
    inner = np.maximum(curve - [0.03, 0.02], [0.008, 0.0])[::-1]
    profile = np.concatenate([outer, [[0, curve[-1, 1]]]])
    under = np.concatenate([[[0, inner[0, 1]]], inner, [[max(r - 0.02, 0.1), 0.0]]])
    body = revolve(np.concatenate([under, profile]), 36)
    curl = rng.uniform(0.1, 0.35) * {"cowboy hat": 1.0, "bowler": 0.35, "sombrero": 0.3, "straw hat": 0.2}.get(kind, 0.0)
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
        ring = revolve([(0, z - 0.02), (float(curve[1, 0]) + 0.012, z - 0.02), (float(np.interp(z + 0.05, curve[:, 1], curve[:, 0])) + 0.012, z + 0.05), (0, z + 0.05)], 36)
        s.add(ring.warp(bend if kind == "pointed hat" else lambda v: v).scale(stretch, 1, 1), band)
        deco = pick(rng, ("feather", "flower", "buckle", "bow", "none"))
        y = float(curve[1, 0])
        if deco == "feather":
            s.add(ellipsoid(0.03, 0.012, 0.18, 12).turn("x", -0.4).move(0, y + 0.06, z + 0.18), mat.plastic(rng))
        elif deco == "flower":
            s.add([p.turn("y", np.pi / 2).move(stretch * y + 0.03, 0, z + 0.02) for p in around(ellipsoid(0.06, 0.035, 0.012, 10).move(0.06), 6)], mat.plastic(rng))
        elif deco == "buckle":
            s.add(sweep(np.array([(0, -0.06, -0.05), (0, 0.06, -0.05), (0, 0.06, 0.05), (0, -0.06, 0.05)]), 0.012, 6, closed=True).move(stretch * y + 0.02, 0, z + 0.02), mat.metal(rng))
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
            s.add(extrude(star(5, 0.08, 0.035) if chance(rng, 0.5) else circle(18) * 0.07, 0.02).facing().turn("y", -0.35).move(0.31, 0, 0.17), band)
    elif kind == "beanie":
        s.add(torus(0.325, 0.045, 36, 8).scale(1, 1, 1.4).move(z=0.03), band)
        if chance(rng, 0.7):
            s.add(ellipsoid(0.09, 0.09, 0.09, 14).move(z=0.41), band)
    else:
        crest = sweep(np.column_stack([0.34 * np.cos(a := np.linspace(0.5, 2.6, 12)), 0 * a, 0.02 + 0.36 * np.sin(a)]), np.array([[0.04, 0.02]] * 12),
                      rectangle(1, 1, 0.3), up=(0, 0.01, 1))
        s.add([torus(0.33, 0.025, 36, 8).move(z=0.02), crest], band)
        if chance(rng, 0.6):
            s.add(ellipsoid(0.2, 0.25, 0.02, 16).move(0.28, 0, 0.0), felt)
        if chance(rng, 0.4):
            s.add([cylinder(0.07, 0.08, n=18).turn("y", np.pi / 2).move(0.32, 0, 0.2), ellipsoid(0.02, 0.06, 0.06, 12).move(0.365, 0, 0.2)], mat.plain(mat.rgb("fff3c4"), "cream"))
    return s


def shoe(rng: Rng) -> Sketch:
    """Trainer, boot, court shoe with a heel, clog, slipper; one or a pair."""
    kind = pick(rng, ("trainer", "boot", "heel", "slipper", "clog"))
    s = Sketch({"trainer": "trainer", "heel": "court shoe"}.get(kind, kind))
    upper, sole, trim = mat.leather(rng) if chance(rng, 0.4) else mat.fabric(rng, 0.25), pick(rng, (mat.WHITE, mat.DARK, mat.wood(rng))), mat.painted(rng)
    if kind == "clog":
        upper = mat.wood(rng) if chance(rng, 0.5) else mat.plastic(rng)
    lift = rng.uniform(0.16, 0.32) if kind == "heel" else 0.0
    wide, thick = rng.uniform(0.15, 0.19) * (0.8 if kind == "heel" else 1), rng.uniform(0.04, 0.09) if kind != "heel" else 0.02
    x = np.linspace(-0.45, 0.52, 16)
    u = (x + 0.45) / 0.97
    rise = lift * (1 - np.clip(u / 0.62, 0, 1)) ** 1.3
    half = wide * np.interp(u, [0, 0.06, 0.2, 0.45, 0.7, 0.9, 0.97, 1.0], [0.45, 0.7, 0.8, 0.74, 1.0, 0.82, 0.55, 0.2])
    s.add(sweep(np.stack([x, 0 * x, rise + thick / 2], 1), np.stack([half * 1.06, np.full(16, thick / 2)], 1), rectangle(1, 1, 0.3), up=(0, 0, 1)), sole)
    ankle = {"boot": 0.34, "trainer": 0.3, "heel": 0.2, "slipper": 0.12, "clog": 0.2}[kind]
    top = np.interp(u, [0, 0.1, 0.3, 0.5, 0.75, 0.95, 1.0], [ankle, ankle, ankle * 0.95, 0.2, 0.15, 0.1, 0.06]) if kind != "slipper" else np.interp(u, [0, 0.5, 0.6, 0.8, 1], [0.06, 0.06, 0.18, 0.15, 0.06])
    s.add(sweep(np.stack([x, 0 * x, rise + thick + top / 2 - 0.01], 1), np.stack([half, top / 2], 1), circle(16, 3.0), ends="round", up=(0, 0, 1)), upper)
    z = thick + ankle
    if kind == "boot":
        h = rng.uniform(0.2, 0.65)
        s.add(revolve(hollow(np.array([(0.15, 0), (0.145, 0.4 * h), (rng.uniform(0.15, 0.2), h)]), 0.025), 24).scale(1.15, 1, 1).move(-0.27, 0, z - 0.16), upper, (lambda p: p.outward[:, 2] > 0.9, mat.DARK))
        s.add(torus(0.165, 0.022, 24, 8).scale(1.15, 1, 1).move(-0.27, 0, z - 0.16 + h), trim)
        s.add(box(0.22, 1.5 * wide, 0.09, 0.01).move(-0.33, 0, -0.03), sole)
    else:
        s.add(torus(0.125, 0.03, 24, 8).scale(1.45, 0.85, 1).turn("y", 0.12).move(-0.25, 0, z + lift * 0.75 - 0.03), trim if kind != "clog" else upper)
        s.add(ellipsoid(0.15, 0.085, 0.02, 16).turn("y", 0.12).move(-0.25, 0, z + lift * 0.75 - 0.015), mat.DARK)
    if kind == "heel":
        s.add(rod((-0.4, 0, lift + thick), (-0.38, 0, 0), 0.07, rng.uniform(0.015, 0.04), 12), sole)
        if chance(rng, 0.5):
            s.add(both(ellipsoid(0.04, 0.07, 0.04, 10).move(0.4, 0.06, 0.14)), trim)
    elif kind == "trainer":
        s.add([sweep(spline([(q, -0.7 * wide, 0.19 + thick), (q, 0, np.interp(q, [0, 0.3], [0.27, 0.17]) + thick), (q, 0.7 * wide, 0.19 + thick)], 8), 0.014, 6) for q in np.linspace(0.03, 0.22, 4)], mat.WHITE)
        s.add(both(extrude(smooth([(-0.2, 0), (0.05, 0.08), (0.2, 0.02), (0.05, 0.03)], 16), 0.02).upright().move(0.0, wide * 0.78, thick + 0.06)), trim)
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
            s.add(revolve([(0, 0), (0.05, 0), (0.05, 0.1), (0.075, 0.12), (0.075, 0.17), (0, 0.18)], 18).turn("x", -np.pi / 2).move(0, 0.06, 0.03), steel)
            claw = spline([(0, -0.06, 0.04), (0, -0.18, 0.05), (0, -0.28, -0.04)], 8)
            s.add([sweep(claw + np.array([k, 0, 0]), np.stack([np.full(8, 0.022), np.linspace(0.045, 0.012, 8)], 1), rectangle(1, 1, 0.2), up=(0, 0, 1)) for k in (-0.028, 0.028)] if chance(rng, 0.7)
                  else [cylinder(0.06, 0.2, 0.01, n=4).turn("x", np.pi / 2).move(0, -0.17, 0.03)], steel)
        elif kind == "mallet":
            s.add((box(0.2, 0.42, 0.22, 0.03) if chance(rng, 0.5) else cylinder(0.13, 0.42, n=24, radius=0.03).turn("x", np.pi / 2)).move(z=0.05), mat.wood(rng) if chance(rng, 0.5) else mat.DARK)
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
            s.add(sweep(np.stack([0 * t, 0 * t, -long * t], 1), np.stack([0.028 + 0.01 * np.sin(6 * t), np.maximum(w * (1 - t) ** 3, 0) + 0.035 + 0.015 * np.sin(np.pi * t)], 1), circle(14, 3), ends="round", up=(0, 1, 0)), grip)
        s.add(box(0.09, 2 * w, 0.12, 0.01).move(z=0.06), steel if kind == "paint brush" else grip)
        bristle, hair = mat.painted(rng, [mat.rgb("e8d8b0"), mat.rgb("3a2a20"), mat.rgb("c99a4a")]), rng.uniform(0.18, 0.3)
        n = int(rng.integers(5, 9))
        s.add([rod((q, y, 0.1), (1.3 * q, 1.08 * y, 0.12 + hair + rng.uniform(-0.02, 0.03)), 0.024, 0.016, 6) for y in np.linspace(-0.85, 0.85, n) * w for q in (-0.02, 0.02)] + [box(0.07, 1.85 * w, hair, 0.01).move(z=0.12 + hair / 2)], bristle,
              *([(lambda p: p.centres[:, 2] > 0.12 + 0.6 * hair, mat.plastic(rng))] if kind == "paint brush" else []))
    elif kind == "saw":
        teeth = int(rng.integers(10, 18))
        y = np.linspace(0, 0.9, 2 * teeth + 1)
        edge = np.column_stack([y, -0.14 + 0.03 * (np.arange(2 * teeth + 1) % 2)])
        s.add(extrude(np.concatenate([edge, [(0.9, -0.04), (0, 0.12)]]), 0.012).facing(), steel)
        s.add(extrude(smooth([(0.08, 0.16), (-0.05, 0.2), (-0.28, 0.14), (-0.3, -0.02), (-0.22, -0.2), (0.05, -0.17)], 26), 0.07, holes=[smooth([(-0.04, 0.08), (-0.18, 0.06), (-0.16, -0.08), (-0.05, -0.07)], 14)], bevel=0.015).facing(), grip)
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
            s.add([sweep([(0, y, 0), (0.08, y, -0.03), (0.1, y, -0.14)], [0.016, 0.014, 0.006], 6) for y in np.linspace(-w, w, int(rng.integers(5, 11)))], steel)
    else:
        a = rng.uniform(0.1, 0.3)
        for k in (-1, 1):
            arm = spline([(0, 0, 0), (0, k * 0.09, -0.12), (0, k * 0.12, -0.35), (0, k * 0.07, -0.62)], 12)
            s.add(sweep(arm, 0.042, 10, ends="round").turn("x", -k * a * 0.5), grip)
        jaw = extrude([(0.005, -0.05), (0.09, -0.05), (0.08, 0.08), (0.03, 0.3), (0.005, 0.3)], 0.07, bevel=0.012).facing()
        s.add(both(jaw.turn("x", -a * 0.5)), steel)
        s.add(cylinder(0.06, 0.1, n=18).turn("y", np.pi / 2), steel)
    return s


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
        outline = smooth([(0.07, h * 0.45), (0.22 * w / 0.3, h * 0.72 + horn), (0.8 * w, h * 0.55), (waist * w, 0.05), (w, -0.55 * h), (0, -h), (-w, -0.55 * h), (-waist * w, 0.05), (-0.85 * w, h * 0.65), (-0.25, h * 0.8 + 1.3 * horn), (-0.07, h * 0.45)], 48)
    else:
        outline = smooth([(0, 0.95 * h), (up * w * 0.8, 0.85 * h), (up * w, 0.55 * h), (waist * w, 0.12 * h), (0.95 * w, -0.35 * h), (0.85 * w, -0.8 * h), (0, -h), (-0.85 * w, -0.8 * h), (-0.95 * w, -0.35 * h), (-waist * w, 0.12 * h), (-up * w, 0.55 * h), (-up * w * 0.8, 0.85 * h)], 44)
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
        s.add(both(sweep(spline([(x, 0.1, 0.1), (x, 0.075, 0.08), (x, 0.1, 0), (x, 0.12, -0.1), (x, 0.095, -0.12)], 12), 0.008, 6)), mat.BLACK)
    elif kind == "electric guitar":
        s.add([box(0.03, 0.16, 0.06, 0.01).move(x, 0, z) for z in (0.2 * h, -0.15 * h)], mat.DARK)
        s.add(extrude(smooth([(0.02, 0.3), (0.6, 0.1), (0.5, -0.6), (0.2, -0.7), (0.12, 0.0)], 18) * w, 0.012).facing().move(x - 0.003), mat.WHITE if chance(rng, 0.5) else dark)
        s.add([cylinder(0.025, 0.04, n=12).turn("y", np.pi / 2).move(x + 0.01, 0.45 * w, -0.3 * h - 0.09 * k) for k in range(3)], trim)
    else:
        s.add([torus(w, 0.022, 40, 8).turn("y", np.pi / 2).move(depth / 2), *(rod((depth / 2, w * np.cos(a), w * np.sin(a)), (-depth / 2, w * np.cos(a), w * np.sin(a)), 0.015, sides=6) for a in np.linspace(0, 2 * np.pi, 13)[:-1])], trim)
    zb = -0.45 * h
    s.add(box(0.035, 0.2 if kind != "violin" else 0.12, 0.035, 0.008).move(x + 0.01, 0, zb), dark)
    strings = 6 if "guitar" in kind else 4
    s.add([rod((x + 0.035, y, zb), (x + 0.062, y * 0.9, z1 + 0.03), 0.0035, sides=4) for y in np.linspace(-0.75, 0.75, strings) * t], mat.plain(mat.rgb("d8d4c8"), "grey"))
    if kind == "violin":
        a = np.linspace(0, 7.5, 22)
        q = 0.07 * np.exp(-0.22 * a)
        s.add(sweep(np.stack([x + 0.0 + q * np.sin(a), 0 * a, z1 + 0.06 + q * np.cos(a)], 1), np.stack([0.5 * q + 0.004, np.full(22, 0.035)], 1), 8), neck)
        s.add([p for z in (0.0, 0.05) for p in both(rod((x, 0.02, z1 + z), (x, 0.12, z1 + z), 0.012, 0.02))], dark)
        s.add(box(0.06, 0.12, 0.18, 0.03).move(x, 0, zb - 0.13), dark)
    else:
        head = [(-1.0 * t, 0), (1.0 * t, 0), (1.6 * t, 0.08), (1.4 * t, 0.24), (-1.4 * t, 0.24), (-1.6 * t, 0.08)]
        s.add(extrude(head, 0.04, bevel=0.008).facing().turn("y", -0.15).move(x + 0.01, 0, z1 - 0.01), neck)
        s.add([p for z in np.linspace(0.07, 0.21, strings // 2) for p in both(rod((x, 1.3 * t, z1 + z), (x, 1.3 * t + 0.06, z1 + z), 0.012, 0.022, 8))], trim)
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
            s.add([rod(((r + 0.015) * np.cos(a[k]), (r + 0.015) * np.sin(a[k]), 0.06 if k % 2 else h - 0.06), ((r + 0.015) * np.cos(a[k + 1]), (r + 0.015) * np.sin(a[k + 1]), h - 0.06 if k % 2 else 0.06), 0.013, sides=6) for k in range(2 * n)], skin)
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
        s.add([p.turn("z", k * np.pi / 4) for k in range(8) for p in (cylinder(0.07, 0.012, n=16).move(r + 0.0, 0, 0.06), cylinder(0.07, 0.012, n=16).move(r + 0.0, 0, 0.09))], rim)
        out, tilt = Sketch(kind), rng.uniform(0, 1.4)
        out.merge(s, lambda p: p.turn("y", tilt))
        return out
    elif kind == "trumpet":
        brass = mat.plain(mat.rgb(pick(rng, ("d4af37", "c9a227", "c0c4c8", "b5652e"))), "brass")
        tube = fillet([(-0.75, 0, 0.22), (0.55, 0, 0.22), (0.55, 0, 0), (-0.45, 0, 0), (-0.45, 0, 0.12), (0.2, 0, 0.12)], 0.1, 5)
        s.add(sweep(tube, 0.024, 10), brass)
        t = np.linspace(0, 1, 14)
        s.add(revolve(hollow(np.column_stack([0.025 + 0.2 * t**4, 0.5 * t]), 0.012, 0.3), 28).turn("y", np.pi / 2).move(0.5, 0, 0.22), brass)
        s.add(revolve([(0, 0), (0.05, 0), (0.03, 0.06), (0.02, 0.12), (0, 0.12)], 14).turn("y", np.pi / 2).move(-0.84, 0, 0.22), rim)
        for x in (-0.1, 0.0, 0.1):
            s.add([rod((x, 0, -0.1), (x, 0, 0.32), 0.036, sides=12), rod((x, 0, 0.3), (x, 0, 0.42), 0.012, sides=6), cylinder(0.035, 0.02, n=12).move(x, 0, 0.42)], brass if x else trim)
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
        s.add([p for k in (-1, 1) for p in (rod((0.1 * k, 0.1, 0.17), (0.5 + 0.1 * k, -0.2, 0.3), 0.014), ellipsoid(0.045, 0.045, 0.045, 12).move(0.1 * k, 0.1, 0.17))], trim)
    return s
