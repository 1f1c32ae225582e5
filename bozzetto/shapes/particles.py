# SPDX-License-Identifier: Apache-2.0
"""Several shapes as one: the particles of variational score distillation (ProlificDreamer, arXiv:2305.16213, Alg. 1).

Each step draws one of them, renders it and moves it; what learns from the renderings (`fit.learning.Variational`) sees all in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.shapes.shape import Only, Shape, Step, Tensors
from bozzetto.views import Views


class Particles:
    """n shapes, of which each step has one, drawn by its generator: `now` is its place in `shapes`, 0 before the first step.

    raises  ValueError for no shapes
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        if not shapes:
            raise ValueError("shapes: expected one particle or more, got none")
        self.shapes, self.now = list(shapes), 0

    def begin(self, step: Step) -> None:
        """All begin, so that each refines when it is time; the drawn one moves."""
        for shape in self.shapes:
            shape.begin(step)
        self.now = int(torch.randint(len(self.shapes), (), generator=step.generator))

    def render(self, cameras: Camera, only: Only | None = None) -> Views:
        return self.shapes[self.now].render(cameras, only)

    def losses(self, step: Step) -> dict[str, Tensor]:
        return self.shapes[self.now].losses(step)

    def move(self, step: Step) -> None:
        self.shapes[self.now].move(step)

    def surface(self) -> tuple[Tensor, Tensor]:
        """Of the particle that moved last; each has its own."""
        return self.shapes[self.now].surface()

    def state(self) -> Tensors:
        kept = {f"{i}.{k}": v for i, shape in enumerate(self.shapes) for k, v in shape.state().items()}
        return kept | {"now": torch.tensor(self.now)}

    def restore(self, state: Tensors) -> None:
        self.now = int(state["now"])
        for i, shape in enumerate(self.shapes):
            shape.restore({k.removeprefix(f"{i}."): v for k, v in state.items() if k.startswith(f"{i}.")})
