# SPDX-License-Identifier: Apache-2.0
"""Chairs and stools, and the joinery that other furniture shares: legs, columns, cushions. Lengths in metres, roughly; backs are at -x."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.materials import Material
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Part,
    around,
    beam,
    both,
    box,
    cylinder,
    ellipsoid,
    fillet,
    four,
    rectangle,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)


def legs(rng: Rng, sketch: Sketch, x: float, y: float, top: float, material: Material, styles: tuple[str, ...] = ()) -> str:
    """Four legs under the corners (±x, ±y), from height `top` to the floor; returns the style drawn."""
    style = pick(
        rng, styles or ("square", "round", "taper", "turned", "hairpin", "saber", "block"), None if styles else (4, 3, 4, 2, 1, 2, 1)
    )
    splay = pick(rng, (0.0, rng.uniform(0.02, 0.22))) * top
    t = rng.uniform(0.012, 0.03) + 0.012 * top
    foot, head = (x + splay, y + splay * rng.uniform(0.4, 1), 0.0), (x, y, top)
    if style == "square":
        leg = beam(head, foot, 2 * t, 2 * t, up=(1, 0, 0), radius=0.15)
    elif style == "block":
        leg = beam(head, foot, 3.2 * t, 3.2 * t, up=(1, 0, 0), radius=0.1, taper=0.9)
    elif style == "round":
        leg = rod(head, foot, t)
    elif style == "taper":
        leg = rod(head, foot, 1.25 * t, 0.6 * t)
    elif style == "turned":
        s = np.linspace(0, 1, 22)
        r = t * (0.9 + 0.35 * np.sin(s * rng.uniform(9, 22) + 1) * (s > 0.12) * (s < 0.9)) * (1.2 - 0.5 * s)
        leg = sweep(np.outer(1 - s, head) + np.outer(s, foot), r, 10)
    elif style == "saber":
        bow = np.array([splay + 0.05 * top, 0, 0])
        s = np.linspace(0, 1, 8)[:, None]
        leg = sweep(
            np.array(head) * (1 - s) + np.array(foot) * s + bow * (s**2.5), np.linspace(1.4, 0.8, 8) * t, rectangle(1, 1, 0.3), up=(1, 0, 0)
        )
    else:  # two wires from the top that meet at the floor
        w = 0.12 * top
        wire = fillet([(x, y - w, top), foot, (x - w, y, top)], 0.1 * top)
        leg = sweep(wire, max(0.45 * t, 0.008), 6)
    sketch.add(four(leg), material)
    if style in ("square", "round", "taper", "turned") and top > 0.3 and chance(rng, 0.4):
        _stretchers(rng, sketch, np.array(head), np.array(foot), t * 0.7, material)
    return style


def _stretchers(rng: Rng, sketch: Sketch, head: np.ndarray, foot: np.ndarray, t: float, material: Material) -> None:
    """Rails between the legs: a box, an H, or a cross."""
    kind, s = pick(rng, ("box", "H", "cross")), rng.uniform(0.45, 0.85)
    x, y, z = head * (1 - s) + foot * s
    if kind == "cross":
        sketch.add([rod((-x, -y, z), (x, y, z), t), rod((-x, y, z), (x, -y, z), t)], material)
        return
    sketch.add(both(rod((-x, y, z), (x, y, z), t)), material)
    if kind == "H":
        sketch.add(rod((0, -y, z), (0, y, z), t), material)
    else:
        sketch.add(both(rod((x, -y, z + 0.04), (x, y, z + 0.04), t), "x"), material)


def swivel(rng: Rng, sketch: Sketch, r: float, top: float, material: Material) -> None:
    """One column on a star with casters, or on a plate."""
    sketch.add(cylinder(0.06 * r + 0.012, top - 0.05, n=12).rest(0.04), material)
    if chance(rng, 0.5):
        plate = revolve([(0, 0), (r, 0), (r, 0.015), (0.5 * r, 0.03), (0.09, 0.06), (0.05, 0.12), (0, 0.14)], 24)
        sketch.add(plate, material)
        return
    count = int(rng.integers(4, 6))
    arm = beam((0.01, 0, 0.1), (r, 0, 0.065), 0.05, 0.04, radius=0.3, taper=0.6)
    sketch.add(around(arm, count), material)
    sketch.add(around(cylinder(0.03, 0.03, n=10, radius=0.008).turn("x", np.pi / 2).move(r, 0, 0.03), count), mat.DARK)


def cushion(x: float, y: float, z: float, power: float = 4.0, n: int = 20) -> Part:
    """A stuffed pad about the origin, full sizes; its two large faces bulge, and its cover's pattern lies flat on them."""
    sizes = np.array([x, y, z])
    thin = int(np.argmin(sizes))
    a, b, c = np.roll(sizes, 2 - thin) / 2
    part = ellipsoid(a, b, c, n, power + 2, 2.6)
    flat = part.vertices[part.faces][..., :2] / max(a, b)
    return replace(part, vertices=np.roll(part.vertices, thin - 2, axis=1), uv=flat)


