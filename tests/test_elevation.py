# SPDX-License-Identifier: Apache-2.0
"""Elevation from re-projection errors: exact matches, noise, what cannot be seen, and pictures of a known object."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.denoiser import Adapted
from bozzetto.priors.elevation import (
    DEGREE,
    FOV,
    draw_nearby,
    estimate_elevation,
    estimate_from_tracks,
    nearby,
    reprojection_error,
    tracks,
    triangulate,
)
from bozzetto.priors.prior import Reference

POLARS = (30, 45, 60, 90, 105, 120)


def points(n: int = 60, seed: int = 0) -> Tensor:
    """In a ball of radius 0.4."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g, dtype=torch.float64)
    return 0.4 * x / x.norm(dim=1, keepdim=True) * torch.rand(n, 1, generator=g, dtype=torch.float64) ** (1 / 3)


def matches(polar: float, n: int = 60, seed: int = 0) -> Tensor:
    return nearby((90 - polar) * DEGREE, size=256).project(points(n, seed))[0]


def error(pixels: Tensor, polar: float, distance: float = 1.2) -> float:
    return reprojection_error(pixels, (90 - polar) * DEGREE, size=256, distance=distance)


@pytest.mark.parametrize("polar", POLARS)
def test_el_1_exact_matches_fit_at_the_true_elevation_alone(polar: int):
    pixels = matches(polar)
    assert error(pixels, polar) < 1e-9
    found = estimate_from_tracks(pixels, size=256)
    assert found.elevation == pytest.approx((90 - polar) * DEGREE) and found.num_tracks == 60
    for off in (1, 5, 10):  # weakly observable: 0.09 px a degree, less where the steps in azimuth are short
        for side in (-off, off):
            assert 0.055 * off < error(pixels, polar + side) < 0.1 * off


@pytest.mark.parametrize("polar", [60, 90])
def test_el_1_independent_noise_is_benign(polar: int):
    for seed in range(4):
        pixels = matches(polar, 40, seed)
        noisy = pixels + torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert abs(estimate_from_tracks(noisy, size=256).elevation / DEGREE - (90 - polar)) <= 2  # twice the spread


def test_el_2_the_mirrored_elevation_is_told_apart():
    assert [error(matches(p), 180 - p) > least for p, least in ((60, 4.5), (45, 6), (30, 7.5))] == [True] * 3
    assert error(matches(90), 90) < 1e-9


def test_el_3_distance_and_scale_are_not_seen():
    pixels = matches(70)
    for polar in (50, 70, 75):
        assert error(pixels, polar, 2.4) == pytest.approx(error(pixels, polar, 1.2), abs=1e-9)


@pytest.mark.parametrize("polar", [33, 62, 88, 117, 144])
def test_el_4_coarse_to_fine_is_brute_force(polar: int):
    pixels = matches(polar, 40)
    pixels = pixels + torch.randn(pixels.shape, generator=torch.Generator().manual_seed(polar), dtype=torch.float64)
    best = min((error(pixels, p), p) for p in range(20, 161))
    found = estimate_from_tracks(pixels, size=256)
    assert (found.error, found.elevation) == (best[0], (90 - best[1]) * DEGREE)


def test_triangulation_meets_the_points_and_few_tracks_give_the_horizon():
    cameras = nearby(0.3, size=256)
    torch.testing.assert_close(triangulate(cameras, cameras.project(points())[0]), points(), rtol=0, atol=1e-12)
    assert estimate_from_tracks(matches(60)[:, :5], size=256).elevation == 0
    assert estimate_from_tracks(tracks(torch.ones(4, 32, 32, 3)), size=32).num_tracks == 0


def picture(cameras: Camera) -> Tensor:
    """(V, S, S, 3): an ellipsoid with a texture through its volume, over white."""
    origin, direction = cameras.rays()
    axes = torch.tensor([0.45, 0.3, 0.38], dtype=torch.float64)
    o, d = origin / axes, direction / axes
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    root = b * b - a * c
    hit = origin + direction * ((-b - root.clamp(min=0).sqrt()) / a)[..., None]
    waves = torch.tensor([[17.0, 5, 3], [-4, 19, 7], [6, -8, 18], [11, 13, -10]], dtype=torch.float64)
    rgb = (
        0.5
        + 0.2 * torch.stack([(hit @ w + i).sin() for i, w in enumerate(waves)], -1)[..., [0, 1, 2]]
        + 0.2 * (hit @ waves[3]).sin()[..., None]
    )
    return torch.where(root[..., None] > 0, rgb, 1.0).float()


@pytest.mark.parametrize("elevation", [0, 20, 40])
def test_pictures_of_a_textured_object_give_their_elevation(elevation: int):
    found = estimate_from_tracks(tracks(picture(nearby(elevation * DEGREE, size=128))), size=128)
    assert found.num_tracks > 500
    assert abs(found.elevation / DEGREE - elevation) <= 5  # flow's error of about 0.1 px is 2 degrees at 128 px


class Oracle:
    """A prior that knows the object and the elevation, and draws exactly; pictures are their own latents."""

    background = 1.0

    def __init__(self, elevation: float) -> None:
        self.elevation = elevation
        levels = torch.linspace(0.03, 14.6, 50, dtype=torch.float64)
        self.denoiser = Adapted(lambda x, sigma, cond: cond["image"].expand_as(x), levels)

    def encode(self, rgb: Tensor, **_: Any) -> Tensor:
        return rgb.movedim(-1, 1)

    def decode(self, x0: Tensor) -> Tensor:
        return x0.movedim(1, -1)

    def look(self, reference: Reference) -> Reference:
        return reference

    def condition(self, reference: Any = None, cameras: Camera | None = None, text: str | None = None) -> dict[str, Tensor]:
        if reference is None or cameras is None:
            return {"image": torch.full((1, 1, 1, 1), 0.5)}
        here = reference.cameras.position[0]
        assert math.asin(float(here[2] / here.norm())) == 0  # it is not told
        polar = torch.acos(cameras.position[:, 2] / cameras.position.norm(dim=-1))
        azimuth = torch.atan2(cameras.position[:, 1], cameras.position[:, 0])
        there = orbit(azimuth, self.elevation + math.pi / 2 - polar, 1.2, size=128, fov=FOV)
        return {"image": picture(there).movedim(-1, 1)}

    def cameras(self, reference: Reference) -> None:
        return None


def test_a_prior_that_draws_well_gives_the_elevation():
    prior, rgb = Oracle(25 * DEGREE), torch.ones(1, 128, 128, 3)
    views = draw_nearby(prior, rgb, generator=torch.Generator().manual_seed(0), steps=5, guidance=1.0)
    torch.testing.assert_close(views, picture(nearby(25 * DEGREE, size=128)), rtol=0, atol=1e-6)
    found = estimate_elevation(prior, rgb, generator=torch.Generator().manual_seed(0), steps=5, guidance=1.0)
    assert abs(found.elevation / DEGREE - 25) <= 5
