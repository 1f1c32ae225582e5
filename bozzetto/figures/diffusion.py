# SPDX-License-Identifier: Apache-2.0
"""Figures of sampling down the levels: their course, completions of known pixels, and what each step of each sampler buys."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, noise_like, sigma_of
from bozzetto.diffusion import samplers
from bozzetto.diffusion.inpainting import known, paste, repaint
from bozzetto.diffusion.schedules import alpha_bar, cosine_betas, karras, ladder, linear_betas, spaced
from bozzetto.figures import style
from bozzetto.figures.style import BLUE, COLOURS, GREEN, RED
from bozzetto.figures.worlds import Mixture
from bozzetto.priors.loading import load_as
from bozzetto.priors.unconditional import Config, PicturePrior
from bozzetto.scores.ladder import geometric
from bozzetto.scores.ncsn import annealed_langevin, predictor_corrector
from bozzetto.scores.wasserstein import directions, sliced_wasserstein

NCSN_STEP = 2e-5  # of its last level, with 100 steps a level: the paper's


def levels(plt: Any) -> Any:
    """The noise level at each call of the network, and two digits on their way down."""
    figure = plt.figure(figsize=(10.2, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.45))
    axes = left.subplots()
    first = geometric(1.0, 0.01, 10)
    axes.step(
        np.linspace(0, 1, 1001), first.repeat_interleave(100)[[*range(1000), -1]], where="post", color=RED, label="NCSN: 10 levels of 100"
    )
    second = geometric(50.0, 0.01, 232)
    axes.plot(np.linspace(0, 1, len(second) * 5), second.repeat_interleave(5), color="#e58a96", lw=1, label="NCSNv2: 232 levels of 5")
    for name, betas, colour, line in (("linear", linear_betas(), BLUE, "-"), ("cosine", cosine_betas(), BLUE, "--")):
        axes.plot(np.linspace(0, 1, 1000), sigma_of(alpha_bar(betas)).flip(0), line, color=colour, label=f"DDPM, {name}: 1000")
    axes.plot(np.linspace(0, 1, 18), karras(18)[:-1], "o-", color=GREEN, ms=3, lw=0.9, label="EDM: 18 of Heun's")
    axes.set(yscale="log", ylim=(4e-3, 300), xlabel="share of the calls", ylabel="sigma, with the data's scale kept at 1")
    axes.legend(loc="lower left", fontsize=7)
    axes.grid(axis="y")
    panels = right.subplots(4, 8, gridspec_kw={"wspace": 0.04, "hspace": 0.08})
    for row, course in enumerate((_annealed_course(), _ancestral_course())):
        for column, (sigma, x, denoised) in enumerate(course):
            low, high = float(x.min()), float(x.max())
            style.picture(panels[2 * row, column], ((x - low) / (high - low)).numpy(), f"{sigma:.3g}")
            style.picture(panels[2 * row + 1, column], (denoised.clamp(-1, 1) / 2 + 0.5).numpy())
    right.suptitle(
        "annealed Langevin, then DDPM's chain: x (its contrast stretched), what the network makes of it", fontsize=9, x=0.02, ha="left"
    )
    return figure


Moment = tuple[float, Tensor, Tensor]
"""level, x and denoised, (H, W)"""


def _opened(name: str) -> tuple[Denoiser, Config]:
    prior = load_as(PicturePrior, name)
    return prior.denoiser, prior.config


def _annealed_course() -> list[Moment]:
    """The ends of the NCSN's levels, but for the second and the last but one."""
    denoiser, config = _opened("digits-ncsn")
    generator, seen = torch.Generator().manual_seed(3), []

    def watch(i: int, x: Tensor, denoised: Tensor) -> None:
        if i not in (1, config.T - 2):
            seen.append((float(config.sigmas[i]), x[0, 0], 2 * denoised[0, 0] - 1))

    x = torch.rand(1, config.channels, config.size, config.size, generator=generator)
    annealed_langevin(denoiser, x, config.sigmas, NCSN_STEP, 100, generator=generator, watch=watch)
    return seen


def _ancestral_course() -> list[Moment]:
    denoiser, config = _opened("digits-ddpm")
    generator, sigmas, seen = torch.Generator().manual_seed(3), ladder(config.alpha_bar, spaced(config.T, 100)), []

    def watch(i: int, x: Tensor, denoised: Tensor) -> None:
        if i in (3, 20, 40, 55, 70, 82, 92, 99):
            seen.append((float(sigmas[i]), x[0, 0], denoised[0, 0]))

    x = float(sigmas[0]) * torch.randn(1, config.channels, config.size, config.size, generator=generator)
    samplers.ancestral(denoiser, x, sigmas, generator=generator, watch=watch)
    return seen


