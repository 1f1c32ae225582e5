# SPDX-License-Identifier: Apache-2.0
"""The geometric hint of a sphere, whose pictures are known; and how an object is framed for a prior."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh

from bozzetto.camera import orbit
from bozzetto.fit.framed import Framed
from bozzetto.fit.source import Source
from bozzetto.frustum import Frustum
from bozzetto.priors.hint import FRAME, PLANES, carried, hint
from bozzetto.render.mesh import render_surface

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
    camera = Frustum.of(0.0, 0.3, p, 128).camera
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


def wedge(camera):
    """A box's corner, in the crop's rule: its outline's box in the middle, 0.8 of the picture. Its own box's centre is not there."""
    vertices = torch.tensor([[0.0, 0, 0], [0.6, 0, 0], [0, 0.6, 0], [0, 0, 0.6]], dtype=torch.float64)
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    size = camera.size[0]
    for _ in range(30):
        at, depth = camera.project(vertices[None])
        low, high = at[0].amin(0), at[0].amax(0)
        off = ((low + high) / 2 - size / 2) * depth.mean() / camera.K[0, 0, 0]
        vertices = vertices - off[0] * camera.c2w[0, :, 0] + off[1] * camera.c2w[0, :, 1]  # right, and up against rows
        vertices = vertices * 0.8 * size / float((high - low).max())
    return vertices, faces


def test_an_object_beside_the_axis_is_cut_out_round_its_own_centre():
    """The frame is a window of the crop, its middle at the box's centre as the crop's camera sees it, FRAME longest sides wide there.

    The outline is the corners' hull, so that its box in the frame is known. Cut round the crop's axis it would lie pixels off on both axes.
    """
    size, small = 256, 64
    camera = Frustum.of(-0.4, 0.6, 0.3, size).camera
    vertices, faces = wedge(camera)
    normals = torch.zeros_like(vertices).index_fill(1, torch.tensor([2]), 1).float()
    shown = render_surface(vertices.float(), faces, normals, camera, lambda x, n: RED.expand(len(x), 3))
    alpha = (shown.alpha[0, ..., 0] > 0.5).float()
    rgb = RED.expand(size, size, 3) * alpha[..., None]
    framed = Framed.of(Source("wedge", rgb, alpha, rgb, "0"), camera, vertices.float(), faces, small)
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    torch.testing.assert_close(framed.centre, centre, atol=1e-6, rtol=0)
    middle, depth = camera.project(centre[None])
    side = FRAME * float((vertices.amax(0) - vertices.amin(0)).max()) * float(camera.K[0, 0, 0]) / float(depth)
    corners = (camera.project(vertices[None])[0][0] - middle[0, 0]) * small / side + small / 2
    rows, columns = ((framed.alpha > 0.5).any(k).nonzero()[:, 0] for k in (1, 0))
    box = torch.tensor([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]])
    want = torch.stack([corners.amin(0), corners.amax(0)]).clamp(0, small)  # it is so far off that a little of it is cut off
    assert (box - want).abs().max() < 1.5  # the crop's box is of whole pixels of 256, the frame's of 64; a corner may fill less than one
    at_axis = (size / 2 - middle[0, 0]) * small / side
    assert at_axis.abs().min() > 3  # what a cut round the axis would be off by, right and down
