# SPDX-License-Identifier: Apache-2.0
"""Inpainting on a correlated Gaussian, where the answer is N(rho y, 1 - rho**2) and both ways follow linear recursions."""

import itertools
import math

import pytest
import torch

from bozzetto.denoiser import sigma_of
from bozzetto.diffusion.inpainting import jumps, known, paste, repaint
from bozzetto.diffusion.schedules import alpha_bar, karras, linear_betas, to_zero
from bozzetto.scores.ladder import geometric
from bozzetto.scores.ncsn import annealed_langevin, predictor_corrector
from tests.twins.worlds import F64, Gaussian, iso, seeded

RHO, Y = 0.9, 1.5
MASK = torch.tensor([[1.0, 0.0]], dtype=F64)


def pair(rho=RHO):
    return Gaussian([0.0, 0.0], [[1.0, rho], [rho, 1.0]])


def ys(n):
    return torch.full((n, 2), Y, dtype=F64)


def check(x, mean, var, n):
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(var / n))
    assert float(x.var()) == pytest.approx(var, abs=5 * var * math.sqrt(2 / n))


def test_inp_1_at_one_level_the_unknown_follows_the_known():
    """x2 given the noised x1: mean rho x1 / (1 + sigma**2), variance 1 + sigma**2 - rho**2 / (1 + sigma**2), as eps falls to 0."""
    n, sigma, eps = 4000, 0.8, 0.06
    overlay = known(ys(n), MASK, is_frozen=True, generator=seeded(1))
    start = 2 * torch.randn(n, 2, generator=seeded(2), dtype=F64)
    x = annealed_langevin(pair(), start, torch.tensor([sigma]), eps, 200, generator=seeded(3), overlay=overlay)
    slope, lam = RHO / (1 + sigma**2), 1 + sigma**2 - RHO**2 / (1 + sigma**2)
    check(x[:, 1] - slope * x[:, 0], 0.0, lam / (1 - eps / (4 * lam)), n)  # Langevin's own bias, LD-1
    check(x[:, 0], Y, sigma**2, n)


def recursion(sigmas, eps_L, T, is_frozen, before=False):
    """Mean and variance of x2 by INP-2's recursion, carrying Cov(u, n) where the noise is frozen."""
    m, V, u_n = 0.5, 1 / 12, 0.0
    for s in sigmas.tolist():
        a = eps_L * (s / float(sigmas[-1])) ** 2
        Q = torch.linalg.inv(pair().cov + s**2 * torch.eye(2, dtype=F64))
        A, B = float(1 - a / 2 * Q[1, 1]), float(-a / 2 * Q[1, 0])
        u_n = 0.0
        for t in range(T):
            # the overlay comes after the step: the first step of a level still sees the last level's x1
            if t == 0 and not before:
                m, V = A * m + B * KNOWN[0], A**2 * V + B**2 * KNOWN[1] + 2 * A * B * KNOWN[2] + a
                u_n = 0.0
            else:
                m, V, u_n = A * m + B * Y, A**2 * V + B**2 * s**2 + 2 * A * B * u_n + a, (A * u_n + B * s**2) if is_frozen else 0.0
        KNOWN[:] = [Y, s**2, u_n]
    return m, V


KNOWN = [0.5, 1 / 12, 0.0]  # mean and variance of x1 before the step, and its covariance with x2


@pytest.mark.parametrize(("is_frozen", "tabled"), [(True, (1.2681, 0.2417)), pytest.param(False, (1.2681, 0.2412), marks=pytest.mark.slow)])
def test_inp_2_the_notes_way_falls_short_by_as_much_as_its_recursion(is_frozen, tabled):
    """sigma 50 to .01 in 232 levels, 5 steps each, eps 1.24e-5: mean 1.268 for 1.35, variance .24 for .19."""
    n, sigmas = 2000, geometric(50.0, 0.01, 232)
    overlay = known(ys(n), MASK, is_frozen=is_frozen, generator=seeded(4))
    start = torch.rand(n, 2, generator=seeded(5), dtype=F64)
    x = annealed_langevin(pair(), start, sigmas, 1.24e-5, 5, generator=seeded(6), overlay=overlay, is_overlaid_first=not is_frozen)
    check(x[:, 1], *tabled, n)


