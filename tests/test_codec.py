# SPDX-License-Identifier: Apache-2.0
"""The codec of the embedded priors: what encodes is the best linear code, what decodes begins as its inverse."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bozzetto.diffusion.ddpm import gaussian_kl
from bozzetto.priors import components
from bozzetto.priors.codec import CodecConfig, LinearCodec
from bozzetto.training import codec as training

CONFIG = CodecConfig(latent_channels=8, widths=(16, 8), blocks=(1, 1))


def seeded(config=CONFIG):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        return LinearCodec(config)


def spanned(g):
    """Pictures (4, 3, 32, 32) whose 8 x 8 patches span eight dimensions, and the basis."""
    basis = torch.linalg.qr(torch.randn(192, 8, generator=g))[0].T
    patches = torch.randn(4, 16, 8, generator=g) @ basis + 0.1
    return F.fold(patches.mT, (32, 32), 8, stride=8), basis


def test_principal_components_hold_what_they_can():
    """Exact on pictures of eight dimensions; and no other basis of eight does better on others."""
    g = torch.Generator().manual_seed(0)
    pictures, basis = spanned(g)
    mean, best, _ = training.principal_components(pictures, channels=8)
    torch.testing.assert_close(training.projected(pictures, mean, best), pictures, atol=1e-5, rtol=0)
    noisy = pictures + 0.3 * torch.randn(pictures.shape, generator=g)
    mean, best, std = training.principal_components(noisy, channels=8)
    mine, other = (training.psnr(training.projected(noisy, mean, b.double()), noisy) for b in (best, basis))
    assert mine > other
    assert bool((std.diff() <= 0).all())


def test_it_starts_as_the_linear_codec():
    """What comes back is the projection where patches have one mean a colour, and latents have the spread that was said."""
    g = torch.Generator().manual_seed(1)
    pictures, _ = spanned(g)
    pictures = pictures - F.interpolate(F.avg_pool2d(pictures, 32), 32)
    mean, basis, std = training.principal_components(pictures, channels=8)
    mean = mean.view(3, -1).mean(1, keepdim=True).expand(3, 64).reshape(-1)  # the decoder's bias is one value a colour
    codec = seeded()
    codec.start(mean, basis, std)
    made = training.reconstructed(codec, pictures)
    torch.testing.assert_close(made, training.projected(pictures, mean, basis), atol=1e-5, rtol=0)
    spread = codec.posterior(pictures)[0].std((0, 2, 3))
    torch.testing.assert_close(spread.double(), std.sqrt(), rtol=0.05, atol=0)  # divided by the root; means are nearly 0


def test_encoding_is_linear():
    codec, g = seeded(), torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 1, 3, 32, 32, generator=g)
    z = [codec.posterior(x)[0] for x in (a, b, 0.3 * a + 0.7 * b)]
    torch.testing.assert_close(z[2], 0.3 * z[0] + 0.7 * z[1], atol=1e-6, rtol=1e-5)


def test_vae_1_kl_of_diagonal_gaussians():
    """0 at the standard normal, 1/2 (m**2 + v - 1 - ln v) to it, torch's own between two; and the mean of ln q / p over draws of q."""
    g = torch.Generator().manual_seed(3)
    m, s, m2, s2 = torch.randn(4, 6, generator=g, dtype=torch.float64)
    zero = torch.zeros(6, dtype=torch.float64)
    torch.testing.assert_close(gaussian_kl(zero, zero, zero, zero), zero, atol=0, rtol=0)
    torch.testing.assert_close(gaussian_kl(m, s, zero, zero), (m**2 + s.exp() - 1 - s) / 2, atol=1e-14, rtol=1e-12)
    q, p = (torch.distributions.Normal(a, (b / 2).exp()) for a, b in ((m, s), (m2, s2)))
    made = gaussian_kl(m, s, m2, s2)
    torch.testing.assert_close(made, torch.distributions.kl_divergence(q, p), atol=1e-13, rtol=1e-12)
    x = m + (s / 2).exp() * torch.randn(200_000, 6, generator=g, dtype=torch.float64)
    ratio = q.log_prob(x) - p.log_prob(x)
    assert bool(((ratio.mean(0) - made).abs() < 4 * ratio.std(0) / len(x) ** 0.5).all())  # four standard errors


