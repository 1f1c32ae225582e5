# SPDX-License-Identifier: Apache-2.0
"""Mesh operations: normals, welding, the watertight predicate, floaters, decimation, smoothing."""

import numpy as np
import pytest
import torch
import trimesh

from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render.clean import decimate, is_watertight_manifold, remove_floaters, taubin


def of(t: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(np.asarray(t.vertices), dtype=torch.float32), torch.tensor(np.asarray(t.faces), dtype=torch.int64))


def joined(*meshes: Mesh) -> Mesh:
    start = np.cumsum([0] + [len(m.vertices) for m in meshes])
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat([m.faces + int(s) for m, s in zip(meshes, start, strict=False)]))


def moved(mesh: Mesh, x: float, scale: float = 1.0) -> Mesh:
    return Mesh(mesh.vertices * scale + torch.tensor([x, 0.0, 0.0]), mesh.faces)


def flipped(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces.flip(1))


def sphere(subdivisions: int = 3, radius: float = 0.5) -> Mesh:
    return of(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))


def torus() -> Mesh:
    return of(trimesh.creation.torus(0.35, 0.12, major_sections=60, minor_sections=30))


def capsule() -> Mesh:
    return of(trimesh.creation.capsule(height=0.5, radius=0.15, count=[24, 24]))


def bumpy(subdivisions: int = 5) -> Mesh:
    """A star-shaped surface with bumps all over and noise at every vertex, 20 480 faces."""
    ball = sphere(subdivisions, 1.0)
    p = ball.vertices.double()
    r = 0.4 + 0.04 * torch.sin(9 * p[:, 0] + 1) * torch.sin(11 * p[:, 1]) * torch.sin(7 * p[:, 2] + 2)
    r = r + 0.001 * torch.randn(len(p), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Mesh((p * r[:, None]).float(), ball.faces)


def volume(mesh: Mesh) -> float:
    q = mesh.vertices.double()[mesh.faces]
    return float((q[:, 0] * torch.linalg.cross(q[:, 1], q[:, 2])).sum() / 6)


def euler(mesh: Mesh) -> int:
    return len(mesh.vertices) - len(mesh.faces) // 2  # V - E + F with E = 3 F / 2


TETRAHEDRON = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
SURFACES = {"sphere": sphere, "torus": torus, "bumpy": bumpy, "capsules": lambda: joined(moved(capsule(), -0.3), moved(capsule(), 0.3))}


def solid(mesh: Mesh) -> bool:
    return is_watertight_manifold(mesh.vertices, mesh.faces)


@pytest.mark.parametrize("name", SURFACES)
def test_watertight_accepts_closed_surfaces_and_nothing_less(name):
    mesh = SURFACES[name]()
    assert solid(mesh)
    assert not solid(flipped(mesh))  # looks inwards
    assert not solid(Mesh(mesh.vertices, mesh.faces[1:]))  # open
    assert not solid(Mesh(mesh.vertices, torch.cat([mesh.faces, mesh.faces[:1]])))  # a face twice
    assert not solid(Mesh(mesh.vertices, torch.cat([mesh.faces[:1].flip(1), mesh.faces[1:]])))  # one face turned
    assert not solid(Mesh(torch.cat([mesh.vertices, torch.zeros(1, 3)]), mesh.faces))  # a vertex of nothing
    assert not solid(Mesh(mesh.vertices.index_fill(0, torch.tensor([3]), float("nan")), mesh.faces))
    assert not solid(Mesh(mesh.vertices, torch.cat([mesh.faces, mesh.faces[:1], mesh.faces[:1].flip(1)])))  # a flat flap: edges pair up
    assert not solid(Mesh(mesh.vertices, mesh.faces[:0]))


def test_watertight_sees_two_cones_that_meet_in_a_point():
    """Edges pair up there; only the fans tell."""
    other = Mesh(-TETRAHEDRON.vertices, TETRAHEDRON.faces.flip(1))
    faces = torch.cat([TETRAHEDRON.faces, torch.tensor([0, 4, 5, 6])[other.faces]])  # both have their vertex 0 at the origin
    touching = Mesh(torch.cat([TETRAHEDRON.vertices, other.vertices[1:]]), faces)
    assert not solid(touching)
    apart = torch.cat([TETRAHEDRON.faces, 4 + other.faces])
    assert solid(Mesh(torch.cat([TETRAHEDRON.vertices, other.vertices]), apart))  # the control: a vertex for each cone


def test_normals_of_a_box_do_not_depend_on_its_diagonals():
    """Weighted by angle, each corner of a cube has (1, 1, 1) / sqrt 3 whichever way its squares are cut; by area it has not."""
    box = trimesh.creation.box()
    mesh = Mesh(torch.tensor(np.asarray(box.vertices)), torch.tensor(np.asarray(box.faces), dtype=torch.int64))
    torch.testing.assert_close(vertex_normals(mesh.vertices, mesh.faces), mesh.vertices.sign() / 3**0.5, rtol=0, atol=1e-15)
    cross = np.cross(
        box.vertices[box.faces][:, 1] - box.vertices[box.faces][:, 0], box.vertices[box.faces][:, 2] - box.vertices[box.faces][:, 0]
    )
    by_area = np.stack([np.bincount(box.faces.ravel(), np.repeat(cross[:, k], 3)) for k in range(3)], 1)
    assert not np.allclose(by_area / np.linalg.norm(by_area, axis=1, keepdims=True), np.sign(box.vertices) / 3**0.5, atol=1e-2)
    assert (vertex_normals(-mesh.vertices, mesh.faces.flip(1)) * mesh.vertices).sum() < 0  # outward again: -p


def test_normals_where_there_is_no_surface_are_unit_and_finite():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]])
    torch.testing.assert_close(vertex_normals(vertices, torch.tensor([[0, 1, 2]])), torch.tensor([[0.0, 0, 1]]).expand(4, 3))


