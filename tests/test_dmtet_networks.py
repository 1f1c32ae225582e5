# SPDX-License-Identifier: Apache-2.0
"""DMTet's networks (MT-13…19): graphs know no order, refinement begins as none, surface subdivision as Loop's, nothing folds or opens; what
the encoders say of a box off the centre; one object is learnt by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bozzetto.errors import InputError
from bozzetto.kernels.marching import marching_tetrahedra
from bozzetto.priors.dmtet import DMTetConfig, DMTetNetworks, GraphNetwork, Volumetric, grid_of, load, save, subdivide
from bozzetto.priors.point_voxel import HALF, RIM, UNIT, Field, PointEncoder, framed, padded, planes, shut_in
from bozzetto.render.clean import is_watertight_manifold
from bozzetto.shapes.loop import loop_subdivide
from bozzetto.shapes.start import EmptySurface
from bozzetto.shapes.tetgrid import TetGrid, determinants
from tests.test_dmtet import noise
from tests.test_loop import icosphere

SMALL = DMTetConfig(widths=(4, 8, 8), neurons=16, features=4, graph=8)
LOW, HIGH = torch.tensor([-0.4, -0.15, -0.3]), torch.tensor([0.2, 0.35, 0.1])  # of a box off the centre, three lengths


def box_distance(x: Tensor) -> Tensor:
    """Closed form."""
    q = torch.maximum(LOW - x, x - HIGH)
    return q.clamp(min=0).norm(dim=1) + q.amax(1).clamp(max=0)


def box_points(count: int = 1500, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    size = HIGH - LOW
    axis = torch.multinomial(size.prod() / size, count, replacement=True, generator=g)
    x = torch.rand(count, 3, generator=g)
    side = (torch.rand(count, generator=g) > 0.5).float()
    return LOW + size * torch.where(torch.nn.functional.one_hot(axis, 3).bool(), side[:, None], x)


def box_voxels() -> Tensor:
    """16 voxels a side of UNIT, round the middle: those whose centres are in the box."""
    at = ((torch.arange(16) + 0.5) / 16 - 0.5) * 16 * UNIT
    x = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1)
    return (box_distance(x.reshape(-1, 3)) < 0).view(16, 16, 16)


def networks(reads: str = "points", stirred: float = 0.0) -> DMTetNetworks:
    """With seeded weights; last layers of the graph networks zeros, or stirred."""
    made, g = DMTetNetworks(DMTetConfig(**{**vars(SMALL), "reads": reads})), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.1 * torch.randn(p.shape, generator=g))
        for graph in (*made.graphs, made.mesh):
            graph.head.weight.copy_(stirred * torch.randn(graph.head.weight.shape, generator=g))
            graph.head.bias.zero_()
    return made.eval()


def of_box(cells: int = 12) -> Volumetric:
    """The box's own SDF on a grid, with features."""
    grid = TetGrid.kuhn(cells, -0.55, 0.55)
    return Volumetric(grid, grid.vertices, grid.hold(box_distance(grid.vertices)), noise(len(grid.vertices), 4), grid.vertices[:0])


def test_mt_13_a_graph_network_knows_no_numbers_of_vertices_and_no_directions_of_edges():
    network, g = GraphNetwork(5, 8, 3), torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.head.weight.copy_(torch.randn(3, 8, generator=g))
    network = network.double()
    faces = icosphere(1)[1]
    edges = torch.unique(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(1).values, dim=0)
    x, order = noise(42, 5, dtype=torch.float64), torch.randperm(42, generator=g)
    number = torch.empty_like(order)
    number[order] = torch.arange(42)
    made = network(x, edges)
    renumbered = number[edges][torch.randperm(len(edges), generator=g)].flip(1)
    torch.testing.assert_close(network(x[order], renumbered), made[order], rtol=0, atol=1e-12)
    assert (network(x[order], edges) - made[order]).abs().max() > 1e-2  # the control: other vertices beside each


def test_mt_13_three_layers_see_three_edges_far():
    network = GraphNetwork(1, 8, 1).double()
    with torch.no_grad():
        network.head.weight.fill_(1.0)
    chain = torch.stack([torch.arange(9), torch.arange(1, 10)], 1)
    x = torch.zeros(10, 1, dtype=torch.float64)
    y = x.clone()
    y[0] = 1
    off = (network(y, chain) - network(x, chain)).abs()[:, 0]
    assert (off[:4] > 0).all() and (off[4:] == 0).all()


def test_mt_14_heads_of_zeros_leave_the_surface_and_loop_is_loops():
    made, field = networks(), networks().encode(box_points())
    shape = of_box()
    refined = made.refine(0, field, shape)
    assert torch.equal(refined.vertices, shape.vertices) and torch.equal(refined.sdf, shape.sdf) and (refined.offsets == 0).all()
    fine = made.refine(1, field, subdivide(refined))
    coarse, _, _ = shape.surface()
    volume = [_volume(*s.surface()[:2]) for s in (shape, fine)]
    assert volume[0] == pytest.approx(volume[1], rel=1e-5)  # float32: the same piecewise linear surface
    vertices, faces, _ = fine.surface()
    expected, expected_faces = loop_subdivide(vertices, faces)
    got, got_faces = made.finish(field, fine)
    assert torch.equal(got_faces, expected_faces) and len(coarse) < len(vertices)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)  # through logit and sigmoid


