# SPDX-License-Identifier: Apache-2.0
"""What sails, flies or is pedalled: boat, plane, helicopter, rocket, bicycle, balloon. They travel towards +x."""

from __future__ import annotations

import numpy as np

from bozzetto.data.procedural import materials as mat
from bozzetto.data.procedural.materials import Material
from bozzetto.data.procedural.outlines import extrude
from bozzetto.data.procedural.sketch import Sketch, chance, pick
from bozzetto.data.procedural.solids import (
    Array, Part, around, beam, both, box, circle, cylinder, ellipsoid, fillet, hollow, loft, rectangle, revolve, rod, spline, sweep, torus,
)

Rng = np.random.Generator


def wing(root: float, tip: float, span: float, thick: float, swept: float = 0.0, lift: float = 0.0) -> Part:
    """Half a wing along +y from the origin: chords at root and tip, the tip `swept` back and raised by `lift`."""
    t = np.linspace(0, 1, 6)
    path = np.stack([-swept * t, span * t, lift * t], 1)
    chord = (root + (tip - root) * t) / 2
    chord[-1] *= 0.8
    section = np.array([(1, 0.1), (0.75, 0.75), (0.2, 1), (-0.5, 0.6), (-1, 0.08), (-1, -0.08), (-0.5, -0.4), (0.3, -0.6), (0.8, -0.5), (1, -0.1)])
    rings = path[:, None] + np.stack([section[None, :, 0] * chord[:, None], np.zeros((6, 10)), section[None, :, 1] * thick * (chord / chord[0])[:, None]], 2)
    return loft(rings[:, ::-1])


def hull(length: float, beam_: float, depth: float, sheer: float, stern: float, deep: float, flat: float) -> tuple[Part, Array]:
    """An open boat's shell along x with its gunwale near z = 0, and its gunwale line (M, 3) at the side +y.

    stern  breadth of the stern as a share of `beam_`; 0 is a second bow
    deep   how far down the inside goes, as a share of the depth; 0 is decked over
    flat   0 is a round bottom, 1 a V
    """
    m, n = 22, 9
    t = np.linspace(0, 1, m)
    bow = np.clip(np.sin(np.pi / 2 * np.minimum(1, (1 - t) / 0.55)), 0, 1) ** 0.8
    aft = stern + (1 - stern) * np.sin(np.pi / 2 * np.minimum(1, t / 0.4)) ** (0.8 if stern < 0.2 else 1.0)
    half = beam_ / 2 * np.maximum(bow * aft, 0.015)
    top = sheer * (2 * t - 0.9) ** 2
    down = depth * np.maximum(np.minimum(1, (1 - t) / 0.25) ** 0.5 * (1 if stern > 0.2 else np.minimum(1, t / 0.25) ** 0.5), 0.25)
    a = np.linspace(-np.pi / 2, np.pi / 2, n)
    y, z = np.sin(a), np.cos(a) ** (1 + flat)
    inner = np.minimum(1, np.minimum((1 - t) / 0.2, t / (0.12 if stern > 0.2 else 0.2))) * deep
    rings = []
    for k in range(m):
        out = np.column_stack([y * half[k], top[k] - down[k] * z])
        inn = np.column_stack([y[::-1] * half[k] * 0.88, top[k] - 0.01 - down[k] * np.minimum(z[::-1] * 0.85, 1) * inner[k]])
        ring = np.concatenate([out, inn])
        rings.append(np.column_stack([np.full(len(ring), (t[k] - 0.5) * length), ring]))
    part = loft(np.stack(rings))
    rake = 0.12 * length
    line = np.stack([(t - 0.5) * length, half, top], 1)

    def lean(v: Array) -> Array:  # the stem leans forward
        k = np.clip(v[:, 0] / length * 2 - 0.3, 0, 1) * np.clip(v[:, 2] + depth, 0, None) / depth
        return v + np.column_stack([rake * k, 0 * k, 0 * k])
    return part.warp(lean), lean(line)


def _sail(luff: tuple[float, float, float], rise: float, foot: float, belly: float, tip: float = 0.04) -> Part:
    """A sail from its lower front corner: up by `rise`, back by `foot`, bulging to +y."""
    t = np.linspace(0, 1, 9)
    rings = []
    for q in t:
        width = foot * (1 - q) + tip * q
        u = np.linspace(0, 1, 8)
        front = np.column_stack([-u * width, belly * np.sin(np.pi * u) * np.sin(np.pi * (0.15 + 0.8 * q)), np.full(8, q * rise)])
        rings.append(np.concatenate([front, (front - [0, 0.012, 0])[::-1]]))
    return loft(np.stack(rings)).move(*luff)


