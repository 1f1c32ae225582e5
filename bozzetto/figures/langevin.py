# SPDX-License-Identifier: Apache-2.0
"""Figures of sampling by scores: how long the score is, what annealing mends, and a posterior sampled by stochastic gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bozzetto.denoiser import noise_like
from bozzetto.figures import style
from bozzetto.figures.style import BLUE, GOLD, GREEN, INK, RED
from bozzetto.figures.worlds import Mixture, grid, two_modes
from bozzetto.scores import langevin
from bozzetto.scores.ladder import geometric
from bozzetto.scores.ncsn import NCSN_EPS, annealed_langevin
from bozzetto.scores.parzen import Empirical


def signal_to_noise(plt: Any, D: int = 64, count: int = 256) -> Any:
    """|s| goes as 1 / sigma for points alone, and so does the signal of annealed Langevin's steps against their noise."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(40, D, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(noise_like(torch.empty(D, D, dtype=torch.float64), generator)).Q
    worlds: dict[str, tuple[Any, str]] = {
        "40 points": (Empirical(points), RED),
        "Gaussian, deviation .3": (Mixture(torch.ones(1), torch.full((1, D), 0.5), torch.tensor([0.3])), BLUE),
        "the same in 8 dimensions only": (_Subspace(basis[:8], 0.3), GREEN),
    }
    figure, (length, ratio) = plt.subplots(1, 2, figsize=(10.2, 3.2), layout="constrained")
    sigmas = geometric(3.0, 0.003, 40)
    ladder = geometric(1.0, 0.01, 10)
    for name, (world, colour) in worlds.items():
        start = _draw(world, count, points, basis, generator)
        norms = []
        for sigma in sigmas.tolist():
            x = start + sigma * noise_like(start, generator)
            norms.append(float(((world.denoise(x, sigma) - x) / sigma**2).norm(dim=1).mean()) * sigma / math.sqrt(D))
        length.plot(sigmas, norms, color=colour, label=name)
        seen: list[float] = []

        def watched(x: Tensor, sigma: Any, cond: Any = None, world: Any = world, seen: list[float] = seen) -> Tensor:
            denoised = world.denoise(x, sigma)
            step = NCSN_EPS * (float(sigma) / 0.01) ** 2
            signal = step / 2 * ((denoised - x) / float(sigma) ** 2).norm(dim=1).mean()
            seen.append(float(signal) / math.sqrt(step * D))
            return denoised

        x = torch.rand(64, D, generator=generator, dtype=torch.float64)
        annealed_langevin(_Watched(watched, ladder), x, ladder, NCSN_EPS, 100, generator=generator)
        ratio.plot(np.arange(1000), seen, color=colour, lw=0.9)
    length.axhline(1, color=INK, lw=0.7, ls=":")
    length.set(xscale="log", xlabel="sigma", ylabel="sigma |s| / sqrt(D)", ylim=(0, 1.15))
    length.legend(loc="upper left", bbox_to_anchor=(0, 0.82))
    length.set_title("|s| is sqrt(D) / sigma where data are points", fontsize=9)
    expected = math.sqrt(NCSN_EPS) / (2 * 0.01)
    ratio.axhline(expected, color=INK, lw=0.7, ls=":")
    ratio.text(20, 0.03, f"dotted: sqrt(eps) / (2 sigma_L) = {expected:.3f}", fontsize=8)
    ratio.set(xlabel="step of annealed Langevin, 100 on each of 10 levels", ylabel="signal / noise", ylim=(0, 0.42), xlim=(0, 1000))
    for level in range(100, 1000, 100):
        ratio.axvline(level, color="#e4e8ec", lw=0.6, zorder=0)
    ratio.set_title("the same at every level, for points; less where the data are wide", fontsize=9)
    return figure


class _Watched:
    def __init__(self, function: Any, sigmas: Tensor) -> None:
        self.denoise, self.sigmas = function, sigmas


class _Subspace:
    """N(1/2, deviation**2) on a subspace through (1/2, ..): a Gaussian that most directions see as a point."""

    def __init__(self, basis: Tensor, deviation: float) -> None:
        self.basis, self.deviation = basis, deviation
        self.sigmas = torch.tensor([1e-4, 1e4], dtype=torch.float64)

    def denoise(self, x: Tensor, sigma: Any, cond: Any = None) -> Tensor:
        along = (x - 0.5) @ self.basis.T
        return 0.5 + along @ self.basis * self.deviation**2 / (self.deviation**2 + float(sigma) ** 2)


