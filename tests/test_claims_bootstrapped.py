# SPDX-License-Identifier: Apache-2.0
"""The world of bootstrapped distillation's claims: views, their prior, and what a refresh leaves."""

from __future__ import annotations

import pytest
import torch

from bozzetto.claims import bootstrapped as world
from bozzetto.distill.bsd import refreshed


def draws(count, seed=0):
    return world.rings(count, torch.Generator().manual_seed(seed))


def test_views_are_arcs_of_the_ring_and_fusing_them_gives_it_back():
    scenes = draws(3)
    views = world.arcs(scenes)
    assert torch.equal(views[6 + 2], scenes[1, 32:64]) and torch.equal(views[5], torch.cat([scenes[0, 80:], scenes[0, :16]]))
    torch.testing.assert_close(world.fused(views), scenes)
    one = torch.zeros(6, 32, dtype=torch.float64)
    one[1] = 1
    assert torch.equal(world.fused(one)[0].nonzero().flatten(), torch.arange(16, 48))


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_priors_answer_is_the_mean_of_what_may_be_behind(sigma):
    x0 = world.arcs(draws(20_000))
    x = x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = world.single_views()
    left = x0 - prior.denoise(x, sigma)
    assert (left.T @ x / len(x)).abs().max() < 0.03  # the error is orthogonal to what was seen: 3 % of the variance, from so many draws
    other = x0 - prior.denoise(x, 2 * sigma)
    assert (other.T @ x / len(x)).abs().max() > 0.06  # of another level it is not


def test_bsd_2_a_dreambooth_that_is_phi_leaves_scenes_as_they_are():
    start = world.coarse(draws(2))
    made = world.bootstrapped(start, lambda step: 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.scenes, start, rtol=0, atol=1e-12)


def test_views_drawn_anew_keep_half_of_their_power_where_two_overlap():
    start = world.arcs(draws(300))
    views = refreshed(world.single_views(), start, 1.0, generator=torch.Generator().manual_seed(1))
    inside = [k for k in range(95) if (k + 1) % 16]  # across a seam neighbours are of other views
    kept = world.fused(views).diff(dim=1)[:, inside].square().mean() / views.diff(dim=1).square().mean()
    assert float(kept) == pytest.approx(0.5, abs=0.02)
    alike = world.fused(start).diff(dim=1)[:, inside].square().mean() / start.diff(dim=1).square().mean()
    assert float(alike) == pytest.approx(1, abs=0.02)
