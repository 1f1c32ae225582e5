# SPDX-License-Identifier: Apache-2.0
"""Noise schedules against their published constants."""

import math

import pytest
import torch

from bozzetto.denoiser import alpha_bar_of, sigma_of
from bozzetto.diffusion.schedules import (
    alpha_bar,
    cosine_betas,
    karras,
    ladder,
    linear_betas,
    scaled_linear_betas,
    spaced,
    zero_terminal_snr,
)


def test_published_ends():
    """Values that methods/score-and-diffusion.md computed from the formulas."""
    a = alpha_bar(linear_betas())
    assert float(a[-1]) == pytest.approx(4.035829765e-5, rel=1e-9)
    sigma = sigma_of(a)
    assert float(sigma[-1]) == pytest.approx(157.4, abs=0.05) and float(sigma[0]) == pytest.approx(0.01, abs=1e-4)
    a = alpha_bar(scaled_linear_betas())
    assert float(a[-1]) == pytest.approx(0.004660, abs=5e-7) and float(a[-1].sqrt()) == pytest.approx(0.0683, abs=5e-5)
    assert float(sigma_of(a)[-1]) == pytest.approx(14.61, abs=5e-3) and float(sigma_of(a)[0]) == pytest.approx(0.0292, abs=5e-5)
    betas = cosine_betas()
    assert float(alpha_bar(betas)[-1]) == pytest.approx(2.43e-9, rel=2e-3) and int((betas == 0.999).sum()) == 1


def test_alpha_bar_and_sigma_are_inverse():
    a = alpha_bar(cosine_betas())
    torch.testing.assert_close(alpha_bar_of(sigma_of(a)), a, rtol=1e-11, atol=0)


def test_zero_terminal_snr_keeps_the_start_and_ends_in_nothing():
    a = alpha_bar(scaled_linear_betas())
    rescaled = zero_terminal_snr(a)
    assert float(rescaled[0]) == pytest.approx(float(a[0]), rel=1e-14) and float(rescaled[-1]) == 2.0**-24
    assert bool((rescaled.diff() < 0).all())
    assert float(sigma_of(rescaled)[-1]) == pytest.approx(4096, rel=1e-7)
    assert float(zero_terminal_snr(a, last=0.0)[-1]) == 0


def test_edm_3_karras_ends_are_exact_and_even_in_the_root():
    s = karras(18)
    assert s.shape == (19,) and float(s[0]) == 80.0 and float(s[17]) == 0.002 and float(s[18]) == 0.0
    steps = (s[:18] ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(17), rtol=1e-10, atol=0)
    assert float(karras(40, rho=1.0)[:40].diff().std()) < 1e-12  # rho = 1 is linear


def test_spacings_visit_what_they_promise():
    assert spaced(1000, 10, "trailing").tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert spaced(1000, 10, "leading").tolist() == list(range(900, -1, -100))
    assert spaced(1000, 10, "leading", offset=1).tolist() == list(range(901, 0, -100))
    assert spaced(1000, 10, "linspace").tolist() == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    quad = spaced(1000, 20, "quad")
    assert int(quad[0]) in (799, 800) and int(quad[-1]) == 0  # DDIM's code: the square of sqrt(800) rounds either way
    for spacing in ("trailing", "leading", "linspace"):
        assert spaced(50, 50, spacing).tolist() == list(range(49, -1, -1))
    a = alpha_bar(linear_betas())
    s = ladder(a, spaced(1000, 50))
    assert s.shape == (51,) and float(s[0]) == float(sigma_of(a)[-1]) and float(s[-1]) == 0 and bool((s.diff() < 0).all())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: linear_betas(1000, 0.0, 0.02), "in \\(0, 1\\)"),
        (lambda: linear_betas(10, 0.01, 2.0), "1000 / T"),
        (lambda: alpha_bar(torch.tensor([0.1, math.nan])), "in \\(0, 1\\)"),
        (lambda: karras(1), "n >= 2"),
        (lambda: karras(10, 80.0, 0.002), "sigma_min < sigma_max"),
        (lambda: spaced(1000, 0), "1 to 1000"),
        (lambda: spaced(1000, 1001), "1 to 1000"),
        (lambda: spaced(1000, 10, "even"), "trailing, leading"),
        (lambda: spaced(1000, 10, "trailing", offset=1), "take fewer"),
        (lambda: spaced(100, 90, "quad"), "take fewer"),
    ],
)
def test_wrong_schedules_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
