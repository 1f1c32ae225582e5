# SPDX-License-Identifier: Apache-2.0
"""Birds and fish, and the eyes of all creatures. They look to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.outlines import extrude, smooth
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    Part,
    both,
    circle,
    cylinder,
    ellipsoid,
    limb,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def eyes(rng: Rng, s: Sketch, at: Array, r: float, sideways: float, style: str | None = None) -> None:
    """Two eyes, mirrored: beads, or white ones with pupils that look along +x, turned `sideways` (0 ahead, 1 to the side)."""
    style = style or pick(rng, ("bead", "bead", "white", "button"))
    way = np.array([np.cos(sideways * np.pi / 2), np.sin(sideways * np.pi / 2), 0.1])
    if style == "white":
        s.add(both(ellipsoid(r, r, r, 12).move(*at)), mat.WHITE)
        s.add(both(ellipsoid(0.55 * r, 0.55 * r, 0.6 * r, 10).move(*(at + 0.62 * r * way))), mat.BLACK)
    elif style == "button":
        s.add(both(cylinder(r, 0.5 * r, n=12, radius=0.15 * r).aim(way).move(*at)), mat.BLACK)
    else:
        s.add(both(ellipsoid(0.8 * r, 0.8 * r, 0.9 * r, 12).move(*at)), mat.BLACK)


def bird(rng: Rng) -> Sketch:
    """Songbird, duck, owl, parrot, penguin, flamingo or stork, hen, eagle, with folded or spread wings."""
    kind = pick(rng, ("songbird", "duck", "owl", "parrot", "penguin", "wader", "hen", "flying"))
    s = Sketch({"songbird": "bird", "flying": "bird", "wader": "flamingo" if chance(rng, 0.5) else "stork"}.get(kind, kind))
    palette = {"penguin": [mat.rgb("22262e"), mat.rgb("2f3a4a")], "owl": mat.FURS, "hen": mat.FURS}.get(kind, mat.TOY + mat.FURS)
    coat = mat.plain(mat.rgb("f08ca0")) if s.noun == "flamingo" else mat.fur(rng, palette)
    second, third = mat.painted(rng, mat.TOY + mat.FURS) if kind != "penguin" else mat.WHITE, mat.painted(rng)
    beak = mat.painted(rng, [mat.rgb("f2a51c"), mat.rgb("e87a1c"), mat.rgb("3a3430"), mat.rgb("f4c92b")])
    r = rng.uniform(0.26, 0.36)
    pitch = {"owl": 1.3, "penguin": 1.45, "parrot": 0.95, "wader": 0.25, "flying": 0.05, "duck": 0.12}.get(kind, rng.uniform(0.3, 0.7))
    leg = {"wader": rng.uniform(0.7, 1.0), "duck": 0.06, "penguin": 0.04, "flying": 0.0, "hen": 0.25, "owl": 0.08}.get(
        kind, rng.uniform(0.15, 0.3)
    )
    stretch = {"penguin": 1.55, "owl": 1.2, "flying": 1.7}.get(kind, rng.uniform(1.3, 1.6))
    long = r * stretch
    z = leg + (long * abs(np.sin(pitch)) + r * np.cos(pitch)) * 0.93
    body = revolve(spline([(0, -1), (0.45, -0.85), (0.9, -0.3), (1, 0.15), (0.75, 0.7), (0.35, 0.95), (0, 1)], 18) * [r, long], 22)
    if kind in ("duck", "hen", "songbird"):
        tail_up = rng.uniform(0.1, 0.4)
        body = body.warp(lambda v: v + np.column_stack([-tail_up * r * np.clip(-v[:, 2] / long, 0, 1) ** 2, 0 * v[:, 0], 0 * v[:, 0]]))
    s.add(body.turn("y", np.pi / 2 - pitch).move(0, 0, z), coat)
    if kind in ("penguin", "owl") or chance(rng, 0.5):
        s.add(body.scale(0.84).move(0.24 * r).turn("y", np.pi / 2 - pitch).move(0, 0, z), second)
    head_r = r * {"owl": 0.85, "penguin": 0.7, "wader": 0.45, "hen": 0.5, "flying": 0.5}.get(kind, rng.uniform(0.55, 0.72))
    top = np.array([long * np.cos(pitch) * 0.85, 0, z + long * np.sin(pitch) * 0.85])
    rise = {"wader": 0.75, "duck": 0.32, "hen": 0.3, "flying": 0.05}.get(kind, 0.08) * rng.uniform(0.9, 1.2)
    head = top + np.array([0.08 if kind != "flying" else 0.12, 0, rise + 0.3 * head_r])
    if rise > 0.2:
        mid = (top + head) / 2 + np.array([0.12 if kind == "wader" else 0.02, 0, 0])
        s.add(
            limb(
                [top - [0.15, 0, 0.12], mid, head],
                [0.6 * r if kind != "wader" else 0.3 * r, 0.42 * r if kind != "wader" else 0.16 * r, 0.4 * head_r],
                12,
                12,
            ),
            coat,
        )
    one = Sketch("")
    one.add(ellipsoid(head_r, 0.92 * head_r, 0.95 * head_r, 18), third if kind in ("duck", "songbird") and chance(rng, 0.4) else coat)
    if kind == "owl":
        one.add(
            both(cylinder(0.42 * head_r, 0.12, n=18, radius=0.02).turn("y", np.pi / 2).move(0.78 * head_r, 0.4 * head_r, 0.15 * head_r)),
            mat.WHITE,
        )
        one.add(both(ellipsoid(0.1, 0.24 * head_r, 0.24 * head_r, 12).move(0.85 * head_r, 0.4 * head_r, 0.15 * head_r)), mat.BLACK)
        one.add(both(cylinder(0.2 * head_r, 0.5 * head_r, 0.02, n=8).turn("x", -0.4).move(0, 0.6 * head_r, 0.95 * head_r)), coat)
    else:
        eyes(rng, one, np.array([0.6 * head_r, 0.6 * head_r, 0.3 * head_r]), 0.15 * head_r, 0.7)
    bill = rng.uniform(0.5, 0.9) * head_r * (2.0 if kind == "wader" else 1.0)
    if kind == "duck":
        one.add(
            limb(
                [(0.7 * head_r, 0, -0.15 * head_r), (1.2 * head_r, 0, -0.2 * head_r), (1.6 * head_r, 0, -0.15 * head_r)],
                [0.3 * head_r, 0.3 * head_r, 0.3 * head_r],
                6,
            )
            .scale(1, 1, 0.5)
            .move(z=-0.05),
            beak,
        )
    elif kind in ("parrot", "flying", "owl") or s.noun == "flamingo":
        one.add(
            limb(
                [
                    (0.7 * head_r, 0, 0.05 * head_r),
                    (0.95 * head_r + 0.4 * bill, 0, -0.02 * head_r),
                    (0.95 * head_r + 0.45 * bill, 0, -0.5 * bill - 0.1 * head_r),
                ],
                [0.34 * head_r, 0.24 * head_r, 0.04],
                8,
            ),
            beak,
        )
    else:
        one.add(
            cylinder(0.26 * head_r, bill + 0.3 * head_r, 0.012, n=12).turn("y", np.pi / 2).move(0.8 * head_r + bill / 2, 0, -0.05 * head_r),
            beak,
        )
    if kind == "hen":
        comb = extrude(
            smooth([(-0.5, 0), (-0.45, 0.5), (-0.2, 0.3), (0.0, 0.6), (0.2, 0.3), (0.4, 0.5), (0.5, 0)], 28) * head_r, 0.06, bevel=0.01
        )
        one.add(
            [comb.upright().move(z=0.8 * head_r), ellipsoid(0.05, 0.04, 0.1, 10).move(0.95 * head_r, 0, -0.55 * head_r)],
            mat.plain(mat.rgb("d7263d")),
        )
    elif chance(rng, 0.2):
        one.add([ellipsoid(0.03, 0.02, 0.12, 8).turn("y", -0.3 - 0.4 * k).move(-0.1 * k - 0.05, 0, head_r * 1.05) for k in range(3)], third)
    turn = rng.normal(0, 0.3)
    s.merge(one, lambda p: p.turn("z", turn).move(*head))
    feather = coat if chance(rng, 0.5) else third if kind != "penguin" else coat
    if kind == "flying" or (kind in ("songbird", "parrot") and chance(rng, 0.25)):
        span, up = rng.uniform(0.7, 1.1), rng.uniform(-0.1, 0.7)
        t = np.linspace(0, 1, 10)
        path = np.stack([0.12 * np.sin(np.pi * t) - 0.25 * t**2, span * t, span * up * t * (1 - 0.35 * t)], 1)
        size = np.stack([0.2 * (1 - 0.8 * t**2.2) + 0.02, 0.03 * (1 - 0.6 * t)], 1)
        s.add(both(sweep(path, size, circle(10), ends="point", up=(0, 0, 1)).move(0.05, 0.6 * r, z + 0.3 * r)), feather)
    else:
        wing = ellipsoid(0.75 * long, 0.1 * r, 0.5 * r, 18, 2).turn("y", -pitch if kind in ("owl", "penguin", "parrot") else 0.12 - pitch)
        s.add(both(wing.turn("z", 0.1).move(-0.1 * r, 0.95 * r, z - (0.05 if kind == "penguin" else 0.0))), feather)
    back = np.array([-long * np.cos(pitch), 0, z - long * np.sin(pitch)])
    size = {"parrot": 0.65, "penguin": 0.12, "owl": 0.25, "duck": 0.2}.get(kind, rng.uniform(0.3, 0.5))
    slope = pitch + 0.1 if kind in ("parrot", "owl", "penguin") else -rng.uniform(0.1, 0.9) if kind == "hen" else rng.uniform(-0.2, 0.3)
    s.add(
        [
            ellipsoid(size / 2, 0.07 + 0.1 * size, 0.025, 12)
            .move(-size * 0.4)
            .turn("z", a)
            .turn("y", -slope)
            .move(*back)
            .move(0.1 * r, 0, 0.06)
            for a in ((0,), (-0.3, 0, 0.3))[int(kind in ("hen", "songbird", "flying"))]
        ],
        feather,
    )
    if leg > 0:
        y, t = 0.35 * r, 0.022 if kind != "hen" else 0.03
        lift = 0.3 * leg if kind == "wader" and chance(rng, 0.4) else 0.0
        for side in (1, -1):
            foot = np.array([0.02 + (0.1 if lift and side > 0 else 0), side * y, lift * (side > 0)])
            s.add(
                sweep(
                    [
                        (0, side * y, z - 0.5 * r),
                        (-0.03 + (0.25 if lift and side > 0 else 0), side * y, 0.55 * leg + 0.03 + lift * 0.5 * (side > 0)),
                        foot + np.array([0, 0, 0.02]),
                    ],
                    t,
                    8,
                ),
                beak,
            )
            s.add(
                [
                    limb(
                        [foot + np.array([0, 0, 0.02]), foot + np.array([0.13 * np.cos(a), 0.13 * np.sin(a), 0.015])], [0.022, 0.016], 3, 6
                    )
                    for a in (-0.5, 0, 0.5)
                ]
                if kind not in ("duck", "penguin")
                else [ellipsoid(0.13, 0.09, 0.025, 12).move(*foot).move(0.06, 0, 0.02)],
                beak,
            )
    if kind in ("parrot", "owl") and chance(rng, 0.4):
        s.add(rod((0, -0.5, -0.03), (0, 0.5, -0.03), 0.05), mat.bark(rng))
    return s


def fish(rng: Rng) -> Sketch:
    """Round or slender, with fins of many shapes: gold fish, angel fish, shark, whale, puffer, sea horse-like eel."""
    kind = pick(rng, ("fish", "angel", "shark", "whale", "puffer", "gold"), (3, 1.5, 1.5, 1.5, 1, 2))
    s = Sketch({"fish": "fish", "angel": "angel fish", "puffer": "puffer fish", "gold": "goldfish"}.get(kind, kind))
    palette = (
        [mat.rgb("7d8a99"), mat.rgb("5a6a80"), mat.rgb("3a4a5e")]
        if kind in ("shark", "whale")
        else [mat.rgb("f0701c"), mat.rgb("f5a623"), mat.rgb("e0442a")]
        if kind == "gold"
        else mat.TOY
    )
    base, other = mat.choose(rng, palette), mat.any_colour(rng)
    skin = (
        pick(
            rng,
            (
                mat.plain(base),
                mat.textured(patterns.shingles(rng, base), mat.word_for(base), 4.0),
                mat.textured(patterns.stripes(rng, base, other), "striped", 2.5),
                mat.textured(patterns.dots(rng, base, other), "dotted", 3.0),
            ),
            (3, 2, 2, 1),
        )
        if kind not in ("shark", "whale")
        else mat.plain(base)
    )
    fin, belly = (
        mat.plain(other) if chance(rng, 0.6) and kind not in ("shark", "whale") else mat.plain(base * 0.85),
        mat.WHITE if kind in ("shark", "whale") or chance(rng, 0.4) else mat.plain(np.clip(base * 1.3, 0, 1)),
    )
    high = {"angel": rng.uniform(0.42, 0.55), "shark": 0.2, "whale": rng.uniform(0.3, 0.36), "puffer": 0.44, "gold": 0.32}.get(
        kind, rng.uniform(0.2, 0.42)
    )
    wide = {"angel": 0.1, "whale": 0.32, "puffer": 0.42, "shark": 0.17, "gold": 0.22}.get(kind, rng.uniform(0.11, 0.2))
    t = np.linspace(0, 1, 20)
    shape = np.sin(np.pi * t ** rng.uniform(0.65, 1.0)) ** rng.uniform(0.55, 0.9)
    stalk = 0.14 if kind != "whale" else 0.1
    bend, sway = rng.normal(0, 0.15), rng.uniform(0, 0.1)
    path = np.stack([0.7 - 1.3 * t, bend * np.clip(t - 0.4, 0, 1) ** 2, (sway if kind == "whale" else 0.0) * np.clip(t - 0.5, 0, 1) * 3], 1)
    size = np.stack(
        [
            np.maximum(wide * shape, stalk * 0.35 * (t > 0.5)),
            np.maximum(high * shape, stalk * (0.55 if kind == "whale" else 0.9) * (t > 0.5)),
        ],
        1,
    )
    size = np.maximum(size, 0.02)
    section = circle(20) if kind != "whale" else circle(20, 2.3)
    s.add(
        sweep(path[::-1], size[::-1], section, ends="round", up=(0, 0, 1)),
        skin,
        *([(lambda p: p.outward[:, 2] < -0.35, belly)] if chance(rng, 0.6) or kind in ("shark", "whale") else []),
    )
    if kind == "puffer":
        for k in range(40):
            lat, lon = np.arcsin(2 * (k + 0.5) / 40 - 1), 2.4 * k
            n = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
            s.add(cylinder(0.03, 0.12, 0.004, n=6).move(z=0.05).aim(n).move(0.12 + 0.5 * n[0], wide * 0.93 * n[1], high * 0.93 * n[2]), fin)
    tail = path[-1]

    def blade(points: list[tuple[float, float]], thick: float = 0.035) -> Part:
        return extrude(smooth(points, 26), thick, bevel=0.3 * thick).upright()

    q = rng.uniform(0.28, 0.42) * (1.3 if kind == "gold" else 1.0)
    fork = rng.uniform(0.25, 0.85)
    fluke = blade(
        [
            (0.1, 0),
            (-0.5 * q, 0.6 * q),
            (-1.0 * q, 0.95 * q),
            (-0.95 * q, 0.45 * q),
            (-fork * 0.8 * q, 0),
            (-0.95 * q, -0.45 * q),
            (-1.0 * q, -(0.95 if kind != "shark" else 0.6) * q),
            (-0.5 * q, -0.6 * q),
        ]
    )
    s.add((fluke.turn("x", np.pi / 2) if kind == "whale" else fluke).turn("z", -bend).move(*tail), fin)
    d = rng.uniform(0.14, 0.3) * (1.6 if kind == "angel" else 1.0)
    if kind != "whale":
        back = (
            [(0.22, -0.08), (0.0, 0.6 * d), (-0.18, d), (-0.28, 0.7 * d), (-0.25, -0.08)]
            if kind == "shark"
            else [(0.3, -0.1), (0.15, 0.7 * d), (-0.15, d), (-0.4, 0.6 * d), (-0.3, -0.1)]
        )
        s.add(blade(back).move(0.05, 0, 0.93 * high), fin)
        if kind != "shark":
            s.add(blade([(x, -y) for x, y in back]).scale(0.7, 1, 0.8).move(-0.08, 0, -0.9 * high), fin)
    side = ellipsoid(0.2, 0.018, 0.1, 12) if kind not in ("shark", "whale") else ellipsoid(0.12, 0.3, 0.025, 14).turn("z", 0.6)
    s.add(
        both(
            side.move(-0.14).turn("y", -0.4).turn("z", -0.6).move(0.28, 0.9 * wide, -0.1 * high)
            if kind not in ("shark", "whale")
            else side.move(0.2, wide + 0.15, -0.45 * high)
        ),
        fin,
    )
    r = rng.uniform(0.05, 0.09) * (0.6 if kind in ("shark", "whale") else 1)
    x = 0.5 if kind not in ("whale", "puffer") else 0.42
    k = float(np.interp(0.7 - x, 1.3 * t, shape))
    eyes(rng, s, np.array([x, wide * k * 0.92, 0.25 * high * k]), r, 0.9, "bead" if kind in ("shark", "whale") else "white")
    if kind in ("gold", "puffer", "fish") and chance(rng, 0.6):
        s.add(torus(0.05, 0.025, 14, 8).turn("y", np.pi / 2).move(0.7, 0, 0), fin)
    if kind == "whale" and chance(rng, 0.5):
        s.add(
            both(
                limb(
                    [(0.25, 0, high * 0.9), (0.25, 0.02, high + 0.2), (0.25, 0.16, high + 0.32), (0.25, 0.25, high + 0.2)],
                    [0.03, 0.03, 0.04, 0.05],
                    10,
                    8,
                )
            ),
            mat.plain(mat.rgb("8fc9ea")),
        )
    return s
