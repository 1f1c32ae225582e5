# SPDX-License-Identifier: Apache-2.0
"""Terms of the loss that learn while they pull: variational score distillation, and DreamCraft3D's bootstrapped one.

`Variational` is `terms.Pull` with a second denoiser, which it keeps at what the renderings look like; `Bootstrapped` moreover teaches
the first one, which begins as the prior, from renderings that the prior has improved. What they learn is part of a run's checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bozzetto.camera import Camera
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.bsd import Refresh, refreshed, taken
from bozzetto.distill.sds import Levels
from bozzetto.distill.vsd import Learner, vsd
from bozzetto.fit.loop import Loss
from bozzetto.fit.packing import Tensors, below
from bozzetto.fit.terms import Asked, Pull
from bozzetto.priors import plan
from bozzetto.priors.prior import Condition
from bozzetto.shapes.shape import Shape, Step


@dataclass
class Variational(Pull):
    """Variational score distillation (`distill.vsd`) by one prior: loss `name`, whose value does not measure progress.

    own        phi, the second denoiser, of the prior's x0, and its optimiser
    labelled   what phi is asked under: for cameras as those of `Asked`, and for None what it learns when they are dropped. By default
               the prior's own condition, without a hint
    """

    own: Learner = field(kw_only=True)
    labelled: Callable[[Camera | None], Condition] | None = field(kw_only=True, default=None)
    _last: Asked | None = field(init=False, repr=False, default=None)

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        asked = self._last = self.ask(shape, step)
        return {self.name: Loss(self._weight(step), self._pulled(asked, step))}

    def _pulled(self, asked: Asked, step: Step) -> Tensor:
        own, own_cond = self.own.denoiser, self._labelled(asked.cameras)
        prior, x0, generator = self._guided(asked), asked.x0, step.generator
        return vsd(prior, own, x0, asked.sigma, asked.cond, own_cond, generator=generator, weight=asked.weight)

    def _labelled(self, cameras: Camera | None) -> Condition:
        return self.labelled(cameras) if self.labelled is not None else self.prior.condition(self._seen, cameras, self.text)

    def update(self, shape: Shape, step: Step) -> None:
        """phi learns the renderings that have just moved the shape."""
        if self._last is not None:
            x0, cameras = self._last.x0.detach(), self._last.cameras
            self.own.learn(x0, self._labelled(cameras), self._labelled(None), generator=step.generator)
            self._last = None

    def state(self) -> Tensors:
        return self.own.state()

    def restore(self, state: Tensors) -> None:
        self.own.restore(state)


@dataclass
class Bootstrapped(Variational):
    """Bootstrapped score distillation (`distill.bsd`): `Variational` whose prior learns as well, from its own improvements of the views.

    booth    DreamBooth's model: it begins as the prior, and stands in its place
    unknown  what its dropped samples are asked under, by default the prior's null; the released code has zeros of `token` alone
    refresh  when it learns, and what from
    In a refresh the shape is not moved by this term, whose loss is 0 then.
    """

    booth: Learner = field(kw_only=True)
    unknown: Condition | None = field(kw_only=True, default=None)
    refresh: Refresh = field(kw_only=True, default=Refresh())
    _kept: list[tuple[Tensor, Condition]] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._base = self.booth.denoiser

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        asked = self.ask(shape, step)
        if self.refresh.is_learning(step.number):
            if self.refresh.is_due(step.number) or not self._kept:
                self._improve(asked, step)
            return {self.name: Loss(0.0, 0 * asked.x0.sum())}
        self._last = asked
        return {self.name: Loss(self._weight(step), self._pulled(asked, step))}

    def _improve(self, asked: Asked, step: Step) -> None:
        """Keeps the views as the teacher would have them, and forgets the oldest."""
        frozen = self.refresh.refresh_from == "frozen"
        teacher = classifier_free(self.prior.denoiser if frozen else self.booth.denoiser, self.prior.condition(), self.refresh.guidance)
        share = self.levels.highest(step.number) if self.refresh.share is None else self.refresh.share(step.number)
        made = refreshed(teacher, asked.x0.detach(), share, asked.cond, steps=self.refresh.steps, generator=step.generator)
        for i in range(len(made)):  # clones: what shares memory cannot be written to a checkpoint
            cond = {k: (v if len(v) == 1 else v[i : i + 1]).clone() for k, v in asked.cond.items()}
            self._kept.append((made[i : i + 1].clone(), cond))
        self._kept = self._kept[-self.refresh.keep :]

    def update(self, shape: Shape, step: Step) -> None:
        """In a refresh DreamBooth's model learns one of the kept pictures, else phi the renderings."""
        if not self.refresh.is_learning(step.number):
            return super().update(shape, step)
        pick = int(torch.randint(len(self._kept), (), generator=step.generator))
        x0, cond = self._kept[pick]
        unknown = self.prior.condition() if self.unknown is None else self.unknown
        self.booth.learn(x0, cond, unknown, generator=step.generator)

    def state(self) -> Tensors:
        kept = {f"kept.{i}.x0": x0 for i, (x0, _) in enumerate(self._kept)}
        kept |= {f"kept.{i}.cond.{k}": v for i, (_, cond) in enumerate(self._kept) for k, v in cond.items()}
        learners = {"own": self.own, "booth": self.booth}
        return kept | {f"{name}.{k}": v for name, learner in learners.items() for k, v in learner.state().items()}

    def restore(self, state: Tensors) -> None:
        self.own.restore(below("own", state))
        self.booth.restore(below("booth", state))
        rows = below("kept", state)
        count = 1 + max((int(k.split(".")[0]) for k in rows), default=-1)
        parts = [below(str(i), rows) for i in range(count)]
        self._kept = [(part["x0"], below("cond", part)) for part in parts]


def bootstrapped(refresh: Refresh, levels: Levels, steps: Sequence[int], views: int, guided: int) -> plan.Asked:
    """What `Bootstrapped` asks of its prior in its steps, of so many views; guided is 2 with guidance, 1 without."""
    learning = [n for n in steps if refresh.is_learning(n)]
    pulls = len(steps) - len(learning)
    shares = [levels.highest(n) if refresh.share is None else refresh.share(n) for n in learning if refresh.is_due(n)]
    drawn = sum(taken(refresh.steps, share) for share in shares) * (1 if refresh.guidance == 1 else 2)
    return plan.Asked(views * (pulls * (guided + 1) + drawn), views, pulled=views * len(steps), taught=views * pulls + len(learning))
