# SPDX-License-Identifier: Apache-2.0
"""What the experiments on DDPM, DDIM, DMTet and Gaussians have of their own, where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.camera import rotations
from bozzetto.claims import ddim, ddpm, dmtet, gaussians, novel_views
from bozzetto.diffusion.ddpm import posterior_mean
from bozzetto.scores.parzen import Empirical
from bozzetto.shapes.densify import Densify, DensifySchedule
from bozzetto.shapes.gaussians import Gaussians


def test_a_network_that_says_the_posteriors_mean_is_one_that_says_x0():
    generator = torch.Generator().manual_seed(0)
    x0, x_t = torch.randn(2, 50, 2, generator=generator, dtype=torch.float64)
    k = torch.randint(len(ddpm.P), (50,), generator=generator)
    off = (posterior_mean(ddpm.P, x0, x_t, k) - x_t).float()  # what the network has to say
    found = ddpm.mean_of(lambda x: off).ask(x_t, k)
    # float32's rounding, divided by on_x0
    assert float(((found - x0).abs().max(1).values * ddpm.P.on_x0[k]).max()) < 1e-6
    wrong = ddpm.mean_of(lambda x: -off).ask(x_t, k)
    assert float((wrong - x0).abs().max()) > 0.1


def test_the_bank_is_parzens_at_every_level():
    generator = torch.Generator().manual_seed(1)
    x0 = ddim.pictures(40, generator=generator)
    assert x0.shape == (40, 1, 16, 16) and float(x0.min()) == -1 and float(x0.max()) == 1
    bank, twin = ddim.Bank(x0), Empirical(x0.double(), 0.0)
    for sigma in (0.3, 3.0, 30.0):
        x = x0[:5].double() + sigma * torch.randn(5, 1, 16, 16, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(bank.denoise(x, sigma), twin.denoise(x, sigma), rtol=0, atol=1e-9)
    assert bank.nearest(x0[[7, 3]]).tolist() == [7, 3]


def test_points_of_box_and_ring_lie_on_them_even_by_area_with_outward_normals():
    places, normals = dmtet.box(4000, torch.Generator().manual_seed(2))
    turn = rotations(torch.tensor([[0.8, 0.3, -0.2, 0.4]]))[0]
    at, n, half = (places - torch.tensor([0.04, -0.03, 0.05])) @ turn, normals @ turn, torch.tensor([0.34, 0.24, 0.16])
    side = (at / half).abs()
    assert float((side.amax(1) - 1).abs().max()) < 1e-5 and float(((at * n).sum(1) - (n.abs() * half).sum(1)).abs().max()) < 1e-5
    area = 1 / half / (1 / half).sum()
    assert (n.abs().mean(0) - area).abs().max() < 4 * math.sqrt(0.25 / 4000)
    places, normals = dmtet.ring(4000, torch.Generator().manual_seed(3))
    at = places - torch.tensor([0.03, 0.02, -0.05])
    tube = torch.stack([at[:, :2].norm(dim=1) - 0.3, at[:, 2]], 1)
    assert float((tube.norm(dim=1) - 0.13).abs().max()) < 1e-5
    # even by area, the mean of the radius is (R^2 + r^2 / 2) / R; of angles drawn evenly it is R
    radius = at[:, :2].norm(dim=1)
    assert float(radius.mean()) == pytest.approx(0.3 + 0.13**2 / 0.6, abs=4 * float(radius.std()) / math.sqrt(4000))


def test_points_of_a_surface_are_on_it_and_carry_its_gradient():
    vertices, faces = dmtet.sphere().surface()
    places, normals = dmtet.on(vertices, faces, 500, torch.Generator().manual_seed(4))
    assert places.requires_grad and float((places.detach().norm(dim=1) - 0.38).abs().max()) < 0.03  # flat faces, a fifth of the radius long
    assert float((normals * places).detach().sum(1).min()) > 0.3


def test_growing_where_least_pulls_takes_the_others():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    grown = {}
    for kind in (Densify, gaussians.Coldest):
        g = Gaussians.from_points(points, torch.full((4, 3), 0.5))
        strategy = kind(DensifySchedule(threshold=1.0, small=100.0), 1.0)  # all are small, so all are cloned
        strategy.pull, strategy.visits = torch.tensor([3.0, 1.0, 0.5, 4.0]), torch.tensor([1.0, 2.0, 1.0, 2.0])
        strategy.densify(g, g.optimiser(1.0), prune_large=False, generator=torch.Generator())
        grown[kind] = g.means.detach()[4:]
    torch.testing.assert_close(grown[Densify], points[[0, 3]])
    torch.testing.assert_close(grown[gaussians.Coldest], points[[1, 2]])


def test_a_balls_stain_is_on_one_side_of_its_back():
    at = 0.4 * torch.tensor([[1.0, 0, 0], [-1, 0, 0], [-0.643, 0.766, 0], [-0.643, -0.766, 0]])
    front, back, stain, other = novel_views.coloured(1)(at, None)
    assert torch.equal(back, other) and not torch.equal(stain, other) and not torch.equal(front, back)
