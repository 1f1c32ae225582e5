# SPDX-License-Identifier: Apache-2.0
"""The reconstructor: it begins as the visual hull, knows neither order nor number of views, and its cube is laid round what is shown."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Camera, orbit
from bozzetto.errors import InputError
from bozzetto.fit.posed import Cube, cropped, cube_round, joined, painter, surface
from bozzetto.priors.cost_volume import hull_distance, outline_distance
from bozzetto.priors.reconstructor import REACH, Posed, Reconstructor, ReconstructorConfig, around, load, raw_of, save

CENTRE, HALVES = torch.tensor([0.1, -0.15, 0.05]), torch.tensor([0.3, 0.2, 0.12])
SMALL = ReconstructorConfig(features=4, cells=8, widths=(8, 8, 8), neurons=16)


def ellipsoid(cameras: Camera) -> Tensor:
    """Premultiplied pictures (V, 4, S, S) of an ellipsoid off the centre, red towards +x, green towards +y, blue below; by ray casting."""
    o, d = (x.float() for x in cameras.rays())
    o, d = (o - CENTRE) / HALVES, d / HALVES
    a, b, c = d.square().sum(-1), (o * d).sum(-1), o.square().sum(-1) - 1
    root = b**2 - a * c
    u = o + ((-b - root.clamp(min=0).sqrt()) / a)[..., None] * d
    rgb = torch.stack([(1 + u[..., 0]) / 2, (1 + u[..., 1]) / 2, (1 - u[..., 2]) / 2], -1)
    alpha = (root > 0).float()[..., None]
    return torch.cat([rgb.clamp(0, 1) * alpha, alpha], -1).movedim(-1, 1)


def ring(count: int = 8, size: int = 64, azimuth: float = 0.3) -> Camera:
    a, e = around(azimuth, 0.4)
    return orbit(a[:count], e[:count], 2.0, size=size, fov=0.7)


def shown(cameras: Camera | None = None) -> Posed:
    cameras = ring() if cameras is None else cameras
    return Posed(ellipsoid(cameras), cameras)


def stirred(config: ReconstructorConfig = SMALL) -> Reconstructor:
    """No layer is 0, as the last ones are at the beginning."""
    network, g = Reconstructor(config).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(
                torch.randn(p.shape, generator=g) / max(p[0].numel(), 1) ** 0.5 if p.ndim > 1 else 0.1 * torch.randn(p.shape, generator=g)
            )
    return network


def points(n: int = 300) -> Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(1)) - 0.5


def test_the_eight_views_are_the_papers():
    for elevation, other in ((20, -10), (15, -15), (10, 40), (-5, 25)):  # polar angles up to 75 go down, others up
        a, e = around(0.5, math.radians(elevation))
        assert [round(math.degrees(x - 0.5)) for x in a] == [0, 90, 180, 270, 30, 120, 210, 300]
        assert e[:4] == [math.radians(elevation)] * 4 and math.degrees(e[5]) == pytest.approx(other)


def test_it_begins_as_the_visual_hull_and_as_the_mean_of_who_sees():
    network, posed, x = Reconstructor(SMALL), shown(), points()
    field = network.field(posed)
    hull = hull_distance(outline_distance(posed.rgba[:, 3]), posed.cameras, x)
    assert torch.allclose(network.distance(field, x), hull.clamp(-REACH, REACH), atol=1e-5)
    assert 3 < (hull < 0).sum() < 60  # an ellipsoid of .03 in a cube of 1
    assert torch.allclose(field.rgba, posed.rgba, atol=1e-6) and raw_of(posed.rgba).shape[1] == 5
    seen = torch.rand(8, 300, generator=torch.Generator().manual_seed(2))
    _, weights = network.colour(field, x, seen)
    assert torch.allclose(weights, seen / seen.sum(0), atol=1e-5)


def test_cv_5_order_and_number_of_views_do_not_matter_to_the_network():
    network, posed, x = stirred(), shown(), points()
    away = network.distance(network.field(posed), x)
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    other = Posed(posed.rgba[order], posed.cameras[order])
    assert torch.allclose(network.distance(network.field(other), x), away, atol=1e-4)
    twice = Posed(posed.rgba.repeat(2, 1, 1, 1), Camera.joined([posed.cameras, posed.cameras]))
    assert torch.allclose(network.distance(network.field(twice), x), away, atol=1e-4)
    mixed = Posed(posed.rgba[order], posed.cameras)  # the control: pictures and cameras that do not belong together
    assert (network.distance(network.field(mixed), x) - away).abs().max() > 0.01
    for count in (4, 6, 32):
        a = torch.arange(count) * 2 * math.pi / count
        few = shown(orbit(a.double(), [0.3] * count, 2.0, size=32, fov=0.7))
        assert torch.isfinite(network.distance(network.field(few), x)).all()


def test_objects_of_a_batch_do_not_know_of_each_other_and_variance_can_be_left_out():
    network, x = stirred(), points()
    one, other = shown(), shown(ring(5, azimuth=1.0))
    both = network.fields([one, other])
    assert torch.allclose(network.distance(both[1], x), network.distance(network.field(other), x), atol=1e-5)
    alone = network.fields([one], variance=False)[0]
    assert (network.distance(alone, x, variance=False) - network.distance(both[0], x)).abs().max() > 1e-3


def test_gradients_reach_every_weight():
    network, posed, x = stirred().train(), shown(), points()
    field = network.field(posed)
    colour, _ = network.colour(field, x, torch.rand(8, 300, generator=torch.Generator().manual_seed(3)))
    (network.distance(field, x).square().mean() + colour.square().mean()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-6]
    assert silent == ["weigh.2.bias"]  # a softmax does not see what all views share


def test_weights_come_back_and_mistakes_are_one_sentence(tmp_path):
    network = stirred()
    save(network, tmp_path / "w")
    back = load(tmp_path / "w")
    assert back.config == SMALL
    assert all(torch.equal(a.half(), b.half()) for a, b in zip(network.parameters(), back.parameters(), strict=True))
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    (tmp_path / "w" / "config.json").write_text(json.dumps(config | {"features": 5}))
    with pytest.raises(InputError, match="do not belong together"):
        load(tmp_path / "w")
    whole = (tmp_path / "w" / "model.safetensors").read_bytes()
    (tmp_path / "w" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load(tmp_path / "w")


# ---- pictures of anybody's frame ----


def moved(cameras: Camera) -> tuple[Camera, Cube]:
    """The same cameras in another frame: lengths times 3, y up, elsewhere; and the cube that undoes it."""
    turn = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)  # of that frame into ours
    centre, scale = torch.tensor([5.0, -2.0, 1.0], dtype=torch.float64), 1 / 3
    c2w = torch.cat([turn.mT @ cameras.c2w[:, :, :3], (cameras.c2w[:, :, 3] / scale @ turn + centre)[..., None]], -1)
    return Camera(c2w, cameras.K, cameras.size), Cube(centre, turn, scale)


def test_a_cube_goes_there_and_back():
    theirs, cube = moved(ring())
    assert torch.allclose(cube.cameras(theirs).c2w, ring().c2w, atol=1e-12)
    x = points()
    assert torch.allclose(cube.there(cube.back(x)), x, atol=1e-5)
    pixels, _ = theirs.project(cube.back(x).double())
    assert torch.allclose(pixels, ring().project(x.double())[0], atol=1e-3)


def test_a_crop_sees_what_the_picture_showed_there():
    camera = orbit([0.4], [0.3], 2.5, size=(120, 200), fov=0.9)
    rgba = ellipsoid(camera)[0].permute(1, 2, 0)
    made, closer = cropped(rgba, camera, 64)
    assert closer.size == (64, 64) and float(closer.K[0, 0, 0]) > float(camera.K[0, 0, 0]) * 0.64
    again = ellipsoid(closer)[0]
    assert (made[3] - again[3]).abs().mean() < 0.02  # half a pixel of outline
    solid = (made[3] > 0.99) & (again[3] > 0.99)
    assert (made[:3] - again[:3]).abs()[:, solid].max() < 0.06
    wrong = ellipsoid(Camera(closer.c2w, closer.K * torch.tensor([[1.0, 1, 1.2], [1, 1, 1], [1, 1, 1]]), closer.size))[0]
    assert (made[3] - wrong[3]).abs().mean() > 0.05
    with pytest.raises(ValueError, match="nothing in the picture"):
        cropped(torch.zeros(8, 8, 4), camera, 16)


def test_the_cube_holds_the_object_upright_and_towards_the_first_camera():
    theirs, known = moved(ring(size=96))
    alpha = ellipsoid(ring(size=96))[:, 3]
    cube = cube_round(alpha, theirs)
    middle = known.there(cube.centre[None])[0].float()
    assert torch.allclose(middle, CENTRE, atol=0.03)
    assert 1 / (cube.scale * 3) == pytest.approx(0.6, rel=0.15)  # three times as long as wide, and its hull a little longer
    first = cube.cameras(theirs).position[0]
    assert float(first[0]) > 0 and abs(float(first[1])) < 0.1 * float(first[0]) and float(first[2]) > 0
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert float(cube.turn[2] @ up) > 0.99  # y is up there
    with pytest.raises(InputError, match="poses and pictures of one scene"):
        cube_round(alpha[:2].flip(0) * 0 + corners(), theirs[[0, 2]])


def corners() -> Tensor:
    """Two outlines whose rays never meet: one at the top, one at the bottom of views from one height."""
    made = torch.zeros(2, 96, 96)
    made[0, 2:8, 40:50] = made[1, 88:94, 40:50] = 1
    return made


def test_surface_and_colours_of_the_untrained_network_are_the_hull_and_its_pictures():
    network, cameras = Reconstructor(SMALL).eval(), ring(size=96)
    posed = joined([(p, cameras[k]) for k, p in enumerate(ellipsoid(cameras))])
    with torch.no_grad():
        field = network.field(posed)
    vertices, faces = surface(network, field, 40)
    off = ((vertices - CENTRE) / HALVES).norm(dim=1) - 1
    assert len(faces) > 500 and off.min() > -0.1 and off.mean() < 0.25
    pictures = F.interpolate(posed.rgba, (192, 192), mode="bilinear")
    for given in (None, pictures):
        colours = painter(network, field, vertices, faces, given)
        u = F.normalize(torch.tensor([[1.0, 0.2, 0.6], [-1.0, 0.3, 0.5], [0.1, 1.0, 0.4]]), dim=1)
        at = CENTRE + u * HALVES
        normals = F.normalize(u / HALVES, dim=1)
        nearest = vertices[(vertices[None] - at[:, None]).norm(dim=-1).argmin(1)]
        expected = torch.stack([(1 + u[:, 0]) / 2, (1 + u[:, 1]) / 2, (1 - u[:, 2]) / 2], 1)
        found = colours(nearest, normals)
        assert (found - expected).abs().max() < 0.15
        assert found.min() >= 0 and found.max() <= 1
