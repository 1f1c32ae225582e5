# SPDX-License-Identifier: Apache-2.0
"""Files: what the Khronos validator says, what comes back, the same bytes, and Blender."""

import io
import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.camera import to_gltf
from bozzetto.errors import InputError
from bozzetto.formats import gltf
from bozzetto.formats.gltf import load, save
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.render.clean import decimate, is_watertight_manifold
from bozzetto.render.unwrap import unwrap
from tests.test_mesh import sphere, torus
from tests.twins.meshes import bake, weld, write_obj

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"seed": 7, "licence": "CC0", "units": "1", "nested": {"é": [1.5, None, True]}}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """A torus, red at the front (+x), green growing to the right (+y), blue upwards."""
    cut = unwrap(decimate(torus(), 1500), resolution=256)
    return replace(cut, texture=bake(cut, 256, lambda p, n: (p + 0.5).clamp(0, 1)))


def chunks(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, total = struct.unpack_from("<4sII", data)
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def put_together(path: Path, document: dict, body: bytes) -> None:
    head = json.dumps(document).encode()
    head += b" " * (-len(head) % 4)
    data = struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", len(body), b"BIN\0") + body
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(data)) + data)


def read(document: dict, body: bytes, accessor: int) -> np.ndarray:
    a = document["accessors"][accessor]
    view = document["bufferViews"][a["bufferView"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[a["type"]]
    dtype = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[a["componentType"]]
    assert view["byteOffset"] % 4 == 0
    return np.frombuffer(body, dtype, a["count"] * width, view["byteOffset"]).reshape(-1, width)


def validate(*paths: Path) -> list[dict]:
    modules = Path(os.environ.get("BOZZETTO_NODE_MODULES") or ROOT / ".node" / "node_modules")
    if shutil.which("node") is None or not (modules / "gltf-validator").is_dir():
        pytest.fail(f"no node, or no gltf-validator in {modules}: `make test` installs it, or set BOZZETTO_NODE_MODULES to where it is")
    run = subprocess.run(["node", ROOT / "tests" / "gltf_validate.mjs", *paths], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_the_khronos_validator_has_nothing_to_say(mesh, tmp_path, monkeypatch):
    save(mesh, tmp_path / "png.glb", extras=EXTRAS, name="torus")
    save(replace(mesh, texture=None, uv=None, normals=None), tmp_path / "bare.glb")
    big = sphere(7)  # 163 842 vertices: 32-bit indices
    save(big, tmp_path / "big.glb", extras=EXTRAS)
    monkeypatch.setattr(gltf, "PNG_LIMIT", 0)
    save(mesh, tmp_path / "jpeg.glb", extras=EXTRAS)
    names = ["png", "bare", "big", "jpeg"]
    for name, report in zip(names, validate(*(tmp_path / f"{name}.glb" for name in names)), strict=True):
        assert [report[k] for k in ("numErrors", "numWarnings", "numInfos", "numHints")] == [0, 0, 0, 0], (name, report["messages"])
        assert report["info"]["totalTriangleCount"] == len(big.faces if name == "big" else mesh.faces)
        assert report["info"]["materialCount"] == 1
    assert {n: r["mimeType"] for n in ("png", "jpeg") for r in chunks(tmp_path / f"{n}.glb")[0]["images"]} == {
        "png": "image/png",
        "jpeg": "image/jpeg",
    }


def test_the_validator_would_speak_up(mesh, tmp_path):
    """The control: one index beyond the vertices, one bound that is wrong."""
    save(mesh, tmp_path / "a.glb")
    document, body = chunks(tmp_path / "a.glb")
    document["accessors"][0]["max"][0] += 1
    put_together(tmp_path / "b.glb", document, body)
    assert validate(tmp_path / "b.glb")[0]["numErrors"] > 0


def test_a_glb_stands_upright_and_faces_forward(mesh, tmp_path):
    save(mesh, tmp_path / "a.glb", extras=EXTRAS, name="torus")
    document, body = chunks(tmp_path / "a.glb")
    primitive = document["meshes"][0]["primitives"][0]
    position, normal, uv = (read(document, body, primitive["attributes"][k]) for k in ("POSITION", "NORMAL", "TEXCOORD_0"))
    world = mesh.vertices.numpy()
    assert np.array_equal(position, world[:, [1, 2, 0]])  # +z up becomes +Y, the front +x becomes +Z
    assert np.array_equal(position.min(0).tolist(), document["accessors"][primitive["attributes"]["POSITION"]]["min"])
    np.testing.assert_allclose(normal, mesh.normals.numpy()[:, [1, 2, 0]], atol=1e-6)
    assert np.array_equal(uv, mesh.uv.numpy())
    faces = read(document, body, primitive["indices"]).reshape(-1, 3).astype(np.int64)
    assert np.array_equal(faces, mesh.faces.numpy())
    cross = np.cross(position[faces[:, 1]] - position[faces[:, 0]], position[faces[:, 2]] - position[faces[:, 0]])
    assert ((cross * normal[faces].mean(1)).sum(1) > 0).mean() > 0.99  # the winding turned with the frame
    look = document["materials"][0]["pbrMetallicRoughness"]
    assert look["metallicFactor"] == 0 and look["roughnessFactor"] == pytest.approx(0.8)
    assert document["asset"]["extras"] == EXTRAS and document["nodes"][0]["name"] == "torus"
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    texture = np.asarray(Image.open(io.BytesIO(body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])))
    assert np.abs(texture / 255.0 - mesh.texture.numpy()).max() <= 0.5 / 255 + 1e-6
    at = (uv * 256).astype(int).clip(0, 255)  # red is the front: where the texture says so, Z is large
    assert np.corrcoef(texture[at[:, 1], at[:, 0], 0], position[:, 2])[0, 1] > 0.99


def test_the_same_mesh_gives_the_same_bytes_and_nothing_else_in_the_folder(mesh, tmp_path):
    for name in ("a", "b"):
        save(mesh, tmp_path / f"{name}.glb", extras=dict(reversed(EXTRAS.items())) if name == "b" else EXTRAS)
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.glb", "b.glb"]


def test_a_failed_write_leaves_the_old_file(mesh, tmp_path, monkeypatch):
    path = tmp_path / "a.glb"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save(mesh, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    with pytest.raises(InputError, match="no such folder"):
        save(mesh, tmp_path / "missing" / "a.glb")


def test_saving_refuses_what_would_be_a_broken_file(mesh, tmp_path):
    path = tmp_path / "a.glb"
    with pytest.raises(ValueError, match="extras must be what JSON holds"):
        save(mesh, path, extras={"a": float("nan")})
    with pytest.raises(ValueError, match=r"mesh\.vertices holds numbers that are not finite"):
        save(replace(mesh, vertices=mesh.vertices / 0), path)
    with pytest.raises(ValueError, match="0 faces"):
        save(replace(mesh, faces=mesh.faces[:0]), path)
    with pytest.raises(ValueError, match="name the"):
        save(replace(mesh, faces=mesh.faces + len(mesh.vertices)), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_what_was_saved_comes_back(mesh, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    (save if suffix == "glb" else write_obj)(mesh, path)
    again = load(path)
    corner, corner2 = mesh.vertices[mesh.faces], again.vertices[again.faces]
    assert torch.equal(corner, corner2)  # to the bit; nine digits hold a float32
    torch.testing.assert_close(again.uv[again.faces], mesh.uv[mesh.faces], rtol=0, atol=1e-7)
    torch.testing.assert_close(again.normals[again.faces], mesh.normals[mesh.faces], rtol=0, atol=1e-6)
    assert again.texture.shape == mesh.texture.shape and (again.texture - mesh.texture).abs().max() <= 0.5 / 255 + 1e-6
    welded = weld(again)
    assert is_watertight_manifold(welded.vertices, welded.faces)


def test_a_node_that_turns_its_mesh_turns_the_normals_too(mesh, tmp_path):
    save(mesh, tmp_path / "a.glb")
    document, body = chunks(tmp_path / "a.glb")
    document["nodes"][0] |= {"rotation": [0.0, 0.5**0.5, 0.0, 0.5**0.5], "translation": [0.0, 2.0, 0.0]}  # a quarter turn to the left
    put_together(tmp_path / "b.glb", document, body)
    again = load(tmp_path / "b.glb")
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # ours: x to y
    torch.testing.assert_close(again.vertices, mesh.vertices @ turn.T + torch.tensor([0.0, 0, 2]), rtol=0, atol=1e-6)
    torch.testing.assert_close(again.normals, mesh.normals @ turn.T, rtol=0, atol=1e-6)
    document["nodes"] += [{"mesh": 0, "translation": [9.0, 0.0, 0.0]}]
    document["scenes"][0]["nodes"] += [1]
    put_together(tmp_path / "two.glb", document, body)
    assert len(load(tmp_path / "two.glb").faces) == 2 * len(mesh.faces)


def test_a_ply_of_anyones_can_be_read(tmp_path):
    ball = sphere(2)
    import trimesh

    trimesh.Trimesh(to_gltf(ball.vertices).numpy(), ball.faces.numpy(), process=False).export(tmp_path / "a.ply")
    again = load(tmp_path / "a.ply")
    assert torch.equal(again.vertices, ball.vertices) and torch.equal(again.faces, ball.faces)
    assert again.uv is None and again.texture is None
    assert again.normals is None or torch.allclose(again.normals, vertex_normals(ball.vertices, ball.faces), atol=1e-2)


def test_loading_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "a.glb")
    for name, content, words in [("a.fbx", b"", "cannot read .fbx"), ("a.glb", b"glTF but not really", "cannot be read as GLB")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            load(tmp_path / name)
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    with pytest.raises(InputError, match=r"no triangles|cannot be read"):
        load(tmp_path / "points.obj")


@pytest.mark.blender
def test_blender_shows_it_upright_and_in_colour(mesh, open_in_blender, tmp_path):
    """Blender is z up and looks at a front that faces -y: our (x, y, z) stands at (y, -x, z) there, in its own colours."""
    save(mesh, tmp_path / "a.glb")
    got = open_in_blender(tmp_path / "a.glb")
    assert (got["vertices"], got["triangles"], got["image"], got["space"]) == (len(mesh.vertices), len(mesh.faces), [256, 256], "sRGB")
    assert got["metallic"] == 0 and got["roughness"] == pytest.approx(0.8)
    seen = np.array(got["seen"])
    ours = np.stack([-seen[:, 1], seen[:, 0], seen[:, 2]], 1)
    np.testing.assert_allclose(got["size"], np.ptp(mesh.vertices.numpy(), axis=0)[[1, 0, 2]], atol=1e-5)
    assert np.abs(seen[:, 3:] - (ours + 0.5)).max() < 0.06  # within a texel or so, of a ramp of 1 over the longest side
