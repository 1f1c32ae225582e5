# SPDX-License-Identifier: Apache-2.0
"""Data laws whose score is known at every noise level: Gaussians and mixtures of them, as `Denoiser`s in float64."""

from __future__ import annotations

import math

import torch
from scipy import optimize
from torch import Tensor, nn

from bozzetto.denoiser import each

SIGMAS = torch.tensor([1e-4, 1e4], dtype=torch.float64)
F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Gaussian:
    """x0 ~ N(mean, cov); mean (D,), cov (D, D)."""

    sigmas = SIGMAS

    def __init__(self, mean, cov):
        self.mean, self.cov = torch.as_tensor(mean, dtype=F64), torch.as_tensor(cov, dtype=F64)
        self.calls = 0

    def score(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        total = self.cov + sigma**2 * torch.eye(len(self.mean), dtype=F64)
        return -torch.linalg.solve(total, (x - self.mean).T).T

    def denoise(self, x, sigma, cond=None):
        self.calls += 1
        return x + float(sigma) ** 2 * self.score(x, float(sigma))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.mean + torch.randn(n, len(self.mean), generator=generator, dtype=F64) @ torch.linalg.cholesky(self.cov).T


def iso(c: float, D: int = 1, mean: float = 0.0) -> Gaussian:
    """N(mean, c**2 I)."""
    return Gaussian([mean] * D, c**2 * torch.eye(D, dtype=F64))


class Mixture:
    """sum of weights N(means, stds**2 I); weights (K,), means (K, D), stds (K,)."""

    sigmas = SIGMAS

    def __init__(self, weights, means, stds):
        self.weights, self.means, self.stds = (torch.as_tensor(a, dtype=F64) for a in (weights, means, stds))

    def log_density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        var = self.stds**2 + sigma**2
        r2 = (x[:, None] - self.means).square().sum(-1)
        return torch.logsumexp(self.weights.log() - r2 / (2 * var) - x.shape[1] / 2 * torch.log(2 * math.pi * var), 1)

    def score(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        var = self.stds**2 + sigma**2
        r2 = (x[:, None] - self.means).square().sum(-1)
        r = torch.softmax(self.weights.log() - r2 / (2 * var) - x.shape[1] / 2 * var.log(), 1)
        return ((r / var)[..., None] * (self.means - x[:, None])).sum(1)

    def denoise(self, x, sigma, cond=None):
        return x + float(sigma) ** 2 * self.score(x, float(sigma))

    def cdf(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """In one dimension, x (N,)."""
        return (self.weights * torch.special.ndtr((x[:, None] - self.means[:, 0]) / (self.stds**2 + sigma**2).sqrt())).sum(1)

    def quantile(self, u: float, sigma: float = 0.0) -> float:
        def off(x: float) -> float:
            return float(self.cdf(torch.tensor([x], dtype=F64), sigma)) - u

        return float(optimize.brentq(off, -1e3, 1e3, xtol=1e-13))


class Fitted(nn.Module):
    """A Gaussian that learns, N(mean, exp(log_variance)) a coordinate, as a `Trainable`: its loss is the noise's error."""

    sigmas = torch.logspace(-1.5, 1.2, 100, dtype=F64)

    def __init__(self, shape, mean=0.0, variance=1.0):
        super().__init__()
        self.mean = nn.Parameter(torch.full(shape, mean, dtype=F64))
        self.log_variance = nn.Parameter(torch.full((1,) * len(shape), math.log(variance), dtype=F64))
        self.asked = []

    def denoise(self, x, sigma, cond=None):
        self.asked.append(cond)
        s2, v = each(sigma, x.double()) ** 2, self.log_variance.exp()
        mean = self.mean if cond is None else self.mean + cond["shift"]
        return ((v * x.double() + s2 * mean) / (v + s2)).to(x)

    def loss(self, x0, noise, sigma, cond=None):
        s = each(sigma, x0)
        return ((self.denoise(x0 + s * noise, sigma, cond) - x0) / s).square().flatten(1).mean(1)
