# SPDX-License-Identifier: Apache-2.0
"""Samplers on a `Denoiser`: ancestral, DDIM and its inversion, Euler, Heun with churn, DPM-Solver++ 2M.

Each is a loop over `sigmas` (n + 1,), descending (`schedules.py`), from x (B, ...) on the level sigmas[0], x0 + sigmas[0] * noise.
All follow, some with fresh noise, the probability-flow ODE dx / dsigma = (x - denoised) / sigma. The state is float64; what is
returned has x's dtype. A schedule that ends above 0 leaves that much noise in x. Nothing here is differentiated.

On this scale three names are one step: with eta = 0 DDIM is Euler, with eta = 1 it is DDPM's ancestral step with the posterior's
variance, which k-diffusion calls "Euler ancestral". Clipping and other variances are DDPM's own, see `ddpm.py`.

What all of them take:
  cond       what the denoiser is asked under
  generator  one, or one a sample; only where noise is drawn
  watch      called as (step, x, denoised) after each step, for progress and pictures
  raise      ValueError for a schedule that does not fall, and for non-finite numbers, with the step and the level
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, Generators, ask, descending, noise_like

Watch = Callable[[int, Tensor, Tensor], None]


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    cond: Any = None,
    *,
    eta: float = 0.0,
    generator: Generators | None = None,
    watch: Watch | None = None,
    change: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Shape of x. eta in [0, 1]: the share of the posterior's noise that is drawn anew.

    change  what x is to be after a step, in its place
    source  Song et al. 2020 (arXiv:2010.02502), Eq. 12 and 16, divided by sqrt(alpha_bar of the next step)
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number in [0, 1], got {eta}")
    dtype, x = x.dtype, x.double()
    for i, (s, s_next) in enumerate(pairwise(descending(sigmas))):
        denoised = ask(denoiser, x, s, cond, i)
        up = eta * s_next * math.sqrt(1 - (s_next / s) ** 2)
        x = denoised + math.sqrt(s_next**2 - up**2) / s * (x - denoised)
        if up > 0:
            x = x + up * noise_like(x, generator)
        if change:
            x = change(i, x)
        if watch:
            watch(i, x, denoised)
    return x.to(dtype)


def ancestral(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, cond: Any = None, *, generator: Generators, watch: Watch | None = None
) -> Tensor:
    """DDPM's chain with the posterior's variance on any schedule, shape of x. Ho et al. 2020 (arXiv:2006.11239), Alg. 2."""
    return ddim(denoiser, x, sigmas, cond, eta=1.0, generator=generator, watch=watch)


@torch.no_grad()
def ddim_inversion(
    denoiser: Denoiser,
    x0: Tensor,
    sigmas: Tensor,
    cond: Any = None,
    *,
    at: Literal["end", "start"] = "end",
    watch: Watch | None = None,
) -> Tensor:
    """The x on level sigmas[0] from which DDIM (eta = 0) comes back to x0, to O(1 / n); shape of x0. The same steps, upwards.

    at  the level of each step at which the denoiser is asked. end: the one it goes to, where DDIM will ask on the way back; x is
        shown there as it is on the variance-preserving scale. So diffusers and Prompt-to-Prompt have it, and data of about unit
        variance come back nearer, by half and more. start: the one it comes from, Euler's step; the first step, from 0, of which a
        denoiser says nothing, asks at its end. Better for data of another scale
    """
    if at not in ("end", "start"):
        raise ValueError(f"at: expected 'end' or 'start', got {at!r}")
    dtype, x = x0.dtype, x0.double()
    for i, (s, s_next) in enumerate(pairwise(reversed(descending(sigmas)))):
        level = s_next if at == "end" or s == 0 else s
        shown = x * math.sqrt((1 + s_next**2) / (1 + s**2)) if at == "end" else x
        denoised = ask(denoiser, shown, level, cond, i)
        x = x + (s_next - s) / level * (shown - denoised)
        if watch:
            watch(i, x, denoised)
    return x.to(dtype)


@dataclass(frozen=True)
class Churn:
    """Noise that EDM's stochastic sampler puts back before each step (arXiv:2206.00364, Alg. 2)."""

    amount: float = 0.0
    """S_churn, over the whole run"""
    low: float = 0.0
    """S_min, levels below are left alone"""
    high: float = math.inf
    """S_max, levels above are left alone"""
    noise: float = 1.0
    """S_noise, the drawn noise's standard deviation; 1 keeps the marginals, a little more makes up for a blurry denoiser"""

    def raised(self, sigma: float, n: int) -> float:
        """The level after churning, for n steps in all."""
        gamma = min(self.amount / n, math.sqrt(2) - 1) if self.low <= sigma <= self.high else 0.0
        return sigma * (1 + gamma)


def euler(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    cond: Any = None,
    *,
    churn: Churn = Churn(),
    generator: Generators | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """First order, one call a step; shape of x."""
    return _edm(denoiser, x, sigmas, cond, churn, generator, watch, is_heun=False)


def heun(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    cond: Any = None,
    *,
    churn: Churn = Churn(),
    generator: Generators | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Second order, two calls a step but one in the last, which ends at 0; shape of x. Karras et al. 2022, Alg. 1 and 2."""
    return _edm(denoiser, x, sigmas, cond, churn, generator, watch, is_heun=True)


@torch.no_grad()
def _edm(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    cond: Any,
    churn: Churn,
    generator: Generators | None,
    watch: Watch | None,
    *,
    is_heun: bool,
) -> Tensor:
    dtype, x, levels = x.dtype, x.double(), descending(sigmas)
    for i, (s, s_next) in enumerate(pairwise(levels)):
        s_hat = churn.raised(s, len(levels) - 1)
        if s_hat > s:
            x = x + math.sqrt(s_hat**2 - s**2) * churn.noise * noise_like(x, generator)
        denoised = ask(denoiser, x, s_hat, cond, i)
        slope = (x - denoised) / s_hat
        end = x + (s_next - s_hat) * slope
        if is_heun and s_next > 0:
            there = ask(denoiser, end, s_next, cond, i)
            end = x + (s_next - s_hat) * (slope + (end - there) / s_next) / 2
        x = end
        if watch:
            watch(i, x, denoised)
    return x.to(dtype)


@torch.no_grad()
def dpm_solver_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, cond: Any = None, *, watch: Watch | None = None) -> Tensor:
    """DPM-Solver++ (2M): second order with one call a step, by the denoised of the step before; shape of x.

    With lambda = -log sigma the linear part is solved exactly and `denoised` extrapolated linearly in lambda to the middle of the
    step. The first step is DDIM's; so is a last step to 0, where lambda has no end.
    source  Lu et al. 2022 (arXiv:2211.01095), Alg. 2
    """
    dtype, x = x.dtype, x.double()
    before: tuple[float, Tensor] | None = None  # the last step's width in lambda, and its denoised
    for i, (s, s_next) in enumerate(pairwise(descending(sigmas))):
        denoised = ask(denoiser, x, s, cond, i)
        middle, width = denoised, math.inf if s_next == 0 else math.log(s / s_next)
        if before is not None and s_next > 0:
            middle = denoised + width / (2 * before[0]) * (denoised - before[1])
        x = middle + s_next / s * (x - middle)
        before = width, denoised
        if watch:
            watch(i, x, denoised)
    return x.to(dtype)