def boat(rng: Rng) -> Sketch:
    """Rowing boat, canoe, sailing boat, motor boat, tug or fishing boat, steamer, galleon."""
    kind = pick(rng, ("rowing", "canoe", "sailing", "motor", "tug", "steamer", "galleon"), (2, 1, 4, 2, 2, 1.5, 1.5))
    s = Sketch({"rowing": "rowing boat", "sailing": "sailing boat", "motor": "motor boat", "tug": "tug boat", "canoe": "canoe"}.get(kind, "ship"))
    length = rng.uniform(1.6, 2.3)
    wide = length * {"canoe": rng.uniform(0.15, 0.22), "steamer": rng.uniform(0.18, 0.26)}.get(kind, rng.uniform(0.3, 0.42))
    depth = length * {"canoe": 0.1, "rowing": 0.14, "galleon": 0.22, "steamer": 0.17}.get(kind, rng.uniform(0.12, 0.2))
    sheer = length * {"motor": 0.02, "canoe": 0.1, "galleon": 0.14}.get(kind, rng.uniform(0.03, 0.09))
    open_ = kind in ("rowing", "canoe") or (kind in ("sailing", "motor") and chance(rng, 0.5))
    part, line = hull(length, wide, depth, sheer, 0.0 if kind == "canoe" else rng.uniform(0.45, 0.8), 0.8 if open_ else 0.12, rng.uniform(0, 0.8))
    paint, deck, second = mat.finish(rng), mat.boards(rng) if chance(rng, 0.5) else mat.wood(rng), mat.painted(rng)
    water = rng.uniform(0.3, 0.6) * -depth
    band = [(lambda p: (p.centres[:, 2] < water) & (p.outward[:, 2] < 0.5), second)] if chance(rng, 0.6) else []
    s.add(part, paint, *band, (lambda p: p.outward[:, 2] > 0.6, deck))
    s.add(both(sweep(line, 0.018 * length, 6)), deck if chance(rng, 0.5) else second)
    if open_:
        for x in np.linspace(-0.28, 0.22, int(rng.integers(1, 4))) * length:
            y = float(np.interp(x, line[:, 0], line[:, 1]))
            s.add(box(0.08 * length, 1.85 * y, 0.03, 0.005).move(x, 0, -0.2 * depth), deck)
    if kind in ("rowing", "canoe"):
        for side in (1, -1)[: 2 if kind == "rowing" else int(rng.integers(0, 2))]:
            a, b = np.array([-0.05 * length, 0.1 * side * wide, 0.12 * length]), np.array([-0.2 * length, side * rng.uniform(0.9, 1.3) * wide, -0.1 * length])
            s.add(rod(a, b, 0.02), deck)
            s.add(ellipsoid(0.13, 0.012, 0.05, 12).turn("z", np.pi / 2 * side).aim((0, 0, 1)).turn("x", 0.5 * side).move(*b), second)
    elif kind == "sailing":
        high, x = rng.uniform(0.9, 1.4) * length, rng.uniform(0.0, 0.15) * length
        cloth, wood = mat.fabric(rng, 0.3) if chance(rng, 0.5) else mat.WHITE, mat.wood(rng)
        s.add(rod((x, 0, -0.5 * depth), (x, 0, high), 0.028, 0.016), wood)
        z, swing = 0.14 * high, rng.uniform(-0.5, 0.5)
        foot = rng.uniform(0.45, 0.6) * length
        s.add([_sail((-0.03, 0, 0.02), 0.78 * high, foot, rng.uniform(0.04, 0.15)).turn("z", swing).move(x, 0, z),
               ], cloth)
        s.add(rod((0, 0, 0), (-foot - 0.05, 0, 0), 0.02).turn("z", swing).move(x, 0, z), wood)
        if chance(rng, 0.7):
            tip, base = np.array([x + 0.02, 0, 0.8 * high]), np.array([0.5 * length, 0, sheer + 0.05])
            t = np.linspace(0, 1, 8)
            rings = []
            for q in t:
                p = base * (1 - q) + tip * q
                w = 0.62 * (base[0] - x) * (1 - q) + 0.01
                u = np.linspace(0, 1, 6)
                face = np.column_stack([p[0] - w * u, 0.12 * np.sin(np.pi * u) * np.sin(np.pi * q) + 0 * u, p[2] + 0.1 * (1 - q) * u])
                rings.append(np.concatenate([face, (face - [0, 0.01, 0])[::-1]]))
            s.add(loft(np.stack(rings)), cloth if chance(rng, 0.5) else second)
        s.add(box(0.2, 0.01, 0.1).move(x - 0.1, 0, high - 0.05), second)
        if not open_ and chance(rng, 0.7):
            s.add(box(0.35 * length, 0.5 * wide, 0.1, 0.03).move(0.05 * length, 0, 0.03), paint)
    elif kind == "motor":
        s.add(box(0.25 * length, 0.68 * wide, 0.16, 0.04).taper(0.8).move(0.05 * length, 0, 0.07), paint)
        s.add(box(0.03, 0.62 * wide, 0.18, 0.01).turn("y", -0.5).move(0.16 * length, 0, 0.2), mat.glass(rng))
        s.add(box(0.14, 0.2, 0.28, 0.05).move(-length / 2 - 0.02, 0, 0.03), mat.DARK)
        s.add(rod((-length / 2, 0, 0), (-length / 2 - 0.05, 0, -depth), 0.035), mat.DARK)
        if chance(rng, 0.4):
            s.add(box(0.4 * length, 0.66 * wide, 0.04, 0.01).move(-0.02, 0, 0.5), second)
            s.add([rod((q, y, 0), (q, y, 0.5), 0.015) for q in (-0.2 * length, 0.15 * length) for y in (-0.3 * wide, 0.3 * wide)], mat.metal(rng))
    elif kind in ("tug", "steamer"):
        levels = 1 if kind == "tug" else int(rng.integers(2, 4))
        z, long, w = 0.0, length * (0.32 if kind == "tug" else 0.62), 0.6 * wide
        for k in range(levels):
            h = 0.2 if kind == "steamer" else 0.34
            s.add(box(long, w, h, 0.03).move(0.02 * length, 0, z + h / 2), mat.WHITE if chance(rng, 0.5) else second)
            n = max(2, int(long / 0.2))
            s.add([p for q in np.linspace(-0.42, 0.42, n) * long for p in both(ellipsoid(0.04, 0.02, 0.04, 10).move(q + 0.02 * length, w / 2, z + 0.6 * h))], mat.glass(rng))
            z += h
            s.add(box(1.06 * long, 1.1 * w, 0.03, 0.01).move(0.02 * length, 0, z), deck)
            long, w = 0.75 * long, 0.85 * w
        s.add([cylinder(0.09, 0.35, n=18).turn("y", -0.12).move(x * length, 0, z + 0.16) for x in ((-0.06,), (-0.1, 0.06), (-0.15, 0, 0.15))[int(rng.integers(0, 3))]], second,
              (lambda p: p.centres[:, 2] > z + 0.24, mat.BLACK))
        s.add(rod((0.3 * length, 0, 0), (0.3 * length, 0, rng.uniform(0.5, 0.9)), 0.02), mat.DARK)
        if kind == "tug":
            s.add([torus(0.08, 0.035, 14, 8).turn("x", np.pi / 2).move(x * length, y * (wide / 2) * 1.02, -0.05) for x in (-0.25, 0, 0.2) for y in (-1, 1)], mat.DARK)
    else:
        s.add(box(0.28 * length, 0.62 * wide, 0.24, 0.02).move(-0.36 * length, 0, 0.14), deck)
        cloth, wood = pick(rng, (mat.WHITE, mat.printed(rng), mat.painted(rng, mat.CLOTH))), mat.bark(rng)
        for x, high in ((-0.3, 0.8), (0.02, 1.15), (0.3, 0.85))[: int(rng.integers(2, 4))]:
            s.add(rod((x * length, 0, -0.1), (x * length, 0, high * length * 0.85), 0.03, 0.018), wood)
            for k in range(2):
                z, w, h = high * length * (0.3 + 0.3 * k), wide * (1.1 - 0.3 * k), high * length * 0.26
                y = np.linspace(-1, 1, 7)
                path = np.stack([x * length + 0.04 + 0 * y, y * w / 2, z + 0 * y], 1)
                sheet = sweep(path, np.array([[h / 2, 0.01]] * 7), rectangle(1, 1, 0.2), up=(1, 0, 0))
                s.add(sheet.warp(lambda v, z=z, h=h, w=w: v + np.column_stack([0.1 * np.cos((v[:, 2] - z) / h * 2.6) * np.cos(v[:, 1] / w * 2.2), 0 * v[:, :2]])), cloth)
                s.add(rod((x * length + 0.03, -0.55 * w, z + h / 2), (x * length + 0.03, 0.55 * w, z + h / 2), 0.016), wood)
        s.add(rod((0.5 * length, 0, sheer), (0.75 * length, 0, sheer + 0.22), 0.025, 0.012), wood)
    return s


