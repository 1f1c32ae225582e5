# SPDX-License-Identifier: Apache-2.0
"""Loop subdivision against its closed forms, and the smoothness of meshes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bozzetto.shapes.dmtet import area_normals, normal_consistency
from bozzetto.shapes.loop import LoopSurface, loop_alpha, loop_subdivide
from tests.test_dmtet import noise, torus_mesh
from tests.twins import marching as twin


def icosphere(levels: int) -> tuple[Tensor, Tensor]:
    g = (1 + math.sqrt(5)) / 2
    third = [[-1, g, 0], [1, g, 0], [-1, -g, 0], [1, -g, 0]]
    v = torch.tensor([*third, *([c, a, b] for a, b, c in third), *([b, c, a] for a, b, c in third)], dtype=torch.float64)
    f = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6), (7, 1, 8)]
    f += [(3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)]
    v, f = v / v.norm(dim=1, keepdim=True), torch.tensor(f)
    for _ in range(levels):
        v, f = loop_subdivide(v, f)
        v = v / v.norm(dim=1, keepdim=True)
    return v, f


def plane(n: int) -> tuple[Tensor, Tensor]:
    """A regular triangle lattice of n x n vertices."""
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    i, j = i.double(), j.double()
    v = torch.stack([i + j / 2, j * math.sqrt(3) / 2, 0 * i], -1).reshape(-1, 3)
    a = (i * n + j).long()[:-1, :-1].reshape(-1)
    return v, torch.cat([torch.stack([a, a + n, a + 1], 1), torch.stack([a + n, a + n + 1, a + 1], 1)])


def test_loop_weights_and_counts():
    v, f = plane(5)
    alpha = loop_alpha(f, len(v), torch.float64).view(5, 5)
    assert torch.allclose(alpha[1:-1, 1:-1], torch.tensor(0.375).double()) and (alpha[0] == 0.25).all() and (alpha[:, -1] == 0.25).all()
    ico, g = icosphere(0)
    torch.testing.assert_close(
        loop_alpha(g, 12, torch.float64)[0], torch.tensor(0.625 - (0.375 + math.cos(2 * math.pi / 5) / 4) ** 2).double()
    )
    for x, t, chi in ((v, f, 1), (ico, g, 2), (torus_mesh(0.3, 0.1, 9, 7).vertices, torus_mesh(0.3, 0.1, 9, 7).faces, 0)):
        y, u = loop_subdivide(x, t)
        assert len(u) == 4 * len(t) and twin.euler(y, u) == twin.euler(x, t) == chi
        assert chi == 1 or twin.is_closed(u)
    assert twin.signed_volume(*loop_subdivide(ico, g)) > 0  # winding is kept


def test_loop_reproduces_linear_functions_and_planes():
    v, f = plane(6)
    A = noise(3, 3, seed=8, dtype=torch.float64)
    inner = loop_subdivide(v, f)[0]
    torch.testing.assert_close(loop_subdivide(v @ A + 1, f)[0], inner @ A + 1, rtol=0, atol=1e-13)  # affine invariance
    assert (inner[:, 2] == 0).all()
    middle = (slice(1, -1), slice(1, -1))
    torch.testing.assert_close(inner[:36].view(6, 6, 3)[middle], v.view(6, 6, 3)[middle], rtol=0, atol=1e-14)  # linear precision
    irregular = torch.stack([*noise(2, 36, seed=9, dtype=torch.float64), torch.full((36,), 0.7, dtype=torch.float64)], 1)
    assert (loop_subdivide(irregular, f)[0][:, 2] - 0.7).abs().max() < 1e-15


def test_loop_limit_of_a_regular_vertex():
    """v / 2 + the sum of six neighbours / 12 (Loop 1987); each level keeps 1/4 of the error."""
    v, f = plane(7)
    v[:, 2] = noise(49, seed=10, dtype=torch.float64)
    ring = [23, 25, 17, 31, 18, 30]  # of vertex 24, at (3, 3)
    assert all(((f == 24).any(1) & (f == r).any(1)).any() for r in ring)
    limit = v[24] / 2 + v[ring].sum(0) / 12
    for level in range(1, 6):
        v, f = loop_subdivide(v, f)
        assert (v[24] - limit).norm() < 2 * 0.25**level


def test_loop_boundary_is_a_curve_of_its_own():
    """Cubic B-spline of the boundary only: (a + 6 b + c) / 8 and midpoints; the inside does not pull."""
    v, f = plane(4)
    v[:, 2] = noise(16, seed=11, dtype=torch.float64)
    w = v.clone()
    w[5, 2] += 3  # an inner vertex
    new, moved = loop_subdivide(v, f)[0], loop_subdivide(w, f)[0]
    torch.testing.assert_close(new[1], (v[0] + 6 * v[1] + v[2]) / 8)
    border = [i for i in range(16) if i // 4 in (0, 3) or i % 4 in (0, 3)]
    assert torch.equal(new[border], moved[border]) and not torch.equal(new[5], moved[5])
    with pytest.raises(ValueError, match="more than two"):
        loop_subdivide(v, torch.cat([f, f[:1], f[:1]]))


def test_loop_gradients_and_learnable_surface():
    v, f = icosphere(0)
    v, alpha = v.requires_grad_(), loop_alpha(f, 12, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: loop_subdivide(v, f, a)[0], (v, alpha), atol=1e-9)
    sharp = loop_subdivide(v, f, torch.zeros(12, dtype=torch.float64))[0]
    assert torch.equal(sharp[:12], v)  # alpha = 0 keeps old vertices
    surface = LoopSurface(v, f, levels=2)
    plain = loop_subdivide(*loop_subdivide(v, f))
    torch.testing.assert_close(surface.surface()[0], plain[0], rtol=1e-12, atol=1e-12)
    surface.surface()[0].square().sum().backward()
    assert (surface.logit_alpha.grad != 0).all() and surface.mesh().vertices.dtype == torch.float32


def test_regularisers_have_their_closed_forms():
    v, f = icosphere(0)
    neighbours = math.sqrt(5)  # an icosahedron's vertex has five, all at height 1 / sqrt 5
    torch.testing.assert_close(normal_consistency(v, f), torch.tensor(1 - 1 / neighbours, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(area_normals(v, f), v, rtol=0, atol=1e-15)
    assert normal_consistency(*icosphere(3)) < normal_consistency(*icosphere(2)) / 3.5  # 1 - cos of an angle that halves
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64, requires_grad=True)
    collapsed = flat * torch.tensor([1.0, 0, 0])
    normal_consistency(collapsed, torch.tensor([[0, 1, 2]])).backward()
    assert torch.isfinite(flat.grad).all()  # no area, no normal, no infinity
