# SPDX-License-Identifier: Apache-2.0
"""Bootstrapped score distillation (DreamCraft3D, arXiv:2310.16818): the prior learns this object from its own improvements of it.

    grad_x = E of  w(sigma) (eps_booth - eps_phi)

phi is VSD's (`distill.vsd`), the denoiser of the renderings. eps_booth is DreamBooth's (arXiv:2208.12242): the prior, fine-tuned on
r_t'(x), renderings x that were noised to a level t' and denoised again by the prior (SDEdit). So the two alternate: the shape follows
the model, the model follows what the prior makes of the shape. Of a Gaussian prior N(m, S) each round of it keeps

    E r_t'(x) = m + sqrt(S / (S + sigma**2)) (x - m)

of a rendering's distance from m: small t' stays with the shape, large t' draws afresh.

The released code, which the defaults of `Refresh` follow: in each 1000 steps the first 200 teach, a picture is improved every 25 steps,
and ten are kept. There the model under training takes the frozen one's place after the first picture of a run: `refresh_from="current"`.
Differs: a kept picture keeps the condition of its view, and each model has an optimiser of its own, so that weights of their losses say
nothing. The paper's second loss on latents (its appendix; not in the code) is `norms_apart`.

Letters: x0 (B, ...) the renderings, encoded; sigma on the scale x0 + sigma noise; T levels of the denoiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from bozzetto.denoiser import Denoiser, Generators, noise_like
from bozzetto.diffusion.samplers import dpm_solver_2m
from bozzetto.diffusion.schedules import spaced, to_zero
from bozzetto.distill.sds import Ramp


@dataclass(frozen=True)
class Refresh:
    """When DreamBooth's model learns, and from what."""

    every: int = 1000
    """steps from the beginning of one refresh to the next"""
    learning: int = 200
    """steps of a refresh, in which the shape rests"""
    each: int = 25
    """steps of a refresh from one improved picture to the next"""
    keep: int = 10
    """improved pictures, the latest"""
    steps: int = 25
    """of the sampler, over all levels"""
    guidance: float = 7.5
    """of the sampler"""
    share: Ramp | None = None
    """t' as a share of the levels; by default the largest that is distilled at the time. The paper: .5, then .1"""
    refresh_from: Literal["frozen", "current"] = "frozen"
    """who improves: the prior as it was, or the model under training"""

    def __post_init__(self) -> None:
        if not 0 <= self.learning < self.every or min(self.each, self.keep, self.steps) < 1:
            raise ValueError(f"refresh: expected 0 <= learning < every, and each, keep, steps of 1 or more, got {self}")
        if self.refresh_from not in ("frozen", "current"):
            raise ValueError(f"refresh_from: expected 'frozen' or 'current', got {self.refresh_from!r}")

    def is_learning(self, step: int) -> bool:
        """Whether a step teaches the model and leaves the shape."""
        return step % self.every < self.learning

    def is_due(self, step: int) -> bool:
        """Whether such a step improves a picture first."""
        return step % self.every % self.each == 0


def taken(steps: int, share: float) -> int:
    """How many of a sampler's steps over all levels begin at a share of these: one at least."""
    return min(max(int(steps * share), 1), steps)


def refreshed(denoiser: Denoiser, x0: Tensor, share: float, cond: Any = None, *, steps: int = 25, generator: Generators) -> Tensor:
    """r_t'(x0), (B, ...): noised to a level and denoised by DPM-Solver++, an `img2img`.

    denoiser  guided as wanted
    share     t' / T in [0, 1]: so many of the sampler's steps over all levels are taken, one at least
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number in [0, 1], got {share}")
    ladder = denoiser.sigmas
    sigmas = to_zero(ladder[spaced(len(ladder), steps)])[steps - taken(steps, share) :]
    return dpm_solver_2m(denoiser, x0 + float(sigmas[0]) * noise_like(x0, generator), sigmas, cond)


def norms_apart(x0: Tensor, regular: Tensor) -> Tensor:
    """sum over B of (|x0| - |regular|)**2, a scalar: the structure loss of the paper's appendix, which sees lengths alone.

    regular  (B, ...): the latents of pictures redrawn under the shape's normals
    """
    return (x0.flatten(1).norm(dim=1) - regular.flatten(1).norm(dim=1)).square().sum()