def _propeller(rng: Rng, r: float, blades: int, m: Material, hub: Material) -> Sketch:
    """A propeller about the origin that faces +x."""
    s = Sketch("")
    blade = ellipsoid(0.03 * r, 0.12 * r, 0.5 * r, 10).turn("z", 0.5).move(z=0.5 * r)
    s.add([blade.turn("x", 2 * np.pi * k / blades + rng.uniform(0, 0.1)) for k in range(blades)], m)
    s.add(ellipsoid(0.2 * r, 0.13 * r, 0.13 * r, 12).move(0.04 * r), hub)
    return s


def plane(rng: Rng) -> Sketch:
    """Airliner, propeller plane, biplane, jet fighter, glider, sea plane."""
    kind = pick(rng, ("airliner", "propeller", "biplane", "jet", "seaplane"), (3, 3, 2, 2, 1))
    s = Sketch({"propeller": "propeller plane", "jet": "jet plane", "seaplane": "sea plane"}.get(kind, kind))
    paint = mat.WHITE if kind == "airliner" and chance(rng, 0.5) else mat.finish(rng)
    second, pane, trim = mat.painted(rng), mat.glass(rng), mat.metal(rng)
    wings = paint if chance(rng, 0.5) else second
    length = 2.0
    r = length * {"airliner": rng.uniform(0.055, 0.085), "jet": rng.uniform(0.06, 0.08)}.get(kind, rng.uniform(0.09, 0.14))
    t = np.array([0, 0.12, 0.3, 0.6, 0.8, 0.93, 1.0])
    fat = {"airliner": [0.15, 0.45, 0.95, 1, 1, 0.7, 0.25], "jet": [0.75, 0.9, 1, 1, 0.75, 0.4, 0.06]}.get(kind, [0.15, 0.3, 0.55, 0.95, 1, 0.92, 0.6])
    lift = 0.5 if kind == "airliner" else 0.25
    path = np.stack([(t - 0.5) * length, 0 * t, lift * r * np.clip(0.4 - t, 0, 1) / 0.4], 1)
    body = spline(np.column_stack([path, np.array(fat) * r, np.array(fat) * r * rng.uniform(0.95, 1.25)]), 22)
    tube = sweep(body[:, :3], body[:, 3:], circle(18, pick(rng, (2.0, 2.0, 2.6))), ends="round" if kind != "jet" else "flat", up=(0, 0, 1))
    s.add(tube, paint, *([(lambda p: p.centres[:, 2] < -0.3 * r, second)] if chance(rng, 0.4) else []))
    span = rng.uniform(0.75, 1.15) if kind != "jet" else rng.uniform(0.5, 0.75)
    swept = {"airliner": rng.uniform(0.3, 0.55), "jet": rng.uniform(0.4, 0.7)}.get(kind, rng.uniform(-0.02, 0.12))
    root = rng.uniform(0.4, 0.55) if kind != "jet" else rng.uniform(0.7, 1.0)
    tip, x, z = root * rng.uniform(0.35, 0.8) if kind != "jet" else 0.15, 0.12 if kind != "jet" else 0.05, pick(rng, (-0.5, 0.7) if kind in ("propeller", "seaplane") else (-0.4,)) * r
    s.add(both(wing(root, tip, span, 0.035, swept, rng.uniform(0, 0.14)).move(x, 0, z)), wings)
    if kind == "biplane":
        s.add(both(wing(root, tip, span, 0.035, swept, 0.03).move(x + 0.05, 0, r * 2.3)), wings)
        s.add([p for y in (0.25, 0.75) for p in both(rod((x, y * span, z), (x + 0.03, y * span, 2.3 * r), 0.012, sides=6))], trim)
    tail_x = -0.44 * length
    fin = [(-0.2, 0), (0.16, 0), (-0.08 - 0.12 * swept, rng.uniform(0.22, 0.36)), (-0.24 - 0.12 * swept, 0.3)]
    s.add(extrude(fin, 0.03, bevel=0.008).upright().move(tail_x, 0, 0.4 * r), second if chance(rng, 0.6) else wings)
    level = rng.uniform(0.0, 0.5) * r if chance(rng, 0.8) else 0.32
    s.add(both(wing(0.26, 0.15, rng.uniform(0.28, 0.4), 0.02, 0.4 * swept, 0.02).move(tail_x - 0.04, 0, level)), wings)
    if kind == "airliner":
        n, q = int(rng.integers(8, 15)), rng.uniform(0.07, 0.1)
        s.add([p for w in np.linspace(-0.28, 0.34, n) * length for p in both(ellipsoid(0.02, 0.012, 0.025, 8).move(w, 0.97 * r, 0.25 * r))], pane)
        s.add(both(box(0.06, 0.1, 0.05, 0.01).turn("y", 0.5).move(0.45 * length, 0.03, 0.45 * r)), pane)
        for y in (0.35, 0.62)[: int(rng.integers(1, 3))]:
            engine = revolve([(0, -0.16), (0.5 * q, -0.16), (0.9 * q, 0.05), (q, 0.15), (0.8 * q, 0.17), (0.7 * q, 0.08), (0, 0.1)], 16).turn("y", np.pi / 2)
            s.add(both(engine.move(x + 0.17 - swept * y, y * span, z - 0.09)), trim if chance(rng, 0.5) else second)
            s.add(both(box(0.14, 0.02, 0.08).move(x + 0.1 - swept * y, y * span, z - 0.03)), wings)
    elif kind == "jet":
        s.add(ellipsoid(0.24, 0.55 * r, 0.7 * r, 16).move(0.22 * length, 0, 0.75 * r), pane)
        s.add(cylinder(0.6 * r, 0.08, 0.72 * r, n=18).turn("y", np.pi / 2).move(-0.5 * length - 0.03), trim)
        s.add(both(box(0.4, 0.5 * r, 0.9 * r, 0.03).move(0.1, 0.95 * r, -0.1 * r)), paint)
        if chance(rng, 0.6):
            s.add(both(rod((-0.1, 0.6 * span, -0.08), (0.35, 0.6 * span, -0.08), 0.03, ends="point")), second)
    else:
        nose = length / 2 + 0.55 * r
        s.add(cylinder(0.62 * r, 0.1, 0.5 * r, n=18, radius=0.02).turn("y", np.pi / 2).move(length / 2 + 0.03), trim)
        s.merge(_propeller(rng, rng.uniform(0.25, 0.36), int(rng.integers(2, 5)), mat.DARK if chance(rng, 0.5) else mat.wood(rng), second), lambda p: p.move(nose + 0.05))
        if kind == "biplane" or chance(rng, 0.3):
            s.add(ellipsoid(0.16, 0.6 * r, 0.05, 14).move(0.0, 0, r), mat.DARK)
            s.add(ellipsoid(0.075, 0.07, 0.09, 12).move(0.0, 0, 1.25 * r), mat.skin(rng))
            s.add(box(0.015, 0.9 * r, 0.1, 0.005).turn("y", -0.5).move(0.14, 0, r + 0.05), pane)
        else:
            s.add(ellipsoid(0.26, 0.75 * r, 0.75 * r, 16, 2.5, 2.5).move(0.1 * length, 0, 0.7 * r), pane)
    low = -r * 1.1 - rng.uniform(0.14, 0.22)
    if kind == "seaplane":
        s.add(both(sweep([(-0.45, 0.3, low), (0.3, 0.3, low), (0.55, 0.3, low + 0.05)], np.array([[0.05, 0.05], [0.08, 0.07], [0.03, 0.03]]), circle(10, 3), ends="round", up=(0, 0, 1))), second)
        s.add([p for q in (-0.15, 0.25) for p in both(rod((q, 0.3, low), (q, 0.06, -0.7 * r), 0.016))], trim)
    elif kind != "airliner" or chance(rng, 0.4):
        q = rng.uniform(0.06, 0.1)
        y = 0.8 * r + 0.12
        s.add(both(rod((x + 0.1, 0.4 * r, -0.6 * r), (x + 0.12, y, low + q), 0.02)), trim)
        s.add(both(cylinder(q, 0.06, n=16, radius=0.02).turn("x", np.pi / 2).move(x + 0.12, y + 0.02, low + q)), mat.DARK)
        s.add([rod((tail_x, 0, 0), (tail_x - 0.03, 0, -0.12), 0.015), cylinder(0.04, 0.03, n=12).turn("x", np.pi / 2).move(tail_x - 0.03, 0, -0.14)], mat.DARK)
    return s


