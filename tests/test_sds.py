# SPDX-License-Identifier: Apache-2.0
"""Score distillation against the closed forms of Gaussian priors, for which the exact denoiser is known."""

from __future__ import annotations

import pytest
import torch

from bozzetto.denoiser import Adapted
from bozzetto.diffusion.guidance import classifier_free
from bozzetto.distill.sds import Levels, Ramp, fantasia, level, noise_variance, residual, sds, sds_gradient, uniform

ALPHA_BAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
SIGMAS = ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt()


def gaussian(mean, variance):
    """The exact denoiser of N(mean, variance) a coordinate; cond, if given, is another (mean, variance)."""

    def denoise(x, sigma, cond):
        m, v = (mean, variance) if cond is None else cond
        s2 = torch.as_tensor(sigma, dtype=torch.float64).view(-1, *[1] * (x.ndim - 1)) ** 2
        return (v * x + s2 * m) / (v + s2)

    return Adapted(denoise, SIGMAS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vp(sigma):
    """(alpha, sigma) of the papers' scale."""
    return 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5


def test_sds_1_mean_and_variance_over_noise():
    """E[eps_p - eps] = alpha s (x - m) / (alpha^2 S + s^2), Var = (alpha^2 S / (alpha^2 S + s^2))^2; 5 standard errors of 200,000."""
    n, m, S, x = 200_000, 0.7, 0.3, 1.9
    for sigma in (0.05, 0.6, 9.0):
        a, s = vp(sigma)
        levels = torch.full((n,), sigma, dtype=torch.float64)
        got, _ = sds_gradient(gaussian(m, S), torch.full((n, 1), x, dtype=torch.float64), levels, generator=generator(), weight=uniform)
        spread = a * a * S / (a * a * S + s * s)
        assert abs(float(got.mean()) - a * s * (x - m) / (a * a * S + s * s)) < 5 * spread / n**0.5
        assert abs(float(got.std()) / spread - 1) < 5 / (2 * n) ** 0.5


@pytest.mark.parametrize("levels", [Levels(), Levels(Ramp(0.4, 0.2, 0, 200), Ramp(0.85, 0.5, 0, 200))])
def test_sds_1_descent_ends_at_the_mean_and_particles_collapse(levels):
    """Mode seeking: from N(-2, 1) all particles end at m = 1.2, with variance far below the prior's .49."""
    denoiser, g = gaussian(1.2, 0.49), generator()
    x = (torch.randn(256, 1, generator=g, dtype=torch.float64) - 2).requires_grad_()
    for step in range(1500):
        sigma = levels.draw(denoiser, len(x), step, generator=g)
        (grad,) = torch.autograd.grad(sds(denoiser, x, sigma, generator=g) * len(x), x)
        x = (x - 0.02 * grad).detach().requires_grad_()
    x = x.detach()
    assert abs(float(x.mean()) - 1.2) < 0.03
    assert float(x.var()) < 0.02  # what is left is the step's noise, which falls with the step


def fixed_point(denoiser, cond, weights=None, start=0.0, sigma=1.3, steps=4000, rate=0.05):
    """Where exact descent (noise averaged by symmetry: a Gaussian denoiser is affine) ends, at one level: where a step is rounding, which
    is below 1e-13 / (1 - a step's contraction) from the end, and that below 1e-9."""
    x = torch.full((2, 1), start, dtype=torch.float64)
    noise = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    for _ in range(steps):
        total = sum(w * (x - d.denoise(x + sigma * noise, sigma, cond)) / sigma for d, w in (weights or [(denoiser, 1.0)]))
        step = rate * total.mean()
        x = x - step
        if abs(float(step)) < 1e-13:
            break
        if not torch.isfinite(x).all() or x.abs().max() > 1e6:
            return float("inf")
    return float(x[0])


def test_sds_2_guidance_extrapolates_between_equal_variances():
    """m_u + g (m_c - m_u): -.3, 1.2 and g = 7.5 give 10.95."""
    denoiser = classifier_free(gaussian(-0.3, 0.49), None, 7.5)
    assert abs(fixed_point(denoiser, (1.2, 0.49)) - 10.95) < 1e-6


def test_sds_3_guidance_with_other_variances_and_where_it_diverges():
    sigma, g = 1.3, 3.0
    (m_u, S_u), (m_c, S_c) = (-0.3, 0.9), (1.2, 0.2)
    a, s = vp(sigma)
    k_c, k_u = g / (a * a * S_c + s * s), (1 - g) / (a * a * S_u + s * s)
    expected = (k_c * m_c + k_u * m_u) / (k_c + k_u)
    assert abs(fixed_point(classifier_free(gaussian(m_u, S_u), None, g), (m_c, S_c)) - expected) < 1e-6
    # A condition broader than none, and much guidance: the precision is negative, and descent runs away.
    g, S_u, S_c = 8.0, 0.2, 3.0
    assert g / (a * a * S_c + s * s) + (1 - g) / (a * a * S_u + s * s) < 0
    assert fixed_point(classifier_free(gaussian(m_u, S_u), None, g), (m_c, S_c)) == float("inf")


def test_sds_4_two_priors_trace_their_weighted_mean():
    sigma, (m1, S1), (m2, S2) = 1.3, (-1.0, 0.2), (2.0, 0.8)
    a, s = vp(sigma)
    k1, k2 = 1 / (a * a * S1 + s * s), 1 / (a * a * S2 + s * s)
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        both = [(gaussian(m1, S1), share), (gaussian(m2, S2), 1 - share)]
        expected = (share * k1 * m1 + (1 - share) * k2 * m2) / (share * k1 + (1 - share) * k2)
        assert abs(fixed_point(None, None, both, sigma=sigma) - expected) < 1e-6


def test_mg_1_more_weight_on_the_3d_prior_goes_all_the_way_from_the_2d_mean_to_its_own():
    """Magic123's lambda_3D over its sweep, lambda_2D = 1: SDS-4's mean. By lambda = 10 to 60, which the paper finds alike, a 3D prior that
    is as sure as the 2D one has it all but alone; one a hundred times less sure does not (the control)."""
    sigma, (m2, S2), (m3, S3) = 1.3, (-1.0, 0.2), (2.0, 0.2)
    a, s = vp(sigma)

    def ends(lambda_3d: float, spread: float) -> float:
        total = 1 + lambda_3d
        return fixed_point(None, None, [(gaussian(m2, S2), 1 / total), (gaussian(m3, spread), lambda_3d / total)], sigma=sigma)

    found = [ends(x, S3) for x in (0.0, 0.1, 1.0, 10.0, 40.0, 60.0)]
    k2, k3 = 1 / (a * a * S2 + s * s), 1 / (a * a * S3 + s * s)
    expected = [(k2 * m2 + x * k3 * m3) / (k2 + x * k3) for x in (0.0, 0.1, 1.0, 10.0, 40.0, 60.0)]
    assert found == pytest.approx(expected, abs=1e-6) and found == sorted(found)
    assert found[0] == pytest.approx(m2, abs=1e-6) and m3 - 0.3 < found[3] < found[5] < m3
    assert ends(10.0, 100 * S3) < m3 - 0.3


def test_sds_5_the_chain_rule_and_the_mean_over_the_batch():
    g = generator(3)
    A = torch.randn(4, 3, generator=g, dtype=torch.float64)
    theta = torch.randn(3, generator=g, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.4, 2.0, 6.0], dtype=torch.float64)
    x0 = (A @ theta).expand(3, 4)
    denoiser = gaussian(0.3, 0.5)
    (got,) = torch.autograd.grad(sds(denoiser, x0, sigma, generator=generator(5)), theta)
    by_hand, _ = sds_gradient(denoiser, x0.detach(), sigma, generator=generator(5))
    torch.testing.assert_close(got, A.T @ by_hand.sum(0) / 3, rtol=1e-13, atol=1e-13)


