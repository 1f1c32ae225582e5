# SPDX-License-Identifier: Apache-2.0
"""Marching tetrahedra and its grids: MT-1 to MT-8 and MT-11 of the method reference, twins, threads, shapes that break things."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bozzetto.kernels import marching, pool
from bozzetto.kernels.marching import crossed_edges, marching_tetrahedra
from bozzetto.shapes.tetgrid import TetGrid, determinants, subdivide_surface
from tests.twins import marching as twin

CENTRE = torch.tensor([0.013, 0.007, 0.003], dtype=torch.float64)  # off the grid's vertices: no exact zeros


def lattice(n: int | tuple[int, int, int], size: float = 1.0) -> TetGrid:
    return TetGrid.kuhn(n, -size, size, dtype=torch.float64)


def listed(grid: TetGrid) -> TetGrid:
    """The same grid as a list of tets."""
    return TetGrid(grid.vertices, grid.side, listed=grid.tets)


def sphere(grid: TetGrid, r: float = 0.6) -> Tensor:
    return (grid.vertices - CENTRE).norm(dim=1) - r


def torus(p: Tensor, R: float, r: float) -> Tensor:
    return torch.stack([p[:, :2].norm(dim=1) - R, p[:, 2]], 1).norm(dim=1) - r


def noise(n: int, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pattern", range(16))
def test_mt_1_each_pattern_has_its_triangles_and_they_face_increasing_sdf(pattern):
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.2, 1, 0], [0.1, 0.3, 1]], dtype=torch.float64)
    grid = twin.grid_of(corners, torch.tensor([[0, 1, 2, 3]]))
    for seed in range(10):
        size = torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
        sdf = torch.where(torch.tensor([bool(pattern >> i & 1) for i in range(4)]), size, -size)
        vertices, faces, _ = marching_tetrahedra(corners, sdf, grid)
        assert len(faces) == [0, 1, 1, 2, 1, 2, 2, 1, 1, 2, 2, 1, 2, 1, 1, 0][pattern]
        if len(faces):
            a, b, c = vertices[faces].unbind(1)
            assert (torch.linalg.cross(b - a, c - a) @ twin.gradient(corners, sdf, [0, 1, 2, 3]) > 0).all()


def test_mt_2_a_linear_sdf_gives_its_plane():
    grid = lattice((5, 4, 6))
    n = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, grid.vertices @ n - 0.137, grid)
    assert (vertices @ n - 0.137).abs().max() < 1e-15
    a, b, c = vertices[faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    torch.testing.assert_close(normal / normal.norm(dim=1, keepdim=True), n.expand_as(normal), rtol=0, atol=1e-10)  # slivers lose digits


def test_mt_3_sphere_is_closed_and_converges_with_order_two():
    errors = []
    for n in (8, 16, 32, 64):
        grid = lattice(n)
        vertices, faces, _ = marching_tetrahedra(grid.vertices, sphere(grid), grid)
        assert twin.is_closed(faces) and twin.euler(vertices, faces) == 2
        volume, area = twin.signed_volume(vertices, faces), twin.area(vertices, faces)
        radial = ((vertices - CENTRE).norm(dim=1) - 0.6).abs().max()
        errors.append([float(radial), float(1 - volume / (4 / 3 * math.pi * 0.6**3)), float(1 - area / (4 * math.pi * 0.6**2))])
        assert volume > 0
    e = torch.tensor(errors, dtype=torch.float64)
    expected = torch.tensor([[3.9e-2, 8.8e-2, 4.6e-2], [6.1e-4, 1.36e-3, 7.0e-4]], dtype=torch.float64)
    torch.testing.assert_close(e[[0, -1]], expected, rtol=0.04, atol=0)  # quoted to two digits, for a slightly different centre
    order = (e[:-1] / e[1:]).log2()
    assert (order[:, 0] - 2).abs().max() < 0.2 and (order[1:, 1:] - 2).abs().max() < 0.05  # the first step is not asymptotic yet


def test_mt_4_topology_of_a_torus_two_spheres_and_a_double_torus():
    p = torch.tensor([0.013, 0.007, 0.003], dtype=torch.float64)
    errors = []
    for n in (16, 32, 64):
        grid = lattice(n)
        vertices, faces, _ = marching_tetrahedra(grid.vertices, torus(grid.vertices - p, 0.55, 0.25), grid)
        assert twin.is_closed(faces) and twin.euler(vertices, faces) == 0
        volume, area = float(twin.signed_volume(vertices, faces)), float(twin.area(vertices, faces))
        errors.append([1 - volume / (2 * math.pi**2 * 0.55 * 0.25**2), 1 - area / (4 * math.pi**2 * 0.55 * 0.25)])
    e = torch.tensor(errors)
    assert ((e[:-1] / e[1:]).log2() - 2).abs().max() < 0.1
    grid = lattice(24)
    x, dx = grid.vertices - p, torch.tensor([0.4, 0, 0], dtype=torch.float64)
    two = torch.minimum((x - dx).norm(dim=1), (x + dx).norm(dim=1)) - 0.3
    vertices, faces, _ = marching_tetrahedra(grid.vertices, two, grid)
    assert twin.is_closed(faces) and twin.euler(vertices, faces) == 4
    double = torch.minimum(torus(x - dx, 0.35, 0.15), torus(x + dx, 0.35, 0.15))
    vertices, faces, _ = marching_tetrahedra(grid.vertices, double, grid)
    assert twin.is_closed(faces) and twin.euler(vertices, faces) == -2


def test_mt_5_scaling_the_sdf_changes_nothing_and_negating_it_reverses_faces():
    grid = lattice(12)
    sdf = sphere(grid) + 0.05 * noise(len(grid.vertices), 0)
    vertices, faces, ends = marching_tetrahedra(grid.vertices, sdf, grid)
    scaled = marching_tetrahedra(grid.vertices, 3.7 * sdf, grid)
    assert (scaled[0] - vertices).abs().max() <= 2.3e-16 and torch.equal(scaled[1], faces)  # one unit in the last place
    back = marching_tetrahedra(grid.vertices, -sdf, grid)
    assert torch.equal(back[0], vertices) and torch.equal(back[2], ends)

    def turned(f: Tensor) -> set[tuple[int, ...]]:
        return {min((a, b, c), (b, c, a), (c, a, b)) for a, b, c in f.tolist()}

    assert turned(back[1].flip(1)) == turned(faces) != turned(back[1])
    torch.testing.assert_close(twin.signed_volume(back[0], back[1]), -twin.signed_volume(vertices, faces), rtol=1e-14, atol=0)


def test_mt_6_subdivision_keeps_the_surface():
    grid = lattice(8)
    sdf = sphere(grid)
    old = marching_tetrahedra(grid.vertices, sdf, grid)
    full = subdivide_surface(grid, sdf, rings=99)
    assert len(full.grid.tets) == 8 * len(grid.tets)
    children = determinants(full.grid.vertices, full.grid.tets).view(-1, 8)
    torch.testing.assert_close(children, determinants(grid.vertices, grid.tets)[:, None].expand(-1, 8) / 8, rtol=1e-13, atol=0)
    for fine in (full, subdivide_surface(grid, sdf)):
        vertices, faces, _ = marching_tetrahedra(fine.grid.vertices, fine.sdf, fine.grid)
        torch.testing.assert_close(twin.signed_volume(vertices, faces), twin.signed_volume(*old[:2]), rtol=1e-14, atol=0)
        torch.testing.assert_close(twin.area(vertices, faces), twin.area(*old[:2]), rtol=1e-14, atol=0)
        assert twin.euler(vertices, faces) == 2 and twin.is_closed(faces) and abs(len(faces) / len(old[1]) - 4) < 0.25
        on_old = twin.interpolated(vertices, grid.vertices, grid.tets, sdf)
        assert on_old.abs().max() < 1e-14  # the new ones lie on the old surface, to the rounding of an inverse
    true = marching_tetrahedra(full.grid.vertices, sphere(full.grid), full.grid)
    ball = 4 / 3 * math.pi * 0.6**3
    gain = (1 - twin.signed_volume(*old[:2]) / ball) / (1 - twin.signed_volume(*true[:2]) / ball)
    assert 3.3 < gain < 4.2  # order 2, from 8.8e-2 to 2.45e-2


def test_mt_6_a_refined_kuhn_lattice_is_kuhn_and_parents_are_midpoints():
    coarse, fine = lattice((3, 2, 4)), lattice((6, 4, 8))
    refined = subdivide_surface(coarse, sphere(coarse), rings=99)
    index = {tuple(v): i for i, v in enumerate((fine.vertices * 1000).round().tolist())}
    number = torch.tensor([index[tuple(v)] for v in (refined.grid.vertices * 1000).round().tolist()])
    assert {frozenset(t) for t in number[refined.grid.tets].tolist()} == {frozenset(t) for t in fine.tets.tolist()}
    assert torch.equal(refined.grid.vertices, coarse.vertices[refined.parents].mean(1))
    torch.testing.assert_close(refined.grid.reach, fine.reach, rtol=1e-12, atol=0)  # tets do not grow thin
    assert torch.equal(refined.grid.side[torch.argsort(number)], fine.side)


def test_mt_7_gradients_equal_the_closed_form_and_central_differences():
    """dv/ds_a = s_b (v_a - v_b) / (s_b - s_a)^2, dv/dv_a = s_b / (s_b - s_a)."""
    grid = lattice((2, 1, 2))
    sdf = (sphere(grid, 0.9) + 0.3 * noise(len(grid.vertices), 1)).requires_grad_()
    v = (grid.vertices + 0.05 * noise(3 * len(grid.vertices), 2).view(-1, 3)).requires_grad_()
    for g in (grid, listed(grid)):
        out, _, ends = marching_tetrahedra(v, sdf, g)
        weight = noise(out.numel(), 3).view(-1, 3)
        grad_v, grad_s = torch.autograd.grad((out * weight).sum(), (v, sdf))
        expect_v, expect_s = torch.zeros_like(v), torch.zeros_like(sdf)
        with torch.no_grad():
            for w, (a, b) in zip(weight, ends.tolist(), strict=True):
                sa, sb = sdf[a], sdf[b]
                expect_s[a] += sb * ((v[a] - v[b]) @ w) / (sb - sa) ** 2
                expect_s[b] += sa * ((v[b] - v[a]) @ w) / (sb - sa) ** 2
                expect_v[a] += sb / (sb - sa) * w
                expect_v[b] -= sa / (sb - sa) * w
        torch.testing.assert_close(grad_v, expect_v, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(grad_s, expect_s, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close((sdf * grad_s).sum(), sdf.new_zeros(()), rtol=0, atol=1e-12)  # scale invariance
        assert torch.autograd.gradcheck(lambda v, s, g=g: marching_tetrahedra(v, s, g)[0], (v, sdf), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_mt_8_a_uniform_shift_of_the_sdf_takes_the_area_from_the_volume():
    for n, gap in ((16, 7e-3), (32, 1.5e-3), (64, 4e-4)):
        grid = lattice(n)
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        vertices, faces, _ = marching_tetrahedra(grid.vertices, sphere(grid) + shift, grid)
        twin.signed_volume(vertices, faces).backward()
        assert abs(float(shift.grad) / (-4 * math.pi * 0.6**2) - 1) < 1.3 * gap


def test_mt_11_surface_tets_grow_with_the_square_of_the_resolution():
    counts = []
    for n in (8, 16, 32, 64):
        grid = lattice(n)
        inside = (sphere(grid) > 0)[grid.tets].sum(1)
        counts.append(int(((inside > 0) & (inside < 4)).sum()))
        assert len(grid.tets) == 6 * n**3
    torch.testing.assert_close(torch.tensor(counts).double(), torch.tensor([516.0, 1920, 7968, 31608]).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("cells", [(1, 1, 1), (1, 2, 3), (3, 1, 1), (2, 2, 40), (1, 1, 31), (1, 1, 32), (1, 1, 64)])
def test_kernel_agrees_with_its_twin(cells):
    """Vertices to rounding, in the same order; polygons as directed edges without the diagonals of quads, which are free."""
    grid = lattice(cells)
    v = (grid.vertices + 0.5 * grid.reach[:, None] * noise(3 * len(grid.vertices), 5).clamp(-1, 1).view(-1, 3)).requires_grad_()
    sdf = noise(len(v), 6).requires_grad_()
    points, polygons, order = twin.marching_tetrahedra(v, sdf, grid.tets)
    expected = sorted((p[i - 1], p[i]) for p in polygons for i in range(len(p)))
    weight = noise(points.numel(), 7).view(-1, 3)
    slow = torch.autograd.grad((points * weight).sum(), (v, sdf))
    for g in (grid, listed(grid)):
        vertices, faces, ends = marching_tetrahedra(v, sdf, g)
        assert ends.tolist() == [list(e) for e in order] and torch.equal(crossed_edges(sdf, g), ends)
        torch.testing.assert_close(vertices, points, rtol=0, atol=1e-14)
        assert len(faces) == sum(len(p) - 2 for p in polygons)
        directed = [(a, b) for f in faces.tolist() for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0])) if set(order[a]) & set(order[b])]
        assert sorted(directed) == expected
        fast = torch.autograd.grad((vertices * weight).sum(), (v, sdf))
        for x, y in zip(fast, slow, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)  # sums in another order, over (s_b - s_a)^2
        half = marching_tetrahedra(v.float(), sdf.float(), g)
        assert torch.equal(half[1], faces)
        torch.testing.assert_close(half[0].double(), points, rtol=0, atol=3e-3)  # float32 keeps 1e-3 of an edge from its ends


@pytest.mark.parametrize("seed", range(4))
def test_random_sdf_gives_a_closed_manifold_without_degenerate_faces(seed):
    grid = lattice((9, 6, 7))
    sdf = grid.hold(noise(len(grid.vertices), seed))
    vertices, faces, _ = marching_tetrahedra(grid.vertices, sdf, grid)
    assert twin.is_closed(faces) and twin.vertex_fans(faces) == 0 and len(torch.unique(faces)) == len(vertices)
    assert len(faces) > 1000


def test_lattice_and_list_give_the_same_bits_and_so_does_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(marching, "ROWS", 32)
    monkeypatch.setattr(marching, "POINTS", 500)
    grid = lattice((20, 33, 70))
    sdf = (sphere(grid) + 0.1 * noise(len(grid.vertices), 4)).requires_grad_()
    v = grid.vertices.clone().requires_grad_()
    results, before = [], pool.num_threads()
    try:
        for threads, g in itertools.product((1, 2, 3), (grid, listed(grid))):
            pool.set_num_threads(threads)
            out = marching_tetrahedra(v, sdf, g)
            results.append([*out, *torch.autograd.grad(out[0].square().sum(), (v, sdf))])
    finally:
        pool.set_num_threads(before)
    assert all(torch.equal(x, y) for r in results[1:] for x, y in zip(r, results[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_on_vertices_make_no_degenerate_faces_and_finite_gradients(dtype):
    """A cube whose sides lie in grid planes: without care, most of its faces have no area."""
    grid = TetGrid.kuhn(8, -1, 1, dtype=dtype)
    sdf = (grid.vertices.abs().amax(1) - 0.5).requires_grad_()
    assert (sdf == 0).sum() > 90
    vertices, faces, _ = marching_tetrahedra(grid.vertices, sdf, grid)
    a, b, c = vertices.double()[faces].unbind(1)
    assert twin.is_closed(faces) and torch.linalg.cross(b - a, c - a).norm(dim=1).min() > 0
    assert abs(float(twin.signed_volume(vertices.detach().double(), faces)) - 1) < 3e-3 * 6 / 4  # margin x edge x area
    vertices.square().sum().backward()
    assert torch.isfinite(sdf.grad).all()
    tiny = torch.where(sdf.detach() == 0, 0, torch.finfo(dtype).tiny * sdf.detach().sign()).requires_grad_()
    marching_tetrahedra(grid.vertices, tiny, grid)[0].sum().backward()
    assert torch.isfinite(tiny.grad).all()


def test_no_sign_change_gives_nothing_and_passes_no_gradient():
    grid = lattice(3)
    for g, sign in itertools.product((grid, listed(grid)), (1.0, -1.0)):
        sdf = torch.full((64,), sign, dtype=torch.float64, requires_grad=True)
        vertices, faces, ends = marching_tetrahedra(grid.vertices, sdf, g)
        assert vertices.shape == (0, 3) and faces.shape == (0, 3) and ends.shape == (0, 2)
        vertices.sum().backward()
        assert (sdf.grad == 0).all()


def test_wrong_input_is_named():
    grid = lattice(2)
    with pytest.raises(ValueError, match=r"vertices \(N, 3\)"):
        marching_tetrahedra(grid.vertices[:-1], sphere(grid), grid)
    with pytest.raises(ValueError, match="N = 27"):
        marching_tetrahedra(lattice(1).vertices, sphere(lattice(1)), grid)
    with pytest.raises(ValueError, match="27 vertices"):
        crossed_edges(sphere(lattice(1)), grid)
    with pytest.raises(ValueError, match="float32 or float64"):
        marching_tetrahedra(grid.vertices, sphere(grid).float(), grid)
    with pytest.raises(ValueError, match="not finite"):
        marching_tetrahedra(grid.vertices, sphere(grid).log(), grid)
    with pytest.raises(ValueError, match="no tet has a sign change"):
        subdivide_surface(grid, torch.ones(27, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least 1 ring"):
        subdivide_surface(grid, sphere(grid), rings=0)
    with pytest.raises(ValueError, match="lower < upper"):
        TetGrid.kuhn(2, 1, -1)


def test_kuhn_grid_lists_are_consistent():
    grid = TetGrid.kuhn((2, 3, 4), (0, -1, 0.5), (1, 1, 3))
    assert len(grid.vertices) == 60 and (determinants(grid.vertices, grid.tets) > 0).all()
    torch.testing.assert_close(determinants(grid.vertices, grid.tets).sum() / 6, torch.tensor(5.0).double())  # they fill the box
    pairs = torch.tensor([sorted(p) for t in grid.tets.tolist() for p in itertools.combinations(t, 2)])
    assert torch.equal(grid.edges[grid.tet_edges].reshape(-1, 2), pairs)
    assert torch.equal(grid.edges, torch.unique(pairs, dim=0))
    again = twin.grid_of(grid.vertices, grid.tets)
    assert torch.equal(again.side, grid.side)
    torch.testing.assert_close(again.reach.amin(), grid.reach.amin())
    assert TetGrid.kuhn(8, (-1, -0.5, -0.25), (1, 0.5, 0.25)).cells == (8, 4, 2)


def test_reach_of_a_cube_lattice_is_the_published_bound():
    """No fold below h / (2 sqrt 3) whatever the direction; at 0.30 h some offsets do fold a tet."""
    grid = lattice(3)
    h = 2 / 3
    torch.testing.assert_close(grid.reach[0], torch.tensor(0.99 * h / (2 * math.sqrt(3))).double())
    tet = grid.vertices[grid.tets[0]]  # the direction of the least width: across edges 02 and 13
    n = torch.linalg.cross(tet[2] - tet[0], tet[3] - tet[1])
    n = n / n.norm()
    side = torch.tensor([1.0, -1.0, 1.0, -1.0]).double() * torch.sign((tet[1] - tet[0]) @ n)
    for share, folds in ((0.2886, False), (0.30, True)):
        moved = tet + share * h * side[:, None] * n
        assert bool(determinants(moved, torch.tensor([[0, 1, 2, 3]])) <= 0) == folds
