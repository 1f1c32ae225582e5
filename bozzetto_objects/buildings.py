# SPDX-License-Identifier: Apache-2.0
"""Small architecture: house, tower (castle, lighthouse, windmill). Doors face +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.materials import Material
from bozzetto_objects.outlines import arc, extrude
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Part,
    around,
    beam,
    blob,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    loft,
    rectangle,
    revolve,
    rod,
    torus,
)


def wall(rng: Rng) -> Material:
    """Brick, plaster, boards, stone or paint."""
    k = rng.random()
    if k < 0.3:
        return mat.textured(patterns.bricks(rng, mat.choose(rng, [*mat.EARTH, *mat.STONES]), mat.rgb("d8d0c4")), "brick", rng.uniform(2, 4))
    if k < 0.45:
        return mat.boards(rng)
    return mat.stone(rng) if k < 0.6 else mat.painted(rng, [*mat.SOFT, mat.rgb("f4efe4"), mat.rgb("f0d8a8"), mat.rgb("e8b8a0")])


def roofing(rng: Rng) -> Material:
    """Tiles, slates, thatch, paint."""
    c = mat.choose(rng, [mat.rgb(x) for x in ("a8452e", "7a3428", "4a5058", "6b4a35", "3a5a4a", "c98f4a", "5a3a5e", "2a3a5a")])
    if chance(rng, 0.6):
        return mat.textured(pick(rng, (patterns.shingles, patterns.tiles))(rng, c, 0.6 * c), mat.word_for(c), rng.uniform(2, 4))
    return mat.plain(c)


def window(w: float, h: float, style: str, frame: Material, pane: Material) -> Sketch:
    """A window about the origin that faces +x."""
    s = Sketch("")
    if style == "round":
        s.add(torus(0.45 * w, 0.1 * w, 20, 6).turn("y", np.pi / 2), frame)
        s.add(cylinder(0.45 * w, 0.04, n=20).turn("y", np.pi / 2), pane)
        return s
    s.add(box(0.04, w, h), pane)
    s.add([box(0.06, w + 0.03, 0.03).move(z=k * h / 2) for k in (-1, 1)] + [box(0.06, 0.03, h).move(y=k * w / 2) for k in (-1, 1)], frame)
    s.add([box(0.05, 0.02, h), box(0.05, w, 0.02)], frame)
    if style == "sill":
        s.add(box(0.1, w + 0.1, 0.03).move(0.03, 0, -h / 2 - 0.02), frame)
    elif style == "shutters":
        s.add(both(box(0.03, 0.45 * w, h + 0.02).move(0.01, 0.75 * w, 0)), frame)
    return s


def _ridge(
    s: Sketch, length: float, width: float, z: float, rise: float, over: float, thick: float, roof: Material, gable: Material
) -> None:
    """A pitched roof whose ridge runs along y, with gables closed below it."""
    s.add(extrude([(-width / 2, 0), (width / 2, 0), (0, rise)], length).upright().move(z=z), gable)
    slope, run = np.arctan2(rise, width / 2), np.hypot(rise, width / 2) + over
    slab = box(run, length + 2 * over, thick, 0.1 * thick).move(run / 2, 0, 0.4 * thick)
    s.add(both(slab.turn("y", slope).move(0, 0, z + rise), "x"), roof)


def house(rng: Rng) -> Sketch:
    """Cottage, town house, barn, L-shaped house, block of flats, hut, doll's house; gabled, hipped, flat or round roofs."""
    kind = pick(rng, ("cottage", "town", "barn", "wing", "flats", "hut"), (4, 2, 1, 2, 1, 1))
    s = Sketch({"barn": "barn", "flats": "apartment house", "hut": "hut"}.get(kind, "house"))
    plaster, roof, trim = wall(rng), roofing(rng), mat.painted(rng) if chance(rng, 0.5) else mat.WHITE
    pane, door = mat.glass(rng), mat.wood(rng) if chance(rng, 0.5) else mat.plastic(rng)
    d, w = rng.uniform(0.6, 1.0), rng.uniform(0.7, 1.4)
    floors = {"cottage": 1, "barn": 1, "hut": 1, "town": int(rng.integers(2, 4)), "flats": int(rng.integers(3, 7))}.get(
        kind, int(rng.integers(1, 3))
    )
    storey = rng.uniform(0.42, 0.55)
    if kind in ("town", "flats"):
        w, d = rng.uniform(0.6, 1.0), rng.uniform(0.6, 0.9)
        storey *= 0.75
    h, x = floors * storey, d / 2
    if kind == "hut":
        r = rng.uniform(0.45, 0.6)
        s.add(revolve([(0, 0), (r, 0), (r, h), (0, h)], pick(rng, (8, 28))), plaster)
        s.add(
            revolve(
                [
                    (0, h - 0.05),
                    (1.3 * r, h - 0.1),
                    (1.28 * r, h),
                    (0.5 * r, h + 0.5 * r),
                    (0.05, h + rng.uniform(1.0, 1.5) * r),
                    (0, h + 1.5 * r),
                ],
                pick(rng, (8, 28)),
            ),
            roof,
        )
        s.add(box(0.1, 0.3, 0.7 * h, 0.02).move(r - 0.03, 0, 0.35 * h), door)
        s.add(ellipsoid(0.025, 0.025, 0.025, 8).move(r + 0.03, 0.1, 0.35 * h), trim)
        s.add(
            [
                p
                for a in (0.9, -0.9, 2.4, -2.4)
                for p in [q.move(r - 0.01).turn("z", a).move(z=0.55 * h) for q in window(0.16, 0.16, "plain", trim, pane).parts]
            ],
            pane,
        )
    else:
        s.add(box(d, w, h).move(z=h / 2), plaster)
        if chance(rng, 0.4):
            s.add(box(d + 0.04, w + 0.04, 0.08).move(z=0.04), mat.stone(rng))
        rise, over = rng.uniform(0.25, 0.7) * d, rng.uniform(0.04, 0.12)
        form = "flat" if kind == "flats" else pick(rng, ("ridge", "gable", "hip", "mansard"), (4, 3, 2, 1))
        if form == "ridge":
            _ridge(s, w, d, h, rise, over, rng.uniform(0.04, 0.08), roof, plaster)
        elif form == "gable":
            top = Sketch("")
            _ridge(top, d, w, h, rng.uniform(0.25, 0.6) * w, over, rng.uniform(0.04, 0.08), roof, plaster)
            s.merge(top, lambda p: p.turn("z", np.pi / 2))
            if w > 0.9:
                s.merge(window(0.16, 0.18, pick(rng, ("round", "plain")), trim, pane), lambda p: p.move(x + 0.01, 0, h + 0.14))
        elif form == "flat":
            s.add([box(d + 0.06, w + 0.06, 0.07).move(z=h + 0.02), box(0.2, 0.25, 0.15).move(-0.1, 0.15 * w, h + 0.1)], trim)
        else:
            k = 0.0 if form == "hip" else 0.6
            base, ridge = rectangle(d / 2 + over, w / 2 + over), rectangle(max(k * d / 2, 0.02), max(w / 2 - d / 2 * (1 - k), 0.02))
            s.add(
                loft(
                    np.stack(
                        [
                            np.column_stack([base, np.full(4, h)]),
                            np.column_stack([base, np.full(4, h + 0.04)]),
                            np.column_stack([ridge, np.full(4, h + rise)]),
                        ]
                    )
                ),
                roof,
            )
        if kind == "wing":
            side, wd, wl = pick(rng, (-1, 1)), rng.uniform(0.4, 0.6) * w, rng.uniform(0.35, 0.6)
            s.add(box(wl + 0.1, wd, storey).move(x + wl / 2 - 0.05, side * (w - wd) / 2, storey / 2), plaster)
            top = Sketch("")
            _ridge(top, wl + 0.1, wd, storey, 0.35 * wd, 0.5 * over, 0.05, roof, plaster)
            s.merge(top, lambda p: p.turn("z", np.pi / 2).move(x + wl / 2 - 0.05, side * (w - wd) / 2, 0))
        _openings(rng, s, kind, d, w, storey, floors, trim, pane, door)
        if form != "flat" and chance(rng, 0.75):
            y, back, tall = rng.uniform(-0.35, 0.35) * w, -rng.uniform(0.1, 0.3) * d, rng.uniform(0.1, 0.25)
            brick = mat.textured(patterns.bricks(rng, mat.choose(rng, mat.EARTH), mat.rgb("d8d0c4")), "brick", 4.0)
            s.add(box(0.13, 0.13, rise + tall).move(back, y, h + (rise + tall) / 2), brick)
            s.add(box(0.17, 0.17, 0.04).move(back, y, h + rise + tall), trim)
    if chance(rng, 0.5):
        s.add(box(d + rng.uniform(0.4, 0.8), max(w, 0.9) + 0.5, 0.05, 0.02).move(0.15, 0, -0.025), mat.leaf(rng))
        if chance(rng, 0.6):
            s.add(
                [blob(rng, rng.uniform(0.1, 0.16), 0.1, 14).move(x + 0.16, k * rng.uniform(0.3, 0.45) * w, 0.07) for k in (-1, 1)],
                mat.leaf(rng),
            )
        if chance(rng, 0.4):
            green, y = mat.leaf(rng), pick(rng, (-1, 1)) * (w / 2 + 0.18)
            s.add(rod((0, y, 0), (0, y, 0.35), 0.04), mat.bark(rng))
            s.add(blob(rng, 0.2, 0.1, 16).move(0, y, 0.48), green)
    return s