def test_sds_5_a_linear_generator_ends_at_weighted_least_squares():
    """One level, prior N(m, S) with another S a coordinate: argmin of sum (x - m)^2 / (S + sigma^2)."""
    g = generator(4)
    A, m = torch.randn(4, 2, generator=g, dtype=torch.float64), torch.randn(4, generator=g, dtype=torch.float64)
    S = torch.rand(4, generator=g, dtype=torch.float64) + 0.1
    sigma = torch.full((2,), 0.8, dtype=torch.float64)
    noise = torch.randn(1, 4, generator=g, dtype=torch.float64)
    denoiser, theta = gaussian(m, S), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(3000):
        x0 = (A @ theta).expand(2, 4)
        # a noise and its mirror: their mean is the expectation, since this denoiser is affine
        grad = (x0 - denoiser.denoise(x0 + sigma[:, None] * torch.cat([noise, -noise]), sigma)).detach() / sigma[:, None]
        (step,) = torch.autograd.grad((x0 * grad).sum() / 2, theta)
        theta = (theta - 0.1 * step).detach().requires_grad_()
    w = torch.diag(1 / (S + 0.64))
    torch.testing.assert_close(theta.detach(), torch.linalg.solve(A.T @ w @ A, A.T @ w @ m), rtol=1e-8, atol=1e-8)


def test_sds_6_the_loss_injects_its_gradient_and_none_reaches_the_prior():
    network = torch.nn.Linear(4, 4).double()
    denoiser = Adapted(lambda x, sigma, cond: network(x), SIGMAS)
    x0 = torch.randn(3, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.3, 1.0, 5.0], dtype=torch.float64)
    loss = sds(denoiser, x0, sigma, generator=generator(2))
    loss.backward()
    by_hand, _ = sds_gradient(denoiser, x0.detach(), sigma, generator=generator(2))
    injected = torch.zeros_like(x0, requires_grad=True)
    (injected * 1).backward(gradient=by_hand / 3)
    torch.testing.assert_close(x0.grad, injected.grad, rtol=1e-12, atol=1e-15)  # x - (x - g) loses the last bits of g
    assert all(p.grad is None for p in network.parameters())


