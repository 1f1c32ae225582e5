# SPDX-License-Identifier: Apache-2.0
"""Loading: every format, every refusal, any bytes."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bozzetto.errors import InputError
from bozzetto.image import animation, load

EXAMPLES = Path(__file__).parents[1] / "examples"


def colours(h: int = 24, w: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def written(folder: Path, data: bytes, name: str = "picture.png") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def refusal(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and ";" in message  # where, what, how to mend
    return message


# ---- formats ----


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("channels", [3, 4])
def test_load_lossless_is_exact(tmp_path: Path, kind: str, channels: int) -> None:
    """Told by content, not by name; colours are not premultiplied, also where alpha is small."""
    array = colours(channels=channels)
    picture = load(
        written(tmp_path, encoded(Image.fromarray(array), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), "x.jpg")
    )
    assert picture.rgb.dtype == torch.float32 and picture.original_size == (24, 32) and picture.name.endswith("x.jpg")
    np.testing.assert_allclose(picture.rgb, array[..., :3] / 255, atol=1e-7)
    if channels == 4:
        assert picture.alpha is not None
        np.testing.assert_allclose(picture.alpha, array[..., 3] / 255, atol=1e-7)
    else:
        assert picture.alpha is None


def test_load_jpeg_is_close(tmp_path: Path) -> None:
    smooth = np.stack(np.meshgrid(np.arange(64) * 4, np.arange(48) * 5), -1).astype(np.uint8)
    array = np.concatenate([smooth, smooth[..., :1] // 2], -1)
    picture = load(written(tmp_path, encoded(Image.fromarray(array), "JPEG", quality=95), "noname"))
    assert np.abs(picture.rgb.numpy() - array / 255.0).max() < 0.05


def test_load_every_mode_of_png(tmp_path: Path) -> None:
    """Each mode is compared with what the colours mean: grey is three equal channels, a palette is looked up."""
    array = colours()
    grey = array[..., 0]
    L = Image.fromarray(grey)
    bits = load(written(tmp_path, encoded(L.convert("1", dither=Image.Dither.NONE), "PNG")))
    np.testing.assert_array_equal(bits.rgb, np.repeat((grey >= 128).astype(np.float32)[..., None], 3, -1))
    np.testing.assert_allclose(load(written(tmp_path, encoded(L, "PNG"))).rgb, np.repeat(grey[..., None], 3, -1) / 255, atol=1e-7)

    la = load(written(tmp_path, encoded(Image.merge("LA", [L, Image.fromarray(array[..., 1])]), "PNG")))
    np.testing.assert_allclose(la.rgb[..., 2], grey / 255, atol=1e-7)
    np.testing.assert_allclose(la.alpha, array[..., 1] / 255, atol=1e-7)

    palette = Image.fromarray(grey % 4)
    palette = palette.convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    indexed = load(written(tmp_path, encoded(palette, "PNG", transparency=1)))
    lookup = np.asarray(palette.convert("RGB"))
    np.testing.assert_allclose(indexed.rgb, lookup / 255, atol=1e-7)
    np.testing.assert_array_equal(indexed.alpha, (np.asarray(palette) != 1).astype(np.float32))
    assert load(written(tmp_path, encoded(palette, "PNG"))).alpha is None

    keyed = array.copy()
    keyed[:5] = (1, 2, 3)
    key = load(written(tmp_path, encoded(Image.fromarray(keyed), "PNG", transparency=(1, 2, 3))))
    np.testing.assert_array_equal(key.alpha, (keyed != (1, 2, 3)).any(-1).astype(np.float32))


def test_load_cmyk_jpeg(tmp_path: Path) -> None:
    """Pure inks without a profile: no ink is white, cyan alone is (0, 1, 1)."""
    array = np.zeros((32, 32, 4), np.uint8)
    array[:16, :, 0] = 255
    picture = load(written(tmp_path, encoded(Image.frombytes("CMYK", (32, 32), array.tobytes()), "JPEG")))
    np.testing.assert_allclose(picture.rgb[4, 4], [0, 1, 1], atol=0.02)
    np.testing.assert_allclose(picture.rgb[28, 4], [1, 1, 1], atol=0.02)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_load_16_bits_keeps_them(tmp_path: Path, channels: int) -> None:
    """A step of 1/65535 survives: 8 bits would not tell it from none."""
    ramp = 30000 + np.arange(20 * 40, dtype=np.uint16).reshape(20, 40)
    array = ramp if channels == 1 else np.stack([ramp, ramp[::-1], ramp[:, ::-1], 65535 - ramp], -1)[..., :channels]
    coded = array if channels == 1 else array[..., [2, 1, 0, 3][:channels]]
    picture = load(written(tmp_path, cv2.imencode(".png", coded)[1].tobytes()))
    want = np.repeat(array[..., None], 3, -1) if channels == 1 else array
    np.testing.assert_allclose(picture.rgb, want[..., :3] / 65535, atol=1e-7)
    assert (picture.alpha is None) == (channels < 4)
    if picture.alpha is not None:
        np.testing.assert_allclose(picture.alpha, want[..., 3] / 65535, atol=1e-7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_load_turns_upright(tmp_path: Path, orientation: int) -> None:
    """The file holds the picture moved by the inverse of what EXIF asks a viewer to do."""
    want = colours()
    quarter = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}[orientation]  # turns, counter-clockwise, after mirroring
    stored = np.rot90(want[:, ::-1] if orientation in (2, 4, 5, 7) else want, quarter)
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[274] = orientation
    picture = load(written(tmp_path, encoded(image, "PNG", exif=exif.tobytes())))
    np.testing.assert_allclose(picture.rgb, want / 255, atol=1e-7)
    assert picture.original_size == want.shape[:2]


def test_load_colour_profile(tmp_path: Path) -> None:
    """sRGB changes nothing at all and a broken profile is ignored; one in which red and green have changed places is obeyed."""
    array = colours()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile"):
        np.testing.assert_allclose(
            load(written(tmp_path, encoded(Image.fromarray(array), "PNG", icc_profile=profile))).rgb, array / 255, atol=1e-7
        )
    swapped = (
        srgb.replace(b"rXYZ", b"????")
        .replace(b"gXYZ", b"rXYZ")
        .replace(b"????", b"gXYZ")
        .replace("sRGB".encode("utf-16-be"), "GRBs".encode("utf-16-be"))
    )
    picture = load(written(tmp_path, encoded(Image.fromarray(array), "PNG", icc_profile=swapped)))
    np.testing.assert_allclose(picture.rgb, array[..., [1, 0, 2]] / 255, atol=4 / 255)  # two roundings of a steep curve


def test_load_phone_jpeg_with_a_preview_behind_it(tmp_path: Path) -> None:
    """MPO: several JPEGs in one file, of which the first is the picture; not an animation."""
    first, second = Image.fromarray(colours(64, 64)), Image.fromarray(colours(32, 32, seed=1))
    picture = load(written(tmp_path, encoded(first, "MPO", save_all=True, append_images=[second], quality=95), "phone.jpg"))
    assert picture.original_size == (64, 64)


def test_load_shrinks_large_pictures_premultiplied(tmp_path: Path) -> None:
    """4096 x 64 comes in at 2048 x 32: each pixel the alpha-weighted mean of 2 x 2."""
    array = colours(64, 4096, 4)
    array[:, :100, 3] = 0
    picture = load(written(tmp_path, encoded(Image.fromarray(array), "PNG")))
    assert picture.original_size == (64, 4096) and picture.rgb.shape == (32, 2048, 3) and picture.alpha is not None
    blocks = (array / 255.0).reshape(32, 2, 2048, 2, 4)
    alpha = blocks[..., 3].mean((1, 3))
    colour = (blocks[..., :3] * blocks[..., 3:]).mean((1, 3))
    np.testing.assert_allclose(picture.alpha, alpha, atol=1e-6)
    np.testing.assert_allclose(picture.rgb * picture.alpha[..., None], colour, atol=1e-6)
    opaque = load(written(tmp_path, encoded(Image.fromarray(array[..., :3]), "PNG")))
    np.testing.assert_allclose(opaque.rgb, blocks[..., :3].mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("name", ["teapot", "wooden-chair", "mustard-armchair"])
def test_load_examples(name: str) -> None:
    picture = load(EXAMPLES / f"{name}.png")
    assert picture.rgb.shape == (512, 512, 3) and (picture.alpha is None) == (name == "mustard-armchair")


# ---- refusals ----


def png_header(w: int, h: int) -> bytes:
    """A PNG that promises w x h pixels and holds none: read any further, and it is damaged."""
    body = b"IHDR" + struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    idat = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))


def test_refuse_what_is_not_a_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.png")
    assert "is a folder" in refusal(tmp_path)
    assert "is not a plain file" in refusal("/dev/null")
    assert "the file is empty" in refusal(written(tmp_path, b""))
    assert "cannot be opened" in refusal("x" * 5000)
    assert "no such file" in refusal("a\0b")


def test_refuse_other_formats(tmp_path: Path) -> None:
    image = Image.fromarray(colours())
    assert "is not a PNG, JPEG or WebP picture" in refusal(written(tmp_path, b"just some text, a chair perhaps\n" * 9))
    for kind in ("BMP", "TIFF", "PPM", "ICO"):
        assert "is not a PNG, JPEG or WebP picture" in refusal(written(tmp_path, encoded(image, kind)))
    assert "GIF pictures are not read" in refusal(written(tmp_path, encoded(image, "GIF")))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_refuse_animations(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(colours(seed=s)) for s in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert "animated picture; save one frame" in refusal(written(tmp_path, data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_refuse_truncated(tmp_path: Path, kind: str, share: float) -> None:
    for options in ({}, {"progressive": True} if kind == "JPEG" else {"lossless": True}):
        data = encoded(Image.fromarray(colours(64, 64)), kind, **options)
        assert "damaged or cut short" in refusal(written(tmp_path, data[: max(17, int(len(data) * share))]))


def test_refuse_truncated_16_bits(tmp_path: Path) -> None:
    data = cv2.imencode(".png", colours(64, 64).astype(np.uint16) * 257)[1].tobytes()
    assert "damaged or cut short" in refusal(written(tmp_path, data[: len(data) // 2]))


def test_refuse_sizes(tmp_path: Path) -> None:
    """Too large is told before any pixel is decoded: these files hold none, and would else be damaged."""
    assert "1 x 1 pixels are too few" in refusal(written(tmp_path, encoded(Image.fromarray(colours(1, 1)), "PNG")))
    assert "15 x 40 pixels are too few" in refusal(written(tmp_path, encoded(Image.fromarray(colours(40, 15)), "PNG")))
    long = refusal(written(tmp_path, encoded(Image.fromarray(colours(20, 4096)), "PNG")))  # 2048 x 10 once loaded
    assert "4096 x 20 pixels are too long and thin (more than 128 to 1); cut it to the object" in long
    for w, h in ((20000, 20000), (16385, 16), (10000, 10000), (2**31 - 1, 2**31 - 1)):
        assert "too large (more than 64 megapixels" in refusal(written(tmp_path, png_header(w, h)))
    assert "damaged" in refusal(written(tmp_path, png_header(8000, 8000)))


def test_refuse_nothing_to_see(tmp_path: Path) -> None:
    array = colours(channels=4)
    array[..., 3] = 0
    assert "no object found (alpha is 0 everywhere)" in refusal(written(tmp_path, encoded(Image.fromarray(array), "PNG")))
    array[..., 3] = 100
    assert "no object found (alpha is nowhere above one half)" in refusal(written(tmp_path, encoded(Image.fromarray(array), "PNG")))
    for mode in ("RGB", "RGBA", "L"):
        flat = Image.new(mode, (32, 32), "white")
        assert "no object found (the whole picture is one colour)" in refusal(written(tmp_path, encoded(flat, "PNG")))
    array[..., :3], array[..., 3] = 200, 255 * (np.arange(32) > 9)
    assert load(written(tmp_path, encoded(Image.fromarray(array), "PNG"))).alpha is not None  # one colour, but a silhouette


# ---- any bytes ----

SEEDS = [
    encoded(Image.fromarray(colours(20, 20)), "PNG"),
    encoded(Image.fromarray(colours(20, 20, 4)), "PNG"),
    encoded(Image.fromarray(colours(20, 20)[..., 0]).convert("P"), "PNG", transparency=3),
    cv2.imencode(".png", colours(20, 20).astype(np.uint16) * 257)[1].tobytes(),
    encoded(Image.fromarray(colours(20, 20)), "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    encoded(Image.fromarray(colours(20, 20)), "JPEG"),
    encoded(Image.fromarray(colours(20, 20)), "JPEG", progressive=True),
    encoded(Image.frombytes("CMYK", (20, 20), colours(20, 20, 4).tobytes()), "JPEG"),
    encoded(Image.fromarray(colours(20, 20, 4)), "WEBP"),
    encoded(Image.fromarray(colours(20, 20)), "WEBP", lossless=True),
]


def survives(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        picture = load(path)
    except InputError:
        return
    assert picture.rgb.isfinite().all() and picture.rgb.min() >= 0 and picture.rgb.max() <= 1


def with_right_checksums(data: bytes) -> bytes:
    """A PNG's CRCs made right again, so that a changed byte reaches the code behind them."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True, database=None)
