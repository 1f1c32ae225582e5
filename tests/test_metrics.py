# SPDX-License-Identifier: Apache-2.0
"""Metrics against closed forms: ME-1 to ME-5 of `methods/representations.md` section 6, and pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from bozzetto.data.renders import EXTENT, GRID
from bozzetto.evaluate.metrics import (
    POINTS,
    align,
    chamfer,
    f_score,
    geometry,
    normal_consistency,
    psnr,
    sharpness,
    solid,
    ssim,
    volume_iou,
)
from bozzetto.render.ssim import psnr as pixels_psnr

HALF_CELL = EXTENT / GRID  # how far a carved solid of longest side 1 grows on each side


def on_sphere(radius: float, n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return radius * x / np.linalg.norm(x, axis=1, keepdims=True)


def ball(radius: float) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def box(*extents: float) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.box(extents)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def test_me_1_concentric_spheres_are_their_radii_apart_and_iou_is_the_ratio_of_volumes():
    inner, outer = solid(*ball(0.35)), solid(*ball(0.5))
    floor = 0.5 * math.sqrt(4 * math.pi * 0.25 / POINTS)  # sideways; adds floor^2 / (2 d) to a distance d, with a wide margin for clumps
    assert chamfer(inner.points, outer.points) == pytest.approx(0.15, abs=5 * floor**2 / 0.15 + 1e-3)  # and the facets' sagitta
    # Carved in its own frame, a ball grows by half a cell of its diameter: both by the same factor, so the ratio is exact. What is left
    # is the rounding of the surface to 64 cells, whose error in volume is below a tenth of a cell's layer.
    assert volume_iou(inner, outer) == pytest.approx(0.7**3, rel=3 * 2 * 0.1 * (1.08 / 64))
    shifted = volume_iou(inner, outer, 1.0, np.array([0.5, 0.0, 0.0]))
    assert shifted < 0.25  # the translation is applied


def test_me_2_a_cube_moved_by_t():
    cube = solid(*box(1, 1, 1))
    for t in (0.1, 0.35):
        grown = 1 + 2 * HALF_CELL  # both cubes
        expected = pytest.approx((grown - t) / (grown + t), abs=2 * 1.5 / 64 * 0.5)  # half a cell at each end
        assert volume_iou(cube, cube, 1.0, np.array([t, 0, 0])) == expected
        assert volume_iou(cube, cube, 1.0, np.array([0, 0, -t])) == expected


def test_me_3_identical_sets_and_the_sampling_floor():
    a = on_sphere(0.5, 4000, 0)
    assert chamfer(a, a) == 0 and f_score(a, a, 1e-6) == 1
    assert normal_consistency(a, a / 0.5, a, -a / 0.5) == pytest.approx(1, abs=1e-12)
    cube = solid(*box(1, 0.6, 0.3))
    assert volume_iou(cube, cube) == 1
    # The distance to the nearest of n uniform points on area A is Rayleigh: mean sqrt(A / n) / 2, variance (1 - pi/4) A / (pi n).
    n = 16384
    scale = math.sqrt(4 * math.pi * 0.25 / n)
    deviation = scale * math.sqrt((1 - math.pi / 4) / math.pi)
    found = chamfer(on_sphere(0.5, n, 1), on_sphere(0.5, n, 2))
    assert found == pytest.approx(scale / 2, abs=2 * 4 * deviation / math.sqrt(n))  # neighbours share a nearest point: twice four errors


def test_me_3_two_samples_of_one_carved_surface_stay_near_the_floor():
    """A different seed draws other pixels of the same depth maps; a hidden inner ball has no points at all."""
    (v, f), (w, g) = ball(0.5), ball(0.2)
    hollow = solid(np.concatenate([v, w]), np.concatenate([f, g + len(v)]), seed=1)
    plain = solid(v, f)
    assert np.linalg.norm(hollow.points, axis=1).min() > 0.49
    assert chamfer(hollow.points, plain.points) < 1.3 * 0.5 * math.sqrt(math.pi / POINTS)  # evenly seen, not evenly spread
    assert volume_iou(hollow, plain) == 1
    radial = plain.points / np.linalg.norm(plain.points, axis=1, keepdims=True)
    assert np.abs((plain.normals * radial).sum(1)).mean() > 0.999


def test_me_4_shells_within_tau_or_not():
    inner, outer = on_sphere(0.4, 20000, 0), on_sphere(0.5, 20000, 1)
    assert f_score(inner, outer, tau=0.12) == 1
    assert f_score(inner, outer, tau=0.09) == 0
    half = np.concatenate([outer, inner])
    p, r = 1.0, 0.5
    assert f_score(outer, half, tau=0.05) == pytest.approx(2 * p * r / (p + r), abs=1e-9)


def test_me_5_metrics_do_not_change_under_scale_and_translation():
    truth = solid(*box(1, 0.6, 0.3))
    v, f = box(1, 0.5, 0.4)
    scores, s, t = geometry(solid(v, f), truth)
    moved, scale, translation = geometry(solid(3.7 * v + [5, -2, 1], f), truth)
    for key, value in scores.items():
        assert moved[key] == pytest.approx(value, abs=2e-3), key  # float32 depth maps: some pixels at edges flip
    assert scale * 3.7 == pytest.approx(s, rel=1e-3)
    np.testing.assert_allclose(scale * np.array([5, -2, 1]) + translation, t, atol=3e-3)
    turned, _, _ = geometry(solid(v[:, [2, 0, 1]], f), truth)  # a rotation is no part of the alignment
    assert turned["chamfer"] > 3 * scores["chamfer"] and turned["iou"] < scores["iou"] - 0.2


def test_alignment_finds_the_same_shape_and_beats_the_boxes_where_an_outlier_spoils_them():
    v, f = ball(0.4)
    points = solid(v, f).points
    s, t = align(points * 2 + [0.3, 0, 0], points)
    assert s == pytest.approx(0.5, rel=1e-3)
    np.testing.assert_allclose(t, [-0.15, 0, 0], atol=1e-3)
    spiked = np.concatenate([points, np.linspace([0.4, 0, 0], [0.8, 0, 0], 60)])
    spiked = spiked[np.random.default_rng(0).permutation(len(spiked))]
    s, t = align(spiked, points)
    by_boxes = 0.8 / 1.2
    assert abs(s - 1) < 0.1 < 1 - by_boxes and np.abs(t).max() < 0.05
    again = align(spiked, points)
    assert again[0] == s and (again[1] == t).all()  # deterministic


def test_a_model_without_surface_is_refused():
    with pytest.raises(ValueError, match="finite corners"):
        solid(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="finite corners"):
        solid(np.zeros((0, 3)), np.zeros((0, 3), np.int64))


# ---- pictures ----


def picture(rgb: tuple[float, float, float], size: int = 32, hole: slice = slice(8, 24)) -> torch.Tensor:
    """A premultiplied square on nothing: (1, size, size, 4)."""
    x = torch.zeros(1, size, size, 4)
    x[:, hole, hole, :3] = torch.tensor(rgb)
    x[:, hole, hole, 3] = 1
    return x


def test_psnr_is_over_the_union_of_the_masks_alone():
    a, b = picture((0.5, 0.5, 0.5)), picture((0.6, 0.6, 0.6))
    assert psnr(a, b) == pytest.approx(20, abs=1e-5)
    wide = [torch.nn.functional.pad(x, (0, 0, 50, 50, 50, 50)) for x in (a, b)]
    assert psnr(*wide) == pytest.approx(20, abs=1e-5)
    assert psnr(a, a) == pytest.approx(100)
    for grey in (0.0, 0.5, 1.0):  # against nothing: mean of c^2 and (1 - c)^2, whatever the object's colour
        expected = -10 * math.log10((grey**2 + (1 - grey) ** 2) / 2)
        assert psnr(torch.zeros_like(a), picture((grey,) * 3)) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(psnr(torch.zeros_like(a), torch.zeros_like(a)))
    both = psnr(torch.cat([a, a]), torch.cat([b, a]))
    assert both == pytest.approx((20 + 100) / 2, abs=1e-4)  # mean of the pictures' dB


def test_psnr_of_pixels_is_that_of_those_asked_for():
    a = torch.zeros(2, 8, 8, 3, dtype=torch.float64)
    b, where = a.clone(), torch.zeros(2, 8, 8, dtype=torch.bool)
    b[0, :4], where[0, 2:6] = 0.1, True  # 20 dB where they differ, which is half of all and half of where
    torch.testing.assert_close(pixels_psnr(a, b), torch.tensor([20 + 10 * math.log10(2), 100], dtype=torch.float64))
    torch.testing.assert_close(pixels_psnr(a, b, where), torch.tensor([20 + 10 * math.log10(2), 100], dtype=torch.float64))
    where[0, 4:] = False
    torch.testing.assert_close(pixels_psnr(a[0], b[0], where[0]), torch.tensor(20.0, dtype=torch.float64))  # one picture, no batch


def test_ssim_of_constants_and_of_equals():
    whole = slice(0, 32)
    a, b = picture((0.3, 0.3, 0.3), hole=whole), picture((0.6, 0.6, 0.6), hole=whole)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(a, b) == pytest.approx((2 * 0.18 + 1e-4) / (0.09 + 0.36 + 1e-4), abs=1e-6)  # no variance: the luminance term alone
    noisy = a.clone()
    noisy[..., :3] += 0.1 * torch.randn(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    # Independent noise of variance v: structure 9e-4 / (v + 9e-4); the window's mean is off by the noise's own, hence the tolerance.
    assert ssim(noisy, a) == pytest.approx(9e-4 / (0.01 + 9e-4), abs=0.03)
    padded = torch.nn.functional.pad(picture((0.3,) * 3), (0, 0, 40, 0, 0, 40))
    assert ssim(padded, torch.zeros_like(padded)) == pytest.approx(ssim(picture((0.3,) * 3), torch.zeros(1, 32, 32, 4)), abs=1e-9)


def test_sharpness_is_the_gradient_inside_the_mask():
    x = picture((0, 0, 0))
    ramp = torch.arange(32) * 0.02
    x[:, 8:24, 8:24, :3] = ramp[8:24].view(1, 1, -1, 1)
    assert sharpness(x) == pytest.approx(0.02, rel=1e-5)  # the silhouette, a far higher step, does not count
    checks = picture((0, 0, 0))
    board = ((torch.arange(32).view(-1, 1) // 2 + torch.arange(32) // 2) % 2).float()
    checks[:, 8:24, 8:24, :3] = board[8:24, 8:24, None]
    blurred = torch.nn.functional.avg_pool2d(checks.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1).clone()
    blurred[..., 3] = checks[..., 3]
    assert sharpness(blurred) < 0.7 * sharpness(checks)
    edge = picture((1, 1, 1), hole=slice(0, 32))
    assert sharpness(edge) == 0  # nothing beyond the picture's border
    assert math.isnan(sharpness(torch.zeros(1, 32, 32, 4)))
