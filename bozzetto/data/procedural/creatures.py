# SPDX-License-Identifier: Apache-2.0
"""Animals: four-legged ones, birds, fish, insects, shelled ones, dinosaurs. They look to +x."""

from __future__ import annotations

import numpy as np

from bozzetto.data.procedural import materials as mat
from bozzetto.data.procedural import patterns
from bozzetto.data.procedural.materials import Material
from bozzetto.data.procedural.outlines import extrude, smooth
from bozzetto.data.procedural.sketch import Sketch, chance, pick
from bozzetto.data.procedural.solids import Array, Part, around, both, box, circle, cylinder, ellipsoid, revolve, rod, spline, sweep, torus

Rng = np.random.Generator


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


def limb(points: list, radii: list[float], n: int = 10, sides: int = 10) -> Part:
    """A smooth round limb through points with these radii."""
    both_ = spline(np.column_stack([np.asarray(points, float), radii]), n)
    return sweep(both_[:, :3], np.maximum(both_[:, 3], 0.004), sides, ends="round")


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
    coat = mat.fur(rng, [mat.rgb("f0ece4"), mat.rgb("4a4440"), mat.rgb("e3c08f")] if extra == "wool" else
                   [mat.rgb("e8a0a0"), mat.rgb("d98e8e"), mat.rgb("c0a090")] if name == "pig" else mat.FURS)
    if name in ("elephant", "hippo", "mouse") and chance(rng, 0.7):
        coat = mat.painted(rng, [mat.rgb("8e949c"), mat.rgb("a6a3a8"), mat.rgb("75707a")])
    if name == "giraffe":
        coat = mat.textured(patterns.patches(rng, mat.rgb("e8c880"), mat.choose(rng, [mat.rgb("9a5a2a"), mat.rgb("7a4a22")])), "spotted", 3.0)
    if chance(rng, 0.15):
        coat = mat.finish(rng)  # a toy one
    second = mat.plain(coat.colour * rng.uniform(0.5, 1.3)) if chance(rng, 0.6) else mat.fur(rng)
    dark = mat.DARK if chance(rng, 0.6) else mat.darker(coat, 0.5)
    deep = rng.uniform(0.17, 0.23) * (1.5 if name in ("elephant", "hippo", "bear", "pig", "sheep") else 1.25 if name == "cow" else 1.0) * long / 0.8
    z = legs + 0.7 * deep
    chest, hip, sag = rng.uniform(0.95, 1.12), rng.uniform(0.85, 1.08), rng.uniform(-0.03, 0.03)
    body = limb([(-long / 2, 0, z + 0.02), (-long / 4, 0, z), (0, 0, z + sag), (long / 4, 0, z + 0.01), (long / 2, 0, z + 0.03)],
                [0.72 * deep * hip, deep * hip, 0.93 * deep, deep * chest, 0.7 * deep * chest], 16, 18)
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
    s.add(limb([base - way * 0.3 * deep, base + 0.5 * (poll - base), poll], [0.62 * deep, 0.42 * deep if neck > 0.2 else 0.52 * deep, 0.3 * deep if neck > 0.3 else 0.42 * deep], 8, 14), coat)
    one = Sketch("")
    r = head * rng.uniform(0.55, 0.68) * (1.0 if muzzle > 0.6 else 1.15)
    drop = rng.uniform(0.15, 0.5) if muzzle > 0.5 else 0.12
    face = coat if extra != "wool" else second
    one.add(ellipsoid(1.1 * r, 0.85 * r, 0.95 * r, 18), face)
    tip = np.array([r * 0.6 + head * muzzle, 0, -drop * head * 0.8])
    snout = second if chance(rng, 0.3) else face
    wide = 0.75 if extra == "snout" else 0.55
    one.add(limb([(0.2 * r, 0, -0.12 * r), tip * 0.6, tip], [0.7 * r, (wide + 0.1) * r, wide * r * (0.6 if muzzle > 0.7 else 0.8)], 8, 14), snout)
    nose = tip + np.array([wide * r * 0.6, 0, 0.1 * r])
    one.add(ellipsoid(0.14 * r, 0.2 * r, 0.15 * r, 10).move(*nose) if extra != "snout" else cylinder(0.5 * r, 0.12 * r, n=18, radius=0.03 * r).turn("y", np.pi / 2).move(*nose),
            dark if extra != "snout" else second)
    eyes(rng, one, np.array([0.62 * r, 0.62 * r, 0.36 * r]), 0.16 * r, 0.6)
    _ears(rng, one, ears, r, face, second)
    _extras(rng, one, extra, r, tip, second, dark, face)
    turn, nod = rng.normal(0, 0.25), rng.normal(0.05, 0.12)
    s.merge(one, lambda p: p.turn("y", nod).turn("z", turn).move(*(poll + way * 0.2 * r)))
    if extra == "mane":
        s.add([ellipsoid(0.06, 0.03, 0.09, 8).move(*(base + q * (poll - base) - [0.32 * deep * (1 - 0.3 * q), 0, -0.05])) for q in np.linspace(0.1, 1.15, 8)], dark)
    _tail(rng, s, tail, np.array([-0.5 * long - 0.5 * deep, 0, z + 0.3 * deep]), coat, dark)
    return s


