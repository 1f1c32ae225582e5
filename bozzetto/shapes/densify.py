# SPDX-License-Identifier: Apache-2.0
"""How many Gaussians, and where: the published densification, and Markov chain Monte Carlo instead.

`Densify`: Kerbl et al. 2023 (arXiv:2308.04079), Sec. 5. Where the gradient to a Gaussian's projected centre is large, small
ones are cloned and large ones split in two; faint ones are pruned; all opacities are lowered now and then. `Mcmc`: Kheradmand et al. 2024
(arXiv:2404.09591): means are shaken by noise, faint Gaussians are moved onto strong ones, which are thinned so that the picture
stays, and the number grows by 5 % at a time up to a limit.

Differs from the released code: clones and splits of one pass are found before either is made, and the size in pixels never prunes
(in the released code it never did, by mistake).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from bozzetto.camera import rotations
from bozzetto.kernels.splat import Splats
from bozzetto.shapes.gaussians import NAMES, Gaussians

SPLIT = 1.6  # children are this much smaller
MCMC_MIN_OPACITY = 0.005
MCMC_NOISE = 5e5
MCMC_FIRST = (0.5, 0.1)  # opacity and width that the Gaussians begin with: its noise would throw wide and faint ones far away
MAX_COPIES = 51  # of one Gaussian at a time


@dataclass(frozen=True)
class DensifySchedule:
    """When densification happens; defaults as published, for 30,000 steps."""

    start: int = 500
    """first step"""
    stop: int = 15_000
    """the first step without; the last pass is before it"""
    every: int = 100
    """steps between two passes"""
    reset_every: int = 3_000
    """steps between two resets of opacities; sizes are pruned after the first"""
    threshold: float = 2e-4
    """mean length of the gradient to a projected centre over the pictures that it is in, in units where the picture is 2 wide and high"""
    small: float = 0.01
    """of the extent: what is smaller is cloned, what is larger is split"""
    min_opacity: float = 0.005
    """fainter ones are dropped"""
    max_size: float = 0.1
    """of the extent: larger ones are dropped"""
    reset_to: float = 0.01
    """the highest opacity after a reset"""
    do: tuple[Literal["clone", "split"], ...] = ("clone", "split")
    """which of the two to do; for ablations"""
    max_count: int = 1_000_000
    """never more than this"""

    def scaled(self, factor: float) -> DensifySchedule:
        """The same course in `factor` times the steps."""
        times = {k: max(1, round(getattr(self, k) * factor)) for k in ("start", "stop", "every", "reset_every")}
        return DensifySchedule(**{**self.__dict__, **times})


@dataclass
class Densify:
    """Sums between two passes: of gradients, `pull` (N,), and of pictures that a Gaussian was in, `visits` (N,)."""

    schedule: DensifySchedule
    extent: float
    pull: Tensor = field(default_factory=lambda: torch.zeros(0))
    visits: Tensor = field(default_factory=lambda: torch.zeros(0))

    def watch(self, s: Splats, size: tuple[int, int]) -> None:
        """After backward: add up the gradients to the projected centres; `s.xy` must have kept its gradient."""
        n = s.xy.shape[1]
        if len(self.pull) != n:
            self.pull, self.visits = torch.zeros(n), torch.zeros(n)
        if s.xy.grad is not None:
            half = s.xy.new_tensor([size[1] / 2, size[0] / 2])  # the threshold counts in pictures 2 wide, not in pixels
            self.pull += torch.where(s.drawn, (s.xy.grad * half).norm(dim=-1), 0).sum(0).cpu()
            self.visits += s.drawn.sum(0).cpu()  # hidden ones count: a mean over the pictures that it is in, as released

    def after_step(self, g: Gaussians, optimiser: torch.optim.Adam, step: int, *, generator: torch.Generator) -> dict[str, int]:
        """What the schedule wants at this step (the first is 1); how many were cloned, split and pruned."""
        c, counts = self.schedule, {"cloned": 0, "split": 0, "pruned": 0}
        if c.start < step < c.stop and step % c.every == 0 and len(self.pull) == len(g):
            counts = self.densify(g, optimiser, prune_large=step > c.reset_every, generator=generator)
        if step < c.stop and step % c.reset_every == 0:
            reset_opacities(g, optimiser, c.reset_to)
        return counts

    def densify(self, g: Gaussians, optimiser: torch.optim.Adam, *, prune_large: bool, generator: torch.Generator) -> dict[str, int]:
        """One pass: N' = N + cloned + split - pruned, a split being two for one."""
        c, size = self.schedule, g.scales.detach().amax(-1)
        mean = self.pull / self.visits.clamp(min=1)
        hot = mean > c.threshold
        if int(hot.sum()) > (room := max(c.max_count - len(g), 0)):  # each adds one: the hottest go first
            hot = torch.zeros_like(hot).scatter(0, mean.argsort(descending=True, stable=True)[:room], True)
        is_small = size <= c.small * self.extent
        clone, divide = hot & is_small & ("clone" in c.do), hot & ~is_small & ("split" in c.do)
        added = {name: getattr(g, name).detach()[clone] for name in NAMES}
        children = {name: getattr(g, name).detach()[divide].repeat(2, *[1] * (getattr(g, name).ndim - 1)) for name in NAMES}
        scales = children["log_scales"].exp()
        offset = torch.randn(scales.shape, generator=generator) * scales
        children["means"] = children["means"] + (rotations(children["quats"]) @ offset[..., None])[..., 0]
        children["log_scales"] = (scales / SPLIT).log()
        g.replace_rows(optimiser, ~divide, {name: torch.cat([added[name], children[name]]) for name in NAMES})
        faint = g.opacities.detach() < c.min_opacity
        if prune_large:
            faint |= g.scales.detach().amax(-1) > c.max_size * self.extent
        if not faint.all():  # an empty scene would never come back
            g.replace_rows(optimiser, ~faint)
        self.pull, self.visits = torch.zeros(len(g)), torch.zeros(len(g))
        return {"cloned": int(clone.sum()), "split": int(divide.sum()), "pruned": 0 if faint.all() else int(faint.sum())}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return {"pull": self.pull, "visits": self.visits}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.pull, self.visits = state["pull"], state["visits"]


