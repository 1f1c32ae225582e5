# SPDX-License-Identifier: Apache-2.0
"""Cameras: where a picture was taken from, and how to say so to other programs.

World: right-handed, z up, the object's front faces +x, longest side of its box 1. Camera axes: x right, y up, looking
along -z (OpenGL, Blender). At azimuth 0 and elevation 0 the camera stands on +x; azimuth grows counter-clockwise seen
from above. Pixel (column i, row j) covers [i, i+1) x [j, j+1), its centre at +1/2, row 0 at the top. Other conventions
are converted by the named functions at the end of this file and nowhere else.

Letters: V cameras, K intrinsics in pixels, c2w camera to world, f focal length in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief

NEAR, FAR = 0.05, 50.0  # object units; clip planes of every renderer
Array = TypeVar("Array", Tensor, np.ndarray)


@brief
@dataclass(frozen=True)
class Camera:
    """A batch of V cameras that share a picture size.

    c2w              (V, 3, 4) float64, camera to world, rotation with determinant +1
    K                (V, 3, 3) float64, in pixels, positive: u = f x / depth + c (perspective) or u = f x + c (orthographic)
    size             (height, width) in pixels
    is_orthographic  the same for the whole batch
    raises           ValueError for wrong shapes, a mirrored or skewed rotation, a focal length that is not positive
    """

    c2w: Tensor
    K: Tensor
    size: tuple[int, int]
    is_orthographic: bool = False

    def __post_init__(self) -> None:
        v = self.c2w.shape[0] if self.c2w.ndim == 3 else -1
        if self.c2w.shape != (v, 3, 4) or self.K.shape != (v, 3, 3):
            raise ValueError(f"camera: expected c2w (V, 3, 4) and K (V, 3, 3), got {tuple(self.c2w.shape)} and {tuple(self.K.shape)}")
        R = self.c2w[:, :, :3].double()
        identity = torch.eye(3, dtype=torch.float64, device=R.device)
        if not torch.allclose(R @ R.mT, identity.expand_as(R), atol=1e-5) or not (torch.linalg.det(R) > 0).all():
            raise ValueError("camera: c2w must hold rotations with determinant +1; negate one axis of a mirrored frame")
        if not (self.K[:, 0, 0] > 0).all() or not (self.K[:, 1, 1] > 0).all() or min(self.size) < 1:
            raise ValueError("camera: focal lengths and picture size must be positive")

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int]) -> Camera:
        """A batch again, also for one index."""
        i = slice(index, index + 1 or None) if isinstance(index, int) else index
        return replace(self, c2w=self.c2w[i], K=self.K[i])

    def to(self, device: str | torch.device) -> Camera:
        """The same cameras on another device."""
        return replace(self, c2w=self.c2w.to(device), K=self.K.to(device))

    def resized(self, size: int | tuple[int, int]) -> Camera:
        """The same views at another (height, width); the aspect may change, as a stretched picture's does."""
        size = (size, size) if isinstance(size, int) else size
        scale = torch.tensor([size[1] / self.size[1], size[0] / self.size[0], 1.0], dtype=self.K.dtype, device=self.K.device)
        return replace(self, K=self.K * scale.view(1, 3, 1), size=size)

    @staticmethod
    def joined(cameras: Sequence[Camera]) -> Camera:
        """One batch of several of the same size and kind."""
        if len({(c.size, c.is_orthographic) for c in cameras}) != 1:
            raise ValueError(f"cameras: expected one size and kind, got {[(c.size, c.is_orthographic) for c in cameras]}")
        return replace(cameras[0], c2w=torch.cat([c.c2w for c in cameras]), K=torch.cat([c.K for c in cameras]))

    @property
    def w2c(self) -> Tensor:
        """(V, 3, 4), world to camera."""
        R = self.c2w[:, :, :3].mT
        return torch.cat([R, -R @ self.c2w[:, :, 3:]], dim=2)

    @property
    def position(self) -> Tensor:
        """(V, 3), in the world."""
        return self.c2w[:, :, 3]

    def clip_matrix(self, near: float = NEAR, far: float = FAR) -> Tensor:
        """(V, 4, 4) float64: homogeneous world points to clip space, in which (x, y)/w of ±1 are the picture's borders,
        +y is *down* (row 0 is y = -1, so no picture is ever flipped), and z/w runs from -1 (near) to 1 (far)."""
        h, w = self.size
        K, w2c = self.K.double(), self.w2c.double()
        cv = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64, device=K.device)) @ w2c  # x right, y down, z = depth
        one = torch.zeros_like(cv[:, :1])
        one[..., 3] = 1
        x, y, depth = cv[:, 0:1], cv[:, 1:2], cv[:, 2:3]
        hom = one if self.is_orthographic else depth
        X = (K[:, 0, 0, None, None] * x + K[:, 0, 2, None, None] * hom) * (2 / w) - hom
        Y = (K[:, 1, 1, None, None] * y + K[:, 1, 2, None, None] * hom) * (2 / h) - hom
        if self.is_orthographic:
            Z = (2 * depth - (far + near) * one) / (far - near)
        else:
            Z = (far + near) / (far - near) * depth - 2 * far * near / (far - near) * one
        return torch.cat([X, Y, Z, hom], dim=1)

    def clip(self, points: Tensor) -> Tensor:
        """World points (N, 3) or (V, N, 3) to clip space (V, N, 4), in the points' dtype; differentiable."""
        M = self.clip_matrix().to(points)
        return points @ M[:, :, :3].mT + M[:, None, :, 3]

    def depth_of(self, z: Array) -> Array:
        """Depth along the axis of clip space's z/w, as `rasterize` gives it, of any shape: the last step of `clip` undone."""
        return ((FAR - NEAR) * z + FAR + NEAR) / 2 if self.is_orthographic else 2 * FAR * NEAR / (FAR + NEAR - z * (FAR - NEAR))

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (N, 3) or (V, N, 3) to pixels (V, N, 2), as (column, row), and depth along the axis (V, N)."""
        p = points @ self.w2c[:, :, :3].mT.to(points) + self.w2c[:, None, :, 3].to(points)
        depth = -p[..., 2]
        z = torch.ones_like(depth) if self.is_orthographic else depth
        K = self.K.to(points)
        u = K[:, None, 0, 0] * p[..., 0] / z + K[:, None, 0, 2]
        v = -K[:, None, 1, 1] * p[..., 1] / z + K[:, None, 1, 2]
        return torch.stack([u, v], dim=-1), depth

    def unproject(self, pixels: Tensor, depth: Tensor) -> Tensor:
        """Pixels (V, ..., 2) and depth along the axis (V, ...) to world points (V, ..., 3): the inverse of `project`."""
        extra = (1,) * (depth.ndim - 1)
        K = self.K.to(pixels)
        f = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1).view(-1, *extra, 2)
        c = K[:, :2, 2].view(-1, *extra, 2)
        z = torch.ones_like(depth) if self.is_orthographic else depth
        xy = (pixels - c) / f * z[..., None]
        p = torch.stack([xy[..., 0], -xy[..., 1], -depth], -1)
        R, t = self.c2w[:, :, :3].to(pixels), self.c2w[:, :, 3].to(pixels)
        return torch.einsum("vij,v...j->v...i", R, p) + t.view(-1, *extra, 3)

    def pixel_centres(self) -> Tensor:
        """(H, W, 2) float64, as (column, row): 0.5, 1.5, ..."""
        h, w = self.size
        j, i = torch.meshgrid(torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64), indexing="ij")
        return (torch.stack([i, j], -1) + 0.5).to(self.K.device)

    def rays(self) -> tuple[Tensor, Tensor]:
        """Origins and unit directions in the world, both (V, H, W, 3) float64, through the pixel centres."""
        pixels = self.pixel_centres().expand(len(self), -1, -1, -1)
        one = torch.ones_like(pixels[..., 0])
        far = self.unproject(pixels, one)
        near = self.unproject(pixels, 0 * one) if self.is_orthographic else self.position[:, None, None].expand_as(far)
        d = far - near
        return near, d / d.norm(dim=-1, keepdim=True)


def in_camera(vectors: Tensor, camera: Camera) -> Tensor:
    """Vectors (..., 3) of the world in the axes of one camera: x right, y up, z towards it."""
    return vectors @ camera.c2w[0, :, :3].to(vectors)


def in_world(vectors: Tensor, camera: Camera) -> Tensor:
    """The inverse of `in_camera`: of normal maps in the axes of one of the cameras that see the object, whichever drew them."""
    return vectors @ camera.c2w[0, :, :3].mT.to(vectors)


def level_ring(camera: Camera, azimuth: Sequence[float] | Tensor) -> Camera:
    """One camera, turned about its own up axis through the origin by azimuths (V,), radians, counter-clockwise seen from above: the ring of
    Wonder3D (arXiv:2310.15008), level for that camera, whatever its elevation in the world."""
    half = torch.as_tensor(azimuth, dtype=torch.float64).reshape(-1, 1) / 2
    turn = rotations(torch.cat([half.cos(), half.sin() * camera.c2w[0, :, 1].double()], 1))
    return replace(camera, c2w=turn @ camera.c2w[:1].double(), K=camera.K[:1].expand(len(turn), 3, 3).clone())


def focal(fov: float, width: float) -> float:
    """Focal length in pixels of a horizontal field of view in radians."""
    return width / 2 / math.tan(fov / 2)


def rotations(quats: Tensor) -> Tensor:
    """(N, 3, 3) of quaternions (N, 4), (w, x, y, z), of any length but 0; the axes are its columns."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, 1)


