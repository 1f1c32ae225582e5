# SPDX-License-Identifier: Apache-2.0
"""What grows: tree, potted plant, cactus, flower."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.harvest import leaf_blade, ribbed
from bozzetto_objects.materials import Material
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    around,
    blob,
    circle,
    cylinder,
    ellipsoid,
    hollow,
    revolve,
    rod,
    spline,
    sweep,
    torus,
)
from bozzetto_objects.vessels import blossom, curve, inside


def tree(rng: Rng) -> Sketch:
    """Fir, round tree, poplar, blobby oak, palm, willow, bare, fruit tree; on a patch of grass or not."""
    kind = pick(rng, ("fir", "ball", "poplar", "blobs", "palm", "layers", "bare"), (3, 2, 1, 3, 2, 1, 1.5))
    s = Sketch({"fir": "fir tree", "palm": "palm tree", "bare": "bare tree"}.get(kind, "tree"))
    wood, green = mat.bark(rng), mat.leaf(rng)
    if chance(rng, 0.2) and kind in ("ball", "blobs"):
        green = mat.painted(rng, [mat.rgb(c) for c in ("d98e3f", "c2452d", "f0a8c0", "e8c23a")])
    h, t = rng.uniform(0.5, 1.3), rng.uniform(0.05, 0.14)
    bend = rng.normal(0, 0.06, 2)
    if kind == "fir":
        n, r, flat = int(rng.integers(1, 7)), rng.uniform(0.4, 0.75), chance(rng, 0.35)
        total, foot = rng.uniform(1.2, 2.2), rng.uniform(0.15, 0.45)
        s.add(rod((0, 0, 0), (0, 0, foot + 0.3 * total), 1.2 * t, 0.8 * t), wood)
        for k in range(n):
            z, q = foot + total * k / n, r * (1 - 0.82 * k / n)
            high = total / n * rng.uniform(1.25, 1.6) if n > 1 else total
            cone = revolve([(0, z + 0.1 * high), (q, z), (0.97 * q, z + 0.03), (0.4 * q, z + 0.5 * high), (0, z + high)], 8 if flat else 20)
            s.add(cone.faceted() if flat else cone, green)
        if chance(rng, 0.25):
            s.add(ellipsoid(0.09, 0.09, 0.09, 10).move(z=foot + total * 1.2), mat.plain(mat.rgb("f4c92b")))
            balls = [mat.plastic(rng) for _ in range(3)]
            for k in range(14):
                z = rng.uniform(0.05, 0.8)
                out = r * (1 - 0.82 * z) * 0.93
                s.add(ellipsoid(0.06, 0.06, 0.06, 8).move(out * np.cos(2.4 * k), out * np.sin(2.4 * k), foot + z * total), balls[k % 3])
    elif kind in ("ball", "poplar", "blobs", "layers"):
        trunk = spline([(0, 0, 0), (*bend, 0.5 * h), (*(1.5 * bend), h + 0.15)], 8)
        s.add(sweep(trunk, np.array([1.7, 1.25, 1.1, 1, 0.95, 0.9, 0.85, 0.8]) * t, 10), wood)
        top = np.array([*(1.5 * bend), h])
        if kind == "ball":
            r = rng.uniform(0.4, 0.65)
            crown = blob(rng, r, rng.uniform(0, 0.14), pick(rng, (10, 26))).scale(1, 1, rng.uniform(0.8, 1.3)).move(*top).move(z=0.6 * r)
            s.add(crown.faceted() if chance(rng, 0.3) else crown, green)
            if chance(rng, 0.35):
                food = mat.plain(mat.rgb(pick(rng, ("d7263d", "f39c1f", "f4d22e"))))
                v = crown.vertices[rng.integers(len(crown.vertices), size=14)]
                s.add([ellipsoid(0.06, 0.06, 0.06, 8).move(*p) for p in v if p[2] > h - 0.2], food)
        elif kind == "poplar":
            s.add(blob(rng, 0.3, 0.06, 22).scale(1, 1, rng.uniform(2.2, 3.2)).move(*top).move(z=0.5), green)
        elif kind == "layers":
            for k in range(int(rng.integers(2, 5))):
                q = rng.uniform(0.3, 0.6)
                at = top + np.array([*rng.normal(0, 0.18, 2), 0.3 * k])
                s.add(blob(rng, q, 0.1, 16).scale(1, 1, 0.35).move(*at), green)
        else:
            for k in range(int(rng.integers(4, 10))):
                a, q = 2.4 * k, rng.uniform(0.22, 0.42)
                at = top + np.array([0.4 * np.cos(a) * (k > 0), 0.4 * np.sin(a) * (k > 0), rng.uniform(0, 0.55)])
                s.add(blob(rng, q, 0.1, 14).move(*at), green)
                s.add(rod(top - [0, 0, 0.15], at, 0.5 * t, 0.25 * t, 6), wood)
    elif kind == "palm":
        out = rng.uniform(-0.4, 0.4)
        trunk = spline([(0, 0, 0), (0.1 * out, 0.3 * out, 0.6), (0.2 * out, out, 1.3 + h * 0.4)], 16)
        s.add(sweep(trunk, t * (1.1 - 0.4 * np.linspace(0, 1, 16) + 0.1 * (np.arange(16) % 2)), 10), wood)
        for k in range(int(rng.integers(6, 12))):
            blade = leaf_blade(rng.uniform(0.6, 0.95), 0.2, rng.uniform(0.5, 0.9), 9).turn("y", rng.uniform(-0.4, 0.1)).turn("z", 2.4 * k)
            s.add(blade.move(*trunk[-1]), green)
        for a in range(int(rng.integers(0, 4))):
            s.add(ellipsoid(0.08, 0.08, 0.09, 10).move(*trunk[-1]).move(0.11 * np.cos(2 * a), 0.11 * np.sin(2 * a), -0.08), wood)
    else:
        tips = _branch(rng, s, np.array([0.0, 0, 0]), np.array([0.02, 0.03, 1.0]), rng.uniform(0.5, 0.8), 1.2 * t, 3, wood)
        if chance(rng, 0.5):
            s.add([ellipsoid(0.09, 0.09, 0.05, 8).move(*p) for p in tips[:: int(rng.integers(1, 4))]], green)
    if chance(rng, 0.3):
        s.add(cylinder(rng.uniform(0.4, 0.7), 0.08, n=24, radius=0.03).move(z=-0.02), mat.leaf(rng))
    return s


def _branch(rng: Rng, s: Sketch, at: Array, way: Array, long: float, t: float, depth: int, wood: Material) -> list[Array]:
    """A branch, and those that grow from it; returns the tips."""
    end = at + long * way / np.linalg.norm(way)
    s.add(rod(at, end, t, 0.65 * t, 8), wood)
    if not depth:
        return [end]
    tips, way, a = [], way / np.linalg.norm(way), rng.uniform(0, 6.3)
    for _ in range(3 if depth > 1 else 2):
        a += 2.1 + rng.normal(0, 0.3)
        side = np.array([np.cos(a), np.sin(a), 0]) * rng.uniform(0.5, 0.9)
        tips += _branch(
            rng, s, at + (end - at) * rng.uniform(0.75, 1.0), 0.9 * way + side, long * rng.uniform(0.55, 0.75), 0.6 * t, depth - 1, wood
        )
    return tips


def pot(rng: Rng, s: Sketch, r: float, h: float) -> None:
    """A flower pot with earth in it; its rim at height h."""
    m = pick(rng, (mat.terracotta, mat.ceramic, mat.plastic, mat.stone), (4, 3, 2, 1))(rng)
    kind, low = pick(rng, ("cone", "round", "square", "straight")), rng.uniform(0.6, 0.85)
    power = 6.0 if kind == "square" else 2.0
    outer = (
        curve([(0.6 * r, 0), (1.1 * r, 0.4 * h), (0.95 * r, h)], 12)
        if kind == "round"
        else np.column_stack([np.linspace(r * (1 if kind == "straight" else low), r, 6), np.linspace(0, h, 6)])
    )
    s.add(revolve(hollow(outer, 0.08 * r), 32, power), m, inside(mat.darker(m)))
    if kind == "cone":
        s.add(torus(1.02 * r, 0.09 * r, 32, 8).move(z=0.95 * h), m)
    s.add(
        revolve([(0, 0.8 * h), (0.9 * r, 0.8 * h), (0.88 * r, 0.88 * h), (0, 0.92 * h)], 24, power),
        mat.plain(mat.rgb(pick(rng, ("3a2a20", "4e3a2a", "2a2220")))),
    )
    if chance(rng, 0.25):
        s.add(cylinder(1.15 * r, 0.05, n=28, radius=0.015).move(z=-0.01), m)


def plant(rng: Rng) -> Sketch:
    """Something green in a pot: sword leaves, round leaves on stems, bush, flowers, succulent, small tree, hanging vines."""
    kind = pick(rng, ("swords", "round", "bush", "flowers", "rosette", "tree", "vines", "tulip"))
    s = Sketch("potted plant")
    r, h = rng.uniform(0.25, 0.4), rng.uniform(0.3, 0.65)
    pot(rng, s, r, h)
    green, z = mat.leaf(rng), 0.9 * h
    if kind == "swords":
        for k in range(int(rng.integers(5, 12))):
            long, out = rng.uniform(0.6, 1.3), rng.uniform(0.1, 0.5)
            s.add(
                leaf_blade(long, rng.uniform(0.1, 0.18), rng.uniform(0, 0.3))
                .turn("y", -1.5 + out)
                .turn("z", 2.4 * k)
                .move(0.4 * out * np.cos(2.4 * k), 0.4 * out * np.sin(2.4 * k), z),
                green,
            )
    elif kind in ("round", "flowers", "tulip"):
        petals, heart = mat.painted(rng, mat.FLOWERS), mat.painted(rng, mat.FLOWERS)
        for k in range(int(rng.integers(4, 11)) if kind != "tulip" else int(rng.integers(1, 6))):
            a, out, long = 2.4 * k, rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.9)
            tip = np.array([out * np.cos(a), out * np.sin(a), z + long])
            s.add(
                sweep(spline([(0.15 * tip[0], 0.15 * tip[1], z - 0.05), (0.5 * tip[0], 0.5 * tip[1], z + 0.6 * long), tip], 8), 0.018, 6),
                green,
            )
            if kind == "round":
                q = rng.uniform(0.14, 0.26)
                s.add(ellipsoid(q, 0.85 * q, 0.02, 14).turn("y", 0.5).turn("z", a).move(*tip), green)
            elif kind == "flowers":
                blossom(s, rng.uniform(0.13, 0.22), tip, (tip[0], tip[1], 0.5), petals, heart, int(rng.integers(5, 9)))
            else:
                cup = revolve([*curve([(0.02, 0), (0.13, 0.08), (0.14, 0.2), (0.08, 0.32)], 8).tolist(), [0, 0.24]], 12)
                s.add(ribbed(cup, 6, 0.15).move(*tip), petals)
        if kind != "round":
            s.add([leaf_blade(rng.uniform(0.3, 0.6), 0.14, 0.3).turn("y", -0.8).turn("z", 2.4 * k + 1).move(z=z) for k in range(5)], green)
    elif kind == "bush":
        for k in range(int(rng.integers(1, 8))):
            q = rng.uniform(0.22, 0.36)
            s.add(
                blob(rng, q, 0.14, 16).move(
                    0.25 * np.cos(2.4 * k) * (k > 0), 0.25 * np.sin(2.4 * k) * (k > 0), z + q * 0.55 + rng.uniform(0, 0.25) * (k > 0)
                ),
                green,
            )
    elif kind == "rosette":
        for level in range(4):
            blade = leaf_blade(0.5 - 0.08 * level, 0.2, -0.15, 6, 0.035).turn("y", -0.15 - 0.35 * level)
            s.add([b.move(z=z + 0.02 * level) for b in around(blade, 8 - level, 0.4 * level)], green)
    elif kind == "tree":
        wood, long, q = mat.bark(rng), rng.uniform(0.4, 0.9), rng.uniform(0.28, 0.4)
        s.add(sweep(spline([(0, 0, z - 0.05), (0.05, 0.04, z + 0.5 * long), (0, 0, z + long)], 8), 0.05, 8), wood)
        s.add(blob(rng, q, rng.uniform(0, 0.12), 22).move(z=z + long + 0.6 * q), green)
        if chance(rng, 0.4):
            s.add(blob(rng, 0.6 * q, 0.05, 16).move(z=z + long + 1.9 * q), green)
    else:
        for k in range(int(rng.integers(6, 11))):
            a, drop = 2.4 * k, rng.uniform(0.1, 1.0)
            c = np.array([np.cos(a), np.sin(a), 0])
            path = spline(
                [
                    c * 0.1 + [0, 0, z],
                    c * 0.7 * r + [0, 0, z + 0.2],
                    c * 1.25 * r + [0, 0, z],
                    c * 1.3 * r + [0, 0, z - 0.5 * drop],
                    c * 1.35 * r + [0, 0, z - drop],
                ],
                12,
            )
            s.add(sweep(path, 0.016, 5), green)
            s.add(
                [
                    ellipsoid(0.07, 0.055, 0.016, 8).turn("y", rng.uniform(-0.5, 1)).turn("z", a + rng.normal(0, 0.8)).move(*p)
                    for p in path[2::2]
                ],
                green,
            )
    return s


def cactus(rng: Rng) -> Sketch:
    """Ribbed column with arms, barrel, or prickly pear; in a pot or on sand; with flowers or spines at times."""
    s = Sketch("cactus")
    in_pot = chance(rng, 0.65)
    z = 0.0
    if in_pot:
        h = rng.uniform(0.3, 0.5)
        pot(rng, s, rng.uniform(0.3, 0.4), h)
        z = 0.85 * h
    else:
        s.add(ellipsoid(0.6, 0.6, 0.1, 20), mat.painted(rng, [mat.rgb("e3c892"), mat.rgb("cfae7a")]))
    green, bloom, spine = (
        mat.leaf(rng),
        mat.painted(rng, mat.FLOWERS),
        mat.painted(rng, [mat.rgb("f2ead8"), mat.rgb("d9c9a0"), mat.rgb("5a3a22")]),
    )
    kind, ribs = pick(rng, ("column", "barrel", "pear"), (3, 1.5, 1.5)), int(rng.integers(6, 11))
    section = circle(4 * ribs) * (0.88 + 0.12 * np.cos(np.pi / 2 * (np.arange(4 * ribs) % 4)))[:, None]
    tips = []
    if kind == "column":
        tall, t = rng.uniform(0.7, 1.5), rng.uniform(0.13, 0.22)
        s.add(sweep(np.linspace([0, 0, z - 0.05], [0, 0, z + tall], 8), t, section, ends="round"), green)
        tips.append(np.array([0, 0, z + tall + t]))
        for k in range(int(rng.integers(0, 4))):
            a, out, low, up = (
                rng.uniform(0, 6.3) if k > 1 else (np.pi / 2) * (-1) ** k,
                rng.uniform(0.28, 0.42),
                rng.uniform(0.2, 0.6) * tall,
                rng.uniform(0.2, 0.5) * tall,
            )
            arm = spline([(0, 0, z + low), (0.7 * out, 0, z + low), (out, 0, z + low + 0.14), (out, 0, z + low + 0.1 + up)], 12)
            s.add(sweep(arm, 0.62 * t, section, ends="round").turn("z", a), green)
            tips.append(np.array([out * np.cos(a), out * np.sin(a), z + low + 0.1 + up + 0.6 * t]))
    elif kind == "barrel":
        for k in range(int(rng.integers(1, 4))):
            q = rng.uniform(0.28, 0.4) * (1 if k == 0 else 0.6)
            at = np.array([0.38 * np.cos(2.4 * k) * (k > 0), 0.38 * np.sin(2.4 * k) * (k > 0), z + 0.75 * q])
            s.add(ribbed(ellipsoid(q, q, q * rng.uniform(0.8, 1.2), 48), 12, 0.14).move(*at), green)
            tips.append(at + np.array([0, 0, q]))
    else:

        def pad(at: Array, lean: float, q: float, depth: int) -> None:
            up = np.array([0, np.sin(lean), np.cos(lean)])
            s.add(ellipsoid(0.25 * q, 0.72 * q, q, 16).turn("x", -lean).move(*(at + up * 0.9 * q)), green)
            tip = at + up * 1.85 * q
            tips.append(tip)
            if depth:
                for side in (-1, 1)[: int(rng.integers(1, 3))]:
                    pad(
                        tip - up * 0.2 * q + [0, side * 0.3 * q, 0],
                        lean + side * rng.uniform(0.3, 0.8),
                        q * rng.uniform(0.65, 0.85),
                        depth - 1,
                    )

        pad(np.array([0.0, 0, z - 0.06]), rng.normal(0, 0.1), rng.uniform(0.28, 0.4), int(rng.integers(1, 3)))
    if chance(rng, 0.5):
        for tip in tips[:4]:
            blossom(s, rng.uniform(0.1, 0.17), tip, (0.2, 0, 1), bloom, spine, 6)
    return s


def flower(rng: Rng) -> Sketch:
    """One big blossom that looks to the front, on a stem with leaves: daisy, sunflower, tulip, rose-like whorl."""
    s = Sketch("flower")
    green, petals, heart = (
        mat.leaf(rng),
        mat.painted(rng, mat.FLOWERS),
        mat.painted(rng, [mat.rgb("f4c92b"), mat.rgb("5a3a22"), mat.rgb("e87a1c"), mat.rgb("3a2a20")]),
    )
    h, r = rng.uniform(0.8, 1.8), rng.uniform(0.3, 0.5)
    sway = rng.normal(0, 0.12, 2)
    path = spline([(0, 0, 0), (-abs(sway[0]), sway[1], 0.5 * h), (0, 0.5 * sway[1], h)], 12)
    s.add(sweep(path, rng.uniform(0.025, 0.05), 8), green)
    for k in range(int(rng.integers(1, 5))):
        at = path[int(rng.integers(2, 8))]
        s.add(
            leaf_blade(rng.uniform(0.35, 0.6), rng.uniform(0.14, 0.26), 0.4)
            .turn("y", -0.6)
            .turn("z", np.pi / 2 * (-1) ** k + rng.normal(0, 0.6))
            .move(*at),
            green,
        )
    tilt = rng.uniform(0.1, 1.0)
    way, kind = (np.cos(tilt), 0, np.sin(tilt)), pick(rng, ("daisy", "double", "tulip", "whorl"))
    if kind in ("daisy", "double"):
        n, wide, point = int(rng.integers(5, 18)), rng.uniform(0.7, 1.3), pick(rng, (2.0, 1.4))
        for layer in range(2 if kind == "double" else 1):
            q = r * (1 - 0.25 * layer)
            petal = ellipsoid(0.5 * q, wide * 1.7 * q / n, 0.05 * q, 12, point).move(0.75 * q).turn("y", rng.uniform(-0.5, 0.1))
            s.add([p.move(z=0.03 * layer).aim(way).move(*path[-1]) for p in around(petal, n, layer * np.pi / n)], petals)
        s.add(ellipsoid(0.4 * r, 0.4 * r, rng.uniform(0.12, 0.25) * r, 16).aim(way).move(*path[-1]), heart)
    elif kind == "tulip":
        cup = ellipsoid(0.24 * r, 0.5 * r, 0.9 * r, 14).move(0.42 * r, 0, 0.7 * r)
        s.add([p.move(*path[-1]) for p in around(cup, int(rng.integers(3, 7)))], petals)
        s.add(ellipsoid(0.45 * r, 0.45 * r, 0.5 * r, 14).move(*path[-1]).move(z=0.4 * r), petals)
    else:
        for layer in range(4):
            q = r * (1 - 0.2 * layer)
            petal = ellipsoid(0.42 * q, 0.42 * q, 0.06 * q, 12).move(0.5 * q).turn("y", -0.25 - 0.3 * layer)
            s.add([p.move(z=0.06 * layer * r).aim(way).move(*path[-1]) for p in around(petal, 6 - layer, 0.5 * layer)], petals)
        s.add(ellipsoid(0.16 * r, 0.16 * r, 0.2 * r, 10).move(z=0.25 * r).aim(way).move(*path[-1]), petals if chance(rng, 0.5) else heart)
    s.add(ellipsoid(0.14 * r, 0.14 * r, 0.12 * r, 10).aim(way).move(*(path[-1] - 0.06 * r * np.array(way))), green)
    if chance(rng, 0.3):
        pot_sketch = Sketch("")
        pot(rng, pot_sketch, 0.3, 0.4)
        s.merge(pot_sketch, lambda p: p.move(z=-0.36))
    return s
