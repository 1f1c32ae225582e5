# SPDX-License-Identifier: Apache-2.0
"""Langevin dynamics: sampling by the score, and by the stochastic gradients of a posterior.

Convention A throughout, as in the notes and the NCSN paper: x + eps / 2 * score + sqrt(eps) * z. Released image samplers and NCSNv2
write B, x + alpha * score + sqrt(2 alpha) * z; `from_b` turns their numbers into ours.

With fixed eps the law that the chain settles on is biased, variance lambda / (1 - eps / 4 lambda) for a Gaussian's lambda; it is
exact as eps falls to 0 *and* steps * eps grows without limit. `mala` removes the bias by rejection.

Sources: Roberts & Tweedie 1996 (ULA, MALA); Welling & Teh 2011 (SGLD). Letters: N data, n of them in a batch, theta parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from bozzetto.denoiser import Generators, noise_like

Score = Callable[[Tensor], Tensor]


def from_b(alpha: float) -> float:
    """The eps of convention A that is the alpha of convention B."""
    return 2 * alpha


def langevin_step(x: Tensor, score: Tensor, eps: Tensor | float, z: Tensor | None) -> Tensor:
    """x + eps / 2 * score + sqrt(eps) * z, shape of x (B, ...); z is standard normal, None leaves it out: gradient ascent.

    eps  one number, or one a sample shaped to multiply x
    """
    if score.shape != x.shape:
        raise ValueError(f"score: expected {tuple(x.shape)}, got {tuple(score.shape)}")
    e = torch.as_tensor(eps, dtype=torch.float64).to(x)
    moved = x + e / 2 * score
    return moved if z is None else moved + e.sqrt() * z


@torch.no_grad()
def ula(score: Score, x: Tensor, eps: float, steps: int, *, generator: Generators | None) -> Tensor:
    """Unadjusted: x (B, ...) after so many steps; generator None leaves the noise out.

    raises  ValueError for a non-finite score, naming the step
    """
    _positive(eps)
    for i in range(steps):
        s = score(x)
        if not bool(torch.isfinite(s).all()):
            raise ValueError(f"step {i}: the score is not finite; take a smaller eps than {eps}")
        x = langevin_step(x, s, eps, None if generator is None else noise_like(x, generator))
    return x


@torch.no_grad()
def mala(log_density: Score, x: Tensor, eps: float, steps: int, *, generator: torch.Generator) -> tuple[Tensor, float]:
    """Metropolis-adjusted: x (B, D) after so many steps, exact in the limit for any eps, and the share of steps accepted.

    log_density  (B, D) to (B,), up to a constant, differentiable
    """
    _positive(eps)
    log_p, s = _with_gradient(log_density, x)
    accepted = 0.0
    for i in range(steps):
        new = langevin_step(x, s, eps, noise_like(x, generator))
        new_log_p, new_s = _with_gradient(log_density, new)
        back, there = (x - new - eps / 2 * new_s).square().sum(1), (new - x - eps / 2 * s).square().sum(1)
        log_ratio = new_log_p - log_p + (there - back) / (2 * eps)
        u = torch.rand(len(x), generator=generator, dtype=torch.float64, device=generator.device).to(x)
        if bool(torch.isnan(log_ratio).any()):
            raise ValueError(f"step {i}: the log-density is not a number; it must be finite, or -inf outside its support")
        is_taken = u.log() < log_ratio
        x, s = torch.where(is_taken[:, None], new, x), torch.where(is_taken[:, None], new_s, s)
        log_p = torch.where(is_taken, new_log_p, log_p)
        accepted += float(is_taken.double().mean())
    return x, accepted / max(steps, 1)


def polynomial_steps(start: float, end: float, steps: int, gamma: float = 0.55) -> Tensor:
    """eps_t = a (b + t)**-gamma from start, at t = 0, to end, at t = steps; (steps + 1,) float64. Welling & Teh 2011, Sec. 4.

    raises  ValueError unless 1/2 < gamma <= 1: below, the sum of squares diverges (noise never dies out); above, the sum
            converges (the chain stops short)
    """
    if not 0.5 < gamma <= 1:
        raise ValueError(f"gamma: expected a number in (1/2, 1], got {gamma}; the sum of eps must diverge, that of eps**2 converge")
    if not 0 < end < start or steps < 1:
        raise ValueError(f"eps: expected 0 < end < start and steps >= 1, got {start}, {end}, {steps}")
    b = steps / ((start / end) ** (1 / gamma) - 1)
    return start * (1 + torch.arange(steps + 1, dtype=torch.float64) / b) ** -gamma


def minibatch_gradient(
    grad_prior: Score, grad_likelihood: Callable[[Tensor, Tensor], Tensor], theta: Tensor, batch: Tensor, N: int
) -> Tensor:
    """grad log prior + N / n * sum of the batch's grad log-likelihoods, shape of theta: unbiased for the posterior's gradient.

    grad_likelihood  (theta, batch (n, ...)) to the *sum* over the batch
    """
    return grad_prior(theta) + N / len(batch) * grad_likelihood(theta, batch)


@torch.no_grad()
def sgld(
    grad_prior: Score,
    grad_likelihood: Callable[[Tensor, Tensor], Tensor],
    data: Tensor,
    theta: Tensor,
    eps: Iterable[float],
    n: int,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Stochastic gradient Langevin dynamics from theta (B, P): the chain after each step, (steps, B, P).

    data    (N, ...); each chain step draws n of them anew, without replacement, for all B chains alike
    eps     a step size for each step; posterior means weight the chain by it where it falls
    raises  ValueError for non-finite parameters, naming the step
    """
    N = len(data)
    if not 1 <= n <= N:
        raise ValueError(f"n: expected a batch of 1 to {N}, got {n}")
    chain = []
    for i, e in enumerate(eps):
        _positive(float(e))
        picked = torch.randperm(N, generator=generator, device=generator.device)[:n].to(data.device)
        gradient = minibatch_gradient(grad_prior, grad_likelihood, theta, data[picked], N)
        theta = langevin_step(theta, gradient, float(e), noise_like(theta, generator))
        if not bool(torch.isfinite(theta).all()):
            raise ValueError(f"step {i}: parameters are not finite; take a smaller eps than {float(e):.3g}")
        chain.append(theta)
    return torch.stack(chain)


def _with_gradient(log_density: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = log_density(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def _positive(eps: float) -> None:
    if not 0 < eps < math.inf:
        raise ValueError(f"eps: expected a step size above 0, got {eps}")
