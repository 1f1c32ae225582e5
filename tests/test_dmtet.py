# SPDX-License-Identifier: Apache-2.0
"""DMTet as a shape (MT-9, MT-10, MT-12), what it starts from, regularisers."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from bozzetto.mesh import Mesh
from bozzetto.shapes.dmtet import DMTet, EmptySurface, normal_consistency, sign_loss
from bozzetto.shapes.tetgrid import TetGrid, determinants
from tests.twins import marching as twin


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rough(cells: int = 12, seed: int = 0) -> DMTet:
    """A noisy sphere with wild offsets, float64."""
    grid = TetGrid.kuhn(cells, dtype=torch.float64)
    shape = DMTet(grid, grid.vertices.norm(dim=1) - 0.4 + 0.02 * noise(len(grid.vertices), seed=seed, dtype=torch.float64))
    with torch.no_grad():
        shape.offset.copy_(5 * noise(*shape.offset.shape, seed=seed + 1, dtype=torch.float64))
    return shape


def torus_mesh(R: float, r: float, n: int = 96, m: int = 48) -> Mesh:
    i, j = torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij")
    u, v = i * (2 * math.pi / n), j * (2 * math.pi / m)
    x = torch.stack([(R + r * v.cos()) * u.cos(), (R + r * v.cos()) * u.sin(), r * v.sin()], -1).reshape(-1, 3)
    a, b, c, d = (((i + k) % n * m + (j + h) % m).reshape(-1) for k, h in ((0, 0), (1, 0), (1, 1), (0, 1)))
    return Mesh(x, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]))


def test_mt_9_without_deformation_offsets_do_nothing_and_far_values_have_no_gradient():
    shape = rough()
    still = DMTet(shape.grid, shape.sdf, deform=0)
    with torch.no_grad():
        still.offset.copy_(shape.offset)
    plain = DMTet(shape.grid, shape.sdf)
    assert torch.equal(still.surface()[0], plain.surface()[0]) and not torch.equal(shape.surface()[0], plain.surface()[0])
    shape.surface()[0].square().sum().backward()
    inside = (shape.field() > 0)[shape.grid.tets].sum(1)
    crossed = torch.zeros(len(shape.sdf), dtype=torch.bool)
    crossed[shape.grid.tets[(inside > 0) & (inside < 4)].reshape(-1)] = True
    assert (shape.sdf.grad[~crossed] == 0).all() and (shape.offset.grad[~crossed] == 0).all()
    assert (shape.sdf.grad[crossed & (shape.grid.side == 0)] != 0).float().mean() > 0.99


def test_mt_9_no_offset_folds_a_tet():
    shape = rough()
    for scale in (1.0, 1e3, 1e12):
        with torch.no_grad():
            shape.offset.copy_(scale * noise(*shape.offset.shape, seed=3, dtype=torch.float64))
        assert determinants(shape.positions(), shape.grid.tets).min() > 0
    moved = (shape.positions() - shape.rest).norm(dim=1)
    assert (moved < shape.grid.spacing / (2 * math.sqrt(3))).all() and moved.max() > 0.28 * shape.grid.spacing
    shape.offset.data.zero_()
    torch.testing.assert_close(torch.autograd.grad(shape.positions().sum(), shape.offset)[0], shape.reach[:, None].expand(-1, 3))


def test_mt_10_sign_loss_counts_crossed_edges_only():
    s = torch.tensor([1.0, -1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    loss = sign_loss(s, torch.tensor([[0, 1]]))
    assert abs(float(loss.detach()) - 2.62652) < 5e-6
    (g,) = torch.autograd.grad(loss, s)
    assert g[0] > 0 and g[1] < 0 and (g[2:] == 0).all()  # both shrink
    same = sign_loss(s, torch.tensor([[0, 2], [2, 3]]))
    assert float(same.detach()) == 0 and (torch.autograd.grad(same, s)[0] == 0).all()
    torch.testing.assert_close(sign_loss(s, torch.tensor([[0, 1], [0, 2]])), loss)
    shape = rough()
    every = sign_loss(shape.field() / shape.grid.spacing, shape.grid.edges)
    torch.testing.assert_close(shape.sign_loss(), every, rtol=1e-12, atol=0)


def test_mt_12_a_sphere_becomes_a_torus():
    """Chamfer distance alone turns Euler characteristic 2 into 0, and ends below a fifth of a grid spacing."""
    generator = torch.Generator().manual_seed(0)
    mesh = torus_mesh(0.3, 0.13)
    target = sample(mesh.vertices, mesh.faces, 4000, generator)
    tree = cKDTree(target.numpy())
    shape = DMTet.from_sphere(0.4, cells=16)
    assert twin.euler(*shape.surface()) == 2
    optimizer = torch.optim.Adam([{"params": [shape.sdf], "lr": 0.01}, {"params": [shape.offset], "lr": 0.02}])
    steps = 90
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, (0.01, 0.02), strict=True):
            group["lr"] = rate * (1 - step / steps)
        points = sample(*shape.surface(), 3000, generator)
        there = (points - target[tree.query(points.detach().numpy())[1]]).norm(dim=1).mean()
        back = (points[cKDTree(points.detach().numpy()).query(target.numpy())[1]] - target).norm(dim=1).mean()
        optimizer.zero_grad()
        (there + back).backward()
        shape.smooth_gradients()
        optimizer.step()
    vertices, faces = shape.surface()
    assert twin.euler(vertices, faces) == 0 and twin.is_closed(faces)
    assert float((there + back).detach()) / 2 < 0.2 * shape.grid.spacing  # 4000 random points alone are 0.14 of it apart
    vertices = vertices.detach()
    tube = torch.stack([vertices[:, :2].norm(dim=1) - 0.3, vertices[:, 2]], 1).norm(dim=1)
    assert (tube - 0.13).abs().mean() < 0.15 * shape.grid.spacing


def sample(vertices: Tensor, faces: Tensor, n: int, generator: torch.Generator) -> Tensor:
    a, b, c = vertices[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1).detach()
    i = torch.multinomial(area, n, replacement=True, generator=generator)
    u = torch.rand(n, 2, generator=generator)
    s, t = u[:, :1].sqrt(), u[:, 1:]
    return (1 - s) * a[i] + s * (1 - t) * b[i] + s * t * c[i]


def test_the_surface_is_closed_whatever_the_field():
    """Also where the field is inside at the box's boundary, and at the cut boundary after a subdivision."""
    shape = rough()
    for level in range(2):
        for seed in range(3):
            with torch.no_grad():
                shape.sdf.copy_(noise(len(shape.sdf), seed=seed, dtype=torch.float64))
            vertices, faces = shape.surface()
            assert twin.is_closed(faces) and twin.vertex_fans(faces) == 0 and twin.signed_volume(vertices, faces) > 0
        if level == 0:
            shape = rough()
            shape.subdivide()
            assert (shape.grid.side < 0).any() and (shape.grid.side > 0).any()


