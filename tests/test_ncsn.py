# SPDX-License-Identifier: Apache-2.0
"""Annealed Langevin dynamics and its kin against linear recursions; the network of NCSN piece by piece."""

import math

import pytest
import torch

from bozzetto.denoiser import ScoreDenoiser, noise_like
from bozzetto.diffusion.samplers import heun
from bozzetto.scores.ladder import geometric
from bozzetto.scores.langevin import from_b, ula
from bozzetto.scores.matching import denoising
from bozzetto.scores.ncsn import NCSN_EPS, annealed_langevin, corrector_eps, predictor_corrector
from bozzetto.scores.network import NCSN, ConditionalInstanceNorm
from bozzetto.scores.parzen import Empirical
from tests.twins.worlds import F64, Mixture, iso, seeded

LADDER = geometric(1.0, 0.01, 10)


def recursion(lam, mu, sigmas, eps_L, T, m, V, denoise=False):
    """Mean and variance of the chain on N(mu, lam), convention A, as NCSN-3 has it."""
    for s in sigmas.tolist():
        a = eps_L * (s / float(sigmas[-1])) ** 2
        for _ in range(T):
            k = 1 - a / (2 * (lam + s**2))
            m, V = mu + k * (m - mu), k**2 * V + a
    if denoise:
        shrink = lam / (lam + float(sigmas[-1]) ** 2)
        m, V = mu + shrink * (m - mu), shrink**2 * V
    return m, V


def run(lam, mu, sigmas, eps_L, T, n, seed, **choices):
    x = torch.rand(n, 1, generator=seeded(seed), dtype=F64)
    return annealed_langevin(iso(math.sqrt(lam), 1, mu), x, sigmas, eps_L, T, generator=seeded(seed + 1), **choices)


@pytest.mark.parametrize(
    ("sigmas", "eps_L", "T", "denoise", "tabled"),
    [
        (LADDER, NCSN_EPS, 100, False, 0.066405),
        (LADDER, from_b(NCSN_EPS), 100, False, 0.064532),
        (geometric(50.0, 0.01, 232), from_b(6.2e-6), 5, True, 0.071052),
    ],
)
def test_ncsn_3_on_a_gaussian_the_chain_is_a_linear_recursion(sigmas, eps_L, T, denoise, tabled):
    """The paper's step, the released code's, and NCSNv2's settings; start even on [0, 1)."""
    lam, mu, n = 0.0625, 0.3, 3000
    m, V = recursion(lam, mu, sigmas, eps_L, T, 0.5, 1 / 12, denoise)
    assert pytest.approx(tabled, abs=1e-6) == V
    x = run(lam, mu, sigmas, eps_L, T, n, 0, final_denoise=denoise)
    assert float(x.mean()) == pytest.approx(m, abs=5 * math.sqrt(V / n))
    assert float(x.var()) == pytest.approx(V, abs=5 * V * math.sqrt(2 / n))


def test_ncsn_2_loss_floor_at_each_level():
    """sum lambda / (lambda + sigma**2) / 2 for the exact model, D / 2 for none; the target's variance is 1."""
    n, lam, D = 50_000, 0.0625, 2
    G, g = iso(math.sqrt(lam), D), seeded(2)
    for s in (1.0, 0.1, 0.01):
        x0, noise = G.draw(n, g), torch.randn(n, D, generator=g, dtype=F64)
        for loss, want in [
            (denoising(lambda x, s=s: G.score(x, s), x0, noise, s), D * lam / (lam + s**2) / 2),
            (denoising(torch.zeros_like, x0, noise, s), D / 2),
        ]:
            assert float(loss.mean()) == pytest.approx(want, abs=5 * float(loss.std()) / math.sqrt(n))


def weights(T, n):
    """The notes' mixture as its code has it: levels are the components' whole deviation, 20 to 1, so the data are two points."""
    points = torch.tensor([[5.0, 5.0]] * 4 + [[-5.0, -5.0]], dtype=F64)
    x = 16 * torch.rand(n, 2, generator=seeded(3), dtype=F64) - 8
    x = annealed_langevin(Empirical(points), x, geometric(20.0, 1.0, 10), 0.1, T, generator=seeded(4))
    return float((x.sum(1) > 0).double().mean())


