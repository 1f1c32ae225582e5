# SPDX-License-Identifier: Apache-2.0
"""Larger things to sit, lie and eat on: sofa, armchair, table, bed. Lengths in metres, roughly; backs and heads are at -x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.chairs import cushion, legs
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    around,
    beam,
    both,
    box,
    circle,
    cylinder,
    ellipsoid,
    fillet,
    four,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
)


def _pillows(rng: Rng, s: Sketch, w: float, x: float, z: float) -> None:
    """A few loose pillows against the back."""
    for _ in range(int(rng.integers(0, 4))):
        a = rng.uniform(0.3, 0.45)
        p = cushion(0.13, a, a, 2.5).turn("y", -0.35).turn("z", rng.uniform(-0.4, 0.4))
        s.add(p.move(x, rng.uniform(-0.5, 0.5) * (w - a), z + a / 2), mat.fabric(rng, 0.6))


def _upholstered(rng: Rng, s: Sketch, w: float, d: float, seats: int) -> None:
    """Base, arms, back and cushions shared by sofa and armchair; w is the seat's width."""
    cover = mat.leather(rng) if chance(rng, 0.25) else mat.fabric(rng, 0.25)
    pads = cover if chance(rng, 0.65) else mat.fabric(rng)
    under = pick(rng, (mat.wood, mat.metal))(rng)
    foot, base, back = pick(rng, (0.03, rng.uniform(0.06, 0.2))), rng.uniform(0.15, 0.24), rng.uniform(0.35, 0.6)
    arm_w, arm_h, t = rng.uniform(0.08, 0.24), rng.uniform(0.1, 0.3), rng.uniform(0.14, 0.24)
    soft = rng.uniform(0.02, 0.08)
    lean = rng.uniform(0, 0.25)
    total = w + 2 * arm_w
    s.add(box(d, total - 0.02, base, min(soft, 0.4 * base)).rest(foot), cover)
    top = foot + base
    style = pick(rng, ("box", "roll", "slope", "shell", "none"), (4, 3, 2, 1.5, 0.8))
    if style == "box":
        s.add(both(box(d, arm_w, base + arm_h, soft).rest(foot).move(y=(w + arm_w) / 2)), cover)
    elif style == "roll":
        s.add(both(box(0.97 * d, 0.8 * arm_w, base + arm_h, 0.02).rest(foot).move(y=(w + arm_w) / 2)), cover)
        s.add(both(cylinder(0.6 * arm_w, d, n=18, radius=0.02).turn("y", np.pi / 2).move(0, (w + 1.25 * arm_w) / 2, top + arm_h)), cover)
    elif style == "slope":
        arm = box(d, arm_w, base + arm_h, soft).rest(foot).move(y=(w + arm_w) / 2)
        rise = rng.uniform(0.2, 0.7) * back
        s.add(both(arm.warp(lambda v: v + np.stack([0 * v[:, 0], 0 * v[:, 0], rise * (0.5 - v[:, 0] / d) * (v[:, 2] > top)], 1))), cover)
    if style == "shell":
        y = np.linspace(-1, 1, 25)
        u = total / 2 - 0.06
        path = np.stack([d / 2 - d * (1 - np.abs(y) ** 3), u * np.sin(y * np.pi / 2), np.full(25, foot + (base + back) / 2)], 1)
        high = (base + back) / 2 * (1 - rng.uniform(0, 0.5) * np.abs(y) ** 3)
        path[:, 2] = foot + high
        s.add(sweep(path, np.stack([np.full(25, 0.07), high], 1), rectangle(1, 1, 0.7, 3), up=(0, 0, 1)), cover)
    else:
        slab = box(t, w + (2 * arm_w if style == "none" or chance(rng, 0.5) else 0), base + back, soft).rest(0)
        s.add(slab.turn("y", -lean).move(-d / 2 + t / 2, 0, foot), cover)
    pad, front = rng.uniform(0.12, 0.2), d - t
    each = w / seats
    for k in range(seats):
        y = (k + 0.5) * each - w / 2
        s.add(cushion(front, 0.985 * each, pad, rng.uniform(5, 6)).move(d / 2 - front / 2 + 0.01, y, top + 0.42 * pad), pads)
        if style != "shell" and chance(rng, 0.7 if k == 0 else 0.95):
            rest = cushion(0.2, 0.97 * each, 0.85 * back, 4.5).turn("y", -0.12 - lean)
            s.add(rest.move(-d / 2 + t + 0.06 - lean * 0.3, y, top + 0.5 * pad + 0.4 * back), pads)
    if foot > 0.05:
        legs(rng, s, d / 2 - 0.06, total / 2 - 0.06, foot + 0.02, under, ("taper", "square", "round", "block"))
    if seats > 1:
        _pillows(rng, s, w, -d / 2 + t + 0.16, top + 0.8 * pad)


