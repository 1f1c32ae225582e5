# SPDX-License-Identifier: Apache-2.0
"""Samplers against exact flows: Gaussians, a one-dimensional mixture through its quantiles, and each other."""

import itertools
import math

import pytest
import torch
from scipy import special

from bozzetto.denoiser import Adapted, sigma_of
from bozzetto.diffusion.samplers import Churn, ancestral, ddim, ddim_inversion, dpm_solver_2m, euler, heun
from bozzetto.diffusion.schedules import alpha_bar, karras, ladder, linear_betas, spaced
from tests.twins.worlds import F64, SIGMAS, Mixture, iso, seeded

BETAS = linear_betas()
ALPHA_BAR = alpha_bar(BETAS)
ONE = torch.ones(1, 1, dtype=F64)
ALL = [ddim, euler, heun, dpm_solver_2m]


def test_ddim_1_full_noise_on_neighbouring_steps_is_ddpm_with_the_posterior_variance():
    """Same x, same denoised, same noise: one step here against mu~ and beta~ on the variance-preserving scale."""
    g = seeded()
    x0, z = (torch.randn(1000, 2, generator=g, dtype=F64) for _ in range(2))
    for k in (1, 2, 10, 500, 999):
        a, before, beta = ALPHA_BAR[k], ALPHA_BAR[k - 1], BETAS[k]
        x_t = torch.randn(1000, 2, generator=g, dtype=F64)
        variance = beta * (1 - before) / (1 - a)
        mean = before.sqrt() * beta / (1 - a) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - a) * x_t
        sigmas = sigma_of(torch.stack([a, before]))
        got = ancestral(Adapted(lambda x, s, c: x0, SIGMAS), x_t / a.sqrt(), sigmas, generator=seeded(k))
        z = torch.randn(1000, 2, generator=seeded(k), dtype=F64)
        torch.testing.assert_close(got * before.sqrt(), mean + variance.sqrt() * z, rtol=0, atol=2e-12)  # sigma 157 costs digits


def test_ddim_2_error_on_a_gaussian_falls_as_one_over_steps():
    """The product of factors against c / sqrt(v_T), as tabled: VP coordinates, c = .5."""
    v_T = ALPHA_BAR[-1] * 0.25 + 1 - ALPHA_BAR[-1]
    for n, error in [(10, -0.1384), (50, -0.0281), (100, -0.01416), (1000, -0.00151)]:
        x = ddim(iso(0.5), ONE / ALPHA_BAR[-1].sqrt(), ladder(ALPHA_BAR, spaced(1000, n, "linspace")))
        assert float(x) - float(0.5 / v_T.sqrt()) == pytest.approx(error, rel=5e-3)


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("n", [2, 7])
def test_ddim_3_point_data_is_reached_exactly_in_any_number_of_steps(sampler, n):
    point = torch.tensor([[0.3, -2.0]], dtype=F64)
    x = point + 80 * torch.randn(5, 2, generator=seeded(), dtype=F64)
    got = sampler(Adapted(lambda x, s, c: point.expand_as(x), SIGMAS), x, karras(n))
    torch.testing.assert_close(got, point.expand(5, 2), rtol=0, atol=1e-12)  # 80 x 2**-53 a step


@pytest.mark.parametrize("at", ["end", "start"])
def test_ddim_4_inversion_comes_back_to_first_order(at):
    world = Mixture([0.8, 0.2], [[5.0], [-5.0]], [1.0, 1.0])
    x0 = torch.tensor([[-6.0], [3.0], [5.5]], dtype=F64)
    errors = []
    for n in (50, 100, 200, 400):
        sigmas = karras(n)
        errors.append(float((ddim(world, ddim_inversion(world, x0, sigmas, at=at), sigmas) - x0).abs().max()))
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert ratios == pytest.approx([2, 2, 2], abs=0.4) and errors[-1] < 0.1


def inverted(c, sigmas, at):
    """Of x0 = 1 and N(0, c**2) data, where each step is a factor: what inversion gives, and what DDIM makes of it."""
    up = down = 1.0
    for s, s_next in itertools.pairwise(sigmas.flip(0).tolist()):
        level = s_next if at == "end" or s == 0 else s
        seen = math.sqrt((1 + s_next**2) / (1 + s**2)) if at == "end" else 1.0
        up *= 1 + (s_next - s) * seen * level / (c**2 + level**2)
        down *= 1 + (s - s_next) * s_next / (c**2 + s_next**2)
    return up, up * down


