# SPDX-License-Identifier: Apache-2.0
"""What is thought of a picture's depth and normals, and who thinks it: the first guess, a depth network, or files that a person has.

An `Estimator` is asked once a lift, for the picture's crop at a size; `fit.reference` compares a shape with its `Estimate`.

Letters: S pixels a side of the crop; H W of the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto import image
from bozzetto.brief import brief
from bozzetto.camera import in_camera
from bozzetto.errors import InputError
from bozzetto.fit.solid import Solid
from bozzetto.fit.source import Source
from bozzetto.priors.depth import DepthNetwork
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.dmtet import area_normals


@brief
@dataclass(frozen=True)
class Estimate:
    """A crop's depth and normals, as somebody estimates them.

    mask    (S, S) bool, where something is known
    depth   (S, S) in [0, 1], growing away from the camera, up to a factor and a shift; 0 outside the mask; None where it is unknown
    normal  (S, S, 3), unit, in the camera's axes (x right, y up, z towards it), 0 outside the mask; None where they are unknown
    """

    mask: Tensor
    depth: Tensor | None = None
    normal: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor, depth: Tensor | None = None, normal: Tensor | None = None) -> Estimate:
        """Depth of any unit; normals of any length. What is not finite, or has no direction, is not in the mask."""
        length = None if normal is None else normal.norm(dim=-1)
        if depth is not None:
            mask = mask & torch.isfinite(depth)
        if length is not None:
            mask = mask & torch.isfinite(length) & (length > 1e-3)
        if depth is not None:
            low, high = (depth[mask].min(), depth[mask].max()) if mask.any() else (0.0, 1.0)
            depth = torch.where(mask, (depth - low) / (high - low) if high > low else torch.zeros_like(depth), 0).float()
        if normal is not None and length is not None:
            normal = torch.where(mask[..., None], normal / length.clamp(min=1e-3)[..., None], 0).float()
        return cls(mask, depth, normal)


class Estimator(Protocol):
    """Who estimates."""

    def __call__(self, source: Source, size: int) -> Estimate:
        """Of the picture's crop, `size` pixels a side."""
        ...


@dataclass(frozen=True)
class Guessed:
    """The first guess, whichever network made it: its solid, rendered from the picture's camera."""

    solid: Solid

    @torch.no_grad()
    def __call__(self, source: Source, size: int) -> Estimate:
        mask, camera = source.crop(size).alpha > 0.5, self.solid.frustum.camera.resized(size)
        if (surface := self.solid.surface()) is None:
            return Estimate.of(torch.zeros_like(mask), mask.float(), mask[..., None].expand(-1, -1, 3).float())
        views = render_surface(*surface, area_normals(*surface), camera, None)
        return Estimate.of(mask & (views.alpha[0, ..., 0] > 0.5), views.depth[0, ..., 0], in_camera(views.normal[0], camera))


@dataclass(frozen=True)
class Seen:
    """A depth network's: it is shown the photograph round the object, background and all, as in its training; it knows no normals."""

    network: DepthNetwork

    def __call__(self, source: Source, size: int) -> Estimate:
        side = self.network.side
        whole = torch.cat([source.shown, torch.ones_like(source.alpha)[..., None]], -1)
        part = image.resample(whole, source.crop(size).box, side)
        depth = self.network.depth((part[..., :3] + 1 - part[..., 3:]).clamp(0, 1))  # white beyond the photograph's borders
        return Estimate.of(source.crop(size).alpha > 0.5, _inside(depth[..., None], source.crop(side).alpha, (0, 0, side), size)[..., 0])


@dataclass(frozen=True)
class Given:
    """Files of the whole picture: PNG (8 or 16 bits) or NPY, of any size of its proportions.

    depth       grey, or (H, W); growing away from the camera, in any unit
    normal      colours (n + 1) / 2, or (H, W, 3); in the camera's axes: red to the right, green up, blue towards it
    is_inverse  depth is brighter where it is nearer, as MiDaS's pictures are
    """

    depth: Path | None = None
    normal: Path | None = None
    is_inverse: bool = False

    def __call__(self, source: Source, size: int) -> Estimate:
        """raises InputError for files that cannot be read, or are of another picture"""
        crop = source.crop(size)
        depth = None if self.depth is None else self._crop(source, self.depth, 1, crop.box, size)[..., 0]
        normal = None if self.normal is None else self._crop(source, self.normal, 3, crop.box, size)
        return Estimate.of(crop.alpha > 0.5, -depth if depth is not None and self.is_inverse else depth, normal)

    def _crop(self, source: Source, path: Path, channels: int, box: tuple[float, float, float], size: int) -> Tensor:
        values = torch.from_numpy(_read(path, channels))
        (h, w), (height, width) = values.shape[:2], source.alpha.shape
        if abs(h * width - w * height) > 2 * max(height, width):  # a pixel of rounding on either side
            raise InputError(f"{path}: is {w} x {h} pixels, the picture {width} x {height}; give the estimate of that very picture")
        alpha = F.interpolate(source.alpha[None, None], (h, w), mode="area")[0, 0]
        left, top, side = box
        return _inside(values, alpha, (left * w / width, top * h / height, side * w / width), size)


@dataclass(frozen=True)
class Both:
    """The depth that one estimates, and the normals of another, where both know something."""

    depth: Estimator
    normal: Estimator

    def __call__(self, source: Source, size: int) -> Estimate:
        deep, turned = self.depth(source, size), self.normal(source, size)
        return Estimate(deep.mask & turned.mask, deep.depth, turned.normal)


def _inside(values: Tensor, alpha: Tensor, box: tuple[float, float, float], size: int) -> Tensor:
    """The square `box` of values (H, W, C) at `size` pixels, averaged over the object alone: beyond its outline lies another thing.

    Where a pixel knows nothing (not finite), its neighbours speak for it; NaN where none does.
    """
    known = torch.isfinite(values).all(-1) & (alpha > 0)
    weight = torch.where(known, alpha, 0)[..., None].double()
    sums = image.resample(torch.cat([torch.where(known[..., None], values, 0).double() * weight, weight], -1), box, size)
    return torch.where(sums[..., -1:] > 1e-6, sums[..., :-1] / sums[..., -1:].clamp(min=1e-6), torch.nan).float()


def _read(path: Path, channels: int) -> np.ndarray:
    """(H, W, channels) float32; a PNG's normals in [-1, 1], its depth in [0, 1]."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .png or .npy")
    is_png = path.suffix.lower() == ".png"
    if not is_png and path.suffix.lower() != ".npy":
        raise InputError(f"{path}: is neither .png nor .npy; save it as one of these")
    try:
        found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED) if is_png else np.load(path)
    except (OSError, ValueError, EOFError, cv2.error):
        found = None
    if found is None or found.dtype.kind not in "fiu":
        raise InputError(f"{path}: cannot be read; save it again")
    found = found[..., None] if found.ndim == 2 else found
    if is_png and found.shape[-1] >= 3:
        found = found[..., 2::-1]  # OpenCV has blue first
        if channels == 1 and (found[..., :1] == found).all():
            found = found[..., :1]
    if found.ndim != 3 or found.shape[-1] != channels or min(found.shape[:2]) < 1:
        wanted = "one number a pixel" if channels == 1 else "three numbers a pixel"
        raise InputError(
            f"{path}: expected {wanted}, got {' x '.join(map(str, found.shape))}; give the estimate, not a coloured picture of it"
        )
    values = found.astype(np.float32)
    if is_png:
        values /= np.iinfo(found.dtype).max
        values = values * 2 - 1 if channels == 3 else values
    return np.ascontiguousarray(values)
