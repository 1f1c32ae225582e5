# SPDX-License-Identifier: Apache-2.0
"""Textures from fields and from pictures: where each texel lies on the surface, and what is to be seen there.

Baking rasterises the mesh in uv space (x = 2u - 1, y = 2v - 1; both clip space and our v run downwards, so nothing is
flipped) and asks a field at the points found. Texels just outside a chart, which bilinear lookup of points inside it
touches, get the point where the chart's plane continues, so that a linear field is reproduced up to the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.kernels import pool
from bozzetto.kernels.pool import njit
from bozzetto.kernels.rasterize import rasterize_arrays
from bozzetto.mesh import Mesh, vertex_normals

RING = 2  # texels by which charts continue: bilinear lookup reaches one from a point that is up to one from a covered texel
REACH = 8.0  # mean texel widths by which a continued point may leave its face: a ring at stretch 3; slivers' planes run away


@dataclass(frozen=True)
class Texels:
    """Where the texels of a square texture lie on a surface; T of them do.

    mask      (R, R) bool: the texel has a point: its centre is in a face, or it is one of the RING round a chart
    face      (R, R) int64: the face that owns it, -1 where there is none
    core      (R, R) bool: its centre is in that face
    index     (T,) int64: row * R + column of each, ascending
    bary      (T, 3) float64: weights of the face's three corners; some negative outside `core`
    position  (T, 3) float32, object units
    normal    (T, 3) float32, unit, world frame
    """

    mask: Tensor
    face: Tensor
    core: Tensor
    index: Tensor
    bary: Tensor
    position: Tensor
    normal: Tensor


def texels(mesh: Mesh, resolution: int) -> Texels:
    """Rasterise in uv space. Faces too small to cover a texel centre own the texel they lie in, if it is free.

    raises ValueError for a mesh without uv
    """
    if mesh.uv is None:
        raise ValueError("texels: the mesh has no uv; call unwrap first")
    if resolution < 1:
        raise ValueError(f"texels: expected a positive resolution, got {resolution}")
    faces = np.ascontiguousarray(mesh.faces.cpu().numpy())
    uv = mesh.uv.detach().cpu().double().numpy()
    clip = np.concatenate([2 * uv - 1, np.zeros_like(uv[:, :1]), np.ones_like(uv[:, :1])], axis=1)
    rast = np.zeros((resolution, resolution, 4), np.float32)
    rasterize_arrays(np.ascontiguousarray(clip), faces.astype(np.int32), rast)
    owner = rast[..., 3].astype(np.int64) - 1  # exact below 2^24 faces
    core = owner >= 0
    small = np.setdiff1d(np.arange(len(faces)), owner)[::-1]  # of two in one texel the last written stays: the lower index
    at = (uv[faces[small]].mean(1) * resolution).astype(np.int64).clip(0, resolution - 1)
    free = ~core[at[:, 1], at[:, 0]]
    owner[at[free, 1], at[free, 0]] = small[free]
    source = np.where(owner >= 0, np.arange(resolution**2).reshape(owner.shape), -1)
    for _ in range(RING):
        grown = source.copy()
        _spread(source, grown)
        source = grown
    index = np.flatnonzero(source.ravel() >= 0)
    source = source.ravel()[index]
    face = owner.ravel()[source]
    smooth = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    vertices, normals = (x.detach().cpu().double().numpy() for x in (mesh.vertices, smooth))
    bary = np.empty((len(index), 3))
    position, normal = np.empty((len(index), 3), np.float32), np.empty((len(index), 3), np.float32)
    reach = REACH * _width(vertices, faces, uv, resolution)
    surface = (faces, uv, vertices, normals)
    pool.run(_place, len(index), index, face, core.ravel(), *surface, reach, resolution, bary, position, normal, grain=4096)
    owned = np.full(core.shape, -1)
    owned.ravel()[index] = face
    arrays = (owned >= 0, owned, core, index, bary, position, normal)
    return Texels(*(torch.from_numpy(x).to(mesh.vertices.device) for x in arrays))


def scatter(t: Texels, values: Tensor) -> Tensor:
    """Values (T, C) of texels to their places, the rest dilated: (R, R, C)."""
    image = values.new_zeros((t.mask.numel(), values.shape[1]))
    image[t.index.to(values.device)] = values
    return dilate(image.view(*t.mask.shape, -1), t.mask)


def dilate(image: Tensor, mask: Tensor, rounds: int | None = None) -> Tensor:
    """Texels outside `mask` (R, R) take the nearest masked one's value: all of them, so that no mip level mixes in what
    was there, or those within `rounds` texels. image (R, R, C); with an empty mask it comes back as it is."""
    inside = mask.cpu().numpy()
    if not inside.any():
        return image.clone()
    if rounds is None:
        at = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    else:
        distance, at = distance_transform_edt(~inside, return_indices=True)
        here = distance > rounds
        at = np.where(here, np.indices(inside.shape), at)
    flat = torch.from_numpy(at[0].astype(np.int64) * inside.shape[1] + at[1]).to(image.device)
    return image.reshape(inside.size, -1)[flat.view(-1)].view(image.shape)


def seen(
    positions: Tensor,
    normals: Tensor,
    camera: Camera,
    depth: Tensor,
    rgb: Tensor,
    alpha: Tensor,
    *,
    power: float = 2.0,
    tolerance: float = 0.01,
    margin: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """What one picture says about points of a surface.

    positions, normals   (T, 3), world, unit normals
    camera               one; depth (H, W) along its axis, 0 where nothing is; rgb (H, W, 3) premultiplied by alpha (H, W)
    power                weight = max(0, n . v)^power, v towards the camera, times the fade at the mask's edge
    tolerance            object units by which a point may lie behind `depth`, beside the slope within a pixel
    margin               pixels from the edge of the mask at which the weight has risen to its full value; 0 at the edge
    returns              colour (T, 3), not premultiplied, and weight (T,) in [0, 1]: 0 where the point is hidden, turned away,
                         out of the picture, or beside a jump in depth whose colours mix
    """
    if len(camera) != 1 or depth.shape != camera.size or rgb.shape != (*camera.size, 3) or alpha.shape != camera.size:
        shapes = f"{tuple(depth.shape)}, {tuple(rgb.shape)}, {tuple(alpha.shape)}"
        raise ValueError(f"seen: expected one camera and depth, rgb, alpha of its size {camera.size}, got {len(camera)} and {shapes}")
    h, w = camera.size
    pixel, z = (x[0] for x in camera.project(positions))
    if camera.is_orthographic:
        to_camera = camera.c2w[:, :, 2].to(positions).expand_as(positions)
        footprint = torch.ones_like(z) / camera.K[0, 0, 0].to(z)
    else:
        to_camera = torch.nn.functional.normalize(camera.position.to(positions) - positions, dim=1)
        footprint = z / camera.K[0, 0, 0].to(z)
    cosine = (normals * to_camera).sum(1).clamp(min=0)
    u, v = pixel[:, 0] - 0.5, pixel[:, 1] - 0.5  # in pixel centres
    inside = (u >= 0) & (u <= w - 1) & (v >= 0) & (v <= h - 1) & (z > 0)
    u, v = u.nan_to_num().clamp(0, w - 1), v.nan_to_num().clamp(0, h - 1)
    i, j = u.long().clamp(max=max(w - 2, 0)), v.long().clamp(max=max(h - 2, 0))
    a, b = u - i, v - j
    right, down = min(1, w - 1), min(1, h - 1)
    corners = [j * w + i, j * w + i + right, (j + down) * w + i, (j + down) * w + i + right]
    shares = [(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]
    edge = torch.from_numpy(distance_transform_edt(np.pad((alpha > 0.99).cpu().numpy(), 1))[1:-1, 1:-1]).to(z)  # picture's border too

    def look(picture: Tensor) -> Tensor:
        flat = picture.reshape(h * w, -1).to(positions)
        return torch.stack([s[:, None] * flat[c] for s, c in zip(shares, corners, strict=True)]).sum(0)

    flat = depth.reshape(-1).to(z)
    nearest = torch.stack([flat[c] for c in corners])
    slope = (1 - cosine**2).clamp(min=0).sqrt() / cosine.clamp(min=0.1)  # depth along one pixel: 0.1 caps it where weights vanish
    # The nearest of four pixels decides: one that sees something else would give its colour away.
    is_seen = (nearest > 0).all(0) & (z <= nearest.amin(0) + tolerance + 1.5 * footprint * slope)
    fade = ((look(edge)[:, 0] - 1) / margin).clamp(0, 1) if margin > 0 else torch.ones_like(z)
    weight = torch.where(inside & is_seen, cosine**power * fade, torch.zeros_like(z))
    colour = look(rgb) / look(alpha).clamp(min=1e-4)  # an alpha that small has weight 0
    return torch.where(weight[:, None] > 0, colour, torch.zeros_like(colour)).clamp(0, 1), weight


def blend(looks: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Several pictures' (colour (T, 3), weight (T,)) to their weighted mean and the sum of weights; 0 where nobody sees."""
    total = torch.stack([w for _, w in looks]).sum(0)
    colour = torch.stack([c * w[:, None] for c, w in looks]).sum(0)
    return torch.where(total[:, None] > 0, colour / total.clamp(min=1e-30)[:, None], colour), total


