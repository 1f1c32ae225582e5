# SPDX-License-Identifier: Apache-2.0
"""A mesh that stays as it is, with colours that are optimised: the last stage of methods that sculpt first and paint afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.mesh import vertex_normals
from bozzetto.render.mesh import render_surface, silhouette
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.shape import Only, Step, Tensors, load_moments, moments
from bozzetto.shapes.uniform_adam import UniformAdam
from bozzetto.views import Views


class Painted(nn.Module):
    """No gradient reaches the vertices, so that no bit of them moves.

    vertices, faces  (N, 3) and (F, 3)
    colours          of the surface
    lr               largest step of the colours' logits
    """

    def __init__(self, vertices: Tensor, faces: Tensor, colours: ColourGrid, lr: float) -> None:
        super().__init__()
        self.vertices, self.faces, self.colours = vertices.detach(), faces, colours
        self.normals = vertex_normals(self.vertices, faces)
        self.tint = UniformAdam([colours.logits], lr=lr)  # Adam would move what is hardly pulled as far as the rest: speckles

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        if only == "alpha":
            return silhouette(self.vertices, self.faces, cameras)
        return render_surface(self.vertices, self.faces, self.normals, cameras, None if only == "depth" else self.colours)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """`even`: mean squared difference of neighbouring cells' logits, so that cells which no view shows keep to their neighbours."""
        logits = self.colours.logits
        return {"even": torch.stack([logits.diff(dim=axis).square().mean() for axis in (1, 2, 3)]).mean()}

    def begin(self, step: Step) -> None:
        self.zero_grad()

    def move(self, step: Step) -> None:
        self.tint.step()

    def surface(self) -> tuple[Tensor, Tensor]:
        return self.vertices, self.faces

    def state(self) -> Tensors:
        return {"colours": self.colours.logits.detach().clone()} | moments(self.tint, "tint")

    def restore(self, state: Tensors) -> None:
        self.colours.logits.data.copy_(state["colours"])
        load_moments(self.tint, state, "tint")
