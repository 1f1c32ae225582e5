# SPDX-License-Identifier: Apache-2.0
"""Things that stand about in a room: shelf, cabinet, chest of drawers, lamp, clock. Doors and dials face +x."""

from __future__ import annotations

import itertools

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.chairs import legs
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import extrude, smooth
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Part,
    around,
    beam,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    fillet,
    hollow,
    loft,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def _books(rng: Rng, s: Sketch, y0: float, y1: float, z: float, room: float, d: float) -> None:
    """A row of books from y0 to y1, standing at z."""
    y, colours = y0, [mat.any_colour(rng) for _ in range(4)]
    covers = [mat.plain(c) for c in colours]
    while y < y1 - 0.05:
        t = rng.uniform(0.02, 0.06)
        high, deep = rng.uniform(0.6, 0.93) * room, rng.uniform(0.6, 0.9) * d
        s.add(box(deep, t, high).rest(z).move(d / 2 - deep / 2 - 0.02, y + t / 2, 0), covers[int(rng.integers(4))])
        y += t + 0.002


def _ornament(rng: Rng, s: Sketch, y: float, z: float, room: float, wide: float) -> None:
    """Something else to put on a shelf."""
    r, m = min(0.35 * room, 0.4 * wide, 0.13), mat.painted(rng)
    kind = pick(rng, ("ball", "box", "vase", "bin"))
    if kind == "ball":
        s.add(ellipsoid(r, r, r, 14).rest(z).move(y=y), m)
    elif kind == "box":
        s.add(box(1.6 * r, 2 * r, rng.uniform(0.8, 2) * r, 0.01).rest(z).move(y=y), m)
    elif kind == "vase":
        s.add(
            revolve([(0, 0), (0.5 * r, 0), (0.9 * r, 0.7 * r), (0.35 * r, 1.6 * r), (0.5 * r, 2 * r), (0, 2 * r)], 14).rest(z).move(y=y), m
        )
    else:
        s.add(box(1.8 * r, 2.2 * r, 0.75 * room, 0.01).rest(z).move(y=y), mat.fabric(rng))


