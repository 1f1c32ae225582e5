# SPDX-License-Identifier: Apache-2.0
"""Variational score distillation (ProlificDreamer, arXiv:2305.16213): the renderings' own score takes the place of the drawn noise.

    grad_x = E over sigma, noise of  w(sigma) (eps_prior - eps_phi) = w(sigma) (D_phi - D_prior)(x0 + sigma noise; sigma) / sigma

D_phi is a second denoiser, of what the shapes look like at present, trained on their renderings while they move:

    min over phi of  E over sigma, noise of  |eps_phi - noise|**2,    sigma even over all of its levels, whichever are distilled

It is the gradient of a KL divergence between the particles' noised law and the prior's, so that particles end as draws of the prior,
where those of SDS end in one mode: a Gaussian prior's variance against none. A law that is one point makes D_phi = x0, and this SDS.
In code both alternate step by step, D_phi knows the camera (a label that is dropped from one in ten samples), and is not guided.

Letters: x0 (B, ...) the renderings, encoded; sigma (B,) float64; phi the second denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, Trainable, each, noise_like
from bozzetto.distill.sds import Levels, Ramp, Weight, answer, injected, noise_variance, scaled
from bozzetto.priors.tuned import dropped
from bozzetto.shapes.shape import Tensors, load_moments, moments

ALL = Levels(Ramp(0.0, 0.0), Ramp(1.0, 1.0))
"""what phi learns on"""


@torch.no_grad()
def vsd_gradient(
    denoiser: Denoiser,
    own: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    cond: Any = None,
    own_cond: Any = None,
    *,
    generator: torch.Generator,
    weight: Weight = noise_variance,
) -> Tensor:
    """One estimate of grad_x (B, ...), one noise a sample, which both denoisers see.

    own, own_cond  D_phi, and what it is asked under
    raises         FloatingPointError where an answer is not finite
    """
    x = x0 + each(sigma, x0) * noise_like(x0, generator)
    return scaled(answer(own, x, sigma, own_cond) - answer(denoiser, x, sigma, cond), sigma, weight)


def vsd(
    denoiser: Denoiser,
    own: Denoiser,
    x0: Tensor,
    sigma: Tensor,
    cond: Any = None,
    own_cond: Any = None,
    *,
    generator: torch.Generator,
    weight: Weight = noise_variance,
) -> Tensor:
    """A scalar whose gradient by x0 is `vsd_gradient` / B, and by anything else is nothing; its value measures no progress.

    denoiser, own  the prior, guided as wanted; D_phi. No gradient reaches either
    source         ProlificDreamer, Theorem 2, with D_phi for the score of the particles
    """
    return injected(x0, vsd_gradient(denoiser, own, x0.detach(), sigma, cond, own_cond, generator=generator, weight=weight))


def anywhere(denoiser: Denoiser, count: int, *, generator: torch.Generator) -> Tensor:
    """sigma (count,) float64, even over a denoiser's ladder, between its levels, too."""
    return ALL.draw(denoiser, count, 0, generator=generator)


class Learner:
    """A trainable denoiser with its optimiser: what VSD's phi, DreamBooth's model and a learnt word are in a loop.

    denoiser   its `loss` is that of its own prediction, as it was trained: of noise it is the paper's, of v as the released code's
    optimiser  of its parameters; AdamW with the paper's rate, 1e-4, by default
    dropped    share of samples that are learnt under `null` instead of their condition
    levels     of a denoiser and a count, the levels (count,) to learn at
    """

    def __init__(
        self,
        denoiser: Trainable,
        optimiser: torch.optim.Optimizer | None = None,
        *,
        dropped: float = 0.1,
        levels: Callable[..., Tensor] = anywhere,
    ) -> None:
        if not 0 <= dropped <= 1:
            raise ValueError(f"dropped: expected a share in [0, 1], got {dropped}")
        self.denoiser, self.dropped, self.levels = denoiser, dropped, levels
        self.parameters = [p for p in denoiser.parameters() if p.requires_grad]
        self.optimiser = optimiser or torch.optim.AdamW(self.parameters, lr=1e-4)

    def learn(self, x0: Tensor, cond: Any = None, null: Mapping[str, Tensor] | None = None, *, generator: torch.Generator) -> float:
        """One step on samples x0 (B, ...), which no gradient reaches; returns the loss before it.

        cond, null  as `tuned.dropped` takes them: of VSD null is the camera that is not said, the text stays; None drops nothing
        raises      FloatingPointError for a loss that is not finite, before any weight has moved
        """
        self.optimiser.zero_grad()
        found = self.add(x0, cond, null, generator=generator)
        self.move({"loss": found})
        return found

    def add(
        self, x0: Tensor, cond: Any = None, null: Mapping[str, Tensor] | None = None, weight: float = 1.0, *, generator: torch.Generator
    ) -> float:
        """Adds to the gradients those of the samples' mean loss, so many times; returns that loss. Arguments as of `learn`."""
        x0 = x0.detach()
        if null is not None:  # drawn for any share, so that what is drawn next does not depend on it
            cond = dropped(cond, null if self.dropped else {}, self.dropped, len(x0), generator=generator)
        sigma = self.levels(self.denoiser, len(x0), generator=generator)
        with torch.enable_grad():
            loss = self.denoiser.loss(x0, noise_like(x0, generator), sigma, cond).mean()
            (weight * loss).backward()
        return float(loss.detach())

    def move(self, found: Mapping[str, float]) -> None:
        """A step of the optimiser; raises FloatingPointError, before any weight has moved, where one of the losses is not finite."""
        if not all(map(math.isfinite, found.values())):
            raise FloatingPointError(f"learning: the loss is {dict(found)}; lower the learning rate, or use float32")
        self.optimiser.step()

    def state(self) -> Tensors:
        """Parameters and moments, for a run's checkpoint."""
        return {f"weight.{i}": p.detach().clone() for i, p in enumerate(self.parameters)} | moments(self.optimiser)

    def restore(self, state: Tensors) -> None:
        """The inverse of `state`."""
        for i, p in enumerate(self.parameters):
            p.data.copy_(state[f"weight.{i}"])
        load_moments(self.optimiser, state)