def _seat(rng: Rng, sketch: Sketch, w: float, d: float, h: float, frame: Material, soft: Material) -> tuple[str, float]:
    """The seat with its top at about h; returns its shape and the height to build the back from."""
    kind, t = pick(rng, ("slab", "soft", "round", "scoop", "slats"), (3, 3, 2, 2, 1)), rng.uniform(0.025, 0.06)
    if kind == "slab":
        sketch.add(box(d, w, t, rng.uniform(0.1, 0.45) * t).move(z=h - t / 2), frame)
        if chance(rng, 0.4):
            sketch.add(cushion(0.9 * d, 0.9 * w, 1.4 * t).move(z=h + 0.4 * t), soft)
    elif kind == "soft":
        sketch.add(box(d, w, t, 0.2 * t).move(z=h - 1.2 * t), frame)
        sketch.add(cushion(1.02 * d, 1.02 * w, 2.2 * t, rng.uniform(3, 8)).move(z=h), soft)
    elif kind == "round":
        pad = cylinder(0.5, t, n=28, radius=0.4 * t).scale(d, w, 1).move(z=h - t / 2)
        sketch.add(pad, soft if chance(rng, 0.4) else frame)
    elif kind == "scoop":

        def dip(v: np.ndarray) -> np.ndarray:
            p = v.copy()
            p[:, 2] -= 0.35 * t * np.cos(np.pi * v[:, 0] / d) * np.cos(np.pi * v[:, 1] / w) + 0.02 * (v[:, 0] / d - 0.3)
            return p

        sketch.add(ellipsoid(d / 2, w / 2, t, 24, 5, 3).warp(dip).move(z=h - t / 2), frame)
    else:
        n = int(rng.integers(4, 8))
        for y in np.linspace(-0.5, 0.5, n) * w * 0.86:
            sketch.add(box(d, 0.1 * w, 0.6 * t, 0.1 * t).move(0, y, h - 0.3 * t), frame)
        sketch.add(both(beam((-0.3 * d, -0.48 * w, h - t), (-0.3 * d, 0.48 * w, h - t), t, t).move(x=0.05), "x"), frame)
    return kind, h


