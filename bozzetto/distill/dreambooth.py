# SPDX-License-Identifier: Apache-2.0
"""DreamBooth (Ruiz et al. 2022, arXiv:2208.12242): a diffusion model learns what a few pictures show, under a text of their own.

    L = E |prediction - target|**2 over the pictures, under "a sks chair"
      + lambda times the same over pictures that the *frozen* model drew, under "a chair": prior preservation

so that the word sks becomes this chair, and chairs stay chairs. What learns is any `Trainable`: all weights (`tuned.unfrozen`), as in
the paper, or a low-rank update (`lora.adapted`). `verbs.learn` runs it over files; inside a fit the pictures are renderings, drawn anew
by the prior now and then, as DreamCraft3D has it (arXiv:2310.16818).

The levels are the model's own steps, each as likely as another. The rule for what is dropped is DreamCraft3D's released code: a tenth
of the rows learns under zeros in the place of the text's tokens, which is not the empty text. The paper drops nothing, the default here.
Its weight w_t is 1 in what Stable Diffusion predicts, as in diffusers' script.

Letters: N examples, B rows of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bozzetto.brief import brief
from bozzetto.denoiser import Denoiser, Trainable, noise_like
from bozzetto.diffusion.losses import draw_steps
from bozzetto.distill.vsd import Learner
from bozzetto.priors.prior import Condition


@brief
@dataclass(frozen=True)
class Examples:
    """x0 (N, ...) as the prior encodes it, and what each is asked under: N rows, or one for all."""

    x0: Tensor
    cond: Condition

    def some(self, count: int, generator: torch.Generator) -> Examples:
        """`count` of them, drawn with repetition."""
        i = torch.randint(len(self.x0), (count,), generator=generator, device=generator.device).cpu()
        return Examples(self.x0[i], {k: v if len(v) == 1 else v[i] for k, v in self.cond.items()})


def own_steps(model: Denoiser, count: int, *, generator: torch.Generator) -> Tensor:
    """sigma (count,) of the model's own steps, each as likely as another."""
    return model.sigmas[draw_steps(count, len(model.sigmas), generator=generator).cpu()]


def loss(model: Trainable, examples: Examples, *, generator: torch.Generator) -> Tensor:
    """A scalar: the mean training loss over examples, each at a step and under a noise of its own."""
    x0 = examples.x0
    sigma = own_steps(model, len(x0), generator=generator)
    return model.loss(x0, noise_like(x0, generator), sigma, examples.cond).mean()


@dataclass(frozen=True)
class Rule:
    """How a step is made.

    lr      of AdamW: 5e-6 for all weights of Stable Diffusion, 1e-4 for a low-rank update
    weight  lambda, of the pictures that the frozen model drew
    batch   B, pictures of each kind a step
    share   of the rows whose text is dropped, in [0, 1]; `DreamBooth` is then told the null
    eps     of AdamW; DreamCraft3D has 1e-4
    """

    lr: float = 1e-4
    weight: float = 1.0
    batch: int = 1
    share: float = 0.0
    eps: float = 1e-8


class DreamBooth(Learner):
    """A model that learns from batches of examples, and holds on to what the frozen one drew: what `verbs.learn` runs.

    null  what a row is asked under instead where its text is dropped: zeros of its `token`, or `prior.condition()`
    """

    def __init__(self, model: Trainable, rule: Rule = Rule(), null: Condition | None = None) -> None:
        if rule.share and null is None:
            raise ValueError("null: expected what stands for a text that is dropped, got None")
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rule.lr, eps=rule.eps)
        super().__init__(model, optimiser, dropped=rule.share, levels=own_steps)
        self.rule, self.null = rule, null or {}

    def step(self, own: Examples, kept: Examples | None = None, *, generator: torch.Generator) -> Mapping[str, float]:
        """One step of the optimiser on B of the pictures, and B of those that the frozen model drew; returns their mean losses.

        raises  FloatingPointError for a loss that is not finite, before any weight has moved
        """
        found = {}
        self.optimiser.zero_grad()
        for name, examples, weight in (("own", own, 1.0), ("kept", kept, self.rule.weight)):
            if examples is not None and weight:
                some = examples.some(self.rule.batch, generator)
                found[name] = self.add(some.x0, some.cond, self.null, weight, generator=generator)  # in turn: half their sum's memory
        self.move(found)
        return found
