# SPDX-License-Identifier: Apache-2.0
"""Volume rendering: how much of a ray each part of a medium stops, with gradients, whatever the medium is.

A section of a ray has an absorption a >= 0 and lets exp(-a) through. Sections in order: T_i = exp(-sum over j < i of a_j) of the light
is left before section i, and w_i = T_i (1 - exp(-a_i)) = T_i - T_{i+1} is stopped by it, the weight of what is seen there. All weights
and what is left in the end sum to 1.

A density s has a = s length (Max 1995; NeRF, arXiv:2003.08934, Eq. 3). An SDF f has none of its own: NeuS (Wang et al. 2021,
arXiv:2106.10689) takes alpha_i = max((Phi(f_i) - Phi(f_{i+1})) / Phi(f_i), 0), Eq. 13, with Phi(f) = 1 / (1 + exp(-k f)), so that weights
are highest where f is 0, and what is nearer hides what is farther. Here as a = max(log Phi(f_i) - log Phi(f_{i+1}), 0), which is the same
without a division by what may be 0: while f falls, the sums telescope, T_i = Phi(f_i) / Phi(f_0).

Differs from the released code: f is asked at the ends of sections, not at their middles with a slope; sections then meet without gaps,
and no stabilising constants are needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def absorbed(density: Tensor, length: Tensor) -> Tensor:
    """Absorption (..., n) of sections of these lengths, of a density (..., n) >= 0 in 1 / length."""
    return density * length


def absorbed_by_sdf(sdf: Tensor, length: Tensor, sharpness: Tensor, anneal: float = 1.0) -> Tensor:
    """Absorption (..., n) of the sections between n + 1 places along a ray.

    sdf        (..., n + 1), negative inside; length (..., n)
    sharpness  k > 0, in 1 / length; the standard deviation of the s-density is pi / (sqrt(3) k)
    anneal     1: a section along which f rises stops nothing, and has no gradient. 0: f is taken to fall by (length - rise) / 2, so that
               surfaces seen from behind have gradients, too. Between: the mean of both. NeuS goes from 0 to 1
    """
    first, last = sdf[..., :-1], sdf[..., 1:]
    if anneal < 1:
        rise, middle = last - first, (first + last) / 2
        fall = anneal * (-rise).relu() + (1 - anneal) * ((length - rise) / 2).relu()
        first, last = middle + fall / 2, middle - fall / 2
    return (F.softplus(-sharpness * last) - F.softplus(-sharpness * first)).relu()


def weighed(absorption: Tensor) -> Tensor:
    """What each section stops (..., n); what is left is 1 less their sum."""
    passed = absorption.cumsum(-1)
    return torch.exp(absorption - passed) * -torch.expm1(-absorption)
