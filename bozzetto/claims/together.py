# SPDX-License-Identifier: Apache-2.0
"""Consistent123 (Weng et al. 2023, arXiv:2310.08092): views that are drawn together agree, the more of them the better.

World: the five balls of `claims.novel_views`, none of which is named: which ball a view shows is drawn with it. An exact prior
(`priors.exact`) that draws N views together draws sixteen all round, by DDIM, in groups of N neighbours. A group is of one ball; groups
know nothing of each other. Sixteen such draws are measured.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.claims.head import RADIUS, all_round, ring
from bozzetto.claims.novel_views import PALETTE, rendered
from bozzetto.priors.exact import Exact
from bozzetto.priors.sampling import Sampler, sample

VIEWS, STEPS, DRAWS, POINTS = 16, 10, 16, 400
FACING = 0.35  # cosine between a point's normal and the way to a camera from which it is seen


def drawn(together: int, seed: int) -> Tensor:
    """Pictures (DRAWS, 16, S, S, 3) of the ring, in groups of so many."""
    cameras = ring(all_round(VIEWS))
    prior = Exact([rendered(k) for k in range(len(PALETTE))], cameras, together=together)
    cond = prior.condition(cameras=cameras)
    generator = torch.Generator().manual_seed(seed)
    how = Sampler(STEPS, 1.0, 1.0)
    draws = [sample(prior, cond, count=VIEWS // together, sampler=how, generator=generator) for _ in range(DRAWS)]
    return torch.stack([prior.decode(x0) for x0 in draws])


def disagreement(pictures: Tensor, cameras: Camera) -> float:
    """Root mean variance of the colours in which the views that see a point of the ball show it, over points all round it."""
    points = RADIUS * F.normalize(torch.randn(POINTS, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    pixels, _ = cameras.project(points.double())
    grid = (2 * pixels / pixels.new_tensor(cameras.size[::-1]) - 1).float()[:, None]
    colours = F.grid_sample(pictures.movedim(-1, 1), grid, align_corners=False)[:, :, 0].movedim(1, -1)  # (V, P, 3)
    towards = F.normalize(cameras.position.float()[:, None] - points, dim=-1)
    sees = ((towards * F.normalize(points, dim=1)).sum(-1) > FACING).float()[..., None]
    count = sees.sum(0)
    mean = (sees * colours).sum(0) / count.clamp(min=1)
    variance = (sees * (colours - mean).square()).sum(0) / count.clamp(min=1)
    return float(variance[count[:, 0] >= 2].mean().sqrt())


def run(seed: int) -> Scores:
    """Of each N, and of sixteen views together whose places are exchanged."""
    cameras = ring(all_round(VIEWS))
    pictures_of = {f"{n} together" if n > 1 else "each by itself": drawn(n, seed) for n in (1, 4, 8, 16)}
    pictures_of["16 together, laid out clockwise"] = pictures_of["16 together"].roll(-1, 1).flip(1)
    return {name: math.sqrt(sum(disagreement(x, cameras) ** 2 for x in some) / DRAWS) for name, some in pictures_of.items()}


CLAIMS = (
    Claim(
        "views-together",
        method="Consistent123",
        source="arXiv:2310.08092, Sec. 3.2 and 4",
        says="The more views are drawn together, the better they agree.",
        metric="disagreement of colours between views, rms",
        better="lower",
        run=run,
        must=(
            Beats("16 together", "8 together"),
            Beats("8 together", "4 together"),
            Beats("4 together", "each by itself"),
        ),
        control=Beats("16 together", "16 together, laid out clockwise"),
        seconds=8,
    ),
)
