# SPDX-License-Identifier: Apache-2.0
"""Colours that change with the direction they are seen from: real spherical harmonics to degree 3.

Kerbl et al. 2023 (arXiv:2308.04079), Sec. 4, in the order and with the signs of its released code (and so of every `.ply` of
Gaussians): within degree l from m = -l to l, times (-1)^m. The basis is orthonormal on the sphere.

Letters: K = (degree + 1)^2 coefficients a colour, Y basis functions, d = (x, y, z) unit direction from the camera to the Gaussian.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DEGREE = 3
_A0, _A1 = math.sqrt(1 / (4 * math.pi)), math.sqrt(3 / (4 * math.pi))
_A2 = tuple(math.sqrt(k / math.pi) / 4 for k in (60, 5, 15))
_A3 = tuple(math.sqrt(k / math.pi) / 4 for k in (35 / 2, 420, 21 / 2, 7, 105))


def basis(directions: Tensor, degree: int = DEGREE) -> Tensor:
    """Y (..., (degree + 1)^2) of unit directions (..., 3)."""
    if not 0 <= degree <= DEGREE:
        raise ValueError(f"harmonics: expected a degree from 0 to {DEGREE}, got {degree}")
    x, y, z = directions.unbind(-1)
    Y = [torch.full_like(x, _A0)]
    if degree > 0:
        Y += [-_A1 * y, _A1 * z, -_A1 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        a, b, c = _A2
        Y += [a * x * y, -a * y * z, b * (2 * zz - xx - yy), -a * x * z, c * (xx - yy)]
    if degree > 2:
        a, b, c, d, e = _A3
        Y += [-a * y * (3 * xx - yy), b * x * y * z, -c * y * (4 * zz - xx - yy), d * z * (2 * zz - 3 * xx - 3 * yy)]
        Y += [-c * x * (4 * zz - xx - yy), e * z * (xx - yy), -a * x * (xx - 3 * yy)]
    return torch.stack(Y, -1)


def colours(sh: Tensor, means: Tensor, position: Tensor, degree: int | None = None) -> Tensor:
    """max(0, 1/2 + sum of sh Y(d)), with gradients to coefficients, means and cameras.

    sh        (N, K, 3), K = 1, 4, 9 or 16
    means     (N, 3); position (V, 3) of the cameras, world
    degree    of the harmonics to use, at most what sh holds; all if not given
    returns   (V, N, 3)
    """
    held = math.isqrt(sh.shape[-2]) - 1
    degree = held if degree is None else degree
    if (held + 1) ** 2 != sh.shape[-2] or degree > held:
        raise ValueError(f"harmonics: expected 1, 4, 9 or 16 coefficients that hold degree {degree}, got {sh.shape[-2]}")
    if degree == 0:
        return (0.5 + _A0 * sh[:, 0]).clamp(min=0).expand(len(position), -1, -1)
    d = means - position[:, None].to(means)
    length = (d * d).sum(-1, keepdim=True).clamp(min=1e-24).sqrt()  # a Gaussian at the camera is not drawn: any direction will do
    Y = basis(d / length, degree)
    return (0.5 + (Y[..., None] * sh[:, : Y.shape[-1]]).sum(-2)).clamp(min=0)
