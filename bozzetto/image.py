# SPDX-License-Identifier: Apache-2.0
"""Pictures: how a file becomes pixels, and the one rule that crops and scales an object for every network.

`load` opens PNG, JPEG and WebP by their content and refuses everything else in one sentence. `crop` is shared by training
and lifting: a square round the object's box, a margin on each side, resampled by the exact overlap of pixel areas.

The filter: source pixels are squares of constant colour; an output pixel is the mean over a window of width max(s, 1) source
pixels round its centre, s source pixels per output pixel. For s >= 1 this is the area filter, for s <= 1 it is bilinear
interpolation; at s = 1 the two are the same, so the rule is continuous in scale.

`lab` and its inverse are the one place where colours become CIE Lab.

Coordinates: pixel (column i, row j) covers [i, i+1) x [j, j+1), its centre at +1/2, row 0 at the top.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from bozzetto import pixels as pixels_of
from bozzetto.brief import brief
from bozzetto.errors import InputError

MIN_SIDE = 16  # pixels: less holds no object that could be told from noise
MAX_SIDE, MAX_PIXELS = 16384, 64_000_000  # refused before decoding: 64 megapixels are 1 GB once they are float32 RGBA
WORK_SIDE = 2048  # pixels: larger pictures are shrunk to this when loaded; the finest texture that we bake is no larger
_ADVICE = "save it as PNG, JPEG or WebP"


@brief
@dataclass(frozen=True)
class Picture:
    """One picture in memory.

    rgb            (H, W, 3) float32, sRGB-encoded in [0, 1], *not* premultiplied
    alpha          (H, W) float32 in [0, 1], or None where the file has no alpha channel
    path           the file it came from, as it was given
    original_size  (height, width) in the file, upright; larger than (H, W) if the picture was shrunk when loaded
    """

    rgb: Tensor
    alpha: Tensor | None
    path: Path
    original_size: tuple[int, int]

    @property
    def name(self) -> str:
        """How error messages call it: the path as it was given."""
        return str(self.path)


@brief
@dataclass(frozen=True)
class Crop:
    """A square cut out of a picture and scaled to S x S pixels.

    rgb    (S, S, 3) float32, sRGB-encoded in [0, 1], premultiplied by alpha
    alpha  (S, S) float32 in [0, 1], 0 outside the source picture
    box    (left, top, side) of the square in source pixels; it may reach beyond the picture
    """

    rgb: Tensor
    alpha: Tensor
    box: tuple[float, float, float]

    @property
    def size(self) -> int:
        return self.alpha.shape[0]


def load(path: str | Path, data: bytes | None = None) -> Picture:
    """A picture file, upright, as floats; its bytes may be in hand already, and `path` is then only what errors call it.

    path     PNG, JPEG or WebP, told by content and not by name; grey, palette, CMYK and 16 bits per channel are all read.
             A colour profile is converted to sRGB. Side >= 16 pixels, at most 64 megapixels.
    returns  a Picture, shrunk (area filter, premultiplied) so that its longer side is at most 2048 pixels
    raises   InputError, one sentence, for anything that is not one still picture with something to see
    """
    rgb, alpha, size = read_pixels(path, data)
    if alpha is not None and alpha.max() <= 0.5:
        where = "0 everywhere" if alpha.max() == 0 else "nowhere above one half"
        raise InputError(f"{path}: no object found (alpha is {where}); give a picture with an opaque object")
    if not cuts_out(alpha) and np.ptp(rgb.reshape(-1, 3), axis=0).max() < 1.5 / 255:  # rounding of one colour
        raise InputError(f"{path}: no object found (the whole picture is one colour); give a picture that shows an object")
    return Picture(torch.from_numpy(rgb), None if alpha is None else torch.from_numpy(alpha), Path(path), size)


def cuts_out(alpha: np.ndarray | Tensor | None) -> bool:
    """Whether an alpha tells an object from its background: somewhere it is more transparent than opaque.

    Editors and converters leave 254 for 255 in a pixel or in all; such an alpha says nothing about what is shown.
    """
    return alpha is not None and bool(alpha.min() <= 0.5)


def crop(rgb: Tensor, alpha: Tensor, size: int, *, margin: float = 0.1, premultiplied: bool = False, name: str = "picture") -> Crop:
    """The rule for every network: the object's box, centred in a square, with a margin on each side.

    rgb      (H, W, 3) in [0, 1], not premultiplied unless `premultiplied` says so (renderings are)
    alpha    (H, W) or (H, W, 1) in [0, 1]; the box is that of alpha > 0.5
    size     S, pixels of the square that is returned
    margin   of the square's side, on each side of the longer side of the object's box; in [0, 0.5)
    name     what an error message calls the picture
    returns  a Crop, its side = longer side of the object's box / (1 - 2 margin)
    raises   InputError "no object found" if alpha is nowhere above one half
    """
    rgb, alpha = torch.as_tensor(rgb, dtype=torch.float32), torch.as_tensor(alpha, dtype=torch.float32)
    alpha = alpha[..., 0] if alpha.ndim == 3 else alpha
    if rgb.shape != (*alpha.shape, 3) or size < 1 or not 0 <= margin < 0.5:
        raise ValueError(
            f"crop: expected rgb (H, W, 3), alpha (H, W), size >= 1 and margin in [0, 0.5), "
            f"got {tuple(rgb.shape)}, {tuple(alpha.shape)}, {size}, {margin}"
        )
    solid = alpha > 0.5
    rows, columns = solid.any(1).nonzero()[:, 0].tolist(), solid.any(0).nonzero()[:, 0].tolist()
    if not rows:
        raise InputError(f"{name}: no object found (alpha is nowhere above one half); give a picture with an opaque object")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) / (1 - 2 * margin)
    box = ((left + right - side) / 2, (top + bottom - side) / 2, side)
    colour = rgb if premultiplied else rgb * alpha[..., None]
    pixels = resample(torch.cat([colour, alpha[..., None]], -1), box, size).clamp(0, 1)  # rounding only
    return Crop(pixels[..., :3].contiguous(), pixels[..., 3].contiguous(), box)


def resample(channels: Tensor, box: tuple[float, float, float], size: int) -> Tensor:
    """The square `box` of a picture, scaled to `size` pixels by exact overlap of areas (see above); 0 outside.

    channels  (H, W, C) float; premultiplied, where that has a meaning
    box       (left, top, side) in source pixels
    returns   (size, size, C), dtype and device of channels; differentiable in them
    """
    left, top, side = box
    height, width, _ = channels.shape
    x0, wx = _overlaps(width, left, side, size, channels)
    y0, wy = _overlaps(height, top, side, size, channels)
    part = channels[y0 : y0 + wy.shape[1], x0 : x0 + wx.shape[1]]
    rows = torch.einsum("ij,jkc->ikc", wy, part)
    return torch.einsum("lk,ikc->ilc", wx, rows)


def _overlaps(n: int, start: float, side: float, size: int, like: Tensor) -> tuple[int, Tensor]:
    """First source pixel that counts, and weights (size, m) of the m pixels from there on, for one axis of n pixels."""
    s = side / size
    w = max(s, 1.0)
    first = min(max(int(np.floor(start - 1)), 0), n - 1)
    last = max(min(int(np.ceil(start + side + 1)), n), first + 1)
    low = start + (torch.arange(size, dtype=torch.float64) + 0.5)[:, None] * s - w / 2
    j = torch.arange(first, last, dtype=torch.float64)[None]
    weights = (torch.minimum(low + w, j + 1) - torch.maximum(low, j)).clamp(min=0) / w
    return first, weights.to(like)


def touches_border(alpha: Tensor) -> bool:
    """Whether the object (alpha > 0.5, (H, W)) reaches the picture's border, so that a part of it may be missing."""
    a = torch.as_tensor(alpha) > 0.5
    return bool(a[0].any() or a[-1].any() or a[:, 0].any() or a[:, -1].any())


XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab (..., 3) of sRGB (..., 3) in [0, 1]: lightness in [0, 100], a towards red, b towards yellow. White is sRGB's own."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    t = linear @ XYZ.T / XYZ.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def from_lab(values: np.ndarray) -> np.ndarray:
    """The inverse of `lab`; what sRGB does not hold is clamped to [0, 1], colour by colour."""
    y = (values[..., 0] + 16) / 116
    f = np.stack([y + values[..., 1] / 500, y, y - values[..., 2] / 200], -1)
    t = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * XYZ.sum(1)
    linear = (t @ np.linalg.inv(XYZ).T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def read_pixels(
    path: str | Path, data: bytes | None = None, *, upright: bool = True, most: int = WORK_SIDE
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int]]:
    """A file's pixels without any question about what they show: `load` for pictures that may be masks.

    upright  turn the picture as its EXIF orientation says; without, as the pixels lie in the file
    most     pixels of the longer side: a larger picture is shrunk to it
    returns  rgb (H, W, 3) float32 in [0, 1], not premultiplied; alpha (H, W) float32 or None; the file's (height, width)
    raises   InputError for what is not one still PNG, JPEG or WebP of a sensible size
    """
    pixels = _decode(path, _read(path) if data is None else data, upright)
    size = pixels.shape[:2]
    scale = min(1.0, most / max(size))
    height, width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    if min(height, width) < MIN_SIDE <= min(size):
        thin = f"{size[1]} x {size[0]} pixels are too long and thin (more than {most // MIN_SIDE} to 1)"
        raise InputError(f"{path}: {thin}; cut it to the object")
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{path}: {size[1]} x {size[0]} pixels are too few; give a picture of at least {MIN_SIDE} pixels a side")
    unit = np.float32(1 / np.iinfo(pixels.dtype).max)
    if scale == 1:
        floats = pixels * unit
        return np.ascontiguousarray(floats[..., :3]), (np.ascontiguousarray(floats[..., 3]) if pixels.shape[2] == 4 else None), size
    alpha = pixels[..., 3] * unit if pixels.shape[2] == 4 else None

    def shrink(plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)

    if alpha is None:
        return np.stack([shrink(pixels[..., c] * unit) for c in range(3)], -1).clip(0, 1), None, size
    small = shrink(alpha).clip(0, 1)
    solid = small > 1e-4  # less than one step of 8 bits even at 1/64 coverage; below it a colour means nothing
    divisor = np.where(solid, small, 1)
    planes = [np.where(solid, shrink(pixels[..., c] * unit * alpha) / divisor, 0) for c in range(3)]  # one by one, for memory
    return np.stack(planes, -1).clip(0, 1).astype(np.float32), small, size