def shelf(rng: Rng) -> Sketch:
    """Bookcase, cube wall, ladder shelf, open frame; filled or bare."""
    s = Sketch("shelf")
    w, h, d = rng.uniform(0.5, 1.6), rng.uniform(0.7, 2.0), rng.uniform(0.22, 0.42)
    wood, side = pick(rng, (mat.wood, mat.painted, mat.metal), (4, 2, 1))(rng), None
    side = wood if chance(rng, 0.65) else pick(rng, (mat.wood, mat.metal, mat.painted))(rng)
    t, rows, cols = rng.uniform(0.018, 0.04), int(rng.integers(2, 7)), int(rng.integers(1, 4)) if w > 0.8 else 1
    kind = pick(rng, ("case", "frame", "ladder", "stagger"), (5, 2, 1.5, 1.5))
    foot = pick(rng, (0.0, rng.uniform(0.04, 0.2)))
    levels = np.linspace(foot + t / 2, h - t / 2, rows + 1)
    if kind != "case" and kind != "stagger":
        levels = levels + np.array([0.08, *([0.0] * (rows - 1)), -0.02 if kind == "frame" else -0.1])
    depths = np.full(rows + 1, d)
    if kind == "case":
        s.add(both(box(d, t, h).move(0, w / 2 - t / 2, h / 2)), side)
        if chance(rng, 0.6):
            s.add(box(0.01, w - t, h - foot).move(-d / 2 + 0.005, 0, (h + foot) / 2), side if chance(rng, 0.6) else mat.painted(rng))
    elif kind == "frame":
        r = rng.uniform(0.01, 0.02)
        s.add([q for p in both(rod((d / 2 - r, w / 2 - r, 0), (d / 2 - r, w / 2 - r, h), r, sides=8)) for q in both(p, "x")], side)
        if chance(rng, 0.5):
            s.add([rod((-d / 2 + r, -k * w / 2, 0.05), (-d / 2 + r, k * w / 2, h - 0.05), 0.5 * r, sides=6) for k in (-1, 1)], side)
    elif kind == "ladder":
        s.noun, depths = "ladder shelf", np.linspace(1.6 * d, 0.6 * d, rows + 1)
        s.add(both(beam((0.8 * d, w / 2, 0), (-0.75 * d, w / 2, h), 0.05, 0.03, up=(0, 1, 0))), side)
        s.add(both(beam((-0.8 * d, w / 2, 0), (-0.8 * d, w / 2, h), 0.04, 0.03, up=(0, 1, 0))), side)
    else:
        s.add(box(d, t, h).move(0, 0, h / 2), side)
    edges = np.linspace(-w / 2 + t / 2, w / 2 - t / 2, cols + 1)
    filled = rng.uniform(0, 0.9)
    for k, (z, deep) in enumerate(zip(levels, depths, strict=True)):
        x = -0.8 * d + deep / 2 if kind == "ladder" else 0.0
        shift = (0.22 * w * (-1) ** k) if kind == "stagger" else 0.0
        wide = 0.62 * w if kind == "stagger" else w - 0.01
        s.add(box(deep - 0.012, wide, t, 0.1 * t).move(x + 0.006, shift, z), wood)
        if k == rows:
            continue
        room = levels[k + 1] - z - t
        if kind == "case":
            for y in edges[1:-1]:
                s.add(box(0.94 * d, t, room + t).move(0.01, y, z + t / 2 + room / 2), wood)
        for a, b in itertools.pairwise(edges):
            if kind == "stagger":
                a, b = (0.03, shift + wide / 2) if shift > 0 else (shift - wide / 2, -0.03)
            if not chance(rng, filled):
                continue
            inset = a + t / 2 + 0.005
            if chance(rng, 0.6):
                _books(rng, s, inset, inset + rng.uniform(0.4, 0.95) * (b - a - t), z + t / 2, room, min(deep, d))
            else:
                _ornament(rng, s, (a + b) / 2, z + t / 2, room, b - a)
            if kind == "stagger":
                break
    return s


def _handle(rng: Rng, kind: str, size: float) -> Part:
    """A pull that sticks out along +x, lengthwise along z."""
    if kind == "knob":
        return revolve(
            [(0, 0), (0.3 * size, 0), (0.22 * size, 0.3 * size), (0.5 * size, 0.6 * size), (0.4 * size, 0.85 * size), (0, 0.9 * size)], 12
        ).turn("y", np.pi / 2)
    if kind == "bar":
        return sweep(fillet([(0, 0, -size), (0.5 * size, 0, -size), (0.5 * size, 0, size), (0, 0, size)], 0.25 * size, 2), 0.12 * size, 6)
    return box(0.4 * size, 0.35 * size, 2 * size, 0.05 * size).move(0.2 * size)


def _carcass(rng: Rng, s: Sketch, w: float, h: float, d: float) -> tuple[Material, Material, float]:
    """The body on its feet, with a top and a plinth; returns the materials of body and fronts, and the body's lowest z."""
    body = pick(rng, (mat.wood, mat.painted, mat.metal), (5, 3, 1))(rng)
    front = body if chance(rng, 0.5) else pick(rng, (mat.wood, mat.painted, mat.boards, mat.printed), (3, 4, 1, 0.5))(rng)
    foot = pick(rng, (0.0, 0.05, rng.uniform(0.08, 0.3)))
    s.add(box(d, w, h, rng.uniform(0, 0.04)).rest(foot), body)
    if foot > 0.06:
        legs(
            rng,
            s,
            d / 2 - 0.05,
            w / 2 - 0.05,
            foot + 0.01,
            body if chance(rng, 0.5) else mat.metal(rng),
            ("taper", "square", "round", "block", "turned"),
        )
    elif foot > 0:
        s.add(box(0.9 * d, 0.94 * w, 0.06).rest(0), mat.darker(body))
    if chance(rng, 0.5):
        over = rng.uniform(0.01, 0.04)
        s.add(box(d + 2 * over, w + 2 * over, rng.uniform(0.02, 0.05), 0.008).rest(foot + h), body if chance(rng, 0.5) else mat.stone(rng))
    if chance(rng, 0.2):
        crown = extrude(smooth([(-w / 2, 0), (w / 2, 0), (0.3 * w, 0.06), (0, 0.14), (-0.3 * w, 0.06)], 24), 0.03).facing()
        s.add(crown.move(d / 2 - 0.03, 0, foot + h + 0.02), body)
    return body, front, foot


