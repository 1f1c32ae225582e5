# SPDX-License-Identifier: Apache-2.0
"""The first stage of every lift from one picture: the solid behind it, as the embedded network guesses it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.fit.source import Source
from bozzetto.frustum import DEPTH_RANGE, Frustum, cell_centres
from bozzetto.priors.first_guess import FirstGuess, colour_at
from bozzetto.priors.solid import EMPTY, solid
from bozzetto.shapes.dmtet import DMTet, EmptySurface

SCALES = (64, 128)  # pixels a side at which the network is asked

Colours = Callable[[Tensor, Tensor], Tensor]
"""Points and unit normals (N, 3) of the crop's frame to sRGB (N, 3)"""


@brief
@dataclass(frozen=True)
class Solid:
    """What is behind a picture, in the cells of its frustum.

    occupancy  (D, h, w) logits, above 0 where a cell is solid
    colour     (3, d, h', w') sRGB
    coverage   (1, h, w) of the picture, in [0, 1]
    azimuth, elevation  of the picture's camera, radians
    p          strength of its perspective
    is_drawn   its colours have details of their own, as a prior draws them; otherwise they tell the picture's colours apart
    fit        IoU of its outline with the picture's, where it had to be found
    """

    occupancy: Tensor
    colour: Tensor
    coverage: Tensor
    azimuth: float
    elevation: float
    p: float
    is_drawn: bool = False
    fit: float | None = None

    @classmethod
    @torch.no_grad()
    def guess(cls, source: Source, network: FirstGuess, azimuth: float = 0.0, elevation: float | None = None) -> Solid:
        """The mean of the network's answers over the scales it was trained at, and mirrors; elevation None takes its estimate.

        The coarser scale knows the whole better, the finer one the edges; the table is in docs/benchmarks.md.
        """
        device = next(network.parameters()).device
        cells = SCALES[-1] // 2
        answers = []
        for size in SCALES:
            crop = source.crop(size)
            picture = torch.cat([crop.rgb, crop.alpha[..., None]], -1).permute(2, 0, 1)[None]
            answer = network(torch.cat([picture, picture.flip(-1)]).to(device))
            occupancy, colour = (((x[0] + x[1].flip(-1)) / 2).float().cpu() for x in (answer.occupancy, answer.colour))
            occupancy = F.interpolate(occupancy[None], (cells, cells), mode="bilinear")[0]
            colour = F.interpolate(colour, (cells // 2, cells // 2), mode="bilinear")
            answers.append((occupancy, colour, answer.view.float().cpu().mean(0)))
        occupancy, colour, view = (torch.stack(x).mean(0) for x in zip(*answers, strict=True))
        coverage = F.avg_pool2d(picture[:, 3:], 2)[0]
        e, p = (float(x) for x in view)
        e = min(max(e, math.radians(-20)), math.radians(75)) if elevation is None else elevation
        return cls(solid(occupancy, coverage), colour, coverage, azimuth, e, min(max(p, 0.05), 1.2))

    @property
    def frustum(self) -> Frustum:
        """That of the picture, 512 pixels a side."""
        return Frustum.of(self.azimuth, self.elevation, self.p)

    def logits(self, points: Tensor) -> Tensor:
        """Occupancy logits (N,) at points (N, 3) of the crop's frame, trilinear; EMPTY outside."""
        u, v, t = self.frustum.coordinates(points).unbind(-1)
        where = torch.stack([2 * u - 1, 2 * v - 1, t / DEPTH_RANGE], -1)
        grid = (self.occupancy - EMPTY)[None, None]
        return F.grid_sample(grid, where[None, :, None, None].to(grid), align_corners=False).reshape(-1) + EMPTY

    def colours(self, points: Tensor, normals: Tensor) -> Tensor:
        """The colours that the network has for what no picture shows: `Colours`."""
        return colour_at(self.colour[None], self.frustum.coordinates(points)[None].float())[0]

    def dmtet(self, h: float) -> DMTet:
        """On a grid of spacing h round all that may be solid; where nothing is, a ball to begin with."""
        full = self.occupancy > -1.5
        if not full.any():
            full = self.occupancy >= self.occupancy.max()
        points = self.frustum.points(cell_centres(*self.occupancy.shape)[full])
        low = points.amin(0) - 2.5 * h  # two cells to spare
        nx, ny, nz = (int(n) for n in torch.ceil((points.amax(0) + 2.5 * h - low) / h))
        counts = (nx, ny, nz)
        lower, upper = low.tolist(), (low + h * torch.tensor(counts)).tolist()
        try:
            return DMTet.from_occupancy(self.logits, counts, lower, upper)
        except EmptySurface:
            return DMTet.from_sphere(0.3, counts, lower, upper, [(a + b) / 2 for a, b in zip(lower, upper, strict=True)])

    @torch.no_grad()
    def surface(self, h: float = 1 / 40) -> tuple[Tensor, Tensor] | None:
        """The guess as it is, unfitted: vertices (N, 3) and faces (F, 3) of the crop's frame, or None where nothing is solid."""
        vertices, faces = self.dmtet(h).surface()
        return (vertices.float(), faces) if len(faces) else None

    def told(self) -> dict[str, float]:
        """Numbers for the asset's report: elevation in degrees, the strength of the perspective, and how well the guess fits."""
        told = {"elevation_deg": round(math.degrees(self.elevation), 2), "perspective": round(self.p, 4)}
        return told if self.fit is None else {**told, "guess_iou": round(self.fit, 4)}
