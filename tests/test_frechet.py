# SPDX-License-Identifier: Apache-2.0
"""The Fréchet distance, where it has closed forms."""

from __future__ import annotations

import pytest
import torch

from bozzetto.scores.frechet import covariance, finite_sample_bias, frechet, frechet_of
from tests.twins.worlds import F64, seeded


def spread(seed: int, D: int = 4) -> torch.Tensor:
    a = torch.randn(D, D, generator=seeded(seed), dtype=F64)
    return a @ a.T + 0.1 * torch.eye(D, dtype=F64)


def test_fid_1_closed_forms():
    """Identical, shifted, diagonal, symmetric, rotated; and against a root of C_1 C_2 by its own eigenvectors."""
    zero, shift = torch.zeros(4, dtype=F64), torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)
    c, d = spread(0), spread(1)
    assert frechet_of(shift, c, shift, c) == pytest.approx(0, abs=1e-12)
    assert frechet_of(zero, c, shift, c) == pytest.approx(float(shift @ shift), rel=1e-12)
    a, b = torch.tensor([1.0, 4, 9, 0], dtype=F64), torch.tensor([4.0, 1, 0, 0], dtype=F64)  # singular, too
    want = float((a.sqrt() - b.sqrt()).square().sum() + shift @ shift)
    assert frechet_of(zero, a.diag(), shift, b.diag()) == pytest.approx(want, rel=1e-12)
    q = torch.linalg.qr(torch.randn(4, 4, generator=seeded(2), dtype=F64)).Q
    here = frechet_of(zero, c, shift, d)
    assert frechet_of(shift, d, zero, c) == pytest.approx(here, rel=1e-12)
    assert frechet_of(zero, q @ c @ q.T, q @ shift, q @ d @ q.T) == pytest.approx(here, rel=1e-12)
    root = torch.linalg.eigvals(c @ d).sqrt().sum().real  # the trace of a root is the sum of the eigenvalues' roots
    assert here == pytest.approx(float(shift @ shift + c.trace() + d.trace() - 2 * root), rel=1e-12)
    assert here != pytest.approx(float(shift @ shift + (c - d).square().sum()), rel=0.1)  # not the distance of the matrices


def test_fid_1_of_samples_is_that_of_their_moments():
    """Translation by d moves it by |d|**2 exactly, whatever the samples are; a permutation changes nothing."""
    x = torch.rand(50, 3, generator=seeded(3), dtype=F64)
    d = torch.tensor([0.3, 0.0, -0.4], dtype=F64)
    assert frechet(x, x + d) == pytest.approx(0.25, rel=1e-9)
    assert frechet(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(covariance(x), torch.cov(x.T), rtol=1e-12, atol=0)


def test_fid_2_few_samples_look_farther_than_they_are():
    """The mean of many distances of N samples from their own law, N(0, I), and the tabled .2761 at D = 64, N = 4000."""
    assert finite_sample_bias(torch.eye(64), 4000) == pytest.approx(0.2761, abs=1e-4)
    D, N = 8, 400
    cov = torch.linspace(0.2, 2, D, dtype=F64).diag()
    seen = []
    for seed in range(60):
        x = torch.randn(N, D, generator=seeded(seed), dtype=F64) * cov.diagonal().sqrt()
        seen.append(frechet_of(x.mean(0), covariance(x), torch.zeros(D, dtype=F64), cov))
    values = torch.tensor(seen)
    error = 4 * float(values.std()) / 60**0.5
    assert float(values.mean()) == pytest.approx(finite_sample_bias(cov, N), abs=error + 0.03 * float(values.mean()))  # and second order


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((1, 2), (5, 2)), ((5,), (5,))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="expected"):
        frechet(*(torch.zeros(s) for s in shapes))