def _walk(rng: Rng, s: Sketch, name: str, long: float, legs: float, thick: float, z: float, deep: float, coat: Material, hoof: Material) -> None:
    """Four legs, standing or in step, or a body that sits."""
    stride = pick(rng, (0.0, rng.uniform(0.1, 0.45))) * legs
    bulk, y = rng.uniform(1.3, 1.9), 0.5 * deep
    for k, (side, fore) in enumerate(((1, 1), (-1, 1), (1, -1), (-1, -1))):
        step = stride * (1 if k in (0, 3) else -1)
        x = fore * 0.38 * long
        knee = np.array([x + 0.45 * step + (0.03 if fore > 0 else -0.05) * legs, side * y, 0.5 * legs])
        foot = np.array([x + step, side * y, thick * 0.5])
        s.add(limb([(x, side * y * 0.85, z - 0.2 * deep), (x + 0.1 * step, side * y, 0.8 * legs), knee, foot], [bulk * 1.4 * thick, bulk * thick, thick, 0.95 * thick], 10, 10), coat)
        paw = ellipsoid(1.5 * thick, 1.15 * thick, 0.7 * thick, 12) if name not in ("horse", "cow", "deer", "goat", "giraffe", "sheep") else cylinder(1.25 * thick, 1.1 * thick, 0.95 * thick, n=12)
        s.add(paw.rest(0).move(foot[0] + 0.3 * thick, foot[1]), hoof if chance(rng, 0.9) else coat)


def _ears(rng: Rng, s: Sketch, kind: str, r: float, coat: Material, inner: Material) -> None:
    """Ears on a head of radius r."""
    if kind == "point":
        ear = cylinder(0.3 * r, rng.uniform(0.7, 1.0) * r, 0.02, n=10).scale(0.5, 1, 1).turn("x", -0.35).move(-0.2 * r, 0.5 * r, 0.95 * r)
    elif kind == "flop":
        ear = limb([(-0.1 * r, 0.6 * r, 0.75 * r), (0, 1.0 * r, 0.5 * r), (0.1 * r, 1.05 * r, -0.35 * r)], [0.15 * r, 0.3 * r, 0.26 * r], 8).scale(1, 1, 1)
    elif kind == "round":
        ear = ellipsoid(0.14 * r, 0.34 * r, 0.34 * r, 14).move(-0.1 * r, 0.6 * r, 0.8 * r)
    elif kind == "disc":
        ear = cylinder(0.65 * r, 0.12 * r, n=20, radius=0.05 * r).turn("y", np.pi / 2).move(-0.3 * r, 0.75 * r, 0.85 * r)
    elif kind == "fan":
        ear = ellipsoid(0.1 * r, 1.0 * r, 1.1 * r, 18).turn("z", 0.4).move(-0.3 * r, 1.35 * r, 0.0)
    elif kind == "long":
        ear = limb([(-0.2 * r, 0.3 * r, 0.7 * r), (-0.35 * r, 0.45 * r, 1.6 * r), (-0.5 * r, 0.6 * r, rng.uniform(2.0, 2.6) * r)], [0.2 * r, 0.28 * r, 0.12 * r], 8)
    else:
        ear = limb([(-0.2 * r, 0.6 * r, 0.5 * r), (-0.2 * r, 1.1 * r, 0.55 * r), (-0.15 * r, 1.5 * r, 0.35 * r)], [0.12 * r, 0.22 * r, 0.08 * r], 8)
    s.add(both(ear), inner if kind in ("flop", "fan") and chance(rng, 0.4) else coat)
    if kind in ("round", "disc"):
        s.add(both(ear.scale(1, 0.97, 1).move(0.1 * r)), inner) if chance(rng, 0.4) else None


