# SPDX-License-Identifier: Apache-2.0
"""RA-4 to RA-6, RA-8, RA-9: silhouettes, their areas and gradients, against closed forms and a float64 twin."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.kernels import pool
from bozzetto.kernels.antialias import antialias, edges
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize
from tests.twins import rasterize as twin
from tests.twins.scenes import TOLERANCE, ball, grads, half_plane, polygon, random, regular, scenes

SCENES = scenes()


def coverage(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W), antialiased."""
    rast = rasterize(clip, faces, size)
    return antialias((rast[..., 3:] > 0).double(), rast, clip, faces)[0, ..., 0]


@pytest.mark.parametrize("degrees", [0, 10, 33, 45, -20, 44.9, 170, 215])
def test_ra_4_a_half_plane_covers_its_area_row_by_row(degrees):
    """And its gradient by the offset is the edge's length in pixels. Columns take what is too flat for rows."""
    size, angle = (29, 33), math.radians(degrees)
    for turn in (0.0, math.pi / 2):
        offset = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
        clip, faces = half_plane(angle + turn, offset, size)
        cover = coverage(clip, faces, size)
        nx, ny = math.cos(angle + turn), math.sin(angle + turn)
        rows = abs(nx) >= abs(ny)
        n, across, count, length = (nx, ny, size[0], size[1]) if rows else (ny, nx, size[1], size[0])
        middle = torch.arange(count, dtype=torch.float64) + 0.5 - count / 2
        edge = (0.37 - across * middle) / n + length / 2
        inside = (edge > 0.5) & (edge < length - 0.5)  # else the crossing is not between two centres
        exact = edge if n > 0 else length - edge
        torch.testing.assert_close(cover.sum(1 if rows else 0)[inside], exact[inside], rtol=0, atol=1e-10)
        assert inside.sum() >= 27
        total = cover.sum(1 if rows else 0)[inside].sum()
        (slope,) = torch.autograd.grad(total, offset)
        assert abs(float(slope) - int(inside.sum()) / abs(n)) < 1e-9


