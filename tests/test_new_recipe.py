# SPDX-License-Identifier: Apache-2.0
"""A recipe that nobody here knows: one short file, imported, lifted with, killed, and resumed to the same bytes."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from bozzetto import lift
from bozzetto.errors import InputError
from bozzetto.fit.finish import Finish
from bozzetto.recipes import guess
from tests.twins.block import CHAIR, Oracle

RECIPE = '''"""A ball of colours that the picture and one prior agree on."""
from dataclasses import dataclass

import torch

from bozzetto.distill.sds import Levels
from bozzetto.fit.around import Around
from bozzetto.fit.finish import Finish, finish
from bozzetto.fit.framed import Framed
from bozzetto.fit.loop import Loss, optimise
from bozzetto.fit.recipe import Recipe
from bozzetto.fit.silhouette import Surface
from bozzetto.fit.terms import Pull, Shown
from bozzetto.shapes.colours import ColourGrid
from bozzetto.shapes.dmtet import DMTet
from bozzetto.shapes.tets import Course, Tets

@dataclass(frozen=True)
class Ball:
    steps: int = 40
    around: Around = Around(views=1)
    finish: Finish = Finish(faces=2000, texture=64)

def lift(job):
    solid, s = job.guess(), job.settings
    camera, grid = solid.frustum.camera, ColourGrid.of(solid.colours, -torch.ones(3) / 2, torch.ones(3) / 2, 8)
    shape = Tets(DMTet.from_sphere(0.3, cells=16), Course(0.1, colour_lr=0.05), grid)
    framed = Framed.of(job.source, camera, *solid.surface(), 64)
    round_it = lambda shape, step: {"round": Loss(1.0, shape.surface()[0].norm(dim=1).var())}
    look = lambda step: s.around(framed.azimuth, step)
    terms = [Shown(job.source, camera, 48, mask=10.0, rgb=10.0), Pull(job.views, framed, look, Levels(), 0.1, 3.0, 48), round_it]

    def fit():
        losses = optimise(shape, terms, job.run, "ball", steps=s.steps, seed=job.seed)
        return Surface(*(x.detach() for x in shape.surface()), losses, {"colours": grid.logits.detach()})
    ball = job.run.stage("ball", fit, Surface)
    seen = ColourGrid(ball.dmtet["colours"], grid.lower, grid.upper).requires_grad_(False)
    return finish(job.source, ball, lambda clean: seen, camera, s.finish, job.run, {"losses": ball.losses}, drawn=True)

RECIPE = Recipe("ball", {"standard": Ball()}, lift, stages={"guess": 0.1, "ball": 0.7, "texture": 0.2}, needs=("first_guess", "views"))
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    assert RECIPE.count("\n") <= 40
    (tmp_path / "ball.py").write_text(RECIPE)
    spec = importlib.util.spec_from_file_location("ball", tmp_path / "ball.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ball", module)  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    oracle = Oracle()
    oracle.kind = "oracle"
    monkeypatch.setattr("bozzetto.verbs.lift._diffusion", lambda *a: (oracle, "0"))
    return module.RECIPE


def test_one_short_file_is_a_recipe(recipe, tmp_path, validate_gltf):
    told = []
    asset = lift(CHAIR, tmp_path / "whole", recipe=recipe, progress=lambda stage, share: told.append(stage))
    assert asset.is_complete and set(asset.measured["losses"]) == {"rgb", "mask", "distill", "round"}
    assert {"guess", "ball", "clean", "texture"} <= set(told)
    issues = validate_gltf(tmp_path / "whole" / "asset.glb")
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues

    class Killed(Exception):
        pass

    def kill(stage, share):
        if stage == "ball" and share > 0.7:  # after a checkpoint, which is kept at step 25, and the refinement
            raise Killed

    with pytest.raises(Killed):
        lift(CHAIR, tmp_path / "killed", recipe=recipe, progress=kill)
    assert not (tmp_path / "killed" / "asset.glb").exists()
    lift(CHAIR, tmp_path / "killed", recipe=recipe, resume=True)
    assert (tmp_path / "killed" / "asset.glb").read_bytes() == (tmp_path / "whole" / "asset.glb").read_bytes()


def test_a_lift_in_memory_writes_nothing_and_is_the_same(recipe, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    picture = Image.open(CHAIR)
    short = replace(recipe.presets["standard"], steps=4)
    one = lift(picture, recipe=recipe, settings=short)
    assert sorted(tmp_path.iterdir()) == before and one.is_complete
    two = lift(torch.from_numpy(np.array(picture)), recipe=recipe, settings=short)
    assert torch.equal(one.mesh.vertices, two.mesh.vertices) and torch.equal(one.mesh.texture, two.mesh.texture)
    assert len(repr(one)) < 3000 and "float32" in repr(one)


def test_a_text_alone_is_drawn_and_lifted(tmp_path):
    small = guess.Guess(cells=16, steps=4, picture=64, finish=Finish(faces=500, texture=64))
    asset = lift(text="a red chair", settings=small, seed=1, best_of=1)
    assert asset.source.name == "a red chair" and asset.record["settings"]["text"] == "a red chair"
    seen = asset.mesh.texture[asset.mesh.confidence > 0.5].mean(0)
    assert seen[0] > seen[2] + 0.15, seen  # red, not blue
    with pytest.raises(InputError, match="no picture given"):
        lift(out=tmp_path / "out")
    with pytest.raises(InputError, match="needs first_guess"):
        lift(CHAIR, settings=small, prior={"text": "mini"})
