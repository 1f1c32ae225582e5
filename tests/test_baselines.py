# SPDX-License-Identifier: Apache-2.0
"""Baselines against solids that are known, the bank, and the report's arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from bozzetto.camera import Camera
from bozzetto.data.objects import Packed, pack
from bozzetto.data.renders import crop_camera, drawable
from bozzetto.errors import InputError
from bozzetto.evaluate import baselines, lifting, report
from bozzetto.evaluate.baselines import bank, copied, extruded, inflated, judge, training_objects
from bozzetto.evaluate.metrics import bare, solid
from bozzetto.evaluate.shots import drawn, moved, novel_cameras, shoot, triangles
from bozzetto.frustum import Frustum
from bozzetto.mesh import Mesh
from bozzetto_objects import HELD_OUT_FAMILIES, make

SIZE = 256


def disc(radius: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """A red disc, in widths of the picture; the crop's margin is 0.1, so radius 0.4 is the crop itself."""
    x = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
    alpha = ((x[:, None].square() + x.square()).sqrt() < radius).float()
    rgb = torch.zeros(SIZE, SIZE, 3)
    rgb[..., 0] = 1
    return rgb, alpha


def in_frustum(mesh: Mesh, p: float) -> np.ndarray:
    frustum = Frustum.of(0.0, math.radians(baselines.ELEVATION_DEG), p, SIZE)
    return frustum.coordinates(mesh.vertices.double()).numpy()


def is_closed(faces: np.ndarray) -> bool:
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    forth, back = (edges[:, 0] << 32) | edges[:, 1], (edges[:, 1] << 32) | edges[:, 0]
    return bool((np.sort(forth) == np.sort(back)).all())


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((torch.linalg.cross(a, b) * c).sum() / 6)


@pytest.mark.parametrize(("power", "k"), [(0.5, 0.6), (1.0, 1.0)])
def test_an_inflated_disc_has_the_depth_it_was_asked_for(power, k):
    mesh = inflated(*disc(), k=k, power=power, p=0.4).model
    assert isinstance(mesh, Mesh)
    u, v, t = in_frustum(mesh, 0.4).T
    cell = 0.8 / baselines.CELLS
    distance = 0.4 - np.hypot(u - 0.5, v - 0.5)
    on_top = distance > 3 * cell  # near the rim the profile is too steep for the grid
    expected = k * distance[on_top] ** power
    np.testing.assert_allclose(np.abs(t[on_top]), expected, atol=1.5 * cell)
    assert np.abs(t).max() == pytest.approx(k * 0.4**power, abs=2 * cell)
    assert distance.min() > -1.5 * cell  # the outline is the picture's
    assert is_closed(mesh.faces.numpy()) and volume(mesh) > 0  # counter-clockwise from outside


def test_an_extruded_disc_is_a_cylinder():
    candidate = extruded(*disc(), k=0.2, p=0.01)  # all but orthographic: S = 1
    mesh = candidate.model
    assert isinstance(mesh, Mesh)
    assert is_closed(mesh.faces.numpy())
    assert volume(mesh) == pytest.approx(math.pi * 0.4**2 * 0.4, rel=0.03)  # half depth 0.2
    along = mesh.vertices.double().numpy() @ candidate.axes
    assert np.ptp(along[:, 2]) == pytest.approx(0.4, abs=0.02)  # along the axis of view
    assert np.ptp(along[:, 0]) == pytest.approx(0.8, abs=0.02) and np.ptp(along[:, 1]) == pytest.approx(0.8, abs=0.02)


