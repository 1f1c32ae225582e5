# SPDX-License-Identifier: Apache-2.0
"""What things are made of: colours that occur together in real rooms and toy boxes, and patterns on some of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bozzetto_objects import patterns
from bozzetto_objects.solids import Array


@dataclass(frozen=True, eq=False)
class Material:
    """A surface.

    colour       (3,) sRGB in [0, 1]
    word         how one would call it: "red", "wooden"
    texture      uint8 (h, w, 3), or None
    tiles        how often the texture repeats over one unit of length; None lays it on once, round and along
    is_relative  the unit is the finished object's longest side, not the sketch's own
    """

    colour: Array
    word: str = ""
    texture: Array | None = None
    tiles: float | None = 3.0
    is_relative: bool = True


def rgb(code: str) -> Array:
    """Colour (3,) from six hexadecimal digits."""
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255


NAMED = {
    "black": "1c1c1e",
    "white": "f2f1ec",
    "grey": "8b8d90",
    "red": "c8242b",
    "orange": "ec7a1c",
    "yellow": "f4c92b",
    "green": "3f9142",
    "blue": "2460b4",
    "light blue": "7fb8e0",
    "purple": "7a3f94",
    "pink": "ea8fb0",
    "brown": "70482c",
    "beige": "d8c4a0",
    "turquoise": "35a89f",
    "dark red": "6e1d22",
    "dark green": "24472f",
    "dark blue": "1d2a4d",
    "olive": "7b7a3a",
    "cream": "efe4c6",
    "dark grey": "4a4c50",
}
_NAMES, _VALUES = list(NAMED), np.stack([rgb(v) for v in NAMED.values()])
TOY = [
    rgb(c) for c in ("d7263d", "f46036", "ffc914", "2e9e4f", "1b78d0", "7b3fa0", "f078a8", "18a999", "f7f3e8", "2b2d34", "8cc63f", "4fc3f7")
]
SOFT = [
    rgb(c) for c in ("d9b8a0", "b7c4b1", "a8b8c8", "e3d5b8", "c49a8a", "8e9aaf", "cbc0d3", "efd3d7", "7d8f7a", "b08968", "dde5b6", "5e6472")
]
WOODS = [
    rgb(c) for c in ("c89b63", "a8713f", "8a5a33", "6b4226", "4a2e1d", "d9b98a", "e4cda6", "b5835a", "9c6b4a", "7c4a2d", "3a2a22", "cfa77b")
]
METALS = [rgb(c) for c in ("c4c8cc", "9a9ea3", "6d7176", "3c3e42", "b08d4c", "d4af5a", "a86b4a", "e2e4e6", "232427", "7f8a94")]
CLOTH = [
    rgb(c)
    for c in (
        "6b705c",
        "a5a58d",
        "cb997e",
        "b23a48",
        "3d5a80",
        "293241",
        "98c1d9",
        "e0b1cb",
        "5e548e",
        "8d99ae",
        "e9c46a",
        "2a9d8f",
        "264653",
        "e76f51",
        "d6ccc2",
        "f5ebe0",
        "606c38",
        "dda15e",
        "7f4f24",
        "454545",
        "c9ada7",
        "9a8c98",
    )
]
EARTH = [rgb(c) for c in ("b5573a", "c97b52", "a44a2e", "8f5b3f", "d8a27a", "5e4032", "e6d2b5", "7d6b5a")]
PLANTS = [rgb(c) for c in ("3c7a34", "5a9a3a", "2f5d34", "7fae45", "4f7f52", "88a04b", "265c40", "a3b64c")]
FLOWERS = [rgb(c) for c in ("e63b5a", "f6c623", "f08cb4", "ffffff", "8a4fb0", "f07c2a", "4a6fd0", "c2185b", "fbe9a0")]
FURS = [
    rgb(c) for c in ("8b5a2b", "c68e4e", "e3c08f", "5a3a22", "2a2624", "f0ece4", "9c948c", "d98e3f", "6e6660", "b87f55", "faf3e3", "4a4440")
]
SKINS = [rgb(c) for c in ("f5d0b0", "e8b48c", "c98d62", "9a6238", "6b4226", "f7dcc4")]
STONES = [rgb(c) for c in ("b8b2a7", "8d8a86", "d6cfc4", "6a6b6e", "a89c8c", "c9c5bd")]

WHITE, BLACK, DARK = Material(rgb("f2f1ec"), "white"), Material(rgb("18181a"), "black"), Material(rgb("34353a"), "dark grey")


def word_for(colour: Array) -> str:
    """The nearest everyday name of a colour."""
    return _NAMES[int(np.argmin((((_VALUES - colour) * np.array([0.9, 1.2, 0.8])) ** 2).sum(1)))]


def choose(rng: np.random.Generator, palette: Sequence[Array], spread: float = 0.05) -> Array:
    """A colour of the palette, a little lighter, darker, or off in hue."""
    c = palette[int(rng.integers(len(palette)))]
    h, s, v = colorsys.rgb_to_hsv(*c)
    h, s, v = h + rng.normal(0, 0.3 * spread), s * (1 + rng.normal(0, 1.5 * spread)), v * (1 + rng.normal(0, 1.2 * spread))
    return np.array(colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0.03), 1)))


def any_colour(rng: np.random.Generator) -> Array:
    """From the toy box, the soft shelf, the cloth rack, or anywhere."""
    k = rng.random()
    if k < 0.85:
        return choose(rng, TOY if k < 0.45 else SOFT if k < 0.65 else CLOTH)
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.95), rng.uniform(0.35, 1.0)))


def plain(colour: Array, word: str | None = None) -> Material:
    """One flat colour."""
    return Material(np.clip(colour, 0, 1), word_for(colour) if word is None else word)


def textured(texture: Array, word: str, tiles: float | None = 3.0, is_relative: bool = True) -> Material:
    """A tiling picture; its mean is the base colour."""
    return Material(texture.reshape(-1, 3).mean(0) / 255, word, texture, tiles, is_relative)


def darker(m: Material, factor: float = 0.7) -> Material:
    """The plain colour of a material, darker (or, above 1, lighter)."""
    return plain(np.clip(m.colour * factor, 0, 1))


def painted(rng: np.random.Generator, palette: Sequence[Array] | None = None) -> Material:
    """A flat colour, of the palette or any."""
    return plain(any_colour(rng) if palette is None else choose(rng, palette))


def wood(rng: np.random.Generator, tiles: float | None = None) -> Material:
    """Grain, boards, or now and then a plain stain or paint."""
    c, k = choose(rng, WOODS), rng.random()
    if k < 0.55:
        return textured(patterns.wood(rng, c), "wooden", rng.uniform(2, 4) if tiles is None else tiles)
    return plain(c, "wooden") if k < 0.85 else painted(rng)


def boards(rng: np.random.Generator, tiles: float = 2.0) -> Material:
    """Planks side by side."""
    return textured(patterns.planks(rng, choose(rng, WOODS)), "wooden", tiles)


def metal(rng: np.random.Generator) -> Material:
    """Steel, brass, iron, chrome, black: flat."""
    return plain(choose(rng, METALS, 0.03), "metal")


def plastic(rng: np.random.Generator) -> Material:
    """Saturated and flat."""
    return plain(choose(rng, TOY))


_PRINTS = (patterns.stripes, patterns.checks, patterns.plaid, patterns.dots, patterns.zigzag, patterns.flowers)
_PRINT_WORDS = ("striped", "checked", "tartan", "dotted", "zigzag", "flowered")


def printed(rng: np.random.Generator, ground: Array | None = None, tiles: float | None = None) -> Material:
    """A pattern of two to four colours that go together: cloth, paper, painted toys."""
    k = int(rng.integers(len(_PRINTS)))
    base = any_colour(rng) if ground is None else ground
    others = [any_colour(rng) for _ in range(int(rng.integers(1, 4)))]
    others = [o if np.abs(o - base).sum() > 0.5 else 1 - 0.7 * o if base.mean() > 0.5 else 0.3 * o + 0.7 for o in others]
    return textured(_PRINTS[k](rng, base, *others), _PRINT_WORDS[k], rng.uniform(2.5, 6) if tiles is None else tiles)


def fabric(rng: np.random.Generator, prints: float = 0.35) -> Material:
    """Cloth: flat, woven, mottled, or printed so often."""
    k, c = rng.random(), choose(rng, CLOTH)
    if k < prints:
        return printed(rng, c)
    if k < prints + 0.25:
        return textured(patterns.weave(rng, c), word_for(c), rng.uniform(5, 9))
    if k < prints + 0.35:
        return textured(patterns.mottle(rng, c, c * 0.8), word_for(c), rng.uniform(2, 4))
    return plain(c)


def leather(rng: np.random.Generator) -> Material:
    """Brown, black, tan, or dyed."""
    c = choose(rng, [rgb(x) for x in ("5b3a25", "2b2422", "9a6238", "7a2d22", "c9a27a", "e8e0d2", "3a4a5a")])
    return textured(patterns.mottle(rng, c, c * 0.82), "leather", 3.0) if rng.random() < 0.5 else plain(c, "leather")


def ceramic(rng: np.random.Generator) -> Material:
    """Glazed: flat, faded, ringed, run, speckled or printed."""
    k, c = rng.random(), any_colour(rng)
    d = any_colour(rng)
    if k < 0.4:
        return plain(c)
    if k < 0.65:
        f = (patterns.fade, patterns.bands, patterns.glaze)[int(rng.integers(3))]
        return textured(f(rng, c, d), word_for(c), None)
    if k < 0.8:
        return textured(patterns.speckle(rng, c, c * 0.6, d), word_for(c), 3.0)
    return printed(rng, c)


def stone(rng: np.random.Generator) -> Material:
    """Granite, marble, sandstone, concrete."""
    c, k = choose(rng, STONES), rng.random()
    if k < 0.3:
        return plain(c, "stone")
    f = (patterns.mottle, patterns.marble, patterns.speckle)[int(rng.integers(3))]
    return textured(f(rng, c, c * rng.uniform(0.6, 0.85)), "stone", 2.0)


def fur(rng: np.random.Generator, palette: Sequence[Array] = FURS) -> Material:
    """A coat: flat, mottled, spotted or striped."""
    c, d, k = choose(rng, palette), choose(rng, palette), rng.random()
    if k < 0.45:
        return plain(c)
    if k < 0.65:
        return textured(patterns.mottle(rng, c, c * 0.8), word_for(c), 3.0)
    d = d if np.abs(c - d).sum() > 0.4 else c * 0.4
    if k < 0.85:
        return textured(patterns.patches(rng, c, d), "spotted", rng.uniform(1.2, 3))
    return textured(patterns.stripes(rng, c, d), "striped", rng.uniform(2, 4))


def leaf(rng: np.random.Generator) -> Material:
    """Foliage."""
    c = choose(rng, PLANTS)
    if rng.random() < 0.5:
        return plain(c)
    return textured(patterns.speckle(rng, c, c * 0.7, np.clip(c * 1.25, 0, 1)), "green", rng.uniform(2, 5))


def bark(rng: np.random.Generator) -> Material:
    """Trunks and sticks."""
    c = choose(rng, WOODS) * 0.85
    return textured(patterns.wood(rng, c), "brown", 3.0) if rng.random() < 0.6 else plain(c)


def terracotta(rng: np.random.Generator) -> Material:
    """Unglazed clay."""
    c = choose(rng, EARTH)
    return textured(patterns.mottle(rng, c, c * 0.85), "clay", 2.0) if rng.random() < 0.5 else plain(c, "clay")


def skin(rng: np.random.Generator) -> Material:
    """People, toy people, and now and then green ones."""
    return painted(rng, SKINS) if rng.random() < 0.9 else painted(rng)


def glass(rng: np.random.Generator) -> Material:
    """Window panes and bottles, opaque."""
    return plain(choose(rng, [rgb(x) for x in ("2e3a46", "9ec3d8", "bcd8e4", "5b7c8f", "20262e", "7fa8a0")]))


def finish(rng: np.random.Generator) -> Material:
    """What a toy maker would put on a body: paint mostly, wood, print, or metal."""
    k = rng.random()
    return plastic(rng) if k < 0.5 else painted(rng) if k < 0.68 else wood(rng) if k < 0.8 else printed(rng) if k < 0.92 else metal(rng)
