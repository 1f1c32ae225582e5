# SPDX-License-Identifier: Apache-2.0
"""Unprojection, mean and variance, the visual hull and blended colours, against closed forms; an object off the centre, and controls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.priors.cost_volume import (
    CAP,
    blend,
    hull_distance,
    lattice,
    mean_and_variance,
    outline_distance,
    pixel_width,
    read_volume,
    sparseness,
    unproject,
)
from tests.twins import cost_volume as slow

CENTRE, RADIUS = torch.tensor([0.12, -0.2, 0.07], dtype=torch.float64), 0.3
AZIMUTHS = torch.tensor([0.2, 1.1, 2.3, 3.0, 4.2, 5.5], dtype=torch.float64)


def cameras(azimuths: Tensor = AZIMUTHS, size: int = 96, elevation: float = 0.35) -> Camera:
    return orbit(azimuths, [elevation] * len(azimuths), 2.0, size=size, fov=0.8)


def ball(view: Camera, colour) -> tuple[Tensor, Tensor, Tensor]:
    """A Lambertian ball off the centre, seen by ray casting: rgb (V, 3, S, S), hit (V, S, S), depth along the axis (V, S, S); float64."""
    origin, direction = view.rays()
    to = CENTRE - origin
    along = (to * direction).sum(-1)
    root = RADIUS**2 - (to.square().sum(-1) - along**2)
    hit = root > 0
    points = origin + (along - root.clamp(min=0).sqrt())[..., None] * direction
    _, depth = view.project(points.flatten(1, 2))
    rgb = torch.where(hit[..., None], colour(points), torch.zeros(3, dtype=torch.float64))
    return rgb.movedim(-1, 1), hit, depth.view(hit.shape)


def patches(points: Tensor) -> Tensor:
    """Colours that differ all over a ball."""
    u = F.normalize(points - CENTRE, dim=-1)
    return 0.5 + 0.5 * torch.stack([torch.sin(5 * u[..., 0] + 1), torch.sin(6 * u[..., 1]), torch.cos(7 * u[..., 2])], -1)


def shown(view: Camera) -> tuple[Tensor, Tensor]:
    """Points of the ball's surface, spread evenly, and which view sees which well (V, N)."""
    k = torch.arange(800, dtype=torch.float64) + 0.5
    z, a = 1 - 2 * k / 800, math.pi * (1 + 5**0.5) * k
    u = torch.stack([(1 - z**2).sqrt() * a.cos(), (1 - z**2).sqrt() * a.sin(), z], -1)
    points = CENTRE + RADIUS * u
    to_camera = F.normalize(view.position[:, None] - points, dim=-1)
    return points, (to_camera * u).sum(-1) > 0.35


def test_cv_1_equal_features_have_no_variance():
    feature = torch.tensor([0.3, -2.0, 5.0])
    maps = feature.view(1, 3, 1, 1).expand(6, 3, 8, 8)
    values, counts = unproject(maps, cameras(), lattice(9, 0.9))
    mean, variance = mean_and_variance(values, counts)
    inside = counts.any(0)
    assert inside.sum() > 100 and torch.allclose(mean[inside], feature.expand_as(mean[inside]))
    assert variance[inside].abs().max() < 1e-10
    assert not mean[~inside].any() and not variance.isnan().any()


def variance_along(view: Camera, told: Camera) -> tuple[float, float]:
    """Of a patched ball: variance over views that see a surface point, there and .06 further out; `told` is where views are said to be."""
    rgb, _, _ = ball(view, patches)
    points, sees = shown(view)
    u = (points - CENTRE) / RADIUS
    several = sees.sum(0) >= 2
    made = []
    for out in (0.0, 0.06):
        values, counts = unproject(rgb, told, points + out * u)
        made.append(float(mean_and_variance(values, counts & sees)[1].sum(-1)[several].mean()))
    return made[0], made[1]


def test_cv_1_variance_is_least_on_the_surface():
    view = cameras()
    on, off = variance_along(view, view)
    # on it is what bilinear reading of pixels .018 wide leaves of waves: .018^2 / 8 times their curvature, squared, of three colours
    assert on < 1e-4 and off > 20 * on
    flipped = cameras(-AZIMUTHS)
    on, off = variance_along(view, flipped)
    assert on > 0.5 * off  # the control: with the azimuths' sign flipped the surface is nowhere special


