# SPDX-License-Identifier: Apache-2.0
"""DDIM (Song et al. 2020, arXiv:2010.02502): what its steps without fresh noise buy, where they are few.

World: 1,000 pictures of 16 pixels, each as likely, whose denoiser is exact; so whatever is wrong with what is drawn is the sampler's
fault. DDIM and DDPM's chain take the same steps of DDPM's own schedule, from the same noise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.claims.claim import Beats, Between, Claim, Near, Scores
from bozzetto.diffusion.samplers import ddim
from bozzetto.diffusion.schedules import alpha_bar, ladder, linear_betas, spaced
from bozzetto.scores.frechet import frechet

SIZE, COUNTS = 16, (5, 10, 20, 100)


def pictures(count: int, *, generator: torch.Generator) -> Tensor:
    """(count, 1, 16, 16) in [-1, 1]: discs, squares, triangles, rings and crosses, white on black, of any size, turn and place."""
    kind = torch.randint(5, (count,), generator=generator)
    u = torch.rand(count, 4, generator=generator)
    radius, turn = 3 + 3 * u[:, 0], 2 * math.pi * u[:, 1]
    middle = SIZE / 2 + (2 * u[:, 2:] - 1) * (SIZE / 2 - 1 - radius)[:, None]
    at = torch.arange(SIZE) + 0.5
    dx, dy = at[None, None, :] - middle[:, 0, None, None], at[None, :, None] - middle[:, 1, None, None]
    c, s, r = (x[:, None, None] for x in (turn.cos(), turn.sin(), radius))
    x, y = c * dx + s * dy, c * dy - s * dx
    far = (x**2 + y**2).sqrt()
    square = torch.maximum(x.abs(), y.abs()) - r / math.sqrt(2)
    triangle = torch.maximum(-y, math.sqrt(0.75) * x.abs() + y / 2) - r / 2
    cross = torch.minimum(torch.maximum(x.abs() - r / 3.5, y.abs() - r), torch.maximum(y.abs() - r / 3.5, x.abs() - r))
    outside = torch.stack([far - r, square, triangle, (far - 0.75 * r).abs() - r / 4, cross])  # distances to outlines
    return 2 * (0.5 - outside[kind, torch.arange(count)]).clamp(0, 1)[:, None] - 1


class Bank:
    """`scores.parzen.Empirical` of pictures x0 (N, 1, 16, 16), by one matrix product; float64, whose digits last down to levels of .001.

    told  what it takes the noise for, as a share of what it is: 1 is right
    """

    def __init__(self, x0: Tensor, told: float = 1.0) -> None:
        self.x0, self.told = x0.flatten(1).double(), told
        self.half_squares = self.x0.square().sum(1) / 2
        self.sigmas = torch.tensor([1e-3, 1e3], dtype=torch.float64)

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = self.told * torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1)
        near = torch.softmax((x.flatten(1).double() @ self.x0.T - self.half_squares) / s**2, 1)
        return (near @ self.x0).view_as(x).to(x)

    def nearest(self, x: Tensor) -> Tensor:
        """Which picture each of x (B, 1, 16, 16) is nearest to, (B,)."""
        return torch.cdist(x.flatten(1).double(), self.x0).argmin(1)


@lru_cache(maxsize=8)
def drawn(seed: int, count: int = 500) -> tuple[Bank, dict[str, Tensor]]:
    """The bank, and what each way draws from it, (count, 1, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    bank, levels = Bank(pictures(1000, generator=generator)), alpha_bar(linear_betas())
    noise, other = torch.randn(2, count, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    found = {}
    for n in COUNTS:
        sigmas = ladder(levels, spaced(len(levels), n))
        for name, eta in (("DDIM", 0.0), ("DDPM", 1.0)):
            found[f"{name}, {n} steps"] = ddim(bank, float(sigmas[0]) * noise, sigmas, eta=eta, generator=generator)
    sigmas = ladder(levels, spaced(len(levels), 20))
    found["DDIM, 20 steps, told half the noise"] = ddim(Bank(bank.x0.view(-1, 1, SIZE, SIZE), 0.5), float(sigmas[0]) * noise, sigmas)
    found["DDIM, 20 steps, other noise"] = ddim(bank, float(sigmas[0]) * other, sigmas)
    return bank, found


def distance(seed: int) -> Scores:
    """Fréchet's, of pictures with halved sides."""
    bank, found = drawn(seed)
    picked = torch.randint(len(bank.x0), (500,), generator=torch.Generator().manual_seed(1000 + seed))
    made = {name: x for name, x in found.items() if "other" not in name} | {"as many of the bank": bank.x0[picked].view(-1, 1, SIZE, SIZE)}
    real = _features(bank.x0.view(-1, 1, SIZE, SIZE))
    return {name: frechet(_features(x), real) for name, x in made.items()}


def strayed(seed: int) -> Scores:
    """Share of samples that end at another picture than DDIM's hundred steps from the same noise."""
    bank, found = drawn(seed)
    ends = {name: bank.nearest(x) for name, x in found.items() if "told" not in name}
    last = ends.pop("DDIM, 100 steps")
    return {name: float((end != last).double().mean()) for name, end in ends.items()}


def _features(x: Tensor) -> Tensor:
    return F.avg_pool2d(x.clamp(-1, 1), 2).flatten(1)


_CLAIM = Claim(
    "ddim-few-steps",
    method="DDIM",
    source="arXiv:2010.02502, Table 1",
    says="In few steps DDIM draws better than DDPM's chain does; in many they are alike.",
    metric="Fréchet distance of 8 x 8 pixels to the bank",
    better="lower",
    run=distance,
    must=(
        *(Beats(f"DDIM, {n} steps", f"DDPM, {n} steps") for n in (5, 10, 20)),
        Near("DDPM, 100 steps", "DDIM, 100 steps", 0.3),
    ),
    control=Beats("DDIM, 20 steps", "DDIM, 20 steps, told half the noise"),
    seconds=8,
)
CLAIMS = (
    _CLAIM,
    replace(
        _CLAIM,
        name="ddim-same-picture",
        source="arXiv:2010.02502, Sec. 5.2 and Fig. 5",
        says="From one noise DDIM comes to one picture, in however many steps; DDPM's chain does not.",
        metric="share of samples that end at another picture than 100 steps of DDIM from the same noise",
        run=strayed,
        must=(Beats("DDIM, 10 steps", "DDPM, 10 steps"), Beats("DDIM, 20 steps", "DDIM, 10 steps"), Between("DDIM, 20 steps", high=0.5)),
        control=Beats("DDIM, 20 steps", "DDIM, 20 steps, other noise"),
        seconds=1,
    ),
)
