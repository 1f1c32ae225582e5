# SPDX-License-Identifier: Apache-2.0
"""What sails: rowing boat, canoe, sailing boat, motor boat, tug, steamer, galleon. The bow is at +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    Part,
    both,
    box,
    cylinder,
    ellipsoid,
    loft,
    rectangle,
    rod,
    sweep,
    torus,
)


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
    s = Sketch(
        {"rowing": "rowing boat", "sailing": "sailing boat", "motor": "motor boat", "tug": "tug boat", "canoe": "canoe"}.get(kind, "ship")
    )
    length = rng.uniform(1.6, 2.3)
    wide = length * {"canoe": rng.uniform(0.15, 0.22), "steamer": rng.uniform(0.18, 0.26)}.get(kind, rng.uniform(0.3, 0.42))
    depth = length * {"canoe": 0.1, "rowing": 0.14, "galleon": 0.22, "steamer": 0.17}.get(kind, rng.uniform(0.12, 0.2))
    sheer = length * {"motor": 0.02, "canoe": 0.1, "galleon": 0.14}.get(kind, rng.uniform(0.03, 0.09))
    open_ = kind in ("rowing", "canoe") or (kind in ("sailing", "motor") and chance(rng, 0.5))
    part, line = hull(
        length, wide, depth, sheer, 0.0 if kind == "canoe" else rng.uniform(0.45, 0.8), 0.8 if open_ else 0.12, rng.uniform(0, 0.8)
    )
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
            a, b = (
                np.array([-0.05 * length, 0.1 * side * wide, 0.12 * length]),
                np.array([-0.2 * length, side * rng.uniform(0.9, 1.3) * wide, -0.1 * length]),
            )
            s.add(rod(a, b, 0.02), deck)
            s.add(ellipsoid(0.13, 0.012, 0.05, 12).turn("z", np.pi / 2 * side).aim((0, 0, 1)).turn("x", 0.5 * side).move(*b), second)
    elif kind == "sailing":
        high, x = rng.uniform(0.9, 1.4) * length, rng.uniform(0.0, 0.15) * length
        cloth, wood = mat.fabric(rng, 0.3) if chance(rng, 0.5) else mat.WHITE, mat.wood(rng)
        s.add(rod((x, 0, -0.5 * depth), (x, 0, high), 0.028, 0.016), wood)
        z, swing = 0.14 * high, rng.uniform(-0.5, 0.5)
        foot = rng.uniform(0.45, 0.6) * length
        s.add(
            [
                _sail((-0.03, 0, 0.02), 0.78 * high, foot, rng.uniform(0.04, 0.15)).turn("z", swing).move(x, 0, z),
            ],
            cloth,
        )
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
            s.add(
                [rod((q, y, 0), (q, y, 0.5), 0.015) for q in (-0.2 * length, 0.15 * length) for y in (-0.3 * wide, 0.3 * wide)],
                mat.metal(rng),
            )
    elif kind in ("tug", "steamer"):
        levels = 1 if kind == "tug" else int(rng.integers(2, 4))
        z, long, w = 0.0, length * (0.32 if kind == "tug" else 0.62), 0.6 * wide
        for _ in range(levels):
            h = 0.2 if kind == "steamer" else 0.34
            s.add(box(long, w, h, 0.03).move(0.02 * length, 0, z + h / 2), mat.WHITE if chance(rng, 0.5) else second)
            n = max(2, int(long / 0.2))
            s.add(
                [
                    p
                    for q in np.linspace(-0.42, 0.42, n) * long
                    for p in both(ellipsoid(0.04, 0.02, 0.04, 10).move(q + 0.02 * length, w / 2, z + 0.6 * h))
                ],
                mat.glass(rng),
            )
            z += h
            s.add(box(1.06 * long, 1.1 * w, 0.03, 0.01).move(0.02 * length, 0, z), deck)
            long, w = 0.75 * long, 0.85 * w
        s.add(
            [
                cylinder(0.09, 0.35, n=18).turn("y", -0.12).move(x * length, 0, z + 0.16)
                for x in ((-0.06,), (-0.1, 0.06), (-0.15, 0, 0.15))[int(rng.integers(0, 3))]
            ],
            second,
            (lambda p: p.centres[:, 2] > z + 0.24, mat.BLACK),
        )
        s.add(rod((0.3 * length, 0, 0), (0.3 * length, 0, rng.uniform(0.5, 0.9)), 0.02), mat.DARK)
        if kind == "tug":
            s.add(
                [
                    torus(0.08, 0.035, 14, 8).turn("x", np.pi / 2).move(x * length, y * (wide / 2) * 1.02, -0.05)
                    for x in (-0.25, 0, 0.2)
                    for y in (-1, 1)
                ],
                mat.DARK,
            )
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
                s.add(
                    sheet.warp(
                        lambda v, z=z, h=h, w=w: (
                            v + np.column_stack([0.1 * np.cos((v[:, 2] - z) / h * 2.6) * np.cos(v[:, 1] / w * 2.2), 0 * v[:, :2]])
                        )
                    ),
                    cloth,
                )
                s.add(rod((x * length + 0.03, -0.55 * w, z + h / 2), (x * length + 0.03, 0.55 * w, z + h / 2), 0.016), wood)
        s.add(rod((0.5 * length, 0, sheer), (0.75 * length, 0, sheer + 0.22), 0.025, 0.012), wood)
    return s
