# SPDX-License-Identifier: Apache-2.0
"""Langevin dynamics and SGLD: stationary laws with their bias, the notes' failure, posteriors."""

import itertools
import math

import pytest
import torch

from bozzetto.scores.langevin import from_b, langevin_step, mala, minibatch_gradient, polynomial_steps, sgld, ula
from tests.twins.worlds import F64, Gaussian, Mixture, iso, seeded

NOTES = Mixture([0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [1.0, 1.0])


def near_variance(x, v, n=None):
    assert float(x.var()) == pytest.approx(v, abs=5 * v * math.sqrt(2 / (n or len(x))))


def test_ld_1_the_stationary_variance_is_biased():
    n, eps = 100_000, 0.5
    x = ula(iso(1.0).score, torch.randn(n, 1, generator=seeded(), dtype=F64), eps, 60, generator=seeded(1))
    near_variance(x, 8 / 7)
    assert abs(float(x.var()) - 1) > 0.1
    alpha = eps / 2  # convention B's formula, with B's number
    assert 1 / (1 - alpha / 2) == pytest.approx(8 / 7) and from_b(alpha) == eps
    grown = ula(iso(1.0).score, torch.ones(1, 1, dtype=F64), 4.1, 200, generator=None)
    held = ula(iso(1.0).score, torch.ones(1, 1, dtype=F64), 3.9, 200, generator=None)
    assert float(grown.abs()) > 1e3 and float(held.abs()) < 1e-3  # stable iff eps < 4 lambda


def test_ld_2_moments_after_some_steps_and_autocorrelation():
    lam, eps, n, steps = 2.0, 0.8, 200_000, 5
    a, v_inf = 1 - eps / (2 * lam), lam / (1 - eps / (4 * lam))
    G = iso(math.sqrt(lam), 1, 3.0)
    x0 = -1 + 0.5 * torch.randn(n, 1, generator=seeded(2), dtype=F64)
    x = ula(G.score, x0, eps, steps, generator=seeded(3))
    v = a ** (2 * steps) * (0.25 - v_inf) + v_inf
    assert float(x.mean()) == pytest.approx(3 + a**steps * (-1 - 3), abs=5 * math.sqrt(v / n))
    near_variance(x, v)
    still = ula(G.score, x0, eps, steps, generator=None)
    torch.testing.assert_close(still, 3 + a**steps * (x0 - 3), rtol=1e-12, atol=1e-12)
    settled = 3 + math.sqrt(v_inf) * torch.randn(n, 1, generator=seeded(4), dtype=F64)
    after = ula(G.score, settled, eps, 1, generator=seeded(5))
    correlation = float(torch.corrcoef(torch.cat([settled, after], 1).T)[0, 1])
    assert correlation == pytest.approx(a, abs=5 * (1 - a**2) / math.sqrt(n))


def test_ld_3_covariance_of_a_full_gaussian_solves_its_equation():
    cov, eps, n = torch.tensor([[2.0, 0.9], [0.9, 0.7]], dtype=F64), 0.4, 100_000
    A = torch.eye(2, dtype=F64) - eps / 2 * torch.linalg.inv(cov)
    V = (torch.linalg.inv(torch.eye(4, dtype=F64) - torch.kron(A, A)) @ (eps * torch.eye(2, dtype=F64)).flatten()).view(2, 2)
    x = ula(Gaussian([0.0, 0.0], cov).score, torch.randn(n, 2, generator=seeded(6), dtype=F64), eps, 150, generator=seeded(7))
    se = (V**2 + V.diagonal()[:, None] * V.diagonal()).div(n).sqrt()
    torch.testing.assert_close(torch.cov(x.T) / se, V / se, rtol=0, atol=5.0)
    assert float((V - cov).abs().max()) > 0.1


def test_ld_4_plain_langevin_finds_basins_not_weights():
    """The notes' experiment: .5088 of the chains end in the mode that has weight .8."""
    n = 8000
    x = 16 * torch.rand(n, 2, generator=seeded(8), dtype=F64) - 8
    basin = float((x.sum(1) > -math.log(4) / 10).double().mean())
    x = ula(NOTES.score, x, 0.1, 1000, generator=seeded(9))
    weight = float((x.sum(1) > 0).double().mean())
    assert weight == pytest.approx(0.5086, abs=5 * math.sqrt(0.25 / n)) and weight == pytest.approx(basin, abs=0.01) and weight < 0.6
    near_variance(x[x.sum(1) > 0][:, 0], 1 / (1 - 0.1 / 4))


def test_ld_5_score_matching_cannot_see_the_weights_of_separated_modes():
    """Fisher divergence and KL between weights .8 and .5 of modes at +-5, by quadrature, over noise levels."""
    x = torch.linspace(-120, 120, 48_001, dtype=F64)[:, None]
    true, model = (Mixture([w, 1 - w], [[5.0], [-5.0]], [1.0, 1.0]) for w in (0.8, 0.5))
    seen = []
    for sigma, fisher, kl in [(0, 2.3e-6, 0.193), (2, 4.4e-3, 0.185), (5, 2.4e-3, 0.102), (20, 2.5e-5, 0.011)]:
        log_p, log_q = true.log_density(x, sigma), model.log_density(x, sigma)
        w = log_p.exp() * (x[1] - x[0])
        divergence = float(w @ (true.score(x, sigma) - model.score(x, sigma)).square().sum(1)) / 2
        assert divergence == pytest.approx(fisher, rel=0.03) and float(w @ (log_p - log_q)) == pytest.approx(kl, rel=0.04)
        seen.append(sigma**2 * divergence)
    assert max(seen) == seen[2]  # weighted by sigma**2 it peaks near 5


def test_mala_removes_the_bias():
    n, eps = 40_000, 0.9
    x, rate = mala(lambda x: -x.square().sum(1) / 2, torch.randn(n, 1, generator=seeded(10), dtype=F64) + 2, eps, 40, generator=seeded(11))
    near_variance(x, 1.0)  # plain Langevin settles at 1 / (1 - .9 / 4) = 1.29
    assert float(x.mean()) == pytest.approx(0, abs=5 / math.sqrt(n)) and 0.8 < rate < 1
    M = Mixture([0.3, 0.7], [[-1.0], [1.0]], [0.6, 0.8])
    x, _ = mala(M.log_density, torch.randn(n, 1, generator=seeded(12), dtype=F64), 0.5, 80, generator=seeded(13))
    for at in (-1.5, 0.0, 1.2):
        p = float(M.cdf(torch.tensor([at], dtype=F64)))
        assert float((x < at).double().mean()) == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n))