def look_at(position: Tensor, target: Tensor | None = None) -> Tensor:
    """c2w (V, 3, 4) of cameras at `position` (V, 3) that look at `target` (V, 3) (the origin), image up towards world +z.

    Straight above or below, where up is undefined, image up is -x or +x, the limit from azimuth 0.
    """
    p = position.double()
    back = p if target is None else p - target.double()
    back = back / back.norm(dim=-1, keepdim=True)
    right = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=p.device).expand_as(back), back)
    length = right.norm(dim=-1, keepdim=True)
    pole = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, device=p.device).expand_as(right)
    right = torch.where(length > 1e-9, right / length.clamp(min=1e-9), pole)
    up = torch.linalg.cross(back, right)
    return torch.stack([right, up, back, p], dim=-1)


def orbit(
    azimuth: Sequence[float] | Tensor,
    elevation: Sequence[float] | Tensor | float,
    distance: Sequence[float] | Tensor | float,
    *,
    size: int | tuple[int, int],
    fov: Sequence[float] | Tensor | float | None = None,
    ortho_scale: float | None = None,
) -> Camera:
    """Cameras on a sphere round the origin, looking at it.

    azimuth, elevation  radians, (V,) or one number; distance in object units
    size                pixels, square or (height, width)
    fov                 horizontal, radians: a perspective camera; or
    ortho_scale         the world width of the picture, object units: an orthographic camera
    """
    if (fov is None) == (ortho_scale is None):
        raise ValueError("orbit: give either fov or ortho_scale")
    h, w = (size, size) if isinstance(size, int) else size
    a, e, r = torch.broadcast_tensors(*(torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (azimuth, elevation, distance)))
    p = torch.stack([r * e.cos() * a.cos(), r * e.cos() * a.sin(), r * e.sin()], dim=-1)
    K = torch.eye(3, dtype=torch.float64).repeat(len(a), 1, 1)
    if fov is not None:
        f = w / 2 / torch.tan(torch.as_tensor(fov, dtype=torch.float64) / 2)
    else:
        f = torch.tensor(w / float(ortho_scale or 1), dtype=torch.float64)
    K[:, 0, 0] = K[:, 1, 1] = f
    K[:, 0, 2], K[:, 1, 2] = w / 2, h / 2
    c2w = look_at(p)
    if (poles := e.abs() > math.pi / 2 - 1e-9).any():  # keep the azimuth at the poles
        up = torch.stack([-a.cos() * e.sign(), -a.sin() * e.sign(), torch.zeros_like(a)], -1)
        back = p / p.norm(dim=-1, keepdim=True)
        c2w = torch.where(poles[:, None, None], torch.stack([torch.linalg.cross(up, back), up, back, p], -1), c2w)
    return Camera(c2w, K, (h, w), is_orthographic=fov is None)


