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
from bozzetto.fit.framed import Framed
from bozzetto.fit.source import Source
from bozzetto.frustum import Frustum
from bozzetto.priors.elevation import (
    DEGREE,
    FOV,
    draw_nearby,
    estimate_elevation,
    estimate_from_tracks,
    least,
    misfits,
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

    background, shape, uses_hint = 1.0, (3, 128, 128), False

    def __init__(self, elevation: float) -> None:
        self.elevation = elevation
        levels = torch.linspace(0.03, 14.6, 50, dtype=torch.float64)
        self.denoiser = Adapted(lambda x, sigma, cond: cond["image"].expand_as(x), levels)

    def encode_pictures(self, rgb: Tensor, **_: Any) -> Tensor:
        return rgb.movedim(-1, 1)

    def decode(self, x0: Tensor) -> Tensor:
        return x0.movedim(1, -1)

    def encode_reference(self, reference: Reference) -> Reference:
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

    def views(self, reference: Reference | None = None) -> None:
        return None


def test_a_prior_that_draws_well_gives_the_elevation():
    prior, rgb = Oracle(25 * DEGREE), torch.ones(1, 128, 128, 3)
    views = draw_nearby(prior, rgb, generator=torch.Generator().manual_seed(0), steps=5, guidance=1.0)
    torch.testing.assert_close(views, picture(nearby(25 * DEGREE, size=128)), rtol=0, atol=1e-6)
    found = estimate_elevation(prior, rgb, generator=torch.Generator().manual_seed(0), steps=5, guidance=1.0)
    assert abs(found.elevation / DEGREE - 25) <= 5


# ---- likelihood ----


def test_least_is_a_parabolas_vertex_or_an_end():
    places = [0.0, 10.0, 20.0, 30.0, 40.0]
    for vertex in (12.0, 15.5, 33.0):
        values = torch.tensor([3 + 0.7 * (x - vertex) ** 2 for x in places], dtype=torch.float64)
        assert least(places, values) == pytest.approx(vertex, abs=1e-9)
    assert least(places, torch.tensor([1.0, 2, 3, 4, 5])) == 0 and least(places, torch.tensor([5.0, 4, 3, 2, 1])) == 40


class Gaussian(Oracle):
    """x0 ~ N(what the oracle knows, spread^2), whose denoiser is known."""

    spread = 0.5

    def __init__(self, elevation: float) -> None:
        super().__init__(elevation)

        def denoise(x: Tensor, sigma: Any, cond: dict[str, Tensor]) -> Tensor:
            s2 = self.spread**2
            return (s2 * x + sigma**2 * cond["image"]) / (s2 + sigma**2)

        self.denoiser = Adapted(denoise, self.denoiser.sigmas)


def test_misfits_are_their_closed_form_and_least_at_the_truth():
    """(D - x0) / sigma = (s^2 n + sigma (m - x0)) / (s^2 + sigma^2) for a Gaussian of mean m and variance s^2, drawn noise n."""
    prior, places = Gaussian(25 * DEGREE), [5.0, 15.0, 25.0, 35.0, 45.0]
    reference = Reference(torch.ones(1, 128, 128, 3), orbit([0.0], [0.0], 1.2, size=128, fov=FOV))
    sides = orbit([1.5, 3.0], [0.0, 0.0], 1.2, size=128, fov=FOV)
    looks = [(reference, sides, picture(orbit([1.5, 3.0], [p * DEGREE] * 2, 1.2, size=128, fov=FOV))) for p in places]
    found = misfits(prior, looks, generator=torch.Generator().manual_seed(3), shares=(0.5, 1.0))
    assert least(places, found) == pytest.approx(25, abs=1.5) and int(found.argmin()) == 2
    noise = torch.randn(2, 2, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    mean, s2 = looks[2][2].movedim(-1, 1), Gaussian.spread**2
    for (_, _, pictures), got in zip(looks, found, strict=True):
        errors = []
        for n, k in zip(noise, (24, 49), strict=True):  # half of 49 is rounded to the even
            sigma = float(prior.denoiser.sigmas[k])
            errors.append((((s2 * n + sigma * (mean - pictures.movedim(-1, 1))) / (s2 + sigma**2)) ** 2).mean())
        assert float(got) == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)


def test_an_object_that_leans_looks_the_same_in_its_picture():
    """Object and camera turn together: only the horizon moves. There and back is where one was."""
    before, after = (Frustum.of(0.0, e, 0.5, 256).camera for e in (0.1, 0.6))
    g = torch.Generator().manual_seed(0)
    vertices = torch.rand(40, 3, generator=g) * torch.tensor([0.4, 0.7, 0.5]) - torch.tensor([0.2, 0.35, 0.25])
    alpha = torch.zeros(64, 64)
    alpha[12:52, 10:54] = 1
    source = Source("box.png", torch.rand(64, 64, 3, generator=g), alpha, torch.rand(64, 64, 3, generator=g), "0")
    framed = Framed.of(source, before, vertices, torch.zeros(0, 3, dtype=torch.int64), 64)
    leaning = framed.leaning(before, after)
    assert leaning.elevation == pytest.approx(framed.elevation + 0.5, abs=0.01)  # by as much, but for the centre's small offset
    seen = [f.cameras([f.azimuth], [f.elevation]).project(f.vertices.double()[None])[0] for f in (framed, leaning)]
    assert (seen[0] - seen[1]).abs().max() < 0.2  # pixels of 64: a camera that looks at an offset centre rolls a little
    tipped = framed.cameras([leaning.azimuth], [leaning.elevation]).project(framed.vertices.double()[None])[0]
    assert (seen[0] - tipped).abs().max() > 4  # the shape must turn, too
    again = leaning.leaning(after, before)
    torch.testing.assert_close(again.vertices, framed.vertices, atol=1e-6, rtol=0)
    assert again.elevation == pytest.approx(framed.elevation, abs=1e-12) and again.azimuth == pytest.approx(framed.azimuth, abs=1e-12)
    torch.testing.assert_close(again.centre, framed.centre)
