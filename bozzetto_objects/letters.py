# SPDX-License-Identifier: Apache-2.0
"""Letters, digits and signs, cut from a board or bent from tube; they read from +x."""

from __future__ import annotations

import numpy as np

from bozzetto_objects import materials as mat
from bozzetto_objects.outlines import arc, extrude, gear, heart, star
from bozzetto_objects.sketch import Rng, Sketch, chance, pick
from bozzetto_objects.solids import (
    Array,
    box,
    circle,
    fillet,
    rectangle,
    sweep,
)

# Strokes of block capitals and digits on a grid 2 wide and 4 high, a poly-line each; those that end where they start are closed.
STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 0), (1, 4), (2, 0)), ((0.4, 1.4), (1.6, 1.4))),
    "B": (((0, 0), (0, 4), (1.4, 4), (1.9, 3.1), (1.4, 2.1), (0, 2.1)), ((1.2, 2.1), (2, 1.2), (1.5, 0), (0, 0))),
    "C": (((2, 3.3), (1.4, 4), (0.6, 4), (0, 3.2), (0, 0.8), (0.6, 0), (1.4, 0), (2, 0.7)),),
    "D": (((0, 0), (0, 4), (1.1, 4), (2, 2.9), (2, 1.1), (1.1, 0), (0, 0)),),
    "E": (((2, 4), (0, 4), (0, 0), (2, 0)), ((0, 2), (1.5, 2))),
    "F": (((2, 4), (0, 4), (0, 0)), ((0, 2.1), (1.5, 2.1))),
    "G": (((2, 3.3), (1.4, 4), (0.6, 4), (0, 3.2), (0, 0.8), (0.6, 0), (2, 0), (2, 1.8), (1.1, 1.8)),),
    "H": (((0, 0), (0, 4)), ((2, 0), (2, 4)), ((0, 2), (2, 2))),
    "J": (((2, 4), (2, 0.8), (1.4, 0), (0.6, 0), (0, 0.8)),),
    "K": (((0, 0), (0, 4)), ((2, 4), (0.1, 1.8)), ((0.7, 2.4), (2, 0))),
    "L": (((0, 4), (0, 0), (2, 0)),),
    "M": (((0, 0), (0, 4), (1.1, 1.6), (2.2, 4), (2.2, 0)),),
    "N": (((0, 0), (0, 4), (2, 0), (2, 4)),),
    "O": (((0, 0.9), (0, 3.1), (0.7, 4), (1.3, 4), (2, 3.1), (2, 0.9), (1.3, 0), (0.7, 0), (0, 0.9)),),
    "P": (((0, 0), (0, 4), (1.4, 4), (2, 3), (1.4, 2), (0, 2)),),
    "R": (((0, 0), (0, 4), (1.4, 4), (2, 3), (1.4, 2), (0, 2)), ((0.9, 2), (2, 0))),
    "S": (((2, 3.4), (1.4, 4), (0.5, 4), (0, 3.1), (0.4, 2.2), (1.6, 1.8), (2, 0.9), (1.5, 0), (0.6, 0), (0, 0.6)),),
    "T": (((1, 0), (1, 4)), ((0, 4), (2, 4))),
    "U": (((0, 4), (0, 0.8), (0.6, 0), (1.4, 0), (2, 0.8), (2, 4)),),
    "V": (((0, 4), (1, 0), (2, 4)),),
    "W": (((0, 4), (0.6, 0), (1.2, 2.6), (1.8, 0), (2.4, 4)),),
    "X": (((0, 0), (2, 4)), ((0, 4), (2, 0))),
    "Y": (((0, 4), (1, 2), (2, 4)), ((1, 2), (1, 0))),
    "Z": (((0, 4), (2, 4), (0, 0), (2, 0)),),
    "1": (((0.3, 3.2), (1, 4), (1, 0)), ((0.2, 0), (1.8, 0))),
    "2": (((0, 3.2), (0.6, 4), (1.5, 4), (2, 3.1), (1.6, 2), (0, 0), (2, 0)),),
    "3": (((0, 4), (2, 4), (0.9, 2.4), (1.7, 2), (2, 1), (1.3, 0), (0, 0.3)),),
    "4": (((1.5, 0), (1.5, 4), (0, 1.3), (2.1, 1.3)),),
    "5": (((1.9, 4), (0.2, 4), (0.1, 2.3), (1.3, 2.5), (2, 1.6), (1.6, 0.3), (0.7, 0), (0, 0.4)),),
    "6": (((1.7, 4), (0.5, 2.8), (0, 1.2), (0.6, 0), (1.4, 0), (2, 1), (1.5, 2), (0.4, 1.9)),),
    "7": (((0, 4), (2, 4), (0.7, 0)),),
    "8": (((1, 2.1), (0.2, 3.1), (0.6, 4), (1.4, 4), (1.8, 3.1), (0, 1), (0.6, 0), (1.4, 0), (2, 1), (1, 2.1)),),
    "9": (((0.4, 0), (1.6, 1.4), (2, 2.9), (1.4, 4), (0.6, 4), (0, 3.1), (0.5, 2.1), (1.8, 2.3)),),
}


