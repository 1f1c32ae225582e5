# SPDX-License-Identifier: Apache-2.0
"""Adam with one step size for all numbers of a tensor (AdamUniform of Nicolet et al. 2021, Large Steps in Inverse Rendering).

Adam divides each number's gradient by its own size, so a smoothed gradient (`DMTet.smooth_gradients`) comes out rough again:
whatever is tiny moves as far as the rest. Divided by the largest of them, a smooth gradient makes a smooth step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class UniformAdam(torch.optim.Optimizer):
    """For tensors whose numbers are of one kind, such as an SDF: no number moves by more than about `lr` a step."""

    def __init__(self, parameters: list[nn.Parameter], lr: float = 0.0, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients that `backward` left."""
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state: dict[str, Tensor] = self.state[p]
                if not state:
                    state["step"], state["largest"], state["mean"] = p.new_zeros(()), p.new_zeros(()), torch.zeros_like(p)
                state["step"] += 1
                state["mean"].lerp_(p.grad, 1 - b1)
                state["largest"].lerp_(p.grad.abs().max().square(), 1 - b2)
                n = float(state["step"])
                size = (state["largest"] / (1 - b2**n)).sqrt().clamp(min=1e-30)
                p.sub_(group["lr"] / (1 - b1**n) * state["mean"] / size)