def _front(
    rng: Rng, s: Sketch, x: float, y: float, z: float, wide: float, high: float, panel: str, front: Material, trim: Material
) -> None:
    """One door or drawer front, its middle at (y, z)."""
    s.add(box(0.024, wide, high, 0.006).move(x, y, z), front)
    if panel == "raised":
        s.add(box(0.03, 0.72 * wide, 0.76 * high, 0.012).move(x + 0.006, y, z), trim)
    elif panel == "frame":
        t = 0.1 * min(wide, high) + 0.01
        s.add([box(0.022, wide, t).move(x + 0.012, y, z + k * (high - t) / 2) for k in (-1, 1)], trim)
        s.add([box(0.022, t, high).move(x + 0.012, y + k * (wide - t) / 2, z) for k in (-1, 1)], trim)
    elif panel == "slats":
        n = max(int(high / 0.08), 3)
        s.add(
            [
                box(0.02, 0.8 * wide, 0.5 * high / n).turn("y", 0.4).move(x + 0.012, y, z + ((k + 0.5) / n - 0.5) * 0.9 * high)
                for k in range(n)
            ],
            trim,
        )


def cabinet(rng: Rng) -> Sketch:
    """Cupboard, sideboard, wardrobe, glass cabinet: doors, some drawers, some open places."""
    s = Sketch("cabinet")
    h, d = pick(rng, (rng.uniform(0.5, 0.9), rng.uniform(1.2, 2.0))), rng.uniform(0.35, 0.6)
    w = rng.uniform(0.5, 1.9) if h < 1 else rng.uniform(0.5, 1.3)
    s.noun = "sideboard" if h < 1 and w > 1.1 else "wardrobe" if h > 1.5 else "cabinet"
    body, front, foot = _carcass(rng, s, w, h, d)
    trim = front if chance(rng, 0.6) else mat.painted(rng)
    pane = mat.glass(rng)
    panel, knob, pull = pick(rng, ("flat", "raised", "frame", "slats")), pick(rng, ("knob", "bar", "grip")), mat.metal(rng)
    cols = max(1, round(w / rng.uniform(0.32, 0.6)))
    split, drawers = pick(rng, (0.0, rng.uniform(0.2, 0.4))), chance(rng, 0.5)
    gap, x, size = 0.012, d / 2 + 0.008, rng.uniform(0.02, 0.04)
    wide = (w - 0.05) / cols
    low, high = foot + 0.03, foot + h - 0.03
    edge = high - split * (high - low) if h < 1 else low + split * (high - low)
    for k in range(cols):
        y = (k + 0.5) * wide - (w - 0.05) / 2
        spans = [(low, edge, drawers and h > 1), (edge, high, drawers and h < 1)] if split else [(low, high, False)]
        for a, b, is_drawer in spans:
            z, tall = (a + b) / 2, b - a - gap
            if not is_drawer and chance(rng, 0.12):
                s.add(box(0.012, wide - gap, tall).move(d / 2, y, z), mat.darker(body, 0.35))
                continue
            kind = "glass" if panel == "frame" and not is_drawer and chance(rng, 0.5) else panel
            _front(rng, s, x, y, z, wide - gap, tall, "frame" if kind == "glass" else kind, pane if kind == "glass" else front, trim)
            grip = _handle(rng, knob, size)
            at = (x + 0.01, y, z) if is_drawer else (x + 0.01, y + (0.42 if k % 2 == 0 else -0.42) * wide, z if h < 1 else (low + high) / 2)
            s.add((grip.turn("x", np.pi / 2) if is_drawer else grip).move(*at), pull)
    return s