@given(
    st.integers(0, len(SEEDS) - 1), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0, 1.3), st.booleans()
)
def test_any_bytes_load_or_are_refused(tmp_path: Path, seed: int, edits: list[tuple[float, int]], keep: float, mend: bool) -> None:
    """Bytes changed and the end cut off: a picture or InputError, nothing else."""
    data = bytearray(SEEDS[seed])
    for where, value in edits:
        data[int(where**2 * (len(data) - 1))] = value  # squared: headers, at the front, are hit more often
    data = data[: math.ceil(keep * len(data))]
    survives(tmp_path / "fuzz", with_right_checksums(bytes(data)) if mend and SEEDS[seed][:4] == b"\x89PNG" else bytes(data))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True, database=None)
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x01\x00\x00WEBP", b"GIF89a"]), st.binary(max_size=200))
def test_any_tail_loads_or_is_refused(tmp_path: Path, head: bytes, tail: bytes) -> None:
    survives(tmp_path / "fuzz", head + tail)


def test_an_animation_has_its_pictures_in_order_and_begins_again():
    greys = [0.0, 0.5, 2.0]  # the last is cut to white
    film = Image.open(io.BytesIO(animation([torch.full((12, 20, 3), g) for g in greys])))
    assert (film.format, film.size, film.n_frames, film.info["loop"]) == ("WEBP", (20, 12), 3, 0)
    for k, want in enumerate((0, 128, 255)):
        film.seek(k)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - want).max() <= 2  # WebP is lossy
        assert film.info["duration"] == 70
