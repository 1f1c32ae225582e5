# SPDX-License-Identifier: Apache-2.0
"""DreamCraft3D (Sun et al. 2023, arXiv:2310.16818) as a whole, in small: its stages left out one by one.

The head of `claims.head` is coloured from noise. The 3D prior is in the right place and blurred, as in `claims.hybrid`; the text prior is
sharp and knows pictures from all round, but no camera. Stage coarse is hybrid guidance by both, with the paper's mu, 2, and levels that
fall within the first steps; stage boost is bootstrapped distillation (`distill.bsd`) of what is there: DreamBooth's model and phi are what
their losses would end in, and know one picture each of twelve views (see `claims.bootstrapped`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.claims.head import all_round, apart, head, noise, off, pull, ring
from bozzetto.claims.hybrid import Mirrored
from bozzetto.denoiser import Adapted
from bozzetto.distill.bsd import Refresh, refreshed
from bozzetto.distill.sds import Levels, Ramp
from bozzetto.distill.vsd import vsd
from bozzetto.fit.loop import Loss, Term, optimise
from bozzetto.fit.run import Run
from bozzetto.priors.exact import Exact, Flaws
from bozzetto.scores import parzen
from bozzetto.shapes.shape import Shape, Step
from bozzetto.shapes.tets import Tets

COARSE, BOOST, VIEWS, MU = 80, 40, 12, 2.0
FINE = Levels(Ramp(0.05, 0.05), Ramp(0.5, 0.2, 0, BOOST))
"""the released code's, of its last stage"""


@dataclass
class Boost:
    """Bootstrapped distillation by a prior without a camera, in views of a ring; a refresh asks for all of them. Loss `bsd`."""

    prior: Exact
    refresh: Refresh = Refresh(every=BOOST // 2, learning=1, each=1, keep=VIEWS, share=Ramp(0.5, 0.1, 0, BOOST // 2))
    kept: Tensor = field(init=False, repr=False)

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        is_learning, share = self.refresh.is_learning(step.number), self.refresh.share
        picks = torch.arange(VIEWS) if is_learning else torch.randperm(VIEWS, generator=step.generator)[:2]
        x0 = self.prior.encode(shape.render(ring(all_round(VIEWS)[picks]), "colour"))
        if is_learning and share is not None:
            cond, steps = self.prior.condition(), self.refresh.steps
            self.kept = refreshed(self.prior.denoiser, x0.detach(), share(step.number), cond, steps=steps, generator=step.generator)
            return {"bsd": Loss(0.0, 0 * x0.sum())}
        told, own = self.kept[picks][:, None], x0.detach()[:, None]
        model = Adapted(self._denoised, self.prior.denoiser.sigmas)
        sigma = FINE.draw(model, len(x0), step.number, generator=step.generator)
        return {"bsd": Loss(0.1, vsd(model, model, x0, sigma, told, own, generator=step.generator))}

    def _denoised(self, x: Tensor, sigma: Tensor | float, cond: Tensor) -> Tensor:
        level = torch.as_tensor(sigma).to(x).view(-1, 1)
        return parzen.denoised(x.flatten(1), cond.flatten(2), level, self.prior.width).view_as(x)


@lru_cache(maxsize=8)
def shapes(seed: int, coarse: int = COARSE, boost: int = BOOST) -> dict[str, Tets]:
    """The head by the whole of it, and by what is left of it."""
    even, flaws = ring(all_round(1)), Flaws(blur=2.0)
    views, wrong = Exact([head()], even, flaws=flaws), Mirrored([head()], even, flaws=flaws)
    text, soon = Exact([head()], ring(all_round(24)), knows_cameras=False), max(coarse // 25, 1)
    down = Levels(Ramp(0.7, 0.2, 0, soon), Ramp(0.85, 0.5, 0, soon))

    def sculpted(three: Exact | None, levels: Levels) -> Tets:
        terms: list[Term] = [pull(text, 1 / MU, apart(2), levels, "two")]
        if three:
            terms.append(pull(three, 1.0, apart(2), levels, "three"))
        return optimised(noise(seed), terms, coarse)

    def optimised(shape: Tets, terms: list[Term], steps: int) -> Tets:
        optimise(shape, terms, Run(None, {}), "colours", steps=steps, seed=seed)
        return shape

    def boosted(shape: Tets) -> Tets:
        return optimised(shape, [Boost(text)], boost)

    return {
        "whole": boosted(sculpted(views, down)),
        "no 3D prior": boosted(sculpted(None, down)),
        "levels that do not fall": boosted(sculpted(views, Levels())),
        "no last stage": sculpted(views, down),
        "SDS in the last stage": optimised(sculpted(views, down), [pull(text, 1.0, apart(2), FINE, "two")], boost),
        "3D prior's azimuth flipped": boosted(sculpted(wrong, down)),
    }


def distance(seed: int) -> Scores:
    """How far each is from the head, over all sides."""
    return {name: off(shape) for name, shape in shapes(seed).items()}


CLAIMS = (
    Claim(
        "dreamcraft3d-stages",
        method="DreamCraft3D",
        source="arXiv:2310.16818, Secs. 4.2 and 4.3",
        says="The 3D prior in the first stage, and bootstrapping in a last one, each bring the object nearer.",
        metric="rms difference of colours over all sides",
        better="lower",
        run=distance,
        must=(Beats("whole", "no 3D prior"), Beats("whole", "no last stage")),
        control=Beats("whole", "3D prior's azimuth flipped"),
        seconds=60,
        remark="Stages have as many steps in each variant. Of colours alone: the sphere is given. Where the first stage has left the face "
        "faint, as with seed 1, the last stage's prior, which knows no camera, takes it for a side without one, and the face is lost.",
    ),
    Claim(
        "dreamcraft3d-bootstrapping",
        method="DreamCraft3D",
        source="arXiv:2310.16818, Sec. 4.3",
        says="Bootstrapping does so by more than score distillation from the frozen prior.",
        metric="rms difference of colours over all sides",
        better="lower",
        run=distance,
        must=(Beats("whole", "SDS in the last stage"),),
        control=Beats("whole", "3D prior's azimuth flipped"),
        seconds=1,
        remark="The prior's bank is this head alone. At levels of half and below it finds the one picture that a rendering is nearest "
        "to, and its mode is sharp: what bootstrapping is against, a mode that is a blur, is not in this world. It is in `bsd-detail`'s.",
    ),
    Claim(
        "dreamcraft3d-annealing",
        method="DreamCraft3D",
        source="arXiv:2310.16818, Sec. 4.2",
        says="So do levels that begin large and fall.",
        metric="rms difference of colours over all sides",
        better="lower",
        run=distance,
        must=(Beats("whole", "levels that do not fall"),),
        control=Beats("whole", "3D prior's azimuth flipped"),
        seconds=1,
        remark="The paper has annealing for the geometry, which is given here.",
    ),
)