def dresser(rng: Rng) -> Sketch:
    """Chest of drawers: straight, bow-fronted, in one to three columns; one drawer may stand open, a mirror may stand on it."""
    s = Sketch("chest of drawers")
    w, h, d = rng.uniform(0.4, 1.4), rng.uniform(0.5, 1.2), rng.uniform(0.35, 0.55)
    body, front, foot = _carcass(rng, s, w, h, d)
    panel, knob, pull = pick(rng, ("flat", "raised", "frame")), pick(rng, ("knob", "bar", "grip")), mat.metal(rng)
    cols, rows = max(1, round(w / rng.uniform(0.4, 0.9))), int(rng.integers(2, 6))
    grow = rng.uniform(0.75, 1.0)
    share = grow ** np.arange(rows)
    edges = foot + 0.02 + np.concatenate([[0], np.cumsum(share / share.sum())]) * (h - 0.04)
    wide, size, bow = (w - 0.04) / cols, rng.uniform(0.018, 0.035), pick(rng, (0.0, rng.uniform(0.02, 0.07)))
    tones = [front, front, mat.painted(rng)] if chance(rng, 0.25) else [front]
    for k in range(cols):
        y = (k + 0.5) * wide - (w - 0.04) / 2
        for a, b in itertools.pairwise(edges):
            out = rng.uniform(0.08, 0.25) if chance(rng, 0.06) else 0.0
            x, tall, tone = d / 2 + 0.008 + out, b - a - 0.014, pick(rng, tones)
            if bow:
                outline = np.concatenate(
                    [
                        np.stack([bow * (1 - np.linspace(-1, 1, 9) ** 2), np.linspace(-1, 1, 9) * (wide - 0.014) / 2], 1),
                        [[-0.02, (wide - 0.014) / 2], [-0.02, -(wide - 0.014) / 2]],
                    ]
                )
                s.add(extrude(outline, tall, bevel=0.004).move(x, y, (a + b) / 2), tone)
            else:
                _front(rng, s, x, y, (a + b) / 2, wide - 0.014, tall, panel, tone, tone)
            if out:
                s.add(box(out, wide - 0.05, 0.8 * tall).move(d / 2 + out / 2, y, (a + b) / 2 - 0.02), mat.darker(body, 0.6))
            for q in (0.0,) if wide < 0.5 else (-0.28, 0.28):
                s.add(
                    _handle(rng, knob, size).turn("x", np.pi / 2).move(x + 0.01 + bow * (1 - (2 * q) ** 2), y + q * wide, (a + b) / 2), pull
                )
    if chance(rng, 0.15):
        r = rng.uniform(0.2, 0.32)
        oval = cylinder(r, 0.03, n=32).scale(1, rng.uniform(0.7, 1.1), 1).turn("y", np.pi / 2 - 0.1).move(-0.3 * d, 0, foot + h + 1.02 * r)
        s.add(oval, body)
        s.add(oval.scale(1, 0.9, 1).move(0.012), mat.plain(mat.rgb("c9dbe4")))
    return s