def test_ncsn_4_annealing_recovers_the_weights_that_plain_langevin_misses():
    n = 3000
    weight = weights(100, n)
    assert 0.75 < weight < 0.82 and weight == pytest.approx(0.783, abs=5 * math.sqrt(0.17 / n))
    notes = Mixture([0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [1.0, 1.0])
    x = 16 * torch.rand(1000, 2, generator=seeded(5), dtype=F64) - 8
    plain = float((ula(notes.score, x, 0.1, 200, generator=seeded(6)).sum(1) > 0).double().mean())
    assert weight > plain + 0.2


@pytest.mark.slow
def test_ncsn_4_within_two_hundredths_at_100_steps_a_level_and_one_at_1000():
    """15,000 chains each: .783 and .798 were computed from the recursion's simulation."""
    assert weights(100, 15_000) == pytest.approx(0.8, abs=0.02)
    assert weights(1000, 15_000) == pytest.approx(0.8, abs=0.01)


def test_ncsn_5_point_data_keep_a_little_too_much_variance():
    """1 / (1 - eps / 4 sigma_L**2); the released code's step gives 1.1111."""
    _, V = recursion(0.0, 0.0, LADDER, from_b(NCSN_EPS), 100, 0.5, 1 / 12)
    ratio = V / 0.01**2
    assert ratio == pytest.approx(1.1111, abs=5e-5) and ratio == pytest.approx(1 / (1 - 4e-5 / 4e-4), rel=1e-6)
    n, start = 2000, torch.rand(2000, 1, generator=seeded(7), dtype=F64)
    x = annealed_langevin(Empirical(torch.zeros(1, 1, dtype=F64)), start, LADDER, from_b(NCSN_EPS), 100, generator=seeded(8))
    assert float(x.var()) / 0.01**2 == pytest.approx(1.1111, abs=5 * 1.1111 * math.sqrt(2 / n))


def test_v2_4_the_last_denoising_gives_points_exactly():
    point = torch.tensor([[0.3, 0.7]], dtype=F64)
    x = torch.rand(5, 2, generator=seeded(9), dtype=F64)
    for sampler in (
        annealed_langevin(Empirical(point), x, LADDER, NCSN_EPS, 3, generator=seeded(10), final_denoise=True),
        predictor_corrector(Empirical(point), x, LADDER, generator=seeded(11)),
    ):
        torch.testing.assert_close(sampler, point.expand(5, 2), rtol=0, atol=1e-15)


def test_sde_3_reverse_sde_and_probability_flow_share_their_marginals():
    """On N(0, c**2) both variance curves tend to c**2 + sigma**2 at every level; the SDE's error is of first order in the step."""
    c2, n = 0.25, 5000
    errors = []
    for L in (100, 200):
        sigmas = geometric(20.0, 0.1, L)
        V = c2 + 20.0**2
        for s, s_next in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            d = s**2 - s_next**2
            V = (1 - d / (c2 + s**2)) ** 2 * V + d
        errors.append(V / (c2 + 0.1**2) - 1)
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2) and abs(errors[1]) < 0.05
    x = math.sqrt(c2 + 400) * torch.randn(n, 1, generator=seeded(12), dtype=F64)
    sde = predictor_corrector(iso(0.5), x, sigmas, corrections=0, generator=seeded(13), final_denoise=False)
    assert float(sde.var()) == pytest.approx(V, abs=5 * V * math.sqrt(2 / n))
    ode = heun(iso(0.5), x, sigmas)
    assert float(ode.var()) == pytest.approx(c2 + 0.01, abs=5 * 0.26 * math.sqrt(2 / n))


def test_the_corrector_has_the_signal_to_noise_ratio_it_is_given():
    """|eps / 2 s| / |sqrt(eps) z| = snr, in the mean norms it is defined by; and correcting leaves a stationary law alone."""
    s, z = (torch.randn(9, 4, generator=seeded(i), dtype=F64) for i in (14, 15))
    eps = corrector_eps(z, 3 * s, 0.16)
    ratio = (eps / 2 * 3 * s).norm(dim=1).mean() / (eps.sqrt() * z).norm(dim=1).mean()
    assert float(ratio) == pytest.approx(0.16, rel=1e-12)
    G, n = iso(0.5, 8), 4000
    x = math.sqrt(0.25 + 1) * torch.randn(n, 8, generator=seeded(16), dtype=F64)
    out = predictor_corrector(G, x, torch.tensor([1.0]), corrections=30, generator=seeded(17), final_denoise=False)
    # stationary: eps = 4 snr**2 |z|**2 / |s|**2 with |s|**2 = D / V makes eps / 4 V = snr**2
    V = 1.25 / (1 - 0.16**2)
    assert float(out.var()) == pytest.approx(V, abs=5 * V * math.sqrt(2 / (8 * n)))


