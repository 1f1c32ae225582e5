# SPDX-License-Identifier: Apache-2.0
"""RA-1 to RA-3, RA-7: triangles seen by pixels and interpolated, against closed forms and float64 twins."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.autograd import gradcheck

from bozzetto.camera import orbit
from bozzetto.kernels.antialias import antialias, edges
from bozzetto.kernels.interpolate import interpolate
from bozzetto.kernels.rasterize import rasterize
from tests.twins import rasterize as twin
from tests.twins.scenes import TOLERANCE, ball, grads, polygon, random, scenes

SCENES = scenes()


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
    v, f = ball(2)
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
    assert len(point) > 300
    assert not torch.allclose(point, hit.flip(-1), atol=1e-3)
    upside_down = camera.rays()[1].flip(1)[seen]
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
        found = grads(out, [A, p])
        assert not found[1][..., 2].any()  # z has none
        for ours, theirs in zip(found, grads(expected, [A2, p2]), strict=True):
            assert ours.dtype == dtype
            scale = float(theirs.abs().max().clamp(min=1))  # sums of numbers as large as the largest gradient
            torch.testing.assert_close(ours.double() / scale, theirs / scale, **TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["soup", "across the eye plane", "ball", "three at an edge"])
def test_ra_2_gradients_against_central_differences(name):
    """The twin's as well, or it could not judge. Axes are not swapped: the differences would notice."""
    clip, faces, _ = SCENES[name]
    clip, size = clip[:1].clone().requires_grad_(), (5, 6)
    rast = rasterize(clip, faces, size)
    A = random(clip.shape[1], 2).requires_grad_()
    assert gradcheck(lambda a, p: interpolate(a, rast, p, faces), (A, clip))
    colour = random(1, *size, 2).requires_grad_()
    assert gradcheck(lambda c, p: antialias(c, rast, p, faces), (colour, clip), eps=1e-7, atol=1e-5)
    if name == "three at an edge":
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
            values.append(float(((out.detach() - 0.3) ** 2 * random(*out.shape, seed=9)).sum()))
        assert abs((values[0] - values[1]) / 2e-6 - d[(*at, axis)]) < 1e-5 * max(1, float(d.abs().max()))
        assert abs((values[0] - values[1]) / 2e-6 + d[(*at, axis)]) > 1e-4 * float(d.abs().max())  # nor is the sign flipped


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


def test_ra_7_the_nearer_face_wins_in_every_order():
    quad = torch.tensor([[-0.4, -0.4], [0.4, -0.4], [0.4, 0.4], [-0.4, 0.4]], dtype=torch.float64)
    camera = orbit([0.0], [0.0], 2.0, fov=0.6, size=16)
    points = torch.cat([torch.cat([torch.full((4, 1), x, dtype=torch.float64), quad * (1 - x / 2)], 1) for x in (-0.2, 0.1, 0.4)])
    clip = camera.clip(points)
    for order in itertools.permutations(range(3)):
        for flip in (False, True):
            faces = torch.cat([torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in order])
            rast = rasterize(clip, faces.flip(1) if flip else faces, (16, 16))[0]
            seen = rast[..., 3] > 0
            assert seen.sum() > 60
            assert ((rast[..., 3][seen].long() - 1) // 2 == order.index(2)).all()  # x = 0.4 is nearest to the eye on +x
    z = [float(rasterize(camera.clip(points), torch.tensor([[0, 1, 2]]) + 4 * k, (16, 16))[0, 8, 8, 2]) for k in range(3)]
    assert 1 > z[0] > z[1] > z[2] > -1


def test_ra_7_equal_depth_goes_to_the_lower_index():
    clip, faces = polygon(torch.tensor([[1.0, 1], [15, 1], [15, 15], [1, 15]], dtype=torch.float64), (16, 16))
    for twice in (torch.cat([faces, faces]), torch.cat([faces, faces.flip(1)])):
        assert rasterize(clip, twice, (16, 16))[..., 3].max() == 2
    beyond = clip * torch.tensor([1, 1, 0, 1], dtype=torch.float64)
    for z, drawn in ((-1.01, False), (-1, True), (1, True), (1.01, False)):
        assert bool(rasterize(beyond + torch.tensor([0, 0, z, 0], dtype=torch.float64), faces, (16, 16)).any()) == drawn


def test_ra_3_edges_of_a_closed_surface_pair_up():
    _, faces = ball(2)
    beside = edges(faces).view(-1).long()
    corners = torch.arange(len(beside))
    assert (beside >= 0).all()
    assert torch.equal(beside[beside], corners)  # each is the other's
    flat = faces.reshape(-1)
    ends = lambda c: torch.stack([flat[3 * (c // 3) + (c + k) % 3] for k in (1, 2)])  # noqa: E731
    assert torch.equal(ends(corners), ends(beside).flip(0))  # the same edge, run along the other way
    for name, (_, scene, _) in SCENES.items():
        table, expected = edges(scene), twin.neighbours(scene)
        for f, k in itertools.product(range(len(scene)), range(3)):
            i, j = int(scene[f, (k + 1) % 3]), int(scene[f, (k + 2) % 3])
            other = twin.across(expected, f, k, i, j)
            assert int(table[f, k]) == (-1 if other is None else 3 * other[0] + other[1]), name


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, f, r: rasterize(c[0], f, (4, 4)), "expected clip"),
        (lambda c, f, r: rasterize(c, f + 12, (4, 4)), "outside"),
        (lambda c, f, r: rasterize(c, f - 20, (4, 4)), "outside"),
        (lambda c, f, r: rasterize(c, f.double(), (4, 4)), "integer faces"),
        (lambda c, f, r: interpolate(c[0, :5], r, c, f), "attribute_faces"),
        (lambda c, f, r: interpolate(c[:, None], r, c, f), "expected attributes"),
        (lambda c, f, r: interpolate(c[0], r[:1], c, f), "expected clip"),
        (lambda c, f, r: antialias(r[:, :3], r, c, f), "expected colour"),
        (lambda c, f, r: antialias(r, r, c, f, edges(f)[:2]), "neighbours"),
    ],
)
def test_ra_3_refuses_wrong_shapes(call, words):
    clip, faces, size = SCENES["soup"]
    with pytest.raises(ValueError, match=words):
        call(clip, faces, rasterize(clip, faces, size))
