# SPDX-License-Identifier: Apache-2.0
"""Variational score distillation between Gaussians, the prior N(m, S) and the renderings N(mu, V), where all scores are known."""

from __future__ import annotations

import pytest
import torch

from bozzetto.denoiser import Adapted, noise
from bozzetto.distill.sds import Levels, residual, sds_gradient, uniform
from bozzetto.distill.vsd import Learner, vsd, vsd_gradient
from tests.twins.worlds import F64, Fitted, iso, seeded

M, S = 1.2, 0.49
LEVELS = (0.05, 0.6, 9.0)


def gaussian(mean, variance):
    """The exact denoiser of N(mean, variance) a coordinate, at levels as Stable Diffusion's."""

    def denoise(x, sigma, cond):
        s2 = torch.as_tensor(sigma, dtype=F64).view(-1, *[1] * (x.ndim - 1)) ** 2
        return (variance * x + s2 * mean) / (variance + s2)

    return Adapted(denoise, torch.logspace(-1.5, 1.2, 1000, dtype=F64))


def vp(sigma):
    """(alpha, sigma) of the papers' scale."""
    return 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5


def levels(n, sigma):
    return torch.full((n,), sigma, dtype=F64)


def test_vsd_1_renderings_that_are_the_priors_draws_have_no_gradient_anywhere():
    """q = p: the difference is 0 at every x_t, not on average."""
    x = 4 * torch.randn(200, 3, generator=seeded(), dtype=F64)
    for sigma in LEVELS:
        got = vsd_gradient(gaussian(M, S), gaussian(M, S), x, levels(200, sigma), generator=seeded(1), weight=uniform)
        assert torch.equal(got, torch.zeros_like(got))
        other = vsd_gradient(gaussian(M, S), gaussian(M, 2 * S), x, levels(200, sigma), generator=seeded(1), weight=uniform)
        assert other.abs().min() > 0  # the control


def test_vsd_2_renderings_that_are_one_point_are_distilled_as_by_sds_path_by_path():
    x, sigma = torch.randn(3, 4, generator=seeded(), dtype=F64), torch.tensor(LEVELS, dtype=F64)
    dirac = Adapted(lambda noisy, s, cond: x, torch.ones(1))
    got = vsd_gradient(gaussian(M, S), dirac, x, sigma, generator=seeded(2))
    want, _ = sds_gradient(gaussian(M, S), x, sigma, generator=seeded(2))
    assert torch.equal(got, want)


def test_vsd_3_mean_over_noise_and_over_renderings():
    """E[eps_p - eps_q | x] = alpha s [(x - m) / (alpha^2 S + s^2) - (x - mu) / (alpha^2 V + s^2)], and over q alpha s (mu - m) /
    (alpha^2 S + s^2), as of SDS; five standard errors of 200,000."""
    n, x, mu, V = 200_000, 1.9, -0.4, 0.16
    points = torch.full((n, 1), x, dtype=F64)
    cloud = mu + V**0.5 * torch.randn(n, 1, generator=seeded(3), dtype=F64)
    for sigma in LEVELS:
        a, s = vp(sigma)
        prior, own = a * a * S + s * s, a * a * V + s * s
        for where, want in ((points, a * s * ((x - M) / prior - (x - mu) / own)), (cloud, a * s * (mu - M) / prior)):
            got = vsd_gradient(gaussian(M, S), gaussian(mu, V), where, levels(n, sigma), generator=seeded(4), weight=uniform)
            assert abs(float(got.mean()) - want) < 5 * float(got.std()) / n**0.5


@pytest.mark.parametrize("start", [0.01, 4.0])
def test_vsd_4_particles_end_with_the_priors_variance_where_those_of_sds_end_with_none(start):
    """From N(-2, start), each step under the exact denoiser of the particles' mean and variance; they widen if and only if narrower."""
    prior, g, drawn = gaussian(M, S), seeded(5), Levels()
    variances, x = [], -2 + start**0.5 * torch.randn(256, 1, generator=g, dtype=F64)
    alone = x.clone()
    for step in range(1200):
        sigma = drawn.draw(prior, len(x), step, generator=g)
        own = gaussian(x.mean(), x.var(correction=0))
        x = x - 0.1 * vsd_gradient(prior, own, x, sigma, generator=g)
        alone = alone - 0.1 * sds_gradient(prior, alone, sigma, generator=g)[0]
        variances.append(float(x.var(correction=0)))
    assert float(x.mean()) == pytest.approx(M, abs=1e-3) and variances[-1] == pytest.approx(S, abs=1e-3)
    assert float(alone.mean()) == pytest.approx(M, abs=0.05) and float(alone.var()) < 0.1 * S  # what is left is the steps' noise
    assert (variances[100] > variances[0]) == (start < S)


