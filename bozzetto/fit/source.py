# SPDX-License-Identifier: Apache-2.0
"""What a lift starts from: a picture with its object cut out."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from bozzetto import image
from bozzetto.brief import brief
from bozzetto.errors import InputError
from bozzetto.matting import Method, cut_out, foreground

GREY = 0.93  # behind everything that is shown


@brief
@dataclass(frozen=True)
class Source:
    """A picture with its object cut out.

    rgb     (H, W, 3) sRGB in [0, 1], the background replaced near the object's outline by the object's own colours
    alpha   (H, W) in [0, 1]
    shown   (H, W, 3), the picture as it came, over grey where it was transparent
    digest  SHA-256 over the pixels and the mask
    matting  what found the object: mask, transparency, network, classical, rembg
    """

    name: str
    rgb: Tensor
    alpha: Tensor
    shown: Tensor
    digest: str
    warnings: tuple[str, ...] = ()
    matting: str = "transparency"
    _crops: dict[int, image.Crop] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, path: str | Path, mask: str | Path | None = None, matting: Method = "auto") -> Source:
        """Read a picture and find its object: by a mask file, else the picture's transparency, else `matting`."""
        return cls._of(image.load(path), mask, matting)

    @classmethod
    def of(cls, picture: Any, mask: str | Path | None = None, matting: Method = "auto") -> Source:
        """From a path, a Pillow picture, or an array or tensor (H, W, 3 or 4) of bytes or of floats in [0, 1], sRGB; a `Source` is
        returned as it is.

        raises  InputError for a picture in which no object is found, TypeError for something else
        """
        if isinstance(picture, Source):
            return picture
        if isinstance(picture, str | Path):
            return cls.load(picture, mask, matting)
        return cls._of(image.load("picture", _as_png(picture)), mask, matting)

    @classmethod
    def _of(cls, picture: image.Picture, mask: str | Path | None, matting: Method) -> Source:
        path = picture.path
        cut = cut_out(picture, mask=mask, method=matting)
        alpha = cut.alpha
        if not (alpha > 0.5).any():
            raise InputError(f"{path}: no object found; give a picture with a plain background, or its mask with --mask")
        said = list(cut.warnings)
        if image.touches_border(alpha):
            said.append("the object touches the picture's border; what is cut off will be missing")
        shown_as = os.fsencode(path).decode("utf-8", "replace")  # what JSON and glTF hold is UTF-8, a file's name any bytes
        warnings = tuple(f"{shown_as}: {sentence}" for sentence in said)
        rgb = foreground(picture, alpha)
        digest = hashlib.sha256(rgb.numpy().tobytes() + alpha.numpy().tobytes()).hexdigest()
        shown = picture.rgb if picture.alpha is None else picture.rgb * picture.alpha[..., None] + GREY * (1 - picture.alpha[..., None])
        return cls(Path(shown_as).name, rgb, alpha, shown, digest, warnings, cut.how)

    def crop(self, size: int) -> image.Crop:
        """The square round the object, `size` pixels a side, as every network and every loss sees it (`image.crop`)."""
        if size not in self._crops:
            self._crops[size] = image.crop(self.rgb, self.alpha, size)
        return self._crops[size]


def _as_png(picture: Any) -> bytes:
    """A PNG of a picture of Pillow's, or of an array or tensor; 16 bits for floats, so that nothing is lost that a file could hold."""
    from PIL import Image

    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        known = picture if picture.mode in ("L", "LA", "P", "RGB", "RGBA") else picture.convert("RGB")
        known.save(buffer, "PNG", icc_profile=picture.info.get("icc_profile") if known is picture else None)
        return buffer.getvalue()
    pixels = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"picture: expected a path, a PIL picture, an array, a tensor or a Source, got {type(picture).__name__}")
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise InputError(f"picture: expected (H, W, 3) or (H, W, 4), got {pixels.shape}; move the channels last")
    if pixels.dtype != np.uint8:
        if not np.issubdtype(pixels.dtype, np.floating) or not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(f"picture: expected bytes, or floats in [0, 1], got {pixels.dtype} from {pixels.min()} to {pixels.max()}")
        pixels = np.round(pixels * 65535).astype(np.uint16)
    done, data = cv2.imencode(".png", pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    if not done:
        raise InputError(f"picture: {pixels.shape} cannot be a picture")
    return data.tobytes()