def helicopter(rng: Rng) -> Sketch:
    """Round or long cabin, tail boom, rotors of two to five blades, skids or wheels."""
    s = Sketch("helicopter")
    paint, second, pane, trim = mat.finish(rng), mat.painted(rng), mat.glass(rng), mat.metal(rng)
    a, b, c = rng.uniform(0.38, 0.6), rng.uniform(0.24, 0.32), rng.uniform(0.27, 0.36)
    power = rng.uniform(2, 3.2)
    cabin = ellipsoid(c, b, a, 28, power, power).turn("y", np.pi / 2)  # its rings stand across, as the window's edge does
    s.add(cabin, paint, (lambda p: (p.centres[:, 0] > 0.3 * a) & (p.centres[:, 2] > -0.35 * c), pane))
    s.add(both(box(0.4 * a, 0.03, 0.75 * c, 0.01).move(-0.05 * a, 0.97 * b, 0.1 * c)), pane)
    long, tail = rng.uniform(0.7, 1.1), rng.uniform(0.02, 0.25)
    t = np.linspace(0, 1, 8)
    boom = np.stack([-0.6 * a - long * t, 0 * t, 0.3 * c + tail * t], 1)
    s.add(sweep(boom, np.linspace(0.16, 0.05, 8), 14, ends="round"), paint if chance(rng, 0.7) else second)
    end = boom[-1]
    s.add(extrude([(-0.16, 0.3), (-0.05, 0.3), (0.12, 0), (0.02, -0.14), (-0.08, -0.1)], 0.03, bevel=0.008).upright().move(*end), second)
    s.add(both(box(0.12, 0.26, 0.02, 0.005).move(end[0] + 0.15, 0.13, end[2])), second)
    spin = _propeller(rng, rng.uniform(0.14, 0.2), int(rng.integers(2, 5)), mat.DARK, trim)
    s.merge(spin, lambda p: p.turn("z", np.pi / 2).move(end[0] - 0.03, 0.06, end[2] + 0.05))
    blades, r, z = int(rng.integers(2, 6)), rng.uniform(0.75, 1.15), c + rng.uniform(0.1, 0.2)
    s.add(box(0.9 * a, 0.7 * b, 0.14, 0.05).move(-0.1 * a, 0, c), paint)
    s.add(rod((0, 0, 0.8 * c), (0, 0, z + 0.04), 0.035), trim)
    s.add(around(box(r, 0.09, 0.018, 0.004).turn("x", 0.15).move(0.5 * r, 0, z), blades, rng.uniform(0, 2)), mat.DARK if chance(rng, 0.6) else second)
    s.add(cylinder(0.08, 0.06, n=14, radius=0.02).move(z=z), trim)
    y, low = b * rng.uniform(0.85, 1.1), -c - rng.uniform(0.1, 0.18)
    if chance(rng, 0.7):
        s.add(both(sweep(fillet([(-0.9 * a, y, low), (0.8 * a, y, low), (1.05 * a, y, low + 0.12)], 0.1), 0.02, 8)), trim)
        s.add([p for x in (-0.4 * a, 0.4 * a) for p in both(rod((x, 0.5 * b, -0.75 * c), (x, y, low), 0.018))], trim)
    else:
        s.add([p for x, q in ((-0.5 * a, y), (0.6 * a, 0.4 * y)) for p in both(cylinder(0.08, 0.05, n=14).turn("x", np.pi / 2).move(x, q, -c + 0.02))], mat.DARK)
    if chance(rng, 0.4):
        s.add(both(rod((-0.2, 1.2 * b, -0.2), (0.25, 1.2 * b, -0.2), 0.05, ends="round")), second)
    return s


