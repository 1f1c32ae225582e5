# SPDX-License-Identifier: Apache-2.0
"""`Denoiser`: every score or diffusion model, seen one way, so that each sampler and each loss works for all of them.

A denoiser answers with the posterior mean of the clean sample, E[x0 | x], where x = x0 + sigma * noise. By Tweedie's formula
that is the score: grad log q_sigma(x) = (E[x0 | x] - x) / sigma**2. Networks that were trained on another scale or to predict
something else are adapted here, once: `VPDenoiser` for DDPM and Stable Diffusion, `ScoreDenoiser` for NCSN.

Letters: B samples of any shape `...`; sigma and sigmas in the unit of x0; alpha_bar is diffusers' `alphas_cumprod`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Denoiser(Protocol):
    """`denoise(x, sigma, cond)` and the levels it was trained for. All that samplers and distillation losses know.

    sigmas  (L,) float64, ascending, L >= 1: a ladder, or the ends of a range
    """

    sigmas: Tensor

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """E[x0 | x], shape and dtype of x.

        x      (B, ...), x0 + sigma * noise
        sigma  one number or (B,), > 0, float64 where it matters
        cond   what the model is conditioned on; None is nothing at all
        """
        ...


def score(denoiser: Denoiser, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
    """grad log q_sigma(x | cond), shape of x. Tweedie; Miyasawa 1961, Vincent 2011."""
    s = each(sigma, x)
    return (denoiser.denoise(x, sigma, cond) - x) / s**2


def noise(denoiser: Denoiser, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
    """E[noise | x, cond], shape of x: what an epsilon-network predicts."""
    return (x - denoiser.denoise(x, sigma, cond)) / each(sigma, x)


def each(sigma: Tensor | float, x: Tensor) -> Tensor:
    """sigma, one number or (B,), in x's dtype and shaped to multiply x, (B, ...).

    raises  ValueError for another number of levels, or a level that is not finite and positive
    """
    s = torch.as_tensor(sigma, dtype=torch.float64)
    if s.ndim > 1 or (s.ndim == 1 and len(s) not in (1, len(x))):
        raise ValueError(f"sigma: expected one number or {len(x)}, one a sample, got shape {tuple(s.shape)}")
    if not bool((torch.isfinite(s) & (s > 0)).all()):
        raise ValueError(f"sigma: expected finite positive levels, got {s.tolist()}; a schedule's 0 is where its last step ends")
    return s.to(x).view(-1, *[1] * (x.ndim - 1))


class Adapted(nn.Module):
    """A function as a denoiser: `Adapted(lambda x, sigma, cond: ..., sigmas)`; for closed forms, guidance and inpainting."""

    def __init__(self, function: Callable[[Tensor, Tensor | float, Any], Tensor], sigmas: Tensor) -> None:
        super().__init__()
        self.function, self.sigmas = function, sigmas

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        return self.function(x, sigma, cond)


Predicted = Callable[..., Any]
"""A network: (x_t (B, ...), step (B,), **cond) to its prediction, or to something with `.sample` (diffusers)"""


class VPDenoiser(nn.Module):
    """A network trained on the variance-preserving scale, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, as a `Denoiser`.

    network     (x_t, step, **cond) to eps, v or x0; diffusers' U-Nets are such
    alpha_bar   (T,), descending, in (0, 1): signal left after k + 1 noising steps
    prediction  "eps", "v" or "x0"

    Between the T levels the step is a fraction, linear in log sigma (as k-diffusion does; diffusers' Euler too); beyond the
    ends it stays there. A zero-terminal-SNR schedule enters with its last alpha_bar at 2**-24, as design and diffusers have it.
    source  Ho et al. 2020 (arXiv:2006.11239); v: Salimans & Ho 2022 (arXiv:2202.00512), Sec. 4; EDM's table 1 (arXiv:2206.00364)
    """

    def __init__(self, network: Predicted, alpha_bar: Tensor, prediction: str = "eps") -> None:
        super().__init__()
        if prediction not in ("eps", "v", "x0"):
            raise ValueError(f"prediction: expected eps, v or x0, got {prediction!r}")
        a = alpha_bar.double()
        if a.ndim != 1 or not bool(((a > 0) & (a < 1)).all()) or not bool((a.diff() < 0).all()):
            raise ValueError(
                f"alpha_bar: expected numbers in (0, 1) that fall, got {tuple(alpha_bar.shape)} from {alpha_bar.flatten()[0]:.3g} "
                f"to {alpha_bar.flatten()[-1]:.3g}; a last value of 0 enters as 2**-24"
            )
        self.network, self.prediction = network, prediction
        self.sigmas = ((1 - a) / a).sqrt().cpu()

    def step(self, sigma: Tensor | float) -> Tensor:
        """The network's time for noise levels (...): 0 to T - 1, a fraction between two, float64."""
        wanted = torch.as_tensor(sigma, dtype=torch.float64).cpu().log()
        ladder = self.sigmas.log()
        low = (torch.searchsorted(ladder, wanted, right=True) - 1).clamp(0, max(len(ladder) - 2, 0))
        high = (low + 1).clamp(max=len(ladder) - 1)
        width = (ladder[high] - ladder[low]).clamp(min=1e-300)
        return low + ((wanted - ladder[low]) / width).clamp(0, 1)

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = each(sigma, x)
        scale = (1 + s.double() ** 2).sqrt()  # 1 / sqrt(alpha_bar)
        step = self.step(sigma).to(x.device).float().expand(len(x))
        made = self.network((x / scale).to(x), step, **(cond or {}))
        made = getattr(made, "sample", made)
        if self.prediction == "eps":
            return x - s * made.to(x)
        if self.prediction == "v":
            return (x / scale**2 - s / scale * made).to(x)
        return made.to(x)


class ScoreDenoiser(nn.Module):
    """A noise-conditional score network on the variance-exploding scale as a `Denoiser`.

    network  (x, level (B,) int64, **cond) to the score; level 0 is the *largest* sigma, as NCSN's code has it
    sigmas   (L,), descending or ascending; a sigma between two takes the nearest in log
    source   Song & Ermon 2019 (arXiv:1907.05600)
    """

    def __init__(self, network: Predicted, sigmas: Tensor) -> None:
        super().__init__()
        self.network, self.sigmas = network, sigmas.double().cpu().sort().values

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = each(sigma, x)
        wanted = torch.as_tensor(sigma, dtype=torch.float64).cpu().reshape(-1)
        nearest = (wanted.log()[:, None] - self.sigmas.log()).abs().argmin(1)
        level = (len(self.sigmas) - 1 - nearest).to(x.device).expand(len(x))
        return x + s**2 * self.network(x, level, **(cond or {})).to(x)
