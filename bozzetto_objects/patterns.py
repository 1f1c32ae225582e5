# SPDX-License-Identifier: Apache-2.0
"""Small textures that tile: uint8 (h, w, 3) sRGB pictures whose edges meet.

Each pattern takes a generator and colours (3,) in [0, 1], the ground first. Row 0 is the top, as in a picture.
"""

from __future__ import annotations

import numpy as np

from bozzetto_objects.solids import Array

SIZE = 64


def _grid(size: int = SIZE) -> tuple[Array, Array]:
    """Pixel centres (x, y) in [0, 1), y down."""
    t = (np.arange(size) + 0.5) / size
    return t[None, :], t[:, None]


def _mix(ground: Array, other: Array, amount: Array) -> Array:
    """`ground` where amount (H, W) is 0, `other` where it is 1."""
    a = np.clip(amount, 0, 1)[..., None]
    return ground * (1 - a) + other * a


def _picture(rgb: Array) -> Array:
    """uint8."""
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)


def _edge(x: Array, sharp: float = 24.0) -> Array:
    """A soft step from 0 to 1 at x = 0."""
    return np.clip(x * sharp + 0.5, 0, 1)


def noise(rng: np.random.Generator, size: int = SIZE, low: tuple[float, float] = (3.0, 3.0), power: float = 2.0) -> Array:
    """(size, size) periodic noise in about [-1, 1]; `low` is the frequency along y and x above which it fades."""
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    fy, fx = np.fft.fftfreq(size, 1 / size)[:, None] / low[0], np.fft.rfftfreq(size, 1 / size)[None] / low[1]
    spectrum /= 1 + (fx**2 + fy**2) ** (power / 2)
    spectrum[0, 0] = 0
    out = np.fft.irfft2(spectrum, (size, size))
    return out / (2 * out.std() + 1e-9)


def stripes(rng: np.random.Generator, *c: Array) -> Array:
    """Even or uneven bars, across, along or slanting."""
    x, y = _grid()
    n = int(rng.integers(1, 5))
    phase = [x * n + 0 * y, y * n + 0 * x, (x + y) * n][int(rng.integers(3))] % 1
    width = rng.uniform(0.25, 0.6)
    out = _mix(c[0], c[1], _edge(np.minimum(phase, width - phase)))
    if len(c) > 2:
        out = _mix_into(out, c[2], _edge(0.5 * (1 - width) * 0.4 - np.abs(phase - (1 + width) / 2)))
    return _picture(out)


def _mix_into(picture: Array, colour: Array, amount: Array) -> Array:
    """The picture (H, W, 3) with a colour laid over it."""
    a = np.clip(amount, 0, 1)[..., None]
    return picture * (1 - a) + colour * a


def checks(rng: np.random.Generator, *c: Array) -> Array:
    """A chess board."""
    x, y = _grid()
    n = int(rng.integers(1, 4))
    return _picture(_mix(c[0], c[1], _edge(np.sin(2 * np.pi * n * x) * np.sin(2 * np.pi * n * y), 8)))


def plaid(rng: np.random.Generator, *c: Array) -> Array:
    """Tartan: see-through bands both ways."""
    x, y = _grid()
    out = np.broadcast_to(c[0], (SIZE, SIZE, 3))
    for k in range(3):
        at, width = rng.random(), rng.uniform(0.04, 0.22)
        for t in (x + 0 * y, y + 0 * x):
            away = np.abs((t - at + 0.5) % 1 - 0.5)
            out = _mix_into(out, c[1 + k % (len(c) - 1)], 0.5 * _edge(width - away))
    return _picture(out)


def dots(rng: np.random.Generator, *c: Array) -> Array:
    """Polka dots in quincunx, or rings."""
    x, y = _grid()
    r = rng.uniform(0.12, 0.22)
    away = np.minimum(np.hypot((x % 1) - 0.25, (y % 1) - 0.25), np.hypot((x % 1) - 0.75, (y % 1) - 0.75))
    out = _mix(c[0], c[1], _edge(r - away))
    if len(c) > 2:
        out = _mix_into(out, c[2], _edge(0.5 * r - away))
    return _picture(out)