def _openings(
    rng: Rng, s: Sketch, kind: str, d: float, w: float, storey: float, floors: int, trim: Material, pane: Material, door: Material
) -> None:
    """Door and windows on all sides; a porch or balconies at times."""
    x = d / 2
    at, wide = pick(rng, (0.0, 0.0, -0.27 * w)), 0.2 if kind != "barn" else 0.42
    tall = 0.68 * storey
    if kind != "wing" or at == 0:
        s.add(box(0.04, wide, tall).move(x + 0.005, at, tall / 2), door)
        s.add(
            [
                box(0.06, wide + 0.06, 0.03).move(x + 0.005, at, tall + 0.015),
                *(box(0.06, 0.03, tall).move(x + 0.005, at + k * (wide / 2 + 0.015), tall / 2) for k in (-1, 1)),
            ],
            trim,
        )
        s.add(box(0.14, wide + 0.1, 0.05).move(x + 0.06, at, 0.025), mat.stone(rng))
        s.add(ellipsoid(0.016, 0.016, 0.016, 8).move(x + 0.035, at + 0.35 * wide, 0.48 * tall), mat.metal(rng))
        if kind == "barn":
            s.add(
                [beam((x + 0.03, at - k * 0.18, 0.04), (x + 0.03, at + k * 0.18, tall - 0.04), 0.03, 0.02, up=(1, 0, 0)) for k in (-1, 1)],
                trim,
            )
        elif chance(rng, 0.3):
            s.add(
                box(0.3, wide + 0.24, 0.04).turn("y", 0.25).move(x + 0.14, at, tall + 0.1), s.materials[1] if len(s.materials) > 1 else door
            )
            s.add(
                [
                    rod((x + 0.25, at + k * (wide / 2 + 0.08), 0), (x + 0.25, at + k * (wide / 2 + 0.08), tall + 0.06), 0.016)
                    for k in (-1, 1)
                ],
                trim,
            )
    style, size = pick(rng, ("plain", "sill", "shutters", "round")), rng.uniform(0.14, 0.2)
    one = window(size, size * rng.uniform(1.0, 1.35), style, trim, pane)
    cols, balcony = max(2, int(w / 0.36)), kind == "flats" and chance(rng, 0.5)
    for floor in range(floors):
        z = (floor + 0.56) * storey
        for k in range(cols):
            y = ((k + 0.5) / cols - 0.5) * 0.92 * w
            if floor > 0 or abs(y - at) > wide / 2 + 0.6 * size:
                s.merge(one, lambda p, y=y, z=z: p.move(x, y, z))
                if balcony and floor and k % 2:
                    s.add([box(0.14, 0.3, 0.02).move(x + 0.07, y, z - 0.14), box(0.015, 0.3, 0.1).move(x + 0.14, y, z - 0.08)], trim)
            if floors < 4 or k % 2 == 0:
                s.merge(one, lambda p, y=y, z=z: p.turn("z", np.pi).move(-x, y, z))
        for side in (-1, 1):
            s.merge(one, lambda p, side=side, z=z: p.turn("z", side * np.pi / 2).move(0, side * w / 2, z))


