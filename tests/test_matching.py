# SPDX-License-Identifier: Apache-2.0
"""Score matching: the identities between its losses, exact by enumeration, quadrature or linear algebra where that is possible."""

import itertools
import math

import pytest
import torch

from bozzetto.scores.matching import denoising, directional, explicit, implicit, projections, sliced
from tests.twins.worlds import F64, Gaussian, Mixture, seeded

N = 100_000


def world(seed=0, D=3):
    g = seeded(seed)
    L = torch.randn(D, D, generator=g, dtype=F64)
    return Gaussian(torch.randn(D, generator=g, dtype=F64), L @ L.T + 0.3 * torch.eye(D, dtype=F64))


def linear(seed=1, D=3):
    g = seeded(seed)
    A, m = torch.randn(D, D, generator=g, dtype=F64) + 2 * torch.eye(D, dtype=F64), torch.randn(D, generator=g, dtype=F64)
    return A, m, lambda x: -(x - m) @ A.T


def forms(G, A, m):
    """J_ESM and J_ISM of s = -A (x - m) on a Gaussian, closed."""
    d, inverse = A @ (G.mean - m), torch.linalg.inv(G.cov)
    quadratic = float(torch.trace(A @ G.cov @ A.T) + d @ d)
    off = A - inverse
    return float(torch.trace(off @ G.cov @ off.T) + d @ d) / 2, -float(torch.trace(A)) + quadratic / 2, float(torch.trace(inverse)) / 2


def near(values, want):
    """Mean of values within five standard errors, from their own spread."""
    values = values.detach()
    se = float(values.std()) / math.sqrt(len(values))
    assert float(values.mean()) == pytest.approx(want, abs=5 * se)


def test_sm_1_explicit_minus_implicit_is_half_the_fisher_information():
    G = world()
    x = G.draw(N, seeded(2))
    for seed in (1, 5):
        A, m, s = linear(seed)
        esm, ism, fisher = forms(G, A, m)
        assert esm - ism == pytest.approx(fisher, rel=1e-10)
        near(explicit(s, x, G.score(x)), esm)
        near(implicit(s, x), ism)
        trace = implicit(s, x[:5]) - s(x[:5]).square().sum(1) / 2
        torch.testing.assert_close(trace, -torch.trace(A).expand(5), rtol=1e-12, atol=1e-12)


def test_sm_2_at_the_true_score_it_is_minus_half_the_fisher_information():
    G = world(3)
    near(implicit(G.score, G.draw(N, seeded(4))), -float(torch.trace(torch.linalg.inv(G.cov))) / 2)


def test_sm_3_the_identity_for_a_curved_model_on_a_mixture():
    """One dimension by quadrature: .8 and .2 at +-2, unit variance; the trapezium rule converges beyond all orders."""
    M = Mixture([0.8, 0.2], [[2.0], [-2.0]], [1.0, 1.0])
    x = torch.linspace(-14, 14, 4001, dtype=F64)[:, None]
    w = M.log_density(x).exp() * (x[1] - x[0])

    def s(x):
        return torch.sin(x) - 0.3 * x

    esm, ism, fisher = (float((w @ f).detach()) for f in (explicit(s, x, M.score(x)), implicit(s, x), M.score(x).square().sum(1) / 2))
    assert fisher == pytest.approx(0.394659, abs=5e-7)
    assert esm - ism == pytest.approx(fisher, abs=1e-10)
    assert esm == pytest.approx(0.084180143208, abs=1e-10)


def test_sm_4_on_samples_the_linear_minimiser_is_the_gaussian_mle():
    """At m = mean, A = inverse covariance (ddof 0) the gradient of the sample loss vanishes, and it is a minimum."""
    x = torch.randn(50, 3, generator=seeded(5), dtype=F64) @ linear(6)[0]
    centred = x - x.mean(0)
    A = torch.linalg.inv(centred.T @ centred / 50).requires_grad_()
    m = x.mean(0).requires_grad_()

    def loss(A, m):
        return implicit(lambda x: -(x - m) @ A.T, x).mean()

    best = loss(A, m)
    for gradient in torch.autograd.grad(best, [A, m]):
        assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-10)
    for seed in range(3):
        g = seeded(seed)
        assert loss(A + 0.1 * torch.randn(3, 3, generator=g, dtype=F64), m + 0.1 * torch.randn(3, generator=g, dtype=F64)) > best


