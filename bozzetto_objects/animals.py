# SPDX-License-Identifier: Apache-2.0
"""Four-legged animals, from a table of proportions. They look to +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects import patterns
from bozzetto_objects.creatures import eyes
from bozzetto_objects.materials import Material
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    both,
    cylinder,
    ellipsoid,
    limb,
    rod,
    spline,
    sweep,
)

ANIMALS = {  # body length, height of legs, thickness of legs, neck length, neck pitch, head length, muzzle, ears, tail, extra
    "dog": (0.75, 0.42, 0.055, 0.22, 0.8, 0.2, 0.75, "flop", "up", ""),
    "cat": (0.65, 0.34, 0.045, 0.16, 0.7, 0.17, 0.3, "point", "long", ""),
    "horse": (0.9, 0.72, 0.05, 0.5, 0.9, 0.3, 0.9, "point", "hair", "mane"),
    "cow": (1.0, 0.5, 0.065, 0.22, 0.4, 0.27, 0.75, "side", "tuft", "horns"),
    "sheep": (0.75, 0.34, 0.045, 0.15, 0.7, 0.2, 0.6, "side", "stub", "wool"),
    "pig": (0.85, 0.26, 0.065, 0.1, 0.2, 0.23, 0.5, "flop", "curl", "snout"),
    "elephant": (0.95, 0.5, 0.11, 0.1, 0.5, 0.3, 0.2, "fan", "tuft", "trunk"),
    "giraffe": (0.75, 0.8, 0.05, 0.95, 1.15, 0.24, 0.75, "side", "tuft", "ossicones"),
    "deer": (0.75, 0.6, 0.04, 0.38, 1.0, 0.2, 0.7, "point", "stub", "antlers"),
    "bear": (0.85, 0.36, 0.1, 0.12, 0.4, 0.24, 0.5, "round", "stub", ""),
    "lion": (0.85, 0.45, 0.07, 0.15, 0.6, 0.23, 0.5, "round", "tuft", "ruff"),
    "rabbit": (0.5, 0.2, 0.05, 0.1, 0.8, 0.17, 0.4, "long", "stub", ""),
    "mouse": (0.5, 0.14, 0.03, 0.05, 0.3, 0.16, 0.8, "disc", "thin", ""),
    "fox": (0.7, 0.36, 0.04, 0.18, 0.6, 0.18, 0.9, "point", "bush", ""),
    "goat": (0.7, 0.45, 0.04, 0.3, 0.9, 0.2, 0.7, "side", "stub", "horns"),
    "hippo": (1.0, 0.24, 0.11, 0.08, 0.2, 0.33, 0.6, "round", "stub", "snout"),
}


def quadruped(rng: Rng) -> Sketch:
    """Dog, cat, horse, cow, sheep, pig, elephant, giraffe, deer, bear, lion, rabbit, mouse, fox, goat, hippo; also what lies between."""
    name = pick(rng, tuple(ANIMALS))
    s = Sketch(name)
    long, legs, thick, neck, pitch, head, muzzle, ears, tail, extra = ANIMALS[name]
    long, legs, thick, neck, head = (x * rng.uniform(0.85, 1.2) for x in (long, legs, thick, neck, head))
    coat = mat.fur(
        rng,
        [mat.rgb("f0ece4"), mat.rgb("4a4440"), mat.rgb("e3c08f")]
        if extra == "wool"
        else [mat.rgb("e8a0a0"), mat.rgb("d98e8e"), mat.rgb("c0a090")]
        if name == "pig"
        else mat.FURS,
    )
    if name in ("elephant", "hippo", "mouse") and chance(rng, 0.7):
        coat = mat.painted(rng, [mat.rgb("8e949c"), mat.rgb("a6a3a8"), mat.rgb("75707a")])
    if name == "giraffe":
        coat = mat.textured(
            patterns.patches(rng, mat.rgb("e8c880"), mat.choose(rng, [mat.rgb("9a5a2a"), mat.rgb("7a4a22")])), "spotted", 3.0
        )
    if chance(rng, 0.15):
        coat = mat.finish(rng)  # a toy one
    second = mat.plain(coat.colour * rng.uniform(0.5, 1.3)) if chance(rng, 0.6) else mat.fur(rng)
    dark = mat.DARK if chance(rng, 0.6) else mat.darker(coat, 0.5)
    deep = (
        rng.uniform(0.17, 0.23)
        * (1.5 if name in ("elephant", "hippo", "bear", "pig", "sheep") else 1.25 if name == "cow" else 1.0)
        * long
        / 0.8
    )
    z = legs + 0.7 * deep
    chest, hip, sag = rng.uniform(0.95, 1.12), rng.uniform(0.85, 1.08), rng.uniform(-0.03, 0.03)
    body = limb(
        [(-long / 2, 0, z + 0.02), (-long / 4, 0, z), (0, 0, z + sag), (long / 4, 0, z + 0.01), (long / 2, 0, z + 0.03)],
        [0.72 * deep * hip, deep * hip, 0.93 * deep, deep * chest, 0.7 * deep * chest],
        16,
        18,
    )
    belly = [(lambda p: p.centres[:, 2] < z - 0.45 * deep, second)] if chance(rng, 0.35) else []
    s.add(body.scale(1, rng.uniform(0.8, 1.0), 1), coat, *belly)
    if extra == "wool":
        for k in range(26):
            a, x = 2.4 * k, (k / 25 - 0.5) * 1.15 * long
            r = 0.95 * deep * np.sqrt(max(1 - (x / (0.72 * long)) ** 2, 0.1))
            s.add(ellipsoid(0.13, 0.13, 0.13, 10).move(x, r * 0.85 * np.cos(a), z + r * np.sin(a)), coat)
    _walk(rng, s, name, long, legs, thick, z, deep, coat if extra != "wool" else second, dark)
    base = np.array([0.47 * long, 0, z + 0.35 * deep])
    way = np.array([np.cos(pitch), 0, np.sin(pitch)])
    poll = base + way * (neck + 0.35 * deep)
    s.add(
        limb(
            [base - way * 0.3 * deep, base + 0.5 * (poll - base), poll],
            [0.62 * deep, 0.42 * deep if neck > 0.2 else 0.52 * deep, 0.3 * deep if neck > 0.3 else 0.42 * deep],
            8,
            14,
        ),
        coat,
    )
    one = Sketch("")
    r = head * rng.uniform(0.55, 0.68) * (1.0 if muzzle > 0.6 else 1.15)
    drop = rng.uniform(0.15, 0.5) if muzzle > 0.5 else 0.12
    face = coat if extra != "wool" else second
    one.add(ellipsoid(1.1 * r, 0.85 * r, 0.95 * r, 18), face)
    tip = np.array([r * 0.6 + head * muzzle, 0, -drop * head * 0.8])
    snout = second if chance(rng, 0.3) else face
    wide = 0.75 if extra == "snout" else 0.55
    one.add(
        limb([(0.2 * r, 0, -0.12 * r), tip * 0.6, tip], [0.7 * r, (wide + 0.1) * r, wide * r * (0.6 if muzzle > 0.7 else 0.8)], 8, 14),
        snout,
    )
    nose = tip + np.array([wide * r * 0.6, 0, 0.1 * r])
    one.add(
        ellipsoid(0.14 * r, 0.2 * r, 0.15 * r, 10).move(*nose)
        if extra != "snout"
        else cylinder(0.5 * r, 0.12 * r, n=18, radius=0.03 * r).turn("y", np.pi / 2).move(*nose),
        dark if extra != "snout" else second,
    )
    eyes(rng, one, np.array([0.62 * r, 0.62 * r, 0.36 * r]), 0.16 * r, 0.6)
    _ears(rng, one, ears, r, face, second)
    _extras(rng, one, extra, r, tip, second, dark, face)
    turn, nod = rng.normal(0, 0.25), rng.normal(0.05, 0.12)
    s.merge(one, lambda p: p.turn("y", nod).turn("z", turn).move(*(poll + way * 0.2 * r)))
    if extra == "mane":
        s.add(
            [
                ellipsoid(0.06, 0.03, 0.09, 8).move(*(base + q * (poll - base) - [0.32 * deep * (1 - 0.3 * q), 0, -0.05]))
                for q in np.linspace(0.1, 1.15, 8)
            ],
            dark,
        )
    _tail(rng, s, tail, np.array([-0.5 * long - 0.5 * deep, 0, z + 0.3 * deep]), coat, dark)
    return s


def _walk(
    rng: Rng, s: Sketch, name: str, long: float, legs: float, thick: float, z: float, deep: float, coat: Material, hoof: Material
) -> None:
    """Four legs, standing or in step, or a body that sits."""
    stride = pick(rng, (0.0, rng.uniform(0.1, 0.45))) * legs
    bulk, y = rng.uniform(1.3, 1.9), 0.5 * deep
    for k, (side, fore) in enumerate(((1, 1), (-1, 1), (1, -1), (-1, -1))):
        step = stride * (1 if k in (0, 3) else -1)
        x = fore * 0.38 * long
        knee = np.array([x + 0.45 * step + (0.03 if fore > 0 else -0.05) * legs, side * y, 0.5 * legs])
        foot = np.array([x + step, side * y, thick * 0.5])
        s.add(
            limb(
                [(x, side * y * 0.85, z - 0.2 * deep), (x + 0.1 * step, side * y, 0.8 * legs), knee, foot],
                [bulk * 1.4 * thick, bulk * thick, thick, 0.95 * thick],
                10,
                10,
            ),
            coat,
        )
        paw = (
            ellipsoid(1.5 * thick, 1.15 * thick, 0.7 * thick, 12)
            if name not in ("horse", "cow", "deer", "goat", "giraffe", "sheep")
            else cylinder(1.25 * thick, 1.1 * thick, 0.95 * thick, n=12)
        )
        s.add(paw.rest(0).move(foot[0] + 0.3 * thick, foot[1]), hoof if chance(rng, 0.9) else coat)


def _ears(rng: Rng, s: Sketch, kind: str, r: float, coat: Material, inner: Material) -> None:
    """Ears on a head of radius r."""
    if kind == "point":
        ear = cylinder(0.3 * r, rng.uniform(0.7, 1.0) * r, 0.02, n=10).scale(0.5, 1, 1).turn("x", -0.35).move(-0.2 * r, 0.5 * r, 0.95 * r)
    elif kind == "flop":
        ear = limb(
            [(-0.1 * r, 0.6 * r, 0.75 * r), (0, 1.0 * r, 0.5 * r), (0.1 * r, 1.05 * r, -0.35 * r)], [0.15 * r, 0.3 * r, 0.26 * r], 8
        ).scale(1, 1, 1)
    elif kind == "round":
        ear = ellipsoid(0.14 * r, 0.34 * r, 0.34 * r, 14).move(-0.1 * r, 0.6 * r, 0.8 * r)
    elif kind == "disc":
        ear = cylinder(0.65 * r, 0.12 * r, n=20, radius=0.05 * r).turn("y", np.pi / 2).move(-0.3 * r, 0.75 * r, 0.85 * r)
    elif kind == "fan":
        ear = ellipsoid(0.1 * r, 1.0 * r, 1.1 * r, 18).turn("z", 0.4).move(-0.3 * r, 1.35 * r, 0.0)
    elif kind == "long":
        ear = limb(
            [(-0.2 * r, 0.3 * r, 0.7 * r), (-0.35 * r, 0.45 * r, 1.6 * r), (-0.5 * r, 0.6 * r, rng.uniform(2.0, 2.6) * r)],
            [0.2 * r, 0.28 * r, 0.12 * r],
            8,
        )
    else:
        ear = limb(
            [(-0.2 * r, 0.6 * r, 0.5 * r), (-0.2 * r, 1.1 * r, 0.55 * r), (-0.15 * r, 1.5 * r, 0.35 * r)], [0.12 * r, 0.22 * r, 0.08 * r], 8
        )
    s.add(both(ear), inner if kind in ("flop", "fan") and chance(rng, 0.4) else coat)
    if kind in ("round", "disc") and chance(rng, 0.4):
        s.add(both(ear.scale(1, 0.97, 1).move(0.1 * r)), inner)


def _extras(rng: Rng, s: Sketch, kind: str, r: float, tip: Array, second: Material, dark: Material, face: Material) -> None:
    """Horns, antlers, trunk and tusks, mane."""
    ivory = mat.plain(mat.rgb("efe6d0"))
    if kind == "horns":
        out = rng.uniform(0.2, 0.9) * r
        s.add(
            both(
                limb(
                    [(0, 0.45 * r, 0.75 * r), (-0.1 * r, 0.45 * r + out, 1.1 * r), (0.0, 0.5 * r + out, 1.6 * r)],
                    [0.16 * r, 0.12 * r, 0.03 * r],
                    8,
                    8,
                )
            ),
            ivory if chance(rng, 0.6) else dark,
        )
    elif kind == "antlers":
        path = spline(
            [(-0.1 * r, 0.3 * r, 0.8 * r), (-0.4 * r, 0.9 * r, 1.5 * r), (-0.2 * r, 1.3 * r, 2.3 * r), (0.1 * r, 1.3 * r, 3.0 * r)], 10
        )
        s.add(both(sweep(path, np.linspace(0.13, 0.05, 10) * r, 8, ends="round")), ivory if chance(rng, 0.5) else second)
        for k in (3, 5, 7):
            s.add(both(rod(path[k], path[k] + np.array([0.55, 0.1, 0.5]) * r, 0.09 * r, 0.03 * r, 8, ends="round")), s.materials[-1])
    elif kind == "trunk":
        curl = rng.uniform(-0.8, 1.2) * r
        s.add(
            limb(
                [
                    tip * 0.5,
                    tip + np.array([0.4 * r, 0, -0.4 * r]),
                    tip + np.array([0.6 * r, 0, -1.4 * r]),
                    tip + np.array([0.6 * r + 0.6 * curl, 0, -2.1 * r + 0.3 * abs(curl)]),
                ],
                [0.5 * r, 0.36 * r, 0.25 * r, 0.18 * r],
                14,
                12,
            ),
            face,
        )
        s.add(
            both(
                limb(
                    [(0.7 * r, 0.5 * r, -0.5 * r), (1.3 * r, 0.6 * r, -0.9 * r), (1.8 * r, 0.5 * r, -0.7 * r)],
                    [0.13 * r, 0.1 * r, 0.03 * r],
                    8,
                    8,
                )
            ),
            ivory,
        )
    elif kind == "ossicones":
        s.add(both(rod((0, 0.3 * r, 0.7 * r), (-0.1 * r, 0.4 * r, 1.4 * r), 0.09 * r, 0.12 * r, 8, ends="round")), dark)
    elif kind == "ruff":
        ruff = dark if chance(rng, 0.5) else second
        s.add(
            [ellipsoid(0.5 * r, 0.45 * r, 0.5 * r, 10).move(-0.35 * r, 0, 1.05 * r).turn("x", 2 * np.pi * k / 10) for k in range(10)], ruff
        )


def _tail(rng: Rng, s: Sketch, kind: str, at: Array, coat: Material, dark: Material) -> None:
    """A tail that starts at a point and goes back."""
    wag = rng.normal(0, 0.12)
    if kind == "stub":
        s.add(ellipsoid(0.07, 0.06, 0.07, 12).move(*at).move(0.03), coat)
    elif kind == "curl":
        a = np.linspace(0, 8, 22)
        s.add(
            sweep(np.stack([at[0] + 0.03 - 0.012 * a, 0.05 * np.sin(a), at[2] + 0.05 * (1 - np.cos(a))], 1), 0.018, 6, ends="round"), coat
        )
    else:
        way = {
            "up": [(-0.12, 0.1), (-0.2, 0.3), (-0.14, 0.45)],
            "long": [(-0.25, 0.05), (-0.4, 0.3), (-0.3, 0.55)],
            "hair": [(-0.12, -0.02), (-0.2, -0.25), (-0.2, -0.55)],
            "tuft": [(-0.08, -0.02), (-0.12, -0.25), (-0.1, -0.42)],
            "thin": [(-0.2, -0.05), (-0.45, -0.08), (-0.65, 0.05)],
            "bush": [(-0.15, -0.05), (-0.4, -0.1), (-0.62, 0.05)],
        }[kind]
        fat = {
            "up": [0.05, 0.04, 0.03, 0.02],
            "long": [0.04, 0.035, 0.03, 0.025],
            "hair": [0.03, 0.06, 0.07, 0.02],
            "bush": [0.04, 0.09, 0.11, 0.02],
        }.get(kind, [0.025, 0.018, 0.015, 0.012])
        points = [at + np.array([0.1, 0, -0.02]), *(at + np.array([x, wag * (k + 1), z]) for k, (x, z) in enumerate(way))]
        s.add(limb(points, [fat[0], *fat[1:]], 12, 10), dark if kind == "hair" else coat)
        if kind == "tuft":
            s.add(ellipsoid(0.05, 0.05, 0.09, 10).move(*points[-1]), dark)
