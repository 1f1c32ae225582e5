# SPDX-License-Identifier: Apache-2.0
"""`Prior`: a denoiser with its codec and its conditioning, all that a recipe knows of a diffusion model.

A recipe renders pictures, `encode`s them to the x0 of the prior's denoiser, and asks it under a `condition`. Every argument of
`condition` that is absent stands for what the model has learnt to mean "unknown"; guidance gets its branches so.

Letters: B pictures, V views, C channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.denoiser import Denoiser

Condition = Mapping[str, Tensor]
"""what a denoiser is asked under: named tensors, each with one row for all samples or one row a sample"""


@dataclass(frozen=True)
class Reference:
    """Pictures of the object that are known, and the cameras that took them.

    rgb      (B, H, W, 3), sRGB in [0, 1], over the prior's `background`
    cameras  B of them, or one for all
    raises   ValueError for another shape
    """

    rgb: Tensor
    cameras: Camera

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[-1] != 3 or len(self.cameras) not in (1, len(self.rgb)):
            raise ValueError(
                f"reference: expected rgb (B, H, W, 3) and 1 or B cameras, got {tuple(self.rgb.shape)} and {len(self.cameras)} cameras"
            )


class Prior(Protocol):
    """What is known about pictures of objects, before any is seen."""

    @property
    def denoiser(self) -> Denoiser:
        """Of x0 as `encode` makes it."""
        ...

    @property
    def background(self) -> float:
        """sRGB grey in [0, 1] that the pictures it was trained with stand on."""
        ...

    @property
    def size(self) -> int:
        """Side of the pictures that it draws, pixels."""
        ...

    @property
    def takes_hint(self) -> bool:
        """Whether its `condition` has an argument `hint`, of `priors.hint`."""
        ...

    def encode(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """x0 (B, C, h, w) float32 of pictures (B, H, W, 3), sRGB in [0, 1] over `background`; differentiable.

        Pictures of another size are resized to the prior's. With a generator the codec's posterior is drawn from, else its
        mode is taken.
        """
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) float32, sRGB in [0, 1], of x0 (B, C, h, w)."""
        ...

    def look(self, reference: Reference) -> Any:
        """The reference as this prior's networks see it. `condition` takes it in the reference's place, so that a loop of
        many steps encodes the pictures once."""
        ...

    def condition(self, reference: Any = None, cameras: Camera | None = None, text: str | None = None) -> Condition:
        """What the denoiser is asked under, for V cameras; an absent argument is the learnt null.

        reference  a `Reference`, or what `look` made of it
        raises     ValueError for an argument that this prior cannot read
        """
        ...