def sofa(rng: Rng) -> Sketch:
    """Two to four seats; one in five has a chaise on one side."""
    s = Sketch("sofa")
    seats, d = int(rng.integers(2, 5)), rng.uniform(0.75, 1.0)
    w = seats * rng.uniform(0.5, 0.65)
    _upholstered(rng, s, w, d, seats)
    if chance(rng, 0.2):
        s.noun = "corner sofa"
        side, long = pick(rng, (-1, 1)), rng.uniform(0.5, 0.8)
        cover = s.materials[0]
        s.add(box(long, w / seats, 0.3, 0.05).rest(0.06).move(d / 2 + long / 2 - 0.05, side * (w / 2 - w / seats / 2), 0), cover)
        s.add(cushion(long, 0.97 * w / seats, 0.17, 5).move(d / 2 + long / 2 - 0.05, side * (w / 2 - w / seats / 2), 0.4), cover)
    return s


def armchair(rng: Rng) -> Sketch:
    """One upholstered seat, sometimes with wings or a foot stool."""
    s = Sketch("armchair")
    w, d = rng.uniform(0.5, 0.65), rng.uniform(0.65, 0.85)
    _upholstered(rng, s, w, d, 1)
    cover = s.materials[0]
    if chance(rng, 0.25):
        s.noun = "wing chair"
        wing = ellipsoid(0.16, 0.045, 0.24, 16, 3, 3).move(-d / 2 + 0.24, w / 2 + 0.02, 0.85)
        s.add(both(wing), cover)
        s.add(box(0.15, w + 0.05, 0.4, 0.05).move(-d / 2 + 0.08, 0, 0.88), cover)
    if chance(rng, 0.15):
        s.add(box(0.4, 0.5, 0.3, 0.05).rest(0.02).move(d / 2 + 0.4), cover)
    return s


