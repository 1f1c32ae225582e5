# SPDX-License-Identifier: Apache-2.0
"""Features at points, read from hashed grids of several resolutions, with gradients of first and second order.

Müller et al. 2022, Instant Neural Graphics Primitives (arXiv:2201.05989), Sec. 3. Letters: N points x in [0, 1]^3; L levels, level l of
scale s = base growth^l - 1, its vertices at integer p = s x + 1/2, R = ceil(s) + 1 of them an axis; T entries at most a level, two
features an entry. The level's features at x are the trilinear mean of the entries of the eight vertices about p, whose numbers are
i + R (j + R k) where R^3 <= T, and (i xor 2654435761 j xor 805459861 k) mod T in 32 bits else.

With w_c(x) a corner's weight and t_c its entry: features E = sum w_c t_c; for a weight g of the features, the gradient of (g . E) by x
is `slope`, sum (grad w_c) (g . t_c), and for a vector v, v . slope is E again with the weight (v . grad w_c): one kernel reads and one
writes, with either weight. So a loss on the normals of an SDF (its slope) reaches the entries by two kernels, without a list of corners.

Differs from the released code: what would be read beyond the last vertex of a level that is not hashed is the last vertex, there the
first of the next row; points outside the box read its border, with slope 0. A level's entries are written by one thread, in order of
points: the same bits for any number of threads. On CUDA the same formulas run in PyTorch, with sums in no fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bozzetto.kernels.trilinear import PRIMES, Encode, Sizes, Slope


@dataclass(frozen=True)
class Levels:
    """How fine a hash grid is.

    count         L
    base, growth  scale of level l is base growth^l - 1
    log2_entries  of a level at most
    """

    count: int = 12
    base: int = 16
    growth: float = 1.4
    log2_entries: int = 16

    def __post_init__(self) -> None:
        if self.count < 1 or self.base < 2 or self.growth < 1 or not 3 <= self.log2_entries <= 24:
            raise ValueError(f"levels: expected count >= 1, base >= 2, growth >= 1 and log2_entries from 3 to 24, got {self}")

    @cached_property
    def scales(self) -> np.ndarray:
        """(L,) float64."""
        return self.base * self.growth ** np.arange(self.count) - 1

    @cached_property
    def resolutions(self) -> np.ndarray:
        """(L,) int64, vertices an axis."""
        return np.ceil(self.scales).astype(np.int64) + 1

    @cached_property
    def offsets(self) -> np.ndarray:
        """(L + 1,) int64: level l has the entries offsets[l]:offsets[l + 1], as many as it has vertices (rounded up to 8) or T."""
        sizes = np.minimum((self.resolutions**3 + 7) // 8 * 8, 2**self.log2_entries)
        return np.concatenate([[0], np.cumsum(sizes)])

    @property
    def entries(self) -> int:
        """Of all levels."""
        return int(self.offsets[-1])

    @property
    def features(self) -> int:
        """2 L."""
        return 2 * self.count


def encode(points: Tensor, table: Tensor, levels: Levels, active: int | None = None) -> Tensor:
    """Features of points, a row each: what the kernel writes, and a matrix product reads, in order.

    points   (N, 3) in [0, 1]^3, float32 or float64
    table    (entries, 2), of the same dtype
    active   levels that are read, the coarsest; those of the others are 0, and their entries have no gradient. All unless given
    returns  (2 L, N). Gradients go to points and table, and theirs again to all that they come from
    raises   ValueError for wrong shapes or dtypes
    """
    sizes = _checked(points, table, levels, active)
    if points.is_cuda:
        return encode_in_torch(points, table, levels, active)
    out: Tensor = Encode.apply(points, table, sizes)
    return out


def slope(points: Tensor, table: Tensor, weights: Tensor, levels: Levels, active: int | None = None) -> Tensor:
    """The gradient by the points of (encode(points) * weights).sum(), (N, 3), without a graph of `encode`.

    weights  (2 L, N); gradients go to points, table and weights, once
    """
    sizes = _checked(points, table, levels, active)
    if weights.shape != (levels.features, len(points)):
        raise ValueError(f"hash grid: expected weights {(levels.features, len(points))}, got {tuple(weights.shape)}")
    if points.is_cuda:
        with torch.enable_grad():
            at = points if points.requires_grad else points.detach().requires_grad_()
            features = encode_in_torch(at, table, levels, active)
            return torch.autograd.grad(features, at, weights, create_graph=True)[0]
    out: Tensor = Slope.apply(points, table, weights, sizes)
    return out


def _checked(points: Tensor, table: Tensor, levels: Levels, active: int | None) -> Sizes:
    if points.ndim != 2 or points.shape[1] != 3 or table.shape != (levels.entries, 2):
        expected = f"points (N, 3) and table ({levels.entries}, 2)"
        raise ValueError(f"hash grid: expected {expected}, got {tuple(points.shape)} and {tuple(table.shape)}")
    if points.dtype != table.dtype or points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"hash grid: expected points and table of one dtype, float32 or float64, got {points.dtype} and {table.dtype}")
    return Sizes(levels.scales[:active], levels.resolutions[:active], levels.offsets)


def encode_in_torch(points: Tensor, table: Tensor, levels: Levels, active: int | None = None) -> Tensor:
    """`encode` by PyTorch's own operations, with gradients of any order: what runs on CUDA, and what the kernels are measured against."""
    inside = points.clamp(0, 1).T
    y, z = (math.remainder(p, 2**32) for p in PRIMES[1:])  # as int32, which wraps alike
    found = []
    for level, scale in enumerate(levels.scales[:active].tolist()):
        p = inside * scale + 0.5
        low = p.detach().floor()
        f, c = p - low, low.int()
        first, r = int(levels.offsets[level]), int(levels.resolutions[level])
        size = int(levels.offsets[level + 1]) - first
        if r**3 <= size:
            ends = [torch.stack([i, (i + 1).clamp(max=r - 1)]) * r**a for a, i in enumerate(c)]
            corner = ends[2][:, None, None] + ends[1][:, None] + ends[0]
        else:
            ends = [torch.stack([i, i + 1]) * int(q) for i, q in zip(c, (1, y, z), strict=True)]
            corner = (ends[2][:, None, None] ^ ends[1][:, None] ^ ends[0]) & (size - 1)
        share = [torch.stack([1 - w, w]) for w in f]
        weight = (share[2][:, None, None] * share[1][:, None] * share[0]).flatten(0, 2)
        entry = table[first : first + size].index_select(0, corner.flatten().long()).view(8, -1, 2)
        found.append((weight[..., None] * entry).sum(0).T)
    rest = points.new_zeros(levels.features - 2 * len(found), len(points))
    return torch.cat([*found, rest])
