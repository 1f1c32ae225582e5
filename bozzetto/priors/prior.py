# SPDX-License-Identifier: Apache-2.0
"""`Prior`: a denoiser with its codec and its conditioning, all that a recipe knows of a diffusion model.

A recipe renders views, `encode`s them to the x0 of the prior's denoiser, and asks it under a `condition`. Every argument of
`condition` that is absent stands for what the model has learnt to mean "unknown"; guidance gets its branches so. Most priors draw
one picture at a time, from any camera. A joint prior draws V views of one object together: its x0 has one more dimension, and
`views` says from which cameras.

Letters: B samples or pictures, V views, C channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera
from bozzetto.denoiser import Denoiser
from bozzetto.priors.hint import Hint
from bozzetto.priors.sampling import Sampler
from bozzetto.views import Views

Condition = Mapping[str, Tensor]
"""what a denoiser is asked under: named tensors, each with one row for all samples or one row a sample"""

Hinting = Callable[[Camera], Hint]
"""the rough geometry as some cameras see it (`priors.hint`)"""


@brief
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
    def shape(self) -> tuple[int, ...]:
        """Of one x0: (C, h, w), or (V, C, h, w) of a joint prior."""
        ...

    @property
    def sampler(self) -> Sampler:
        """How it wants to be sampled (`priors.sampling.sample`)."""
        ...

    @property
    def uses_hint(self) -> bool:
        """Whether `condition` asks for a hint, so that rough geometry to render is worth its price."""
        ...

    def views(self, reference: Reference | None = None) -> Camera | None:
        """The V cameras that it draws together, relative to the reference's; None where it draws any camera by itself."""
        ...

    def encode(self, views: Views, *, generator: torch.Generator | None = None) -> Tensor:
        """x0 float32 of rendered views, of the channels that this prior knows; differentiable.

        (V, C, h, w) for V views, each by itself; of a joint prior (B, V, C, h, w) for B V views, object by object. Views of
        another size are resized to the prior's. With a generator the codec's posterior is drawn from, else its mode is taken.
        """
        ...

    def encode_pictures(self, rgb: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """x0 of plain pictures (B, H, W, 3), sRGB in [0, 1] over `background`, as `encode`.

        raises  ValueError where pictures alone do not say x0
        """
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) float32, sRGB in [0, 1] over `background`, of x0; of a joint prior B V, object by object."""
        ...

    def encode_reference(self, reference: Reference) -> Any:
        """The reference as this prior's networks see it. `condition` takes it in the reference's place, so that a loop of
        many steps encodes the pictures once.

        raises  ValueError where it reads no pictures
        """
        ...

    def condition(
        self, reference: Any = None, cameras: Camera | None = None, text: str | None = None, hint: Hinting | None = None
    ) -> Condition:
        """What the denoiser is asked under, for V cameras; an absent argument is the learnt null.

        reference  a `Reference`, or what `encode_reference` made of it
        hint       is asked for its cameras by a prior that uses hints, and ignored by others
        raises     ValueError for a reference or text that this prior cannot read
        """
        ...