def test_ddim_4_asked_at_the_end_inversion_comes_back_nearer():
    """N(0, c**2) data, 20 published steps: recorded errors of the way up and back, by products of factors that need no sampler."""
    sigmas = ladder(ALPHA_BAR, spaced(1000, 20))
    for c, start, end in [(0.5, -0.1763, -0.1357), (1.0, -0.1455, -0.0103), (2.0, -0.1338, 0.0665)]:
        for at, recorded in [("start", start), ("end", end)]:
            up = ddim_inversion(iso(c), ONE, sigmas, at=at)
            back = ddim(iso(c), up, sigmas)
            want_up, want_back = inverted(c, sigmas, at)
            assert float(up) == pytest.approx(want_up, rel=1e-12) and float(back) == pytest.approx(want_back, rel=1e-12)
            assert want_back - 1 == pytest.approx(recorded, abs=5.1e-5)
    assert torch.equal(up, ddim_inversion(iso(c), ONE, sigmas))  # "end" is the default
    flow = math.sqrt(0.25 + float(sigmas[0]) ** 2) / 0.5  # the probability flow's own end, x0 = 1 and c = .5
    off = {at: abs(inverted(0.5, sigmas, at)[0] / flow - 1) for at in ("end", "start")}
    assert off["end"] < 0.002 < 0.04 < off["start"]


def test_ddim_4_far_from_unit_variance_the_start_is_the_better_place_to_ask():
    """The control: what is asked at the end is scaled as unit data would be. Modes at +-5 are not."""
    x0, sigmas = torch.tensor([[-6.0], [3.0], [5.5]], dtype=F64), karras(50)
    off = [float((ddim(NOTES, ddim_inversion(NOTES, x0, sigmas, at=at), sigmas) - x0).abs().max()) for at in ("start", "end")]
    assert 1.9 * off[0] < off[1]


def test_ddim_5_full_noise_is_k_diffusions_euler_ancestral():
    world, sigmas = iso(0.7, 3, 0.2), karras(8)
    x = y = 80 * torch.randn(6, 3, generator=seeded(1), dtype=F64)
    got = ancestral(world, x, sigmas, generator=seeded(2))
    g = seeded(2)
    for s, s_next in itertools.pairwise(sigmas):
        up = (s_next**2 * (s**2 - s_next**2) / s**2).sqrt()
        down = s_next**2 / s
        y = y + (down - s) * (y - world.denoise(y, s)) / s
        if up > 0:
            y = y + up * torch.randn(6, 3, generator=g, dtype=F64)
    torch.testing.assert_close(got, y, rtol=0, atol=1e-13 * 80)


def test_edm_3_heun_asks_twice_a_step_but_once_in_the_last():
    world = iso(0.5)
    for n in (2, 18):
        world.calls = 0
        heun(world, ONE, karras(n))
        assert world.calls == 2 * n - 1


def _error(sampler, n):
    exact = math.sqrt(0.25 / (0.25 + 80**2))
    return float(sampler(iso(0.5), ONE, karras(n))) / exact - 1


def test_edm_4_orders_and_errors_as_tabled():
    for n, error in [(18, 5.53e-2), (36, 1.22e-2), (72, 2.87e-3), (144, 6.91e-4), (288, 1.64e-4)]:
        assert _error(heun, n) == pytest.approx(error, rel=5e-3)
    for n, error in [(18, -1.54e-1), (36, -7.80e-2), (72, -3.92e-2), (144, -1.97e-2), (288, -9.86e-3)]:
        assert _error(euler, n) == pytest.approx(error, rel=5e-3)
        assert _error(ddim, n) == pytest.approx(_error(euler, n), abs=1e-13)


def test_dpm_solver_is_of_second_order_in_its_own_variable():
    """Levels even in log sigma, ends above 0: halving the step divides the error by four."""
    exact = math.sqrt((0.25 + 0.01) / (0.25 + 100))
    errors = []
    for n in (40, 80, 160, 320):
        sigmas = torch.logspace(1, -1, n + 1, dtype=F64)
        errors.append(abs(float(dpm_solver_2m(iso(0.5), ONE, sigmas)) / exact - 1))
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(3.6 < r < 4.4 for r in ratios) and errors[0] < abs(
        float(euler(iso(0.5), ONE, torch.logspace(1, -1, 41, dtype=F64))) / exact - 1
    )


def test_edm_5_churn_keeps_the_marginal_variance():
    """Linear world: the chain's variance is followed exactly, by the samplers' own factors, through one churned Euler step."""
    n, c2, s, s_next = 10, 0.25, 2.0, 1.0
    churn = Churn(amount=2.0)
    s_hat = churn.raised(s, 1)
    assert s_hat == pytest.approx(s * math.sqrt(2))  # the cap
    draws = math.sqrt(c2 + s**2) * torch.randn(200_000, 1, generator=seeded(3), dtype=F64)
    seen = []

    def denoise(x, sigma, cond):
        seen.append(float(x.var()))
        return iso(0.5).denoise(x, sigma)

    euler(Adapted(denoise, SIGMAS), draws, torch.tensor([s, s_next], dtype=F64), churn=churn, generator=seeded(4))
    v = c2 + s_hat**2
    assert seen[0] == pytest.approx(v, abs=5 * v * math.sqrt(2 / 200_000))
    assert n * Churn(amount=0.5).raised(s, n) == pytest.approx(n * s * 1.05)
    assert Churn(amount=5, low=3).raised(s, n) == s and Churn(amount=5, high=1).raised(s, n) == s


