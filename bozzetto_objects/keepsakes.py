# SPDX-License-Identifier: Apache-2.0
"""Things to give, hang up and play with: gift, lantern, balloon, umbrella, toy blocks."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.outlines import arc, extrude, heart, star
from bozzetto_objects.sketch import Rng, Sketch, chance, pick, sectors
from bozzetto_objects.solids import (
    Array,
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


def gift(rng: Rng) -> Sketch:
    """A wrapped box with ribbon and bow, a stack of them, a round one, a chest, a suitcase, a bag."""
    kind = pick(rng, ("gift", "gift", "gift", "chest", "suitcase", "gift bag"))
    s = Sketch({"gift": "gift box", "chest": "treasure chest"}.get(kind, kind))
    paper, ribbon, trim = mat.printed(rng) if chance(rng, 0.5) else mat.painted(rng), mat.plastic(rng), mat.metal(rng)
    d, w, h = rng.uniform(0.4, 1.0, 3) * [1, 1, 0.9]
    if kind == "gift":
        z = 0.0
        for k in range(pick(rng, (1, 1, 1, 2, 3))):
            if k:
                d, w, h, paper = (
                    d * rng.uniform(0.6, 0.8),
                    w * rng.uniform(0.6, 0.8),
                    rng.uniform(0.2, 0.5),
                    mat.printed(rng) if chance(rng, 0.5) else mat.painted(rng),
                )
            one, t = Sketch(""), rng.uniform(0.03, 0.08)
            is_round = chance(rng, 0.2)
            lid = chance(rng, 0.4)
            if is_round:
                one.add(cylinder(0.5, h, n=32).scale(d, d, 1).move(z=h / 2), paper)
                one.add(cylinder(0.515, 0.2 * h, n=32).scale(d, d, 1).move(z=0.92 * h), ribbon)
                one.add(box(d * 1.02, 2 * t, 0.02).move(z=1.02 * h), ribbon)
            else:
                one.add(box(d, w, h, 0.01).move(z=h / 2), paper)
                if lid:
                    one.add(box(d + 0.04, w + 0.04, 0.18 * h, 0.01).move(z=0.93 * h), paper if chance(rng, 0.4) else mat.painted(rng))
                over = 0.05 if lid else 0.015
                one.add(
                    [box(d + over, 2 * t, h + 0.04).move(z=h / 2 + 0.005), box(2 * t, w + over, h + 0.042).move(z=h / 2 + 0.006)], ribbon
                )
            turn, at = rng.normal(0, 0.25) * (k > 0), z
            s.merge(one, lambda p, turn=turn, at=at: p.turn("z", turn).move(z=at))
            z += h * 1.02
        q = rng.uniform(0.12, 0.22)
        loops = int(rng.integers(1, 5)) * 2
        loop = ellipsoid(0.62 * q, 0.3 * q, 0.24 * q, 14).move(0.6 * q).turn("y", -0.5)
        s.add([p.move(z=z + 0.02) for p in around(loop, loops, rng.uniform(0, 1))], ribbon)
        s.add(ellipsoid(0.22 * q, 0.22 * q, 0.2 * q, 12).move(z=z + 0.1 * q + 0.02), ribbon)
    elif kind == "chest":
        w, d, h = rng.uniform(0.8, 1.0), rng.uniform(0.5, 0.65), rng.uniform(0.3, 0.42)
        wood, opening = mat.boards(rng), pick(rng, (0.0, rng.uniform(0.5, 1.4)))
        s.add(box(d, w, h).move(z=h / 2), wood)
        lid = Sketch("")
        half = np.concatenate([arc(d / 2, 0, np.pi, 12) * [1, 0.75], [(-d / 2 + 0.001, -0.01), (d / 2 - 0.001, -0.01)]])
        lid.add(extrude(half, w).upright(), wood)
        lid.add([extrude(half * 1.04, 0.07).upright().move(0, y, 0) for y in (-0.38 * w, 0.0, 0.38 * w)], trim)
        s.merge(lid, lambda p: p.move(d / 2).turn("y", -opening).move(-d / 2, 0, h + 0.01))
        s.add([box(d + 0.03, 0.07, h).move(0, y, h / 2) for y in (-0.38 * w, 0.38 * w)], trim)
        s.add(
            [
                box(0.05, 0.16, 0.16, 0.02).move(d / 2, 0, h - 0.06),
                torus(0.06, 0.015, 16, 6).turn("y", np.pi / 2).move(d / 2 + 0.03, 0, h - 0.12),
            ],
            trim,
        )
        s.add(both(torus(0.08, 0.018, 16, 6).turn("x", np.pi / 2).move(0, w / 2 + 0.02, 0.6 * h)), mat.DARK)
        if opening > 0.3:
            gold = mat.plain(mat.rgb("e8b923"), "gold")
            s.add(ellipsoid(0.44 * d, 0.46 * w, 0.12, 20).move(z=h), gold)
            s.add(
                [
                    cylinder(0.06, 0.02, n=14)
                    .turn("x", rng.uniform(-1, 1))
                    .move(rng.uniform(-0.35, 0.35) * d, rng.uniform(-0.35, 0.35) * w, h + 0.1)
                    for _ in range(9)
                ],
                gold,
            )
    elif kind == "suitcase":
        w, h, d = rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.75), rng.uniform(0.22, 0.34)
        shell = mat.leather(rng) if chance(rng, 0.6) else mat.plastic(rng)
        s.add(box(d, w, h, rng.uniform(0.02, 0.09), 3).move(z=h / 2), shell)
        s.add(box(0.03, w + 0.012, h + 0.012, 0.012).move(z=h / 2), trim)
        s.add(sweep(fillet([(0, -0.14, h), (0, -0.14, h + 0.11), (0, 0.14, h + 0.11), (0, 0.14, h)], 0.06, 4), 0.025, 8), mat.DARK)
        if chance(rng, 0.7):
            s.add(
                [box(d + 0.02, 0.07, h + 0.02, 0.01).move(0, y * w, h / 2) for y in (-0.28, 0.28)],
                ribbon if chance(rng, 0.4) else mat.leather(rng),
            )
        s.add(both(box(0.09, 0.1, 0.05, 0.01).move(0, 0.28 * w, h + 0.01)), trim)
        s.add([p for x in (-0.4 * d, 0.4 * d) for p in both(ellipsoid(0.04, 0.04, 0.04, 10).move(x, 0.42 * w, -0.01))], mat.DARK)
        if chance(rng, 0.4):
            s.add(
                [
                    cylinder(0.1, 0.02, n=18).turn("y", np.pi / 2).move(d / 2 + 0.005, rng.uniform(-0.15, 0.15) * w, h * q)
                    for q in (0.3, 0.65)
                ],
                mat.painted(rng),
            )
    else:
        w, h, d = rng.uniform(0.5, 0.7), rng.uniform(0.6, 0.9), rng.uniform(0.25, 0.4)
        s.add(box(d, w, h).taper(rng.uniform(1.0, 1.12)).move(z=h / 2), paper)
        s.add(box(0.96 * d, 0.96 * w, 0.02).move(z=h), mat.darker(paper, 0.5))
        for x in (-0.46 * d, 0.46 * d):
            s.add(sweep(spline([(x, -0.14, h - 0.02), (x, -0.1, h + 0.16), (x, 0.1, h + 0.16), (x, 0.14, h - 0.02)], 12), 0.014, 6), ribbon)
        s.add(both(ellipsoid(0.03, 0.11, 0.07, 12).move(d / 2 + 0.03, 0.1, 0.75 * h)), ribbon)
        s.add(
            [
                cylinder(0.06 + 0.0, 0.015, n=5).turn("y", 1.3).move(rng.uniform(-0.08, 0.08), y, h + 0.05)
                for y in np.linspace(-0.2, 0.2, 4)
            ],
            mat.WHITE,
        )
    return s


def lantern(rng: Rng) -> Sketch:
    """Paper lantern, storm lantern, street lamp head, jack of glass; hung or standing."""
    kind = pick(rng, ("paper", "paper", "storm", "box"))
    s = Sketch("paper lantern" if kind == "paper" else "lantern")
    frame, paper = pick(rng, (mat.metal, mat.wood, mat.painted))(rng), mat.printed(rng, None, 3.0) if chance(rng, 0.4) else mat.plastic(rng)
    glow = mat.plain(mat.rgb(pick(rng, ("ffe9a8", "ffd36b", "fff4d6"))), "yellow")
    if kind == "paper":
        a, b = 0.5, rng.uniform(0.3, 0.75)
        ribs, power = int(rng.integers(6, 14)), rng.uniform(1.8, 3.2)
        t = np.linspace(-0.92, 0.92, 4 * ribs + 1)
        r = a * (1 - np.abs(t) ** power) ** (1 / power) * (1 - 0.035 * (1 - np.abs(np.cos(np.pi * np.arange(len(t)) / 4))))
        s.add(revolve([(0, -0.92 * b), *zip(r, t * b, strict=True), (0, 0.92 * b)], 28), paper)
        q = float(r[0])
        s.add([cylinder(1.03 * q, 0.07, n=28).move(z=k * 0.94 * b) for k in (-1, 1)], frame)
        s.add(sweep(spline([(0, -0.6 * q, b), (0, -0.3 * q, b + 0.18), (0, 0.3 * q, b + 0.18), (0, 0.6 * q, b)], 12), 0.012, 6), frame)
        if chance(rng, 0.6):
            tassel, long = mat.plastic(rng), rng.uniform(0.2, 0.5)
            s.add(
                [
                    rod((0, 0, -0.95 * b), (0, 0, -b - 0.12), 0.012, sides=6),
                    ellipsoid(0.05, 0.05, 0.05, 12).move(z=-b - 0.14),
                    cylinder(0.07, long, 0.045, n=12).move(z=-b - 0.16 - long / 2),
                ],
                tassel,
            )
        if chance(rng, 0.3):
            s.add([rod((0, 0, b + 0.15), (0, 0, b + 0.4), 0.012, sides=6), rod((0, -0.4, b + 0.4), (0, 0.4, b + 0.4), 0.025)], frame)
        return s
    n = pick(rng, (4, 6, 8)) if kind == "box" else 8
    r, h = rng.uniform(0.25, 0.36), rng.uniform(0.45, 0.85)
    phase = np.pi / n
    s.add(revolve([(0, 0), (1.25 * r, 0), (1.25 * r, 0.05), (1.05 * r, 0.1), (0, 0.1)], n if kind == "box" else 28).turn("z", phase), frame)
    if kind == "storm":
        s.add(
            revolve(
                [(0, 0.1), (0.75 * r, 0.1), *spline([(0.75 * r, 0.14), (1.05 * r, 0.14 + 0.4 * h), (0.65 * r, 0.1 + h)], 10), (0, 0.1 + h)],
                24,
            ),
            mat.plain(mat.rgb("dbe8ea"), "white"),
        )
        s.add(
            both(
                sweep(fillet([(0, 0.7 * r, 0.1), (0, 1.35 * r, 0.25), (0, 1.35 * r, h - 0.05), (0, 0.7 * r, h + 0.15)], 0.1, 4), 0.022, 8)
            ),
            frame,
        )
    else:
        s.add(
            revolve([(0, 0.1), (0.93 * r, 0.1), (0.93 * r * rng.uniform(1, 1.15), 0.1 + h), (0, 0.1 + h)], n).turn("z", phase),
            mat.plain(mat.rgb("d8e4d8"), "white") if chance(rng, 0.5) else glow,
        )
        s.add(around(rod((r, 0, 0.08), (r * 1.06, 0, 0.12 + h), 0.022, sides=6), n, phase), frame)
        s.add(torus(r, 0.018, n, 6).turn("z", phase).move(z=0.1 + h / 2), frame)
    s.add([cylinder(0.07, 0.3 * h, n=14).move(z=0.1 + 0.15 * h), ellipsoid(0.035, 0.035, 0.09, 10).move(z=0.14 + 0.38 * h)], glow)
    top = h + 0.1
    s.add(
        revolve(
            [
                (0, top - 0.02),
                (1.25 * r, top - 0.02),
                (1.2 * r, top + 0.03),
                (0.45 * r, top + 0.6 * r),
                (0.3 * r, top + 0.62 * r),
                (0.3 * r, top + 0.75 * r),
                (0, top + 0.8 * r),
            ],
            n if kind == "box" else 28,
        ).turn("z", phase),
        frame,
    )
    s.add(
        torus(0.3 * r + 0.05, 0.02, 22, 8).turn("y", np.pi / 2).move(z=top + 0.8 * r + 0.12)
        if chance(rng, 0.6)
        else sweep(
            spline([(0, -1.1 * r, top), (0, -0.9 * r, top + 1.3 * r), (0, 0.9 * r, top + 1.3 * r), (0, 1.1 * r, top)], 16), 0.018, 8
        ),
        frame,
    )
    return s


def balloon(rng: Rng) -> Sketch:
    """Hot-air balloon with its basket, airship, a bunch of toy balloons on strings."""
    kind = pick(rng, ("hot air", "hot air", "toy", "airship"))
    s = Sketch({"hot air": "hot air balloon", "toy": "balloon"}.get(kind, kind))
    skin, second, wicker = mat.finish(rng), mat.plastic(rng), mat.textured(patterns.weave(rng, mat.choose(rng, mat.WOODS)), "wicker", 7.0)
    if kind == "hot air":
        r, gores = 0.5, int(rng.integers(6, 13))
        tall = rng.uniform(0.9, 1.2)
        profile = spline([(0.1, -0.62 * tall), (0.36, -0.3 * tall), (r, 0.12 * tall), (0.36, 0.42 * tall), (0.02, 0.5 * tall)], 20)
        part = revolve(np.concatenate([[[0, profile[0, 1]]], profile, [[0, 0.5 * tall]]]), 4 * gores)
        puff = part.warp(
            lambda v: v * np.column_stack([k := 0.96 + 0.04 * np.abs(np.sin(gores / 2 * np.arctan2(v[:, 1], v[:, 0]))), k, np.ones(len(v))])
        )
        kind = pick(rng, ("gores", "bands", "plain"))
        test = sectors(gores) if kind == "gores" else (lambda p: np.abs(p.centres[:, 2] - 0.1) < 0.12)
        s.add(puff, skin, *([(test, second)] if kind != "plain" else []))
        z, q = -0.62 * tall - rng.uniform(0.16, 0.3), rng.uniform(0.09, 0.13)
        s.add(revolve([(0, z - 0.16), (0.8 * q, z - 0.16), (q, z), (0, z)], 20, pick(rng, (2.0, 6.0))), wicker)
        s.add(torus(q, 0.016, 22, 6).move(z=z), mat.leather(rng))
        s.add(around(rod((0.9 * q, 0, z), (0.13, 0, -0.58 * tall), 0.006, sides=5), 8, 0.2), mat.DARK)
        s.add(torus(0.105, 0.012, 22, 6).move(z=-0.62 * tall), second)
        if chance(rng, 0.4):
            s.add(around(ellipsoid(0.035, 0.035, 0.05, 8).move(1.1 * q, 0, z - 0.1), 4), mat.painted(rng))
        if chance(rng, 0.3):
            s.add(both(ellipsoid(0.03, 0.03, 0.04, 10).move(0.3 * q, 0.3 * q, z + 0.05)), mat.skin(rng))
    elif kind == "toy":
        count = pick(rng, (1, 1, 3, 5))
        hand = np.array([0.0, 0, -1.0])
        for k in range(count):
            a, q = 2.4 * k, rng.uniform(0.22, 0.3)
            at = np.array([0.0, 0, 0.2]) if count == 1 else np.array([0.34 * np.cos(a), 0.34 * np.sin(a), 0.18 * (k % 3)])
            m = skin if k == 0 else mat.plastic(rng)
            shape = pick(rng, ("round", "round", "heart", "dog")) if count == 1 else "round"
            if shape == "heart":
                s.add(ellipsoid(0.01, 0.01, 0.01, 8).move(*at), m)
                s.add(extrude(heart(2.2 * q), 0.7 * q, bevel=0.3 * q, crease=1.4).facing().move(*at), m)
            else:
                s.add(revolve(spline([(0, -1.25), (0.35, -1.0), (0.97, 0.1), (0.7, 0.78), (0, 1.0)], 18) * q, 26).move(*at), m)
            low = at - [0, 0, 1.22 * q]
            s.add(cylinder(0.035, 0.05, 0.0, n=10).move(*low), m)
            s.add(sweep(spline([low, (low + hand) / 2 + [0.04 * rng.normal(), 0.05 * rng.normal(), 0], hand], 14), 0.006, 5), mat.WHITE)
        if chance(rng, 0.4):
            s.add(box(0.16, 0.16, 0.14, 0.02).move(*hand), mat.printed(rng))
    else:
        fat = rng.uniform(0.2, 0.28)
        s.add(
            revolve(spline([(0, -1.0), (0.4, -0.85), (0.95, -0.1), (0.8, 0.6), (0, 0.95)], 22) * [fat, 0.75], 28).turn("y", np.pi / 2),
            skin,
            *([(lambda p: np.abs(p.centres[:, 2]) < 0.06, second)] if chance(rng, 0.5) else []),
        )
        fin = extrude([(-0.14, 0), (0.14, 0), (0.02, 0.2), (-0.16, 0.2)], 0.025, bevel=0.008).upright().move(-0.55, 0, 0.08)
        s.add([fin.turn("x", k * np.pi / 2) for k in range(4)], second)
        s.add(box(0.34, 0.12, 0.1, 0.03).move(0.05, 0, -fat - 0.04), mat.painted(rng))
        s.add([p for x in (-0.05, 0.05, 0.15) for p in both(box(0.06, 0.01, 0.04).move(x, 0.06, -fat - 0.03))], mat.glass(rng))
        s.add(both(ellipsoid(0.07, 0.03, 0.03, 12).move(-0.15, 0.14, -fat)), mat.DARK)
    return s


def umbrella(rng: Rng) -> Sketch:
    """Open umbrella or parasol, upright or laid aslant, beach parasol in sand, garden parasol with a table, closed umbrella."""
    kind = pick(rng, ("open", "open", "beach", "garden", "closed"))
    s = Sketch("parasol" if kind in ("beach", "garden") else "umbrella")
    cloth, second, rodm = (
        mat.fabric(rng, 0.4) if chance(rng, 0.6) else mat.plastic(rng),
        mat.plastic(rng),
        pick(rng, (mat.metal, mat.wood))(rng),
    )
    n, r = int(rng.integers(6, 13)), 0.5
    high, long = rng.uniform(0.14, 0.34), rng.uniform(0.7, 1.0)
    if kind == "closed":
        section = circle(4 * n) * (0.85 + 0.15 * np.cos(np.pi / 2 * np.arange(4 * n)))[:, None]
        z = np.linspace(0, 0.7, 10)
        size = np.interp(z, [0, 0.06, 0.15, 0.7], [0.07, 0.085, 0.075, 0.012])
        s.add(sweep(np.stack([0 * z, 0 * z, z], 1), size, section), cloth)
        s.add(torus(0.075, 0.012, 20, 6).move(z=0.2), second)
        s.add(rod((0, 0, -0.2), (0, 0, 0.8), 0.012), rodm)
        s.add(sweep(spline([(0, 0, -0.15), (0, 0, -0.3), (0, 0.06, -0.38), (0, 0.13, -0.3)], 12), 0.025, 8, ends="round"), mat.wood(rng))
        return s
    t = np.linspace(0, 1, 8)
    dome = np.column_stack([r * t, -high * t ** rng.uniform(1.3, 2.2)])
    scallop = rng.uniform(0.0, 0.09)
    thick = 0.012
    profile = np.concatenate([[[0, -thick]], (dome - [0, thick])[1:], dome[::-1][:-1], [[0, 0.0]]])
    ribs = 4 * n
    shell = revolve(profile, ribs)

    def sag(v: Array) -> Array:
        a, out = np.arctan2(v[:, 1], v[:, 0]), np.hypot(v[:, 0], v[:, 1]) / r
        wave = np.abs(np.sin(n / 2 * a))
        k = 1 - scallop * wave * out
        return np.column_stack([v[:, 0] * k, v[:, 1] * k, v[:, 2] - 0.03 * wave * out * (1 - out) * 2])

    s.add(shell.warp(sag), cloth, *([(sectors(n), second)] if chance(rng, 0.5) else []))
    s.add(rod((0, 0, -long), (0, 0, 0.06), 0.014 if kind == "open" else 0.022), rodm)
    s.add(ellipsoid(0.03, 0.03, 0.04, 10).move(z=0.05), second)
    rib = sweep(np.column_stack([dome[:, 0], 0 * t, dome[:, 1] - 0.02]), 0.006, 5)
    s.add(around(rib, n), rodm)
    s.add(around(rod((0.0, 0, -0.35), (0.5 * r, 0, dome[4, 1] - 0.02), 0.005, sides=5), n), rodm)
    if kind == "open":
        s.add(
            sweep(
                spline([(0, 0, -long + 0.02), (0, 0, -long - 0.06), (0, 0.06, -long - 0.13), (0, 0.12, -long - 0.05)], 12),
                0.022,
                8,
                ends="round",
            ),
            mat.wood(rng),
        )
        tilt, turn = pick(rng, ((0, 0), (rng.uniform(0.3, 1.3), rng.uniform(0, 6.3))))
        out = Sketch(s.noun)
        out.merge(s, lambda p: p.turn("y", tilt).turn("z", turn))
        return out
    tilt = rng.uniform(0, 0.3)
    out = Sketch(s.noun)
    out.merge(s, lambda p: p.turn("y", tilt))
    if kind == "beach":
        out.add(ellipsoid(0.3, 0.3, 0.06, 20).move(-long * np.sin(tilt), 0, -long * np.cos(tilt)), mat.plain(mat.rgb("e8d2a0")))
    else:
        out = Sketch(s.noun)
        out.merge(s, lambda p: p)
        out.add([cylinder(0.28, 0.03, n=28).move(z=-0.55 * long), cylinder(0.16, 0.05, n=24).move(z=-long)], mat.painted(rng))
    return out


def blocks(rng: Rng) -> Sketch:
    """Toy building blocks in a pile, a stacking ring tower, a rattle, a top: what a small child plays with."""
    kind = pick(rng, ("tower", "rings", "top", "pull"))
    s = Sketch({"tower": "toy blocks", "rings": "stacking rings", "top": "spinning top", "pull": "pull toy"}[kind])
    tones = [mat.finish(rng) for _ in range(4)]
    if kind == "tower":
        z = 0.0
        for level in range(int(rng.integers(2, 5))):
            q, count = rng.uniform(0.22, 0.3), max(1, 3 - level) if chance(rng, 0.7) else 1
            for k in range(count):
                y, m = (k - (count - 1) / 2) * 1.12 * q + rng.normal(0, 0.02), pick(rng, tones)
                shape = pick(rng, ("cube", "cube", "can", "arch", "roof", "ball") if level else ("cube", "cube", "can", "arch"))
                if shape == "cube":
                    p: Part = box(q, q, q, 0.02)
                    s.add(
                        extrude(pick(rng, (star(5, 0.3 * q, 0.13 * q), heart(0.5 * q), circle(16) * 0.25 * q)), 0.02)
                        .facing()
                        .move(q / 2, y, z + q / 2),
                        pick(rng, tones),
                    )
                elif shape == "can":
                    p = cylinder(q / 2, q, n=24, radius=0.02)
                elif shape == "arch":
                    p = extrude(
                        np.concatenate(
                            [[(q / 2, -q / 2), (q / 2, q / 2), (-q / 2, q / 2), (-q / 2, -q / 2)], arc(0.27 * q, np.pi, 0, 12, 0, -q / 2)]
                        ),
                        q,
                        bevel=0.01,
                    ).facing()
                elif shape == "roof":
                    p = extrude([(-q / 2, -q / 2), (q / 2, -q / 2), (0, 0.35 * q)], q, bevel=0.01).facing()
                else:
                    p = ellipsoid(q / 2, q / 2, q / 2, 20)
                s.add(p.turn("z", rng.normal(0, 0.12)).move(0, y, z + q / 2), m)
            z += q
    elif kind == "rings":
        n = int(rng.integers(3, 7))
        s.add(cylinder(0.42, 0.08, n=32, radius=0.03).move(z=0.04), tones[0])
        z = 0.08
        for k in range(n):
            t, r = 0.1 - 0.008 * k, 0.34 - 0.22 * k / n
            s.add(
                torus(max(r - t, 0.6 * t), t, 30, 12).scale(1, 1, 0.9).move(rng.normal(0, 0.01), 0, z + 0.9 * t),
                mat.plain(mat.TOY[(k * 5 + len(tones)) % 11]) if chance(rng, 0.7) else pick(rng, tones),
            )
            z += 1.7 * t
        s.add([rod((0, 0, 0), (0, 0, z + 0.05), 0.05), ellipsoid(0.1, 0.1, 0.1, 16).move(z=z + 0.1)], tones[1])
    elif kind == "top":
        prof = spline([(0.02, 0), (0.1, 0.08), (0.48, 0.38), (0.42, 0.5), (0.1, 0.58), (0.05, 0.7)], 22)
        level = rng.uniform(0.2, 0.4)
        s.add(
            revolve(np.concatenate([[[0, 0]], prof, [[0, 0.7]]]), 32),
            tones[0],
            (lambda p: np.abs(p.centres[:, 2] - level) < 0.07, tones[1]),
        )
        s.add([rod((0, 0, 0.65), (0, 0, 1.0), 0.04), ellipsoid(0.08, 0.08, 0.06, 14).move(z=1.0)], tones[2])
        s.add(cylinder(0.012, 0.1, 0.03, n=10).move(z=0.0), mat.DARK)
        out, tilt = Sketch(s.noun), rng.uniform(0, 0.7)
        out.merge(s, lambda p: p.turn("y", tilt))
        return out
    else:
        s.add(box(0.7, 0.4, 0.08, 0.03).move(z=0.16), tones[0])
        s.add(
            [p for x in (-0.24, 0.24) for p in both(cylinder(0.12, 0.07, n=24, radius=0.02).turn("x", np.pi / 2).move(x, 0.22, 0.12))],
            tones[1],
        )
        body = loft(
            np.stack(
                [
                    np.column_stack([circle(20) * [a, b] + [x, 0], np.full(20, z)])
                    for a, b, x, z in (
                        (0.24, 0.16, 0, 0.2),
                        (0.3, 0.18, 0, 0.36),
                        (0.24, 0.14, -0.02, 0.5),
                        (0.12, 0.1, 0.12, 0.58),
                        (0.12, 0.1, 0.18, 0.7),
                    )
                ]
            ),
            None,
            (0.18, 0, 0.78),
        )
        s.add(body, tones[2])
        s.add(both(ellipsoid(0.025, 0.02, 0.025, 10).move(0.27, 0.07, 0.69)), mat.BLACK)
        s.add(rod((0.27, 0, 0.65), (0.4, 0, 0.63), 0.05, 0.03, ends="round"), tones[3])
        s.add(sweep(spline([(0.34, 0, 0.16), (0.6, 0.1, 0.03), (0.85, -0.05, 0.02), (1.05, 0.1, 0.03)], 16), 0.012, 6), mat.WHITE)
        s.add(ellipsoid(0.05, 0.05, 0.05, 12).move(1.05, 0.1, 0.04), tones[1])
    return s
