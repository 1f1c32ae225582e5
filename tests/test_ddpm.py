# SPDX-License-Identifier: Apache-2.0
"""DDPM: closed forms, the whole bound by exact quadrature, and variances of its chain. c**2 is the variance of Gaussian data."""

import math

import pytest
import torch

from bozzetto.denoiser import Adapted
from bozzetto.diffusion.ddpm import (
    Bound,
    bound,
    bound_term,
    decoder_nll,
    gaussian_kl,
    gaussian_nll,
    posterior_mean,
    prior_term,
    process,
    process_of,
    reverse,
    sample,
)
from bozzetto.diffusion.improved import respaced
from bozzetto.diffusion.losses import noised
from bozzetto.diffusion.network import UNet
from bozzetto.diffusion.samplers import ancestral
from bozzetto.diffusion.schedules import alpha_bar, ladder, linear_betas, scaled_linear_betas, spaced, zero_terminal_snr
from tests.twins.worlds import F64, SIGMAS, Gaussian, seeded

P = process(linear_betas())


def scaled(T):
    """The published ends scaled by 1000 / T; at T = 10 that passes 1, where betas stop at .999."""
    return process(torch.linspace(0.1 / T, 20 / T, T, dtype=F64).clamp(max=0.999))


def exact(p, c2):
    """The eps-network of N(0, c2) data, and the exact reverse variance."""
    v = p.alpha_bar * c2 + 1 - p.alpha_bar
    before = p.alpha_bar_before * c2 + 1 - p.alpha_bar_before

    def network(x_t, k):
        return ((1 - p.alpha_bar).sqrt() / v)[k].view(-1, *[1] * (x_t.ndim - 1)) * x_t

    return network, p.betas * before / v, v


def quadrature():
    """Nodes and weights on which means of quadratics of two standard normals are exact: 0 and +-sqrt(3)."""
    n, w = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=F64), torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=F64)
    a, b = torch.meshgrid(n, n, indexing="ij")
    return a.reshape(-1, 1), b.reshape(-1, 1), (w[:, None] * w).flatten()


def expected_terms(p, c2, variance, levels=None):
    """E over x0 and noise of each term of the bound, (T,)."""
    unit, noise, w = quadrature()
    T, n = len(p), len(w)
    k = torch.arange(T).repeat_interleave(n)
    terms = bound_term(p, exact(p, c2)[0], c2**0.5 * unit.repeat(T, 1), noise.repeat(T, 1), k, levels=levels, variance=variance)
    return terms.view(T, n) @ w


def test_ddpm_1_one_step_gaussians_compose_to_the_marginal():
    mean, var = 1.0, 0.0
    for k in range(1000):
        b = float(P.betas[k])
        mean, var = math.sqrt(1 - b) * mean, (1 - b) * var + b
        if k in (0, 9, 499, 999):
            at = noised(torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), P.alpha_bar[k : k + 1])
            spread = noised(torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64), P.alpha_bar[k : k + 1])
            assert float(at) == pytest.approx(mean, abs=1e-14) and float(spread) ** 2 == pytest.approx(var, abs=1e-14)
    assert float(P.alpha_bar[-1]) == pytest.approx(4.035829765e-5, rel=1e-9)
    torch.testing.assert_close(process_of(P.alpha_bar).betas, P.betas, rtol=1e-9, atol=0)


def test_ddpm_2_posterior_is_bayes():
    g = seeded()
    x0, x_t = torch.randn(999, 1, generator=g, dtype=F64), torch.randn(999, 1, generator=g, dtype=F64)
    k = torch.arange(1, 1000)
    b, before = P.betas[k], P.alpha_bar_before[k]
    precision = (1 - b) / b + 1 / (1 - before)
    torch.testing.assert_close(P.beta_tilde[k], 1 / precision, rtol=1e-11, atol=0)
    mean = ((1 - b).sqrt()[:, None] * x_t / b[:, None] + (before.sqrt() / (1 - before))[:, None] * x0) / precision[:, None]
    torch.testing.assert_close(posterior_mean(P, x0, x_t, k), mean, rtol=1e-10, atol=1e-11)
    first = torch.zeros(999, dtype=torch.int64)
    torch.testing.assert_close(posterior_mean(P, x0, x_t, first), x0, rtol=0, atol=1e-12)
    assert float(P.beta_tilde[0]) == 0


