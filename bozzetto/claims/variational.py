# SPDX-License-Identifier: Apache-2.0
"""VSD against SDS (ProlificDreamer, arXiv:2305.16213; DreamFusion, arXiv:2209.14988) under priors that are exact.

Points: 256 of them under a mixture of five Gaussians in the plane. The particles' score is known (their Parzen windows), learnt by a
small network while they move, or never learnt: the broken one. Pictures: 32 of them, 32 pixels a side, under a bank of sixteen
(`priors.exact`), no renderer in between. There the particles' score is exact as well.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from bozzetto.camera import orbit
from bozzetto.claims.claim import Beats, Between, Claim, Scores
from bozzetto.data.objects import Object
from bozzetto.data.renders import drawable, render
from bozzetto.denoiser import each
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, Ramp, residual, sds_gradient
from bozzetto.distill.vsd import Learner, vsd_gradient
from bozzetto.figures.worlds import Mixture, network
from bozzetto.priors.exact import Exact, Render
from bozzetto.scores.parzen import Empirical
from bozzetto.scores.wasserstein import directions, sliced_wasserstein
from bozzetto_objects import make

FAMILIES, OF_EACH, WIDTH = ("teapot", "chair", "car", "bird"), 4, 0.1


# ---- points ----


class Learnt(nn.Module):
    """A denoiser of points by a small network with EDM's preconditioning, for data of deviation 3; its loss is the noise's error."""

    def __init__(self, sigmas: Tensor, *, generator: torch.Generator) -> None:
        super().__init__()
        self.net, self.sigmas = network(3, 64, generator=generator), sigmas

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = each(sigma, x.float())
        total = (9 + s**2).sqrt()
        made = self.net(torch.cat([x.float() / total, s.log().expand(len(x), 1) / 2], 1))[:, :2]
        return (9 / total**2 * x + 3 * s / total * made).to(x)

    def loss(self, x0: Tensor, noise: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = each(sigma, x0)
        return ((self.denoise(x0 + s * noise, sigma) - x0) / s).square().mean(1)


def world() -> Mixture:
    """Five modes of deviation .5 on a circle of radius 3, of weights .3 to .1."""
    angle = 2 * math.pi * torch.arange(5) / 5
    world = Mixture(torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]), 3 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((5,), 0.5))
    world.sigmas = torch.logspace(-1, 1, 100, dtype=torch.float64)
    return world


@lru_cache(maxsize=8)
def clouds(seed: int, steps: int = 1200, count: int = 256) -> dict[str, Tensor]:
    """Where the points end that begin within .3 of the origin, (count, 2), and as many draws of the prior."""
    prior, levels, found = world(), Levels(), dict[str, Tensor]()
    for way in ("SDS", "VSD, the points' score known", "VSD, the points' score learnt", "VSD, phi never learns"):
        generator = torch.Generator().manual_seed(seed)
        x = 0.3 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
        phi = Learnt(prior.sigmas, generator=generator)
        learner = Learner(phi, torch.optim.Adam(phi.parameters(), 2e-3))
        for step in range(steps):
            sigma = levels.draw(prior, count, step, generator=generator)
            if way == "SDS":
                x = x - 0.1 * sds_gradient(prior, x, sigma, generator=generator)[0]
                continue
            own = Empirical(x, 0.2) if "known" in way else phi
            x = x - 0.1 * vsd_gradient(prior, own, x, sigma, generator=generator)
            if "learnt" in way:
                learner.learn(x, generator=generator)
        found[way] = x
    return found | {"the prior's own draws": prior.draw(count, generator=torch.Generator().manual_seed(1000 + seed))}


def points(seed: int) -> Scores:
    """Sliced Wasserstein distance from the prior."""
    generator = torch.Generator().manual_seed(2000 + seed)
    theta, truth = directions(64, 2, generator=generator), world().draw(2000, generator=generator)
    return {name: sliced_wasserstein(x, truth, theta) for name, x in clouds(seed).items()}


def spread(seed: int) -> Scores:
    """Their total variance, as a share of the prior's."""
    truth = float(world().draw(100_000, generator=torch.Generator().manual_seed(3000)).var(0).sum())
    return {name: float(x.var(0).sum()) / truth for name, x in clouds(seed).items()}


# ---- pictures ----


def rendering(thing: Object) -> Render:
    """An object of a bank."""
    flat = drawable(thing)
    return lambda cameras: render(flat, cameras)


@lru_cache(maxsize=1)
def bank() -> Exact:
    """Sixteen objects of four families, each from one camera, which is not said."""
    kinds = [(family, k) for family in FAMILIES for k in range(OF_EACH)]
    camera = orbit([0.5], 0.3, 2.0, size=32, fov=0.6)
    objects = [rendering(make(family, k)) for family, k in kinds]
    return Exact(objects, camera, [family for family, _ in kinds], width=WIDTH, knows_cameras=False)


