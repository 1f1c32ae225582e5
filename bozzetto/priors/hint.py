# SPDX-License-Identifier: Apache-2.0
"""The geometric hint: a rough surface rendered into the views that a diffusion prior is asked for.

A view-conditioned network has to discover projective geometry from examples, and a small one does not get far. A guess of the
shape, with the picture's own pixels carried to wherever it says they go, hands it that geometry: it is left to mend what the
guess got wrong. The network sees the rendered colours as a latent, and beside them, averaged over its cells, how far the guess
covers a cell, how much of that the picture shows, how deep it lies and where it faces.

Kin: the depth-conditioned inpainting of SD-inpaint, and One-2-3-45's feed-forward start; ours, of no paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.kernels.antialias import antialias
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize
from bozzetto.mesh import vertex_normals
from bozzetto.render.bake import seen

PLANES = 6  # coverage, carried, depth, normal
FRAME = 1.5  # width of a prior's pictures at the object's centre, in longest sides of the object's box: Zero-1-to-3 has 1.4 to 2

Carried = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points and unit normals (P, 3) to sRGB (P, 3) and how far the picture shows them, (P,) in [0, 1]."""


@brief
@dataclass(frozen=True)
class Hint:
    """What the rough surface looks like from some cameras.

    rgb     (V, H, W, 3) sRGB, premultiplied
    planes  (V, H, W, PLANES): coverage and share carried in [0, 1]; depth behind the origin in picture widths at the origin;
            unit normal along the camera's right, up and back; all but the first times coverage
    """

    rgb: Tensor
    planes: Tensor

    def over(self, background: float) -> Tensor:
        """rgb (V, H, W, 3) on a grey."""
        return self.rgb + (1 - self.planes[..., :1]) * background

    def cells(self, side: int) -> Tensor:
        """planes (V, PLANES, side, side), averaged."""
        return F.adaptive_avg_pool2d(self.planes.movedim(-1, 1), side)


def carried(
    rgb: Tensor, alpha: Tensor, camera: Camera, vertices: Tensor, faces: Tensor, guessed: Callable[[Tensor, Tensor], Tensor]
) -> Carried:
    """Colours of a surface: the picture's where it shows the surface, guessed ones where it does not.

    rgb, alpha  (H, W, 3) premultiplied and (H, W), of one camera's size
    guessed     points and normals (P, 3) to sRGB (P, 3)
    """
    clip = camera.clip(vertices)
    depth = _depth(rasterize(clip, faces, camera.size), camera)[0]

    def colour(points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        found, weight = seen(points, normals, camera, depth, rgb, alpha, power=1.0, margin=1.0)
        weight = (2 * weight).clamp(max=1)  # whatever is not nearly edge-on is taken as it is
        return weight[:, None] * found + (1 - weight[:, None]) * guessed(points, normals), weight

    return colour


@torch.no_grad()
def hint(vertices: Tensor, faces: Tensor, cameras: Camera, colour: Carried) -> Hint:
    """Render a surface (N, 3), (F, 3) round the origin into perspective cameras that look at the origin."""
    clip = cameras.clip(vertices)
    rast = rasterize(clip, faces, cameras.size)
    inside = interpolate(torch.cat([vertices, vertex_normals(vertices, faces)], 1), rast, clip, faces)
    covered = rast[..., 3] > 0
    point, normal = inside[..., :3][covered], F.normalize(inside[..., 3:][covered], dim=-1)
    rgb, share = colour(point, normal)
    distance = cameras.position.norm(dim=-1)
    width = distance * cameras.size[1] / cameras.K[:, 0, 0]  # of the picture, at the origin
    depth = (_depth(rast, cameras) - distance[:, None, None]) / width[:, None, None]
    turned = torch.einsum("pi,pij->pj", normal.double(), cameras.c2w[:, :, :3][covered.nonzero()[:, 0]]).to(normal)
    each = torch.cat([rgb.to(point), torch.ones_like(point[:, :1]), share[:, None].to(point), depth[covered][:, None].to(point), turned], 1)
    image = point.new_zeros(*covered.shape, 3 + PLANES).masked_scatter(covered[..., None], each)
    image = antialias(image, rast, clip, faces)
    return Hint(image[..., :3], image[..., 3:])


def _depth(rast: Tensor, cameras: Camera) -> Tensor:
    """(V, H, W) along the axis, 0 where nothing is."""
    return cameras.depth_of(rast[..., 2]) * (rast[..., 3] > 0)
