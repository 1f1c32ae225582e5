# SPDX-License-Identifier: Apache-2.0
"""`bozzetto shape`: points and voxels in files to a GLB that lies over them, and what a person can do wrong, one sentence each, code 2."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import trimesh

from bozzetto import cli
from bozzetto.camera import to_gltf
from bozzetto.formats.gltf import load as load_glb
from bozzetto.formats.scan import LARGEST, Points, Voxels, load
from bozzetto.priors.dmtet import DMTetConfig, DMTetNetworks, save
from bozzetto.render.clean import is_watertight_manifold
from bozzetto.verbs.settings import ShapeSettings
from bozzetto.verbs.shape import mesh_of, nearest
from tests.test_dmtet_networks import box_points

SHIFT, SCALE = np.array([5.0, -2.0, 30.0]), 7.0  # where the file's box lies, and how large


def first_distance(folder, reads: str) -> None:
    """Networks that add nothing to the first distance."""
    made = DMTetNetworks(DMTetConfig(reads=reads, widths=(4, 4, 4), neurons=8, features=2, graph=4))
    with torch.no_grad():
        made.mlp[-1].weight.zero_()
        made.mlp[-1].bias.zero_()
    save(made, folder)


@pytest.fixture(scope="module")
def voxel_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "voxels"
    first_distance(folder, "voxels")
    return folder


def full_box() -> np.ndarray:
    """An L of voxels, off the centre of its array: no mirror image of itself."""
    x = np.zeros((10, 12, 9), bool)
    x[2:5, 1:10, 3:8] = True
    x[2:9, 1:4, 3:6] = True
    return x


def write_binvox(path, full: np.ndarray, corner: np.ndarray, scale: float) -> None:
    n = max(full.shape)
    cube = np.zeros((n, n, n), np.uint8)
    cube[: full.shape[0], : full.shape[1], : full.shape[2]] = full
    flat = cube.transpose(0, 2, 1).reshape(-1)
    body = b"".join(bytes([v, 1]) for v in flat)
    head = f"#binvox 1\ndim {n} {n} {n}\ntranslate {' '.join(map(str, corner))}\nscale {scale}\ndata\n"
    path.write_bytes(head.encode() + body)


def run(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["bozzetto", "shape", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_clouds_are_read_from_any_file(tmp_path):
    x = box_points(150).double().numpy() * SCALE + SHIFT
    rgb = np.random.default_rng(0).integers(0, 256, (150, 3)).astype(np.uint8)
    trimesh.PointCloud(x, colors=rgb).export(tmp_path / "a.ply")
    np.savetxt(tmp_path / "a.xyz", np.concatenate([x, rgb], 1), header="x y z r g b")
    np.savetxt(tmp_path / "b.txt", x, delimiter=",")
    np.save(tmp_path / "a.npy", np.concatenate([x, rgb / 255], 1))
    unit = np.random.default_rng(1).normal(size=(150, 3))
    np.save(tmp_path / "n.npy", np.concatenate([x, unit / np.linalg.norm(unit, axis=1, keepdims=True)], 1))
    for name in ("a.ply", "a.xyz", "b.txt", "a.npy", "n.npy"):
        found = load(tmp_path / name)
        assert isinstance(found, Points)
        np.testing.assert_allclose(found.places, x, atol=1e-5)
        if name.startswith("a"):
            np.testing.assert_allclose(found.colours, rgb / 255, atol=1e-6)
        else:
            assert found.colours is None
    x[3, 1] = np.nan
    np.save(tmp_path / "a.npy", x)
    assert len(load(tmp_path / "a.npy").places) == 149


def test_voxels_are_read_from_any_file(tmp_path):
    full = full_box()
    np.save(tmp_path / "v.npy", full.astype(np.float32))
    found = load(tmp_path / "v.npy")
    assert isinstance(found, Voxels) and (found.full == full).all() and (found.corner == 0).all() and found.side == 1
    write_binvox(tmp_path / "v.binvox", full, SHIFT, 6.0)
    found = load(tmp_path / "v.binvox")
    assert isinstance(found, Voxels) and found.side == 0.5 and (found.corner == SHIFT).all()
    assert (found.full[: full.shape[0], :, : full.shape[2]] == full).all() and found.full.sum() == full.sum()


def test_voxels_become_a_model_that_lies_over_them(capsys, monkeypatch, tmp_path, voxel_weights, validate_gltf):
    full = full_box()
    write_binvox(tmp_path / "v.binvox", full, SHIFT, 6.0)
    out = tmp_path / "made" / "v.glb"
    code, said, wrong = run(capsys, monkeypatch, tmp_path / "v.binvox", "-o", out, "--network", voxel_weights)
    assert code == 0, wrong
    assert "12 x 12 x 12 voxels" in said and validate_gltf(out)["numErrors"] == 0
    mesh = load_glb(out)
    assert is_watertight_manifold(mesh.vertices, mesh.faces)
    x = to_gltf(mesh.vertices).numpy()  # as the file in the viewer has it
    at = np.argwhere(full)
    low, high = SHIFT + 0.5 * at.min(0), SHIFT + 0.5 * (at.max(0) + 1)
    assert np.abs(x.min(0) - low).max() < 0.25 and np.abs(x.max(0) - high).max() < 0.25  # half a voxel: corners are rounded
    solid = trimesh.Trimesh(x, mesh.faces.numpy(), process=False)
    assert solid.volume == pytest.approx(full.sum() * 0.5**3, rel=0.12)
    middle = SHIFT + 0.5 * (at.mean(0) + 0.5)
    assert np.abs(solid.center_mass - middle).max() < 0.05
    mirrored = SHIFT + 0.5 * (np.array([2 + 8, 1 + 9, 3 + 7]) - at + 0.5).mean(0)
    assert np.abs(solid.center_mass - mirrored).max() > 0.3  # the control
    again = tmp_path / "v.glb"
    run(capsys, monkeypatch, tmp_path / "v.binvox", "-o", again, "--network", voxel_weights, "--quiet")
    assert again.read_bytes() == out.read_bytes()


def test_points_keep_their_place_scale_and_colours():
    """With a branch that knows what is out, the box that was sampled: scaled, moved, red below and blue above."""

    class Outward(torch.nn.Module):
        def forward(self, told):
            return torch.cat([self.x, torch.zeros(len(told), 2 + 8)], 1)

    made = DMTetNetworks(DMTetConfig(widths=(4, 4, 4), neurons=8, features=2, graph=4)).eval()
    with torch.no_grad():
        made.mlp[-1].weight.zero_()
        made.mlp[-1].bias.zero_()
    x = box_points(3000).double().numpy()
    places = x * SCALE + SHIFT
    colours = np.where(x[:, 1:2] > 0.1, [[0.1, 0.2, 0.9]], [[0.9, 0.1, 0.2]]).astype(np.float32)
    outward = Outward()
    middle = (places.min(0) + places.max(0)) / 2
    outward.x = torch.from_numpy(((places - middle) / np.ptp(places, axis=0).max()).astype(np.float32))
    made.encode.branch = outward
    mesh, of = mesh_of(Points(places, colours), made, ShapeSettings(cells=14, points=3000, faces=1500, texture=96))
    assert of == "3000 points" and mesh.texture is not None
    there = to_gltf(mesh.vertices).double().numpy()
    # planes reach a little beyond the box's corners, less than a cell
    assert np.abs(there.min(0) - places.min(0)).max() < 0.05 * SCALE and np.abs(there.max(0) - places.max(0)).max() < 0.05 * SCALE
    texel = (mesh.uv * 95).round().long()
    shown = mesh.texture[texel[:, 1], texel[:, 0]]
    y = (there[:, 1] - SHIFT[1]) / SCALE
    for part, is_blue in ((y > 0.2, True), (y < 0.0, False)):
        assert ((shown[part, 2] > shown[part, 0]) == is_blue).float().mean() > 0.95
    plain, _ = mesh_of(Points(places), made, ShapeSettings(cells=14, points=3000, faces=4000))
    assert plain.texture is None and len(plain.faces) <= 4000


def test_a_texel_has_the_colour_of_its_nearest_points():
    x = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [9, 9, 9], [9, 9, 8]])
    c = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 1, 1]])
    found = nearest(x, c)(torch.tensor([[0.0, 0, 0], [1, 1, 0]]).double(), torch.zeros(2, 3))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0], [0, 0, 1]]).double(), rtol=0, atol=1e-5)


def broken(folder, how):
    path = folder / "scan.npy"
    x = box_points(400).double().numpy()
    if how == "few":
        np.save(path, x[:20])
    elif how == "one":
        np.save(path, x * 0 + 1)
    elif how == "columns":
        np.save(path, x[:, :2])
    elif how == "flat":
        np.save(path, x[:, 0])
    elif how == "empty":
        np.save(path, np.zeros((8, 8, 8), bool))
    elif how == "solid":
        np.save(path, np.ones((8, 8, 8), bool))
    elif how == "huge":
        np.save(path, np.arange((LARGEST + 1) * 4).reshape(-1, 2, 2) % 2)
    elif how == "words":
        np.save(path, np.array(["a", "b"]))
    elif how == "pickle":
        np.save(path, np.array([{}, None]), allow_pickle=True)
    elif how in ("ply", "xyz", "binvox", "cut.binvox"):
        path = folder / f"scan.{how}"
        path.write_bytes(b"#binvox 1\ndim 4 4 4\ndata\n\x01\x02" if how == "cut.binvox" else b"what is this\n")
    elif how == "missing":
        path = folder / "nowhere.ply"
    elif how == "suffix":
        path = folder / "scan.stl"
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("few", "20 points are too few"),
        ("one", "all points are one"),
        ("columns", "2 numbers a point"),
        ("flat", "expected points (N, 3) or voxels"),
        ("empty", "all voxels are empty"),
        ("solid", "all voxels are full"),
        ("huge", "too many"),
        ("words", "not numbers"),
        ("pickle", "cannot be read as npy"),
        ("ply", "cannot be read as ply"),
        ("xyz", "cannot be read as xyz"),
        ("binvox", "is no binvox file"),
        ("cut.binvox", "holds 2 voxels of 64"),
        ("missing", "no such file"),
        ("suffix", "cannot read .stl"),
    ],
)
def test_files_with_a_mistake(capsys, monkeypatch, tmp_path, how, says):
    weights = tmp_path / "weights"
    first_distance(weights, "points")
    out = tmp_path / "out.glb"
    code, _, said = run(capsys, monkeypatch, broken(tmp_path, how), "-o", out, "--network", weights)
    assert code == 2 and says in said and said.count("\n") == 1 and said.startswith("error: "), said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-o", "model.obj"), "ends in .glb"),
        (("--cells", 2), "at least 8"),
        (("--points", 5), "at least 100"),
        (("--seed", -1), "--seed"),
        (("--network", "nowhere"), "no such folder"),
    ],
)
def test_flags_that_make_no_sense(capsys, monkeypatch, tmp_path, words, says):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    np.save(tmp_path / "x.npy", box_points(200).numpy())
    code, _, said = run(capsys, monkeypatch, tmp_path / "x.npy", *words)
    assert code == 2 and says in said and said.count("\n") == 1, said
    assert not list(folder.iterdir())


def test_weights_for_the_other_kind_are_refused(capsys, monkeypatch, tmp_path, voxel_weights):
    np.save(tmp_path / "x.npy", box_points(200).numpy())
    code, _, said = run(capsys, monkeypatch, tmp_path / "x.npy", "--network", voxel_weights, "-o", tmp_path / "x.glb")
    assert code == 2 and "reads voxels" in said and not (tmp_path / "x.glb").exists()


def test_the_embedded_weights_know_a_bent_bar(capsys, monkeypatch, tmp_path):
    """An L of two boxes, turned, far from the origin: points with noise, and voxels. Its mirror image is the control."""
    rng = np.random.default_rng(0)
    bar = trimesh.util.concatenate(
        [
            trimesh.creation.box(bounds=[[-0.5, -0.4, -0.12], [-0.22, 0.4, 0.12]]),
            trimesh.creation.box(bounds=[[-0.22, -0.4, -0.12], [0.5, -0.16, 0.12]]),
        ]
    )
    inside = np.array([[-0.36, 0, 0], [0.2, -0.28, 0], [-0.36, 0.3, 0.05]])
    outside = np.array([[0.2, 0.2, 0], [0.1, 0.0, 0], [-0.36, 0, 0.3]])
    x = trimesh.sample.sample_surface(bar, 4000, seed=1)[0]
    x = x[~((np.abs(x[:, 0] + 0.22) < 1e-9) & (x[:, 1] < -0.16))][:3000]  # but for where the two touch
    np.save(tmp_path / "points.npy", (x + rng.normal(0, 0.004, x.shape)) * SCALE + SHIFT)
    at = (np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1) + 0.5) / 16 - 0.5
    boxes = np.array([[[-0.5, -0.4, -0.12], [-0.22, 0.4, 0.12]], [[-0.3, -0.4, -0.12], [0.5, -0.16, 0.12]]])
    is_in = [((at + 1 / 32 > low) & (at - 1 / 32 < high)).all(-1) for low, high in boxes]  # whatever the bar reaches into
    write_binvox(tmp_path / "voxels.binvox", is_in[0] | is_in[1], SHIFT - SCALE / 2, SCALE)
    for name in ("points.npy", "voxels.binvox"):
        code, _, wrong = run(capsys, monkeypatch, tmp_path / name, "-o", tmp_path / "m.glb", "--quiet", "--cells", 20, "--faces", 6000)
        assert code == 0, wrong
        mesh = load_glb(tmp_path / "m.glb")
        assert is_watertight_manifold(mesh.vertices, mesh.faces)
        made = trimesh.Trimesh((to_gltf(mesh.vertices).numpy() - SHIFT) / SCALE, mesh.faces.numpy(), process=False)
        assert np.abs(made.bounds - bar.bounds).max() < 0.06
        away = trimesh.proximity.closest_point_naive(made, x[:200])[1]
        mirrored = trimesh.proximity.closest_point_naive(made, x[:200] * [-1, 1, 1])[1]
        assert away.mean() < 0.03 < mirrored.mean()
        assert made.volume == pytest.approx(0.28 * 0.8 * 0.24 + 0.72 * 0.24 * 0.24, rel=0.35)
        for point, expected in [*((p, 1) for p in inside), *((p, 0) for p in outside)]:
            corner = made.triangles - point
            a, b, c = corner.transpose(1, 0, 2)
            la, lb, lc = np.linalg.norm(corner, axis=2).T
            whole = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
            solid_angle = 2 * np.arctan2((np.cross(a, b) * c).sum(1), whole)  # van Oosterom and Strackee 1983
            assert round(float(solid_angle.sum() / (4 * np.pi))) == expected
