# SPDX-License-Identifier: Apache-2.0
"""Corners of PNG: texts of any size, transparent colours of any depth, profiles by what they do."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from bozzetto.image import load
from bozzetto.pixels import SIGNATURE, SRGB_D50, in_srgb


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(pixels: np.ndarray, depth: int, colour: int, *more: bytes) -> bytes:
    """Chunk by chunk; pixels (H, W, C) of `depth` bits, 8 or 16, or packed bytes of less."""
    rows = pixels.astype(">u2").view("u1") if depth == 16 else pixels.astype("u1")
    rows = rows.reshape(len(rows), -1)
    width = pixels.shape[1] * (8 // depth if depth < 8 else 1)
    head = struct.pack(">IIBBBBB", width, len(pixels), depth, colour, 0, 0, 0)
    body = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    return SIGNATURE + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def colours(high: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (24, 32, channels))


def written(folder: Path, data: bytes) -> Path:
    (folder / "picture.png").write_bytes(data)
    return folder / "picture.png"


def profile(primaries: np.ndarray, curve: bytes, name: str, space: bytes = b"RGB ") -> bytes:
    """A display profile: a matrix to D50 and one curve for all channels."""

    def fixed(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(values * 65536).round().astype(int))

    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + bytes(79)}
    tags |= {b"cprt": b"text\0\0\0\0none\0", b"wtpt": fixed(np.array([0.9642, 1.0, 0.8249]))}
    for i, letter in enumerate((b"r", b"g", b"b")):
        tags |= {letter + b"XYZ": fixed(primaries[:, i]), letter + b"TRC": curve}
    tags[b"kTRC"] = curve
    table, body = b"", b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(body), len(content))
        body += content
    whole = struct.pack(">I", len(tags)) + table + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(whole), b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + whole


LINEAR = b"curv\0\0\0\0" + struct.pack(">I", 0)
GAMMA = b"curv\0\0\0\0" + struct.pack(">IH", 1, 768)  # 3
PARA = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *(round(65536 * x) for x in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))


def encode(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", ["Linear sRGB", "sRGB of a kind", "whatever"])
def test_a_profile_is_obeyed_by_what_it_does_whatever_its_name(tmp_path, depth, name):
    """Linear light, and a cube: closed forms. At 8 bits within the steps of a steep curve, and of lcms's own tables."""
    most = 2**depth - 1
    values = colours(most + 1)
    for curve, power in ((LINEAR, 1), (GAMMA, 3)):
        icc = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile(SRGB_D50, curve, name)))
        expected = encode((values / most) ** power)
        error = np.abs(load(written(tmp_path, png(values, depth, 2, icc))).rgb.numpy() - expected)
        assert error.max() < (8 / 255 if depth == 8 else 0.001)
        assert np.abs(values / most - expected).max() > 0.1, "the control: to ignore it would be seen"


@pytest.mark.parametrize("depth", [8, 16])
def test_a_grey_pictures_profile_is_obeyed(tmp_path, depth):
    most, values = 2**depth - 1, colours(2**depth, 1)
    icc = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile(SRGB_D50, LINEAR, "Linear grey", b"GRAY")))
    expected = np.repeat(encode(values / most), 3, -1)
    np.testing.assert_allclose(load(written(tmp_path, png(values, depth, 0, icc))).rgb, expected, rtol=0, atol=0.51 / most + 1e-6)


def test_wider_primaries_are_converted_in_16_bits():
    """White stays white; the red of sRGB, written in a space with red and green changed, is red again."""
    swapped = profile(SRGB_D50[:, [1, 0, 2]], PARA, "swapped")
    values = colours(65536).astype(np.uint16)
    values[0, 0] = 65535
    done = in_srgb(values, swapped)
    assert np.abs(done.astype(int) - values[..., [1, 0, 2]].astype(int)).max() < 30 and (done[0, 0] >= 65530).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_srgb_by_another_name_and_a_broken_profile_change_nothing(tmp_path, depth):
    values = colours(2**depth)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content in (profile(SRGB_D50, PARA, "whatever"), srgb, srgb[:300], b"", bytes(200)):
        picture = load(written(tmp_path, png(values, depth, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(content)))))
        np.testing.assert_allclose(picture.rgb, values / (2**depth - 1), atol=1e-7)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("size", [10, 2_000_000])
