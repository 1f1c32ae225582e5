# SPDX-License-Identifier: Apache-2.0
"""RA-1 to RA-9: triangles seen by pixels, interpolated and antialiased, against closed forms and float64 twins."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from bozzetto.camera import orbit
from bozzetto.kernels import pool
from bozzetto.kernels.antialias import antialias, edges
from bozzetto.kernels.interpolate import footprint, interpolate
from bozzetto.kernels.rasterize import rasterize
from tests.twins import rasterize as twin

SCENES = twin.scenes()
# float64: 1e4 roundings of numbers whose cancellation costs three digits. float32: kernels work in float64 and round what they
# read and write, and a colour passes through up to four blends
TOLERANCE = {torch.float64: {"rtol": 1e-9, "atol": 1e-10}, torch.float32: {"rtol": 2e-6, "atol": 2e-6}}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grads(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of the sum of squares, weighted at random."""
    if not out.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    loss = ((out - 0.3) ** 2 * random(*out.shape, seed=9).to(out)).sum()
    return [g if g is not None else torch.zeros_like(x) for g, x in zip(torch.autograd.grad(loss, inputs, allow_unused=True), inputs, strict=True)]


def half_plane(angle: float, offset: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Everything on one side of a line, `offset` pixels from the picture's centre: two triangles at various w."""
    h, w = size
    n = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    t = torch.tensor([-n[1], n[0]], dtype=torch.float64)
    corners = torch.stack([n * offset + t * 300, n * offset - t * 300, n * -400 - t * 300, n * -400 + t * 300])
    xy = corners * torch.tensor([2 / w, 2 / h], dtype=torch.float64)
    q = torch.tensor([1.0, 2.0, 1.5, 0.7], dtype=torch.float64)
    clip = torch.cat([xy * q[:, None], torch.zeros(4, 1, dtype=torch.float64), q[:, None]], 1)
    return clip[None], torch.tensor([[0, 1, 2], [0, 2, 3]])


def polygon(xy: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Corners (n, 2) in pixels, and a fan from the first."""
    n = len(xy)
    flat = xy * torch.tensor([2 / size[1], 2 / size[0]], dtype=torch.float64) - 1
    clip = torch.cat([flat, torch.zeros(n, 1, dtype=torch.float64), torch.ones(n, 1, dtype=torch.float64)], 1)[None]
    i = torch.arange(1, n - 1)
    return clip, torch.stack([torch.zeros_like(i), i, i + 1], -1)


def regular(n: int, radius: float, centre: tuple[float, float]) -> Tensor:
    a = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n + 0.3
    return radius * torch.stack([a.cos(), a.sin()], -1) + torch.tensor(centre, dtype=torch.float64)


def coverage(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W), antialiased."""
    rast = rasterize(clip, faces, size)
    return antialias((rast[..., 3:] > 0).double(), rast, clip, faces)[0, ..., 0]


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ra_1_rasterize_meets_its_twin(name, dtype):
    clip, faces, size = SCENES[name]
    clip = clip.to(dtype)
    rast = rasterize(clip, faces, size)
    expected = twin.rasterize(clip, faces, size)
    assert torch.equal(rast[..., 3], expected[..., 3].float())
    torch.testing.assert_close(rast.double(), expected, rtol=1e-6, atol=1e-7)  # rast is float32: one rounding
    if name in ("no faces", "all behind"):
        assert not rast.any()
    elif name != "one pixel":
        assert rast[..., 3].any()


def test_ra_1_is_perspective_correct():
    """World positions at pixel centres against the intersection of the pixel's ray with the triangle's plane."""
    v, f = twin.ball(2)
    v = v * torch.tensor([0.5, 0.3, 0.4], dtype=torch.float64)
    camera = orbit([0.4, 2.5], [0.3, -0.7], [1.3, 1.7], fov=0.9, size=(31, 26))
    clip = camera.clip(v)
    rast = rasterize(clip, f, camera.size)
    seen = rast[..., 3] > 0
    point = interpolate(v, rast, clip, f)[seen]
    o, d = (x[seen] for x in camera.rays())
    tri = v[f[rast[..., 3][seen].long() - 1]]
    n = torch.linalg.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
    t = ((tri[:, 0] - o) * n).sum(-1) / (d * n).sum(-1)
    hit = o + t[:, None] * d
    torch.testing.assert_close(point, hit, rtol=0, atol=1e-12)  # coordinates of order 1, cancellation at grazing faces
    depth = (rast[..., 2][seen].double() - clip[..., 2].min()).abs()
    assert depth.numel() > 300
    assert not torch.allclose(point, hit.flip(-1), atol=1e-3)
    upside_down = orbit([0.4, 2.5], [0.3, -0.7], [1.3, 1.7], fov=0.9, size=(31, 26)).rays()[1].flip(1)[seen]
    assert not torch.allclose(torch.linalg.cross(upside_down, point - o), torch.zeros_like(o), atol=1e-3)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ra_2_interpolate_meets_its_twin(name, dtype):
    clip, faces, size = SCENES[name]
    b, n, _ = clip.shape
    for shape, own in (((n, 3), None), ((b, n, 3), None), ((7, 2), torch.arange(faces.numel()).view_as(faces) % 7)):
        A = random(*shape).to(dtype).requires_grad_()
        p = clip.to(dtype).requires_grad_()
        rast = rasterize(p, faces, size)
        out = interpolate(A, rast, p, faces, own)
        A2, p2 = A.detach().double().requires_grad_(), p.detach().double().requires_grad_()
        expected = twin.interpolate(A2, rast, p2, faces, own)
        torch.testing.assert_close(out.double(), expected, **TOLERANCE[dtype])
        for ours, theirs in zip(grads(out, [A, p]), grads(expected, [A2, p2]), strict=True):
            assert ours.dtype == dtype
            scale = float(theirs.abs().max().clamp(min=1))  # sums of numbers as large as the largest gradient
            torch.testing.assert_close(ours.double() / scale, theirs / scale, **TOLERANCE[dtype])
        assert not p.requires_grad or not grads(out, [p])[0][..., 2].any()  # z has none


@pytest.mark.parametrize("name", ["soup", "across the eye plane", "ball"])
def test_ra_2_gradients_against_central_differences(name):
    """The twin's as well, or it could not judge. Axes are not swapped: the differences would notice."""
    clip, faces, _ = SCENES[name]
    clip, size = clip[:1].clone().requires_grad_(), (5, 6)
    rast = rasterize(clip, faces, size)
    A = random(clip.shape[1], 2).requires_grad_()
    assert gradcheck(lambda a, p: interpolate(a, rast, p, faces), (A, clip))
    colour = random(1, *size, 2).requires_grad_()
    assert gradcheck(lambda c, p: antialias(c, rast, p, faces), (colour, clip), eps=1e-7, atol=1e-5)
    if name == "soup":
        assert gradcheck(lambda a, p: twin.interpolate(a, rast, p, faces), (A, clip))
        assert gradcheck(lambda c, p: twin.antialias(c, rast, p, faces), (colour, clip), eps=1e-7, atol=1e-5)
    _, d = grads(interpolate(A, rast, clip, faces), [A, clip])
    p = clip.detach().clone()
    at = tuple(int(i) for i in torch.unravel_index(d[..., 0].abs().argmax(), d.shape[:2]))
    for axis in (0, 1, 3):
        values = []
        for e in (1e-6, -1e-6):
            q = p.clone()
            q[(*at, axis)] += e
            out = interpolate(A, rast, q, faces)
            values.append(float(((out - 0.3) ** 2 * random(*out.shape, seed=9)).sum()))
        assert abs((values[0] - values[1]) / 2e-6 - d[(*at, axis)]) < 1e-5 * max(1, float(d.abs().max()))
        assert abs((values[0] - values[1]) / 2e-6 + d[(*at, axis)]) > 1e-4 * float(d.abs().max())  # nor is the sign flipped


def test_ra_2_footprint_is_the_difference_between_pixels():
    """Against interpolation at a picture k times finer, whose centres stand 1 / k pixel apart: central differences."""
    k = 101  # odd, so that fine pictures have a pixel at each coarse centre
    clip, faces, size = SCENES["ball"]
    clip = clip[:1]
    uv = random(clip.shape[1], 2)
    rast, fine = rasterize(clip, faces, size), rasterize(clip, faces, (k * size[0], k * size[1]))
    J = footprint(uv, rast, clip, faces)
    value = interpolate(uv, fine, clip, faces)[0]
    tested = 0
    for r, c in itertools.product(range(size[0]), range(size[1])):
        y, x = k * r + k // 2, k * c + k // 2
        around = fine[0, y - 1 : y + 2, x - 1 : x + 2, 3]
        if rast[0, r, c, 3] == 0:
            assert not J[0, r, c].any()
        elif (around == rast[0, r, c, 3]).all():
            dx, dy = (value[y, x + 1] - value[y, x - 1]) * k / 2, (value[y + 1, x] - value[y - 1, x]) * k / 2
            torch.testing.assert_close(J[0, r, c], torch.stack([dx, dy], -1), rtol=2e-2, atol=1e-3)  # second order in 1 / k
            tested += 1
    assert tested > 50


def test_ra_3_barycentrics():
    """They sum to 1, follow the vertices, and a vertex on a pixel centre has its own value."""
    size = (16, 16)
    clip, _ = polygon(torch.tensor([[2.5, 3.5], [12.5, 4.5], [6.5, 13.5]], dtype=torch.float64), size)
    clip = clip * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)[None, :, None]
    eye = torch.eye(3, dtype=torch.float64)
    first = interpolate(eye, rasterize(clip, torch.tensor([[0, 1, 2]]), size), clip, torch.tensor([[0, 1, 2]]))
    seen = first.sum(-1) > 0
    torch.testing.assert_close(first.sum(-1)[seen], torch.ones(int(seen.sum()), dtype=torch.float64), rtol=0, atol=1e-15)
    for k, (x, y) in enumerate([(2, 3), (12, 4), (6, 13)]):
        torch.testing.assert_close(first[0, y, x], eye[k], rtol=0, atol=1e-15)
    for order in itertools.permutations(range(3)):
        faces = torch.tensor([order])
        rast = rasterize(clip, faces, size)
        torch.testing.assert_close(interpolate(eye, rast, clip, faces), first, rtol=0, atol=1e-15)
        torch.testing.assert_close(rast[0, ..., :2][seen[0]].double(), first[0][seen[0]][:, list(order[:2])], rtol=0, atol=1e-7)


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
    assert 0 < abs(float(cover.sum()) - w * h) < 1  # a quarter of a pixel a corner
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
    size, r = torch.tensor(1.0, dtype=torch.float64, requires_grad=True), 20.3
    clip, faces = polygon(regular(64, r, (32.3, 31.6)), (64, 64))
    centre = torch.tensor([2 * 32.3 / 64 - 1, 2 * 31.6 / 64 - 1, 0, 0], dtype=torch.float64)
    clip = torch.cat([(clip - centre)[..., :2] * size, clip[..., 2:]], -1) + centre
    rast = rasterize(clip, faces, (64, 64))
    mask = interpolate(torch.ones(64, 1, dtype=torch.float64), rast, clip, faces)
    (without,) = torch.autograd.grad(mask.sum(), size, retain_graph=True)
    assert abs(float(without)) < 1e-10  # b sums to 1 but for rounding
    total = antialias(mask, rast, clip, faces).sum()
    (slope,) = torch.autograd.grad(total, size)
    assert abs(float(slope) / (2 * float(total)) - 1) < 5e-3  # 2 A / r, and dr = r here; 128 corner pixels' worth of error