def _volume(vertices: Tensor, faces: Tensor) -> float:
    a, b, c = vertices[faces].double().unbind(1)
    return float((torch.linalg.cross(a, b) * c).sum().detach() / 6)


def test_mt_15_no_weights_fold_a_tet_or_open_the_surface():
    made, field = networks(stirred=30.0), networks().encode(box_points())
    for size in (1.0, 1e4):
        with torch.no_grad():
            for graph in made.graphs:
                graph.head.weight.mul_(size)
                graph.head.weight[3:4] /= 30 * size  # the SDF itself may not lose its surface
        shape = of_box()
        refined = made.refine(0, field, shape)
        assert refined.offsets.norm(dim=1).max() > 0.1
        assert (refined.vertices - shape.vertices).norm(dim=1).max() < shape.grid.spacing / (2 * math.sqrt(3))
        assert determinants(refined.vertices, shape.grid.tets).min() > 0
        fine = made.refine(1, field, subdivide(refined))
        assert determinants(fine.vertices, fine.grid.tets).min() > 0
        vertices, faces = made.finish(field, fine)
        assert is_watertight_manifold(vertices, faces)


def test_mt_15_an_offset_beyond_the_bound_folds_a_tet():
    """The control: .30 of the spacing, against the altitude of a tet from both of its ends."""
    grid = TetGrid.kuhn(3, 0.0, 3.0, dtype=torch.float64)
    worst = 1.0
    for tet in grid.tets[:200]:
        v = grid.vertices[tet]
        for one, rest in ((0, (1, 2, 3)), (3, (0, 1, 2))):
            n = torch.linalg.cross(v[rest[1]] - v[rest[0]], v[rest[2]] - v[rest[0]])
            n = n / n.norm() * torch.sign((v[one] - v[rest[0]]) @ n)
            moved = v + 0.3 * n
            moved[one] = v[one] - 0.3 * n
            worst = min(worst, float(determinants(moved, torch.arange(4)[None])[0]))
        opposite = torch.linalg.cross(v[2] - v[0], v[3] - v[1])
        opposite = opposite / opposite.norm() * torch.sign((v[1] - v[0]) @ opposite)
        moved = v + 0.3 * opposite * torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)[:, None]
        worst = min(worst, float(determinants(moved, torch.arange(4)[None])[0]))
    assert worst < 0


@pytest.mark.parametrize("early", [True, False])
def test_mt_16_gradients_through_refinement_and_both_subdivisions(early):
    """Against central differences in float64, of the heads' weights along a random direction; the topology stays. Spacing and reach of a
    refined grid are taken as numbers: the first head is moved while later ones, which they scale, are zeros, and then the later ones."""
    made = networks(stirred=0.05).double()
    read = made.encode.read
    wave = noise(3, read, dtype=torch.float64)
    field = Field(torch.zeros(0, 1, 1, 1).double(), torch.ones(3).double(), lambda x: ((x @ wave).sin(), x.norm(dim=1)))
    grid = TetGrid.kuhn(7, -0.55, 0.55, dtype=torch.float64)
    s = grid.hold(box_distance(grid.vertices.float()).double())
    shape = Volumetric(grid, grid.vertices, s, noise(len(s), 4, dtype=torch.float64), grid.vertices[:0])
    later = [made.graphs[1].head.weight, made.mesh.head.weight]
    with torch.no_grad():
        for graph in made.graphs:
            graph.head.weight[3] *= 0.01  # signs stay as they are
        for p in later if early else []:
            p.zero_()
    probe = [made.graphs[0].head.weight] if early else later
    along = [noise(*p.shape, seed=k, dtype=torch.float64) for k, p in enumerate(probe)]

    def value() -> Tensor:
        vertices, _ = made.finish(field, made.refine(1, field, subdivide(made.refine(0, field, shape))))
        return (vertices.square() * torch.linspace(0.5, 1.5, len(vertices), dtype=torch.float64)[:, None]).mean()

    value().backward()
    slope = sum(float((p.grad * a).sum()) for p, a in zip(probe, along, strict=True))
    step, ends = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, a in zip(probe, along, strict=True):
                p += sign * step * a
            ends.append(float(value()))
            for p, a in zip(probe, along, strict=True):
                p -= sign * step * a
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5) and abs(slope) > 1e-6  # rounding, over the step


