# SPDX-License-Identifier: Apache-2.0
"""The views from which One-2-3-45 reconstructs (arXiv:2306.16928, Sec. 3.1 and 4.1): eight round the object, drawn by a prior under the
picture, and beside each, up to four neighbours 10 degrees off, drawn under that drawing, with which it agrees better than with others.

A joint prior draws its own views, all at once, instead of the eight, and no neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.fit.drawings import Drawing, Drawings, draw_framed, draw_own, sample_views
from bozzetto.fit.framed import Framed
from bozzetto.fit.run import Progress
from bozzetto.fit.solid import Colours
from bozzetto.priors.elevation import STEP
from bozzetto.priors.prior import Condition, Prior, Reference
from bozzetto.priors.reconstructor import Posed, around

BESIDE = ((0.0, STEP), (0.0, -STEP), (-STEP, 0.0), (STEP, 0.0))  # azimuth and elevation: up, down, left, right
SEEDS = 100_000  # neighbours' begin there


@dataclass(frozen=True)
class Eight:
    """Who draws which views.

    guessed     colours of the rough shape, for a prior that takes a hint
    photograph  the picture itself stands for the first of the eight
    """

    prior: Prior
    framed: Framed
    guessed: Colours
    drawing: Drawing
    photograph: bool = True

    def poses(self) -> tuple[list[float], list[float]]:
        """Azimuths and elevations of what is drawn of the eight, radians."""
        azimuths, elevations = around(self.framed.azimuth, self.framed.elevation)
        first = 1 if self.photograph else 0
        return azimuths[first:], elevations[first:]

    def cameras(self, neighbours: int = 0) -> Camera:
        """Relative to the object's centre, in the order in which they are drawn: the neighbours come last, view by view."""
        if (own := self.framed.own(self.prior)) is not None:
            return own.resized(self.framed.alpha.shape[0])
        azimuths, elevations = self.poses()
        near = [(a + da, e + de) for a, e in zip(azimuths, elevations, strict=True) for da, de in BESIDE[:neighbours]]
        return self.framed.cameras([*azimuths, *(a for a, _ in near)], [*elevations, *(e for _, e in near)])

    def drawn(self, samples: int, neighbours: int, seed: int, progress: Progress) -> Drawings:
        """The mean of a few samples of each view, and one of each neighbour."""
        prior, framed, cameras = self.prior, self.framed, self.cameras()
        whole = count(prior, samples, neighbours, self.photograph)
        each = 1 if is_joint(prior) else len(cameras)

        def sample(k: int) -> Tensor:
            def told(name: str, share: float) -> None:
                progress("views", (k + min(share, 1.0)) * each / whole)

            if is_joint(prior):
                return draw_own(framed, prior, self.drawing, seed=seed + 1000 * k, progress=told)
            return draw_framed(framed, prior, cameras, self.guessed, self.drawing, seed=seed + 1000 * k, progress=told)

        made = Drawings.of(torch.stack([sample(k) for k in range(samples)]), prior.background)
        if not neighbours or is_joint(prior):
            return made
        near = self.cameras(neighbours)[len(cameras) :]
        parts = []
        for v, picture in enumerate(made.pictures):
            parts.append(self._beside(picture, cameras[v], near[v * neighbours : (v + 1) * neighbours], seed + SEEDS + 10 * v))
            progress("views", (samples * each + (v + 1) * neighbours) / whole)
        more = Drawings.of(torch.cat(parts)[None], prior.background)
        return Drawings(*(torch.cat([getattr(made, name), getattr(more, name)]) for name in ("pictures", "alpha", "trust")))

    def _beside(self, picture: Tensor, camera: Camera, near: Camera, seed: int) -> Tensor:
        """Views near a drawn one (H, W, 3), under it."""
        with torch.no_grad():
            seen_as = self.prior.encode_reference(Reference(picture[None], camera.resized(picture.shape[0])))
            whole = self.prior.condition(seen_as, near, hint=self.framed.hinting(self.guessed))

        def some(views: list[int]) -> Condition:
            return {k: v if len(v) == 1 else v[views] for k, v in whole.items()}

        return sample_views(self.prior, some, len(near), self.drawing, seed)

    def sources(self, made: Drawings, neighbours: int, size: int) -> Posed:
        """What the network is shown, relative to the object's centre: the drawings over nothing, and the picture first."""
        alpha = made.alpha[..., None]
        rgb = torch.minimum((made.pictures - (1 - alpha) * self.prior.background).clamp(min=0), alpha)
        pictures, cameras = [torch.cat([rgb, alpha], -1)], [self.cameras(neighbours)]
        if self.photograph and not cameras[0].is_orthographic:  # a batch has one kind of camera, and the picture's has a perspective
            pictures.insert(0, torch.cat([self.framed.rgb, self.framed.alpha[..., None]], -1)[None])
            cameras.insert(0, self.framed.cameras([self.framed.azimuth], [self.framed.elevation]))
        resized = [F.interpolate(x.movedim(-1, 1), (size, size), mode="bilinear", antialias=True) for x in pictures]
        return Posed(torch.cat(resized).clamp(0, 1), Camera.joined([c.resized(size) for c in cameras]))


def is_joint(prior: Prior) -> bool:
    """Whether it draws several views as one sample, from cameras of its own."""
    return prior.views() is not None


def count(prior: Prior, samples: int, neighbours: int, photograph: bool) -> int:
    """Samples drawn in all."""
    if is_joint(prior):
        return samples
    eight = 7 if photograph else 8
    return eight * (samples + neighbours)
