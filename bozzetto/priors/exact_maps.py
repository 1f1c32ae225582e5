# SPDX-License-Identifier: Apache-2.0
"""A prior of coordinate maps whose answers are exact: `priors.exact` with maps (`priors.coordinates`) in the pictures' place.

It knows what SweetDreamer's network learns (arXiv:2310.02596): how each object of a bank looks as a map, in its canonical pose, from a
camera that is known. What a recipe does under it comes from the recipe's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.priors.coordinates import CHANNELS, UNIT, Box, coordinate_map, picture
from bozzetto.priors.exact import Exact, Render
from bozzetto.priors.prior import Reference
from bozzetto.views import Views

Distort = Callable[[Tensor], Tensor]
"""Maps (N, 4, S, S) to such maps"""


class ExactMaps(Exact):
    """A bank of objects as a prior of their maps; see `Exact` for the other arguments.

    boxes    of the objects, as `Box.of` makes them: each map is relative to its own
    distort  what is wrong with the maps, for a control: axes exchanged, one mirrored
    raises   ValueError for other than N boxes
    """

    background = 0.5

    def __init__(
        self,
        bank: Sequence[Render],
        boxes: Sequence[Box],
        cameras: Camera,
        captions: Sequence[str] | None = None,
        *,
        size: int = 32,
        width: float = 0.1,
        distort: Distort = lambda maps: maps,
    ) -> None:
        if len(boxes) != len(bank):
            raise ValueError(f"boxes: expected one for each of {len(bank)} objects, got {len(boxes)}")
        self.boxes, self.distort = list(boxes), distort
        super().__init__(bank, cameras, captions, size=size, width=width, background=0.5)
        self.shape = (CHANNELS, size, size)

    def encode(self, views: Views, *, generator: torch.Generator | None = None, box: Box = UNIT) -> Tensor:
        """As `Prior.encode`, of depth and coverage; `box` is the object's, in the frame of the views."""
        return coordinate_map(views, box, self.size)

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """raises ValueError: colours do not say where a point lies"""
        raise ValueError("rgb: colours do not say coordinates; give views that have depth to `encode`")

    def decode(self, x0: Tensor) -> Tensor:
        return picture(x0)

    def encode_reference(self, reference: Reference) -> Tensor:
        """raises ValueError: it reads no pictures"""
        raise ValueError("reference: this prior reads text, not pictures; leave it out")

    @torch.no_grad()
    def _drawn(self, camera: Camera) -> Tensor:
        maps = [coordinate_map(render(camera), box, self.size) for render, box in zip(self.bank, self.boxes, strict=True)]
        return self.distort(torch.cat(maps))
