# SPDX-License-Identifier: Apache-2.0
"""Parzen windows: the density of N samples blurred by a kernel, and its exact score.

    q(x) = 1 / (N sigma**D) sum_i K((x - x_i) / sigma)

With Gaussian windows the score is the best that denoising score matching can learn from those N samples, and `Empirical` is that
optimum as a `Denoiser`: it knows the samples by heart, and sampling from it gives them back, blurred by its windows if they have a width.

Source: Parzen 1962; Silverman 1986; Vincent 2011. Letters: N samples x0 (N, D), B queries x (B, D), sigma the bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[[Tensor, int], Tensor]
"""(|u|**2, D) to log K(u), where K integrates to 1 over D dimensions; -inf outside its support"""


def gaussian(r2: Tensor, D: int) -> Tensor:
    return -r2 / 2 - D / 2 * math.log(2 * math.pi)


def uniform(r2: Tensor, D: int) -> Tensor:
    """The unit ball."""
    return torch.where(r2 <= 1, -_log_ball(D), -torch.inf)


def epanechnikov(r2: Tensor, D: int) -> Tensor:
    """(1 - |u|**2) on the unit ball, times (D + 2) / 2 over the ball's volume."""
    return torch.log((1 - r2).clamp(min=0)) + math.log((D + 2) / 2) - _log_ball(D)


def log_density(x: Tensor, x0: Tensor, sigma: float, kernel: Kernel = gaussian) -> Tensor:
    """log q(x), (B,); -inf where no window reaches."""
    N, D = x0.shape
    return torch.logsumexp(kernel(_r2(x, x0, sigma), D), 1) - math.log(N) - D * math.log(sigma)


def score(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """grad log q(x) of Gaussian windows, (B, D)."""
    return (_mean(x, x0, sigma) - x) / sigma**2


def leave_one_out(x0: Tensor, sigma: float, kernel: Kernel = gaussian) -> float:
    """Mean log-density of each sample under the windows of the others: a score for bandwidths, largest is best."""
    N, D = x0.shape
    if N < 2:
        raise ValueError(f"x0: expected two samples or more to leave one out, got {N}")
    logs = kernel(_r2(x0, x0, sigma), D).fill_diagonal_(-torch.inf)
    return float((torch.logsumexp(logs, 1) - math.log(N - 1) - D * math.log(sigma)).mean())


def best_bandwidth(x0: Tensor, candidates: Tensor, kernel: Kernel = gaussian) -> float:
    """Of candidates (M,), the one that `leave_one_out` likes best."""
    return max(candidates.tolist(), key=lambda sigma: leave_one_out(x0, sigma, kernel))


def silverman(x0: Tensor) -> float:
    """(4 / (D + 2) / N)**(1 / (D + 4)) times the root mean variance: the best bandwidth for Gaussian data. Silverman 1986, Sec. 4.3.2."""
    N, D = x0.shape
    return (4 / (D + 2) / N) ** (1 / (D + 4)) * math.sqrt(float(x0.var(0).mean()))


def denoised(x: Tensor, x0: Tensor, sigma: Tensor | float, width: float = 0.0, log_weights: Tensor | None = None) -> Tensor:
    """E[clean | x], (B, D), where clean ~ sum_i w_i N(x0_i, width**2 I) and x = clean + sigma noise: the exact denoiser of the windows.

        (width**2 x + sigma**2 m) / (width**2 + sigma**2),    m = sum_i r_i x0_i,    r_i ~ w_i N(x; x0_i, (width**2 + sigma**2) I)

    x0           (N, D), or (B, N, D) where each x has samples of its own
    sigma        one number, or (B, 1)
    width        standard deviation of the windows; 0: the samples themselves
    log_weights  log w_i up to a constant, (N,) or (B, N); -inf leaves a sample out; equal weights by default
    """
    level, own = torch.as_tensor(sigma, dtype=torch.float64).to(x) ** 2, width**2
    m = _mean(x, x0, (level + own).sqrt(), log_weights)
    return (own * x + level * m) / (own + level)


class Empirical:
    """N samples under Gaussian windows as a `Denoiser`: `denoised`; without width it gives the samples back, each as often as its weight.

    x0  (N, ...) of any shape; width and log_weights (N,) as there
    """

    def __init__(self, x0: Tensor, width: float = 0.0, log_weights: Tensor | None = None) -> None:
        self.x0, self.width, self.log_weights = x0, width, log_weights
        self.sigmas = torch.tensor([1e-6, 1e6], dtype=torch.float64)

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).view(-1, 1)
        return denoised(x.flatten(1), self.x0.to(x).flatten(1), s, self.width, self.log_weights).view_as(x)


def _mean(x: Tensor, x0: Tensor, sigma: Tensor | float, log_weights: Tensor | None = None) -> Tensor:
    """Of x0, weighted by Gaussian windows around x; the kernel's normaliser cancels."""
    logs = gaussian(_r2(x, x0, sigma), 0)
    share = torch.softmax(logs if log_weights is None else logs + log_weights.to(x), 1)
    return share @ x0 if x0.ndim == 2 else (share[:, None] @ x0)[:, 0]


def _r2(x: Tensor, x0: Tensor, sigma: Tensor | float) -> Tensor:
    """(B, N)"""
    if not bool((torch.as_tensor(sigma) > 0).all()):
        raise ValueError(f"sigma: expected a bandwidth above 0, got {sigma}")
    # differences, not |x|**2 - 2 x.y + |y|**2, which loses its digits at small bandwidths
    apart = torch.cdist(x if x0.ndim == 2 else x[:, None], x0, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.view(len(x), -1).square() / sigma**2


def _log_ball(D: int) -> float:
    return D / 2 * math.log(math.pi) - math.lgamma(D / 2 + 1)
