# SPDX-License-Identifier: Apache-2.0
"""Captions of rendered objects: what it is, the colours one sees, the side one looks at.

Nouns are the catalogue's and the families' names; colours are measured in the picture, since objects are recoloured. A
vocabulary of a thousand words comes out, so a tokenizer of whole words suffices.
"""

from __future__ import annotations

import math
import re

import numpy as np

from bozzetto.image import lab

# sRGB, of the eleven basic colour terms (Berlin & Kay 1969), two or three samples each where one would leave gaps.
COLOURS = {
    "black": ((15, 15, 15), (35, 30, 30)),
    "white": ((250, 250, 250), (232, 230, 225)),
    "grey": ((128, 128, 128), (85, 85, 88), (175, 175, 178)),
    "red": ((205, 30, 35), (150, 25, 30)),
    "orange": ((245, 135, 30), (225, 110, 40)),
    "yellow": ((245, 220, 45), (225, 200, 90)),
    "green": ((50, 155, 60), (30, 95, 45), (150, 200, 95)),
    "blue": ((40, 80, 200), (30, 50, 120), (125, 180, 230), (40, 150, 180)),
    "purple": ((125, 55, 160), (165, 120, 200)),
    "pink": ((245, 150, 190), (225, 80, 150)),
    "brown": ((115, 70, 35), (75, 45, 30), (165, 115, 70)),
}
_SHADES = set(COLOURS) | {"beige", "cream", "turquoise", "olive", "dark", "light", "golden", "silver"}
TEMPLATES = (
    ("{colour} {noun}", 0.5),
    ("a photo of a {colour} {noun}", 0.2),
    ("a 3d model of a {noun}", 0.1),
    ("{noun}", 0.1),
    ("", 0.1),
)


def colours_of(rgb: np.ndarray, alpha: np.ndarray) -> list[str]:
    """Names of the one or two colours that cover most of a picture's object.

    rgb (H, W, 3) premultiplied sRGB in [0, 1], alpha (H, W); one name for at least 35 %, two for at least 25 % each, else none
    """
    solid = alpha > 0.95
    if not solid.any():
        return []
    names = [name for name, samples in COLOURS.items() for _ in samples]
    samples = lab(np.array([s for group in COLOURS.values() for s in group]) / 255)
    nearest = ((lab(rgb[solid])[:, None] - samples) ** 2).sum(-1).argmin(1)
    share = np.bincount([list(COLOURS).index(names[k]) for k in nearest], minlength=len(COLOURS)) / len(nearest)
    first, second = np.argsort(-share)[:2]
    if share[second] >= 0.25:
        return [list(COLOURS)[first], list(COLOURS)[second]]
    return [list(COLOURS)[first]] if share[first] >= 0.35 else []


def noun_of(name: str) -> str:
    """An object's name in lower case without digits and without the colours it came with."""
    words = [w for w in re.findall(r"[a-z']+", name.lower()) if w not in _SHADES]
    return " ".join(words) or "thing"


def side_of(azimuth: float) -> str:
    """front, side or back: what a camera at this azimuth sees (radians, 0 the front)."""
    turn = abs((azimuth + math.pi) % (2 * math.pi) - math.pi)
    return "front" if turn < math.pi / 4 else "back" if turn > 3 * math.pi / 4 else "side"


def caption(noun: str, colours: list[str], azimuth: float, rng: np.random.Generator) -> str:
    """One of the ways to say it; one in ten says nothing, which guidance needs."""
    template = TEMPLATES[rng.choice(len(TEMPLATES), p=[w for _, w in TEMPLATES])][0]
    said = " ".join(template.format(colour=" and ".join(colours), noun=noun).split())
    return f"{said}, {side_of(azimuth)} view" if said and rng.random() < 0.5 else said
