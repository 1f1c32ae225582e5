# SPDX-License-Identifier: Apache-2.0
"""Pictures out of a prior: DDIM (arXiv:2010.02502) with classifier-free guidance (arXiv:2207.12598), from unit noise to x0.

Every prior says how it wants to be sampled (`Prior.sampler`); who knows better says so. A joint prior, whose x0 holds V views, is
sampled by the same loop: its views share each noise level.

Letters: B samples of one x0's shape `...`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, Generators, noise_like
from bozzetto.diffusion.guidance import classifier_free, progressive, thresholded
from bozzetto.diffusion.samplers import Watch, ddim
from bozzetto.diffusion.schedules import spaced, to_zero


class Sampler(NamedTuple):
    """How a prior is sampled: DDIM's steps, the scale of guidance (1 is none), eta, the share of noise drawn anew at each step,
    dynamic thresholding's share and bound (`guidance.thresholded`), where x0 is a picture in [-1, 1], how far guidance goes back to the
    standard deviation of eps that the condition alone has (`guidance.classifier_free`), of a joint prior over all views; and the scale
    and power to which guidance fades (`guidance.progressive`), None where it is the same at all levels."""

    steps: int
    guidance: float
    eta: float
    thresholding: tuple[float, float] | None = None
    rescale: float = 0.0
    fades: tuple[float, float] | None = None


PUBLISHED = Sampler(50, 3.0, 1.0)  # the released demo's of Zero-1-to-3
SMALL = Sampler(8, 1.0, 0.3)  # the embedded prior: measured in docs/benchmarks.md; stronger guidance burns its colours


class Samplable(Protocol):
    """What `sample` asks of a prior."""

    @property
    def denoiser(self) -> Denoiser: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def sampler(self) -> Sampler: ...
    def condition(self) -> Mapping[str, Tensor]:
        """The learnt null."""
        ...


def start(prior: Samplable, count: int, *, generator: Generators) -> Tensor:
    """Unit noise (count, ...) float32 for as many x0; one generator a sample makes each independent of its batch."""
    return noise_like(torch.zeros(count, *prior.shape), generator)


def sample(
    prior: Samplable,
    cond: Mapping[str, Tensor],
    *,
    count: int = 1,
    noise: Tensor | None = None,
    sampler: Sampler | None = None,
    generator: Generators,
    watch: Watch | None = None,
) -> Tensor:
    """x0 (B, ...) of the prior under a condition, shape, dtype and device of the noise.

    cond       of `Prior.condition`: rows for B samples, or one for all
    count      B, where no noise is given
    noise      (B, ...) of unit variance to begin from; by default drawn by the generator, float32
    sampler    by default the prior's own
    generator  one, or one a sample; it draws the noise and what eta asks for
    raises     ValueError for noise of another shape than the prior's x0, or more steps than it has levels
    """
    how = sampler or prior.sampler
    if noise is None:
        noise = start(prior, count, generator=generator)
    if noise.shape[1:] != prior.shape:
        raise ValueError(f"noise: expected (B, {', '.join(map(str, prior.shape))}), as x0 is, got {tuple(noise.shape)}")
    denoiser: Denoiser = prior.denoiser
    if how.fades is not None:
        denoiser = progressive(denoiser, null_of(prior, cond), how.guidance, *how.fades)
    elif how.guidance != 1:
        denoiser = classifier_free(denoiser, null_of(prior, cond), how.guidance, rescale=how.rescale)
    return descend(prior.denoiser.sigmas, denoiser, noise, cond, how, generator, watch)


def null_of(prior: Samplable, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What guidance leads away from: the learnt null, but for what it keeps by the prior's word (`JointPrior.null_keeps`), as cameras."""
    kept = getattr(prior, "null_keeps", ())
    return {**prior.condition(), **{name: value for name, value in cond.items() if name in kept}}


def descend(
    levels: Tensor,
    denoiser: Denoiser,
    noise: Tensor,
    cond: Mapping[str, Tensor],
    how: Sampler,
    generator: Generators,
    watch: Watch | None = None,
) -> Tensor:
    """x0 of unit noise (B, ...), from the highest of `levels` down; the denoiser is guided already."""
    if how.thresholding:
        denoiser = thresholded(denoiser, *how.thresholding)
    sigmas = to_zero(levels[spaced(len(levels), how.steps)])
    x = noise * float((1 + sigmas[0] ** 2).sqrt())  # unit noise on the variance-preserving scale: as if x0 had unit variance
    return ddim(denoiser, x, sigmas, cond, eta=how.eta, generator=generator, watch=watch)
