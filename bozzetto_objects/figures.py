# SPDX-License-Identifier: Apache-2.0
"""Soft toys and toy people. They look to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.creatures import eyes
from bozzetto_objects.materials import Material
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    both,
    box,
    cylinder,
    ellipsoid,
    hollow,
    limb,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def headgear(rng: Rng, s: Sketch, at: Array, r: float, m: Material, trim: Material) -> None:
    """A hat for a head of radius r whose crown is at a point."""
    kind = pick(rng, ("top", "cone", "cap", "bobble", "crown", "wide"))
    one = Sketch("")
    if kind in ("top", "wide"):
        h, brim = (0.9, 1.35) if kind == "top" else (0.55, 1.9)
        one.add(revolve([(0, 0), (brim * r, 0), (brim * r, 0.07 * r), (0.85 * r, 0.09 * r), (0.8 * r, h * r), (0, h * r)], 24), m)
        one.add(cylinder(0.88 * r, 0.16 * r, n=24).move(z=0.17 * r), trim)
    elif kind == "cone":
        one.add(cylinder(0.8 * r, 1.4 * r, 0, n=20).rest(0), m)
        one.add(ellipsoid(0.16 * r, 0.16 * r, 0.16 * r, 10).move(z=1.4 * r), trim)
    elif kind == "cap":
        one.add(revolve([(0, 0), (0.97 * r, 0), (0.9 * r, 0.35 * r), (0.5 * r, 0.62 * r), (0, 0.68 * r)], 22), m)
        one.add(ellipsoid(0.6 * r, 0.65 * r, 0.06 * r, 16).move(0.95 * r, 0, 0.05 * r), trim)
    elif kind == "bobble":
        one.add(ellipsoid(0.95 * r, 0.95 * r, 0.8 * r, 20).move(z=0.1 * r), m)
        one.add([torus(0.95 * r, 0.16 * r, 24, 8), ellipsoid(0.26 * r, 0.26 * r, 0.26 * r, 12).move(z=1.0 * r)], trim)
    else:
        points = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        high = np.where(np.arange(24) % 4 < 2, 0.32, 0.14) * r
        path = np.stack([0.75 * r * np.cos(points), 0.75 * r * np.sin(points), high], 1)
        one.add(
            sweep(path, np.stack([np.full(24, 0.05 * r), high], 1), rectangle(1, 1, 0.2), closed=True, up=(0, 0, 1)),
            mat.plain(mat.rgb("f4c92b")),
        )
    tilt = rng.normal(0, 0.12)
    s.merge(one, lambda p: p.move(z=-0.3 * r).turn("x", tilt).move(*at))


def teddy(rng: Rng) -> Sketch:
    """Bear, rabbit, cat, or elephant-like soft toy, sitting or standing, with bow, scarf or waistcoat."""
    kind = pick(rng, ("bear", "bear", "rabbit", "cat", "dog", "monkey"))
    s = Sketch("teddy bear" if kind == "bear" else f"toy {kind}")
    plush = mat.fur(rng, [*mat.FURS, *mat.SOFT]) if chance(rng, 0.75) else mat.fabric(rng)
    pale = mat.plain(np.clip(plush.colour * 1.25 + 0.05, 0, 1)) if chance(rng, 0.6) else mat.painted(rng, mat.SOFT)
    sits = chance(rng, 0.6)
    r, fat = rng.uniform(0.28, 0.38), rng.uniform(0.75, 1.05)
    leg = rng.uniform(0.3, 0.45)
    z = 0.42 if sits else leg + 0.36
    s.add(ellipsoid(0.32 * fat, 0.33 * fat, 0.42, 22).move(0, 0, z), plush)
    s.add(ellipsoid(0.26 * fat, 0.24 * fat, 0.32, 18).move(0.09, 0, z - 0.02), pale)
    t = rng.uniform(0.1, 0.14)
    if sits:
        spread = rng.uniform(0.2, 0.55)
        hip, foot = np.array([0.1, 0.2 * fat, 0.15]), np.array([0.15 + leg, 0.2 + spread * leg, 0.15])
        s.add(both(limb([hip, (hip + foot) / 2, foot], [1.2 * t, 1.15 * t, 1.1 * t], 8, 12)), plush)
        pad = foot + np.array([1.05 * t, spread * t, 0.05])
        s.add(both(ellipsoid(0.5 * t, 1.15 * t, 1.35 * t, 14).move(*(pad - [0.05, 0, 0]))), plush)
        s.add(both(ellipsoid(0.3 * t, 0.75 * t, 0.9 * t, 12).move(*(pad + np.array([0.2 * t, 0, 0])))), pale)
    else:
        stride = rng.uniform(-0.12, 0.12)
        for k in (-1, 1):
            s.add(limb([(0, k * 0.17, z - 0.2), (k * stride, k * 0.19, 0.12)], [1.25 * t, 1.1 * t], 6, 12), plush)
            s.add(ellipsoid(1.7 * t, 1.2 * t, 0.8 * t, 14).rest(0).move(k * stride + 0.5 * t, k * 0.19), plush)
    for k in (-1, 1):
        way = pick(rng, ((0.25, 0.42, -0.22), (0.05, 0.55, 0.1), (0.1, 0.45, -0.35), (0.4, 0.2, -0.05), (0.05, 0.4, 0.4)))
        a = np.array([0, k * 0.25 * fat, z + 0.24])
        b = a + np.array(way) * [1, k, 1]
        s.add(limb([a, (a + b) / 2 + [0, k * 0.04, 0], b], [t, 0.92 * t, t], 8, 12), plush)
        s.add(ellipsoid(0.7 * t, 0.7 * t, 0.7 * t, 10).move(*b).move(0.45 * t), pale)
    top = np.array([0.03, 0, z + 0.36 + 0.78 * r])
    one = Sketch("")
    one.add(ellipsoid(0.95 * r, rng.uniform(1.0, 1.15) * r, 0.95 * r, 22), plush)
    one.add(ellipsoid(0.42 * r, 0.5 * r, 0.4 * r, 16).move(0.8 * r, 0, -0.25 * r), pale)
    one.add(ellipsoid(0.12 * r, 0.17 * r, 0.12 * r, 10).move(1.18 * r, 0, -0.08 * r), mat.DARK)
    one.add(
        sweep(spline([(1.14 * r, -0.15 * r, -0.36 * r), (1.2 * r, 0, -0.42 * r), (1.14 * r, 0.15 * r, -0.36 * r)], 6), 0.025 * r, 5),
        mat.DARK,
    )
    eyes(rng, one, np.array([0.78 * r, 0.38 * r, 0.2 * r]), rng.uniform(0.09, 0.14) * r, 0.2)
    if kind == "rabbit":
        bend = rng.uniform(-0.5, 0.9) * r
        ear = limb(
            [(0, 0.35 * r, 0.75 * r), (0, 0.5 * r, 1.5 * r), (0.2 * bend, 0.55 * r + 0.5 * abs(bend), 2.1 * r)],
            [0.2 * r, 0.27 * r, 0.15 * r],
            10,
        )
    elif kind == "cat":
        ear = cylinder(0.4 * r, 0.7 * r, 0.03, n=10).scale(0.5, 1, 1).turn("x", -0.35).move(0, 0.62 * r, 1.0 * r)
    elif kind == "dog":
        ear = limb([(0, 0.8 * r, 0.7 * r), (0, 1.2 * r, 0.3 * r), (0.1, 1.25 * r, -0.45 * r)], [0.18 * r, 0.3 * r, 0.28 * r], 8)
    else:
        ear = ellipsoid(0.16 * r, 0.4 * r, 0.4 * r, 16).move(-0.05 * r, *((0.75 * r, 0.75 * r) if kind == "bear" else (1.15 * r, 0.1 * r)))
        one.add(both(ear.scale(1, 0.97, 0.97).move(0.1 * r)), pale)
    one.add(both(ear), plush)
    if chance(rng, 0.2):
        headgear(rng, one, np.array([0, 0, 0.95 * r]), 0.7 * r, mat.painted(rng), mat.painted(rng))
    tilt, turn = rng.normal(0, 0.12), rng.normal(0, 0.2)
    s.merge(one, lambda p: p.turn("x", tilt).turn("z", turn).move(*top))
    dress, neck = mat.printed(rng) if chance(rng, 0.5) else mat.plastic(rng), z + 0.36
    kind = pick(rng, ("none", "bow", "scarf", "vest"))
    if kind == "bow":
        s.add(both(ellipsoid(0.05, 0.13, 0.08, 12).move(0.28 * fat, 0.12, neck - 0.03)), dress)
        s.add(ellipsoid(0.05, 0.05, 0.05, 10).move(0.3 * fat, 0, neck - 0.03), dress)
    elif kind == "scarf":
        s.add(torus(0.24, 0.075, 24, 10).move(z=neck), dress)
        s.add(box(0.06, 0.13, 0.34, 0.02).turn("y", -0.25).move(0.33, 0.12, neck - 0.18), dress)
    elif kind == "vest":
        s.add(ellipsoid(0.335 * fat, 0.345 * fat, 0.3, 22, 2, 3.5).move(-0.015, 0, z + 0.02), dress)
    s.add(ellipsoid(0.09, 0.09, 0.09, 10).move(-0.33 * fat, 0, z - 0.24), plush)
    return s


def _hair(rng: Rng, s: Sketch, at: Array, r: float, hair: Material) -> None:
    """Hair on a head of radius r about a point."""
    kind = pick(rng, ("cap", "bob", "bun", "tails", "curls", "bald"))
    if kind == "bald":
        return
    s.add(ellipsoid(1.02 * r, 1.06 * r, 0.98 * r, 18).move(*at).move(-0.2 * r, 0, 0.22 * r), hair)
    if kind == "bob":
        s.add(ellipsoid(0.62 * r, 1.12 * r, 1.1 * r, 18, 2.4, 3).move(*at).move(-0.5 * r, 0, -0.2 * r), hair)
    if kind == "bun":
        s.add(ellipsoid(0.4 * r, 0.4 * r, 0.4 * r, 12).move(*at).move(-0.4 * r, 0, 1.15 * r), hair)
    elif kind == "tails":
        s.add(
            [
                p.move(*at)
                for p in both(
                    limb(
                        [(-0.2 * r, 0.9 * r, 0.2 * r), (-0.3 * r, 1.5 * r, 0.1 * r), (-0.3 * r, 1.6 * r, -0.9 * r)],
                        [0.15 * r, 0.26 * r, 0.08 * r],
                        8,
                    )
                )
            ],
            hair,
        )
    elif kind == "curls":
        for k in range(18):
            a, up = 2.4 * k, 0.15 + 1.3 * k / 18
            s.add(
                ellipsoid(0.3 * r, 0.3 * r, 0.3 * r, 8)
                .move(*at)
                .move(r * np.cos(up) * np.cos(a) * 0.95 - 0.12 * r, r * np.cos(up) * np.sin(a) * 0.95, r * np.sin(up) + 0.1 * r),
                hair,
            )


def figure(rng: Rng) -> Sketch:
    """A toy person: peg doll, building-block man, play figure standing, walking, waving, sitting; in trousers, skirt or gown."""
    kind = pick(rng, ("peg", "block", "play", "play", "play"))
    s = Sketch("toy figure" if kind != "peg" else "peg doll")
    skin, top, low, shoe = mat.skin(rng), mat.fabric(rng) if chance(rng, 0.5) else mat.plastic(rng), mat.fabric(rng, 0.2), mat.leather(rng)
    hair, trim = mat.painted(rng, mat.FURS), mat.painted(rng)
    if kind == "peg":
        h, r = rng.uniform(0.6, 0.9), rng.uniform(0.2, 0.28)
        s.add(
            revolve([*spline([(1.3 * r, 0), (1.35 * r, 0.1), (0.8 * r, 0.75 * h), (0.45 * r, h)], 14).tolist(), [0, h]], 22),
            top,
            (lambda p: p.centres[:, 2] < 0.45 * h, low),
        )
        if chance(rng, 0.4):
            s.add(
                both(limb([(0, 0.75 * r, 0.75 * h), (0.1, 1.2 * r, 0.5 * h), (0.16, 1.05 * r, 0.4 * h)], [0.35 * r, 0.3 * r, 0.3 * r], 7)),
                top,
            )
        head, q = np.array([0, 0, h + 0.8 * r]), 0.95 * r
    elif kind == "block":
        h, q = 0.62, 0.2
        s.add(box(0.26, 0.46, 0.48, 0.03).taper(0.9, 0.75).rest(h), top)
        walk, lift = rng.uniform(0, 0.5), rng.uniform(-1.6, 0.4)
        for k in (-1, 1):
            s.add(box(0.25, 0.215, 0.52, 0.03).move(z=-0.22).turn("y", k * walk).move(0, k * 0.115, h - 0.05), low)
            s.add(
                box(0.34, 0.215, 0.14, 0.03).move(0.04, 0, -0.5).turn("y", k * walk).move(0, k * 0.115, h - 0.05),
                low if chance(rng, 0.5) else shoe,
            )
            arm = limb([(0, 0, 0), (0, k * 0.07, -0.2), (0.12, k * 0.08, -0.38)], [0.085, 0.08, 0.07], 8)
            turn = lift if k > 0 else -walk * 0.8
            s.add(arm.turn("y", turn).move(0, k * 0.24, h + 0.4), top)
            s.add(torus(0.055, 0.03, 14, 8).move(0.16, k * 0.08, -0.44).turn("y", turn).move(0, k * 0.24, h + 0.4), skin)
        s.add(box(0.28, 0.47, 0.07, 0.01).move(z=h), trim)
        head = np.array([0, 0, h + 0.48 + 0.21])
        s.add(
            [
                cylinder(0.1, 0.1, n=14).move(z=h + 0.5),
                cylinder(0.2, 0.34, n=24, radius=0.06).move(*head),
                cylinder(0.1, 0.08, n=16).move(*head).move(z=0.2),
            ],
            skin,
        )
    else:
        leg, body, q = rng.uniform(0.45, 0.85), rng.uniform(0.4, 0.55), rng.uniform(0.15, 0.25)
        wide, t = rng.uniform(0.13, 0.2), rng.uniform(0.055, 0.085)
        pose = pick(rng, ("stand", "walk", "sit", "jump"))
        skirt = pose != "sit" and chance(rng, 0.3)
        hip = leg if pose != "sit" else 0.12
        s.add(
            limb(
                [(0, 0, hip), (0.01, 0, hip + 0.5 * body), (0, 0, hip + body)], [wide, rng.uniform(0.85, 1.1) * wide, 0.75 * wide], 10, 16
            ).scale(0.8, 1.15, 1),
            top,
        )
        if skirt:
            long = rng.uniform(0.4, 0.95) * leg
            s.add(
                revolve(
                    hollow(np.array([(wide * rng.uniform(1.6, 2.4), -long), (1.3 * wide, -0.3 * long), (0.95 * wide, 0.1)]), 0.03), 24
                ).move(z=hip),
                low,
            )
        for k in (-1, 1):
            swing = {"stand": 0.0, "walk": 0.35 * k, "sit": 0.0, "jump": 0.25}[pose]
            a = np.array([0, k * 0.6 * wide, hip])
            if pose == "sit":
                knee, foot = a + np.array([0.5 * leg, k * 0.08, 0.05]), a + np.array([0.95 * leg, k * 0.1, -0.04])
            else:
                knee, foot = (
                    a + np.array([0.1 + 0.5 * leg * np.sin(swing) * 0.8, k * (0.02 + 0.15 * (pose == "jump")), -0.48 * leg]),
                    a + np.array([0.95 * leg * np.sin(swing), k * (0.03 + 0.25 * (pose == "jump")), -0.93 * leg]),
                )
                knee[0] -= 0.08
            s.add(limb([a, knee, foot], [1.35 * t, 1.1 * t, 0.95 * t], 9, 10), skin if skirt else low)
            toe = (0.9 * t, 0, 0) if pose != "sit" else (0.3 * t, 0, 0.9 * t)
            s.add(
                (ellipsoid(2.0 * t, 1.15 * t, 0.9 * t, 12) if pose != "sit" else ellipsoid(0.9 * t, 1.15 * t, 2.0 * t, 12))
                .move(*foot)
                .move(*toe),
                shoe,
            )
            way = pick(rng, ((0.05, 0.18, -0.4), (0.3, 0.12, -0.1), (0.0, 0.4, 0.05), (0.05, 0.28, 0.35), (0.2 * k, 0.12, -0.38)))
            sh = np.array([0, k * (wide + 0.02), hip + 0.93 * body])
            hand = sh + np.array(way) * [1, k, 1] * (0.8 + 0.5 * leg)
            s.add(limb([sh, (sh + hand) / 2 + [-0.03, k * 0.05, 0], hand], [1.05 * t, 0.9 * t, 0.8 * t], 9, 10), top)
            s.add(ellipsoid(1.05 * t, 0.85 * t, 1.1 * t, 10).move(*hand), skin)
        s.add(rod((0, 0, hip + body - 0.02), (0, 0, hip + body + 0.12), 0.06), skin)
        head = np.array([0.02, 0, hip + body + 0.08 + 0.9 * q])
        if chance(rng, 0.4):
            s.add(torus(0.92 * wide, 0.03, 24, 6).scale(0.9, 1.15, 1).move(z=hip + 0.05), trim)
        if pose == "sit" and chance(rng, 0.4):
            s.add(box(0.4, 0.5, 0.4, 0.03).move(0, 0, -0.2), mat.wood(rng))
    if kind != "block":
        s.add(ellipsoid(q, 0.95 * q, rng.uniform(1.0, 1.15) * q, 20).move(*head), skin)
        s.add(ellipsoid(0.14 * q, 0.13 * q, 0.14 * q, 8).move(*head).move(q, 0, -0.08 * q), skin)
    eyes(rng, s, head + np.array([0.87 * q, 0.36 * q, 0.15 * q]), 0.13 * q, 0.1, pick(rng, ("bead", "white")))
    s.add(
        sweep(spline([(0.9 * q, -0.28 * q, -0.34 * q), (0.95 * q, 0, -0.46 * q), (0.9 * q, 0.28 * q, -0.34 * q)], 6), 0.045 * q, 5).move(
            *head
        ),
        mat.painted(rng, [mat.rgb("a8322e"), mat.rgb("5a2a22")]),
    )
    if chance(rng, 0.35):
        headgear(rng, s, head + np.array([0, 0, 0.95 * q]), q, mat.painted(rng), trim)
    else:
        _hair(rng, s, head, q, hair)
    return s