def _back(rng: Rng, sketch: Sketch, w: float, d: float, h: float, b: float, frame: Material, soft: Material) -> None:
    """A back of height b that leans away, on the -x side of the seat."""
    lean, t = rng.uniform(0.03, 0.3) * b, rng.uniform(0.02, 0.035)
    x, half = -d / 2 + t, w / 2 - t
    kind = pick(rng, ("panel", "spindles", "ladder", "pad", "hoop", "cross", "curved", "splat"), (2, 2, 3, 2, 2, 1, 3, 1))
    foot, head = np.array([x, half, h - 0.02]), np.array([x - lean, half * rng.uniform(0.8, 1.1), h + b])

    def at(s: float, share: float = 1.0) -> np.ndarray:
        p = foot * (1 - s) + head * s
        return p * np.array([1, share, 1])

    def cross_piece(s: float, height: float, bow: float, material: Material) -> None:
        q = at(s)
        y = np.linspace(-1, 1, 7)
        path = np.stack([q[0] - bow * (1 - y**2), y * q[1], np.full(7, q[2])], 1)
        sketch.add(sweep(path, np.array([[height / 2, 0.4 * t]] * 7), rectangle(1, 1, 0.25), up=(1, 0, 0)), material)

    bow = rng.uniform(0, 0.06)
    if kind == "curved":  # one bent sheet
        y = np.linspace(-1, 1, 11)
        turn = rng.uniform(0.05, 0.45) * d
        edge = pick(rng, (0.3, 0.6, 0.9))
        path = np.stack([x - lean / 2 - 0.05 * turn + turn * (y**2) * 0.6, y * w / 2, np.full(11, h + b * rng.uniform(0.5, 0.62))], 1)
        high = 0.48 * b * np.sqrt(np.maximum(1 - edge * np.abs(y) ** 4, 0.05))
        sheet = sweep(path, np.stack([high, np.full(11, 0.6 * t)], 1), rectangle(1, 1, 0.35), up=(1, 0, 0))
        sketch.add(sheet, soft if chance(rng, 0.4) else frame)
        sketch.add(both(rod(at(-0.05, 0.6), at(0.5, 0.6), 0.5 * t)), frame)
        return
    if kind == "hoop":
        m = at(1.0)
        wire = spline(
            [
                at(0),
                at(0.6, 1.05),
                (m[0], 0.6 * half, m[2]),
                (m[0] - 0.01, 0, m[2] + 0.03),
                (m[0], -0.6 * half, m[2]),
                at(0.6, -1.05),
                at(0, -1),
            ],
            26,
        )
        sketch.add(sweep(wire, 0.55 * t, 8), frame)
        n = int(rng.integers(3, 8))
        for s in np.linspace(-0.75, 0.75, n):
            sketch.add(rod(at(0, s * 0.8), at(1.02 - 0.22 * s**2, s * 0.75), 0.25 * t, sides=6), frame)
        return
    if kind == "panel":
        sketch.add(
            beam(at(0, 0) - [0, 0, 0.02], at(1, 0), w, t, up=(1, 0, 0), radius=0.1, taper=rng.uniform(0.8, 1.05)),
            soft if chance(rng, 0.3) else frame,
        )
        return
    sketch.add(both(beam(at(0), at(1.02), t, 1.2 * t, up=(1, 0, 0), radius=0.3)), frame)
    if kind == "spindles":
        cross_piece(0.95, rng.uniform(0.05, 0.16) * b + 0.03, bow, frame)
        flat, n = chance(rng, 0.5), int(rng.integers(3, 9))
        for s in np.linspace(-0.78, 0.78, n):
            lift = np.array([-bow * (1 - s * s), 0, 0])
            stick = beam(at(0.0, s), at(0.93, s) + lift, 0.7 * w / n if flat else 0.5 * t, 0.4 * t, up=(1, 0, 0), radius=0.3)
            sketch.add(stick, frame)
    elif kind == "ladder":
        n = int(rng.integers(2, 6))
        for s in np.linspace(0.3, 0.93, n):
            cross_piece(s, rng.uniform(0.35, 0.6) * b / n, bow, frame)
    elif kind == "pad":
        cross_piece(0.97, 0.06, 0, frame)
        pad = cushion(2.2 * t, 1.75 * half, 0.75 * b, rng.uniform(3, 7)).turn("y", -np.arctan2(lean, b))
        sketch.add(pad.move(*(at(0.55, 0) + np.array([0.4 * t, 0, 0]))), soft)
    elif kind == "cross":
        cross_piece(0.95, 0.07, bow, frame)
        sketch.add([beam(at(0.1, k * 0.95), at(0.9, -k * 0.95), 0.8 * t, 0.5 * t, up=(1, 0, 0)) for k in (-1, 1)], frame)
    else:
        cross_piece(0.95, 0.08, bow, frame)
        s = np.linspace(0.05, 0.92, 9)
        path = np.stack([at(k, 0) for k in s])
        wide = w * (0.16 + 0.07 * np.sin(s * rng.uniform(5, 11)))
        sketch.add(sweep(path, np.stack([wide, np.full(9, 0.3 * t)], 1), rectangle(1, 1, 0.2), up=(1, 0, 0)), frame)


def _arms(rng: Rng, sketch: Sketch, w: float, d: float, h: float, frame: Material) -> None:
    """Arm rests: a post in front, a rail to the back."""
    y, z, t = w / 2 + 0.01, h + rng.uniform(0.16, 0.26), rng.uniform(0.014, 0.024)
    if chance(rng, 0.5):
        sketch.add(both(beam((-d / 2, y, z), (0.32 * d, y, z), 2.6 * t, 1.3 * t, radius=0.4)), frame)
        sketch.add(both(rod((0.25 * d, y, h - 0.03), (0.28 * d, y, z), t)), frame)
    else:
        loop = fillet([(-d / 2, y, z), (0.38 * d, y, z), (0.32 * d, y, h - 0.02)], 0.12, 6)
        sketch.add(both(sweep(loop, t, 8)), frame)


