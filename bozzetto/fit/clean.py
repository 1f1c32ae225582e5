# SPDX-License-Identifier: Apache-2.0
"""A surface as it comes out of an optimisation becomes a clean mesh, in the frame that assets have."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.mesh import Mesh
from bozzetto.render.clean import decimate, remove_floaters, taubin


@brief
@dataclass(frozen=True)
class Clean:
    """vertices (N, 3) in the asset's frame: box centred, longest side 1; faces (F, 3); x = (crop's x - centre) scale."""

    vertices: Tensor
    faces: Tensor
    centre: Tensor
    scale: Tensor

    def in_crop(self, x: Tensor) -> Tensor:
        """Points (N, 3) of the asset's frame in the crop's."""
        return x / self.scale + self.centre

    def camera(self, crop: Camera) -> Camera:
        """A camera of the crop's frame in the asset's."""
        c2w = torch.cat([crop.c2w[:, :, :3], ((crop.c2w[:, :, 3] - self.centre.double()) * float(self.scale))[..., None]], -1)
        return replace(crop, c2w=c2w)


def tidy(vertices: Tensor, faces: Tensor, most: int, floater: float = 0.01) -> Clean:
    """Floaters off (parts with less than a share of the faces), smoothed, at most so many faces, box centred, longest side 1."""
    mesh = remove_floaters(Mesh(vertices, faces), floater)
    mesh = decimate(replace(mesh, vertices=taubin(mesh.vertices, mesh.faces, 6)), most)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centre, scale = (low + high) / 2, 1 / (high - low).max()
    return Clean((mesh.vertices - centre) * scale, mesh.faces, centre, scale)