def test_cv_2_a_surface_point_is_read_where_a_ray_meets_it():
    view = cameras(size=200)
    _, hit, depth = ball(view, patches)
    pixels = view.pixel_centres().expand(len(view), -1, -1, -1)
    where = view.unproject(pixels, depth)  # of each pixel the point that it shows
    values, counts = unproject(where.movedim(-1, 1), view, where[0][hit[0]])
    assert counts[0].all()
    assert torch.allclose(values[0], where[0][hit[0]], atol=1e-9)  # at pixel centres nothing is interpolated
    points, sees = shown(view)
    values, _ = unproject(where.movedim(-1, 1), view, points)
    # chords of the sphere between pixels, .0093 wide where they are farthest and .0093 / .35 on the surface seen most aslant: their squares
    # over 8 R, and that along the ray, which is 1 / .35 times as long
    assert (values - points).norm(dim=-1)[sees].max() < (0.0093**2 + (0.0093 / 0.35) ** 2) / (8 * RADIUS) / 0.35
    turned, _ = unproject(where.movedim(-1, 1), cameras(-AZIMUTHS, size=200), points)
    assert (turned - points).norm(dim=-1)[sees].mean() > 0.1


def test_cv_2_outside_of_all_pictures_nothing_counts():
    view = cameras()
    behind, beside = 2.5 * view.position[0] / 2, torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64)
    at_eye = view.position[0]
    _, counts = unproject(torch.ones(6, 1, 4, 4), view, torch.stack([behind, beside, at_eye, CENTRE]))
    assert not counts[0, 0] and not counts[0, 2] and counts[:, 3].all()
    assert not counts[:, 1].any()


@pytest.mark.parametrize("maps_side", [5, 12])
def test_cv_2_the_loops_of_the_twin_agree(maps_side: int):
    g = torch.Generator().manual_seed(maps_side)
    view = cameras(AZIMUTHS[:3], size=12)
    maps = torch.randn(3, 2, maps_side, maps_side, generator=g, dtype=torch.float64)
    points = 1.2 * torch.randn(60, 3, generator=g, dtype=torch.float64)
    values, counts = unproject(maps, view, points)
    other, others = slow.unproject(maps.numpy(), view, points.numpy())
    assert (counts.numpy() == others).all() and 20 < counts.sum() < counts.numel() - 20
    assert np.allclose(values.numpy()[others], other[others], atol=1e-12)
    mean, variance = mean_and_variance(values, counts)
    expected = slow.mean_and_variance(other, others)
    assert np.allclose(mean, expected[0], atol=1e-12) and np.allclose(variance, expected[1], atol=1e-12)
    in_single, _ = unproject(maps.float(), view, points.float())
    assert np.allclose(in_single.numpy()[others], other[others], atol=2e-5)  # pixels in float32, times slopes of some 3 a pixel


def test_gradients_of_the_statistics_meet_finite_differences():
    g = torch.Generator().manual_seed(0)
    view = cameras(AZIMUTHS[:3], size=8)
    points = 0.5 * torch.randn(5, 3, generator=g, dtype=torch.float64)
    maps = torch.randn(3, 2, 4, 4, generator=g, dtype=torch.float64, requires_grad=True)

    def made(m: Tensor) -> tuple[Tensor, Tensor]:
        return mean_and_variance(*unproject(m, view, points))

    assert torch.autograd.gradcheck(made, (maps,))


def test_cv_3_sparseness_of_a_ball_is_twice_its_area_over_tau():
    x = lattice(120, 0.5).double()
    away = x.norm(dim=-1) - 0.3
    for tau in (40.0, 60.0):
        expected = 2 * 4 * math.pi * 0.3**2 / tau  # and 8 pi / tau^3 of curvature
        assert float(sparseness(away, tau)) == pytest.approx(expected, rel=0.03)  # cells of 1/120 under a slope of tau: (tau / 120)^2 / 12
    assert float(sparseness(2 * away, 60.0)) == pytest.approx(float(sparseness(away, 120.0)))


def test_cv_4_weights_sum_to_one_over_those_who_see():
    g = torch.Generator().manual_seed(1)
    colours, scores = torch.rand(5, 40, 3, generator=g), 3 * torch.randn(5, 40, generator=g)
    seen = torch.rand(5, 40, generator=g) * (torch.rand(5, 40, generator=g) < 0.5)
    mixed, weights = blend(colours, scores, seen)
    some = (seen > 0).any(0)
    assert 0 < some.sum() < 40
    assert torch.allclose(weights.sum(0)[some], torch.ones(int(some.sum()))) and not weights[seen == 0].any()
    assert not mixed[~some].any() and torch.isfinite(mixed).all()
    alone = (seen > 0).sum(0) == 1
    only = colours[seen.argmax(0), torch.arange(40)]
    assert alone.any() and torch.allclose(mixed[alone], only[alone])