def inpainting(plt: Any, completions: int = 8) -> Any:
    """One half of a digit known; several completions: the notes' way by the NCSN, RePaint's by the DDPM."""
    (ncsn, levels), (denoiser, config) = _opened("digits-ncsn"), _opened("digits-ddpm")
    originals = _originals(denoiser)
    figure, panels = plt.subplots(2 * len(originals), completions + 1, figsize=(9.2, 4.3), layout="constrained")
    for row, original in enumerate(originals):
        mask = torch.zeros_like(original)
        half = config.size // 2
        mask[(..., slice(half), slice(None)) if row % 2 == 0 else (..., slice(half))] = 1
        y = original.expand(completions, -1, -1, -1)
        ways = {
            "notes": _notes_way(ncsn, levels.sigmas, y, mask, 10 + row),
            "RePaint": _repaint_way(denoiser, y, mask, config.alpha_bar, 20 + row),
        }
        shown = (1 - (original[0, 0] / 2 + 0.5)).unsqueeze(-1).repeat(1, 1, 3)
        shown[mask[0, 0] == 0] = torch.tensor([0.79, 0.86, 0.93])
        for line, (name, made) in enumerate(ways.items(), 2 * row):
            panels[line, 0].imshow(shown, interpolation="nearest")
            panels[line, 0].set_axis_off()
            panels[line, 0].text(-3, half, name, rotation=90, va="center", ha="right", fontsize=8)
            for column in range(completions):
                style.picture(panels[line, column + 1], paste(made, y, mask)[column, 0].clamp(-1, 1).numpy() / 2 + 0.5)
    return figure


def _notes_way(denoiser: Denoiser, sigmas: Tensor, y: Tensor, mask: Tensor, seed: int) -> Tensor:
    """In the NCSN's range, [0, 1], and back."""
    generator, other = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(100 + seed)
    overlay, x = known(y / 2 + 0.5, mask, is_frozen=True, generator=other), torch.rand(y.shape, generator=generator)
    made = annealed_langevin(denoiser, x, sigmas, NCSN_STEP, 100, generator=generator, overlay=overlay, final_denoise=True)
    return 2 * made - 1


def _repaint_way(denoiser: Denoiser, y: Tensor, mask: Tensor, alpha_bar: Tensor, seed: int) -> Tensor:
    generator, sigmas = torch.Generator().manual_seed(seed), ladder(alpha_bar, spaced(len(alpha_bar), 50))
    return repaint(denoiser, float(sigmas[0]) * noise_like(y, generator), sigmas, y, mask, j=5, r=5, generator=generator)


def _originals(denoiser: Denoiser) -> list[Tensor]:
    """Two digits that the DDPM draws: no data are needed for the figure."""
    sigmas = ladder(alpha_bar(cosine_betas()), spaced(1000, 60))
    x = float(sigmas[0]) * torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(7))
    made = samplers.dpm_solver_2m(denoiser, x, sigmas).clamp(-1, 1)
    return [*made.split(1)]