def test_ra_4_a_rectangle_errs_at_its_corners_only():
    size, (x, y), (w, h) = (64, 64), (15.2, 12.7), (30.35, 37.4)
    corners = torch.tensor([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], dtype=torch.float64, requires_grad=True)
    clip, faces = polygon(corners, size)
    cover = coverage(clip, faces, size)
    torch.testing.assert_close(cover[14:49].sum(1), torch.full((35,), w, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(cover[:, 17:44].sum(0), torch.full((27,), h, dtype=torch.float64), rtol=0, atol=1e-12)
    assert 0 < abs(float(cover.detach().sum()) - w * h) < 1  # a quarter of a pixel a corner
    (d,) = torch.autograd.grad(cover[14:49, 40:].sum(), corners)
    expected = torch.zeros(4, 2, dtype=torch.float64)
    middle = (31.5 - y) / h  # of rows 14 to 48; the right edge carries them all, by its lever arms, and along x only
    expected[1, 0], expected[2, 0] = 35 * (1 - middle), 35 * middle
    torch.testing.assert_close(d, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [3, 5, 8, 64])
def test_ra_5_regular_polygons(n):
    cover = coverage(*polygon(regular(n, 20, (32.3, 31.6)), (64, 64)), (64, 64))
    exact = n / 2 * 400 * math.sin(2 * math.pi / n)
    assert abs(float(cover.sum()) / exact - 1) < 7e-4  # the corner pixels


def test_ra_6_visibility_has_its_gradient_from_antialias_alone():
    """Scaling a disc grows its area by 2 A. Rows and columns part the circle in 8 arcs, each with an end that falls anywhere
    in half a pixel and counts sqrt(2): sqrt(8) sqrt(2) / sqrt(12) pixels of 2 pi r one by one, an eighth for 64 discs."""
    g = torch.Generator().manual_seed(0)
    scale, r = torch.tensor(1.0, dtype=torch.float64, requires_grad=True), 20.3
    circle, faces = polygon(regular(64, r, (32, 32)), (64, 64))
    xy = circle[..., :2] * scale + torch.rand(64, 1, 2, generator=g, dtype=torch.float64) * 2 / 64
    clip = torch.cat([xy, circle[..., 2:].expand(64, -1, -1)], -1)
    rast = rasterize(clip, faces, (64, 64))
    mask = interpolate(torch.ones(64, 1, dtype=torch.float64), rast, clip, faces)
    (without,) = torch.autograd.grad(mask.sum(), scale, retain_graph=True)
    assert abs(float(without)) < 1e-8  # b sums to 1 but for rounding
    total = antialias(mask, rast, clip, faces).sum()
    (slope,) = torch.autograd.grad(total, scale)
    assert abs(float(slope) / (2 * float(total.detach())) - 1) < 4 * math.sqrt(16 / 12) / (2 * math.pi * r) / 8


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ra_8_antialias_meets_its_twin(name, dtype):
    clip, faces, size = SCENES[name]
    p = clip.to(dtype).requires_grad_()
    rast = rasterize(p, faces, size)
    colour = random(len(clip), *size, 3).to(dtype).requires_grad_()
    p2, colour2 = p.detach().double().requires_grad_(), colour.detach().double().requires_grad_()
    out, expected = antialias(colour, rast, p, faces, edges(faces)), twin.antialias(colour2, rast, p2, faces)
    torch.testing.assert_close(out.double(), expected, **TOLERANCE[dtype])
    for ours, theirs in zip(grads(out, [colour, p]), grads(expected, [colour2, p2]), strict=True):
        assert ours.dtype == dtype
        scale = float(theirs.abs().max().clamp(min=1))
        torch.testing.assert_close(ours.double() / scale, theirs / scale, **TOLERANCE[dtype])
    if name in ("soup", "ball", "open pieces", "three at an edge", "degenerate"):
        assert not torch.equal(out, colour)


@pytest.mark.parametrize("name", ["soup", "ball", "wound at random"])
def test_ra_8_weights_sum_to_one_and_mirrors_agree(name):
    clip, faces, size = SCENES[name]
    rast = rasterize(clip, faces, size)
    colour = random(len(clip), *size, 2)
    blended = antialias(colour, rast, clip, faces)
    ones = torch.ones_like(colour)
    assert torch.equal(antialias(ones, rast, clip, faces), ones)
    torch.testing.assert_close(antialias(colour + 1, rast, clip, faces), blended + 1, rtol=0, atol=1e-14)
    for axis in (0, 1):  # the picture mirrored, left to right and upside down
        mirror = torch.ones(4, dtype=torch.float64)
        mirror[axis] = -1
        other = antialias(colour.flip(2 - axis), rasterize(clip * mirror, faces, size), clip * mirror, faces)
        torch.testing.assert_close(other.flip(2 - axis), blended, rtol=0, atol=1e-12)
        assert not torch.allclose(other, blended, atol=1e-3)


def test_ra_8_a_silhouette_at_a_pixel_border_has_the_mean_of_both_slopes():
    """m = 0 is the kink where an edge passes from one pixel to the next; pictures mirrored there must agree."""
    x = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    clip, faces = polygon(
        torch.stack(
            [torch.stack([a, torch.tensor(y, dtype=torch.float64)]) for a, y in ((0 * x, -9.0), (x, -9.0), (x, 25.0), (0 * x, 25.0))]
        ),
        (16, 16),
    )
    rast = rasterize(clip, faces, (16, 16))
    weights = torch.arange(16.0, dtype=torch.float64).view(1, 1, 16, 1)
    cover = antialias((rast[..., 3:] > 0).double(), rast, clip, faces)
    (slope,) = torch.autograd.grad((cover * weights).sum(), x)
    assert abs(float(slope) - 16 * 7.5) < 1e-9  # 16 rows; columns 7 and 8 take turns


def test_ra_8_an_edge_on_wall_ends_the_surface():
    """A cube seen straight from the front by an orthographic camera: its sides have no area, or one of rounding alone."""
    corners = torch.tensor(list(itertools.product((-0.3, 0.3), repeat=3)), dtype=torch.float64)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    for dtype, azimuth in itertools.product((torch.float64, torch.float32), (0.0, math.pi / 2, math.pi)):
        camera = orbit([azimuth], [0.0], 2.0, ortho_scale=1.0, size=(41, 41))
        size = torch.tensor(1.0, dtype=dtype, requires_grad=True)
        clip = camera.clip(corners.to(dtype) * size)
        rast = rasterize(clip, faces, (41, 41))
        cover = antialias((rast[..., 3:] > 0).to(dtype), rast, clip, faces)
        torch.testing.assert_close(cover[0, 15:26, :, 0].sum(1), torch.full((11,), 0.6 * 41, dtype=dtype), rtol=0, atol=1e-4)
        (slope,) = torch.autograd.grad(cover[0, 15:26].sum(), size)
        assert abs(float(slope) - 11 * 0.6 * 41) < 1e-2


def test_ra_9_a_ball_covers_its_disc():
    """Second order in the grid's size; the surface's narrow outermost faces are walked over, or half of the error stays."""
    f, rho, r, size = 280.0, 0.5, 1.9, 256
    exact = math.pi * f * f * rho * rho / (r * r - rho * rho)
    camera = orbit([0.3], [0.5], r, fov=2 * math.atan(size / 2 / f), size=size)
    errors, blended = [], []
    for level in (2, 3, 4, 5):
        v, faces = ball(level)
        cover = coverage(camera.clip(v * rho), faces, (size, size))
        errors.append(1 - float(cover.sum()) / exact)
        blended.append(int(((cover > 0.01) & (cover < 0.99)).sum()))
    for coarse, fine in itertools.pairwise(errors):
        assert 3.2 < coarse / fine < 4.8, errors
    assert abs(errors[-1]) < 2e-3
    assert min(blended) > 0.8 * max(blended), blended  # a silhouette of 500 pixels is smooth however fine the faces


def test_ra_9_bits_do_not_depend_on_threads():
    v, faces = ball(5)
    camera = orbit([0.3, 1.0, 4.0], [0.5, -0.2, 1.2], 1.7, fov=0.5, size=(180, 70))  # rows enough for pieces to part a picture
    clip = camera.clip((v * 0.5).float()).requires_grad_()
    results = []
    before = pool.num_threads()
    try:
        for threads in (1, 2, 3):
            pool.set_num_threads(threads)
            found = []
            for attributes in (random(len(v), 3).float().requires_grad_(), random(3, len(v), 3).float().requires_grad_()):
                rast = rasterize(clip, faces, camera.size)
                assert torch.equal(rast[1:2], rasterize(clip[1:2], faces, camera.size))
                colour = interpolate(attributes, rast, clip, faces)
                out = antialias(colour, rast, clip, faces)
                found += [rast, colour, out, *grads(out, [attributes, clip])]
            results.append(b"".join(t.detach().numpy().tobytes() for t in found))
    finally:
        pool.set_num_threads(before)
    assert results[0] == results[1] == results[2]
