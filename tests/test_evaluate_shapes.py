# SPDX-License-Identifier: Apache-2.0
"""What DMTet's networks are measured against: the voxels' own surface, marching, and scores of surfaces that are known."""

from __future__ import annotations

import pytest
import torch

from bozzetto.evaluate.shapes import POINTS, alone_way, blocks, marched, networks_way, scores_of
from bozzetto.priors.point_voxel import UNIT, padded
from bozzetto.render.clean import is_watertight_manifold
from tests.test_dmtet_networks import HIGH, LOW, box_distance, box_voxels, networks
from tests.test_loop import icosphere


def volume(vertices, faces) -> float:
    a, b, c = vertices[faces].double().unbind(1)
    return float((torch.linalg.cross(a, b) * c).sum() / 6)


def test_blocks_are_the_voxels_and_look_outwards():
    full = padded(box_voxels())[0]
    vertices, faces = blocks(full)
    assert volume(vertices, faces) == pytest.approx(float(full.sum()) * UNIT**3)
    at = full.nonzero()
    assert torch.allclose(vertices.amin(0), (at.amin(0) - 10) * UNIT) and torch.allclose(vertices.amax(0), (at.amax(0) + 1 - 10) * UNIT)
    assert len(faces) == 2 * sum(int((full.int().diff(dim=k) != 0).sum()) for k in range(3))


def test_marched_voxels_are_closed_and_of_their_frame():
    full = padded(box_voxels())[0]
    vertices, faces = marched(full)
    assert is_watertight_manifold(vertices, faces)
    # half a voxel about the box, and its edges cut off
    assert box_distance(vertices).abs().max() < UNIT and volume(vertices, faces) == pytest.approx(float((HIGH - LOW).prod()), rel=0.25)
    mirrored = vertices * torch.tensor([-1.0, 1, 1])
    assert box_distance(mirrored).abs().max() > 2 * UNIT


def test_scores_of_spheres_one_in_the_other():
    v, f = icosphere(3)
    g = torch.Generator().manual_seed(0)
    on = torch.nn.functional.normalize(torch.randn(POINTS, 3, generator=g, dtype=torch.float64), dim=1).numpy()
    same, larger = scores_of((v, f), on, on, 0), scores_of((1.1 * v, f), on, on, 0)
    assert same["chamfer"] < 0.02 < larger["chamfer"] == pytest.approx(0.1, abs=5e-3)  # a sampling floor of .014, in squares
    assert same["closed"] == 1 and same["normals"] > 0.99
    assert scores_of((v, f[1:]), on, on, 0)["closed"] == 0
    assert scores_of((v[:0], f[:0]), on, on, 0) == {"chamfer": 1.0, "normals": 0.0, "closed": 0.0}


def test_ways_answer_in_the_frame_that_they_are_asked_in():
    made = networks("voxels")
    with torch.no_grad():
        made.mlp[-1].weight.zero_()
        made.mlp[-1].bias.zero_()
    given = padded(box_voxels())[0]
    for way in (networks_way(made, 14), alone_way(made, 14)):
        vertices, _ = way(given)
        assert (vertices.amin(0) - LOW).abs().max() < UNIT and (vertices.amax(0) - HIGH).abs().max() < UNIT