# ---- borders: one named function each ----

_CV = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
_GLTF = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)  # (x, y, z) -> (y, z, x)


def to_opencv(c2w: Tensor) -> Tensor:
    """c2w (..., 3, 4) with OpenGL camera axes to OpenCV ones (x right, y down, looking along +z). Its own inverse."""
    return torch.cat([c2w[..., :3] @ _CV.to(c2w), c2w[..., 3:]], dim=-1)


def from_opencv(c2w: Tensor) -> Tensor:
    """The inverse of `to_opencv`, which is the same reflection of two axes."""
    return to_opencv(c2w)


def to_gltf(points: Tensor) -> Tensor:
    """World vectors (..., 3), points or normals, to glTF's frame: up +Y, front +Z."""
    return points @ _GLTF.mT.to(points)


def from_gltf(points: Tensor) -> Tensor:
    """The inverse of `to_gltf`."""
    return points @ _GLTF.to(points)


def from_colmap(quats: Tensor, translations: Tensor, K: Tensor, size: tuple[int, int]) -> Camera:
    """COLMAP's world-to-camera in OpenCV axes: quats (V, 4) as (w, x, y, z), translations (V, 3); K (V, 3, 3)."""
    R = rotations(quats.double())
    c2w = torch.cat([R.mT, -R.mT @ translations.double()[..., None]], dim=-1)
    return Camera(from_opencv(c2w), K.double(), size)


def looked_at(c2w: Tensor) -> tuple[Tensor, float]:
    """The point (3,) nearest to all optical axes, and the mean distance of the cameras (V, 3, 4) from it."""
    p, d = c2w[:, :, 3], -c2w[:, :, 2]
    A = torch.eye(3, dtype=d.dtype) - d[:, :, None] * d[:, None]  # to the part across the axis
    centre = torch.linalg.lstsq(A.sum(0) + 1e-9 * torch.eye(3, dtype=d.dtype), (A @ p[..., None]).sum(0)).solution[:, 0]
    return centre, float((p - centre).norm(dim=-1).mean())
