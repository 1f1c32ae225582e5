# SPDX-License-Identifier: Apache-2.0
"""`Denoiser`: every score or diffusion model, seen one way, so that each sampler and each loss works for all of them.

A denoiser answers with the posterior mean of the clean sample, E[x0 | x], where x = x0 + sigma * noise. By Tweedie's formula
that is the score: grad log q_sigma(x) = (E[x0 | x] - x) / sigma**2. Networks that were trained on another scale or to predict
something else are adapted here, once: `VPDenoiser` for DDPM and Stable Diffusion, `ScoreDenoiser` for NCSN, `EDMDenoiser` for EDM.
The loops of `scores/` and `diffusion/` share what stands at the end: the check of a schedule, the draw, the guard of each step.

Letters: B samples of any shape `...`; sigma and sigmas in the unit of x0; alpha_bar is diffusers' `alphas_cumprod`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Denoiser(Protocol):
    """`denoise(x, sigma, cond)` and the levels it was trained for. All that samplers and distillation losses know.

    sigmas  (L,) float64, ascending, L >= 1: a ladder, or the ends of a range
    """

    sigmas: Tensor

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """E[x0 | x], shape and dtype of x.

        x      (B, ...), x0 + sigma * noise
        sigma  one number or (B,), > 0, float64 where it matters
        cond   what the model is conditioned on; None is nothing at all
        """
        ...


class Trainable(Denoiser, Protocol):
    """A denoiser that can learn, inside a loop too: what LoRA and variational score distillation train."""

    def loss(self, x0: Tensor, noise: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """(B,): the training loss of its prediction of x0 (B, ...) under noise (B, ...) at levels sigma, one number or (B,)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What an optimiser moves."""
        ...


def score(denoiser: Denoiser, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
    """grad log q_sigma(x | cond), shape of x. Tweedie; Miyasawa 1961, Vincent 2011."""
    s = each(sigma, x)
    return (denoiser.denoise(x, sigma, cond) - x) / s**2


def noise(denoiser: Denoiser, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
    """E[noise | x, cond], shape of x: what an epsilon-network predicts."""
    return (x - denoiser.denoise(x, sigma, cond)) / each(sigma, x)


def each(sigma: Tensor | float, x: Tensor) -> Tensor:
    """sigma, one number or (B,), in x's dtype and shaped to multiply x, (B, ...).

    raises  ValueError for another number of levels, or a level that is not finite and positive
    """
    s = torch.as_tensor(sigma, dtype=torch.float64)
    if s.ndim > 1 or (s.ndim == 1 and len(s) not in (1, len(x))):
        raise ValueError(f"sigma: expected one number or {len(x)}, one a sample, got shape {tuple(s.shape)}")
    if not bool((torch.isfinite(s) & (s > 0)).all()):
        raise ValueError(f"sigma: expected finite positive levels, got {s.tolist()}; a schedule's 0 is where its last step ends")
    return s.to(x).view(-1, *[1] * (x.ndim - 1))


class Adapted(nn.Module):
    """A function as a denoiser: `Adapted(lambda x, sigma, cond: ..., sigmas)`; for closed forms, guidance and inpainting."""

    def __init__(self, function: Callable[[Tensor, Tensor | float, Any], Tensor], sigmas: Tensor) -> None:
        super().__init__()
        self.function, self.sigmas = function, sigmas

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        return self.function(x, sigma, cond)


Predicted = Callable[..., Any]
"""A network: (x_t (B, ...), step (B,), **cond) to its prediction, or to something with `.sample` (diffusers)"""


class VPDenoiser(nn.Module):
    """A network trained on the variance-preserving scale, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, as a `Denoiser`.

    network     (x_t, step, **cond) to eps, v or x0; diffusers' U-Nets are such
    alpha_bar   (T,), descending, in (0, 1): signal left after k + 1 noising steps
    prediction  "eps", "v" or "x0"

    Between the T levels the step is a fraction, linear in log sigma (as k-diffusion does; diffusers' Euler too); beyond the
    ends it stays there. A zero-terminal-SNR schedule enters with its last alpha_bar at 2**-24, as design and diffusers have it.
    source  Ho et al. 2020 (arXiv:2006.11239); v: Salimans & Ho 2022 (arXiv:2202.00512), Sec. 4; EDM's table 1 (arXiv:2206.00364)
    """

    def __init__(self, network: Predicted, alpha_bar: Tensor, prediction: str = "eps") -> None:
        super().__init__()
        if prediction not in ("eps", "v", "x0"):
            raise ValueError(f"prediction: expected eps, v or x0, got {prediction!r}")
        a = alpha_bar.double()
        if a.ndim != 1 or not bool(((a > 0) & (a < 1)).all()) or not bool((a.diff() < 0).all()):
            raise ValueError(
                f"alpha_bar: expected numbers in (0, 1) that fall, got {tuple(alpha_bar.shape)} from {alpha_bar.flatten()[0]:.3g} "
                f"to {alpha_bar.flatten()[-1]:.3g}; a last value of 0 enters as 2**-24"
            )
        self.network, self.prediction = network, prediction
        self.sigmas = sigma_of(a).cpu()

    def step(self, sigma: Tensor | float) -> Tensor:
        """The network's time for noise levels (...): 0 to T - 1, a fraction between two, float64."""
        wanted = torch.as_tensor(sigma, dtype=torch.float64).cpu().log()
        return interpolated(wanted, self.sigmas.log(), torch.arange(len(self.sigmas), dtype=torch.float64))

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = each(sigma, x)
        scale = (1 + s.double() ** 2).sqrt()  # 1 / sqrt(alpha_bar)
        x_t = x / scale
        return clean(self.prediction, self._predicted(x_t, sigma, cond).to(x.device), x_t, alpha_bar_of(s.double())).to(x)

    def loss(self, x0: Tensor, noise: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """(B,): mean over dimensions of |prediction - target|**2, `diffusion.losses.prediction_loss` at any level.

        raises  ValueError for a prediction of another shape
        """
        a = alpha_bar_of(each(sigma, x0).double())
        made = self._predicted((a.sqrt() * x0 + (1 - a).sqrt() * noise).to(x0), sigma, cond)
        if made.shape != x0.shape:
            raise ValueError(f"network: expected a prediction {tuple(x0.shape)}, got {tuple(made.shape)}")
        return (made.to(x0.device) - target(self.prediction, x0, noise, a)).square().flatten(1).mean(1)

    def _predicted(self, x_t: Tensor, sigma: Tensor | float, cond: Any) -> Tensor:
        there = _at_home(self.network, x_t)
        step = self.step(sigma).float().expand(len(x_t)).to(there.device)
        out: Any = self.network(there, step, **(cond or {}))
        made: Tensor = getattr(out, "sample", out)
        return made


class ScoreDenoiser(nn.Module):
    """A noise-conditional score network on the variance-exploding scale as a `Denoiser`.

    network  (x, level (B,) int64, **cond) to the score; level 0 is the *largest* sigma, as NCSN's code has it
    sigmas   (L,), descending or ascending; a sigma between two takes the nearest in log
    source   Song & Ermon 2019 (arXiv:1907.05600)
    """

    def __init__(self, network: Predicted, sigmas: Tensor) -> None:
        super().__init__()
        self.network, self.sigmas = network, sigmas.double().cpu().sort().values

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s = each(sigma, x)
        wanted = torch.as_tensor(sigma, dtype=torch.float64).cpu().reshape(-1)
        nearest = (wanted.log()[:, None] - self.sigmas.log()).abs().argmin(1)
        there = _at_home(self.network, x)
        level = (len(self.sigmas) - 1 - nearest).expand(len(x)).to(there.device)
        return x + s**2 * self.network(there, level, **(cond or {})).to(x)


class EDMDenoiser(nn.Module):
    """A raw network F with EDM's preconditioning: D = c_skip x + c_out F(c_in x, c_noise), c_noise = ln(sigma) / 4.

    network     (c_in x, c_noise (B,), **cond) to F; its input and its training target have variance 1 at every level
    sigma_data  standard deviation of x0
    source      Karras et al. 2022 (arXiv:2206.00364), Table 1
    """

    def __init__(self, network: Predicted, sigma_data: float = 0.5, sigmas: Sequence[float] = (0.002, 80.0)) -> None:
        super().__init__()
        self.network, self.sigma_data = network, sigma_data
        self.sigmas = torch.tensor(sigmas, dtype=torch.float64)

    def denoise(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        s, data = each(sigma, x).double(), self.sigma_data
        total = s**2 + data**2
        there = _at_home(self.network, x / total.sqrt())
        time = (s.log() / 4).flatten().float().expand(len(x)).to(there.device)
        made = self.network(there, time, **(cond or {})).to(x.device)
        return (data**2 / total * x + s * data / total.sqrt() * made).to(x)


def clean(prediction: str, made: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """x0 as a prediction of "eps", "v" or "x0" says it, float64, shape of x_t.

    x_t        sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, (B, ...)
    alpha_bar  float64, shaped to multiply x_t, in (0, 1]; 0 too unless eps is predicted, which then says nothing about x0
    source     v: Salimans & Ho 2022 (arXiv:2202.00512), Sec. 4
    """
    signal, rest = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if prediction == "eps":
        return (x_t.double() - rest * made) / signal
    return signal * x_t - rest * made if prediction == "v" else made.double()


def target(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What a network that predicts "eps", "v" or "x0" should say, shape and dtype of x0; the inverse of `clean`.

    alpha_bar  float64, shaped to multiply x0, in [0, 1]
    source     v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0: Salimans & Ho 2022 (arXiv:2202.00512), Sec. 4
    """
    if prediction not in ("eps", "v", "x0"):
        raise ValueError(f"prediction: expected eps, v or x0, got {prediction!r}")
    if prediction == "v":
        return (alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0).to(x0)
    return noise if prediction == "eps" else x0


def share_of(denoiser: Denoiser, sigma: Tensor | float) -> Tensor:
    """Which share of a denoiser's levels lies below sigma, one number or (B,): 0 at the smallest, 1 at the largest, float64; between two
    levels linear in log sigma. `distill.sds.level` is its inverse."""
    ladder = denoiser.sigmas.double().cpu().log()
    places = torch.arange(len(ladder), dtype=torch.float64) / max(len(ladder) - 1, 1)
    return interpolated(torch.as_tensor(sigma, dtype=torch.float64).cpu().log().reshape(-1), ladder, places)


def interpolated(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """`numpy.interp` at x (...): values (L,) known at `at` (L,), which rises; straight in between, constant beyond the ends."""
    low = (torch.searchsorted(at, x, right=True) - 1).clamp(0, max(len(at) - 2, 0))
    high = (low + 1).clamp(max=len(at) - 1)
    share = ((x - at[low]) / (at[high] - at[low]).clamp(min=1e-300)).clamp(0, 1)
    return values[low] + share * (values[high] - values[low])


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """The level of x_t / sqrt(alpha_bar), sqrt((1 - alpha_bar) / alpha_bar), any shape."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """Inverse of `sigma_of`: 1 / (1 + sigma**2), any shape."""
    return 1 / (1 + sigma**2)


Generators = torch.Generator | Sequence[torch.Generator]
"""one for the batch, or one a sample, which makes each sample independent of the batch it is in"""


def noise_like(like: Tensor, generator: Generators | None) -> Tensor:
    """Standard normal numbers of like's shape (B, ...), dtype and device, drawn where the generator lives.

    raises  ValueError without a generator, or for another number of generators than samples
    """
    if isinstance(generator, torch.Generator):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like)
    if generator is None or len(generator) != len(like):
        got = "none" if generator is None else str(len(generator))
        raise ValueError(f"generator: expected one, or {len(like)}, one a sample, got {got}; noise is drawn here, pass torch.Generator()")
    return torch.stack([noise_like(one, g) for one, g in zip(like, generator, strict=True)])


def descending(sigmas: Tensor) -> list[float]:
    """The levels of a schedule (n + 1,) or a ladder, checked.

    raises  ValueError unless they are finite, fall strictly, and are positive up to the last, which may be 0
    """
    s = torch.as_tensor(sigmas, dtype=torch.float64).cpu()
    if s.ndim != 1 or not len(s) or not bool(torch.isfinite(s).all()):
        raise ValueError(f"sigmas: expected finite levels (n + 1,), got shape {tuple(s.shape)}: {s.flatten()[:5].tolist()}")
    if not bool((s.diff() < 0).all()) or s[-1] < 0:
        raise ValueError(
            f"sigmas: expected levels that fall to 0 or above, got {s.tolist()[:8]}; sort them, largest first, without repeats"
        )
    return [float(level) for level in s]


def ask(denoiser: Denoiser, x: Tensor, sigma: float, cond: Any, step: int) -> Tensor:
    """`denoiser.denoise`, which must give finite numbers of x's shape.

    raises  ValueError that names the step and the level
    """
    denoised = denoiser.denoise(x, sigma, cond)
    if denoised.shape != x.shape:
        raise ValueError(f"step {step}, sigma {sigma:.4g}: expected a denoised {tuple(x.shape)}, got {tuple(denoised.shape)}")
    if not bool(torch.isfinite(denoised).all()):
        raise ValueError(
            f"step {step}, sigma {sigma:.4g}: the denoiser gave non-finite numbers; lower guidance or step size, or use --precision fp32"
        )
    return denoised


def _at_home(network: Any, x: Tensor) -> Tensor:
    """x where a network computes, and in what it computes: as its parameters; a function without parameters takes x as it is.

    So samplers keep their float64 state wherever the caller drew it, on the CPU as a rule, and only networks need a GPU.
    """
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    first = next(parameters, None)
    return x if first is None else x.to(first)
