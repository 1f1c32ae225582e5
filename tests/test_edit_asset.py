# SPDX-License-Identifier: Apache-2.0
"""`bozzetto edit` of a model, `bozzetto lift --edit`, `bozzetto.edit`: by a small random InstructPix2Pix, whose edits are noise."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import bozzetto
from benchmarks import published as random_weights
from bozzetto.errors import InputError
from bozzetto.fit import asset
from bozzetto.fit.asset import EDITS, FILES, Asset
from bozzetto.fit.edited import Editing, cameras_round
from bozzetto.formats.gltf import load, save
from bozzetto.mesh import Mesh, vertex_normals
from bozzetto.recipes import guess
from bozzetto.render.bake import scatter, texels
from bozzetto.render.unwrap import unwrap
from bozzetto.verbs.edit_asset import Edit
from tests.killing import LIFT
from tests.test_cli import CHAIR, ROOT, run

LOUD = 9000.0  # a random network hardly heeds words
FEW = Editing(views=3, steps=2, guidance=LOUD)
WORDS = ["--views", "3", "--steps", "2", "--guidance", str(LOUD)]


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights.write("instruct-pix2pix", tmp_path_factory.mktemp("instruct") / "tiny", "tiny")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box that another tool may have left: off the origin, three units long."""
    box = trimesh.creation.box([3.0, 1.0, 2.0]).apply_translation([4.0, -1.0, 0.5]).subdivide()
    vertices, faces = torch.tensor(box.vertices).float(), torch.tensor(box.faces).long()
    mesh = unwrap(Mesh(vertices, faces, vertex_normals(vertices, faces)), resolution=64)
    t = texels(mesh, 64)
    path = tmp_path_factory.mktemp("model") / "box.glb"
    save(replace(mesh, texture=scatter(t, (t.position / 8 + 0.4).clamp(0, 1))), path)
    return path


def texture(path: Path) -> torch.Tensor:
    found = load(path).texture
    assert found is not None
    return found