@njit
def _spread(source, grown):
    """One ring more: neighbours of owned texels take their source, beside before diagonal."""
    h, w = source.shape
    for r in range(h):
        for c in range(w):
            if source[r, c] >= 0:
                continue
            for diagonal in range(2):
                for k in range(4):
                    dr = (-1, 0, 0, 1)[k] if diagonal == 0 else (-1, -1, 1, 1)[k]
                    dc = (0, -1, 1, 0)[k] if diagonal == 0 else (-1, 1, -1, 1)[k]
                    if 0 <= r + dr < h and 0 <= c + dc < w and source[r + dr, c + dc] >= 0 and grown[r, c] < 0:
                        grown[r, c] = source[r + dr, c + dc]


@njit
def _place(lo, hi, index, face, core, faces, uv, vertices, normals, reach, resolution, bary, position, normal):
    """Weights, point and normal of each texel; outside its face the weights are clipped where the plane leads too far."""
    w = np.zeros(3)
    for t in range(lo, hi):
        i, j, k = faces[face[t], 0], faces[face[t], 1], faces[face[t], 2]
        x, y = (index[t] % resolution + 0.5) / resolution - uv[i, 0], (index[t] // resolution + 0.5) / resolution - uv[i, 1]
        ax, ay, bx, by = uv[j, 0] - uv[i, 0], uv[j, 1] - uv[i, 1], uv[k, 0] - uv[i, 0], uv[k, 1] - uv[i, 1]
        area = ax * by - ay * bx
        w[1] = (x * by - y * bx) / area if area != 0 else 1.0 / 3
        w[2] = (ax * y - ay * x) / area if area != 0 else 1.0 / 3
        w[0] = 1 - w[1] - w[2]
        if not core[index[t]]:
            total = max(0.0, w[0]) + max(0.0, w[1]) + max(0.0, w[2])  # at least 1
            step = 0.0
            for m in range(3):
                step += (
                    (max(0.0, w[0]) / total - w[0]) * vertices[i, m]
                    + (max(0.0, w[1]) / total - w[1]) * vertices[j, m]
                    + (max(0.0, w[2]) / total - w[2]) * vertices[k, m]
                ) ** 2
            if not step < reach * reach:
                for m in range(3):
                    w[m] = max(0.0, w[m]) / total
        length = 0.0
        for m in range(3):
            bary[t, m] = w[m]
            position[t, m] = w[0] * vertices[i, m] + w[1] * vertices[j, m] + w[2] * vertices[k, m]
            length += (w[0] * normals[i, m] + w[1] * normals[j, m] + w[2] * normals[k, m]) ** 2
        length = np.sqrt(length)
        for m in range(3):
            if length > 1e-6:
                normal[t, m] = (w[0] * normals[i, m] + w[1] * normals[j, m] + w[2] * normals[k, m]) / length
            else:  # opposite normals at the corners
                normal[t, m] = 1.0 if m == 2 else 0.0


def _width(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, resolution: int) -> float:
    """A texel's width on the surface, in the mean: sqrt of surface area over its texels."""
    p, q = vertices[faces], uv[faces]
    a, b = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    area = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1).sum()
    return float(np.sqrt(area / max(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), 1e-12)) / resolution)
