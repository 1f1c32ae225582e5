# SPDX-License-Identifier: Apache-2.0
"""The geometric hint of a sphere, whose pictures are known; and how an object is framed for a prior."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh

from bozzetto.camera import orbit
from bozzetto.frustum import frustum_camera
from bozzetto.priors.hint import FRAME, PLANES, carried, hint
from bozzetto.recipes.asset import Source
from bozzetto.recipes.novel_views import Framed

RADIUS, DISTANCE, FOV = 0.4, 3.0, 0.5
RED, BLUE = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])


@pytest.fixture(scope="module")
def sphere():
    ball = trimesh.creation.icosphere(4, RADIUS)
    return torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long()


def picture(size=64):
    """A red disc where the sphere is, and its camera."""
    camera = orbit([0.3], [0.2], DISTANCE, size=size, fov=FOV)
    centres = camera.pixel_centres() - size / 2
    tangent = RADIUS / math.sqrt(DISTANCE**2 - RADIUS**2) * float(camera.K[0, 0, 0])
    alpha = (centres.norm(dim=-1) < tangent).float()
    return RED.expand(size, size, 3) * alpha[..., None], alpha, camera


def test_what_the_picture_shows_is_carried_and_the_rest_is_guessed(sphere):
    rgb, alpha, camera = picture()
    colour = carried(rgb, alpha, camera, *sphere, lambda x, n: BLUE.expand(len(x), 3))
    cameras = orbit([0.3, 0.3 + math.pi], [0.2, -0.2], DISTANCE, size=64, fov=FOV)
    made = hint(*sphere, cameras, colour)
    front, back = made.rgb[:, 32, 32]
    torch.testing.assert_close(front, RED, atol=1e-5, rtol=0)
    torch.testing.assert_close(back, BLUE, atol=1e-5, rtol=0)
    assert float(made.planes[0, 32, 32, 1]) == pytest.approx(1, abs=1e-5) and float(made.planes[1, 32, 32, 1]) == 0


def test_planes_are_the_spheres(sphere):
    rgb, alpha, camera = picture()
    made = hint(*sphere, camera, carried(rgb, alpha, camera, *sphere, lambda x, n: BLUE.expand(len(x), 3)))
    width = 2 * DISTANCE * math.tan(FOV / 2)
    assert made.planes.shape == (1, 64, 64, PLANES)
    assert float(made.planes[0, 32, 32, 2]) == pytest.approx(-RADIUS / width, abs=2e-3)  # nearer than the centre
    torch.testing.assert_close(made.planes[0, 32, 32, 3:], torch.tensor([0.0, 0, 1]), atol=0.06, rtol=0)
    tangent = RADIUS / math.sqrt(DISTANCE**2 - RADIUS**2)
    area = math.pi * (tangent / (2 * math.tan(FOV / 2))) ** 2
    assert float(made.planes[..., 0].mean()) == pytest.approx(area, rel=5e-3)  # the icosphere is a little smaller
    torch.testing.assert_close(made.cells(8).mean((2, 3)), made.planes.mean((1, 2)))
    corner = made.over(1.0)[0, 0, 0]
    torch.testing.assert_close(corner, torch.ones(3))


def test_a_framed_object_fills_its_share_and_its_cameras_see_it_centred(sphere):
    """A sphere beside the crop's axis: its box's centre is found, and the picture is cut so that it is in the middle."""
    vertices, faces = sphere
    p = 0.5
    camera = frustum_camera(0.0, 0.3, p, 128)
    rgb, alpha, _ = picture(128)
    source = Source("ball", rgb, alpha, rgb, "0")
    framed = Framed.of(source, camera, vertices + torch.tensor([0.0, 0.05, 0.02]), faces, 64)
    torch.testing.assert_close(framed.centre.float(), torch.tensor([0.0, 0.05, 0.02]), atol=1e-4, rtol=0)
    assert framed.width == pytest.approx(FRAME * 2 * RADIUS, rel=1e-3)
    there = framed.cameras([1.0, 2.0], [0.1, 0.5])
    at, depth = there.project(torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(at, torch.full((2, 1, 2), 32.0).double())
    torch.testing.assert_close(depth, torch.full((2, 1), framed.distance).double())
    back = framed.placed(there)
    torch.testing.assert_close(back.position - there.position, framed.centre.expand(2, 3))
    eye = framed.placed(framed.cameras([framed.azimuth], [framed.elevation])).position
    torch.testing.assert_close(eye, camera.position)
    # In the crop the disc is 0.8 wide; S is 1, so that the frame is `width` of it and the disc's share grows by 1 / width.
    assert float(framed.alpha.mean()) == pytest.approx(float(math.pi * 0.16) / framed.width**2, rel=0.12)
