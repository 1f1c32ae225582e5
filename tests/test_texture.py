# SPDX-License-Identifier: Apache-2.0
"""Texture lookup: UV-2 at the sampling side, and its float64 twin."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from bozzetto.kernels import pool
from bozzetto.kernels.texture import texture
from tests.twins import rasterize as twin
from tests.twins.scenes import TOLERANCE, grads, random


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(1, 6, 5, 3), (2, 4, 7, 1), (1, 1, 1, 2), (2, 1, 8, 2)])
def test_uv_2_texture_meets_its_twin(mode, dtype, shape):
    image = random(*shape).to(dtype).requires_grad_()
    uv = (3 * random(2, 5, 4, 2, seed=1) - 1).to(dtype)
    uv[0, 0, 0, 0], uv[1, 2, 1, 1] = math.nan, math.inf
    uv.requires_grad_()
    image2, uv2 = image.detach().double().requires_grad_(), uv.detach().double().requires_grad_()
    out = texture(image, uv, mode=mode)
    expected = twin.texture(image2, uv2, mode)
    torch.testing.assert_close(out.double(), expected, **TOLERANCE[dtype])
    for ours, theirs in zip(grads(out, [image, uv]), grads(expected, [image2, uv2]), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs.nan_to_num(), **TOLERANCE[dtype])


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_uv_2_gradients_against_central_differences(mode):
    image, uv = random(1, 5, 3, 2).requires_grad_(), (3 * random(2, 3, 4, 2, seed=1) - 1).requires_grad_()
    assert gradcheck(lambda t, at: texture(t, at, mode=mode), (image, uv))
    assert gradcheck(lambda t, at: twin.texture(t, at, mode), (image, uv[:1, :2, :2].detach().requires_grad_()))


def test_uv_2_a_linear_field_is_reproduced():
    """Away from the border, and with the right axis: u runs along columns, v = 0 is the top row."""
    H, W = 9, 16
    y, x = torch.meshgrid((torch.arange(H) + 0.5) / H, (torch.arange(W) + 0.5) / W, indexing="ij")
    image = (2 * x + 5 * y + 1).double()[None, ..., None]
    uv = 1 / 8 + 3 / 4 * random(1, 20, 20, 2)
    linear = 2 * uv[..., :1] + 5 * uv[..., 1:] + 1
    torch.testing.assert_close(texture(image, uv), linear, rtol=0, atol=1e-6)  # the grid above is float32
    assert not torch.allclose(texture(image, uv.flip(-1)), linear, atol=1e-2)
    assert not torch.allclose(texture(image, torch.stack([uv[..., 0], 1 - uv[..., 1]], -1)), linear, atol=1e-2)
    outside = torch.tensor([[[[-3.0, 0.5], [7.0, 0.5]]]], dtype=torch.float64)
    torch.testing.assert_close(texture(image, outside, mode="clamp")[0, 0, :, 0], image[0, 4, [0, -1], 0])
    torch.testing.assert_close(texture(image, outside + 2), texture(image, outside))
    assert not torch.allclose(texture(image, outside), texture(image, outside, mode="clamp"))


def test_uv_2_bits_do_not_depend_on_threads():
    image, uv = random(1, 64, 50, 3).float().requires_grad_(), (3 * random(3, 70, 40, 2, seed=1) - 1).float().requires_grad_()
    results, before = [], pool.num_threads()
    try:
        for threads in (1, 2, 3):
            pool.set_num_threads(threads)
            out = texture(image, uv)
            results.append(b"".join(t.detach().numpy().tobytes() for t in (out, *grads(out, [image, uv]))))
    finally:
        pool.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t, at: texture(t[0], at), "expected image"),
        (lambda t, at: texture(t.expand(3, -1, -1, -1), at), "expected image"),
        (lambda t, at: texture(t, at, mode="mirror"), "'wrap' or 'clamp'"),
    ],
)
def test_uv_2_refuses_wrong_shapes(call, words):
    with pytest.raises(ValueError, match=words):
        call(random(1, 4, 4, 3), random(2, 3, 3, 2))
