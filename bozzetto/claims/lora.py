# SPDX-License-Identifier: Apache-2.0
"""LoRA (Hu et al. 2021, arXiv:2106.09685): a low-rank update learns a shifted world nearly as well as all weights do.

World: a Gaussian in 16 dimensions. A denoiser learns it; then the world moves along two directions, and copies of the denoiser learn
the new one for as many steps each: all weights, or updates of a rank. The error is that of E[x0 | x], which is known.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bozzetto.claims.claim import Beats, Between, Claim, Near, Scores
from bozzetto.denoiser import VPDenoiser, noise_like
from bozzetto.distill.sds import level
from bozzetto.priors.lora import LoRA, adapted
from bozzetto.priors.schedule import NoiseSchedule

D, WIDTH, BATCH = 16, 96, 256
STD = 0.5  # of both worlds in each direction
LAYERS = ("first", "middle", "last")


class Network(nn.Module):
    """The noise in x (B, D) at a time (B,) of 1000."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(D + 2, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, D)
        for layer in (self.first, self.middle, self.last):
            nn.init.xavier_uniform_(layer.weight, generator=generator)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        t = time[:, None].to(x) / 1000
        h = nn.functional.silu(self.first(torch.cat([x, t, t.square()], 1)))
        made: Tensor = self.last(nn.functional.silu(self.middle(h)))
        return made


class World:
    """A denoiser as a prior: all that `adapted` asks."""

    def __init__(self, denoiser: VPDenoiser) -> None:
        self.denoiser = denoiser


def learn(denoiser: VPDenoiser, weights: list[nn.Parameter], mean: Tensor, steps: int, lr: float, generator: torch.Generator) -> None:
    """Adam on the loss of the network's own prediction, its rate falling to nothing."""
    optimiser = torch.optim.Adam(weights, lr)
    for n in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - n / steps)
        x0 = (mean + STD * torch.randn(BATCH, D, generator=generator)).float()
        sigma = level(denoiser, torch.rand(BATCH, generator=generator, dtype=torch.float64))
        optimiser.zero_grad()
        denoiser.loss(x0, noise_like(x0, generator), sigma).mean().backward()
        optimiser.step()


@torch.no_grad()
def error(denoiser: VPDenoiser, mean: Tensor) -> float:
    """Root mean square of D - E[x0 | x] over levels and samples, in standard deviations of the world."""
    g = torch.Generator().manual_seed(99)
    x0 = (mean + STD * torch.randn(4000, D, generator=g)).float()
    sigma = level(denoiser, torch.rand(4000, generator=g, dtype=torch.float64))
    s = sigma[:, None]
    x = x0 + s.float() * noise_like(x0, g)
    true = (STD**2 * x + s**2 * mean) / (STD**2 + s**2)
    return float((denoiser.denoise(x, sigma) - true).square().mean().sqrt()) / STD


def run(seed: int, steps: int = 1500) -> Scores:
    g = torch.Generator().manual_seed(seed)
    denoiser = VPDenoiser(Network(g), NoiseSchedule().alpha_bar())
    before, after = torch.zeros(D), torch.zeros(D)
    after[:2] = torch.tensor([1.5, -1.0])
    learn(denoiser, list(denoiser.parameters()), before, 2 * steps, 2e-3, g)
    denoiser.requires_grad_(False)
    untouched = {k: v.clone() for k, v in denoiser.state_dict().items()}
    found = {"not tuned": error(denoiser, after)}
    for rank in (1, 4):
        tuned = adapted(World(denoiser), LoRA(rank, layers=LAYERS), generator=g)
        learn(tuned.denoiser, list(tuned.parameters()), after, steps, 1e-2, torch.Generator().manual_seed(100 + seed))
        found[f"rank {rank}"] = error(tuned.denoiser, after)
    whole = copy.deepcopy(denoiser).requires_grad_(True)
    learn(whole, list(whole.parameters()), after, steps, 2e-3, torch.Generator().manual_seed(100 + seed))
    found["all weights"] = error(whole, after)
    wrong = adapted(World(denoiser), LoRA(4, layers=LAYERS), generator=g)
    learn(wrong.denoiser, list(wrong.parameters()), -after, steps, 1e-2, torch.Generator().manual_seed(100 + seed))
    found["rank 4, wrong way"] = error(wrong.denoiser, after)
    found["base, changed by"] = max(float((v - untouched[k]).abs().max()) for k, v in denoiser.state_dict().items())
    return found


CLAIMS = (
    Claim(
        "lora-shift",
        method="LoRA",
        source="arXiv:2106.09685, Secs. 4 and 7",
        says="An update of small rank learns a new task as all weights do, and leaves the base as it was.",
        metric="rms error of the denoised, in standard deviations of the data",
        better="lower",
        run=run,
        must=(Near("rank 4", "all weights", 0.1), Beats("rank 4", "not tuned"), Between("base, changed by", high=0.0)),
        control=Beats("rank 4", "rank 4, wrong way"),
        seconds=30,
        remark="The world moves along two of 16 directions. `base, changed by` is the largest change of any weight of the base. "
        "Rank 4 comes near all weights, but not within 10 % of them over the seeds. Looked for with one seed: rank is not the reason, as "
        "rank 16 is further off, nor that biases stay, as letting them learn is no nearer; a third of the rate is further off, too. "
        "That leaves how far equal steps bring it, which was not tried. Most of each figure is the base's own error, in its own world.",
    ),
)