def test_subdivision_keeps_a_deformed_surface_and_its_normals():
    shape = rough()
    old = shape.surface()
    tets, places, values = shape.grid.tets, shape.positions().detach(), shape.field().detach()
    n = len(shape.sdf)
    parents = shape.subdivide()
    new = shape.surface()
    assert twin.interpolated(new[0][::5].detach(), places, tets, values).abs().max() < 1e-9  # on the old surface
    for f in (twin.signed_volume, twin.area):
        torch.testing.assert_close(f(*new), f(*old), rtol=1e-12, atol=0)
    assert twin.euler(*new) == twin.euler(*old) and twin.is_closed(new[1])
    assert parents.shape == (len(shape.sdf), 2) and int(parents.max()) < n and (shape.offset == 0).all()
    assert determinants(shape.rest, shape.grid.tets).min() > 0
    with torch.no_grad():
        shape.offset.copy_(1e9 * noise(*shape.offset.shape, seed=5, dtype=torch.float64))
    assert determinants(shape.positions(), shape.grid.tets).min() > 0  # reach follows the deformed tets


def test_empty_surfaces_say_so_and_recover():
    shape = DMTet.from_sphere(0.3, cells=12)
    for value, word in ((1.0, "positive"), (-1.0, "negative")):
        with torch.no_grad():
            shape.sdf.fill_(value)
        if value > 0:
            with pytest.raises(EmptySurface, match=f"{word}.*recover"):
                shape.surface()
            with pytest.raises(EmptySurface, match="no surface"):
                shape.subdivide()
        else:
            assert twin.is_closed(shape.surface()[1])  # held at the boundary, all inside is the box
        shape.recover()
        vertices, faces = shape.surface()
        assert twin.is_closed(faces) and twin.signed_volume(vertices, faces) > 0
    before = shape.sdf.detach().clone()
    shape.recover()
    assert torch.equal(before, shape.sdf)  # nothing to do
    with pytest.raises(EmptySurface, match="one sign"):
        DMTet.from_occupancy(torch.full((4, 4, 4), -1.0), cells=4)