def model(N=100, tau2=1.0, s2=1.0, seed=14):
    """theta ~ N(0, tau2), data ~ N(theta, s2): gradients, data, posterior mean and variance."""
    data = 0.7 + torch.randn(N, 1, generator=seeded(seed), dtype=F64) * s2**0.5
    V = 1 / (1 / tau2 + N / s2)
    return lambda t: -t / tau2, lambda t, b: (b.sum() - len(b) * t) / s2, data, V * float(data.sum()) / s2, V


def test_sgld_1_full_batches_settle_on_langevins_variance():
    prior, likelihood, data, mean, V = model()
    eps = 0.5 * V
    start = mean + math.sqrt(V) * torch.randn(20_000, 1, generator=seeded(15), dtype=F64)
    x = sgld(prior, likelihood, data, start, [eps] * 60, 100, generator=seeded(16))[-1]
    near_variance(x, V / (1 - eps / (4 * V)))
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(1.2 * V / 20_000))


def test_sgld_2_minibatches_add_their_variance():
    """One batch a step for all chains here, so the average is over time: an AR(1) chain, a = 1 - eps / 2V, its variance the formula's."""
    prior, likelihood, data, mean, V = model()
    N, n, eps = 100, 10, 0.2 * V
    S2 = float(data.var(correction=0))
    data = (data - data.mean()) / math.sqrt(S2) + data.mean()  # so that S**2 = 1
    G = N**2 / n * (N - n) / (N - 1)  # without replacement
    want = (eps + eps**2 * G / 4) / (1 - (1 - eps / (2 * V)) ** 2)
    steps = 25_000
    a = 1 - eps / (2 * V)
    chain = sgld(prior, likelihood, data, torch.full((1, 1), mean, dtype=F64), [eps] * steps, n, generator=seeded(17))[500:, 0, 0]
    effective = len(chain) * (1 - a**2) / (1 + a**2)
    near_variance(chain, want, effective)
    assert abs(float(chain.var()) - V / (1 - eps / (4 * V))) > 0.2 * V  # full batches would give another