def _battlement(r: float, z: float, n: int, power: float = 2.0) -> list[Part]:
    """Merlons round a parapet."""
    return around(box(0.08, 0.9 * r / n * 3.4, 0.1).move(r - 0.02, 0, z + 0.05), n)


def tower(rng: Rng) -> Sketch:
    """Castle with corner towers, single keep, lighthouse, windmill, church, pagoda."""
    kind = pick(rng, ("castle", "keep", "lighthouse", "windmill", "church", "pagoda"), (2, 1, 2, 2, 1.5, 1))
    s = Sketch({"keep": "tower"}.get(kind, kind))
    stone, roof, trim, door, pane = wall(rng), roofing(rng), mat.painted(rng), mat.wood(rng), mat.glass(rng)
    if kind == "castle":
        w, h, r = rng.uniform(0.5, 0.7), rng.uniform(0.4, 0.6), rng.uniform(0.16, 0.24)
        s.add([p for k in (-1, 1) for p in (box(0.1, 2 * w, h).move(k * w, 0, h / 2), box(2 * w, 0.1, h).move(0, k * w, h / 2))], stone)
        n = 6
        s.add(
            [
                p
                for k in (-1, 1)
                for j in range(n)
                for p in (
                    box(0.1, w / n, 0.09).move(k * w, (j + 0.5 - n / 2) * 2 * w / n, h + 0.04),
                    box(w / n, 0.1, 0.09).move((j + 0.5 - n / 2) * 2 * w / n, k * w, h + 0.04),
                )
            ],
            stone,
        )
        tall, pointed = h * rng.uniform(1.3, 1.8), chance(rng, 0.6)
        for sx, sy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            top = tall * (rng.uniform(0.85, 1.2) if chance(rng, 0.4) else 1.0)
            s.add(revolve([(0, 0), (1.1 * r, 0), (r, 0.1), (r, top - 0.1), (1.15 * r, top), (0, top)], 18).move(sx * w, sy * w), stone)
            if pointed:
                s.add(cylinder(1.3 * r, rng.uniform(1.6, 2.4) * r, 0, n=18).rest(top).move(sx * w, sy * w), roof)
            else:
                s.add([p.move(sx * w, sy * w) for p in _battlement(1.12 * r, top, 7)], stone)
        if chance(rng, 0.7):
            top = tall * 1.25
            s.add(box(0.55 * w, 0.6 * w, top).move(-0.35 * w, 0, top / 2), stone)
            s.add(
                loft(
                    np.stack(
                        [
                            np.column_stack([rectangle(0.34 * w, 0.36 * w), np.full(4, top)]),
                            np.column_stack([rectangle(0.02, 0.1 * w), np.full(4, top + 0.45 * w)]),
                        ]
                    )
                ),
                roof,
            )
            s.add(
                [
                    rod((-0.35 * w, 0, top + 0.4 * w), (-0.35 * w, 0, top + 0.8 * w), 0.012, sides=6),
                    box(0.01, 0.2, 0.12).move(-0.35 * w, 0.1, top + 0.72 * w),
                ],
                trim,
            )
        gate = np.concatenate([[(-0.14, 0), (0.14, 0)], arc(0.14, 0, np.pi, 9, 0, 0.2)])
        s.add(extrude(gate, 0.06).facing().move(w + 0.04), door)
        if chance(rng, 0.5):
            s.add(box(0.35, 0.28, 0.03).move(w + 0.2, 0, 0.0), door)
        return s
    r, h = rng.uniform(0.26, 0.4), rng.uniform(0.9, 1.8)
    if kind in ("keep", "lighthouse", "windmill"):
        sides = pick(rng, (8, 24, 24))
        top = r * {"keep": rng.uniform(0.9, 1.0), "lighthouse": rng.uniform(0.5, 0.7), "windmill": rng.uniform(0.55, 0.75)}[kind]
        rings = np.linspace(0, 1, 9)
        width = int(rng.integers(1, 3))
        bands = (
            [(lambda p: (np.floor(p.centres[:, 2] / h * 8) // width) % 2 == 1, trim)] if kind == "lighthouse" and chance(rng, 0.8) else []
        )
        body = revolve([(0, 0), *((r + (top - r) * q, h * q) for q in rings), (0, h)], sides)
        s.add(body, mat.WHITE if bands and chance(rng, 0.6) else stone, *bands)
        n = int(rng.integers(2, 5))
        for k in range(n):
            q = (k + 0.8) / (n + 0.6)
            for a in (0.0, 2.1, 4.2)[: 1 if kind == "windmill" else 3]:
                s.merge(
                    window(0.11, 0.15, "plain", trim, pane),
                    lambda p, q=q, a=a + 0.7 * (k % 2): p.move(r + (top - r) * q - 0.01).turn("z", a).move(z=h * q),
                )
        s.add(box(0.08, 0.2, 0.34, 0.01).move(r - 0.02, 0, 0.17), door)
        if kind == "keep":
            s.add(revolve([(0, h - 0.08), (top, h - 0.08), (1.18 * top, h), (1.18 * top, h + 0.08), (0, h + 0.08)], sides), stone)
            if chance(rng, 0.5):
                s.add(_battlement(1.15 * top, h + 0.07, 9), stone)
            else:
                s.add(cylinder(1.35 * top, rng.uniform(1.2, 2.2) * r, 0, n=sides).rest(h + 0.08), roof)
        elif kind == "lighthouse":
            s.add(
                [
                    cylinder(1.35 * top, 0.05, n=24).move(z=h),
                    torus(1.3 * top, 0.012, 24, 6).move(z=h + 0.13),
                    *around(rod((1.3 * top, 0, h), (1.3 * top, 0, h + 0.13), 0.01, sides=5), 10),
                ],
                mat.DARK,
            )
            s.add(cylinder(0.72 * top, 0.24, n=12).move(z=h + 0.13), mat.plain(mat.rgb("ffe9a0")))
            s.add(around(rod((0.74 * top, 0, h), (0.74 * top, 0, h + 0.26), 0.014, sides=5), 6), mat.DARK)
            s.add(revolve([(0, h + 0.24), (top, h + 0.24), (0.8 * top, h + 0.3), (0.03, h + 0.5), (0, h + 0.52)], 20), roof)
            if chance(rng, 0.5):
                s.add(blob(rng, 1.0, 0.08, 20).scale(1.7 * r, 1.7 * r, 0.18), mat.stone(rng))
        else:
            s.add(
                ellipsoid(1.2 * top, 1.15 * top, 1.0 * top, 20).move(z=h)
                if chance(rng, 0.5)
                else cylinder(1.25 * top, 1.3 * r, 0, n=sides).rest(h),
                roof,
            )
            long, z, x = rng.uniform(0.6, 0.9), h + 0.25 * top, top * 1.2 + 0.12
            s.add(rod((0, 0, z), (x + 0.06, 0, z), 0.045), door)
            turn, cloth = rng.uniform(0, 1.5), mat.WHITE if chance(rng, 0.5) else trim
            for k in range(4):
                arm = [beam((0, 0, 0.04), (0, 0, long), 0.035, 0.035, up=(1, 0, 0))]
                rungs = [box(0.015, 0.22, 0.02).move(0, 0.1, q * long) for q in np.linspace(0.3, 1.0, 6)] + [
                    box(0.02, 0.02, 0.72 * long).move(0, 0.2, 0.64 * long)
                ]
                s.add([p.turn("x", turn + k * np.pi / 2).move(x, 0, z) for p in arm + rungs], door)
                s.add(box(0.01, 0.17, 0.66 * long).move(-0.005, 0.1, 0.66 * long).turn("x", turn + k * np.pi / 2).move(x, 0, z), cloth)
    elif kind == "church":
        d, w, h = rng.uniform(0.9, 1.3), rng.uniform(0.45, 0.6), rng.uniform(0.4, 0.55)
        s.add(box(d, w, h).move(-d / 2, 0, h / 2), stone)
        top = Sketch("")
        _ridge(top, d, w, h, 0.6 * w, 0.05, 0.05, roof, stone)
        s.merge(top, lambda p: p.turn("z", np.pi / 2).move(-d / 2))
        q, tall = rng.uniform(0.14, 0.2), rng.uniform(1.0, 1.5)
        s.add(box(2 * q, 2 * q, tall).move(0.0, 0, tall / 2), stone)
        s.add(
            revolve([(0, tall), (1.5 * q * 1.05, tall), (0, tall + rng.uniform(0.4, 1.0))], pick(rng, (4, 8)))
            .turn("z", np.pi / 4)
            .faceted(),
            roof,
        )
        s.add(
            [box(0.03, 0.03, 0.24).move(0, 0, s.bounds()[1, 2] + 0.1), box(0.03, 0.14, 0.03).move(0, 0, s.bounds()[1, 2] + 0.13)],
            mat.metal(rng),
        )
        arch = np.concatenate([[(-0.07, -0.12), (0.07, -0.12)], arc(0.07, 0, np.pi, 8, 0, 0.08)])
        s.add(extrude(arch * 1.3, 0.05).facing().move(q + 0.01, 0, 0.17), door)
        s.add(cylinder(0.6 * q, 0.04, n=20).turn("y", np.pi / 2).move(q, 0, 0.82 * tall), mat.WHITE)
        s.add([p.move(-d * t, 0, 0.55 * h) for t in (0.25, 0.5, 0.75) for p in both(extrude(arch, 0.04).upright().move(0, w / 2, 0))], pane)
    else:
        r, z = rng.uniform(0.45, 0.6), 0.08
        s.add(box(2.6 * r, 2.6 * r, 0.08).move(z=0.04), mat.stone(rng))
        for k in range(int(rng.integers(2, 6))):
            q, tall = r * 0.82**k, 0.32 * 0.92**k
            s.add(box(1.5 * q, 1.5 * q, tall).move(z=z + tall / 2), stone)
            s.add(
                [
                    p
                    for a in (0, 1, 2, 3)
                    for p in (box(0.03, 0.22 * q, 0.6 * tall).move(0.75 * q, 0, z + 0.42 * tall).turn("z", a * np.pi / 2),)
                ],
                door if k == 0 else pane,
            )
            z += tall
            t = np.linspace(0, 1, 7)
            eaves = np.column_stack([1.45 * q * (1 - t) ** 1.0 + 0.5 * q * t, z - 0.03 + 0.3 * q * t**1.6])
            rings = [np.column_stack([circle(8, 8.0, 0) * e[0] * 0.75, np.full(8, e[1])]) for e in [(1.45 * q, z - 0.06), *eaves]]
            rings[0][1::2, 2] += 0.06 * q
            rings[1][1::2, 2] += 0.06 * q
            s.add(loft(np.stack(rings)), roof)
            z += 0.18 * q
        s.add([rod((0, 0, z), (0, 0, z + 0.4), 0.03, 0.006), ellipsoid(0.05, 0.05, 0.05, 10).move(z=z + 0.16)], mat.metal(rng))
    return s
