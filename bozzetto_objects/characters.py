# SPDX-License-Identifier: Apache-2.0
"""Robot, snowman, monster. They look to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.creatures import eyes
from bozzetto_objects.figures import headgear
from bozzetto_objects.outlines import extrude, gear, heart, star
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    around,
    blob,
    both,
    box,
    cylinder,
    ellipsoid,
    fillet,
    limb,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def robot(rng: Rng) -> Sketch:
    """Boxes, cans and balls with legs, tracks or wheels, claws, dials, aerials."""
    s = Sketch("robot")
    shell, joint, trim = mat.finish(rng), mat.metal(rng), mat.plastic(rng)
    glow = mat.plain(mat.rgb(pick(rng, ("4fe0ff", "ffd23f", "ff5a4f", "8cff66", "f5f5f0"))))
    w, h, d = rng.uniform(0.4, 0.65), rng.uniform(0.45, 0.75), rng.uniform(0.3, 0.45)
    base = pick(rng, ("legs", "legs", "tracks", "wheel", "cone"))
    leg = rng.uniform(0.3, 0.6)
    if base == "legs":
        t, foot = rng.uniform(0.05, 0.09), rng.uniform(0.2, 0.32)
        boxy = chance(rng, 0.5)
        y = 0.3 * w
        s.add(
            both(box(2 * t, 2 * t, leg, 0.01).move(0, y, leg / 2 + 0.05) if boxy else rod((0, y, 0.05), (0, y, leg + 0.08), t, sides=12)),
            joint,
        )
        s.add(
            both(
                box(foot, 0.42 * w, 0.12, 0.03).move(0.05, y, 0.06)
                if boxy
                else revolve([(0, 0), (0.22 * w, 0), (0.2 * w, 0.06), (0.1 * w, 0.13), (0, 0.13)], 18).scale(1.4, 1, 1).move(0.03, y, 0)
            ),
            shell,
        )
        if not boxy:
            s.add(
                [p for z in np.linspace(0.18, leg, int(rng.integers(2, 6))) for p in both(torus(1.15 * t, 0.02, 14, 6).move(0, y, z))], trim
            )
    elif base == "tracks":
        leg, r = rng.uniform(0.22, 0.32), 0.11
        belt = fillet([(-0.4, 0, 0), (0.4, 0, 0), (0.4, 0, 2 * r), (-0.4, 0, 2 * r)], r, 5, closed=True)
        s.add(both(sweep(belt, np.array([[0.025, 0.09]] * len(belt)), rectangle(1, 1, 0.2), closed=True).move(0, 0.55 * w, 0.03)), mat.DARK)
        s.add(
            [p for x in (-0.27, 0, 0.27) for p in both(cylinder(0.85 * r, 0.13, n=16).turn("x", np.pi / 2).move(x, 0.55 * w, r + 0.03))],
            joint,
        )
        s.add(box(0.5, w, 0.12, 0.02).move(z=leg - 0.02), shell)
    elif base == "wheel":
        s.add(ellipsoid(0.22, 0.16, 0.22, 20).move(z=0.22), mat.DARK)
        s.add(both(rod((0, 0.17, 0.22), (0, 0.2, leg + 0.1), 0.04)), joint)
        s.add(rod((0, -0.2, 0.22), (0, 0.2, 0.22), 0.05), joint)
    else:
        s.add(revolve([(0, 0), (0.6 * w, 0), (0.6 * w, 0.06), (0.3 * w, leg + 0.03), (0, leg + 0.03)], 24), joint)
    z = leg + 0.04
    body = pick(rng, ("box", "can", "egg", "taper"))
    if body == "box":
        s.add(box(d, w, h, rng.uniform(0.01, 0.1)).rest(z), shell)
    elif body == "can":
        s.add(cylinder(w / 2, h, n=28, radius=0.05).scale(d / w * 1.15, 1, 1).rest(z), shell)
    elif body == "egg":
        s.add(ellipsoid(0.56 * d, w / 2, h / 2, 26, 2.4, 2.4).rest(z), shell)
    else:
        s.add(box(d, w, h, 0.03).taper(*((0.75, 0.7) if chance(rng, 0.5) else (1.15, 1.3))).rest(z), shell)
    front = d / 2 * (1.1 if body == "egg" else 0.99)
    kind = pick(rng, ("panel", "gauge", "heart", "gear", "vents", "buttons"))
    mid = z + 0.52 * h
    if kind == "panel":
        s.add(box(0.05, 0.6 * w, 0.45 * h, 0.015).move(front, 0, mid), trim)
        s.add([ellipsoid(0.025, 0.03, 0.03, 10).move(front + 0.035, (k - 1) * 0.16 * w, mid - 0.08 * h) for k in range(3)], glow)
        s.add(box(0.02, 0.4 * w, 0.1 * h).move(front + 0.025, 0, mid + 0.1 * h), mat.DARK)
    elif kind == "gauge":
        s.add(cylinder(0.16 * w + 0.03, 0.05, n=24).turn("y", np.pi / 2).move(front, 0, mid), trim)
        s.add(cylinder(0.16 * w, 0.06, n=24).turn("y", np.pi / 2).move(front + 0.005, 0, mid), mat.WHITE)
        s.add(box(0.02, 0.02, 0.15 * w).move(z=0.06).turn("x", rng.uniform(-1.5, 1.5)).move(front + 0.035, 0, mid), mat.DARK)
    elif kind in ("heart", "gear"):
        sign = extrude(heart(0.4 * w), 0.05, bevel=0.01) if kind == "heart" else extrude(gear(9, 0.24 * w, 0.18 * w), 0.06, bevel=0.01)
        s.add(sign.facing().move(front + 0.01, 0, mid), trim)
    elif kind == "vents":
        s.add([box(0.04, 0.5 * w, 0.05 * h, 0.01).move(front, 0, mid + (k - 1.5) * 0.12 * h) for k in range(4)], mat.DARK)
    else:
        s.add(
            [ellipsoid(0.03, 0.05, 0.05, 12).move(front, (k % 2 - 0.5) * 0.35 * w, mid + (k // 2 - 0.5) * 0.25 * h) for k in range(4)], trim
        )
    top, q = z + h, rng.uniform(0.15, 0.24)
    t = rng.uniform(0.035, 0.06)
    for k in (-1, 1):
        sh = np.array([0, k * (w / 2 + 0.03), top - 0.15 * h])
        way = pick(rng, ((0.1, 0.12, -0.45), (0.4, 0.08, -0.1), (0.05, 0.2, 0.4), (0.05, 0.35, -0.2)))
        hand = sh + np.array(way) * [1, k, 1]
        elbow = (sh + hand) / 2 + [-0.04, k * 0.07, -0.03]
        s.add(ellipsoid(0.09, 0.09, 0.09, 14).move(*sh), trim)
        s.add(sweep(np.stack([sh, elbow, hand]), t, 12), joint)
        s.add(ellipsoid(1.3 * t, 1.3 * t, 1.3 * t, 10).move(*elbow), trim)
        claw = sweep(spline([(0, 0, 0), (0.08, 0.09, 0), (0.2, 0.05, 0)], 8), np.linspace(0.04, 0.02, 8), 8, ends="round")
        s.add([p.aim_x(hand - elbow).move(*hand) for p in both(claw)], shell if chance(rng, 0.5) else joint)
    s.add(rod((0, 0, top - 0.03), (0, 0, top + 0.1), 0.07, sides=14), joint)
    head = pick(rng, ("box", "dome", "ball", "can"))
    c = top + 0.06 + q
    shape = {
        "box": box(1.7 * q, 2.2 * q, 1.7 * q, rng.uniform(0.01, 0.4) * q),
        "ball": ellipsoid(q, 1.1 * q, q, 22),
        "can": cylinder(q, 1.8 * q, n=24, radius=0.2 * q),
        "dome": revolve([(0, -q), (1.05 * q, -q), (1.05 * q, 0), (0.9 * q, 0.5 * q), (0.5 * q, 0.88 * q), (0, q)], 24),
    }[head]
    s.add(shape.move(z=c), shell if chance(rng, 0.6) else trim)
    if chance(rng, 0.3):
        s.add(box(0.4 * q, 1.5 * q, 0.4 * q, 0.15 * q).move(0.8 * q, 0, c + 0.15 * q), glow)
    else:
        e = rng.uniform(0.18, 0.3) * q
        x = (0.85 if head == "box" else 0.88) * q
        s.add(both(cylinder(1.3 * e, 0.3 * q, n=18).turn("y", np.pi / 2).move(x - 0.1 * q, 0.45 * q, c + 0.2 * q)), joint)
        s.add(both(ellipsoid(0.6 * e, e, e, 14).move(x + 0.06 * q, 0.45 * q, c + 0.2 * q)), glow)
    s.add(box(0.1 * q, 0.9 * q, 0.18 * q, 0.03 * q).move((0.86 if head != "ball" else 0.84) * q, 0, c - 0.45 * q), mat.DARK)
    if chance(rng, 0.7):
        for y in ((0.0,), (-0.6 * q, 0.6 * q))[int(rng.integers(2))]:
            s.add(rod((0, y, c + 0.7 * q), (0, 1.5 * y, c + q + 0.2), 0.015, sides=6), joint)
            s.add(ellipsoid(0.045, 0.045, 0.045, 10).move(0, 1.5 * y, c + q + 0.2), trim)
    if chance(rng, 0.5):
        s.add(both(cylinder(0.3 * q, 0.3 * q, n=14).turn("x", np.pi / 2).move(0, 1.1 * q, c)), trim)
    return s


def snowman(rng: Rng) -> Sketch:
    """Two or three balls, carrot, coal, stick arms, hat and scarf, broom."""
    s = Sketch("snowman")
    snow = mat.plain(mat.rgb(pick(rng, ("f6f8fb", "eef3f8", "fffdf8")))) if chance(rng, 0.9) else mat.painted(rng)
    wood, coal, hat, scarf = mat.bark(rng), mat.BLACK, mat.painted(rng, mat.TOY), mat.printed(rng) if chance(rng, 0.6) else mat.plastic(rng)
    z, r, count, shrink = 0.0, 0.5, pick(rng, (2, 3, 3)), rng.uniform(0.68, 0.8)
    rough = pick(rng, (0.0, 0.03))
    centres = []
    for k in range(count):
        q = r * shrink**k
        z += 0.88 * q if k == 0 else 0.78 * q
        s.add(blob(rng, q, rough, 24).move(rng.normal(0, 0.01), 0, z), snow)
        centres.append((z, q))
        z += 0.78 * q
    c, q = centres[-1]
    eyes(rng, s, np.array([0.88 * q, 0.35 * q, c + 0.25 * q]), 0.11 * q, 0.1, "bead")
    s.add(
        cylinder(0.13 * q, rng.uniform(0.5, 1.0) * q, 0.01, n=12).turn("y", np.pi / 2 + rng.normal(0, 0.1)).move(1.25 * q, 0, c),
        mat.plain(mat.rgb("f0801f")),
    )
    a = np.linspace(-0.7, 0.7, 6)
    s.add(
        [
            ellipsoid(0.06 * q, 0.06 * q, 0.06 * q, 8).move(
                0.93 * q * np.cos(0.75 * t), 0.75 * q * np.sin(t), c - 0.5 * q + 0.18 * q * t * t
            )
            for t in a
        ],
        coal,
    )
    z, b = centres[-2]
    button = coal if chance(rng, 0.6) else mat.plastic(rng)
    s.add(
        [
            ellipsoid(0.04, 0.05, 0.05, 10).move(b * np.cos(t), 0, z + b * np.sin(t))
            for t in np.linspace(-0.3, 0.55, int(rng.integers(2, 5)))
        ],
        button,
    )
    for k in (-1, 1):
        lift = rng.uniform(-0.3, 0.6)
        tip = np.array([0.1, k * (b + rng.uniform(0.3, 0.5)), z + 0.2 + lift])
        s.add(rod((0, k * 0.8 * b, z + 0.15), tip, 0.028, 0.018, 8), wood)
        s.add(
            [rod(tip - [0.02, k * 0.06, 0.03], tip + np.array([0.06 * w, k * 0.1, 0.07 + 0.03 * w]), 0.014, 0.008, 6) for w in (-1, 1)],
            wood,
        )
        if chance(rng, 0.3):
            s.add(ellipsoid(0.08, 0.09, 0.11, 12).move(*tip), scarf)
    if chance(rng, 0.85):
        headgear(rng, s, np.array([0, 0, c + 0.98 * q]), 0.85 * q, hat, mat.painted(rng))
    if chance(rng, 0.75):
        neck = (c - q + z + b) / 2 + 0.06
        s.add(torus(0.62 * q + 0.06, 0.09, 26, 10).scale(1, 1, 0.8).move(z=neck), scarf)
        s.add(box(0.06, 0.16, rng.uniform(0.3, 0.5), 0.02).turn("y", -0.2).move(0.72 * q + 0.1, 0.18, neck - 0.2), scarf)
    if chance(rng, 0.25):
        s.add(rod((0.1, b + 0.35, 0), (0.1, b + 0.3, z + 0.6), 0.025), wood)
        s.add(cylinder(0.14, 0.35, 0.05, n=14).move(0.1, b + 0.35, 0.15), mat.plain(mat.rgb("c99a4a")))
    if chance(rng, 0.3):
        s.add(ellipsoid(0.85, 0.85, 0.1, 22).move(z=0.02), snow)
    return s


def monster(rng: Rng) -> Sketch:
    """A friendly fantasy creature: one to four eyes, horns, tentacles, teeth, spots, ghost or alien."""
    s = Sketch(pick(rng, ("monster", "monster", "alien")))
    skin, belly, horn = mat.fur(rng, mat.TOY), mat.painted(rng), mat.painted(rng, [mat.rgb("f2ead8"), mat.rgb("e8c23a"), mat.rgb("4a4440")])
    h, w = rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.5)
    leg = pick(rng, (0.0, rng.uniform(0.1, 0.35)))
    z = leg + 0.9 * h
    power = rng.uniform(2, 4)
    body = ellipsoid(0.85 * w, w, h, 28, 2.2, power).taper(rng.uniform(0.55, 1.2), rng.uniform(0.55, 1.2)).move(z=z)
    s.add(body, skin)
    if chance(rng, 0.6):
        s.add(ellipsoid(0.5 * w, 0.68 * w, 0.6 * h, 20).move(0.42 * w, 0, z - 0.3 * h), belly)
    top, count = body.top, int(rng.integers(1, 5))
    stalks = chance(rng, 0.3)
    r = rng.uniform(0.09, 0.15) if count > 1 else rng.uniform(0.15, 0.24)

    def surface(y: float, level: float) -> float:
        near = body.vertices[
            np.argsort(np.abs(body.vertices[:, 2] - level) + np.abs(body.vertices[:, 1] - y) - 0.01 * body.vertices[:, 0])[:4]
        ]
        return float(near[:, 0].max())

    for k in range(count):
        y, level = (k - (count - 1) / 2) * 2.1 * r, z + 0.42 * h
        if stalks:
            at = np.array([0.1, 1.4 * y, top + 0.15 + 0.1 * (k % 2)])
            s.add(rod((0, 0.6 * y, top - 0.12), at, 0.035, 0.03), skin)
        else:
            at = np.array([surface(y, level) - 0.25 * r, y, level])
        s.add(ellipsoid(r, r, r, 16).move(*at), mat.WHITE)
        s.add(ellipsoid(0.5 * r, 0.55 * r, 0.55 * r, 12).move(*at).move(0.62 * r), mat.BLACK)
    level = z + 0.05 * h
    x = surface(0, level)
    s.add(ellipsoid(0.08, rng.uniform(0.25, 0.5) * w, rng.uniform(0.04, 0.12), 16).move(x - 0.03, 0, level), mat.plain(mat.rgb("5a1420")))
    s.add(
        [
            cylinder(0.035, 0.08, 0.0, n=6).turn("x", np.pi).move(x + 0.03, y, level + 0.01)
            for y in np.linspace(-0.18, 0.18, int(rng.integers(2, 5))) * w / 0.4
        ],
        mat.WHITE,
    )
    kind = pick(rng, ("horns", "ears", "spikes", "none"))
    if kind == "horns":
        out = rng.uniform(0.1, 0.35)
        s.add(
            both(
                limb([(0, 0.45 * w, top - 0.1), (0, 0.45 * w + out, top + 0.08), (0.03, 0.4 * w + out, top + 0.28)], [0.09, 0.07, 0.015], 8)
            ),
            horn,
        )
    elif kind == "ears":
        s.add(both(ellipsoid(0.06, 0.14, 0.2, 14).turn("x", -0.6).move(0, 0.62 * w, top - 0.02)), skin)
    elif kind == "spikes":
        s.add(
            [
                cylinder(0.08, 0.2, 0.0, n=8).turn("y", -0.25 - 0.45 * k).move(-0.1 - 0.14 * k, 0, top - 0.06 - 0.16 * k * k * 0.6)
                for k in range(3)
            ],
            horn,
        )
    if leg and chance(rng, 0.65):
        s.add(both(limb([(0, 0.45 * w, leg + 0.12), (0, 0.5 * w, 0.07)], [0.12, 0.1], 5)), skin)
        s.add(both(ellipsoid(0.2, 0.13, 0.09, 14).rest(0).move(0.07, 0.5 * w)), skin if chance(rng, 0.5) else belly)
    elif leg:
        path = spline([(0.1, 0, leg + 0.15), (0.7 * w, 0, leg * 0.8), (w, 0, 0.06), (1.35 * w, 0, 0.1)], 12)
        s.add(around(sweep(path, np.linspace(0.11, 0.035, 12), 10, ends="round"), int(rng.integers(5, 8))), skin)
    if chance(rng, 0.8):
        for k in (-1, 1):
            way = pick(rng, ((0.15, 0.3, -0.25), (0.05, 0.4, 0.25), (0.3, 0.2, 0.0)))
            a = np.array([0, k * 0.85 * w, z + 0.05])
            b = a + np.array(way) * [1, k, 1]
            s.add(limb([a - [0, k * 0.1, 0], (a + b) / 2 + [0, 0, 0.03], b], [0.09, 0.07, 0.075], 9), skin)
            s.add([rod(b, b + np.array([0.03 + 0.04 * q, k * 0.08, 0.06 * q]), 0.035, 0.025, 8, ends="round") for q in (-1, 0, 1)], skin)
    if chance(rng, 0.4):
        for star_at in range(int(rng.integers(2, 5))):
            y, level = rng.uniform(-0.6, 0.6) * w, z + rng.uniform(-0.4, 0.3) * h
            sign = extrude(star(5, 0.09, 0.045), 0.05).turn("z", rng.uniform(0, 6)).facing().mirror("x")
            s.add(sign.move(-surface(y, level) + 0.02 * (star_at % 2), y, level), belly)
    return s
