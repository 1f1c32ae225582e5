# SPDX-License-Identifier: Apache-2.0
"""Frustum coordinates, carved solids and training pictures, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bozzetto.data.objects import Object
from bozzetto.data.renders import EXTENT, GRID, MARGIN, carve_object, crop_camera, draw_sample, drawable, frustum_occupancy, render
from bozzetto.frustum import DEPTH_RANGE, Frustum
from bozzetto.image import crop


def ball(radius: float = 0.4, n: int = 48) -> Object:
    """A sphere as a latitude-longitude mesh, closed at its poles by thin triangles, half of its faces flipped."""
    theta, phi = np.linspace(0, np.pi, n + 1), np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
    t, f = np.meshgrid(theta, phi, indexing="ij")
    unit = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n), np.arange(2 * n), indexing="ij")
    a, b = i * 2 * n + j, i * 2 * n + (j + 1) % (2 * n)
    faces = np.concatenate([np.stack([a, a + 2 * n, b + 2 * n], -1).reshape(-1, 3), np.stack([a, b + 2 * n, b], -1).reshape(-1, 3)])
    faces[::2] = faces[::2, ::-1]  # inconsistent winding must not matter
    return Object(
        (radius * unit).astype(np.float32),
        faces.astype(np.int32),
        unit[faces].astype(np.float32),
        np.zeros(len(faces), np.int16),
        np.array([[0.2, 0.5, 0.8]], np.float32),
        np.zeros((len(faces), 3, 2), np.float32),
        (None,),
        "ball",
        "test/ball",
    )


def test_frustum_coordinates_round_trip_and_agree_with_the_camera():
    frustum = Frustum.of(0.7, 0.3, 0.6, 128)
    camera = frustum.camera
    x = 0.4 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    uvt = frustum.coordinates(x)
    torch.testing.assert_close(frustum.points(uvt), x, rtol=0, atol=1e-13)
    pixels, depth = camera.project(x)
    torch.testing.assert_close(uvt[:, :2] * 128, pixels[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(1 / 0.6 + uvt[:, 2], depth[0], rtol=0, atol=1e-13)  # S = 1 here


def test_carving_a_sphere_gives_its_volume():
    carved = carve_object(drawable(ball(0.4)))
    cell = 2 * EXTENT / GRID
    # Half a cell of slack and at most the pixels of 48 silhouettes between views: the radius is right to one cell.
    low, high = 4 / 3 * math.pi * (0.4 - 0.5 * cell) ** 3, 4 / 3 * math.pi * (0.4 + 1.5 * cell) ** 3
    assert low < carved.inside.sum() * cell**3 < high
    centres = (np.stack(np.nonzero(carved.inside), -1) + 0.5) * cell - EXTENT
    assert np.linalg.norm(centres, axis=1).max() < 0.4 + 2 * cell


def test_surface_points_lie_on_the_surface_and_all_round():
    d = drawable(ball(0.4))
    carved = carve_object(d, points=2000)
    weights = np.concatenate([carved.bary, 1 - carved.bary.sum(1, keepdims=True)], 1)
    points = (d.vertices[d.faces[carved.face]] * weights[..., None]).sum(1)
    assert np.abs(np.linalg.norm(points, axis=1) - 0.4).max() < 2e-3  # the mesh's sagitta
    assert np.abs(points.mean(0)).max() < 4 * 0.4 / math.sqrt(3 * 2000)  # four standard errors of an even spread


def test_an_open_sheet_stays_solid_and_thin():
    v = np.array([[0, -0.5, -0.5], [0, 0.5, -0.5], [0, 0.5, 0.5], [0, -0.5, 0.5]], np.float32)
    f = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    n = np.tile(np.array([1, 0, 0], np.float32), (2, 3, 1))
    sheet = Object(
        v, f, n, np.zeros(2, np.int16), np.ones((1, 3), np.float32), np.zeros((2, 3, 2), np.float32), (None,), "sheet", "test/sheet"
    )
    inside = carve_object(drawable(sheet)).inside
    thickness = inside.sum(0)[GRID // 4 : -GRID // 4, GRID // 4 : -GRID // 4]
    assert thickness.min() >= 1 and thickness.max() <= 2


@pytest.mark.parametrize(("azimuth", "elevation", "distance"), [(0.0, 0.0, 3.0), (2.0, 0.7, 1.5), (-1.0, -0.2, 5.0)])
def test_the_camera_aimed_at_a_crop_sees_what_the_crop_rule_cuts(azimuth, elevation, distance):
    """Rendered by `crop_camera`, an object needs no cropping: the rule finds the picture as it is."""
    o = ball(0.35)
    stretched = o.vertices * np.array([1.2, 0.7, 0.9], np.float32)
    camera, p = crop_camera(stretched, azimuth, elevation, distance, 256)
    d = drawable(
        Object(stretched, *(getattr(o, k) for k in ("faces", "normals", "material", "colours", "uv", "textures", "name", "source")))
    )
    views = render(d, camera)
    cut = crop(views.rgb[0], views.alpha[0], 256, margin=MARGIN, premultiplied=True)
    left, top, side = cut.box
    assert abs(left) < 1.5 and abs(top) < 1.5 and abs(side - 256) < 2.5  # pixels: the box is found to half a pixel a side
    assert 0 < p < 1


def test_the_solid_behind_a_picture_projects_to_its_mask_and_lies_at_the_right_depth():
    d = drawable(ball(0.4))
    camera, p = crop_camera(d.vertices, 0.5, 0.2, 2.0, 128)
    mask = render(d, camera).alpha[0, ..., 0].numpy().reshape(64, 2, 64, 2).mean((1, 3))
    solid = frustum_occupancy(carve_object(d), camera, p, np.ones(3), mask > 0, 64)
    assert (solid.max(2)[mask > 0.99] > 0.5).all()
    assert not solid[mask == 0].any()
    # Along the axis the chord is 2 r, centred at the origin: t = ±r / S.
    S = p * 2.0
    middle = solid[31:33, 31:33].mean((0, 1))
    t = ((np.arange(64) + 0.5) / 32 - 1) * DEPTH_RANGE
    assert abs((middle * t).sum() / middle.sum()) < 0.01
    assert abs(middle.sum() * 2 * DEPTH_RANGE / 64 - 0.8 / S) < 0.06 / S  # a carved cell and a frustum cell


def test_a_mirrored_object_gives_the_mirrored_solid():
    d = drawable(ball(0.4))
    half = np.where(np.arange(GRID)[None, :, None] < GRID // 2, 1, 0).astype(np.uint8) * np.ones((GRID, 1, GRID), np.uint8)
    carved = carve_object(d)
    one = type(carved)(carved.inside * half, carved.face, carved.bary)
    camera, p = crop_camera(d.vertices, 0.0, 0.0, 2.0, 128)
    everywhere = np.ones((64, 64), bool)
    plain = frustum_occupancy(one, camera, p, np.array([1.0, 1, 1]), everywhere, 32)
    mirrored = frustum_occupancy(one, camera, p, np.array([1.0, -1, 1]), everywhere, 32)
    np.testing.assert_allclose(mirrored, plain[:, ::-1], atol=1e-4)
    assert np.abs(mirrored - plain).max() > 0.9  # the control: it is not symmetric


def test_samples_are_a_function_of_the_generator():
    d = drawable(ball(0.4))
    carved = carve_object(d)
    one, two, other = (draw_sample(d, carved, np.random.default_rng(s), size=64, depths=32) for s in (3, 3, 4))
    for k in vars(one):
        np.testing.assert_array_equal(getattr(one, k), getattr(two, k))
    assert np.abs(one.picture - other.picture).max() > 0.1
    assert one.points.min() > -1.2 and one.points.max() < 1.5
    seen = one.picture[3].reshape(32, 2, 32, 2).max((1, 3)) > 0
    assert not one.occupancy[~seen].any() and one.occupancy.max() == 255
