# SPDX-License-Identifier: Apache-2.0
"""Which pixels are the object: an alpha for a picture that has none, and the object's own colours at its soft edge.

`cut_out` asks, in this order: a mask that was given, the picture's transparency, and else a search, by default `guided`:
a network says which region is the object, the classical search where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.image import Picture, cuts_out, read_pixels
from bozzetto.matting import classical, guided
from bozzetto.matting.chequer import is_chequered
from bozzetto.matting.edge import push_pull

Method = Literal["auto", "classical", "rembg"]
"""How to search, for a picture without transparency: by the embedded network and the classical search; by the latter alone; by the
package rembg, which must be installed and fetches weights of its own"""

_HINT = "give a picture with a plain background or transparency, or a mask with --mask"
SLIVER, NEARLY_ALL, MANY = 0.005, 0.9, 60  # share of the picture, share, parts: what a mask is doubted beyond
HARDLY = 4.0  # CIELAB, as much as a background changes by itself (`classical.TAU`)
FAINT = 0.3  # share of the outline: a white mug on white has .66, the examples have 0
WIDE = 0.004  # an object's mean width by its longer side: a knife has 0.05, a net of wires 0.01


@dataclass(frozen=True)
class Cut:
    """An object's alpha, where it came from and what is to be said about it.

    alpha     (H, W) float32 in [0, 1]
    how       what decided: mask, transparency, network, classical, rembg
    warnings  a sentence each, without the picture's name
    """

    alpha: Tensor
    how: str
    warnings: tuple[str, ...] = ()


def matte(picture: Picture, *, mask: str | Path | None = None, method: Method = "auto") -> Tensor:
    """The object's alpha, (H, W) float32 in [0, 1]: `cut_out` without the words about it."""
    return cut_out(picture, mask=mask, method=method).alpha


def cut_out(picture: Picture, *, mask: str | Path | None = None, method: Method = "auto") -> Cut:
    """Find the object. The same picture gives the same bits on one machine.

    mask      a picture of the same shape (any size), its alpha if that cuts something out and else its grey value; overrides all else
    method    how to search where the picture's transparency cuts nothing out (`image.cuts_out`); else it is taken as it is
    raises    InputError if no object is found, the mask does not fit, weights are missing, or rembg is not installed
    """
    if method not in get_args(Method):
        raise ValueError(f"cut_out: method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if mask is not None:
        return Cut(torch.from_numpy(_read_mask(picture, mask)), "mask")
    if picture.alpha is not None and cuts_out(picture.alpha):
        return Cut(picture.alpha, "transparency")
    rgb = np.ascontiguousarray(picture.rgb.numpy())
    how: str = method
    if method == "auto":
        alpha, how = guided.search(rgb)
    else:
        alpha = _rembg(rgb) if method == "rembg" else classical.search(rgb)
    if alpha is None or not (alpha > 0.5).any():
        raise InputError(f"{picture.name}: no object found (nothing stands out from the background); {_HINT}")
    doubts = [doubt] if (doubt := doubtful(alpha)) else []
    if (share := faint(rgb, alpha)) > FAINT:
        doubts.append(f"{100 * share:.0f} % of the outline found can hardly be told from the background")
    if is_chequered(rgb):
        doubts.append(
            "the background is a chequerboard, perhaps one that stood for transparency; see whether --matting classical does better"
        )
    return Cut(torch.from_numpy(alpha), how, tuple(f"{doubt}; if mask.png is wrong, give a mask with --mask" for doubt in doubts))


def doubtful(alpha: np.ndarray) -> str | None:
    """What is odd about a mask (H, W) that was searched for, if anything: it is next to nothing, nearly everything, or in shreds."""
    solid = (alpha > 0.5).astype(np.uint8)
    share = float(solid.mean())
    if share > NEARLY_ALL:
        return f"the object found fills {100 * share:.0f} % of the picture"
    if share < SLIVER:
        return f"the object found fills only {100 * share:.1f} % of the picture"
    parts = cv2.connectedComponents(solid, connectivity=8)[0] - 1
    if parts > MANY:
        return f"the object found is in {parts} parts"
    _, _, w, h = cv2.boundingRect(solid)
    width = 2 * float(cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)[1:-1, 1:-1].max())
    if width < WIDE * max(w, h) + 2:
        return f"the object found is a sliver, at most {width:.0f} pixels wide"
    return None


def faint(rgb: np.ndarray, alpha: np.ndarray) -> float:
    """The share of an outline where the object differs by less than HARDLY from what is beside it: white on white, black on black.

    Compared are means of either side over 11 pixels, the four along the outline left out, at the size of the search.
    """
    small = classical.shrunk(rgb)
    h, w = small.shape[:2]
    solid = (cv2.resize(alpha, (w, h), interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    lab, near = cv2.cvtColor(small, cv2.COLOR_RGB2LAB), np.ones((3, 3), np.uint8)
    edge = (solid > 0) & (cv2.erode(solid, near, borderValue=1) == 0)
    means = []
    for side in (cv2.erode(solid, near, iterations=2, borderValue=1), 1 - cv2.dilate(solid, near, iterations=2)):
        count = _sum(side.astype(np.float32))
        means.append(_sum(lab * side[..., None]) / np.maximum(count, 1)[..., None])
        edge &= count > 5  # else too thin to be compared
    return float((np.linalg.norm(means[0] - means[1], axis=-1)[edge] < HARDLY).mean()) if edge.any() else 0.0


def _sum(plane: np.ndarray) -> np.ndarray:
    return cv2.boxFilter(plane, cv2.CV_32F, (11, 11), normalize=False, borderType=cv2.BORDER_CONSTANT)


def foreground(picture: Picture, alpha: Tensor) -> Tensor:
    """The object's own colours, (H, W, 3) float32, not premultiplied: what a texture may be baked from.

    Where alpha is below 1 the picture shows the background mixed in (or, in a file with transparency, whatever stood there);
    these pixels get the colour of the nearest solid ones. Far outside it is a smooth continuation, so filters may read it.
    """
    a = np.ascontiguousarray(alpha.numpy())
    weight = np.where(a > 0.98, 1.0, 1e-4 * a**2).astype(np.float32)  # a hair without one solid pixel still has a colour
    colour = push_pull(np.ascontiguousarray(picture.rgb.numpy()), weight)
    return torch.from_numpy(np.where(a[..., None] > 0.98, picture.rgb.numpy(), colour))


def _read_mask(picture: Picture, path: str | Path) -> np.ndarray:
    rgb, alpha, (height, width) = read_pixels(path)
    h, w = picture.rgb.shape[:2]
    values = alpha if alpha is not None and cuts_out(alpha) else rgb.mean(-1)
    if abs(width * h - height * w) > max(0.01 * width * h, width, h, height, w):  # one per cent, or half a pixel of rounding
        raise InputError(
            f"{path}: the mask's shape ({width} x {height} pixels) is not that of {picture.name} ({w} x {h}); "
            "save it with the same width and height as the picture"
        )
    if not (values > 0.5).any():
        raise InputError(f"{path}: the mask is empty (nowhere above one half); make the object white or opaque")
    shrinks = values.shape[0] > h
    return cv2.resize(values, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR).clip(0, 1)


def _rembg(rgb: np.ndarray) -> np.ndarray:
    try:
        import rembg
    except ImportError:
        raise InputError("rembg: the package is not installed; pip install 'bozzetto[rembg]', or leave out --matting") from None
    mask = rembg.remove((rgb * 255).round().astype(np.uint8), only_mask=True)
    return np.asarray(mask, np.float32) / 255
