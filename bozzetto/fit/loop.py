# SPDX-License-Identifier: Apache-2.0
"""The one optimisation loop: a shape, the terms of its loss, and a run that keeps checkpoints.

A `Term` is any function of a shape and a step to named, weighted losses: the picture's own view compared with the picture, score
distillation in other views, the shape's regularisers. A term with parameters of its own is `Learning`: it is updated after each step of
the shape, and its state is part of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from bozzetto.fit.packing import Tensors, below
from bozzetto.fit.run import Run
from bozzetto.shapes.shape import Shape, Step


class Loss(NamedTuple):
    """A scalar and its weight in the sum."""

    weight: float
    value: Tensor


Term = Callable[[Shape, Step], Mapping[str, Loss]]
"""Named losses of a step. `step.generator` draws what is random."""


@runtime_checkable
class Learning(Protocol):
    """A term with parameters of its own: a LoRA trained on the renderings (VSD), a text embedding of the picture."""

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]: ...

    def update(self, shape: Shape, step: Step) -> None:
        """One step of its own optimiser, after the shape's."""
        ...

    def state(self) -> Tensors:
        """What a run needs to go on."""
        ...

    def restore(self, state: Tensors) -> None:
        """The inverse of `state`."""
        ...


def own(weights: Mapping[str, float]) -> Term:
    """The term of a shape's own regularisers (`Shape.losses`): those that `weights` names."""
    return lambda shape, step: {k: Loss(weights[k], v) for k, v in shape.losses(step).items() if k in weights}


@dataclass(frozen=True)
class When:
    """A term in some of the steps only: reference and guidance steps that alternate, a stage within a stage.

    is_on   of the steps in which it counts, and learns what it learns
    """

    term: Term
    is_on: Callable[[Step], bool]

    def __call__(self, shape: Shape, step: Step) -> Mapping[str, Loss]:
        return self.term(shape, step) if self.is_on(step) else {}

    def update(self, shape: Shape, step: Step) -> None:
        if isinstance(self.term, Learning) and self.is_on(step):
            self.term.update(shape, step)

    def state(self) -> Tensors:
        return self.term.state() if isinstance(self.term, Learning) else {}

    def restore(self, state: Tensors) -> None:
        if isinstance(self.term, Learning):
            self.term.restore(state)


def optimise(shape: Shape, terms: Sequence[Term], run: Run, stage: str, *, steps: int, seed: int = 0, every: int = 25) -> dict[str, float]:
    """Optimise a shape for `steps` steps, or until Ctrl-C; returns the last step's losses, unweighted, by name.

    A run that was killed goes on from its last checkpoint, and ends in the same numbers.

    terms   summed; two of them may not name a loss alike
    stage   name of the checkpoints, and of the progress that is reported
    seed    of the generator that shape and terms draw from
    every   steps between two checkpoints
    raises  FloatingPointError where the sum is not finite, with the stage and the step; ValueError for two losses of one name, or none
    """
    generator = torch.Generator().manual_seed(seed)
    learning = [(f"term{i}", term) for i, term in enumerate(terms) if isinstance(term, Learning)]
    number, parts = 0, dict[str, Loss]()
    if (kept := run.restore(stage)) is not None:
        number = int(kept["step"])
        generator.set_state(kept["generator"])
        shape.restore(below("shape", kept))
        for name, term in learning:
            term.restore(below(name, kept))
    saved = number

    def keep() -> None:
        now = {"shape": shape.state()} | {name: term.state() for name, term in learning}
        flat = {f"{part}.{k}": v for part, tensors in now.items() for k, v in tensors.items()}
        run.checkpoint(stage, {**flat, "generator": generator.get_state(), "step": torch.tensor(number)})

    while number < steps:
        if run.must_stop():
            keep()
            break
        if number % every == 0 and number > saved:
            keep()
        step = Step(number, steps, generator)
        shape.begin(step)
        parts = {}
        for term in terms:
            found = term(shape, step)
            if twice := parts.keys() & found.keys():
                raise ValueError(f"terms: two of them name a loss {', '.join(sorted(twice))}")
            parts |= found
        if not parts:
            raise ValueError(f"terms: none has a loss in step {number} of stage {stage}")
        total = torch.stack([x.weight * x.value.float() for x in parts.values()]).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"stage {stage}, step {number}: the loss is {float(total)}")
        total.backward()
        shape.move(step)
        for _, term in learning:
            term.update(shape, step)
        number += 1
        run.progress(stage, number / steps)
    return {name: float(x.value.detach()) for name, x in parts.items()}