def _extras(rng: Rng, s: Sketch, kind: str, r: float, tip: Array, second: Material, dark: Material, face: Material) -> None:
    """Horns, antlers, trunk and tusks, mane."""
    ivory = mat.plain(mat.rgb("efe6d0"))
    if kind == "horns":
        out = rng.uniform(0.2, 0.9) * r
        s.add(both(limb([(0, 0.45 * r, 0.75 * r), (-0.1 * r, 0.45 * r + out, 1.1 * r), (0.0, 0.5 * r + out, 1.6 * r)], [0.16 * r, 0.12 * r, 0.03 * r], 8, 8)), ivory if chance(rng, 0.6) else dark)
    elif kind == "antlers":
        path = spline([(-0.1 * r, 0.3 * r, 0.8 * r), (-0.4 * r, 0.9 * r, 1.5 * r), (-0.2 * r, 1.3 * r, 2.3 * r), (0.1 * r, 1.3 * r, 3.0 * r)], 10)
        s.add(both(sweep(path, np.linspace(0.13, 0.05, 10) * r, 8, ends="round")), ivory if chance(rng, 0.5) else second)
        for k in (3, 5, 7):
            s.add(both(rod(path[k], path[k] + np.array([0.55, 0.1, 0.5]) * r, 0.09 * r, 0.03 * r, 8, ends="round")), s.materials[-1])
    elif kind == "trunk":
        curl = rng.uniform(-0.8, 1.2) * r
        s.add(limb([tip * 0.5, tip + np.array([0.4 * r, 0, -0.4 * r]), tip + np.array([0.6 * r, 0, -1.4 * r]), tip + np.array([0.6 * r + 0.6 * curl, 0, -2.1 * r + 0.3 * abs(curl)])], [0.5 * r, 0.36 * r, 0.25 * r, 0.18 * r], 14, 12), face)
        s.add(both(limb([(0.7 * r, 0.5 * r, -0.5 * r), (1.3 * r, 0.6 * r, -0.9 * r), (1.8 * r, 0.5 * r, -0.7 * r)], [0.13 * r, 0.1 * r, 0.03 * r], 8, 8)), ivory)
    elif kind == "ossicones":
        s.add(both(rod((0, 0.3 * r, 0.7 * r), (-0.1 * r, 0.4 * r, 1.4 * r), 0.09 * r, 0.12 * r, 8, ends="round")), dark)
    elif kind == "ruff":
        ruff = dark if chance(rng, 0.5) else second
        s.add([ellipsoid(0.5 * r, 0.45 * r, 0.5 * r, 10).move(-0.35 * r, 0, 1.05 * r).turn("x", 2 * np.pi * k / 10) for k in range(10)], ruff)