def test_ddpm_2_posterior_on_a_grid():
    """q(x_{t-1} | x_0) q(x_t | x_{t-1}) normalised over a grid, with nothing known of Gaussians' products."""
    k, x0, x_t = 300, 0.7, -0.4
    b, before = float(P.betas[k]), float(P.alpha_bar_before[k])
    u = torch.linspace(-6, 6, 200_001, dtype=F64)
    log = -((u - before**0.5 * x0) ** 2) / (2 * (1 - before)) - (x_t - (1 - b) ** 0.5 * u) ** 2 / (2 * b)
    w = torch.softmax(log, 0)
    mean = float(w @ u)
    got = posterior_mean(P, torch.tensor([[x0]], dtype=F64), torch.tensor([[x_t]], dtype=F64), torch.tensor([k]))
    assert float(got) == pytest.approx(mean, abs=1e-10) and float(P.beta_tilde[k]) == pytest.approx(float(w @ (u - mean) ** 2), rel=1e-9)


def test_ddpm_3_three_forms_of_the_mean_part():
    """mu-form through `reverse`, eps-form with its weight, and half the difference of signal-to-noise ratios."""
    g = seeded(1)
    x0, noise, wrong = (torch.randn(999, 2, generator=g, dtype=F64) for _ in range(3))
    k = torch.arange(1, 1000)
    a, b, before, s2 = P.alpha_bar[k], P.betas[k], P.alpha_bar_before[k], P.beta_tilde[k]
    x_t = noised(x0, noise, a)
    mean, log_variance, guess = reverse(P, lambda x, s: wrong, x_t, k, variance="small")
    torch.testing.assert_close(log_variance[:, 0].exp(), s2, rtol=1e-12, atol=0)
    mu_form = ((posterior_mean(P, x0, x_t, k) - mean) ** 2).sum(1) / (2 * s2)
    eps_form = b**2 / (2 * s2 * (1 - b) * (1 - a)) * ((noise - wrong) ** 2).sum(1)
    snr_form = (before / (1 - before) - a / (1 - a)) / 2 * ((x0 - guess) ** 2).sum(1)
    torch.testing.assert_close(mu_form, eps_form, rtol=1e-10, atol=1e-12)  # 1 - alpha_bar of 1e-4 has lost four digits
    torch.testing.assert_close(snr_form, eps_form, rtol=1e-10, atol=1e-12)
    term = bound_term(P, lambda x, s: wrong, x0, noise, k, variance="small")
    torch.testing.assert_close(term, eps_form, rtol=1e-10, atol=1e-12)  # equal variances: the mean part is all
    mean_direct = (x_t - (b / (1 - a).sqrt())[:, None] * wrong) / (1 - b).sqrt()[:, None]
    torch.testing.assert_close(mean, mean_direct, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("c2", [0.25, 1.0, 4.0])
def test_ddpm_4_exact_reverse_of_gaussian_data(c2):
    network, variance, v = exact(P, c2)
    k = torch.arange(1000)
    x_t = torch.randn(1000, 1, generator=seeded(2), dtype=F64)
    mean, log_variance, _ = reverse(P, network, x_t, k, variance=variance)
    before = P.alpha_bar_before * c2 + 1 - P.alpha_bar_before
    torch.testing.assert_close(mean[:, 0], (1 - P.betas).sqrt() * before / v * x_t[:, 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_variance[:, 0].exp(), variance, rtol=1e-12, atol=0)
    if c2 == 1:
        torch.testing.assert_close(variance, P.betas, rtol=1e-12, atol=0)
    elif c2 < 1:
        assert bool(((variance > P.beta_tilde) & (variance < P.betas)).all())
    point = exact(P, 1e-12)[1]
    torch.testing.assert_close(point[1:], P.beta_tilde[1:], rtol=1e-7, atol=0)


@pytest.mark.parametrize("T", [10, 100, 1000])
def test_ddpm_5_the_bound_is_the_likelihood_when_the_reverse_is_exact(T):
    """E[bound] = H(x0) + (v_T - 1 - ln v_T) / 2 for every T: means by exact quadrature, the decoder continuous."""
    c2 = 0.25
    p = process(linear_betas(T, 1e-4, 0.02)) if T > 100 else process(linear_betas(T, 0.01, 0.5))
    _, variance, v = exact(p, c2)
    unit, _, w = quadrature()
    total = float(expected_terms(p, c2, variance).sum() + prior_term(p, c2**0.5 * unit) @ w)
    entropy = 0.5 * math.log(2 * math.pi * math.e * c2)
    gap = float(v[-1] - 1 - v[-1].log()) / 2
    assert total == pytest.approx(entropy + gap, abs=1e-11)
    if T == 1000:
        assert gap == pytest.approx(2.3e-10, abs=0.05e-10)


@pytest.mark.slow
def test_ddpm_6_what_a_wrong_variance_costs():
    """Excess over the exact variance's bound, sum over k >= 1, nats a dimension; c = .5, k = 0 exact."""
    for T, large in [(10, 0.12175), (100, 0.010958), (1000, 0.0010922), (4000, 0.000273)]:
        p = scaled(T)
        _, variance, _ = exact(p, 0.25)
        best = expected_terms(p, 0.25, variance)
        s2 = p.betas.clone()
        s2[0] = variance[0]
        assert float((expected_terms(p, 0.25, s2) - best).sum()) == pytest.approx(large, rel=2e-3)
    for T, small in [(1000, 0.45635), (4000, 0.34558), (1_000_000, 0.28910)]:
        p = scaled(T)
        _, variance, _ = exact(p, 0.25)
        s2 = p.beta_tilde.clone()
        s2[0] = variance[0]
        excess = float((expected_terms(p, 0.25, s2) - expected_terms(p, 0.25, variance)).sum())
        r = (variance / s2)[1:]
        assert excess == pytest.approx(small, rel=1e-4) and excess == pytest.approx(float((r - 1 - r.log()).sum() / 2), rel=1e-9)
    _, variance, _ = exact(P, 1.0)
    torch.testing.assert_close(variance, P.betas, rtol=1e-12, atol=0)  # c = 1: "large" costs nothing


def test_ddpm_6_the_small_variance_never_costs_less_than_half_of_eulers_gamma():
    """r_k tends to (k + 1) / k near the data, whatever the schedule: the sum of (1 / k - ln(1 + 1 / k)) / 2 is gamma / 2 = .288608."""
    gamma = 0.5772156649015329
    k = torch.arange(1, 1_000_001, dtype=F64)
    terms = (1 / k - torch.log1p(1 / k)) / 2
    assert float(terms.sum()) == pytest.approx(gamma / 2, abs=1e-6)  # the tail of n terms is 1 / 4 n
    p = scaled(1_000_000)
    r = (exact(p, 0.25)[1] / p.beta_tilde)[1:]
    torch.testing.assert_close((r - 1 - r.log())[:50] / 2, terms[:50], rtol=0.02, atol=0)


def test_ddpm_7_decoder_is_a_distribution_and_the_prior_term_is_small():
    levels = torch.arange(256, dtype=F64) * 2 / 255 - 1
    for mean in (-1.2, -0.3, 0.0, 0.99, 5.0):
        for log_variance in (-14.0, -6.0, 0.0, 3.0):
            p = (-decoder_nll(levels, torch.tensor(mean, dtype=F64), torch.tensor(log_variance, dtype=F64))).exp()
            assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    narrow = decoder_nll(levels, torch.tensor(0.9, dtype=F64), torch.tensor(-12.0, dtype=F64))
    assert bool(torch.isfinite(narrow).all())  # 760 deviations away: a mass of 1e-126000 has a logarithm
    for log_variance in (-12.0, 0.0):
        mean = torch.full((256,), 0.9, requires_grad=True)
        decoder_nll(levels.float(), mean, torch.tensor(log_variance)).sum().backward()
        assert bool(torch.isfinite(mean.grad).all())  # in float32 too, edge bins and far tails
    wide = decoder_nll(levels[1:-1], torch.tensor(0.1, dtype=F64), torch.tensor(1.0, dtype=F64))
    dense = gaussian_nll(levels[1:-1], torch.tensor(0.1, dtype=F64), torch.tensor(1.0, dtype=F64)) - math.log(2 / 255)
    torch.testing.assert_close(wide, dense, rtol=0, atol=1e-5)  # a bin of 2 / 255: second order in its width
    x0 = torch.full((1, 4), 0.5, dtype=F64)
    assert Bound(prior_term(P, x0), torch.zeros(1, 1000, dtype=F64)).bits_per_dim(4).item() == pytest.approx(7.3e-6, rel=0.01)


@pytest.mark.parametrize(
    ("c2", "variance", "want"),
    [(1.0, "large", 0.9999), (1.0, "small", 0.991067), (0.25, "large", 0.250752), (0.25, "small", 0.246125), (0.25, "exact", 0.249900)],
)
def test_ddpm_8_variance_of_what_the_chain_draws(c2, variance, want):
    """The chain is linear: its variance follows from `reverse` at x = 1; the last step is the mean alone."""
    network, best, _ = exact(P, c2)
    k = torch.arange(1000)
    mean, log_variance, _ = reverse(P, network, torch.ones(1000, 1, dtype=F64), k, variance=best if variance == "exact" else variance)
    v = 1.0
    for a, s2, step in zip(mean[:, 0].flip(0).tolist(), log_variance[:, 0].exp().flip(0).tolist(), k.flip(0).tolist(), strict=True):
        v = a**2 * v + (s2 if step else 0.0)
    assert v == pytest.approx(want, abs=1.01e-6 if want != 0.9999 else 1e-7)


def test_ddpm_8_sampling_follows_that_recursion():
    p, n = scaled(30), 50_000
    network, _, _ = exact(p, 0.25)
    x = sample(p, network, torch.randn(n, 1, generator=seeded(3), dtype=F64), generator=seeded(4), variance="large")
    mean, log_variance, _ = reverse(p, network, torch.ones(30, 1, dtype=F64), torch.arange(30), variance="large")
    v = 1.0
    for k in range(29, -1, -1):
        v = float(mean[k]) ** 2 * v + (float(log_variance[k].exp()) if k else 0.0)
    assert float(x.var()) == pytest.approx(v, abs=5 * v * math.sqrt(2 / n))


def test_ddim_1_ancestral_on_the_one_view_is_this_chain_with_small_variance():
    """The same noise, T = 50, clipping off; the first draw at k = 0 has no counterpart, as beta~ is 0 there."""
    p = process(linear_betas(50, 0.002, 0.3))
    network, _, _ = exact(p, 0.25)
    x_T = torch.randn(20, 3, generator=seeded(5), dtype=F64)
    native = sample(p, network, x_T, generator=seeded(6), variance="small")
    world = Gaussian([0.0] * 3, 0.25 * torch.eye(3))
    got = ancestral(world, x_T / p.alpha_bar[-1].sqrt(), ladder(p.alpha_bar, spaced(50, 50)), generator=seeded(6))
    torch.testing.assert_close(got, native, rtol=0, atol=1e-11)


def test_ddim_1_clipped_and_respaced_chains_agree_too():
    """Clipping x0 inside the denoiser makes the sampler derive eps from the clipped one, as DDPM's mean does."""
    p, net = respaced(P, exact(P, 4.0)[0], spaced(1000, 20, "linspace").flip(0))
    x_T = torch.randn(20, 3, generator=seeded(11), dtype=F64)
    native = sample(p, net, x_T, generator=seeded(12), variance="small", clip=1.0)
    clipped = Adapted(lambda x, s, c: Gaussian([0.0] * 3, 4 * torch.eye(3)).denoise(x, s).clamp(-1, 1), SIGMAS)
    got = ancestral(clipped, x_T / p.alpha_bar[-1].sqrt(), ladder(P.alpha_bar, spaced(1000, 20, "linspace")), generator=seeded(12))
    torch.testing.assert_close(got, native, rtol=0, atol=1e-11)
    assert float((native - sample(p, net, x_T, generator=seeded(12), variance="small")).abs().max()) > 0.1  # the clip was felt


def test_ddpm_9_published_layouts_have_the_published_sizes():
    """Parameters of our U-Net in the layouts of the CIFAR-10 and the 256-pixel models; that it is diffusers' too: `test_diffusers.py`."""
    for widths, at, want in [((1, 2, 2, 2), 1, 35_746_307), ((1, 1, 2, 2, 4, 4), 4, 113_673_219)]:
        with torch.device("meta"):
            net = UNet(3, [128 * w for w in widths], 2, (at,), groups=32)
        assert sum(q.numel() for q in net.parameters()) == want


def test_ddpm_9_the_output_is_zero_before_training():
    """The last convolution starts at 0, so the first loss of an eps-network is exactly the mean of noise**2; every weight can learn."""
    net = UNet(1, (8, 16), 1, (1,), patch=2, generator=seeded(30))
    x_t, k = torch.randn(3, 1, 8, 12, generator=seeded(31)), torch.tensor([0, 500, 999])
    assert float(net(x_t, k).abs().max()) == 0
    assert torch.equal(net.first.weight, UNet(1, (8, 16), 1, (1,), patch=2, generator=seeded(30)).first.weight)
    for module in net.modules():  # wake what starts at 0
        if isinstance(module, torch.nn.Conv2d) and float(module.weight.detach().abs().max()) == 0:
            torch.nn.init.normal_(module.weight, 0, 0.05, generator=seeded(32))
    out = net(x_t, k)
    assert out.shape == x_t.shape and not torch.allclose(out, net(x_t, k.flip(0)))  # the step is heard
    torch.testing.assert_close(out[1:2], net(x_t[1:2], k[1:2]), rtol=1e-4, atol=1e-6)  # samples do not mix
    out.square().sum().backward()
    assert all(q.grad is not None and float(q.grad.abs().max()) > 0 for q in net.parameters())
    with pytest.raises(ValueError, match="multiples of 4"):
        net(x_t[..., :10], k)


def test_zero_terminal_signal_is_exact_here():
    """alpha_bar = 0 at the end: v-prediction starts from noise alone, L_T is exactly 0, and nothing is non-finite."""
    p = process_of(zero_terminal_snr(alpha_bar(scaled_linear_betas()), last=0.0))
    x0 = torch.randn(3, 2, generator=seeded(7), dtype=F64)
    assert float(p.betas[-1]) == 1 and float(prior_term(p, x0).abs().max()) == 0
    k = torch.full((3,), 999)
    _, _, guess = reverse(p, lambda x, s: -x0, torch.randn(3, 2, generator=seeded(8), dtype=F64), k, prediction="v")
    assert torch.equal(guess, x0)


def test_clipping_moves_x0_alone_and_the_bound_adds_up():
    k = torch.tensor([500, 500])
    x_t = torch.tensor([[3.0], [-3.0]], dtype=F64)
    mean, _, x0 = reverse(P, lambda x, s: torch.zeros_like(x), x_t, k, clip=1.0)
    assert x0.tolist() == [[1.0], [-1.0]] and torch.equal(mean, posterior_mean(P, x0, x_t, k))
    p = process(linear_betas(20, 0.005, 0.4))
    x0 = (torch.randint(256, (4, 5), generator=seeded(9)).double()) * 2 / 255 - 1
    whole = bound(p, exact(p, 0.3)[0], x0, generator=seeded(10))
    g = seeded(10)
    by_hand = prior_term(p, x0)
    for step in range(20):
        noise = torch.randn(4, 5, generator=g, dtype=F64)
        by_hand = by_hand + bound_term(p, exact(p, 0.3)[0], x0, noise, torch.full((4,), step))
    torch.testing.assert_close(whole.nats(), by_hand, rtol=1e-13, atol=0)
    torch.testing.assert_close(whole.bits_per_dim(5), by_hand / (5 * math.log(2)), rtol=1e-13, atol=0)


def test_kl_of_gaussians_by_quadrature():
    u = torch.linspace(-20, 20, 400_001, dtype=F64)
    m1, l1, m2, l2 = (torch.tensor(q, dtype=F64) for q in (0.3, -0.5, -1.0, 0.8))
    p, q = -gaussian_nll(u, m1, l1), -gaussian_nll(u, m2, l2)
    assert float((p.exp() * (p - q)).sum() * 1e-4) == pytest.approx(float(gaussian_kl(m1, l1, m2, l2)), abs=1e-10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: process(torch.tensor([0.1, 1.5])), "in \\(0, 1\\]"),
        (lambda: process_of(torch.tensor([0.5, 0.9])), "in \\(0, 1\\]"),
        (lambda: reverse(P, lambda x, k: x[:, :1], torch.zeros(2, 3), torch.zeros(2).long()), "the shape"),
        (lambda: reverse(P, lambda x, k: x, torch.zeros(2, 3), torch.zeros(2).long(), variance="learned"), "twice the channels"),
        (lambda: sample(P, lambda x, k: x * math.nan, torch.zeros(2, 3), generator=seeded()), "step 999"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
