# SPDX-License-Identifier: Apache-2.0
"""Bootstrapped score distillation (DreamCraft3D, arXiv:2310.16818) under a prior of single views that is exact.

A scene is a ring of 96 grey values, and a view an arc of 32 of them: six cameras, each value in two of the views. The prior is the
Gaussian law of arcs whose power falls with the square of the frequency, so that its one mode is flat grey and its draws have detail at
all scales. A scene begins as a draw of which frequencies above six are missing: what a coarse stage leaves.

DreamBooth's model and phi are what their losses would end in: each knows one picture of each view, under a window. Between two refreshes
a scene thus goes to the mean of its improved views, and where these were drawn anew, each by itself, half of the power is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bozzetto.claims.claim import Beats, Claim, Scores
from bozzetto.denoiser import Adapted, Denoiser, sigma_of
from bozzetto.distill.bsd import Refresh, refreshed
from bozzetto.distill.sds import Levels, Ramp, residual, sds_gradient
from bozzetto.distill.vsd import vsd_gradient
from bozzetto.priors.schedule import NoiseSchedule
from bozzetto.scores import parzen

RING, ARC, STRIDE, COARSE, WIDTH = 96, 32, 16, 6, 0.05
STEPS, ROUND = 200, 50
AT = (torch.arange(0, RING, STRIDE)[:, None] + torch.arange(ARC)) % RING  # (6, ARC): which values a view shows
FREQUENCY = torch.arange(RING // 2 + 1, dtype=torch.float64)
TWICE = torch.where((FREQUENCY == 0) | (FREQUENCY == RING / 2), 1.0, 2.0).double()  # of a real ring each frequency but these is two
Shares = Callable[[int], float]


class Made(NamedTuple):
    """Scenes (B, RING), and a draw of each view (B 6, ARC) by the model that they were distilled from at last."""

    scenes: Tensor
    drawn: Tensor


def power() -> Tensor:
    """(RING / 2 + 1,) of the prior; a ring's variance is 1, its mean 0."""
    falling = 1 / (1 + (FREQUENCY / 2) ** 2)
    falling[0] = 0
    return falling * RING / (falling * TWICE).sum()


def rings(count: int, generator: torch.Generator) -> Tensor:
    """(count, RING) draws."""
    noise = torch.randn(count, RING, generator=generator, dtype=torch.float64)
    return torch.fft.irfft(torch.fft.rfft(noise) * power().sqrt(), RING)


def single_views() -> Denoiser:
    """The prior: of one arc, wherever it lies."""
    reach = torch.fft.irfft(power().to(torch.complex128), RING)
    place = torch.arange(ARC)
    values, axes = torch.linalg.eigh(reach[(place[:, None] - place).abs()])
    values = values.clamp(min=0)

    def denoised(x: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        noise = torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1) ** 2
        return ((x @ axes) * values / (values + noise)) @ axes.T

    return Adapted(denoised, sigma_of(NoiseSchedule().alpha_bar()))


def told() -> Denoiser:
    """What knows one picture a view, its condition (B, 1, ARC): where DreamBooth and phi end."""
    return Adapted(
        lambda x, sigma, cond: parzen.denoised(x, cond, torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1), WIDTH),
        sigma_of(NoiseSchedule().alpha_bar()),
    )


def arcs(scenes: Tensor) -> Tensor:
    """(B, RING) to the views (B 6, ARC)."""
    return scenes[:, AT].flatten(0, 1)


