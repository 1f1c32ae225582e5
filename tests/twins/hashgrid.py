# SPDX-License-Identifier: Apache-2.0
"""A hash grid one point, level and vertex at a time, in float64 and Python's own integers."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def sizes(count: int, base: int, growth: float, log2_entries: int) -> list[tuple[float, int, int]]:
    """Of each level: scale, vertices an axis, entries."""
    made = []
    for level in range(count):
        scale = base * growth**level - 1
        vertices = math.ceil(scale) + 1
        made.append((scale, vertices, min(8 * math.ceil(vertices**3 / 8), 2**log2_entries)))
    return made


def entry(vertex: tuple[int, int, int], vertices: int, entries: int) -> int:
    """The number of a vertex's entry in its level."""
    if vertices**3 <= entries:
        i, j, k = (min(v, vertices - 1) for v in vertex)
        return i + vertices * (j + vertices * k)
    i, j, k = vertex
    return (i ^ (j * 2654435761 % 2**32) ^ (k * 805459861 % 2**32)) % entries


def encode(points: Tensor, table: Tensor, levels: list[tuple[float, int, int]]) -> Tensor:
    """(2 L, N), with gradients by PyTorch."""
    rows = []
    for n in range(len(points)):
        row, first = [], 0
        for scale, vertices, entries in levels:
            p = points[n].clamp(0, 1) * scale + 0.5
            low = [int(v) for v in p.detach().floor()]
            total = torch.zeros(2, dtype=table.dtype)
            for corner in itertools.product((0, 1), repeat=3):
                weight = torch.ones((), dtype=table.dtype)
                for a in range(3):
                    f = p[a] - low[a]
                    weight = weight * (f if corner[a] else 1 - f)
                vertex = tuple(v + c for v, c in zip(low, corner, strict=True))
                total = total + weight * table[first + entry(vertex, vertices, entries)]
            row.append(total)
            first += entries
        rows.append(torch.cat(row))
    return torch.stack(rows, 1) if rows else table.new_zeros(2 * len(levels), 0)
