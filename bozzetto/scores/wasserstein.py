# SPDX-License-Identifier: Apache-2.0
"""The sliced Wasserstein distance between two sets of samples: one-dimensional transport, averaged over directions.

Sliced score matching projects *scores* as this projects *samples*; it does not minimise this distance.
Source: Rabin et al. 2011; Bonneel et al. 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bozzetto.denoiser import noise_like


def directions(count: int, D: int, *, generator: torch.Generator) -> Tensor:
    """(count, D) float64, even on the unit sphere."""
    v = noise_like(torch.empty(count, D, dtype=torch.float64), generator)
    return v / v.norm(dim=1, keepdim=True)


def wasserstein_1d(x: Tensor, y: Tensor, p: float = 2.0) -> Tensor:
    """W_p**p of each column of x (N, K) and y (M, K), (K,): the integral over u of |x's quantile - y's quantile|**p.

    Exact for any N and M: both quantile functions are steps, and change at i / N and j / M alone.
    """
    N, M = len(x), len(y)
    x, y = x.sort(0).values, y.sort(0).values
    if N == M:
        return (x - y).abs().pow(p).mean(0)
    ends = torch.cat([torch.arange(1, N + 1) * M, torch.arange(1, M + 1) * N]).unique()  # in units of 1 / (N M), so exact
    widths = ends.diff(prepend=ends.new_zeros(1)).to(x) / (N * M)
    cost = (x[(ends - 1) // M] - y[(ends - 1) // N]).abs().pow(p)
    return (widths[:, None] * cost).sum(0)


def sliced_wasserstein(x: Tensor, y: Tensor, theta: Tensor, p: float = 2.0) -> float:
    """SW_p (not its p-th power) of samples x (N, ...) and y (M, ...) over unit directions theta (K, D), the same for both."""
    a, b = x.flatten(1), y.flatten(1)
    if a.shape[1] != b.shape[1] or theta.ndim != 2 or theta.shape[1] != a.shape[1]:
        raise ValueError(f"theta: expected (K, {a.shape[1]}), and as many dimensions in y, got {tuple(theta.shape)} and {b.shape[1]}")
    t = theta.to(a)
    if not torch.allclose(t.norm(dim=1), t.new_ones(len(t)), rtol=1e-4):
        raise ValueError("theta: expected directions of length 1; others multiply the distance by their length")
    return float(wasserstein_1d(a @ t.T, b @ t.T, p).mean() ** (1 / p))