def drawn(way: str, seed: int, *, text: str | None = None, guidance: float = 1.0, levels: Levels, steps: int, count: int = 32) -> Tensor:
    """x0 (count, 3, 32, 32) after so many steps from grey: by "SDS", "VSD", or "stale", whose own score stays that of the start."""
    prior, generator = bank(), torch.Generator().manual_seed(seed)
    guided, cond = classifier_free(prior.denoiser, prior.condition(), guidance), prior.condition(text=text)
    x = start = 0.5 + 0.1 * torch.randn(count, *prior.shape, generator=generator)
    for step in range(steps):
        sigma = levels.draw(guided, count, step, generator=generator)
        if way == "SDS":
            x = x - 0.3 * sds_gradient(guided, x, sigma, cond, generator=generator, weight=residual)[0]
        else:
            own = Empirical(start if way == "stale" else x, WIDTH)
            x = x - 0.3 * vsd_gradient(guided, own, x, sigma, cond, generator=generator, weight=residual)
    return x


def falling(steps: int) -> Levels:
    return Levels(Ramp(0.9, 0.02, 0, steps), Ramp(0.98, 0.1, 0, steps))


@lru_cache(maxsize=8)
def sheets(seed: int, steps: int = 300) -> dict[str, Tensor]:
    """What each way makes of no text, with levels even over all, or large first and small last."""
    even, down = Levels(), falling(steps)
    ways = {"SDS": ("SDS", even), "VSD": ("VSD", even), "SDS, levels falling": ("SDS", down), "VSD, levels falling": ("VSD", down)}
    ways["VSD, levels falling, phi stale"] = ("stale", down)
    return {name: drawn(way, seed, levels=levels, steps=steps) for name, (way, levels) in ways.items()}


def pictures(seed: int) -> Scores:
    """How far the law of the pictures is from the bank's: the mean distance a pixel under the best assignment, as many to each."""
    truth = bank().condition()["windows"][0].flatten(1)
    return {name: transported(x.flatten(1), truth) for name, x in sheets(seed).items()}


def saturation(seed: int) -> Scores:
    """Of chairs: how far values are beyond black and white, the mean over pixels in x0's unit, with levels even over all."""
    ways = {"SDS, guidance 100": ("SDS", 100.0), "SDS, guidance 7.5": ("SDS", 7.5), "VSD, guidance 7.5": ("VSD", 7.5)}
    ways |= {"VSD, guidance 100": ("VSD", 100.0)}
    made = {name: drawn(way, seed, text="chair", guidance=g, levels=Levels(), steps=300) for name, (way, g) in ways.items()}
    return {name: float((x.abs() - 1).clamp(min=0).mean()) for name, x in made.items()}


def transported(x: Tensor, y: Tensor) -> float:
    """Root mean square over dimensions of x (N, D) to y (M, D), N a multiple of M, each y met N / M times; 0 where the laws are one."""
    cost = torch.cdist(x.double(), y.double().repeat(len(x) // len(y), 1)).square() / x.shape[1]
    rows, columns = linear_sum_assignment(cost.numpy())
    return math.sqrt(float(cost[rows, columns].mean()))


CLAIMS = (
    Claim(
        "vsd-points",
        method="VSD",
        source="arXiv:2305.16213, Sec. 3 and Theorem 2",
        says="Points under variational score distillation end as draws of the prior; under score distillation they end in its modes.",
        metric="sliced Wasserstein distance to the prior",
        better="lower",
        run=points,
        must=(Beats("VSD, the points' score known", "SDS"), Beats("VSD, the points' score learnt", "SDS")),
        control=Beats("VSD, the points' score learnt", "VSD, phi never learns"),
        seconds=25,
        remark="`the prior's own draws` are as many samples of the prior: no way can be nearer than about that.",
    ),
    Claim(
        "vsd-spread",
        method="VSD",
        source="arXiv:2305.16213, Sec. 3",
        says="Their variance is the prior's, where that of score distillation is less.",
        metric="total variance, as a share of the prior's",
        better="higher",
        run=spread,
        must=(Between("VSD, the points' score known", 0.8, 1.2), Beats("VSD, the points' score known", "SDS")),
        control=Beats("VSD, the points' score known", "VSD, phi never learns"),
        seconds=1,
        remark="The prior has five modes, so that points of SDS, which end in different ones, keep some of the variance; of one Gaussian "
        "they keep none.",
    ),
    Claim(
        "vsd-pictures",
        method="VSD",
        source="arXiv:2305.16213, Sec. 3",
        says="So do pictures: under a bank of sixteen those of variational distillation are nearer to all of it.",
        metric="rms distance a pixel to the bank, as many pictures to each of it",
        better="lower",
        run=pictures,
        must=(Beats("VSD, levels falling", "SDS"), Beats("VSD, levels falling", "SDS, levels falling")),
        control=Beats("VSD, levels falling", "VSD, levels falling, phi stale"),
        seconds=25,
    ),
    Claim(
        "vsd-saturation",
        method="VSD",
        source="arXiv:2305.16213, Sec. 1 and Fig. 1",
        says="At guidance 7.5 its colours are not over-saturated, as those of score distillation at guidance 100 are.",
        metric="values beyond black and white, mean over pixels",
        better="lower",
        run=saturation,
        must=(Beats("VSD, guidance 7.5", "SDS, guidance 100"),),
        control=Beats("VSD, guidance 7.5", "VSD, guidance 100"),
        seconds=20,
        remark="The control is the guidance, not the method: at 100 variational distillation saturates as well, and at 7.5 "
        "score distillation does not.",
    ),
)
