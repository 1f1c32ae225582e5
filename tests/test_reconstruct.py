# SPDX-License-Identifier: Apache-2.0
"""`bozzetto reconstruct`: a folder of posed pictures to a textured GLB, and what a person can do wrong, one sentence each, code 2."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.transforms import to_nerf_synthetic
from bozzetto import cli
from bozzetto.camera import orbit
from bozzetto.data.renders import drawable, render
from bozzetto.evaluate.metrics import geometry, solid
from bozzetto.formats.gltf import load
from bozzetto.formats.scene import load as load_scene
from bozzetto.priors.reconstructor import Reconstructor, ReconstructorConfig, around, save
from bozzetto.verbs.reconstruct import Reconstruct, mesh_of, picked, premultiplied
from bozzetto_objects import make

SIDE = 160


@pytest.fixture(scope="module")
def objects():
    return make("teapot", 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained: the visual hull, which pictures all round know well."""
    folder = tmp_path_factory.mktemp("weights") / "hull"
    save(Reconstructor(ReconstructorConfig(features=4, cells=8, widths=(8, 8, 8), neurons=16)), folder)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory, objects):
    """Ten pictures of a teapot with transparency, as NeRF-synthetic writes them."""
    folder = tmp_path_factory.mktemp("scene")
    a, e = around(0.7, 0.35)
    cameras = orbit([*a, 0.2, 3.0], [*e, 1.2, 1.0], 2.2, size=SIDE, fov=0.75)
    views = render(drawable(objects), cameras)
    for k in range(10):
        write(folder / f"r_{k}.png", torch.cat([views.rgb[k] / views.alpha[k].clamp(min=1e-3), views.alpha[k]], -1))
    (folder / "transforms.json").write_text(json.dumps(to_nerf_synthetic(cameras)))
    return folder


def write(path, pixels):
    Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().numpy()).save(path)


def run(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["bozzetto", "reconstruct", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_a_folder_becomes_a_model(capsys, monkeypatch, tmp_path, scene, objects, weights, validate_gltf):
    out = tmp_path / "pot.glb"
    words = (scene, "-o", out, "--network", weights, "--cells", 56, "--texture", 256, "--faces", 6000, "--quiet")
    code, _, said = run(capsys, monkeypatch, *words)
    assert code == 0, said
    assert validate_gltf(out)["numErrors"] == 0
    mesh = load(out)
    truth = solid(objects.vertices, objects.faces)
    turned = mesh.vertices.numpy().copy()
    # the model's front is the first camera's side: turn it back by that camera's azimuth
    first = load_scene(scene).cameras[0].position[0].numpy()
    c, s = np.array([first[0], first[1]]) / np.hypot(first[0], first[1])
    turned[:, :2] = turned[:, :2] @ np.array([[c, s], [-s, c]])
    scores, _, _ = geometry(solid(turned, mesh.faces.numpy()), truth)
    assert scores["iou"] > 0.6 and scores["chamfer"] < 0.03
    mirrored = turned * [-1, 1, 1]  # the control: the spout where the handle is
    assert geometry(solid(mirrored, mesh.faces.numpy()[:, ::-1]), truth)[0]["iou"] < scores["iou"] - 0.03
    again = tmp_path / "again" / "pot.glb"  # the name is in the file
    run(capsys, monkeypatch, scene, "-o", again, *words[3:])
    assert again.read_bytes() == out.read_bytes()


def test_colours_are_the_pictures(scene, objects, weights):
    from bozzetto.priors.reconstructor import load as load_weights

    found = load_scene(scene)
    mesh, used = mesh_of(picked(found, 8), load_weights(weights), Reconstruct(cells=40, texture=128, faces=4000, colours=128))
    assert used == 8 and mesh.texture is not None
    shown = torch.cat([found.pictures[k].reshape(-1, 4) for k in range(8)]).float() / 255
    mean = shown[shown[:, 3] > 0.99][:, :3].mean(0)
    assert (mesh.texture.reshape(-1, 3).mean(0) - mean).abs().max() < 0.15


def test_pictures_without_transparency_are_cut_out(scene):
    pixels = torch.from_numpy(np.array(Image.open(scene / "r_0.png")))
    alpha = pixels[..., 3:].float() / 255
    plain = (pixels[..., :3] * alpha + 255 * (1 - alpha)).round().byte()
    found = premultiplied(plain, "a picture", "classical")
    assert ((found[..., 3] > 0.5) != (alpha[..., 0] > 0.5)).float().mean() < 0.02


def changed(tmp_path, scene, how):
    """The scene with a mistake; what is said; more flags."""
    folder = tmp_path / "scene"
    shutil.copytree(scene, folder)
    file = folder / "transforms.json"
    told = json.loads(file.read_text())
    if how == "few":
        told["frames"] = told["frames"][:3]
    elif how == "unrelated":
        for k, frame in enumerate(told["frames"]):
            frame["transform_matrix"][2][3] += 2.0 * k
    elif how == "empty":
        write(folder / "r_4.png", torch.zeros(SIDE, SIDE, 4))
    file.write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize(
    ("how", "says"),
    [("few", "3 pictures are too few"), ("unrelated", "poses and pictures of one scene"), ("empty", "no object found")],
)
def test_scenes_with_a_mistake(capsys, monkeypatch, tmp_path, scene, weights, how, says):
    out = tmp_path / "out.glb"
    code, _, said = run(capsys, monkeypatch, changed(tmp_path, scene, how), "-o", out, "--network", weights)
    assert code == 2 and says in said and said.count("\n") == 1 and said.startswith("error: "), said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-o", "model.obj"), "ends in .glb"),
        (("--views", 2), "at least 4"),
        (("--cells", 0), "at least 8"),
        (("--network", "nowhere"), "no such folder"),
    ],
)
def test_flags_that_make_no_sense(capsys, monkeypatch, tmp_path, scene, words, says):
    monkeypatch.chdir(tmp_path)
    code, _, said = run(capsys, monkeypatch, scene, *words)
    assert code == 2 and says in said and said.count("\n") == 1, said
    assert not list(tmp_path.iterdir())


def test_a_scene_that_is_not_there(capsys, monkeypatch, tmp_path, weights):
    code, _, said = run(capsys, monkeypatch, tmp_path / "none", "-o", tmp_path / "x.glb", "--network", weights)
    assert code == 2 and "no such folder" in said
