# SPDX-License-Identifier: Apache-2.0
"""Surfaces to pictures, with gradients: the one mesh renderer, built from the four kernels.

Colours are asked of a function of the surface point, or read from the mesh's texture; masks and colours are antialiased
together, so that silhouettes move vertices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.kernels.antialias import antialias
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize
from bozzetto.kernels.texture import texture
from bozzetto.mesh import Mesh
from bozzetto.views import Views

Colour = Callable[[Tensor, Tensor], Tensor]


def render_surface(vertices: Tensor, faces: Tensor, normals: Tensor, cameras: Camera, colour: Colour | None = None) -> Views:
    """Pictures of a surface.

    vertices, normals  (N, 3) float32, world; gradients flow to vertices through silhouettes, shading and depth
    faces              (F, 3), sharing vertices wherever the surface goes on
    colour             (points (P, 3), unit normals (P, 3)) to sRGB (P, 3); mid grey if None
    """
    clip = cameras.clip(vertices)
    rast = rasterize(clip, faces, cameras.size)
    inside = interpolate(torch.cat([vertices, normals], 1), rast, clip, faces)
    seen = rast[..., 3] > 0
    point, normal = inside[..., :3], F.normalize(inside[..., 3:], dim=-1)
    rgb = torch.full_like(point, 0.5) * seen[..., None]
    if colour is not None:
        rgb = torch.zeros_like(point).masked_scatter(seen[..., None], colour(point[seen], normal[seen]).to(point))
    position, back = (cameras.c2w[:, None, None, :, k].to(point) for k in (3, 2))
    depth = ((position - point) * back).sum(-1, keepdim=True)  # of the point, and not of `rast`, which has no gradient
    return _views(rgb, depth, rast, seen, normal, clip, faces, cameras)


def silhouette(vertices: Tensor, faces: Tensor, cameras: Camera) -> Views:
    """Coverage alone, at a fraction of the cost; all else is zeros. As `render_surface` has it."""
    clip = cameras.clip(vertices)
    rast = rasterize(clip, faces, cameras.size)
    alpha = antialias((rast[..., 3:] > 0).to(vertices), rast, clip, faces)
    nothing = torch.zeros_like(alpha).expand(-1, -1, -1, 3)
    return Views(nothing, alpha, torch.zeros_like(alpha), nothing, cameras)


def render_mesh(mesh: Mesh, cameras: Camera, light: Callable[[Tensor, Tensor], Tensor] | None = None) -> Views:
    """Pictures of a textured mesh (seams and all); `light` turns sRGB (..., 3) and world normals (..., 3) into lit sRGB."""
    if mesh.normals is None:
        raise ValueError("render_mesh: the mesh has no normals; add them with bozzetto.mesh.vertex_normals")
    where, faces = welded(mesh)
    clip = cameras.clip(where)
    rast = rasterize(clip, faces, cameras.size)
    seen = rast[..., 3] > 0
    normal = F.normalize(interpolate(mesh.normals, rast, clip, faces, mesh.faces), dim=-1)
    if mesh.uv is None or mesh.texture is None:
        rgb = torch.full_like(normal, 0.5)
    else:
        rgb = texture(mesh.texture[None], interpolate(mesh.uv, rast, clip, faces, mesh.faces))
    if light is not None:
        rgb = light(rgb, normal)
    depth = cameras.depth_of(rast[..., 2:3].to(rgb))
    return _views(rgb * seen[..., None], depth, rast, seen, normal, clip, faces, cameras)


def headlight(cameras: Camera, ambient: float = 0.55) -> Callable[[Tensor, Tensor], Tensor]:
    """Soft light from the camera's side, for looking at shapes: a `light` for `render_mesh` on one camera or a batch."""
    eye = F.normalize(cameras.c2w[:, :, 2] + 0.5 * cameras.c2w[:, :, 1] - 0.3 * cameras.c2w[:, :, 0], dim=-1)

    def lit(rgb: Tensor, normal: Tensor) -> Tensor:
        cosine = (normal * eye[:, None, None].to(normal)).sum(-1, keepdim=True).clamp(min=0)
        return (rgb.clamp(0, 1) ** 2.2 * (ambient + (1.15 - ambient) * cosine)).clamp(min=1e-8, max=1) ** (1 / 2.2)

    return lit


def _views(rgb: Tensor, depth: Tensor, rast: Tensor, seen: Tensor, normal: Tensor, clip: Tensor, faces: Tensor, cameras: Camera) -> Views:
    mask = seen[..., None].to(rgb)
    smooth = antialias(torch.cat([rgb, mask], -1), rast, clip, faces)
    return Views(smooth[..., :3], smooth[..., 3:], depth * mask, normal * mask, cameras)


def welded(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Positions and faces with seam duplicates as one vertex again: silhouettes need neighbours."""
    unique, index = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    return unique, index[mesh.faces]
