# SPDX-License-Identifier: Apache-2.0
"""What the figures show: a mixture of round Gaussians, whose density and score are known at every noise level, and a small network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bozzetto.denoiser import each, noise_like


class Mixture:
    """sum over K of weights N(means, stds**2 I), as a `Denoiser`; weights (K,), means (K, D), stds (K,), float64."""

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        self.weights, self.means, self.stds = weights.double() / weights.double().sum(), means.double(), stds.double()
        self.sigmas = torch.tensor([1e-4, 1e4], dtype=torch.float64)

    def _parts(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Logarithms of the K weighted densities (B, K), and their variances."""
        s = torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1)
        variance = self.stds**2 + s**2
        r2 = torch.cdist(x.double(), self.means).square()
        return self.weights.log() - r2 / (2 * variance) - x.shape[1] / 2 * torch.log(2 * math.pi * variance), variance

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """(B,) of the data noised by sigma."""
        return self._parts(x, sigma)[0].logsumexp(1)

    def score(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        logs, variance = self._parts(x, sigma)
        pull = logs.softmax(1) / variance
        return (pull @ self.means - pull.sum(1, keepdim=True) * x).to(x)

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        return x + each(sigma, x) ** 2 * self.score(x, sigma)

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        """(count, D) float64"""
        kind = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[kind] + self.stds[kind, None] * noise_like(self.means[kind], generator)


def two_modes() -> Mixture:
    """The notes' world: .8 N((5, 5), I) + .2 N((-5, -5), I)."""
    return Mixture(torch.tensor([0.8, 0.2]), torch.tensor([[5.0, 5.0], [-5.0, -5.0]]), torch.ones(2))


def grid(low: float, high: float, n: int) -> Tensor:
    """(n * n, 2) float64 points of a square, row by row from below."""
    line = torch.linspace(low, high, n, dtype=torch.float64)
    return torch.stack([line.repeat(n), line.repeat_interleave(n)], 1)


def network(D: int, width: int = 128, *, generator: torch.Generator) -> nn.Module:
    """D to D, two hidden layers of softplus: NCSN's for such worlds."""
    net = nn.Sequential(nn.Linear(D, width), nn.Softplus(), nn.Linear(width, width), nn.Softplus(), nn.Linear(width, D))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return net


def fit(net: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float = 1e-3) -> list[float]:
    """Adam, and what the loss was at each step."""
    optimiser, seen = torch.optim.Adam(net.parameters(), lr), []
    for _ in range(steps):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        seen.append(float(value.detach()))
    return seen
