# SPDX-License-Identifier: Apache-2.0
"""Training losses of denoisers, per sample, means over dimensions; the caller averages.

Two forms. `prediction_loss` is the native one of variance-preserving networks, in what they predict: no digits are lost at small
noise. `denoising_loss` is any denoiser's, |denoised - x0|**2 with a weight. They agree, since all predictions are linear in x0:
|eps error|**2 = |x0 error|**2 / sigma**2 and |v error|**2 = |x0 error|**2 (1 + 1 / sigma**2).

Letters: B samples (B, ...); alpha_bar (T,) of the training schedule; k (B,) int64 the steps drawn; SNR = 1 / sigma**2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bozzetto.denoiser import Denoiser, Predicted, each, noise_like
from bozzetto.denoiser import target as _target


def noised(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, alpha_bar (B,) in [0, 1]; Ho et al. 2020 (arXiv:2006.11239), Eq. 4."""
    a = wide(alpha_bar, x0)
    return (a.sqrt() * x0 + (1 - a).sqrt() * noise).to(x0)


def target(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What a network that predicts "eps", "v" or "x0" should have said, shape of x0; alpha_bar (B,).

    source  v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0: Salimans & Ho 2022 (arXiv:2202.00512), Sec. 4
    """
    return _target(prediction, x0, noise, wide(alpha_bar, x0))


def prediction_loss(
    network: Predicted,
    x0: Tensor,
    noise: Tensor,
    k: Tensor,
    alpha_bar: Tensor,
    prediction: str = "eps",
    cond: Mapping[str, Any] | None = None,
) -> Tensor:
    """(B,): mean over dimensions of |prediction - target|**2. With "eps" it is DDPM's L_simple.

    network  (x_t, k (B,), **cond) to its prediction, see `VPDenoiser`
    """
    a = alpha_bar.to(x0.device)[k]
    out: Any = network(noised(x0, noise, a), k, **(cond or {}))
    made: Tensor = getattr(out, "sample", out)
    if made.shape != x0.shape:
        raise ValueError(f"network: expected a prediction {tuple(x0.shape)}, got {tuple(made.shape)}")
    return _mean(made - target(prediction, x0, noise, a))


def denoising_loss(denoiser: Denoiser, x0: Tensor, noise: Tensor, sigma: Tensor, weight: Tensor | float = 1.0, cond: Any = None) -> Tensor:
    """(B,): weight times the mean over dimensions of |denoised - x0|**2; sigma and weight (B,) or one number."""
    denoised = denoiser.denoise(x0 + each(sigma, x0) * noise, sigma, cond)
    return torch.as_tensor(weight, dtype=torch.float64).to(x0) * _mean(denoised - x0)


def edm_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """(sigma**2 + sigma_data**2) / (sigma sigma_data)**2: makes the loss 1 for an untrained network at every level. EDM, Table 1."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def edm_sigma(count: int, mean: float = -1.2, std: float = 1.2, *, generator: torch.Generator) -> Tensor:
    """(count,) float64 levels of training, ln sigma ~ N(mean, std**2). EDM, Table 1."""
    return (mean + std * noise_like(torch.zeros(count, dtype=torch.float64), generator)).exp()


def snr_weight(prediction: str, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """The factor on the loss in `prediction` that weights |x0 error|**2 by min(SNR, gamma), shape of sigma.

    That weight is divided by what the prediction brings along: 1 for "x0", SNR for "eps", SNR + 1 for "v".
    source  Hang et al. 2023 (arXiv:2303.09556), Sec. 3.4
    """
    snr = 1 / sigma**2
    if prediction not in ("x0", "eps", "v"):
        raise ValueError(f"prediction: expected eps, v or x0, got {prediction!r}")
    brought = {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[prediction]
    return snr.clamp(max=gamma) / brought


def draw_steps(count: int, T: int, *, generator: torch.Generator) -> Tensor:
    """(count,) int64, even in [0, T)."""
    return torch.randint(T, (count,), generator=generator, device=generator.device)


def wide(a: Tensor, x: Tensor) -> Tensor:
    """Numbers (B,), one a sample, in float64 and shaped to multiply x; float64 because 1 - alpha_bar loses its digits in float32."""
    if a.shape != x.shape[:1]:
        raise ValueError(f"expected {len(x)} numbers, one a sample, got shape {tuple(a.shape)}")
    return a.double().to(x.device).view(-1, *[1] * (x.ndim - 1))


def _mean(error: Tensor) -> Tensor:
    return error.square().flatten(1).mean(1)
