# SPDX-License-Identifier: Apache-2.0
"""`Shape`: the protocol of what is optimised, a mesh, Gaussians or a field; and what all shapes share.

A shape renders itself, has its own optimiser (only it knows which learning rates suit it), refines itself in the course of a run, and
gives a surface in the end. The loop (`bozzetto.fit.loop`) knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.views import Views

Tensors = dict[str, Tensor]
Only = Literal["alpha", "colour", "depth"]


@dataclass(frozen=True)
class Step:
    """Where a run stands.

    number     of the step, from 0
    of         steps in all
    generator  draws all that is random in the run
    """

    number: int
    of: int
    generator: torch.Generator

    @property
    def share(self) -> float:
        """Done before this step, in [0, 1)."""
        return self.number / self.of


class Shape(Protocol):
    """Geometry and colours with gradients."""

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        """Pictures (V, H, W), with gradients.

        only  what the caller will read: `alpha`, `colour` for alpha and rgb, or `depth` for alpha and depth; the rest may be anything
              then, and costs as little as can be
        """
        ...

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Its own regularisers by name, unweighted scalars."""
        ...

    def begin(self, step: Step) -> None:
        """Before a step's losses: refine where the course says so, set the rates, forget the last gradients."""
        ...

    def move(self, step: Step) -> None:
        """After backward: one step of its own optimiser."""
        ...

    def surface(self) -> tuple[Tensor, Tensor]:
        """Vertices (N, 3) and faces (F, 3), closed, counter-clockwise from outside.

        raises  EmptySurface where there is none
        """
        ...

    def state(self) -> Tensors:
        """All that a run needs to go on, the optimiser's moments too."""
        ...

    def restore(self, state: Tensors) -> None:
        """The inverse of `state`."""
        ...


def moments(optimiser: torch.optim.Optimizer, name: str = "adam") -> Tensors:
    """What an optimiser remembers of each parameter, as named tensors; `load_moments` is the inverse."""
    rows = optimiser.state_dict()["state"]
    return {f"{name}.{i}.{k}": v for i, row in rows.items() for k, v in row.items()}


def load_moments(optimiser: torch.optim.Optimizer, kept: Mapping[str, Tensor], name: str = "adam") -> None:
    """Names that do not begin with `name` are passed over."""
    state = optimiser.state_dict()
    for key, value in kept.items():
        if key.startswith(f"{name}."):
            _, i, k = key.split(".")
            state["state"].setdefault(int(i), {})[k] = value
    optimiser.load_state_dict(state)
