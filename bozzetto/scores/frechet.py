# SPDX-License-Identifier: Apache-2.0
"""The Fréchet distance between two sets of features, seen as Gaussians: |m_1 - m_2|**2 + tr(C_1 + C_2 - 2 (C_1 C_2)**(1/2)).

On Inception's 2048 features it is called FID (Heusel et al. 2017, arXiv:1706.08500); on any other net it is not, and numbers of two
nets do not compare. Few samples make it larger (check FID-2), so two sets of real pictures stand beside it as what to expect.
Letters: N samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet(x: Tensor, y: Tensor) -> float:
    """The squared 2-Wasserstein distance of the two Gaussians, features (N, D) and (M, D), in the features' unit squared.

    raises  ValueError for other shapes or fewer than two samples
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features: expected (N, D) and (M, D), N and M at least 2, got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = x.double(), y.double()
    return frechet_of(x.mean(0), covariance(x), y.mean(0), covariance(y))


def frechet_of(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> float:
    """Of means (D,) and covariances (D, D).

    tr (C_1 C_2)**(1/2) comes from the eigenvalues of C_1**(1/2) C_2 C_1**(1/2), which is symmetric: so singular covariances, of
    fewer samples than features, do no harm, where a root of C_1 C_2 turns complex.
    """
    values, vectors = torch.linalg.eigh(cov_1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp(min=0).sqrt().sum()
    return float((mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross)


def covariance(x: Tensor) -> Tensor:
    """(D, D) of samples (N, D), divided by N - 1."""
    off = x - x.mean(0)
    return off.T @ off / (len(x) - 1)


def finite_sample_bias(cov: Tensor, N: int) -> float:
    """What N samples of a Gaussian are expected to lie from that very Gaussian, to first order in 1 / N.

    tr C / N for the mean, 1 / (N - 1) sum_ij l_i l_j (1 + d_ij) / (2 (l_i + l_j)) for the covariance, l the eigenvalues of C
    """
    values = torch.linalg.eigvalsh(cov.double()).clamp(min=0)
    pairs = values[:, None] * values / (2 * (values[:, None] + values)).clamp(min=1e-300)  # 0 / 0 where both are 0: no spread, no bias
    return float(values.sum() / N + (pairs.sum() + pairs.diagonal().sum()) / (N - 1))
