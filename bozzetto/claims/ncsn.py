# SPDX-License-Identifier: Apache-2.0
"""NCSN (Song & Ermon 2019, arXiv:1907.05600): Langevin dynamics down a ladder of noise, by a learnt score, against one level alone.

World: the paper's, two Gaussians of deviation 1, fourteen apart, weights .8 and .2. One small network learns the scores of ten levels
from samples, by denoising score matching; every chain starts from the same even square and asks it a thousand times.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.denoiser import Denoiser, EDMDenoiser, noise_like, score
from bozzetto.diffusion.losses import denoising_loss, edm_weight
from bozzetto.figures.worlds import fit, network, two_modes
from bozzetto.scores.ladder import geometric
from bozzetto.scores.langevin import ula
from bozzetto.scores.ncsn import annealed_langevin
from bozzetto.scores.wasserstein import directions, sliced_wasserstein

SIGMAS = geometric(15.0, 0.5, 10)
SPREAD = 4.1  # of the data, a coordinate
STEPS = 1000  # of each chain, in all
EXACT = "exact score of the data, steps of 0.5"


def trained(seed: int, steps: int) -> Denoiser:
    """Denoising score matching at every level alike, in EDM's form, whose network has inputs and targets of unit variance."""
    data, generator = two_modes(), torch.Generator().manual_seed(seed)
    net = network(3, generator=generator)
    denoiser = EDMDenoiser(lambda x, time: net(torch.cat([3 * x.float(), 4 * time[:, None]], 1))[:, :2], SPREAD, SIGMAS.flip(0).tolist())

    def loss() -> Tensor:
        x0 = data.draw(256, generator=generator).float()
        sigma = SIGMAS[torch.randint(len(SIGMAS), (len(x0),), generator=generator)]
        return denoising_loss(denoiser, x0, noise_like(x0, generator), sigma, edm_weight(sigma, SPREAD)).mean()

    fit(net, loss, steps, 3e-3)
    fit(net, loss, steps // 2, 3e-4)
    net.requires_grad_(False)
    return denoiser


class _Misnumbered:
    """Asked about one level, says the noise of the one as far from the ladder's other end: network and sampler count levels from
    different ends."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.sigmas = denoiser, denoiser.sigmas

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: object = None) -> Tensor:
        place = (self.sigmas.log() - math.log(float(sigma))).abs().argmin()
        other = float(self.sigmas[len(self.sigmas) - 1 - place])
        return x + float(sigma) / other * (self.denoiser.denoise(x, other) - x)


@lru_cache(maxsize=8)
def chains(seed: int, steps: int = 1500, count: int = 800) -> dict[str, Tensor]:
    """Where `count` chains of each way end, and as many samples of the data, (count, 2)."""
    ladder, data = trained(seed, steps), two_modes()
    generator = torch.Generator().manual_seed(1000 + seed)
    start = 16 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 8
    last = float(SIGMAS[-1])
    eps = 0.3 * last**2
    found = {"annealed": annealed_langevin(ladder, start, SIGMAS, eps, STEPS // 10, generator=generator, final_denoise=True)}
    for step in (0.1, 0.5):
        end = ula(lambda x: score(ladder, x, last), start, step, STEPS, generator=generator)
        found[f"smallest level alone, steps of {step}"] = ladder.denoise(end, last)
    found[EXACT] = ula(data.score, start, 0.5, STEPS, generator=generator)
    wrong = _Misnumbered(ladder)
    found["levels misnumbered"] = annealed_langevin(wrong, start, SIGMAS, eps, STEPS // 10, generator=generator)
    found["the data"] = data.draw(count, generator=generator)
    return found


def share_error(x: Tensor) -> float:
    """How far the share of samples at the heavier mode is from .8."""
    return abs(float((x.sum(1) > 0).double().mean()) - 0.8)


def weights(seed: int) -> Scores:
    return {name: share_error(x) for name, x in chains(seed).items()}


def distance(seed: int) -> Scores:
    generator = torch.Generator().manual_seed(2000 + seed)
    theta, truth = directions(64, 2, generator=generator), two_modes().draw(1500, generator=generator)
    return {name: sliced_wasserstein(x, truth, theta) for name, x in chains(seed).items()}


_CLAIM = Claim(
    "ncsn-mode-weights",
    method="NCSN",
    source="arXiv:1907.05600, Sec. 3.2 and 4.3",
    says="Annealed Langevin dynamics gives two far modes their weights; at one small level it does not, even by the exact score.",
    metric="error of the heavier mode's share",
    better="lower",
    run=weights,
    must=tuple(Beats("annealed", name) for name in ("smallest level alone, steps of 0.1", "smallest level alone, steps of 0.5", EXACT)),
    control=Beats("annealed", "levels misnumbered"),
    seconds=24,
)
CLAIMS = (
    _CLAIM,
    replace(
        _CLAIM,
        name="ncsn-samples",
        says="So its samples are nearer to the data, too, at as many calls of the network.",
        metric="sliced Wasserstein distance to 1500 samples of the data",
        run=distance,
        seconds=1,
    ),
)
