# SPDX-License-Identifier: Apache-2.0
"""Gaussians on a surface as a `Shape`: flat, of a fixed number, optimised to match pictures.

Rates: Tang et al. 2023, DreamGaussian (arXiv:2309.16653). Differs: they begin on a surface and are neither
cloned, split nor pruned; harmonics stay at degree 0, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.mesh import vertex_normals
from bozzetto.shapes.gaussians import ADAM_EPS, NAMES, Gaussians
from bozzetto.shapes.looks import look, sphere, surface
from bozzetto.shapes.shape import Only, Step, Tensors, load_moments, moments
from bozzetto.views import Views

RATES = {"means": 1e-3, "log_scales": 5e-3, "quats": 5e-3, "logit_opacities": 5e-2, "sh0": 1e-2}  # DreamGaussian's
FINAL_MEANS = 2e-5  # as there: the rate falls log-linearly from the one to the other
FIRST_OPACITY = 0.9  # they are a surface already
FLAT = 0.2  # thickness of a Gaussian, over its width


def on_surface(vertices: Tensor, faces: Tensor, colours: Callable[[Tensor, Tensor], Tensor]) -> Gaussians:
    """A disc on each vertex (N, 3), across the surface's normal, all as wide as their mean spacing."""
    normals = vertex_normals(vertices, faces)
    corners = vertices[faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum() / 2
    g = Gaussians.from_points(vertices, colours(vertices, normals).clamp(0, 1))
    width = float((area / len(vertices)).sqrt())
    up = normals * torch.where(normals[:, 2:] < 0, -1.0, 1.0)  # a disc has two like sides; this one's half-way vector to z has a length
    with torch.no_grad():
        g.log_scales[:] = torch.tensor([width, width, FLAT * width]).log()
        g.quats[:] = F.normalize(torch.stack([1 + up[:, 2], -up[:, 1], up[:, 0], torch.zeros(len(up))], 1), dim=1)
        g.logit_opacities.fill_(math.log(FIRST_OPACITY / (1 - FIRST_OPACITY)))
    g.degree = 0
    return g


class Discs(nn.Module):
    """A fixed number of Gaussians.

    unit    of length in which `keep` counts
    cells, views, size  of `surface`: the lattice along its longest side, how many cameras see it, pixels a side of each
    """

    def __init__(self, gaussians: Gaussians, unit: float, *, cells: int = 112, views: int = 40, size: int = 288) -> None:
        super().__init__()
        self.gaussians, self.unit = gaussians, unit
        self.cells, self.views, self.size = cells, views, size
        self.home = gaussians.means.detach().clone()
        self._optimiser()

    def _optimiser(self) -> None:
        groups = [{"params": [getattr(self.gaussians, k)], "lr": v, "name": k} for k, v in RATES.items()]
        self.optimiser = torch.optim.Adam(groups, eps=ADAM_EPS)

    def begin(self, step: Step) -> None:
        self.optimiser.param_groups[0]["lr"] = RATES["means"] * (FINAL_MEANS / RATES["means"]) ** step.share
        self.zero_grad()

    def move(self, step: Step) -> None:
        self.optimiser.step()

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        return self.gaussians.render(cameras, only=only, median=False)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """`keep`: how far they are from where they began, squared units."""
        return {"keep": ((self.gaussians.means - self.home) / self.unit).square().mean()}

    @torch.no_grad()
    def surface(self) -> tuple[Tensor, Tensor]:
        """The fused depths from a sphere of cameras."""
        return surface(look(self.gaussians, sphere(self.gaussians, self.views, self.size), median=False), self.cells)

    def state(self) -> Tensors:
        return self.gaussians.tensors() | {"home": self.home} | moments(self.optimiser)

    def restore(self, state: Tensors) -> None:
        degree = self.gaussians.degree
        self.gaussians, self.home = Gaussians(*(state[k] for k in NAMES)), state["home"]
        self.gaussians.degree = degree
        self._optimiser()
        load_moments(self.optimiser, state)