def letter(rng: Rng) -> Sketch:
    """A capital, a digit, or a star, heart, ring, arrow, cross, moon, cog, tick; flat, bevelled or of round tube; on a foot at times."""
    glyph = pick(rng, (*STROKES, *(("star", "heart", "arrow", "cross", "moon", "cog", "ring", "tick") * 2)))
    s = Sketch(f"letter {glyph}" if glyph in STROKES and glyph.isalpha() else f"digit {glyph}" if glyph in STROKES else glyph)
    paint, t = mat.finish(rng), rng.uniform(0.22, 0.5)
    depth = rng.uniform(0.4, 1.6)
    if glyph in STROKES:
        style, aspect = pick(rng, ("board", "tube", "round")), rng.uniform(0.8, 1.4)
        other = mat.finish(rng) if chance(rng, 0.25) else paint
        for k, stroke in enumerate(STROKES[glyph]):
            p = np.array(stroke, float) * [aspect, 1]
            is_loop = bool((p[0] == p[-1]).all())
            path = fillet(p[:-1] if is_loop else p, 0.6 if style != "board" else 0.12, 3, closed=is_loop)
            path = np.column_stack([np.full(len(path), 0.02 * k), path])
            size = np.array([[t, t if style == "tube" else depth / 2]] * len(path)) if style != "round" else np.full(len(path), t)
            section = {"board": rectangle(1, 1, 0.08), "tube": rectangle(1, 1, 0.45, 3), "round": circle(12)}[style]
            s.add(
                sweep(path, size, section, closed=is_loop, ends="round" if style == "round" else "flat", up=(1, 0, 0)),
                paint if k % 2 == 0 else other,
            )
    else:
        holes: list[Array] = []
        if glyph == "star":
            outline = star(pick(rng, (5, 5, 6, 8)), 2, rng.uniform(0.7, 1.3))
        elif glyph == "heart":
            outline = heart(4)
        elif glyph == "arrow":
            outline = np.array([(-0.5, -2), (0.5, -2), (0.5, 0.3), (1.3, 0.3), (0, 2), (-1.3, 0.3), (-0.5, 0.3)]) * [
                rng.uniform(0.7, 1.3),
                1,
            ]
        elif glyph == "cross":
            q = rng.uniform(0.35, 0.7)
            outline = np.array([(-q, -2), (q, -2), (q, -q), (2, -q), (2, q), (q, q), (q, 2), (-q, 2), (-q, q), (-2, q), (-2, -q), (-q, -q)])
        elif glyph == "moon":
            tip, q = rng.uniform(0.4, 0.8), rng.uniform(0.3, 1.1)  # where the horns end, and the middle of the inner circle
            x, y = 2 * np.cos(tip), 2 * np.sin(tip)
            end = float(np.arctan2(y, x - q))
            outline = np.concatenate([arc(2, tip, 2 * np.pi - tip, 24), arc(np.hypot(x - q, y), 2 * np.pi - end, end, 20, q)[1:-1]])
        elif glyph == "cog":
            outline, holes = gear(int(rng.integers(7, 13)), 2, 1.6), [circle(20) * rng.uniform(0.3, 0.9)]
        elif glyph == "ring":
            outline, holes = circle(36, pick(rng, (2.0, 6.0, 1.2))) * 2, [circle(36, 2.0) * rng.uniform(0.8, 1.35)]
        else:
            outline = np.array([(-1.6, 0.1), (-0.5, -1.2), (1.9, 1.5), (1.4, 2.0), (-0.5, -0.1), (-1.1, 0.6)])
        bevel = 0.05 if glyph in ("cog", "moon") else pick(rng, (0.03, 0.12, 0.2))
        s.add(extrude(outline, depth, holes, bevel=bevel).facing(), paint)
        if not holes and glyph != "moon" and chance(rng, 0.35):
            s.add(extrude(outline * 0.62, depth * 1.15, bevel=0.03).facing(), mat.painted(rng))
    if len(s.parts) == 1 or chance(rng, 0.3):
        low, high = s.bounds()
        w = high[1] - low[1]
        s.add(box(max(1.6 * depth, 1.0), w * rng.uniform(0.7, 1.1), 0.3, 0.06).move(0, (low[1] + high[1]) / 2, low[2] - 0.1), mat.wood(rng))
    return s
