# SPDX-License-Identifier: Apache-2.0
"""Noise schedules: how much noise training adds, and the levels that a sampler walks down.

Training of variance-preserving models: `*_betas` (T,), then `alpha_bar` (T,). Sampling: `sigmas` (n + 1,), float64, descending,
the last 0, on the variance-exploding scale of `denoiser.py`; n is the number of steps. NCSN's ladders stand in `scores/ladder.py`.

Letters: T steps of training; k = 0 .. T - 1 their index, k = 0 is *one* noising step; n steps of sampling.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from bozzetto.denoiser import sigma_of

Spacing = Literal["trailing", "leading", "linspace", "quad"]


def linear_betas(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """(T,) float64. Ho et al. 2020 (arXiv:2006.11239), Sec. 4; for another T, scale both ends by 1000 / T."""
    return _checked(torch.linspace(start, end, T, dtype=torch.float64))


def scaled_linear_betas(T: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """(T,) float64, linear in the root. Stable Diffusion's; its last alpha_bar, .00466, is far from 0."""
    return _checked(torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2)


def cosine_betas(T: int = 1000, s: float = 0.008, most: float = 0.999) -> Tensor:
    """(T,) float64, alpha_bar(u) ~ cos(pi / 2 (u + s) / (1 + s))**2, each beta capped at `most`. arXiv:2102.09672, Eq. 17."""
    u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    signal = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2  # its value at 0 cancels in the ratio
    return _checked((1 - signal[1:] / signal[:-1]).clamp(max=most))


def alpha_bar(betas: Tensor) -> Tensor:
    """(T,) float64: the product of 1 - beta so far."""
    return _checked(betas.double()).neg().add(1).cumprod(0)


def zero_terminal_snr(alpha_bar: Tensor, last: float = 2.0**-24) -> Tensor:
    """sqrt(alpha_bar) shifted and scaled so that its end is 0 and its start is kept; (T,).

    last    what stands for the 0: 2**-24 (sigma = 4096) for a `Denoiser`; 0.0 is for the native DDPM file alone
    source  Lin et al. 2023 (arXiv:2305.08891), Alg. 1
    """
    root = alpha_bar.double().sqrt()
    shifted = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    shifted[-1] = last
    return shifted


def spaced(T: int, n: int, spacing: Spacing = "trailing", offset: int = 0) -> Tensor:
    """Which n of the T steps a sampler visits: (n,) int64, descending, in [0, T).

    trailing  ends at T - 1 always, the noisiest step; the right one for models whose last step is noise alone
    leading   multiples of T // n from 0, never T - 1; Stable Diffusion shifts them by offset = 1
    linspace  both ends, rounded
    quad      squares up to .8 T: DDIM's for CIFAR-10, as its code has it
    source    Lin et al. 2023, Table 2; Song et al. 2020 (arXiv:2010.02502), App. D.2
    raises    ValueError unless the steps are n different ones in [0, T)
    """
    if not 1 <= n <= T:
        raise ValueError(f"n: expected 1 to {T} steps of sampling, got {n}; training had {T}")
    if spacing == "trailing":
        steps = torch.arange(n, dtype=torch.float64).mul(-T / n).add(T).round() - 1
    elif spacing == "leading":
        steps = torch.arange(n - 1, -1, -1) * (T // n)
    elif spacing == "linspace":
        steps = torch.linspace(0, T - 1, n, dtype=torch.float64).round().flip(0) if n > 1 else torch.tensor([T - 1.0])
    elif spacing == "quad":
        steps = (torch.linspace(0, math.sqrt(0.8 * T), n, dtype=torch.float64) ** 2).floor().flip(0)
    else:
        raise ValueError(f"spacing: expected trailing, leading, linspace or quad, got {spacing!r}")
    steps = steps.long() + offset
    if not bool((steps.diff() < 0).all()) or steps[0] >= T or steps[-1] < 0:
        raise ValueError(
            f"steps: {spacing} with offset {offset} does not give {n} different steps in [0, {T}); take fewer or another spacing"
        )
    return steps


def ladder(alpha_bar: Tensor, steps: Tensor) -> Tensor:
    """sigmas (n + 1,) of these steps (n,), descending, and then 0: what samplers take."""
    return to_zero(sigma_of(alpha_bar.double().cpu()[steps]))


def to_zero(sigmas: Tensor) -> Tensor:
    """Levels (n,) and a last 0, (n + 1,) float64."""
    return torch.cat([sigmas.double(), sigmas.new_zeros(1).double()])


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """sigmas (n + 1,), even in sigma**(1 / rho), both ends exact, then 0. Karras et al. 2022 (arXiv:2206.00364), Eq. 5.

    raises  ValueError unless 0 < sigma_min < sigma_max and n >= 2
    """
    if n < 2 or not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"sigmas: expected 0 < sigma_min < sigma_max and n >= 2, got {sigma_min}, {sigma_max}, {n}")
    sigmas = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64) ** rho
    sigmas[0], sigmas[-1] = sigma_max, sigma_min
    return to_zero(sigmas)


def vp_sde_alpha_bar(t: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """exp(-B(t)), B the integral of beta_min + t (beta_max - beta_min); t (...) in [0, 1]. Song et al. 2021 (arXiv:2011.13456), Eq. 33.

    `sigma_of` it is the level; so a VP process is this scale, rescaled. Its sub-VP variant has the level (1 - alpha_bar) / sqrt(alpha_bar).
    """
    return torch.exp(-(t**2 * (beta_max - beta_min) / 2 + t * beta_min))


def ve_sde_sigma(t: Tensor, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Tensor:
    """sigma_min (sigma_max / sigma_min)**t, t (...) in [0, 1]; the SDE that starts at data has variance sigma**2 - sigma_min**2."""
    return sigma_min * (sigma_max / sigma_min) ** t


def _checked(betas: Tensor) -> Tensor:
    if betas.ndim != 1 or not len(betas) or not bool(((betas > 0) & (betas < 1)).all()):
        raise ValueError(
            f"betas: expected numbers in (0, 1), got {tuple(betas.shape)} from {float(betas.min()) if betas.numel() else math.nan:.3g} "
            f"to {float(betas.max()) if betas.numel() else math.nan:.3g}; scale both ends by 1000 / T for another T"
        )
    return betas
