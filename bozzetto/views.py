# SPDX-License-Identifier: Apache-2.0
"""`Views`: a batch of pictures of one object, with the cameras that took them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bozzetto.brief import brief
from bozzetto.camera import Camera


@brief
@dataclass(frozen=True)
class Views:
    """What a renderer makes and a prior reads. Channels last, float32, V pictures of H x W.

    rgb      (V, H, W, 3), sRGB-encoded in [0, 1], premultiplied by alpha
    alpha    (V, H, W, 1), coverage in [0, 1]
    depth    (V, H, W, 1), distance along the optical axis (not along the ray), object units, 0 where alpha is 0
    normal   (V, H, W, 3), unit vectors in the *world*, 0 where alpha is 0
    cameras  V of them, of the same size
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    normal: Tensor
    cameras: Camera

    def __getitem__(self, index: int | slice | Sequence[int]) -> Views:
        """A batch again, also for one index."""
        i = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Views(self.rgb[i], self.alpha[i], self.depth[i], self.normal[i], self.cameras[i])

    def over(self, background: Tensor | float) -> Tensor:
        """(V, H, W, 3): the pictures over a background, a colour (3,), pictures (V, H, W, 3) or one grey value, in sRGB."""
        return self.rgb + (1 - self.alpha) * background