def mixture(half=2.0, variance=0.04):
    """Two equal modes at +-half."""

    def denoise(x, sigma, cond):
        s2 = torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1) ** 2
        total = variance + s2
        r = torch.sigmoid(2 * half * x / total)  # responsibility of the right mode
        mean = half * (2 * r - 1)
        return (variance * x + s2 * mean) / total

    return Adapted(denoise, torch.logspace(-2, 2, 1000, dtype=torch.float64))


def test_sds_7_small_noise_goes_to_one_mode_and_large_noise_to_the_mean_first():
    denoiser, g = mixture(), generator(6)

    def descend(x, sigma, steps):
        for _ in range(steps):
            levels = torch.full((len(x),), sigma, dtype=torch.float64)
            x = x - 0.05 * sds_gradient(denoiser, x, levels, generator=g, weight=residual)[0]
        return x

    between = torch.linspace(-0.5, 0.5, 64, dtype=torch.float64)[:, None]
    # sigma^2 far below half-separation^2 = 4: every particle ends at a mode, both are met
    modes = descend(between, 0.5, 600)
    assert float((modes.abs() - 2).abs().max()) < 0.3 and (modes > 0).any() and (modes < 0).any()
    # sigma^2 = 36 far above it: even particles at a mode go to the mean
    middle = descend(torch.full((64, 1), 2.0, dtype=torch.float64), 6.0, 2000)
    assert float(middle.mean().abs()) < 0.35
    # then small noise takes each from there to a mode
    assert float((descend(middle, 0.5, 600).abs() - 2).abs().max()) < 0.3


def test_weights_on_the_papers_scale():
    sigma = SIGMAS
    torch.testing.assert_close(noise_variance(sigma), 1 - ALPHA_BAR)
    torch.testing.assert_close(fantasia(sigma), ALPHA_BAR.sqrt() * (1 - ALPHA_BAR))
    # residual: the gradient is x0 - D, without a factor
    x0 = torch.ones(1, 2, dtype=torch.float64)
    got, seen = sds_gradient(gaussian(0, 1), x0, torch.tensor([0.7], dtype=torch.float64), generator=generator(), weight=residual)
    torch.testing.assert_close(got, x0 - seen)


def test_levels_are_shares_of_the_priors_and_move_over_the_run():
    denoiser = gaussian(0, 1)
    shares = torch.arange(1000, dtype=torch.float64) / 999
    torch.testing.assert_close(level(denoiser, shares), SIGMAS)  # t / (T - 1)
    levels = Levels(Ramp(0.4, 0.2, 0, 200), Ramp(0.85, 0.5, 0, 200))
    for step, low, high in ((0, 0.4, 0.85), (100, 0.3, 0.675), (200, 0.2, 0.5), (900, 0.2, 0.5)):
        drawn = levels.draw(denoiser, 4000, step, generator=generator(step))
        ends = level(denoiser, torch.tensor([low, high], dtype=torch.float64))
        assert ends[0] <= drawn.min() < ends[0] * 1.02 and ends[1] * 0.98 < drawn.max() <= ends[1]
    constant = Ramp(3.0, 1.0, 10, 20)
    assert [constant(k) for k in (0, 10, 15, 20, 99)] == [3, 3, 2, 1, 1]


def test_a_clipped_sample_keeps_its_direction():
    x0 = torch.tensor([[30.0, 40.0], [0.1, 0.0]], dtype=torch.float64)
    sigma = torch.full((2,), 1.0, dtype=torch.float64)
    free, _ = sds_gradient(gaussian(0, 1e-6), x0, sigma, generator=generator(), weight=residual)
    held, _ = sds_gradient(gaussian(0, 1e-6), x0, sigma, generator=generator(), weight=residual, clip=1.0)
    torch.testing.assert_close(held[0], free[0] / free[0].norm())
    torch.testing.assert_close(held[1], free[1])


def test_bad_levels_and_answers_are_named():
    with pytest.raises(ValueError, match="lowest <= highest"):
        Levels(Ramp(0.9, 0.9), Ramp(0.5, 0.5))
    with pytest.raises(ValueError, match=r"at step 39, got 0\.59 and 0\.5$"):  # they cross on the way
        Levels(Ramp(0.2, 0.6, 0, 40), Ramp(0.9, 0.5, 0, 20))
    with pytest.raises(ValueError, match="start <= stop, got 300 and 200"):
        Ramp(0.2, 0.6, 300, 200)
    broken = Adapted(lambda x, sigma, cond: x * float("nan"), SIGMAS)
    with pytest.raises(FloatingPointError, match=r"not finite at noise levels \[0.5\]"):
        sds(broken, torch.zeros(1, 2), torch.tensor([0.5], dtype=torch.float64), generator=generator())
