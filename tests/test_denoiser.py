# SPDX-License-Identifier: Apache-2.0
"""Adapters against the closed forms of Gaussian data."""

import numpy as np
import pytest
import torch

from bozzetto.denoiser import Adapted, EDMDenoiser, ScoreDenoiser, VPDenoiser, interpolated, noise, score

C2, MEAN = 0.49, 0.3
ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def exact(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, C2)."""
    s2 = torch.as_tensor(sigma, dtype=torch.float64).view(-1, 1) ** 2
    return (C2 * x + s2 * MEAN) / (C2 + s2)


def network(prediction):
    """The exact variance-preserving network for that data; times between steps follow log sigma."""
    ladder = ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt().log()

    def answer(x_t, step):
        low = step.double().floor().long().clamp(max=998)
        sigma = (ladder[low] + (step.double() - low) * (ladder[low + 1] - ladder[low])).exp()[:, None]
        scale = (1 + sigma**2).sqrt()
        x0 = exact(x_t * scale, sigma[:, 0])
        eps = (x_t * scale - x0) / sigma
        return {"x0": x0, "eps": eps, "v": eps / scale - sigma / scale * x0}[prediction]

    return answer


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_variance_preserving_networks_give_the_posterior_mean(prediction):
    denoiser = VPDenoiser(network(prediction), ALPHA_BAR, prediction)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([0.02, 0.3, 4.0, 150.0], dtype=torch.float64)
    # the time passes through float32: a relative 6e-8 of a step of up to 1000, each of at most .4 in log sigma
    torch.testing.assert_close(denoiser.denoise(x, sigma), exact(x, sigma), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_on_its_levels_a_network_is_its_native_form_to_1e_6(prediction):
    """Ho et al.'s x0 from a prediction on the variance-preserving scale, against the adapter's, at single steps."""
    denoiser = VPDenoiser(network(prediction), ALPHA_BAR, prediction)
    for k in (0, 10, 500, 999):
        a = ALPHA_BAR[k]
        x_t = torch.randn(5, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        made = network(prediction)(x_t, torch.full((5,), k))
        native = {"eps": (x_t - (1 - a).sqrt() * made) / a.sqrt(), "v": a.sqrt() * x_t - (1 - a).sqrt() * made, "x0": made}[prediction]
        torch.testing.assert_close(denoiser.denoise(x_t / a.sqrt(), denoiser.sigmas[k]), native, rtol=1e-6, atol=1e-9)


def test_on_a_level_the_time_is_that_step_and_between_two_it_is_between():
    denoiser = VPDenoiser(network("eps"), ALPHA_BAR)
    torch.testing.assert_close(denoiser.step(denoiser.sigmas), torch.arange(1000, dtype=torch.float64), atol=1e-9, rtol=0)
    assert denoiser.step(1e-9) == 0 and denoiser.step(1e9) == 999
    between = denoiser.step((denoiser.sigmas[10] * denoiser.sigmas[11]).sqrt())
    assert abs(float(between) - 10.5) < 1e-9


def test_score_and_noise_of_gaussian_data():
    denoiser = Adapted(lambda x, sigma, cond: exact(x, sigma), torch.tensor([0.01, 10.0]))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(score(denoiser, x, 0.5), -(x - MEAN) / (C2 + 0.25))
    torch.testing.assert_close(noise(denoiser, x, 0.5), 0.5 * (x - MEAN) / (C2 + 0.25))


def test_interpolation_is_numpys_and_holds_beyond_the_ends():
    at, values = torch.tensor([-1.0, 0.0, 0.5, 3.0], dtype=torch.float64), torch.tensor([2.0, 7.0, 1.0, 4.0], dtype=torch.float64)
    x = torch.linspace(-2, 4, 97, dtype=torch.float64)
    torch.testing.assert_close(interpolated(x, at, values), torch.from_numpy(np.interp(x, at, values)), rtol=1e-14, atol=1e-14)
    assert torch.equal(interpolated(at, at, values), values)
    assert interpolated(x, at[:1], values[:1]).unique().tolist() == [2.0]


def test_a_score_network_is_asked_at_its_nearest_level():
    sigmas = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    asked = []

    def net(x, level):
        asked.append(level.tolist())
        return -(x - MEAN) / (C2 + sigmas[level].view(-1, 1) ** 2)

    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    denoiser = ScoreDenoiser(net, sigmas)
    torch.testing.assert_close(denoiser.denoise(x, sigmas), exact(x, sigmas), rtol=1e-12, atol=1e-12)
    denoiser.denoise(x, torch.tensor([0.7, 0.05, 1e-5]))
    assert asked == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d, x: d.denoise(x, 0.0), "finite positive"),
        (lambda d, x: d.denoise(x, float("nan")), "finite positive"),
        (lambda d, x: d.denoise(x, torch.ones(3)), "one a sample"),
        (lambda d, x: VPDenoiser(network("eps"), ALPHA_BAR.flip(0)), "that fall"),
        (lambda d, x: VPDenoiser(network("eps"), torch.tensor([0.9, 0.0])), "2\\*\\*-24"),
        (lambda d, x: VPDenoiser(network("eps"), ALPHA_BAR, "score"), "eps, v or x0"),
    ],
)
def test_wrong_levels_are_refused(call, words):
    x = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=words):
        call(VPDenoiser(network("eps"), ALPHA_BAR), x)


class Elsewhere(torch.nn.Module):
    """A network whose weights are on another device than samples: `meta` refuses to be mixed with others, as a GPU does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, device="meta", dtype=torch.float16))

    def forward(self, x, step):
        assert (self.weight * x * step[:, None]).shape == x.shape and x.dtype == torch.float16
        return torch.zeros(x.shape, dtype=x.dtype)  # as if it came back: from `meta` nothing does


@pytest.mark.parametrize(
    "adapter", [lambda n: VPDenoiser(n, ALPHA_BAR, "v"), lambda n: ScoreDenoiser(n, torch.tensor([2.0, 1.0])), EDMDenoiser]
)
def test_samples_go_to_where_the_network_is_and_come_back(adapter):
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = adapter(Elsewhere()).denoise(x, torch.tensor([1.0, 0.5, 2.0]))
    assert made.device.type == "cpu" and made.dtype == torch.float64 and bool(torch.isfinite(made).all())