def reset_opacities(g: Gaussians, optimiser: torch.optim.Adam, highest: float) -> None:
    """o <- min(o, highest), and forget the moments."""
    with torch.no_grad():
        g.logit_opacities.clamp_(max=math.log(highest / (1 - highest)))
    forget(optimiser, "logit_opacities", torch.arange(len(g)))


def forget(optimiser: torch.optim.Adam, name: str, rows: Tensor) -> None:
    """Set Adam's moments of some rows to 0."""
    for group in optimiser.param_groups:
        if group["name"] == name and (state := optimiser.state.get(group["params"][0])):
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment][rows] = 0


@dataclass
class Mcmc:
    """Relocation and noise; nothing is remembered between passes."""

    schedule: DensifySchedule
    extent: float
    growth: float = 1.05

    def watch(self, s: Splats, size: tuple[int, int]) -> None:
        """Needs no gradients."""

    def regulariser(self, g: Gaussians) -> Tensor:
        """0.01 mean(o) + 0.01 mean(scales): what the paper adds to the loss, so that unneeded Gaussians fade."""
        return 0.01 * g.opacities.mean() + 0.01 * g.scales.mean()

    def after_step(self, g: Gaussians, optimiser: torch.optim.Adam, step: int, *, generator: torch.Generator) -> dict[str, int]:
        """Relocate and grow as the schedule says, and shake; how many were moved and added."""
        c, counts = self.schedule, {"moved": 0, "added": 0}
        if c.start < step < c.stop and step % c.every == 0:
            counts = {"moved": self.relocate(g, optimiser, generator=generator), "added": self.grow(g, optimiser, generator=generator)}
        rate = next(group["lr"] for group in optimiser.param_groups if group["name"] == "means")
        self.shake(g, rate, generator=generator)
        return counts

    def relocate(self, g: Gaussians, optimiser: torch.optim.Adam, *, generator: torch.Generator) -> int:
        """Faint Gaussians become copies of others, drawn by opacity; the copied ones are thinned and forget their moments."""
        o = g.opacities.detach()
        dead = (o <= MCMC_MIN_OPACITY).nonzero()[:, 0]
        alive = (o > MCMC_MIN_OPACITY).nonzero()[:, 0]
        if not len(dead) or not len(alive):
            return 0
        source = alive[torch.multinomial(o[alive], len(dead), replacement=True, generator=generator)]
        self._thin(g, source)
        with torch.no_grad():
            for name in NAMES:
                p = getattr(g, name)
                p[dead] = p[source]
        for name in NAMES:
            forget(optimiser, name, source)
        return len(dead)

    def grow(self, g: Gaussians, optimiser: torch.optim.Adam, *, generator: torch.Generator) -> int:
        """5 % more, as copies drawn by opacity."""
        n = min(int(len(g) * self.growth), self.schedule.max_count) - len(g)
        if n <= 0:
            return 0
        source = torch.multinomial(g.opacities.detach(), n, replacement=True, generator=generator)
        self._thin(g, source)
        g.replace_rows(optimiser, torch.arange(len(g)), {name: getattr(g, name).detach()[source] for name in NAMES})
        return n

    @staticmethod
    def _thin(g: Gaussians, source: Tensor) -> None:
        """Opacity and size of each source, for itself and all its copies together to look as it did alone (Eq. 9)."""
        rows, times = torch.unique(source, return_counts=True)
        times = (times + 1).clamp(max=MAX_COPIES)
        with torch.no_grad():
            o, factor = thinned(g.opacities[rows].double(), times)
            g.logit_opacities[rows] = torch.logit(o.clamp(MCMC_MIN_OPACITY, 1 - 1e-7)).float()
            g.log_scales[rows] += factor.log().float()[:, None]

    def shake(self, g: Gaussians, rate: float, *, generator: torch.Generator) -> None:
        """Langevin noise on the means: along each Gaussian's own covariance, strong only where it is faint (Eq. 8)."""
        with torch.no_grad():
            gate = torch.sigmoid(-100 * (g.opacities - MCMC_MIN_OPACITY))[:, None]
            noise = torch.randn(g.means.shape, generator=generator) * gate * MCMC_NOISE * rate
            M = rotations(g.quats) * g.scales[:, None]
            g.means.add_((M @ (M.mT @ noise[..., None]))[..., 0])

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing."""


def thinned(opacity: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity and the factor on the scales of each of `times` (M,) equal Gaussians that stand for one of `opacity` (M,).

    1 - (1 - o')^T = o, and the integral of the alpha of all along a line through the centre is that of the one:
    o / factor = sum_{i=1}^{T} sum_{k=0}^{i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1). Float64: the sum alternates.
    """
    new = 1 - (1 - opacity) ** times.to(opacity).reciprocal()
    total = torch.zeros_like(opacity)
    for i in range(1, int(times.max()) + 1):
        part = torch.zeros_like(opacity)
        for k in range(i):
            part += math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1)
        total += torch.where(times >= i, part, 0)
    return new, opacity / total


Strategy = Densify | Mcmc