@pytest.mark.parametrize("growths", [0, 1])
def test_state_round_trip(growths):
    shape = rough()
    for _ in range(growths):
        shape.subdivide()
    again = DMTet.from_state(shape.state_dict())
    for x, y in zip(again.surface(), shape.surface(), strict=True):
        assert torch.equal(x, y)
    assert torch.equal(again.subdivide(), shape.subdivide())


def test_from_ellipsoid_in_an_unequal_box():
    shape = DMTet.from_ellipsoid((0.5, 0.3, 0.2), 48, (-0.55, -0.35, -0.25), (0.55, 0.35, 0.25))
    assert shape.grid.cells == (48, 31, 22)
    vertices, faces = shape.surface()
    assert abs(float(twin.signed_volume(vertices.detach().double(), faces)) / (4 / 3 * math.pi * 0.03) - 1) < 5e-3
    assert ((vertices / torch.tensor([0.5, 0.3, 0.2])).norm(dim=1) - 1).abs().max() < 0.02
    offset = DMTet.from_sphere(0.2, 32, centre=(0.2, -0.1, 0.05)).surface()[0]
    assert ((offset - torch.tensor([0.2, -0.1, 0.05])).norm(dim=1) - 0.2).abs().max() < 4e-3


def test_from_occupancy_keeps_the_zero_set_and_measures_in_object_units():
    centre = torch.tensor([0.1, -0.05, 0.02])
    shape = DMTet.from_occupancy(lambda p: 37 * (0.3 - (p - centre).norm(dim=1)), cells=24)
    true = (shape.grid.vertices - centre).norm(dim=1) - 0.3
    near = true.abs() < shape.grid.spacing
    assert (shape.sdf - true)[near].abs().max() < 0.05 * shape.grid.spacing  # central differences of a sphere
    assert shape.sdf.abs().max() < 2.01 * shape.grid.spacing
    # a volume of logits at cell centres, of another size than the grid, in a box that is no cube: linear, so exact away from its border
    axes = [(torch.arange(n) + 0.5) / n * (b - a) + a for n, a, b in ((10, -0.5, 0.5), (7, -0.3, 0.4), (9, 0.0, 0.5))]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    slope = torch.tensor([1.0, -2.0, 3.0])
    shape = DMTet.from_occupancy(x @ slope - 0.7, 20, (-0.5, -0.3, 0.0), (0.5, 0.4, 0.5))
    vertices = shape.surface()[0]
    inner = ((vertices > torch.tensor([-0.4, -0.2, 0.07])) & (vertices < torch.tensor([0.4, 0.3, 0.43]))).all(1)
    assert inner.sum() > 50 and (vertices[inner] @ slope - 0.7).abs().max() < 4e-4  # 1e-3 of an edge


@pytest.mark.parametrize("growths", [0, 1])
def test_smoothed_gradients_keep_constants_and_spread_to_neighbours(growths):
    shape = rough(8)
    for _ in range(growths):
        shape.subdivide()
    inner = shape.grid.side == 0
    shape.sdf.grad = torch.ones_like(shape.sdf)
    shape.smooth_gradients(1)
    torch.testing.assert_close(shape.sdf.grad[inner], torch.ones_like(shape.sdf)[inner])
    shape.sdf.grad = torch.zeros_like(shape.sdf)
    middle = int(inner.nonzero()[len(inner.nonzero()) // 2])
    shape.sdf.grad[middle] = 1
    shape.smooth_gradients(1)
    assert ((shape.rest - shape.rest[middle]).norm(dim=1)[shape.sdf.grad > 0] < 2.5 * shape.grid.spacing).all()
    assert 8 < (shape.sdf.grad > 0).sum() <= 27


def test_losses_tell_rough_from_smooth_and_have_gradients():
    shape = rough()
    sign, normal = shape.sign_loss(), normal_consistency(*shape.surface())
    assert torch.isfinite(sign) and sign > 0 and torch.isfinite(normal)
    assert normal_consistency(*DMTet.from_sphere(0.4, cells=12).surface()) < normal
    (sign + normal).backward()
    assert torch.isfinite(shape.sdf.grad).all() and torch.isfinite(shape.offset.grad).all()


def test_mesh_is_float32_with_outward_unit_normals():
    mesh = DMTet.from_sphere(0.4, cells=16).mesh()
    assert mesh.vertices.dtype == torch.float32 and mesh.faces.dtype == torch.int64 and not mesh.vertices.requires_grad
    assert ((mesh.normals * mesh.vertices).sum(1) / mesh.vertices.norm(dim=1) > 0.97).all()
