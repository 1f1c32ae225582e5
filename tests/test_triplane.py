# SPDX-License-Identifier: Apache-2.0
"""Fields in three planes: where the planes are read, lattices by tables and coarse to fine, surfaces, the preview."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import orbit
from bozzetto.priors.triplane import Triplane
from tests.twins import marching
from tests.twins import triposr as twin

LEVEL = math.log(25) + 1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def passing(weight: Tensor, constant: float = 0.0, colour: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[tuple[Tensor, Tensor]]:
    """A decoder whose d is weight (3 F,) x features + constant, exactly, because silu(x) - silu(-x) = x; and of one raw colour."""
    pair = torch.tensor([[1.0, -1], [-1, 1]]).to(weight)
    last = torch.zeros(4, 2).to(weight)
    last[0] = pair[0]
    return [
        (torch.stack([weight, -weight]), torch.zeros(2).to(weight)),
        (pair, torch.zeros(2).to(weight)),
        (last, weight.new_tensor([constant, *colour])),
    ]


def smooth(seed: int, size: int = 32, features: int = 4, dtype: torch.dtype = torch.float32) -> Triplane:
    """A random field: planes of a few waves, and a decoder that bends them; the surface encloses a fifth of the box."""
    g = seeded(seed)
    planes = F.interpolate(torch.randn(3, features, 4, 4, generator=g), (size, size), mode="bicubic").to(dtype)
    widths = [3 * features, 16, 16, 4]
    layers = [
        (1.4 / math.sqrt(a) * torch.randn(b, a, generator=g).to(dtype), 0.2 * torch.randn(b, generator=g).to(dtype))
        for a, b in pairwise(widths)
    ]
    layers[-1] = (8 * layers[-1][0], layers[-1][1])
    layers[-1][1][0] += LEVEL - float(Triplane(planes, layers).lattice(17, 1).flatten().quantile(0.8))
    return Triplane(planes, layers)


def blob(size: int = 64) -> Triplane:
    """An ellipsoid with ripples."""
    u = ((2 * torch.arange(size) + 1) / size - 1) * 0.87
    v, h = torch.meshgrid(u, u, indexing="ij")
    quarter = 0.5 * (h**2 + v**2)
    planes = torch.stack([quarter + 0.02 * torch.sin(9 * h + k) * torch.cos(7 * v) for k in range(3)])[:, None]
    return Triplane(planes, passing(torch.tensor([-40.0, -45.0, -50.0]), LEVEL + 40 * 0.4**2))


def test_ff_5_planes_are_read_at_xy_xz_yz():
    W = 16
    column = torch.arange(W).float().expand(W, W)
    field = Triplane(torch.stack([column, column.T]).expand(3, -1, -1, -1), passing(torch.ones(6)))
    points = (2 * torch.rand(200, 3, generator=seeded(5)) - 1) * field.radius * (1 - 1 / W)
    x, y, z = (((points / field.radius + 1) * W - 1) / 2).unbind(1)
    torch.testing.assert_close(field.features(points), torch.stack([x, y, x, z, y, z], 1), rtol=0, atol=3e-6)  # rounding of 16


def test_ff_6_zeros_lie_half_a_pixel_beyond_the_planes():
    field = Triplane(torch.ones(3, 1, 16, 16), passing(torch.ones(3)))
    points = torch.tensor([[0.1, -0.2, 0.3], [1.0, 0, 0], [1.1, 0, 0]]) * torch.tensor([[1.0], [field.radius], [field.radius]])
    assert field.features(points).tolist() == [[1, 1, 1], [0.5, 0.5, 1], [0, 0, 1]]


def test_ff_7_a_constant_density_is_as_opaque_along_every_ray():
    """The released quadrature: a step is 1 / 128 whatever the ray's length in the box. Rays that miss the box are white."""
    colour, d = (0.3, -0.5, 1.0), 0.7
    field = Triplane(torch.zeros(3, 1, 4, 4, dtype=torch.float64), passing(torch.zeros(3, dtype=torch.float64), d, colour))
    cameras = orbit([0.3, 2.0], [0.2, -0.4], 2.6, size=24, fov=1.2)
    pictures = field.render(cameras)
    o = 1 - math.exp(-math.exp(d - 1))
    expected = torch.sigmoid(torch.tensor(colour, dtype=torch.float64)) * o + 1 - o
    hit = (pictures - expected).abs().amax(-1) < 1e-6
    assert 0.1 < float(hit.double().mean()) < 0.9
    assert ((pictures - 1).abs().amax(-1) < 1e-12)[~hit].all()

    planes = 3 * torch.randn(3, twin.F, 16, 16, generator=seeded(6), dtype=torch.float64)
    state = {k: v.double() for k, v in twin.random_state().items() if k.startswith("decoder.")}
    layers = [(state[f"decoder.layers.{2 * k}.weight"], state[f"decoder.layers.{2 * k}.bias"]) for k in range(twin.HIDDEN + 1)]
    field, cameras = Triplane(planes, layers), orbit([0.0], [0.3], 1.9, size=5, fov=math.radians(40))
    origin, ray = (x[0, 1, 3].numpy() for x in cameras.rays())
    expected = twin.pictured({k: v.numpy() for k, v in state.items()}, planes.numpy(), origin, ray)
    np.testing.assert_allclose(field.render(cameras)[0, 1, 3].numpy(), expected, rtol=0, atol=1e-9)


