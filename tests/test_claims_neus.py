# SPDX-License-Identifier: Apache-2.0
"""The world of the claims about NeuS, and its experiments, shortened."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.claims import neus as claims


def test_the_world_is_a_ball_and_a_torus_that_pictures_show_where_they_are():
    world = claims.truth(0)
    g = torch.Generator().manual_seed(1)
    u = torch.nn.functional.normalize(torch.randn(200, 3, generator=g, dtype=torch.float64), dim=1)
    out = world.sdf(world.middles[0] + 0.5 * u)
    assert (out <= 0.5 - world.ball + 1e-12).all()  # the torus may be nearer, and nothing is farther
    axis = world.turn[:, 2]
    assert float(world.sdf(world.middles[1] + 5 * axis)) == pytest.approx(
        min(math.hypot(5, world.large) - world.small, float((world.middles[1] + 5 * axis - world.middles[0]).norm()) - world.ball)
    )
    views = world.pictures(claims.taken(3))
    origins, directions = views.cameras.rays()
    t, is_hit = world.first(origins, directions)
    assert world.sdf(origins + t[..., None] * directions)[is_hit].abs().max() < 1e-4
    assert (views.alpha[..., 0][is_hit] > 0.2).all() and 0.03 < float(views.alpha.mean()) < 0.4
    inner = views.alpha[..., 0] == 1  # smooth colours: their mean over a pixel is that of its middle, but for the curvature
    assert (views.rgb[inner] - world.colour(origins + t[..., None] * directions)[inner]).abs().mean() < 0.02


def test_weights_of_neus_are_at_the_first_surface_and_a_sharper_field_is_nearer_to_it(monkeypatch):
    scores = claims.first_surface(3, sections=512)
    assert 3 * scores[claims.METHOD] < 1.2 * scores[claims.BIASED] < scores["s-density as weight"] < scores[claims.FLIPPED]
    monkeypatch.setattr(claims, "SHARPNESS", 256.0)
    assert claims.first_surface(3, sections=2048)[claims.METHOD] < scores[claims.METHOD]  # in 1 / k: of higher than first order


@pytest.mark.slow
def test_the_experiment_measures_every_variant_and_a_short_run_is_under_way():
    try:
        found = claims.fits(5, share=0.1)
        off = claims.off(found[claims.METHOD].shape, claims.truth(5))
        begun = claims.off(claims.begun(claims.METHOD, 5), claims.truth(5))
        assert set(found) == {claims.METHOD, claims.BIASED, claims.FLIPPED, "density"}
        assert off < begun / 2 and found[claims.METHOD].psnr > found[claims.FLIPPED].psnr + 3
    finally:
        claims.fits.cache_clear()