def test_vae_2_scaling_is_undone_and_gives_unit_variance():
    """Sides an eighth, the mode the same twice, decode of unscaled is decode; the factor is one over the latents' deviation."""
    g = torch.Generator().manual_seed(4)
    pictures, _ = spanned(g)
    codec = seeded()
    codec.start(*training.principal_components(pictures, channels=8))
    z = codec.posterior(pictures)[0]
    assert z.shape == (4, 8, 4, 4) and codec.picture(z).shape == pictures.shape
    assert torch.equal(z, codec.posterior(pictures)[0])
    codec.settings = replace(CONFIG, scaling_factor=1 / float(z.detach().std()))
    x0 = codec.encode(pictures.movedim(1, -1) / 2 + 0.5)
    torch.testing.assert_close(x0.std(), torch.ones(()), atol=1e-4, rtol=0)
    made = (codec.picture(z) / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(codec.decode(x0), made, atol=1e-5, rtol=0)


def test_vae_3_linear_vae_has_the_optimum_of_principal_components():
    """Tipping & Bishop 1999: with decoder U (L - s2)^(1/2) and its exact posterior the bound is the likelihood, and no gradient is left.

    E_q ln N(x; W z, s2) - KL(q || N(0, I)) averaged over the data, q = N(V x, diag d), in closed form: nothing is sampled.
    """
    g = torch.Generator().manual_seed(5)
    pictures, _ = spanned(g)
    pictures = pictures + 0.2 * torch.randn(pictures.shape, generator=g)
    mean, basis, std = (a.double() for a in training.principal_components(pictures, channels=8))
    x = F.unfold(pictures, 8, stride=8).mT.reshape(-1, 192).double() - mean
    D, K, s2 = 192, 8, 0.02  # any s2 below the eigenvalues kept
    values = std.square()
    W = basis.T * (values - s2).sqrt()
    V = (values - s2).sqrt()[:, None] / values[:, None] * basis
    log_d = (s2 / values).log()
    W, V, log_d = (a.clone().requires_grad_() for a in (W, V, log_d))
    z = x @ V.T
    misfit = (x - z @ W.T).square().sum(1) + (log_d.exp() * W.square().sum(0)).sum()
    fit = -(misfit / s2 + D * math.log(2 * math.pi * s2)) / 2
    zero = torch.zeros(K, dtype=torch.float64)
    bound = (fit - gaussian_kl(z, log_d, zero, zero).sum(1)).mean()
    covariance = W.detach() @ W.detach().T + s2 * torch.eye(D, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(D, dtype=torch.float64), covariance).log_prob(x).mean()
    torch.testing.assert_close(bound.detach(), exact, atol=1e-6, rtol=1e-8)
    for slope in torch.autograd.grad(bound, (W, V, log_d)):
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=2e-4, rtol=0)  # values are float32's


def test_a_folder_reads_back(tmp_path):
    codec = seeded()
    training.save(codec, tmp_path / "vae")
    again = components.codec(tmp_path / "vae", torch.float32, "cpu")
    assert isinstance(again, LinearCodec) and again.cell == 8 and again.channels == 8
    for (name, a), b in zip(codec.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a.half().float(), b, msg=name)


def test_the_loss_is_its_formula():
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = {"picture": picture, "noise": torch.zeros(2, 8, 8, 8)}
    total, parts = training.loss(lambda p, n: p + 0.25, batch, torch.ones(8))
    assert float(parts["pixels"]) == pytest.approx(0.25, abs=1e-6)
    assert float(parts["edges"]) == pytest.approx(0, abs=1e-5)  # an even error has no edges
    ramp = torch.arange(64.0) * 0.5
    total, parts = training.loss(lambda p, n: p + ramp, batch, torch.ones(8))
    assert float(parts["edges"]) == pytest.approx(0.5 + 1 + 2)  # a slope doubles with each halving
    assert float(total) == pytest.approx(float(parts["pixels"]) + 0.5 * 3.5)


def test_samples_are_functions_of_their_index():
    pictures = torch.randint(0, 256, (5, 16, 16, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures[..., :3] = torch.minimum(pictures[..., :3], pictures[..., 3:])
    samples = training.Pictures(pictures, 2, 8, seed=0)
    a, b = samples[7], samples[7]
    assert all(torch.equal(a[k], b[k]) for k in a) and float(a["picture"].abs().max()) <= 1 + 1e-6
    white = sum(
        torch.equal(
            training.on(pictures[k : k + 1], torch.ones(1, 3))[0], samples[i]["picture"].flip(-1) if i % 2 else samples[i]["picture"]
        )
        for i in range(60)
        for k in range(5)
    )
    assert 30 <= white <= 54  # 0.7 of 60 within four deviations
