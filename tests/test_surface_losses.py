# SPDX-License-Identifier: Apache-2.0
"""DMTet's losses on surfaces (MT-18): closed forms, gradients against differences, and whose gradient is whose."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bozzetto.training.surface_losses import (
    SIDE,
    STEP,
    Critic,
    adversary_loss,
    bent,
    chamfer_and_normals,
    critic_loss,
    patches,
    scattered,
)
from tests.test_dmtet import noise
from tests.test_loop import icosphere


def sheet(n: int, z: float) -> Tensor:
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x, y = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, z)], -1).reshape(-1, 3)


def test_mt_18_two_planes_a_distance_apart_and_at_an_angle():
    a, b = sheet(12, 0.0), sheet(12, 0.3)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(len(a), 3)
    tilted = torch.tensor([0.0, math.sin(0.4), math.cos(0.4)], dtype=torch.float64).expand(len(a), 3)
    chamfer, normals = chamfer_and_normals(a, up, b, tilted)
    assert float(chamfer) == pytest.approx(0.6) and float(normals) == pytest.approx(1 - math.cos(0.4))
    assert float(chamfer_and_normals(a, up, b, -tilted)[1]) == pytest.approx(1 - math.cos(0.4))  # either side
    half = chamfer_and_normals(a[: len(a) // 2], up[: len(a) // 2], sheet(12, 0.0), up)[0]
    beyond = torch.arange(1, 7, dtype=torch.float64).mean() / 12  # half of the other sheet lies 1 to 6 steps off
    assert float(half) == pytest.approx(float(beyond) / 2)
    assert float(chamfer_and_normals(a, up, a, up)[0]) < 1e-150  # and a gradient at 0 that is finite
    x = a.clone().requires_grad_()
    chamfer_and_normals(x, up, a, up)[0].backward()
    assert torch.isfinite(x.grad).all()


def test_mt_18_gradients_of_chamfer_and_normals():
    v, f = icosphere(1)
    v = (v * torch.tensor([0.4, 0.3, 0.2]) + torch.tensor([0.1, -0.05, 0.02])).double()
    on = sheet(9, 0.1)
    truth = torch.nn.functional.normalize(noise(len(on), 3, dtype=torch.float64), dim=1)

    def value(x: Tensor) -> Tensor:
        points, normals = scattered(x, f, 200, torch.Generator().manual_seed(4))
        chamfer, bend = chamfer_and_normals(points, normals, on, truth)
        return chamfer + 0.3 * bend

    # points are taken by area, so that the numbers that pick them must not change: a small step, and one direction
    x = v.clone().requires_grad_()
    value(x).backward()
    along = noise(*v.shape, seed=2, dtype=torch.float64)
    along = along - (along * v).sum() / v.square().sum() * v
    found = (value(v + 1e-7 * along) - value(v - 1e-7 * along)) / 2e-7
    assert float(found) == pytest.approx(float((x.grad * along).sum()), rel=1e-3)


def test_mt_18_points_lie_on_the_mesh_even_by_area():
    v = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [5, 5, 1], [6, 5, 1], [5, 6, 1]], dtype=torch.float64)
    f = torch.tensor([[0, 1, 2], [3, 4, 5]])
    points, normals = scattered(v, f, 20_000, torch.Generator().manual_seed(0))
    on_first = points[:, 2] == 0
    assert abs(float(on_first.double().mean()) - 0.8) < 5 * math.sqrt(0.8 * 0.2 / 20_000)  # five standard errors
    assert (points[on_first].sum(1) <= 2 + 1e-9).all() and (normals == torch.tensor([0.0, 0, 1])).all()
    centre, spread = points[on_first].mean(0), points[on_first][:, 0].std() / math.sqrt(float(on_first.sum()))
    assert (centre - torch.tensor([2 / 3, 2 / 3, 0])).abs().max() < 5 * float(spread)


def test_mt_18_least_squares_adversaries_at_known_values():
    true, made = torch.tensor([1.0, 0.0]), torch.tensor([0.5, -1.0])
    assert float(critic_loss(true, made)) == pytest.approx((0.5 + 0.625) / 2)
    assert float(adversary_loss(made)) == pytest.approx((0.25 + 4) / 2 / 2)
    assert float(critic_loss(torch.ones(3), torch.zeros(3))) == 0 and float(adversary_loss(torch.ones(3))) == 0


def test_mt_18_a_patch_is_the_sdf_of_a_plane():
    g = torch.Generator().manual_seed(0)
    n = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    flat = torch.rand(3000, 3, generator=g) - 0.5
    flat = flat - (flat @ n)[:, None] * n + 0.02 * n
    middle = 0.02 * n[None]
    made = patches(middle, flat, n.expand(3000, 3))
    at = (torch.arange(SIDE) - (SIDE - 1) / 2) * STEP
    x = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1)
    torch.testing.assert_close(made[0, 0], (x @ n / (4 * STEP)).tanh(), rtol=0, atol=1e-5)
    assert (patches(middle, flat, -n.expand(3000, 3)) + made).abs().max() < 1e-5  # the control: inside out
    points = flat.clone().requires_grad_()
    patches(middle, points, n.expand(3000, 3)).sum().backward()
    assert (points.grad @ n).max() <= 0 and (points.grad @ n).min() < 0  # a surface further out makes less of it outside


def test_mt_18_patches_are_taken_where_the_surface_bends():
    v, f = icosphere(2)
    flat = sheet(30, 0.0)
    on = torch.cat([v * 0.1 + 3, flat])
    normals = torch.cat([v, torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(len(flat), 3)])
    picked = bent(on, normals, torch.ones(len(on), dtype=torch.bool), 400, torch.Generator().manual_seed(0))
    share = float((picked[:, 2] > 1).double().mean())
    assert len(f) and share > 2 * len(v) / len(on)
    sheets = torch.zeros(len(on), dtype=torch.bool)
    sheets[len(v) :] = True
    assert (bent(on, normals, sheets, 100, torch.Generator().manual_seed(0))[:, 2] < 1).all()


def test_mt_18_a_critic_is_told_of_the_place():
    critic = Critic(5)
    patch, told = noise(3, 1, SIDE, SIDE, SIDE), noise(3, 5)
    made = critic(patch, told)
    assert made.shape == (3,) and (critic(patch, told + 1) - made).abs().min() > 0
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(critic(patch[order], told[order]), made[order])
