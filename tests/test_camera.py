# SPDX-License-Identifier: Apache-2.0
"""CAM-0 to CAM-6: cameras, and every border where they are converted."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bozzetto import camera as cam
from bozzetto.camera import Camera, look_at, orbit
from bozzetto.kernels.antialias import antialias
from bozzetto.kernels.rasterize import rasterize
from tests.twins.cameras import to_colmap
from tests.twins.scenes import ball, random

AZIMUTHS = [0.0, 0.3, math.pi / 2, 2.0, math.pi, 4.0, -1.0, 7.5]
ELEVATIONS = [0.0, 0.4, -0.9, 1.5, -1.57, math.pi / 2, -math.pi / 2, 0.1]


def cameras(orthographic: bool = False) -> Camera:
    view = {"ortho_scale": 1.4} if orthographic else {"fov": 0.8}
    return orbit(AZIMUTHS, ELEVATIONS, [1.5, 2.0, 1.9, 1.2, 3.0, 1.1, 1.7, 1.6], size=(48, 64), **view)


def pixels(camera: Camera) -> Tensor:
    return random(len(camera), 5, 6, 2) * torch.tensor([64.0, 48.0], dtype=torch.float64)


def coverage(camera: Camera, radius: float) -> float:
    v, f = ball(5)
    clip = camera.clip(v * radius)
    rast = rasterize(clip, f, camera.size)
    return float(antialias((rast[..., 3:] > 0).double(), rast, clip, f).sum())


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_0_rotations_are_rotations(orthographic):
    c = cameras(orthographic)
    free = look_at(random(20, 3, seed=1) * 4 - 2, random(20, 3, seed=2))
    q, t = to_colmap(c)
    for c2w in (c.c2w, free, cam.from_colmap(q, t, c.K, c.size).c2w, look_at(torch.tensor([[0.0, 0, 2], [0, 0, -2]]))):
        R = c2w[:, :, :3]
        torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand_as(R), rtol=0, atol=1e-14)
        torch.testing.assert_close(torch.linalg.det(R), torch.ones(len(R), dtype=torch.float64), rtol=0, atol=1e-14)
    mirrored = c.c2w * torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)  # the left-handed frame of some released code
    with pytest.raises(ValueError, match="determinant"):
        Camera(mirrored, c.K, c.size)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: Camera(c.c2w[0], c.K, c.size), "expected c2w"),
        (lambda c: Camera(c.c2w, c.K[:2], c.size), "expected c2w"),
        (lambda c: Camera(1.1 * c.c2w, c.K, c.size), "rotations"),
        (lambda c: Camera(c.c2w, -c.K, c.size), "positive"),
        (lambda c: Camera(c.c2w, c.K, (0, 4)), "positive"),
        (lambda c: orbit([0.0], [0.0], 2.0, size=8), "either"),
        (lambda c: orbit([0.0], [0.0], 2.0, size=8, fov=0.5, ortho_scale=1.0), "either"),
    ],
)
def test_cam_0_refuses_what_is_no_camera(change, words):
    with pytest.raises(ValueError, match=words):
        change(cameras())


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_1_the_origin_is_in_the_middle(orthographic):
    c = cameras(orthographic)
    uv, depth = c.project(torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(uv, torch.tensor([32.0, 24.0], dtype=torch.float64).expand_as(uv), rtol=0, atol=1e-12)
    torch.testing.assert_close(depth[:, 0], c.position.norm(dim=-1), rtol=0, atol=1e-14)
    clip = c.clip(torch.zeros(1, 3, dtype=torch.float64))
    assert clip[..., :2].abs().max() < 1e-14


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_1_depth_comes_back_from_clip_space(orthographic):
    c = cameras(orthographic)
    p = random(9, 3) - 0.5
    clip = c.clip(p)
    z, depth = clip[..., 2] / clip[..., 3], c.project(p)[1]
    torch.testing.assert_close(c.depth_of(z), depth, rtol=1e-12, atol=0)  # z is within 0.1 of 1: a digit and a half is lost
    torch.testing.assert_close(torch.from_numpy(c.depth_of(z.numpy())), depth, rtol=1e-12, atol=0)
    assert not torch.allclose(cameras(not orthographic).depth_of(z), depth, rtol=1e-2)
    ends = c.depth_of(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([cam.NEAR, cam.FAR], dtype=torch.float64), rtol=1e-12, atol=0)


def test_cam_1_the_front_camera_and_the_poles():
    """At azimuth 0, elevation 0 the camera stands on +x, its right is +y, its up +z. A pole keeps the azimuth."""
    front = orbit([0.0], [0.0], 2.0, size=8, fov=0.5).c2w[0]
    expected = torch.tensor([[0.0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(front, expected, rtol=0, atol=1e-15)
    for a, e in itertools.product((0.0, 1.0, math.pi, 5.0), (math.pi / 2, -math.pi / 2)):
        pole, near = (orbit([a], [x], 2.0, size=8, fov=0.5).c2w for x in (e, e * (1 - 1e-6)))
        torch.testing.assert_close(pole, near, rtol=0, atol=1e-5)  # 1.6e-6 radians away
        assert not torch.allclose(pole, orbit([a + 0.1], [e], 2.0, size=8, fov=0.5).c2w, atol=1e-2)
        if a == 0:
            torch.testing.assert_close(look_at(pole[:, :, 3]), pole, rtol=0, atol=1e-9)


def test_cam_1_the_field_of_view_is_the_width():
    """35 mm on a 32 mm sensor at 256 pixels: f = 280."""
    assert abs(cam.focal(2 * math.atan(16 / 35), 256) - 280) < 1e-10
    c = orbit([0.0], [0.0], 2.0, size=(20, 256), fov=2 * math.atan(16 / 35))
    corner = torch.tensor([[0.0, 2 * 16 / 35, 0]], dtype=torch.float64)  # at depth 2, on the right border
    torch.testing.assert_close(c.project(corner)[0][0, 0], torch.tensor([256.0, 10.0], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_2_inverses_and_round_trips(orthographic):
    c = cameras(orthographic)
    bottom = torch.tensor([[[0.0, 0, 0, 1]]], dtype=torch.float64).expand(len(c), 1, 4)
    both = torch.cat([c.w2c, bottom], 1) @ torch.cat([c.c2w, bottom], 1)
    torch.testing.assert_close(both, torch.eye(4, dtype=torch.float64).expand_as(both), rtol=0, atol=2e-15)
    assert torch.equal(cam.from_opencv(cam.to_opencv(c.c2w)), c.c2w)
    cv = cam.to_opencv(c.c2w)
    assert torch.equal(cv[:, :, 0], c.c2w[:, :, 0]) and torch.equal(cv[:, :, 1:3], -c.c2w[:, :, 1:3])  # y down, z ahead
    assert torch.equal(cv[:, :, 3], c.position)
    p = random(7, 3) - 0.5
    assert torch.equal(cam.from_gltf(cam.to_gltf(p)), p)
    assert torch.equal(cam.to_gltf(torch.eye(3)), torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))  # x to +Z, y to +X, z to +Y
    assert float(torch.linalg.det(cam.to_gltf(torch.eye(3)))) == 1
    one = c[2]
    assert len(one) == 1 and torch.equal(one.c2w, c.c2w[2:3]) and torch.equal(c[-1].c2w, c.c2w[-1:])
    assert torch.equal(c[[1, 3]].c2w, c.c2w[[1, 3]]) and len(c[2:5]) == 3


def test_cam_2_opencv_says_where_points_are():
    """x right, y down, z ahead: K [R t] p, as OpenCV and COLMAP write it, is the pixel."""
    c = cameras()
    p = random(9, 3) - 0.5
    q, t = to_colmap(c)
    R = cam.to_opencv(c.c2w)[:, :, :3].mT
    h = torch.einsum("vij,vjk,nk->vni", c.K, R, p) + torch.einsum("vij,vj->vi", c.K, t)[:, None]
    uv, depth = c.project(p)
    torch.testing.assert_close(h[..., :2] / h[..., 2:], uv, rtol=0, atol=1e-11)
    torch.testing.assert_close(h[..., 2], depth, rtol=0, atol=1e-13)
    turned = _turn(q[:, None], p[None]) + t[:, None]  # by the quaternion itself
    torch.testing.assert_close(turned[..., 2], depth, rtol=0, atol=1e-13)
    assert not torch.allclose(_turn(q[:, None] * torch.tensor([1.0, -1, -1, -1]), p[None])[..., 2] + t[:, None, 2], depth, atol=1e-3)


def _turn(q: Tensor, p: Tensor) -> Tensor:
    """q p q*, for unit q as (w, x, y, z)."""
    w, v = q[..., :1], q[..., 1:].expand(*torch.broadcast_shapes(q.shape[:-1], p.shape[:-1]), 3)
    u = 2 * torch.linalg.cross(v, p.expand_as(v))
    return p + w * u + torch.linalg.cross(v, u)


def test_cam_2_colmap_and_back():
    """Half turns too, where a quaternion's w is 0."""
    c = cameras()
    turns = torch.stack([torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])])
    half = Camera(torch.cat([turns, random(4, 3, 1)], -1), c.K[:4], c.size)
    for x in (c, half):
        q, t = to_colmap(x)
        torch.testing.assert_close(q.norm(dim=-1), torch.ones(len(x), dtype=torch.float64), rtol=0, atol=1e-15)
        assert (q[:, 0] >= 0).all()
        for sign in (1, -1):
            back = cam.from_colmap(sign * q, t, x.K, x.size)
            torch.testing.assert_close(back.c2w, x.c2w, rtol=0, atol=1e-14)
        assert torch.equal(back.K, x.K) and back.size == x.size
        assert not torch.allclose(cam.from_colmap(q[:, [1, 2, 3, 0]], t, x.K, x.size).c2w, x.c2w, atol=0.1)  # (x, y, z, w)


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_3_the_camera_moves_right_and_up(orthographic):
    """A feature on the front goes left by rho sin(delta) as the azimuth grows, and down as the elevation grows."""
    rho, delta, r = 0.4, 0.01, 2.0
    view = {"ortho_scale": 1.0} if orthographic else {"fov": 0.8}
    c = orbit([delta, 0.0], [0.0, delta], r, size=64, **view)
    uv, depth = c.project(torch.tensor([[rho, 0.0, 0.0]], dtype=torch.float64))
    f = float(c.K[0, 0, 0]) / (1 if orthographic else r - rho * math.cos(delta))
    torch.testing.assert_close(depth, torch.full_like(depth, r - rho * math.cos(delta)), rtol=0, atol=1e-14)
    torch.testing.assert_close(uv[0, 0], torch.tensor([32 - f * rho * math.sin(delta), 32.0], dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(uv[1, 0], torch.tensor([32.0, 32 + f * rho * math.sin(delta)], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_4_pixels_there_and_back(orthographic):
    c = cameras(orthographic)
    at = pixels(c)
    depth = 0.5 + random(*at.shape[:3], seed=4)
    p = c.unproject(at, depth).flatten(1, 2)
    uv, z = c.project(p)
    torch.testing.assert_close(uv, at.flatten(1, 2), rtol=0, atol=1e-11)
    torch.testing.assert_close(z, depth.flatten(1), rtol=0, atol=1e-13)
    o, d = c.rays()
    torch.testing.assert_close(d.norm(dim=-1), torch.ones_like(d[..., 0]), rtol=0, atol=1e-15)
    uv, z = c.project((o + 1.3 * d).flatten(1, 2))
    centres = c.pixel_centres()
    torch.testing.assert_close(uv, centres.flatten(0, 1).expand_as(uv), rtol=0, atol=1e-11)
    assert (z > 0).all()
    assert centres[0, 0].tolist() == [0.5, 0.5] and centres[-1, 0].tolist() == [0.5, 47.5] and centres[0, -1].tolist() == [63.5, 0.5]
    assert not torch.allclose(uv, centres.transpose(0, 1).reshape(-1, 2).expand_as(uv), atol=1)


@pytest.mark.parametrize("orthographic", [False, True])
def test_cam_4_clip_space_agrees_with_pixels(orthographic):
    """(x, y) / w = ±1 are the borders with row 0 at y = -1; z / w runs from -1 to 1 and grows with depth."""
    c = cameras(orthographic)
    K = c.K.clone()
    K[:, :2, 2] += torch.tensor([5.0, -3.0], dtype=torch.float64)  # off centre, and not square
    K[:, 1, 1] *= 1.2
    c = Camera(c.c2w, K, c.size, orthographic)
    p = random(30, 3) - 0.5
    clip, (uv, depth) = c.clip(p), c.project(p)
    xy = (clip[..., :2] / clip[..., 3:] + 1) * torch.tensor([32.0, 24.0], dtype=torch.float64)
    torch.testing.assert_close(xy, uv, rtol=0, atol=1e-11)
    torch.testing.assert_close(clip[..., 3], torch.ones_like(depth) if orthographic else depth, rtol=0, atol=1e-13)
    middle = torch.full((len(c), 3, 2), 20.0, dtype=torch.float64)
    ends = c.clip(c.unproject(middle, torch.tensor([cam.NEAR, 1.0, cam.FAR], dtype=torch.float64).expand(len(c), 3)))
    z = ends[..., 2] / ends[..., 3]
    torch.testing.assert_close(z[:, [0, 2]], torch.tensor([-1.0, 1.0], dtype=torch.float64).expand(len(c), 2), rtol=0, atol=1e-10)
    assert (z[:, 1].abs() < 1).all()
    half = c.resized((24, 128))
    torch.testing.assert_close(half.project(p)[0], uv * torch.tensor([2.0, 0.5], dtype=torch.float64), rtol=0, atol=1e-11)
    torch.testing.assert_close(half.clip(p), clip, rtol=0, atol=1e-13)
    assert c.clip(p.float()).dtype == torch.float32


def test_cam_5_a_ball_is_larger_than_its_equator():
    """The silhouette's half-angle is asin(rho / r), not atan: pi f^2 rho^2 / (r^2 - rho^2) square pixels."""
    rho, r, size = 0.6, 1.5, 200
    c = orbit([0.3], [0.7], r, size=size, fov=1.0)
    f = float(c.K[0, 0, 0])
    area = coverage(c, rho)
    exact, wrong = math.pi * f * f * rho * rho / (r * r - rho * rho), math.pi * f * f * rho * rho / (r * r)
    assert 1 - 2e-3 < area / exact < 1  # faces within the ball lose (pi / 64)^2 / 4 = 6e-4 of its radius or less
    assert area / wrong > 1.1


def test_cam_6_an_orthographic_ball_keeps_its_size():
    rho, scale = 0.4, 1.3
    areas = [coverage(orbit([0.3], [-0.4], r, size=200, ortho_scale=scale), rho) for r in (1.0, 3.0)]
    exact = math.pi * rho * rho * (200 / scale) ** 2
    assert all(1 - 2e-3 < area / exact < 1 for area in areas)
    assert abs(areas[0] - areas[1]) < 1e-6 * exact
