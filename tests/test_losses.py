# SPDX-License-Identifier: Apache-2.0
"""Training losses: their identities, and their floors on Gaussian data."""

import math

import pytest
import torch
from torch import nn

from bozzetto.denoiser import Adapted, EDMDenoiser, VPDenoiser, sigma_of
from bozzetto.diffusion.losses import (
    denoising_loss,
    draw_steps,
    edm_sigma,
    edm_weight,
    noised,
    prediction_loss,
    snr_weight,
    target,
)
from bozzetto.diffusion.schedules import alpha_bar, cosine_betas, linear_betas
from tests.twins.worlds import F64, SIGMAS, iso, seeded

ALPHA_BAR = alpha_bar(linear_betas())


def batch(n=64, D=3, seed=0):
    g = seeded(seed)
    return torch.randn(n, D, generator=g, dtype=F64), torch.randn(n, D, generator=g, dtype=F64), draw_steps(n, 1000, generator=g)


def test_targets_obey_the_conversions_of_the_notes():
    """x_t = sqrt(a) x0 + sqrt(1 - a) eps, v = sqrt(a) eps - sqrt(1 - a) x0: a rotation, so its inverse is its transpose."""
    x0, eps, k = batch()
    a = ALPHA_BAR[k]
    x_t, v, w = noised(x0, eps, a), target("v", x0, eps, a), a[:, None]
    torch.testing.assert_close(w.sqrt() * x_t - (1 - w).sqrt() * v, x0, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(w.sqrt() * v + (1 - w).sqrt() * x_t, eps, rtol=1e-12, atol=1e-13)
    assert target("eps", x0, eps, a) is eps and target("x0", x0, eps, a) is x0


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_native_and_denoising_losses_agree_with_their_weights(prediction):
    x0, eps, k = batch()
    net = nn.Linear(3, 3, dtype=F64)

    def network(x_t, step):
        return net(x_t) * torch.cos(step.double())[:, None]

    native = prediction_loss(network, x0, eps, k, ALPHA_BAR, prediction)
    sigma = sigma_of(ALPHA_BAR)[k]
    plain = denoising_loss(VPDenoiser(network, ALPHA_BAR, prediction), x0, eps, sigma)
    brought = {"x0": torch.ones_like(sigma), "eps": sigma**-2, "v": 1 + sigma**-2}[prediction]
    torch.testing.assert_close(native, brought * plain, rtol=1e-5, atol=1e-9)  # the step passes through float32
    capped = (1 / sigma**2).clamp(max=5.0)
    torch.testing.assert_close(snr_weight(prediction, sigma, 5.0) * brought, capped, rtol=1e-12, atol=0)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_denoisers_own_loss_is_the_native_one_at_its_levels(prediction):
    """Value and gradient; between two levels it is the error of x0 with what the prediction brings along."""
    x0, eps, k = batch(seed=2)
    net = nn.Linear(3, 3, dtype=F64)

    def network(x_t, step):
        return net(x_t) * torch.cos(step.double())[:, None]

    denoiser = VPDenoiser(network, ALPHA_BAR, prediction)
    sigma = sigma_of(ALPHA_BAR)[k]
    own, native = denoiser.loss(x0, eps, sigma), prediction_loss(network, x0, eps, k, ALPHA_BAR, prediction)
    torch.testing.assert_close(own, native, rtol=1e-11, atol=1e-14)  # 1 - alpha_bar passes through sigma: some digits
    slopes = [torch.autograd.grad(loss.mean(), tuple(net.parameters())) for loss in (own, native)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    between = sigma * 1.0003
    brought = {"x0": torch.ones_like(sigma), "eps": between**-2, "v": 1 + between**-2}[prediction]
    own, plain = denoiser.loss(x0, eps, between), denoising_loss(denoiser, x0, eps, between)
    torch.testing.assert_close(own, brought * plain, rtol=1e-6, atol=1e-9)
    assert float(denoiser.loss(x0[:1], eps[:1], 2.0).detach()) > 0  # one number for all
    with pytest.raises(ValueError, match="expected a prediction"):
        VPDenoiser(lambda x, step: x[:, :1], ALPHA_BAR, prediction).loss(x0, eps, sigma)


def test_the_loss_of_a_joint_sample_is_a_mean_over_its_views():
    """x0 (B, V, C, h, w) with one level a sample."""
    x0, eps = torch.randn(2, 3, 4, 2, 5, 5, generator=seeded(7), dtype=F64).unbind(0)
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=F64)
    denoiser = VPDenoiser(lambda x, step: 0.5 * x, ALPHA_BAR, "v")
    whole = denoiser.loss(x0, eps, sigma)
    views = torch.stack([denoiser.loss(x0[:, v], eps[:, v], sigma) for v in range(4)])
    torch.testing.assert_close(whole, views.mean(0), rtol=1e-12, atol=0)


def test_ddpm_4_simple_loss_has_its_floor_on_gaussian_data():
    """eps* = sqrt(1 - a) x_t / v_t leaves a c**2 / v_t a dimension, v_t = a c**2 + 1 - a."""
    c2, n = 0.25, 100_000
    for k in (0, 200, 999):
        a = float(ALPHA_BAR[k])
        v = a * c2 + 1 - a
        g = seeded(k)
        x0, eps = (torch.randn(n, 1, generator=g, dtype=F64) for _ in range(2))
        loss = prediction_loss(lambda x_t, s: math.sqrt(1 - a) * x_t / v, x0 * c2**0.5, eps, torch.full((n,), k), ALPHA_BAR)  # noqa: B023
        floor = a * c2 / v
        # the error is Gaussian: its square deviates by sqrt(2) floor
        assert float(loss.mean()) == pytest.approx(floor, abs=5 * floor * math.sqrt(2 / n))


def test_edm_1_inputs_and_targets_have_unit_variance_and_weights_cancel():
    sigma = torch.logspace(-3, 2, 20, dtype=F64)
    s_d = 0.5
    n = 200_000
    g = seeded()
    y = s_d * (2 * torch.randint(2, (n,), generator=g).double() - 1)  # any law with that deviation
    z = torch.randn(n, generator=g, dtype=F64)
    for s in (0.05, 0.5, 5.0):
        c_in, c_out, c_skip = 1 / math.sqrt(s**2 + s_d**2), s * s_d / math.sqrt(s**2 + s_d**2), s_d**2 / (s**2 + s_d**2)
        seen = []
        wrapped = EDMDenoiser(lambda x, t, seen=seen: seen.append((x, t)) or torch.zeros_like(x), s_d)
        x = (y + s * z)[:, None]
        out = wrapped.denoise(x, s)
        torch.testing.assert_close(out, c_skip * x, rtol=1e-12, atol=0)
        torch.testing.assert_close(seen[0][0], c_in * x, rtol=1e-12, atol=0)
        assert float(seen[0][1][0]) == pytest.approx(math.log(s) / 4, abs=1e-6)
        one = EDMDenoiser(lambda x, t: torch.ones_like(x), s_d).denoise(x, s) - out
        torch.testing.assert_close(one, torch.full_like(one, c_out), rtol=1e-9, atol=1e-12)
        for what in (seen[0][0][:, 0], (y - out[:, 0]) / c_out):  # the network's input, and its target
            assert float(what.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    torch.testing.assert_close(
        edm_weight(sigma, s_d) * (sigma * s_d) ** 2 / (sigma**2 + s_d**2), torch.ones(20, dtype=F64), rtol=1e-13, atol=0
    )


def test_edm_2_gaussian_data_of_that_deviation_needs_no_network():
    """F = 0 is optimal and its weighted loss is exactly 1 a dimension at every level."""
    n = 100_000
    g = seeded(1)
    for s in (0.01, 0.5, 30.0):
        nothing = EDMDenoiser(lambda x, t: torch.zeros_like(x), 0.5)
        x = torch.randn(7, 1, generator=g, dtype=F64)
        torch.testing.assert_close(nothing.denoise(x, s), iso(0.5).denoise(x, s), rtol=1e-12, atol=1e-14)
        x0, eps = (torch.randn(n, 1, generator=g, dtype=F64) for _ in range(2))
        sigma = torch.full((n,), s, dtype=F64)
        assert float(denoising_loss(nothing, 0.5 * x0, eps, sigma, edm_weight(sigma)).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))


def test_edm_6_variance_preserving_preconditioning_is_the_eps_adapter():
    asked = []

    def F(x, step):
        asked.append(x)
        return torch.sin(x)

    x, s = torch.randn(4, 2, generator=seeded(), dtype=F64), 1.7
    got = VPDenoiser(F, ALPHA_BAR).denoise(x, s)
    torch.testing.assert_close(asked[0], x / math.sqrt(1 + s**2), rtol=1e-14, atol=0)
    torch.testing.assert_close(got, x - s * torch.sin(x / math.sqrt(1 + s**2)), rtol=1e-13, atol=1e-14)


def test_training_levels_are_log_normal():
    logs = edm_sigma(100_000, generator=seeded(2)).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=5 * 1.2 / math.sqrt(1e5))
    assert float(logs.std()) == pytest.approx(1.2, abs=5 * 1.2 / math.sqrt(2e5))


