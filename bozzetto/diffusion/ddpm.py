# SPDX-License-Identifier: Apache-2.0
"""DDPM on its own scale: both chains in closed form, the whole variational bound, and sampling with any reverse variance.

    q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I),   q(x_{t-1} | x_t, x_0) = N(mu~_t(x_0, x_t), beta~_t I)
    -log p(x_0) <= L_T + sum_{t=2}^T L_{t-1} + L_0                  (derived in docs/diffusion.md)

What a `Denoiser` cannot say stays here: clipping of x0, fixed and learned variances, and an alpha_bar that ends at exactly 0.
Source: Ho, Jain & Abbeel 2020 (arXiv:2006.11239); learned variances: Nichol & Dhariwal 2021 (arXiv:2102.09672), Eq. 15.

Letters: T steps; k = t - 1 = 0 .. T - 1 their index; B samples (B, ...); D dimensions of one. All bounds are in nats.
Differs from the released code: the decoder's normal CDF is exact, not a tanh fit; x0 is not clipped unless asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bozzetto.denoiser import Generators, Predicted, clean, noise_like
from bozzetto.diffusion.losses import noised, wide

Variance = Literal["small", "large", "learned"] | Tensor
"""beta~, beta, a network's second half of channels, or sigma**2 (T,) as given"""


@dataclass(frozen=True)
class Process:
    """What follows from the betas, each (T,) float64. `process` and `process_of` make it.

    alpha_bar_before  alpha_bar of the step before, 1 at k = 0
    beta_tilde        variance of q(x_{t-1} | x_t, x_0), 0 at k = 0
    on_x0, on_x_t     mu~ = on_x0 * x_0 + on_x_t * x_t
    """

    betas: Tensor
    alpha_bar: Tensor
    alpha_bar_before: Tensor
    beta_tilde: Tensor
    on_x0: Tensor
    on_x_t: Tensor

    def __len__(self) -> int:
        return len(self.betas)

    def variances(self, variance: Literal["small", "large"]) -> Tensor:
        """(T,), fixed, never 0: at k = 0 both take beta~ of k = 1, as the released code does, so that a logarithm exists."""
        chosen = (self.betas if variance == "large" else self.beta_tilde).clone()
        chosen[0] = self.beta_tilde[1] if len(self) > 1 else self.betas[0]
        return chosen


def process(betas: Tensor) -> Process:
    """Of betas (T,) in (0, 1], in any order of size; a last 1 is a zero terminal signal. ValueError otherwise."""
    b = betas.double().cpu()
    if b.ndim != 1 or not len(b) or not bool(((b > 0) & (b <= 1)).all()):
        raise ValueError(f"betas: expected numbers in (0, 1], got {tuple(b.shape)}: {b.flatten()[:5].tolist()}")
    a = (1 - b).cumprod(0)
    before = torch.cat([a.new_ones(1), a[:-1]])
    return Process(b, a, before, b * (1 - before) / (1 - a), before.sqrt() * b / (1 - a), (1 - b).sqrt() * (1 - before) / (1 - a))


def process_of(alpha_bar: Tensor) -> Process:
    """Of what is left of the signal, (T,), falling, in [0, 1)."""
    a = alpha_bar.double().cpu()
    return process(1 - a / torch.cat([a.new_ones(1), a[:-1]]))


def posterior_mean(p: Process, x0: Tensor, x_t: Tensor, k: Tensor) -> Tensor:
    """mu~ of q(x_{t-1} | x_t, x_0), shape of x_t; k (B,). Ho et al., Eq. 7. Its variance is p.beta_tilde[k]."""
    return (wide(p.on_x0[k], x_t) * x0 + wide(p.on_x_t[k], x_t) * x_t).to(x_t)