def test_sm_5_implicit_and_explicit_have_one_gradient():
    """By quadrature on the mixture, with autograd against central differences of the explicit loss."""
    M = Mixture([0.8, 0.2], [[2.0], [-2.0]], [1.0, 1.0])
    x = torch.linspace(-14, 14, 4001, dtype=F64)[:, None]
    w = M.log_density(x).exp() * (x[1] - x[0])
    theta = torch.tensor([0.7, -0.4], dtype=F64, requires_grad=True)

    def model(t):
        return lambda x: torch.sin(t[0] * x) + t[1] * x

    (gradient,) = torch.autograd.grad(w @ implicit(model(theta), x), theta)
    h = 1e-5
    for i in range(2):
        step = h * torch.eye(2, dtype=F64)[i]
        up, down = (float(w @ explicit(model(t), x, M.score(x))) for t in (theta.detach() + step, theta.detach() - step))
        assert float(gradient[i]) == pytest.approx((up - down) / (2 * h), abs=1e-8)


def test_sm_a_bounded_support_breaks_the_identity():
    """Uniform on [0, 1]: score 0 inside, and p s does not vanish at the boundary. With s = x the gap is E[s'] = 1, not 0."""
    x = (torch.arange(10_000, dtype=F64) + 0.5)[:, None] / 10_000
    gap = implicit(lambda x: 1 * x, x) - explicit(lambda x: 1 * x, x, torch.zeros_like(x))
    torch.testing.assert_close(gap, torch.ones(10_000, dtype=F64))


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_dsm_1_minimum_on_a_gaussian(sigma):
    G = world(7)
    lam = torch.linalg.eigvalsh(G.cov)
    x0, noise = G.draw(N, seeded(8)), torch.randn(N, 3, generator=seeded(9), dtype=F64)
    best = denoising(lambda x: G.score(x, sigma), x0, noise, sigma)
    near(best, float((lam / (lam + sigma**2)).sum()) / 2)
    plain = denoising(lambda x: G.score(x, sigma), x0, noise, sigma, is_weighted=False)
    near(plain, float(3 / sigma**2 - (1 / (lam + sigma**2)).sum()) / 2)
    near(denoising(torch.zeros_like, x0, noise, sigma), 1.5)
    torch.testing.assert_close(plain * sigma**2, best, rtol=1e-12, atol=0)


def test_dsm_2_it_differs_from_explicit_by_one_constant():
    """C = (D / sigma**2 - I(q)) / 2, for two different models; differences sample by sample keep the errors small."""
    G, sigma = world(10), 0.7
    lam = torch.linalg.eigvalsh(G.cov)
    C = float(3 / sigma**2 - (1 / (lam + sigma**2)).sum()) / 2
    x0, noise = G.draw(N, seeded(11)), torch.randn(N, 3, generator=seeded(12), dtype=F64)
    x = x0 + sigma * noise
    for s in (linear(13)[2], lambda x: torch.sin(x)):
        near(denoising(s, x0, noise, sigma, is_weighted=False) - explicit(s, x, G.score(x, sigma)), C)


def test_dsm_3_minimum_and_norm_of_the_score_add_up():
    """For any data: weighted minimum + E|sigma s*|**2 / 2 = D / 2, from point-like levels to levels wider than the data."""
    M = Mixture([0.8, 0.2], [[2.0, 0.0], [-2.0, 1.0]], [0.5, 0.1])
    g = seeded(14)
    pick = torch.rand(N, generator=g) < 0.2
    x0 = torch.where(pick[:, None], M.means[1], M.means[0]) + M.stds[pick.long()][:, None] * torch.randn(N, 2, generator=g, dtype=F64)
    for sigma in (0.05, 1.0, 20.0):
        noise = torch.randn(N, 2, generator=g, dtype=F64)
        best = denoising(lambda x, sigma=sigma: M.score(x, sigma), x0, noise, sigma)
        near(best + (sigma * M.score(x0 + sigma * noise, sigma)).square().sum(1) / 2, 1.0)


