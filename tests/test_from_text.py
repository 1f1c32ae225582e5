# SPDX-License-Identifier: Apache-2.0
"""A recipe that starts from a text alone: no picture is drawn, asked for or recorded; killed, it ends in the same bytes."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto import cli, lift
from bozzetto.camera import orbit
from bozzetto.errors import InputError
from bozzetto.fit import asset as assets
from bozzetto.fit.asset import FILES, OF_PICTURE, SPLAT
from bozzetto.fit.finish import Finish, Lifted, finish
from bozzetto.fit.loop import Loss, optimise
from bozzetto.fit.recipe import Job, Priors, Recipe
from bozzetto.fit.run import Run
from bozzetto.fit.silhouette import Surface
from bozzetto.recipes import RECIPES
from bozzetto.render.mesh import render_mesh
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.tets import Course, Tets
from tests.test_lift import CHAIR

FRONT, BACK = torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.8])


@dataclass(frozen=True)
class Told:
    """Nothing but steps."""

    steps: int = 60
    finish: Finish = Finish(faces=300, texture=256)


def make(job: Job[Told]) -> Lifted:
    """A ball as large as its text is long, red in front."""
    box = [-0.6] * 3, [0.6] * 3
    colours = ColourGrid.of(lambda x, n: torch.where(x[:, :1] > 0, FRONT, BACK), *map(torch.tensor, box), 16)
    ball = Tets(DMTet.from_sphere(0.3, (12, 12, 12), *box), Course(0.1, smooth=1))

    def fit() -> Surface:
        wanted = 0.02 * len(job.words)
        size = lambda shape, step: {"size": Loss(1.0, (shape.surface()[0].norm(dim=1) - wanted).square().mean())}  # noqa: E731
        losses = optimise(ball, [size], job.run, "ball", steps=job.settings.steps, seed=job.seed)
        return Surface(*(x.detach().float() for x in ball.surface()), losses, {})

    made = job.run.stage("ball", fit, Surface)
    made = Surface(made.vertices, made.faces.long(), made.losses, {})
    return finish(None, made, lambda clean: colours.requires_grad_(False), None, job.settings.finish, job.run, {"losses": made.losses})


RECIPE = Recipe("told", {"standard": Told()}, make, {"ball": 0.8, "clean": 0.1, "texture": 0.1}, needs=(), starts_from="text")


def test_its_asset_has_all_but_what_a_picture_has(tmp_path: Path, validate_gltf) -> None:
    for name in (*OF_PICTURE, SPLAT):  # an older lift's
        (tmp_path / name).write_bytes(b"old")
    asset = lift(text="a big red ball", out=tmp_path, recipe=RECIPE, seed=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(set(FILES) - set(OF_PICTURE))
    told = json.loads((tmp_path / "asset.json").read_text())
    assert told["source"] == told["settings"]["text"] == "a big red ball" and told["seed"] == 3 and told["complete"]
    assert "matting" not in told and "digest" not in told and told["warnings"] == [] and set(told["losses"]) == {"size"}
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape == (4 * assets.SIZE, 4 * assets.SIZE, 3)
    issues = validate_gltf(tmp_path / "asset.glb")
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues
    assert asset.mesh.confidence is None and asset.picture is None and asset.warnings == ()
    with pytest.raises(ValueError, match="made from a text"):
        _ = asset.source
    in_memory = lift(text="a big red ball", recipe=RECIPE, seed=3)
    assert torch.equal(in_memory.mesh.texture, asset.mesh.texture) and torch.equal(in_memory.mesh.vertices, asset.mesh.vertices)


def test_its_front_is_the_first_axis_and_each_texel_has_its_own_colour() -> None:
    """Its camera stands in front, and the record holds it in the GLB's frame, where the front is +Z."""
    asset = lift(text="a big red ball", recipe=RECIPE)
    pose = np.array(asset.description()["camera"]["camera_to_world"])
    assert pose[2, 3] > abs(pose[0, 3]) and float(asset.camera.position[0, 0]) > 2
    seen = render_mesh(asset.mesh, orbit([0.0, math.pi], [0.0, 0.0], 2.6, size=33, fov=0.55)).rgb[:, 16, 16]
    assert float((seen - torch.stack([FRONT, BACK])).abs().max()) < 0.02


def test_killed_and_resumed_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(stage: str, share: float) -> None:
        if stage == "ball" and share > 0.7:
            raise Killed

    lift(text="a big red ball", out=tmp_path / "whole", recipe=RECIPE)
    with pytest.raises(Killed):
        lift(text="a big red ball", out=tmp_path / "killed", recipe=RECIPE, progress=kill)
    with pytest.raises(InputError, match="begun with other settings"):
        lift(text="a small red ball", out=tmp_path / "killed", recipe=RECIPE, resume=True)
    lift(text="a big red ball", out=tmp_path / "killed", recipe=RECIPE, resume=True)
    assert (tmp_path / "killed" / "asset.glb").read_bytes() == (tmp_path / "whole" / "asset.glb").read_bytes()


def test_what_is_missing_or_of_a_picture_is_refused(tmp_path: Path) -> None:
    for text in (None, "  "):
        with pytest.raises(InputError, match=r"starts from a text; try: bozzetto lift --text .* --recipe told$"):
            lift(text=text, out=tmp_path / "out", recipe=RECIPE)
    with pytest.raises(InputError, match="leave the picture and --elevation-deg out"):
        lift(CHAIR, tmp_path / "out", text="a chair", recipe=RECIPE, elevation=0.3)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="say that it starts from one"):
        _ = Job(None, Priors(), Told(), Run(None, {})).source


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(RECIPES, "told", RECIPE)
    monkeypatch.setattr("bozzetto.cli.check_recipe", lambda name: None)

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bozzetto", "lift", *map(str, words), "--recipe", "told", "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    assert run("--text", "a big red ball", "--json") == 0
    assert json.loads(capsys.readouterr().out)["source"] == "a big red ball"
    assert run("--text", "a big red ball", "--resume") == 0 and "is complete" in capsys.readouterr().err
    assert run(CHAIR, "--text", "a chair", "--quiet") == 2
    assert capsys.readouterr().err.count("\n") == 1
