# SPDX-License-Identifier: Apache-2.0
"""Gaussians as a `Shape` that grows: the published course of 3D Gaussian Splatting (arXiv:2308.04079), or of its MCMC (arXiv:2404.09591).

Published times are counted in PUBLISHED steps; a run of fewer has the same course, shrunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bozzetto.camera import Camera
from bozzetto.kernels.splat import Splats
from bozzetto.shapes.densify import Mcmc, Strategy
from bozzetto.shapes.gaussians import NAMES, Gaussians, means_rate
from bozzetto.shapes.looks import look, sphere, surface
from bozzetto.shapes.shape import Only, Step, Tensors
from bozzetto.views import Views

PUBLISHED = 30_000  # steps that all published times are counted in


class Growing(nn.Module):
    """How many Gaussians there are is the strategy's; harmonics warm up, the rate of the means falls.

    extent        the scene's radius: the unit of position rates
    degree        of the harmonics, reached by one each 1,000 published steps
    antialiased   opacities make up for the low-pass filter
    is_isotropic  all stay round; for ablations
    cells, views, size  of `surface`: the lattice along its longest side, how many cameras see it, pixels a side of each
    """

    def __init__(
        self,
        gaussians: Gaussians,
        strategy: Strategy,
        extent: float,
        *,
        degree: int,
        antialiased: bool = False,
        is_isotropic: bool = False,
        cells: int = 128,
        views: int = 64,
        size: int = 384,
    ) -> None:
        super().__init__()
        self.gaussians, self.strategy, self.extent, self.degree = gaussians, strategy, extent, degree
        self.antialiased, self.is_isotropic = antialiased, is_isotropic
        self.cells, self.views, self.size = cells, views, size
        self.optimiser = gaussians.optimiser(extent)
        self._drawn: tuple[Splats, tuple[int, int]] | None = None

    def begin(self, step: Step) -> None:
        scale = step.of / PUBLISHED
        self.gaussians.degree = min(self.degree, int(step.number / max(1, 1_000 * scale)))
        for group in self.optimiser.param_groups:
            if group["name"] == "means":
                group["lr"] = means_rate(step.number + 1, step.of, self.extent)
        self.optimiser.zero_grad(set_to_none=True)

    def draw(self, camera: Camera, background: Tensor) -> Tensor:
        """One picture (H, W, 3) over a colour (3,); what densification wants to know of it is remembered until `move`."""
        drawn = self.gaussians.draw(camera, background=background, antialiased=self.antialiased)
        if drawn.xy.requires_grad:
            drawn.xy.retain_grad()
        self._drawn = drawn, camera.size
        return drawn.rgb[0]

    def move(self, step: Step) -> None:
        g = self.gaussians
        if self._drawn is not None:
            self.strategy.watch(*self._drawn)
            self._drawn = None
        if self.is_isotropic and g.log_scales.grad is not None:  # they begin alike, and alike they stay
            g.log_scales.grad = g.log_scales.grad.mean(-1, keepdim=True).expand(-1, 3).contiguous()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.strategy.after_step(g, self.optimiser, step.number + 1, generator=step.generator)

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        return self.gaussians.render(cameras, only=only, antialiased=self.antialiased)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """`regulariser` of MCMC."""
        return {"regulariser": self.strategy.regulariser(self.gaussians)} if isinstance(self.strategy, Mcmc) else {}

    @torch.no_grad()
    def surface(self) -> tuple[Tensor, Tensor]:
        """The fused depths from a sphere of cameras."""
        return surface(look(self.gaussians, sphere(self.gaussians, self.views, self.size)), self.cells)

    def state(self) -> Tensors:
        tensors = self.gaussians.tensors() | {f"strategy.{k}": v for k, v in self.strategy.state().items()}
        for group in self.optimiser.param_groups:
            tensors |= {f"{group['name']}.{k}": v for k, v in self.optimiser.state[group["params"][0]].items()}
        return tensors

    def restore(self, state: Tensors) -> None:
        self.gaussians = Gaussians(**{name: state[name] for name in NAMES})
        self.optimiser = self.gaussians.optimiser(self.extent)
        for name in NAMES:
            parameter = getattr(self.gaussians, name)
            self.optimiser.state[parameter] = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        self.strategy.restore({k.removeprefix("strategy."): v for k, v in state.items() if k.startswith("strategy.")})
