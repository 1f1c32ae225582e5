# SPDX-License-Identifier: Apache-2.0
"""Parzen windows: normalised kernels, the exact score, bandwidths, and the denoiser that knows its samples by heart."""

import math

import pytest
import torch

from bozzetto.denoiser import score as denoiser_score
from bozzetto.diffusion.samplers import heun
from bozzetto.diffusion.schedules import karras
from bozzetto.scores import parzen
from bozzetto.scores.matching import denoising
from tests.twins.worlds import F64, Gaussian, Mixture, seeded

X0 = torch.randn(12, 2, generator=seeded(), dtype=F64)


@pytest.mark.parametrize("kernel", [parzen.gaussian, parzen.uniform, parzen.epanechnikov])
@pytest.mark.parametrize("D", [1, 2])
def test_dsm_7_the_density_integrates_to_one(kernel, D):
    """Midpoints on a grid; the ball's jump costs the uniform kernel first order in the cell."""
    x0, sigma = X0[:5, :D], 0.7
    axis = (torch.arange(1200, dtype=F64) + 0.5) / 1200 * 16 - 8
    grid = axis[:, None] if D == 1 else torch.cartesian_prod(axis, axis)
    total = float(parzen.log_density(grid, x0, sigma, kernel).exp().sum()) * (16 / 1200) ** D
    assert total == pytest.approx(1, abs={parzen.gaussian: 1e-10, parzen.epanechnikov: 2e-4, parzen.uniform: 1e-2}[kernel])


def test_dsm_7_the_score_is_the_gradient_of_the_log_density():
    x = torch.randn(9, 2, generator=seeded(1), dtype=F64, requires_grad=True)
    for sigma in (0.2, 1.5):
        (gradient,) = torch.autograd.grad(parzen.log_density(x, X0, sigma).sum(), x)
        torch.testing.assert_close(parzen.score(x.detach(), X0, sigma), gradient, rtol=1e-10, atol=1e-10)
        world = Mixture(torch.full((12,), 1 / 12), X0, torch.full((12,), 1e-9))
        torch.testing.assert_close(parzen.score(x.detach(), X0, sigma), world.score(x.detach(), sigma), rtol=1e-9, atol=1e-9)


def test_dsm_7_one_sample_is_one_gaussian():
    x = torch.randn(4, 3, generator=seeded(2), dtype=F64)
    x0, sigma = torch.tensor([[0.5, -1.0, 2.0]], dtype=F64), 0.8
    want = torch.distributions.Normal(x0, sigma).log_prob(x).sum(1)
    torch.testing.assert_close(parzen.log_density(x, x0, sigma), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parzen.score(x, x0, sigma), (x0 - x) / sigma**2, rtol=1e-12, atol=1e-12)


def test_dsm_7_denoising_on_samples_is_minimised_by_the_window_score():
    """On a finite set the optimum is the window's score, not the population's: the loss rises in every other direction."""
    g = seeded(3)
    n, sigma = 100_000, 0.3
    pick = torch.randint(12, (n,), generator=g)
    noise = torch.randn(n, 2, generator=g, dtype=F64)
    best = denoising(lambda x: parzen.score(x, X0, sigma), X0[pick], noise, sigma)
    population = Gaussian([0.0, 0.0], torch.eye(2, dtype=F64))
    for other in (lambda x: population.score(x, sigma), lambda x: 0.97 * parzen.score(x, X0, sigma)):
        more = denoising(other, X0[pick], noise, sigma) - best
        assert float(more.mean()) > 5 * float(more.std()) / math.sqrt(n)