def table(rng: Rng) -> Sketch:
    """Dining, coffee, round, desk, trestle, pedestal."""
    s = Sketch("table")
    h = pick(rng, (rng.uniform(0.3, 0.5), rng.uniform(0.65, 0.8), rng.uniform(0.9, 1.1)), (3, 6, 1))
    d, w = rng.uniform(0.5, 0.95), rng.uniform(0.6, 1.9)
    top_m = pick(rng, (mat.wood, mat.boards, mat.stone, mat.glass, mat.painted, mat.metal), (5, 2, 1, 0.6, 2, 0.5))(rng)
    under = top_m if chance(rng, 0.4) else pick(rng, (mat.wood, mat.metal, mat.painted))(rng)
    t = rng.uniform(0.018, 0.06)
    shape = pick(rng, ("box", "round", "oval", "soft"), (5, 3, 1, 1.5))
    if shape == "round":
        w = d = rng.uniform(0.5, 1.2)
    if shape in ("round", "oval"):
        s.add(cylinder(0.5, t, n=36, radius=0.3 * t).scale(d, w, 1).move(z=h - t / 2), top_m)
    elif shape == "soft":
        thin = revolve([(0, 0), (0.5, 0), (0.5, t), (0, t)], 36, power=5).scale(d, w, 1).move(z=h - t)
        s.add(box(d, w, t, 0.4 * t).move(z=h - t / 2) if t > 0.03 else thin, top_m)
    else:
        s.add(box(d, w, t, rng.uniform(0, 0.25) * t).move(z=h - t / 2), top_m)
    inner = 0.7 if shape in ("round", "oval") else 0.92
    base = pick(rng, ("legs", "pedestal", "panels", "trestle", "crossed", "frame"), (6, 1.5 if w < 1.3 else 0.3, 1, 1, 0.7, 1))
    x, y = inner * d / 2 - 0.03, inner * w / 2 - 0.03
    if base == "legs":
        legs(rng, s, x, y, h - t, under)
        if chance(rng, 0.6):
            a = rng.uniform(0.05, 0.13)
            s.add(both(box(2 * x, 0.02, a).move(0, y, h - t - a / 2)), under)
            s.add(both(box(0.02, 2 * y, a).move(x, 0, h - t - a / 2), "x"), under)
    elif base == "pedestal":
        r = rng.uniform(0.03, 0.09)
        z = np.linspace(0, h - t, 14)
        bulge = r * (1 + rng.uniform(0, 0.6) * np.sin(z / h * rng.uniform(6, 16)))
        foot = rng.uniform(0.5, 0.8) * min(d, w) / 2
        if chance(rng, 0.5):
            s.add(revolve([(0, 0), (foot, 0), (foot, 0.02), (r, 0.07), (0, 0.07)], 24), under)
        else:
            s.add(
                around(
                    sweep(spline([(0, 0, 0.22 * h), (0.5 * foot, 0, 0.12 * h), (foot, 0, 0.02)], 8), np.linspace(0.05, 0.025, 8), 8),
                    int(rng.integers(3, 5)),
                ),
                under,
            )
        s.add(revolve([(0, 0.01), *zip(bulge, np.maximum(z, 0.01 + z * 0.99), strict=True), (0, h - t)], 16), under)
        s.add(cylinder(0.4 * min(d, w) / 2, 0.02, n=16).move(z=h - t - 0.01), under)
    elif base == "panels":
        s.add(both(box(0.9 * d, rng.uniform(0.02, 0.07), h - t, 0.004).move(0, y, (h - t) / 2)), under)
        if chance(rng, 0.5):
            s.add(box(0.85 * d, 2 * y, 0.02).move(z=rng.uniform(0.15, 0.6) * h), under)
    elif base == "trestle":
        s.add([p for k in (-1, 1) for p in both(beam((k * 0.05, y, h - t), (k * x, y, 0), 0.05, 0.05, up=(1, 0, 0)))], under)
        s.add(both(beam((-0.6 * x, y, 0.3 * h), (0.6 * x, y, 0.3 * h), 0.04, 0.04)), under)
        s.add(beam((0, -y, h - t - 0.05), (0, y, h - t - 0.05), 0.05, 0.05), under)
    elif base == "crossed":
        s.add([p for k in (-1, 1) for p in both(beam((k * x, y, h - t), (-k * x, y, 0), 0.06, 0.04, up=(0, 1, 0)))], under)
        s.add(rod((0, -y, h / 2), (0, y, h / 2), 0.02), under)
    else:
        q = rng.uniform(0.012, 0.025)
        loop = fillet([(x, y, h - t - q), (x, y, q), (-x, y, q), (-x, y, h - t - q)], 0.02, 3, closed=True)
        s.add(both(sweep(loop, q, circle(8, 4, np.pi / 8), closed=True)), under)
    if chance(rng, 0.2) and shape == "box":
        s.noun, side = "desk", pick(rng, (-1, 1))
        body = box(0.85 * d, 0.3 * w, 0.7 * h).rest(0.28 * h - t).move(y=side * (y - 0.15 * w))
        s.add(body, under)
        for z in (0.45, 0.68, 0.88):
            s.add(box(0.02, 0.27 * w, 0.2 * h, 0.004).move(0.43 * d, side * (y - 0.15 * w), z * (h - t)), top_m)
            s.add(
                rod(
                    (0.46 * d, side * (y - 0.15 * w) - 0.04, z * (h - t)),
                    (0.46 * d, side * (y - 0.15 * w) + 0.04, z * (h - t)),
                    0.008,
                    sides=6,
                ),
                mat.DARK,
            )
    return s