def test_sgld_2_the_tabled_number():
    """N = 100, n = 10, V = .009975, eps = .2 V: .014071 is this formula's at S**2 = 3 / 4, without replacement (S is not stated there)."""
    N, n, V = 100, 10, 1 / (1 / 4 + 100)  # tau = 2 and variance 1 make V
    eps = 0.2 * V
    assert pytest.approx(0.009975, abs=5e-7) == V
    G = N**2 * 0.75 / n * (N - n) / (N - 1)
    assert (eps + eps**2 * G / 4) / (1 - (1 - eps / (2 * V)) ** 2) == pytest.approx(0.014071, abs=5e-7)


def test_sgld_3_polynomial_steps():
    for gamma in (0.55, 0.75, 1.0):
        eps = polynomial_steps(0.01, 0.0001, 1000, gamma)
        assert float(eps[0]) == 0.01 and float(eps[-1]) == pytest.approx(0.0001, rel=1e-12) and bool((eps.diff() < 0).all())
        b = 1000 / ((0.01 / 0.0001) ** (1 / gamma) - 1)
        a = 0.01 * b**gamma
        torch.testing.assert_close(eps, a * (b + torch.arange(1001, dtype=F64)) ** -gamma, rtol=1e-12, atol=0)
    for gamma in (0.5, 1.01, -1.0):
        with pytest.raises(ValueError, match="must diverge"):
            polynomial_steps(0.01, 0.0001, 10, gamma)


def test_sgld_4_the_minibatch_gradient_is_unbiased():
    prior, likelihood, data, _, _ = model(N=7)
    theta = torch.tensor([[0.3]], dtype=F64)
    full = minibatch_gradient(prior, likelihood, theta, data, 7)
    every = [minibatch_gradient(prior, likelihood, theta, data[list(i)], 7) for i in itertools.combinations(range(7), 3)]
    torch.testing.assert_close(torch.stack(every).mean(0), full, rtol=1e-13, atol=1e-13)
    assert float(torch.stack(every).std()) > 0.1


def test_sgld_finds_the_logistic_posterior():
    """Bayesian logistic regression in one dimension against quadrature; chains averaged with their step sizes as weights."""
    g = seeded(18)
    z = torch.randn(60, generator=g, dtype=F64)
    y = (torch.rand(60, generator=g, dtype=F64) < torch.sigmoid(1.5 * z)).double()
    data = torch.stack([z, y], 1)
    u = torch.linspace(-6, 8, 4001, dtype=F64)
    log_posterior = -(u**2) / 2 + (y[:, None] * torch.nn.functional.logsigmoid(z[:, None] * u)).sum(0)
    log_posterior = log_posterior + ((1 - y)[:, None] * torch.nn.functional.logsigmoid(-z[:, None] * u)).sum(0)
    w = torch.softmax(log_posterior, 0)
    mean, std = float(w @ u), math.sqrt(float(w @ u**2) - float(w @ u) ** 2)
    eps = polynomial_steps(0.05, 0.005, 3000)[1:]
    chain = sgld(
        lambda t: -t,
        lambda t, b: ((b[:, 1] - torch.sigmoid(t * b[:, 0])) * b[:, 0]).sum(1, keepdim=True),
        data,
        torch.zeros(200, 1, dtype=F64),
        eps.tolist(),
        20,
        generator=seeded(19),
    )[300:, :, 0]
    weight = (eps[300:] / eps[300:].sum())[:, None]
    got = float((weight * chain).sum(0).mean())
    spread = math.sqrt(float((weight * chain**2).sum(0).mean()) - got**2)
    assert abs(got - mean) < 0.15 * std and abs(spread / std - 1) < 0.1  # the step size's own bias, eps G / 4 of the noise, is some percent