def sampler_steps(plt: Any, count: int = 20_000) -> Any:
    """Sliced Wasserstein distance to the truth against calls of the denoiser, every sampler, on an exact mixture."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.arange(8) * math.pi / 4
    world = Mixture(torch.arange(1, 9).float(), 0.5 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((8,), 0.05))
    truth, theta = world.draw(count, generator=generator), directions(32, 2, generator=generator)
    floors = [sliced_wasserstein(world.draw(count, generator=generator), truth, theta) for _ in range(4)]
    figure, (axes, *maps) = plt.subplots(1, 3, figsize=(10.2, 3.6), width_ratios=(2.1, 1, 1), layout="constrained")
    for (name, run), colour in zip(_runs().items(), (*COLOURS, "#b0b7bf"), strict=False):
        calls, off = [], []
        for n in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256):
            asked = _Counted(world)
            made = run(asked, n, count, torch.Generator().manual_seed(1))
            if made is None:
                continue
            calls.append(asked.calls)
            off.append(sliced_wasserstein(made, truth, theta))
            if n == 16 and name in ("Euler = DDIM", "DPM-Solver++ 2M"):
                panel = maps[0] if name.startswith("Euler") else maps[1]
                panel.scatter(*made[:4000].T, s=1.2, color=colour, alpha=0.4, linewidths=0)
                panel.set_title(f"{name}, {asked.calls} calls", fontsize=9)
        axes.plot(calls, off, "o-", color=colour, ms=3, lw=1.3, label=name)
    axes.axhspan(min(floors), max(floors), color=style.FAINT, label="two sets of the truth")
    axes.set(xscale="log", yscale="log", xlabel="calls of the denoiser", ylabel="sliced Wasserstein distance")
    axes.set_xticks([4, 8, 16, 32, 64, 128, 256], ["4", "8", "16", "32", "64", "128", "256"])
    axes.minorticks_off()
    axes.grid()
    axes.legend(loc="upper right", fontsize=7, ncols=2)
    for panel in maps:
        style.field(panel)
        panel.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8))
    return figure


class _Counted:
    def __init__(self, world: Mixture) -> None:
        self.world, self.sigmas, self.calls = world, world.sigmas, 0

    def denoise(self, x: Tensor, sigma: Any, cond: Any = None) -> Tensor:
        self.calls += 1
        return self.world.denoise(x, sigma, cond)


Run = Callable[[Denoiser, int, int, torch.Generator], Tensor | None]


def _runs() -> dict[str, Run]:
    """Each takes (denoiser, n, count, generator): about n calls from sigma 20 down to .005, or None where n is too few."""

    def down(sampler: Any, denoiser: Denoiser, n: int, count: int, start: torch.Generator, **choices: Any) -> Tensor:
        x = 20 * noise_like(torch.empty(count, 2, dtype=torch.float64), start)
        made: Tensor = sampler(denoiser, x, karras(n, 0.005, 20.0), **choices)
        return made

    def random(sampler: Any, denoiser: Denoiser, n: int, count: int, generator: torch.Generator) -> Tensor:
        return down(sampler, denoiser, n, count, generator, generator=generator)

    def heun(denoiser: Denoiser, n: int, count: int, generator: torch.Generator) -> Tensor:
        return down(samplers.heun, denoiser, n // 2, count, generator)

    def churned(denoiser: Denoiser, n: int, count: int, generator: torch.Generator) -> Tensor:
        churn = samplers.Churn(amount=n / 8)
        return down(samplers.heun, denoiser, n // 2, count, generator, churn=churn, generator=generator)

    def corrected(denoiser: Denoiser, n: int, count: int, generator: torch.Generator) -> Tensor:
        x = 20 * noise_like(torch.empty(count, 2, dtype=torch.float64), generator)
        return predictor_corrector(denoiser, x, geometric(20.0, 0.005, n // 2), snr=0.16, generator=generator)

    def annealed(denoiser: Denoiser, n: int, count: int, generator: torch.Generator) -> Tensor | None:
        if n < 12:
            return None
        x = 20 * noise_like(torch.empty(count, 2, dtype=torch.float64), generator)
        sigmas = geometric(20.0, 0.005, max(n // 4, 2))
        return annealed_langevin(denoiser, x, sigmas, 1.2 * 0.005**2, 4, generator=generator, final_denoise=True)

    return {
        "Euler = DDIM": partial(down, samplers.euler),
        "Heun": heun,
        "DPM-Solver++ 2M": partial(down, samplers.dpm_solver_2m),
        "Heun with churn": churned,
        "DDIM, eta .5": lambda d, n, c, g: down(samplers.ddim, d, n, c, g, eta=0.5, generator=g),
        "ancestral (DDPM)": partial(random, samplers.ancestral),
        "predictor-corrector": corrected,
        "annealed Langevin": annealed,
    }


def sheet(plt: Any, name: str, count: int = 160) -> Any:
    """Many pictures of one network, at length: only with --full."""
    denoiser, config = _opened(name)
    generator = torch.Generator().manual_seed(0)
    shape = (count, config.channels, config.size, config.size)
    if config.kind == "ncsn":
        x = torch.rand(shape, generator=generator)
        made = annealed_langevin(denoiser, x, config.sigmas, NCSN_STEP, 100, generator=generator, final_denoise=True)
    else:
        sigmas = ladder(config.alpha_bar, spaced(config.T, 250))
        x = float(sigmas[0]) * torch.randn(shape, generator=generator)
        made = samplers.ancestral(denoiser, x, sigmas, generator=generator) / 2 + 0.5
    columns = 20
    rows = [torch.cat([*row], 2) for row in made.clamp(0, 1).split(columns)]
    wide = torch.cat(rows, 1)
    shown = wide[0] if config.channels == 1 else wide.permute(1, 2, 0)
    figure, axes = plt.subplots(figsize=(10, 10 * len(rows) / columns))
    style.picture(axes, shown.numpy())
    return figure