def rocket(rng: Rng) -> Sketch:
    """Cartoon moon rocket, slim launcher with boosters, space shuttle-like winged craft; fins, port holes, flame."""
    s = Sketch("rocket")
    paint, second, third = mat.finish(rng), mat.plastic(rng), mat.painted(rng)
    h = rng.uniform(1.6, 2.6)
    belly, base = rng.uniform(0.22, 0.42), rng.uniform(0.45, 0.9)
    at = rng.uniform(0.3, 0.5)
    if chance(rng, 0.6):
        prof = spline([(belly * base, 0), (belly, at * h), (0.72 * belly, 0.72 * h), (0.02, h)], 22)
    else:
        belly *= 0.8
        prof = np.concatenate([[(belly, q * h)] for q in np.linspace(0, 0.72, 8)] + [np.stack([belly * np.cos(t := np.linspace(0.15, 1.5, 9)), 0.72 * h + 0.28 * h * np.sin(t)], 1)])
    prof = np.column_stack([np.maximum(prof[:, 0], 0.004), prof[:, 1]])
    nose, stripe = rng.uniform(0.66, 0.82) * h, rng.uniform(0.1, 0.3) * h
    paints = [(lambda p: p.centres[:, 2] > nose, second)] if chance(rng, 0.75) else []
    if chance(rng, 0.5):
        paints.append((lambda p: np.abs(p.centres[:, 2] - stripe) < 0.05 * h, third))
    s.add(revolve(np.concatenate([[[0, 0]], prof, [[0, h + 0.01]]]), 28), paint, *paints)
    r0 = float(prof[0, 0])
    s.add(revolve([(0, 0.0), (0.55 * r0, 0.0), (0.8 * r0, -0.12), (0.9 * r0, -0.12), (0.7 * r0, 0.02), (0, 0.02)], 20), mat.DARK)
    fins, reach, drop = int(rng.integers(3, 5)), rng.uniform(0.25, 0.5), rng.uniform(0.0, 0.35)
    z1 = rng.uniform(0.3, 0.5) * h
    wide = float(np.interp(z1, prof[:, 1], prof[:, 0]))
    outline = [(0.6 * r0, 0.05), (belly + 0.6 * reach, -drop), (belly + reach, -drop), (belly + reach, 0.1), (belly + 0.5 * reach, 0.6 * z1), (0.9 * wide, z1), (0.5 * wide, 0.6 * z1)]
    fin = extrude(outline, rng.uniform(0.04, 0.09), bevel=0.012).upright()
    s.add(around(fin, fins, pick(rng, (0.0, np.pi / fins))), second)
    for k in range(int(rng.integers(1, 4))):
        z, q = h * (0.62 - 0.16 * k), 0.34 * belly * (1 if k == 0 else 0.75)
        x = float(np.interp(z, prof[:, 1], prof[:, 0]))
        s.add(torus(q, 0.25 * q, 24, 8).turn("y", np.pi / 2).move(x - 0.01, 0, z), third)
        s.add(ellipsoid(0.25 * q, q, q, 16).move(x - 0.01, 0, z), mat.glass(rng))
    if chance(rng, 0.3):
        q = 0.4 * belly
        tank = revolve([(0, 0), (q, 0.05), (q, 0.4 * h), (0.6 * q, 0.48 * h), (0, 0.55 * h)], 18).move(belly + 0.8 * q)
        s.add(around(tank, int(rng.integers(2, 4)), np.pi / 2), third)
    if chance(rng, 0.35):
        z = np.array([[0.0, -0.7], [0.1, -0.55], [0.55 * r0, -0.25], [0.7 * r0, -0.08], [0, -0.06]])
        s.add(revolve(spline(z, 14) * [1, 1], 14), mat.plain(mat.rgb(pick(rng, ("f46036", "ffc914", "f9a03f")))))
    elif chance(rng, 0.3):
        s.add(rod((0, 0, h - 0.05), (0, 0, h + 0.25), 0.02, 0.008), third)
        s.add(ellipsoid(0.04, 0.04, 0.04, 10).move(z=h + 0.25), third)
    return s