def test_the_frame_is_ours():
    """Matter at +y and +z is at the right and at the top of what a camera on +x sees: docs/conventions.md, no axis changed."""
    W = 16
    ramp = torch.linspace(-8, 8, W).expand(W, W)
    right = Triplane(torch.stack([torch.zeros(W, W), torch.zeros(W, W), ramp])[:, None], passing(torch.ones(3)))
    up = replace(right, planes=right.planes.mT)
    camera = orbit([0.0], [0.0], 1.9, size=16, fov=math.radians(40))
    for field, axis in ((right, 1), (up, 0)):
        seen = (1 - field.render(camera)[0].mean(-1)).mean(1 - axis)
        first, last = float(seen[:8].sum()), float(seen[8:].sum())
        assert last > 3 * first if axis else first > 3 * last


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_ff_8_the_lattice_by_tables_is_the_field_at_its_vertices(dtype: torch.dtype, tolerance: float):
    """The first layer is linear in the planes: sums in another order. d has a range of some forty here."""
    field = smooth(7, dtype=dtype)
    axis = field.axis(11)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
    pointwise = field.raw(points)
    torch.testing.assert_close(field.lattice(11, 1).flatten(), pointwise[:, 0], rtol=0, atol=tolerance)
    for chunk in (1, 7, 100_000):
        torch.testing.assert_close(field.raw(points[:60], chunk), pointwise[:60], rtol=0, atol=tolerance / 10)
    torch.testing.assert_close(field.density(points), torch.exp(pointwise[:, 0] - 1), rtol=1e-5, atol=0)


def test_ff_9_a_plane_is_found_where_it_is():
    W, x0, slope = 16, 0.2, 30.0
    columns = ((2 * torch.arange(W, dtype=torch.float64) + 1) / W - 1).expand(1, W, W) * 0.87  # x at the pixels' centres
    planes = torch.zeros(3, 1, W, W, dtype=torch.float64)
    planes[0] = columns
    field = Triplane(planes, passing(torch.tensor([slope, 0.0, 0.0]).double(), LEVEL - slope * x0))
    assert field.level == pytest.approx(4.2189, abs=1e-4)
    R = 33
    h = 2 * field.radius / (R - 1)
    for raw in (True, False):
        v = field.mesh(R, 1, raw=raw).vertices
        off = (v[(v.abs() < field.radius * (1 - 1 / W) - h).all(1)][:, 0] - x0).abs()
        assert len(off) > 500
        if raw:
            assert float(off.max()) < 1e-12
        else:  # a chord of an exponential: slope h^2 / 8 at most, and half more for the terms that follow
            assert 1e-4 < float(off.max()) < 1.5 * slope * h * h / 8


