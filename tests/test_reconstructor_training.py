# SPDX-License-Identifier: Apache-2.0
"""What a reconstructor is trained on: distances of a box off the centre, cameras, looks; sample i is a function of i; the loss falls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bozzetto.data.objects import Object, pack
from bozzetto.data.renders import EXTENT, GRID, Carved, drawable
from bozzetto.priors.reconstructor import Reconstructor, ReconstructorConfig
from bozzetto.training.reconstructor import MEAN_ALONE, Asked, loss, posed_of, score
from bozzetto.training.scenes import BY_SET, STEP, USES, Known, Placed, Scenes, cameras, looks, scene, spoilt
from bozzetto_objects import make

SMALL = ReconstructorConfig(features=4, cells=8, widths=(8, 8, 8), neurons=16)
LOW, HIGH = np.array([-0.3, -0.5, -0.2]), np.array([0.4, 0.1, 0.3])


def box_distance(x: np.ndarray) -> np.ndarray:
    """Of the box from LOW to HIGH, closed form."""
    q = np.maximum(LOW - x, x - HIGH)
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def known_box() -> Known:
    """Its cells alone."""
    at = (np.arange(GRID) + 0.5) * STEP - EXTENT
    x = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1)
    inside = ((x > LOW) & (x < HIGH)).all(-1).astype(np.uint8)
    d = drawable(make("mug", 0))
    return Known.of(d, Carved(inside, np.zeros(1, np.int32), np.full((1, 2), 0.3, np.float32)))


def test_distances_are_those_of_the_box_wherever_it_stands():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 3))
    c, s = math.cos(0.7), math.sin(0.7)
    there = Placed(np.array([0.9, -0.9, 0.9]), np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.array([0.02, -0.01, 0.03]))
    assert np.allclose(there.back(there(x)), x)
    found = known_box().distance(there(x), there)
    assert np.abs(found - 0.9 * box_distance(x)).max() < 1.5 * STEP  # cells: half a cell of the border, and a diagonal of what is left
    assert (np.sign(found) == np.sign(box_distance(x)))[np.abs(box_distance(x)) > STEP].all()
    mirrored = Placed(there.stretch * [1, -1, 1], there.turn, there.shift)
    assert np.abs(known_box().distance(there(x), mirrored) - 0.9 * box_distance(x)).max() > 0.1


def test_told_cameras_are_the_true_ones_unless_something_is_spoilt():
    for seed in range(4):
        true, told = cameras(np.random.default_rng(seed), 8, 64, augment=False)
        assert torch.equal(true.c2w, told.c2w)
        elevation = torch.rad2deg((true.position[:, 2] / true.position.norm(dim=1)).asin())
        assert len(elevation.round().unique()) == 2 and float(elevation.max() - elevation.min()) == pytest.approx(30)
    off = [float((a.position - b.position).norm(dim=1).max()) for a, b in (cameras(np.random.default_rng(k), 6, 64) for k in range(30))]
    assert 5 < sum(x > 1e-9 for x in off) < 20 and max(off) < 0.4


def test_pictures_are_spoilt_one_by_one():
    rgba = torch.zeros(10, 4, 32, 32)
    rgba[:, :, 8:24, 10:20] = torch.tensor([0.4, 0.2, 0.6, 1.0])[:, None, None]
    made = spoilt(rgba, np.random.default_rng(0))
    changed = (made - rgba).abs().amax((1, 2, 3)) > 0.01
    assert 2 <= changed.sum() <= 9
    assert (made[:, :3] <= made[:, 3:] + 1e-6).all() and made.min() >= 0


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    objects: list[Object] = [make("mug", 3), make("stool", 4)]
    pack(objects, folder)
    return folder


def test_sample_i_is_a_function_of_i(packed):
    one, other = (Scenes(packed, seed=5, batch=2, procedural=0.0) for _ in range(2))
    first = one[1]
    assert other[0]["rgba"].shape == first["rgba"].shape  # of one batch
    again = other[1]
    assert all(torch.equal(first[k], again[k]) for k in first)
    later = one[1 + 64]  # the same scene, other points
    assert not torch.equal(later["points"], first["points"]) and torch.equal(later["on"], first["on"])
    assert len(one.drawn[1]["points"]) == USES
    assert not torch.equal(Scenes(packed, seed=6, batch=2, procedural=0.0)[1]["points"], first["points"])
    seen, on = first["seen"], first["on"]
    assert seen.shape == (len(first["rgba"]), len(on)) and (seen.amax(0) > 0).float().mean() > 0.5
    # where a view sees a point, its picture is opaque there
    posed = posed_of({k: v[None] for k, v in first.items()}, 0)
    pixels, _ = posed.cameras.project(on)
    for v in range(len(seen)):
        at = pixels[v][seen[v] > 0.3].long()
        assert len(at) < 5 or (first["rgba"][v, 3][at[:, 1], at[:, 0]] > 0.5).float().mean() > 0.8


def test_it_learns_and_its_scores_begin_at_the_hulls(packed):
    scenes = Scenes(packed, seed=0, batch=2, procedural=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 — layers draw their initial weights from the global state
        network = Asked(Reconstructor(SMALL))
    known = scenes._prepared(make("mug", 3))
    made = scene(known, np.random.default_rng(0), views=8, augment=False)
    group = {"mug": [made | {k: made[k][0] for k in BY_SET}]}
    before = score(network.network, group)
    assert before["mug_iou"] == before["mug_hull"] == before["mug_mean_alone"] and 0.3 < before["mug_hull"] < 1
    batch = {k: torch.stack([scenes[0][k], scenes[1][k]]) for k in scenes[0]}
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(24):
        total, parts = loss(network, batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.9 * losses[0] and set(parts) == {"total", "near", "cross", "colour", "sparse"}
    assert 0 < MEAN_ALONE < 1


def test_looks_know_what_is_hidden():
    true, _ = cameras(np.random.default_rng(1), 8, 64, augment=False)
    depth, alpha = torch.full((8, 64, 64), float(true.position[0].norm())), torch.ones(8, 64, 64)  # a wall through the centre, for each
    toward = true.position[0].float() / true.position[0].norm().float()
    seen = looks(torch.stack([0.05 * toward, -0.1 * toward]), toward[None].expand(2, 3), depth, alpha, true)
    assert float(seen[0, 0]) > 0.9 and float(seen[0, 1]) == 0  # before it, and behind it