def test_dsm_4_the_wrong_sign_has_the_same_minimum_elsewhere():
    """Target +noise / sigma: (D / sigma**2 + 3 I(q)) / 2 at the true score, and -score as a minimiser of equal loss."""
    G, sigma = world(15), 0.8
    total = float((1 / (torch.linalg.eigvalsh(G.cov) + sigma**2)).sum())
    x0, noise = G.draw(N, seeded(16)), torch.randn(N, 3, generator=seeded(17), dtype=F64)
    s = lambda x: G.score(x, sigma)  # noqa: E731
    x = x0 + sigma * noise
    wrong = (s(x) - noise / sigma).square().sum(1) / 2
    near(wrong, (3 / sigma**2 + 3 * total) / 2)
    right = denoising(s, x0, noise, sigma, is_weighted=False)
    mirrored = (-s(x) - noise / sigma).square().sum(1) / 2
    torch.testing.assert_close(mirrored, right, rtol=1e-12, atol=0)  # the same number: a training curve cannot tell
    assert float(denoising(s, x0, noise, sigma).mean()) < float(denoising(lambda x: -s(x), x0, noise, sigma).mean())  # ours can
    toward = G.mean - x
    assert float((s(x) * toward).sum(1).mean()) > 0


def test_dsm_5_regression_of_the_target_finds_the_noised_precision():
    """Linear s = -A x on samples with mean 0, noise averaged exactly by sign-symmetric pairs: A = (S + sigma**2)^-1."""
    x0 = torch.randn(40, 2, generator=seeded(18), dtype=F64)
    x0 = torch.cat([x0, -x0])
    S, sigma = x0.T @ x0 / 80, 0.6
    # four noises whose mean is 0 and whose covariance is I: exact for a quadratic loss
    noises = math.sqrt(2) * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=F64)
    X, Z = x0.repeat_interleave(4, 0), noises.repeat(80, 1)
    A = torch.linalg.inv(S + sigma**2 * torch.eye(2, dtype=F64)).requires_grad_()
    (gradient,) = torch.autograd.grad(denoising(lambda x: -x @ A.T, X, Z, sigma).mean(), A)
    assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-13)
    x = X + sigma * Z
    slope = torch.linalg.lstsq(x, -Z / sigma).solution.T
    torch.testing.assert_close(slope, -A.detach(), rtol=1e-12, atol=1e-12)


def test_dsm_6_tweedies_mean_and_covariance_on_a_mixture():
    """Posterior of x0 by quadrature against x + sigma**2 score and sigma**2 (1 + sigma**2 score')."""
    M, sigma = Mixture([0.8, 0.2], [[2.0], [-2.0]], [1.0, 1.0]), 1.3
    u = torch.linspace(-14, 14, 8001, dtype=F64)
    for at in (-3.0, 0.1, 2.5):
        x = torch.tensor([[at]], dtype=F64)
        w = torch.softmax(M.log_density(u[:, None]) - (u - at) ** 2 / (2 * sigma**2), 0)
        mean = float(w @ u)
        assert float(M.denoise(x, sigma)) == pytest.approx(mean, abs=1e-12)
        h = 1e-3
        near_, far = (float(M.score(x + j * h, sigma) - M.score(x - j * h, sigma)) for j in (1, 2))
        slope = (8 * near_ - far) / (12 * h)  # of fourth order: 1e-12
        assert sigma**2 * (1 + sigma**2 * slope) == pytest.approx(float(w @ (u - mean) ** 2), abs=1e-9)


def jacobian(D=4, seed=19):
    return torch.randn(D, D, generator=seeded(seed), dtype=F64)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_ssm_1_signs_enumerated_give_the_trace_exactly(mode):
    J = jacobian()
    v = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=F64)
    value, along = directional(lambda x: x @ J.T, torch.zeros(16, 4, dtype=F64), v, mode)
    assert float(along.mean()) == pytest.approx(float(torch.trace(J)), abs=1e-13) and float(along.std()) > 0.1
    torch.testing.assert_close(along, torch.einsum("bi,ij,bj->b", v, J, v), rtol=1e-12, atol=1e-12)
    assert value.shape == (16, 4)