def test_the_picture_is_projected_through_front_and_back_alike():
    rgb, alpha = disc()
    rgb[:, SIZE // 2 :] = torch.tensor([0.0, 0.0, 1.0])  # the right half is blue
    candidate = extruded(rgb, alpha, k=0.1)
    axes = candidate.axes
    for sign in (1.0, -1.0):  # from the picture's side, and from behind
        eye = torch.from_numpy(sign * 2.5 * axes[:, 2])
        turned = np.stack([sign * axes[:, 0], axes[:, 1], sign * axes[:, 2]], 1)
        c2w = torch.cat([torch.from_numpy(turned), eye[:, None]], 1)[None]
        K = novel_cameras([0.0], 0.0).K
        view = drawn(candidate.model, Camera(c2w, K, (128, 128)))[0]
        left, right = view[64, 50, :3], view[64, 78, :3]
        assert (left[0] > 0.9) == (sign > 0) and (right[2] > 0.9) == (sign > 0)  # behind, the sides change places
        assert float((left + right)[0]) == pytest.approx(1, abs=0.05)


def test_a_ball_s_profile_is_met_as_well_as_a_root_can():
    """Half depth sqrt(d (2 r - d)) would be exact; k sqrt(d), with k = 5/4 sqrt(r) of equal volume, has an IoU by integration."""
    ball = trimesh.creation.icosphere(4, 0.5)
    d = bare(ball.vertices, ball.faces)
    shot = shoot(d, np.random.default_rng(0), SIZE)
    axes, truth = shot.camera.c2w[0, :, :3].numpy(), solid(d.vertices, d.faces, points=4096)
    r, k = 0.4, 1.25 * math.sqrt(0.4)
    x = (np.arange(4000) + 0.5) / 4000 * r
    exact, mine = np.sqrt(x * (2 * r - x)), k * np.sqrt(x)
    expected = ((r - x) * np.minimum(exact, mine)).sum() / ((r - x) * np.maximum(exact, mine)).sum()
    found = judge(inflated(*shot.floats(), k=k, power=0.5, p=0.05), axes, truth)
    assert found["iou"] == pytest.approx(expected, abs=0.03)  # grids, and what the alignment gains
    assert found["chamfer"] < 0.02 + 0.5 * math.sqrt(math.pi / 4096)


def test_moving_a_model_moves_its_picture():
    d = drawable(make("chair", 3))
    cameras = novel_cameras([0.3, 2.0], 0.2, 64)
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # counter-clockwise seen from above
    turned = drawn(moved(d, quarter), novel_cameras([0.3 + math.pi / 2, 2.0 + math.pi / 2], 0.2, 64), lit=True)
    torch.testing.assert_close(turned, drawn(d, cameras, lit=True), atol=0.02, rtol=0)
    half = triangles(moved(d, np.eye(3), 0.5, np.array([1.0, 0, 0])))[0]
    np.testing.assert_allclose(half, d.vertices * 0.5 + [1, 0, 0], atol=1e-6)


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    """Six packed objects: four to learn from, one to validate, one held out."""
    folder = tmp_path_factory.mktemp("objects")
    made = [make("chair", 1), make("table", 2), make("teapot", 3), make("lamp", 4), make("sofa", 5), make("bottle", 6)]
    sides = {"procedural/sofa/5": "validation", "procedural/bottle/6": "heldout"}
    pack(made, folder, side=lambda o: sides.get(o.source, "train"))
    return folder


def test_the_bank_finds_an_object_from_its_own_picture_and_turns_it(objects, tmp_path):
    b = bank(objects, tmp_path / "bank", size=64, keys=[0, 1, 2, 3], progress=False)
    for key in (0, 2):
        d = baselines.load(objects, key)
        camera, _ = crop_camera(d.vertices, baselines.AZIMUTHS[3], baselines.ELEVATIONS[1], baselines.NOVEL_DISTANCE, 128)
        rgba = drawn(d, camera, level=baselines.LEVEL)[0]
        alpha = rgba[..., 3]
        found = b.nearest(rgba[..., :3] / alpha[..., None].clamp(min=1e-6), alpha)
        np.testing.assert_array_equal(found.model.vertices, d.vertices)
        np.testing.assert_allclose(found.axes, camera.c2w[0, :, :3].numpy(), atol=1e-6)
        assert judge(found, camera.c2w[0, :, :3].numpy(), solid(d.vertices, d.faces))["iou"] > 0.99
    cameras = novel_cameras([math.pi / 2], baselines.ELEVATIONS[0], 64)
    views = torch.cat([drawn(baselines.load(objects, k), cameras, level=baselines.LEVEL) for k in range(4)])
    torch.testing.assert_close(b.mean([math.pi / 2 + 0.2 - 2 * math.pi], 0.0)[0], views.mean(0), atol=2e-3, rtol=0)  # half precision
    again = bank(objects, tmp_path / "bank", size=64, keys=[0, 1, 2, 3], progress=False)  # read back
    assert (again.features == b.features).all() and len(list(tmp_path.iterdir())) == 1


def test_training_objects_leave_out_what_is_judged(objects):
    keys = training_objects(objects)
    rows = Packed(objects).rows
    assert {rows[k]["side"] for k in keys if isinstance(k, int)} == {"train"}
    assert not {k[0] for k in keys if isinstance(k, tuple)} & set(HELD_OUT_FAMILIES)
    judged = lifting.chosen(objects, 5)
    packed = [key for group, _, _, key in judged if group == "furniture"]
    assert packed == Packed(objects).indices("validation")
    made = [key for group, _, _, key in judged if group != "furniture"]
    assert len(made) == 5 and {k[0] for k in made} <= set(HELD_OUT_FAMILIES) and min(k[1] for k in made) >= lifting.FRESH
    assert not {source for _, _, source, _ in judged} & {rows[k]["source"] for k in keys if isinstance(k, int)}


def test_the_copied_picture_stands_where_the_view_shows_the_object():
    rgb, alpha = disc(0.3)
    like = torch.zeros(64, 64, 4)
    like[10:30, 24:34, 3] = 1  # 20 rows high: the longest side
    out = copied(rgb, alpha, like)
    rows, columns = (out[..., 3] > 0.5).any(1).nonzero()[:, 0], (out[..., 3] > 0.5).any(0).nonzero()[:, 0]
    assert (int(rows[0]), int(rows[-1])) == (10, 29) and (int(columns[0]), int(columns[-1])) == (19, 38)
    assert float(out[20, 29, 0]) == pytest.approx(1, abs=1e-5) and float(out[..., 1:3].max()) == 0
    assert not copied(rgb, alpha, torch.zeros(64, 64, 4)).any()


def _row(source: str, lift: float, failed: bool = False) -> dict:
    method = {"f_score": 0.5, "normals": 0.7, "ssim": 0.6, "sharpness": 0.01, "hidden_colour": 8.0, "two_faced": 0.25}
    methods = {m: {**method, "chamfer": 0.08, "iou": 0.25, "psnr": 12.0} for m in report.MODELS}
    methods["nearest"] |= {"chamfer": 0.1, "iou": 0.3}
    methods["lift"] |= {"chamfer": lift, "iou": 0.6, "psnr": 15.0}
    methods |= {m: {"psnr": 13.0, "ssim": 0.5, "sharpness": 0.03} for m in report.PICTURES}
    row = {"group": "furniture", "name": "thing", "source": source, "methods": methods, "failed": {}}
    row |= {"truth_sharpness": 0.02, "one_colour": 10.0}
    timing = {"seconds": 10.0, "peak_gb": 1.5, "elevation_error_deg": -4.0}
    return row | ({"failed": {"lift": "RuntimeError: no"}} if failed else timing)


def test_the_report_compares_with_the_best_baseline_and_counts_failures():
    text = report.table([_row("a", 0.04), _row("b", 0.06), _row("c", 1.0, failed=True)], "title")
    assert "### furniture: 3 objects" in text and "lift 1" in text and "lift, c: RuntimeError: no" in text
    assert "median Chamfer -25 % (inflated)" in text  # 0.06 against 0.08: the failed one counts
    assert "mean IoU x 2.00 (nearest)" in text
    assert "mean PSNR +2.00 dB (copied)" in text
    assert "sharpness 0.50 of the truth's" in text
    assert "hidden colour x 0.80 of one colour" in text and "| one colour | | | | | | | | **10.00** (10.00) | |" in text
    assert "| **0%** (0.25) of" in text
    assert "10.0 s (median" in text and "4.0 degrees" in text


def test_results_survive_a_torn_line(tmp_path):
    path = tmp_path / "results.jsonl"
    lifting._keep(path, {"source": "a"})
    with path.open("ab") as stream:
        stream.write(b'{"source": "b", "met')  # killed here
    lifting._keep(path, {"source": "c"})
    assert [row["source"] for row in lifting._kept(path)] == ["a", "c"]


def test_wrong_arguments_are_refused_before_the_slow_work(objects, tmp_path):
    with pytest.raises(InputError, match="holds no first guess"):
        lifting.evaluate_lifting(objects, tmp_path / "out", count=1, prior=tmp_path)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"index\.json"):
        lifting.chosen(tmp_path, 1)