def test_networks_in_another_dtype_are_fed_in_theirs():
    net = nn.Linear(3, 3)
    x = torch.randn(2, 3, generator=seeded(), dtype=F64)
    for denoiser in (VPDenoiser(Timeless(net), ALPHA_BAR), EDMDenoiser(Timeless(net))):
        assert denoiser.denoise(x, 0.5).dtype == F64


class Timeless(nn.Module):
    """A network that ignores time."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, step):
        return self.net(x)


def test_steps_are_even_and_gradients_reach_the_network():
    k = draw_steps(50_000, 10, generator=seeded(3))
    counts = torch.bincount(k, minlength=10).double()
    assert float((counts - 5000).abs().max()) < 5 * math.sqrt(5000 * 0.9)
    net = nn.Linear(3, 3, dtype=F64)
    x0, eps, steps = batch()
    prediction_loss(Timeless(net), x0, eps, steps, alpha_bar(cosine_betas()), "v").mean().backward()
    assert net.weight.grad is not None and float(net.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, e, k: target("score", x, e, ALPHA_BAR[k]), "eps, v or x0"),
        (lambda x, e, k: snr_weight("score", torch.ones(1)), "eps, v or x0"),
        (lambda x, e, k: noised(x, e, ALPHA_BAR[:3]), "one a sample"),
        (lambda x, e, k: prediction_loss(lambda x, s: x[:, :1], x, e, k, ALPHA_BAR), "expected a prediction"),
        (lambda x, e, k: denoising_loss(Adapted(lambda x, s, c: x, SIGMAS), x, e, torch.ones(3)), "one a sample"),
    ],
)
def test_wrong_shapes_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(*batch())