def test_the_empirical_denoiser_is_that_score_and_sampling_returns_the_samples():
    x = torch.randn(6, 2, generator=seeded(4), dtype=F64)
    sigma = torch.linspace(0.1, 3.0, 6, dtype=F64)
    model = parzen.Empirical(X0)
    for i in range(6):
        torch.testing.assert_close(
            denoiser_score(model, x, sigma)[i : i + 1], parzen.score(x[i : i + 1], X0, float(sigma[i])), rtol=1e-9, atol=1e-9
        )
    drawn = heun(model, 80 * torch.randn(50, 2, generator=seeded(5), dtype=F64), karras(60))
    nearest = torch.cdist(drawn, X0).min(1)
    assert float(nearest.values.max()) < 1e-3 and len(nearest.indices.unique()) > 5
    picture = parzen.Empirical(torch.randn(3, 1, 2, 2, generator=seeded(6))).denoise(torch.zeros(2, 1, 2, 2), 1.0)
    assert picture.shape == (2, 1, 2, 2) and picture.dtype == torch.float32


def test_windows_of_a_width_and_a_weight_are_a_mixture_of_gaussians():
    """Against the mixture's own score, by Tweedie; samples of one's own for each x; a sample of weight 0 is not there."""
    g, width = seeded(9), 0.3
    x, weights = torch.randn(6, 2, generator=g, dtype=F64), torch.rand(12, generator=g, dtype=F64)
    for sigma in (0.05, 0.8, 6.0):
        want = Mixture(weights / weights.sum(), X0, torch.full((12,), width, dtype=F64)).denoise(x, sigma)
        torch.testing.assert_close(parzen.Empirical(X0, width, weights.log()).denoise(x, sigma), want, rtol=1e-9, atol=1e-10)
        own = torch.stack([X0 + k for k in range(6)])
        each = torch.stack([parzen.denoised(x[k : k + 1], own[k], sigma, width, weights.log())[0] for k in range(6)])
        torch.testing.assert_close(parzen.denoised(x, own, sigma, width, weights.log()), each, rtol=1e-12, atol=1e-12)
        gone = torch.where(torch.arange(12) < 5, 0.0, -torch.inf)
        fewer = parzen.denoised(x, X0[:5], sigma, width)
        torch.testing.assert_close(parzen.denoised(x, X0, sigma, width, gone), fewer, rtol=1e-12, atol=1e-12)
    alone = parzen.denoised(x, X0[:1], 0.8, width)  # one window is one Gaussian
    torch.testing.assert_close(alone, (0.09 * x + 0.64 * X0[:1]) / 0.73, rtol=1e-12, atol=1e-12)


def test_leave_one_out_is_what_it_says_and_likes_a_sensible_bandwidth():
    sigma = 0.4
    by_hand = torch.stack([parzen.log_density(X0[i : i + 1], torch.cat([X0[:i], X0[i + 1 :]]), sigma)[0] for i in range(12)]).mean()
    assert parzen.leave_one_out(X0, sigma) == pytest.approx(float(by_hand), rel=1e-12)
    x0 = torch.randn(400, 1, generator=seeded(7), dtype=F64)
    best = parzen.best_bandwidth(x0, torch.logspace(-2, 1, 61, dtype=F64))
    assert 0.5 < best / parzen.silverman(x0) < 2
    assert parzen.leave_one_out(x0, best) > max(parzen.leave_one_out(x0, 0.01), parzen.leave_one_out(x0, 5.0))
    assert parzen.leave_one_out(torch.tensor([[0.0], [10.0]], dtype=F64), 1.0, parzen.uniform) == -math.inf


def test_silvermans_rule():
    """In one dimension (4 / 3 / N)**(1 / 5) times the standard deviation; it scales with the data."""
    x0 = torch.randn(100, 1, generator=seeded(8), dtype=F64)
    assert parzen.silverman(x0) == pytest.approx((4 / 300) ** 0.2 * float(x0.std()), rel=1e-12)
    assert parzen.silverman(3 * X0) == pytest.approx(3 * parzen.silverman(X0), rel=1e-12)


@pytest.mark.parametrize(
    "call", [lambda: parzen.score(X0, X0, 0.0), lambda: parzen.log_density(X0, X0, -1.0), lambda: parzen.leave_one_out(X0[:1], 1.0)]
)
def test_wrong_bandwidths_are_refused(call):
    with pytest.raises(ValueError, match=r"bandwidth above 0|two samples"):
        call()
