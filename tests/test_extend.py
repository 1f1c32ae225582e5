# SPDX-License-Identifier: Apache-2.0
"""Values continued over a surface: the discrete maximum principle and a line's closed form."""

from __future__ import annotations

import torch

from bozzetto.render.extend import extend


def strip(n: int) -> torch.Tensor:
    """Faces of a ring of 2 x n vertices: 0..n-1 below, n..2n-1 above."""
    i = torch.arange(n)
    j = (i + 1) % n
    return torch.cat([torch.stack([i, j, i + n], 1), torch.stack([j, j + n, i + n], 1)])


def test_known_values_stay_and_a_constant_is_continued_everywhere():
    faces, n = strip(20), 40
    weight = torch.zeros(n)
    weight[:6] = 1
    found = extend(faces, torch.full((n, 3), 0.7), weight, fade=0.0)
    torch.testing.assert_close(found, torch.full((n, 3), 0.7), rtol=0, atol=1e-6)


def test_unknown_values_lie_between_the_known_and_are_harmonic():
    faces, n = strip(20), 40
    values, weight = torch.zeros(n, 1), torch.zeros(n)
    values[[10, 30]], weight[[0, 20, 10, 30]] = 1.0, 1.0
    found = extend(faces, values, weight, stiffness=1e-6, fade=0.0)[:, 0]
    assert abs(float(found[0])) < 1e-4 and abs(float(found[10]) - 1) < 1e-4
    assert float(found.min()) > -1e-6 and float(found.max()) < 1 + 1e-6
    # Round the ring from a known 0 to a known 1 values rise linearly, up to the diagonals' skew.
    torch.testing.assert_close(found[1:10], torch.arange(1, 10) / 10, rtol=0, atol=0.05)


def test_a_part_without_known_values_fades_to_zero_and_garbage_is_not_read():
    faces = torch.cat([strip(8), strip(8) + 16])
    values, weight = torch.full((32, 2), float("nan")), torch.zeros(32)
    values[:16], weight[:16] = 0.5, 1.0
    found = extend(faces, values, weight)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[16:], torch.zeros(16, 2), rtol=0, atol=1e-9)