def reverse(
    p: Process,
    network: Predicted,
    x_t: Tensor,
    k: Tensor,
    *,
    prediction: str = "eps",
    variance: Variance = "large",
    clip: float | None = None,
    cond: Mapping[str, Any] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and log-variance of p(x_{t-1} | x_t), and the x0 behind them, shape of x_t each (log-variance: or broadcast).

    network     (x_t, k (B,), **cond) to eps, v or x0; with learned variance, to twice the channels (dimension 1)
    variance    see `Variance`; learned: log sigma**2 = nu log beta + (1 - nu) log beta~, nu = (output + 1) / 2; only beta~, 0 at
                k = 0, is replaced there
    clip        bound on |x0|; None is none, which closed forms need
    """
    out: Any = network(x_t, k, **(cond or {}))
    made: Tensor = getattr(out, "sample", out)
    is_learned = isinstance(variance, str) and variance == "learned"
    if made.shape != (len(x_t), x_t.shape[1] * (2 if is_learned else 1), *x_t.shape[2:]):
        raise ValueError(
            f"network: expected {'twice the channels' if is_learned else 'the shape'} of {tuple(x_t.shape)}, got {tuple(made.shape)}"
        )
    if is_learned:
        made, fraction = made.chunk(2, 1)
        large, small = (wide(v[k].log(), x_t) for v in (p.betas, p.variances("small")))  # beta itself at k = 0, too
        log_variance = (small + (fraction + 1) / 2 * (large - small)).to(x_t)
    elif isinstance(variance, Tensor):
        log_variance = wide(variance[k].log(), x_t).to(x_t)
    else:
        log_variance = wide(p.variances(variance)[k].log(), x_t).to(x_t)  # type: ignore[arg-type]
    x0 = clean(prediction, made, x_t, wide(p.alpha_bar[k], x_t)).to(x_t)
    if clip is not None:
        x0 = x0.clamp(-clip, clip)
    return posterior_mean(p, x0, x_t, k), log_variance, x0


@torch.no_grad()
def sample(p: Process, network: Predicted, x_T: Tensor, *, generator: Generators, **choices: Any) -> Tensor:
    """x_0 from x_T ~ N(0, I), float64 within, dtype of x_T; the last step is the mean alone. Ho et al., Alg. 2.

    choices  as `reverse` takes them
    raises   ValueError for non-finite numbers, with the step
    """
    x = x_T.double()
    for k in range(len(p) - 1, -1, -1):
        mean, log_variance, _ = reverse(p, network, x, torch.full((len(x),), k, device=x.device), **choices)
        if not bool(torch.isfinite(mean).all()):
            level = float(p.alpha_bar[k])
            raise ValueError(f"step {k}, alpha_bar {level:.4g}: the network gave non-finite numbers; clip x0, or run it in float32")
        x = mean + (log_variance / 2).exp() * noise_like(x, generator) if k > 0 else mean
    return x.to(x_T.dtype)


def gaussian_kl(mean_1: Tensor, log_var_1: Tensor, mean_2: Tensor, log_var_2: Tensor) -> Tensor:
    """KL(N_1 || N_2) of each dimension, nats; shapes broadcast."""
    return (log_var_2 - log_var_1 + (log_var_1 - log_var_2).exp() + (mean_1 - mean_2) ** 2 * (-log_var_2).exp() - 1) / 2


def prior_term(p: Process, x0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x_0) || N(0, I)), (B,) nats, sum over dimensions."""
    a = p.alpha_bar[-1]
    zero = torch.zeros((), dtype=torch.float64)
    return gaussian_kl(a.sqrt().to(x0) * x0, torch.log1p(-a).to(x0), zero.to(x0), zero.to(x0)).flatten(1).sum(1)


def decoder_nll(x0: Tensor, mean: Tensor, log_variance: Tensor, levels: int = 256) -> Tensor:
    """-log of the mass that N(mean, variance) has in x0's bin, each dimension, nats. Ho et al., Eq. 13.

    x0  on the levels 2 j / (levels - 1) - 1 in [-1, 1]; a bin is one level wide, the outermost go to infinity

    A bin far out in a tail is a difference of two equal numbers: there it is taken from the other side, by symmetry, and in
    logarithms, so that no bin has probability 0.
    """
    half = 1 / (levels - 1)
    inverse = (-log_variance / 2).exp()
    low, high = (x0 - half - mean) * inverse, (x0 + half - mean) * inverse
    low = torch.where(x0 < -1 + half, -torch.inf, low)
    high = torch.where(x0 > 1 - half, torch.inf, high)
    is_above = low + high > 0  # mirrored, both ends lie where the lower tail is small
    low, high = torch.where(is_above, -high, low), torch.where(is_above, -low, high)
    top = torch.special.log_ndtr(high)
    return -(top + torch.log(-torch.expm1((torch.special.log_ndtr(low) - top).clamp(max=-torch.finfo(x0.dtype).tiny))))


def gaussian_nll(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log N(x0; mean, variance), each dimension, nats: the decoder for data that is not on levels."""
    return ((x0 - mean) ** 2 * (-log_variance).exp() + log_variance + math.log(2 * math.pi)) / 2


def bound_term(p: Process, network: Predicted, x0: Tensor, noise: Tensor, k: Tensor, *, levels: int | None = 256, **choices: Any) -> Tensor:
    """One term of the bound for each sample, (B,) nats, sum over dimensions: L_{t-1}, t = k + 1, or L_0 where k = 0.

    noise    what makes x_t of x0, shape of x0
    levels   of the discretised decoder; None takes the continuous one
    choices  as `reverse` takes them
    source   L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), Ho et al., Eq. 5
    """
    x_t = noised(x0, noise, p.alpha_bar[k])
    mean, log_variance, _ = reverse(p, network, x_t, k, **choices)
    true_log = wide(p.variances("small")[k].log(), x0).to(x0)  # at k = 0 a stand-in, not used
    kl = gaussian_kl(posterior_mean(p, x0, x_t, k), true_log, mean, log_variance)
    first = gaussian_nll(x0, mean, log_variance) if levels is None else decoder_nll(x0, mean, log_variance, levels)
    is_first = (k == 0).view(-1, *[1] * (x0.ndim - 1))
    return torch.where(is_first, first, kl).flatten(1).sum(1)


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p(x0): L_T (B,), and L_0 with every L_{t-1}, (B, T), nats."""

    prior: Tensor
    terms: Tensor

    def nats(self) -> Tensor:
        """(B,)"""
        return self.prior + self.terms.sum(1)

    def bits_per_dim(self, D: int) -> Tensor:
        """(B,), of samples with D dimensions."""
        return self.nats() / (D * math.log(2))


@torch.no_grad()
def bound(p: Process, network: Predicted, x0: Tensor, *, generator: Generators, levels: int | None = 256, **choices: Any) -> Bound:
    """The whole bound, T calls of the network, fresh noise for each: an unbiased estimate. Choices as `reverse` takes them."""
    terms = []
    for k in range(len(p)):
        step = torch.full((len(x0),), k, device=x0.device)
        terms.append(bound_term(p, network, x0, noise_like(x0, generator), step, levels=levels, **choices))
    return Bound(prior_term(p, x0), torch.stack(terms, 1))