def wood(rng: np.random.Generator, *c: Array) -> Array:
    """Grain along v."""
    x, _ = _grid()
    bend = noise(rng, low=(1.0, 2.0), power=3)
    rings = np.sin(2 * np.pi * (int(rng.integers(2, 6)) * x + rng.uniform(0.2, 0.7) * bend))
    fine = noise(rng, low=(1.0, 24.0))
    dark = c[0] * rng.uniform(0.6, 0.85)
    return _picture(_mix(c[0], dark, 0.45 + 0.3 * rings + 0.25 * fine))


def planks(rng: np.random.Generator, *c: Array) -> Array:
    """Boards along v with dark joints, each with its own tint."""
    x, y = _grid()
    n = int(rng.integers(3, 6))
    board = (x * n).astype(int)
    tint = rng.uniform(0.8, 1.1, n)[board]
    fine = noise(rng, low=(1.0, 20.0))
    joint = _edge(0.05 - np.abs((x * n + 0.5) % 1 - 0.5), 16)
    out = c[0] * (tint + 0.07 * fine)[..., None]
    end = _edge(0.012 - np.abs((y - rng.random(n)[board] + 0.5) % 1 - 0.5), 60)
    return _picture(_mix_into(out, c[0] * 0.4, np.maximum(joint + 0 * y, end)))


def bricks(rng: np.random.Generator, *c: Array) -> Array:
    """Courses in running bond."""
    x, y = _grid()
    rows = 2 * int(rng.integers(2, 4))
    row = (y * rows).astype(int)
    cols = rows // 2
    s = (x * cols + 0.5 * (row % 2)) % cols
    tint = rng.uniform(0.8, 1.15, (rows, cols))[row, s.astype(int)]
    joint = np.maximum(_edge(0.05 - np.abs((s + 0.5) % 1 - 0.5), 20), _edge(0.09 - np.abs((y * rows + 0.5) % 1 - 0.5), 20))
    return _picture(_mix_into(c[0] * (tint + 0.08 * noise(rng, low=(12, 12)))[..., None], c[1], joint))


def tiles(rng: np.random.Generator, *c: Array) -> Array:
    """Square tiles with light joints."""
    x, y = _grid()
    n = int(rng.integers(2, 5))
    tint = rng.uniform(0.88, 1.08, (n, n))[(y * n).astype(int), (x * n).astype(int)]
    joint = np.maximum(_edge(0.05 - np.abs((x * n + 0.5) % 1 - 0.5)), _edge(0.05 - np.abs((y * n + 0.5) % 1 - 0.5)))
    return _picture(_mix_into(c[0] * tint[..., None], c[1], joint))


def shingles(rng: np.random.Generator, *c: Array) -> Array:
    """Round-ended scales in rows: roofs and fish."""
    x, y = _grid()
    n = 2 * int(rng.integers(2, 4))
    row = np.floor(y * n)
    s = (x * n / 2 * 1.0 + 0.5 * (row % 2)) % 1
    t = y * n - row
    edge = t - np.sqrt(np.maximum(1 - (2 * s - 1) ** 2, 0))
    shade = 0.75 + 0.25 * t
    tint = 1 + 0.12 * noise(rng, low=(8, 8))
    return _picture(_mix_into(c[0] * (shade * tint)[..., None], c[0] * 0.55, _edge(edge + 0.05, 10)))


def speckle(rng: np.random.Generator, *c: Array) -> Array:
    """Small grains of other colours, as in granite or sprinkles."""
    out = np.broadcast_to(c[0], (SIZE, SIZE, 3))
    for colour in c[1:]:
        out = _mix_into(out, colour, _edge(noise(rng, low=(14, 14), power=4) - rng.uniform(0.5, 0.8), 6))
    return _picture(out)


def mottle(rng: np.random.Generator, *c: Array) -> Array:
    """Soft clouds between two colours: felt, stone, skin of fruit."""
    low = rng.uniform(2, 8)
    return _picture(_mix(c[0], c[1], 0.5 + 0.5 * noise(rng, low=(low, low)) + 0.12 * noise(rng, low=(30, 30))))


