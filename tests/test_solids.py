# SPDX-License-Identifier: Apache-2.0
"""What DMTet's networks are trained on: distances, points, voxels and normals of an object off the centre; sample i is a function of i;
one object is learnt by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from bozzetto.data.objects import pack
from bozzetto.data.renders import EXTENT, GRID, Carved, drawable
from bozzetto.evaluate.metrics import bare
from bozzetto.priors.cost_volume import read_volume
from bozzetto.priors.dmtet import DMTetConfig, DMTetNetworks
from bozzetto.priors.point_voxel import UNIT
from bozzetto.training.dmtet_networks import Asked, loss, score
from bozzetto.training.scenes import STEP, Known, Placed
from bozzetto.training.solids import SIDE, Solids, distance, flipped, solid_sample, surface, voxelised
from bozzetto_objects import make

LOW, HIGH = np.array([-0.3, -0.5, -0.2]), np.array([0.4, 0.1, 0.3])


def box_distance(x: np.ndarray) -> np.ndarray:
    """Closed form."""
    q = np.maximum(LOW - x, x - HIGH)
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def known_box(points: int = 4096) -> Known:
    """Its triangles; its cells, grown by half a cell as carving leaves them; points all over it."""
    corner = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    d = bare(LOW + corner * (HIGH - LOW), faces)
    at = (np.arange(GRID) + 0.5) * STEP - EXTENT
    x = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1)
    inside = (box_distance(x.reshape(-1, 3)) < STEP / 2).reshape(GRID, GRID, GRID).astype(np.uint8)
    rng = np.random.default_rng(0)
    v = d.vertices[d.faces]
    area = np.linalg.norm(np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]), axis=1)
    face = rng.choice(len(faces), points, p=area / area.sum()).astype(np.int32)
    bary = rng.dirichlet(np.ones(3), points)[:, :2].astype(np.float32)
    return Known.of(d, Carved(inside, face, bary))


@pytest.fixture(scope="module")
def box():
    return known_box()


def test_normals_look_away_from_the_solid_and_sheets_have_none(box):
    on, normals, thick = surface(box)
    assert thick.all() and np.abs(box_distance(on)).max() < 1e-6
    assert (box_distance(on + 0.01 * normals) > 0.009).all()  # whichever way the triangles are wound
    thin = Known(box.drawable, box.inside * 0, box.rims, box.face, box.bary)
    assert not surface(thin)[2].any()


def test_distances_are_the_boxs_to_the_width_of_its_sampling(box):
    placed = Placed(np.full(3, 0.8), np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]), np.array([0.02, -0.01, 0.03]))
    on, normals, thick = surface(box)
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (3000, 3))
    away = distance(box, placed, placed(x), placed(on), normals @ placed.turn.T, thick)
    truth = 0.8 * box_distance(x)
    error = np.abs(away - truth)
    near = np.abs(truth) < 0.02
    assert error.max() < 2 * 0.8 * STEP and np.median(error[near]) < 1e-6  # near a face its plane is exact, but round edges
    assert ((away < 0) == (truth < 0)).mean() > 0.998
    mirrored = distance(box, placed, placed(x * [1, -1, 1]), placed(on), normals @ placed.turn.T, thick)
    assert np.abs(mirrored - truth).max() > 0.1


@pytest.mark.parametrize("reads", ["points", "voxels"])
def test_given_and_truth_are_of_one_frame(box, reads):
    for seed in range(4):
        made = solid_sample(box, reads, np.random.default_rng(seed), count=1200, noise=0.003)
        x, away, on = made["places"].numpy(), made["distance"].numpy(), made["on"].numpy()
        u, i = cKDTree(on).query(x)
        assert np.median(np.abs(np.abs(away) - u)[u < 0.1]) < 0.01
        side = ((x - on[i]) * made["normals"].numpy()[i]).sum(1)
        assert ((side > 0) == (away > 0))[(u < 0.03) & (u > 0.004)].mean() > 0.98
        if reads == "points":
            given = made["given"].numpy()
            assert given.shape == (1200, 3) and np.allclose(given.min(0), -given.max(0), atol=1e-6)
            assert np.ptp(given, axis=0).max() == pytest.approx(1) and cKDTree(on).query(given)[0].max() < 0.03
            # a box is its own mirror image: the control is the normals
            assert ((side < 0) == (away > 0))[(u < 0.03) & (u > 0.004)].mean() < 0.02
        else:
            half = torch.tensor(made["given"].shape) * UNIT / 2
            full = read_volume(made["given"].permute(2, 1, 0)[None].float(), half, made["places"])[:, 0].numpy()
            assert (full[away < -0.02] > 0.4).all() and (full[away > 2 * UNIT] == 0).all()
            turned = read_volume(made["given"][None].float(), half, made["places"])[:, 0].numpy()  # the control: axes swapped
            assert (turned[away < -0.02] < 0.4).any()


def test_a_volume_turns_as_places_do():
    x = np.random.default_rng(0).random((3, 4, 5)) > 0.5
    order, sign = np.array([2, 0, 1]), np.array([1, -1, 1])
    made = flipped(x, order, sign)
    assert made.shape == (5, 3, 4)
    for i, j, k in np.ndindex(made.shape):
        old = np.empty(3, int)
        old[order] = [i, 3 - 1 - j, k]
        assert made[i, j, k] == x[tuple(old)]


def test_a_voxel_is_full_where_anything_reaches_into_it(box):
    size = SIDE * UNIT
    placed = Placed(np.full(3, size), np.eye(3), -size * (LOW + HIGH) / 2 * 0)
    full = voxelised(box, placed)
    at = ((np.arange(SIDE) + 0.5) / SIDE - 0.5) * SIDE * UNIT
    x = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1).reshape(-1, 3) / size
    q = np.maximum(LOW - x, x - HIGH).max(1).reshape(full.shape)  # from the middle of each to the box, by its largest axis
    half = UNIT / 2 / size
    assert full[q < half - 0.02].all() and not full[q > half + 0.02].any()


def test_sample_i_is_a_function_of_i_and_surfaces_are_judged_from_a_sample_on(tmp_path):
    pack([make("mug", 3), make("stool", 4)], tmp_path)
    one, other = (Solids(tmp_path, "points", seed=5, batch=2, procedural=0.0, from_sample=2) for _ in range(2))
    first = one[1]
    assert other[0]["given"].shape == first["given"].shape  # of one batch
    again = other[1]
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(Solids(tmp_path, "points", seed=6, batch=2, procedural=0.0, from_sample=2)[1]["places"], first["places"])
    assert first["surface"] == 0 and one[2]["surface"] == 1


def learnt(box: Known, reads: str, steps: int, config: DMTetConfig) -> tuple[dict[str, float], dict[str, float], list[float]]:
    """Scores before and after so many steps on one sample, and the losses."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Asked(DMTetNetworks(config))
    row = solid_sample(box, reads, np.random.default_rng(0), count=1000, augment=False)
    row |= {"surface": torch.tensor(0.0), "seed": torch.tensor(3)}
    groups = {"box": [row]}
    before, losses = score(network.networks, groups), []
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for k in range(steps):
        batch = {name: v[None] for name, v in (row | {"surface": torch.tensor(float(k >= steps - 4))}).items()}
        total, parts = loss(network, batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(parts["near"].detach()))
    assert {"cd", "n", "def", "G", "D"} <= set(parts)
    return before, score(network.networks, groups), losses


def test_voxels_of_one_object_are_learnt_by_heart(box):
    config = DMTetConfig(reads="voxels", widths=(4, 8, 8), neurons=16, features=4, graph=8)
    before, after, losses = learnt(box, "voxels", 24, config)
    assert losses[-1] < 0.6 * losses[0] and after["box_chamfer"] < 0.9 * before["box_chamfer"]


@pytest.mark.slow
def test_points_of_one_object_are_learnt_by_heart(box):
    config = DMTetConfig(widths=(4, 8, 8), neurons=16, features=4, graph=8)
    before, after, losses = learnt(box, "points", 60, config)
    assert losses[-1] < 0.25 * losses[0] and after["box_chamfer"] < 0.02 < before["box_chamfer"]  # of which .0097 is sampling


def test_procedural_objects_have_a_solid():
    from bozzetto.data.renders import carve_object

    d = drawable(make("mug", 3))
    made = solid_sample(Known.of(d, carve_object(d)), "points", np.random.default_rng(0), count=500)
    assert 0.02 < float((made["distance"] < 0).float().mean()) < 0.8 and made["thick"].float().mean() > 0.3