def bicycle(rng: Rng) -> Sketch:
    """Bicycle, tricycle, scooter, penny-farthing, motorcycle: thin tubes and spoked wheels."""
    kind = pick(rng, ("bicycle", "tricycle", "scooter", "penny-farthing", "motorcycle"), (3, 2, 1.5, 1, 3))
    s = Sketch(kind)
    paint, trim, grip, seat = mat.finish(rng), mat.metal(rng), mat.DARK, mat.leather(rng)
    t = rng.uniform(0.018, 0.03)

    def rim(x: float, y: float, r: float, thick: float, spokes: int) -> None:
        s.add(torus(r - thick, thick, 32, 8).turn("x", np.pi / 2).move(x, y, r), mat.DARK)
        s.add(torus(r - 1.9 * thick, 0.5 * thick, 28, 6).turn("x", np.pi / 2).move(x, y, r), trim)
        s.add([rod((0, 0, 0), (0, 0, r - 1.8 * thick), 0.008, sides=5).turn("y", 2 * np.pi * k / spokes).move(x, y, r) for k in range(spokes)], trim)
        s.add(cylinder(0.05, 0.12, n=12).turn("x", np.pi / 2).move(x, y, r), trim)

    def bars(x: float, z: float, wide: float, back: float, rise: float) -> None:
        path = spline([(x - back, wide, z + rise), (x, 0.7 * wide, z + rise), (x, 0, z), (x, -0.7 * wide, z + rise), (x - back, -wide, z + rise)], 20)
        s.add(sweep(path, 0.8 * t, 8), trim)
        s.add([sweep([path[0], path[2]], 1.5 * t, 8), sweep([path[-1], path[-3]], 1.5 * t, 8)], grip)
    if kind in ("bicycle", "tricycle"):
        r = rng.uniform(0.3, 0.38) if kind == "bicycle" else rng.uniform(0.22, 0.3)
        base = rng.uniform(0.95, 1.1) if kind == "bicycle" else rng.uniform(0.7, 0.85)
        r2 = r if kind == "bicycle" else rng.uniform(0.13, 0.2)
        back, front, crank = np.array([-base / 2, 0, r2]), np.array([base / 2, 0, r]), np.array([-0.08 if kind == "bicycle" else base / 2, 0, 0.9 * r])
        head, top = np.array([base / 2 - 0.18, 0, r + rng.uniform(0.36, 0.46)]), np.array([-0.22, 0, r + rng.uniform(0.3, 0.42)])
        n = int(rng.integers(6, 14))
        rim(base / 2, 0, r, rng.uniform(0.02, 0.045), n)
        if kind == "bicycle":
            rim(-base / 2, 0, r, rng.uniform(0.02, 0.045), n)
            low_bar = chance(rng, 0.3)
            frame = [(crank, head), (crank, top), (back, top), (back, crank)] + ([] if low_bar else [(top * [1, 1, 0.96], head * [1, 1, 0.98])])
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
        s.add(sweep([post + np.array([0.14, 0, 0.01]), post, post + np.array([-0.12, 0, 0.03])], np.array([[0.025, 0.025], [0.05, 0.03], [0.1, 0.035]]), circle(10, 3), ends="round", up=(0, 0, 1)), seat)
        s.add(cylinder(0.09, 0.02, n=18).turn("x", np.pi / 2).move(*crank).move(y=0.05), trim)
        for k in (-1, 1):
            foot = crank + np.array([k * 0.11, k * 0.09, k * 0.1])
            s.add(beam(crank + np.array([0, k * 0.07, 0]), foot, 0.025, 0.02, up=(0, 1, 0)), trim)
            s.add(box(0.1, 0.1, 0.025).move(*(foot + np.array([0, k * 0.05, 0]))), grip)
        if chance(rng, 0.3):
            s.add(revolve(hollow(np.array([(0.09, 0), (0.1, 0.05), (0.13, 0.16)]), 0.012), 16, 4.0).move(*(head + np.array([0.2, 0, -0.05]))), mat.wood(rng))
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
        s.add([rod((base / 2 - 0.09, 0, r), (base / 2 - 0.12, 0, 2.3 * r), t * 1.3), rod((base / 2, 0, r), (base / 2 - 0.15, 0, high), 1.2 * t)], paint)
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
        s.add(sweep(spline([head - [0.02, 0, 0.1], (0.1, 0, 1.9 * r), (-0.3, 0, 1.8 * r), (-base / 2 - 0.1, 0, 2.2 * r)], 12), 0.035, 8), paint)
        s.add(both(rod((-0.1, 0.09, 0.9 * r), (-base / 2, 0.09, r), 0.03)), trim)
        s.add(ellipsoid(0.26, 0.15, 0.14, 18, 2.5, 2.5).turn("y", 0.12).move(0.14, 0, 2 * r + 0.16), paint)
        s.add(sweep(spline([(0.0, 0, 2 * r + 0.1), (-0.3, 0, 2 * r + 0.02), (-0.55, 0, 2 * r + 0.1)], 9), np.array([[0.09, 0.05]] * 9), circle(10, 3), ends="round", up=(0, 0, 1)), seat)
        s.add([box(0.3, 0.2, 0.2, 0.04).move(0.02, 0, 0.95 * r + 0.05), *(cylinder(0.09, 0.22, n=14).turn("y", k * 0.4).move(0.02 + k * 0.1, 0, 1.5 * r) for k in (-1, 1))], trim)
        s.add(both(sweep(spline([(0.15, 0.12, 1.1 * r), (0.1, 0.15, 0.7 * r), (-0.3, 0.16, 0.6 * r), (-base / 2 - 0.1, 0.17, 0.8 * r)], 12), np.linspace(0.025, 0.05, 12), 10)), trim)
        bars(head[0] - 0.03, head[2] + 0.06, rng.uniform(0.28, 0.36), rng.uniform(0.05, 0.2), rng.uniform(0, 0.2))
        s.add(ellipsoid(0.08, 0.1, 0.1, 14).move(head[0] + 0.12, 0, head[2] - 0.02), mat.plain(mat.rgb("fff3c4"), "cream"))
        s.add(box(0.06, 0.12, 0.06, 0.02).move(-base / 2 - 0.14, 0, 2.2 * r), mat.plain(mat.rgb("c4161c"), "red"))
    return s
