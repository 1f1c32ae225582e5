# SPDX-License-Identifier: Apache-2.0
"""The codec of the embedded priors: what encodes is the best linear code, what decodes begins as its inverse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

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
    spread = codec.encode(pictures).latent_dist.mode().std((0, 2, 3))
    torch.testing.assert_close(spread.double(), std.sqrt(), rtol=0.05, atol=0)  # divided by the root; means are nearly 0


def test_encoding_is_linear():
    codec, g = seeded(), torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 1, 3, 32, 32, generator=g)
    z = [codec.encode(x).latent_dist.mode() for x in (a, b, 0.3 * a + 0.7 * b)]
    torch.testing.assert_close(z[2], 0.3 * z[0] + 0.7 * z[1], atol=1e-6, rtol=1e-5)


def test_a_folder_reads_back(tmp_path):
    codec = seeded()
    training.save(codec, tmp_path / "vae")
    again = components.vae(tmp_path / "vae", torch.float32, "cpu")
    assert isinstance(again, LinearCodec) and again.config.cell == 8 and again.config.latent_channels == 8
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
