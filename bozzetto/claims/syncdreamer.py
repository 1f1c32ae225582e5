# SPDX-License-Identifier: Apache-2.0
"""SyncDreamer (Liu et al. 2023, arXiv:2309.03453): sixteen views of a pictured object that are drawn together agree, and so do the views
between them that a reconstruction shows.

World: five balls with one front and five backs, so that a picture of the front does not decide between them. An exact prior
(`priors.exact`) is shown it, and draws the sixteen views of a ring all at once, or one after the other, each told its camera. Which back
is drawn is chance in both; what counts is whether all views have the same one. Eight such draws are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.claims.claim import AtMost, Beats, Claim, Scores
from bozzetto.claims.head import RADIUS, all_round, ball, ring
from bozzetto.claims.novel_views import PALETTE
from bozzetto.claims.together import FACING, disagreement
from bozzetto.priors.exact import Exact
from bozzetto.priors.prior import Reference
from bozzetto.priors.sampling import Sampler, sample
from bozzetto.render.mesh import render_surface
from bozzetto.views import Views

VIEWS, STEPS, DRAWS, POINTS = 16, 10, 8, 1000
TOGETHER, ALONE, CLOCKWISE = "16 together", "each by itself", "16 together, laid out clockwise"


def coloured(kind: int, points: Tensor) -> Tensor:
    """sRGB (P, 3) of a ball at points (P, 3): grey within 85 degrees of +x, and behind of one colour, with a stain to one side."""
    u = F.normalize(points, dim=-1)
    rgb = torch.where(u[:, :1] > math.cos(math.radians(85)), 0.45, PALETTE[kind])
    side = u.new_tensor([math.cos(math.radians(140)), math.sin(math.radians(140)), 0.0])
    return torch.where((u @ side)[:, None] > math.cos(math.radians(30)), PALETTE[(kind + 2) % len(PALETTE)], rgb)


def rendered(kind: int) -> Callable[[Camera], Views]:
    vertices, faces = (x.detach() for x in ball(16).surface())
    return lambda cameras: render_surface(vertices, faces, F.normalize(vertices, dim=-1), cameras, lambda x, n: coloured(kind, x))


@lru_cache(maxsize=4)
def drawn(seed: int) -> dict[str, Tensor]:
    """Pictures (DRAWS, 16, S, S, 3) of the ring, whose first view is the picture's own."""
    cameras, bank = ring(all_round(VIEWS)), [rendered(k) for k in range(len(PALETTE))]
    seen = Reference(bank[0](cameras[0]).over(1.0), cameras[0])
    found = {}
    for name, together in ((TOGETHER, VIEWS), (ALONE, 1)):
        prior, generator = Exact(bank, cameras, together=together), torch.Generator().manual_seed(seed)
        cond, how = prior.condition(seen, cameras), Sampler(STEPS, 1.0, 1.0)
        draws = [sample(prior, cond, count=VIEWS // together, sampler=how, generator=generator) for _ in range(DRAWS)]
        found[name] = torch.stack([prior.decode(x0) for x0 in draws])
    return found | {CLOCKWISE: found[TOGETHER].flip(1).roll(1, 1)}


def agreeing(seed: int) -> Scores:
    """How far colours at a point differ between the views that see it, as a share of that of views which are drawn by themselves."""
    cameras = ring(all_round(VIEWS))
    off = {name: math.sqrt(sum(disagreement(x, cameras) ** 2 for x in some)) for name, some in drawn(seed).items()}
    return {name: value / off[ALONE] for name, value in off.items()}


def between(seed: int) -> Scores:
    """How far the colours that the views leave on the ball are from those of the nearest ball of the bank."""
    points = RADIUS * F.normalize(torch.randn(POINTS, 3, generator=torch.Generator().manual_seed(seed)), dim=1)
    points = points[(points[:, 2].abs() < 0.6 * RADIUS)]  # the ring does not see the poles
    bank, cameras = torch.stack([coloured(k, points) for k in range(len(PALETTE))]), ring(all_round(VIEWS))
    scores = {}
    for name, some in drawn(seed).items():
        made = torch.stack([painted(x, cameras, points) for x in some])
        scores[name] = float((made[:, None] - bank).square().mean((2, 3)).amin(1).mean().sqrt())
    return scores


def painted(pictures: Tensor, cameras: Camera, points: Tensor) -> Tensor:
    """Colours (P, 3) of points of the ball: the mean of the views that see them."""
    pixels, _ = cameras.project(points.double())
    grid = (2 * pixels / pixels.new_tensor(cameras.size[::-1]) - 1).float()[:, None]
    colours = F.grid_sample(pictures.movedim(-1, 1), grid, align_corners=False)[:, :, 0].movedim(1, -1)
    towards = F.normalize(cameras.position.float()[:, None] - points, dim=-1)
    sees = ((towards * F.normalize(points, dim=1)).sum(-1, keepdim=True) > FACING).float()
    return (sees * colours).sum(0) / sees.sum(0).clamp(min=1)


CLAIMS = (
    Claim(
        "synchronised",
        method="SyncDreamer",
        source="arXiv:2309.03453, Sec. 3.2 and 4.2",
        says="Sixteen views of one picture that are drawn together disagree at most half as much as views drawn one by one.",
        metric="disagreement of colours between views, as a share of that of views drawn by themselves",
        better="lower",
        run=agreeing,
        must=(AtMost(TOGETHER, ALONE, 0.5), Beats(TOGETHER, ALONE)),
        control=Beats(TOGETHER, CLOCKWISE),
        seconds=10,
        remark="What is left of it where views are drawn together is resampling at the borders of colours.",
    ),
    Claim(
        "synchronised-object",
        method="SyncDreamer",
        source="arXiv:2309.03453, Sec. 4.2 and 4.3",
        says="And what they leave on the object's surface, which other views show, is that of one object.",
        metric="rms difference of colours from the nearest object of the bank",
        better="lower",
        run=between,
        must=(Beats(TOGETHER, ALONE),),
        control=Beats(TOGETHER, CLOCKWISE),
        seconds=1,
        remark="The picture does not say which back is right: views are compared with whichever is nearest.",
    ),
)
