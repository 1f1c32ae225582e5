# SPDX-License-Identifier: Apache-2.0
"""Improved DDPM (Nichol & Dhariwal 2021, arXiv:2102.09672): respacing, the hybrid loss, and steps drawn by their loss.

Its cosine schedule stands in `schedules.py`, its learned variance in `ddpm.reverse`.
Letters: T steps, k their index, B samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Predicted
from bozzetto.diffusion.ddpm import Process, bound_term, process_of
from bozzetto.diffusion.losses import noised


def space_timesteps(T: int, counts: Sequence[int]) -> Tensor:
    """Steps to keep, ascending int64: each of len(counts) equal sections keeps its count, evenly, with both its ends.

    The first T % len(counts) sections are one longer. A section's stride is added up in float64 and each sum rounded, halves to
    even, as in the released code: a half-way step may fall to either side. A count of 1 keeps the section's first step.
    raises ValueError where a section is asked for more than it has.
    """
    kept, start = [], 0
    for i, count in enumerate(counts):
        size = T // len(counts) + (i < T % len(counts))
        if not 1 <= count <= size:
            raise ValueError(f"counts: expected 1 to {size} steps of section {i}, got {count}")
        stride = (size - 1) / max(count - 1, 1)
        at = itertools.accumulate([stride] * (count - 1), initial=0.0)
        kept.append(torch.tensor([start + round(x) for x in at]))
        start += size
    return torch.cat(kept)


def respaced(p: Process, network: Predicted, kept: Tensor) -> tuple[Process, Predicted]:
    """The same process seen at the kept steps (n,), ascending, alone, and the network asked by its old steps.

    alpha_bar stays what it was at kept steps, so beta' = 1 - alpha_bar / alpha_bar of the kept step before.
    """
    if kept.ndim != 1 or not bool((kept.diff() > 0).all()) or kept[0] < 0 or kept[-1] >= len(p):
        raise ValueError(f"kept: expected ascending steps in [0, {len(p)}), got {kept.tolist()[:8]}")

    def old(x_t: Tensor, k: Tensor, **cond: Any) -> Any:
        return network(x_t, kept.to(k.device)[k], **cond)

    return process_of(p.alpha_bar[kept]), old


def hybrid_loss(
    p: Process,
    network: Predicted,
    x0: Tensor,
    noise: Tensor,
    k: Tensor,
    *,
    weight: float = 0.001,
    levels: int | None = 256,
    cond: Mapping[str, Any] | None = None,
) -> Tensor:
    """L_simple + weight L_vlb, (B,): an eps-network with a learned variance, which alone the second part trains.

    L_vlb is T times the drawn term in bits a dimension, so that its mean over k is the sum of them; L_T has no parameters.
    """
    out: Any = network(noised(x0, noise, p.alpha_bar[k]), k, **(cond or {}))
    eps, fraction = getattr(out, "sample", out).chunk(2, 1)
    frozen = torch.cat([eps.detach(), fraction], 1)
    vlb = bound_term(p, lambda x_t, k: frozen, x0, noise, k, levels=levels, variance="learned") * len(p)
    return (eps - noise).square().flatten(1).mean(1) + weight * vlb / (math.log(2) * x0[0].numel())


@dataclass(frozen=True)
class LossHistory:
    """Which steps to draw: p_k ~ sqrt(E[L_k**2]) over each step's last losses, once all have as many; even before that.

    losses  (T, 10) float64, filled from the left; oldest first
    counts  (T,) int64, how many of them are filled
    """

    losses: Tensor
    counts: Tensor

    def probabilities(self, uniform: float = 0.001) -> Tensor:
        """(T,), `uniform` of them spread evenly."""
        T = len(self.losses)
        if bool((self.counts < self.losses.shape[1]).any()):
            return torch.full((T,), 1 / T, dtype=torch.float64)
        root = self.losses.square().mean(1).sqrt()
        return (1 - uniform) * root / root.sum() + uniform / T

    def draw(self, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps (count,) and the weights 1 / (T p_k) that keep the mean of the loss what it was."""
        p = self.probabilities()
        k = torch.multinomial(p.to(generator.device), count, replacement=True, generator=generator)
        return k, 1 / (len(p) * p.to(k.device)[k])

    def seen(self, k: Tensor, loss: Tensor) -> LossHistory:
        """A history that also holds these losses (B,) of steps k (B,), unweighted."""
        losses, counts = self.losses.clone(), self.counts.clone()
        for step, value in zip(k.tolist(), loss.double().tolist(), strict=True):
            if counts[step] == losses.shape[1]:
                losses[step] = losses[step].roll(-1)
                counts[step] -= 1
            losses[step, counts[step]] = value
            counts[step] += 1
        return LossHistory(losses, counts)


def no_losses(T: int, length: int = 10) -> LossHistory:
    return LossHistory(torch.zeros(T, length, dtype=torch.float64), torch.zeros(T, dtype=torch.int64))
