# SPDX-License-Identifier: Apache-2.0
"""Sampling down a noise ladder: annealed Langevin dynamics (NCSN, NCSNv2) and predictor-corrector (score SDE).

Any `Denoiser` does; NCSN's own networks enter by `ScoreDenoiser`. The ladder sigmas (L,) descends and does not hold 0.
Step sizes are convention A's, x + eps / 2 score + sqrt(eps) z with eps = eps_L (sigma / sigma_L)**2: the formula of the NCSN paper.
Its released code, and NCSNv2 throughout, take the same numbers as B's alpha, which is twice the step: pass `from_b(alpha)`.

Sources: Song & Ermon 2019 (arXiv:1907.05600), Alg. 1; 2020 (arXiv:2006.09011), Alg. 1; Song et al. 2021 (arXiv:2011.13456), Alg. 2.
Differs from the released code: the state after the *last* update is returned, which their recorded frames leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, Generators, ask, descending, noise_like
from bozzetto.scores.langevin import langevin_step

Overlay = Callable[[Tensor, float, bool], Tensor]
"""(x, sigma, is_new_level) to x with what is known about it put in; `diffusion/inpainting.py` makes them"""

NCSN_EPS = 2e-5
"""the paper's eps_L for sigma_L = .01, T = 100"""


@torch.no_grad()
def annealed_langevin(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    eps_L: float,
    T: int,
    cond: Any = None,
    *,
    generator: Generators,
    overlay: Overlay | None = None,
    is_overlaid_first: bool = False,
    final_denoise: bool = False,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """T steps on each level, from x (B, ...): even on [0, 1) in the papers, or N(0, sigma_1**2). Shape and dtype of x.

    eps_L              step size (A) on the last level, in (0, 4 sigma_L**2), where point data stay stable
    overlay            applied after each step, or before it
    final_denoise      ends with E[x0 | x] on the last level, which takes its noise away: NCSNv2
    watch              called as (level, x, denoised) after each level
    raises             ValueError for a ladder that does not fall or holds 0, and for non-finite scores: step and level are named
    """
    levels = descending(sigmas)
    if levels[-1] == 0 or not 0 < eps_L < 4 * levels[-1] ** 2:
        raise ValueError(f"eps_L: expected sigma_L > 0 and eps_L in (0, 4 sigma_L**2 = {4 * levels[-1] ** 2:.3g}), got {eps_L}")
    dtype, x = x.dtype, x.double()
    for i, s in enumerate(levels):
        eps = eps_L * (s / levels[-1]) ** 2
        for t in range(T):
            if overlay and is_overlaid_first:
                x = overlay(x, s, t == 0)
            denoised = ask(denoiser, x, s, cond, i * T + t)
            x = langevin_step(x, (denoised - x) / s**2, eps, noise_like(x, generator))
            if overlay and not is_overlaid_first:
                x = overlay(x, s, t == 0)
        if watch:
            watch(i, x, denoised)
    if final_denoise:
        x = ask(denoiser, x, levels[-1], cond, len(levels) * T)
    return x.to(dtype)


def corrector_eps(z: Tensor, score: Tensor, snr: float) -> Tensor:
    """Step size (A) at which a Langevin step has this signal-to-noise ratio: 2 * 2 (snr |z| / |s|)**2, one for the batch.

    source  Song et al. 2021, Alg. 4, whose eps is B's alpha; norms are means over the batch, as in the released code
    """
    return 4 * (snr * z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()) ** 2


@torch.no_grad()
def predictor_corrector(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    cond: Any = None,
    *,
    snr: float = 0.16,
    corrections: int = 1,
    generator: Generators,
    overlay: Overlay | None = None,
    final_denoise: bool = True,
) -> Tensor:
    """On each level `corrections` Langevin steps, then the reverse diffusion's step to the next; from N(0, sigma_1**2). Shape of x.

    The step is x + (sigma**2 - sigma_next**2) s + sqrt(sigma**2 - sigma_next**2) z. snr .16 is the paper's for CIFAR-10 (VE).
    """
    levels = descending(sigmas)
    if levels[-1] == 0:
        raise ValueError("sigmas: expected a ladder of levels above 0; final_denoise goes from the last to 0")
    dtype, x = x.dtype, x.double()
    for i, (s, s_next) in enumerate(pairwise([*levels, 0.0])):
        for _ in range(corrections):
            score = (ask(denoiser, x, s, cond, i) - x) / s**2
            z = noise_like(x, generator)
            x = langevin_step(x, score, corrector_eps(z, score, snr), z)
            x = overlay(x, s, True) if overlay else x
        if s_next == 0:
            break
        # twice the drift of `langevin_step` with eps = the variance lost, as the reverse SDE has it
        score = (ask(denoiser, x, s, cond, i) - x) / s**2
        x = langevin_step(x, 2 * score, s**2 - s_next**2, noise_like(x, generator))
        x = overlay(x, s_next, True) if overlay else x
    if final_denoise:
        x = ask(denoiser, x, levels[-1], cond, len(levels))
    return x.to(dtype)
