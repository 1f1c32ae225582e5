# SPDX-License-Identifier: Apache-2.0
"""Values known on a part of a surface, continued smoothly over the rest of it."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix, diags, identity
from scipy.sparse.linalg import splu
from torch import Tensor


def extend(faces: Tensor, values: Tensor, weight: Tensor, *, stiffness: float = 1e-3, fade: float = 1e-4) -> Tensor:
    """The smoothest values over a mesh that agree with those that are known.

    faces      (F, 3)
    values     (N, C) at the vertices; what stands where weight is 0 is not read
    weight     (N,) in [0, 1], how well a value is known
    stiffness  of the Laplacian against `weight`: known values move by about this share of the step to their neighbours
    fade       pull towards 0, so that a part without known values gets 0; small against a path's resistance
    returns    (N, C): the minimum of sum(weight |x - values|^2) + stiffness sum over edges |x_a - x_b|^2 + fade |x|^2
    """
    n = len(values)
    f = faces.cpu().numpy()
    a, b = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]).T
    edges = coo_matrix((np.ones(2 * len(a)), (np.concatenate([a, b]), np.concatenate([b, a]))), (n, n)).tocsr()
    edges.data[:] = 1  # an edge counts once, however many faces have it
    laplacian = diags(np.asarray(edges.sum(1)).ravel()) - edges
    w = weight.detach().double().cpu().numpy()
    known = np.where(w[:, None] > 0, values.detach().double().cpu().numpy(), 0.0)
    solve = splu((diags(w) + stiffness * laplacian + stiffness * fade * identity(n)).tocsc()).solve
    return torch.from_numpy(solve(w[:, None] * known)).to(values)
