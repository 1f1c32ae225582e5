# SPDX-License-Identifier: Apache-2.0
"""Consistent123 (Lin et al., arXiv:2309.17261): the 3D prior alone until the shape has come to rest, then more and more of the 2D one.

Whether it has is read from CLIP: every few steps c is the mean similarity of eight renderings and the text. With D_j = c_j / c_{j-1} - 1,

    the boundary t* is the first measurement at which  |mean of the last L of D_j| < threshold     (L = 5, 2.5e-4)

or `latest`, whichever is first. From there on, r = (t - t*) / (steps that are left) in [0, 1] and

    L = exp(-r) L_3D + (1 - exp(-r)) L_2D        ("exponential"; r and log2(1 + r) in place of 1 - exp(-r) in the paper's ablation)

so that the 3D prior is never gone: .368 of it is left at the end. The mean is signed: a similarity that goes up and down passes for one
at rest, which `test_c2_3` shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor

from bozzetto.fit.loop import Loss, Term
from bozzetto.fit.packing import Tensors
from bozzetto.fit.settings import Within
from bozzetto.shapes.shape import Shape, Step


@dataclass(frozen=True)
class Boundary:
    """When a shape has come to rest; steps are shares of a run's. The defaults are the released code's, of 5000 steps."""

    window: Annotated[int, Within(1, 1000)] = 5
    """measurements that are averaged, L"""
    threshold: Annotated[float, Within(0, 1)] = 2.5e-4
    """of the mean relative change of the similarity"""
    every: Annotated[float, Within(0, 1)] = 21 / 5000
    """from one measurement to the next"""
    earliest: Annotated[float, Within(0, 1)] = 0.4
    """the first measurement"""
    latest: Annotated[float, Within(0, 1)] = 0.7
    """the boundary at last"""

    def is_due(self, step: Step) -> bool:
        """Whether the similarity is measured after a step."""
        since = step.number - round(self.earliest * step.of)
        return since >= 0 and since % max(round(self.every * step.of), 1) == 0

    def is_reached(self, measured: list[float], step: Step) -> bool:
        """Of all measurements so far."""
        if step.number >= round(self.latest * step.of):
            return True
        last = measured[-self.window - 1 :]
        if len(last) <= self.window:
            return False
        changes = [after / before - 1 if before else math.inf for before, after in pairwise(last)]
        return abs(sum(changes)) / self.window < self.threshold


Fall = Literal["exponential", "linear", "logarithmic"]


def mix(r: float, fall: Fall = "exponential") -> tuple[float, float]:
    """Weights of the 3D and of the 2D prior at r in [0, 1]; their sum is 1."""
    two = {"exponential": 1 - math.exp(-r), "linear": r, "logarithmic": math.log2(1 + r)}[fall]
    return 1 - two, two


@dataclass
class CaseAware:
    """Both priors as one term, which finds the boundary and mixes them.

    three, two  the pulls; `two` is not asked before the boundary
    similarity  of the shape and the text, by renderings
    later       steps of the stages that follow, over which r still grows
    reached     t*, where an earlier stage has found it: steps before this one's first, as a number below 0 or 0
    """

    three: Term
    two: Term
    similarity: Callable[[Shape], float]
    boundary: Boundary = Boundary()
    fall: Fall = "exponential"
    later: int = 0
    reached: int | None = None
    measured: list[float] = field(default_factory=list)

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        three, two = self.weights(step)
        losses = {k: Loss(three * x.weight, x.value) for k, x in self.three(shape, step).items()}
        if two:
            losses |= {k: Loss(two * x.weight, x.value) for k, x in self.two(shape, step).items()}
        return losses

    def weights(self, step: Step) -> tuple[float, float]:
        """Of the 3D and of the 2D prior in a step."""
        if self.reached is None:
            return 1.0, 0.0
        return mix((step.number - self.reached) / max(step.of + self.later - self.reached, 1), self.fall)

    def update(self, shape: Shape, step: Step) -> None:
        """Measures, where it is due, until the boundary is found."""
        if self.reached is None and self.boundary.is_due(step):
            self.measured.append(self.similarity(shape))
            if self.boundary.is_reached(self.measured, step):
                self.reached = step.number

    def state(self) -> Tensors:
        reached = math.nan if self.reached is None else self.reached
        return {"measured": torch.tensor(self.measured, dtype=torch.float64), "reached": torch.tensor(reached, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.measured = state["measured"].tolist()
        reached = float(state["reached"])
        self.reached = None if math.isnan(reached) else int(reached)