@pytest.mark.parametrize("key", [b"prompt", b"XML:com.adobe.xmp"])
def test_a_text_of_any_size_does_not_keep_a_picture_from_being_read(tmp_path, kind, size, key):
    text = b"a" * size
    body = {b"tEXt": b"\0" + text, b"zTXt": b"\0\0" + zlib.compress(text), b"iTXt": b"\0\1\0\0\0" + zlib.compress(text)}[kind]
    values = colours(256)
    np.testing.assert_array_equal((load(written(tmp_path, png(values, 8, 2, chunk(kind, key + body)))).rgb.numpy() * 255).round(), values)


def test_xmp_still_turns_a_picture(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    values = colours(256)
    body = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    np.testing.assert_allclose(load(written(tmp_path, png(values, 8, 2, body))).rgb, values[::-1, ::-1] / 255, atol=1e-7)


@pytest.mark.parametrize("colour", [0, 2])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_is_transparent_and_no_other(tmp_path, colour, depth):
    values = colours(2**depth, 3 if colour else 1)
    key = values[5, 7].tolist()
    values[20:, :, :] = key
    values[20, 3, 0] ^= 1  # the nearest of all others
    picture = load(written(tmp_path, png(values, depth, colour, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha.numpy(), (values != key).any(-1).astype(np.float32))
    np.testing.assert_allclose(picture.rgb.numpy()[3, 4], values[3, 4] / (2**depth - 1) * np.ones(3), atol=1e-7)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_transparent_grey_value_of_few_bits_is_transparent(tmp_path, depth):
    packed = colours(256, 1)
    levels = (packed >> (np.arange(8 // depth)[::-1] * depth)) & (2**depth - 1)  # (24, 32, n), leftmost highest
    levels = levels.reshape(24, -1)
    picture = load(written(tmp_path, png(packed, depth, 0, chunk(b"tRNS", struct.pack(">H", 1)))))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha.numpy() == 0, levels == 1)


def test_a_16_bit_picture_without_profile_or_key_has_neither_changed(tmp_path):
    values = colours(65536)
    picture = load(written(tmp_path, png(values, 16, 2)))
    assert picture.alpha is None
    np.testing.assert_allclose(picture.rgb, values / 65535, atol=1e-7)
    assert Image.open(io.BytesIO(png(values // 256, 8, 2))).mode == "RGB"


def tables(swap: bool, kind: bytes = b"mntr") -> bytes:
    """A profile of tables alone, from sRGB's numbers or those with red and green changed to Lab: lut16, 33 nodes a side."""
    nodes = np.stack(np.meshgrid(*[np.linspace(0, 1, 33)] * 3, indexing="ij"), -1)
    source = nodes[..., [1, 0, 2]] if swap else nodes
    linear = np.where(source <= 0.04045, source / 12.92, ((source + 0.055) / 1.055) ** 2.4)
    t = linear @ SRGB_D50.T / np.array([0.9642, 1.0, 0.8249])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    values = np.stack([lab[..., 0] * 652.8, (lab[..., 1] + 128) * 256, (lab[..., 2] + 128) * 256], -1).round().clip(0, 65535)
    lut = b"mft2\0\0\0\0" + struct.pack(">4B9i2H", 3, 3, 33, 0, *(65536 * np.eye(3, dtype=int)).flatten().tolist(), 2, 2)
    straight = struct.pack(">6H", *[0, 65535] * 3)
    lut += straight + values.astype(">u2").tobytes() + straight
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"t\0" + bytes(79), b"cprt": b"text\0\0\0\0none\0"}
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061), b"A2B0": lut}
    table, body = b"", b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(body), len(content))
        body += content
    whole = struct.pack(">I", len(tags)) + table + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(whole), b"\0" * 4, 0x02100000, b"scnr", b"RGB ", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + whole


@pytest.mark.parametrize("depth", [8, 16])
def test_a_profile_of_tables_is_obeyed(tmp_path, depth):
    """Red and green changed places; within what 33 nodes of a table and 8 bits of the lattice leave. A deep picture keeps its shades."""
    values = colours(2**depth)
    if depth == 16:
        values[0, :, :] = 30_000 + 16 * np.arange(32)[:, None]  # a grey slope of two steps of 8 bits
    expected = values[..., [1, 0, 2]] / (2**depth - 1)
    rgb = load(written(tmp_path, png(values, depth, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(tables(swap=True)))))).rgb.numpy()
    error = np.abs(rgb - expected)
    assert np.percentile(error, 95) < 3 / 255 and error.max() < 12 / 255, "dark colours are steep between the nodes"
    assert np.abs(values / (2**depth - 1) - expected).max() > 0.5, "the control: to ignore it would be seen"
    if depth == 16:
        assert len(np.unique(rgb[0, :, 0])) > 8 and (np.diff(rgb[0, :, 0]) >= 0).all()
