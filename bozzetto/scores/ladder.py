# SPDX-License-Identifier: Apache-2.0
"""Noise ladders of NCSN, and NCSNv2's rules for them (Song & Ermon 2019, arXiv:1907.05600; 2020, arXiv:2006.09011).

Letters: L levels, sigma_1 the largest and sigma_L the smallest; gamma = sigma_i / sigma_{i+1}; D dimensions; T Langevin steps
a level; eps the step size of convention B, x + alpha s + sqrt(2 alpha) z with alpha = eps sigma_i**2 / sigma_L**2. The NCSN
paper's own convention A, x + alpha / 2 s + sqrt(alpha) z, has twice that: eps_A = 2 eps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def geometric(sigma_1: float, sigma_L: float, L: int) -> Tensor:
    """(L,) float64, descending with a constant ratio, both ends exact. NCSN, Sec. 4.2.

    raises  ValueError unless sigma_1 > sigma_L > 0 and L >= 2 (or L = 1, which is sigma_1 alone)
    """
    if L == 1 and sigma_1 > 0:
        return torch.tensor([sigma_1], dtype=torch.float64)
    if L < 2 or not math.inf > sigma_1 > sigma_L > 0:
        raise ValueError(f"sigmas: expected sigma_1 > sigma_L > 0 and L >= 1, got {sigma_1}, {sigma_L}, {L}; the largest comes first")
    sigmas = torch.logspace(math.log10(sigma_1), math.log10(sigma_L), L, dtype=torch.float64)
    sigmas[0], sigmas[-1] = sigma_1, sigma_L
    return sigmas


def largest_distance(x0: Tensor) -> float:
    """Technique 1: sigma_1 is about the largest distance between two of the samples x0 (N, ...)."""
    return float(torch.cdist(x0.flatten(1), x0.flatten(1)).max())


def transition_bound(x0: Tensor, sigma_1: float) -> Tensor:
    """Proposition 1: E_{p_i}[r_j] <= exp(-|x_i - x_j|**2 / 8 sigma_1**2) / 2, (N, N): how much of component i's mass looks like j's."""
    return torch.exp(-(torch.cdist(x0.flatten(1), x0.flatten(1)) ** 2) / (8 * sigma_1**2)) / 2


def overlap(gamma: float, D: int) -> float:
    """C(gamma), the mass of level i within three deviations of level i + 1's shell; technique 2 wants about one half."""
    root = math.sqrt(2 * D) * (gamma - 1)
    return _phi(root + 3 * gamma) - _phi(root - 3 * gamma)


def ratio(D: int, C: float = 0.5) -> float:
    """The gamma > 1 at which `overlap` is C in (0, .99); overlap falls with gamma."""
    low, high = 1.0, 2.0 + 6 / math.sqrt(D)
    for _ in range(100):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle, D) > C else (low, middle)
    return low


def levels(sigma_1: float, sigma_L: float, gamma: float) -> int:
    """How many levels have that ratio, at least: L = ceil(1 + log(sigma_1 / sigma_L) / log gamma)."""
    return math.ceil(1 + math.log(sigma_1 / sigma_L) / math.log(gamma) - 1e-9)  # a whole number stays itself


def variance_ratio(eps: float, sigma_L: float, gamma: float, T: int) -> float:
    """s_T**2 / sigma_i**2 for point data after T steps (B) on level i, having come from level i - 1; NCSNv2, Prop. 3.

    raises  ValueError unless 0 < eps < 2 sigma_L**2: beyond it the chain explodes
    """
    r = eps / sigma_L**2
    if not 0 < r < 2:
        raise ValueError(f"eps: expected a step in (0, 2 sigma_L**2 = {2 * sigma_L**2:.3g}), got {eps}")
    b = 2 * r / (1 - (1 - r) ** 2)
    return (1 - r) ** (2 * T) * (gamma**2 - b) + b


def step_size(sigma_L: float, gamma: float, T: int) -> float:
    """Technique 4: the eps (B) at which `variance_ratio` is nearest to 1.

    It falls from gamma**2 at eps = 0, and rises again without limit: a fine scan in log eps, refined twice around its best.
    """
    low, high = 1e-8, 1.0
    for _ in range(4):
        grid = torch.logspace(math.log10(low), math.log10(high), 4001, dtype=torch.float64)
        off = torch.tensor([abs(variance_ratio(float(r), 1.0, gamma, T) - 1) for r in grid])
        i = int(off.argmin())
        low, high = float(grid[max(i - 1, 0)]), float(grid[min(i + 1, 4000)])
    return math.sqrt(low * high) * sigma_L**2


def _phi(u: float) -> float:
    return math.erfc(-u / math.sqrt(2)) / 2
