# SPDX-License-Identifier: Apache-2.0
"""Figures of score matching: why noise is needed on a manifold, Parzen windows, and where no sample teaches the score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bozzetto.denoiser import noise_like
from bozzetto.figures import style
from bozzetto.figures.style import BLUE, GOLD, GREEN, INK, RED
from bozzetto.figures.worlds import Mixture, fit, grid, network, two_modes
from bozzetto.scores import matching, parzen


def on_a_manifold(plt: Any, steps: int = 3000) -> Any:
    """Sliced score matching of points on a circle, as they are and with a little noise (NCSN, Fig. 1)."""
    figure, (curve, *maps) = plt.subplots(1, 3, figsize=(10.2, 3.1), width_ratios=(1.35, 1, 1), layout="constrained")
    for noise, colour, axes in ((0.0, RED, maps[0]), (0.1, BLUE, maps[1])):
        generator = torch.Generator().manual_seed(0)
        net = network(2, generator=generator)

        def points(count: int, noise: float = noise, generator: torch.Generator = generator) -> Tensor:
            angle = 2 * math.pi * torch.rand(count, generator=generator)
            x = torch.stack([angle.cos(), angle.sin()], 1)
            return x + noise * noise_like(x, generator)

        def loss(net: Any = net, points: Any = points, generator: torch.Generator = generator) -> Tensor:
            x = points(128)
            return matching.sliced(net, x, matching.projections(x, generator=generator)).mean()

        seen = fit(net, loss, steps, 2e-3)
        label = "points as they are" if noise == 0 else f"points with noise of {noise:g}"
        curve.plot(np.arange(steps), seen, color=colour, lw=0.6, alpha=0.85, label=label)
        where = grid(-1.6, 1.6, 17).float()
        with torch.no_grad():
            arrows = net(where)
        size = arrows.norm(dim=1, keepdim=True)
        axes.quiver(*where.T, *(arrows / size).T, size[:, 0].log10(), cmap="magma_r", scale=22, width=0.007, pivot="mid", clim=(0, 3))
        axes.scatter(*points(300).T, s=3, color=colour, zorder=3)
        style.field(axes)
        axes.set_title(f"{label}: |s| up to {float(size.max()):,.0f}", fontsize=9)
    curve.set_yscale("symlog", linthresh=100)
    curve.set_xlabel("step of training")
    curve.set_ylabel("sliced score matching loss")
    curve.legend(loc="lower left")
    curve.grid(axis="y")
    curve.set_title("the loss has no minimum on a manifold", fontsize=9)
    return figure


def parzen_windows(plt: Any) -> Any:
    """Kernels, bandwidths, and how many samples the same accuracy takes in D dimensions (Silverman 1986, Table 4.2)."""
    generator = torch.Generator().manual_seed(3)
    world = Mixture(torch.tensor([0.6, 0.4]), torch.tensor([[-1.5], [1.6]]), torch.tensor([0.55, 0.9]))
    x0, x = world.draw(60, generator=generator), torch.linspace(-5, 5, 800, dtype=torch.float64)[:, None]
    best = parzen.best_bandwidth(x0, torch.logspace(-1.3, 0.5, 80, dtype=torch.float64))
    figure, (kernels, widths, dims) = plt.subplots(1, 3, figsize=(10.2, 3.1), layout="constrained")
    for axes in (kernels, widths):
        axes.fill_between(x[:, 0], world.log_density(x).exp(), color="#eceff2", label="the density")
        axes.plot(x0[:, 0], torch.full((60,), -0.012), "|", color=INK, ms=5, mew=0.6)
        axes.set(xlabel="x", ylim=(-0.025, 0.62), yticks=[], xlim=(-5, 5))
        axes.spines["left"].set_visible(False)
    equal = {"gaussian": 1.0, "epanechnikov": math.sqrt(5), "uniform": math.sqrt(3)}  # radius of a unit variance
    for (name, radius), colour in zip(equal.items(), (BLUE, GREEN, RED), strict=True):
        kernels.plot(x[:, 0], parzen.log_density(x, x0, best * radius, getattr(parzen, name)).exp(), color=colour, lw=1.2, label=name)
    kernels.set_title("three kernels of one variance", fontsize=9)
    silverman = parzen.silverman(x0)
    for sigma, colour, name in ((best / 5, GOLD, "a fifth"), (best, BLUE, "leave-one-out"), (silverman, RED, "Silverman's")):
        widths.plot(x[:, 0], parzen.log_density(x, x0, sigma).exp(), color=colour, lw=1.2, label=f"{name}, {sigma:.2f}")
    widths.set_title("three bandwidths of one kernel", fontsize=9)
    for axes in (kernels, widths):
        axes.legend(loc="upper right", handlelength=1.3)
    needed = [samples_needed(D) for D in range(1, 11)]
    dims.plot(range(1, 11), [n for n, _ in needed], "-", color=BLUE, label="exact")
    for D in (1, 2, 3, 4):
        n, sigma = needed[D - 1]
        off = torch.tensor([relative_error(D, round(n), sigma, generator) for _ in range(400)])
        dims.plot(D, n, "o", color=RED, ms=5)
        dims.annotate(f"{float(off.square().mean()):.2f}", (D, n), (6, -9), textcoords="offset points", fontsize=7, color=RED)
    dims.plot([], [], "o", color=RED, ms=5, label="error² of 400 runs there")
    dims.set(yscale="log", xlabel="dimensions", xticks=range(1, 11))
    dims.grid(axis="y")
    dims.legend(loc="upper left")
    dims.set_title("samples for a relative error² of .1 at the mode", fontsize=9)
    return figure


def samples_needed(D: int, target: float = 0.1) -> tuple[float, float]:
    """N and sigma at which E[(q(0) - p(0))**2] / p(0)**2 is `target`, p = N(0, I), Gaussian windows, each N at its best sigma.

    E q(0) = p(0) (1 + s)**(-D / 2) with s = sigma**2, E K**2 = (4 pi s)**(-D / 2) (2 pi (1 + s / 2))**(-D / 2): all Gaussians.
    """
    s = torch.logspace(-3, 1, 20_000, dtype=torch.float64)
    mean = (1 + s) ** (-D / 2)
    square = (2 * s * (1 + s / 2)) ** (-D / 2)  # over p(0)**2 = (2 pi)**-D
    spare = target - (mean - 1) ** 2
    count = torch.where(spare > 0, (square - mean**2) / spare.clamp(min=1e-12), torch.inf)
    at = int(count.argmin())
    return float(count[at]), float(s[at].sqrt())


def relative_error(D: int, N: int, sigma: float, generator: torch.Generator) -> float:
    """q(0) / p(0) - 1 of N samples drawn from N(0, I)."""
    x0 = noise_like(torch.empty(max(N, 1), D, dtype=torch.float64), generator)
    return float((parzen.log_density(torch.zeros(1, D, dtype=torch.float64), x0, sigma) + D / 2 * math.log(2 * math.pi)).exp()) - 1


def low_density(plt: Any, steps: int = 4000) -> Any:
    """True and learnt scores of two modes, and where they differ: where no sample fell (NCSN, Fig. 2)."""
    world, generator = two_modes(), torch.Generator().manual_seed(0)
    net = network(2, generator=generator)

    def loss() -> Tensor:
        x = world.draw(128, generator=generator).float()
        return matching.sliced(net, x, matching.projections(x, generator=generator)).mean()

    fit(net, loss, steps)
    fine, coarse = grid(-8, 8, 161), grid(-7.5, 7.5, 16)
    with torch.no_grad():
        error = (net(fine.float()) - world.score(fine)).norm(dim=1).view(161, 161)
        learnt, true = net(coarse.float()).double(), world.score(coarse)
    samples = world.draw(400, generator=generator)
    figure, panels = plt.subplots(1, 3, figsize=(10.2, 3.5), layout="constrained")
    density = world.log_density(fine).view(161, 161)
    for axes, arrows, title in ((panels[0], true, "true score, log density"), (panels[1], learnt, "learnt score, samples")):
        size = arrows.norm(dim=1, keepdim=True)
        axes.quiver(*coarse.T, *(arrows / size.sqrt().clamp(min=0.05)).T, color=INK, scale=60, width=0.005, pivot="mid", zorder=3)
        axes.set_title(title, fontsize=9)
    panels[0].contourf(density.clamp(min=-40), levels=24, extent=(-8, 8, -8, 8), cmap="Blues")
    panels[1].scatter(*samples.T, s=3, color=BLUE, alpha=0.5)
    shown = panels[2].imshow(
        error.clamp(1e-2, 1e1).log10(), extent=(-8, 8, -8, 8), origin="lower", cmap="YlOrRd", vmin=-2, vmax=1, interpolation="bilinear"
    )
    panels[2].contour(density, levels=[-8], extent=(-8, 8, -8, 8), colors=INK, linewidths=0.8, linestyles="--")
    inside = float((error.square() * density.exp()).sum().sqrt() / density.exp().sum().sqrt())
    panels[2].set_title(f"|difference|: {inside:.2f} where samples are, {float(error.mean()):.1f} over all", fontsize=9)
    bar = figure.colorbar(shown, ax=panels[2], shrink=0.8, ticks=[-2, -1, 0, 1])
    bar.ax.set_yticklabels([".01", ".1", "1", "10"])
    bar.outline.set_visible(False)
    for axes in panels:
        style.field(axes)
        axes.set(xlim=(-8, 8), ylim=(-8, 8))
    return figure