def _read(path: str | Path) -> bytes:
    file = Path(path)
    try:
        if file.is_dir():
            raise InputError(f"{path}: is a folder; give one picture file")
        if not file.exists():
            raise InputError(f"{path}: no such file; check the path")
        if not file.is_file():
            raise InputError(f"{path}: is not a plain file; give one picture file")
        with file.open("rb") as stream:
            head = stream.read(16)
            if not head:
                raise InputError(f"{path}: the file is empty; export or download the picture again")
            known = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8")
            if not head.startswith(known) and not (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
                raise InputError(f"{path}: is not a PNG, JPEG or WebP picture, whatever its name says; {_ADVICE}")
            return head + stream.read()
    except (OSError, ValueError) as error:  # no permission, name too long, a null character in the name
        raise InputError(f"{path}: cannot be opened ({error}); check the path and its permissions") from None


def _decode(path: str | Path, data: bytes, upright: bool) -> np.ndarray:
    """(H, W, 3) or (H, W, 4), uint8 or uint16; not premultiplied."""
    too_large = InputError(
        f"{path}: the picture is too large (more than {MAX_PIXELS // 1_000_000} megapixels or {MAX_SIDE} pixels a side); "
        f"make it smaller, {WORK_SIDE} pixels a side are enough"
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's doubts about size and metadata: what matters is checked below
            if data.startswith(pixels_of.SIGNATURE):
                data = pixels_of.without_texts(data)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
                if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                    raise too_large
                if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a JPEG with a preview behind it
                    raise InputError(f"{path}: is an animated picture; save one frame of it as PNG, JPEG or WebP")
                if image.format == "GIF":
                    raise InputError(f"{path}: GIF pictures are not read; {_ADVICE}")
                image.load()  # raises for a truncated file, which OpenCV would half-load
                if image.mode == "L" and data[24] in (2, 4) and isinstance(image.info.get("transparency"), int) and image.format == "PNG":
                    image.info["transparency"] *= 255 // (2 ** data[24] - 1)  # Pillow spreads the pixels, and leaves this
                deep = image.format == "PNG" and data[24] == 16  # bits per channel, in IHDR; Pillow would keep 8 of them
                pixels = _decode_16_bits(data, image.info.get("icc_profile")) if deep else np.asarray(_to_srgb(image))
                return np.ascontiguousarray(_upright(pixels, image) if upright else pixels)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception:  # decoders raise OSError, SyntaxError, struct.error, ...: the bytes are a person's, all mean this
        raise InputError(f"{path}: the picture is damaged or cut short; export or download it again") from None


def _decode_16_bits(data: bytes, profile: bytes | None) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise OSError("OpenCV could not read it")
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    if (key := pixels_of.transparent_colour(data)) is not None:
        alpha = np.where((rgb == np.array(key)).all(-1, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate([pixels_of.in_srgb(rgb, profile) if profile else rgb, alpha], -1)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's to RGB or RGBA, 8 bits."""
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif has_alpha:
        image = image.convert("RGBA")
    if not profile:
        return image.convert("RGBA" if has_alpha else "RGB")
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        colour = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
        if pixels_of.is_of_grey(profile):
            colour = Image.fromarray(pixels_of.in_srgb(np.asarray(colour.convert("RGB")), profile))
        else:
            to_srgb = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), colour.mode, "RGB")
            if colour.mode != "RGB" or _changes(to_srgb):
                colour = ImageCms.applyTransform(colour, to_srgb) or colour
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a broken or unfitting profile: its pixels are taken as sRGB
        return image.convert("RGBA" if has_alpha else "RGB")
    colour = colour.convert("RGB")
    if has_alpha:
        colour.putalpha(image.getchannel("A"))
    return colour


def _changes(to_srgb: Any) -> bool:
    """Whether a profile is more than another way to write sRGB down, whatever its name: by what it does to a grid of colours."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 255, 16)] * 3), -1).astype(np.uint8).reshape(64, 64, 3)
    done = ImageCms.applyTransform(Image.fromarray(grid), to_srgb)
    return done is None or int(np.abs(np.asarray(done).astype(int) - grid).max()) > 2


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Undo the rotation or mirroring that EXIF's orientation tag (274) records."""
    try:
        orientation = image.getexif().get(274, 1)
    except Exception:  # as above: damaged metadata say nothing about the pixels
        orientation = 1
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def animation(pictures: Sequence[Tensor]) -> bytes:
    """An animated WebP that begins again: pictures (H, W, 3) of one size, sRGB, cut to [0, 1], each 70 ms long."""
    frames = [Image.fromarray((p.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()) for p in pictures]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=70, loop=0, quality=85, method=2)
    return buffer.getvalue()