def test_cv_4_equal_colours_are_kept_and_scores_decide():
    one = torch.tensor([0.2, 0.5, 0.9]).expand(4, 7, 3)
    seen, scores = torch.ones(4, 7), torch.randn(4, 7, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(blend(one, scores, seen)[0], one[0])
    _, weights = blend(one, scores, seen)
    assert torch.allclose(weights, scores.softmax(0))
    assert torch.allclose(blend(one, scores + 100, seen)[1], weights, atol=1e-5)
    assert torch.allclose(blend(one, 0 * scores, seen * torch.tensor([1.0, 3, 0, 0])[:, None])[1][:2, 0], torch.tensor([0.25, 0.75]))


def test_cv_5_neither_order_nor_number_of_views_is_known():
    g = torch.Generator().manual_seed(3)
    maps, points, view = torch.randn(6, 4, 10, 10, generator=g), lattice(5, 0.5), cameras()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    values, counts = unproject(maps, view, points)
    mean, variance = mean_and_variance(values, counts)
    other = mean_and_variance(*unproject(maps[order], view[order.tolist()], points))
    assert torch.allclose(other[0], mean, atol=1e-6) and torch.allclose(other[1], variance, atol=1e-6)
    twice = mean_and_variance(values.repeat(2, 1, 1), counts.repeat(2, 1))
    assert torch.allclose(twice[0], mean, atol=1e-6) and torch.allclose(twice[1], variance, atol=1e-6)
    joined = values.movedim(0, -1).flatten(1)  # the control: SyncDreamer's volume, the views' features one after the other
    assert not torch.allclose(values[order].movedim(0, -1).flatten(1), joined, atol=0.1)


def test_distances_from_an_outline_are_the_twins_and_run_through_pixels():
    g = torch.Generator().manual_seed(4)
    inside = torch.zeros(14, 17, dtype=torch.bool)
    inside[3:11, 4:9] = True
    inside[8:12, 8:15] = True
    inside |= torch.rand(14, 17, generator=g) < 0.04
    assert torch.allclose(outline_distance(inside[None].float())[0].double(), torch.from_numpy(slow.outline_distance(inside.numpy())))
    column = torch.arange(20.0)
    for edge in (6.2, 6.5, 6.9):  # a half plane, which covers the pixel that its border crosses in part
        found = outline_distance((edge - column).clamp(0, 1).expand(1, 9, 20))[0, 4]
        assert torch.allclose(found[6], torch.tensor(6.5 - edge), atol=1e-6)
        assert (found - (column + 0.5 - edge)).abs().max() <= 0.5
    assert (outline_distance(torch.zeros(1, 5, 5)) == CAP).all() and (outline_distance(torch.ones(1, 5, 5)) == -CAP).all()


def test_the_hull_of_a_ball_is_the_ball_where_views_touch_it():
    view = cameras(torch.arange(12, dtype=torch.float64) * math.pi / 6, size=256)
    _, hit, _ = ball(view, patches)
    outlines = outline_distance(hit.double())
    x = lattice(21, 0.5).double()
    true = (x - CENTRE).norm(dim=-1) - RADIUS
    found = hull_distance(outlines, view, x)
    pixel = float(pixel_width(view, CENTRE[None]).mean())
    near = true.abs() < 0.1
    # the hull holds the ball: nowhere does it say more, but for pixels and for perspective, which shows a ball as an ellipse
    assert (found - true)[near].max() < 2 * pixel
    assert ((found < 0) & (true > 2 * pixel)).sum() < 0.35 * (true < 0).sum()  # caps above and below, where no view touches
    flipped = cameras(-torch.arange(12, dtype=torch.float64) * math.pi / 6 + 0.2, size=256)
    assert (hull_distance(outlines, flipped, x) - true)[near].max() > 0.1


def test_a_volume_is_read_where_its_lattice_says():
    x = lattice(6, 0.6)
    volume = (x @ torch.tensor([[1.0], [-2.0], [0.5]]))[:, 0].view(1, 6, 6, 6)  # linear: trilinear reading is exact inside
    points = torch.tensor([[0.1, 0.2, -0.3], [-0.45, 0.05, 0.4]])
    assert torch.allclose(read_volume(volume, 0.6, points)[:, 0], points @ torch.tensor([1.0, -2.0, 0.5]), atol=1e-6)
    swapped = points.flip(-1)
    assert not torch.allclose(read_volume(volume, 0.6, swapped)[:, 0], points @ torch.tensor([1.0, -2.0, 0.5]), atol=0.1)