def _tail(rng: Rng, s: Sketch, kind: str, at: Array, coat: Material, dark: Material) -> None:
    """A tail that starts at a point and goes back."""
    wag = rng.normal(0, 0.12)
    if kind == "stub":
        s.add(ellipsoid(0.07, 0.06, 0.07, 12).move(*at).move(0.03), coat)
    elif kind == "curl":
        a = np.linspace(0, 8, 22)
        s.add(sweep(np.stack([at[0] + 0.03 - 0.012 * a, 0.05 * np.sin(a), at[2] + 0.05 * (1 - np.cos(a))], 1), 0.018, 6, ends="round"), coat)
    else:
        way = {"up": [(-0.12, 0.1), (-0.2, 0.3), (-0.14, 0.45)], "long": [(-0.25, 0.05), (-0.4, 0.3), (-0.3, 0.55)], "hair": [(-0.12, -0.02), (-0.2, -0.25), (-0.2, -0.55)],
               "tuft": [(-0.08, -0.02), (-0.12, -0.25), (-0.1, -0.42)], "thin": [(-0.2, -0.05), (-0.45, -0.08), (-0.65, 0.05)], "bush": [(-0.15, -0.05), (-0.4, -0.1), (-0.62, 0.05)]}[kind]
        fat = {"up": [0.05, 0.04, 0.03, 0.02], "long": [0.04, 0.035, 0.03, 0.025], "hair": [0.03, 0.06, 0.07, 0.02], "bush": [0.04, 0.09, 0.11, 0.02]}.get(kind, [0.025, 0.018, 0.015, 0.012])
        points = [at + np.array([0.1, 0, -0.02]), *(at + np.array([x, wag * (k + 1), z]) for k, (x, z) in enumerate(way))]
        s.add(limb(points, [fat[0], *fat[1:]], 12, 10), dark if kind == "hair" else coat)
        if kind == "tuft":
            s.add(ellipsoid(0.05, 0.05, 0.09, 10).move(*points[-1]), dark)


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
    leg = {"wader": rng.uniform(0.7, 1.0), "duck": 0.06, "penguin": 0.04, "flying": 0.0, "hen": 0.25, "owl": 0.08}.get(kind, rng.uniform(0.15, 0.3))
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
        s.add(limb([top - [0.15, 0, 0.12], mid, head], [0.6 * r if kind != "wader" else 0.3 * r, 0.42 * r if kind != "wader" else 0.16 * r, 0.4 * head_r], 12, 12), coat)
    one = Sketch("")
    one.add(ellipsoid(head_r, 0.92 * head_r, 0.95 * head_r, 18), third if kind in ("duck", "songbird") and chance(rng, 0.4) else coat)
    if kind == "owl":
        one.add(both(cylinder(0.42 * head_r, 0.12, n=18, radius=0.02).turn("y", np.pi / 2).move(0.78 * head_r, 0.4 * head_r, 0.15 * head_r)), mat.WHITE)
        one.add(both(ellipsoid(0.1, 0.24 * head_r, 0.24 * head_r, 12).move(0.85 * head_r, 0.4 * head_r, 0.15 * head_r)), mat.BLACK)
        one.add(both(cylinder(0.2 * head_r, 0.5 * head_r, 0.02, n=8).turn("x", -0.4).move(0, 0.6 * head_r, 0.95 * head_r)), coat)
    else:
        eyes(rng, one, np.array([0.6 * head_r, 0.6 * head_r, 0.3 * head_r]), 0.15 * head_r, 0.7)
    bill = rng.uniform(0.5, 0.9) * head_r * (2.0 if kind == "wader" else 1.0)
    if kind == "duck":
        one.add(limb([(0.7 * head_r, 0, -0.15 * head_r), (1.2 * head_r, 0, -0.2 * head_r), (1.6 * head_r, 0, -0.15 * head_r)], [0.3 * head_r, 0.3 * head_r, 0.3 * head_r], 6).scale(1, 1, 0.5).move(z=-0.05), beak)
    elif kind in ("parrot", "flying", "owl") or s.noun == "flamingo":
        one.add(limb([(0.7 * head_r, 0, 0.05 * head_r), (0.95 * head_r + 0.4 * bill, 0, -0.02 * head_r), (0.95 * head_r + 0.45 * bill, 0, -0.5 * bill - 0.1 * head_r)], [0.34 * head_r, 0.24 * head_r, 0.04], 8), beak)
    else:
        one.add(cylinder(0.26 * head_r, bill + 0.3 * head_r, 0.012, n=12).turn("y", np.pi / 2).move(0.8 * head_r + bill / 2, 0, -0.05 * head_r), beak)
    if kind == "hen":
        comb = extrude(smooth([(-0.5, 0), (-0.45, 0.5), (-0.2, 0.3), (0.0, 0.6), (0.2, 0.3), (0.4, 0.5), (0.5, 0)], 28) * head_r, 0.06, bevel=0.01)
        one.add([comb.upright().move(z=0.8 * head_r), ellipsoid(0.05, 0.04, 0.1, 10).move(0.95 * head_r, 0, -0.55 * head_r)], mat.plain(mat.rgb("d7263d")))
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
    s.add([ellipsoid(size / 2, 0.07 + 0.1 * size, 0.025, 12).move(-size * 0.4).turn("z", a).turn("y", -slope).move(*back).move(0.1 * r, 0, 0.06) for a in ((0,), (-0.3, 0, 0.3))[int(kind in ("hen", "songbird", "flying"))]], feather)
    if leg > 0:
        y, t = 0.35 * r, 0.022 if kind != "hen" else 0.03
        lift = 0.3 * leg if kind == "wader" and chance(rng, 0.4) else 0.0
        for side in (1, -1):
            foot = np.array([0.02 + (0.1 if lift and side > 0 else 0), side * y, lift * (side > 0)])
            s.add(sweep([(0, side * y, z - 0.5 * r), (-0.03 + (0.25 if lift and side > 0 else 0), side * y, 0.55 * leg + 0.03 + lift * 0.5 * (side > 0)), foot + np.array([0, 0, 0.02])], t, 8), beak)
            s.add([limb([foot + np.array([0, 0, 0.02]), foot + np.array([0.13 * np.cos(a), 0.13 * np.sin(a), 0.015])], [0.022, 0.016], 3, 6) for a in (-0.5, 0, 0.5)] if kind not in ("duck", "penguin") else
                  [ellipsoid(0.13, 0.09, 0.025, 12).move(*foot).move(0.06, 0, 0.02)], beak)
    if kind in ("parrot", "owl") and chance(rng, 0.4):
        s.add(rod((0, -0.5, -0.03), (0, 0.5, -0.03), 0.05), mat.bark(rng))
    return s


