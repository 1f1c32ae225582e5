# SPDX-License-Identifier: Apache-2.0
"""Exact likelihoods by the probability-flow ODE, dx / dsigma = (x - denoised) / sigma, with Skilling's and Hutchinson's trace.

    log p(x at sigma_0) = log N(x(sigma_n); 0, variance I) + integral of div over sigma

Source: Chen et al. 2018; Song et al. 2021 (arXiv:2011.13456), Sec. 4.3. In u = ln sigma both right-hand sides, x - denoised and
D - tr(d denoised / dx), stay of the size of x, so fixed Runge-Kutta steps in u replace the paper's adaptive ones.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, ask, descending
from bozzetto.scores.matching import directional, jacobian_trace


def log_likelihood(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, cond: Any = None, *, v: Tensor | None = None, variance: float | None = None
) -> tuple[Tensor, Tensor]:
    """log p (B,), nats, of x (B, ...) as a sample on the *last* level, and where the flow takes it on the first, shape of x.

    sigmas    descending, the last above 0: a likelihood of noised data; data itself may have none
    v         directions for the trace with E[v v^T] = I, see `projections`; None takes the exact trace, D backward passes a call
    variance  of the prior on the first level: sigma**2 (the default, VE), or 1 + sigma**2 for variance-preserving models
    Data on the scale x_t = sqrt(alpha_bar) x have log p - D / 2 log alpha_bar. Four calls of the denoiser a step, fourth order.
    """
    levels = descending(sigmas)
    if len(levels) < 2 or levels[-1] == 0:
        raise ValueError("sigmas: expected two levels or more, all above 0; end at the smallest level that the model knows")
    dtype, x = x.dtype, x.double()
    v = None if v is None else v.double()
    total = x.new_zeros(len(x))

    def slope(x: Tensor, u: float, step: int) -> tuple[Tensor, Tensor]:
        def denoise(x: Tensor) -> Tensor:
            return ask(denoiser, x, math.exp(u), cond, step)

        with torch.enable_grad():
            denoised, trace = jacobian_trace(denoise, x) if v is None else directional(denoise, x, v)
        return (x - denoised).detach(), x[0].numel() - trace.detach()

    for i, (low, high) in enumerate(pairwise(math.log(s) for s in reversed(levels))):
        h = high - low
        k1, d1 = slope(x, low, i)
        k2, d2 = slope(x + h / 2 * k1, low + h / 2, i)
        k3, d3 = slope(x + h / 2 * k2, low + h / 2, i)
        k4, d4 = slope(x + h * k3, high, i)
        x, total = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    spread = levels[0] ** 2 if variance is None else variance
    prior = -(x.flatten(1).square().sum(1) / spread + x[0].numel() * math.log(2 * math.pi * spread)) / 2
    return (prior + total).to(dtype), x.to(dtype)


def bits_per_dim(log_p: Tensor, D: int, levels: int = 256, width: float = 2.0) -> Tensor:
    """Of log p (B,) nats, for data dequantised over bins of width / levels each: -log2 p / D + log2(levels / width).

    The offset is 7 bits for pixels in [-1, 1] and 8 for [0, 1] (width 1). DDPM's decoder has bins of 2 / 255: log2(127.5).
    """
    return -log_p / (D * math.log(2)) + math.log2(levels / width)
