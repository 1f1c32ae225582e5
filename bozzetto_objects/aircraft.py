# SPDX-License-Identifier: Apache-2.0
"""What flies: plane, helicopter, rocket. They travel towards +x; a rocket stands."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import extrude
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Part,
    around,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    fillet,
    loft,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def wing(root: float, tip: float, span: float, thick: float, swept: float = 0.0, lift: float = 0.0) -> Part:
    """Half a wing along +y from the origin: chords at root and tip, the tip `swept` back and raised by `lift`."""
    t = np.linspace(0, 1, 6)
    path = np.stack([-swept * t, span * t, lift * t], 1)
    chord = (root + (tip - root) * t) / 2
    chord[-1] *= 0.8
    section = np.array(
        [(1, 0.1), (0.75, 0.75), (0.2, 1), (-0.5, 0.6), (-1, 0.08), (-1, -0.08), (-0.5, -0.4), (0.3, -0.6), (0.8, -0.5), (1, -0.1)]
    )
    rings = path[:, None] + np.stack(
        [section[None, :, 0] * chord[:, None], np.zeros((6, 10)), section[None, :, 1] * thick * (chord / chord[0])[:, None]], 2
    )
    return loft(rings[:, ::-1])


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
    fat = {"airliner": [0.15, 0.45, 0.95, 1, 1, 0.7, 0.25], "jet": [0.75, 0.9, 1, 1, 0.75, 0.4, 0.06]}.get(
        kind, [0.15, 0.3, 0.55, 0.95, 1, 0.92, 0.6]
    )
    lift = 0.5 if kind == "airliner" else 0.25
    path = np.stack([(t - 0.5) * length, 0 * t, lift * r * np.clip(0.4 - t, 0, 1) / 0.4], 1)
    body = spline(np.column_stack([path, np.array(fat) * r, np.array(fat) * r * rng.uniform(0.95, 1.25)]), 22)
    tube = sweep(body[:, :3], body[:, 3:], circle(18, pick(rng, (2.0, 2.0, 2.6))), ends="round" if kind != "jet" else "flat", up=(0, 0, 1))
    s.add(tube, paint, *([(lambda p: p.centres[:, 2] < -0.3 * r, second)] if chance(rng, 0.4) else []))
    span = rng.uniform(0.75, 1.15) if kind != "jet" else rng.uniform(0.5, 0.75)
    swept = {"airliner": rng.uniform(0.3, 0.55), "jet": rng.uniform(0.4, 0.7)}.get(kind, rng.uniform(-0.02, 0.12))
    root = rng.uniform(0.4, 0.55) if kind != "jet" else rng.uniform(0.7, 1.0)
    tip, x, z = (
        root * rng.uniform(0.35, 0.8) if kind != "jet" else 0.15,
        0.12 if kind != "jet" else 0.05,
        pick(rng, (-0.5, 0.7) if kind in ("propeller", "seaplane") else (-0.4,)) * r,
    )
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
        s.add(
            [p for w in np.linspace(-0.28, 0.34, n) * length for p in both(ellipsoid(0.02, 0.012, 0.025, 8).move(w, 0.97 * r, 0.25 * r))],
            pane,
        )
        s.add(both(box(0.06, 0.1, 0.05, 0.01).turn("y", 0.5).move(0.45 * length, 0.03, 0.45 * r)), pane)
        for y in (0.35, 0.62)[: int(rng.integers(1, 3))]:
            engine = revolve(
                [(0, -0.16), (0.5 * q, -0.16), (0.9 * q, 0.05), (q, 0.15), (0.8 * q, 0.17), (0.7 * q, 0.08), (0, 0.1)], 16
            ).turn("y", np.pi / 2)
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
        s.merge(
            _propeller(rng, rng.uniform(0.25, 0.36), int(rng.integers(2, 5)), mat.DARK if chance(rng, 0.5) else mat.wood(rng), second),
            lambda p: p.move(nose + 0.05),
        )
        if kind == "biplane" or chance(rng, 0.3):
            s.add(ellipsoid(0.16, 0.6 * r, 0.05, 14).move(0.0, 0, r), mat.DARK)
            s.add(ellipsoid(0.075, 0.07, 0.09, 12).move(0.0, 0, 1.25 * r), mat.skin(rng))
            s.add(box(0.015, 0.9 * r, 0.1, 0.005).turn("y", -0.5).move(0.14, 0, r + 0.05), pane)
        else:
            s.add(ellipsoid(0.26, 0.75 * r, 0.75 * r, 16, 2.5, 2.5).move(0.1 * length, 0, 0.7 * r), pane)
    low = -r * 1.1 - rng.uniform(0.14, 0.22)
    if kind == "seaplane":
        s.add(
            both(
                sweep(
                    [(-0.45, 0.3, low), (0.3, 0.3, low), (0.55, 0.3, low + 0.05)],
                    np.array([[0.05, 0.05], [0.08, 0.07], [0.03, 0.03]]),
                    circle(10, 3),
                    ends="round",
                    up=(0, 0, 1),
                )
            ),
            second,
        )
        s.add([p for q in (-0.15, 0.25) for p in both(rod((q, 0.3, low), (q, 0.06, -0.7 * r), 0.016))], trim)
    elif kind != "airliner" or chance(rng, 0.4):
        q = rng.uniform(0.06, 0.1)
        y = 0.8 * r + 0.12
        s.add(both(rod((x + 0.1, 0.4 * r, -0.6 * r), (x + 0.12, y, low + q), 0.02)), trim)
        s.add(both(cylinder(q, 0.06, n=16, radius=0.02).turn("x", np.pi / 2).move(x + 0.12, y + 0.02, low + q)), mat.DARK)
        s.add(
            [
                rod((tail_x, 0, 0), (tail_x - 0.03, 0, -0.12), 0.015),
                cylinder(0.04, 0.03, n=12).turn("x", np.pi / 2).move(tail_x - 0.03, 0, -0.14),
            ],
            mat.DARK,
        )
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
    s.add(
        around(box(r, 0.09, 0.018, 0.004).turn("x", 0.15).move(0.5 * r, 0, z), blades, rng.uniform(0, 2)),
        mat.DARK if chance(rng, 0.6) else second,
    )
    s.add(cylinder(0.08, 0.06, n=14, radius=0.02).move(z=z), trim)
    y, low = b * rng.uniform(0.85, 1.1), -c - rng.uniform(0.1, 0.18)
    if chance(rng, 0.7):
        s.add(both(sweep(fillet([(-0.9 * a, y, low), (0.8 * a, y, low), (1.05 * a, y, low + 0.12)], 0.1), 0.02, 8)), trim)
        s.add([p for x in (-0.4 * a, 0.4 * a) for p in both(rod((x, 0.5 * b, -0.75 * c), (x, y, low), 0.018))], trim)
    else:
        s.add(
            [
                p
                for x, q in ((-0.5 * a, y), (0.6 * a, 0.4 * y))
                for p in both(cylinder(0.08, 0.05, n=14).turn("x", np.pi / 2).move(x, q, -c + 0.02))
            ],
            mat.DARK,
        )
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
        prof = np.concatenate(
            [[(belly, q * h)] for q in np.linspace(0, 0.72, 8)]
            + [np.stack([belly * np.cos(t := np.linspace(0.15, 1.5, 9)), 0.72 * h + 0.28 * h * np.sin(t)], 1)]
        )
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
    outline = [
        (0.6 * r0, 0.05),
        (belly + 0.6 * reach, -drop),
        (belly + reach, -drop),
        (belly + reach, 0.1),
        (belly + 0.5 * reach, 0.6 * z1),
        (0.9 * wide, z1),
        (0.5 * wide, 0.6 * z1),
    ]
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
