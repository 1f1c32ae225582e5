# SPDX-License-Identifier: Apache-2.0
"""Score matching: losses whose minimiser is the score grad log p, from samples alone.

    explicit   |s - grad log p|**2 / 2                        needs the score: the yardstick of tests and figures
    implicit   tr(ds/dx) + |s|**2 / 2                         Hyvärinen 2005; exact trace, D backward passes
    sliced     v . (ds/dx) v + (v . s)**2 / 2                 Song et al. 2019 (arXiv:1905.07088); one directional derivative
    sliced-VR  v . (ds/dx) v + |s|**2 / 2                     lower variance; needs E[v v^T] = I
    denoising  |s(x) + noise / sigma|**2 / 2                  Vincent 2011; minimiser is the score of the *noised* data

The first four differ by a constant, half the Fisher information; docs/scores.md derives them. Implicit score matching with a random
trace, Hutchinson's, is the same thing as sliced-VR. All losses are sums over dimensions, (B,), and keep the graph for training.

Letters: s a score model, x (B, ...) to the same shape; D its dimensions; v projections; sigma the noise level, in x's unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from bozzetto.denoiser import each, noise_like

Score = Callable[[Tensor], Tensor]


def explicit(s: Score, x: Tensor, true_score: Tensor) -> Tensor:
    """(B,) half the squared distance to the score at x."""
    return _half(s(x) - true_score)


def implicit(s: Score, x: Tensor) -> Tensor:
    """(B,) with the exact trace, for small D."""
    value, trace = jacobian_trace(s, x)
    return trace + _half(value)


def jacobian_trace(s: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """s(x), and tr(ds/dx) (B,): column i of the Jacobian by one backward pass, so D of them."""
    leaf = x.detach().requires_grad_()
    value = s(leaf)
    flat = value.flatten(1)
    trace = torch.zeros_like(flat[:, 0])
    for i in range(flat.shape[1]):
        # samples do not mix, so the gradient of the sum holds each sample's own
        (row,) = torch.autograd.grad(flat[:, i].sum(), leaf, create_graph=True)
        trace = trace + row.flatten(1)[:, i]
    return value, trace


def sliced(s: Score, x: Tensor, v: Tensor, *, is_reduced: bool = True, mode: Literal["reverse", "forward"] = "reverse") -> Tensor:
    """(B,) along v (B, ...): one projection a sample; average several for less noise.

    is_reduced  the VR form. Its v must have E[v v^T] = I: with unit-length v its minimiser is silently grad log p / D
    mode        reverse: v . grad(v . s), one more backward pass; forward: a Jacobian-vector product beside the value, less memory
    """
    value, along = directional(s, x, v, mode)
    if is_reduced:
        return along + _half(value)
    return along + (v * value).flatten(1).sum(1).square() / 2


def directional(s: Score, x: Tensor, v: Tensor, mode: Literal["reverse", "forward"] = "reverse") -> tuple[Tensor, Tensor]:
    """s(x), and v . (ds/dx) v (B,): whose mean is the trace when E[v v^T] = I (Hutchinson)."""
    if v.shape != x.shape:
        raise ValueError(f"v: expected a direction for each sample, {tuple(x.shape)}, got {tuple(v.shape)}")
    if mode == "forward":
        value, moved = torch.func.jvp(s, (x,), (v,))  # type: ignore[misc]
    elif mode == "reverse":
        leaf = x.detach().requires_grad_()
        value = s(leaf)
        (moved,) = torch.autograd.grad((v * value).sum(), leaf, create_graph=True)
    else:
        raise ValueError(f"mode: expected reverse or forward, got {mode!r}")
    return value, (v * moved).flatten(1).sum(1)


def projections(like: Tensor, kind: Literal["rademacher", "gaussian", "sphere"] = "rademacher", *, generator: torch.Generator) -> Tensor:
    """Random v of like's shape with E[v v^T] = I: signs, normal numbers, or points of the sphere of radius sqrt(D).

    Signs have the least variance, none for a diagonal Jacobian (check SSM-2).
    """
    v = noise_like(like, generator)
    if kind == "rademacher":
        return torch.where(v < 0, -1.0, 1.0).to(like)
    if kind == "sphere":
        norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
        return v / norm * math.sqrt(v[0].numel())
    if kind != "gaussian":
        raise ValueError(f"kind: expected rademacher, gaussian or sphere, got {kind!r}")
    return v


def denoising(s: Score, x0: Tensor, noise: Tensor, sigma: Tensor | float, *, is_weighted: bool = True) -> Tensor:
    """(B,) at x0 + sigma * noise, against the conditional score -noise / sigma.

    sigma        one number or (B,)
    is_weighted  times sigma**2, NCSN's lambda: |sigma s + noise|**2 / 2, whose target has variance 1 at every level
    s            asked at the noised x; a conditional network closes over its level: lambda x: net(x, level)

    The target comes from the stored noise; (x0 - x) / sigma**2 would lose its digits at small sigma. The opposite sign gives a
    loss with the same minimum and -grad log q as its minimiser: no training curve shows it, a test must.
    """
    level = each(sigma, x0)
    error = level * s(x0 + level * noise) + noise
    return _half(error) if is_weighted else _half(error / level)


def _half(error: Tensor) -> Tensor:
    return error.square().flatten(1).sum(1) / 2