def chair(rng: Rng) -> Sketch:
    """Kitchen chair, arm chair of wood, rocking chair, desk chair, cantilever."""
    s = Sketch("chair")
    w, d, h, b = rng.uniform(0.38, 0.55), rng.uniform(0.38, 0.52), rng.uniform(0.38, 0.5), rng.uniform(0.28, 0.65)
    frame = pick(rng, (mat.wood, mat.metal, mat.plastic), (6, 2, 2))(rng)
    soft, under = mat.fabric(rng), frame if chance(rng, 0.6) else pick(rng, (mat.wood, mat.metal))(rng)
    base = pick(rng, ("legs", "swivel", "cantilever", "rocker", "panels"), (7, 1.3, 1, 1, 0.7))
    _seat(rng, s, w, d, h, frame, soft)
    _back(rng, s, w, d, h, b, frame, soft)
    if base == "swivel":
        s.noun = "swivel chair"
        swivel(rng, s, rng.uniform(0.24, 0.32), h, under)
    elif base == "cantilever":
        x, y, t = d / 2 - 0.03, w / 2 - 0.02, rng.uniform(0.01, 0.016)
        wire = fillet(
            [(-x, y, h - 0.03), (x, y, h - 0.03), (x, y, t), (-x, y, t), (-x, -y, t), (x, -y, t), (x, -y, h - 0.03), (-x, -y, h - 0.03)],
            0.1,
            5,
        )
        s.add(sweep(wire, t, 8), under)
    elif base == "panels":
        s.add(both(box(0.9 * d, 0.03, h - 0.02, 0.005).move(0, w / 2 - 0.02, h / 2 - 0.01)), under)
    else:
        legs(rng, s, d / 2 - 0.035, w / 2 - 0.035, h - 0.02, under, ("round", "square", "turned") if base == "rocker" else ())
        if base == "rocker":
            s.noun = "rocking chair"
            x = np.linspace(-0.9, 0.75, 12) * d
            path = np.stack([x, np.full(12, w / 2 - 0.03), 0.35 * x**2 - 0.02], 1)
            s.add(both(sweep(path, np.array([[0.015, 0.022]] * 12), rectangle(1, 1, 0.3), up=(0, 0, 1))), under)
    if chance(rng, 0.22):
        _arms(rng, s, w, d, h, frame)
    return s


def stool(rng: Rng) -> Sketch:
    """Three or four legs, a column, or a block; low or for a bar."""
    s = Sketch("stool")
    h, r = rng.uniform(0.3, 0.8), rng.uniform(0.14, 0.22)
    frame, soft = pick(rng, (mat.wood, mat.metal, mat.plastic), (5, 2, 2))(rng), pick(rng, (mat.fabric, mat.leather))(rng)
    t = rng.uniform(0.025, 0.06)
    kind = pick(rng, ("round", "square", "saddle", "pad"))
    if kind == "round":
        s.add(cylinder(r, t, n=28, radius=0.35 * t).move(z=h), frame)
    elif kind == "pad":
        s.add(cylinder(0.95 * r, 0.5 * t, n=24).move(z=h - 0.4 * t), frame)
        s.add(ellipsoid(r, r, 0.8 * t, 24, 2, 3).move(z=h + 0.2 * t), soft)
    elif kind == "square":
        s.add(box(2 * r, rng.uniform(1.6, 2.6) * r, t, 0.3 * t).move(z=h), frame)
    else:
        seat = ellipsoid(r, 1.25 * r, 0.7 * t, 24, 4, 3)
        s.add(seat.warp(lambda v: v + np.stack([0 * v[:, 0], 0 * v[:, 0], 1.2 * (v[:, 1] ** 2) - 0.02], 1)).move(z=h), frame)
    under = frame if chance(rng, 0.5) else mat.metal(rng)
    base = pick(rng, ("three", "four", "column", "splayed", "drum"), (3, 4, 2, 1, 0.7))
    if base == "column":
        swivel(rng, s, 1.1 * r, h, under)
    elif base == "four":
        legs(rng, s, 0.72 * r, 0.72 * r, h - 0.01, under)
    elif base == "drum":
        s.add(revolve([(0, 0), (0.9 * r, 0), (0.8 * r, h / 2), (0.92 * r, h - 0.02), (0, h - 0.02)], 24), under)
    else:
        n = 3 if base == "three" else 5
        out, thick = rng.uniform(1.0, 1.45) * r, rng.uniform(0.012, 0.022)
        s.add(around(rod((0.6 * r, 0, h - 0.01), (out, 0, 0), 1.2 * thick, 0.8 * thick), n), under)
        if chance(rng, 0.6):
            k = rng.uniform(0.25, 0.5)
            s.add(torus(0.6 * r * k + out * (1 - k), 0.6 * thick, 28, 8).move(z=h * k), under)
    return s