def test_ssm_2_variances_of_the_three_projections():
    J, D = jacobian(), 4
    S = (J + J.T) / 2
    f2, diagonal, trace = float(S.square().sum()), float(S.diagonal().square().sum()), float(torch.trace(S))
    want = {"gaussian": 2 * f2, "rademacher": 2 * (f2 - diagonal), "sphere": 2 * D / (D + 2) * (f2 - trace**2 / D)}
    for kind, variance in want.items():
        v = projections(torch.zeros(N, D, dtype=F64), kind, generator=seeded(20))
        along = torch.einsum("bi,ij,bj->b", v, J, v)
        near(along, trace)
        near((along - trace) ** 2, variance)
        second = v.T @ v / N
        torch.testing.assert_close(second, torch.eye(D, dtype=F64), rtol=0, atol=5 * math.sqrt(2 / N))


def test_ssm_3_both_forms_are_implicit_matching_in_the_mean():
    G = world(21)
    A, m, s = linear(22)
    x = G.draw(N, seeded(23))
    ism = forms(G, A, m)[1]
    v = projections(x, "gaussian", generator=seeded(24))
    near(sliced(s, x, v), ism)
    near(sliced(s, x, v, is_reduced=False), ism)
    unit = v / v.norm(dim=1, keepdim=True)
    near(sliced(s, x, unit, is_reduced=False), ism / 3)  # the plain form allows unit length: the loss is ISM / D
    # the reduced form with unit length is minimised at score / D: E v^T J v = tr J / D there
    wrong = (torch.linalg.inv(G.cov) / 3).requires_grad_()
    unit_signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=F64) / math.sqrt(3)
    y = G.mean + math.sqrt(3) * torch.cat([torch.linalg.cholesky(G.cov).T, -torch.linalg.cholesky(G.cov).T])  # moments exact
    loss = sliced(lambda x: -(x - G.mean) @ wrong.T, y.repeat_interleave(8, 0), unit_signs.repeat(6, 1)).mean()
    (gradient,) = torch.autograd.grad(loss, wrong)
    assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_ssm_4_signs_and_a_diagonal_jacobian_leave_no_noise(mode):
    x = torch.randn(20, 5, generator=seeded(25), dtype=F64)
    s = lambda x: torch.sin(x) - x**3  # noqa: E731
    v = projections(x, generator=seeded(26))
    torch.testing.assert_close(sliced(s, x, v, mode=mode), implicit(s, x), rtol=1e-12, atol=1e-12)


def test_ssm_forward_and_reverse_agree_and_train_alike():
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Softplus(), torch.nn.Linear(8, 3)).double()
    x = torch.randn(6, 3, generator=seeded(27), dtype=F64)
    v = projections(x, "sphere", generator=seeded(28))
    gradients = []
    for mode in ("reverse", "forward"):
        loss = sliced(net, x, v, mode=mode).mean()
        gradients.append(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    assert float(gradients[0][0].abs().sum()) > 0


def test_pictures_and_levels_of_their_own_work_too():
    x0, noise = (torch.randn(3, 1, 2, 2, generator=seeded(i), dtype=F64) for i in (29, 30))
    sigma = torch.tensor([0.1, 1.0, 5.0], dtype=F64)
    s = lambda x: -x  # noqa: E731
    together = denoising(s, x0, noise, sigma)
    alone = torch.cat([denoising(s, x0[i : i + 1], noise[i : i + 1], float(sigma[i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)
    assert implicit(s, x0).shape == (3,) and float(implicit(s, x0)[0] - x0[0].square().sum() / 2) == pytest.approx(-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: sliced(lambda x: x, x, x[:, :1]), "direction for each sample"),
        (lambda x: sliced(lambda x: x, x, x, mode="both"), "reverse or forward"),
        (lambda x: projections(x, "uniform", generator=seeded()), "rademacher, gaussian or sphere"),
        (lambda x: denoising(lambda x: x, x, x, 0.0), "finite positive"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.ones(2, 3, dtype=F64))