def test_vsd_5_what_phi_has_learnt_takes_the_noise_out_of_sds():
    """eps_phi = E[noise | x_t], so that VSD is SDS' mean given x_t: the same mean, and a variance smaller by
    E Var[noise | x_t] = alpha^2 V / (alpha^2 V + s^2); five standard errors of 200,000."""
    n, mu, V = 200_000, -0.4, 0.16
    x = mu + V**0.5 * torch.randn(n, 1, generator=seeded(6), dtype=F64)
    for sigma in LEVELS:
        a, s = vp(sigma)
        plain, _ = sds_gradient(gaussian(M, S), x, levels(n, sigma), generator=seeded(7), weight=uniform)
        less = vsd_gradient(gaussian(M, S), gaussian(mu, V), x, levels(n, sigma), generator=seeded(7), weight=uniform)
        assert abs(float((plain - less).mean())) < 5 * float((plain - less).std()) / n**0.5
        taken = a * a * V / (a * a * V + s * s)
        spread = float((plain - plain.mean()).square().sub((less - less.mean()).square()).std()) / n**0.5
        assert abs(float(plain.var() - less.var()) - taken) < 5 * spread + 1e-9
        assert less.var() < plain.var()


def test_vsd_6_phi_learns_the_noise_of_a_cloud():
    """From N(0, 1) to N(-1.3, .2), by its training alone; at the end eps_phi is the closed form's within 2 % of the noise."""
    g, phi = seeded(8), Fitted((1,))
    learner = Learner(phi, torch.optim.Adam(phi.parameters(), lr=0.02))
    schedule = torch.optim.lr_scheduler.ExponentialLR(learner.optimiser, 0.995)
    for _ in range(900):
        cloud = -1.3 + 0.2**0.5 * torch.randn(512, 1, generator=g, dtype=F64)
        learner.learn(cloud, generator=g)
        schedule.step()
    x = torch.linspace(-4, 2, 30, dtype=F64)[:, None]
    for sigma in LEVELS:
        away = noise(phi, x, sigma) - noise(iso(0.2**0.5, mean=-1.3), x, sigma)
        assert away.abs().max() < 0.02 * max(1.0, float(noise(iso(0.2**0.5, mean=-1.3), x, sigma).abs().max()))


def test_the_loss_injects_its_gradient_and_none_reaches_either_denoiser():
    prior, own = Fitted((4,), 0.5), Fitted((4,), -0.5)
    x0 = torch.randn(3, 4, generator=seeded(9), dtype=F64, requires_grad=True)
    sigma = torch.tensor(LEVELS, dtype=F64)
    vsd(prior, own, x0, sigma, generator=seeded(10), weight=residual).backward()
    by_hand = vsd_gradient(prior, own, x0.detach(), sigma, generator=seeded(10), weight=residual)
    torch.testing.assert_close(x0.grad, by_hand / 3, rtol=1e-12, atol=1e-14)
    assert all(p.grad is None for p in [*prior.parameters(), *own.parameters()])


def test_one_sample_in_ten_is_learnt_without_its_label():
    """Binomial: 4 standard errors of 3,000."""
    phi, g = Fitted((1,)), seeded(11)
    learner = Learner(phi)
    x0 = torch.zeros(3000, 1, dtype=F64)
    learner.learn(x0, {"shift": torch.ones(3000, 1, dtype=F64)}, {"shift": torch.zeros(1, 1, dtype=F64)}, generator=g)
    share = 1 - float(phi.asked[0]["shift"].mean())
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / 3000) ** 0.5
    with pytest.raises(ValueError, match="dropped"):
        Learner(phi, dropped=1.5)


def test_a_learner_goes_on_from_its_state_to_the_same_numbers():
    def learner():
        return Learner(Fitted((2,)), dropped=0.0)

    x0, one = torch.randn(64, 2, generator=seeded(12), dtype=F64), learner()
    g = seeded(13)
    for _ in range(3):
        one.learn(x0, generator=g)
    kept = {k: v.clone() for k, v in one.state().items()}
    two, after = learner(), torch.Generator()
    two.restore(kept)
    after.set_state(g.get_state())
    assert [one.learn(x0, generator=g) for _ in range(3)] == [two.learn(x0, generator=after) for _ in range(3)]
    assert torch.equal(one.denoiser.mean, two.denoiser.mean)
    before = one.denoiser.mean.clone()
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        one.learn(x0 / 0, generator=g)
    assert torch.equal(one.denoiser.mean, before)