def test_inp_2_more_steps_come_closer():
    """T = 100: (1.3468, .1923), computed by the recursion with the noise fresh, overlaid first."""
    sigmas = geometric(50.0, 0.01, 232)
    for T, tabled in [(5, (1.2681, 0.2412)), (100, (1.3468, 0.1923))]:
        m, V = recursion(sigmas, 1.24e-5, T, is_frozen=False, before=True)
        assert m == pytest.approx(tabled[0], abs=6e-5) and pytest.approx(tabled[1], abs=6e-5) == V


def test_inp_3_everything_known_and_nothing_known():
    n, sigmas = 6, geometric(1.0, 0.1, 4)
    x = torch.rand(n, 2, generator=seeded(7), dtype=F64)
    plain = annealed_langevin(pair(), x, sigmas, 0.002, 3, generator=seeded(8))
    nothing = known(ys(n), torch.zeros(1, 2), is_frozen=True, generator=seeded(9))
    assert torch.equal(annealed_langevin(pair(), x, sigmas, 0.002, 3, generator=seeded(8), overlay=nothing), plain)
    everything = known(ys(n), torch.ones(1, 2), is_frozen=True, generator=seeded(9))
    got = annealed_langevin(pair(), x, sigmas, 0.002, 3, generator=seeded(8), overlay=everything)
    g = seeded(9)
    for _ in range(4):  # one draw a level; the last is what stays
        noise = torch.randn(n, 2, generator=g, dtype=F64)
    torch.testing.assert_close(got, Y + 0.1 * noise, rtol=0, atol=1e-14)
    assert torch.equal(paste(got, ys(n), MASK)[:, 0], ys(n)[:, 0]) and torch.equal(paste(got, ys(n), MASK)[:, 1], got[:, 1])


def test_predictor_corrector_inpaints_too():
    n = 1500
    overlay = known(ys(n), MASK, is_frozen=False, generator=seeded(10))
    sigmas = geometric(20.0, 0.02, 120)
    x = 20 * torch.randn(n, 2, generator=seeded(11), dtype=F64)
    out = predictor_corrector(pair(), x, sigmas, corrections=3, generator=seeded(12), overlay=overlay)
    assert abs(float(out[:, 1].mean()) - RHO * Y) < 0.12 and abs(float(out[:, 1].var()) - 0.19) < 0.08  # overwriting is not exact, INP-2
    free = predictor_corrector(pair(), x, sigmas, corrections=1, generator=seeded(12))
    assert abs(float(free[:, 1].mean())) < 0.12  # without the overlay nothing is known


def test_rp_1_the_walk_has_the_published_counts():
    walk = jumps(250, 10, 10)
    downs = sum(b < a for a, b in itertools.pairwise(walk))
    assert len(walk) == 4571 and downs == 2410 and len(walk) - 1 - downs == 2160
    assert downs == 250 + 9 * 10 * math.ceil((250 - 10) / 10)
    assert walk[0] == 249 and walk[-1] == -1 and all(abs(a - b) == 1 for a, b in itertools.pairwise(walk))
    assert jumps(20, 10, 1) == list(range(19, -2, -1))
    for T, j, r in [(250, 1, 5), (30, 7, 3), (10, 10, 4)]:
        walk = jumps(T, j, r)
        assert sum(b < a for a, b in itertools.pairwise(walk)) == T + (r - 1) * j * max(0, math.ceil((T - j) / j))


def test_rp_1_the_known_part_has_the_noise_of_the_level_it_is_written_at():
    """Not of the next one, as in the printed Algorithm 1; seen by the reverse step, with everything known."""
    g, levels, seen = seeded(30), karras(4), []

    def step(x, s, s_then):
        z = torch.randn(2, 2, generator=g, dtype=F64)
        torch.testing.assert_close(x, Y + s * z, rtol=0, atol=1e-12)
        seen.append((s, s_then))
        return x

    repaint(pair(), torch.zeros(2, 2, dtype=F64), levels, ys(2), torch.ones(1, 2), j=10, r=1, step=step, generator=seeded(30))
    assert seen == list(itertools.pairwise(levels.tolist()))


BETAS = linear_betas(250, 4e-4, 0.08)
SIGMAS = to_zero(sigma_of(alpha_bar(BETAS)).flip(0))