def fish(rng: Rng) -> Sketch:
    """Round or slender, with fins of many shapes: gold fish, angel fish, shark, whale, puffer, sea horse-like eel."""
    kind = pick(rng, ("fish", "angel", "shark", "whale", "puffer", "gold"), (3, 1.5, 1.5, 1.5, 1, 2))
    s = Sketch({"fish": "fish", "angel": "angel fish", "puffer": "puffer fish", "gold": "goldfish"}.get(kind, kind))
    palette = [mat.rgb("7d8a99"), mat.rgb("5a6a80"), mat.rgb("3a4a5e")] if kind in ("shark", "whale") else [mat.rgb("f0701c"), mat.rgb("f5a623"), mat.rgb("e0442a")] if kind == "gold" else mat.TOY
    base, other = mat.choose(rng, palette), mat.any_colour(rng)
    skin = pick(rng, (mat.plain(base), mat.textured(patterns.shingles(rng, base), mat.word_for(base), 4.0), mat.textured(patterns.stripes(rng, base, other), "striped", 2.5),
                      mat.textured(patterns.dots(rng, base, other), "dotted", 3.0)), (3, 2, 2, 1)) if kind not in ("shark", "whale") else mat.plain(base)
    fin, belly = mat.plain(other) if chance(rng, 0.6) and kind not in ("shark", "whale") else mat.plain(base * 0.85), mat.WHITE if kind in ("shark", "whale") or chance(rng, 0.4) else mat.plain(np.clip(base * 1.3, 0, 1))
    high = {"angel": rng.uniform(0.42, 0.55), "shark": 0.2, "whale": rng.uniform(0.3, 0.36), "puffer": 0.44, "gold": 0.32}.get(kind, rng.uniform(0.2, 0.42))
    wide = {"angel": 0.1, "whale": 0.32, "puffer": 0.42, "shark": 0.17, "gold": 0.22}.get(kind, rng.uniform(0.11, 0.2))
    t = np.linspace(0, 1, 20)
    shape = np.sin(np.pi * t**rng.uniform(0.65, 1.0)) ** rng.uniform(0.55, 0.9)
    stalk = 0.14 if kind != "whale" else 0.1
    bend, sway = rng.normal(0, 0.15), rng.uniform(0, 0.1)
    path = np.stack([0.7 - 1.3 * t, bend * np.clip(t - 0.4, 0, 1) ** 2, (sway if kind == "whale" else 0.0) * np.clip(t - 0.5, 0, 1) * 3], 1)
    size = np.stack([np.maximum(wide * shape, stalk * 0.35 * (t > 0.5)), np.maximum(high * shape, stalk * (0.55 if kind == "whale" else 0.9) * (t > 0.5))], 1)
    size = np.maximum(size, 0.02)
    section = circle(20) if kind != "whale" else circle(20, 2.3)
    s.add(sweep(path[::-1], size[::-1], section, ends="round", up=(0, 0, 1)), skin, *([(lambda p: p.outward[:, 2] < -0.35, belly)] if chance(rng, 0.6) or kind in ("shark", "whale") else []))
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
    fluke = blade([(0.1, 0), (-0.5 * q, 0.6 * q), (-1.0 * q, 0.95 * q), (-0.95 * q, 0.45 * q), (-fork * 0.8 * q, 0), (-0.95 * q, -0.45 * q), (-1.0 * q, -(0.95 if kind != "shark" else 0.6) * q), (-0.5 * q, -0.6 * q)])
    s.add((fluke.turn("x", np.pi / 2) if kind == "whale" else fluke).turn("z", -bend).move(*tail), fin)
    d = rng.uniform(0.14, 0.3) * (1.6 if kind == "angel" else 1.0)
    if kind != "whale":
        back = [(0.22, -0.08), (0.0, 0.6 * d), (-0.18, d), (-0.28, 0.7 * d), (-0.25, -0.08)] if kind == "shark" else [(0.3, -0.1), (0.15, 0.7 * d), (-0.15, d), (-0.4, 0.6 * d), (-0.3, -0.1)]
        s.add(blade(back).move(0.05, 0, 0.93 * high), fin)
        if kind != "shark":
            s.add(blade([(x, -y) for x, y in back]).scale(0.7, 1, 0.8).move(-0.08, 0, -0.9 * high), fin)
    side = ellipsoid(0.2, 0.018, 0.1, 12) if kind not in ("shark", "whale") else ellipsoid(0.12, 0.3, 0.025, 14).turn("z", 0.6)
    s.add(both(side.move(-0.14).turn("y", -0.4).turn("z", -0.6).move(0.28, 0.9 * wide, -0.1 * high) if kind not in ("shark", "whale") else side.move(0.2, wide + 0.15, -0.45 * high)), fin)
    r = rng.uniform(0.05, 0.09) * (0.6 if kind in ("shark", "whale") else 1)
    x = 0.5 if kind not in ("whale", "puffer") else 0.42
    k = float(np.interp(0.7 - x, 1.3 * t, shape))
    eyes(rng, s, np.array([x, wide * k * 0.92, 0.25 * high * k]), r, 0.9, "bead" if kind in ("shark", "whale") else "white")
    if kind in ("gold", "puffer", "fish") and chance(rng, 0.6):
        s.add(torus(0.05, 0.025, 14, 8).turn("y", np.pi / 2).move(0.7, 0, 0), fin)
    if kind == "whale" and chance(rng, 0.5):
        s.add(both(limb([(0.25, 0, high * 0.9), (0.25, 0.02, high + 0.2), (0.25, 0.16, high + 0.32), (0.25, 0.25, high + 0.2)], [0.03, 0.03, 0.04, 0.05], 10, 8)), mat.plain(mat.rgb("8fc9ea")))
    return s


