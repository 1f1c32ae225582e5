# SPDX-License-Identifier: Apache-2.0
"""What our decoders leave undone: PNG's transparent colour in 16 bits, its texts that Pillow will not read, colour profiles in 16 bits.

Profiles: ICC.1:2010. Those that are a curve a channel and a matrix (or one curve, of a grey picture) are exact; of others, with tables,
Little CMS says what becomes of a lattice of colours in 8 bits, and what lies between is interpolated.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# Primaries of sRGB as columns, adapted to ICC's white D50 (as in every sRGB profile)
SRGB_D50 = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ORIENTED = (b"XML:com.adobe.xmp", b"Raw profile type ")  # texts that may say how the picture is turned
MAX_TEXT = 1 << 20  # bytes, Pillow's limit
ROWS = 256  # converted at once, for memory
LATTICE = 52  # colours a side: every fifth of 8 bits


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each whole chunk of a PNG."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts, except small ones that may say how it is turned. Pillow refuses a picture for one that is large."""
    kept, done = [], 0
    for name, start, end in chunks(data):
        body = data[start + 8 : end - 4]
        if name in TEXTS and not (body.startswith(ORIENTED) and _is_small(name, body)):
            kept.append(data[done:start])
            done = end
    return b"".join([*kept, data[done:]])


def _is_small(name: bytes, body: bytes) -> bool:
    """Whether a text has less than MAX_TEXT bytes, unpacked."""
    _, _, rest = body.partition(b"\0")
    if name == b"iTXt":
        is_packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    else:
        is_packed, rest = name == b"zTXt", rest[1:]
    try:
        unpacked = len(zlib.decompressobj().decompress(rest, MAX_TEXT)) if is_packed else 0
    except zlib.error:
        return False
    return max(unpacked, len(body)) < MAX_TEXT


def transparent_colour(data: bytes) -> tuple[int, ...] | None:
    """The grey value or colour that a PNG of grey values or colours calls transparent."""
    body = next((data[start + 8 : end - 4] for name, start, end in chunks(data) if name == b"tRNS"), b"")
    count = {0: 1, 2: 3}.get(data[25], 0)
    return struct.unpack(f">{count}H", body) if count and len(body) == 2 * count else None


def in_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Pixels (H, W, 3), uint8 or uint16, of a colour profile, in sRGB; as they are where the profile is broken, or is sRGB."""
    found, most = _curves(profile), int(np.iinfo(pixels.dtype).max)
    if found is None:
        return _by_lattice(pixels, profile, most)
    curves, matrix = found
    levels = np.linspace(0, 1, most + 1)
    tables = [curve(levels).astype(np.float32) for curve in curves]

    def convert(part: np.ndarray) -> np.ndarray:
        linear = np.stack([table[part[..., c]] for c, table in enumerate(tables)], -1) @ matrix.T.astype(np.float32)
        linear = linear.clip(0, 1)
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return (encoded * most).round().clip(0, most).astype(pixels.dtype)

    grid = np.stack(np.meshgrid(*[np.linspace(0, most, 9)] * 3), -1).round().astype(pixels.dtype)
    if np.abs(convert(grid).astype(float) - grid).max() < most / 255:
        return pixels
    return np.concatenate([convert(pixels[row : row + ROWS]) for row in range(0, len(pixels), ROWS)])


def _by_lattice(pixels: np.ndarray, profile: bytes, most: int) -> np.ndarray:
    """The same where tables stand for curves; as they are where Little CMS refuses the profile, or it is sRGB."""
    levels = np.arange(0, 256, 255 // (LATTICE - 1), dtype=np.uint8)
    nodes = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    flat = Image.fromarray(nodes.reshape(LATTICE, -1, 3))
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        grey = is_of_grey(profile)
        to_srgb = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "L" if grey else "RGB", "RGB")
        done = ImageCms.applyTransform(flat.getchannel(0) if grey else flat, to_srgb)  # a grey picture's channels are alike
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return pixels
    from scipy.ndimage import map_coordinates  # seldom, and slow to import

    table = np.asarray(done, np.float32).reshape(nodes.shape)
    if np.abs(table - nodes).max() <= 2:
        return pixels

    def convert(part: np.ndarray) -> np.ndarray:
        at = np.moveaxis(part.astype(np.float32) * ((LATTICE - 1) / most), -1, 0)
        done = np.stack([map_coordinates(table[..., c], at, np.float32, order=1, mode="nearest") for c in range(3)], -1)
        return (done * (most / 255)).round().clip(0, most).astype(pixels.dtype)

    return np.concatenate([convert(pixels[row : row + ROWS]) for row in range(0, len(pixels), ROWS)])


def is_of_grey(profile: bytes) -> bool:
    """Whether a profile is one for grey pictures."""
    return profile[16:20] == b"GRAY"


def _curves(profile: bytes):  # type: ignore[no-untyped-def]
    """Three curves to linear light, and the matrix from there to linear sRGB; None for what is no such profile."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        tags = {}
        for i in range(min(count, 100)):
            name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
            tags[name] = profile[start : start + size]
        if is_of_grey(profile):
            return [_curve(tags[b"kTRC"])] * 3, np.eye(3)
        if profile[16:20] != b"RGB " or profile[20:24] != b"XYZ " or b"A2B0" in tags:
            return None
        primaries = np.array([struct.unpack_from(">3i", tags[c + b"XYZ"], 8) for c in (b"r", b"g", b"b")]).T / 65536
        matrix = np.linalg.inv(SRGB_D50) @ primaries
        return [_curve(tags[c + b"TRC"]) for c in (b"r", b"g", b"b")], matrix
    except (struct.error, KeyError, ValueError, ZeroDivisionError):  # broken: its pixels are taken as sRGB
        return None


def _curve(tag: bytes):  # type: ignore[no-untyped-def]
    """The function that an ICC curve stands for, of values in [0, 1]."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return lambda x: x
        table = np.array(struct.unpack_from(f">{min(count, 1 << 16)}H", tag, 12))
        if count == 1:
            return lambda x: x ** (table[0] / 256)
        return lambda x: np.interp(x, np.linspace(0, 1, len(table)), table / 65535)
    if tag[:4] != b"para":
        raise ValueError
    (kind,) = struct.unpack_from(">H", tag, 8)
    g, a, b, c, d, e, f = 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    p = [x / 65536 for x in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind] if kind < 5 else 99}i", tag, 12)]
    if kind == 0:
        g = p[0]
    elif kind in (1, 2):
        g, a, b = p[:3]
        d = -b / a
        e = f = p[3] if kind == 2 else 0.0
    else:
        g, a, b, c, d = p[:5]
        e, f = p[5:] if kind == 4 else (0.0, 0.0)
    return lambda x: np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f).clip(0, 1)
