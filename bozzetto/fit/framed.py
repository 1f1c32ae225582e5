# SPDX-License-Identifier: Apache-2.0
"""An object and its picture as a diffusion prior's pictures show objects: the centre of the object's bounding box is the centre of the
picture, which is FRAME times the box's longest side wide.

A lift works in the frame of the picture's crop, whose centre is that of the outline. Priors were trained on pictures with the bounding
box in the centre. `Framed` goes from the one frame to the other, and renders the rough shape as a hint in the prior's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bozzetto import image
from bozzetto.brief import brief
from bozzetto.camera import Camera, orbit
from bozzetto.fit.solid import Colours
from bozzetto.fit.source import Source
from bozzetto.priors.hint import FRAME, carried, hint
from bozzetto.priors.prior import Hinting, Prior, Reference


@brief
@dataclass(frozen=True)
class Framed:
    """A rough shape and its picture in the frame of a prior's pictures.

    centre           (3,) of the box, in the crop's frame; vertices (N, 3) are relative to it, faces (F, 3)
    azimuth, elevation, distance  of the picture's camera round it, radians and object units
    width            of pictures at the centre, object units
    rgb, alpha       (S, S, 3) premultiplied and (S, S): the picture, so framed
    """

    centre: Tensor
    vertices: Tensor
    faces: Tensor
    azimuth: float
    elevation: float
    distance: float
    width: float
    rgb: Tensor
    alpha: Tensor

    @classmethod
    def of(cls, source: Source, camera: Camera, vertices: Tensor, faces: Tensor, size: int, frame: float = FRAME) -> Framed:
        """camera is that of the crop; vertices (N, 3) in its frame; pictures are `frame` longest sides of the box wide."""
        low, high = vertices.amin(0).double(), vertices.amax(0).double()
        centre, width = (low + high) / 2, frame * float((high - low).max())
        back = camera.position[0] - centre
        distance = float(back.norm())
        crop = source.crop(camera.size[0])
        at, depth = camera.project(centre[None])
        side = width * float(camera.K[0, 0, 0]) / float(depth[0, 0])
        box = (float(at[0, 0, 0]) - side / 2, float(at[0, 0, 1]) - side / 2, side)
        pixels = image.resample(torch.cat([crop.rgb, crop.alpha[..., None]], -1), box, size).clamp(0, 1)
        azimuth, elevation = math.atan2(float(back[1]), float(back[0])), math.asin(float(back[2]) / distance)
        moved = (vertices.double() - centre).float()
        return cls(centre, moved, faces, azimuth, elevation, distance, width, pixels[..., :3].contiguous(), pixels[..., 3].contiguous())

    def cameras(self, azimuth: Sequence[float] | Tensor, elevation: Sequence[float] | Tensor) -> Camera:
        """Cameras like the picture's from elsewhere, relative to the centre; radians."""
        fov = 2 * math.atan(self.width / self.distance / 2)
        return orbit(azimuth, elevation, self.distance, size=self.alpha.shape[0], fov=fov)

    @property
    def longest(self) -> float:
        """Side of the box, object units of the crop's frame."""
        return float((self.vertices.amax(0) - self.vertices.amin(0)).max())

    def own(self, prior: Prior) -> Camera | None:
        """The cameras of a joint prior that has its own, round an object whose longest side is 1, round this one; relative to the centre.
        None of a prior that is asked for any."""
        own = prior.views(self.reference(prior.background, self.longest))
        return None if own is None else replace(own, c2w=torch.cat([own.c2w[:, :, :3], self.longest * own.c2w[:, :, 3:]], 2))

    def ring(self, count: int, elevation: float | None = None) -> Camera:
        """Cameras like the picture's on a ring round the centre, beginning beside the picture's, which is left out, and going round
        counter-clockwise; at the picture's elevation, or another, radians."""
        up = self.elevation if elevation is None else elevation
        turns = [self.azimuth + 2 * math.pi * (k + 1) / (count + 1) for k in range(count)]
        return self.cameras(turns, [up] * count)

    def reference(self, background: float, unit: float = 1.0) -> Reference:
        """The picture, for the prior to look at; its camera in units of which one is `unit` of the crop's."""
        shown, camera = self.rgb + (1 - self.alpha[..., None]) * background, self.cameras([self.azimuth], [self.elevation])
        return Reference(shown[None], replace(camera, c2w=torch.cat([camera.c2w[:, :, :3], camera.c2w[:, :, 3:] / unit], 2)))

    def hinting(self, guessed: Colours) -> Hinting:
        """The rough shape from any cameras round the centre, with the picture's pixels where it shows them; guessed colours are of the
        crop's frame."""
        middle = self.centre.float()
        seen_from = self.cameras([self.azimuth], [self.elevation])
        colour = carried(self.rgb, self.alpha, seen_from, self.vertices, self.faces, lambda x, n: guessed(x + middle, n))
        return lambda cameras: hint(self.vertices, self.faces, cameras, colour)

    def leaning(self, before: Camera, after: Camera) -> Framed:
        """The same object and picture if the picture's camera were `after` and not `before`: cameras of the crop, at one distance from
        its origin, with which everything turns."""
        turn = after.c2w[0, :, :3] @ before.c2w[0, :, :3].mT
        a, e = self.azimuth, self.elevation
        back = turn @ torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)], dtype=torch.float64)
        azimuth, elevation = math.atan2(float(back[1]), float(back[0])), math.asin(min(max(float(back[2]), -1.0), 1.0))
        vertices = (self.vertices.double() @ turn.mT).float()
        return replace(self, centre=turn @ self.centre, vertices=vertices, azimuth=azimuth, elevation=elevation)

    def placed(self, cameras: Camera) -> Camera:
        """The same cameras in the crop's frame."""
        c2w = cameras.c2w.clone()
        c2w[:, :, 3] += self.centre
        return replace(cameras, c2w=c2w)


def frame_of(prior: Prior) -> float:
    """How wide a prior's pictures are at the object's centre, in longest sides of the object: FRAME, or as a joint prior's own cameras
    have it."""
    own = prior.views()
    return FRAME if own is None else own.size[0] * float(own.position[0].norm() / own.K[0, 0, 0])
