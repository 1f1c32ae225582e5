# SPDX-License-Identifier: Apache-2.0
"""Zero-1-to-3 (Liu et al. 2023, arXiv:2303.11328): a prior that knows the picture and the relative camera gives the hidden side.

World: five balls that differ in their colours; what the front shows says what the back is like. The prior is exact (`priors.exact`), its
bank are the five. Colours of one ball are distilled from its picture; only the side that the picture does not show counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.claims.head import DISTANCE, ELEVATION, RADIUS, SIZE, WIDTH, all_round, ball, falling, ring
from bozzetto.claims.hybrid import Mirrored
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import optimise
from bozzetto.fit.run import Run
from bozzetto.fit.terms import Pull
from bozzetto.priors.exact import Exact
from bozzetto.render.mesh import render_surface
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.shape import Step
from bozzetto.shapes.tets import Course, Tets
from bozzetto.views import Views

STEPS = 80
AROUND = 24  # cameras round the balls, so that the bank's renderings are made once
PALETTE = torch.tensor([[0.85, 0.2, 0.2], [0.85, 0.75, 0.2], [0.2, 0.65, 0.3], [0.2, 0.65, 0.75], [0.2, 0.3, 0.8]])


def coloured(kind: int) -> Callable[[Tensor, Tensor | None], Tensor]:
    """sRGB (P, 3) of a ball at points (P, 3), whose front is +x; the stain is at azimuth 130 degrees."""

    def colours(points: Tensor, normals: Tensor | None = None) -> Tensor:
        u = F.normalize(points, dim=-1)
        front, back, stain = PALETTE[[kind, (kind + 2) % len(PALETTE), (kind + 3) % len(PALETTE)]]
        rgb = torch.where(u[:, :1] > 0, front, back)
        centre = u.new_tensor([math.cos(math.radians(130)), math.sin(math.radians(130)), 0.0])
        return torch.where((u @ centre)[:, None] > math.cos(math.radians(30)), stain, rgb)

    return colours


def rendered(kind: int) -> Callable[[Camera], Views]:
    vertices, faces = (x.detach() for x in ball(16).surface())
    normals = F.normalize(vertices, dim=-1)
    return lambda cameras: render_surface(vertices, faces, normals, cameras, coloured(kind))


def drawn_azimuths(step: Step) -> tuple[Tensor, Tensor]:
    azimuth = all_round(AROUND)[torch.randint(AROUND, (2,), generator=step.generator)]
    return azimuth, torch.full_like(azimuth, ELEVATION)


def lifted(prior: Exact, kind: int, seed: int, *, text: str | None = None, steps: int = STEPS) -> Tets:
    """A ball's colours after score distillation from noise, in two views a step; with a text, which says nothing, the prior is not
    shown the picture."""
    generator = torch.Generator().manual_seed(seed)
    grid = ColourGrid.grey(-0.5, 0.5, 20)
    grid.logits.data += 0.3 * torch.randn(grid.logits.shape, generator=generator)
    shape = Tets(ball(20), Course(0.1, smooth=1, still=0.0, colour_lr=0.05), grid)
    seen, no_faces = rendered(kind)(ring([0.0])), torch.zeros(0, 3, dtype=torch.long)
    framed = Framed(torch.zeros(3), torch.zeros(0, 3), no_faces, 0.0, ELEVATION, DISTANCE, WIDTH, seen.rgb[0], seen.alpha[0, ..., 0])
    pull = Pull(prior, framed, drawn_azimuths, falling(steps), 0.1, 1.0, SIZE, text=text)
    optimise(shape, [pull], Run(None, {}), "colours", steps=steps, seed=seed)
    return shape


def run(seed: int) -> Scores:
    """Root mean squared difference of colours over the side behind."""
    kind = seed % len(PALETTE)
    bank, even = [rendered(k) for k in range(len(PALETTE))], ring(all_round(AROUND))
    seeing = Exact(bank, even)
    shapes = {
        "picture and camera": lifted(seeing, kind, seed),
        "camera, no picture": lifted(seeing, kind, seed, text=""),
        "picture, no camera": lifted(Exact(bank, even, knows_cameras=False), kind, seed),
        "picture and camera, azimuth's sign flipped": lifted(Mirrored(bank, even), kind, seed),
    }
    points = RADIUS * F.normalize(torch.randn(4000, 3, generator=torch.Generator().manual_seed(1000 + seed)), dim=1)
    behind = points[points[:, 0] < 0]
    truth = coloured(kind)(behind, None)
    copied = coloured(kind)(behind * torch.tensor([-1.0, 1.0, 1.0]), None)
    with torch.no_grad():
        made = {name: shape.colours(behind) for name, shape in shapes.items() if shape.colours is not None}
    return {name: float((x - truth).square().mean().sqrt()) for name, x in (made | {"the picture on the back, too": copied}).items()}


CLAIMS = (
    Claim(
        "novel-views-hidden-side",
        method="Zero-1-to-3",
        source="arXiv:2303.11328, Sec. 3.2 and 4.4",
        says="A prior that is told the picture and the relative camera gives the side that the picture does not show.",
        metric="rms difference of colours over the hidden half",
        better="lower",
        run=run,
        must=(
            Beats("picture and camera", "camera, no picture"),
            Beats("picture and camera", "picture, no camera"),
            Beats("picture and camera", "the picture on the back, too"),
        ),
        control=Beats("picture and camera", "picture and camera, azimuth's sign flipped"),
        seconds=16,
        remark="`the picture on the back, too` copies the front through the ball. No two balls have the same front, so that the picture "
        "decides between them.",
    ),
)