def bug(rng: Rng) -> Sketch:
    """Ladybird, bee, butterfly, ant, spider, snail, turtle, caterpillar, crab."""
    kind = pick(rng, ("ladybird", "bee", "butterfly", "ant", "spider", "snail", "turtle", "caterpillar", "crab"))
    s = Sketch(kind)
    c = mat.any_colour(rng)
    dark, bright = mat.BLACK if chance(rng, 0.6) else mat.painted(rng, mat.FURS), mat.plain(c)
    a, b = rng.uniform(0.42, 0.55), rng.uniform(0.3, 0.45)

    def legs(count: int, out: float, z: float, spread: float, t: float, x0: float = 0.0) -> None:
        for x in np.linspace(-spread, spread, count):
            s.add(both(sweep(spline([(x0 + 0.5 * x, 0.08, z), (x0 + x, 0.55 * out, z + 0.35 * out), (x0 + 1.3 * x, out, 0.01)], 8), t, 6, ends="round")), dark)

    def feelers(x: float, z: float, m: Material, long: float = 0.25) -> None:
        s.add(both(sweep(spline([(x, 0.05, z), (x + 0.4 * long, 0.12, z + 0.8 * long), (x + long, 0.18, z + long)], 8), 0.013, 6)), m)
        s.add(both(ellipsoid(0.03, 0.03, 0.03, 8).move(x + long, 0.18, z + long)), m)
    if kind in ("ladybird", "turtle"):
        h = rng.uniform(0.25, 0.42)
        tortoise = mat.textured(pick(rng, (patterns.shingles, patterns.tiles, patterns.dots))(rng, c, 0.5 * c), mat.word_for(c), 3.0)
        dome = revolve([(0, 0), (0.97, 0), *np.stack([np.cos(t := np.linspace(0.05, 1.5, 9)), np.sin(t)], 1), (0, 1)], 26).scale(a, b, h)
        s.add(dome.move(z=0.1), tortoise if kind == "turtle" else mat.plain(mat.rgb("d7263d")) if chance(rng, 0.6) else bright)
        if kind == "ladybird":
            s.add(box(1.8 * a, 0.025, 0.05).move(z=h + 0.1), dark)
            for k in range(int(rng.integers(2, 5))):
                lon, lat = 0.6 + 0.75 * k, rng.uniform(0.3, 1.1)
                n = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * abs(np.sin(lon)), np.sin(lat)])
                s.add(both(ellipsoid(0.085, 0.085, 0.03, 12).aim(n / [a, b, h]).move(*(n * [a, b, h])).move(z=0.1)), dark)
            s.add(ellipsoid(0.17, 0.2, 0.15, 16).move(a, 0, 0.18), dark)
            eyes(rng, s, np.array([a + 0.1, 0.12, 0.25]), 0.05, 0.4, "white")
            feelers(a + 0.1, 0.28, dark, 0.16)
            legs(3, b + 0.12, 0.12, 0.6 * a, 0.022)
        else:
            skin = mat.painted(rng, mat.PLANTS) if chance(rng, 0.7) else mat.painted(rng)
            s.add(revolve([(0, 0), (1.05, 0), (1.08, 0.12), (0.9, 0.2), (0, 0.2)], 26).scale(a, b, 0.4).move(z=0.06), skin if chance(rng, 0.5) else mat.plain(0.6 * c))
            s.add(limb([(0.7 * a, 0, 0.14), (a + 0.12, 0, 0.2), (a + 0.22, 0, 0.3)], [0.12, 0.09, 0.1], 8), skin)
            s.add(ellipsoid(0.15, 0.12, 0.12, 16).move(a + 0.27, 0, 0.33), skin)
            eyes(rng, s, np.array([a + 0.33, 0.09, 0.38]), 0.03, 0.6)
            s.add([p for x in (0.6 * a, -0.65 * a) for p in both(limb([(x, 0.6 * b, 0.12), (x * 1.25, b + 0.08, 0.07), (x * 1.4, b + 0.14, 0.04)], [0.1, 0.09, 0.06], 6))], skin)
            s.add(cylinder(0.05, 0.2, 0.005, n=8).turn("y", -np.pi / 2).move(-a - 0.08, 0, 0.1), skin)
    elif kind in ("bee", "ant", "spider"):
        z = rng.uniform(0.22, 0.35)
        coat = mat.textured(patterns.bands(rng, mat.rgb("f4c92b"), mat.rgb("1c1c1e")), "striped", None) if kind == "bee" else dark
        abdomen = ellipsoid(0.26, 0.26, 0.38 if kind != "spider" else 0.3, 20).turn("y", np.pi / 2 + 0.15).move(-0.38, 0, z + 0.03)
        stripes = [(lambda p: np.floor((p.centres[:, 0] + 2) / 0.13) % 2 == 0, mat.BLACK)] if kind == "bee" else []
        s.add(abdomen, mat.plain(mat.rgb("f2c12e")) if kind == "bee" else coat if chance(rng, 0.5) else bright, *stripes)
        s.add(ellipsoid(0.2, 0.18, 0.18, 16).move(0.05, 0, z), coat if kind != "bee" else mat.plain(mat.rgb("5a3a22")))
        s.add(ellipsoid(0.16, 0.17, 0.16, 16).move(0.33, 0, z + 0.04), dark if kind != "bee" else mat.plain(mat.rgb("f2c12e")))
        eyes(rng, s, np.array([0.42, 0.1, z + 0.1]), 0.05, 0.4)
        feelers(0.4, z + 0.16, dark, 0.2)
        legs(3 if kind != "spider" else 4, rng.uniform(0.45, 0.75) if kind == "spider" else 0.35, z - 0.03, 0.3, 0.022, 0.05)
        if kind == "bee":
            s.add(both(ellipsoid(0.16, 0.36, 0.012, 14).move(0, 0.32, 0).turn("x", 0.4).turn("z", 0.35).move(0, 0.05, z + 0.16)), mat.plain(mat.rgb("dcebf2")))
            s.add(cylinder(0.04, 0.14, 0.003, n=8).turn("y", -np.pi / 2).move(-0.8, 0, z - 0.03), dark)
    elif kind == "butterfly":
        lift, wing = rng.uniform(0.15, 1.1), mat.textured(patterns.dots(rng, c, mat.any_colour(rng)), mat.word_for(c), 3.0) if chance(rng, 0.5) else bright
        s.add(limb([(0.3, 0, 0), (0, 0, 0.01), (-0.4, 0, 0)], [0.06, 0.07, 0.035], 10), dark)
        s.add(ellipsoid(0.08, 0.08, 0.08, 12).move(0.38, 0, 0.02), dark)
        feelers(0.4, 0.06, dark, 0.25)
        big = smooth([(0.12, 0), (0.5, 0.45), (0.55, 0.8), (0.25, 0.85), (-0.05, 0.5), (-0.05, 0)], 28)
        small = smooth([(0.0, 0), (0.02, 0.4), (-0.2, 0.62), (-0.5, 0.5), (-0.45, 0.15), (-0.15, 0)], 26)
        for shape, m in ((big, wing), (small, wing if chance(rng, 0.5) else mat.painted(rng))):
            s.add(both(extrude(shape, 0.02, bevel=0.005).turn("x", lift)), m)
            inner = (shape - shape.mean(0)) * 0.6 + shape.mean(0)
            s.add(both(extrude(inner, 0.028, bevel=0.004).turn("x", lift)), dark if m is bright else mat.painted(rng))
    elif kind == "snail":
        n, turns = 64, rng.uniform(2.0, 3.0)
        ang = np.linspace(0, 2 * np.pi * turns, n)
        rad = 0.34 * np.exp(-0.2 * ang)
        coil = np.stack([-0.1 - rad * np.cos(ang + 1.2), 0.02 * ang, 0.42 + rad * np.sin(ang + 1.2)], 1)
        shell = mat.textured(patterns.stripes(rng, c, 0.55 * c), mat.word_for(c), 4.0) if chance(rng, 0.5) else bright
        s.add(sweep(coil, 0.62 * rad, 12, ends="round").move(y=-0.1), shell)
        flesh = mat.painted(rng, mat.SKINS + mat.FURS)
        s.add(limb([(-0.7, 0, 0.02), (-0.3, 0, 0.07), (0.3, 0, 0.1), (0.55, 0, 0.2), (0.65, 0, 0.42)], [0.03, 0.11, 0.13, 0.12, 0.11], 16, 12), flesh)
        s.add(both(limb([(0.66, 0.05, 0.48), (0.72, 0.09, 0.62), (0.78, 0.12, 0.74)], [0.025, 0.02, 0.02], 6, 8)), flesh)
        eyes(rng, s, np.array([0.79, 0.12, 0.77]), 0.045, 0.2)
    elif kind == "caterpillar":
        count, wave = int(rng.integers(5, 10)), rng.uniform(0.0, 0.2)
        other = bright if chance(rng, 0.4) else mat.painted(rng)
        for k in range(count):
            x, z = (k - count / 2) * 0.22, 0.2 + wave * np.sin(1.1 * k) ** 2
            s.add(ellipsoid(0.15, 0.17, 0.18, 16).move(x, 0, z), bright if k % 2 else other)
            s.add(both(rod((x, 0.1, z - 0.05), (x, 0.17, max(z - 0.22, 0)), 0.03, 0.035, 8, ends="round")), dark)
        x = count / 2 * 0.22
        s.add(ellipsoid(0.21, 0.22, 0.22, 18).move(x, 0, 0.32), bright if chance(rng, 0.5) else mat.painted(rng))
        eyes(rng, s, np.array([x + 0.16, 0.1, 0.38]), 0.055, 0.3)
        feelers(x, 0.5, dark, 0.18)
    else:
        s.add(ellipsoid(0.3, 0.45, 0.17, 22, 2.3).move(z=0.26), bright)
        s.add([p for x in (-0.15, -0.02, 0.11) for p in both(sweep(spline([(x, 0.35, 0.24), (1.5 * x, 0.6, 0.4), (2 * x, 0.75, 0.02)], 8), np.linspace(0.04, 0.02, 8), 6))], bright)
        s.add(both(limb([(0.2, 0.36, 0.26), (0.35, 0.62, 0.32), (0.5, 0.55, 0.36)], [0.05, 0.055, 0.06], 8)), bright)
        for k in (-1, 1):
            s.add(both(limb([(0.5, 0.55, 0.36), (0.62, 0.53 + 0.1 * k, 0.4), (0.78, 0.5 + 0.03 * k, 0.42)], [0.09, 0.085, 0.02], 8)), bright)
        s.add(both(rod((0.22, 0.12, 0.36), (0.25, 0.13, 0.5), 0.02)), bright)
        eyes(rng, s, np.array([0.25, 0.13, 0.52]), 0.055, 0.1)
    return s