def _shade(rng: Rng, s: Sketch, r: float, z: float) -> float:
    """A lamp shade over its bulb, its middle at z; returns its height."""
    shade = mat.fabric(rng, 0.4) if chance(rng, 0.7) else pick(rng, (mat.plastic, mat.metal, mat.ceramic))(rng)
    kind = pick(rng, ("cone", "drum", "bell", "dome", "globe", "square"), (4, 3, 2, 2, 2, 1))
    if kind == "globe":
        s.add(
            ellipsoid(r, r, rng.uniform(0.8, 1.1) * r, 24).move(z=z),
            mat.painted(rng, [mat.rgb("fff3d6"), mat.rgb("f7f7f2"), mat.rgb("f3d9a4")]),
        )
        return 2 * r
    high = rng.uniform(0.8, 1.7) * r
    top = {"cone": rng.uniform(0.3, 0.75), "square": rng.uniform(0.5, 0.9), "drum": rng.uniform(0.92, 1.0)}.get(kind, 0.3) * r
    t = np.linspace(0, 1, 10)
    if kind == "bell":
        radii = r + (top - r) * t**0.5
    elif kind == "dome":
        radii, high = np.maximum(r * np.sqrt(1 - (0.97 * t) ** 2), 0.1 * r), 0.8 * high
    else:
        t = np.linspace(0, 1, 3)
        radii = r + (top - r) * t
    profile = np.stack([radii, (t - 0.5) * high + z], 1)
    wall = 0.03 * r
    inside = profile[::-1] - np.array([wall, 0])
    rings = np.concatenate([profile, inside])  # a ring of cloth, open above and below
    section = circle(28 if kind != "square" else 4, 2.0, 0.0 if kind != "square" else np.pi / 4)
    xyz = np.concatenate([section[None] * rings[:, None, :1], np.broadcast_to(rings[:, None, 1:], (len(rings), len(section), 1))], 2)
    s.add(loft(xyz, closed=True), shade)
    bulb = mat.plain(mat.rgb("fff0c0"), "cream")
    s.add(ellipsoid(0.22 * r, 0.22 * r, 0.3 * r, 12).move(z=z), bulb)
    return float(high)


def lamp(rng: Rng) -> Sketch:
    """Table lamp with a thrown or carved foot, floor lamp, arc lamp, tripod, jointed desk lamp, hanging lamp."""
    kind = pick(rng, ("table", "floor", "arc", "tripod", "desk", "hanging"), (4, 3, 1.2, 1.2, 2, 1))
    s = Sketch("lamp" if kind in ("table", "hanging") else f"{kind} lamp" if kind != "tripod" else "floor lamp")
    stem = pick(rng, (mat.metal, mat.wood, mat.painted), (3, 2, 2))(rng)
    r = rng.uniform(0.12, 0.24)
    if kind == "table":
        h, body = rng.uniform(0.25, 0.5), mat.ceramic(rng) if chance(rng, 0.6) else stem
        radii = rng.uniform(0.25, 1.0, 5) * 0.7 * r
        radii[0], radii[-1] = max(radii[0], 0.45 * r), 0.1 * r
        z = np.linspace(0, 0.8 * h, 18)
        curve = np.maximum(spline(radii[:, None], 18)[:, 0], 0.06 * r)
        s.add(revolve([(0, 0), *zip(curve, z, strict=True), (0, 0.8 * h)], 24, pick(rng, (2.0, 2.0, 4.0))), body)
        s.add(rod((0, 0, 0.75 * h), (0, 0, 1.1 * h), 0.05 * r), mat.metal(rng))
        _shade(rng, s, r, h + 0.45 * r)
    elif kind in ("floor", "hanging"):
        h = rng.uniform(0.8, 1.4) if kind == "floor" else rng.uniform(0.3, 0.6)
        t = rng.uniform(0.01, 0.026)
        r *= 1.35
        s.add(rod((0, 0, 0), (0, 0, h + 0.1), t if kind == "floor" else 0.4 * t), stem)
        if kind == "floor":
            s.add(cylinder(rng.uniform(0.13, 0.22), rng.uniform(0.02, 0.05), n=28, radius=0.01).rest(0), stem)
            _shade(rng, s, r, h)
            if chance(rng, 0.3):
                s.add(box(0.3, 0.3, 0.015).move(z=0.45 * h), stem)
        else:
            s.add(cylinder(0.06, 0.03, n=20, r_top=0.03).move(z=h + 0.1), stem)
            _shade(rng, s, r * 1.2, -0.05)
    elif kind == "arc":
        h, out = rng.uniform(1.2, 1.7), rng.uniform(0.4, 0.9)
        path = spline(
            [(0, -out / 2, 0.02), (0, -out / 2, 0.6 * h), (0, -0.2 * out, h), (0, 0.3 * out, 0.97 * h), (0, out / 2, 0.75 * h)], 24
        )
        s.add(sweep(path, 0.012, 8), stem)
        s.add(box(0.25, 0.25, 0.06, 0.02).rest(0).move(y=-out / 2), mat.stone(rng))
        top = Sketch("")
        _shade(rng, top, r, 0.0)
        s.merge(top, lambda p: p.move(0, out / 2, 0.72 * h))
    elif kind == "tripod":
        h, out = rng.uniform(0.5, 1.2), rng.uniform(0.18, 0.4)
        s.add(around(rod((0.03, 0, h), (out, 0, 0), 0.018, 0.012), 3, 0.3), stem)
        s.add(cylinder(0.05, 0.06, n=16).move(z=h), mat.metal(rng))
        _shade(rng, s, r * 1.1, h + 0.6 * r)
    else:
        a, b, lift = rng.uniform(0.25, 0.4), rng.uniform(0.2, 0.38), rng.uniform(0.9, 1.4)
        elbow = np.array([-a * np.cos(lift), 0, a * np.sin(lift) + 0.04])
        head = elbow + np.array([b * 0.9, 0, b * 0.4])
        double = rng.uniform(0.008, 0.014)
        for y in (-double, double):
            s.add(
                [
                    rod((0, y, 0.03), elbow + np.array([0, y, 0]), 0.006, sides=8),
                    rod(elbow + np.array([0, y, 0]), head + np.array([0, y, 0]), 0.006, sides=8),
                ],
                stem,
            )
        s.add([cylinder(0.02, 5 * double, n=14).turn("x", np.pi / 2).move(*p) for p in (elbow, head, np.array([0, 0, 0.035]))], stem)
        s.add(cylinder(0.09, 0.03, n=24, radius=0.01).rest(0), stem)
        hood = revolve(hollow([(0.02, 0), (0.03, 0.03), (0.05, 0.05), (0.085, 0.13), (0.09, 0.16)], 0.005), 24)
        tip = hood.move(z=-0.02).aim((rng.uniform(0.3, 0.9), 0, -1)).move(*head)
        s.add(tip, mat.plastic(rng) if chance(rng, 0.5) else stem)
        s.add(ellipsoid(0.035, 0.035, 0.045, 12).move(z=0.09).aim((0.5, 0, -1)).move(*head), mat.plain(mat.rgb("fff0c0"), "cream"))
    return s


