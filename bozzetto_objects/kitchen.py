# SPDX-License-Identifier: Apache-2.0
"""More that holds things: jug, watering can, bucket, pan, basket. Spouts point to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    Part,
    both,
    circle,
    cylinder,
    ellipsoid,
    fillet,
    hollow,
    rectangle,
    revolve,
    spline,
    sweep,
    torus,
)
from bozzetto_objects.vessels import curve, ear, inside


def jug(rng: Rng) -> Sketch:
    """Pitcher with a lip, watering can with a rose, bucket with a bail. The spout is at +x."""
    kind = pick(rng, ("jug", "watering can", "bucket"), (3, 2, 1.5))
    s = Sketch(kind)
    h, wall = rng.uniform(0.8, 1.3), 0.035
    t = rng.uniform(0.03, 0.05)
    if kind == "jug":
        outer = curve(
            [(0.3, 0), (0.33, 0.04), (rng.uniform(0.34, 0.52), 0.4 * h), (rng.uniform(0.2, 0.3), 0.8 * h), (rng.uniform(0.25, 0.36), h)], 20
        )
        lip, m = rng.uniform(0.15, 0.3), mat.ceramic(rng)

        def pull(v: Array) -> Array:
            k = np.clip((v[:, 2] - 0.75 * h) / (0.25 * h), 0, 1) ** 2 * np.exp(-((np.arctan2(v[:, 1], v[:, 0]) / 0.5) ** 2))
            return v + np.column_stack([lip * k, 0 * k, 0.3 * lip * k])

        s.add(revolve(hollow(outer, wall), 36).warp(pull), m, *([inside(mat.WHITE)] if chance(rng, 0.4) else []))
        z0, z1 = rng.uniform(0.85, 0.93) * h, rng.uniform(0.2, 0.4) * h
        x0, x1 = np.interp([z0, z1], outer[:, 1], outer[:, 0]) - 0.02
        s.add(sweep(ear((x0, z0), (x1, z1), rng.uniform(0.22, 0.36), square=chance(rng, 0.2)), t, 10).turn("z", np.pi), mat.plain(m.colour))
        if chance(rng, 0.4):
            s.add(torus(float(np.interp(0.15 * h, outer[:, 1], outer[:, 0])), 0.02, 36, 6).move(z=0.15 * h), mat.painted(rng))
        return s
    m = pick(rng, (mat.metal, mat.plastic, mat.painted))(rng)
    trim = mat.painted(rng) if chance(rng, 0.5) else m
    r0, r1 = (
        (rng.uniform(0.36, 0.5), rng.uniform(0.28, 0.42)) if kind == "watering can" else (rng.uniform(0.3, 0.36), rng.uniform(0.4, 0.5))
    )
    h = rng.uniform(0.6, 0.9)
    outer = np.column_stack([np.linspace(r0, r1, 6), np.linspace(0, h, 6)])
    s.add(revolve(hollow(outer, wall), 32), m, *([inside(mat.darker(m))]))
    s.add([torus(r1 - 0.01, 0.025, 36, 8).move(z=h), torus(r0, 0.02, 36, 6).move(z=0.03)], trim)
    if kind == "bucket":
        lean = rng.uniform(-0.9, 0.9)
        a = np.linspace(0, np.pi, 16)
        bail = np.column_stack([0 * a, (r1 + 0.02) * np.cos(a), rng.uniform(0.9, 1.1) * r1 * np.sin(a)])
        s.add(
            [sweep(bail, 0.016, 6).turn("y", lean).move(z=h - 0.05), *both(ellipsoid(0.05, 0.03, 0.06, 10).move(0, r1 + 0.01, h - 0.05))],
            trim,
        )
        if chance(rng, 0.4):
            s.add(revolve([(0, 0), (r1 - wall, 0), (0.6 * r1, 0.12), (0, 0.16)], 28).move(z=0.85 * h), mat.painted(rng))
        return s
    end = np.array([rng.uniform(0.75, 1.0), 0, rng.uniform(0.95, 1.25) * h])
    path = spline([(r0 - 0.05, 0, 0.15 * h), (0.6 * end[0] + 0.05, 0, 0.5 * h), end], 12)
    s.add(sweep(path, np.linspace(0.08, 0.045, 12), 12), trim)
    s.add(revolve([(0, -0.02), (0.05, -0.02), (0.13, 0.1), (0.12, 0.12), (0, 0.14)], 20).aim(path[-1] - path[-3]).move(*end), m)
    s.add(sweep(ear((r1 - 0.03, 0.9 * h), (r0 - 0.05, 0.25 * h), rng.uniform(0.25, 0.36)), t, 8).turn("z", np.pi), trim)
    if chance(rng, 0.6):
        s.add(sweep(spline([(-r1 + 0.02, 0, h), (-0.1, 0, h + rng.uniform(0.25, 0.4)), (r1 - 0.05, 0, h)], 12), t, 8), trim)
    if chance(rng, 0.6):
        s.add(cylinder(r1 - 0.02, 0.03, n=28).move(-0.1, 0, h - 0.01).scale(0.8, 1, 1), m)
    return s


def pan(rng: Rng) -> Sketch:
    """Frying pan, saucepan, stock pot, wok; with lid or food in it at times. The long handle points to ±y."""
    kind = pick(rng, ("frying pan", "saucepan", "pot"), (2, 2, 2))
    s = Sketch(kind)
    r, wall = 0.45, 0.03
    h = {"frying pan": rng.uniform(0.08, 0.16), "saucepan": rng.uniform(0.25, 0.5), "pot": rng.uniform(0.3, 0.7)}[kind]
    body, grip = (
        pick(rng, (mat.metal, mat.painted, mat.plastic), (4, 2, 1))(rng),
        pick(rng, (mat.DARK, mat.BLACK, mat.wood(rng), mat.metal(rng))),
    )
    outer = curve([((0.75 if kind == "frying pan" else 0.92) * r, 0), (0.97 * r, 0.12 * h), (r, 0.6 * h), (r * 1.02, h)], 8)
    s.add(revolve(hollow(outer, wall), 36), body, *([inside(mat.painted(rng, mat.METALS))] if chance(rng, 0.6) else []))
    s.add(torus(1.01 * r, 0.02, 40, 6).move(z=h), body)
    turn = np.pi / 2 * pick(rng, (-1, 1)) + rng.normal(0, 0.3)
    if kind == "pot":
        z, out = 0.8 * h, rng.uniform(0.1, 0.17)
        s.add(
            both(
                sweep(
                    fillet([(-0.13, r - 0.02, z), (-0.13, r + out, z + 0.02), (0.13, r + out, z + 0.02), (0.13, r - 0.02, z)], 0.07, 4),
                    rng.uniform(0.02, 0.035),
                    8,
                )
            ),
            grip,
        )
    else:
        path = spline(
            [(r - 0.02, 0, 0.75 * h), (r + 0.3, 0, 0.9 * h + 0.06), (r + rng.uniform(0.6, 0.85), 0, 0.9 * h + rng.uniform(0.05, 0.2))], 10
        )
        s.add(
            sweep(
                path,
                np.column_stack([np.linspace(0.05, 0.07, 10), np.linspace(0.025, 0.035, 10)]),
                circle(10, 3),
                ends="round",
                up=(0, 0, 1),
            ).turn("z", turn),
            grip,
        )
    lid = kind != "frying pan" and chance(rng, 0.6)
    if lid:
        top = mat.glass(rng) if chance(rng, 0.3) else body
        lift = rng.uniform(0.05, 0.15)
        s.add(revolve([(0, h), (1.03 * r, h), (1.03 * r, h + 0.025), (0.6 * r, h + 0.025 + 0.7 * lift), (0, h + 0.03 + lift)], 32), top)
        s.add(revolve([(0, 0), (0.04, 0), (0.035, 0.05), (0.08, 0.08), (0.07, 0.12), (0, 0.13)], 14).move(z=h + 0.03 + lift), grip)
    elif chance(rng, 0.6):
        if kind == "frying pan":
            for _ in range(int(rng.integers(1, 4))):
                x, y, q = *rng.uniform(-0.16, 0.16, 2), rng.uniform(0.1, 0.17)
                s.add(ellipsoid(q, q * rng.uniform(0.8, 1), 0.02, 14).move(x, y, 0.05), mat.WHITE)
                s.add(ellipsoid(0.4 * q, 0.4 * q, 0.04, 12).move(x, y, 0.06), mat.plain(mat.rgb("f5b81c")))
        else:
            s.add(cylinder(0.95 * r, 0.03, n=30).move(z=0.75 * h), mat.painted(rng))
    return s


def basket(rng: Rng) -> Sketch:
    """Wicker or wire, round or square, with an arched handle or two ears, empty or full of fruit or eggs."""
    s = Sketch("basket")
    h, r0, r1 = rng.uniform(0.25, 0.6), rng.uniform(0.28, 0.42), rng.uniform(0.42, 0.52)
    squash, power = rng.uniform(0.65, 1.0), pick(rng, (2.0, 5.0))
    straw = mat.textured(patterns.weave(rng, mat.choose(rng, mat.WOODS)), "wicker", rng.uniform(5, 9))
    rim = mat.plain(straw.colour * 0.8, "wicker") if chance(rng, 0.6) else mat.painted(rng)
    outer = np.column_stack([np.linspace(r0, r1, 6), np.linspace(0, h, 6)])
    ring = np.column_stack([circle(32, power) * (r1 - 0.01), np.full(32, h)])

    def oval(p: Part) -> Part:
        return p.scale(squash, 1, 1)

    s.add(oval(revolve(hollow(outer, 0.04), 32, power)), straw, inside(mat.darker(straw)))
    s.add(oval(sweep(ring, 0.03, 8, closed=True)), rim)
    if chance(rng, 0.7):
        a, high = np.linspace(0, np.pi, 20), rng.uniform(0.35, 0.7)
        arch = np.column_stack([0 * a, r1 * np.cos(a), h - 0.05 + high * np.sin(a)])
        s.add(sweep(arch, np.array([[0.05, 0.018]] * 20), rectangle(1, 1, 0.4), up=(0, 0.01, 1)), rim)
    else:
        s.add(
            both(
                sweep(
                    spline([(-0.14, r1, h - 0.02), (-0.1, r1 + 0.1, h + 0.1), (0.1, r1 + 0.1, h + 0.1), (0.14, r1, h - 0.02)], 12), 0.025, 8
                )
            ),
            rim,
        )
    if chance(rng, 0.65):
        stuff = [mat.painted(rng) for _ in range(int(rng.integers(1, 4)))]
        tall = pick(rng, (1.0, 1.0, 1.35))
        for _ in range(int(rng.integers(5, 13))):
            a, q, at = rng.uniform(0, 6.3), rng.uniform(0.09, 0.14), rng.uniform(0, 0.75) * r1
            ball = ellipsoid(q, q, q * tall, 12).move(squash * at * np.cos(a), at * np.sin(a), h + 0.12 * (1 - at / r1) - 0.03)
            s.add(ball, pick(rng, stuff))
    return s
