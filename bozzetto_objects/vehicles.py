# SPDX-License-Identifier: Apache-2.0
"""What drives on land besides cars: truck, bus, train. They travel towards +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.cars import LIGHT, REAR, axles, cabin, panes, wheel
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import extrude
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    beam,
    both,
    box,
    cylinder,
    ellipsoid,
    fillet,
    hollow,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def truck(rng: Rng) -> Sketch:
    """Box van, flat bed with a load, tanker, tipper, fire engine, crane, mixer; cab over or behind the engine."""
    kind = pick(rng, ("box", "load", "tanker", "tipper", "fire", "crane", "mixer"))
    s = Sketch(
        {"fire": "fire engine", "crane": "crane truck", "mixer": "concrete mixer", "tanker": "tanker", "tipper": "tipper truck"}.get(
            kind, "truck"
        )
    )
    paint = mat.plain(mat.rgb("c8242b")) if kind == "fire" else mat.finish(rng)
    load, trim, pane = mat.painted(rng) if chance(rng, 0.7) else mat.metal(rng), mat.metal(rng), mat.glass(rng)
    r, w = rng.uniform(0.17, 0.24), rng.uniform(0.7, 0.9)
    cab, bed, floor = rng.uniform(0.5, 0.7), rng.uniform(1.0, 1.9), 0
    floor = 2 * r + rng.uniform(0.0, 0.08)
    nose = pick(rng, (0.0, rng.uniform(0.3, 0.45)))
    front = bed / 2 + cab + nose
    high = rng.uniform(0.55, 0.8)
    s.add(box(bed + cab + nose - 0.1, 0.55 * w, 0.12, 0.02).move((cab + nose) / 2, 0, floor - 0.07), mat.DARK)
    x0 = bed / 2 + 0.04
    s.add(box(cab + 0.02, w, 0.45 * high, 0.05).move(x0 + cab / 2, 0, floor + 0.12 * high), paint)
    house = cabin(x0, x0 + cab, x0 + 0.02, x0 + cab - rng.uniform(0.02, 0.2), floor + 0.3 * high, floor + high, 0.98 * w, 0.92 * w, 0.12)
    s.add(house, paint, panes(house, floor + 0.3 * high, floor + high, pane))
    s.add(box(0.02, 0.9 * w, 0.6 * high).move(x0 - 0.005, 0, floor + 0.6 * high), paint)
    if nose:
        s.add(box(nose + 0.1, 0.8 * w, 0.5 * high, 0.08, 3).move(x0 + cab + nose / 2 - 0.05, 0, floor + 0.08 * high), paint)
        s.add(both(box(1.9 * r, 0.12, 0.08, 0.03).move(front - r, w / 2 - 0.04, 2.1 * r)), paint)
    s.add(both(cylinder(0.055, 0.05, n=14).turn("y", np.pi / 2).move(front + 0.04, 0.33 * w, floor + 0.06)), LIGHT)
    s.add(box(0.04, 0.4 * w, 0.2 * high, 0.01).move(front + 0.045, 0, floor + 0.1 * high), trim)
    s.add(box(0.08, w, 0.1, 0.03).move(front + 0.05, 0, floor - 0.12), trim)
    _bed(rng, s, kind, bed, w, floor, paint, load, trim)
    if chance(rng, 0.3):
        s.add(rod((x0 - 0.02, w / 2 - 0.05, floor), (x0 - 0.02, w / 2 - 0.05, floor + 1.2 * high), 0.03), trim)
    rear = [-bed / 2 + 1.3 * r] + ([-bed / 2 + 3.5 * r] if bed > 1.2 and chance(rng, 0.7) else [])
    axles(s, wheel(rng, r, rng.uniform(0.13, 0.2)), [*rear, front - (1.1 * r if nose else cab / 2)], w / 2 - 0.06, r)
    return s


def _bed(rng: Rng, s: Sketch, kind: str, bed: float, w: float, floor: float, paint: Material, load: Material, trim: Material) -> None:
    """What a truck carries, over x in ±bed/2 above the floor."""
    if kind == "box":
        h = rng.uniform(0.6, 1.0)
        s.add(box(bed, w + 0.04, h, rng.uniform(0.01, 0.06)).rest(floor), load if chance(rng, 0.6) else mat.printed(rng))
        s.add(both(box(0.7 * bed, 0.01, 0.3 * h).move(0, w / 2 + 0.02, floor + h / 2)), paint)
        s.add(both(box(0.02, 0.44 * w, 0.9 * h).move(-bed / 2 - 0.005, 0.23 * w, floor + h / 2)), trim)
    elif kind in ("load", "tipper"):
        h = rng.uniform(0.12, 0.3) if kind == "load" else rng.uniform(0.3, 0.45)
        tip = Sketch("")
        tip.add(box(bed, w + 0.02, 0.05).move(z=0.025), load)
        tip.add(both(box(bed, 0.04, h).move(0, w / 2, h / 2)), load)
        tip.add([box(0.04, w, h).move(k * bed / 2, 0, h / 2) for k in (-1, 1)], load)
        what = pick(rng, ("logs", "heap", "crates", "none")) if kind == "load" else pick(rng, ("heap", "none"))
        if what == "logs":
            wood = mat.bark(rng)
            tip.add(
                [
                    cylinder(0.11, 0.95 * bed, n=12).turn("y", np.pi / 2).move(0, (k - 1.5 + 0.5 * row) * 0.22, 0.16 + 0.19 * row)
                    for row in range(3)
                    for k in range(4 - row)
                ],
                wood,
            )
        elif what == "heap":
            tip.add(
                ellipsoid(0.47 * bed, 0.46 * w, rng.uniform(0.15, 0.35), 18).move(z=h - 0.05),
                mat.stone(rng) if chance(rng, 0.5) else mat.terracotta(rng),
            )
        elif what == "crates":
            tip.add(
                [
                    box(q, q, q, 0.02).move((k - 1) * 0.32 * bed, rng.uniform(-0.15, 0.15), 0.05 + q / 2)
                    for k in range(3)
                    for q in (rng.uniform(0.22, 0.4),)
                ],
                mat.wood(rng),
            )
        angle = rng.uniform(0.3, 0.7) if kind == "tipper" and chance(rng, 0.5) else 0.0
        s.merge(tip, lambda p: p.move(bed / 2).turn("y", -angle).move(-bed / 2, 0, floor))
        if angle:
            s.add(rod((0.1, 0, floor - 0.05), (0.05, 0, floor + np.tan(angle) * bed * 0.52), 0.05), trim)
    elif kind == "tanker":
        q = rng.uniform(0.34, 0.44)
        s.add(cylinder(q, bed, n=28, radius=0.12).turn("y", np.pi / 2).scale(1, w / q / 2, 1).move(0, 0, floor + q), load)
        s.add(
            [torus(1.01 * q, 0.025, 28, 6).turn("y", np.pi / 2).scale(1, w / q / 2, 1).move(x * bed, 0, floor + q) for x in (-0.25, 0.25)],
            trim,
        )
        s.add([cylinder(0.09, 0.08, n=14).move(x * bed, 0, floor + 2 * q) for x in (-0.3, 0, 0.3)], trim)
    elif kind == "fire":
        s.add(box(bed, w, 0.5, 0.04).rest(floor), paint)
        s.add([q for x in (-0.3, 0, 0.3) for q in both(box(0.24 * bed, 0.02, 0.3, 0.005).move(x * bed, w / 2, floor + 0.26))], trim)
        a, long = rng.uniform(0.0, 0.35), bed * rng.uniform(1.0, 1.4)
        ladder = [beam((0, y, 0), (long, y, 0), 0.03, 0.05) for y in (-0.14, 0.14)] + [
            rod((x, -0.14, 0), (x, 0.14, 0), 0.015, sides=6) for x in np.linspace(0.1, long - 0.1, 8)
        ]
        s.add([p.turn("y", -a).move(-bed / 2, 0, floor + 0.6) for p in ladder], mat.plain(mat.rgb("d8dade"), "grey"))
        s.add(cylinder(0.12, 0.12, n=16).move(-bed / 2 + 0.2, 0, floor + 0.54), trim)
        s.add(both(box(0.1, 0.16, 0.08, 0.02).move(bed / 2 + 0.35, 0.2, floor + 0.8)), mat.plain(mat.rgb("1b78d0")))
    elif kind == "crane":
        s.add(box(bed, w, 0.12, 0.02).rest(floor), load)
        s.add(cylinder(0.25, 0.1, n=20).move(-0.1, 0, floor + 0.16), mat.DARK)
        s.add(box(0.5, 0.5, 0.4, 0.05).move(-0.1, 0, floor + 0.4), paint)
        a, long = rng.uniform(0.3, 1.0), rng.uniform(1.0, 1.6)
        tip = np.array([long * np.cos(a) - 0.1, 0, floor + 0.5 + long * np.sin(a)])
        s.add(beam((-0.1, 0, floor + 0.5), tip, 0.14, 0.16, up=(-1, 0, 1), taper=0.6), load)
        s.add(rod(tip, tip - [0, 0, 0.5 * long * np.sin(a) + 0.1], 0.012, sides=6), mat.DARK)
        s.add(torus(0.06, 0.02, 12, 6).turn("x", np.pi / 2).move(*(tip - [0, 0, 0.5 * long * np.sin(a) + 0.15])), mat.DARK)
    else:
        drum = spline([(0.0, -0.55 * bed), (0.2, -0.54 * bed), (0.42, 0.0), (0.36, 0.35 * bed), (0.1, 0.48 * bed), (0.0, 0.49 * bed)], 22)
        s.add(
            revolve(np.column_stack([np.maximum(drum[:, 0], 0), drum[:, 1]]), 24).turn("y", np.pi / 2 + 0.22).move(0, 0, floor + 0.55), load
        )
        s.add([box(0.1, 0.7 * w, h).rest(floor - 0.02).move(x * bed) for x, h in ((-0.42, 0.5), (0.4, 0.3))], trim)
        s.add(beam((-0.5 * bed, 0, floor + 0.6), (-0.62 * bed, 0, floor + 0.1), 0.2, 0.05, up=(1, 0, 0)), mat.DARK)


def bus(rng: Rng) -> Sketch:
    """Single or double decker, school bus, camper, tram."""
    s = Sketch(pick(rng, ("bus", "bus", "bus", "camper", "tram")))
    paint, second = mat.plastic(rng) if chance(rng, 0.7) else mat.painted(rng), mat.painted(rng)
    pane, trim = mat.glass(rng), mat.metal(rng)
    decks = 2 if s.noun == "bus" and chance(rng, 0.35) else 1
    length, w = rng.uniform(1.3, 1.7) if s.noun == "camper" else rng.uniform(1.8, 3.2), rng.uniform(0.65, 0.8)
    h, r = rng.uniform(0.65, 0.8) * (1 + 0.75 * (decks - 1)), rng.uniform(0.13, 0.18)
    z0 = 0.8 * r
    half, soft = length / 2, rng.uniform(0.03, 0.14)
    is_two_tone = chance(rng, 0.4)
    body = box(length, w, h, soft, 3).rest(z0)
    s.add(body, paint)
    if is_two_tone:
        s.add(box(length + 0.01, w + 0.01, 0.33 * h / decks, soft, 3).rest(z0 - 0.002), second)
    count = max(3, int(length / rng.uniform(0.25, 0.4)))
    pitch, gap = (length - 0.2) / count, rng.uniform(0.015, 0.05)
    for deck in range(decks):
        z, tall = z0 + (deck + 0.64) * h / decks, rng.uniform(0.36, 0.42) * h / decks
        doors = (count - 1, count // 2) if deck == 0 else ()
        for k in range(count):
            x = -half + 0.1 + (k + 0.5) * pitch
            for side in (-1, 1):
                if k in doors and side < 0:
                    s.add(box(0.85 * pitch, 0.03, 0.78 * h / decks, 0.005).move(x, -w / 2, z0 + 0.47 * h / decks), second)
                    s.add(box(0.6 * pitch, 0.04, 0.55 * h / decks, 0.005).move(x, -w / 2, z0 + 0.52 * h / decks), pane)
                else:
                    s.add(box(pitch - gap, 0.03, tall, 0.02).move(x, side * w / 2, z), pane)
        s.add([box(0.03, 0.84 * w, tall * q, 0.02).move(k * half, 0, z - (0.04 if k > 0 else 0)) for k, q in ((1, 1.3), (-1, 0.8))], pane)
    s.add(both(ellipsoid(0.04, 0.06, 0.06, 12).move(half, 0.36 * w, z0 + 0.16)), LIGHT)
    s.add(both(box(0.03, 0.06, 0.1, 0.01).move(-half, 0.4 * w, z0 + 0.2)), REAR)
    s.add([box(0.06, 0.96 * w, 0.07, 0.02).move(k * half, 0, z0 + 0.04) for k in (-1, 1)], trim)
    if chance(rng, 0.6):
        s.add(box(0.02, 0.5 * w, 0.09, 0.005).move(half + 0.005, 0, z0 + h - 0.09), mat.DARK)
    if chance(rng, 0.5):
        s.add(
            both(
                sweep(
                    fillet(
                        [
                            (half - 0.05, 0.45 * w, z0 + 0.75 * h / decks),
                            (half + 0.1, 0.52 * w, z0 + 0.8 * h / decks),
                            (half + 0.1, 0.52 * w, z0 + 0.6 * h / decks),
                        ],
                        0.04,
                    ),
                    0.018,
                    6,
                )
            ),
            mat.DARK,
        )
    if s.noun == "tram":
        s.add(
            [sweep([(-0.15 + x, 0, z0 + h), (0.1 + x, 0, z0 + h + 0.2), (-0.1 + x, 0, z0 + h + 0.4)], 0.015, 6) for x in (-0.1, 0.1)],
            mat.DARK,
        )
        s.add(box(0.06, 0.6, 0.03).move(-0.1, 0, z0 + h + 0.4), mat.DARK)
    elif chance(rng, 0.5):
        s.add(box(rng.uniform(0.2, 0.7) * length, 0.6 * w, 0.08, 0.02).rest(z0 + h - 0.01), second if chance(rng, 0.5) else trim)
    front, rear = half - rng.uniform(1.6, 3.2) * r, -half + rng.uniform(1.6, 3) * r
    axles(s, wheel(rng, r, 0.13), [front, rear], w / 2 - 0.045, r)
    return s


def train(rng: Rng) -> Sketch:
    """Steam engine with boiler, chimney and cab, or a diesel; a tender or a wagon behind at times."""
    s = Sketch("steam engine" if chance(rng, 0.75) else "locomotive")
    paint, second, trim = mat.plastic(rng) if chance(rng, 0.7) else mat.painted(rng), mat.painted(rng), mat.metal(rng)
    w, r, long = rng.uniform(0.55, 0.7), rng.uniform(0.14, 0.22), rng.uniform(1.1, 1.6)
    floor, half = 2 * r + 0.02, long / 2
    s.add(box(long + 0.1, w, 0.12, 0.02).move(z=floor), pick(rng, (mat.DARK, second)))
    big = wheel(rng, 1.1 * r, 0.08)
    if s.noun == "steam engine":
        q, cab = rng.uniform(0.2, 0.27), rng.uniform(0.35, 0.5)
        z = floor + q + 0.04
        s.add(cylinder(q, long - cab + 0.06, n=28, radius=0.03).turn("y", np.pi / 2).move(cab / 2, 0, z), paint)
        s.add(
            [torus(1.01 * q, 0.018, 28, 6).turn("y", np.pi / 2).move(x, 0, z) for x in np.linspace(cab - half + 0.1, half - 0.12, 3)], trim
        )
        s.add(cylinder(0.85 * q, 0.05, n=24, radius=0.02).turn("y", np.pi / 2).move(half + 0.03, 0, z), mat.DARK)
        flue, tall = rng.uniform(0.06, 0.1), rng.uniform(0.25, 0.45)
        stack = [
            (0, 0),
            (flue, 0),
            (flue, 0.75 * tall),
            (flue * rng.uniform(1.2, 2.2), 0.85 * tall),
            (flue * rng.uniform(1.1, 1.9), tall),
            (0.6 * flue, tall),
            (0.6 * flue, 0.8 * tall),
            (0, 0.8 * tall),
        ]
        s.add(revolve(stack, 18).move(half - 0.2, 0, z + 0.9 * q), mat.DARK if chance(rng, 0.6) else second)
        for x in np.linspace(half - 0.5, cab - half + 0.15, int(rng.integers(1, 3))):
            s.add(revolve([(0, 0), (0.1, 0), (0.1, 0.1), (0.06, 0.17), (0, 0.19)], 16).move(x, 0, z + 0.9 * q), trim)
        x, high = -half + cab / 2, rng.uniform(0.65, 0.85)
        s.add([box(cab, 0.04, 0.45 * high).move(x, y, floor + 0.22 * high) for y in (-w / 2 + 0.02, w / 2 - 0.02)], paint)
        s.add(
            [box(0.04, w, high).move(x + cab / 2, 0, floor + high / 2)]
            + [
                beam((x + k * cab / 2, y, floor), (x + k * cab / 2, y, floor + high), 0.05, 0.05, up=(1, 0, 0))
                for k in (-1, 1)
                for y in (-w / 2 + 0.03, w / 2 - 0.03)
            ],
            paint,
        )
        s.add(both(box(0.02, 0.16, 0.18, 0.02).move(x + cab / 2 + 0.015, 0.17, floor + 0.78 * high)), mat.glass(rng))
        y = np.linspace(-1, 1, 9)
        roof = np.stack([0 * y + x, y * (w / 2 + 0.06), floor + high + 0.1 * (1 - y**2)], 1)
        s.add(sweep(roof, np.array([[0.025, cab / 2 + 0.08]] * 9), rectangle(1, 1, 0.1), up=(1, 0, 0)), second)
        s.add(ellipsoid(0.04, 0.06, 0.06, 12).move(half + 0.03, 0, z + q + 0.02), LIGHT)
        small = wheel(rng, 0.7 * r, 0.08)
        axles(s, small, [half - 0.12], w / 2 - 0.02, 0.7 * r)
        xs = list(np.linspace(-half + 1.2 * r, half - 0.3 - 1.1 * r, int(rng.integers(2, 4))))
        axles(s, big, xs, w / 2, 1.1 * r)
        s.add(both(beam((xs[0], w / 2 + 0.06, 0.9 * r), (xs[-1], w / 2 + 0.06, 0.9 * r), 0.03, 0.05)), trim)
    else:
        high = rng.uniform(0.55, 0.7)
        house = cabin(-half, half, -half + 0.03, half - rng.uniform(0.05, 0.35), floor + 0.04, floor + high, w, 0.92 * w, 0.3)
        s.add(house, paint)
        s.add(both(box(0.9 * long, 0.02, 0.1).move(0, w / 2 - 0.02, floor + 0.2)), second)
        s.add(
            [q for x in np.linspace(-0.7, 0.6, 5) * half for q in both(box(0.15, 0.03, 0.16, 0.02).move(x, 0.47 * w, floor + 0.68 * high))],
            mat.glass(rng),
        )
        s.add(box(0.05, 0.7 * w, 0.2, 0.02).turn("y", -0.3).move(half - 0.12, 0, floor + 0.72 * high), mat.glass(rng))
        s.add(both(ellipsoid(0.04, 0.05, 0.05, 10).move(half - 0.02, 0.3 * w, floor + 0.18)), LIGHT)
        axles(s, big, [-0.75 * half, -0.45 * half, 0.45 * half, 0.75 * half], w / 2 - 0.04, 1.1 * r)
    guard = extrude([(-w / 2, 0), (w / 2, 0), (0.35 * w, 0.16), (-0.35 * w, 0.16)], 0.06).facing().turn("y", 0.35)
    s.add(guard.move(half + 0.1, 0, 0.06), second if chance(rng, 0.5) else mat.DARK)
    s.add(both(cylinder(0.05, 0.08, n=12).turn("y", np.pi / 2).move(half + 0.08, 0.3 * w, floor)), trim)
    if chance(rng, 0.45):
        x, wide = -half - 0.55, rng.uniform(0.6, 0.9)
        s.add(rod((-half, 0, floor), (x, 0, floor), 0.03), mat.DARK)
        s.add(
            revolve(hollow([(0.47, 0), (0.5, 0.35)], 0.06), 4)
            .turn("z", np.pi / 4)
            .scale(wide * 1.41, w * 1.41, 1)
            .move(x - 0.05, 0, floor - 0.04)
            .faceted(),
            paint,
        )
        s.add(ellipsoid(0.42 * wide, 0.42 * w, 0.16, 16).move(x - 0.05, 0, floor + 0.24), mat.DARK if chance(rng, 0.5) else mat.wood(rng))
        axles(s, wheel(rng, 0.8 * r, 0.08), [x - 0.25, x + 0.2], w / 2 - 0.04, 0.8 * r)
    return s