def exact_step(world, seed):
    """q(x_{t-1} | x_t) of Gaussian data: with d the variance that a step takes away, covariance (P^-1 + I / d)^-1."""
    g = seeded(seed)

    def step(x, s, s_then):
        d = s**2 - s_then**2
        eye = torch.eye(2, dtype=F64)
        C = torch.linalg.inv(torch.linalg.inv(world.cov + s_then**2 * eye) + eye / d)
        return x @ C / d + torch.randn(x.shape, generator=g, dtype=F64) @ torch.linalg.cholesky(C).T

    return step


@pytest.mark.parametrize(
    ("j", "r", "mean", "var"),
    [
        (10, 1, 0.9331, 0.3154),
        pytest.param(1, 5, 1.2791, 0.2096, marks=pytest.mark.slow),
        pytest.param(1, 10, 1.3175, 0.1997, marks=pytest.mark.slow),
        pytest.param(10, 10, 1.3122, 0.2032, marks=pytest.mark.slow),
        pytest.param(10, 20, 1.3277, 0.1999, marks=pytest.mark.slow),
    ],
)
def test_rp_2_jumps_shrink_the_bias_but_do_not_remove_it(j, r, mean, var):
    """Exact reverse kernels, 250 steps: the target is N(1.35, .19)."""
    n, world = 6000, pair()
    x = torch.randn(n, 2, generator=seeded(13), dtype=F64) * math.sqrt(1 + float(SIGMAS[0]) ** 2)
    out = repaint(world, x, SIGMAS, ys(n), MASK, j=j, r=r, step=exact_step(world, 14), generator=seeded(15))
    check(out[:, 1], mean, var, n)


def test_both_ways_fall_short_on_one_gaussian_and_come_closer_with_more_calls():
    """The target is N(1.35, .19). Mean and variance miss to the same side in both ways; the calls of the denoiser are counted."""
    n, seen = 1500, {}
    for T in (2, 5):
        m, V = recursion(geometric(50.0, 0.01, 232), 1.24e-5, T, is_frozen=False, before=True)
        seen["notes", 232 * T] = m, V
    x = torch.randn(n, 2, generator=seeded(22), dtype=F64) * math.sqrt(1 + float(SIGMAS[0]) ** 2)
    for r in (1, 4):
        out = repaint(pair(), x, SIGMAS, ys(n), MASK, j=10, r=r, step=exact_step(pair(), 23), generator=seeded(24))
        seen["repaint", 250 + (r - 1) * 240] = float(out[:, 1].mean()), float(out[:, 1].var())
    error = 4 * math.sqrt(0.3 / n)
    for way in ("notes", "repaint"):
        (_, few), (_, many) = sorted((calls, moments) for (kind, calls), moments in seen.items() if kind == way)
        assert few[0] < many[0] - error and many[0] < 1.35  # pulled to the mean without knowledge, 0
        assert few[1] > many[1] > 0.19 - error / 2


def test_rp_3_what_is_independent_is_left_alone():
    """rho = 0: the unknown's law is untouched for every r, here with the ancestral step on 40 levels."""
    n, world = 4000, pair(0.0)
    sigmas = karras(40, 0.01, 40.0)
    x = torch.randn(n, 2, generator=seeded(16), dtype=F64) * math.sqrt(1 + 1600)
    plain = []
    for r in (1, 3):
        plain.append(repaint(world, x, sigmas, ys(n), MASK, j=5, r=r, generator=seeded(17 + r))[:, 1])
        assert float(plain[-1].mean()) == pytest.approx(0, abs=5 / math.sqrt(n))
    step = exact_step(world, 20)
    exact = repaint(world, x, sigmas, ys(n), MASK, j=5, r=3, step=step, generator=seeded(21))[:, 1]
    check(exact, 0.0, 1.0, n)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: paste(x, x, torch.ones(3, 3)), "broadcast"),
        (lambda x: paste(x, x, torch.full((1, 2), 2.0)), "in \\[0, 1\\]"),
        (lambda x: paste(x, x[:1], MASK), "y of that shape"),
        (lambda x: jumps(0, 1, 1), "T, j, r >= 1"),
        (lambda x: repaint(iso(1.0, 2), x, torch.tensor([1.0, 0.5]), x, MASK, generator=seeded()), "ends in 0"),
        (lambda x: repaint(iso(1.0, 2), x, karras(3), x, torch.ones(5, 2), generator=seeded()), "broadcast"),
    ],
)
def test_wrong_masks_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.zeros(2, 2, dtype=F64))