def test_a_model_is_edited_where_it_stands(editor, model, tmp_path, capsys, monkeypatch, validate_gltf):
    out = tmp_path / "green"
    code, told = run(capsys, monkeypatch, "edit", model, "paint it green", "--prior", editor, "--out", out, *WORDS)
    assert code == 0 and "needs about" in told
    assert sorted(p.name for p in out.iterdir()) == sorted({"asset.glb", "asset.json", "sheet.png", "turntable.webp", *EDITS})
    issues = validate_gltf(out / "asset.glb")
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues
    before, after = load(model), load(out / "asset.glb")
    for name in ("vertices", "faces", "uv"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    share = torch.tensor(np.asarray(Image.open(out / "edit.png")))
    off = (after.texture - before.texture).abs().amax(-1) * 255
    assert off[share == 0].max() <= 1 and (share > 0).any() and off[share == 255].max() > 10
    told = json.loads((out / "asset.json").read_text())
    assert told["edit"]["text"] == "paint it green" and told["edit"]["views"] == 3 and told["source"] == "box.glb" and told["complete"]
    assert np.asarray(Image.open(out / "edits.png")).shape == (3 * 192, 3 * 192, 3)
    sheet = np.asarray(Image.open(out / "sheet.png")).astype(int)
    assert (np.abs(sheet[: asset.SIZE, : asset.SIZE] - sheet[0, 0]).max(-1) > 20).mean() > 0.1  # it is in the picture, wherever it stands


def test_edit_of_the_library_is_the_commands_and_of_an_asset_keeps_what_is_of_its_picture(editor, model, tmp_path):
    one = bozzetto.edit(model, "paint it green", how=FEW, prior=editor)
    two = bozzetto.edit(model, "paint it green", tmp_path / "two", how=FEW, prior=editor)
    assert torch.equal(one.mesh.texture, two.mesh.texture)
    torch.testing.assert_close(texture(tmp_path / "two" / "asset.glb"), one.mesh.texture, rtol=0, atol=0.5001 / 255)
    again = bozzetto.edit(tmp_path / "two", "paint it red", how=FEW, prior=editor, seed=1)  # a folder; its own GLB
    assert again.record["source"] == "asset.glb" and not torch.equal(again.mesh.texture, one.mesh.texture)
    in_memory = Asset(load(model), cameras_round(load(model).vertices, 3, 64)[0], None, {"source": "mine"})
    made = bozzetto.edit(in_memory, "paint it green", how=FEW, prior=editor)
    assert made.record["of"] == {"source": "mine"} and torch.equal(made.mesh.texture, one.mesh.texture)


MOMENTS = ("kill after edits.partial 2", "kill before asset.glb")


@pytest.mark.parametrize("moment", ["kill after edits.safetensors", *(pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS)])
def test_killed_between_views_and_fusion_it_ends_in_the_same_bytes(editor, model, tmp_path, moment):
    bozzetto.edit(model, "paint it green", tmp_path / "whole", how=FEW, prior=editor)
    words = ["edit", str(model), "paint it green", "--prior", str(editor), "--out", str(tmp_path / "killed"), "--quiet", *WORDS]
    killed = subprocess.run([sys.executable, "-c", LIFT, moment, *words], cwd=ROOT, capture_output=True)
    assert killed.returncode == -9 and not (tmp_path / "killed" / "asset.glb").exists()
    done = subprocess.run([sys.executable, "-m", "bozzetto", *words, "--resume"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed" / "asset.glb").read_bytes() == (tmp_path / "whole" / "asset.glb").read_bytes()
    assert not (tmp_path / "killed" / ".run").exists()


def test_lift_and_edit_in_one(editor, tmp_path, validate_gltf, monkeypatch):
    of = Edit.of.__func__
    monkeypatch.setattr(Edit, "of", classmethod(lambda cls, text, **how: of(cls, text, FEW, **how)))
    small = guess.Guess(cells=16, steps=4, picture=64, finish=guess.Finish(faces=500, texture=64))
    plain = bozzetto.lift(CHAIR, settings=small)
    told: list[str] = []
    how = {"settings": small, "edit": "paint it green", "prior": {"edit": editor}, "tell": told.append}
    green = bozzetto.lift(CHAIR, tmp_path / "green", **how)
    assert {*FILES, *EDITS} == {p.name for p in (tmp_path / "green").iterdir()} and len(told) == 2 and told[1].startswith("the edit: ")
    assert torch.equal(plain.mesh.vertices, green.mesh.vertices) and torch.equal(plain.mesh.confidence, green.mesh.confidence)
    share = torch.tensor(np.asarray(Image.open(tmp_path / "green" / "edit.png")))
    off = (green.mesh.texture - plain.mesh.texture).abs().amax(-1)
    assert off[share == 0].max() <= 1 / 255 and off.max() > 0.1 and green.record["edit"]["text"] == "paint it green"
    issues = validate_gltf(tmp_path / "green" / "asset.glb")
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues
    bozzetto.lift(CHAIR, tmp_path / "green", settings=small)  # what the edit left goes with it
    assert set(FILES) == {p.name for p in (tmp_path / "green").iterdir()}
    with pytest.raises(InputError, match="recipe guess needs first_guess"):
        bozzetto.lift(CHAIR, settings=small, prior={"edit": editor})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["paint it blue", "--prior", "instruct-pix2pix"],
            "instruct-pix2pix: is not on this disk; fetch it first: bozzetto fetch instruct-pix2pix",
        ),
        ([" "], "no instruction given"),
        (["paint it blue", "--views", "2"], "--views 2, --steps None, --size None: expected 3 to 64 views"),
        (["paint it blue", "--count", "2"], "--count: is for pictures"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_nothing_is_written(words, says, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    code, said = run(capsys, monkeypatch, "edit", model, *words, "--out", tmp_path / "out")
    assert code == 2 and says in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_models_without_one_whole_texture_are_refused(editor, model, tmp_path, capsys, monkeypatch):
    mesh = load(model)
    save(replace(mesh, texture=None, uv=None), tmp_path / "bare.glb")
    save(replace(mesh, uv=3 * mesh.uv), tmp_path / "tiled.glb")
    for name, says in (("bare", "has no texture to edit"), ("tiled", "its texture repeats")):
        with pytest.raises(InputError, match=says):
            bozzetto.edit(tmp_path / f"{name}.glb", "paint it green", prior=editor)
    code, said = run(capsys, monkeypatch, "edit", CHAIR, "paint it green", "--together")
    assert code == 2 and "--together: is for models" in said
    code, said = run(capsys, monkeypatch, "lift", CHAIR, "--edit", " ", "--out", tmp_path / "out")
    assert code == 2 and "no instruction given" in said and not (tmp_path / "out").exists()


def test_a_large_texture_that_was_edited_is_written_without_loss(tmp_path):
    noise = torch.rand(1100, 1100, 3, generator=torch.Generator().manual_seed(0))
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.ones(3, 3), torch.eye(3)[:, :2], noise)
    for lossless in (True, False):
        save(triangle, tmp_path / "noise.glb", lossless=lossless)
        off = (texture(tmp_path / "noise.glb") - noise).abs().max() * 255
        assert (off <= 0.501) == lossless
