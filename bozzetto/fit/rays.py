# SPDX-License-Identifier: Apache-2.0
"""A term for fields: rays at random through the pixels of known views, instead of whole pictures. Letters: R rays, V views of H x W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.fit.loop import Loss
from bozzetto.shapes.shape import Only, Shape, Step
from bozzetto.shapes.volume import Traced, Volume
from bozzetto.views import Views

SURE = 1e-3  # how near to 0 and 1 a ray's coverage comes before its cross entropy stops to fall


@dataclass
class Rays:
    """Losses `rgb`, the mean absolute difference of premultiplied colours, and `mask`, the cross entropy of coverage.

    targets  V views
    weights  of the two losses, by name
    count    R, drawn anew at each step from all pixels of all views
    raises   TypeError for a shape that has no rays
    """

    targets: Views
    weights: Mapping[str, float]
    count: int = 1024
    _rays: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        origins, directions = self.targets.cameras.rays()
        self._rays = origins.reshape(-1, 3).float(), directions.reshape(-1, 3).float()

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        some, seen = self.cast(shape, step, "colour")
        rgb, alpha = self.targets.rgb.reshape(-1, 3)[some], self.targets.alpha.reshape(-1)[some]
        losses = {"rgb": (seen.rgb - rgb).abs().mean(), "mask": covered(seen.alpha, alpha).mean()}
        return {name: Loss(self.weights[name], value) for name, value in losses.items()}

    def cast(self, shape: Shape, step: Step, only: Only | None) -> tuple[Tensor, Traced]:
        """A step's rays: which pixels (R,) of all views in a row they go through, and what they see; only as `Volume.trace`."""
        if not isinstance(shape, Volume):
            raise TypeError(
                f"rays: expected a Volume, which can be seen along single rays, got {type(shape).__name__}; take `Like` instead"
            )
        some = torch.randint(len(self._rays[0]), (self.count,), generator=step.generator)
        origins, directions = self._rays
        return some, shape.trace(origins[some], directions[some], only, step.generator)


def covered(alpha: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropies (R,) of coverage (R,)."""
    return F.binary_cross_entropy(alpha.clamp(SURE, 1 - SURE), wanted, reduction="none")
