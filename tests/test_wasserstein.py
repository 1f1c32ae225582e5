# SPDX-License-Identifier: Apache-2.0
"""Sliced Wasserstein against closed forms and brute-force transport."""

import itertools
import math

import pytest
import torch
from scipy import optimize

from bozzetto.scores.wasserstein import directions, sliced_wasserstein, wasserstein_1d
from tests.twins.worlds import F64, seeded


def normals(n, D, seed):
    return torch.randn(n, D, generator=seeded(seed), dtype=F64)


def test_swd_1_isotropic_gaussians():
    """SW_2**2 = |dm|**2 / D + (ds)**2, while W_2**2 has D times the second; the same normals for both sides leave means exact."""
    D, n = 6, 1500
    z = normals(n, D, 0)
    z = (z - z.mean(0)) / z.std(0, correction=0)
    d = torch.tensor([1.0, -2.0, 0.5, 0.0, 2.0, 1.0], dtype=F64)
    theta = directions(1500, D, generator=seeded(1))
    got = sliced_wasserstein(1.0 * z, 2.0 * z + d, theta) ** 2
    want = float(d @ d) / D + 1.0
    se = math.sqrt(float((theta @ d).square().var()) / 1500)
    # projections of one normal sample are not quite standard: .02 covers n = 1500
    assert float(got) == pytest.approx(want, abs=5 * se + 0.02)


def test_swd_2_translation():
    """|d|**2 / D in the mean over directions; per set of directions it is exactly the mean of (theta . d)**2."""
    x, d = normals(50, 3, 2), torch.tensor([1.0, 2.0, -3.0], dtype=F64)
    theta = directions(20_000, 3, generator=seeded(3))
    got = sliced_wasserstein(x, x + d, theta) ** 2
    assert got == pytest.approx(float((theta @ d).square().mean()), rel=1e-10)
    assert float(got) == pytest.approx(14 / 3, abs=5 * float((theta @ d).square().std()) / math.sqrt(20_000))


def test_swd_3_one_dimension_permutations_and_zero():
    x, y = normals(7, 1, 4), normals(7, 1, 5)
    theta = torch.ones(1, 1, dtype=F64)
    best = min(sum(float((x[i] - y[j]).square()) for i, j in enumerate(p)) for p in itertools.permutations(range(7))) / 7
    assert sliced_wasserstein(x, y, theta) ** 2 == pytest.approx(best, rel=1e-12)
    assert sliced_wasserstein(x, x[[3, 1, 0, 2, 6, 5, 4]], theta) == 0
    a, b = normals(12, 3, 6), normals(12, 3, 7)
    t = directions(500, 3, generator=seeded(8))
    cost = torch.cdist(a, b).square()
    rows, columns = optimize.linear_sum_assignment(cost.numpy())
    w2 = math.sqrt(float(cost[rows, columns].mean()))
    assert 0 < sliced_wasserstein(a, b, t) <= w2
    assert sliced_wasserstein(a, b, t) == pytest.approx(sliced_wasserstein(b, a, t), rel=1e-12)
    assert sliced_wasserstein(a, a.flip(0), t) == 0 and sliced_wasserstein(a[:, :, None], b[:, :, None], t) == sliced_wasserstein(a, b, t)


def test_swd_3_unequal_sizes_are_copies_in_disguise():
    """N = 4 against M = 6: repeat each to 12, where sorting is exact."""
    x, y = normals(4, 2, 9), normals(6, 2, 10)
    for p in (1.0, 2.0):
        want = wasserstein_1d(x.repeat_interleave(3, 0), y.repeat_interleave(2, 0), p)
        torch.testing.assert_close(wasserstein_1d(x, y, p), want, rtol=1e-12, atol=0)


def test_swd_4_general_gaussians():
    """Mean over directions of (theta . dm)**2 + (difference of projected deviations)**2; large samples."""
    n, D = 10_000, 3
    L1, L2 = torch.tril(normals(D, D, 11)) + torch.eye(D, dtype=F64), torch.tril(normals(D, D, 12)) + torch.eye(D, dtype=F64)
    d = torch.tensor([0.5, 1.0, -0.3], dtype=F64)
    theta = directions(40, D, generator=seeded(13))
    want = (theta @ d).square() + ((theta @ L1).norm(dim=1) - (theta @ L2).norm(dim=1)) ** 2
    got = sliced_wasserstein(normals(n, D, 14) @ L1.T, d + normals(n, D, 15) @ L2.T, theta) ** 2
    assert got == pytest.approx(float(want.mean()), rel=0.03)  # empirical quantiles: about 2 / sqrt(n)


def test_directions_are_even_on_the_sphere():
    t = directions(50_000, 4, generator=seeded(16))
    torch.testing.assert_close(t.norm(dim=1), torch.ones(50_000, dtype=F64), rtol=1e-12, atol=0)
    assert float((t.T @ t / 50_000 - torch.eye(4, dtype=F64) / 4).abs().max()) < 5 * 0.25 / math.sqrt(50_000)


@pytest.mark.parametrize(
    ("theta", "words"),
    [(torch.ones(2, 3, dtype=F64), "length 1"), (torch.eye(2, dtype=F64), "expected \\(K, 3\\)")],
)
def test_wrong_directions_are_refused(theta, words):
    with pytest.raises(ValueError, match=words):
        sliced_wasserstein(normals(3, 3, 0), normals(3, 3, 1), theta)