def fused(views: Tensor) -> Tensor:
    """The inverse: the mean of what the views show of each value."""
    total = torch.zeros(len(views) // len(AT), RING, dtype=views.dtype)
    return total.index_add(1, AT.flatten(), views.reshape(len(total), -1)) * STRIDE / ARC


def coarse(scenes: Tensor) -> Tensor:
    """Their low frequencies."""
    found = torch.fft.rfft(scenes)
    found[:, COARSE + 1 :] = 0
    return torch.fft.irfft(found, RING)


def bootstrapped(start: Tensor, share: Shares, generator: torch.Generator, every: int = ROUND) -> Made:
    """BSD; share is t' of a step, 0 of which leaves the renderings as they are."""
    prior, model, levels = single_views(), told(), falling()
    refresh, scenes, kept = Refresh(every=every, learning=1, each=1), start.clone(), arcs(start)
    for step in range(STEPS):
        x = arcs(scenes)
        if refresh.is_learning(step):
            kept = refreshed(prior, x, share(step), steps=refresh.steps, generator=generator) if share(step) else x
            continue
        sigma = levels.draw(prior, len(x), step, generator=generator)
        gradient = vsd_gradient(model, model, x, sigma, kept[:, None], x[:, None], generator=generator, weight=residual)
        scenes = scenes - 0.3 * fused(gradient)
    return Made(scenes, refreshed(model, arcs(scenes), 1.0, kept[:, None], generator=generator))


def frozen(start: Tensor, generator: torch.Generator, *, is_variational: bool) -> Made:
    """As many steps by the prior as it is: SDS, or VSD, whose phi knows the camera."""
    prior, model, levels, scenes = single_views(), told(), falling(), start.clone()
    for step in range(STEPS):
        x = arcs(scenes)
        sigma = levels.draw(prior, len(x), step, generator=generator)
        if is_variational:
            gradient = vsd_gradient(prior, model, x, sigma, None, x[:, None], generator=generator, weight=residual)
        else:
            gradient, _ = sds_gradient(prior, x, sigma, generator=generator, weight=residual)
        scenes = scenes - 0.3 * fused(gradient)
    return Made(scenes, refreshed(prior, arcs(scenes), 1.0, generator=generator))


def falling() -> Levels:
    """The released code's, of its last stage: from .05 to .5, which falls to .2."""
    return Levels(Ramp(0.05, 0.05), Ramp(0.5, 0.2, 0, STEPS))


@lru_cache(maxsize=8)
def made(seed: int, count: int = 64) -> tuple[Tensor, dict[str, Made]]:
    """How scenes begin, and what each way makes of them."""
    generator = torch.Generator().manual_seed(seed)
    start = coarse(rings(count, generator))
    shares: dict[str, Shares] = {
        "BSD": lambda step: 0.5 if step < ROUND else 0.1,
        "BSD, t' .5 always": lambda step: 0.5,
        "BSD, t' .1 always": lambda step: 0.1,
        "BSD, from noise": lambda step: 1.0,
        "BSD, DreamBooth is phi": lambda step: 0.0,
    }
    ways = {name: bootstrapped(start, share, generator) for name, share in shares.items()}
    ways["BSD, never refreshed"] = bootstrapped(start, lambda step: 0.5, generator, every=STEPS)
    return start, ways | {name: frozen(start, generator, is_variational=name == "VSD") for name in ("SDS", "VSD")}


def detail(seed: int) -> Scores:
    """Wasserstein distance of the scenes' law to the prior's, of differences of neighbouring values, as a share of their deviation."""
    slope = TWICE * (2 * torch.sin(math.pi * FREQUENCY / RING)) ** 2
    wanted = power().sqrt()

    def off(scenes: Tensor) -> float:
        found = (torch.fft.rfft(scenes).abs().square().mean(0) / RING).sqrt()
        return math.sqrt(float((slope * (found - wanted).square()).sum() / (slope * wanted.square()).sum()))

    return {name: off(x.scenes) for name, x in made(seed)[1].items()}


def disagreement(seed: int) -> Scores:
    """Root mean square, where two views overlap, between what the model draws in one and in the other."""
    found = {}
    for name, (_, drawn) in made(seed)[1].items():
        views = drawn.view(-1, len(AT), ARC)
        found[name] = float((views[..., STRIDE:] - views.roll(-1, 1)[..., :STRIDE]).square().mean().sqrt())
    return found


def strangeness(seed: int) -> Scores:
    """Root mean square of how far the coarse part has moved."""
    start, ways = made(seed)
    return {name: float((coarse(x.scenes) - start).square().mean().sqrt()) for name, x in ways.items()}


CLAIMS = (
    Claim(
        "bsd-detail",
        method="BSD",
        source="arXiv:2310.16818, Sec. 4.3",
        says="Bootstrapping gives a scene detail that score distillation from the frozen prior, variational or not, does not.",
        metric="Wasserstein distance to the prior, of differences of neighbours",
        better="lower",
        run=detail,
        must=(Beats("BSD", "SDS"), Beats("BSD", "VSD"), Beats("BSD", "BSD, t' .1 always")),
        control=Beats("BSD", "BSD, DreamBooth is phi"),
        seconds=5,
        remark="The control's gradient is nothing: its figure is that of the scenes as they begin. SDS goes to the prior's mode, which is "
        "grey, and VSD with it: of one scene, phi that knows the camera is certain. Not all detail comes back: where neighbouring views "
        "were drawn anew, each by itself, their mean keeps half of the power (and 25 steps of a sampler, as released, four fifths), so "
        "that a single refresh at .5 has more detail than one that is followed by others at .1; what those are for, the next claim says.",
    ),
    Claim(
        "bsd-agreement",
        method="BSD",
        source="arXiv:2310.16818, Sec. 4.3",
        says="DreamBooth's model, told the scene's improved renderings as t' falls, draws views that agree.",
        metric="rms difference of two views' draws where they overlap, in deviations of the prior",
        better="lower",
        run=disagreement,
        must=(Beats("BSD", "SDS"), Beats("BSD", "BSD, never refreshed"), Beats("BSD", "BSD, t' .5 always")),
        control=Beats("BSD", "BSD, from noise"),
        seconds=1,
        remark="Drawn are views of the model that was distilled from at last: of SDS and VSD the frozen prior. Small t' alone agrees, too, "
        "and so does a model of the renderings as they are; they add less detail, or none: see the claim before.",
    ),
    Claim(
        "bsd-likeness",
        method="BSD",
        source="arXiv:2310.16818, Sec. 4.3",
        says="And the scene stays the one it was.",
        metric="rms change of what was there at the start, in deviations of the prior",
        better="lower",
        run=strangeness,
        must=(Beats("BSD", "SDS"), Beats("BSD", "VSD"), Beats("BSD", "BSD, t' .5 always")),
        control=Beats("BSD", "BSD, from noise"),
        seconds=1,
    ),
)