def bed(rng: Rng) -> Sketch:
    """Single or double; frame, box spring, four-poster, bunk, cot. The head is at -x."""
    s = Sketch("bed")
    long, w = rng.uniform(1.8, 2.1), pick(rng, (rng.uniform(0.8, 1.0), rng.uniform(1.3, 1.8)))
    frame = pick(rng, (mat.wood, mat.metal, mat.painted, mat.fabric), (5, 1, 1, 2))(rng)
    sheet, cover = mat.painted(rng, mat.SOFT), mat.fabric(rng, 0.6)
    base, rail, pad = rng.uniform(0.12, 0.35), rng.uniform(0.12, 0.25), rng.uniform(0.14, 0.28)
    head, tail, t = rng.uniform(0.2, 0.8), pick(rng, (0.0, rng.uniform(0.05, 0.35))), rng.uniform(0.04, 0.09)

    def level(z: float) -> None:
        s.add(box(long, w, rail, 0.02).rest(z), frame)
        s.add(box(0.97 * long, 0.95 * w, pad, 0.35 * pad, 3).rest(z + rail - 0.03), sheet)
        top, share = z + rail + pad - 0.03, rng.uniform(0.5, 0.8)
        s.add(box(share * long, w + 0.03, 0.75 * pad, 0.05, 3).rest(top - 0.68 * pad).move(long / 2 - share * long / 2 - 0.01), cover)
        count = 1 if w < 1.1 else 2
        for k in range(count):
            y = (k - (count - 1) / 2) * 0.46 * w
            s.add(
                cushion(0.42, rng.uniform(0.6, 0.75) * w / count, 0.18, 3).turn("y", -0.15).move(-long / 2 + 0.3, y, top + 0.06),
                sheet if chance(rng, 0.7) else cover,
            )

    def board(x: float, z: float, high: float) -> None:
        kind = pick(rng, ("panel", "bars", "soft", "arch"))
        if high < 0.03:
            return
        if kind == "bars":
            s.add(both(rod((x, w / 2 - t / 2, 0), (x, w / 2 - t / 2, z + high), t / 2)), frame)
            s.add(rod((x, -w / 2, z + high - 0.03), (x, w / 2, z + high - 0.03), 0.4 * t), frame)
            s.add(
                [
                    rod((x, y, z - 0.02), (x, y, z + high - 0.03), 0.2 * t, sides=6)
                    for y in np.linspace(-0.42, 0.42, int(rng.integers(4, 10))) * w
                ],
                frame,
            )
        elif kind == "soft":
            s.add(box(1.6 * t, w + 0.04, z + high - 0.05, 0.4 * t, 3).rest(0.05).move(x), frame)
            n = int(rng.integers(2, 6))
            s.add(
                [
                    cushion(0.7 * t, 0.98 * w / n, high, 5).move(x + np.sign(-x) * 0.8 * t, (k + 0.5) * w / n - w / 2, z + high / 2)
                    for k in range(n)
                ],
                frame,
            )
        elif kind == "arch":
            y = np.linspace(-1, 1, 13)
            path = np.stack([np.full(13, x), y * w / 2, np.zeros(13)], 1)
            tall = (z + high * (0.6 + 0.4 * np.cos(y * np.pi / 2))) / 2
            path[:, 2] = tall
            s.add(sweep(path, np.stack([np.full(13, t / 2), tall], 1), rectangle(1, 1, 0.1), up=(0, 0, 1)), frame)
        else:
            s.add(box(t, w + 0.02, z + high, 0.3 * t).rest(0).move(x), frame)

    kind = pick(rng, ("plain", "poster", "bunk"), (6, 1, 1))
    level(base)
    x, top = long / 2, base + rail + pad - 0.05
    if kind == "bunk":
        s.noun, up = "bunk bed", rng.uniform(0.75, 0.95)
        level(base + up)
        high = base + up + rail + 0.35
        s.add(four(beam((x, w / 2 - 0.03, 0), (x, w / 2 - 0.03, high), 0.08, 0.08, up=(1, 0, 0))), frame)
        s.add(both(beam((x, -w / 2, high - 0.05), (x, w / 2, high - 0.05), 0.05, 0.08), "x"), frame)
        s.add(beam((-x, w / 2, high - 0.08), (0.35 * x, w / 2, high - 0.08), 0.04, 0.08), frame)
        a, b = 0.45 * x, 0.8 * x
        s.add([rod((q, w / 2 + 0.03, 0), (q, w / 2 + 0.03, high - 0.05), 0.02) for q in (a, b)], frame)
        s.add([rod((a, w / 2 + 0.03, z), (b, w / 2 + 0.03, z), 0.018) for z in np.arange(0.25, high - 0.1, 0.28)], frame)
        return s
    board(-x - t / 2, top, head)
    board(x + t / 2, top - 0.1, tail)
    if kind == "poster":
        s.noun, high = "four-poster bed", rng.uniform(1.7, 2.1)
        s.add(four(rod((x, w / 2, 0), (x, w / 2, high), 0.045, 0.03)), frame)
        s.add(both(beam((-x, w / 2, high), (x, w / 2, high), 0.06, 0.06)), frame)
        s.add(both(beam((x, -w / 2, high), (x, w / 2, high), 0.06, 0.06), "x"), frame)
        if chance(rng, 0.5):
            s.add(box(2 * x, w, 0.03).move(z=high + 0.03), cover)
    else:
        legs(rng, s, x - 0.07, w / 2 - 0.07, base + 0.02, frame, ("taper", "square", "round", "block"))
    return s