def clock(rng: Rng) -> Sketch:
    """Wall clock, alarm clock with bells, mantel clock, grandfather clock, cuckoo clock."""
    kind = pick(rng, ("wall", "alarm", "mantel", "grandfather", "cuckoo"), (2, 3, 2, 1.5, 1))
    s = Sketch({"mantel": "clock", "wall": "wall clock"}.get(kind, f"{kind} clock"))
    body = mat.finish(rng) if kind in ("wall", "alarm") else mat.wood(rng)
    trim, face = mat.metal(rng), mat.plain(pick(rng, (mat.rgb("f7f3e6"), mat.rgb("ffffff"), mat.rgb("2a2a2e"), mat.any_colour(rng))))
    ink = mat.BLACK if face.colour.mean() > 0.4 else mat.WHITE
    r, depth = 0.5, rng.uniform(0.08, 0.35)
    is_square = kind in ("wall", "mantel") and chance(rng, 0.3)

    def disc(radius: float, thick: float, m: Material, x: float, power: float = 2.0) -> None:
        plate = revolve([(0, -thick / 2), (radius, -thick / 2), (radius, thick / 2), (0, thick / 2)], 36, power)
        s.add(plate.turn("y", np.pi / 2).move(x), m)

    power = 9.0 if is_square else 2.0
    if kind in ("wall", "alarm"):
        disc(r, depth, body, 0, power)
        if is_square:
            disc(0.93 * r, 0.02, trim, depth / 2, power)
        else:
            s.add(torus(r, 0.04, 40, 8).turn("y", np.pi / 2).move(depth / 2), trim if chance(rng, 0.5) else body)
    else:
        depth = 0.5
        s.add(box(depth, 1.15, 1.2 if kind != "grandfather" else 1.1, 0.04), body)
    x = depth / 2 + 0.012
    disc(0.88 * r, 0.02, face, x, power)
    count = pick(rng, (12, 12, 4))
    for k in range(count):
        tick = box(0.012, 0.02 if k % 3 else 0.04, 0.06 if k % 3 else 0.1).move(x + 0.012, 0, 0.75 * r)
        s.add(tick.turn("x", 2 * np.pi * k / count), ink)
    hand = pick(rng, (ink, mat.painted(rng)))
    for long, wide, a in ((0.45, 0.05, rng.uniform(0, 6.3)), (0.7, 0.035, rng.uniform(0, 6.3))):
        s.add(box(0.014, wide, long * r).taper(1, 0.4).move(x + 0.022, 0, 0.42 * long * r).turn("x", a), hand)
    s.add(ellipsoid(0.03, 0.035, 0.035, 10).move(x + 0.02), hand)
    if kind == "alarm":
        bell = revolve([(0, -0.03), (0.19, -0.03), (0.18, 0.04), (0.12, 0.11), (0.03, 0.14), (0, 0.145)], 20)
        s.add(both(bell.move(z=r + 0.1).turn("x", -0.55)), trim)
        s.add(both(rod((0, 0, r), (0, 0, r + 0.1), 0.02).turn("x", -0.55)), trim)
        s.add(both(rod((0, 0.25, -0.4), (0, 0.36, -0.62), 0.05, 0.035, ends="round")), trim)
        s.add(sweep(spline([(0, -0.18, r + 0.14), (0, 0, r + 0.36), (0, 0.18, r + 0.14)], 12), 0.02, 8), trim)
    elif kind == "mantel":
        if chance(rng, 0.6):
            arch = cylinder(0.575, depth, n=36).turn("y", np.pi / 2).move(z=0.55)
            s.add(arch, body)
        s.add(box(depth + 0.2, 1.5, 0.12, 0.03).move(z=-0.62), body)
        s.add(box(depth + 0.1, 1.35, 0.08, 0.02).move(z=-0.53), trim)
    elif kind == "grandfather":
        long = rng.uniform(1.6, 2.6)
        s.add(box(0.8 * depth, 0.8, long, 0.02).move(z=-0.5 - long / 2), body)
        s.add(box(0.03, 0.55, 0.8 * long).move(0.4 * depth, 0, -0.5 - long / 2), mat.glass(rng))
        s.add(
            [
                cylinder(0.16, 0.04, n=20).turn("y", np.pi / 2).move(0.45 * depth, 0, -0.5 - 0.7 * long),
                rod((0.44 * depth, 0, -0.6), (0.44 * depth, 0, -0.5 - 0.7 * long), 0.02),
            ],
            trim,
        )
        s.add(box(depth, 1.1, 0.7, 0.03).move(z=-0.8 - long), body)
        s.add(box(depth + 0.1, 1.3, 0.1, 0.02).move(z=0.6), body)
        s.add(extrude([(-0.6, 0.64), (0.6, 0.64), (0, rng.uniform(0.75, 1.0))], depth).facing(), body)
    elif kind == "cuckoo":
        roof = mat.textured(patterns.shingles(rng, mat.choose(rng, mat.WOODS)), "wooden", 3.0)
        gable = extrude([(-0.575, 0.58), (0.575, 0.58), (0, 1.1)], depth).facing()
        s.add(gable, body)
        s.add(both(box(depth + 0.2, 1.0, 0.08, 0.02).turn("x", -np.arctan2(0.52, 0.575)).move(0, 0.36, 0.88)), roof)
        s.add(box(0.02, 0.25, 0.25).move(x - 0.01, 0, 0.68), mat.DARK)
        s.add(ellipsoid(0.14, 0.08, 0.08, 12).move(x + 0.05, 0, 0.68), mat.plastic(rng))
        for y in (-0.2, 0.2):
            low = rng.uniform(0.9, 1.6)
            s.add(rod((0, y, -0.6), (0, y, -low), 0.012, sides=6), trim)
            s.add(ellipsoid(0.08, 0.08, 0.17, 12).move(0, y, -low), mat.darker(body))
    return s