def test_floaters_and_cavities_go_and_separate_parts_stay():
    body, leg = moved(sphere(4), 0.0), moved(sphere(2, 0.2), 0.9)  # 5120 and 320 faces
    crumb, cavity = moved(sphere(0, 0.02), -0.9), flipped(sphere(3, 0.3))  # 20 faces, below a hundredth; 1280
    stone, guest = moved(sphere(3, 0.1), 0.0), moved(sphere(3, 0.1), 0.55)  # in the cavity; a guest pokes out of the body
    cleaned = remove_floaters(joined(body, leg, crumb, cavity, stone, guest))
    expected = joined(body, leg, guest)
    assert torch.equal(cleaned.vertices, expected.vertices) and torch.equal(cleaned.faces, expected.faces)
    assert len(remove_floaters(joined(body, leg), fraction=0.1).faces) == len(body.faces)
    ring = torus()  # the ball in its hole is inside its box, not inside it
    assert len(remove_floaters(joined(ring, sphere(2, 0.1))).faces) == len(ring.faces) + 320


def test_the_largest_part_stays_whatever_it_is():
    inverted = flipped(sphere(2))
    assert torch.equal(remove_floaters(inverted).faces, inverted.faces)
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert len(remove_floaters(empty).faces) == 0


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("target", [1000, 101, 30])
def test_decimation_keeps_a_solid_a_solid(name, target):
    mesh = SURFACES[name]()
    small = decimate(mesh, target)
    assert solid(small) and target - 2 < len(small.faces) <= target
    assert euler(small) == euler(mesh)  # the torus keeps its hole, the capsules stay two
    q = small.vertices.double()[small.faces]
    area = torch.linalg.cross(q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]).norm(dim=1)
    longest = (q - q.roll(1, dims=1)).norm(dim=-1).amax(1)
    assert (area > 1e-7 * longest**2).all()  # none degenerate, as float32 tells
    if target == 1000:
        assert volume(small) == pytest.approx(volume(mesh), rel=0.01)
        again = decimate(mesh, target)
        assert torch.equal(small.vertices, again.vertices) and torch.equal(small.faces, again.faces)


def test_decimation_error_falls_like_the_face_count():
    """A smooth surface's distance to its approximation is of second order in edge length, so of first in 1 / faces."""
    mesh = sphere(6)  # 81 920
    error = [float((decimate(mesh, n).vertices.double().norm(dim=1) - 0.5).abs().max()) for n in (800, 3200)]
    assert error[1] < error[0] / 2.5 < 0.5 * 0.02


def test_decimation_goes_as_far_as_the_surface_allows_and_says_so():
    assert 14 <= len(decimate(torus(), 4).faces) <= 40 and solid(decimate(torus(), 4))
    two = joined(sphere(2), moved(sphere(2), 2.0))
    assert len(decimate(two, 4).faces) == 8 and solid(decimate(two, 4))
    assert torch.equal(decimate(TETRAHEDRON, 4).faces, TETRAHEDRON.faces)
    with pytest.raises(ValueError, match="at least 4"):
        decimate(two, 3)


def test_decimation_leaves_open_borders_alone():
    mesh = sphere(4)
    open_ = Mesh(mesh.vertices, mesh.faces[(mesh.vertices[mesh.faces][:, :, 2] < 0.2).all(1)])

    def border(m: Mesh) -> set[tuple[float, ...]]:
        a = torch.cat([m.faces, m.faces.roll(-1, 1)], 0)
        edges = torch.stack([m.faces.reshape(-1), m.faces.roll(-1, 1).reshape(-1)], 1).sort(1).values
        unique, count = edges.unique(dim=0, return_counts=True)
        assert len(a) and (count <= 2).all()
        return {tuple(p) for p in m.vertices[unique[count == 1].reshape(-1)].tolist()}

    small = decimate(open_, 1500)
    assert len(small.faces) <= 1500 and border(small) == border(open_)


def test_taubin_multiplies_a_mode_by_its_transfer_function():
    """Each vertex of an octahedron has neighbours that sum to 0: a mode of frequency 1, so (1 - 0.5)(1 + 0.53) a round."""
    octahedron = Mesh(
        torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64),
        torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]),
    )
    assert solid(octahedron)
    for n in (0, 1, 3):
        torch.testing.assert_close(
            taubin(octahedron.vertices, octahedron.faces, n), octahedron.vertices * (0.5 * 1.53) ** n, rtol=1e-14, atol=0
        )


def test_taubin_removes_noise_and_keeps_volume():
    ball = sphere(4)
    noise = 0.005 * torch.randn(len(ball.vertices), 1, generator=torch.Generator().manual_seed(1))
    rough = ball.vertices * (1 + noise)
    smooth = taubin(rough, ball.faces, 10)
    assert smooth.dtype == torch.float32
    assert smooth.norm(dim=1).std() < 0.4 * rough.norm(dim=1).std()
    most = 1 + 0.03**2 / (4 * 0.5 * 0.53)  # the transfer function's maximum, a round, on lengths
    assert 0.999 < volume(Mesh(smooth, ball.faces)) / volume(Mesh(rough, ball.faces)) < most**30