@pytest.mark.parametrize("seed", range(4))
def test_ff_10_coarse_to_fine_finds_the_whole_mesh(seed: int, monkeypatch: pytest.MonkeyPatch):
    field, asked = smooth(seed), []
    at = Triplane._at
    monkeypatch.setattr(Triplane, "_at", lambda self, tables, numbers: asked.append(len(numbers)) or at(self, tables, numbers))
    full = field.mesh(98, 1)
    assert sum(asked) == 98**3 and len(full.faces) > 5000
    asked.clear()
    quick = field.mesh(98, 3)
    assert sum(asked) < 0.85 * 98**3
    assert torch.equal(quick.faces, full.faces) and torch.equal(quick.vertices, full.vertices)


def test_ff_10_a_part_that_no_corner_shows_is_followed_from_where_the_surface_enters():
    """A rod far thinner than a block, along x, that ends in a ball: some corners see the ball, and the rod is walked along."""
    W, R = 64, 65
    u = ((2 * torch.arange(W) + 1) / W - 1) * 0.87
    y, x = torch.meshgrid(u, u, indexing="ij")  # y or z; between two corners of blocks
    ball = 120 * (0.2 - torch.hypot(x + 0.4, y - 0.11))
    rod = torch.where((x > -0.4) & (x < 0.5), 600 * (0.04 - (y - 0.11).abs()), torch.full_like(x, -60))
    both = torch.maximum(ball, rod).clamp(-20, 20)
    planes = torch.stack([both, both, torch.zeros_like(both)])[:, None]
    field = Triplane(planes, passing(torch.tensor([0.5, 0.5, 0.0])))
    full, quick = field.mesh(R, 1), field.mesh(R, 8)
    assert float(full.vertices[:, 0].max()) > 0.4
    assert torch.equal(quick.faces, full.faces) and torch.equal(quick.vertices, full.vertices)


def test_ff_11_nothing_is_an_empty_surface():
    field = Triplane(torch.zeros(3, 2, 8, 8), passing(torch.zeros(6), 0.5))
    for stride in (4, 1, None):
        surface = field.mesh(17, stride)
        assert surface.vertices.shape == (0, 3) and surface.faces.shape == (0, 3) and surface.colours.shape == (0, 3)
    torch.testing.assert_close(field.density(torch.zeros(1, 3)), torch.tensor([math.exp(-0.5)]))
    full = replace(field, layers=passing(torch.zeros(6), 1e6))  # and a solid without end, whose density float32 could not hold
    assert bool(torch.isfinite(full.density(torch.zeros(1, 3))).all()) and len(full.mesh(9).faces) == 0
    for wrong in ((1, 4), (9, 0)):
        with pytest.raises(ValueError, match="at least 2 vertices"):
            field.lattice(*wrong)


def test_ff_13_a_turn_of_the_planes_turns_the_mesh():
    """By a quarter about z, (x, y, z) -> (-y, x, z): the first plane turns, the other two change places, one of them mirrored.
    The lattice turns onto itself, its tetrahedra do not: volumes and vertices on the lattice's own edges are compared."""
    field = smooth(9, dtype=torch.float64)
    xy, xz, yz = field.planes
    weight, bias = field.layers[0]
    a, b, c = weight.chunk(3, 1)
    turned = replace(
        field,
        planes=torch.stack([xy.mT.flip(-1), yz.flip(-1), xz]),
        layers=[(torch.cat([a, c, b], 1), bias), *field.layers[1:]],
    )
    points = (2 * torch.rand(300, 3, generator=seeded(8), dtype=torch.float64) - 1) * field.radius
    R = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(turned.raw(points @ R.T), field.raw(points), rtol=0, atol=1e-6)
    assert float((turned.raw(points @ R) - field.raw(points)).abs().max()) > 1e-2

    def along_axes(surface: Triplane) -> Tensor:
        """Vertices on edges of cells, of which two coordinates are the lattice's."""
        v = surface.mesh(21, 1).vertices
        steps = (v / surface.radius + 1) * 10
        return v[((steps - steps.round()).abs() < 1e-9).sum(1) == 2]

    mine, theirs = along_axes(field) @ R.T, along_axes(turned)
    apart = torch.cdist(mine, theirs)
    assert len(mine) == len(theirs) > 500 and float(apart.amin(0).max()) < 1e-6 > float(apart.amin(1).max())
    assert torch.linalg.det(R) == 1
    ball = blob()
    surface = ball.mesh(33)
    assert marching.is_closed(surface.faces) and float(marching.signed_volume(surface.vertices, surface.faces)) > 0.1