def patches(rng: np.random.Generator, *c: Array) -> Array:
    """Hard-edged spots, as on a cow or in camouflage."""
    out = _mix(c[0], c[1], _edge(noise(rng, low=(2.5, 2.5), power=4) - 0.1, 12))
    for colour in c[2:]:
        out = _mix_into(out, colour, _edge(noise(rng, low=(3, 3), power=4) - 0.35, 12))
    return _picture(out)


def marble(rng: np.random.Generator, *c: Array) -> Array:
    """Veins."""
    vein = np.abs(noise(rng, low=(2, 2), power=2.4))
    return _picture(_mix(c[0], c[1], 0.8 * np.exp(-((vein / 0.1) ** 2)) + 0.15 * noise(rng, low=(3, 3))))


def weave(rng: np.random.Generator, *c: Array) -> Array:
    """Basket or coarse cloth."""
    x, y = _grid()
    n = 2 * int(rng.integers(2, 5))
    over = ((x * n).astype(int) + (y * n).astype(int)) % 2
    bulge = np.where(over, np.sin(np.pi * (x * n % 1)), np.sin(np.pi * (y * n % 1)))
    return _picture(_mix(c[0] * 0.6, c[0], bulge * 0.8 + 0.15 * over + 0.1 * noise(rng, low=(20, 20))))


def zigzag(rng: np.random.Generator, *c: Array) -> Array:
    """Chevrons."""
    x, y = _grid()
    n, m = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    phase = (y * m + rng.uniform(0.3, 0.8) * np.abs((x * n) % 1 - 0.5) * 2) % 1
    return _picture(_mix(c[0], c[1], _edge(0.25 - np.abs(phase - 0.5), 12)))


def flowers(rng: np.random.Generator, *c: Array) -> Array:
    """Blossoms strewn about, with hearts and leaves of the further colours."""
    x, y = _grid()
    out = np.broadcast_to(c[0], (SIZE, SIZE, 3))
    for _ in range(int(rng.integers(3, 7))):
        px, py, r, petals = rng.random(), rng.random(), rng.uniform(0.09, 0.17), int(rng.integers(4, 8))
        dx, dy = (x - px + 0.5) % 1 - 0.5, (y - py + 0.5) % 1 - 0.5
        away, angle = np.hypot(dx, dy), np.arctan2(dy, dx) + rng.uniform(0, 6)
        out = _mix_into(out, c[1 + int(rng.integers(len(c) - 1))], _edge(r * (0.75 + 0.25 * np.cos(petals * angle)) - away))
        out = _mix_into(out, c[0] * 0.5 + 0.5, _edge(0.3 * r - away))
    return _picture(out)


def fade(rng: np.random.Generator, *c: Array) -> Array:
    """One colour above, another below; to be laid on once."""
    _, y = _grid()
    amount = np.clip((y - rng.uniform(0.2, 0.6)) * rng.uniform(1, 4) + 0.5, 0, 1) + np.zeros((1, 8))
    return _picture(_mix(c[0], c[1], amount))


def bands(rng: np.random.Generator, *c: Array) -> Array:
    """Rings of colour at uneven heights; to be laid on once."""
    _, y = _grid()
    out = np.broadcast_to(c[0], (SIZE, 8, 3))
    for k in range(int(rng.integers(1, 5))):
        out = _mix_into(
            out, c[1 + k % (len(c) - 1)], _edge(rng.uniform(0.01, 0.08) - np.abs(y - rng.uniform(0.1, 0.9)), 40) + np.zeros((1, 8))
        )
    return _picture(out)


def glaze(rng: np.random.Generator, *c: Array) -> Array:
    """A glaze that has run down: an uneven border between two colours; to be laid on once."""
    _, y = _grid()
    border = rng.uniform(0.25, 0.6) + 0.1 * noise(rng, low=(1, 3))[:1]
    return _picture(_mix(c[0], c[1], _edge(y - border, 20)) * (1 + 0.05 * noise(rng, low=(6, 6)))[..., None])