CHALLENGER = """66 0,70 1,69 0,68 0,67 0,72 0,73 0,70 0,57 1,63 1,70 1,78 0,67 0,53 1,67 0,75 0,70 0,81 0,76 0,79 0,75 1,76 0,58 1"""


def test_sgld_samples_the_logistic_posterior_of_the_challenger_data():
    """23 shuttle launches: temperature (F) and whether an O-ring was damaged (Dalal, Fowlkes & Hoadley 1989), against a fine grid.

    Two parameters and a batch of 8: every chain shares the batches, and the chain is averaged over chains and, by step size, time.
    """
    rows = torch.tensor([[float(v) for v in row.split()] for row in CHALLENGER.split(",")], dtype=F64)
    fahrenheit, y = rows[:, 0], rows[:, 1]
    plain = torch.stack([torch.ones(23, dtype=F64), fahrenheit], 1)
    beta = torch.zeros(2, dtype=F64)
    for _ in range(30):  # Newton: the published maximum shows that the data were copied rightly
        p = torch.sigmoid(plain @ beta)
        beta = beta + torch.linalg.solve((plain * (p * (1 - p))[:, None]).T @ plain, plain.T @ (y - p))
    assert beta.tolist() == pytest.approx([15.0429, -0.2322], abs=1e-4)

    z = (fahrenheit - fahrenheit.mean()) / fahrenheit.std()
    x = torch.stack([torch.ones(23, dtype=F64), z], 1)
    a, b = torch.meshgrid(torch.linspace(-5, 3, 241, dtype=F64), torch.linspace(-7, 3, 241, dtype=F64), indexing="ij")
    theta = torch.stack([a, b], -1).view(-1, 2)
    logits = theta @ x.T
    log_p = -theta.square().sum(1) / (2 * 2.5**2) + (y * logits - torch.nn.functional.softplus(logits)).sum(1)
    w = torch.softmax(log_p, 0)
    mean = w @ theta
    cov = (theta - mean).T @ ((theta - mean) * w[:, None])

    eps = polynomial_steps(0.08, 0.01, 4000)[1:]
    chain = sgld(
        lambda t: -t / 2.5**2,
        lambda t, batch: (batch[:, 2] - torch.sigmoid(t @ batch[:, :2].T)) @ batch[:, :2],
        torch.cat([x, y[:, None]], 1),
        torch.zeros(150, 2, dtype=F64),
        eps.tolist(),
        8,
        generator=seeded(40),
    )[400:]
    weight = (eps[400:] / eps[400:].sum())[:, None]
    got = (weight * chain.mean(1)).sum(0)
    off = chain - got
    spread = (weight[..., None] * (off[..., :, None] * off[..., None, :]).mean(1)).sum(0)
    std = cov.diagonal().sqrt()
    assert ((got - mean).abs() < 0.15 * std).all()  # some percent are the steps' own bias
    assert ((spread.diagonal().sqrt() / std - 1).abs() < 0.12).all()
    correlation = spread[0, 1] / spread.diagonal().prod().sqrt()
    assert abs(float(correlation - cov[0, 1] / std.prod())) < 0.1
    assert float((chain[..., 1] < 0).double().mean()) > 0.97  # cold damages


def test_ascent_without_noise_is_gradient_ascent():
    x = torch.tensor([[1.0, 2.0]], dtype=F64)
    torch.testing.assert_close(langevin_step(x, -x, 0.2, None), 0.9 * x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: ula(lambda x: x, x, 0.0, 3, generator=None), "step size above 0"),
        (lambda x: ula(lambda x: x * math.nan, x, 0.1, 3, generator=None), "step 0: the score is not finite"),
        (lambda x: langevin_step(x, x[:, :1], 0.1, None), "score: expected"),
        (lambda x: mala(lambda x: x.sum(1) * math.nan, x, 0.1, 3, generator=seeded()), "not a number"),
        (lambda x: sgld(lambda t: -t, lambda t, b: t, x, x, [0.1], 5, generator=seeded()), "batch of 1 to 2"),
        (lambda x: sgld(lambda t: t * math.inf, lambda t, b: t, x, x, [0.1], 2, generator=seeded()), "not finite"),
        (lambda x: polynomial_steps(0.1, 0.2, 10), "end < start"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.ones(2, 3, dtype=F64))
