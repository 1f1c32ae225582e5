# SPDX-License-Identifier: Apache-2.0
"""Score distillation sampling (DreamFusion, arXiv:2209.14988): a prior's score as the gradient of a rendering.

    grad_x = E over sigma, noise of  w(sigma) (eps_hat - noise) = w(sigma) (x0 - D(x0 + sigma noise; sigma)) / sigma

with D a denoiser, guided or not, and its network's Jacobian left out. It is the gradient of a KL divergence between the noised
rendering and the prior's noised data, weighted over levels; its minimum is a mode, so particles collapse to one, and with
guidance g a Gaussian's mode is extrapolated to m_u + g (m_c - m_u): the closed form of over-saturated colours.

Levels are shares of the denoiser's own, as papers write t / T: 0 its smallest, 1 its largest. On the variance-preserving scale
of the papers sigma_t**2 = 1 - alpha_bar_t is sigma**2 / (1 + sigma**2) here.

Letters: x0 (B, ...) the rendering, as the prior's codec encodes it; sigma (B,) float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, each, interpolated, noise_like


@dataclass(frozen=True)
class Ramp:
    """A number over the steps of a run: `before` until `start`, then linear to `after` at `stop`, constant from there."""

    before: float
    """until `start`"""
    after: float
    """from `stop` on"""
    start: int = 0
    """step at which it begins to move"""
    stop: int = 0
    """step at which it has moved"""

    def __post_init__(self) -> None:
        if 0 < self.stop < self.start:
            raise ValueError(f"ramp: expected start <= stop, got {self.start} and {self.stop}")

    def __call__(self, step: int) -> float:
        if step >= self.stop:
            return self.after
        if step <= self.start:
            return self.before
        return self.before + (self.after - self.before) * (step - self.start) / (self.stop - self.start)


@dataclass(frozen=True)
class Levels:
    """Which noise levels a run draws from: uniform between two shares of the prior's, which may move.

    The defaults are DreamFusion's, .02 to .98; threestudio's Zero-1-to-3 takes Ramp(.4, .2, 0, 200) and
    Ramp(.85, .5, 0, 200): large levels lay out the shape, small ones add detail.
    raises  ValueError unless 0 <= lowest <= highest <= 1 at every step
    """

    lowest: Ramp = Ramp(0.02, 0.02)
    highest: Ramp = Ramp(0.98, 0.98)

    def __post_init__(self) -> None:
        ends = {s for x in (self.lowest, self.highest) for s in (x.start, x.stop) if s >= 0}
        for step in sorted({0, *ends, *(s - 1 for s in ends if s)}):  # straight in between, but for jumps
            low, high = self.lowest(step), self.highest(step)
            if not 0 <= low <= high <= 1:
                raise ValueError(f"levels: expected 0 <= lowest <= highest <= 1 at step {step}, got {low:g} and {high:g}")

    def draw(self, denoiser: Denoiser, count: int, step: int, *, generator: torch.Generator) -> Tensor:
        """sigma (count,) float64, each drawn by itself."""
        low, high = self.lowest(step), self.highest(step)
        u = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        return level(denoiser, low + (high - low) * u)


def level(denoiser: Denoiser, share: Tensor) -> Tensor:
    """sigma at shares (...) in [0, 1] of a denoiser's levels: between two, linear in log sigma; shape of share, float64."""
    ladder = denoiser.sigmas.double().cpu().log()
    place = share.double() * (len(ladder) - 1)
    return interpolated(place, torch.arange(len(ladder), dtype=torch.float64), ladder).exp()


Weight = Callable[[Tensor], Tensor]
"""w(sigma), of the shape of sigma"""


def noise_variance(sigma: Tensor) -> Tensor:
    """1 - alpha_bar: DreamFusion's weight, and nearly all code's."""
    return sigma**2 / (1 + sigma**2)


def uniform(sigma: Tensor) -> Tensor:
    """1: ProlificDreamer's and DreamFusion's alternative."""
    return torch.ones_like(sigma)


def fantasia(sigma: Tensor) -> Tensor:
    """sqrt(alpha_bar) (1 - alpha_bar): Fantasia3D's, light on the largest levels, which say nothing but the mean."""
    return noise_variance(sigma) / (1 + sigma**2).sqrt()


def residual(sigma: Tensor) -> Tensor:
    """sigma on this scale: the gradient is x0 - D itself, that of half the squared distance to what the prior sees."""
    return sigma


@torch.no_grad()
def sds_gradient(
    denoiser: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    cond: Any = None,
    *,
    generator: torch.Generator,
    weight: Weight = noise_variance,
    clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One estimate of grad_x (B, ...) with one noise a sample, and what the denoiser saw, D (B, ...).

    clip    largest norm of a sample's gradient, or None; it moves the minimum, and is for the first steps only
    raises  FloatingPointError where the denoiser is not finite, with its levels
    """
    x = x0 + each(sigma, x0) * noise_like(x0, generator)
    denoised = answer(denoiser, x, sigma, cond)
    return scaled(x0 - denoised, sigma, weight, clip), denoised


def sds(
    denoiser: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    cond: Any = None,
    *,
    generator: torch.Generator,
    weight: Weight = noise_variance,
    clip: float | None = None,
) -> Tensor:
    """A scalar whose gradient by x0 is `sds_gradient` / B, and by anything else is nothing; its value measures no progress.

    denoiser   guided as wanted (`diffusion.guidance`); no gradient reaches it
    x0         (B, ...), differentiable by the shape's parameters
    sigma      (B,), from `Levels.draw`
    cond       what the denoiser is asked under, one view a sample
    source     DreamFusion, Eq. 3; several priors are a weighted sum of this, each with its own codec, noise and levels
    """
    gradient, _ = sds_gradient(denoiser, x0.detach(), sigma, cond, generator=generator, weight=weight, clip=clip)
    return injected(x0, gradient)


def answer(denoiser: Denoiser, x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
    """`denoiser.denoise`; raises FloatingPointError where it is not finite, with its levels."""
    denoised = denoiser.denoise(x, sigma, cond)
    if not bool(torch.isfinite(denoised).all()):
        raise FloatingPointError(f"the prior's answer is not finite at noise levels {sigma.tolist()}; ask it in float32 or guide less")
    return denoised


def scaled(apart: Tensor, sigma: Tensor, weight: Weight, clip: float | None = None) -> Tensor:
    """w(sigma) / sigma times a difference of clean samples (B, ...), which is w(sigma) times one of noises; clipped as `sds_gradient`."""
    gradient = (weight(sigma) / sigma).to(apart).view(-1, *[1] * (apart.ndim - 1)) * apart
    if clip is not None:
        norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        gradient = gradient * (clip / norm).clamp(max=1).view(-1, *[1] * (apart.ndim - 1))
    return gradient


def injected(x0: Tensor, gradient: Tensor) -> Tensor:
    """The scalar whose gradient by x0 (B, ...) is gradient / B."""
    return 0.5 * (x0 - (x0.detach() - gradient)).square().sum() / len(x0)
