# SPDX-License-Identifier: Apache-2.0
"""A DMTet as a `Shape`: an SDF on a tetrahedral grid, coarse and then refined, with a grid of colours or without.

Two courses are in use. Against one silhouette, Adam optimises the SDF and the offsets of the grid's vertices (nvdiffrec,
arXiv:2111.12503). Under score distillation, where in each view only the outline has a gradient, the gradient is averaged over
neighbours and all values share one step size (`uniform_adam`), so that the surface moves smoothly; the grid's vertices stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.render.mesh import render_surface, silhouette
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet, area_normals, normal_consistency
from bozzetto.shapes.shape import Only, Step, Tensors, load_moments, moments
from bozzetto.shapes.uniform_adam import UniformAdam
from bozzetto.views import Views


@dataclass(frozen=True)
class Course:
    """How the SDF is optimised.

    lr         step of the distances, in grid cells
    fall       what is left of it at the end, as a factor
    smooth     passes over neighbours that average the gradient; 0 takes Adam, which moves each number by itself, and offsets too
    still      share of the steps after which the shape stays and only colours move
    colour_lr  step of the colours' logits
    """

    lr: float
    fall: float = 1.0
    smooth: int = 0
    still: float = 1.0
    colour_lr: float = 0.0


class Tets(nn.Module):
    """The grid is subdivided round the surface once, halfway through the steps. Loss `keep` is the distance to the first SDF.

    dmtet    the SDF and its grid
    course   how it is optimised
    colours  of the surface; mid grey without
    """

    def __init__(self, dmtet: DMTet, course: Course, colours: ColourGrid | None = None) -> None:
        super().__init__()
        self.dmtet, self.course, self.colours = dmtet, course, colours
        self.home = dmtet.sdf.detach().clone()
        self._surface: tuple[Tensor, Tensor, Tensor] | None = None
        self.moves = True
        self._optimisers()

    def _optimisers(self) -> None:
        course, dmtet = self.course, self.dmtet
        dmtet.offset.requires_grad_(course.smooth == 0)
        self.bend: torch.optim.Optimizer = (
            UniformAdam([dmtet.sdf]) if course.smooth else torch.optim.Adam([{"params": [dmtet.sdf]}, {"params": [dmtet.offset]}])
        )
        self.tint = None if self.colours is None else torch.optim.Adam([self.colours.logits], lr=course.colour_lr, betas=(0.9, 0.99))

    def begin(self, step: Step) -> None:
        if step.number == step.of // 2:
            self.home = self.home[self.dmtet.subdivide()].mean(1)
            self._optimisers()
        self.moves, self._surface = step.number < self.course.still * step.of, None
        # Distances move by a share of a grid cell, offsets by a share of their reach.
        rate = self.course.lr * self.course.fall**step.share
        for group, unit in zip(self.bend.param_groups, (self.dmtet.grid.spacing, 1.0), strict=False):
            group["lr"] = rate * unit
        self.zero_grad()

    def move(self, step: Step) -> None:
        if self.moves:
            if self.course.smooth:
                self.dmtet.smooth_gradients(self.course.smooth)
            self.bend.step()
            self.dmtet.recover()
        if self.tint is not None:
            self.tint.step()
        self._surface = None

    def surface(self) -> tuple[Tensor, Tensor]:
        vertices, faces, _ = self._seen()
        return vertices, faces

    def _seen(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices, faces and normals, found once a step."""
        if self._surface is None:
            vertices, faces = self.dmtet.surface()
            vertices = vertices if self.moves else vertices.detach()
            self._surface = vertices, faces, area_normals(vertices, faces)
        return self._surface

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        vertices, faces, normals = self._seen()
        if only == "alpha":
            return silhouette(vertices, faces, cameras)
        return render_surface(vertices, faces, normals, cameras, None if only == "depth" else self.colours)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """`keep`: how far the field is from its first one, squared grid cells; `smooth`: normals of neighbouring vertices; `sign`:
        floating bits and cavities."""
        vertices, faces, normals = self._seen()
        keep = ((self.dmtet.sdf - self.home) / self.dmtet.grid.spacing).square().mean()
        return {"keep": keep, "smooth": normal_consistency(vertices, faces, normals), "sign": self.dmtet.sign_loss()}

    def state(self) -> Tensors:
        kept = {f"dmtet.{k}": v for k, v in self.dmtet.state_dict().items()} | {"home": self.home} | moments(self.bend, "bend")
        if self.colours is not None and self.tint is not None:
            kept |= {"colours": self.colours.logits} | moments(self.tint, "tint")
        return kept

    def restore(self, state: Tensors) -> None:
        self.dmtet, self.home = DMTet.from_state(_below("dmtet", state)), state["home"]
        if self.colours is not None:
            self.colours.logits.data.copy_(state["colours"])
        self._optimisers()
        load_moments(self.bend, state, "bend")
        if self.tint is not None:
            load_moments(self.tint, state, "tint")
        self._surface = None


def _below(prefix: str, state: Mapping[str, Tensor]) -> Tensors:
    return {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")}