def test_edm_5_without_churn_nothing_is_drawn():
    g = seeded(5)
    state = g.get_state()
    heun(iso(0.5), ONE, karras(5), generator=g)
    ddim(iso(0.5), ONE, karras(5), generator=g)
    assert torch.equal(state, g.get_state())


QUANTILES = (0.01, 0.1, 0.19, 0.21, 0.5, 0.9, 0.99)
ENDS = (-6.64485, -5.0, -3.35515, 2.75860, 4.68136, 6.15035, 7.24140)
NOTES = Mixture([0.2, 0.8], [[-5.0], [5.0]], [1.0, 1.0])


def test_edm_7_heun_follows_the_quantile_map():
    start = torch.tensor([[NOTES.quantile(u, 80.0)] for u in QUANTILES], dtype=F64)
    exact = torch.tensor([[NOTES.quantile(u)] for u in QUANTILES], dtype=F64)
    torch.testing.assert_close(exact, torch.tensor(ENDS, dtype=F64)[:, None], rtol=0, atol=6e-6)
    for n, error in [(18, 0.131), (36, 0.0275), (72, 0.0077), (144, 0.0020), (288, 5.2e-4), (576, 1.3e-4)]:
        assert float((heun(NOTES, start, karras(n)) - exact).abs().max()) == pytest.approx(error, rel=0.04)


def test_edm_8_a_start_without_the_data_misses_the_weights():
    """The flow is monotone: the mode weight is the share of starts above the boundary's image."""
    boundary = NOTES.quantile(0.2, 80.0)  # ends at quantile .2 of the data, which parts the modes
    assert special.ndtr(-boundary / 80) == pytest.approx(0.78966, abs=5e-6)
    u = (torch.arange(20001, dtype=F64) + 0.5) / 20001
    starts = 80 * torch.special.ndtri(u)[:, None]
    for n, weight in [(18, 0.7888), (288, 0.78965)]:
        assert float((heun(NOTES, starts, karras(n)) > 0).double().mean()) == pytest.approx(weight, abs=1.01e-4)


@pytest.mark.parametrize("sampler", [*ALL, ddim_inversion])
def test_dtype_shape_and_watch(sampler):
    x = torch.randn(2, 3, 4, 4, generator=seeded())
    seen = []
    got = sampler(Adapted(lambda x, s, c: x / (1 + s**2), SIGMAS), x, karras(6), watch=lambda i, x, d: seen.append((i, d.dtype)))
    assert got.dtype == torch.float32 and got.shape == x.shape
    assert seen == [(i, torch.float64) for i in range(6)]


def test_a_sample_with_its_own_generator_does_not_depend_on_its_batch():
    x = 80 * torch.randn(3, 2, generator=seeded(), dtype=F64)
    batch = ancestral(iso(0.5, 2), x, karras(6), generator=[seeded(i) for i in range(3)])
    alone = ancestral(iso(0.5, 2), x[2:], karras(6), generator=[seeded(2)])
    assert torch.allclose(batch[2:], alone, rtol=0, atol=1e-14) and not torch.allclose(batch[1], batch[2])


@pytest.mark.parametrize("sampler", [*ALL, ddim_inversion])
def test_non_finite_numbers_stop_with_step_and_level(sampler):
    def broken(x, sigma, cond):
        return x * (math.nan if 1.0 < sigma < 30.0 else 0.5)

    with pytest.raises(ValueError, match=r"step \d+, sigma [\d.]+: the denoiser gave non-finite"):
        sampler(Adapted(broken, SIGMAS), ONE, karras(8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: euler(iso(1.0), ONE, karras(5).flip(0)), "largest first"),
        (lambda: euler(iso(1.0), ONE, torch.tensor([1.0, 1.0, 0.0])), "without repeats"),
        (lambda: euler(iso(1.0), ONE, torch.tensor([math.inf, 1.0, 0.0])), "finite"),
        (lambda: ddim(iso(1.0), ONE, karras(5), eta=1.5), "eta"),
        (lambda: ddim_inversion(iso(1.0), ONE, karras(5), at="middle"), "at: expected"),
        (lambda: ddim(iso(1.0), ONE, karras(5), eta=0.5), "pass torch.Generator"),
        (lambda: heun(iso(1.0), ONE, karras(5), churn=Churn(1.0)), "pass torch.Generator"),
        (lambda: ancestral(iso(1.0), ONE, karras(5), generator=[seeded(), seeded()]), "one a sample"),
        (lambda: euler(Adapted(lambda x, s, c: x[:, :0], SIGMAS), ONE, karras(5)), "expected a denoised"),
    ],
)
def test_wrong_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
