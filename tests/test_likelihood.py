# SPDX-License-Identifier: Apache-2.0
"""Likelihood by the probability flow: Gaussians in closed form, a mixture through its own density."""

import itertools
import math

import pytest
import torch

from bozzetto.denoiser import Adapted, alpha_bar_of, sigma_of
from bozzetto.diffusion.likelihood import bits_per_dim, log_likelihood
from bozzetto.diffusion.samplers import heun
from bozzetto.diffusion.schedules import alpha_bar, linear_betas, ve_sde_sigma, vp_sde_alpha_bar
from bozzetto.scores.ladder import geometric
from bozzetto.scores.matching import projections
from tests.twins.worlds import F64, SIGMAS, Gaussian, Mixture, iso, seeded

NOTES = Mixture([0.2, 0.8], [[-5.0], [5.0]], [1.0, 1.0])


def test_sde_1_the_continuous_signal_is_near_the_discrete():
    one = torch.ones((), dtype=F64)
    assert float(vp_sde_alpha_bar(one)) == pytest.approx(4.3186e-5, rel=2e-5)
    assert float(alpha_bar(linear_betas())[-1]) == pytest.approx(4.0358e-5, rel=2e-5)
    t = torch.linspace(0, 1, 2001, dtype=F64)
    beta = 0.1 + t * 19.9
    integral = torch.cumulative_trapezoid(beta, t)  # exact for a linear beta
    torch.testing.assert_close(vp_sde_alpha_bar(t)[1:], (-integral).exp(), rtol=1e-10, atol=0)
    assert float(ve_sde_sigma(one)) == pytest.approx(50) and float(ve_sde_sigma(0 * one)) == 0.01
    assert float(ve_sde_sigma(one / 2)) == pytest.approx(math.sqrt(0.5), rel=1e-12)


def test_sde_2_variance_preserving_flow_on_a_gaussian():
    """c**2 = .25, x = .3: -.4058026785 with the prior N(0, 1), off from log N(x; 0, v) = -.4057923136 by the prior's mismatch."""
    t = torch.tensor([1.0, 1e-5], dtype=F64)
    a_T, a_0 = vp_sde_alpha_bar(t).tolist()
    v_T, v_0 = a_T * 0.25 + 1 - a_T, a_0 * 0.25 + 1 - a_0
    top, bottom = sigma_of(torch.tensor([a_T, a_0], dtype=F64)).tolist()
    x = torch.tensor([[0.3]], dtype=F64)
    log_p, end = log_likelihood(iso(0.5), x / math.sqrt(a_0), geometric(top, bottom, 300), variance=1 + top**2)
    got = float(log_p) - math.log(a_0) / 2
    closed = -math.log(2 * math.pi) / 2 - 0.09 / 2 * v_T / v_0 + math.log(v_T / v_0) / 2
    assert closed == pytest.approx(-0.4058026785, abs=1e-10) and got == pytest.approx(closed, abs=1e-7)
    exact = -math.log(2 * math.pi * v_0) / 2 - 0.09 / (2 * v_0)
    assert exact == pytest.approx(-0.4057923136, abs=1e-10)
    assert closed - exact == pytest.approx(-0.09 / v_0 * (v_T - 1) / 2 + math.log(v_T) / 2, abs=1e-12)
    assert float(end) * math.sqrt(a_T) == pytest.approx(0.3 * math.sqrt(v_T / v_0), rel=1e-7)


def test_likelihood_of_a_mixture_is_its_density():
    """Centred, the prior N(0, sigma**2) is off by its variance / sigma**2 = 17e-6 alone; off centre, by mean / sigma."""
    M = Mixture([0.2, 0.8], [[-8.0], [2.0]], [1.0, 1.0])
    x = torch.tensor([[-9.0], [0.5], [1.0], [4.0]], dtype=F64)
    log_p, _ = log_likelihood(M, x, geometric(1000.0, 0.01, 150))
    torch.testing.assert_close(log_p, M.log_density(x, 0.01), rtol=0, atol=5e-5)


def test_sde_4_signs_have_no_variance_on_a_diagonal_field():
    G = Gaussian([0.0, 1.0, -1.0], torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=F64)))
    x = torch.randn(5, 3, generator=seeded(), dtype=F64)
    levels = geometric(100.0, 0.1, 60)
    exact, end = log_likelihood(G, x, levels)
    signs, same = log_likelihood(G, x, levels, v=projections(x, generator=seeded(1)))
    torch.testing.assert_close(signs, exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(same, end, rtol=1e-12, atol=0)
    normal, _ = log_likelihood(G, x, levels, v=projections(x, "gaussian", generator=seeded(2)))
    assert float((normal - exact).abs().max()) > 0.1  # the control: others do have some


def test_sde_4_signs_are_unbiased_on_a_full_field():
    cov = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=F64)
    G, x = Gaussian([0.0, 0.0], cov), torch.tensor([[0.4, -0.2]], dtype=F64).expand(4, 2)
    v = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=F64)
    levels = geometric(100.0, 0.1, 80)
    got, _ = log_likelihood(G, x, levels, v=v)
    exact, _ = log_likelihood(G, x, levels)
    assert float(got.std()) > 0.01
    torch.testing.assert_close(got.mean(), exact[0], rtol=0, atol=1e-10)  # all signs enumerated; the path does not depend on v


def test_sde_5_encoding_is_the_quantile_map_and_decoding_comes_back():
    levels = geometric(80.0, 0.05, 120)
    u = torch.tensor([0.03, 0.3, 0.8], dtype=F64)
    x = torch.tensor([[NOTES.quantile(float(p), 0.05)] for p in u], dtype=F64)
    _, code = log_likelihood(NOTES, x, levels)
    torch.testing.assert_close(NOTES.cdf(code[:, 0], 80.0), u, rtol=0, atol=1e-6)
    errors = [float((heun(NOTES, code, geometric(80.0, 0.05, n)) - x).abs().max()) for n in (100, 200)]
    assert errors[1] < 1e-2 and 3 < errors[0] / errors[1] < 5


def test_bits_per_dimension_count_the_width_of_a_bin():
    """A uniform law on [-1, 1] has density 1/2: 8 bits for 256 levels, however the pixels are scaled."""
    D = 12
    assert float(bits_per_dim(torch.tensor(-D * math.log(2)), D)) == pytest.approx(8)
    assert float(bits_per_dim(torch.tensor(0.0), D, width=1.0)) == pytest.approx(8)
    assert float(bits_per_dim(torch.tensor(0.0), D)) == pytest.approx(7)
    assert float(bits_per_dim(torch.tensor(0.0), D, levels=255)) == pytest.approx(6.994353, abs=1e-6)
    assert float(alpha_bar_of(torch.tensor(1.0))) == 0.5


@pytest.mark.parametrize("levels", [torch.tensor([1.0, 0.0]), torch.tensor([1.0]), torch.tensor([0.1, 1.0])])
def test_wrong_levels_are_refused(levels):
    with pytest.raises(ValueError, match="sigmas: expected"):
        log_likelihood(Adapted(lambda x, s, c: x, SIGMAS), torch.zeros(1, 1), levels)