def test_start_of_the_chain_by_generator_alone():
    x = torch.rand(3, 1, generator=seeded(18), dtype=F64)
    a = annealed_langevin(iso(0.5), x, LADDER, NCSN_EPS, 2, generator=[seeded(i) for i in range(3)])
    b = annealed_langevin(iso(0.5), x[1:2], LADDER, NCSN_EPS, 2, generator=[seeded(1)])
    assert torch.allclose(a[1:2], b, rtol=0, atol=1e-14) and noise_like(x, seeded()).shape == x.shape


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: annealed_langevin(iso(1.0), x, LADDER.flip(0), 2e-5, 1, generator=seeded()), "largest first"),
        (lambda x: annealed_langevin(iso(1.0), x, torch.tensor([1.0, 0.0]), 2e-5, 1, generator=seeded()), "sigma_L > 0"),
        (lambda x: annealed_langevin(iso(1.0), x, LADDER, 5e-4, 1, generator=seeded()), "eps_L"),
        (lambda x: annealed_langevin(Empirical(x * math.nan), x, LADDER, 2e-5, 1, generator=seeded()), "step 0, sigma 1: "),
        (lambda x: predictor_corrector(iso(1.0), x, torch.tensor([1.0, 0.0]), generator=seeded()), "above 0"),
        (lambda x: NCSN(1, 4, 3, LADDER, generator=seeded()), "each of 3 levels"),
        (lambda x: NCSN(1, 4, 3, generator=seeded())(torch.zeros(2, 1, 7, 8), torch.zeros(2).long()), "even sides"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.zeros(2, 1, dtype=F64))


def test_instance_norm_plus_plus_is_the_papers_formula():
    norm = ConditionalInstanceNorm(5, 3, generator=seeded(19))
    torch.nn.init.normal_(norm.beta, generator=seeded(20))
    x, level = torch.randn(2, 5, 4, 6, generator=seeded(21)) * 2 + 1, torch.tensor([2, 0])
    got = norm(x, level)
    for b in range(2):
        mu = [float(x[b, k].mean()) for k in range(5)]
        m, v = sum(mu) / 5, math.sqrt(sum((u - sum(mu) / 5) ** 2 for u in mu) / 4 + 1e-5)
        for k in range(5):
            s = math.sqrt(float(x[b, k].var(correction=0)) + 1e-5)
            row = [float(p[level[b], k].detach()) for p in (norm.gamma, norm.beta, norm.alpha)]
            want = row[0] * (x[b, k] - mu[k]) / s + row[1] + row[2] * (mu[k] - m) / v
            torch.testing.assert_close(got[b, k], want, rtol=1e-4, atol=1e-5)
    plain = torch.nn.functional.instance_norm(x)
    assert float(plain.mean((2, 3)).abs().max()) < 1e-5 < float(got.detach().mean((2, 3)).std())  # plain loses the colours


def test_the_network_is_conditional_differentiable_and_reproducible():
    net = NCSN(3, 8, 4, generator=seeded(22))
    x = torch.rand(4, 3, 8, 12, generator=seeded(23))
    out = net(x, torch.arange(4))
    assert out.shape == x.shape
    same = net(x[:1].expand(4, -1, -1, -1), torch.arange(4))
    assert float((same[1:] - same[:1]).abs().amax((1, 2, 3)).min()) > 1e-4  # the level matters
    out.square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()) and float(p.grad.abs().sum()) > 0, name
    twin = NCSN(3, 8, 4, generator=seeded(22))
    assert torch.equal(twin(x, torch.arange(4)), out) and not torch.equal(NCSN(3, 8, 4, generator=seeded(24))(x, torch.arange(4)), out)


def test_ncsnv2s_output_is_divided_by_sigma():
    sigmas = geometric(2.0, 0.5, 3)
    plain, scaled = NCSN(1, 4, 3, generator=seeded(25)), NCSN(1, 4, 3, sigmas, generator=seeded(25))
    x, level = torch.rand(3, 1, 8, 8, generator=seeded(26)), torch.arange(3)
    torch.testing.assert_close(scaled(x, level), plain(x, level) / sigmas.float().view(-1, 1, 1, 1), rtol=1e-5, atol=1e-6)


def test_a_score_network_samples_through_its_adapter_and_learns():
    """A few steps of training lower the loss, and annealed Langevin runs on the result as on any denoiser."""
    g, sigmas = seeded(27), geometric(1.0, 0.1, 3)
    net = NCSN(1, 4, 3, sigmas, generator=g)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    x0 = torch.full((8, 1, 8, 8), 0.5)
    x0[:, :, :, :4] = 0.0
    losses = []
    for _ in range(10):
        level = torch.randint(3, (8,), generator=g)
        noise = torch.randn(x0.shape, generator=g)
        loss = denoising(lambda x, level=level: net(x, level), x0, noise, sigmas[level]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    out = annealed_langevin(ScoreDenoiser(net, sigmas), torch.rand(2, 1, 8, 8, generator=g), sigmas, 0.002, 3, generator=g)
    assert out.shape == (2, 1, 8, 8) and bool(torch.isfinite(out).all())