def _draw(world: Any, count: int, points: Tensor, basis: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(world, Mixture):
        return world.draw(count, generator=generator)
    if isinstance(world, Empirical):
        return points[torch.randint(len(points), (count,), generator=generator)]
    return 0.5 + 0.3 * noise_like(torch.empty(count, 8, dtype=torch.float64), generator) @ basis[:8]


def mode_weights(plt: Any, count: int = 4000) -> Any:
    """Data, plain Langevin and annealed Langevin on the notes' two modes, with exact scores (NCSN, Fig. 3)."""
    world, generator = two_modes(), torch.Generator().manual_seed(0)
    start = 16 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 8
    plain = langevin.ula(world.score, start, 0.1, 1000, generator=generator)
    # as the released toy has it, levels are the modes' whole deviation, 20 to 1, so what is noised are two points
    points = torch.tensor([[5.0, 5.0]] * 4 + [[-5.0, -5.0]], dtype=torch.float64)
    annealed = annealed_langevin(Empirical(points), start, geometric(20.0, 1.0, 10), 0.1, 100, generator=generator)
    figure, panels = plt.subplots(1, 3, figsize=(9.4, 3.3), layout="constrained")
    fine = grid(-9, 9, 181)
    density = world.log_density(fine).view(181, 181)
    titles = ("independent samples", "Langevin, 1000 steps", "annealed Langevin, 10 levels of 100")
    for axes, x, title, colour in zip(
        panels, (world.draw(count, generator=generator), plain, annealed), titles, (BLUE, RED, GREEN), strict=True
    ):
        axes.contour(density, levels=[-12, -8, -5, -3], extent=(-9, 9, -9, 9), colors=style.FAINT, linewidths=0.8)
        axes.scatter(*x.T, s=1.5, color=colour, alpha=0.35, linewidths=0)
        share = float((x.sum(1) > 0).double().mean())
        for where, part in ((5.0, share), (-5.0, 1 - share)):
            axes.text(where - math.copysign(6.2, where), where, f"{part:.3f}", ha="center", va="center", fontsize=11, color=INK)
        style.field(axes)
        axes.set(xlim=(-9, 9), ylim=(-9, 9))
        axes.set_title(title, fontsize=9)
    return figure


def posterior(plt: Any, chains: int = 48, steps: int = 20_000) -> Any:
    """SGLD on the posterior of Welling & Teh (2011, Sec. 5.1): one datum a step, and where the noise takes over."""
    generator = torch.Generator().manual_seed(4)
    kind = torch.rand(100, generator=generator, dtype=torch.float64) < 0.5
    data = math.sqrt(2) * noise_like(torch.empty(100, dtype=torch.float64), generator) + kind
    eps = langevin.polynomial_steps(0.01, 0.0001, steps, 0.55)
    start = noise_like(torch.empty(chains, 2, dtype=torch.float64), generator) * torch.tensor([1.0, 1.0])
    chain = langevin.sgld(_prior, _likelihood, data, start, eps.tolist(), 1, generator=generator)
    axis = torch.linspace(-1.6, 2.6, 141, dtype=torch.float64), torch.linspace(-3.1, 3.1, 141, dtype=torch.float64)
    where = torch.stack(torch.meshgrid(*axis, indexing="xy"), -1).view(-1, 2)
    exact = (log_posterior(where, data) - log_posterior(where, data).max()).exp().view(141, 141)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.2, 3.2), layout="constrained")
    box = (float(axis[0][0]), float(axis[0][-1]), float(axis[1][0]), float(axis[1][-1]))
    late = chain[steps // 10 :: 10].reshape(-1, 2)
    weights = eps[steps // 10 : len(chain) : 10].repeat_interleave(chains)
    counts, _, _ = np.histogram2d(late[:, 0].numpy(), late[:, 1].numpy(), 70, ((box[0], box[1]), (box[2], box[3])), weights=weights.numpy())
    for axes, values, title in ((left, exact.numpy(), "posterior, exact"), (middle, counts.T, f"SGLD, {chains} chains, one datum a step")):
        axes.imshow(values, extent=box, origin="lower", cmap="Blues", aspect="auto", interpolation="bilinear")
        axes.set(xlabel="theta 1", ylabel="theta 2")
        axes.set_title(title, fontsize=9)
    middle.contour(*axis, exact, levels=[0.05, 0.3, 0.7], colors=RED, linewidths=0.8)
    every = torch.unique(torch.logspace(0, math.log10(steps - 1), 60).long())
    theta = chain[every].mean(1, keepdim=True).transpose(0, 1)[0]
    pieces = torch.stack([100 * _likelihood(theta, data[i : i + 1]) for i in range(100)])
    injected = eps[every]
    for k, colour in ((0, BLUE), (1, GOLD)):
        right.plot(every, (eps[every] ** 2 / 4 * pieces[..., k].var(0)), color=colour, label=f"of the gradient of theta {k + 1}")
    right.plot(every, injected, color=INK, ls="--", label="of the injected noise")
    right.set(xscale="log", yscale="log", xlabel="step", ylabel="variance a step")
    right.legend(loc="lower left")
    right.grid(axis="y")
    right.set_title("optimisation at first, sampling at last", fontsize=9)
    return figure


def _prior(theta: Tensor) -> Tensor:
    """theta_1 ~ N(0, 10), theta_2 ~ N(0, 1)."""
    return -theta / torch.tensor([10.0, 1.0], dtype=theta.dtype)


def _likelihood(theta: Tensor, x: Tensor) -> Tensor:
    """Of x ~ N(theta_1, 2) / 2 + N(theta_1 + theta_2, 2) / 2: the sum over x (n,) of gradients, (B, 2)."""
    one, two = x - theta[:, :1], x - theta.sum(1, keepdim=True)
    second = torch.sigmoid((one**2 - two**2) / 4)  # how likely x came from the second
    return torch.stack([((1 - second) * one + second * two).sum(1), (second * two).sum(1)], 1) / 2


def log_posterior(theta: Tensor, x: Tensor) -> Tensor:
    """(B,) up to a constant."""
    prior = -(theta[:, 0] ** 2) / 20 - theta[:, 1] ** 2 / 2
    one, two = x - theta[:, :1], x - theta.sum(1, keepdim=True)
    return prior + torch.logaddexp(-(one**2) / 4, -(two**2) / 4).sum(1)
