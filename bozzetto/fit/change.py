# SPDX-License-Identifier: Apache-2.0
"""A change that views of a mesh show, laid onto its texture: colours are added, and where there is nothing to add, pixels stay.

Letters: V views of S x S pixels, T texels of a texture (H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.fit.settings import Within
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render.bake import blend, scatter, seen, texels
from bozzetto.render.extend import extend
from bozzetto.render.mesh import render_mesh, welded

FADE = 0.1  # `extend`'s: what nobody sees goes on over some three edges of the mesh, and no farther


@dataclass(frozen=True)
class Belief:
    """Which changes are meant, and which are a prior's own unrest: by the largest of the three channels, sRGB in [0, 1]."""

    kept: Annotated[float, Within(0, 1)] = 0.06
    """change up to which a texel keeps its pixels"""
    taken: Annotated[float, Within(0, 1)] = 0.12
    """change from which it is taken whole; a share of it in between"""


@brief
@dataclass(frozen=True)
class Edited:
    """A texture (H, W, 3), and how far each texel was changed, (H, W) in [0, 1]."""

    texture: Tensor
    share: Tensor


def laid_on(mesh: Mesh, cameras: Camera, change: Tensor, believed: Belief) -> Edited:
    """A mesh's texture with the change that its views show, (V, S, S, 3) in [-1, 1].

    Of a texel that several faces share, one of them decides; what no view sees goes on from its neighbours on the surface.
    """
    assert mesh.texture is not None and mesh.normals is not None
    views, (h, w) = render_mesh(mesh, cameras), mesh.texture.shape[:2]
    alpha, t = views.alpha[..., 0], texels(mesh, max(h, w))
    shown = (0.5 + change / 2) * views.alpha  # as a colour, premultiplied

    def look(points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        looks = [seen(points, normals, cameras[[k]], views.depth[k, ..., 0], shown[k], alpha[k]) for k in range(len(alpha))]
        colour, weight = blend(looks)
        return torch.where(weight[:, None] > 0, 2 * colour - 1, 0), (4 * weight).clamp(max=1)

    where, faces = welded(mesh)
    known, sure = look(where, vertex_normals(where, faces))
    spread = extend(faces, known, sure, fade=FADE)
    corner = faces[t.face.view(-1)[t.index]]
    hidden = (t.bary[..., None].to(spread) * spread[corner]).sum(1)
    told, weight = look(t.position, t.normal)
    delta = weight[:, None] * told + (1 - weight[:, None]) * hidden
    share = ((delta.abs().amax(1) - believed.kept) / max(believed.taken - believed.kept, 1e-6)).clamp(0, 1)
    laid = scatter(t, torch.cat([share[:, None] * delta, share[:, None]], 1))
    if laid.shape[:2] != (h, w):  # a texture that is not square
        laid = F.interpolate(laid.movedim(-1, 0)[None], (h, w), mode="bilinear", antialias=True)[0].movedim(0, -1)
    return Edited((mesh.texture + laid[..., :3]).clamp(0, 1), laid[..., 3].clamp(0, 1))


def smooth_normals(mesh: Mesh) -> Tensor:
    """(N, 3): as if vertices that seams have parted were one."""
    where, faces = welded(mesh)
    index = torch.empty(len(mesh.vertices), dtype=torch.long)
    index[mesh.faces.reshape(-1)] = faces.reshape(-1)
    return vertex_normals(where, faces)[index]