def test_mt_17_voxels_begin_as_what_is_full_and_a_mirrored_box_does_not_fit():
    full = box_voxels()
    told, before = padded(full)
    assert told.shape == (20, 20, 20) and (before == RIM).all() and torch.equal(told[2:18, 2:18, 2:18], full)
    field = networks("voxels").encode(told)
    at = ((torch.arange(20) + 0.5) / 20 - 0.5) * 20 * UNIT
    centres = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).reshape(-1, 3)
    _, base = field.near(centres)
    assert torch.equal(base < 0, told.reshape(-1))
    x = noise(4000, 3, seed=3) * 0.25
    _, base = field.near(x)
    assert ((base < 0) == (box_distance(x) < 0)).float()[box_distance(x).abs() > UNIT].all()
    assert (base - box_distance(x)).abs()[box_distance(x).abs() < UNIT].max() < 1.2 * UNIT  # voxels know their border to about one
    mirrored = x * torch.tensor([-1.0, 1, 1])
    assert ((base < 0) != (box_distance(mirrored) < 0))[box_distance(mirrored).abs() > UNIT].any()


def test_mt_17_planes_of_points_and_their_frame():
    x = box_points(4000) * 0.9
    told, normals, height = planes(x)
    assert told.shape == (4000, 13) and torch.allclose(normals.norm(dim=1), torch.ones(4000), atol=1e-5)
    inner = ((x / 0.9 - LOW).abs() > 0.08).sum(1) + ((HIGH - x / 0.9).abs() > 0.08).sum(1) == 5  # on one face, off its edges
    assert inner.sum() > 500 and (normals[inner].abs().amax(1) > 0.999).all() and height[inner].abs().max() < 1e-5
    middle, size = framed((x * 3 + torch.tensor([5.0, -2, 1])).double().numpy())
    y = ((x * 3 + torch.tensor([5.0, -2, 1])).double().numpy() - middle) * size
    assert np.allclose(y.min(0), -y.max(0)) and np.ptp(y, axis=0).max() == pytest.approx(1) and HALF > 0.5


def test_mt_17_what_is_shut_in():
    shell = np.zeros((12, 12, 12), bool)
    shell[2:10, 2:10, 2:10] = True
    shell[3:9, 3:9, 3:9] = False
    made = shut_in(shell)
    assert made[:6, 5, 5, 5].all() and made[6, 5, 5, 5] == 1 and made[6, 0, 0, 0] == 0 and made[7, 5, 5, 5] > 0
    shell[4:8, 4:8, 2] = False  # a door four cells wide: air comes in, and one side of six is open
    opened = shut_in(shell)
    assert opened[6, 5, 5, 5] == 0 and opened[:6, 5, 5, 5].sum() == 5
    assert shut_in(np.zeros((4, 4, 4), bool))[:7].sum() == 0


def test_the_first_distance_of_points_is_exact_where_the_outside_is_known():
    """A point branch that is told to call `x - middle` outward makes the box's SDF near its faces; inward, its negative."""
    encoder, x = PointEncoder((4, 8, 8)), box_points(3000)
    middle = (LOW + HIGH) / 2

    class Known(torch.nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign = sign

        def forward(self, told: Tensor) -> Tensor:
            return torch.cat([self.sign * (x - middle), torch.zeros(len(told), 2 + 8)], 1)

    y = middle + (HIGH - LOW) * torch.tensor([[0.5, 0.1, -0.1], [-0.55, 0.1, 0.1], [0.1, 0.52, 0.2], [0.1, -0.1, 0.45]])
    for sign in (1.0, -1.0):
        encoder.branch = Known(sign)
        _, base = encoder(x).near(y)
        torch.testing.assert_close(base, sign * box_distance(y), rtol=0, atol=6e-3)  # outward leans on the branch by a tenth


def test_too_few_voxels_have_no_surface_and_folders_are_read_back(tmp_path):
    made = networks("voxels")
    with torch.no_grad():
        made.mlp[-1].bias[0] = 9.0  # outside everywhere
        field = made.encode(padded(box_voxels())[0])
        with pytest.raises(EmptySurface, match="no surface"):
            made(field, grid_of(field.half, 0.1))
    save(made, tmp_path / "weights")
    again = load(tmp_path / "weights")
    assert again.config == made.config
    x = noise(50, 3) * 0.3
    torch.testing.assert_close(again.distance(again.encode(padded(box_voxels())[0]), x)[0], made.distance(field, x)[0], rtol=0, atol=0.02)
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_mt_19_the_surface_is_that_of_its_parts():
    """`forward` is refine, subdivide, refine, finish; the first surface is marching's."""
    made = networks("voxels", stirred=0.02)
    field = made.encode(padded(box_voxels())[0])
    grid = grid_of(field.half, 0.08)
    first = made.predict(field, grid)
    vertices, faces, _ = marching_tetrahedra(grid.vertices, first.sdf, grid)
    assert torch.equal(first.surface()[0], vertices) and torch.equal(first.surface()[1], faces)
    got, got_faces = made(field, grid)
    expected, expected_faces = made.finish(field, made.refine(1, field, subdivide(made.refine(0, field, first))))
    assert torch.equal(got, expected) and torch.equal(got_faces, expected_faces)
    assert is_watertight_manifold(got, got_faces)
