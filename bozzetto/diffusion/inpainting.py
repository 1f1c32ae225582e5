# SPDX-License-Identifier: Apache-2.0
"""Inpainting: completing x0 where a mask leaves it unknown, with a denoiser that knows of no masks.

Two ways. The notes': an `Overlay` for `scores.ncsn.annealed_langevin`, that writes the known part, noised to the level, into each
step of Langevin dynamics (NCSN, Sec. 5; NCSNv2; score SDE, App. I.2). RePaint: an ancestral chain that writes the known part and
often jumps back up by adding noise, so that both parts come to agree (Lugmayr et al. 2022, arXiv:2201.09865). Both overwrite;
related, not the same.

mask is 1 where y is *known*, 0 elsewhere, shape of x or broadcast to it. What is returned keeps the last level's noise in the
known part; `paste` puts y itself there.
RePaint's printed Algorithm 1 scales the known part's noise by 1 - alpha_bar instead of its root, and is one index off; not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, Generators, descending, noise_like
from bozzetto.diffusion.samplers import ancestral
from bozzetto.scores.ncsn import Overlay

Step = Callable[[Tensor, float, float], Tensor]
"""(x, sigma, sigma_next) to x on the next level"""


def paste(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """y where the mask is 1, x where it is 0, shape of x. ValueError for a mask of another shape or outside [0, 1]."""
    try:
        is_fitting = torch.broadcast_shapes(mask.shape, x.shape) == x.shape and y.shape == x.shape
    except RuntimeError:
        is_fitting = False
    if not is_fitting or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(
            f"mask: expected numbers in [0, 1] that broadcast to {tuple(x.shape)}, and y of that shape; "
            f"got mask {tuple(mask.shape)} and y {tuple(y.shape)}"
        )
    m = mask.to(x)
    return x * (1 - m) + y.to(x) * m


def known(y: Tensor, mask: Tensor, *, is_frozen: bool, generator: Generators) -> Overlay:
    """An overlay that writes y + sigma * noise where the mask is 1.

    is_frozen  one draw of the noise for all steps of a level (the NCSN paper), else a new one each step (NCSNv2's code, with
               `is_overlaid_first`)
    generator  its own, apart from the sampler's: then a mask of 0 leaves the sample bit for bit what it would have been
    """
    held: list[Tensor] = []

    def overlay(x: Tensor, sigma: float, is_new_level: bool) -> Tensor:
        if is_new_level or not is_frozen or not held:
            held[:] = [noise_like(x, generator)]
        return paste(x, y.to(x) + sigma * held[0], mask)

    return overlay


def jumps(T: int, j: int = 10, r: int = 10) -> list[int]:
    """RePaint's walk over step indices, from T - 1 to -1: from each of 0, j, 2 j .. < T - j it jumps up j, r - 1 times.

    source  the released schedule: for T = 250, j = r = 10 it has 4571 indices, 2410 of them steps down
    """
    if T < 1 or j < 1 or r < 1:
        raise ValueError(f"jumps: expected T, j, r >= 1, got {T}, {j}, {r}")
    left = {at: r - 1 for at in range(0, T - j, j)}
    walk, k = [T - 1], T - 1
    while k >= 0:
        if left.get(k, 0) > 0 and k + j < T:
            left[k] -= 1
            walk.extend(range(k + 1, k + j + 1))
            k += j
        k -= 1
        walk.append(k)
    return walk


@torch.no_grad()
def repaint(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    y: Tensor,
    mask: Tensor,
    cond: Any = None,
    *,
    j: int = 10,
    r: int = 10,
    step: Step | None = None,
    generator: Generators,
) -> Tensor:
    """Shape of x, from x (B, ...) on the level sigmas[0]; sigmas (T + 1,) descending, the last 0.

    A step down writes the known part at the current level and takes one ancestral step; a step up adds the noise between two
    levels. j, r as in `jumps`; calls of the denoiser: T + (r - 1) j ceil((T - j) / j).

    step  another reverse step than the ancestral one, such as the paper's, whose variance is learned
    """
    levels = descending(sigmas)
    if levels[-1] != 0:
        raise ValueError("sigmas: expected a schedule that ends in 0")
    T, dtype, x = len(levels) - 1, x.dtype, x.double()
    walk = jumps(T, j, r)
    for now, then in pairwise(walk):
        s, s_then = levels[T - 1 - now], levels[T - 1 - then]  # index k is the level of x_k; -1 is no noise
        if then > now:
            x = x + math.sqrt(s_then**2 - s**2) * noise_like(x, generator)
            continue
        x = paste(x, y.double() + s * noise_like(x, generator), mask)
        if step is not None:
            x = step(x, s, s_then)
        else:
            x = ancestral(denoiser, x, torch.tensor([s, s_then], dtype=torch.float64), cond, generator=generator)
    return x.to(dtype)
