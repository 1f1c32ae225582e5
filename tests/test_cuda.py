# SPDX-License-Identifier: Apache-2.0
"""The kernels on CUDA tensors against the same kernels on the CPU, values and gradients; `training.course` runs this on a GPU.

Where nvdiffrast or gsplat is installed, it is what takes CUDA tensors: then the tolerances are those of another implementation,
else of a copy there and back. On the CPU each test compares a thing with itself, so that it is known to run. No GPU has run it yet.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.kernels.antialias import antialias
from bozzetto.kernels.hashgrid import Levels, encode, slope
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize
from bozzetto.kernels.splat import splat
from bozzetto.kernels.texture import texture
from bozzetto.training.replay import varied
from tests.test_course import batch_of

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]


def is_other(package: str, device: str) -> bool:
    """Does another implementation do the work?"""
    return device == "cuda" and importlib.util.find_spec(package) is not None


def noise(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def close(there: list[Tensor], here: list[Tensor], other: bool) -> None:
    """The same device as the inputs, and the same values: to rounding, or by another program in the mean over pixels: silhouettes
    and cut-offs differ."""
    for a, b in zip(there, here, strict=True):
        assert a.dtype == b.dtype and torch.isfinite(a).all()
        if other:
            assert (a.cpu() - b).norm() < 0.05 * b.norm() + 1e-6
        else:
            torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4 * float(b.detach().abs().max()))  # sums in another order


def ball() -> tuple[Tensor, Tensor]:
    """A closed surface of some hundred faces."""
    n = 12
    lat, lon = torch.meshgrid(torch.linspace(-1.57, 1.57, n + 1), torch.arange(n) * (2 * torch.pi / n), indexing="ij")
    points = 0.5 * torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(n) * n, torch.arange(n), indexing="ij")
    a, b, c, e = (i + j).reshape(-1), (i + (j + 1) % n).reshape(-1), (i + n + (j + 1) % n).reshape(-1), (i + n + j).reshape(-1)
    return points, torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, e], -1)])


@pytest.mark.parametrize("device", DEVICES)
def test_rasterised_interpolated_and_antialiased_alike(device):
    v, faces = ball()
    values, weight = noise(len(v), 3, seed=0), noise(1, 40, 48, 3, seed=1)

    def made(device: str) -> list[Tensor]:
        clip = orbit([0.3], [0.4], 1.6, fov=0.7, size=(40, 48)).clip(v).to(device).requires_grad_()
        colour, f = values.to(device).requires_grad_(), faces.to(device)
        rast = rasterize(clip, f, (40, 48))
        picture = antialias(interpolate(colour, rast, clip, f), rast, clip, f)
        return [picture, *torch.autograd.grad((picture * weight.to(device)).sum(), (colour, clip))]

    there, here = made(device), made("cpu")
    assert all(t.device.type == device for t in there)
    close(there, here, is_other("nvdiffrast", device))


@pytest.mark.parametrize("device", DEVICES)
def test_textures_alike(device):
    image, uv, weight = noise(1, 16, 16, 3, seed=2), 3 * noise(1, 20, 20, 2, seed=3) - 1, noise(1, 20, 20, 3, seed=4)

    def made(device: str) -> list[Tensor]:
        i, at = image.to(device).requires_grad_(), uv.to(device).requires_grad_()
        out = texture(i, at)
        return [out, *torch.autograd.grad((out * weight.to(device)).sum(), (i, at))]

    close(made(device), made("cpu"), is_other("nvdiffrast", device))


@pytest.mark.parametrize("device", DEVICES)
def test_gaussians_alike(device):
    n = 200
    parts = [2 * noise(n, 3, seed=5) - 1, noise(n, 4, seed=6) - 0.5, 0.05 * noise(n, 3, seed=7) + 0.03, 0.8 * noise(n, seed=8) + 0.1]
    parts.append(noise(n, 3, seed=9))
    w2c, K = torch.eye(3, 4)[None].clone(), torch.tensor([[[60.0, 0, 24], [0, 60, 20], [0, 0, 1]]])
    w2c[0, 2, 3] = 4
    weight = noise(1, 40, 48, 3, seed=10)

    def made(device: str) -> list[Tensor]:
        leaves = [p.to(device).requires_grad_() for p in parts]
        out = splat(*leaves, w2c.to(device), K.to(device), (40, 48))
        return [out.rgb, out.alpha, *torch.autograd.grad((out.rgb * weight.to(device)).sum(), leaves)]

    there, here = made(device), made("cpu")
    assert all(t.device.type == device for t in there)
    close(there, here, is_other("gsplat", device))


@pytest.mark.parametrize("device", DEVICES)
def test_hash_grids_alike(device):
    levels = Levels(6, 8, 1.6, 12)
    x, table, weights = noise(500, 3, seed=11), noise(levels.entries, 2, seed=12) - 0.5, noise(levels.features, 500, seed=13) - 0.5

    def made(device: str) -> list[Tensor]:
        at, t, w = (a.to(device).requires_grad_() for a in (x, table, weights))
        normal = slope(at, t, w, levels, 5)
        out = encode(at, t, levels, 5)
        first = torch.autograd.grad((out * w.detach()).sum(), (at, t))
        return [out, *first, normal, *torch.autograd.grad(normal.square().sum(), (t, w))]

    there, here = made(device), made("cpu")
    assert all(t.device.type == device for t in there)
    close(there, here, False)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_varies_alike(device):
    batch = batch_of(8)
    here = varied(batch, torch.Generator().manual_seed(3))
    there = varied({k: v.to(device) for k, v in batch.items()}, torch.Generator().manual_seed(3))
    for key, value in here.items():
        assert torch.equal(there[key].cpu(), value), key
